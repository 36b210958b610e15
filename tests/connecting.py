"""What gates tell, for tests: events and sessions with defaults, and a clock that can be set."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

import fleet_keys
from keyassay.registry import connections
from keyassay.registry.registry import Registry
from two_accounts import A

HOME, AWAY, THIRD = "192.0.2.1:1000", "198.51.100.7:2000", "203.0.113.3:3000"


def now() -> int:
    """The time, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def event(certificate_id: str, client_id: str = "pump", source: str = HOME, **more: Any) -> dict[str, Any]:
    """An event; ``ok`` and established unless something else is said."""
    told = {"at": now(), "verdict": "ok", "established": True, "tlsVersion": "TLSv1.3", "verifyCode": 0, "der": None}
    return {**told, "certificateId": certificate_id, "clientId": client_id, "source": source, **more}


def refused(certificate_id: str | None, verdict: str = "inactive", source: str = HOME, **more: Any) -> dict[str, Any]:
    """An event of a refused attempt."""
    return event(certificate_id or "-", source=source, verdict=verdict, established=False, **more)


def unregistered(device: fleet_keys.Signed, **more: Any) -> dict[str, Any]:
    """An event with which a device registers itself."""
    der = base64.b64encode(device.certificate.public_bytes(Encoding.DER)).decode()
    return refused(device.id, "unregistered", der=der, **more)


def session(certificate_id: str, client_id: str = "pump", source: str = HOME, bytes_in: int | None = None) -> Any:
    """A live session."""
    return {"certificateId": certificate_id, "clientId": client_id, "source": source, "bytesIn": bytes_in}


def tell(
    registry: Registry,
    *events: dict[str, Any],
    sessions: Sequence[dict[str, Any]] | None = None,
    gate: str = "one",
    actor: Any = A,
) -> dict[str, Any]:
    """Have a gate send events and sessions."""
    body = {"gate": gate, "events": list(events), "sessions": None if sessions is None else list(sessions)}
    return connections.record_events(registry, actor, body)
