"""How often elliptic curves find a prime factor of so many bits in so much time, as profile deep runs them.

    python3 dev.py bench small-factors [--bits 56] [--within 10] [--size 2048] [--moduli 40] [--seed 1] [--json FILE]

Every modulus is a new product of two random primes, and each runs through the curves of rsa-small-factor from the first
on, without other steps, until its factor shows or the CPU time is over. What has been found must be the factor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from random import Random

import gmpy2

from keyassay.checks.rsa_small_factor import CURVES
from keyassay.keymath.ecm import factor_by_curve, multiplier, sigma_of


class OverError(Exception):
    """The time is over."""


def prime(drawn: Random, size: int) -> int:
    """A random prime with its two top bits set."""
    return int(gmpy2.next_prime(drawn.getrandbits(size) | 3 << (size - 2)))


def search(n: int, within: float) -> tuple[int | None, float, int]:
    """(the factor or None, CPU seconds, curves that were begun)."""
    started = time.process_time()

    def alive() -> None:
        if time.process_time() > started + within:
            raise OverError

    number = 0
    try:
        for _, _, count, level in CURVES:
            for _ in range(count):
                number += 1
                factor = factor_by_curve(n, sigma_of(n, number - 1), level, alive)
                if factor is not None:
                    return factor, time.process_time() - started, number
    except OverError:
        pass
    return None, time.process_time() - started, number


def main() -> None:
    """Search, print a line for each modulus and one for all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, default=56, help="of the factor")
    parser.add_argument("--within", type=float, default=10.0, help="CPU seconds for each modulus")
    parser.add_argument("--size", type=int, default=2048, help="bits of the modulus")
    parser.add_argument("--moduli", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    for _, _, _, level in CURVES:
        multiplier(level.bound)  # made once in a process, not for each key
    drawn = Random(f"{given.seed} {given.bits} {given.size}")
    rows: list[dict[str, object]] = []
    times: list[float] = []
    for _ in range(given.moduli):
        p = prime(drawn, given.bits)
        factor, spent, curves = search(p * prime(drawn, given.size - given.bits), given.within)
        if factor is not None:
            assert factor == p
            times.append(spent)
        rows.append({"found": factor is not None, "seconds": spent, "curves": curves})
        print(f"{'found' if factor else 'not found':10} {spent:8.2f} s {curves:4} curves", flush=True)
    middle = f", half of these within {statistics.median(times):.1f} s" if times else ""
    print(f"{len(times)} of {given.moduli} factors of {given.bits} bits within {given.within:g} s{middle}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
