"""Mitigation tasks: started, canceled and described here; ``execution`` and ``worker`` do them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, exists, or_, select, update

from keyassay.mitigation import actions
from keyassay.mitigation.actions import Action
from keyassay.mitigation.plan import Planned, plan
from keyassay.mitigation.selection import Target, things_of_certificates
from keyassay.registry.errors import InvalidError, NotFoundError, TaskExistsError
from keyassay.registry.registry import DEFAULT_PAGE, Page, Registry
from keyassay.storage import outbox, schema
from keyassay.storage.database import Actor, Transaction
from keyassay.storage.paging import BadTokenError, Position

_T = schema.mitigation_tasks.c
_E = schema.mitigation_executions.c
_F = schema.audit_findings.c
_O = schema.outbox.c


class TaskStatus(StrEnum):
    """Of a task."""

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class ExecutionStatus(StrEnum):
    """Of one action for one finding."""

    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELED = "CANCELED"


class Outcome(StrEnum):
    """What became of a finding; the names are those of the counts."""

    FAILED = "failedFindingsCount"
    SUCCEEDED = "succeededFindingsCount"
    SKIPPED = "skippedFindingsCount"
    CANCELED = "canceledFindingsCount"


@dataclass
class Progress:
    """How far a task has come; a document of its row.

    Attributes:
        after: the last finding that was begun (``Target.position``).
        all_begun: whether there are no more to begin.
        waiting: findings that wait for a delivery.
        totals: findings of each check as they were counted at the beginning; None before.
        counts: check -> outcome -> findings.
    """

    after: Position | None = None
    all_begun: bool = False
    waiting: int = 0
    totals: dict[str, int] | None = None
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Progress:
        """That of a task's row."""
        document = row["position"]
        if document is None:
            return cls()
        after = document["after"]
        return cls(
            None if after is None else tuple(after),
            document["all_begun"],
            document["waiting"],
            document["totals"],
            document["counts"],
        )

    def as_json(self) -> dict[str, Any]:
        """For the row."""
        return {
            "after": None if self.after is None else list(self.after),
            "all_begun": self.all_begun,
            "waiting": self.waiting,
            "totals": self.totals,
            "counts": self.counts,
        }

    def count(self, check: str, outcome: Outcome, findings: int = 1) -> None:
        """Note what became of findings."""
        its = self.counts.setdefault(check, {})
        its[outcome.value] = its.get(outcome.value, 0) + findings

    @property
    def failed(self) -> bool:
        """Whether anything did."""
        return any(its.get(Outcome.FAILED.value) for its in self.counts.values())

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.all_begun and not self.waiting

    def cancel_rest(self) -> None:
        """Count everything that has no outcome yet as canceled."""
        for check, total in (self.totals or {}).items():
            rest = total - sum(self.counts.get(check, {}).values())
            if rest > 0:
                self.count(check, Outcome.CANCELED, rest)
        self.all_begun, self.waiting = True, 0

    def statistics(self) -> dict[str, dict[str, int]]:
        """AWS's taskStatistics: five counts for each check; at the end the first is the sum of the rest."""
        found = {}
        for check in sorted({*self.counts, *(self.totals or {})}):
            counts = {one.value: self.counts.get(check, {}).get(one.value, 0) for one in Outcome}
            done = sum(counts.values())
            total = done if self.ended else max(done, (self.totals or {}).get(check, 0))
            found[check] = {"totalFindingsCount": total, **counts}
        return found


def definitions_of(row: Mapping[Any, Any]) -> dict[str, Action]:
    """The actions of a task as they were when it was started, by name."""
    return {one["name"]: Action.from_json(one) for one in row["definitions"]}


def start(
    registry: Registry,
    actor: Actor,
    task_id: str,
    target: Mapping[str, Any],
    mapping: Mapping[str, Sequence[str]],
    token: str,
) -> str:
    """Start a task: a worker takes it up. The same id with the same token again is the same task.

    Args:
        registry: where.
        actor: who, and in which account.
        task_id: of the caller's choice.
        target: the API's.
        mapping: check -> names of one to five actions, done in this order.
        token: the caller's mark of this request.

    Returns:
        The task's id.

    Raises:
        InvalidError: no target or too much of it; an unknown audit, finding, check or action; an action that does not
            fit its check.
        TaskExistsError: the id is taken with another token, or the token with another id.
    """
    wanted = Target.read(target)
    account_id = actor.account_id
    with registry.database.write(actor) as transaction:
        query = select(_T.id, _T.token).where(_T.account_id == account_id, (_T.id == task_id) | (_T.token == token))
        for known in transaction.execute(query):
            if (known.id, known.token) == (task_id, token):
                return task_id
            if known.id == task_id:
                raise TaskExistsError("there is a task of that id, which another request started")
            raise TaskExistsError("the token has started a task of another id")
        definitions = actions.chosen(transaction.connection, account_id, mapping)
        wanted.check_exists(transaction.connection, account_id)
        row = {
            "account_id": account_id,
            "id": task_id,
            "status": TaskStatus.IN_PROGRESS.value,
            "target": dict(target),
            "audit_task_id": wanted.audit_task_id,
            "mapping": {check: list(names) for check, names in mapping.items()},
            "definitions": [one.as_json() for one in definitions.values()],
            "token": token,
            "cancel": False,
            "started_at": transaction.now,
        }
        transaction.execute(schema.mitigation_tasks.insert().values(row))
        transaction.record(
            "StartAuditMitigationActionsTask",
            "mitigation-task",
            task_id,
            {"target": row["target"], "mapping": row["mapping"]},
        )
    return task_id


def find(connection: Connection, account_id: str, task_id: str) -> RowMapping:
    """The row of a task.

    Raises:
        NotFoundError: there is none.
    """
    query = select(schema.mitigation_tasks).where(_T.account_id == account_id, _T.id == task_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError("there is no such mitigation task")
    return row


def describe(registry: Registry, actor: Actor, task_id: str) -> RowMapping:
    """All columns of a task; ``Progress.of`` has its statistics.

    Raises:
        NotFoundError: there is none.
    """
    with registry.database.read() as connection:
        return find(connection, actor.account_id, task_id)


def listed(
    registry: Registry,
    actor: Actor,
    *,
    start_time: int,
    end_time: int,
    audit_task_id: str | None = None,
    finding_id: str | None = None,
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
        audit_task_id: only tasks about findings of that audit.
        finding_id: only tasks that came upon that finding.
        status: only these.
        token: of the page before.
        size: rows of a page.

    Raises:
        InvalidError: the times are in the wrong order; a foreign token.
    """
    if end_time < start_time:
        raise InvalidError("endTime is before startTime")
    account_id = actor.account_id
    query = select(_T.id, _T.started_at, _T.status)
    query = query.where(_T.account_id == account_id, _T.started_at.between(start_time, end_time))
    its = and_(_E.account_id == account_id, _E.task_id == _T.id)
    if audit_task_id is not None:
        of_audit = and_(its, _F.account_id == account_id, _F.id == _E.finding_id, _F.task_id == audit_task_id)
        by_name = and_(_T.audit_task_id.is_(None), exists().where(of_audit))
        query = query.where(or_(_T.audit_task_id == audit_task_id, by_name))
    if finding_id is not None:
        query = query.where(exists().where(its, _E.finding_id == finding_id))
    if status is not None:
        query = query.where(_T.status == status)
    filters = (start_time, end_time, audit_task_id or "", finding_id or "", status or "")
    scope = (account_id, "mitigation-tasks", *filters)
    order = (_T.started_at, _T.id)
    with registry.database.read() as connection:
        return registry.page(connection, query, order, scope=scope, token=token, size=size, ascending=False)


def executions(
    registry: Registry,
    actor: Actor,
    task_id: str,
    finding_id: str,
    *,
    status: str | None = None,
    token: str | None = None,
    size: int | None = None,
) -> Page[dict[str, Any]]:
    """A page of what a task did about a finding, in the order of its actions; none if it did not come upon it.

    Raises:
        InvalidError: a foreign token.
    """
    query = select(schema.mitigation_executions).where(
        _E.account_id == actor.account_id, _E.task_id == task_id, _E.finding_id == finding_id
    )
    if status is not None:
        query = query.where(_E.status == status)
    scope = (actor.account_id, "mitigation-executions", task_id, finding_id, status or "")
    with registry.database.read() as connection:
        return registry.page(connection, query, (_E.position,), scope=scope, token=token, size=size)


def cancel(registry: Registry, actor: Actor, task_id: str) -> None:
    """End a task at once; what it has done stays done.

    A message that is just being delivered may still arrive.

    Raises:
        NotFoundError: there is none.
        InvalidError: it is not in progress.
    """
    account_id = actor.account_id
    with registry.database.write(actor) as transaction:
        row = find(transaction.connection, account_id, task_id)
        if row["status"] != TaskStatus.IN_PROGRESS:
            raise InvalidError("the mitigation task is not in progress")
        progress = Progress.of(row)
        if progress.totals is None:  # no worker has come to it yet
            target = Target.read(row["target"])
            progress.totals = target.counts(transaction.connection, account_id, row["mapping"])
        progress.cancel_rest()
        here = (_E.account_id == account_id) & (_E.task_id == task_id)
        unfinished = _E.status.in_((ExecutionStatus.PENDING.value, ExecutionStatus.IN_PROGRESS.value))
        transaction.execute(
            update(schema.mitigation_executions)
            .where(here, unfinished)
            .values(status=ExecutionStatus.CANCELED.value, ended_at=transaction.now)
        )
        undelivered = (_O.account_id == account_id) & (_O.status == outbox.PENDING)
        undelivered &= _O.execution["task_id"].as_string() == task_id
        transaction.execute(update(schema.outbox).where(undelivered).values(status=outbox.CANCELED))
        end(transaction, task_id, TaskStatus.CANCELED, progress)
        transaction.record("CancelAuditMitigationActionsTask", "mitigation-task", task_id)


def save(transaction: Transaction, task_id: str, progress: Progress) -> None:
    """Write how far a task has come; a task that has nothing left to do ends."""
    if progress.ended:
        status = TaskStatus.FAILED if progress.failed else TaskStatus.COMPLETED
        end(transaction, task_id, status, progress)
        details = {"status": status.value, "statistics": progress.statistics()}
        transaction.record("EndAuditMitigationActionsTask", "mitigation-task", task_id, details)
        return
    _write(transaction, task_id, position=progress.as_json())


def end(transaction: Transaction, task_id: str, status: TaskStatus, progress: Progress) -> None:
    """Give a task its last status, inside a transaction."""
    canceled = status is TaskStatus.CANCELED
    values = {"status": status.value, "ended_at": transaction.now, "cancel": canceled}
    _write(transaction, task_id, position=progress.as_json(), **values)


def _write(transaction: Transaction, task_id: str, **values: Any) -> None:
    here = (_T.account_id == transaction.account_id) & (_T.id == task_id)
    transaction.execute(update(schema.mitigation_tasks).where(here).values(values))


def dry_run(
    registry: Registry,
    actor: Actor,
    target: Mapping[str, Any],
    mapping: Mapping[str, Sequence[str]],
    *,
    proposed: Sequence[Action] = (),
    token: str | None = None,
    size: int | None = None,
) -> Page[Planned]:
    """What a task would do, a page of findings at a time; nothing changes.

    Args:
        registry: where.
        actor: who asks.
        target: the API's.
        mapping: check -> names of actions.
        proposed: actions that would be created before.
        token: of the page.
        size: findings of a page.

    Raises:
        InvalidError: as ``start``; a foreign token.
    """
    wanted = Target.read(target)
    account_id = actor.account_id
    count = DEFAULT_PAGE if size is None else size
    scope = (account_id, "mitigation-plan", sorted(target.items(), key=str), sorted(mapping.items(), key=str))
    try:
        after = None if token is None else registry.tokens.read(scope, token)
    except BadTokenError as error:
        raise InvalidError(str(error)) from None
    with registry.database.read() as connection:
        definitions = actions.chosen(connection, account_id, mapping, proposed)
        wanted.check_exists(connection, account_id)
        found = wanted.findings(connection, account_id, mapping, after, count)
        shown = found[:count]
        named = [name for one in shown for name in one.certificates]
        things = things_of_certificates(connection, account_id, named)
    planned = list(plan(shown, mapping, definitions, wanted.reason_codes, things))
    more = len(found) > count
    return Page(planned, registry.tokens.make(scope, wanted.position(shown[-1])) if more else None)
