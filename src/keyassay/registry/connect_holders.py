"""Certificates with the policies and things that decide under which client ids they may connect, read in sets.

A thousand certificates cost about ten queries, whatever hangs on them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from keyassay.registry import authorization
from keyassay.registry.authorization import Policy
from keyassay.registry.connect_entries import Attachment, Entry, Holder, blocked, compiled
from keyassay.registry.policy_variables import CERTIFICATE, Thing, certificate_values
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from keyassay.storage.database import rows_in_chunks

_C = schema.certificates.c
_T = schema.things.c
_TP = schema.thing_principals.c
_M = schema.thing_group_members.c
_G = schema.thing_groups.c
_A = schema.policy_attachments.c
_P = schema.policies.c
_V = schema.policy_versions.c


def entries(registry: Registry, connection: Connection, account_id: str, certificate_ids: Iterable[str]) -> list[Entry]:
    """The present entries of certificates, in the order given; those that the account does not have are GONE."""
    wanted = list(dict.fromkeys(certificate_ids))
    found: dict[str, Entry] = {}
    for ids in rows_in_chunks(wanted, 1000):
        statuses = _statuses(connection, account_id, ids)
        active = [one for one in ids if statuses.get(one) == "ACTIVE"]
        for holder in holders(registry, connection, account_id, active):
            found[holder.certificate_id] = compiled(holder, "ACTIVE")
        for one in ids:
            if one not in found:
                said = f"the certificate is {statuses.get(one, 'not in the account')}"
                found[one] = blocked(one, [said], gone=one not in statuses)
    return [found[one] for one in wanted]


def _statuses(connection: Connection, account_id: str, ids: Sequence[str]) -> dict[str, str]:
    query = select(_C.id, _C.status).where(_C.account_id == account_id, _C.id.in_(ids))
    return {row.id: row.status for row in connection.execute(query)}


def holders(
    registry: Registry, connection: Connection, account_id: str, certificate_ids: Sequence[str]
) -> list[Holder]:
    """Certificates (1,000 at most) with what decides under which client ids they may connect."""
    attached = _things_of(connection, account_id, certificate_ids)
    things = _things(connection, account_id, {name for rows in attached.values() for name, _ in rows})
    groups = _groups_of(connection, account_id, list(things))
    documents = _policies(
        connection,
        account_id,
        [
            *(f"cert/{one}" for one in certificate_ids),
            *sorted({f"thinggroup/{name}" for names in groups.values() for name in names}),
        ],
    )
    made = []
    for one in certificate_ids:
        attachments = tuple(
            Attachment(
                things[name],
                exclusive,
                tuple(dict.fromkeys(p for group in groups[name] for p in documents.get(f"thinggroup/{group}", ()))),
            )
            for name, exclusive in attached.get(one, ())
            if name in things
        )
        made.append(Holder(one, registry.arn(account_id, "client/"), documents.get(f"cert/{one}", ()), attachments))
    return _with_names(connection, account_id, made)


def _with_names(connection: Connection, account_id: str, made: list[Holder]) -> list[Holder]:
    """The same with what is in the certificates, where a policy asks for it."""
    asking = [one.certificate_id for one in made if any(map(_asks_for_names, _all_policies(one)))]
    if not asking:
        return made
    query = select(_C.id, _C.der).where(_C.account_id == account_id, _C.id.in_(asking))
    names = {row.id: certificate_values(row.der) for row in connection.execute(query)}
    return [
        Holder(one.certificate_id, one.place, one.policies, one.attachments, names.get(one.certificate_id))
        for one in made
    ]


def _all_policies(holder: Holder) -> Iterable[Policy]:
    yield from holder.policies
    for one in holder.attachments:
        yield from one.policies


def _asks_for_names(policy: Policy) -> bool:
    return any(name.startswith(CERTIFICATE) for name in policy.variables)


def _things_of(connection: Connection, account_id: str, ids: Sequence[str]) -> dict[str, list[tuple[str, bool]]]:
    """Certificate -> (thing, exclusive), by name."""
    query = select(_TP.certificate_id, _TP.thing_name, _TP.exclusive)
    query = query.where(_TP.account_id == account_id, _TP.certificate_id.in_(ids))
    found: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for row in connection.execute(query.order_by(_TP.certificate_id, _TP.thing_name)):
        found[row.certificate_id].append((row.thing_name, bool(row.exclusive)))
    return found


def _in_chunks(connection: Connection, query: Any, column: Any, values: Collection[str]) -> Iterable[Row[Any]]:
    for chunk in rows_in_chunks(list(values), 1000):
        yield from connection.execute(query.where(column.in_(chunk)))


def _things(connection: Connection, account_id: str, names: Collection[str]) -> dict[str, Thing]:
    query = select(_T.name, _T.type_name, _T.attributes).where(_T.account_id == account_id)
    rows = _in_chunks(connection, query, _T.name, sorted(names))
    return {row.name: Thing(row.name, row.type_name, row.attributes) for row in rows}


def _groups_of(connection: Connection, account_id: str, things: Sequence[str]) -> dict[str, list[str]]:
    """Thing -> its groups and all groups above them."""
    query = select(_M.thing_name, _M.group_name).where(_M.account_id == account_id)
    direct: dict[str, list[str]] = {name: [] for name in things}
    for row in _in_chunks(connection, query, _M.thing_name, things):
        direct[row.thing_name].append(row.group_name)
    above: dict[str, str | None] = {}
    level = {name for names in direct.values() for name in names}
    parents = select(_G.name, _G.parent_name).where(_G.account_id == account_id)
    while level:
        rows = list(_in_chunks(connection, parents, _G.name, sorted(level)))
        above |= {row.name: row.parent_name for row in rows}
        level = {row.parent_name for row in rows if row.parent_name is not None} - set(above)
    found: dict[str, list[str]] = {}
    for thing, names in direct.items():
        chain: dict[str, None] = {}
        for name in names:
            one: str | None = name
            while one is not None and one not in chain:
                chain[one] = None
                one = above.get(one)
        found[thing] = list(chain)
    return found


def _policies(connection: Connection, account_id: str, targets: Sequence[str]) -> dict[str, tuple[Policy, ...]]:
    """Target -> its policies in their default versions, by name."""
    attached: dict[str, list[str]] = defaultdict(list)
    query = select(_A.target, _A.policy_name).where(_A.account_id == account_id).order_by(_A.target, _A.policy_name)
    for row in _in_chunks(connection, query, _A.target, targets):
        attached[row.target].append(row.policy_name)
    in_force = (_V.account_id == _P.account_id) & (_V.policy_name == _P.name) & (_V.version == _P.default_version)
    versions = select(_P.name, _V.document).join(schema.policy_versions, in_force).where(_P.account_id == account_id)
    names = sorted({name for one in attached.values() for name in one})
    documents = {
        row.name: authorization.policy(row.document) for row in _in_chunks(connection, versions, _P.name, names)
    }
    return {
        target: tuple(dict.fromkeys(documents[name] for name in names if name in documents))
        for target, names in attached.items()
    }
