import math
import random
from fractions import Fraction

import gmpy2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.keymath import residues, roca
from roca_keys import roca_key, root_of

#: primes in M of a small form of RSALib's: 256 bits, searched through in a moment
SMALL = 22


def small_plan():
    return roca.plan(256, SMALL)


@pytest.mark.parametrize(("bits", "count"), [(256, SMALL), (512, 0), (544, 0), (1024, 0)])
def test_a_plan_divides_what_it_says(bits, count):
    plan = roca.plan(bits, count)
    assert residues.primorial(count or residues.prime_count(bits)) % plan.modulus == 0
    assert plan.modulus == plan.root_modulus * math.prod(plan.primes)
    for modulus, order in ((plan.modulus, plan.order), (plan.root_modulus, plan.root_order)):
        assert pow(65537, order, modulus) == 1
        assert all(pow(65537, order // r, modulus) != 1 for r in residues.first_primes(60) if order % r == 0)
    assert plan.index < 1 << 31


def test_the_plan_for_512_bits():
    # the divisor with 32,432,400 powers, long enough for Coppersmith's method in dimension 5, computed independently
    shorter = 0x8C54F23EFD7566EBCD36D45BE11D2CAB4EA259D2
    primes = [p for p in residues.first_primes(39) if 32_432_400 % residues.order(p) == 0]
    assert math.prod(primes) == shorter
    plan = roca.plan(512)
    assert (plan.order, plan.modulus.bit_length()) == (551_350_800, 173)
    assert plan.seconds < 3_600


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**32))
def test_every_small_key_falls(seed):
    p, q, _, _ = roca_key(seed, 256, SMALL)
    search = roca.Search(p * q, small_plan())
    assert search.run(0, search.roots) == min(p, q)


def test_the_factor_is_found_at_its_root_and_nowhere_else():
    p, q, a, b = roca_key(1, 256, SMALL)
    search = roca.Search(p * q, small_plan())
    place = root_of(search, (a, b))
    assert search.run(place, 1) == min(p, q)
    others = [(a - search.first) % search.plan.root_order, (b - search.first) % search.plan.root_order]
    assert search.run(0, place) is None
    if max(others) >= search.roots:
        assert search.run(place + 1, search.roots) is None


@pytest.mark.parametrize("bits", [480, 512, 544, 576])
def test_keys_of_real_size_fall_beside_their_root(bits):
    for seed in range(10):
        p, q, a, b = roca_key(seed, bits)
        search = roca.Search(p * q)
        assert search.run(max(0, root_of(search, (a, b)) - 3), 5) == min(p, q)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [1024, 2048])
def test_large_keys_fall_beside_their_root(bits):
    for seed in range(3):
        p, q, a, b = roca_key(seed, bits)
        search = roca.Search(p * q)
        assert search.run(max(0, root_of(search, (a, b)) - 1), 2) == min(p, q)


def test_the_lattices_are_those_of_their_leaves():
    p, q, _, _ = roca_key(2, 512)
    search = roca.Search(p * q)
    block = roca._Roots(search, 1000).take(3)
    longer, shorter, phases = search._lattices(block)
    plan = search.plan
    unit = Fraction(math.isqrt(p * q), plan.modulus**2)
    for leaf in range(0, 3 * plan.leaves_per_root, 29):
        root, number = divmod(leaf, plan.leaves_per_root)
        exponent = int(block.exponents[root]) + number * plan.root_order
        square = plan.modulus**2
        u = pow(65537, exponent, square)
        v = p * q * pow(u, -1, square) % square
        ratio = v * pow(u, -1, plan.modulus) % plan.modulus
        (x2, y2), (x1, y1) = roca._short(plan.modulus, ratio)
        # the area of the reduced basis is M', and its shorter vector is as short as any in the exact lattice
        area = abs(shorter[0, leaf] * longer[1, leaf] - shorter[1, leaf] * longer[0, leaf])
        assert area == pytest.approx(float(plan.modulus * unit * unit), rel=1e-6)
        shortest = min(
            (x, y)
            for i in range(-3, 4)
            for j in range(-3, 4)
            if (i, j) != (0, 0)
            for x, y in [(i * x1 + j * x2, i * y1 + j * y2)]
            if _same(x * unit, y * unit, shorter[:, leaf])
        )
        known = Fraction((shortest[0] * u + shortest[1] * v) % square, square)
        assert abs((phases[0, leaf] - known + Fraction(1, 2)) % 1 - Fraction(1, 2)) < 1e-6


def _same(x, y, vector):
    return math.isclose(x, vector[0], rel_tol=1e-6, abs_tol=1e-9) and math.isclose(
        y, vector[1], rel_tol=1e-6, abs_tol=1e-9
    )


def test_a_lattice_too_lopsided_for_floating_point_is_done_in_integers():
    # Where N is a square modulo M0, some root has u = v, and (1, 1) in its lattice.
    for seed in range(20):
        p, q, _, _ = roca_key(seed, 256, SMALL)
        search = roca.Search(p * q, small_plan())
        blocks = roca._Roots(search, 0).take(search.roots)
        if blocks.degenerate:
            break
    else:
        pytest.fail("no such root among twenty keys")
    place = blocks.degenerate[0]
    exponents = search._exponents(roca._Roots(search, place).take(1))
    assert len(exponents) == search.plan.leaves_per_root


def test_a_key_of_other_make_is_refused():
    with pytest.raises(ValueError, match="no power"):
        roca.Search((2**127 - 1) * (2**128 + 51), small_plan())


def test_primes_of_unequal_size_are_not_found_and_end():
    chance = random.Random(3)
    modulus = residues.primorial(SMALL)

    def prime(bits):
        while True:
            k = chance.getrandbits(bits - modulus.bit_length()) | 1
            candidate = k * modulus + pow(65537, chance.randrange(modulus), modulus)
            if gmpy2.is_prime(candidate):
                return candidate

    n = prime(114) * prime(142)
    search = roca.Search(n, roca.plan(n.bit_length(), SMALL))
    assert search.run(0, search.roots) is None
