"""Where messages may go: what is refused at the start, private addresses, signatures, redirects, TLS, bounds."""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from standardwebhooks import Webhook

import fleet_keys
from keyassay.errors import KeyassayError
from keyassay.mitigation import destinations
from keyassay.mitigation.destinations import DeliveryError, Destinations, Hook, Message
from webhook_receiver import receiving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TOPIC = "arn:aws:sns:us-east-1:111111111111:findings"
HOOK = "https://hooks.example/one"
MESSAGE = Message("id-1", "111111111111", "keyassay.audit.finding", '{"findingId":"ü"}', 1_700_000_000_123)


def test_who_may_send_where() -> None:
    permitted = Destinations.read(
        [TOPIC, f"111111111111={HOOK}", f"222222222222={HOOK}"], f"# ours\n\n{HOOK} {SECRET}\n"
    )
    assert permitted.allows(TOPIC, "333333333333")
    assert permitted.allows(HOOK, "111111111111")
    assert permitted.allows(HOOK, "222222222222")
    assert not permitted.allows(HOOK, "333333333333")
    assert not permitted.allows(HOOK + "/", "111111111111")
    assert not permitted.allows("", "111111111111")
    both = Destinations.read([HOOK, f"111111111111={HOOK}"], f"{HOOK} {SECRET}")
    assert both.allows(HOOK, "333333333333")


@pytest.mark.parametrize(
    "target",
    [
        "",
        "findings",
        "arn:aws:sqs:us-east-1:111111111111:queue",
        "arn:aws:sns:us-east-1:111111111111:",
        "http://hooks.example/one",
        "http://10.0.0.1/",
        "ftp://hooks.example/",
        "https:///nohost",
        "https://user:secret@hooks.example/",
        "https://hooks.example/#part",
        "https://hooks.example/a b",
        "https://hooks.example:99999/",
        "https://hooks.example/\x00",
    ],
)
def test_targets_that_are_none(target: str) -> None:
    with pytest.raises(KeyassayError):
        Destinations.read([target], f"{target} {SECRET}")


@pytest.mark.parametrize(
    "secrets", ["", f"https://other.example/ {SECRET}", HOOK, f"{HOOK} whsec_", f"{HOOK} ä {SECRET}"]
)
def test_a_webhook_needs_a_secret(secrets: str) -> None:
    with pytest.raises(KeyassayError) as raised:
        Destinations.read([HOOK], secrets)
    assert SECRET not in str(raised.value)


def test_a_webhook_gets_a_signed_cloudevent() -> None:
    with receiving() as receiver:
        Hook(receiver.url, SECRET).send(MESSAGE)
    ((headers, body),) = receiver.got
    event = Webhook(SECRET).verify(body, headers)
    assert headers["webhook-id"] == "id-1"
    assert headers["content-type"] == "application/cloudevents+json"
    assert headers["host"] == receiver.url.split("/")[2]
    assert event == {
        "specversion": "1.0",
        "id": "id-1",
        "source": "/keyassay/111111111111",
        "type": "keyassay.audit.finding",
        "time": "2023-11-14T22:13:20.123Z",
        "datacontenttype": "application/json",
        "data": {"findingId": "ü"},
    }
    assert datetime.fromisoformat(event["time"]) == datetime.fromtimestamp(1_700_000_000.123, UTC)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook("whsec_" + "A" * 32).verify(body, headers)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(SECRET).verify(body.replace(b"finding", b"nothing"), headers)


@pytest.mark.parametrize(
    ("status", "final"), [(500, False), (404, False), (429, False), (410, True), (302, True), (307, True)]
)
def test_answers_that_are_no_success(status: int, final: bool) -> None:
    with receiving() as elsewhere, receiving() as receiver:
        receiver.answers, receiver.location = [status], elsewhere.url
        with pytest.raises(DeliveryError, match=str(status)) as raised:
            Hook(receiver.url, SECRET).send(MESSAGE)
        assert raised.value.final is final
        assert len(receiver.got) == 1
        assert elsewhere.got == []


def test_nobody_there_and_one_who_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        stop = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    while not stop.wait(0.05):
                        connection.sendall(b"HTTP/1.1 200 OK\r\nx: y\r\n"[:1])
                except OSError:
                    pass

        thread = threading.Thread(target=drip)
        thread.start()
        start = time.monotonic()
        with pytest.raises(DeliveryError):
            Hook(url, SECRET).send(MESSAGE)
        assert time.monotonic() - start < 9  # less than the silence that would be borne
        stop.set()
        thread.join()
    with pytest.raises(DeliveryError) as raised:
        Hook(url, SECRET).send(MESSAGE)
    assert not raised.value.final


def test_certificates_of_receivers_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = fleet_keys.certificate("receiver", fleet_keys.ec_key(3), is_authority=True, extensions=((names, False),))
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_text(signed.pem)
    key.write_bytes(signed.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with receiving(certificate, key) as receiver:
        with pytest.raises(DeliveryError, match="CERTIFICATE_VERIFY_FAILED"):
            Hook(receiver.url, SECRET).send(MESSAGE)
        assert receiver.got == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        Hook(receiver.url, SECRET).send(MESSAGE)
        assert json.loads(receiver.got[0][1])["id"] == "id-1"
