"""``keyassay prove``: every step of the evidence for one file, private numbers included."""

from __future__ import annotations

from pathlib import Path

import click

from keyassay.bulk.results import Settings
from keyassay.bulk.scan import Scan
from keyassay.cli.parameters import CheckId, passwords_of, writing_to
from keyassay.cli.progress import ProgressBar
from keyassay.findings import Profile
from keyassay.output.description import called, place
from keyassay.output.escaping import visible
from keyassay.output.gate import Gate
from keyassay.output.proof import proof, text
from keyassay.output.values import error_text


@click.command(
    "prove",
    short_help="Show every step of the proof for one file.",
    epilog="Exit codes: 0 nothing of class broken, 1 something, 2 wrong use or nothing to read, 3 nothing found but "
    "some input could not be read.",
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
@click.option("--check", "only", type=CheckId(), multiple=True, help="Prove this finding only (may be repeated).")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Passwords, one a line, for PKCS #12, JKS and encrypted keys.",
)
def command(file: str, among: tuple[str, ...], profile: str, only: tuple[str, ...], password_file: Path | None) -> int:
    """Show how the private key of FILE is computed, step by step, so that a sceptic can repeat it.

    The steps hold private numbers: handle the output like the private key that it is.

    \b
    Examples:
      keyassay prove device-17.pem
      keyassay prove device-17.pem --among fleet/     a prime that it shares with another one
    """  # noqa: D301  \b is click's mark for lines to keep
    settings = Settings(profile=Profile[profile.upper()], only=only, passwords=passwords_of(password_file))
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
            for finding in result.findings:
                stream.write(f"\n{finding.check}: {finding.classification.value}, {finding.confidence.value}\n")
                stream.write(f"  {visible(finding.message)}\n")
                stream.writelines(f"{line}\n" for line in text(proof(item, finding)))
            if not result.findings:
                stream.write("  nothing was found, which is no proof that the key is sound\n")
            stream.write("\n")
    if not scan.summary.items:
        click.echo("keyassay: nothing to read: no certificate, request or key was found", err=True)
    return gate.exit_code(scan.summary)
