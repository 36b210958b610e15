"""Makes the vectors of the RSA checks about related primes, residues, sizes and exponents; the same every time.

Run from the root of a checkout: .venv/bin/python tests/vectors/make/rsa.py
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import deep_factors
import gmpy2
import small_exponents

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


def apart(p: int, rounds: int) -> int:
    """A prime above p that Fermat's method meets in about that round."""
    return int(gmpy2.next_prime(p + int(gmpy2.isqrt(p * 8 * rounds))))


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
    for rounds, profile in ((16_300, "fast"), (16_450, "standard"), (131_000, "standard"), (1_048_400, "deep")):
        q = apart(p, rounds)
        cases.append(pair(f"about {rounds} rounds", "weak", q, p, profile=profile, classification="broken"))
    ratios = (
        ((2, 1), "fast"), ((3, 2), "fast"), ((3, 1), "fast"), ((16, 1), "fast"), ((31, 17), "fast"), ((32, 31), "fast"),
        ((33, 32), "standard"), ((127, 64), "standard"), ((128, 127), "standard"), ((1023, 769), "deep"),
    )  # fmt: skip
    for (a, b), profile in ratios:
        q = int(gmpy2.next_prime(prime(1024) // 2))
        p = int(gmpy2.next_prime(q * a // b))
        cases.append(pair(f"ratio {a}/{b}", "weak", p, q, profile=profile, classification="broken"))
    for k in (2, 3, 100, 128, 160, 256):
        q = prime(1024) - (1 << 1022 if k == 2 else 1 << 1021)
        q = int(gmpy2.next_prime(q))
        p = int(gmpy2.next_prime(q + (1 << (1024 - k))))
        cases.append(pair(f"distance 2^(1024-{k})", "weak", p, q, profile="fast", classification="broken"))
    q = prime(1024) - (1 << 1021)
    q = int(gmpy2.next_prime(q))
    p = int(gmpy2.next_prime(q + (1 << (1024 - 64))))
    cases.append(pair("distance 2^(1024-64)", "weak", p, q, profile="deep", classification="broken"))
    half_known(cases)
    far = int(gmpy2.next_prime(p + (1 << 600)))
    cases.append(pair("2^600 apart: out of reach", "near-miss", far, p))
    cases.append(pair("about 131,200 rounds: deep would find it", "near-miss", apart(p, 131_200), p))
    third = int(gmpy2.next_prime(p * 129 // 128))
    cases.append(pair("ratio 129/128: deep would find it", "near-miss", third, p))
    cases.append(pair("ratio 1.5 but for 300 bits", "near-miss", int(gmpy2.next_prime(p * 3 // 2 + (1 << 700))), p))
    write("rsa-close-primes", "Planted primes", *cases, healthy(), *deep_factors.close_primes())


def half_known(cases: list[str]) -> None:
    """Distances of which only the leading bits are known; from a generator of their own."""
    drawn = Random(186)
    for bits, k, unknown, sign, verdict, more in (
        (2048, 100, 256, 1, "weak", {"profile": "standard", "classification": "broken"}),
        (2048, 100, 200, -1, "weak", {"profile": "standard", "classification": "broken"}),
        (1024, 100, 158, 1, "weak", {"profile": "standard", "classification": "broken"}),
        (3072, 100, 256, 1, "weak", {"profile": "standard", "classification": "broken"}),
        (4096, 100, 256, -1, "weak", {"profile": "standard", "classification": "broken"}),
        (2048, 100, 328, 1, "weak", {"profile": "deep", "classification": "broken"}),
        (2048, 100, 345, 1, "near-miss", {}),
        (2048, 90, 256, 1, "weak", {"profile": "deep", "classification": "broken"}),
    ):
        half = bits // 2
        q = int(gmpy2.next_prime(drawn.getrandbits(half) & ~(7 << (half - 3)) | 6 << (half - 3)))
        rest = drawn.getrandbits(unknown - 1) >> 1 | 1 << (unknown - 1)  # the next prime must not need another bit
        p = int(gmpy2.next_prime(q + (1 << (half - k)) + sign * rest))
        word = "and" if sign > 0 else "less"
        cases.append(pair(f"{bits} bits, distance 2^({half}-{k}) {word} {unknown} bits", verdict, p, q, **more))


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

    for high, low in ((20, 510), (500, 30), (259, 260), (3, 516), (400, 119)):
        p, q = template(1024, high, low)
        cases.append(pair(f"{high} high and {low} low bits", "weak", p, q, profile="fast", classification="broken"))
    p, q = template(2048, 500, 531)
    cases.append(pair("500 high and 531 low bits of 2048", "weak", p, q, profile="fast", classification="broken"))
    for high, low in ((256, 256), (128, 384), (8, 504)):
        p, q = template(1024, high, low)
        cases.append(pair(f"{high} high and {low} low bits", "weak", p, q, profile="standard", classification="broken"))
    p, q = template(512, 128, 128)
    cases.append(pair("128 high and 128 low bits of 512", "weak", p, q, profile="standard", classification="broken"))
    for high, low in ((250, 250), (200, 200)):
        p, q = template(1024, high, low)
        cases.append(pair(f"{high} and {low} of 1024: too few", "near-miss", p, q))
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
    cases.append(pair("the first prime beyond the limit, 1048583", "near-miss", prime(2048 - 20), 1_048_583))
    write("rsa-small-factor", "Products with a small prime", *cases, healthy(), *deep_factors.small_factor())


def smooth_prime() -> None:
    write("rsa-smooth-prime", "Planted primes", *deep_factors.smooth_prime())


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
        case("eleventh power", "weak", prime(187) ** 11, profile="standard", classification="broken"),
        case("thirty-first power", "weak", prime(67) ** 31, profile="standard", classification="broken"),
        case("16385 bits", "weak", (1 << 16384) + 12345, profile="fast", classification="broken", confidence="certain"),
        case("prime", "weak", prime(1024), profile="deep", classification="broken"),
        pair("513 bits", "near-miss", prime(257), int(gmpy2.next_prime(3 << 254))),
        case("next to a square", "near-miss", p * p - 2 * (p & 1)),
        case("next to a cube", "near-miss", prime(683) ** 3 + 2),
        case("16384 bits", "near-miss", (1 << 16383) + 12345),
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
    for bits, d_bits in ((1024, 200), (1024, 254), (2048, 400), (2048, 510), (4096, 1022)):
        while True:
            p, q = prime(bits // 2), prime(bits // 2)
            phi = (p - 1) * (q - 1)
            d = int(gmpy2.next_prime(RANDOM.getrandbits(d_bits) | 1 << (d_bits - 1)))
            if gmpy2.gcd(d, phi) == 1:
                break
        e = int(gmpy2.invert(d, phi))
        cases.append(pair(f"{bits} bits, d of {d_bits}", "weak", p, q, e, profile="fast", classification="broken"))
    e = int(gmpy2.invert(phi - d, phi))
    cases.append(pair("d = phi less 1022 bits", "weak", p, q, e, profile="fast", classification="broken"))
    p, q = prime(1024), prime(1024)
    phi = (p - 1) * (q - 1)
    for bits in (520, 601):
        d = int(gmpy2.next_prime(1 << (bits - 1)))
        cases.append(pair(f"d of {bits} bits: out of reach", "near-miss", p, q, int(gmpy2.invert(d, phi))))
    d = int(gmpy2.next_prime(RANDOM.getrandbits(2000)))
    cases.append(pair("d of 2000 bits, large e", "near-miss", p, q, int(gmpy2.invert(d, phi))))
    write("rsa-small-private-exponent", "Keys made from d", *cases, healthy(), *small_exponents.cases())


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


def roca_prime(bits: int, generator: int, a: int, count: int, wrong: int = 1) -> int:
    """k M + (generator^a mod M) with random k; the residue modulo ``wrong`` is another one."""
    modulus = residues.primorial(count)
    assert gmpy2.gcd(modulus, generator) == 1
    residue = pow(generator, a, modulus)
    if wrong > 1:
        step = modulus // wrong * pow(modulus // wrong, -1, wrong)
        residue = next(
            other
            for other in ((residue + turn * step) % modulus for turn in range(1, wrong))
            if other % wrong and gmpy2.legendre(other, wrong) != gmpy2.legendre(residue, wrong)
        )
    while True:
        k = RANDOM.getrandbits(bits - modulus.bit_length() + 1)
        found = k * modulus + residue
        if found.bit_length() == bits and found >> (bits - 2) == 3 and gmpy2.is_prime(found):
            return found


#: RSALib's sizes as published, and the number of primes in M; then sizes that are no multiples of 32
PUBLISHED = ((512, 39), (960, 39), (992, 71), (1024, 71), (1952, 71), (1984, 126), (2048, 126), (3072, 126),
             (3936, 126), (3968, 225), (4096, 225))  # fmt: skip
BETWEEN = ((544 + 6, 39), (970, 39), (984, 71), (1500, 71), (1970, 71), (2050, 126), (3960, 126), (4000, 225))


def roca() -> None:
    cases = []
    verdict = {"profile": "fast", "classification": "broken", "confidence": "certain"}
    for bits, count in (*PUBLISHED, *BETWEEN):
        p, q = (roca_prime(bits // 2, 65537, RANDOM.getrandbits(40), count) for _ in range(2))
        cases.append(pair(f"{bits} bits, {count} primes in M", "weak", p, q, **verdict))
    p = roca_prime(1024, 65537, RANDOM.getrandbits(40), 126)
    cases.append(pair("one prime of RSALib, one random", "near-miss", p, prime(1024)))
    for wrong in (11, 37, 701):
        q = roca_prime(1024, 65537, RANDOM.getrandbits(40), 126, wrong)
        cases.append(pair(f"RSALib's form but for the residue modulo {wrong}", "near-miss", p, q))
    write("rsa-roca", "Primes of RSALib's form", *cases, healthy())
    variant = []
    for generator, bits, count in ((65539, 576, 39), (65539, 1024, 71), (104729, 2048, 126), (99991, 4096, 225)):
        a = RANDOM.getrandbits(30)
        p, q = roca_prime(bits // 2, generator, 2 * a, count), roca_prime(bits // 2, generator, 2 * a + 4, count)
        name = f"generator {generator}, {bits} bits, {count} primes in M"
        variant.append(pair(name, "weak", p, q, profile="fast", classification="weak", confidence="likely"))
    p, q = roca_prime(512, 65539, 3, 71), roca_prime(512, 65539, 5, 71)
    variant.append(pair("both exponents odd", "weak", p, q, profile="fast", classification="weak"))
    q = roca_prime(512, 65539, 6, 71)
    variant.append(pair("exponents that add up to an odd number: not seen", "near-miss", p, q))
    p, q = roca_prime(512, 65539, 2, 71), roca_prime(512, 65539, 4, 71, 229)
    variant.append(pair("a square modulo 47 of the 48 primes", "near-miss", p, q))
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
        smooth_prime,
    ):
        make()
