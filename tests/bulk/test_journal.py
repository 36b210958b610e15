"""How far deep steps have come, on disk: what is written comes back, damage costs the keys that it touches alone."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyassay.bulk.deep import Earlier
from keyassay.bulk.journal import Journal, spent
from keyassay.bulk.results import Outcome, StepReport
from keyassay.checks import check
from keyassay.errors import KeyassayError

CHECK = check("rsa-small-factor")
KEYS = [bytes([number]) * 16 for number in range(40)]


def report(step, outcome=Outcome.DONE, units=1, seconds=0.25, detail="1 of 1 curves"):
    return StepReport(CHECK.id, step, outcome, detail, seconds, units)


def opened(folder):
    return closing(Journal(folder / "deep-steps.log", [CHECK]))


def earlier(folder, key=KEYS[0]):
    with opened(folder) as journal:
        return journal.earlier(key)


def written(folder, *reports, keys=KEYS[:1]):
    with opened(folder) as journal:
        for key in keys:
            journal.note(key, journal.earlier(key), reports)


def test_what_was_noted_comes_back(tmp_path):
    written(tmp_path, report("a"), report("b", Outcome.PARTLY, 40, 4.0004, "40 of 74 curves"))
    found = earlier(tmp_path)
    assert found == {
        (CHECK.id, "a"): Earlier(True, 1, 0.25, "1 of 1 curves"),
        (CHECK.id, "b"): Earlier(False, 40, 4.001, "40 of 74 curves"),
    }
    assert spent(found) == 4.251
    assert earlier(tmp_path, KEYS[1]) == {}


def test_later_runs_add_to_earlier_ones(tmp_path):
    written(tmp_path, report("a"), report("b", Outcome.PARTLY, 40, 4.0))
    written(
        tmp_path, report("a", Outcome.DONE_EARLIER, 1, 0.0), report("b", Outcome.PARTLY, 60, 2.0, "60 of 74 curves")
    )
    found = earlier(tmp_path)
    assert found[CHECK.id, "a"].done
    assert found[CHECK.id, "b"] == Earlier(False, 60, 6.0, "60 of 74 curves")


@pytest.mark.parametrize("outcome", [Outcome.NOT_STARTED, Outcome.NOT_NEEDED, Outcome.DOES_NOT_APPLY, Outcome.FAILED])
def test_steps_that_did_nothing_are_not_noted(tmp_path, outcome):
    written(tmp_path, report("a", outcome, 0, 0.0))
    assert (tmp_path / "deep-steps.log").read_bytes().count(b"\n") == 1


def test_a_step_that_found_goes_back_a_unit_and_has_its_time_again(tmp_path):
    written(tmp_path, report("a", Outcome.FOUND, 41, 4.0))
    assert earlier(tmp_path) == {(CHECK.id, "a"): Earlier(False, 40, 0.0, "")}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_damage_and_cuts_cost_nothing_but_what_they_touch(tmp_path, data):
    path = tmp_path / "deep-steps.log"
    path.unlink(missing_ok=True)
    written(tmp_path, report("a"), keys=KEYS)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    first = len(lines[0]) + len(lines[1])
    place = data.draw(st.integers(first, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:place])
        expected = {number for number in range(40) if sum(map(len, lines[: number + 3])) <= place}
    else:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :])
        expected = set(range(40))
    with opened(tmp_path) as journal:
        found = {number: journal.earlier(KEYS[number]) for number in range(40) if journal.earlier(KEYS[number])}
        # the file can be gone on with
        journal.note(KEYS[39], journal.earlier(KEYS[39]), [report("b")])
    assert len(found) >= len(expected) - 2  # a line end that is hurt makes one line of two
    assert set(found) <= expected
    assert all(one == {(CHECK.id, "a"): Earlier(True, 1, 0.25, "1 of 1 curves")} for one in found.values())
    assert (CHECK.id, "b") in earlier(tmp_path, KEYS[39])


def test_a_damaged_line_is_counted(tmp_path):
    written(tmp_path, report("a"), keys=KEYS[:3])
    path = tmp_path / "deep-steps.log"
    text = path.read_bytes()
    path.write_bytes(text.replace(KEYS[1].hex().encode(), KEYS[9].hex().encode()))
    with opened(tmp_path) as journal:
        assert journal.damaged == 1
        assert [bool(journal.earlier(key)) for key in KEYS[:3]] == [True, False, True]
        assert journal.earlier(KEYS[9]) == {}


def test_lines_that_later_ones_supersede_go_away(tmp_path):
    for turn in range(1, 60):
        written(tmp_path, report("a", Outcome.PARTLY, turn, 0.01), keys=KEYS)
    path = tmp_path / "deep-steps.log"
    assert path.read_bytes().count(b"\n") < 1_200
    found = earlier(tmp_path, KEYS[7])
    assert found[CHECK.id, "a"].units == 59
    assert not list(tmp_path.glob("*.part"))


def test_another_file_is_refused(tmp_path):
    (tmp_path / "deep-steps.log").write_text("keyassay deep steps 2\nsomething\n")
    with pytest.raises(KeyassayError, match="no list of deep steps of version 1"):
        opened(tmp_path)
