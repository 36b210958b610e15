"""CPU of comparing keys in audits: shared primes and repeated keys alone, all checks of profile standard, all accounts.

    python3 dev.py bench comparing [--certificates 4000 20000]

Half of the certificates have RSA keys of 2048 bits, half P-256 keys, as in `bench audit`. They are put into a SQLite
file directly; for the comparison across accounts half of them go to a second account. CPU is user + system of this
process, which compares by itself, without the start of a process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from scan import ENVIRONMENT, ec_certificates, machine, rsa_certificates
from sqlalchemy import delete, insert, update

from audit import ACCOUNT, fill
from keyassay.audit import fleet_search
from keyassay.audit.fleet_pool import SERVER
from keyassay.audit.fleet_search import Search
from keyassay.findings import Profile
from keyassay.storage import schema
from keyassay.storage.database import Database

OTHER = "999999999999"


def cpu(work: Callable[[], object]) -> float:
    """Seconds of CPU."""
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(count: int) -> dict[str, float]:
    """Seconds of CPU by what was done."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url, _ = fill(folder, [*rsa_certificates(2048, count // 2), *ec_certificates(count // 2)])
        database = Database(url)
        pairs = Search(url, ACCOUNT, folder / "pairs")
        every = Search(url, ACCOUNT, folder / "fleet", profile=Profile.STANDARD)
        server = replace(every, account_id=SERVER)
        seconds = {
            "shared primes, repeated keys": cpu(lambda: fleet_search.compare(database, pairs)),
            "all checks": cpu(lambda: fleet_search.compare(database, every)),
            "nothing new": cpu(lambda: fleet_search.is_needed(database, every)),
        }
        with database.engine.begin() as connection:
            connection.execute(delete(schema.fleet_comparisons))
        seconds["those without a store, again"] = cpu(lambda: fleet_search.compare(database, every))
        columns = schema.certificates.c
        with database.engine.begin() as connection:
            connection.execute(insert(schema.accounts).values(id=OTHER, name="", created_at=0))
            connection.execute(update(schema.certificates).where(columns.id < "8").values(account_id=OTHER))
        seconds["across two accounts"] = cpu(lambda: fleet_search.compare(database, server))
        seconds["across, nothing new"] = cpu(lambda: fleet_search.is_needed(database, server))
        database.close()
    return seconds


def main() -> None:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--certificates", type=int, nargs="+", default=[4_000, 20_000])
    given = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    print(", ".join(f"{name}: {value}" for name, value in machine().items()))
    print(
        "| certificates | work | seconds | us a certificate | of shared primes alone |\n| --- | --- | --- | --- | --- |"
    )
    for count in given.certificates:
        seconds = measure(count)
        first = next(iter(seconds.values()))
        for work, spent in seconds.items():
            print(f"| {count:,} | {work} | {spent:.2f} | {1e6 * spent / count:.0f} | {spent / first:.3f} |")


if __name__ == "__main__":
    main()
