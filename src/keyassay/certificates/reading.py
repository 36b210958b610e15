"""Finds certificates, requests and keys in whatever people have: files, folders, archives, text, key stores, servers.

The kind of an input is told by its content, never by its name. Everything is bounded (``limits``); what cannot be read
is a ``RawItem`` with a reason, and reading goes on. ``archives``, ``keystores`` and ``network`` hold the containers.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from keyassay.certificates import archives, keystores, network
from keyassay.certificates.decoding import sniff_der
from keyassay.certificates.item import RawItem
from keyassay.certificates.limits import DEFAULT_LIMITS, Limits

#: what is read from a file at once; larger than any item
CHUNK = 4 << 20
#: items of one block
BLOCK = 4096

_LOOKS_LIKE_OURS = frozenset(
    [
        ".pem",
        ".crt",
        ".cer",
        ".der",
        ".key",
        ".pub",
        ".csr",
        ".req",
        ".p7b",
        ".p7c",
        ".p12",
        ".pfx",
        ".jks",
        ".keystore",
        ".crl",
        ".ocsp",
        ".jwk",
        ".jwks",
    ]
)
_BEGIN = b"-----BEGIN "
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 #.]{1,64})-----([A-Za-z0-9+/=\s]*)-----END ([A-Z0-9 #.]{1,64})-----")
_SSH_LINE = re.compile(
    rb"(?:^|[\s,\"])((?:sk-)?(?:ssh|ecdsa-sha2|rsa-sha2)-[a-z0-9@.\-]{1,60}) +(AAAA[A-Za-z0-9+/]+={0,2})"
)
_BASE64_LINE = re.compile(rb"\s*(M[A-Za-z0-9+/]{60,}={0,2})\s*")


@dataclass(frozen=True)
class ReadOptions:
    """How to read.

    Attributes:
        limits: bounds.
        passwords: tried on PKCS #12, JKS and encrypted private keys.
        timeout: seconds for each network source.
        progress: called with numbers of bytes read.
        passed_over: called with paths of files in folders that hold nothing of ours.
    """

    limits: Limits = DEFAULT_LIMITS
    passwords: tuple[bytes, ...] = ()
    timeout: float = 10.0
    progress: Callable[[int], None] | None = None
    passed_over: Callable[[str], None] | None = None


class _Source:
    """One source: numbers its items, keeps unreadable ones from flooding the report."""

    def __init__(self, name: str, options: ReadOptions) -> None:
        self.name = name
        self.options = options
        self.count = 0
        self.unreadable = 0
        self.last_offset = 0

    def item(self, offset: int, label: str, data: bytes, notice: str | None = None) -> RawItem:
        raw = RawItem(self.name, self.count, offset, label, data, None, notice)
        self.count += 1
        return raw

    def problem(self, offset: int, reason: str) -> Iterator[RawItem]:
        self.unreadable += 1
        self.last_offset = offset
        if self.unreadable <= self.options.limits.unreadable_per_source:
            yield RawItem(self.name, self.count, offset, "", b"", reason)
            self.count += 1

    def rest(self) -> Iterator[RawItem]:
        more = self.unreadable - self.options.limits.unreadable_per_source
        if more > 0:
            reason = f"{more:,} more unreadable items in this source, the last at byte {self.last_offset:,}"
            yield RawItem(self.name, self.count, self.last_offset, "", b"", reason)
            self.count += 1


def total_bytes(paths: Iterable[str]) -> int:
    """Bytes of the files behind the paths, for a progress bar; what cannot be looked at counts nothing."""
    total = 0
    for path in paths:
        if path == "-" or "://" in path:
            continue
        try:
            if os.path.isdir(path):
                for folder, _, names in os.walk(path):
                    for name in names:
                        try:
                            total += os.lstat(os.path.join(folder, name)).st_size
                        except OSError:
                            continue
            else:
                total += os.stat(path).st_size
        except OSError:
            continue
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
    return _blocks(raw for path in paths for raw in _path(path, options, standard_input))


def read_bytes(data: bytes, options: ReadOptions, source: str = "-") -> Iterator[list[RawItem]]:
    """Read bytes as if they were a file of that name."""
    return _blocks(_stream(io.BytesIO(data), source, options, 0))


def _blocks(items: Iterable[RawItem]) -> Iterator[list[RawItem]]:
    block: list[RawItem] = []
    size = 0
    for raw in items:
        block.append(raw)
        size += len(raw.data)
        if len(block) >= BLOCK or size > 64 << 20:
            yield block
            block, size = [], 0
    if block:
        yield block


def _path(path: str, options: ReadOptions, standard_input: BinaryIO | None) -> Iterator[RawItem]:
    if path == "-":
        import sys  # noqa: PLC0415  only this source needs it

        yield from _stream(standard_input or sys.stdin.buffer, "-", options, 0)
    elif path.startswith(("tls://", "ssh://")):
        source = _Source(path, options)
        try:
            for label, data in network.fetch(path, options.timeout):
                yield source.item(0, label, data)
        except network.NetworkError as error:
            yield from source.problem(0, str(error))
    else:
        yield from _file_or_folder(path, options)


def _file_or_folder(path: str, options: ReadOptions) -> Iterator[RawItem]:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        yield from _Source(path, options).problem(0, _reason(error))
        return
    if stat.S_ISDIR(mode):
        yield from _folder(path, options)
    elif stat.S_ISREG(mode):
        yield from _file(path, options, explicit=True)
    elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        # named on the command line on purpose, as by a shell's <(...)
        yield from _file(path, options, explicit=True)
    else:
        yield from _Source(path, options).problem(0, "neither a file nor a folder")


def _folder(path: str, options: ReadOptions) -> Iterator[RawItem]:
    """Regular files below a folder, sorted; links to folders are not followed, devices and pipes not opened."""
    problems: list[tuple[str, str]] = []

    def note(error: OSError) -> None:
        problems.append((str(error.filename), _reason(error)))

    for folder, folders, names in os.walk(path, onerror=note):
        folders.sort()
        for name in sorted(names):
            inside = os.path.join(folder, name)
            try:
                regular = stat.S_ISREG(os.stat(inside).st_mode)
            except OSError as error:
                yield from _Source(inside, options).problem(0, _reason(error))
                continue
            if regular:
                yield from _file(inside, options, explicit=False)
            elif options.passed_over is not None:
                options.passed_over(inside)
        while problems:
            where, reason = problems.pop()
            yield from _Source(where, options).problem(0, reason)
    while problems:
        where, reason = problems.pop()
        yield from _Source(where, options).problem(0, reason)


def _reason(error: Exception) -> str:
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def _file(path: str, options: ReadOptions, *, explicit: bool) -> Iterator[RawItem]:
    try:
        with open(path, "rb") as file:
            yield from _stream(file, path, options, 0, explicit=explicit)
    except OSError as error:
        yield from _Source(path, options).problem(0, _reason(error))


def _stream(file: BinaryIO, name: str, options: ReadOptions, depth: int, *, explicit: bool = True) -> Iterator[RawItem]:
    """Items of one stream of bytes: look at its head, then choose the reader."""
    source = _Source(name, options)
    head = _read(file, CHUNK, options)
    kind = archives.kind_of(head)
    if kind and depth < options.limits.nesting:
        yield from _archive(kind, head, file, source, depth)
        return
    if kind:
        yield from source.problem(0, f"archives are nested deeper than {options.limits.nesting}")
        return
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        yield from _utf16(head, file, source)
    elif head[:1] == b"\x30" or head[:4] in (keystores.JKS_MAGIC, keystores.JCEKS_MAGIC):
        data = _whole(head, file, options)
        if data is None:
            yield from source.problem(0, f"larger than the {options.limits.file_bytes:,} bytes that are read whole")
            return
        yield from _binary(data, source, 0)
    else:
        yield from _text(head, file, source)
    yield from source.rest()
    if not source.count:
        extension = os.path.splitext(name)[1].lower()
        if explicit or extension in _LOOKS_LIKE_OURS:
            reason = "empty" if not head else "no certificate, request or key found"
            yield from source.problem(0, reason)
        elif options.passed_over is not None:
            options.passed_over(name)


def _read(file: BinaryIO, count: int, options: ReadOptions) -> bytes:
    """Up to ``count`` bytes, fewer only at the end."""
    parts = []
    while count > 0:
        part = file.read(count)
        if not part:
            break
        parts.append(part)
        count -= len(part)
        if options.progress is not None:
            options.progress(len(part))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _whole(head: bytes, file: BinaryIO, options: ReadOptions) -> bytes | None:
    """The rest of a file that has to be read whole; None if it is larger than the limit."""
    most = options.limits.file_bytes
    rest = _read(file, most + 1 - len(head), options) if len(head) <= most else b""
    return None if len(head) + len(rest) > most else head + rest


def _utf16(head: bytes, file: BinaryIO, source: _Source) -> Iterator[RawItem]:
    data = _whole(head, file, source.options)
    if data is None:
        yield from source.problem(0, f"UTF-16 text larger than {source.options.limits.file_bytes:,} bytes")
        return
    text = data.decode("utf-16", "replace").encode("utf-8", "replace")
    yield from _text(text, io.BytesIO(), source)


# Archives


def _archive(kind: str, head: bytes, file: BinaryIO, source: _Source, depth: int) -> Iterator[RawItem]:
    options = source.options
    stream = archives.rejoin(head, file)
    for member in archives.members(kind, stream, options.limits):
        name = f"{source.name}!{member.name}" if member.name else source.name
        if member.error is not None:
            yield from _Source(name, options).problem(0, member.error)
            continue
        assert member.stream is not None
        quiet = ReadOptions(options.limits, options.passwords, options.timeout, None, options.passed_over)
        try:
            yield from _stream(member.stream, name, quiet, depth + 1, explicit=not member.name)
        except archives.ArchiveError as error:
            yield from _Source(name, options).problem(0, str(error))


# Binary: DER one after another, PKCS #7, PKCS #12, JKS


def _binary(data: bytes, source: _Source, offset: int) -> Iterator[RawItem]:
    options = source.options
    if data[:4] in (keystores.JKS_MAGIC, keystores.JCEKS_MAGIC):
        yield from _unpacked(keystores.jks(data, options.passwords, options.limits), source, offset)
        return
    at = 0
    while at < len(data):
        size = keystores.element_size(data, at)
        if size is None:
            if at == 0 or data[at:].strip(b"\0\r\n\t "):
                yield from source.problem(offset + at, "not DER: no complete structure starts here")
            return
        yield from _der(data[at : at + size], "", source, offset + at)
        at += size
        while at < len(data) and data[at] in b"\r\n":
            at += 1


def _der(data: bytes, label: str, source: _Source, offset: int, notice: str | None = None) -> Iterator[RawItem]:
    """One DER structure: unwrapped where it is a container or a private key, else passed on."""
    options = source.options
    container = keystores.container_of(data, label)
    if container:
        yield from _unpacked(keystores.unpack(container, data, options.passwords, options.limits), source, offset)
    else:
        yield source.item(offset, label or sniff_der(data), data, notice)


def _unpacked(parts: Iterable[keystores.Part], source: _Source, offset: int) -> Iterator[RawItem]:
    for part in parts:
        if part.error is not None:
            yield from source.problem(offset, part.error)
        else:
            yield source.item(offset, part.label, part.data, part.notice)


# Text: PEM, JSON, OpenSSH, bare base64 lines


def _text(head: bytes, file: BinaryIO, source: _Source) -> Iterator[RawItem]:
    """Text in chunks: what is complete is taken, the rest waits for the next chunk."""
    options = source.options
    limit = max(options.limits.revocation_bytes * 3 // 2, CHUNK)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        data = _whole(head, file, options)
        if data is not None:
            found = list(_json_document(data, source))
            if found:
                yield from found
                return
            head, file = data, io.BytesIO()
    base, buffer, last = 0, head, False
    while True:
        more = _read(file, CHUNK, options) if len(buffer) >= CHUNK or base or not last else b""
        last = not more
        taken = 0
        for raw, end in _pieces(buffer, base, source, last=last):
            if raw is not None:
                yield raw
            taken = end
        if last:
            return
        if not taken and len(buffer) > limit:
            yield from source.problem(base, "something begins here and does not end")
            taken = len(buffer)
        base += taken
        buffer = buffer[taken:] + more


def _pieces(buffer: bytes, base: int, source: _Source, *, last: bool) -> Iterator[tuple[RawItem | None, int]]:
    """Items of a buffer with the place up to which it has been dealt with.

    What may go on in the next chunk is left alone unless this is the last one.
    """
    at = 0
    while True:
        begin = buffer.find(_BEGIN, at)
        stretch = begin if begin >= 0 else len(buffer)
        if begin < 0 and not last:
            # keep the last line, which may be incomplete, or a marker cut in two
            stretch = buffer.rfind(b"\n", at) + 1 or at
            if stretch == at and len(buffer) - at > source.options.limits.line_bytes:
                stretch = len(buffer) - len(_BEGIN)
        if stretch > at:
            for raw in _lines(buffer, at, stretch, base, source):
                yield raw, at
            yield None, stretch
        if begin < 0:
            return
        match = _PEM.match(buffer, begin)
        if match is not None:
            label, body, closing = match.groups()
            if label == closing:
                try:
                    data = binascii.a2b_base64(body)
                except binascii.Error as error:
                    for raw in source.problem(base + begin, f"bad base64 between the PEM markers: {error}"):
                        yield raw, begin
                else:
                    for raw in _pem(data, label.decode(), source, base + begin):
                        yield raw, begin
            else:
                reason = f"BEGIN {label.decode()} ends with END {closing.decode()}"
                for raw in source.problem(base + begin, reason):
                    yield raw, begin
            at = match.end()
            yield None, at
            continue
        # no plain block: a header (Proc-Type), quoting (JSON, indentation), damage, or not all here yet
        following = buffer.find(_BEGIN, begin + len(_BEGIN))
        end = buffer.find(b"-----END ", begin, following if following >= 0 else len(buffer))
        if following >= 0 > end:
            for raw in source.problem(base + begin, "BEGIN without END"):
                yield raw, begin
            at = following
            yield None, at
            continue
        closing_dashes = buffer.find(b"-----", end + 9) if end >= 0 else -1
        if end < 0 or closing_dashes < 0:
            if not last:
                return
            for raw in source.problem(base + begin, "BEGIN without END"):
                yield raw, begin
            yield None, len(buffer)
            return
        at = closing_dashes + 5
        for raw in _odd_pem(buffer[begin:at], source, base + begin):
            yield raw, begin
        yield None, at


def _pem(data: bytes, label: str, source: _Source, offset: int) -> Iterator[RawItem]:
    if label == "CERTIFICATE":
        yield source.item(offset, label, data)
    elif label in ("EC PARAMETERS", "DH PARAMETERS", "X9.42 DH PARAMETERS", "DSA PARAMETERS"):
        return  # domain parameters beside a key: no key of their own
    else:
        yield from _der(data, label, source, offset)


def _odd_pem(block: bytes, source: _Source, offset: int) -> Iterator[RawItem]:
    """A PEM block with headers, escapes (JSON), or prefixes on its lines (quoted mail, comments)."""
    text = block.replace(b"\\r", b"").replace(b"\\n", b"\n").replace(b"\\/", b"/").replace(b"\r", b"")
    match = re.match(rb"-----BEGIN ([A-Z0-9 #.]{1,64})-----", text)
    closing = re.search(rb"-----END ([A-Z0-9 #.]{1,64})-----$", text)
    if match is None or closing is None or match.group(1) != closing.group(1):
        yield from source.problem(offset, "damaged PEM markers")
        return
    label = match.group(1).decode()
    lines = text[match.end() : closing.start()].split(b"\n")
    encrypted = any(line.startswith(b"Proc-Type:") and b"ENCRYPTED" in line for line in lines)
    if encrypted:
        part = keystores.encrypted_pem(text, source.options.passwords)
        yield from _unpacked([part], source, offset)
        return
    if any(b":" in line for line in lines):
        lines = [line for line in lines if b":" not in line]
    body = b"".join(line.strip(b" \t>|#*-;") for line in lines)
    try:
        data = base64.b64decode(body, validate=True)
    except binascii.Error as error:
        yield from source.problem(offset, f"bad base64 between the PEM markers: {error}")
        return
    yield from _pem(data, label, source, offset)


def _lines(buffer: bytes, start: int, stop: int, base: int, source: _Source) -> Iterator[RawItem]:
    """Items on lines outside PEM blocks: OpenSSH keys, bare base64, JSON."""
    text = buffer[start:stop] if stop - start < len(buffer) else buffer
    has_ssh, has_json = b" AAAA" in text, b"{" in text
    has_base64 = b"MI" in text
    if not (has_ssh or has_json or has_base64 or b"---- BEGIN SSH2" in text):
        return
    limit = source.options.limits.line_bytes
    at = 0
    if b"---- BEGIN SSH2 PUBLIC KEY ----" in text:
        yield from _ssh2(text, base + start, source)
    for line in text.splitlines(keepends=True):
        offset = base + start + at
        at += len(line)
        if len(line) > limit:
            yield from source.problem(offset, f"a line of {len(line):,} bytes is longer than {limit:,}; passed over")
            continue
        stripped = line.lstrip()
        if stripped[:1] in (b"{", b"["):
            yield from _json_line(stripped, source, offset)
        elif has_ssh and not stripped.startswith(b"#") and (match := _SSH_LINE.search(line)):
            try:
                data = base64.b64decode(match.group(2), validate=True)
            except binascii.Error as error:
                yield from source.problem(offset, f"bad base64 in an OpenSSH key: {error}")
                continue
            yield source.item(offset, "openssh", data)
        elif has_base64 and (match := _BASE64_LINE.fullmatch(line)):
            try:
                data = base64.b64decode(match.group(1), validate=True)
            except binascii.Error:
                continue
            if keystores.element_size(data, 0) == len(data):
                yield from _der(data, "", source, offset)


def _ssh2(text: bytes, base: int, source: _Source) -> Iterator[RawItem]:
    """RFC 4716 public key files."""
    pattern = rb"---- BEGIN SSH2 PUBLIC KEY ----(.{1,65536}?)---- END SSH2 PUBLIC KEY ----"
    for match in re.finditer(pattern, text, re.DOTALL):
        body = re.sub(rb"(?m)^[^\n:]+:(?:[^\n]*\\\r?\n)*[^\n]*$", b"", match.group(1))
        try:
            data = base64.b64decode(b"".join(body.split()), validate=True)
        except binascii.Error as error:
            yield from source.problem(base + match.start(), f"bad base64 in an SSH2 key: {error}")
            continue
        yield source.item(base + match.start(), "openssh", data)


# JSON


def _too_deep(data: bytes, most: int) -> bool:
    """Whether JSON nests deeper than allowed, told from brackets alone (those inside strings count too)."""
    if data.count(b"[") + data.count(b"{") <= most:
        return False
    depth = 0
    for letter in re.findall(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', data):
        if letter in (b"[", b"{"):
            depth += 1
            if depth > most:
                return True
        elif letter in (b"]", b"}"):
            depth -= 1
    return False


def _json_document(data: bytes, source: _Source) -> Iterator[RawItem]:
    """Items of one JSON document; nothing if the text is not one (it may be JSON Lines, or PEM in brackets)."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if _too_deep(data, source.options.limits.nesting):
        if b"\n{" not in data:
            yield from source.problem(0, f"JSON nested deeper than {source.options.limits.nesting}")
        return
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    yield from _json_value(document, source, 0)


def _json_line(line: bytes, source: _Source, offset: int) -> Iterator[RawItem]:
    if _too_deep(line, source.options.limits.nesting):
        yield from source.problem(offset, f"JSON nested deeper than {source.options.limits.nesting}")
        return
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return
    yield from _json_value(value, source, offset)


def _json_value(value: Any, source: _Source, offset: int) -> Iterator[RawItem]:
    """PEM in any string, JWKs by their kty, certificates in x5c."""
    if isinstance(value, str):
        if "-----BEGIN " in value:
            for raw, _ in _pieces(value.encode("utf-8", "replace"), 0, source, last=True):
                if raw is not None:
                    yield raw._replace(offset=offset)
        elif len(value) > 60 and " AAAA" in value[:100] and (match := _SSH_LINE.search(value.encode())):
            yield source.item(offset, "openssh", base64.b64decode(match.group(2) + b"=="))
    elif isinstance(value, list):
        for one in value:
            yield from _json_value(one, source, offset)
    elif isinstance(value, dict):
        if isinstance(value.get("kty"), str):
            public = {name: one for name, one in value.items() if name in ("kty", "crv", "n", "e", "x", "y")}
            notice = "private key: only its public part was read" if "d" in value else None
            yield source.item(offset, "jwk", json.dumps(public).encode(), notice)
            chain = value.get("x5c")
            for one in chain if isinstance(chain, list) else []:
                try:
                    yield source.item(offset, "CERTIFICATE", base64.b64decode(str(one), validate=True))
                except (binascii.Error, ValueError) as error:
                    yield from source.problem(offset, f"bad base64 in x5c: {error}")
            return
        for one in value.values():
            yield from _json_value(one, source, offset)
