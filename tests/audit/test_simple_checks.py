"""Checks of dates, revocation lists, policies, logging and connections, on both databases."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

import fleet_keys
from auditing import audit, enable, findings, issues_with, summary, worker
from keyassay.audit import suppressions, tasks
from keyassay.audit.connection_checks import HANDOVER
from keyassay.findings import Profile
from keyassay.registry import authorities, certificates, documents, issuing, policies
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from two_accounts import A, B

EXPIRING = "DEVICE_CERTIFICATE_EXPIRING_CHECK"
CA_EXPIRING = "CA_CERTIFICATE_EXPIRING_CHECK"
AGE = "DEVICE_CERTIFICATE_AGE_CHECK"
REVOKED = "REVOKED_DEVICE_CERTIFICATE_STILL_ACTIVE_CHECK"
CA_REVOKED = "REVOKED_CA_CERTIFICATE_STILL_ACTIVE_CHECK"
INTERMEDIATE = "INTERMEDIATE_CA_REVOKED_FOR_ACTIVE_DEVICE_CERTIFICATES_CHECK"
PERMISSIVE = "IOT_POLICY_OVERLY_PERMISSIVE_CHECK"
MISCONFIGURED = "IOT_POLICY_POTENTIAL_MISCONFIGURATION_CHECK"
LOGGING = "LOGGING_DISABLED_CHECK"
SHARED = "DEVICE_CERTIFICATE_SHARED_CHECK"
CONFLICTING = "CONFLICTING_CLIENT_IDS_CHECK"
DAY = 86_400_000


def register(registry: Registry, *devices: fleet_keys.Signed, status: str = "ACTIVE") -> None:
    for one in devices:
        certificates.register_without_authority(registry, A, one.pem, status=status)


def age(registry: Registry, certificate_id: str, **columns: int) -> None:
    with registry.database.write(A) as transaction:
        here = schema.certificates.c.id == certificate_id
        transaction.execute(schema.certificates.update().where(here).values(columns))


def test_certificates_that_end(registry: Registry, rows: Any) -> None:
    enable(registry, **{EXPIRING: {"CERT_EXPIRATION_THRESHOLD_IN_DAYS": "60"}})
    soon, later, past, idle = (fleet_keys.device(f"device {days}", days=(-9, days)) for days in (59, 61, 2, 3))
    register(registry, soon, later, past)
    register(registry, idle, status="INACTIVE")
    age(registry, past.id, not_after=time.time_ns() // 1_000_000 - 1_000)
    task = audit(registry, EXPIRING)
    assert summary(task, EXPIRING) == ("COMPLETED_NON_COMPLIANT", 3, 2, 0)
    assert findings(rows, task, EXPIRING) == {
        (soon.id, "CERTIFICATE_APPROACHING_EXPIRATION"),
        (past.id, "CERTIFICATE_PAST_EXPIRATION"),
    }
    (row,) = rows.all("audit_findings", resource_key=f"deviceCertificateId={soon.id}")
    assert (row["severity"], row["reason"]) == ("MEDIUM", "The certificate expires soon.")
    ends = round(soon.certificate.not_valid_after_utc.timestamp() * 1000)
    assert row["resource"]["additionalInfo"] == {"EXPIRATION_TIME": str(ends)}


def test_authorities_that_end(registry: Registry, rows: Any) -> None:
    enable(registry)
    soon, later = (
        fleet_keys.certificate(f"CA {days}", fleet_keys.ec_key(80), is_authority=True, days=(-9, days))
        for days in (29, 31)
    )
    for one in (soon, later):
        authorities.register(registry, A, one.pem, mode="SNI_ONLY", set_as_active=True)
    task = audit(registry, CA_EXPIRING)
    assert findings(rows, task, CA_EXPIRING) == {(soon.id, "CERTIFICATE_APPROACHING_EXPIRATION")}


def test_the_authority_that_issues_ends_and_is_revoked_as_others(registry: Registry, rows: Any) -> None:
    enable(registry)
    root = fleet_keys.certificate("Root", fleet_keys.ec_key(81), is_authority=True)
    own = fleet_keys.certificate("Plant CA", fleet_keys.ec_key(82), root, is_authority=True, days=(-9, 20))
    issues_with(registry, own)
    later = fleet_keys.certificate("CA", fleet_keys.ec_key(83), is_authority=True)
    for one in (root, later):
        authorities.register(registry, A, one.pem, mode="SNI_ONLY", set_as_active=True)
    store_list(registry, root, crl(root, own))
    task = audit(registry, CA_EXPIRING, CA_REVOKED)
    assert findings(rows, task, CA_EXPIRING) == {(own.id, "CERTIFICATE_APPROACHING_EXPIRATION")}
    assert findings(rows, task, CA_REVOKED) == {(own.id, "CERTIFICATE_REVOKED_BY_ISSUER")}
    assert summary(task, CA_EXPIRING) == summary(task, CA_REVOKED) == ("COMPLETED_NON_COMPLIANT", 3, 1, 0)
    begin = "This authority issues the account's certificates (`keyassay ca list`); "
    assert {row["reason"] for row in rows.all("audit_findings")} == {
        f"{begin}the certificate expires soon.",
        f"{begin}its issuer has revoked the certificate, which is still active.",
    }
    task = audit(registry, CA_EXPIRING, profile=Profile.AWS)  # AWS's own authority is none of the account's
    assert summary(task, CA_EXPIRING) == ("COMPLETED_COMPLIANT", 2, 0, 0)
    issues_with(registry, fleet_keys.certificate("New CA", fleet_keys.ec_key(84), is_authority=True))
    assert findings(rows, audit(registry, CA_EXPIRING), CA_EXPIRING) == set()  # it issues no longer


def test_certificates_in_use_for_long(registry: Registry, rows: Any) -> None:
    enable(registry, **{AGE: {"CERT_AGE_THRESHOLD_IN_DAYS": "100"}})
    old, young = fleet_keys.device("old"), fleet_keys.device("young")
    register(registry, old, young)
    now = time.time_ns() // 1_000_000
    age(registry, old.id, created_at=now - 101 * DAY)
    age(registry, young.id, created_at=now - 99 * DAY)
    task = audit(registry, AGE)
    assert findings(rows, task, AGE) == {(old.id, "CERTIFICATE_PAST_AGE_THRESHOLD")}


def crl(signer: fleet_keys.Signed, *revoked: fleet_keys.Signed, key: Any = None, indirect: bool = False) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.certificate.subject)
        .last_update(fleet_keys.NOW - timedelta(days=1))
        .next_update(fleet_keys.NOW + timedelta(days=1))
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(fleet_keys.NOW).build())
    if indirect:
        point = x509.IssuingDistributionPoint(None, None, False, False, None, True, False)
        builder = builder.add_extension(point, critical=True)
    return builder.sign(key or signer.key, hashes.SHA256()).public_bytes(Encoding.DER)


def store_list(registry: Registry, issuer: fleet_keys.Signed, der: bytes, source: str = "upload") -> None:
    with registry.database.write(A) as transaction:
        transaction.execute(
            schema.revocation_lists.insert().values(
                account_id=A.account_id,
                issuer_digest=hashlib.sha256(issuer.certificate.subject.public_bytes()).digest(),
                source=source,
                der=der,
                this_update=transaction.now,
                stored_at=transaction.now,
            )
        )


def below(name: str, number: int, issuer: fleet_keys.Signed) -> fleet_keys.Signed:
    return fleet_keys.certificate(name, fleet_keys.ec_key(number), issuer, is_authority=True)


@pytest.fixture
def chain(registry: Registry) -> tuple[fleet_keys.Signed, fleet_keys.Signed, fleet_keys.Signed]:
    """A root, an authority below it, and one below that, all registered."""
    root = fleet_keys.authority("Root", 110)
    middle = below("Middle", 111, root)
    lowest = below("Lowest", 112, middle)
    for one in (root, middle, lowest):
        authorities.register(registry, A, one.pem, mode="SNI_ONLY", set_as_active=True)
    return root, middle, lowest


def test_revoked_devices(registry: Registry, rows: Any, chain: Sequence[fleet_keys.Signed]) -> None:
    enable(registry)
    _, _, lowest = chain
    revoked, sound, idle = (fleet_keys.device(f"device {number}", lowest) for number in range(3))
    other = fleet_keys.device("device", below("Lowest", 113, chain[0]), serial=revoked.certificate.serial_number)
    certificates.register(registry, A, revoked.pem, status="ACTIVE")
    certificates.register(registry, A, sound.pem, status="ACTIVE")
    certificates.register(registry, A, idle.pem)
    register(registry, other)
    assert summary(audit(registry, REVOKED), REVOKED) == ("COMPLETED_COMPLIANT", 3, 0, 0)
    store_list(registry, lowest, crl(lowest, sound, key=fleet_keys.ec_key(99)), "forged")
    store_list(registry, lowest, crl(lowest, sound, indirect=True), "indirect")
    store_list(registry, lowest, b"no list", "broken")
    assert summary(audit(registry, REVOKED), REVOKED) == ("COMPLETED_COMPLIANT", 3, 0, 0)
    store_list(registry, lowest, crl(lowest, revoked, idle))
    task = audit(registry, REVOKED)
    assert (revoked.id, "CERTIFICATE_REVOKED_BY_ISSUER") in findings(rows, task, REVOKED)
    assert not {sound.id, idle.id} & {key for key, _ in findings(rows, task, REVOKED)}


def test_revoked_authorities_and_what_is_below_them(
    registry: Registry, rows: Any, chain: Sequence[fleet_keys.Signed]
) -> None:
    enable(registry)
    root, middle, lowest = chain
    store_list(registry, root, crl(root, middle))
    task = audit(registry, CA_REVOKED, INTERMEDIATE)
    assert findings(rows, task, CA_REVOKED) == {(middle.id, "CERTIFICATE_REVOKED_BY_ISSUER")}
    assert summary(task, CA_REVOKED) == ("COMPLETED_NON_COMPLIANT", 3, 1, 0)
    assert summary(task, INTERMEDIATE) == ("COMPLETED_COMPLIANT", 2, 0, 0)  # nothing active is below
    device = fleet_keys.device("device", lowest)
    certificates.register(registry, A, device.pem, status="ACTIVE")
    task = audit(registry, INTERMEDIATE)
    assert findings(rows, task, INTERMEDIATE) == {(middle.id, "INTERMEDIATE_CA_REVOKED_BY_ISSUER")}
    (finding,) = rows.all("audit_findings", task_id=task.row["id"])
    identifier = finding["resource"]["resourceIdentifier"]["issuerCertificateIdentifier"]
    assert (identifier["issuerId"], identifier["issuerCertificateSubject"]) == (middle.id, "CN=Middle")
    related = rows.all("audit_related", finding_id=finding["id"])
    assert [one["resource"]["resourceIdentifier"] for one in related] == [{"deviceCertificateId": device.id}]


def test_a_revoked_authority_above_what_the_account_itself_issued(
    registry: Registry, rows: Any, chain: Sequence[fleet_keys.Signed]
) -> None:
    enable(registry)
    root, middle, _ = chain
    first, second = below("Plant CA", 114, middle), fleet_keys.authority("Next CA", 115)
    issues_with(registry, first)
    issued = issuing.make_keys(registry, A, set_as_active=True)
    issues_with(registry, second)  # what the first has issued is active still
    store_list(registry, middle, crl(middle, first))
    task = audit(registry, INTERMEDIATE)
    assert summary(task, INTERMEDIATE) == ("COMPLETED_NON_COMPLIANT", 3, 1, 0)
    assert findings(rows, task, INTERMEDIATE) == {(first.id, "INTERMEDIATE_CA_REVOKED_BY_ISSUER")}
    (finding,) = rows.all("audit_findings", task_id=task.row["id"])
    related = rows.all("audit_related", finding_id=finding["id"])
    assert [one["resource"]["resourceIdentifier"] for one in related] == [{"deviceCertificateId": issued.registered.id}]
    task = audit(registry, INTERMEDIATE, profile=Profile.AWS)
    assert summary(task, INTERMEDIATE) == ("COMPLETED_COMPLIANT", 2, 0, 0)
    store_list(registry, root, crl(root, middle))
    task = audit(registry, INTERMEDIATE)
    reason = "INTERMEDIATE_CA_REVOKED_BY_ISSUER"
    assert findings(rows, task, INTERMEDIATE) == {(first.id, reason), (middle.id, reason)}


def policy(registry: Registry, name: str, *statements: dict[str, Any], actor: Any = A) -> None:
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    policies.create(registry, actor, name, json.dumps(document))


def test_policies(registry: Registry, rows: Any) -> None:
    enable(registry)
    every = {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}
    one = {"Effect": "Allow", "Action": "iot:Connect", "Resource": "arn:aws:iot:us-east-1:111111111111:client/one"}
    denied = {"Effect": "Deny", "Action": "iot:Subscribe", "Resource": "arn:aws:iot:us-east-1:1:topicfilter/a/#"}
    policy(registry, "every", every)
    policy(registry, "one", one)
    policy(registry, "denied", one, denied)
    policy(registry, "theirs", every, actor=B)
    task = audit(registry, PERMISSIVE, MISCONFIGURED)
    assert findings(rows, task, PERMISSIVE) == {("every:1", "ALLOWS_BROAD_ACCESS_TO_IOT_DATA_PLANE_ACTIONS")}
    assert summary(task, PERMISSIVE)[1:3] == (3, 1)
    assert findings(rows, task, MISCONFIGURED) == {("denied:1", "POLICY_CONTAINS_MQTT_WILDCARDS_IN_DENY_STATEMENT")}
    policies.create_version(
        registry, A, "every", json.dumps({"Version": "2012-10-17", "Statement": [one]}), set_as_default=True
    )
    assert summary(audit(registry, PERMISSIVE), PERMISSIVE)[0] == "COMPLETED_COMPLIANT"


def test_a_resource_with_several_reasons_counts_once_suppressed_or_not(registry: Registry, rows: Any) -> None:
    enable(registry)
    room = "arn:aws:iot:us-east-1:111111111111:{}/building/{}"
    subscribe = {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": room.format("topicfilter", "*")}
    no_room = {"Effect": "Deny", "Action": "iot:Subscribe", "Resource": room.format("topicfilter", "room/*")}
    receive = {"Effect": "Allow", "Action": "iot:Receive", "Resource": room.format("topic", "*")}
    denied = {"Effect": "Deny", "Action": "iot:Receive", "Resource": room.format("topic", "room/#")}
    policy(registry, "both", subscribe, no_room, receive, denied)
    task = audit(registry, MISCONFIGURED)
    assert len(findings(rows, task, MISCONFIGURED)) == 2
    assert summary(task, MISCONFIGURED) == ("COMPLETED_NON_COMPLIANT", 1, 1, 0)
    which = {"policyVersionIdentifier": {"policyName": "both", "policyVersionId": "1"}}
    suppressions.create(registry, A, MISCONFIGURED, which, "token", indefinitely=True)
    task = audit(registry, MISCONFIGURED)
    assert len(findings(rows, task, MISCONFIGURED)) == 2
    assert summary(task, MISCONFIGURED) == ("COMPLETED_COMPLIANT", 1, 0, 1)


def test_logging(registry: Registry, rows: Any) -> None:
    enable(registry)
    task = audit(registry, LOGGING)
    assert findings(rows, task, LOGGING) == {(A.account_id, "LOGGING_DISABLED")}
    documents.set_logging_options(registry, A, role_arn="arn:aws:iam::111111111111:role/log", default_level="INFO")
    assert summary(audit(registry, LOGGING), LOGGING) == ("COMPLETED_COMPLIANT", 1, 0, 0)
    documents.set_logging_options(registry, A, disable_all=True)
    assert summary(audit(registry, LOGGING), LOGGING) == ("COMPLETED_NON_COMPLIANT", 1, 1, 0)


def connect(
    registry: Registry,
    certificate_id: str,
    client_id: str,
    start: int,
    end: int | None,
    actor: Any = A,
    *,
    sent: int | None = 0,
) -> None:
    """A connection, in milliseconds from now (negative ones are past); it sent until its end, or until ``sent``."""
    with registry.database.write(actor) as transaction:
        serial = f"{client_id}/{start}/{certificate_id[:8]}"[:36]
        transaction.execute(
            schema.connections.insert().values(
                account_id=actor.account_id,
                id=serial,
                gate="gate-1",
                certificate_id=certificate_id,
                client_id=client_id,
                source="192.0.2.1",
                tls_version="TLSv1.3",
                verdict="ok",
                started_at=transaction.now + start,
                recorded_at=transaction.now + start,
                seen_at=transaction.now + (end or 0),
                ended_at=None if end is None else transaction.now + end,
                sent_at=None if sent is None else transaction.now + min(sent, end or 0),
            )
        )


def test_shared_certificates(registry: Registry, rows: Any) -> None:
    enable(registry)
    shared, renamed, crossed, old, long = (fleet_keys.device(f"device {number}") for number in range(5))
    register(registry, shared, renamed, crossed, old, long)
    connect(registry, shared.id, "one", -90_000, None)
    connect(registry, shared.id, "two", -80_000, -20_000)
    connect(registry, renamed.id, "one", -90_000, -50_000)
    connect(registry, renamed.id, "two", -50_000, None)
    connect(registry, crossed.id, "one", -90_000, -50_000 + HANDOVER)
    connect(registry, crossed.id, "two", -50_000, None)
    connect(registry, old.id, "one", -40 * DAY, -39 * DAY)
    connect(registry, old.id, "two", -40 * DAY, -39 * DAY)
    connect(registry, long.id, "one", -40 * DAY, None)  # behind two short ones that do not meet
    connect(registry, long.id, "one", -30 * DAY, -29 * DAY)
    connect(registry, long.id, "three", -60_000, -40_000)
    quiet = [fleet_keys.device(f"quiet {number}") for number in range(4)]
    register(registry, *quiet)
    connect(registry, quiet[0].id, "half open", -90_000, None, sent=-81_000)
    connect(registry, quiet[0].id, "moved", -80_000, None)
    connect(registry, quiet[1].id, "bytes are not counted", -90_000, None, sent=None)
    connect(registry, quiet[1].id, "moved", -80_000, None, sent=None)
    connect(registry, quiet[2].id, "", -90_000, None)  # not known
    connect(registry, quiet[2].id, "pump", -80_000, None)
    connect(registry, quiet[3].id, "for hours", -9_000_000, None, sent=None)
    connect(registry, quiet[3].id, "for an hour", -4_000_000, None, sent=None)
    task = audit(registry, SHARED)
    code = "CERTIFICATE_SHARED_BY_MULTIPLE_DEVICES"
    assert findings(rows, task, SHARED) == {(shared.id, code), (long.id, code), (quiet[3].id, code)}
    (finding,) = rows.all("audit_findings", resource_key=f"deviceCertificateId={shared.id}")
    related = rows.all("audit_related", finding_id=finding["id"])
    assert sorted(one["resource"]["resourceIdentifier"]["clientId"] for one in related) == ["one", "two"]


def test_conflicting_client_ids(registry: Registry, rows: Any) -> None:
    enable(registry)
    one, two = "a" * 64, "b" * 64
    connect(registry, one, "at once", -90_000, None)
    connect(registry, two, "at once", -80_000, None)
    connect(registry, one, "returns", -90_000, -80_000)
    connect(registry, two, "returns", -80_000, -70_000)
    connect(registry, one, "returns", -70_000, -60_000)
    connect(registry, two, "returns", -60_000, -50_000)
    connect(registry, one, "tried", -90_000, -80_000)
    connect(registry, two, "tried", -80_000, -70_000)
    connect(registry, one, "tried", -70_000, None)
    connect(registry, one, "half open", -90_000, None, sent=-81_000)
    connect(registry, two, "half open", -80_000, None)
    connect(registry, one, "moves", -90_000, None, sent=None)
    connect(registry, one, "moves", -80_000, None)
    connect(registry, one, "renewed", -90_000, -80_000)
    connect(registry, two, "renewed", -80_000, None)
    connect(registry, one, "alone", -90_000, -80_000)
    connect(registry, one, "alone", -70_000, -60_000)
    connect(registry, one, "theirs", -90_000, None, actor=B)
    task = audit(registry, CONFLICTING)
    code = "DUPLICATE_CLIENT_ID_ACROSS_CONNECTIONS"
    assert findings(rows, task, CONFLICTING) == {("at once", code), ("returns", code)}
    assert summary(task, CONFLICTING) == ("COMPLETED_NON_COMPLIANT", 7, 2, 0)


def test_scheduled_audits_see_events_since_their_last_run(registry: Registry, rows: Any) -> None:
    enable(registry)
    connect(registry, "a" * 64, "at once", -9_000, -1)
    connect(registry, "b" * 64, "at once", -9_000, -1)
    for expected in (1, 0):
        task_id = tasks.start(registry, A, [CONFLICTING], scheduled_audit_name="nightly", type=tasks.TaskType.SCHEDULED)
        assert worker(registry).turn()
        assert len(rows.all("audit_findings", task_id=task_id)) == expected
        time.sleep(0.01)
