"""The documented table of audit checks is the code's."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyassay.audit.checks import AUDIT_CHECKS
from keyassay.audit.reference import page, table

PAGE = Path(__file__).parents[2] / "docs" / "audit.md"


def test_the_page_is_what_the_code_says() -> None:
    """If not: `.venv/bin/python -m keyassay.audit.reference docs/audit.md`."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text)
    assert len(table().splitlines()) == len(AUDIT_CHECKS) + 2


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks"):
        page("nothing")
