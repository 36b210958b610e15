"""A key whose private half is published, or known to the user.

Weakness: keys printed in RFCs, shipped in software as test keys or in firmware are in everybody's hands. They get into
products with copied examples, configurations and images, and keep working there.

Method: SHA-256 of what a key is recognised by (modulus, padded x coordinate, raw octets, y) is looked up whole in
sorted lists. Built in are the private keys that RFCs print: numbers in their text (up to RFC 9339, RFC 9421 and 9500)
whose public half stands there too; `keyassay lists verify --key published-rfc` makes each again. `keyassay lists add
FOLDER` makes lists of private keys of the user's, by hash only; with `--with-primes` their primes are kept too and
tried on all moduli, in groups.

Cost: 1 us a key. Kept primes of 1024 bits, tried on keys of 2048 in batches: 18 us a key for a hundred of them, 50 us
for a thousand, 0.3 ms for ten thousand.

Profiles: fast does all of it.

Mistakes: none for keys of RFCs and for kept primes: the private number makes the key again. A key in a list of hashes
agrees in 256 bits with one that the user called known, by chance below 2^-190 for a list of any size.

Blind spots: published keys that no list has. Keys on curves spelled out, unless they are a named curve's with its own
generator. Ed25519 and X25519 keys of one seed are two keys.

Remedy: replace the key; every key that was copied from the same place as well. A key for tests belongs in no product.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from keyassay.certificates.batches import KeyBatch, RsaBatch
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import (
    DsaPublicKey,
    EcPublicKey,
    OkpPublicKey,
    PublicKey,
    RsaPublicKey,
    bare_number,
)
from keyassay.checks import Context, batch_check
from keyassay.errors import KeyassayError
from keyassay.findings import (
    Classification,
    Confidence,
    DsaPrivateKey,
    EcPrivateKey,
    Evidence,
    Factor,
    Profile,
    Severity,
    Step,
    Value,
    Verdict,
)
from keyassay.keymath.curves import named_curve
from keyassay.keymath.factoring import product, with_common_factor
from keyassay.lists import known
from keyassay.lists.known import PUBLISHED, KnownKey

Key = RsaPublicKey | EcPublicKey | OkpPublicKey | DsaPublicKey

_OKP: dict[str, Any] = {
    "ed25519": Ed25519PrivateKey,
    "ed448": Ed448PrivateKey,
    "x25519": X25519PrivateKey,
    "x448": X448PrivateKey,
}


@dataclass(frozen=True)
class KnownHash(Evidence):
    """The hash of the key, whole, and where it is listed."""

    digest: bytes
    key_type: str
    notes: Mapping[str, Value] = field(default_factory=dict)

    def proves(self, subject: PublicKey | Item) -> bool:
        """The key has that type and that hash."""
        return (
            not isinstance(subject, Item)
            and known.key_type(subject) == self.key_type
            and hashlib.sha256(bare_number(subject)).digest() == self.digest
        )

    def describe(self) -> Mapping[str, Value]:
        return {"proof": "hash", "number_sha256": self.digest, **self.notes}

    def steps(self, subject: PublicKey | Item) -> list[Step]:  # noqa: ARG002  the hash says it all
        where = f"the list {self.notes['list']!r} has it, from {self.notes['source']!r}"
        return [
            Step(f"SHA-256 of the key's bare number is {self.digest.hex()}; {where}"),
            Step("`keyassay lists find` names the list", f"keyassay lists find {self.digest.hex()}"),
        ]


@dataclass(frozen=True)
class OkpPrivateKey(Evidence):
    """The private key of an Edwards or Montgomery key, as RFC 8032 and RFC 7748 encode it."""

    secret: bytes
    notes: Mapping[str, Value] = field(default_factory=dict)

    def proves(self, subject: PublicKey | Item) -> bool:
        """It makes the public key."""
        if not isinstance(subject, OkpPublicKey) or subject.type not in _OKP:
            return False
        try:
            private = _OKP[subject.type].from_private_bytes(self.secret)
        except ValueError:
            return False
        return bool(private.public_key().public_bytes_raw() == subject.encoded)

    def describe(self) -> Mapping[str, Value]:
        return {"proof": "private key", **self.notes}

    def secrets(self) -> Mapping[str, Value]:
        return {"private_key": self.secret}


def _evidence(key: Key, found: KnownKey) -> Evidence | None:
    """The best that a hit gives: the private number where the list has it and it makes this key, else the hash.

    None for a DSA key that has nothing but y in common with the listed one.
    """
    notes: dict[str, Value] = {"list": found.list_name, "source": found.source}
    candidates: list[Evidence] = []
    if found.secret:
        if isinstance(key, OkpPublicKey):
            candidates = [OkpPrivateKey(bytes.fromhex(found.secret[0]), notes)]
        else:
            number = int(found.secret[0], 16)
            if isinstance(key, RsaPublicKey):
                candidates = [Factor(number, notes)]
            elif isinstance(key, DsaPublicKey):
                candidates = [DsaPrivateKey(number, notes)]
            else:
                curve = named_curve(key.curve)
                # one x coordinate belongs to d and to its negative
                candidates = [EcPrivateKey(d, notes) for d in (number, int(curve.order) - number)] if curve else []
    proof = next((one for one in candidates if one.proves(key)), None)
    if proof is None and not (candidates and isinstance(key, DsaPublicKey)):
        return KnownHash(found.digest, found.key_type, notes)
    return proof


def _verdict(key: Key, found: KnownKey) -> Verdict | None:
    evidence = _evidence(key, found)
    if evidence is None:
        return None
    message = (
        f"the private key is printed in {found.source}"
        if found.list_name == PUBLISHED
        else f"the private key is in your list {found.list_name!r}: {found.source}"
    )
    return Verdict(message, evidence, confidence=Confidence.CERTAIN if isinstance(evidence, KnownHash) else None)


def _with_kept_primes(batch: RsaBatch, context: Context) -> Iterator[tuple[int, Verdict]]:
    """Moduli that one of the user's primes divides."""
    primes = known.primes()
    if not primes.values:
        return
    moduli = batch.moduli
    whole = context.cache.get("any-known-key primes")
    if whole is None or whole[0] is not primes:
        whole = context.cache["any-known-key primes"] = (primes, product(primes.values))
    for row in with_common_factor(moduli, whole[1]) if batch.bits > 1 else ():
        number = primes.factor(moduli[row])
        if number is not None:
            name, source = primes.origins[number]
            evidence = Factor(int(primes.values[number]), {"list": name, "source": source})
            other = moduli[row] // primes.values[number] in primes.numbers
            what = "both primes are" if other else "a prime of it is"
            yield row, Verdict(f"{what} in your list {name!r}: {source}", evidence)


@batch_check(
    id="any-known-key",
    title="published or known private key",
    applies_to=(RsaPublicKey, EcPublicKey, OkpPublicKey, DsaPublicKey),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    references=(
        "CWE-321: Use of Hard-coded Cryptographic Key",
        "RFC 9500: Standard Public Key Cryptography Test Keys",
        "the RFCs that the findings name",
    ),
    explained_by=("ec-invalid-point",),
)
def any_known_key(batch: KeyBatch[Key], context: Context) -> Iterator[tuple[int, Verdict]]:
    """One sorted look-up of the first 64 bits in each list, then of the whole hash; one gcd for some thousand keys."""
    try:
        rows = known.find_many(batch.sha256_prefixes)
    except KeyassayError as error:
        context.leave_out("any-known-key", str(error))
        return
    for problem in known.problems():
        context.leave_out("any-known-key", problem)
    reported: set[int] = set()
    if isinstance(batch, RsaBatch):
        for row, shared in _with_kept_primes(batch, context):
            reported.add(row)
            yield row, shared
    for row in rows:
        if row in reported:
            continue
        key = batch.key(row)
        wanted = known.key_type(key)
        listed = [one for one in known.find(hashlib.sha256(bare_number(key)).digest()) if one.key_type == wanted]
        verdict = next((verdict for one in listed if (verdict := _verdict(key, one)) is not None), None)
        if verdict is not None:
            yield row, verdict
