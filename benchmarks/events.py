"""What transactions of connection events take: devices that are new, that come again, and that are refused.

Of those that are refused the certificates are unknown, or REVOKED, each of which raises an alert, or wait for their
activation, which is announced. Then the list of all live sessions, half of which have sent something.

    python3 dev.py bench events [--open N] [--rounds N] [--sizes 100,1000] [--kinds KIND,...] [--postgresql]

A gate tells of so many events in one request, beside so many sessions that are open. Each transaction is measured by
itself, from asking for its turn to the end of its commit: CPU of its thread, CPU of PostgreSQL's processes, and the
clock; and CPU of this whole process for a request.
``PYTHONPATH=OTHER/src`` measures another state of the code with the same requests.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

import psycopg
from sqlalchemy import select

from keyassay.registry import accounts, certificates, connections
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, Database
from keyassay.storage.sealing import Seal
from keyassay.storage.upgrading import upgrade

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import fleet_keys
from postgresql_server import server as postgresql

GATE = Actor("111111111111", "AKIABENCHBENCHBENCHB", "192.0.2.1")
LARGEST = 1_000


class Watch:
    """Notes what every transaction of a database takes.

    Args:
        database: whose ``write`` is watched.
        url: for a second connection to PostgreSQL that finds its processes; None for SQLite.
    """

    def __init__(self, database: Database, url: str | None) -> None:
        self.noted: list[tuple[float, float, float]] = []
        self._server = None if url is None else psycopg.connect(url, autocommit=True)
        begin = database.write

        @contextlib.contextmanager
        def write(*arguments: Any, **more: Any) -> Iterator[Any]:
            others, cpu, clock = self._others(), time.thread_time(), time.perf_counter()
            with begin(*arguments, **more) as transaction:
                yield transaction
            took = time.thread_time() - cpu, time.perf_counter() - clock
            self.noted.append((took[0], self._others() - others, took[1]))

        database.write = write  # type: ignore[method-assign]

    def _others(self) -> float:
        """CPU seconds of PostgreSQL's processes of this database."""
        if self._server is None:
            return 0.0
        question = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        pids = [row[0] for row in self._server.execute(question)]
        return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


def event(device: int, source: int, *, refused: bool) -> dict[str, Any]:
    """What a gate says of one attempt of a device."""
    return {
        "at": time.time_ns() // 1_000_000,
        "verdict": "inactive" if refused else "ok",
        "established": not refused,
        "tlsVersion": "TLSv1.3",
        "verifyCode": 0,
        "der": None,
        "certificateId": random.Random(device).randbytes(32).hex(),
        "clientId": f"device-{device}",
        "source": f"10.{device >> 16 & 255}.{device >> 8 & 255}.{device & 255}:{1_024 + source % 60_000}",
    }


def measure(url: str, *, is_open: int, rounds: int, sizes: list[int], chosen_kinds: str, watched: str | None) -> None:
    """Print a line for each kind of request and size."""
    database = Database(url)
    upgrade(database)
    registry = Registry(database, Seal(b"k" * 32))
    accounts.add_account(registry, GATE, GATE.account_id, "", GATE.name, "s" * 40)
    told = 0
    device = fleet_keys.device("bench")
    certificates.register_without_authority(registry, GATE, device.pem)
    with database.read() as connection:
        query = select(schema.certificates).where(schema.certificates.c.id == device.id)
        certificate = {**connection.execute(query).mappings().one(), "ca_certificate_id": "c" * 64}

    def tell(devices: list[int], *, refused: bool = False) -> None:
        nonlocal told
        told += 1
        events = [event(device, told, refused=refused) for device in devices]
        connections.record_events(registry, GATE, {"gate": "one", "events": events})

    for start in range(0, is_open, LARGEST):
        tell(list(range(start, min(start + LARGEST, is_open))))
    if watched is not None:
        with psycopg.connect(watched, autocommit=True) as server:
            server.execute("VACUUM ANALYZE")
    watch = Watch(database, watched)
    chosen = random.Random(1)
    fresh = is_open

    def new(size: int) -> None:
        nonlocal fresh
        tell(list(range(fresh, fresh + size)))
        fresh += size

    def registered(size: int, status: str) -> None:
        nonlocal fresh
        devices = list(range(fresh, fresh + size))
        fresh += size
        rows = [
            {**certificate, "status": status, "id": event(one, 0, refused=True)["certificateId"]} for one in devices
        ]
        with database.engine.begin() as connection:
            connection.execute(schema.certificates.insert(), rows)
        tell(devices, refused=True)

    def live() -> None:
        nonlocal told
        told += 1
        with database.read() as connection:
            names = (schema.connections.c.certificate_id, schema.connections.c.client_id, schema.connections.c.source)
            rows = connection.execute(select(*names).where(schema.connections.c.ended_at.is_(None))).all()
        sessions = [
            {"certificateId": row[0], "clientId": row[1], "source": row[2], "bytesIn": told * (number % 2)}
            for number, row in enumerate(rows)
        ]
        connections.record_events(registry, GATE, {"gate": "one", "events": [], "sessions": sessions})

    kinds: dict[str, Callable[[int], None]] = {
        "new": new,
        "again": lambda size: tell(chosen.sample(range(is_open), size)),
        "refused": lambda size: tell(chosen.sample(range(is_open), size), refused=True),
        "revoked": lambda size: registered(size, "REVOKED"),
        "waiting": lambda size: registered(size, "PENDING_ACTIVATION"),
        "sessions": lambda _size: live(),
    }
    if chosen_kinds:
        kinds = {name: kinds[name] for name in chosen_kinds.split(",")}
    taken: dict[tuple[str, int], list[Any]] = {(kind, size): [] for size in sizes for kind in kinds}
    for _ in range(rounds):
        for size in sizes:
            for kind, ask in kinds.items():
                watch.noted.clear()
                before = time.process_time()
                ask(size)
                taken[kind, size].append((time.process_time() - before, list(watch.noted)))
    print(f"{database.engine.dialect.name}, {is_open} sessions open, {rounds} rounds; ms of one transaction")
    print("                            ---- CPU ---  server's  ------- clock --------  request's")
    print("kind     events  transactions   mean   most  CPU, mean  median   90 %    most  CPU, mean")
    for (kind, size), requests in taken.items():
        cpu, others, clock = (sorted(one[which] * 1e3 for _, noted in requests for one in noted) for which in range(3))
        print(
            f"{kind:8} {size:6} {len(cpu) / len(requests):13.1f} {mean(cpu):6.1f} {cpu[-1]:6.1f} {mean(others):10.1f}"
            f" {median(clock):7.1f} {clock[len(clock) * 9 // 10]:6.1f} {clock[-1]:7.1f}"
            f" {mean(one for one, _ in requests) * 1e3:10.1f}"
        )
    database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--open", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--sizes", default="100,1000")
    parser.add_argument("--kinds", default="", help="of the lines that are printed; all by default")
    parser.add_argument("--postgresql", action="store_true")
    given = parser.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/registry.db"
        watched = None
        if given.postgresql:
            url = watched = postgresql().create()
        measure(url, is_open=given.open, rounds=given.rounds, sizes=sizes, chosen_kinds=given.kinds, watched=watched)


if __name__ == "__main__":
    main()
