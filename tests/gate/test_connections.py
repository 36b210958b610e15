"""What a real gate sees becomes evidence: a device that registers itself, and a revoked key that is tried."""

from __future__ import annotations

import json
from typing import Any

import pytest

from connecting import now
from fleet_keys import authority
from keyassay.registry import authorities, certificates, connections
from live_gate import authority_with_registration, running_gate, until
from two_accounts import A

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_a_device_registers_itself_and_is_let_in_when_it_is_activated(registry: Any, rows: Any) -> None:
    authority_with_registration(registry, authority())
    (ca,) = [row["id"] for row in authorities.listed(registry, A).rows]
    with running_gate(registry) as gate:
        topic = f"$aws/events/certificates/registered/{ca}"
        device = gate.certificate("newcomer", authority())
        assert gate.connect(device, "newcomer").ended.wait(10)
        found = until(lambda: rows.all("certificates", id=device.id))
        assert (found[0]["status"], found[0]["ca_certificate_id"]) == ("PENDING_ACTIVATION", ca)
        (message,) = rows.all("device_messages")
        assert message["topic"] == topic
        assert json.loads(message["payload"])["certificateId"] == device.id
        gate.settle()
        assert gate.connect(device, "newcomer").ended.wait(10)  # it waits for its activation

        certificates.set_status(registry, A, device.id, "ACTIVE")
        gate.allow(device, "newcomer")
        gate.settle()
        session = gate.connect(device, "newcomer")
        assert session.accepted.wait(10)
        (interval,) = until(lambda: rows.all("connections", certificate_id=device.id))
        assert (interval["client_id"], interval["gate"], interval["ended_at"]) == ("newcomer", "gate-1", None)
        assert interval["source"].startswith("127.0.0.1:")
        assert interval["tls_version"].startswith("TLSv1.")
        assert abs(interval["started_at"] - now()) < 60_000
        with registry.database.read() as connection:
            assert connections.is_connected(connection, A.account_id, device.id)
        session.close()
        assert until(lambda: rows.all("connections", certificate_id=device.id)[0]["ended_at"], 30)


def test_a_revoked_key_that_is_tried_raises_an_alert(registry: Any, rows: Any) -> None:
    with running_gate(registry) as gate:
        device = gate.device("pump")
        session = gate.connect(device)
        assert session.accepted.wait(10)
        gate.revoke(device)
        assert session.ended.wait(10)
        gate.settle()
        assert gate.connect(device).ended.wait(10)
        (alert,) = until(lambda: rows.all("alerts"))
        assert (alert["kind"], alert["certificate_id"]) == ("revoked-certificate-tried", device.id)
        assert alert["details"]["sources"] == ["127.0.0.1"]
