"""Fingerprints of primes in their residues: the subgroup that RSALib's primes live in (ROCA), and its kin.

RSALib chose p = k M + (65537^a mod M) with M the product of the first primes (Nemec and others 2017), so N is a power
of 65537 modulo M. Each residue alone says little; that all are the SAME power is certain.
"""

from __future__ import annotations

from functools import cache

import gmpy2
import numpy as np
from numpy.typing import NDArray

GENERATOR = 65537
#: moduli of the first sieve: their joint table passes 8e-5 of sound keys
SIEVE = (43, 97, 127)
#: number of primes in M by the largest modulus size. RSALib's sizes are multiples of 32: 39 primes to 960 bits, 71 to
#: 1952, 126 to 3936, 225 to 4096. Between them the smaller M decides: whoever is a power modulo the larger one is a
#: power modulo its divisor.
_COUNTS = ((991, 39), (1983, 71), (3967, 126), (16_384, 225))


@cache
def first_primes(count: int) -> tuple[int, ...]:
    """The first primes."""
    found = [2]
    while len(found) < count:
        found.append(int(gmpy2.next_prime(found[-1])))
    return tuple(found)


def prime_count(bits: int) -> int:
    """Number of primes in M for moduli of that many bits."""
    return next(count for most, count in _COUNTS if bits <= most)


@cache
def primorial(count: int) -> int:
    """Product of the first primes."""
    return int(gmpy2.primorial(first_primes(count)[-1]))


@cache
def sieve_table() -> NDArray[np.bool_]:
    """Whether a residue modulo 43 * 97 * 127 is a power of 65537."""
    modulus = SIEVE[0] * SIEVE[1] * SIEVE[2]
    table = np.zeros(modulus, dtype=bool)
    value = 1
    while not table[value]:
        table[value] = True
        value = value * GENERATOR % modulus
    return table


@cache
def _logarithms(prime: int) -> tuple[dict[int, int], int]:
    table: dict[int, int] = {}
    value = 1 % prime
    while value not in table:
        table[value] = len(table)
        value = value * GENERATOR % prime
    return table, len(table)


def order(prime: int) -> int:
    """The order of 65537 modulo a prime."""
    return _logarithms(prime)[1]


def joint_logarithm(n: int, primes: tuple[int, ...]) -> int | None:
    """X with 65537^x = n modulo the product of the primes, or None if n is no power.

    The logarithm modulo each prime is a table look-up; they have to agree by the Chinese remainder theorem for moduli
    that share factors.
    """
    x, period = 0, 1
    for prime in primes:
        table, order = _logarithms(prime)
        residue = table.get(n % prime)
        if residue is None:
            return None
        common = int(gmpy2.gcd(period, order))
        if (residue - x) % common:
            return None
        step = order // common
        if step > 1:
            times = (residue - x) // common * int(gmpy2.invert(period // common, step)) % step
            x += period * times
            period *= step
    return x


@cache
def false_alarm_bits(count: int) -> int:
    """-log2 of the chance that a random unit modulo the primorial is a power of 65537, rounded down."""
    order, units = 1, 1
    for prime in first_primes(count):
        order = int(gmpy2.lcm(order, _logarithms(prime)[1]))
        units *= prime - 1
    return (units // order).bit_length() - 1


def power_table(exponent: int, primes: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether a residue modulo the product of the primes is a power with that exponent, zero included."""
    modulus = int(np.prod(primes))
    table = np.ones(modulus, dtype=bool)
    for prime in primes:
        powers = np.zeros(prime, dtype=bool)
        powers[[pow(x, exponent, prime) for x in range(prime)]] = True
        table &= np.tile(powers, modulus // prime)
    return table


#: the variant's sieve: squares modulo all of these at once, 1.6 % of sound keys
SQUARE_SIEVE = (5, 7, 11, 13, 17, 19)


@cache
def square_sieve_table() -> NDArray[np.bool_]:
    """Whether a residue modulo 5 * 7 * ... * 19 is a non-zero square modulo each."""
    table = power_table(2, SQUARE_SIEVE)
    for prime in SQUARE_SIEVE:
        table[::prime] = False
    return table


def is_square_everywhere(n: int, primes: tuple[int, ...]) -> bool:
    """Whether n is a non-zero square modulo every one of the odd primes."""
    return all(gmpy2.legendre(n, prime) == 1 for prime in primes)
