"""Shared primes of certificates that were registered lately: compared every few minutes, reported as screening's.

Screening looks at one key at a time; what a new key has in common with all others follows here. What was reported is
marked in the transaction that reports it, so that a worker that dies leaves nothing out.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, select

from keyassay.audit import fleet_search, screening
from keyassay.audit.across_accounts import SHARED_PRIME
from keyassay.audit.examining import DEVICE_STATUSES
from keyassay.audit.fleet_search import Search
from keyassay.audit.verdicts import PublicFinding
from keyassay.registry.documents import read_document, write_document
from keyassay.storage import schema
from keyassay.storage.database import Actor, Database

_V = schema.fleet_verdicts.c
_C = schema.certificates.c

#: name of the account's document that says up to when verdicts were reported
MARK = "fleet"
#: certificates that one transaction reports
_AT_ONCE = 100


def follow(database: Database, search: Search, goes_on: Callable[[], bool]) -> int:
    """Compare an account's new keys, and report what they broke: new certificates and old ones.

    Args:
        database: the search's.
        search: the account and its store.
        goes_on: asked several times a second; false ends it.

    Returns:
        How many certificates were reported.

    Raises:
        SearchError: the keys could not be compared.
    """
    if not fleet_search.run(database, search, goes_on):
        return 0
    actor = Actor(search.account_id, "worker:screening")
    reported = 0
    while goes_on():
        with database.read() as connection:
            mark = (read_document(connection, search.account_id, MARK) or {}).get("reported", ["", 0])
            rows = _next(connection, search.account_id, mark[1], mark[0])
        if not rows:
            break
        with database.write(actor) as transaction:
            for certificate_id, _, _, finding in rows:
                if certificate_id:
                    screening.report(transaction, certificate_id, [finding])
                    reported += 1
            last = rows[-1]
            write_document(transaction, MARK, {"reported": [last[1], last[2]]})
    return reported


def _next(
    connection: Connection, account_id: str, stored_at: int, digest: str
) -> list[tuple[str, str, int, PublicFinding]]:
    """Verdicts after a mark, each with certificates that have the key ("" if none): (id, digest, stored_at, finding).

    All certificates of a key are in one piece, the first hundred of them.
    """
    after = (_V.stored_at > stored_at) | ((_V.stored_at == stored_at) & (_V.spki_digest > bytes.fromhex(digest)))
    query = select(_V.spki_digest, _V.stored_at, _V.finding).where(
        _V.account_id == account_id, _V.check_id == SHARED_PRIME, _V.stored_at >= stored_at, after
    )
    found: list[tuple[str, str, int, PublicFinding]] = []
    for row in connection.execute(query.order_by(_V.stored_at, _V.spki_digest).limit(_AT_ONCE)):
        key = bytes(row.spki_digest)
        holders = select(_C.id).where(
            _C.account_id == account_id, _C.spki_digest == key, _C.status.in_(DEVICE_STATUSES)
        )
        ids = list(connection.execute(holders.order_by(_C.id).limit(_AT_ONCE)).scalars())
        finding = PublicFinding.from_json(row.finding)
        found.extend((one, key.hex(), row.stored_at, finding) for one in ids or [""])
        if len(found) >= _AT_ONCE:
            break
    return found
