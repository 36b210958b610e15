"""What a run is about: one item per certificate, request, key, CRL or unreadable thing, in input order.

``reading`` finds the encodings in files and streams (``RawItem``), ``decoding`` turns them into ``Item``.
An item never raises: what could not be read is an item too, with its reason and its place.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from keyassay.certificates.public_key import PublicKey, UnsupportedPublicKey


class Kind(StrEnum):
    """What an item is; the values are those of the JSON contract."""

    CERTIFICATE = "certificate"
    REQUEST = "request"
    PUBLIC_KEY = "public-key"
    PRIVATE_KEY = "private-key"
    CRL = "crl"
    OCSP_RESPONSE = "ocsp-response"
    UNREADABLE = "unreadable"


class RawItem(NamedTuple):
    """One encoding found by ``reading``, not yet decoded.

    Attributes:
        source: the path as given, inside an archive ``a.zip!x.pem``, or ``tls://...``, ``ssh://...``, ``-``.
        position: counts items within the source from 0.
        offset: byte offset within the source (of the PEM boundary, the line, the DER).
        label: the PEM label where there was one ("CERTIFICATE", "RSA PUBLIC KEY", ...), else "" for DER found by
            content, or one of "openssh", "jwk" for encodings that are not DER.
        data: DER bytes (or the text of an OpenSSH line, a JWK as JSON); empty if ``error`` is set.
        error: why nothing could be read here, else None.
        notice: something the reader of the report should know ("private key file: only the public part was
            read"), else None.
    """

    source: str
    position: int
    offset: int
    label: str
    data: bytes
    error: str | None = None
    notice: str | None = None


@dataclass(slots=True)
class SignedFields:
    """What a signed structure (certificate, request, CRL, OCSP response) says beside its key.

    Attributes:
        serial_number: None where the structure has none (requests, CRLs).
        issuer: DER of the issuer's Name; for a request its own subject; for an OCSP response the responder's
            Name or b"" if it names itself by key hash.
        subject: DER of the subject's Name, b"" where there is none.
        not_before: seconds since 1970-01-01 UTC (certificates; thisUpdate of CRLs), None if unreadable.
        not_after: likewise (nextUpdate of CRLs).
        signature_algorithm: dotted OID of the outer AlgorithmIdentifier.
        signature_parameters: DER of its parameters, b"" where absent.
        signed_part: the bytes that were signed, header included, exactly as in the file.
        signature: the signature's octets (the BIT STRING without its unused-bits octet).
        subject_key_identifier: octets of that extension, or None.
        authority_key_identifier: octets of its keyIdentifier, or None.
        is_ca: basicConstraints says so.
    """

    serial_number: int | None
    issuer: bytes
    subject: bytes
    not_before: int | None
    not_after: int | None
    signature_algorithm: str
    signature_parameters: bytes
    signed_part: bytes
    signature: bytes
    subject_key_identifier: bytes | None = None
    authority_key_identifier: bytes | None = None
    is_ca: bool = False


@dataclass
class Item:
    """One item of a run.

    Attributes:
        source: as in ``RawItem``.
        index: counts items within the source from 0 (``RawItem.position``).
        offset: as in ``RawItem``.
        kind: what it is.
        der: the whole encoding, None where there is no DER (OpenSSH lines, JWKs).
        spki: DER of the subject public key info, remade for bare keys; None where there is no key.
        key: the public key; None for CRLs, OCSP responses and unreadable items.
        error: why it was not read or not assessed, else None.
        notices: remarks for the report.
    """

    source: str
    index: int
    offset: int
    kind: Kind
    der: bytes | None = None
    spki: bytes | None = None
    key: PublicKey | None = None
    error: str | None = None
    notices: tuple[str, ...] = field(default=())

    @property
    def assessed(self) -> bool:
        """True if the checks can say something about this item."""
        return self.kind is not Kind.UNREADABLE and not isinstance(self.key, UnsupportedPublicKey)

    @cached_property
    def sha256(self) -> bytes | None:
        """SHA-256 of the DER: the fingerprint that certificates are called by."""
        return None if self.der is None else hashlib.sha256(self.der).digest()

    @cached_property
    def spki_sha256(self) -> bytes | None:
        """SHA-256 of the subject public key info."""
        return None if self.spki is None else hashlib.sha256(self.spki).digest()

    @cached_property
    def signed(self) -> SignedFields | None:
        """Names, validity and signature of signed structures, decoded at first use; None for plain keys.

        The fast path builds the item from column offsets (``decoding.decode``) and overrides this lazily.
        """
        from keyassay.certificates.decoding import signed_fields  # noqa: PLC0415  decoding builds items

        return signed_fields(self)


def unreadable(raw: RawItem, reason: str) -> Item:
    """The record of something that could not be read, at its place."""
    return Item(raw.source, raw.position, raw.offset, Kind.UNREADABLE, error=reason)
