"""What a certificate has to be to enter the registry: the sanity checks of AWS IoT at registration.

Valid form, in its validity, a key of sufficient size, a sound signature algorithm, signed by the authority it names.
A weak key that is well-formed passes: finding it is the work of screening and audits.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from keyassay.registry.errors import CertificateValidationError, InvalidError
from keyassay.registry.registry import milliseconds

#: certificates and requests above this size are refused unread, in characters of PEM
LARGEST_PEM = 65_536
SMALLEST_RSA = 2_048
LARGEST_RSA = 16_384
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)

_SIGNATURES = {
    SignatureAlgorithmOID.RSA_WITH_SHA256,
    SignatureAlgorithmOID.RSA_WITH_SHA384,
    SignatureAlgorithmOID.RSA_WITH_SHA512,
    SignatureAlgorithmOID.DSA_WITH_SHA256,
    SignatureAlgorithmOID.ECDSA_WITH_SHA256,
    SignatureAlgorithmOID.ECDSA_WITH_SHA384,
    SignatureAlgorithmOID.ECDSA_WITH_SHA512,
    SignatureAlgorithmOID.RSASSA_PSS,
}


@dataclass(frozen=True, slots=True)
class Admitted:
    """A certificate that was read.

    Attributes:
        certificate: as the library reads it.
        der: its bytes.
        id: SHA-256 of the bytes, 64 hexadecimal digits.
        subject, issuer: DER of the names.
        spki: DER of the subject public key info.
        spki_digest: SHA-256 of that.
        not_before, not_after: milliseconds since 1970.
    """

    certificate: x509.Certificate
    der: bytes
    id: str
    subject: bytes
    issuer: bytes
    spki: bytes
    spki_digest: bytes
    not_before: int
    not_after: int


def read_certificate(pem: str) -> Admitted:
    """Read the one certificate of a PEM text.

    Raises:
        InvalidError: it holds none, several, or something unreadable.
    """
    if len(pem) > LARGEST_PEM:
        raise InvalidError(f"a certificate has at most {LARGEST_PEM} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = x509.load_pem_x509_certificates(pem.encode())
            if len(found) != 1:
                raise InvalidError("exactly one certificate is wanted")
            return _admitted(found[0])
    except (ValueError, UnsupportedAlgorithm, UnicodeEncodeError):
        raise InvalidError("this is no certificate in PEM") from None


def read_der(der: bytes) -> Admitted:
    """The same from DER that was admitted before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _admitted(x509.load_der_x509_certificate(der))


def _admitted(certificate: x509.Certificate) -> Admitted:
    der = certificate.public_bytes(Encoding.DER)
    try:
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidError("the certificate's public key cannot be read") from None
    return Admitted(
        certificate,
        der,
        hashlib.sha256(der).hexdigest(),
        certificate.subject.public_bytes(),
        certificate.issuer.public_bytes(),
        spki,
        hashlib.sha256(spki).digest(),
        milliseconds(certificate.not_valid_before_utc.timestamp()),
        milliseconds(certificate.not_valid_after_utc.timestamp()),
    )


def check_device(admitted: Admitted, now: int) -> None:
    """What is asked of a device's certificate, whoever signed it.

    Args:
        admitted: the certificate.
        now: milliseconds since 1970.

    Raises:
        CertificateValidationError: it has expired, its key is too small, or its signature algorithm is not accepted.
    """
    if admitted.not_after < now:
        raise CertificateValidationError("the certificate has expired")
    problem = key_problem(admitted.certificate.public_key())
    if problem:
        raise CertificateValidationError(problem)
    if admitted.certificate.signature_algorithm_oid not in _SIGNATURES:
        raise CertificateValidationError("the certificate's signature algorithm is not accepted")
    algorithm = _hash(admitted.certificate)
    if algorithm is None or algorithm.digest_size < 32:
        raise CertificateValidationError("the certificate's signature uses a hash that is not accepted")


def check_authority(admitted: Admitted, now: int) -> None:
    """What is asked of an authority's certificate.

    Raises:
        CertificateValidationError: as for devices, or it is no authority, or its own signature does not hold.
    """
    check_device(admitted, now)
    try:
        constraints = admitted.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        is_authority = constraints.ca
    except (x509.ExtensionNotFound, ValueError):
        is_authority = False
    if not is_authority:
        raise CertificateValidationError("the certificate is no authority's: basic constraints have to say CA:TRUE")
    if admitted.subject == admitted.issuer and not is_signed_by(admitted, admitted):
        raise CertificateValidationError("the certificate names itself as issuer, but its key did not sign it")


def key_problem(key: CertificatePublicKeyTypes) -> str:
    """Why a public key is not accepted, "" if it is: RSA from 2048 bits, P-256, P-384, P-521, DSA from 2048 bits."""
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < SMALLEST_RSA:
            return f"RSA keys have at least {SMALLEST_RSA} bits, this one has {key.key_size}"
        return "" if key.key_size <= LARGEST_RSA else f"RSA keys have at most {LARGEST_RSA} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "" if isinstance(key.curve, CURVES) else f"keys on curve {key.curve.name} are not accepted"
    if isinstance(key, dsa.DSAPublicKey):
        return "" if key.key_size >= SMALLEST_RSA else f"DSA keys have at least {SMALLEST_RSA} bits"
    return "keys of this type are not accepted"


def is_signed_by(admitted: Admitted, authority: Admitted) -> bool:
    """Whether the authority is the issuer by name, and its key made the signature."""
    if admitted.issuer != authority.subject:
        return False
    certificate = admitted.certificate
    key = authority.certificate.public_key()
    algorithm = _hash(certificate)
    if algorithm is None:
        return False
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    try:
        if isinstance(key, rsa.RSAPublicKey):
            parameters = certificate.signature_algorithm_parameters
            if not isinstance(parameters, (padding.PKCS1v15, padding.PSS)):
                return False
            key.verify(signature, signed, parameters, algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, ec.ECDSA(algorithm))
        elif isinstance(key, dsa.DSAPublicKey):
            key.verify(signature, signed, algorithm)
        else:
            return False
    except (InvalidSignature, ValueError, UnsupportedAlgorithm, TypeError):
        return False
    return True


def _hash(certificate: x509.Certificate) -> hashes.HashAlgorithm | None:
    try:
        return certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None


def common_names(admitted: Admitted) -> list[str]:
    """The common names of the subject."""
    return [str(part.value) for part in admitted.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
