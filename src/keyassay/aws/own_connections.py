"""What gates tell of connections and publish for devices, who was connected when, and alerts: endpoints of our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyassay.aws.operations import Access, Request, endpoint
from keyassay.aws.own_gates import patience
from keyassay.aws.services import actor_of, moment, paged, registry_of
from keyassay.registry import alerts, certificates, connections, device_messages, things
from keyassay.registry.gate_events import EVENTS, SESSIONS
from keyassay.registry.registry import Page

_PAGE: dict[str, dict[str, Any]] = {
    "nextToken": {"type": "string"},
    "maxResults": {"type": "integer", "min": 1, "max": 250},
}
_TEXT: dict[str, Any] = {"type": "string"}
_COUNT: dict[str, Any] = {"type": "long", "min": 0}
_EVENT: dict[str, Any] = {
    "type": "structure",
    "members": {
        "at": _COUNT,
        "verdict": _TEXT,
        "certificateId": _TEXT,
        "clientId": _TEXT,
        "source": _TEXT,
        "tlsVersion": _TEXT,
        "verifyCode": {"type": "integer"},
        "established": {"type": "boolean"},
        "der": _TEXT,
    },
}
_SESSION: dict[str, Any] = {
    "type": "structure",
    "members": {"certificateId": _TEXT, "clientId": _TEXT, "source": _TEXT, "bytesIn": _COUNT},
}


@endpoint(
    "POST",
    "/keyassay/v1/gate/events",
    access=Access.GATE,
    takes={
        "gate": {"type": "string", "min": 1, "max": 64},
        "sentAt": _COUNT,
        "events": {"type": "list", "max": EVENTS, "member": _EVENT},
        "sessions": {"type": "list", "max": SESSIONS, "member": _SESSION},
    },
    required=("gate",),
    body_limit=32 << 20,
)
def record_gate_events(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """What a gate saw: attempts to connect, and (if it is there) the complete list of its live sessions.

    The same events may be sent again. The answer names the certificates that were registered just in time, and the
    events that make no sense.
    """
    return connections.record_events(registry_of(request), actor_of(request), params)


@endpoint(
    "GET",
    "/keyassay/v1/gate/messages",
    access=Access.GATE,
    takes={
        "after": _COUNT,
        "epoch": {"type": "string", "max": 64},
        "wait": {"type": "integer", "min": 0, "max": int(device_messages.LONGEST_WAIT)},
    },
)
def list_gate_messages(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Messages that a gate has to publish at its broker, after the number of the last one that it fetched.

    With the ``epoch`` of that answer, "" at first, all messages come that have not expired once the epoch is another
    one: numbers begin anew in a database that was restored. If there are none it waits for some, ``wait`` seconds at
    most; while many wait, the answer comes at once.
    """
    after, epoch = params.get("after", 0), params.get("epoch")
    with patience(params.get("wait", 0)) as seconds:
        return device_messages.pending(registry_of(request), actor_of(request), after, epoch, seconds)


@endpoint(
    "GET",
    "/keyassay/v1/alerts",
    access=Access.READ,
    takes={"kind": {"type": "string", "min": 1, "max": 64}, **_PAGE},
)
def list_alerts(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Alerts of the account, newest first."""
    page = alerts.listed(
        registry_of(request),
        actor_of(request),
        kind=params.get("kind"),
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    rows = ({**alerts.as_json(row), "at": moment(row["at"])} for row in page.rows)
    return paged("alerts", rows, page, "nextToken")


@endpoint(
    "GET",
    "/keyassay/v1/certificates/{certificateId}/connections",
    access=Access.READ,
    takes={"certificateId": {"type": "string", "min": 64, "max": 64, "pattern": "(0x)?[a-fA-F0-9]+"}, **_PAGE},
    required=("certificateId",),
)
def list_certificate_connections(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Who was connected with a certificate, newest first; whether somebody is now; and its latest refusals.

    The certificate need not be registered any more.
    """
    registry, actor = registry_of(request), actor_of(request)
    certificate_id = certificates.check_id(params["certificateId"])
    page = connections.of_certificate(
        registry, actor, certificate_id, token=params.get("nextToken"), size=params.get("maxResults")
    )
    with registry.database.read() as connection:
        seen = connections.last_seen(connection, actor.account_id, [certificate_id])
        connected = connections.is_connected(connection, actor.account_id, certificate_id)
    refusals = [
        {
            "gate": row["gate"],
            "verdict": row["verdict"],
            "source": row["source"] or None,
            "clientId": row["client_id"] or None,
            "count": row["count"],
            "firstAt": moment(row["first_at"]),
            "lastAt": moment(row["last_at"]),
        }
        for row in connections.refused(registry, actor, certificate_id)
    ]
    return {
        "certificateId": certificate_id,
        "connected": connected,
        "lastSeenAt": moment(seen.get(certificate_id)),
        **_paged(page),
        "refusals": refusals,
    }


@endpoint(
    "GET",
    "/keyassay/v1/things/{thingName}/connections",
    access=Access.READ,
    takes={"thingName": {"shape": "ThingName"}, **_PAGE},
    required=("thingName",),
)
def list_thing_connections(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Connections of a thing, newest first, and whether it is connected now.

    Those under its name as client id, and those with certificates that are attached to it alone.
    """
    registry, actor, name = registry_of(request), actor_of(request), params["thingName"]
    things.describe(registry, actor, name)
    page = connections.of_thing(registry, actor, name, token=params.get("nextToken"), size=params.get("maxResults"))
    seen, connected = connections.thing_seen(registry, actor, name)
    return {"thingName": name, "connected": connected, "lastSeenAt": moment(seen), **_paged(page)}


def _paged(page: Page[dict[str, Any]]) -> dict[str, Any]:
    return paged("connections", map(_interval, page.rows), page, "nextToken")


def _interval(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "connectionId": row["id"],
        "gate": row["gate"],
        "certificateId": row["certificate_id"],
        "clientId": row["client_id"] or None,
        "source": row["source"],
        "tlsVersion": None if row["tls_version"] in ("", "-") else row["tls_version"],
        "startedAt": moment(row["started_at"]),
        "seenAt": moment(row["seen_at"]),
        "endedAt": moment(row["ended_at"]),
    }
