"""The third part of the demonstration: devices connected through a gate, weak ones replaced while they run.

HAProxy and Mosquitto are real, each device is a process of its own (``keyassay-device``) with its own key, and all
is done by the program and by AWS IoT's API.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import gmpy2
import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from sample_fleet import EXPONENT, P256_ORDER, RFC_6979_KEY, prime

from keyassay.errors import KeyassayError
from keyassay.gate import running
from keyassay.lists.recipes import debian_openssl
from registry import ACCOUNT, PATIENCE, REGION, DemoError, Server

MAKER = "Tidewell Valves"
#: what the gate and the devices run with
PROGRAMS = ("haproxy", "mosquitto")
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass
class Device:
    """A device of the fleet that is connected.

    Attributes:
        name: its thing, and its client id.
        key: its first one.
        certificate: for that key; devices with one firmware image share it.
        story: why the key is weak; empty for sound ones.
    """

    name: str
    key: Key
    certificate: x509.Certificate
    story: str = ""

    @property
    def certificate_id(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()


@dataclass
class Way:
    """What is running.

    Attributes:
        server: the registry.
        program: keyassay; ``keyassay-device`` lies beside it.
        folder: of everything that is written.
        port: of the gate.
        devices: the fleet.
        processes: the gate and the devices.
    """

    server: Server
    program: Path
    folder: Path
    port: int
    devices: list[Device] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def variables(self, key: str = "", secret: str = "") -> dict[str, str]:
        """The environment of a command that asks the registry."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KEYASSAY_", "AWS_"))}
        return {
            **kept,
            "AWS_ENDPOINT_URL_IOT": self.server.url,
            "AWS_ACCESS_KEY_ID": key or self.server.access_key_id,
            "AWS_SECRET_ACCESS_KEY": secret or self.server.secret,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def keyassay(self, *words: str, good: tuple[int, ...] = (0,)) -> str:
        """Run a command of the program; what it printed.

        Raises:
            DemoError: it failed.
        """
        done = subprocess.run(
            [self.program, *words], env=self.variables(), check=False, capture_output=True, text=True, timeout=PATIENCE
        )
        if done.returncode not in good:
            raise DemoError(f"`keyassay {' '.join(words)}` ended with {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout

    def start(self, name: str, *command: str | Path, variables: dict[str, str] | None = None) -> None:
        """Run something in the background; what it says goes to a file."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=variables or self.variables())
            )

    def until(self, condition: Callable[[], Any], what: str, pause: float = 0.2) -> Any:
        """Wait until something is so, looking every ``pause`` seconds.

        Raises:
            DemoError: it took too long, or the gate or a device ended.
        """
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            for process in self.processes:
                if process.poll() is not None:
                    raise DemoError(f"{process.args} ended with {process.returncode}{self.said()}")
            if time.monotonic() > end:
                raise DemoError(f"{what}: not within {PATIENCE:.0f} s{self.said()}")
            time.sleep(pause)
        return value

    def log(self, name: str) -> str:
        """What something in the background has said."""
        return (self.folder / f"{name}.log").read_text()

    def said(self) -> str:
        """The last lines of all logs."""
        return "".join(f"\n{path.name}: {path.read_text()[-500:]}" for path in sorted(self.folder.glob("*.log")))

    @property
    def broker(self) -> Path:
        """The broker's certificate and key; devices trust the certificate."""
        return self.folder / "broker.pem"


def missing() -> list[str]:
    """Programs that this part needs and that are not installed."""
    absent = []
    for name in PROGRAMS:
        try:
            running.program(name)
        except KeyassayError:
            absent.append(name)
    return absent


def named(common_name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, MAKER), x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    )


def certified(common_name: str, key: Key, issuer: str, signer: Key, *names: str) -> x509.Certificate:
    """A certificate of two years."""
    now = datetime.now(UTC).replace(microsecond=0)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(common_name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=730))
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(signer, hashes.SHA256())


def rsa_of(p: int, q: int) -> rsa.RSAPrivateKey:
    d = int(gmpy2.invert(EXPONENT, (p - 1) * (q - 1)))
    public = rsa.RSAPublicNumbers(EXPONENT, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), int(gmpy2.invert(q, p)), public)
    return numbers.private_key()


def fleet() -> list[Device]:
    """Twelve valves; five have keys that can be computed, two of them one and the same certificate."""
    maker = ec.generate_private_key(ec.SECP256R1())
    debian = debian_openssl.Stream("le64", "rnd", 7_315)
    close = prime("valve's prime")
    curve = ec.SECP256R1()
    weak: dict[int, tuple[Key, str]] = {
        2: (rsa_of(close, int(gmpy2.next_prime(close))), "q is the next prime after p"),
        5: (
            ec.derive_private_key(debian_openssl.ec_secret(debian, P256_ORDER), curve),
            f"made by Debian's OpenSSL of 2006 to 2008, process id {debian.pid}",
        ),
        8: (ec.derive_private_key(271_828, curve), "its private key is 271828"),
        10: (ec.derive_private_key(RFC_6979_KEY, curve), "the example key of RFC 6979, one certificate in two devices"),
    }
    devices = []
    for number in range(1, 13):
        name = f"valve-{number:02d}"
        if number == 11:  # the same firmware image as number 10
            twin = devices[-1]
            devices.append(Device(name, twin.key, twin.certificate, twin.story))
            continue
        key, story = weak.get(number, (ec.generate_private_key(curve), ""))
        devices.append(Device(name, key, certified(name, key, "Tidewell Device CA", maker), story))
    return devices


def pem_of(key: Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def register(way: Way, api: Any) -> None:
    """Certificates, things, and a policy by which a device may connect under its thing's name only."""
    document = {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Action": "iot:Connect",
            "Resource": f"arn:aws:iot:{REGION}:{ACCOUNT}:client/${{iot:Connection.Thing.ThingName}}",
        },
    }
    api.create_policy(policyName="valves", policyDocument=json.dumps(document))
    seen = set()
    for device in way.devices:
        arn = f"arn:aws:iot:{REGION}:{ACCOUNT}:cert/{device.certificate_id}"
        if arn not in seen:
            seen.add(arn)
            text = device.certificate.public_bytes(Encoding.PEM).decode()
            api.register_certificate_without_ca(certificatePem=text, status="ACTIVE")
            api.attach_policy(policyName="valves", target=arn)
        api.create_thing(thingName=device.name)
        api.attach_thing_principal(thingName=device.name, principal=arn)


@contextlib.contextmanager
def connected(server: Server, program: Path) -> Iterator[Way]:
    """A gate, and a fleet that is connected through it, until the block ends.

    Raises:
        DemoError: something did not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="keyassay-way-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    way = Way(server, program, folder, port, fleet())
    try:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = certified("localhost", key, "localhost", key, "localhost")
        way.broker.write_bytes(certificate.public_bytes(Encoding.PEM) + pem_of(key))
        (folder / "ca.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        register(way, server.client())
        made = json.loads(way.keyassay("keys", "create", "--role", "gate", "--database", server.database, "--json"))
        way.start(
            "gate", program, "gate", "run", "--name", "demo", "--server-cert", way.broker, "--folder", folder / "gate",
            "--listen", f"127.0.0.1:{port}", "--endpoint-url", server.url,
            variables=way.variables(made["access_key_id"], made["secret_access_key"]),
        )  # fmt: skip
        way.until(lambda: _listens(port), "the gate")
        yield way
    finally:
        for process in reversed(way.processes):
            process.terminate()
        for process in way.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start_devices(way: Way) -> None:
    """Start all devices, and wait until the registry sees them connected.

    Each has a second key, as devices with a secure element have: it proves requests for a new certificate.
    """
    program = way.program.with_name("keyassay-device")
    for device in way.devices:
        home = way.folder / device.name
        home.mkdir()
        (home / "first.pem").write_bytes(device.certificate.public_bytes(Encoding.PEM))
        (home / "first.key").write_bytes(pem_of(device.key))
        element = ec.generate_private_key(ec.SECP256R1())
        (home / "element.key").write_bytes(pem_of(element))
        public = element.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (home / "element.pub").write_bytes(public)
        way.start(
            device.name, program, "--host", "localhost", "--port", str(way.port), "--thing", device.name,
            "--certificate", home / "first.pem", "--key", home / "first.key", "--ca", way.folder / "ca.pem",
            "--state", home / "state", "--proof-key", home / "element.key", "--retry", "0.5",
        )  # fmt: skip
    way.until(lambda: all("connected" in way.log(one.name) for one in way.devices), "the devices' connections")


def replace(way: Way, audit_task: str) -> str:
    """Start the replacement of what an audit found among the valves; its id.

    The devices' second keys are registered for it: they are known from the factory, not from the network.
    """
    where = ("--endpoint-url", way.server.url)
    started = way.keyassay(
        "replace", "start", "--audit-task", audit_task, "--proof", "device-key", "--grace", "2s", "--yes", "--json",
        *where,
    )  # fmt: skip
    found: str = json.loads(started)["replacementId"]
    keys = way.folder / "keys.csv"
    weak = [device for device in way.devices if device.story]
    keys.write_text("".join(f"{one.name},{way.folder / one.name / 'element.pub'}\n" for one in weak))
    way.keyassay("replace", "keys", found, str(keys), *where)
    return found


def status(way: Way, replacement_id: str) -> dict[str, Any]:
    """How far a replacement is."""
    text = way.keyassay("replace", "status", replacement_id, "--json", "--endpoint-url", way.server.url, good=(0, 1))
    found: dict[str, Any] = json.loads(text)
    return found


def certificate_in_use(way: Way, device: Device) -> str:
    """The id of the certificate that a device connects with now."""
    new = way.folder / device.name / "state" / "current.pem"
    if not new.exists():
        return device.certificate_id
    return x509.load_pem_x509_certificate(new.read_bytes()).fingerprint(hashes.SHA256()).hex()


def try_to_connect(way: Way, device: Device, seconds: float = 10.0) -> bool:
    """Whether the broker lets somebody in who has a device's first key and certificate."""
    file = way.folder / f"{device.name}-computed.pem"
    file.write_bytes(device.certificate.public_bytes(Encoding.PEM) + pem_of(device.key))
    context = ssl.create_default_context(cafile=str(way.folder / "ca.pem"))
    context.load_cert_chain(file)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device.name, reconnect_on_failure=False)
    client.tls_set_context(context)
    answers: list[bool] = []
    client.on_connect = lambda _client, _data, _flags, reason, _more: answers.append(not reason.is_failure)
    client.on_disconnect = lambda *_: answers.append(False)
    try:
        client.connect("localhost", way.port)
    except OSError:
        return False
    client.loop_start()
    end = time.monotonic() + seconds
    while not answers and time.monotonic() < end:
        time.sleep(0.05)
    client.disconnect()
    client.loop_stop()
    return bool(answers and answers[0])


if __name__ == "__main__":
    sys.exit("this is a part of demo.py")
