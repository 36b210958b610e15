"""CSV for spreadsheets: one row per finding, and one for each item without any.

No cell can be taken for a formula, and every row stays on one line (``escaping.csv_cell``).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from typing import TextIO

from keyassay.bulk.results import Result, Summary, key_name
from keyassay.output import Options
from keyassay.output.description import names_of
from keyassay.output.escaping import csv_cell
from keyassay.output.values import error_text, evidence_fields

COLUMNS = (
    "source", "index", "kind", "key", "subject", "issuer", "serial", "sha256", "spki_sha256", "assessed", "error",
    "class", "severity", "confidence", "check", "reason_code", "message", "evidence", "accepted", "not_run",
)  # fmt: skip


def render(results: Iterable[Result], summary: Summary, stream: TextIO, options: Options) -> None:  # noqa: ARG001
    """Write the rows as results come."""
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    for result in results:
        item = result.item
        names = names_of(item)
        start: list[object] = [
            csv_cell(item.source),
            item.index,
            item.kind.value,
            csv_cell(key_name(item)),
            csv_cell(names.subject or ""),
            csv_cell(names.issuer or ""),
            csv_cell(names.serial or ""),
            (item.sha256 or b"").hex(),
            (item.spki_sha256 or b"").hex(),
            "yes" if item.assessed else "no",
            csv_cell(error_text(item) or ""),
        ]
        not_run = csv_cell("; ".join(f"{one.check}: {one.reason}" for one in result.not_run))
        if not result.findings:
            writer.writerow([*start, *[""] * 8, not_run])
        for finding in result.findings:
            acceptance = options.gate.acceptance(item, finding)
            writer.writerow([
                *start,
                finding.classification.value,
                finding.severity.value,
                finding.confidence.value,
                finding.check,
                finding.reason_code,
                csv_cell(finding.message),
                csv_cell(json.dumps(evidence_fields(finding, reveal=options.reveal))),
                csv_cell(f"until {acceptance.expires}: {acceptance.reason}" if acceptance else ""),
                not_run,
            ])  # fmt: skip
