"""``keyassay worker``: a registry's audits, mitigation and messages, in a process beside its server."""

from __future__ import annotations

from pathlib import Path

import click

from keyassay.cli.service import database_options, libraries, worker_options


@click.command(
    "worker",
    short_help="Do a registry's audits and mitigation beside its server.",
    epilog="Exit codes: 0 told to end (SIGTERM, SIGINT), 2 wrong use or something cannot be opened, 70 internal error.",
)
@database_options
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, metavar="N", help="Audits at a time."
)
@worker_options
@click.option(
    "--log-format", type=click.Choice(["json", "text"]), default="json", show_default=True, help="Of the log."
)
def command(
    database: str,
    key_file: Path | None,
    key_command: str,
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
    log_format: str,
) -> int:
    """Do what a registry has to do beside answering: audits, mitigation, lists, messages on their way out.

    A server does it by itself, unless it was started with --workers 0. Any number of processes share the work: on one
    machine with SQLite, on several with PostgreSQL. One that dies is replaced by the others.

    \b
    Examples:
      keyassay serve --workers 0 &
      keyassay worker --workers 2
    """  # noqa: D301  \b is click's mark for lines to keep
    with libraries():
        from keyassay.server.observing import start_logging  # noqa: PLC0415  only when called
        from keyassay.server.opening import open_registry  # noqa: PLC0415
        from keyassay.server.settings import Settings  # noqa: PLC0415
        from keyassay.server.working import Workers, work_until_told, workers_of  # noqa: PLC0415

    settings = Settings(
        database=database,
        key_file=key_file,
        key_command=key_command,
        workers=workers,
        screening=screen_registrations,
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
        public_url=public_url,
        crl_hours=crl_hours,
        crl_hold=crl_hold,
        log_format=log_format,
    )
    log = start_logging(log_format)
    registry = open_registry(settings)
    try:
        work_until_told(Workers(workers_of(settings, registry, log)), log)
    finally:
        registry.database.close()
    return 0
