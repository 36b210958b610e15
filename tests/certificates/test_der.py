"""The walk over DER: what it writes it reads, what it refuses it refuses with a sentence, times as a calendar has them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from keyassay.certificates.der import (
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    DerError,
    children,
    element,
    expect,
    integer,
    integer_element,
    oid_element,
    oid_text,
    time_seconds,
    tlv,
)


@given(st.sampled_from([OCTET_STRING, SEQUENCE, 0xA0, 0x0C]), st.binary(max_size=300), st.binary(max_size=3))
def test_an_element_written_is_the_element_read(tag: int, contents: bytes, more: bytes) -> None:
    data = element(tag, contents) + more
    found, start, stop = tlv(data, 0, len(data))
    assert (found, data[start:stop], data[stop:]) == (tag, contents, more)


@given(st.integers())
def test_integers_come_back(number: int) -> None:
    data = integer_element(number)
    start, stop = expect(data, 0, len(data), INTEGER, "number")
    assert integer(data, start, stop) == number
    if number >= 0:
        assert stop - start == number.bit_length() // 8 + 1


@given(st.integers(0, 2), st.integers(0, 39), st.lists(st.integers(0, 2**70), max_size=5))
def test_identifiers_come_back(first: int, second: int, rest: list[int]) -> None:
    dotted = ".".join(map(str, [first, second, *rest]))
    data = oid_element(dotted)
    start, stop = expect(data, 0, len(data), OID, "identifier")
    assert oid_text(data[start:stop]) == dotted


@pytest.mark.parametrize("contents", [b"", b"\x80", b"\x2a\x86", b"\x2a" * 65, b"\xff" * 100_000])
def test_malformed_identifiers_have_a_short_text_all_the_same(contents: bytes) -> None:
    assert oid_text(contents) == "?" + contents[:16].hex()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated at byte 0"),
        (b"\x30", "truncated at byte 0"),
        (b"\x30\x01", "length at byte 0 exceeds its surroundings"),
        (b"\x30\x80\0\0", "bad length at byte 0"),
        (b"\x30\x85\x01\0\0\0\0", "bad length at byte 0"),
        (b"\x30\x82\x01", "bad length at byte 0"),
        (b"\x30\x84\xff\xff\xff\xff", "length at byte 0 exceeds its surroundings"),
        (b"\x30\x81\x01\0", "length not minimal at byte 0"),
        (b"\x30\x82\0\x01\0", "length not minimal at byte 0"),
        (b"\x1f\x81\x01\0", "length not minimal at byte 0"),
        (b"\xbf\x01\0", "tag of several bytes at byte 0"),
    ],
)
def test_what_is_no_element_is_refused_with_its_place(data: bytes, reason: str) -> None:
    with pytest.raises(DerError, match=reason):
        tlv(data, 0, len(data))


@given(st.binary(max_size=60), st.integers(0, 70), st.integers(0, 70))
def test_the_walk_stays_inside_and_raises_nothing_but_its_error(data: bytes, at: int, end: int) -> None:
    try:
        _, start, stop = tlv(data, at, min(end, len(data)))
    except DerError:
        return
    assert at < start <= stop <= min(end, len(data))


def test_children_are_bounded() -> None:
    data = b"\x05\0" * 100
    assert len(children(data, 0, 200, most=100)) == 100
    with pytest.raises(DerError, match="too many elements"):
        children(data, 0, 200, most=99)
    with pytest.raises(DerError, match="empty integer"):
        integer(b"", 0, 0)


@given(st.datetimes(datetime(1950, 1, 1), datetime(9999, 12, 31)))
def test_times_are_those_of_the_calendar(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    text = moment.strftime("%Y").zfill(4) + moment.strftime("%m%d%H%M%SZ")
    assert time_seconds(0x18, text.encode()) == int(moment.timestamp())
    if moment.year < 2050:
        assert time_seconds(0x17, text[2:].encode()) == int(moment.timestamp())


@pytest.mark.parametrize(
    "contents",
    [b"", b"Z", b"240101000000", b"2401010000Z", b"241301000000Z", b"240101000000+0000", b"\xff" * 13, b"9" * 100_000],
)
def test_times_that_cannot_be_read_are_none(contents: bytes) -> None:
    assert time_seconds(0x17, contents) is None
    assert time_seconds(0x18, contents) is None


def test_identifiers_are_those_of_the_library() -> None:
    for dotted in ("2.5.4.3", "1.2.840.113549.1.1.11", "2.999.1", "1.3.101.112"):
        name = x509.Name([x509.NameAttribute(x509.ObjectIdentifier(dotted), "x")]).public_bytes()
        assert oid_element(dotted) in name
