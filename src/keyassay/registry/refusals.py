"""Attempts that gates refused: counted by the hour, never one row each, and alerts where a revoked key was tried.

Strangers can make as many attempts, addresses and certificates as they like. Rows are bounded in both: what is beyond
counts in a row without address, or without certificate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import bindparam, func, select, update

from keyassay.registry import alerts
from keyassay.registry.gate_events import BEFORE_PROOF, OF_STRANGERS, Event
from keyassay.registry.lifecycle import Status
from keyassay.storage import schema
from keyassay.storage.database import Transaction
from keyassay.storage.prepared import Prepared, PreparedRows, among

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

_OF_GATE = (_F.account_id == bindparam("account"), _F.gate == bindparam("gate"), _F.hour == bindparam("hour"))
#: an hour at a time: what a gate tells at once is of one or two
_COUNTED = Prepared(select(schema.refusals).where(*_OF_GATE, among(_F.certificate_id, "certificates")))
_STRANGERS = Prepared(
    select(func.count(func.distinct(_F.certificate_id)).label("held")).where(
        *_OF_GATE, _F.verdict == bindparam("verdict")
    )
)
_MADE = PreparedRows(schema.refusals)
_CHANGED = PreparedRows(
    schema.refusals,
    keys=("account_id", "hour", "gate", "certificate_id", "verdict", "source"),
    values=("client_id", "count", "first_at", "last_at"),
)
_HELD = Prepared(select(_R.digests).where(_R.account_id == bindparam("account"), _R.gate == bindparam("gate")))
_REMEMBER = Prepared(schema.counted_refusals.insert(), schema.counted_refusals.columns.keys())
_REMEMBER_MORE = Prepared(
    update(schema.counted_refusals)
    .where(_R.account_id == bindparam("account"), _R.gate == bindparam("of_gate"))
    .values(digests=bindparam("new_digests"), counted_at=bindparam("now"))
)
_REVOKED = Prepared(
    select(_C.id).where(
        _C.account_id == bindparam("account"), among(_C.id, "certificates"), _C.status == Status.REVOKED.value
    )
)

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
    asked = {
        "account": transaction.account_id,
        "gate": gate,
        "certificates": {*(one.certificate_id for one in new), ""},
    }
    rows = {
        (row["hour"], row["certificate_id"], row["verdict"], row["source"]): row
        for hour in {one.at // HOUR * HOUR for one in new}
        for row in _COUNTED.all(transaction.connection, {**asked, "hour": hour})
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
            here = {"account": transaction.account_id, "gate": gate, "hour": hour, "verdict": event.verdict}
            counted = _STRANGERS.first(transaction.connection, here)
            assert counted is not None
            strangers[kind] = counted["held"]
        if strangers[kind] >= STRANGERS:
            return (hour, "", event.verdict, "")
        strangers[kind] += 1
    if sources[group] >= SOURCES:
        return (*group, "")
    sources[group] += 1
    return key


def _write(transaction: Transaction, rows: dict[_Key, dict[str, Any]], present: set[_Key]) -> None:
    _MADE.run(transaction.connection, [row for key, row in rows.items() if key not in present])
    changed = [row for key, row in rows.items() if key in present and row.pop("changed", False)]
    _CHANGED.run(transaction.connection, changed)


def _uncounted(transaction: Transaction, gate: str, events: Sequence[Event]) -> list[Event]:
    """Events that the gate has not told before; they are remembered."""
    account_id = transaction.account_id
    held = _HELD.first(transaction.connection, {"account": account_id, "gate": gate})
    known = b"" if held is None else bytes(held["digests"])
    before = {known[start : start + _DIGEST] for start in range(0, len(known), _DIGEST)}
    new: dict[bytes, Event] = {}
    for event in events:
        digest = event.digest(account_id, gate)[:_DIGEST]
        if digest not in before:
            new.setdefault(digest, event)
    if new:
        digests = (known + b"".join(new))[-REMEMBERED * _DIGEST :]
        if held is None:
            row = {"account_id": account_id, "gate": gate, "digests": digests, "counted_at": transaction.now}
            _REMEMBER.run(transaction.connection, row)
        else:
            values = {"account": account_id, "of_gate": gate, "new_digests": digests, "now": transaction.now}
            _REMEMBER_MORE.run(transaction.connection, values)
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
    asked = {"account": transaction.account_id, "certificates": tried}
    revoked = [row["id"] for row in _REVOKED.all(transaction.connection, asked)]
    raised = []
    for certificate_id in sorted(revoked):
        attempts = tried[certificate_id]
        last = max(attempts, key=lambda one: one.at)
        details = {
            "gate": gate,
            "verdict": last.verdict,
            "at": last.at,
            "clientId": last.client_id,
            "sources": list(dict.fromkeys(one.host for one in attempts))[:SOURCES],
        }
        occasion = f"{REVOKED_TRIED}:{certificate_id}:{transaction.now // DAY}"
        raised.append(alerts.Alert(REVOKED_TRIED, occasion, certificate_id, details=details))
    if raised:
        alerts.raise_all(transaction, raised)
