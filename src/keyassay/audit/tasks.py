"""Audit tasks: started, canceled and described here; ``worker`` does them.

The account's configuration is its document ``AUDIT`` (``registry.documents``) in the API's own form:
``{"roleArn", "auditCheckConfigurations": {CHECK: {"enabled", "configuration"}}, ...}``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select, update

from keyassay.audit.checks import AUDIT_CHECKS, audit_check
from keyassay.audit.notifications import notify_finished
from keyassay.registry.documents import read_document
from keyassay.registry.errors import InvalidError, LimitError, NotFoundError
from keyassay.registry.registry import Page, Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction

_T = schema.audit_tasks.c
_K = schema.audit_task_checks.c

#: name of the account's document with its audit configuration
AUDIT = "audit"
#: on-demand audits of an account that may be in progress
ON_DEMAND_AT_ONCE = 10
#: how long tasks and findings are kept
RETENTION_DAYS = 90
DAY = 86_400_000


class TaskType(StrEnum):
    """Why an audit runs."""

    ON_DEMAND = "ON_DEMAND_AUDIT_TASK"
    SCHEDULED = "SCHEDULED_AUDIT_TASK"


class TaskStatus(StrEnum):
    """Of an audit."""

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class RunStatus(StrEnum):
    """Of one check of an audit."""

    IN_PROGRESS = "IN_PROGRESS"
    WAITING = "WAITING_FOR_DATA_COLLECTION"
    CANCELED = "CANCELED"
    COMPLIANT = "COMPLETED_COMPLIANT"
    NON_COMPLIANT = "COMPLETED_NON_COMPLIANT"
    FAILED = "FAILED"


#: of checks that a worker still has to do, or is doing
UNFINISHED = (RunStatus.WAITING, RunStatus.IN_PROGRESS)

#: the API's name of each count -> the status that it counts
STATISTICS = {
    "inProgressChecks": RunStatus.IN_PROGRESS,
    "waitingForDataCollectionChecks": RunStatus.WAITING,
    "compliantChecks": RunStatus.COMPLIANT,
    "nonCompliantChecks": RunStatus.NON_COMPLIANT,
    "failedChecks": RunStatus.FAILED,
    "canceledChecks": RunStatus.CANCELED,
}


@dataclass(frozen=True, slots=True)
class Task:
    """A task with its checks.

    Attributes:
        row: of ``audit_tasks``.
        checks: rows of ``audit_task_checks``, by name.
    """

    row: RowMapping
    checks: Mapping[str, RowMapping]

    @property
    def statistics(self) -> dict[str, int]:
        """AWS's seven counts."""
        statuses = [row["status"] for row in self.checks.values()]
        counts = {name: statuses.count(status.value) for name, status in STATISTICS.items()}
        return {"totalChecks": len(statuses), **counts}


def check_settings(connection: Connection, account_id: str) -> dict[str, dict[str, Any]]:
    """The enabled checks of an account, each with its ``configuration`` (empty if nothing was set)."""
    document = read_document(connection, account_id, AUDIT) or {}
    configured = document.get("auditCheckConfigurations", {})
    return {
        name: dict(one.get("configuration") or {})
        for name, one in configured.items()
        if name in AUDIT_CHECKS and one.get("enabled")
    }


def start(
    registry: Registry,
    actor: Actor,
    check_names: Sequence[str],
    *,
    scheduled_audit_name: str | None = None,
    type: TaskType = TaskType.ON_DEMAND,  # noqa: A002  the API's word
) -> str:
    """Start an audit: a worker takes it up.

    Args:
        registry: where.
        actor: who, and in which account.
        check_names: what to check; repeated names count once.
        scheduled_audit_name: the schedule it comes from.
        type: why it runs.

    Returns:
        The task's id.

    Raises:
        InvalidError: no checks, an unknown one, or one that is not enabled.
        LimitError: too many on-demand audits are in progress.
    """
    with registry.database.write(actor) as transaction:
        return begin(transaction, check_names, scheduled_audit_name=scheduled_audit_name, type=type)


def begin(
    transaction: Transaction,
    check_names: Sequence[str],
    *,
    scheduled_audit_name: str | None = None,
    type: TaskType = TaskType.ON_DEMAND,  # noqa: A002  the API's word
) -> str:
    """The same inside a transaction.

    Raises:
        InvalidError, LimitError: as above.
    """
    account_id = transaction.account_id
    check_names = list(dict.fromkeys(check_names))
    if not check_names:
        raise InvalidError("an audit has at least one check")
    enabled = check_settings(transaction.connection, account_id)
    for name in check_names:
        if audit_check(name).name not in enabled:
            raise InvalidError(f"the audit check {name} is not enabled")
    if type is TaskType.ON_DEMAND:
        running = select(func.count()).where(
            _T.account_id == account_id, _T.status == TaskStatus.IN_PROGRESS.value, _T.type == type.value
        )
        if transaction.execute(running).scalar_one() >= ON_DEMAND_AT_ONCE:
            raise LimitError(f"at most {ON_DEMAND_AT_ONCE} on-demand audits may be in progress")
    task_id = str(uuid.uuid4())
    task = {
        "account_id": account_id,
        "id": task_id,
        "type": type.value,
        "status": TaskStatus.IN_PROGRESS.value,
        "scheduled_audit_name": scheduled_audit_name,
        "cancel": False,
        "started_at": transaction.now,
    }
    transaction.execute(schema.audit_tasks.insert().values(task))
    zeros = {"total": 0, "noncompliant": 0, "suppressed": 0}
    rows = [
        {
            "account_id": account_id,
            "task_id": task_id,
            "check_name": name,
            "status": RunStatus.WAITING.value,
            **zeros,
        }
        for name in check_names
    ]
    transaction.execute(schema.audit_task_checks.insert(), rows)
    details = {"type": type.value, "checks": check_names}
    transaction.record("StartOnDemandAuditTask", "audit-task", task_id, details)
    return task_id


def find(connection: Connection, account_id: str, task_id: str) -> RowMapping:
    """The row of a task.

    Raises:
        NotFoundError: there is none.
    """
    query = select(schema.audit_tasks).where(_T.account_id == account_id, _T.id == task_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError("there is no such audit task")
    return row


def checks_of(connection: Connection, account_id: str, task_id: str) -> dict[str, RowMapping]:
    """The rows of a task's checks, by name."""
    query = select(schema.audit_task_checks).where(_K.account_id == account_id, _K.task_id == task_id)
    rows = connection.execute(query.order_by(_K.check_name)).mappings()
    return {row["check_name"]: row for row in rows}


def describe(registry: Registry, actor: Actor, task_id: str) -> Task:
    """A task with its checks.

    Raises:
        NotFoundError: there is none.
    """
    with registry.database.read() as connection:
        row = find(connection, actor.account_id, task_id)
        return Task(row, checks_of(connection, actor.account_id, task_id))


def listed(
    registry: Registry,
    actor: Actor,
    *,
    start_time: int,
    end_time: int,
    type: str | None = None,  # noqa: A002  the API's word
    status: str | None = None,
    token: str | None = None,
    size: int | None = None,
) -> Page[dict[str, Any]]:
    """A page of tasks that were started between two times, the newest first.

    Args:
        registry: where.
        actor: who.
        start_time: of the oldest, milliseconds since 1970.
        end_time: of the newest, likewise; both are included.
        type: only these (``TaskType``).
        status: only these (``TaskStatus``).
        token: of the page before.
        size: rows of a page.

    Raises:
        InvalidError: the times are in the wrong order or further back than tasks are kept; a foreign token.
    """
    check_period(start_time, end_time)
    query = select(_T.id, _T.type, _T.status, _T.started_at).where(
        _T.account_id == actor.account_id, _T.started_at.between(start_time, end_time)
    )
    if type is not None:
        query = query.where(_T.type == type)
    if status is not None:
        query = query.where(_T.status == status)
    with registry.database.read() as connection:
        return registry.page(
            connection,
            query,
            (_T.started_at, _T.id),
            scope=(actor.account_id, "audit-tasks", start_time, end_time, type or "", status or ""),
            token=token,
            size=size,
            ascending=False,
        )


def check_period(start_time: int, end_time: int) -> None:
    """Whether a question may be asked about that time (milliseconds since 1970).

    Raises:
        InvalidError: its end is before its start, or its start further back than tasks and findings are kept.
    """
    if end_time < start_time:
        raise InvalidError("endTime is before startTime")
    # who asks for exactly the last 90 days has computed the time a moment ago
    if start_time < time.time_ns() // 1_000_000 - RETENTION_DAYS * DAY - 60_000:
        raise InvalidError(f"startTime is further back than the {RETENTION_DAYS} days that audits are kept")


def cancel(registry: Registry, actor: Actor, task_id: str) -> None:
    """End a task; what its finished checks found stays.

    The worker that has it sees so at its next checkpoint, and writes nothing more.

    Raises:
        NotFoundError: there is none.
        InvalidError: it is not in progress.
    """
    with registry.database.write(actor) as transaction:
        row = find(transaction.connection, actor.account_id, task_id)
        if row["status"] != TaskStatus.IN_PROGRESS:
            raise InvalidError("the audit task is not in progress")
        here = (_K.account_id == actor.account_id) & (_K.task_id == task_id)
        left = update(schema.audit_task_checks).where(here, _K.status.in_([one.value for one in UNFINISHED]))
        transaction.execute(left.values(status=RunStatus.CANCELED.value, position=None))
        end(transaction, task_id, TaskStatus.CANCELED)
        transaction.record("CancelAuditTask", "audit-task", task_id)


def end(transaction: Transaction, task_id: str, status: TaskStatus) -> None:
    """Give a task its last status, inside a transaction, and tell the account's target; its checks have theirs."""
    account_id = transaction.account_id
    here = (_T.account_id == account_id) & (_T.id == task_id)
    values = {"status": status.value, "ended_at": transaction.now, "cancel": status is TaskStatus.CANCELED}
    transaction.execute(update(schema.audit_tasks).where(here).values(values))
    ended = Task(
        find(transaction.connection, account_id, task_id), checks_of(transaction.connection, account_id, task_id)
    )
    notify_finished(transaction, read_document(transaction.connection, account_id, AUDIT) or {}, ended)


def outcome(statuses: Iterable[str]) -> TaskStatus:
    """What becomes of a task whose checks have all ended: FAILED only if all of them have failed."""
    ended = set(statuses)
    return TaskStatus.FAILED if ended == {RunStatus.FAILED.value} else TaskStatus.COMPLETED
