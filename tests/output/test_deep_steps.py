"""What profile deep did, in every report: steps on each key, the run in numbers, what a larger budget would do."""

import json
import re
from collections import Counter
from dataclasses import replace

import pytest

import keyassay.checks
from contract import problems
from keyassay.bulk.results import DeepSummary, Outcome, StepCount, StepReport
from keyassay.findings import Profile
from keyassay.output.description import amount, deep_lines
from sample_run import CHECKS, results

STEPS = (
    StepReport("rsa-deep-thing", "p - 1 to 2^16", Outcome.DONE, "2 of 2 stages", 0.31415, 2),
    StepReport("rsa-deep-thing", "ECM <b>", Outcome.PARTLY, "40 of 74 curves", 4.5, 40),
    StepReport("rsa-deep-thing", "lattice", Outcome.DOES_NOT_APPLY, "e is 65537"),
    StepReport("rsa-near-primes", "ratios", Outcome.NOT_STARTED, "needs 3 s, 0 s were left"),
)


def deep(**changes):
    summary = DeepSummary(5.0, 0.0, 3, 3, 0, 14.25)
    for stage, report in enumerate(STEPS, 1):
        summary.steps[report.check, report.step] = count = StepCount(stage)
        for _ in range(3):
            count.add(report)
    for name, value in changes.items():
        setattr(summary, name, value)
    return summary


def flat(text):
    return re.sub(r"\s+", " ", text)


@pytest.fixture
def found():
    first, *others = results()
    return [replace(first, steps=STEPS), *others]


@pytest.fixture
def changes():
    return {"deep": deep(), "profile": Profile.DEEP}


def test_a_line_has_the_steps_of_its_key_alone(rendered, found, changes):
    lines = [json.loads(line) for line in rendered("jsonl", found, changes).splitlines()]
    assert ["steps" in one for one in lines] == [True] + [False] * (len(lines) - 1)
    assert lines[0]["steps"][1] == {
        "check": "rsa-deep-thing", "step": "ECM <b>", "outcome": "partly", "detail": "40 of 74 curves",
        "seconds": 4.5, "units": 40,
    }  # fmt: skip
    assert lines[0]["steps"][0]["seconds"] == 0.314
    for line in lines:
        assert problems("item", line) == []


@pytest.mark.parametrize("outcome", list(Outcome))
def test_all_outcomes_keep_the_contract(rendered, outcome):
    first = replace(results()[0], steps=(replace(STEPS[0], outcome=outcome),))
    (line,) = rendered("jsonl", [first]).splitlines()
    assert problems("item", json.loads(line)) == []


def test_the_document_has_the_run_in_numbers(rendered, found, changes):
    document = json.loads(rendered("json", found, changes))
    assert problems("document", document) == []
    told = document["summary"]["deep"]
    assert (told["budget"], told["total_budget"], told["keys"], told["seconds"]) == (5.0, None, 3, 14.25)
    assert told["steps"][1] == {
        "check": "rsa-deep-thing", "step": "ECM <b>", "stage": 2, "outcomes": {"partly": 3},
    }  # fmt: skip
    assert json.loads(rendered("json"))["summary"]["deep"] is None


def test_the_table_says_what_ran_out_and_what_to_type(rendered, found, changes):
    text = rendered("table", found, changes)
    told = flat(text)
    assert "3 different keys not broken otherwise; 0 broken; 14.2 s of CPU (budget 5 s a key)" in told
    assert "rsa-deep-thing, p - 1 to 2^16: 3 done" in told
    assert "rsa-deep-thing, ECM <b>: 3 partly (40 of 74 curves)" in told
    assert "1 step was not started on any key" in told
    assert "1 step applies to none of the keys" in told
    assert "LEFT OUT by a budget of 5 s a key" in told
    assert "keyassay scan --profile deep --budget 60s fleet/" in told
    assert "deep steps" not in rendered("table")


def test_nothing_is_left_out_when_all_steps_were_done(rendered, found):
    whole = deep()
    del whole.steps["rsa-deep-thing", "ECM <b>"]
    del whole.steps["rsa-near-primes", "ratios"]
    text = rendered("table", found, {"deep": whole, "profile": Profile.DEEP})
    assert "LEFT OUT" not in text


@pytest.mark.parametrize("name", ["markdown", "html"])
def test_reports_for_people_have_the_steps_escaped(rendered, found, changes, name):
    text = rendered(name, found, changes)
    assert "3 partly (40 of 74 curves)" in text
    assert "ECM <b>" not in text
    assert "--budget 60s" in text


def test_where_keys_were_left_is_a_range():
    count = StepCount(4, Counter())
    for done in (40, 12, 20):
        count.add(replace(STEPS[1], units=done, detail=f"{done} of 74 curves"))
    summary = deep(steps={("a-b", "c"): count})
    assert deep_lines(summary)[1] == "a-b, c: 3 partly (12 to 40 of 74 curves)"


def test_an_interrupted_run_and_a_budget_for_all():
    first = deep_lines(deep(examined=2, total_budget=7_200.0))[0]
    assert "3 different keys not broken otherwise, 2 of them examined;" in first
    assert first.endswith("(budget 5 s a key, 2 h together)")


def test_durations_are_said_as_they_are_asked_for():
    assert [amount(one) for one in (0.5, 5.0, 60.0, 90.0, 120.0, 600.0, 7_200.0)] == [
        "0.5 s", "5 s", "60 s", "90 s", "2 m", "10 m", "2 h",
    ]  # fmt: skip


def test_what_a_deep_run_found_on_the_whole_fleet_is_proved_alone(rendered, changes, monkeypatch):
    whole = [replace(one, shape="fleet") if one.id == "rsa-near-primes" else one for one in CHECKS]
    monkeypatch.setattr(keyassay.checks, "catalogue", lambda: tuple(whole))
    words = "--profile deep --budget 60s --check rsa-near-primes --among fleet/"
    assert f"keyassay prove fleet/a.pem {words}\n" in rendered("table", results(), changes, budget=60.0)
    assert "keyassay prove fleet/a.pem --among fleet/\n" in rendered("table", results())


@pytest.mark.parametrize(("budget", "words"), [(5.0, "--profile deep"), (60.0, "--profile deep --budget 60s")])
def test_what_deep_steps_found_is_proved_with_the_same_budget(rendered, changes, budget, words):
    first, *others = results()
    steps = (replace(STEPS[0], check="rsa-near-primes", outcome=Outcome.FOUND),)
    text = rendered("table", [replace(first, steps=steps), *others], changes, budget=budget)
    assert f"keyassay prove fleet/a.pem {words}\n" in text
