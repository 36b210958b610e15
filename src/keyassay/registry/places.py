"""Whether a key is used at two places: what intervals of connections show, and what they do not.

Two signs. Both of two sessions with different client ids, from different addresses, sent something after the server
knew of both. Or two addresses took one client id from each other three times in ten minutes, in turn.

A device that moves leaves a half-open session behind: it stays in a gate's table for minutes, but sends nothing. So
that two sessions overlap is no sign, and one that takes the place of another is none either.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Any

#: takeovers, and the milliseconds in which they have to happen
TAKEOVERS, WITHIN = 3, 600_000
#: milliseconds for which a session that a gate saw is taken to be there still
FRESH = 60_000


@dataclass(frozen=True, slots=True)
class Interval:
    """One session.

    Attributes:
        id: of its row in ``connections``.
        gate, client_id, source: as there.
        tls_version: "" if the gate named the session, and nobody told of its beginning.
        started_at, seen_at, ended_at, recorded_at, sent_at: as there, milliseconds since 1970.
    """

    id: str
    gate: str
    client_id: str
    source: str
    started_at: int
    seen_at: int
    ended_at: int | None = None
    recorded_at: int | None = None
    sent_at: int | None = None
    tls_version: str = "-"

    @property
    def host(self) -> str:
        """The address without the port."""
        return self.source.rpartition(":")[0].strip("[]") or self.source

    def lives(self, at: int) -> bool:
        """Whether it was there at a time after its start, as far as is known."""
        return self.seen_at >= at - FRESH if self.ended_at is None else self.ended_at >= at

    def as_json(self) -> dict[str, Any]:
        """Evidence."""
        return {
            "connectionId": self.id,
            "gate": self.gate,
            "clientId": self.client_id,
            "source": self.source,
            "startedAt": self.started_at,
        }


@dataclass(frozen=True, slots=True)
class TwoPlaces:
    """Evidence that a key is used at two places.

    Attributes:
        sign: "overlap" or "takeovers".
        at: when it was complete, milliseconds since 1970.
        sessions: that show it, by start: two of different client ids, or four that drove each other out.
    """

    sign: str
    at: int
    sessions: tuple[Interval, ...]

    @property
    def sources(self) -> list[str]:
        """The two addresses."""
        return list(dict.fromkeys(one.host for one in self.sessions))

    def as_json(self) -> dict[str, Any]:
        """For alerts and steps."""
        return {
            "sign": self.sign,
            "at": self.at,
            "sources": self.sources,
            "clientIds": list(dict.fromkeys(one.client_id for one in self.sessions)),
            "sessions": [one.as_json() for one in self.sessions],
        }


def evidence(intervals: Sequence[Interval], things: Collection[str] = (), since: int = 0) -> TwoPlaces | None:
    """What the sessions of one certificate show.

    Args:
        intervals: in any order; those whose client id is not known ("") show nothing.
        things: names of things that the certificate is attached to. A certificate that several things share is used
            at several places by design: two of them are no sign.
        since: what was complete before shows nothing any more.

    Returns:
        The evidence, or None if there is none.
    """
    known = sorted((one for one in intervals if one.client_id), key=lambda one: (one.started_at, one.id))
    return _overlap(known, frozenset(things), since) or _takeovers(known, since)


def _overlap(known: Sequence[Interval], things: frozenset[str], since: int) -> TwoPlaces | None:
    """Both sent after the server knew of both: its clock alone counts, since it began no later than it was told."""
    sending = [one for one in known if one.sent_at is not None and one.recorded_at is not None]
    for first, second in combinations(sending, 2):
        assert first.sent_at is not None
        assert second.sent_at is not None
        if first.client_id == second.client_id or first.host == second.host:
            continue
        if first.client_id in things and second.client_id in things:
            continue
        both_known = max(first.recorded_at or 0, second.recorded_at or 0)
        at = min(first.sent_at, second.sent_at)
        if at >= max(both_known, since):
            return TwoPlaces("overlap", at, (first, second))
    return None


def _takeovers(known: Sequence[Interval], since: int) -> TwoPlaces | None:
    told = [one for one in known if one.tls_version]  # the others need not have begun when they were named
    by_client = sorted(told, key=lambda one: one.client_id)  # stable: by start within a client id
    for _, group in groupby(by_client, key=lambda one: one.client_id):
        for chain in _chains(group):
            for begin in range(len(chain) - TAKEOVERS):
                window = chain[begin : begin + TAKEOVERS + 1]
                if _alternate(window) and window[1].started_at >= since:
                    return TwoPlaces("takeovers", window[-1].started_at, tuple(window))
    return None


def _chains(group: Iterator[Interval]) -> Iterator[list[Interval]]:
    """Runs of sessions each of which took the place of the one before, from another address."""
    chain: list[Interval] = []
    for one in group:
        if chain and chain[-1].host == one.host:
            chain[-1] = one  # it came back to where it was
        elif chain and chain[-1].lives(one.started_at):
            chain.append(one)
        else:
            yield chain
            chain = [one]
    yield chain


def _alternate(window: Sequence[Interval]) -> bool:
    hosts = [one.host for one in window]
    told = [one.recorded_at if one.recorded_at is not None else one.started_at for one in window]
    return (
        all(host == hosts[number % 2] for number, host in enumerate(hosts))
        and window[-1].started_at - window[1].started_at <= WITHIN
        # clocks of gates differ: what was told in another order happened in that order, as far as is known
        and told == sorted(told)
    )
