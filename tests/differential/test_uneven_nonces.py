"""A second opinion on nonces that are not uniform: OpenSSL's keys and signatures, and Python's own arithmetic.

The private keys that lattices gave are the issuers' own, every nonce computed from them makes its signature, and has
the flaw that the finding names. Certificates that OpenSSL signed have none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import combinations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyassay.bulk.deep import examine_deeply
from keyassay.bulk.fleet import fleet_of
from keyassay.certificates.decoding import decode, item_of_key
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import EcPublicKey
from keyassay.certificates.reading import ReadOptions, read_bytes
from keyassay.checks import Context, check
from keyassay.findings import Profile
from vectors_of_checks import cases_of

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # P-256, SEC 2

DEEP = [case for case in cases_of("fleet-signature-nonce") if case.verdict == "weak" and case.profile is Profile.DEEP]
ON_P256 = [case for case in DEEP if not case.name.startswith(("DSA", "Ed25519"))]


def java(k: int) -> bool:
    """Whether a state of java.util.Random gives the number: the 16 low bits tried, by the definition."""
    words = [int.from_bytes(k.to_bytes(32, "big")[4 * i : 4 * i + 4], "little") for i in range(8)]
    for low in range(1 << 16):
        state = words[0] << 16 | low
        for word in words[1:]:
            state = (state * 0x5DEECE66D + 0xB) & 0xFFFFFFFFFFFF
            if state >> 16 != word:
                break
        else:
            return True
    return False


def close(most: int) -> Callable[[list[int]], bool]:
    def holds(nonces: list[int]) -> bool:
        return any(
            min((a - sign * b) % ORDER, (sign * b - a) % ORDER) <= most
            for a, b in combinations(nonces, 2)
            for sign in (1, -1)
        )

    return holds


def few(bits: int, count: int) -> Callable[[list[int]], bool]:
    return lambda nonces: sum(min(k, ORDER - k).bit_length() <= bits for k in nonces) >= count


#: what the vectors' names say, as a test of all nonces
FLAWS: dict[str, Callable[[list[int]], bool]] = {
    "four nonces of 128 bits": few(128, 4),
    "seventeen nonces of 240 bits": few(240, 17),
    "forty nonces of 246 bits": few(246, 40),
    "nonces of 128 bits and their negatives": few(128, 5),
    "four nonces of 100 bits among others": few(100, 4),
    "five nonces that begin alike": lambda nonces: len({k >> 159 for k in nonces}) == 1,
    "five nonces that end alike": lambda nonces: len({k % 2**96 for k in nonces}) == 1,
    "each byte four times": lambda nonces: (
        sum(all(len(set(k.to_bytes(32, "big")[i : i + 4])) == 1 for i in range(0, 32, 4)) for k in nonces) == 2
    ),
    "numbers of java.util.Random": lambda nonces: sum(map(java, nonces)) == 2,
    "a key and a nonce of java.util.Random": lambda nonces: all(map(java, nonces)),
    "nonces whose middle is fixed": lambda nonces: len({k >> 88 & (2**80 - 1) for k in nonces}) == 1,
    "two nonces 60,000 apart": close(60_000),
    "two nonces whose sum is 5,000": close(5_000),
    "four nonces of 128 bits, the issuer is not there": few(128, 4),
}


def nonce(certificate: x509.Certificate, d: int) -> int:
    """K = (z + r d)/s."""
    r, s = decode_dss_signature(certificate.signature)
    z = int.from_bytes(hashlib.sha256(certificate.tbs_certificate_bytes).digest(), "big")
    return (z + r * d) * pow(s, -1, ORDER) % ORDER


def test_every_flaw_has_its_vector() -> None:
    assert {case.name for case in ON_P256} == set(FLAWS)


@pytest.mark.slow
@pytest.mark.parametrize("case", ON_P256, ids=lambda case: case.name)
def test_the_private_key_is_openssls_and_the_nonces_are_flawed(case: object) -> None:
    (case,) = (one for one in ON_P256 if one is case)
    found = dict(check(case.check).find(fleet_of(case.items), Context(profile=Profile.DEEP)))
    assert set(found) == set(case.weak)
    secrets = found[min(case.weak)].evidence.secrets()
    d = secrets.get("d", secrets.get("issuer_private_key"))
    assert isinstance(d, int)
    private = ec.derive_private_key(d, ec.SECP256R1())
    nonces = []
    for item in case.items:
        certificate = x509.load_der_x509_certificate(item.der or b"")
        private.public_key().verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
        k = nonce(certificate, d)
        r, _ = decode_dss_signature(certificate.signature)
        assert ec.derive_private_key(k, ec.SECP256R1()).public_key().public_numbers().x % ORDER == r
        nonces.append(k)
    if case.name == "a key and a nonce of java.util.Random":
        nonces.append(d)
    assert FLAWS[case.name](nonces)


def issued(count: int, curve: ec.EllipticCurve) -> list[Item]:
    """An authority and certificates that OpenSSL signed."""
    key, device = ec.generate_private_key(curve), ec.generate_private_key(ec.SECP256R1()).public_key()
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"CA {curve.name}")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    octets = b""
    for number in range(count):
        subject = issuer if not number else x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{number}")])
        made = (
            x509.CertificateBuilder(issuer, subject, device if number else key.public_key(), number + 1)
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=900))
            .sign(key, hashes.SHA256())
        )
        octets += made.public_bytes(Encoding.PEM)
    return decode([raw for block in read_bytes(octets, ReadOptions()) for raw in block])


@pytest.mark.slow
@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda curve: curve.name)
def test_what_openssl_signs_has_no_finding(curve: ec.EllipticCurve) -> None:
    context = Context(profile=Profile.DEEP)
    assert list(check("fleet-signature-nonce").find(fleet_of(issued(45, curve)), context)) == []
    # without the authority's own certificate, too
    assert list(check("fleet-signature-nonce").find(fleet_of(issued(25, curve)[1:]), context)) == []


@pytest.mark.slow
def test_sound_keys_of_curves_have_no_finding_in_deep() -> None:
    context = Context(profile=Profile.DEEP)
    keys = [
        EcPublicKey(
            name,
            ec.generate_private_key(curve).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        )
        for name, curve in (("P-256", ec.SECP256R1()), ("P-384", ec.SECP384R1()))
        for _ in range(60)
    ]
    assert list(check("fleet-related-ec-keys").find(fleet_of([item_of_key(key) for key in keys]), context)) == []
    for key in keys[::40]:
        findings, _ = examine_deeply(key, [check("ec-weak-private-key")], context, 2.0)
        assert findings == []
