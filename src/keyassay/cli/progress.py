"""The progress bar: on a terminal only, and only for work that takes a while."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

#: seconds before a bar appears, and between its updates
_DELAY = 0.6
_INTERVAL = 0.1


class ProgressBar:
    """Shows (phase, share done, items) on standard error; does nothing where that is no terminal."""

    def __init__(self, *, wanted: bool = True, unit: str = "items") -> None:
        """Start the clock; nothing is shown yet. ``unit`` is what is counted."""
        self._unit = unit
        self._enabled = wanted and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._next = time.monotonic() + _DELAY
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._phase = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, phase: str, share: float | None, items: int) -> None:
        """Take news from the engine; what follows a colon in the phase tells how far it is, in its own words."""
        if not self._enabled:
            return
        now = time.monotonic()
        name, _, own = phase.partition(": ")
        if now < self._next and (self._bar is None or name == self._phase):
            return
        self._next = now + _INTERVAL
        bar = self._bar or self._open()
        assert self._task is not None
        if name != self._phase:
            self._phase = name
            bar.reset(self._task, total=None, description=name)
        total = None if share is None else 1.0
        bar.update(
            self._task, completed=share or 0.0, total=total, description=name, items=own or f"{items:,} {self._unit}"
        )

    def _open(self) -> RichProgress:
        from rich.console import Console  # noqa: PLC0415  90 ms that only long runs on a terminal pay
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[items]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task("", total=None, items="")
        return self._bar

    def close(self) -> None:
        """Take the bar away, so that a report can follow."""
        self._enabled = False
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
