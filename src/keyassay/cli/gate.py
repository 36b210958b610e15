"""``keyassay gate``: HAProxy in front of an MQTT broker, which lets in what a registry permits."""

from __future__ import annotations

import json
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from keyassay.cli.connection import _region, _session, api_options, ask_own, asking, client
from keyassay.cli.service import account_option, database_options, json_option, libraries, table
from keyassay.errors import KeyassayError
from keyassay.output.escaping import visible

Command = Callable[..., Any]

_FOLDER = "/var/lib/keyassay-gate"
#: seconds that ``check`` waits for a gate to follow
_PATIENCE = 20.0


@click.group("gate", short_help="An MQTT broker that refuses revoked keys.")
def command() -> None:
    """A gate is HAProxy and an MQTT broker, and an agent that keeps them in step with a registry, for one account.

    \b
    keyassay gate run --server-cert broker.pem        everything, in the foreground
    keyassay gate render --server-cert broker.pem     only the configuration
    keyassay gate status                              what the gates of an account have applied
    keyassay gate check broker.example:8883           try one with a certificate made for the purpose
    """  # noqa: D301  \b is click's mark for lines to keep


def _gate_options(function: Command) -> Command:
    """What a gate is made of."""
    for option in reversed((
        click.option(
            "--server-cert", required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True),
            envvar="KEYASSAY_GATE_CERT", show_envvar=True, metavar="FILE",
            help="The broker's certificate, its chain and its key, PEM, in one file.",
        ),
        click.option(
            "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path(_FOLDER), show_default=True,
            envvar="KEYASSAY_GATE_FOLDER", show_envvar=True, metavar="FOLDER",
            help="Keeps maps, configuration and sockets; 70 bytes at most.",
        ),
        click.option(
            "--listen", multiple=True, metavar="[HOST]:PORT", envvar="KEYASSAY_GATE_LISTEN", show_envvar=True,
            help="Where devices connect (may be repeated).  [default: :8883, every address]",
        ),
        click.option(
            "--broker", default="", metavar="HOST:PORT|PATH",
            help="A broker that runs already, which nobody else may reach.  [default: an own Mosquitto]",
        ),
        click.option(
            "--source-rate", type=click.IntRange(0, 1_000_000), default=0, show_default=True, metavar="N",
            help="Connections in 10 s that one address may make; 0 for any number: devices share addresses.",
        ),
        click.option(
            "--stale-after", type=click.IntRange(0, 10_000_000), default=0, show_default=True, metavar="SECONDS",
            help="Let nobody new in when the registry has not answered for so long; 0 keeps the last known state.",
        ),
        click.option(
            "--small-keys", is_flag=True, help="Let in RSA keys below 2048 bits and SHA-1 signatures, too."
        ),
        click.option(
            "--foreign-purpose", is_flag=True, help="Let in certificates whose key usage is not for clients, too."
        ),
        click.option(
            "--max-connections", type=click.IntRange(1, 1_000_000), default=8_000, show_default=True, metavar="N",
            help="At a time; each needs two file descriptors.",
        ),
        click.option(
            "--longest-silence", type=click.IntRange(10, 100_000), default=2_400, show_default=True,
            metavar="SECONDS", help="Close a connection without a byte for so long: 1.5 times the longest keep-alive.",
        ),
    )):  # fmt: skip
        function = option(function)
    return function


def _settings(given: dict[str, Any]) -> Any:
    with libraries():
        from keyassay.gate.rendering import GateSettings  # noqa: PLC0415  only when called

    return GateSettings(
        folder=given["folder"].resolve(),
        server_certificate=given["server_cert"].resolve(),
        listen=tuple(given["listen"]) or (":8883",),
        broker=given["broker"],
        source_rate=given["source_rate"],
        stale_after=given["stale_after"],
        small_keys=given["small_keys"],
        foreign_purpose=given["foreign_purpose"],
        max_connections=given["max_connections"],
        longest_silence=given["longest_silence"],
    )


# run, render


@command.command(
    "run",
    short_help="Run a gate in the foreground.",
    epilog="Exit codes: 0 told to end (SIGTERM, SIGINT), 2 wrong use, or a program is missing or does not stay up.",
)
@click.option(
    "--name", default=socket.gethostname, envvar="KEYASSAY_GATE_NAME", show_envvar=True, metavar="NAME",
    help="Under which this gate reports.  [default: the host's name]",
)  # fmt: skip
@_gate_options
@click.option(
    "--private-socket", type=click.Path(path_type=Path, dir_okay=False), metavar="PATH",
    help="A listener of the --broker with rights to every topic, for messages to devices.",
)  # fmt: skip
@database_options
@account_option
@click.option(
    "--endpoint-url", envvar="KEYASSAY_ENDPOINT_URL", show_envvar=True, default="", metavar="URL",
    help="Ask the registry's API there instead of its database; the access key needs the role gate.",
)  # fmt: skip
@click.option(
    "--aws-profile", metavar="NAME", help="Credentials of ~/.aws for --endpoint-url.  [default: as for `aws`]"
)
@click.option("--region", metavar="NAME", help="Has to be the registry's.  [default: AWS_REGION, or us-east-1]")
@click.option(
    "--log-format", type=click.Choice(["json", "text"]), default="json", show_default=True, help="Of the log."
)
def run(
    name: str,
    private_socket: Path | None,
    database: str,
    key_file: Path | None,
    key_command: str,
    account: str,
    endpoint_url: str,
    aws_profile: str | None,
    region: str | None,
    log_format: str,
    **given: Any,
) -> int:
    """Write the configuration, start HAProxy and Mosquitto, and keep them in step with the registry.

    The registry is its database (--database) where the gate is on its machine, or its API (--endpoint-url). While it
    does not answer the gate goes on with what it knows.

    \b
    Examples:
      keyassay gate run --server-cert broker.pem --database sqlite:////var/lib/keyassay/registry.db
      keyassay gate run --server-cert broker.pem --endpoint-url https://registry.example:8443 --name north
    """  # noqa: D301  \b is click's mark for lines to keep
    settings = _settings(given)
    with libraries():
        from keyassay.gate.running import Gate  # noqa: PLC0415  only when called
        from keyassay.gate.source import ApiSource, DatabaseSource, Source  # noqa: PLC0415
        from keyassay.registry.accounts import the_account  # noqa: PLC0415
        from keyassay.registry.errors import RegistryError  # noqa: PLC0415
        from keyassay.server.observing import start_logging  # noqa: PLC0415
        from keyassay.server.opening import open_registry  # noqa: PLC0415
        from keyassay.server.settings import Settings  # noqa: PLC0415

    log = start_logging(log_format)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    source: Source
    if endpoint_url:
        session = _session(aws_profile)
        credentials = session.get_credentials()
        if credentials is None:
            raise KeyassayError(
                "there are no credentials", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: `keyassay keys create`"
            )
        source = ApiSource(endpoint_url, credentials, _region(session, region))
        Gate(name, settings, source, log, private_socket).run(stop)
        return 0
    registry = open_registry(Settings(database=database, key_file=key_file, key_command=key_command))
    try:
        source = DatabaseSource(registry, the_account(registry, account), f"gate {name}")
        Gate(name, settings, source, log, private_socket).run(stop)
    except RegistryError as error:
        raise KeyassayError(error.message) from None
    finally:
        registry.database.close()
    return 0


@command.command("render", short_help="Write the configuration of HAProxy and Mosquitto.")
@_gate_options
def render(**given: Any) -> int:
    """Write haproxy.cfg, mosquitto.conf, mosquitto.acl, and the map files, as far as they are missing.

    To see what `gate run` uses, or to merge it into an HAProxy of one's own.

    \b
    Example:
      keyassay gate render --folder /etc/keyassay-gate --server-cert /etc/keyassay/broker.pem
    """  # noqa: D301  \b is click's mark for lines to keep
    settings = _settings(given)
    from keyassay.gate import maps, rendering  # noqa: PLC0415  only when called

    for path in rendering.write_configuration(settings):
        click.echo(str(path))
    maps.prepare(settings)
    return 0


# status, retire


@command.command(
    "status",
    short_help="What the gates of an account have applied.",
    epilog="Exit codes: 0 all gates are up to date, 1 one lags or is silent, 2 wrong use or no connection.",
)
@api_options
@json_option
def status(endpoint_url: str, aws_profile: str | None, region: str | None, as_json: bool) -> int:
    """Show each gate's revision, how far it is behind, its sessions, and what it refused.

    \b
    Example:
      keyassay gate status --json
    """  # noqa: D301  \b is click's mark for lines to keep
    with asking(endpoint_url):
        found = ask_own(endpoint_url, aws_profile, region, "/keyassay/v1/gates", method="GET")
    gates = [one for one in found["gates"] if not one.get("retiredAt")]
    late = [one for one in gates if _state(found, one) != "up to date"]
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif not gates:
        click.echo("no gate has reported yet")
    else:
        rows = [
            (
                visible(str(one["name"])),
                str(one["revision"]),
                _state(found, one),
                f"{time.time() - one['reportedAt']:.0f} s ago",
                str(one.get("sessions", "")),
                ", ".join(f"{visible(name)} {count}" for name, count in one.get("refusals", {}).items()) or "none",
            )
            for one in gates
        ]
        click.echo(table(("gate", "revision", "state", "reported", "sessions", "refused"), rows))
    return 1 if late else 0


def _state(found: dict[str, Any], gate: dict[str, Any]) -> str:
    if time.time() - gate["reportedAt"] > 30:
        return "silent"
    if gate["epoch"] != found["feedEpoch"]:
        return "other epoch" if gate["epoch"] else "starting"
    # revisions of other accounts, and those since the last report, are no lag
    return "up to date" if gate.get("lagSeconds", 0) < 15 else f"behind {gate['lagSeconds']:.0f} s"


@command.command("retire", short_help="Say that a gate is gone for good.")
@click.argument("name", metavar="GATE")
@api_options
def retire(name: str, endpoint_url: str, aws_profile: str | None, region: str | None) -> int:
    """Proofs of revocation do not wait for a retired gate; if it reports again it is back.

    \b
    Example:
      keyassay gate retire north
    """  # noqa: D301  \b is click's mark for lines to keep
    from urllib.parse import quote  # noqa: PLC0415  start-up time

    with asking(endpoint_url):
        ask_own(endpoint_url, aws_profile, region, f"/keyassay/v1/gates/{quote(name, safe='')}/retire", {})
    click.echo(f"{name} is retired")
    return 0


# check


@command.command(
    "check",
    short_help="Try a gate with a certificate made for the purpose.",
    epilog="Exit codes: 0 the gate does what it should, 1 it does not, 2 wrong use or no connection.",
)
@click.argument("address", metavar="HOST:PORT")
@click.option(
    "--broker-ca", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
    help="The CA of the broker's certificate, PEM.  [default: the system's]",
)  # fmt: skip
@api_options
def check(address: str, broker_ca: Path | None, endpoint_url: str, aws_profile: str | None, region: str | None) -> int:
    """Register a certificate, connect with it, with a wrong client id, and after its revocation; then remove it.

    HOST:PORT is where devices connect. The registry has the certificate for less than a minute, with a policy for one
    client id that nobody else has. Its key stays here and is forgotten.

    \b
    Example:
      keyassay gate check broker.example:8883 --broker-ca ca.pem
    """  # noqa: D301  \b is click's mark for lines to keep
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise click.UsageError(f"{address} is no HOST:PORT")
    with libraries():
        from keyassay.gate.checking import make_certificate  # noqa: PLC0415  only when called

    api = client(endpoint_url, aws_profile, region)
    name = f"keyassay-check-{secrets.token_hex(8)}"
    made = make_certificate(name)
    with asking(endpoint_url):
        registered = api.register_certificate_without_ca(certificatePem=made.certificate, status="ACTIVE")
        certificate_id, arn = registered["certificateId"], registered["certificateArn"]
        place = arn.partition(":cert/")[0]
        document = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "iot:Connect", "Resource": f"{place}:client/{name}"}],
        }
        try:
            api.create_policy(policyName=name, policyDocument=json.dumps(document))
            try:
                api.attach_policy(policyName=name, target=arn)
                return _try((host, int(port)), made, name, broker_ca, api, certificate_id)
            finally:
                api.detach_policy(policyName=name, target=arn)
                api.delete_policy(policyName=name)
        finally:
            api.update_certificate(certificateId=certificate_id, newStatus="REVOKED")
            api.delete_certificate(certificateId=certificate_id, forceDelete=True)


def _try(address: tuple[str, int], made: Any, name: str, broker_ca: Path | None, api: Any, certificate_id: str) -> int:
    from keyassay.gate.checking import Attempt  # noqa: PLC0415  libraries are there by now

    well = True

    def say(good: bool, what: str) -> None:
        nonlocal well
        well = well and good
        click.echo(f"{'ok     ' if good else 'FAILED '} {what}")

    begun = time.monotonic()
    while True:
        session = Attempt(address, made, name, broker_ca, 5)
        if session.accepted or time.monotonic() - begun > _PATIENCE:
            break
        session.close()
        time.sleep(0.1)
    say(session.accepted, f"its client id: {session.outcome} ({time.monotonic() - begun:.1f} s after its registration)")
    for wrong in (f"{name}-other", f"{name}/x", f"{name}+"):
        other = Attempt(address, made, wrong, broker_ca, 5)
        say(not other.accepted, f"client id {wrong}: {other.outcome}")
        other.close()
    say(not session.closed.is_set(), "the first session still stands")
    begun = time.monotonic()
    api.update_certificate(certificateId=certificate_id, newStatus="REVOKED")
    closed = session.closed.wait(_PATIENCE)
    took = time.monotonic() - begun
    say(closed and took < 5, f"revoked: session closed after {took * 1000:.0f} ms" if closed else "session not closed")
    again = Attempt(address, made, name, broker_ca, 5)
    say(not again.accepted, f"connects again with the revoked certificate: {again.outcome}")
    again.close()
    session.close()
    return 0 if well else 1
