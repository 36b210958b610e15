"""Makes and verifies the blocks of the Debian lists: resumable, in parallel, the same bytes every time.

A block that is there is never written again; a killed build goes on where it stopped. Nobody has to trust the lists:
``verify`` makes entries again, tests that p and q are prime, and repeats whole streams without hints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random

import gmpy2
import numpy as np

from keyassay.lists import lookup
from keyassay.lists.debian import coordinate_bytes, ec_key
from keyassay.lists.format import (
    KINDS,
    BlockName,
    Record,
    block_names,
    number_digest,
    pack_block,
    read_block,
)
from keyassay.lists.recipes.debian_openssl import Stream, rsa_key_from_hints, rsa_keys


@dataclass(frozen=True, slots=True)
class Defect:
    """An entry of a list that does not hold."""

    kind: str
    stream: str
    problem: str


def make_block(name: BlockName) -> bytes:
    """Compute a block: minutes for RSA, seconds to a minute for curves."""
    kind = KINDS[name.kind]
    records: list[Record] = []
    extras: list[tuple[int, int, Record]] = []
    for offset, stream in enumerate(name.streams()):
        if kind.bits:
            for exponent, key in rsa_keys(stream, kind.bits).items():
                record = Record(number_digest(key.modulus)[:8], key.blocks)
                if exponent == 65537:
                    records.append(record)
                else:
                    extras.append((offset, exponent, record))
        else:
            _, x, _ = ec_key(kind.curve, stream)
            records.append(Record(number_digest(x, coordinate_bytes(kind.curve))[:8]))
    return pack_block(name, records, extras)


def _build_one(name: BlockName, folder: Path) -> BlockName:
    lookup.write_atomically(folder / name.path, make_block(name))
    return name


def missing(kind: str, folder: Path = lookup.DATA) -> list[BlockName]:
    """Blocks of a kind that are not there yet."""
    return [name for name in block_names(kind) if not (folder / name.path).exists()]


def build(
    kind: str,
    *,
    jobs: int = 1,
    folder: Path = lookup.DATA,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Compute the missing blocks of a kind.

    Args:
        kind: name of the kind.
        jobs: worker processes.
        folder: where blocks go.
        progress: called with (blocks done, blocks in all).

    Returns:
        Number of blocks made.
    """
    todo = missing(kind, folder)
    total = len(block_names(kind))
    done = total - len(todo)
    report = progress or (lambda _done, _total: None)
    report(done, total)
    if jobs <= 1:
        for name in todo:
            _build_one(name, folder)
            done += 1
            report(done, total)
    else:
        with ProcessPoolExecutor(jobs, get_context("forkserver")) as pool:
            waiting: set[Future[BlockName]] = {pool.submit(_build_one, name, folder) for name in todo}
            try:
                while waiting:
                    finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                        done += 1
                        report(done, total)
            finally:
                pool.shutdown(cancel_futures=True)
    lookup.merged.cache_clear()
    return len(todo)


def _verify_rsa(stream: Stream, bits: int, digest: int, blocks: tuple[int, int]) -> str | None:
    key = rsa_key_from_hints(stream, bits, blocks)
    if int.from_bytes(number_digest(key.modulus)[:8], "big") != digest:
        return "the hints do not give the listed modulus"
    for prime in (key.first, key.second):
        # base 2 settles it for numbers that were not chosen to deceive; a wrong block would be composite
        if gmpy2.powmod(2, prime - 1, prime) != 1:
            return "a factor is not prime"
    return None


def verify_block(path: Path, offsets: Iterable[int] | None = None, *, full: bool = False) -> list[Defect]:
    """Make entries of a block again and compare.

    Args:
        path: the block file; its digest is verified as well.
        offsets: which entries, all by default (extra records come with all).
        full: repeat the whole generation without hints instead.

    Returns:
        What does not hold, empty if all is well.
    """
    block = read_block(path)
    kind = KINDS[block.name.kind]
    streams = list(block.name.streams())
    defects = []

    def note(stream: Stream, problem: str | None) -> None:
        if problem is not None:
            defects.append(Defect(kind.name, str(stream), problem))

    extras: dict[int, list[Record]] = {}
    for offset, _, record in block.extras:
        extras.setdefault(offset, []).append(record)
    for offset in range(len(streams)) if offsets is None else offsets:
        stream = streams[offset]
        digest = int(block.digests[offset])
        if not kind.bits:
            _, x, _ = ec_key(kind.curve, stream)
            if int.from_bytes(number_digest(x, coordinate_bytes(kind.curve))[:8], "big") != digest:
                note(stream, "another point")
            continue
        assert block.hints is not None
        blocks = (int(block.hints[offset, 0]), int(block.hints[offset, 1]))
        if full:
            listed = [Record(digest.to_bytes(8, "big"), blocks), *extras.get(offset, ())]
            made = [Record(number_digest(key.modulus)[:8], key.blocks) for key in rsa_keys(stream, kind.bits).values()]
            if listed != made:
                note(stream, "complete generation gives another key")
            continue
        note(stream, _verify_rsa(stream, kind.bits, digest, blocks))
        for record in extras.get(offset, ()):
            assert record.blocks is not None
            note(stream, _verify_rsa(stream, kind.bits, int.from_bytes(record.digest, "big"), record.blocks))
    return defects


def _verify_task(task: tuple[Path, list[int] | None, bool]) -> tuple[int, list[Defect]]:
    path, offsets, full = task
    return (len(offsets) if offsets is not None else 4_096), verify_block(path, offsets, full=full)


def verify(
    kind: str,
    *,
    sample: int | None = 1_000,
    full: bool = False,
    jobs: int = 1,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Defect]:
    """Verify entries of a list against regeneration.

    Args:
        kind: name of the kind.
        sample: number of random entries, None for all.
        full: without hints, from the start of each stream (tens of milliseconds an entry).
        jobs: worker processes.
        seed: of the sample, for repeatable runs.
        progress: called with (entries done, entries in all).

    Yields:
        What does not hold.
    """
    names = [name for name in block_names(kind) if (lookup.DATA / name.path).exists()]
    tasks: list[tuple[Path, list[int] | None, bool]] = []
    if sample is None:
        tasks = [
            (lookup.DATA / name.path, list(range(start, start + 512)), full)
            for name in names
            for start in range(0, 4_096, 512)
        ]
    else:
        chosen = Random(seed).sample(  # noqa: S311  a sample, not a secret
            range(len(names) * 4_096), min(sample, len(names) * 4_096)
        )
        by_block: dict[int, list[int]] = {}
        for number in chosen:
            by_block.setdefault(number // 4_096, []).append(number % 4_096)
        tasks = [
            (lookup.DATA / names[block].path, sorted(offsets), full) for block, offsets in sorted(by_block.items())
        ]
    total = sum(len(offsets or ()) for _, offsets, _ in tasks)
    done = 0
    if jobs <= 1:
        results: Iterable[tuple[int, list[Defect]]] = map(_verify_task, tasks)
    else:
        pool = ProcessPoolExecutor(jobs, get_context("forkserver"))
        results = pool.map(_verify_task, tasks)
    for count, defects in results:
        done += count
        if progress is not None:
            progress(done, total)
        yield from defects


def find(digests: Iterable[bytes]) -> Iterator[tuple[bytes, str, Stream | None]]:
    """Name the keys behind whole SHA-256 digests of bare numbers.

    Yields:
        (digest, name of the list or "", stream or None), in order; the key was made again and its whole digest
        compared.
    """
    for digest in digests:
        query = np.array([int.from_bytes(digest[:8], "big")], dtype=np.uint64)
        answer: tuple[bytes, str, Stream | None] = (digest, "", None)
        for kind in KINDS.values():
            for hit in lookup.find_many(kind.name, query):
                stream = Stream.of(hit.stream)
                if kind.bits:
                    assert hit.blocks is not None
                    made = number_digest(rsa_key_from_hints(stream, kind.bits, hit.blocks).modulus)
                else:
                    made = number_digest(ec_key(kind.curve, stream)[1], coordinate_bytes(kind.curve))
                if made == digest:
                    answer = (digest, kind.list_name, stream)
        yield answer
