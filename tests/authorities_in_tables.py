"""Puts authorities into the table as their registration does, without its proof of possession."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.serialization import Encoding

import fleet_keys
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from two_accounts import A


def enter_authority(
    registry: Registry, signed: fleet_keys.Signed, status: str = "ACTIVE", mode: str = "DEFAULT"
) -> str:
    """Enter an authority in account A; its id."""
    der = signed.certificate.public_bytes(Encoding.DER)
    row = {
        "account_id": A.account_id, "id": signed.id, "status": status, "mode": mode, "der": der,
        "subject_digest": hashlib.sha256(signed.certificate.subject.public_bytes()).digest(), "spki_digest": b"",
        "auto_registration": False, "not_before": 0, "not_after": 1, "created_at": 0, "modified_at": 0,
        "customer_version": 1, "generation_id": "",
    }  # fmt: skip
    with registry.database.engine.begin() as connection:
        connection.execute(schema.authorities.insert().values(row))
    return signed.id
