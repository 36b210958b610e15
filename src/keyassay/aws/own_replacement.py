"""Replacement of weak certificates: started, shown, steered by signed requests; endpoints of our own."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from keyassay.aws.errors import ServiceError
from keyassay.aws.operations import Access, Request, endpoint
from keyassay.aws.services import actor_of, moment, paged, registry_of
from keyassay.replacement import automatic, campaigns
from keyassay.replacement.campaigns import Funnel
from keyassay.replacement.planning import SHOWN, Radius
from keyassay.replacement.states import BEYOND_RETURN, CLOSED, WAY, WITH_DEVICE, State, Status
from keyassay.replacement.units import Unit

_PATH = "/keyassay/v1/replacements"
_ONE = f"{_PATH}/{{replacementId}}"
_POLICY = "/keyassay/v1/replacement-policy"

_ID: dict[str, dict[str, Any]] = {"replacementId": {"type": "string", "min": 1, "max": 40}}
_PAGE: dict[str, dict[str, Any]] = {
    "nextToken": {"type": "string"},
    "maxResults": {"type": "integer", "min": 1, "max": 250},
}
_THING: dict[str, Any] = {"type": "string", "min": 1, "max": 128}
_SELECTION: dict[str, dict[str, Any]] = {
    "findingIds": {"type": "list", "max": 100, "member": {"type": "string", "min": 1, "max": 128}},
    "certificateIds": {"type": "list", "max": 1000, "member": {"type": "string", "min": 64, "max": 64}},
    "auditTaskId": {"type": "string", "min": 1, "max": 40},
    "checkNames": {"type": "list", "max": 25, "member": {"type": "string", "max": 128}},
    "brokenOnly": {"type": "boolean"},
    "thingGroupName": {"type": "string", "min": 1, "max": 128},
}
_SETTINGS: dict[str, dict[str, Any]] = {
    "proof": {"type": "string", "enum": list(campaigns.PROOFS)},
    "trustOldKey": {"type": "boolean"},
    "issuer": {"type": "string", "enum": list(campaigns.ISSUERS)},
    "batch": {"type": "integer", "min": 1, "max": 10000},
    "haltOnFailures": {"type": "double", "min": 0, "max": 100},
    "graceSeconds": {"type": "integer", "min": 0, "max": 2678400},
    "stuckAfterSeconds": {"type": "integer", "min": 1, "max": 2678400},
}


def _chosen(params: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: params[name] for name in names if name in params}


@endpoint(
    "POST",
    _PATH,
    access=Access.CHANGE,
    takes={**_SELECTION, **_SETTINGS, "clientRequestToken": {"type": "string", "min": 1, "max": 64}},
    required=("clientRequestToken",),
)
def start_replacement(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Start the replacement of device certificates: of findings, of single ones, or of all that an audit found.

    Either ``proof`` or ``trustOldKey`` says how devices prove themselves. The same ``clientRequestToken`` again is the
    same replacement. Percent of failures, seconds of grace and the size of a batch have defaults: 2, 86,400 and 100.
    With ``issuer`` hook, NotConfiguredException says that no server or worker has run one for ten minutes.
    """
    replacement_id = campaigns.start(
        registry_of(request),
        actor_of(request),
        _chosen(params, _SELECTION),
        _chosen(params, _SETTINGS),
        params["clientRequestToken"],
    )
    return {"replacementId": replacement_id}


@endpoint("POST", f"{_PATH}/plan", access=Access.READ, takes=_SELECTION)
def plan_replacement(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """What a replacement of the same selection would touch; nothing changes.

    Counts of certificates, things, units and sessions that last now; policies and groups with what they count; the
    first hundred units, and the first hundred of what would be skipped, with the reason.
    """
    return _radius(campaigns.plan(registry_of(request), actor_of(request), _chosen(params, _SELECTION)))


def _radius(found: Radius) -> dict[str, Any]:
    return {
        "certificates": found.certificates,
        "sharedCertificates": found.shared,
        "things": found.things,
        "units": found.units,
        "connectedNow": found.connected,
        "unreachable": found.unreachable,
        "withoutThing": found.without_thing,
        "skipped": {reason.value: count for reason, count in sorted(found.skipped.items())},
        "policies": [{"policyName": name, "certificates": count} for name, count in found.policies.most_common(SHOWN)],
        "thingGroups": [{"groupName": name, "things": count} for name, count in found.groups.most_common(SHOWN)],
        "examples": [
            {"certificateId": one.old_certificate_id, "thingName": one.thing_name, "state": one.state.value}
            for one in found.examples
        ],
        "skippedExamples": [
            {"certificateId": certificate_id, "thingName": thing, "reason": reason.value}
            for certificate_id, thing, reason in found.skipped_examples
        ],
    }


@endpoint(
    "GET",
    _PATH,
    access=Access.READ,
    takes={**_PAGE, "status": {"type": "string", "enum": [one.value for one in Status]}},
)
def list_replacements(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Replacements of the account, the newest first."""
    page = campaigns.listed(
        registry_of(request),
        actor_of(request),
        status=params.get("status"),
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    return paged("replacements", (_shown(row) for row in page.rows), page, "nextToken")


def _shown(row: Mapping[Any, Any]) -> dict[str, Any]:
    settings = campaigns.Settings.read(row["settings"]).as_json()
    return {
        "replacementId": row["id"],
        "status": row["status"],
        "problem": row["problem"],
        "selection": row["selection"]["asked"],
        "settings": settings,
        "startedAt": moment(row["started_at"]),
        "endedAt": moment(row["ended_at"]),
    }


@endpoint("GET", _ONE, access=Access.READ, takes=_ID, required=("replacementId",))
def get_replacement(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """A replacement with its funnel.

    ``funnel`` counts units that are in a state or further on their way, ``states`` those that are in it now. ``stuck``
    counts units whose device was asked and has not gone on for ``stuckAfterSeconds``; ``failed`` those that count for
    ``haltOnFailures``; ``unproven`` those that wait until their device is given a secret or its key is registered.
    """
    now = time.time_ns() // 1_000_000
    row, found = campaigns.describe(registry_of(request), actor_of(request), params["replacementId"], now)
    return {
        **_shown(row),
        **_funnel(found, now),
        "planned": row["selection"]["position"] is None,
        "skipped": row["selection"]["skipped"],
        "skippedExamples": row["selection"]["skippedExamples"],
    }


def _funnel(found: Funnel, now: int) -> dict[str, Any]:
    aside = [state for state in State if state not in WAY]
    oldest = found.oldest_stuck_at
    return {
        "units": found.total,
        "begun": found.begun,
        "funnel": {state.value: count for state, count in found.reached.items()},
        "states": {state.value: found.states[state] for state in State if found.states.get(state)},
        "aside": {state.value: found.states[state] for state in aside if found.states.get(state)},
        "stuck": found.stuck,
        "oldestStuckSeconds": None if oldest is None else (now - oldest) // 1_000,
        "failed": found.failed,
        "unproven": found.unproven,
        "withProblem": found.with_problem,
    }


@endpoint(
    "GET",
    f"{_ONE}/units",
    access=Access.READ,
    takes={
        **_ID,
        **_PAGE,
        "state": {"type": "string", "enum": [one.value for one in State]},
        "thingName": _THING,
        "stuck": {"type": "boolean"},
        "withProblem": {"type": "boolean"},
    },
    required=("replacementId",),
)
def list_replacement_units(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Units of a replacement, by old certificate and thing; all, those in a state, those of a thing, or stuck ones."""
    registry, actor = registry_of(request), actor_of(request)
    now = time.time_ns() // 1_000_000
    row, _ = campaigns.describe(registry, actor, params["replacementId"], now)
    stuck_before = now - 1_000 * campaigns.Settings.read(row["settings"]).stuck_after
    page = campaigns.unit_page(
        registry,
        actor,
        params["replacementId"],
        states=[params["state"]] if "state" in params else (),
        thing_name=params.get("thingName"),
        stuck_before=stuck_before if params.get("stuck") else None,
        with_problem=params.get("withProblem", False),
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    return paged("units", (_unit(one, now, stuck_before) for one in page.rows), page, "nextToken")


def _unit(one: Unit, now: int, stuck_before: int) -> dict[str, Any]:
    return {
        "certificateId": one.old_certificate_id,
        "thingName": one.thing_name,
        "state": one.state.value,
        "since": moment(one.state_at),
        "ageSeconds": max(0, now - one.state_at) // 1_000,
        "begun": one.batch > 0,
        "stuck": one.state in WITH_DEVICE and one.batch > 0 and one.state_at < stuck_before,
        "newCertificateId": one.new_certificate_id,
        "csrSha256": one.csr_digest,
        "problem": one.problem,
        "canBeRolledBack": one.state not in (*BEYOND_RETURN, *CLOSED),
        "evidence": dict(one.evidence),
    }


@endpoint(
    "GET",
    f"{_ONE}/steps",
    access=Access.READ,
    takes={**_ID, **_PAGE, "thingName": _THING, "certificateId": {"type": "string", "min": 64, "max": 64}},
    required=("replacementId", "thingName"),
)
def list_replacement_steps(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """What happened to the units of a thing, in order, each step with its time and its evidence."""
    page = campaigns.steps(
        registry_of(request),
        actor_of(request),
        params["replacementId"],
        params["thingName"],
        old_certificate_id=params.get("certificateId"),
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    rows = (
        {
            "number": row["number"],
            "at": moment(row["at"]),
            "certificateId": row["old_certificate_id"],
            "thingName": row["thing_name"],
            "step": row["step"],
            "evidence": row["evidence"],
        }
        for row in page.rows
    )
    return paged("steps", rows, page, "nextToken")


def _status(request: Request, params: Mapping[str, Any]) -> dict[str, Any]:
    now = time.time_ns() // 1_000_000
    row, _ = campaigns.describe(registry_of(request), actor_of(request), params["replacementId"], now)
    return {"replacementId": row["id"], "status": row["status"]}


@endpoint("POST", f"{_ONE}/pause", access=Access.CHANGE, takes=_ID, required=("replacementId",))
def pause_replacement(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Begin nothing, issue nothing, and touch no old certificate until the replacement is resumed."""
    campaigns.pause(registry_of(request), actor_of(request), params["replacementId"])
    return _status(request, params)


@endpoint("POST", f"{_ONE}/resume", access=Access.CHANGE, takes=_ID, required=("replacementId",))
def resume_replacement(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Go on with a replacement that is PAUSED or HALTED; failures that there are already count no more."""
    campaigns.resume(registry_of(request), actor_of(request), params["replacementId"])
    return _status(request, params)


@endpoint(
    "POST",
    f"{_ONE}/cancel",
    access=Access.CHANGE,
    takes={**_ID, "thingName": _THING},
    required=("replacementId",),
)
def cancel_replacement(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Roll back a replacement, or one thing of it: old certificates ACTIVE again, new ones INACTIVE and detached.

    What was REVOKED stays so, and is detached. ``endedAt`` is set when all is rolled back. A device whose old
    certificate cannot be had back keeps its new one.
    """
    registry, actor = registry_of(request), actor_of(request)
    if "thingName" in params:
        campaigns.roll_back(registry, actor, params["replacementId"], params["thingName"])
    else:
        campaigns.cancel(registry, actor, params["replacementId"])
    return _status(request, params)


@endpoint(
    "POST",
    f"{_ONE}/retry",
    access=Access.CHANGE,
    takes={**_ID, "thingName": _THING, "afresh": {"type": "boolean"}},
    required=("replacementId", "thingName"),
)
def retry_replacement(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Let the units of a thing that are HALTED or FAILED go on where they were.

    With ``afresh`` they begin anew: the new certificate is given up, and the device may ask with another request.
    """
    found = campaigns.retry(
        registry_of(request),
        actor_of(request),
        params["replacementId"],
        params["thingName"],
        afresh=params.get("afresh", False),
    )
    return {**_status(request, params), "states": [one.state.value for one in found]}


@endpoint("GET", _POLICY, access=Access.READ)
def get_replacement_policy(request: Request, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001  as all
    """Whether audits start replacements by themselves, and with which settings.

    ``problem`` says why they start none at present: nobody runs the issuing hook that the settings name. Audits that
    end meanwhile are acted upon when somebody does.
    """
    found = automatic.policy(registry_of(request), actor_of(request))
    if found is None:
        raise ServiceError("ResourceNotFoundException", "there is no replacement policy")
    return found


@endpoint(
    "PUT",
    _POLICY,
    access=Access.CHANGE,
    takes={"enabled": {"type": "boolean"}, "thingGroupName": _SELECTION["thingGroupName"], **_SETTINGS},
    required=("enabled",),
)
def put_replacement_policy(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Let audits that end from now on start replacements of the certificates whose keys they proved broken, or not.

    Without settings those that were set before stay.
    """
    settings = _chosen(params, _SETTINGS)
    return automatic.set_policy(
        registry_of(request),
        actor_of(request),
        enabled=params["enabled"],
        settings=settings or None,
        group=params.get("thingGroupName", ""),
    )
