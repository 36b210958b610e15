"""The loop of workers: it goes on whatever happens, and ends when told to."""

from __future__ import annotations

import threading

import pytest
import structlog
from structlog.testing import capture_logs

from keyassay.storage import repeating
from keyassay.storage.database import BusyError


class Waits(threading.Event):
    """An event that notes how long somebody would have waited for it."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.noted.append(timeout)
        return self.is_set()


def test_a_turn_with_more_to_do_is_repeated_at_once_and_one_without_after_a_pause() -> None:
    stop, turns = Waits(), iter([True, 3, False, None, True])

    def turn() -> object:
        following = next(turns)
        if following is None:
            stop.set()
        return following

    repeating.repeat(turn, stop, 0.25, structlog.get_logger(), "some worker")
    assert stop.noted == [0.25, 0.25]
    assert next(turns) is True  # nothing was begun after the end


def test_a_busy_database_is_waited_for_and_errors_are_told() -> None:
    stop, errors = Waits(), iter([BusyError("busy"), ValueError("x" * 1_000)])

    def turn() -> bool:
        error = next(errors, None)
        if error is None:
            stop.set()
            return False
        raise error

    with capture_logs() as lines:
        repeating.repeat(turn, stop, 0.25, structlog.get_logger(), "some worker")
    assert stop.noted == [0.25, repeating.AFTER_ERROR, 0.25, 0.25]
    [line] = lines
    assert (line["event"], line["log_level"]) == ("some worker", "error")
    assert line["problem"].startswith("ValueError: xxx")
    assert len(line["problem"]) == 500


def test_nothing_is_done_once_told_to_stop_and_interrupts_get_through() -> None:
    stop = threading.Event()

    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repeating.repeat(interrupt, stop, 1, structlog.get_logger(), "some worker")
    stop.set()
    repeating.repeat(interrupt, stop, 1, structlog.get_logger(), "some worker")
