"""JUnit XML for build servers: one test case an item; a finding that fails the run is a failure.

Unreadable items are errors, items not assessed are skipped. Test cases wait in a temporary file, since the counts
come first in the document.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from typing import TextIO
from xml.sax.saxutils import escape, quoteattr

from keyassay.bulk.results import Result, Summary
from keyassay.certificates.item import Kind
from keyassay.output import Options
from keyassay.output.description import called, evidence_text, sentence
from keyassay.output.escaping import visible
from keyassay.output.values import error_text


def render(results: Iterable[Result], summary: Summary, stream: TextIO, options: Options) -> None:
    """Write the document once the results have ended."""
    failures = errors = skipped = tests = 0
    with tempfile.TemporaryFile("w+", encoding="utf-8", prefix="keyassay-") as cases:
        for result in results:
            item = result.item
            tests += 1
            text = ""
            if item.kind is Kind.UNREADABLE:
                errors += 1
                text = f"<error message={_attribute(error_text(item) or '')}/>"
            elif not item.assessed:
                skipped += 1
                text = f"<skipped message={_attribute(error_text(item) or '')}/>"
            elif result.findings:
                failing = [one for one in result.findings if options.gate.fails(item, one)]
                failures += bool(failing)
                text = _finding(result, options, failed=bool(failing))
            cases.write(
                f"  <testcase classname={_attribute(item.source)} "
                f"name={_attribute(f'{item.index}: {called(item)}')}>{text}</testcase>\n"
            )
        counts = f'tests="{tests}" failures="{failures}" errors="{errors}" skipped="{skipped}"'
        seconds = f'time="{summary.seconds:.3f}"'
        stream.write('<?xml version="1.0" encoding="UTF-8"?>\n')
        stream.write(
            f'<testsuites name="keyassay" tests="{tests}" failures="{failures}" errors="{errors}" {seconds}>\n'
        )
        stream.write(f'<testsuite name="keyassay {summary.profile.label}" {counts} {seconds}>\n')
        properties = [("catalogue", summary.catalogue), ("profile", summary.profile.label)]
        properties += [(f"not run: {one.check}", one.reason) for one in summary.not_run]
        stream.write("  <properties>\n")
        stream.writelines(
            f"    <property name={_attribute(name)} value={_attribute(value)}/>\n" for name, value in properties
        )
        stream.write("  </properties>\n")
        cases.seek(0)
        shutil.copyfileobj(cases, stream)
    stream.write("</testsuite>\n</testsuites>\n")


def _attribute(text: str) -> str:
    return quoteattr(visible(text, 1_000))


def _finding(result: Result, options: Options, *, failed: bool) -> str:
    """One failure that lists all findings, or their text as output where none of them fails the run."""
    lines = []
    for finding in result.findings:
        accepted = options.gate.acceptance(result.item, finding)
        lines.append(
            f"{finding.check}: {finding.classification.value}, {finding.severity.value}, {finding.confidence.value}: "
            f"{sentence(finding.message)} ({evidence_text(finding, reveal=options.reveal) or 'verified'})"
            + (f" [accepted until {accepted.expires}: {visible(accepted.reason, 300)}]" if accepted else "")
        )
    text = escape("\n".join(lines))
    if not failed:
        return f"<system-out>{text}</system-out>"
    worst = next(one for one in result.findings if options.gate.fails(result.item, one))
    return f'<failure type="{worst.check}" message={_attribute(worst.message)}>{text}</failure>'
