"""Makes the vectors of rsa-weak-seed; the same every time. The numbers are drawn here, by other code than the check's.

Run from the root of a checkout: .venv/bin/python tests/vectors/make/weak_seeds.py
glibc's are drawn by the C library itself, Python's by Python. Java's were printed by OpenJDK 17.0.15:
``Random r = new Random(7); BigInteger.probablePrime(512, r)`` twice.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import gmpy2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

FILE = Path(__file__).parent.parent / "checks" / "rsa-weak-seed.toml"
JAVA = (
    0x99170FBB183477A35A94C9BF390B770209D32A595D4A987D41F4B3E592471ABE05194BB55DCAB3910016175AA147E1F3E98EE81EDF7FAE40BFE793D9FCED5411,
    0xB017C023170B7C5E8474A6E30F61B5F5C7FC97CFAFB79E3A430C00E84765B30E06FC67CDE8CCD4D69426B51E98B378C8E97613EB170D5ACFA759EC396CD0B999,
)
MADE = 1_709_287_200  # 2024-03-01T10:00:00Z
Pair = tuple[int, int]


def glibc(seed: int) -> Iterator[int]:
    """rand() & 0xff of this machine's C library."""
    libc = ctypes.CDLL("libc.so.6")
    libc.srand(ctypes.c_uint(seed))
    while True:
        yield libc.rand() & 0xFF


def twister(seed: int) -> Iterator[int]:
    """MT19937 after init_genrand, byte by byte, each word's highest first."""
    state = [seed]
    for i in range(1, 624):
        state.append((1812433253 * (state[-1] ^ state[-1] >> 30) + i) % 2**32)
    random = Random()
    random.setstate((3, (*state, 624), None))
    while True:
        yield from random.getrandbits(32).to_bytes(4, "big")


def newlib(seed: int) -> Iterator[int]:
    """rand() & 0xff."""
    while True:
        seed = (6364136223846793005 * seed + 1) % 2**64
        yield seed >> 32 & 0xFF


def msvc(seed: int) -> Iterator[int]:
    """rand() & 0xff."""
    while True:
        seed = (214013 * seed + 2531011) % 2**32
        yield seed >> 16 & 0xFF


def java(seed: int) -> Iterator[int]:
    """Random.nextBytes."""
    seed ^= 0x5DEECE66D
    while True:
        seed = (0x5DEECE66D * seed + 11) % 2**48
        yield from (seed >> 16).to_bytes(4, "little")


def counter(seed: int) -> Iterator[int]:
    """SHA-256 of a counter."""
    while True:
        yield from hashlib.sha256(seed.to_bytes(4, "big")).digest()
        seed += 1


def python(seed: int) -> Iterator[int]:
    """The bytes of random.getrandbits(512), again and again."""
    random = Random(seed)
    while True:
        yield from random.getrandbits(512).to_bytes(64, "big")


def primes(drawn: Iterator[int], size: int, top: int = 2, between: int = 0) -> Pair:
    """Two primes above numbers of that many bits, ``between`` numbers apart."""
    found = []
    for place in range(2 + between):
        start = int.from_bytes(bytes(next(drawn) for _ in range(size // 8)), "big") | (2**top - 1) << (size - top)
        if place in (0, 1 + between):
            found.append(int(gmpy2.next_prime(start - 1)))
    return found[0], found[1]


def certificate(pair: Pair, begins: int) -> str:
    """A self-signed certificate in PEM; the signature is deterministic."""
    p, q = pair
    d = pow(65537, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(65537, p * q)
    )
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])
    made = (
        x509.CertificateBuilder(name, name)
        .serial_number(1)
        .public_key(numbers.private_key().public_key())
        .not_valid_before(datetime.fromtimestamp(begins, UTC))
        .not_valid_after(datetime.fromtimestamp(begins + 86_400 * 3_650, UTC))
        .sign(numbers.private_key(), SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


def key(pair: Pair) -> str:
    return f'{{ key = {{ type = "rsa", modulus = "{pair[0] * pair[1]:x}", exponent = 65537 }} }}'


def pem(pair: Pair, begins: int) -> str:
    return f'{{ pem = """\n{certificate(pair, begins)}""" }}'


def case(name: str, verdict: str, items: list[str], weak: list[int] | None = None, first: Pair | None = None) -> str:
    lines = ["[[case]]", f'name = "{name}"', f'verdict = "{verdict}"']
    if weak is not None:
        lines += ['profile = "deep"', 'classification = "broken"', 'confidence = "proven"', f"weak = {weak}"]
    lines += ["items = [", *(f"  {item}," for item in items), "]"]
    if first:
        lines.append(f'private = {{ p = "{first[0]:x}", q = "{first[1]:x}" }}')
    return "\n".join(lines) + "\n"


def sound(count: int, size: int = 512) -> list[Pair]:
    """Keys whose primes come from a generator that no model has, in company of the weak ones."""
    random = Random(b"weak seeds".hex())
    numbers = iter(lambda: int(gmpy2.next_prime(random.getrandbits(size) | 3 << (size - 2))), 0)
    return [(next(numbers), next(numbers)) for _ in range(count)]


def text() -> str:
    """The whole file; a test holds it against the one that is there."""
    others = [key(pair) for pair in sound(4)]
    small = [
        primes(twister(31_337), 512),
        primes(glibc(4_242), 512, top=1),
        primes(java(65_535), 512),
        JAVA,
        primes(python(20), 512),
        primes(newlib(0), 512),
        primes(msvc(1_000), 512, top=1),
        primes(counter(12_345), 512),
    ]
    second = primes(glibc(99), 512, between=1)
    cases = [
        case("eight generators, small seeds", "weak", [*map(key, small), *others], list(range(len(small))), small[0]),
        case("q from the third number", "weak", [*others, key(second)], [4]),
        case("2048 bits", "weak", [key(primes(twister(65_000), 1024)), *map(key, sound(4, 1024))], [0]),
    ]
    early, late = primes(glibc(MADE - 86_000), 512), primes(twister(MADE + 86_000), 512)
    java_now = primes(java(MADE * 1_000 + 123_456), 512)
    cases += [
        case(
            "seconds near the beginning of the certificate",
            "weak",
            [pem(early, MADE), pem(late, MADE), *others],
            [0, 1],
        ),
        case("Java's clock near the beginning of the certificate", "weak", [pem(java_now, MADE), *others], [0]),
    ]
    cases += [
        case("seeds out of range", "near-miss", [key(primes(twister(65_536), 512)), key(primes(glibc(70_000), 512))]),
        case("made two days before the certificate", "near-miss", [pem(primes(glibc(MADE - 172_801), 512), MADE)]),
        case("q four numbers after p", "near-miss", [key(primes(glibc(99), 512, between=3))]),
        case("sound keys", "healthy", others),
    ]
    head = 'provenance = "By tests/vectors/make/weak_seeds.py: the C library, Python, OpenJDK 17, and definitions"\n\n'
    return head + "\n".join(cases)


if __name__ == "__main__":
    FILE.write_text(text())
