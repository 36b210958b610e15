"""New certificates for requests of devices: what is asked of a request, and who issues.

A request's key has to be accepted, sound, and new: neither the old key nor any that the account has ever seen. The
account's own authority issues at once, inside a transaction. Or an external one does, by the hook command of the
server's configuration, which ``HookWorker`` runs outside of transactions, once at a time for a request.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from sqlalchemy import Connection, select, union_all

from keyassay.bulk.results import Settings
from keyassay.bulk.scan import Plan, assess_items
from keyassay.certificates.der import SEQUENCE, DerError, expect
from keyassay.certificates.item import Item, Kind
from keyassay.certificates.spki import parse
from keyassay.findings import Classification, Profile
from keyassay.registry import certificates, device_messages
from keyassay.registry import issuing as own_authority
from keyassay.registry.admission import Admitted, is_signed_by, key_problem, read_certificate, read_der
from keyassay.registry.errors import AlreadyExistsError, CertificateValidationError, InvalidError, RegistryError
from keyassay.registry.lifecycle import Status as CertificateStatus
from keyassay.registry.registry import Registry
from keyassay.replacement import campaigns, proofs, units
from keyassay.replacement.states import State, Status
from keyassay.replacement.units import Unit, UnitStateError
from keyassay.storage import leases, schema
from keyassay.storage.database import Actor, BusyError, Transaction

_P = schema.replacement_proofs.c
_R = schema.replacements.c
_U = schema.replacement_units.c

#: characters of a request in PEM
LARGEST_REQUEST = 16_384
#: of a common name (X.520)
_LONGEST_NAME = 64
#: the operation under which new certificates are recorded
OPERATION = "IssueReplacement"
#: seconds that the hook may take, and that a message to a device is worth publishing
HOOK_SECONDS = 30.0
NOTICE_SECONDS = 600
#: hooks at once, requests looked up at once, seconds between two looks
_AT_ONCE, _CHUNK, _POLL = 4, 100, 0.5
#: seconds until a failed hook is tried again, and how often it is
_AGAIN, _ATTEMPTS = (5.0, 30.0, 120.0, 600.0), 5
_LARGEST_OUTPUT = 262_144
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


class KeyRefusedError(RegistryError):
    """The key of a request is not accepted: broken, weak, or seen before."""


class HookError(Exception):
    """The hook command gave no certificate.

    Args:
        message: a sentence.
        lasting: whether trying again cannot help.
    """

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.lasting = lasting


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A certificate signing request, read and not yet checked.

    Attributes:
        request: as the library has it.
        der: its bytes.
        digest: SHA-256 of these, hexadecimal.
        key: public key.
        spki: DER of its subject public key info.
    """

    request: x509.CertificateSigningRequest
    der: bytes
    digest: str
    key: CertificatePublicKeyTypes
    spki: bytes

    @property
    def spki_digest(self) -> bytes:
        """SHA-256 of the subject public key info."""
        return hashlib.sha256(self.spki).digest()


def read_request(pem: object) -> CertificateRequest:
    """Read a request; little work, since anybody may send one.

    Raises:
        InvalidError: it is none.
    """
    if not isinstance(pem, str) or not 0 < len(pem) <= LARGEST_REQUEST:
        raise InvalidError(f"certificateSigningRequest is a PEM text of at most {LARGEST_REQUEST} characters")
    try:
        return _request(x509.load_pem_x509_csr(pem.encode()))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidError("this is no certificate signing request in PEM") from None


def _request(request: x509.CertificateSigningRequest) -> CertificateRequest:
    der = request.public_bytes(Encoding.DER)
    key = request.public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return CertificateRequest(request, der, hashlib.sha256(der).hexdigest(), key, spki)


@cache
def _plan() -> Plan:
    """The checks of single keys, made once a process."""
    plan = Plan.of(Settings(profile=Profile.FAST, fleet=False), expected=1)
    return replace(plan, certificate_checks=(), fleet_checks=())


def check_request(registry: Registry, request: CertificateRequest) -> object:
    """All that a request itself can be refused for; milliseconds, before the transaction.

    Returns:
        What ``registry.examine`` said of its key.

    Raises:
        InvalidError: its signature does not hold.
        KeyRefusedError: its key is of a kind or size that is not accepted, broken or weak.
    """
    problem = "DSA keys are not accepted" if isinstance(request.key, dsa.DSAPublicKey) else key_problem(request.key)
    if problem:
        raise KeyRefusedError(problem)
    try:
        holds = request.request.is_signature_valid
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        holds = False
    if not holds:
        raise InvalidError("the request's signature does not hold")
    if problem := weakness(request.spki):
        raise KeyRefusedError(f"the request's key is refused: {problem}")
    return registry.examine(request.spki)


def weakness(spki: bytes) -> str:
    """What makes a key broken or weak, "" if nothing was found: the checks of single keys, profile fast."""
    try:
        start, end = expect(spki, 0, len(spki), SEQUENCE, "public key")
        key = parse(spki, start, end, [])
    except DerError as error:
        return str(error)
    (result,) = assess_items([Item("", 0, 0, Kind.PUBLIC_KEY, key=key)], _plan())
    bad = (Classification.BROKEN, Classification.WEAK)
    return next((f"{one.message} ({one.check})" for one in result.findings if one.classification in bad), "")


def check_unused(connection: Connection, account_id: str, spki: bytes, besides: str = "") -> None:
    """Make sure that a key is new to the account: in no certificate that is or was here, in no authority, in no proof.

    Args:
        connection: of a read or a transaction.
        account_id: whose.
        spki: of the key, DER.
        besides: id of the certificate that was issued for just this request.

    Raises:
        KeyRefusedError: it is not new.
    """
    digest = hashlib.sha256(spki).digest()
    seen = union_all(*(
        select(table.c.id).where(table.c.account_id == account_id, table.c.spki_digest == digest)
        for table in (schema.certificates, schema.former_certificates, schema.authorities)
    ))  # fmt: skip
    ids = set(connection.execute(seen).scalars()) - {besides}
    if ids:
        raise KeyRefusedError(f"the request's key is not new: certificate {min(ids)} has it; make another one")
    proving = select(_P.id).where(_P.account_id == account_id, _P.id == digest.hex(), _P.public_key == spki)
    if connection.execute(proving.limit(1)).first() is not None:
        raise KeyRefusedError("the request's key is one that proves requests; make another one")


def subject_of(thing_name: str) -> x509.Name:
    """The subject of a thing's certificate: its name, whatever the request says.

    A name of more than 64 characters, which no common name may have, is cut and ends with a digest of the whole.
    """
    name = thing_name
    if len(name) > _LONGEST_NAME:
        name = f"{name[:47]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def sign_ahead(registry: Registry, unit: Unit, request: CertificateRequest) -> own_authority.Signed | None:
    """Let the account's own authority sign before the transaction of ``issue``: its key may be in a token.

    Raises:
        SigningUnavailableError: the token cannot be used.
    """
    return own_authority.sign_ahead(registry, unit.account_id, subject_of(unit.thing_name), request.key)


def issue(
    registry: Registry,
    transaction: Transaction,
    unit: Unit,
    request: CertificateRequest,
    examined: object,
    signed: own_authority.Signed | None = None,
) -> str:
    """Let the account's own authority issue; INACTIVE until it is attached.

    Args:
        registry: where.
        transaction: of the account.
        unit: whose certificate it is.
        request: that was checked.
        examined: what ``check_request`` said.
        signed: what ``sign_ahead`` gave.

    Returns:
        The id of the new certificate.

    Raises:
        KeyRefusedError: the key was seen before, or screening refuses it.
    """
    check_unused(transaction.connection, transaction.account_id, request.spki)
    subject, status = subject_of(unit.thing_name), CertificateStatus.INACTIVE
    try:
        made = own_authority.issue(registry, transaction, OPERATION, subject, request.key, status, examined, signed)
    except CertificateValidationError as error:
        raise KeyRefusedError(error.message) from None
    return made.registered.id


def chain_of(connection: Connection, row: Mapping[Any, Any]) -> Admitted | None:
    """The authority that signed a certificate of an account; None if it is not here any more.

    Args:
        connection: of a read or a transaction.
        row: of the certificate.
    """
    if row["ca_certificate_id"]:
        table, which = schema.authorities, schema.authorities.c.id == row["ca_certificate_id"]
    else:
        table, which = schema.issuers, schema.issuers.c.account_id == row["account_id"]
    query = select(table.c.der).where(table.c.account_id == row["account_id"], which)
    admitted = read_der(bytes(row["der"]))
    found = (read_der(bytes(der)) for der in connection.execute(query).scalars())
    return next((one for one in found if is_signed_by(admitted, one)), None)


# By an external authority


@dataclass(frozen=True, slots=True)
class Hook:
    """A command that has certificates issued elsewhere.

    Attributes:
        command: the operator's, for the shell. It reads the request (PEM) from standard input, finds the names of
            ``environment`` in its environment, and writes the certificate (PEM) to standard output.
        seconds: that it may take.
    """

    command: str
    seconds: float = HOOK_SECONDS

    def __call__(self, request_pem: bytes, environment: Mapping[str, str]) -> Admitted:
        """Have a certificate issued. The same request id has to give the same certificate.

        Raises:
            HookError: it failed, took too long, or wrote no certificate.
        """
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KEYASSAY_")}
        with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as output:
            source.write(request_pem)
            source.seek(0)
            # the operator's own command, from the server's configuration; what it says of errors is in the server's log
            process = subprocess.Popen(  # noqa: S602
                self.command,
                shell=True,
                stdin=source,
                stdout=output,
                env={**inherited, **environment},
                start_new_session=True,
            )
            try:
                code = process.wait(self.seconds)
            except subprocess.TimeoutExpired:
                raise HookError(f"the issuing hook did not end within {self.seconds:g} s") from None
            finally:
                with suppress(ProcessLookupError):  # whatever it has started ends with it
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            output.seek(0)
            written = output.read(_LARGEST_OUTPUT + 1)
        if code:
            raise HookError(f"the issuing hook ended with {code}")
        start, end = written.find(_BEGIN), written.find(_END)
        if len(written) > _LARGEST_OUTPUT or not 0 <= start < end:
            raise HookError("the issuing hook wrote no certificate")
        try:
            return read_certificate(written[start : end + len(_END)].decode("ascii"))
        except (InvalidError, UnicodeDecodeError):
            raise HookError("the issuing hook wrote no certificate") from None


@dataclass(frozen=True, slots=True)
class _Pending:
    """A request that was accepted and has no certificate yet."""

    unit: Unit
    csr_der: bytes

    @property
    def lease(self) -> str:
        return f"replacement-issuing:{self.unit.account_id}:{self.unit.request_id}"


class HookWorker:
    """Has certificates issued by an external authority, for the requests that wait for it.

    Args:
        registry: where.
        hook: how.
        log: of the process.
    """

    name = "issuing-hook"

    def __init__(self, registry: Registry, hook: Hook, log: Any) -> None:
        self._registry = registry
        self._hook = hook
        self._log = log
        self._holder = f"{socket.gethostname()[:100]}:{os.getpid()}"
        #: request id -> how often it failed, and when it is tried again
        self._failed: dict[str, tuple[int, float]] = {}

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; hooks that run are waited for."""
        announced = -campaigns.HOOK_LASTS
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix=self.name) as pool:
            while not stop.is_set():
                try:
                    if time.monotonic() - announced > campaigns.HOOK_LASTS / 10:
                        leases.announce(self._registry.database, campaigns.HOOK, self._holder, campaigns.HOOK_LASTS)
                        announced = time.monotonic()
                    done = sum(pool.map(lambda one: not stop.is_set() and self.work(one), self.pending()))
                except Exception as error:  # noqa: BLE001  the database may come back
                    self._log.error("issuing stopped for a moment", error=type(error).__name__)
                    done = 0
                if not done:
                    stop.wait(_POLL)

    def pending(self) -> list[_Pending]:
        """Requests that wait, some of each replacement, without those that failed a moment ago."""
        running = select(_R.account_id, _R.id, _R.settings).where(_R.status == Status.RUNNING.value)
        found: list[_Pending] = []
        now = time.monotonic()
        with self._registry.database.read() as connection:
            for row in connection.execute(running).all():
                if row.settings.get("issuer") != "hook":
                    continue
                query = (
                    units.query(row.account_id)
                    .add_columns(_P.public_key)
                    .join(
                        schema.replacement_proofs,
                        (_P.account_id == _U.account_id)
                        & (_P.replacement_id == _U.replacement_id)
                        & (_P.thing_name == _U.thing_name)
                        & (_P.id == _U.request_id),
                    )
                    .where(
                        _U.replacement_id == row.id,
                        _U.state.in_((State.PLANNED.value, State.UNREACHABLE.value)),
                        _P.kind == proofs.REQUEST,
                    )
                    .order_by(_P.used_at)
                    .limit(_CHUNK + len(self._failed))
                )
                rows = connection.execute(query).mappings().all()
                found += [
                    _Pending(units.read(one), bytes(one["public_key"]))
                    for one in rows
                    if self._failed.get(one["request_id"], (0, 0.0))[1] <= now
                ]
        return found

    def work(self, pending: _Pending) -> bool:
        """Have one certificate issued and registered; true if that went well.

        Nothing happens while another process is at the same request.
        """
        database, unit = self._registry.database, pending.unit
        lease = leases.take(database, pending.lease, f"{self.name}:{uuid.uuid4()}", self._hook.seconds + 30)
        if lease is None:
            return False
        try:
            admitted = self._hook(
                x509.load_der_x509_csr(pending.csr_der).public_bytes(Encoding.PEM),
                {
                    "KEYASSAY_REQUEST_ID": unit.request_id,
                    "KEYASSAY_ACCOUNT_ID": unit.account_id,
                    "KEYASSAY_REPLACEMENT_ID": unit.replacement_id,
                    "KEYASSAY_THING_NAME": unit.thing_name,
                },
            )
            self._enter(lease, pending, admitted)
        except (HookError, UnitStateError, BusyError, leases.LeaseLostError) as error:
            self._failure(pending, error)
            with suppress(BusyError):
                leases.release(database, lease)
            return False
        self._failed.pop(unit.request_id, None)
        return True

    def _enter(self, lease: leases.Lease, pending: _Pending, admitted: Admitted) -> None:
        """Register the certificate and move the unit on, in one transaction.

        Raises:
            HookError: the certificate is not the one that was asked for, or is not accepted.
            UnitStateError: the replacement was paused meanwhile, or the unit put aside.
        """
        request = _request(x509.load_der_x509_csr(pending.csr_der))
        if admitted.spki != request.spki:
            raise HookError("the issuing hook gave a certificate with another key", lasting=True)
        examined = self._registry.examine(admitted.spki)
        with self._registry.database.write(_actor(pending.unit)) as transaction:
            leases.check(transaction, lease)
            try:
                check_unused(transaction.connection, transaction.account_id, request.spki, besides=admitted.id)
                _register(self._registry, transaction, admitted, examined)
            except RegistryError as error:
                raise HookError(f"what the issuing hook gave is refused: {error.message}", lasting=True) from None
            evidence = {"issuer": "hook", "requestId": pending.unit.request_id}
            unit = units.issued(transaction, pending.unit, request.digest, admitted.id, evidence)
            unit = units.attach(transaction, unit)
            notify(transaction, unit)
            leases.forget(transaction, lease.name)

    def _failure(self, pending: _Pending, error: Exception) -> None:
        unit = pending.unit
        said = error.message if isinstance(error, (HookError, UnitStateError)) else type(error).__name__
        self._log.warning("no certificate was issued", thing=unit.thing_name, request=unit.request_id, error=said)
        count = self._failed.get(unit.request_id, (0, 0.0))[0] + 1
        self._failed[unit.request_id] = count, time.monotonic() + _AGAIN[min(count, len(_AGAIN)) - 1]
        if isinstance(error, HookError) and (error.lasting or count >= _ATTEMPTS):
            with self._registry.database.write(_actor(unit)) as transaction:
                present = units.find(transaction.connection, unit.account_id, *unit.key)
                if present.request_id == unit.request_id and present.state in (State.PLANNED, State.UNREACHABLE):
                    units.fail(transaction, present, said)
            self._failed.pop(unit.request_id, None)


def _actor(unit: Unit) -> Actor:
    return Actor(unit.account_id, f"worker:{HookWorker.name}")


def _register(registry: Registry, transaction: Transaction, admitted: Admitted, examined: object) -> None:
    """Register what an external authority issued; it may have done so itself."""
    with suppress(AlreadyExistsError):
        certificates.register_signed(registry, transaction, OPERATION, admitted, CertificateStatus.INACTIVE, examined)


def notify(transaction: Transaction, unit: Unit) -> None:
    """Tell a device that it is its turn: it asks for the rest itself."""
    payload = json.dumps(units.offer(unit), separators=(",", ":"))
    device_messages.put(
        transaction, f"$aws/things/{unit.thing_name}/keyassay/replacement/notify", payload, NOTICE_SECONDS
    )
