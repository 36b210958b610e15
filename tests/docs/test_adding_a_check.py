"""The example of docs/adding-a-check.md is a check that works: page, screen, vectors, evidence."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

import gmpy2
import pytest

from keyassay.bulk.deep import examine_deeply
from keyassay.bulk.results import Outcome
from keyassay.certificates.batches import group_keys
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import PAGE_SECTIONS, Check, Context
from keyassay.findings import Finding, Profile
from vectors_of_checks import key_of

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "docs" / "adding-a-check.md").read_text(encoding="utf-8")
NAME = "keyassay.checks.rsa_famous_prime"
IMPORTS = """
import numpy as np
from keyassay.certificates.batches import RsaBatch
from keyassay.checks import Effort, Rows
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Check:
    module: ModuleType = module_from_spec(ModuleSpec(NAME, None))
    monkeypatch.setitem(sys.modules, NAME, module)
    first, screen, deep = blocks("python")
    exec(compile(first, NAME, "exec"), module.__dict__)
    exec(compile(IMPORTS + screen, NAME, "exec"), module.__dict__)
    exec(compile(deep, NAME, "exec"), module.__dict__)
    (found,) = (value for value in vars(module).values() if isinstance(value, Check))
    return found


def findings(check: Check, key: dict[str, object]) -> list[Finding]:
    context = Context(profile=Profile.STANDARD)
    return [
        check.finding(batch.key(row), verdict)
        for batch, _ in group_keys([key_of(key)])
        for row, verdict in check.find(batch, context)
    ]


def test_the_example_has_a_page(check: Check) -> None:
    assert check.id == "rsa-famous-prime"
    assert [name for name in PAGE_SECTIONS if f"\n{name}: " in check.page] == list(PAGE_SECTIONS)


def test_the_example_finds_its_vectors(check: Check) -> None:
    cases = tomllib.loads(blocks("toml")[0])["case"]
    assert {case["verdict"] for case in cases} == {"weak", "near-miss", "healthy"}
    for case in cases:
        found = findings(check, case["key"])
        assert bool(found) == (case["verdict"] == "weak"), case["name"]
        for one in found:
            assert one.classification.value == case["classification"]
            assert one.confidence.value == case["confidence"]
            assert not set(one.evidence.describe()) & set(one.evidence.secrets())


def test_the_deep_step_finds_what_it_says(check: Check) -> None:
    (prime,) = sys.modules[NAME].PRIMES.values()
    factor = int(gmpy2.next_prime(prime + 1_000))
    key = RsaPublicKey(factor * (2**521 - 1), 65537)
    context = Context(profile=Profile.DEEP)
    (found,), (report,) = examine_deeply(key, [check], context, 20.0)
    assert found.evidence.secrets() == {"factor": factor}
    assert report.outcome is Outcome.FOUND
    assert examine_deeply(key, [check], context, 0.0)[1][0].outcome is Outcome.NOT_STARTED
    farther = RsaPublicKey(int(gmpy2.next_prime(prime + 131_072)) * (2**521 - 1), 65537)
    none, (report,) = examine_deeply(farther, [check], context, 20.0)
    assert not none
    assert (report.outcome, report.detail) == (Outcome.DONE, "64 of 64 blocks of 1,024 numbers")
    short = RsaPublicKey((2**521 - 1) * (2**607 - 1), 65537)
    assert examine_deeply(short, [check], context)[1][0].outcome is Outcome.DOES_NOT_APPLY


def test_it_names_all_sections_and_files_that_exist() -> None:
    assert "All seven sections" in TEXT
    assert len(PAGE_SECTIONS) == 7
    for path in re.findall(r"`((?:src|tests|docs)/[\w/.-]+)`", TEXT):
        if "famous" not in path:
            assert (ROOT / path).exists(), path
