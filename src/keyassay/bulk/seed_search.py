"""``keyassay seeds search``: all seeds of a range, on all keys at once, in worker processes, with a checkpoint.

A unit of work is a range of seeds of one generator, for all models that start from it. The state file says how many
units from the first on are done and what they found; it is replaced as a whole, never written in place. Of what was
done out of order at most a few units are done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

import numpy as np

from keyassay.errors import KeyassayError
from keyassay.lists.lookup import data_folder, write_atomically
from keyassay.lists.seeds import BLOCK, Model, Origin, Targets, remember, search

FORMAT = "keyassay-seed-search-1"
#: seeds in a unit of work
UNIT = 1 << 17
#: seconds between two writings of the state
_INTERVAL = 2.0

Progress = Callable[[str, float | None, int], None]
Candidate = tuple[int, Origin]


class SeedSearch:
    """The search for the keys of a fleet; ``run`` goes on where the state file says.

    Args:
        moduli: distinct.
        plan: what is tried: models by the range of their seeds.
        state: the state file; None for the default place. Made when there is something to keep, removed at the end.
        jobs: worker processes; 1 works in this one.
        progress: is told phase, share of the whole search, seeds tried (of all generators together).
        unit: seeds in a unit of work.

    Raises:
        KeyassayError: the state file is damaged, of another search, or cannot be read.
        ValueError: a model has no such seeds.
    """

    def __init__(
        self,
        moduli: Sequence[int],
        plan: Mapping[range, Sequence[Model]],
        *,
        state: Path | None = None,
        jobs: int = 1,
        progress: Progress | None = None,
        unit: int = UNIT,
    ) -> None:
        """Sort the moduli and read the state."""
        self._moduli = moduli
        self.targets = Targets.of(moduli)
        self._groups: dict[tuple[range, str], list[Model]] = {}
        for seeds, models in plan.items():
            for model in models:
                self._groups.setdefault((seeds, model.generator.name), []).append(model)
                if not 0 <= seeds.start <= seeds.stop <= 1 << model.generator.seed_bits:
                    raise ValueError(f"{model.name} has seeds of {model.generator.seed_bits} bits")
        #: how many of the moduli have a size that a model fits
        self.covered = self.targets.covered(model for models in plan.values() for model in models)
        self._unit = unit
        self._jobs = jobs
        self._progress = progress or (lambda _phase, _share, _items: None)
        self._identity = {
            "format": FORMAT,
            "keys": hashlib.sha256(",".join(f"{one:x}" for one in sorted(moduli)).encode()).hexdigest(),
            "models": [
                [model.name, seeds.start, seeds.stop] for (seeds, _), models in self._groups.items() for model in models
            ],
            "unit": unit,
        }
        digest = hashlib.sha256(json.dumps(self._identity).encode()).hexdigest()[:16]
        self.state = state or data_folder() / "searches" / f"seeds-{digest}.json"
        #: units done, counted from the first one without a gap
        self.done = 0
        #: by position of the modulus: the origin of its key, and a factor
        self.found: dict[int, tuple[Origin, int]] = {}
        self._read()
        self._written = time.monotonic()

    @property
    def units(self) -> int:
        """All units there are."""
        return sum(self._units_of(seeds) for seeds, _ in self._groups)

    @property
    def seeds(self) -> int:
        """All seeds there are, those of each generator for itself."""
        return sum(len(seeds) for seeds, _ in self._groups)

    def _units_of(self, seeds: range) -> int:
        return -(-len(seeds) // self._unit)

    def seconds(self) -> float:
        """CPU seconds that are left, by trying some thousand seeds of each generator (a tenth of a second)."""
        if not self.units:
            return 0.0
        total = 0.0
        for (seeds, _), models in self._groups.items():
            some = seeds[:BLOCK]
            started = time.process_time()
            _searched(self.targets, models, some.start, some.stop)
            total += (time.process_time() - started) / max(len(some), 1) * len(seeds)
        return total * (1 - self.done / self.units)

    def run(self) -> Iterator[tuple[int, Origin, int]]:
        """Positions of moduli with the origin of their key and a factor, proven, those of earlier runs first.

        Whatever ends it early (an interruption, a lost worker), the state is written before.
        """
        yield from ((place, *found) for place, found in list(self.found.items()))
        finished = False
        try:
            with contextlib.closing(self._in_turn() if self._jobs == 1 else self._in_parallel()) as results:
                for candidates in results:
                    for place, origin in candidates:
                        factor = None if place in self.found else origin.factor(self._moduli[place])
                        if factor is not None:
                            self.found[place] = origin, factor
                            remember(self._moduli[place], origin)
                            yield place, origin, factor
                    self.done += 1
                    self._progress("searching", self.done / self.units, round(self.seeds * self.done / self.units))
                    if len(self.found) == self.covered:
                        break
                    if time.monotonic() - self._written > _INTERVAL:
                        self._write()
            finished = True
        finally:
            if not finished:
                self._write()
        self.state.unlink(missing_ok=True)

    def _tasks(self) -> Iterator[tuple[list[Model], int, int]]:
        """The units that are not done."""
        number = 0
        for (seeds, _), models in self._groups.items():
            for start in range(seeds.start, seeds.stop, self._unit):
                if number >= self.done:
                    yield models, start, min(start + self._unit, seeds.stop)
                number += 1

    def _in_turn(self) -> Generator[list[Candidate], None, None]:
        for task in self._tasks():
            yield _searched(self.targets, *task)

    def _in_parallel(self) -> Generator[list[Candidate], None, None]:
        """Candidates of the units, in order; a bounded number of units under way."""
        pool = ProcessPoolExecutor(self._jobs, get_context("forkserver"), _start, (self.targets,))
        waiting: deque[Future[list[Candidate]]] = deque()
        try:
            for task in self._tasks():
                waiting.append(pool.submit(_work, *task))
                while len(waiting) > 4 * self._jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise KeyassayError(
                "a worker process was lost", "the same command goes on; --jobs takes fewer at a time"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self) -> None:
        try:
            state = json.loads(self.state.read_text("utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise KeyassayError(f"{self.state} cannot be read as the state of a search: {error}") from error
        if not isinstance(state, dict) or any(state.get(name) != value for name, value in self._identity.items()):
            raise KeyassayError(
                f"{self.state} is the state of another search", "name another file with --state, or remove this one"
            )
        done, found = state.get("done"), state.get("found")
        try:
            assert isinstance(done, int)
            assert 0 <= done <= self.units
            assert isinstance(found, list)
            origins = [
                (int(place), Origin(str(model), int(seed), int(top), (int(one), int(two))))
                for place, model, seed, top, one, two in found
            ]
        except (AssertionError, ValueError, TypeError) as error:
            raise KeyassayError(f"{self.state} is damaged", "remove it to begin again") from error
        self.done = done
        order = sorted(range(len(self._moduli)), key=self._moduli.__getitem__)
        for place, origin in origins:  # proven again: a file is not trusted
            factor = origin.factor(self._moduli[order[place]]) if 0 <= place < len(order) else None
            if factor is not None:
                self.found[order[place]] = origin, factor

    def _write(self) -> None:
        """Replace the state file, so that a crash at any moment leaves the old one or the new one."""
        order = sorted(range(len(self._moduli)), key=self._moduli.__getitem__)
        place_of = {place: number for number, place in enumerate(order)} if self.found else {}
        found = [
            [place_of[place], origin.model, origin.seed, origin.top, *origin.draws]
            for place, (origin, _) in self.found.items()
        ]
        text = json.dumps({**self._identity, "done": self.done, "found": found}, indent=2) + "\n"
        try:
            write_atomically(self.state, text.encode(), mode=0o600)
        except OSError as error:
            raise KeyassayError(
                f"{self.state} cannot be written: {error.strerror or error}", "name another file with --state"
            ) from error
        self._written = time.monotonic()


def _searched(targets: Targets, models: list[Model], start: int, stop: int) -> list[Candidate]:
    found: list[Candidate] = []
    for first in range(start, stop, BLOCK):
        seeds = np.arange(first, min(first + BLOCK, stop), dtype=np.uint64)
        for portion in targets.portions():
            found += search(portion, models, seeds)
    return found


_targets: Targets | None = None


def _start(targets: Targets) -> None:
    global _targets  # noqa: PLW0603  a worker process has one search for its life
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _targets = targets


def _end_with(sentinel: int) -> None:
    """Nobody else ends a worker whose parent was killed."""
    connection.wait([sentinel])
    os._exit(1)


def _work(models: list[Model], start: int, stop: int) -> list[Candidate]:
    assert _targets is not None
    return _searched(_targets, models, start, stop)
