"""The limits on the page of input forms are those of the code."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

from keyassay.certificates.limits import DEFAULT_LIMITS

PAGE = Path(__file__).parent.parent.parent / "docs" / "input.md"


def test_the_page_states_every_limit():
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", PAGE.read_text(), re.MULTILINE)
    assert {name: int(value.replace(",", "")) for name, value in rows} == asdict(DEFAULT_LIMITS)
