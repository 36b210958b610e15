"""Ten kinds of hostile input: each answered with records, in linear work and bounded memory.

Work is counted in calls of functions, memory by tracemalloc: neither depends on the machine.
"""

from __future__ import annotations

import base64
import gzip
import json
import sys
import tracemalloc
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from certificate_forms import (
    armoured,
    base64url,
    der,
    errors,
    items_of,
    kinds,
    openssh_line,
    operated,
    paths_of,
    pem,
    tarred,
    zipped,
)
from keyassay.certificates.der import BIT_STRING, SEQUENCE, element, integer_element
from keyassay.certificates.limits import Limits
from keyassay.certificates.names import rfc4514
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.certificates.reading import ReadOptions
from keyassay.certificates.spki import RSA_ALGORITHM
from keyassay.cli.main import run

# 1. Lengths that lie


def test_lengths_that_lie_are_unreadable_or_leave_the_key_as_it_is() -> None:
    data = der()
    whole = items_of(data)[0].key
    lying = b"".join(armoured(data[:at] + bytes([data[at] ^ 0x7F]) + data[at + 1 :]) for at in range(len(data)))
    items = items_of(lying)
    assert len(items) == len(data)
    # what is changed lies outside the key, or in it: then the record shows another key, or none
    unreadable = kinds(items).count("unreadable")
    same = sum(item.key == whole for item in items)
    assert unreadable > 20
    assert same > len(data) // 2
    for size in (b"\x84\xff\xff\xff\xff", b"\x82\xff\xff", b"\x89" + b"\xff" * 9):
        assert kinds(items_of(b"\x30" + size + data)) == ["unreadable"]


# 2. Depth


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 1_000_000,
        b'{"a":' * 300_000,
        b'{"a":[' * 300_000 + b"x",
        b"\x30\x80" * 500_000,
        b"\x24\x80" * 500_000,
        armoured(b"\x30\x80" * 20_000),
    ],
    ids=["json arrays", "json objects", "json mixed", "ber", "ber strings", "ber in pem"],
)
def test_depth_is_answered_with_one_record(data: bytes) -> None:
    assert kinds(items_of(data)) == ["unreadable"]


def test_deep_der_is_answered_with_one_record() -> None:
    data = b""
    for _ in range(10_000):
        data = element(SEQUENCE, data)
    assert kinds(items_of(data)) == ["unreadable"]
    assert kinds(items_of(armoured(data))) == ["unreadable"]
    assert kinds(items_of(operated(der(), extensions=element(0xA3, data)))) == ["certificate"]


def test_a_deep_document_does_not_hide_the_line_behind_it() -> None:
    items = items_of(b'{"a":' * 10_000 + b"\n" + json.dumps({"pem": pem().decode()}).encode() + b"\n")
    assert sorted(kinds(items)) == ["certificate", "unreadable"]


# 3. Bombs


def test_bombs_cost_what_the_limits_allow() -> None:
    bomb = gzip.compress(bytes(40_000_000))
    for data in (bomb, gzip.compress(bomb), tarred({"a.pem": bomb}), zipped({"a.pem": bytes(40_000_000)})):
        items, peak = traced(lambda data=data: items_of(data))
        assert kinds(items) == ["unreadable"]
        assert "times its size" in errors(items)[0]
        assert peak < 30_000_000
    nested = pem()
    for _ in range(30):
        nested = gzip.compress(nested)
    assert errors(items_of(nested)) == ["archives are nested deeper than 16"]


# 4. Twenty megabytes without a line end


@pytest.mark.parametrize("unit", [b"A", b"MA", b"{", b'{"', b"\0", b" ", b"ssh-rsa AAAA", b'"kty"', b"=", b"-----"])
def test_a_line_of_twenty_megabytes_is_one_record(unit: bytes) -> None:
    items, peak = traced(lambda: items_of(unit * (20_000_000 // len(unit))))
    assert kinds(items) == ["unreadable"]
    assert peak < 100_000_000


# 5. Two hundred thousand BEGIN lines


def test_200_000_begin_lines_are_bounded_records() -> None:
    items = items_of(b"-----BEGIN CERTIFICATE-----\n" * 200_000)
    assert len(items) == Limits().unreadable_per_source + 1
    assert errors(items)[0] == "BEGIN without END"
    assert errors(items)[-1] == "199,000 more unreadable items in this source, the last at byte 5,599,972"


# 6. A modulus of 262,144 bits


def test_a_modulus_of_262_144_bits_is_read_in_every_form() -> None:
    modulus = (1 << 262_143) + 1
    spki = element(
        SEQUENCE,
        RSA_ALGORITHM,
        element(BIT_STRING, b"\0", element(SEQUENCE, integer_element(modulus), integer_element(65537))),
    )
    jwk = {"kty": "RSA", "e": "AQAB", "n": base64url(modulus, 32_768)}
    blob = b"".join(
        len(part).to_bytes(4, "big") + part for part in (b"ssh-rsa", b"\1\0\1", b"\0" + modulus.to_bytes(32_768, "big"))
    )
    ssh = b"ssh-rsa " + base64.b64encode(blob)
    for data in (spki, armoured(spki, "PUBLIC KEY"), operated(der(), key=spki), json.dumps(jwk).encode(), ssh):
        assert [item.key for item in items_of(data)] == [RsaPublicKey(modulus, 65537)]
    larger = json.dumps({"kty": "RSA", "e": "AQAB", "n": "w" * 1_000_000}).encode()
    assert errors(items_of(larger)) == ["1,000,036 bytes are more than the 65,536 that one item may have"]


# 7. UTF-16


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_read_and_half_of_it_is_a_record(encoding: str) -> None:
    mark = "\ufeff".encode(encoding)
    text = (pem() * 3).decode().encode(encoding)
    assert kinds(items_of(mark + text)) == kinds(items_of(text)) == ["certificate"] * 3
    assert kinds(items_of(mark + text[: len(text) // 2 - 1])) == ["certificate", "unreadable"]
    assert kinds(items_of(mark + pem())) == kinds(items_of(mark)) == kinds(items_of(mark + b"x")) == ["unreadable"]


# 8. Bidirectional and newline characters

EVIL = "a\n\r\x1b[31m\u202egnp.\u2066\x00\u200f\ud800"


def test_names_with_evil_characters_come_through_and_reports_escape_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    safe = EVIL.replace("\ud800", "")
    attribute = x509.NameAttribute(NameOID.COMMON_NAME, safe)
    subject = x509.Name([attribute]).public_bytes()
    folder = Path("fleet")
    folder.mkdir()
    name = EVIL.replace("\0", "").replace("\ud800", "\udcff") + ".pem"
    (folder / name).write_bytes(armoured(operated(der(), subject=subject)))
    (folder / f"{name}.zip").write_bytes(zipped({safe.replace("\0", "") + ".pem": pem()}))
    (folder / f"{name}.tar").write_bytes(tarred({name: pem()}, "w"))
    (item, *more) = paths_of("fleet")
    assert item.source == f"fleet/{name}"
    assert len(more) == 2
    assert item.signed is not None
    assert rfc4514(item.signed.subject) == "CN=" + safe.replace("\0", "\\00")
    for form in ("table", "jsonl", "json", "csv", "markdown", "sarif", "junit", "html"):
        assert run(["scan", "fleet", "--no-fleet", "--profile", "aws", "--format", form]) == 0
        said = capsys.readouterr().out
        controls = {one for one in said if unicodedata.category(one) in ("Cc", "Cf", "Cs") and one not in "\n\r\t"}
        assert not controls, form
        assert form != "jsonl" or len(said.splitlines()) == 3


# 9. Wrong JWKs: tests/certificates/test_decoding.py tells each; here many


def test_many_wrong_jwks_are_as_many_records() -> None:
    wrong = [
        {"kty": "RSA"},
        {"kty": 5},
        {"kty": "EC", "crv": {}},
        {"kty": "RSA", "n": "\u00e9", "e": "AQAB"},
        {"kty": ""},
    ]
    items = items_of(json.dumps({"keys": wrong * 100}).encode())
    assert len(items) == 500
    assert not any(item.assessed for item in items)


# 10. A folder without read permission: tests/certificates/test_reading.py


# All of them


def traced(work: Callable[[], list]) -> tuple[list, int]:
    """What it gives, and the most bytes that Python held meanwhile."""
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def calls(work: Callable[[], object]) -> int:
    """How many functions were called, those written in C included."""
    count = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    was = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(was)
    return count


GROWING: dict[str, Callable[[int], bytes]] = {
    "begin lines": lambda n: b"-----BEGIN CERTIFICATE-----\n" * n,
    "begin markers cut short": lambda n: b"-----BEGIN \n" * n,
    "begin lines, then end lines": lambda n: b"-----BEGIN A-----\n" * n + b"-----END A-----\n" * n,
    "end lines": lambda n: b"-----END CERTIFICATE-----\n" * n,
    "begin on one line": lambda n: b'{"pem":"-----BEGIN CERTIFICATE-----"}' * n,
    "begin in lines of json": lambda n: b'{"pem":"-----BEGIN CERTIFICATE-----"}\n' * n,
    "braces": lambda n: b"{\n" * n,
    "braces and signs": lambda n: b'{"kty"\n' * n,
    "lines of json": lambda n: b'{"a":1}\n' * n,
    "documents on one line": lambda n: b'{"a":1}' * n,
    "values": lambda n: b"[" + b"{}," * n + b"{}]",
    "openssh lines": lambda n: (openssh_line() + b"\n") * (n // 10),
    "openssh lines without keys": lambda n: b"ssh-rsa AAAA\n" * n,
    "base64 lines that are nothing": lambda n: (b"MII" + b"A" * 60 + b"\n") * n,
    "certificates": lambda n: pem() * (n // 10),
    "quoted certificates": lambda n: b"> " + pem().replace(b"\n", b"\n> ") * (n // 10),
    "der": lambda n: der() * (n // 10),
    "tiny der": lambda n: b"\x30\x03\x02\x01\x05" * n,
    "members of zip": lambda n: zipped({f"{number}.pem": b"" for number in range(n // 10)}),
    "members of tar": lambda n: tarred({f"{number}.pem": b"" for number in range(n // 10)}, "w"),
    "streams of gzip": lambda n: gzip.compress(b"") * n,
    "jwks": lambda n: json.dumps({"keys": [{"kty": "RSA"}] * n}).encode(),
    "empty lines": lambda n: b"\n" * n,
    "ssh2 lines": lambda n: b"---- BEGIN SSH2 PUBLIC KEY ----\n" * n,
}


@pytest.mark.parametrize("name", GROWING)
def test_twice_the_input_is_at_most_twice_the_work(name: str) -> None:
    grow = GROWING[name]
    options = ReadOptions(limits=Limits(unreadable_per_source=10**9))
    small, large = grow(2_000), grow(4_000)
    calls(lambda: items_of(small, options))  # fill caches
    assert calls(lambda: items_of(large, options)) <= 2.2 * calls(lambda: items_of(small, options)) + 500


@pytest.mark.parametrize("name", GROWING)
def test_memory_is_bounded_by_a_multiple_of_the_input(name: str) -> None:
    data = GROWING[name](4_000)
    _, peak = traced(lambda: [None for _ in items_of(data)])
    assert peak < 40 * len(data) + 6_000_000
