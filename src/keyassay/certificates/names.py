"""Distinguished names as RFC 4514 strings, for reports; the checks compare names as DER bytes.

Control and bidirectional characters stay in the string: renderers escape them.
"""

from __future__ import annotations

from functools import lru_cache

from keyassay.certificates.der import OID, SEQUENCE, SET, DerError, expect, oid_text, tlv

_SHORT = {
    bytes.fromhex("550403"): "CN",
    bytes.fromhex("550407"): "L",
    bytes.fromhex("550408"): "ST",
    bytes.fromhex("55040a"): "O",
    bytes.fromhex("55040b"): "OU",
    bytes.fromhex("550406"): "C",
    bytes.fromhex("550409"): "STREET",
    bytes.fromhex("0992268993f22c640119"): "DC",
    bytes.fromhex("0992268993f22c640101"): "UID",
}
_ENCODINGS = {0x0C: "utf-8", 0x13: "latin-1", 0x16: "latin-1", 0x14: "latin-1", 0x12: "latin-1", 0x1A: "latin-1",
              0x1E: "utf-16-be", 0x1C: "utf-32-be"}  # fmt: skip
#: tags of strings that are decoded as ASCII if they are
_ASCII = frozenset((0x0C, 0x13, 0x16, 0x14, 0x12, 0x1A))
#: longer names are not kept: a cache must not grow with what an attacker sends
_CACHED_BYTES = 1024
_SPECIAL_OCTETS = b'\\"+,;<>=\0'
_SPECIAL = frozenset('\\"+,;<>=\0')


def _escape(value: str) -> str:
    if not value:
        return value
    first = "\\" if value[0] in "# " else ""
    last = value[-1] == " " and len(value) > 1
    if not _SPECIAL.isdisjoint(value):
        value = "".join(
            "\\00" if letter == "\0" else "\\" + letter if letter in '\\"+,;<>' else letter for letter in value
        )
    if last:
        value = value[:-1] + "\\ "
    return first + value


def rfc4514(der: bytes) -> str:
    """The name as a string, last attribute first; never raises.

    Args:
        der: DER of a Name (a SEQUENCE of SETs).

    Returns:
        RFC 4514 text; hex with a leading "#" for what cannot be decoded.
    """
    return _text(der) if len(der) <= _CACHED_BYTES else _general(der)


def rfc4514_once(der: bytes) -> str:
    """The same for names that hardly come twice, as subjects of devices: nothing is kept."""
    at, size = 2, len(der)
    if not 2 < size < 130 or der[0] != SEQUENCE or der[1] != size - 2:
        return _general(der)
    text = ""
    # sets of one attribute with short lengths and text of ASCII, which nearly all names consist of
    while at < size:
        if size - at < 11:
            return _general(der)
        whole, pair, identifier = der[at + 1], der[at + 3], der[at + 5]
        inner = at + 6 + identifier
        stop = at + 2 + whole
        if (
            stop > size
            or der[at] != SET
            or der[at + 2] != SEQUENCE
            or pair != whole - 2
            or der[at + 4] != OID
            or inner + 2 > stop
            or der[inner] not in _ASCII
            or der[inner + 1] != stop - inner - 2
        ):
            return _general(der)
        name = _SHORT.get(der[at + 6 : inner])
        value = der[inner + 2 : stop]
        if name is None or not value.isascii():
            return _general(der)
        if (
            value
            and value[0] not in b"# "
            and value[-1] != 32
            and len(value.translate(None, _SPECIAL_OCTETS)) == len(value)
        ):
            shown = value.decode()
        else:
            shown = _escape(value.decode())
        text = f"{name}={shown},{text}" if text else f"{name}={shown}"
        at = stop
    return text


@lru_cache(maxsize=8192)
def _text(der: bytes) -> str:
    return rfc4514_once(der)


def _general(der: bytes) -> str:
    if not der:
        return ""
    try:
        at, end = expect(der, 0, len(der), SEQUENCE, "name")
        parts = []
        while at < end:
            inside, stop = expect(der, at, end, SET, "relative name")
            values = []
            while inside < stop:
                start, after = expect(der, inside, stop, SEQUENCE, "attribute")
                first, last = expect(der, start, after, OID, "attribute type")
                contents = der[first:last]
                tag, begin, finish = tlv(der, last, after)
                encoding = _ENCODINGS.get(tag)
                name = _SHORT.get(contents) or oid_text(contents)
                try:
                    if encoding is None:
                        raise ValueError(tag)  # noqa: TRY301
                    text = _escape(der[begin:finish].decode(encoding))
                except ValueError:
                    text = "#" + der[last:after].hex()
                values.append(f"{name}={text}")
                inside = after
            parts.append("+".join(values))
            at = stop
        return ",".join(reversed(parts))
    except DerError:
        return "#" + der[:256].hex()
