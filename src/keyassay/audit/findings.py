"""Findings of audits: found by task or time, with all that they concern.

A row's ``resource`` is the API's NonCompliantResource as it is: {"resourceType", "resourceIdentifier",
"additionalInfo"}; a row of ``audit_related`` has the same form, numbered from 0 in its finding. Findings are snapshots:
they outlive what they are about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from keyassay.audit import tasks
from keyassay.audit.checks import audit_check, resource_key
from keyassay.registry.errors import InvalidError, NotFoundError
from keyassay.registry.registry import Page, Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, rows_in_chunks

_F = schema.audit_findings.c
_R = schema.audit_related.c

#: related resources that stand in a finding; the others are paged
RELATED_IN_FINDING = 10


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """A finding as the API shows it.

    Attributes:
        row: of ``audit_findings``.
        related: the first related resources.
    """

    row: Mapping[str, Any]
    related: Sequence[Mapping[str, Any]]


def listed(
    registry: Registry,
    actor: Actor,
    *,
    task_id: str | None = None,
    start_time: int | None = None,
    end_time: int | None = None,
    check_name: str | None = None,
    identifier: Mapping[str, Any] | None = None,
    suppressed: bool | None = None,
    token: str | None = None,
    size: int | None = None,
) -> Page[AuditFinding]:
    """A page of findings: of a task, by check and resource; or of a time, the newest first.

    Args:
        registry: where.
        actor: who.
        task_id: of an audit.
        start_time: of the oldest finding, milliseconds since 1970.
        end_time: of the newest, likewise; both are included.
        check_name: only its findings.
        identifier: only findings about this resource (AWS's ResourceIdentifier).
        suppressed: only those that are (True) or are not (False).
        token: of the page before.
        size: rows of a page.

    Raises:
        InvalidError: not exactly one of a task and a period, a period that ends before it starts or starts further
            back than findings are kept, no such task, check or kind of identifier, or a foreign token.
    """
    if (task_id is not None) == (start_time is not None or end_time is not None):
        raise InvalidError("findings are listed by either taskId or startTime and endTime")
    query = select(schema.audit_findings).where(_F.account_id == actor.account_id)
    key = ""
    if check_name is not None:
        query = query.where(_F.check_name == audit_check(check_name).name)
    if identifier is not None:
        key = resource_key(identifier)
        query = query.where(_F.resource_key == key)
    if suppressed is not None:
        query = query.where(_F.suppressed == suppressed)
    filters = (check_name or "", key, suppressed)
    with registry.database.read() as connection:
        if task_id is not None:
            _check_task(connection, actor.account_id, task_id)
            page = registry.page(
                connection,
                query.where(_F.task_id == task_id),
                (*(() if check_name else (_F.check_name,)), _F.resource_key, _F.reason_code),
                scope=(actor.account_id, "findings-of", task_id, *filters),
                token=token,
                size=size,
            )
        else:
            if start_time is None or end_time is None:
                raise InvalidError("startTime and endTime belong together")
            tasks.check_period(start_time, end_time)
            query = query.where(_F.found_at >= start_time)
            if token is None:  # later pages begin where the one before ended: an index answers one upper bound, not two
                query = query.where(_F.found_at <= end_time)
            page = registry.page(
                connection,
                query,
                (_F.found_at, _F.id),
                scope=(actor.account_id, "findings", start_time, end_time, *filters),
                token=token,
                size=size,
                ascending=False,
            )
        related = _first_related(connection, actor.account_id, [row["id"] for row in page.rows])
    return Page([AuditFinding(row, related.get(row["id"], [])) for row in page.rows], page.next_token)


def _check_task(connection: Connection, account_id: str, task_id: str) -> None:
    """A task that is not there has no findings, but that is not what an empty list would say."""
    try:
        tasks.find(connection, account_id, task_id)
    except NotFoundError as error:
        raise InvalidError(error.message) from None


def _first_related(connection: Connection, account_id: str, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The first related resources of findings, by finding."""
    found: dict[str, list[dict[str, Any]]] = {}
    for chunk in rows_in_chunks(ids):
        query = select(_R.finding_id, _R.resource).where(
            _R.account_id == account_id, _R.finding_id.in_(chunk), _R.number < RELATED_IN_FINDING
        )
        for row in connection.execute(query.order_by(_R.finding_id, _R.number)):
            found.setdefault(row.finding_id, []).append(row.resource)
    return found


def describe(registry: Registry, actor: Actor, finding_id: str) -> AuditFinding:
    """A finding.

    Raises:
        NotFoundError: there is none.
    """
    with registry.database.read() as connection:
        query = select(schema.audit_findings).where(_F.account_id == actor.account_id, _F.id == finding_id)
        row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFoundError("there is no such finding")
        return AuditFinding(dict(row), _first_related(connection, actor.account_id, [finding_id]).get(finding_id, []))


def related(
    registry: Registry, actor: Actor, finding_id: str, *, token: str | None = None, size: int | None = None
) -> Page[dict[str, Any]]:
    """A page of the rows of all resources that a finding concerns beside the noncompliant one.

    Raises:
        NotFoundError, InvalidError: no such finding; a foreign token.
    """
    with registry.database.read() as connection:
        here = (_F.account_id == actor.account_id) & (_F.id == finding_id)
        if connection.execute(select(_F.id).where(here)).first() is None:
            raise NotFoundError("there is no such finding")
        query = select(_R.number, _R.resource).where(_R.account_id == actor.account_id, _R.finding_id == finding_id)
        scope = (actor.account_id, "related", finding_id)
        return registry.page(connection, query, (_R.number,), scope=scope, token=token, size=size)
