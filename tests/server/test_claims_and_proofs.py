"""Claims over HTTPS and the endpoints and commands for proofs, at a real server."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import weak_devices
from asking_devices import Device
from keyassay.aws.operations import OPEN_PATHS, Access, Operations, discover, endpoint
from keyassay.cli.replace import command
from keyassay.registry import certificates
from keyassay.replacement import claims
from live_server import running
from replacing import old_device, start, states, work
from two_accounts import SECRET, A


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    with running(tmp_path, screening="off", workers=0) as one:
        yield one


def ask(server: Any, body: Any, path: str = "/keyassay/v1/claims", method: str = "POST") -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(server.addresses[0] + path, data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def run(server: Any, *arguments: str) -> str:
    environment = {"AWS_ACCESS_KEY_ID": A.name, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    words = [*arguments, "--endpoint-url", server.addresses[0]]
    done = CliRunner(env=environment).invoke(command, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def unreachable(registry: Any, kind: str, *things: str) -> str:
    """A replacement whose old certificate was deactivated already."""
    old = old_device(registry, *things)
    certificates.set_status(registry, A, old, "INACTIVE")
    replacement_id = start(registry, old, proof=kind, trustOldKey=kind == "old-key")
    work(registry)
    assert set(states(registry, replacement_id).values()) == {"UNREACHABLE"}
    return replacement_id


def body_of(device: Device, replacement_id: str, kind: str, by: Any) -> dict[str, Any]:
    return {"accountId": A.account_id, "thingName": device.thing, **device.body(replacement_id, kind, by)}


def test_an_unreachable_device_gets_its_certificate_over_https(server: Any, tmp_path: Path) -> None:
    registry = server.registry
    replacement_id = unreachable(registry, "secret", "pump", "valve")
    output = tmp_path / "secrets.csv"
    run(server, "secrets", replacement_id, "--output", str(output))
    assert output.stat().st_mode & 0o077 == 0
    rows = [line.split(",") for line in output.read_text().splitlines()]
    assert [row[:3] for row in rows] == [[A.account_id, replacement_id, one] for one in ("pump", "valve")]
    device = Device(registry, "pump")
    claim = body_of(device, replacement_id, "secret", rows[0][3])
    status, made = ask(server, claim)
    assert status == 200
    assert ask(server, claim) == (200, made)
    assert states(registry, replacement_id) == {"pump": "DELIVERED", "valve": "UNREACHABLE"}


def test_strangers_get_one_refusal_whatever_they_say(server: Any) -> None:
    registry = server.registry
    replacement_id = unreachable(registry, "secret", "pump")
    trusting = unreachable(registry, "old-key", "valve")
    approving = unreachable(registry, "approval", "motor")
    pump = Device(registry, "pump")
    wrong = body_of(pump, replacement_id, "secret", "d3Jvbmcgd3JvbmcgdzAwMQ==")
    said = [
        ask(server, one)
        for one in (
            wrong,
            {**wrong, "accountId": "999999999999"},
            {**wrong, "accountId": "99999999999x"},
            {**wrong, "thingName": "nobody"},
            {**wrong, "thingName": "no/body"},
            {**wrong, "replacementId": "nothing"},
            {**wrong, "proof": {"kind": "old-key"}},
            body_of(Device(registry, "valve"), trusting, "old-key", None),
            body_of(Device(registry, "motor"), approving, "approval", None),
            body_of(Device(registry, "motor", weak_devices.weak_key()), approving, "approval", None),
            *[body_of(Device(registry, "motor"), approving, "approval", None) for _ in range(12)],
            *[wrong for _ in range(12)],
        )
    ]
    assert said == [(403, {"message": "The claim is refused"})] * len(said)
    assert set(states(registry, replacement_id).values()) == {"UNREACHABLE"}


def test_what_is_no_claim_is_refused(server: Any) -> None:
    assert ask(server, b"{")[0] == 400
    assert ask(server, {})[0] == 400
    assert ask(server, b"[" * 40_000)[0] == 413
    assert ask(server, {}, "/keyassay/v1/replacements")[0] == 403, "nothing else is open"
    assert ask(server, {}, "/keyassay/v1/claims/")[0] == 403


def test_whoever_proves_himself_hears_what_is_wrong(server: Any) -> None:
    registry = server.registry
    replacement_id = unreachable(registry, "secret", "pump")
    secret = json.loads(run(server, "secrets", replacement_id, "--thing", "pump", "--json"))["secret"]
    weak = Device(registry, "pump", weak_devices.weak_key())
    status, said = ask(server, body_of(weak, replacement_id, "secret", secret))
    assert status == 400
    assert "KeyRefused" in said["message"]
    assert "rsa-roca" in said["message"]
    assert ask(server, body_of(Device(registry, "pump"), replacement_id, "secret", secret))[0] == 200
    assert ask(server, body_of(Device(registry, "pump"), replacement_id, "secret", secret))[0] == 406
    assert states(registry, replacement_id) == {"pump": "HALTED"}


def test_sources_and_things_are_limited(registry: Any) -> None:
    replacement_id = start(registry, old_device(registry, "pump"), proof="secret", trustOldKey=False)
    work(registry)

    def said(source: str, thing: str = "pump") -> str:
        body = {**body_of(Device(registry, thing), replacement_id, "secret", "eHh4"), "thingName": thing}
        with pytest.raises(Exception) as refused:
            claims.claim(registry, source, body)
        return type(refused.value).__name__

    assert said("192.0.2.1") == "UnprovenError"
    assert [said("192.0.2.1", f"t{number}") for number in range(25)][-1] == "ThrottledError"
    assert said("192.0.2.2", "x") == "UnprovenError"
    assert [said(f"2001:db8::{number}", f"u{number}") for number in range(25)][-1] == "ThrottledError", "one /64"
    assert [said("127.0.0.1", f"v{number}") for number in range(25)][-1] == "UnprovenError", "a proxy"
    assert [said(f"198.51.100.{number}") for number in range(70)][-1] == "ThrottledError"


def test_commands_for_keys_claims_and_approvals(server: Any, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    import fleet_keys
    from replacing import new_key

    registry = server.registry
    key = new_key()
    (tmp_path / "pump.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "keys.csv").write_text("pump,pump.pem\n")
    replacement_id = unreachable(registry, "device-key", "pump")
    assert "1 keys" in run(server, "keys", replacement_id, str(tmp_path / "keys.csv"))
    assert ask(server, body_of(Device(registry, "pump"), replacement_id, "device-key", key))[0] == 200

    (tmp_path / "claim.pem").write_text(fleet_keys.device("claim", key=new_key()).pem)
    (tmp_path / "things").write_text("valve\n")
    replacement_id = unreachable(registry, "claim-certificate", "valve")
    words = ("--certificate", str(tmp_path / "claim.pem"), "--things", str(tmp_path / "things"))
    assert "1 things" in run(server, "claims", replacement_id, *words)

    replacement_id = unreachable(registry, "approval", "motor")
    device = Device(registry, "motor")
    assert device.ask(replacement_id, "approval")[0] == "pending"
    assert device.csr_digest in run(server, "waiting", replacement_id)
    run(server, "approve", replacement_id, f"motor={device.csr_digest}")
    assert json.loads(run(server, "waiting", replacement_id, "--json")) == []
    assert device.ask(replacement_id, "approval")[0] == "accepted"

    (tmp_path / "known.csv").write_text("fan,bW1tbW1tbW1tbW1tbW1tbQ==\n")
    replacement_id = unreachable(registry, "secret", "fan")
    run(server, "secrets", replacement_id, "--import", str(tmp_path / "known.csv"))
    device = Device(registry, "fan")
    assert ask(server, body_of(device, replacement_id, "secret", "bW1tbW1tbW1tbW1tbW1tbQ=="))[0] == 200


def test_what_is_open_is_one_path() -> None:
    assert [one.operation.uri for one in Operations(discover()).endpoints if one.access is Access.OPEN] == [*OPEN_PATHS]
    with pytest.raises(ValueError, match="open"):
        endpoint("POST", "/keyassay/v1/other", access=Access.OPEN)
    with pytest.raises(ValueError, match="open"):
        endpoint("POST", "/keyassay/v1/claims", access=Access.READ)
