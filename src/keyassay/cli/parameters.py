"""Kinds of values on the command line: sizes, durations, times, check ids, files to write."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO, cast

import click
from click.shell_completion import CompletionItem

from keyassay.errors import KeyassayError
from keyassay.findings import Profile


class Size(click.ParamType):  # type: ignore[type-arg]  # older releases of click have no argument here
    """Bytes with a binary suffix: 800M, 4G, 1.5GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", value.strip(), re.IGNORECASE)
        if not found:
            self.fail(f"{value!r} is no size; 800M and 4G are", param, ctx)
        size = int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))
        if not 0 < size < 1 << 60:
            self.fail(f"{value!r} is out of range", param, ctx)
        return size


class Duration(click.ParamType):  # type: ignore[type-arg]  # older releases of click have no argument here
    """Seconds: 5s, 90, 1.5m, 2h, 1d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        found = re.fullmatch(
            r"(\d+(?:\.\d+)?|\.\d+)\s*(?:(s|sec|seconds?)|(m|min|minutes?)|(h|hours?)|(d|days?))?",
            value.strip(),
            re.IGNORECASE,
        )
        if not found:
            self.fail(f"{value!r} is no duration; 5s, 10m and 2h are", param, ctx)
        seconds = float(found[1]) * {2: 1, 3: 60, 4: 3_600, 5: 86_400}.get(found.lastindex or 1, 1)
        if not 0.001 <= seconds <= 10_000 * 86_400:
            self.fail(f"{value!r} is out of range", param, ctx)
        return seconds


class Time(click.ParamType):  # type: ignore[type-arg]  # older releases of click have no argument here
    """A date or a date with time (ISO 8601); UTC unless it says otherwise. Becomes seconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time; 2027-01-31 and 2027-01-31T12:00:00Z are", param, ctx)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


class CheckId(click.ParamType):  # type: ignore[type-arg]  # older releases of click have no argument here
    """The id of a check; completes in shells that are set up for it."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from difflib import get_close_matches  # noqa: PLC0415  only a wrong id needs it

        known = _ids()
        if value not in known:
            near = get_close_matches(value, known, 3, 0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "`keyassay checks` lists them"
            self.fail(f"there is no check {value!r}; {hint}", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        return [CompletionItem(name) for name in _ids() if name.startswith(incomplete)]


def _ids() -> list[str]:
    from keyassay.checks import catalogue  # noqa: PLC0415  imports numpy

    return [one.id for one in catalogue()]


@contextlib.contextmanager
def writing_to(path: Path | None, *, private: bool = False) -> Iterator[TextIO]:
    """A text stream for a report: standard output, or a file that appears whole or not at all.

    Args:
        path: the file, or None for standard output.
        private: the report holds secrets: nobody but the owner may read the file.

    Raises:
        KeyassayError: the file cannot be written.
    """
    if path is None:
        stream = sys.stdout
        if hasattr(stream, "reconfigure"):
            # Undecodable file names become escapes instead of an error in the middle of a report.
            stream.reconfigure(errors="backslashreplace")
        yield stream
        stream.flush()
        return
    try:
        if path.exists() and not path.is_file():  # a device or a pipe cannot be replaced
            with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
                yield stream
            return
        handle, name = tempfile.mkstemp(dir=path.resolve().parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _cannot_write(path, error) from None
    finished = False
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            yield stream
        if not private:
            Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path.resolve())
        finished = True
    except OSError as error:
        if error.filename not in (None, name):
            raise
        raise _cannot_write(path, error) from None
    finally:
        if not finished:
            Path(name).unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError) -> KeyassayError:
    return KeyassayError(f"cannot write {str(path)!r}: {error.strerror or error}")


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def passwords_of(path: Path | None) -> tuple[bytes, ...]:
    """The passwords in a file, one a line.

    Raises:
        KeyassayError: it cannot be read.
    """
    if path is None:
        return ()
    try:
        data = path.read_bytes() if str(path) != "-" else cast("Any", sys.stdin).buffer.read()
    except OSError as error:
        raise KeyassayError(f"cannot read the password file {str(path)!r}: {error.strerror}") from None
    return tuple(line.rstrip(b"\r") for line in data.split(b"\n") if line.rstrip(b"\r"))


def profile_for(profile: str, budget: float | None, total_budget: float | None = None) -> Profile:
    """The profile of the run: a budget asks for deep, unless another profile was named.

    Raises:
        KeyassayError: budget and profile contradict each other.
    """
    asked = Profile[profile.upper()]
    name = "--budget" if budget is not None else "--total-budget" if total_budget is not None else ""
    if not name or asked is Profile.DEEP:
        return asked
    if click.get_current_context().get_parameter_source("profile") is click.core.ParameterSource.DEFAULT:
        return Profile.DEEP
    raise KeyassayError(
        f"{name} is for profile deep: profile {asked.label} spends no more than it has to", "add --profile deep"
    )
