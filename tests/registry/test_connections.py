"""What gates tell of connections: intervals, live sessions, questions, clean-up, and alerts of two places."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from connecting import AWAY, HOME, THIRD, event, now, refused, session, tell
from keyassay.registry import connections, principals, refusals, things
from keyassay.registry.errors import InvalidError
from keyassay.registry.registry import Registry
from keyassay.storage.database import BusyError
from two_accounts import A, B

ONE, TWO = "a" * 64, "b" * 64


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests need not wait for what a gate's list may be late by."""
    monkeypatch.setattr(connections, "GRACE", -1)
    monkeypatch.setattr(connections, "SLACK", 0)


def intervals(rows: Any, **conditions: Any) -> list[dict[str, Any]]:
    return sorted(rows.all("connections", **conditions), key=lambda row: (row["started_at"], row["source"]))


def test_an_event_begins_an_interval_once(registry: Registry, rows: Any) -> None:
    first = event(ONE, source="::ffff:192.0.2.1:1000")
    for _ in range(3):
        assert tell(registry, first) == {"registrations": [], "skipped": []}
    (row,) = intervals(rows)
    assert (row["certificate_id"], row["client_id"], row["source"]) == (ONE, "pump", "192.0.2.1:1000")
    assert (row["started_at"], row["ended_at"], row["gate"]) == (first["at"], None, "one")
    assert row["tls_version"] == "TLSv1.3"
    assert rows.all("refusals") == []
    tell(registry, first, actor=B)
    assert len(rows.all("connections", account_id=B.account_id)) == 1


def test_a_client_id_has_one_session_at_a_gate(registry: Registry, rows: Any) -> None:
    at = now() - 50_000
    told = [event(ONE, at=at, source=HOME), event(ONE, at=at + 20_000, source=AWAY), event(TWO, at=at + 30_000)]
    tell(registry, *told)
    tell(registry, event(ONE, source=THIRD), gate="two")
    assert [row["ended_at"] for row in intervals(rows, gate="one")] == [at + 20_000, at + 30_000, None]
    tell(registry, *told)
    tell(registry, event(ONE, at=at + 10_000, source=THIRD))  # told late: its place was taken long ago
    assert [row["ended_at"] for row in intervals(rows, gate="one")] == [at + 20_000, at + 30_000, at + 30_000, None]


def test_sessions_that_an_event_may_end_are_found_by_index_however_many_there_were(registry: Registry) -> None:
    if not registry.database.is_sqlite:
        return  # PostgreSQL chooses by what it has counted, which says nothing about a few rows
    asked: list[str] = []

    def note(statement: str) -> None:
        if "FROM connections" in statement or statement.startswith("UPDATE"):
            asked.append(statement)

    devices = [event(f"{one:064x}", f"pump-{one}", f"192.0.2.1:{2_000 + one}") for one in range(connections.CHUNK)]
    tell(registry, *devices)
    with registry.database.read() as reading, registry.database.write(A) as transaction:
        traced = [one.connection.dbapi_connection for one in (reading, transaction.connection)]
    for one in traced:
        one.set_trace_callback(note)
    tell(registry, *({**device, "source": "192.0.2.2:1"} for device in devices))
    assert any(statement.startswith("UPDATE") for statement in asked)
    assert any("UNION ALL" in statement for statement in asked)
    with registry.database.read() as connection:
        for one in traced:
            one.set_trace_callback(None)
        for statement in set(asked):
            plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")]
            looked_up = [line for line in plan if " connections " in f"{line} "]
            assert looked_up
            for line in looked_up:
                narrow = any(f" AND {column}=?" in line for column in ("id", "client_id", "certificate_id"))
                assert narrow, line
            assert not any("SCAN connections" in line for line in plan)


def test_the_list_of_live_sessions_ends_and_begins_intervals(registry: Registry, rows: Any) -> None:
    tell(registry, event(ONE), event(TWO, "fan", AWAY))
    tell(registry, sessions=[session(ONE), session("c" * 64, "new", THIRD)])
    by_client = {row["client_id"]: row for row in intervals(rows)}
    assert by_client["pump"]["ended_at"] is None
    assert by_client["fan"]["ended_at"] == by_client["fan"]["seen_at"]
    assert by_client["new"]["ended_at"] is None
    tell(registry, sessions=[session(ONE), session("c" * 64, "new", THIRD)])
    assert len(intervals(rows)) == 3
    before = by_client["pump"]["seen_at"]
    assert intervals(rows, client_id="pump")[0]["seen_at"] >= before
    tell(registry, sessions=[], gate="two")
    assert len(intervals(rows, ended_at=None)) == 2
    tell(registry, sessions=[])
    assert intervals(rows, ended_at=None) == []


def many(count: int) -> list[dict[str, Any]]:
    """Events of devices that come twice, some of a shared certificate, some refused."""
    at = now() - 60_000
    told = []
    for one in range(count):
        device = one % (count // 2)
        certificate = ONE if device % 7 == 0 else f"{device:064x}"
        told.append(event(certificate, f"pump-{device}", f"192.0.2.1:{one + 1}", at=at + one))
        if one % 3 == 0:
            told.append(refused(f"{device:064x}", source=f"192.0.2.{device}:1", at=at + one))
    return told


def test_a_large_batch_told_again_changes_nothing(
    registry: Registry, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = many(60)
    tell(registry, *told)
    begun, counted = intervals(rows), rows.all("refusals")
    assert len(begun) == 60
    assert [row["client_id"] for row in begun if row["ended_at"] is None] == [f"pump-{one}" for one in range(30)]
    for first, second in zip(begun, begun[30:], strict=False):
        assert first["ended_at"] == second["started_at"]
    assert sum(row["count"] for row in counted) == 20
    for chunk in (7, 20, 100):  # a retry need not be cut at the same places
        monkeypatch.setattr(connections, "CHUNK", chunk)
        tell(registry, *told[chunk:], *told)
        assert intervals(rows) == begun
        assert rows.all("refusals") == counted


def test_a_batch_that_was_cut_off_is_completed_by_the_next_try(
    registry: Registry, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, count, pieces = many(40), refusals.count, 0

    def fail_in_the_third(*arguments: Any) -> Any:
        nonlocal pieces
        pieces += 1
        if pieces == 3:
            raise BusyError("the database is busy")
        return count(*arguments)

    monkeypatch.setattr(connections, "CHUNK", 10)
    monkeypatch.setattr(refusals, "count", fail_in_the_third)
    with pytest.raises(BusyError):
        tell(registry, *told)
    kept = len(intervals(rows))
    assert 0 < kept < 40
    assert kept + sum(row["count"] for row in rows.all("refusals")) == 20  # of the third piece nothing
    tell(registry, *told)
    undisturbed = [(row["client_id"], row["source"], row["ended_at"]) for row in intervals(rows)]
    monkeypatch.undo()
    tell(registry, *told, actor=B)
    assert undisturbed == [
        (row["client_id"], row["source"], row["ended_at"]) for row in intervals(rows, account_id=B.account_id)
    ]
    assert sum(row["count"] for row in rows.all("refusals", account_id=A.account_id)) == 14


def test_the_same_told_by_several_at_once_is_recorded_once(registry: Registry, rows: Any) -> None:
    told = many(40)
    with ThreadPoolExecutor(4) as pool:
        for answer in [pool.submit(tell, registry, *told) for _ in range(4)]:
            assert answer.result(60) == {"registrations": [], "skipped": []}
    assert len(intervals(rows)) == 40
    assert len(intervals(rows, ended_at=None)) == 20
    assert sum(row["count"] for row in rows.all("refusals")) == 14


def test_a_long_list_of_live_sessions_is_followed_in_pieces(
    registry: Registry, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CHUNK", 7)
    monkeypatch.setattr(connections, "SESSIONS_CHUNK", 7)

    def live(numbers: range, counts: int | None) -> list[dict[str, Any]]:
        return [
            session(f"{one:064x}", f"pump-{one}", f"192.0.2.1:{one + 1}", counts if one % 2 else 5) for one in numbers
        ]

    tell(registry, sessions=live(range(40), 5))
    before = {row["client_id"]: row for row in intervals(rows)}
    assert len(before) == 40
    tell(registry, sessions=live(range(10, 50), 6))
    after = {row["client_id"]: row for row in intervals(rows)}
    for one in range(50):
        row, earlier = after[f"pump-{one}"], before.get(f"pump-{one}")
        assert (row["ended_at"] is None) == (one >= 10)
        assert row["bytes_in"] == (6 if one % 2 and one >= 10 else 5)
        assert (row["sent_at"] is None) == (not one % 2 or not 10 <= one < 40)
        assert earlier is None or one < 10 or row["seen_at"] >= earlier["seen_at"]
    tell(registry, sessions=live(range(10, 50), 3))  # counts from the beginning again: nothing is known of sending
    assert {row["client_id"]: row["sent_at"] for row in intervals(rows)} == {
        name: row["sent_at"] for name, row in after.items()
    }


def test_events_told_with_a_list_that_is_older_do_not_end(
    registry: Registry, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "GRACE", 60_000)
    tell(registry, event(ONE), sessions=[])
    assert len(intervals(rows, ended_at=None)) == 1


def test_a_session_that_was_named_before_its_event(registry: Registry, rows: Any) -> None:
    tell(registry, sessions=[session(ONE, "", bytes_in=5)])
    late = event(ONE, at=now() - 1_000)
    for _ in range(2):
        tell(registry, late)
    (row,) = intervals(rows)
    assert (row["client_id"], row["started_at"], row["bytes_in"], row["ended_at"]) == ("pump", late["at"], 5, None)


def test_bytes_say_when_a_device_has_sent(registry: Registry, rows: Any) -> None:
    tell(registry, event(ONE))
    seen = []
    for count in (10, 10, 20, 20, 3, 4):
        tell(registry, sessions=[session(ONE, bytes_in=count)])
        (row,) = intervals(rows)
        seen.append((row["bytes_in"], row["sent_at"]))
    assert [count for count, _ in seen] == [10, 10, 20, 20, 3, 4]
    sent = [at for _, at in seen]
    assert sent[:2] == [None, None]
    assert sent[2] is not None
    assert sent[2] == sent[3] == sent[4] < sent[5]


@pytest.mark.parametrize("offset", [-2 * 86_400_000, 3_600_000, 2 * 86_400_000])
def test_times_of_a_wrong_clock_are_the_server_s(registry: Registry, rows: Any, offset: int) -> None:
    before = now()
    tell(registry, event(ONE, at=before + offset))
    assert before <= intervals(rows)[0]["started_at"] <= now()


def test_a_gate_may_say_what_its_clock_shows(registry: Registry, rows: Any) -> None:
    at = now()
    wrong = at - 7_200_000
    body = {"gate": "one", "events": [event(ONE, at=wrong - 5_000)], "sessions": None, "sentAt": wrong}
    connections.record_events(registry, A, body)
    assert 4_000 <= at - intervals(rows)[0]["started_at"] <= 5_000


@pytest.mark.parametrize(
    "wrong",
    [
        "text",
        event("ABC"),
        event(ONE, source="nowhere"),
        event(ONE, source="192.0.2.1:70000"),
        event(ONE, source="192.0.2.1:x"),
        event(ONE, at="now"),
        event(ONE, at=-1),
        event(ONE, at=True),
        event(ONE, verdict="Not A Word"),
        event(ONE, client_id=5),  # type: ignore[arg-type]
        event(ONE, der="!!"),
        event(ONE, der="A" * 100_000),
    ],
)
def test_an_event_that_makes_no_sense_is_left_out_and_said(registry: Registry, rows: Any, wrong: Any) -> None:
    answer = tell(registry, event(ONE), wrong, event(TWO, "fan"))
    assert [one["number"] for one in answer["skipped"]] == [1]
    assert len(intervals(rows)) == 2


@pytest.mark.parametrize(
    "body",
    [
        {"gate": "no such name/"},
        {"gate": None},
        {"gate": "one", "events": {}},
        {"gate": "one", "events": [{}] * 1_001},
        {"gate": "one", "sessions": "all"},
    ],
)
def test_requests_that_make_no_sense_are_refused(registry: Registry, body: Any) -> None:
    with pytest.raises(InvalidError):
        connections.record_events(registry, A, body)


def test_whatever_a_client_id_holds_is_kept_or_cut(registry: Registry, rows: Any) -> None:
    for number, client in enumerate(("a\0b", "\ud800", "x" * 9_000, "'; drop table", "\u202e")):
        tell(registry, event(ONE, client, f"192.0.2.1:{number}"))
    found = {row["client_id"] for row in rows.all("connections")}
    assert found == {"a\ufffdb", "?", "x" * 512, "'; drop table", "\u202e"}


def test_last_seen_and_connected_now(registry: Registry, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(registry, event(ONE), event(TWO, "fan", AWAY))
    tell(registry, sessions=[session(ONE)])
    with registry.database.read() as connection:
        seen = connections.last_seen(connection, A.account_id, [ONE, TWO, "c" * 64])
        assert set(seen) == {ONE, TWO}
        assert seen[ONE] >= seen[TWO]
        assert connections.connected(connection, A.account_id, [ONE, TWO]) == {ONE}
        assert connections.is_connected(connection, A.account_id, ONE)
        assert not connections.is_connected(connection, B.account_id, ONE)
        monkeypatch.setattr(connections, "SILENCE", -60_000)  # the gate has been silent
        assert not connections.is_connected(connection, A.account_id, ONE)


def test_connections_of_certificates_and_things(registry: Registry) -> None:
    for name in ("pump", "fan", "other"):
        things.create(registry, A, name)
    arn = registry.arn(A.account_id, f"cert/{ONE}")
    del arn
    at = now() - 10_000
    for number in range(5):
        tell(registry, event(ONE, source=f"192.0.2.1:{number}", at=at + number))
    first = connections.of_certificate(registry, A, ONE, size=3)
    rest = connections.of_certificate(registry, A, ONE, size=3, token=first.next_token)
    assert [row["started_at"] - at for row in (*first.rows, *rest.rows)] == [4, 3, 2, 1, 0]
    assert len(connections.of_thing(registry, A, "pump").rows) == 5
    assert connections.of_thing(registry, A, "fan").rows == []
    assert connections.thing_seen(registry, A, "pump")[1]
    assert connections.thing_seen(registry, A, "fan") == (None, False)
    assert connections.of_certificate(registry, B, ONE).rows == []


def test_silent_gates_and_old_rows_are_cleaned_up(
    registry: Registry, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(registry, event(ONE), refused(TWO))
    sweeper = connections.Sweeper(registry, None)
    assert not sweeper.turn()
    assert len(intervals(rows, ended_at=None)) == 1
    monkeypatch.setattr(connections, "SILENCE", -60_000)
    sweeper.turn()
    (row,) = intervals(rows)
    assert row["ended_at"] == row["seen_at"]
    assert len(rows.all("refusals")) == 1
    monkeypatch.setattr(connections, "KEPT", -1)
    while sweeper.turn():
        pass
    assert rows.all("connections") == rows.all("refusals") == rows.all("counted_refusals") == []


def test_clean_up_goes_in_small_pieces(registry: Registry, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_SWEPT", 4)
    tell(registry, *many(32))
    tell(registry, *many(32), actor=B)
    sweeper = connections.Sweeper(registry, None)

    def left() -> tuple[int, int, int]:
        mine = {"account_id": A.account_id}
        return (
            len(rows.all("connections", ended_at=None, **mine)),
            len(rows.all("connections", **mine)),
            len(rows.all("refusals", **mine)),
        )

    assert left() == (16, 32, 11)
    monkeypatch.setattr(connections, "SILENCE", -60_000)
    monkeypatch.setattr(connections, "KEPT", -1)
    before, turns = left(), 1
    while sweeper.turn():
        after, turns = left(), turns + 1
        assert all(0 <= one - other <= 4 for one, other in zip(before, after, strict=True))
        before = after
    assert left() == (0, 0, 0)
    assert turns >= 32 // 4
    assert rows.all("connections") == rows.all("refusals") == rows.all("counted_refusals") == []


# Two places


def alarms(rows: Any) -> list[tuple[str, list[str]]]:
    return [(row["certificate_id"], row["details"]["sources"]) for row in rows.all("alerts", kind="key-in-two-places")]


def beat(registry: Registry, *clients: tuple[str, str], rounds: int = 3, start: int = 0) -> None:
    for number in range(rounds):
        tell(registry, sessions=[session(ONE, client, source, 100 + start + number) for client, source in clients])


def test_two_live_sessions_of_a_key_raise_an_alert_once(registry: Registry, rows: Any) -> None:
    tell(registry, event(ONE, "pump", HOME))
    beat(registry, ("pump", HOME))
    tell(registry, event(ONE, "evil", AWAY))
    assert alarms(rows) == []
    beat(registry, ("pump", HOME), ("evil", AWAY), start=10)
    beat(registry, ("pump", HOME), ("evil", AWAY), start=20)
    assert alarms(rows) == [(ONE, ["192.0.2.1", "198.51.100.7"])]
    with registry.database.read() as connection:
        found = connections.two_places(connection, A.account_id, ONE, 0)
        assert found is not None
        assert found.sign == "overlap"
        assert connections.two_places(connection, B.account_id, ONE, 0) is None


def test_a_device_that_moved_raises_none(registry: Registry, rows: Any) -> None:
    """Its old session stays in the gate's table for minutes, and sends nothing; client ids are made up each time."""
    tell(registry, event(ONE, "pump-17", HOME))
    beat(registry, ("pump-17", HOME))
    tell(registry, event(ONE, "pump-18", AWAY))
    for number in range(4):
        tell(registry, sessions=[session(ONE, "pump-17", HOME, 102), session(ONE, "pump-18", AWAY, number)])
    assert alarms(rows) == []


def test_a_shared_certificate_raises_none_for_its_things(registry: Registry, rows: Any) -> None:
    import fleet_keys
    from keyassay.registry import certificates

    shared = fleet_keys.device("shared")
    certificates.register_without_authority(registry, A, shared.pem, status="ACTIVE")
    for name in ("pump", "fan"):
        things.create(registry, A, name)
        principals.attach(registry, A, name, registry.arn(A.account_id, f"cert/{shared.id}"))
    tell(registry, event(shared.id, "pump", HOME), event(shared.id, "fan", AWAY))
    for number in range(4):
        live = [session(shared.id, "pump", HOME, number), session(shared.id, "fan", AWAY, number)]
        tell(registry, sessions=live)
    assert alarms(rows) == []
    assert {row["client_id"] for row in connections.of_thing(registry, A, "pump").rows} == {"pump"}


@pytest.mark.parametrize(("turns", "expected"), [(3, 0), (4, 1)])
def test_addresses_that_drive_each_other_out(registry: Registry, rows: Any, turns: int, expected: int) -> None:
    at = now() - 50_000
    for number in range(turns):
        tell(registry, event(ONE, "pump", (HOME, AWAY)[number % 2], at=at + number * 10_000))
    assert len(alarms(rows)) == expected


def test_over_two_gates(registry: Registry, rows: Any) -> None:
    at = now() - 50_000
    for number in range(4):
        gate = ("one", "two")[number % 2]
        tell(registry, event(ONE, "pump", (HOME, AWAY)[number % 2], at=at + number * 10_000), gate=gate)
    assert alarms(rows) == [(ONE, ["192.0.2.1", "198.51.100.7"])]
