"""The recipe for Mosquitto in docs/other-brokers.md, with a real one: what a list does there, and what it does not."""

from __future__ import annotations

import getpass
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import fleet_keys
from issuing_requests import request
from keyassay.registry import certificates, issuing, status_lists
from keyassay.registry.registry import Registry
from two_accounts import A


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def write_key(path: Path, key: Any) -> None:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


class Broker:
    """Mosquitto in the foreground, set up as the page says."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.folder, self.registry, self.port = folder, registry, free_port()
        self.issuer_id = issuing.make_issuer(registry, A).id
        (folder / "ca.pem").write_text(issuing.issuer_pem(registry, A))
        name = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        self.own = fleet_keys.certificate("broker", fleet_keys.ec_key(7), extensions=((name, False),))
        (folder / "server.pem").write_text(self.own.pem)
        write_key(folder / "server.key", self.own.key)
        self.fetch()
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\n"
            f"user {getpass.getuser()}\n"  # started by root it would be another's, who cannot read these files
            f"certfile {folder}/server.pem\nkeyfile {folder}/server.key\n"
            f"cafile {folder}/ca.pem\ncrlfile {folder}/list.pem\n"
            "require_certificate true\nuse_identity_as_username true\nallow_anonymous false\n"
        )
        self.process = subprocess.Popen(["mosquitto", "-c", str(folder / "mosquitto.conf")])

    def fetch(self) -> None:
        """What the page does by curl and openssl, every so often."""
        made = status_lists.sign(self.registry, A.account_id, self.issuer_id)
        command = ["openssl", "crl", "-inform", "DER", "-outform", "PEM", "-out", str(self.folder / "list.new")]
        subprocess.run(command, input=made.der, check=True)
        (self.folder / "list.new").rename(self.folder / "list.pem")

    def reread(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def device(self, name: str) -> Device:
        pem = request(name, fleet_keys.ec_key(len(name)))
        issued = issuing.certify_request(self.registry, A, pem, set_as_active=True)
        (self.folder / f"{name}.pem").write_text(issued.certificate_pem)
        write_key(self.folder / f"{name}.key", fleet_keys.ec_key(len(name)))
        return Device(self, name, issued.registered.id)


class Device:
    """A device that connects."""

    def __init__(self, broker: Broker, name: str, certificate_id: str) -> None:
        self.broker, self.name, self.id = broker, name, certificate_id

    def connected(self, client_id: str) -> mqtt.Client | None:
        """A client that is connected; None if it was refused."""
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id)
        folder = self.broker.folder
        client.tls_set(str(folder / "server.pem"), str(folder / f"{self.name}.pem"), str(folder / f"{self.name}.key"))
        answered = threading.Event()
        client.on_connect = lambda *_: answered.set()
        try:
            client.connect("127.0.0.1", self.broker.port)
        except OSError:
            return None
        client.loop_start()
        if answered.wait(2.0) and client.is_connected():
            return client
        client.loop_stop()
        return None

    def gets_in(self) -> bool:
        client = self.connected(f"{self.name}-again")  # the same id would take the session over
        if client is None:
            return False
        client.disconnect()
        client.loop_stop()
        return True

    def is_refused_soon(self) -> bool:
        """The signal takes a moment to be seen."""
        deadline = time.monotonic() + 15
        while self.gets_in():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True


@pytest.fixture
def broker(registry: Registry, tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path, registry)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", made.port)) == 0:
                    break
            time.sleep(0.05)
        yield made
    finally:
        made.process.terminate()
        made.process.wait(10)


def test_mosquitto_with_a_list(broker: Broker) -> None:
    revoked, other = broker.device("revoked"), broker.device("another")
    session = revoked.connected("revoked")
    assert session is not None
    certificates.set_status(broker.registry, A, revoked.id, "REVOKED")
    broker.fetch()
    time.sleep(0.3)
    assert other.gets_in()
    broker.reread()
    assert revoked.is_refused_soon()
    assert other.gets_in()
    received = threading.Event()
    session.on_message = lambda *_: received.set()
    session.subscribe("x")
    session.publish("x", "y", qos=0)
    assert received.wait(10), "the session that was open stays open: this list closes none"
    session.disconnect()
    session.loop_stop()


def test_an_expired_list_refuses_everybody(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    device = broker.device("device")
    assert device.gets_in()
    monkeypatch.setattr(status_lists, "LASTS", timedelta(minutes=-1))
    broker.fetch()
    broker.reread()
    assert device.is_refused_soon()
