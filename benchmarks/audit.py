"""CPU of audits of device keys: the first, beside `keyassay scan` over the same certificates, and the second.

    python benchmarks/audit.py [--certificates 2000 20000] [--rounds 1] [--json FILE]

Half of the certificates have RSA keys of 2048 bits, half P-256 keys. They are put into a SQLite file directly. Each
audit is a worker in a process of its own, start included, with the search for shared primes in its child; scan runs
profile standard with its fleet checks on one core. CPU is user + system, children included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import structlog
from scan import ENVIRONMENT, KEYASSAY, bundle, cpu, ec_certificates, machine, rsa_certificates

from keyassay.audit import configuration, tasks
from keyassay.audit.examining import AuditSettings
from keyassay.audit.worker import AuditWorker
from keyassay.registry import accounts
from keyassay.registry.admission import read_der
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, Database, rows_in_chunks
from keyassay.storage.sealing import Seal
from keyassay.storage.upgrading import upgrade

ACCOUNT = "111111111111"
CHECK = "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK"
HERE = Path(__file__).resolve()


def fill(folder: Path, certificates: list[bytes]) -> str:
    """A registry with these certificates; its address."""

    url = f"sqlite:///{folder}/registry.db"
    database = Database(url)
    upgrade(database)
    actor = Actor(ACCOUNT, "benchmark")
    accounts.add_account(Registry(database, Seal(b"k" * 32)), actor, ACCOUNT, "", "AKIABENCHMARK0000000", "s" * 40)
    for chunk in rows_in_chunks(certificates, 1_000):
        with database.write(actor) as transaction:
            rows = []
            for der in chunk:
                read = read_der(der)
                rows.append(
                    {
                        "account_id": ACCOUNT,
                        "id": hashlib.sha256(der).hexdigest(),
                        "status": "ACTIVE",
                        "mode": "SNI_ONLY",
                        "der": der,
                        "spki_digest": read.spki_digest,
                        "not_before": read.not_before,
                        "not_after": read.not_after,
                        "created_at": transaction.now,
                        "modified_at": transaction.now,
                        "customer_version": 1,
                        "generation_id": "0",
                    }
                )
            transaction.execute(schema.certificates.insert(), rows)
    database.close()
    return url


def audit(url: str, folder: str) -> None:
    """One audit, in this process."""

    registry = Registry(Database(url), Seal(b"k" * 32))
    actor = Actor(ACCOUNT, "benchmark")
    configuration.change(
        registry, actor, role_arn="arn:aws:iam::111111111111:role/a", checks={CHECK: {"enabled": True}}
    )
    task_id = tasks.start(registry, actor, [CHECK])
    AuditWorker(registry, AuditSettings(fleet_store=Path(folder)), structlog.get_logger()).turn()
    row = tasks.describe(registry, actor, task_id).checks[CHECK]
    if row["status"] != "COMPLETED_COMPLIANT":
        raise SystemExit(f"the audit ended {row['status']}: {row['message']}")


def measure(count: int) -> dict[str, float]:
    """Seconds of CPU by run."""
    certificates = [*rsa_certificates(2048, count // 2), *ec_certificates(count // 2)]
    command = [sys.executable, str(HERE), "--worker"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = bundle(folder, "all", certificates)
        url = fill(folder, certificates)
        scan = [str(KEYASSAY), "scan", "--profile", "standard", "--jobs", "1", "--fail-on", "never", str(given.pem)]
        seconds = {"scan": cpu(scan)}
        for run in ("first", "second"):
            seconds[run] = cpu([*command, url, str(folder / "fleet")])
    return seconds


def main() -> None:
    """Measure in turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--certificates", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        audit(*given.worker)
        return
    os.environ.update(ENVIRONMENT)
    rows = []
    for count in given.certificates:
        rounds = [measure(count) for _ in range(given.rounds)]
        middle = {run: statistics.median(one[run] for one in rounds) for run in rounds[0]}
        allowed = 1.5 * middle["scan"] + 40e-6 * count
        row = {"certificates": count, **middle, "of_allowed": middle["first"] / allowed}
        row["second_of_first"] = middle["second"] / middle["first"]
        rows.append(row)
        print(
            f"{count:>9,}: scan {middle['scan']:.2f} s, first {middle['first']:.2f} s ({row['of_allowed']:.2f} of 1.5 "
            f"scan + 40 us each), second {middle['second']:.2f} s ({row['second_of_first']:.3f} of the first)",
            flush=True,
        )
    if given.json is not None:
        given.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
