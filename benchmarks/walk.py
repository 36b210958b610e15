"""What the walk for Debian keys without a list costs: CPU a stream and draw, and what it makes of a whole walk.

    python3 dev.py bench walk [--bits 2050 8192] [--streams 8192] [--draws 6] [--json FILE]

Streams are drawn in lockstep and every candidate is tried on one modulus and on a hundred; the same streams are drawn
by the scalar generator beside it. A whole walk (393,216 streams, depth 10) is extrapolated from these, which is sound:
every draw costs the same. All ways take turns, so that a busy machine slows all of them; the smallest figure counts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from keyassay.lists.recipes.debian_openssl import Draws, Stream
from keyassay.lists.walk import DEPTH, Divisors, Reading, draws_to, parts, prime_bits


def moduli(bits: int, count: int) -> list[int]:
    """Numbers of the size and form of moduli; none of them is a key."""
    random = Random(bits)
    return [random.getrandbits(bits) | 9 << (bits - 4) | 1 for _ in range(count)]


def seconds(function: Callable[[], object]) -> float:
    """CPU time of a call."""
    started = time.process_time()
    function()
    return time.process_time() - started


def measure(bits: int, streams: int, draws: int) -> dict[str, float]:
    """Microseconds of CPU, by what was done."""
    size = prime_bits(bits)
    reading = Reading("le64", "rnd", range(1, streams + 1), size)
    scalar = Draws(Stream("le64", "rnd", 1), (size + 7) // 8)
    tried = {count: Divisors(moduli(bits, count), size) for count in (1, 100)}
    rows: NDArray[np.uint8] = reading.candidates()[1]
    for _ in range(4):  # until the streams are no longer in step with each other
        reading.candidates()
    list(tried[100].find(rows[:64]))  # makes its tables
    taken: dict[str, list[float]] = {"draw": [], "scalar draw": [], "one modulus": [], "a hundred": []}
    for turn in range(draws):

        def draw() -> None:
            nonlocal rows
            rows = reading.candidates()[1]

        taken["draw"].append(seconds(draw) / streams)
        taken["scalar draw"].append(seconds(lambda turn=turn: scalar[100 * turn + 99]) / 100)
        few = rows[:1_024]
        for count, name in ((1, "one modulus"), (100, "a hundred")):
            spent = seconds(lambda count=count, few=few: list(tried[count].find(few)))
            taken[name].append(spent / len(few))
    return {name: min(figures) * 1e6 for name, figures in taken.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, nargs="+", default=[2050, 8192])
    parser.add_argument("--streams", type=int, default=8_192)
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    everything = sum(part.count for part in parts())
    rows = []
    print("us of CPU: a draw of a stream, a candidate tried; hours of CPU for all streams")
    print(
        f"{'bits':>6}{'draw':>8}{'scalar':>9}{'times':>7}{'try 1':>8}{'try 100':>9}{'1 h':>8}{'100 h':>8}{'ratio':>7}"
    )
    for bits in given.bits:
        us = measure(bits, given.streams, given.draws)
        draws = draws_to(prime_bits(bits), DEPTH)
        candidates = DEPTH * prime_bits(bits) / 25.2
        hours = {
            name: everything * (draws * us["draw"] + candidates * us[name]) / 3_600e6
            for name in ("one modulus", "a hundred")
        }
        ratio = hours["a hundred"] / hours["one modulus"]
        print(
            f"{bits:>6}{us['draw']:>8.1f}{us['scalar draw']:>9.1f}{us['scalar draw'] / us['draw']:>7.1f}"
            f"{us['one modulus']:>8.1f}{us['a hundred']:>9.1f}"
            f"{hours['one modulus']:>8.2f}{hours['a hundred']:>8.2f}{ratio:>7.1f}",
            flush=True,
        )
        rows.append({"bits": bits, "microseconds": us, "hours": hours, "hundred_of_one": round(ratio, 2)})
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
