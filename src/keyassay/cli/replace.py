"""``keyassay replace``: get weak certificates replaced, and see how far it is, all through the registry's API."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import click

from keyassay.cli import proofs
from keyassay.cli.audit import latest_audit
from keyassay.cli.connection import api_options, ask_own, asking, client
from keyassay.cli.progress import ProgressBar
from keyassay.cli.service import json_option, table
from keyassay.errors import KeyassayError
from keyassay.output.escaping import visible

_PATH = "/keyassay/v1/replacements"
_POLICY = "/keyassay/v1/replacement-policy"
_POLL_SECONDS = 1.0
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
#: things, policies and groups that are shown before it starts
_SHOWN = 10
_ENDED = ("COMPLETED", "CANCELED")
#: how the states of the way are called for people
_WORDS = {
    "PLANNED": "weak",
    "ISSUED": "issued",
    "ATTACHED": "attached",
    "DELIVERED": "delivered",
    "CONNECTED": "connected with new",
    "OLD_INACTIVE": "old inactive",
    "OLD_REVOKED": "old revoked",
    "DETACHED": "detached",
    "DONE": "done",
}
Command = Callable[..., Any]
Ask = Callable[..., dict[str, Any]]


class _Duration(click.ParamType[int]):
    """A number with s, m, h or d, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip()
        number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "s")
        try:
            return round(float(number) * _UNITS[unit])
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no duration such as 30m, 24h or 7d", param, ctx)


class _Percent(click.ParamType[float]):
    """A number with or without %."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(str(value).removesuffix("%"))
        except ValueError:
            number = -1.0
        if not 0 <= number <= 100:
            self.fail(f"{value!r} is no percentage such as 2%", param, ctx)
        return number


def _settings_options(function: Command) -> Command:
    """How a replacement is done."""
    for option in reversed((
        click.option(
            "--proof", type=click.Choice(["secret", "claim-certificate", "device-key", "approval"]), default=None,
            help="How a device proves that a request is its own: the old key proves nothing any more.",
        ),
        click.option(
            "--trust-old-key", is_flag=True,
            help="No proof but the session with the old key: whoever has computed it gets the new certificate, too.",
        ),
        click.option(
            "--issuer", type=click.Choice(["registry", "hook"]), default=None,
            help="Who issues: the registry's authority, or the hook command (--issuing-hook) of the server or of a "
            "worker beside it.  [default: registry]",
        ),
        click.option("--batch", type=click.IntRange(1, 10_000), default=None, metavar="NUMBER",
            help="Devices that are at it at once.  [default: 100]",
        ),
        click.option("--halt-on-failures", type=_Percent(), default=None, metavar="PERCENT",
            help="Halt when more of the units that were begun have failed.  [default: 2%]",
        ),
        click.option("--grace", type=_Duration(), default=None, metavar="TIME",
            help="How long an old certificate is INACTIVE before it is revoked.  [default: 24h]",
        ),
        click.option("--stuck-after", type=_Duration(), default=None, metavar="TIME",
            help="A device that has not gone on for so long counts as stuck.  [default: 1h]",
        ),
    )):  # fmt: skip
        function = option(function)
    return function


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    names = {
        "proof": "proof",
        "issuer": "issuer",
        "batch": "batch",
        "halt_on_failures": "haltOnFailures",
        "grace": "graceSeconds",
        "stuck_after": "stuckAfterSeconds",
    }
    found = {names[name]: value for name, value in given.items() if name in names and value is not None}
    if given["trust_old_key"]:
        found["trustOldKey"] = True
    return found


def _check_proof(given: Mapping[str, Any]) -> None:
    if (given["proof"] is None) == (not given["trust_old_key"]):
        raise click.UsageError("one of --proof and --trust-old-key has to be chosen")


def _asker(endpoint_url: str, aws_profile: str | None, region: str | None) -> Ask:
    def ask(path: str, body: Mapping[str, Any] | None = None, *, method: str = "POST") -> dict[str, Any]:
        return ask_own(endpoint_url, aws_profile, region, path, body, method=method)

    return ask


def _every(ask: Ask, path: str, member: str, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    token = None
    while True:
        page = ask(path, {**query, "maxResults": 250, **({"nextToken": token} if token else {})}, method="GET")
        yield from page[member]
        token = page.get("nextToken")
        if token is None:
            return


def _one(replacement_id: str, below: str = "") -> str:
    return f"{_PATH}/{quote(replacement_id, safe='')}" + (f"/{below}" if below else "")


@click.group("replace", short_help="Replace weak certificates, proven before the old key dies.")
def command() -> None:
    """Each device gets a new certificate for a key that it makes itself; when it was seen to connect with it, the old
    one is deactivated, revoked after a time of grace, and detached.

    \b
    keyassay replace start --latest-audit --proof secret
    keyassay replace status
    keyassay replace units --stuck
    keyassay replace cancel 6f1c... --thing pump-17
    """  # noqa: D205, D301  \b is click's mark for lines to keep


# start


@command.command(
    "start",
    short_help="Show what it would touch, ask, and start.",
    epilog="Exit codes: 0 started, or shown, 1 there is nothing to replace, 2 wrong use, no connection or no "
    "permission, 130 not confirmed.",
)
@click.option("--finding", "findings", multiple=True, metavar="ID", help="The certificates of an audit finding.")
@click.option("--certificate", "certificates", multiple=True, metavar="ID", help="A certificate (may be repeated).")
@click.option("--audit-task", metavar="TASK", help="All certificates that the audit found noncompliant.")
@click.option("--latest-audit", "of_latest", is_flag=True, help="The same, of the latest audit that has ended.")
@click.option("--check", "checks", multiple=True, metavar="NAME", help="Only an audit's findings of this check.")
@click.option("--broken-only", is_flag=True, help="Only an audit's findings whose key is proven broken.")
@click.option("--group", metavar="GROUP", help="Only things of this group, or of one below it.")
@_settings_options
@click.option("--dry-run", is_flag=True, help="Show what it would touch; nothing changes.")
@click.option("--yes", is_flag=True, help="Do not ask before it starts.")
@api_options
@json_option
def start(
    findings: tuple[str, ...],
    certificates: tuple[str, ...],
    audit_task: str | None,
    of_latest: bool,
    **given: Any,
) -> int:
    """Start a replacement. Certificates that another one is replacing already are skipped, and said.

    Devices learn of it by MQTT, or ask when they connect; docs/device-protocol.md has the messages, and
    docs/replacement.md what each step proves.

    \b
    Examples:
      keyassay replace start --latest-audit --broken-only --proof secret --dry-run
      keyassay replace start --audit-task 4711 --group pumps --proof claim-certificate --batch 50
      keyassay replace start --certificate 3f2c... --trust-old-key --grace 1h --yes
    """  # noqa: D301  \b is click's mark for lines to keep
    if sum((bool(findings), bool(certificates), audit_task is not None, of_latest)) != 1:
        raise click.UsageError("one of --finding, --certificate, --audit-task and --latest-audit is needed")
    if not given["dry_run"]:
        _check_proof(given)
    where = (given["endpoint_url"], given["aws_profile"], given["region"])
    ask = _asker(*where)
    with asking(given["endpoint_url"]):
        if of_latest:
            audit_task = latest_audit(client(*where), datetime.now(UTC))
        selection: dict[str, Any] = {
            "findingIds": list(findings),
            "certificateIds": list(certificates),
            "auditTaskId": audit_task,
            "checkNames": list(given["checks"]),
            "brokenOnly": given["broken_only"],
            "thingGroupName": given["group"],
        }
        selection = {name: value for name, value in selection.items() if value}
        plan = ask(f"{_PATH}/plan", selection)
        if given["dry_run"]:
            click.echo(json.dumps(plan, indent=2) if given["as_json"] else _told(plan) + "\nNothing was changed.")
            return 0
        if not plan["units"] and not plan["withoutThing"]:
            why = _told_skipped(plan) or "no certificate was selected"
            click.echo(json.dumps(plan, indent=2) if given["as_json"] else f"there is nothing to replace: {why}")
            return 1
        if not given["yes"]:
            click.echo(_told(plan) + "\n", err=given["as_json"])
            click.confirm("Start?", abort=True, err=True)
        body = {**selection, **_settings(given), "clientRequestToken": str(uuid.uuid4())}
        replacement_id = ask(_PATH, body)["replacementId"]
    click.echo(json.dumps({"replacementId": replacement_id, "plan": plan}) if given["as_json"] else replacement_id)
    return 0


def _told(plan: Mapping[str, Any]) -> str:
    """The blast radius, for people."""
    shared = f"{plan['certificates']:,} certificates ({plan['sharedCertificates']:,} shared)"
    unreachable = f"{plan['unreachable']:,} unreachable (old certificate not ACTIVE: claims serve them)"
    lines = [
        f"{shared} with {plan['things']:,} things: {plan['units']:,} replacements",
        f"{plan['connectedNow']:,} of them connected now, {unreachable}",
    ]
    if plan["withoutThing"]:
        lines.append(f"{plan['withoutThing']:,} certificates without a thing are only reported")
    if plan["skipped"]:
        lines.append(f"skipped: {_told_skipped(plan)}")
    rows = [("policy", one["policyName"], f"{one['certificates']:,} certificates") for one in plan["policies"]]
    groups = [("group", one["groupName"], f"{one['things']:,} things") for one in plan["thingGroups"]]
    things = [("thing", one["thingName"], one["certificateId"]) for one in plan["examples"] if one["thingName"]]
    shown = [*things[:_SHOWN], *rows[:_SHOWN], *groups[:_SHOWN]]
    if shown:
        lines += [
            "",
            table(("what", "name", "how many, or which certificate"), [tuple(map(visible, one)) for one in shown]),
        ]
        more = plan["units"] - min(len(things), _SHOWN)
        if more > 0:
            lines.append(f"and {more:,} more things")
    return "\n".join(lines)


def _told_skipped(plan: Mapping[str, Any]) -> str:
    words = {
        "IN_OPEN_UNIT": "being replaced already",
        "NOT_REGISTERED": "not registered",
        "BEING_TRANSFERRED": "being transferred",
    }
    return ", ".join(f"{count:,} {words.get(reason, reason)}" for reason, count in plan["skipped"].items())


# status


@command.command(
    "status",
    short_help="The funnel: how far devices are.",
    epilog="Exit codes: 0 complete, or going well, 1 halted, canceled, or something is stuck, failed or put aside, 2 "
    "wrong use, no connection or no permission.",
)
@click.argument("replacement_id", metavar="[ID]", required=False)
@click.option("--all", "everything", is_flag=True, help="List all replacements instead.")
@click.option("--wait", is_flag=True, help="Show a progress bar until it has ended, or cannot go on by itself.")
@api_options
@json_option
def status(
    replacement_id: str | None,
    everything: bool,
    wait: bool,
    endpoint_url: str,
    aws_profile: str | None,
    region: str | None,
    as_json: bool,
) -> int:
    """Show a replacement: that of ID, or the latest.

    \b
    Examples:
      keyassay replace status
      keyassay replace status 6f1c... --wait
      keyassay replace status --all --json
    """  # noqa: D301  \b is click's mark for lines to keep
    ask = _asker(endpoint_url, aws_profile, region)
    with asking(endpoint_url):
        if everything:
            return _list(ask, as_json=as_json)
        if replacement_id is None:
            newest = ask(_PATH, {"maxResults": 1}, method="GET")["replacements"]
            if not newest:
                raise KeyassayError("there is no replacement yet", "`keyassay replace start` begins one")
            replacement_id = str(newest[0]["replacementId"])
        found = _wait(ask, replacement_id) if wait else ask(_one(replacement_id), method="GET")
    click.echo(json.dumps(found, indent=2) if as_json else _funnel(found))
    return 1 if _wants_attention(found) else 0


def _list(ask: Ask, *, as_json: bool) -> int:
    rows = list(_every(ask, _PATH, "replacements", {}))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return 0
    shown = [
        (one["replacementId"], one["status"], _moment(one["startedAt"]), _moment(one.get("endedAt"))) for one in rows
    ]
    click.echo(table(("replacement", "status", "started", "ended"), shown) if shown else "no replacements")
    return 0


def _moment(value: Any) -> str:
    """A time of the API, seconds since 1970 or text, for people."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(value or "")


def _wants_attention(found: Mapping[str, Any]) -> bool:
    aside = found["aside"]
    return bool(
        found["status"] in ("HALTED", "CANCELED")
        or found["stuck"]
        or found["withProblem"]
        or aside.get("HALTED")
        or aside.get("FAILED")
    )


def _wait(ask: Ask, replacement_id: str) -> dict[str, Any]:
    with ProgressBar(unit="done") as bar:
        while True:
            found = ask(_one(replacement_id), method="GET")
            if found["status"] in _ENDED or found["status"] == "HALTED":
                return found
            total, reached = found["units"], found["funnel"]
            steps = sum(count for state, count in reached.items() if state != "PLANNED")
            share = steps / (total * (len(reached) - 1)) if total else None
            bar(f"replacing: {reached['DONE']:,} of {total:,} done, {found['stuck']:,} stuck", share, reached["DONE"])
            time.sleep(_POLL_SECONDS)


def _funnel(found: Mapping[str, Any]) -> str:
    """A replacement, for people."""
    total = found["units"]
    lines = [f"replacement {found['replacementId']}  {found['status']}", ""]
    if found.get("problem"):
        lines[1:1] = [visible(found["problem"])]
    rows = []
    for state, count in found["funnel"].items():
        # weak are all of them, those too that are aside
        shown = total if state == "PLANNED" else count
        bar = "#" * (round(30 * shown / total) if total else 0)
        rows.append((_WORDS[state], f"{shown:,}", f"{found['states'].get(state, 0):,}", bar))
    lines.append(table(("", "reached", "there now", ""), rows))
    rest = [("stuck", found["stuck"])]
    rest += [(state.lower().replace("_", " "), count) for state, count in found["aside"].items()]
    told = [f"{count:,} {word}" for word, count in rest if count]
    if told:
        lines += ["", "; ".join(told)]
    if found.get("oldestStuckSeconds") is not None:
        lines.append(f"the first stuck device has been silent for {_age(found['oldestStuckSeconds'])}")
    if found["withProblem"]:
        lines.append(f"{found['withProblem']:,} units have a problem: keyassay replace units {found['replacementId']} "
                     "--problems")  # fmt: skip
    if found["unproven"]:
        how = {"secret": "secrets", "device-key": "keys", "claim-certificate": "claims"}[found["settings"]["proof"]]
        lines.append(
            f"{found['unproven']:,} devices are asked once they can prove a request: "
            f"keyassay replace {how} {found['replacementId']}"
        )
    if not found["planned"]:
        lines.append("still being planned")
    if found["skipped"]:
        lines.append(f"skipped: {_told_skipped(found)}")
    return "\n".join(lines)


def _age(seconds: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


# units


@command.command(
    "units",
    short_help="Each device: its state, its age, its problem.",
    epilog="Exit codes: 0 shown, 2 wrong use, no connection or no permission.",
)
@click.argument("replacement_id", metavar="ID")
@click.option("--state", metavar="STATE", help="Only units in this state, such as DELIVERED.")
@click.option("--stuck", is_flag=True, help="Only devices that have not gone on for long.")
@click.option("--problems", is_flag=True, help="Only units with a problem.")
@click.option("--thing", metavar="NAME", help="Only this thing, with all its steps and their evidence.")
@api_options
@json_option
def units(
    replacement_id: str,
    state: str | None,
    stuck: bool,
    problems: bool,
    thing: str | None,
    endpoint_url: str,
    aws_profile: str | None,
    region: str | None,
    as_json: bool,
) -> int:
    """List the units of the replacement ID.

    \b
    Examples:
      keyassay replace units 6f1c... --stuck
      keyassay replace units 6f1c... --state UNREACHABLE --json
      keyassay replace units 6f1c... --thing pump-17
    """  # noqa: D301  \b is click's mark for lines to keep
    ask = _asker(endpoint_url, aws_profile, region)
    query: dict[str, Any] = {"state": state.upper() if state else None, "stuck": stuck, "withProblem": problems}
    query = {name: value for name, value in {**query, "thingName": thing}.items() if value}
    with asking(endpoint_url):
        rows = list(_every(ask, _one(replacement_id, "units"), "units", query))
        steps = list(_every(ask, _one(replacement_id, "steps"), "steps", {"thingName": thing})) if thing else []
    if as_json:
        click.echo(json.dumps({"units": rows, "steps": steps} if thing else rows, indent=2))
        return 0
    shown = [
        (
            visible(one["thingName"] or "(no thing)"),
            one["certificateId"],
            one["state"] + (" (stuck)" if one["stuck"] else ""),
            _age(one["ageSeconds"]),
            visible(one.get("problem") or ""),
        )
        for one in rows
    ]
    click.echo(table(("thing", "old certificate", "state", "since", "problem"), shown) if shown else "no units")
    if steps:
        told = [(_moment(one["at"]), one["step"], visible(_evidence(one["evidence"]))) for one in steps]
        click.echo("\n" + table(("at", "step", "evidence"), told))
    return 0


def _evidence(evidence: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in evidence.items())


# pause, resume, cancel, retry


def _steering(function: Command) -> Command:
    return click.argument("replacement_id", metavar="ID")(api_options(json_option(function)))


def _steer(what: str, replacement_id: str, body: Mapping[str, Any], given: Mapping[str, Any]) -> int:
    ask = _asker(given["endpoint_url"], given["aws_profile"], given["region"])
    with asking(given["endpoint_url"]):
        found = ask(_one(replacement_id, what), body)
    click.echo(json.dumps(found) if given["as_json"] else f"{found['replacementId']}  {found['status']}")
    return 0


@command.command("pause", short_help="Begin nothing and touch no old certificate for now.")
@_steering
def pause(replacement_id: str, **given: Any) -> int:
    """Pause the replacement ID: nothing is begun, issued, deactivated or revoked until `resume`.

    \b
    Example:
      keyassay replace pause 6f1c...
    """  # noqa: D301  \b is click's mark for lines to keep
    return _steer("pause", replacement_id, {}, given)


@command.command("resume", short_help="Go on with one that is paused or halted.")
@_steering
def resume(replacement_id: str, **given: Any) -> int:
    """Let the replacement ID go on; failures that there are already do not halt it again.

    \b
    Example:
      keyassay replace resume 6f1c...
    """  # noqa: D301  \b is click's mark for lines to keep
    return _steer("resume", replacement_id, {}, given)


@command.command("cancel", short_help="Roll back what is not revoked yet.")
@click.option("--thing", metavar="NAME", help="Roll back only this thing; the replacement goes on.")
@_steering
def cancel(replacement_id: str, thing: str | None, **given: Any) -> int:
    """Roll back the replacement ID: old certificates are ACTIVE again, new ones INACTIVE and detached.

    What is revoked stays revoked. Devices need their old keys then: roll back only what cannot work.

    \b
    Examples:
      keyassay replace cancel 6f1c...
      keyassay replace cancel 6f1c... --thing pump-17
    """  # noqa: D301  \b is click's mark for lines to keep
    return _steer("cancel", replacement_id, {"thingName": thing} if thing else {}, given)


@command.command("retry", short_help="Let a unit that is halted or failed go on, or begin anew.")
@click.option("--thing", required=True, metavar="NAME", help="Whose unit.")
@click.option("--afresh", is_flag=True, help="Give up its new certificate; the device may ask with another request.")
@_steering
def retry(replacement_id: str, thing: str, afresh: bool, **given: Any) -> int:
    """Let a HALTED or FAILED unit of the replacement ID go on where it was.

    \b
    Examples:
      keyassay replace retry 6f1c... --thing pump-17
      keyassay replace retry 6f1c... --thing pump-17 --afresh
    """  # noqa: D301  \b is click's mark for lines to keep
    return _steer("retry", replacement_id, {"thingName": thing, "afresh": afresh}, given)


# policy


@command.command(
    "policy",
    short_help="Let audits start replacements by themselves, or see whether they do.",
    epilog="Exit codes: 0 shown or set, 2 wrong use, no policy yet, no connection or no permission.",
)
@click.option("--enable/--disable", "enable", default=None, help="Whether audits start replacements from now on.")
@click.option("--group", metavar="GROUP", help="Only of things of this group, or of one below it.")
@_settings_options
@api_options
@json_option
def policy(enable: bool | None, group: str | None, **given: Any) -> int:
    """For findings of class broken: start a replacement when the audit ends. Without --enable or --disable it is shown.

    \b
    Examples:
      keyassay replace policy
      keyassay replace policy --enable --proof secret --batch 50
      keyassay replace policy --disable
    """  # noqa: D301  \b is click's mark for lines to keep
    ask = _asker(given["endpoint_url"], given["aws_profile"], given["region"])
    settings = _settings(given)
    if enable is None and (settings or group):
        raise click.UsageError("settings need --enable")
    if enable:
        _check_proof(given)
    with asking(given["endpoint_url"]):
        if enable is None:
            found = ask(_POLICY, method="GET")
        else:
            body = {"enabled": enable, **settings, **({"thingGroupName": group} if group else {})}
            found = ask(_POLICY, body, method="PUT")
    if given["as_json"]:
        click.echo(json.dumps(found, indent=2))
        return 0
    rows: Sequence[tuple[str, str]] = [(name, str(value)) for name, value in found.get("settings", {}).items()]
    click.echo(f"audits {'start' if found['enabled'] else 'do not start'} replacements")
    if found.get("problem"):
        click.echo(f"they wait at present: {found['problem']}")
    if rows:
        click.echo("\n" + table(("setting", "value"), rows))
    return 0


for _one_of_proofs in proofs.COMMANDS:
    command.add_command(_one_of_proofs)
