"""The reference agent at a real gate: HAProxy, Mosquitto, the courier, the registry, the worker of replacements."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import weak_devices
from keyassay.device import agent as device_agent
from keyassay.gate.courier import Courier
from keyassay.registry import certificates
from keyassay.replacement import campaigns, provisioning
from live_gate import LiveGate, broker, running_gate, until
from replacing import start, states, unit, work, worker
from two_accounts import A


@contextmanager
def gate_with_courier(registry: Any) -> Iterator[LiveGate]:
    """A gate whose devices can talk to the registry, and a worker that carries replacements on."""
    with running_gate(registry) as gate:
        stop = threading.Event()
        log = structlog.wrap_logger(structlog.testing.CapturingLogger())
        courier = Courier(gate.source, gate.settings.private_socket, log)
        threads = [
            threading.Thread(target=courier.run, args=(stop,)),
            threading.Thread(target=worker(registry).run, args=(stop,)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield gate
        finally:
            stop.set()
            for thread in threads:
                thread.join(20)


class Running:
    """An agent in a process of its own."""

    def __init__(self, gate: LiveGate, device: Any, thing: str, folder: Path, *more: str) -> None:
        folder.mkdir(exist_ok=True)
        pem = device.signed.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "old.key").write_bytes(pem)
        (folder / "old.pem").write_text(device.signed.pem)
        (folder / "ca.pem").write_text(broker().pem)
        self.state = folder / "state"
        self.command = [
            *(sys.executable, "-m", "keyassay.device.agent", "--host", "localhost", "--port", str(gate.port)),
            *("--thing", thing, "--certificate", str(folder / "old.pem"), "--key", str(folder / "old.key")),
            *("--ca", str(folder / "ca.pem"), "--state", str(self.state), "--retry", "0.2", *more),
        ]  # fmt: skip
        self.log = folder / "log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    @property
    def current(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.state / "current.pem").read_bytes())


@contextmanager
def agent(*arguments: Any) -> Iterator[Running]:
    running = Running(*arguments)
    try:
        yield running
    finally:
        running.kill()


@pytest.mark.slow
def test_a_device_with_a_weak_key_gets_a_new_one_and_the_old_is_refused(registry: Any, tmp_path: Path) -> None:
    with gate_with_courier(registry) as gate:
        old = gate.device("pump", made=gate.certificate("pump", key=weak_devices.weak_key()))
        claim = tmp_path / "claim.json"
        with agent(gate, old, "pump", tmp_path / "device", "--claim", str(claim)) as running:
            until(lambda: running.said("connected with the current certificate"), 20)
            replacement_id = start(registry, old.id, proof="secret", trustOldKey=False)
            until(lambda: states(registry, replacement_id).get("pump") == "PLANNED")
            time.sleep(2)  # the device has no secret yet: it is not asked, and looks like no attacker
            assert not running.said("refused")
            ((thing, secret),), more = provisioning.make_secrets(registry, A, replacement_id, 3_600)
            assert (thing, more) == ("pump", False)
            claim.with_suffix(".new").write_text(json.dumps({"secret": secret}))
            claim.with_suffix(".new").rename(claim)
            until(lambda: running.said("replaced"), 30)
            found = unit(registry, replacement_id, "pump")
            assert running.current.subject.rfc4514_string() == "CN=pump"
            (row,) = [certificates.describe(registry, A, found.new_certificate_id or "")]
            assert bytes(row["der"]) == running.current.public_bytes(Encoding.DER)
            assert stat.S_IMODE((running.state / "current.pem").stat().st_mode) == 0o600
            assert not (running.state / "pending.json").exists()
            until(lambda: states(registry, replacement_id)["pump"] == "DONE", 40)
            gate.settle()
            assert not gate.connect(old, "pump").accepted.is_set()
            assert running.process.poll() is None


@pytest.mark.slow
def test_an_attacker_with_the_old_key_gets_nothing_and_the_device_is_served(
    registry: Any, rows: Any, tmp_path: Path
) -> None:
    with gate_with_courier(registry) as gate:
        old = gate.device("pump", made=gate.certificate("pump", key=weak_devices.weak_key()))
        replacement_id = start(registry, old.id, proof="secret", trustOldKey=False)
        ((_, secret),), _ = provisioning.make_secrets(registry, A, replacement_id, 3_600)
        with agent(gate, old, "pump", tmp_path / "attacker") as attacker:
            until(lambda: attacker.said("ProofRefused"), 30)
        assert [row["kind"] for row in rows.all("alerts")] == ["replacement-unproven"]
        assert states(registry, replacement_id) == {"pump": "PLANNED"}
        claim = tmp_path / "claim.json"
        claim.write_text(json.dumps({"secret": secret}))
        with agent(gate, old, "pump", tmp_path / "device", "--claim", str(claim)) as device:
            until(lambda: device.said("replaced"), 30)


@pytest.mark.slow
def test_a_device_that_is_killed_after_delivery_goes_on_with_the_same_certificate(
    registry: Any, tmp_path: Path
) -> None:
    with gate_with_courier(registry) as gate:
        old = gate.device("pump")
        replacement_id = start(registry, old.id)
        until(lambda: (work(registry) or unit(registry, replacement_id, "pump").batch) > 0)
        folder = tmp_path / "device"
        with agent(gate, old, "pump", folder) as device:
            until(lambda: device.said("connected"), 20)
            until((device.state / "pending.json").exists, 20)
            device.kill()
            # as if it had been killed before the answer came, whatever came
            (device.state / "new.pem").unlink(missing_ok=True)
            if not (device.state / "current.pem").exists():
                device.start()
                until(lambda: device.said("replaced"), 30)
        assert not [row for row in campaigns.unit_page(registry, A, replacement_id).rows if row.state == "HALTED"]


def options(tmp_path: Path, **more: Any) -> Any:
    """An agent that does not run."""
    import argparse

    from fleet_keys import device as certificate_of

    made = certificate_of("pump", serial=5)
    pem = made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if not (tmp_path / "old.pem").exists():  # signatures differ each time
        (tmp_path / "old.key").write_bytes(pem)
        (tmp_path / "old.pem").write_text(made.pem)
    chosen = {
        "thing": "pump",
        "certificate": str(tmp_path / "old.pem"),
        "key": str(tmp_path / "old.key"),
        "state": str(tmp_path / "state"),
        "claim": None,
        "proof_key": None,
        "ca": None,
        "retry": 0.01,
        "claims_url": None,
        **more,
    }
    return argparse.Namespace(**chosen)


def test_a_new_certificate_that_is_refused_leads_back_to_the_old_one_and_is_tried_again(tmp_path: Path) -> None:
    agent = device_agent.Agent(options(tmp_path))
    (agent.state / "new.pem").write_text("new")
    tried: list[str] = []
    stop = threading.Event()

    def session(new: Path | None, _stop: Any) -> str:
        tried.append("new" if new else "old")
        if len(tried) == 7:
            stop.set()
        return "refused" if new else "lost"

    agent.session = session  # type: ignore[method-assign]
    agent.run(stop)
    assert tried == [*["new"] * 5, "old", "new"], "a gate may learn of it later than the device"


def test_the_request_stays_the_same_until_there_is_another_replacement(tmp_path: Path) -> None:
    first = device_agent.Agent(options(tmp_path)).request("r1", A.account_id, "old-key")
    again = device_agent.Agent(options(tmp_path)).request("r1", A.account_id, "old-key")
    assert first == again
    other = device_agent.Agent(options(tmp_path)).request("r2", A.account_id, "old-key")
    assert other["certificateSigningRequest"] != first["certificateSigningRequest"]
    assert stat.S_IMODE((tmp_path / "state" / "pending.json").stat().st_mode) == 0o600


def test_a_certificate_for_another_key_is_not_stored(tmp_path: Path) -> None:
    from fleet_keys import device as certificate_of

    agent = device_agent.Agent(options(tmp_path))
    agent.pending("r1")
    for answer in ({"certificatePem": certificate_of("pump").pem}, {"certificatePem": "x"}, {}, {"certificatePem": 5}):
        assert not agent.take(answer)
    assert not (agent.state / "new.pem").exists()


def test_the_file_is_short_and_imports_nothing_else_of_keyassay() -> None:
    text = Path(device_agent.__file__).read_text()
    assert len(text.splitlines()) < 300
    assert "import keyassay" not in text
    assert "from keyassay" not in text
