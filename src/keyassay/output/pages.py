"""The pages of the checks: Markdown for docs/checks, made from each check's docstring and metadata.

``python -m keyassay.output.pages FOLDER`` writes them (docs/checks in a checkout); a test fails when they are stale.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from keyassay.bulk.deep import steps_of
from keyassay.certificates.public_key import DsaPublicKey, EcPublicKey, OkpPublicKey, RsaPublicKey
from keyassay.checks import PAGE_SECTIONS, Check, catalogue
from keyassay.findings import Profile
from keyassay.output.description import sections

#: the ``key.type`` of JSON lines for each class of keys
TYPE_NAMES = {
    RsaPublicKey: ("rsa",),
    EcPublicKey: ("ec",),
    OkpPublicKey: ("ed25519", "ed448", "x25519", "x448"),
    DsaPublicKey: ("dsa",),
}
STEPS_REMARK = (
    "What profile deep does on a key that nothing else has broken, in this order, until its budget is spent. A step is "
    "not started with less CPU time left than the least seconds, which are for 2048 bits."
)
_SHAPES = {
    "key": "one key at a time",
    "certificate": "certificates with names, validity and signature",
    "fleet": "the keys of a run together",
}


def facts(one: Check[Any]) -> list[tuple[str, str]]:
    """What a page says in its head, as (name, value)."""
    meta = one.metadata
    profiles = [profile.label for profile in Profile if one.runs_in(profile)]
    return [
        ("class", meta.classification.value),
        ("severity", meta.severity.value),
        ("confidence", meta.confidence.value),
        ("looks at", ", ".join(name for kind in meta.applies_to for name in TYPE_NAMES[kind]) or _SHAPES[one.shape]),
        ("runs in", ", ".join(profiles)),
        ("reason code", meta.reason_code),
        ("version", f"{meta.version}, since keyassay {meta.since}"),
    ]


def _markdown(text: str) -> str:
    """Our own words for Markdown: `code` stays code, and what could be mistaken for markup is escaped."""
    return "".join(
        part if part.startswith("`") else re.sub(r"([\\*_{}\[\]<>|~])", r"\\\1", part)
        for part in re.split(r"(`[^`]+`)", text)
    )


def _paragraphs(text: str) -> str:
    """A section of a docstring, which begins in the middle of a line: with a capital, unless that is a symbol's."""
    if re.match(r"[a-z]{2,}(?![\w/^=])|a (?!and |or |is |[^a-z])", text):
        text = text[0].upper() + text[1:]
    return _markdown(text)


def page(one: Check[Any]) -> str:
    """A check's page."""
    meta = one.metadata
    lines = [f"# {meta.id}: {_markdown(meta.title)}", ""]
    lines += ["<!-- Made from the check's docstring by `python -m keyassay.output.pages docs/checks`. -->", ""]
    lines += ["| | |", "| --- | --- |"]
    lines += [f"| {name} | {f'`{value}`' if name == 'reason code' else value} |" for name, value in facts(one)]
    parts = sections(one)
    for name in PAGE_SECTIONS:
        lines += ["", f"## {name}", "", _paragraphs(parts.get(name, ""))]
    if one.deep_steps:
        lines += ["", "## Deep steps", "", STEPS_REMARK, "", "| stage | step | least seconds |", "| --- | --- | --- |"]
        lines += [f"| {step.stage} | {_markdown(step.name)} | {step.seconds:g} |" for step in steps_of([one])]
    lines += ["", "## Sources", ""]
    lines += [f"- {_markdown(reference)}" for reference in meta.references]
    if meta.explained_by:
        others = ", ".join(f"[{other}]({other}.md)" for other in meta.explained_by)
        lines += ["", f"Not reported where one of these has a finding on the same item: {others}."]
    return "\n".join(lines) + "\n"


def index() -> str:
    """The list of all checks."""
    lines = ["# The checks", "", "<!-- Made by `python -m keyassay.output.pages docs/checks`. -->", ""]
    lines += ["| check | finds | class | confidence | from profile |", "| --- | --- | --- | --- | --- |"]
    for one in catalogue():
        meta = one.metadata
        lines.append(
            f"| [{meta.id}]({meta.id}.md) | {_markdown(meta.title)} | {meta.classification.value} "
            f"| {meta.confidence.value} | {meta.profile.label} |"
        )
    lines += ["", "## Deep steps", "", STEPS_REMARK, "", "| stage | check | step | least seconds |"]
    lines += ["| --- | --- | --- | --- |"]
    lines += [
        f"| {step.stage} | [{step.check_id}]({step.check_id}.md) | {_markdown(step.name)} | {step.seconds:g} |"
        for step in steps_of(catalogue())
    ]
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """All files of the folder by name."""
    return {"README.md": index(), **{f"{one.id}.md": page(one) for one in catalogue()}}


def write(folder: Path) -> None:
    """Write the folder anew; pages of checks that no longer exist are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for stale in {path.name for path in folder.glob("*.md")} - set(wanted):
        (folder / stale).unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m keyassay.output.pages docs/checks")
    write(Path(sys.argv[1]))
