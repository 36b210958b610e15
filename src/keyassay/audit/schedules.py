"""Scheduled audits: which checks, how often, and when next; a worker starts those that are due.

All run at one hour of the day, UTC. ``due_at`` of a row is when it runs next; ``next_due`` says what comes after.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, select, update

from keyassay.audit.checks import audit_check
from keyassay.audit.tasks import check_settings
from keyassay.registry.errors import AlreadyExistsError, InvalidError, LimitError, NotFoundError
from keyassay.registry.registry import Page, Registry
from keyassay.registry.tags import remove_tags, set_tags
from keyassay.storage import schema
from keyassay.storage.database import Actor

_S = schema.scheduled_audits.c

#: of an account
MOST_SCHEDULES = 5
#: hour of the day, UTC, unless the server's operator says otherwise
AUDIT_HOUR = 2
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
#: a Sunday: weeks of schedules begin on Sundays, and those of BIWEEKLY ones are counted from here
_FIRST_SUNDAY = date(1970, 1, 4)


class Frequency(StrEnum):
    """How often."""

    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    BIWEEKLY = "BIWEEKLY"
    MONTHLY = "MONTHLY"


def next_due(
    frequency: str, day_of_month: str | None, day_of_week: str | None, after: int, audit_hour: int = AUDIT_HOUR
) -> int:
    """When a schedule runs next.

    It depends on nothing but its arguments, so that all servers agree. BIWEEKLY ones run in every second week, weeks
    counted from Sunday, 4 January 1970: whenever it is asked, the answers are 14 days apart.

    Args:
        frequency: of ``Frequency``.
        day_of_month: "1" to "31", or "LAST", for MONTHLY; a month that is too short runs on its last day.
        day_of_week: "SUN" to "SAT", for WEEKLY and BIWEEKLY.
        after: milliseconds since 1970; the answer is later.
        audit_hour: 0 to 23, UTC.

    Returns:
        Milliseconds since 1970.

    Raises:
        InvalidError: see ``check_days``.
    """
    day_of_month, day_of_week = check_days(frequency, day_of_month, day_of_week)
    day = datetime.fromtimestamp(after / 1000, UTC).date()
    while True:
        due = int(datetime(day.year, day.month, day.day, audit_hour, tzinfo=UTC).timestamp()) * 1000
        if due > after and _runs_on(day, frequency, day_of_month, day_of_week):
            return due
        day += timedelta(days=1)


def _runs_on(day: date, frequency: str, day_of_month: str | None, day_of_week: str | None) -> bool:
    if frequency == Frequency.DAILY:
        return True
    if day_of_month is not None:
        last = calendar.monthrange(day.year, day.month)[1]
        return day.day == (last if day_of_month == "LAST" else min(int(day_of_month), last))
    even = (day - _FIRST_SUNDAY).days // 7 % 2 == 0
    return WEEKDAYS[day.weekday()] == day_of_week and (frequency == Frequency.WEEKLY or even)


def check_days(frequency: str, day_of_month: str | None, day_of_week: str | None) -> tuple[str | None, str | None]:
    """The days that a frequency needs; those that it does not know become None.

    Raises:
        InvalidError: no such frequency, or its day is missing or none.
    """
    if frequency == Frequency.DAILY:
        return None, None
    if frequency == Frequency.MONTHLY:
        if day_of_month not in ("LAST", *map(str, range(1, 32))):
            raise InvalidError('a MONTHLY audit needs a dayOfMonth: "1" to "31", or "LAST"')
        return day_of_month, None
    if frequency not in (Frequency.WEEKLY, Frequency.BIWEEKLY):
        raise InvalidError(f"{frequency[:40]!r} is no frequency of audits")
    if day_of_week not in WEEKDAYS:
        raise InvalidError(f"a {frequency} audit needs a dayOfWeek: SUN to SAT")
    return None, day_of_week


def _check_names(connection: Connection, account_id: str, names: Sequence[str]) -> list[str]:
    if not names:
        raise InvalidError("an audit has at least one check")
    enabled = check_settings(connection, account_id)
    for name in names:
        if audit_check(name).name not in enabled:
            raise InvalidError(f"the audit check {name} is not enabled")
    return list(dict.fromkeys(names))


def create(
    registry: Registry,
    actor: Actor,
    name: str,
    check_names: Sequence[str],
    frequency: str,
    *,
    day_of_month: str | None = None,
    day_of_week: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Schedule an audit.

    Args:
        registry: where.
        actor: who, and in which account.
        name: of the schedule.
        check_names: what to check.
        frequency: of ``Frequency``.
        day_of_month: see ``next_due``.
        day_of_week: likewise.
        tags: of the schedule.

    Returns:
        Its ARN.

    Raises:
        InvalidError: no checks, one that is unknown or not enabled, or not the day that the frequency needs.
        AlreadyExistsError: the name is taken.
        LimitError: the account has as many as it may.
    """
    day_of_month, day_of_week = check_days(frequency, day_of_month, day_of_week)
    arn = arn_of(registry, actor, name)
    with registry.database.write(actor) as transaction:
        mine = _S.account_id == actor.account_id
        if transaction.execute(select(_S.name).where(mine, _S.name == name)).first() is not None:
            raise AlreadyExistsError("there is a scheduled audit of that name", name, arn)
        checks = _check_names(transaction.connection, actor.account_id, check_names)
        if transaction.execute(select(func.count()).where(mine)).scalar_one() >= MOST_SCHEDULES:
            raise LimitError(f"an account has at most {MOST_SCHEDULES} scheduled audits")
        row = {
            "account_id": actor.account_id,
            "name": name,
            "frequency": frequency,
            "day_of_month": day_of_month,
            "day_of_week": day_of_week,
            "checks": checks,
            "due_at": next_due(frequency, day_of_month, day_of_week, transaction.now, registry.audit_hour),
            "created_at": transaction.now,
        }
        transaction.execute(schema.scheduled_audits.insert().values(row))
        set_tags(registry, transaction, f"scheduledaudit/{name}", tags or {})
        transaction.record("CreateScheduledAudit", "scheduled-audit", name, _details(row))
    return arn


def _details(row: Mapping[str, Any]) -> dict[str, Any]:
    days = {name: row[name] for name in ("day_of_month", "day_of_week") if row[name]}
    return {"frequency": row["frequency"], **days, "checks": row["checks"]}


def arn_of(registry: Registry, actor: Actor, name: str) -> str:
    """ARN of a scheduled audit."""
    return registry.arn(actor.account_id, f"scheduledaudit/{name}")


def describe(registry: Registry, actor: Actor, name: str) -> RowMapping:
    """A scheduled audit.

    Raises:
        NotFoundError: there is none.
    """
    with registry.database.read() as connection:
        return _find(connection, actor.account_id, name)


def _find(connection: Connection, account_id: str, name: str) -> RowMapping:
    query = select(schema.scheduled_audits).where(_S.account_id == account_id, _S.name == name)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError("there is no such scheduled audit")
    return row


def change(
    registry: Registry,
    actor: Actor,
    name: str,
    *,
    check_names: Sequence[str] | None = None,
    frequency: str | None = None,
    day_of_month: str | None = None,
    day_of_week: str | None = None,
) -> str:
    """Change a scheduled audit; what is not given stays. When it runs next changes only with its days.

    Returns:
        Its ARN.

    Raises:
        NotFoundError: there is none.
        InvalidError: as ``create``.
    """
    with registry.database.write(actor) as transaction:
        before = _find(transaction.connection, actor.account_id, name)
        after = dict(before)
        if check_names is not None:
            after["checks"] = _check_names(transaction.connection, actor.account_id, check_names)
        after["frequency"] = frequency or before["frequency"]
        after["day_of_month"], after["day_of_week"] = check_days(
            after["frequency"], day_of_month or before["day_of_month"], day_of_week or before["day_of_week"]
        )
        if any(after[column] != before[column] for column in ("frequency", "day_of_month", "day_of_week")):
            after["due_at"] = next_due(
                after["frequency"], after["day_of_month"], after["day_of_week"], transaction.now, registry.audit_hour
            )
        if after != dict(before):
            here = (_S.account_id == actor.account_id) & (_S.name == name)
            transaction.execute(update(schema.scheduled_audits).where(here).values(after))
            transaction.record("UpdateScheduledAudit", "scheduled-audit", name, _details(after))
    return arn_of(registry, actor, name)


def remove(registry: Registry, actor: Actor, name: str) -> None:
    """Delete a scheduled audit; audits that it has started go on.

    Raises:
        NotFoundError: there is none.
    """
    with registry.database.write(actor) as transaction:
        _find(transaction.connection, actor.account_id, name)
        here = (_S.account_id == actor.account_id) & (_S.name == name)
        transaction.execute(delete(schema.scheduled_audits).where(here))
        remove_tags(transaction, f"scheduledaudit/{name}")
        transaction.record("DeleteScheduledAudit", "scheduled-audit", name)


def listed(
    registry: Registry, actor: Actor, *, token: str | None = None, size: int | None = None
) -> Page[dict[str, Any]]:
    """A page of scheduled audits, by name.

    Raises:
        InvalidError: a foreign token.
    """
    query = select(schema.scheduled_audits).where(_S.account_id == actor.account_id)
    scope = (actor.account_id, "scheduled-audits")
    with registry.database.read() as connection:
        return registry.page(connection, query, (_S.name,), scope=scope, token=token, size=size)
