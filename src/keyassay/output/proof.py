"""A proof that a sceptic can repeat: from the certificate to a signature made with the computed private key.

The evidence knows the steps of its own weakness; this module adds the first one (where the public key comes from)
and the last ones: the private key as PEM, its public half beside the certificate's, a signature. Commands need a
shell, openssl, bc and python3, nothing of ours.
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gmpy2
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keyassay.certificates.der import (
    OCTET_STRING,
    SEQUENCE,
    DerError,
    children,
    element,
    expect,
    integer_element,
)
from keyassay.certificates.item import Item, Kind
from keyassay.certificates.public_key import DsaPublicKey, EcPublicKey, OkpPublicKey, PublicKey, RsaPublicKey
from keyassay.checks import check
from keyassay.findings import Classification, EcPrivateKey, Evidence, Finding, Step
from keyassay.keymath.curves import named_curves
from keyassay.output.description import value_text
from keyassay.output.escaping import shell_word, visible
from keyassay.output.values import plain

#: above this, openssl and our own arithmetic take long, and nobody needs to be convinced by a signature
_LARGEST = 8_192
#: below this, the padded digest of a signature does not fit
_SMALLEST = 496


def proof(item: Item, finding: Finding) -> list[Step]:
    """All steps, secrets included."""
    subject: PublicKey | Item = item
    if item.key is not None and check(finding.check).shape != "certificate":
        subject = item.key
    steps = [*_public_key(item), *_evidence(finding.evidence, subject)]
    if finding.classification is Classification.BROKEN and item.key is not None:
        steps += _private_key(item, private_key(item, finding.evidence.secrets()))
    return steps


def _evidence(evidence: Evidence, subject: PublicKey | Item) -> list[Step]:
    """The steps that the evidence tells, or what it holds where it tells none."""
    if type(evidence).steps is not Evidence.steps:
        return evidence.steps(subject)
    fields = {**plain(evidence.describe()), **plain(evidence.secrets())}
    fields.pop("proof", None)
    return [Step(f"{name.replace('_', ' ')}: {value_text(value)}") for name, value in fields.items()]


def _decoded(data: bytes) -> str:
    return f"echo {base64.b64encode(data).decode()} | openssl base64 -d -A"


def _public_key(item: Item) -> list[Step]:
    """Where the public key comes from."""
    if item.spki is None:
        return []
    if not _loads(item.spki):
        start, end = expect(item.spki, 0, len(item.spki), SEQUENCE, "public key")
        inside = f" -strparse {children(item.spki, start, end)[1][1]}" if isinstance(item.key, RsaPublicKey) else ""
        says = "The public key, copied from the input, octet by octet, since openssl refuses to load it"
        return [Step(says, f"{_decoded(item.spki)} | openssl asn1parse -inform DER -i{inside}")]
    reads = _reads_file(item)
    if reads:
        return [Step("The public key is the one in the file", f"{reads} | openssl pkey -pubin -noout -text")]
    copy = f"{_decoded(item.spki)} | openssl pkey -pubin -inform DER -noout -text"
    return [Step("The public key, copied from the input", copy)]


def _loads(spki: bytes) -> bool:
    """Whether a strict library takes the public key."""
    try:
        load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _reads_file(item: Item) -> str:
    """A command that prints the public key in the user's own file as PEM, "" where openssl cannot find it there."""
    words = {Kind.CERTIFICATE: "x509 -noout -pubkey", Kind.REQUEST: "req -noout -pubkey"}
    reads = words.get(item.kind)
    if reads is None or not _at_its_place(item):
        return ""
    path = shell_word(str(Path(item.source).resolve()))
    return f"openssl {reads} -in {path}" if not item.offset else f"tail -c +{item.offset + 1} {path} | openssl {reads}"


def _at_its_place(item: Item) -> bool:
    """Whether the encoding lies in a plain file where the item says, as PEM or DER."""
    try:
        path = Path(item.source)
        if not path.is_file():
            return False
        with path.open("rb") as file:
            file.seek(item.offset)
            start = file.read(11)
    except (OSError, ValueError):
        return False
    der = item.der or b""
    return start == b"-----BEGIN " or (len(der) > 11 and start == der[:11])


def _private_key(item: Item, pkcs8: bytes | None) -> list[Step]:
    """The private key as a file, and two ways to see that it is the right one."""
    if pkcs8 is None or item.spki is None:
        return []
    body = "\n".join(textwrap.wrap(base64.b64encode(pkcs8).decode(), 64))
    reads = _reads_file(item) or f"{_decoded(item.spki)} | openssl pkey -pubin -inform DER"
    # A compressed point becomes a full one, as openssl writes it from the private key.
    form = " -ec_conv_form uncompressed" if isinstance(item.key, EcPublicKey) else ""
    steps = [
        Step(
            "This is the private key",
            f"cat > private.pem << 'END'\n-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\nEND",
        ),
        Step("The public key as a file", f"{reads} | openssl pkey -pubin{form} -out public.pem"),
        Step(
            "The public half of the private key is that public key (prints: the same key)",
            "openssl pkey -in private.pem -pubout | cmp - public.pem && echo the same key",
        ),
    ]
    if isinstance(item.key, RsaPublicKey) and item.key.bits < _SMALLEST:
        return steps
    flags = "-rawin" if isinstance(item.key, OkpPublicKey) else "-rawin -digest sha256"
    return [
        *steps,
        Step(
            "What the private key signs, the public key verifies (prints: Signature Verified Successfully)",
            "echo proof > message && "
            f"openssl pkeyutl -sign {flags} -inkey private.pem -in message -out signature && "
            f"openssl pkeyutl -verify {flags} -pubin -inkey public.pem -in message -sigfile signature",
        ),
    ]


def private_key(item: Item, secrets: Mapping[str, Any]) -> bytes | None:
    """The private key that secrets of a finding lead to, as PKCS #8 (RFC 5208) in DER.

    Returns:
        None if they do not lead to one that fits the item's public key, or if openssl would not take it.
    """
    if item.key is None or item.spki is None:
        return None
    for number in _numbers(secrets):
        try:
            inner = _inner(item.key, number)
            if inner is not None:
                return element(SEQUENCE, integer_element(0), _algorithm(item), element(OCTET_STRING, inner))
        except (ValueError, TypeError, OverflowError, ZeroDivisionError, UnsupportedAlgorithm, DerError):
            continue
    return None


def _algorithm(item: Item) -> bytes:
    """The AlgorithmIdentifier of the public key: that of the private key is the same."""
    assert item.spki is not None
    start, end = expect(item.spki, 0, len(item.spki), SEQUENCE, "public key")
    _, first, _, stop = children(item.spki, start, end)[0]
    return item.spki[first:stop]


def _numbers(value: Any) -> Iterator[int | bytes]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _numbers(one)
    elif isinstance(value, int | bytes) and not isinstance(value, bool):
        yield value


def _inner(key: PublicKey, number: int | bytes) -> bytes | None:
    """What PKCS #8 wraps: the private key in the form of its algorithm, None if the number is not its secret."""
    if isinstance(key, OkpPublicKey):
        return _edwards(key, number)
    if not isinstance(number, int) or number <= 0:
        return None
    if isinstance(key, RsaPublicKey):
        return _rsa(key, number)
    if isinstance(key, EcPublicKey):
        # Whether the number is below the order says the evidence; openssl wants as many octets as the order has.
        if not EcPrivateKey(number).proves(key):
            return None
        size = (named_curves()[key.curve].order.bit_length() + 7) // 8
        return element(SEQUENCE, integer_element(1), element(OCTET_STRING, number.to_bytes(size, "big")))
    if isinstance(key, DsaPublicKey) and key.bits <= _LARGEST and pow(key.g, number, key.p) == key.y:
        return integer_element(number)
    return None


def _edwards(key: OkpPublicKey, seed: int | bytes) -> bytes | None:
    if not isinstance(seed, bytes):
        return None
    made: ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
    if key.type == "ed25519":
        made = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    elif key.type == "ed448":
        made = ed448.Ed448PrivateKey.from_private_bytes(seed)
    else:
        return None
    return element(OCTET_STRING, seed) if made.public_key().public_bytes_raw() == key.encoded else None


def _rsa(key: RsaPublicKey, number: int) -> bytes | None:
    """RSAPrivateKey (RFC 8017, A.1.2) from a prime factor, or from a private exponent."""
    if key.bits > _LARGEST or key.exponent.bit_length() > _LARGEST:
        return None
    if 1 < number < key.modulus and key.modulus % number == 0:
        p, q = number, key.modulus // number
    elif pow(pow(2, key.exponent, key.modulus), number, key.modulus) == 2:
        p, q = rsa.rsa_recover_prime_factors(key.modulus, key.exponent, number)
    else:
        return None
    if p == q or not (gmpy2.is_prime(p) and gmpy2.is_prime(q)):
        return None
    d = pow(key.exponent, -1, (p - 1) * (q - 1))
    numbers = (0, key.modulus, key.exponent, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    return element(SEQUENCE, *(integer_element(one) for one in numbers))


def text(steps: list[Step]) -> Iterator[str]:
    """The steps as lines; commands are ready to paste, those of several lines too."""
    for number, step in enumerate(steps, 1):
        yield f"  {number}. {visible(step.says)}"
        if step.command:
            yield f"     $ {step.command}"
