"""Certificate signing requests for tests."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

import fleet_keys


def request(subject: str, key: Any, algorithm: Any = None) -> str:
    """A request in PEM."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(fleet_keys.name(subject))
    return builder.sign(key, algorithm or hashes.SHA256()).public_bytes(Encoding.PEM).decode()
