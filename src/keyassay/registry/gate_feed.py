"""The feed that gates follow: what changed after a revision, and everything for a gate that begins.

A gate gets the present state of all certificates that a change concerns, so that asking twice does no harm; a change
that concerns a whole fleet goes out in pieces. ``keyassay.gate.source`` and the API hand the same dicts on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, Row, select

from keyassay.registry.connect_holders import entries
from keyassay.registry.errors import InvalidError
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, rows_in_chunks
from keyassay.storage.paging import BadTokenError

#: changes that are looked at for one answer, and certificates beyond those that they name
ROWS, PIECE = 1000, 1000
#: rows of a page of a snapshot
PAGE = 1000
#: seconds between two looks for something new
LOOK = 0.01

_CH = schema.changes.c
_C = schema.certificates.c
_T = schema.things.c
_TP = schema.thing_principals.c
_M = schema.thing_group_members.c
_A = schema.policy_attachments.c


@dataclass(slots=True)
class _Concerned:
    """What some changes concern.

    Attributes:
        certificates: ids that they name.
        things: names of things whose certificates they concern.
        policies: whose holders they concern.
        groups: whose things, and those of the groups below, they concern.
        made_or_gone: names of things that were created or deleted.
        authorities: whether authorities changed.
    """

    certificates: dict[str, None] = field(default_factory=dict)
    things: set[str] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    made_or_gone: set[str] = field(default_factory=set)
    authorities: bool = False

    def add(self, row: Row[Any]) -> None:
        """Take a change in."""
        kind, name, details = row.resource_type, row.resource_id, row.details
        if kind == "certificate":
            self.certificates[name] = None
        elif kind == "ca":
            self.authorities = True
        elif kind == "thing":
            if row.operation in ("CreateThing", "DeleteThing"):
                self.made_or_gone.add(name)
            if row.operation != "CreateThing":
                self.things.add(name)
        elif kind == "policy":
            self._add_policy(name, details)

    def _add_policy(self, name: str, details: Mapping[str, Any]) -> None:
        target = details.get("target")
        if target is None:
            # a new version that is not in force, and one that is deleted, concern nobody
            if details.get("default", "version" not in details or isinstance(details["version"], list)):
                self.policies.add(name)
        elif target.startswith("cert/"):
            self.certificates[target.removeprefix("cert/")] = None
        else:
            self.groups.add(target.removeprefix("thinggroup/"))


def server_state(connection: Connection) -> tuple[str, int]:
    """Epoch and last revision of the feed."""
    row = connection.execute(select(schema.server.c.epoch, schema.server.c.revision)).one()
    return row.epoch, row.revision


def changes(
    registry: Registry,
    actor: Actor,
    *,
    after: int,
    epoch: str,
    wait: float = 0.0,
    position: str = "",
    ended: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """What changed after a revision, as the present state of everything concerned.

    Args:
        registry: where.
        actor: whose account.
        after: the revision that the gate has applied.
        epoch: of that revision.
        wait: seconds to wait for something new.
        position: of the answer before, if that one was not complete and had the same ``after``.
        ended: true if waiting is to end.

    Returns:
        ``epoch``, ``revision`` (the next ``after``), ``complete``, ``reset``, ``entries``, ``things``, ``authorities``;
        ``position`` if the changes concern more certificates than fit: ``revision`` is then still ``after``.

    Raises:
        InvalidError: a position that is none.
    """
    account_id = actor.account_id
    deadline = time.monotonic() + wait
    with registry.database.read() as connection:
        present, revision = server_state(connection)
        if epoch != present or not 0 <= after <= revision:
            return _answer(present, revision, reset=True)
        if position:
            return _next_piece(registry, connection, actor, (present, after), position)
        rows = _rows(connection, account_id, after, revision)
    while not rows and time.monotonic() < deadline and not ended():
        time.sleep(LOOK)
        with registry.database.read() as connection:
            present, newer = server_state(connection)
            if present != epoch:
                return _answer(present, newer, reset=True)
            if newer != revision:
                rows = _rows(connection, account_id, after, newer)
                revision = newer
    if not rows:
        return _answer(present, revision)
    reached = rows[-1].revision if len(rows) == ROWS else revision
    concerned = _concerned(rows)
    with registry.database.read() as connection:
        first = _page_of_concerned(connection, account_id, concerned, "", PIECE)
        ids = dict.fromkeys([*concerned.certificates, *first[:PIECE]])
        answer = _answer(
            present,
            reached,
            complete=len(rows) < ROWS,
            entries=entries(registry, connection, account_id, ids),
            things=_made_and_gone(connection, account_id, concerned.made_or_gone),
            authorities=concerned.authorities,
        )
    if len(first) > PIECE:
        where = (reached, first[PIECE - 1], revision)
        answer |= {
            "complete": False,
            "revision": after,
            "position": registry.tokens.make(_scope(actor, present, after), where),
        }
    return answer


def _answer(epoch: str, revision: int, **more: Any) -> dict[str, Any]:
    nothing = {"complete": True, "reset": False, "entries": [], "things": {"added": [], "removed": []}}
    return {"epoch": epoch, "revision": revision, **nothing, "authorities": False, **more}


def _scope(actor: Actor, epoch: str, after: int) -> tuple[object, ...]:
    return actor.account_id, "gate changes", epoch, after


def _next_piece(
    registry: Registry, connection: Connection, actor: Actor, place: tuple[str, int], position: str
) -> dict[str, Any]:
    """Further certificates of changes that concern many, and all that was changed itself in the meantime.

    So a revocation does not wait until a policy of a whole fleet has gone out.
    """
    epoch, after = place
    try:
        reached, last, looked = registry.tokens.read(_scope(actor, epoch, after), position)
    except (BadTokenError, ValueError) as error:
        raise InvalidError(str(error)) from None
    account_id = actor.account_id
    concerned = _concerned(_rows(connection, account_id, after, int(reached)))
    further = _page_of_concerned(connection, account_id, concerned, str(last), PIECE)
    fresh = _rows(connection, account_id, int(looked), server_state(connection)[1])
    urgent = [row.resource_id for row in fresh if row.resource_type == "certificate"]
    ids = dict.fromkeys([*urgent, *further[:PIECE]])
    answer = _answer(epoch, int(reached), entries=entries(registry, connection, account_id, ids), complete=False)
    if len(further) > PIECE:
        where = (int(reached), further[PIECE - 1], fresh[-1].revision if fresh else int(looked))
        answer |= {"revision": after, "position": registry.tokens.make(_scope(actor, epoch, after), where)}
    return answer


def _rows(connection: Connection, account_id: str, after: int, until: int) -> Sequence[Any]:
    """Changes in (after, until], at most ``ROWS``."""
    query = select(_CH.revision, _CH.operation, _CH.resource_type, _CH.resource_id, _CH.details)
    query = query.where(_CH.account_id == account_id, _CH.revision > after, _CH.revision <= until)
    return connection.execute(query.order_by(_CH.revision).limit(ROWS)).all()


def _concerned(rows: Iterable[Row[Any]]) -> _Concerned:
    found = _Concerned()
    for row in rows:
        found.add(row)
    return found


def _page_of_concerned(
    connection: Connection, account_id: str, concerned: _Concerned, last: str, size: int
) -> list[str]:
    """Certificates of the things, policies and groups, by id after ``last``; one more than ``size`` if there are."""
    attached = select(_TP.certificate_id).where(_TP.account_id == account_id, _TP.certificate_id > last)
    parts = [attached.where(_TP.thing_name.in_(names)) for names in rows_in_chunks(sorted(concerned.things))]
    groups = set(concerned.groups)
    if concerned.policies:
        holding = (_A.account_id == account_id) & _A.policy_name.in_(sorted(concerned.policies))
        query = select(_A.target).where(holding, _A.target.like("thinggroup/%"))
        groups |= {one.removeprefix("thinggroup/") for one in connection.execute(query).scalars()}
    for names in rows_in_chunks(sorted(_with_below(connection, account_id, groups))):
        members = select(_M.thing_name).where(_M.account_id == account_id, _M.group_name.in_(names))
        parts.append(attached.where(_TP.thing_name.in_(members)))
    found: set[str] = set()
    for policy in sorted(concerned.policies):  # one by one, so that an index gives each in order
        here = (_A.account_id == account_id) & (_A.policy_name == policy) & _A.target.like("cert/%")
        query = select(_A.target).where(here, _A.target > f"cert/{last}").order_by(_A.target).limit(size + 1)
        found.update(one.removeprefix("cert/") for one in connection.execute(query).scalars())
    for part in parts:
        found.update(connection.execute(part.distinct().order_by(part.selected_columns[0]).limit(size + 1)).scalars())
    return sorted(found)[: size + 1]


def _with_below(connection: Connection, account_id: str, groups: Iterable[str]) -> set[str]:
    """Names of groups, and of all groups below them."""
    columns = schema.thing_groups.c
    found: set[str] = set()
    level = set(groups)
    while level:
        found |= level
        below: set[str] = set()
        for names in rows_in_chunks(sorted(level)):
            query = select(columns.name).where(columns.account_id == account_id, columns.parent_name.in_(names))
            below.update(connection.execute(query).scalars())
        level = below - found
    return found


def _made_and_gone(connection: Connection, account_id: str, names: Iterable[str]) -> dict[str, list[str]]:
    wanted = sorted(names)
    there: set[str] = set()
    for chunk in rows_in_chunks(wanted):
        there.update(
            connection.execute(select(_T.name).where(_T.account_id == account_id, _T.name.in_(chunk))).scalars()
        )
    return {"added": [one for one in wanted if one in there], "removed": [one for one in wanted if one not in there]}


# Snapshots


def snapshot(registry: Registry, actor: Actor, kind: str, token: str | None = None) -> dict[str, Any]:
    """A page of everything, for a gate that begins; what changes in the meantime comes after ``revision``.

    Args:
        registry: where.
        actor: whose account.
        kind: "entries" or "things".
        token: of the page before.

    Raises:
        InvalidError: no such kind, or a foreign token.
    """
    if kind not in ("entries", "things"):
        raise InvalidError("a snapshot is one of entries or of things")
    account_id = actor.account_id
    with registry.database.read() as connection:
        epoch, revision = server_state(connection)
        scope = (account_id, "snapshot", kind, epoch)
        last = ""
        if token:
            try:
                begun, last = (str(one) for one in registry.tokens.read(scope, token))
            except (BadTokenError, ValueError) as error:
                raise InvalidError(str(error)) from None
            revision = int(begun)
        column, owner = (_C.id, _C.account_id) if kind == "entries" else (_T.name, _T.account_id)
        query = select(column).where(owner == account_id, column > last).order_by(column).limit(PAGE + 1)
        names = list(connection.execute(query).scalars())
        page = names[:PAGE]
        rows: list[Any] = entries(registry, connection, account_id, page) if kind == "entries" else page
    following = registry.tokens.make(scope, (revision, page[-1])) if len(names) > PAGE else None
    return {"epoch": epoch, "revision": revision, kind: rows, "nextToken": following}


def authorities(registry: Registry, actor: Actor) -> dict[str, Any]:
    """The certificates (PEM) of active authorities whose devices register when they first connect."""
    columns = schema.authorities.c
    query = select(columns.der).where(
        columns.account_id == actor.account_id, columns.status == "ACTIVE", columns.auto_registration
    )
    with registry.database.read() as connection:
        ders = connection.execute(query.order_by(columns.created_at, columns.id)).scalars().all()
    return {"pem": [x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode() for der in ders]}
