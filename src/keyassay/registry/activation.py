"""Whether a certificate that registered itself may become ACTIVE: not with a key that is known to be broken."""

from __future__ import annotations

from sqlalchemy import RowMapping, select

from keyassay.registry.errors import CertificateStateError
from keyassay.registry.lifecycle import Status
from keyassay.storage import schema
from keyassay.storage.database import Transaction


def check_activation(transaction: Transaction, row: RowMapping) -> None:
    """Refuse to activate a certificate that registered itself and whose key is known to be broken.

    Args:
        transaction: that activates it.
        row: of the certificate.

    Raises:
        CertificateStateError: others can compute its private key.
    """
    if row["status"] != Status.PENDING_ACTIVATION:
        return
    alone, beside = schema.key_verdicts.c, schema.fleet_verdicts.c
    digest = row["spki_digest"]
    findings = list(transaction.execute(select(alone.findings).where(alone.spki_digest == digest)).scalar() or ())
    query = select(beside.finding).where(beside.account_id == transaction.account_id, beside.spki_digest == digest)
    findings += transaction.execute(query).scalars()
    for finding in findings:
        if finding["class"] == "broken" and finding["confidence"] != "likely":
            raise CertificateStateError(
                f"the certificate's key is broken, and is not activated: {finding['message']} (a server with "
                "--activate-broken does it)"
            )
