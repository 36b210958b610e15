"""Servers of our own on this machine: chains, mutual TLS, slow and silent ones, SSH by the real ssh-keyscan."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from certificate_forms import CLEAR, DER, PEM, PKCS8, START, certificate, der, ec_key, errors, kinds, paths_of
from keyassay.certificates import network
from keyassay.certificates.item import Kind
from keyassay.certificates.reading import ReadOptions
from ssh_server import ssh_server

QUICK = ReadOptions(timeout=0.4)


def hosts() -> list[str]:
    """This machine's own addresses: containers often have no IPv6."""
    found = ["127.0.0.1"]
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        found.append("::1")
    return found


@cache
def leaf() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate issued by ``certificate()``, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")]))
    builder = builder.issuer_name(certificate().subject).public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(START).not_valid_after(START + datetime.timedelta(days=9000))
    return builder.sign(ec_key(), hashes.SHA256()), key


@contextlib.contextmanager
def serving(handle: Callable[[socket.socket], None], host: str = "127.0.0.1") -> Iterator[int]:
    """A server that handles one connection; its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    handle(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def tls(folder: Path, version: ssl.TLSVersion, *, mutual: bool = False) -> Callable[[socket.socket], None]:
    cert, key = leaf()
    (folder / "chain.pem").write_bytes(cert.public_bytes(PEM) + certificate().public_bytes(PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(PEM, PKCS8, CLEAR))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    context.minimum_version = context.maximum_version = version
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=certificate().public_bytes(DER))

    def handle(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(1)

    return handle


@pytest.mark.parametrize("mutual", [False, True], ids=["open", "mutual"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_tls_servers_show_their_chain_also_if_they_want_a_certificate_from_us(
    version: ssl.TLSVersion, mutual: bool, tmp_path: Path
) -> None:
    with serving(tls(tmp_path, version, mutual=mutual)) as port:
        items = paths_of(f"tls://127.0.0.1:{port}")
    assert [item.der for item in items] == [leaf()[0].public_bytes(DER), der()]
    assert [item.index for item in items] == [0, 1]
    assert items[0].source == f"tls://127.0.0.1:{port}"


@pytest.mark.parametrize("host", hosts())
def test_addresses_of_both_kinds_are_reached(host: str, tmp_path: Path) -> None:
    shown = f"[{host}]" if ":" in host else host
    with serving(tls(tmp_path, ssl.TLSVersion.TLSv1_3), host) as port:
        assert kinds(paths_of(f"tls://{shown}:{port}/")) == ["certificate", "certificate"]


def test_the_leaf_alone_is_shown_where_python_gives_no_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoChain:
        def __init__(self, inner: ssl.SSLObject) -> None:
            self.getpeercert = inner.getpeercert

    chain = network._chain
    monkeypatch.setattr(network, "_chain", lambda secure: chain(NoChain(secure)))  # type: ignore[arg-type]
    with serving(tls(tmp_path, ssl.TLSVersion.TLSv1_3)) as port:
        assert [item.der for item in paths_of(f"tls://127.0.0.1:{port}")] == [leaf()[0].public_bytes(DER)]


def silent(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def dripping(connection: socket.socket) -> None:
    """A record of 16 KB, a byte now and then: no single wait is long."""
    connection.sendall(b"\x16\x03\x03\x40\x00")
    while True:
        connection.sendall(b"\x02")
        time.sleep(0.02)


def closing(connection: socket.socket) -> None:
    connection.recv(1)


def chatting(connection: socket.socket) -> None:
    connection.sendall(b"220 mail.example.org ESMTP\r\n")
    connection.recv(4096)


def endless(connection: socket.socket) -> None:
    """Handshake messages that never make a whole one."""
    record = b"\x16\x03\x03\x40\x00" + bytes(16384)
    while True:
        connection.sendall(record)


@pytest.mark.parametrize(
    ("handle", "reason"),
    [(silent, "timed out"), (dripping, "timed out"), (closing, ""), (chatting, ""), (endless, "")],
    ids=["silent", "dripping", "closing", "chatting", "endless"],
)
def test_servers_that_behave_badly_are_records_within_the_time_out(
    handle: Callable[[socket.socket], None], reason: str
) -> None:
    began = time.monotonic()
    with serving(handle) as port:
        (item,) = paths_of(f"tls://127.0.0.1:{port}", options=QUICK)
    assert item.kind is Kind.UNREADABLE
    assert (item.error or "").startswith("no TLS connection: " + reason)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "url",
    [
        "tls://", "tls://:443", "tls://host:x", "tls://host:0", "tls://host:65536", "tls://host:99999999", "ssh://-oProxyCommand=x",
        "tls://[::1", "tls://[zz]", "tls://a b", "tls://a\nb", "ssh://host/path", "tls://" + "a" * 300,
    ],
)  # fmt: skip
def test_malformed_addresses_are_records(url: str) -> None:
    (item,) = paths_of(url, options=QUICK)
    assert item.kind is Kind.UNREADABLE


def test_refused_connections_and_unknown_hosts_are_records() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "refused" in errors(paths_of(f"tls://127.0.0.1:{port}", options=QUICK))[0]
    assert "no TLS connection" in errors(paths_of("tls://host.invalid", options=QUICK))[0]
    assert errors(paths_of(f"ssh://127.0.0.1:{port}", options=ReadOptions(timeout=1)))[0].startswith("no host key")


def test_default_ports() -> None:
    assert network._target("tls://host") == ("tls", "host", 443)
    assert network._target("ssh://[fe80::1%eth0]") == ("ssh", "fe80::1%eth0", 22)


@pytest.mark.parametrize("host", hosts())
def test_ssh_servers_show_their_host_key(host: str) -> None:
    key = Ed25519PrivateKey.generate()
    with ssh_server(key, host) as port:
        items = paths_of(f"ssh://{f'[{host}]' if ':' in host else host}:{port}", options=ReadOptions(timeout=3))
    assert kinds(items) == ["public-key"], errors(items)
    assert items[0].key.encoded == key.public_key().public_bytes_raw()  # type: ignore[union-attr]


def test_without_ssh_keyscan_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert errors(paths_of("ssh://127.0.0.1:1")) == ["ssh-keyscan is missing: install openssh-client"]
