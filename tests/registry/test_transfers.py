"""Transfers between accounts: what each side sees at each step, and that exactly one end happens."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

import fleet_keys
from keyassay.registry import certificates, transfers
from keyassay.registry.errors import (
    CertificateStateError,
    InvalidError,
    NotFoundError,
    RegistryError,
    TransferCompletedError,
    TransferConflictError,
)
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from two_accounts import A, B, Rows


@pytest.fixture
def certificate_id(registry: Registry) -> str:
    return certificates.register_without_authority(registry, A, fleet_keys.device().pem).id


def test_offered_and_accepted(registry: Registry, rows: Rows, certificate_id: str) -> None:
    arn = transfers.offer(registry, A, certificate_id, B.account_id, "for plant 3")
    assert arn == registry.arn(B.account_id, f"cert/{certificate_id}")
    for side in (A, B):
        row = certificates.describe(registry, side, certificate_id)
        assert (row["status"], row["account_id"], row["transfer_message"]) == (
            "PENDING_TRANSFER",
            A.account_id,
            "for plant 3",
        )
        assert [one["id"] for one in certificates.listed(registry, side).rows] == [certificate_id]
        with pytest.raises((CertificateStateError, NotFoundError)):
            certificates.set_status(registry, side, certificate_id, "ACTIVE")
    assert [one["transfer_target"] for one in transfers.outgoing(registry, A).rows] == [B.account_id]
    assert list(transfers.outgoing(registry, B).rows) == []
    transfers.accept(registry, B, certificate_id, set_as_active=True)
    row = certificates.describe(registry, B, certificate_id)
    assert (row["status"], row["account_id"], row["previous_owner"]) == ("ACTIVE", B.account_id, A.account_id)
    assert row["accepted_at"] >= row["transferred_at"]
    with pytest.raises(NotFoundError):
        certificates.describe(registry, A, certificate_id)
    assert list(transfers.outgoing(registry, A).rows) == []
    for late in (
        lambda: transfers.cancel(registry, A, certificate_id),
        lambda: transfers.reject(registry, B, certificate_id),
        lambda: transfers.accept(registry, B, certificate_id),
    ):
        with pytest.raises(TransferCompletedError):
            late()
    assert rows.operations(B) == ["TransferCertificate", "AcceptCertificateTransfer"]
    assert rows.operations(A)[1:] == ["TransferCertificate", "AcceptCertificateTransfer"]


@pytest.mark.parametrize("who", ["target rejects", "source cancels"])
def test_given_back(registry: Registry, certificate_id: str, who: str) -> None:
    transfers.offer(registry, A, certificate_id, B.account_id)
    if who == "target rejects":
        with pytest.raises(NotFoundError):
            transfers.cancel(registry, B, certificate_id)
        transfers.reject(registry, B, certificate_id, "not ours")
    else:
        with pytest.raises(InvalidError):
            transfers.reject(registry, A, certificate_id)
        transfers.cancel(registry, A, certificate_id)
    row = certificates.describe(registry, A, certificate_id)
    assert row["status"] == "INACTIVE"
    assert row["reject_reason"] == ("not ours" if who == "target rejects" else None)
    with pytest.raises(NotFoundError):
        certificates.describe(registry, B, certificate_id)
    with pytest.raises(NotFoundError):
        transfers.accept(registry, B, certificate_id)
    with pytest.raises(InvalidError):
        transfers.cancel(registry, A, certificate_id)
    transfers.offer(registry, A, certificate_id, B.account_id)  # and once more
    transfers.accept(registry, B, certificate_id)
    transfers.offer(registry, B, certificate_id, A.account_id)  # and back
    transfers.accept(registry, A, certificate_id)
    assert certificates.describe(registry, A, certificate_id)["previous_owner"] == B.account_id


def test_what_cannot_be_offered(registry: Registry, certificate_id: str) -> None:
    with pytest.raises(InvalidError):
        transfers.offer(registry, A, certificate_id, A.account_id)
    with pytest.raises(NotFoundError):
        transfers.offer(registry, B, certificate_id, A.account_id)
    for status in ("ACTIVE", "REVOKED"):
        other = certificates.register_without_authority(registry, A, fleet_keys.device().pem, status=status).id
        with pytest.raises(CertificateStateError):
            transfers.offer(registry, A, other, B.account_id)
    attached = {"account_id": A.account_id, "target": f"cert/{certificate_id}", "policy_name": "p", "attached_at": 0}
    with registry.database.engine.begin() as connection:
        connection.execute(schema.policy_attachments.insert().values(attached))
    with pytest.raises(TransferConflictError, match="policies"):
        transfers.offer(registry, A, certificate_id, B.account_id)
    principal = {"thing_name": "t", "certificate_id": certificate_id, "exclusive": False, "attached_at": 0}
    with registry.database.engine.begin() as connection:
        connection.execute(schema.policy_attachments.delete())
        connection.execute(schema.thing_principals.insert().values(account_id=A.account_id, **principal))
    with pytest.raises(TransferConflictError, match="things"):
        transfers.offer(registry, A, certificate_id, B.account_id)


def test_a_target_that_has_it_already_cannot_accept(registry: Registry) -> None:
    one = fleet_keys.device()
    for side in (A, B):
        certificates.register_without_authority(registry, side, one.pem)
    transfers.offer(registry, A, one.id, B.account_id)
    with pytest.raises(InvalidError):
        transfers.accept(registry, B, one.id)
    assert certificates.describe(registry, A, one.id)["status"] == "PENDING_TRANSFER"
    assert certificates.describe(registry, B, one.id)["account_id"] == B.account_id


def test_only_one_end_of_many_at_once(registry: Registry, rows: Rows) -> None:
    ids = [certificates.register_without_authority(registry, A, fleet_keys.device().pem).id for _ in range(6)]
    for one in ids:
        transfers.offer(registry, A, one, B.account_id)
    ends = [
        (end, one)
        for one in ids
        for end in (
            lambda one: transfers.accept(registry, B, one),
            lambda one: transfers.reject(registry, B, one),
            lambda one: transfers.cancel(registry, A, one),
        )
    ]

    def attempt(pair) -> bool:
        try:
            pair[0](pair[1])
        except RegistryError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(attempt, ends))
    assert sum(done) == len(ids)
    assert {row["status"] for row in rows.all("certificates")} == {"INACTIVE"}
    assert len(rows.all("certificates")) == len(ids)
