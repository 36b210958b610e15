"""Curves: every line of the table is proved, arithmetic obeys the group's laws and agrees with cryptography."""

from __future__ import annotations

from functools import cache
from random import Random

import gmpy2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.keymath import curves
from keyassay.keymath.curves import Curve, Point, add, multiply, named_curves, negate, on_curve

LIBRARY = {
    "P-192": ec.SECP192R1(), "P-224": ec.SECP224R1(), "P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(), "secp256k1": ec.SECP256K1(), "brainpoolP256r1": ec.BrainpoolP256R1(),
    "brainpoolP384r1": ec.BrainpoolP384R1(), "brainpoolP512r1": ec.BrainpoolP512R1(),
}  # fmt: skip
PRIME = [name for name, curve in named_curves().items() if not curve.binary]
BINARY = [name for name, curve in named_curves().items() if curve.binary]
SOME = st.sampled_from(["P-256", "P-224", "secp256k1", "P-521", "secp112r2", "sect163k1", "sect113r1"])


@cache
def point(name: str, d: int) -> Point:
    curve = named_curves()[name]
    return multiply(curve, d, curve.base)


@pytest.mark.parametrize("name", sorted(named_curves()))
def test_every_line_of_the_table_is_a_curve(name: str) -> None:
    """Primes are prime, the curve is smooth, the base point lies on it, its order holds, and so does Hasse's bound."""
    curve = named_curves()[name]
    assert gmpy2.is_prime(curve.order)
    assert on_curve(curve, curve.base)
    assert multiply(curve, curve.order, curve.base) is None
    size = curve.p
    if curve.binary:
        size = 1 << curve.field_bits
        assert curve.b
        # irreducible: x^(2^m) = x, and no smaller field inside (m is prime for all of them)
        assert gmpy2.is_prime(curve.field_bits)
        value = 2
        for _ in range(curve.field_bits):
            value = curves._times(value, value, curve.p)
        assert value == 2
        assert curve.p & 1
    else:
        assert gmpy2.is_prime(curve.p)
        assert (4 * curve.a**3 + 27 * curve.b**2) % curve.p
        assert curve.order != curve.p
    assert abs(curve.order * curve.cofactor - size - 1) <= 2 * gmpy2.isqrt(size) + 1
    degree = 1
    for _ in range(6):
        degree = degree * size % curve.order
        assert degree != 1


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_points_are_those_of_cryptography(name: str) -> None:
    curve = named_curves()[name]
    for d in (1, 2, 3, 12_345, 2**100 + 7, int(curve.order) - 1):
        public = ec.derive_private_key(d, LIBRARY[name]).public_key()
        for form, kind in ((4, PublicFormat.UncompressedPoint), (2, PublicFormat.CompressedPoint)):
            octets = public.public_bytes(Encoding.X962, kind)
            reading = curves.read_point(curve, octets)
            assert reading.problem == ""
            if form == 4:
                assert reading.point == point(name, d)
            else:
                assert curves.root(curve, int.from_bytes(octets[1:], "big"), octets[0] & 1) == point(name, d)


@settings(max_examples=40, deadline=None)
@given(SOME, st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_addition_is_a_group(name: str, a: int, b: int, c: int) -> None:
    curve = named_curves()[name]
    p, q, r = point(name, a), point(name, b), point(name, c)
    assert add(curve, p, q) == add(curve, q, p) == point(name, a + b)
    assert add(curve, add(curve, p, q), r) == add(curve, p, add(curve, q, r))
    assert add(curve, p, negate(curve, p)) is None
    assert add(curve, p, None) == p


@settings(max_examples=30, deadline=None)
@given(SOME, st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70))
def test_multiplication_is_linear(name: str, a: int, b: int) -> None:
    curve = named_curves()[name]
    assert add(curve, multiply(curve, a, curve.base), multiply(curve, b, curve.base)) == multiply(
        curve, a + b, curve.base
    )
    assert multiply(curve, a % curve.order, curve.base) == multiply(curve, a, curve.base)


def small() -> Curve:
    """Y^2 = x^3 + 2x + 3 over GF(97): few points, so that every special case comes up."""
    p = gmpy2.mpz(97)
    return Curve("small", False, p, gmpy2.mpz(2), gmpy2.mpz(3), gmpy2.mpz(3), gmpy2.mpz(6), gmpy2.mpz(5), 20)


def points_of(curve: Curve) -> list[Point]:
    p = int(curve.p)
    return [None, *((x, y) for x in range(p) for y in range(p) if on_curve(curve, (x, y)))]


def test_all_sums_and_multiples_on_a_small_curve() -> None:
    """Against addition repeated, for every point: order 2, infinity, doubling within a sum."""
    curve = small()
    points = points_of(curve)
    for one in points:
        total: Point = None
        for scalar in range(2 * len(points)):
            assert multiply(curve, scalar, one) == total
            total = add(curve, total, one)
            assert total in points
        others = points[:: len(points) // 9]
        assert curves.add_many(curve, [one] * len(others), others) == [add(curve, one, other) for other in others]


@given(st.lists(st.integers(0, 96), max_size=20))
def test_inverses_by_one_inversion(numbers: list[int]) -> None:
    assert curves.inverses(numbers, 97) == [pow(n, -1, 97) if n else 0 for n in numbers]


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(PRIME), st.lists(st.integers(0, 2**40), max_size=6))
def test_combs_multiply(name: str, scalars: list[int]) -> None:
    curve = named_curves()[name]
    assert curves.multiply_many(curve, scalars, curve.base) == [multiply(curve, d, curve.base) for d in scalars]


@pytest.mark.parametrize("count", [1, 40, 300])
@pytest.mark.parametrize("bits", [1, 30, 31, 224, 256])
def test_combs_of_every_width_multiply(count: int, bits: int) -> None:
    """All digits small, largest, and around the half where their sign changes."""
    curve = named_curves()["P-256"]
    base, order = curve.base, int(curve.order)
    random = Random(count)
    top = (1 << bits) - 1
    edges = [top, 0, 1, top >> 1, (top >> 1) + 1, int("88" * 32, 16) & top, int("7f" * 32, 16) & top, order, order - 1]
    scalars = [*edges[: 7 if bits < 256 else 9], *(random.getrandbits(bits) for _ in range(count))][: count + 8]
    made = curves.multiply_many(curve, scalars, base)
    checked = range(0, len(scalars), 1 if count < 300 else 7)
    assert [made[at] for at in checked] == [multiply(curve, scalars[at], base) for at in checked]


def test_multiples_and_neighbours_are_sums() -> None:
    curve = named_curves()["P-256"]
    arms = curves.multiples(curve, curve.base, 21)
    assert arms == [point("P-256", d) for d in range(1, 22)]
    centre = point("P-256", 10)
    assert centre is not None
    for i, (plus, minus) in enumerate(curves.neighbours(curve, centre, arms), start=1):
        if i == 10:
            assert (plus, minus) == (-1, -1)
            continue
        assert plus == point("P-256", 10 + i)[0]
        assert minus == point("P-256", abs(10 - i))[0]


@pytest.mark.parametrize("size", [1, 5, 1024, 1025, 5000])
def test_a_table_holds_all_multiples_up_to_its_size(size: int) -> None:
    curve = named_curves()["P-256"]
    table = curves.step_table(curve, curve.base, size)
    assert table.size >= size
    assert sorted(table.indices.tolist()) == list(range(1, table.size + 1))
    wanted = np.array([int(x) & (2**64 - 1) for x, _ in curves.multiples(curve, curve.base, size)], dtype=np.uint64)
    assert table.find(wanted) == [(row, row + 1) for row in range(size)]


@settings(max_examples=60, deadline=None)
@given(st.integers(-50_000, 50_000).filter(bool))
def test_small_logarithms_are_found_on_both_sides(d: int) -> None:
    curve = named_curves()["P-256"]
    table = _table()
    target = multiply(curve, d, curve.base)
    assert target is not None
    assert curves.small_logarithm(curve, target, curve.base, table, 50_000) == d


@cache
def _table() -> curves.StepTable:
    curve = named_curves()["P-256"]
    return curves.step_table(curve, curve.base, 500)


def test_large_logarithms_are_not_found() -> None:
    curve = named_curves()["P-256"]
    assert curves.small_logarithm(curve, point("P-256", 2**100), curve.base, _table(), 50_000) is None


@given(st.sampled_from([17, 97, 101, 257, 65_537, 2**61 - 1, int(named_curves()["P-224"].p)]), st.integers(0, 2**64))
def test_square_roots(p: int, x: int) -> None:
    found = curves.square_root(x * x % p, p)
    assert found is not None
    assert found in (x % p, -x % p)
    if p < 300:
        squares = {y * y % p for y in range(p)}
        assert all((curves.square_root(value, p) is not None) == (value in squares) for value in range(p))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["P-256", "sect113r1"]), st.binary(max_size=70))
def test_octets_are_a_sound_point_or_have_a_reason(name: str, octets: bytes) -> None:
    reading = curves.read_point(named_curves()[name], octets)
    assert (
        reading.problem
        or (reading.point is not None and on_curve(named_curves()[name], reading.point))
        or octets[0] in (2, 3)
    )


@pytest.mark.parametrize("name", ["sect113r1", "sect163k1", "sect283k1"])
def test_compressed_points_of_binary_curves_are_told_by_the_trace(name: str) -> None:
    """The x of multiples of the base point are allowed; about half of all x are not."""
    curve = named_curves()[name]
    assert all(curves._trace_allows(curve, point(name, d)[0]) for d in (1, 2, 7))
    allowed = sum(curves._trace_allows(curve, 3 + 97 * i) for i in range(60))
    assert 10 < allowed < 50


@pytest.mark.parametrize("name", BINARY)
@given(st.integers(1, 2**80))
@settings(max_examples=3, deadline=None)
def test_inverses_in_binary_fields(name: str, x: int) -> None:
    p = named_curves()[name].p
    assert curves._times(x, curves._inverse_binary(x, p), p) == 1
