"""A server whose issuing authority has its key in a token: issuing, lists and OCSP through it, while it is away, and by
two processes at once."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library

import fleet_keys
from issuing_requests import request
from keyassay.registry import certificates, issuing, status_lists
from keyassay.server.running import Server
from live_server import ENVIRONMENT, client, running
from soft_token import SoftToken
from two_accounts import SECRET, A

QUIET: Any = {"public_rate": 0, "screening": "off", "workers": 0}


def fetch(address: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def log_of(server: Server) -> str:
    return repr(server._log._logger.calls)


@pytest.fixture
def server(database_url: str, tmp_path: Path, token: SoftToken) -> Iterator[Server]:
    with running(tmp_path, database=database_url, **QUIET) as one:
        issuing.make_token_issuer(one.registry, A, token.uri("ca"))
        yield one


def test_a_token_that_is_away_stops_signatures_and_nothing_else(server: Server, token: SoftToken) -> None:
    api, (address,) = client(server), server.addresses
    pem = request("sensor-1", fleet_keys.ec_key(2))
    issued = api.create_certificate_from_csr(certificateSigningRequest=pem, setAsActive=True)
    one = x509.load_pem_x509_certificate(issued["certificatePem"].encode())
    issuer = x509.load_pem_x509_certificate(issuing.issuer_pem(server.registry, A).encode())
    one.verify_directly_issued_by(issuer)
    base = f"/{A.account_id}/{issuing.issuers(server.registry, A)[0].id}"
    asked = library.OCSPRequestBuilder().add_certificate(one, issuer, hashes.SHA256()).build()
    question = asked.public_bytes(Encoding.DER)
    status, kept = fetch(address, f"{base}.crl")
    assert (status, x509.load_der_x509_crl(kept).is_signature_valid(issuer.public_key())) == (200, True)

    token.leave()
    server.publishing._late = -1  # a list is signed anew at each request, as after hours without a worker
    for call in (
        lambda: api.create_certificate_from_csr(certificateSigningRequest=pem),
        api.create_keys_and_certificate,
    ):
        with pytest.raises(ClientError) as caught:
            call()
        assert caught.value.response["Error"]["Code"] == "ServiceUnavailableException"
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        assert str(token.folder) not in str(caught.value)
    status, answer = fetch(address, f"{base}/ocsp", question)
    assert library.load_der_ocsp_response(answer).response_status is library.OCSPResponseStatus.TRY_LATER
    assert fetch(address, f"{base}.crl") == (200, kept)  # which is good for days
    assert fetch(address, "/readyz")[0] == 200
    api.update_certificate(certificateId=issued["certificateId"], newStatus="REVOKED")
    assert len(api.list_certificates()["certificates"]) == 1
    new = issuing.make_issuer(server.registry, A)  # an authority that never had a list, and whose key is there
    assert fetch(address, f"/{A.account_id}/{new.id}.crl")[0] == 200

    token.come_back()
    status, answer = fetch(address, f"{base}/ocsp", question)
    assert library.load_der_ocsp_response(answer).certificate_status is library.OCSPCertStatus.REVOKED
    status, made = fetch(address, f"{base}.crl")
    assert [entry.serial_number for entry in x509.load_der_x509_crl(made)] == [one.serial_number]
    assert "an authority cannot sign" in log_of(server)
    assert token.pin not in log_of(server)


def test_no_list_and_no_token(server: Server, token: SoftToken) -> None:
    base = f"/{A.account_id}/{issuing.issuers(server.registry, A)[0].id}"
    token.leave()
    assert fetch(server.addresses[0], f"{base}.crl")[0] == 503
    token.come_back()
    assert fetch(server.addresses[0], f"{base}.crl")[0] == 200


def test_the_worker_signs_when_the_token_is_back(database_url: str, tmp_path: Path, token: SoftToken) -> None:
    with running(tmp_path, database=database_url, **QUIET) as server:
        issuer = issuing.make_token_issuer(server.registry, A, token.uri("ca"))
        log = server._log
        worker = status_lists.Signer(server.registry, 3_600, log)
        token.leave()
        worker.look()
        assert "a revocation list is not signed" in log_of(server)
        token.come_back()
        worker._rests.clear()
        worker._revision = -1
        worker.look()
        with server.registry.database.read() as connection:
            assert status_lists.stored(connection, A.account_id, issuer.id) is not None
        assert token.pin not in log_of(server)


def start(folder: Path, url: str, token: SoftToken) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "keyassay.cli.main", "serve", "--listen", "127.0.0.1:0", "--database", url]
    command += ["--key-file", str(folder / "keyassay.key"), "--screen-registrations", "off"]
    environment = {**os.environ, **ENVIRONMENT, "KEYASSAY_PKCS11_PIN": token.pin}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def address_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stderr is not None
    log = ""
    for line in process.stderr:
        log += line
        if '"listening"' in line:
            return json.loads(line)["addresses"][0], log
    raise AssertionError(log)


@pytest.mark.slow
def test_two_servers_at_once(database_url: str, tmp_path: Path, token: SoftToken, monkeypatch: Any) -> None:
    """Two processes of one database and one token, and this one; the PIN comes from their environments."""
    monkeypatch.setenv("KEYASSAY_PKCS11_PIN", token.pin)
    with running(tmp_path, database=database_url, **QUIET) as server:
        issuer_id = issuing.make_token_issuer(server.registry, A, token.uri("ca", **{"pin-source": ""})).id
        issuer = x509.load_pem_x509_certificate(issuing.issuer_pem(server.registry, A).encode())
        processes = [start(tmp_path, database_url, token) for _ in range(2)]
        log, addresses = "", []
        try:
            for process in processes:
                address, began = address_of(process)
                addresses.append(address)
                log += began
            apis = [
                boto3.client(
                    "iot", endpoint_url=address, region_name="us-east-1", aws_access_key_id=A.name,
                    aws_secret_access_key=SECRET, config=Config(retries={"total_max_attempts": 4}),
                )
                for address in addresses
            ]  # fmt: skip
            pem = request("sensor-1", fleet_keys.ec_key(2))
            with ThreadPoolExecutor(6) as pool:
                made = list(
                    pool.map(
                        lambda number: apis[number % 2].create_certificate_from_csr(
                            certificateSigningRequest=pem, setAsActive=True
                        ),
                        range(24),
                    )
                )
            for one in made:
                x509.load_pem_x509_certificate(one["certificatePem"].encode()).verify_directly_issued_by(issuer)
            certificates.set_status(server.registry, A, made[0]["certificateId"], "REVOKED")
            wanted = x509.load_pem_x509_certificate(made[0]["certificatePem"].encode()).serial_number
            until = time.monotonic() + 60
            while True:  # one of the two has the lease and signs
                status, der = fetch(addresses[0], f"/{A.account_id}/{issuer_id}.crl")
                listed = [entry.serial_number for entry in x509.load_der_x509_crl(der)] if status == 200 else []
                if listed or time.monotonic() > until:
                    break
                time.sleep(0.1)
            assert listed == [wanted]
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            log += "".join(process.communicate(timeout=60)[1] for process in processes)
        assert [process.returncode for process in processes] == [0, 0], log
        assert "revocation list signed" in log
        assert token.pin not in log
