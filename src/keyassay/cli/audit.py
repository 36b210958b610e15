"""``keyassay audit``: audits of a registry from a terminal, all through its API."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from keyassay.cli.connection import api_options, asking, client
from keyassay.cli.progress import ProgressBar
from keyassay.cli.service import json_option, table
from keyassay.errors import KeyassayError
from keyassay.output.escaping import visible

KEY_QUALITY = ("DEVICE_CERTIFICATE_KEY_QUALITY_CHECK", "CA_CERTIFICATE_KEY_QUALITY_CHECK")
#: AWS wants a role that the audit uses; here it is kept and not used
_ROLE = "arn:aws:iam::{account}:role/keyassay-audit"
_POLL_SECONDS = 1.0
_RUNNING = ("IN_PROGRESS", "WAITING_FOR_DATA_COLLECTION")


@click.group("audit", short_help="Audit a registry: run, look at findings, suppress.")
def command() -> None:
    """Audits look at all certificates of an account, as AWS IoT Device Defender does, with all of keyassay's checks.

    \b
    keyassay audit run
    keyassay audit findings --latest
    keyassay audit suppress FINDING --until 2027-06-30 --description "replaced in May"
    """  # noqa: D301  \b is click's mark for lines to keep


def _stamp(value: Any) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else str(value or "")


def plain(value: Any) -> Any:
    """A result of the API as JSON."""
    if isinstance(value, datetime):
        return _stamp(value)
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items() if name != "ResponseMetadata"}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value


def every(call: Any, member: str, **given: Any) -> Iterator[dict[str, Any]]:
    """The rows of all pages."""
    token = None
    while True:
        page = call(**given, **({"nextToken": token} if token else {}))
        yield from page[member]
        token = page.get("nextToken")
        if token is None:
            return


# run


@command.command(
    "run",
    short_help="Audit now, and wait for the end.",
    epilog="Exit codes: 0 compliant, 1 not compliant, 2 wrong use, no connection or no permission, 3 a check failed or "
    "the audit was canceled.",
)
@click.option(
    "--check", "names", multiple=True, metavar="NAME", help="Which checks (may be repeated).  [default: key quality]"
)
@click.option("--all", "everything", is_flag=True, help="All checks that are enabled.")
@click.option("--enable", is_flag=True, help="Enable the checks first, for this and later audits.")
@click.option("--no-wait", is_flag=True, help="Only start it, and print its id.")
@api_options
@json_option
def run(
    names: tuple[str, ...],
    everything: bool,
    enable: bool,
    no_wait: bool,
    endpoint_url: str,
    aws_profile: str | None,
    region: str | None,
    as_json: bool,
) -> int:
    """Start an audit, show its progress, and print its outcome with its findings.

    An interruption leaves the audit running: `keyassay audit show TASK` looks at it again.
    """
    api = client(endpoint_url, aws_profile, region)
    with asking(endpoint_url):
        configuration = api.describe_account_audit_configuration()
        enabled = [
            name for name, one in configuration.get("auditCheckConfigurations", {}).items() if one.get("enabled")
        ]
        chosen = list(names) or (sorted(enabled) if everything else list(KEY_QUALITY))
        if not chosen:
            raise KeyassayError("no check is enabled", "--check NAME --enable enables one")
        missing = [name for name in chosen if name not in enabled]
        if missing and enable:
            wanted = {name: {"enabled": True} for name in missing}
            role = {} if configuration.get("roleArn") else {"roleArn": _ROLE.format(account="0" * 12)}
            api.update_account_audit_configuration(auditCheckConfigurations=wanted, **role)
        elif missing:
            raise KeyassayError(f"{', '.join(missing)} is not enabled", "--enable does that first")
        task_id = api.start_on_demand_audit_task(targetCheckNames=chosen)["taskId"]
        if no_wait:
            click.echo(json.dumps({"taskId": task_id}) if as_json else task_id)
            return 0
        task = _wait(api, task_id)
        return _show(api, task_id, task, as_json=as_json)


def _wait(api: Any, task_id: str) -> dict[str, Any]:
    with ProgressBar(unit="checks") as bar:
        while True:
            task: dict[str, Any] = api.describe_audit_task(taskId=task_id)
            if task["taskStatus"] != "IN_PROGRESS":
                return task
            counts = task["taskStatistics"]
            total = counts["totalChecks"]
            done = total - counts["inProgressChecks"] - counts["waitingForDataCollectionChecks"]
            bar("auditing", done / total if total else None, done)
            time.sleep(_POLL_SECONDS)


def _show(api: Any, task_id: str, task: dict[str, Any], *, as_json: bool) -> int:
    found = list(every(api.list_audit_findings, "findings", taskId=task_id, maxResults=250))
    if as_json:
        click.echo(json.dumps({"taskId": task_id, **plain(task), "findings": plain(found)}, indent=2))
    else:
        click.echo(_task_text(task_id, task))
        if found:
            click.echo("\n" + _findings_text(found))
    return _code(task)


def _code(task: dict[str, Any]) -> int:
    details = task.get("auditDetails", {}).values()
    if task["taskStatus"] in ("FAILED", "CANCELED") or any(one["checkRunStatus"] == "FAILED" for one in details):
        return 3
    return 1 if any(one["checkRunStatus"] == "COMPLETED_NON_COMPLIANT" for one in details) else 0


def _task_text(task_id: str, task: dict[str, Any]) -> str:
    lines = [f"audit {task_id}  {task['taskStatus']}  started {_stamp(task.get('taskStartTime'))}", ""]
    rows = []
    remarks = []
    for name, one in sorted(task.get("auditDetails", {}).items()):
        total, bad = one.get("totalResourcesCount"), one.get("nonCompliantResourcesCount")
        rows.append(
            (
                name,
                one["checkRunStatus"],
                "" if bad is None else f"{bad:,}",
                "" if total is None else f"{total:,}",
                str(one.get("suppressedNonCompliantResourcesCount") or ""),
            )
        )
        if one.get("message"):
            remarks.append(f"{name}: {visible(one['message'])}")
        if name in _only_in_aws() and not total:
            remarks.append(f"{name}: what it examines exists in AWS only, so there is nothing here that could fail")
    lines.append(table(("check", "outcome", "not compliant", "of", "suppressed"), rows))
    return "\n".join([*lines, *remarks])


def _only_in_aws() -> frozenset[str]:
    from keyassay.audit.checks import AUDIT_CHECKS, Needs  # noqa: PLC0415  only when called

    return frozenset(name for name, one in AUDIT_CHECKS.items() if one.needs is Needs.AWS)


def _resource(finding: dict[str, Any]) -> str:
    identifier = finding["nonCompliantResource"].get("resourceIdentifier", {})
    parts = [":".join(map(str, one.values())) if isinstance(one, dict) else str(one) for one in identifier.values()]
    return visible(" ".join(parts))


def _findings_text(found: list[dict[str, Any]]) -> str:
    rows = [
        (
            one["severity"],
            one["reasonForNonComplianceCode"],
            _resource(one),
            one["findingId"],
            "suppressed" if one.get("isSuppressed") else "",
        )
        for one in found
    ]
    return table(("severity", "reason", "resource", "finding", ""), rows)


# show, list, cancel


@command.command("show", short_help="One audit with its checks and findings.", epilog="Exit codes: as for `run`.")
@click.argument("task", metavar="TASK")
@click.option("--wait", is_flag=True, help="Until it has ended.")
@api_options
@json_option
def show(task: str, wait: bool, endpoint_url: str, aws_profile: str | None, region: str | None, as_json: bool) -> int:
    """Show the audit TASK: outcome and numbers of each check, and its findings."""
    api = client(endpoint_url, aws_profile, region)
    with asking(endpoint_url):
        described = _wait(api, task) if wait else api.describe_audit_task(taskId=task)
        return _show(api, task, described, as_json=as_json)


@command.command("list", short_help="Audits of the last days.")
@click.option("--days", type=click.IntRange(1, 89), default=30, show_default=True, help="How far to look back.")
@api_options
@json_option
def list_(days: int, endpoint_url: str, aws_profile: str | None, region: str | None, as_json: bool) -> None:
    """List audits, on demand and scheduled ones."""
    api = client(endpoint_url, aws_profile, region)
    now = datetime.now(UTC)
    with asking(endpoint_url):
        given = {"startTime": now - timedelta(days=days), "endTime": now + timedelta(minutes=1), "maxResults": 250}
        tasks = list(every(api.list_audit_tasks, "tasks", **given))
    if as_json:
        click.echo(json.dumps(plain(tasks), indent=2))
    else:
        click.echo(
            table(("audit", "type", "status"), [(one["taskId"], one["taskType"], one["taskStatus"]) for one in tasks])
        )


@command.command("findings", short_help="Findings of an audit, or of a time.")
@click.argument("task", metavar="TASK", required=False)
@click.option("--latest", is_flag=True, help="Of the latest audit that has ended.")
@click.option("--days", type=click.IntRange(1, 89), metavar="N", help="Of all audits of the last N days.")
@click.option("--check", "check_name", metavar="NAME", help="Of one check only.")
@click.option("--certificate", metavar="ID", help="Of one device certificate only.")
@click.option("--suppressed/--unsuppressed", default=None, help="Only these, or only others.  [default: both]")
@api_options
@json_option
def findings(
    task: str | None,
    latest: bool,
    days: int | None,
    check_name: str | None,
    certificate: str | None,
    suppressed: bool | None,
    endpoint_url: str,
    aws_profile: str | None,
    region: str | None,
    as_json: bool,
) -> None:
    """List findings: of the audit TASK, of the latest one, or of some days."""
    if sum((task is not None, latest, days is not None)) != 1:
        raise click.UsageError("one of TASK, --latest and --days is needed")
    api = client(endpoint_url, aws_profile, region)
    now = datetime.now(UTC)
    with asking(endpoint_url):
        given: dict[str, Any] = {"maxResults": 250}
        if days is not None:
            given |= {"startTime": now - timedelta(days=days), "endTime": now + timedelta(minutes=1)}
        else:
            given["taskId"] = task or latest_audit(api, now)
        if check_name:
            given["checkName"] = check_name
        if certificate:
            given["resourceIdentifier"] = {"deviceCertificateId": certificate}
        if suppressed is not None:
            given["listSuppressedFindings"] = suppressed
        found = list(every(api.list_audit_findings, "findings", **given))
    if as_json:
        click.echo(json.dumps(plain(found), indent=2))
    else:
        click.echo(_findings_text(found) if found else "no findings")


def latest_audit(api: Any, now: datetime) -> str:
    """The id of the newest audit that has ended; what screening finds at registrations is none.

    Raises:
        KeyassayError: there is none.
    """
    given = {"startTime": now - timedelta(days=89), "endTime": now + timedelta(minutes=1), "maxResults": 250}
    for one in every(api.list_audit_tasks, "tasks", **given):  # the newest come first
        if one["taskStatus"] not in _RUNNING and not one["taskId"].startswith("screening-"):
            return str(one["taskId"])
    raise KeyassayError("no audit has ended yet", "`keyassay audit run` starts one")


@command.command("cancel", short_help="End an audit that is running.")
@click.argument("task", metavar="TASK")
@api_options
def cancel(task: str, endpoint_url: str, aws_profile: str | None, region: str | None) -> None:
    """Cancel the audit TASK; checks that have finished keep their results."""
    api = client(endpoint_url, aws_profile, region)
    with asking(endpoint_url):
        api.cancel_audit_task(taskId=task)
    click.echo(f"{task} was canceled")


# suppress


@command.command("suppress", short_help="Accept a finding, for a time or for good.")
@click.argument("finding", metavar="FINDING")
@click.option("--until", metavar="DATE", help="Until this date (ISO 8601).")
@click.option("--indefinitely", is_flag=True, help="For good.")
@click.option("--description", default=None, metavar="TEXT", help="Why.")
@api_options
def suppress(
    finding: str,
    until: str | None,
    indefinitely: bool,
    description: str | None,
    endpoint_url: str,
    aws_profile: str | None,
    region: str | None,
) -> None:
    """Suppress what FINDING says, for its check and its resource: later audits count it apart.

    It stays in lists, marked; audits that have ended do not change.
    """
    if (until is not None) == indefinitely:
        raise click.UsageError("one of --until and --indefinitely is needed")
    given: dict[str, Any] = {"suppressIndefinitely": True}
    if until is not None:
        try:
            moment = datetime.fromisoformat(until)
        except ValueError:
            raise click.BadParameter(f"{until!r} is no date; 2027-06-30 is one", param_hint="--until") from None
        given = {"expirationDate": moment if moment.tzinfo else moment.replace(tzinfo=UTC)}
    if description is not None:
        given["description"] = description
    api = client(endpoint_url, aws_profile, region)
    with asking(endpoint_url):
        found = api.describe_audit_finding(findingId=finding)["finding"]
        api.create_audit_suppression(
            checkName=found["checkName"],
            resourceIdentifier=found["nonCompliantResource"]["resourceIdentifier"],
            clientRequestToken=str(uuid.uuid4()),
            **given,
        )
    click.echo(f"suppressed: {found['checkName']} for {_resource(found)}")
