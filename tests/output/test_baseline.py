import json
from datetime import date, timedelta

import pytest

from keyassay.errors import KeyassayError
from keyassay.findings import Classification
from keyassay.output.baseline import Acceptance, Baseline, fingerprint, load
from keyassay.output.gate import ACCEPTED_DAYS, Gate
from sample_run import TODAY, results

ENTRY = {"sha256": "ab" * 32, "check": "rsa-short", "reason": "a test device", "expires": "2026-12-31"}


def written(tmp_path, content):
    path = tmp_path / "baseline.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_file_is_read_and_written_alike(tmp_path):
    path = written(tmp_path, {"version": 1, "accepted": [{**ENTRY, "check": "rsa-odd-shape"}, ENTRY]})
    baseline = load(path)
    assert len(baseline) == 2
    assert json.loads(baseline.dump()) == json.loads(path.read_text())
    again = written(tmp_path, baseline.dump())
    assert load(again).dump() == baseline.dump()


def test_digests_with_colons_and_capitals_are_understood(tmp_path):
    entry = {**ENTRY, "sha256": ":".join(["AB"] * 32)}
    assert json.loads(load(written(tmp_path, {"version": 1, "accepted": [entry]})).dump())["accepted"] == [ENTRY]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not the form"),
        ('{"version": 2, "accepted": []}', "not the form"),
        ('{"version": 1, "accepted": {}}', "not the form"),
        ({"version": 1, "accepted": [ENTRY, []]}, "entry 2"),
        ({"version": 1, "accepted": [{**ENTRY, "reason": ""}]}, "entry 1"),
        ({"version": 1, "accepted": [{**ENTRY, "expires": "soon"}]}, "has to be a date"),
        ({"version": 1, "accepted": [{**ENTRY, "expires": 20261231}]}, "all of them text"),
        ({"version": 1, "accepted": [{**ENTRY, "sha256": "ab"}]}, "64 hex digits"),
        ({"version": 1, "accepted": [{**ENTRY, "sha256": "zz" * 32}]}, "64 hex digits"),
        ({"version": 1, "accepted": [{**ENTRY, "reson": "x"}]}, "entry 1"),
        ({"version": 1, "accepted": [{one: ENTRY[one] for one in ("sha256", "check", "reason")}]}, "entry 1"),
    ],
)
def test_a_malformed_file_is_refused_whole(tmp_path, content, complaint):
    with pytest.raises(KeyassayError, match=complaint):
        load(written(tmp_path, content))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(KeyassayError, match="cannot read the baseline"):
        load(tmp_path / "nowhere.json")


def test_an_entry_holds_to_the_end_of_its_day():
    entry = Acceptance("ab" * 32, "rsa-short", "x", date(2026, 12, 31))
    assert entry.holds(date(2026, 12, 31))
    assert not entry.holds(date(2027, 1, 1))


def test_an_accepted_finding_no_longer_fails_and_an_expired_one_does(accepting):
    for expires, failing in ((TODAY, 0), (TODAY - timedelta(days=1), 2)):
        gate = Gate(baseline=accepting("rsa-near-primes", expires), today=TODAY)
        list(gate.watch(results()))
        assert gate.failing == failing
        assert (gate.accepted, gate.expired) == ((2, 0) if failing == 0 else (0, 2))


@pytest.mark.parametrize("name", ["table", "json", "jsonl", "sarif", "csv", "markdown", "html", "junit"])
def test_an_accepted_finding_stays_visible_in_every_format(rendered, accepting, name):
    text = rendered(name, gate=Gate(baseline=accepting("rsa-near-primes"), today=TODAY))
    assert "rsa-near-primes" in text
    assert "device-17 are close" in text
    assert "a test device" in text


@pytest.mark.parametrize("name", ["table", "html"])
def test_an_expired_acceptance_is_told(rendered, accepting, name):
    text = rendered(name, gate=Gate(baseline=accepting("rsa-near-primes", date(2026, 9, 20)), today=TODAY))
    assert "acceptance expired on 2026-09-20: a test device" in text


def test_an_entry_for_another_check_or_certificate_accepts_nothing():
    first = results()[0]
    digest = fingerprint(first.item)
    for entry in (
        Acceptance(digest, "rsa-short", "x", date(2030, 1, 1)),
        Acceptance("00" * 32, first.findings[0].check, "x", date(2030, 1, 1)),
    ):
        gate = Gate(baseline=Baseline([entry]), today=TODAY)
        assert gate.fails(first.item, first.findings[0])


def test_what_a_run_collects_accepts_the_same_run(tmp_path):
    gate = Gate(Classification.NOTICE, today=TODAY, collect=True)
    list(gate.watch(results()))
    assert gate.failing == 5
    baseline = load(written(tmp_path, gate.collected().dump()))
    again = Gate(Classification.NOTICE, baseline, TODAY)
    list(again.watch(results()))
    assert (again.failing, again.accepted) == (0, 5)
    entry = json.loads(baseline.dump())["accepted"][0]
    assert date.fromisoformat(entry["expires"]) == TODAY + timedelta(days=ACCEPTED_DAYS)
    assert entry["reason"] == "known on 2026-09-21, not reviewed"


def test_collecting_keeps_the_reasons_that_were_given(accepting):
    gate = Gate(baseline=accepting("rsa-near-primes"), today=TODAY, collect=True)
    list(gate.watch(results()))
    entries = json.loads(gate.collected().dump())["accepted"]
    assert {one["reason"] for one in entries if one["check"] == "rsa-near-primes"} == {"a test device"}
    assert {one["reason"] for one in entries if one["check"] == "rsa-short"} == {"known on 2026-09-21, not reviewed"}
