"""How far deep steps have come on each key, kept in a store: a later run goes on there (``--against``).

One text file, a line for each key, written when the key's turn is over: a run that is killed loses the keys under way
and nothing else. Each line carries a checksum; one that is damaged is passed over, and its key's steps run again. The
latest line of a key counts. Public facts only: that a step has found something is not written, so it will run again.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from keyassay.bulk.deep import Earlier, EarlierSteps
from keyassay.bulk.results import Outcome, StepReport
from keyassay.checks import Check
from keyassay.errors import KeyassayError

_FIRST = b"keyassay deep steps 1\n"
#: seconds after which what was written has to be on the disk, for a machine that loses power
_PATIENCE = 1.0
#: no line of ours is longer
_LONGEST = 1 << 20

#: (check, version of the check, name of the step)
_Step = tuple[str, int, str]


class Journal:
    """The file, open for adding.

    Args:
        path: where it is, or will be.
        checks: the checks of this run: what was done by other versions of them does not count.

    Attributes:
        damaged: lines that were passed over.

    Raises:
        KeyassayError: it cannot be used, or is of another version.
    """

    def __init__(self, path: Path, checks: Iterable[Check[Any]]) -> None:
        """Look through the file; drop a last line that was cut off, and lines that later ones supersede."""
        self._path = path
        self._versions = {one.id: one.metadata.version for one in checks}
        self._numbers: dict[_Step, int] = {}
        self._places: dict[bytes, tuple[int, int]] = {}
        self._by_number: dict[int, _Step] = {}
        self.damaged = 0
        try:
            self._file = path.open("a+b", buffering=0)
            try:
                self._read()
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise KeyassayError(f"the store's file {str(path)!r} cannot be used: {error.strerror}") from None
        self._synced = time.monotonic()

    def _read(self) -> None:
        self._end = self._file.seek(0, os.SEEK_END)
        if self._end < len(_FIRST):
            self._file.truncate(0)
            self._file.write(_FIRST)
            self._end = len(_FIRST)
        lines = 0
        for start, size, record in self._records():
            lines += 1
            if record[0] == "key":
                self._places[bytes.fromhex(record[1])] = (start, size)
        if lines > 2 * (len(self._places) + len(self._by_number)) + 1_000:
            self._compact()

    def _records(self) -> Iterator[tuple[int, int, Any]]:
        """Place, length and contents of every sound line; notes the steps, cuts off what a killed run left."""
        self._file.seek(0)
        with os.fdopen(os.dup(self._file.fileno()), "rb") as file:
            if file.readline(len(_FIRST)) != _FIRST:
                raise KeyassayError(
                    f"{str(self._path)!r} is no list of deep steps of version 1",
                    "use the release that made it, or move it away: deep steps then begin anew",
                )
            start = len(_FIRST)
            while line := file.readline(_LONGEST):
                if not line.endswith(b"\n") and start + len(line) == self._end:
                    break
                record = _contents(line)
                if record is None or (record[0] == "key" and not self._knows(record)):
                    self.damaged += 1
                else:
                    if record[0] == "step":
                        step = (str(record[2]), int(record[3]), str(record[4]))
                        self._numbers[step] = record[1]
                        self._by_number[record[1]] = step
                    yield start, len(line), record
                start += len(line)
        if start < self._end:
            self._file.truncate(start)
            self._end = start

    def _knows(self, record: Any) -> bool:
        return all(one[0] in self._by_number for one in record[2])

    def _compact(self) -> None:
        """Write the lines that count to the side, then under the file's name."""
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix="deep-", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_FIRST)
                for number, step in self._by_number.items():
                    file.write(_line(["step", number, *step]))
                places: dict[bytes, tuple[int, int]] = {}
                for key, (start, size) in self._places.items():
                    places[key] = (file.tell(), size)
                    file.write(os.pread(self._file.fileno(), size, start))
                end = file.tell()
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
        self._file.close()
        self._file = self._path.open("a+b", buffering=0)
        self._places, self._end = places, end

    def earlier(self, key: bytes) -> EarlierSteps:
        """What earlier runs have done on a key, by the first 16 bytes of its digest."""
        place = self._places.get(key)
        if place is None:
            return {}
        record = _contents(os.pread(self._file.fileno(), place[1], place[0]))
        found: dict[tuple[str, str], Earlier] = {}
        for number, done, units, seconds, detail in record[2] if record else ():
            check, version, step = self._by_number[number]
            if self._versions.get(check) == version:
                found[check, step] = Earlier(bool(done), int(units), float(seconds), str(detail))
        return found

    def note(self, key: bytes, earlier: EarlierSteps, reports: Iterable[StepReport]) -> None:
        """Write down what this run has done on a key.

        Raises:
            OSError: as the system says.
        """
        kept = together(earlier, reports)
        if kept == earlier:
            return
        rows = [
            [self._number(name), int(one.done), one.units, math.ceil(one.seconds * 1000) / 1000, one.detail]
            for name, one in kept.items()
        ]
        self._places[key] = self._write(["key", key.hex(), rows])

    def _number(self, name: tuple[str, str]) -> int:
        step = (name[0], self._versions[name[0]], name[1])
        number = self._numbers.get(step)
        if number is None:
            number = self._numbers[step] = max(self._by_number, default=-1) + 1
            self._by_number[number] = step
            self._write(["step", number, *step])
        return number

    def _write(self, record: list[Any]) -> tuple[int, int]:
        line = _line(record)
        written = self._file.write(line)
        if written != len(line):
            self._file.truncate(self._end)
            raise OSError(28, "no space left on device")
        place = (self._end, len(line))
        self._end += len(line)
        if time.monotonic() - self._synced > _PATIENCE:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()
        return place

    def close(self) -> None:
        """Have all of it on the disk, and let go of the file."""
        with suppress(OSError):
            os.fsync(self._file.fileno())
        self._file.close()


def together(earlier: EarlierSteps, reports: Iterable[StepReport]) -> dict[tuple[str, str], Earlier]:
    """How far the steps have come on a key after one more run: what a later one may rely on."""
    kept: dict[tuple[str, str], Earlier] = dict(earlier)
    for report in reports:
        name = (report.check, report.step)
        before = earlier.get(name)
        spent = report.seconds + (before.seconds if before else 0.0)
        if report.outcome is Outcome.DONE:
            kept[name] = Earlier(True, report.units, spent, report.detail)
        elif report.outcome is Outcome.PARTLY:
            kept[name] = Earlier(False, report.units, spent, report.detail)
        elif report.outcome is Outcome.FOUND and report.units > 1:
            # It has to be found again: one unit back, and as much time as it had.
            kept[name] = Earlier(False, report.units - 1, 0.0, "")
        elif report.outcome in (Outcome.FOUND, Outcome.FAILED):
            kept.pop(name, None)
    return kept


def _line(record: list[Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _contents(line: bytes) -> Any:
    """The record of a line; None if it is damaged."""
    text = line[9:-1]
    if line[8:9] != b" " or line[:8] != b"%08x" % zlib.crc32(text):
        return None
    return json.loads(text)


def spent(earlier: Mapping[tuple[str, str], Earlier]) -> float:
    """CPU seconds of a key's budget that earlier runs have used."""
    return sum(one.seconds for one in earlier.values())
