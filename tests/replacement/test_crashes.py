"""A worker that is killed between any two steps: nothing is done twice, nothing is lost, no device is locked out."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog

import replacing
from keyassay.registry import accounts
from keyassay.registry.registry import Registry
from keyassay.replacement import campaigns, retiring, units, worker
from keyassay.replacement.states import State
from keyassay.replacement.units import Unit
from keyassay.replacement.worker import ReplacementWorker
from keyassay.storage.database import Database
from keyassay.storage.sealing import Seal
from keyassay.storage.upgrading import upgrade
from replacing import connect, old_device, register, start, status_of
from two_accounts import SECRET, A, B, Rows

#: for each line of its input it forks a worker that does small steps, so that there are many moments to kill it at
PROGRAM = """
import os, signal, sys, threading, structlog
from keyassay.replacement import retiring
retiring.AT_ONCE = 2
from keyassay.replacement import worker
from keyassay.registry.registry import Registry
from keyassay.storage.database import Database
from keyassay.storage.sealing import Seal
worker.LEASE, worker.RENEW, worker.INTERVAL, worker.SELDOM, worker.LEFT = 0.6, 0.2, 0.02, 0.1, 100
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in iter(sys.stdin.readline, ""):
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
    registry = Registry(Database(sys.argv[1]), Seal(b"k" * 32))
    worker.ReplacementWorker(registry, structlog.wrap_logger(structlog.PrintLogger(sys.stderr))).run(threading.Event())
"""


@contextmanager
def nursery(url: str) -> Iterator[Callable[[], int]]:
    """Starts workers, as often as it is called; each has the process id that is returned."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        send, read = process.stdin, process.stdout

        def begin() -> int:
            send.write("go\n")
            send.flush()
            return int(read.readline())

        try:
            yield begin
        finally:
            send.close()


def devices(registry: Registry, replacement_id: str, chance: random.Random) -> None:
    """Let devices answer that have been asked: some of what answers them dies after any step, and they come again."""
    for row in campaigns.unit_page(registry, A, replacement_id, size=250).rows:
        if row.state in (State.PLANNED, State.UNREACHABLE) and row.is_served:
            new = register(registry, row.thing_name, status="INACTIVE")
            with registry.database.write(A) as transaction:
                units.issued(transaction, row, f"{abs(hash(row.thing_name)):064x}"[:64], new, {})
            if chance.random() < 0.7:
                with registry.database.write(A) as transaction:
                    found = units.attach(transaction, row)
                    if found.state is State.ATTACHED and chance.random() < 0.7:
                        units.delivered(transaction, found, {})
        elif row.state in (State.ATTACHED, State.DELIVERED) and chance.random() < 0.5:
            assert row.new_certificate_id is not None
            connect(registry, row.new_certificate_id, row.thing_name)


def prepare(registry: Registry, count: int) -> tuple[str, list[str]]:
    """Old certificates, one in three shared by two things, and their replacement."""
    old = []
    for number in range(count):
        names = [f"thing-{number}", *([f"thing-{number}-b"] if number % 3 == 0 else [])]
        old.append(old_device(registry, *names))
    return start(registry, *old, batch=5, haltOnFailures=100), old


def result(registry: Registry, rows: Rows, replacement_id: str, old: list[str]) -> dict[str, Any]:
    """What is left of a replacement, without ids and times."""
    steps: dict[str, list[str]] = {}
    for row in sorted(rows.all("replacement_steps"), key=lambda one: one["number"]):
        steps.setdefault(row["thing_name"], []).append(row["step"])
    recorded = Counter(row["operation"] for row in rows.all("changes") if row["resource_type"] != "account")
    news = [row["new_certificate_id"] for row in rows.all("replacement_units")]
    return {
        "status": campaigns.describe(registry, A, replacement_id, 0)[0]["status"],
        "steps": steps,
        "changes": recorded,
        "old": Counter(status_of(registry, one) for one in old),
        "new": Counter(status_of(registry, one) for one in news),
        "things": Counter(row["thing_name"] for row in rows.all("thing_principals")),
        "policies": Counter(row["policy_name"] for row in rows.all("policy_attachments")),
        "messages": replacing.notified(rows),
        "alerts": len(rows.all("alerts")),
    }


def never_locked_out(rows: Rows) -> None:
    """Each thing has an ACTIVE certificate with its policy, at any moment."""
    active = {row["id"] for row in rows.all("certificates", status="ACTIVE")}
    held = {row["target"].removeprefix("cert/") for row in rows.all("policy_attachments")} & active
    having = {row["thing_name"] for row in rows.all("thing_principals") if row["certificate_id"] in held}
    assert having == {row["name"] for row in rows.all("things")}


@pytest.fixture
def undisturbed(tmp_path: Any) -> dict[str, Any]:
    """What becomes of the same replacement when nothing goes wrong."""
    database = Database(f"sqlite:///{tmp_path}/undisturbed.db")
    upgrade(database)
    registry = Registry(database, Seal(b"k" * 32))
    accounts.add_account(registry, A, A.account_id, "", A.name, SECRET)
    accounts.add_account(registry, B, B.account_id, "", B.name, SECRET)
    replacement_id, old = prepare(registry, COUNT)
    doing = replacing.worker(registry)
    while campaigns.describe(registry, A, replacement_id, 0)[0]["status"] == "RUNNING":
        replacing.work(registry, doing)
        for row in campaigns.unit_page(registry, A, replacement_id, size=250).rows:
            if row.state is State.PLANNED and row.is_served:
                connect(registry, replacing.issue(registry, row), row.thing_name)
    found = result(registry, Rows(database), replacement_id, old)
    database.close()
    return found


COUNT = 12


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_worker_killed_again_and_again(
    registry: Registry, rows: Rows, database_url: str, undisturbed: dict[str, Any], seed: int
) -> None:
    chance = random.Random(seed)
    replacement_id, old = prepare(registry, COUNT)
    kills = 0
    end = time.monotonic() + 120
    with nursery(database_url) as begin:
        while campaigns.describe(registry, A, replacement_id, 0)[0]["status"] == "RUNNING":
            assert time.monotonic() < end, replacing.states(registry, replacement_id)
            process = begin()
            # counted in steps, not in seconds, so that a fast machine kills as often as a slow one
            until = len(rows.all("replacement_steps")) + chance.randint(1, 25)
            while len(rows.all("replacement_steps")) < until and time.monotonic() < end:
                devices(registry, replacement_id, chance)
                never_locked_out(rows)
                if campaigns.describe(registry, A, replacement_id, 0)[0]["status"] != "RUNNING":
                    break
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.02))  # any moment of a step
            os.kill(process, signal.SIGKILL)
            kills += 1
    assert kills >= 4
    found = result(registry, rows, replacement_id, old)
    assert found == undisturbed


def test_two_workers_share_a_replacement_without_doing_anything_twice(
    registry: Registry, rows: Rows, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "INTERVAL", 0.02)
    monkeypatch.setattr(worker, "RENEW", -1.0)
    monkeypatch.setattr(retiring, "AT_ONCE", 2)
    replacement_id, old = prepare(registry, COUNT)
    stop = threading.Event()
    log = structlog.testing.CapturingLogger()
    threads = [threading.Thread(target=ReplacementWorker(registry, log).run, args=(stop,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 60
    while campaigns.describe(registry, A, replacement_id, 0)[0]["status"] == "RUNNING" and time.monotonic() < end:
        found: list[Unit] = list(campaigns.unit_page(registry, A, replacement_id, size=250).rows)
        for row in found:
            if row.state is State.PLANNED and row.is_served:
                connect(registry, replacing.issue(registry, row), row.thing_name)
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert [name for name, *_ in log.calls if name == "error"] == []
    assert result(registry, rows, replacement_id, old) == undisturbed


def test_a_worker_that_lost_its_lease_changes_nothing(
    registry: Registry, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LEASE", 0.0)
    old = old_device(registry, "pump-1")
    start(registry, old)
    slow, other = replacing.worker(registry), replacing.worker(registry)
    assert slow.turn()
    begun = len(rows.all("replacement_steps"))
    other.turn()
    found = next(row for row in rows.all("replacement_units"))
    replacement_id = found["replacement_id"]
    connect(registry, replacing.issue(registry, replacing.unit(registry, replacement_id, "pump-1")), "pump-1")
    steps = len(rows.all("replacement_steps"))
    slow.turn()  # it still believes that it has the work
    assert (begun, len(rows.all("replacement_steps"))) == (2, steps)
    assert slow._log.calls[-1].args == ("replacement taken over",) or slow._held == {}
    other.turn()
    assert len(rows.all("replacement_steps")) > steps
