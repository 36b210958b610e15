"""Connections, alerts and messages over the signed API, by role."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.httpsession import URLLib3Session

import fleet_keys
from connecting import HOME, event, refused, session
from keyassay.registry import accounts, device_messages
from keyassay.registry.accounts import Role
from keyassay.server.running import Server
from keyassay.storage.database import Actor
from live_server import client, running
from two_accounts import SECRET, A

BASE = "/keyassay/v1"


def ask(server: Server, method: str, path: str, body: Any = None, key: tuple[str, str] = (A.name, SECRET)) -> Any:
    """Status and answer of a signed request."""
    data = b"" if body is None else json.dumps(body).encode()
    url = server.addresses[0] + BASE + path
    request = AWSRequest(method, url, {"content-type": "application/json"}, data)
    SigV4Auth(Credentials(*key), "iot", "us-east-1").add_auth(request)
    response = URLLib3Session(timeout=30).send(request.prepare())
    return response.status_code, json.loads(response.content)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_gate_tells_and_people_read(tmp_path: Path, database_url: str) -> None:
    with running(tmp_path, database=database_url, workers=0) as server:
        iot = client(server)
        device = fleet_keys.device("pump")
        iot.register_certificate_without_ca(certificatePem=device.pem, status="ACTIVE")
        iot.create_thing(thingName="pump")
        actor = Actor(A.account_id, "test")
        made = accounts.create_key(server.registry, actor, Role.GATE)
        gate = (made.access_key_id, made.secret_access_key)
        told = {
            "gate": "one",
            "events": [event(device.id), {**event(device.id), "source": "nowhere"}],
            "sessions": [session(device.id, bytes_in=5)],
        }
        status, answer = ask(server, "POST", "/gate/events", told, gate)
        assert (status, answer["registrations"]) == (200, [])
        assert answer["skipped"][0]["number"] == 1
        status, answer = ask(server, "GET", f"/certificates/{device.id}/connections")
        assert (status, answer["connected"]) == (200, True)
        (interval,) = answer["connections"]
        assert (interval["clientId"], interval["source"], interval["tlsVersion"]) == ("pump", HOME, "TLSv1.3")
        status, answer = ask(server, "GET", "/things/pump/connections?maxResults=1")
        assert (status, answer["connected"], len(answer["connections"])) == (200, True, 1)
        assert ask(server, "GET", "/things/nobody/connections")[0] == 404

        iot.update_certificate(certificateId=device.id, newStatus="REVOKED")
        ask(server, "POST", "/gate/events", {"gate": "one", "events": [refused(device.id)]}, gate)
        status, answer = ask(server, "GET", "/alerts")
        (alert,) = answer["alerts"]
        assert (alert["kind"], alert["certificateId"]) == ("revoked-certificate-tried", device.id)
        assert ask(server, "GET", "/alerts?kind=other")[1]["alerts"] == []
        _, answer = ask(server, "GET", f"/certificates/{device.id}/connections")
        assert [(one["verdict"], one["count"]) for one in answer["refusals"]] == [("inactive", 1)]

        with server.registry.database.write(actor) as transaction:
            device_messages.put(transaction, "a/b", "{}", 60)
        status, answer = ask(server, "GET", "/gate/messages?after=0&wait=1", None, gate)
        assert [one["topic"] for one in answer["messages"]] == ["a/b"]
        status, _ = ask(server, "GET", f"/gate/messages?after={answer['last']}", None, gate)
        assert status == 200

        for path in ("/alerts", f"/certificates/{device.id}/connections"):
            assert ask(server, "GET", path, None, gate)[0] == 403
        reader = accounts.create_key(server.registry, actor, Role.AUDITOR)
        auditor = (reader.access_key_id, reader.secret_access_key)
        assert ask(server, "GET", "/alerts", None, auditor)[0] == 200
        assert ask(server, "POST", "/gate/events", told, auditor)[0] == 403
        assert ask(server, "GET", "/gate/messages", None, auditor)[0] == 403


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_requests_that_are_too_large_are_refused(tmp_path: Path, database_url: str) -> None:
    with running(tmp_path, database=database_url, workers=0) as server:
        one = refused("a" * 64)
        assert ask(server, "POST", "/gate/events", {"gate": "one", "events": [one] * 1_001})[0] == 400
        assert ask(server, "POST", "/gate/events", {"gate": "bad name", "events": []})[0] == 400
        assert ask(server, "POST", "/gate/events", {"events": []})[0] == 400
        assert ask(server, "POST", "/gate/events", {"gate": "one", "events": [one] * 1_000})[0] == 200
        many = [session(f"{number:064x}", f"pump-{number}") for number in range(12_000)]
        assert len(json.dumps(many)) > 1 << 20
        assert ask(server, "POST", "/gate/events", {"gate": "one", "sessions": many})[0] == 200
