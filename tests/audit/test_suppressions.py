"""Suppressions: made once, changed in part, listed by their end, in force until then, on both databases."""

from __future__ import annotations

import time
from typing import Any

import pytest

from keyassay.audit import suppressions
from keyassay.audit.checks import AUDIT_CHECKS
from keyassay.registry.errors import AlreadyExistsError, InvalidError, NotFoundError
from keyassay.registry.registry import Registry
from two_accounts import A, B, Rows

QUALITY = "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK"
AGE = "DEVICE_CERTIFICATE_AGE_CHECK"
DEVICE = {"deviceCertificateId": "ab" * 32}
IDENTIFIERS: dict[str, dict[str, Any]] = {
    "deviceCertificateId": DEVICE,
    "caCertificateId": {"caCertificateId": "cd" * 32},
    "policyVersionIdentifier": {"policyVersionIdentifier": {"policyName": "p", "policyVersionId": "2"}},
    "clientId": {"clientId": "é" * 500},
    "account": {"account": A.account_id},
    "cognitoIdentityPoolId": {"cognitoIdentityPoolId": "us-east-1:x"},
    "roleAliasArn": {"roleAliasArn": "arn:aws:iot:us-east-1:111111111111:rolealias/x"},
    "issuerCertificateIdentifier": {
        "issuerCertificateIdentifier": {"issuerId": "ef" * 32, "issuerCertificateSerialNumber": "01"}
    },
}


def now() -> int:
    return time.time_ns() // 1_000_000


def in_force(registry: Registry, check: str, at: int) -> set[str]:
    with registry.database.read() as connection:
        return suppressions.suppressed_keys(connection, A.account_id, check, at)


def test_made_described_changed_and_deleted(registry: Registry, rows: Rows) -> None:
    end = now() + 60_000
    with pytest.raises(NotFoundError):
        suppressions.describe(registry, A, QUALITY, DEVICE)
    suppressions.create(registry, A, QUALITY, DEVICE, "one", expires_at=end, description="known")
    row = suppressions.describe(registry, A, QUALITY, DEVICE)
    assert (row["expires_at"], row["description"], row["resource"]) == (end, "known", DEVICE)
    for other, check in ((B, QUALITY), (A, AGE)):
        with pytest.raises(NotFoundError):
            suppressions.describe(registry, other, check, DEVICE)
    suppressions.change(registry, A, QUALITY, DEVICE, description="accepted")
    suppressions.change(registry, A, QUALITY, DEVICE, description="accepted")
    assert suppressions.describe(registry, A, QUALITY, DEVICE)["expires_at"] == end
    suppressions.change(registry, A, QUALITY, DEVICE, indefinitely=True)
    row = suppressions.describe(registry, A, QUALITY, DEVICE)
    assert (row["expires_at"], row["description"]) == (None, "accepted")
    with pytest.raises(InvalidError):
        suppressions.change(registry, A, QUALITY, DEVICE, indefinitely=False)
    suppressions.change(registry, A, QUALITY, DEVICE, indefinitely=False, expires_at=end + 1)
    suppressions.change(registry, A, QUALITY, DEVICE, indefinitely=False)
    assert suppressions.describe(registry, A, QUALITY, DEVICE)["expires_at"] == end + 1
    for _ in range(2):
        suppressions.remove(registry, A, QUALITY, DEVICE)
    with pytest.raises(NotFoundError):
        suppressions.change(registry, A, QUALITY, DEVICE, description="")
    assert rows.operations() == [
        "CreateAuditSuppression", *["UpdateAuditSuppression"] * 3, "DeleteAuditSuppression"
    ]  # fmt: skip


def test_one_for_each_check_and_resource_and_for_each_token(registry: Registry) -> None:
    suppressions.create(registry, A, QUALITY, DEVICE, "one", indefinitely=True)
    same = {"deviceCertificateId": "0x" + "AB" * 32}
    for identifier in (DEVICE, same):
        for token in ("one", "two"):
            with pytest.raises(AlreadyExistsError):
                suppressions.create(registry, A, QUALITY, identifier, token, indefinitely=True)
    with pytest.raises(InvalidError, match="clientRequestToken"):
        suppressions.create(registry, A, AGE, DEVICE, "one", indefinitely=True)
    suppressions.create(registry, A, AGE, DEVICE, "two", indefinitely=True)
    suppressions.create(registry, B, QUALITY, DEVICE, "one", indefinitely=True)


def test_exactly_one_kind_of_end(registry: Registry) -> None:
    ends: list[dict[str, Any]] = [
        {},
        {"indefinitely": True, "expires_at": now() + 60_000},
        {"expires_at": now() - 1_000},
    ]
    for end in ends:
        with pytest.raises(InvalidError):
            suppressions.create(registry, A, QUALITY, DEVICE, "one", **end)
    suppressions.create(registry, A, QUALITY, DEVICE, "one", indefinitely=True)
    for end in ends[1:]:
        with pytest.raises(InvalidError):
            suppressions.change(registry, A, QUALITY, DEVICE, **end)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_check_takes_identifiers_of_its_own_resources_only(registry: Registry) -> None:
    for number, check in enumerate(AUDIT_CHECKS.values()):
        for member, identifier in IDENTIFIERS.items():
            if member == check.identifier:
                suppressions.create(registry, A, check.name, identifier, str(number), indefinitely=True)
            else:
                with pytest.raises(InvalidError):
                    suppressions.create(registry, A, check.name, identifier, "x", indefinitely=True)
    for bad in ({}, {**DEVICE, "account": A.account_id}, {"policyVersionIdentifier": {"policyName": "p"}}):
        with pytest.raises(InvalidError):
            suppressions.create(registry, A, QUALITY, bad, "x", indefinitely=True)
    with pytest.raises(InvalidError, match="no audit check"):
        suppressions.create(registry, A, "NO_SUCH_CHECK", DEVICE, "x", indefinitely=True)


def test_in_force_until_its_end(registry: Registry) -> None:
    end = now() + 60_000
    version = {"policyVersionIdentifier": {"policyName": "p", "policyVersionId": "2"}}
    policy = "IOT_POLICY_OVERLY_PERMISSIVE_CHECK"
    suppressions.create(registry, A, QUALITY, DEVICE, "one", expires_at=end)
    suppressions.create(registry, A, policy, version, "two", indefinitely=True)
    suppressions.create(registry, B, QUALITY, {"deviceCertificateId": "cd" * 32}, "three", indefinitely=True)
    assert in_force(registry, QUALITY, end - 1) == {"deviceCertificateId=" + "ab" * 32}
    assert in_force(registry, QUALITY, end) == set()
    assert in_force(registry, AGE, end - 1) == set()
    assert in_force(registry, policy, end + 10**12) == {"policyVersionIdentifier=p:2"}


@pytest.mark.parametrize("ascending", [True, False])
def test_listed_by_their_end(registry: Registry, ascending: bool) -> None:
    start = now()
    ends: list[int | None] = [start + 60_000 * one for one in (5, 1, 3, 3, 2)]
    for number, end in enumerate([*ends, None, None]):
        identifier = {"deviceCertificateId": f"{number:064x}"}
        check = QUALITY if number % 2 else AGE
        suppressions.create(
            registry, A, check, identifier, str(number), expires_at=end, indefinitely=end is None
        )  # fmt: skip
    found: list[dict[str, Any]] = []
    token = None
    while True:
        page = suppressions.listed(registry, A, token=token, size=2, ascending=ascending)
        found += page.rows
        token = page.next_token
        if token is None:
            break
    in_order = [*sorted(end for end in ends if end), None, None]
    assert [one["expires_at"] for one in found] == (in_order if ascending else in_order[::-1])
    assert len({one["resource_key"] for one in found}) == len(ends) + 2
    assert {one["check_name"] for one in suppressions.listed(registry, A, check_name=AGE).rows} == {AGE}
    chosen = suppressions.listed(registry, A, identifier={"deviceCertificateId": f"{3:064x}"}).rows
    assert [one["resource_key"] for one in chosen] == [f"deviceCertificateId={3:064x}"]
    assert suppressions.listed(registry, B).rows == []
    first = suppressions.listed(registry, A, size=2)
    with pytest.raises(InvalidError):
        suppressions.listed(registry, A, check_name=AGE, token=first.next_token)
    with pytest.raises(InvalidError):
        suppressions.listed(registry, A, check_name="NO_SUCH_CHECK")
