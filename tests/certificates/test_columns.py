"""The walk over columns against the walk over one certificate: the same items, whatever happened to the bytes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x448
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.certificates.decoding import ItemBlock, decode, signature_algorithms, validity_columns
from keyassay.certificates.item import Item, RawItem

SIGNER = ec.derive_private_key(77, ec.SECP256R1())


def certificate(key: object, serial: int = 4711, begins: int = 2020, ends: int = 2030) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device-1")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Maker")]))
        .public_key(key)  # type: ignore[arg-type]
        .serial_number(serial)
        .not_valid_before(datetime(begins, 2, 28, 23, 59, 58, tzinfo=UTC))
        .not_valid_after(datetime(ends, 3, 1, tzinfo=UTC) + timedelta(seconds=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(SIGNER, hashes.SHA384())
    )
    return made.public_bytes(serialization.Encoding.DER)


@cache
def certificates() -> tuple[bytes, ...]:
    numbers = rsa.RSAPublicNumbers(65537, (1 << 2047) + 12345)
    return (
        certificate(numbers.public_key()),
        certificate(rsa.RSAPublicNumbers(3, (1 << 1022) + 1).public_key(), serial=1 << 150),
        certificate(ec.derive_private_key(3, ec.SECP256R1()).public_key(), serial=128, begins=1960, ends=2060),
        certificate(ec.derive_private_key(3, ec.SECP521R1()).public_key(), begins=2049, ends=2050),
        certificate(ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32).public_key(), begins=1999, ends=2000),
        certificate(x448.X448PrivateKey.from_private_bytes(b"k" * 56).public_key()),
        certificate(dsa.DSAPublicNumbers(5, dsa.DSAParameterNumbers((1 << 1023) + 9, (1 << 159) + 7, 2)).public_key()),
    )


def seen(item: Item) -> tuple[object, ...]:
    public = (item.source, item.index, item.offset, item.kind, item.der, item.spki, item.key, item.error, item.notices)
    fields = item.signed
    return (*public, *(getattr(fields, name) for name in fields.__slots__)) if fields is not None else public


def compare(encodings: list[bytes]) -> ItemBlock:
    """Decode together and one by one; the columns have to say what the items say."""
    raws = [RawItem("x.pem", row, 10 * row, "CERTIFICATE", data) for row, data in enumerate(encodings)]
    raws += [RawItem("x.pem", len(raws), 0, "", b"", "damaged"), RawItem("x.pem", 0, 0, "CERTIFICATE", b"", None, "n")]
    together = decode([*raws, *raws[:1] * 16])
    single = [decode([raw])[0] for raw in raws]
    assert [seen(item) for item in together[: len(raws)]] == [seen(item) for item in single]
    before, after = validity_columns(together)
    one_by_one = [validity_columns([item]) for item in single]
    assert before[: len(raws)].tolist() == [int(pair[0][0]) for pair in one_by_one]
    assert after[: len(raws)].tolist() == [int(pair[1][0]) for pair in one_by_one]
    assert signature_algorithms(together)[: len(raws)] == [signature_algorithms([item])[0] for item in single]
    return together


def test_sound_certificates_are_read_by_columns() -> None:
    block = compare(list(certificates()))
    assert block.columns is not None
    assert block.columns.sound[:7].tolist() == [True] * 6 + [False]  # DSA is read one by one
    assert block.columns.rsa[:7].tolist() == [True, True, False, False, False, False, False]
    assert not block.columns.sound[7:9].any()
    assert [item.key.type for item in block[:7] if item.key] == ["rsa", "rsa", "ec", "ec", "ed25519", "x448", "dsa"]


MUTATIONS = st.tuples(
    st.integers(0, 6), st.sampled_from(("set", "cut", "insert", "double")), st.integers(0, 700), st.integers(0, 255)
)


def mutated(which: int, how: str, place: int, value: int) -> bytes:
    data = bytearray(certificates()[which])
    place %= len(data)
    if how == "set":
        data[place] = value
    elif how == "cut":
        del data[place:]
    elif how == "insert":
        data.insert(place, value)
    else:
        data += data[:value]
    return bytes(data)


@settings(max_examples=150, deadline=None)
@given(st.lists(MUTATIONS, min_size=1, max_size=12))
def test_damaged_certificates_are_read_as_one_by_one(mutations: list[tuple[int, str, int, int]]) -> None:
    compare([mutated(*mutation) for mutation in mutations])


@pytest.mark.parametrize("first", [0x01, 0x7F, 0x80, 0xFF])
def test_negative_serial_numbers_keep_their_notice(first: int) -> None:
    data = bytearray(certificates()[0])
    assert data[13:15] == b"\x02\x02"  # serial 4711
    data[15] = first
    block = compare([bytes(data)] * 20)
    assert all(item.notices == (("the serial number is negative",) if first >= 0x80 else ()) for item in block[:20])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=12))
def test_whatever_the_bytes_are_nothing_is_raised(encodings: list[bytes]) -> None:
    compare([*encodings, b"\x30\x82" + encodings[0]])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"200228235958Z", b"200230235958Z"),  # no such day
        (b"200228235958Z", b"200229235958Z"),  # a leap day
        (b"200228235958Z", b"210229235958Z"),
        (b"200228235958Z", b"001328235958Z"),
        (b"200228235958Z", b"200228245958Z"),
        (b"200228235958Z", b"200228235999Z"),
        (b"200228235958Z", b"2002282359580"),
        (b"200228235958Z", b"20022823595/Z"),
        (b"200228235958Z", b"490101000000Z"),
        (b"200228235958Z", b"500101000000Z"),
    ],
)
def test_times_are_those_of_single_reading(old: bytes, new: bytes) -> None:
    data = certificates()[0]
    assert data.count(old) == 1
    compare([data.replace(old, new)])


def test_columns_of_no_certificate_have_no_sound_row() -> None:
    block = decode([RawItem("x", row, 0, "", b"", "damaged") for row in range(20)])
    assert block.columns is not None
    assert not np.any(block.columns.sound | block.columns.rsa | block.columns.timed)
