"""The feed of gates: what each change hands out, pieces, snapshots, reports, proofs of revocation."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from authorities_in_tables import enter_authority
from fleet_keys import certificate, ec_key
from keyassay.registry import (
    authorities,
    certificates,
    gate_feed,
    gates,
    memberships,
    policies,
    principals,
    thing_groups,
    things,
    transfers,
)
from keyassay.registry.errors import InvalidError, NotFoundError
from keyassay.storage import schema
from two_accounts import A, B

PLACE = f"arn:aws:iot:us-east-1:{A.account_id}:"
THING_NAME = "${iot:Connection.Thing.ThingName}"


def text(*client_ids: str, effect: str = "Allow") -> str:
    resources = [f"{PLACE}client/{one}" for one in client_ids]
    return json.dumps({"Statement": [{"Effect": effect, "Action": "iot:Connect", "Resource": resources}]})


def device(registry: Any, number: int = 0, status: str = "ACTIVE") -> str:
    pem = certificate(f"device-{number}", ec_key(number)).pem
    return certificates.register_without_authority(registry, A, pem, status=status).id


def arn(resource: str) -> str:
    return f"{PLACE}{resource}"


def state(registry: Any) -> tuple[str, int]:
    with registry.database.read() as connection:
        return gate_feed.server_state(connection)


def ask(registry: Any, after: int, actor: Any = A, **more: Any) -> dict[str, Any]:
    return gate_feed.changes(registry, actor, after=after, epoch=state(registry)[0], **more)


@pytest.fixture
def fleet(registry: Any) -> dict[str, str]:
    """Three devices at things of their names: lamp holds the policy, door's group does, spare holds none."""
    policies.create(registry, A, "own", text(THING_NAME))
    policies.create(registry, A, "of-groups", text(THING_NAME))
    thing_groups.create(registry, A, "house")
    thing_groups.create(registry, A, "hall", parent="house")
    policies.attach(registry, A, "of-groups", arn("thinggroup/house"))
    ids = {}
    for number, name in enumerate(("lamp", "door", "spare")):
        ids[name] = device(registry, number)
        things.create(registry, A, name)
        principals.attach(registry, A, name, arn(f"cert/{ids[name]}"))
    policies.attach(registry, A, "own", arn(f"cert/{ids['lamp']}"))
    memberships.add(registry, A, "door", "hall")
    return ids


def test_a_device_with_a_policy_and_a_thing_may_connect_under_its_name(registry: Any, fleet: dict[str, str]) -> None:
    answer = ask(registry, 0)
    found = {one["certificateId"]: one for one in answer["entries"]}
    assert found[fleet["lamp"]] == {
        "certificateId": fleet["lamp"], "state": "ACTIVE", "things": ["lamp"], "exact": [], "prefixes": [],
        "anything": False, "problems": [],
    }  # fmt: skip
    assert found[fleet["door"]]["things"] == ["door"]
    assert found[fleet["spare"]]["state"] == "BLOCKED"
    assert answer["things"] == {"added": ["door", "lamp", "spare"], "removed": []}
    epoch, revision = state(registry)
    assert ask(registry, revision) == {
        "epoch": epoch, "revision": revision, "complete": True, "reset": False, "entries": [],
        "things": {"added": [], "removed": []}, "authorities": False,
    }  # fmt: skip
    assert ask(registry, 0, B)["entries"] == []


Change = Callable[[Any, dict[str, str]], object]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r, c: certificates.set_status(r, A, c["lamp"], "REVOKED"), {"lamp": []}),
        (lambda r, c: certificates.set_status(r, A, c["lamp"], "INACTIVE"), {"lamp": []}),
        (lambda r, c: principals.detach(r, A, "lamp", arn(f"cert/{c['lamp']}")), {"lamp": []}),
        (lambda r, c: principals.attach(r, A, "spare", arn(f"cert/{c['lamp']}")), {"lamp": ["lamp", "spare"]}),
        (lambda r, _: things.change(r, A, "lamp", attributes={"room": "hall"}), {"lamp": ["lamp"]}),
        (lambda r, _: memberships.remove(r, A, "door", "hall"), {"door": []}),
        (lambda r, _: memberships.add(r, A, "spare", "house"), {"spare": ["spare"]}),
        (lambda r, _: thing_groups.remove(r, A, "hall"), {"door": []}),
        (lambda r, c: policies.detach(r, A, "own", arn(f"cert/{c['lamp']}")), {"lamp": []}),
        (lambda r, c: policies.attach(r, A, "own", arn(f"cert/{c['spare']}")), {"spare": ["spare"]}),
        (lambda r, _: policies.detach(r, A, "of-groups", arn("thinggroup/house")), {"door": []}),
        (lambda r, _: policies.attach(r, A, "own", arn("thinggroup/house")), {"door": ["door"]}),
        (lambda r, _: policies.create_version(r, A, "own", text("x")), {}),
        (lambda r, _: policies.create_version(r, A, "own", text("y"), set_as_default=True), {"lamp": []}),
        (lambda r, _: policies.create_version(r, A, "of-groups", text("y"), set_as_default=True), {"door": []}),
        (lambda r, _: policies.create(r, A, "new", text("y")), {}),
        (lambda r, _: thing_groups.create(r, A, "new"), {}),
        (lambda r, _: thing_groups.change(r, A, "house", description="x"), {}),
        (lambda r, _: things.create(r, A, "new"), {}),
    ],
)  # fmt: skip
def test_who_is_concerned_by_a_change(
    registry: Any, fleet: dict[str, str], change: Change, expected: dict[str, list[str]]
) -> None:
    after = state(registry)[1]
    change(registry, fleet)
    answer = ask(registry, after)
    names = {certificate_id: name for name, certificate_id in fleet.items()}
    found = {names[one["certificateId"]]: one["things"] for one in answer["entries"]}
    assert found == expected
    for one in answer["entries"]:
        assert one["state"] == ("ACTIVE" if one["things"] or one["exact"] else "BLOCKED")
    assert answer["revision"] == state(registry)[1]


def test_a_version_put_in_force_concerns_its_holders(registry: Any, fleet: dict[str, str]) -> None:
    policies.create_version(registry, A, "own", text("other"))
    after = state(registry)[1]
    policies.set_default_version(registry, A, "own", "2")
    policies.remove_version(registry, A, "own", "1")
    (entry,) = ask(registry, after)["entries"]
    assert (entry["certificateId"], entry["exact"]) == (fleet["lamp"], ["other"])


def test_things_that_come_and_go(registry: Any, fleet: dict[str, str]) -> None:
    after = state(registry)[1]
    principals.detach(registry, A, "lamp", arn(f"cert/{fleet['lamp']}"))
    things.remove(registry, A, "lamp")
    things.create(registry, A, "new")
    things.create(registry, A, "short-lived")
    things.remove(registry, A, "short-lived")
    assert ask(registry, after)["things"] == {"added": ["new"], "removed": ["lamp", "short-lived"]}


def test_deleted_and_transferred_certificates_are_blocked(registry: Any) -> None:
    one, other = device(registry, 1, "INACTIVE"), device(registry, 2, "INACTIVE")
    after = state(registry)[1]
    certificates.remove(registry, A, one)
    transfers.offer(registry, A, other, B.account_id)
    transfers.accept(registry, B, other, set_as_active=True)
    found = {entry["certificateId"]: entry["problems"] for entry in ask(registry, after)["entries"]}
    gone = ["the certificate is not in the account"]
    assert found == {one: gone, other: gone}
    assert [entry["certificateId"] for entry in ask(registry, after, B)["entries"]] == [other]


def test_an_epoch_or_revision_that_never_was_asks_for_a_snapshot(registry: Any) -> None:
    epoch, revision = state(registry)
    for after, named in ((revision, "foreign"), (revision + 1, epoch), (-1, epoch)):
        answer = gate_feed.changes(registry, A, after=after, epoch=named)
        assert (answer["reset"], answer["epoch"], answer["revision"]) == (True, epoch, revision)
    assert not ask(registry, revision)["reset"]


def test_many_changes_come_in_several_answers(
    registry: Any, fleet: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_feed, "ROWS", 3)
    after, complete, seen = 0, False, set()
    while not complete:
        answer = ask(registry, after)
        assert answer["revision"] >= after
        after, complete = answer["revision"], answer["complete"]
        seen |= {one["certificateId"] for one in answer["entries"]}
    assert seen == set(fleet.values())
    assert after == state(registry)[1]


def test_a_change_of_a_whole_fleet_comes_in_pieces_and_a_revocation_does_not_wait(
    registry: Any, fleet: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_feed, "PIECE", 1)
    for certificate_id in fleet.values():
        policies.attach(registry, A, "of-groups", arn(f"cert/{certificate_id}"))
    after = state(registry)[1]
    policies.create_version(registry, A, "of-groups", text("x"), set_as_default=True)
    reached = state(registry)[1]
    first = ask(registry, after)
    order = sorted(fleet.values())
    assert [one["certificateId"] for one in first["entries"]] == order[:1]
    assert (first["complete"], first["revision"]) == (False, after)
    certificates.set_status(registry, A, order[2], "REVOKED")
    second = ask(registry, after, position=first["position"])
    assert [(one["certificateId"], one["state"]) for one in second["entries"]] == [
        (order[2], "BLOCKED"),
        (order[1], "ACTIVE"),
    ]
    third = ask(registry, after, position=second["position"])
    assert [one["certificateId"] for one in third["entries"]] == order[2:]
    assert (third["complete"], third["revision"], third.get("position")) == (False, reached, None)
    last = ask(registry, reached)
    assert (last["complete"], last["revision"]) == (True, state(registry)[1])
    for position, more in ((first["position"][:-4] + "AAAA", {}), (first["position"], {"actor": B})):
        with pytest.raises(InvalidError):
            ask(registry, after, position=position, **more)


def test_waiting_ends_with_the_next_change(registry: Any, fleet: dict[str, str]) -> None:
    after = state(registry)[1]
    began = time.monotonic()
    assert ask(registry, after, wait=0.3)["entries"] == []
    assert time.monotonic() - began >= 0.3

    def revoke() -> None:
        time.sleep(0.2)
        certificates.set_status(registry, A, fleet["lamp"], "REVOKED")

    thread = threading.Thread(target=revoke)
    thread.start()
    (entry,) = ask(registry, after, wait=20)["entries"]
    thread.join()
    assert entry["certificateId"] == fleet["lamp"]
    assert time.monotonic() - began < 15


def test_other_accounts_do_not_end_the_wait(registry: Any) -> None:
    after = state(registry)[1]
    threading.Timer(0.1, lambda: things.create(registry, B, "lamp")).start()
    began = time.monotonic()
    answer = ask(registry, after, wait=0.5)
    assert time.monotonic() - began >= 0.5
    assert answer["revision"] == state(registry)[1]


def test_snapshots_hold_everything_and_go_on_from_their_first_revision(
    registry: Any, fleet: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_feed, "PAGE", 2)
    revision = state(registry)[1]
    first = gate_feed.snapshot(registry, A, "entries")
    certificates.set_status(registry, A, min(fleet.values()), "REVOKED")
    second = gate_feed.snapshot(registry, A, "entries", first["nextToken"])
    assert [one["certificateId"] for one in first["entries"] + second["entries"]] == sorted(fleet.values())
    assert (first["revision"], second["revision"], second["nextToken"]) == (revision, revision, None)
    assert len(ask(registry, revision)["entries"]) == 1
    names = gate_feed.snapshot(registry, A, "things")
    rest = gate_feed.snapshot(registry, A, "things", names["nextToken"])
    assert names["things"] + rest["things"] == ["door", "lamp", "spare"]
    assert gate_feed.snapshot(registry, B, "entries")["entries"] == []
    for actor, kind, token in ((B, "entries", first["nextToken"]), (A, "things", first["nextToken"]), (A, "x", None)):
        with pytest.raises(InvalidError):
            gate_feed.snapshot(registry, actor, kind, token)


def test_authorities_are_those_whose_devices_register_themselves(registry: Any) -> None:
    after = state(registry)[1]
    signed = [certificate(f"authority-{one}", ec_key(one), is_authority=True) for one in range(3)]
    for one, status in zip(signed, ("ACTIVE", "ACTIVE", "INACTIVE"), strict=True):
        enter_authority(registry, one, status)
    assert gate_feed.authorities(registry, A) == {"pem": []}
    for one in (signed[0], signed[2]):
        with registry.database.engine.begin() as connection:
            mine = schema.authorities.c.id == one.id
            connection.execute(schema.authorities.update().where(mine).values(auto_registration=True))
    assert gate_feed.authorities(registry, A) == {"pem": [signed[0].pem]}
    assert not ask(registry, after)["authorities"]
    authorities.change(registry, A, signed[0].id, status="INACTIVE")
    assert ask(registry, after)["authorities"]
    assert gate_feed.authorities(registry, A) == {"pem": []}


def report(registry: Any, name: str, **more: Any) -> None:
    epoch, revision = state(registry)
    body = {"gate": name, "epoch": epoch, "revision": revision, "startedAt": 1, "sessions": 3, **more}
    gates.report(registry, A, gates.read_report(body))


def test_reports_are_kept_and_wake_nobody(registry: Any, rows: Any) -> None:
    report(registry, "north", refusals={"inactive": 2})
    after = state(registry)[1]
    report(registry, "north", revision=0)
    assert state(registry)[1] == after
    (row,) = gates.listed(registry, A)["gates"]
    assert (row["name"], row["revision"], row["details"]["sessions"]) == ("north", 0, 3)
    assert gates.listed(registry, B)["gates"] == []
    gates.retire(registry, A, "north")
    gates.retire(registry, A, "north")
    assert gates.listed(registry, A)["gates"][0]["retired_at"] is not None
    report(registry, "north")
    assert gates.listed(registry, A)["gates"][0]["retired_at"] is None
    assert rows.operations() == ["ReportGate", "RetireGate", "ReportGate"]
    with pytest.raises(NotFoundError):
        gates.retire(registry, B, "north")


@pytest.mark.parametrize(
    "more",
    [{"gate": "a b"}, {"gate": ""}, {"gate": "x" * 65}, {"revision": "x"}, {"revision": 1 << 70}, {"startedAt": None},
     {"refusals": []}, {"sessions": {}}, {"lagSeconds": float("nan")}, {"startedAt": -1}],
)  # fmt: skip
def test_reports_that_make_no_sense_are_refused(registry: Any, more: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        report(registry, **{"name": more.get("gate", "north"), **{k: v for k, v in more.items() if k != "gate"}})


def test_the_proof_of_a_revocation(registry: Any, fleet: dict[str, str]) -> None:
    lamp = fleet["lamp"]
    report(registry, "north")
    report(registry, "south")
    found = gates.revocation(registry, A, lamp)
    assert (found.status, found.revision, found.everywhere) == ("ACTIVE", None, False)
    certificates.set_status(registry, A, lamp, "REVOKED")
    revision = state(registry)[1]
    principals.detach(registry, A, "lamp", arn(f"cert/{lamp}"))
    found = gates.revocation(registry, A, lamp)
    assert (found.status, found.revision) == ("REVOKED", revision)
    assert [one.applied for one in found.gates] == [False, False]
    report(registry, "north", revision=revision)
    report(registry, "south", revision=revision, epoch="before the restore")
    assert [one.applied for one in gates.revocation(registry, A, lamp).gates] == [True, False]
    assert not gates.revocation(registry, A, lamp).everywhere
    gates.retire(registry, A, "south")
    assert gates.revocation(registry, A, lamp).everywhere
    session = {
        "account_id": A.account_id, "id": "1", "gate": "north", "certificate_id": lamp, "client_id": "lamp",
        "source": "192.0.2.1:1", "tls_version": "TLSv1.3", "verdict": "ok", "started_at": 1, "seen_at": 1,
    }  # fmt: skip
    with registry.database.write(A) as transaction:
        transaction.execute(schema.connections.insert().values(session))
    found = gates.revocation(registry, A, lamp)
    assert (found.gates[0].sessions, found.everywhere) == (1, False)


def test_the_proof_of_a_deletion(registry: Any, fleet: dict[str, str]) -> None:
    spare = fleet["spare"]
    report(registry, "north")
    certificates.set_status(registry, A, spare, "INACTIVE")
    principals.detach(registry, A, "spare", arn(f"cert/{spare}"))
    certificates.remove(registry, A, spare)
    found = gates.revocation(registry, A, spare)
    assert (found.status, found.revision, found.everywhere) == ("DELETED", state(registry)[1], False)
    for actor, certificate_id, error in (
        (B, spare, NotFoundError),
        (A, "0" * 64, NotFoundError),
        (A, "x", InvalidError),
    ):
        with pytest.raises(error):
            gates.revocation(registry, actor, certificate_id)


def test_people_see_what_a_gate_cannot_express(registry: Any, fleet: dict[str, str]) -> None:
    policies.create(registry, A, "odd", text("a*b", "x"))
    policies.attach(registry, A, "odd", arn(f"cert/{fleet['spare']}"))
    entry = gates.connect_entry(registry, A, fleet["spare"])
    assert entry["exact"] == ["x"]
    assert len(entry["problems"]) == 1
    with pytest.raises(NotFoundError):
        gates.connect_entry(registry, B, fleet["spare"])
