"""Alerts: what somebody should look at now, kept in a table and told to the account's target of audit notifications.

An alert is raised in the transaction of what it tells, once for each occasion. ``occasion`` names what happened ("kind,
certificate, day"): the same again says nothing, so that whoever sees it need not remember having said it.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, select

from keyassay.registry.documents import read_document
from keyassay.registry.registry import Page, Registry
from keyassay.storage import outbox, schema
from keyassay.storage.database import Actor, Transaction

#: how long alerts are kept, days
KEPT = 400

#: the account's document that names the target, as ``keyassay.audit.configuration`` keeps it
_AUDIT, _TARGETS = "audit", "auditNotificationTargetConfigurations"
_LONGEST = 200
_DAY = 86_400_000
_SWEEP = 50

_T = schema.alerts.c


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
    account_id = transaction.account_id
    if len(occasion) > _LONGEST:
        occasion = f"{occasion[: _LONGEST - 65]}:{hashlib.sha256(occasion.encode()).hexdigest()}"
    here = (_T.account_id == account_id) & (_T.occasion == occasion)
    if transaction.execute(select(_T.id).where(here)).first() is not None:
        return None
    old = select(_T.id).where(_T.account_id == account_id, _T.at < transaction.now - KEPT * _DAY).limit(_SWEEP)
    transaction.execute(delete(schema.alerts).where(_T.account_id == account_id, _T.id.in_(old.scalar_subquery())))
    row = {
        "account_id": account_id,
        "id": str(uuid.uuid4()),
        "at": transaction.now,
        "kind": kind,
        "occasion": occasion,
        "certificate_id": certificate_id,
        "thing_name": thing_name,
        "details": dict(details or {}),
    }
    transaction.execute(schema.alerts.insert().values(row))
    notify(transaction, outbox.ALERT, {"accountId": account_id, **as_json(row)})
    return str(row["id"])


def notify(transaction: Transaction, subject: str, body: Mapping[str, Any]) -> None:
    """Send a message to the account's target of audit notifications, if it has one.

    Args:
        transaction: of the account.
        subject: what it is about, of ``storage.outbox``.
        body: JSON.
    """
    document = read_document(transaction.connection, transaction.account_id, _AUDIT) or {}
    target = (document.get(_TARGETS) or {}).get("SNS") or {}
    if target.get("enabled") and target.get("targetArn"):
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
