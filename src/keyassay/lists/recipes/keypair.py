"""The key generator of keypair before 1.0.4 (npm, CVE-2021-41117), bit for bit: from a pool of 32 bytes to the key.

The pool should be random and is nearly all zero: a byte of the clock, then 31 bytes that were characters and are
converted to characters once more, so that "1" to "9" leave 1 to 9 and every other character leaves 0. Pools are
numbered by rising count of such non-zero bytes. Described from runs of the original: ``tests/vectors/make``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import comb

import gmpy2
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

#: Bytes of the pool that the clock does not fill, each non-zero with probability 9/256.
PLACES = 31

#: Values of the clock's byte: the lowest of the milliseconds since 1970.
CLOCKS = 256

#: How far above its start a prime is looked for; a longer way has a chance of 2^-32 at 4096 bits, less below.
REACH = 1 << 15

_ECB = modes.ECB()  # noqa: S305  the original enciphers single blocks
_STEPS = (6, 4, 2, 4, 2, 4, 6, 2)


def pools_with(nonzero: int) -> int:
    """Number of pools with exactly that many non-zero bytes beside the clock's."""
    digits: int = 9**nonzero
    return CLOCKS * comb(PLACES, nonzero) * digits


def pools_up_to(nonzero: int) -> int:
    """Number of pools with at most that many non-zero bytes: numbers below it belong to them."""
    return sum(pools_with(count) for count in range(nonzero + 1))


def share_up_to(nonzero: int) -> float:
    """The share of first keys of a process that come from pools with at most that many non-zero bytes."""
    return sum(
        comb(PLACES, count) * (9 / 256) ** count * (247 / 256) ** (PLACES - count) for count in range(nonzero + 1)
    )


@cache
def _places(nonzero: int) -> list[tuple[int, ...]]:
    return list(combinations(range(1, PLACES + 1), nonzero))


def pool_of(number: int) -> bytes:
    """The pool of a number: fewer non-zero bytes first, then by their places, their values, the clock.

    Args:
        number: 0 or more, below ``pools_up_to(3)``.

    Raises:
        ValueError: it is not in that range.
    """
    if not 0 <= number < pools_up_to(3):
        raise ValueError(f"there is no pool {number}")
    nonzero = 0
    while number >= pools_with(nonzero):
        number -= pools_with(nonzero)
        nonzero += 1
    number, clock = divmod(number, CLOCKS)
    rank, digits = divmod(number, 9**nonzero)
    pool = bytearray(1 + PLACES)
    pool[0] = clock
    for place in reversed(_places(nonzero)[rank]):
        digits, digit = divmod(digits, 9)
        pool[place] = digit + 1
    return bytes(pool)


def nonzero_bytes(pool: bytes) -> int:
    """How many bytes beside the clock's are not zero."""
    return PLACES - pool[1:].count(0)


def first_state(pool: bytes) -> tuple[bytes, bytes]:
    """Key and counter that a pool leads to, 16 bytes each."""
    digest = hashlib.sha1(hashlib.sha1(pool).digest()).digest()
    return digest[:16], hashlib.sha1(digest).digest()[:16]


def _blocks(pool: bytes) -> Iterator[bytes]:
    """Output of the generator, 16 bytes at a time, for the first mebibyte (then the original seeds itself again)."""
    key, counter = first_state(pool)
    cipher = Cipher(algorithms.AES(key), _ECB).encryptor()
    while True:
        last = (int.from_bytes(counter[12:], "big") + 1) & 0xFFFFFFFF
        following = counter[:12] + last.to_bytes(4, "big")
        both = cipher.update(counter + following)
        yield both[:16]
        cipher = Cipher(algorithms.AES(both[16:]), _ECB).encryptor()
        counter = cipher.update(following)


def starts(pool: bytes, bits: int) -> Iterator[int]:
    """Numbers from which the program searches one prime after the other, each 1 modulo 30.

    Args:
        pool: 32 bytes.
        bits: of the modulus, a multiple of 16.
    """
    size = bits // 16
    blocks = _blocks(pool)
    count = -(-(size + 1) // 16)  # one byte more than needed is drawn and dropped
    while True:
        drawn = b"".join([next(blocks) for _ in range(count)])
        start = int.from_bytes(drawn[1 : size + 1], "big") | 1 << (8 * size - 1)
        yield start + 31 - start % 30


def starts_of_primes(pool: bytes, bits: int) -> tuple[int, int]:
    """The two starts that lead to the primes of the first key, without a primality test.

    Where two primes give a modulus one bit short, the larger stays and the next start takes the other's place: the
    starts tell that as well as the primes. Not so for keys with a prime that is 1 modulo the public exponent, which
    the program throws away: one in 25,000 with 65537.
    """
    drawn = starts(pool, bits)
    one, two = next(drawn), next(drawn)
    while (one * two).bit_length() < bits:
        one, two = max(one, two), next(drawn)
    return one, two


def top_bits(pool: bytes, bits: int) -> int:
    """The highest 64 bits of the first key's modulus: those of the product of the starts."""
    one, two = starts_of_primes(pool, bits)
    return one * two >> (bits - 64)


def prime_of(modulus: int, one: int, two: int) -> int | None:
    """The prime factor of a modulus that was reached from the start ``one``, the other from ``two``, if so.

    With N = (one + x)(two + y), y + x * two / one differs from (N - one * two) / one by next to nothing, so the right
    x is the one where what comes after the point agrees: 64 bits of all x < ``REACH`` at once. Tens of microseconds,
    whatever the modulus.
    """
    rest = modulus - one * two
    if not 0 <= rest < REACH * (one + two + REACH):
        return None
    mask = (1 << 64) - 1
    ratio = np.uint64(((two << 64) // one) & mask)
    wanted = np.uint64(((rest << 64) // one) & mask)
    gaps = wanted - np.arange(REACH, dtype=np.uint64) * ratio  # modulo 2^64; the right one is -1 to x + 1
    for x in np.flatnonzero(gaps + np.uint64(1) <= REACH + 2)[:8].tolist():
        factor = one + int(x)
        if modulus % factor == 0:
            return factor
    return None


@dataclass(frozen=True, slots=True)
class Key:
    """A key as the program makes it: p > q; ``draws`` counts the starts that were used."""

    p: int
    q: int
    draws: int

    @property
    def modulus(self) -> int:
        """The product of both primes."""
        return self.p * self.q


def first_key(pool: bytes, bits: int, exponent: int = 65537) -> Key:
    """The first key of a process, with all searches and tests of the program: milliseconds to a second.

    Args:
        pool: 32 bytes.
        bits: of the modulus, a multiple of 16.
        exponent: public exponent; odd.
    """
    draws = 0
    drawn = starts(pool, bits)

    def prime() -> int:
        nonlocal draws
        while True:
            number = next(drawn)
            draws += 1
            step = 0
            while not gmpy2.is_prime(number):
                number += _STEPS[step % 8]
                step += 1
            if number.bit_length() == bits // 2 and gmpy2.gcd(number - 1, exponent) == 1:
                return number

    p, q = prime(), prime()
    while True:
        p, q = max(p, q), min(p, q)
        if (p * q).bit_length() == bits:
            return Key(p, q, draws)
        q = prime()
