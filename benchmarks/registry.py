"""What a request costs the server: keyassay beside moto, both over HTTP with boto3 in front, in one run.

    python3 dev.py bench registry [--requests N] [--certificates N]

Server CPU is counted (user and system, all threads), which is what a core can do; the client's work is not. moto checks
no signatures and keeps everything in memory. Then pages of ListCertificates, first and last, of many certificates.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from keyassay.registry import accounts, certificates
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, Database
from keyassay.storage.sealing import Seal
from keyassay.storage.upgrading import upgrade

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import fleet_keys

ACCOUNT, KEY, SECRET = "111111111111", "AKIABENCHBENCHBENCHB", "s" * 40
TICKS = os.sysconf("SC_CLK_TCK")


def cpu(process: subprocess.Popen[bytes]) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def client(port: int) -> Any:
    return boto3.client(
        "iot",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(max_pool_connections=16, retries={"total_max_attempts": 1}),
    )


def start(words: list[str], port: int, path: str, **environment: str) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(words, env={**os.environ, **environment}, stdout=quiet, stderr=quiet)
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return process
    raise SystemExit(f"{words[0]} does not answer")


def per_request(process: subprocess.Popen[bytes], calls: list[Callable[[], Any]]) -> tuple[float, float]:
    """(requests a second of server CPU, requests a second on the clock)."""
    before, started = cpu(process), time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda call: call(), calls))
    return len(calls) / max(cpu(process) - before, 1e-3), len(calls) / (time.perf_counter() - started)


def pems(count: int) -> list[str]:
    """Certificates with one key, so that making them takes little."""
    return [fleet_keys.device(f"device-{number}").pem for number in range(count)]


def compare(count: int) -> None:
    """Both servers, the same requests."""
    folder = tempfile.mkdtemp()
    program = str(Path(sys.executable).with_name("keyassay"))
    ours = start(
        [program, "serve", "--listen", "127.0.0.1:18443", "--workers", "0", "--rate-limit", "0",
         "--database", f"sqlite:///{folder}/registry.db", "--screen-registrations", "off"],
        18443, "/readyz", KEYASSAY_ACCOUNT_ID=ACCOUNT, KEYASSAY_ACCESS_KEY_ID=KEY, KEYASSAY_SECRET_ACCESS_KEY=SECRET,
    )  # fmt: skip
    moto = start([str(Path(sys.executable).with_name("moto_server")), "-p", "18444"], 18444, "/moto-api/")
    encoded = pems(count)
    print(f"{'':28}{'keyassay, 1/s of a core':>24}{'on the clock':>14}{'moto, 1/s of a core':>22}{'ratio':>8}")
    try:
        rows: dict[str, list[tuple[float, float]]] = {}
        for process, port in ((ours, 18443), (moto, 18444)):
            api = client(port)
            ids = [
                x509.load_pem_x509_certificate(pem.encode()).fingerprint(fleet_keys.hashes.SHA256()).hex()
                for pem in encoded
            ]
            register = [
                lambda pem=pem, api=api: api.register_certificate_without_ca(certificatePem=pem, status="ACTIVE")
                for pem in encoded
            ]
            rows.setdefault("RegisterCertificateWithoutCA", []).append(per_request(process, register))
            known = {row["certificateId"] for row in api.list_certificates(pageSize=250)["certificates"]}
            ids = [one for one in ids if one in known] or sorted(known)
            wanted = [ids[number % len(ids)] for number in range(count)]
            describe = [lambda one=one, api=api: api.describe_certificate(certificateId=one) for one in wanted]
            rows.setdefault("DescribeCertificate", []).append(per_request(process, describe))
        for name, ((core, clock), (theirs, _)) in rows.items():
            print(f"{name:28}{core:24,.0f}{clock:14,.0f}{theirs:22,.0f}{core / theirs:8.1f}")
    finally:
        for process in (ours, moto):
            process.terminate()
            process.wait()


def pages(count: int) -> None:
    """Pages of 250 of many certificates, straight from the database."""
    database = Database(f"sqlite:///{tempfile.mkdtemp()}/many.db")
    upgrade(database)
    registry, actor = Registry(database, Seal(b"k" * 32)), Actor(ACCOUNT, KEY)
    accounts.add_account(registry, actor, ACCOUNT, "", KEY, SECRET)
    der = fleet_keys.device().certificate.public_bytes(Encoding.DER)
    row = {
        "account_id": ACCOUNT, "status": "ACTIVE", "mode": "SNI_ONLY", "der": der, "spki_digest": b"", "not_before": 0,
        "not_after": 0, "modified_at": 0, "customer_version": 1, "generation_id": "",
    }  # fmt: skip
    for first in range(0, count, 10_000):
        numbers = range(first, min(first + 10_000, count))
        with database.write(actor) as transaction:
            rows = [{**row, "id": f"{number * 2654435761 % 2**64:064x}", "created_at": number} for number in numbers]
            transaction.execute(schema.certificates.insert(), rows)
    times, token = [], None
    while True:
        started = time.process_time()
        page = certificates.listed(registry, actor, token=token, size=250, ascending=True)
        times.append(time.process_time() - started)
        token = page.next_token
        if token is None:
            break
    tenth = max(len(times) // 10, 1)
    marks = [
        sum(times[start:end]) / (end - start) for start, end in pairwise([0, tenth, len(times) - tenth, len(times)])
    ]
    print(
        f"{count:,} certificates, pages of 250, ms: first tenth {marks[0] * 1e3:.2f}, last tenth {marks[2] * 1e3:.2f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--certificates", type=int, default=200_000)
    given = parser.parse_args()
    compare(given.requests)
    pages(given.certificates)
