"""The courier, with a real Mosquitto on a unix socket."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
import structlog

from keyassay.gate.courier import Courier
from keyassay.gate.source import DatabaseSource, SourceError
from keyassay.registry import device_messages
from keyassay.registry.accounts import feed_epoch
from keyassay.storage.copying import copy
from keyassay.storage.database import Database
from two_accounts import A, Rows

GET = "$aws/things/pump/keyassay/replacement/get"


def until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)
    return value


class Registry:
    """A source of a courier: echoes requests, and has messages."""

    def __init__(self) -> None:
        self.messages_kept: list[dict[str, Any]] = []
        self.asked: list[int] = []
        self.delivered: list[dict[str, str]] = []
        self.batches: list[int] = []
        self.errors: list[Exception] = []

    def messages(self, after: int, epoch: str) -> dict[str, Any]:
        assert epoch in ("", "here")
        self.asked.append(after)
        found = [one for one in self.messages_kept if one["number"] > after]
        return {"epoch": "here", "last": found[-1]["number"] if found else after, "messages": found}

    def deliver(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        if self.errors:
            raise self.errors.pop()
        self.batches.append(len(messages))
        self.delivered += messages
        return {"replies": [{"topic": f"{one['topic']}/accepted", "payload": one["payload"]} for one in messages]}


class Broker:
    """A Mosquitto with a private listener, and a client that plays all devices."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "private.sock"
        self.received: list[tuple[str, str]] = []
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "mosquitto.conf").write_text(
            f"per_listener_settings true\nuser root\nlistener 0 {self.socket}\nallow_anonymous true\n"
        )

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            ["mosquitto", "-c", str(self.folder / "mosquitto.conf")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self.socket.exists)
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, transport="unix")
        listening = threading.Event()
        self.client.on_message = lambda _c, _d, one: self.received.append(
            (one.topic, one.payload.decode("utf-8", "replace"))
        )
        self.client.on_subscribe = lambda *_: listening.set()
        self.client.on_connect = lambda one, *_: one.subscribe("$aws/things/#", 1)
        until(self._reached)
        self.client.loop_start()
        assert listening.wait(10)

    def _reached(self) -> bool:
        """Connect; the socket is there a moment before anybody listens."""
        try:
            return self.client.connect(str(self.socket)) == mqtt.MQTT_ERR_SUCCESS
        except ConnectionRefusedError:
            return False

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        assert self.process is not None
        self.process.terminate()
        self.process.wait(10)

    def publish(self, topic: str, payload: str | bytes) -> None:
        self.client.publish(topic, payload, 1).wait_for_publish(10)

    def payloads(self, topic: str) -> list[str]:
        return [payload for seen, payload in self.received if seen == topic]


@pytest.fixture
def broker() -> Iterator[Broker]:
    if shutil.which("mosquitto") is None:
        pytest.fail("install mosquitto: apt-get install mosquitto")
    with tempfile.TemporaryDirectory(prefix="ka") as folder:
        made = Broker(Path(folder))
        made.start()
        try:
            yield made
        finally:
            made.stop()


@contextmanager
def carrying(source: Any, broker: Broker) -> Iterator[Courier]:
    courier = Courier(source, broker.socket, structlog.wrap_logger(structlog.testing.CapturingLogger()))
    stop = threading.Event()
    thread = threading.Thread(target=courier.run, args=(stop,))
    thread.start()
    try:
        until(courier._connected.is_set)
        yield courier
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def test_requests_go_to_the_registry_and_replies_back_and_nothing_else_does(broker: Broker) -> None:
    registry = Registry()
    with carrying(registry, broker):
        broker.publish("$aws/things/pump/keyassay/replacement/notify", "{}")
        broker.publish("$aws/things/pump/shadow/get", "{}")
        broker.publish(GET, '{"a": 1}')
        until(lambda: broker.payloads(f"{GET}/accepted"))
    assert broker.payloads(f"{GET}/accepted") == ['{"a": 1}']
    assert registry.delivered == [{"topic": GET, "payload": '{"a": 1}'}]


def test_bytes_that_are_no_text_and_too_many_of_them_are_answered_like_others(broker: Broker) -> None:
    registry = Registry()
    with carrying(registry, broker):
        broker.publish(GET, b"\xff\xfe")
        broker.publish(GET, b"a" * 100_000)
        until(lambda: len(registry.delivered) == 2)
    assert [len(one["payload"]) for one in registry.delivered] == [2, 1]


def test_messages_are_published_once_and_in_their_order_over_restarts(broker: Broker) -> None:
    registry = Registry()
    topic = "$aws/things/pump/keyassay/replacement/notify"
    registry.messages_kept = [{"number": number, "topic": topic, "payload": str(number)} for number in range(1, 51)]
    with carrying(registry, broker):
        until(lambda: len(broker.payloads(topic)) == 50 and registry.asked[-1] == 50)
    registry.messages_kept.append({"number": 51, "topic": topic, "payload": "51"})
    with carrying(registry, broker):
        until(lambda: "51" in broker.payloads(topic))
    assert broker.payloads(topic) == [str(number) for number in range(1, 52)]


def test_a_registry_that_is_away_gets_the_requests_later(broker: Broker) -> None:
    registry = Registry()
    registry.errors = [SourceError("away"), ValueError("a defect")]
    with carrying(registry, broker):
        broker.publish(GET, "{}")
        until(lambda: broker.payloads(f"{GET}/accepted"))
    assert len(registry.delivered) == 1


def test_what_the_registry_refuses_is_given_up(broker: Broker) -> None:
    registry = Registry()
    registry.errors = [SourceError("no", refused=True)]
    with carrying(registry, broker):
        broker.publish(GET, "first")
        until(lambda: not registry.errors)
        broker.publish(GET, "second")
        until(lambda: broker.payloads(f"{GET}/accepted"))
    assert [one["payload"] for one in registry.delivered] == ["second"]


def test_a_broker_that_restarts_is_found_again_and_no_message_is_lost(broker: Broker) -> None:
    registry = Registry()
    topic = "$aws/events/certificates/registered/1"
    with carrying(registry, broker) as courier:
        broker.stop()
        until(lambda: not courier._connected.is_set())
        registry.messages_kept = [{"number": 1, "topic": "$aws/things/pump/x", "payload": topic}]
        broker.start()
        until(lambda: broker.payloads("$aws/things/pump/x"))
        broker.publish(GET, "again")
        until(lambda: broker.payloads(f"{GET}/accepted"))


def test_one_device_does_not_fill_the_queue(broker: Broker) -> None:
    registry = Registry()
    gate = threading.Event()
    answer = registry.deliver

    def slow(messages: list[dict[str, str]]) -> dict[str, Any]:
        gate.wait(20)
        return answer(messages)

    registry.deliver = slow  # type: ignore[method-assign]
    with carrying(registry, broker) as courier:
        for number in range(200):
            broker.publish(GET, str(number))
        broker.publish(GET.replace("pump", "valve"), "{}")
        until(lambda: courier._requests.dropped >= 150)
        gate.set()
        until(lambda: broker.payloads(GET.replace("pump", "valve") + "/accepted"))
    assert len(registry.delivered) < 50


def test_a_kept_number_that_is_damaged_or_old_is_forgotten(broker: Broker, tmp_path: Path) -> None:
    import os

    courier = Courier(Registry(), broker.socket, None, position=tmp_path / "position")
    assert courier._read_position() == ("", 0)
    courier._write_position("f" * 32, 7)
    assert courier._read_position() == ("f" * 32, 7)
    for damaged in (json.dumps({}), "", "7", f"{'f' * 32} seven", f"{'f' * 32} 7 7"):
        (tmp_path / "position").write_text(damaged)
        assert courier._read_position() == ("", 0)
    courier._write_position("f" * 32, 7)
    os.utime(tmp_path / "position", (0, 0))
    assert courier._read_position() == ("", 0)


def test_a_restored_database_gives_numbers_again_and_no_message_is_lost(
    broker: Broker, registry: Any, tmp_path: Path
) -> None:
    topic = "$aws/things/pump/keyassay/replacement/notify"

    def put(into: Any, payload: str) -> None:
        with into.database.write(A) as transaction:
            device_messages.put(transaction, topic, payload, 600)

    class Current:
        """The database that the server has at the moment."""

        source = DatabaseSource(registry, A.account_id)

        def messages(self, after: int, epoch: str) -> dict[str, Any]:
            return self.source.messages(after, epoch)

    put(registry, "before")
    backup, restored = (Database(f"sqlite:///{tmp_path}/{name}.db") for name in ("backup", "restored"))
    copy(registry.database, backup, new_epoch=False)
    put(registry, "lost with the old database")
    put(registry, "and this")
    current = Current()
    with carrying(current, broker) as courier:
        until(lambda: len(broker.payloads(topic)) == 3)
        copy(backup, restored, new_epoch=True)
        other = replace(registry, database=restored)
        put(other, "after")  # its number was given before
        current.source = DatabaseSource(other, A.account_id)
        until(lambda: "after" in broker.payloads(topic))
        put(other, "and later")
        until(lambda: "and later" in broker.payloads(topic))
        time.sleep(0.5)
        kept = courier._read_position()
    # what had not expired at the time of the backup comes twice, which devices bear
    expected = ["before", "lost with the old database", "and this", "before", "after", "and later"]
    assert broker.payloads(topic) == expected
    assert kept == (feed_epoch(other), rows_of(restored)[-1])
    backup.close()
    restored.close()


def rows_of(database: Database) -> list[int]:
    """Numbers of the messages that a database holds."""
    return sorted(row["number"] for row in Rows(database).all("device_messages"))
