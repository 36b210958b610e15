"""SARIF 2.1.0 (OASIS, 2020) for code hosts: checks are rules, findings are results, unread items are notifications.

A result's fingerprint is the certificate's SHA-256 and the check, so that a finding is known again wherever its
file moves; an accepted finding is a suppressed result.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any, TextIO
from urllib.parse import quote_from_bytes

from keyassay.bulk.results import Result, Summary
from keyassay.certificates.item import Item
from keyassay.checks import Check, check
from keyassay.findings import Classification, Confidence, Finding, Severity
from keyassay.output import Options, version
from keyassay.output.baseline import fingerprint
from keyassay.output.description import called, sections
from keyassay.output.escaping import markdown_text, visible
from keyassay.output.json_document import summary_fields
from keyassay.output.values import error_text, evidence_fields

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

_LEVELS = {Classification.BROKEN: "error", Classification.WEAK: "warning", Classification.NOTICE: "note"}
#: GitHub's scale of 0 to 10, as CVSS bands
_SECURITY = {Severity.CRITICAL: "9.5", Severity.HIGH: "8.0", Severity.MEDIUM: "5.5", Severity.LOW: "2.0"}
_PRECISION = {Confidence.PROVEN: "very-high", Confidence.CERTAIN: "high", Confidence.LIKELY: "medium"}
#: unread items are told one by one up to here, then counted
_NOTIFICATIONS = 1_000


def uri(source: str) -> str:
    """A source as a URI reference: relative where the path is, file:// where it is absolute; tls: and ssh: as given."""
    octets = source.encode("utf-8", "surrogateescape")
    for scheme in ("tls://", "ssh://"):
        if source.startswith(scheme):
            return scheme + quote_from_bytes(octets[len(scheme) :], safe="/:[]")
    path = quote_from_bytes(octets, safe="/!")
    return "file://" + path if PurePath(source).is_absolute() else path


def _location(item: Item) -> dict[str, Any]:
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": uri(item.source)},
            "region": {"byteOffset": max(item.offset, 0)},
        },
        "logicalLocations": [
            {"name": called(item), "fullyQualifiedName": visible(f"{item.source} #{item.index}"), "kind": "object"}
        ],
    }


def _rule(one: Check[Any]) -> dict[str, Any]:
    meta = one.metadata
    parts = sections(one)
    title = meta.title[:1].upper() + meta.title[1:]
    references = "\n".join(f"- {markdown_text(reference)}" for reference in meta.references)
    return {
        "id": meta.id,
        "name": "".join(part.capitalize() for part in meta.id.split("-")),
        "shortDescription": {"text": f"{title}."},
        "fullDescription": {"text": parts.get("Weakness", title)},
        "help": {
            "text": parts.get("Remedy", title),
            "markdown": f"{markdown_text(parts.get('Remedy', title))}\n\nSources:\n\n{references}",
        },
        "defaultConfiguration": {"level": _LEVELS[meta.classification]},
        "properties": {
            "tags": ["security", "cryptography", meta.classification.value],
            "precision": _PRECISION[meta.confidence],
            "security-severity": _SECURITY[meta.severity],
            "reasonCode": meta.reason_code,
            "version": meta.version,
        },
    }


def _result(item: Item, finding: Finding, rules: dict[str, int], options: Options) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "ruleId": finding.check,
        "ruleIndex": rules[finding.check],
        "kind": "fail",
        "level": _LEVELS[finding.classification],
        "message": {"text": visible(f"{finding.message} ({called(item)})")},
        "locations": [_location(item)],
        "properties": {
            "class": finding.classification.value,
            "severity": finding.severity.value,
            "confidence": finding.confidence.value,
            "reasonCode": finding.reason_code,
            "evidence": evidence_fields(finding, reveal=options.reveal),
        },
    }
    digest = fingerprint(item)
    if digest:
        fields["fingerprints"] = {"certificateAndCheck/v1": f"{digest}:{finding.check}"}
        fields["partialFingerprints"] = {"certificateAndCheck/v1": f"{digest}:{finding.check}"}
    accepted = options.gate.acceptance(item, finding)
    fields["suppressions"] = (
        [{"kind": "external", "status": "accepted", "justification": visible(accepted.reason)}] if accepted else []
    )
    return fields


def render(results: Iterable[Result], summary: Summary, stream: TextIO, options: Options) -> None:
    """Write the log as results come; the invocation is last since it is complete only then."""
    rules = {name: number for number, (name, _) in enumerate(summary.checks)}
    driver = {
        "name": "keyassay",
        "version": version(),
        "semanticVersion": version(),
        "rules": [_rule(check(name)) for name in rules],
    }
    stream.write(f'{{"$schema": "{SCHEMA}", "version": "2.1.0", "runs": [{{\n')
    stream.write(f'"tool": {{"driver": {json.dumps(driver)}}},\n')
    stream.write('"columnKind": "utf16CodeUnits",\n"results": [')
    separator = "\n"
    notifications: list[dict[str, Any]] = []
    untold = 0
    for result in results:
        item = result.item
        for finding in result.findings:
            stream.write(separator + json.dumps(_result(item, finding, rules, options)))
            separator = ",\n"
        told = [("error" if item.error else "warning", error_text(item))] if not item.assessed else []
        told += [("warning", f"{one.check} was not run: {one.reason}") for one in result.not_run]
        for level, text in told:
            if len(notifications) < _NOTIFICATIONS:
                message = {"text": visible(text or "not assessed")}
                notifications.append({"level": level, "message": message, "locations": [_location(item)]})
            else:
                untold += 1
    if untold:
        notifications.append({"level": "error", "message": {"text": f"and {untold} more items were not assessed"}})
    notifications += [
        {"level": "warning", "message": {"text": visible(f"{one.check} was not run: {one.reason}")}}
        for one in summary.not_run
    ]
    invocation = {
        "executionSuccessful": not summary.interrupted,
        "exitCode": options.gate.exit_code(summary),
        "toolExecutionNotifications": notifications,
        "properties": summary_fields(summary, options),
    }
    stream.write(f'\n],\n"invocations": [{json.dumps(invocation)}]\n}}]}}\n')
