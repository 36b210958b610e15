"""The account's policy "for findings of class broken: start a replacement", acted upon when an audit ends.

The policy is a document of the account; what has been acted upon is another one, so that each audit counts once.
Screening at registration is no audit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from keyassay.audit.tasks import TaskStatus
from keyassay.registry.documents import read_document, write_document
from keyassay.registry.errors import InvalidError, NotConfiguredError, RegistryError
from keyassay.registry.registry import Registry
from keyassay.replacement import campaigns, proofs
from keyassay.replacement.planning import START, Selection, chunk
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction

_D = schema.account_documents.c
_T = schema.audit_tasks.c

#: names of the account's documents: what is wanted, and up to which audit it was done
POLICY, MARK = "replacement-policy", "replacement-policy-mark"
_OPERATION = "PutReplacementPolicy"
_SCREENING = "screening-%"


def policy(registry: Registry, actor: Actor) -> dict[str, Any] | None:
    """The account's policy: {"enabled", "settings", "thingGroupName"?, "problem"?}; None if there never was one.

    ``problem`` says why audits start nothing though they should: nobody runs the hook that the policy names.
    """
    with registry.database.read() as connection:
        found = read_document(connection, actor.account_id, POLICY)
        trouble = problem(connection, found) if found is not None else None
    return found if found is None or trouble is None else {**found, "problem": trouble}


def problem(connection: Connection, document: Mapping[str, Any]) -> str | None:
    """Why a policy cannot be acted upon now, None if it can."""
    if not document.get("enabled"):
        return None
    try:
        settings = campaigns.Settings.read(document["settings"])
        campaigns.check_issuer(connection, settings, time.time_ns() // 1_000_000)
    except NotConfiguredError as error:
        return error.message
    return None


def set_policy(
    registry: Registry, actor: Actor, *, enabled: bool, settings: Mapping[str, Any] | None = None, group: str = ""
) -> dict[str, Any]:
    """Let audits that end from now on start replacements, or no more.

    Args:
        registry: where.
        actor: who.
        enabled: whether.
        settings: of the replacements (``campaigns.Settings``); None for those that are set already.
        group: only things of this group; "" for all.

    Returns:
        The policy as it is now.

    Raises:
        InvalidError: enabled without settings, or wrong ones.
        NotConfiguredError: enabled, and nobody runs the hook that shall issue.
    """
    with registry.database.write(actor) as transaction:
        before = read_document(transaction.connection, actor.account_id, POLICY) or {}
        kept = before.get("settings") if settings is None else dict(settings)
        if enabled and kept is None:
            raise InvalidError("a policy needs settings: how devices prove themselves has to be chosen")
        document: dict[str, Any] = {"enabled": enabled}
        if kept is not None:
            chosen = campaigns.Settings.read(kept)
            document["settings"] = chosen.as_json()
            proofs.check_settings(document["settings"])
            if enabled:
                campaigns.check_issuer(transaction.connection, chosen, transaction.now)
        if group:
            document["thingGroupName"] = group
        write_document(transaction, POLICY, document)
        if enabled and not before.get("enabled"):
            write_document(transaction, MARK, {"endedAt": transaction.now, "done": []})
        transaction.record(_OPERATION, "replacement-policy", actor.account_id, document)
        return document


def follow(registry: Registry, machine: str, log: Any) -> bool:
    """Act upon audits that have ended; true if any replacement was started.

    An account whose policy names the hook waits while nobody runs one: its audits are acted upon afterwards.
    """
    with registry.database.read() as connection:
        query = select(_D.account_id, _D.document).where(_D.name == POLICY)
        wanted = [row for row in connection.execute(query).all() if row.document.get("enabled")]
        accounts = [row.account_id for row in wanted if problem(connection, row.document) is None]
    started = False
    for account_id in accounts:
        with registry.database.read() as connection:
            mark = read_document(connection, account_id, MARK) or {"endedAt": 0, "done": []}
            ended = select(_T.id).where(
                _T.account_id == account_id,
                _T.status == TaskStatus.COMPLETED.value,
                _T.ended_at >= mark["endedAt"],
                ~_T.id.like(_SCREENING),
                ~_T.id.in_(mark["done"]),
            )
            tasks = list(connection.execute(ended.order_by(_T.ended_at, _T.id).limit(100)).scalars())
        for task_id in tasks:
            with registry.database.write(Actor(account_id, "worker:replacement", machine)) as transaction:
                started |= _act(transaction, task_id, log)
    return started


def _act(transaction: Transaction, task_id: str, log: Any) -> bool:
    """Start a replacement for an audit, unless another worker has looked at it; true if there was anything to start."""
    connection, account_id = transaction.connection, transaction.account_id
    wanted = read_document(connection, account_id, POLICY) or {}
    mark = read_document(connection, account_id, MARK) or {"endedAt": 0, "done": []}
    ended_at = connection.execute(select(_T.ended_at).where(_T.account_id == account_id, _T.id == task_id)).scalar()
    if not wanted.get("enabled") or task_id in mark["done"] or ended_at is None or ended_at < mark["endedAt"]:
        return False
    # audits may end in the same millisecond: those of the last one are named
    done = [*(mark["done"] if ended_at == mark["endedAt"] else ()), task_id]
    write_document(transaction, MARK, {"endedAt": ended_at, "done": done})
    selection = {"auditTaskId": task_id, "brokenOnly": True, "thingGroupName": wanted.get("thingGroupName", "")}
    try:
        with transaction.attempt():
            first = chunk(connection, account_id, Selection.read(selection), START)
            if not first.units and first.position is None:
                return False
            campaigns.begin(transaction, selection, wanted["settings"], f"policy:{task_id}")
    except RegistryError as error:  # the group is gone, for one: other accounts must not wait for it
        log.warning("no replacement by policy", account=account_id, audit=task_id, problem=error.message)
        return False
    return True
