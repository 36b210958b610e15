"""What operations work with: the server puts it together once, and every ``Request`` carries it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from keyassay.aws.operations import Request
from keyassay.registry.registry import Page, Registry
from keyassay.storage.database import Actor


@dataclass(frozen=True)
class Services:
    """The domain behind the API."""

    registry: Registry


def registry_of(request: Request) -> Registry:
    """The registry that the server serves."""
    services: Services = request.services
    return services.registry


def actor_of(request: Request) -> Actor:
    """Who asks, for the record of changes."""
    return Actor(request.account_id, request.access_key_id, request.source_address, request.request_id)


def moment(milliseconds: int | None) -> datetime | None:
    """A time of the database as the protocol layer takes it; None stays None (and is left out of results)."""
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


def paged(member: str, rows: Iterable[Mapping[str, Any]], page: Page[Any], token: str = "nextMarker") -> dict[str, Any]:  # noqa: S107  a name
    """The result of a list operation.

    Args:
        member: name of the list ("certificates").
        rows: its elements.
        page: where they come from; gives the token.
        token: name of the token's member: "nextMarker" or "nextToken".
    """
    return {member: list(rows), token: page.next_token}
