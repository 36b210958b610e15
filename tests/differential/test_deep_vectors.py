"""Second opinions on the rest of what profile deep is to find: OpenSSL, sympy, the C library, and Python's own integers.

What makes each vector weak is stated anew, and verified without keyassay's mathematics. The last test counts that no
vector of profile deep is left without a second opinion, here or in the files that it names.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from functools import cache
from math import isqrt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sympy import isprime

from keyassay.bulk.fleet import fleet_of
from keyassay.certificates.public_key import DsaPublicKey, EcPublicKey, OkpPublicKey, PublicKey, RsaPublicKey
from keyassay.checks import Context, check
from keyassay.findings import Profile
from vectors.make import weak_seeds
from vectors_of_checks import Case, cases, cases_of

CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}

#: Where the other vectors of profile deep have theirs.
ELSEWHERE = {
    "rsa-smooth-prime": "test_deep_factors.py",
    "rsa-small-factor": "test_deep_factors.py",
    "rsa-small-private-exponent": "test_small_exponents.py",
    "fleet-shared-subprime": "test_known_parts.py",
    "rsa-patterned-primes": "test_known_parts.py",
    "rsa-unseeded-prng": "test_unseeded_primes.py",
    "fleet-signature-nonce": "test_uneven_nonces.py",
}
RUN = "rsa-patterned-primes: one prime of 1024 bits is a run of ones over 240 random bits"
LIGHT = "rsa-patterned-primes: 24 ones of 384 bits over 128 random ones"
NOT_ON_CURVES = (
    "fleet-signature-nonce: DSA: four nonces of 128 bits",
    "fleet-signature-nonce: Ed25519: four nonces of 128 bits",
)


def deep(check_id: str) -> list[Case]:
    return [case for case in cases_of(check_id) if case.verdict == "weak" and case.profile is Profile.DEEP]


def named(name: str) -> Case:
    [case] = [case for case in cases() if str(case) == name]
    return case


def key_of(case: Case, place: int = 0) -> PublicKey:
    key = case.items[place].key
    assert key is not None
    return key


def number_in(text: str) -> int:
    """ "3,141,592,653" or "1,000 * 2^128"."""
    factor, _, power = text.partition(" * 2^")
    return int(factor.replace(",", "")) << int(power or 0)


# RSA


def factors(case: Case) -> tuple[int, int, int]:
    """(N, p, q) with p > q, both prime by sympy."""
    key = key_of(case)
    assert isinstance(key, RsaPublicKey)
    q, p = sorted((case.private["p"], case.private["q"]))
    assert p * q == key.modulus
    assert isprime(p)
    assert isprime(q)
    return key.modulus, p, q


@pytest.mark.parametrize("case", deep("rsa-close-primes"), ids=str)
def test_primes_are_as_close_as_the_name_says(case: Case) -> None:
    n, p, q = factors(case)
    if rounds := re.search(r"about (\d+) rounds", case.name):
        assert abs((p + q) // 2 - isqrt(n) - int(rounds[1])) < 64
    elif ratio := re.search(r"ratio (\d+)/(\d+)(?:.* ([\d.]+) fourth roots)?", case.name):
        a, b, roots = int(ratio[1]), int(ratio[2]), float(ratio[3] or 0)
        apart = abs(a * q - b * p)
        # in units of the fourth root of abN; a search for a prime adds nothing that shows
        assert abs((apart << 20) // isqrt(isqrt(a * b * n)) / 2**20 - roots) < 0.01
    else:
        size, k, bits = re.search(r"2\^\((\d+)-(\d+)\)(?: and (\d+) bits)?", case.name).groups()  # type: ignore[union-attr]
        rest = p - q - (1 << (int(size) - int(k)))
        assert rest.bit_length() == int(bits) if bits else 0 <= rest < 1 << 15


def test_a_modulus_that_is_a_prime_is_one() -> None:
    [case] = deep("rsa-invalid-modulus")
    key = key_of(case)
    assert isinstance(key, RsaPublicKey)
    assert isprime(key.modulus)


def test_a_run_of_ones_is_one() -> None:
    _, p, q = factors(named(RUN))
    assert any(set(format(one, "b")[:-240]) == {"1"} for one in (p, q))


def test_light_upper_bits_are_light() -> None:
    _, p, q = factors(named(LIGHT))
    assert (p >> 128).bit_count() == (q >> 128).bit_count() == 24


@pytest.mark.parametrize("case", [case for case in cases_of("rsa-roca") if case.verdict == "weak"], ids=str)
def test_primes_of_rsalib_are_powers_of_65537(case: Case) -> None:
    """Modulo every prime that the name counts, by listing the powers: what the attack on 512 bits stands on."""
    _, p, q = factors(case)
    if count := re.search(r"(\d+) primes in M", case.name):
        small = [number for number in range(2, 1_500) if isprime(number)][: int(count[1])]
        for prime in small:
            powers = {pow(65537, exponent, prime) for exponent in range(prime)}
            assert {p % prime, q % prime} <= powers


def test_weak_seeds_are_made_again_by_the_c_library_python_and_definitions() -> None:
    """Byte for byte, by code that shares nothing with the check's."""
    assert weak_seeds.text() == weak_seeds.FILE.read_text()
    assert all(isprime(number) for number in weak_seeds.JAVA)


# Curves in plain Python, with OpenSSL's parameters

Point = tuple[int, int] | None


@cache
def parameters(name: str) -> dict[str, int]:
    """p, a, b and order, as openssl prints them."""
    text = subprocess.run(
        ["openssl", "ecparam", "-name", name, "-param_enc", "explicit", "-text", "-noout"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = re.findall(r"^(Prime|A|B|Order):\s*\n((?:    .*\n)+)", text, re.MULTILINE)
    return {title: int(re.sub(r"[\s:]", "", value), 16) for title, value in found}


def plus(one: Point, other: Point, curve: dict[str, int]) -> Point:
    p = curve["Prime"]
    if one is None or other is None:
        return one or other
    if one[0] == other[0] and (one[1] + other[1]) % p == 0:
        return None
    if one == other:
        slope = (3 * one[0] ** 2 + curve["A"]) * pow(2 * one[1], -1, p)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, p)
    x = (slope * slope - one[0] - other[0]) % p
    return x, (slope * (one[0] - x) - one[1]) % p


def times(number: int, point: Point, curve: dict[str, int]) -> Point:
    result: Point = None
    while number:
        if number & 1:
            result = plus(result, point, curve)
        point, number = plus(point, point, curve), number >> 1
    return result


def point_of(key: PublicKey, curve: dict[str, int]) -> tuple[int, int]:
    """Coordinates, of compressed points by Tonelli's root for p = 3 modulo 4."""
    assert isinstance(key, EcPublicKey)
    size = (curve["Prime"].bit_length() + 7) // 8
    x = int.from_bytes(key.point[1 : 1 + size], "big")
    if key.point[0] == 4:
        return x, int.from_bytes(key.point[1 + size :], "big")
    p = curve["Prime"]
    y = pow(x**3 + curve["A"] * x + curve["B"], (p + 1) // 4, p)
    return x, y if y % 2 == key.point[0] % 2 else p - y


def of_openssl(name: str, d: int) -> bytes:
    private = ec.derive_private_key(d, CURVES[name])
    return private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@pytest.mark.parametrize("case", deep("ec-weak-private-key"), ids=str)
def test_private_numbers_are_openssls_and_of_their_form(case: Case) -> None:
    name, _, form = case.name.partition(": ")
    d, key = case.private["d"], key_of(case)
    assert isinstance(key, EcPublicKey)
    assert of_openssl(name, d) == key.point
    order = parameters({"P-256": "prime256v1", "P-384": "secp384r1"}[name])["Order"]
    if number := re.search(r"(order less )?([\d,]{9,})", form):
        assert d == (order - number_in(number[2]) if number[1] else number_in(number[2]))
    else:
        words = {d >> (32 * place) & 0xFFFFFFFF for place in range(8)}
        assert len(words) == 1 if "repeated" in form else len(f"{d:b}".strip("0")) <= 32


@pytest.mark.parametrize("case", deep("fleet-related-ec-keys"), ids=str)
def test_points_are_as_far_apart_as_the_name_says(case: Case) -> None:
    """Q2 - Q1, or Q2 + Q1, is the difference times the base point, which OpenSSL multiplies."""
    name, negated, far = re.fullmatch(r"(P-\d+): (negated and )?(.*) apart", case.name).groups()  # type: ignore[union-attr]
    curve = parameters({"P-256": "prime256v1", "P-384": "secp384r1"}[name])
    one, two = (point_of(key_of(case, place), curve) for place in sorted(case.weak))
    difference = plus(two, one if negated else (one[0], -one[1] % curve["Prime"]), curve)
    assert difference is not None
    size = (curve["Prime"].bit_length() + 7) // 8
    assert b"\4" + b"".join(one.to_bytes(size, "big") for one in difference) == of_openssl(name, number_in(far))


def cofactor_four(key: PublicKey) -> bool:
    """On the curve, and the order times the point is not the neutral one."""
    curve = parameters("secp112r2")
    x, y = point_of(key, curve)
    on = (y * y - x**3 - curve["A"] * x - curve["B"]) % curve["Prime"] == 0
    return on and times(curve["Order"], (x, y), curve) is not None


def order_two(key: PublicKey) -> bool:
    """On y^2 + xy = x^3 + 1 (sect283k1), x = 0: its own negative (x, x + y)."""
    assert isinstance(key, EcPublicKey)
    return key.curve == "sect283k1" and int.from_bytes(key.point[1:], "big") == 1


ED_P = 2**255 - 19
ED_ORDER = 2**252 + 27742317777372353535851937790883648493
ED_D = -121665 * pow(121666, -1, ED_P) % ED_P
ED_BASE_Y = 4 * pow(5, -1, ED_P) % ED_P


def ed_point(y: int, sign: int) -> tuple[int, int]:
    """RFC 8032, 5.1.3."""
    square = (y * y - 1) * pow(ED_D * y * y + 1, -1, ED_P) % ED_P
    x = pow(square, (ED_P + 3) // 8, ED_P)
    if (x * x - square) % ED_P:
        x = x * pow(2, (ED_P - 1) // 4, ED_P) % ED_P
    assert (x * x - square) % ED_P == 0
    return (x if x % 2 == sign else ED_P - x), y


def ed_times(number: int, point: tuple[int, int]) -> tuple[int, int]:
    """The complete law of addition, as RFC 8032 writes it."""
    result = (0, 1)
    while number:
        if number & 1:
            result = _ed_plus(result, point)
        point, number = _ed_plus(point, point), number >> 1
    return result


def _ed_plus(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    product = ED_D * one[0] * other[0] * one[1] * other[1]
    x = (one[0] * other[1] + other[0] * one[1]) * pow(1 + product, -1, ED_P)
    return x % ED_P, (one[1] * other[1] + one[0] * other[0]) * pow(1 - product, -1, ED_P) % ED_P


def ed_decoded(octets: bytes) -> tuple[int, int]:
    number = int.from_bytes(octets, "little")
    return ed_point(number % 2**255, number >> 255)


def torsion(key: PublicKey) -> bool:
    """The order times the point is not the neutral one, eight times that is."""
    assert isinstance(key, OkpPublicKey)
    left = ed_times(ED_ORDER, ed_decoded(key.encoded))
    return left != (0, 1) and ed_times(8, left) == (0, 1)


OUTSIDE = {
    "binary, a point of order 2": order_two,
    "cofactor 4, outside the group": cofactor_four,
    "the same, compressed": cofactor_four,
    "Ed25519 and a point of order 8": torsion,
}


@pytest.mark.parametrize("case", deep("ec-invalid-point"), ids=str)
def test_points_are_outside_of_the_group(case: Case) -> None:
    assert OUTSIDE[case.name](key_of(case))


# DSA, and nonces


@pytest.mark.parametrize("case", deep("dsa-weak-private-key"), ids=str)
def test_private_values_of_dsa_sign_by_openssl(case: Case) -> None:
    key, x = key_of(case), case.private["x"]
    assert isinstance(key, DsaPublicKey)
    less, number = re.fullmatch(r"x is (q - )?(.*)", case.name).groups()  # type: ignore[union-attr]
    assert x == (key.q - number_in(number) if less else number_in(number))
    public = dsa.DSAPublicNumbers(key.y, dsa.DSAParameterNumbers(key.p, key.q, key.g))
    signature = dsa.DSAPrivateNumbers(x, public).private_key().sign(b"device", hashes.SHA256())
    public.public_key().verify(signature, b"device", hashes.SHA256())


def private_number(case: Case) -> int:
    """What the lattice gave."""
    verdicts = dict(check(case.check).find(fleet_of(list(case.items)), Context(profile=Profile.DEEP)))
    assert set(verdicts) == set(case.weak)
    [number] = {
        value
        for verdict in verdicts.values()
        for name, value in verdict.evidence.secrets().items()
        if name in {"d", "x", "scalar", "a", "private_key", "issuer_private_key"} and isinstance(value, int)
    }
    return number


@pytest.mark.slow
def test_nonces_of_dsa_are_short() -> None:
    case = named(NOT_ON_CURVES[0])
    x, key = private_number(case), key_of(case)
    assert isinstance(key, DsaPublicKey)
    assert pow(key.g, x, key.p) == key.y
    public = dsa.DSAPublicNumbers(key.y, dsa.DSAParameterNumbers(key.p, key.q, key.g)).public_key()
    for item in case.items:
        certificate = x509.load_der_x509_certificate(item.der or b"")
        public.verify(certificate.signature, certificate.tbs_certificate_bytes, hashes.SHA256())
        r, s = decode_dss_signature(certificate.signature)
        z = int.from_bytes(hashlib.sha256(certificate.tbs_certificate_bytes).digest(), "big")
        k = (z + r * x) * pow(s, -1, key.q) % key.q
        assert k.bit_length() <= 128
        assert pow(key.g, k, key.p) % key.q == r


@pytest.mark.slow
def test_nonces_of_ed25519_are_short() -> None:
    case = named(NOT_ON_CURVES[1])
    a, key = private_number(case), key_of(case)
    assert isinstance(key, OkpPublicKey)
    base = ed_point(ED_BASE_Y, 0)
    assert ed_times(a, base) == ed_decoded(key.encoded)
    for item in case.items:
        certificate = x509.load_der_x509_certificate(item.der or b"")
        signed = certificate.tbs_certificate_bytes
        certificate.public_key().verify(certificate.signature, signed)  # type: ignore[union-attr,call-arg]
        r, s = certificate.signature[:32], int.from_bytes(certificate.signature[32:], "little")
        h = int.from_bytes(hashlib.sha512(r + key.encoded + signed).digest(), "little")
        k = (s - h * a) % ED_ORDER
        assert k.bit_length() <= 128
        assert ed_times(k, base) == ed_decoded(r)


def test_no_vector_of_profile_deep_is_without_a_second_opinion() -> None:
    here = {
        "rsa-close-primes", "rsa-invalid-modulus", "rsa-weak-seed", "ec-weak-private-key", "ec-invalid-point",
        "fleet-related-ec-keys", "dsa-weak-private-key",
    }  # fmt: skip
    assert {check_id for check_id in {case.check for case in cases()} if deep(check_id)} == here | set(ELSEWHERE)
    for check_id, name in ELSEWHERE.items():
        assert f'cases_of("{check_id}")' in Path(__file__).with_name(name).read_text()
    assert set(OUTSIDE) == {case.name for case in deep("ec-invalid-point")}
    left = [case for case in deep("rsa-patterned-primes") if not re.search("free bits|ones of 512", case.name)]
    assert [str(case) for case in left] == [RUN, LIGHT]
