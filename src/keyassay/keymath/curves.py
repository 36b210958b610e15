"""Elliptic curves: parameters, points from octets, arithmetic; integers in, integers out.

Points are affine pairs, None is the point at infinity. Written for checking and for tables of many points at once
(one inversion shared by a batch); nothing here is constant time, since only public values and guesses pass through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import gmpy2
import numpy as np
from gmpy2 import mpz
from numpy.typing import NDArray

from keyassay.keymath.curve_table import TABLE

Point = tuple[int, int] | None


@dataclass(frozen=True)
class Curve:
    """y^2 = x^3 + ax + b over GF(p), or y^2 + xy = x^3 + ax^2 + b over GF(2^m) with reduction polynomial p.

    Attributes:
        name: as keys name it.
        binary: over GF(2^m).
        p, a, b: field and coefficients.
        gx, gy: base point.
        order: of the base point.
        cofactor: number of points divided by ``order``.
    """

    name: str
    binary: bool
    p: int
    a: int
    b: int
    gx: int
    gy: int
    order: int
    cofactor: int

    @property
    def base(self) -> tuple[int, int]:
        """The base point."""
        return self.gx, self.gy

    @property
    def field_bits(self) -> int:
        """Bits of a field element."""
        return self.p.bit_length() - self.binary

    @property
    def field_bytes(self) -> int:
        """Bytes of a coordinate."""
        return (self.field_bits + 7) // 8

    @property
    def bits(self) -> int:
        """Bits of the order: security is half of it."""
        return self.order.bit_length()


@cache
def named_curves() -> dict[str, Curve]:
    """All curves that are known by name."""
    found = {}
    for line in TABLE.splitlines():
        name, field, cofactor, p, a, b, point, order = line.split()
        x, y = (mpz(part, 16) for part in (point[: len(point) // 2], point[len(point) // 2 :]))
        modulus, first, second = (mpz(part, 16) for part in (p, a, b))
        found[name] = Curve(name, field == "b", modulus, first, second, x, y, mpz(order, 16), int(cofactor, 16))
    return found


def named_curve(name: str) -> Curve | None:
    """The curve of that name, or None."""
    return named_curves().get(name)


# Binary fields


def _reduce(value: int, polynomial: int) -> int:
    size = polynomial.bit_length()
    while (excess := value.bit_length() - size) >= 0:
        value ^= polynomial << excess
    return value


def _times(x: int, y: int, polynomial: int) -> int:
    product = 0
    while y:
        low = y & -y
        product ^= x * low
        y ^= low
    return _reduce(product, polynomial)


def _inverse_binary(x: int, polynomial: int) -> int:
    """Inverse in GF(2^m) by Euclid's algorithm on polynomials."""
    u, v, g1, g2 = x, polynomial, 1, 0
    while u != 1:
        shift = u.bit_length() - v.bit_length()
        if shift < 0:
            u, v, g1, g2, shift = v, u, g2, g1, -shift
        u ^= v << shift
        g1 ^= g2 << shift
        if u == 0:
            raise ZeroDivisionError("not invertible")
    return _reduce(g1, polynomial)


def equation(curve: Curve, x: int, y: int) -> tuple[int, int]:
    """Both sides of the curve's equation; equal if the point lies on it."""
    p = curve.p
    if not curve.binary:
        return int(y * y % p), int((x * x * x + curve.a * x + curve.b) % p)
    left = _times(y, y, p) ^ _times(x, y, p)
    square = _times(x, x, p)
    return int(left), int(_times(square, x, p) ^ _times(curve.a, square, p) ^ curve.b)


def on_curve(curve: Curve, point: tuple[int, int]) -> bool:
    """Whether an affine point with coordinates in range lies on the curve."""
    left, right = equation(curve, *point)
    return left == right


# Arithmetic


def negate(curve: Curve, point: Point) -> Point:
    """The inverse point."""
    if point is None:
        return None
    x, y = point
    return (x, x ^ y) if curve.binary else (x, -y % curve.p)


def add(curve: Curve, one: Point, other: Point) -> Point:
    """Sum of two points (slow: an inversion each)."""
    if one is None:
        return other
    if other is None:
        return one
    p = curve.p
    (x1, y1), (x2, y2) = one, other
    if curve.binary:
        if x1 == x2:
            if y1 != y2 or x1 == 0:
                return None
            slope = x1 ^ _times(y1, _inverse_binary(x1, p), p)
            x3 = _times(slope, slope, p) ^ slope ^ curve.a
            return x3, _times(x1, x1, p) ^ _times(slope ^ 1, x3, p)
        slope = _times(y1 ^ y2, _inverse_binary(x1 ^ x2, p), p)
        x3 = _times(slope, slope, p) ^ slope ^ x1 ^ x2 ^ curve.a
        return x3, _times(slope, x1 ^ x3, p) ^ x3 ^ y1
    if x1 == x2:
        if (y1 + y2) % p == 0:
            return None
        slope = (3 * x1 * x1 + curve.a) * gmpy2.invert(2 * y1, p) % p
    else:
        slope = (y2 - y1) * gmpy2.invert(x2 - x1, p) % p
    x3 = (slope * slope - x1 - x2) % p
    return x3, (slope * (x1 - x3) - y1) % p


def multiply(curve: Curve, scalar: int, point: Point) -> Point:
    """Scalar times point; Jacobian coordinates on prime fields, so one inversion in all."""
    if scalar < 0:
        return multiply(curve, -scalar, negate(curve, point))
    if point is None or scalar == 0:
        return None
    if curve.binary:
        total: Point = None
        for bit in f"{scalar:b}":
            total = add(curve, total, total)
            if bit == "1":
                total = add(curve, total, point)
        return total
    p, a = mpz(curve.p), curve.a
    px, py = mpz(point[0]), mpz(point[1])
    x, y, z = px, py, mpz(1)
    infinite = False
    for bit in f"{scalar:b}"[1:]:
        if not infinite:
            if y == 0:
                infinite = True
            else:
                squared = y * y % p
                s = 4 * x * squared % p
                z2 = z * z % p
                m = (3 * x * x + a * z2 * z2) % p
                x3 = (m * m - 2 * s) % p
                z = 2 * y * z % p
                y = (m * (s - x3) - 8 * squared * squared) % p
                x = x3
        if bit == "1":
            if infinite:
                x, y, z, infinite = px, py, mpz(1), False
                continue
            z2 = z * z % p
            h = (px * z2 - x) % p
            r = (py * z2 * z - y) % p
            if h == 0:
                if r != 0:
                    infinite = True
                    continue
                doubled = add(curve, (px, py), (px, py))
                if doubled is None:
                    infinite = True
                    continue
                x, y, z = mpz(doubled[0]), mpz(doubled[1]), mpz(1)
                continue
            h2 = h * h % p
            h3 = h2 * h % p
            v = x * h2 % p
            x3 = (r * r - h3 - 2 * v) % p
            y = (r * (v - x3) - y * h3) % p
            x = x3
            z = z * h % p
    if infinite or z == 0:
        return None
    inverse = gmpy2.invert(z, p)
    square = inverse * inverse % p
    return x * square % p, y * square * inverse % p


def inverses(numbers: Sequence[int], p: int) -> list[mpz]:
    """Inverses modulo a prime, all by one inversion (Montgomery's trick); zeros stay zero."""
    running = mpz(1)
    prefixes = []
    for number in numbers:
        prefixes.append(running)
        if number:
            running = running * number % p
    inverse = gmpy2.invert(running, p)
    found = [mpz(0)] * len(numbers)
    for row in range(len(numbers) - 1, -1, -1):
        number = numbers[row]
        if number:
            found[row] = inverse * prefixes[row] % p
            inverse = inverse * number % p
    return found


def add_many(curve: Curve, ones: Sequence[Point], others: Sequence[Point]) -> list[Point]:
    """Sums of many pairs of points on a prime-field curve, with one inversion."""
    p = curve.p
    differences: list[int] = []
    for one, other in zip(ones, others, strict=True):
        differences.append(0 if one is None or other is None else (other[0] - one[0]) % p)
    found: list[Point] = []
    for one, other, inverse in zip(ones, others, inverses(differences, p), strict=True):
        if one is None or other is None or not inverse:
            found.append(add(curve, one, other))
            continue
        x1, y1 = one
        slope = (other[1] - y1) * inverse % p
        x3 = (slope * slope - x1 - other[0]) % p
        found.append((x3, (slope * (x1 - x3) - y1) % p))
    return found


def neighbours(curve: Curve, point: tuple[int, int], arms: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """x(point + arm) and x(point - arm) for a list of points, with one inversion (prime fields).

    Where the arm has the same x as the point both entries are -1: the caller tests that case apart.
    """
    p = curve.p
    px, py = point
    found = []
    for (x, y), w in zip(arms, inverses([x - px for x, _ in arms], p), strict=True):
        if not w:
            found.append((-1, -1))
            continue
        total = px + x
        plus = (y - py) * w % p
        minus = (y + py) * w % p
        found.append(((plus * plus - total) % p, (minus * minus - total) % p))
    return found


def multiples(curve: Curve, base: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """base, 2 base, ..., count base on a prime-field curve, by doubling batches; none may be infinite."""
    points: list[Point] = [base, add(curve, base, base)][:count]
    while len(points) < count:
        step = points[-1]
        take = min(len(points), count - len(points))
        points.extend(add_many(curve, points[:take], [step] * take))
    return [point for point in points if point is not None]


def multiply_many(curve: Curve, scalars: Sequence[int], base: tuple[int, int]) -> list[Point]:
    """Many multiples of one point of large order on a prime-field curve, by a shared comb.

    The more scalars there are, the wider is the comb: 43 additions of points each for a hundred numbers of 256 bits, 20
    for a hundred thousand.
    """
    totals: list[Point] = [None] * len(scalars)
    bits = max((scalar.bit_length() for scalar in scalars), default=0)
    width = min(range(4, 16), key=lambda one: ((bits + 1) // one + 1) * (len(scalars) + (1 << one - 1)))
    half = 1 << width - 1
    # With half a tooth's range added at each place, a tooth less that half is a digit from -half to half - 1.
    shifts = range(0, bits + 2, width)  # room for what is added
    shifted = [scalar + sum(half << shift for shift in shifts) for scalar in scalars]
    power = base
    for shift in shifts:
        row: list[Point] = [None, *multiples(curve, power, half)]
        row += [None if point is None else (point[0], -point[1]) for point in row[:0:-1]]
        # row[d] is d times the power, row[-d] its negative; -half comes once, half from the left
        teeth = [((number >> shift) & (2 * half - 1)) - half for number in shifted]
        totals = add_many(curve, totals, [row[tooth] for tooth in teeth])
        following = add(curve, row[half], row[half])
        if following is None:
            break
        power = following
    return totals


# Octets


@dataclass(frozen=True)
class Reading:
    """What octets say of a point.

    ``problem`` names the contradiction ("" for a sound point); ``point`` is there for sound points in full;
    ``remark`` is a notice on a sound point ("hybrid form").
    """

    point: tuple[int, int] | None
    problem: str = ""
    remark: str = ""


def read_point(curve: Curve, octets: bytes) -> Reading:
    """Examine the octets of a point (SEC 1, 2.3.4) on a curve.

    Compressed points on prime fields are decided by a Jacobi symbol and not decompressed.
    """
    size = curve.field_bytes
    if octets == b"\0":
        return Reading(None, "the point at infinity: the private key would be 0")
    if not octets or octets[0] not in (2, 3, 4, 6, 7):
        return Reading(None, "no form of a point: the first octet is " + (f"{octets[0]:02x}" if octets else "missing"))
    form = octets[0]
    wanted = 1 + (size if form in (2, 3) else 2 * size)
    if len(octets) != wanted:
        return Reading(None, f"{len(octets)} octets instead of {wanted}")
    p = curve.p
    limit = 1 << curve.field_bits if curve.binary else p
    x = mpz(int.from_bytes(octets[1 : 1 + size], "big"))
    if x >= limit:
        return Reading(None, "the x coordinate is not below the field's size")
    if form in (2, 3):
        if curve.binary:
            return Reading(None) if x == 0 or _trace_allows(curve, x) else Reading(None, "no point has this x")
        if gmpy2.jacobi((x * x * x + curve.a * x + curve.b) % p, p) == -1:
            return Reading(None, "no point of the curve has this x coordinate: it lies on the twist")
        return Reading(None)
    y = mpz(int.from_bytes(octets[1 + size :], "big"))
    if y >= limit:
        return Reading(None, "the y coordinate is not below the field's size")
    left, right = equation(curve, x, y)
    if left != right:
        return Reading(None, "the point is not on the curve")
    if form in (6, 7):
        odd = _parity(curve, x, y)
        if odd != form & 1:
            return Reading(None, "hybrid form whose first octet contradicts y")
        return Reading((x, y), remark="hybrid form, which RFC 5480 does not allow")
    return Reading((x, y))


def sound_points(curve: Curve, octets: Sequence[bytes]) -> list[tuple[mpz, mpz] | None]:
    """Coordinates of uncompressed points on a prime-field curve, None for all octets that are not such a point.

    ``read_point`` says what those are; here a sound point takes a microsecond.
    """
    size, p, a, b = curve.field_bytes, curve.p, curve.a, curve.b
    if curve.binary:
        return [None] * len(octets)
    wanted, bits, number, low = 1 + 2 * size, 8 * size, mpz.from_bytes, gmpy2.f_mod_2exp
    found: list[tuple[mpz, mpz] | None] = []
    for one in octets:
        point = None
        if len(one) == wanted and one[0] == 4:
            both = number(one[1:], "big")
            x, y = both >> bits, low(both, bits)
            if x < p and y < p and (y * y - (x * x + a) * x - b) % p == 0:
                point = (x, y)
        found.append(point)
    return found


def _parity(curve: Curve, x: int, y: int) -> int:
    if not curve.binary:
        return int(y & 1)
    return 0 if x == 0 else int(_times(y, _inverse_binary(x, curve.p), curve.p) & 1)


def _trace_allows(curve: Curve, x: int) -> bool:
    """Whether z^2 + z = x + a + b/x^2 has a solution in GF(2^m): its trace is 0."""
    p = curve.p
    inverse = _inverse_binary(x, p)
    value = x ^ curve.a ^ _times(curve.b, _times(inverse, inverse, p), p)
    trace = total = value
    for _ in range(curve.field_bits - 1):
        trace = _times(trace, trace, p)
        total ^= trace
    return total == 0


def root(curve: Curve, x: int, odd: int) -> tuple[int, int] | None:
    """The point with that x and parity of y on a prime-field curve, None if there is none."""
    p = int(curve.p)
    square = int((x * x * x + curve.a * x + curve.b) % p)
    y = square_root(square, p)
    if y is None:
        return None
    return (x, y if y & 1 == odd else p - y)


def affine(curve: Curve, octets: bytes) -> tuple[int, int] | None:
    """The point that octets encode, compressed or not; None for none, and for compressed points on binary curves."""
    reading = read_point(curve, octets)
    if reading.problem or reading.point is not None:
        return reading.point
    return None if curve.binary else root(curve, int.from_bytes(octets[1:], "big"), octets[0] & 1)


def square_root(square: int, p: int) -> int | None:
    """A square root modulo a prime (Tonelli, Shanks), None for non-residues."""
    if square == 0:
        return 0
    if gmpy2.jacobi(square, p) != 1:
        return None
    if p % 4 == 3:
        return int(gmpy2.powmod(square, (p + 1) // 4, p))
    odd, twos = p - 1, 0
    while not odd & 1:
        odd >>= 1
        twos += 1
    z = 2
    while gmpy2.jacobi(z, p) != -1:
        z += 1
    c, r, t, m = gmpy2.powmod(z, odd, p), gmpy2.powmod(square, (odd + 1) // 2, p), gmpy2.powmod(square, odd, p), twos
    while t != 1:
        i, power = 0, t
        while power != 1:
            power = power * power % p
            i += 1
        b = gmpy2.powmod(c, 1 << (m - i - 1), p)
        r, c, m = r * b % p, b * b % p, i
        t = t * c % p
    return int(r)


# Tables of small multiples


@dataclass(frozen=True)
class StepTable:
    """Low 64 bits of x(iB) for 1 <= i <= size, sorted, with i: finds small private keys on either end."""

    tails: NDArray[np.uint64]
    indices: NDArray[np.uint32]
    size: int

    def find(self, tails: NDArray[np.uint64]) -> list[tuple[int, int]]:
        """(row, i) where a tail agrees; candidates that an exact equation has to confirm."""
        if not len(self.tails) or not len(tails):
            return []
        order = np.argsort(tails)  # a search in order stays in the cache
        places = np.empty(len(tails), dtype=np.intp)
        places[order] = np.searchsorted(self.tails, tails[order])
        places[places == len(self.tails)] = 0
        rows = np.flatnonzero(self.tails[places] == tails)
        return [(int(row), int(self.indices[places[row]])) for row in rows]


def step_table(curve: Curve, base: tuple[int, int], size: int) -> StepTable:
    """Multiples 1 to at least ``size`` of a base point on a prime-field curve: about 2 us each."""
    arm_count = min(1024, size)
    arms = multiples(curve, base, arm_count)
    width = 2 * arm_count + 1
    low = (1 << 64) - 1
    values = [int(x & low) for x, _ in arms]
    indices = list(range(1, arm_count + 1))
    step = multiply(curve, width, base)
    centre = step
    position = width
    while position - arm_count <= size and centre is not None:
        values.append(int(centre[0] & low))
        indices.append(position)
        for offset, (plus, minus) in enumerate(neighbours(curve, centre, arms), start=1):
            values.append(int(plus & low))
            indices.append(position + offset)
            values.append(int(minus & low))
            indices.append(position - offset)
        centre = add(curve, centre, step)
        position += width
    tails = np.array(values, dtype=np.uint64)
    order = np.argsort(tails, kind="stable")
    return StepTable(tails[order], np.array(indices, dtype=np.uint32)[order], position - width + arm_count)


def small_logarithm(
    curve: Curve, point: tuple[int, int], base: tuple[int, int], table: StepTable, reach: int
) -> int | None:
    """Find d with d base = point and |d| <= reach, by giant steps against a table; negative d mean order - |d|."""
    arms = _giant_steps(curve.name, base, table.size, (reach + 2 * table.size) // (2 * table.size + 1))
    low = (1 << 64) - 1
    found = [(int(point[0] & low), 0)]
    for number, (plus, minus) in enumerate(neighbours(curve, point, arms), start=1):
        if plus < 0:
            found.append((int(point[0] & low), 0))
            continue
        found.append((int(plus & low), -number))
        found.append((int(minus & low), number))
    tails = np.array([tail for tail, _ in found], dtype=np.uint64)
    width = 2 * table.size + 1
    for row, index in table.find(tails):
        for d in (found[row][1] * width + index, found[row][1] * width - index):
            if d and multiply(curve, d, base) == point:
                return d
    for number, arm in enumerate(arms, start=1):
        if arm[0] == point[0]:
            return number * width if arm == point else -number * width
    return None


@cache
def _giant_steps(name: str, base: tuple[int, int], size: int, count: int) -> list[tuple[int, int]]:
    curve = named_curves()[name]
    step = multiply(curve, 2 * size + 1, base)
    assert step is not None
    return multiples(curve, step, max(count, 1))
