"""Tries a gate as a device would: one connection, and what came of it."""

from __future__ import annotations

import ssl
import tempfile
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from paho.mqtt.enums import CallbackAPIVersion

from keyassay.errors import KeyassayError


@dataclass(frozen=True)
class DeviceCertificate:
    """A self-signed certificate that is good for an hour, with its key, PEM."""

    certificate: str
    key: str


def make_certificate(common_name: str) -> DeviceCertificate:
    """A new one on P-256."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(minutes=10)).not_valid_after(now + timedelta(hours=1))
    pem = made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return DeviceCertificate(pem, text)


class Attempt:
    """A connection of a device to a gate.

    Attributes:
        outcome: "accepted", "refused by the gate" or "refused by the broker".
        closed: set when the connection is gone.
    """

    def __init__(
        self,
        address: tuple[str, int],
        made: DeviceCertificate,
        client_id: str,
        authorities: Path | None,
        seconds: float,
    ) -> None:
        """Connect, and wait for an answer.

        Args:
            address: host and port.
            made: certificate and key.
            client_id: of MQTT.
            authorities: PEM file that the broker's certificate is checked with; None for the system's.
            seconds: to wait.

        Raises:
            KeyassayError: there is no gate, or its certificate cannot be checked.
        """
        self.closed = threading.Event()
        self.outcome = "refused by the gate"
        self._answered = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, reconnect_on_failure=False)
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.tls_set_context(_context(made, authorities))
        try:
            self._client.connect(*address)
        except ssl.SSLCertVerificationError as error:
            raise KeyassayError(
                f"the broker's certificate cannot be checked: {error.verify_message}", "--broker-ca FILE names its CA"
            ) from None
        except ssl.SSLError:
            self.closed.set()
            return
        except OSError as error:
            raise KeyassayError(f"nobody answers at {address[0]}:{address[1]}: {error.strerror or error}") from None
        self._client.loop_start()
        self._answered.wait(seconds)

    @property
    def accepted(self) -> bool:
        """Whether the broker took the session."""
        return self.outcome == "accepted"

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.outcome = f"refused by the broker: {reason}" if reason.is_failure else "accepted"
        self._answered.set()

    def _disconnected(self, _client: Any, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        self.closed.set()
        self._answered.set()


def _context(made: DeviceCertificate, authorities: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authorities)
    except (OSError, ssl.SSLError) as error:
        raise KeyassayError(f"{authorities} cannot be used: {error}") from None
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(made.certificate + made.key)
        file.flush()
        context.load_cert_chain(file.name)
    return context
