"""What the checks of single keys say of a key, kept: by key, by the checks' versions, the profile and the lists.

Screening at registration and audits share it. A verdict is a list of findings as anyone may see them, before
``settle``; nearly all are empty. It belongs to the key and not to an account, since it says nothing of who has the key.

A check that is new or stronger is missing from an older verdict: ``cached`` names it, and only it has to run again. If
a larger profile is asked for, or the lists of weak keys changed, everything is missing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, literal, null, select, true
from sqlalchemy.dialects import postgresql, sqlite

from keyassay.checks import Check
from keyassay.checks import catalogue as all_checks
from keyassay.findings import Classification, Confidence, Finding, Profile, Severity
from keyassay.lists import keypair, lookup
from keyassay.output.values import evidence_fields
from keyassay.storage import schema
from keyassay.storage.database import Transaction, rows_in_chunks

_V = schema.key_verdicts.c

#: where a list says which stream of Debian's generator a key is of, in messages and in evidence
_STREAM = re.compile(r": arch=\S+(?: \w+=\S+)*(?: gives the \w+ key)?")
_SEEDS = frozenset({"pid"})

# made once: to build a statement takes longer than to execute it
_KNOWN = select(schema.key_verdicts).where(_V.spki_digest.in_(bindparam("digests", expanding=True)))
_NEW = {
    name: insert(schema.key_verdicts).on_conflict_do_nothing()
    for name, insert in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
}


@dataclass(frozen=True, slots=True)
class PublicFinding:
    """A finding without secrets, as the database keeps it.

    Attributes:
        evidence: JSON values; never p, q, d, nonces or seeds.
    """

    check: str
    version: int
    classification: Classification
    severity: Severity
    confidence: Confidence
    reason_code: str
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rank(self) -> tuple[int, int, str]:
        """Sort key: worst first."""
        return (self.classification.rank, self.severity.rank, self.check)

    @property
    def is_proven_broken(self) -> bool:
        """What makes a certificate noncompliant, and what screening refuses."""
        return self.classification is Classification.BROKEN and self.confidence is not Confidence.LIKELY

    def as_json(self) -> dict[str, Any]:
        """JSON types, for ``from_json``."""
        return {
            "check": self.check,
            "version": self.version,
            "class": self.classification.value,
            "severity": self.severity.value,
            "confidence": self.confidence.value,
            "reason_code": self.reason_code,
            "message": self.message,
            "evidence": dict(self.evidence),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> PublicFinding:
        """What ``as_json`` wrote."""
        return cls(
            row["check"],
            row["version"],
            Classification(row["class"]),
            Severity(row["severity"]),
            Confidence(row["confidence"]),
            row["reason_code"],
            row["message"],
            row["evidence"],
        )


def public(finding: Finding) -> PublicFinding:
    """What anyone may know of a finding: not where Debian's generator began, which is the private key in short."""
    return PublicFinding(
        finding.check,
        finding.version,
        finding.classification,
        finding.severity,
        finding.confidence,
        finding.reason_code,
        _STREAM.sub("", finding.message),
        {name: value for name, value in evidence_fields(finding, reveal=False).items() if name not in _SEEDS},
    )


def settle(findings: Iterable[PublicFinding]) -> tuple[PublicFinding, ...]:
    """Worst first, without those that another finding on the same key explains: ``bulk.scan.settle`` for these."""
    kept = list(findings)
    if len(kept) > 1:
        explained_by = {one.id: one.metadata.explained_by for one in all_checks()}
        present = {one.check for one in kept}
        kept = [one for one in kept if not present.intersection(set(explained_by.get(one.check, ())) - {one.check})]
        kept.sort(key=lambda one: one.rank)
    return tuple(kept)


@dataclass(frozen=True)
class Catalogue:
    """The checks of single keys that a verdict comes from, and what they had.

    Attributes:
        profile: the label of the profile in which they ran.
        versions: by check id.
        lists: entries of each list of weak keys at hand.
    """

    profile: str
    versions: Mapping[str, int]
    lists: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, checks: Iterable[Check[Any]], profile: Profile) -> Catalogue:
        """The catalogue of a plan: its ``key_checks`` count, others say nothing of single keys."""
        versions = {one.id: one.metadata.version for one in checks if one.shape == "key"}
        lists = {one.name: one.entries for one in lookup.available()}
        for place in sorted(keypair.lists_folder().glob("keypair-*")):
            lists[place.name] = place.stat().st_size
        return cls(profile.label, versions, lists)

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits that name it."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """As the table of catalogues keeps it."""
        return {"profile": self.profile, "checks": dict(self.versions), "lists": dict(self.lists)}

    def missing_from(self, earlier: Catalogue) -> frozenset[str]:
        """The checks of this catalogue that have to run where there is a verdict by an earlier one."""
        mine, theirs = Profile[self.profile.upper()], Profile[earlier.profile.upper()]
        if self.lists != earlier.lists or mine > theirs:
            return frozenset(self.versions)
        return frozenset(name for name, version in self.versions.items() if earlier.versions.get(name) != version)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a key.

    Attributes:
        findings: of the catalogue's checks that need not run again, before ``settle``.
        missing: ids of the catalogue's checks that have to run; empty if the verdict is complete.
    """

    findings: tuple[PublicFinding, ...]
    missing: frozenset[str]


def cached(connection: Connection, digests: Iterable[bytes], catalogue: Catalogue) -> dict[bytes, Known]:
    """What is known of keys.

    Args:
        connection: of a read or a transaction.
        digests: SHA-256 of subject public key infos.
        catalogue: the checks that are wanted.

    Returns:
        By digest, those that anything is known of.
    """
    found: dict[bytes, Known] = {}
    missing: dict[str, frozenset[str]] = {catalogue.digest: frozenset()}
    for chunk in rows_in_chunks(list(dict.fromkeys(digests))):
        for row in connection.execute(_KNOWN, {"digests": chunk}):
            if row.catalogue not in missing:
                missing[row.catalogue] = _missing(connection, row.catalogue, catalogue)
            lacking = missing[row.catalogue]
            if len(lacking) == len(catalogue.versions) and lacking:
                continue
            findings = tuple(PublicFinding.from_json(one) for one in row.findings or ())
            valid = tuple(one for one in findings if one.check in catalogue.versions and one.check not in lacking)
            found[bytes(row.spki_digest)] = Known(valid, lacking)
    return found


def complete(connection: Connection, catalogue: Catalogue) -> tuple[str, ...]:
    """Digests of the catalogues whose verdicts lack nothing that this one wants, its own first."""
    there = connection.execute(select(schema.catalogues.c.digest)).scalars().all()
    others = [one for one in sorted(there) if one != catalogue.digest and not _missing(connection, one, catalogue)]
    return (catalogue.digest, *others)


def is_settled(digest: ColumnElement[bytes], catalogues: Sequence[str]) -> ColumnElement[bool]:
    """Whether there is nothing to do and nothing to say about a key, as SQL.

    Args:
        digest: column of SHA-256 of subject public key infos.
        catalogues: from ``complete``.

    Returns:
        True where the key's verdict is by one of the catalogues and holds no finding. A subquery, not a join:
        PostgreSQL would read all verdicts for each page, to join them by hash.
    """
    there = select(literal(1)).where(_V.spki_digest == digest, _V.catalogue.in_(catalogues), _V.findings.is_(null()))
    return there.scalar_subquery().is_not(None)


#: catalogues by their digests, which stand for the same in every database
_met: dict[str, Catalogue] = {}


def _read(connection: Connection, digest: str) -> Catalogue | None:
    if digest not in _met:
        query = select(schema.catalogues.c.versions).where(schema.catalogues.c.digest == digest)
        row = connection.execute(query).scalar()
        if row is None:
            return None
        _met[digest] = Catalogue(row["profile"], row["checks"], row["lists"])
    return _met[digest]


def _missing(connection: Connection, digest: str, wanted: Catalogue) -> frozenset[str]:
    earlier = _read(connection, digest)
    return frozenset(wanted.versions) if earlier is None else wanted.missing_from(earlier)


def declare(transaction: Transaction, catalogue: Catalogue) -> None:
    """Enter a catalogue, for ``store_new``."""
    insert: Any = sqlite.insert if transaction.connection.dialect.name == "sqlite" else postgresql.insert
    row = {"digest": catalogue.digest, "versions": catalogue.as_json()}
    transaction.execute(insert(schema.catalogues).values(row).on_conflict_do_nothing())


def store_new(transaction: Transaction, catalogue: Catalogue, digest: bytes, findings: Sequence[PublicFinding]) -> None:
    """Keep a verdict on a key of which nothing is known; one that is there stays, whatever it says.

    Args:
        transaction: that records what follows from it.
        catalogue: whose checks have all run; it was declared.
        digest: SHA-256 of the subject public key info.
        findings: before ``settle``.
    """
    row = {
        "spki_digest": digest,
        "catalogue": catalogue.digest,
        "findings": [one.as_json() for one in findings] or None,
    }
    transaction.execute(_NEW[transaction.connection.dialect.name], row)


def store(transaction: Transaction, catalogue: Catalogue, verdicts: Mapping[bytes, Sequence[PublicFinding]]) -> None:
    """Keep what all checks of a catalogue say of keys; a verdict that says more already stays.

    Args:
        transaction: that records what follows from the verdicts.
        catalogue: whose checks have all run on the keys (or were known to need no run).
        verdicts: by SHA-256 of subject public key infos: all findings, before ``settle``.
    """
    if not verdicts:
        return
    insert: Any = sqlite.insert if transaction.connection.dialect.name == "sqlite" else postgresql.insert
    declare(transaction, catalogue)
    richer = complete(transaction.connection, catalogue)[1:]
    statement = insert(schema.key_verdicts)
    statement = statement.on_conflict_do_update(
        index_elements=["spki_digest"],
        set_={"catalogue": statement.excluded.catalogue, "findings": statement.excluded.findings},
        where=and_(true(), *(_V.catalogue != one for one in richer)),
    )
    rows = [
        {
            "spki_digest": digest,
            "catalogue": catalogue.digest,
            "findings": [one.as_json() for one in findings] or None,
        }
        for digest, findings in sorted(verdicts.items())  # one order for all writers: nobody waits in a circle
    ]
    for chunk in rows_in_chunks(rows):
        transaction.execute(statement, list(chunk))
