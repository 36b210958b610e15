"""Archives and compressed files, member by member, bounded in number, size and expansion.

A bomb costs what the limits allow, gives one unreadable record, and reading goes on behind it where the format permits.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from keyassay.certificates.limits import Limits

_DAMAGE = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)


class ArchiveError(Exception):
    """A member could not be read to its end; the text says why."""


@dataclass(frozen=True)
class Member:
    """One member: a name ("" for a compressed file that is no archive) and its stream, or an error."""

    name: str
    stream: BinaryIO | None = None
    error: str | None = None


class _Bounded(io.RawIOBase):
    """A stream that stops with ``ArchiveError`` when it has given more than it may."""

    def __init__(self, stream: BinaryIO, budget: list[int], most: int) -> None:
        self._stream = stream
        self._budget = budget
        self._left = most

    def read(self, count: int = -1) -> bytes:
        if count < 0:
            count = 1 << 20
        try:
            data = self._stream.read(min(count, 1 << 22))
        except (*_DAMAGE, RuntimeError, NotImplementedError) as error:
            raise ArchiveError(f"damaged or not supported: {error}") from error
        self._left -= len(data)
        self._budget[0] -= len(data)
        if self._left < 0 or self._budget[0] < 0:
            raise ArchiveError("expands to more than the limits allow")
        return data


def rejoin(head: bytes, file: BinaryIO) -> BinaryIO:
    """A stream whose beginning has been read already, whole again; seekable if the file is."""
    if file.seekable():
        file.seek(-len(head), io.SEEK_CUR)
        return file
    return cast("BinaryIO", io.BufferedReader(_Joined(head, file)))


class _Joined(io.RawIOBase):
    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head = head
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._head[: len(view)] if self._head else self._file.read(len(view))
        if self._head:
            self._head = self._head[len(data) :]
        view[: len(data)] = data
        return len(data)


def kind_of(head: bytes) -> str:
    """zip, tar, gzip, bzip2 or xz by content; "" for anything else."""
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:3] == b"BZh" and head[4:10] == b"1AY&SY":
        return "bzip2"
    if head[:6] == b"\xfd7zXZ\x00":
        return "xz"
    return "tar" if head[257:262] == b"ustar" else ""


def members(kind: str, stream: BinaryIO, limits: Limits) -> Iterator[Member]:
    """Members in order; the stream of one is valid until the next is asked for."""
    budget = [limits.archive_bytes]
    if kind == "zip":
        yield from _zip(stream, limits, budget)
    elif kind == "tar":
        yield from _tar(stream, limits, budget)
    else:
        opened: BinaryIO
        if kind == "gzip":
            opened = cast("BinaryIO", gzip.GzipFile(fileobj=stream))
        elif kind == "bzip2":
            opened = cast("BinaryIO", bz2.BZ2File(stream))
        else:
            opened = cast("BinaryIO", lzma.LZMAFile(stream))
        yield Member("", cast("BinaryIO", _Ratio(opened, stream, budget, limits)))


class _Ratio(_Bounded):
    """A decompressed stream that may not expand beyond the ratio, the first mebibyte aside."""

    def __init__(self, stream: BinaryIO, packed: BinaryIO, budget: list[int], limits: Limits) -> None:
        super().__init__(stream, budget, limits.archive_bytes)
        self._packed = packed
        self._ratio = limits.archive_ratio
        self._given = 0

    def read(self, count: int = -1) -> bytes:
        data = super().read(count)
        self._given += len(data)
        try:
            used = self._packed.tell()
        except OSError:
            used = 0
        if self._given > (8 << 20) and used and self._given > self._ratio * used:
            raise ArchiveError(f"expands more than {self._ratio} times")
        return data


def _zip(stream: BinaryIO, limits: Limits, budget: list[int]) -> Iterator[Member]:
    if not stream.seekable():
        spooled = tempfile.SpooledTemporaryFile(max_size=16 << 20)
        while data := stream.read(1 << 20):
            spooled.write(data)
            budget[0] -= len(data)
            if budget[0] < 0:
                yield Member("", error="larger than the limits allow")
                return
        spooled.seek(0)
        stream = cast("BinaryIO", spooled)
    try:
        archive = zipfile.ZipFile(stream)
        entries = archive.infolist()
    except _DAMAGE as error:
        yield Member("", error=f"damaged zip archive: {error}")
        return
    for number, entry in enumerate(entries):
        if number >= limits.archive_members:
            yield Member("", error=f"more than {limits.archive_members:,} members")
            return
        if entry.is_dir():
            continue
        if entry.flag_bits & 1:
            yield Member(entry.filename, error="encrypted zip member")
            continue
        most = max(1 << 20, entry.compress_size * limits.archive_ratio)
        if entry.file_size > most:
            yield Member(entry.filename, error=f"expands more than {limits.archive_ratio} times")
            continue
        try:
            opened = archive.open(entry)
        except (*_DAMAGE, RuntimeError, NotImplementedError) as error:
            yield Member(entry.filename, error=f"damaged or not supported: {error}")
            continue
        with opened:
            yield Member(entry.filename, cast("BinaryIO", _Bounded(cast("BinaryIO", opened), budget, most)))


def _tar(stream: BinaryIO, limits: Limits, budget: list[int]) -> Iterator[Member]:
    try:
        archive = tarfile.open(fileobj=stream, mode="r|")
        number = 0
        for entry in archive:
            number += 1
            if number > limits.archive_members:
                yield Member("", error=f"more than {limits.archive_members:,} members")
                return
            if not entry.isreg():
                continue
            opened = archive.extractfile(entry)
            assert opened is not None
            yield Member(entry.name, cast("BinaryIO", _Bounded(cast("BinaryIO", opened), budget, entry.size)))
    except _DAMAGE as error:
        yield Member("", error=f"damaged tar archive: {error}")
    except ArchiveError as error:
        yield Member("", error=str(error))
