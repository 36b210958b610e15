"""Screening: the keys of certificates are looked at while they are being registered, or accepted from another account.

What costs milliseconds happens before the transaction: the checks of single keys of profile fast that can find a key
broken, or what the cache of verdicts knows. Inside it: whether an audit has broken the key, and whether the account has
it already, under another subject, which indexes tell. (A key that is kept at a renewal, with the same subject, is not
reported.)

``report``: the certificate is registered, and its findings are in the day's task ``screening-YYYYMMDD`` at once.
``refuse``: it is not registered. Shared primes take a whole fleet: the search for them follows in batches.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from random import Random
from typing import Any

from cryptography import x509
from sqlalchemy import bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from keyassay.audit.checks import AUDIT_CHECKS, resource_key
from keyassay.audit.suppressions import suppressed_keys
from keyassay.audit.tasks import RunStatus, TaskStatus, TaskType
from keyassay.audit.verdicts import Catalogue, PublicFinding, cached, declare, public, settle, store_new
from keyassay.bulk.results import Settings
from keyassay.bulk.scan import Plan, assess_items
from keyassay.certificates.der import SEQUENCE, DerError, expect
from keyassay.certificates.item import Item, Kind
from keyassay.certificates.public_key import EcPublicKey, PublicKey, RsaPublicKey
from keyassay.certificates.spki import parse
from keyassay.checks import check
from keyassay.findings import Classification, Confidence, Profile
from keyassay.keymath.curves import named_curve
from keyassay.output.description import sentence
from keyassay.registry.activation import broken_by
from keyassay.registry.errors import BrokenKeyError
from keyassay.storage import schema
from keyassay.storage.database import Actor, Database, Transaction

CHECK = "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK"
REPEATED_KEY = "fleet-repeated-key"
#: other certificates with the key that a finding names
NAMED = 5
#: more keys than this at once make tables worth while, which single keys then use
_FEW = 64

_C = schema.certificates.c
# made once: to build a statement takes longer than to execute it
_HOLDERS = (
    select(_C.id, _C.der)
    .where(
        _C.account_id == bindparam("account"),
        _C.spki_digest == bindparam("digest"),
        _C.id != bindparam("certificate"),
        _C.id > bindparam("after"),
    )
    .order_by(_C.id)
    .limit(50)
)


@dataclass(frozen=True, slots=True)
class Examined:
    """What is wrong with a key.

    Attributes:
        digest: SHA-256 of its subject public key info.
        findings: before ``settle``.
        new: the verdict is complete and not in the cache yet.
    """

    digest: bytes
    findings: tuple[PublicFinding, ...]
    new: bool


class Screen:
    """Screening for ``Registry.screening``; threads may share it.

    Args:
        database: where verdicts are.
        refuse: refuse certificates instead of reporting them.
    """

    def __init__(self, database: Database, *, refuse: bool) -> None:
        self._database = database
        self._refuse = refuse
        self._preparing = threading.Lock()

    @cached_property
    def _prepared(self) -> tuple[Plan, Catalogue]:
        """The checks and what names them; the first key waits for it, a second or so."""
        plan = Plan.of(Settings(profile=Profile.FAST, fleet=False), expected=1)
        checks = tuple(one for one in plan.key_checks if one.metadata.classification is Classification.BROKEN)
        plan = replace(plan, key_checks=checks, certificate_checks=(), fleet_checks=())
        random = Random(0)  # noqa: S311  not even keys
        moduli = [random.getrandbits(2_048) | 1 << 2_047 | 1 for _ in range(_FEW)]
        p256 = named_curve("P-256")
        assert p256 is not None
        x, y = (int(coordinate).to_bytes(32, "big") for coordinate in p256.base)
        keys: list[PublicKey] = [RsaPublicKey(modulus, 65_537) for modulus in moduli]
        _assess([*keys, EcPublicKey("P-256", b"\x04" + x + y)], plan)
        catalogue = Catalogue.of(checks, Profile.FAST)
        with self._database.write(Actor("", "server:screening")) as transaction:
            declare(transaction, catalogue)
        return plan, catalogue

    def prepare(self) -> None:
        """Load checks, lists and tables, so that the first registration need not wait for it."""
        with self._preparing:
            _ = self._prepared

    def examine(self, spki: bytes) -> Examined:
        """What is wrong with a key: what is known, or else what the checks say."""
        self.prepare()
        plan, catalogue = self._prepared
        digest = hashlib.sha256(spki).digest()
        with self._database.read() as connection:
            known = cached(connection, [digest], catalogue).get(digest)
        if known is not None and not known.missing:
            return Examined(digest, known.findings, new=False)
        try:
            start, end = expect(spki, 0, len(spki), SEQUENCE, "public key")
            key = parse(spki, start, end, [])
        except DerError:
            return Examined(digest, (), new=False)
        (result,) = _assess([key], plan)
        return Examined(digest, tuple(map(public, result.findings)), new=not result.not_run)

    def record(self, transaction: Transaction, certificate_id: str, subject: bytes, examined: Examined) -> None:
        """Keep the verdict; report what was found, or refuse the certificate for it.

        What audits have found out about the key counts as well: by itself or beside other keys.

        Raises:
            BrokenKeyError: it is refused.
        """
        told = broken_by(transaction.connection, transaction.account_id, examined.digest)
        of_check = {one["check"]: PublicFinding.from_json(one) for one in told}
        of_check.update((one.check, one) for one in examined.findings)
        findings = [one for one in settle(of_check.values()) if one.is_proven_broken]
        findings += _repeated(transaction, certificate_id, subject, examined.digest)
        if findings and self._refuse:
            raise BrokenKeyError(f"the certificate's key is refused: {findings[0].message}")
        self.keep(transaction, examined)
        if findings:
            report(transaction, certificate_id, findings)

    def keep(self, transaction: Transaction, examined: Examined) -> None:
        """Keep the verdict on a key, if it is new."""
        if examined.new:
            store_new(transaction, self._prepared[1], examined.digest, examined.findings)


def _assess(keys: Sequence[PublicKey], plan: Plan) -> list[Any]:
    return assess_items([Item("", number, 0, Kind.PUBLIC_KEY, key=key) for number, key in enumerate(keys)], plan)


def _repeated(transaction: Transaction, certificate_id: str, subject: bytes, digest: bytes) -> Iterator[PublicFinding]:
    """The finding that the account has the key under another subject; none if it has not."""
    values = {"account": transaction.account_id, "digest": digest, "certificate": certificate_id}
    named: list[str] = []
    after = ""
    while len(named) < NAMED:  # an image with a key in it shows at once; only long rows of renewals are read on
        rows = transaction.execute(_HOLDERS, {**values, "after": after}).all()
        named += [row.id for row in rows if _subject(bytes(row.der)) != subject]
        if len(rows) < 50:
            break
        after = rows[-1].id
    if not named:
        return
    others = (_C.account_id == transaction.account_id) & (_C.spki_digest == digest) & (_C.id != certificate_id)
    count = transaction.execute(select(func.count()).where(others)).scalar_one()
    more = f" and {count - 1:,} more" if count > 1 else ""
    meta = check(REPEATED_KEY).metadata
    yield PublicFinding(
        meta.id,
        meta.version,
        Classification.WEAK,
        meta.severity,
        Confidence.PROVEN,
        meta.reason_code,
        f"its key is also in certificate {named[0]}{more}, under another subject: whoever has one of the devices has "
        "the private key of all",
        {
            "spki_sha256": digest.hex(),
            "others": count,
            "partners": [{"sha256": one} for one in named[:NAMED]],
            "verified": True,
        },
    )


def _subject(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).subject.public_bytes()


def report(transaction: Transaction, certificate_id: str, findings: Sequence[PublicFinding]) -> None:
    """Enter findings on a certificate in the day's screening task; one for each reason code, the same again is none.

    Args:
        transaction: of the account.
        certificate_id: that they are about.
        findings: worst first.
    """
    insert: Any = sqlite.insert if transaction.connection.dialect.name == "sqlite" else postgresql.insert
    account_id, now = transaction.account_id, transaction.now
    task_id, started_at = _task(transaction, insert)
    identifier = {"deviceCertificateId": certificate_id}
    key = resource_key(identifier)
    suppressed = key in suppressed_keys(transaction.connection, account_id, CHECK, now)
    audit_check = AUDIT_CHECKS[CHECK]
    entered = []
    for finding in findings:
        row = {
            "account_id": account_id,
            "id": str(uuid.uuid4()),
            "task_id": task_id,
            "check_name": CHECK,
            "task_started_at": started_at,
            "found_at": now,
            "severity": audit_check.severity.value,
            "resource_type": audit_check.resource_type,
            "resource_key": key,
            "resource": {"resourceType": audit_check.resource_type, "resourceIdentifier": identifier},
            "reason_code": finding.reason_code,
            "reason": sentence(finding.message),
            "suppressed": suppressed,
            "evidence": finding.as_json(),
        }
        statement = insert(schema.audit_findings).values(row).on_conflict_do_nothing()
        if transaction.execute(statement.returning(schema.audit_findings.c.id)).first() is None:
            continue  # the certificate was deleted and registered again on the same day
        entered.append(finding.reason_code)
        related = [
            {
                "account_id": account_id,
                "finding_id": row["id"],
                "number": number,
                "resource": {
                    "resourceType": audit_check.resource_type,
                    "resourceIdentifier": {"deviceCertificateId": partner["sha256"]},
                },
            }
            for number, partner in enumerate(finding.evidence.get("partners", ()))
            if finding.check == REPEATED_KEY
        ]
        if related:
            transaction.execute(schema.audit_related.insert(), related)
    if not entered:
        return
    counts = schema.audit_task_checks.c
    noncompliant = counts.noncompliant + (0 if suppressed else 1)
    counted = update(schema.audit_task_checks).where(
        counts.account_id == account_id, counts.task_id == task_id, counts.check_name == CHECK
    )
    values: dict[str, Any] = {
        "total": counts.total + 1,
        "noncompliant": noncompliant,
        "suppressed": counts.suppressed + (len(entered) if suppressed else 0),
    }
    if not suppressed:
        values["status"] = RunStatus.NON_COMPLIANT.value
    transaction.execute(counted.values(values))
    transaction.record("ScreenCertificate", "certificate", certificate_id, {"task": task_id, "reasonCodes": entered})


def _task(transaction: Transaction, insert: Any) -> tuple[str, int]:
    """The day's task of the account, made if it is not there: its id and when it began."""
    columns = schema.audit_tasks.c
    task_id = f"screening-{datetime.fromtimestamp(transaction.now / 1000, UTC):%Y%m%d}"
    here = (columns.account_id == transaction.account_id) & (columns.id == task_id)
    # it is never in progress, since workers take up what is: it is complete after each registration
    started_at = transaction.execute(
        update(schema.audit_tasks).where(here).values(ended_at=transaction.now).returning(columns.started_at)
    ).scalar()
    if started_at is not None:
        return task_id, started_at
    task = {
        "account_id": transaction.account_id,
        "id": task_id,
        "type": TaskType.ON_DEMAND.value,
        "status": TaskStatus.COMPLETED.value,
        "cancel": False,
        "started_at": transaction.now,
        "ended_at": transaction.now,
    }
    transaction.execute(insert(schema.audit_tasks).values(task))
    counted = {
        "account_id": transaction.account_id,
        "task_id": task_id,
        "check_name": CHECK,
        "status": RunStatus.COMPLIANT.value,
        "total": 0,
        "noncompliant": 0,
        "suppressed": 0,
    }
    transaction.execute(insert(schema.audit_task_checks).values(counted))
    return task_id, transaction.now
