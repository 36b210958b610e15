"""A gate with real HAProxy, Mosquitto and MQTT clients: who gets in, under which name, and how sessions end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from fleet_keys import authority, ec_key
from keyassay.gate.agent import Agent
from keyassay.gate.maps import COMPACT_AT
from keyassay.gate.runtime import HaproxyError
from keyassay.gate.source import DatabaseSource
from keyassay.registry import certificates, policies, principals, things
from live_gate import (
    OWN_THING,
    TLS12,
    TLS13,
    V5,
    V311,
    Device,
    Failing,
    LiveGate,
    authority_with_registration,
    running_gate,
    tls_context,
    until,
)
from two_accounts import A

SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CLIENTS = pytest.mark.parametrize(("version", "protocol"), [(TLS12, V311), (TLS13, V311), (TLS12, V5), (TLS13, V5)])


class Telling(Failing):
    """A source that keeps what it is told, and can be down."""

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self.told: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []

    def events(self, body: dict[str, Any]) -> dict[str, Any]:
        self.check()
        self.told.append(body)
        return {"registrations": []}

    def report(self, body: dict[str, Any]) -> dict[str, Any]:
        self.check()
        self.reports.append(body)
        return {}

    def seen(self, verdict: str, **more: Any) -> list[dict[str, Any]]:
        """Events of a verdict."""
        wanted = {"verdict": verdict, **more}
        events = [event for body in list(self.told) for event in body["events"]]
        return [event for event in events if all(event[name] == value for name, value in wanted.items())]


@pytest.fixture
def source(registry: Any) -> Telling:
    return Telling(DatabaseSource(registry, A.account_id))


# who gets in


@CLIENTS
def test_revocation_ends_the_session_and_no_other(registry: Any, version: Any, protocol: Any) -> None:
    with running_gate(registry) as gate:
        first, second = gate.device("pump-1"), gate.device("pump-2")
        one = gate.connect(first, protocol=protocol, version=version)
        two = gate.connect(second, protocol=protocol, version=version)
        assert one.accepted.is_set()
        assert two.accepted.is_set()
        gate.revoke(first)
        assert one.ended.wait(10)
        gate.settle()
        assert not gate.connect(first, protocol=protocol, version=version).accepted.is_set()
        assert not two.ended.is_set()
        two.publish("devices/pump-2/t", "x")


@SQLITE
@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_who_gets_in(registry: Any, source: Telling, version: Any) -> None:
    other = authority("Another CA", 101)
    with running_gate(registry, source=source) as gate:
        authority_with_registration(registry, authority())
        signed = gate.device("signed")
        alone = Device(certificate_of("alone", issuer_is_itself=True), gate.settings.folder)
        gate.device("alone", made=alone)
        for device in (signed, alone):
            assert gate.connect(device, version=version).accepted.is_set()
        strangers = {
            "of the right CA": gate.certificate("stranger"),
            "of a foreign CA": gate.certificate("foreign", issuer=other),
            "self-signed": Device(certificate_of("self", issuer_is_itself=True), gate.settings.folder),
            "nobody": None,
        }
        for what, stranger in strangers.items():
            assert not gate.connect(stranger, "stranger", version=version).accepted.is_set(), what
        (right,) = until(lambda: source.seen("unregistered", certificateId=strangers["of the right CA"].id))
        assert right["verifyCode"] == 0
        assert right["der"]
        (foreign,) = until(lambda: source.seen("unregistered", certificateId=strangers["of a foreign CA"].id))
        assert foreign["der"] is None
        assert foreign["verifyCode"] != 0
        assert until(lambda: source.seen("unregistered", certificateId=strangers["self-signed"].id))
        assert until(lambda: source.seen("no-certificate"))


def certificate_of(subject: str, *, issuer_is_itself: bool = False, days: tuple[int, int] = (-1, 365)) -> Any:
    from fleet_keys import certificate

    return certificate(subject, ec_key(abs(hash(subject)) % 1000), None if issuer_is_itself else authority(), days=days)


@SQLITE
@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_an_expired_certificate_is_refused_although_it_is_registered(
    registry: Any, source: Telling, version: Any
) -> None:
    with running_gate(registry, source=source) as gate:
        authority_with_registration(registry, authority())
        soon = certificate_soon_expired(gate)
        gate.device("old", made=soon)
        assert gate.connect(soon, version=version).accepted.is_set()
        time.sleep(max(0.0, soon.signed.certificate.not_valid_after_utc.timestamp() - time.time()) + 1.5)
        assert not gate.connect(soon, version=version).accepted.is_set()
        (event,) = until(lambda: source.seen("handshake", certificateId=soon.id))
        assert event["verifyCode"] == 10


def certificate_soon_expired(gate: LiveGate) -> Device:
    """One that is good for four more seconds."""
    from datetime import UTC, datetime, timedelta

    from cryptography.hazmat.primitives import hashes

    from fleet_keys import Signed, name

    key, now = ec_key(77), datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name("old")).issuer_name(authority().certificate.subject)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(seconds=5))
    return Device(Signed(builder.sign(authority().key, hashes.SHA256()), key), gate.settings.folder)


@SQLITE
def test_client_ids(registry: Any, source: Telling) -> None:
    with running_gate(registry, source=source) as gate:
        for name in ("pump-1", "pump-2", "abc-thing"):
            gate.thing(name)
        own = gate.device("pump-1")
        anything = gate.device("", made=gate.certificate("any"), clients=("*",))
        prefix = gate.device("", made=gate.certificate("prefix"), clients=("abc-*", "Ünïcode~1"))
        both = gate.device("pump-1", made=gate.certificate("both"))
        principals.attach(registry, A, "pump-2", both.arn)
        gate.settle()
        permitted = [
            (own, "pump-1"), (both, "pump-1"), (both, "pump-2"), (anything, "whoever"), (anything, "pump-10"),
            (prefix, "abc-1"), (prefix, "abc- blank"), (prefix, "Ünïcode~1"), (anything, "x" * 128),
        ]  # fmt: skip
        refused = [
            (own, "pump-2"), (own, ""), (own, "pump-10"), (own, "PUMP-1"), (own, "*"), (own, "A:*"), (own, "pump%2D1"),
            (both, "abc-1"), (anything, "pump-1"), (anything, "pump-2"), (anything, ""), (anything, "a/b"),
            (anything, "a+"), (anything, "#"), (anything, "x" * 129), (anything, "a\x7f"), (anything, "a\nb"),
            (prefix, "abc-thing"), (prefix, "ab"), (prefix, "Abc-1"), (prefix, "Ünïcode~"),
        ]  # fmt: skip
        for device, client in permitted:
            assert gate.connect(device, client).accepted.is_set(), client
        for protocol in (V311, V5):
            for device, client in refused:
                assert not gate.connect(device, client, protocol=protocol).accepted.is_set(), client
        until(lambda: len(source.seen("client-id")) == 2 * len(refused))
        assert {event["clientId"] for event in source.seen("client-id")} == {client for _, client in refused}


def connect_packet(client_id: bytes, level: int = 4) -> bytes:
    """An MQTT CONNECT, made by hand."""
    properties = b"\0" if level == 5 else b""
    body = b"\0\4MQTT" + bytes([level, 2]) + b"\0\x3c" + properties + struct.pack(">H", len(client_id)) + client_id
    return bytes([0x10, len(body)]) + body


def raw(gate: LiveGate, device: Device) -> Any:
    """TLS to a gate, without MQTT."""
    plain = socket.create_connection(("localhost", gate.port))
    secure = tls_context(device).wrap_socket(plain, server_hostname="localhost")
    secure.settimeout(20)
    return secure


@SQLITE
@pytest.mark.parametrize("level", [4, 5])
def test_packets_that_no_client_sends(registry: Any, level: int) -> None:
    with running_gate(registry) as gate:
        device = gate.device("pump-1")
        gate.thing("pump-2")

        def answer(*packets: bytes, wait: float = 0.0) -> bytes:
            got = b""
            with raw(gate, device) as secure, contextlib.suppress(OSError):
                for packet in packets:
                    secure.sendall(packet)
                    time.sleep(wait)
                while part := secure.recv(1000):
                    got += part
            return got

        good = connect_packet(b"pump-1", level)
        disconnect = b"\xe0\0"
        assert answer(good, disconnect)[:1] == b"\x20"
        assert answer(good[:5], good[5:], disconnect, wait=0.3)[:1] == b"\x20"
        assert answer(good + disconnect)[:1] == b"\x20"
        assert answer(connect_packet(b"pump-1\0x", level)) == b""
        assert answer(connect_packet(b"pump-2", level)) == b""
        assert answer(b"GET / HTTP/1.1\r\n\r\n") == b""
        # a second CONNECT on the same connection does not change who it is
        second = answer(good + connect_packet(b"pump-2", level) + disconnect)
        assert second[:1] == b"\x20"
        assert second.count(b"\x20") == 1
        assert answer(good[:2] + b"\0\4MQTT" + bytes([level | 0x80]) + good[9:]) == b""


@SQLITE
def test_a_device_reaches_its_own_topics_only_whatever_user_name_it_sends(registry: Any) -> None:
    with running_gate(registry) as gate:
        victim, attacker = gate.device("victim"), gate.device("attacker")
        listening = gate.connect(victim)
        listening.subscribe("devices/victim/#")
        listening.subscribe("$aws/things/victim/#")
        bad = gate.connect(attacker, username="victim")
        assert bad.accepted.is_set()
        for topic in ("devices/victim/#", "$aws/things/victim/#", "#", "$aws/#", "$SYS/#", "devices/+/x"):
            bad.subscribe(topic)
        bad.publish("devices/victim/x", "forged")
        bad.publish("$aws/things/victim/keyassay/x", "forged")
        bad.subscribe("devices/attacker/x")
        bad.publish("devices/attacker/x", "own")
        until(lambda: ("devices/attacker/x", b"own") in bad.messages)
        admin = gate.admin()
        admin.publish("$aws/things/victim/keyassay/notify", "real", 1).wait_for_publish(10)
        until(lambda: listening.messages)
        assert listening.messages == [("$aws/things/victim/keyassay/notify", b"real")]
        assert bad.messages == [("devices/attacker/x", b"own")]
        for path in (gate.settings.private_socket, gate.settings.device_socket, gate.settings.runtime_socket):
            assert path.stat().st_mode & 0o077 == 0
        assert gate.settings.folder.stat().st_mode & 0o077 == 0


# changes


@SQLITE
def test_handshake_before_and_connect_after_the_revocation(registry: Any) -> None:
    with running_gate(registry) as gate:
        device = gate.device("pump-1")
        for revoke in (False, True):
            with raw(gate, device) as secure:
                if revoke:
                    gate.revoke(device)
                    gate.settle()
                secure.sendall(connect_packet(b"pump-1"))
                assert (secure.recv(4) == b"") == revoke


@SQLITE
def test_rights_that_shrink_end_sessions_and_rights_that_grow_let_in(registry: Any) -> None:
    with running_gate(registry) as gate:
        gate.thing("pump-2")
        device = gate.device("pump-1")
        other = gate.device("", made=gate.certificate("any"), clients=("*",))
        assert not gate.connect(device, "pump-2").accepted.is_set()
        principals.attach(registry, A, "pump-2", device.arn)
        gate.settle()
        second = gate.connect(device, "pump-2")
        first = gate.connect(device)
        free = gate.connect(other, "later-a-thing")
        assert first.accepted.is_set()
        assert second.accepted.is_set()
        assert free.accepted.is_set()
        principals.detach(registry, A, "pump-2", device.arn)
        assert second.ended.wait(10)
        assert not first.ended.is_set()
        things.create(registry, A, "later-a-thing")
        assert free.ended.wait(10)
        things.remove(registry, A, "later-a-thing")
        gate.settle()
        assert gate.connect(other, "later-a-thing").accepted.is_set()
        policies.detach(registry, A, gate.allow(device, OWN_THING), device.arn)
        assert first.ended.wait(10)


@SQLITE
def test_deactivated_certificates_come_back_and_deleted_ones_do_not(registry: Any) -> None:
    with running_gate(registry) as gate:
        device = gate.device("pump-1")
        session = gate.connect(device)
        gate.revoke(device, "INACTIVE")
        assert session.ended.wait(10)
        gate.agent.maps.compact(now=True)
        gate.revoke(device, "ACTIVE")
        gate.settle()
        session = gate.connect(device)
        assert session.accepted.is_set()
        assert gate.agent.maps.counted()
        gate.revoke(device, "INACTIVE")
        principals.detach(registry, A, "pump-1", device.arn)
        certificates.remove(registry, A, device.id, force=True)
        gate.settle()
        assert not gate.connect(device, "pump-1").accepted.is_set()


@SQLITE
def test_what_is_deleted_leaves_the_list_of_blocked_ones(registry: Any) -> None:
    with running_gate(registry) as gate:
        maps, file = gate.agent.maps, gate.agent.maps._settings.map("blocked")
        deleted, inactive, back = (gate.device(f"pump-{number}") for number in range(3))
        for device in (deleted, inactive, back):
            gate.revoke(device, "INACTIVE")
        for number, device in ((0, deleted), (2, back)):
            principals.detach(registry, A, f"pump-{number}", device.arn)
            certificates.remove(registry, A, device.id, force=True)
        gate.settle()
        assert maps.counts["blocked"] == 3
        certificates.register_without_authority(
            registry, A, back.signed.pem, status="INACTIVE"
        )  # it is somebody's again
        gate.settle()
        gate.stop_agent()
        assert maps.compact(now=True)
        assert maps.counts["blocked"] == 2
        maps.block([deleted.id], gone={deleted.id})
        gate.agent.runtime.add(maps._settings.map("active"), [(deleted.id, "A:pump-0")])  # as after a failed command
        assert maps.compact(now=True)
        assert maps.repair()
        assert maps.counts["blocked"] == 3
        assert not gate.connect(deleted, "pump-0").accepted.is_set()
        assert maps.compact(now=True)
        assert maps.counts["blocked"] == 2
        assert {line[:64] for line in file.read_text().splitlines()} == {inactive.id, back.id}
        assert maps.counted()
        assert not maps.repair()
        for number, device in enumerate((deleted, inactive, back)):
            assert not gate.connect(device, f"pump-{number}").accepted.is_set()
        assert not maps.compact(now=True)


@SQLITE
def test_many_deleted_certificates_are_forgotten_at_once(registry: Any) -> None:
    with running_gate(registry) as gate:
        maps = gate.agent.maps
        many = [f"{number:064x}" for number in range(COMPACT_AT)]
        maps.block(many[1:], gone=many[1:])
        assert not maps.compact(), "few, and not long ago"
        maps.block(many[:1], gone=many[:1])
        until(lambda: maps.compact() or not maps.counts["blocked"])
        assert maps.counts["blocked"] == 0
        assert maps.counted()


@SQLITE
def test_thousands_of_certificates_go_to_haproxy_in_pieces_that_fit(registry: Any) -> None:
    with running_gate(registry) as gate:
        from keyassay.gate.maps import Rights

        many = {f"{number:064x}": Rights("A:" + "x" * (number % 120)) for number in range(3_000)}
        gate.agent.maps.admit(many)
        assert gate.agent.maps.counted()
        assert gate.agent.maps.block(list(many)) == set(many)
        assert gate.agent.maps.counted()
        until(lambda: gate.agent.maps.compact() or not gate.agent.maps.counts["active"])  # more than a thousand
        assert gate.agent.maps.counted()
        assert gate.agent.maps.counts["active"] == 0
        assert not gate.agent.maps.repair()


# what goes wrong


@SQLITE
def test_without_the_registry_the_last_known_state_stays(registry: Any, source: Telling) -> None:
    with running_gate(registry, source=source) as gate:
        device, other = gate.device("pump-1"), gate.device("pump-2")
        session = gate.connect(other)
        source.down = True
        assert gate.connect(device).accepted.is_set()
        until(lambda: any(entry["event"].startswith("the registry does not answer") for entry in gate.log))
        gate.revoke(other)
        time.sleep(1.0)
        assert not session.ended.is_set()
        source.down = False
        assert session.ended.wait(10)
        until(lambda: source.seen("ok", certificateId=device.id, established=True))


@SQLITE
def test_a_stale_gate_lets_nobody_new_in_if_it_was_told_so(registry: Any, source: Telling) -> None:
    with running_gate(registry, source=source, stale_after=6) as gate:
        device, other = gate.device("pump-1"), gate.device("pump-2")
        session = gate.connect(other)
        time.sleep(8)
        assert gate.connect(device).accepted.is_set() or pytest.fail("it is not stale while the registry answers")
        source.down = True
        time.sleep(11)
        assert not gate.connect(device).accepted.is_set()
        assert not session.ended.is_set()
        source.down = False
        until(lambda: gate.connect(device).accepted.is_set(), 15)  # noqa: PLW0108  a new connection each time
        assert until(lambda: source.seen("stale", certificateId=device.id))


@SQLITE
def test_a_gate_that_restarts_knows_from_its_files(registry: Any, source: Telling) -> None:
    with running_gate(registry, source=source) as gate:
        good, bad = gate.device("pump-1"), gate.device("pump-2")
        gate.revoke(bad)
        gate.settle()
        gate.stop_agent()
        gate.processes.stop()
        source.down = True
        gate.processes.start()
        assert gate.connect(good).accepted.is_set()
        assert not gate.connect(bad).accepted.is_set()
        gate.start_agent()
        time.sleep(1)
        assert gate.connect(good).accepted.is_set()


@SQLITE
def test_reload_with_an_old_session(registry: Any) -> None:
    with running_gate(registry) as gate:
        device, other = gate.device("pump-1"), gate.device("pump-2")
        session = gate.connect(device)
        gate.agent.runtime.reload()
        until(lambda: _older(gate))
        # the old worker's maps stay as they are: a revocation closes what it has
        gate.revoke(device)
        assert session.ended.wait(15)
        gate.settle()
        assert not gate.connect(device).accepted.is_set()
        assert gate.connect(other).accepted.is_set()


def _older(gate: LiveGate) -> list[str]:
    try:
        return gate.agent.runtime.older_workers()
    except HaproxyError:  # the master begins anew
        return []


@SQLITE
def test_more_authorities_than_fit_a_command(registry: Any, source: Telling) -> None:
    with running_gate(registry, source=source) as gate:
        made = [authority(f"CA number {number}", 200 + number) for number in range(40)]
        for one in made:
            authority_with_registration(registry, one)
        gate.settle(30)
        stranger = gate.certificate("stranger", issuer=made[-1])

        def judged() -> bool:
            gate.connect(stranger, "stranger")
            return any(event["verifyCode"] == 0 for event in source.seen("unregistered", certificateId=stranger.id))

        until(judged, 15)


@SQLITE
def test_programs_that_die_are_started_again_and_the_maps_are_right(registry: Any) -> None:
    with running_gate(registry) as gate:
        device = gate.device("pump-1")
        bad = gate.device("pump-2")
        for name in ("haproxy", "mosquitto"):
            os.kill(gate.processes.pid(name), signal.SIGKILL)
            time.sleep(0.2)
            until(lambda: _watched(gate))
        gate.revoke(bad)
        gate.settle()
        until(gate.connect(device).accepted.is_set)
        assert not gate.connect(bad).accepted.is_set()


def _watched(gate: LiveGate) -> bool:
    gate.processes.watch()
    try:
        return bool(gate.processes.runtime.ask("show info"))
    except HaproxyError:
        return False


@SQLITE
def test_a_broker_that_is_down_is_told(registry: Any, source: Telling) -> None:
    with running_gate(registry, source=source, broker="/nowhere/mqtt.sock") as gate:
        device = gate.device("pump-1")
        assert not gate.connect(device).accepted.is_set()
        (event,) = until(lambda: source.seen("ok", certificateId=device.id))
        assert event["established"] is False
        assert gate.agent.queue.refused["broker"] == 1


@SQLITE
@pytest.mark.parametrize("lost", ["pairs.map", "active.map", "blocked.map", "sync.map"])
def test_a_torn_file_is_mended_by_a_snapshot(registry: Any, lost: str) -> None:
    with running_gate(registry) as gate:
        good, bad = gate.device("pump-1"), gate.device("pump-2")
        gate.revoke(bad)
        gate.settle()
        gate.stop_agent()
        path = gate.settings.folder / lost
        path.write_text(path.read_text()[:-3] + "x")
        gate.start_agent()
        until(lambda: not gate.agent.maps.damaged and gate.agent.maps.epoch)
        gate.settle()
        assert gate.connect(good).accepted.is_set()
        assert not gate.connect(bad).accepted.is_set()
        assert gate.agent.maps.counted()


@SQLITE
@pytest.mark.parametrize(
    "step", ["blocked file", "blocked in HAProxy", "sessions closed", "sync file", "sync in HAProxy"]
)
def test_an_agent_that_is_killed_during_a_revocation_is_no_loss(registry: Any, tmp_path: Path, step: str) -> None:
    with running_gate(registry) as gate:
        device, other = gate.device("pump-1"), gate.device("pump-2")
        session, stays = gate.connect(device), gate.connect(other)
        gate.stop_agent()
        gate.revoke(device)
        _killed_at(gate, step)
        gate.start_agent()
        assert session.ended.wait(10)
        gate.settle()
        assert not gate.connect(device).accepted.is_set()
        assert not stays.ended.is_set()
        assert gate.agent.maps.counted()


@SQLITE
@pytest.mark.parametrize("step", ["things file", "things in HAProxy", "pairs file", "active file", "rights in HAProxy",
                                  "blocked file", "unblocked in HAProxy"])  # fmt: skip
def test_an_agent_that_is_killed_while_letting_in_is_no_loss(registry: Any, step: str) -> None:
    with running_gate(registry) as gate:
        device = gate.device("pump-1", status="INACTIVE")
        gate.stop_agent()
        gate.thing("pump-2")
        principals.attach(registry, A, "pump-2", device.arn)
        gate.revoke(device, "ACTIVE")
        _killed_at(gate, step)
        gate.start_agent()
        gate.settle()
        assert gate.connect(device, "pump-1").accepted.is_set()
        assert gate.connect(device, "pump-2").accepted.is_set()
        assert gate.agent.maps.counted()


def _killed_at(gate: LiveGate, step: str) -> None:
    """Let an agent work in another process, which is killed right after a step."""
    from keyassay.storage.database import Database

    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            import dataclasses

            url = str(gate.registry.database.engine.url)
            registry = dataclasses.replace(gate.registry, database=Database(url))

            def kill(done: str) -> None:
                if done == step:
                    os.write(write, b"k")
                    os.kill(os.getpid(), signal.SIGKILL)

            agent = Agent(gate.name, gate.settings, DatabaseSource(registry, A.account_id), gate._logger, kill)
            while not agent.step(0.1):
                pass
            agent.step(0.1)
        finally:
            os._exit(1)
    os.close(write)
    os.waitpid(child, 0)
    reached = os.read(read, 1)
    os.close(read)
    assert reached == b"k", f"no such step: {step}"


# what is told


@SQLITE
def test_connections_are_told_with_their_end(registry: Any, source: Telling) -> None:
    with running_gate(registry, source=source) as gate:
        device = gate.device("pump-1")
        session = gate.connect(device, version=TLS13)
        (event,) = until(lambda: source.seen("ok", certificateId=device.id))
        assert event["established"] is True
        assert event["clientId"] == "pump-1"
        assert event["tlsVersion"] == "TLSv1.3"
        assert event["source"].startswith("127.0.0.1:")
        assert abs(event["at"] / 1000 - time.time()) < 60
        live = {"certificateId": device.id, "clientId": "pump-1", "source": event["source"]}
        until(lambda: any(_lists(body, live) for body in source.told), 15)
        session.close()
        until(lambda: _last_list(source) == [], 30)
        gate.revoke(device)
        gate.settle()
        until(lambda: any(report["revision"] >= gate.agent.maps.revision for report in source.reports))
        gate.connect(device)
        until(lambda: source.seen("inactive", certificateId=device.id))
        until(lambda: any(report["refusals"].get("inactive") for report in source.reports), 15)


def _lists(body: dict[str, Any], live: dict[str, Any]) -> bool:
    return any(live.items() <= one.items() for one in body["sessions"] or ())


def _last_list(source: Telling) -> Any:
    lists = [body["sessions"] for body in source.told if body["sessions"] is not None]
    return lists[-1] if lists else None


@SQLITE
def test_two_gates(registry: Any) -> None:
    with running_gate(registry, name="north") as north, running_gate(registry, name="south") as south:
        device = north.device("pump-1")
        south.settle()
        sessions = [north.connect(device), south.connect(device, "pump-1")]
        assert all(session.accepted.is_set() for session in sessions)
        north.revoke(device)
        assert all(session.ended.wait(10) for session in sessions)


@SQLITE
def test_both_families_and_plain_addresses(registry: Any, source: Telling) -> None:
    from live_gate import free_port, start_session

    port = free_port()
    with running_gate(registry, source=source, listen=(f":{port}",)) as gate:
        device = gate.device("pump-1")
        session = start_session(port, device, "pump-1")
        assert session.accepted.is_set()
        (event,) = until(lambda: source.seen("ok", certificateId=device.id))
        assert not event["source"].startswith("::ffff:")
        gate.revoke(device)
        assert session.ended.wait(10)
        session.close()


def test_a_second_gate_in_a_folder_is_refused(registry: Any) -> None:
    from keyassay.errors import KeyassayError
    from keyassay.gate.running import Processes

    with running_gate(registry, agent=False) as gate, pytest.raises(KeyassayError, match="another gate works in"):
        Processes(gate.settings, gate._logger).start()
