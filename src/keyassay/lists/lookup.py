"""Searches the merged lists: sorted queries against a memory-mapped, sorted file.

Lists are merged on first use where blocks are at hand (a checkout) and come ready in a wheel. A missing list is a
state that ``available`` tells, never an exception in a scan.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keyassay.errors import KeyassayError
from keyassay.lists.format import (
    KINDS,
    STREAM_BITS,
    STREAM_MASK,
    MergedList,
    block_names,
    open_merged,
    pack_merged,
    read_block,
)

DATA = Path(__file__).parent / "data"
MERGED = Path(__file__).parent / "merged"


@dataclass(frozen=True, slots=True)
class ListInfo:
    """What there is of a list.

    Attributes:
        name: the list's name in reports ("debian-rsa-2048").
        kind: the kind's name ("rsa-2048").
        entries: number of keys.
        blocks: number of blocks in it.
        complete_blocks: number of blocks of the complete list.
        confirmed: keys made by a vulnerable original were compared.
    """

    name: str
    kind: str
    entries: int
    blocks: int
    complete_blocks: int
    confirmed: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """A row of a list whose 45 bits agree with a query: a candidate until the key has been made again.

    Attributes:
        row: position of the query.
        stream: number of the stream.
        blocks: hints (RSA), or None.
    """

    row: int
    stream: int
    blocks: tuple[int, int] | None


def cache_folder() -> Path:
    """The user's cache folder for keyassay (XDG)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keyassay"


def _stamp(kind: str) -> bytes:
    """Digest of names, sizes and times of a kind's blocks: tells whether a merged list is current, in microseconds."""
    total = hashlib.sha256()
    for entry in sorted(os.scandir(DATA / kind), key=lambda one: one.name):
        if entry.name.endswith(".bin"):
            status = entry.stat()
            total.update(f"{entry.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return total.digest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def merge(kind: str, *, stamp: bytes | None = None, target: Path | None = None) -> Path:
    """Merge the blocks of a kind into its sorted list.

    Args:
        kind: name of the kind.
        stamp: digest to record; that of the blocks as they are now by default.
        target: folder to write to; beside this module, or the user's cache folder if that is not writable.

    Raises:
        KeyassayError: a block is damaged, or no folder is writable.
    """
    stamp = stamp or _stamp(kind)
    blocks = [read_block(path) for path in sorted((DATA / kind).glob("*.bin"))]
    data = pack_merged(KINDS[kind], blocks, len(block_names(kind)), stamp)
    folders = [target] if target else [MERGED, cache_folder() / "lists"]
    for folder in folders:
        path = folder / f"{kind}.bin"
        try:
            write_atomically(path, data)
        except OSError:
            continue
        return path
    raise KeyassayError("no folder is writable for merged lists", "set XDG_CACHE_HOME to one that is")


@cache
def merged(kind: str) -> MergedList | None:
    """The list of a kind, merged anew if its blocks changed; None if there is none."""
    places = [MERGED / f"{kind}.bin", cache_folder() / "lists" / f"{kind}.bin"]
    if not (DATA / kind).is_dir():
        return open_merged(places[0]) if places[0].exists() else None
    stamp = _stamp(kind)
    for path in places:
        if path.exists():
            found = open_merged(path)
            if found.stamp == stamp:
                return found
    return open_merged(merge(kind, stamp=stamp))


def available() -> tuple[ListInfo, ...]:
    """What there is of each list, missing ones with zero entries."""
    found = []
    for kind in KINDS.values():
        one = merged(kind.name)
        found.append(
            ListInfo(
                kind.list_name,
                kind.name,
                0 if one is None else len(one.entries),
                0 if one is None else one.blocks,
                len(block_names(kind.name)) if one is None else one.complete_blocks,
                kind.confirmed,
            )
        )
    return tuple(found)


def find_many(kind: str, digests: NDArray[np.uint64]) -> list[Hit]:
    """Look many digests up at once.

    Args:
        kind: name of the kind.
        digests: first 8 bytes of SHA-256, as big-endian numbers, any order.

    Returns:
        Candidates by rising row; empty if there is no such list.
    """
    found = merged(kind)
    if found is None or not len(digests):
        return []
    order = np.argsort(digests, kind="stable")
    queries = digests[order] & np.uint64(~STREAM_MASK & (2**64 - 1))
    places = np.searchsorted(found.entries, queries)
    hits = []
    inside = places < len(found.entries)
    shift = np.uint64(STREAM_BITS)
    equal = np.zeros(len(queries), dtype=bool)
    equal[inside] = (found.entries[places[inside]] >> shift) == (queries[inside] >> shift)
    for position in np.flatnonzero(equal).tolist():
        place = int(places[position])
        prefix = int(queries[position]) >> STREAM_BITS
        while place < len(found.entries) and int(found.entries[place]) >> STREAM_BITS == prefix:
            blocks = None
            if found.hints is not None:
                blocks = (int(found.hints[place, 0]), int(found.hints[place, 1]))
            hits.append(Hit(int(order[position]), int(found.entries[place]) & STREAM_MASK, blocks))
            place += 1
    return sorted(hits, key=lambda hit: (hit.row, hit.stream))
