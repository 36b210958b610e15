"""What the rules of other programs are for, made anew from their description, and found by ours: docs/coverage.md, held.

google/paranoid_crypto, Boulder and zlint are not run here. Every rule of theirs that is about keys or nonces is a line
of ``RULES``: keys as the rule (and, for paranoid_crypto, its own tests) describe them, from generators of our own, and
keys just beyond. A line says which check finds them, and in which profile; the tables of the document say the same.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import isqrt
from pathlib import Path
from random import Random

import gmpy2
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa

from keyassay.bulk.deep import examine_deeply
from keyassay.bulk.fleet import fleet_of
from keyassay.bulk.results import DEFAULT_BUDGET
from keyassay.certificates.batches import group_keys
from keyassay.certificates.decoding import decode, item_of_key
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import DsaPublicKey, EcPublicKey, PublicKey, RsaPublicKey
from keyassay.certificates.reading import ReadOptions, read_bytes
from keyassay.checks import Context, catalogue, check
from keyassay.findings import Profile
from keyassay.keymath import residues
from keyassay.keymath.curves import Curve, multiply, named_curves, root
from keyassay.keymath.generators import GMP_CONGRUENTIAL
from keyassay.lists.recipes.debian_openssl import Stream, rsa_keys
from keyassay.lists.recipes.keypair import first_key
from keyassay.lists.recipes.unseeded import first_outputs
from vectors.make import certificates as signing

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs" / "coverage.md"
PEERS = tomllib.loads(Path(__file__).with_name("expected.toml").read_text())
NOW = 1_790_000_000
CURVES = named_curves()

Made = Sequence[Item]


@dataclass(frozen=True)
class Rule:
    """A rule of another program.

    Attributes:
        rule: its name there.
        check, profile: what finds the same here.
        weak: items of which the first, or all, must be found.
        beyond: items that are as close to it as can be, and not found; nothing where the rule is a definition.
        slow: more than a few seconds.
    """

    rule: str
    check: str
    profile: Profile
    weak: Callable[[Random], Made]
    beyond: Callable[[Random], Made] | None = None
    slow: bool = False

    def __str__(self) -> str:
        return f"{self.rule}, {self.check}, {self.profile.name.lower()}"


def found(items: Made, check_id: str, profile: Profile, budget: float) -> set[int]:
    """Places of the items that a check finds something in; the budget is that of each key for deep steps."""
    one, context = check(check_id), Context(profile=profile, now=NOW)
    if one.shape == "fleet":
        return {row for row, _ in one.find(fleet_of(list(items)), context)}
    places = {
        int(positions[row])
        for batch, positions in group_keys([item.key for item in items])
        if isinstance(batch.keys[0], one.metadata.applies_to)
        for row, _ in one.find(batch, context)
    }
    if profile is Profile.DEEP:
        for place, item in enumerate(items):
            if item.key is not None and place not in places and examine_deeply(item.key, [one], context, budget)[0]:
                places.add(place)
    return places


# RSA


def prime(random: Random, bits: int = 1024) -> int:
    """A random prime with its two top bits set."""
    while True:
        one = int(gmpy2.next_prime(random.getrandbits(bits) | 3 << (bits - 2)))
        if one.bit_length() == bits:
            return one


def after(number: int) -> int:
    return int(gmpy2.next_prime(number))


def keys(*moduli: int, exponent: int = 65537) -> Made:
    return [item_of_key(RsaPublicKey(n, exponent)) for n in moduli]


def sized(bits: int) -> Callable[[Random], Made]:
    return lambda random: keys(prime(random, bits // 2) * prime(random, (bits + 1) // 2))


def with_exponent(*exponents: int) -> Callable[[Random], Made]:
    def make(random: Random) -> Made:
        n = prime(random) * prime(random)
        return [one for exponent in exponents for one in keys(n, exponent=exponent)]

    return make


def of_form(random: Random, generator: int, exponent: int, bits: int = 1024) -> int:
    """A prime k M + (generator^exponent mod M), M the product of the first 126 primes."""
    modulus = residues.primorial(126)
    residue = pow(generator, exponent, modulus)
    while True:
        one = random.getrandbits(bits - modulus.bit_length() + 1) * modulus + residue
        if one.bit_length() == bits and one >> (bits - 2) == 3 and gmpy2.is_prime(one):
            return one


def roca(random: Random) -> Made:
    return keys(of_form(random, 65537, random.getrandbits(40)) * of_form(random, 65537, random.getrandbits(40)))


def half_roca(random: Random) -> Made:
    return keys(of_form(random, 65537, random.getrandbits(40)) * prime(random))


def variant(odd: int) -> Callable[[Random], Made]:
    """Another generator than RSALib's, exponents that add up to an even number, or to an odd one."""
    return lambda random: keys(of_form(random, 65539, 2 * random.getrandbits(30)) * of_form(random, 65539, 2468 + odd))


def apart(rounds: int) -> Callable[[Random], Made]:
    """Primes that Fermat's method parts in about so many rounds."""

    def make(random: Random) -> Made:
        p = prime(random)
        return keys(p * after(p + isqrt(p * 8 * rounds)))

    return make


def from_template(high: int, low: int) -> Callable[[Random], Made]:
    """Primes of 1024 bits that agree in their first and last bits."""

    def make(random: Random) -> Made:
        middle = 1024 - high - low
        while True:
            p = prime(random)
            for _ in range(3_000):
                q = (p >> (1024 - high) << (1024 - high)) | random.getrandbits(middle) << low | p % (1 << low)
                if q != p and gmpy2.is_prime(q) and p * q % 8 == 1:
                    return keys(p * q)

    return make


def debian(random: Random) -> Made:
    made = [rsa_keys(Stream(*one), 2048)[65537] for one in (("le32", "rnd", 1234), ("le64", "nornd", 32767))]
    return keys(*(int(one.first * one.second) for one in made))


def two_of_debian(random: Random) -> Made:
    one, two = (rsa_keys(Stream("le32", "rnd", pid), 2048)[65537] for pid in (1234, 1235))
    return keys(int(one.first * two.second))


def repeated(random: Random, period: int, size: int) -> int:
    """A random word repeated through a number, that begins with a one."""
    word = random.getrandbits(period) | 1 << (period - 1)
    times = -(-size // period)
    return int(format(word, f"0{period}b") * times, 2) >> (period * times - size)


def both_patterned(random: Random) -> Made:
    return keys(*(after(repeated(random, size, 512)) * after(repeated(random, size, 512)) for size in (12, 20, 24)))


def patterned(size: int, *periods: int) -> Callable[[Random], Made]:
    """One prime with a repeated word, the other random."""
    return lambda random: keys(*(after(repeated(random, one, size)) * prime(random, size) for one in periods))


def swapped(size: int, *patterns: tuple[int, int]) -> Callable[[Random], Made]:
    """(k, b): a word of k bits repeated, then neighbouring words of b bits exchanged."""

    def start(random: Random, k: int, b: int) -> int:
        number = repeated(random, k, size)
        words = [number >> (place * b) & ((1 << b) - 1) for place in range(size // b)]
        words = [words[place ^ 1] for place in range(len(words))]
        return sum(word << (place * b) for place, word in enumerate(words)) | 1 << (size - 1)

    return lambda random: keys(*(after(start(random, k, b)) * prime(random, size) for k, b in patterns))


def beside_smooth(random: Random, *parts: int, limit: int = 1 << 20) -> int:
    """A prime p of 512 bits where p - 1 is the parts times primes below a limit."""
    while True:
        known = 2
        for part in parts:
            known *= part
        while 512 - known.bit_length() > limit.bit_length():
            known *= after(random.randrange(limit // 2, limit - limit // 16))
        for _ in range(40):
            p = known * after(random.getrandbits(513 - known.bit_length())) + 1
            if p.bit_length() == 512 and gmpy2.is_prime(p):
                return p


def smooth(random: Random) -> Made:
    """As paranoid_crypto's test: no power below 2^20 in p - 1 for the smallest primes; and both primes smooth."""
    p, q = beside_smooth(random, 3**30, 5**9), beside_smooth(random)
    return keys(p * prime(random, 512), p * q)


def hardly_smooth(random: Random) -> Made:
    """Two primes beyond the last bound there is: how far below it a budget gets is a matter of the machine."""
    return keys(beside_smooth(random, *(after((1 << 24) + 1000 * place) for place in (0, 1))) * prime(random, 512))


def light(ones: int) -> Callable[[Random], Made]:
    """Both primes of 1024 bits have so many ones."""

    def one(random: Random) -> int:
        while True:
            number = 1 << 1023 | 1 | sum(1 << place for place in random.sample(range(1, 1023), ones - 2))
            if gmpy2.is_prime(number):
                return number

    return lambda random: keys(one(random) * one(random))


def light_above(ones: int) -> Callable[[Random], Made]:
    """Both primes of 1024 bits have so many ones in their upper 768, the others are random."""

    def one(random: Random) -> int:
        while True:
            places = random.sample(range(256, 1023), ones - 1)
            number = 1 << 1023 | sum(1 << place for place in places) | random.getrandbits(256) | 1
            if gmpy2.is_prime(number):
                return number

    return lambda random: keys(one(random) * one(random))


def unseeded(random: Random) -> Made:
    """Two primes of one stream, with and without forced bits: 512, 1024, 2048 bits."""
    made = []
    for generator, bits in (("gmp-mt seed=5489", 512), ("gmp-lc-64 seed=1", 1024), ("java seed=0", 1024)):
        one, two = (output | 3 << (bits - 2) for output in first_outputs(generator, bits, 2))
        made.append(after(one) * after(two))
    return keys(*made)


def half_unseeded(random: Random) -> Made:
    """One prime of a stream, the other from a sound generator."""
    return keys(
        *(
            after(first_outputs(generator, 1024, place + 1)[place] | 3 << 1022) * prime(random)
            for generator, place in (("gmp-mt seed=0", 9), ("gmp-lc-128 seed=1", 3), ("java seed=0", 0))
        )
    )


def late_output(random: Random) -> Made:
    return keys(after(first_outputs("gmp-mt seed=0", 1024, 41)[40] | 3 << 1022) * prime(random))


def at_distance(unknown: int, *exponents: int) -> Callable[[Random], Made]:
    """p - q is 2^(1024 - k) and a random number of so many bits."""

    def pair(random: Random, k: int) -> int:
        while True:
            q = prime(random) - (1 << 1022) if k < 4 else prime(random)
            q = after(q)
            p = after(q + (1 << (1024 - k)) + (random.getrandbits(unknown) | 1 << (unknown - 1)))
            if (p * q).bit_length() >= 2047:
                return p * q

    return lambda random: keys(*(pair(random, k) for k in exponents))


def npm_keypair(*pools: tuple[int, ...]) -> Callable[[Random], Made]:
    """The keys of pools with these bytes, the others zero."""

    def make(random: Random) -> Made:
        made = []
        for octets in pools:
            pool = bytearray(32)
            pool[0] = 0xA5
            for number, octet in enumerate(octets):
                pool[5 + 7 * number] = octet
            key = first_key(bytes(pool), 2048)
            made.append(int(key.p) * int(key.q))
        return keys(*made)

    return make


def shared_prime(random: Random) -> Made:
    p = prime(random)
    return keys(p * prime(random), prime(random) * p)


def one_key_twice(random: Random) -> Made:
    n = prime(random) * prime(random)
    return keys(n, n)


def subprime(bits: int) -> Callable[[Random], Made]:
    """p - 1 and q - 1 of two keys have a prime in common."""

    def one(random: Random, r: int) -> int:
        while True:
            p = 2 * r * (random.getrandbits(1023 - bits) | 3 << (1021 - bits)) + 1
            if p.bit_length() == 1024 and gmpy2.is_prime(p):
                return p

    def make(random: Random) -> Made:
        r = prime(random, bits)
        return keys(*(one(random, r) * one(random, r) for _ in "ab"))

    return make


# Curves and DSA


def point(curve: Curve, x: int, y: int) -> bytes:
    return b"\4" + int(x).to_bytes(curve.field_bytes, "big") + int(y).to_bytes(curve.field_bytes, "big")


def public(name: str, d: int) -> EcPublicKey:
    curve = CURVES[name]
    x, y = multiply(curve, d % int(curve.order), curve.base)
    return EcPublicKey(name, point(curve, int(x), int(y)))


def on(name: str, *private: int) -> Made:
    return [item_of_key(public(name, d)) for d in private]


def off_the_curve(random: Random) -> Made:
    """y and 1; x and y exchanged for zeros; x and p, which is the point modulo p but no coordinate."""
    made: list[PublicKey] = []
    for name in ("P-256", "P-384", "P-521", "secp256k1", "brainpoolP256r1"):
        curve = CURVES[name]
        x, y = (int(one) for one in multiply(curve, random.getrandbits(200), curve.base))
        made.append(EcPublicKey(name, point(curve, x, y ^ 1)))
        made.append(EcPublicKey(name, point(curve, 0, 0)))
    curve = CURVES["P-256"]
    small = next(x for x in range(2**250) if root(curve, x, 0) is not None)
    made.append(EcPublicKey("P-256", point(curve, small + int(curve.p), int(root(curve, small, 0)[1]))))  # type: ignore[index]
    return [item_of_key(one) for one in made]


def outside_the_group(random: Random) -> Made:
    curve = CURVES["secp112r2"]
    points = (root(curve, value, 0) for value in range(2, 1000))
    one = next(one for one in points if one is not None and multiply(curve, int(curve.order), one) is not None)
    return [item_of_key(EcPublicKey("secp112r2", point(curve, int(one[0]), int(one[1]))))]


def sound_points(random: Random) -> Made:
    return [one for name in ("P-256", "P-384", "P-521", "secp256k1") for one in on(name, random.getrandbits(200))]


def words_of_32_bits(random: Random) -> Made:
    """One word at any place of the private number, or the same in all places."""
    places = [random.getrandbits(32) << (32 * place) for place in (0, 3, 7)]
    everywhere = random.getrandbits(32) * sum(1 << (32 * place) for place in range(8))
    return on("P-256", *places, everywhere)


def two_words(random: Random) -> Made:
    return on("P-256", (random.getrandbits(31) | 1 << 31) << 128 | random.getrandbits(32) | 1)


def related(*differences: int) -> Callable[[Random], Made]:
    def make(random: Random) -> Made:
        return [
            one
            for difference in differences
            for d in [random.getrandbits(250)]
            for one in on("P-256", d, d + difference)
        ]

    return make


@cache
def dsa_numbers(bits: int) -> dsa.DSAPublicNumbers:
    """A key of OpenSSL's."""
    return dsa.generate_private_key(bits).public_key().public_numbers()


def dsa_key(random: Random, change: str = "", bits: int = 2048) -> Made:
    """OpenSSL's domain; y is p - 1 (order 2), p (no number below p), or a power of g."""
    numbers = dsa_numbers(bits)
    one = numbers.parameter_numbers
    y = {"": numbers.y, "order": one.p - 1, "range": one.p}[change]
    return [item_of_key(DsaPublicKey(one.p, one.q, one.g, y))]


# Nonces


def signed(random: Random, nonces: Sequence[int], d: int | None = None) -> Made:
    """An authority, whose own signature has the first nonce, and what it issued."""
    d = random.getrandbits(255) if d is None else d
    first, *others = nonces
    texts = [signing.authority("CA", d, first), *signing.signed(d, "CA", [*others])]
    return decode([raw for block in read_bytes("".join(texts).encode(), ReadOptions()) for raw in block])


def nonces(make: Callable[[Random], int], count: int) -> Callable[[Random], Made]:
    return lambda random: signed(random, [make(random) for _ in range(count)])


def alike(count: int, start: int, end: int) -> Callable[[Random], Made]:
    """Nonces with the same first and the same last bits."""

    def make(random: Random) -> Made:
        first, last = random.getrandbits(start) << (256 - start), random.getrandbits(end)
        middle = 256 - start - end
        return signed(random, [first >> 1 | random.getrandbits(middle - 1) << end | last for _ in range(count)])

    return make


def four_times(random: Random) -> int:
    return sum(random.getrandbits(8) * 0x01010101 << (32 * place) for place in range(8))


def twice(random: Random) -> int:
    return sum(random.getrandbits(8) * 0x0101 << (16 * place) for place in range(16))


def of_gmp(size: int, count: int) -> Callable[[Random], Made]:
    """mpz_urandomb of 256 bits, over and over."""

    def make(random: Random) -> Made:
        state, half, numbers = random.getrandbits(size), size // 2, []
        for _ in range(count):
            number = 0
            for place in range(-(-256 // half)):
                state = (GMP_CONGRUENTIAL[size] * state + 1) % (1 << size)
                number |= (state >> half) << (place * half)
            numbers.append(number % (1 << 256))
        return signed(random, numbers)

    return make


def of_java(random: Random) -> int:
    return signing.java_number(random.getrandbits(48))


FAST, STANDARD, DEEP = Profile.FAST, Profile.STANDARD, Profile.DEEP
NONCE = "fleet-signature-nonce"

#: By program.
RULES: dict[str, list[Rule]] = {
    "paranoid_crypto": [
        Rule("CheckSizes", "rsa-key-size", FAST, sized(1024), sized(2048)),
        Rule("CheckSizes", "rsa-key-size", FAST, sized(2047)),
        Rule("CheckExponents", "rsa-invalid-exponent", FAST, with_exponent(1, 65536), with_exponent(3, 17)),
        Rule("CheckROCA", "rsa-roca", FAST, roca, half_roca),
        Rule("CheckROCAVariant", "rsa-roca-variant", FAST, variant(0), variant(1)),
        Rule("CheckFermat", "rsa-close-primes", STANDARD, apart(99_000), apart(140_000)),
        Rule("CheckHighAndLowBitsEqual", "rsa-shared-bits", STANDARD, from_template(1, 512), from_template(250, 250)),
        Rule("CheckHighAndLowBitsEqual", "rsa-shared-bits", STANDARD, from_template(256, 256)),
        Rule("CheckOpensslDenylist", "rsa-debian-openssl", FAST, debian, two_of_debian),
        Rule("CheckContinuedFractions", "rsa-patterned-primes", STANDARD, both_patterned, patterned(512, 100)),
        Rule("CheckBitPatterns", "rsa-patterned-primes", STANDARD, patterned(512, 31, 63), patterned(512, 127)),
        Rule("CheckBitPatterns", "rsa-patterned-primes", STANDARD, patterned(1024, 1, 3, 15, 16, 64, 127, 128)),
        Rule("CheckBitPatterns", "rsa-patterned-primes", DEEP, patterned(2048, 255, 256), slow=True),
        Rule("CheckPermutedBitPatterns", "rsa-patterned-primes", STANDARD, swapped(512, (7, 16))),
        Rule("CheckPermutedBitPatterns", "rsa-patterned-primes", DEEP, swapped(1024, (5, 8), (13, 16), (5, 32), (3, 64))),
        Rule("CheckPollardpm1", "rsa-smooth-prime", DEEP, smooth, hardly_smooth, slow=True),
        Rule("CheckLowHammingWeight", "rsa-patterned-primes", STANDARD, light(24), light(200)),
        Rule("CheckLowHammingWeight", "rsa-patterned-primes", DEEP, light(64), slow=True),
        Rule("CheckLowHammingWeight", "rsa-patterned-primes", DEEP, light_above(48), slow=True),
        Rule("CheckUnseededRand", "rsa-unseeded-prng", FAST, unseeded),
        Rule("CheckUnseededRand", "rsa-unseeded-prng", DEEP, half_unseeded, late_output),
        Rule("CheckSmallUpperDifferences", "rsa-close-primes", STANDARD, at_distance(256, 100), at_distance(345, 100)),
        Rule("CheckSmallUpperDifferences", "rsa-close-primes", DEEP, at_distance(256, 128, 160, 256, 2, 3)),
        Rule("CheckKeypairDenylist", "rsa-keypair-prng", FAST, npm_keypair((), (7,)), npm_keypair((7, 1, 3))),
        Rule("CheckGCD", "fleet-shared-prime", FAST, shared_prime, one_key_twice),
        Rule("CheckGCDN1", "fleet-shared-subprime", DEEP, subprime(512), one_key_twice),
        Rule("CheckGCDN1", "fleet-shared-subprime", DEEP, subprime(128), subprime(60)),
        Rule("CheckValidECKey", "ec-invalid-point", FAST, off_the_curve, sound_points),
        Rule("CheckValidECKey", "ec-invalid-point", DEEP, outside_the_group),
        Rule("CheckWeakCurve", "ec-weak-curve", FAST, lambda _: on("P-192", 3), lambda _: on("P-224", 3)),
        Rule("CheckWeakECPrivateKey", "ec-weak-private-key", DEEP, words_of_32_bits, two_words, slow=True),
        Rule("CheckECKeySmallDifference", "fleet-related-ec-keys", STANDARD, related(1_000), related(5_000)),
        Rule("CheckECKeySmallDifference", "fleet-related-ec-keys", DEEP, related(4_000, 2**24 - 1), related(2**25 + 12_345)),
        Rule("CheckLCGNonceGMP", NONCE, DEEP, of_gmp(64, 3), of_gmp(256, 3), slow=True),
        Rule("CheckLCGNonceGMP", NONCE, DEEP, of_gmp(128, 3), slow=True),
        Rule("CheckLCGNonceJavaUtilRandom", NONCE, DEEP, nonces(of_java, 3), slow=True),
        Rule("CheckNonceMSB", NONCE, DEEP, nonces(lambda one: one.getrandbits(160), 3)),
        Rule("CheckNonceCommonPrefix", NONCE, DEEP, alike(5, 96, 0)),
        Rule("CheckNonceCommonPrefix", NONCE, DEEP, alike(60, 9, 0), slow=True),
        Rule("CheckNonceCommonPostfix", NONCE, DEEP, alike(5, 0, 96)),
        Rule(
            "CheckNonceGeneralized", NONCE, DEEP,
            nonces(lambda one: one.getrandbits(15) << 240 | one.getrandbits(16), 6),
        ),
        Rule("CheckNonceGeneralized", NONCE, DEEP, nonces(four_times, 23)),
        Rule("CheckCr50U2f", NONCE, DEEP, nonces(four_times, 2), nonces(twice, 2), slow=True),
        Rule(
            "CheckCr50U2f", NONCE, DEEP,
            lambda one: signed(one, [four_times(one)], four_times(one)), lambda one: signed(one, [four_times(one)]),
        ),
        Rule("CheckIssuerKey", "ec-weak-private-key", FAST, lambda one: signed(one, [one.getrandbits(250)], 4_711)),
    ],
    "Boulder": [
        Rule("key sizes", "rsa-key-size", FAST, sized(2040), sized(4096)),
        Rule("exponent", "rsa-invalid-exponent", FAST, with_exponent(65536), with_exponent(65539)),
        Rule("small primes", "rsa-small-factor", FAST, lambda one: keys(751 * prime(one, 2038)), sized(2048)),
        Rule("small primes", "rsa-invalid-modulus", FAST, lambda one: keys(2 * prime(one, 2047)), sized(2048)),
        Rule("ROCA", "rsa-roca", FAST, roca, half_roca),
        Rule("Fermat, 110 rounds", "rsa-close-primes", FAST, apart(100)),
        Rule("weak keys of Debian", "rsa-debian-openssl", FAST, debian, two_of_debian),
        Rule("points", "ec-invalid-point", FAST, off_the_curve, sound_points),
        Rule("curves", "ec-weak-curve", FAST, lambda _: on("P-192", 3), lambda _: on("P-521", 3)),
    ],
    "zlint": [
        Rule("e_rsa_mod_less_than_2048_bits", "rsa-key-size", FAST, sized(2047), sized(2048)),
        Rule("w_rsa_mod_not_odd", "rsa-invalid-modulus", FAST, lambda one: keys(2 * prime(one, 2047))),
        Rule("w_rsa_mod_factors_smaller_than_752", "rsa-small-factor", FAST, lambda one: keys(751 * prime(one, 2038))),
        Rule("e_rsa_public_exponent_not_odd", "rsa-invalid-exponent", FAST, with_exponent(65536)),
        Rule("e_rsa_public_exponent_too_small", "rsa-invalid-exponent", FAST, with_exponent(1)),
        Rule("w_rsa_public_exponent_not_in_range", "rsa-invalid-exponent", FAST, with_exponent(2**256 + 1)),
        Rule("e_rsa_fermat_factorization", "rsa-close-primes", FAST, apart(90)),
        Rule("e_dsa_correct_order_in_subgroup", "dsa-invalid-domain", STANDARD, lambda one: dsa_key(one, "order"), dsa_key),
        Rule("e_dsa_unique_correct_representation", "dsa-invalid-domain", FAST, lambda one: dsa_key(one, "range")),
        Rule("e_dsa_shorter_than_2048_bits", "dsa-key-size", FAST, lambda one: dsa_key(one, bits=1024), dsa_key),
        Rule("e_ec_improper_curves", "ec-weak-curve", FAST, lambda _: on("P-192", 3), lambda _: on("P-256", 3)),
    ],
}  # fmt: skip

ALL = [
    pytest.param(rule, id=f"{program}: {rule}, {number}", marks=[pytest.mark.slow] if rule.slow else [])
    for program, rules in RULES.items()
    for number, rule in enumerate(rules)
]


@pytest.mark.parametrize("rule", ALL)
def test_what_a_rule_is_for_is_found(rule: Rule) -> None:
    random = Random(str(rule))
    items = rule.weak(random)
    everything = {0} if rule.check == NONCE else set(range(len(items)))
    assert found(items, rule.check, rule.profile, budget=60) == everything


@pytest.mark.parametrize("rule", [one for one in ALL if one.values[0].beyond is not None])
def test_what_is_just_beyond_is_not_found(rule: Rule) -> None:
    """Not by a scan's own budget of 5 s a key."""
    assert rule.beyond is not None
    assert found(rule.beyond(Random(f"beyond {rule}")), rule.check, rule.profile, DEFAULT_BUDGET) == set()


def rows(heading: str) -> list[list[str]]:
    """The lines of the table below a heading of the document, without the first two."""
    _, _, text = DOCUMENT.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    text = re.split(r"^## ", text, flags=re.MULTILINE)[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def checks_in(cell: str) -> list[str]:
    return re.findall(r"\[([a-z0-9-]+)\]\(checks/\1\.md\)", cell)


@pytest.mark.parametrize("program", RULES)
def test_the_document_says_what_is_tested(program: str) -> None:
    """Rule, what it looks at, our checks, profiles: all rules of ``RULES`` and no others, but for those found nowhere."""
    said = {}
    for rule, _, ours, profiles in rows(program):
        if checks_in(ours):
            listed = profiles.split(", ")
            named = checks_in(ours) if len(checks_in(ours)) > 1 else checks_in(ours) * len(listed)
            said[rule.strip("`")] = list(zip(named, listed, strict=True))
    tested: dict[str, list[tuple[str, str]]] = {}
    for rule in RULES[program]:
        pair = (rule.check, rule.profile.name.lower())
        if pair not in tested.setdefault(rule.rule, []):
            tested[rule.rule].append(pair)
    assert said == tested


def test_the_other_way_round_all_checks_are_there() -> None:
    assert [checks_in(row[0]) for row in rows("The other way round")] == [[one.id] for one in catalogue()]


def test_badkeys_and_roca_detect_find_what_the_document_says() -> None:
    """Where those that are run found a weak vector of a check, the document does not say that they have nothing."""
    counts = PEERS["weak_vectors_found_in_standard"]
    for name, badkeys, _, roca_detect, *_ in rows("The other way round"):
        [one] = checks_in(name)
        if one in counts:
            assert counts[one]["badkeys"] == 0 or badkeys != "no", one
            assert (counts[one]["roca_detect"] > 0) is (roca_detect != "no"), one
