"""Makes the vectors of rsa-keypair-prng from the original's keys (tests/vectors/keypair_originals.csv); the same each time.

Run from the root of a checkout: .venv/bin/python tests/vectors/make/rsa_keypair_prng.py
"""

from __future__ import annotations

import csv
from pathlib import Path
from random import Random

import gmpy2

from keyassay.lists.recipes.keypair import nonzero_bytes, starts_of_primes, top_bits

VECTORS = Path(__file__).parent.parent
RANDOM = Random(41117)


def case(name: str, verdict: str, p: int, q: int, exponent: int = 65537) -> str:
    lines = ["[[case]]", f'name = "{name}"', f'verdict = "{verdict}"']
    if verdict == "weak":
        lines += ['profile = "fast"', 'classification = "broken"', 'confidence = "proven"']
    lines.append(f'key = {{ type = "rsa", modulus = "{p * q:x}", exponent = {exponent} }}')
    lines.append(f'private = {{ p = "{p:x}", q = "{q:x}" }}')
    return "\n".join(lines) + "\n"


def prime(bits: int) -> int:
    return int(gmpy2.next_prime(RANDOM.getrandbits(bits) | 3 << (bits - 2)))


def main() -> None:
    cases = []
    rows = [row for row in csv.reader((VECTORS / "keypair_originals.csv").open()) if not row[0].startswith("#")]
    for size, exponent, pool, p, q in rows:
        count = nonzero_bytes(bytes.fromhex(pool))
        if int(size) < 1024 or count == 2:  # two: found by those who built the larger list
            continue
        thrown = top_bits(bytes.fromhex(pool), int(size)) != int(p, 16) * int(q, 16) >> (int(size) - 64)
        verdict = "weak" if count < 2 and not thrown else "near-miss"
        name = f"original, {size} bits, {count} non-zero bytes, e = {exponent}, clock {pool[:2]}"
        if verdict == "near-miss":
            name += ": " + ("a prime was drawn again for e" if thrown else "too many") + ", out of reach"
        cases.append(case(name, verdict, int(p, 16), int(q, 16), int(exponent)))
    for size in (1024, 2048, 4096):
        one, two = starts_of_primes(bytes([0x63] + [0] * 31), size)
        product = one * two
        p = prime(size // 2)
        top = (product >> (size - 64) << (size - 64)) + (RANDOM.getrandbits(63) << (size - 128))
        cases.append(case(f"random primes, {size} bits, 64 bits of a listed key", "near-miss", p, next_to(top, p)))
        p = prime(size // 2)
        cases.append(case(f"random primes, {size} bits, half a listed key", "near-miss", p, next_to(product, p)))
    cases.append(case("two random primes", "healthy", prime(512), prime(512)))
    cases.append(case("two random primes of 1024 bits", "healthy", prime(1024), prime(1024)))
    provenance = (
        "keys named original: keypair 1.0.3 of npm, by make/keypair_originals.js; others: random primes of gmpy2"
    )
    text = f'provenance = "{provenance}"\n\n' + "\n".join(cases)
    (VECTORS / "checks" / "rsa-keypair-prng.toml").write_text(text)


def next_to(modulus: int, p: int) -> int:
    """The prime q that makes p * q follow the modulus as closely as possible."""
    return int(gmpy2.next_prime(modulus // p))


if __name__ == "__main__":
    main()
