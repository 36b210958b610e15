"""``keyassay operations``: what of AWS IoT's API is supported, as the code has it."""

from __future__ import annotations

import json

import click

from keyassay.cli.service import libraries, table


@click.command("operations", short_help="List the operations of the API that are supported.")
@click.option("--all", "everything", is_flag=True, help="Also those of the service model that are not.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(everything: bool, as_json: bool) -> None:
    """List the operations that `keyassay serve` answers, and what a caller's role must permit.

    Any other operation of AWS IoT is answered at once by 501 NotImplementedException.
    """
    with libraries():
        from keyassay.aws.reference import Row, rows  # noqa: PLC0415  only when called

    found: list[Row] = [row for row in rows() if everything or row.supported]
    if as_json:
        click.echo(json.dumps([row.as_json() for row in found], indent=2))
        return
    lines = [(row.name, row.method, row.path, row.access if row.supported else "not supported") for row in found]
    click.echo(table(("operation", "method", "path", "access"), lines))
