"""Certificate signing requests for tests, and what is issued for them."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

import fleet_keys
from keyassay.registry import issuing
from keyassay.registry.registry import Registry
from keyassay.storage.database import Actor
from two_accounts import A


def request(subject: str, key: Any, algorithm: Any = None) -> str:
    """A request in PEM."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(fleet_keys.name(subject))
    return builder.sign(key, algorithm or hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def certificate_of(issued: issuing.Issued) -> x509.Certificate:
    """What was issued."""
    return x509.load_pem_x509_certificate(issued.certificate_pem.encode())


def authority_of(registry: Registry, issuer_id: str = "", actor: Actor = A) -> x509.Certificate:
    """An account's authority, the one that issues if none is named."""
    return x509.load_pem_x509_certificate(issuing.issuer_pem(registry, actor, issuer_id).encode())
