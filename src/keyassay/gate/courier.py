"""The courier of a gate: carries what devices publish for the registry there, and what the registry says back.

It is a client of the broker's private listener. Requests wait in a bounded queue, of one device a few at most; what is
lost on the way (a full queue, a broker or a registry that is down) devices ask for again. Messages of the registry are
published in their order; the number of the last one is kept in a file, with the feed's epoch: a database that was
restored has another one, and gives numbers again.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

#: what devices publish for the registry; replies have longer topics, so that none of them comes back
REQUESTS = ("$aws/things/+/keyassay/replacement/get", "$aws/things/+/keyassay/replacement/create-from-csr")
#: bytes of a payload that are carried; of a larger one nothing, which the registry refuses in words
LARGEST_PAYLOAD = 32_768
#: requests that wait, at all and of one topic; of a batch: how many (a reply waits for the last of its batch) and how
#: many bytes
_MOST, _OF_ONE = 10_000, 4
_BATCH, _BATCH_BYTES = 8, 262_144
#: seconds: between two questions for messages, for the broker's answer, of the back-off
_POLL, _PATIENCE, _LEAST, _LONGEST = 0.2, 10.0, 0.2, 30.0
#: seconds after which a kept number tells nothing: all messages of that time have expired
_STALE = 7_200.0
_KEEPALIVE = 30


class _Source(Protocol):
    """What a courier needs of ``gate.source.Source``."""

    def messages(self, after: int, epoch: str) -> dict[str, Any]: ...

    def deliver(self, messages: list[dict[str, str]]) -> dict[str, Any]: ...


class _Requests:
    """Requests that wait: a queue with an end, in which no device takes much room."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[dict[str, str]] = deque()
        self._of: Counter[str] = Counter()
        self.dropped = 0

    def put(self, topic: str, payload: str) -> None:
        """Append one, or drop it."""
        with self._changed:
            if len(self._waiting) >= _MOST or self._of[topic] >= _OF_ONE:
                self.dropped += 1
                return
            self._of[topic] += 1
            self._waiting.append({"topic": topic, "payload": payload})
            self._changed.notify()

    def batch(self, seconds: float) -> list[dict[str, str]]:
        """The next ones; empty if none came within some seconds."""
        with self._changed:
            if not self._waiting:
                self._changed.wait(seconds)
            found: list[dict[str, str]] = []
            size = 0
            while self._waiting and len(found) < _BATCH:
                size += len(self._waiting[0]["payload"])
                if found and size > _BATCH_BYTES:
                    break
                one = self._waiting.popleft()
                self._of[one["topic"]] -= 1
                if not self._of[one["topic"]]:
                    del self._of[one["topic"]]
                found.append(one)
            return found


class Courier:
    """Carries messages between a broker and the registry.

    Args:
        source: the registry.
        socket_path: the broker's private listener, a unix socket with rights to all topics.
        log: structured.
        position: file for the place of the last message; by default ``messages.position`` beside the socket.
    """

    name = "gate-courier"

    def __init__(self, source: _Source, socket_path: Path | str, log: Any, *, position: Path | None = None) -> None:
        self._source = source
        self._socket = Path(socket_path)
        self._log = log
        self._position = position or self._socket.with_name("messages.position")
        self._requests = _Requests()
        self._connected = threading.Event()
        self._broker: mqtt.Client | None = None

    def run(self, stop: threading.Event) -> None:
        """Carry until ``stop`` is set; errors are waited out."""
        threads = [
            threading.Thread(target=work, args=(stop,), name=f"{self.name}-{what}", daemon=True)
            for what, work in (("requests", self._carry_requests), ("messages", self._carry_messages))
        ]
        for thread in threads:
            thread.start()
        try:
            self._stay_connected(stop)
        finally:
            for thread in threads:
                thread.join(_PATIENCE)

    # the broker

    def _client(self) -> mqtt.Client:
        # an own name each time, so that no device can push the courier out by taking it
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"keyassay-courier-{secrets.token_hex(8)}",
            transport="unix",
            reconnect_on_failure=False,
        )

        def connected(one: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
            if reason.is_failure:
                self._log.warning("the broker refuses the courier", reason=str(reason))
                return
            one.subscribe([(topic, 1) for topic in REQUESTS])

        def subscribed(_client: Any, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
            if any(one.is_failure for one in reasons):
                self._log.warning("the broker refuses the courier's subscriptions")
                return
            self._log.info("the courier is connected")
            self._connected.set()

        def disconnected(_client: Any, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
            self._connected.clear()

        def arrived(_client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
            payload = message.payload if len(message.payload) <= LARGEST_PAYLOAD else b"-"
            with contextlib.suppress(UnicodeDecodeError):  # a topic that is none
                self._requests.put(message.topic, payload.decode("utf-8", "replace"))

        client.on_connect, client.on_disconnect = connected, disconnected
        client.on_subscribe, client.on_message = subscribed, arrived
        return client

    def _stay_connected(self, stop: threading.Event) -> None:
        """Connect, and again whenever the connection ends."""
        wait, told, dropped = _LEAST, False, 0
        while not stop.is_set():
            client = self._broker = self._client()  # a new one: paho leaves descriptors open when it connects again
            try:
                with socket.socket(socket.AF_UNIX) as probe:  # and when nobody listens
                    probe.connect(str(self._socket))
                client.connect(str(self._socket), keepalive=_KEEPALIVE)
                client.loop_start()
                if self._connected.wait(_PATIENCE):
                    wait, told = _LEAST, False
                    while self._connected.is_set() and not stop.wait(0.1):
                        if self._requests.dropped != dropped:
                            self._log.warning(
                                "requests of devices were dropped", count=self._requests.dropped - dropped
                            )
                            dropped = self._requests.dropped
                    if stop.is_set():
                        break
                    self._log.warning("the courier lost its broker")
            except (OSError, ValueError) as error:
                if not told:
                    self._log.warning("the courier does not reach its broker", error=type(error).__name__)
                    told = True
            finally:
                client.disconnect()
                client.loop_stop()
                self._connected.clear()
            stop.wait(wait * random.uniform(0.5, 1.0))  # noqa: S311  only spreads
            wait = min(2 * wait, _LONGEST)

    def _publish(self, messages: list[Mapping[str, Any]]) -> bool:
        """Publish, and wait until the broker has it all; false if it did not come to that."""
        client = self._broker
        if client is None or not self._connected.is_set():
            return False
        try:
            sent = [client.publish(str(one["topic"]), str(one["payload"]), qos=1) for one in messages]
            deadline = time.monotonic() + _PATIENCE
            for one in sent:
                while not one.is_published():
                    if not self._connected.is_set() or time.monotonic() > deadline:
                        return False
                    one.wait_for_publish(0.2)
        except (ValueError, RuntimeError, KeyError):
            return False
        return True

    # the registry

    def _carry_requests(self, stop: threading.Event) -> None:
        wait = _LEAST
        batch: list[dict[str, str]] = []
        while not stop.is_set():
            batch = batch or self._requests.batch(0.5)
            if not batch:
                continue
            try:
                replies = self._source.deliver(batch)["replies"]
            except Exception as error:  # noqa: BLE001  the registry may come back; what it refuses is not asked again
                refused = bool(getattr(error, "refused", False))
                self._log.warning("requests were not delivered", error=str(error)[:200], given_up=refused)
                if refused:
                    batch = []
                stop.wait(wait * random.uniform(0.5, 1.0))  # noqa: S311
                wait = min(2 * wait, _LONGEST)
                continue
            batch, wait = [], _LEAST
            self._publish(replies)

    def _carry_messages(self, stop: threading.Event) -> None:
        wait = _LEAST
        place = self._read_position()
        while not stop.is_set():
            if not self._connected.wait(0.5):
                continue
            try:
                answer = self._source.messages(place[1], place[0])
                messages, following = answer["messages"], (str(answer["epoch"]), int(answer["last"]))
            except Exception as error:  # noqa: BLE001  as above
                self._log.warning("messages for devices were not fetched", error=str(error)[:200])
                stop.wait(wait * random.uniform(0.5, 1.0))  # noqa: S311
                wait = min(2 * wait, _LONGEST)
                continue
            wait = _LEAST
            if messages and not self._publish(messages):
                continue  # some may have been published: devices take a repetition
            if following != place:
                if place[0] not in ("", following[0]):
                    self._log.warning("the registry's database was restored: messages for devices begin anew")
                place = following
                self._write_position(*place)
            if not messages:
                stop.wait(_POLL)

    def _read_position(self) -> tuple[str, int]:
        """Epoch and number that were kept; ("", 0), for all messages that have not expired, if they are not or old."""
        try:
            if time.time() - self._position.stat().st_mtime > _STALE:
                return "", 0
            epoch, number = self._position.read_text()[:100].split()
            return epoch, max(0, int(number))
        except (OSError, ValueError):
            return "", 0

    def _write_position(self, epoch: str, number: int) -> None:
        made = self._position.with_name(f".{self._position.name}.new")
        try:
            made.write_text(f"{epoch} {number}\n")
            os.replace(made, self._position)  # noqa: PTH105  one name in one word
        except OSError as error:
            self._log.warning("the courier cannot keep its place", error=error.strerror)
