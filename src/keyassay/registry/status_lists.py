"""Revocation lists of the account's own authorities: signed at each revocation and on a schedule, kept for all servers.

There is a complete list, and a delta list for those who hold the complete one that it names (RFC 5280, 5.2.4): the
base, which is signed once an interval. An expired list locks out the fleet of a broker that reads it, so that lists
are good for a week; a server whose workers are gone signs when it is asked.
"""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, RowMapping, and_, delete, exists, func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.elements import ColumnElement

from keyassay.registry import issued
from keyassay.registry.errors import NotFoundError
from keyassay.registry.issuing import authority_identifier, issuer_row, point_of, public_addresses, signer_of
from keyassay.registry.lifecycle import Status
from keyassay.registry.registry import Registry
from keyassay.storage import leases, schema
from keyassay.storage.database import Actor, BusyError

_C = schema.certificates.c
_D = schema.issued_certificates.c
_I = schema.issuers.c
_S = schema.status_lists.c

COMPLETE, DELTA, BASE = "complete", "delta", "base"

#: until the next list is due; a good deal more than the interval, since an expired list locks everybody out
LASTS = timedelta(days=7)
#: lists are dated a little back: those who read them may have slow clocks
_EARLIER = timedelta(minutes=5)
#: a delta begins so long before its base: clocks of several servers differ, and transactions take their time
_OVERLAP = 600_000

Revoked = dict[int, tuple[int, "x509.ReasonFlags | None"]]


@dataclass(frozen=True, slots=True)
class StatusList:
    """A list as it is served.

    Attributes:
        number: of the list; rises with each, complete and delta alike.
        entries: certificates in it.
        der: its bytes.
        this_update, next_update: when it was made and until when it is good, milliseconds since 1970.
    """

    number: int
    entries: int
    der: bytes
    this_update: int
    next_update: int


def not_active(issued_certificate: Any = _D) -> ColumnElement[bool]:
    """The condition that an issued certificate is not ACTIVE where it counts: in its account, or where it was
    transferred to (a stranger may register any certificate as SNI_ONLY)."""  # noqa: D205, D209
    there = and_(
        _C.id == issued_certificate.certificate_id,
        _C.status == Status.ACTIVE.value,
        or_(_C.mode == "DEFAULT", _C.account_id == issued_certificate.account_id),
    )
    return ~exists().where(there)


def stored(connection: Connection, account_id: str, issuer_id: str, kind: str = COMPLETE) -> StatusList | None:
    """A list as it was signed last; None before the first."""
    here = (_S.account_id == account_id) & (_S.issuer_id == issuer_id) & (_S.kind == kind)
    row = connection.execute(select(schema.status_lists).where(here)).mappings().first()
    if row is None:
        return None
    return StatusList(row["number"], row["entries"], bytes(row["der"]), row["this_update"], row["next_update"])


def number_of(connection: Connection, account_id: str, issuer_id: str, kind: str = COMPLETE) -> tuple[int, int] | None:
    """(number, when it was made in milliseconds since 1970) of the present list; None before the first."""
    here = (_S.account_id == account_id) & (_S.issuer_id == issuer_id) & (_S.kind == kind)
    row = connection.execute(select(_S.number, _S.this_update).where(here)).first()
    return None if row is None else (row.number, row.this_update)


def sign(registry: Registry, account_id: str, issuer_id: str, *, new_base: bool = False) -> StatusList:
    """Sign the lists of an authority as things are now, and keep them.

    A complete list of 100,000 certificates takes about a second, nearly all of it outside the transaction.

    Args:
        registry: where.
        account_id: whose authority.
        issuer_id: which.
        new_base: the complete list becomes the one that later deltas begin with.

    Returns:
        The complete list: this one, or the one that somebody else kept meanwhile.

    Raises:
        NotFoundError: there is no such authority, or its key is not here.
        SigningUnavailableError: its key is in a token that cannot be used.
    """
    with registry.database.read() as connection:
        row = issuer_row(connection, account_id, issuer_id)
        if row is None or row["sealed_key"] is None:
            raise NotFoundError("there is no such authority")
        before = number_of(connection, account_id, issuer_id)
        base = None if new_base else stored(connection, account_id, issuer_id, BASE)
        if base is not None and registry.hold_inactive and not base.der:  # from before the setting
            base = None
        now = time.time_ns() // 1_000_000
        number = max(now, before[0] + 1 if before else 0)  # the clock: it goes on after an older back-up came back
        revoked = _revoked(connection, row["id"], account_id)
        if registry.hold_inactive:
            revoked.update(_held(connection, issuer_id, account_id, now))
    pen = _Pen(registry, row, now, number)
    complete = pen.complete(revoked)
    rows = {COMPLETE: complete}
    if base is None:
        base = complete if registry.hold_inactive else StatusList(number, len(revoked), b"", now, complete.next_update)
        rows[BASE] = base
    rows[DELTA] = pen.delta(_since(base, revoked), base.number)
    with registry.database.write(Actor(account_id, "worker:status-lists")) as transaction:
        present = number_of(transaction.connection, account_id, issuer_id)
        if present is not None and (before is None or present[0] != before[0]):
            other = stored(transaction.connection, account_id, issuer_id)
            assert other is not None
            return other
        here = (_S.account_id == account_id) & (_S.issuer_id == issuer_id)
        transaction.execute(delete(schema.status_lists).where(here, _S.kind.in_(rows)))
        for kind, made in rows.items():
            transaction.execute(
                schema.status_lists.insert().values(
                    account_id=account_id, issuer_id=issuer_id, kind=kind, number=made.number, entries=made.entries,
                    der=made.der, this_update=made.this_update, next_update=made.next_update,
                )
            )  # fmt: skip
    return complete


def _revoked(connection: Connection, issuer_id: str, account_id: str) -> Revoked:
    mine = (_D.account_id == account_id) & (_D.issuer_id == issuer_id)
    rows = connection.execute(select(_D.serial, _D.revoked_at).where(mine, _D.revoked_at.is_not(None)))
    return {int(row.serial, 16): (row.revoked_at, None) for row in rows}


def _held(connection: Connection, issuer_id: str, account_id: str, now: int) -> Revoked:
    """What was issued and is neither revoked nor active, with the time of its last change where that is known."""
    mine = (_D.account_id == account_id) & (_D.issuer_id == issuer_id) & _D.revoked_at.is_(None)
    latest = select(func.max(_C.modified_at)).where(_C.id == _D.certificate_id).scalar_subquery()
    rows = connection.execute(select(_D.serial, latest).where(mine, not_active()))
    return {int(serial, 16): (at or now, x509.ReasonFlags.certificate_hold) for serial, at in rows}


def _since(base: StatusList, revoked: Revoked) -> Revoked:
    """What a delta says: what was revoked since the base, or about that time, and what was put on hold or released."""
    begun = base.this_update - _OVERLAP
    if not base.der:
        return {serial: entry for serial, entry in revoked.items() if entry[0] >= begun}
    held_then = {
        one.serial_number: one.revocation_date_utc
        for one in x509.load_der_x509_crl(base.der)
        if any(isinstance(extension.value, x509.CRLReason) for extension in one.extensions)
    }
    changed: Revoked = {
        serial: entry
        for serial, entry in revoked.items()
        if (entry[0] >= begun if entry[1] is None else serial not in held_then)
        or (entry[1] is None and serial in held_then)
    }
    for serial, at in held_then.items():
        if serial not in revoked:
            changed[serial] = (round(at.timestamp() * 1000), x509.ReasonFlags.remove_from_crl)
    return changed


@dataclass
class _Pen:
    """Signs the lists of one authority."""

    registry: Registry
    row: RowMapping
    now: int
    number: int
    key: Any = field(init=False, repr=False)
    authority: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        self.key = signer_of(self.registry, self.row)
        self.authority = x509.load_der_x509_certificate(bytes(self.row["der"]))

    def complete(self, revoked: Revoked) -> StatusList:
        extensions: list[tuple[x509.ExtensionType, bool]] = []
        if self.registry.public_url:
            addresses = public_addresses(self.registry, self.row["account_id"], self.row["id"])
            extensions.append((x509.FreshestCRL([point_of(addresses.delta)]), False))
        return self._sign(revoked, extensions)

    def delta(self, changed: Revoked, base: int) -> StatusList:
        return self._sign(changed, [(x509.DeltaCRLIndicator(base), True)])

    def _sign(self, revoked: Revoked, extensions: Iterable[tuple[x509.ExtensionType, bool]]) -> StatusList:
        made = datetime.fromtimestamp(self.now // 1000, UTC)
        entries = [_entry(serial, *entry) for serial, entry in sorted(revoked.items())]
        # adding them one by one would copy the list each time
        builder = x509.CertificateRevocationListBuilder(
            self.authority.subject, max(made - _EARLIER, self.authority.not_valid_before_utc), made + LASTS, [], entries
        )
        builder = builder.add_extension(authority_identifier(self.authority), critical=False)
        builder = builder.add_extension(x509.CRLNumber(self.number), critical=False)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        der = builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)
        return StatusList(self.number, len(entries), der, self.now, round((made + LASTS).timestamp() * 1000))


def _entry(serial: int, at: int, reason: x509.ReasonFlags | None) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(datetime.fromtimestamp(at // 1000, UTC))
    )
    if reason is not None:
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    return builder.build()


def is_changed(connection: Connection, registry: Registry, account_id: str, issuer_id: str, entries: int) -> bool:
    """Whether the complete list no longer says what is so.

    Args:
        connection: of a read.
        registry: where.
        account_id: whose authority.
        issuer_id: which.
        entries: of the present complete list.
    """
    mine = (_D.account_id == account_id) & (_D.issuer_id == issuer_id)
    count = select(func.count()).select_from(schema.issued_certificates)
    revoked = connection.execute(count.where(mine, _D.revoked_at.is_not(None))).scalar_one()
    if not registry.hold_inactive:  # what is revoked stays so: it is enough to count
        return bool(revoked != entries)
    present = stored(connection, account_id, issuer_id)
    if present is None:
        return True
    said = {
        one.serial_number: any(isinstance(extension.value, x509.CRLReason) for extension in one.extensions)
        for one in x509.load_der_x509_crl(present.der)
    }
    now = dict.fromkeys(_revoked(connection, issuer_id, account_id), False)
    now.update(dict.fromkeys(_held(connection, issuer_id, account_id, 0), True))
    return said != now


class Signer:
    """The worker that keeps lists as they should be; one over all processes of a database has the lease.

    Args:
        registry: where.
        interval: seconds between two lists without a revocation.
        log: where it says what happens.
    """

    name = "status lists"
    #: seconds between two looks at whether anything changed
    LOOK = 0.1
    #: seconds that the lease is good for, and between two tries to get it
    LEASE, TRY = 15.0, 3.0
    #: how much longer a pause is than the work before it
    REST = 5.0

    def __init__(self, registry: Registry, interval: float, log: Any) -> None:
        self._registry = registry
        self._interval = round(interval * 1000)
        self._log = log
        self._revision = -1
        #: issuer -> when it may be looked at again, by the monotonic clock
        self._rests: dict[tuple[str, str], float] = {}
        self._later = False
        self._looked = self._followed = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop."""
        holder = f"{socket.gethostname()[:60]}:{uuid.uuid4().hex[:8]}"
        while not stop.is_set():
            try:
                lease = leases.take(self._registry.database, "status-lists", holder, self.LEASE)
                if lease is None:
                    stop.wait(self.TRY)
                    continue
                try:
                    self._work(stop, lease)
                finally:
                    leases.release(self._registry.database, lease)
            except BusyError:
                continue
            except SQLAlchemyError as error:  # the database is away: go on when it is back
                self._log.warning("revocation lists are not signed", reason=type(error).__name__)
                stop.wait(self.TRY)

    def _work(self, stop: threading.Event, lease: leases.Lease) -> None:
        renewed = time.monotonic()
        while not stop.is_set():
            if time.monotonic() - renewed > self.LEASE / 3:
                if not leases.renew(self._registry.database, lease, self.LEASE):
                    return
                renewed = time.monotonic()
            self.look()
            stop.wait(self.LOOK)

    def look(self) -> None:
        """Sign what has to be signed now."""
        now = time.monotonic()
        with self._registry.database.read() as connection:
            revision = connection.execute(select(schema.server.c.revision)).scalar_one()
        if revision == self._revision and not self._later and now - self._looked < 5.0:
            return
        self._looked, self._later, self._revision = now, False, revision
        with self._registry.database.read() as connection:
            rows = connection.execute(select(_I.account_id, _I.id).where(_I.sealed_key.is_not(None))).all()
        if now - self._followed > 1.0:
            self._followed = now
            for account_id in sorted({row.account_id for row in rows}):
                self._later = issued.follow(self._registry, account_id) or self._later
        else:
            self._later = True
        for row in rows:
            self._one(row.account_id, row.id)

    def _one(self, account_id: str, issuer_id: str) -> None:
        began = time.monotonic()
        if self._rests.get((account_id, issuer_id), 0.0) > began:
            self._later = True
            return
        with self._registry.database.read() as connection:
            here = (_S.account_id == account_id) & (_S.issuer_id == issuer_id)
            query = select(_S.kind, _S.this_update, _S.entries).where(here, _S.kind != DELTA)
            present = {row.kind: row for row in connection.execute(query)}
            base = present.get(BASE)
            is_old = base is None or base.this_update + self._interval <= time.time() * 1000
            due = is_old or is_changed(connection, self._registry, account_id, issuer_id, present[COMPLETE].entries)
        if due:
            try:
                made = sign(self._registry, account_id, issuer_id, new_base=is_old)
            except Exception as error:  # noqa: BLE001  one authority must not keep the others' lists from being signed
                self._log.error(
                    "a revocation list is not signed", account=account_id, issuer=issuer_id, reason=repr(error)[:200]
                )
                self._rests[account_id, issuer_id] = time.monotonic() + 30.0
                return
            self._log.info("revocation list signed", account=account_id, issuer=issuer_id, entries=made.entries)
        ended = time.monotonic()
        self._rests[account_id, issuer_id] = ended + self.REST * (ended - began)
