"""The page about mitigation has the code's actions, checks, codes and numbers."""

from __future__ import annotations

import re
from pathlib import Path

from keyassay.audit.checks import AUDIT_CHECKS
from keyassay.mitigation import publishing, steps, worker
from keyassay.mitigation.actions import FITS

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "mitigation.md").read_text(encoding="utf-8")


def test_the_table_of_actions_is_the_code_s() -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \| ([^|]+) \|", PAGE, re.MULTILINE)
    said = {name: set(AUDIT_CHECKS) if checks == "all" else set(checks.split(", ")) for name, checks in rows}
    assert said == {kind.value: set(checks) for kind, checks in FITS.items()}


def test_codes_and_numbers_are_the_code_s() -> None:
    listed = PAGE.split("`errorCode`")[1].split("\n\n")[0]
    codes = {code for _, code in steps._CODES} | {steps.NOT_DELIVERED, steps.INTERNAL}
    assert set(re.findall(r"[A-Z]+_[A-Z_]+", listed)) == codes
    assert f"After {len(publishing.WAITS) + 1} attempts" in PAGE
    assert 45 * 60 < sum(publishing.WAITS) < 55 * 60
    kept = f"are kept for {publishing.KEPT} days, dead letters and tasks for {publishing.DEAD_KEPT}"
    assert kept in " ".join(PAGE.split())
    assert publishing.DEAD_KEPT == worker.RETENTION_DAYS
