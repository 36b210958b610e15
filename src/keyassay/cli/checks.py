"""``keyassay checks``: the catalogue, or one check's page."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from typing import Any

import click

from keyassay.bulk.deep import steps_of
from keyassay.checks import PAGE_SECTIONS, Check, DeepStep, catalogue, catalogue_digest, check
from keyassay.cli.parameters import CheckId
from keyassay.findings import Classification, Profile
from keyassay.output.description import MEANING, capitalised, sections
from keyassay.output.pages import STEPS_REMARK, TYPE_NAMES, facts

_COLOURS = {"broken": "red", "weak": "yellow", "notice": "cyan"}


@click.command("checks", short_help="List the checks, or explain one.")
@click.argument("check_id", type=CheckId(), required=False, metavar="[ID]")
@click.option("--steps", is_flag=True, help="List the deep steps, in the order in which profile deep runs them.")
@click.option("--json", "as_json", is_flag=True, help="For programs: metadata and page as JSON.")
def command(check_id: str | None, steps: bool, as_json: bool) -> None:
    """List the checks; with an ID show that check's page.

    A page says what the weakness is, how it is found and proved, what it costs, what could be mistaken for it, what it
    cannot see, and what to do.
    """
    chosen = [check(check_id)] if check_id else list(catalogue())
    if steps:
        _steps(chosen, as_json=as_json)
    elif as_json:
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
        "deep_steps": [_step_fields(step) for step in steps_of([one])],
        "page": sections(one),
        "references": list(meta.references),
    }


def _step_fields(step: DeepStep) -> dict[str, Any]:
    return {
        "check": step.check_id,
        "step": step.name,
        "stage": step.stage,
        "least_seconds": step.seconds,
        "uses_known_primes": step.uses_known_primes,
    }


def _steps(checks: list[Check[Any]], *, as_json: bool) -> None:
    found = steps_of(checks)
    if as_json:
        click.echo(json.dumps([_step_fields(step) for step in found], indent=2))
        return
    columns = min(shutil.get_terminal_size((100, 24)).columns, 120)
    width = max((len(step.check_id) for step in found), default=0)
    if found:
        click.echo(click.style(f"stage  {'seconds':>7}  {'check':<{width}}  step", bold=True))
    for step in found:
        click.echo(f"{step.stage:>5}  {step.seconds:>7g}  {step.check_id:<{width}}  {step.name}")
    if found:
        click.echo()
    click.echo(textwrap.fill(f"{len(found)} deep {'step' if len(found) == 1 else 'steps'}. {STEPS_REMARK}", columns))


def _list(checks: list[Check[Any]]) -> None:
    width = max((len(one.id) for one in checks), default=0)
    columns = min(shutil.get_terminal_size((100, 24)).columns, 120)
    room = max(columns - width - 15, 20)
    for worst in Classification:
        chosen = [one for one in checks if one.metadata.classification is worst]
        if not chosen:
            continue
        word = worst.value.upper()
        first, *more = textwrap.wrap(f"{word}  {MEANING[worst]}", columns, subsequent_indent="  ")
        click.echo(click.style(word, fg=_COLOURS[worst.value], bold=True) + first[len(word) :])
        for line in more:
            click.echo(line)
        click.echo()
        for one in chosen:
            known = [name for name in one.metadata.references if re.fullmatch(r"CVE-\d+-\d+", name)]
            title = capitalised(one.metadata.title)
            if known and worst is Classification.BROKEN:  # elsewhere a CVE is what the check is akin to
                title += f" ({', '.join(known)})"
            first, *more = textwrap.wrap(title, room) or [""]
            click.echo(f"  {one.id:<{width}}  {one.metadata.profile.label:<8}  {first}")
            for line in more:
                click.echo(" " * (width + 14) + line)
        click.echo()
    end = (
        f"{len(checks)} checks, each from the profile named beside it; catalogue {catalogue_digest()}. "
        "`keyassay checks ID` explains one."
    )
    click.echo(textwrap.fill(end, columns))


def _page(one: Check[Any]) -> None:
    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    meta = one.metadata

    def wrapped(text: str, first: str = "  ", rest: str = "  ") -> None:
        click.echo(textwrap.fill(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False))

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
            wrapped(paragraph)
    if one.deep_steps:
        click.echo("\n" + click.style("Deep steps", bold=True))
        wrapped(STEPS_REMARK)
        click.echo()
        for step in steps_of([one]):
            least = f"from {step.seconds:g} s"
            click.echo(f"  stage {step.stage}  {least:<12}  {step.name}")
    click.echo("\n" + click.style("Sources", bold=True))
    for reference in meta.references:
        wrapped(reference, "  - ", "    ")
    click.echo()
    if meta.explained_by:
        wrapped(f"Not reported where one of these has a finding on the same item: {', '.join(meta.explained_by)}.")
        click.echo()
    click.echo(f"  keyassay scan --check {meta.id} PATH...")
    click.echo(f"  keyassay prove --check {meta.id} FILE")
