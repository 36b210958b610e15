"""Who was connected when: what gates tell becomes intervals, and intervals answer "last seen" and "connected now".

An interval begins with an event ``ok`` to which the broker agreed, or when a gate names a session that is not known. It
ends when another session takes the client id at the same gate (a broker has each client id once), when the gate names
it no more, or when the gate has said nothing for ``SILENCE``. What is told again changes nothing.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, delete, func, or_, select, tuple_, union_all, update
from sqlalchemy.sql.dml import UpdateBase

from keyassay.registry import alerts, auto_registration, gate_events, places, refusals
from keyassay.registry.gate_events import OK, Event, Session
from keyassay.registry.places import Interval, TwoPlaces
from keyassay.registry.principals import things_of
from keyassay.registry.registry import Page, Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction, rows_in_chunks
from keyassay.storage.prepared import Prepared, PreparedRows, among
from keyassay.storage.repeating import repeat

#: how long intervals and refusals are kept, days; checks look 31 days back
KEPT = 35
#: milliseconds after which the sessions of a gate that says nothing have ended
SILENCE = 600_000
#: milliseconds by which a gate's count of bytes may be older than its message
SLACK = 10_000
#: milliseconds for which a session need not be named: the list may have been made before it began
GRACE = 3_000
#: of one transaction: events, or sessions that begin or end, which change pages all over the indexes; and sessions that
#: last, whose rows stand beside each other and are in no index
CHUNK, SESSIONS_CHUNK = 50, 500
#: sessions of a certificate, and certificates of a request, that are looked at for use at two places
_LOOKED_AT, _CANDIDATES = 200, 50
#: how far back that looks, milliseconds
_LATELY = 1_800_000
TWO_PLACES = "key-in-two-places"
_DAY = 86_400_000
#: seconds between two clean-ups, and rows that one transaction ends or removes
SWEEP, _SWEPT = 60.0, 100

_N = schema.connections.c
_F = schema.refusals.c
_P = schema.thing_principals.c

_LOOKED_UP = select(
    *(_N.id, _N.gate, _N.certificate_id, _N.client_id, _N.source, _N.tls_version),
    *(_N.started_at, _N.seen_at, _N.ended_at, _N.recorded_at, _N.bytes_in, _N.sent_at),
).where(_N.account_id == bindparam("account"))
_OPEN = _LOOKED_UP.where(_N.ended_at.is_(None))
#: the intervals that events may have begun already, and those that they may end; some more than once
_FOUND = Prepared(
    union_all(
        _LOOKED_UP.where(among(_N.id, "ids")),
        _OPEN.where(_N.gate == bindparam("gate"), among(_N.client_id, "clients")),
        # of all gates: with a condition on the gate SQLite would ask the index above, and read all that is open
        _OPEN.where(among(_N.certificate_id, "certificates"), among(_N.source, "sources")),
    )
)
_MADE = PreparedRows(schema.connections)
_END = PreparedRows(schema.connections, keys=("account_id", "id"), values=("ended_at",))
#: not "IS NULL", for which planners would read all open intervals by their index instead of these few by their ids
_LASTS = func.coalesce(_N.ended_at, 0) == 0
_HERE = (_N.account_id == bindparam("account"), among(_N.id, "ids"), _LASTS)
_SEEN = Prepared(update(schema.connections).where(*_HERE).values(seen_at=bindparam("now")))
_SENT, _COUNTED = (
    PreparedRows(schema.connections, keys=("account_id", "id"), values=names, where=(_LASTS,))
    for names in (("seen_at", "bytes_in", "sent_at"), ("seen_at", "bytes_in"))
)
_MISSED = Prepared(
    update(schema.connections)
    .where(*_HERE, or_(_N.recorded_at.is_(None), _N.recorded_at < bindparam("before")))
    .values(ended_at=_N.seen_at)
)
_OPEN_SOCKETS = Prepared(
    select(_N.gate, _N.certificate_id, _N.source).where(
        _N.account_id == bindparam("account"), _N.ended_at.is_(None), among(_N.certificate_id, "certificates")
    )
)
_REPLACED = Prepared(delete(schema.connections).where(_N.account_id == bindparam("account"), among(_N.id, "ids")))


def record_events(registry: Registry, actor: Actor, body: Mapping[str, Any]) -> dict[str, Any]:
    """Record what a gate tells of connections, and register the devices that it saw for the first time.

    Args:
        registry: where.
        actor: the gate's access key, and the account.
        body: ``{"gate", "events": [...], "sessions": [...] or None, "sentAt"}`` (docs/connections.md). The same events
            may be sent again.

    Returns:
        ``{"registrations": [{"certificateId", "status" or "refused"}], "skipped": [{"number", "problem"}]}``; the
        second names events that make no sense.

    Raises:
        InvalidError: the request as a whole makes no sense or is too large.
        BusyError: the database is busy: send it again.
    """
    told = gate_events.read(body, time.time_ns() // 1_000_000)
    touched: set[str] = set()
    for events in rows_in_chunks(told.events, CHUNK):
        with registry.database.write(actor) as transaction:
            touched |= _begin(transaction, told.gate, [one for one in events if one.is_session])
            new = refusals.count(transaction, told.gate, [one for one in events if one.is_refused])
            auto_registration.announce_again(transaction, new)
    if told.sessions is not None:
        _compare(registry, actor, told.gate, told.sessions)
    _look_for_two_places(registry, actor, touched, sessions=told.sessions is not None)
    return {"registrations": auto_registration.register_all(registry, actor, told.events), "skipped": told.skipped}


# Intervals


def _begin(transaction: Transaction, gate: str, events: Sequence[Event]) -> set[str]:
    """Begin the intervals of events that are not known; their certificates."""
    account_id = transaction.account_id
    new = {one.interval_id(account_id, gate): one for one in events}
    if not new:
        return set()
    asked = {
        "ids": list(new),
        "clients": {one.client_id for one in events} - {""},
        "certificates": {one.certificate_id for one in events},
        "sources": {one.source for one in events},
    }
    found = {
        row["id"]: row for row in _FOUND.all(transaction.connection, {"account": account_id, "gate": gate, **asked})
    }
    for interval_id in found:
        new.pop(interval_id, None)
    if not new:
        return set()
    # sorted here: asked for an order, SQLite goes through all intervals of the account in that order
    ordered = sorted(found.values(), key=lambda row: row["started_at"])
    there = [row for row in ordered if row["ended_at"] is None and row["gate"] == gate]
    clients = {row["client_id"]: row for row in there if row["client_id"]}
    sockets = {(row["certificate_id"], row["source"]): row for row in there}
    made: list[dict[str, Any]] = []
    changed: dict[str, dict[str, Any]] = {}
    replaced: list[str] = []
    for interval_id, event in sorted(new.items(), key=lambda one: one[1].at):
        row = _row(transaction, gate, event, interval_id)
        socket = (event.certificate_id, event.source)
        for other in (sockets.get(socket), clients.get(event.client_id)):
            if other is None or other["ended_at"] is not None:
                continue
            if other is sockets.get(socket) and not other["tls_version"]:
                # the gate named the session before it told of its beginning
                row |= {name: other[name] for name in ("bytes_in", "sent_at", "seen_at", "recorded_at")}
                other["ended_at"] = other["seen_at"]
                replaced.append(other["id"])
                continue
            _succeed(other, row)
            changed[other["id"]] = other
        made.append(row)
        if row["ended_at"] is None:
            sockets[socket] = row
            if event.client_id:
                clients[event.client_id] = row
    if replaced:
        _REPLACED.run(transaction.connection, {"account": account_id, "ids": replaced})
    fresh = {row["id"] for row in made}
    _END.run(
        transaction.connection,
        [{"account_id": account_id, **one} for one in changed.values() if one["id"] not in fresh],
    )
    _MADE.run(transaction.connection, made)
    return {one.certificate_id for one in new.values()}


def _row(transaction: Transaction, gate: str, event: Event, interval_id: str) -> dict[str, Any]:
    return {
        "account_id": transaction.account_id,
        "id": interval_id,
        "gate": gate,
        "certificate_id": event.certificate_id,
        "client_id": event.client_id,
        "source": event.source,
        "tls_version": event.tls_version or "-",
        "verdict": OK,
        "started_at": event.at,
        "seen_at": transaction.now,
        "ended_at": None,
        "recorded_at": transaction.now,
        "bytes_in": None,
        "sent_at": None,
    }


def _succeed(other: dict[str, Any], row: dict[str, Any]) -> None:
    """One of two sessions of a client id at a gate took the other's place: the later one."""
    first, second = (other, row) if other["started_at"] <= row["started_at"] else (row, other)
    if first["seen_at"] >= second["started_at"] - places.FRESH:
        first["ended_at"] = second["started_at"]
    else:
        first["ended_at"] = first["seen_at"]  # nobody had seen it for long: it need not have lasted


# Live sessions


def _compare(registry: Registry, actor: Actor, gate: str, sessions: Sequence[Session]) -> None:
    """Bring the open intervals of a gate in step with its list of live sessions."""
    account_id = actor.account_id
    is_open = and_(_N.account_id == account_id, _N.gate == gate, _N.ended_at.is_(None))
    query = select(_N.id, _N.certificate_id, _N.source, _N.bytes_in, _N.seen_at, _N.started_at).where(is_open)
    with registry.database.read() as connection:
        # in the order in which they were made: rows of one transaction are beside each other
        rows = sorted(connection.execute(query).mappings().all(), key=lambda row: int(row["started_at"]))
    named = {(one.certificate_id, one.source): one for one in sessions}
    there = {(row["certificate_id"], row["source"]) for row in rows}
    lasting, sent, counted, missing = [], [], [], []
    for row in rows:
        session = named.get((row["certificate_id"], row["source"]))
        if session is None:
            missing.append(row["id"])
        elif session.bytes_in is None or session.bytes_in == row["bytes_in"]:
            lasting.append(row["id"])
        else:
            its = {"account_id": account_id, "id": row["id"], "bytes_in": session.bytes_in}
            before = row["bytes_in"]
            if before is not None and session.bytes_in > before:
                # it has sent after it was seen last
                sent.append({**its, "sent_at": row["seen_at"] - SLACK})
            else:
                counted.append(its)
    unknown = [one for key, one in named.items() if key not in there]
    for ids in rows_in_chunks(lasting, SESSIONS_CHUNK):
        with registry.database.write(actor) as transaction:
            _SEEN.run(transaction.connection, {"account": account_id, "ids": ids, "now": transaction.now})
    for statement, changes in ((_SENT, sent), (_COUNTED, counted)):
        for chunk in rows_in_chunks(changes, SESSIONS_CHUNK):
            with registry.database.write(actor) as transaction:
                statement.run(transaction.connection, [{**row, "seen_at": transaction.now} for row in chunk])
    for ids in rows_in_chunks(missing, CHUNK):
        with registry.database.write(actor) as transaction:
            asked = {"account": account_id, "ids": ids, "before": transaction.now - GRACE}
            _MISSED.run(transaction.connection, asked)
    for found in rows_in_chunks(unknown, CHUNK):
        with registry.database.write(actor) as transaction:
            _enter(transaction, gate, found)


def _enter(transaction: Transaction, gate: str, sessions: Sequence[Session]) -> None:
    """Intervals for sessions whose beginning nobody told; what the events say later is filled in."""
    account_id = transaction.account_id
    asked = {"account": account_id, "certificates": {one.certificate_id for one in sessions}}
    there = {
        (row["certificate_id"], row["source"])
        for row in _OPEN_SOCKETS.all(transaction.connection, asked)
        if row["gate"] == gate
    }
    rows = [
        {
            "account_id": account_id,
            "id": str(uuid.uuid4()),
            "gate": gate,
            "certificate_id": one.certificate_id,
            "client_id": one.client_id,
            "source": one.source,
            "tls_version": "",
            "verdict": OK,
            "started_at": transaction.now,
            "seen_at": transaction.now,
            "ended_at": None,
            "recorded_at": transaction.now,
            "bytes_in": one.bytes_in,
            "sent_at": None,
        }
        for one in sessions
        if (one.certificate_id, one.source) not in there
    ]
    _MADE.run(transaction.connection, rows)


# Two places


def two_places(connection: Connection, account_id: str, certificate_id: str, since: int) -> TwoPlaces | None:
    """Evidence that a certificate's key is used at two places; None if there is none.

    Args:
        connection: for queries.
        account_id: the account.
        certificate_id: of the certificate.
        since: milliseconds since 1970; evidence that was complete before does not count.
    """
    names = (_N.id, _N.gate, _N.client_id, _N.source, _N.started_at, _N.tls_version)
    query = (
        select(*names, _N.seen_at, _N.ended_at, _N.recorded_at, _N.sent_at)
        .where(
            _N.account_id == account_id,
            _N.certificate_id == certificate_id,
            or_(_N.ended_at.is_(None), _N.ended_at >= since - places.WITHIN),
        )
        .order_by(_N.started_at.desc())
        .limit(_LOOKED_AT)
    )
    intervals = [Interval(**row) for row in connection.execute(query).mappings()]
    if len(intervals) < 2:
        return None
    return places.evidence(intervals, things_of(connection, account_id, certificate_id), since)


def _look_for_two_places(registry: Registry, actor: Actor, touched: Collection[str], *, sessions: bool) -> None:
    """Raise alerts for keys that are used at two places, of certificates about which something new was told."""
    account_id = actor.account_id
    mine = _N.account_id == account_id
    with registry.database.read() as connection:
        now = time.time_ns() // 1_000_000
        candidates: set[str] = set()
        for ids in rows_in_chunks(sorted(touched)):
            lately = select(_N.certificate_id).where(
                mine, _N.certificate_id.in_(ids), _N.started_at >= now - _LATELY - places.WITHIN
            )
            often = lately.group_by(_N.certificate_id).having(func.count() > places.TAKEOVERS)
            candidates |= set(connection.execute(often).scalars())
        if sessions:
            query = select(_N.certificate_id).where(mine, _N.ended_at.is_(None))
            several = query.group_by(_N.certificate_id).having(func.count() > 1)
            candidates |= set(connection.execute(several).scalars())
        today = {f"{TWO_PLACES}:{one}:{now // _DAY}": one for one in candidates}
        told = schema.alerts.c
        for occasions in rows_in_chunks(sorted(today)):
            said = select(told.occasion).where(told.account_id == account_id, told.occasion.in_(occasions))
            candidates -= {today[one] for one in connection.execute(said).scalars()}
        # many only where many certificates are shared by design: each has its turn in time
        chosen = random.sample(sorted(candidates), min(_CANDIDATES, len(candidates)))
        found = {one: two_places(connection, account_id, one, now - _LATELY) for one in chosen}
        things = {one: things_of(connection, account_id, one) for one, evidence in found.items() if evidence}
    for certificate_id, evidence in found.items():
        if evidence is None:
            continue
        named = things[certificate_id]
        thing = next((one.client_id for one in evidence.sessions if one.client_id in named), None)
        with registry.database.write(actor) as transaction:
            alerts.raise_alert(
                transaction,
                TWO_PLACES,
                f"{TWO_PLACES}:{certificate_id}:{now // _DAY}",
                certificate_id=certificate_id,
                thing_name=thing or (named[0] if len(named) == 1 else None),
                details=evidence.as_json(),
            )


# Questions


def last_seen(connection: Connection, account_id: str, certificate_ids: Sequence[str]) -> dict[str, int]:
    """When each certificate was last seen at a gate, milliseconds since 1970; those never seen are left out."""
    found: dict[str, int] = {}
    for ids in rows_in_chunks(certificate_ids):
        query = select(_N.certificate_id, func.max(_N.seen_at)).where(
            _N.account_id == account_id, _N.certificate_id.in_(ids)
        )
        found.update((row[0], row[1]) for row in connection.execute(query.group_by(_N.certificate_id)))
    return found


def connected(connection: Connection, account_id: str, certificate_ids: Sequence[str]) -> set[str]:
    """The certificates with which somebody is connected now, as far as gates have told."""
    now = time.time_ns() // 1_000_000
    found: set[str] = set()
    for ids in rows_in_chunks(certificate_ids):
        query = select(_N.certificate_id).where(
            _N.account_id == account_id,
            _N.certificate_id.in_(ids),
            _N.ended_at.is_(None),
            _N.seen_at >= now - SILENCE,
        )
        found |= set(connection.execute(query.distinct()).scalars())
    return found


def is_connected(connection: Connection, account_id: str, certificate_id: str) -> bool:
    """Whether somebody is connected with a certificate now."""
    return bool(connected(connection, account_id, [certificate_id]))


def of_certificate(
    registry: Registry, actor: Actor, certificate_id: str, *, token: str | None = None, size: int | None = None
) -> Page[dict[str, Any]]:
    """A page of the intervals of a certificate, newest first; it need not be registered (any more).

    Raises:
        InvalidError: a foreign token.
    """
    return _page(registry, actor, _N.certificate_id == certificate_id, ("certificate", certificate_id), token, size)


def of_thing(
    registry: Registry, actor: Actor, name: str, *, token: str | None = None, size: int | None = None
) -> Page[dict[str, Any]]:
    """The same of a thing: under its name as client id, or with a certificate that is attached to it alone.

    Raises:
        InvalidError: a foreign token.
    """
    return _page(registry, actor, _of_thing(actor, name), ("thing", name), token, size)


def thing_seen(registry: Registry, actor: Actor, name: str) -> tuple[int | None, bool]:
    """When a thing was last seen, and whether it is connected now; which connections are its stands in ``of_thing``."""
    its = and_(_N.account_id == actor.account_id, _of_thing(actor, name))
    fresh = time.time_ns() // 1_000_000 - SILENCE
    with registry.database.read() as connection:
        last = connection.execute(select(func.max(_N.seen_at)).where(its)).scalar()
        now = connection.execute(select(_N.id).where(its, _N.ended_at.is_(None), _N.seen_at >= fresh).limit(1)).first()
    return last, now is not None


def _of_thing(actor: Actor, name: str) -> Any:
    other = schema.thing_principals.alias()
    shared = select(other.c.thing_name).where(
        other.c.account_id == _P.account_id, other.c.certificate_id == _P.certificate_id, other.c.thing_name != name
    )
    alone = select(_P.certificate_id).where(_P.account_id == actor.account_id, _P.thing_name == name, ~shared.exists())
    return or_(_N.client_id == name, _N.certificate_id.in_(alone))


def _page(
    registry: Registry, actor: Actor, condition: Any, scope: Sequence[str], token: str | None, size: int | None
) -> Page[dict[str, Any]]:
    query = select(schema.connections).where(_N.account_id == actor.account_id, condition)
    bound = (actor.account_id, "connections", *scope)
    with registry.database.read() as connection:
        order = (_N.started_at, _N.id)
        return registry.page(connection, query, order, scope=bound, token=token, size=size, ascending=False)


def refused(registry: Registry, actor: Actor, certificate_id: str, size: int = 50) -> list[dict[str, Any]]:
    """The latest refusals of a certificate, newest first."""
    query = select(schema.refusals).where(_F.account_id == actor.account_id, _F.certificate_id == certificate_id)
    with registry.database.read() as connection:
        return [dict(row) for row in connection.execute(query.order_by(_F.last_at.desc()).limit(size)).mappings()]


# Clean-up


class Sweeper:
    """Ends the sessions of silent gates, and removes what is older than ``KEPT``; any number may run.

    Args:
        registry: where.
        log: a structlog logger.
    """

    name = "connections"

    def __init__(self, registry: Registry, log: Any) -> None:
        self._registry = registry
        self._log = log

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop."""
        repeat(self.turn, stop, SWEEP, self._log, "connections")

    def turn(self) -> bool:
        """One round through the accounts; true if there may be more to do."""
        with self._registry.database.read() as connection:
            accounts = list(connection.execute(select(schema.accounts.c.id)).scalars())
        return sum(map(self._sweep, accounts)) > 0  # every account has its turn

    def _sweep(self, account_id: str) -> bool:
        """A piece of each kind, in a transaction of its own if there is any; true if there may be more."""
        actor, now = Actor(account_id, "worker:connections"), time.time_ns() // 1_000_000
        old = now - KEPT * _DAY
        mine, of_refusals = _N.account_id == account_id, _F.account_id == account_id
        its, counted = (_F.hour, _F.gate, _F.certificate_id, _F.verdict, _F.source), schema.counted_refusals.c
        silent = select(_N.id).where(mine, _N.ended_at.is_(None), _N.seen_at < now - SILENCE).limit(_SWEPT)
        past = select(_N.id).where(mine, _N.started_at < old, _N.ended_at < old).limit(_SWEPT)
        hours = select(*its).where(of_refusals, _F.hour < old).order_by(*its).limit(_SWEPT)
        forgotten = and_(counted.account_id == account_id, counted.counted_at < old)
        kinds: list[tuple[Select[Any], UpdateBase]] = [
            # asked again in the transaction: a gate may have spoken
            (silent, update(schema.connections).where(mine, _N.id.in_(silent)).values(ended_at=_N.seen_at)),
            (past, delete(schema.connections).where(mine, _N.id.in_(past))),
            (hours, delete(schema.refusals).where(of_refusals, tuple_(*its).in_(hours))),
            (select(counted.gate).where(forgotten), delete(schema.counted_refusals).where(forgotten)),
        ]
        more = False
        for those, change in kinds:
            with self._registry.database.read() as connection:
                found = len(connection.execute(those).all())
            if found:
                with self._registry.database.write(actor) as transaction:
                    transaction.execute(change)
            more = more or found == _SWEPT
        return more
