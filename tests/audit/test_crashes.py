"""Workers that are killed at any moment: the audit goes on, and no finding is lost or doubled.

How often it is killed in the normal run is few; ``KEYASSAY_CRASH_ROUNDS`` asks for more.
"""

from __future__ import annotations

import os
import random
import threading
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import structlog

import fleet_keys
import weak_devices
from auditing import DEVICE_KEYS, audit, enable, findings, summary
from keyassay.audit import suppressions, tasks
from keyassay.audit.examining import AuditSettings
from keyassay.audit.worker import AuditWorker
from keyassay.registry import certificates
from keyassay.registry.registry import Registry
from keyassay.storage.database import Database
from keyassay.storage.sealing import Seal
from sharing_devices import sharing
from two_accounts import A, B

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("KEYASSAY_CRASH_ROUNDS", "3"))
EXPIRING = "DEVICE_CERTIFICATE_EXPIRING_CHECK"


def works(url: str, folder: Path) -> None:
    """A worker in a process of its own, until it is killed."""
    registry = Registry(Database(url), Seal(b"k" * 32))
    settings = AuditSettings(fleet_store=folder, fleet_across_accounts=True, batch=1, lease=1.0, poll=0.02)
    AuditWorker(registry, settings, structlog.get_logger()).run(threading.Event())


def register(registry: Registry) -> None:
    sound = [fleet_keys.device(f"device {number}", days=(-9, 5 + 10 * number)) for number in range(30)]
    weak = [weak_devices.roca_device(0, f"weak {number}") for number in range(20)]
    shared = [sharing(1, number) for number in range(2, 6)]
    for one in (*sound, *weak, *shared):
        certificates.register_without_authority(registry, A, one.pem, status="ACTIVE")
    here, elsewhere = sharing(10, 11), sharing(10, 12)  # no account finds them by itself
    certificates.register_without_authority(registry, A, here.pem, status="ACTIVE")
    certificates.register_without_authority(registry, B, elsewhere.pem, status="ACTIVE")
    identifier = {"deviceCertificateId": weak[0].id}
    suppressions.create(registry, A, DEVICE_KEYS, identifier, "token", indefinitely=True)


def is_done(registry: Registry, task_id: str) -> bool:
    return bool(tasks.describe(registry, A, task_id).row["status"] == "COMPLETED")


def test_killed_workers_lose_and_double_nothing(
    registry: Registry, rows: Any, database_url: str, tmp_path: Path
) -> None:
    enable(registry)
    register(registry)
    calm = audit(registry, DEVICE_KEYS, EXPIRING, batch=7, fleet_store=tmp_path / "calm", fleet_across_accounts=True)
    expected = {name: (summary(calm, name), findings(rows, calm, name)) for name in (DEVICE_KEYS, EXPIRING)}
    assert expected[DEVICE_KEYS][0] == ("COMPLETED_NON_COMPLIANT", 55, 24, 1)
    chance = random.Random(17)
    for number in range(ROUNDS):
        with registry.database.write(A) as transaction:  # nothing is known from the rounds before
            for table in ("key_verdicts", "fleet_verdicts", "server_verdicts", "fleet_comparisons"):
                transaction.connection.exec_driver_sql(f"DELETE FROM {table}")
        folder = tmp_path / f"fleet {number}"
        task_id = tasks.start(registry, A, [DEVICE_KEYS, EXPIRING])
        while not is_done(registry, task_id):
            worker = get_context("fork").Process(target=works, args=(database_url, folder))
            worker.start()
            _wait(registry, task_id, chance.randrange(1, 70))
            time.sleep(chance.random() / 50)
            worker.kill()
            worker.join()
        task = tasks.describe(registry, A, task_id)
        seen = {name: (summary(task, name), findings(rows, task, name)) for name in (DEVICE_KEYS, EXPIRING)}
        assert seen == expected
    with registry.database.read() as connection:
        orphans = "SELECT count(*) FROM audit_related WHERE finding_id NOT IN (SELECT id FROM audit_findings)"
        assert connection.exec_driver_sql(orphans).scalar() == 0


def _wait(registry: Registry, task_id: str, steps: int) -> None:
    """Wait until the worker has written so many checkpoints."""
    before = _state(registry, task_id)
    deadline = time.monotonic() + 120
    while steps and not is_done(registry, task_id) and time.monotonic() < deadline:
        time.sleep(0.005)
        now = _state(registry, task_id)
        steps -= now != before
        before = now


def _state(registry: Registry, task_id: str) -> Any:
    task = tasks.describe(registry, A, task_id)
    return task.row["status"], [(row["status"], str(row["position"])) for row in task.checks.values()]
