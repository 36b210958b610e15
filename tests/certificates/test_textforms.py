"""Text by real tools (openssl, ssh-keygen), text with damage, and lines that stand for something that is lost."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from certificate_forms import (
    PEM,
    SPKI,
    armoured,
    der,
    errors,
    items_of,
    jwk,
    kinds,
    openssh_line,
    openssl,
    paths_of,
    pem,
    rsa_key,
)
from keyassay.certificates.item import Kind
from keyassay.certificates.limits import Limits
from keyassay.certificates.public_key import UnsupportedPublicKey
from keyassay.certificates.reading import ReadOptions


@pytest.fixture(scope="module")
def ssh_keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("ssh")
    made = {}
    for kind, bits in (("rsa", "2048"), ("ecdsa", "384"), ("ed25519", "256")):
        made[kind] = folder / kind
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-b", bits, "-N", "", "-C", "me", "-f", made[kind]], check=True)
    return made


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_what_ssh_keygen_writes_is_read_to_the_same_key(kind: str, ssh_keys: dict[str, Path]) -> None:
    path = ssh_keys[kind]
    (public,) = paths_of(path.with_suffix(".pub"))
    assert (public.kind, public.assessed) == (Kind.PUBLIC_KEY, True)
    (private,) = paths_of(path)
    assert private.kind is Kind.PRIVATE_KEY
    forms = ["RFC4716"] if kind == "ed25519" else ["RFC4716", "PKCS8", "PEM"]
    exported = [
        subprocess.run(["ssh-keygen", "-e", "-m", form, "-f", path], capture_output=True, check=True).stdout
        for form in forms
        if (kind, form) != ("ecdsa", "PEM")
    ]
    for data in exported:
        (item,) = items_of(data)
        assert item.key == public.key == private.key
        assert item.spki_sha256 == public.spki_sha256


def test_encrypted_openssh_keys_show_their_public_part(ssh_keys: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", path], check=True)
    (private,) = paths_of(path)
    (public,) = paths_of(path.with_suffix(".pub"))
    assert (private.kind, private.key) == (Kind.PRIVATE_KEY, public.key)


def test_ssh_certificates_give_the_key_they_certify(ssh_keys: dict[str, Path], tmp_path: Path) -> None:
    for kind in ("rsa", "ecdsa", "ed25519"):
        copy = tmp_path / f"{kind}.pub"
        copy.write_bytes(ssh_keys[kind].with_suffix(".pub").read_bytes())
        subprocess.run(["ssh-keygen", "-q", "-s", ssh_keys["ed25519"], "-I", "x", copy], check=True)
        (certified,) = paths_of(tmp_path / f"{kind}-cert.pub")
        (public,) = paths_of(copy)
        assert certified.key == public.key


def test_hashed_known_hosts_are_read(ssh_keys: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_bytes(b"[example.org]:2222 " + ssh_keys["rsa"].with_suffix(".pub").read_bytes())
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", path], check=True, capture_output=True)
    assert path.read_bytes().startswith(b"|1|")
    assert kinds(paths_of(path)) == ["public-key"]


def test_security_keys_and_unknown_kinds() -> None:
    def blob(*parts: bytes) -> bytes:
        return base64.b64encode(b"".join(len(part).to_bytes(4, "big") + part for part in parts))

    sk = b"sk-ssh-ed25519@openssh.com "
    items = items_of(sk + blob(sk.strip(), bytes(32), b"ssh:") + b"\n")
    assert kinds(items) == ["public-key"]
    assert items[0].key is not None
    assert items[0].key.type == "ed25519"
    for name, more in ((b"ssh-xmss@openssh.com", (b"x",)), (b"ecdsa-sha2-nistp9", (b"nistp9", b"\4"))):
        (item,) = items_of(name + b" " + blob(name, *more))
        assert isinstance(item.key, UnsupportedPublicKey)
        assert not item.assessed
        assert (item.error or "").startswith("not assessed")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"ssh-rsa AAAAB3NzaC1yc2E= me", "truncated SSH key"),
        (b"ssh-rsa AAAAB3NzaC1yc2EA1 me", "bad base64 in an SSH key"),
        (b"ssh-ed25519 !!!! me", "an OpenSSH key whose base64 is damaged"),
        (b"ssh-rsa me@host", "an OpenSSH key whose base64 is damaged"),
    ],
)
def test_damaged_ssh_keys_are_records_at_their_line(line: bytes, reason: str) -> None:
    data = openssh_line() + b"\n" + line + b"\n" + openssh_line() + b"\n"
    items = items_of(data)
    assert kinds(items) == ["public-key", "unreadable", "public-key"]
    assert (items[1].error or "").startswith(reason)
    assert items[1].offset == len(openssh_line()) + 1


# PEM


def test_places_are_those_of_the_markers() -> None:
    data = b"prose\n" + pem() + b"\n> " + pem("b").replace(b"\n", b"\n> ") + b"\n" + pem("c")
    items = items_of(data)
    assert [data[item.offset :][:27] for item in items] == [b"-----BEGIN CERTIFICATE-----"] * 3


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (pem().replace(b"M", b"!", 1), "bad base64 between the PEM markers"),
        (pem().replace(b"END CERTIFICATE", b"END X509 CRL"), "BEGIN CERTIFICATE ends with END X509 CRL"),
        (pem().replace(b"-----END CERTIFICATE-----\n", b""), "BEGIN without END"),
        (pem().replace(b"-----BEGIN CERTIFICATE-----\n", b"----BEGIN CERTIFICATE-----\n"), "END without BEGIN"),
        (pem().replace(b"-----BEGIN CERTIFICATE-----", b"-----BEGIN certificate-----"), "damaged PEM markers"),
        (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "nothing between BEGIN CERTIFICATE and END"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\nA: b\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n", "an OpenPGP"),
        (armoured(b"\x30\x03\x02\x01\x05", "WHATEVER"), "unknown structure labelled WHATEVER"),
        (armoured(der()[:-5]), "length at byte 0 exceeds its surroundings"),
        (armoured(b"\x30" * 80_000), "no END within the 98,304 bytes that it may take"),
    ],
    ids=[
        "base64",
        "other end",
        "no end",
        "begin",
        "label",
        "empty",
        "pgp",
        "unknown",
        "cut",
        "long",
    ],
)
def test_a_damaged_block_is_one_record_and_reading_goes_on(block: bytes, reason: str) -> None:
    items = items_of(pem("a") + block + pem("z"))
    assert kinds(items) == ["certificate", "unreadable", "certificate"], errors(items)
    assert reason in (items[1].error or "")
    assert abs(items[1].offset - len(pem("a"))) <= len(block)


def test_a_wrong_label_does_not_hide_what_it_is() -> None:
    items = items_of(armoured(der(), "X509 CRL") + armoured(der(), "PUBLIC KEY") + armoured(der(), "RSA PRIVATE KEY"))
    assert kinds(items) == ["certificate"] * 2 + ["unreadable"]
    assert "labelled X509 CRL, but it is a certificate" in items[0].notices
    (item,) = items_of(
        openssl("rsa", "-pubin", "-RSAPublicKey_out", data=rsa_key().public_key().public_bytes(PEM, SPKI)).replace(
            b"RSA PUBLIC", b"PUBLIC"
        )
    )
    assert item.kind is Kind.PUBLIC_KEY


# JSON


def test_json_in_all_shapes() -> None:
    text = pem().decode()
    documents = [
        {"a": {"b": [{"c": text}]}},
        [text, text],
        {"x5c": [base64.b64encode(der()).decode()]},
        {"pem": text.replace("\n", "\r\n")},
        {"bundle": text + "\nprose\n" + pem("b").decode()},
        {"key": openssh_line().decode()},
        {"message": json.dumps({"inner": text})},
    ]
    counts = [len(items_of(json.dumps(document).encode())) for document in documents]
    assert counts == [1, 2, 1, 1, 2, 1, 1]
    pretty = b"\n".join(json.dumps(document, indent=2).encode() for document in documents)
    assert len(items_of(pretty)) == sum(counts)
    assert all(item.assessed for item in items_of(pretty))
    markers = [place for place in range(len(pretty)) if pretty.startswith(b"-----BEGIN", place)]
    assert [item.offset for item in items_of(pretty) if item.offset in markers] == markers


def test_a_damaged_line_among_lines_of_json_is_a_record() -> None:
    good = json.dumps({"pem": pem().decode()}).encode()
    lines = [b'{"certificateId": "ab', good, b'{"pem": ', b'{"message": "nothing of ours"}', good[:-30], good]
    items = items_of(b"\n".join(lines))
    assert kinds(items) == ["certificate", "unreadable", "unreadable", "unreadable", "certificate"]
    assert sorted(item.offset for item in items[1:3]) == [0, len(lines[0]) + len(lines[1]) + 2]
    assert errors(items)[3] == "BEGIN without END"


def test_braces_of_other_languages_are_no_damaged_json() -> None:
    items = items_of(b"int main() \n{\n  return 0;\n" + pem() + b"{ x\n")
    assert kinds(items) == ["certificate"]


def test_a_damaged_line_among_lines_of_base64_is_a_record() -> None:
    lines = [base64.b64encode(der(name)) for name in "abc"]
    cut = lines[1][:-8]
    items = items_of(b"\n".join((cut, lines[0], cut, lines[2])))
    assert kinds(items) == ["certificate", "unreadable", "unreadable", "certificate"]
    assert kinds(items_of(b"MIIB is a word of four letters\n" + pem())) == ["certificate"]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_numbers_of_any_length_do_not_hide_the_rest_of_json(count: int) -> None:
    data = b'{"n": ' + b"9" * 10**count + b', "pem": ' + json.dumps(pem().decode()).encode() + b"}"
    assert kinds(items_of(data)) == ["certificate"]


def test_jwks_with_keys_that_are_none() -> None:
    keys = [jwk(), {"kty": []}, {"kty": "RSA"}, {"kty": "oct", "k": "AAAA"}, {"kty": "AKP", "alg": "ML-DSA-44"}, jwk()]
    items = items_of(json.dumps({"keys": keys}).encode())
    assert kinds(items) == ["public-key", "unreadable", "unreadable", "private-key", "public-key", "public-key"]
    assert [item.assessed for item in items] == [True, False, False, False, False, True]


def test_a_long_line_is_told_once_and_pem_in_it_is_read() -> None:
    options = ReadOptions(limits=Limits(line_bytes=10_000))
    escaped = json.dumps(pem().decode()).encode()
    items = items_of(b"x" * 20_000 + escaped + b"y" * 20_000 + escaped + b"\n" + pem("b"), options)
    assert sorted(kinds(items)) == ["certificate"] * 3 + ["unreadable"] * 2
    assert kinds(items_of(b"x" * 9_000 + b"\n" + b"y" * 9_000 + b"\n" + pem(), options)) == ["certificate"]
