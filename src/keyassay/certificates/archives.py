"""Archives and compressed files, member by member, bounded in number, size and expansion.

A bomb costs what the limits allow, gives one unreadable record, and reading goes on behind it where the format permits.
tar is read by a small reader of ours: a header that claims gigabytes of names must not be believed.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Protocol, cast

from keyassay.certificates.limits import Limits

#: expansion is judged beyond this
_FREE = 1 << 20
_BLOCK = 512
_NAME_BYTES = 65_536
_PIECE = 1 << 20
#: bytes of a zip archive from a pipe that are kept in memory; more goes to a temporary file
_SPOOLED = 64 << 20
#: packed bytes handed to a decompressor at once; small, because what follows a stream's end is copied
_PACKED = 8192
#: bytes asked of a decompressor at once; what it has made of them is lost if it meets damage in these
_UNPACKED = 4096
#: bytes that one xz stream may ask for its dictionary (xz -9 takes 65 MiB)
_XZ_MEMORY = 256 << 20
#: formats that are known but not read
_FOREIGN = {
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "RAR",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"!<arch>\n": "ar",
    b"MSCF\0\0\0\0": "cabinet",
}


class ArchiveError(Exception):
    """A member could not be read to its end; the text says why."""


class Readable(Protocol):
    """All that is asked of a stream."""

    def read(self, count: int, /) -> bytes:
        """Up to ``count`` bytes; none at the end."""


@dataclass(frozen=True)
class Member:
    """One member: a name ("" for a compressed file that is no archive) and its stream, or an error."""

    name: str
    stream: Readable | None = None
    error: str | None = None


class Packed(io.RawIOBase):
    """A stream whose beginning was read already, whole again; it counts what is taken from it."""

    def __init__(self, head: bytes, file: Readable, progress: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self._head = io.BytesIO(head)
        self._file = file
        self.progress = progress
        self.used = 0

    def read(self, count: int = -1) -> bytes:
        count = _PIECE if count < 0 else count
        data = self._head.read(count)
        if len(data) < count:
            more = self._file.read(count - len(data))
            if self.progress is not None:
                self.progress(len(more))
            data += more
        self.used += len(data)
        return data


class Budget:
    """What an archive, with all that is nested in it, or one member may still expand to.

    Args:
        limits: the bounds.
        packed: bytes of the outermost archive read so far, or of the member.
        what: who expands, for the complaint.
    """

    def __init__(self, limits: Limits, packed: Callable[[], int], what: str = "the archive ") -> None:
        self._limits = limits
        self._packed = packed
        self._what = what
        self._given = 0

    def spend(self, count: int) -> None:
        """Account for bytes that came out.

        Raises:
            ArchiveError: that was too much.
        """
        self._given += count
        if self._given > self._limits.archive_bytes:
            raise ArchiveError(f"{self._what}expands to more than {self._limits.archive_bytes:,} bytes")
        if self._given > _FREE + self._limits.archive_ratio * self._packed():
            raise ArchiveError(f"{self._what}expands to more than {self._limits.archive_ratio} times its size")


class _Expanded:
    """A decompressed stream that accounts for what it gives; damage is an ``ArchiveError``, at every later read too."""

    def __init__(self, stream: Readable, *budgets: Budget) -> None:
        # where there is a choice, one that gives what comes before damage instead of losing it
        self._read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        self._budgets = budgets
        self._ready = b""
        self._failure = ""

    def read(self, count: int) -> bytes:
        if not self._ready and count:
            self._ready = self._next()
        data, self._ready = self._ready[:count], self._ready[count:]
        return data

    def _next(self) -> bytes:
        """What a decompressor gives in one piece of constant size, so that nobody's way of asking matters."""
        if self._failure:
            raise ArchiveError(self._failure)
        try:
            data = self._read(_UNPACKED)
            for budget in self._budgets:
                budget.spend(len(data))
        except ArchiveError as error:
            self._failure = str(error)
            raise
        except Exception as error:  # decompressors raise many kinds for hostile input
            self._failure = f"damaged or not supported: {error}"
            raise ArchiveError(self._failure) from error
        return data


class _Decompressed:
    """Streams of bz2 or xz one after another, with no more memory than a format needs.

    Args:
        new: makes a decompressor for the next stream.
        file: the packed bytes.
    """

    def __init__(self, new: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor], file: Readable) -> None:
        self._new = new
        self._file = file
        self._engine = new()

    def read(self, count: int) -> bytes:
        while count:  # asked for nothing, a decompressor takes input without end
            rest = b""
            if self._engine.eof:
                rest = self._engine.unused_data
                while not (rest := rest.lstrip(b"\0")):
                    rest = self._file.read(_PACKED)
                    if not rest:
                        return b""
                self._engine = self._new()
            elif self._engine.needs_input:
                rest = self._file.read(_PACKED)
                if not rest:
                    raise EOFError("it ends too early")
            data = self._engine.decompress(rest, count)
            if data:
                return data
        return b""


def foreign_kind(head: bytes) -> str:
    """The name of an archive format that is known but not read; "" for anything else."""
    return next((name for magic, name in _FOREIGN.items() if head.startswith(magic)), "")


def kind_of(head: bytes) -> str:
    """zip, tar, gzip, bzip2 or xz by content; "" for anything else."""
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[:3] == b"\x1f\x8b\x08":
        return "gzip"
    if head[:3] == b"BZh" and head[4:10] == b"1AY&SY":
        return "bzip2"
    if head[:6] == b"\xfd7zXZ\x00":
        return "xz"
    return "tar" if head[257:262] == b"ustar" or (len(head) >= _BLOCK and _tar_sum(head[:_BLOCK])) else ""


def members(
    kind: str,
    head: bytes,
    file: Readable,
    limits: Limits,
    budget: Budget | None,
    progress: Callable[[int], None] | None,
) -> Iterator[tuple[Member, Budget]]:
    """Members in order; the stream of one is valid until the next is asked for.

    Args:
        kind: what ``kind_of`` said.
        head: what has been read of the stream.
        file: the rest of it.
        limits: the bounds.
        budget: that of the archive around this one, None for the outermost.
        progress: called with numbers of bytes read.

    Yields:
        Member and the budget that archives nested in it share.
    """
    packed = Packed(head, file, progress)
    if kind == "zip":
        yield from _zip(packed, file, limits, budget)
        return
    own = Budget(limits, lambda: packed.used)
    budget = budget or own
    if kind == "tar":
        yield from ((member, budget) for member in _tar(packed, limits))
        return
    stream: Readable
    if kind == "gzip":
        stream = gzip.GzipFile(fileobj=packed, mode="rb")
    elif kind == "bzip2":
        stream = _Decompressed(bz2.BZ2Decompressor, packed)
    else:
        stream = _Decompressed(partial(lzma.LZMADecompressor, memlimit=_XZ_MEMORY), packed)
    yield Member("", _Expanded(stream, *{own, budget})), budget


def _zip(packed: Packed, file: Readable, limits: Limits, budget: Budget | None) -> Iterator[tuple[Member, Budget]]:
    """Members of a zip archive; its directory is at the end, so what cannot be sought in goes to a temporary file."""
    if isinstance(file, io.BufferedReader | io.BytesIO) and file.seekable():
        size = file.seek(0, io.SEEK_END)
        yield from _zip_members(cast("BinaryIO", file), limits, budget or Budget(limits, lambda: size), packed.progress)
        return
    with tempfile.SpooledTemporaryFile(max_size=_SPOOLED) as spooled:
        while data := packed.read(_PIECE):
            spooled.write(data)
            if packed.used > limits.archive_bytes:
                raise ArchiveError(f"a zip archive of more than {limits.archive_bytes:,} bytes in a stream")
        budget = budget or Budget(limits, lambda: packed.used)
        yield from _zip_members(cast("BinaryIO", spooled), limits, budget, None)


class _Seekable:
    """A file for ``zipfile`` that refuses to read a directory of absurd size whole."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self._most = most
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable
        self.close = file.close

    def read(self, count: int = -1) -> bytes:
        if count > self._most:
            raise ArchiveError(f"its directory takes {count:,} bytes, more than {self._most:,}")
        return self._file.read(count)


def _zip_members(
    file: BinaryIO, limits: Limits, budget: Budget, progress: Callable[[int], None] | None
) -> Iterator[tuple[Member, Budget]]:
    try:
        archive = zipfile.ZipFile(cast("BinaryIO", _Seekable(file, limits.zip_directory_bytes)))
        entries = archive.infolist()
    except Exception as error:  # noqa: BLE001  hostile directories raise many kinds
        yield Member("", error=f"damaged zip archive: {error}"), budget
        return
    for number, entry in enumerate(entries):
        if number >= limits.archive_members:
            yield Member("", error=f"more than {limits.archive_members:,} members"), budget
            return
        if entry.is_dir():
            continue
        if entry.flag_bits & 1:
            yield Member(entry.filename, error="encrypted: keyassay reads no encrypted archives"), budget
            continue
        try:
            opened, stream = _opened(archive, entry)
        except Exception as error:  # noqa: BLE001  as above
            yield Member(entry.filename, error=f"damaged or not supported: {error}"), budget
            continue
        with opened:
            own = Budget(limits, partial(getattr, entry, "compress_size"), "")
            yield Member(entry.filename, _Expanded(stream, own, budget)), budget
        if progress is not None:
            progress(entry.compress_size)


def _opened(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[zipfile.ZipExtFile, Readable]:
    """What has to be closed, and the stream of a member.

    Of all methods ``zipfile`` bounds only the output of deflate.
    """
    if entry.compress_type == zipfile.ZIP_BZIP2:
        packed = copy(entry)
        packed.compress_type, packed.file_size, packed.CRC = zipfile.ZIP_STORED, entry.compress_size, None  # type: ignore[assignment]
        opened = cast("zipfile.ZipExtFile", archive.open(packed))
        return opened, _Decompressed(bz2.BZ2Decompressor, opened)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(f"compression method {entry.compress_type}")
    opened = cast("zipfile.ZipExtFile", archive.open(entry))
    return opened, opened


# tar


def _tar_sum(header: bytes) -> bool:
    """Whether a tar header's check sum is right (bytes as unsigned or, as some old programs had it, signed)."""
    try:
        said = _tar_number(header[148:156])
    except ValueError:
        return False
    rest = header[:148] + b" " * 8 + header[156:]
    return said in (sum(rest), sum(byte - (byte >> 7 << 8) for byte in rest)) and header[:1] != b"\0"


def _tar_number(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.replace(b"\0", b" ").split()
    if text and not text[0].isdigit():  # int() would take signs and underscores
        raise ValueError(text[0])
    return int(text[0], 8) if text else 0


class _TarFile:
    """The contents of one tar member."""

    def __init__(self, stream: Readable, size: int) -> None:
        self._stream = stream
        self.left = size
        self._truncated = False

    def read(self, count: int) -> bytes:
        data = self._stream.read(min(count, self.left)) if self.left else b""
        self.left -= len(data)
        if self._truncated or (not data and self.left and count):
            self.left, self._truncated = 0, True
            raise ArchiveError("truncated tar archive")
        return data


def _exactly(stream: Readable, count: int) -> bytes:
    parts = []
    while count > 0 and (data := stream.read(count)):
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


def _tar(stream: Readable, limits: Limits) -> Iterator[Member]:
    """Regular files of a tar archive (POSIX ustar and pax, GNU long names)."""
    name, size = "", -1
    number = 0
    while True:
        header = _exactly(stream, _BLOCK)
        if not header.strip(b"\0"):
            return
        if len(header) < _BLOCK or not _tar_sum(header):
            yield Member("", error="damaged tar archive: a header's check sum is wrong")
            return
        number += 1
        if number > limits.archive_members:
            yield Member("", error=f"more than {limits.archive_members:,} members")
            return
        try:
            here = _tar_number(header[124:136])
        except ValueError:
            yield Member("", error="damaged tar archive: a size is no number")
            return
        kind = header[156:157]
        extra = kind in (b"x", b"L")
        if size >= 0 and not extra:
            here = size
        contents = _TarFile(stream, here)
        padding = -here % _BLOCK
        if extra and here <= _NAME_BYTES:
            record = _exactly(contents, here)
            if kind == b"L":
                name = record.rstrip(b"\0").decode("utf-8", "surrogateescape")
            else:
                name, size = _pax(record, name, size)
        elif kind in (b"0", b"\0", b"7"):
            short = _tar_text(header[:100])
            prefix = _tar_text(header[345:500]) if header[257:263] == b"ustar\0" else ""
            yield Member(name or (f"{prefix}/{short}" if prefix else short), contents)
        elif kind == b"S":
            yield Member(name or _tar_text(header[:100]), error="a sparse file in a tar archive: not read")
        if not extra:
            name, size = "", -1
        while contents.left:
            contents.read(_PIECE)
        _exactly(stream, padding)


def _tar_text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _pax(record: bytes, name: str, size: int) -> tuple[str, int]:
    """Path and size from a pax header: lines of length, blank, key, =, value (POSIX.1-2001)."""
    at = 0
    while at < len(record):
        blank = record.find(b" ", at, at + 12)
        length = record[at : max(blank, at)]
        if not length.isdigit() or int(length) < 5 or at + int(length) > len(record):
            break
        key, _, value = record[blank + 1 : at + int(length) - 1].partition(b"=")
        if key == b"path":
            name = value.decode("utf-8", "surrogateescape")
        elif key == b"size" and value.isdigit() and len(value) < 20:
            size = int(value)
        at += int(length)
    return name, size
