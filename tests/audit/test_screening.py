"""Screening: what is found at registration, where it is written, and what is refused, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from sqlalchemy import insert

import fleet_keys
from issuing_requests import request
from keyassay.audit import fleet_search, screening, suppressions
from keyassay.audit.fleet_pool import SERVER
from keyassay.audit.fleet_search import Search
from keyassay.audit.screening import CHECK, Screen
from keyassay.audit.verdicts import Catalogue, PublicFinding, store
from keyassay.findings import Classification, Confidence, Severity
from keyassay.registry import certificates, issuing, transfers
from keyassay.registry.errors import AlreadyExistsError, BrokenKeyError, InvalidError
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from live_server import client, running
from sharing_devices import sharing
from two_accounts import A, B, Rows
from weak_devices import broken_by_deep_steps, roca_device, weak_key

ROCA = "CERTIFICATE_KEY_VULNERABILITY_CVE-2017-15361"
REPEATED = "CERTIFICATE_KEY_VULNERABILITY_FLEET_REPEATED_KEY"


def screened(registry: Registry, *, refuse: bool = False) -> Registry:
    return Registry(registry.database, registry.seal, screening=Screen(registry.database, refuse=refuse))


def register(registry: Registry, one: fleet_keys.Signed, actor: Any = A) -> str:
    return certificates.register_without_authority(registry, actor, one.pem).id


def test_a_broken_key_is_registered_with_a_finding_at_once(registry: Registry, rows: Rows) -> None:
    one = roca_device()
    register(screened(registry), one)
    (found,) = rows.all("audit_findings")
    today = f"screening-{datetime.now(UTC):%Y%m%d}"
    assert (found["account_id"], found["task_id"], found["check_name"]) == (A.account_id, today, CHECK)
    assert (found["severity"], found["reason_code"], found["suppressed"]) == ("CRITICAL", ROCA, False)
    assert (found["resource_type"], found["resource_key"]) == ("DEVICE_CERTIFICATE", f"deviceCertificateId={one.id}")
    assert found["resource"] == {
        "resourceType": "DEVICE_CERTIFICATE",
        "resourceIdentifier": {"deviceCertificateId": one.id},
    }
    assert found["reason"].startswith("Made by Infineon's RSALib")
    assert found["reason"].endswith(".")
    assert found["evidence"]["evidence"]["verified"] is True
    numbers = one.key.private_numbers()
    for secret in (numbers.p, numbers.q, numbers.d):
        assert f"{secret:x}" not in str(found)
        assert str(secret) not in str(found)
    (task,) = rows.all("audit_tasks")
    assert (task["id"], task["type"], task["status"]) == (today, "ON_DEMAND_AUDIT_TASK", "COMPLETED")
    assert found["task_started_at"] == task["started_at"]
    (counted,) = rows.all("audit_task_checks")
    assert (counted["status"], counted["total"], counted["noncompliant"]) == ("COMPLETED_NON_COMPLIANT", 1, 1)
    assert rows.operations() == ["RegisterCertificateWithoutCA", "ScreenCertificate"]


def test_a_sound_key_leaves_a_verdict_and_nothing_else(registry: Registry, rows: Rows) -> None:
    register(screened(registry), fleet_keys.device(key=fleet_keys.rsa_key(3)))
    register(screened(registry), fleet_keys.device(key=fleet_keys.ec_key(3)))
    assert rows.all("audit_tasks") == rows.all("audit_findings") == []
    assert [row["findings"] for row in rows.all("key_verdicts")] == [None, None]
    assert len(rows.all("catalogues")) == 1
    assert rows.operations() == ["RegisterCertificateWithoutCA"] * 2


def test_what_is_known_of_a_key_is_not_computed_again(
    registry: Registry, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = screened(registry)
    register(first, roca_device(subject="one"))
    register(first, fleet_keys.device(key=fleet_keys.rsa_key(3)))
    monkeypatch.setattr(screening, "assess_items", lambda *_: pytest.fail("computed"))
    register(first, roca_device(subject="one"))
    register(first, roca_device(subject="one"), B)
    register(first, fleet_keys.device(key=fleet_keys.rsa_key(3)))
    assert [row["account_id"] for row in rows.all("audit_findings", reason_code=ROCA)].count(B.account_id) == 1
    assert len(rows.all("audit_findings")) == 3
    assert len(rows.all("key_verdicts")) == 2


def test_only_proven_or_certain_breaks_count(registry: Registry, rows: Rows) -> None:
    one = fleet_keys.device(key=fleet_keys.rsa_key(3))
    strict = screened(registry, refuse=True)
    examined = strict.examine(certificates.read_certificate(one.pem).spki)
    _, catalogue = strict.screening._prepared  # type: ignore[union-attr]
    findings = [
        PublicFinding("x-likely", 1, Classification.BROKEN, Severity.HIGH, Confidence.LIKELY, "CODE", "likely"),
        PublicFinding("x-weak", 1, Classification.WEAK, Severity.HIGH, Confidence.PROVEN, "CODE", "weak"),
    ]
    more = Catalogue("standard", {**catalogue.versions, "x-likely": 1, "x-weak": 1}, catalogue.lists)
    with registry.database.write(A) as transaction:
        store(transaction, more, {examined.digest: findings})  # type: ignore[attr-defined]
    register(strict, one)
    assert rows.all("audit_findings") == []


def test_one_key_under_two_subjects_is_reported_a_renewal_is_not(registry: Registry, rows: Rows) -> None:
    key, here = fleet_keys.ec_key(11), screened(registry)
    first = register(here, fleet_keys.device("sensor-1", key=key))
    register(here, fleet_keys.device("sensor-1", key=key))
    register(here, fleet_keys.device("sensor-2", key=key), B)  # another account
    assert rows.all("audit_findings") == []
    other = register(here, fleet_keys.device("sensor-2", key=key))
    (found,) = rows.all("audit_findings")
    assert (found["reason_code"], found["resource_key"]) == (REPEATED, f"deviceCertificateId={other}")
    assert "and 1 more" in found["reason"]
    related = rows.all("audit_related", finding_id=found["id"])
    assert {"deviceCertificateId": first} in [row["resource"]["resourceIdentifier"] for row in related]
    assert [row["number"] for row in sorted(related, key=lambda row: row["number"])] == [0, 1]


def test_a_key_in_many_images_names_some_and_counts_all(registry: Registry, rows: Rows) -> None:
    key, here = fleet_keys.ec_key(12), screened(registry)
    for number in range(8):
        register(here, fleet_keys.device(f"camera-{number}", key=key))
    last = max(rows.all("audit_findings"), key=lambda row: row["evidence"]["evidence"]["others"])
    assert last["evidence"]["evidence"]["others"] == 7
    assert len(rows.all("audit_related", finding_id=last["id"])) == screening.NAMED
    (counted,) = rows.all("audit_task_checks")
    assert (counted["total"], counted["noncompliant"]) == (7, 7)


@pytest.mark.parametrize("kind", ["broken", "repeated"])
def test_refused_certificates_leave_nothing(registry: Registry, rows: Rows, kind: str) -> None:
    strict = screened(registry, refuse=True)
    one = roca_device()
    if kind == "repeated":
        register(registry, fleet_keys.device("sensor-1", key=fleet_keys.ec_key(13)))
        one = fleet_keys.device("sensor-2", key=fleet_keys.ec_key(13))
    before = [rows.all(table) for table in ("certificates", "changes")]
    with pytest.raises(BrokenKeyError, match="RSALib" if kind == "broken" else "private key of all"):
        register(strict, one)
    assert [rows.all(table) for table in ("certificates", "changes")] == before
    assert rows.all("audit_findings") == rows.all("key_verdicts") == []


def test_what_is_registered_already_says_so_even_if_it_would_be_refused(registry: Registry) -> None:
    one = roca_device()
    register(registry, one)
    with pytest.raises(AlreadyExistsError):
        register(screened(registry, refuse=True), one)


def test_requests_with_broken_keys(registry: Registry, rows: Rows) -> None:
    pem = request("device", weak_key())
    with pytest.raises(InvalidError, match="RSALib"):
        issuing.certify_request(screened(registry, refuse=True), A, pem)
    assert rows.all("certificates") == rows.all("issuers") == []
    issued = issuing.certify_request(screened(registry), A, pem)
    issued_key = f"deviceCertificateId={issued.registered.id}"
    assert [row["resource_key"] for row in rows.all("audit_findings")] == [issued_key]
    issuing.certify_request(screened(registry), A, pem)  # the same subject: no repeated key
    assert {row["reason_code"] for row in rows.all("audit_findings")} == {ROCA}


def test_what_an_audit_has_broken_is_known_at_the_next_registration(
    registry: Registry, rows: Rows, tmp_path: Path
) -> None:
    """Two accounts share a prime; one of them registers another certificate of that key."""
    here, strict = screened(registry), screened(registry, refuse=True)
    mine, theirs = sharing(1, 2), sharing(1, 3)
    register(here, mine)
    register(here, theirs, B)
    fleet_search.compare(registry.database, Search(str(registry.database.url), SERVER, tmp_path / "fleet"))
    assert len(rows.all("server_verdicts")) == 2
    assert rows.all("audit_findings") == []
    again = fleet_keys.device("device 1 2 1", key=mine.key, serial=9)  # of the same subject: no repeated key
    with pytest.raises(BrokenKeyError, match="a certificate of another account of this server"):
        certificates.register_without_authority(strict, A, again.pem, status="ACTIVE")
    register(here, again)
    (found,) = rows.all("audit_findings")
    assert found["reason_code"] == "CERTIFICATE_KEY_VULNERABILITY_FLEET_SHARED_PRIME"
    assert found["resource_key"] == f"deviceCertificateId={again.id}"
    assert not {word for word in (theirs.id, B.account_id) if word in str(found)}
    register(strict, fleet_keys.device(key=fleet_keys.rsa_key(3)))  # a sound one


@pytest.mark.parametrize("kind", ["broken alone", "broken by deep steps", "repeated"])
def test_certificates_from_another_account_are_screened(registry: Registry, rows: Rows, kind: str) -> None:
    one = roca_device() if kind == "broken alone" else fleet_keys.device("sensor-1", key=fleet_keys.ec_key(21))
    register(registry, one)
    digest = rows.all("certificates")[0]["spki_digest"]
    if kind == "broken by deep steps":
        with registry.database.write(A) as transaction:
            transaction.execute(insert(schema.deep_verdicts).values(broken_by_deep_steps(digest)))
    if kind == "repeated":
        register(registry, fleet_keys.device("sensor-2", key=fleet_keys.ec_key(21)), B)
    transfers.offer(registry, A, one.id, B.account_id)
    with pytest.raises(InvalidError, match="refused"):
        transfers.accept(screened(registry, refuse=True), B, one.id)
    assert certificates.describe(registry, A, one.id)["status"] == "PENDING_TRANSFER"
    assert rows.operations(B)[-1] == "TransferCertificate"
    assert rows.all("audit_findings") == []
    transfers.accept(screened(registry), B, one.id, set_as_active=True)
    assert certificates.describe(registry, B, one.id)["status"] == "ACTIVE"
    (found,) = rows.all("audit_findings")
    assert (found["account_id"], found["resource_key"]) == (B.account_id, f"deviceCertificateId={one.id}")


def test_suppressed_findings_are_counted_apart(registry: Registry, rows: Rows) -> None:
    one = roca_device()
    identifier = {"deviceCertificateId": one.id}
    suppressions.create(registry, A, CHECK, identifier, "token", indefinitely=True)
    register(screened(registry), one)
    (found,) = rows.all("audit_findings")
    (counted,) = rows.all("audit_task_checks")
    assert found["suppressed"] is True
    assert (counted["status"], counted["noncompliant"], counted["suppressed"]) == ("COMPLETED_COMPLIANT", 0, 1)


def test_registered_deleted_and_registered_again_on_one_day(registry: Registry, rows: Rows) -> None:
    one, here = roca_device(), screened(registry)
    for _ in range(2):
        register(here, one)
        certificates.remove(here, A, one.id)
    assert len(rows.all("audit_findings")) == 1
    assert [row["total"] for row in rows.all("audit_task_checks")] == [1]


def test_keys_of_every_accepted_kind_are_examined(registry: Registry) -> None:
    here = screened(registry)
    keys = [ec.generate_private_key(curve()) for curve in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)]
    for key in [*keys, dsa.generate_private_key(2048), fleet_keys.rsa_key(4, 3072)]:
        examined: Any = here.examine(certificates.read_certificate(fleet_keys.device(key=key).pem).spki)
        assert examined.new
        assert examined.findings == ()


def test_a_tiny_private_key_on_a_curve(registry: Registry) -> None:
    key = ec.derive_private_key(3, ec.SECP256R1())
    with pytest.raises(BrokenKeyError, match="private key is small"):
        register(screened(registry, refuse=True), fleet_keys.device(key=key))


def test_boto3_sees_findings_and_refusals(database_url: str, tmp_path: Any) -> None:
    with running(tmp_path, database=database_url, screening="refuse") as server:
        api = client(server)
        with pytest.raises(api.exceptions.CertificateValidationException, match="RSALib"):
            api.register_certificate_without_ca(certificatePem=roca_device().pem)
        with pytest.raises(api.exceptions.InvalidRequestException, match="RSALib"):
            api.create_certificate_from_csr(certificateSigningRequest=request("device", weak_key()))
        assert api.list_certificates()["certificates"] == []
        sound = api.register_certificate_without_ca(certificatePem=fleet_keys.device().pem)
        assert sound["certificateId"]
