"""Every reader on damaged and made-up input: no exception, bounded output, every item decodes or says why not.

``FUZZ_EXAMPLES=100000 pytest tests/certificates/test_fuzz.py`` fuzzes for longer than the few seconds of a test run.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from certificate_forms import (
    EXPLICIT_FALSE,
    KEYSTORES,
    armoured,
    der,
    forms,
    jwk,
    openssh_line,
    operated,
    pem,
    tarred,
    zipped,
)
from keyassay.certificates import keystores, reading
from keyassay.certificates.decoding import decode, signature_algorithms, validity_columns
from keyassay.certificates.der import element
from keyassay.certificates.item import Item, Kind, RawItem
from keyassay.certificates.limits import Limits
from keyassay.certificates.names import rfc4514
from keyassay.certificates.reading import ReadOptions, read_bytes

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))
THOROUGH = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
OPTIONS = ReadOptions(passwords=(b"changeit",))


@pytest.fixture(autouse=True, scope="module")
def cheap_derivation() -> Iterator[None]:
    """Damaged iteration counts are to be refused, not worked off."""
    was, keystores._DERIVATION_WORK = keystores._DERIVATION_WORK, 30_000
    yield
    keystores._DERIVATION_WORK = was


@cache
def seeds() -> dict[str, bytes]:
    """What is damaged: every form, every key store, archives."""
    stores = {path.name: path.read_bytes() for path in KEYSTORES.iterdir() if path.suffix != ".md"}
    return {
        **{name: data for name, (data, _) in forms().items()},
        **stores,
        "zip": zipped({"a.pem": pem(), "b.zip": zipped({"c.der": der()})}),
        "tar with all": tarred({name: data for name, (data, _) in forms().items() if len(data) < 3_000}, "w"),
        "bundle": pem() + b"\n".join(b"> " + line for line in pem("b").splitlines()) + b"\n" + openssh_line(),
        "odd certificate": operated(der(), extensions=EXPLICIT_FALSE),
        "lines of json": b"".join(json.dumps({"pem": pem().decode(), "k": jwk()}).encode() + b"\n" for _ in range(3)),
    }


def raw_items(data: bytes, options: ReadOptions = OPTIONS) -> list[RawItem]:
    return [raw for block in read_bytes(data, options) for raw in block]


def check(data: bytes, *, packed: bool = False) -> list[Item]:
    """Read, decode, and hold what must always hold."""
    raw = raw_items(data)
    items = decode(raw)
    assert len(items) == len(raw)
    assert raw or not data.strip(), "nothing said about a source that the user named"
    counts: dict[str, int] = {}
    for one, item in zip(raw, items, strict=True):
        assert one.position == counts.get(one.source, 0) == item.index
        counts[one.source] = one.position + 1
        assert one.offset >= 0
        if one.source == "-" and not packed:
            assert one.offset <= len(data)
        assert (item.kind is Kind.UNREADABLE) <= bool(item.error)
        assert len(item.error or "") < 500
        assert all(len(notice) < 500 for notice in item.notices)
        assert item.assessed == (not item.error)
        assert item.kind in (Kind.UNREADABLE, Kind.CRL, Kind.OCSP_RESPONSE) or item.key is not None
        if item.signed is not None:
            rfc4514(item.signed.subject), rfc4514(item.signed.issuer)
        assert item.sha256 is None or len(item.sha256) == 32
        assert item.spki_sha256 is None or len(item.spki_sha256) == 32
    validity_columns(items)
    assert len(signature_algorithms(items)) == len(items)
    if not packed:
        assert sum(len(one.data) for one in raw) <= 8 * len(data)
    return items


@st.composite
def damaged(draw: st.DrawFn, names: list[str] | None = None) -> tuple[str, bytes]:
    """A seed with bytes changed, cut out, doubled or taken from another seed."""
    chosen = sorted(names or seeds())
    name = draw(st.sampled_from(chosen))
    data = bytearray(seeds()[name])
    for _ in range(draw(st.integers(0, 5))):
        place = draw(st.integers(0, len(data)))
        length = draw(st.integers(1, 60))
        match draw(st.sampled_from(["flip", "set", "cut", "end", "insert", "double", "splice", "token"])):
            case "flip" if place < len(data):
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "set" if place < len(data):
                data[place] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0x82, 0x84, 0xFF, 0x30, 0x0A]))
            case "cut":
                del data[place : place + length]
            case "end":
                del data[place:]
            case "insert":
                data[place:place] = draw(st.binary(max_size=8))
            case "double":
                data[place:place] = data[place : place + length]
            case "splice":
                other = seeds()[draw(st.sampled_from(chosen))]
                start = draw(st.integers(0, len(other)))
                data[place:place] = other[start : start + 20 * length]
            case "token":
                data[place:place] = draw(st.sampled_from(TOKENS))
    return name, bytes(data)


TOKENS = [
    b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b"-----BEGIN ", b"-----END ", b"-----", b"\n", b"\r\n", b"\r",
    b"-----BEGIN X509 CRL-----\n", b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n",
    b"---- BEGIN SSH2 PUBLIC KEY ----\n", b"---- END SSH2 PUBLIC KEY ----\n", b"Comment: x\\\n", b"{", b"}", b"[", b"]", b'"', b",", b":",
    b'{"kty":"RSA","n":"AQAB","e":"Aw"}', b'{"kty":', b'"x5c":["', b"\\n", b"\\u002d", b"\\/", b"AAAA", b"ssh-rsa ", b"ssh-ed25519 AAAA",
    b"ecdsa-sha2-nistp256 AAAA", b"MII", b"MIIB" + b"A" * 40, b"=", b"==", b"> ", b"+", b"//", b"\0", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf",
    b"0", b"0\x80", b"0\x82", b"0\x84\xff\xff\xff\xff", b"\x1f\x8b\x08", b"BZh91AY&SY", b"\xfd7zXZ\0", b"PK\x03\x04", b"ustar", b"\xfe\xed\xfe\xed",
    b"9" * 5000, b"[" * 2000,
]  # fmt: skip

PACKED = ("zip", "tar", "gzip", "bzip2", "xz", ".gz", ".bz2", ".xz")


@given(damaged())
@THOROUGH
def test_damaged_forms_give_items_or_reasons(seed: tuple[str, bytes]) -> None:
    name, data = seed
    check(data, packed=any(word in name for word in PACKED) or b"PK\x03\x04" in data or b"\x1f\x8b" in data)


@given(st.lists(st.sampled_from(TOKENS) | st.binary(max_size=4), max_size=30).map(b"".join))
@THOROUGH
@example(b'{"kty":"EC","crv":[]}')
@example(b"-----BEGIN CERTIFICATE-----MAA=-----END CERTIFICATE-----")
@example(b"\xff\xfe")
@example(b"0\x80")
def test_text_of_tokens_gives_items_or_reasons(data: bytes) -> None:
    check(data, packed=True)


TREES: st.SearchStrategy[bytes] = st.recursive(
    st.builds(
        element,
        st.sampled_from([1, 2, 3, 4, 5, 6, 10, 12, 0x17, 0x18, 0x80, 0x1F]),
        st.binary(max_size=8) | st.sampled_from([b"\x2a\x86\x48\xce\x3d\x02\x01", b"240101000000Z", b"\x01\x00\x01"]),
    ),
    lambda inner: st.builds(
        lambda tag, parts: element(tag, *parts), st.sampled_from([0x30, 0x31, 0xA0, 0xA3, 0x24]), st.lists(inner, max_size=9)
    ),
    max_leaves=40,
)  # fmt: skip
LABELS = [
    "", "CERTIFICATE", "CERTIFICATE REQUEST", "PUBLIC KEY", "RSA PUBLIC KEY", "X509 CRL", "OCSP RESPONSE", "PKCS7", "PKCS12",
    "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY", "OPENSSH PRIVATE KEY",
    "TRUSTED CERTIFICATE", "WHATEVER",
]  # fmt: skip


@given(TREES, st.sampled_from(LABELS), st.none() | st.tuples(st.integers(0, 10**6), st.integers(0, 255)))
@THOROUGH
def test_trees_of_der_under_every_label_give_items_or_reasons(
    tree: bytes, label: str, damage: tuple[int, int] | None
) -> None:
    data = bytearray(tree)
    if damage is not None:
        data[damage[0] % len(data)] = damage[1]
    check(armoured(bytes(data), label) if label else bytes(data))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=10)
    | st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "AQAB", "AA", "!", pem().decode()]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["kty", "crv", "n", "e", "x", "y", "d", "k", "x5c", "keys", "pem"]), inner, max_size=6
        )
    ),
    max_leaves=20,
)


@given(st.lists(JSON, min_size=1, max_size=3), st.sampled_from(["", "\n"]), st.sampled_from([None, 1]))
@THOROUGH
def test_json_of_any_shape_gives_items_or_reasons(values: list[object], between: str, indent: int | None) -> None:
    check(between.join(json.dumps(value, indent=indent) for value in values).encode())


@given(st.binary(max_size=200), st.sampled_from(["ssh-rsa", "ssh-dss", "ssh-ed25519", "ecdsa-sha2-nistp256", "x"]))
@THOROUGH
def test_openssh_keys_of_any_bytes_give_items_or_reasons(blob: bytes, name: str) -> None:
    encoded = name.encode()
    check(encoded + b" " + base64.b64encode(len(encoded).to_bytes(4, "big") + encoded + blob) + b" me\n")


@contextmanager
def chunks_of(count: int) -> Iterator[None]:
    was, reading.CHUNK = reading.CHUNK, count
    try:
        yield
    finally:
        reading.CHUNK = was


@given(
    damaged(["bundle", "csv", "quoted", "authorized_keys", "lines of json", "base64 lines", "der twice", "rsa private"])
)
@THOROUGH
def test_where_chunks_end_makes_no_difference_to_damaged_text(seed: tuple[str, bytes]) -> None:
    options = ReadOptions(limits=Limits(item_bytes=2_000, line_bytes=3_000))
    _, data = seed
    # one document of JSON is read whole in either case, and folded base64 only if it is short
    data = b"x\n" + data
    whole = raw_items(data, options)
    with chunks_of(97):
        assert raw_items(data, options) == whole


@given(damaged(["zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "gzip", "bzip2", "xz", "der twice", "keytool.jks"]))
@THOROUGH
def test_where_chunks_end_makes_no_difference_to_damaged_archives(seed: tuple[str, bytes]) -> None:
    _, data = seed

    def found() -> tuple[list[RawItem], bool]:
        items = raw_items(data)
        return [raw for raw in items if raw.error is None], any(raw.error for raw in items)

    whole = found()
    with chunks_of(600):
        assert found() == whole
