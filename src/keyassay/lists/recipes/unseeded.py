"""What well-known random generators say first when nobody, or a constant, seeds them.

Each generator is remade from its public definition (GMP's Mersenne Twister and linear congruential schemes,
java.util.Random, Python's random) and gives an endless stream of ``bits``-bit integers, as a program draws primes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random

import gmpy2

from keyassay.keymath.generators import GMP_CONGRUENTIAL
from keyassay.lists.accelerator import pair_test

#: What programs do to an output before they search or test it: nothing, or set the highest one or two bits.
TWEAKS = ("plain", "top", "top2")

#: Length of a prime in bits, for moduli of 1024, 2048, 3072 and 4096 bits.
PRIME_BITS = (512, 1024, 1536, 2048)


def tweaked(output: int, bits: int, tweak: str) -> int:
    """The output with its highest bits set as ``tweak`` says (one of ``TWEAKS``)."""
    forced = {"plain": 0, "top": 1 << (bits - 1), "top2": 3 << (bits - 2)}[tweak]
    return output | forced


def _mersenne_twister(seed: int) -> Callable[[int], Iterator[int]]:
    def stream(bits: int) -> Iterator[int]:
        state = gmpy2.random_state(seed)
        while True:
            yield int(gmpy2.mpz_urandomb(state, bits))

    return stream


def _congruential(modulus_bits: int, seed: int) -> Callable[[int], Iterator[int]]:
    """GMP's ``gmp_randinit_lc_2exp_size``: the high half of each state, the first one lowest."""
    multiplier = GMP_CONGRUENTIAL[modulus_bits]
    mask = (1 << modulus_bits) - 1
    half = modulus_bits // 2

    def stream(bits: int) -> Iterator[int]:
        state = seed
        steps = -(-bits // half)
        while True:
            value = 0
            for place in range(steps):
                state = (multiplier * state + 1) & mask
                value |= (state >> half) << (place * half)
            yield value & ((1 << bits) - 1)

    return stream


def _java(seed: int) -> Callable[[int], Iterator[int]]:
    """``new BigInteger(bits, new Random(seed))``: bytes from nextInt, low byte first, read big-endian."""

    def stream(bits: int) -> Iterator[int]:
        state = (seed ^ 0x5DEECE66D) & ((1 << 48) - 1)
        size = (bits + 7) // 8
        while True:
            drawn = bytearray()
            for _ in range(-(-size // 4)):
                state = (state * 0x5DEECE66D + 11) & ((1 << 48) - 1)
                drawn += (state >> 16).to_bytes(4, "little")
            yield int.from_bytes(drawn[:size], "big") & ((1 << bits) - 1)

    return stream


def _python(seed: int) -> Callable[[int], Iterator[int]]:
    def stream(bits: int) -> Iterator[int]:
        state = Random(seed)  # noqa: S311  this weak generator is the subject
        while True:
            yield state.getrandbits(bits)

    return stream


#: Name -> stream of outputs of a given length. 5489 is the Mersenne Twister's own default, 1 that of GMP's
#: congruential generators.
GENERATORS: dict[str, Callable[[int], Iterator[int]]] = {
    **{f"gmp-mt seed={seed}": _mersenne_twister(seed) for seed in (5489, 0, 1, 42)},
    **{f"java seed={seed}": _java(seed) for seed in (0, 1, 42)},
    **{f"python seed={seed}": _python(seed) for seed in (0, 1, 42)},
    **{f"gmp-lc-{size} seed={seed}": _congruential(size, seed) for size in GMP_CONGRUENTIAL for seed in (1, 0)},
}


@cache
def first_outputs(generator: str, bits: int, count: int) -> tuple[int, ...]:
    """The first ``count`` outputs of ``bits`` bits of a generator of ``GENERATORS``."""
    return tuple(islice(GENERATORS[generator](bits), count))


#: Streams in which the places of the first primes are listed too, for programs that draw until an output is prime.
SEARCHED = tuple(
    name for name in GENERATORS if not name.startswith("gmp-lc-") or name in ("gmp-lc-64 seed=1", "gmp-lc-256 seed=1")
)

#: Outputs that the search for primes looks at, at most.
SEARCH_LIMIT = 10_000

PLACES = Path(__file__).parent.parent / "data" / "unseeded" / "places.csv"


def prime_places(generator: str, bits: int, tweak: str, count: int) -> list[tuple[int, int]]:
    """Where a program finds its primes that draws until a tweaked output, made odd, is prime.

    Returns:
        The first ``count`` of (place in the stream, from 0; the prime).
    """
    small = gmpy2.primorial(1 << 13)
    drawn = enumerate(islice(GENERATORS[generator](bits), SEARCH_LIMIT))
    odd = ((place, tweaked(output, bits, tweak) | 1) for place, output in drawn)
    sieved = ((place, number) for place, number in odd if gmpy2.gcd(number, small) == 1)
    test = pair_test(bits)
    found: list[tuple[int, int]] = []
    while len(found) < count and (pair := list(islice(sieved, 2))):
        passed = test(pair[0][1], pair[-1][1])
        found.extend(one for one, good in zip(pair, passed, strict=False) if good and gmpy2.is_prime(one[1]))
    return found[:count]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a prime comes from: the output at ``place`` (from 0) of a generator, tweaked."""

    generator: str
    tweak: str
    place: int

    def start(self, bits: int) -> int:
        """The number from which the program reached its prime."""
        output = next(islice(GENERATORS[self.generator](bits), self.place, None))
        return tweaked(output, bits, self.tweak)


def listed_places(bits: int) -> list[tuple[Origin, int]]:
    """The shipped places of primes of one size: (origin, the prime's highest 96 bits of ``bits``), in file order."""
    rows = (line.split(",") for line in PLACES.read_text().splitlines() if not line.startswith("#"))
    return [
        (Origin(generator, tweak, int(place)), int(top, 16))
        for generator, size, tweak, place, top in rows
        if int(size) == bits
    ]


def write_places() -> None:
    """Make the shipped table of places again: the same bytes every time, some minutes."""
    lines = ["# generator,bits,tweak,place (from 0),highest 96 bits"]
    for bits in PRIME_BITS:
        for generator in SEARCHED:
            for tweak in TWEAKS:
                lines.extend(
                    f"{generator},{bits},{tweak},{place},{prime >> (bits - 96):024x}"
                    for place, prime in prime_places(generator, bits, tweak, 3)
                )
    PLACES.parent.mkdir(parents=True, exist_ok=True)
    PLACES.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write_places()
