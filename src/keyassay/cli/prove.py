"""``keyassay prove``: every step of the evidence for one file, private numbers included."""

from __future__ import annotations

import os
from pathlib import Path

import click

from keyassay.bulk.results import DEFAULT_BUDGET, Settings
from keyassay.bulk.scan import Scan
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.cli.parameters import CheckId, Duration, passwords_of, profile_for, writing_to
from keyassay.cli.progress import ProgressBar
from keyassay.errors import KeyassayError
from keyassay.findings import Finding
from keyassay.output.description import called, place
from keyassay.output.escaping import visible
from keyassay.output.gate import Gate
from keyassay.output.proof import proof, text
from keyassay.output.values import error_text

#: the check whose finding --attack turns into factors
ATTACKED = "rsa-roca"
#: RSALib's sizes are multiples of 32: the whole search takes a CPU day and a half at 576 bits, a year at 608
LARGEST_ATTACKED = 576


@click.command(
    "prove",
    short_help="Show every step of the proof for one file.",
    epilog="Exit codes: 0 nothing of class broken, 1 something, 2 wrong use, nothing to read, or nothing that --attack "
    "can factor, 3 nothing found but some input could not be read, 130 interrupted (--attack: run it again to go on).",
)
@click.argument("file", metavar="FILE")
@click.option(
    "--among",
    multiple=True,
    metavar="PATH",
    help="Compare with these too (may be repeated): a shared prime or nonce needs its partner.",
)
@click.option(
    "--profile",
    type=click.Choice(["fast", "standard", "deep"]),
    default="standard",
    show_default=True,
    help="How far to look, as in scan.",
)
@click.option(
    "--budget", type=Duration(), metavar="TIME", help="Profile deep: CPU time for a key, as in scan.  [default: 5s]"
)
@click.option("--check", "only", type=CheckId(), multiple=True, help="Prove this finding only (may be repeated).")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Passwords, one a line, for PKCS #12, JKS and encrypted keys.",
)
@click.option(
    "--attack",
    is_flag=True,
    help="Factor a ROCA key (rsa-roca, no other finding is shown) of up to 576 bits: minutes of CPU at 512.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Processes for --attack.  [default: all cores]",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where --attack keeps how far it is.  [default: in the user's data folder]",
)
def command(
    file: str,
    among: tuple[str, ...],
    profile: str,
    budget: float | None,
    only: tuple[str, ...],
    password_file: Path | None,
    attack: bool,
    jobs: int | None,
    state: Path | None,
) -> int:
    """Show how the private key of FILE is computed, step by step, so that a sceptic can repeat it.

    The steps hold private numbers: handle the output like the private key that it is.

    \b
    Examples:
      keyassay prove device-17.pem
      keyassay prove device-17.pem --among fleet/     a prime that it shares with another one
      keyassay prove card.pem --attack                the primes of a ROCA key of 512 bits
    """  # noqa: D301  \b is click's mark for lines to keep
    if not attack and (jobs or state):
        raise click.UsageError("--jobs and --state go with --attack")
    if attack and only not in ((), (ATTACKED,)):
        raise click.UsageError(f"--attack goes with the check {ATTACKED} and no other")
    if attack:  # among all checks, smaller ones may stand for it: 512 bits are too few anyway
        only = (ATTACKED,)
    attacked = 0
    settings = Settings(
        profile=profile_for(profile, budget),
        only=only,
        passwords=passwords_of(password_file),
        budget=budget or DEFAULT_BUDGET,
    )
    gate = Gate()
    shown: set[tuple[str, int]] = set()  # FILE may lie in a folder of --among, too
    with ProgressBar() as bar, writing_to(None) as stream:
        scan = Scan([file, *among], settings, bar)
        for result in gate.watch(scan):
            item = result.item
            if item.source != file and not item.source.startswith((f"{file}!", f"{file.rstrip('/')}/")):
                continue
            if (item.source, item.index) in shown:
                continue
            shown.add((item.source, item.index))
            bar.close()
            stream.write(f"{place(item)}: {called(item)}\n")
            if not item.assessed:
                stream.write(f"  not assessed: {visible(error_text(item) or '', 1_000)}\n\n")
                continue
            for found in result.findings:
                finding = found
                if attack and found.check == ATTACKED:
                    stream.flush()
                    finding = _attacked(item, found, state, jobs or os.cpu_count() or 1)
                    attacked += 1
                stream.write(f"\n{finding.check}: {finding.classification.value}, {finding.confidence.value}\n")
                stream.write(f"  {visible(finding.message)}\n")
                stream.writelines(f"{line}\n" for line in text(proof(item, finding)))
            if not result.findings:
                stream.write("  nothing was found, which is no proof that the key is sound\n")
            stream.write("\n")
    if not scan.summary.items:
        click.echo("keyassay: nothing to read: no certificate, request or key was found", err=True)
    elif attack and not attacked:
        raise KeyassayError(
            f"{visible(file)} holds no key with a finding of {ATTACKED}: there is nothing to attack",
            "without --attack, prove shows what else was found",
        )
    return gate.exit_code(scan.summary)


def _attacked(item: Item, finding: Finding, state: Path | None, jobs: int) -> Finding:
    """The finding with the factor as its evidence.

    Raises:
        KeyassayError: the key is too large, or its primes are not those that RSALib makes.
    """
    from keyassay.bulk.roca_attack import RocaAttack, state_file  # noqa: PLC0415  numpy and tables, for this only
    from keyassay.checks import check  # noqa: PLC0415
    from keyassay.checks.rsa_roca import factored  # noqa: PLC0415

    assert isinstance(item.key, RsaPublicKey)
    modulus = item.key.modulus
    if item.key.bits > LARGEST_ATTACKED:
        raise KeyassayError(f"a ROCA key of {item.key.bits} bits is not attacked", _cost(item.key.bits))
    place = state or state_file(modulus)
    with ProgressBar(unit="roots") as bar:
        run = RocaAttack(modulus, place, jobs=jobs, progress=bar)
        hours = run.seconds_left / 3_600
        going_on = f"; {run.done / run.roots:.1%} were done before" if run.done else ""
        workers = "1 process" if jobs == 1 else f"{jobs} processes"
        click.echo(
            f"keyassay: {item.key.bits} bits, {workers}: at most about {hours:.2g} CPU hours{going_on}", err=True
        )
        try:
            factor = run.run()
        except KeyboardInterrupt:
            bar.close()
            click.echo(
                f"keyassay: {run.done / run.roots:.1%} done, kept in {place}; the same command goes on", err=True
            )
            raise
    if factor is None:
        raise KeyassayError(
            "the whole search found no factor: the primes are not of equal size, as RSALib's are",
            f"{place} says that it is complete",
        )
    return check(finding.check).finding(item.key, factored(modulus, factor, run.plan.modulus.bit_length()))


def _cost(bits: int) -> str:
    """What an attack on a larger key would need: docs/performance.md has the measurements."""
    enough = "the fingerprint is proof enough, prove shows it without --attack"
    if bits < 992:
        return f"{enough}; at this size M is too short for any feasible attack"
    if bits < 1088:
        return (
            f"{enough}; the whole search would take about 80 CPU days by the measured cost of a class, on average half "
            "of them (published for another method: 97 days; Nemec and others 2017), shared by any number of machines"
        )
    if 1984 <= bits < 2112:
        return (
            f"{enough}; the cheapest published attack would take 140 CPU years (Nemec and others 2017), this program's "
            "about 7,000 by the measured cost of a class"
        )
    return enough
