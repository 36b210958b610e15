"""``keyassay ca``: the authority that issues in an account of a registry, beside a running server."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import click

from keyassay.cli.accounts import moment
from keyassay.cli.service import account_option, database_options, json_option, libraries, opened, table
from keyassay.errors import KeyassayError

#: a certificate or key in PEM is not larger
_LARGEST = 1 << 20

pkcs11_option = click.option(
    "--pkcs11",
    "uri",
    default="",
    metavar="URI",
    help="The key is in a token: 'pkcs11:token=LABEL;object=LABEL?module-path=FILE&pin-source=file:FILE' (RFC 7512).",
)


@click.group("ca", short_help="The authority that issues a registry's certificates.")
def command() -> None:
    """The authority behind CreateCertificateFromCsr and CreateKeysAndCertificate, one for each account.

    The newest one issues; older ones stay, since what they issued has to be checked. Without any, the first
    certificate that is asked for makes one. Keys are sealed in the database, or stay in a token (--pkcs11).

    \b
    keyassay ca init --name "Plant 3"
    keyassay ca init --pkcs11 'pkcs11:token=plant;object=ca-2026?module-path=/usr/lib/softhsm/libsofthsm2.so'
    keyassay ca import authority.pem authority.key --password-file password.txt
    keyassay ca show > authority.pem
    """  # noqa: D301  \b is click's mark for lines to keep


def _actor(registry: Any, account: str, words: str) -> Any:
    from keyassay.registry.accounts import the_account  # noqa: PLC0415  only when called
    from keyassay.server.opening import machine_name  # noqa: PLC0415
    from keyassay.storage.database import Actor  # noqa: PLC0415

    return Actor(the_account(registry, account), f"command:ca {words}", machine_name())


def _fields(one: Any, account_id: str) -> dict[str, Any]:
    return {
        "id": one.id,
        "account_id": account_id,
        "subject": one.subject,
        "not_after": moment(one.not_after),
        "active": one.active,
        "created_at": moment(one.created_at),
        "key": one.key_uri or "database",
    }


def _say(one: Any, account_id: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_fields(one, account_id)))
        return
    click.echo(f"account  {account_id}")
    click.echo(f"id       {one.id}")
    click.echo(f"subject  {one.subject}")
    click.echo(f"until    {moment(one.not_after)}")
    click.echo(f"key      {one.key_uri or 'sealed in the database'}")
    click.echo("it issues from now on; `keyassay ca show` prints its certificate, for brokers to trust")


@command.command("init", short_help="Make an authority; it issues from now on.")
@database_options
@account_option
@click.option("--name", default="", metavar="TEXT", help="Common name.  [default: keyassay and the account's id]")
@pkcs11_option
@json_option
def init(
    database: str, key_file: Path | None, key_command: str, account: str, name: str, uri: str, as_json: bool
) -> None:
    """Make an authority with a key on P-256, good until the end of 2049. Once more is a rotation.

    With --pkcs11 the key is the one that the URI names; if there is none, it is made in the token and cannot leave it.
    The PIN is in the file of pin-source= or of KEYASSAY_PKCS11_PIN_FILE, or in KEYASSAY_PKCS11_PIN; the library is that
    of module-path= or of KEYASSAY_PKCS11_MODULE.
    """
    _check_name(name)
    with opened(database, key_file, key_command) as registry:
        from keyassay.registry import issuing  # noqa: PLC0415  only when called

        actor = _actor(registry, account, "init")
        if uri:
            made = issuing.make_token_issuer(registry, actor, uri, common_name=name)
        else:
            made = issuing.make_issuer(registry, actor, common_name=name)
        _warn(made)
    _say(made, actor.account_id, as_json=as_json)


def _check_name(name: str) -> None:
    if len(name) > 64:
        raise KeyassayError("a common name has at most 64 characters")


def _warn(one: Any) -> None:
    """Say it if a token would hand out the key."""
    if one.key_uri:
        from keyassay.registry import token_keys, token_uri  # noqa: PLC0415  only when called
        from keyassay.registry.errors import SigningUnavailableError  # noqa: PLC0415

        with contextlib.suppress(SigningUnavailableError):  # some do not tell
            if token_keys.can_leave(token_uri.TokenUri.parse(one.key_uri)):
                click.echo("note: the token lets this key out, wrapped or in the clear (CKA_EXTRACTABLE)", err=True)


@command.command("request", short_help="Ask for a certificate of a key in a token, for an authority elsewhere.")
@click.option("--name", required=True, metavar="TEXT", help="Common name.")
@click.option(
    "--pkcs11",
    "uri",
    required=True,
    metavar="URI",
    help="The key, made if it is not there: 'pkcs11:token=LABEL;object=LABEL?module-path=FILE&pin-source=file:FILE'.",
)
def request(name: str, uri: str) -> None:
    """Print a certificate signing request in PEM, for an authority elsewhere to sign; the registry is not changed.

    What comes back is taken by `keyassay ca import CERTIFICATE --pkcs11 URI`.
    """
    _check_name(name)
    with libraries():
        from keyassay.registry import issuing  # noqa: PLC0415  only when called
        from keyassay.registry.errors import RegistryError  # noqa: PLC0415

    try:
        click.echo(issuing.request_for_token(uri, name), nl=False)
    except RegistryError as error:
        raise KeyassayError(error.message) from None


@command.command("import", short_help="Take an authority that was made elsewhere; it issues from now on.")
@database_options
@account_option
@click.argument("certificate", type=click.Path(path_type=Path), metavar="CERTIFICATE")
@click.argument("private_key", type=click.Path(path_type=Path), metavar="[KEY]", required=False)
@click.option(
    "--password-file", type=click.Path(path_type=Path), metavar="FILE", help="Its first line opens an encrypted key."
)
@pkcs11_option
@json_option
def import_(
    database: str,
    key_file: Path | None,
    key_command: str,
    account: str,
    certificate: Path,
    private_key: Path | None,
    password_file: Path | None,
    uri: str,
    as_json: bool,
) -> None:
    """Take an authority's certificate and its private key, both PEM; RSA from 2048 bits, P-256, P-384 or P-521.

    The key is sealed in the database; KEY itself is left alone. Remove it if it is needed nowhere else. Or there is no
    KEY, and --pkcs11 names it in its token, where it stays.
    """
    if (private_key is None) == (not uri):
        raise KeyassayError("either the file of the private key is needed, or --pkcs11")
    try:
        pem = _read(certificate).decode("ascii")
    except UnicodeDecodeError:
        raise KeyassayError(f"{str(certificate)!r} is no certificate in PEM") from None
    key = b"" if private_key is None else _read(private_key)
    password = None if password_file is None else _read(password_file).split(b"\n")[0].rstrip(b"\r")
    with opened(database, key_file, key_command) as registry:
        from keyassay.registry import issuing  # noqa: PLC0415  only when called

        actor = _actor(registry, account, "import")
        if uri:
            made = issuing.import_token_issuer(registry, actor, pem, uri)
        else:
            made = issuing.import_issuer(registry, actor, pem, key, password)
        _warn(made)
    _say(made, actor.account_id, as_json=as_json)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        raise KeyassayError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    if len(data) > _LARGEST:
        raise KeyassayError(f"{str(path)!r} is too large for a certificate or a key")
    return data


@command.command("list", short_help="List the authorities of an account.")
@database_options
@account_option
@json_option
def list_(database: str, key_file: Path | None, key_command: str, account: str, as_json: bool) -> None:
    """List authorities, the newest first; the active one issues."""
    with opened(database, key_file, key_command) as registry:
        from keyassay.registry import issuing  # noqa: PLC0415  only when called

        actor = _actor(registry, account, "list")
        found = issuing.issuers(registry, actor)
    if as_json:
        click.echo(json.dumps([_fields(one, actor.account_id) for one in found], indent=2))
        return
    lines = [
        (one.id, "yes" if one.active else "no", moment(one.not_after), one.subject, one.key_uri or "database")
        for one in found
    ]
    click.echo(table(("id", "issues", "until", "subject", "key"), lines))


@command.command("show", short_help="Print an authority's certificate.")
@database_options
@account_option
@click.argument("authority", default="", metavar="[ID]")
@json_option
def show(database: str, key_file: Path | None, key_command: str, account: str, authority: str, as_json: bool) -> None:
    """Print an authority's certificate in PEM, of the one that issues if ID is not given."""
    with opened(database, key_file, key_command) as registry:
        from keyassay.registry import issuing  # noqa: PLC0415  only when called

        actor = _actor(registry, account, "show")
        pem = issuing.issuer_pem(registry, actor, authority)
        known = issuing.issuers(registry, actor)
    if as_json:
        chosen = next(one for one in known if (one.id == authority if authority else one.active))
        click.echo(json.dumps({**_fields(chosen, actor.account_id), "certificate_pem": pem}))
        return
    click.echo(pem, nl=False)
