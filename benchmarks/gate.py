"""Milliseconds from UpdateCertificate REVOKED to the end of a session at a gate, and what large maps cost.

    python3 dev.py bench gate [--revocations 50] [--sessions 1000] [--certificates 100000]

A real server (SQLite), HAProxy, Mosquitto and TLS clients, all on this machine. Times begin with the API's answer.
"""

from __future__ import annotations

import argparse
import contextlib
import selectors
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from keyassay.gate.maps import Rights
from keyassay.server.opening import open_registry
from live_gate import Device, LiveGate, running_gate, tls_context
from live_server import client, running

CONNECT_WAIT = 30.0


def connect(gate: LiveGate, device: Device, client_id: str, context: Any = None) -> Any:
    """A session: TLS and CONNECT, answered by CONNACK."""
    name = client_id.encode()
    body = b"\0\4MQTT\4\2\0\0\0" + bytes([len(name)]) + name  # no keep-alive
    secure = (context or tls_context(device)).wrap_socket(
        socket.create_connection(("localhost", gate.port)), server_hostname="localhost"
    )
    secure.settimeout(CONNECT_WAIT)
    secure.sendall(bytes([0x10, len(body)]) + body)
    answer = secure.recv(4)
    if answer != b"\x20\2\0\0":
        raise SystemExit(f"not accepted: {answer!r}")
    return secure


def revocations(gate: LiveGate, api: Any, number: int) -> list[float]:
    """Seconds from the answer of UpdateCertificate to the end of the session, each with its own certificate."""
    took = []
    for one in range(number):
        device = gate.device(f"pump-{one}", made=gate.certificate(f"pump-{one}"))
        session = connect(gate, device, f"pump-{one}")
        api.update_certificate(certificateId=device.id, newStatus="REVOKED")
        begun = time.perf_counter()
        with contextlib.suppress(OSError):
            session.recv(1)
        took.append(time.perf_counter() - begun)
        session.close()
    return took


def many_sessions(gate: LiveGate, api: Any, number: int) -> float:
    """Seconds from the answer to the end of the last of many sessions of one certificate."""
    device = gate.device("", made=gate.certificate("shared"), clients=("shared-*",))
    context = tls_context(device)
    sessions = [connect(gate, device, f"shared-{one}", context) for one in range(number)]
    waiting = selectors.DefaultSelector()
    for session in sessions:
        waiting.register(session, selectors.EVENT_READ)
    api.update_certificate(certificateId=device.id, newStatus="REVOKED")
    begun = time.perf_counter()
    left = number
    while left:
        for key, _ in waiting.select():
            waiting.unregister(key.fileobj)
            left -= 1
    took = time.perf_counter() - begun
    for session in sessions:
        session.close()
    return took


def memory(pid: int) -> float:
    """MB of a process and its children that nobody else has."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    rollups = [Path(f"/proc/{one}/smaps_rollup").read_text() for one in [pid, *children]]
    return sum(int(text.partition("\nPss:")[2].split()[0]) for text in rollups) / 1000


def large_maps(gate: LiveGate, number: int) -> dict[str, float]:
    """What a number of certificates costs HAProxy."""
    gate.stop_agent()
    rights = {f"{one:064x}": Rights(f"A:thing-{one:08}") for one in range(number)}
    begun = time.perf_counter()
    gate.agent.maps.replace_all(rights, set(), set())
    filled = time.perf_counter() - begun
    begun = time.perf_counter()
    gate.agent.maps.block([f"{number // 2:064x}"])
    one_more = time.perf_counter() - begun
    gate.processes.stop()
    begun = time.perf_counter()
    gate.processes.start()
    started = time.perf_counter() - begun
    after = memory(gate.processes.pid("haproxy"))
    return {"MB": after, "filled s": filled, "start s": started, "block ms": one_more * 1000}


def blocked_ones(gate: LiveGate, number: int) -> dict[str, float]:
    """What a number of certificates that are not ACTIVE costs, and to forget a thousand that were deleted."""
    maps = gate.agent.maps
    ids = [f"{one:064x}" for one in range(number)]
    maps.replace_all({}, set(ids), set())
    begun = time.perf_counter()
    maps.block([f"{number:064x}"])
    one_more = time.perf_counter() - begun
    begun = time.perf_counter()
    maps.admit({f"{number:064x}": Rights("A:back")})
    lifted = time.perf_counter() - begun
    maps.block(ids[:1_000], gone=ids[:1_000])
    begun = time.perf_counter()
    maps.compact(now=True)
    forgotten = time.perf_counter() - begun
    gate.processes.stop()
    gate.processes.start()
    after = memory(gate.processes.pid("haproxy"))
    return {"MB": after, "block ms": one_more * 1000, "lift ms": lifted * 1000, "forget 1,000 s": forgotten}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--revocations", type=int, default=50)
    parser.add_argument("--sessions", type=int, default=1_000)
    parser.add_argument("--certificates", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), workers=0) as server:
        api = client(server)
        with running_gate(open_registry(server.settings), sweep=10.0) as gate:
            took = revocations(gate, api, given.revocations)
            print(
                f"revoked to closed: median {statistics.median(took) * 1000:.1f} ms, "
                f"90 % {sorted(took)[len(took) * 9 // 10] * 1000:.1f} ms, most {max(took) * 1000:.1f} ms"
            )
            print(f"{given.sessions} sessions closed in {many_sessions(gate, api, given.sessions) * 1000:.0f} ms")
            found = large_maps(gate, given.certificates)
            print(
                f"{given.certificates} certificates: "
                + ", ".join(f"{what} {value:.2f}" for what, value in found.items())
            )
            found = blocked_ones(gate, given.certificates)
            print(f"{given.certificates} blocked: " + ", ".join(f"{what} {value:.2f}" for what, value in found.items()))


if __name__ == "__main__":
    main()
