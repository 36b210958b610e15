"""Makes and verifies the blocks of the Debian lists: resumable, in parallel, the same bytes every time.

A block that is there is never written again; a killed build goes on where it stopped. Nobody has to trust the lists:
``verify`` makes entries again, tests that p and q are prime, and repeats whole streams without hints, from blocks where
they are at hand, else from the merged list that a wheel carries.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random

import gmpy2
import numpy as np
from numpy.typing import NDArray

from keyassay.errors import KeyassayError
from keyassay.lists import known, lookup
from keyassay.lists.debian import coordinate_bytes, ec_coordinates, ec_key
from keyassay.lists.format import (
    BLOCK,
    KINDS,
    SHIPPED,
    STREAM_BITS,
    STREAM_MASK,
    BlockName,
    Kind,
    MergedList,
    Record,
    block_names,
    merged_of,
    number_digest,
    open_merged,
    pack_block,
    pack_merged,
    read_block,
)
from keyassay.lists.recipes import debian_rsa
from keyassay.lists.recipes.debian_openssl import Stream, rsa_key_from_hints, rsa_keys


@dataclass(frozen=True, slots=True)
class Defect:
    """An entry of a list that does not hold."""

    kind: str
    stream: str
    problem: str


def make_block(name: BlockName) -> bytes:
    """Compute a block: minutes for RSA (see ``debian_rsa.use``), seconds to a minute for curves."""
    kind = KINDS[name.kind]
    records: list[Record] = []
    extras: list[tuple[int, int, Record]] = []
    if kind.curve:
        size = coordinate_bytes(kind.curve)
        coordinates = ec_coordinates(kind.curve, name.streams(), kind.variant)
        return pack_block(name, [Record(number_digest(x, size)[:8]) for x in coordinates], [])
    for offset, keys in enumerate(debian_rsa.rsa_keys_of(list(name.streams()), kind.bits, kind.variant)):
        for exponent, key in keys.items():
            record = Record(number_digest(key.modulus)[:8], key.blocks)
            if exponent == 65537:
                records.append(record)
            else:
                extras.append((offset, exponent, record))
    return pack_block(name, records, extras)


def _build_one(name: BlockName, folder: Path) -> BlockName:
    lookup.write_atomically(folder / name.path, make_block(name))
    return name


def build_folder(kind: str) -> Path:
    """Where ``build`` puts blocks: beside those of a checkout, else into the user's data folder."""
    checkout = any((lookup.DATA / one).is_dir() for one in SHIPPED)
    if checkout and kind in SHIPPED and os.access(lookup.DATA, os.W_OK):
        return lookup.DATA
    return lookup.data_folder() / "lists"


def missing(kind: str, folder: Path | None = None) -> list[BlockName]:
    """Blocks of a kind that are not there yet."""
    place = build_folder(kind) if folder is None else folder
    return [name for name in block_names(kind) if not (place / name.path).exists()]


def build(
    kind: str,
    *,
    jobs: int = 1,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Compute the missing blocks of a kind; with a C compiler, those of RSA in about a third of the time.

    Args:
        kind: name of the kind.
        jobs: worker processes.
        folder: where blocks go; ``build_folder`` by default.
        progress: called with (blocks done, blocks in all).

    Returns:
        Number of blocks made.

    Raises:
        KeyassayError: the folder cannot be written.
    """
    place = build_folder(kind) if folder is None else folder
    todo = missing(kind, place)
    total = len(block_names(kind))
    done = total - len(todo)
    report = progress or (lambda _done, _total: None)
    report(done, total)
    try:
        with debian_rsa.compiled() if todo and KINDS[kind].bits else nullcontext() as loops:
            for _ in _built(todo, place, jobs, loops):
                done += 1
                report(done, total)
    except OSError as error:
        raise KeyassayError(
            f"{place} cannot be written: {error.strerror or error}", "say where to build by --into FOLDER"
        ) from error
    finally:
        lookup.merged.cache_clear()
    return len(todo)


def _built(todo: list[BlockName], folder: Path, jobs: int, loops: Path | None) -> Iterator[BlockName]:
    """Make blocks, each written as it is finished."""
    if jobs <= 1 or not todo:
        debian_rsa.use(loops)
        try:
            for name in todo:
                yield _build_one(name, folder)
        finally:
            debian_rsa.use(None)
        return
    context = get_context("forkserver")
    with ProcessPoolExecutor(min(jobs, len(todo)), context, initializer=_start_worker, initargs=(loops,)) as pool:
        waiting: set[Future[BlockName]] = {pool.submit(_build_one, name, folder) for name in todo}
        try:
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from [future.result() for future in finished]
        finally:
            for worker in list((pool._processes or {}).values()) if waiting else ():  # noqa: SLF001  no public way
                worker.terminate()  # a block takes minutes; half of one is of no use
            pool.shutdown(cancel_futures=True)


def same_as_listed(kind: str, folder: Path) -> bool | None:
    """Whether the blocks of a complete build hold the same keys as the list in use; None if there is no such list."""
    listed = lookup.whole(kind)
    if listed is None or listed.blocks < listed.complete_blocks:
        return None
    blocks = [read_block(folder / name.path) for name in block_names(kind)]
    made = merged_of(pack_merged(KINDS[kind], blocks, len(blocks), bytes(32)))
    same = np.array_equal(made.entries, listed.entries)
    # equal entries may stand in either order, and with them their hints
    return same and (made.hints is None or sorted(_rows(made)) == sorted(_rows(listed)))


def _rows(listed: MergedList) -> list[tuple[int, int, int]]:
    assert listed.hints is not None
    return list(zip(listed.entries.tolist(), *listed.hints.T.tolist(), strict=True))


def _start_worker(loops: Path | None = None) -> None:
    """The parent decides what an interruption means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    debian_rsa.use(loops)


def _verify_rsa(stream: Stream, kind: Kind, digest: int, blocks: tuple[int, int], kept: int = 0) -> str | None:
    """What is wrong with an entry; ``digest`` lacks the last ``kept`` of 64 bits."""
    key = rsa_key_from_hints(stream, kind.bits, blocks, kind.variant)
    if int.from_bytes(number_digest(key.modulus)[:8], "big") >> kept != digest:
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
    if block.name.path != f"{path.parent.name}/{path.name}":
        return [Defect(kind.name, path.name, f"it holds another block, {block.name.path}")]
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
            _, x, _ = ec_key(kind.curve, stream, kind.variant)
            if int.from_bytes(number_digest(x, coordinate_bytes(kind.curve))[:8], "big") != digest:
                note(stream, "another point")
            continue
        assert block.hints is not None
        blocks = (int(block.hints[offset, 0]), int(block.hints[offset, 1]))
        if full:
            listed = [Record(digest.to_bytes(8, "big"), blocks), *extras.get(offset, ())]
            made = [
                Record(number_digest(key.modulus)[:8], key.blocks)
                for key in rsa_keys(stream, kind.bits, kind.variant).values()
            ]
            if listed != made:
                note(stream, "complete generation gives another key")
            continue
        note(stream, _verify_rsa(stream, kind, digest, blocks))
        for record in extras.get(offset, ()):
            assert record.blocks is not None
            note(stream, _verify_rsa(stream, kind, int.from_bytes(record.digest, "big"), record.blocks))
    return defects


@dataclass(frozen=True, slots=True)
class _Task:
    """Entries to verify: offsets in a block, or streams of a merged list; all of a block if there are none."""

    path: Path
    numbers: list[int]
    merged: bool
    full: bool


def _verify_task(task: _Task) -> tuple[int, list[Defect]]:
    try:
        if task.merged:
            return len(task.numbers), verify_merged(task.path, task.numbers, full=task.full)
        return len(task.numbers), verify_block(task.path, task.numbers, full=task.full)
    except KeyassayError as error:
        return len(task.numbers), [Defect(task.path.parent.name, task.path.name, error.message)]


def verify_merged(path: Path, streams: Iterable[int], *, full: bool = False) -> list[Defect]:
    """Make the keys of streams of a merged list again and compare.

    Args:
        path: the list.
        streams: numbers of streams.
        full: repeat the whole generation without hints instead.

    Returns:
        What does not hold, empty if all is well.

    Raises:
        KeyassayError: the list cannot be read.
    """
    listed = open_merged(path)
    kind = listed.kind
    numbers = (listed.entries & np.uint64(STREAM_MASK)).astype(np.int64)
    order = np.argsort(numbers, kind="stable")
    numbers = numbers[order]
    defects = []
    for number in streams:
        stream = Stream.of(number)
        first, last = (int(np.searchsorted(numbers, number, side)) for side in ("left", "right"))
        rows = order[first:last].tolist()
        prefixes = [int(listed.entries[row]) >> STREAM_BITS for row in rows]
        blocks = [] if listed.hints is None else [(int(a), int(b)) for a, b in listed.hints[rows].tolist()]
        if not kind.bits:
            _, x, _ = ec_key(kind.curve, stream, kind.variant)
            if prefixes != [_prefix(number_digest(x, coordinate_bytes(kind.curve)))]:
                defects.append(Defect(kind.name, str(stream), "another point"))
        elif full:
            made = [
                (_prefix(number_digest(key.modulus)), key.blocks)
                for key in rsa_keys(stream, kind.bits, kind.variant).values()
            ]
            if sorted(made) != sorted(zip(prefixes, blocks, strict=True)):
                defects.append(Defect(kind.name, str(stream), "complete generation gives another key"))
        else:
            if not rows:
                defects.append(Defect(kind.name, str(stream), "not in the list"))
            for prefix, hints in zip(prefixes, blocks, strict=True):
                problem = _verify_rsa(stream, kind, prefix, hints, kept=STREAM_BITS)
                if problem is not None:
                    defects.append(Defect(kind.name, str(stream), problem))
    return defects


def _prefix(digest: bytes) -> int:
    """The 45 bits that a merged list keeps."""
    return int.from_bytes(digest[:8], "big") >> STREAM_BITS


def _structure(kind: str, listed: MergedList, streams: NDArray[np.int64]) -> Iterator[Defect]:
    """What must hold for a merged list as a whole: the streams of its blocks, each there, in order."""
    if np.any(listed.entries[1:] < listed.entries[:-1]):
        yield Defect(kind, "merged list", "the entries are not in order")
    listed_streams = {Stream(name.arch, name.state, name.first).number for name in block_names(kind)}
    firsts, counts = np.unique(streams // BLOCK * BLOCK, return_counts=True)
    if len(firsts) != listed.blocks or not set(firsts.tolist()) <= listed_streams or np.any(counts != BLOCK):
        yield Defect(kind, "merged list", "not every stream of its blocks is there")


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
        sample: number of random streams, None for all.
        full: without hints, from the start of each stream (tens of milliseconds an entry).
        jobs: worker processes.
        seed: of the sample, for repeatable runs.
        progress: called with (streams done, streams in all).

    Yields:
        What does not hold.
    """
    folder = lookup.blocks_folder(kind)
    tasks: list[_Task] = []
    try:
        listed = lookup.merged(kind)
    except KeyassayError as error:
        yield Defect(kind, "merged list", error.message)
        listed = None
    streams = np.zeros(0, dtype=np.int64)
    if listed is not None:
        streams = np.unique((listed.entries & np.uint64(STREAM_MASK)).astype(np.int64))
        yield from _structure(kind, listed, streams)
    random = Random(seed)  # noqa: S311  a sample, not a secret
    if folder is not None:
        names = [name for name in block_names(kind) if (folder / name.path).exists()]
        total = len(names) * BLOCK
        chosen = range(total) if sample is None else sorted(random.sample(range(total), min(sample, total)))
        by_block: dict[int, list[int]] = {}
        for number in chosen:
            by_block.setdefault(number // BLOCK, []).append(number % BLOCK)
        for block, offsets in by_block.items():
            path = folder / names[block].path
            tasks.extend(_Task(path, offsets[at : at + 512], False, full) for at in range(0, len(offsets), 512))
    elif listed is not None:
        path = lookup.MERGED / f"{kind}.bin"
        numbers = streams.tolist()
        if sample is not None and sample < len(numbers):
            numbers = sorted(random.sample(numbers, sample))
        tasks = [_Task(path, numbers[at : at + 2_048], True, full) for at in range(0, len(numbers), 2_048)]
    total = sum(len(task.numbers) for task in tasks)
    done = 0
    for count, defects in _verified(tasks, jobs):
        done += count
        if progress is not None:
            progress(done, total)
        yield from defects


def _verified(tasks: list[_Task], jobs: int) -> Iterator[tuple[int, list[Defect]]]:
    if jobs <= 1 or len(tasks) < 2:
        yield from map(_verify_task, tasks)
        return
    with ProcessPoolExecutor(min(jobs, len(tasks)), get_context("forkserver"), initializer=_start_worker) as pool:
        try:
            yield from pool.map(_verify_task, tasks)
        finally:
            pool.shutdown(cancel_futures=True)


def verify_published(*, progress: Callable[[int, int], None] | None = None) -> Iterator[Defect]:
    """Make the public halves of the keys printed in RFCs again from their private numbers, and compare.

    Args:
        progress: called with (keys done, keys in all).

    Yields:
        What does not hold.
    """
    listed = known.published()
    for number, key in enumerate(listed, start=1):
        if known.digest_of_secret(key) != key.digest:
            yield Defect(known.PUBLISHED, key.source, f"the private number makes another {key.key_type} key")
        if progress is not None:
            progress(number, len(listed))


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
                    made = number_digest(rsa_key_from_hints(stream, kind.bits, hit.blocks, kind.variant).modulus)
                else:
                    made = number_digest(ec_key(kind.curve, stream, kind.variant)[1], coordinate_bytes(kind.curve))
                if made == digest:
                    answer = (digest, kind.list_name, stream)
        yield answer
