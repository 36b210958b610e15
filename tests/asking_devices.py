"""Devices that ask for new certificates over MQTT's messages, for tests without a broker."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

import fleet_keys
from keyassay.registry.registry import Registry
from keyassay.replacement import delivery
from keyassay.storage.database import Actor
from replacing import new_key
from two_accounts import A


def csr_of(key: Any, subject: str = "whatever the device says") -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(fleet_keys.name(subject))
    return builder.sign(key, hashes.SHA256())


@dataclass
class Device:
    """A device at its broker.

    Attributes:
        registry: behind the gate.
        thing: its name.
        key: the new one.
    """

    registry: Registry
    thing: str
    key: Any = field(default_factory=new_key)
    actor: Actor = A

    @property
    def csr(self) -> x509.CertificateSigningRequest:
        if not hasattr(self, "_csr"):
            self._csr = csr_of(self.key)
        return self._csr

    @property
    def csr_pem(self) -> str:
        return self.csr.public_bytes(Encoding.PEM).decode()

    @property
    def csr_digest(self) -> str:
        return hashlib.sha256(self.csr.public_bytes(Encoding.DER)).hexdigest()

    def publish(self, what: str, body: Any) -> tuple[str, dict[str, Any]]:
        """How the reply's topic ends, and its body."""
        topic = f"$aws/things/{self.thing}/keyassay/replacement/{what}"
        payload = body if isinstance(body, str) else json.dumps(body)
        (reply,) = delivery.deliver(self.registry, self.actor, [{"topic": topic, "payload": payload}])["replies"]
        assert reply["topic"].startswith(topic + "/")
        return reply["topic"].removeprefix(topic + "/"), json.loads(reply["payload"])

    def get(self) -> tuple[str, dict[str, Any]]:
        return self.publish("get", {})

    def message(self, replacement_id: str) -> bytes:
        """What is to be proved, as docs/device-protocol.md has it."""
        digest = hashlib.sha256(self.csr.public_bytes(Encoding.DER)).digest()
        parts = (b"keyassay-replacement-v1", self.actor.account_id.encode(), replacement_id.encode())
        return b"\0".join((*parts, self.thing.encode(), digest))

    def proof(self, kind: str, replacement_id: str, by: Any = None) -> dict[str, str]:
        """A proof by a secret (base64), or by a private key."""
        signed = self.message(replacement_id)
        if by is None:
            return {"kind": kind}
        if isinstance(by, str):
            value = hmac.digest(base64.b64decode(by), signed, "sha256")
        else:
            value = by.sign(signed, ec.ECDSA(hashes.SHA256()))
        return {"kind": kind, "value": base64.b64encode(value).decode()}

    def body(self, replacement_id: str, kind: str = "old-key", by: Any = None) -> dict[str, Any]:
        return {
            "replacementId": replacement_id,
            "certificateSigningRequest": self.csr_pem,
            "proof": self.proof(kind, replacement_id, by),
        }

    def ask(self, replacement_id: str, kind: str = "old-key", by: Any = None) -> tuple[str, dict[str, Any]]:
        return self.publish("create-from-csr", self.body(replacement_id, kind, by))
