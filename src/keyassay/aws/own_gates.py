"""What gates ask and tell, and what people ask about gates: endpoints of our own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from keyassay.aws.operations import Access, Request, endpoint
from keyassay.aws.services import actor_of, moment, registry_of
from keyassay.registry import gate_feed, gates

#: seconds that a request waits for something new at most; the server ends within this time, too
LONGEST_WAIT = 3.0
#: requests that wait at the same time: the others of the pool's 16 threads answer everything else
WAITING = threading.BoundedSemaphore(6)

_NAME = {"type": "string", "min": 1, "max": 64}
_CERTIFICATE_ID = {"type": "string", "min": 64, "max": 64}
_TOKEN: dict[str, dict[str, Any]] = {"nextToken": {"type": "string", "max": 1024}}


@contextmanager
def patience(wished: float) -> Iterator[float]:
    """Seconds that a request may wait: none if enough others wait already."""
    granted = wished > 0 and WAITING.acquire(blocking=False)
    try:
        yield min(wished, LONGEST_WAIT) if granted else 0.0
    finally:
        if granted:
            WAITING.release()


@endpoint(
    "GET",
    "/keyassay/v1/gate/changes",
    access=Access.GATE,
    takes={
        "after": {"type": "long", "min": 0},
        "epoch": {"type": "string", "max": 64},
        "wait": {"type": "integer", "min": 0, "max": 60},
        "position": {"type": "string", "max": 1024},
    },
    required=("after", "epoch"),
)
def gate_changes(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """What changed after a revision, as the present state of every certificate concerned.

    ``reset`` asks for a snapshot: the epoch is another one, or the revision never was. With ``complete`` false there is
    more: ask again at once, with the ``position`` if the answer has one. ``wait`` lets the answer come as soon as there
    is something, within some seconds; while many wait, the answer comes at once.
    """
    with patience(params.get("wait", 0)) as seconds:
        return gate_feed.changes(
            registry_of(request),
            actor_of(request),
            after=params["after"],
            epoch=params["epoch"],
            wait=seconds,
            position=params.get("position", ""),
        )


@endpoint("GET", "/keyassay/v1/gate/entries", access=Access.GATE, takes=_TOKEN)
def gate_entries(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """A page of the entries of all certificates; changes after ``revision`` of the first page complete them."""
    return gate_feed.snapshot(registry_of(request), actor_of(request), "entries", params.get("nextToken"))


@endpoint("GET", "/keyassay/v1/gate/things", access=Access.GATE, takes=_TOKEN)
def gate_things(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """A page of the names of all things."""
    return gate_feed.snapshot(registry_of(request), actor_of(request), "things", params.get("nextToken"))


@endpoint("GET", "/keyassay/v1/gate/authorities", access=Access.GATE)
def gate_authorities(request: Request, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001  takes none
    """Certificates (PEM) of the active authorities whose devices register when they first connect."""
    return gate_feed.authorities(registry_of(request), actor_of(request))


@endpoint(
    "PUT",
    "/keyassay/v1/gates/{name}",
    access=Access.GATE,
    takes={
        "name": _NAME,
        "epoch": {"type": "string", "max": 32},
        "revision": {"type": "long", "min": 0},
        "version": {"type": "string", "max": 64},
        "sessions": {"type": "integer", "min": 0},
        "refusals": {"type": "map", "key": {"type": "string", "max": 32}, "value": {"type": "long"}, "max": 64},
        "lagSeconds": {"type": "double"},
        "startedAt": {"type": "long", "min": 0},
    },
    required=("name", "epoch", "revision", "startedAt"),
)
def report_gate(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """What a gate says of itself: the revision that it has applied, its sessions and refusals."""
    told = gates.read_report({**params, "gate": params["name"]})
    gates.report(registry_of(request), actor_of(request), told)
    return {}


@endpoint("GET", "/keyassay/v1/gates", access=Access.READ)
def list_gates(request: Request, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001  takes none
    """All gates of the account, with what they reported last, beside the feed's last revision."""
    found = gates.listed(registry_of(request), actor_of(request))
    rows = [
        {
            "name": row["name"],
            "revision": row["revision"],
            "epoch": row["epoch"],
            "startedAt": moment(row["started_at"]),
            "reportedAt": moment(row["reported_at"]),
            "retiredAt": moment(row["retired_at"]),
            **row["details"],
        }
        for row in found["gates"]
    ]
    return {"feedEpoch": found["epoch"], "revision": found["revision"], "gates": rows}


@endpoint(
    "POST",
    "/keyassay/v1/gates/{name}/retire",
    access=Access.CHANGE,
    takes={"name": _NAME},
    required=("name",),
)
def retire_gate(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Say that a gate is gone for good: proofs of revocation do not wait for it; a report brings it back."""
    gates.retire(registry_of(request), actor_of(request), params["name"])
    return {"name": params["name"]}


@endpoint(
    "GET",
    "/keyassay/v1/certificates/{id}/revocation",
    access=Access.READ,
    takes={"id": _CERTIFICATE_ID},
    required=("id",),
)
def show_revocation(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Where it has arrived that a certificate may not connect any longer: each gate, and the sessions left there.

    ``everywhere`` is true once every gate that is not retired has applied the change and has no session left.
    """
    found = gates.revocation(registry_of(request), actor_of(request), params["id"])
    return {
        "certificateId": found.certificate_id,
        "status": found.status,
        "revision": found.revision,
        "at": moment(found.at),
        "everywhere": found.everywhere,
        "gates": [
            {
                "name": one.name,
                "state": "APPLIED" if one.applied else "LAGGING",
                "revision": one.revision,
                "reportedAt": moment(one.reported_at),
                "laggingSince": None if one.applied else moment(found.at),
                "sessions": one.sessions,
            }
            for one in found.gates
        ],
    }


@endpoint(
    "GET",
    "/keyassay/v1/certificates/{id}/connect",
    access=Access.READ,
    takes={"id": _CERTIFICATE_ID},
    required=("id",),
)
def show_connect(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Under which client ids gates let a certificate connect, and what of its policies they cannot express."""
    return gates.connect_entry(registry_of(request), actor_of(request), params["id"])
