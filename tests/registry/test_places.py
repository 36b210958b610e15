"""A table of who was connected when, and whether it shows that a key is used at two places."""

from __future__ import annotations

from typing import Any

import pytest

from keyassay.registry.places import Interval, evidence

MINUTE = 60_000
HOME, AWAY, THIRD = "192.0.2.1:1000", "198.51.100.7:2000", "203.0.113.3:3000"
_number = iter(range(1_000_000))


def session(client: str, source: str, start: float, end: float | None = None, **more: Any) -> Interval:
    """A session by minutes; without an end it was seen at minute 60."""
    values: dict[str, Any] = {"gate": "one", "recorded_at": round(start * MINUTE) + 2_000, **more}
    for name in ("recorded_at", "sent_at", "seen_at"):
        if isinstance(values.get(name), float):
            values[name] = round(values[name] * MINUTE)
    values.setdefault("seen_at", round((60 if end is None else end) * MINUTE))
    ended = None if end is None else round(end * MINUTE)
    return Interval(str(next(_number)), client_id=client, source=source, started_at=round(start * MINUTE),
                    ended_at=ended, **values)  # fmt: skip


def duel(*places: str, step: float = 1.0, **more: Any) -> list[Interval]:
    """Sessions of one client id, each of which ends as the next one begins."""
    return [
        session("pump", place, number * step, (number + 1) * step if number + 1 < len(places) else None, **more)
        for number, place in enumerate(places)
    ]


USED_TWICE = {
    "both send, under different client ids": (
        [session("pump", HOME, 0, sent_at=50.0), session("evil", AWAY, 10, sent_at=50.0)],
        "overlap",
    ),
    "at different gates": (
        [session("pump", HOME, 0, sent_at=50.0), session("evil", AWAY, 10, sent_at=50.0, gate="two")],
        "overlap",
    ),
    "both have ended since": (
        [session("pump", HOME, 0, 30, sent_at=25.0), session("evil", AWAY, 10, 40, sent_at=35.0)],
        "overlap",
    ),
    "the third one of three": (
        [session("a", HOME, 0, sent_at=1.0), session("b", AWAY, 5, sent_at=50.0), session("c", HOME, 6, sent_at=50.0)],
        "overlap",
    ),
    "two addresses drive each other out": (duel(HOME, AWAY, HOME, AWAY), "takeovers"),
    "and one of them comes back twice": (duel(HOME, AWAY, AWAY, HOME, HOME, AWAY), "takeovers"),
    "after a normal move": (duel(THIRD, HOME, AWAY, HOME, AWAY), "takeovers"),
    "the last one at just ten minutes": (duel(HOME, AWAY, HOME, AWAY, step=5.0), "takeovers"),
    "at gates that know nothing of each other": (
        [
            session("pump", HOME, 0, 2, gate="one"),
            session("pump", AWAY, 1, 3, gate="two"),
            session("pump", HOME, 2, gate="one"),
            session("pump", AWAY, 3, gate="two"),
        ],
        "takeovers",
    ),
}

USED_ONCE = {
    "nothing": [],
    "one session": [session("pump", HOME, 0, sent_at=50.0)],
    "the first one sends nothing any more (half open)": [
        session("pump", HOME, 0, sent_at=9.9),
        session("pump-2", AWAY, 10, sent_at=50.0),
    ],
    "the second one never sends": [session("pump", HOME, 0, sent_at=50.0), session("pump-2", AWAY, 10)],
    "the gate counts no bytes": [session("pump", HOME, 0), session("pump-2", AWAY, 10)],
    "one sent after the other's start, but before it was known": [
        session("pump", HOME, 0, sent_at=11.0),
        session("pump-2", AWAY, 10, sent_at=50.0, recorded_at=12.0),
    ],
    "one after the other": [
        session("pump", HOME, 0, 10, sent_at=9.0),
        session("pump-2", AWAY, 11, sent_at=50.0),
    ],
    "a gateway with two clients": [
        session("pump", HOME, 0, sent_at=50.0),
        session("fan", "192.0.2.1:1001", 10, sent_at=50.0),
    ],
    "a certificate that two things share": [
        session("thing-1", HOME, 0, sent_at=50.0),
        session("thing-2", AWAY, 10, sent_at=50.0),
    ],
    "client ids that are not known": [session("", HOME, 0, sent_at=50.0), session("x", AWAY, 10, sent_at=50.0)],
    "one client id, half open at another gate": [
        session("pump", HOME, 0, sent_at=50.0),
        session("pump", AWAY, 10, sent_at=50.0, gate="two"),
    ],
    "a device that moves": duel(HOME, AWAY),
    "and back": duel(HOME, AWAY, HOME),
    "and on": duel(HOME, AWAY, THIRD, HOME, AWAY, THIRD),
    "a device that reconnects all the time": duel(*[HOME] * 20),
    "four moves in an afternoon": duel(HOME, AWAY, HOME, AWAY, HOME, step=30.0),
    "just over ten minutes": duel(HOME, AWAY, HOME, AWAY, step=5.01),
    "sessions that had ended before the next began": [
        session("pump", place, number, number + 0.9) for number, place in enumerate((HOME, AWAY, HOME, AWAY, HOME))
    ],
    "sessions that nobody has seen since": [
        session("pump", place, number * 3, None, seen_at=number * 3.0)
        for number, place in enumerate((HOME, AWAY, HOME, AWAY))
    ],
    "sessions that gates named again after they had been away": duel(HOME, AWAY, HOME, AWAY, tls_version=""),
    "clocks of gates that differ make turns of a single move": [
        session("pump", HOME, 0, 2, recorded_at=0.0),
        session("pump", AWAY, 1, 3, recorded_at=10.0, gate="two"),
        session("pump", HOME, 2, recorded_at=2.0),
        session("pump", AWAY, 3, recorded_at=12.0, gate="two"),
    ],
}


@pytest.mark.parametrize("name", USED_TWICE)
def test_a_key_that_is_used_at_two_places(name: str) -> None:
    intervals, sign = USED_TWICE[name]
    for order in (intervals, intervals[::-1]):
        found = evidence(order, ["thing-1", "thing-2"])
        assert found is not None
        assert found.sign == sign
        assert len(found.sources) == 2
        assert found.as_json()["sources"] == found.sources


@pytest.mark.parametrize("name", USED_ONCE)
def test_a_key_that_is_used_at_one_place(name: str) -> None:
    for order in (USED_ONCE[name], USED_ONCE[name][::-1]):
        assert evidence(order, ["thing-1", "thing-2"]) is None


def test_what_is_old_shows_nothing() -> None:
    overlap = [session("pump", HOME, 0, sent_at=30.0), session("evil", AWAY, 10, sent_at=40.0)]
    assert evidence(overlap, since=30 * MINUTE) is not None
    assert evidence(overlap, since=30 * MINUTE + 1) is None
    turns = duel(HOME, AWAY, HOME, AWAY)
    assert evidence(turns, since=MINUTE) is not None
    assert evidence(turns, since=MINUTE + 1) is None


def test_addresses_are_compared_without_ports() -> None:
    six = [session("a", "[2001:db8::1]:5", 0, sent_at=50.0), session("b", "[2001:db8::2]:5", 1, sent_at=50.0)]
    found = evidence(six)
    assert found is not None
    assert found.sources == ["2001:db8::1", "2001:db8::2"]
    assert evidence([six[0], session("b", "[2001:db8::1]:6", 1, sent_at=50.0)]) is None
