"""What screening adds to a registration: CPU of RegisterCertificateWithoutCA on SQLite, without and with it.

PYTHONPATH=tests python benchmarks/screening.py [CERTIFICATES]
"""

from __future__ import annotations

import sys
import tempfile
import time

from cryptography.hazmat.primitives.asymmetric import ec, rsa

import fleet_keys
from keyassay.audit.screening import Screen
from keyassay.registry import accounts, certificates
from keyassay.registry.registry import Registry
from keyassay.storage.database import Database
from keyassay.storage.sealing import Seal
from keyassay.storage.upgrading import upgrade
from two_accounts import SECRET, A


def measure(pems: list[str], *, screened: bool) -> tuple[float, float]:
    """Milliseconds of CPU for each registration, and of these for looking at the key."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/registry.db")
        upgrade(database)
        registry = Registry(database, Seal(b"k" * 32))
        accounts.add_account(registry, A, A.account_id, "", A.name, SECRET)
        looking = 0.0
        if screened:
            screen = Screen(database, refuse=False)
            screen.prepare()
            spkis = [certificates.read_certificate(pem).spki for pem in pems]
            started = time.process_time()
            for spki in spkis:
                screen.examine(spki)
            looking = time.process_time() - started
            registry = Registry(database, registry.seal, screening=screen)
        started = time.process_time()
        for pem in pems:
            certificates.register_without_authority(registry, A, pem)
        spent = time.process_time() - started
        database.close()
    return spent / len(pems) * 1e3, looking / len(pems) * 1e3


def main() -> None:
    """Print the best of three for each kind of key."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    kinds = {
        "RSA-2048": [fleet_keys.device(f"r{i}", key=rsa.generate_private_key(65537, 2048)).pem for i in range(count)],
        "P-256": [fleet_keys.device(f"e{i}", key=ec.generate_private_key(ec.SECP256R1())).pem for i in range(count)],
    }
    for kind, pems in kinds.items():
        off = min(measure(pems, screened=False) for _ in range(3))
        on = min(measure(pems, screened=True) for _ in range(3))
        print(f"{kind}: {off[0]:.2f} ms without, {on[0]:.2f} ms with screening, of which the checks {on[1]:.2f} ms")


if __name__ == "__main__":
    main()
