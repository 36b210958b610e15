"""p - 1 and p + 1: exhaustive on small primes, and never anything but a proper divisor."""

from __future__ import annotations

import time
from math import gcd, prod

import gmpy2
import pytest
from gmpy2 import mpz
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.keymath.factoring import primes_below
from keyassay.keymath.smooth import (
    SEEDS,
    PowerSearch,
    coprime_residues,
    exponent_pieces,
    lucas,
    p_plus_1,
    prime_power,
)
from vectors_of_checks import cases_of

#: a prime of which p - 1 and p + 1 are no use: twice and six times a prime of 250 bits
SAFE = int(gmpy2.next_prime(1 << 250))
while not (gmpy2.is_prime(2 * SAFE + 1) and gmpy2.is_prime((2 * SAFE + 2) // 12)):
    SAFE = int(gmpy2.next_prime(SAFE))
    if gmpy2.is_prime(2 * SAFE + 1):
        break
SAFE = 2 * SAFE + 1


def quiet(_done: int, _total: int, _unit: str) -> None:
    """No reports."""


class OverError(Exception):
    """The time is over."""


def until(deadline: float):
    def reached(_done: int, _total: int, _unit: str) -> None:
        if time.process_time() >= deadline:
            raise OverError

    return reached


def test_the_exponent_has_every_prime_once_and_small_ones_to_high_powers() -> None:
    pieces = list(exponent_pieces(2, 1 << 13))
    whole = prod(piece for _, piece in pieces)
    assert whole == prod(prime_power(r) for r in primes_below(1 << 13).tolist())
    assert [below for below, _ in pieces] == sorted({below for below, _ in pieces})
    assert all(whole % r**2 == 0 for r in primes_below(1 << 13).tolist())
    assert prime_power(2) == 2**64
    assert prime_power(65_537) == 65_537


@pytest.mark.parametrize("width", [210, 2310])
def test_stage_two_of_powers_covers_every_prime_to_its_reach(width: int) -> None:
    """A power of exact order r modulo p shows for each r from the bound to D times its totient."""
    reach = width * len(coprime_residues(width))
    chosen = primes_below(reach)
    chosen = [r for r in chosen[:: max(1, len(chosen) // 60)].tolist() if r > 13] + [int(chosen[-1])]
    for r in chosen:
        k = 2
        while not gmpy2.is_prime(k * r + 1):
            k += 2
        p = k * r + 1
        n = p * SAFE
        search = PowerSearch(n)
        generator = next(g for x in range(2, 50) if (g := pow(x, k, p)) != 1)
        # generator modulo p, 3 modulo the other
        search.power = mpz((generator + p * ((3 - generator) * pow(p, -1, SAFE) % SAFE)) % n)
        search.bound = 2
        assert search.stage_two(width, quiet) == p, r


def test_stage_two_of_powers_stops_at_its_reach() -> None:
    r = int(gmpy2.next_prime(210 * 49 + 1))
    k = next(k for k in range(2, 1000, 2) if gmpy2.is_prime(k * r + 1))
    p = k * r + 1
    search = PowerSearch(p * SAFE)
    search.power = gmpy2.powmod(3, k, p * SAFE)
    search.bound = 2
    assert search.stage_two(210, quiet) is None


@given(st.integers(3, 10**30), st.integers(1, 10**6), st.integers(5, 10**20))
def test_lucas_is_the_sum_of_powers(v: int, k: int, n: int) -> None:
    """V_k by matrix powers."""

    def times(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        return (
            (a[0] * b[0] + a[1] * b[2]) % n,
            (a[0] * b[1] + a[1] * b[3]) % n,
            (a[2] * b[0] + a[3] * b[2]) % n,
            (a[2] * b[1] + a[3] * b[3]) % n,
        )

    power, base, rest = (1, 0, 0, 1), (v % n, -1 % n, 1, 0), k
    while rest:
        if rest & 1:
            power = times(power, base)
        base, rest = times(base, base), rest >> 1
    assert lucas(mpz(v), mpz(k), mpz(n)) % n == (power[0] + power[3]) % n


@pytest.mark.parametrize("seed", SEEDS, ids=str)
def test_p_plus_1_finds_all_small_primes_that_it_should(seed: tuple[int, int]) -> None:
    """Bound 50, D = 90: of all primes of 17 bits just those are found whose order is 50-smooth but for one prime."""
    powers = prod(prime_power(r) for r in primes_below(50).tolist())
    reach = 90 * len(coprime_residues(90)) // 2
    for p in [int(gmpy2.next_prime((1 << 16) + 300 * i)) for i in range(150)]:
        v = seed[0] * pow(seed[1], -1, p) % p
        order = p + 1 if gmpy2.legendre(v * v - 4, p) == -1 else p - 1
        rest = order // gcd(order, powers)
        found = p_plus_1(p * SAFE, seed, 50, 90, quiet)
        if rest == 1 or (gmpy2.is_prime(rest) and rest < reach):
            assert found == p
        assert found in (None, p)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 10**12).map(lambda x: 2 * x + 1))
def test_only_proper_divisors_are_returned(n: int) -> None:
    search = PowerSearch(n)
    found = [search.stage_one(200, quiet) or search.stage_two(30, quiet)]
    found += [p_plus_1(n, seed, 200, 30, quiet) for seed in SEEDS]
    for factor in found:
        assert factor is None or (1 < factor < n and n % factor == 0)
        assert not (factor and gmpy2.is_prime(n))


@pytest.mark.slow
def test_near_misses_are_missed_by_all_steps_to_2_20() -> None:
    for case in cases_of("rsa-smooth-prime"):
        if case.verdict == "near-miss":
            search = PowerSearch(case.items[0].key.modulus)
            assert search.stage_one(1 << 20, quiet) is None, case.name
            assert search.stage_two(30_030, quiet) is None, case.name


@pytest.mark.parametrize(
    "n",
    [2**16383 + 12345, 3**10337, 15, 9, 2**1279 - 1, prod(range(3, 900, 2)), (2**521 - 1) ** 3],
    ids=["16384 bits", "a power", "15", "9", "a prime", "smooth", "a cube"],
)
def test_hostile_numbers_end_at_the_deadline(n: int) -> None:
    for work in (
        lambda reached: PowerSearch(n).stage_one(1 << 20, reached),
        lambda reached: PowerSearch(n).stage_two(2310, reached),
        lambda reached: p_plus_1(n, SEEDS[0], 1 << 16, 2310, reached),
    ):
        started = time.process_time()
        try:
            factor = work(until(started + 0.2))
        except OverError:
            factor = None
        assert factor is None or n % factor == 0
        assert time.process_time() - started < 6  # a piece at 16,384 bits takes one or two, more on a busy machine
