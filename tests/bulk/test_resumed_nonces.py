"""Lattices over the signatures of a signer go on where an earlier run with the same store stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from keyassay.bulk.results import Settings, Summary
from keyassay.bulk.scan import Scan
from keyassay.certificates import uneven_nonces
from keyassay.certificates.item import Item
from keyassay.findings import Profile
from keyassay.keymath.hidden_number import Attempt
from vectors_of_checks import cases_of

CHECK = "fleet-signature-nonce"
NUMBERS = count(1)


def items_of(name: str) -> tuple[Item, ...]:
    [case] = [case for case in cases_of(CHECK) if case.name == name]
    return case.items


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """The lattices that have been reduced, one by one: place among the attempts on a signer, and what it was for."""
    told: list[tuple[int, str]] = []
    original = uneven_nonces.attempts

    def watched(lines: list[tuple[int, int]], order: int, *, low: bool) -> Iterator[Attempt]:
        for place, attempt in enumerate(original(lines, order, low=low)):

            def run(place: int = place, attempt: Attempt = attempt) -> Iterator[int]:
                told.append((place, attempt.what))
                return attempt.run()

            yield replace(attempt, run=run)

    monkeypatch.setattr(uneven_nonces, "attempts", watched)
    return told


def scan(folder: Path, items: tuple[Item, ...], budget: float = 5.0, **more: object) -> tuple[set[int], Summary]:
    """Places of the items that have a finding, and the summary; with a store unless told otherwise."""
    given = folder / f"in-{next(NUMBERS)}"
    given.mkdir()
    for number, item in enumerate(items):
        assert item.der is not None
        (given / f"{number:03}.der").write_bytes(item.der)
    chosen = {"profile": Profile.DEEP, "only": (CHECK,), "against": folder / "store", "budget": budget, **more}
    run = Scan([str(given)], Settings(**chosen))  # type: ignore[arg-type]
    return {place for place, result in enumerate(run) if result.findings}, run.summary


def test_each_lattice_is_tried_once_over_several_runs(tmp_path: Path, ran: list[tuple[int, str]]) -> None:
    items = items_of("two nonces 100,000 apart")
    runs = 0
    left = True
    while left:
        before = len(ran)
        found, summary = scan(tmp_path, items, budget=0.15)
        assert not found
        left = any("lattices" in note.reason for note in summary.not_run)
        runs += 1
        assert len(ran) > before
    once = list(ran)
    ran.clear()
    scan(tmp_path, items, budget=0.15)
    assert not ran
    scan(tmp_path, items, against=None)
    assert once == ran  # all of them, each once, in the same order
    assert runs > 1


@pytest.mark.slow
def test_one_more_signature_is_another_search(tmp_path: Path, ran: list[tuple[int, str]]) -> None:
    items = items_of("random nonces")
    scan(tmp_path, items[:4])
    first = list(ran)
    assert first
    scan(tmp_path, items[:4])
    assert ran == first
    scan(tmp_path, items[:5])
    assert len(ran) > len(first)
    assert ran[len(first)][0] == 0


@pytest.mark.parametrize("name", ["four nonces of 128 bits", "four nonces of 128 bits, the issuer is not there"])
def test_what_was_found_is_found_again(tmp_path: Path, name: str) -> None:
    items = items_of(name)
    found, _ = scan(tmp_path, items)
    assert found
    assert scan(tmp_path, items)[0] == found


@pytest.mark.slow
def test_without_a_store_nothing_is_noted(tmp_path: Path, ran: list[tuple[int, str]]) -> None:
    items = items_of("two nonces 100,000 apart")
    for _ in range(2):
        scan(tmp_path, items, against=None)
    assert ran[: len(ran) // 2] == ran[len(ran) // 2 :]
