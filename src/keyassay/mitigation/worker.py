"""Takes up mitigation tasks and does them, finding after finding, in short transactions that are checkpoints, too.

A task that was left off by a process that died goes on where its last transaction ended: what is done and what is
recorded of it are one transaction, so that nothing is done twice or left out.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, delete, select

from keyassay.mitigation import execution, steps
from keyassay.mitigation.plan import Planned, plan
from keyassay.mitigation.selection import Target
from keyassay.mitigation.tasks import Progress, TaskStatus, definitions_of, find, save
from keyassay.registry.errors import NotFoundError
from keyassay.registry.registry import Registry
from keyassay.storage import leases, schema
from keyassay.storage.database import Actor, Transaction
from keyassay.storage.repeating import repeat

_T = schema.mitigation_tasks.c
_E = schema.mitigation_executions.c

#: seconds between looks for tasks
INTERVAL = 0.5
#: seconds that a task is this worker's; far more than it works on it before it gives it back
LEASE = 30.0
#: seconds that a task is worked on before others get their turn
SLICE = 2.0
#: seconds that a transaction goes on to take up findings
CHECKPOINT = 0.02
#: findings that are read at once
BATCH = 100
#: how long ended tasks are kept, days, and seconds between looks for older ones
RETENTION_DAYS = 90
SWEEP = 3_600.0


class _EndedError(Exception):
    """The task was cancelled meanwhile."""


def _is_large(connection: Connection, account_id: str, planned: Planned) -> bool:
    return not planned.skipped and any(steps.is_large(connection, account_id, step) for step in planned.steps)


class MitigationWorker:
    """Does mitigation tasks of all accounts, one at a time; several workers share them.

    Args:
        registry: where.
        log: a structlog logger.
    """

    name = "mitigation"

    def __init__(self, registry: Registry, log: Any) -> None:
        self._registry = registry
        self._log = log
        self._machine = socket.gethostname()[:100]
        self._holder = f"{self._machine}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._swept = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; what goes wrong is logged and tried again."""

        def turn() -> bool:
            worked = self.turn(stop)
            self._sweep()
            return worked

        repeat(turn, stop, INTERVAL, self._log, "mitigation worker")

    def turn(self, stop: threading.Event | None = None) -> bool:
        """Work a while on each task that can go on; true if there was any."""
        worked = False
        for account_id, task_id in self._open_tasks():
            if stop is not None and stop.is_set():
                break
            name = f"mitigation:{account_id}:{task_id}"
            lease = leases.take(self._registry.database, name, self._holder, LEASE)
            if lease is None:
                continue
            try:
                worked |= self._work(lease, account_id, task_id, stop)
            except leases.LeaseLostError:
                self._log.warning("mitigation task taken over", account=account_id, task=task_id)
            finally:
                leases.release(self._registry.database, lease)
        return worked

    def _open_tasks(self) -> list[tuple[str, str]]:
        """Tasks whose findings have not all been begun."""
        query = select(_T.account_id, _T.id, _T.position).where(_T.status == TaskStatus.IN_PROGRESS.value)
        with self._registry.database.read() as connection:
            rows = connection.execute(query.order_by(_T.started_at).limit(1_000)).mappings().all()
        return [(row["account_id"], row["id"]) for row in rows if not Progress.of(row).all_begun]

    def _work(self, lease: leases.Lease, account_id: str, task_id: str, stop: threading.Event | None) -> bool:
        """Work on a task until its slice of time is over; false if there was nothing to do."""
        until = time.monotonic() + SLICE
        worked = False
        while time.monotonic() < until and not (stop is not None and stop.is_set()):
            if not self._batch(lease, account_id, task_id, until, stop):
                return worked
            worked = True
        return worked

    def _batch(
        self, lease: leases.Lease, account_id: str, task_id: str, until: float, stop: threading.Event | None
    ) -> bool:
        """Read a batch of findings and do them, checkpoint by checkpoint; false if there is nothing left to begin."""
        database = self._registry.database
        with database.read() as connection:
            try:
                task = find(connection, account_id, task_id)
            except NotFoundError:
                return False
            progress = Progress.of(task)
            if task["status"] != TaskStatus.IN_PROGRESS or progress.all_begun:
                return False
            target = Target.read(task["target"])
            totals = progress.totals
            if totals is None:
                totals = target.counts(connection, account_id, task["mapping"])
            found = target.findings(connection, account_id, task["mapping"], progress.after, BATCH)
        todo = list(plan(found, task["mapping"], definitions_of(task), target.reason_codes))
        # one more than a batch was read if there are more than a batch
        last = len(found) <= BATCH
        while True:
            self._do_ahead(lease, account_id, task_id, todo)
            begun = self._checkpoint(lease, account_id, task_id, todo, target, totals, last=last)
            if begun is None:
                return False
            todo = todo[begun:]
            if not todo:
                return not last
            if time.monotonic() > until or (stop is not None and stop.is_set()):
                return True

    def _do_ahead(self, lease: leases.Lease, account_id: str, task_id: str, todo: Sequence[Planned]) -> None:
        """Do the first finding's steps in pieces if they are large; the checkpoint only notes it then."""
        if not todo:
            return
        with self._registry.database.read() as connection:
            if not _is_large(connection, account_id, todo[0]):
                return

        @contextmanager
        def transactions() -> Iterator[Transaction]:
            actor = Actor(account_id, "worker:mitigation", self._machine, task_id)
            with self._registry.database.write(actor) as transaction:
                leases.check(transaction, lease)
                if find(transaction.connection, account_id, task_id)["status"] != TaskStatus.IN_PROGRESS:
                    raise _EndedError
                yield transaction

        with suppress(_EndedError):
            for step in todo[0].steps:
                if not steps.do_ahead(self._registry, step, transactions):
                    return

    def _checkpoint(
        self,
        lease: leases.Lease,
        account_id: str,
        task_id: str,
        todo: Sequence[Planned],
        target: Target,
        totals: dict[str, int],
        *,
        last: bool,
    ) -> int | None:
        """Do some findings in one transaction: how many, or None if the task has ended in between."""
        actor = Actor(account_id, "worker:mitigation", self._machine, task_id)
        with self._registry.database.write(actor) as transaction:
            leases.check(transaction, lease)
            task = find(transaction.connection, account_id, task_id)
            if task["status"] != TaskStatus.IN_PROGRESS:
                return None
            progress = Progress.of(task)  # deliveries write there, too
            progress.totals = totals
            until = time.monotonic() + CHECKPOINT
            begun = 0
            for planned in todo:
                if begun and _is_large(transaction.connection, account_id, planned):
                    break  # its pieces come first
                outcome = execution.begin(self._registry, transaction, task_id, planned)
                if outcome is None:
                    progress.waiting += 1
                else:
                    progress.count(planned.finding.check_name, outcome)
                progress.after = target.position(planned.finding)
                begun += 1
                if time.monotonic() > until:
                    break
            progress.all_begun = last and begun == len(todo)
            save(transaction, task_id, progress)
        return begun

    def _sweep(self) -> None:
        """Remove tasks that ended long ago, with what they did, in small transactions."""
        if self._swept and time.monotonic() - self._swept < SWEEP:
            return
        self._swept = time.monotonic()
        before = time.time_ns() // 1_000_000 - RETENTION_DAYS * 86_400_000
        old = select(_T.account_id, _T.id).where(_T.started_at < before, _T.status != TaskStatus.IN_PROGRESS.value)
        with self._registry.database.read() as connection:
            rows = connection.execute(old.limit(1_000)).all()
        for row in rows:
            while not self._removed(row.account_id, row.id):
                pass

    def _removed(self, account_id: str, task_id: str) -> bool:
        """Remove some of a task; true once all of it is gone."""
        its = (_E.account_id == account_id) & (_E.task_id == task_id)
        with self._registry.database.write(Actor(account_id, "worker:mitigation", self._machine)) as transaction:
            some = select(_E.finding_id).where(its).order_by(_E.finding_id).limit(500)
            findings = sorted(set(transaction.execute(some).scalars()))
            if findings:
                transaction.execute(delete(schema.mitigation_executions).where(its, _E.finding_id.in_(findings)))
                return False
            here = (_T.account_id == account_id) & (_T.id == task_id)
            transaction.execute(delete(schema.mitigation_tasks).where(here))
        with self._registry.database.write(Actor("", "worker:mitigation")) as transaction:
            leases.forget(transaction, f"mitigation:{account_id}:{task_id}")
        return True
