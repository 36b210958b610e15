"""Revocation lists for tests, signed by real keys."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

import fleet_keys


def revocation_list(
    authority: fleet_keys.Signed,
    serials: Iterable[int],
    *,
    days: float = 1,
    lasts: float = 30,
    extensions: tuple[tuple[Any, bool], ...] = (),
) -> x509.CertificateRevocationList:
    """A list that was signed ``days`` ago and lasts for ``lasts`` days."""
    made = fleet_keys.NOW - timedelta(days=days)
    builder = x509.CertificateRevocationListBuilder(authority.certificate.subject, made, made + timedelta(days=lasts))
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(made).build()
        builder = builder.add_revoked_certificate(entry)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(authority.key, hashes.SHA256())
