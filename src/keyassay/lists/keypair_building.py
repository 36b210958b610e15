"""Makes and verifies the lists of keypair's keys: resumable, in parallel, the same bytes every time.

The shipped lists are made by ``python -m keyassay.lists.keypair_building`` where they are missing; ``build`` makes the
list of pools with two non-zero bytes, block by block, in the user's cache folder. Layout and look-up: ``keypair``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from keyassay.errors import KeyassayError
from keyassay.lists.building import Defect
from keyassay.lists.keypair import (
    BLOCK,
    BLOCKS,
    KINDS,
    POOL_BITS,
    POOL_MASK,
    Kind,
    built,
    lists_folder,
    missing,
    open_list,
    pack,
    prefixes,
)
from keyassay.lists.lookup import write_atomically
from keyassay.lists.recipes.keypair import pool_of, pools_up_to, pools_with, top_bits


def _entries(bits: int, first: int, count: int) -> NDArray[np.uint64]:
    numbers = range(first, first + count)
    tops = np.array([top_bits(pool_of(number), bits) for number in numbers], dtype=np.uint64)
    found = (prefixes(tops) << np.uint64(POOL_BITS)) | np.arange(first, first + count, dtype=np.uint64)
    found.sort()
    return found


def make_block(kind: Kind, first: int, count: int) -> bytes:
    """Compute a list or block: 0.07 to 0.25 ms a pool, the same bytes every time."""
    return pack(kind, first, _entries(kind.bits, first, count))


def _build_one(kind: str, index: int, folder: Path) -> None:
    one = KINDS[kind]
    write_atomically(one.block(folder, index), make_block(one, pools_up_to(1) + index * BLOCK, BLOCK))


def build(
    kind: str,
    *,
    jobs: int = 1,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Build the list of two non-zero bytes: 9,642,240 keys, 77 MB, 11 to 40 minutes of one core by size.

    A killed build goes on where it stopped; the bytes are the same every time.

    Args:
        kind: name of the kind.
        jobs: worker processes.
        folder: for lists; the user's by default.
        progress: called with (blocks done, blocks in all).

    Returns:
        Number of blocks made, 0 if the list was complete.

    Raises:
        KeyassayError: the folder cannot be written.
    """
    one = KINDS[kind]
    place = folder or lists_folder()
    report = progress or (lambda _done, _total: None)
    todo = missing(kind, place)
    done = BLOCKS - len(todo)
    report(done, BLOCKS)
    try:
        if jobs <= 1:
            for index in todo:
                _build_one(kind, index, place)
                done += 1
                report(done, BLOCKS)
        elif todo:
            with ProcessPoolExecutor(jobs, get_context("forkserver")) as pool:
                waiting: set[Future[None]] = {pool.submit(_build_one, kind, index, place) for index in todo}
                try:
                    while waiting:
                        finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                        for future in finished:
                            future.result()
                            done += 1
                            report(done, BLOCKS)
                finally:
                    pool.shutdown(cancel_futures=True)
        if not one.built(place).exists():
            _join(one, place)
    except OSError as error:
        raise KeyassayError(f"{place} cannot be written: {error}", "set XDG_CACHE_HOME to a folder that can") from error
    built.cache_clear()
    return len(todo)


def _join(kind: Kind, folder: Path) -> None:
    """Make the sorted list from its blocks, then drop them."""
    first = pools_up_to(1)
    blocks = [
        open_list(kind.block(folder, index), kind, first + index * BLOCK, BLOCK).copy() for index in range(BLOCKS)
    ]
    entries = np.concatenate(blocks)
    entries.sort()
    write_atomically(kind.built(folder), pack(kind, first, entries))
    shutil.rmtree(kind.block(folder, 0).parent)


def _verify_task(task: tuple[str, list[int]]) -> tuple[int, list[Defect]]:
    """Make entries again and compare."""
    kind, entries = task
    defects = []
    for entry in entries:
        number = entry & POOL_MASK
        made = int(_entries(KINDS[kind].bits, number, 1)[0])
        if made != entry:
            defects.append(Defect(kind, f"pool={pool_of(number).hex()}", "the pool gives another modulus"))
    return len(entries), defects


def verify(
    kind: str,
    *,
    sample: int | None = 1_000,
    jobs: int = 1,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Defect]:
    """Verify the lists of a kind: digests, order, that each pool is there once, and entries against regeneration.

    Args:
        kind: name of the kind.
        sample: number of random entries, None for all (5 to 17 seconds for the shipped list, one core).
        jobs: worker processes.
        seed: of the sample, for repeatable runs.
        progress: called with (entries done, entries in all).

    Yields:
        What does not hold.
    """
    one = KINDS[kind]
    first = pools_up_to(1)
    ranges = [(one.shipped, 0, first)]
    if one.built(lists_folder()).exists():
        ranges.append((one.built(lists_folder()), first, pools_with(2)))
    parts: list[NDArray[np.uint64]] = []
    for path, start, count in ranges:
        try:
            entries = open_list(path, one, start, count)
        except KeyassayError as error:
            yield Defect(kind, path.name, str(error))
            continue
        numbers = np.sort(entries & np.uint64(POOL_MASK))
        if not np.array_equal(numbers, np.arange(start, start + count, dtype=np.uint64)):
            yield Defect(kind, path.name, "not every pool is there once")
        if np.any(entries[1:] < entries[:-1]):
            yield Defect(kind, path.name, "the entries are not in order")
        parts.append(entries)
    total = sum(map(len, parts))
    if sample is not None and sample < total:
        chosen = Random(seed).sample(range(total), sample)  # noqa: S311  a sample, not a secret
        listed = np.concatenate(parts)[np.array(sorted(chosen), dtype=np.intp)]
    else:
        listed = np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)
    tasks = [(kind, listed[place : place + 1_024].tolist()) for place in range(0, len(listed), 1_024)]
    done = 0
    for count, defects in _results(tasks, jobs):
        done += count
        if progress is not None:
            progress(done, len(listed))
        yield from defects


def _results(tasks: list[tuple[str, list[int]]], jobs: int) -> Iterable[tuple[int, list[Defect]]]:
    if jobs <= 1:
        yield from map(_verify_task, tasks)
        return
    with ProcessPoolExecutor(jobs, get_context("forkserver")) as pool:
        yield from pool.map(_verify_task, tasks)


def write_shipped() -> None:
    """Make the shipped lists that are missing, under a minute in all."""
    for kind in KINDS.values():
        if not kind.shipped.exists():
            write_atomically(kind.shipped, make_block(kind, 0, pools_up_to(1)))


if __name__ == "__main__":
    write_shipped()
