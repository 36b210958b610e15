"""Finds certificates, requests and keys in whatever people have: files, folders, archives, text, key stores, servers.

The kind of an input is told by its content, never by its name. Everything is bounded (``limits``); what cannot be read
is a ``RawItem`` with a reason, and reading goes on. Each family of forms has a module of its own beside this one.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from keyassay.certificates import archives, keystores, network, textforms
from keyassay.certificates.decoding import sniff_der
from keyassay.certificates.item import RawItem
from keyassay.certificates.sources import ReadOptions, Source

__all__ = ["ReadOptions", "read", "read_bytes", "total_bytes"]

#: bytes read from a file at once
CHUNK = 4 << 20
#: what is added at most to something that is larger still
_GROWTH = 32 << 20
#: items of one block
BLOCK = 4096
#: bytes of one block, beyond which it is handed on with fewer items
BLOCK_BYTES = 64 << 20

#: a file met in a folder that holds nothing is worth a record only if its name says that it should; otherwise it is
#: passed over, and counted
_EXTENSIONS = frozenset(
    f".{name}"
    for group in ("pem crt cer der key pub csr req p7b p7c p7s p12 pfx", "jks keystore crl ocsp jwk jwks")
    for name in group.split()
)


def total_bytes(paths: Iterable[str]) -> int:
    """Bytes of the files behind the paths, for a progress bar; what cannot be looked at counts nothing."""
    total = 0
    for path in paths:
        if path != "-" and not path.startswith(network.SCHEMES):
            total += sum(info.st_size for _, info in _walk(path) if info is not None and stat.S_ISREG(info.st_mode))
    return total


def read(paths: Iterable[str], options: ReadOptions, standard_input: BinaryIO | None = None) -> Iterator[list[RawItem]]:
    """Read sources in order.

    Args:
        paths: files, folders, archives, ``-``, ``tls://host[:port]``, ``ssh://host[:port]``.
        options: bounds, passwords, callbacks.
        standard_input: what ``-`` reads; the process's own by default.

    Yields:
        Blocks of up to ``BLOCK`` raw items, small sources together.
    """
    return _blocks(found for path in paths for found in _path(path, options, standard_input))


def read_bytes(data: bytes, options: ReadOptions, source: str = "-") -> Iterator[list[RawItem]]:
    """Read bytes as if they were a file of that name."""
    return _blocks(_stream(io.BytesIO(data), source, options, explicit=True))


def read_encodings(encodings: Iterable[bytes], options: ReadOptions) -> Iterator[list[RawItem]]:
    """Read one source after another out of memory; they are called "0", "1", "2", ..."""
    return _blocks(found for number, data in enumerate(encodings) for found in _encoding(data, str(number), options))


def _encoding(data: bytes, name: str, options: ReadOptions) -> Iterator[list[RawItem]]:
    if data[:1] == b"\x30" and keystores.element_size(data, 0) == len(data):
        source = Source(name, options, strict=True)
        source.der(0, "", data)
        yield source.drain()
    else:
        yield from _stream(io.BytesIO(data), name, options, explicit=True)


def _blocks(found: Iterable[list[RawItem]]) -> Iterator[list[RawItem]]:
    """The same items in blocks of a useful size."""
    block: list[RawItem] = []
    size = 0
    for items in found:
        block.extend(items)
        size += sum(len(raw.data) for raw in items)
        if len(block) >= BLOCK:
            whole = len(block) - len(block) % BLOCK
            for at in range(0, whole, BLOCK):
                yield block[at : at + BLOCK]
            block = block[whole:]
            size = sum(len(raw.data) for raw in block)
        if size > BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _path(path: str, options: ReadOptions, standard_input: BinaryIO | None) -> Iterator[list[RawItem]]:
    if path == "-":
        stream = standard_input or (None if sys.stdin is None else sys.stdin.buffer)
        yield from _stream(stream or io.BytesIO(), "-", options, explicit=True)
        return
    if path.startswith(network.SCHEMES):
        source = Source(path, options, strict=True)
        try:
            for label, data in network.fetch(path, options.timeout):
                source.add(0, label, data)
        except network.NetworkError as error:
            source.problem(0, str(error))
        yield source.drain()
        return
    for name, info in _walk(path):
        explicit = name == path
        if info is None:
            yield _complaint(name, options, _reason(_stat_error(name)))
        elif stat.S_ISREG(info.st_mode) or (explicit and stat.S_ISFIFO(info.st_mode)):
            # a pipe is opened only if it was named, as by a shell's <(...)
            yield from _file(name, options, explicit=explicit)
        elif explicit:
            yield _complaint(name, options, "neither a file nor a folder")
        elif options.passed_over is not None:
            options.passed_over(name)


def _walk(path: str) -> Iterator[tuple[str, os.stat_result | None]]:
    """What is below a path, in sorted order: name and state, None where it cannot be looked at.

    Links are followed, but no folder is entered twice.
    """
    waiting = [path]
    entered: set[tuple[int, int]] = set()
    while waiting:
        name = waiting.pop()
        try:
            info = Path(name).stat()
            if not stat.S_ISDIR(info.st_mode):
                yield name, info
                continue
            if (info.st_dev, info.st_ino) in entered:
                continue
            entered.add((info.st_dev, info.st_ino))
            inside = sorted(os.listdir(name), reverse=True)
        except (OSError, ValueError):
            yield name, None
            continue
        folder = name.rstrip("/") if len(name) > 1 else name
        waiting.extend(f"{folder}/{one}" if folder != "/" else f"/{one}" for one in inside)


def _stat_error(name: str) -> Exception:
    """Why a file or folder cannot be looked at."""
    try:
        if stat.S_ISDIR(Path(name).stat().st_mode):
            os.listdir(name)
    except (OSError, ValueError) as error:
        return error
    return OSError("it has just changed")


def _reason(error: Exception) -> str:
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def _complaint(name: str, options: ReadOptions, reason: str) -> list[RawItem]:
    source = Source(name, options, strict=True)
    source.problem(0, reason)
    return source.drain()


def _file(path: str, options: ReadOptions, *, explicit: bool) -> Iterator[list[RawItem]]:
    try:
        file = Path(path).open("rb")  # noqa: SIM115  closed below; reading has handlers of its own
    except OSError as error:
        yield _complaint(path, options, _reason(error))
        return
    with file:
        yield from _stream(file, path, options, explicit=explicit)


def _stream(
    file: archives.Readable,
    name: str,
    options: ReadOptions,
    *,
    explicit: bool,
    depth: int = 0,
    budget: archives.Budget | None = None,
) -> Iterator[list[RawItem]]:
    """Items of one stream of bytes: look at its head, then choose the reader."""
    source = Source(name, options, strict=explicit or Path(name).suffix.lower() in _EXTENSIONS)
    progress = options.progress if depth == 0 else None
    kind, found, head, members = "", False, b"", False
    try:
        head = _read(file, CHUNK, progress)
        kind = archives.kind_of(head)
        if kind and depth >= options.limits.nesting:
            source.problem(0, f"archives are nested deeper than {options.limits.nesting}")
        elif kind:
            for items in _archive(kind, head, file, source, explicit, depth, budget):
                found, members = found or bool(items), True
                yield items
        else:
            for items in _plain(head, file, source, progress):
                found = found or bool(items)
                yield items
            _read(file, 1)  # what ended too early says so now
    except archives.ArchiveError as error:
        source.problem(source.place, str(error))
    except OSError as error:
        source.problem(source.place, _reason(error))
    source.close()
    if not found and not source.count:
        if source.strict:
            source.problem(0, _nothing(head))
        elif options.passed_over is not None and not members:
            options.passed_over(name)
    yield source.drain()


def _nothing(head: bytes) -> str:
    """Why nothing was found in a source that ought to hold something."""
    if not head:
        return "empty"
    foreign = archives.foreign_kind(head)
    if foreign:
        return f"an archive in the format {foreign}, which keyassay does not read: unpack it"
    return "no certificate, request or key found"


def _archive(
    kind: str,
    head: bytes,
    file: archives.Readable,
    source: Source,
    explicit: bool,
    depth: int,
    budget: archives.Budget | None,
) -> Iterator[list[RawItem]]:
    options = source.options
    progress = options.progress if depth == 0 else None
    for member, shared in archives.members(kind, head, file, options.limits, budget, progress):
        name = f"{source.name}!{member.name}" if member.name else source.name
        if member.stream is not None:
            inherited = explicit and not member.name
            yield from _stream(member.stream, name, options, explicit=inherited, depth=depth + 1, budget=shared)
        elif member.name:
            yield _complaint(name, options, member.error or "")
        else:
            source.problem(0, member.error or "")


def _read(file: archives.Readable, count: int, progress: object = None) -> bytes:
    """Up to ``count`` bytes, fewer only at the end, or before damage, which is told at the next call.

    Raises:
        ArchiveError: damage where nothing could be read.
    """
    parts: list[bytes] = []
    while count > 0:
        try:
            part = file.read(count)
        except archives.ArchiveError:
            if parts:
                break
            raise
        if not part:
            break
        parts.append(part)
        count -= len(part)
        if callable(progress):
            progress(len(part))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _rest(file: archives.Readable, count: int, progress: object) -> bytes:
    """The same where something has been read before: damage is told at the end."""
    try:
        return _read(file, count, progress)
    except archives.ArchiveError:
        return b""


def _plain(head: bytes, file: archives.Readable, source: Source, progress: object) -> Iterator[list[RawItem]]:
    """What is no archive."""
    most = source.limits.file_bytes
    letters = _letter_bytes(head)
    if _is_der(head):
        yield from _der(head, file, source, progress)
        return
    whole = bool(letters) or head[:4] in (keystores.JKS_MAGIC, keystores.JCEKS_MAGIC)
    as_json = not whole and textforms.reads_as_json(head)
    if whole or as_json:
        head += _rest(file, most + 1 - len(head), progress)
        if len(head) > most and whole:
            source.problem(0, f"more than the {most:,} bytes of a file that has to be read whole")
            return
    if letters:
        base = 2 if head[:2] in _BYTE_ORDER_MARKS else 0
        _whole_text(_narrowed(head[base:], letters), source)
        source.widen(base, 2)
    elif whole:
        source.parts(0, keystores.jks(head, source.options.passwords, source.limits))
    elif not (as_json and len(head) <= most and textforms.json_text(head, source, 0)):
        yield from _text(head, file, source, progress)


_BYTE_ORDER_MARKS = {b"\xff\xfe": "<u2", b"\xfe\xff": ">u2"}


def _letter_bytes(head: bytes) -> str:
    """The letters of UTF-16 as numpy calls them, by the byte order mark or by zeros beside ASCII; "" if it is none."""
    if head[:2] in _BYTE_ORDER_MARKS:
        return _BYTE_ORDER_MARKS[head[:2]]
    even, odd = head[:64:2], head[1:64:2]
    if len(head) >= 64:
        if not any(odd) and all(0 < byte < 128 for byte in even):
            return "<u2"
        if not any(even) and all(0 < byte < 128 for byte in odd):
            return ">u2"
    return ""


def _narrowed(data: bytes, letters: str) -> bytes:
    """UTF-16 as one byte a letter, so that places are kept; what is not Latin-1 becomes a question mark."""
    units = np.frombuffer(data[: len(data) // 2 * 2], dtype=letters)
    return np.where(units < 256, units, ord("?")).astype(np.uint8).tobytes()


def _whole_text(text: bytes, source: Source) -> None:
    """Text that is all here."""
    if not (textforms.reads_as_json(text) and textforms.json_text(text, source, 0)):
        textforms.TextReader(source).scan(text, last=True)
        if not source.count:
            textforms.bare_base64(text, source)


def _text(head: bytes, file: archives.Readable, source: Source, progress: object) -> Iterator[list[RawItem]]:
    """Text in chunks: what is complete is taken, the rest waits for the next chunk, twice as much each time."""
    reader = textforms.TextReader(source)
    if len(head) < CHUNK:
        try:
            _read(file, 1)
        except archives.ArchiveError:
            reader.scan(head, last=False)  # what the damage has cut is told by it
            raise
        _whole_text(head, source)
        return
    buffer = head
    whole = False
    while not whole:
        taken = reader.scan(buffer, last=False)
        source.place = reader.base
        yield source.drain()
        buffer = buffer[taken:]
        more = _read(file, max(CHUNK, min(len(buffer), _GROWTH)), progress)
        whole = not more
        buffer += more
    reader.scan(buffer, last=True)


def _is_der(head: bytes) -> bool:
    """Whether this is DER rather than text that begins with the digit 0 (0x30 too)."""
    if head[:1] != b"\x30" or len(head) < 2:
        return False
    if head[1] >= 0x80:
        return head[1] <= 0x84
    size = keystores.element_size(head, 0)
    return size is not None and bool(sniff_der(head[:size]) or keystores.container_of(head[:size], ""))


def _der(buffer: bytes, file: archives.Readable, source: Source, progress: object) -> Iterator[list[RawItem]]:
    """DER structures one after another."""
    most = source.limits.file_bytes
    if buffer[1] == 0x80:
        buffer += _rest(file, most + 1 - len(buffer), progress)
        if len(buffer) <= most and keystores.container_of(buffer, ""):
            source.der(0, "", buffer)
        else:
            source.problem(0, "BER with indefinite lengths: not read; convert it to DER or PEM")
        return
    base = at = 0
    ended = len(buffer) < CHUNK
    while True:
        size = keystores.element_size(buffer, at)
        if size is not None and size <= most:
            source.der(base + at, "", buffer[at : at + size])
            at += size
            while buffer[at : at + 1] in _LINE_ENDS:
                at += 1
        elif not ended and len(buffer) - at <= most:
            source.place = base + at
            yield source.drain()
            buffer, base, at = buffer[at:], base + at, 0
            more = _read(file, max(CHUNK, min(len(buffer), _GROWTH)), progress)
            ended = not more
            buffer += more
        else:
            break
    if size is not None or len(buffer) - at > most:
        source.problem(base + at, f"a structure of more than {most:,} bytes; what follows it was not read")
    elif base + at == 0:
        source.problem(0, "not DER, or truncated: no complete structure starts here")
    elif buffer[at:].strip(b"\0\r\n\t "):
        source.problem(base + at, "bytes that are no DER structure follow")


_LINE_ENDS = (b"\r", b"\n")
