"""The search of a range: found with any number of workers, resumed where it was, told how far it is."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import gmpy2
import pytest

from keyassay.bulk import seed_search
from keyassay.bulk.seed_search import SeedSearch
from keyassay.errors import KeyassayError
from keyassay.lists import lookup
from keyassay.lists.seeds import MODELS, Origin

MODEL = MODELS["mt19937-words"]
OTHER = MODELS["msvc-bytes"]


def modulus(origin: Origin, size: int = 512) -> int:
    one, two = (int(gmpy2.next_prime(start - 1)) for start in origin.starts(size))
    return one * two


EARLY, LATE = Origin(MODEL.name, 700, 1, (0, 1)), Origin(OTHER.name, 9_000, 2, (0, 2))
MODULI = [*(Random(4).getrandbits(1024) | 1 << 1023 | 1 for _ in range(3)), modulus(EARLY), modulus(LATE)]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lookup, "data_folder", lambda: tmp_path)
    monkeypatch.setattr(seed_search, "data_folder", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_found_whatever_the_workers(jobs: int, own_folder: Path) -> None:
    told: list[float | None] = []
    search = SeedSearch(
        MODULI,
        {range(10_000): [MODEL, OTHER]},
        jobs=jobs,
        unit=1_000,
        progress=lambda _phase, share, _seeds: told.append(share),
    )
    found = {place: (origin.seed, factor) for place, origin, factor in search.run()}
    assert {place: seed for place, (seed, _) in found.items()} == {3: 700, 4: 9_000}
    assert all(MODULI[place] % factor == 0 for place, (_, factor) in found.items())
    assert told == [one / 20 for one in range(1, 21)]
    assert not search.state.exists()
    assert len((own_folder / "lists" / "seeds.txt").read_text().splitlines()) == 2


def test_ends_when_all_are_found() -> None:
    search = SeedSearch(MODULI[3:4], {range(1 << 20): [MODEL]}, unit=1_000)
    assert [origin.seed for _, origin, _ in search.run()] == [700]
    assert search.done == 1


def test_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    original = seed_search._searched

    def counted(targets: object, models: object, start: int, stop: int) -> object:
        if len(done) == 6:
            raise KeyboardInterrupt
        done.append(start)
        return original(targets, models, start, stop)  # type: ignore[arg-type]

    monkeypatch.setattr(seed_search, "_searched", counted)
    first = SeedSearch(MODULI, {range(10_000): [MODEL, OTHER]}, unit=1_000)
    with pytest.raises(KeyboardInterrupt):
        list(first.run())
    assert json.loads(first.state.read_text())["done"] == 6
    assert first.state.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(seed_search, "_searched", original)
    # the order of the keys does not matter
    again = SeedSearch(MODULI[::-1], {range(10_000): [MODEL, OTHER]}, unit=1_000)
    assert again.done == 6
    assert {place: origin for place, (origin, _) in again.found.items()} == {1: EARLY}
    assert {place: origin.seed for place, origin, _ in again.run()} == {1: 700, 0: 9_000}
    assert not again.state.exists()


def test_states_are_not_trusted(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    search = SeedSearch(MODULI, {range(5_000): [MODEL]}, unit=1_000, state=state)
    search._write()
    content = json.loads(state.read_text())
    state.write_text(json.dumps({**content, "found": [[0, MODEL.name, 5, 1, 0, 1], [99, MODEL.name, 5, 1, 0, 1]]}))
    assert SeedSearch(MODULI, {range(5_000): [MODEL]}, unit=1_000, state=state).found == {}
    for damaged in (
        {**content, "done": 6},
        {**content, "done": "x"},
        {**content, "found": None},
        {**content, "found": [1]},
    ):
        state.write_text(json.dumps(damaged))
        with pytest.raises(KeyassayError, match="damaged"):
            SeedSearch(MODULI, {range(5_000): [MODEL]}, unit=1_000, state=state)
    for other in (range(4_000), range(1, 5_000)):
        state.write_text(json.dumps(content))
        with pytest.raises(KeyassayError, match="another search"):
            SeedSearch(MODULI, {other: [MODEL]}, unit=1_000, state=state)
    state.write_text("{")
    with pytest.raises(KeyassayError, match="cannot be read"):
        SeedSearch(MODULI, {range(5_000): [MODEL]}, unit=1_000, state=state)


def test_seeds_have_to_exist() -> None:
    with pytest.raises(ValueError, match="32 bits"):
        SeedSearch(MODULI, {range(2**32 + 1): [MODEL]})


def test_estimates_are_of_the_right_kind() -> None:
    small, large = (SeedSearch(MODULI, {range(1 << bits): [MODEL]}).seconds() for bits in (20, 30))
    assert 0 < small < large
    assert SeedSearch(MODULI, {range(0): [MODEL]}).seconds() == 0
