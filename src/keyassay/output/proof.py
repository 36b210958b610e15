"""A proof that a sceptic can repeat: from the certificate to a signature made with the computed private key.

The evidence knows the steps of its own weakness; this module adds the first one (where the public key comes from)
and the last one (the private key as a file that openssl uses). Commands need openssl, bc and a shell, nothing of ours.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gmpy2
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyassay.certificates.item import Item, Kind
from keyassay.certificates.public_key import DsaPublicKey, EcPublicKey, OkpPublicKey, PublicKey, RsaPublicKey
from keyassay.checks import check
from keyassay.findings import Classification, Finding, Step
from keyassay.output.escaping import shell_word, visible

#: above this, openssl and our own arithmetic take long, and nobody needs to be convinced by a signature
_LARGEST = 8_192

_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "P-192": ec.SECP192R1,
    "P-224": ec.SECP224R1,
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
    "secp256k1": ec.SECP256K1,
    "brainpoolP256r1": ec.BrainpoolP256R1,
    "brainpoolP384r1": ec.BrainpoolP384R1,
    "brainpoolP512r1": ec.BrainpoolP512R1,
}


def proof(item: Item, finding: Finding) -> list[Step]:
    """All steps, secrets included."""
    subject: PublicKey | Item = item
    if item.key is not None and check(finding.check).shape != "certificate":
        subject = item.key
    steps = [*_public_key(item), *finding.evidence.steps(subject)]
    if finding.classification is Classification.BROKEN and item.key is not None:
        steps += _private_key(item, private_key(item.key, finding.evidence.secrets()))
    return steps


def _decoded(data: bytes) -> str:
    return f"echo {base64.b64encode(data).decode()} | openssl base64 -d -A"


def _public_key(item: Item) -> list[Step]:
    """Where the public key comes from: a command that reads the user's own file if one can, else a copy of it."""
    if item.spki is None:
        return []
    words = {Kind.CERTIFICATE: "x509 -noout -pubkey", Kind.REQUEST: "req -noout -pubkey"}
    reads = words.get(item.kind)
    start = _encoding_at(item)
    if reads and start is not None:
        path = shell_word(str(Path(item.source).resolve()))
        from_file = (
            f"openssl {reads} -in {path}" if not item.offset else f"tail -c +{item.offset + 1} {path} | openssl {reads}"
        )
        says = "The public key is the one in the file"
        return [Step(says, f"{from_file} | openssl pkey -pubin -noout -text")]
    copy = f"{_decoded(item.spki)} | openssl pkey -pubin -inform DER -noout -text"
    return [Step("The public key, copied from the input", copy)]


def _encoding_at(item: Item) -> bytes | None:
    """First bytes of the item's encoding in its file, None where openssl could not read it there."""
    try:
        path = Path(item.source)
        if not path.is_file():
            return None
        with path.open("rb") as file:
            file.seek(item.offset)
            start = file.read(11)
    except (OSError, ValueError):
        return None
    der = item.der or b""
    return start if start == b"-----BEGIN " or (len(der) > 11 and start == der[:11]) else None


def _private_key(item: Item, pkcs8: bytes | None) -> list[Step]:
    if pkcs8 is None or item.spki is None:
        return []
    flags = "-rawin" if isinstance(item.key, OkpPublicKey) else "-rawin -digest sha256"
    return [
        Step("The private key as a file", f"{_decoded(pkcs8)} | openssl pkey -inform DER -out private.pem"),
        Step("The public key as a file", f"{_decoded(item.spki)} | openssl pkey -pubin -inform DER -out public.pem"),
        Step(
            "What the private key signs, the public key verifies (prints: Signature Verified Successfully)",
            "echo proof > message && "
            f"openssl pkeyutl -sign {flags} -inkey private.pem -in message -out signature && "
            f"openssl pkeyutl -verify {flags} -pubin -inkey public.pem -in message -sigfile signature",
        ),
    ]


def private_key(key: PublicKey, secrets: Mapping[str, Any]) -> bytes | None:
    """The private key that secrets of a finding lead to, as PKCS #8 in DER.

    Returns:
        None if they do not lead to one that fits the public key, or if openssl would not take it.
    """
    for number in _numbers(secrets):
        try:
            found = _from_number(key, number)
        except (ValueError, TypeError, OverflowError, ZeroDivisionError, UnsupportedAlgorithm):
            continue
        if found is not None:
            return found.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return None


def _numbers(value: Any) -> Iterator[int | bytes]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _numbers(one)
    elif isinstance(value, int | bytes) and not isinstance(value, bool):
        yield value


_Private = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | dsa.DSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)


def _from_number(key: PublicKey, number: int | bytes) -> _Private | None:
    if isinstance(key, OkpPublicKey):
        return _edwards(key, number)
    if not isinstance(number, int) or number <= 0:
        return None
    if isinstance(key, RsaPublicKey):
        return _rsa(key, number)
    if isinstance(key, EcPublicKey) and key.curve in _CURVES:
        made = ec.derive_private_key(number, _CURVES[key.curve]())
        public = ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[key.curve](), key.point)
        return made if made.public_key() == public else None
    if isinstance(key, DsaPublicKey) and key.bits <= _LARGEST and pow(key.g, number, key.p) == key.y:
        parameters = dsa.DSAParameterNumbers(key.p, key.q, key.g)
        return dsa.DSAPrivateNumbers(number, dsa.DSAPublicNumbers(key.y, parameters)).private_key()
    return None


def _edwards(key: OkpPublicKey, seed: int | bytes) -> _Private | None:
    if not isinstance(seed, bytes):
        return None
    made: ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
    if key.type == "ed25519":
        made = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    elif key.type == "ed448":
        made = ed448.Ed448PrivateKey.from_private_bytes(seed)
    else:
        return None
    return made if made.public_key().public_bytes_raw() == key.encoded else None


def _rsa(key: RsaPublicKey, number: int) -> _Private | None:
    """From a prime factor, or from a private exponent."""
    if key.bits > _LARGEST or key.exponent.bit_length() > _LARGEST:
        return None
    if 1 < number < key.modulus and key.modulus % number == 0:
        p, q = number, key.modulus // number
    elif pow(pow(2, key.exponent, key.modulus), number, key.modulus) == 2:
        p, q = rsa.rsa_recover_prime_factors(key.modulus, key.exponent, number)
    else:
        return None
    if not (gmpy2.is_prime(p) and gmpy2.is_prime(q)):
        return None
    d = pow(key.exponent, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(key.exponent, key.modulus)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    return numbers.private_key()


def text(steps: list[Step]) -> Iterator[str]:
    """The steps as lines, commands ready to paste."""
    for number, step in enumerate(steps, 1):
        yield f"  {number}. {visible(step.says)}"
        if step.command:
            yield f"     $ {step.command}"
