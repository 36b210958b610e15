"""Whether a certificate that registered itself may become ACTIVE: not with a key that is known to be broken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping, select

from keyassay.registry.errors import CertificateStateError
from keyassay.registry.lifecycle import Status
from keyassay.storage import schema
from keyassay.storage.database import Transaction

#: the operation under which certificates that register themselves are recorded
SELF_REGISTRATION = "AutoRegisterCertificate"


def check_activation(transaction: Transaction, row: RowMapping | Mapping[str, Any]) -> None:
    """Refuse to activate a certificate that registered itself and whose key is known to be broken.

    Until it is ACTIVE for the first time, whether it waits for that or was set INACTIVE meanwhile. One that was ACTIVE
    may be so again, as all others may: that its key is broken came out later.

    Args:
        transaction: that activates it.
        row: of the certificate.

    Raises:
        CertificateStateError: others can compute its private key.
    """
    if row["status"] not in (Status.PENDING_ACTIVATION, Status.INACTIVE):
        return
    beside = schema.fleet_verdicts.c
    digest = row["spki_digest"]
    findings: list[dict[str, Any]] = []
    for table in (schema.key_verdicts, schema.deep_verdicts):
        alone = select(table.c.findings).where(table.c.spki_digest == digest)
        findings += transaction.execute(alone).scalar() or ()
    query = select(beside.finding).where(beside.account_id == transaction.account_id, beside.spki_digest == digest)
    findings += transaction.execute(query).scalars()
    for finding in findings:
        if finding["class"] == "broken" and finding["confidence"] != "likely":
            if row["status"] == Status.INACTIVE and not _waited(transaction, row["id"]):
                return
            raise CertificateStateError(
                f"the certificate's key is broken, and is not activated: {finding['message']} (a server with "
                "--activate-broken does it)"
            )


def _waited(transaction: Transaction, certificate_id: str) -> bool:
    """Whether a certificate registered itself and was never ACTIVE, by the record of changes."""
    changes = schema.changes.c
    query = select(changes.operation, changes.details).where(
        changes.account_id == transaction.account_id,
        changes.resource_id == certificate_id,
        changes.resource_type == "certificate",
    )
    for row in transaction.execute(query.order_by(changes.revision.desc())):
        status = row.details.get("status")
        if row.operation == SELF_REGISTRATION:
            return True
        if isinstance(status, str):  # it was registered by somebody
            return False
        if status and Status.ACTIVE in status:  # before or after the change
            return False
    return False
