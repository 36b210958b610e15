"""One self-contained HTML file: no script, no address, charts as inline SVG, light and dark.

Everything is escaped by the template engine, invisible characters before that; a content security policy allows the
one style sheet (by its digest) and nothing else, so that a certificate's name can never become part of the page.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, TextIO

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from keyassay.bulk.results import Result, Summary
from keyassay.certificates.item import Item
from keyassay.checks import check
from keyassay.findings import Classification
from keyassay.output import Options, version
from keyassay.output.description import (
    MEANING,
    Excerpt,
    called,
    deep_lines,
    left_out,
    names_of,
    next_steps,
    place,
    sentence,
    value_text,
    verdict,
)
from keyassay.output.escaping import visible
from keyassay.output.values import error_text, evidence_fields

#: items in detail: a browser shows a thousand cards without effort
_ITEMS = 1_000
_BARS = 14


def render(results: Iterable[Result], summary: Summary, stream: TextIO, options: Options) -> None:
    """Write the page once the results have ended."""
    excerpt = Excerpt(options.gate, _ITEMS, 100).take(results)
    folder = files("keyassay.output")
    css = folder.joinpath("report.css").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(folder.joinpath("report.html.jinja").read_text(encoding="utf-8"))
    shown = excerpt.worst()
    code, words = verdict(summary, options)
    page = template.render(
        # The style sheet is a file of ours.
        css=Markup(css),  # noqa: S704
        css_digest=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        summary=summary,
        version=version(),
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        meanings=[(one.value, meaning) for one, meaning in MEANING.items()],
        nothing=max(summary.assessed - excerpt.with_findings, 0),
        stack=_stack(summary, excerpt),
        charts=[
            _chart("Findings by check", summary.by_check, classes=True),
            _chart("Keys", summary.keys, classes=False),
        ],
        verdict=words,
        code=code,
        tone=_tone(summary, code),
        next=next_steps(excerpt, options),
        items=[_item(result, options) for result in shown],
        omitted=excerpt.with_findings - len(shown),
        rest=", ".join(f"{name} {count:,}" for name, count in excerpt.remaining(summary).most_common()),
        lists=_lists(excerpt, summary),
        accepted=options.gate.accepted,
        expired=options.gate.expired,
        more=left_out(summary, options),
        deep=None if summary.deep is None else deep_lines(summary.deep),
    )
    stream.write(page + "\n")


def _tone(summary: Summary, code: int) -> str:
    """The colour of the verdict."""
    if code == 0:
        return "good"
    return "broken" if code == 1 and summary.worst[Classification.BROKEN] else "weak"


def _stack(summary: Summary, excerpt: Excerpt) -> list[dict[str, Any]]:
    """The parts of the one bar that shows all items; even one broken key among a million stays visible."""
    parts = [(one.value, one.value, summary.worst[one]) for one in Classification]
    parts += [
        ("nothing found", "nothing", max(summary.assessed - excerpt.with_findings, 0)),
        ("not assessed or unreadable", "unread", summary.not_assessed + summary.unreadable),
    ]
    parts = [part for part in parts if part[2]]
    total = sum(count for _, _, count in parts) or 1
    widths = [max(400 * count / total, 4.0) for _, _, count in parts]
    scale = 400 / (sum(widths) or 1)
    found = []
    x = 0.0
    for (name, style, count), width in zip(parts, widths, strict=True):
        found.append(
            {"name": name, "style": style, "count": f"{count:,}", "x": f"{x:.2f}", "width": f"{width * scale:.2f}"}
        )
        x += width * scale
    return found


def _chart(title: str, counts: Counter[str], *, classes: bool) -> dict[str, Any]:
    """Bars of logarithmic length, so that one and a million fit into one chart; the number stands beside."""
    largest = math.log1p(max(counts.values(), default=1))
    bars = [
        {
            "name": visible(name, 40),
            "style": check(name).metadata.classification.value if classes else "nothing",
            "count": f"{count:,}",
            "width": f"{100 * math.log1p(count) / largest:.1f}",
        }
        for name, count in counts.most_common(_BARS)
    ]
    return {"title": title, "bars": bars, "more": len(counts) - len(bars)}


def _item(result: Result, options: Options) -> dict[str, Any]:
    item = result.item
    names = names_of(item)
    identity = [("serial", visible(names.serial, 64))] if names.serial else []
    identity += [("sha256", item.sha256.hex())] if item.sha256 else []
    findings = []
    for finding in result.findings:
        accepted = options.gate.acceptance(item, finding)
        expired = options.gate.expired_acceptance(item, finding)
        remark = ""
        if accepted:
            remark = f"accepted until {accepted.expires}: {visible(accepted.reason, 300)}"
        elif expired:
            remark = f"acceptance expired on {expired.expires}: {visible(expired.reason, 300)}"
        evidence = [
            (visible(name.replace("_", " ")), visible(value_text(value), 4_096))
            for name, value in evidence_fields(finding, reveal=options.reveal).items()
        ]
        findings.append(
            {
                "style": "accepted" if accepted else finding.classification.value,
                "severity": finding.severity.value,
                "check": finding.check,
                "class": finding.classification.value,
                "confidence": finding.confidence.value,
                "message": sentence(finding.message),
                "accepted": remark,
                "evidence": [("reason code", finding.reason_code), *evidence],
            }
        )
    counting = [one for one in result.findings if not options.gate.acceptance(item, one)]
    style = counting[0].classification.value if counting else "accepted"
    return {
        "style": style,
        "place": place(item),
        "called": called(item),
        "identity": identity,
        "findings": findings,
    }


def _lists(excerpt: Excerpt, summary: Summary) -> list[tuple[str, list[tuple[str, str]], int]]:
    def placed(lines: Iterable[tuple[Item, str | None]]) -> list[tuple[str, str]]:
        return [(place(item), visible(text or "", 400)) for item, text in lines]

    failed = [
        (
            place(item),
            visible(f"{note.check}: {note.reason}", 400) + (f" (and {count - 1:,} more)" if count > 1 else ""),
        )
        for note, (item, count) in excerpt.not_run.items()
    ]
    told = sum(count for _, count in excerpt.not_run.values())
    not_assessed = [(item, f"{called(item)}: {error_text(item)}") for item in excerpt.not_assessed]
    found = [
        ("Unreadable", placed((item, error_text(item)) for item in excerpt.unreadable), summary.unreadable),
        ("Not assessed", placed(not_assessed), summary.not_assessed),
        ("Remarks", placed(excerpt.notices), excerpt.notice_count),
        ("Checks that failed", failed, len(failed) + excerpt.not_run_count - told),
        ("Not run", [(note.check, visible(note.reason, 300)) for note in summary.not_run], len(summary.not_run)),
        ("Lists", [("", visible(remark, 300)) for remark in summary.lists], len(summary.lists)),
    ]
    return [(title, lines, count - len(lines)) for title, lines, count in found]
