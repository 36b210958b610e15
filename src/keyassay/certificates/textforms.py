"""Keys and certificates in text: PEM, JSON and JWK, OpenSSH and RFC 4716 keys, DER as base64 on lines or in cells.

``TextReader`` is fed a buffer at a time and says how far it got; where the buffers end makes no difference to what it
finds. PEM blocks go through one regular expression and one base64 call; only what that refuses is looked at twice.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from keyassay.certificates import keystores
from keyassay.certificates.decoding import sniff_der
from keyassay.certificates.item import RawItem
from keyassay.certificates.sources import Source

_BEGIN, _END = b"-----BEGIN ", b"-----END "
_BEGIN_TEXT = _BEGIN.decode()
_CERTIFICATE, _CERTIFICATE_END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
_HEAD = len(_CERTIFICATE)
_LABEL = rb"([A-Z0-9 #./]{1,64})"
_PEM = re.compile(rb"-----BEGIN " + _LABEL + rb"-----([A-Za-z0-9+/=\s]*+)-----END " + _LABEL + rb"-----")
_OPENING, _CLOSING = re.compile(rb"-----BEGIN " + _LABEL + rb"-----"), re.compile(rb"-----END " + _LABEL + rb"-----$")
#: what may stand before base64 on a line that is quoted or commented out (no letter of base64, such as "/" and "+")
_QUOTE = re.compile(rb"^[\s>|#*;:\"'-]+(?=[A-Za-z0-9+/=])")
_ESCAPED = re.compile(rb"\\u00([0-9A-Fa-f]{2})")
_SSH_LINE = re.compile(
    rb"(?:^|[\s,\"'])((?:sk-)?(?:ssh|ecdsa-sha2)-[a-z0-9@.\-]{1,60})[ \t]++(AAAA[A-Za-z0-9+/]++={0,2})"
)
#: DER starts with 0x30, which makes the first letter M and the second one of A to P
_BASE64_DER = re.compile(rb"M(?<![A-Za-z0-9+/=_-]M)[A-P][A-Za-z0-9+/]{38,}+={0,2}(?![A-Za-z0-9+/=_-])")
_SSH2_BEGIN, _SSH2_END = b"---- BEGIN SSH2 PUBLIC KEY ----", b"---- END SSH2 PUBLIC KEY ----"
_SSH2_BYTES = 65_536
#: a line that says it holds an OpenSSH key
_SSH_START = re.compile(rb"(?:sk-)?(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-nistp)[a-z0-9@.\-]{0,60}[ \t]")
#: what may be as long as a revocation list; all else is one item
_LONG_LABELS = (b"X509 CRL", b"CRL", b"OCSP RESPONSE", b"PKCS7", b"CMS", b"PKCS #7 SIGNED DATA", b"PKCS12")
#: parameters beside a key: no key of their own
_NO_KEYS = frozenset(["EC PARAMETERS", "DH PARAMETERS", "X9.42 DH PARAMETERS", "DSA PARAMETERS"])
#: values of a JSON document that is taken apart; PEM in larger ones is still found as text
_JSON_VALUES = 1_000_000
_JSON_START = (b"{", b"[")
_JWK_PUBLIC = ("kty", "crv", "n", "e", "x", "y")
#: numbers are of no interest here, and some take quadratic time to convert
_JSON = json.JSONDecoder(parse_int=len, parse_float=len)
#: a line that begins as a JSON object and does not end as one
_CUT_JSON = re.compile(rb"^[ \t]*\{(?:[^\n]*[^}\s])?[ \t\r]*$", re.MULTILINE)
_NOT_JSON = "a line that is not JSON among lines of JSON"
_SPACE = re.compile(r"[ \t\r\n]*")


#: bytes before BEGIN that may be a prefix of the block's lines
_PREFIX = 64
#: what makes lines outside PEM blocks worth a look, beside base64 of DER
_SIGNS = (b"AAAA", b'"kty"', b'"x5c"', _SSH2_BEGIN, _END, b"ssh-", b"ecdsa-sha2-")


#: bytes of text that are split into lines at once
_PIECE = 1 << 20


def _next_sign(text: bytes, at: int, places: list[int]) -> int:
    """Where something begins that is worth a closer look, from a place on; the length of the text if nowhere.

    Args:
        text: lines outside PEM blocks.
        at: where to look from.
        places: where each sign was found last, -1 at first: kept between calls, so that all of them take linear time.
    """
    for number, sign in enumerate(_SIGNS):
        if places[number] < at:
            found = text.find(sign, at)
            places[number] = len(text) if found < 0 else found
    if places[-1] < at:
        match = _BASE64_DER.search(text, at)
        places[-1] = len(text) if match is None else match.start()
    return min(places)


def reads_as_json(head: bytes) -> bool:
    """Whether text begins as a JSON object or array does."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in _JSON_START


class TextReader:
    """Finds items in text that comes in buffers.

    Args:
        source: where they go.
        base: byte offset of the first buffer within the source.
    """

    def __init__(self, source: Source, base: int = 0) -> None:
        self.source = source
        self.base = base
        # the longest blocks, in base64 with line ends
        self._most = source.limits.item_bytes * 3 // 2
        self._most_long = source.limits.revocation_bytes * 3 // 2
        self._in_long_line = False
        self._long_at = -1
        self._end_expected = False
        self._kept_prefix = b""
        # forms met that hold one thing a line: a line that is damaged then stands for something that is lost
        self._row_forms: set[str] = set()
        self._long = re.compile(rb"[^\n]{%d,}" % (source.limits.line_bytes + 1))
        self._most_rows = source.limits.unreadable_per_source
        self._damaged_rows: list[tuple[int, str, str]] = []
        self._ssh2: bytearray | None = None
        self._ssh2_offset = 0

    def scan(self, buffer: bytes, *, last: bool) -> int:
        """Take what is complete.

        Args:
            buffer: from where the last call stopped.
            last: nothing follows.

        Returns:
            How many bytes have been dealt with; the caller repeats the others with more behind them.
        """
        taken = self._scan(buffer, last=last)
        self.base += taken
        if last:
            if self._ssh2 is not None:
                self.source.problem(self._ssh2_offset, "BEGIN without END")
                self._ssh2 = None
            self._line_ends()
        return taken

    def _scan(self, buffer: bytes, *, last: bool) -> int:
        source, base = self.source, self.base
        find, starts, add = buffer.find, buffer.startswith, source.add
        plain_pem, decode = _PEM.match, binascii.a2b_base64
        at, end = 0, -2
        while True:
            begin = find(_BEGIN, at)
            if begin < 0:
                return self._tail(buffer, at, last=last)
            if begin - at > 2:
                line = buffer.rfind(b"\n", at, begin) + 1 or at
                if buffer[line : line + 1] in _JSON_START and not (self._in_long_line and line == at):
                    self._between(buffer, at, line)
                    at = line
                    stop = find(b"\n", begin, line + source.limits.line_bytes)
                    if stop < 0 and not last and len(buffer) - line < source.limits.line_bytes:
                        return at
                    stop = len(buffer) if stop < 0 else stop
                    if stop - line > source.limits.line_bytes:
                        self._long_line(base + line)
                        at = begin
                    elif json_text(buffer[line:stop], source, base + line):
                        if starts(b"{", line):
                            self._row("json", base + line, "")
                        at = stop
                        continue
                    elif starts(b"{", line):
                        at = begin
                self._between(buffer, at, begin)
            elif begin > at and (self._in_long_line or self._ssh2 is not None):
                self._between(buffer, at, begin)
            at = begin
            if starts(_CERTIFICATE, begin):
                # the common case: nothing but base64 of one structure that is as long as it says
                stop = find(b"-----", begin + _HEAD)
                if starts(_CERTIFICATE_END, stop):
                    try:
                        data = decode(buffer[begin + _HEAD : stop])
                    except binascii.Error:
                        data = b""
                    if len(data) > 3 and data[:2] == b"\x30\x82" and (data[2] << 8 | data[3]) + 4 == len(data):
                        add(base + begin, "CERTIFICATE", data)
                        if self._in_long_line:
                            self._line_ends()
                        at = stop + _HEAD - 2
                        continue
            match = plain_pem(buffer, begin)
            if match is not None:
                label, body, closing = match.groups()
                self._line_ends()
                if match.end() - begin > self._most and match.end() - begin > self._longest(label):
                    at = self._too_long(begin, label)
                    continue
                at = match.end()
                if label != closing:
                    source.problem(base + begin, f"BEGIN {label.decode()} ends with END {closing.decode()}")
                    continue
                if not begin or buffer[begin - 1] != 10:
                    prefix = self._prefix(buffer, begin)
                    if prefix and not prefix.strip(b"+/"):
                        self._odd_pem(match.group(), base + begin, prefix)
                        continue
                try:
                    data = decode(body)
                except binascii.Error as error:
                    source.problem(base + begin, f"bad base64 between the PEM markers: {error}")
                    continue
                if label == b"CERTIFICATE" and data:
                    add(base + begin, "CERTIFICATE", data)
                else:
                    _leaf(data, label.decode(), source, base + begin)
                continue
            # a header (Proc-Type), quoting (JSON, indentation), damage, or not all here yet
            if -1 != end < begin:
                end = find(_END, begin)
            following = find(_BEGIN, begin + len(_BEGIN), end if end >= 0 else len(buffer))
            reach = following if following >= 0 else end if end >= 0 else len(buffer)
            opening = _OPENING.match(buffer, begin)
            label = opening.group(1) if opening else b""
            if reach - begin > self._longest(label):
                at = self._too_long(begin, label)
                self._line_ends()
                continue
            if following >= 0 or end < 0:
                if following < 0 and not last:
                    return self._wait(buffer, begin)
                if opening:
                    source.problem(base + begin, "BEGIN without END")
                else:
                    source.doubt(base + begin, "damaged PEM markers")
                self._line_ends()
                at = begin + len(_BEGIN)
                continue
            closing_at = find(b"-----", end + len(_END), end + len(_END) + 70)
            if closing_at < 0:
                if not last and len(buffer) < end + len(_END) + 70:
                    return self._wait(buffer, begin)
                source.doubt(base + begin, "damaged PEM markers")
                at = end + len(_END)
            else:
                at = closing_at + 5
                self._odd_pem(buffer[begin:at], base + begin, self._prefix(buffer, begin))
            self._line_ends()

    def _prefix(self, buffer: bytes, begin: int) -> bytes:
        """What stands before BEGIN on its line, if it is short enough to stand before the other lines too."""
        if not begin:
            return self._kept_prefix
        line = max(buffer.rfind(b"\n", max(0, begin - _PREFIX), begin) + 1, begin - _PREFIX, 0)
        return buffer[line:begin].strip()

    def _wait(self, buffer: bytes, begin: int) -> int:
        """Go on at a BEGIN when more is there, without forgetting what stood before it."""
        self._kept_prefix = self._prefix(buffer, begin)
        return begin

    def _tail(self, buffer: bytes, at: int, *, last: bool) -> int:
        """What follows the last marker: whole lines are taken, an unfinished one waits for the rest."""
        if last:
            self._between(buffer, at, len(buffer))
            return len(buffer)
        newline = buffer.rfind(b"\n", at) + 1
        if newline:
            self._between(buffer, at, newline)
            at = newline
        if len(buffer) - at <= self.source.limits.line_bytes:
            return at
        if not self._in_long_line:
            self._long_at = self.base + at
        self._in_long_line = True
        return len(buffer) - len(_BEGIN)

    def _longest(self, label: bytes) -> int:
        """Bytes that a PEM block with this label may take."""
        return self._most_long if label in _LONG_LABELS else self._most

    def _too_long(self, begin: int, label: bytes) -> int:
        """Report a block that is longer than it may be, or has no end; returns where to go on."""
        self.source.problem(self.base + begin, f"no END within the {self._longest(label):,} bytes that it may take")
        self._end_expected = True
        return begin + len(_BEGIN)

    def _line_ends(self) -> None:
        """Report the long line that has come to its end, if there was one."""
        self._in_long_line = False
        if self._long_at >= 0:
            self._long_line(self._long_at)
            self._long_at = -1

    def _long_line(self, offset: int) -> None:
        most = self.source.limits.line_bytes
        self.source.doubt(offset, f"a line of more than {most:,} bytes; only PEM is looked for in it")

    def _row(self, form: str, offset: int, damage: str) -> None:
        """A line in a form that has one thing a line, sound or (``damage``) not.

        What looks like a damaged line may be anything, until there are sound ones around it.
        """
        if not damage and form not in self._row_forms:
            self._row_forms.add(form)
            for place, kind, reason in self._damaged_rows:
                if kind == form:
                    self.source.problem(place, reason)
            self._damaged_rows = [one for one in self._damaged_rows if one[1] != form]
        elif damage and form in self._row_forms:
            self.source.problem(offset, damage)
        elif damage and len(self._damaged_rows) < self._most_rows:
            self._damaged_rows.append((offset, form, damage))

    def _between(self, buffer: bytes, start: int, stop: int) -> None:
        """Lines outside PEM blocks, a piece at a time: split into lines they take several times their size."""
        while stop - start > _PIECE:
            cut = buffer.rfind(b"\n", start, start + _PIECE) + 1 or buffer.find(b"\n", start, stop) + 1 or stop
            self._lines(buffer, start, cut)
            start = cut
        self._lines(buffer, start, stop)

    def _lines(self, buffer: bytes, start: int, stop: int) -> None:
        text = buffer[start:stop]
        offset = self.base + start
        at = 0
        if self._in_long_line:
            at = text.find(b"\n") + 1
            if not at:
                return
            self._line_ends()
        places = [-1] * (len(_SIGNS) + 1)
        while at < len(text):
            if self._ssh2 is not None:
                stop = text.find(b"\n", at)
                stop = len(text) if stop < 0 else stop
                self._ssh2_line(text[at:stop].strip())
            else:
                sign = _next_sign(text, at, places)
                line = (text.rfind(b"\n", at, sign) + 1 or at) if sign < len(text) else len(text)
                self._plain_lines(text, at, line, offset)
                stop = text.find(b"\n", sign)
                stop = len(text) if stop < 0 else stop
                if stop - line > self.source.limits.line_bytes:
                    self._long_line(offset + line)
                elif line < stop:
                    self._line(text[line:stop], offset + line)
            at = stop + 1

    def _plain_lines(self, text: bytes, start: int, stop: int, offset: int) -> None:
        """Lines without a sign of anything: only their form is looked at."""
        if stop - start > self.source.limits.line_bytes:
            for match in self._long.finditer(text, start, stop):
                self._long_line(offset + match.start())
        if ("json" in self._row_forms or len(self._damaged_rows) < self._most_rows) and text.find(
            b"{", start, stop
        ) >= 0:
            for match in _CUT_JSON.finditer(text, start, stop):
                self._row("json", offset + match.start(), _NOT_JSON)

    def _line(self, line: bytes, offset: int) -> None:
        source = self.source
        stripped = line.strip()
        if stripped == _SSH2_BEGIN:
            self._ssh2, self._ssh2_offset = bytearray(), offset
            return
        if stripped[:1] in _JSON_START:
            sound = json_text(stripped, source, offset)
            if stripped[:1] == b"{":
                self._row("json", offset, "" if sound else _NOT_JSON)
            if sound:
                return
        if stripped[:1] != b"#":
            if b"AAAA" in line and (match := _SSH_LINE.search(line)):
                _ssh_key(match.group(2), source, offset)
                return
            if _SSH_START.match(stripped):
                source.doubt(offset, "an OpenSSH key whose base64 is damaged")
                return
        if _END in line:
            if not self._end_expected:
                source.doubt(offset + line.find(_END), "END without BEGIN")
            self._end_expected = False
        for match in _BASE64_DER.finditer(line):
            place = offset + match.start()
            sound = _base64_der(match.group(), source, place)
            self._row("base64", place, "" if sound else "base64 that is no whole structure of ours")

    def _ssh2_line(self, line: bytes) -> None:
        """A line of an RFC 4716 block; headers may go on over lines that end with a backslash."""
        block = self._ssh2
        assert block is not None
        if line != _SSH2_END:
            block += line + b"\n"
            if len(block) > _SSH2_BYTES:
                self.source.problem(self._ssh2_offset, "BEGIN without END")
                self._ssh2 = None
            return
        self._ssh2 = None
        body, header = bytearray(), False
        for one in bytes(block).split(b"\n"):
            if header or b":" in one:
                header = one.endswith(b"\\")
            else:
                body += one
        _ssh_key(bytes(body), self.source, self._ssh2_offset)

    def _odd_pem(self, block: bytes, offset: int, prefix: bytes) -> None:
        """A PEM block with headers, escapes (JSON), or prefixes on its lines (quoted mail, comments).

        Args:
            block: from BEGIN to the end of END.
            offset: its place.
            prefix: what stands before BEGIN on its line; where the following lines have it too it is no base64.
        """
        source = self.source
        text = _ESCAPED.sub(lambda found: bytes([int(found.group(1), 16)]), block) if b"\\u00" in block else block
        text = re.sub(rb"\\++n", b"\n", re.sub(rb"\\++r|\r", b"", text)).replace(b"\\/", b"/")
        opening, closing = _OPENING.match(text), _CLOSING.search(text)
        if opening is None or closing is None or opening.group(1) != closing.group(1):
            source.doubt(offset, "damaged PEM markers")
            return
        label = opening.group(1).decode()
        lines = text[opening.end() : closing.start()].split(b"\n")
        if prefix and all(line.lstrip().startswith(prefix) for line in lines[1:]):
            lines = [lines[0], *(line.lstrip()[len(prefix) :] for line in lines[1:])]
        lines = [_QUOTE.sub(b"", line).strip(b" \t\"',;\\") for line in lines]
        if any(line.startswith(b"Proc-Type:") and b"ENCRYPTED" in line for line in lines):
            joined = b"\n".join([opening.group(), *lines[1:-1], closing.group(), b""])
            source.parts(offset, [keystores.encrypted_pem(joined, source.options.passwords)])
            return
        if label.startswith("PGP "):
            source.problem(offset, "an OpenPGP block: not assessed")
            return
        body = b"".join(b"".join(line.split()) for line in lines if b":" not in line)
        try:
            data = base64.b64decode(body, validate=True)
        except binascii.Error as error:
            source.problem(offset, f"bad base64 between the PEM markers: {error}")
            return
        _leaf(data, label, source, offset)


def _leaf(data: bytes, label: str, source: Source, offset: int) -> None:
    if label in _NO_KEYS:
        return
    if not data:
        source.problem(offset, f"nothing between BEGIN {label} and END")
    else:
        source.der(offset, label, data)


def _ssh_key(text: bytes, source: Source, offset: int) -> None:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        source.problem(offset, f"bad base64 in an SSH key: {error}")
    else:
        source.add(offset, "openssh", data)


def _base64_der(text: bytes, source: Source, offset: int) -> bool:
    """An item if the text is base64 of exactly one DER structure that we know; whether it was."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    if keystores.element_size(data, 0) != len(data) or not (sniff_der(data) or keystores.container_of(data, "")):
        return False
    source.der(offset, "", data)
    return True


def bare_base64(data: bytes, source: Source) -> None:
    """A file that is nothing but the folded base64 of one DER structure."""
    folded = data.removeprefix(b"\xef\xbb\xbf").strip()
    if re.fullmatch(rb"M[A-P][A-Za-z0-9+/\s]{38,}+[=\s]*", folded):
        _base64_der(b"".join(folded.split()), source, 0)


# JSON


def json_text(data: bytes, source: Source, offset: int) -> bool:
    """Items of text that is one or more JSON documents, one after another.

    Args:
        data: the text; read as Latin-1, so that places in it are byte offsets (what we look for is ASCII).
        source: where the items go.
        offset: byte offset of the text.

    Returns:
        Whether all of it was JSON; if not, nothing has been added.
    """
    if data.count(b",") + data.count(b"[") + data.count(b"{") > _JSON_VALUES:
        return False
    text = data.decode("latin-1")
    at = 3 if text.startswith("\xef\xbb\xbf") else 0
    documents: list[tuple[int, int, Any]] = []
    deep: list[int] = []
    while True:
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches the empty string too
        if at >= len(text):
            break
        try:
            value, stop = _JSON.raw_decode(text, at)
        except ValueError:
            return False
        except RecursionError:
            # no way to its end but that of lines of JSON
            deep.append(at)
            at = text.find("\n", at) + 1 or len(text)
            continue
        documents.append((at, stop, value))
        at = stop
    for start, stop, value in documents:
        _Document(data, start, stop, source, offset).take(value)
    for start in deep:
        source.problem(offset + start, f"JSON nested deeper than {source.limits.nesting}")
    return True


def _jwk_primes(key: dict[str, Any]) -> tuple[int, ...]:
    """P and q of an RSA private key (RFC 7518, 6.3.2); () if they are not there."""
    try:
        texts = [key[name].rstrip("=") for name in ("p", "q")]
        octets = [base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) for text in texts]
    except (KeyError, AttributeError, ValueError):
        return ()
    return int.from_bytes(octets[0], "big"), int.from_bytes(octets[1], "big")


class _Document:
    """One JSON document: PEM in any string, JWKs by their kty, certificates in x5c, OpenSSH keys, base64 DER."""

    def __init__(self, data: bytes, start: int, stop: int, source: Source, offset: int) -> None:
        self._data = data
        self._marker = start
        self._stop = stop
        self._source = source
        self._shift = offset
        self._offset = offset + start

    def take(self, value: Any, depth: int = 0) -> None:
        source = self._source
        if isinstance(value, str):
            if len(value) > 40 or value.startswith(_BEGIN_TEXT):
                self._string(value)
        elif depth > source.limits.nesting:
            if value and isinstance(value, list | dict):
                source.problem(self._offset, f"JSON nested deeper than {source.limits.nesting}")
        elif isinstance(value, list):
            for one in value:
                self.take(one, depth + 1)
        elif isinstance(value, dict):
            is_key = isinstance(value.get("kty"), str)
            if "kty" in value and not is_key:
                source.problem(self._offset, "JWK: member 'kty' is no string")
            if is_key:
                public = {name: value[name] for name in _JWK_PUBLIC if name in value}
                notice = keystores.PRIVATE_NOTICE if "d" in value or "k" in value else None
                if notice:
                    source.private(_jwk_primes(value))
                source.add(self._offset, "jwk", json.dumps(public).encode(), notice)
            for name, one in value.items():
                if name == "x5c" and isinstance(one, list):
                    for certificate in one:
                        self._certificate(certificate)
                elif not is_key:
                    self.take(one, depth + 1)

    def _certificate(self, value: Any) -> None:
        try:
            data = base64.b64decode("".join(str(value).split()), validate=True)
        except ValueError as error:
            self._source.problem(self._offset, f"bad base64 in x5c: {error}")
        else:
            self._source.add(self._offset, "CERTIFICATE", data)

    def _string(self, value: str) -> None:
        source = self._source
        octets = value.encode("latin-1", "replace")
        if _BEGIN in octets:
            before = len(source.items)
            TextReader(source, self._offset).scan(octets, last=True)
            source.items[before:] = [self._placed(raw) for raw in source.items[before:]]
        elif b"AAAA" in octets and (match := _SSH_LINE.search(octets)):
            _ssh_key(match.group(2), source, self._offset)
        elif octets[:1] == b"M" and (match := _BASE64_DER.fullmatch(octets.strip())):
            _base64_der(match.group(), source, self._offset)

    def _placed(self, raw: RawItem) -> RawItem:
        """The item at the next PEM marker of the raw text."""
        marker = self._data.find(_BEGIN, self._marker, self._stop)
        if marker < 0:
            return raw._replace(offset=self._offset)
        self._marker = marker + len(_BEGIN)
        return raw._replace(offset=self._shift + marker)
