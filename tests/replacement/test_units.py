"""The whole life of units, driven by direct calls and recorded connections."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, update

import replacing
import weak_devices
from keyassay.registry import alerts, certificates, connections, memberships, policies, principals, thing_groups, things
from keyassay.registry.registry import Registry
from keyassay.replacement import campaigns, units
from keyassay.replacement.states import State
from keyassay.replacement.units import UnitStateError
from keyassay.storage import schema
from replacing import connect, issue, old_device, start, status_of, steps, unit, work
from two_accounts import A, Rows

WAY = [
    "PLANNED", "BEGUN", "ISSUED", "ATTACHED", "DELIVERED", "CONNECTED", "OLD_INACTIVE", "OLD_REVOKED", "DETACHED",
    "DONE",
]  # fmt: skip


def test_the_whole_way_of_a_unit(registry: Registry, rows: Rows) -> None:
    old = old_device(registry, "pump-1", exclusive=True)
    replacement_id = start(registry, old, graceSeconds=3_600)
    assert unit(registry, replacement_id, "pump-1").state is State.PLANNED
    work(registry)
    begun = unit(registry, replacement_id, "pump-1")
    assert (begun.state, begun.batch, begun.is_served) == (State.PLANNED, 1, True)
    assert replacing.notified(rows) == {"pump-1": 1}
    new = issue(registry, begun)
    assert status_of(registry, new) == "ACTIVE"
    assert rows.all("thing_principals", certificate_id=new)[0]["exclusive"]
    assert replacing.policies_of(rows, new) == ["connect"]
    work(registry)
    assert unit(registry, replacement_id, "pump-1").state is State.DELIVERED
    assert status_of(registry, old) == "ACTIVE"
    session = connect(registry, new, "pump-1")
    work(registry)
    inactive = unit(registry, replacement_id, "pump-1")
    assert inactive.state is State.OLD_INACTIVE
    assert inactive.evidence["CONNECTED"]["connectionId"] == session
    assert inactive.evidence["CONNECTED"]["unique"]
    assert status_of(registry, old) == "INACTIVE"
    _let_grace_pass(registry, replacement_id)
    work(registry)
    assert unit(registry, replacement_id, "pump-1").state is State.DONE
    assert (status_of(registry, old), status_of(registry, new)) == ("REVOKED", "ACTIVE")
    assert (replacing.things_of(rows, old), replacing.policies_of(rows, old)) == ([], [])
    assert steps(registry, replacement_id, "pump-1") == WAY
    row, found = campaigns.describe(registry, A, replacement_id, inactive.state_at)
    assert row["status"] == "COMPLETED"
    assert found.reached == dict.fromkeys(found.reached, 1)
    recorded = [row["details"]["step"] for row in rows.all("changes", operation=units.OPERATION)]
    assert recorded == WAY[1:]  # planning is one record for all units


def _let_grace_pass(registry: Registry, replacement_id: str) -> None:
    with registry.database.write(A) as transaction:
        row = campaigns.find(transaction.connection, A.account_id, replacement_id)
        campaigns.change(transaction, replacement_id, settings={**row["settings"], "graceSeconds": 0})


def test_the_old_certificate_stays_active_during_grace_only_once_the_new_one_was_seen(registry: Registry) -> None:
    old = old_device(registry, "pump-1")
    replacement_id = start(registry, old)
    work(registry)
    new = issue(registry, unit(registry, replacement_id, "pump-1"))
    connect(registry, new, "pump-1", verdict="client-id")  # refused is not seen
    connect(registry, old, "pump-1")
    work(registry)
    assert unit(registry, replacement_id, "pump-1").state is State.DELIVERED
    assert status_of(registry, old) == "ACTIVE"


def test_a_shared_certificate_goes_inactive_when_all_its_things_are_proven(registry: Registry, rows: Rows) -> None:
    names = [f"meter-{number}" for number in range(3)]
    old = old_device(registry, *names)
    replacement_id = start(registry, old)
    work(registry)
    for number, name in enumerate(names):
        assert status_of(registry, old) == "ACTIVE"
        connect(registry, issue(registry, unit(registry, replacement_id, name)), name)
        work(registry)
        if number < 2:
            assert unit(registry, replacement_id, name).state is State.CONNECTED
    assert set(replacing.states(registry, replacement_id).values()) == {"DONE"}
    news = {row["new_certificate_id"] for row in rows.all("replacement_units")}
    assert len(news) == 3  # unique, where the old one was shared
    assert [replacing.things_of(rows, one) for one in sorted(news)] == sorted(
        ([name] for name in names), key=lambda one: next(row["new_certificate_id"] for row in rows.all("replacement_units", thing_name=one[0]))
    )  # fmt: skip


def test_a_thing_outside_of_the_replacement_keeps_the_old_certificate_active(registry: Registry) -> None:
    old = old_device(registry, "in", "out")
    thing_groups.create(registry, A, "some")
    memberships.add(registry, A, "in", "some")
    replacement_id = campaigns.start(
        registry, A, {"certificateIds": [old], "thingGroupName": "some"}, replacing.SETTINGS, "token"
    )
    work(registry)
    assert list(replacing.states(registry, replacement_id)) == ["in"]
    connect(registry, issue(registry, unit(registry, replacement_id, "in")), "in")
    work(registry)
    assert unit(registry, replacement_id, "in").state is State.CONNECTED
    assert status_of(registry, old) == "ACTIVE"
    other = start(registry, old)  # its other thing, in a second replacement
    assert list(replacing.states(registry, other)) == ["out"]
    work(registry)
    connect(registry, issue(registry, unit(registry, other, "out")), "out")
    work(registry)
    work(registry)
    assert replacing.states(registry, other) == {"out": "DONE"}
    assert replacing.states(registry, replacement_id) == {"in": "DONE"}
    assert status_of(registry, old) == "REVOKED"


def test_what_a_thing_proved_for_another_old_certificate_does_not_count(registry: Registry) -> None:
    shared, own = old_device(registry, "in", "out"), replacing.register(registry, "own")
    principals.attach(registry, A, "out", f"arn:aws:iot:us-east-1:{A.account_id}:cert/{own}")
    other = start(registry, own, graceSeconds=3_600)
    work(registry)
    connect(registry, issue(registry, unit(registry, other, "out")), "out")
    work(registry)
    assert unit(registry, other, "out").state is State.OLD_INACTIVE
    thing_groups.create(registry, A, "some")
    memberships.add(registry, A, "in", "some")
    selection = {"certificateIds": [shared], "thingGroupName": "some"}
    replacement_id = campaigns.start(registry, A, selection, replacing.SETTINGS, "token")
    work(registry)
    connect(registry, issue(registry, unit(registry, replacement_id, "in")), "in")
    work(registry)
    assert unit(registry, replacement_id, "in").state is State.CONNECTED
    assert status_of(registry, shared) == "ACTIVE"  # nothing shows that "out" does without it


def test_a_certificate_without_a_thing_is_reported(registry: Registry) -> None:
    old = old_device(registry)
    replacement_id = start(registry, old)
    work(registry)
    assert replacing.states(registry, replacement_id) == {"": "NO_THING"}
    row, found = campaigns.describe(registry, A, replacement_id, 0)
    assert (row["status"], found.total, status_of(registry, old)) == ("COMPLETED", 0, "ACTIVE")


def test_a_key_that_another_certificate_has_halts_the_unit(registry: Registry, rows: Rows) -> None:
    old = old_device(registry, "pump-1")
    replacement_id = start(registry, old)
    work(registry)
    key = replacing.new_key()
    new = issue(registry, unit(registry, replacement_id, "pump-1"), key)
    other = replacing.register(registry, "somebody else", key)
    connect(registry, new, "pump-1")
    work(registry)
    halted = unit(registry, replacement_id, "pump-1")
    assert halted.state is State.HALTED
    assert status_of(registry, old) == "ACTIVE"
    (alert,) = rows.all("alerts")
    assert (alert["kind"], alert["thing_name"]) == ("replacement-halted", "pump-1")
    assert alert["details"]["others"] == [other]


@pytest.mark.parametrize("times", [1, 2])
def test_steps_that_are_repeated_change_nothing(registry: Registry, rows: Rows, times: int) -> None:
    old = old_device(registry, "pump-1")
    replacement_id = start(registry, old)
    work(registry)
    found = unit(registry, replacement_id, "pump-1")
    new = replacing.register(registry, "new", status="INACTIVE")
    for step in (
        lambda one: units.issued(one, found, "d" * 64, new, {}),
        lambda one: units.attach(one, found),
        lambda one: units.delivered(one, found, {}),
    ):
        for _ in range(times):
            with registry.database.write(A) as transaction:
                step(transaction)
    assert steps(registry, replacement_id, "pump-1") == WAY[:5]
    with registry.database.write(A) as transaction, pytest.raises(UnitStateError):
        units.issued(transaction, found, "e" * 64, old, {})


def test_nothing_is_issued_before_its_turn_or_in_a_pause(registry: Registry) -> None:
    old = old_device(registry, "pump-1")
    replacement_id = start(registry, old)
    new = replacing.register(registry, "new")

    def issued() -> None:
        with registry.database.write(A) as transaction:
            found = units.open_unit_of(transaction.connection, A.account_id, "pump-1")
            assert found is not None
            units.issued(transaction, found, "d" * 64, new, {})

    with pytest.raises(UnitStateError):
        issued()
    work(registry)
    campaigns.pause(registry, A, replacement_id)
    with pytest.raises(UnitStateError):
        issued()
    campaigns.resume(registry, A, replacement_id)
    issued()


def test_a_new_certificate_that_is_switched_off_keeps_the_old_one(registry: Registry) -> None:
    old = old_device(registry, "a", "b")
    replacement_id = start(registry, old)
    work(registry)
    new = issue(registry, unit(registry, replacement_id, "a"))
    connect(registry, new, "a")
    work(registry)
    certificates.set_status(registry, A, new, "INACTIVE")
    connect(registry, issue(registry, unit(registry, replacement_id, "b")), "b")
    work(registry)
    assert replacing.states(registry, replacement_id) == {"a": "FAILED", "b": "CONNECTED"}
    assert status_of(registry, old) == "ACTIVE"


def test_an_unreachable_device_is_served_by_a_claim(registry: Registry, rows: Rows) -> None:
    old = old_device(registry, "pump-1")
    other = old_device(registry, "pump-2")
    certificates.set_status(registry, A, old, "INACTIVE")
    replacement_id = start(registry, old, other)
    assert replacing.states(registry, replacement_id) == {"pump-1": "UNREACHABLE", "pump-2": "PLANNED"}
    certificates.set_status(registry, A, other, "INACTIVE")
    work(registry)
    assert unit(registry, replacement_id, "pump-2").state is State.UNREACHABLE
    assert replacing.notified(rows) == {}
    new = issue(registry, unit(registry, replacement_id, "pump-1"))
    assert unit(registry, replacement_id, "pump-1").is_served
    connect(registry, new, "pump-1")
    certificates.set_status(registry, A, other, "ACTIVE")
    work(registry)
    assert unit(registry, replacement_id, "pump-1").state is State.DONE
    assert not unit(registry, replacement_id, "pump-1").evidence["OLD_INACTIVE"]["deactivated"]
    assert unit(registry, replacement_id, "pump-2").state is State.PLANNED
    assert replacing.notified(rows) == {"pump-2": 1}


def test_a_fall_back_is_noticed_and_revocation_waits(registry: Registry, rows: Rows) -> None:
    old = old_device(registry, "pump-1")
    replacement_id = start(registry, old, graceSeconds=3_600)
    work(registry)
    new = issue(registry, unit(registry, replacement_id, "pump-1"))
    connect(registry, new, "pump-1")
    doing = replacing.worker(registry)
    work(registry, doing)
    replacing.refuse(registry, old, "pump-1", shift=10)
    work(registry, doing)
    assert unit(registry, replacement_id, "pump-1").problem is None  # it is connected: somebody else has the old key
    replacing.disconnect(registry, new)
    replacing.refuse(registry, old, "pump-1", shift=100)
    work(registry, doing)
    assert "tried the old certificate" in str(unit(registry, replacement_id, "pump-1").problem)
    assert [row["kind"] for row in rows.all("alerts")] == ["replacement-fell-back"]
    _let_grace_pass(registry, replacement_id)
    work(registry, doing)
    assert status_of(registry, old) == "INACTIVE"
    connect(registry, new, "pump-1")
    work(registry, doing)
    assert status_of(registry, old) == "REVOKED"
    assert steps(registry, replacement_id, "pump-1")[7:9] == ["FELL_BACK", "CAME_BACK"]


def _at_two_places(registry: Registry, certificate_id: str, *clients: str) -> None:
    """Two sessions that both send after the server knew of both, as gates tell it, and the gate's alert."""
    for number, client in enumerate(clients):
        interval = connect(registry, certificate_id, client)
        columns = schema.connections.c
        with registry.database.write(A) as transaction:
            values = {"source": f"192.0.2.{number}:1", "recorded_at": transaction.now, "sent_at": transaction.now + 20}
            transaction.execute(update(schema.connections).where(columns.id == interval).values(values))
    with registry.database.write(A) as transaction:
        told = connections.two_places(transaction.connection, A.account_id, certificate_id, 0)
        assert told is not None
        alerts.raise_alert(
            transaction, connections.TWO_PLACES, "today", certificate_id=certificate_id, details=told.as_json()
        )


def test_a_key_at_two_places_halts_its_thing(registry: Registry, rows: Rows) -> None:
    shared, other = old_device(registry, "a", "b"), old_device(registry, "c")
    replacement_id = start(registry, shared, other)
    doing = replacing.worker(registry)
    work(registry, doing)
    _at_two_places(registry, shared, "a", "somewhere else")
    work(registry, doing)
    assert replacing.states(registry, replacement_id) == {"a": "HALTED", "b": "PLANNED", "c": "PLANNED"}
    (alert,) = rows.all("alerts", kind="replacement-halted")
    assert alert["details"]["sources"] == ["192.0.2.0", "192.0.2.1"]
    assert alert["thing_name"] == "a"
    # what an operator has looked at does not halt it again
    campaigns.retry(registry, A, replacement_id, "a", afresh=True)
    with registry.database.write(A) as transaction:
        past = update(schema.connections).values(sent_at=transaction.now - 1_000)
        transaction.execute(past)
    work(registry, doing)
    assert unit(registry, replacement_id, "a").state is State.PLANNED


@pytest.mark.parametrize("table", ["fleet_verdicts", "server_verdicts"])
def test_a_new_key_that_is_broken_beside_others_halts_its_thing(registry: Registry, rows: Rows, table: str) -> None:
    replacement_id = start(registry, old_device(registry, "pump-1"))
    work(registry)
    new = issue(registry, unit(registry, replacement_id, "pump-1"))
    (row,) = rows.all("certificates", id=new)
    verdict = weak_devices.broken_beside_others(A.account_id, row["spki_digest"])
    with registry.database.write(A) as transaction:
        transaction.execute(insert(schema.METADATA.tables[table]).values(verdict))
    connect(registry, new, "pump-1")
    work(registry)
    assert unit(registry, replacement_id, "pump-1").state is State.HALTED


def test_a_new_key_that_a_deep_audit_has_broken_halts_its_thing(registry: Registry, rows: Rows) -> None:
    replacement_id = start(registry, old_device(registry, "pump-1"))
    work(registry)
    new = issue(registry, unit(registry, replacement_id, "pump-1"))
    (row,) = rows.all("certificates", id=new)
    with registry.database.write(A) as transaction:
        transaction.execute(insert(schema.deep_verdicts).values(weak_devices.broken_by_deep_steps(row["spki_digest"])))
    connect(registry, new, "pump-1")
    work(registry)
    assert unit(registry, replacement_id, "pump-1").state is State.HALTED
    (alert,) = rows.all("alerts", kind="replacement-halted")
    assert alert["details"]["reasonCode"] == "CERTIFICATE_KEY_VULNERABILITY_RSA_SMOOTH_PRIME"


def test_clocks_of_gates_do_not_matter(registry: Registry) -> None:
    for number, shift in enumerate((-86_400_000, 86_400_000)):
        old = old_device(registry, f"pump-{number}")
        replacement_id = start(registry, old)
        work(registry)
        connect(
            registry, issue(registry, unit(registry, replacement_id, f"pump-{number}")), f"pump-{number}", shift=shift
        )
        work(registry)
        assert unit(registry, replacement_id, f"pump-{number}").state is State.DONE


def test_two_certificates_of_one_thing_in_two_replacements(registry: Registry, rows: Rows) -> None:
    first = old_device(registry, "pump-1")
    second = replacing.register(registry, "second")
    principals.attach(registry, A, "pump-1", registry.arn(A.account_id, f"cert/{second}"))
    ids = [start(registry, first), start(registry, second)]
    work(registry)
    news = []
    for expected in ids:
        with registry.database.read() as connection:
            found = units.open_unit_of(connection, A.account_id, "pump-1")
        assert found is not None
        assert found.replacement_id == expected
        news.append(issue(registry, found))
        connect(registry, news[-1], "pump-1")
        work(registry)
    assert [replacing.states(registry, one) for one in ids] == [{"pump-1": "DONE"}] * 2
    assert replacing.things_of(rows, first) == replacing.things_of(rows, second) == []
    assert [status_of(registry, one) for one in news] == ["ACTIVE"] * 2


def test_what_is_being_replaced_is_skipped_and_said(registry: Registry) -> None:
    old = old_device(registry, "pump-1")
    start(registry, old)
    again = start(registry, old, "f" * 64)
    assert replacing.states(registry, again) == {}
    row, _ = campaigns.describe(registry, A, again, 0)
    assert row["selection"]["skipped"] == {"IN_OPEN_UNIT": 1, "NOT_REGISTERED": 1}


def test_an_unknown_thing_has_no_unit(registry: Registry) -> None:
    things.create(registry, A, "idle")
    with registry.database.read() as connection:
        assert units.open_unit_of(connection, A.account_id, "idle") is None


def test_a_thing_whose_policies_changed_gets_those_of_now(registry: Registry, rows: Rows) -> None:
    old = old_device(registry, "pump-1")
    replacement_id = start(registry, old)
    work(registry)
    policies.create(registry, A, "more", replacing.POLICY)
    policies.attach(registry, A, "more", registry.arn(A.account_id, f"cert/{old}"))
    new = issue(registry, unit(registry, replacement_id, "pump-1"))
    assert replacing.policies_of(rows, new) == ["connect", "more"]


def test_a_unit_whose_thing_was_detached_fails(registry: Registry, rows: Rows) -> None:
    old = old_device(registry, "pump-1")
    replacement_id = start(registry, old)
    work(registry)
    principals.detach(registry, A, "pump-1", registry.arn(A.account_id, f"cert/{old}"))
    found: Any = unit(registry, replacement_id, "pump-1")
    new = replacing.register(registry, "new")
    with registry.database.write(A) as transaction:
        units.issued(transaction, found, "d" * 64, new, {})
        assert units.attach(transaction, found).state is State.FAILED
    assert rows.all("thing_principals") == []
