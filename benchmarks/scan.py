"""CPU of a whole scan, beside badkeys on the same certificates, process start included.

    python3 dev.py bench scan [--certificates 20000] [--rounds 3] [--json FILE]

Certificates are distinct and signed by one ECDSA key; moduli are products of primes of 128 bits, no two with a common
factor (random numbers have small factors, on which badkeys spends more time than on keys). badkeys runs its default
checks, named, without its block list, which it would have to download; it gets one base64 certificate a line. Both
print what they find, in their default form ("jsonl": a line of JSON for every certificate). Programs take turns, so
that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import math
import os
import platform
import random
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import gmpy2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "benchmarks"
KEYASSAY = ROOT / ".venv" / "bin" / "keyassay"
BADKEYS = ROOT / ".venv-peers" / "bin" / "badkeys"
BADKEYS_CHECKS = "fermat,roca,rsainvalid,rsapoly,sharedprimes,smalld,smallfactors,dsasparse"

#: one thread for matrix products; bytecode is kept after the first round, as for any installed program
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    "OPENBLAS_NUM_THREADS": "1",
}

RANDOM = random.Random(20260921)
CA_KEY = ec.derive_private_key(20260921, ec.SECP256R1())
SMALL_PRIMES = [number for number in range(3, 20_000) if gmpy2.is_prime(number)]
NAME_OF_CA = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Benchmark CA")])


def length(size: int) -> bytes:
    """DER length octets."""
    if size < 128:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets


class Template:
    """A certificate of which serial number, name and key are exchanged and the signature is made anew."""

    NAME = "device-000000000000"
    SERIAL = int.from_bytes(b"\x5aserial-", "big")

    def __init__(
        self, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey, part: bytes
    ) -> None:
        """``part`` are the octets of the key that later certificates replace."""
        start = datetime(2026, 1, 1, tzinfo=UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.NAME)]))
            .issuer_name(NAME_OF_CA)
            .public_key(key)
            .serial_number(self.SERIAL)
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(CA_KEY.public_key()), critical=False)
            .sign(CA_KEY, hashes.SHA256())
        )
        self.signed_part = made.tbs_certificate_bytes
        whole = made.public_bytes(serialization.Encoding.DER)
        after = whole.index(self.signed_part) + len(self.signed_part)
        self.algorithm = whole[after : after + 2 + whole[after + 1]]
        self.part = part

    def certificate(self, number: int, part: bytes) -> bytes:
        """DER of certificate ``number`` with other key octets."""
        serial = (1 << 62 | number).to_bytes(8, "big")
        name = f"device-{number:012d}".encode()
        signed_part = (
            self.signed_part.replace(self.SERIAL.to_bytes(8, "big"), serial)
            .replace(self.NAME.encode(), name)
            .replace(self.part, part)
        )
        signature = b"\x00" + CA_KEY.sign(signed_part, ec.ECDSA(hashes.SHA256()))
        content = signed_part + self.algorithm + b"\x03" + length(len(signature)) + signature
        return b"\x30" + length(len(content)) + content


def moduli_of(bits: int, count: int) -> list[int]:
    """Moduli of that size, no two of which share a factor; made once and kept in ``CACHE``.

    Each is a product of 128-bit primes that no other has: no program here looks for factors of that size, and such
    primes are made a hundred times faster than those of real keys.
    """
    size = bits // 8
    kept = CACHE / f"moduli-{bits}.bin"
    data = kept.read_bytes() if kept.exists() else b""
    have = len(data) // size
    if have < count:
        print(f"making {count - have:,} moduli of {bits} bits ...", file=sys.stderr)
        seed = random.Random(f"{bits} {have}")
        made = bytearray(data[: have * size])
        for start in range(have, count, 1_000):
            several = min(1_000, count - start)
            factors = [primes_of_128_bits(seed, several) for _ in range(bits // 128 - 1)]
            for those in zip(*factors, strict=True):
                # the highest bits are random, so that the last factor has 128 bits, too
                wanted = gmpy2.mpz(seed.getrandbits(bits) | 1 << (bits - 1))
                product = math.prod(those)
                made += int(product * gmpy2.next_prime(wanted // product)).to_bytes(size, "big")
        CACHE.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(made)
        data = bytes(made)
    return [int.from_bytes(data[place : place + size], "big") for place in range(0, count * size, size)]


def primes_of_128_bits(seed: random.Random, count: int) -> list[gmpy2.mpz]:
    """Neighbours from a random place on, by a sieve: less than half of what single ones cost."""
    start = gmpy2.mpz(seed.getrandbits(128) | 255 << 120 | 1)
    left = bytearray(b"\1") * (64 * count + 10_000)
    for prime in SMALL_PRIMES:
        first = -int(start % prime) * (prime + 1) // 2 % prime  # start + 2 first is a multiple
        left[first::prime] = bytes(len(range(first, len(left), prime)))
    numbers = (start + 2 * place for place, flag in enumerate(left) if flag)
    return list(itertools.islice((one for one in numbers if gmpy2.is_strong_prp(one, 2)), count))


def rsa_certificates(bits: int, count: int) -> Iterator[bytes]:
    """Distinct moduli, e = 65537."""
    template = None
    for number, modulus in enumerate(moduli_of(bits, count)):
        octets = modulus.to_bytes(bits // 8, "big")
        if template is None:
            template = Template(rsa.RSAPublicNumbers(65537, modulus).public_key(), octets)
        yield template.certificate(number, octets)


def ec_certificates(count: int) -> Iterator[bytes]:
    """P-256 keys with random private values."""
    template = None
    for number in range(count):
        key = ec.derive_private_key(RANDOM.getrandbits(250) + 1, ec.SECP256R1()).public_key()
        octets = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        template = template or Template(key, octets)
        yield template.certificate(number, octets)


def ed25519_certificates(count: int) -> Iterator[bytes]:
    """Ed25519 keys with random seeds."""
    template = None
    for number in range(count):
        key = ed25519.Ed25519PrivateKey.from_private_bytes(RANDOM.randbytes(32)).public_key()
        octets = key.public_bytes_raw()
        template = template or Template(key, octets)
        yield template.certificate(number, octets)


@dataclass(frozen=True)
class Bundle:
    """The same certificates as a PEM bundle and one a line."""

    pem: Path
    lines: Path
    count: int


def bundle(folder: Path, name: str, certificates: list[bytes]) -> Bundle:
    """Write both forms."""
    encoded = [base64.b64encode(der).decode() for der in certificates]
    pem, lines = folder / f"{name}.pem", folder / f"{name}.txt"
    with pem.open("w") as out:
        for text in encoded:
            wrapped = "\n".join(text[place : place + 64] for place in range(0, len(text), 64))
            out.write(f"-----BEGIN CERTIFICATE-----\n{wrapped}\n-----END CERTIFICATE-----\n")
    lines.write_text("\n".join(encoded) + "\n")
    return Bundle(pem, lines, len(certificates))


def cpu(command: list[str]) -> float:
    """User and system seconds of a process and its children; its output is thrown away."""
    pid = os.posix_spawn(
        command[0],
        command,
        ENVIRONMENT,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, used = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime


def keyassay(given: Bundle, profile: str, *, fleet: bool = False, form: str = "table") -> list[str]:
    """The command line of ours."""
    more = ["--format", form, *([] if fleet else ["--no-fleet"])]
    options = ["--profile", profile, "--jobs", "1", "--fail-on", "never", *more]
    return [str(KEYASSAY), "scan", *options, str(given.pem)]


def badkeys(given: Bundle) -> list[str]:
    """The command line of badkeys."""
    return [str(BADKEYS), "-c", BADKEYS_CHECKS, "--crt-lines", str(given.lines)]


def main() -> None:
    """Make the certificates, run all programs in turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--certificates", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    count = given.certificates
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"making {count} certificates of each kind ...", file=sys.stderr)
        rsa_all = list(rsa_certificates(2048, count))
        ec_all = list(ec_certificates(count))
        mixed = (
            rsa_all[: count // 2]
            + ec_all[: count // 4]
            + list(ed25519_certificates(count // 10))
            + list(rsa_certificates(1024, count // 10))
            + list(rsa_certificates(4096, count // 20))
        )
        RANDOM.shuffle(mixed)
        one = bundle(folder, "one", ec_all[:1])
        bundles = {
            "RSA-2048": bundle(folder, "rsa", rsa_all),
            "P-256": bundle(folder, "ec", ec_all),
            "mixed": bundle(folder, "mixed", mixed),
        }
        commands: dict[tuple[str, str], list[str]] = {}
        for kind, certificates in bundles.items():
            commands[kind, "badkeys"] = badkeys(certificates)
            for profile in ("fast", "standard"):
                commands[kind, profile] = keyassay(certificates, profile)
            commands[kind, "fast, jsonl"] = keyassay(certificates, "fast", form="jsonl")
            commands[kind, "fast and fleet"] = keyassay(certificates, "fast", fleet=True)
        commands["start", "badkeys"] = badkeys(one)
        for profile in ("fast", "standard"):
            commands["start", profile] = keyassay(one, profile)
        commands["start", "fast, jsonl"] = keyassay(one, "fast", form="jsonl")
        commands["start", "fast and fleet"] = keyassay(one, "fast", fleet=True)
        # byte code, and the tables that a first run makes and keeps
        for kind, run in (("start", "badkeys"), ("start", "standard"), ("P-256", "fast"), ("mixed", "fast")):
            cpu(commands[kind, run])
        times: dict[tuple[str, str], list[float]] = {key: [] for key in commands}
        for turn in range(given.rounds):
            for key, command in commands.items():
                times[key].append(cpu(command))
                print(f"round {turn + 1}: {key[0]}, {key[1]}: {times[key][-1]:.2f} s", file=sys.stderr)
        middle = {key: statistics.median(seconds) for key, seconds in times.items()}
        report(middle, {kind: made.count for kind, made in bundles.items()}, given.json)


#: (certificates, run, column, at most): what the project promises
TARGETS = (
    ("RSA-2048", "fast", "of_badkeys", 1 / 6),
    ("RSA-2048", "standard", "of_badkeys", 1.5),
    ("P-256", "fast", "marginal_of_badkeys", 1 / 3),
)


def machine() -> dict[str, str | int | None]:
    """Where this ran."""
    processor = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")
    if described.exists():
        found = re.search(r"model name\s*:\s*(.+)", described.read_text())
        processor = found[1] if found else processor
    return {"processor": processor, "cores": os.cpu_count(), "python": platform.python_version()}


def report(middle: dict[tuple[str, str], float], counts: dict[str, int], target: Path | None) -> None:
    """The table, and the same as JSON."""
    rows: list[dict[str, str | int | float]] = []
    for (kind, run), seconds in middle.items():
        if kind == "start":
            continue
        peer = middle[kind, "badkeys"]
        start, start_of_peer = middle["start", run], middle["start", "badkeys"]
        marginal = max(seconds - start, 1e-9) / counts[kind] * 1e6
        rows.append(
            {
                "certificates": kind,
                "count": counts[kind],
                "run": run,
                "cpu_seconds": round(seconds, 3),
                "start_seconds": round(start, 3),
                "us_per_key": round(seconds / counts[kind] * 1e6, 1),
                "marginal_us_per_key": round(marginal, 1),
                "of_badkeys": round(seconds / peer, 3),
                "marginal_of_badkeys": round((seconds - start) / (peer - start_of_peer), 3),
            }
        )
    where = machine()
    print(f"{where['processor']}, {where['cores']} cores, Python {where['python']}; medians of CPU time, user + system")
    print("marginal: less a run over one certificate; badkeys = 1 in the columns of ratios")
    print()
    print(
        f"{'certificates':16}{'run':16}{'CPU s':>8}{'start s':>9}{'us/key':>8}{'marginal':>10}"
        f"{'ratio':>8}{'marginal':>10}"
    )
    for row in rows:
        print(
            f"{row['count']:>6,} {row['certificates']:9}{row['run']:16}{row['cpu_seconds']:8.2f}"
            f"{row['start_seconds']:9.2f}{row['us_per_key']:8.1f}{row['marginal_us_per_key']:10.1f}"
            f"{row['of_badkeys']:8.3f}{row['marginal_of_badkeys']:10.3f}"
        )
    print()
    for kind, run, column, most in TARGETS:
        value = next(row[column] for row in rows if (row["certificates"], row["run"]) == (kind, run))
        words = "whole process" if column == "of_badkeys" else "marginal"
        print(f"{kind}, {run}, {words}: {value:.3f} of badkeys, target at most {most:.3f}")
    if target is not None:
        target.write_text(json.dumps({"machine": where, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
