"""Products of very large integers by floating-point FFT: rows of 16-bit digits, many products a call.

A number is a row of balanced digits (-32768 to 32767, least significant first) as int16. ``Ring`` multiplies modulo
2^(32k) + 1 with transforms of k complex points; every coefficient is checked to lie near an integer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import gmpy2
import numpy as np
from gmpy2 import mpz
from numpy.typing import NDArray

DIGIT_BITS = 16

#: Points of one transform; longer ones go by columns and rows, which stay in the cache.
LONG = 32_768

#: A coefficient further than this from an integer is an error. The largest distance seen is 0.004 at 10^7 digits; it
#: depends on the sizes of the digits alone (at most 3 times more for the worst) and grows with the root of their count.
TOLERANCE = 1 / 16

#: Coefficients that are rounded and carried at a time, so that they stay in the second-level cache.
_CACHED = 16_384

Digits = NDArray[np.int16]
Spectrum = NDArray[np.complex128]


class RoundingError(ArithmeticError):
    """A coefficient was not near an integer: the product has to be made by exact arithmetic."""


def smooth_length(at_least: int) -> int:
    """The smallest 2^a 3^b 5^c from ``at_least`` on whose transforms are quick (a at least 5)."""
    best = 1 << max(5, (at_least - 1).bit_length())
    for odd in (3, 5, 9, 15, 25, 27, 45, 75, 81, 125, 135):
        size = odd << max(5, (-(-at_least // odd) - 1).bit_length())
        if at_least <= size < best:
            best = size
    return best


@lru_cache(maxsize=4)
def halves(width: int) -> mpz:
    """The number whose digits are all 32768: adding it makes balanced digits non-negative."""
    return ((mpz(1) << (DIGIT_BITS * width)) - 1) // 65535 * 32768


def to_digits(number: int, width: int) -> Digits:
    """The balanced digits of a number.

    Args:
        number: from -(80008000...) to 7fff7fff... in hexadecimal, as such digits reach; 2^(16 width - 2) is safe.
        width: how many digits.
    """
    data = (number + halves(width)).to_bytes(2 * width, "little")
    return (np.frombuffer(data, dtype="<u2") ^ np.uint16(0x8000)).view(np.int16)


def from_digits(digits: Digits) -> mpz:
    """The number of a row of balanced digits; may be negative."""
    return mpz.from_bytes((digits.view(np.uint16) ^ np.uint16(0x8000)).tobytes(), "little") - halves(digits.size)


def carried(values: NDArray[np.float64], out: Digits) -> NDArray[np.float64]:
    """Round coefficients to integers and carry them into balanced digits.

    Args:
        values: shape (rows, width), magnitudes below 2^53; overwritten.
        out: same shape.

    Returns:
        The carry out of each row, worth 2^(16 width) each.

    Raises:
        RoundingError: a value is further than ``TOLERANCE`` from an integer.
    """
    rows, width = values.shape
    into = np.zeros(rows)
    step = max(1, _CACHED // width)
    if step > 1:
        for start in range(0, rows, step):
            part = slice(start, start + step)
            _carry_part(values[part], out[part], into[part])
        return into
    for row in range(rows):
        one = slice(row, row + 1)
        for start in range(0, width, _CACHED):
            part = slice(start, start + _CACHED)
            _carry_part(values[one, part], out[one, part], into[one])
    return into


def _carry_part(values: NDArray[np.float64], out: Digits, into: NDArray[np.float64]) -> None:
    """Rows, or a part of one row, at once; ``into`` is the carry into each row and becomes the carry out."""
    # Worked on as one long row, whose carries stop at the ends of the rows.
    width = values.shape[1]
    last = width - 1
    ends = slice(last, None, width)
    flat = values.reshape(-1)
    whole = np.rint(flat)
    flat -= whole
    if not max(flat.max(), -flat.min()) < TOLERANCE:
        raise RoundingError
    whole[::width] += into
    into[:] = 0.0
    for _ in range(2):
        np.multiply(whole, 1 / 65536, out=flat)
        np.rint(flat, out=flat)
        kept = flat[ends].copy()
        into += kept
        flat[ends] = 0.0
        whole[1:] += flat[:-1]
        flat[ends] = kept
        flat *= 65536.0
        whole -= flat
    small = whole.astype(np.int32)  # below 2^15 + 2^22
    carry = small + 32768
    carry >>= 16
    over = carry[ends].copy()
    into += over
    carry[ends] = 0
    small[1:] += carry[:-1]
    carry[ends] = over
    carry <<= 16
    small -= carry
    # What is left to carry is rare (one digit in thousands) and seldom goes far.
    for _ in range(8):
        if small.max() <= 32767 and small.min() >= -32768:
            out[...] = small.reshape(values.shape)
            return
        places = np.flatnonzero((small + 32768) >> 16)
        up = (small[places] + 32768) >> 16
        small[places] -= up << 16
        inside = places % width < last
        small[places[inside] + 1] += up[inside]
        into[places[~inside] // width] += up[~inside]
    for row, digits in enumerate(small.reshape(values.shape)):
        into[row] += _carry_chain(digits, out[row])


def _carry_chain(digits: NDArray[np.int32], out: Digits) -> int:
    """Carry one row by exact addition, for digits that pass a carry on and on; returns the carry out."""
    carry = (digits + 32768) >> 16
    number = from_digits((digits - (carry << 16)).astype(np.int16))
    number += from_digits(carry.astype(np.int16)) << DIGIT_BITS
    over = (number + halves(digits.size)) >> (DIGIT_BITS * digits.size)
    out[:] = to_digits(number - (over << (DIGIT_BITS * digits.size)), digits.size)
    return int(over)


class Ring:
    """Multiplication modulo 2^(32 points) + 1.

    "Right angle" weights turn the negacyclic product of 2k real digits into a cyclic product of k complex points
    (digit j and digit j + k become one). A factor of at most k digits needs no padding, and in a product that is too
    long by up to k digits, digits k to 2k - 1 are right but for the carry into the first of them.
    """

    def __init__(self, points: int) -> None:
        # points = rows * columns, place j = row * columns + column: transform the columns, twist, transform the rows.
        # The result's order is of no consequence to products.
        self.points = points
        self._rows = 1 if points <= LONG else _near_root(points)
        self._columns = points // self._rows
        count = self._rows if self._rows > 1 else points
        self._weights = np.exp(0.5j * np.pi / count * np.arange(count))
        if self._rows > 1:
            self._weights = self._weights[:, None]
            # Twiddle factors and the columns' share of the weights, as products of two small tables.
            fine = _near_root(self._columns)
            self._coarse_twist = self._twists(np.arange(0, self._columns, fine))[:, :, None]
            self._fine_twist = self._twists(np.arange(fine))[:, None, :]
        self._unweights = self._weights.conj()

    def _twists(self, columns: NDArray[np.int64]) -> Spectrum:
        turns = np.outer(np.arange(self._rows), columns) % self.points
        twists: Spectrum = np.exp(2j * np.pi / self.points * (columns / 4 - turns))
        return twists

    def forward(self, digits: Digits) -> Spectrum:
        """Spectra of numbers of up to k (``width`` k) or 2k digits (``width`` 2k), shape (rows, k)."""
        points = self.points
        out = np.empty((len(digits), points), dtype=np.complex128)
        if self._rows == 1:
            if digits.shape[1] > points:
                out.real = digits[:, :points]
                out.imag = digits[:, points:]
                out *= self._weights
            else:
                np.multiply(digits, self._weights, out=out)
            np.fft.fft(out, out=out)
            return out
        for row, plane in zip(digits, out.reshape(-1, self._rows, self._columns), strict=True):
            halves = row.reshape(-1, self._rows, self._columns)
            if len(halves) == 2:
                plane.real = halves[0]
                plane.imag = halves[1]
                np.multiply(plane, self._weights, out=plane)
            else:
                np.multiply(halves[0], self._weights, out=plane)
            np.fft.fft(plane, axis=0, out=plane)
            for start, part in self._strips(plane):
                twisted = part.reshape(len(part), self._coarse_twist.shape[1], -1)
                twisted *= self._coarse_twist[start : start + len(part)]
                twisted *= self._fine_twist[start : start + len(part)]
                np.fft.fft(part, out=part)
        return out

    def _strips(self, plane: Spectrum) -> Iterator[tuple[int, Spectrum]]:
        """Rows that fit into the cache together."""
        step = max(1, 32_768 // self._columns)
        for start in range(0, self._rows, step):
            yield start, plane[start : start + step]

    def backward(self, spectrum: Spectrum, high_only: bool = False) -> NDArray[np.float64]:
        """Coefficients of products, shape (rows, 2k), or only the upper k of each; overwrites the spectrum."""
        points = self.points
        count = len(spectrum)
        out = np.empty((count, points if high_only else 2 * points))
        if self._rows == 1:
            np.fft.ifft(spectrum, out=spectrum)
            spectrum *= self._unweights
            if not high_only:
                out[:, :points] = spectrum.real
            out[:, -points:] = spectrum.imag
            return out
        results = out.reshape(count, -1, self._rows, self._columns)
        for plane, result in zip(spectrum.reshape(count, self._rows, self._columns), results, strict=True):
            for start, part in self._strips(plane):
                np.fft.ifft(part, out=part)
                twisted = part.reshape(len(part), self._coarse_twist.shape[1], -1)
                twisted *= self._coarse_twist[start : start + len(part)].conj()
                twisted *= self._fine_twist[start : start + len(part)].conj()
            np.fft.ifft(plane, axis=0, out=plane)
            np.multiply(plane, self._unweights, out=plane)
            if not high_only:
                result[0] = plane.real
            result[-1] = plane.imag
        return out


def _near_root(size: int) -> int:
    """The largest divisor up to the square root."""
    return next(divisor for divisor in range(math.isqrt(size), 0, -1) if size % divisor == 0)


@lru_cache(maxsize=4)
def ring(points: int) -> Ring:
    """The ring of that many points; the last few are kept with their tables."""
    return Ring(points)


def product(left: int, right: int, points: int) -> mpz:
    """The product of two numbers, below 2^(32 points - 2) itself.

    Raises:
        RoundingError: see ``carried``.
    """
    one, other = (ring(points).forward(to_digits(number, 2 * points)[None]) for number in (left, right))
    digits = np.empty((1, 2 * points), dtype=np.int16)
    over = carried(ring(points).backward(one * other), digits)
    return from_digits(digits[0]) - int(over[0])


def threads_release_gil() -> None:
    """Let gmpy2 release the interpreter lock in large operations of the calling thread."""
    gmpy2.get_context().allow_release_gil = True
