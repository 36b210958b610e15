"""What a check of an audit gets and gives: one batch of resources after another, by the order of their keys.

An examiner only reads; the worker writes what it found, with its position, in one transaction. Whatever it is asked
after a crash it is asked again from the last position that was written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    Subquery,
    exists,
    func,
    literal,
    select,
    union_all,
)

from keyassay.audit.checks import AuditCheck
from keyassay.audit.configuration import threshold_days
from keyassay.bulk.results import DEFAULT_BUDGET
from keyassay.findings import Classification, Profile
from keyassay.output.description import sentence
from keyassay.registry.lifecycle import AUDITED
from keyassay.storage import schema
from keyassay.storage.database import Database, Transaction

DAY = 86_400_000

#: statuses in which a device certificate is examined
DEVICE_STATUSES = tuple(status.value for status in AUDITED)


def _every_authority() -> Subquery:
    registered, own = schema.authorities.c, schema.issuers.c
    columns = (registered.account_id, registered.id, registered.status, registered.der, registered.spki_digest)
    known = exists().where(
        registered.account_id == own.account_id, registered.id == own.id, registered.status == "ACTIVE"
    )
    issuing = select(own.account_id, own.id, literal("ACTIVE"), own.der, own.spki_digest).where(own.active, ~known)
    return union_all(select(*columns), issuing).subquery("every_authority")


#: registered authorities, and the one by which an account issues, which the API does not know
EVERY_AUTHORITY = _every_authority()


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """What an operator decides for all audits of a server.

    Attributes:
        profile: how much work a key is worth; AWS means AWS's two checks and nothing else.
        level: the mildest class of weakness that makes a certificate noncompliant.
        budget: CPU seconds that profile deep may spend on each different key.
        deep_processes: that profile deep works in; 0 for half of the machine's cores.
        fleet_store: folder for the keys that were compared with each other; None: keys are not compared.
        fleet_across_accounts: compare keys with those of all other accounts, too.
        fleet_memory: bytes that comparing may take; 0 for half of the machine's.
        batch: certificates between two checkpoints.
        lease: seconds after which others take over the work of a worker that has died.
        poll: seconds between two looks for work.
        follow: seconds between two comparisons of the keys that were registered lately; 0 for none but by audits.
        retention_days: how long tasks and findings are kept.
    """

    profile: Profile = Profile.STANDARD
    level: Classification = Classification.BROKEN
    budget: float = DEFAULT_BUDGET
    deep_processes: int = 0
    fleet_store: Path | None = None
    fleet_across_accounts: bool = False
    fleet_memory: int = 0
    batch: int = 300
    lease: float = 20.0
    poll: float = 1.0
    follow: float = 0.0
    retention_days: int = 90

    @property
    def own_authorities(self) -> bool:
        """Whether accounts have authorities of their own; with the profile of AWS they have registered ones only."""
        return self.profile is not Profile.AWS


@dataclass(frozen=True, slots=True)
class Audit:
    """One check of one task.

    Attributes:
        database: where.
        check: which check.
        account_id: whose.
        now: the time that things are judged at: the task's start, milliseconds since 1970.
        since: the earliest event that counts, likewise.
        configuration: of the check, as the account set it.
        settings: of the server.
    """

    database: Database
    check: AuditCheck
    account_id: str
    now: int
    since: int
    configuration: Mapping[str, Any] = field(default_factory=dict)
    settings: AuditSettings = field(default_factory=AuditSettings)

    def days(self) -> int:
        """The check's threshold: as the account set it, or the default."""
        return threshold_days(self.check, self.configuration)


@dataclass(frozen=True, slots=True)
class Found:
    """A noncompliant resource.

    Attributes:
        identifier: AWS's ResourceIdentifier.
        reason_code: why, for programs; a resource has one finding for each.
        reason: a sentence; "" for the check's own.
        additional: AWS's additionalInfo.
        related: AWS's RelatedResource each.
        evidence: public facts for people.
        severity: if it is not the check's.
    """

    identifier: Mapping[str, Any]
    reason_code: str
    reason: str = ""
    additional: Mapping[str, str] = field(default_factory=dict)
    related: Sequence[Mapping[str, Any]] = ()
    evidence: Mapping[str, Any] | None = None
    severity: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """What was found in some resources.

    Attributes:
        examined: how many there were.
        found: the noncompliant ones.
        after: where the next batch begins, None for the end.
        keep: writes what later audits need not find out again, in the batch's transaction.
        unsure: of how many the examination was not complete.
    """

    examined: int
    found: Sequence[Found]
    after: str | None
    keep: Callable[[Transaction], None] | None = None
    unsure: int = 0


class Examiner(ABC):
    """Does one check of one task."""

    #: what the server's log, and nobody else, is told about ``prepare``
    for_operator = ""
    #: what ``prepare`` left out as it was told to, for whoever reads the check's message
    remark = ""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        #: takes how far ``prepare`` is, for people
        self.tell: Callable[[str], None] = lambda _text: None

    @abstractmethod
    def total(self, connection: Connection) -> int:
        """How many resources there are about to be examined."""

    def prepare(self, goes_on: Callable[[], bool]) -> str:  # noqa: ARG002  most have nothing to prepare
        """What has to be done before the first batch, and may take long.

        Args:
            goes_on: has to be asked now and then; if it answers false, return at once.

        Returns:
            What could not be done, "" if all was.
        """
        return ""

    @abstractmethod
    def batch(self, connection: Connection, after: str) -> Batch:
        """The resources that follow a position ("" for the first)."""


def count(connection: Connection, table: FromClause, account_id: str, statuses: Sequence[str]) -> int:
    """How many certificates (or authorities) of an account are in one of some statuses."""
    query = select(func.count()).where(table.c.account_id == account_id, table.c.status.in_(statuses))
    return int(connection.execute(query).scalar_one())


def page(
    connection: Connection,
    table: FromClause,
    account_id: str,
    statuses: Sequence[str],
    after: str,
    size: int,
    *columns: ColumnElement[Any],
) -> Sequence[Row[Any]]:
    """The next certificates (or authorities) by id: each comes once, whatever changes its status meanwhile."""
    return connection.execute(page_query(table, account_id, statuses, after, *columns).limit(size)).all()


def page_query(
    table: FromClause, account_id: str, statuses: Sequence[str], after: str, *columns: ColumnElement[Any]
) -> Select[Any]:
    """The statement of ``page``, without its limit."""
    # the function keeps databases from reading by the index of statuses, which would sort all of them for each page
    status = func.coalesce(table.c.status, "")
    query = select(table.c.id, *columns).where(table.c.account_id == account_id, table.c.id > after)
    return query.where(status.in_(statuses)).order_by(table.c.id)


class Certificates(Examiner):
    """Examines device certificates, or authorities, page by page.

    Args:
        audit: what for.
        table: ``certificates``, or ``EVERY_AUTHORITY``: without ``own_authorities`` only the registered ones.
    """

    columns: tuple[str, ...] = ()

    def __init__(self, audit: Audit, table: FromClause = schema.certificates) -> None:
        super().__init__(audit)
        if table is EVERY_AUTHORITY and not audit.settings.own_authorities:
            table = schema.authorities
        self.table = table
        self.statuses = DEVICE_STATUSES if table is schema.certificates else ("ACTIVE",)

    def total(self, connection: Connection) -> int:
        return count(connection, self.table, self.audit.account_id, self.statuses)

    def batch(self, connection: Connection, after: str) -> Batch:
        size = self.audit.settings.batch
        columns = [self.table.c[name] for name in self.columns]
        rows = page(connection, self.table, self.audit.account_id, self.statuses, after, size, *columns)
        return self.examine(connection, rows, rows[-1].id if len(rows) == size else None)

    @abstractmethod
    def examine(self, connection: Connection, rows: Sequence[Row[Any]], after: str | None) -> Batch:
        """What is found in some rows; ``after`` goes into the batch."""

    def identifier(self, certificate_id: str) -> dict[str, str]:
        """AWS's ResourceIdentifier of a row."""
        return {self.audit.check.identifier: certificate_id}

    def whose(self, connection: Connection, certificate_id: str) -> str:
        """What a finding begins with: of the account's own authority no list of the API tells what it is."""
        if self.table is not EVERY_AUTHORITY:
            return ""
        own = schema.issuers.c
        query = select(own.id).where(own.account_id == self.audit.account_id, own.id == certificate_id, own.active)
        is_own = connection.execute(query).first() is not None
        return "this authority issues the account's certificates (`keyassay ca list`); " if is_own else ""

    def found(self, connection: Connection, certificate_id: str, reason_code: str, **more: Any) -> Found:
        """A finding for one of the check's own reasons."""
        whose, reason = self.whose(connection, certificate_id), self.audit.check.reasons[reason_code]
        reason = sentence(whose + reason[0].lower() + reason[1:]) if whose else reason
        return Found(self.identifier(certificate_id), reason_code, reason, **more)
