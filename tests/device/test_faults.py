"""Replacements of real devices while parts of the system fail: nobody is left without a certificate that works."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

import weak_devices
from device.test_agent import agent, gate_with_courier
from keyassay.gate.courier import Courier
from keyassay.gate.source import DatabaseSource
from keyassay.registry import certificates
from keyassay.replacement import provisioning
from live_gate import Failing, LiveGate, broker, key_pem, running_gate, until
from live_server import running
from replacing import start, states, steps, unit, work
from two_accounts import A


@pytest.mark.slow
def test_the_gate_the_broker_and_the_registry_fail_in_the_middle(registry: Any, rows: Any, tmp_path: Path) -> None:
    names = ["pump-1", "pump-2", "pump-3"]
    with gate_with_courier(registry) as gate, ExitStack() as devices:
        old = {name: gate.device(name, made=gate.certificate(name)) for name in names}
        running_devices = {name: devices.enter_context(agent(gate, old[name], name, tmp_path / name)) for name in names}
        for one in running_devices.values():
            until(lambda one=one: one.said("connected with the current certificate"), 30)
        replacement_id = start(registry, *(one.id for one in old.values()), graceSeconds=3)
        until(lambda: any((one.state / "pending.json").exists() for one in running_devices.values()), 30)
        # HAProxy and Mosquitto end, with all sessions and what was on its way; then the agent does
        gate.processes.stop()
        gate.stop_agent()
        time.sleep(1)
        gate.processes.start()
        gate.start_agent()
        # a device dies wherever it is
        running_devices["pump-2"].kill()
        running_devices["pump-2"].start()
        until(lambda: set(states(registry, replacement_id).values()) == {"DONE"}, 90)
        gate.settle()
        for name in names:
            found = unit(registry, replacement_id, name)
            assert certificates.describe(registry, A, found.new_certificate_id or "")["status"] == "ACTIVE"
            assert certificates.describe(registry, A, old[name].id)["status"] == "REVOKED"
            assert max(Counter(steps(registry, replacement_id, name)).values()) == 1, "no step is done twice"
            assert not gate.connect(old[name], name).accepted.is_set()
            until(lambda name=name: running_devices[name].said("replaced"), 10)
    assert len(rows.all("certificates")) == 6


@contextmanager
def couriers_of(gate: LiveGate, source: Any) -> Iterator[None]:
    stop = threading.Event()
    courier = Courier(source, gate.settings.private_socket, structlog.wrap_logger(structlog.testing.CapturingLogger()))
    thread = threading.Thread(target=courier.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)


@pytest.mark.slow
def test_a_registry_that_is_down_for_a_while_only_delays(registry: Any, tmp_path: Path) -> None:
    source = Failing(DatabaseSource(registry, A.account_id))
    with running_gate(registry, source=source) as gate, couriers_of(gate, source):
        old = gate.device("pump")
        with agent(gate, old, "pump", tmp_path / "device") as device:
            until(lambda: device.said("connected"), 30)
            source.down = True
            replacement_id = start(registry, old.id)
            for _ in range(20):
                work(registry)
                time.sleep(0.1)
            assert states(registry, replacement_id) == {"pump": "PLANNED"}
            assert device.process.poll() is None
            source.down = False
            until(lambda: (work(registry), states(registry, replacement_id)["pump"])[1] == "DONE", 60)
            gate.settle()
            assert not gate.connect(old, "pump").accepted.is_set()


@pytest.mark.slow
def test_a_device_that_the_broker_refuses_claims_over_https(tmp_path: Path) -> None:
    """Its certificate was deactivated before it had a new one; the claim goes over TLS that it checks."""
    (tmp_path / "tls.pem").write_text(broker().pem)
    (tmp_path / "tls.key").write_text(key_pem(broker().key))
    with (
        running(
            tmp_path, screening="off", workers=0, tls_certificate=tmp_path / "tls.pem", tls_key=tmp_path / "tls.key"
        ) as server,
        running_gate(server.registry) as gate,
    ):
        registry = server.registry
        old = gate.device("pump", made=gate.certificate("pump", key=weak_devices.weak_key()))
        certificates.set_status(registry, A, old.id, "INACTIVE")
        gate.settle()
        replacement_id = start(registry, old.id, proof="secret", trustOldKey=False)
        work(registry)
        assert states(registry, replacement_id) == {"pump": "UNREACHABLE"}
        ((_, secret),), _ = provisioning.make_secrets(registry, A, replacement_id, 3_600)
        claim = tmp_path / "claim.json"
        claim.write_text(json.dumps({"secret": secret, "accountId": A.account_id, "replacementId": replacement_id}))
        url = server.addresses[0].replace("127.0.0.1", "localhost") + "/keyassay/v1/claims"
        assert url.startswith("https://")
        more = ("--claim", str(claim), "--claims-url", url)
        with agent(gate, old, "pump", tmp_path / "device", *more) as device:
            until(lambda: device.said("replaced"), 60)
            until(lambda: (work(registry), states(registry, replacement_id)["pump"])[1] == "DONE", 30)
        assert not gate.connect(old, "pump").accepted.is_set()
