"""DEVICE_ and CA_CERTIFICATE_KEY_QUALITY_CHECK: the engine's checks of single keys, and all keys compared.

Among the authorities is the account's own that issues, but in profile aws: AWS's own is none of the account's there.

Verdicts on single keys are kept (``verdicts``), so that only new keys, and old keys by new or stronger checks, are
examined. What only shows when keys are compared comes from ``fleet_search``, which runs before the first certificate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, FromClause, Row, Subquery, and_, func, not_, select

from keyassay.audit import deep_search, fleet_search, fleet_verdicts, verdicts
from keyassay.audit.deep_search import DeepSearch
from keyassay.audit.examining import EVERY_AUTHORITY, Audit, AuditSettings, Batch, Certificates, Found, page_query
from keyassay.audit.fleet_pool import SERVER, SearchError
from keyassay.audit.fleet_search import Search
from keyassay.audit.verdicts import Catalogue, Known, PublicFinding
from keyassay.bulk.results import Settings
from keyassay.bulk.scan import Plan, assess_items
from keyassay.certificates.decoding import decode
from keyassay.certificates.item import RawItem
from keyassay.findings import Classification, Profile
from keyassay.output.description import sentence
from keyassay.storage.database import rows_in_chunks

#: partners of a key that a finding names
_NAMED = 10
#: batches' worth of certificates that one look passes over where nothing is to be done
_LOOK = 32


@dataclass
class Engine:
    """The engine as audits use it: one per worker, since plans hold tables that take time to make.

    Attributes:
        profile: of the checks.
    """

    profile: Profile
    _plans: dict[tuple[frozenset[str], bool], Plan] = field(default_factory=dict)
    _catalogue: Catalogue | None = None

    @property
    def catalogue(self) -> Catalogue:
        """The checks of single keys that there are in the profile."""
        if self._catalogue is None:
            self._catalogue = Catalogue.of(self._plan(frozenset(), 0).key_checks, self.profile)
        return self._catalogue

    def _plan(self, only: frozenset[str], expected: int) -> Plan:
        many = expected > 10_000
        key = (only, many)
        if key not in self._plans:
            settings = Settings(profile=self.profile, only=tuple(sorted(only)), fleet=False)
            self._plans[key] = Plan.of(settings, expected if many else 0)
        return self._plans[key]

    def examine(
        self, encodings: Mapping[bytes, bytes], only: frozenset[str], expected: int
    ) -> tuple[dict[bytes, tuple[PublicFinding, ...]], set[bytes]]:
        """Run checks of single keys.

        Args:
            encodings: certificates in DER, by the digest that stands for their key.
            only: ids of the checks; empty for all of the profile.
            expected: about how many keys are coming in all.

        Returns:
            Findings by digest, before ``settle``; and the digests of keys on which a check could not do its work.
        """
        plan = self._plan(only, expected)
        raw = [RawItem("", row, 0, "CERTIFICATE", der) for row, der in enumerate(encodings.values())]
        results = assess_items(decode(raw), plan)
        # certificate checks say nothing of the key: what a certificate's dates or signature are is asked elsewhere
        wanted = {one.id for one in plan.key_checks}
        found: dict[bytes, tuple[PublicFinding, ...]] = {}
        unsure: set[bytes] = set()
        for digest, result in zip(encodings, results, strict=True):
            found[digest] = tuple(verdicts.public(one) for one in result.findings if one.check in wanted)
            if any(note.check in wanted for note in result.not_run):
                unsure.add(digest)
        return found, unsure


class KeyQuality(Certificates):
    """Either check.

    Args:
        audit: what for.
        table: device certificates, or ``EVERY_AUTHORITY``.
        engine: the worker's.
    """

    columns = ("spki_digest",)

    def __init__(self, audit: Audit, table: FromClause, engine: Engine) -> None:
        super().__init__(audit, table)
        self._engine = engine
        self._expected = 0
        self._compared: bool | None = None
        self._complete: tuple[str, ...] | None = None
        self._span = audit.settings.batch

    def prepare(self, goes_on: Callable[[], bool]) -> str:
        trouble = []
        for search in searches_of(self.audit):
            try:
                if not fleet_search.run(self.audit.database, search, goes_on):
                    break
            except SearchError as error:
                if search.account_id == SERVER:  # how many keys others have is not the account's business
                    self.for_operator = str(error)
                    trouble.append("the keys could not be compared with other accounts': see the server's log")
                else:
                    trouble.append(f"the keys could not be compared with each other: {error}")
        with self.audit.database.read() as connection:
            left_out = fleet_search.remarks(connection, self.audit.account_id) if searches_of(self.audit) else []
        self.remark = "; ".join(left_out)
        if self.audit.settings.profile >= Profile.DEEP and goes_on():
            trouble += self._deep_steps(goes_on)
        return "; ".join(trouble)

    def _deep_steps(self, goes_on: Callable[[], bool]) -> list[str]:
        audit, settings = self.audit, self.audit.settings
        search = DeepSearch(
            audit.database.url,
            audit.account_id,
            "authorities" if self.table is EVERY_AUTHORITY else "certificates",
            settings.budget,
            settings.fleet_memory,
            settings.deep_processes,
        )
        try:
            if deep_search.run(audit.database, search, goes_on, self.tell):
                with audit.database.read() as connection:
                    said = deep_search.remark(connection, search)
                self.remark = "; ".join(one for one in (said, self.remark) if one)
        except SearchError as error:
            return [f"deep steps: {error}"]
        return []

    def total(self, connection: Connection) -> int:
        self._expected = super().total(connection)
        return self._expected

    def batch(self, connection: Connection, after: str) -> Batch:
        """The next certificates about which there is something to do or to say, and all those before them.

        Where nothing changed since an earlier audit that is one statement for thousands of certificates.
        """
        size = self.audit.settings.batch
        page = self._page(connection, after)
        count, last, left = connection.execute(
            select(func.count(), func.max(page.c.id), func.count().filter(page.c.left))
        ).one()
        ended = count < self._span
        rows: Sequence[Row[Any]] = ()
        if left:
            rows = connection.execute(select(page).where(page.c.left).order_by(page.c.id).limit(size)).all()
        if left > size:
            last, ended = rows[-1].id, False
            count = connection.execute(select(func.count()).select_from(page).where(page.c.id <= last)).scalar_one()
        self._span = min(4 * self._span, _LOOK * size) if 4 * left <= size else size
        return replace(self.examine(connection, rows, None if ended else last), examined=count)

    def _page(self, connection: Connection, after: str) -> Subquery:
        """The next ``_span`` certificates, with their keys and whether there is something to do or to say."""
        if self._complete is None:
            self._complete = verdicts.complete(connection, self._engine.catalogue)
        digest = self.table.c.spki_digest
        settled = verdicts.is_settled(digest, self._complete)
        if self._any_compared(connection):
            across = self.audit.settings.fleet_across_accounts
            settled = and_(settled, not_(fleet_verdicts.is_found(self.audit.account_id, digest, across=across)))
        if self._engine.profile >= Profile.DEEP:
            settled = and_(settled, not_(deep_search.is_told(digest)))
        query = page_query(self.table, self.audit.account_id, self.statuses, after, digest, not_(settled).label("left"))
        return query.limit(self._span).subquery()

    def examine(self, connection: Connection, rows: Sequence[Row[Any]], after: str | None) -> Batch:
        digests = {row.id: bytes(row.spki_digest) for row in rows}
        catalogue = self._engine.catalogue
        known = verdicts.cached(connection, digests.values(), catalogue)
        fresh, unsure = self._fresh(connection, digests, known)
        of_key = {digest: one.findings for digest, one in known.items()}
        of_key.update(fresh)
        incomplete: set[bytes] = set()
        if self._engine.profile >= Profile.DEEP:
            for digest, (deeper, failed) in deep_search.read(connection, digests.values()).items():
                # it says more than what the same check found before
                checks_of = {one.check for one in deeper}
                of_key[digest] = (*(one for one in of_key[digest] if one.check not in checks_of), *deeper)
                if failed:
                    incomplete.add(digest)
        of_fleet: dict[bytes, list[PublicFinding]] = {}
        if self._any_compared(connection):
            across = self.audit.settings.fleet_across_accounts
            checks = searches_of(self.audit)[0].checks
            of_fleet = fleet_verdicts.read(connection, self.audit.account_id, digests.values(), checks, across=across)
        found: list[Found] = []
        for certificate_id, digest in digests.items():
            findings = of_key[digest]
            if findings or digest in of_fleet:
                its = self.whose(connection, certificate_id)
                found.extend(self._noncompliant(certificate_id, (*findings, *of_fleet.get(digest, ())), its))
        kept = {digest: findings for digest, findings in fresh.items() if digest not in unsure}
        return Batch(
            len(rows),
            found,
            after,
            (lambda transaction: verdicts.store(transaction, catalogue, kept)) if kept else None,
            sum(digest in unsure or digest in incomplete for digest in digests.values()),
        )

    def _any_compared(self, connection: Connection) -> bool:
        """Whether comparing has found anything in the account: mostly it has not, and nothing need be looked up."""
        if self._compared is None:
            across = self.audit.settings.fleet_across_accounts
            account_id = self.audit.account_id
            compared = bool(searches_of(self.audit))
            self._compared = compared and fleet_verdicts.any_found(connection, account_id, across=across)
        return self._compared

    def _fresh(
        self, connection: Connection, digests: Mapping[str, bytes], known: Mapping[bytes, Known]
    ) -> tuple[dict[bytes, tuple[PublicFinding, ...]], set[bytes]]:
        """Whole verdicts on keys of which not everything was known."""
        lacking: dict[frozenset[str], dict[bytes, str]] = {}
        for certificate_id, digest in digests.items():
            missing = known[digest].missing if digest in known else frozenset()
            if digest not in known or missing:
                lacking.setdefault(missing, {}).setdefault(digest, certificate_id)
        fresh: dict[bytes, tuple[PublicFinding, ...]] = {}
        unsure: set[bytes] = set()
        for missing, members in lacking.items():
            encodings = self._encodings(connection, members)
            found, failed = self._engine.examine(encodings, missing, self._expected)
            unsure |= failed
            for digest, findings in found.items():
                fresh[digest] = (*(known[digest].findings if digest in known else ()), *findings)
        return fresh, unsure

    def _encodings(self, connection: Connection, members: Mapping[bytes, str]) -> dict[bytes, bytes]:
        columns = self.table.c
        by_id: dict[str, bytes] = {}
        for chunk in rows_in_chunks(list(members.values())):
            query = select(columns.id, columns.der)
            query = query.where(columns.account_id == self.audit.account_id, columns.id.in_(chunk))
            by_id.update((row.id, bytes(row.der)) for row in connection.execute(query))
        # what was deleted a moment ago is unreadable, and nothing is found in it
        return {digest: by_id.get(certificate_id, b"") for digest, certificate_id in members.items()}

    def _noncompliant(self, certificate_id: str, findings: Iterable[PublicFinding], its: str) -> list[Found]:
        made: dict[str, Found] = {}
        for one in verdicts.settle(findings):
            if counts(one, self.audit.settings) and one.reason_code not in made:
                broken = one.classification is Classification.BROKEN
                made[one.reason_code] = Found(
                    self.identifier(certificate_id),
                    one.reason_code,
                    sentence(its + one.message),
                    related=_partners(one, certificate_id),
                    evidence=one.as_json(),
                    severity="" if broken else one.severity.value,
                )
        return list(made.values())


def searches_of(audit: Audit) -> tuple[Search, ...]:
    """How the account's keys are compared: with each other, and with all accounts'; none if they are not (as AWS)."""
    settings = audit.settings
    if settings.fleet_store is None or settings.profile is Profile.AWS:
        return ()
    own = Search(
        audit.database.url,
        audit.account_id,
        settings.fleet_store,
        settings.fleet_memory,
        settings.profile,
        settings.budget,
    )
    return (own, replace(own, account_id=SERVER)) if settings.fleet_across_accounts else (own,)


def counts(finding: PublicFinding, settings: AuditSettings) -> bool:
    """Whether a finding makes its certificate noncompliant."""
    if finding.classification is Classification.BROKEN:
        return finding.is_proven_broken
    return finding.classification.rank <= settings.level.rank


def _partners(finding: PublicFinding, certificate_id: str) -> list[dict[str, Any]]:
    """Other certificates of the account that a finding names, as AWS's related resources."""
    named = finding.evidence.get("partners") or [finding.evidence.get("partner")]
    related = []
    for one in named:
        if not isinstance(one, Mapping) or not one.get("sha256") or one["sha256"] == certificate_id:
            continue
        is_authority = str(one.get("source", "")).startswith(("CA ", "issuing CA "))
        related.append(
            {
                "resourceType": "CA_CERTIFICATE" if is_authority else "DEVICE_CERTIFICATE",
                "resourceIdentifier": {"caCertificateId" if is_authority else "deviceCertificateId": one["sha256"]},
            }
        )
    return related[:_NAMED]
