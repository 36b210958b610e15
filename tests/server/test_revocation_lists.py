"""Uploading, listing and deleting revocation lists by signed requests to our own endpoints."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

import fleet_keys
from issuing_requests import request
from keyassay.errors import KeyassayError
from keyassay.registry import accounts, issuing
from keyassay.server.settings import Settings
from live_server import running
from revocation_lists import revocation_list
from two_accounts import SECRET, A


class RefusedError(Exception):
    """Status and name of an error."""


def ask(server: Any, method: str, path: str, body: Any = None, key: tuple[str, str] = (A.name, SECRET)) -> Any:
    data = b"" if body is None else json.dumps(body).encode()
    request = AWSRequest(method, f"{server.addresses[0]}/keyassay/v1/{path}", data=data)
    SigV4Auth(Credentials(*key), "iot", server.settings.region).add_auth(request)
    sent = urllib.request.Request(request.url, data=data or None, headers=dict(request.headers), method=method)
    try:
        with urllib.request.urlopen(sent, timeout=60) as answer:
            return json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        with error:
            raise RefusedError(error.code, error.headers["x-amzn-errortype"].partition(":")[0]) from None


@pytest.mark.parametrize("entries", [3, 20_000])
def test_lists_by_the_api(database_url: str, tmp_path: Path, entries: int) -> None:
    root = fleet_keys.authority("Root", 105)
    crl = revocation_list(root, range(1, 4))
    if entries > 3:
        crl = large(root, entries)
    with running(tmp_path, database=database_url, screening="off") as server:
        pem = crl.public_bytes(Encoding.PEM).decode()
        with pytest.raises(RefusedError) as raised:
            ask(server, "POST", "revocation-lists", {"revocationList": pem})
        assert raised.value.args == (400, "CertificateValidationException")
        body = {"revocationList": pem, "issuerCertificatePem": root.pem}
        made = ask(server, "POST", "revocation-lists", body)
        assert (made["issuer"], made["entries"]) == ("CN=Root", entries)
        listed = ask(server, "GET", "revocation-lists")["revocationLists"]
        assert [one["id"] for one in listed] == [made["id"]]
        auditor = accounts.create_key(server.registry, A, accounts.Role.AUDITOR)
        key = auditor.access_key_id, auditor.secret_access_key
        assert len(ask(server, "GET", "revocation-lists", key=key)["revocationLists"]) == 1
        for method, path, sent in (("POST", "", body), ("DELETE", f"/{made['id']}", None)):
            with pytest.raises(RefusedError) as raised:
                ask(server, method, f"revocation-lists{path}", sent, key)
            assert raised.value.args == (403, "AccessDeniedException")
        ask(server, "DELETE", f"revocation-lists/{made['id']}")
        assert ask(server, "GET", "revocation-lists")["revocationLists"] == []


def large(authority: fleet_keys.Signed, entries: int) -> Any:
    made = fleet_keys.NOW
    revoked = [
        x509.RevokedCertificateBuilder().serial_number(2**120 + number).revocation_date(made).build()
        for number in range(entries)
    ]
    builder = x509.CertificateRevocationListBuilder(authority.certificate.subject, made, made, [], revoked)
    return builder.sign(authority.key, hashes.SHA256())


def test_settings_of_addresses() -> None:
    good = Settings(crl_hosts=("crl.example.com", "192.0.2.1", "::1"), public_url="http://pki.example.com:8080/x")
    assert good.crl_hosts[2] == "::1"
    for wrong in ("http://crl.example.com", "crl.example.com:80", "", "a b", "*"):
        with pytest.raises(KeyassayError, match="no host"):
            Settings(crl_hosts=(wrong,))
    for wrong in ("pki.example.com", "ftp://pki.example.com", "http://", "http://a b"):
        with pytest.raises(KeyassayError, match="no address"):
            Settings(public_url=wrong)


def test_the_public_address_reaches_certificates_and_hosts_reach_the_worker(tmp_path: Path) -> None:
    more: Any = {"public_url": "http://pki.example.com", "crl_hosts": ("127.0.0.1",), "screening": "off"}
    with running(tmp_path, **more) as server:
        issued = issuing.certify_request(server.registry, A, request("x", fleet_keys.ec_key(1)))
        made = x509.load_pem_x509_certificate(issued.certificate_pem.encode())
        (point,) = made.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        assert point.full_name[0].value.startswith("http://pki.example.com/")
        for _ in range(200):  # workers begin when the server does, in its own thread
            if "revocation lists" in {thread.name for thread in threading.enumerate()}:
                break
            time.sleep(0.05)
        else:
            pytest.fail("nothing fetches revocation lists")
