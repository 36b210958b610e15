"""Issues certificates for any public key at all: the weak ones are just those that certificate libraries refuse.

The names, the validity and the signature (P-256, deterministic) are sound; only the key may be anything.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NOT_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(2036, 1, 1, tzinfo=UTC)


@cache
def authority(number: int = 12_345) -> ec.EllipticCurvePrivateKey:
    """The issuer's private key: a large number that no check knows."""
    return ec.derive_private_key(number**17, ec.SECP256R1())


@cache
def sound_key(number: int = 1) -> ec.EllipticCurvePrivateKey:
    """A device's private key that no check finds."""
    return ec.derive_private_key((number + 98_765) ** 15, ec.SECP256R1())


def tlv(tag: int, *parts: bytes) -> bytes:
    """DER of one value."""
    body = b"".join(parts)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    size = (len(body).bit_length() + 7) // 8
    return bytes([tag, 0x80 + size]) + len(body).to_bytes(size, "big") + body


def spki_of(private: ec.EllipticCurvePrivateKey) -> bytes:
    """The subject public key info of a private key."""
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def named(common_name: str) -> bytes:
    """DER of a Name; the common name may hold anything."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name, _validate=False)])
    return name.public_bytes()


def certificate(
    spki: bytes,
    common_name: str,
    serial: int = 0x0A1B,
    *,
    not_before: datetime = NOT_BEFORE,
    not_after: datetime = NOT_AFTER,
) -> bytes:
    """A certificate in DER for a subject public key info."""

    def moment(time: datetime) -> bytes:
        if time.year < 2050:
            return tlv(0x17, time.strftime("%y%m%d%H%M%SZ").encode())
        return tlv(0x18, time.strftime("%Y%m%d%H%M%SZ").encode())

    ecdsa_sha256 = tlv(0x30, bytes.fromhex("06082a8648ce3d040302"))
    signed_part = tlv(
        0x30,
        tlv(0xA0, tlv(0x02, b"\x02")),
        tlv(0x02, serial.to_bytes(serial.bit_length() // 8 + 1, "big", signed=True)),
        ecdsa_sha256,
        named("Sample CA"),
        tlv(0x30, moment(not_before), moment(not_after)),
        named(common_name),
        spki,
    )
    signature = authority().sign(signed_part, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return tlv(0x30, signed_part, ecdsa_sha256, tlv(0x03, b"\x00" + signature))


def pem(der: bytes, label: str = "CERTIFICATE") -> bytes:
    """The same as PEM."""
    from base64 import encodebytes

    return b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label.encode(), encodebytes(der), label.encode())
