import pytest

from keyassay.findings import Classification
from keyassay.output import FORMATS
from keyassay.output.gate import Gate
from sample_run import TODAY, results, summary_of


@pytest.mark.parametrize(
    ("fail_on", "failing"),
    [(None, 0), (Classification.BROKEN, 2), (Classification.WEAK, 4), (Classification.NOTICE, 5)],
)
def test_the_mildest_class_that_fails_is_chosen(fail_on, failing):
    gate = Gate(fail_on, today=TODAY)
    list(gate.watch(results()))
    assert gate.failing == failing


def kept(*positions):
    everything = results()
    return [everything[position] for position in positions]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("positions", "interrupted", "code"),
    [
        ((0, 1), False, 1),
        ((0, 5), False, 1),
        ((3,), False, 0),
        ((1, 4), False, 0),
        ((1, 5), False, 3),
        ((5,), False, 3),
        ((), False, 2),
        ((0,), True, 130),
        ((), True, 130),
    ],
)
def test_every_format_ends_with_the_same_code(rendered, name, positions, interrupted, code):
    gate = Gate(today=TODAY)
    found = kept(*positions)
    rendered(name, found, {"interrupted": interrupted}, gate=gate)
    summary = summary_of(found)
    summary.interrupted = interrupted
    assert gate.exit_code(summary) == code
