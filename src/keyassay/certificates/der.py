"""A bounded walk over DER: tags, definite lengths, integers, object identifiers.

Nothing is recursive and nothing is raised but ``DerError``. It accepts what the checks need to see (negative serials,
explicit defaults) and refuses what has no one meaning.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x02, 0x03, 0x04, 0x05, 0x06
SEQUENCE, SET = 0x30, 0x31


class DerError(ValueError):
    """The bytes are not the DER that was expected; the text says where and why."""


def tlv(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """One element.

    Args:
        data: the bytes.
        at: where the element starts.
        end: where its surroundings end.

    Returns:
        (tag, start of the contents, end of the contents).

    Raises:
        DerError: truncated, indefinite or non-minimal length, multi-byte tag, or beyond ``end``.
    """
    if at + 2 > end:
        raise DerError(f"truncated at byte {at}")
    tag = data[at]
    length = data[at + 1]
    start = at + 2
    if length > 127:
        count = length & 127
        if count == 0 or count > 4 or start + count > end:
            raise DerError(f"bad length at byte {at}")
        length = int.from_bytes(data[start : start + count], "big")
        if length < 128 or length >> (8 * (count - 1)) == 0:
            raise DerError(f"length not minimal at byte {at}")
        start += count
    stop = start + length
    if stop > end:
        raise DerError(f"length at byte {at} exceeds its surroundings")
    if tag & 31 == 31:
        raise DerError(f"tag of several bytes at byte {at}")
    return tag, start, stop


def expect(data: bytes, at: int, end: int, tag: int, what: str) -> tuple[int, int]:
    """Contents of an element that must have a given tag.

    Raises:
        DerError: it has another.
    """
    found, start, stop = tlv(data, at, end)
    if found != tag:
        raise DerError(f"{what}: tag {found:02x} instead of {tag:02x} at byte {at}")
    return start, stop


def children(data: bytes, start: int, stop: int, most: int = 64) -> list[tuple[int, int, int, int]]:
    """Elements of a constructed one: (tag, start of the element, start and end of its contents).

    Raises:
        DerError: malformed, or more than ``most``.
    """
    found = []
    while start < stop:
        tag, inner, end = tlv(data, start, stop)
        found.append((tag, start, inner, end))
        if len(found) > most:
            raise DerError("too many elements")
        start = end
    return found


def integer(data: bytes, start: int, stop: int) -> int:
    """A signed INTEGER's contents, minimal or not.

    Raises:
        DerError: it is empty.
    """
    if start == stop:
        raise DerError(f"empty integer at byte {start}")
    return int.from_bytes(data[start:stop], "big", signed=True)


def oid_text(contents: bytes) -> str:
    """Dotted form of an object identifier's contents; "?" and hex where it is malformed or absurdly long."""
    if not contents or len(contents) > 64 or contents[-1] & 128:
        return "?" + contents[:16].hex()
    return _dotted(contents)


@lru_cache(maxsize=4096)  # of short identifiers only: what is cached must not grow with what an attacker sends
def _dotted(contents: bytes) -> str:
    arcs: list[int] = []
    value = 0
    for byte in contents:
        value = value << 7 | byte & 127
        if not byte & 128:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, [first, arcs[0] - 40 * first, *arcs[1:]]))


def time_seconds(tag: int, contents: bytes) -> int | None:
    """Seconds since 1970 of a UTCTime (0x17) or GeneralizedTime (0x18), None if it cannot be read."""
    return _seconds(tag, contents) if len(contents) <= 15 else None


@lru_cache(maxsize=65536)
def _seconds(tag: int, contents: bytes) -> int | None:
    try:
        text = contents.decode("ascii")
        if not text.endswith("Z") or not text[:-1].isdigit():
            return None
        if tag == 0x17 and len(text) == 13:
            year = int(text[:2])
            text = str(1900 + year if year >= 50 else 2000 + year) + text[2:]
        if len(text) != 15:
            return None
        parts = [int(text[:4]), *(int(text[i : i + 2]) for i in range(4, 14, 2))]
        moment = datetime(parts[0], parts[1], parts[2], parts[3], parts[4], min(parts[5], 59), tzinfo=UTC)
        return int(moment.timestamp())
    except (ValueError, OverflowError):
        return None


def header(tag: int, length: int) -> bytes:
    """Tag and length in DER."""
    if length < 128:
        return bytes((tag, length))
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 128 | size)) + length.to_bytes(size, "big")


def element(tag: int, *contents: bytes) -> bytes:
    """An element with its header."""
    joined = b"".join(contents)
    return header(tag, len(joined)) + joined


def integer_element(value: int) -> bytes:
    """An INTEGER with its header."""
    return element(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def oid_element(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER with its header."""
    arcs = [int(arc) for arc in dotted.split(".")]
    out = bytearray()
    for arc in (arcs[0] * 40 + arcs[1], *arcs[2:]):
        chunk = [arc & 127]
        arc >>= 7  # noqa: PLW2901
        while arc:
            chunk.append(arc & 127 | 128)
            arc >>= 7  # noqa: PLW2901
        out.extend(reversed(chunk))
    return element(OID, bytes(out))
