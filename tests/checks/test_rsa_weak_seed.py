"""The search of a scan: near misses in profile deep, the time of certificates, the budget, what is remembered."""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random

import gmpy2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyassay.bulk.fleet import fleet_of
from keyassay.certificates.decoding import item_of_key
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, check, rsa_weak_seed
from keyassay.checks.rsa_weak_seed import SMALL, WeakSeed, _around
from keyassay.findings import Factor, Profile
from keyassay.lists import lookup, seeds
from keyassay.lists.seeds import BLOCK, MODELS, Origin
from vectors_of_checks import Case, cases_of

CHECK = check("rsa-weak-seed")
DEEP = Context(profile=Profile.DEEP)


def key_of(origin: Origin, size: int = 512) -> RsaPublicKey:
    one, two = (int(gmpy2.next_prime(start - 1)) for start in origin.starts(size))
    return RsaPublicKey(one * two, 65537)


@pytest.fixture
def few_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsa_weak_seed, "SMALL", range(1_000))


@pytest.mark.slow
@pytest.mark.parametrize("case", [one for one in cases_of("rsa-weak-seed") if one.verdict != "weak"], ids=str)
def test_near_misses_are_not_found_in_profile_deep_either(case: Case) -> None:
    fleet = fleet_of(case.items)
    assert list(CHECK.find(fleet, Context(profile=Profile.DEEP, budget=100.0))) == []
    assert fleet.notes == []


def test_seeds_end_where_the_page_says(few_seeds: None) -> None:
    assert range(65_536) == SMALL
    origins = [Origin("newlib-words", seed, 1, (0, 1)) for seed in (0, 999, 1_000)]
    found = dict(CHECK.find(fleet_of([item_of_key(key_of(one)) for one in origins]), DEEP))
    assert sorted(found) == [0, 1]


def test_one_verdict_for_every_item_that_has_the_key(few_seeds: None) -> None:
    weak = item_of_key(key_of(Origin("glibc-words-low", 17, 2, (0, 1))))
    sound = item_of_key(RsaPublicKey(Random(9).getrandbits(1024) | 1 << 1023 | 1, 65537))
    fleet = fleet_of([sound, weak, sound, weak])
    assert [row for row, _ in CHECK.find(fleet, DEEP)] == [1, 3]


def test_what_is_secret_stays_inside(few_seeds: None) -> None:
    origin = Origin("musl-bytes", 123, 1, (0, 2))
    key = key_of(origin)
    [(_, verdict)] = CHECK.find(fleet_of([item_of_key(key)]), DEEP)
    finding = CHECK.finding(key, verdict)
    assert finding.evidence.describe() == {"proof": "factor", "factor_bits": 512, "model": "musl-bytes"}
    secrets = finding.evidence.secrets()
    assert (secrets["seed"], secrets["numbers"], secrets["top_bits"]) == (123, [1, 3], 1)
    assert "123" not in finding.message


def test_evidence_needs_the_seed() -> None:
    origin = Origin("minstd-bytes", 123, 2, (0, 1))
    key = key_of(origin)
    factor = origin.factor(key.modulus)
    assert factor is not None
    assert Factor(factor).proves(key)
    assert WeakSeed(factor, {}, origin).proves(key)
    assert not WeakSeed(factor, {}, None).proves(key)
    assert not WeakSeed(factor, {}, Origin("minstd-bytes", 124, 2, (0, 1))).proves(key)
    assert not WeakSeed(key.modulus // factor, {}, origin).proves(key)


@pytest.mark.parametrize("name", list(MODELS))
def test_the_command_of_the_proof_prints_the_numbers(name: str) -> None:
    model = MODELS[name]
    origin = Origin(name, 4_711, model.tops[-1], model.pairs[-1])
    key = key_of(origin)
    factor = origin.factor(key.modulus)
    assert factor is not None
    [step] = [one for one in WeakSeed(factor, {}, origin).steps(key) if one.command.startswith("python3")]
    done = subprocess.run(["bash", "-c", step.command], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [hex(start) for start in origin.starts(512)]


def test_the_budget_ends_the_search_and_says_so() -> None:
    fleet = fleet_of([item_of_key(key_of(Origin("sha256-counter", 60_000, 1, (0, 1))))])
    assert list(CHECK.find(fleet, Context(profile=Profile.DEEP, budget=0.05))) == []
    [note] = fleet.notes
    assert note.check == CHECK.id
    assert "the budget was spent on seeds below 65,536" in note.reason


def test_nothing_is_searched_in_profile_standard() -> None:
    weak = item_of_key(key_of(Origin("glibc-words-low", 17, 2, (0, 1))))
    assert list(CHECK.find(fleet_of([weak]), Context())) == []


def test_what_a_search_found_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "data_folder", lambda: tmp_path)
    origin = Origin("python-bytes", 1 << 40, 1, (0, 1))
    key = key_of(origin)
    seeds.remember(key.modulus, origin)
    [(row, verdict)] = CHECK.find(fleet_of([item_of_key(key)]), Context())
    assert row == 0
    assert CHECK.finding(key, verdict).evidence.secrets()["seed"] == 1 << 40
    # the file is not trusted
    other = key_of(Origin("python-bytes", 7, 1, (0, 1)))
    seeds.remember(other.modulus, origin)
    assert list(CHECK.find(fleet_of([item_of_key(other)]), Context())) == []


def test_times_around_certificates_are_joined() -> None:
    def around(times: list[int], width: int, a_second: int) -> list[range]:
        found = _around(np.array(times, np.int64), width, a_second)
        ends = found.starts + found.lengths
        return [range(start, stop) for start, stop in zip(found.starts.tolist(), ends.tolist(), strict=True)]

    joined = [range(16), range(995, 1_006), range(1_010, 1_021), range(2**32 - 6, 2**32)]
    assert around([0, 10, 1_000, 1_015, 2**32 - 1], 5, 1) == joined
    assert around([0, 10], 3, 1) == [range(4), range(7, 14)]
    assert around([5_000], 2_000, 1_000) == [range(3_000, 8_000)]


@given(st.lists(st.integers(0, 50_000), min_size=1, max_size=20, unique=True), st.integers(0, 3_000))
def test_blocks_hold_every_seed_once(times: list[int], width: int) -> None:
    seeds = _around(np.array(sorted(times), np.int64), width, 1)
    blocks = list(seeds.blocks())
    assert all(len(block) == BLOCK for block in blocks[:-1])
    together = np.concatenate(blocks).tolist()
    assert together == sorted({seed for time in times for seed in range(max(time - width, 0), time + width + 1)})
    assert len(together) == len(seeds)


@pytest.mark.parametrize(
    ("seconds", "called"),
    [(60, "1 minute"), (600, "10 minutes"), (3_600, "1 hour"), (21_600, "6 hours"), (1, "1 second")],
)
def test_spans_are_named(seconds: int, called: str) -> None:
    assert rsa_weak_seed._span(seconds) == called


def test_less_around_each_of_many_certificates(few_seeds: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred days do not fit the budget: fewer hours around each are taken, and the notes say so."""
    days = np.arange(100, dtype=np.int64) * 250_000 + 1_700_000_000
    monkeypatch.setattr(rsa_weak_seed, "_beginnings", lambda _fleet: days)
    fleet = fleet_of([item_of_key(key_of(Origin("ansi-bytes", 5_000, 1, (0, 1))))])
    stages = rsa_weak_seed._stages(fleet, 1, 5.0)
    tried = [len(stage.seeds) for stage in stages]
    assert tried[1] == 100 * (2 * 600 + 1)
    assert any("only 10 minutes before and after" in note.reason for note in fleet.notes)
    assert [int(stage.seeds.starts[0]) for stage in stages[2:]] == [
        1_700_000_000_000 - 60_000,
        1_700_000_000_000 - 1_000,
    ]
