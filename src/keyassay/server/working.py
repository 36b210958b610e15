"""What a server does beside answering: workers, a thread each, told to stop and waited for when the server ends."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

from keyassay.mitigation.worker import MitigationWorker
from keyassay.registry.registry import Registry
from keyassay.server.settings import Settings

#: seconds that workers get to end; what they were at is safe in the database
GRACE = 20.0


class Worker(Protocol):
    """Something that goes on until it is told to stop."""

    @property
    def name(self) -> str:
        """For the log and the thread."""

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, then return soon; errors are the worker's own business."""


def workers_of(settings: Settings, registry: Registry, log: Any) -> list[Worker]:
    """All workers, as ``serve`` and ``worker`` run them."""
    del settings
    return [MitigationWorker(registry, log)]


class Workers:
    """Runs workers.

    Args:
        workers: which.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=one.run, args=(self._stop,), name=one.name, daemon=True) for one in workers
        ]

    def start(self) -> None:
        """Begin; once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Tell all to stop and wait for them, ``GRACE`` seconds at most; nothing happens if they never began."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(GRACE)
