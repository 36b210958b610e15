"""Options that all commands of the registry share, and how they open it beside a running server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from keyassay.cli.parameters import Duration
from keyassay.errors import KeyassayError

MISSING = "the server's libraries are not installed"
_INSTALL = "install keyassay[server]"

Command = Callable[..., Any]


def database_options(function: Command) -> Command:
    """``--database``, ``--key-file`` and ``--key-command``."""
    for option in reversed((
        click.option(
            "--database", envvar="KEYASSAY_DATABASE", show_envvar=True, default="", metavar="URL",
            help="sqlite:///PATH or postgresql://USER@HOST/NAME.  [default: a SQLite file in the data folder]",
        ),
        click.option(
            "--key-file", envvar="KEYASSAY_KEY_FILE", show_envvar=True, default=None,
            type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
            help="Holds the key that seals secrets.  [default: keyassay.key beside the SQLite file]",
        ),
        click.option(
            "--key-command", envvar="KEYASSAY_KEY_COMMAND", show_envvar=True, default="", metavar="COMMAND",
            help="Prints that key instead, as 64 hexadecimal digits.",
        ),
    )):  # fmt: skip
        function = option(function)
    return function


def worker_options(function: Command) -> Command:
    """What workers have to know: how audits are done, and where messages may go."""
    for option in reversed((
        click.option(
            "--screen-registrations", type=click.Choice(["off", "report", "refuse"]), default="report",
            show_default=True, envvar="KEYASSAY_SCREEN_REGISTRATIONS", show_envvar=True,
            help="What happens to a certificate whose key is broken: nothing, a finding at once, or no registration.",
        ),
        click.option(
            "--audit-profile", type=click.Choice(["aws", "fast", "standard", "deep"]), default="standard",
            show_default=True,
            help="Checks that audits of keys do; aws is AWS's two, and no comparing of keys; deep has a budget a key.",
        ),
        click.option(
            "--audit-budget", type=Duration(), metavar="TIME", envvar="KEYASSAY_AUDIT_BUDGET", show_envvar=True,
            help="Audit profile deep: CPU time for each different key that nothing else breaks: 5s, 60s, 10m.  "
            "[default: 5s]",
        ),
        click.option(
            "--audit-level", type=click.Choice(["broken", "weak", "notice"]), default="broken", show_default=True,
            help="The mildest weakness that makes a certificate noncompliant.",
        ),
        click.option(
            "--audit-hour", type=click.IntRange(0, 23), default=2, show_default=True, metavar="HOUR",
            envvar="KEYASSAY_AUDIT_HOUR", show_envvar=True, help="When scheduled audits run, UTC.",
        ),
        click.option(
            "--fleet-store", envvar="KEYASSAY_FLEET_STORE", show_envvar=True, default=None,
            type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
            help="Keeps the keys that audits compared with each other.  [default: fleet beside the SQLite file]",
        ),
        click.option(
            "--fleet-across-accounts", is_flag=True, envvar="KEYASSAY_FLEET_ACROSS_ACCOUNTS", show_envvar=True,
            help="Audits compare keys with those of all accounts; findings name nothing of another account.",
        ),
        click.option(
            "--publish-to", multiple=True, metavar="[ACCOUNT=]TARGET", envvar="KEYASSAY_PUBLISH_TO", show_envvar=True,
            help="An SNS topic's ARN or a webhook's https://... that messages may go to (may be repeated).",
        ),
        click.option(
            "--webhook-secrets", envvar="KEYASSAY_WEBHOOK_SECRETS", show_envvar=True, default=None,
            type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
            help="A line for each webhook: its address, a space, its secret (whsec_...).",
        ),
        click.option(
            "--issuing-hook", default="", metavar="COMMAND", envvar="KEYASSAY_ISSUING_HOOK", show_envvar=True,
            help="Has replacements' certificates issued elsewhere: a request on its standard input, PEM back.",
        ),
        click.option(
            "--crl-hosts", multiple=True, metavar="HOST", envvar="KEYASSAY_CRL_HOSTS", show_envvar=True,
            help="A host that revocation lists named in certificates may be fetched from (may be repeated); "
            "no other is ever asked.",
        ),
        click.option(
            "--public-url", envvar="KEYASSAY_PUBLIC_URL", show_envvar=True, default="", metavar="URL",
            help="Stands in certificates that are issued here, as the place of revocation lists and OCSP.",
        ),
        click.option(
            "--crl-hours", type=click.FloatRange(0, 48, min_open=True), default=6.0, show_default=True, metavar="HOURS",
            envvar="KEYASSAY_CRL_HOURS", show_envvar=True,
            help="Between two revocation lists of an authority without a revocation; each is good for seven days.",
        ),
        click.option(
            "--crl-hold", is_flag=True, envvar="KEYASSAY_CRL_HOLD", show_envvar=True,
            help="Lists and OCSP call certificates on hold that are neither ACTIVE nor REVOKED.",
        ),
    )):  # fmt: skip
        function = option(function)
    return function


account_option = click.option(
    "--account", default="", metavar="ID", help="Whose; not needed where there is only one account."
)
json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


@contextlib.contextmanager
def libraries() -> Iterator[None]:
    """Say what to install if the libraries of the extra ``server`` are missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "keyassay":
            raise
        raise KeyassayError(f"{MISSING} ({error.name})", _INSTALL) from None


@contextlib.contextmanager
def opened(database: str, key_file: Path | None, key_command: str) -> Iterator[Any]:
    """The registry, for a command that works beside a running server.

    Raises:
        KeyassayError: it cannot be opened, or it refused what the block asked for.
    """
    with libraries():
        from keyassay.registry.errors import RegistryError  # noqa: PLC0415  the libraries may be missing
        from keyassay.server.opening import open_registry  # noqa: PLC0415
        from keyassay.server.settings import Settings  # noqa: PLC0415

    registry = open_registry(Settings(database=database, key_file=key_file, key_command=key_command))
    try:
        yield registry
    except RegistryError as error:
        raise KeyassayError(error.message) from None
    finally:
        registry.database.close()


def table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Columns under headings, for people."""
    widths = [max(len(row[place]) for row in (headings, *rows)) for place in range(len(headings))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (headings, *rows)]
    return "\n".join(line.rstrip() for line in lines)
