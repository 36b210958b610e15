"""CPU and memory of audits of device keys: the first, beside `keyassay scan` over the same certificates; the second.

    python3 dev.py bench audit [--certificates 10000 20000 100000] [--scan-up-to 100000] [--rsa 0.5] [--rounds 1]
        [--json FILE]

Half of the certificates (`--rsa`: another share) have RSA keys of 2048 bits (products of primes, as `bench scan` makes
them; the first time that takes half a millisecond each), the others P-256 keys. They are put into a SQLite file
directly. Each audit is a worker in a process of its own, start included, with the search for shared primes in its
child; scan runs profile standard with its fleet checks on one core. CPU is user + system, children included. Memory is
the largest resident set of the worker and of its child, pages of mapped files included. Nothing changes between the
first audit and the second. A million certificates take 5 GB in the folder for temporary files.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from scan import ENVIRONMENT, KEYASSAY, cpu, ec_certificates, machine, rsa_certificates

from keyassay.registry import accounts
from keyassay.registry.admission import read_der
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, Database
from keyassay.storage.sealing import Seal
from keyassay.storage.upgrading import upgrade

ACCOUNT = "111111111111"

#: what is measured loads what a worker loads, and nothing of this file
WORKER = """
import json, re, resource, sys
from pathlib import Path
from keyassay.audit import configuration, tasks
from keyassay.audit.examining import AuditSettings
from keyassay.audit.worker import AuditWorker
from keyassay.registry.registry import Registry
from keyassay.storage.database import Actor, Database
from keyassay.storage.sealing import Seal

class Log:
    def info(self, *about, **fields): pass
    error = warning = info

url, folder, account = sys.argv[1:]
check = "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK"
registry, actor = Registry(Database(url), Seal(b"k" * 32)), Actor(account, "benchmark")
configuration.change(registry, actor, role_arn=f"arn:aws:iam::{account}:role/a", checks={check: {"enabled": True}})
task_id = tasks.start(registry, actor, [check])
AuditWorker(registry, AuditSettings(fleet_store=Path(folder)), Log()).turn()
row = tasks.describe(registry, actor, task_id).checks[check]
if row["status"] != "COMPLETED_COMPLIANT":
    sys.exit(f"the audit ended {row['status']}: {row['message']}")
own, child = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps({
    "examined": row["total"],
    "cpu": own.ru_utime + own.ru_stime,
    "search": child.ru_utime + child.ru_stime,
    "memory": int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024,
    "search_memory": child.ru_maxrss * 1024,
}))
"""


def certificates(count: int, share: float) -> Iterator[bytes]:
    """So many with RSA-2048 keys, the others with P-256 keys."""
    moduli = round(count * share)
    yield from rsa_certificates(2048, moduli)
    yield from ec_certificates(count - moduli)


def fill(folder: Path, given: Iterable[bytes]) -> tuple[str, Path]:
    """A registry with these certificates, and the same as a bundle; the registry's address and the bundle's path."""
    url, bundle = f"sqlite:///{folder}/registry.db", folder / "bundle.pem"
    database = Database(url)
    upgrade(database)
    actor = Actor(ACCOUNT, "benchmark")
    accounts.add_account(Registry(database, Seal(b"k" * 32)), actor, ACCOUNT, "", "AKIABENCHMARK0000000", "s" * 40)
    with bundle.open("w") as out:
        for chunk in in_pieces(given, 1_000):
            for der in chunk:
                body = base64.encodebytes(der).decode()
                out.write(f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
            with database.write(actor) as transaction:
                transaction.execute(schema.certificates.insert(), [row(der, transaction.now) for der in chunk])
    database.close()
    return url, bundle


def in_pieces(given: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Lists of so many."""
    piece: list[bytes] = []
    for one in given:
        piece.append(one)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece


def row(der: bytes, now: int) -> dict[str, object]:
    """A registered certificate."""
    read = read_der(der)
    return {
        "account_id": ACCOUNT,
        "id": hashlib.sha256(der).hexdigest(),
        "status": "ACTIVE",
        "mode": "SNI_ONLY",
        "der": der,
        "spki_digest": read.spki_digest,
        "not_before": read.not_before,
        "not_after": read.not_after,
        "created_at": now,
        "modified_at": now,
        "customer_version": 1,
        "generation_id": "0",
    }


def audit(url: str, folder: Path, count: int) -> dict[str, float]:
    """One audit: seconds of CPU of worker and child, and bytes of memory of each."""
    command = [sys.executable, "-c", WORKER, url, str(folder), ACCOUNT]
    done = subprocess.run(command, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE)
    taken: dict[str, float] = json.loads(done.stdout)
    if taken.pop("examined") != count:
        raise SystemExit("the audit did not examine every certificate")
    return taken


def measure(count: int, share: float, *, scanned: bool) -> dict[str, float]:
    """What scan and both audits took; each is told as it ends."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url, bundle = fill(folder, certificates(count, share))
        taken: dict[str, float] = {}
        if scanned:
            taken["scan"] = cpu([
                str(KEYASSAY), "scan", "--profile", "standard", "--jobs", "1", "--fail-on", "never", str(bundle),
            ])  # fmt: skip
        bundle.unlink()
        for run in ("first", "second"):
            one = audit(url, folder / "fleet", count)
            taken[run] = one["cpu"] + one["search"]
            taken.update({f"{run}_{name}": value for name, value in one.items() if name != "cpu"})
            print(f"{count:,} certificates, {run}: {json.dumps(one)}", file=sys.stderr, flush=True)
    return taken


def report(taken: dict[str, float], count: int) -> None:
    """One line."""
    parts = [f"{count:>9,}:"]
    if "scan" in taken:
        allowed = 1.5 * taken["scan"] + 40e-6 * count
        parts.append(f"scan {taken['scan']:.2f} s;")
        parts.append(f"first is {taken['first'] / allowed:.2f} of 1.5 scans + 40 us each;")
    parts.append(f"first {taken['first']:.2f} s, {taken['first_search']:.2f} of it the search for shared primes")
    parts.append(f"({taken['first_search_memory'] / 1e6:.0f} MB; worker {taken['first_memory'] / 1e6:.0f} MB);")
    parts.append(f"second {taken['second']:.2f} s, {taken['second'] / taken['first']:.3f} of the first")
    parts.append(f"({taken['second_memory'] / 1e6:.0f} MB)")
    print(" ".join(parts), flush=True)


def exponent(rows: dict[int, dict[str, float]], run: str) -> float:
    """With which power of the number of certificates it grows."""
    points = [(math.log(count), math.log(one[run])) for count, one in rows.items()]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0])


def main() -> None:
    """Measure in turns, print a line for each number and the exponents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--certificates", type=int, nargs="+", default=[10_000, 20_000])
    parser.add_argument("--scan-up-to", type=int, default=100_000)
    parser.add_argument("--rsa", type=float, default=0.5, help="the share of RSA keys, 0 to 1")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    rows: dict[int, dict[str, float]] = {}
    for count in given.certificates:
        rounds = [measure(count, given.rsa, scanned=count <= given.scan_up_to) for _ in range(given.rounds)]
        rows[count] = {run: statistics.median(one[run] for one in rounds) for run in rounds[0]}
        report(rows[count], count)
    if len(rows) > 1:
        powers = {run: round(exponent(rows, run), 2) for run in ("first", "first_search", "second")}
        print(f"exponents: {powers}")
    if given.json is not None:
        given.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
