"""What HAProxy's ring says about connections: lines to events, and which of them the broker took.

A line has ten fields by spaces: time, address, port, verdict, certificate id, ``=`` and the client id URL-encoded,
termination state, TLS version, verification code, DER in base64. Missing values are ``-``.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

#: what a connection's end can be called; see docs/gate.md
VERDICTS = frozenset(
    ("ok", "unregistered", "inactive", "no-certificate", "client-id", "not-mqtt", "stale", "handshake")
)
#: seconds that the broker gets for its answer before a connection counts as not established
CONNACK_WAIT = 6.0
#: events that wait for the registry; the oldest are dropped after that
WAITING = 20_000
_LINE = re.compile(
    r"(?:<\d+>)?(\d+) (\S+) (\d+) ([a-z-]+) ([0-9a-f]{64}|-?) (=\S*|-) (\S\S) (\S+) (\d+|-) ([A-Za-z0-9+/]+=*|-)"
)


def parse(line: str) -> dict[str, Any] | None:
    """An event as the registry takes it, ``established`` still false; None if the line is none.

    ``ended`` is the termination state, ``--`` while the connection stands.
    """
    matched = _LINE.fullmatch(line.strip())
    if matched is None:
        return None
    at, address, port, verdict, certificate, client, ended, tls, code, der = matched.groups()
    return {
        "at": int(at),
        "verdict": verdict if verdict in VERDICTS else "not-mqtt",
        "certificateId": certificate if len(certificate) == 64 else None,
        "clientId": unquote(client[1:], errors="replace") if client.startswith("=") else None,
        "source": f"{address}:{port}",
        "tlsVersion": None if tls == "-" else tls,
        "verifyCode": 0 if code == "-" else int(code),
        "established": False,
        "der": None if der == "-" else der,
        "ended": ended,
    }


class Lines:
    """Whole lines out of pieces of a stream."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, part: bytes) -> list[str]:
        """The lines that are complete with this piece; a line without end is forgotten after 1 MiB."""
        *lines, self._rest = (self._rest + part).split(b"\n")
        if len(self._rest) > 1 << 20:
            self._rest = b""
        return [line.decode("ascii", "replace") for line in lines if line.strip()]


class EventQueue:
    """Events on their way to the registry: those that the broker has to confirm, and those that are ready.

    Safe for several threads.

    Attributes:
        dropped: events lost because the registry did not take them for too long.
        refused: refused connections by verdict, since the start.
    """

    def __init__(self, limit: int = WAITING) -> None:
        self._lock = threading.Lock()
        self._ready: deque[dict[str, Any]] = deque()
        self._open: dict[tuple[str | None, str], tuple[float, dict[str, Any]]] = {}
        self._limit = limit
        self.dropped = 0
        self.refused: Counter[str] = Counter()

    def put(self, event: dict[str, Any], now: float | None = None) -> None:
        """Take an event as ``parse`` made it."""
        now = time.monotonic() if now is None else now
        with self._lock:
            if event["verdict"] != "ok":
                self.refused[event["verdict"]] += 1
                self._add(event)
            elif event["ended"] != "--":  # the broker could not be reached
                self.refused["broker"] += 1
                self._add(event)
            else:
                self._open[event["certificateId"], event["source"]] = (now, event)

    @property
    def unconfirmed(self) -> bool:
        """Whether the table has to be looked at for CONNACKs."""
        return bool(self._open)

    def confirm(self, established: Iterable[tuple[str, str]], now: float | None = None) -> None:
        """Say which connections the broker took, and give up waiting for old ones.

        Args:
            established: certificate ids and sources of rows with CONNACK 0.
            now: monotonic time, for tests.
        """
        now = time.monotonic() if now is None else now
        with self._lock:
            for key in established:
                found = self._open.pop(key, None)
                if found is not None:
                    self._add(found[1] | {"established": True})
            for late in [key for key, (since, _) in self._open.items() if now - since > CONNACK_WAIT]:
                self._add(self._open.pop(late)[1])

    def _add(self, event: dict[str, Any]) -> None:
        if len(self._ready) >= self._limit:
            self._ready.popleft()
            self.dropped += 1
        self._ready.append(event)

    def take(self, most: int) -> list[dict[str, Any]]:
        """The oldest events, without what only the gate needs; give them back if they could not be sent."""
        with self._lock:
            return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]

    def give_back(self, events: list[dict[str, Any]]) -> None:
        """Put taken events to the front again, as far as there is room."""
        with self._lock:
            room = self._limit - len(self._ready)
            kept = events[len(events) - room :] if room < len(events) else events
            self.dropped += len(events) - len(kept)
            self._ready.extendleft(reversed(kept))

    def __len__(self) -> int:
        return len(self._ready)


def outgoing(event: dict[str, Any]) -> dict[str, Any]:
    """An event as the registry's interface has it."""
    return {name: value for name, value in event.items() if name != "ended"} | {"source": plain(event["source"])}


def plain(source: str) -> str:
    """address:port without the prefix that IPv4 addresses have on a listener for both families."""
    return source.removeprefix("::ffff:") if "." in source else source
