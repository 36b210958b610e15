"""The keys of earlier runs in a folder (``--against``): later runs find primes and keys that they share with them.

A run adds one segment, a file that never changes: its new items, its new RSA moduli, and the products of blocks of
these. Public facts only. The folder is locked while a run uses it, and a segment appears whole or not at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, BinaryIO

import gmpy2
import numpy as np
from gmpy2 import mpz
from numpy.typing import NDArray

from keyassay.bulk.fleet import RunFleet
from keyassay.bulk.journal import Journal
from keyassay.certificates.fleet import IDENTITY, Earlier, EarlierKeys
from keyassay.certificates.item import Item, Kind
from keyassay.checks import Check
from keyassay.errors import KeyassayError
from keyassay.keymath.batch_gcd import Others
from keyassay.keymath.factoring import product

#: Moduli whose product is kept beside them.
BLOCK = 4_096
MARK = "keyassay-store"
VERSION = 1

_MAGIC = b"KAstore\x01"
#: magic, items, moduli, blocks, bytes of sources, of moduli and of products, SHA-256 of all that follows
_HEADER = struct.Struct("<8s6Q32s")
#: source is the place of its text's end in the table of sources, hash the first 8 bytes of SHA-256 of a modulus
_ITEM = np.dtype(
    [
        ("spki", "S16"), ("subject", "S16"), ("sha256", "V32"), ("kind", "u1"), ("has_der", "u1"),
        ("source", "<u8"), ("index", "<u8"),
    ]
)  # fmt: skip
_MODULUS = np.dtype([("hash", "<u8"), ("item", "<u4"), ("end", "<u8")])
_KINDS = [
    number
    for number, kind in enumerate(Kind)
    if kind in (Kind.CERTIFICATE, Kind.REQUEST, Kind.PUBLIC_KEY, Kind.PRIVATE_KEY)
]


class DamagedStoreError(KeyassayError):
    """A file of a store is not as it was written."""


class BusyStoreError(KeyassayError):
    """Another run has the store."""


def _octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _hash(octets: bytes) -> int:
    return int.from_bytes(hashlib.sha256(octets).digest()[:8], "little")


class Segment:
    """One run's contribution, mapped into memory.

    Attributes:
        digest: SHA-256 of all that is in it.

    Raises:
        KeyassayError: the file is damaged or of another version.
    """

    def __init__(self, path: Path) -> None:
        """Check length and digest of the whole file (a second for a million keys)."""
        self.path = path
        try:
            data = np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise self._damaged(str(error)) from None
        if len(data) < _HEADER.size:
            raise self._damaged("it is too short")
        magic, items, moduli, blocks, *lengths, digest = _HEADER.unpack(data[: _HEADER.size].tobytes())
        if magic != _MAGIC:
            raise self._damaged("it is no segment, or of another version")
        sections = [items * _ITEM.itemsize, lengths[0], moduli * _MODULUS.itemsize, lengths[1], blocks * 8, lengths[2]]
        if sum(sections) + _HEADER.size != len(data):
            raise self._damaged("its length is wrong")
        with path.open("rb") as file:  # read, not mapped: all pages that are touched here stay in memory
            if _digest_of_rest(file, _HEADER.size) != digest:
                raise self._damaged("its digest is wrong")
        self.digest: bytes = digest
        body = data[_HEADER.size :]
        ends = np.cumsum(sections).tolist()
        parts = [body[start:end] for start, end in pairwise([0, *ends])]
        self.items: NDArray[np.void] = parts[0].view(_ITEM)
        self._sources = parts[1]
        self.moduli: NDArray[np.void] = parts[2].view(_MODULUS)
        self._numbers = parts[3]
        self._product_ends = parts[4].view("<u8")
        self._products = parts[5]

    def _damaged(self, why: str) -> KeyassayError:
        return DamagedStoreError(
            f"the store's file {str(self.path)!r} is damaged: {why}",
            "restore it from a backup, or move it away: the keys of that run are then no longer compared",
        )

    @property
    def blocks(self) -> int:
        """How many blocks the moduli make."""
        return len(self._product_ends)

    def place(self, row: int) -> Earlier:
        """Where an item came from."""
        item = self.items[row]
        end = int(item["source"])
        size = int.from_bytes(self._sources[end - 4 : end].tobytes(), "little")
        source = self._sources[end - 4 - size : end - 4].tobytes().decode("utf-8", "surrogateescape")
        return Earlier(source, int(item["index"]), item["sha256"].tobytes() if item["has_der"] else None)

    def modulus(self, number: int) -> bytes:
        """A modulus as octets, big-endian."""
        start = int(self.moduli["end"][number - 1]) if number else 0
        return self._numbers[start : int(self.moduli["end"][number])].tobytes()

    def product(self, block: int) -> mpz:
        """The product of a block of moduli."""
        start = int(self._product_ends[block - 1]) if block else 0
        return mpz.from_bytes(self._products[start : int(self._product_ends[block])].tobytes(), "little")


class Store(EarlierKeys):
    """A folder of segments, locked for this process until ``close``.

    Raises:
        KeyassayError: the folder cannot be used, is in use, is no store, or a segment is damaged.
    """

    def __init__(self, folder: Path) -> None:
        """Open the store; make the folder, for its owner alone, if it is not there."""
        self.folder = folder
        try:
            if not folder.exists():
                folder.mkdir(mode=0o700, parents=True)
            mark = folder / MARK
            if not mark.exists() and any(folder.iterdir()):
                raise KeyassayError(f"{str(folder)!r} is no store: it holds other files", "name a new or empty folder")
            self._lock = mark.open("a+b")
        except OSError as error:
            raise KeyassayError(f"the store {str(folder)!r} cannot be used: {error.strerror}") from None
        try:
            self._take(mark)
            self.segments = [Segment(path) for path in sorted(folder.glob("segment-*.keys"))]
        except BaseException:
            self._lock.close()
            raise
        self._starts = np.cumsum([0, *(len(one.items) for one in self.segments)]).tolist()
        self._hashes: NDArray[np.uint64] = _joined([one.moduli["hash"] for one in self.segments], np.dtype("<u8"))
        self._firsts = np.cumsum([0, *(len(one.moduli) for one in self.segments)]).tolist()

    def _take(self, mark: Path) -> None:
        """Lock the mark and check (or write) what it says."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BusyStoreError(
                f"the store {str(self.folder)!r} is in use by another run", "wait for its end"
            ) from None
        self._lock.seek(0)
        text = self._lock.read(200)
        if not text:
            self._lock.write(f"keyassay store {VERSION}\n".encode())
            self._lock.flush()
        elif text != f"keyassay store {VERSION}\n".encode():
            raise KeyassayError(
                f"{str(mark)!r} is not the mark of a store of version {VERSION}", "use the release that made the store"
            )
        for leftover in (
            *self.folder.glob("segment-*.part"),
            *self.folder.glob("deep-*.part"),
        ):  # of a run that was killed while it wrote
            with suppress(OSError):
                leftover.unlink()

    def close(self) -> None:
        """Let others use the store."""
        self._lock.close()

    def __len__(self) -> int:
        """Number of items kept."""
        return int(self._starts[-1])

    @cached_property
    def keys(self) -> int:
        """Number of different keys."""
        return len(np.unique(self.identities["spki"]))

    # What checks compare with

    @cached_property
    def identities(self) -> NDArray[np.void]:
        rows = np.zeros(len(self), dtype=IDENTITY)
        for segment, start, end in zip(self.segments, self._starts, self._starts[1:], strict=False):
            part = rows[start:end]
            for name in ("spki", "subject", "kind"):
                part[name] = segment.items[name]
            part["der"] = np.ascontiguousarray(segment.items["sha256"]).view("S16")[::2]
        return rows

    def place(self, row: int) -> Earlier:
        number = bisect_right(self._starts, row) - 1
        return self.segments[number].place(row - self._starts[number])

    def moduli_besides(self, moduli: Sequence[int]) -> Others | None:
        if not len(self._hashes):
            return None
        return _Besides(self.segments, [self._position(number) for number in self.known(moduli).values()])

    def known(self, moduli: Sequence[int]) -> dict[int, int]:
        """Which of some distinct moduli are here: their position there to their number here."""
        octets = [_octets(modulus) for modulus in moduli]
        wanted = np.array([_hash(one) for one in octets], dtype=np.uint64)
        order, ranked = self._ranked
        found: dict[int, int] = {}
        starts = np.searchsorted(ranked, wanted)
        ends = np.searchsorted(ranked, wanted, side="right")
        for place in np.flatnonzero(starts < ends).tolist():
            for number in order[starts[place] : ends[place]].tolist():
                segment, row = self._position(number)
                if self.segments[segment].modulus(row) == octets[place]:
                    found[place] = number
        return found

    @cached_property
    def _ranked(self) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
        order = np.argsort(self._hashes)
        return order, self._hashes[order]

    def _position(self, number: int) -> tuple[int, int]:
        segment = bisect_right(self._firsts, number) - 1
        return segment, number - self._firsts[segment]

    def holder(self, modulus: int) -> Earlier:
        for number in self.known([modulus]).values():
            segment, row = self._position(number)
            return self.segments[segment].place(int(self.segments[segment].moduli["item"][row]))
        raise KeyError(modulus)

    def divided_by(self, factors: Sequence[int]) -> Iterator[tuple[int, int, Earlier]]:
        """Moduli that have a part in any of some factors.

        Args:
            factors: numbers above 1.

        Yields:
            The modulus, what it has in common with the product of all factors, and where its first item came from.
        """
        if not factors:
            return
        whole = product([mpz(factor) for factor in factors])
        for segment in self.segments:
            for block in range(segment.blocks):
                common = gmpy2.gcd(segment.product(block) % whole, whole)
                if common == 1:
                    continue
                for row in range(block * BLOCK, min((block + 1) * BLOCK, len(segment.moduli))):
                    modulus = mpz.from_bytes(segment.modulus(row), "big")
                    part = gmpy2.gcd(modulus, common)
                    if part > 1:
                        yield int(modulus), int(part), segment.place(int(segment.moduli["item"][row]))

    # Adding

    def journal(self, checks: Iterable[Check[Any]]) -> Journal:
        """How far the deep steps of checks have come on each key; grows while the run goes on.

        Raises:
            KeyassayError: the file cannot be used, or is of another version.
        """
        return Journal(self.folder / "deep-steps.log", checks)

    def draft(self, fleet: RunFleet) -> Draft:
        """Begin the segment of a run."""
        return Draft(self, fleet)

    def drop_after(self, count: int) -> None:
        """Remove all segments but the first ones, the newest first; the store has to be opened again then.

        Raises:
            OSError: as the system says; the segments before the one that it was about are left.
        """
        for segment in reversed(self.segments[count:]):
            segment.path.unlink()

    def write(self, items: NDArray[np.void], sources: bytes, moduli: NDArray[np.void], numbers: list[bytes]) -> bytes:
        """Write a segment: to the side first, then under its name; returns its digest.

        Raises:
            OSError: as the system says; nothing was added.
        """
        last = max((int(one.path.stem.removeprefix("segment-")) for one in self.segments), default=0)
        path = self.folder / f"segment-{last + 1:06d}.keys"
        handle, name = tempfile.mkstemp(dir=self.folder, prefix="segment-", suffix=".part")
        try:
            with os.fdopen(handle, "w+b") as file:
                file.write(bytes(_HEADER.size))
                file.write(items.tobytes())
                file.write(sources)
                file.write(moduli.tobytes())
                file.writelines(numbers)
                ends, size = _write_products(file, numbers)
                lengths = (len(sources), sum(map(len, numbers)), size)
                digest = _digest_of_rest(file, _HEADER.size)
                file.seek(0)
                file.write(_HEADER.pack(_MAGIC, len(items), len(moduli), len(ends), *lengths, digest))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return digest


def remove(folder: Path) -> bool:
    """Remove a store, damaged or not; false if the folder is none, is in use, or cannot be removed."""
    try:
        with (folder / MARK).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
    except OSError:
        return False
    return True


def _joined(parts: list[NDArray[np.uint64]], dtype: np.dtype[np.uint64]) -> NDArray[np.uint64]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)


def _write_products(file: BinaryIO | IO[bytes], numbers: list[bytes]) -> tuple[NDArray[np.uint64], int]:
    """Ends, then products of the blocks, at the end of a file; returns the ends and the bytes of the products."""
    starts = range(0, len(numbers), BLOCK)
    ends = np.zeros(len(starts), dtype="<u8")
    at = file.tell()
    file.write(ends.tobytes())
    size = 0
    for block, start in enumerate(starts):
        made = product([mpz.from_bytes(one, "big") for one in numbers[start : start + BLOCK]])
        octets = made.to_bytes((made.bit_length() + 7) // 8, "little")
        file.write(octets)
        size += len(octets)
        ends[block] = size
    file.seek(at)
    file.write(ends.tobytes())
    file.seek(0, os.SEEK_END)
    return ends, size


def _digest_of_rest(file: BinaryIO | IO[bytes], start: int) -> bytes:
    total = hashlib.sha256()
    file.seek(start)
    while chunk := file.read(1 << 20):
        total.update(chunk)
    return total.digest()


class _Besides(Others):
    """The moduli of all segments but some, block by block."""

    def __init__(self, segments: list[Segment], excluded: list[tuple[int, int]]) -> None:
        self._blocks = [(segment, block) for segment in segments for block in range(segment.blocks)]
        self._excluded: dict[tuple[Path, int], set[int]] = {}
        for number, row in excluded:
            self._excluded.setdefault((segments[number].path, row // BLOCK), set()).add(row)

    def _without(self, segment: Segment, block: int) -> set[int]:
        return self._excluded.get((segment.path, block), set())

    @property
    def block_count(self) -> int:
        return len(self._blocks)

    def products(self) -> Iterator[mpz]:
        for segment, block in self._blocks:
            excluded = self._without(segment, block)
            rows = range(block * BLOCK, min((block + 1) * BLOCK, len(segment.moduli)))
            if 2 * len(excluded) > len(rows):  # what is left is less work than what is taken out
                left = [segment.modulus(row) for row in rows if row not in excluded]
                yield product([mpz.from_bytes(octets, "big") for octets in left])
                continue
            whole = segment.product(block)
            if excluded:
                taken = product([mpz.from_bytes(segment.modulus(row), "big") for row in excluded])
                whole = gmpy2.divexact(whole, taken)
            yield whole

    def block(self, number: int) -> list[int]:
        segment, block = self._blocks[number]
        excluded = self._without(segment, block)
        rows = range(block * BLOCK, min((block + 1) * BLOCK, len(segment.moduli)))
        return [int.from_bytes(segment.modulus(row), "big") for row in rows if row not in excluded]


class Draft:
    """What a run adds: items that are not in the store, noted while they pass by, and moduli that are not."""

    def __init__(self, store: Store, fleet: RunFleet) -> None:
        """Find out which items and moduli are new."""
        self._store = store
        self._new = _new_rows(fleet.identities, store.identities)
        self._rows = np.zeros(len(self._new), dtype=_ITEM)
        identities = fleet.identities[self._new]
        for name in ("spki", "subject", "kind"):
            self._rows[name] = identities[name]
        self._filled = 0
        self._sources = bytearray()
        self._ends: dict[str, int] = {}
        # The item by which a new modulus is named: the first that has it, which is new as well.
        known = store.known(fleet.rsa_moduli)
        row_of = {int(ordinal): row for row, ordinal in enumerate(self._new)}
        self._moduli = [
            (_octets(modulus), row)
            for number, modulus in enumerate(fleet.rsa_moduli)
            if number not in known
            and (row := next((row_of[one] for one in fleet.rsa_ordinals[number] if one in row_of), None)) is not None
        ]

    def take(self, ordinal: int, item: Item) -> None:
        """Note an item; all items of the run have to come, in order."""
        if self._filled == len(self._new) or self._new[self._filled] != ordinal:
            return
        row = self._rows[self._filled]
        if item.sha256 is not None:
            row["sha256"] = np.void(item.sha256)
            row["has_der"] = 1
        end = self._ends.get(item.source)
        if end is None:
            text = item.source.encode("utf-8", "surrogateescape")
            self._sources += text + len(text).to_bytes(4, "little")
            end = self._ends[item.source] = len(self._sources)
        row["source"] = end
        row["index"] = item.index
        self._filled += 1

    def commit(self) -> bytes | None:
        """Add the segment, unless nothing is new.

        Returns:
            The segment's digest; None if nothing was new.

        Raises:
            OSError: as the system says; nothing was added.
        """
        assert self._filled == len(self._new)
        if not len(self._rows):
            return None
        moduli = np.zeros(len(self._moduli), dtype=_MODULUS)
        numbers = [octets for octets, _ in self._moduli]
        moduli["hash"] = [_hash(octets) for octets in numbers]
        moduli["item"] = [row for _, row in self._moduli]
        moduli["end"] = np.cumsum([len(octets) for octets in numbers])
        return self._store.write(self._rows, bytes(self._sources), moduli, numbers)


def _pairs(identities: NDArray[np.void]) -> NDArray[np.bytes_]:
    """Key and DER of each row as 32 octets."""
    both = np.zeros(len(identities), dtype=[("spki", "S16"), ("der", "S16")])
    both["spki"], both["der"] = identities["spki"], identities["der"]
    return both.view("S32")


def _new_rows(run: NDArray[np.void], stored: NDArray[np.void]) -> NDArray[np.intp]:
    """Rows of the run with a key, the first of those that are alike, that the store does not have."""
    candidates = np.flatnonzero(np.isin(run["kind"], _KINDS) & (run["spki"] != b""))
    if not len(candidates):
        return candidates
    wanted, first = np.unique(_pairs(run[candidates]), return_index=True)
    there = _pairs(stored)
    places = np.searchsorted(wanted, there)
    places[places == len(wanted)] = 0
    fresh = np.ones(len(wanted), dtype=bool)
    fresh[places[wanted[places] == there]] = False
    return np.sort(candidates[first[fresh]])
