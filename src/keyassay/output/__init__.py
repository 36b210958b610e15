"""Reports: each format is one module with one function, ``render(results, summary, stream, options)``.

Results come in input order and are looked at once; the summary is complete when they have ended. Which findings
make a run fail is decided in ``gate``, never by a format.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TextIO

from keyassay.bulk.results import Result, Summary
from keyassay.output.gate import Gate

#: name on the command line -> module
FORMATS = {
    "table": "table",
    "json": "json_document",
    "jsonl": "jsonl",
    "sarif": "sarif",
    "csv": "csv_rows",
    "markdown": "markdown",
    "html": "html_report",
    "junit": "junit",
}


@dataclass(frozen=True)
class Options:
    """What renderers are told.

    Attributes:
        gate: says which findings count, and which were accepted.
        reveal: show private numbers.
        colour: the stream is a terminal that takes colour.
        width: columns of the terminal.
        arguments: the words of the command line that a hint has to repeat (sources, --no-fleet, ...).
        paths: the sources alone.
        budget: CPU seconds a key of the deep steps, 0 in other profiles.
    """

    gate: Gate = field(default_factory=Gate)
    reveal: bool = False
    colour: bool = False
    width: int = 100
    arguments: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    budget: float = 0.0


Renderer = Callable[[Iterable[Result], Summary, TextIO, Options], None]


def renderer(name: str) -> Renderer:
    """The renderer of a format; its module is imported now and no other one."""
    found: Renderer = importlib.import_module(f"{__name__}.{FORMATS[name]}").render
    return found


def version() -> str:
    """The version of keyassay."""
    from importlib.metadata import version as installed  # noqa: PLC0415  takes milliseconds that most runs save

    return installed("keyassay")
