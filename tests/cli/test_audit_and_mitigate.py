"""``keyassay audit`` and ``keyassay mitigate`` against a running server, whose workers do what they ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import fleet_keys
import weak_devices
from auditing import DEVICE_KEYS, ROCA
from live_server import client, running
from two_accounts import SECRET, A

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Place:
    """A server with a weak certificate of two things, and a sound one."""

    api: Any
    where: tuple[str, ...]
    weak: str
    sound: str


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", A.name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with running(tmp_path, screening="off") as server:
        api = client(server)
        weak, sound = weak_devices.roca_device(), fleet_keys.device()
        for one in (weak, sound):
            api.register_certificate_without_ca(certificatePem=one.pem, status="ACTIVE")
        api.create_thing_group(thingGroupName="quarantine")
        arn = api.describe_certificate(certificateId=weak.id)["certificateDescription"]["certificateArn"]
        for name in ("pump-1", "pump-2"):
            api.create_thing(thingName=name)
            api.attach_thing_principal(thingName=name, principal=arn)
        yield Place(api, ("--endpoint-url", server.addresses[0]), weak.id, sound.id)


def status(place: Place, certificate_id: str) -> str:
    found = place.api.describe_certificate(certificateId=certificate_id)
    return str(found["certificateDescription"]["status"])


def test_the_whole_way(keyassay: Any, place: Place) -> None:
    """Audit, findings, a plan that changes nothing, mitigation, what became of it; then nothing is left to find."""
    not_enabled = keyassay("audit", "run", *place.where)
    assert (not_enabled.code, "--enable" in not_enabled.err) == (2, True)
    none = keyassay("mitigate", "--latest", "--deactivate", *place.where)
    assert (none.code, "keyassay audit run" in none.err) == (2, True)

    audited = keyassay("audit", "run", "--enable", *place.where)
    assert audited.code == 1, audited.err
    assert re.search(rf"{DEVICE_KEYS} +COMPLETED_NON_COMPLIANT +1 +2", audited.out)
    assert re.search(rf"CRITICAL +{ROCA} +{place.weak}", audited.out)
    task = audited.out.split()[1]
    listed = json.loads(keyassay("audit", "list", "--json", *place.where).out)
    assert [one["taskId"] for one in listed] == [task]
    assert keyassay("audit", "show", task, *place.where).out == audited.out
    too_late = keyassay("audit", "cancel", task, *place.where)
    assert (too_late.code, "InvalidRequestException" in too_late.err) == (2, True)
    (finding,) = json.loads(keyassay("audit", "findings", "--latest", "--json", *place.where).out)
    assert finding["taskId"] == task
    of_one = keyassay("audit", "findings", "--days", "1", "--certificate", place.sound, *place.where)
    assert (of_one.code, of_one.out) == (0, "no findings\n")

    actions = ("--add-to-group", "quarantine", "--deactivate")
    plan = keyassay("mitigate", "--latest", *actions, "--dry-run", *place.where)
    assert plan.code == 0, plan.err
    assert f"thing pump-1, pump-2 of certificate {place.weak} joins quarantine" in plan.out
    assert f"certificate {place.weak} becomes INACTIVE" in plan.out
    assert "1 device certificates with 2 things. Nothing was changed." in plan.out
    assert status(place, place.weak) == "ACTIVE"
    assert place.api.list_mitigation_actions()["actionIdentifiers"] == []

    done = keyassay("mitigate", "--latest", *actions, *place.where)
    assert done.code == 0, done.err
    assert re.search(rf"{DEVICE_KEYS} +1 +1 +0 +0 +0", done.out)
    assert (status(place, place.weak), status(place, place.sound)) == ("INACTIVE", "ACTIVE")
    assert sorted(place.api.list_things_in_thing_group(thingGroupName="quarantine")["things"]) == ["pump-1", "pump-2"]
    names = [one["actionName"] for one in place.api.list_mitigation_actions()["actionIdentifiers"]]
    assert len(names) == 2  # the one for authorities was not needed
    shown = keyassay("mitigate", "--show", done.out.split()[1], "--json", *place.where)
    assert (shown.code, json.loads(shown.out)["taskStatus"]) == (0, "COMPLETED")

    again = keyassay("audit", "run", "--json", *place.where)
    assert again.code == 0
    details = json.loads(again.out)["auditDetails"][DEVICE_KEYS]
    assert (details["checkRunStatus"], details["totalResourcesCount"]) == ("COMPLETED_COMPLIANT", 1)


def test_what_is_suppressed_is_skipped_and_what_fails_is_told(keyassay: Any, place: Place) -> None:
    first = json.loads(keyassay("audit", "run", "--enable", "--json", *place.where).out)
    (finding,) = first["findings"]
    both = keyassay("audit", "suppress", finding["findingId"], "--until", "x", "--indefinitely", *place.where)
    assert both.code == 2
    place.api.create_mitigation_action(
        actionName="away",
        roleArn="arn:aws:iam::111111111111:role/mitigation",
        actionParams={"addThingsToThingGroupParams": {"thingGroupNames": ["nowhere"]}},
    )
    by_finding = ("--finding", finding["findingId"])
    failed = keyassay("mitigate", *by_finding, "--action", "away", *place.where)
    assert failed.code == 1, failed.err
    assert re.search(rf"{finding['findingId']} +away +\S", failed.out)
    unfit = keyassay("mitigate", *by_finding, "--check", "LOGGING_DISABLED_CHECK", "--action", "away", *place.where)
    assert (unfit.code, "nothing to do" in unfit.err) == (2, True)
    unknown = keyassay("mitigate", *by_finding, "--action", "unheard-of", *place.where)
    assert (unknown.code, "ResourceNotFoundException" in unknown.err) == (2, True)
    forbidden = keyassay("mitigate", *by_finding, "--publish", "https://elsewhere.example/", "--dry-run", *place.where)
    assert (forbidden.code, "is published to https://elsewhere.example/" in forbidden.out) == (0, True)

    suppressed = keyassay("audit", "suppress", finding["findingId"], "--indefinitely", *place.where)
    assert suppressed.code == 0, suppressed.err
    second = keyassay("audit", "run", *place.where)
    assert second.code == 0
    assert re.search(r"COMPLETED_COMPLIANT +0 +2 +1", second.out)
    skipped = keyassay("mitigate", "--latest", "--deactivate", "--dry-run", *place.where)
    assert f"{place.weak}: nothing, the finding is suppressed" in skipped.out
    done = keyassay("mitigate", "--latest", "--deactivate", *place.where)
    assert re.search(rf"{DEVICE_KEYS} +1 +0 +0 +1 +0", done.out)
    assert status(place, place.weak) == "ACTIVE"


def test_wrong_use(keyassay: Any) -> None:
    for words in (
        ("mitigate",),
        ("mitigate", "--latest"),
        ("mitigate", "--latest", "--audit", "a", "--deactivate"),
        ("mitigate", "--finding", "a", "--reason", "b", "--deactivate"),
        ("mitigate", "--show", "a", "--deactivate"),
        ("audit", "findings"),
        ("audit", "suppress", "a"),
        ("audit", "suppress", "a", "--until", "soon"),
    ):
        assert keyassay(*words).code == 2
