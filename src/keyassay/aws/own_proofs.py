"""How devices prove themselves in replacements: secrets, claim certificates, keys, approvals; and claims over HTTPS."""

from __future__ import annotations

import json
from typing import Any

from keyassay.aws.errors import ServiceError
from keyassay.aws.operations import Access, Request, endpoint
from keyassay.aws.protocol import Response
from keyassay.aws.services import actor_of, moment, paged, registry_of
from keyassay.registry.errors import InvalidError
from keyassay.replacement import claims, delivery, provisioning
from keyassay.replacement.delivery import NotNowError, PendingError, ThrottledError
from keyassay.replacement.issuing import LARGEST_REQUEST, KeyRefusedError
from keyassay.replacement.proofs import LARGEST_VALUE, UnprovenError
from keyassay.replacement.units import UnitStateError

_ONE = "/keyassay/v1/replacements/{replacementId}"
_ID: dict[str, dict[str, Any]] = {"replacementId": {"type": "string", "min": 1, "max": 40}}
_THING: dict[str, Any] = {"type": "string", "min": 1, "max": 128}
_EXPIRES: dict[str, dict[str, Any]] = {
    "expiresInSeconds": {"type": "integer", "min": provisioning.SHORTEST, "max": provisioning.LONGEST}
}
_PEM: dict[str, Any] = {"type": "string", "min": 1, "max": 65_536}


def _each(member: str, shape: dict[str, Any]) -> dict[str, Any]:
    """A list of things, with something of each."""
    one = {"type": "structure", "members": {"thingName": _THING, member: shape}, "required": ("thingName", member)}
    return {"type": "list", "min": 1, "max": provisioning.MOST, "member": one}


def _by_thing(rows: list[dict[str, str]], member: str) -> dict[str, str]:
    found = {row["thingName"]: row[member] for row in rows}
    if len(found) != len(rows):
        raise InvalidError("a thing is named twice")
    return found


@endpoint(
    "POST",
    f"{_ONE}/secrets",
    access=Access.CHANGE,
    takes={
        **_ID,
        **_EXPIRES,
        "thingNames": {"type": "list", "min": 1, "max": provisioning.MOST, "member": _THING},
    },
    required=("expiresInSeconds",),
)
def create_claim_secrets(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Make claim secrets, which are in this answer and never shown again.

    For the things that are named, whose earlier secrets end; or for the next 1,000 that have no valid one: ``more``
    tells whether others are left.
    """
    made, more = provisioning.make_secrets(
        registry_of(request),
        actor_of(request),
        params["replacementId"],
        params["expiresInSeconds"],
        params.get("thingNames", ()),
    )
    return {
        "accountId": request.account_id,
        "replacementId": params["replacementId"],
        "secrets": [{"thingName": thing, "secret": secret} for thing, secret in made],
        "more": more,
    }


@endpoint(
    "PUT",
    f"{_ONE}/secrets",
    access=Access.CHANGE,
    takes={**_ID, **_EXPIRES, "secrets": _each("secret", {"type": "string", "min": 1, "max": 128})},
    required=("expiresInSeconds", "secrets"),
)
def import_claim_secrets(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Take claim secrets that the devices have already: base64 of 16 to 64 bytes, for each thing its own."""
    given = _by_thing(params["secrets"], "secret")
    provisioning.import_secrets(
        registry_of(request), actor_of(request), params["replacementId"], params["expiresInSeconds"], given
    )
    return {"things": len(given)}


@endpoint(
    "POST",
    f"{_ONE}/claim-certificates",
    access=Access.CHANGE,
    takes={
        **_ID,
        **_EXPIRES,
        "certificatePem": _PEM,
        "thingNames": {"type": "list", "min": 1, "max": provisioning.MOST, "member": _THING},
    },
    required=("expiresInSeconds", "certificatePem", "thingNames"),
)
def add_claim_certificate(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Let a claim certificate prove a request of each of some things; call it again for more things."""
    key_digest = provisioning.add_claim_certificate(
        registry_of(request),
        actor_of(request),
        params["replacementId"],
        params["expiresInSeconds"],
        params["certificatePem"],
        params["thingNames"],
    )
    return {"keySha256": key_digest}


@endpoint(
    "POST",
    f"{_ONE}/device-keys",
    access=Access.CHANGE,
    takes={**_ID, **_EXPIRES, "keys": _each("publicKeyPem", _PEM)},
    required=("expiresInSeconds", "keys"),
)
def register_device_keys(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Register another key of each device: RSA, P-256 to P-521, or Ed25519."""
    given = _by_thing(params["keys"], "publicKeyPem")
    provisioning.register_keys(
        registry_of(request), actor_of(request), params["replacementId"], params["expiresInSeconds"], given
    )
    return {"things": len(given)}


@endpoint(
    "POST",
    f"{_ONE}/approvals",
    access=Access.CHANGE,
    takes={**_ID, **_EXPIRES, "requests": _each("csrSha256", {"type": "string", "min": 64, "max": 95})},
    required=("expiresInSeconds", "requests"),
)
def approve_requests(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Approve requests for certificates by the SHA-256 of their DER, whether they wait or are still to come."""
    given = [(row["thingName"], row["csrSha256"]) for row in params["requests"]]
    provisioning.approve(
        registry_of(request), actor_of(request), params["replacementId"], params["expiresInSeconds"], given
    )
    return {"things": len(given)}


@endpoint(
    "GET",
    f"{_ONE}/waiting-requests",
    access=Access.READ,
    takes={**_ID, "nextToken": {"type": "string"}, "maxResults": {"type": "integer", "min": 1, "max": 250}},
)
def list_waiting_requests(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Requests of devices that wait for an approval, by thing; five of a thing at most."""
    page = provisioning.waiting(
        registry_of(request),
        actor_of(request),
        params["replacementId"],
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    rows = (
        {"thingName": row["thing"], "csrSha256": row["digest"], "receivedAt": moment(row["at"]), "key": row["key"]}
        for row in page.rows
    )
    return paged("requests", rows, page, "nextToken")


@endpoint(
    "POST",
    "/keyassay/v1/claims",
    access=Access.OPEN,
    takes={
        "accountId": {"type": "string", "min": 12, "max": 12},
        "replacementId": {"type": "string", "min": 1, "max": 40},
        "thingName": _THING,
        "certificateSigningRequest": {"type": "string", "min": 1, "max": LARGEST_REQUEST},
        "proof": {
            "type": "structure",
            "members": {
                "kind": {"type": "string", "min": 1, "max": 20},
                "value": {"type": "string", "max": LARGEST_VALUE},
            },
            "required": ("kind",),
        },
    },
    required=("accountId", "replacementId", "thingName", "certificateSigningRequest", "proof"),
    body_limit=32_768,
)
def claim_certificate(request: Request, params: dict[str, Any]) -> dict[str, Any] | Response:
    """A device asks for its new certificate over HTTPS, without a signature: its proof is all that counts.

    202 says that the certificate is being issued: the same claim again gets it. The rate is limited.
    """
    try:
        return claims.claim(registry_of(request), request.source_address, params, request.request_id)
    except PendingError:
        body = {"state": "PENDING", "retryAfterSeconds": delivery.RETRY_AFTER}
        headers = [(b"content-type", b"application/json"), (b"retry-after", b"%d" % delivery.RETRY_AFTER)]
        return Response(202, headers, json.dumps(body).encode())
    except ThrottledError as error:
        raise ServiceError("ThrottlingException", error.message) from None
    except UnprovenError:
        raise ServiceError("AccessDeniedException", "The claim is refused") from None
    except KeyRefusedError as error:
        raise ServiceError("InvalidRequestException", f"KeyRefused: {error.message}") from None
    except (NotNowError, UnitStateError) as error:
        raise ServiceError("CertificateStateException", error.message) from None


@endpoint(
    "POST",
    "/keyassay/v1/gate/deliveries",
    access=Access.GATE,
    takes={
        "messages": {
            "type": "list",
            "max": delivery.MOST_MESSAGES,
            "member": {
                "type": "structure",
                "members": {"topic": {"type": "string", "max": 65_535}, "payload": {"type": "string"}},
                "required": ("topic", "payload"),
            },
        }
    },
    required=("messages",),
)
def deliver_messages(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Answer what devices published at a gate's broker; the replies are to be published there."""
    return delivery.deliver(registry_of(request), actor_of(request), params["messages"])
