"""Replacements as a whole: batches, halts, pauses, the way back, retries, and what a selection plans."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from sqlalchemy import update

import audit_findings
import replacing
from audit_findings import DEVICE_KEYS, Found, device
from keyassay.registry import certificates, memberships, principals, thing_groups, things
from keyassay.registry.errors import InvalidError, NotFoundError, TaskExistsError
from keyassay.registry.registry import Registry
from keyassay.replacement import automatic, campaigns, planning, units
from keyassay.replacement.planning import START, Selection
from keyassay.replacement.states import State
from keyassay.storage import schema
from replacing import connect, issue, old_device, start, status_of, unit, work
from two_accounts import A, B, Rows

_U = schema.replacement_units.c


def status(registry: Registry, replacement_id: str) -> str:
    row, _ = campaigns.describe(registry, A, replacement_id, 0)
    return str(row["status"])


def make_older(registry: Registry, seconds: int, **conditions: Any) -> None:
    """Let units have been in their states for longer."""
    with registry.database.write(A) as transaction:
        change = update(schema.replacement_units).filter_by(**conditions)
        transaction.execute(change.values(state_at=_U.state_at - 1_000 * seconds))


# Settings and selections


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"proof": "old-key"},
        {"proof": "password"},
        {"proof": "secret", "trustOldKey": True},
        {"proof": "secret", "batch": 0},
        {"proof": "secret", "haltOnFailures": 101},
        {"proof": "secret", "graceSeconds": -1},
        {"proof": "secret", "issuer": "somebody"},
    ],
)
def test_settings_that_are_refused(registry: Registry, settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        campaigns.start(registry, A, {"certificateIds": ["f" * 64]}, settings, "token")


@pytest.mark.parametrize(
    "selection",
    [
        {},
        {"certificateIds": ["f" * 64], "auditTaskId": "x"},
        {"certificateIds": ["short"]},
        {"auditTaskId": "unknown"},
        {"findingIds": ["unknown"]},
        {"certificateIds": ["f" * 64], "thingGroupName": "unknown"},
        {"certificateIds": ["f" * 64], "brokenOnly": True},
        {"auditTaskId": "x", "checkNames": ["NO_CHECK"]},
        {"certificateIds": [f"{number:064x}" for number in range(1_001)]},
    ],
)
def test_selections_that_are_refused(registry: Registry, rows: Rows, selection: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        campaigns.start(registry, A, selection, replacing.SETTINGS, "token")
    with pytest.raises(InvalidError):
        campaigns.plan(registry, A, selection)
    assert rows.all("replacements") == []


def test_the_same_token_is_the_same_replacement(registry: Registry, rows: Rows) -> None:
    old = old_device(registry, "pump-1")
    asked = {"certificateIds": [old]}
    first = campaigns.start(registry, A, asked, replacing.SETTINGS, "token")
    work(registry)
    campaigns.pause(registry, A, first)
    campaigns.resume(registry, A, first)
    assert campaigns.start(registry, A, asked, replacing.SETTINGS, "token") == first
    with pytest.raises(TaskExistsError):
        campaigns.start(registry, A, asked, {**replacing.SETTINGS, "batch": 7}, "token")
    with pytest.raises(TaskExistsError):
        campaigns.start(registry, A, {"certificateIds": ["f" * 64]}, replacing.SETTINGS, "token")
    assert len(rows.all("replacements")) == 1


def test_an_audit_s_certificates_without_suppressed_ones(registry: Registry) -> None:
    weak, suppressed, expiring, sound = (old_device(registry, f"thing-{number}") for number in range(4))
    found = [
        device(weak),
        device(weak, code="ANOTHER"),
        device(suppressed, suppressed=True),
        Found("DEVICE_CERTIFICATE_EXPIRING_CHECK", {"deviceCertificateId": expiring}),
        Found(audit_findings.LOGGING, {"account": A.account_id}),
    ]
    task = audit_findings.audit(registry, found)
    plan = campaigns.plan(registry, A, {"auditTaskId": task})
    assert {one.old_certificate_id for one in plan.examples} == {weak, expiring}
    only = campaigns.plan(registry, A, {"auditTaskId": task, "checkNames": [DEVICE_KEYS]})
    assert [one.old_certificate_id for one in only.examples] == [weak]
    named = campaigns.plan(registry, A, {"findingIds": [found[0].id, found[2].id]})
    assert {one.old_certificate_id for one in named.examples} == {weak, suppressed}  # who names it wants it
    with pytest.raises(InvalidError):
        campaigns.plan(registry, A, {"findingIds": [found[4].id]})
    with pytest.raises(InvalidError):
        campaigns.plan(registry, B, {"auditTaskId": task})
    assert sound not in {one.old_certificate_id for one in plan.examples}


def test_what_would_be_touched(registry: Registry) -> None:
    shared = old_device(registry, "a", "b")
    single = old_device(registry, "c")
    alone = old_device(registry)
    inactive = old_device(registry, "d")
    certificates.set_status(registry, A, inactive, "INACTIVE")
    thing_groups.create(registry, A, "group")
    thing_groups.create(registry, A, "below", parent="group")
    memberships.add(registry, A, "a", "group")
    memberships.add(registry, A, "c", "below")
    connect(registry, shared, "b")
    connect(registry, single, "some other client id")
    connect(registry, inactive, "d", ended=True)
    ids = [shared, single, alone, inactive]
    plan = campaigns.plan(registry, A, {"certificateIds": ids})
    assert (plan.certificates, plan.shared, plan.units, plan.things) == (4, 1, 4, 4)
    assert (plan.without_thing, plan.unreachable, plan.connected) == (1, 1, 2)
    assert (dict(plan.policies), dict(plan.groups)) == ({"connect": 3}, {"group": 1, "below": 1})
    of_group = campaigns.plan(registry, A, {"certificateIds": ids, "thingGroupName": "group"})
    assert {one.thing_name for one in of_group.examples} == {"a", "c"}
    assert of_group.without_thing == 0


@pytest.mark.parametrize("size", [2, 3, 5, 50])
def test_chunks_leave_nothing_out_and_plan_nothing_twice(registry: Registry, size: int) -> None:
    ids = [old_device(registry, *(f"t{number}-{count}" for count in range(number))) for number in range(5)]
    with registry.database.read() as connection:
        selection = Selection.read({"certificateIds": [*ids, "0" * 64, "f" * 64]})
        whole = planning.chunk(connection, A.account_id, selection, START, 1_000)
        position: planning.Position | None = START
        found: list[Any] = []
        skipped: list[Any] = []
        while position is not None:
            piece = planning.chunk(connection, A.account_id, selection, position, size)
            found += piece.units
            skipped += piece.skipped
            position = piece.position
    assert len(found) == len(set(found)) == 11
    assert sorted(found, key=str) == sorted(whole.units, key=str)
    assert sorted(skipped) == sorted(whole.skipped)


def test_a_large_selection_is_planned_by_the_worker(
    registry: Registry, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "CHUNK", 3)
    monkeypatch.setattr(planning.chunk, "__defaults__", (3,))
    ids = [old_device(registry, f"thing-{number}") for number in range(8)]
    replacement_id = start(registry, *ids)
    assert 0 < len(rows.all("replacement_units")) < 8
    work(registry)
    assert len(replacing.states(registry, replacement_id)) == 8
    assert sum(replacing.notified(rows).values()) == 8


# Batches and halts


def test_a_batch_has_so_many_places(registry: Registry, rows: Rows) -> None:
    ids = [old_device(registry, f"thing-{number}") for number in range(6)]
    replacement_id = start(registry, *ids, batch=2, haltOnFailures=100)
    doing = replacing.worker(registry)
    for done in range(3):
        work(registry, doing)
        begun = [one for one in rows.all("replacement_units") if one["batch"] and one["state"] == "PLANNED"]
        assert len(begun) == 2
        for row in begun:
            found = unit(registry, replacement_id, row["thing_name"])
            connect(registry, issue(registry, found), row["thing_name"])
        work(registry, doing)
        assert list(replacing.states(registry, replacement_id).values()).count("DONE") == 2 * (done + 1)
    assert status(registry, replacement_id) == "COMPLETED"


def test_silent_devices_do_not_hold_up_the_others(registry: Registry, rows: Rows) -> None:
    ids = [old_device(registry, f"thing-{number}") for number in range(3)]
    replacement_id = start(registry, *ids, batch=1)
    work(registry)
    assert sum(replacing.notified(rows).values()) == 1
    make_older(registry, 61, batch=1)
    work(registry)
    assert sum(replacing.notified(rows).values()) == 2
    make_older(registry, 3_600, batch=1)
    row, found = campaigns.describe(registry, A, replacement_id, rows.all("replacement_units", batch=2)[0]["state_at"])
    assert (found.stuck, found.failed, row["status"]) == (1, 0, "RUNNING")


def test_too_many_failures_halt_the_replacement(registry: Registry, rows: Rows) -> None:
    ids = [old_device(registry, f"thing-{number}") for number in range(10)]
    replacement_id = start(registry, *ids, batch=4, haltOnFailures=25, stuckAfterSeconds=60)
    work(registry)
    begun = [row["thing_name"] for row in rows.all("replacement_units") if row["batch"]]
    for name in begun[:2]:
        issue(registry, unit(registry, replacement_id, name))
    make_older(registry, 61, thing_name=begun[0])
    work(registry)
    assert status(registry, replacement_id) == "RUNNING"  # one of four is 25 %
    make_older(registry, 61, thing_name=begun[1])
    work(registry)
    row, found = campaigns.describe(registry, A, replacement_id, rows.all("replacement_units")[0]["state_at"])
    assert row["status"] == "HALTED"
    assert "have failed" in row["problem"]
    assert [one["kind"] for one in rows.all("alerts")] == ["replacement-halted"]
    begun_before = found.begun
    work(registry)
    assert campaigns.describe(registry, A, replacement_id, 0)[1].begun == begun_before
    campaigns.resume(registry, A, replacement_id)
    work(registry)
    assert status(registry, replacement_id) == "RUNNING"


def test_a_pause_touches_no_old_certificate(registry: Registry) -> None:
    old = old_device(registry, "pump-1")
    replacement_id = start(registry, old)
    work(registry)
    connect(registry, issue(registry, unit(registry, replacement_id, "pump-1")), "pump-1")
    campaigns.pause(registry, A, replacement_id)
    work(registry)
    assert unit(registry, replacement_id, "pump-1").state is State.CONNECTED  # seeing changes nothing
    assert status_of(registry, old) == "ACTIVE"
    campaigns.resume(registry, A, replacement_id)
    work(registry)
    assert status_of(registry, old) == "REVOKED"
    with pytest.raises(InvalidError):
        campaigns.pause(registry, A, replacement_id)
    with pytest.raises(InvalidError):
        campaigns.cancel(registry, A, replacement_id)
    with pytest.raises(NotFoundError):
        campaigns.pause(registry, B, replacement_id)


# The way back


def bring(registry: Registry, replacement_id: str, thing: str, state: State) -> str | None:
    """Bring a unit to a state; its new certificate. The replacement has a grace that does not end by itself."""
    work(registry)
    if state is State.PLANNED:
        return None
    found = unit(registry, replacement_id, thing)
    new = replacing.register(registry, thing, status="INACTIVE")
    with registry.database.write(A) as transaction:
        found = units.issued(transaction, found, uuid.uuid4().hex, new, {})
        if state is not State.ISSUED:
            found = units.attach(transaction, found)
        if state not in (State.ISSUED, State.ATTACHED):
            found = units.delivered(transaction, found, {})
        if state is State.HALTED:
            units.halt(transaction, found, "a second request", {"addresses": ["192.0.2.1", "192.0.2.2"]})
        if state is State.FAILED:
            units.fail(transaction, found, "no more")
    if state in (State.CONNECTED, State.OLD_INACTIVE):
        connect(registry, new, thing)
        if state is State.OLD_INACTIVE:
            work(registry)
    assert unit(registry, replacement_id, thing).state in (state, State.DELIVERED)
    return new


BEFORE_REVOKED = [
    State.PLANNED, State.ISSUED, State.ATTACHED, State.DELIVERED, State.CONNECTED, State.OLD_INACTIVE, State.HALTED,
    State.FAILED,
]  # fmt: skip


@pytest.mark.parametrize("state", BEFORE_REVOKED)
@pytest.mark.parametrize("one", [True, False])
def test_rolled_back_in_each_state(registry: Registry, rows: Rows, state: State, one: bool) -> None:
    old = old_device(registry, "pump-1")
    replacement_id = start(registry, old, graceSeconds=3_600)
    new = bring(registry, replacement_id, "pump-1", state)
    if one:
        campaigns.roll_back(registry, A, replacement_id, "pump-1")
    else:
        campaigns.cancel(registry, A, replacement_id)
        campaigns.cancel(registry, A, replacement_id)
    work(registry)
    assert unit(registry, replacement_id, "pump-1").state is State.ROLLED_BACK
    assert status_of(registry, old) == "ACTIVE"
    assert replacing.things_of(rows, old) == ["pump-1"]
    assert replacing.policies_of(rows, old) == ["connect"]
    if new is not None:
        assert status_of(registry, new) == "INACTIVE"
        assert (replacing.things_of(rows, new), replacing.policies_of(rows, new)) == ([], [])
    row, _ = campaigns.describe(registry, A, replacement_id, 0)
    assert (row["status"], row["ended_at"] is not None) == ("COMPLETED" if one else "CANCELED", True)
    assert rows.operations()[-1] == ("CompleteReplacement" if one else "RolledBackReplacement")
    again = start(registry, old)  # nothing is left that hinders another one
    assert replacing.states(registry, again) == {"pump-1": "PLANNED"}


def test_what_is_revoked_stays_so_when_canceled(registry: Registry, rows: Rows) -> None:
    done, open_ = old_device(registry, "done"), old_device(registry, "open")
    replacement_id = start(registry, done, open_)
    work(registry)
    connect(registry, issue(registry, unit(registry, replacement_id, "done")), "done")
    doing = replacing.worker(registry)
    end = 20
    while status_of(registry, done) != "REVOKED" and end:
        doing.turn()
        end -= 1
    campaigns.cancel(registry, A, replacement_id)
    work(registry, doing)
    doing.close()
    assert replacing.states(registry, replacement_id) == {"done": "DONE", "open": "ROLLED_BACK"}
    assert (status_of(registry, done), status_of(registry, open_)) == ("REVOKED", "ACTIVE")
    assert replacing.things_of(rows, done) == []


def test_a_device_whose_old_certificate_is_lost_keeps_its_new_one(registry: Registry, rows: Rows) -> None:
    old = old_device(registry, "pump-1")
    certificates.set_status(registry, A, old, "INACTIVE")  # by a mitigation
    replacement_id = start(registry, old, graceSeconds=3_600)
    new = issue(registry, unit(registry, replacement_id, "pump-1"))
    connect(registry, new, "pump-1")
    work(registry)
    campaigns.cancel(registry, A, replacement_id)
    work(registry)
    back = unit(registry, replacement_id, "pump-1")
    assert back.state is State.ROLLED_BACK
    assert back.evidence["ROLLED_BACK"]["newKept"]
    assert (status_of(registry, old), status_of(registry, new)) == ("INACTIVE", "ACTIVE")
    assert replacing.things_of(rows, new) == ["pump-1"]


def test_a_shared_certificate_is_active_again_for_all(registry: Registry) -> None:
    old = old_device(registry, "a", "b")
    replacement_id = start(registry, old, graceSeconds=3_600)
    work(registry)
    news = {}
    for name in ("a", "b"):
        news[name] = issue(registry, unit(registry, replacement_id, name))
        connect(registry, news[name], name)
    work(registry)
    assert replacing.states(registry, replacement_id) == {"a": "OLD_INACTIVE", "b": "OLD_INACTIVE"}
    campaigns.roll_back(registry, A, replacement_id, "a")
    assert status_of(registry, old) == "ACTIVE"
    work(registry)
    # a uses the old one again, so that it cannot be taken away from b either
    assert replacing.states(registry, replacement_id) == {"a": "ROLLED_BACK", "b": "CONNECTED"}
    assert replacing.steps(registry, replacement_id, "b")[-1] == "OLD_ACTIVE_AGAIN"
    assert status_of(registry, old) == "ACTIVE"
    assert status_of(registry, news["b"]) == "ACTIVE"


def test_an_old_certificate_that_somebody_activates_again_halts(registry: Registry, rows: Rows) -> None:
    old = old_device(registry, "pump-1")
    replacement_id = start(registry, old, graceSeconds=3_600)
    bring(registry, replacement_id, "pump-1", State.OLD_INACTIVE)
    certificates.set_status(registry, A, old, "ACTIVE")
    with registry.database.write(A) as transaction:
        row = campaigns.find(transaction.connection, A.account_id, replacement_id)
        campaigns.change(transaction, replacement_id, settings={**row["settings"], "graceSeconds": 0})
    work(registry)
    assert unit(registry, replacement_id, "pump-1").state is State.HALTED
    assert status_of(registry, old) == "ACTIVE"
    assert len(rows.all("alerts")) == 1
    campaigns.retry(registry, A, replacement_id, "pump-1")
    work(registry)
    assert unit(registry, replacement_id, "pump-1").state is State.DONE
    assert replacing.steps(registry, replacement_id, "pump-1").count("OLD_INACTIVE") == 2


@pytest.mark.parametrize("afresh", [True, False])
def test_a_halted_unit_goes_on_or_begins_anew(registry: Registry, rows: Rows, afresh: bool) -> None:
    old = old_device(registry, "pump-1")
    replacement_id = start(registry, old)
    new = bring(registry, replacement_id, "pump-1", State.HALTED)
    assert new is not None
    request_id = unit(registry, replacement_id, "pump-1").request_id
    connect(registry, new, "pump-1")
    work(registry)
    assert unit(registry, replacement_id, "pump-1").state is State.HALTED
    campaigns.retry(registry, A, replacement_id, "pump-1", afresh=afresh)
    found = unit(registry, replacement_id, "pump-1")
    work(registry)
    if not afresh:
        assert unit(registry, replacement_id, "pump-1").state is State.DONE
        return
    assert (found.state, found.new_certificate_id, found.csr_digest) == (State.PLANNED, None, None)
    assert found.request_id != request_id
    assert status_of(registry, new) == "INACTIVE"
    assert replacing.notified(rows) == {"pump-1": 2}
    second = issue(registry, unit(registry, replacement_id, "pump-1"))
    connect(registry, second, "pump-1")
    work(registry)
    assert unit(registry, replacement_id, "pump-1").state is State.DONE
    with pytest.raises(NotFoundError):
        campaigns.retry(registry, A, replacement_id, "pump-1")


# By itself


def test_an_audit_that_ends_starts_a_replacement(registry: Registry, rows: Rows) -> None:
    broken, weak = old_device(registry, "broken"), old_device(registry, "weak")
    before = audit_findings.audit(registry, [device(broken)])
    _judge(registry, before, broken, "broken")
    automatic.set_policy(registry, A, enabled=True, settings=replacing.SETTINGS)
    task = audit_findings.audit(registry, [device(broken), device(weak)], status="IN_PROGRESS")
    _judge(registry, task, broken, "broken")
    _judge(registry, task, weak, "weak")
    screening = audit_findings.audit(registry, [device(weak)])
    assert automatic.follow(registry, "here", None) is False
    _end(registry, task)
    _end(registry, screening, id="screening-20261126")
    assert automatic.follow(registry, "here", None) is True
    assert automatic.follow(registry, "here", None) is False
    (row,) = rows.all("replacements")
    assert row["selection"]["asked"] == {"auditTaskId": task, "brokenOnly": True}
    assert replacing.states(registry, row["id"]) == {"broken": "PLANNED"}
    automatic.set_policy(registry, A, enabled=False)
    with pytest.raises(InvalidError):
        automatic.set_policy(registry, B, enabled=True)


def _judge(registry: Registry, task: str, certificate_id: str, word: str) -> None:
    columns = schema.audit_findings.c
    with registry.database.write(A) as transaction:
        change = update(schema.audit_findings).where(
            columns.task_id == task, columns.resource_key == f"deviceCertificateId={certificate_id}"
        )
        transaction.execute(change.values(evidence={"class": word, "confidence": "proven"}))


def _end(registry: Registry, task: str, **values: Any) -> None:
    with registry.database.write(A) as transaction:
        change = update(schema.audit_tasks).where(schema.audit_tasks.c.id == task)
        transaction.execute(change.values(status="COMPLETED", ended_at=transaction.now, **values))


def test_things_of_others_are_not_seen(registry: Registry) -> None:
    old = old_device(registry, "pump-1")
    start(registry, old)
    things.create(registry, B, "pump-1")
    with registry.database.read() as connection:
        assert units.open_unit_of(connection, B.account_id, "pump-1") is None
    assert campaigns.listed(registry, B).rows == []


def test_a_thing_that_gets_the_old_certificate_later_keeps_it_active(registry: Registry) -> None:
    old = old_device(registry, "pump-1")
    replacement_id = start(registry, old)
    work(registry)
    connect(registry, issue(registry, unit(registry, replacement_id, "pump-1")), "pump-1")
    things.create(registry, A, "late")
    principals.attach(registry, A, "late", registry.arn(A.account_id, f"cert/{old}"))
    work(registry)
    assert unit(registry, replacement_id, "pump-1").state is State.CONNECTED
    assert status_of(registry, old) == "ACTIVE"
