"""Alerts: what somebody should look at now, kept in a table and told to the account's target of audit notifications.

An alert is raised in the transaction of what it tells, once for each occasion. ``occasion`` names what happened ("kind,
certificate, day"): the same again says nothing, so that whoever sees it need not remember having said it.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, delete, select

from keyassay.registry.documents import read_document
from keyassay.registry.registry import Page, Registry
from keyassay.storage import outbox, schema
from keyassay.storage.database import Actor, Transaction
from keyassay.storage.prepared import Prepared, PreparedRows, among

#: how long alerts are kept, days
KEPT = 400

#: the account's document that names the target, as ``keyassay.audit.configuration`` keeps it
_AUDIT, _TARGETS = "audit", "auditNotificationTargetConfigurations"
_LONGEST = 200
_DAY = 86_400_000
_SWEEP = 50

_T = schema.alerts.c

_MINE = _T.account_id == bindparam("account")
_SAID = Prepared(select(_T.occasion).where(_MINE, among(_T.occasion, "occasions")))
_OLD = select(_T.id).where(_MINE, _T.at < bindparam("before")).limit(_SWEEP)
_FORGET = Prepared(delete(schema.alerts).where(_MINE, _T.id.in_(_OLD.scalar_subquery())))
_RAISE = PreparedRows(schema.alerts)


@dataclass(frozen=True, slots=True)
class Alert:
    """One that is to be raised.

    Attributes:
        kind, occasion, certificate_id, thing_name, details: as for ``raise_alert``.
    """

    kind: str
    occasion: str
    certificate_id: str | None = None
    thing_name: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def raise_alert(
    transaction: Transaction,
    kind: str,
    occasion: str,
    *,
    certificate_id: str | None = None,
    thing_name: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> str | None:
    """Raise an alert, unless there was one on this occasion.

    Args:
        transaction: of the account.
        kind: what it is, in words with hyphens ("key-in-two-places").
        occasion: names what happened; at most one alert of an account has it.
        certificate_id: that it is about.
        thing_name: that it is about.
        details: further public facts, JSON; never a secret.

    Returns:
        The alert's id; None if the occasion had its alert.
    """
    return raise_all(transaction, [Alert(kind, occasion, certificate_id, thing_name, dict(details or {}))])[0]


def raise_all(transaction: Transaction, alerts: Sequence[Alert]) -> list[str | None]:
    """Raise several at once: a few statements, however many there are.

    Args:
        transaction: of the account.
        alerts: what happened; of several of one occasion the first.

    Returns:
        For each the alert's id, or None if the occasion had its alert.
    """
    account_id = transaction.account_id
    named = [_name(one.occasion) for one in alerts]
    asked = {"account": account_id, "occasions": set(named)}
    said = {row["occasion"] for row in _SAID.all(transaction.connection, asked)}
    rows: list[dict[str, Any]] = []
    ids: list[str | None] = []
    for one, occasion in zip(alerts, named, strict=True):
        if occasion in said:
            ids.append(None)
            continue
        said.add(occasion)
        alert_id = str(uuid.uuid4())
        row = {
            "account_id": account_id,
            "id": alert_id,
            "at": transaction.now,
            "kind": one.kind,
            "occasion": occasion,
            "certificate_id": one.certificate_id,
            "thing_name": one.thing_name,
            "details": dict(one.details),
        }
        rows.append(row)
        ids.append(alert_id)
    if rows:
        _FORGET.run(transaction.connection, {"account": account_id, "before": transaction.now - KEPT * _DAY})
        _RAISE.run(transaction.connection, rows)
        notify(transaction, outbox.ALERT, *({"accountId": account_id, **as_json(row)} for row in rows))
    return ids


def _name(occasion: str) -> str:
    if len(occasion) <= _LONGEST:
        return occasion
    return f"{occasion[: _LONGEST - 65]}:{hashlib.sha256(occasion.encode()).hexdigest()}"


def notify(transaction: Transaction, subject: str, *bodies: Mapping[str, Any]) -> None:
    """Send messages to the account's target of audit notifications, if it has one.

    Args:
        transaction: of the account.
        subject: what it is about, of ``storage.outbox``.
        bodies: JSON.
    """
    document = read_document(transaction.connection, transaction.account_id, _AUDIT) or {}
    target = (document.get(_TARGETS) or {}).get("SNS") or {}
    if target.get("enabled") and target.get("targetArn"):
        for body in bodies:
            outbox.put(transaction, target["targetArn"], subject, body)


def as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """An alert as messages and the API show it; ``at`` in milliseconds since 1970."""
    shown = {
        "alertId": row["id"],
        "at": row["at"],
        "kind": row["kind"],
        "certificateId": row["certificate_id"],
        "thingName": row["thing_name"],
        "details": row["details"],
    }
    return {name: value for name, value in shown.items() if value is not None}


def listed(
    registry: Registry, actor: Actor, *, kind: str | None = None, token: str | None = None, size: int | None = None
) -> Page[dict[str, Any]]:
    """A page of the account's alerts, newest first.

    Args:
        registry: where.
        actor: whose.
        kind: only those of this kind.
        token: of the page before.
        size: rows, 1 to 250.

    Raises:
        InvalidError: a foreign token.
    """
    query = select(schema.alerts).where(_T.account_id == actor.account_id)
    if kind is not None:
        query = query.where(_T.kind == kind)
    scope = (actor.account_id, "alerts", kind or "")
    with registry.database.read() as connection:
        return registry.page(connection, query, (_T.at, _T.id), scope=scope, token=token, size=size, ascending=False)
