"""Lists and OCSP answers over HTTP: what is open, on which listener, within which bounds; by OpenSSL's own client."""

from __future__ import annotations

import base64
import http.client
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library

import fleet_keys
from issuing_requests import request
from keyassay.registry import certificates, issuing, ocsp
from keyassay.server.publishing import SourceRate
from keyassay.server.running import Server
from keyassay.server.settings import Address
from live_server import running
from two_accounts import A

PUBLIC: Any = {"public_listen": (Address("127.0.0.1", 0),), "public_rate": 0, "screening": "off"}


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path, database=database_url, public_url="http://pki.example.com/x", **PUBLIC) as one:
        yield one


def get(
    address: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def issue(server: Server, name: str = "one") -> tuple[Any, x509.Certificate]:
    pem = request(name, fleet_keys.ec_key(1))
    issued = issuing.certify_request(server.registry, A, pem, set_as_active=True)
    return issued, x509.load_pem_x509_certificate(issued.certificate_pem.encode())


def base_of(server: Server) -> str:
    return f"/{A.account_id}/{issuing.issuers(server.registry, A)[0].id}"


def question(server: Server, one: x509.Certificate) -> bytes:
    issuer = x509.load_pem_x509_certificate(issuing.issuer_pem(server.registry, A).encode())
    builder = library.OCSPRequestBuilder().add_certificate(one, issuer, hashes.SHA256())
    return builder.build().public_bytes(Encoding.DER)


def test_a_revocation_is_public_within_a_second_or_so(server: Server) -> None:
    issued, one = issue(server)
    base, (public,) = base_of(server), server.public_addresses
    for address in (public, server.addresses[0]):  # the API's listener answers, too
        for path in (f"{base}.crl", f"/x{base}.crl", f"{base}.delta.crl"):
            status, headers, body = get(address, path)
            assert (status, headers["content-type"]) == (200, "application/pkix-crl")
            assert "max-age=5" in headers["cache-control"]
            assert len(list(x509.load_der_x509_crl(body))) == 0
    certificates.set_status(server.registry, A, issued.registered.id, "REVOKED")
    status, _, body = get(public, f"{base}/ocsp", "POST", question(server, one))
    assert library.load_der_ocsp_response(body).certificate_status is library.OCSPCertStatus.REVOKED
    began = time.monotonic()
    while True:
        lists = [x509.load_der_x509_crl(get(public, f"{base}{kind}")[2]) for kind in (".crl", ".delta.crl")]
        if all(one.get_revoked_certificate_by_serial_number(issued_serial(issued)) for one in lists):
            break
        assert time.monotonic() - began < 15
        time.sleep(0.02)


def issued_serial(issued: Any) -> int:
    return x509.load_pem_x509_certificate(issued.certificate_pem.encode()).serial_number


def test_only_these_paths_and_methods(server: Server) -> None:
    issue(server)
    base, (public,) = base_of(server), server.public_addresses
    for path in ("/", "/healthz", "/certificates", "/endpoint", f"{base}", f"{base}.crl/", f"/y{base}.crl", "/x/x.crl"):
        assert get(public, path)[0] == 404, path
    assert get(server.addresses[0], "/certificates")[0] == 403
    unknown = [f"/{A.account_id}/{'0' * 64}", f"/{'9' * 12}/{'0' * 64}", f"/{'9' * 12}/{base.rpartition('/')[2]}"]
    answers = {get(public, f"{one}{end}")[::2] for one in unknown for end in (".crl", ".delta.crl", "/ocsp/AAAA")}
    assert answers == {(404, b"there is nothing here\n")}
    for method, path in (("POST", f"{base}.crl"), ("GET", f"{base}/ocsp"), ("PUT", f"{base}/ocsp")):
        status, headers, _ = get(public, path, method)
        assert (status, "allow" in headers) == (405, True)
    status, headers, body = get(public, f"{base}.crl", "HEAD")
    assert (status, body, int(headers["content-length"]) > 200) == (200, b"", True)


def test_a_list_that_is_known_is_not_sent_again(server: Server) -> None:
    issue(server)
    base, (public,) = base_of(server), server.public_addresses
    _, headers, _ = get(public, f"{base}.crl")
    status, _, body = get(public, f"{base}.crl", if_none_match=headers["etag"])
    assert (status, body) == (304, b"")
    assert get(public, f"{base}.delta.crl", if_none_match=headers["etag"])[0] == 200


def test_ocsp_by_get_and_by_openssl(server: Server, tmp_path: Path) -> None:
    issued, one = issue(server)
    base, (public,) = base_of(server), server.public_addresses
    asked = question(server, one)
    text = base64.b64encode(asked).decode()
    for path in (quote(text, safe=""), text):
        status, headers, body = get(public, f"{base}/ocsp/{path}")
        assert (status, headers["content-type"]) == (200, "application/ocsp-response")
        assert library.load_der_ocsp_response(body).certificate_status is library.OCSPCertStatus.GOOD
        assert "max-age" in headers["cache-control"]
    status, _, body = get(public, f"{base}/ocsp/%%%")
    assert (status, body) == (200, ocsp.MALFORMED.der)
    (tmp_path / "ca.pem").write_text(issuing.issuer_pem(server.registry, A))
    (tmp_path / "one.pem").write_text(issued.certificate_pem)
    command = [
        "openssl", "ocsp", "-issuer", "ca.pem", "-cert", "one.pem", "-CAfile", "ca.pem", "-url", f"{public}{base}/ocsp",
    ]  # fmt: skip
    for status_said, expected in (("ACTIVE", "one.pem: good"), ("REVOKED", "one.pem: revoked")):
        certificates.set_status(server.registry, A, issued.registered.id, status_said)
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert expected in done.stdout
        assert "Response verify OK" in done.stderr
        assert "WARNING" not in done.stderr  # of a missing nonce


def test_bodies_are_bounded(server: Server) -> None:
    issue(server)
    base, (public,) = base_of(server), server.public_addresses
    assert get(public, f"{base}/ocsp", "POST", b"\x30" * (ocsp.LARGEST_REQUEST + 1))[0] == 413
    assert get(public, f"{base}/ocsp", "POST", b"")[2] == ocsp.MALFORMED.der
    parts = urlsplit(public)
    with socket.create_connection((parts.hostname, parts.port)) as half:  # sends less than it said, and goes
        half.sendall(f"POST {base}/ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nxx".encode())
    assert get(public, f"{base}.crl")[0] == 200


def test_lists_are_signed_where_no_worker_is(tmp_path: Path) -> None:
    with running(tmp_path, workers=0, **PUBLIC) as server:
        issue(server)
        status, _, body = get(server.public_addresses[0], f"{base_of(server)}.crl")
        assert (status, list(x509.load_der_x509_crl(body))) == (200, [])


def test_a_source_has_a_rate(tmp_path: Path) -> None:
    with running(tmp_path, **{**PUBLIC, "public_rate": 0.2}) as server:
        issue(server)
        path, (public,) = f"{base_of(server)}.crl", server.public_addresses
        assert get(public, path)[0] == 200
        status, headers, _ = get(public, path)
        assert (status, headers["retry-after"]) == (429, "1")


def test_rates_are_of_networks_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from keyassay.server import publishing

    now = 0.0
    rate = SourceRate(1.0, lambda: now)
    assert [rate.admits("192.0.2.1") for _ in range(6)] == [True] * 5 + [False]
    assert rate.admits("192.0.2.2")
    assert not rate.admits("::ffff:192.0.2.1")
    assert [rate.admits(f"2001:db8::{number}") for number in range(6)] == [True] * 5 + [False]
    assert rate.admits("2001:db8:0:1::1")
    now = 2.0
    assert [rate.admits("192.0.2.1") for _ in range(3)] == [True, True, False]
    monkeypatch.setattr(publishing, "_SOURCES", 10)
    for number in range(100):
        rate.admits(f"198.51.100.{number}")
    assert len(rate._left) <= 10
