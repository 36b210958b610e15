"""Searches the merged lists: sorted queries against a memory-mapped, sorted file.

Lists are merged on first use where blocks are at hand (a checkout) and come ready in a wheel. A list that is missing or
damaged is a state that ``available`` tells, never an exception in a scan.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keyassay.errors import KeyassayError
from keyassay.lists.format import (
    KINDS,
    SHIPPED,
    STREAM_BITS,
    STREAM_MASK,
    Block,
    MergedList,
    block_names,
    merged_of,
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


def data_folder() -> Path:
    """The user's data folder for keyassay (XDG)."""
    return _data_folder(os.environ.get("XDG_DATA_HOME"), os.environ.get("HOME"))


@cache
def _data_folder(xdg: str | None, _home: str | None) -> Path:
    """Asked for several times a key by the checks, and paths take their time."""
    return Path(xdg or Path.home() / ".local" / "share") / "keyassay"


def blocks_folder(kind: str) -> Path | None:
    """Where the blocks of a kind are that look-ups use: those of a checkout, else those that the user built.

    A wheel has merged lists and no blocks: what is built beside one is for comparison, and replaces it only if it has
    more blocks.
    """
    if (DATA / kind).is_dir():
        return DATA
    own = data_folder() / "lists"
    built = sum(1 for _ in (own / kind).glob("*.bin"))
    if not built:
        return None
    ready = 0
    with suppress(KeyassayError):
        ready = open_merged(MERGED / f"{kind}.bin").blocks
    return own if built > ready else None


def is_there(kind: str) -> bool:
    """Whether there is anything of the list of a kind, be it damaged."""
    return blocks_folder(kind) is not None or (MERGED / f"{kind}.bin").exists()


def _stamp(folder: Path) -> bytes:
    """Digest of names, sizes and times of a kind's blocks: tells whether a merged list is current, in microseconds."""
    total = hashlib.sha256()
    for entry in sorted(os.scandir(folder), key=lambda one: one.name):
        if entry.name.endswith(".bin"):
            status = entry.stat()
            total.update(f"{entry.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return total.digest()


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that nobody ever sees half of it.

    Args:
        path: the file; its folder is made if need be.
        data: its contents.
        mode: who may read and write it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def _blocks(kind: str, folder: Path) -> list[Block]:
    """All blocks of a kind in a folder, verified."""
    blocks = []
    for path in sorted((folder / kind).glob("*.bin")):
        block = read_block(path)
        if block.name.path != f"{kind}/{path.name}":
            raise KeyassayError(f"{path} holds another block, {block.name.path}", "delete it")
        blocks.append(block)
    return blocks


def merge(kind: str, *, stamp: bytes | None = None, target: Path | None = None) -> Path:
    """Merge the blocks of a kind into its sorted list.

    Args:
        kind: name of the kind.
        stamp: digest to record; that of the blocks as they are now by default.
        target: folder to write to; beside this module, or the user's cache folder if that is not writable.

    Raises:
        KeyassayError: a block is damaged, or no folder is writable.
    """
    folder = blocks_folder(kind) or DATA
    stamp = stamp or _stamp(folder / kind)
    data = pack_merged(KINDS[kind], _blocks(kind, folder), len(block_names(kind)), stamp)
    path = _write(kind, data, [target] if target else _merged_folders(folder))
    if path is None:
        raise KeyassayError("no folder is writable for merged lists", "set XDG_CACHE_HOME to one that is")
    return path


def _merged_folders(blocks: Path) -> list[Path]:
    """Where the merged list of blocks may be: beside this module only if they are a checkout's."""
    return [MERGED, cache_folder() / "lists"] if blocks == DATA else [cache_folder() / "lists"]


def _write(kind: str, data: bytes, folders: list[Path]) -> Path | None:
    """Write a merged list into the first folder that is writable; None if there is none."""
    for folder in folders:
        path = folder / f"{kind}.bin"
        try:
            write_atomically(path, data)
        except OSError:
            continue
        return path
    return None


@cache
def merged(kind: str) -> MergedList | None:
    """The list of a kind, merged anew if its blocks changed; None if there is none.

    Raises:
        KeyassayError: the list or a block behind it is damaged.
    """
    folder = blocks_folder(kind)
    if folder is None:
        ready = MERGED / f"{kind}.bin"
        return open_merged(ready) if ready.exists() else None
    places = [place / f"{kind}.bin" for place in _merged_folders(folder)]
    try:
        stamp = _stamp(folder / kind)
    except OSError as error:
        raise KeyassayError(f"{folder / kind} cannot be read: {error.strerror or error}") from error
    complete = len(block_names(kind))
    for path in places:
        # a damaged one is made again; so is one of another checkout, which has other blocks or asks for more of them
        with suppress(KeyassayError):
            found = open_merged(path)
            if found.stamp == stamp and found.kind.name == kind and found.complete_blocks == complete:
                return found
    data = pack_merged(KINDS[kind], _blocks(kind, folder), complete, stamp)
    path_of_list = _write(kind, data, _merged_folders(folder))
    # where nothing can be written the list is merged again by each process, in a tenth of a second
    return merged_of(data) if path_of_list is None else open_merged(path_of_list)


def whole(kind: str) -> MergedList | None:
    """The list of a kind; None also if it is damaged, which ``verify`` and the reports tell."""
    try:
        return merged(kind)
    except KeyassayError:
        return None


def available() -> tuple[ListInfo, ...]:
    """What there is of each list, missing and damaged ones with zero entries; of variants only what somebody made."""
    found = []
    for kind in KINDS.values():
        if kind.name not in SHIPPED and not is_there(kind.name):
            continue
        one = whole(kind.name)
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
    found = whole(kind)
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
