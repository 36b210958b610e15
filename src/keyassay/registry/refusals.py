"""Attempts that gates refused: counted by the hour, never one row each, and alerts where a revoked key was tried.

Strangers can make as many attempts, addresses and certificates as they like. Rows are bounded in both: what is beyond
counts in a row without address, or without certificate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import and_, bindparam, func, select, update

from keyassay.registry import alerts
from keyassay.registry.gate_events import BEFORE_PROOF, OF_STRANGERS, Event
from keyassay.registry.lifecycle import Status
from keyassay.storage import schema
from keyassay.storage.database import Transaction

HOUR, DAY = 3_600_000, 86_400_000
#: addresses of a certificate, gate, verdict and hour that have rows of their own
SOURCES = 8
#: certificates of strangers of a gate, verdict and hour that have rows of their own
STRANGERS = 500
#: attempts of a gate that are remembered, so that none is counted twice
REMEMBERED = 4_096
_DIGEST = 8

REVOKED_TRIED = "revoked-certificate-tried"

_F = schema.refusals.c
_R = schema.counted_refusals.c
_C = schema.certificates.c

#: hour, certificate, verdict, source
_Key = tuple[int, str, str, str]


def count(transaction: Transaction, gate: str, events: Sequence[Event]) -> list[Event]:
    """Count refused attempts that have not been counted, and raise alerts for those with revoked certificates.

    Args:
        transaction: of the account.
        gate: that refused them.
        events: refused ones, a few hundred at most.

    Returns:
        Those that were new.
    """
    new = _uncounted(transaction, gate, events)
    if not new:
        return new
    hours = {one.at // HOUR * HOUR for one in new}
    certificates = {one.certificate_id for one in new}
    here = and_(_F.account_id == transaction.account_id, _F.gate == gate, _F.hour.in_(hours))
    query = select(schema.refusals).where(here, _F.certificate_id.in_({*certificates, ""}))
    rows = {
        (row["hour"], row["certificate_id"], row["verdict"], row["source"]): dict(row)
        for row in transaction.execute(query).mappings()
    }
    present = set(rows)
    sources = Counter(key[:3] for key in present if key[3])
    strangers: dict[tuple[int, str], int] = {}
    for event in sorted(new, key=lambda one: one.at):
        key = _room(transaction, gate, event, rows, sources, strangers)
        row = rows.get(key)
        if row is None:
            rows[key] = {
                "account_id": transaction.account_id,
                "gate": gate,
                **dict(zip(("hour", "certificate_id", "verdict", "source"), key, strict=True)),
                "client_id": event.client_id,
                "count": 1,
                "first_at": event.at,
                "last_at": event.at,
            }
            continue
        row["count"] += 1
        row["client_id"] = event.client_id or row["client_id"]
        row["first_at"], row["last_at"] = min(row["first_at"], event.at), max(row["last_at"], event.at)
        row["changed"] = True
    _write(transaction, rows, present)
    _alert(transaction, gate, new)
    return new


def _room(
    transaction: Transaction,
    gate: str,
    event: Event,
    rows: dict[_Key, Any],
    sources: Counter[tuple[int, str, str]],
    strangers: dict[tuple[int, str], int],
) -> _Key:
    """The row in which an event counts."""
    hour = event.at // HOUR * HOUR
    group = (hour, event.certificate_id, event.verdict)
    key = (*group, event.host)
    if key in rows:
        return key
    if event.verdict in OF_STRANGERS and event.certificate_id and not sources[group]:
        kind = (hour, event.verdict)
        if kind not in strangers:
            held = select(func.count(func.distinct(_F.certificate_id))).where(
                _F.account_id == transaction.account_id,
                _F.gate == gate,
                _F.hour == hour,
                _F.verdict == event.verdict,
            )
            strangers[kind] = transaction.execute(held).scalar_one()
        if strangers[kind] >= STRANGERS:
            return (hour, "", event.verdict, "")
        strangers[kind] += 1
    if sources[group] >= SOURCES:
        return (*group, "")
    sources[group] += 1
    return key


def _write(transaction: Transaction, rows: dict[_Key, dict[str, Any]], present: set[_Key]) -> None:
    made = [row for key, row in rows.items() if key not in present]
    for row in made:
        row.pop("changed", None)
    if made:
        transaction.execute(schema.refusals.insert(), made)
    changed = [row for key, row in rows.items() if key in present and row.pop("changed", False)]
    if changed:
        names = ("account_id", "hour", "gate", "certificate_id", "verdict", "source")
        statement = update(schema.refusals).where(*(_F[name] == bindparam(f"its_{name}") for name in names))
        values: dict[str, Any] = {
            name: bindparam(f"new_{name}") for name in ("client_id", "count", "first_at", "last_at")
        }
        given = [
            {f"its_{name}": row[name] for name in names} | {f"new_{name}": row[name] for name in values}
            for row in changed
        ]
        transaction.execute(statement.values(values), given)


def _uncounted(transaction: Transaction, gate: str, events: Sequence[Event]) -> list[Event]:
    """Events that the gate has not told before; they are remembered."""
    account_id = transaction.account_id
    here = (_R.account_id == account_id) & (_R.gate == gate)
    held = transaction.execute(select(_R.digests).where(here)).scalar()
    known = bytes(held or b"")
    before = {known[start : start + _DIGEST] for start in range(0, len(known), _DIGEST)}
    new: dict[bytes, Event] = {}
    for event in events:
        digest = event.digest(account_id, gate)[:_DIGEST]
        if digest not in before:
            new.setdefault(digest, event)
    if new:
        digests = (known + b"".join(new))[-REMEMBERED * _DIGEST :]
        values = {"digests": digests, "counted_at": transaction.now}
        if held is None:
            row = {"account_id": account_id, "gate": gate, **values}
            transaction.execute(schema.counted_refusals.insert().values(row))
        else:
            transaction.execute(update(schema.counted_refusals).where(here).values(values))
    return list(new.values())


def _alert(transaction: Transaction, gate: str, events: Iterable[Event]) -> None:
    """An alert for each certificate that is REVOKED, and whose key was tried; once a day.

    A handshake that failed shows no key: certificates are public. All other verdicts follow a finished handshake.
    """
    tried: dict[str, list[Event]] = {}
    for event in events:
        if event.certificate_id and event.verdict not in BEFORE_PROOF:
            tried.setdefault(event.certificate_id, []).append(event)
    if not tried:
        return
    query = select(_C.id).where(
        _C.account_id == transaction.account_id, _C.id.in_(list(tried)), _C.status == Status.REVOKED.value
    )
    for certificate_id in sorted(transaction.execute(query).scalars()):
        attempts = tried[certificate_id]
        last = max(attempts, key=lambda one: one.at)
        alerts.raise_alert(
            transaction,
            REVOKED_TRIED,
            f"{REVOKED_TRIED}:{certificate_id}:{transaction.now // DAY}",
            certificate_id=certificate_id,
            details={
                "gate": gate,
                "verdict": last.verdict,
                "at": last.at,
                "clientId": last.client_id,
                "sources": list(dict.fromkeys(one.host for one in attempts))[:SOURCES],
            },
        )
