"""A server as its users meet it: boto3 in front, both databases behind, first start, TLS, bounds, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import select
from uvicorn.server import ServerState

import fleet_keys
from keyassay.errors import KeyassayError
from keyassay.registry import accounts
from keyassay.server import running as module
from keyassay.server.running import BoundedProtocol, _configured
from keyassay.server.settings import Address, Settings
from keyassay.storage import schema
from keyassay.storage.database import Database
from live_server import ENVIRONMENT, client, client_of, running
from two_accounts import SECRET, A


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_certificate_goes_in_and_comes_out_by_boto3(database_url: str, tmp_path: Path) -> None:
    one = fleet_keys.device()
    with running(tmp_path, database=database_url) as server:
        api = client(server)
        made = api.register_certificate_without_ca(certificatePem=one.pem, status="ACTIVE")
        assert made["certificateId"] == one.id
        described = api.describe_certificate(certificateId=one.id)["certificateDescription"]
        assert described["certificatePem"] == one.pem
        assert described["ownedBy"] == A.account_id
        assert described["validity"]["notAfter"] == one.certificate.not_valid_after_utc
        with pytest.raises(api.exceptions.ResourceAlreadyExistsException) as raised:
            api.register_certificate_without_ca(certificatePem=one.pem)
        assert raised.value.response["resourceId"] == one.id
        api.update_certificate(certificateId=one.id, newStatus="REVOKED")
        with pytest.raises(api.exceptions.CertificateStateException) as raised:
            api.update_certificate(certificateId=one.id, newStatus="ACTIVE")
        assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 406
        assert [row["status"] for row in api.list_certificates()["certificates"]] == ["REVOKED"]
        api.delete_certificate(certificateId=one.id)
        with pytest.raises(api.exceptions.ResourceNotFoundException):
            api.describe_certificate(certificateId=one.id)


def test_signatures_and_roles_are_checked(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        auditor = accounts.create_key(server.registry, A, accounts.Role.AUDITOR)
        for arguments, code in (
            ({"secret": "wrong" * 8}, "InvalidSignatureException"),
            ({"access_key_id": "AKIANOBODYNOBODYNOBO"}, "UnrecognizedClientException"),
            ({"region": "eu-west-1"}, "InvalidSignatureException"),
        ):
            with pytest.raises(ClientError) as raised:
                client(server, **arguments).list_certificates()
            assert raised.value.response["Error"]["Code"] == code
        reader = client(server, auditor.access_key_id, auditor.secret_access_key)
        assert reader.list_certificates()["certificates"] == []
        with pytest.raises(ClientError) as raised:
            reader.register_certificate_without_ca(certificatePem=fleet_keys.device().pem)
        assert raised.value.response["Error"]["Code"] == "AccessDeniedException"
        accounts.deactivate_key(server.registry, A, auditor.access_key_id)
        time.sleep(module.KEY_SECONDS + 0.1)
        with pytest.raises(ClientError) as raised:
            reader.list_certificates()
        assert raised.value.response["Error"]["Code"] == "UnrecognizedClientException"


def test_health_is_open_and_everything_else_is_not(tmp_path: Path) -> None:
    with running(tmp_path, metrics=Address("127.0.0.1", 0)) as server:
        base = server.addresses[0]
        assert get(f"{base}/healthz") == (200, b"alive\n")
        assert get(f"{base}/readyz") == (200, b"ready\n")
        for path in ("/", "/certificates", "/metrics", "/keyassay/v1/changes"):
            assert get(base + path)[0] == 403
        client(server).list_certificates()
        _, counters = get(f"http://127.0.0.1:{server.observer.metrics_port}/metrics")
        assert b'keyassay_requests_total{error="",operation="ListCertificates",status="200"} 1.0' in counters
        assert A.name.encode() not in counters


def test_without_signatures_on_loopback_only(tmp_path: Path) -> None:
    with running(tmp_path, insecure_no_auth=True) as server:
        status, body = get(f"{server.addresses[0]}/certificates")
        assert (status, json.loads(body)) == (200, {"certificates": []})


@pytest.mark.parametrize(
    "wrong",
    [
        {"listen": (Address("0.0.0.0", 1),)},
        {"listen": (Address("::", 1),), "insecure_no_auth": True},
        {"listen": (Address("example.org", 1),)},
        {"tls_key": Path("x")},
        {"metrics": Address("0.0.0.0", 9)},
        {"region": "Mars"},
        {"screening": "maybe"},
    ],
)
def test_settings_that_are_not_safe(wrong: dict[str, object]) -> None:
    with pytest.raises(KeyassayError):
        Settings(**wrong)


@pytest.mark.parametrize("text", ["", "8443", "host", "host:", "::1:8443", "[::1]", "h:99999", "a b:1"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(KeyassayError):
        Address.parse(text)
    assert str(Address.parse("[::1]:8443")) == "[::1]:8443"


def test_tls(tmp_path: Path) -> None:
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = fleet_keys.certificate("localhost", fleet_keys.ec_key(3), is_authority=True, extensions=((names, False),))
    (tmp_path / "cert.pem").write_text(signed.pem)
    (tmp_path / "key.pem").write_bytes(signed.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    tls = {"tls_certificate": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}
    with running(tmp_path, **tls) as server:
        assert server.addresses[0].startswith("https://127.0.0.1:")
        assert client(server, verify=str(tmp_path / "cert.pem")).list_certificates()["certificates"] == []
    with running(tmp_path, listen=(Address("0.0.0.0", 0),), **tls) as server:
        assert server.addresses[0].startswith("https://0.0.0.0:")
    with pytest.raises(KeyassayError, match="TLS"), running(tmp_path, **{**tls, "tls_key": tmp_path / "none"}):
        pass


def test_the_head_of_a_request_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_SECONDS", 1.0)
    with running(tmp_path) as server:
        host, port = server.addresses[0].removeprefix("http://").split(":")

        def send(*pieces: bytes) -> bytes:
            """What comes back, or nothing if the server hangs up."""
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                try:
                    for piece in pieces:
                        connection.sendall(piece)
                    return connection.recv(1000)
                except ConnectionError:
                    return b""

        assert send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").startswith(b"HTTP/1.1 200")
        assert send(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 300 + b"\r\n") == b""
        assert send(b"GET / HTTP/1.1\r\na: ", *[b"x" * 65_536] * 200) == b""
        assert send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n") == b""  # and then silence
        assert send(b"") == b""
        assert get(f"{server.addresses[0]}/healthz")[0] == 200


def test_first_start_needs_all_three_or_none(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyassayError, match="KEYASSAY_SECRET_ACCESS_KEY"),
        running(tmp_path, environment={"KEYASSAY_ACCOUNT_ID": A.account_id, "KEYASSAY_ACCESS_KEY_ID": A.name}),
    ):
        pass


def started(folder: Path, *more: str, **environment: str) -> tuple[subprocess.Popen[str], str, str]:
    """The program with its data in a folder: its process, its address, and its log so far."""
    command = [sys.executable, "-m", "keyassay.cli.main", "serve", "--listen", "127.0.0.1:0", *more]
    environment = {**os.environ, "XDG_DATA_HOME": str(folder), **environment}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    log = ""
    for line in process.stderr:
        log += line
        if '"listening"' in line:
            break
    return process, json.loads(line)["addresses"][0], log


def test_the_program_starts_and_ends(tmp_path: Path) -> None:
    """As its own process: the first secret goes into a file for its owner, never into the log; SIGTERM ends with 0."""
    process, address, log = started(tmp_path)
    path = tmp_path / "keyassay" / "first-access-key.json"
    first = json.loads(path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    assert get(f"{address}/readyz")[0] == 200
    process.send_signal(signal.SIGTERM)
    log += process.communicate(timeout=30)[1]
    assert process.returncode == 0
    assert first["secret_access_key"] not in log
    for kept in (tmp_path / "keyassay").iterdir():
        assert kept.stat().st_mode & 0o077 == 0, kept
    assert SECRET not in log


def test_what_was_answered_is_there_after_kill_9(tmp_path: Path) -> None:
    """Registrations that share commits: none is answered before it is durable, and each has its change."""
    process, address, _ = started(tmp_path, "--screen-registrations", "off", "--workers", "0", **ENVIRONMENT)
    pems = [fleet_keys.device(f"device {number}").pem for number in range(600)]
    answered: list[str] = []

    def register(mine: list[str]) -> None:
        iot = client_of(address)
        with contextlib.suppress(BotoCoreError):
            for pem in mine:
                answered.append(iot.register_certificate_without_ca(certificatePem=pem)["certificateId"])
                if len(answered) >= 120:
                    process.kill()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(register, [pems[first::8] for first in range(8)]))
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    database = Database(f"sqlite:///{tmp_path}/keyassay/registry.db")
    with database.read() as connection:
        there = set(connection.execute(select(schema.certificates.c.id)).scalars())
        changes = schema.changes.c
        registered = changes.operation == "RegisterCertificateWithoutCA"
        recorded = list(connection.execute(select(changes.resource_id).where(registered)).scalars())
    database.close()
    assert 120 <= len(answered) < 600
    assert set(answered) <= there
    assert len(there) <= len(answered) + 8  # what was committed a moment before
    assert sorted(recorded) == sorted(there)


class Wire(asyncio.Transport):
    """A connection that remembers what was sent, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def exchanged(request: bytes, *bodies: bytes, raises: bool = False) -> Wire:
    """What is sent for a request to an application that answers with these pieces of a body."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await receive()
        length = str(sum(map(len, bodies))).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        if raises:
            raise ZeroDivisionError
        for number, body in enumerate(bodies):
            await send({"type": "http.response.body", "body": body, "more_body": number + 1 < len(bodies)})

    async def talk() -> Wire:
        protocol, wire = BoundedProtocol(_configured(application, 10), ServerState(), {}), Wire()
        protocol.connection_made(wire)
        protocol.data_received(request)
        for _ in range(5):
            await asyncio.sleep(0)
        protocol.connection_lost(ConnectionResetError())
        return wire

    return asyncio.run(talk())


def test_head_and_body_go_out_together() -> None:
    [piece] = exchanged(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"all of it").sent
    assert piece.startswith(b"HTTP/1.1 200 OK\r\n") and piece.endswith(b"\r\n\r\nall of it")
    two = exchanged(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 2, b"one", b"two").sent  # sent at once by the client
    assert [piece.rpartition(b"\r\n")[2] for piece in two] == [b"one", b"two"] * 2


def test_a_response_without_body_and_one_that_breaks_off_are_sent() -> None:
    [piece] = exchanged(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"").sent
    assert piece.endswith(b"content-length: 0\r\n\r\n")
    [piece] = exchanged(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n", b"twelve bytes").sent
    assert piece.endswith(b"content-length: 12\r\n\r\n")
    broken = exchanged(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"lost", raises=True)
    assert broken.closed and broken.sent[0].endswith(b"content-length: 4\r\n\r\n") and len(broken.sent) == 1


def test_a_client_that_waits_to_be_told_to_go_on_is_told_at_once() -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n"
    assert exchanged(head, b"never sent").sent == [b"HTTP/1.1 100 Continue\r\n\r\n"]
