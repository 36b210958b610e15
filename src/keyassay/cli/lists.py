"""``keyassay lists``: what lists of weak keys there are, and how to make, verify, search and extend them."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from keyassay.cli.parameters import passwords_of
from keyassay.cli.progress import ProgressBar
from keyassay.errors import KeyassayError
from keyassay.lists import building, keypair, keypair_building, known, lookup
from keyassay.lists.debian import gap
from keyassay.lists.format import KINDS, SHIPPED, block_names
from keyassay.output.escaping import visible

UNCONFIRMED = "not confirmed by an original"
DIRECT_UNCONFIRMED = "state `direct` not confirmed"
_ALL_KINDS = [*KINDS, *keypair.KINDS]
_HASH = re.compile(r"[0-9A-Fa-f]{64}")


@click.group("lists", short_help="See, build, verify and search the lists of weak keys.")
def command() -> None:
    """Lists of all keys that a broken generator makes, and of keys whose private half is known.

    \b
    keyassay lists status                       what there is
    keyassay lists find SHA256                  look up the hash of a modulus or x coordinate
    keyassay lists verify --key ec-p256 --all   make every key again and compare
    keyassay lists add ~/leaked-keys            recognise these private keys in later scans
    """  # noqa: D301  \b is click's mark for lines to keep


def _jobs(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--jobs", type=click.IntRange(1, 1024), metavar="N", help="Processes.  [default: one for each core]"
    )(function)


def _cores(jobs: int | None) -> int:
    return jobs or os.cpu_count() or 1


@contextmanager
def _bar(phase: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that is told (done, of how many)."""
    with ProgressBar(unit=unit) as bar:
        yield lambda done, total: bar(phase, done / total if total else None, done)


# status


@command.command("status", short_help="What lists there are.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(as_json: bool) -> None:
    """Show the lists: keys, blocks done of how many, and whether keys of the original program were compared."""
    rows = _status()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    click.echo(f"{'list':<{width}}  {'keys':>10}  {'blocks':<12}  remarks")
    for row in rows:
        blocks = f"{row['blocks']} of {row['complete_blocks']}" if row["complete_blocks"] else ""
        remarks = "; ".join(visible(text) for text in row["remarks"])
        click.echo(f"{visible(row['name']):<{width}}  {row['entries']:>10,}  {blocks:<12}  {remarks}".rstrip())
    for problem in known.problems():
        click.echo(f"keyassay: {visible(problem)}", err=True)


def _status() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for one in lookup.available():
        problem = gap(one.kind)
        remarks = [DIRECT_UNCONFIRMED if one.confirmed else UNCONFIRMED]
        if problem and one.entries:
            remarks.insert(0, f"not complete: `keyassay lists build --key {one.kind}` goes on")
        elif problem:
            absent = f"not there: `keyassay lists build --key {one.kind}` makes it"
            remarks.insert(0, problem if lookup.is_there(one.kind) else absent)
        rows.append(_row(one.name, one.kind, one.entries, one.blocks, one.complete_blocks, one.confirmed, remarks))
    for listed in keypair.available():
        remarks = [f"{listed.share:.0%} of such keys"] if listed.entries else ["missing or damaged"]
        if listed.blocks < listed.complete_blocks:
            remarks.append("`keyassay lists build` makes 21% more")
        rows.append(
            _row(
                listed.name,
                listed.kind,
                listed.entries,
                listed.blocks,
                listed.complete_blocks,
                listed.confirmed,
                remarks,
            )
        )
    rows.append(_row(known.PUBLISHED, "", len(known.published()), 0, 0, True, ["private keys printed in RFCs"]))
    kept = [name for name, _ in known.primes().origins]
    for own in known.own():
        remarks = [f"yours: {known.folder() / own.name}.known"]
        if own.name in kept:
            remarks.append(f"{kept.count(own.name):,} primes tried on all moduli")
        rows.append(_row(own.name, "", len(own), 0, 0, True, remarks))
    return rows


def _row(
    name: str, kind: str, entries: int, blocks: int, complete: int, confirmed: bool, remarks: list[str]
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind or None,
        "entries": entries,
        "blocks": blocks,
        "complete_blocks": complete,
        "confirmed": confirmed,
        "remarks": remarks,
    }


# build


@command.command("build", short_help="Make a list again, from nothing but its recipe.")
@click.option("--key", "kind", type=click.Choice(_ALL_KINDS), required=True, metavar="KIND", help="Which list.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where blocks go.  [default: beside those of a checkout, else the user's folder]",
)
@_jobs
def build(kind: str, into: Path | None, jobs: int | None) -> int:
    """Make the blocks of a list that are missing: the same bytes every time, whoever makes them.

    Every finished block is kept, so a build that was stopped goes on where it was. Of one core RSA-4096 takes 14 hours,
    RSA-3072 7, RSA-2048 2, RSA-1024 one, a curve minutes, a list of keypair's keys 11 to 40 minutes. That is with a C
    compiler (CC, or cc) on a processor with AVX2; with AVX512-IFMA RSA-2048 and larger take less than half as long,
    without AVX2 up to three times as long.

    What is built beside the lists of an installed program goes into the user's data folder. It is compared with a
    complete one in the end, and used in place of one that has fewer blocks. In a checkout, `git` says whether a block
    that was deleted and built again differs.

    \b
    Kinds: rsa-512 rsa-1024 rsa-2048 rsa-3072 rsa-4096
           ec-secp160r1 ec-p224 ec-p256 ec-p384 ec-p521 ec-secp256k1
           keypair-1024 keypair-2048 keypair-3072 keypair-4096

    \b
    Variants, which never come with the program: add one of these to the name of an rsa or ec kind.
           -2nd  the second key of a process
           -rf1  made with -rand FILE of at most 1024 bytes
           -rf2  made with -rand and a device, or a file of 1025 to 2048 bytes
           -144  made on mips or mipsel
           -136  made on alpha
    """  # noqa: D301  \b is click's mark for lines to keep
    if kind in keypair.KINDS:
        place = keypair.lists_folder() if into is None else into
        with _bar(f"building {kind}", "blocks") as progress:
            made = keypair_building.build(kind, jobs=_cores(jobs), folder=into, progress=progress)
        click.echo(f"{kind}: {_made(made)}, {keypair.BLOCKS} of {keypair.BLOCKS} are there, in {place}")
        return 0
    place = building.build_folder(kind) if into is None else into
    with _bar(f"building {kind}", "blocks") as progress:
        made = building.build(kind, jobs=_cores(jobs), folder=place, progress=progress)
    total = len(block_names(kind))
    click.echo(f"{KINDS[kind].list_name}: {_made(made)}, {total} of {total} are there, in {place}")
    if place != lookup.blocks_folder(kind):
        same = building.same_as_listed(kind, place)
        if same is not None:
            click.echo("the same keys as in the list in use" if same else "NOT the keys of the list in use")
            return 0 if same else 1
    return 0


def _made(count: int) -> str:
    return f"{count} block{'' if count == 1 else 's'} made" if count else "nothing to do"


# verify


@command.command("verify", short_help="Make keys again and compare.")
@click.option(
    "--key", "kinds", type=click.Choice([*_ALL_KINDS, known.PUBLISHED]), multiple=True, metavar="KIND",
    help="Which list (may be repeated).  [default: all]",
)  # fmt: skip
@click.option("--sample", type=click.IntRange(1), metavar="K", help="How many keys of each.  [default: 1000]")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="All of them: 35 minutes of one core for RSA-2048, some minutes for a curve.",
)
@click.option(
    "--full", type=click.IntRange(1), metavar="K", help="K of each from the start of their streams, without hints."
)
@_jobs
def verify(kinds: tuple[str, ...], sample: int | None, everything: bool, full: int | None, jobs: int | None) -> int:
    """Make keys of the lists again and compare, so that nobody has to trust them.

    A key is made from the stream that its entry names and, for RSA, from the hints which blocks of random bytes became
    p and q; both are tested to be prime. --full ignores the hints and searches for the primes from the start of the
    stream, as the broken program did.

    Exit codes: 0 all is as listed, 1 something is not.
    """
    if sum((sample is not None, everything, full is not None)) > 1:
        raise click.UsageError("--sample, --all and --full exclude each other")
    wrong = 0
    there = [kind for kind in KINDS if lookup.is_there(kind)]
    if not kinds:
        for kind in (one for one in SHIPPED if one not in there):
            click.echo(f"{gap(kind)}, nothing to verify")
    for kind in kinds or (*there, *keypair.KINDS, known.PUBLISHED):
        count = None if everything else full or sample or 1_000
        wrong += _verify_one(kind, count, jobs=_cores(jobs), full=full is not None)
    return 1 if wrong else 0


def _verify_one(kind: str, count: int | None, *, jobs: int, full: bool) -> int:
    name = KINDS[kind].list_name if kind in KINDS else kind
    made = 0
    defects = []
    with _bar(f"verifying {name}", "keys") as progress:

        def report(done: int, total: int) -> None:
            nonlocal made
            made = done
            progress(done, total)

        if kind in KINDS:
            found = building.verify(kind, sample=count, full=full, jobs=jobs, progress=report)
        elif kind in keypair.KINDS:
            found = keypair_building.verify(kind, sample=count, jobs=jobs, progress=report)
        else:
            found = building.verify_published(progress=report)
        defects = list(found)
    for defect in defects:
        click.echo(f"{name}  {visible(defect.stream)}: {visible(defect.problem)}")
    if not made and not defects:
        click.echo(f"{name}: there is no such list, nothing was verified")
        return 1
    how = "without hints" if full and kind in KINDS and KINDS[kind].bits else "again"
    verdict = f"{len(defects):,} not as listed" if defects else "all as listed"
    click.echo(f"{name}: {made:,} keys made {how}, {verdict}")
    return len(defects)


# find


@command.command("find", short_help="Look up hashes of keys.")
@click.argument("hashes", nargs=-1, required=True, metavar="SHA256...")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def find(hashes: tuple[str, ...], as_json: bool) -> int:
    """Look up SHA-256 of bare numbers: nobody has to hand out certificates.

    Of an RSA key hash the modulus, big-endian without leading zero; of a curve the x coordinate, padded to the size of
    the field; of Ed25519 and its kin the raw octets; of DSA y. With - hashes are read from standard input, one a line.
    The key that a list names is made again and its whole hash compared.

    \b
    openssl x509 -in a.pem -noout -modulus | cut -d= -f2 | xxd -r -p | sha256sum

    Exit codes: 0 all are in a list, 1 some are in none.
    """  # noqa: D301  \b is click's mark for lines to keep
    wanted = [word for one in hashes for word in (sys.stdin.read().split() if one == "-" else [one])]
    for word in wanted:
        if not _HASH.fullmatch(word):
            raise click.UsageError(f"{word[:80]!r} is no SHA-256: 64 hexadecimal digits are")
    rows: list[dict[str, Any]] = []
    for (digest, name, stream), word in zip(building.find(map(bytes.fromhex, wanted)), wanted, strict=True):
        matches: list[dict[str, Any]] = []
        if stream is not None:
            matches.append({"list": name, "stream": stream.fields, "source": None, "key_type": None})
        matches.extend(
            {"list": one.list_name, "stream": None, "source": one.source, "key_type": one.key_type}
            for one in known.find(digest)
        )
        rows.append({"sha256": word.lower(), "matches": matches})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            click.echo(f"{row['sha256']}  {_match(row['matches'])}")
    for kind in SHIPPED:
        missing = gap(kind)
        if missing:
            click.echo(f"keyassay: {visible(missing)}: a key may be weak and not found", err=True)
    for problem in known.problems():
        click.echo(f"keyassay: {visible(problem)}", err=True)
    return 0 if all(row["matches"] for row in rows) else 1


def _match(matches: list[dict[str, Any]]) -> str:
    """The first match in words; the others are in the JSON."""
    if not matches:
        return "in no list"
    first = matches[0]
    stream = first["stream"]
    if stream is None:
        return f"{first['list']}  {visible(first['source'])}"
    return f"{first['list']}  arch={stream['arch']} state={stream['state']} pid={stream['pid']}"


# add


@command.command("add", short_help="Recognise a folder of private keys in later scans.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", default="own", show_default=True, metavar="NAME", help="Which of your lists.")
@click.option("--with-primes", is_flag=True, help="Keep the primes of RSA keys too, and try them on all moduli.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Passwords, one a line, for PKCS #12 and encrypted keys.",
)
def add(folder: Path, name: str, with_primes: bool, password_file: Path | None) -> int:
    """Add the private keys in FOLDER (searched through) to a list of yours; any-known-key then finds them in scans.

    Only private keys are taken: a certificate beside them says nothing of who knows its key. The list holds SHA-256 of
    the public numbers and the names of the files, nothing secret. --with-primes keeps the primes as well, in a file
    that only you may read: a key that shares a single prime with one of yours is then found too.

    Exit codes: 0 added or there already, 2 no private key found, 3 something could not be read.
    """
    report = known.add(folder, name, with_primes=with_primes, passwords=passwords_of(password_file))
    for place, reason in report.left_out:
        click.echo(f"left out    {visible(place)}: {visible(reason)}")
    for place, reason in report.unreadable:
        click.echo(f"unreadable  {visible(place)}: {visible(reason, 1_000)}")
    taken = report.added + report.already
    click.echo(f"{report.added:,} added, {report.already:,} already there: {report.total:,} keys in {report.path}")
    if with_primes:
        click.echo(f"{report.primes:,} new primes in {report.path.with_suffix('.primes')}")
    if report.public:
        click.echo(f"{report.public:,} certificates or public keys passed over: they do not say who knows their key")
    if not taken and not report.unreadable:
        raise KeyassayError(f"no private key was found in {str(folder)!r}")
    return 3 if report.unreadable else 0
