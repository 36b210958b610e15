"""``keyassay mitigate``: do something about the findings of an audit, or show first what would be done."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from keyassay.cli.audit import every, latest_audit, plain
from keyassay.cli.connection import api_options, ask_own, asking, client
from keyassay.cli.progress import ProgressBar
from keyassay.cli.service import json_option, libraries, table
from keyassay.errors import KeyassayError
from keyassay.output.escaping import visible

_PLAN = "/keyassay/v1/mitigation/plan"
#: AWS wants a role that an action uses; here it is kept and not used
_ROLE = "arn:aws:iam::000000000000:role/keyassay-mitigation"
_POLL_SECONDS = 0.5
#: failures that are shown, and findings that are looked through for them
_SHOWN, _LOOKED_AT = 20, 1_000
#: counts of a task, in the order of its table
_COUNTS = ("total", "succeeded", "failed", "skipped", "canceled")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An action: one that exists (``params`` is None), or one that is made for this task."""

    name: str
    params: Mapping[str, Any] | None = None

    @classmethod
    def made(cls, word: str, params: Mapping[str, Any]) -> _Wanted:
        """One whose name tells its contents, so that the next task with the same options uses it again."""
        digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()
        return cls(f"keyassay-{word}-{digest[:8]}", params)


@click.command(
    "mitigate",
    short_help="Do something about the findings of an audit.",
    epilog="Exit codes: 0 done, or shown, 1 something failed, 2 wrong use, no connection or no permission, 3 the task "
    "was canceled.",
)
@click.option("--audit", metavar="TASK", help="All findings of this audit.")
@click.option("--latest", "of_latest", is_flag=True, help="All findings of the latest audit that has ended.")
@click.option("--finding", "finding_ids", multiple=True, metavar="ID", help="This finding (up to 25 of them).")
@click.option("--check", "checks", multiple=True, metavar="NAME", help="Only findings of this check (may be repeated).")
@click.option("--reason", "reasons", multiple=True, metavar="CODE", help="Only findings with this reason code.")
@click.option("--action", "names", multiple=True, metavar="NAME", help="Do this mitigation action of the account.")
@click.option("--deactivate", is_flag=True, help="Set certificates (or authorities) to INACTIVE.")
@click.option("--add-to-group", "groups", multiple=True, metavar="GROUP", help="Add the certificates' things to it.")
@click.option("--publish", "topics", multiple=True, metavar="TARGET", help="Send each finding to a permitted target.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; nothing changes.")
@click.option("--no-wait", is_flag=True, help="Only start it, and print its id.")
@click.option("--show", "shown", metavar="ID", help="Start nothing: wait for this task and show what became of it.")
@api_options
@json_option
def command(
    audit: str | None,
    of_latest: bool,
    finding_ids: tuple[str, ...],
    checks: tuple[str, ...],
    reasons: tuple[str, ...],
    names: tuple[str, ...],
    deactivate: bool,
    groups: tuple[str, ...],
    topics: tuple[str, ...],
    dry_run: bool,
    no_wait: bool,
    shown: str | None,
    endpoint_url: str,
    aws_profile: str | None,
    region: str | None,
    as_json: bool,
) -> int:
    """Apply actions to the findings of an audit, or to single ones. Suppressed findings are skipped.

    Actions are done in this order: those of the account by name, adding to groups, publishing, deactivating. An action
    is applied to the findings that it fits. --deactivate, --add-to-group and --publish make actions in the account,
    which later tasks use again. An interruption leaves the task running: --show ID looks at it again.

    \b
    Examples:
      keyassay mitigate --latest --deactivate --dry-run
      keyassay mitigate --latest --add-to-group quarantine --deactivate
      keyassay mitigate --finding 3f2c... --action revoke-and-tell
    """  # noqa: D301  \b is click's mark for lines to keep
    wanted = [_Wanted(one) for one in names] + _made(deactivate=deactivate, groups=groups, topics=topics)
    if shown is not None:
        if audit or of_latest or finding_ids or wanted:
            raise click.UsageError("--show starts nothing, so it goes without findings and actions")
    elif sum((audit is not None, of_latest, bool(finding_ids))) != 1:
        raise click.UsageError("one of --audit, --latest and --finding is needed")
    elif not wanted:
        raise click.UsageError("what shall be done? --action, --deactivate, --add-to-group or --publish")
    if reasons and finding_ids:
        raise click.UsageError("--reason chooses among an audit's findings, --finding names them")
    api = client(endpoint_url, aws_profile, region)
    with asking(endpoint_url):
        if shown is not None:
            return _show(api, shown, as_json=as_json)
        if of_latest:
            audit = latest_audit(api, datetime.now(UTC))
        concerned = _checks(api, audit, finding_ids, checks)
        mapping = _mapping(api, wanted, concerned)
        target: dict[str, Any] = {"auditTaskId": audit} if audit else {"findingIds": list(finding_ids)}
        if reasons:
            target["auditCheckToReasonCodeFilter"] = {check: list(reasons) for check in mapping}
        asked = {"target": target, "auditCheckToActionsMapping": mapping}
        if dry_run:
            made = [{"name": one.name, "actionParams": one.params} for one in wanted if one.params is not None]
            body = {**asked, "actionsDefinition": made, "maxResults": 250}

            def page(**more: Any) -> dict[str, Any]:
                return ask_own(endpoint_url, aws_profile, region, _PLAN, {**body, **more})

            return _show_plan(asked, list(every(page, "findings")), as_json=as_json)
        _create(api, [one for one in wanted if any(one.name in several for several in mapping.values())])
        task_id = f"keyassay-{uuid.uuid4()}"
        api.start_audit_mitigation_actions_task(taskId=task_id, clientRequestToken=str(uuid.uuid4()), **asked)
        if no_wait:
            click.echo(json.dumps({"taskId": task_id}) if as_json else task_id)
            return 0
        return _show(api, task_id, as_json=as_json)


def _made(*, deactivate: bool, groups: Sequence[str], topics: Sequence[str]) -> list[_Wanted]:
    """The actions that options ask for."""
    found = []
    if groups:
        found.append(_Wanted.made("group", {"addThingsToThingGroupParams": {"thingGroupNames": list(groups)}}))
    found += [_Wanted.made("publish", {"publishFindingToSnsParams": {"topicArn": one}}) for one in topics]
    if deactivate:
        found.append(_Wanted.made("deactivate", {"updateDeviceCertificateParams": {"action": "DEACTIVATE"}}))
        found.append(_Wanted.made("deactivate-ca", {"updateCACertificateParams": {"action": "DEACTIVATE"}}))
    return found


def _checks(api: Any, audit: str | None, finding_ids: Sequence[str], only: Sequence[str]) -> list[str]:
    """The checks that the findings belong to.

    Raises:
        KeyassayError: none is left.
    """
    if audit:
        details = api.describe_audit_task(taskId=audit)["auditDetails"]
        found = [
            name
            for name, one in details.items()
            if one.get("nonCompliantResourcesCount") or one.get("suppressedNonCompliantResourcesCount")
        ]
    else:
        found = [api.describe_audit_finding(findingId=one)["finding"]["checkName"] for one in finding_ids]
    left = sorted({name for name in found if not only or name in only})
    if not left:
        raise KeyassayError("there is nothing to do: no findings", f"looked at {audit or ', '.join(finding_ids)}")
    return left


def _mapping(api: Any, wanted: Sequence[_Wanted], checks: Sequence[str]) -> dict[str, list[str]]:
    """Each check with the actions that fit it.

    Raises:
        KeyassayError: no action fits any of them.
    """
    with libraries():
        from keyassay.mitigation.actions import FITS, ActionType, type_of  # noqa: PLC0415  only when called

    types = {
        one.name: type_of(one.params)
        if one.params is not None
        else ActionType(api.describe_mitigation_action(actionName=one.name)["actionType"])
        for one in wanted
    }
    mapping = {check: [one.name for one in wanted if check in FITS[types[one.name]]] for check in checks}
    found = {check: several for check, several in mapping.items() if several}
    if not found:
        raise KeyassayError(f"none of these actions fits findings of {', '.join(checks)}")
    return found


def _create(api: Any, wanted: Sequence[_Wanted]) -> None:
    """Make the actions that do not exist yet.

    Raises:
        KeyassayError: somebody changed one.
    """
    from botocore.exceptions import ClientError  # noqa: PLC0415  only when called

    for one in wanted:
        if one.params is None:
            continue
        try:
            api.create_mitigation_action(actionName=one.name, roleArn=_ROLE, actionParams=one.params)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceAlreadyExistsException":
                raise
            if api.describe_mitigation_action(actionName=one.name)["actionParams"] != one.params:
                raise KeyassayError(
                    f"the action {one.name} was changed", "delete it, or use --action with one of your own"
                ) from None


# The plan


def _show_plan(asked: Mapping[str, Any], findings: list[dict[str, Any]], *, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps({**asked, "findings": findings}, indent=2))
        return 0
    rows = []
    for one in findings:
        if one.get("skipped"):
            resource = " ".join(map(str, one["resourceIdentifier"].values()))
            rows.append((one["reasonForNonComplianceCode"], visible(f"{resource}: nothing, {one['skipped']}")))
        rows += [(one["reasonForNonComplianceCode"], visible(step["effect"])) for step in one["steps"]]
    if rows:
        click.echo(table(("reason", "what would be done"), rows) + "\n")
    touched = [one for one in findings if one["steps"]]
    certificates = {name for one in touched for name in one["certificates"]}
    things = {name for one in touched for step in one["steps"] for name in step["things"]}
    steps = sum(len(one["steps"]) for one in findings)
    click.echo(
        f"{steps:,} steps for {len(touched):,} findings, {len(findings) - len(touched):,} skipped; "
        f"{len(certificates):,} device certificates with {len(things):,} things. Nothing was changed."
    )
    return 0


# The task


def _show(api: Any, task_id: str, *, as_json: bool) -> int:
    """Wait for the end of a task, and tell it."""
    task = _wait(api, task_id)
    failures = list(_failures(api, task_id, task))
    if as_json:
        document = {"taskId": task_id, **plain(task), "failures": plain(failures)}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(f"mitigation {task_id}  {task['taskStatus']}\n")
        rows = [
            (check, *(f"{counts.get(f'{one}FindingsCount', 0):,}" for one in _COUNTS))
            for check, counts in sorted(task.get("taskStatistics", {}).items())
        ]
        click.echo(table(("check", "findings", *_COUNTS[1:]), rows))
        if failures:
            told = [(one["findingId"], one["actionName"], visible(one.get("message", ""))) for one in failures]
            click.echo("\n" + table(("finding", "action", "why it failed"), told))
    if task["taskStatus"] == "CANCELED":
        return 3
    return 0 if task["taskStatus"] == "COMPLETED" else 1


def _wait(api: Any, task_id: str) -> dict[str, Any]:
    with ProgressBar(unit="findings") as bar:
        while True:
            task: dict[str, Any] = api.describe_audit_mitigation_actions_task(taskId=task_id)
            if task["taskStatus"] != "IN_PROGRESS":
                return task
            counts = task.get("taskStatistics", {}).values()
            total = sum(one.get("totalFindingsCount", 0) for one in counts)
            done = sum(one.get(f"{name}FindingsCount", 0) for one in counts for name in _COUNTS[1:])
            bar("mitigating", done / total if total else None, done)
            time.sleep(_POLL_SECONDS)


def _failures(api: Any, task_id: str, task: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Why actions failed, at most ``_SHOWN``: the API lists executions by finding."""
    failed = {name for name, one in task.get("taskStatistics", {}).items() if one.get("failedFindingsCount")}
    if not failed:
        return
    target = task["target"]
    ids: Iterator[str] = iter(target.get("findingIds", ()))
    if "auditTaskId" in target:
        ids = (
            one["findingId"]
            for check in sorted(failed)
            for one in every(api.list_audit_findings, "findings", taskId=target["auditTaskId"], checkName=check)
        )
    shown = 0
    for _, finding_id in zip(range(_LOOKED_AT), ids, strict=False):
        given = {"taskId": task_id, "findingId": finding_id, "actionStatus": "FAILED"}
        for one in every(api.list_audit_mitigation_actions_executions, "actionsExecutions", **given):
            yield one
            shown += 1
            if shown == _SHOWN:
                return
