"""The checks of connections on what gates tell: from events and lists of live sessions to findings."""

from __future__ import annotations

from typing import Any

import pytest

import fleet_keys
from auditing import audit, enable, findings
from connecting import AWAY, HOME, THIRD, event, now, session, tell
from keyassay.audit import connection_checks
from keyassay.registry import certificates, connections
from keyassay.registry.registry import Registry
from two_accounts import A

SHARED, CONFLICTING = "DEVICE_CERTIFICATE_SHARED_CHECK", "CONFLICTING_CLIENT_IDS_CHECK"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds that tests need not wait."""
    monkeypatch.setattr(connections, "GRACE", -1)
    monkeypatch.setattr(connections, "SLACK", 0)
    monkeypatch.setattr(connection_checks, "HANDOVER", 0)


def device(registry: Registry, name: str) -> str:
    made = fleet_keys.device(name)
    certificates.register_without_authority(registry, A, made.pem, status="ACTIVE")
    return made.id


def test_several_devices_with_one_certificate(registry: Registry, rows: Any) -> None:
    enable(registry)
    shared, moved, renamed = (device(registry, name) for name in ("shared", "moved", "renamed"))
    tell(registry, event(shared, "a", HOME), event(moved, "c", HOME), event(renamed, "e", HOME))
    tell(registry, event(shared, "b", AWAY), event(moved, "d", AWAY))
    tell(registry, event(renamed, "f", AWAY), sessions=[session(shared, "a"), session(shared, "b", AWAY)])
    for count in range(3):
        live = [
            session(shared, "a", HOME, count),
            session(shared, "b", AWAY, count),
            session(moved, "c", HOME, 7),  # half open
            session(moved, "d", AWAY, count),
            session(renamed, "f", AWAY, count),
        ]
        tell(registry, sessions=live)
    task = audit(registry, SHARED)
    assert findings(rows, task, SHARED) == {(shared, "CERTIFICATE_SHARED_BY_MULTIPLE_DEVICES")}


def test_certificates_that_fight_for_a_client_id(registry: Registry, rows: Any) -> None:
    enable(registry)
    one, two = device(registry, "one"), device(registry, "two")
    at = now() - 60_000
    for number in range(4):
        tell(registry, event((one, two)[number % 2], "fought for", HOME, at=at + number * 10_000))
    tell(registry, event(one, "replaced", HOME, at=at), event(two, "replaced", HOME, at=at + 5_000))
    task = audit(registry, CONFLICTING)
    code = "DUPLICATE_CLIENT_ID_ACROSS_CONNECTIONS"
    assert findings(rows, task, CONFLICTING) == {("fought for", code)}


def test_one_client_id_at_two_gates(registry: Registry, rows: Any) -> None:
    enable(registry)
    one, two = device(registry, "one"), device(registry, "two")
    tell(registry, event(one, "both", HOME), gate="one")
    tell(registry, event(two, "both", AWAY), gate="two")
    tell(registry, event(one, "moved", THIRD), gate="one")
    tell(registry, event(one, "moved", AWAY), gate="two")
    for count in range(3):
        tell(registry, sessions=[session(one, "both", HOME, count), session(one, "moved", THIRD, 5)], gate="one")
        tell(registry, sessions=[session(two, "both", AWAY, count), session(one, "moved", AWAY, count)], gate="two")
    task = audit(registry, CONFLICTING)
    assert {name for name, _ in findings(rows, task, CONFLICTING)} == {"both"}
