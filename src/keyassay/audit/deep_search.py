"""Profile deep in audits: the deep steps of all checks on each different key, within a budget, kept by key.

The engine's run (``bulk.deep_run``) works in processes of their own, each with a share of the keys, and writes into the
database how far every step came: what is done is not done again, by any account that has the key, and a larger budget
goes on where a smaller one stopped. A process that is told to end says how far the key under way came; one that is
killed loses that key and a second's worth of others. A key that takes its process with it is left alone.

Primes that were found are not tried on other keys, as a scan does: what is kept of a key belongs to that key.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Select, func, literal, not_, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from keyassay.audit.child import Child, first_line, outcome, say
from keyassay.audit.examining import DEVICE_STATUSES, EVERY_AUTHORITY
from keyassay.audit.fleet_pool import SearchError
from keyassay.audit.verdicts import PublicFinding, public
from keyassay.bulk.deep import Earlier, EarlierSteps, steps_of
from keyassay.bulk.deep_run import DeepRun, duration
from keyassay.bulk.fleet import Spool
from keyassay.bulk.journal import together
from keyassay.bulk.results import DEFAULT_BUDGET, DeepSummary, Outcome, Settings, StepReport
from keyassay.bulk.scan import Plan, assess_items
from keyassay.certificates.decoding import decode
from keyassay.certificates.item import RawItem
from keyassay.checks import check
from keyassay.findings import Profile
from keyassay.storage import schema
from keyassay.storage.database import Actor, Database, rows_in_chunks

_D = schema.deep_verdicts.c

#: keys of one run of the engine
_PAGE = 500
#: keys that take their process with them, until something else must be wrong
_DEATHS = 5
#: seconds that a process gets to say how far it came
_PATIENCE = 6.0
#: seconds after which what was done is written
_WRITE = 1.0
#: bytes of addresses that a process gets at least: its libraries alone take hundreds of MB
_LEAST_MEMORY = 2 << 30
#: outcomes after which no budget would go further
_ENDED = (Outcome.DONE, Outcome.DONE_EARLIER, Outcome.DOES_NOT_APPLY, Outcome.NOT_NEEDED, Outcome.FOUND)
_TABLES: Mapping[str, tuple[FromClause, Sequence[str]]] = {
    "certificates": (schema.certificates, DEVICE_STATUSES),
    "authorities": (EVERY_AUTHORITY, ("ACTIVE",)),
}


@dataclass(frozen=True, slots=True)
class DeepSearch:
    """What to examine.

    Attributes:
        database: its address.
        account_id: whose keys.
        table: "certificates" or "authorities".
        budget: CPU seconds for each different key.
        memory: bytes that each process may take; 0 for its part of half of the machine's.
        processes: how many; 0 for half of the machine's cores.
        share: which of ``shares`` parts of the keys a process has.
    """

    database: str
    account_id: str
    table: str = "certificates"
    budget: float = DEFAULT_BUDGET
    memory: int = 0
    processes: int = 0
    share: int = 0
    shares: int = 1

    def as_line(self) -> str:
        """For a process of its own."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def from_line(cls, line: str) -> DeepSearch:
        """What ``as_line`` made."""
        return cls(**json.loads(line))


def _plan(budget: float) -> Plan:
    return Plan.of(Settings(profile=Profile.DEEP, budget=budget, fleet=False), 0)


def _catalogue(plan: Plan) -> str:
    """What names the steps and the versions of their checks."""
    steps = [(one.check_id, check(one.check_id).metadata.version, one.name) for one in steps_of(plan.deep_checks)]
    return hashlib.sha256(json.dumps(steps).encode()).hexdigest()


# What is known


def is_told(digest: ColumnElement[bytes]) -> ColumnElement[bool]:
    """Whether deep steps have something to say about a key, as SQL; ``digest`` is a column."""
    said = or_(_D.findings.is_not(None), _D.failed)
    return select(literal(1)).where(_D.spki_digest == digest, said).scalar_subquery().is_not(None)


def read(connection: Connection, digests: Iterable[bytes]) -> dict[bytes, tuple[tuple[PublicFinding, ...], bool]]:
    """What deep steps found on some keys, and whether one of them failed; of keys where there is either."""
    found: dict[bytes, tuple[tuple[PublicFinding, ...], bool]] = {}
    for chunk in rows_in_chunks(list(dict.fromkeys(digests))):
        query = select(_D.spki_digest, _D.findings, _D.failed).where(_D.spki_digest.in_(chunk))
        for row in connection.execute(query):
            findings = map(PublicFinding.from_json, row.findings or ())
            valid = tuple(one for one in findings if check(one.check).metadata.version == one.version)
            if valid or row.failed:
                found[bytes(row.spki_digest)] = valid, row.failed
    return found


def _keys(search: DeepSearch) -> Select[Any]:
    """Digests of the keys that are audited."""
    table, statuses = _TABLES[search.table]
    columns = table.c
    return select(columns.spki_digest).where(columns.account_id == search.account_id, columns.status.in_(statuses))


def _to_do(search: DeepSearch, catalogue: str) -> Select[Any]:
    """Digests of the keys whose turn has not come, or that have a larger budget now."""
    column = _TABLES[search.table][0].c.spki_digest
    over = select(literal(1)).where(
        _D.spki_digest == column, _D.catalogue == catalogue, or_(_D.complete, _D.budget >= search.budget)
    )
    return _keys(search).where(not_(over.exists()))


def _count(connection: Connection, keys: Select[Any]) -> int:
    return int(connection.execute(select(func.count()).select_from(keys.distinct().subquery())).scalar_one())


def remark(connection: Connection, search: DeepSearch) -> str:
    """What the budget did not reach, for people; "" if it reached everything."""
    digests = _keys(search).distinct().subquery().c.spki_digest
    query = select(func.count(), func.count().filter(not_(_D.complete)))
    known, incomplete = connection.execute(query.where(_D.spki_digest.in_(select(digests)))).one()
    if not incomplete:
        return ""
    return (
        f"deep steps ran out of their budget of {duration(search.budget)} a key on {incomplete:,} of {known:,} keys: a "
        "larger one goes on where they stopped"
    )


# Running it


@dataclass
class _Share:
    """A process with its part of the keys, as the parent sees it."""

    search: DeepSearch
    done: int = 0
    at: str = ""
    child: Child = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.at = ""
        self.child = Child("keyassay.audit.deep_search", self.search.as_line(), self._hear)

    def _hear(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "at":
            self.at = rest
        elif word == "done":
            self.done += int(rest)


def run(database: Database, search: DeepSearch, goes_on: Callable[[], bool], tell: Callable[[str], None]) -> bool:
    """Give every key its turn that has not had it.

    Args:
        database: the same as the search's.
        search: what to do.
        goes_on: asked several times a second; false ends it, and what was done is kept.
        tell: called now and then with how far it is, for people.

    Returns:
        False if ``goes_on`` ended it.

    Raises:
        SearchError: it failed.
    """
    catalogue = _catalogue(_plan(search.budget))
    with database.read() as connection:
        count = _count(connection, _to_do(search, catalogue))
    if not count:
        return True
    wanted = min(search.processes or max(1, (os.cpu_count() or 1) // 2), count)
    begun = told = time.monotonic()
    deaths = 0
    shares = [_Share(replace(search, share=number, shares=wanted)) for number in range(wanted)]
    running = list(shares)
    try:
        while running:
            if not goes_on():
                return False
            now = time.monotonic()
            if now - told > 2.0:
                told = now
                tell(_progress(sum(one.done for one in shares), count, now - begun))
            code = running[0].child.wait(0.1)
            if code is None:
                running.append(running.pop(0))
            elif code == 0:
                running.pop(0)
            elif code < 0 and running[0].at and deaths < _DEATHS:
                deaths += 1
                _give_up(database, search, catalogue, bytes.fromhex(running[0].at))
                running[0].start()
            else:
                raise SearchError(running[0].child.said or f"a process of deep steps ended with code {code}")
    finally:
        for one in running:
            one.child.interrupt()
        patience = time.monotonic() + _PATIENCE
        for one in running:
            one.child.end(max(patience - time.monotonic(), 0.0))
    tell(_progress(count, count, 0.0))
    return True


def _progress(done: int, count: int, seconds: float) -> str:
    left = f", {duration(seconds / done * (count - done))} left" if 0 < done < count else ""
    return f"deep steps: {done:,} of {count:,} keys{left}"


def _give_up(database: Database, search: DeepSearch, catalogue: str, digest: bytes) -> None:
    """Note that a key has taken its process with it."""
    with database.read() as connection:
        row = connection.execute(select(_D.steps).where(_D.spki_digest == digest)).first()
    steps = [] if row is None else row.steps
    _write(database, search, [_row(digest, catalogue, search.budget, steps, failed=True)])


def _row(
    digest: bytes, catalogue: str, budget: float, steps: Any, *, complete: bool = False, failed: bool = False
) -> dict[str, Any]:
    return {
        "spki_digest": digest,
        "catalogue": catalogue,
        "budget": budget,
        "complete": complete,
        "failed": failed,
        "steps": steps,
        "findings": None,
    }


def _write(database: Database, search: DeepSearch, rows: Sequence[dict[str, Any]]) -> None:
    insert: Any = sqlite.insert if database.is_sqlite else postgresql.insert
    statement = insert(schema.deep_verdicts)
    changed = {one.name: statement.excluded[one.name] for one in _D if one.name != "spki_digest"}
    statement = statement.on_conflict_do_update(index_elements=["spki_digest"], set_=changed)
    for chunk in rows_in_chunks(sorted(rows, key=lambda row: row["spki_digest"])):
        with database.write(Actor(search.account_id, "worker:deep")) as transaction:
            transaction.execute(statement, [{**row, "stored_at": transaction.now} for row in chunk])


# In a process of its own


class _Notes:
    """How far steps have come, in the database, for the engine's run."""

    damaged = 0

    def __init__(self, database: Database, search: DeepSearch, catalogue: str, versions: Mapping[str, int]) -> None:
        self._database = database
        self._search = search
        self._catalogue = catalogue
        self._versions = versions
        #: whole digests by what the engine calls a key
        self.names: dict[bytes, bytes] = {}
        #: of this page's keys whose turn is over
        self.over: dict[bytes, dict[str, Any]] = {}
        self._waiting: list[dict[str, Any]] = []
        self._written = time.monotonic()

    def earlier(self, key: bytes) -> EarlierSteps:
        digest = self.names[key]
        say(f"at {digest.hex()}")
        with self._database.read() as connection:
            steps = connection.execute(select(_D.steps).where(_D.spki_digest == digest)).scalar() or ()
        return {
            (name, step): Earlier(bool(done), int(units), float(seconds), str(detail))
            for name, version, step, done, units, seconds, detail in steps
            if self._versions.get(name) == version
        }

    def note(self, key: bytes, earlier: EarlierSteps, reports: Iterable[StepReport]) -> None:
        made = list(reports)
        digest = self.names[key]
        steps = [
            [name, self._versions[name], step, one.done, one.units, round(one.seconds, 3), one.detail]
            for (name, step), one in together(earlier, made).items()
        ]
        found = any(one.outcome is Outcome.FOUND for one in made)
        # until the finding itself is written the turn is not over: a run that is killed finds it again
        row = _row(
            digest,
            self._catalogue,
            0.0 if found else self._search.budget,
            steps,
            complete=not found and all(one.outcome in _ENDED for one in made),
            failed=any(one.outcome is Outcome.FAILED for one in made),
        )
        self.over[digest] = row
        self._waiting.append(row)
        say("done 1")
        if time.monotonic() - self._written > _WRITE:
            self._flush(self._waiting[:-1])  # the last one may have been broken off, which shows later
            self._waiting = self._waiting[-1:]

    def end(self, rows: Iterable[dict[str, Any]] = (), *, broken_off: bool = False) -> None:
        """Write what is left, and further rows; if the run was broken off the last key's turn is not over."""
        if broken_off and self._waiting and not self._waiting[-1]["complete"]:
            self._waiting[-1]["budget"] = 0.0
        by_key = {row["spki_digest"]: row for row in (*self._waiting, *rows)}
        self._flush(list(by_key.values()))
        self._waiting = []

    def _flush(self, rows: Sequence[dict[str, Any]]) -> None:
        _write(self._database, self._search, rows)
        self._written = time.monotonic()


def work(database: Database, search: DeepSearch) -> bool:
    """Give the keys of one share their turn, in this process; false if it was broken off."""
    plan = _plan(search.budget)
    catalogue = _catalogue(plan)
    notes = _Notes(database, search, catalogue, {one.id: one.metadata.version for one in plan.deep_checks})
    context = plan.context_for(plan.deep_checks[0], alone=True)
    alone = replace(plan, certificate_checks=(), fleet_checks=())
    for page in _pages(database, search, catalogue):
        items = decode([RawItem("", row, 0, "CERTIFICATE", der) for row, der in enumerate(page.values())])
        digests = list(page)
        notes.names = {
            item.spki_sha256[:16]: digest
            for item, digest in zip(items, digests, strict=True)
            if item.spki_sha256 is not None
        }
        notes.over = {}
        spool = Spool()
        spool.append(assess_items(items, alone))
        run = DeepRun(
            plan.deep_checks, context, plan.settings, 1, notes, lambda _phase, _share: None, DeepSummary(search.budget)
        )
        examined = run.examine(spool, {})
        rows = [
            {**notes.over[digests[position]], "findings": [public(finding).as_json()], "budget": search.budget,
             "complete": True}
            for position in range(len(digests))
            if (finding := examined.of(position)[1]) is not None and digests[position] in notes.over
        ]  # fmt: skip
        if not run.broken_off:  # nothing to do for them: no steps for this kind of key, or broken already
            rest = [digest for digest in digests if digest not in notes.over]
            rows += [_row(digest, catalogue, search.budget, [], complete=True) for digest in rest]
            say(f"done {len(rest)}")
        notes.end(rows, broken_off=run.broken_off)
        spool.close()
        if run.broken_off:
            return False
    return True


def _pages(database: Database, search: DeepSearch, catalogue: str) -> Iterator[dict[bytes, bytes]]:
    """The share's keys whose turn has not come: DER of a certificate by digest, some at a time."""
    columns = _TABLES[search.table][0].c
    after = b""
    while True:
        query = _to_do(search, catalogue).where(columns.spki_digest > after).distinct()
        with database.read() as connection:
            found = connection.execute(query.order_by(columns.spki_digest).limit(_PAGE * search.shares)).scalars().all()
            if not found:
                return
            after = bytes(found[-1])
            mine = [bytes(one) for one in found if bytes(one)[0] % search.shares == search.share]
            rows: list[Any] = []
            for chunk in rows_in_chunks(mine):
                held = select(columns.spki_digest, columns.der).where(
                    columns.account_id == search.account_id, columns.spki_digest.in_(chunk)
                )
                rows += connection.execute(held).all()
        if rows:
            yield {bytes(row.spki_digest): bytes(row.der) for row in rows}


def _bound(search: DeepSearch) -> None:
    """What takes more memory than it may raises ``MemoryError``, which is a remark on the key under way."""
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    memory = search.memory or max(half // search.shares, _LEAST_MEMORY)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def main() -> int:
    """Do what the first line of standard input says."""
    search = DeepSearch.from_line(first_line())
    # shells start what runs in the background with this signal ignored, and children inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(OSError):
        os.nice(10)  # it takes hours: whoever asks something comes first
    _bound(search)

    def turns(database: Database) -> int:
        with suppress(KeyboardInterrupt):  # told to end before it began
            work(database, search)
        return 0

    return outcome(search.database, turns)


if __name__ == "__main__":
    sys.exit(main())
