"""How lists look on disk: immutable blocks in stream order, merged into one sorted file per kind.

A block holds 4,096 process ids of one kind, platform and state, and never changes once it is there. A merged list is
derived from blocks, lives outside version control, and is what look-ups map into memory. docs/list-format.md has the
layout to the byte.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keyassay.errors import KeyassayError
from keyassay.lists.recipes.debian_openssl import ARCHS, PIDS, STATES, USUAL, VARIANTS, Stream, Variant

BLOCK = 4_096
STREAM_BITS = 19
STREAM_MASK = (1 << STREAM_BITS) - 1

_BLOCK_MAGIC = b"KAblock\x01"
_MERGED_MAGIC = b"KAmerge\x02"
#: magic, kind, platform, state, first process id, count, extra records, bytes per record, SHA-256 of the body
_HEADER = struct.Struct("<8s16s8s16sIIII32s")
#: magic, kind, entries, 1 if hints follow, blocks merged, blocks that make it complete, stamp of the blocks; 80 bytes,
#: so that the entries are aligned (searching unaligned ones copies them)
_MERGED_HEADER = struct.Struct("<8s16sQQII32s")
_BUILD_AGAIN = "delete it and run `keyassay lists build`"
#: offset within the block, branch (3: the modulus for small public exponents), then a record
_EXTRA = struct.Struct("<HH")


@dataclass(frozen=True, slots=True)
class Kind:
    """What one list is about: RSA keys of a size, or keys on a curve.

    Attributes:
        name: at most 16 characters.
        bits: of RSA keys, else 0.
        curve: name of the curve, else "".
        confirmed: keys of this kind made by a really vulnerable OpenSSL were compared (never in the state ``direct``).
        variant: how the keys came about. Only the lists of the usual one come with the program.
    """

    name: str
    bits: int = 0
    curve: str = ""
    confirmed: bool = True
    variant: Variant = USUAL

    @property
    def usual(self) -> Kind:
        """The same keys made in the usual way: the kind whose list comes with the program."""
        return KINDS[self.name.removesuffix(f"-{self.variant.name}")] if self.variant.name else self

    @property
    def list_name(self) -> str:
        """The list's name in reports."""
        return f"debian-{self.name}"

    @property
    def has_hints(self) -> bool:
        """RSA records carry the indices of the blocks that became p and q."""
        return bool(self.bits)

    @property
    def record_bytes(self) -> int:
        """Bytes of one record of a block."""
        return 12 if self.has_hints else 8


#: kinds whose lists come with the program, or will as soon as they are computed
SHIPPED = {
    kind.name: kind
    for kind in (
        Kind("rsa-512", bits=512, confirmed=False),
        Kind("rsa-1024", bits=1024),
        Kind("rsa-2048", bits=2048),
        Kind("rsa-3072", bits=3072),
        Kind("rsa-4096", bits=4096),
        Kind("ec-secp160r1", curve="secp160r1", confirmed=False),
        Kind("ec-p224", curve="P-224", confirmed=False),
        Kind("ec-p256", curve="P-256"),
        Kind("ec-p384", curve="P-384"),
        Kind("ec-p521", curve="P-521", confirmed=False),
        Kind("ec-secp256k1", curve="secp256k1", confirmed=False),
    )
}
#: all kinds: those, and their variants, whose lists whoever wants them makes
KINDS = SHIPPED | {
    f"{kind.name}-{variant.name}": replace(kind, name=f"{kind.name}-{variant.name}", confirmed=False, variant=variant)
    for kind in SHIPPED.values()
    for variant in VARIANTS.values()
}


@dataclass(frozen=True, slots=True)
class BlockName:
    """Which block: kind, platform, state, first process id."""

    kind: str
    arch: str
    state: str
    first: int

    @property
    def path(self) -> str:
        """The block's place below the data folder."""
        return f"{self.kind}/{self.arch}-{self.state}-{self.first // BLOCK}.bin"

    def streams(self) -> Iterable[Stream]:
        """The streams of the block, in order."""
        return (Stream(self.arch, self.state, pid) for pid in range(self.first, self.first + BLOCK))


def block_names(kind: str) -> list[BlockName]:
    """All blocks that make a list complete, by state, platform and process id."""
    variant = KINDS[kind].variant
    return [
        BlockName(kind, arch, state, first)
        for state in variant.states
        for arch in variant.archs
        for first in range(0, PIDS, BLOCK)
    ]


@dataclass(frozen=True, slots=True)
class Record:
    """One key of a list: the first 8 bytes of the SHA-256 of its bare number, and its hints (RSA)."""

    digest: bytes
    blocks: tuple[int, int] | None = None

    def pack(self) -> bytes:
        """Bytes of the record."""
        return self.digest if self.blocks is None else self.digest + struct.pack("<HH", *self.blocks)


def number_digest(number: int, size: int | None = None) -> bytes:
    """SHA-256 of a bare number: big-endian, without leading zero (modulus) or padded to ``size`` (x coordinate)."""
    return hashlib.sha256(number.to_bytes(size or (number.bit_length() + 7) // 8, "big")).digest()


def pack_block(name: BlockName, records: list[Record], extras: list[tuple[int, int, Record]]) -> bytes:
    """Bytes of a block file; ``extras`` are (offset in the block, branch, record)."""
    body = b"".join([record.pack() for record in records])
    body += b"".join([_EXTRA.pack(offset, branch) + record.pack() for offset, branch, record in extras])
    header = _HEADER.pack(
        _BLOCK_MAGIC,
        name.kind.encode(),
        name.arch.encode(),
        name.state.encode(),
        name.first,
        len(records),
        len(extras),
        KINDS[name.kind].record_bytes,
        hashlib.sha256(body).digest(),
    )
    return header + body


@dataclass(frozen=True)
class Block:
    """A block as read: digests (big-endian numbers), hints, extra records."""

    name: BlockName
    digests: NDArray[np.uint64]
    hints: NDArray[np.uint16] | None
    extras: list[tuple[int, int, Record]]


def read_block(path: Path) -> Block:
    """Read and verify a block file.

    Raises:
        KeyassayError: it is not a block, or its contents do not match their digest.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise KeyassayError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        magic, kind, arch, state, first, count, extra, size, digest = _HEADER.unpack_from(data)
    except struct.error:
        raise KeyassayError(f"{path} is too short for a block of a list") from None
    body = data[_HEADER.size :]
    if magic != _BLOCK_MAGIC or hashlib.sha256(body).digest() != digest:
        raise KeyassayError(f"{path} is damaged", _BUILD_AGAIN)
    kind_name, arch_name, state_name = (part.rstrip(b"\0").decode("ascii", "replace") for part in (kind, arch, state))
    name = BlockName(kind_name, arch_name, state_name, first)
    known = KINDS.get(kind_name)
    if (
        known is None
        or (arch_name not in ARCHS or state_name not in STATES or first > PIDS - BLOCK or first % BLOCK)
        or (size != known.record_bytes or count > BLOCK or len(body) != count * size + extra * (_EXTRA.size + size))
    ):
        raise KeyassayError(f"{path} is damaged: its header does not fit", _BUILD_AGAIN)
    main = np.frombuffer(body, dtype=np.uint8, count=count * size).reshape(count, size)
    digests = np.ascontiguousarray(main[:, :8]).view(">u8").astype(np.uint64).reshape(-1)
    hints = np.ascontiguousarray(main[:, 8:]).view("<u2").astype(np.uint16) if size > 8 else None
    extras = []
    at = count * size
    for _ in range(extra):
        offset, branch = _EXTRA.unpack_from(body, at)
        record = body[at + _EXTRA.size : at + _EXTRA.size + size]
        blocks: tuple[int, int] | None = None
        if size > 8:
            i, j = struct.unpack("<HH", record[8:])
            blocks = (i, j)
        if offset >= count:
            raise KeyassayError(f"{path} is damaged: an extra record of no stream", _BUILD_AGAIN)
        extras.append((offset, branch, Record(record[:8], blocks)))
        at += _EXTRA.size + size
    return Block(name, digests, hints, extras)


@dataclass(frozen=True)
class MergedList:
    """A sorted list: entries are 45 bits of the digest and 19 bits of the stream number.

    Attributes:
        kind: which keys.
        entries: sorted, memory mapped.
        hints: row for row with ``entries`` (RSA), else None.
        blocks: number of blocks in it.
        complete_blocks: number of blocks of a complete list.
        stamp: digest of the blocks that it was made from.
    """

    kind: Kind
    entries: NDArray[np.uint64]
    hints: NDArray[np.uint16] | None
    blocks: int
    complete_blocks: int
    stamp: bytes


def pack_merged(kind: Kind, blocks: list[Block], complete: int, stamp: bytes) -> bytes:
    """Bytes of a merged list."""
    entries: list[NDArray[np.uint64]] = []
    hints: list[NDArray[np.uint16]] = []
    for block in blocks:
        first = Stream(block.name.arch, block.name.state, block.name.first).number
        offsets = np.concatenate(
            [np.arange(len(block.digests)), np.array([offset for offset, _, _ in block.extras], dtype=np.int64)]
        )
        digests = np.concatenate(
            [block.digests, np.array([int.from_bytes(r.digest, "big") for _, _, r in block.extras], dtype=np.uint64)]
        )
        streams = (offsets + first).astype(np.uint64)
        entries.append((digests & np.uint64(~STREAM_MASK & (2**64 - 1))) | streams)
        if block.hints is not None:
            more = np.array([r.blocks for _, _, r in block.extras], dtype=np.uint16).reshape(-1, 2)
            hints.append(np.concatenate([block.hints, more]))
    joined = np.concatenate(entries) if entries else np.zeros(0, dtype=np.uint64)
    order = np.argsort(joined, kind="stable")
    header = _MERGED_HEADER.pack(
        _MERGED_MAGIC, kind.name.encode(), len(joined), int(kind.has_hints), len(blocks), complete, stamp
    )
    data = header + joined[order].astype("<u8").tobytes()
    if kind.has_hints:
        all_hints = np.concatenate(hints) if hints else np.zeros((0, 2), dtype=np.uint16)
        data += all_hints[order].astype("<u2").tobytes()
    return data


def open_merged(path: Path) -> MergedList:
    """Map a merged list into memory.

    Raises:
        KeyassayError: it cannot be read, or is not a merged list of a kind known here.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_MERGED_HEADER.size)
            size = file.seek(0, 2)
        data = np.memmap(path, dtype=np.uint8, mode="r") if size else np.zeros(0, dtype=np.uint8)
        return _merged(head, data)
    except (OSError, struct.error, KeyError, ValueError) as error:
        raise KeyassayError(f"{path} is damaged: {error}", _MERGE_AGAIN) from error


def merged_of(data: bytes) -> MergedList:
    """A merged list in memory, of bytes that ``pack_merged`` made."""
    return _merged(data[: _MERGED_HEADER.size], np.frombuffer(data, dtype=np.uint8))


_MERGE_AGAIN = "delete it and run `python -m keyassay.lists merge`, or reinstall keyassay if it came with that"


def _merged(head: bytes, data: NDArray[np.uint8]) -> MergedList:
    magic, name, count, with_hints, blocks, complete, stamp = _MERGED_HEADER.unpack(head)
    kind = KINDS[name.rstrip(b"\0").decode()]
    at = _MERGED_HEADER.size
    size = at + (12 if with_hints else 8) * count
    if magic != _MERGED_MAGIC or bool(with_hints) != kind.has_hints or len(data) != size:
        raise ValueError("the header does not fit the contents")
    entries = data[at : at + 8 * count].view("<u8")
    hints = data[at + 8 * count :].view("<u2").reshape(count, 2) if with_hints else None
    return MergedList(kind, entries, hints, blocks, complete, stamp)
