"""Markdown for pull requests and issues: one table of the worst items, short enough for a comment.

Everything foreign is in code spans, where no link, mention or markup works (``escaping.code_span``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TextIO

from keyassay.bulk.results import Result, Summary
from keyassay.findings import Classification
from keyassay.output import Options, version
from keyassay.output.description import (
    MEANING,
    Excerpt,
    deep_lines,
    evidence_text,
    left_out,
    names_of,
    next_steps,
    place,
    sentence,
    verdict,
)
from keyassay.output.escaping import code_span, markdown_text
from keyassay.output.values import error_text

#: comments on the large platforms end at 65,536 characters: as many items as fit, and room for the rest
_ITEMS = 50
_TABLE = 48_000


def render(results: Iterable[Result], summary: Summary, stream: TextIO, options: Options) -> None:
    """Write the report once the results have ended."""
    excerpt = Excerpt(options.gate, _ITEMS, 10).take(results)
    write = stream.write
    counts = ", ".join(f"**{summary.worst[one]:,} {one.value}**" for one in Classification)
    write(f"## keyassay: {counts}\n\n")
    write(
        f"{summary.read:,} items read, {summary.assessed:,} assessed, {summary.not_assessed:,} not assessed, "
        f"{summary.unreadable:,} unreadable; {len(summary.checks)} checks of profile {summary.profile.label} ran.\n"
    )
    if options.gate.accepted:
        write(f"{options.gate.accepted:,} findings are accepted by the baseline.\n")
    code, words = verdict(summary, options)
    write(f"\n**{words}** (exit code {code})\n")
    shown, rows = _table(excerpt, options)
    if shown:
        write("\n| class | severity | check | where | subject | finding |\n| --- | --- | --- | --- | --- | --- |\n")
        write("".join(rows))
    if len(shown) < excerpt.with_findings:
        told = Counter(finding.check for result in shown for finding in result.findings)
        rest = ", ".join(f"{name} {count:,}" for name, count in (summary.by_check - told).most_common())
        write(f"\nand {excerpt.with_findings - len(shown):,} more items: {rest}\n")
    elif not shown:
        write("\nThese checks found nothing, which is no proof that the keys are sound.\n")
    _listed(
        stream, "Unreadable", [(place(one), error_text(one) or "") for one in excerpt.unreadable], summary.unreadable
    )
    _listed(
        stream,
        "Not assessed",
        [(place(one), error_text(one) or "") for one in excerpt.not_assessed],
        summary.not_assessed,
    )
    if summary.not_run:
        write("\n### Not run\n\n")
        for note in summary.not_run:
            write(f"- `{note.check}`: {markdown_text(note.reason)}\n")
    if excerpt.not_run:
        write("\n### Checks that failed\n\n")
        for note, (item, count) in excerpt.not_run.items():
            write(f"- `{note.check}`: {code_span(note.reason, 300)}: {code_span(place(item))}, {count:,} in all\n")
    _next(stream, excerpt, options)
    _scope(stream, summary, options)


def _table(excerpt: Excerpt, options: Options) -> tuple[list[Result], list[str]]:
    """The worst items that fit, and their rows."""
    shown: list[Result] = []
    rows: list[str] = []
    room = _TABLE
    for result in excerpt.worst():
        more = list(_rows(result, options))
        room -= sum(len(row) for row in more)
        if room < 0 and shown:
            break
        shown.append(result)
        rows += more
    return shown, rows


def _rows(result: Result, options: Options) -> Iterator[str]:
    item = result.item
    where = code_span(f"{item.source} #{item.index}", 120)
    names = names_of(item)
    subject = code_span(names.subject or "", 80)
    for finding in result.findings:
        accepted = options.gate.acceptance(item, finding)
        text = markdown_text(sentence(finding.message))
        evidence = evidence_text(finding, reveal=options.reveal)
        if evidence:
            text += f"<br>{code_span(evidence, 160)}"
        if accepted:
            text += f"<br>accepted until {accepted.expires}: {code_span(accepted.reason, 120)}"
        yield (
            f"| {finding.classification.value} | {finding.severity.value} | `{finding.check}` | {where} | {subject} "
            f"| {text} |\n"
        )


def _listed(stream: TextIO, title: str, lines: list[tuple[str, str]], count: int) -> None:
    if not count:
        return
    stream.write(f"\n### {title}\n\n")
    stream.writelines(f"- {code_span(where, 200)}: {code_span(why, 300)}\n" for where, why in lines)
    if count > len(lines):
        stream.write(f"- and {count - len(lines):,} more\n")


def _next(stream: TextIO, excerpt: Excerpt, options: Options) -> None:
    steps = next_steps(excerpt, options, 3)
    if steps is None:
        return
    stream.write("\n### What to do next\n\n")
    stream.writelines(
        f"- **{check}** ({markdown_text(title)}): {markdown_text(remedy)}\n" for check, title, remedy in steps.remedies
    )
    if steps.others:
        stream.write(f"- and {', '.join(steps.others)}\n")
    if steps.prove:
        stream.write(f"\n{code_span(steps.prove)} shows every step of a proof.\n")


def _scope(stream: TextIO, summary: Summary, options: Options) -> None:
    stream.write("\n<details><summary>What was looked for</summary>\n\n")
    stream.writelines(f"- {one.value}: {meaning}\n" for one, meaning in MEANING.items())
    stream.write(f"\nChecks: {', '.join(f'{name}/{number}' for name, number in summary.checks)}\n")
    if summary.deep is not None:
        first, *steps = deep_lines(summary.deep)
        stream.write(f"\nDeep steps: {markdown_text(first)}\n\n")
        stream.writelines(f"- {markdown_text(line)}\n" for line in steps)
    more = left_out(summary, options)
    if more:
        left = "; ".join(f"{label}: {', '.join(names)}" for label, names in more.by_profile) or "no whole check"
        stream.write(f"\nLeft out by {more.by}: {left}. {more.remark}\n")
        stream.write(f"\n{code_span(more.command)}\n")
    stream.writelines(f"\nLists: {markdown_text(remark)}\n" for remark in summary.lists)
    stream.write(f"\ncatalogue {summary.catalogue}, keyassay {version()}\n\n</details>\n")
