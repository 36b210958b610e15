"""Links and paths in the documents lead somewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from keyassay.checks import catalogue

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
#: files that exist only after something was run, and names that stand for the reader's own
MADE = {"src/keyassay/lists/merged", "demo-fleet", "tests/vectors/checks/rsa-famous-prime.toml"}


def prose(path: Path) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors that code hosts make of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(path: Path) -> None:
    for target in LINK.findall(prose(path)):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        place, _, anchor = target.partition("#")
        there = (path.parent / place).resolve() if place else path
        assert there.exists(), f"{target} in {path.name}"
        if anchor:
            assert anchor in anchors(there), f"{target} in {path.name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_that_are_named_exist(path: Path) -> None:
    for name in re.findall(r"`((?:src|tests|docs|benchmarks|demo|requirements)/[\w./-]+?)/?`", prose(path)):
        assert name in MADE or (ROOT / name).exists(), f"{name} in {path.name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_checks_that_are_named_exist(path: Path) -> None:
    """In backticks, the word of a check's family and hyphens: an id that has to be in the catalogue."""
    known = {check.id for check in catalogue()} | {"rsa-famous-prime"}
    for name in re.findall(r"`((?:fleet|certificate|signature|any)-[a-z-]+)`", prose(path)):
        assert name in known, f"{name} in {path.name}"


def test_documents_name_no_file_of_this_machine_and_have_no_gap() -> None:
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"@[A-Z]+@|TODO|TBD", text), path.name
        assert not re.search(r"(?<![\w.])/(?:work|root|home|tmp)/", text), path.name


def test_every_document_can_be_reached_from_the_readme() -> None:
    found = {ROOT / "README.md"}
    waiting = [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        for target in LINK.findall(prose(path)):
            there = (path.parent / target.partition("#")[0]).resolve()
            if not re.match(r"[a-z]+:", target) and there.suffix == ".md" and there not in found:
                found.add(there)
                waiting.append(there)
    tracked = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
    documents = {ROOT / name for name in tracked.stdout.split()} or set(DOCUMENTS)
    assert {path.relative_to(ROOT) for path in documents - found} == set()
