"""What a key in a token costs: certificates and OCSP answers, beside a key in the database, in turns; on SQLite.

The token is SoftHSM's: a program on this machine. One in the network or on a card takes its own time on top.

PYTHONPATH=tests python benchmarks/signing.py [SIGNATURES]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.ocsp import OCSPRequestBuilder

import fleet_keys
from issuing_requests import request
from keyassay.registry import accounts, issuing, ocsp
from keyassay.registry.registry import Registry
from keyassay.storage.database import Database
from keyassay.storage.sealing import Seal
from keyassay.storage.upgrading import upgrade
from soft_token import SoftToken
from two_accounts import SECRET, A, B


def in_turns(works: dict[str, Callable[[], object]], count: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of CPU and of the clock for each call: the median of five rounds."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(5):
        for name, work in works.items():
            cpu, clock = time.process_time(), time.perf_counter()
            for _ in range(count):
                work()
            found[name].append((time.process_time() - cpu, time.perf_counter() - clock))
    return {
        name: tuple(statistics.median(one[place] for one in rounds) / count * 1e3 for place in (0, 1))
        for name, rounds in found.items()
    }


def main() -> None:
    """Print what each way costs."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as folder:
        token = SoftToken(Path(folder) / "token")
        os.environ["SOFTHSM2_CONF"] = str(token.configuration)
        database = Database(f"sqlite:///{folder}/registry.db")
        upgrade(database)
        registry = Registry(database, Seal(b"k" * 32))
        for actor in (A, B):
            accounts.add_account(registry, actor, actor.account_id, "", actor.name, SECRET)
        issuing.make_issuer(registry, A)
        issuing.make_token_issuer(registry, B, token.uri())
        pem = request("device", fleet_keys.ec_key(1))
        responder = ocsp.Responder(registry)
        asking = {}
        for name, actor in (("database", A), ("token", B)):
            made = issuing.certify_request(registry, actor, pem)
            pems = (made.certificate_pem, issuing.issuer_pem(registry, actor))
            one, issuer = (x509.load_pem_x509_certificate(text.encode()) for text in pems)
            asked = OCSPRequestBuilder().add_certificate(one, issuer, hashes.SHA256()).build()
            issuer_id = issuing.issuers(registry, actor)[0].id
            question = asked.public_bytes(Encoding.DER)
            asking[name] = (actor.account_id, issuer_id, question)
        for what, works in (
            (
                "a certificate",
                {
                    "database": lambda: issuing.certify_request(registry, A, pem),
                    "token": lambda: issuing.certify_request(registry, B, pem),
                },
            ),
            (
                "an OCSP answer",
                {
                    "database": lambda: responder.answer(*asking["database"]),
                    "token": lambda: responder.answer(*asking["token"]),
                },
            ),
        ):
            found = in_turns(works, count)
            for name, (cpu, clock) in found.items():
                print(f"{what}, key in the {name}: {cpu:.2f} ms of CPU, {clock:.2f} ms")
            print(f"  ratio of CPU {found['token'][0] / found['database'][0]:.2f}")
        database.close()


if __name__ == "__main__":
    main()
