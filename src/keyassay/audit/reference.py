"""The table of audit checks for docs/audit.md, made from the code.

``python -m keyassay.audit.reference docs/audit.md`` writes it between two marks of the page; a test fails when it is
stale.
"""

from __future__ import annotations

import sys
from pathlib import Path

from keyassay.audit.checks import AUDIT_CHECKS, AuditCheck, Needs

BEGIN, END = "<!-- checks: begin -->", "<!-- checks: end -->"


def table() -> str:
    """All audit checks, those that need AWS last."""
    head = "| check | severity | examines | needs | suppressed by |\n| --- | --- | --- | --- | --- |\n"
    checks = sorted(AUDIT_CHECKS.values(), key=lambda one: one.needs is Needs.AWS)
    return head + "\n".join(_row(one) for one in checks)


def _row(check: AuditCheck) -> str:
    needs = "" if check.needs is Needs.REGISTRY else check.needs.value
    return f"| {check.name} | {check.severity.value} | {check.examines} | {needs} | `{check.identifier}` |"


def reasons() -> str:
    """Reason codes with their sentences, check by check."""
    lines = []
    for check in AUDIT_CHECKS.values():
        if check.needs is Needs.AWS:
            continue
        lines.append(f"- {check.name}")
        lines += [f"  - `{code}`{': ' + sentence if sentence else ''}" for code, sentence in check.reasons.items()]
    return "\n".join(lines)


def page(text: str) -> str:
    """A page with the table and the reason codes as the code has them.

    Raises:
        ValueError: the page has not the two marks.
    """
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"the page lacks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table()}\n\n### Reason codes\n\n{reasons()}\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
