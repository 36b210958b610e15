"""Delivery over MQTT: what devices publish in, what is published back; and the one way of a request, for claims too.

The topic names the thing, and the gate's access control has bound topic to thing: nothing in a payload says who sends
it. A request passes its proof before anything expensive is done with it. The first one with a valid proof binds the
thing; the same one again is answered again; another one with a valid proof halts the thing.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Iterable, Mapping
from ssl import DER_cert_to_PEM_cert
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, delete, func, select

from keyassay.registry import alerts, certificates
from keyassay.registry.errors import InvalidError, NotFoundError, RegistryError, SigningUnavailableError
from keyassay.registry.issuing import Signed
from keyassay.registry.lifecycle import Status as CertificateStatus
from keyassay.registry.registry import Registry
from keyassay.replacement import issuing, proofs, units
from keyassay.replacement.issuing import CertificateRequest, KeyRefusedError
from keyassay.replacement.limiting import Buckets
from keyassay.replacement.proofs import Kind, NotApprovedError, UnprovenError
from keyassay.replacement.states import WAY, State, Status
from keyassay.replacement.units import Unit
from keyassay.storage import schema
from keyassay.storage.database import Actor, BusyError, Database, Transaction

_C = schema.connections.c
_P = schema.replacement_proofs.c

#: characters of a payload, and messages of a call
LARGEST_PAYLOAD = 32_768
MOST_MESSAGES = 500
#: requests of a thing that wait for an approval at most, and how long, milliseconds
_WAITING, _WAITING_FOR = 5, 30 * 86_400_000
#: seconds after which a device shall ask again, where the answer takes its time
RETRY_AFTER = 30
#: requests without a valid proof that are looked into for each thing: at once, and a second
_FAILURES = (10, 1 / 6)
_HOUR = 3_600_000

_TOPIC = re.compile(r"\$aws/things/([a-zA-Z0-9:_-]{1,128})/keyassay/replacement/(get|create-from-csr)")


class NothingToDoError(NotFoundError):
    """Nothing of the thing is being replaced now."""

    def __init__(self) -> None:
        super().__init__("nothing of this thing is to be replaced now")


class NotNowError(RegistryError):
    """The replacement is paused, or the thing was put aside: an operator has to do something."""


class ThrottledError(RegistryError):
    """Too many requests without a valid proof."""


class PendingError(RegistryError):
    """The request is accepted and its certificate takes a while; or it waits for an approval.

    Args:
        message: one sentence.
        reason: "issuing" or "approval".
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


#: states in which the device may have its new certificate once more
_HANDED_OUT = WAY[WAY.index(State.DELIVERED) :]

#: what a device is told by a number and a word, the nearest class of an error first
_CODES: dict[type[Exception], tuple[int, str]] = {
    NothingToDoError: (404, "NothingToReplace"),
    UnprovenError: (403, "ProofRefused"),
    KeyRefusedError: (422, "KeyRefused"),
    ThrottledError: (429, "Throttled"),
    NotNowError: (409, "NotNow"),
    units.UnitStateError: (409, "NotNow"),
    InvalidError: (400, "InvalidRequest"),
    SigningUnavailableError: (503, "ServiceUnavailable"),
    BusyError: (503, "ServiceUnavailable"),
}


class _Limits:
    """What a process remembers for one database, so that strangers cannot make it write."""

    def __init__(self) -> None:
        self.failures = Buckets(*_FAILURES)
        self.alerted = Buckets(1, 1 / 3_600)


_limits: WeakKeyDictionary[Database, _Limits] = WeakKeyDictionary()
_limits_lock = threading.Lock()


def _limits_of(database: Database) -> _Limits:
    with _limits_lock:
        return _limits.setdefault(database, _Limits())


def deliver(registry: Registry, actor: Actor, messages: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Answer what devices published at a gate's broker.

    Args:
        registry: where.
        actor: the gate, and the account that it serves.
        messages: {"topic": text, "payload": text}; other topics than the two of this protocol are ignored.

    Returns:
        {"replies": [{"topic": text, "payload": text}]}, to be published at the same broker; bad messages are
        answered like others.

    Raises:
        InvalidError: more than 500 messages.
    """
    listed = list(messages)
    if len(listed) > MOST_MESSAGES:
        raise InvalidError(f"at most {MOST_MESSAGES} messages are taken at once")
    replies = []
    for one in listed:
        topic, payload = one.get("topic"), one.get("payload")
        found = _TOPIC.fullmatch(topic) if isinstance(topic, str) else None
        if found is not None:
            ending, body = _answer(registry, actor, found[1], found[2], payload)
            text = json.dumps(body, separators=(",", ":"))
            replies.append({"topic": f"{topic}/{ending}", "payload": text})
    return {"replies": replies}


def _answer(registry: Registry, actor: Actor, thing: str, what: str, payload: object) -> tuple[str, dict[str, Any]]:
    """The last part of a reply's topic, and its body."""
    try:
        document = _document(payload)
        if what == "get":
            return "accepted", _offer(registry, actor, thing)
        way = {"via": "mqtt", "gate": actor.name}
        made = take_request(registry, actor, thing, document, way)
    except PendingError as error:
        return "pending", {"reason": error.reason, "message": error.message, "retryAfterSeconds": RETRY_AFTER}
    except Exception as error:  # noqa: BLE001  one bad message leaves the others of its batch alone
        return "rejected", _refusal(error)
    return "accepted", made


def _document(payload: object) -> dict[str, Any]:
    """The JSON object of a payload; an empty one for none.

    Raises:
        InvalidError: it is none, or too large.
    """
    if not isinstance(payload, str) or len(payload) > LARGEST_PAYLOAD:
        raise InvalidError(f"a payload is a JSON object of at most {LARGEST_PAYLOAD} characters")
    try:
        document = json.loads(payload or "{}")
    except (ValueError, RecursionError):
        raise InvalidError("the payload is no JSON") from None
    if not isinstance(document, dict):
        raise InvalidError("the payload is no JSON object")
    return document


def _refusal(error: Exception) -> dict[str, Any]:
    """What a device is told of an error."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            status, code = _CODES[kind]
            message = error.message if isinstance(error, RegistryError) else "try again in a moment"
            return {"statusCode": status, "errorCode": code, "errorMessage": message}
    logging.getLogger(__name__).error("a device's request failed: %s", type(error).__name__)
    return {"statusCode": 500, "errorCode": "InternalFailure", "errorMessage": "try again later"}


def _offer(registry: Registry, actor: Actor, thing: str) -> dict[str, Any]:
    """What is to be replaced at a thing.

    Raises:
        NothingToDoError: nothing, or it is not the thing's turn.
    """
    with registry.database.read() as connection:
        unit = units.open_unit_of(connection, actor.account_id, thing)
    if unit is None or not (unit.is_served or unit.new_certificate_id):
        raise NothingToDoError
    return {**units.offer(unit), "accountId": unit.account_id}


def take_request(
    registry: Registry,
    actor: Actor,
    thing: str,
    document: Mapping[str, Any],
    way: Mapping[str, Any],
    kinds: Iterable[Kind] = tuple(Kind),
) -> dict[str, Any]:
    """Take a request for a new certificate, from its proof to the certificate.

    Args:
        registry: where.
        actor: who brings it, and the account.
        thing: whose device it is from.
        document: replacementId, certificateSigningRequest, proof.
        way: how it came, for the evidence: {"via": "mqtt", "gate": name} or {"via": "https", "source": address}.
        kinds: proofs that this way may carry.

    Returns:
        {"certificateId", "certificatePem", "caPem"}

    Raises:
        InvalidError: it is malformed.
        UnprovenError, ThrottledError: its proof does not hold; nothing else has happened, but for an alert.
        NothingToDoError: nothing of the thing is being replaced.
        KeyRefusedError: its key is not accepted.
        PendingError: it is accepted, or waits for an approval; the same request later gives the certificate.
        NotNowError, UnitStateError: nothing is issued now; a second request has halted the thing.
        SigningUnavailableError: the authority's key is in a token that cannot be used.
    """
    request = issuing.read_request(document.get("certificateSigningRequest"))
    proof = document.get("proof")
    proof = proof if isinstance(proof, dict) else {}
    way = {**way, "csrSha256": request.digest}
    proof_id = ""
    refused: UnprovenError | NotApprovedError | None = None
    with registry.database.read() as connection:
        unit = units.open_unit_of(connection, actor.account_id, thing)
        if unit is None or unit.replacement_id != document.get("replacementId"):
            raise NothingToDoError
        if Kind(unit.settings["proof"]) not in kinds:
            raise UnprovenError
        bound = proofs.bound_to(connection, unit)
        if bound == request.digest and unit.state in _HANDED_OUT:
            return _certificate(connection, unit)
        way["sessions"] = sessions(connection, actor.account_id, thing)
        if bound != request.digest:
            try:
                proof_id = proofs.verify(registry, connection, unit, request.der, proof, time.time_ns() // 1_000_000)
            except (UnprovenError, NotApprovedError) as error:
                refused = error
    if isinstance(refused, UnprovenError):
        _note_unproven(registry, actor, unit, way)
        raise refused
    if refused is not None:
        try:
            _note_waiting(registry, actor, unit, request, way)
        except RegistryError:
            if way["via"] == "https":  # whoever asks has proved nothing, and is told nothing
                raise UnprovenError from None
            raise
        raise PendingError(refused.message, "approval")
    examined: object = None
    signed: Signed | None = None
    if bound in (None, request.digest) and unit.new_certificate_id is None:
        if not unit.is_served:
            raise _not_now(unit)
        examined = issuing.check_request(registry, request)
        if unit.settings.get("issuer") != "hook":
            signed = issuing.sign_ahead(registry, unit, request)
    return _go_on(registry, actor, unit, request, proof_id, examined, signed, way)


def _go_on(
    registry: Registry,
    actor: Actor,
    unit: Unit,
    request: CertificateRequest,
    proof_id: str,
    examined: object,
    signed: Signed | None,
    way: Mapping[str, Any],
) -> dict[str, Any]:
    """What follows a valid proof, in one transaction: bound, issued, attached, delivered; or halted.

    Raises:
        PendingError, KeyRefusedError, NotNowError, UnitStateError: see ``take_request``.
    """
    by_hook = unit.settings.get("issuer") == "hook"
    with registry.database.write(actor) as transaction:
        connection = transaction.connection
        unit = units.find(connection, actor.account_id, *unit.key)
        bound = proofs.bound_to(connection, unit)
        if bound not in (None, request.digest):
            units.halt(
                transaction,
                unit,
                "two different requests with a valid proof came for the thing: one of them is not from its device",
                {"firstRequest": {**_first(unit), "csrSha256": bound}, "secondRequest": dict(way)},
            )
        elif unit.new_certificate_id is None:
            if not unit.is_served:
                raise _not_now(unit)
            evidence = {"proof": unit.settings["proof"], "proofId": proof_id, **way}
            if bound is None:
                proofs.bind(transaction, unit, request.der, proof_id)
            if by_hook:
                if bound is None:
                    issuing.check_unused(connection, actor.account_id, request.spki)
                    units.note(transaction, [(unit, "REQUESTED", evidence)])
            else:
                new = issuing.issue(registry, transaction, unit, request, examined, signed)
                unit = units.issued(transaction, unit, request.digest, new, {**evidence, "issuer": "registry"})
        if bound in (None, request.digest) and unit.new_certificate_id is not None:
            if unit.state in (State.ISSUED, State.ATTACHED) and unit.status is not Status.RUNNING:
                raise _not_now(unit)
            unit = units.attach(transaction, unit)
            if unit.state is State.ATTACHED:
                unit = units.delivered(transaction, unit, way)
            if unit.state in _HANDED_OUT:
                return _certificate(connection, unit)
    if bound not in (None, request.digest) or unit.new_certificate_id is not None:
        raise NotNowError("the thing was put aside: an operator has to look at it")
    raise PendingError("the certificate is being issued", "issuing")


def _first(unit: Unit) -> dict[str, Any]:
    """How the request came that a unit is bound to."""
    seen = unit.evidence.get(State.ISSUED.value, {})
    return {name: seen[name] for name in ("via", "gate", "source", "sessions") if name in seen}


def _not_now(unit: Unit) -> RegistryError:
    if unit.state is State.PLANNED and unit.batch == 0:
        return NothingToDoError()
    if unit.status is not Status.RUNNING:
        return NotNowError("the replacement does not run now: try again later")
    return NotNowError("the thing was put aside: an operator has to look at it")


def _certificate(connection: Connection, unit: Unit) -> dict[str, Any]:
    """What a device gets.

    Raises:
        NotNowError: the certificate is not there or not active any more.
    """
    try:
        row = certificates.find(connection, unit.account_id, unit.new_certificate_id or "")
    except NotFoundError:
        raise NotNowError("the new certificate was deleted") from None
    if row["status"] != CertificateStatus.ACTIVE.value:
        raise NotNowError("the new certificate is not active any more")
    chain = issuing.chain_of(connection, row)
    return {
        "certificateId": row["id"],
        "certificatePem": DER_cert_to_PEM_cert(bytes(row["der"])),
        "caPem": DER_cert_to_PEM_cert(chain.der) if chain is not None else "",
    }


# Requests that prove nothing


def _note_unproven(registry: Registry, actor: Actor, unit: Unit, way: Mapping[str, Any]) -> None:
    """Raise an alert, once for a thing and hour; nothing else happens.

    Raises:
        ThrottledError: there were too many of them.
    """
    limits = _limits_of(registry.database)
    name = (unit.account_id, unit.thing_name)
    if not limits.failures.take(name):
        raise ThrottledError("too many requests without a valid proof: wait a little")
    if limits.alerted.take((*name, unit.replacement_id)):
        with registry.database.write(actor) as transaction:
            _alert(transaction, unit, "a request without a valid proof came for the thing", way)


def _alert(transaction: Transaction, unit: Unit, problem: str, way: Mapping[str, Any]) -> None:
    hour = transaction.now // _HOUR
    alerts.raise_alert(
        transaction,
        "replacement-unproven",
        unit.occasion(f"replacement-unproven:{hour}"),
        certificate_id=unit.old_certificate_id,
        thing_name=unit.thing_name,
        details={"replacementId": unit.replacement_id, "problem": problem, **way},
    )


def _note_waiting(
    registry: Registry, actor: Actor, unit: Unit, request: CertificateRequest, way: Mapping[str, Any]
) -> None:
    """Keep a request for the operator to approve, five of a thing at most; several of them are worth an alert."""
    here = (
        (_P.account_id == unit.account_id)
        & (_P.replacement_id == unit.replacement_id)
        & (_P.thing_name == unit.thing_name)
    )
    with registry.database.read() as connection:
        if connection.execute(select(_P.id).where(here, _P.id == request.digest)).first() is not None:
            return
    limits = _limits_of(registry.database)
    if not limits.failures.take((unit.account_id, unit.thing_name)):
        raise ThrottledError("too many requests wait for an approval: wait a little")
    issuing.check_request(registry, request)  # nobody shall be asked to approve what is refused afterwards
    with registry.database.write(actor) as transaction:
        waiting = here & (_P.kind == proofs.WAITING)
        transaction.execute(delete(schema.replacement_proofs).where(waiting, _P.expires_at <= transaction.now))
        count = transaction.execute(select(func.count()).where(waiting)).scalar_one()
        if count:
            _alert(transaction, unit, "different requests wait for an approval for the thing", way)
        if count < _WAITING:
            transaction.execute(
                schema.replacement_proofs.insert().values(
                    account_id=unit.account_id,
                    replacement_id=unit.replacement_id,
                    thing_name=unit.thing_name,
                    id=request.digest,
                    kind=proofs.WAITING,
                    public_key=request.der,
                    expires_at=transaction.now + _WAITING_FOR,
                    used_at=transaction.now,
                )
            )


def sessions(connection: Connection, account_id: str, thing: str) -> list[dict[str, str]]:
    """Who is connected under a thing's name now: certificate and address, the latest first."""
    query = select(_C.certificate_id, _C.source).where(
        _C.account_id == account_id, _C.client_id == thing, _C.ended_at.is_(None)
    )
    rows = connection.execute(query.order_by(_C.started_at.desc()).limit(3)).all()
    return [{"certificateId": row.certificate_id, "source": row.source} for row in rows]
