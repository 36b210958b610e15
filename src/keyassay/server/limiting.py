"""Rates of an account: a bucket of requests that fills again at a steady rate; an empty one answers "throttling"."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from keyassay.aws.errors import ServiceError
from keyassay.aws.operations import Request


class RateLimit:
    """Refuses what an account asks beyond its rate; for each server by itself.

    Args:
        rate: requests a second that an account may keep up.
        burst: requests at once after a pause; twice the rate if it is 0.
        clock: seconds, for tests.
    """

    def __init__(self, rate: float, burst: float = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = max(burst or 2 * rate, 1.0)
        self._clock = clock
        self._lock = threading.Lock()
        #: account -> (requests left, when that was so); as many as there are accounts
        self._left: dict[str, tuple[float, float]] = {}

    def __call__(self, request: Request) -> None:
        """Take one request off.

        Raises:
            ServiceError: ThrottlingException; clients of AWS wait and try again by themselves.
        """
        now = self._clock()
        with self._lock:
            left, since = self._left.get(request.account_id, (self._burst, now))
            left = min(left + (now - since) * self._rate, self._burst)
            enough = left >= 1.0
            self._left[request.account_id] = (left - 1.0 if enough else left, now)
        if not enough:
            message = f"an account may send {self._rate:g} requests a second: wait a little"
            raise ServiceError("ThrottlingException", message)
