"""Devices that register themselves: what is verified again, what is bounded, what is published, what is activated."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import insert

import fleet_keys
import weak_devices
from connecting import now, refused, tell, unregistered
from keyassay.audit.screening import Screen
from keyassay.registry import authorities, auto_registration, certificates, transfers
from keyassay.registry.documents import write_document
from keyassay.registry.errors import CertificateStateError, InvalidError
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from two_accounts import A, B

TARGET = "arn:aws:sns:us-east-1:111111111111:alarms"
CA = fleet_keys.authority("Fleet CA", 100)


def with_authority(registry: Registry, authority: Any = CA, actor: Any = A, **more: Any) -> str:
    settings = {"mode": "SNI_ONLY", "set_as_active": True, "auto_registration": True, **more}
    return authorities.register(registry, actor, authority.pem, **settings).id


def outcome(registry: Registry, device: fleet_keys.Signed, **more: Any) -> str:
    """What a gate is answered: a status, or why not."""
    actor = more.pop("actor", A)
    (answer,) = tell(registry, unregistered(device, **more), actor=actor)["registrations"]
    assert answer["certificateId"] == device.id
    return str(answer.get("status") or answer["refused"])


def published(rows: Any) -> list[dict[str, Any]]:
    return [json.loads(row["payload"]) for row in sorted(rows.all("device_messages"), key=lambda row: row["number"])]


def test_an_unknown_device_is_registered_once_and_announced(registry: Registry, rows: Any) -> None:
    ca = with_authority(registry)
    with registry.database.write(A) as transaction:
        target = {"SNS": {"targetArn": TARGET, "enabled": True}}
        write_document(transaction, "audit", {"auditNotificationTargetConfigurations": target})
    device = fleet_keys.device("new", CA)
    for _ in range(2):
        assert outcome(registry, device) == "PENDING_ACTIVATION"
    found = certificates.describe(registry, A, device.id)
    assert (found["status"], found["ca_certificate_id"], found["mode"]) == ("PENDING_ACTIVATION", ca, "SNI_ONLY")
    (message,) = rows.all("device_messages")
    assert message["topic"] == f"$aws/events/certificates/registered/{ca}"
    payload = json.loads(message["payload"])
    assert payload == {
        "certificateId": device.id,
        "caCertificateId": ca,
        "timestamp": found["created_at"],
        "certificateStatus": "PENDING_ACTIVATION",
        "awsAccountId": A.account_id,
        "certificateRegistrationTimestamp": str(found["created_at"]),
    }
    (sent,) = rows.all("outbox")
    assert (sent["target"], json.loads(sent["body"])) == (TARGET, payload)
    assert rows.operations()[-1] == "AutoRegisterCertificate"
    certificates.set_status(registry, A, device.id, "ACTIVE")
    assert outcome(registry, device) == "ACTIVE"


def test_a_device_that_waits_is_announced_again(registry: Registry, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_authority(registry)
    device = fleet_keys.device("new", CA)
    outcome(registry, device)
    tell(registry, refused(device.id))
    assert len(published(rows)) == 1
    monkeypatch.setattr(auto_registration, "AGAIN", -1)
    tell(registry, refused(device.id, at=now() - 1), refused(device.id, source="192.0.2.1:7"))
    tell(registry, refused(device.id, "handshake", at=now() - 2))
    first, second = published(rows)
    assert first["certificateRegistrationTimestamp"] == second["certificateRegistrationTimestamp"]
    certificates.set_status(registry, A, device.id, "INACTIVE")
    tell(registry, refused(device.id, at=now() - 3))
    assert len(published(rows)) == 2


def test_many_that_wait_are_announced_again_each_once(
    registry: Registry, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_authority(registry)
    devices = [fleet_keys.device(f"new-{number}", CA) for number in range(8)]
    assert {outcome(registry, one) for one in devices} == {"PENDING_ACTIVATION"}
    assert sorted(one["certificateId"] for one in published(rows)) == sorted(one.id for one in devices)
    told = [refused(one.id, source=f"192.0.2.{port}:{port}") for port in (1, 2) for one in devices]
    tell(registry, *told[:8])
    assert len(published(rows)) == 8
    monkeypatch.setattr(auto_registration, "AGAIN", -1)
    tell(registry, *told)
    again = published(rows)[8:]
    assert sorted(one["certificateId"] for one in again) == sorted(one.id for one in devices)
    monkeypatch.setattr(auto_registration, "AGAIN", 60_000)
    tell(registry, *(refused(one.id, source="192.0.2.3:3") for one in devices))
    assert len(published(rows)) == 16


def test_the_gate_is_not_believed(registry: Registry, rows: Any) -> None:
    """Whatever a gate says of the chain: the registry verifies again."""
    with_authority(registry)
    foreign = fleet_keys.authority("Foreign CA", 110)
    impostor = fleet_keys.authority("Fleet CA", 111)
    for device, problem in (
        (fleet_keys.certificate("self-signed", fleet_keys.ec_key(3)), "signed"),
        (fleet_keys.device("foreign", foreign), "signed"),
        (fleet_keys.device("impostor", impostor), "signed"),
        (fleet_keys.device("old", CA, days=(-30, -1)), "expired"),
        (fleet_keys.device("early", CA, days=(1, 30)), "not valid yet"),
        (fleet_keys.device("small", CA, key=fleet_keys.rsa_key(1, 1024)), "2048"),
    ):
        assert problem in outcome(registry, device)
    assert rows.all("certificates") == rows.all("device_messages") == []


def test_only_chains_that_held_are_looked_at(registry: Registry, rows: Any) -> None:
    with_authority(registry)
    device = fleet_keys.device("new", CA)
    for more in ({"verifyCode": 20}, {"verifyCode": 18}, {"verdict": "inactive"}, {"der": None}):
        assert tell(registry, {**unregistered(device), **more})["registrations"] == []
    (answer,) = tell(registry, {**unregistered(device), "der": "AAAA"})["registrations"]
    assert "DER" in answer["refused"]
    assert rows.all("certificates") == []


@pytest.mark.parametrize("settings", [{"set_as_active": False}, {"auto_registration": False}])
def test_the_authority_has_to_allow_it(registry: Registry, rows: Any, settings: Any) -> None:
    with_authority(registry, **settings)
    assert "signed" in outcome(registry, fleet_keys.device("new", CA))
    assert rows.all("certificates") == []


def test_an_authority_that_has_expired_registers_nobody(registry: Registry, rows: Any) -> None:
    with_authority(registry)
    with registry.database.write(A) as transaction:
        from keyassay.storage import schema

        transaction.execute(schema.authorities.update().values(der=_expired()))
    assert "authority" in outcome(registry, fleet_keys.device("new", CA))
    assert rows.all("certificates") == []


def _expired() -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    old = fleet_keys.certificate("Fleet CA", CA.key, is_authority=True, days=(-30, -1))
    return bytes(old.certificate.public_bytes(Encoding.DER))


def test_of_the_account_itself(registry: Registry, rows: Any) -> None:
    with_authority(registry, actor=B)
    assert "signed" in outcome(registry, fleet_keys.device("new", CA))
    assert outcome(registry, fleet_keys.device("new", CA), actor=B) == "PENDING_ACTIVATION"


def test_two_certificates_of_one_authority_key_are_no_conflict(registry: Registry) -> None:
    with_authority(registry)
    renewed = fleet_keys.certificate("Fleet CA", CA.key, is_authority=True)
    second = with_authority(registry, renewed)
    device = fleet_keys.device("new", CA)
    assert outcome(registry, device) == "PENDING_ACTIVATION"
    assert certificates.describe(registry, A, device.id)["ca_certificate_id"] == second


def test_at_most_ten_in_a_second(registry: Registry, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_authority(registry)
    other = fleet_keys.authority("Other CA", 112)
    with_authority(registry, other)
    monkeypatch.setattr(auto_registration, "A_SECOND", 3)
    devices = [fleet_keys.device(f"device {number}", CA) for number in range(8)]
    answers = tell(registry, *map(unregistered, devices), unregistered(fleet_keys.device("x", other)))["registrations"]
    took = [one.get("status") for one in answers]
    assert took[:3] == ["PENDING_ACTIVATION"] * 3
    assert None in took
    assert took[-1] == "PENDING_ACTIVATION"
    threading.Event().wait(1.1)
    assert outcome(registry, devices[-1]) == "PENDING_ACTIVATION"


def test_devices_that_wait_are_bounded(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    with_authority(registry)
    monkeypatch.setattr(auto_registration, "PENDING", 2)
    first, *rest = [fleet_keys.device(f"device {number}", CA) for number in range(3)]
    assert outcome(registry, first) == outcome(registry, rest[0]) == "PENDING_ACTIVATION"
    assert "wait" in outcome(registry, rest[1])
    certificates.set_status(registry, A, first.id, "ACTIVE")
    assert outcome(registry, rest[1]) == "PENDING_ACTIVATION"


# Keys


def screened(registry: Registry, *, refuse: bool = False, **more: Any) -> Registry:
    screen = Screen(registry.database, refuse=refuse)
    return Registry(registry.database, registry.seal, screening=screen, **more)


@pytest.fixture
def broken() -> fleet_keys.Signed:
    return fleet_keys.device("broken", CA, key=weak_devices.weak_key())


def test_a_broken_key_is_not_activated(registry: Registry, rows: Any, broken: fleet_keys.Signed) -> None:
    careful = screened(registry)
    with_authority(careful)
    sound = fleet_keys.device("sound", CA)
    for device in (broken, sound):
        assert outcome(careful, device) == "PENDING_ACTIVATION"
    (finding,) = rows.all("audit_findings")  # assessed at once
    assert finding["resource"]["resourceIdentifier"] == {"deviceCertificateId": broken.id}
    certificates.set_status(careful, A, sound.id, "ACTIVE")
    with pytest.raises(CertificateStateError, match="broken"):
        certificates.set_status(careful, A, broken.id, "ACTIVE")
    assert certificates.describe(careful, A, broken.id)["status"] == "PENDING_ACTIVATION"
    certificates.set_status(screened(registry, activate_broken=True), A, broken.id, "ACTIVE")
    assert certificates.describe(careful, A, broken.id)["status"] == "ACTIVE"


def test_a_broken_key_is_not_activated_by_way_of_inactive(registry: Registry, broken: fleet_keys.Signed) -> None:
    careful, careless = screened(registry), screened(registry, activate_broken=True)
    with_authority(careful)
    sound = fleet_keys.device("sound", CA)
    for device in (broken, sound):
        outcome(careful, device)
        certificates.set_status(careful, A, device.id, "INACTIVE")
    certificates.set_status(careful, A, sound.id, "ACTIVE")
    for _ in range(2):
        with pytest.raises(CertificateStateError, match="broken"):
            certificates.set_status(careful, A, broken.id, "ACTIVE")
    transfers.offer(careful, A, broken.id, B.account_id)
    transfers.cancel(careful, A, broken.id)
    with pytest.raises(CertificateStateError, match="broken"):
        certificates.set_status(careful, A, broken.id, "ACTIVE")
    certificates.set_status(careless, A, broken.id, "ACTIVE")
    certificates.set_status(careful, A, broken.id, "INACTIVE")
    certificates.set_status(careful, A, broken.id, "ACTIVE")  # somebody has decided about it


def test_a_key_that_a_deep_audit_has_broken_is_not_activated(registry: Registry) -> None:
    careful = screened(registry)
    with_authority(careful)
    device = fleet_keys.device("factored", CA)
    assert outcome(careful, device) == "PENDING_ACTIVATION"
    key = x509.load_pem_x509_certificate(device.pem.encode()).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    with registry.database.write(A) as transaction:
        transaction.execute(insert(schema.deep_verdicts).values(weak_devices.broken_by_deep_steps(digest)))
    with pytest.raises(CertificateStateError, match="p - 1 is smooth"):
        certificates.set_status(careful, A, device.id, "ACTIVE")


@pytest.mark.parametrize("table", ["fleet_verdicts", "server_verdicts"])
def test_a_key_that_is_broken_beside_others_is_not_activated(registry: Registry, rows: Any, table: str) -> None:
    """Whatever the server compares now: what all accounts' keys have shown counts as what the account's own did."""
    careful = screened(registry)
    with_authority(careful)
    device = fleet_keys.device("sharing", CA)
    assert outcome(careful, device) == "PENDING_ACTIVATION"
    (row,) = rows.all("certificates")
    verdict = weak_devices.broken_beside_others(A.account_id, row["spki_digest"])
    elsewhere = {**verdict, "account_id": B.account_id}
    with registry.database.write(A) as transaction:
        transaction.execute(insert(schema.METADATA.tables[table]).values([elsewhere]))
    certificates.set_status(careful, A, device.id, "INACTIVE")
    with registry.database.write(A) as transaction:
        transaction.execute(insert(schema.METADATA.tables[table]).values([verdict]))
    with pytest.raises(CertificateStateError, match="shares a prime"):
        certificates.set_status(careful, A, device.id, "ACTIVE")
    assert certificates.describe(careful, A, device.id)["status"] == "INACTIVE"


def test_a_finding_of_an_older_version_of_its_check_hinders_nothing(registry: Registry, rows: Any) -> None:
    careful = screened(registry)
    with_authority(careful)
    device = fleet_keys.device("sharing", CA)
    outcome(careful, device)
    (row,) = rows.all("certificates")
    verdict = weak_devices.broken_beside_others(A.account_id, row["spki_digest"])
    verdict["finding"]["version"] -= 1
    with registry.database.write(A) as transaction:
        transaction.execute(insert(schema.fleet_verdicts).values(verdict))
    certificates.set_status(careful, A, device.id, "ACTIVE")


def test_a_broken_key_is_not_activated_by_way_of_a_transfer(registry: Registry, broken: fleet_keys.Signed) -> None:
    careful, careless = screened(registry), screened(registry, activate_broken=True)
    with_authority(careful)
    outcome(careful, broken)
    certificates.set_status(careful, A, broken.id, "INACTIVE")
    transfers.offer(careful, A, broken.id, B.account_id)
    with pytest.raises(InvalidError, match="broken"):
        transfers.accept(careful, B, broken.id, set_as_active=True)
    assert certificates.describe(careful, A, broken.id)["status"] == "PENDING_TRANSFER"
    transfers.accept(careful, B, broken.id)
    with pytest.raises(CertificateStateError, match="broken"):
        certificates.set_status(careful, B, broken.id, "ACTIVE")
    transfers.offer(careful, B, broken.id, A.account_id)  # and back
    transfers.accept(careful, A, broken.id)
    with pytest.raises(CertificateStateError, match="broken"):
        certificates.set_status(careful, A, broken.id, "ACTIVE")
    transfers.offer(careful, A, broken.id, B.account_id)
    transfers.accept(careless, B, broken.id, set_as_active=True)
    for status in ("INACTIVE", "ACTIVE"):  # somebody has decided about it
        certificates.set_status(careful, B, broken.id, status)


def test_certificates_that_were_active_or_that_somebody_registered_go_as_on_aws(
    registry: Registry, broken: fleet_keys.Signed
) -> None:
    careful = screened(registry)
    with_authority(careful)
    outcome(registry, broken)  # without screening
    certificates.set_status(careful, A, broken.id, "ACTIVE")
    screen = careful.screening
    assert isinstance(screen, Screen)
    spki = broken.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    examined = screen.examine(spki)
    with registry.database.write(A) as transaction:  # later somebody looks at its key
        screen.keep(transaction, examined)
    certificates.set_status(careful, A, broken.id, "INACTIVE")
    certificates.set_status(careful, A, broken.id, "ACTIVE")
    certificates.set_status(careful, A, broken.id, "INACTIVE")
    certificates.remove(careful, A, broken.id)
    assert outcome(careful, broken) == "PENDING_ACTIVATION"
    with pytest.raises(CertificateStateError, match="broken"):
        certificates.set_status(careful, A, broken.id, "ACTIVE")
    certificates.remove(careful, A, broken.id)
    certificates.register(careful, A, broken.pem, status="INACTIVE")
    certificates.set_status(careful, A, broken.id, "ACTIVE")


def test_a_broken_key_may_be_revoked(registry: Registry, broken: fleet_keys.Signed) -> None:
    careful = screened(registry)
    with_authority(careful)
    outcome(careful, broken)
    certificates.set_status(careful, A, broken.id, "REVOKED")


def test_screening_that_refuses_registers_no_broken_key(
    registry: Registry, rows: Any, broken: fleet_keys.Signed
) -> None:
    careful = screened(registry, refuse=True)
    with_authority(careful)
    assert "refused" in outcome(careful, broken)
    assert rows.all("certificates") == []


def test_templates_are_kept_as_they_are_given(registry: Registry) -> None:
    config = {"templateBody": "{}", "roleArn": "arn:aws:iam::111111111111:role/x"}
    ca = with_authority(registry, registration_config=config)
    outcome(registry, fleet_keys.device("new", CA))
    assert authorities.describe(registry, A, ca)["registration_config"] == config


def test_a_certificate_s_id_is_the_digest_of_what_came(registry: Registry) -> None:
    with_authority(registry)
    device = fleet_keys.device("new", CA)
    der = device.certificate.public_bytes(Encoding.DER)
    assert device.certificate.fingerprint(hashes.SHA256()).hex() == device.id
    with pytest.raises(InvalidError):
        auto_registration.register(registry, A, der + b"\0")
