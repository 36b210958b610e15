"""Revocation lists: endpoints of our own to upload, list and delete them."""

from __future__ import annotations

from typing import Any

from keyassay.aws.operations import Access, Request, endpoint
from keyassay.aws.services import actor_of, moment, paged, registry_of
from keyassay.registry import revocation

_PATH = "/keyassay/v1/revocation-lists"


def _shown(one: revocation.RevocationList) -> dict[str, Any]:
    return {
        "id": one.id,
        "issuer": one.issuer,
        "source": one.source,
        "thisUpdate": moment(one.this_update),
        "nextUpdate": moment(one.next_update),
        "storedAt": moment(one.stored_at),
        "size": one.size,
        "entries": one.entries,
    }


@endpoint(
    "POST",
    _PATH,
    access=Access.CHANGE,
    takes={
        "revocationList": {"type": "string", "min": 1, "max": 2 * revocation.LARGEST_LIST},
        "issuerCertificatePem": {"type": "string", "min": 1, "max": 65_536},
    },
    required=("revocationList",),
    body_limit=2 * revocation.LARGEST_LIST + 131_072,
)
def upload_revocation_list(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Take a revocation list, PEM or DER in base64, that an authority of the account signed, or the issuer named.

    The newest list of an issuer is kept. The audit checks of revoked certificates read it.
    """
    made = revocation.upload(
        registry_of(request),
        actor_of(request),
        params["revocationList"],
        issuer_pem=params.get("issuerCertificatePem"),
    )
    return _shown(made)


@endpoint(
    "GET",
    _PATH,
    access=Access.READ,
    takes={"nextToken": {"type": "string"}, "maxResults": {"type": "integer", "min": 1, "max": 250}},
)
def list_revocation_lists(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """The account's revocation lists without their entries, at most ten a page."""
    page = revocation.listed(
        registry_of(request), actor_of(request), token=params.get("nextToken"), size=params.get("maxResults")
    )
    return paged("revocationLists", map(_shown, page.rows), page, "nextToken")


@endpoint(
    "DELETE",
    f"{_PATH}/{{id}}",
    access=Access.CHANGE,
    takes={"id": {"type": "string", "pattern": "[0-9a-f]{32}"}},
)
def delete_revocation_list(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Forget a revocation list."""
    revocation.remove(registry_of(request), actor_of(request), params["id"])
    return {}
