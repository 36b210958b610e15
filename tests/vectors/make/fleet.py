"""Makes the vectors of the fleet checks about shared primes and repeated keys; the same every time.

Run from the root of a checkout: PYTHONPATH=tests .venv/bin/python tests/vectors/make/fleet.py
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import gmpy2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from issuing import certificate, sound_key, spki_of

FOLDER = Path(__file__).parent.parent / "checks"
RANDOM = Random(6_421)


def prime(bits: int) -> int:
    """A random prime with its two top bits set."""
    return int(gmpy2.next_prime(RANDOM.getrandbits(bits) | 3 << (bits - 2)))


def case(name: str, verdict: str, items: list[str], weak: list[int] | None = None, **more: object) -> str:
    lines = ["[[case]]", f'name = "{name}"', f'verdict = "{verdict}"']
    private = more.pop("private", None)
    lines += [f'{key} = "{value}"' for key, value in more.items()]
    if weak is not None:
        lines.append(f"weak = {weak}")
    lines.append("items = [\n" + "".join(f"  {item},\n" for item in items) + "]")
    if private:
        p, q = private
        lines.append(f'private = {{ p = "{p:x}", q = "{q:x}" }}')
    return "\n".join(lines) + "\n"


def rsa(modulus: int, exponent: int = 65537) -> str:
    return f'{{ key = {{ type = "rsa", modulus = "{modulus:x}", exponent = {exponent} }} }}'


def pem(label: str, der: bytes) -> str:
    text = base64.b64encode(der).decode()
    return f'{{ pem = "-----BEGIN {label}-----\\n{text}\\n-----END {label}-----\\n" }}'


def write(check: str, how: str, *cases: str) -> None:
    text = f'provenance = "{how}, by tests/vectors/make/fleet.py"\n\n' + "\n".join(cases)
    (FOLDER / f"{check}.toml").write_text(text)


def shared_prime() -> None:
    p, q, r, s, t, u, v = (prime(512) for _ in range(7))
    short = prime(25)
    long = prime(1024)
    ring = [prime(256) for _ in range(12)]
    broken = {"profile": "fast", "classification": "broken", "confidence": "proven"}
    others = [rsa(prime(512) * prime(512)) for _ in range(3)]
    write(
        "fleet-shared-prime",
        "Products of random primes",
        case("a pair among others", "weak", [rsa(p * q), *others, rsa(p * r)], [0, 4], private=(p, q), **broken),
        case("a triangle", "weak", [rsa(p * q), rsa(q * r), rsa(r * p)], private=(p, q), **broken),
        case(
            "a ring of twelve",
            "weak",
            [rsa(ring[i] * ring[(i + 1) % 12]) for i in range(12)],
            private=(ring[0], ring[1]),
            **broken,
        ),
        case("one prime in five keys", "weak", [rsa(p * other) for other in (q, r, s, t, u)], **broken),
        case("sizes of 1024 and 1536 bits", "weak", [rsa(p * q), rsa(p * long)], private=(p, q), **broken),
        case("one of the two keys three times", "weak", [rsa(p * q), rsa(p * q), rsa(p * r), rsa(p * q, 3)], **broken),
        case("a modulus that divides another one", "weak", [rsa(p * q), rsa(p * q * r)], [1], **broken),
        case(
            "a modulus that divides another one, split by a third",
            "weak",
            [rsa(p * q), rsa(p * q * r), rsa(q * s)],
            **broken,
        ),
        case("a short common factor", "weak", [rsa(short * long), rsa(short * q * r)], **broken),
        case(
            "3 in all, and a prime in two", "weak", [rsa(3 * p * q), rsa(3 * p * r), rsa(3 * s * t)], [0, 1], **broken
        ),
        case("the same modulus twice", "near-miss", [rsa(p * q), rsa(p * q), rsa(r * s)]),
        case("the same modulus with two exponents", "near-miss", [rsa(p * q), rsa(p * q, 3)]),
        case(
            "only small primes in common",
            "near-miss",
            [rsa(3 * p * q), rsa(3 * r * s), rsa(15 * t * u), rsa(6 * v * long)],
        ),
        case("a single key", "healthy", [rsa(p * q)]),
        case("keys of their own", "healthy", [rsa(p * q), rsa(r * s), rsa(t * u), *others]),
    )


def request(private: ec.EllipticCurvePrivateKey, common_name: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(private, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)


def repeated_key() -> None:
    one, other = sound_key(1), sound_key(2)
    first, second = spki_of(one), spki_of(other)

    def cert(spki: bytes, name: str, serial: int = 1, year: int = 2026) -> str:
        return pem("CERTIFICATE", certificate(spki, name, serial, not_before=datetime(year, 1, 1, tzinfo=UTC)))

    bare = pem("PUBLIC KEY", one.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    weak = {"profile": "fast", "classification": "weak", "confidence": "proven"}
    write(
        "fleet-repeated-key",
        "Certificates and requests for two P-256 keys",
        case("two devices", "weak", [cert(first, "a"), cert(second, "x", 2), cert(first, "b", 3)], [0, 2], **weak),
        case("nine devices", "weak", [cert(first, f"device-{n}", n) for n in range(1, 10)], **weak),
        case("one of the two twice", "weak", [cert(first, "a"), cert(first, "a"), cert(first, "b", 3)], **weak),
        case(
            "one of the two renewed", "weak", [cert(first, "a"), cert(first, "a", 2, 2027), cert(first, "b", 3)], **weak
        ),
        case(
            "requests of two devices", "weak", [pem("CERTIFICATE REQUEST", request(one, name)) for name in "ab"], **weak
        ),
        case(
            "renewed",
            "weak",
            [cert(first, "a"), cert(first, "a", 2, 2027), cert(second, "x", 3)],
            [0, 1],
            profile="fast",
            classification="notice",
            confidence="proven",
        ),
        case("the same certificate twice", "near-miss", [cert(first, "a"), cert(first, "a")]),
        case(
            "a request and its certificate",
            "near-miss",
            [pem("CERTIFICATE REQUEST", request(one, "a")), cert(first, "b")],
        ),
        case("a key file beside its certificate", "near-miss", [bare, cert(first, "a"), bare]),
        case("one subject with two keys", "near-miss", [cert(first, "a"), cert(second, "a")]),
        case("keys of their own", "healthy", [cert(first, "a"), cert(second, "b")]),
    )


if __name__ == "__main__":
    shared_prime()
    repeated_key()
