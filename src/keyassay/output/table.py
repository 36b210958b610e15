"""The report for a person at a terminal: worst first, then the run in numbers, then what to do next.

Plain text without any package; colour is a handful of escape codes, only on a terminal. Nothing foreign reaches it
but through ``escaping.visible``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TextIO

from keyassay.bulk.results import Result, Summary
from keyassay.findings import Classification, Finding
from keyassay.output import Options, version
from keyassay.output.description import (
    MEANING,
    Excerpt,
    called,
    deep_lines,
    evidence_text,
    left_out,
    names_of,
    next_steps,
    place,
    sentence,
    verdict,
)
from keyassay.output.escaping import visible
from keyassay.output.values import error_text

_STYLES = {"bold": "1", "dim": "2", "broken": "1;31", "weak": "33", "notice": "36", "good": "32"}


class _Page:
    """Writes wrapped, indented, perhaps coloured lines."""

    def __init__(self, stream: TextIO, options: Options) -> None:
        self._stream = stream
        self._colour = options.colour
        self.width = max(options.width, 60)

    def style(self, text: str, name: str) -> str:
        return f"\x1b[{_STYLES[name]}m{text}\x1b[0m" if self._colour else text

    def line(self, text: str = "") -> None:
        self._stream.write(text + "\n")

    def wrapped(self, text: str, indent: int, style: str = "", *, hanging: int = 0) -> None:
        width = max(self.width - indent - hanging, 30)
        for number, line in enumerate(textwrap.wrap(text, width, break_on_hyphens=False) or [""]):
            before = " " * (indent + (hanging if number else 0))
            self.line(before + (self.style(line, style) if style else line))

    def heading(self, word: str, meaning: str, style: str) -> None:
        first, *more = textwrap.wrap(f"{word}  {meaning}", self.width, subsequent_indent=" " * (len(word) + 2))
        self.line(self.style(word, style) + first[len(word) :])
        for line in more:
            self.line(line)

    def label(self, name: str, text: str) -> None:
        lines = textwrap.wrap(text, max(self.width - 16, 40), break_on_hyphens=False) or [""]
        for number, line in enumerate(lines):
            first = "" if number else name
            self.line(f"  {self.style(f'{first:<13}', 'bold')} {line}")


def render(results: Iterable[Result], summary: Summary, stream: TextIO, options: Options) -> None:
    """Write the report once the results have ended."""
    excerpt = Excerpt(options.gate).take(results)
    page = _Page(stream, options)
    _findings(page, excerpt, summary, options)
    _unread(page, excerpt, summary)
    _summary(page, excerpt, summary, options)
    _next(page, excerpt, options)
    _left_out(page, summary, options)
    _verdict(page, summary, options)


def _findings(page: _Page, excerpt: Excerpt, summary: Summary, options: Options) -> None:
    shown = excerpt.worst()
    heading = None
    for result in shown:
        accepted = all(options.gate.acceptance(result.item, one) for one in result.findings)
        worst = next(
            (one for one in result.findings if not options.gate.acceptance(result.item, one)), result.findings[0]
        ).classification
        key = "accepted" if accepted else worst.value
        if key != heading:
            heading = key
            word = "ACCEPTED" if accepted else worst.value.upper()
            meaning = "by the baseline, still there" if accepted else MEANING[worst]
            page.heading(word, meaning, "dim" if accepted else worst.value)
            page.line()
        _item(page, result, options)
    rest = excerpt.remaining(summary)
    if len(shown) < excerpt.with_findings:
        page.line(f"and {excerpt.with_findings - len(shown):,} more items with findings, by check:")
        for check, count in rest.most_common():
            page.line(f"  {count:>9,}  {check}")
        page.line("  (--format jsonl or csv lists them all)")
        page.line()


def _item(page: _Page, result: Result, options: Options) -> None:
    item = result.item
    names = names_of(item)
    page.line(f"  {page.style(place(item), 'bold')}")
    page.wrapped(called(item), 4)
    identity = [f"serial {visible(names.serial, 64)}"] if names.serial else []
    if item.sha256:
        identity.append(f"sha256 {item.sha256.hex()}")
    if identity:
        page.wrapped(", ".join(identity), 4, "dim")
    for finding in result.findings:
        _finding(page, result, finding, options)
    page.line()


def _finding(page: _Page, result: Result, finding: Finding, options: Options) -> None:
    style = finding.classification.value
    severity = page.style(f"{finding.severity.value:<8}", style)
    axes = f"{finding.classification.value}, {finding.confidence.value}"
    page.line(f"    {severity}  {page.style(finding.check, style)}  {page.style(axes, 'dim')}")
    page.wrapped(sentence(finding.message), 14)
    evidence = evidence_text(finding, reveal=options.reveal)
    if evidence:
        page.wrapped(evidence, 14, "dim")
    accepted = options.gate.acceptance(result.item, finding)
    if accepted:
        page.wrapped(f"accepted until {accepted.expires}: {visible(accepted.reason, 300)}", 14, "good")
    expired = options.gate.expired_acceptance(result.item, finding)
    if expired:
        page.wrapped(f"acceptance expired on {expired.expires}: {visible(expired.reason, 300)}", 14, style)


def _unread(page: _Page, excerpt: Excerpt, summary: Summary) -> None:
    for title, lines, count in (
        (
            "UNREADABLE",
            [f"{place(item)}: {visible(error_text(item) or '', 300)}" for item in excerpt.unreadable],
            summary.unreadable,
        ),
        (
            "NOT ASSESSED",
            [f"{place(item)}: {called(item)}: {visible(error_text(item) or '', 300)}" for item in excerpt.not_assessed],
            summary.not_assessed,
        ),
        (
            "CHECKS THAT FAILED",
            [
                f"{one.check}: {visible(one.reason, 300)}: {place(item)}"
                + (f" and {count - 1:,} more" if count > 1 else "")
                for one, (item, count) in excerpt.not_run.items()
            ],
            len(excerpt.not_run) + excerpt.not_run_count - sum(count for _, count in excerpt.not_run.values()),
        ),
        (
            "REMARKS",
            [f"{place(item)}: {visible(text, 300)}" for item, text in excerpt.notices],
            excerpt.notice_count,
        ),
    ):
        if not count:
            continue
        page.line(page.style(title, "bold"))
        page.line()
        for line in lines:
            page.wrapped(line, 2, hanging=2)
        if count > len(lines):
            page.line(f"  and {count - len(lines):,} more (--format jsonl or csv lists them all)")
        page.line()


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _summary(page: _Page, excerpt: Excerpt, summary: Summary, options: Options) -> None:
    page.line(page.style("SUMMARY", "bold"))
    page.line()
    gate = options.gate
    page.label(
        "items",
        f"{summary.read:,} read ({summary.assessed:,} assessed, {summary.not_assessed:,} not assessed), "
        f"{summary.unreadable:,} unreadable"
        + (f"; {_counted(summary.passed_over, 'file', 'files')} passed over" if summary.passed_over else ""),
    )
    if summary.kinds:
        kinds = [f"{count:,} {kind.value}" for kind, count in summary.kinds.most_common() if count]
        page.label("kinds", ", ".join(kinds))
    if summary.keys:
        shown = [f"{count:,} {visible(name, 60)}" for name, count in summary.keys.most_common(12)]
        rest = len(summary.keys) - len(shown)
        page.label("keys", ", ".join(shown) + (f", {rest:,} other types or sizes" if rest > 0 else ""))
    counts = [
        page.style(f"{summary.worst[one]:,} {one.value}", one.value) if summary.worst[one] else f"0 {one.value}"
        for one in Classification
    ]
    nothing = summary.assessed - excerpt.with_findings
    page.line(f"  {page.style('worst finding', 'bold')} {', '.join(counts)}")
    if nothing > 0:
        items = _counted(nothing, "item", "items")
        page.label("", f"in {items} nothing was found by the checks below, which is no proof that the keys are sound")
    if gate.accepted or gate.expired:
        expired = f"; {gate.expired:,} no longer, their acceptance has expired" if gate.expired else ""
        page.label("baseline", f"{_counted(gate.accepted, 'finding', 'findings')} accepted{expired}")
    if summary.by_check:
        page.label("by check", ", ".join(f"{name} {count:,}" for name, count in summary.by_check.most_common()))
    if summary.stored:
        page.label("compared with", f"{_counted(summary.stored, 'key', 'keys')} of earlier runs")
    if summary.deep is not None:
        first, *more = deep_lines(summary.deep)
        page.label("deep steps", first)
        for line in more:
            page.label("", line)
    page.label(
        "checks",
        f"{len(summary.checks)} ran, profile {summary.profile.label}, catalogue {summary.catalogue}, "
        f"keyassay {version()}, {summary.seconds:.1f} s",
    )
    versions = [name if number == 1 else f"{name}/{number}" for name, number in summary.checks]
    page.label("", ", ".join(versions))
    for note in summary.not_run:
        page.label("not run", f"{note.check}: {visible(note.reason, 300)}")
    for remark in summary.lists:
        page.label("lists", visible(remark, 300))
    page.line()


def _next(page: _Page, excerpt: Excerpt, options: Options) -> None:
    steps = next_steps(excerpt, options)
    if steps is None:
        return
    page.line(page.style("WHAT TO DO NEXT", "bold"))
    page.line()
    for check, title, remedy in steps.remedies:
        page.line(f"  {page.style(check, 'bold')}  {title}")
        page.wrapped(remedy, 4)
    if steps.others:
        page.wrapped(f"and {', '.join(steps.others)}", 2, hanging=2)
    page.line()
    if steps.prove:
        page.line(f"  {steps.prove}")
        page.wrapped("shows every step of a proof; `keyassay checks ID` explains a check.", 4)
    else:
        page.line("  `keyassay checks ID` explains a check.")
    page.line()


def _left_out(page: _Page, summary: Summary, options: Options) -> None:
    more = left_out(summary, options)
    if more is None or not summary.items:
        return
    page.line(page.style("LEFT OUT", "bold") + f"  by {more.by}")
    page.line()
    for label, checks in more.by_profile:
        page.wrapped(f"{label}: {', '.join(checks)}", 2, hanging=2)
    page.wrapped(more.remark, 2)
    page.line(f"  {more.command}")
    page.line()


def _verdict(page: _Page, summary: Summary, options: Options) -> None:
    code, words = verdict(summary, options)
    style = "broken" if summary.worst[Classification.BROKEN] and code == 1 else "good" if code == 0 else "weak"
    page.line(page.style(f"{words}  (exit code {code})", style))
