"""Fingerprints in residues: the joint logarithm is a logarithm, sieves over-select at their stated rate, bounds hold."""

from __future__ import annotations

import gmpy2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyassay.keymath import arrays, residues

COUNTS = (39, 71, 126, 225)


def random_numbers(count: int, bits: int, seed: int) -> np.ndarray:
    """Odd numbers with their two top bits set, as little-endian bytes."""
    octets = np.random.default_rng(seed).integers(0, 256, (count, bits // 8), dtype=np.uint8)
    octets[:, 0] |= 1
    octets[:, -1] |= 0xC0
    return octets


@given(st.integers(0, 2**64), st.sampled_from(COUNTS))
def test_powers_have_their_logarithm(x: int, count: int) -> None:
    modulus = residues.primorial(count)
    n = pow(residues.GENERATOR, x, modulus)
    found = residues.joint_logarithm(n, residues.first_primes(count))
    assert found is not None
    assert pow(residues.GENERATOR, found, modulus) == n


@given(st.integers(0, 2**64), st.sampled_from(COUNTS), st.data())
def test_one_wrong_residue_is_no_power(x: int, count: int, data: st.DataObject) -> None:
    """However the residue modulo one prime is changed: what is no joint power has no logarithm, what is has one."""
    primes = residues.first_primes(count)
    prime = data.draw(st.sampled_from(primes[1:]))
    modulus = residues.primorial(count)
    step = modulus // prime * pow(modulus // prime, -1, prime)
    n = (pow(residues.GENERATOR, x, modulus) + data.draw(st.integers(1, prime - 1)) * step) % modulus
    found = residues.joint_logarithm(n, primes)
    assert found is None or pow(residues.GENERATOR, found, modulus) == n
    if n % prime == 0:
        assert found is None


def test_primes_and_primorials_are_those_of_the_paper() -> None:
    assert [residues.first_primes(count)[-1] for count in COUNTS] == [167, 353, 701, 1427]
    for bits, count in (
        (512, 39),
        (960, 39),
        (992, 71),
        (1952, 71),
        (1984, 126),
        (3936, 126),
        (3968, 225),
        (4096, 225),
    ):
        assert residues.prime_count(bits) == count
        product = 1
        for prime in residues.first_primes(count):
            product *= prime
        assert residues.primorial(count) == product
        assert product.bit_length() <= bits // 2


@pytest.mark.parametrize(("count", "bound"), [(39, 150), (71, 300), (126, 600), (225, 1200)])
def test_false_alarms_of_roca_are_bounded(count: int, bound: int) -> None:
    """Units modulo the primorial against the powers among them: orders by counting, not by the module's tables."""
    order, units = 1, 1
    for prime in residues.first_primes(count):
        value, turns = residues.GENERATOR % prime, 1
        while value != 1 and prime > 2:
            value, turns = value * residues.GENERATOR % prime, turns + 1
        order, units = int(gmpy2.lcm(order, turns)), units * (prime - 1)
    assert residues.false_alarm_bits(count) == (units // order).bit_length() - 1
    assert residues.false_alarm_bits(count) > bound


def test_the_sieve_of_roca_passes_the_stated_share_of_sound_numbers() -> None:
    """8 in 100,000 by its table, and of 200,000 random odd numbers."""
    table = residues.sieve_table()
    modulus = len(table)
    assert modulus == 43 * 97 * 127
    powers = {pow(residues.GENERATOR, x, modulus) for x in range(int(table.sum()) + 5)}
    assert powers == set(np.flatnonzero(table).tolist())
    assert 7e-5 < table.mean() < 9e-5
    rows = random_numbers(200_000, 512, 1)
    passed = int(table[arrays.residues(rows, (modulus,))[:, 0]].sum())
    assert abs(passed - 200_000 * table.mean()) < 6 * (200_000 * table.mean()) ** 0.5


def test_the_sieve_of_squares_passes_the_stated_share_of_sound_numbers() -> None:
    """1.6 % of units; of random odd numbers those divisible by one of the primes drop out as well."""
    table = residues.square_sieve_table()
    modulus = len(table)
    units = np.ones(modulus, dtype=bool)
    for prime in residues.SQUARE_SIEVE:
        units[::prime] = False
    assert table.sum() / units.sum() == 2.0 ** -len(residues.SQUARE_SIEVE)
    rows = random_numbers(100_000, 512, 2)
    column = arrays.residues(rows, (modulus,))[:, 0]
    expected = units[column].sum() / 64
    assert abs(int(table[column].sum()) - expected) < 6 * expected**0.5


def test_symbols_of_sound_numbers_are_independent_coins() -> None:
    """Each Legendre symbol halves what is left: 12 primes leave 2^-12 of products of random units."""
    primes = residues.first_primes(50)[2:]
    rows = random_numbers(120_000, 256, 3)
    left = np.ones(len(rows), dtype=bool)
    values = arrays.residues(rows, primes[:12])
    unit = np.ones(len(rows), dtype=bool)
    for place, prime in enumerate(primes[:12]):
        squares = np.zeros(prime, dtype=bool)
        squares[[x * x % prime for x in range(1, prime)]] = True
        left &= squares[values[:, place]]
        unit &= values[:, place] != 0
    expected = unit.sum() / 4096
    assert abs(int(left.sum()) - expected) < 6 * expected**0.5
    for row in np.flatnonzero(left)[:5].tolist():
        n = int.from_bytes(rows[row].tobytes(), "little")
        assert residues.is_square_everywhere(n, primes[:12])


@given(st.integers(1, 2**256))
def test_squares_are_squares_everywhere(x: int) -> None:
    primes = tuple(prime for prime in residues.first_primes(50)[2:] if x % prime)
    assert residues.is_square_everywhere(x * x, primes)
