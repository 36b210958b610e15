"""What comparing keys says of them, kept: by account, key and check.

What an account's own keys say is apart from what those of all accounts say (scope ``SERVER``): the latter counts only
where the operator allows it, and never names a certificate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, literal, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from keyassay.audit.fleet_pool import SERVER
from keyassay.audit.verdicts import PublicFinding
from keyassay.checks import check
from keyassay.storage import schema
from keyassay.storage.database import Actor, Database, rows_in_chunks

#: findings by (account, SHA-256 of the subject public key info, id of the check)
Findings = Mapping[tuple[str, bytes, str], PublicFinding]

_ROWS = 500


def _table(scope: str) -> Table:
    return schema.server_verdicts if scope == SERVER else schema.fleet_verdicts


def write(database: Database, scope: str, found: Findings) -> None:
    """Write findings, in small transactions; the same again changes nothing."""
    table = _table(scope)
    insert: Any = sqlite.insert if database.is_sqlite else postgresql.insert
    statement = insert(table)
    statement = statement.on_conflict_do_update(
        index_elements=["account_id", "spki_digest", "check_id"],
        set_={name: statement.excluded[name] for name in ("version", "finding", "stored_at")},
    )
    for account_id, members in groupby(sorted(found), key=lambda key: key[0]):
        for chunk in rows_in_chunks(list(members), _ROWS):
            with database.write(Actor(account_id, "worker:fleet")) as transaction:
                rows = [
                    {
                        "account_id": account_id,
                        "spki_digest": key[1],
                        "check_id": key[2],
                        "version": found[key].version,
                        "finding": found[key].as_json(),
                        "stored_at": transaction.now,
                    }
                    for key in chunk
                ]
                transaction.execute(statement, rows)


def keep_only(database: Database, scope: str, checks: Iterable[str], found: Findings) -> None:
    """Remove what some checks no longer say: all that they say now is in ``found``."""
    table = _table(scope)
    columns = table.c
    query = select(columns.account_id, columns.spki_digest, columns.check_id).where(columns.check_id.in_(list(checks)))
    if scope != SERVER:
        query = query.where(columns.account_id == scope)
    with database.read() as connection:
        there = [(row[0], bytes(row[1]), row[2]) for row in connection.execute(query)]
    for account_id, digest, check_id in sorted(set(there) - set(found)):
        with database.write(Actor(account_id, "worker:fleet")) as transaction:
            mine = (columns.account_id == account_id) & (columns.spki_digest == digest) & (columns.check_id == check_id)
            transaction.execute(delete(table).where(mine))


def any_found(connection: Connection, account_id: str, *, across: bool) -> bool:
    """Whether comparing has found anything in an account."""
    tables = (schema.fleet_verdicts, schema.server_verdicts) if across else (schema.fleet_verdicts,)
    queries = (select(table.c.check_id).where(table.c.account_id == account_id).limit(1) for table in tables)
    return any(connection.execute(query).first() is not None for query in queries)


def is_found(account_id: str, digest: ColumnElement[bytes], *, across: bool) -> ColumnElement[bool]:
    """Whether comparing keys has found anything about a key of an account, as SQL; ``digest`` is a column."""

    def there(table: Table) -> ColumnElement[bool]:
        columns = table.c
        query = select(literal(1)).where(columns.account_id == account_id, columns.spki_digest == digest).limit(1)
        return query.scalar_subquery().is_not(None)

    own = there(schema.fleet_verdicts)
    return or_(own, there(schema.server_verdicts)) if across else own


def read(
    connection: Connection, account_id: str, digests: Iterable[bytes], checks: Iterable[str], *, across: bool
) -> dict[bytes, list[PublicFinding]]:
    """What comparing says of some of an account's keys.

    Args:
        connection: of a read.
        account_id: whose.
        digests: SHA-256 of subject public key infos.
        checks: ids of the checks that are asked for.
        across: also what all accounts' keys say, where the account's own say nothing.
    """
    versions = {name: check(name).metadata.version for name in checks}
    wanted = list(dict.fromkeys(digests))
    found: dict[bytes, dict[str, PublicFinding]] = {}
    for table in (schema.fleet_verdicts, schema.server_verdicts) if across else (schema.fleet_verdicts,):
        columns = table.c
        for chunk in rows_in_chunks(wanted):
            query = select(columns.spki_digest, columns.finding).where(
                columns.account_id == account_id, columns.spki_digest.in_(chunk)
            )
            for row in connection.execute(query):
                finding = PublicFinding.from_json(row.finding)
                if versions.get(finding.check) != finding.version:
                    continue
                known = found.setdefault(bytes(row.spki_digest), {})
                there = known.get(finding.check)
                if there is None or finding.classification.rank < there.classification.rank:
                    known[finding.check] = finding
    return {digest: list(known.values()) for digest, known in found.items()}
