"""Audits of a running server, as scripts written for AWS IoT run them, and workers beside it that are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fleet_keys
import weak_devices
from auditing import DEVICE_KEYS, ROCA
from keyassay.registry import accounts
from live_server import client, running
from two_accounts import SECRET, A, B

pytestmark = pytest.mark.slow

ROLE = "arn:aws:iam::111111111111:role/audit"


def wait(done: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def register(iot: Any, *devices: fleet_keys.Signed) -> None:
    for one in devices:
        iot.register_certificate_without_ca(certificatePem=one.pem, status="ACTIVE")


def test_a_script_registers_audits_and_reads_findings(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        iot = client(server)
        shared = [
            fleet_keys.device(f"shared {number}", key=weak_devices.rsa_of(*primes))
            for number, primes in enumerate(_sharing())
        ]
        weak = weak_devices.roca_device()
        register(iot, fleet_keys.device(), weak, *shared)
        checks = {name: {"enabled": True} for name in (DEVICE_KEYS, "LOGGING_DISABLED_CHECK")}
        iot.update_account_audit_configuration(roleArn=ROLE, auditCheckConfigurations=checks)
        task = iot.start_on_demand_audit_task(targetCheckNames=list(checks))["taskId"]
        wait(lambda: iot.describe_audit_task(taskId=task)["taskStatus"] == "COMPLETED")
        details = iot.describe_audit_task(taskId=task)["auditDetails"]
        assert details[DEVICE_KEYS]["checkRunStatus"] == "COMPLETED_NON_COMPLIANT"
        assert details[DEVICE_KEYS]["totalResourcesCount"] == 4
        assert details[DEVICE_KEYS]["nonCompliantResourcesCount"] == 3
        found = iot.list_audit_findings(taskId=task, checkName=DEVICE_KEYS)["findings"]
        by_id = {
            one["nonCompliantResource"]["resourceIdentifier"]["deviceCertificateId"]: one["reasonForNonComplianceCode"]
            for one in found
        }
        prime = "CERTIFICATE_KEY_VULNERABILITY_FLEET_SHARED_PRIME"
        assert by_id == {weak.id: ROCA, shared[0].id: prime, shared[1].id: prime}
        assert (tmp_path / "fleet").is_dir()


def _sharing() -> list[tuple[int, int]]:
    keys = [fleet_keys.rsa_key(900 + number).private_numbers() for number in range(2)]
    return [(keys[0].p, keys[0].q), (keys[0].p, keys[1].q)]


def test_two_accounts_that_share_a_prime_are_told_so_and_nothing_of_each_other(tmp_path: Path) -> None:
    devices = {
        actor: fleet_keys.device(f"{actor.name} device", key=weak_devices.rsa_of(*primes))
        for actor, primes in zip((A, B), _sharing(), strict=True)
    }
    with running(tmp_path, fleet_across_accounts=True, audit_profile="deep", audit_budget=0.2) as server:
        accounts.add_account(server.registry, B, B.account_id, "", B.name, SECRET)
        for actor, device in devices.items():
            iot = client(server, actor.name)
            register(iot, device)
            iot.update_account_audit_configuration(
                roleArn=ROLE, auditCheckConfigurations={DEVICE_KEYS: {"enabled": True}}
            )
        for actor, other in ((A, B), (B, A)):
            iot = client(server, actor.name)
            task = iot.start_on_demand_audit_task(targetCheckNames=[DEVICE_KEYS])["taskId"]
            wait(lambda iot=iot, task=task: iot.describe_audit_task(taskId=task)["taskStatus"] != "IN_PROGRESS")
            (found,) = iot.list_audit_findings(taskId=task)["findings"]
            assert found["reasonForNonComplianceCode"] == "CERTIFICATE_KEY_VULNERABILITY_FLEET_SHARED_PRIME"
            assert "another account of this server" in found["reasonForNonCompliance"]
            related = iot.list_related_resources_for_audit_finding(findingId=found["findingId"])
            assert not related["relatedResources"]
            told = str([found, related["relatedResources"], iot.describe_audit_task(taskId=task)["auditDetails"]])
            assert not any(word in told for word in (other.account_id, other.name, devices[other].id))


def start_worker(folder: Path) -> subprocess.Popen[bytes]:
    entry = "from keyassay.cli.main import main; main()"
    command = [sys.executable, "-c", entry, "worker", "--database", f"sqlite:///{folder}/registry.db"]
    return subprocess.Popen([*command, "--key-file", str(folder / "keyassay.key")], stderr=subprocess.PIPE)


def test_workers_beside_a_server_that_has_none(tmp_path: Path) -> None:
    with running(tmp_path, workers=0) as server:
        iot = client(server)
        register(iot, weak_devices.roca_device())
        iot.update_account_audit_configuration(roleArn=ROLE, auditCheckConfigurations={DEVICE_KEYS: {"enabled": True}})
        task = iot.start_on_demand_audit_task(targetCheckNames=[DEVICE_KEYS])["taskId"]
        time.sleep(1.5)
        assert iot.describe_audit_task(taskId=task)["taskStatus"] == "IN_PROGRESS"
        with start_worker(tmp_path) as worker:
            try:
                wait(
                    lambda: (
                        worker.poll() is not None or iot.describe_audit_task(taskId=task)["taskStatus"] == "COMPLETED"
                    )
                )
            finally:
                worker.send_signal(signal.SIGTERM)
            assert worker.stderr is not None
            said = worker.stderr.read().decode()
            assert worker.wait(60) == 0, said
            assert "audit finished" in said
        assert len(iot.list_audit_findings(taskId=task)["findings"]) == 1
