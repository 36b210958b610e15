"""Devices with keys that can be computed, for tests of audits and screening; each key is made once a process."""

from __future__ import annotations

from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

import fleet_keys
from keyassay.audit.verdicts import PublicFinding
from keyassay.checks import check
from keyassay.findings import Classification, Confidence
from roca_keys import roca_key


def rsa_of(p: int, q: int, exponent: int = 65537) -> rsa.RSAPrivateKey:
    """The key of two primes."""
    d = pow(exponent, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(exponent, p * q)
    )
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


@cache
def weak_key(number: int = 0) -> rsa.RSAPrivateKey:
    """An RSA key of 2048 bits as RSALib makes them; the same one for the same number."""
    p, q, _, _ = roca_key(f"device {number}", 2048)
    return rsa_of(int(p), int(q))


def roca_device(number: int = 0, subject: str = "", **more: Any) -> fleet_keys.Signed:
    """A new certificate for that key."""
    return fleet_keys.device(subject or f"roca-{number}", key=weak_key(number), **more)


def broken_beside_others(account_id: str, spki_digest: bytes) -> dict[str, Any]:
    """A row of ``fleet_verdicts`` or ``server_verdicts`` for a key that shares a prime."""
    meta = check("fleet-shared-prime").metadata
    finding = PublicFinding(
        meta.id, meta.version, Classification.BROKEN, meta.severity, Confidence.PROVEN, meta.reason_code,
        "its modulus shares a prime",
    )  # fmt: skip
    return {
        "account_id": account_id,
        "spki_digest": spki_digest,
        "check_id": meta.id,
        "version": meta.version,
        "finding": finding.as_json(),
        "stored_at": 0,
    }


def broken_by_deep_steps(spki_digest: bytes) -> dict[str, Any]:
    """A row of ``deep_verdicts`` as an audit of profile deep writes it for a key that it has factored."""
    meta = check("rsa-smooth-prime").metadata
    finding = PublicFinding(
        meta.id, meta.version, Classification.BROKEN, meta.severity, Confidence.PROVEN, meta.reason_code,
        "p - 1 is smooth",
    )  # fmt: skip
    return {
        "spki_digest": spki_digest,
        "catalogue": "0" * 64,
        "budget": 60.0,
        "complete": False,
        "failed": False,
        "steps": [],
        "findings": [finding.as_json()],
        "stored_at": 0,
    }
