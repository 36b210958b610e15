"""A worker that is killed at any moment: the task goes on, nothing is left out, nothing is done twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import structlog

from audit_findings import DEVICE_KEYS, POLICIES, Found, audit, device
from keyassay.mitigation import actions, steps, tasks
from keyassay.mitigation.destinations import Destinations
from keyassay.mitigation.publishing import Publisher
from keyassay.mitigation.tasks import Progress
from keyassay.mitigation.worker import MitigationWorker
from keyassay.registry import policies, principals, thing_groups, things
from keyassay.registry.registry import Registry
from mitigation_tasks import PARAMS, ROLE, register
from two_accounts import A, Rows
from webhook_receiver import Receiver, receiving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

#: for each line of its input it forks a worker with a publisher, which do small steps, so that there are many moments
PROGRAM = """
import os, signal, sys, threading, structlog
from keyassay.mitigation import publishing, worker
from keyassay.mitigation.destinations import Destinations
from keyassay.registry.registry import Registry
from keyassay.storage.database import Database
from keyassay.storage.sealing import Seal
url, target, secret = sys.argv[1:]
worker.CHECKPOINT, worker.BATCH, worker.LEASE, publishing.CLAIM = 0.0, 3, 1.0, 1.0
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in iter(sys.stdin.readline, ""):
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
    registry = Registry(Database(url), Seal(b"k" * 32))
    log = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
    stop = threading.Event()
    permitted = Destinations.read([target], f"{target} {secret}")
    publisher = publishing.Publisher(registry, permitted, log, waits=(0.5,) * 20)
    threading.Thread(target=publisher.run, args=(stop,), daemon=True).start()
    worker.MitigationWorker(registry, log).run(stop)
"""


@contextmanager
def nursery(url: str, receiver: Receiver) -> Iterator[Callable[[], int]]:
    """Starts workers, as often as it is called; each has the process id that is returned."""
    command = [sys.executable, "-c", PROGRAM, url, receiver.url, SECRET]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        send, read = process.stdin, process.stdout

        def start() -> int:
            send.write("go\n")
            send.flush()
            return int(read.readline())

        try:
            yield start
        finally:
            send.close()


def prepare(registry: Registry, receiver: Receiver, count: int) -> None:
    """Certificates with things and policies, findings about all of them, and a task."""
    for name, params in {**PARAMS, "publish": {"publishFindingToSnsParams": {"topicArn": receiver.url}}}.items():
        actions.create(registry, A, name, ROLE, params)
    thing_groups.create(registry, A, "quarantine")
    found = []
    for number, certificate_id in enumerate(register(registry, count)):
        things.create(registry, A, f"thing-{number}")
        principals.attach(registry, A, f"thing-{number}", registry.arn(A.account_id, f"cert/{certificate_id}"))
        document = '{"Statement": {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}}'
        policies.create(registry, A, f"policy-{number}", document)
        found += [
            device(certificate_id),
            Found(POLICIES, {"policyVersionIdentifier": {"policyName": f"policy-{number}", "policyVersionId": "1"}}),
        ]
    mapping = {DEVICE_KEYS: ["quarantine", "publish", "deactivate"], POLICIES: ["blank"]}
    tasks.start(registry, A, "task", {"auditTaskId": audit(registry, found)}, mapping, "token")


def result(registry: Registry, rows: Rows) -> dict[str, object]:
    """What is left of a task, without ids and times."""
    task = tasks.describe(registry, A, "task")
    operations = [row["operation"] for row in rows.all("changes") if row["actor"].startswith("worker:")]
    return {
        "status": task["status"],
        "statistics": Progress.of(task).statistics(),
        "executions": sorted((row["action_name"], row["status"]) for row in rows.all("mitigation_executions")),
        "certificates": sorted(row["status"] for row in rows.all("certificates")),
        "members": sorted(row["thing_name"] for row in rows.all("thing_group_members")),
        "versions": sorted((row["policy_name"], row["version"]) for row in rows.all("policy_versions")),
        "messages": sorted(row["status"] for row in rows.all("outbox")),
        "changes": {name: operations.count(name) for name in set(operations)},
    }


def _ended(rows: Rows) -> int:
    """Executions of actions that have ended."""
    return sum(row["ended_at"] is not None for row in rows.all("mitigation_executions"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_worker_killed_again_and_again(registry: Registry, rows: Rows, database_url: str, seed: int) -> None:
    count = 25
    chance = random.Random(seed)
    with receiving() as receiver, nursery(database_url, receiver) as start:
        prepare(registry, receiver, count)
        kills = 0
        end = time.monotonic() + 120
        while tasks.describe(registry, A, "task")["status"] == "IN_PROGRESS":
            assert time.monotonic() < end
            worker = start()
            # counted in steps, not in seconds, so that a fast machine kills as often as a slow one
            until = _ended(rows) + (chance.randint(1, 8) if kills < 8 else 1_000)
            while _ended(rows) < until and tasks.describe(registry, A, "task")["status"] == "IN_PROGRESS":
                assert time.monotonic() < end
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.02))  # any moment of a step
            kills += 1
            os.kill(worker, signal.SIGKILL)
        ids = [headers["webhook-id"] for headers, _ in receiver.got]
    assert kills >= 3
    assert len(set(ids)) == count
    assert sorted(set(ids)) == sorted(row["id"] for row in rows.all("outbox"))
    check = {"failedFindingsCount": 0, "skippedFindingsCount": 0, "canceledFindingsCount": 0}
    check |= {"totalFindingsCount": count, "succeededFindingsCount": count}
    assert result(registry, rows) == {
        "status": "COMPLETED",
        "statistics": {DEVICE_KEYS: check, POLICIES: check},
        "executions": sorted((name, "COMPLETED") for name in ("quarantine", "publish", "deactivate", "blank") * count),
        "certificates": ["INACTIVE"] * count,
        "members": sorted(f"thing-{number}" for number in range(count)),
        "versions": sorted((f"policy-{number}", version) for number in range(count) for version in (1, 2)),
        "messages": ["DELIVERED"] * count,
        "changes": {steps.OPERATION: 3 * count, "DeliverMessage": count, "EndAuditMitigationActionsTask": 1},
    }


def test_two_workers_share_a_task_without_doing_anything_twice(registry: Registry, rows: Rows) -> None:
    count = 20
    with receiving() as receiver:
        prepare(registry, receiver, count)
        stop = threading.Event()
        log = structlog.testing.CapturingLogger()
        permitted = Destinations.read([receiver.url], f"{receiver.url} {SECRET}")
        workers = [MitigationWorker(registry, log) for _ in range(2)]
        publishers = [Publisher(registry, permitted, log) for _ in range(2)]
        threads = [threading.Thread(target=one.run, args=(stop,)) for one in (*workers, *publishers)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 60
        while tasks.describe(registry, A, "task")["status"] == "IN_PROGRESS" and time.monotonic() < end:
            time.sleep(0.05)
        stop.set()
        for thread in threads:
            thread.join(30)
        assert len(receiver.got) == count
    found = result(registry, rows)
    assert found["status"] == "COMPLETED"
    assert found["changes"] == {
        steps.OPERATION: 3 * count,
        "DeliverMessage": count,
        "EndAuditMitigationActionsTask": 1,
    }
    assert [name for name, *_ in log.calls if name == "error"] == []
