"""Just-in-time registration: a device of a registered authority is registered at its first attempt to connect.

The gate refuses the device and passes its certificate on. Here it is verified again, whatever the gate said, and
registered PENDING_ACTIVATION; its key is assessed at once. Whoever follows the topic of events activates it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import RowMapping, bindparam, func, select

from keyassay.registry import alerts, certificates, device_messages
from keyassay.registry.activation import SELF_REGISTRATION
from keyassay.registry.admission import Admitted, check_authority, check_device, is_signed_by, read_der
from keyassay.registry.errors import (
    CertificateValidationError,
    InvalidError,
    LimitError,
    RegistryError,
)
from keyassay.registry.gate_events import BEFORE_PROOF, UNREGISTERED, Event
from keyassay.registry.lifecycle import Status
from keyassay.registry.registry import Registry
from keyassay.storage import outbox, schema
from keyassay.storage.database import Actor, Transaction
from keyassay.storage.prepared import Prepared, among

OPERATION = SELF_REGISTRATION
#: registrations of an authority within a second, and certificates of it that wait for their activation
A_SECOND, PENDING = 10, 10_000
#: certificates of one request that are looked at; devices come back
AT_ONCE = 100
#: seconds after which the message about a registration is of no use any more
SECONDS = 3_600
#: milliseconds within which the attempts of a waiting device are told once
AGAIN = 60_000

TOPIC = "$aws/events/certificates/registered/{}"

_C = schema.certificates.c
_A = schema.authorities.c
_M = schema.device_messages.c

#: the certificate of a message, of which only the beginning is read
_ANNOUNCED = func.substr(_M.payload, len('{"certificateId":"') + 1, 64)
_TOLD = Prepared(
    select(_ANNOUNCED.label("certificate_id")).where(
        _M.account_id == bindparam("account"),
        _M.created_at > bindparam("since"),
        among(_M.topic, "topics"),
        among(_ANNOUNCED, "certificates"),
    )
)
_WAITING = Prepared(
    select(_C.id, _C.ca_certificate_id, _C.created_at).where(
        _C.account_id == bindparam("account"),
        among(_C.id, "certificates"),
        _C.status == Status.PENDING_ACTIVATION.value,
        _C.ca_certificate_id.is_not(None),
    )
)


def register_all(registry: Registry, actor: Actor, events: Iterable[Event]) -> list[dict[str, str]]:
    """Register what gates saw for the first time, each certificate in a transaction of its own.

    Args:
        registry: where.
        actor: the gate's access key, and the account.
        events: all; those with verdict ``unregistered``, a chain that held and a certificate count.

    Returns:
        For each certificate {"certificateId", "status"}, or {"certificateId", "refused": why}.
    """
    found: dict[str, bytes] = {}
    for event in events:
        if event.verdict == UNREGISTERED and event.verify_code == 0 and event.der is not None:
            found.setdefault(hashlib.sha256(event.der).hexdigest(), event.der)
    answers = []
    for number, (certificate_id, der) in enumerate(found.items()):
        answer = {"certificateId": certificate_id}
        try:
            if number >= AT_ONCE:
                raise LimitError(f"at most {AT_ONCE} certificates of a request are registered: the device comes back")
            answers.append(answer | {"status": register(registry, actor, der).value})
        except RegistryError as error:
            answers.append(answer | {"refused": error.message})
    return answers


def register(registry: Registry, actor: Actor, der: bytes) -> Status:
    """Register a certificate; nothing happens if the account has it.

    Args:
        registry: where.
        actor: who, and in which account.
        der: the certificate, as a device presented it.

    Returns:
        Its status: PENDING_ACTIVATION if it is new.

    Raises:
        InvalidError: it cannot be read.
        CertificateValidationError: it does not hold, or no authority that is ACTIVE, within its validity and has
            auto-registration on signed it.
        LimitError: too many of that authority within a second, or waiting for their activation.
        BrokenKeyError: screening refuses it.
    """
    try:
        admitted = read_der(der)
    except (ValueError, TypeError):
        raise InvalidError("this is no certificate in DER") from None
    if admitted.der != der:
        raise InvalidError("the certificate is followed by something else")
    query = select(_C.status).where(_C.account_id == actor.account_id, _C.id == admitted.id)
    with registry.database.read() as connection:
        status = connection.execute(query).scalar()
    if status is not None:
        return Status(status)
    # a stranger's key is not even looked at
    with registry.database.read() as connection:
        candidates = connection.execute(_authorities(actor.account_id, admitted)).mappings().all()
    if not any(is_signed_by(admitted, read_der(bytes(row["der"]))) for row in candidates):
        raise CertificateValidationError("no authority with auto-registration signed the certificate")
    examined = registry.examine(admitted.spki)
    with registry.database.write(actor) as transaction:
        status = transaction.execute(query).scalar()
        if status is not None:
            return Status(status)
        check_device(admitted, transaction.now)
        if admitted.not_before > transaction.now:
            raise CertificateValidationError("the certificate is not valid yet")
        authority = _authority(transaction, admitted)
        _check_room(transaction, authority["id"])
        certificates.add(
            registry,
            transaction,
            OPERATION,
            admitted,
            Status.PENDING_ACTIVATION,
            authority["mode"],
            examined,
            authority_id=authority["id"],
        )
        announce(transaction, (admitted.id, authority["id"], transaction.now))
    return Status.PENDING_ACTIVATION


def _authorities(account_id: str, admitted: Admitted) -> Any:
    """Authorities of the account that may register devices and have the issuer's name, the newest first."""
    return (
        select(schema.authorities)
        .where(
            _A.account_id == account_id,
            _A.subject_digest == hashlib.sha256(admitted.issuer).digest(),
            _A.status == "ACTIVE",
            _A.auto_registration.is_(True),
        )
        .order_by(_A.created_at.desc(), _A.id)
    )


def _authority(transaction: Transaction, admitted: Admitted) -> RowMapping:
    """The newest such authority that signed the certificate and is valid itself (several may have one name and key)."""
    problem = "no authority with auto-registration signed the certificate"
    for row in transaction.execute(_authorities(transaction.account_id, admitted)).mappings():
        authority = read_der(bytes(row["der"]))
        if not is_signed_by(admitted, authority):
            continue
        try:
            check_authority(authority, transaction.now)
        except CertificateValidationError:
            problem = "the authority that signed the certificate has expired"
            continue
        if authority.not_before <= transaction.now:
            return row
        problem = "the authority that signed the certificate is not valid yet"
    raise CertificateValidationError(problem)


def _check_room(transaction: Transaction, authority_id: str) -> None:
    its = (
        _C.account_id == transaction.account_id,
        _C.ca_certificate_id == authority_id,
        _C.status == Status.PENDING_ACTIVATION.value,
    )
    lately = select(func.count()).where(*its, _C.created_at > transaction.now - 1_000)
    if transaction.execute(lately).scalar_one() >= A_SECOND:
        raise LimitError(f"at most {A_SECOND} devices of an authority are registered within a second")
    waiting = select(_C.id).where(*its).limit(PENDING).subquery()
    if transaction.execute(select(func.count()).select_from(waiting)).scalar_one() >= PENDING:
        raise LimitError(f"{PENDING} devices of the authority wait for their activation")


def announce(transaction: Transaction, *registered: tuple[str, str, int]) -> None:
    """Publish that certificates wait for their activation: at the gates, and to the account's target.

    Source of topic and payload: AWS IoT's developer guide, "Just-in-time registration".

    Args:
        transaction: of the account.
        registered: of each its id, its authority's id, and when it was registered, milliseconds since 1970.
    """
    payloads = [
        {
            "certificateId": certificate_id,  # stays in front: ``_TOLD`` looks there
            "caCertificateId": authority_id,
            "timestamp": transaction.now,
            "certificateStatus": Status.PENDING_ACTIVATION.value,
            "awsAccountId": transaction.account_id,
            "certificateRegistrationTimestamp": str(registered_at),
        }
        for certificate_id, authority_id, registered_at in registered
    ]
    messages = [
        (TOPIC.format(payload["caCertificateId"]), json.dumps(payload, separators=(",", ":"))) for payload in payloads
    ]
    device_messages.put_all(transaction, messages, SECONDS)
    alerts.notify(transaction, outbox.REGISTERED, *payloads)


def announce_again(transaction: Transaction, events: Sequence[Event]) -> None:
    """As AWS does: publish it again when a device that waits for its activation tries to connect, once a minute.

    Args:
        transaction: of the account.
        events: refused attempts that are new.
    """
    tried = {one.certificate_id for one in events if one.certificate_id and one.verdict not in BEFORE_PROOF}
    if not tried:
        return
    asked = {"account": transaction.account_id, "certificates": tried}
    waiting = sorted(_WAITING.all(transaction.connection, asked), key=lambda row: str(row["id"]))
    if not waiting:
        return
    about = {
        "account": transaction.account_id,
        "topics": {TOPIC.format(row["ca_certificate_id"]) for row in waiting},
        "since": transaction.now - AGAIN,
        "certificates": [row["id"] for row in waiting],
    }
    told = {row["certificate_id"] for row in _TOLD.all(transaction.connection, about)}
    again = [(row["id"], row["ca_certificate_id"], row["created_at"]) for row in waiting if row["id"] not in told]
    if again:
        announce(transaction, *again)
