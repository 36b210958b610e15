"""Lattices and products for small private exponents: laws of the construction, and planted keys that come apart."""

from __future__ import annotations

from math import log2, prod
from random import Random

import flint
import gmpy2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.checks.rsa_small_private_exponent import LATTICES
from keyassay.keymath import small_exponent
from keyassay.keymath.small_exponent import Lattice, small_residue_factor, why_no_small_residue

Shape = tuple[int, tuple[int, ...]]

SHAPES: tuple[Shape, ...] = ((2, (1, 2)), (3, (3,)), (4, (3,)), (5, (4, 5)), (6, (4, 6)), (6, (2, 4, 6)))


def prime(random: Random, size: int) -> int:
    return int(gmpy2.next_prime(random.getrandbits(size) | 3 << (size - 2)))


def weak_key(random: Random, bits: int, d_bits: int, sign: int = 1) -> tuple[int, int, int, int]:
    """p, q, e and d of just so many bits."""
    while True:
        p, q, d = (
            prime(random, bits // 2),
            prime(random, bits // 2),
            sign * (random.getrandbits(d_bits) | 1 << (d_bits - 1) | 1),
        )
        if (p * q).bit_length() == bits and gmpy2.gcd(d, (p - 1) * (q - 1)) == 1:
            return p, q, int(gmpy2.invert(d, (p - 1) * (q - 1))), d


def lattice_of_weak_key(
    random: Random, bits: int, shape: Shape, below: int, sign: int = 1
) -> tuple[Lattice, int, int, int]:
    """The lattice of a key with d that many bits below its reach, with p, q and d."""
    like = Lattice((1 << bits) - 1, (1 << bits) - 1, *shape)
    while True:
        p, q, e, d = weak_key(random, bits, like.reach - below, sign)
        lattice = Lattice(p * q, e, *shape)
        if lattice.reach >= abs(d).bit_length():
            return lattice, p, q, d


def root_of(lattice: Lattice, p: int, q: int, d: int) -> tuple[int, int]:
    """x = 2k and y."""
    return 2 * (lattice.e * d - 1) // ((p - 1) * (q - 1)), (lattice.centre - p - q) // 2


def value(lattice: Lattice, coefficients: list[int], x: int, y: int) -> int:
    """A row's polynomial at x, y, u = 1 + xy."""
    return sum(
        coefficient * (1 + x * y) ** a * x**b * y**c
        for coefficient, (a, b, c) in zip(coefficients, lattice.columns, strict=True)
    )


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2**32), st.integers(300, 500))
def test_the_basis_is_square_and_triangular_with_the_determinant_that_gives_the_reach(
    shape: Shape, seed: int, e_bits: int
) -> None:
    random = Random(seed)
    n = prime(random, 256) * prime(random, 256)
    lattice = Lattice(n, random.getrandbits(e_bits) | 1 | 1 << (e_bits - 1), *shape)
    basis = lattice.basis
    dimension = len(basis)
    assert all(len(row) == dimension for row in basis)
    assert all(not any(row[place + 1 :]) for place, row in enumerate(basis))
    diagonal = prod(row[place] for place, row in enumerate(basis))
    assert diagonal == abs(int(flint.fmpz_mat(basis).det()))
    # X is the largest one that leaves rows of the length 1.02^dim det^(1/dim) with 1-norms below e^m
    if lattice.x_bound > 1 << 40:
        row = dimension * log2(1.02) + log2(diagonal) / dimension + log2(dimension) / 2
        assert abs(row - shape[0] * log2(lattice.e)) < 1e-6 * dimension


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2**32), st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_rows_are_what_their_name_says(shape: Shape, seed: int, x: int, y: int) -> None:
    """x^i y^j f^k e^(m-k), at any x and y, whatever was replaced by u."""
    random = Random(seed)
    lattice = Lattice(prime(random, 128) * prime(random, 128), random.getrandbits(250) | 1, *shape)
    f = 1 + x * y + (lattice.n + 1 - lattice.centre) // 2 * x
    for i, j, k in lattice.shifts:
        row = lattice.row((i, j, k))
        found = sum(c * (1 + x * y) ** a * x**b * y**power for (a, b, power), c in row.items())
        assert found == x**i * y**j * f**k * lattice.e ** (shape[0] - k)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(SHAPES[1:4]), st.integers(0, 2**32), st.integers(0, 4), st.sampled_from((1, -1)))
def test_short_rows_vanish_at_the_root_over_the_integers(shape: Shape, seed: int, below: int, sign: int) -> None:
    lattice, p, q, d = lattice_of_weak_key(Random(seed), 512, shape, below, sign)
    x, y = root_of(lattice, p, q, d)
    assert abs(x) <= lattice.x_bound
    assert abs(y) <= lattice.y_bound
    assert (1 + x * ((lattice.n + 1 - lattice.centre) // 2 + y)) % lattice.e == 0
    rows = lattice.short_rows()
    assert len(rows) > len(lattice.shifts) // 2
    assert all(value(lattice, row, x, y) == 0 for row in rows)
    assert lattice.factor() in (p, q)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((600, 1024)), st.integers(0, 10), st.sampled_from((1, -1)))
def test_exponents_within_the_reach_are_found(seed: int, bits: int, below: int, sign: int) -> None:
    lattice, p, q, _ = lattice_of_weak_key(Random(seed), bits, (5, (4, 5)), below, sign)
    assert lattice.why_not() == ""
    assert lattice.factor() in (p, q)


@pytest.mark.slow
def test_a_larger_lattice_reaches_what_it_says() -> None:
    lattice, p, q, _ = lattice_of_weak_key(Random(94), 256, (7, (4, 5, 7)), 0)
    assert lattice.factor() in (p, q)


def test_a_key_above_the_reach_is_not_found() -> None:
    random = Random(8)
    p, q, e, _ = weak_key(random, 1024, 281)
    assert Lattice(p * q, e, 5, (4, 5)).factor() is None


def test_primes_that_differ_more_need_a_wider_lattice() -> None:
    """p/q of up to 2^17: the bounds hold p + q with that ratio, and leave it out with the usual one."""
    random = Random(12)
    p, q = prime(random, 520), prime(random, 504)
    d = prime(random, 268)
    e = int(gmpy2.invert(d, (p - 1) * (q - 1)))
    assert Lattice(p * q, e, 5, (4, 5)).factor() is None
    assert Lattice(p * q, e, 5, (4, 5), ratio=1 << 17).factor() in (p, q)


def test_the_reach_is_the_published_one() -> None:
    """Rises with the dimension, stays below N^0.292, and is beyond Wiener's quarter for e as long as N."""
    for bits in (1024, 2048, 4096):
        n = (1 << bits) - (1 << (bits - 3)) - 1
        reaches = [Lattice(n, n - 2, m, starts).reach for m, starts, *_ in LATTICES]
        assert reaches == sorted(set(reaches))
        assert 0.27 * bits < reaches[0]
        assert 0.2795 * bits < reaches[-1] < 0.2929 * bits


@pytest.mark.parametrize("shape", [(4, (3,)), (10, (5, 6, 8, 10))])
def test_exponents_of_any_size_are_judged_without_work(shape: Shape) -> None:
    random = Random(9)
    n = prime(random, 1024) * prime(random, 1024)
    assert "further" in Lattice(n, 65537, *shape).why_not()
    assert "further" in Lattice(n, random.getrandbits(1500) | 1, *shape).why_not()
    assert "even" in Lattice(n, random.getrandbits(2048) & ~1, *shape).why_not()
    assert "even" in Lattice(n & ~1, random.getrandbits(2048) | 1, *shape).why_not()
    assert "longer" in Lattice(n, 1 << 16383 | 1, *shape).why_not()
    assert all(Lattice(n, e, *shape).why_not() for e in (-3, 0, 1, 2, 3))
    assert all(Lattice(few, 3, *shape).why_not() for few in (-1, 0, 1, 15))


def test_residues_are_judged_by_the_exponent() -> None:
    random = Random(10)
    n = prime(random, 1024) * prime(random, 1024)
    assert why_no_small_residue(n, 65537, 32)
    assert why_no_small_residue(n, random.getrandbits(2048) | 1, 24) == ""
    assert all(why_no_small_residue(n, e, 24) for e in (-3, 0, 1, 2, 3, 1 << 2047, 1 << 16383 | 1))
    assert all(why_no_small_residue(few, 3, 24) for few in (-1, 0, 1, 15, n - 1))


def key_with_residue(random: Random, half: int, small: int) -> tuple[int, int, int]:
    """p, q and e with d = ``small`` modulo p - 1, and any modulo q - 1."""
    while True:
        p, q = prime(random, half), prime(random, half)
        if gmpy2.gcd(small, p - 1) != 1:
            continue
        e = int(gmpy2.invert(small, p - 1)) + (p - 1) * random.getrandbits(half)
        if gmpy2.gcd(e, q - 1) == 1:
            return p, q, e


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(4, 15), st.data())
def test_every_small_residue_is_found(seed: int, bits: int, data: st.DataObject) -> None:
    """Whichever block and place it is in, the ends included."""
    small = data.draw(st.one_of(st.integers(1, 2 ** (bits - 1) - 1), st.sampled_from((1, 2 ** (bits - 1) - 1)))) * 2 + 1
    p, q, e = key_with_residue(Random(seed), 128, small)
    assert small_residue_factor(p * q, e, bits) == (p, small)


@pytest.mark.parametrize("place", [1, 2, 3, 40, 62, 63])
def test_many_blocks_cover_as_much_as_two(monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    """Blocks of 8 by 8 numbers, 64 of them, the last number of the last included; long moduli get such small ones."""
    monkeypatch.setattr(small_exponent, "_BLOCK_BITS", 256 * 8)
    told: list[tuple[int, int]] = []
    small = 2 * (64 * (place + 1) - 1) + 1
    p, q, e = key_with_residue(Random(6 + place), 128, small)
    assert small_residue_factor(p * q, e, 13, lambda *done: told.append(done)) == (p, small)
    assert told == [(0, 64), (0, 64)] + [(block, 64) for block in range(1, place + 1)]


@pytest.mark.slow
def test_residues_of_32_bits_are_found() -> None:
    small = 2**32 - 2**20 + 1
    p, q, e = key_with_residue(Random(32), 128, small)
    assert small_residue_factor(p * q, e, 32) == (p, small)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.integers(9, 12))
def test_what_is_longer_is_not_found(seed: int, bits: int) -> None:
    """With so large primes no other d fits by chance."""
    p, q, e = key_with_residue(Random(seed), 128, 2 ** (bits + 1) + 1)
    assert small_residue_factor(p * q, e, bits) is None


def test_both_residues_in_one_place_come_apart() -> None:
    """Neighbours share a value of the polynomial; a d that is the same modulo both primes gives nothing, as no gcd parts them."""
    random = Random(4)
    while True:
        p, q = prime(random, 128), prime(random, 128)
        shared = gmpy2.gcd(p - 1, q - 1)
        if gmpy2.gcd(1001, p - 1) == gmpy2.gcd(1003, q - 1) == 1 and shared == 2:
            break
    residues = gmpy2.invert(1001, p - 1), gmpy2.invert(1003, q - 1)
    order = (q - 1) // shared
    e = int(
        residues[0] + (p - 1) * ((residues[1] - residues[0]) // shared * gmpy2.invert((p - 1) // shared, order) % order)
    )
    assert small_residue_factor(p * q, e, 12) == (p, 1001)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(200, 260))
def test_powers_with_triangular_exponents(seed: int, count: int, modulus: int) -> None:
    random = Random(seed)
    base, modulus = random.getrandbits(100), modulus | 1
    found = small_exponent._triangular(count, gmpy2.mpz(base), gmpy2.mpz(modulus))
    assert found == [pow(base, i * (i - 1) // 2, modulus) for i in range(count)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_evaluation_by_one_product_is_evaluation(seed: int, half: int) -> None:
    """The convolution's coefficients are, up to w^C(j, 2), f at the places w^j."""
    random = Random(seed)
    modulus, size = prime(random, 100) * prime(random, 100), 1 << half
    w = random.getrandbits(190)
    ring = flint.fmpz_mod_poly_ctx(modulus)
    f = [random.getrandbits(199) for _ in range(size + 1)]
    inverse = int(gmpy2.invert(w, modulus))
    weights = small_exponent._triangular(size + 1, gmpy2.mpz(inverse), gmpy2.mpz(modulus))
    squares = ring(small_exponent._triangular(2 * size, gmpy2.mpz(w), gmpy2.mpz(modulus)))
    product = ring([c * weight % modulus for c, weight in zip(f, weights, strict=True)][::-1]) * squares
    for j, found in enumerate(product.coeffs()[size : 2 * size]):
        place = pow(w, j, modulus)
        plain = sum(c * pow(place, i, modulus) for i, c in enumerate(f)) % modulus
        assert int(found) * pow(inverse, j * (j - 1) // 2, modulus) % modulus == plain


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_no_sound_key_with_a_large_exponent_is_found(seed: int) -> None:
    """200 keys with random large e, some of them shorter than N."""
    random = Random(seed)
    primes = [prime(random, 160) for _ in range(100)]
    for p, q in zip(primes[::2], primes[1::2], strict=True):
        e = random.getrandbits(random.randrange(300, 321)) | 1
        assert Lattice(p * q, e, 5, (4, 5)).factor() is None
        assert small_residue_factor(p * q, e, 12) is None


@pytest.mark.parametrize(
    "n, e", [(3**200, 2**300 + 1), (2**600 - 1, 2**600 - 3), (2**521 - 1, 2**520 + 1), (2**512 + 1, 3**320)]
)
def test_numbers_that_are_no_keys_give_factors_or_nothing(n: int, e: int) -> None:
    for found in (Lattice(n, e, 3, (3,)).factor(), (small_residue_factor(n, e, 10) or (None,))[0]):
        assert found is None or (1 < found < n and n % found == 0)
