"""From encodings to items: a strict parser as a gate, and our own bounded walk for the numbers.

``decode`` never raises; whatever it cannot read becomes an unreadable item with a reason. What the strict parser
refuses but the walk can read is assessed, with a notice. Names, validity and signatures are cut out at first use.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from cryptography import x509
from numpy.typing import NDArray

from keyassay.certificates import spki
from keyassay.certificates.columns import (
    ALGORITHM_END,
    EXPONENT,
    EXPONENT_END,
    KEY_BITS,
    MODULUS,
    MODULUS_END,
    CertificateColumns,
    walk,
)
from keyassay.certificates.der import (
    BIT_STRING,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    DerError,
    children,
    element,
    expect,
    oid_element,
    oid_text,
    time_seconds,
    tlv,
)
from keyassay.certificates.item import Item, Kind, RawItem, SignedFields, unreadable
from keyassay.certificates.limits import DEFAULT_LIMITS, Limits
from keyassay.certificates.public_key import (
    DsaPublicKey,
    EcPublicKey,
    OkpPublicKey,
    PublicKey,
    RsaPublicKey,
    UnsupportedPublicKey,
)

_load = x509.load_der_x509_certificate

#: where the parts of a certificate lie: (tbs, serial, issuer, validity, subject, spki, end of tbs) as offsets
_Spans = Sequence[int]


def _item(
    raw: RawItem,
    kind: Kind,
    der: bytes | None,
    spki_der: bytes | None = None,
    key: PublicKey | None = None,
    notices: Sequence[str] = (),
) -> Item:
    return Item(raw.source, raw.position, raw.offset, kind, der, spki_der, key, None, tuple(notices))


def _certificate_spans(data: bytes) -> _Spans:
    """Offsets of a certificate's parts (RFC 5280, 4.1).

    Returns:
        (tbs element, tbs end, serial start, serial end, issuer element, issuer end, validity start, validity end,
        subject end, spki contents, spki end); the subject's element starts where validity ends, the spki's where the
        subject ends.
    """
    end = len(data)
    start, stop = expect(data, 0, end, SEQUENCE, "certificate")
    tbs, tbs_end = expect(data, start, stop, SEQUENCE, "certificate body")
    at = tbs
    if at < tbs_end and data[at] == 0xA0:
        at = tlv(data, at, tbs_end)[2]
    serial, serial_end = expect(data, at, tbs_end, INTEGER, "serial number")
    _, at = expect(data, serial_end, tbs_end, SEQUENCE, "signature algorithm")
    _, issuer_end = expect(data, at, tbs_end, SEQUENCE, "issuer")
    validity, validity_end = expect(data, issuer_end, tbs_end, SEQUENCE, "validity")
    _, subject_end = expect(data, validity_end, tbs_end, SEQUENCE, "subject")
    key, key_end = expect(data, subject_end, tbs_end, SEQUENCE, "subject public key info")
    return (start, tbs_end, serial, serial_end, at, issuer_end, validity, validity_end, subject_end, key, key_end, stop)


def _certificate(raw: RawItem, data: bytes) -> Item:
    notices: list[str] = []
    refused = ""
    try:
        _load(data)
    except Exception as error:  # noqa: BLE001  the parser raises several kinds for hostile input
        refused = " ".join(str(error).split())[:200] or type(error).__name__
    spans = _certificate_spans(data)
    key = spki.parse(data, spans[9], spans[10], notices)
    if data[spans[2]] & 128:
        notices.append("the serial number is negative")
    if refused:
        notices.append(f"the strict parser refuses it ({refused}); the key was read by a bounded walk")
    if spans[11] != len(data):
        notices.append("bytes follow the certificate")
        data = data[: spans[11]]
    item = _item(raw, Kind.CERTIFICATE, data, data[spans[8] : spans[10]], key)
    item.__dict__["_spans"] = spans
    if notices:
        item.notices = tuple(notices)
    return item


def _request(raw: RawItem, data: bytes) -> Item:
    start, stop = expect(data, 0, len(data), SEQUENCE, "request")
    info, info_end = expect(data, start, stop, SEQUENCE, "request body")
    _, at = expect(data, info, info_end, INTEGER, "version")
    _, at = expect(data, at, info_end, SEQUENCE, "subject")
    key_at = at
    key, key_end = expect(data, at, info_end, SEQUENCE, "subject public key info")
    notices: list[str] = []
    found = spki.parse(data, key, key_end, notices)
    return Item(
        raw.source,
        raw.position,
        raw.offset,
        Kind.REQUEST,
        data[:stop],
        data[key_at:key_end],
        found,
        None,
        tuple(notices),
    )


def _public_key(raw: RawItem, data: bytes) -> Item:
    start, stop = expect(data, 0, len(data), SEQUENCE, "public key")
    notices: list[str] = []
    key = spki.parse(data, start, stop, notices)
    if stop != len(data):
        notices.append("bytes follow the key")
    return _item(raw, Kind.PUBLIC_KEY, data[:stop], data[:stop], key, notices)


def _pkcs1(raw: RawItem, data: bytes) -> Item:
    notices: list[str] = []
    key = spki.rsa_numbers(data, 0, len(data), notices)
    return _item(raw, Kind.PUBLIC_KEY, data, spki.encode(key), key, notices)


def _crl(raw: RawItem, data: bytes) -> Item:
    start, stop = expect(data, 0, len(data), SEQUENCE, "CRL")
    expect(data, start, stop, SEQUENCE, "CRL body")
    item = _item(raw, Kind.CRL, data[:stop])
    if item.signed is None:
        raise DerError("the CRL is malformed")
    return item


def _ocsp(raw: RawItem, data: bytes) -> Item:
    item = _item(raw, Kind.OCSP_RESPONSE, data)
    if item.signed is None:
        raise DerError("the OCSP response holds no basic response")
    return item


def sniff_der(data: bytes) -> str:
    """The PEM label that fits a DER structure, by its shape; "" if none does."""
    try:
        start, stop = expect(data, 0, len(data), SEQUENCE, "")
        parts = children(data, start, stop, most=12)
        tags = [part[0] for part in parts]
        if tags == [SEQUENCE, SEQUENCE, BIT_STRING]:
            inner = [part[0] for part in children(data, parts[0][2], parts[0][3], most=1_000_000)[:8]]
            if inner[:1] == [0xA0] or inner[:6] == [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE]:
                return "CERTIFICATE"
            if inner[:3] == [INTEGER, SEQUENCE, SEQUENCE] and inner[3:4] in ([0xA0], []):
                return "CERTIFICATE REQUEST"
            return "X509 CRL"
        if tags == [SEQUENCE, BIT_STRING]:
            return "PUBLIC KEY"
        if tags == [INTEGER, INTEGER]:
            return "RSA PUBLIC KEY"
        if tags[:1] == [0x0A]:
            return "OCSP RESPONSE"
    except DerError:
        pass
    return ""


_SSH_CURVES = {b"nistp256": "P-256", b"nistp384": "P-384", b"nistp521": "P-521"}


def _openssh(raw: RawItem, data: bytes) -> Item:
    size = int.from_bytes(data[:4], "big")
    name = data[4 : 4 + size].decode("ascii", "replace")
    parts = _openssh_parts(name, data)
    notices: list[str] = []
    key: PublicKey
    if name.startswith("ssh-rsa"):
        e, n = (_mpint(part, what, notices) for part, what in zip(parts, ("exponent", "modulus"), strict=True))
        key = RsaPublicKey(n, e)
    elif name.startswith("ssh-dss"):
        key = DsaPublicKey(*(_mpint(part, "DSA number", notices) for part in parts))
    elif "ecdsa-sha2-" in name:
        key = _openssh_ec(parts[0], parts[1])
    elif "ssh-ed25519" in name:
        key = OkpPublicKey("ed25519", parts[0])
    elif "ssh-ed448" in name:
        key = OkpPublicKey("ed448", parts[0])
    else:
        key = UnsupportedPublicKey("ssh", name[:64], f"not assessed: no check knows {name[:64]} keys")
    return _item(raw, Kind.PUBLIC_KEY, None, _encode(key), key, notices)


def _mpint(octets: bytes, what: str, notices: list[str]) -> int:
    """A number of RFC 4251, 5, without its sign, as in DER."""
    if octets[:1] >= b"\x80":
        notices.append(spki.NEGATIVE.format(what))
    return int.from_bytes(octets, "big")


def _openssh_ec(curve: bytes, point: bytes) -> PublicKey:
    """A key on a curve named as in RFC 5656: by a NIST name, or else by its dotted OID."""
    name = curve.decode("ascii", "replace")[:64]
    if curve in _SSH_CURVES:
        return EcPublicKey(_SSH_CURVES[curve], point)
    if name in spki.CURVE_NAMES:
        return EcPublicKey(spki.CURVE_NAMES[name], point)
    return UnsupportedPublicKey("ssh", "ecdsa", f"not assessed: no check knows the curve {name!r}")


def _openssh_parts(name: str, data: bytes) -> list[bytes]:
    """The key's own strings; certificates put a nonce before them and much after them."""
    at = 4 + len(name)
    wanted = {"ssh-rsa": 2, "ssh-dss": 4}.get(name.split("-cert-", maxsplit=1)[0], 2 if "ecdsa" in name else 1)
    if "-cert-v" in name:
        wanted += 1
    found = []
    for _ in range(wanted):
        if at + 4 > len(data):
            raise DerError("truncated SSH key")
        (length,) = struct.unpack_from(">I", data, at)
        at += 4
        if at + length > len(data):
            raise DerError("truncated SSH key")
        found.append(data[at : at + length])
        at += length
    return found[1:] if "-cert-v" in name else found


def _encode(key: PublicKey) -> bytes | None:
    try:
        return spki.encode(key)
    except (ValueError, StopIteration):
        return None


_JWK_CURVES = {"P-256": 32, "P-384": 48, "P-521": 66, "secp256k1": 32}


def _base64url(table: dict[str, Any], name: str) -> bytes:
    value = table.get(name)
    if not isinstance(value, str):
        raise DerError(f"JWK: member {name!r} is missing or no string")
    bare = value.rstrip("=")
    try:
        # some write the ordinary alphabet; anything else is damage, which must not become another number
        return base64.b64decode(bare.replace("-", "+").replace("_", "/") + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise DerError(f"JWK: member {name!r} is not base64url") from None


def _jwk(raw: RawItem, data: bytes) -> Item:
    try:
        table = json.loads(data)
    except (ValueError, RecursionError):
        raise DerError("JWK: not JSON") from None
    if not isinstance(table, dict):
        raise DerError("JWK: not an object")
    kind, curve = (str(table.get(name))[:40] for name in ("kty", "crv"))
    key: PublicKey
    if kind == "RSA":
        key = RsaPublicKey(*(int.from_bytes(_base64url(table, name), "big") for name in ("n", "e")))
    elif kind == "EC" and curve in _JWK_CURVES:
        size = _JWK_CURVES[curve]
        coordinates = [_base64url(table, name) for name in ("x", "y")]
        if any(len(one) > size for one in coordinates):
            raise DerError("JWK: a coordinate is too long for the curve")
        key = EcPublicKey(curve, b"\x04" + b"".join(one.rjust(size, b"\0") for one in coordinates))
    elif kind == "OKP" and curve.lower() in ("ed25519", "ed448", "x25519", "x448"):
        key = OkpPublicKey(curve.lower(), _base64url(table, "x"))
    elif kind == "oct":
        key = UnsupportedPublicKey("oct", "symmetric", "not assessed: a symmetric key")
    elif kind in ("EC", "OKP"):
        key = UnsupportedPublicKey("jwk", kind, f"not assessed: no check knows the curve {curve!r}")
    else:
        key = UnsupportedPublicKey("jwk", kind, f"not assessed: no check knows keys of the type {kind!r}")
    notices = ("a private key: only its public part was read",) if "d" in table else ()
    return _item(raw, Kind.PUBLIC_KEY, None, _encode(key), key, notices)


_DECODERS: dict[str, Callable[[RawItem, bytes], Item]] = {
    "CERTIFICATE": _certificate,
    "CERTIFICATE REQUEST": _request,
    "PUBLIC KEY": _public_key,
    "RSA PUBLIC KEY": _pkcs1,
    "X509 CRL": _crl,
    "OCSP RESPONSE": _ocsp,
    "openssh": _openssh,
    "jwk": _jwk,
}
_ALIASES = {
    "X509 CERTIFICATE": "CERTIFICATE",
    "TRUSTED CERTIFICATE": "CERTIFICATE",
    "NEW CERTIFICATE REQUEST": "CERTIFICATE REQUEST",
    "CRL": "X509 CRL",
}


def _one(raw: RawItem, limits: Limits) -> Item:
    if raw.error is not None:
        return unreadable(raw, raw.error)
    data = raw.data
    label = _ALIASES.get(raw.label, raw.label)
    most = limits.revocation_bytes if label in ("X509 CRL", "OCSP RESPONSE", "") else limits.item_bytes
    if len(data) > most:
        return unreadable(raw, f"{len(data):,} bytes are more than the {most:,} that one item may have")
    notices: tuple[str, ...] = () if raw.notice is None else (raw.notice,)
    decoder = _DECODERS.get(label)
    problem = ""
    if decoder is not None:
        try:
            item = decoder(raw, data)
        except (DerError, ValueError, IndexError, struct.error) as error:
            problem = str(error)
        else:
            return _finished(item, notices)
    other = sniff_der(data)
    if other and other != label:
        try:
            item = _DECODERS[other](raw, data)
        except (DerError, ValueError, IndexError) as error:
            problem = problem or str(error)
        else:
            if label:
                notices = (*notices, f"labelled {raw.label}, but it is a {other.lower()}")
            return _finished(item, notices)
    return unreadable(raw, problem or f"unknown structure{f' labelled {raw.label}' if raw.label else ''}")


def _finished(item: Item, notices: tuple[str, ...]) -> Item:
    if notices:
        item.notices = (*item.notices, *notices)
        if item.kind is Kind.PUBLIC_KEY and any(notice.startswith("private key") for notice in notices):
            item.kind = Kind.PRIVATE_KEY
    if isinstance(item.key, UnsupportedPublicKey):
        item.error = item.key.reason
    return item


class ItemBlock(list[Item]):
    """Items that were decoded together, with the columns of their certificates; row by row the same as the items."""

    columns: CertificateColumns | None = None


#: fewer items than this are decoded one by one
_BLOCK = 16


def decode(raw: Sequence[RawItem], limits: Limits = DEFAULT_LIMITS) -> ItemBlock:
    """Items for raw items, one for one, in order; never raises."""
    if len(raw) < _BLOCK:
        return ItemBlock([_decode_one(one, limits) for one in raw])
    most = limits.item_bytes
    encodings = [
        one.data if one.label == "CERTIFICATE" and one.error is None and one.notice is None and len(one.data) <= most
        else b""
        for one in raw
    ]  # fmt: skip
    columns = walk(encodings)
    algorithms = _algorithms()
    items = ItemBlock()
    items.columns = columns
    add, integer_of, certificate = items.append, int.from_bytes, Kind.CERTIFICATE
    # what a dataclass's constructor does takes twice as long as this, for the millions of them
    new: Callable[[Any], Any] = object.__new__
    rows = zip(raw, columns.spans.tolist(), columns.sound.tolist(), columns.rsa.tolist(), strict=True)
    for one, spans, sound, is_rsa in rows:
        key: PublicKey | None = None
        data = one.data
        if sound:
            kind, name = algorithms.get(data[spans[9] : spans[ALGORITHM_END]], _OTHER)
            if kind == "rsa":
                if is_rsa:
                    key = new(RsaPublicKey)
                    key.__dict__.update(
                        modulus=integer_of(data[spans[MODULUS] : spans[MODULUS_END]], "big"),
                        exponent=integer_of(data[spans[EXPONENT] : spans[EXPONENT_END]], "big"),
                    )
            elif kind == "ec":
                key = new(EcPublicKey)
                key.__dict__.update(curve=name, point=data[spans[KEY_BITS] : spans[10]], parameters=None)
            elif kind == "okp":
                key = OkpPublicKey(name, data[spans[KEY_BITS] : spans[10]])
        if key is not None:
            try:
                _load(data)
            except Exception:  # noqa: BLE001  the parser raises several kinds for hostile input
                key = None
        if key is None:
            columns.forget(len(items))
            add(_decode_one(one, limits))
            continue
        item = new(Item)
        item.__dict__ = {
            "source": one.source,
            "index": one.position,
            "offset": one.offset,
            "kind": certificate,
            "der": data,
            "spki": data[spans[8] : spans[10]],
            "key": key,
            "error": None,
            "notices": (),
            "_spans": spans,
        }
        add(item)
    return items


_OTHER = ("", "")


@cache
def _algorithms() -> dict[bytes, tuple[str, str]]:
    """DER of the algorithm identifiers of keys that a block decodes: family and name."""
    found = {spki.RSA_ALGORITHM: ("rsa", "")}
    for oid, name in spki.CURVE_NAMES.items():
        found[element(SEQUENCE, oid_element("1.2.840.10045.2.1"), oid_element(oid))] = ("ec", name)
    for oid, name in spki.OKP_NAMES.items():
        found[element(SEQUENCE, oid_element(oid))] = ("okp", name)
    return found


def _decode_one(one: RawItem, limits: Limits) -> Item:
    if one.label == "CERTIFICATE" and one.error is None and one.notice is None and len(one.data) <= limits.item_bytes:
        try:
            item = _certificate(one, one.data)
        except (DerError, ValueError, IndexError):
            item = _one(one, limits)
        if isinstance(item.key, UnsupportedPublicKey):
            item.error = item.key.reason
        return item
    return _one(one, limits)


def item_of_key(key: PublicKey, source: str = "", index: int = 0) -> Item:
    """An item for a key that has no encoding of its own."""
    encoded = _encode(key)
    item = Item(source, index, 0, Kind.PUBLIC_KEY, encoded, encoded, key)
    if isinstance(key, UnsupportedPublicKey):
        item.error = key.reason
    return item


# Signed structures


def _algorithm(data: bytes, at: int, end: int) -> tuple[str, bytes, int]:
    """Dotted OID, parameters and end of an AlgorithmIdentifier."""
    inner, after = expect(data, at, end, SEQUENCE, "signature algorithm")
    first, last = expect(data, inner, after, OID, "signature algorithm")
    return oid_text(data[first:last]), data[last:after], after


def _signature(data: bytes, at: int, end: int) -> bytes:
    start, stop = expect(data, at, end, BIT_STRING, "signature")
    return data[start + 1 : stop]


_SKI, _AKI, _BASIC = (bytes.fromhex(text) for text in ("551d0e", "551d23", "551d13"))


def subjects(items: Sequence[Item]) -> list[bytes]:
    """DER of the subject's Name, b"" where there is none, without decoding the rest of certificates."""
    found = []
    for item in items:
        spans = item.__dict__.get("_spans")
        if spans is not None and item.der is not None:
            found.append(item.der[spans[7] : spans[8]])
        else:
            fields = item.signed
            found.append(fields.subject if fields is not None else b"")
    return found


def outline(item: Item) -> tuple[bytes, bytes, bytes] | None:
    """DER of subject and issuer, and contents of the serial number, without decoding the rest.

    None for all but certificates that the strict parser took without a remark; ``signed`` has theirs.
    """
    spans, data = item.__dict__.get("_spans"), item.der
    if spans is None or data is None or item.notices:
        return None
    return data[spans[7] : spans[8]], data[spans[4] : spans[5]], data[spans[2] : spans[3]]


def _extensions(data: bytes, at: int, end: int) -> tuple[bytes | None, bytes | None, bool]:
    """Subject and authority key identifiers and the CA flag, from what follows the public key in a certificate."""
    subject = authority = None
    is_ca = False
    while at < end:
        tag, inner, after = tlv(data, at, end)
        if tag == 0xA3:
            start, stop = expect(data, inner, after, SEQUENCE, "extensions")
            while start < stop:
                begin, finish = expect(data, start, stop, SEQUENCE, "extension")
                first, last = expect(data, begin, finish, OID, "extension")
                name = data[first:last]
                if name in (_SKI, _AKI, _BASIC):
                    tag, value, value_end = tlv(data, last, finish)
                    if tag == 0x01:
                        tag, value, value_end = tlv(data, value_end, finish)
                    if tag == OCTET_STRING and value < value_end:
                        tag, start_, stop_ = tlv(data, value, value_end)
                        if name == _SKI and tag == OCTET_STRING:
                            subject = data[start_:stop_]
                        elif name == _AKI and start_ < stop_ and data[start_] == 0x80:
                            _, low, high = tlv(data, start_, stop_)
                            authority = data[low:high]
                        elif name == _BASIC and start_ < stop_ and data[start_] == 0x01:
                            is_ca = data[start_ + 2] != 0
                start = finish
        at = after
    return subject, authority, is_ca


def _certificate_fields(item: Item) -> SignedFields:
    data = item.der or b""
    spans: _Spans = item.__dict__.get("_spans") or _certificate_spans(data)
    tbs, tbs_end, serial, serial_end, issuer, issuer_end, validity, validity_end, subject_end, _, key_end, end = spans[
        :12
    ]
    tag, start, stop = tlv(data, validity, validity_end)
    before = time_seconds(tag, data[start:stop])
    tag, start, stop = tlv(data, stop, validity_end)
    after = time_seconds(tag, data[start:stop])
    oid, parameters, at = _algorithm(data, tbs_end, end)
    try:
        identifiers = _extensions(data, key_end, tbs_end)
    except (DerError, IndexError):
        identifiers = (None, None, False)
    return SignedFields(
        int.from_bytes(data[serial:serial_end], "big", signed=True),
        data[issuer:issuer_end],
        data[validity_end:subject_end],
        before,
        after,
        oid,
        parameters,
        data[tbs:tbs_end],
        _signature(data, at, end),
        *identifiers,
    )


def _request_fields(data: bytes) -> SignedFields:
    start, stop = expect(data, 0, len(data), SEQUENCE, "request")
    info, info_end = expect(data, start, stop, SEQUENCE, "request body")
    _, at = expect(data, info, info_end, INTEGER, "version")
    _, end = expect(data, at, info_end, SEQUENCE, "subject")
    oid, parameters, after = _algorithm(data, info_end, stop)
    subject = data[at:end]
    return SignedFields(
        None, subject, subject, None, None, oid, parameters, data[start:info_end], _signature(data, after, stop)
    )


def _crl_fields(data: bytes) -> SignedFields:
    start, stop = expect(data, 0, len(data), SEQUENCE, "CRL")
    body, body_end = expect(data, start, stop, SEQUENCE, "CRL body")
    at = body
    if data[at] == INTEGER:
        _, at = expect(data, at, body_end, INTEGER, "version")
    _, at = expect(data, at, body_end, SEQUENCE, "signature algorithm")
    _, end = expect(data, at, body_end, SEQUENCE, "issuer")
    tag, first, last = tlv(data, end, body_end)
    this_update = time_seconds(tag, data[first:last])
    next_update = None
    if last < body_end and data[last] in (0x17, 0x18):
        tag, first, last = tlv(data, last, body_end)
        next_update = time_seconds(tag, data[first:last])
    oid, parameters, after = _algorithm(data, body_end, stop)
    signature = _signature(data, after, stop)
    return SignedFields(
        None, data[at:end], b"", this_update, next_update, oid, parameters, data[start:body_end], signature
    )


def _ocsp_fields(data: bytes) -> SignedFields:
    """The BasicOCSPResponse inside an OCSPResponse (RFC 6960)."""
    start, stop = expect(data, 0, len(data), SEQUENCE, "OCSP response")
    _, _, after = tlv(data, start, stop)
    tag, inner, end = tlv(data, after, stop)
    if tag != 0xA0:
        raise DerError("an OCSP response without content")
    inner, end = expect(data, inner, end, SEQUENCE, "OCSP response bytes")
    _, at = expect(data, inner, end, OID, "OCSP response type")
    first, last = expect(data, at, end, OCTET_STRING, "OCSP response")
    begin, finish = expect(data, first, last, SEQUENCE, "basic OCSP response")
    body, body_end = expect(data, begin, finish, SEQUENCE, "OCSP response data")
    if data[body] == 0xA0:
        body = tlv(data, body, body_end)[2]
    tag, low, high = tlv(data, body, body_end)
    name = data[low:high] if tag == 0xA1 else b""
    oid, parameters, at = _algorithm(data, body_end, finish)
    start, stop = expect(data, at, finish, BIT_STRING, "signature")
    return SignedFields(None, name, b"", None, None, oid, parameters, data[begin:body_end], data[start + 1 : stop])


def signed_fields(item: Item) -> SignedFields | None:
    """Names, validity and signature of an item, or None where it is not a signed structure or malformed there."""
    data = item.der
    if data is None:
        return None
    try:
        if item.kind is Kind.CERTIFICATE:
            return _certificate_fields(item)
        if item.kind is Kind.REQUEST:
            return _request_fields(data)
        if item.kind is Kind.CRL:
            return _crl_fields(data)
        if item.kind is Kind.OCSP_RESPONSE:
            return _ocsp_fields(data)
    except (DerError, IndexError):
        return None
    return None


def validity_columns(items: Sequence[Item]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(not before, not after) of certificates in seconds since 1970, without decoding the rest.

    Rows that are no certificates or have no readable time hold the least and the greatest integer: never expired.
    """
    columns = items.columns if isinstance(items, ItemBlock) else None
    if columns is None:
        timed = np.zeros(len(items), dtype=bool)
        before = after = np.zeros(len(items), dtype=np.int64)
    else:
        timed, before, after = columns.timed, columns.not_before, columns.not_after
    before = np.where(timed, before, np.iinfo(np.int64).min)
    after = np.where(timed, after, np.iinfo(np.int64).max)
    for row in np.flatnonzero(~timed).tolist():
        item = items[row]
        if item.kind is not Kind.CERTIFICATE or item.der is None:
            continue
        spans = item.__dict__.get("_spans")
        try:
            if spans is None:
                spans = item.__dict__["_spans"] = _certificate_spans(item.der)
            data = item.der
            at = spans[6]
            middle = at + 2 + data[at + 1]
            first = time_seconds(data[at], data[at + 2 : middle])
            last = time_seconds(data[middle], data[middle + 2 : middle + 2 + data[middle + 1]])
        except (DerError, IndexError):
            continue
        if first is not None:
            before[row] = first
        if last is not None:
            after[row] = last
    return before, after


def signature_algorithms(items: Sequence[Item]) -> list[str]:
    """Dotted OIDs of certificates' signature algorithms, "" for other items, without decoding the rest."""
    known = items.columns.signature_algorithms if isinstance(items, ItemBlock) and items.columns else [""] * len(items)
    found = []
    for item, oid in zip(items, known, strict=True):
        if not oid and item.kind is Kind.CERTIFICATE and item.der is not None:
            spans = item.__dict__.get("_spans")
            if spans is not None:
                data, at = item.der, spans[1]
                # AlgorithmIdentifier: two bytes of header each for the sequence and the identifier, as a rule
                if data[at] == SEQUENCE and data[at + 1] < 128 and data[at + 2] == OID and data[at + 3] < 64:
                    oid = oid_text(data[at + 4 : at + 4 + data[at + 3]])  # noqa: PLW2901
            if not oid:
                fields = item.signed
                oid = fields.signature_algorithm if fields is not None else ""  # noqa: PLW2901
        found.append(oid)
    return found
