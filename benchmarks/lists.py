"""Nanoseconds a look-up in a list and in one of ten times its size, beside other ways to ask the same.

    python3 dev.py bench lists [--queries 4096] [--rounds 7] [--streams 96] [--json FILE]

The list is that of RSA-1024 as it ships; the large one is the same with nine times as many random entries. All ways
answer the same queries, of which one in a thousand is in the list, and agree on which. They take turns in every round,
so that a busy machine slows all. "set" is Python's own, which has to be made first and by every process; "unsorted" is
the array search without sorting the queries. What making ready costs, and the hashing before, stand below.

The last lines are of making lists, CPU time of a key (mean over the same streams; single keys scatter widely): many
streams in step by compiled loops, one by one, and so without dividing further primes out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.lists import known, lookup
from keyassay.lists.accelerator import is_accelerated
from keyassay.lists.format import KINDS, STREAM_BITS, MergedList, open_merged
from keyassay.lists.recipes import debian_openssl as recipe
from keyassay.lists.recipes import debian_rsa

KIND = "rsa-1024"
SHIFT = np.uint64(STREAM_BITS)
RANDOM = np.random.default_rng(20260921)


def enlarged(listed: MergedList, times: int) -> MergedList:
    """The list with random entries added until it has ``times`` as many."""
    more = RANDOM.integers(0, 2**64, size=(times - 1) * len(listed.entries), dtype=np.uint64)
    entries = np.concatenate([listed.entries, more])
    order = np.argsort(entries, kind="stable")
    assert listed.hints is not None
    hints = np.concatenate([listed.hints, np.zeros((len(more), 2), dtype=np.uint16)])[order]
    return MergedList(listed.kind, entries[order], hints, listed.blocks, listed.complete_blocks, listed.stamp)


def ways(listed: MergedList) -> dict[str, Callable[[NDArray[np.uint64]], set[int]]]:
    """Ways to find the rows of queries that are in the list."""
    prefixes = (np.array(listed.entries) >> SHIFT).astype(np.uint64)
    as_set = set(prefixes.tolist())

    def keyassay(queries: NDArray[np.uint64]) -> set[int]:
        lookup.merged = lambda _kind: listed  # type: ignore[assignment]  # the list under test
        return {hit.row for hit in lookup.find_many(KIND, queries)}

    def in_set(queries: NDArray[np.uint64]) -> set[int]:
        return {row for row, query in enumerate((queries >> SHIFT).tolist()) if query in as_set}

    def unsorted(queries: NDArray[np.uint64]) -> set[int]:
        wanted = queries >> SHIFT
        places = np.minimum(np.searchsorted(prefixes, wanted), len(prefixes) - 1)
        return set(np.flatnonzero(prefixes[places] == wanted).tolist())

    return {"keyassay": keyassay, "set": in_set, "unsorted": unsorted}


def nanoseconds(function: Callable[[], object], count: int, least: float = 0.02) -> float:
    """CPU time of a call divided by ``count``: repeated for a while."""
    repeats, started = 0, time.process_time()
    while (spent := time.process_time() - started) < least:
        function()
        repeats += 1
    return spent / repeats / count * 1e9


def times_of_a_key(bits: int, streams: int) -> dict[str, float]:
    """Milliseconds of CPU a key: in step (eight or four numbers a test), one by one, and without further divisors."""
    usual = recipe._DIVIDED_FROM  # noqa: SLF001
    one_by_one = [recipe.Stream("le64", "rnd", pid) for pid in range(streams)]
    spent: dict[str, float] = {}
    made: dict[str, list[dict[int, recipe.RsaKey]]] = {}
    with debian_rsa.compiled() as loops:
        ways: list[tuple[str, bool | None, int]] = [("one by one", None, usual), ("undivided", None, bits)]
        if loops is not None:
            widest = debian_rsa.Loops(loops).wide
            ways += [(f"in step by {8 if wide else 4}", wide, usual) for wide in (False, True)[: 1 + widest]]
        for way, wide, limit in ways:
            debian_rsa.use(None if wide is None else loops, wide=wide)
            recipe._DIVIDED_FROM = limit  # noqa: SLF001
            debian_rsa.rsa_keys_of(one_by_one[:1], bits)  # makes the tables
            started = time.process_time()
            made[way] = debian_rsa.rsa_keys_of(one_by_one, bits)
            spent[way] = (time.process_time() - started) / streams * 1e3
    debian_rsa.use(None)
    recipe._DIVIDED_FROM = usual  # noqa: SLF001
    assert all(keys == made["one by one"] for keys in made.values()), "the ways disagree"
    return spent


def main() -> None:
    """Measure in rounds, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=4_096)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--streams", type=int, default=96)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    listed = lookup.merged(KIND)
    if listed is None:
        raise SystemExit(f"there is no list {KINDS[KIND].list_name}")
    count = given.queries
    sizes = {1: listed, 10: enlarged(listed, 10)}
    memory = {
        times: (one.entries.nbytes + (one.hints.nbytes if one.hints is not None else 0)) for times, one in sizes.items()
    }
    queries = RANDOM.integers(0, 2**64, size=count, dtype=np.uint64)
    present = RANDOM.choice(len(listed.entries), max(count // 1_000, 1), replace=False)
    queries[: len(present)] = listed.entries[present]
    RANDOM.shuffle(queries)
    tried = {(times, name): way for times, one in sizes.items() for name, way in ways(one).items()}
    for times, one in sizes.items():
        answers = {name: way(queries) for (size, name), way in tried.items() if size == times}
        assert all(answer == answers["set"] for answer in answers.values()), "the ways disagree"
        print(f"list of {len(one.entries):,}: {len(answers['set'])} of {count} queries found", file=sys.stderr)
    random = Random(1)
    keys = [RsaPublicKey(random.getrandbits(1024) | 1 << 1023, 65537) for _ in range(count)]
    measured: dict[tuple[int, str], list[float]] = {key: [] for key in tried}
    whole: list[float] = []
    screen: list[float] = []
    for turn in range(given.rounds):
        for key, way in tried.items():
            measured[key].append(nanoseconds(lambda way=way: way(queries), count))
        whole.append(nanoseconds(lambda: RsaBatch(keys).sha256_prefixes, count))
        screen.append(nanoseconds(lambda: known.find_many(queries), count))
        print(f"round {turn + 1} of {given.rounds}", file=sys.stderr)
    middle = {key: statistics.median(times) for key, times in measured.items()}
    rows = []
    print(f"{'way':<12}{'entries':>12}{'ns a look-up':>14}{'of set':>9}{'ten times the size':>20}")
    for name in dict.fromkeys(name for _, name in tried):
        for times, one in sizes.items():
            ratio = middle[times, name] / middle[times, "set"]
            growth = middle[times, name] / middle[1, name]
            print(
                f"{name:<12}{len(one.entries):>12,}{middle[times, name]:>14.0f}{ratio:>9.2f}"
                f"{f'{growth:.2f} times' if times > 1 else '':>20}"
            )
            rows.append(
                {
                    "way": name,
                    "entries": len(one.entries),
                    "nanoseconds": round(middle[times, name], 1),
                    "of_set": round(ratio, 3),
                    "of_the_small_list": round(growth, 3),
                }
            )
    path = lookup.MERGED / f"{KIND}.bin"
    opening = nanoseconds(lambda: open_merged(path), 1) / 1e6 if path.exists() else float("nan")
    prefixes = np.array(listed.entries) >> SHIFT
    making = nanoseconds(lambda: set(prefixes.tolist()), 1) / 1e6
    size = sys.getsizeof(set(prefixes.tolist())) + 32 * len(prefixes)
    print(
        f"\nready for {len(prefixes):,} entries: {opening:.2f} ms to map {memory[1] / 1e6:.1f} MB, shared by processes;"
    )
    print(f"a set {making:.0f} ms and {size / 1e6:.0f} MB in each process")
    print(
        f"hashing a modulus of 1024 bits: {statistics.median(whole):.0f} ns; "
        f"the lists of known keys: {statistics.median(screen):.0f} ns a look-up"
    )
    for bits in (2048, 3072, 4096) if given.streams else ():
        spent = times_of_a_key(bits, given.streams)
        plain = spent["one by one"]
        words = ", ".join(f"{way} {milliseconds:.0f} ms" for way, milliseconds in spent.items())
        ratio = "".join(
            f"; {way} {milliseconds / plain:.2f} of one by one" for way, milliseconds in spent.items() if "step" in way
        )
        libcrypto = "with" if is_accelerated(bits // 2) else "without"
        print(f"making keys of {bits} bits: {words}{ratio} ({libcrypto} libcrypto's exponentiations)")
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
