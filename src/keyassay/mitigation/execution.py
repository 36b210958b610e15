"""Doing what was planned for a finding, recorded action by action; going on after a delivery.

After an action that failed the rest is skipped for that finding, others go on; nothing is rolled back. An action that
publishes waits for its delivery, and the actions after it with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from keyassay.mitigation import selection, steps
from keyassay.mitigation.plan import FILTERED, Planned, Step, plan
from keyassay.mitigation.tasks import ExecutionStatus, Outcome, Progress, TaskStatus, definitions_of, save
from keyassay.registry.errors import RegistryError
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from keyassay.storage.database import Transaction

_T = schema.mitigation_tasks.c
_E = schema.mitigation_executions.c

_LONGEST_MESSAGE = 2_048


def begin(registry: Registry, transaction: Transaction, task_id: str, planned: Planned) -> Outcome | None:
    """Do what is planned for a finding.

    Args:
        registry: where.
        transaction: of the task's account.
        task_id: of the task.
        planned: a finding with its steps.

    Returns:
        What became of the finding; None if a delivery has to be waited for.
    """
    if planned.skipped == FILTERED:  # thousands may be: nothing is written about each
        return Outcome.SKIPPED
    results, outcome = (
        ([{"status": ExecutionStatus.SKIPPED} for _ in planned.steps], Outcome.SKIPPED)
        if planned.skipped
        else _perform(registry, transaction, task_id, planned.steps)
    )
    nothing = {"ended_at": None, "error_code": None, "message": None}
    rows = [
        {
            "account_id": transaction.account_id,
            "task_id": task_id,
            "finding_id": planned.finding.id,
            "position": step.position,
            "check_name": planned.finding.check_name,
            "action_name": step.action.name,
            "action_id": step.action.id,
            "started_at": transaction.now,
            **nothing,
            **_dated(transaction, result),
        }
        for step, result in zip(planned.steps, results, strict=True)
    ]
    if rows:
        transaction.execute(schema.mitigation_executions.insert(), rows)
    return outcome


def _dated(transaction: Transaction, result: Mapping[str, Any]) -> dict[str, Any]:
    ended = result["status"] not in (ExecutionStatus.PENDING, ExecutionStatus.IN_PROGRESS)
    return {**result, "status": result["status"].value, "ended_at": transaction.now if ended else None}


def _perform(
    registry: Registry, transaction: Transaction, task_id: str, todo: Sequence[Step]
) -> tuple[list[dict[str, Any]], Outcome | None]:
    """Do steps in their order: what became of each one, and of the finding."""
    results: list[dict[str, Any]] = []

    def rest(status: ExecutionStatus) -> list[dict[str, Any]]:
        return results + [{"status": status} for _ in todo[len(results) :]]

    for step in todo:
        try:
            done = steps.carry_out(registry, transaction, task_id, step)
        except RegistryError as error:
            results.append(_failed(steps.error_code(error), error.message))
            return rest(ExecutionStatus.SKIPPED), Outcome.FAILED
        except OperationalError:  # the database is busy or gone: all of it is tried again
            raise
        except Exception as error:  # noqa: BLE001  one finding that cannot be dealt with must not stop the others
            results.append(_failed(steps.INTERNAL, f"an internal failure: {type(error).__name__}"))
            return rest(ExecutionStatus.SKIPPED), Outcome.FAILED
        if not done:
            results.append({"status": ExecutionStatus.IN_PROGRESS})
            return rest(ExecutionStatus.PENDING), None
        results.append({"status": ExecutionStatus.COMPLETED})
    return results, Outcome.SUCCEEDED


def _failed(code: str, message: str) -> dict[str, Any]:
    return {"status": ExecutionStatus.FAILED, "error_code": code, "message": message[:_LONGEST_MESSAGE]}


def settle(registry: Registry, transaction: Transaction, execution: Mapping[str, Any], problem: str = "") -> None:
    """Note the end of a delivery that an execution waits for, and do what comes after it.

    Args:
        registry: where.
        transaction: that notes it in the outbox.
        execution: of the message.
        problem: why it was given up; "" if it was delivered.
    """
    task_id, finding_id, position = execution["task_id"], execution["finding_id"], execution["position"]
    query = select(schema.mitigation_tasks).where(_T.account_id == transaction.account_id, _T.id == task_id)
    task = transaction.execute(query).mappings().first()
    if task is None or task["status"] != TaskStatus.IN_PROGRESS:
        return
    its = (_E.account_id == transaction.account_id) & (_E.task_id == task_id) & (_E.finding_id == finding_id)
    present = transaction.execute(select(_E.status).where(its, _E.position == position)).scalar()
    if present != ExecutionStatus.IN_PROGRESS:
        return
    finding = selection.finding(transaction.connection, transaction.account_id, finding_id)
    (planned,) = plan([finding], task["mapping"], definitions_of(task))
    todo = planned.steps[position + 1 :]
    outcome: Outcome | None
    if problem:
        first = _failed(steps.NOT_DELIVERED, problem)
        results, outcome = [{"status": ExecutionStatus.SKIPPED} for _ in todo], Outcome.FAILED
    else:
        first = {"status": ExecutionStatus.COMPLETED}
        results, outcome = _perform(registry, transaction, task_id, todo)
    for place, result in enumerate([first, *results], position):
        values = _dated(transaction, result)
        transaction.execute(update(schema.mitigation_executions).where(its, _E.position == place).values(values))
    if outcome is None:
        return
    progress = Progress.of(task)
    progress.waiting -= 1
    progress.count(finding.check_name, outcome)
    save(transaction, task_id, progress)
