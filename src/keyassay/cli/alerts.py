"""``keyassay alerts``: what somebody should look at now, from the registry's API."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from keyassay.cli.connection import api_options, ask_own, asking
from keyassay.cli.service import json_option, table
from keyassay.output.escaping import visible

_PAGE = 250
#: what of an alert's details the table shows
_SHOWN = ("problem", "sources", "clientId", "clientIds", "gate", "replacementId")


@click.command("alerts", short_help="See what somebody should look at now.")
@api_options
@click.option("--kind", metavar="NAME", help="Only those of this kind, such as key-in-two-places.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, metavar="N", help="At most.")
@json_option
def command(
    endpoint_url: str, aws_profile: str | None, region: str | None, kind: str | None, limit: int, as_json: bool
) -> int:
    """List the alerts of an account, newest first.

    \b
    Kinds:
      key-in-two-places          a key was used from two addresses at the same time
      revoked-certificate-tried  somebody who has the key of a revoked certificate tried to connect
      replacement-...            a replacement needs somebody's decision

    \b
    Examples:
      keyassay alerts
      keyassay alerts --kind key-in-two-places --json
    """  # noqa: D301  \b is click's mark for lines to keep
    found: list[dict[str, Any]] = []
    token = None
    with asking(endpoint_url):
        while len(found) < limit:
            query = {"maxResults": min(_PAGE, limit - len(found)), "kind": kind, "nextToken": token}
            given = {name: value for name, value in query.items() if value is not None}
            page = ask_own(endpoint_url, aws_profile, region, "/keyassay/v1/alerts", given, method="GET")
            found += page["alerts"]
            token = page.get("nextToken")
            if not token:
                break
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return 0
    if not found:
        click.echo("no alerts")
        return 0
    rows = [(_time(one["at"]), one["kind"], _about(one), _details(one.get("details", {}))) for one in found]
    click.echo(table(("at", "kind", "about", "details"), rows))
    return 0


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def _about(alert: dict[str, Any]) -> str:
    certificate = alert.get("certificateId", "")
    named = [visible(alert.get("thingName", "")), f"{certificate[:16]}..." if certificate else ""]
    return " ".join(filter(None, named)) or "-"


def _details(details: dict[str, Any]) -> str:
    shown = []
    for name in _SHOWN:
        value = details.get(name)
        if value:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            shown.append(f"{name}: {visible(text)}")
    return "; ".join(shown) or "-"
