"""A process of its own for what takes memory or long: told what to do by one line, it ends when its parent does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from keyassay.errors import KeyassayError
from keyassay.storage.database import Database


class Child:
    """A Python module that runs as a program.

    Args:
        module: which; it asks ``first_line``.
        line: what to do. It is no argument, since it may hold a password.
        heard: called in a thread with each line that the program says.
    """

    def __init__(self, module: str, line: str, heard: Callable[[str], None] | None = None) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, "-m", module], stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT
        )
        self._heard = heard
        #: the last line that it said
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self.said = line.decode(errors="replace").strip()
            if self._heard is not None:
                self._heard(self.said)

    def wait(self, seconds: float) -> int | None:
        """Its exit code, negative if a signal ended it; None if it goes on for longer than that."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join()
        self._close()
        return code

    def interrupt(self) -> None:
        """Ask it to end, and to say how far it came."""
        self._process.send_signal(signal.SIGINT)  # nothing happens if it has ended

    def end(self, patience: float = 0.0) -> None:
        """Have it end, after so many seconds in which it may do so by itself."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._close()

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def first_line() -> str:
    """What the parent said, in the process itself, which from now on ends with its parent."""
    line = sys.stdin.buffer.readline().decode()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return line


def outcome(url: str, work: Callable[[Database], int]) -> int:
    """Do the work of such a process; if it cannot be done, a sentence that says why is the last line that it says.

    Args:
        url: address of the database.
        work: what to do with it; returns the exit code.

    Returns:
        The exit code: 1 for what could not be done.
    """
    database = Database(url)
    try:
        return work(database)
    except KeyassayError as error:
        say(str(error))
    except MemoryError:
        say("the machine's memory is used up")
    finally:
        database.close()
    return 1


def say(line: str) -> None:
    """Tell the parent, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    while os.read(0, 4_096):  # no buffered stream, whose lock would be held when the interpreter ends
        pass
    os._exit(4)
