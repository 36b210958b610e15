"""``keyassay-device``: a device that stays connected and gets itself a new certificate when it is asked to.

This file is made to be copied: it needs paho-mqtt and cryptography, nothing else of keyassay. docs/device-protocol.md
tells the messages. What is on disk, each file written whole or not at all, lets it be killed at any moment:
``pending.json`` the new key and its request, ``new.pem`` the new certificate with its key, until a CONNACK proved it;
then that becomes ``current.pem``, which replaces the files that the device began with.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import logging
import os
import queue
import random
import signal
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion

LOG = logging.getLogger("keyassay-device")
PREFIX, _SAID, _TRIES = b"keyassay-replacement-v1", {False: "connected", True: "refused"}, 5


def make_proof(kind: str, message: bytes, secret: bytes, key_pem: bytes) -> dict[str, str]:
    """What proves a request: an HMAC by the claim secret, or a signature by another key of the device."""
    if kind == "secret":
        value = hmac.digest(secret, message, "sha256")
    elif kind in ("device-key", "claim-certificate"):
        key = load_pem_private_key(key_pem, None)
        if isinstance(key, rsa.RSAPrivateKey):
            value = key.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePrivateKey):
            value = key.sign(message, ec.ECDSA(hashes.SHA256()))
        else:
            assert isinstance(key, ed25519.Ed25519PrivateKey), "the key is RSA, on a curve, or Ed25519"
            value = key.sign(message)
    else:  # approval, old-key: nothing to show
        return {"kind": kind}
    return {"kind": kind, "value": base64.b64encode(value).decode()}


def write_whole(path: Path, text: str) -> None:
    """Write a file that only the owner may read, whole or not at all, and on disk when this returns."""
    made = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    made.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


class Agent:
    """One device.

    Args:
        options: as ``main`` reads them.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.state = Path(options.state)
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.proof_key = Path(options.proof_key).read_bytes() if options.proof_key else b""
        self.topic = f"$aws/things/{options.thing}/keyassay/replacement"
        self.failures = 0
        self.tries = _TRIES

    @property
    def claim(self) -> dict[str, str]:
        """What the operator gave; it may come while this runs."""
        path = Path(self.options.claim or "")
        return json.loads(path.read_text()) if path.is_file() else {}

    def current(self) -> tuple[Path, Path | None]:
        """Certificate and key that are proven: one file, or the two that the device began with."""
        mine = self.state / "current.pem"
        return (mine, None) if mine.exists() else (Path(self.options.certificate), Path(self.options.key))

    def current_id(self) -> str:
        """SHA-256 of the certificate's DER."""
        return x509.load_pem_x509_certificate(self.current()[0].read_bytes()).fingerprint(hashes.SHA256()).hex()

    def pending(self, replacement_id: str) -> dict[str, str]:
        """The new key and its request for a replacement; made once, so that the same request is sent again."""
        path = self.state / "pending.json"
        try:
            found: dict[str, str] = json.loads(path.read_text())
            if (found["replacementId"], found["oldCertificateId"]) == (replacement_id, self.current_id()):
                return found
        except (FileNotFoundError, ValueError, KeyError):
            pass
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.options.thing[:64])])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        found = {
            "replacementId": replacement_id,
            "oldCertificateId": self.current_id(),
            "key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "request": request.public_bytes(Encoding.PEM).decode(),
        }
        write_whole(path, json.dumps(found))
        return found

    def request(self, replacement_id: str, account_id: str, kind: str) -> dict[str, Any]:
        """The request for a new certificate, with its proof."""
        pem = self.pending(replacement_id)["request"]
        der = x509.load_pem_x509_csr(pem.encode()).public_bytes(Encoding.DER)
        parts = (PREFIX, account_id.encode(), replacement_id.encode(), self.options.thing.encode())
        message = b"\0".join((*parts, hashlib.sha256(der).digest()))
        proof = make_proof(kind, message, base64.b64decode(self.claim.get("secret", "")), self.proof_key)
        return {"replacementId": replacement_id, "certificateSigningRequest": pem, "proof": proof}

    def take(self, answer: dict[str, Any]) -> bool:
        """Store the new certificate; false if it is none for the new key."""
        try:
            key_pem: str = json.loads((self.state / "pending.json").read_text())["key"]
            certificate = x509.load_pem_x509_certificate(answer["certificatePem"].encode())
        except (FileNotFoundError, ValueError, KeyError, AttributeError):
            return False
        if certificate.public_key() != load_pem_private_key(key_pem.encode(), None).public_key():
            LOG.warning("what came is no certificate for the new key")
            return False
        write_whole(self.state / "new.pem", certificate.public_bytes(Encoding.PEM).decode() + key_pem)
        self.tries = _TRIES
        LOG.info("got the new certificate %s", answer.get("certificateId"))
        return True

    def adopt(self) -> None:
        """The new certificate works: it is the current one from now on."""
        (self.state / "new.pem").replace(self.state / "current.pem")
        (self.state / "pending.json").unlink(missing_ok=True)
        LOG.info("replaced")

    # the broker

    def run(self, stop: threading.Event) -> None:
        """Stay connected until told to stop."""
        while not stop.is_set():
            new = self.state / "new.pem" if self.tries and (self.state / "new.pem").exists() else None
            outcome = self.session(new, stop)
            if outcome == "again":  # to connect with another certificate
                continue
            if outcome == "refused" and new:
                self.tries -= 1  # the gate may not know it yet; after some tries it is the old one's turn
                LOG.warning("the new certificate was refused, %d more tries", self.tries)
                stop.wait(self.options.retry)
                continue
            self.tries = _TRIES
            if outcome == "refused" and self.options.claims_url and self.claim_over_https():
                continue
            self.failures = min(self.failures + 1, 16)
            longest = min(self.options.retry * 2**self.failures, 300.0)
            stop.wait(random.uniform(self.options.retry, longest))  # noqa: S311  devices shall not come all at once

    def session(self, new: Path | None, stop: threading.Event) -> str:
        """One connection, until it ends: "again", "refused" (before CONNACK), "lost" or "unreachable"."""
        happened: queue.SimpleQueue[tuple[str, str, bytes]] = queue.SimpleQueue()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, self.options.thing, reconnect_on_failure=False)
        client.on_connect = lambda _c, _d, _f, code, _p: happened.put((_SAID[code.is_failure], "", b""))
        client.on_disconnect = lambda *_: happened.put(("ended", "", b""))
        client.on_subscribe = lambda *_: happened.put(("subscribed", "", b""))
        client.on_message = lambda _c, _d, one: happened.put(("message", one.topic, bytes(one.payload)))
        context = ssl.create_default_context(cafile=self.options.ca)
        certificate, key = (new, None) if new else self.current()
        try:
            context.load_cert_chain(certificate, key)
            client.tls_set_context(context)
            client.connect(self.options.host, self.options.port, keepalive=60)
        except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
            return "refused"
        except (OSError, ValueError) as error:
            LOG.warning("cannot connect: %s", error)
            return "unreachable"
        client.loop_start()
        try:
            return self.talk(client, happened, new, stop)
        finally:
            client.disconnect()
            client.loop_stop()

    def talk(self, client: mqtt.Client, happened: Any, new: Path | None, stop: threading.Event) -> str:
        """What is said on a connection."""
        accepted, ask_at, begun = False, float("inf"), time.monotonic()
        while not stop.is_set():
            try:
                what, topic, payload = happened.get(timeout=0.2)
            except queue.Empty:
                what, topic, payload = "", "", b""
            if what in ("ended", "refused") or (not accepted and time.monotonic() > begun + 30):
                return "lost" if accepted else "refused"
            if what == "connected":
                accepted, self.failures = True, 0
                LOG.info("connected with %s", "the new certificate" if new else "the current certificate")
                if new:
                    self.adopt()
                client.subscribe([(f"{self.topic}/notify", 1), (f"{self.topic}/+/+", 1)])
            elif what == "subscribed" or (what == "message" and topic.endswith("/notify")):
                ask_at = 0.0
            elif what == "message":
                if (heard := self.hear(client, topic, payload)) == "taken":
                    return "again"
                idle = 60 if heard == "" and "/get/" in topic else 1  # nothing to do: `notify` tells when there is
                ask_at = time.monotonic() + idle * self.options.retry * random.uniform(5, 15)  # noqa: S311
            if accepted and time.monotonic() > ask_at:  # again, if no answer comes: messages get lost
                client.publish(f"{self.topic}/get", "{}", 1)
                ask_at = time.monotonic() + self.options.retry * random.uniform(5, 15)  # noqa: S311
            if not self.tries and time.monotonic() > begun + 60 * self.options.retry:
                return "lost"  # the new certificate was refused a while ago: perhaps it is let in now
        return "lost"

    def hear(self, client: mqtt.Client, topic: str, payload: bytes) -> str:
        """A message of the registry: "taken" if it brought the new certificate, "asked" if that was asked for."""
        try:
            body = json.loads(payload)
        except ValueError:
            return ""
        if topic == f"{self.topic}/get/accepted":
            waiting = body.get("state") in ("PLANNED", "ISSUED", "ATTACHED", "DELIVERED", "UNREACHABLE")
            mine = body.get("oldCertificateId") == self.current_id() and not (self.state / "new.pem").exists()
            if waiting and mine:  # another certificate's replacement is not this key's business
                asked = self.request(body["replacementId"], body["accountId"], body["proof"])
                client.publish(f"{self.topic}/create-from-csr", json.dumps(asked), 1)
                return "asked"
        elif topic == f"{self.topic}/create-from-csr/accepted":
            return "taken" if self.take(body) else ""
        elif topic == f"{self.topic}/create-from-csr/rejected":
            LOG.warning("refused: %s %s", body.get("errorCode"), body.get("errorMessage"))
            if body.get("errorCode") == "KeyRefused":
                (self.state / "pending.json").unlink(missing_ok=True)  # another key, the next time
        return ""

    def claim_over_https(self) -> bool:
        """Ask over HTTPS, where the broker lets the device in no more; true if there is a new certificate."""
        try:
            account_id, replacement_id = self.claim["accountId"], self.claim["replacementId"]
            kind = self.claim.get("proof") or ("secret" if "secret" in self.claim else "device-key")
            body = {"accountId": account_id, "thingName": self.options.thing}
            body |= self.request(replacement_id, account_id, kind)
            context = ssl.create_default_context(cafile=self.options.claims_ca or self.options.ca)
            asked = urllib.request.Request(self.options.claims_url, json.dumps(body).encode())  # noqa: S310  ours
            with urllib.request.urlopen(asked, timeout=30, context=context) as said:  # noqa: S310
                return said.status == 200 and self.take(json.loads(said.read(131_072)))
        except (OSError, ValueError, KeyError) as error:
            LOG.warning("the claim was not answered: %s", error)
            if isinstance(error, urllib.error.HTTPError) and b"KeyRefused" in error.read(4_096):
                (self.state / "pending.json").unlink(missing_ok=True)
            return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser("keyassay-device", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--host", required=True, help="of the broker")
    parser.add_argument("--port", type=int, default=8883, help="of the broker (default: 8883)")
    parser.add_argument("--thing", required=True, help="the device's name, and its client id")
    parser.add_argument("--certificate", required=True, help="PEM file of the certificate that it begins with")
    parser.add_argument("--key", required=True, help="PEM file of its key")
    parser.add_argument("--ca", help="PEM file that the broker's certificate is checked with")
    parser.add_argument("--state", required=True, help="folder of its own, for what is new")
    parser.add_argument("--claim", help="JSON file: secret, for HTTPS accountId and replacementId; may come later")
    parser.add_argument("--proof-key", help="PEM file of another key: the device's own, or a claim certificate's")
    parser.add_argument("--claims-url", help="https://REGISTRY/keyassay/v1/claims, where the broker refuses the device")
    parser.add_argument("--claims-ca", help="PEM file that the registry's certificate is checked with (default: --ca)")
    parser.add_argument("--retry", type=float, default=2.0, help="seconds until it tries again, at least (default: 2)")
    options = parser.parse_args(arguments)
    if options.claims_url and not options.claims_url.startswith(("https://", "http://127.0.0.1:")):
        parser.error("claims go over https://")
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, stream=sys.stderr)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Agent(options).run(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
