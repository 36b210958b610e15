"""``keyassay replace secrets, claims, keys, approve, waiting``: how the devices of a replacement prove themselves."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from keyassay.cli.connection import api_options, ask_own, asking
from keyassay.cli.parameters import Duration, writing_to
from keyassay.cli.service import json_option, table
from keyassay.errors import KeyassayError
from keyassay.output.escaping import visible

_PATH = "/keyassay/v1/replacements"
#: things of one request
_AT_ONCE = 1_000
_LARGEST_FILE = 64 << 20
_FILE = click.Path(path_type=Path, dir_okay=False)
Command = Callable[..., Any]

_expires = click.option(
    "--expires", type=Duration(), default="30d", show_default=True, metavar="TIME", help="Until they prove nothing."
)


def _ask(given: dict[str, Any], replacement_id: str, what: str, method: str = "POST", **body: Any) -> dict[str, Any]:
    path = f"{_PATH}/{quote(replacement_id, safe='')}/{what}"
    ask = partial(ask_own, given["endpoint_url"], given["aws_profile"], given["region"])
    with asking(given["endpoint_url"]):
        found: dict[str, Any] = ask(path, body or None, method=method)
    return found


def _lines(path: Path, columns: int) -> list[list[str]]:
    """The lines of a CSV file with so many columns.

    Raises:
        KeyassayError: it cannot be read, is empty, or a line has another number of columns.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise KeyassayError(f"{str(path)!r} has more than {_LARGEST_FILE} bytes")
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise KeyassayError(f"cannot read {str(path)!r}: {error}") from None
    for number, row in enumerate(rows, 1):
        if len(row) != columns or not all(row):
            raise KeyassayError(f"line {number} of {str(path)!r} has not {columns} columns")
    if not rows:
        raise KeyassayError(f"{str(path)!r} is empty")
    return rows


def _chunks(rows: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(rows), _AT_ONCE):
        yield list(rows[start : start + _AT_ONCE])


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyassayError(f"cannot read {str(path)!r}: {error}") from None


@click.command("secrets", short_help="Make claim secrets for its things, or take those that exist.")
@click.argument("replacement_id", metavar="ID")
@click.option("--thing", "things", multiple=True, metavar="NAME", help="Only this one, anew (may be repeated).")
@click.option("--import", "imported", type=_FILE, metavar="FILE", help="CSV: thing, secret in base64; none are made.")
@click.option("--output", type=_FILE, metavar="FILE", help="Write them there, for the owner alone.  [default: shown]")
@_expires
@api_options
@json_option
def secrets(
    replacement_id: str,
    things: tuple[str, ...],
    imported: Path | None,
    output: Path | None,
    expires: float,
    **given: Any,
) -> int:
    """Make a claim secret for each thing of the replacement ID that has none; they are never shown again.

    Columns (CSV), or members (--json, a line for each thing, as `keyassay-device --claim` reads it): accountId,
    replacementId, thingName, secret. Bring each one to its device by another way than its old certificate.

    \b
    Examples:
      keyassay replace secrets 6f1c... --output secrets.csv
      keyassay replace secrets 6f1c... --thing pump-17 --json --output pump-17.json
      keyassay replace secrets 6f1c... --import known.csv --expires 7d
    """  # noqa: D301  \b is click's mark for lines to keep
    if imported is not None:
        if things or output:
            raise click.UsageError("--import makes no secrets, so it goes without --thing and --output")
        rows = [{"thingName": thing, "secret": secret} for thing, secret in _lines(imported, 2)]
        for some in _chunks(rows):
            _ask(given, replacement_id, "secrets", "PUT", expiresInSeconds=round(expires), secrets=some)
        click.echo(f"{len(rows)} secrets were taken")
        return 0
    names: list[list[str] | None] = [*_chunks(sorted(set(things)))] if things else [None]
    count = 0
    with writing_to(output, private=True) as stream:
        while names:
            chosen = names.pop(0)
            body: dict[str, Any] = {"expiresInSeconds": round(expires), **({"thingNames": chosen} if chosen else {})}
            made = _ask(given, replacement_id, "secrets", **body)
            if chosen is None and made["more"]:
                names.append(None)
            for one in made["secrets"]:
                row = {"accountId": made["accountId"], "replacementId": made["replacementId"], **one}
                line = json.dumps(row) if given["as_json"] else ",".join(row.values())
                stream.write(f"{line}\n")
                count += 1
            stream.flush()
    if output is not None:
        click.echo(f"{count} secrets are in {visible(str(output))}")
    return 0


@click.command("claims", short_help="Bind a claim certificate to things.")
@click.argument("replacement_id", metavar="ID")
@click.option("--certificate", required=True, type=_FILE, metavar="FILE", help="The claim certificate, PEM.")
@click.option("--things", "listed", required=True, type=_FILE, metavar="FILE", help="Names of things, one a line.")
@_expires
@api_options
def claims(replacement_id: str, certificate: Path, listed: Path, expires: float, **given: Any) -> int:
    """Let a claim certificate prove a request of each thing in a list, for the replacement ID.

    \b
    Example:
      keyassay replace claims 6f1c... --certificate claim.pem --things line-3.txt --expires 7d
    """  # noqa: D301  \b is click's mark for lines to keep
    names = sorted({row[0] for row in _lines(listed, 1)})
    pem = _text(certificate)
    for some in _chunks(names):
        body: dict[str, Any] = {"expiresInSeconds": round(expires), "certificatePem": pem, "thingNames": some}
        _ask(given, replacement_id, "claim-certificates", **body)
    click.echo(f"the claim certificate is bound to {len(names)} things")
    return 0


@click.command("keys", short_help="Register other keys that devices hold.")
@click.argument("replacement_id", metavar="ID")
@click.argument("file", type=_FILE, metavar="FILE")
@_expires
@api_options
def keys(replacement_id: str, file: Path, expires: float, **given: Any) -> int:
    """Register the public keys that FILE lists (CSV: thing, path of a PEM file), for the replacement ID.

    \b
    Example:
      keyassay replace keys 6f1c... tpm-keys.csv
    """  # noqa: D301  \b is click's mark for lines to keep
    rows = [{"thingName": thing, "publicKeyPem": _text(file.parent / path)} for thing, path in _lines(file, 2)]
    for some in _chunks(rows):
        _ask(given, replacement_id, "device-keys", expiresInSeconds=round(expires), keys=some)
    click.echo(f"{len(rows)} keys were registered")
    return 0


@click.command("approve", short_help="Approve devices' requests by their fingerprints.")
@click.argument("replacement_id", metavar="ID")
@click.argument("requests", nargs=-1, metavar="[THING=SHA256]...")
@click.option("--file", type=_FILE, metavar="FILE", help="CSV: thing, SHA-256 of its request's DER.")
@_expires
@api_options
def approve(replacement_id: str, requests: tuple[str, ...], file: Path | None, expires: float, **given: Any) -> int:
    """Approve requests of the replacement ID, whether they wait or are still to come, as THING=SHA256 or in a file.

    Compare the fingerprint with what the device itself shows: the request came over the session of a key that others
    may have.

    \b
    Examples:
      keyassay replace waiting 6f1c...
      keyassay replace approve 6f1c... pump-17=4be1...
      keyassay replace approve 6f1c... --file fingerprints.csv
    """  # noqa: D301  \b is click's mark for lines to keep
    pairs = [one.rpartition("=")[::2] for one in requests]
    if file is not None:
        pairs += [(thing, digest) for thing, digest in _lines(file, 2)]
    if not pairs or not all(thing and digest for thing, digest in pairs):
        raise click.UsageError("requests are named as THING=SHA256, or by --file")
    rows = [{"thingName": thing, "csrSha256": digest} for thing, digest in pairs]
    for some in _chunks(rows):
        _ask(given, replacement_id, "approvals", expiresInSeconds=round(expires), requests=some)
    click.echo(f"{len(rows)} requests are approved")
    return 0


@click.command("waiting", short_help="List requests that wait for an approval.")
@click.argument("replacement_id", metavar="ID")
@api_options
@json_option
def waiting(replacement_id: str, **given: Any) -> int:
    """List the requests of the replacement ID that wait for an approval.

    \b
    Example:
      keyassay replace waiting 6f1c...
    """  # noqa: D301  \b is click's mark for lines to keep
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        query = "waiting-requests?maxResults=250" + (f"&nextToken={quote(token, safe='')}" if token else "")
        page = _ask(given, replacement_id, query, "GET")
        found += page["requests"]
        token = page.get("nextToken") or ""
        if not token:
            break
    if given["as_json"]:
        click.echo(json.dumps(found, indent=2))
        return 0
    rows = [(visible(one["thingName"]), one["csrSha256"], one["key"]) for one in found]
    click.echo(table(("thing", "SHA-256 of the request", "key"), rows))
    return 0


#: what ``keyassay replace`` takes from here
COMMANDS = (secrets, claims, keys, approve, waiting)
