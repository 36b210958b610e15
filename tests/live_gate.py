"""A running gate for tests: real HAProxy and Mosquitto in a short temporary folder, an agent, and MQTT clients.

with running_gate(registry) as gate:
    device = gate.device("pump-1")           # registered, attached to its thing, with a policy
    session = gate.connect(device)           # paho-mqtt over mutual TLS
    certificates.set_status(registry, A, device.id, "REVOKED")
    assert session.ended.wait(10)
"""

from __future__ import annotations

import gc
import json
import shutil
import socket
import ssl
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleet_keys import Signed, authority, certificate, ec_key
from keyassay.gate.agent import Agent
from keyassay.gate.rendering import GateSettings
from keyassay.gate.running import Processes
from keyassay.gate.source import DatabaseSource, SourceError
from keyassay.registry import authorities, certificates, policies, principals, things
from keyassay.registry.errors import AlreadyExistsError
from two_accounts import A

V311, V5 = mqtt.MQTTv311, mqtt.MQTTv5
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
#: permits a certificate to connect as any thing that it is attached to
OWN_THING = "${iot:Connection.Thing.ThingName}"


def key_pem(key: Any) -> str:
    """A private key in PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@cache
def broker() -> Signed:
    """The broker's certificate, self-signed."""
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    return certificate("localhost", ec_key(900), extensions=((names, False),))


def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait until something is true; its value, or an AssertionError after three times the seconds that it may take.

    Nothing is timed here: a busy machine shall not fail.
    """
    deadline = time.monotonic() + 3 * seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {3 * seconds} s"
        time.sleep(0.01)
    return value


def free_port() -> int:
    """A TCP port that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def connect_policy(*client_ids: str, effect: str = "Allow", account: str = A.account_id) -> str:
    """A policy for ``iot:Connect`` under some client ids."""
    resources = [f"arn:aws:iot:us-east-1:{account}:client/{one}" for one in client_ids]
    statement = {"Effect": effect, "Action": "iot:Connect", "Resource": resources}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@dataclass
class Device:
    """A key with a certificate, as files for a TLS client."""

    signed: Signed
    folder: Path
    thing: str = ""

    @property
    def id(self) -> str:
        return self.signed.id

    @property
    def arn(self) -> str:
        return f"arn:aws:iot:us-east-1:{A.account_id}:cert/{self.id}"

    @property
    def file(self) -> Path:
        path = self.folder / f"{self.id[:16]}.pem"
        if not path.exists():
            path.write_text(self.signed.pem + key_pem(self.signed.key))
        return path


@dataclass
class Session:
    """An MQTT client and what happened to it.

    Attributes:
        accepted: CONNACK with success came.
        ended: the connection is gone (or never came to be).
        messages: topic and payload of what arrived.
    """

    client: mqtt.Client
    accepted: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    messages: list[tuple[str, bytes]] = field(default_factory=list)
    subscribed: threading.Event = field(default_factory=threading.Event)
    reason: Any = None
    granted: Any = None

    def subscribe(self, topic: str, qos: int = 1) -> None:
        """Subscribe and wait for the broker's answer."""
        self.subscribed.clear()
        self.client.subscribe(topic, qos)
        assert self.subscribed.wait(10)

    def publish(self, topic: str, payload: str | bytes, qos: int = 1) -> None:
        """Publish and wait for the broker's answer."""
        self.client.publish(topic, payload, qos).wait_for_publish(10)

    def close(self) -> None:
        """Disconnect."""
        self.client.disconnect()
        self.client.loop_stop()
        self.client._reset_sockets()  # paho leaves that to the collector


def tls_context(device: Device | None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """TLS as a device does it; the broker's certificate is checked."""
    context = ssl.create_default_context(cadata=broker().pem)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if device is not None:
        context.load_cert_chain(device.file)
    return context


def start_session(
    port: int,
    device: Device | None,
    client_id: str,
    *,
    protocol: int = V311,
    version: ssl.TLSVersion | None = None,
    username: str = "",
    wait: float = 10.0,
    keepalive: int = 60,
) -> Session:
    """Connect and wait until the broker has answered or the connection is closed."""
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol, reconnect_on_failure=False
    )
    session = Session(client)
    if username:
        client.username_pw_set(username)
    client.tls_set_context(tls_context(device, version))

    def connected(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        session.reason = reason
        if not reason.is_failure:
            session.accepted.set()

    def disconnected(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        session.reason = reason
        session.ended.set()

    def arrived(_client: Any, _data: Any, message: Any) -> None:
        session.messages.append((message.topic, message.payload))

    def subscribed(_client: Any, _data: Any, _mid: int, granted: Any, _properties: Any) -> None:
        session.granted = granted
        session.subscribed.set()

    client.on_connect, client.on_disconnect, client.on_message = connected, disconnected, arrived
    client.on_subscribe = subscribed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # paho forgets to close the socket of a failed handshake
        try:
            client.connect("localhost", port, keepalive)
        except (ssl.SSLError, OSError) as error:  # TLS 1.2 refuses in the handshake
            session.reason = str(error)
            session.ended.set()
            client._reset_sockets()
        if session.ended.is_set():
            gc.collect()
            return session
    client.loop_start()
    deadline = time.monotonic() + 3 * wait
    while not (session.accepted.is_set() or session.ended.is_set()) and time.monotonic() < deadline:
        time.sleep(0.002)
    return session


class Failing:
    """A source of a gate that fails as long as it is told to: a registry that is down."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.down = False

    def check(self) -> None:
        """Fail if it is down."""
        if self.down:
            raise SourceError("down, for a test")

    def __getattr__(self, name: str) -> Any:
        self.check()
        return getattr(self._source, name)


class LiveGate:
    """What tests do with a gate.

    Attributes:
        registry, actor: the source.
        settings: the gate's.
        port: for devices, on localhost.
        processes: HAProxy and Mosquitto.
        agent: its agent; it runs unless ``agent=False`` was said.
        log: entries of its log.
    """

    def __init__(self, registry: Any, settings: GateSettings, port: int, source: Any, name: str, sweep: float) -> None:
        self.registry = registry
        self.actor = A
        self.settings = settings
        self.port = port
        self.source = source
        self.name = name
        self.log: list[dict[str, Any]] = []
        logger = structlog.wrap_logger(
            structlog.testing.CapturingLogger(),
            processors=[lambda _logger, level, event: self.log.append(event | {"level": level}) or event],
        )
        self.processes = Processes(settings, logger)
        self.agent = Agent.__new__(Agent)
        self._logger = logger
        self._sweep = sweep
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._sessions: list[Session] = []

    # its life

    def start_agent(self) -> None:
        """Start an agent, which begins from the files."""
        self._stop = threading.Event()
        self.agent = Agent(self.name, self.settings, self.source, self._logger, sweep=self._sweep)
        self._thread = threading.Thread(target=self.agent.run, args=(self._stop,), daemon=True)
        self._thread.start()

    def stop_agent(self) -> None:
        """End the agent; HAProxy goes on."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
            assert not self._thread.is_alive()
            self._thread = None

    def close_sessions(self) -> None:
        """Disconnect all clients."""
        for session in self._sessions:
            session.close()
        self._sessions.clear()

    def settle(self, seconds: float = 15.0) -> None:
        """Wait until the gate has applied everything that the registry has now."""
        from keyassay.registry.gate_feed import server_state

        with self.registry.database.read() as connection:
            epoch, revision = server_state(connection)
        self._reach(epoch, revision, seconds)

    def _reach(self, epoch: str, revision: int, seconds: float) -> None:
        until(lambda: self.agent.maps.epoch == epoch and self.agent.maps.revision >= revision, seconds)

    # devices

    def certificate(self, subject: str = "device", issuer: Signed | None = None, **more: Any) -> Device:
        """A certificate that the registry does not know."""
        key = more.pop("key", None) or ec_key(hash(subject) % 1_000)
        made = certificate(subject, key, issuer or authority(), **more)
        return Device(made, self.settings.folder)

    def device(
        self,
        thing: str = "",
        *,
        clients: tuple[str, ...] = (OWN_THING,),
        made: Device | None = None,
        status: str = "ACTIVE",
        settle: bool = True,
    ) -> Device:
        """A registered certificate: attached to a thing (made if need be), with a policy for some client ids."""
        device = made or self.certificate(thing or "device")
        certificates.register_without_authority(self.registry, A, device.signed.pem, status=status)
        if thing:
            self.thing(thing)
            principals.attach(self.registry, A, thing, device.arn)
            device.thing = thing
        if clients:
            self.allow(device, *clients)
        if settle and self._thread is not None:
            self.settle()
        return device

    def thing(self, name: str) -> None:
        """A thing, if there is none of that name."""
        with suppress(AlreadyExistsError):
            things.create(self.registry, A, name)

    def allow(self, device: Device, *clients: str, effect: str = "Allow") -> str:
        """A policy for these client ids, attached to a certificate; its name."""
        document = connect_policy(*clients, effect=effect)
        name = f"connect-{effect}-{abs(hash(document))}"
        with suppress(AlreadyExistsError):
            policies.create(self.registry, A, name, document)
        policies.attach(self.registry, A, name, device.arn)
        return name

    def revoke(self, device: Device, status: str = "REVOKED") -> None:
        """Change a certificate's status."""
        certificates.set_status(self.registry, A, device.id, status)

    def connect(self, device: Device | None, client_id: str | None = None, **more: Any) -> Session:
        """Connect; as the device's thing if no client id is given. See ``start_session``."""
        chosen = client_id if client_id is not None else device.thing if device else "nobody"
        session = start_session(self.port, device, chosen, **more)
        self._sessions.append(session)
        return session

    def admin(self) -> mqtt.Client:
        """A client at the private listener, which may use every topic; connected, its loop runs."""
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="registry-test", transport="unix")
        client.connect(str(self.settings.private_socket))
        client.loop_start()
        self._sessions.append(Session(client))
        return client


def authority_with_registration(registry: Any, made: Signed) -> None:
    """Register an authority whose devices register when they first connect."""
    authorities.register(registry, A, made.pem, mode="SNI_ONLY", set_as_active=True, auto_registration=True)


@contextmanager
def running_gate(
    registry: Any, *, source: Any = None, name: str = "gate-1", agent: bool = True, sweep: float = 1.0, **settings: Any
) -> Iterator[LiveGate]:
    """A gate of account A until the block ends.

    Args:
        registry: the source is its database, unless ``source`` is given.
        source: another source.
        name: of the gate.
        agent: whether its agent is started, and has taken its first snapshot when the block begins.
        sweep: seconds between looks at everything.
        settings: of ``GateSettings``.
    """
    folder = Path(tempfile.mkdtemp(prefix="kg-"))
    port = free_port()
    server = folder / "server.pem"
    server.write_text(broker().pem + key_pem(broker().key))
    chosen = GateSettings(folder, server, settings.pop("listen", (f"127.0.0.1:{port}",)), **settings)
    gate = LiveGate(registry, chosen, port, source or DatabaseSource(registry, A.account_id), name, sweep)
    try:
        gate.processes.start()
        if agent:
            gate.start_agent()
            until(lambda: gate.agent.maps.epoch, 20)
        yield gate
    finally:
        gate.close_sessions()
        gate.stop_agent()
        gate.processes.stop()
        shutil.rmtree(folder, ignore_errors=True)
