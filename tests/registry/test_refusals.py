"""Refused attempts are counted by the hour in a bounded number of rows, and those with revoked keys raise alerts."""

from __future__ import annotations

import json
from typing import Any

import pytest

import fleet_keys
from connecting import AWAY, HOME, event, now, refused, tell
from keyassay.registry import certificates, refusals
from keyassay.registry.documents import write_document
from keyassay.registry.registry import Registry
from two_accounts import A, B

ONE, TWO = "a" * 64, "b" * 64
HOUR = 3_600_000
TOPIC = f"arn:aws:sns:us-east-1:{A.account_id}:alerts"


def counts(rows: Any, **conditions: Any) -> dict[tuple[str, str, str], int]:
    found: dict[tuple[str, str, str], int] = {}
    for row in rows.all("refusals", **conditions):
        key = (row["certificate_id"][:1], row["verdict"], row["source"])
        found[key] = found.get(key, 0) + row["count"]
    return found


def test_attempts_are_counted_by_hour_address_and_verdict(registry: Registry, rows: Any) -> None:
    at = now() // HOUR * HOUR - 1_000
    tell(registry, *(refused(ONE, source=f"192.0.2.1:{port}", at=at) for port in range(1, 4)))
    tell(registry, refused(ONE, at=at + 1_000), refused(ONE, "client-id", AWAY, at=at), refused(None, "no-certificate"))
    found = rows.all("refusals", certificate_id=ONE, verdict="inactive")
    assert sorted((row["hour"] % HOUR, row["count"], row["source"]) for row in found) == [
        (0, 1, "192.0.2.1"),
        (0, 3, "192.0.2.1"),
    ]
    assert counts(rows) == {
        ("a", "inactive", "192.0.2.1"): 4,
        ("a", "client-id", "198.51.100.7"): 1,
        ("", "no-certificate", "192.0.2.1"): 1,
    }
    (row,) = rows.all("refusals", verdict="client-id")
    assert (row["first_at"], row["last_at"], row["client_id"], row["gate"]) == (at, at, "pump", "one")


def test_what_is_told_again_is_not_counted_again(registry: Registry, rows: Any) -> None:
    told = [refused(ONE, source=f"192.0.2.1:{port}") for port in range(1, 6)]
    tell(registry, *told[:3])
    tell(registry, *told)
    tell(registry, *told[2:], told[4])
    assert counts(rows) == {("a", "inactive", "192.0.2.1"): 5}
    tell(registry, *told, gate="two")
    tell(registry, *told, actor=B)
    assert counts(rows, gate="one", account_id=A.account_id) == {("a", "inactive", "192.0.2.1"): 5}


def test_no_more_is_remembered_than_fits(registry: Registry, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "REMEMBERED", 10)
    tell(registry, *(refused(ONE, source=f"192.0.2.1:{port}") for port in range(40)))
    (row,) = rows.all("counted_refusals")
    assert len(row["digests"]) == 80


def test_many_addresses_share_a_row(registry: Registry, rows: Any) -> None:
    tell(registry, *(refused(ONE, source=f"192.0.2.{number}:1") for number in range(100)))
    tell(registry, *(refused(ONE, source=f"198.51.100.{number}:1") for number in range(50)))
    found = rows.all("refusals")
    assert len(found) == refusals.SOURCES + 1
    assert sum(row["count"] for row in found) == 150
    (rest,) = [row for row in found if not row["source"]]
    assert rest["count"] == 150 - refusals.SOURCES


def test_many_strangers_share_a_row_and_hide_no_certificate_of_ours(
    registry: Registry, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "STRANGERS", 20)
    strangers = [refused(f"{number:064x}", "unregistered") for number in range(1, 101)]
    tell(registry, *strangers[:50])
    tell(registry, *strangers[50:], refused(ONE))
    assert len(rows.all("refusals", verdict="unregistered")) == 21
    (rest,) = rows.all("refusals", certificate_id="")
    assert (rest["count"], rest["source"]) == (80, "")
    assert len(rows.all("refusals", certificate_id=ONE)) == 1


def test_a_broker_that_does_not_answer(registry: Registry, rows: Any) -> None:
    tell(registry, event(ONE, established=False))
    assert counts(rows) == {("a", "broker", "192.0.2.1"): 1}
    assert rows.all("connections") == []


# Alerts


@pytest.fixture
def revoked(registry: Registry) -> str:
    device = fleet_keys.device("revoked")
    certificates.register_without_authority(registry, A, device.pem, status="ACTIVE")
    certificates.set_status(registry, A, device.id, "REVOKED")
    return device.id


@pytest.mark.parametrize("verdict", ["inactive", "unregistered", "client-id", "stale"])
def test_a_revoked_key_that_is_tried_raises_an_alert_once_a_day(
    registry: Registry, rows: Any, revoked: str, verdict: str
) -> None:
    tell(registry, refused(revoked, verdict, HOME), refused(revoked, verdict, AWAY), refused(ONE, verdict))
    tell(registry, refused(revoked, verdict, AWAY, at=now() - 1))
    (alert,) = rows.all("alerts")
    assert (alert["kind"], alert["certificate_id"]) == ("revoked-certificate-tried", revoked)
    assert sorted(alert["details"]["sources"]) == ["192.0.2.1", "198.51.100.7"]
    assert alert["details"]["gate"] == "one"


@pytest.mark.parametrize("status", ["ACTIVE", "INACTIVE"])
def test_other_certificates_raise_none(registry: Registry, rows: Any, status: str) -> None:
    device = fleet_keys.device("other")
    certificates.register_without_authority(registry, A, device.pem, status=status)
    tell(registry, refused(device.id))
    assert rows.all("alerts") == []


def test_a_handshake_that_failed_shows_no_key(registry: Registry, rows: Any, revoked: str) -> None:
    """Whoever has seen the certificate can present it; only a finished handshake shows that he has the key."""
    tell(registry, refused(revoked, "handshake", verifyCode=10), refused(revoked, "no-certificate"))
    assert rows.all("alerts") == []
    tell(registry, refused(revoked), actor=B)
    assert rows.all("alerts") == []


def test_many_revoked_keys_that_are_tried_at_once_raise_one_alert_each(registry: Registry, rows: Any) -> None:
    """As after a fleet was revoked: all of its devices come again in one batch."""
    with registry.database.write(A) as transaction:
        target = {"SNS": {"targetArn": TOPIC, "enabled": True}}
        write_document(transaction, "audit", {"auditNotificationTargetConfigurations": target})
    devices = [fleet_keys.device(f"revoked-{number}") for number in range(12)]
    for device in devices:
        certificates.register_without_authority(registry, A, device.pem, status="ACTIVE")
        certificates.set_status(registry, A, device.id, "REVOKED")
    told = [refused(device.id, source=f"192.0.2.{one}:1") for one in (1, 2) for device in devices]
    tell(registry, *told[:3])
    tell(registry, *told)
    raised = rows.all("alerts")
    assert sorted(row["certificate_id"] for row in raised) == sorted(device.id for device in devices)
    assert all(row["details"]["gate"] == "one" for row in raised)
    sent = [json.loads(row["body"]) for row in rows.all("outbox", target=TOPIC, subject="keyassay.alert")]
    assert sorted(one["alertId"] for one in sent) == sorted(row["id"] for row in raised)
    assert {one["certificateId"] for one in sent} == {device.id for device in devices}
