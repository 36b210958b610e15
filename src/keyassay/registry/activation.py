"""Keys that are known to be broken, and whether a certificate that registered itself may become ACTIVE with one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import BindParameter, Connection, RowMapping, bindparam, literal, or_, select

from keyassay.checks import catalogue
from keyassay.registry.errors import CertificateStateError
from keyassay.registry.lifecycle import Status
from keyassay.storage import schema
from keyassay.storage.database import Transaction
from keyassay.storage.prepared import Prepared

#: the operation under which certificates that register themselves are recorded
SELF_REGISTRATION = "AutoRegisterCertificate"
_TRANSFER = "AcceptCertificateTransfer"

#: what is known of a key by itself, whoever has it, and beside others: an account's, then all accounts'
_ALONE = (schema.key_verdicts, schema.deep_verdicts)
_BESIDE = (schema.fleet_verdicts, schema.server_verdicts)
_DIGEST: BindParameter[bytes] = bindparam("digest")
_ACCOUNT: BindParameter[str] = bindparam("account")
#: nearly all keys are sound, which one statement tells
_IS_TOLD = Prepared(
    select(
        or_(
            *(
                select(literal(1)).where(one.c.spki_digest == _DIGEST, one.c.findings.is_not(None)).exists()
                for one in _ALONE
            ),
            *(
                select(literal(1)).where(one.c.account_id == _ACCOUNT, one.c.spki_digest == _DIGEST).exists()
                for one in _BESIDE
            ),
        ).label("told")
    )
)


def broken_by(connection: Connection, account_id: str, digest: bytes) -> list[dict[str, Any]]:
    """By which findings a key of an account is known to be broken, one of each check.

    What comparing the keys of all accounts has proven counts as well, whether or not the server still compares them:
    the key is lost. Such a finding says nothing of the other account.

    Args:
        connection: of a read or a transaction.
        account_id: whose.
        digest: SHA-256 of the key's subject public key info.

    Returns:
        Findings as the audit keeps them (JSON), of the checks' present versions, that are proven or certain.
    """
    told = _IS_TOLD.first(connection, {"account": account_id, "digest": digest})
    if told is None or not told["told"]:
        return []
    findings: list[dict[str, Any]] = []
    for table in _ALONE:
        alone = select(table.c.findings).where(table.c.spki_digest == digest)
        findings += connection.execute(alone).scalar() or ()
    for table in _BESIDE:
        beside = select(table.c.finding).where(table.c.account_id == account_id, table.c.spki_digest == digest)
        findings += connection.execute(beside).scalars()
    versions = {one.id: one.metadata.version for one in catalogue()}
    broken: dict[str, dict[str, Any]] = {}
    for finding in findings:
        if finding["class"] != "broken" or finding["confidence"] == "likely":
            continue
        if versions.get(finding["check"]) == finding["version"]:
            broken.setdefault(finding["check"], finding)
    return list(broken.values())


def check_activation(transaction: Transaction, row: RowMapping | Mapping[str, Any]) -> None:
    """Refuse to activate a certificate that registered itself and whose key is known to be broken.

    Until it is ACTIVE for the first time, whether it waits for that, was set INACTIVE or came from another account
    meanwhile. One that was ACTIVE may be so again, as all others may: that its key is broken came out later.

    Args:
        transaction: that activates it, of the account that will have it.
        row: of the certificate, as it is before.

    Raises:
        CertificateStateError: others can compute its private key.
    """
    if row["status"] not in (Status.PENDING_ACTIVATION, Status.INACTIVE, Status.PENDING_TRANSFER):
        return
    findings = broken_by(transaction.connection, transaction.account_id, bytes(row["spki_digest"]))
    if not findings:
        return
    if row["status"] != Status.PENDING_ACTIVATION and not _waited(transaction, row["account_id"], row["id"]):
        return
    raise CertificateStateError(
        f"the certificate's key is broken, and is not activated: {findings[0]['message']} (a server with "
        "--activate-broken does it)"
    )


def _waited(transaction: Transaction, account_id: str, certificate_id: str) -> bool:
    """Whether a certificate registered itself and was never ACTIVE, by the record of changes.

    Of an account, and of those before it that transferred the certificate.
    """
    changes = schema.changes.c
    query = select(changes.revision, changes.operation, changes.details).where(
        changes.account_id == bindparam("account"),
        changes.resource_id == certificate_id,
        changes.resource_type == "certificate",
        changes.revision < bindparam("before"),
    )
    query, before = query.order_by(changes.revision.desc()), 1 << 62
    while True:
        source = ""
        for row in transaction.execute(query, {"account": account_id, "before": before}):
            status = row.details.get("status")
            if row.operation == SELF_REGISTRATION:
                return True
            if row.operation == _TRANSFER and row.details["to"] == account_id:
                source, before = row.details["from"], row.revision
                break
            if isinstance(status, str):  # it was registered by somebody
                return False
            if status and Status.ACTIVE in status:  # before or after the change
                return False
        if not source:
            return False
        account_id = source
