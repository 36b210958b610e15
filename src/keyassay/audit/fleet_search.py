"""All keys that an account has ever had, compared with each other: shared primes and repeated keys.

What has been compared is in a store (``bulk.store``), a folder per account that holds nothing that could not be made
again from the database. Its items are the certificates that are done: whatever the database has beyond them (all of
it, if the folder was lost) is compared with each other and with the store, and joins it. Verdicts go into the database
before the new keys go into the store, so that a search that was killed is repeated and nothing is missed.

The search runs in a process of its own, since it takes memory: ``python -m keyassay.audit.fleet_search``, which reads
what to do as one line of JSON and ends when its standard input does, and so with its parent.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gmpy2
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from keyassay.audit.verdicts import PublicFinding, public
from keyassay.bulk.fleet import RunFleet, Spool, columns_of
from keyassay.bulk.results import Result
from keyassay.bulk.store import BusyStoreError, DamagedStoreError, Store
from keyassay.certificates.decoding import decode
from keyassay.certificates.fleet import Earlier
from keyassay.certificates.item import Item, RawItem
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, catalogue_digest, check
from keyassay.checks.fleet_repeated_key import RepeatedKey
from keyassay.checks.fleet_shared_prime import SharedPrime
from keyassay.errors import KeyassayError
from keyassay.findings import Verdict
from keyassay.storage import schema
from keyassay.storage.database import Actor, Database, rows_in_chunks

#: the checks that compare keys with those of a store
SHARED_PRIME, REPEATED_KEY = "fleet-shared-prime", "fleet-repeated-key"
CHECKS = (SHARED_PRIME, REPEATED_KEY)

#: where an account's keys are, with what such a certificate is called in messages
TABLES: tuple[tuple[Table, str], ...] = (
    (schema.former_certificates, "former certificate"),
    (schema.authorities, "CA certificate"),
    (schema.certificates, "certificate"),
)
_IDS, _ROWS = 10_000, 500
_BUSY_EXIT = 3
_NAME = re.compile(r"((?:CA |former )?certificate [0-9a-f]{64})#0")


class SearchError(Exception):
    """The keys could not be compared; the message says why."""


@dataclass(frozen=True, slots=True)
class Search:
    """Where to compare an account's keys.

    Attributes:
        database: its address.
        account_id: whose keys.
        folder: of all accounts' stores.
        memory: bytes that the search may take; 0 for half of the machine's.
    """

    database: str
    account_id: str
    folder: Path
    memory: int = 0

    @property
    def store(self) -> Path:
        """The account's store: another one whenever the checks have changed, since all keys have to run again."""
        return self.folder / self.account_id / catalogue_digest(check(name) for name in CHECKS)

    def as_line(self) -> str:
        """For the process of its own; the database's address may hold a password, so that it is no argument."""
        return json.dumps(
            {
                "database": self.database,
                "account_id": self.account_id,
                "folder": str(self.folder),
                "memory": self.memory,
            }
        )

    @classmethod
    def from_line(cls, line: str) -> Search:
        """What ``as_line`` made."""
        given = json.loads(line)
        return cls(given["database"], given["account_id"], Path(given["folder"]), given["memory"])


def open_store(search: Search) -> Store:
    """The account's store; a damaged one is put aside, and everything is compared again.

    Raises:
        BusyStoreError: another process has it.
        KeyassayError: the folder cannot be used.
    """
    try:
        return Store(search.store)
    except DamagedStoreError:
        aside = search.store.with_name(f"{search.store.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        search.store.rename(aside)
        return Store(search.store)


def not_compared(connection: Connection, account_id: str, store: Store) -> Iterator[tuple[Table, str, list[str]]]:
    """Pages of ids of an account's certificates that the store lacks, with their table and what they are called."""
    known = np.unique(store.identities["der"]) if len(store) else np.zeros(0, dtype="S16")
    for table, called in TABLES:
        after = ""
        while True:
            query = select(table.c.id).where(table.c.account_id == account_id, table.c.id > after)
            ids = connection.execute(query.order_by(table.c.id).limit(_IDS)).scalars().all()
            if not ids:
                break
            after = ids[-1]
            new = _lacking(known, ids)
            if new:
                yield table, called, new


def _lacking(known: NDArray[np.bytes_], ids: Sequence[str]) -> list[str]:
    wanted = np.frombuffer(b"".join(bytes.fromhex(one)[:16] for one in ids), dtype="S16")
    if not len(known):
        return list(ids)
    places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return [ids[row] for row in np.flatnonzero(known[places] != wanted).tolist()]


def is_needed(database: Database, search: Search) -> bool:
    """Whether the account has certificates that were not compared yet.

    Raises:
        BusyStoreError, KeyassayError: as ``open_store``.
    """
    store = open_store(search)
    try:
        with database.read() as connection:
            return next(not_compared(connection, search.account_id, store), None) is not None
    finally:
        store.close()


def run(database: Database, search: Search, goes_on: Callable[[], bool]) -> bool:
    """Compare what was not compared yet, in a process of its own; returns when it has ended.

    Args:
        database: the same as the search's.
        search: what to do.
        goes_on: asked several times a second; false ends the search.

    Returns:
        False if ``goes_on`` ended it.

    Raises:
        SearchError: it failed.
    """
    while True:
        try:
            if not is_needed(database, search):
                return True
            code, said = _in_process(search, goes_on)
        except BusyStoreError:
            code, said = _BUSY_EXIT, ""
        except (KeyassayError, OSError) as error:
            raise SearchError(str(error)) from None
        if code is None:
            return False
        if code == 0:
            return True
        if code != _BUSY_EXIT:
            raise SearchError(said or f"the search ended with code {code}")
        if not _pause(goes_on):  # another worker compares the same account's keys
            return False


def _pause(goes_on: Callable[[], bool]) -> bool:
    for _ in range(5):
        time.sleep(0.1)
        if not goes_on():
            return False
    return True


def _in_process(search: Search, goes_on: Callable[[], bool]) -> tuple[int | None, str]:
    """Exit code (None: ended by ``goes_on``) and the last line that it said."""
    command = [sys.executable, "-m", "keyassay.audit.fleet_search"]
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603  our own module
        command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        said: list[bytes] = []
        reader = threading.Thread(target=lambda: said.extend(child.stdout or ()), daemon=True)
        reader.start()
        try:
            with suppress(BrokenPipeError):
                child.stdin.write(search.as_line().encode() + b"\n")
                child.stdin.flush()
            while child.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(0.1)
                if not goes_on():
                    child.kill()
                    return None, ""
        except BaseException:
            child.kill()
            raise
        reader.join()
        return child.returncode, said[-1].decode(errors="replace").strip() if said else ""


# In the process of its own


class _Pool:
    """The certificates that are new to the store, read into a fleet."""

    def __init__(self, database: Database, search: Search, store: Store) -> None:
        self.fleet = RunFleet(
            search.memory or _half_of_memory(), threads=os.cpu_count() or 1, spool=Spool(), earlier=store
        )
        self.digests: list[bytes] = []
        with database.read() as connection:
            for table, called, ids in not_compared(connection, search.account_id, store):
                for chunk in rows_in_chunks(ids, _ROWS):
                    self._add(connection, search.account_id, table, called, chunk)
        if self.fleet.overflow:
            needed = f"{self.fleet.bytes_needed / 1e9:.1f} GB"
            raise SearchError(f"{len(self.fleet):,} certificates need more than {needed} of memory")

    def _add(self, connection: Connection, account_id: str, table: Table, called: str, ids: Sequence[str]) -> None:
        query = select(table.c.id, table.c.der, table.c.spki_digest)
        rows = connection.execute(query.where(table.c.account_id == account_id, table.c.id.in_(ids))).all()
        items = decode([RawItem(f"{called} {row.id}", 0, 0, "CERTIFICATE", bytes(row.der)) for row in rows])
        self.digests.extend(bytes(row.spki_digest) for row in rows)
        self.fleet.add(columns_of(items), [Result(item) for item in items])


def compare(database: Database, search: Search) -> int:
    """Compare and store, in this process.

    Returns:
        How many certificates were new.

    Raises:
        SearchError: it cannot be done.
        BusyStoreError, KeyassayError: as ``open_store``.
    """
    store = open_store(search)
    try:
        pool = _Pool(database, search, store)
        fleet = pool.fleet
        try:
            shared, partners = _shared_primes(database, search.account_id, store, pool)
            found = {SHARED_PRIME: {**partners, **shared}, REPEATED_KEY: _repeated_keys(pool)}
            if fleet.notes:
                raise SearchError("; ".join(f"{note.check}: {note.reason}" for note in fleet.notes))
            draft = store.draft(fleet)
            for number in range(len(fleet.spool)):
                for position, result in enumerate(fleet.spool.block(number), fleet.start_of(number)):
                    draft.take(position, result.item)
            for name, verdicts in found.items():
                write(database, search.account_id, name, verdicts)
            draft.commit()
        finally:
            fleet.spool.close()
        return len(fleet)
    finally:
        store.close()


def _verdicts(pool: _Pool, name: str) -> Iterator[tuple[int, Item, Verdict]]:
    found = sorted(check(name).find(pool.fleet, Context()), key=lambda pair: pair[0])
    items = pool.fleet.items(ordinal for ordinal, _ in found)
    for (ordinal, verdict), item in zip(found, items, strict=True):
        yield ordinal, item, verdict


def _finding(name: str, item: Item, verdict: Verdict) -> PublicFinding:
    finding = public(check(name).finding(item.key if item.key is not None else item, verdict))
    message = _NAME.sub(r"\1", finding.message).replace(" of an earlier run", "").replace(" of this run", "")
    return replace(finding, message=message)


def _shared_primes(
    database: Database, account_id: str, store: Store, pool: _Pool
) -> tuple[dict[bytes, PublicFinding], dict[bytes, PublicFinding]]:
    """Findings by key: of the new keys, and of those keys of the store that a new key breaks."""
    shared: dict[bytes, PublicFinding] = {}
    partners: dict[int, tuple[int, Earlier]] = {}
    for ordinal, item, verdict in _verdicts(pool, SHARED_PRIME):
        shared[pool.digests[ordinal]] = _finding(SHARED_PRIME, item, verdict)
        evidence, key = verdict.evidence, item.key
        assert isinstance(evidence, SharedPrime)
        assert isinstance(key, RsaPublicKey)
        place = Earlier(item.source, item.index, item.sha256)
        for factor in (evidence.factor, key.modulus // evidence.factor):
            partners.setdefault(int(factor), (int(key.modulus), place))
    broken: dict[bytes, PublicFinding] = {}
    for modulus, part, holder in store.divided_by(list(partners)):
        evidence_of = _partner(modulus, part, partners)
        if evidence_of is None or holder.sha256 is None:
            continue
        for digest, item in _certificates(database, account_id, holder.sha256.hex()):
            verdict = Verdict(_message(evidence_of), evidence_of)
            broken[digest] = _finding(SHARED_PRIME, item, verdict)
    return shared, broken


def _partner(modulus: int, part: int, partners: dict[int, tuple[int, Earlier]]) -> SharedPrime | None:
    """A proper factor of a modulus of the store, with the new key that has it, too."""
    for factor in (part, modulus // part, *(partners if part not in partners else ())):
        found = partners.get(factor)
        common = int(gmpy2.gcd(factor, modulus))
        if found is not None and 1 < common < modulus and found[0] != modulus:
            return SharedPrime(common, found[0], found[1], earlier=False, sharing=1)
    return None


def _message(evidence: SharedPrime) -> str:
    bits, place = evidence.factor.bit_length(), evidence.partner
    return (
        f"its modulus shares a prime of {bits} bits with {place.source}#{place.index}: both private keys follow by "
        "division"
    )


def _certificates(database: Database, account_id: str, certificate_id: str) -> Iterator[tuple[bytes, Item]]:
    with database.read() as connection:
        for table, called in TABLES:
            query = select(table.c.der, table.c.spki_digest)
            row = connection.execute(
                query.where(table.c.account_id == account_id, table.c.id == certificate_id)
            ).first()
            if row is not None:
                (item,) = decode([RawItem(f"{called} {certificate_id}", 0, 0, "CERTIFICATE", bytes(row.der))])
                yield bytes(row.spki_digest), item
                return


def _repeated_keys(pool: _Pool) -> dict[bytes, PublicFinding]:
    """Findings by key; they name some holders of the key, whoever of them reads it, and say how many there are."""
    found: dict[bytes, PublicFinding] = {}
    holders: dict[bytes, dict[str, dict[str, Any]]] = {}
    for ordinal, item, verdict in _verdicts(pool, REPEATED_KEY):
        digest, evidence = pool.digests[ordinal], verdict.evidence
        assert isinstance(evidence, RepeatedKey)
        named = holders.setdefault(digest, {})
        if len(named) < 8:
            places = [(item.source, item.sha256), *((one.source, one.sha256) for one in evidence.holders)]
            for source, sha256 in places:
                if sha256 is not None:
                    named[sha256.hex()] = {"source": source, "sha256": sha256.hex()}
        if digest not in found:
            finding = _finding(REPEATED_KEY, item, verdict)
            count = evidence.others
            several = f"{count:,} more certificate{'s' if count > 1 else ''}"
            message = (
                f"its key is also in {several}, under {evidence.subjects:,} subjects in all: whoever has one of the "
                "devices has the private key of all"
                if evidence.subjects > 1
                else f"its key was kept: {several} with the same subject {'have' if count > 1 else 'has'} it too"
            )
            found[digest] = replace(finding, message=message)
    return {
        digest: replace(finding, evidence={**finding.evidence, "partners": list(holders[digest].values())})
        for digest, finding in found.items()
    }


def write(database: Database, account_id: str, check_id: str, findings: dict[bytes, PublicFinding]) -> None:
    """Write findings of a fleet check by key, in small transactions; the same again changes nothing."""
    insert: Any = sqlite.insert if database.is_sqlite else postgresql.insert
    statement = insert(schema.fleet_verdicts)
    statement = statement.on_conflict_do_update(
        index_elements=["account_id", "spki_digest", "check_id"],
        set_={name: statement.excluded[name] for name in ("version", "finding", "stored_at")},
    )
    for chunk in rows_in_chunks(sorted(findings.items()), _ROWS):
        with database.write(Actor(account_id, "worker:fleet")) as transaction:
            rows = [
                {
                    "account_id": account_id,
                    "spki_digest": digest,
                    "check_id": check_id,
                    "version": finding.version,
                    "finding": finding.as_json(),
                    "stored_at": transaction.now,
                }
                for digest, finding in chunk
            ]
            transaction.execute(statement, rows)


def read(connection: Connection, account_id: str, digests: Iterable[bytes]) -> dict[bytes, list[PublicFinding]]:
    """What comparing an account's keys says of some of them, by SHA-256 of the subject public key info."""
    column = schema.fleet_verdicts.c
    versions = {name: check(name).metadata.version for name in CHECKS}
    found: dict[bytes, list[PublicFinding]] = {}
    for chunk in rows_in_chunks(list(dict.fromkeys(digests))):
        query = select(column.spki_digest, column.finding).where(
            column.account_id == account_id, column.spki_digest.in_(chunk)
        )
        for row in connection.execute(query):
            finding = PublicFinding.from_json(row.finding)
            if versions.get(finding.check) == finding.version:
                found.setdefault(bytes(row.spki_digest), []).append(finding)
    return found


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _end_with_parent() -> None:
    while os.read(0, 4_096):  # no buffered stream, whose lock would be held when the interpreter ends
        pass
    os._exit(4)


def main() -> int:
    """Do what the first line of standard input says."""
    search = Search.from_line(sys.stdin.buffer.readline().decode())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    database = Database(search.database)
    try:
        compare(database, search)
    except BusyStoreError:
        return _BUSY_EXIT
    except (SearchError, KeyassayError) as error:
        sys.stdout.write(f"{error}\n")
        return 1
    except MemoryError:
        sys.stdout.write("the machine's memory is used up\n")
        return 1
    finally:
        database.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
