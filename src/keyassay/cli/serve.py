"""``keyassay serve``: the registry behind AWS IoT's API."""

from __future__ import annotations

import os
from pathlib import Path

import click

from keyassay.cli.service import database_options, libraries, worker_options


@click.command(
    "serve",
    short_help="Run the registry behind AWS IoT's API.",
    epilog="Exit codes: 0 told to end (SIGTERM, SIGINT), 2 wrong use or something cannot be opened, 70 internal error.",
)
@database_options
@click.option(
    "--listen", multiple=True, metavar="HOST:PORT", envvar="KEYASSAY_LISTEN", show_envvar=True,
    help="Where the API listens (may be repeated).  [default: 127.0.0.1:8443]",
)  # fmt: skip
@click.option("--tls-cert", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Certificate, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Its key, PEM.")
@click.option(
    "--region", envvar="KEYASSAY_REGION", show_envvar=True, default="us-east-1", show_default=True, metavar="NAME",
    help="Stands in ARNs and has to stand in signatures.",
)  # fmt: skip
@click.option("--endpoint", default="", metavar="HOST[:PORT]", help="What DescribeEndpoint tells devices.")
@click.option(
    "--public-listen", multiple=True, metavar="HOST:PORT", envvar="KEYASSAY_PUBLIC_LISTEN", show_envvar=True,
    help="Answer for revocation lists and OCSP there by plain HTTP, and for nothing else (may be repeated).",
)  # fmt: skip
@click.option(
    "--public-rate", type=click.FloatRange(0, 1e6), default=200, show_default=True, metavar="N",
    help="Requests a second for those that one source may keep up; 0 for no limit.",
)  # fmt: skip
@click.option(
    "--activate-broken", is_flag=True,
    help="Let devices that registered themselves be activated though their keys are broken.",
)  # fmt: skip
@click.option("--metrics", metavar="HOST:PORT", help="Show counters for Prometheus there; loopback only.")
@click.option(
    "--workers", type=click.IntRange(0, 64), default=1, show_default=True, metavar="N",
    help="Audits at a time; 0 leaves all work to `keyassay worker`.",
)  # fmt: skip
@worker_options
@click.option(
    "--threads", type=click.IntRange(1, 256), default=16, show_default=True, metavar="N", help="For requests."
)
@click.option(
    "--rate-limit", type=click.FloatRange(0, 1e6), default=2_000, show_default=True, metavar="N",
    help="Requests a second that an account may keep up; 0 for no limit.",
)  # fmt: skip
@click.option(
    "--log-format", type=click.Choice(["json", "text"]), default="json", show_default=True, help="Of the log."
)
@click.option("--insecure-no-auth", is_flag=True, help="Check no signatures; listens on loopback only.")
def command(
    database: str,
    key_file: Path | None,
    key_command: str,
    listen: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    region: str,
    endpoint: str,
    public_listen: tuple[str, ...],
    public_rate: float,
    activate_broken: bool,
    metrics: str | None,
    workers: int,
    screen_registrations: str,
    audit_profile: str,
    audit_budget: float | None,
    audit_level: str,
    audit_hour: int,
    fleet_store: Path | None,
    fleet_across_accounts: bool,
    publish_to: tuple[str, ...],
    webhook_secrets: Path | None,
    issuing_hook: str,
    crl_hosts: tuple[str, ...],
    public_url: str,
    crl_hours: float,
    crl_hold: bool,
    threads: int,
    rate_limit: float,
    log_format: str,
    insecure_no_auth: bool,
) -> int:
    """Run the registry: AWS IoT's API for certificates, things and policies, on this machine.

    The first start makes the database, an account and its access key, whose secret is shown once. Every request is
    signed (Signature Version 4); without TLS only this machine is listened to.

    \b
    Examples:
      keyassay serve
      keyassay serve --database postgresql://keyassay@db.example/keyassay \\
          --listen 0.0.0.0:8443 --tls-cert server.pem --tls-key server.key
      aws iot list-certificates --endpoint-url http://127.0.0.1:8443
    """  # noqa: D301  \b is click's mark for lines to keep
    with libraries():
        from keyassay.output import version  # noqa: PLC0415  only when called
        from keyassay.server.observing import start_logging  # noqa: PLC0415
        from keyassay.server.running import Server  # noqa: PLC0415
        from keyassay.server.settings import DEFAULT_LISTEN, Address, Settings  # noqa: PLC0415

    settings = Settings(
        database=database,
        listen=tuple(Address.parse(one) for one in listen or (DEFAULT_LISTEN,)),
        tls_certificate=tls_cert,
        tls_key=tls_key,
        region=region,
        endpoint=endpoint,
        public_url=public_url,
        public_listen=tuple(Address.parse(one) for one in public_listen),
        public_rate=public_rate,
        crl_hours=crl_hours,
        crl_hold=crl_hold,
        key_file=key_file,
        key_command=key_command,
        insecure_no_auth=insecure_no_auth,
        metrics=Address.parse(metrics) if metrics else None,
        screening=screen_registrations,
        activate_broken=activate_broken,
        workers=workers,
        audit_profile=audit_profile,
        audit_budget=audit_budget or 0.0,
        audit_level=audit_level,
        audit_hour=audit_hour,
        fleet_store=fleet_store,
        fleet_across_accounts=fleet_across_accounts,
        publish_to=publish_to,
        webhook_secrets=webhook_secrets,
        issuing_hook=issuing_hook,
        crl_hosts=crl_hosts,
        threads=threads,
        rate_limit=rate_limit,
        log_format=log_format,
        environment=dict(os.environ),
    )
    Server(settings, start_logging(log_format), version()).run()
    return 0
