"""A walk over the DER of many certificates at once: one numpy step reads one element's header of all of them.

Rows that are not as nearly all certificates are (a mask says which) are left to the walk in ``decoding``, which reads
one certificate at a time and knows what to make of it. Nothing here raises, whatever the bytes are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keyassay.certificates.der import BIT_STRING, INTEGER, OID, SEQUENCE, oid_text

_Offsets = NDArray[np.intp]

#: columns of ``CertificateColumns.spans`` beyond the parts of the certificate
ALGORITHM_END, KEY_BITS, MODULUS, MODULUS_END, EXPONENT, EXPONENT_END = range(12, 18)

#: octets of an object identifier that are compared
_OID_BYTES = 16


@dataclass(slots=True)
class CertificateColumns:
    """What a walk found.

    Attributes:
        spans: offsets within each certificate, shape (rows, 18): its parts (as ``decoding`` keeps them); the end of
            the key's algorithm, the start of the octets in its bit string; start and end of modulus and exponent.
        sound: rows whose certificate and public key info are complete, minimal and without anything left over.
        rsa: sound rows whose key is a sequence of two positive, minimal integers.
        timed: sound rows with readable times.
        not_before: seconds since 1970; only ``timed`` rows mean something.
        not_after: likewise.
        signature_algorithms: dotted identifiers, "" in rows that are not sound.
    """

    spans: NDArray[np.intp]
    sound: NDArray[np.bool_]
    rsa: NDArray[np.bool_]
    timed: NDArray[np.bool_]
    not_before: NDArray[np.int64]
    not_after: NDArray[np.int64]
    signature_algorithms: list[str]

    def forget(self, row: int) -> None:
        """Whoever reads a row in another way says so: nothing is known of it then."""
        self.sound[row] = self.rsa[row] = self.timed[row] = False
        self.signature_algorithms[row] = ""


class _Walk:
    """All certificates as one buffer, and which rows are still as expected."""

    def __init__(self, encodings: Sequence[bytes]) -> None:
        sizes = np.array([len(data) for data in encodings], dtype=np.intp)
        self.data = np.frombuffer(b"".join([*encodings, b"\0"]), dtype=np.uint8)
        self.ends: _Offsets = np.cumsum(sizes)
        self.starts: _Offsets = self.ends - sizes
        self.good = sizes > 0

    def octet(self, at: _Offsets) -> NDArray[np.intp]:
        """The octets at these offsets; whatever lies beyond the buffer is its last one."""
        return self.data.take(at, mode="clip").astype(np.intp)

    def header(self, at: _Offsets, end: _Offsets) -> tuple[NDArray[np.intp], _Offsets, _Offsets]:
        """Tag, start and end of the contents; rows with a length that is not DER of up to 64 KiB are no longer good."""
        tag, first = self.octet(at), self.octet(at + 1)
        second, third = self.octet(at + 2), self.octet(at + 3)
        short, one, two = first < 128, (first == 129) & (second >= 128), (first == 130) & (second > 0)
        length = np.where(short, first, np.where(one, second, second << 8 | third))
        start = at + np.where(short, 2, np.where(one, 3, 4))
        stop = start + length
        self.good &= (short | one | two) & (stop <= end) & (tag & 31 != 31)
        return tag, start, stop

    def expect(self, at: _Offsets, end: _Offsets, wanted: int) -> tuple[_Offsets, _Offsets]:
        """Start and end of the contents of an element that has that tag in good rows."""
        tag, start, stop = self.header(at, end)
        self.good &= tag == wanted
        return start, stop

    def positive(self, start: _Offsets, stop: _Offsets) -> NDArray[np.bool_]:
        """Whether the contents are a minimal integer above or equal to zero."""
        first = self.octet(start)
        minimal: NDArray[np.bool_] = (first > 0) | (stop == start + 1) | (self.octet(start + 1) >= 128)
        return minimal & (stop > start) & (first < 128)


def walk(encodings: Sequence[bytes]) -> CertificateColumns:
    """Find the parts of certificates.

    Args:
        encodings: DER of certificates; rows of anything else, or nothing, are not ``sound``.
    """
    it = _Walk(encodings)
    start, stop = it.expect(it.starts, it.ends, SEQUENCE)
    it.good &= stop == it.ends
    tbs, tbs_end = it.expect(start, stop, SEQUENCE)
    tag, _, version_end = _optional(it, tbs, tbs_end)
    at = np.where(tag == 0xA0, version_end, tbs)
    serial, serial_end = it.expect(at, tbs_end, INTEGER)
    _, issuer = it.expect(serial_end, tbs_end, SEQUENCE)
    _, issuer_end = it.expect(issuer, tbs_end, SEQUENCE)
    validity, validity_end = it.expect(issuer_end, tbs_end, SEQUENCE)
    _, subject_end = it.expect(validity_end, tbs_end, SEQUENCE)
    key, key_end = it.expect(subject_end, tbs_end, SEQUENCE)
    _, algorithm_end = it.expect(key, key_end, SEQUENCE)
    bits, bits_end = it.expect(algorithm_end, key_end, BIT_STRING)
    it.good &= (bits_end == key_end) & (bits_end > bits) & (it.octet(bits) == 0)
    # A negative serial number is worth a notice, and an empty one is none: both are read one by one.
    it.good &= (serial_end > serial) & (it.octet(serial) < 0x80)
    sound = it.good.copy()

    numbers, numbers_end = it.expect(bits + 1, bits_end, SEQUENCE)
    it.good &= numbers_end == bits_end
    modulus, modulus_end = it.expect(numbers, numbers_end, INTEGER)
    exponent, exponent_end = it.expect(modulus_end, numbers_end, INTEGER)
    rsa = it.good & (exponent_end == numbers_end)
    rsa &= it.positive(modulus, modulus_end) & it.positive(exponent, exponent_end)

    it.good = sound.copy()
    before, first_end = _time(it, validity, validity_end)
    after, _ = _time(it, first_end, validity_end)
    timed = it.good

    it.good = sound.copy()
    spans = np.column_stack(
        (
            start, tbs_end, serial, serial_end, issuer, issuer_end, validity, validity_end, subject_end, key, key_end,
            stop, algorithm_end, bits + 1, modulus, modulus_end, exponent, exponent_end,
        )
    )  # fmt: skip
    spans -= it.starts[:, None]
    return CertificateColumns(spans, sound, rsa, timed, before, after, _signature_algorithms(it, tbs_end, stop))


def _optional(it: _Walk, at: _Offsets, end: _Offsets) -> tuple[NDArray[np.intp], _Offsets, _Offsets]:
    """The header of an element that may be another; only where it is [0] does its length count."""
    good = it.good.copy()
    found = it.header(at, end)
    it.good = good & (it.good | (found[0] != 0xA0))
    return found


def _time(it: _Walk, at: _Offsets, end: _Offsets) -> tuple[NDArray[np.int64], _Offsets]:
    """Seconds since 1970 of UTCTime or GeneralizedTime in UTC without fractions; others make rows no longer good."""
    tag, start, stop = it.header(at, end)
    short = (tag == 0x17) & (stop - start == 13)
    it.good &= short | ((tag == 0x18) & (stop - start == 15))
    # two places more in front of a UTCTime, so that both read YYYYMMDDHHMMSSZ; its century follows
    places = (np.where(short, start - 2, start)[:, None] + np.arange(15)).ravel()
    octets = it.data.take(places, mode="clip").reshape(-1, 15).T
    digits = octets[:14] - np.uint8(48)  # what is no digit becomes 10 and more
    readable = digits <= 9
    it.good &= readable[2:].all(axis=0) & (short | (readable[0] & readable[1])) & (octets[14] == ord("Z"))
    first, year, month, day, hour, minute, second = (digits[::2] * np.uint8(10) + digits[1::2]).astype(np.int64)
    year += 100 * np.where(short, np.where(year >= 50, 19, 20), first)
    it.good &= (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (hour < 24) & (minute < 60)
    months = np.where(it.good, (year - 1970) * 12 + month - 1, 0).astype("M8[M]")
    days = months.astype("M8[D]").astype(np.int64) + day - 1
    it.good &= (day <= 28) | (days < (months + 1).astype("M8[D]").astype(np.int64))
    return days * 86_400 + hour * 3600 + minute * 60 + np.minimum(second, 59), stop


def _signature_algorithms(it: _Walk, at: _Offsets, end: _Offsets) -> list[str]:
    """Dotted identifiers of the algorithm that follows the signed part; "" where it is long or malformed."""
    inner, inner_end = it.expect(at, end, SEQUENCE)
    first, last = it.expect(inner, inner_end, OID)
    size = last - first
    it.good &= (size > 0) & (size <= _OID_BYTES)
    octets = it.data.take((first[:, None] + np.arange(_OID_BYTES)).ravel(), mode="clip").reshape(-1, _OID_BYTES)
    octets = np.where(np.arange(_OID_BYTES) < np.where(it.good, size, 0)[:, None], octets, 0)
    # a length octet tells identifiers from their own beginnings
    whole = np.column_stack((np.where(it.good, size, 0).astype(np.uint8), octets))
    # there are few different ones: one after another, every row that has the next
    names = np.full(len(whole), "", dtype=object)
    left = np.flatnonzero(it.good)
    while len(left):
        kind = whole[left[0]]
        same = (whole[left] == kind).all(axis=1)
        names[left[same]] = oid_text(kind[1 : 1 + int(kind[0])].tobytes())
        left = left[~same]
    found: list[str] = names.tolist()
    return found
