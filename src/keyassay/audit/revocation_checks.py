"""Checks of active certificates against their issuers' revocation lists (table ``revocation_lists``).

A list counts for a certificate if the names agree and, where the account has registered authorities of that name, one
of their keys signed it. Indirect lists, which speak of other issuers' certificates, are passed over. An old list still
counts: what was revoked stays revoked.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from sqlalchemy import Connection, Row, select, union

from keyassay.audit.examining import DEVICE_STATUSES, Audit, Batch, Certificates, Examiner, Found
from keyassay.registry.admission import Admitted, is_signed_by, read_der
from keyassay.storage import schema

_A = schema.authorities.c
_C = schema.certificates.c
_D = schema.issued_certificates.c
_I = schema.issuers.c
_L = schema.revocation_lists.c

#: issuers whose lists are kept in memory
_KEPT = 16
#: active certificates that the finding of a revoked authority names
_RELATED = 250


@dataclass(frozen=True, slots=True)
class _List:
    """A revocation list as a set of serial numbers, and the ids of the registered authorities that signed it."""

    serials: frozenset[int]
    signers: frozenset[str]


class _Lists:
    """The account's revocation lists by issuer, a few in memory."""

    def __init__(self, account_id: str) -> None:
        self._account_id = account_id
        self._kept: OrderedDict[bytes, list[_List]] = OrderedDict()

    def of(self, connection: Connection, issuer: bytes) -> list[_List]:
        """Those of an issuer, by the DER of its name."""
        digest = hashlib.sha256(issuer).digest()
        if digest not in self._kept:
            self._kept[digest] = list(self._read(connection, digest))
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(digest)
        return self._kept[digest]

    def _read(self, connection: Connection, digest: bytes) -> Iterator[_List]:
        query = select(_L.der).where(_L.account_id == self._account_id, _L.issuer_digest == digest)
        rows = connection.execute(query.order_by(_L.source)).all()
        if not rows:
            return
        named = select(_A.id, _A.der).where(_A.account_id == self._account_id, _A.subject_digest == digest)
        authorities = {row.id: read_der(bytes(row.der)) for row in connection.execute(named)}
        for row in rows:
            read = _read_list(bytes(row.der), authorities)
            if read is not None:
                yield read

    def revoked(self, connection: Connection, certificate: Admitted, authority_id: str | None) -> bool:
        """Whether a list of its issuer names a certificate.

        Args:
            connection: of a read.
            certificate: which.
            authority_id: the registered authority that signed it, if that is known.
        """
        serial = certificate.certificate.serial_number
        return any(
            serial in one.serials and (authority_id is None or not one.signers or authority_id in one.signers)
            for one in self.of(connection, certificate.issuer)
        )


def _read_list(der: bytes, authorities: dict[str, Admitted]) -> _List | None:
    """None if it is unreadable, indirect, or signed by none of the registered authorities of that name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read = x509.load_der_x509_crl(der)
            with suppress(x509.ExtensionNotFound):
                point = read.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
                if point.indirect_crl:
                    return None
            signers = frozenset(name for name, one in authorities.items() if _signed(read, one))
            if authorities and not signers:
                return None
            return _List(frozenset(one.serial_number for one in read), signers)
    except (ValueError, UnsupportedAlgorithm):
        return None


def _signed(read: x509.CertificateRevocationList, authority: Admitted) -> bool:
    try:
        return read.is_signature_valid(authority.certificate.public_key())  # type: ignore[arg-type]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


class Revoked(Certificates):
    """Device certificates, or authorities, that are active although their issuer revoked them."""

    def __init__(self, audit: Audit, table: Any = schema.certificates) -> None:
        super().__init__(audit, table)
        self.columns = ("der", "ca_certificate_id") if table is schema.certificates else ("der",)
        self._lists = _Lists(audit.account_id)

    def examine(self, connection: Connection, rows: Sequence[Row[Any]], after: str | None) -> Batch:
        any_list = select(_L.issuer_digest).where(_L.account_id == self.audit.account_id).limit(1)
        found: list[Found] = []
        if connection.execute(any_list).first() is not None:
            for row in rows:
                authority_id = row.ca_certificate_id if self.table is schema.certificates else None
                if self._lists.revoked(connection, read_der(bytes(row.der)), authority_id):
                    found.append(self.found(connection, row.id, "CERTIFICATE_REVOKED_BY_ISSUER"))
        return Batch(len(rows), found, after)


class RevokedIntermediate(Examiner):
    """Authorities that their issuer revoked, below which device certificates are active.

    They are the registered ones and, with ``own_authorities``, those by which the account issues or has issued.
    """

    def __init__(self, audit: Audit) -> None:
        super().__init__(audit)
        self._lists = _Lists(audit.account_id)

    def total(self, connection: Connection) -> int:
        return len(self._authorities(connection))

    def _authorities(self, connection: Connection) -> dict[str, Admitted]:
        """The account's authorities that others signed, by id; they are few."""
        mine = self.audit.account_id
        queries = [select(_A.id, _A.der).where(_A.account_id == mine)]
        if self.audit.settings.own_authorities:
            queries.append(select(_I.id, _I.der).where(_I.account_id == mine))
        rows = connection.execute(union(*queries).order_by("id"))
        read = {row.id: read_der(bytes(row.der)) for row in rows}
        return {name: one for name, one in read.items() if one.issuer != one.subject}

    def batch(self, connection: Connection, after: str) -> Batch:  # noqa: ARG002  they are few
        authorities = self._authorities(connection)
        found = []
        for name, one in authorities.items():
            if self._lists.revoked(connection, one, None):
                devices = self._devices(connection, [name, *_below(name, authorities)])
                if devices:
                    found.append(_finding(name, one, devices))
        return Batch(len(authorities), found, None)

    def _devices(self, connection: Connection, authority_ids: Sequence[str]) -> list[str]:
        """Some active certificates of these authorities: registered with one of them, or issued by the account."""
        active = select(_C.id).where(_C.account_id == self.audit.account_id, _C.status.in_(DEVICE_STATUSES))
        issued = active.join(schema.issued_certificates, _D.certificate_id == _C.id).where(
            _D.account_id == self.audit.account_id, _D.issuer_id.in_(authority_ids)
        )
        queries = (active.where(_C.ca_certificate_id.in_(authority_ids)), issued)
        found = [name for query in queries for name in connection.execute(query.limit(_RELATED)).scalars()]
        return list(dict.fromkeys(found))[:_RELATED]


def _below(name: str, authorities: dict[str, Admitted]) -> list[str]:
    """Authorities that one has signed, directly or through others."""
    below: list[str] = []
    above = [name]
    while above:
        signer = authorities[above.pop()]
        for other, one in authorities.items():
            if other != name and other not in below and one.issuer == signer.subject and is_signed_by(one, signer):
                below.append(other)
                above.append(other)
    return below


def _finding(name: str, authority: Admitted, devices: Sequence[str]) -> Found:
    certificate = authority.certificate
    identifier = {"issuerCertificateSubject": certificate.subject.rfc4514_string()[:1_000], "issuerId": name}
    serial = f"{certificate.serial_number:x}"
    if len(serial) <= 20:  # AWS's model has no room for longer ones; the id says which certificate it is
        identifier["issuerCertificateSerialNumber"] = serial
    related = [
        {"resourceType": "DEVICE_CERTIFICATE", "resourceIdentifier": {"deviceCertificateId": one}} for one in devices
    ]
    return Found({"issuerCertificateIdentifier": identifier}, "INTERMEDIATE_CA_REVOKED_BY_ISSUER", related=related)
