"""How often something may happen, by its name: buckets that fill again, as many as memory is set aside for."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable


class Buckets:
    """A bucket for each name; those that nobody asked for lately make room for others.

    Args:
        burst: takings at once after a pause.
        rate: takings a second that a name may keep up.
        names: buckets that are kept.
        clock: seconds, for tests.
    """

    def __init__(
        self, burst: float, rate: float, names: int = 50_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = burst
        self._rate = rate
        self._names = names
        self._clock = clock
        self._lock = threading.Lock()
        self._left: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, name: Hashable) -> bool:
        """Take one out of the bucket of a name; false if it is empty."""
        now = self._clock()
        with self._lock:
            left, since = self._left.pop(name, (self._burst, now))
            left = min(left + (now - since) * self._rate, self._burst)
            enough = left >= 1.0
            self._left[name] = (left - 1.0 if enough else left, now)
            if len(self._left) > self._names:
                self._left.popitem(last=False)
        return enough
