"""``keyassay scan``: read, assess, report, and end with a code that scripts can rely on."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import click

from keyassay.bulk.results import DEFAULT_BUDGET, Result, Settings
from keyassay.bulk.scan import Scan, rare_collection
from keyassay.cli.parameters import CheckId, Duration, Size, Time, passwords_of, profile_for, writing_to
from keyassay.cli.progress import ProgressBar
from keyassay.errors import KeyassayError
from keyassay.findings import Classification, Profile
from keyassay.lists.walk import DEPTH
from keyassay.output import FORMATS, Options, renderer
from keyassay.output.baseline import Baseline, load
from keyassay.output.gate import Gate

#: endings of --output that say which format is meant
_ENDINGS = {
    ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".sarif": "sarif", ".csv": "csv", ".md": "markdown",
    ".html": "html", ".htm": "html", ".xml": "junit",
}  # fmt: skip


@click.command(
    "scan",
    short_help="Find keys that can be computed.",
    epilog="Exit codes: 0 nothing at or above --fail-on, 1 something, 2 wrong use or nothing to read, 3 nothing found "
    "but some input could not be read, 70 internal error, 130 interrupted, 141 output closed.",
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--profile",
    type=click.Choice([profile.label for profile in Profile]),
    default=Profile.STANDARD.label,
    show_default=True,
    help="How much work a key is worth: aws runs the two CVEs of AWS IoT Device Defender, fast takes tens of "
    "microseconds a key, standard about a millisecond, deep has a budget per key: see --budget.",
)
@click.option(
    "--budget",
    type=Duration(),
    metavar="TIME",
    help="Profile deep: CPU time for each different key that nothing else breaks: 5s, 60s, 10m.  [default: 5s]",
)
@click.option(
    "--total-budget",
    type=Duration(),
    metavar="TIME",
    help="Profile deep: CPU time for all keys together, shared evenly: 2h.  [default: no limit]",
)
@click.option("--check", "only", type=CheckId(), multiple=True, help="Run this check only (may be repeated).")
@click.option("--skip", type=CheckId(), multiple=True, help="Leave this check out (may be repeated).")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(list(FORMATS)),
    help="Form of the report.  [default: as the ending of --output says, else table]",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it to a file.")
@click.option(
    "--fail-on",
    type=click.Choice([*(one.value for one in Classification), "never"]),
    default=Classification.BROKEN.value,
    show_default=True,
    help="The mildest class of finding that ends in exit code 1.",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Accepted findings: they no longer fail the run, but stay visible.",
)
@click.option(
    "--write-baseline",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a baseline that accepts what this run finds, for 90 days; for review.",
)
@click.option("--no-fleet", is_flag=True, help="Do not compare keys with each other; results come as input is read.")
@click.option(
    "--against",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="STORE",
    help="Compare with the keys of earlier runs in this folder, and add this run's to it.",
)
@click.option(
    "--walk",
    is_flag=True,
    help="Decide RSA keys of sizes without a list of Debian's keys: about an hour of CPU for 2050 bits, 9 for 8192.",
)
@click.option(
    "--walk-depth",
    type=click.FloatRange(0.01, 30),
    metavar="M",
    help="How far --walk goes: e to the power -M is missed.  [default: 10]",
)
@click.option("--memory", type=Size(), metavar="SIZE", help="What comparisons may take.  [default: half of the RAM]")
@click.option("--jobs", type=click.IntRange(0, 1024), default=0, metavar="N", help="Processes.  [default: as it pays]")
@click.option("--reveal", is_flag=True, help="Show private numbers (p, q, d, nonces, seeds) in evidence.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Passwords, one a line, for PKCS #12, JKS and encrypted keys.",
)
@click.option(
    "--timeout", type=click.FloatRange(0.1, 3600), default=10.0, show_default=True, metavar="S", help="Per server."
)
@click.option("--at", type=Time(), metavar="TIME", help="Judge validity and baselines at this time (ISO 8601, UTC).")
def command(
    paths: tuple[str, ...],
    profile: str,
    budget: float | None,
    total_budget: float | None,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    format_name: str | None,
    output: Path | None,
    fail_on: str,
    baseline: Path | None,
    write_baseline: Path | None,
    no_fleet: bool,
    against: Path | None,
    walk: bool,
    walk_depth: float | None,
    memory: int | None,
    jobs: int,
    reveal: bool,
    password_file: Path | None,
    timeout: float,
    at: int | None,
) -> int:
    """Find certificates whose private keys can be computed.

    PATH is a file, a folder (searched through), an archive, - for standard input, tls://host[:port] or
    ssh://host[:port]. What a file holds is found by its content.

    \b
    Examples:
      keyassay scan fleet/
      keyassay scan --profile fast --format jsonl bundle.pem > results.jsonl
      keyassay scan --profile deep --budget 60s --against store/ suspects/
      keyassay scan --fail-on weak --baseline accepted.json --output report.sarif certs/
      aws iot describe-certificate --certificate-id ... | keyassay scan -
      keyassay scan --against store/ new-batch.zip
      keyassay scan --walk odd-sizes/              hours; stopped and started again it goes on
    """  # noqa: D301  \b is click's mark for lines to keep
    _something_exists(paths)
    rare_collection()
    chosen = profile_for(profile, budget, total_budget)
    settings = Settings(
        profile=chosen,
        only=only,
        skip=skip,
        fleet=not no_fleet,
        against=against,
        memory=memory or 0,
        jobs=jobs,
        passwords=passwords_of(password_file),
        timeout=timeout,
        now=at or 0,
        budget=budget or DEFAULT_BUDGET,
        total_budget=total_budget or 0.0,
        walk=(walk_depth or DEPTH) if walk or walk_depth is not None else 0.0,
    )
    format_name = format_name or (_ENDINGS.get(output.suffix.lower()) if output else None) or "table"
    gate = Gate(
        None if fail_on == "never" else Classification(fail_on),
        load(baseline) if baseline else Baseline(),
        _day(at),
        collect=write_baseline is not None,
    )
    to_terminal = output is None and sys.stdout.isatty()
    options = Options(
        gate=gate,
        reveal=reveal,
        colour=to_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
        width=min(shutil.get_terminal_size((100, 24)).columns, 120),
        arguments=() if only else _arguments(paths, settings, password_file),
        paths=paths,
        budget=settings.budget if chosen is Profile.DEEP else 0.0,
    )
    render = renderer(format_name)
    # A bar would run into lines that go to the same terminal; table, html and markdown come when it is gone.
    streams = format_name not in ("table", "markdown", "html", "junit")
    with ProgressBar(wanted=not (to_terminal and streams)) as bar:
        scan = Scan(paths, settings, bar, sys.stdin.buffer)
        with writing_to(output, private=reveal) as stream:
            render(gate.watch(_until_interrupted(scan, bar)), scan.summary, stream, options)
    if write_baseline is not None:
        with writing_to(write_baseline) as stream:
            stream.write(gate.collected().dump())
    if not scan.summary.items and not scan.summary.interrupted:
        click.echo("keyassay: nothing to read: no certificate, request or key was found", err=True)
    return gate.exit_code(scan.summary)


def _something_exists(paths: tuple[str, ...]) -> None:
    """One missing path among others is a record in the report; nothing but missing paths is wrong use."""
    for path in paths:
        if path == "-" or "://" in path or os.path.lexists(path):
            return
        try:
            os.stat(path)  # noqa: PTH116  the error is what is asked for
        except FileNotFoundError:
            continue
        except OSError:  # it may exist: the report says what is wrong with it
            return
    raise KeyassayError(f"there is no {' and no '.join(repr(path) for path in paths[:3])}", "PATH has to exist")


def _day(at: int | None) -> Any:
    if at is None:
        return None
    from datetime import UTC, datetime  # noqa: PLC0415  only with --at

    return datetime.fromtimestamp(at, UTC).date()


def _arguments(paths: tuple[str, ...], settings: Settings, password_file: Path | None) -> tuple[str, ...]:
    """The words that a hint to run again has to repeat."""
    words: list[str] = []
    for check in settings.skip:
        words += ["--skip", check]
    if not settings.fleet:
        words.append("--no-fleet")
    if settings.against:
        words += ["--against", str(settings.against)]
    if password_file:
        words += ["--password-file", str(password_file)]
    if any(path.startswith("-") and path != "-" for path in paths):
        words.append("--")
    return (*words, *paths)


def _until_interrupted(scan: Scan, bar: ProgressBar) -> Iterator[Result]:
    """The results, until they end or somebody interrupts: the report then shows what was found so far.

    The first interruption reaches the engine only while it works, so that no report is cut in the middle of a line;
    the second one ends everything.
    """
    inside = False
    asked = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked or inside:
            asked = True
            raise KeyboardInterrupt
        asked = True

    in_main_thread = threading.current_thread() is threading.main_thread()
    previous: Any = signal.signal(signal.SIGINT, handle) if in_main_thread else None
    results = iter(scan)
    try:
        while True:
            try:
                inside = True
                result = next(results)
                inside = False
            except StopIteration:
                break
            except KeyboardInterrupt:
                scan.summary.interrupted = True
                break
            finally:
                inside = False
            yield result
            if asked and not scan.summary.interrupted:
                scan.summary.interrupted = True
                break
    finally:
        bar.close()
        if in_main_thread:
            signal.signal(signal.SIGINT, previous)
