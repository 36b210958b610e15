"""The search for the factors of a ROCA key: workers, progress, and a state file that survives a crash.

The mathematics is ``keymath.roca``. A unit of work is a range of roots that takes about a second. The state file says
how many roots from the first on are done; it is replaced as a whole, never written in place. Of what was done out of
order at most a unit per worker is done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

from keyassay.errors import KeyassayError
from keyassay.keymath import roca
from keyassay.lists.lookup import data_folder

FORMAT = "keyassay-roca-attack-1"
#: roots in a unit of work
UNIT = 4096
#: seconds between two writings of the state
_INTERVAL = 2.0
#: CPU seconds of a whole search above which it is refused: a day
MOST_SECONDS = 86_400.0

Progress = Callable[[str, float | None, int], None]


def state_file(modulus: int) -> Path:
    """Where the state of an attack on this modulus is kept unless the user says otherwise."""
    octets = modulus.to_bytes((modulus.bit_length() + 7) // 8, "big")
    return data_folder() / "attacks" / f"roca-{hashlib.sha256(octets).hexdigest()[:16]}.json"


class RocaAttack:
    """One modulus under attack; ``run`` goes on where the state file says.

    Args:
        modulus: a power of 65537 modulo the primes of its size (a finding of rsa-roca).
        state: the state file; made when there is something to keep, removed when the factors are found.
        jobs: worker processes; 1 works in this one.
        progress: is told phase, share of the whole search, roots done.
        division: how the classes are divided; default the cheapest way. What is too dear is refused before.
        unit: roots in a unit of work.

    Raises:
        KeyassayError: the state file is damaged, of another key, or cannot be read.
        ValueError: the modulus is no power of 65537.
    """

    def __init__(
        self,
        modulus: int,
        state: Path,
        *,
        jobs: int = 1,
        progress: Progress | None = None,
        division: roca.Plan | None = None,
        unit: int = UNIT,
    ) -> None:
        """Prepare the tables and read the state."""
        self.modulus = modulus
        self.plan = division or roca.plan(modulus.bit_length())
        self._search = roca.Search(modulus, self.plan)
        self._state = state
        self._jobs = jobs
        self._unit = unit
        self._progress = progress or (lambda _phase, _share, _items: None)
        #: roots done, counted from the first one without a gap
        self.done = self._read()
        self._written = time.monotonic()

    @property
    def roots(self) -> int:
        """All roots there are to be examined."""
        return self._search.roots

    @property
    def seconds_left(self) -> float:
        """CPU seconds for what is left, at the speed that was measured for the documentation."""
        return self.plan.seconds * (1 - self.done / self.roots)

    def run(self) -> int | None:
        """The smaller prime factor, or None if there is none in the whole search (primes of unequal size).

        Whatever ends it early (an interruption, a lost worker), the state is written before.
        """
        found = None
        try:
            with contextlib.closing(self._in_turn() if self._jobs == 1 else self._in_parallel()) as results:
                for start, factor in results:
                    if factor is not None:
                        found = factor
                        break
                    self.done = start
                    self._progress("classes", self.done / self.roots, self.done)
                    if time.monotonic() - self._written > _INTERVAL:
                        self._write()
        finally:
            if found is None:
                self._write()
        if found is not None:
            self._state.unlink(missing_ok=True)
        return found

    def _units(self) -> Iterator[tuple[int, int]]:
        for start in range(self.done, self.roots, self._unit):
            yield start, min(self._unit, self.roots - start)

    def _in_turn(self) -> Generator[tuple[int, int | None], None, None]:
        """After each unit: roots done without a gap, and the factor if it was found."""
        for start, count in self._units():
            yield start + count, self._search.run(start, count)

    def _in_parallel(self) -> Generator[tuple[int, int | None], None, None]:
        units = self._units()
        running: dict[Future[int | None], tuple[int, int]] = {}
        waiting: dict[int, int] = {}  # done out of order: first root -> following root
        gapless = self.done
        context = get_context("forkserver")
        pool = ProcessPoolExecutor(self._jobs, context, _start, (self.modulus, self.plan))
        try:
            while True:
                for start, count in units:
                    running[pool.submit(_work, start, count)] = (start, count)
                    if len(running) > self._jobs:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    start, count = running.pop(future)
                    factor = future.result()
                    waiting[start] = start + count
                    while gapless in waiting:
                        gapless = waiting.pop(gapless)
                    yield gapless, factor
        except BrokenProcessPool as error:
            raise KeyassayError(
                "a worker process was lost", "the same command goes on; --jobs takes fewer at a time"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _identity(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "modulus": f"{self.modulus:x}",
            "class_modulus": f"{self.plan.modulus:x}",
            "root_modulus": f"{self.plan.root_modulus:x}",
            "roots": self.roots,
        }

    def _read(self) -> int:
        try:
            state = json.loads(self._state.read_text("utf-8"))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise KeyassayError(f"{self._state} cannot be read as the state of an attack: {error}") from error
        identity = self._identity()
        if not isinstance(state, dict) or any(state.get(name) != value for name, value in identity.items()):
            raise KeyassayError(
                f"{self._state} is the state of another attack", "name another file with --state, or remove this one"
            )
        done = state.get("done")
        if not isinstance(done, int) or not 0 <= done <= self.roots:
            raise KeyassayError(f"{self._state} is damaged", "remove it to begin again")
        return done

    def _write(self) -> None:
        """Replace the state file, so that a crash at any moment leaves the old one or the new one."""
        text = json.dumps({**self._identity(), "done": self.done}, indent=2) + "\n"
        try:
            self._state.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=self._state.parent, prefix=self._state.name, delete=False
            ) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(self._state)
        except OSError as error:
            raise KeyassayError(
                f"{self._state} cannot be written: {error.strerror or error}", "name another file with --state"
            ) from error
        self._written = time.monotonic()


_search: roca.Search | None = None


def _start(modulus: int, division: roca.Plan) -> None:
    global _search  # noqa: PLW0603  a worker process has one search for its life
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means
    _search = roca.Search(modulus, division)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent leaves no worker behind that waits for ever."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _work(start: int, count: int) -> int | None:
    assert _search is not None
    return _search.run(start, count)
