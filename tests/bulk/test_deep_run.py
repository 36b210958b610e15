"""Profile deep over a run: each key once, order, budgets, workers, known primes, interruption, going on later."""

from __future__ import annotations

import base64
import io
import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import gmpy2
import pytest

from issuing import certificate
from keyassay.bulk import deep_run
from keyassay.bulk import scan as scanning
from keyassay.bulk.results import Outcome, Settings
from keyassay.bulk.scan import Scan
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.certificates.spki import encode
from keyassay.checks import catalogue, check
from keyassay.findings import Factor, Profile, Verdict


def prime(number, bits=512):
    """Primes with nothing in common: powers of odd numbers are far from each other."""
    return int(gmpy2.next_prime((3 << (bits - 2)) + pow(1_000_003 + 2 * number, 97) % (1 << (bits - 2))))


def pem(der):
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"


P = [prime(number) for number in range(4)]
#: sound as far as the checks of these tests can see
KEYS = [P[3] * prime(200 + number) for number in range(12)]
UNIT = 0.02


def spin(seconds):
    """Use CPU."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def bundle(moduli):
    return "".join(
        pem(certificate(encode(RsaPublicKey(modulus, 65537)), f"r{number}", number + 1))
        for number, modulus in enumerate(moduli)
    )


@pytest.fixture
def step(monkeypatch):
    """Declare deep steps; those of the catalogue are out of the way, and workers know these."""
    kept = {one.id: list(one.deep_steps) for one in catalogue()}
    for one in catalogue():
        one.deep_steps.clear()
    for module in (deep_run, scanning):
        monkeypatch.setattr(module, "get_context", lambda _kind: Forking())

    def declare(name, function=None, *, stage=1, seconds=0.0, of="rsa-small-factor", **more):
        if function is None:
            return lambda given: declare(name, given, stage=stage, seconds=seconds, of=of, **more)
        return check(of).deeper(name, stage=stage, seconds=seconds, **more)(function)

    yield declare
    for one in catalogue():
        one.deep_steps[:] = kept[one.id]


class Forking:
    """Workers that are copies of this process, with its steps."""

    def __init__(self):
        self._given = get_context("fork")

    def set_forkserver_preload(self, _names):
        pass

    def __getattr__(self, name):
        return getattr(self._given, name)


def scan_of(moduli, **more):
    settings = {"profile": Profile.DEEP, "only": ("rsa-small-factor",), "fleet": False, "budget": 1.0, **more}
    return Scan(["-"], Settings(**settings), standard_input=io.BytesIO(bundle(moduli).encode()))


def told(result):
    return [(one.step, one.outcome, one.detail) for one in result.steps]


def units(total, log=None):
    """A step of so many units of work that goes on where it was."""

    def run(key, effort):
        for done in range(effort.start, total):
            effort.reached(done, total, "units")
            if log is not None:
                log.append((key.modulus, done))
            spin(UNIT)
        effort.reached(total, total, "units")

    return run


def finding(position, at=0):
    """A step that factors KEYS[position], after some units of work."""

    def run(key, effort):
        for done in range(effort.start, at):
            effort.reached(done, at + 1, "units")
            spin(UNIT)
        effort.reached(at, at + 1, "units")
        return Verdict("found", Factor(P[3])) if key.modulus == KEYS[position] else None

    return run


def test_each_key_has_one_turn_and_every_item_says_so(step):
    turns = []
    step("counting", units(2, turns))
    results = list(scan_of([KEYS[0], KEYS[1], KEYS[0], KEYS[0]]))
    assert turns == [(KEYS[0], 0), (KEYS[0], 1), (KEYS[1], 0), (KEYS[1], 1)]
    assert [told(one) for one in results] == [[("counting", Outcome.DONE, "2 of 2 units")]] * 4


def test_what_is_broken_needs_no_deep_steps(step):
    turns = []
    step("counting", units(1, turns))
    scan = scan_of([3 * P[1], KEYS[1]])
    results = list(scan)
    assert results[0].findings[0].check == "rsa-small-factor"
    assert results[0].steps == ()
    assert turns == [(KEYS[1], 0)]
    assert (scan.summary.deep.keys, scan.summary.deep.examined, scan.summary.deep.broken) == (1, 1, 0)


def test_steps_run_by_stage_until_one_finds_something(step):
    step("last", units(1), stage=7)
    step("second", finding(1), stage=2)
    step("first", units(1), stage=1)
    step("never", units(1), stage=1, applies=lambda _key: "e is common")
    scan = scan_of(KEYS[:2])
    results = list(scan)
    assert [(one.step, one.outcome) for one in results[0].steps] == [
        ("first", "done"),
        ("never", "does not apply"),
        ("second", "done"),
        ("last", "done"),
    ]
    assert [one.outcome for one in results[1].steps] == ["done", "does not apply", "found", "not needed"]
    assert [one.check for one in results[1].findings] == ["rsa-small-factor"]
    assert (scan.summary.deep.broken, scan.summary.by_check) == (1, {"rsa-small-factor": 1})
    counts = scan.summary.deep.steps["rsa-small-factor", "second"]
    assert counts.outcomes == {"done": 1, "found": 1}


def test_the_budget_of_a_key_is_kept_and_told(step):
    step("long", units(1_000), stage=1)
    step("large", units(1), stage=2, seconds=0.5)
    before = time.process_time()
    scan = scan_of(KEYS[:2], budget=0.2)
    results = list(scan)
    assert time.process_time() - before < 2
    for one in results:
        partly, not_started = one.steps
        assert partly.outcome is Outcome.PARTLY
        assert 5 <= partly.units <= 11
        assert partly.detail == f"{partly.units} of 1,000 units"
        assert not_started.outcome is Outcome.NOT_STARTED
        assert "needs" in not_started.detail
    assert 0.4 <= scan.summary.deep.seconds < 0.8
    assert scan.summary.deep.out_of_budget


def test_the_budget_of_the_run_is_shared_evenly(step):
    step("long", units(1_000))
    scan = scan_of(KEYS[:4], budget=1.0, total_budget=0.4)
    spent = [one.steps[0].seconds for one in scan]
    assert sum(spent) < 0.4 + 4 * 2 * UNIT
    assert min(spent) > 0.05


def test_a_step_that_raises_or_lies_is_told_and_ends_nothing(step):
    @step("raising", stage=1)
    def raising(_key, _effort):
        raise ZeroDivisionError("why")

    step("lying", lambda _key, _effort: Verdict("no", Factor(P[0])), stage=2)
    step("after", units(1), stage=3)
    (result,) = scan_of(KEYS[:1])
    assert not result.findings
    assert [one.outcome for one in result.steps] == ["failed", "failed", "done"]
    assert result.steps[0].detail == "internal error: ZeroDivisionError: why"


@pytest.mark.parametrize("fleet", [True, False])
def test_workers_change_nothing(step, fleet):
    step("one", units(1), stage=1)
    step("two", finding(5), stage=2)
    more = {"only": ("rsa-small-factor", "fleet-repeated-key"), "fleet": fleet}
    moduli = [*KEYS, KEYS[5], KEYS[2]]
    alone, together = scan_of(moduli, **more), scan_of(moduli, jobs=2, **more)

    def shown(scan):
        return [(one.item.index, [each.check for each in one.findings], told(one)) for one in scan]

    expected = shown(alone)
    assert shown(together) == expected
    assert [one[0] for one in expected] == list(range(14))
    assert expected[5][2][1][1] == "found" == expected[12][2][1][1]
    for name in ("keys", "examined", "broken", "steps"):
        assert getattr(together.summary.deep, name) == getattr(alone.summary.deep, name)
    assert together.summary.worst == alone.summary.worst


def test_a_worker_that_dies_costs_its_key_alone(step):
    @step("dying")
    def dying(key, effort):
        if key.modulus == KEYS[2]:
            os._exit(9)
        effort.reached(1, 1, "unit")

    results = list(scan_of(KEYS[:6], jobs=2))
    assert [one.steps[0].outcome for one in results] == ["done", "done", "failed", "done", "done", "done"]
    assert "process died" in results[2].steps[0].detail


def test_factors_found_late_are_tried_on_the_keys_before(step):
    tried = []

    @step("siblings", stage=1, uses_known_primes=True)
    def siblings(key, effort):
        tried.append((KEYS.index(key.modulus), list(effort.known_primes)))
        for prime_of_another in effort.known_primes:
            if key.modulus % prime_of_another == 0:
                return Verdict("shared", Factor(prime_of_another))
        return None

    step("finding", finding(3), stage=2)
    scan = scan_of(KEYS[:5], only=("rsa-small-factor", "fleet-repeated-key"), fleet=True)
    results = list(scan)
    assert [bool(one.findings) for one in results] == [True] * 5
    assert results[0].steps[0].outcome == results[4].steps[0].outcome == Outcome.FOUND
    assert results[3].steps[0].outcome == Outcome.DOES_NOT_APPLY
    assert results[3].steps[1].outcome == Outcome.FOUND
    assert scan.summary.deep.broken == 5
    assert [position for position, _ in tried] == [0, 1, 2, 4]
    assert all(P[3] in primes for _, primes in tried)


def test_keys_do_not_learn_from_each_other_without_fleet(step):
    step("siblings", lambda _key, effort: effort.reached(1, 1, "x"), stage=1, uses_known_primes=True)
    step("finding", finding(0), stage=2)
    results = list(scan_of(KEYS[:3]))
    assert all(one.steps[0].outcome is Outcome.DOES_NOT_APPLY for one in results)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interruption_keeps_what_was_done(step, jobs):
    @step("interrupting")
    def interrupting(key, effort):
        if key.modulus == KEYS[4]:
            os.kill(os.getppid() if jobs > 1 else os.getpid(), signal.SIGINT)
        for done in range(1_000_000):
            effort.reached(done, 1_000_000, "units")
            spin(UNIT)
            if key.modulus != KEYS[4] and done > 2:
                return

    scan = scan_of(KEYS, jobs=jobs, budget=100.0)
    results = list(scan)
    assert len(results) == len(KEYS)
    assert scan.summary.interrupted
    assert [one.steps[0].outcome for one in results[:3]] == ["done"] * 3
    assert [told(one) for one in results[-3:]] == [[("interrupting", "not started", "interrupted")]] * 3
    assert 3 <= scan.summary.deep.examined < 7
    assert results[4].steps[0].outcome is Outcome.PARTLY
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# With a store


def test_a_later_run_goes_on_where_it_was(step, tmp_path):
    turns = []
    step("short", units(2, turns), stage=1)
    step("long", units(30, turns), stage=2)
    store = tmp_path / "store"
    (first,) = scan_of(KEYS[:1], against=store, budget=0.3)
    assert first.steps[0].outcome is Outcome.DONE
    assert first.steps[1].outcome is Outcome.PARTLY
    done = first.steps[1].units
    assert 5 < done < 15

    turns.clear()
    (same,) = scan_of(KEYS[:1], against=store, budget=0.3)
    assert turns == []  # the budget counts what was spent earlier
    assert [one.outcome for one in same.steps] == ["done earlier", "partly"]
    assert same.steps[1].detail == first.steps[1].detail

    (larger,) = scan_of(KEYS[:1], against=store, budget=2.0)
    assert turns == [(KEYS[0], number) for number in range(done, 30)]
    assert [one.outcome for one in larger.steps] == ["done earlier", "done"]
    assert larger.steps[0].detail == "2 of 2 units"
    (again,) = scan_of(KEYS[:1], against=store, budget=0.1)
    assert [one.outcome for one in again.steps] == ["done earlier"] * 2


def test_what_another_version_of_a_check_did_does_not_count(step, tmp_path, monkeypatch):
    turns = []
    step("short", units(1, turns))
    list(scan_of(KEYS[:1], against=tmp_path))
    one = check("rsa-small-factor")
    monkeypatch.setitem(one.__dict__, "metadata", type(one.metadata)(**{**fields(one.metadata), "version": 99}))
    list(scan_of(KEYS[:1], against=tmp_path))
    assert len(turns) == 2


def fields(metadata):
    return {name: getattr(metadata, name) for name in metadata.__dataclass_fields__}


def test_a_new_step_of_an_early_stage_gets_its_time(step, tmp_path):
    step("long", units(1_000), stage=4)
    list(scan_of(KEYS[:1], against=tmp_path, budget=0.2))
    step("new", units(1), stage=2, seconds=0.05)
    (result,) = scan_of(KEYS[:1], against=tmp_path, budget=0.2)
    assert [(one.step, one.outcome) for one in result.steps] == [("new", "done"), ("long", "partly")]


def test_a_broken_key_is_found_again_and_the_store_does_not_say_so(step, tmp_path):
    step("long", finding(0, at=6))
    for _ in range(2):
        (result,) = scan_of(KEYS[:1], against=tmp_path)
        assert result.steps[0].outcome is Outcome.FOUND
        assert [one.check for one in result.findings] == ["rsa-small-factor"]
    text = (tmp_path / "deep-steps.log").read_text()
    assert "found" not in text
    assert str(P[3]) not in text
    assert f"{P[3]:x}" not in text


KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {own!r}]
import test_deep_run as here
from keyassay.checks import catalogue, check
for one in catalogue():
    one.deep_steps.clear()
count = 0
def run(key, effort):
    global count
    count += 1
    if count == 4:
        os.kill(os.getpid(), 9)
    effort.reached(1, 1, "unit")
check("rsa-small-factor").deeper("counting", stage=1, seconds=0)(run)
list(here.scan_of(here.KEYS[:6], against=Path({store!r})))
"""


def test_a_killed_run_loses_the_key_under_way_alone(step, tmp_path):
    store = tmp_path / "store"
    own = Path(__file__).parent
    program = KILLED.format(tests=str(own.parent), own=str(own), store=str(store))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert ended.returncode == -9, ended.stderr
    turns = []

    @step("counting")
    def counting(key, effort):
        turns.append(KEYS.index(key.modulus))
        effort.reached(1, 1, "unit")

    results = list(scan_of(KEYS[:6], against=store))
    assert turns == [3, 4, 5]
    assert [one.steps[0].outcome for one in results] == ["done earlier"] * 3 + ["done"] * 3


@pytest.mark.slow
def test_hostile_keys_end_within_their_budget():
    large = (1 << 8191) + 0x1234567 * (1 << 3000) + 1
    keys = [
        RsaPublicKey(modulus, exponent)
        for modulus, exponent in [
            (P[1] * P[2], (1 << 16383) + 1),
            (P[1] * P[2], P[1] * P[2] - 2),
            (prime(1, 1024) * prime(2, 1024), 3),
            (prime(3, 4096) * prime(4, 4096), large | 1),
            (large, 65537),
            (P[1] * P[2] * P[3], 65537),
            (1, 1),
            (0, 0),
        ]
    ]
    settings = Settings(profile=Profile.DEEP, budget=0.5, fleet=False)
    scan = Scan((), settings, encodings=[encode(key) for key in keys])
    spent = [sum(one.seconds for one in result.steps) for result in scan]
    assert scan.summary.deep.examined >= 4
    assert max(spent) < 0.5 + 1.5
    failed = [key for key, count in scan.summary.deep.steps.items() if count.outcomes[Outcome.FAILED]]
    assert not failed
