"""The agent of a gate: follows the registry's feed, changes HAProxy's maps, closes sessions, and tells what it saw.

For each change: files, HAProxy, sessions (at once and again 200 ms later), revision. Everything can be repeated, so a
crash at any moment costs nothing but asking the registry again. Without the registry the last known state stays.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from keyassay.errors import KeyassayError
from keyassay.gate.events import EventQueue, Lines, outgoing, parse, plain
from keyassay.gate.maps import Maps, Rights, encoded, is_nobody, nobody, rights_of, write_atomically
from keyassay.gate.rendering import GateSettings
from keyassay.gate.runtime import HaproxyError, Row, Runtime
from keyassay.gate.source import Source, SourceError
from keyassay.output import version

#: seconds that one question for changes may wait at the registry
_WAIT = 5.0
#: seconds after which sessions are looked at again: one that was being decided meanwhile shows up just after
SECOND_LOOK = 0.2
#: seconds between looks at all sessions and at the sizes of the maps
SWEEP = 10.0
#: seconds between reports, and between complete lists of sessions
REPORT = 5.0
HEART_BEAT = 10.0
#: seconds between entries of the log about a registry or HAProxy that does not answer
_SAY_AGAIN = 60.0
_BATCH = 500
_CONFIRM_EVERY = 0.05


class Agent:
    """Keeps one gate in step with the registry.

    Args:
        name: of the gate.
        settings: of the gate; its files have to be there (``maps.prepare``).
        source: the registry.
        log: structured.
        after_step: called with the name of each step that was just done, for tests of crashes.
        sweep: seconds between looks at everything.
    """

    def __init__(
        self,
        name: str,
        settings: GateSettings,
        source: Source,
        log: Any,
        after_step: Callable[[str], None] = lambda _: None,
        sweep: float = SWEEP,
    ) -> None:
        self.name = name
        self._settings = settings
        self._source = source
        self._log = log
        self._after_step = after_step
        self._sweep = sweep
        self.runtime = Runtime(settings.runtime_socket, settings.master_socket)
        self.maps = Maps(settings, self.runtime, after_step)
        self.queue = EventQueue()
        # the registry has to be heard of before the gate calls itself stale
        self._wait = min(_WAIT, settings.stale_after / 4) if settings.stale_after else _WAIT
        self._stop = threading.Event()
        self._started = int(time.time() * 1000)
        self._touched = 0.0  # monotonic: when the maps were last told that the registry answers
        self._contact = time.time()
        self._repair = True  # HAProxy may have anything
        self._authorities_due = True
        self._look_again = 0.0
        self._report_now = threading.Event()
        self._rows: list[Row] = []
        self._said: dict[str, float] = {}
        self._last_rows: set[tuple[str, str, str]] = set()

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; ends within about a second when HAProxy and the registry answer."""
        self._stop = stop
        threads = [
            threading.Thread(target=work, name=f"gate-{what}", daemon=True)
            for what, work in (("events", self._follow_events), ("telling", self._tell), ("sweep", self._look_after))
        ]
        for thread in threads:
            thread.start()
        self._follow()
        for thread in threads:
            thread.join(5)

    # the registry's feed

    def _follow(self) -> None:
        pause = 0.1
        while not self._stop.is_set():
            try:
                self.step(self._wait)
                pause = 0.1
            except SourceError as error:
                self._say("registry", "the registry does not answer; the last known state stays", error)
                self._stop.wait(pause)
                pause = min(pause * 2, 5.0)
            except (HaproxyError, OSError) as error:
                self._repair = True
                self._say("haproxy", "a change could not be carried out", error)
                self._stop.wait(pause)
                pause = min(pause * 2, 2.0)
            except Exception:  # noqa: BLE001  as in _trouble
                self._repair = True
                self._log.exception("a change could not be carried out")
                self._stop.wait(2.0)

    def step(self, wait: float) -> bool:
        """Ask for changes once, and carry them out.

        Args:
            wait: seconds for the registry to have something.

        Returns:
            Whether everything that the registry has is done.

        Raises:
            SourceError: the registry does not answer.
            HaproxyError: HAProxy does not.
            OSError: a file cannot be written.
        """
        if self._repair:
            self._restore()
        answer = self._source.changes(self.maps.revision, self.maps.epoch, wait)
        self._contacted()
        if answer["reset"] or not self.maps.epoch:
            self._take_snapshot()
            return False
        done = self._carry_out(answer)
        if self._authorities_due or answer["authorities"]:
            self._authorities_due = True  # until it worked
            self._take_authorities()
        if answer["revision"] != self.maps.revision or answer["epoch"] != self.maps.epoch:
            self.maps.advance(answer["epoch"], answer["revision"])
            if done:
                self._report_now.set()
        return bool(answer["complete"])

    def _contacted(self) -> None:
        now = time.monotonic()
        self._contact = time.time()
        if now - self._touched > 1.0:
            self._touched = now
            self.maps.touch()

    def _carry_out(self, answer: dict[str, Any]) -> bool:
        """Do what an answer says, in the order that never lets in too much.

        Returns:
            Whether certificates were blocked.
        """
        refused = {one["certificateId"]: one["state"] for one in answer["entries"] if one["state"] != "ACTIVE"}
        blocked = self.maps.block(refused, gone={one for one, state in refused.items() if state == "GONE"})
        if blocked:
            self._close("revoked")
        reserved = self.maps.name_things(answer["things"]["added"])
        active = [one for one in answer["entries"] if one["state"] == "ACTIVE"]
        shrunk = bool(active) and self.maps.admit({one["certificateId"]: rights_of(one) for one in active})
        self.maps.forget_things(answer["things"]["removed"])
        if reserved or shrunk:
            self._close("rights changed")
        for one in active:
            for problem in one["problems"]:
                self._log.warning("not expressed by the gate", certificate_id=one["certificateId"], problem=problem)
        return bool(blocked)

    def _take_snapshot(self) -> None:
        """Read everything from the registry, and exchange the maps for it."""
        rights: dict[str, Rights] = {}
        blocked: set[str] = set()
        things: set[str] = set()
        starts: list[tuple[str, int]] = []
        for page in self._pages("entries", starts):
            for one in page["entries"]:
                if one["state"] == "ACTIVE":
                    rights[one["certificateId"]] = rights_of(one)
                else:
                    blocked.add(one["certificateId"])
        for page in self._pages("things", starts):
            things.update(page["things"])
        epochs = {epoch for epoch, _ in starts}
        if len(epochs) != 1:
            raise SourceError("the registry's feed began anew during a snapshot")
        self._contacted()
        self.maps.replace_all(rights, blocked, things)
        self._close("snapshot")
        self._authorities_due = True
        self._take_authorities()
        self.maps.advance(epochs.pop(), min(revision for _, revision in starts))
        self._report_now.set()
        self._log.info("took a snapshot", revision=self.maps.revision, **self.maps.counts)

    def _pages(self, kind: str, starts: list[tuple[str, int]]) -> Iterator[dict[str, Any]]:
        token = None
        while True:
            page = self._source.snapshot(kind, token)
            starts.append((page["epoch"], page["revision"]))
            yield page
            token = page["nextToken"]
            if token is None:
                return

    def _take_authorities(self) -> None:
        pem = "".join(one.strip() + "\n" for one in self._source.authorities()["pem"])
        path = self._settings.authorities
        have = path.read_text()
        if not pem:
            pem = have if is_nobody(have) else nobody()
        if have == pem and self.runtime.authorities_held(path) == pem.count("-----BEGIN"):
            self._authorities_due = False
            return
        write_atomically(path, pem)
        self._after_step("authorities file")
        if not self.runtime.set_authorities(path, pem):
            self._log.info("the authorities are too many for a command: HAProxy is reloaded")
            self.runtime.reload()
            self._repair = True
        self._after_step("authorities in HAProxy")
        self._authorities_due = False

    def _restore(self) -> None:
        """Begin again from the files: after a start, a restart of HAProxy, or a step that failed."""
        self.maps = Maps(self._settings, self.runtime, self._after_step)
        if self.maps.damaged:  # HAProxy keeps what it has until the snapshot
            self._log.warning("a map file is damaged: everything is asked of the registry again")
            self._repair = False
            return
        if self.maps.repair():
            self._log.info("HAProxy's maps were brought in line with the files")
        self._close("restored")
        self._repair = False

    # sessions

    def _close(self, why: str, *, again: bool = True) -> int:
        """Close every session that the maps do not permit, at old workers too."""
        if self.maps.damaged:  # it knows too little to close anything
            return 0
        rows = self.runtime.rows()
        wrong = {
            row.source for row in rows if row.live and not self.maps.permits(row.certificate_id, encoded(row.client_id))
        }
        closed = self.runtime.close(wrong) if wrong else 0
        older = self.runtime.close_of_older_workers()
        if closed or older:
            self._log.info("closed sessions", why=why, sessions=closed + older)
            self._after_step("sessions closed")
        if again:
            self._look_again = time.monotonic() + SECOND_LOOK
        self._rows = rows
        return closed

    def _look_after(self) -> None:
        """Look again after 200 ms, and at everything every ten seconds."""
        swept = time.monotonic()
        while not self._stop.wait(0.02):
            now = time.monotonic()
            with self._trouble("haproxy", "sessions could not be looked at"):
                if self._look_again and now >= self._look_again:
                    self._look_again = 0.0
                    self._close("second look", again=False)
                if now - swept >= self._sweep:
                    swept = now
                    self._close("sweep", again=False)
                    if not self.maps.counted():
                        self._repair = True
                    elif not self._repair:
                        self.maps.compact()

    # what was seen

    def _follow_events(self) -> None:
        worker = ""
        while not self._stop.is_set():
            with self._trouble("haproxy", "HAProxy's events cannot be followed"):
                before, worker = worker, self.runtime.worker()
                fresh = before not in ("", worker)
                if fresh:  # a restart or a reload: maps from the files, and a ring that nobody has read
                    self._repair = True
                lines = Lines()
                asked = time.monotonic()
                for part in self.runtime.events(all_of_them=fresh):
                    if self._stop.is_set():
                        return
                    for line in lines.feed(part):
                        event = parse(line)
                        if event is not None:
                            self.queue.put(event)
                    if time.monotonic() - asked >= 1.0:
                        asked = time.monotonic()
                        if self.runtime.worker() != worker:  # after a reload the old worker keeps this connection
                            break
            self._stop.wait(0.2)

    def _tell(self) -> None:
        """Send events, lists of sessions and reports."""
        reported = beat = 0.0
        pause, quiet_until = 0.2, 0.0
        while not self._stop.wait(_CONFIRM_EVERY):
            now = time.monotonic()
            with self._trouble("haproxy", "the table of connections cannot be read"):
                if self.queue.unconfirmed or now - beat >= HEART_BEAT:
                    self._rows = self.runtime.rows()
                    self.queue.confirm((row.certificate_id, row.source) for row in self._rows if row.established)
            if now < quiet_until:
                continue
            try:
                changed = self._live() != self._last_rows
                if len(self.queue) or now - beat >= HEART_BEAT or (changed and now - beat >= 2.0):
                    self._send(heart_beat=now - beat >= HEART_BEAT or changed)
                    beat = now
                if self._report_now.is_set() or now - reported >= REPORT:
                    self._report_now.clear()
                    reported = now
                    self.report()
                pause = 0.2
            except SourceError as error:
                self._say("registry", "the registry does not take events", error)
                quiet_until = now + pause
                pause = min(pause * 2, 5.0)
            except Exception:  # noqa: BLE001  as in _trouble
                self._log.exception("events could not be sent")
                quiet_until = now + 2.0
        with self._trouble("registry", "the last events could not be sent"):
            self._rows = self.runtime.rows()
            self.queue.confirm((row.certificate_id, row.source) for row in self._rows if row.established)
            self._send(heart_beat=False)

    def _live(self) -> set[tuple[str, str, str]]:
        return {(row.certificate_id, row.client_id, row.source) for row in self._rows if row.live and row.established}

    def _send(self, *, heart_beat: bool) -> None:
        live = [row for row in self._rows if row.live and row.established]
        sessions = [
            {
                "certificateId": row.certificate_id,
                "clientId": row.client_id,
                "source": plain(row.source),
                "bytesIn": row.bytes_in,
            }
            for row in live
        ]
        while True:
            events = self.queue.take(_BATCH)
            last = not len(self.queue)
            try:
                answer = self._source.events(
                    {
                        "gate": self.name,
                        "events": [outgoing(event) for event in events],
                        "sessions": sessions if heart_beat and last else None,
                    }
                )
            except SourceError:
                self.queue.give_back(events)
                raise
            for one in answer.get("registrations", ()):
                self._log.info("registration", outcome=one)
            if last:
                break
        self._last_rows = self._live()

    def report(self) -> None:
        """Say what is applied and what was seen.

        Raises:
            SourceError: the registry does not answer.
        """
        self._source.report(
            {
                "gate": self.name,
                "epoch": self.maps.epoch,
                "revision": self.maps.revision,
                "version": version(),
                "sessions": len(self._live()),
                "refusals": dict(self.queue.refused) | ({"dropped": self.queue.dropped} if self.queue.dropped else {}),
                "lagSeconds": round(max(0.0, time.time() - self._contact), 3),
                "startedAt": self._started,
            }
        )

    # trouble

    @contextlib.contextmanager
    def _trouble(self, what: str, message: str) -> Iterator[None]:
        try:
            yield
        except (KeyassayError, OSError) as error:
            self._say(what, message, error)
        except Exception:  # noqa: BLE001  a defect must not end the thread: the gate would fall behind unseen
            self._log.exception(message, where=what)
            self._stop.wait(1.0)

    def _say(self, what: str, message: str, error: Exception) -> None:
        """Log a trouble, the same one once a minute."""
        now = time.monotonic()
        if not self._stop.is_set() and now - self._said.get(message, -_SAY_AGAIN) >= _SAY_AGAIN:
            self._said[message] = now
            self._log.warning(message, where=what, error=getattr(error, "message", str(error)))
