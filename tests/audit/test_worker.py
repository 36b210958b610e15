"""Workers do tasks once, in batches, and stop for cancellation; schedules and retention are theirs, too."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import fleet_keys
import weak_devices
from auditing import DEVICE_KEYS, ROCA, audit, enable, findings, summary, worker
from keyassay.audit import schedules, suppressions, tasks
from keyassay.audit.checkpoints import Checkpoints
from keyassay.audit.checks import AUDIT_CHECKS, Needs
from keyassay.audit.worker import AuditWorker
from keyassay.registry import certificates
from keyassay.registry.errors import InvalidError, LimitError, NotFoundError
from keyassay.registry.registry import Registry
from keyassay.storage import leases
from keyassay.storage.database import Actor
from two_accounts import A, B

EXPIRING = "DEVICE_CERTIFICATE_EXPIRING_CHECK"
LOGGING = "LOGGING_DISABLED_CHECK"
DAY = 86_400_000


def register(registry: Registry, *devices: fleet_keys.Signed, actor: Actor = A, status: str = "ACTIVE") -> None:
    for one in devices:
        certificates.register_without_authority(registry, actor, one.pem, status=status)


def test_every_check_runs_on_an_empty_account(registry: Registry) -> None:
    enable(registry)
    task = audit(registry, *AUDIT_CHECKS)
    assert task.row["status"] == "COMPLETED"
    statuses = {name: row["status"] for name, row in task.checks.items()}
    assert statuses.pop(LOGGING) == "COMPLETED_NON_COMPLIANT"
    assert set(statuses.values()) == {"COMPLETED_COMPLIANT"}
    assert task.statistics == {
        "totalChecks": len(AUDIT_CHECKS),
        "inProgressChecks": 0,
        "waitingForDataCollectionChecks": 0,
        "compliantChecks": len(AUDIT_CHECKS) - 1,
        "nonCompliantChecks": 1,
        "failedChecks": 0,
        "canceledChecks": 0,
    }
    for name, check in AUDIT_CHECKS.items():
        if check.needs is Needs.AWS:
            assert summary(task, name) == ("COMPLETED_COMPLIANT", 0, 0, 0)


def test_weak_keys_are_found_once_and_counted(registry: Registry, rows: Any) -> None:
    enable(registry)
    sound = [fleet_keys.device(f"device {number}") for number in range(4)]
    weak = [weak_devices.roca_device(number) for number in range(2)]
    gone = weak_devices.roca_device(0, "gone")
    register(registry, *sound, *weak)
    register(registry, gone, status="REVOKED")
    register(registry, weak_devices.roca_device(1, "theirs"), actor=B)
    task = audit(registry, DEVICE_KEYS)
    assert summary(task, DEVICE_KEYS) == ("COMPLETED_NON_COMPLIANT", 6, 2, 0)
    assert findings(rows, task, DEVICE_KEYS) == {(one.id, ROCA) for one in weak}
    (row, _) = rows.all("audit_findings")
    assert row["severity"] == "CRITICAL"
    assert row["reason"].endswith(".")
    assert row["reason"][0].isupper()
    assert row["resource"]["resourceType"] == "DEVICE_CERTIFICATE"
    assert not rows.all("leases")


def test_suppressed_findings_are_made_and_counted_apart(registry: Registry, rows: Any) -> None:
    enable(registry)
    weak = [weak_devices.roca_device(number) for number in range(2)]
    register(registry, *weak)
    for one, token in zip(weak, "ab", strict=True):
        suppressions.create(registry, A, DEVICE_KEYS, {"deviceCertificateId": one.id}, token, indefinitely=True)
    suppressions.remove(registry, A, DEVICE_KEYS, {"deviceCertificateId": weak[0].id})
    task = audit(registry, DEVICE_KEYS)
    assert summary(task, DEVICE_KEYS) == ("COMPLETED_NON_COMPLIANT", 2, 1, 1)
    suppressions.create(registry, A, DEVICE_KEYS, {"deviceCertificateId": weak[0].id}, "c", indefinitely=True)
    later = audit(registry, DEVICE_KEYS)
    assert summary(later, DEVICE_KEYS) == ("COMPLETED_COMPLIANT", 2, 0, 2)
    assert [row["suppressed"] for row in rows.all("audit_findings", task_id=later.row["id"])] == [True, True]
    assert sorted(row["suppressed"] for row in rows.all("audit_findings", task_id=task.row["id"])) == [False, True]


def test_tasks_are_refused_for_what_is_not_enabled(registry: Registry) -> None:
    enable(registry, names=[LOGGING])
    for wrong in ([], ["NO_SUCH_CHECK"], [EXPIRING]):
        with pytest.raises(InvalidError):
            tasks.start(registry, A, wrong)
    for _ in range(10):
        tasks.start(registry, A, [LOGGING, LOGGING])
    with pytest.raises(LimitError):
        tasks.start(registry, A, [LOGGING])


def test_tasks_are_listed_newest_first(registry: Registry) -> None:
    enable(registry)
    now = time.time_ns() // 1_000_000
    first = audit(registry, LOGGING)
    time.sleep(0.005)
    second = tasks.start(registry, A, [LOGGING])
    every = {"start_time": now - 1_000, "end_time": now + 60_000}
    page = tasks.listed(registry, A, **every, size=1)
    assert [row["id"] for row in page.rows] == [second]
    page = tasks.listed(registry, A, **every, size=1, token=page.next_token)
    assert ([row["id"] for row in page.rows], page.next_token) == ([first.row["id"]], None)
    assert [row["id"] for row in tasks.listed(registry, A, **every, status="IN_PROGRESS").rows] == [second]
    assert not tasks.listed(registry, A, **every, type="SCHEDULED_AUDIT_TASK").rows
    assert not tasks.listed(registry, B, **every).rows
    for wrong in ({"start_time": now, "end_time": now - 1}, {"start_time": now - 91 * DAY, "end_time": now}):
        with pytest.raises(InvalidError):
            tasks.listed(registry, A, **wrong)
    with pytest.raises(NotFoundError):
        tasks.describe(registry, B, second)


def test_a_canceled_task_keeps_its_finished_checks(
    registry: Registry, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    enable(registry)
    register(registry, *(fleet_keys.device(f"device {number}", days=(-9, 5)) for number in range(6)))
    task_id = tasks.start(registry, A, [DEVICE_KEYS, EXPIRING])
    write = Checkpoints.write
    batches = []

    def cancels(self: Checkpoints, check: Any, *given: Any) -> Any:
        following = write(self, check, *given)
        batches.append(check.name)
        if batches.count(EXPIRING) == 1:
            tasks.cancel(registry, A, task_id)
        return following

    monkeypatch.setattr(Checkpoints, "write", cancels)
    assert worker(registry).turn()
    task = tasks.describe(registry, A, task_id)
    assert task.row["status"] == "CANCELED"
    assert {name: row["status"] for name, row in task.checks.items()} == {
        DEVICE_KEYS: "COMPLETED_COMPLIANT",
        EXPIRING: "CANCELED",
    }
    assert batches.count(EXPIRING) == 1
    assert len(rows.all("audit_findings")) == 2
    assert not rows.all("leases")
    with pytest.raises(InvalidError):
        tasks.cancel(registry, A, task_id)


def test_progress_is_true(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    enable(registry)
    register(registry, *(fleet_keys.device(f"device {number}", days=(-9, 5)) for number in range(5)))
    task_id = tasks.start(registry, A, [EXPIRING])
    assert tasks.describe(registry, A, task_id).statistics["waitingForDataCollectionChecks"] == 1
    seen = []
    write = Checkpoints.write

    def watched(self: Checkpoints, *given: Any) -> Any:
        following = write(self, *given)
        seen.append(summary(tasks.describe(registry, A, task_id), EXPIRING)[:3])
        return following

    monkeypatch.setattr(Checkpoints, "write", watched)
    assert worker(registry).turn()
    assert seen == [("IN_PROGRESS", 5, 2), ("IN_PROGRESS", 5, 4), ("COMPLETED_NON_COMPLIANT", 5, 5)]


def test_two_workers_share_tasks_and_double_nothing(registry: Registry, rows: Any) -> None:
    enable(registry)
    weak = [weak_devices.roca_device(0, f"device {number}") for number in range(5)]
    register(registry, *weak)
    started = [tasks.start(registry, A, [DEVICE_KEYS, EXPIRING]) for _ in range(4)]
    workers = [worker(registry, batch=1) for _ in range(2)]

    def works(one: AuditWorker) -> None:
        while one.turn():
            pass

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(works, workers))
    for task_id in started:
        task = tasks.describe(registry, A, task_id)
        assert summary(task, DEVICE_KEYS) == ("COMPLETED_NON_COMPLIANT", 5, 5, 0)
        assert findings(rows, task, DEVICE_KEYS) == {(one.id, ROCA) for one in weak}


def test_a_worker_that_was_too_slow_writes_nothing(
    registry: Registry, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    enable(registry)
    register(registry, *(fleet_keys.device(f"device {number}", days=(-9, 5)) for number in range(5)))
    task_id = tasks.start(registry, A, [EXPIRING])
    slow, quick = worker(registry), worker(registry)
    write = Checkpoints.write

    def overtaken(self: Checkpoints, *given: Any) -> Any:
        monkeypatch.setattr(Checkpoints, "write", write)
        leases.release(registry.database, self.lease)
        assert quick.turn()
        return write(self, *given)

    monkeypatch.setattr(Checkpoints, "write", overtaken)
    assert slow.turn()
    assert summary(tasks.describe(registry, A, task_id), EXPIRING) == ("COMPLETED_NON_COMPLIANT", 5, 5, 0)
    assert len(rows.all("audit_findings")) == 5


def test_a_check_that_is_disabled_meanwhile_fails(registry: Registry) -> None:
    enable(registry)
    task_id = tasks.start(registry, A, [EXPIRING, LOGGING])
    from keyassay.audit import configuration

    configuration.change(registry, A, checks={EXPIRING: {"enabled": False}})
    assert worker(registry).turn()
    task = tasks.describe(registry, A, task_id)
    assert (task.row["status"], task.statistics["failedChecks"]) == ("COMPLETED", 1)
    assert task.checks[EXPIRING]["error_code"] == "AUDIT_CHECK_DISABLED"


def test_a_check_that_raises_fails_in_the_end_and_others_go_on(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    enable(registry)
    task_id = tasks.start(registry, A, [EXPIRING, LOGGING])
    doing = worker(registry)

    def raises(*_given: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("keyassay.audit.certificate_checks.Expiring.batch", raises)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            doing.turn()
    assert doing.turn()
    task = tasks.describe(registry, A, task_id)
    assert task.row["status"] == "COMPLETED"
    assert {name: row["status"] for name, row in task.checks.items()} == {
        EXPIRING: "FAILED",
        LOGGING: "COMPLETED_NON_COMPLIANT",
    }


def test_schedules_start_once_when_due(registry: Registry, rows: Any) -> None:
    enable(registry)
    schedules.create(registry, A, "nightly", [LOGGING], "DAILY")
    doing = [worker(registry) for _ in range(3)]
    assert [one.start_due() for one in doing] == [0, 0, 0]
    past = time.time_ns() // 1_000_000 - 3 * DAY
    with registry.database.write(A) as transaction:
        from keyassay.storage import schema

        transaction.execute(schema.scheduled_audits.update().values(due_at=past))
    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(lambda one: one.start_due(), doing)) == 1
    (task,) = rows.all("audit_tasks")
    assert (task["type"], task["scheduled_audit_name"]) == ("SCHEDULED_AUDIT_TASK", "nightly")
    (schedule,) = rows.all("scheduled_audits")
    assert schedule["due_at"] > time.time_ns() // 1_000_000
    assert doing[0].turn()
    assert tasks.describe(registry, A, task["id"]).row["status"] == "COMPLETED"


def test_what_is_old_goes(registry: Registry, rows: Any) -> None:
    enable(registry)
    register(registry, *(fleet_keys.device(f"device {number}", days=(-9, 5)) for number in range(5)))
    audit(registry, EXPIRING)
    with registry.database.write(A) as transaction:
        from keyassay.storage import schema

        transaction.execute(schema.audit_tasks.update().values(started_at=schema.audit_tasks.c.started_at - 91 * DAY))
        transaction.execute(schema.audit_findings.update().values(found_at=schema.audit_findings.c.found_at - 91 * DAY))
    kept = audit(registry, EXPIRING)
    assert worker(registry).remove_old() == 7
    assert [row["id"] for row in rows.all("audit_tasks")] == [kept.row["id"]]
    assert {row["task_id"] for row in rows.all("audit_findings")} == {kept.row["id"]}
    assert len(rows.all("audit_task_checks")) == 1


def test_a_running_worker_takes_up_tasks_and_stops(registry: Registry) -> None:
    enable(registry)
    stop = threading.Event()
    thread = threading.Thread(target=worker(registry).run, args=(stop,))
    thread.start()
    try:
        task_id = tasks.start(registry, A, [LOGGING])
        deadline = time.monotonic() + 60
        while tasks.describe(registry, A, task_id).row["status"] == "IN_PROGRESS" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert tasks.describe(registry, A, task_id).row["status"] == "COMPLETED"
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
