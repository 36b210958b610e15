"""Revocation lists from addresses in certificates: only permitted hosts, and nothing beyond the bounds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import fleet_keys
from authorities_in_tables import enter_authority
from keyassay.registry import certificates, fetching, revocation
from keyassay.registry.fetching import FetchError, fetch, fetch_due
from keyassay.registry.registry import Registry
from keyassay.storage import leases
from revocation_lists import revocation_list
from two_accounts import A, Rows

HERE = ("127.0.0.1",)
Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """A server on loopback: its address, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def giving(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def points(*urls: str) -> tuple[tuple[Any, bool], ...]:
    names = [x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None) for url in urls]
    return ((x509.CRLDistributionPoints(names), False),)


def named(registry: Registry, *urls: str) -> fleet_keys.Signed:
    """A registered authority, and a device certificate that names addresses."""
    authority = fleet_keys.authority()
    enter_authority(registry, authority)
    one = fleet_keys.device(issuer=authority, extensions=points(*urls))
    certificates.register(registry, A, one.pem)
    return authority


@pytest.mark.parametrize("form", [Encoding.DER, Encoding.PEM])
def test_a_list_is_fetched_once_until_it_becomes_old(registry: Registry, rows: Rows, form: Encoding) -> None:
    body = revocation_list(fleet_keys.authority(), [7], lasts=2).public_bytes(form)
    with serving(giving(body)) as (address, asked):
        url = f"{address}/fleet.crl?part=1"
        named(registry, url)
        (done,) = fetch_due(registry, HERE)
        assert (done.account_id, done.url, done.error, done.entries) == (A.account_id, url, "", 1)
        assert asked == ["/fleet.crl?part=1"]
        assert fetch_due(registry, HERE) == []
        now = time.time_ns() // 1_000_000
        assert len(fetch_due(registry, HERE, now=now + fetching.FRESH + 1)) == 1
        assert len(fetch_due(registry, HERE, now=now + 86_400_000 + 60_000)) == 1  # past its next update
    (row,) = rows.all("revocation_lists")
    assert (row["source"], row["account_id"]) == (url, A.account_id)
    assert "FetchRevocationList" in rows.operations()


def test_only_permitted_hosts_are_asked(registry: Registry) -> None:
    with serving(giving(b"")) as (address, asked):
        port = address.rpartition(":")[2]
        named(
            registry,
            f"http://localhost:{port}/",
            f"http://127.0.0.1@localhost:{port}/",
            f"ftp://127.0.0.1:{port}/",
            f"http://127.0.0.1:{port}/ HTTP/1.1",
            "http://[::1/",
            "http://127.0.0.1:99999/",
            "ldap://127.0.0.1/cn=ca",
        )
        assert fetch_due(registry, ("127.0.0.1",)) == []
        assert fetch_due(registry, ()) == []
        assert asked == []
        with pytest.raises(FetchError, match="not permitted"):
            fetch(f"{address}/", ("other.example",))
        with pytest.raises(FetchError, match="private address"):
            fetch(f"http://localhost:{port}/", ("localhost",))
        assert asked == []


def test_what_a_server_may_not_do(registry: Registry, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    named(registry, "http://127.0.0.1:1/")
    with serving(giving(b"", 302, location="http://127.0.0.1:1/")) as (address, asked):
        with pytest.raises(FetchError, match="302"):
            fetch(f"{address}/", HERE)
        assert asked == ["/"]
    monkeypatch.setattr(revocation, "LARGEST_LIST", 200_000)
    with serving(giving(bytes(300_000))) as (address, _), pytest.raises(FetchError, match="more than"):
        fetch(f"{address}/", HERE)
    with (
        serving(giving(b"abc", content_length="10")) as (address, _),
        pytest.raises(FetchError, match=r"broke off|no answer"),
    ):
        fetch(f"{address}/", HERE)
    (done,) = fetch_due(registry, HERE)  # nobody listens there
    assert done.error.startswith("no answer")
    assert rows.all("revocation_lists") == []


def test_slow_servers_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PATIENCE", 0.5)

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(100):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.1)
        except OSError:
            pass

    started = time.monotonic()
    with serving(drip) as (address, _):
        with pytest.raises(FetchError):
            fetch(f"{address}/", HERE)
        assert time.monotonic() - started < 8


def test_lists_that_nobody_known_signed_are_not_taken(registry: Registry, rows: Rows) -> None:
    forged = revocation_list(fleet_keys.authority("Fleet CA", 101), [7]).public_bytes(Encoding.DER)
    for body in (forged, b"not a list"):
        with serving(giving(body)) as (address, _):
            certificates.register_without_authority(
                registry, A, fleet_keys.device(extensions=points(f"{address}/x.crl")).pem
            )
            results = fetch_due(registry, HERE)
            assert [one.error != "" for one in results if one.url.startswith(address)] == [True]
    assert rows.all("revocation_lists") == []


def test_addresses_of_certificates() -> None:
    one = fleet_keys.device(extensions=points("http://crl.example/a.crl", "https://crl.example/b.crl", "ldap://x/"))
    der = one.certificate.public_bytes(Encoding.DER)
    assert fetching.distribution_points(der) == ["http://crl.example/a.crl", "https://crl.example/b.crl"]
    assert fetching.distribution_points(fleet_keys.device().certificate.public_bytes(Encoding.DER)) == []


def test_a_worker_fetches_and_ends_when_it_is_told(registry: Registry, rows: Rows) -> None:
    body = revocation_list(fleet_keys.authority(), [7]).public_bytes(Encoding.DER)
    log = structlog.testing.CapturingLogger()
    with serving(giving(body)) as (address, _):
        named(registry, f"{address}/x.crl", "http://127.0.0.1:1/")
        stop = threading.Event()
        worker = fetching.Fetcher(registry, HERE, structlog.wrap_logger(log, processors=[]))
        other = leases.take(registry.database, "revocation-lists", "another", 60)
        assert other is not None
        worker._turn(stop)
        assert rows.all("revocation_lists") == []  # another has the turn
        leases.release(registry.database, other)
        thread = threading.Thread(target=worker.run, args=(stop,))
        thread.start()
        deadline = time.monotonic() + 20
        while len(log.calls) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        stop.set()
        thread.join(10)
        assert not thread.is_alive()
    assert sorted(call.method_name for call in log.calls) == ["info", "warning"]
    assert len(rows.all("revocation_lists")) == 1
