"""Names: the short way gives what the general one gives, on sound names and on damaged ones; escapes of RFC 4514."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from keyassay.certificates import names
from keyassay.certificates.der import OID, SEQUENCE, SET, element, oid_element

ATTRIBUTES = ("2.5.4.3", "2.5.4.10", "0.9.2342.19200300.100.1.25", "2.5.4.5", "1.2.3.4")
VALUES = st.text(max_size=20) | st.text('abc #+,;<>=\\"\0 ', max_size=8)
SETS = st.lists(st.tuples(st.sampled_from(ATTRIBUTES), st.sampled_from((0x0C, 0x13, 0x1E, 0x04)), VALUES), max_size=2)


def relative(attributes: list[tuple[str, int, str]]) -> bytes:
    encoded = []
    for oid, tag, value in attributes:
        octets = value.encode("utf-16-be" if tag == 0x1E else "utf-8", "replace")
        encoded.append(element(SEQUENCE, oid_element(oid), element(tag, octets)))
    return element(SET, *encoded)


@given(st.lists(SETS, max_size=4), st.none() | st.tuples(st.integers(0, 200), st.integers(0, 255)))
def test_the_short_way_gives_what_the_general_one_gives(
    parts: list[list[tuple[str, int, str]]], damage: tuple[int, int] | None
) -> None:
    data = bytearray(element(SEQUENCE, *(relative(part) for part in parts)))
    if damage is not None:
        data[damage[0] % len(data)] = damage[1]
    assert names.rfc4514_once(bytes(data)) == names._general(bytes(data)) == names.rfc4514(bytes(data))


@given(st.binary(max_size=40))
def test_whatever_the_bytes_are_there_is_a_text(data: bytes) -> None:
    assert names.rfc4514_once(data) == names._general(data)


@pytest.mark.parametrize("value", ["device-1", "a,b", "#x", " x ", 'say "so"', "a+b;c<d>e\\f", "x=y"])
def test_escapes_are_those_of_cryptography(value: str) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value), x509.NameAttribute(NameOID.COUNTRY_NAME, "DE")])
    assert x509.Name.from_rfc4514_string(names.rfc4514_once(name.public_bytes())) == name


def test_a_name_of_nothing_is_empty() -> None:
    assert names.rfc4514_once(b"") == ""
    assert names.rfc4514_once(element(SEQUENCE)) == ""
    assert names.rfc4514_once(element(SEQUENCE, element(SET, element(SEQUENCE, element(OID, b"\x2a"))))).startswith("#")
