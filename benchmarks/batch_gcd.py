"""CPU of batch GCD, beside the textbook's squared-remainder tree in gmpy2 on the same moduli.

    python3 dev.py bench batch-gcd [--moduli 80000] [--bits 2048] [--rounds 2] [--json FILE]

Each modulus is a product of 32-bit primes that no other has, except for a few planted pairs, which both programs have
to find: the arithmetic takes the same time whatever the size of the primes, and millions of small ones are quickly
made. The two take turns at 5,000 moduli and at doubled numbers up to the largest, each time in a new process, which
reports CPU and wall clock of the work alone and its peak of memory beyond that of the moduli. The last run has two
threads.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import gmpy2
import numpy as np
from gmpy2 import mpz
from numpy.typing import NDArray

from keyassay.keymath.batch_gcd import shared_factors

SMALLEST = 5_000
PLANTED = 5
MAKE, TEXTBOOK, OURS, BOTH_CORES = "make", "textbook", "keyassay", "keyassay, 2 threads"


def make_moduli(count: int, bits: int) -> list[int]:
    """Products of ``bits / 32`` primes just below 2^32, the last ``PLANTED`` of which share one with the first."""
    each = bits // 32
    primes = highest_primes(count * each)
    moduli = []
    for number in range(count):
        own = primes[number * each : (number + 1) * each]
        if number >= count - PLANTED:
            own[0] = primes[(number - count + PLANTED) * each]
        moduli.append(math.prod(own))
    return moduli


def highest_primes(count: int) -> list[int]:
    """Primes below 2^32, falling, by a sieve in segments."""
    small = np.flatnonzero(sieve(1 << 16)).tolist()
    size = 1 << 24
    found: list[int] = []
    for start in range((1 << 32) - size, 0, -size):
        flags = np.ones(size, dtype=bool)
        for prime in small:
            flags[-start % prime :: prime] = False
        found += (np.flatnonzero(flags)[::-1] + start).tolist()
        if len(found) >= count:
            return found[:count]
    raise SystemExit("there are not enough primes of 32 bits for that many moduli")


def sieve(limit: int) -> NDArray[np.bool_]:
    """Flags of the primes below a limit."""
    flags = np.ones(limit, dtype=bool)
    flags[:2] = False
    for prime in range(2, math.isqrt(limit) + 1):
        if flags[prime]:
            flags[prime * prime :: prime] = False
    return flags


def textbook(moduli: Sequence[int]) -> set[int]:
    """Positions of moduli that share a prime: Z modulo the square of every node, as Bernstein and Heninger do."""
    levels = [[mpz(modulus) for modulus in moduli]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([a * b for a, b in zip(below[:-1:2], below[1::2], strict=True)] + below[len(below) // 2 * 2 :])
    row = levels.pop()
    while levels:
        row = [row[place // 2] % (node * node) for place, node in enumerate(levels.pop())]
    return {
        place
        for place, (modulus, rest) in enumerate(zip(moduli, row, strict=True))
        if gmpy2.gcd(rest // modulus, modulus) > 1
    }


def ours(moduli: Sequence[int], threads: int) -> set[int]:
    """The same by this project."""
    return set(shared_factors(moduli, threads=threads))


def measure(run: str, path: Path, bits: int) -> None:
    """One run in this process over the moduli in a file; prints what it took as JSON."""
    data = path.read_bytes()
    size = bits // 8
    moduli = [int.from_bytes(data[at : at + size], "big") for at in range(0, len(data), size)]
    count = len(moduli)
    before = peak()
    wall, cpu = time.perf_counter(), time.process_time()
    found = textbook(moduli) if run == TEXTBOOK else ours(moduli, 2 if run == BOTH_CORES else 1)
    taken = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "bytes": peak() - before}
    if found != {*range(PLANTED), *range(count - PLANTED, count)}:
        raise SystemExit(f"{run} did not find the planted pairs among {count} moduli, or found others")
    print(json.dumps(taken))


def call(run: str, path: Path, bits: int, *more: str) -> bytes:
    """This program in a new process. It stays small itself: a child's peak of memory is at least its parent's."""
    command = [sys.executable, __file__, "--run", run, "--file", str(path), "--bits", str(bits), *more]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def peak() -> int:
    """Peak of memory so far, in bytes (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Run everything in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moduli", type=int, default=80_000)
    parser.add_argument("--bits", type=int, default=2_048)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", choices=(MAKE, TEXTBOOK, OURS, BOTH_CORES), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.moduli < 2 * PLANTED or given.bits < 64 or given.bits % 32:
        parser.error(f"at least {2 * PLANTED} moduli, of at least 64 bits and a multiple of 32")
    if given.run == MAKE:
        given.file.write_bytes(
            b"".join(modulus.to_bytes(given.bits // 8, "big") for modulus in make_moduli(given.moduli, given.bits))
        )
        return
    if given.run:
        measure(given.run, given.file, given.bits)
        return
    counts = [given.moduli]
    while counts[0] // 2 >= SMALLEST:
        counts.insert(0, counts[0] // 2)
    plan = [(count, run) for count in counts for run in (TEXTBOOK, OURS)] + [(given.moduli, BOTH_CORES)]
    taken: dict[tuple[int, str], list[dict[str, float]]] = {key: [] for key in plan}
    with tempfile.TemporaryDirectory() as name:
        files = {count: Path(name) / str(count) for count in counts}
        for count, path in files.items():
            call(MAKE, path, given.bits, "--moduli", str(count))
        for turn in range(given.rounds):
            for count, run in plan:
                last = json.loads(call(run, files[count], given.bits))
                taken[count, run].append(last)
                print(f"round {turn + 1}: {count:,} moduli, {run}: {last['cpu']:.2f} s of CPU", file=sys.stderr)
    report(taken, given.bits, given.json)


def report(taken: dict[tuple[int, str], list[dict[str, float]]], bits: int, target: Path | None) -> None:
    """The table, the fitted exponents, and the same as JSON."""
    middle = {
        key: {name: statistics.median(one[name] for one in runs) for name in runs[0]} for key, runs in taken.items()
    }
    print(f"{bits} bits; CPU and wall clock in seconds")
    print(f"{'moduli':>10}  {'run':22}{'CPU':>8}{'wall':>8}{'MB':>8}{'CPU of textbook':>17}")
    rows = []
    for (count, run), one in middle.items():
        ratio = one["cpu"] / middle[count, TEXTBOOK]["cpu"]
        rows.append({"moduli": count, "bits": bits, "run": run, "of_textbook": round(ratio, 3), **one})
        print(f"{count:10,}  {run:22}{one['cpu']:8.2f}{one['wall']:8.2f}{one['bytes'] / 1e6:8.0f}{ratio:17.3f}")
    for run in (TEXTBOOK, OURS):
        points = [(math.log(count), math.log(one["cpu"])) for (count, which), one in middle.items() if which == run]
        if len(points) > 1:
            exponent = float(np.polyfit(*zip(*points, strict=True), 1)[0])
            print(f"{run}: CPU grows as the number of moduli to the power {exponent:.2f}")
            rows.append({"run": run, "bits": bits, "exponent": round(exponent, 3)})
    if target is not None:
        target.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
