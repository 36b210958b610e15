"""What gates tell of connections, checked by shape and size: events and live sessions as values.

A gate passes on what devices chose (client ids, addresses, certificates), so that every part is bounded here. One event
that makes no sense is left out and said, since a gate would send the batch again and again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyassay.registry.errors import InvalidError

#: events and sessions that one request may have
EVENTS, SESSIONS = 1_000, 100_000
#: a gate's clock may differ from the server's by this, milliseconds; what is further off is the server's now
SKEW = 86_400_000
#: characters of a client id that are kept; gates let in no longer ones than 128
LONGEST_CLIENT_ID = 512
LARGEST_DER = 65_536
LARGEST_COUNT = 1 << 62

OK, UNREGISTERED = "ok", "unregistered"
#: let in by the gate, but the broker did not answer or refused
NO_BROKER = "broker"
#: said before the client has shown that it holds the private key: whoever has seen a certificate can cause them
BEFORE_PROOF = frozenset({"handshake", "no-certificate"})
#: said of certificates that anybody can make, as many as he likes
OF_STRANGERS = BEFORE_PROOF | {UNREGISTERED, "not-mqtt"}

_GATE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ID = re.compile(r"[0-9a-f]{64}")
_VERDICT = re.compile(r"[a-z][a-z-]{0,31}")
_TLS = re.compile(r"[A-Za-z0-9.]{1,16}")
_NOBODY = ("", "-", None)


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to one attempt to connect.

    Attributes:
        at: milliseconds since 1970, corrected.
        told_at: as the gate said it.
        verdict: the gate's word, such as "ok", "inactive"; ``NO_BROKER`` for an "ok" to which the broker did not agree.
        certificate_id: "" where there was none.
        client_id: "" where none was read.
        source: address and port, as ``address`` makes it.
        host: the address alone.
        tls_version: "" if unknown.
        verify_code: OpenSSL's of the chain, or of the handshake that failed.
        der: of the certificate, where the gate passes it on.
    """

    at: int
    told_at: int
    verdict: str
    certificate_id: str
    client_id: str
    source: str
    host: str
    tls_version: str
    verify_code: int
    der: bytes | None

    @property
    def is_session(self) -> bool:
        """Whether it begins an interval."""
        return self.verdict == OK and bool(self.certificate_id)

    @property
    def is_refused(self) -> bool:
        """Whether it counts as a refusal."""
        return self.verdict != OK

    def digest(self, account_id: str, gate: str) -> bytes:
        """Names it: the same event told again has the same 16 bytes."""
        parts = (account_id, gate, self.verdict, self.certificate_id, self.source, str(self.told_at), self.client_id)
        return hashlib.sha256("\0".join(parts).encode()).digest()[:16]

    def interval_id(self, account_id: str, gate: str) -> str:
        """The id of the interval that it begins."""
        return str(uuid.UUID(bytes=self.digest(account_id, gate), version=4))


@dataclass(frozen=True, slots=True)
class Session:
    """A session that is live at a gate.

    Attributes:
        certificate_id: of the device.
        client_id: "" if the gate does not know it (any more).
        source: address and port.
        bytes_in: that the device has sent; None if the gate does not count.
    """

    certificate_id: str
    client_id: str
    source: str
    bytes_in: int | None


@dataclass(frozen=True, slots=True)
class Told:
    """A request of a gate.

    Attributes:
        gate: its name.
        events: those that make sense, in the order of the request.
        sessions: all live ones; None if the gate does not say.
        skipped: {"number", "problem"} of events and sessions that make none, ten at most.
    """

    gate: str
    events: list[Event]
    sessions: list[Session] | None
    skipped: list[dict[str, Any]]


def read(body: Mapping[str, Any], now: int) -> Told:
    """Read a request.

    Args:
        body: {"gate", "events", "sessions", "sentAt"}; ``sentAt`` is the gate's clock as it sends, and corrects the
            times of its events.
        now: the server's clock, milliseconds since 1970.

    Raises:
        InvalidError: the request as a whole makes no sense, or is too large.
    """
    gate = check_gate(body.get("gate"))
    events, sessions = body.get("events", []), body.get("sessions")
    if not isinstance(events, list) or len(events) > EVENTS:
        raise InvalidError(f"events are a list of at most {EVENTS}")
    if sessions is not None and (not isinstance(sessions, list) or len(sessions) > SESSIONS):
        raise InvalidError(f"sessions are a list of at most {SESSIONS}")
    sent_at = _count(body.get("sentAt"))
    offset = now - sent_at if sent_at is not None and abs(now - sent_at) <= SKEW else 0
    skipped: list[dict[str, Any]] = []
    told = Told(gate, [], None if sessions is None else [], skipped)
    for number, row in enumerate(events):
        try:
            told.events.append(_event(row, now, offset))
        except InvalidError as error:
            skipped.append({"number": number, "problem": error.message})
    for number, row in enumerate(sessions or ()):
        try:
            assert told.sessions is not None
            told.sessions.append(_session(row))
        except InvalidError as error:
            skipped.append({"number": number, "problem": error.message})
    del skipped[10:]
    return told


def check_gate(name: object) -> str:
    """The name of a gate, if it is one.

    Raises:
        InvalidError: it is none.
    """
    if not isinstance(name, str) or not _GATE.fullmatch(name):
        raise InvalidError("a gate's name has 1 to 64 letters, digits and . _ -")
    return name


def address(text: object) -> tuple[str, str]:
    """An address and port in one form, and the address alone: IPv4 in IPv6 is IPv4, IPv6 stands in brackets.

    Args:
        text: such as "192.0.2.1:1883", "::ffff:192.0.2.1:1883", "2001:db8::1:1883"; the port follows the last colon.

    Raises:
        InvalidError: it is neither.
    """
    host, _, port = text.rpartition(":") if isinstance(text, str) and len(text) <= 80 else ("", "", "")
    wrong = InvalidError("a source is an address and a port, such as 192.0.2.1:40000")
    try:
        found = ipaddress.ip_address(host.strip("[]"))
        number = int(port)
    except ValueError:
        raise wrong from None
    if not 0 <= number <= 65_535:
        raise wrong
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    host = str(found).partition("%")[0]
    return (f"[{host}]:{number}" if found.version == 6 else f"{host}:{number}"), host


def _event(row: object, now: int, offset: int) -> Event:
    if not isinstance(row, dict):
        raise InvalidError("an event is an object")
    told_at, verdict, code = _count(row.get("at")), row.get("verdict"), row.get("verifyCode") or 0
    if told_at is None:
        raise InvalidError("an event's time is a number of milliseconds since 1970")
    if not isinstance(verdict, str) or not _VERDICT.fullmatch(verdict):
        raise InvalidError("an event's verdict is a word")
    at = told_at + offset
    at = now if at > now or now - at > SKEW else at
    source, host = address(row.get("source"))
    tls_version = row.get("tlsVersion")
    established = row.get("established") is True
    return Event(
        at,
        told_at,
        NO_BROKER if verdict == OK and not established else verdict,
        _certificate_id(row),
        _client_id(row),
        source,
        host,
        tls_version if isinstance(tls_version, str) and _TLS.fullmatch(tls_version) else "",
        code if isinstance(code, int) else -1,
        _der(row.get("der")),
    )


def _session(row: object) -> Session:
    if not isinstance(row, dict):
        raise InvalidError("a session is an object")
    certificate_id = _certificate_id(row)
    if not certificate_id:
        raise InvalidError("a session has a certificate")
    return Session(certificate_id, _client_id(row), address(row.get("source"))[0], _count(row.get("bytesIn")))


def _count(value: object) -> int | None:
    """A count or a time; None if it is none."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_COUNT
    return value if is_count and isinstance(value, int) else None


def _certificate_id(row: Mapping[str, Any]) -> str:
    value = row.get("certificateId")
    if value in _NOBODY:
        return ""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise InvalidError("a certificate id is 64 hexadecimal digits in lower case")
    return value


def _client_id(row: Mapping[str, Any]) -> str:
    value = row.get("clientId")
    if value in (None, ""):
        return ""
    if not isinstance(value, str):
        raise InvalidError("a client id is text")
    cut = value[:LONGEST_CLIENT_ID].replace("\0", "\ufffd")  # no database keeps null characters
    return cut.encode("utf-8", "replace").decode()


def _der(value: object) -> bytes | None:
    if value in _NOBODY:
        return None
    if not isinstance(value, str) or len(value) > LARGEST_DER * 4 // 3 + 4:
        raise InvalidError(f"a certificate in an event has at most {LARGEST_DER} bytes")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidError("a certificate in an event is DER in base64") from None
