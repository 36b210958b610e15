"""One JSON document, {"results": [...], "summary": {...}}: the lines of jsonl, and the run in numbers.

Written as it comes; the summary is last since it is complete only then. schema/document.schema.json defines it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TextIO

from keyassay.bulk.results import DeepSummary, Outcome, Result, Summary
from keyassay.findings import Classification, Confidence
from keyassay.output import Options, version
from keyassay.output.jsonl import Lines


def summary_fields(summary: Summary, options: Options) -> dict[str, Any]:
    """The ``summary`` object."""
    return {
        "keyassay": version(),
        "profile": summary.profile.label,
        "catalogue": summary.catalogue,
        "checks": [{"id": check, "version": number} for check, number in summary.checks],
        "left_out": list(summary.left_out),
        "items": summary.items,
        "read": summary.read,
        "assessed": summary.assessed,
        "not_assessed": summary.not_assessed,
        "unreadable": summary.unreadable,
        "passed_over": summary.passed_over,
        "kinds": {kind.value: count for kind, count in summary.kinds.items()},
        "keys": dict(summary.keys.most_common()),
        "worst": {one.value: summary.worst[one] for one in Classification},
        "by_check": dict(sorted(summary.by_check.items())),
        "confidence": {one.value: summary.confidence[one] for one in Confidence},
        "failing": options.gate.failing,
        "accepted": options.gate.accepted,
        "not_run": [{"check": one.check, "reason": one.reason} for one in summary.not_run],
        "lists": list(summary.lists),
        "stored": summary.stored,
        "deep": None if summary.deep is None else _deep_fields(summary.deep),
        "seconds": round(summary.seconds, 3),
        "interrupted": summary.interrupted,
        "exit_code": options.gate.exit_code(summary),
    }


def _deep_fields(deep: DeepSummary) -> dict[str, Any]:
    return {
        "budget": deep.budget,
        "total_budget": deep.total_budget or None,
        "keys": deep.keys,
        "examined": deep.examined,
        "broken": deep.broken,
        "seconds": round(deep.seconds, 3),
        "steps": [
            {
                "check": check,
                "step": step,
                "stage": count.stage,
                "outcomes": {one.value: count.outcomes[one] for one in Outcome if count.outcomes[one]},
            }
            for (check, step), count in deep.steps.items()
        ],
    }


def render(results: Iterable[Result], summary: Summary, stream: TextIO, options: Options) -> None:
    """Write the document."""
    lines = Lines(summary, options)
    stream.write('{"results": [')
    separator = "\n"
    for result in results:
        stream.write(separator + lines.line(result))
        separator = ",\n"
    stream.write("\n],\n")
    stream.write('"summary": ' + json.dumps(summary_fields(summary, options), indent=1) + "}\n")
