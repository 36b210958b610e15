"""Lists of the keys of keypair before 1.0.4 (CVE-2021-41117): the tops of their moduli, with the pools behind them.

For each size the list of the pools with at most one non-zero byte is shipped; that of two non-zero bytes is built by
whoever wants it (``keypair_building``). A list is a sorted array that look-ups map into memory.

Layout, all numbers little-endian: a header of 64 bytes (8 bytes "KAseeds" and 1; the kind, 16 bytes, padded with
zeros; numbers of the first pool and count of entries, 4 bytes each; SHA-256 of the rest), then an entry of 8 bytes
for each pool, in rising order: the 40 bits that follow the highest one of the modulus, then 24 bits of pool number. A
block of an unfinished list is the same with few pools. One key in 2^24 meets an entry of the shipped list by chance,
one in 2^16 of the other; whoever looks up makes the key again.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keyassay.errors import KeyassayError
from keyassay.lists.lookup import DATA, cache_folder
from keyassay.lists.recipes.keypair import PLACES, pools_up_to, pools_with, share_up_to

POOL_BITS = 24
POOL_MASK = (1 << POOL_BITS) - 1

#: magic, kind, number of the first pool, entries, SHA-256 of the entries
_HEADER = struct.Struct("<8s16sII32s")
_MAGIC = b"KAseeds\x01"

_AGAIN = "delete it and make it again by `keyassay lists build`, or reinstall keyassay if it came with that"

#: pools of one block of the list of two non-zero bytes: all with the same two places; 1.5 to 5 seconds
BLOCK = 256 * 9**2
BLOCKS = PLACES * (PLACES - 1) // 2


@dataclass(frozen=True, slots=True)
class Kind:
    """The keys of one size; ``name`` as in "keypair-2048"."""

    name: str
    bits: int

    @property
    def shipped(self) -> Path:
        """File of the shipped list."""
        return DATA / "keypair" / f"{self.bits}.bin"

    def built(self, folder: Path) -> Path:
        """File of the list of two non-zero bytes, below the folder for lists."""
        return folder / f"{self.name}.bin"

    def block(self, folder: Path, index: int) -> Path:
        """File of a block of that list until it is complete."""
        return folder / f"{self.name}.parts" / f"{index}.bin"


KINDS = {kind.name: kind for kind in (Kind(f"keypair-{bits}", bits) for bits in (1024, 2048, 3072, 4096))}


@dataclass(frozen=True, slots=True)
class ListInfo:
    """What there is of the lists of one kind.

    Attributes:
        name: the list's name in reports, the kind's own.
        kind: the kind's name.
        entries: number of keys, of both lists together.
        blocks: finished blocks of the list of two non-zero bytes, all if it is complete.
        complete_blocks: blocks of that list when complete.
        confirmed: keys made by the original were compared.
        share: of all first keys that the program made, how many the lists hold.
    """

    name: str
    kind: str
    entries: int
    blocks: int
    complete_blocks: int
    confirmed: bool
    share: float


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry whose 40 bits agree with a query: a candidate until the key has been made again.

    Attributes:
        row: position of the query.
        pool: number of the pool.
    """

    row: int
    pool: int


def lists_folder() -> Path:
    """Where lists are built that can be made again at any time."""
    return cache_folder() / "lists"


def prefixes(tops: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The 40 bits that entries keep of the highest 64 of a modulus: those after the first."""
    return (tops << np.uint64(1)) >> np.uint64(POOL_BITS)


def pack(kind: Kind, first: int, entries: NDArray[np.uint64]) -> bytes:
    """Bytes of a list or block: sorted entries of the pools from ``first`` on."""
    body = entries.astype("<u8").tobytes()
    return _HEADER.pack(_MAGIC, kind.name.encode(), first, len(entries), hashlib.sha256(body).digest()) + body


def open_list(path: Path, kind: Kind, first: int, count: int, *, digest: bool = True) -> NDArray[np.uint64]:
    """Map the entries of a list into memory.

    Args:
        path: its file.
        kind: what it must hold.
        first: the first pool that it must hold.
        count: how many pools.
        digest: compare the digest too (a millisecond a megabyte).

    Raises:
        KeyassayError: it cannot be read, or is not that list, or does not match its digest.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
        entries = np.memmap(path, dtype="<u8", mode="r", offset=_HEADER.size, shape=(count,))
        magic, name, found_first, found_count, found_digest = _HEADER.unpack(head)
    except (OSError, ValueError, struct.error) as error:
        raise KeyassayError(f"{path} cannot be read as a list: {error}", _AGAIN) from error
    if (magic, name.rstrip(b"\0").decode(), found_first, found_count) != (_MAGIC, kind.name, first, count):
        raise KeyassayError(f"{path} is not the list {kind.name}", _AGAIN)
    if digest and hashlib.sha256(entries.data).digest() != found_digest:
        raise KeyassayError(f"{path} is damaged", _AGAIN)
    return entries


@cache
def shipped(kind: str) -> NDArray[np.uint64]:
    """The shipped list of a kind: pools with at most one non-zero byte.

    Raises:
        KeyassayError: it is missing or damaged.
    """
    one = KINDS[kind]
    return open_list(one.shipped, one, 0, pools_up_to(1))


@cache
def built(kind: str) -> NDArray[np.uint64] | None:
    """The list of pools with two non-zero bytes, None if nobody has built it. Its digest is ``verify``'s business.

    Raises:
        KeyassayError: it is damaged.
    """
    one = KINDS[kind]
    path = one.built(lists_folder())
    return open_list(path, one, pools_up_to(1), pools_with(2), digest=False) if path.exists() else None


def find_many(entries: NDArray[np.uint64], tops: NDArray[np.uint64]) -> list[Hit]:
    """Look many moduli up at once.

    Args:
        entries: a list (``shipped``, ``built``).
        tops: the highest 64 bits of each modulus, any order.

    Returns:
        Candidates by rising row.
    """
    queries = prefixes(tops)
    order = np.argsort(queries, kind="stable")
    queries = queries[order]
    shift = np.uint64(POOL_BITS)
    places = np.searchsorted(entries, queries << shift)
    near = entries[np.minimum(places, len(entries) - 1)] >> shift
    hits = []
    for position in np.flatnonzero((places < len(entries)) & (near == queries)).tolist():
        place = int(places[position])
        prefix = int(queries[position])
        while place < len(entries) and int(entries[place]) >> POOL_BITS == prefix:
            hits.append(Hit(int(order[position]), int(entries[place]) & POOL_MASK))
            place += 1
    return sorted(hits, key=lambda hit: (hit.row, hit.pool))


def available() -> tuple[ListInfo, ...]:
    """What there is of the lists of each kind; a damaged list counts as none."""
    found = []
    for kind in KINDS.values():
        entries, share, blocks = 0, 0.0, 0
        try:
            entries = len(shipped(kind.name))
            share = share_up_to(1)
        except KeyassayError:
            pass
        try:
            more = built(kind.name)
        except KeyassayError:
            more = None
        if more is None:
            blocks = BLOCKS - len(missing(kind.name))
        else:
            entries, share, blocks = entries + len(more), share + share_up_to(2) - share_up_to(1), BLOCKS
        found.append(ListInfo(kind.name, kind.name, entries, blocks, BLOCKS, True, share))
    return tuple(found)


def missing(kind: str, folder: Path | None = None) -> list[int]:
    """Blocks of the list of two non-zero bytes that are not there yet; none if the list is complete."""
    one = KINDS[kind]
    place = folder or lists_folder()
    if one.built(place).exists():
        return []
    return [index for index in range(BLOCKS) if not one.block(place, index).exists()]
