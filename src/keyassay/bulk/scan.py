"""The engine: read, decode, screen, examine, prove, compare, in input order and bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from keyassay.bulk.results import Result, Settings, Summary

#: (phase, share done 0..1 or None if unknown, items so far)
Progress = Callable[[str, float | None, int], None]


class Scan:
    """One run over sources; iterate it once, then read ``summary``.

    Raises:
        KeyassayError: unknown check ids, an unusable store; before the first result.
    """

    def __init__(
        self,
        sources: Iterable[str],
        settings: Settings,
        progress: Progress | None = None,
        standard_input: BinaryIO | None = None,
    ) -> None:
        self.summary = Summary()

    def __iter__(self) -> Iterator[Result]:
        """Results in input order; with fleet checks the first comes after the last input is read."""
        raise NotImplementedError
