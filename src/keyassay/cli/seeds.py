"""``keyassay seeds``: keys from weak generators, searched seed by seed for a whole fleet at once."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from keyassay.bulk.seed_search import SeedSearch
from keyassay.certificates.decoding import decode
from keyassay.certificates.limits import DEFAULT_LIMITS
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.certificates.reading import ReadOptions, read, total_bytes
from keyassay.cli.parameters import passwords_of
from keyassay.cli.progress import ProgressBar
from keyassay.errors import KeyassayError
from keyassay.lists.seeds import MODELS, Model, Origin
from keyassay.output.escaping import visible

#: units of a clock in a second
_CLOCKS = {"s": 1, "ms": 1_000}
_ALL = "all"


@click.group("seeds", short_help="Search for keys that were made from a guessable seed.")
def command() -> None:
    """Keys whose primes come from an ordinary random generator: whoever finds the seed has the private key.

    \b
    keyassay seeds models                                            what can be searched
    keyassay seeds search fleet/ --model mt19937-words --range 0..4294967295
    keyassay seeds search fleet/ --model all --range 2024-03-01..2024-03-31
    """  # noqa: D301  \b is click's mark for lines to keep


# models


@command.command("models", short_help="What generators and programs are known.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def models(as_json: bool) -> None:
    """List the models: how a program comes from a seed to the two numbers that it searches primes from.

    All of them draw a number for p, then one for q (the next one or the one after), set the highest bit or the highest
    two, and search the next prime upward.
    """
    if as_json:
        rows = [
            {"name": one.name, "seed_bits": one.generator.seed_bits, "clock": one.clock or None, "assumes": one.assumes}
            for one in MODELS.values()
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    width = max(map(len, MODELS))
    click.echo(f"{'model':<{width}}  {'seed':<8} {'clock':<5}  assumes")
    for one in MODELS.values():
        click.echo(f"{one.name:<{width}}  {f'{one.generator.seed_bits} bits':<8} {one.clock:<5}  {one.assumes}")


# search


@command.command(
    "search",
    short_help="Try a range of seeds on all keys at once.",
    epilog="Exit codes: 0 nothing found, 1 a key was found, 2 wrong use or no RSA key to search for, 130 interrupted "
    "(run it again to go on).",
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--model",
    "names",
    type=click.Choice([*MODELS, _ALL]),
    multiple=True,
    required=True,
    metavar="NAME",
    help="What made the keys, as `keyassay seeds models` lists it (may be repeated), or all.",
)
@click.option(
    "--range",
    "given",
    required=True,
    metavar="FROM..TO",
    help="Seeds, both ends included: 0..65535, 0x10..0xffff, or times: 2015-01-01..2025-12-31 (UTC).",
)
@click.option(
    "--clock",
    type=click.Choice(list(_CLOCKS)),
    help="What times become: seconds or milliseconds since 1970.  [default: ms for Java's models, else s]",
)
@click.option("--jobs", type=click.IntRange(1, 1024), metavar="N", help="Processes.  [default: one for each core]")
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where is kept how far it is; removed at the end.  [default: in the user's data folder]",
)
@click.option("--reveal", is_flag=True, help="Show the seeds that were found, which are as secret as the keys.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Passwords, one a line, for PKCS #12, JKS and encrypted keys.",
)
def search(
    paths: tuple[str, ...],
    names: tuple[str, ...],
    given: str,
    clock: str | None,
    jobs: int | None,
    state: Path | None,
    reveal: bool,
    password_file: Path | None,
) -> int:
    """Try every seed of a range on all RSA keys in PATH (files, folders, archives, - for standard input).

    The cost hardly depends on how many keys there are. Interrupted, the same command goes on where it was. What is
    found is proven, and later scans recognise it (rsa-weak-seed); `keyassay prove FILE` shows every step.

    \b
    Examples:
      keyassay seeds search fleet/ --model glibc-bytes --range 0..4294967295
      keyassay seeds search device.pem --model all --range 0..1000000
      keyassay seeds search fleet/ --model java-biginteger --range 2024-03-01T08:00..2024-03-01T18:00
    """  # noqa: D301  \b is click's mark for lines to keep
    chosen = list(MODELS.values()) if _ALL in names else [MODELS[name] for name in dict.fromkeys(names)]
    ranges = _ranges(given, clock, chosen, skip=_ALL in names)
    holders = _moduli(paths, password_file)
    found = _search(holders, ranges, state, jobs or os.cpu_count() or 1, reveal=reveal)
    if found:
        click.echo(f"{found:,} of {len(holders):,} different RSA keys found")
        return 1
    click.echo(f"nothing found: none of {len(holders):,} different RSA keys comes from these seeds by these models")
    return 0


def _ranges(given: str, clock: str | None, models: list[Model], *, skip: bool) -> dict[range, list[Model]]:
    """The models by the seeds that a range means for them; ``skip`` leaves out those that have no such seeds.

    Raises:
        UsageError: it is no range, or too large for a model.
    """
    ends = given.split("..")
    if len(ends) != 2:
        raise click.UsageError(f"{given!r} is no range; 0..65535 and 2015-01-01..2025-12-31 are")
    found: dict[range, list[Model]] = {}
    for model in models:
        unit = _CLOCKS[clock or model.clock or "s"]
        first, last = _end(ends[0], unit, last=False), _end(ends[1], unit, last=True)
        if first > last:
            raise click.UsageError(f"{given!r} ends before it begins")
        largest = (1 << model.generator.seed_bits) - 1
        if last > largest:
            if skip:
                last = largest
                if first > last:
                    continue
            else:
                raise click.UsageError(f"{given!r} goes to {last}: the seeds of {model.name} are 0 to {largest}")
        found.setdefault(range(first, last + 1), []).append(model)
    return found


def _end(text: str, unit: int, *, last: bool) -> int:
    """One end of a range: a number, or the first or last unit of a time."""
    text = text.strip()
    if re.fullmatch(r"\d{1,20}|0[xX][0-9a-fA-F]{1,16}", text):
        return int(text, 0 if text[:2].lower() == "0x" else 10)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is no seed and no time; 65535 and 2027-01-31T12:00 are") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if last and "T" not in text and " " not in text and len(text) <= 10:
        moment += timedelta(days=1)
        return max(_units(moment, unit) - 1, 0)
    return _units(moment, unit) + (unit - 1 if last else 0)


def _units(moment: datetime, unit: int) -> int:
    count = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1) * unit
    if count < 0:
        raise click.UsageError(f"{moment:%Y-%m-%d} is before 1970")
    return count


def _moduli(paths: tuple[str, ...], password_file: Path | None) -> dict[int, list[str]]:
    """The moduli of the RSA keys in some places, with the names of the items that have them.

    Raises:
        KeyassayError: there is none.
    """
    holders: dict[int, list[str]] = {}
    unreadable = 0
    read_bytes = 0

    def advance(count: int) -> None:
        nonlocal read_bytes
        read_bytes += count

    total = total_bytes(list(paths))
    options = ReadOptions(passwords=passwords_of(password_file), progress=advance)
    with ProgressBar() as bar:
        items = 0
        for block in read(list(paths), options, sys.stdin.buffer):
            for item in decode(block, DEFAULT_LIMITS):
                items += 1
                unreadable += item.error is not None
                key = item.key
                if isinstance(key, RsaPublicKey) and not DEFAULT_LIMITS.exceeded_by(key) and key.modulus > 1:
                    holders.setdefault(key.modulus, []).append(f"{item.source}#{item.index}")
            bar("reading", read_bytes / total if total else None, items)
    if unreadable:
        click.echo(f"keyassay: {unreadable:,} items could not be read; `keyassay scan` says why", err=True)
    if not holders:
        raise KeyassayError("no RSA key was found in PATH: there is nothing to search for")
    return holders


def _search(
    holders: dict[int, list[str]], ranges: dict[range, list[Model]], state: Path | None, jobs: int, *, reveal: bool
) -> int:
    """Search, say what is found, and return how many keys that are.

    Raises:
        KeyassayError: no key has a size that a model fits, or the state file cannot be used.
    """
    moduli = list(holders)
    with ProgressBar(unit="seeds") as bar:
        run = SeedSearch(moduli, ranges, state=state, jobs=jobs, progress=bar)
        if not run.covered:
            raise KeyassayError(
                "no key has a size that these models cover", "`keyassay checks rsa-weak-seed` says which"
            )
        if run.covered < len(moduli):
            click.echo(f"keyassay: {len(moduli) - run.covered:,} keys have a size that no model covers", err=True)
        before = f"; {run.done / run.units:.1%} were done before" if run.done else ""
        what = f"{run.covered:,} keys, {run.seeds:,} seeds (of each generator for itself)"
        click.echo(f"keyassay: {what}: about {_time(run.seconds())} of CPU{before}", err=True)
        count = 0
        lines: list[str] = []
        try:
            for place, origin, _ in run.run():
                count += 1
                lines.append(_line(holders[moduli[place]], origin, reveal))
        except KeyboardInterrupt:
            bar.close()
            click.echo(
                f"keyassay: {run.done / run.units:.1%} done, kept in {run.state}; the same command goes on", err=True
            )
            raise
        finally:  # whatever ended it: what was found is found
            bar.close()
            for line in lines:
                click.echo(line)
    return count


def _line(names: list[str], origin: Origin, reveal: bool) -> str:
    more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    seed = f" with seed {origin.seed}" if reveal else ""
    return f"broken  {visible(names[0])}{more}: {origin.model}{seed}"


def _time(seconds: float) -> str:
    for limit, size, unit in ((90, 1, "s"), (5_400, 60, "minutes"), (172_800, 3_600, "hours")):
        if seconds < limit:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds / 86_400:,.0f} days"
