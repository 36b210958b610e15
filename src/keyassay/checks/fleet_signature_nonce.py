"""ECDSA signatures whose nonce gives the signer's private key away.

Weakness: a signature (r, s) on a digest z satisfies k s = z + r d modulo the order. Two signatures with the same
nonce k have the same r, and two equations give both unknowns (Sony's PlayStation 3, 2010; Android's SecureRandom, 2013).
A nonce that is small or otherwise guessable needs one signature only.

Method: all ECDSA signatures in the run (certificates, requests, CRLs, OCSP responses) are sorted by r. Equal r with
different s: k = (z1 - z2)/(s1 - s2) or, since -k has the same r, (z1 + z2)/(s1 + s2). Each r is also looked up among
x coordinates of small multiples of the base point, and compared with the signer's own x (k = d). The signer is looked
for by name and key identifier in the run.

Cost: parsing, 2 us a signature, and a sort; a hit costs milliseconds.

Profiles: the same in all from fast on.

Mistakes: none: dG has to be the signer's key, or, where the signer is not in the run, kG has to have the x coordinate
r, which chance allows with probability below 2^-100. The same certificate twice is no reuse: r, s and digest agree.

Blind spots: nonces with a bias but no repetition need lattices over many signatures and a budget. Nonces shared between
two signers' keys in a cycle. Signatures with a hash that is not SHA-1 or SHA-2.

Remedy: the finding is about the signer: revoke it and everything it signed, and replace its signing code by one with
deterministic nonces (RFC 6979) before making a new key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import gmpy2
import numpy as np

from keyassay.certificates.der import INTEGER, SEQUENCE, DerError, expect
from keyassay.certificates.fleet import Fleet
from keyassay.certificates.item import Item, Kind
from keyassay.certificates.public_key import EcPublicKey, PublicKey
from keyassay.checks import Context, fleet_check
from keyassay.findings import Classification, Confidence, EcPrivateKey, Evidence, Profile, Severity, Value, Verdict
from keyassay.keymath.curves import Curve, multiply, named_curve, named_curves
from keyassay.lists.tables import steps

HASHES = {
    "1.2.840.10045.4.1": "sha1",
    "1.2.840.10045.4.3.1": "sha224",
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
}
#: curves that are tried where the signer is not in the run
USUAL = ("P-256", "P-384", "P-521", "secp256k1", "P-224", "brainpoolP256r1", "brainpoolP384r1")
_SMALL = 1 << 14


@dataclass(frozen=True, slots=True)
class _Signature:
    """r, s and the whole digest as a number with its bits."""

    ordinal: int
    r: int
    s: int
    digest: int
    bits: int

    def z(self, curve: Curve) -> int:
        """The digest cut to the order's length (FIPS 186-4, 6.4)."""
        excess = self.bits - curve.bits
        return self.digest >> excess if excess > 0 else self.digest


def _parse(item: Item, ordinal: int) -> _Signature | None:
    fields = item.signed
    if fields is None:
        return None
    name = HASHES.get(fields.signature_algorithm)
    if name is None:
        return None
    data = fields.signature
    try:
        start, stop = expect(data, 0, len(data), SEQUENCE, "signature")
        first, after = expect(data, start, stop, INTEGER, "r")
        begin, finish = expect(data, after, stop, INTEGER, "s")
    except DerError:
        return None
    r = int.from_bytes(data[first:after], "big")
    s = int.from_bytes(data[begin:finish], "big")
    if not r or not s or r.bit_length() > 640 or s.bit_length() > 640:
        return None
    digest = hashlib.new(name, fields.signed_part, usedforsecurity=False).digest()
    return _Signature(ordinal, r, s, int.from_bytes(digest, "big"), 8 * len(digest))


@dataclass(frozen=True)
class NonceOfSigner(Evidence):
    """A nonce k of a signer that is not in the run: kG has the x coordinate r, and d follows by one division.

    ``z`` is the digest cut to the order's length.
    """

    curve: str
    r: int
    s: int
    z: int
    k: int

    def proves(self, subject: PublicKey | Item) -> bool:  # noqa: ARG002  it speaks of the signer's key
        curve = named_curve(self.curve)
        if curve is None or not 0 < self.k < curve.order:
            return False
        point = multiply(curve, self.k, curve.base)
        return point is not None and point[0] % curve.order == self.r

    def describe(self) -> Mapping[str, Value]:
        return {"proof": "nonce", "curve": self.curve, "r": self.r, "s": self.s}

    def secrets(self) -> Mapping[str, Value]:
        curve = named_curves()[self.curve]
        d = (self.s * self.k - self.z) * gmpy2.invert(self.r, curve.order) % curve.order
        return {"k": self.k, "issuer_private_key": int(d)}


def _public_point(key: EcPublicKey, curve: Curve, d: int) -> bool:
    return 0 < d < curve.order and EcPrivateKey(int(d)).proves(key)


def _signers(fleet: Fleet, item: Item) -> list[tuple[int, EcPublicKey]]:
    """Items of the run that may have signed this one: (ordinal, key)."""
    fields = item.signed
    if fields is None:
        return []
    if item.kind is Kind.REQUEST or (fields.issuer == fields.subject and item.kind is Kind.CERTIFICATE):
        return [(-1, item.key)] if isinstance(item.key, EcPublicKey) else []
    name = hashlib.sha256(fields.issuer).digest()[:16].rstrip(b"\0")
    found = []
    for ordinal in np.flatnonzero(fleet.identities["subject"] == name)[:64].tolist():
        other = fleet.item(ordinal)
        if isinstance(other.key, EcPublicKey) and other.signed is not None:
            mine, theirs = fields.authority_key_identifier, other.signed.subject_key_identifier
            if mine is None or theirs is None or mine == theirs:
                found.append((ordinal, other.key))
    return found


def _same_key(fleet: Fleet, key: EcPublicKey) -> list[int]:
    """All items that have this very key."""
    ordinals, octets = fleet.points.get(key.curve, (np.zeros(0, dtype=np.int64), []))
    return [int(ordinal) for ordinal, point in zip(ordinals.tolist(), octets, strict=True) if point == key.point]


def _nonces(one: _Signature, other: _Signature, curve: Curve) -> list[int]:
    """Candidates for the common nonce of two signatures with equal r."""
    n = curve.order
    found = []
    for sign in (1, -1):
        difference = (one.s - sign * other.s) % n
        if difference:
            found.append(int((one.z(curve) - sign * other.z(curve)) * gmpy2.invert(difference, n) % n))
    return found


def _private(signature: _Signature, k: int, curve: Curve) -> int:
    n = curve.order
    return int((signature.s * k - signature.z(curve)) * gmpy2.invert(signature.r, n) % n)


def _report(
    fleet: Fleet, signature: _Signature, guesses: dict[str, list[int]], what: str, others: tuple[int, ...]
) -> Iterator[tuple[int, Verdict]]:
    """Turn guesses of the nonce (by curve) into findings on the signer's items, or on the signed ones."""
    item = fleet.item(signature.ordinal)
    places: list[Value] = [f"{one.source}#{one.index}" for one in fleet.items(sorted({signature.ordinal, *others}))]
    for _, key in _signers(fleet, item):
        curve = named_curve(key.curve)
        if curve is None or signature.r >= curve.order:
            continue
        for k in guesses.get(key.curve, ()):
            d = _private(signature, k, curve)
            if _public_point(key, curve, d):
                message = f"its signatures give its private key away: {what}"
                for holder in _same_key(fleet, key):
                    yield holder, Verdict(message, EcPrivateKey(d, {"signatures": places, "cause": what}))
                return
    for name, nonces in guesses.items():
        curve = named_curves()[name]
        for k in nonces:
            evidence = NonceOfSigner(name, signature.r, signature.s, int(signature.z(curve)), int(k))
            if signature.r < curve.order and evidence.proves(item):
                message = f"the issuer's private key can be computed from its signatures: {what}"
                for ordinal in sorted({signature.ordinal, *others}):
                    yield ordinal, Verdict(message, evidence)
                return


@fleet_check(
    id="fleet-signature-nonce",
    title="signature nonce reused or small",
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    references=(
        "FIPS 186-4, 6.4",
        "RFC 6979",
        "bushing, marcan, segher, sven 2010: Console hacking, PS3 epic fail",
        "Breitner, Heninger 2019: Biased nonce sense",
    ),
)
def fleet_signature_nonce(fleet: Fleet, _context: Context) -> Iterator[tuple[int, Verdict]]:
    """Sort by r, look r up, compare r with the signer's x."""
    ordinals = sorted(
        ordinal for oid, rows in fleet.signed_ordinals.items() if oid in HASHES for ordinal in rows.tolist()
    )
    if not ordinals:
        return
    tails: list[int] = []
    owners: list[int] = []
    own: list[int] = []
    for ordinal, item in zip(ordinals, fleet.items(ordinals), strict=True):
        signature = _parse(item, ordinal)
        if signature is None:
            continue
        tails.append(signature.r & (2**64 - 1))
        owners.append(ordinal)
        if isinstance(item.key, EcPublicKey) and len(item.key.point) > 32:
            size = (len(item.key.point) - 1) // (1 if item.key.point[0] in (2, 3) else 2)
            if int.from_bytes(item.key.point[1 : 1 + size], "big") == signature.r:
                own.append(ordinal)
    column = np.array(tails, dtype=np.uint64)
    order = np.argsort(column, kind="stable")
    ranked = column[order]
    done: set[tuple[int, str]] = set()

    def once(found: Iterator[tuple[int, Verdict]]) -> Iterator[tuple[int, Verdict]]:
        for ordinal, verdict in found:
            mark = (ordinal, verdict.message)
            if mark not in done:
                done.add(mark)
                yield ordinal, verdict

    start = 0
    for end in [*(np.flatnonzero(ranked[1:] != ranked[:-1]) + 1).tolist(), len(ranked)]:
        if end - start > 1:
            members = sorted(owners[place] for place in order[start:end].tolist())
            yield from once(_equal(fleet, members))
        start = end
    for curve in USUAL:
        for row, index in steps(curve, _SMALL).find(column):
            signature = _parse(fleet.item(owners[row]), owners[row])
            if signature is not None:
                guesses = {curve: [index, int(named_curves()[curve].order) - index]}
                yield from once(_report(fleet, signature, guesses, "a very small nonce", ()))
    for ordinal in own:
        yield from once(_nonce_is_key(fleet, ordinal))


def _equal(fleet: Fleet, members: list[int]) -> Iterator[tuple[int, Verdict]]:
    """Signatures whose r agree in 64 bits: the first that differs from the group's first gives the nonce."""
    groups: dict[int, list[_Signature]] = {}
    for ordinal, item in zip(members, fleet.items(members), strict=True):
        signature = _parse(item, ordinal)
        if signature is None:
            continue
        groups.setdefault(signature.r, []).append(signature)
    for signatures in groups.values():
        first = signatures[0]
        for other in signatures[1:]:
            if (other.s, other.digest) == (first.s, first.digest):
                continue
            curves = {key.curve for _, key in _signers(fleet, fleet.item(first.ordinal))} or set(USUAL)
            guesses = {
                name: _nonces(first, other, curve)
                for name in sorted(curves)
                if (curve := named_curve(name)) is not None and not curve.binary and first.r < curve.order
            }
            found = list(_report(fleet, first, guesses, "two signatures with one nonce", (other.ordinal,)))
            yield from found
            if found:
                break


def _nonce_is_key(fleet: Fleet, ordinal: int) -> Iterator[tuple[int, Verdict]]:
    """R is the x coordinate of the key: the nonce was d or -d, so d = z/(s - r) or -z/(s + r)."""
    item = fleet.item(ordinal)
    signature = _parse(item, ordinal)
    key = item.key
    if signature is None or not isinstance(key, EcPublicKey):
        return
    curve = named_curve(key.curve)
    if curve is None or curve.binary:
        return
    for sign in (1, -1):
        divisor = (sign * signature.s - signature.r) % curve.order
        if divisor:
            d = int(signature.z(curve) * gmpy2.invert(divisor, curve.order) % curve.order)
            if _public_point(key, curve, d):
                what = "the nonce is the private key"
                for holder in _same_key(fleet, key):
                    message = f"its signatures give its private key away: {what}"
                    yield holder, Verdict(message, EcPrivateKey(d, {"cause": what}))
                return
