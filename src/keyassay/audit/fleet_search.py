"""All keys that an account has ever had, compared with each other; and those of all accounts, where that is allowed.

Shared primes and repeated keys: what has been compared is in a store (``fleet_stores``), a folder per account and one
for all of them, that holds nothing that could not be made again from the database. Its items are the certificates that
are done: whatever the database has beyond them (all of it, if the folder was lost) is compared with each other and with
the store, and joins it. Verdicts go into the database before the new keys go into the store, so that a search that was
killed is repeated and nothing is missed.

The other checks (``whole_fleet``) look at all keys whenever there are others than last time.

The search runs in a process of its own, since it takes memory: ``python -m keyassay.audit.fleet_search``, which reads
what to do as one line of JSON and ends when its standard input does, and so with its parent.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from keyassay.audit import across_accounts, fleet_stores, fleet_verdicts, whole_fleet
from keyassay.audit.across_accounts import REPEATED_KEY, SHARED_PRIME, note_factors, partner_of, verdicts_of
from keyassay.audit.child import Child, first_line, outcome
from keyassay.audit.fleet_pool import SERVER, Pool, SearchError, certificate, look, without_numbers
from keyassay.audit.fleet_verdicts import Findings
from keyassay.audit.verdicts import PublicFinding, public
from keyassay.bulk.results import DEFAULT_BUDGET
from keyassay.bulk.store import BusyStoreError, Store
from keyassay.certificates.fleet import Earlier
from keyassay.certificates.item import Item
from keyassay.checks import Check, catalogue_digest, check
from keyassay.checks.fleet_repeated_key import RepeatedKey
from keyassay.checks.fleet_shared_prime import SharedPrime
from keyassay.errors import KeyassayError
from keyassay.findings import Profile, Verdict
from keyassay.storage import schema
from keyassay.storage.database import Actor, Database

#: the checks that compare keys with those of a store
CHECKS = (SHARED_PRIME, REPEATED_KEY)

_BUSY_EXIT = 3
#: milliseconds between two looks at all keys of the server, where nothing but keys has changed
_REST = 20 * 3_600_000
_C = schema.fleet_comparisons.c


@dataclass(frozen=True, slots=True)
class Search:
    """What to compare.

    Attributes:
        database: its address.
        account_id: whose keys; ``SERVER`` for those of all accounts.
        folder: of all stores.
        memory: bytes that the search may take; 0 for half of the machine's.
        profile: whose checks look at all keys anew; None for none: only shared primes and repeated keys.
        budget: CPU seconds for a key, by which profile deep goes.
    """

    database: str
    account_id: str
    folder: Path
    memory: int = 0
    profile: Profile | None = None
    budget: float = DEFAULT_BUDGET

    @property
    def store(self) -> Path:
        """The store: another one whenever the checks have changed, since all keys have to run again."""
        return self.folder / self.account_id / catalogue_digest(check(name) for name in CHECKS)

    @property
    def checks(self) -> tuple[str, ...]:
        """Ids of all checks that compare keys here."""
        return (*CHECKS, *(one.id for one in self.whole_checks))

    @property
    def whole_checks(self) -> tuple[Check[Any], ...]:
        """The checks that look at all keys anew."""
        return () if self.profile is None else whole_fleet.checks_of(self.profile)

    @property
    def method(self) -> str:
        """What names the work of the checks that look at all keys: 31 hexadecimal digits."""
        assert self.profile is not None
        done = {
            "checks": catalogue_digest(self.whole_checks),
            "profile": self.profile.label,
            "budget": self.budget if self.profile >= Profile.DEEP else 0,
        }
        return hashlib.sha256(json.dumps(done, sort_keys=True).encode()).hexdigest()[:31]

    def mark(self, certificates: str) -> str:
        """What names that work on a set of certificates (``Pool.digest``)."""
        return f"{self.method}:{certificates[:32]}"

    def as_line(self) -> str:
        """For the process of its own; the database's address may hold a password, so that it is no argument."""
        return json.dumps(
            {
                "database": self.database,
                "account_id": self.account_id,
                "folder": str(self.folder),
                "memory": self.memory,
                "profile": None if self.profile is None else self.profile.name,
                "budget": self.budget,
            }
        )

    @classmethod
    def from_line(cls, line: str) -> Search:
        """What ``as_line`` made."""
        given = json.loads(line)
        profile = None if given["profile"] is None else Profile[given["profile"]]
        folder = Path(given["folder"])
        return cls(given["database"], given["account_id"], folder, given["memory"], profile, given["budget"])


def _open_store(database: Database, search: Search) -> Store:
    return fleet_stores.open_store(database, search.account_id, search.store)


@dataclass(frozen=True, slots=True)
class _Work:
    """What is left to do: new certificates for the store; all certificates for the other checks."""

    new: bool
    whole: bool


def _work(database: Database, search: Search, store: Store) -> _Work:
    with database.read() as connection:
        new, certificates = look(connection, search.account_id, store)
        if not search.whole_checks:
            return _Work(new, whole=False)
        row = connection.execute(select(_C.compared, _C.compared_at).where(_C.scope == search.account_id)).first()
    if row is None or row.compared.partition(":")[0] != search.method:
        return _Work(new, whole=True)
    # the audits of all accounts would each begin with all keys of the server
    rests = search.account_id == SERVER and time.time() * 1_000 - row.compared_at < _REST
    return _Work(new, whole=row.compared != search.mark(certificates) and not rests)


def is_needed(database: Database, search: Search) -> bool:
    """Whether there is something to compare.

    Raises:
        BusyStoreError, KeyassayError: as ``fleet_stores.open_store``.
    """
    store = _open_store(database, search)
    try:
        work = _work(database, search, store)
        return work.new or work.whole
    finally:
        store.close()


def remarks(connection: Connection, scope: str) -> list[str]:
    """What the checks of all keys left out the last time, since their budget was spent."""
    return list(connection.execute(select(_C.remarks).where(_C.scope == scope)).scalar() or ())


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
    child = Child("keyassay.audit.fleet_search", search.as_line())
    try:
        while (code := child.wait(0.1)) is None:
            if not goes_on():
                return None, ""
    finally:
        child.end()
    return code, child.said


# In the process of its own


def compare(database: Database, search: Search) -> int:
    """Compare and store, in this process.

    Returns:
        How many certificates were new to the store.

    Raises:
        SearchError: it cannot be done.
        BusyStoreError, KeyassayError: as ``fleet_stores.open_store``.
    """
    store = _open_store(database, search)
    pool: Pool | None = None
    new = 0
    try:
        work = _work(database, search, store)
        if work.new:
            pool = Pool(database, search.account_id, search.memory, store, new_only=True)
            new = len(pool)
            _compare_new(database, search, store, pool)
            while not pool.complete:  # more than can be compared at once: with these, which are in the store now
                stored = len(store)
                pool.close()
                store.close()
                store = _open_store(database, search)
                if len(store) == stored:
                    raise SearchError(f"{len(pool):,} certificates could not be stored")
                pool = Pool(database, search.account_id, search.memory, store, new_only=True)
                new += len(pool)
                _compare_new(database, search, store, pool)
        if work.whole:
            if pool is not None and len(store):
                pool.close()
                pool = None
            if pool is None:  # else all of them were new
                pool = Pool(database, search.account_id, search.memory)
            _compare_whole(database, search, pool)
        fleet_stores.remove_others(database, search.account_id, search.store)
        return new
    finally:
        if pool is not None:
            pool.close()
        store.close()


def _compare_new(database: Database, search: Search, store: Store, pool: Pool) -> None:
    """Shared primes and repeated keys: verdicts into the database, then the pool into the store."""
    if search.account_id == SERVER:
        found: Findings = across_accounts.compare(database, store, pool)
    else:
        found = {**_shared_primes(database, store, pool), **_repeated_keys(pool)}
    fleet = pool.fleet
    if fleet.notes:
        raise SearchError("; ".join(f"{note.check}: {note.reason}" for note in fleet.notes))
    draft = store.draft(fleet)
    for number in range(len(fleet.spool)):
        for position, result in enumerate(fleet.spool.block(number), fleet.start_of(number)):
            draft.take(position, result.item)
    fleet_verdicts.write(database, search.account_id, found)
    fleet_stores.commit(database, search.account_id, store, draft)


def _compare_whole(database: Database, search: Search, pool: Pool) -> None:
    """The other checks: what they say of all keys takes the place of what they said last."""
    assert search.profile is not None
    scope = search.account_id
    comparison = whole_fleet.Comparison(pool, search.profile, search.budget)
    found = comparison.run()
    fleet_verdicts.write(database, scope, found)
    done = [one.id for one in search.whole_checks if one.id not in comparison.failed]
    fleet_verdicts.keep_only(database, scope, done, found)
    if comparison.failed:
        raise SearchError("; ".join(f"{name}: {reason}" for name, reason in comparison.failed.items()))
    insert: Any = sqlite.insert if database.is_sqlite else postgresql.insert
    with database.write(Actor("" if scope == SERVER else scope, "worker:fleet")) as transaction:
        row = {
            "scope": scope,
            "compared": search.mark(pool.digest),
            "remarks": comparison.remarks,
            "compared_at": transaction.now,
        }
        statement = insert(schema.fleet_comparisons).values(row)
        changed = {name: statement.excluded[name] for name in row if name != "scope"}
        transaction.execute(statement.on_conflict_do_update(index_elements=["scope"], set_=changed))


def _finding(name: str, item: Item, verdict: Verdict) -> PublicFinding:
    finding = public(check(name).finding(item.key if item.key is not None else item, verdict))
    message = without_numbers(finding.message).replace(" of an earlier run", "").replace(" of this run", "")
    return replace(finding, message=message)


def _shared_primes(database: Database, store: Store, pool: Pool) -> Findings:
    """Findings on the new keys, and on those keys of the store that a new key breaks."""
    shared: dict[tuple[str, bytes, str], PublicFinding] = {}
    sharing: dict[int, tuple[int, Earlier]] = {}
    for ordinal, item, verdict in verdicts_of(pool, SHARED_PRIME):
        shared[pool.scope, pool.digests[ordinal], SHARED_PRIME] = _finding(SHARED_PRIME, item, verdict)
        note_factors(sharing, item, verdict)
    broken: dict[tuple[str, bytes, str], PublicFinding] = {}
    for modulus, part, holder in store.divided_by(list(sharing)):
        evidence_of = partner_of(modulus, part, sharing)
        if evidence_of is None or holder.sha256 is None:
            continue
        with database.read() as connection:
            there = certificate(connection, pool.scope, holder.sha256.hex())
        if there is not None:
            verdict = Verdict(_message(evidence_of), evidence_of)
            broken[pool.scope, there[0], SHARED_PRIME] = _finding(SHARED_PRIME, there[1], verdict)
    return {**broken, **shared}


def _message(evidence: SharedPrime) -> str:
    bits, place = evidence.factor.bit_length(), evidence.partner
    return (
        f"its modulus shares a prime of {bits} bits with {place.source}#{place.index}: both private keys follow by "
        "division"
    )


def _repeated_keys(pool: Pool) -> Findings:
    """They name some holders of the key, whoever of them reads it, and say how many there are."""
    found: dict[bytes, PublicFinding] = {}
    holders: dict[bytes, dict[str, dict[str, Any]]] = {}
    for ordinal, item, verdict in verdicts_of(pool, REPEATED_KEY):
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
        (pool.scope, digest, REPEATED_KEY): replace(
            finding, evidence={**finding.evidence, "partners": list(holders[digest].values())}
        )
        for digest, finding in found.items()
    }


def main() -> int:
    """Do what the first line of standard input says."""
    search = Search.from_line(first_line())

    def work(database: Database) -> int:
        try:
            compare(database, search)
        except BusyStoreError:
            return _BUSY_EXIT
        return 0

    return outcome(search.database, work)


if __name__ == "__main__":
    sys.exit(main())
