"""Messages for devices: in order, of one account, until they expire."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from sqlalchemy import update

from keyassay.registry import device_messages
from keyassay.registry.errors import InvalidError
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from two_accounts import A, B


def put(registry: Registry, topic: str, payload: str = "{}", seconds: float = 60, actor: Any = A) -> None:
    with registry.database.write(actor) as transaction:
        device_messages.put(transaction, topic, payload, seconds)


def test_messages_come_in_order_and_once(registry: Registry) -> None:
    put(registry, "one")
    put(registry, "theirs", actor=B)
    put(registry, "two")
    found = device_messages.pending(registry, A, 0)
    assert [one["topic"] for one in found["messages"]] == ["one", "two"]
    assert found["last"] == found["messages"][-1]["number"]
    assert device_messages.pending(registry, A, found["last"]) == {**found, "messages": []}
    put(registry, "three")
    assert [one["topic"] for one in device_messages.pending(registry, A, found["last"])["messages"]] == ["three"]


def test_another_epoch_begins_anew(registry: Registry) -> None:
    put(registry, "one")
    put(registry, "two")
    first = device_messages.pending(registry, A, 0, "")
    assert len(first["messages"]) == 2
    assert device_messages.pending(registry, A, first["last"], first["epoch"])["messages"] == []
    with registry.database.write(A) as transaction:
        transaction.execute(update(schema.server).values(epoch="f" * 32))
    again = device_messages.pending(registry, A, first["last"] + 7, first["epoch"])
    assert (again["epoch"], again["last"], again["messages"]) == ("f" * 32, first["last"], first["messages"])
    assert device_messages.pending(registry, A, first["last"])["messages"] == [], "a gate that knows no epochs"
    assert device_messages.pending(registry, B, 7, first["epoch"]) == {"epoch": "f" * 32, "last": 0, "messages": []}


def test_expired_messages_are_not_told_and_go(registry: Registry, rows: Any) -> None:
    put(registry, "theirs", seconds=-1, actor=B)
    put(registry, "old", seconds=-1)
    assert device_messages.pending(registry, A, 0)["messages"] == []
    put(registry, "new")
    assert [row["topic"] for row in rows.all("device_messages")] == ["theirs", "new"]


def test_an_answer_is_bounded(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_messages, "AT_ONCE", 3)
    monkeypatch.setattr(device_messages, "TOGETHER", 25)
    for payload in ("x" * 30, "x" * 10, "x" * 10, "x" * 10, "", "", ""):
        put(registry, "topic", payload)
    sizes = []
    after = 0
    while found := device_messages.pending(registry, A, after)["messages"]:
        after = found[-1]["number"]
        sizes.append([len(one["payload"]) for one in found])
    assert sizes == [[30], [10, 10], [10, 0, 0], [0]]


@pytest.mark.parametrize(
    ("topic", "payload"), [("", ""), ("a/+", ""), ("#", ""), ("x" * 257, ""), ("a", "x" * 131_073)]
)
def test_what_no_broker_takes_is_refused(registry: Registry, rows: Any, topic: str, payload: str) -> None:
    with pytest.raises(InvalidError):
        put(registry, topic, payload)
    assert rows.all("device_messages") == []


def test_a_gate_may_wait(registry: Registry) -> None:
    threading.Timer(0.3, lambda: put(registry, "later")).start()
    start = time.monotonic()
    found = device_messages.pending(registry, A, 0, wait=15)
    assert [one["topic"] for one in found["messages"]] == ["later"]
    assert time.monotonic() - start < 14
    assert device_messages.pending(registry, A, found["last"], wait=0.2)["messages"] == []
