"""What the search of seeds costs: CPU seconds for 10^6 seeds, for fleets of 1, 10^3 and 10^6 keys.

    python3 dev.py bench seeds [--bits 2048] [--keys 1 1000 1000000] [--models NAME ...] [--json FILE]

Beside the filter by leading bits stands the plain way, a prime for each seed: next_prime above both numbers, and a
look-up of the product. Both take turns, so that a busy machine slows both; the smallest figures count. The ratio is
what the filter saves, for the largest fleet.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import gmpy2
import numpy as np

from keyassay.lists.seeds import BLOCK, MODELS, Model, Targets, search

SHOWN = (
    "glibc-bytes",
    "msvc-bytes",
    "newlib-bytes",
    "mt19937-words",
    "mt19937-bytes",
    "python-getrandbits",
    "java-biginteger",
    "java-probableprime",
    "sha256-counter",
)


def moduli(bits: int, count: int) -> list[int]:
    """Numbers of the size and form of moduli."""
    random = Random(bits)
    return [random.getrandbits(bits) | 9 << (bits - 4) | 1 for _ in range(count)]


def seconds(function: Callable[[], object]) -> float:
    """CPU time of a call."""
    started = time.process_time()
    function()
    return time.process_time() - started


def filtered(targets: Targets, models: list[Model], first: int) -> Callable[[], object]:
    """The filter on a block of seeds."""
    seeds = np.arange(first, first + BLOCK, dtype=np.uint64)
    return lambda: list(search(targets, models, seeds))


def plain(model: Model, known: set[int], bits: int, seeds: range) -> Callable[[], object]:
    """A prime for each number of each seed, and a look-up of the product."""

    def run() -> list[int]:
        found = []
        for seed in seeds:
            one, two = (gmpy2.next_prime(model.start(seed, bits // 2, draw, 2)) for draw in (0, 1))
            if int(one * two) in known:
                found.append(seed)
        return found

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, default=2048)
    parser.add_argument("--keys", type=int, nargs="+", default=[1, 1_000, 1_000_000])
    parser.add_argument("--models", nargs="+", default=list(SHOWN), choices=list(MODELS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    everything = moduli(given.bits, max(given.keys))
    fleets = {count: Targets.of(everything[:count]) for count in given.keys}
    known = set(everything[:1_000])
    print(f"CPU seconds for 10^6 seeds, {given.bits} bits")
    heads = "".join(f"{f'{count:,} keys':>16}" for count in given.keys)
    print(f"{'model':<20}{heads}{'a prime each':>16}{'ratio':>10}")
    for name in given.models:
        model = MODELS[name]
        best = dict.fromkeys([*given.keys, 0], float("inf"))
        for turn in range(given.turns):
            for count, targets in fleets.items():
                spent = seconds(filtered(targets, [model], turn * BLOCK)) / BLOCK
                best[count] = min(best[count], spent * 1e6)
            few = range(turn * 8, turn * 8 + 8)
            best[0] = min(best[0], seconds(plain(model, known, given.bits, few)) / len(few) * 1e6)
        ratio = best[0] / best[max(given.keys)]
        figures = "".join(f"{best[count]:>16.2f}" for count in given.keys)
        print(f"{name:<20}{figures}{best[0]:>16,.0f}{ratio:>10,.0f}", flush=True)
        rows.append({"model": name, "seconds": best, "ratio": round(ratio)})
    groups: dict[str, list[Model]] = {}
    for model in MODELS.values():
        groups.setdefault(model.generator.name, []).append(model)
    best = dict.fromkeys(given.keys, float("inf"))
    for turn in range(given.turns):
        for count, targets in fleets.items():
            spent = sum(seconds(filtered(targets, models, turn * BLOCK)) for models in groups.values()) / BLOCK
            best[count] = min(best[count], spent * 1e6)
    print(f"{'all models':<20}" + "".join(f"{best[count]:>16.2f}" for count in given.keys))
    rows.append({"model": "all", "seconds": best})
    if given.json is not None:
        given.json.write_text(json.dumps({"bits": given.bits, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
