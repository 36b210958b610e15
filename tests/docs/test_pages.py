"""docs/checks is what the docstrings say, for every check and for no other."""

from __future__ import annotations

from pathlib import Path

from keyassay.checks import catalogue
from keyassay.output.pages import pages, write

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "docs" / "checks"


def test_every_check_has_a_current_page() -> None:
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    wanted = pages()
    assert set(there) == {"README.md", *(f"{check.id}.md" for check in catalogue())} == set(wanted)
    stale = [name for name, text in wanted.items() if there[name] != text]
    assert stale == [], "run: .venv/bin/python -m keyassay.output.pages docs/checks"


def test_writing_pages_removes_those_of_checks_that_are_gone(tmp_path: Path) -> None:
    (tmp_path / "rsa-gone.md").write_text("old")
    (tmp_path / "notes.txt").write_text("kept")
    write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*pages(), "notes.txt"}
