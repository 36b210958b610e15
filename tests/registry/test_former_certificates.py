"""What leaves an account is remembered there, once: deleted certificates and authorities, and transferred ones."""

from __future__ import annotations

from typing import Any

import fleet_keys
from keyassay.registry import authorities, certificates, transfers
from keyassay.registry.registry import Registry
from two_accounts import A, B


def test_deleted_certificates_are_remembered_once(registry: Registry, rows: Any) -> None:
    device = fleet_keys.device()
    for _ in range(2):
        certificates.register_without_authority(registry, A, device.pem)
        certificates.remove(registry, A, device.id)
    (former,) = rows.all("former_certificates")
    assert (former["account_id"], former["id"]) == (A.account_id, device.id)
    assert len(former["spki_digest"]) == 32
    assert not rows.all("certificates")


def test_an_accepted_transfer_is_remembered_by_its_source(registry: Registry, rows: Any) -> None:
    device = fleet_keys.device()
    certificates.register_without_authority(registry, A, device.pem)
    transfers.offer(registry, A, device.id, B.account_id)
    assert not rows.all("former_certificates")
    transfers.accept(registry, B, device.id)
    assert [row["account_id"] for row in rows.all("former_certificates")] == [A.account_id]


def test_a_deleted_authority_is_remembered(registry: Registry, rows: Any) -> None:
    authority = fleet_keys.authority()
    authorities.register(registry, A, authority.pem, mode="SNI_ONLY")
    authorities.remove(registry, A, authority.id)
    assert [row["id"] for row in rows.all("former_certificates")] == [authority.id]
