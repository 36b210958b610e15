"""The loop of what works on a database all the time: do a turn, log what went wrong, wait, stop when told to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from keyassay.storage.database import BusyError

#: seconds to wait after an error, beside the pause
AFTER_ERROR = 5.0


def repeat(turn: Callable[[], object], stop: threading.Event, pause: float, log: Any, what: str) -> None:
    """Call something again and again until told to stop, whatever it raises.

    Args:
        turn: does some work; true if it should be called again at once, since there may be more.
        stop: ends it, between two turns; a turn that takes long has to look by itself.
        pause: seconds between a turn that had nothing to do, or failed, and the next.
        log: a structlog logger; a database that is only busy is not worth a line.
        what: event in the log.
    """
    while not stop.is_set():
        more: object = False
        try:
            more = turn()
        except BusyError:
            pass
        except Exception as error:  # noqa: BLE001  a worker that ends would leave all its work undone
            log.error(what, problem=f"{type(error).__name__}: {error}"[:500])  # noqa: TRY400  one line is enough
            stop.wait(AFTER_ERROR)
        if not more:
            stop.wait(pause)
