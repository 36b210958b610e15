"""Writes down what a worker has found and how far it is, in one transaction: after a crash nothing is lost or doubled.

Each transaction first makes sure that the worker still has the task (its lease's number), that the task goes on, and
that the position is the one the worker began at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, or_, select, update

from keyassay.audit import tasks
from keyassay.audit.checks import AuditCheck, resource_key
from keyassay.audit.examining import Batch, Found
from keyassay.audit.tasks import RunStatus, TaskStatus
from keyassay.registry.errors import NotFoundError
from keyassay.storage import leases, schema
from keyassay.storage.database import Actor, BusyError, Database, Transaction, rows_in_chunks

_K = schema.audit_task_checks.c
_S = schema.audit_suppressions.c

#: the error code of a check that was disabled while it ran
CHECK_DISABLED = "AUDIT_CHECK_DISABLED"


class TaskEndedError(Exception):
    """The task was canceled, or removed: there is nothing left to do."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a check is.

    Attributes:
        after: the last resource that was examined; None before anything was prepared.
        done: how many were.
        unsure: of how many the examination was not complete.
        trouble: what could not be done.
        remark: what was left out, as it was asked for.
    """

    after: str | None = None
    done: int = 0
    unsure: int = 0
    trouble: str = ""
    remark: str = ""

    @classmethod
    def of(cls, row: RowMapping) -> Position:
        """As it stands in a row of ``audit_task_checks``."""
        return cls(**(row["position"] or {}))

    def as_json(self) -> dict[str, Any]:
        """For the row."""
        fields = {"after": self.after, "done": self.done, "unsure": self.unsure, "trouble": self.trouble}
        return {**fields, "remark": self.remark}


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The transactions of a task that a worker has taken.

    Attributes:
        database: where.
        actor: the worker.
        lease: on the task.
        task: its row.
    """

    database: Database
    actor: Actor
    lease: leases.Lease
    task: RowMapping

    def _hold(self, transaction: Transaction) -> None:
        leases.check(transaction, self.lease)
        try:
            row = tasks.find(transaction.connection, self.task["account_id"], self.task["id"])
        except NotFoundError:
            raise TaskEndedError from None
        if row["status"] != TaskStatus.IN_PROGRESS:
            raise TaskEndedError

    def forget(self) -> None:
        """Remove the lease of a task that was canceled."""
        with self.database.write(self.actor) as transaction:
            leases.check(transaction, self.lease)
            leases.forget(transaction, self.lease.name)

    def goes_on(self) -> bool:
        """Whether the task is still in progress, as far as a look tells."""
        with self.database.read() as connection:
            try:
                row = tasks.find(connection, self.task["account_id"], self.task["id"])
            except NotFoundError:
                return False
        return bool(row["status"] == TaskStatus.IN_PROGRESS.value)

    def _update(self, transaction: Transaction, check: AuditCheck, **values: Any) -> None:
        here = (_K.account_id == self.task["account_id"]) & (_K.task_id == self.task["id"])
        statement = update(schema.audit_task_checks).where(here, _K.check_name == check.name)
        transaction.execute(statement.values(values))

    def begin(self, check: AuditCheck, total: int | None = None, position: Position | None = None) -> None:
        """A check is in progress: over so many resources, from a position on, as far as that is known.

        Raises:
            LeaseLostError, TaskEndedError: somebody else has the task, or nobody needs it.
        """
        with self.database.write(self.actor) as transaction:
            self._hold(transaction)
            known: dict[str, Any] = {"status": RunStatus.IN_PROGRESS.value}
            if total is not None:
                known["total"] = total
            if position is not None:
                known["position"] = position.as_json()
            self._update(transaction, check, **known)

    def tell(self, check: AuditCheck, text: str) -> None:
        """Say how far a check is, until it ends; nothing if the database is busy.

        Raises:
            LeaseLostError, TaskEndedError: as ``begin``.
        """
        with suppress(BusyError), self.database.write(self.actor) as transaction:
            self._hold(transaction)
            self._update(transaction, check, message=text[:2_000])

    def fail(self, check: AuditCheck, message: str, error_code: str | None = None) -> None:
        """A check has failed; what it found before stays.

        Raises:
            LeaseLostError, TaskEndedError: as ``begin``.
        """
        with self.database.write(self.actor) as transaction:
            self._hold(transaction)
            self._fail(transaction, check, message, error_code)

    def _fail(self, transaction: Transaction, check: AuditCheck, message: str, error_code: str | None) -> None:
        values = {"status": RunStatus.FAILED.value, "position": None, "message": message[:2_000]}
        self._update(transaction, check, **values, error_code=error_code)

    def write(self, check: AuditCheck, position: Position, batch: Batch) -> Position | None:
        """Write down a batch.

        Args:
            check: of the task.
            position: at which the batch began.
            batch: what was found.

        Returns:
            Where the next batch begins; None if the check has ended.

        Raises:
            LeaseLostError, TaskEndedError: as ``begin``; nothing was written.
        """
        with self.database.write(self.actor) as transaction:
            self._hold(transaction)
            row = tasks.checks_of(transaction.connection, self.task["account_id"], self.task["id"])[check.name]
            if Position.of(row) != position:
                raise leases.LeaseLostError("another worker has written a checkpoint")
            if check.name not in tasks.check_settings(transaction.connection, self.task["account_id"]):
                self._fail(transaction, check, "the check was disabled while it ran", CHECK_DISABLED)
                return None
            if batch.keep is not None:
                batch.keep(transaction)
            noncompliant, suppressed = self._findings(transaction, check, batch.found)
            noncompliant += row["noncompliant"]
            suppressed += row["suppressed"]
            done, unsure = position.done + batch.examined, position.unsure + batch.unsure
            counts: dict[str, Any] = {"noncompliant": noncompliant, "suppressed": suppressed}
            if batch.after is not None:
                following = Position(batch.after, done, unsure, position.trouble, position.remark)
                self._update(transaction, check, position=following.as_json(), **counts)
                return following
            counts["total"] = done
            self._end(transaction, check, counts, unsure, position)
        return None

    def _end(
        self, transaction: Transaction, check: AuditCheck, counts: Mapping[str, int], unsure: int, position: Position
    ) -> None:
        status = RunStatus.NON_COMPLIANT if counts["noncompliant"] else RunStatus.COMPLIANT
        said = [position.trouble]
        if position.trouble:
            status = RunStatus.FAILED
        elif unsure:
            said = [f"{unsure:,} keys could not be examined completely"]
        message = "; ".join(one for one in (*said, position.remark) if one)[:2_000] or None
        self._update(transaction, check, status=status.value, position=None, message=message, **counts)

    def _findings(self, transaction: Transaction, check: AuditCheck, found: Sequence[Found]) -> tuple[int, int]:
        """Write findings; how many resources they are about, and how many of these are suppressed."""
        if not found:
            return 0, 0
        task = self.task
        by_key: dict[str, dict[str, Found]] = {}
        for one in found:
            by_key.setdefault(resource_key(one.identifier), {}).setdefault(one.reason_code, one)
        suppressed = _suppressed(transaction, check, list(by_key))
        rows: list[dict[str, Any]] = []
        related: list[dict[str, Any]] = []
        for key, reasons in by_key.items():
            for code, one in reasons.items():
                finding_id = _finding_id(task["id"], check.name, key, code)
                rows.append(
                    {
                        "account_id": task["account_id"],
                        "id": finding_id,
                        "task_id": task["id"],
                        "check_name": check.name,
                        "task_started_at": task["started_at"],
                        "found_at": transaction.now,
                        "severity": one.severity or check.severity.value,
                        "resource_type": check.resource_type,
                        "resource_key": key,
                        "resource": _resource(check, one),
                        "reason_code": code,
                        "reason": one.reason or check.reasons.get(code, ""),
                        "suppressed": key in suppressed,
                        "evidence": None if one.evidence is None else dict(one.evidence),
                    }
                )
                related.extend(
                    {
                        "account_id": task["account_id"],
                        "finding_id": finding_id,
                        "number": number,
                        "resource": dict(resource),
                    }
                    for number, resource in enumerate(one.related)
                )
        for table, some in ((schema.audit_findings, rows), (schema.audit_related, related)):
            for chunk in rows_in_chunks(some):
                transaction.execute(table.insert(), list(chunk))
        return len(by_key) - len(suppressed), len(suppressed)

    def finish(self) -> bool:
        """End the task if all of its checks have; true if it has ended."""
        account_id, task_id = self.task["account_id"], self.task["id"]
        with self.database.write(self.actor) as transaction:
            self._hold(transaction)
            rows = tasks.checks_of(transaction.connection, account_id, task_id)
            statuses = [row["status"] for row in rows.values()]
            if any(status in tasks.UNFINISHED for status in statuses):
                return False
            tasks.end(transaction, task_id, tasks.outcome(statuses))
            leases.forget(transaction, self.lease.name)
        return True


def _finding_id(task_id: str, check_name: str, key: str, reason_code: str) -> str:
    """The same whoever makes the finding, and another one in each audit."""
    text = f"{task_id}\n{check_name}\n{key}\n{reason_code}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _resource(check: AuditCheck, found: Found) -> dict[str, Any]:
    """AWS's NonCompliantResource."""
    resource: dict[str, Any] = {
        "resourceType": check.resource_type,
        "resourceIdentifier": dict(found.identifier),
    }
    if found.additional:
        resource["additionalInfo"] = dict(found.additional)
    return resource


def _suppressed(transaction: Transaction, check: AuditCheck, keys: Sequence[str]) -> set[str]:
    """Which of some resources are suppressed now."""
    in_force = or_(_S.expires_at.is_(None), _S.expires_at > transaction.now)
    here = (_S.account_id == transaction.account_id) & (_S.check_name == check.name)
    found: set[str] = set()
    for chunk in rows_in_chunks(keys):
        query = select(_S.resource_key).where(here, in_force, _S.resource_key.in_(chunk))
        found.update(transaction.execute(query).scalars())
    return found
