"""``keyassay register``: certificates from files into a registry."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ssl import DER_cert_to_PEM_cert
from typing import Any

import click

from keyassay.certificates.decoding import decode
from keyassay.certificates.item import Item, Kind
from keyassay.certificates.limits import DEFAULT_LIMITS
from keyassay.certificates.reading import ReadOptions, read
from keyassay.cli.connection import api_options, asking, client
from keyassay.cli.progress import ProgressBar
from keyassay.cli.service import json_option, table
from keyassay.output.escaping import visible

#: refusals that concern one certificate; everything else ends the run
_OF_A_CERTIFICATE = frozenset(
    {
        "CertificateValidationException",
        "CertificateConflictException",
        "CertificateStateException",
        "InvalidRequestException",
        "ResourceAlreadyExistsException",
    }
)


@dataclass(frozen=True)
class Outcome:
    """What became of one item."""

    source: str
    certificate_id: str
    result: str
    message: str = ""

    def as_json(self) -> dict[str, str]:
        """For programs."""
        return dict(vars(self))


@click.command(
    "register",
    short_help="Register certificates of files.",
    epilog="Exit codes: 0 all are registered (now or before), 1 some were refused or unreadable, 2 wrong use, no "
    "connection or no permission.",
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--status", type=click.Choice(["ACTIVE", "INACTIVE", "REVOKED"]), default="INACTIVE", show_default=True,
    help="That they begin with.",
)  # fmt: skip
@click.option("--without-ca", is_flag=True, help="Of any issuer, instead of registered authorities only.")
@api_options
@json_option
def command(
    paths: tuple[str, ...],
    status: str,
    without_ca: bool,
    endpoint_url: str,
    aws_profile: str | None,
    region: str | None,
    as_json: bool,
) -> int:
    """Register the certificates that PATH holds: files, folders, archives, as for `keyassay scan`.

    What is registered already is left as it is. One refusal does not stop the others.

    \b
    Examples:
      keyassay register fleet/ --without-ca --status ACTIVE
      keyassay register new-batch.zip --json > registered.json
    """  # noqa: D301  \b is click's mark for lines to keep
    api = client(endpoint_url, aws_profile, region)
    outcomes: list[Outcome] = []
    with ProgressBar(unit="certificates") as bar, asking(endpoint_url):
        for item in _items(paths):
            outcomes.append(_register(api, item, status, without_ca=without_ca))
            bar("registering", None, len(outcomes))
    counts = Counter(one.result for one in outcomes)
    if as_json:
        click.echo(json.dumps({"counts": counts, "certificates": [one.as_json() for one in outcomes]}, indent=2))
    else:
        lines = [
            (visible(one.source), one.certificate_id[:16], one.result, visible(one.message))
            for one in outcomes
            if one.result not in ("registered", "was there")
        ]
        if lines:
            click.echo(table(("from", "certificate", "result", "why"), lines))
        click.echo(
            ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "no certificate was found"
        )
    return 0 if not set(counts) - {"registered", "was there"} else 1


def _items(paths: tuple[str, ...]) -> Iterator[Item]:
    for block in read(paths, ReadOptions(limits=DEFAULT_LIMITS)):
        for item in decode(block, DEFAULT_LIMITS):
            if item.kind in (Kind.CERTIFICATE, Kind.UNREADABLE):
                yield item


def _register(api: Any, item: Item, status: str, *, without_ca: bool) -> Outcome:
    from botocore.exceptions import ClientError  # noqa: PLC0415  only when called

    source = f"{item.source} #{item.index}" if item.index else item.source
    if item.kind is Kind.UNREADABLE or item.der is None:
        return Outcome(source, "", "unreadable", item.error or "")
    certificate_id = (item.sha256 or b"").hex()
    operation = api.register_certificate_without_ca if without_ca else api.register_certificate
    try:
        operation(certificatePem=DER_cert_to_PEM_cert(item.der), status=status)
    except ClientError as error:
        said = error.response["Error"]
        if said["Code"] not in _OF_A_CERTIFICATE:
            raise
        if said["Code"] == "ResourceAlreadyExistsException":
            return Outcome(source, certificate_id, "was there")
        return Outcome(source, certificate_id, "refused", said.get("Message", said["Code"]))
    return Outcome(source, certificate_id, "registered")
