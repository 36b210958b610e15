"""``keyassay checks``: the catalogue, or one check's page."""

from __future__ import annotations

import json
import shutil
import textwrap
from typing import Any

import click

from keyassay.checks import PAGE_SECTIONS, Check, catalogue, catalogue_digest, check
from keyassay.cli.parameters import CheckId
from keyassay.findings import Profile
from keyassay.output.description import sections
from keyassay.output.pages import TYPE_NAMES, facts

_COLOURS = {"broken": "red", "weak": "yellow", "notice": "cyan"}


@click.command("checks", short_help="List the checks, or explain one.")
@click.argument("check_id", type=CheckId(), required=False, metavar="[ID]")
@click.option("--json", "as_json", is_flag=True, help="For programs: metadata and page as JSON.")
def command(check_id: str | None, as_json: bool) -> None:
    """List the checks; with an ID show that check's page.

    A page says what the weakness is, how it is found and proved, what it costs, what could be mistaken for it, what it
    cannot see, and what to do.
    """
    chosen = [check(check_id)] if check_id else list(catalogue())
    if as_json:
        fields = [_fields(one) for one in chosen]
        click.echo(json.dumps(fields[0] if check_id else fields, indent=2))
    elif check_id:
        _page(chosen[0])
    else:
        _list(chosen)


def _fields(one: Check[Any]) -> dict[str, Any]:
    meta = one.metadata
    return {
        "id": meta.id,
        "title": meta.title,
        "class": meta.classification.value,
        "severity": meta.severity.value,
        "confidence": meta.confidence.value,
        "reason_code": meta.reason_code,
        "looks_at": one.shape,
        "key_types": [name for kind in meta.applies_to for name in TYPE_NAMES[kind]],
        "profiles": [profile.label for profile in Profile if one.runs_in(profile)],
        "version": meta.version,
        "since": meta.since,
        "explained_by": list(meta.explained_by),
        "page": sections(one),
        "references": list(meta.references),
    }


def _list(checks: list[Check[Any]]) -> None:
    width = max((len(one.id) for one in checks), default=0)
    room = max(shutil.get_terminal_size((100, 24)).columns - width - 22, 30)
    click.echo(f"{'check':<{width}}  {'class':<7} {'from':<9} finds")
    for one in checks:
        meta = one.metadata
        shown = click.style(f"{meta.classification.value:<7}", fg=_COLOURS[meta.classification.value])
        first, *more = textwrap.wrap(meta.title, room) or [""]
        click.echo(f"{one.id:<{width}}  {shown} {meta.profile.label:<9} {first}")
        for line in more:
            click.echo(" " * (width + 20) + line)
    click.echo(f"\n{len(checks)} checks, catalogue {catalogue_digest()}; `keyassay checks ID` explains one.")


def _page(one: Check[Any]) -> None:
    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    meta = one.metadata
    click.echo(click.style(f"{meta.id}: {meta.title}", bold=True))
    click.echo()
    for name, value in facts(one):
        click.echo(f"  {name:<12} {value}")
    parts = sections(one)
    for name in PAGE_SECTIONS:
        click.echo("\n" + click.style(name, bold=True))
        for number, paragraph in enumerate(parts.get(name, "").split("\n\n")):
            if number:
                click.echo()
            click.echo(textwrap.fill(paragraph, width - 2, initial_indent="  ", subsequent_indent="  "))
    click.echo("\n" + click.style("Sources", bold=True))
    for reference in meta.references:
        click.echo(textwrap.fill(reference, width - 2, initial_indent="  - ", subsequent_indent="    "))
    if meta.explained_by:
        click.echo(
            f"\n  Not reported where one of these has a finding on the same item: {', '.join(meta.explained_by)}"
        )
