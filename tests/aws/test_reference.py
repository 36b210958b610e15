"""The table of operations is the code's: none is claimed that is not there, and the page is fresh."""

from __future__ import annotations

import json
from pathlib import Path

from keyassay.aws.reference import page, rows
from keyassay.cli.main import run

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_code_says() -> None:
    """If not: `.venv/bin/python -m keyassay.aws.reference docs/operations.md`."""
    assert (ROOT / "docs" / "operations.md").read_text() == page()


def test_the_command_lists_them(capsys) -> None:
    assert run(["operations", "--json"]) == 0
    named = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert named["RegisterCertificate"] == {
        "name": "RegisterCertificate",
        "method": "POST",
        "path": "/certificate/register",
        "access": "register",
        "supported": True,
    }
    assert named["ListChanges"]["path"] == "/keyassay/v1/changes"
    assert "CreateFleetMetric" not in named
    assert run(["operations", "--all"]) == 0
    assert "CreateFleetMetric" in capsys.readouterr().out


def test_names_are_unique() -> None:
    names = [row.name for row in rows()]
    assert len(names) == len(set(names)) > 270
