"""``keyassay replace`` against a running server, whose worker carries it through."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import replacing
from keyassay.registry.registry import Registry
from keyassay.replacement import campaigns
from keyassay.replacement.states import State
from keyassay.storage import leases
from live_server import client, running
from two_accounts import SECRET, A

pytestmark = pytest.mark.slow

Place = tuple[Registry, tuple[str, ...], Any]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A registry with its server, and how commands find it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", A.name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with running(tmp_path, screening="off") as server:
        yield server.registry, ("--endpoint-url", server.addresses[0]), client(server)


def wait_for(registry: Registry, replacement_id: str, thing: str, *wanted: State) -> None:
    end = time.monotonic() + 30
    while replacing.unit(registry, replacement_id, thing).state not in wanted:
        assert time.monotonic() < end, replacing.states(registry, replacement_id)
        time.sleep(0.05)


def test_the_whole_way(keyassay: Any, place: Place) -> None:
    registry, where, _ = place
    none = keyassay("replace", "status", *where)
    assert (none.code, "replace start" in none.err) == (2, True)
    old = replacing.old_device(registry, "pump-1", "pump-2")
    alone = replacing.old_device(registry)
    selection = ("--certificate", old, "--certificate", alone, "--certificate", "f" * 64)
    unproven = keyassay("replace", "start", *selection, *where)
    assert (unproven.code, "--trust-old-key" in unproven.err) == (2, True)

    plan = keyassay("replace", "start", *selection, "--dry-run", *where)
    assert plan.code == 0, plan.err
    assert "2 certificates (1 shared) with 2 things: 2 replacements" in plan.out
    assert "1 certificates without a thing" in plan.out
    assert "skipped: 1 not registered" in plan.out
    assert re.search(rf"thing +pump-1 +{old}", plan.out)
    assert re.search(r"policy +connect +1 certificates", plan.out)

    started = keyassay(
        "replace", "start", *selection, "--trust-old-key", "--grace", "0s", "--halt-on-failures", "5%", "--yes", *where
    )
    assert started.code == 0, started.err
    replacement_id = started.out.strip()
    for name in ("pump-1", "pump-2"):
        end = time.monotonic() + 30
        while not replacing.unit(registry, replacement_id, name).batch:
            assert time.monotonic() < end
            time.sleep(0.05)
        new = replacing.issue(registry, replacing.unit(registry, replacement_id, name))
        replacing.connect(registry, new, name)
        wait_for(registry, replacement_id, name, State.CONNECTED, State.DONE)
    done = keyassay("replace", "status", "--wait", *where)
    assert done.code == 0, done.err
    assert f"replacement {replacement_id}  COMPLETED" in done.out
    assert re.search(r"weak +2 +0 +#{30}", done.out)
    assert re.search(r"done +2 +2 +#{30}", done.out)
    assert "1 no thing" in done.out
    shown = json.loads(keyassay("replace", "status", replacement_id, "--json", *where).out)
    assert shown["settings"]["haltOnFailures"] == 5
    assert shown["funnel"]["CONNECTED"] == 2
    steps = keyassay("replace", "units", replacement_id, "--thing", "pump-1", *where)
    assert re.search(r"CONNECTED +connectionId=", steps.out)
    assert replacing.status_of(registry, old) == "REVOKED"
    listed = json.loads(keyassay("replace", "status", "--all", "--json", *where).out)
    assert [one["replacementId"] for one in listed] == [replacement_id]


def test_pause_resume_cancel_and_retry(keyassay: Any, place: Place) -> None:
    registry, where, _ = place
    old = replacing.old_device(registry, "pump-1")
    started = keyassay("replace", "start", "--certificate", old, "--proof", "approval", "--yes", "--json", *where)
    replacement_id = json.loads(started.out)["replacementId"]
    for what, status in (("pause", "PAUSED"), ("resume", "RUNNING"), ("cancel", "CANCELED")):
        told = keyassay("replace", what, replacement_id, *where)
        assert (told.code, told.out) == (0, f"{replacement_id}  {status}\n")
    wait_for(registry, replacement_id, "pump-1", State.ROLLED_BACK)
    assert keyassay("replace", "status", *where).code == 1
    refused = keyassay("replace", "retry", replacement_id, "--thing", "pump-1", *where)
    assert (refused.code, "ResourceNotFoundException" in refused.err) == (2, True)
    nothing = keyassay("replace", "start", "--certificate", "f" * 64, "--trust-old-key", "--yes", *where)
    assert (nothing.code, "1 not registered" in nothing.out) == (1, True)


def test_the_policy(keyassay: Any, place: Place) -> None:
    _, where, _ = place
    assert keyassay("replace", "policy", *where).code == 2
    assert keyassay("replace", "policy", "--enable", *where).code == 2
    told = keyassay("replace", "policy", "--enable", "--proof", "secret", "--batch", "7", *where)
    assert told.code == 0, told.err
    shown = json.loads(keyassay("replace", "policy", "--json", *where).out)
    assert (shown["enabled"], shown["settings"]["batch"], shown["settings"]["proof"]) == (True, 7, "secret")
    assert keyassay("replace", "policy", "--disable", *where).code == 0
    shown = json.loads(keyassay("replace", "policy", "--json", *where).out)
    assert (shown["enabled"], shown["settings"]["batch"]) == (False, 7)


def test_nothing_is_begun_for_a_hook_that_nobody_runs(keyassay: Any, place: Place, tmp_path: Path) -> None:
    registry, where, _ = place
    selection = ("--certificate", replacing.old_device(registry, "pump-1"), "--trust-old-key", "--issuer", "hook")
    refused = keyassay("replace", "start", *selection, "--yes", *where)
    assert (refused.code, "--issuing-hook" in refused.err, refused.out) == (2, True, "")
    assert "NotConfiguredException" in refused.err
    policy = keyassay("replace", "policy", "--enable", "--trust-old-key", "--issuer", "hook", *where)
    assert (policy.code, "--issuing-hook" in policy.err) == (2, True)
    with running(tmp_path, screening="off", issuing_hook="false"):  # another server, with a hook
        end = time.monotonic() + 20
        while (started := keyassay("replace", "start", *selection, "--yes", *where)).code:
            assert time.monotonic() < end, started.err
            time.sleep(0.1)
        assert keyassay("replace", "policy", "--enable", "--trust-old-key", "--issuer", "hook", *where).code == 0
    leases.announce(registry.database, campaigns.HOOK, "test", 0)  # it was long ago
    assert "they wait at present: no issuing hook" in keyassay("replace", "policy", *where).out
