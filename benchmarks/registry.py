"""What a request costs the server: keyassay beside moto, the same requests in one run.

    python3 dev.py bench registry [--requests N] [--rounds N] [--certificates N] [--postgresql]

The requests are what boto3 signs and sends; they are made before, and sent by plain sockets, eight at a time, so that
the server and not the client is at its limit. Server CPU is counted (user and system, all threads), which is what a
core can do. Each figure is the median of the rounds, in which the servers take turns. moto checks no signatures and
keeps everything in memory. Then pages of ListCertificates of many certificates: the first, those in the middle, the
last.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median
from typing import Any

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from keyassay.registry import accounts, certificates
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, Database
from keyassay.storage.sealing import Seal
from keyassay.storage.upgrading import upgrade

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import fleet_keys
from postgresql_server import server as postgresql

ACCOUNT, KEY, SECRET = "111111111111", "AKIABENCHBENCHBENCHB", "s" * 40
TICKS = os.sysconf("SC_CLK_TCK")
CONNECTIONS = 8


def cpu(process: subprocess.Popen[bytes]) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def signed(port: int, name: str, calls: list[dict[str, str]]) -> list[bytes]:
    """What boto3 sends for calls of an operation."""
    api = boto3.client(
        "iot",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )
    caught: list[bytes] = []

    def catch(request: Any, **_: Any) -> None:
        host, _, path = request.url.removeprefix("http://").partition("/")
        body = request.body or b""
        fields = [("Host", host), *request.headers.items()]
        if body and "Content-Length" not in request.headers:
            fields.append(("Content-Length", str(len(body))))
        lines = [f"{key}: {value if isinstance(value, str) else value.decode()}\r\n" for key, value in fields]
        caught.append(f"{request.method} /{path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body)
        raise InterruptedError

    api.meta.events.register_first("before-send.iot", catch)
    for call in calls:
        with contextlib.suppress(InterruptedError):
            getattr(api, name)(**call)
    return caught


def drive(port: int, requests: list[bytes]) -> float:
    """Send all, some at a time, each answered with 200; the seconds that it took."""
    todo, poll, answers = iter(requests), select.epoll(), dict[int, tuple[socket.socket, bytearray]]()

    def ask(connection: socket.socket | None) -> None:
        request = next(todo, None)
        if request is None:
            return
        if connection is None:
            connection = socket.create_connection(("127.0.0.1", port))
            poll.register(connection, select.EPOLLIN)
        answers[connection.fileno()] = connection, bytearray()
        connection.sendall(request)

    started = time.perf_counter()
    for _ in range(CONNECTIONS):
        ask(None)
    while answers:
        for number, _ in poll.poll():
            if number not in answers:  # the server hung up on an idle connection
                continue
            connection, answer = answers[number]
            answer += (piece := connection.recv(262_144))
            head, found, body = bytes(answer).partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
            if not piece or (found and length and len(body) >= int(length)):
                if head[9:12] != b"200":
                    raise SystemExit(f"port {port} answers {head[:40]!r}")
                del answers[number]
                if not piece or head.startswith(b"HTTP/1.0") or b"connection: close" in head.lower():
                    poll.unregister(connection)
                    connection.close()
                    ask(None)
                else:
                    ask(connection)
    return time.perf_counter() - started


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


def compare(count: int, rounds: int) -> None:
    """Both servers, the same requests."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        program = str(Path(sys.executable).with_name("keyassay"))
        ours = start(
            [program, "serve", "--listen", "127.0.0.1:18443", "--workers", "0", "--rate-limit", "0",
             "--database", f"sqlite:///{folder}/registry.db", "--screen-registrations", "off"],
            18443, "/readyz",
            KEYASSAY_ACCOUNT_ID=ACCOUNT, KEYASSAY_ACCESS_KEY_ID=KEY, KEYASSAY_SECRET_ACCESS_KEY=SECRET,
        )  # fmt: skip
        running.callback(end, ours)
        moto = start([str(Path(sys.executable).with_name("moto_server")), "-p", "18444"], 18444, "/moto-api/")
        running.callback(end, moto)
        rates: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for turn in range(rounds + 1):  # the first round warms up, and does not count
            # one key, so that making them takes little
            pems = [fleet_keys.device(f"device-{turn}-{number}").pem for number in range(count if turn else 50)]
            read = [x509.load_pem_x509_certificate(pem.encode()) for pem in pems]
            operations = {
                "register_certificate_without_ca": [{"certificatePem": pem, "status": "ACTIVE"} for pem in pems],
                "describe_certificate": [{"certificateId": one.fingerprint(hashes.SHA256()).hex()} for one in read],
            }
            for name, calls in operations.items():
                for who, process, port in (("keyassay", ours, 18443), ("moto", moto, 18444)):
                    others = who == "moto" and name == "describe_certificate"  # its ids are not digests
                    requests = signed(port, name, moto_ids(port, len(calls)) if others else calls)
                    before = cpu(process)
                    seconds = drive(port, requests)
                    rate = count / max(cpu(process) - before, 1e-3), count / seconds
                    if turn:
                        rates.setdefault(name, {}).setdefault(who, []).append(rate)
    print(f"{'requests a second':34}{'keyassay, a core':>18}{'on the clock':>14}{'moto, a core':>14}{'ratio':>8}")
    for name, by_who in rates.items():
        core, clock = (median(one) for one in zip(*by_who["keyassay"], strict=True))
        theirs = median(one[0] for one in by_who["moto"])
        print(f"{name:34}{core:18,.0f}{clock:14,.0f}{theirs:14,.0f}{core / theirs:8.1f}")


def moto_ids(port: int, count: int) -> list[dict[str, str]]:
    """Calls for certificates that moto holds."""
    api = boto3.client(
        "iot",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )
    known = [one["certificateId"] for one in api.list_certificates(pageSize=250)["certificates"]]
    return [{"certificateId": known[number % len(known)]} for number in range(count)]


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


def pages(url: str, count: int) -> None:
    """Pages of 250 of many certificates, straight from the database: the table is filled, then walked through."""
    database = Database(url)
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
    times: list[tuple[float, float]] = []
    token, seen = None, 0
    while True:
        clock, used = time.perf_counter(), time.process_time()
        page = certificates.listed(registry, actor, token=token, size=250, ascending=True)
        times.append((time.perf_counter() - clock, time.process_time() - used))
        token, seen = page.next_token, seen + len(page.rows)
        if token is None:
            break
    assert seen == count
    database.close()
    middle = len(times) // 2
    for where, some in (("first", times[:20]), ("middle", times[middle - 10 : middle + 10]), ("last", times[-20:])):
        clock, used = (median(one) * 1e3 for one in zip(*some, strict=True))
        print(
            f"{url.partition(':')[0]:12}{count:10,} certificates, pages of 250: 20 pages {where:7}"
            f"{clock:8.2f} ms on the clock, {used:6.2f} ms of CPU of ours"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--certificates", type=int, default=200_000)
    parser.add_argument("--postgresql", action="store_true")
    given = parser.parse_args()
    if given.requests:
        compare(given.requests, given.rounds)
    with tempfile.TemporaryDirectory() as many:
        pages(f"sqlite:///{many}/many.db", given.certificates)
    if given.postgresql:
        address = postgresql().create()
        try:
            pages(address, given.certificates)
        finally:
            postgresql().drop(address)
