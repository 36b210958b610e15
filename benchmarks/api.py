"""Microseconds of CPU that the API layer takes for one signed request, in parts, beside botocore's code and moto.

    python3 dev.py bench api [--requests 2000] [--rounds 9] [--json FILE]

Everything runs in process on one thread, without sockets and without a database: what is measured is reading, checking
and writing. The requests are what a boto3 client sends. "protocol" = route, read with all constraints, call a function
that returns a ready result, write. "signature" = our verification; "signature by botocore" = the usual way, a subclass
of botocore's signer that signs anew and compares. "moto" = moto's whole way from the prepared request to the response,
which checks no signature and few constraints; its function for the operation is included, ours does nothing.
All take turns in every round, so that a busy machine slows all; the figure is the best round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto import mock_aws
from moto.core.models import botocore_stubber

from keyassay.aws.operations import Operations, Request, operation
from keyassay.aws.signature import Secret, Verifier

KEY, SECRET, REGION, ACCOUNT = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1", "123456789012"
HOST = "https://iot.us-east-1.amazonaws.com"


def certificate() -> str:
    """A certificate on P-256, in PEM."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(5)
    made = made.not_valid_before(datetime(2026, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2049, 1, 1, tzinfo=UTC))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


PEM = certificate()
ID = "ab" * 32
ARN = f"arn:aws:iot:{REGION}:{ACCOUNT}:cert/{ID}"
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


@operation("DescribeCertificate")
def describe(_request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """The result that AWS documents, all members present."""
    description = {
        "certificateArn": ARN, "certificateId": params["certificateId"], "status": "ACTIVE", "certificatePem": PEM,
        "ownedBy": ACCOUNT, "creationDate": MOMENT, "lastModifiedDate": MOMENT, "customerVersion": 1,
        "transferData": None, "generationId": "0", "validity": {"notBefore": MOMENT, "notAfter": MOMENT},
        "certificateMode": "DEFAULT",
    }  # fmt: skip
    return {"certificateDescription": description}


@operation("RegisterCertificateWithoutCA")
def register(_request: Request, _params: dict[str, Any]) -> dict[str, Any]:
    """A new certificate's id."""
    return {"certificateArn": ARN, "certificateId": ID}


@operation("ListCertificates")
def listed(_request: Request, _params: dict[str, Any]) -> dict[str, Any]:
    """A page of 250."""
    one = {"certificateArn": ARN, "certificateId": ID, "status": "ACTIVE", "certificateMode": "DEFAULT"}
    return {"certificates": [{**one, "creationDate": MOMENT} for _ in range(250)], "nextMarker": "abcd"}


class Botocore(SigV4Auth):
    """Signs what was sent, with the client's date and headers: how a server verifies with botocore."""

    def headers_to_sign(self, request: AWSRequest) -> Any:
        """Those that the client signed."""
        names = request.context["signed"]
        return super().headers_to_sign(request).__class__.from_pairs([(name, request.headers[name]) for name in names])

    def verify(self, sent: Sent) -> bool:
        """Whether the signature of the request is what we get."""
        request = AWSRequest(sent.method, HOST + sent.url, headers=dict(sent.text_headers), data=sent.body)
        authorization = request.headers["authorization"]
        claimed = dict(part.strip().split("=", 1) for part in authorization.partition(" ")[2].split(","))
        request.context = {"timestamp": request.headers["x-amz-date"], "signed": claimed["SignedHeaders"].split(";")}
        return (
            self.signature(self.string_to_sign(request, self.canonical_request(request)), request)
            == claimed["Signature"]
        )


class Sent:
    """A request as boto3 sends it."""

    def __init__(self, request: AWSPreparedRequest) -> None:
        self.prepared = request
        self.method = request.method
        self.url = request.url.removeprefix(HOST)
        path, _, query = self.url.partition("?")
        self.path, self.query, self.body = path.encode(), query.encode(), request.body or b""
        found = [
            (name.lower(), value if isinstance(value, str) else value.decode())
            for name, value in request.headers.items()
        ]
        self.text_headers = [*found, ("host", HOST.removeprefix("https://"))]
        self.headers = [(name.encode(), value.encode()) for name, value in self.text_headers]


def captured(name: str, **params: Any) -> Sent:
    """What boto3 sends for a call."""
    client = boto3.Session(KEY, SECRET, region_name=REGION).client("iot")
    caught: list[Sent] = []

    def catch(request: AWSPreparedRequest, **_: Any) -> None:
        caught.append(Sent(request))
        raise InterruptedError

    client.meta.events.register_first("before-send.iot", catch)
    with contextlib.suppress(InterruptedError):
        getattr(client, name)(**params)
    return caught[0]


def best(ways: dict[str, Callable[[], Any]], requests: int, rounds: int) -> dict[str, float]:
    """CPU microseconds a request of each way, the best of some rounds in which all take turns."""
    figures = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            count = max(1, requests // (20 if name == "moto" else 1))
            started = time.process_time()
            for _ in range(count):
                way()
            figures[name] = min(figures[name], (time.process_time() - started) / count * 1e6)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    operations = Operations([describe, register, listed])
    verifier = Verifier(lambda _key: Secret(ACCOUNT, SECRET, "administrator"), REGION)
    peer = Botocore(Credentials(KEY, SECRET), "iot", REGION)
    figures: dict[str, dict[str, float]] = {}
    for name, sent in (
        ("DescribeCertificate", captured("describe_certificate", certificateId=ID)),
        (
            "RegisterCertificateWithoutCA",
            captured("register_certificate_without_ca", certificatePem=PEM, status="ACTIVE"),
        ),
        ("ListCertificates, 250", captured("list_certificates", pageSize=250)),
    ):

        def protocol(sent: Sent = sent) -> None:
            match = operations.route(sent.method, sent.path)
            asked = Request(ACCOUNT, REGION, KEY, "administrator", "id", "", match.target.operation.name, None)
            operations.perform(match, asked, sent.query, sent.headers, sent.body)

        ways: dict[str, Callable[[], Any]] = {
            "protocol": protocol,
            "signature": lambda sent=sent: verifier.verify(sent.method, sent.path, sent.query, sent.headers, sent.body),
            "signature by botocore": lambda sent=sent: peer.verify(sent),
        }
        ways["signature"]()
        assert peer.verify(sent)
        if name == "DescribeCertificate":
            with mock_aws():
                client = boto3.Session(KEY, SECRET, region_name=REGION).client("iot")
                known = client.register_certificate_without_ca(certificatePem=PEM)["certificateId"]
                theirs = captured_inside(client, known)
                ways["moto"] = partial(botocore_stubber, "before-send.iot.DescribeCertificate", theirs)
                assert ways["moto"]().status_code == 200
                figures[name] = best(ways, given.requests, given.rounds)
        else:
            figures[name] = best(ways, given.requests, given.rounds)
    print(
        f"{'CPU us a request':32}{'protocol':>10}{'signature':>11}{'both':>8}{'signature by botocore':>23}{'moto':>8}"
    )
    for name, row in figures.items():
        both = row["protocol"] + row["signature"]
        ours = f"{row['protocol']:10.1f}{row['signature']:11.1f}{both:8.1f}"
        print(f"{name:32}{ours}{row['signature by botocore']:23.1f}" + (f"{row['moto']:8.0f}" if "moto" in row else ""))
    if given.json:
        given.json.write_text(json.dumps(figures))


def captured_inside(client: Any, known: str) -> AWSPreparedRequest:
    """The prepared request of DescribeCertificate, caught while moto answers it."""
    caught: list[AWSPreparedRequest] = []
    client.meta.events.register_first("before-send.iot", lambda request, **_: caught.append(request))
    client.describe_certificate(certificateId=known)
    return caught[0]


if __name__ == "__main__":
    sys.exit(main())
