"""Makes the vectors of the RSA checks about related primes, residues, sizes and exponents; the same every time.

Run from the root of a checkout: .venv/bin/python tests/vectors/make/rsa.py
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import gmpy2

from keyassay.keymath import residues

FOLDER = Path(__file__).parent.parent / "checks"
RANDOM = Random(1643)


def prime(bits: int, low: int = 1) -> int:
    """A random prime with its two top bits set."""
    while True:
        found = int(gmpy2.next_prime(RANDOM.getrandbits(bits) | 3 << (bits - 2)))
        if found.bit_length() == bits and found % low == 1 % low:
            return found


def case(name: str, verdict: str, modulus: int, e: int = 65537, **more: object) -> str:
    lines = ["[[case]]", f'name = "{name}"', f'verdict = "{verdict}"']
    factors = more.pop("factors", None)
    lines += [f'{key} = "{value}"' for key, value in more.items()]
    exponent = e if e < 2**31 else f'"{e:x}"'
    lines.append(f'key = {{ type = "rsa", modulus = "{modulus:x}", exponent = {exponent} }}')
    if factors:
        p, q = factors
        assert p * q == modulus
        lines.append(f'private = {{ p = "{p:x}", q = "{q:x}" }}')
    return "\n".join(lines) + "\n"


def pair(name: str, verdict: str, p: int, q: int, e: int = 65537, **more: object) -> str:
    return case(name, verdict, p * q, e, factors=(int(p), int(q)), **more)


def write(check: str, how: str, *cases: str) -> None:
    text = f'provenance = "{how}, by tests/vectors/make/rsa.py"\n\n' + "\n".join(cases)
    (FOLDER / f"{check}.toml").write_text(text)


def healthy(bits: int = 2048) -> str:
    return pair("two random primes", "healthy", prime(bits // 2), prime(bits // 2))


def close_primes() -> None:
    cases = []
    for bits in (1024, 2048, 3072, 4096):
        p = prime(bits // 2)
        near = int(gmpy2.next_prime(p + (1 << (bits // 4))))
        cases.append(
            pair(f"{bits} bits, 2^{bits // 4} apart", "weak", near, p, profile="fast", classification="broken")
        )
    p = prime(1024)
    cases.append(pair("next prime", "weak", p, int(gmpy2.next_prime(p)), profile="fast", classification="broken"))
    for rounds, profile in ((16_000, "fast"), (120_000, "standard")):
        gap = int(gmpy2.isqrt(gmpy2.isqrt(p * p) * 8 * rounds))
        q = int(gmpy2.next_prime(p + gap))
        cases.append(pair(f"about {rounds} rounds", "weak", q, p, profile=profile, classification="broken"))
    for a, b, profile in ((3, 2, "fast"), (31, 17, "fast"), (127, 64, "standard")):
        small = prime(1024) // 2
        q = int(gmpy2.next_prime(small))
        p = int(gmpy2.next_prime(q * a // b))
        cases.append(pair(f"ratio {a}/{b}", "weak", p, q, profile=profile, classification="broken"))
    for k in (2, 3, 100, 128, 160, 256):
        q = prime(1024) - (1 << 1022 if k == 2 else 1 << 1021)
        q = int(gmpy2.next_prime(q))
        p = int(gmpy2.next_prime(q + (1 << (1024 - k))))
        cases.append(pair(f"distance 2^(1024-{k})", "weak", p, q, profile="fast", classification="broken"))
    far = int(gmpy2.next_prime(p + (1 << 600)))
    cases.append(pair("2^600 apart: out of reach", "near-miss", far, p))
    cases.append(pair("ratio 1.5 but for 300 bits", "near-miss", int(gmpy2.next_prime(p * 3 // 2 + (1 << 700))), p))
    write("rsa-close-primes", "Planted primes", *cases, healthy())


def shared_bits() -> None:
    cases = []

    def template(bits: int, high: int, low: int) -> tuple[int, int]:
        while True:
            p = prime(bits)
            middle = bits - high - low
            for _ in range(4000):
                q = (p >> (bits - high) << (bits - high)) | RANDOM.getrandbits(middle) << low | p & ((1 << low) - 1)
                if q != p and gmpy2.is_prime(q) and p * q % 8 == 1:
                    return p, q

    for high, low, name in ((20, 510, "mostly low"), (500, 30, "mostly high"), (260, 262, "half and half")):
        p, q = template(1024, high, low)
        cases.append(pair(f"{high} high and {low} low bits", "weak", p, q, profile="fast", classification="broken"))
        assert name
    p, q = template(512, 128, 132)
    cases.append(pair("1024 bits, 128 high and 132 low", "weak", p, q, profile="standard", classification="broken"))
    p, q = template(1024, 200, 200)
    cases.append(pair("200 and 200 of 1024: too few", "near-miss", p, q))
    write("rsa-shared-bits", "Primes from one template", *cases, healthy())


def small_factor() -> None:
    cases = []
    for factor, profile in ((3, "fast"), (65521, "fast"), (65537, "standard"), (1048573, "standard")):
        rest = prime(2049 - factor.bit_length())
        cases.append(pair(f"divisible by {factor}", "weak", rest, factor, profile=profile, classification="broken"))
    smooth = 1
    for number in range(3, 1500, 2):
        if gmpy2.is_prime(number):
            smooth *= number
    cases.append(
        case("the product of all odd primes below 1500", "weak", smooth, profile="fast", classification="broken")
    )
    rest = prime(2048 - 25)
    cases.append(pair("factor of 25 bits: beyond the limit", "near-miss", rest, int(gmpy2.next_prime(1 << 25))))
    write("rsa-small-factor", "Products with a small prime", *cases, healthy())


def invalid_modulus() -> None:
    p = prime(1024)
    write(
        "rsa-invalid-modulus",
        "Definitions",
        case("even", "weak", 2 * prime(2047), profile="fast", classification="broken"),
        case("zero", "weak", 0, profile="fast", classification="broken"),
        case("one", "weak", 1, profile="fast", classification="broken"),
        case("square", "weak", p * p, profile="fast", classification="broken"),
        case("cube", "weak", prime(683) ** 3, profile="fast", classification="broken"),
        case("fifth power", "weak", prime(410) ** 5, profile="fast", classification="broken"),
        case("seventh power", "weak", prime(293) ** 7, profile="fast", classification="broken"),
        pair("512 bits", "weak", prime(256), prime(256), profile="fast", classification="broken", confidence="certain"),
        case("20000 bits", "weak", (1 << 19999) + 12345, profile="fast", classification="broken", confidence="certain"),
        case("prime", "weak", prime(1024), profile="deep", classification="broken"),
        pair("513 bits", "near-miss", prime(257), int(gmpy2.next_prime(3 << 254))),
        case("next to a square", "near-miss", p * p - 2 * (p & 1)),
        healthy(),
    )


def invalid_exponent() -> None:
    p, q = prime(1024), prime(1024)
    write(
        "rsa-invalid-exponent",
        "Definitions",
        pair("e = 1", "weak", p, q, 1, profile="fast", classification="broken"),
        pair("e = 0", "weak", p, q, 0, profile="fast", classification="broken"),
        pair("e = 65536", "weak", p, q, 65536, profile="fast", classification="broken"),
        pair("e of 257 bits", "weak", p, q, (1 << 256) + 1, profile="fast", classification="notice"),
        pair("e larger than N", "weak", p, q, p * q + 2, profile="fast", classification="notice"),
        pair("e = 3", "near-miss", p, q, 3),
        pair("e = 2^256 - 1", "near-miss", p, q, (1 << 256) - 1),
        healthy(),
    )


def small_private_exponent() -> None:
    cases = []
    for bits, d_bits in ((1024, 200), (2048, 400), (2048, 508), (4096, 1000)):
        while True:
            p, q = prime(bits // 2), prime(bits // 2)
            phi = (p - 1) * (q - 1)
            d = int(gmpy2.next_prime(RANDOM.getrandbits(d_bits) | 1 << (d_bits - 1)))
            if gmpy2.gcd(d, phi) == 1:
                break
        e = int(gmpy2.invert(d, phi))
        cases.append(pair(f"{bits} bits, d of {d_bits}", "weak", p, q, e, profile="fast", classification="broken"))
    e = int(gmpy2.invert(phi - d, phi))
    cases.append(pair("d = phi less 1000 bits", "weak", p, q, e, profile="fast", classification="broken"))
    p, q = prime(1024), prime(1024)
    phi = (p - 1) * (q - 1)
    d = int(gmpy2.next_prime(1 << 600))
    cases.append(pair("d of 601 bits: out of reach", "near-miss", p, q, int(gmpy2.invert(d, phi))))
    write("rsa-small-private-exponent", "Keys made from d", *cases, healthy())


def key_size() -> None:
    write(
        "rsa-key-size",
        "Random primes",
        pair("1024 bits", "weak", prime(512), prime(512), profile="fast", classification="weak"),
        pair("2047 bits", "weak", prime(1024), (1 << 1022) + 1153, profile="fast", classification="weak")
        if gmpy2.is_prime((1 << 1022) + 1153)
        else pair("2047 bits", "weak", prime(1024), prime(1023), profile="fast", classification="weak"),
        pair("2048 bits", "near-miss", prime(1024), prime(1024)),
        healthy(3072),
    )


def roca_prime(bits: int, generator: int, a: int) -> int:
    """k M + (generator^a mod M) with random k."""
    modulus = residues.primorial(residues.prime_count(2 * bits))
    residue = pow(generator, a, modulus)
    while True:
        k = RANDOM.getrandbits(bits - modulus.bit_length() + 1)
        found = k * modulus + residue
        if found.bit_length() == bits and found >> (bits - 2) == 3 and gmpy2.is_prime(found):
            return found


def roca() -> None:
    cases = []
    for bits in (512, 1024, 2048, 3072, 4096):
        p, q = (roca_prime(bits // 2, 65537, RANDOM.getrandbits(40)) for _ in range(2))
        cases.append(pair(f"{bits} bits", "weak", p, q, profile="fast", classification="broken", confidence="certain"))
    p, q = (roca_prime(1024, 65537, RANDOM.getrandbits(40)) for _ in range(2))
    assert p
    cases.append(pair("one prime of RSALib, one random", "near-miss", p, prime(1024)))
    write("rsa-roca", "Primes of RSALib's form", *cases, healthy())
    variant = []
    for bits in (1024, 2048):
        a = RANDOM.getrandbits(30)
        p, q = roca_prime(bits // 2, 62089, 2 * a), roca_prime(bits // 2, 62089, 2 * a + 4)
        variant.append(pair(f"generator 62089, {bits} bits", "weak", p, q, profile="fast", classification="weak"))
    p, q = roca_prime(512, 62089, 3), roca_prime(512, 62089, 6)
    variant.append(pair("exponents that add up to an odd number: not seen", "near-miss", p, q))
    write("rsa-roca-variant", "Primes of RSALib's form with another generator", *variant, healthy())


if __name__ == "__main__":
    for make in (
        close_primes,
        shared_bits,
        small_factor,
        invalid_modulus,
        invalid_exponent,
        small_private_exponent,
        key_size,
        roca,
    ):
        make()
