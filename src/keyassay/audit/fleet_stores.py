"""Stores of compared keys, which are folders beside the database, and whether the database has what comparing found.

A database that was restored, or lost its last transactions with the machine's power, is older than a store. What it
lacks would never be found again, since the store counts those keys as done. So the database keeps, as its last word on
each comparison, what the store has come to by it: a digest of all segments until then. A segment after the last known
state is not believed. It is removed, and its keys are compared again if the database has them. All else stays, in a
copied database as well.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from keyassay.audit.fleet_pool import SERVER
from keyassay.bulk.store import DamagedStoreError, Draft, Store, remove
from keyassay.storage import schema
from keyassay.storage.database import Actor, Database, rows_in_chunks

_S = schema.fleet_states.c


def open_store(database: Database, scope: str, folder: Path) -> Store:
    """Open a store, of which that is left of which the database has all verdicts; a damaged one is put aside.

    Args:
        database: for which keys are compared.
        scope: whose keys (``fleet_pool``).
        folder: of the store; its name stands for the checks.

    Raises:
        BusyStoreError: another process has it.
        KeyassayError: the folder cannot be used.
    """
    store = _open(folder)
    try:
        states = list(_states(store))
        known: set[bytes] = set()
        with database.read() as connection:
            for chunk in rows_in_chunks(states):
                query = select(_S.state).where(_S.scope == scope, _S.checks == folder.name, _S.state.in_(chunk))
                known.update(bytes(state) for state in connection.execute(query).scalars())
        kept = max((number for number, state in enumerate(states, 1) if state in known), default=0)
        if kept == len(states):
            return store
        store.drop_after(kept)
    except BaseException:
        store.close()
        raise
    store.close()
    return _open(folder)


def _open(folder: Path) -> Store:
    try:
        return Store(folder)
    except DamagedStoreError:
        aside = folder.with_name(f"{folder.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        return Store(folder)


def _states(store: Store) -> Iterator[bytes]:
    """What the store had come to after each of its segments."""
    state = b""
    for segment in store.segments:
        state = _following(state, segment.digest)
        yield state


def _following(state: bytes, digest: bytes) -> bytes:
    return hashlib.sha256(state + digest).digest()


def commit(database: Database, scope: str, store: Store, draft: Draft) -> None:
    """Add what was compared to its store, and tell the database, which has all verdicts already.

    Args:
        database: as for ``open_store``.
        scope: likewise.
        store: as it was opened.
        draft: of the store, with the new keys.

    Raises:
        OSError: the store cannot be written.
    """
    digest = draft.commit()
    if digest is None:
        return
    *_, before = b"", *_states(store)
    with database.write(_actor(scope)) as transaction:
        row = {
            "scope": scope,
            "checks": store.folder.name,
            "state": _following(before, digest),
            "stored_at": transaction.now,
        }
        insert: Any = sqlite.insert if database.is_sqlite else postgresql.insert
        transaction.execute(insert(schema.fleet_states).values(row).on_conflict_do_nothing())


def _actor(scope: str) -> Actor:
    return Actor("" if scope == SERVER else scope, "worker:fleet")


def remove_others(database: Database, scope: str, folder: Path) -> None:
    """Remove what is beside a store that has everything: stores of other versions of the checks, and damaged ones."""
    for other in folder.parent.iterdir():
        if other != folder:
            remove(other)
    others = (_S.scope == scope) & (_S.checks != folder.name)
    with database.read() as connection:
        if connection.execute(select(_S.state).where(others).limit(1)).first() is None:
            return
    with database.write(_actor(scope)) as transaction:
        transaction.execute(delete(schema.fleet_states).where(others))
