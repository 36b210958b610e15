"""A fleet replaced from end to end: how long it takes, which steps take it, and what each program costs.

    python3 dev.py bench replacement [--devices 2000] [--batch 100] [--grace 3] [--ask-again 1200]

A real server (SQLite) with its workers, a real gate (agent, HAProxy, Mosquitto), a real audit. The devices are
simulated in this process: TLS 1.3 with a key of their own each, MQTT 3.1.1, and the protocol of replacements, as
``keyassay-device`` speaks it. Their first keys are small numbers on P-256, which the audit proves broken.

At the end it is checked that every device has a valid certificate and is connected with it, that none was without one
at any look, that no old certificate is let in any more, and that no step of any device was done twice.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import random
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "demo"))

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import text
from way_out import Way, certified, pem_of, status

from keyassay.registry import certificates, policies, principals, things
from keyassay.replacement import campaigns, provisioning
from keyassay.server.opening import open_registry
from keyassay.server.settings import Settings
from keyassay.storage.database import Actor
from registry import ACCOUNT, REGION, audit, serving

PREFIX = b"keyassay-replacement-v1"
ACTOR = Actor(ACCOUNT, "benchmark", "127.0.0.1")
STEPS = ("BEGUN", "ISSUED", "DELIVERED", "CONNECTED", "OLD_INACTIVE", "OLD_REVOKED", "DETACHED", "DONE")
#: connections that devices set up at a time
AT_ONCE = 32
TICKS = os.sysconf("SC_CLK_TCK")
#: things without any certificate that is valid and may be used
WITHOUT = text(
    "SELECT count(*) FROM things t WHERE NOT EXISTS (SELECT 1 FROM thing_principals p JOIN certificates c"
    " ON c.account_id = p.account_id AND c.id = p.certificate_id"
    " WHERE p.account_id = t.account_id AND p.thing_name = t.name AND c.status = 'ACTIVE')"
)


class RefusedError(Exception):
    """The gate did not let a device in."""


# MQTT 3.1.1, as much as a device needs


def field_of(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def packet(kind: int, body: bytes) -> bytes:
    length, left = b"", len(body)
    while True:
        left, low = divmod(left, 128)
        length += bytes([low | 128 if left else low])
        if not left:
            return bytes([kind]) + length + body


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return kind, await reader.readexactly(length)


# Devices


@dataclass
class Fleet:
    """What all devices know."""

    port: int
    folder: Path
    broker_pem: str
    ask_again: float
    secrets: dict[str, bytes] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    opening: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    def context(self, pem: bytes, name: str) -> ssl.SSLContext:
        """TLS with a certificate and its key."""
        file = self.folder / name
        file.write_bytes(pem)
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.load_verify_locations(cadata=self.broker_pem)
        made.load_cert_chain(file)
        return made

    async def connect(self, client_id: str, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, Any]:
        """TLS and CONNECT.

        Raises:
            RefusedError: no CONNACK with success came.
        """
        async with self.opening:
            writer = None
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self.port, ssl=context, server_hostname="localhost", ssl_handshake_timeout=60
                )
                writer.write(packet(0x10, b"\0\4MQTT\4\2\0\0" + field_of(client_id.encode())))  # no keep-alive
                if await asyncio.wait_for(read_packet(reader), 60) != (0x20, b"\0\0"):
                    raise RefusedError
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                if writer is not None:
                    writer.close()
                raise RefusedError(str(error)) from None
            return reader, writer


class Device:
    """One simulated device."""

    def __init__(self, fleet: Fleet, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.fleet = fleet
        self.name = name
        self.first = fleet.context(certificate.public_bytes(Encoding.PEM) + pem_of(key), f"{name}.pem")
        self.context = self.first
        self.id = self.first_id = certificate.fingerprint(hashes.SHA256()).hex()
        self.topic = f"$aws/things/{name}/keyassay/replacement"
        self.key: Any = None
        self.request = b""
        self.fresh = False
        self.connected = False

    async def run(self) -> None:
        """Stay connected."""
        wait = 0.5
        while True:
            try:
                reader, writer = await self.fleet.connect(self.name, self.context)
            except RefusedError:
                self.fleet.counts[f"refused with the {'new' if self.fresh else 'old'} certificate"] += 1
                await asyncio.sleep(wait * random.uniform(0.5, 1.5))
                wait = min(wait * 2, 10.0)
                continue
            wait = 0.5
            again: asyncio.Task[None] | None = None
            try:
                self.connected = True
                topics = (f"{self.topic}/notify", f"{self.topic}/+/+")
                writer.write(packet(0x82, b"\0\1" + b"".join(field_of(one.encode()) + b"\1" for one in topics)))
                while True:
                    kind, body = await read_packet(reader)
                    if kind == 0x90:
                        self.publish(writer, "get", {})
                    elif kind & 0xF0 == 0x30:
                        if kind & 6:
                            at = 2 + int.from_bytes(body[:2], "big")
                            writer.write(packet(0x40, body[at : at + 2]))
                        if (what := self.hear(writer, kind, body)) == "taken":
                            break
                        if what == "later" and self.fleet.ask_again:
                            again = asyncio.create_task(self.ask_later(writer))
                self.connected = False
                writer.write(packet(0xE0, b""))
            except (OSError, asyncio.IncompleteReadError):
                self.connected = False
                self.fleet.counts["connections lost"] += 1
            finally:
                if again is not None:
                    again.cancel()
                writer.close()

    async def ask_later(self, writer: Any) -> None:
        """Ask again whether there is something to do."""
        await asyncio.sleep(self.fleet.ask_again * random.uniform(0.5, 1.5))
        self.publish(writer, "get", {})

    def publish(self, writer: Any, what: str, body: dict[str, Any]) -> None:
        """Publish for the registry, with QoS 1."""
        self.fleet.counts[what] += 1
        payload = field_of(f"{self.topic}/{what}".encode()) + b"\0\7" + json.dumps(body).encode()
        writer.write(packet(0x32, payload))

    def hear(self, writer: Any, kind: int, body: bytes) -> str:
        """A message of the registry; "taken" if it brought the new certificate, "later" if there is nothing now."""
        end = 2 + int.from_bytes(body[:2], "big")
        topic = body[2:end].decode().removeprefix(self.topic)
        said = json.loads(body[end + (2 if kind & 6 else 0) :])
        if topic == "/notify":
            self.publish(writer, "get", {})
        elif topic == "/get/accepted" and said["oldCertificateId"] == self.id and not self.fresh:
            self.publish(writer, "create-from-csr", self.asked(said))
        elif topic == "/create-from-csr/accepted":
            certificate = x509.load_pem_x509_certificate(said["certificatePem"].encode())
            if certificate.public_key() != self.key.public_key():
                raise SystemExit(f"{self.name} got somebody else's certificate")
            pem = certificate.public_bytes(Encoding.PEM) + pem_of(self.key)
            self.context = self.fleet.context(pem, f"{self.name}-new.pem")
            self.id, self.fresh = certificate.fingerprint(hashes.SHA256()).hex(), True
            return "taken"
        elif topic.endswith(("/rejected", "/pending")):
            if said.get("errorCode") not in (None, "ResourceNotFoundException"):
                self.fleet.counts[f"{topic} {said.get('errorCode')}"] += 1
            return "later"
        return ""

    def asked(self, offer: dict[str, Any]) -> dict[str, Any]:
        """The request for a new certificate; the same one if it is asked for again."""
        if self.key is None:
            self.key = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.name)])
            request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.key, hashes.SHA256())
            self.request = request.public_bytes(Encoding.DER)
        parts = (PREFIX, offer["accountId"].encode(), offer["replacementId"].encode(), self.name.encode())
        message = b"\0".join((*parts, hashlib.sha256(self.request).digest()))
        value = base64.b64encode(hmac.digest(self.fleet.secrets[self.name], message, "sha256")).decode()
        pem = x509.load_der_x509_csr(self.request).public_bytes(Encoding.PEM).decode()
        proof = {"kind": "secret", "value": value}
        return {"replacementId": offer["replacementId"], "certificateSigningRequest": pem, "proof": proof}


# The registry


def registered(registry: Any, fleet: Fleet, number: int) -> list[Device]:
    """A fleet with small keys, each with its thing; all have one policy."""
    own = f"arn:aws:iot:{REGION}:{ACCOUNT}:client/${{iot:Connection.Thing.ThingName}}"
    statement = {"Effect": "Allow", "Action": "iot:Connect", "Resource": own}
    policies.create(registry, ACTOR, "own-name", json.dumps({"Version": "2012-10-17", "Statement": statement}))
    maker = ec.generate_private_key(ec.SECP256R1())
    made = []
    for one in range(number):
        name, key = f"device-{one:05}", ec.derive_private_key(10_007 + 7 * one, ec.SECP256R1())
        device = Device(fleet, name, key, certificate := certified(name, key, "Device CA", maker))
        pem = certificate.public_bytes(Encoding.PEM).decode()
        certificates.register_without_authority(registry, ACTOR, pem, status="ACTIVE")
        arn = f"arn:aws:iot:{REGION}:{ACCOUNT}:cert/{device.id}"
        policies.attach(registry, ACTOR, "own-name", arn)
        things.create(registry, ACTOR, name)
        principals.attach(registry, ACTOR, name, arn)
        made.append(device)
    return made


def processes(roots: dict[str, int]) -> Counter[str]:
    """CPU seconds by program, of processes and all below them."""
    parents: dict[int, tuple[int, str, float]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, _, rest = path.read_text().partition(" (")
            name, _, rest = rest.rpartition(") ")
            fields = rest.split()
            parents[int(pid)] = (int(fields[1]), name, (int(fields[11]) + int(fields[12])) / TICKS)
    found: Counter[str] = Counter()
    for pid, (_, name, seconds) in parents.items():
        above, root = pid, ""
        while above in parents and not root:
            root = next((what for what, one in roots.items() if one == above), "")
            above = parents[above][0]
        if root:
            found[name if name in ("haproxy", "mosquitto") else root] += seconds
    return found


def steps(registry: Any, replacement_id: str) -> dict[str, dict[str, list[int]]]:
    """Of each thing, of each step: when it was done, milliseconds."""
    query = text("SELECT thing_name, step, at FROM replacement_steps WHERE replacement_id = :id ORDER BY number")
    found: dict[str, dict[str, list[int]]] = {}
    with registry.database.read() as connection:
        for thing, step, at in connection.execute(query, {"id": replacement_id}):
            found.setdefault(thing, {}).setdefault(step, []).append(at)
    return found


def show(found: dict[str, dict[str, list[int]]], start: int) -> None:
    """When each step was done, and how long after the one before."""
    print(f"{'step':>14} {'first s':>8} {'median s':>9} {'last s':>8}   after the step before: median s, 90 % s")
    before = ""
    for step in STEPS:
        at = sorted((one[step][0] - start) / 1000 for one in found.values() if step in one)
        if not at:
            continue
        line = f"{step:>14} {at[0]:8.1f} {statistics.median(at):9.1f} {at[-1]:8.1f}"
        if before:
            gaps = sorted((one[step][0] - one[before][0]) / 1000 for one in found.values() if step in one)
            line += f"   {statistics.median(gaps):8.2f} {gaps[len(gaps) * 9 // 10]:8.2f}"
        print(line)
        before = step


def check(found: dict[str, dict[str, list[int]]], registry: Any, devices: list[Device]) -> list[str]:
    """What is not as it should be."""
    wrong = []
    twice = [f"{thing} {step}" for thing, done in found.items() for step, at in done.items() if len(at) > 1]
    if twice:
        wrong.append(f"steps done twice: {len(twice)}, such as {twice[:3]}")
    missing = [one.name for one in devices if "DONE" not in found.get(one.name, {})]
    if missing:
        wrong.append(f"not done: {len(missing)}, such as {missing[:3]}")
    with registry.database.read() as connection:
        statuses = {row.id: row.status for row in connection.execute(text("SELECT id, status FROM certificates"))}
        without = connection.execute(WITHOUT).scalar()
    if len(statuses) != 2 * len(devices):
        wrong.append(f"{len(statuses)} certificates for {len(devices)} devices")
    if without:
        wrong.append(f"{without} things without a valid certificate")
    if any(statuses.get(one.first_id) != "REVOKED" for one in devices):
        wrong.append("old certificates that are not revoked")
    if any(statuses.get(one.id) != "ACTIVE" or not one.connected or not one.fresh for one in devices):
        wrong.append("devices that are not connected with a valid new certificate")
    return wrong


async def old_ones_refused(fleet: Fleet, devices: list[Device]) -> int:
    """How many old certificates are let in."""

    async def let_in(one: Device) -> bool:
        try:
            _, writer = await fleet.connect(one.name, one.first)
        except RefusedError:
            return False
        writer.close()
        return True

    return sum(await asyncio.gather(*(let_in(one) for one in devices)))


def give_secrets(registry: Any, replacement_id: str, fleet: Fleet, number: int) -> None:
    """Claim secrets for all things, as they are planned."""
    while len(fleet.secrets) < number:
        made, more = provisioning.make_secrets(registry, ACTOR, replacement_id, 86_400)
        fleet.secrets |= {thing: base64.b64decode(secret) for thing, secret in made}
        if not more:
            time.sleep(0.1)


async def until_done(way: Way, registry: Any, replacement_id: str, patience: float) -> int:
    """Wait until a replacement has ended; the most things that were without a valid certificate at any look."""
    end, without, shown = time.monotonic() + patience, 0, time.monotonic()
    while time.monotonic() < end:
        with registry.database.read() as connection:
            without = max(without, connection.execute(WITHOUT).scalar())
            row = campaigns.find(connection, ACCOUNT, replacement_id)
            if row["status"] != "RUNNING":
                break
        if time.monotonic() > shown + 15:
            shown = time.monotonic()
            told = await asyncio.to_thread(status, way, replacement_id)
            print("   ", json.dumps(told.get("states", told))[:200], flush=True)
        await asyncio.sleep(1.0)
    if row["status"] != "COMPLETED":
        print(f"the replacement is {row['status']}: {row['problem']}")
    return without


async def measure(way: Way, registry: Any, fleet: Fleet, given: argparse.Namespace) -> list[str]:
    """Connect, audit, replace, check; what is wrong."""
    begun = time.monotonic()
    devices = registered(registry, fleet, given.devices)
    print(f"{given.devices} devices registered in {time.monotonic() - begun:.1f} s")
    await asyncio.sleep(3.0)  # the gate has them all
    begun = time.monotonic()
    tasks = [asyncio.create_task(one.run()) for one in devices]
    while not all(one.connected for one in devices):
        if time.monotonic() > begun + given.patience:
            return ["devices do not connect"]
        await asyncio.sleep(0.1)
    print(f"all connected in {time.monotonic() - begun:.1f} s")
    begun = time.monotonic()
    task, findings = await asyncio.to_thread(audit, way.server.client())
    print(f"audited in {time.monotonic() - begun:.1f} s: {len(findings)} findings")
    roots = {"server": way.server.process.pid, "gate agent": way.processes[0].pid}
    cpu, own, start = processes(roots), time.process_time(), time.time_ns() // 1_000_000
    fleet.counts.clear()
    settings = {"proof": "secret", "batch": given.batch, "graceSeconds": given.grace}
    replacement_id = campaigns.start(registry, ACTOR, {"auditTaskId": task["taskId"]}, settings, "benchmark")
    thread = threading.Thread(target=give_secrets, args=(registry, replacement_id, fleet, given.devices), daemon=True)
    thread.start()
    without = await until_done(way, registry, replacement_id, given.patience)
    took = (time.time_ns() // 1_000_000 - start) / 1000
    used = processes(roots) - cpu
    used["clients (this process)"] = time.process_time() - own  # type: ignore[assignment]
    print(f"replaced in {took:.1f} s; batch {given.batch}, grace {given.grace} s; load {os.getloadavg()[0]:.1f}")
    found = steps(registry, replacement_id)
    show(found, start)
    print("CPU seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in used.items()))
    print("devices: " + ", ".join(f"{what} {number}" for what, number in sorted(fleet.counts.items())))
    await asyncio.sleep(1.0)
    wrong = check(found, registry, devices)
    if without:
        wrong.append(f"{without} things were without a valid certificate at some look")
    if let_in := await old_ones_refused(fleet, devices):
        wrong.append(f"{let_in} old certificates are let in")
    for one in tasks:
        one.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--devices", type=int, default=2_000, help="how many (default: 2000)")
    parser.add_argument("--batch", type=int, default=100, help="devices at a time (default: 100)")
    parser.add_argument("--grace", type=int, default=3, help="seconds that old certificates are INACTIVE (default: 3)")
    parser.add_argument(
        "--ask-again", type=float, default=1_200.0, help="seconds until idle devices ask again; 0: never"
    )
    parser.add_argument("--patience", type=float, default=1_800.0, help="seconds until it gives up (default: 1800)")
    given = parser.parse_args()
    program = Path(sys.executable).with_name("keyassay")
    with serving(program) as server, tempfile.TemporaryDirectory(prefix="kb-") as name:
        folder = Path(name)
        way = Way(server, program, folder, _free_port())
        registry = open_registry(Settings(database=server.database))
        key = ec.generate_private_key(ec.SECP256R1())
        broker = certified("localhost", key, "localhost", key, "localhost").public_bytes(Encoding.PEM)
        way.broker.write_bytes(broker + pem_of(key))
        made = json.loads(way.keyassay("keys", "create", "--role", "gate", "--database", server.database, "--json"))
        way.start(
            "gate", program, "gate", "run", "--name", "benchmark", "--server-cert", way.broker, "--folder",
            folder / "gate", "--listen", f"127.0.0.1:{way.port}", "--endpoint-url", server.url,
            variables=way.variables(made["access_key_id"], made["secret_access_key"]),
        )  # fmt: skip
        try:
            fleet = Fleet(way.port, folder, broker.decode(), given.ask_again)
            wrong = asyncio.run(measure(way, registry, fleet, given))
        finally:
            for process in way.processes:
                process.terminate()
            for process in way.processes:
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
    print("checked: " + ("; ".join(wrong) or "all is as it should be"))
    sys.exit(bool(wrong))


def _free_port() -> int:
    """A TCP port that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    main()
