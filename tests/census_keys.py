"""Sound keys as four kinds of generators make them: what no check may say anything of.

Three RSA generators are remade in Python, in the style of GMP programs (next prime), of pycryptodome (draw until prime,
coprime to e, within sqrt(2) of the top) and of Go's crypto/rand (two top bits, then a step through odd numbers). Their
randomness is SHAKE-256 of a name, so that a prime is stored as how far the search went: two bytes. The fourth is OpenSSL
itself, whose moduli are stored whole. ``python tests/census_keys.py`` makes the files again (the first three the same).
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from math import isqrt
from multiprocessing import Pool
from pathlib import Path

import gmpy2
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from keyassay.certificates.public_key import EcPublicKey, OkpPublicKey, PublicKey, RsaPublicKey
from keyassay.lists.accelerator import pair_test

FOLDER = Path(__file__).parent / "vectors" / "census"

#: Modulus size in bits -> keys, for each of the three remade generators and for OpenSSL.
SIZES = {1024: 1700, 2048: 1300, 3072: 100, 4096: 50}
OPENSSL_SIZES = {1024: 300, 2048: 500, 3072: 40, 4096: 20}
EC_KEYS = 500
EXPONENT = 65537


def stream(name: str, size: int) -> int:
    """``size`` random bits that belong to a name."""
    octets = hashlib.shake_256(f"keyassay census {name}".encode()).digest((size + 7) // 8)
    return int.from_bytes(octets, "big") >> (-size % 8)


def gmp_candidate(name: str, size: int, step: int) -> int:
    """``mpz_nextprime`` of a random number with its two top bits set."""
    return (stream(name, size) | 3 << (size - 2) | 1) + 2 * step


def pycryptodome_candidate(name: str, size: int, step: int) -> int:
    """A fresh odd number for each test, above sqrt(2) * 2^(size-1)."""
    least = isqrt(1 << (2 * size - 1)) + 1
    return least + stream(f"{name} {step}", size + 64) % ((1 << size) - least) | 1


def go_candidate(name: str, size: int, step: int) -> int:
    """Bytes with the two top bits and the lowest set, then odd numbers upwards (crypto/rand.Prime until Go 1.19)."""
    octets = bytearray(stream(name, size).to_bytes(size // 8, "big"))
    octets[0] |= 0xC0
    octets[-1] |= 1
    return int.from_bytes(octets, "big") + 2 * step


GENERATORS: dict[str, Callable[[str, int, int], int]] = {
    "gmp": gmp_candidate,
    "pycryptodome": pycryptodome_candidate,
    "go": go_candidate,
}


@dataclass(frozen=True)
class Census:
    """Keys by who made them."""

    rsa: dict[str, list[RsaPublicKey]]
    factors: dict[str, list[tuple[int, int]]]
    others: dict[str, list[PublicKey]]


def _names(generator: str, size: int) -> list[str]:
    return [f"{generator} {size} {number} {letter}" for number in range(SIZES[size]) for letter in "pq"]


def _steps(task: tuple[str, int, str]) -> int:
    """How many candidates a generator passes over before its prime."""
    generator, size, name = task
    candidate = GENERATORS[generator]
    small = gmpy2.primorial(1 << 13)
    test = pair_test(size)

    def sieved() -> Iterator[tuple[int, int]]:
        for step in range(1 << 16):
            number = candidate(name, size, step)
            if gmpy2.gcd(number, small) == 1 and number % EXPONENT != 1:
                yield step, number

    candidates = sieved()
    while True:
        first, second = next(candidates), next(candidates)
        for (step, number), passed in zip((first, second), test(first[1], second[1]), strict=True):
            if passed and gmpy2.is_prime(number):
                return step


@cache
def census() -> Census:
    """All keys of the census; under a second."""
    found: dict[str, list[RsaPublicKey]] = {}
    factors: dict[str, list[tuple[int, int]]] = {}
    for generator, candidate in GENERATORS.items():
        stored = (FOLDER / f"rsa-{generator}.bin").read_bytes()
        steps = [int.from_bytes(stored[place : place + 2], "little") for place in range(0, len(stored), 2)]
        position = 0
        pairs: list[tuple[int, int]] = []
        for size in SIZES:
            names = _names(generator, size)
            primes = [
                candidate(name, size // 2, step)
                for name, step in zip(names, steps[position : position + len(names)], strict=True)
            ]
            position += len(names)
            pairs.extend(zip(primes[::2], primes[1::2], strict=True))
        found[generator] = [RsaPublicKey(p * q, EXPONENT) for p, q in pairs]
        factors[generator] = pairs
    stored = (FOLDER / "rsa-openssl.bin").read_bytes()
    found["openssl"] = []
    for size, count in OPENSSL_SIZES.items():
        octets, stored = stored[: count * size // 8], stored[count * size // 8 :]
        found["openssl"].extend(
            RsaPublicKey(int.from_bytes(octets[place : place + size // 8], "big"), EXPONENT)
            for place in range(0, len(octets), size // 8)
        )
    return Census(found, factors, _others())


def _others() -> dict[str, list[PublicKey]]:
    """Elliptic curve keys, from private keys that belong to names."""
    curves: dict[str, ec.EllipticCurve] = {
        "P-256": ec.SECP256R1(),
        "P-384": ec.SECP384R1(),
        "P-521": ec.SECP521R1(),
        "secp256k1": ec.SECP256K1(),
    }
    found: dict[str, list[PublicKey]] = {}
    point = (serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    for name, curve in curves.items():
        scalars = (stream(f"{name} {number}", curve.key_size - 1) for number in range(EC_KEYS))
        keys = (ec.derive_private_key(scalar, curve).public_key() for scalar in scalars)
        found[name] = [EcPublicKey(name, key.public_bytes(*point)) for key in keys]
    raw = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    seeds = (stream(f"ed25519 {number}", 256).to_bytes(32, "big") for number in range(EC_KEYS))
    found["ed25519"] = [
        OkpPublicKey("ed25519", ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(*raw))
        for seed in seeds
    ]
    return found


def _openssl_modulus(size: int) -> bytes:
    return rsa.generate_private_key(EXPONENT, size).public_key().public_numbers().n.to_bytes(size // 8, "big")


def make() -> None:
    """Write the files; about a quarter of an hour of CPU."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with Pool(max((os.cpu_count() or 2) // 2, 1)) as pool:
        for generator in GENERATORS:
            tasks = [(generator, size // 2, name) for size in SIZES for name in _names(generator, size)]
            steps = pool.map(_steps, tasks, chunksize=16)
            (FOLDER / f"rsa-{generator}.bin").write_bytes(b"".join(step.to_bytes(2, "little") for step in steps))
        sizes = [size for size, count in OPENSSL_SIZES.items() for _ in range(count)]
        (FOLDER / "rsa-openssl.bin").write_bytes(b"".join(pool.map(_openssl_modulus, sizes, chunksize=4)))


if __name__ == "__main__":
    sys.exit(make())
