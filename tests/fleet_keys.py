"""Authorities and device certificates for tests of the registry, signed by real keys; made once a process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC).replace(microsecond=0)


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """An RSA key; the same one for the same number in this process."""
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    """A P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def name(common_name: str) -> x509.Name:
    """A subject with one common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


@dataclass(frozen=True)
class Signed:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def id(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()


def certificate(
    subject: str,
    key: Any,
    issuer: Signed | None = None,
    *,
    is_authority: bool = False,
    days: tuple[int, int] = (-1, 365),
    serial: int | None = None,
    algorithm: Any = None,
    public_key: Any = None,
    extensions: tuple[tuple[Any, bool], ...] = (),
) -> Signed:
    """A certificate for a key, self-signed without ``issuer``."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuer.certificate.subject if issuer else name(subject))
        .public_key(public_key or key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
    )
    if is_authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    signer = issuer.key if issuer else key
    return Signed(builder.sign(signer, algorithm or hashes.SHA256()), key)


@cache
def authority(subject: str = "Fleet CA", number: int = 100) -> Signed:
    """A self-signed authority."""
    return certificate(subject, ec_key(number), is_authority=True)


def device(subject: str = "device", issuer: Signed | None = None, **more: Any) -> Signed:
    """A new device certificate (another serial number each time) for a P-256 key."""
    return certificate(subject, more.pop("key", None) or ec_key(1), issuer or authority(), **more)
