"""ECDSA and DSA signatures whose nonce gives the signer's private key away.

Weakness: a signature (r, s) on a digest z satisfies k s = z + r d modulo the order. Two signatures with the same
nonce k have the same r, and two equations give both unknowns (Sony's PlayStation 3, 2010; Android's SecureRandom,
2013). A nonce that is small or otherwise guessable needs one signature only, and nonces that follow each other by a
simple rule need a few.

Method: all signatures in the run (certificates, requests, CRLs, OCSP responses) are sorted by r. Equal r with different
s: k = (z1 - z2)/(s1 - s2) or, since -k has the same r, (z1 - z2)/(s1 + s2). Two signers that share two nonces: four
equations, four unknowns. Each r is also looked up among x coordinates of small and lazy multiples of the base point
and among the public keys of the run (k = d). In standard: k = z; and for signatures of one signer, in order of issue,
equal steps (k, k + c, k + 2c), k' = k +- 1, 2k or 2k + 1, and k' = a k + b with unknown a and b (four in a row). The
signer is looked for by name and key identifier in the run.

Cost: parsing, some microseconds a signature, and a sort; for small nonces 0.2 ms a signature below 1,000 of them, a
table of 2 s a curve above. Standard: 0.1 ms a signature, 0.5 ms more where the signer is in the run. A hit costs
milliseconds.

Profiles: fast: equal r, small and lazy nonces, k = d. Standard adds k = z and the rules.

Mistakes: none: dG has to be the signer's key, or, where the signer is not in the run, kG has to have the x coordinate
r, which chance allows with probability below 2^-100. The same certificate twice is no reuse: r, s and digest agree.

Blind spots: an issuer with more than 8 keys of one name and no key identifiers. Nonces with a bias but no repetition
need lattices over many signatures and a budget. Nonces shared among three or more signers in a ring. Signatures with a
hash that is not SHA-1 or SHA-2. DSA and the rules only where the signer's key is in the run.

Remedy: the finding is about the signer: revoke it and everything it signed, and replace its signing code by one with
deterministic nonces (RFC 6979) before making a new key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import combinations, pairwise

import gmpy2
import numpy as np
from numpy.typing import NDArray

from keyassay.certificates.der import INTEGER, SEQUENCE, DerError, expect
from keyassay.certificates.fleet import Fleet
from keyassay.certificates.item import Item, Kind
from keyassay.certificates.public_key import DsaPublicKey, EcPublicKey, PublicKey
from keyassay.checks import Context, fleet_check
from keyassay.findings import (
    Classification,
    Confidence,
    DsaPrivateKey,
    EcPrivateKey,
    Evidence,
    Profile,
    Severity,
    Value,
    Verdict,
)
from keyassay.keymath.curves import (
    multiply,
    multiply_many,
    named_curve,
    named_curves,
    root,
    small_logarithm,
    square_root,
)
from keyassay.lists.lazy import lazy_table
from keyassay.lists.tables import steps

#: dotted OID -> (hash, whether it is DSA)
ALGORITHMS = {
    "1.2.840.10045.4.1": ("sha1", False),
    "1.2.840.10045.4.3.1": ("sha224", False),
    "1.2.840.10045.4.3.2": ("sha256", False),
    "1.2.840.10045.4.3.3": ("sha384", False),
    "1.2.840.10045.4.3.4": ("sha512", False),
    "1.2.840.10040.4.3": ("sha1", True),
    "2.16.840.1.101.3.4.3.1": ("sha224", True),
    "2.16.840.1.101.3.4.3.2": ("sha256", True),
    "2.16.840.1.101.3.4.3.3": ("sha384", True),
    "2.16.840.1.101.3.4.3.4": ("sha512", True),
}
#: curves that are tried where the signer is not in the run
USUAL = ("P-256", "P-384", "P-521", "secp256k1", "P-224", "brainpoolP256r1", "brainpoolP384r1")
#: nonces (and order less nonce) up to this are found
REACH = 1 << 20
#: from so many signatures on a table of the whole reach is cheaper than giant steps
MANY = 1_000
#: bits by which an r may be shorter than the order: fewer signatures than one in a million million are
_SHORT = 40
#: signatures of one r, or of one pair of signers, that are compared with each other
_MOST_EQUAL = 16
#: keys of one name that an issuer may have
_MOST_SIGNERS = 8
#: bytes that one signature takes while the rules are tried
_BYTES = 700
_LOW = (1 << 64) - 1
_DSA_NONCES = 1_024
#: candidates that are confirmed together
_AT_ONCE = 4_096

Signer = EcPublicKey | DsaPublicKey


@dataclass(frozen=True, slots=True)
class _Signature:
    """r, s and the whole digest as a number with its bits."""

    ordinal: int
    r: int
    s: int
    digest: int
    bits: int
    dsa: bool

    def z(self, order: int) -> int:
        """The digest cut to the order's length (FIPS 186-4, 6.4)."""
        excess = self.bits - order.bit_length()
        return self.digest >> excess if excess > 0 else self.digest

    def private(self, k: int, order: int) -> int:
        """The private key, if k is the nonce."""
        return int((self.s * k - self.z(order)) * gmpy2.invert(self.r, order) % order)

    def line(self, order: int) -> tuple[int, int]:
        """(u, t) with k = u + t d modulo the order."""
        inverse = gmpy2.invert(self.s, order)
        return int(self.z(order) * inverse % order), int(self.r * inverse % order)


def _parse(item: Item, ordinal: int) -> _Signature | None:
    fields = item.signed
    if fields is None:
        return None
    name, dsa = ALGORITHMS.get(fields.signature_algorithm, ("", False))
    if not name:
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
    return _Signature(ordinal, r, s, int.from_bytes(digest, "big"), 8 * len(digest), dsa)


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


def _order(key: Signer) -> int:
    """Order of the signer's group if it is one that this check computes in, else 0."""
    if isinstance(key, DsaPublicKey):
        sound = 128 <= key.q.bit_length() <= 512 and key.p.bit_length() <= 8192 and 1 < key.g < key.p > 2
        return key.q if sound and key.p & 1 and gmpy2.is_strong_bpsw_prp(key.q) else 0
    curve = named_curve(key.curve)
    return 0 if curve is None or curve.binary else int(curve.order)


def _evidence(key: Signer, d: int, notes: Mapping[str, Value]) -> Evidence | None:
    """Proof that d is the signer's private key, or None."""
    found: Evidence = DsaPrivateKey(d, notes) if isinstance(key, DsaPublicKey) else EcPrivateKey(d, notes)
    return found if d > 0 and found.proves(key) else None


@dataclass
class _Run:
    """The signatures of a run as columns, and who may have signed what."""

    fleet: Fleet
    owners: list[int] = field(default_factory=list)
    tails: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    signers_known: dict[tuple[bytes, bytes | None], list[tuple[int, Signer]]] = field(default_factory=dict)
    reported: set[tuple[int, str]] = field(default_factory=set)

    @cached_property
    def by_subject(self) -> tuple[NDArray[np.void], NDArray[np.intp]]:
        """Digests of subjects, sorted, with ordinals."""
        names = self.fleet.identities["subject"]
        order = np.argsort(names, kind="stable")
        return names[order], order

    def signature(self, place: int) -> _Signature | None:
        """The signature in that row of the columns."""
        return self.of(self.owners[place])

    def of(self, ordinal: int) -> _Signature | None:
        """The signature of an item."""
        return _parse(self.fleet.item(ordinal), ordinal)

    def signers(self, item: Item) -> list[tuple[int, Signer]]:
        """Keys of the run that may have signed an item, with the ordinal of an item that holds each (-1: its own)."""
        fields = item.signed
        if fields is None:
            return []
        if item.kind is Kind.REQUEST or (fields.issuer == fields.subject and item.kind is Kind.CERTIFICATE):
            return [(-1, item.key)] if isinstance(item.key, EcPublicKey | DsaPublicKey) else []
        mark = (fields.issuer, fields.authority_key_identifier)
        if mark not in self.signers_known:
            names, order = self.by_subject
            name = np.array([hashlib.sha256(fields.issuer).digest()[:16]], dtype="S16")
            begin, end = (int(np.searchsorted(names, name, side=side)[0]) for side in ("left", "right"))
            found: list[tuple[int, Signer]] = []
            for ordinal in sorted(order[begin : min(end, begin + 64)].tolist()):
                other = self.fleet.item(ordinal)
                if not isinstance(other.key, EcPublicKey | DsaPublicKey) or other.signed is None:
                    continue
                theirs = other.signed.subject_key_identifier
                if mark[1] is not None and theirs is not None and theirs != mark[1]:
                    continue
                if len(found) < _MOST_SIGNERS and all(other.key != key for _, key in found):
                    found.append((ordinal, other.key))
            self.signers_known[mark] = found
        return self.signers_known[mark]

    def holders(self, ordinal: int) -> list[int]:
        """All items that have the key of an item."""
        mine = self.fleet.identities["spki"][ordinal]
        return [int(one) for one in np.flatnonzero(self.fleet.identities["spki"] == mine)]

    def report(
        self, signature: _Signature, holder: int, key: Signer, d: int, what: str, others: Sequence[int] = ()
    ) -> Iterator[tuple[int, Verdict]]:
        """Findings on all items with the signer's key, if d is its private key; once for each cause."""
        ordinal = signature.ordinal if holder < 0 else holder
        if (ordinal, what) in self.reported:
            return
        places: list[Value] = [
            f"{one.source}#{one.index}" for one in self.fleet.items(sorted({signature.ordinal, *others}))
        ]
        evidence = _evidence(key, d, {"signatures": places, "cause": what})
        if evidence is None:
            return
        message = f"its signatures give its private key away: {what}"
        for one in self.holders(ordinal):
            self.reported.add((one, what))
            yield one, Verdict(message, evidence)

    def guess(
        self, signature: _Signature, nonces: Mapping[str, Sequence[int]], what: str, others: Sequence[int] = ()
    ) -> Iterator[tuple[int, Verdict]]:
        """Turn guesses of a nonce, by curve, into findings on the signer's items, or on the signed ones."""
        item = self.fleet.item(signature.ordinal)
        signers = self.signers(item)
        for holder, key in signers:
            if isinstance(key, EcPublicKey) and (order := _order(key)) and signature.r < order:
                for k in nonces.get(key.curve, ()):
                    d = signature.private(k, order)
                    if _evidence(key, d, {}) is not None:
                        yield from self.report(signature, holder, key, d, what, others)
                        return
        if signers:
            return
        for name, chosen in nonces.items():
            curve = named_curves()[name]
            for k in chosen:
                evidence = NonceOfSigner(name, signature.r, signature.s, signature.z(int(curve.order)), int(k))
                if signature.r < curve.order and evidence.proves(item):
                    message = f"the issuer's private key can be computed from its signatures: {what}"
                    for ordinal in sorted({signature.ordinal, *others}):
                        if (ordinal, what) not in self.reported:
                            self.reported.add((ordinal, what))
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
def fleet_signature_nonce(fleet: Fleet, context: Context) -> Iterator[tuple[int, Verdict]]:
    """Sort by r, look r up, compare r with public keys; then what one signer's signatures have in common."""
    ordinals = sorted(
        ordinal for oid, rows in fleet.signed_ordinals.items() if oid in ALGORITHMS for ordinal in rows.tolist()
    )
    run = _Run(fleet)
    for ordinal, item in zip(ordinals, fleet.items(ordinals), strict=True):
        signature = _parse(item, ordinal)
        if signature is not None:
            run.owners.append(ordinal)
            run.tails.append(signature.r & _LOW)
            run.sizes.append(0 if signature.dsa else signature.r.bit_length())
    if not run.owners:
        return
    column = np.array(run.tails, dtype=np.uint64)
    yield from _equal(run, column)
    yield from _guessable(run, column)
    yield from _nonce_is_key(run, column)
    if context.profile >= Profile.STANDARD:
        if len(run.owners) * _BYTES > fleet.memory:
            reason = (
                f"rules among nonces: {len(run.owners):,} signatures, needs {len(run.owners) * _BYTES / 1e9:.1f} GB"
            )
            fleet.not_run("fleet-signature-nonce", f"not run: {reason}; raise --memory")
            return
        yield from _rules(run)


# Equal r


def _equal(run: _Run, column: NDArray[np.uint64]) -> Iterator[tuple[int, Verdict]]:
    """Signatures with one r: of one signer, or of two signers who share two."""
    order = np.argsort(column, kind="stable")
    ranked = column[order]
    borders = [0, *(np.flatnonzero(ranked[1:] != ranked[:-1]) + 1).tolist(), len(ranked)]
    shared: dict[tuple[Signer, Signer], list[tuple[_Signature, _Signature]]] = {}
    holders: dict[Signer, int] = {}
    for start, end in pairwise(borders):
        if end - start < 2:
            continue
        groups: dict[tuple[int, bool], list[_Signature]] = {}
        for place in sorted(order[start:end].tolist())[: 64 * _MOST_EQUAL]:
            signature = run.signature(place)
            if signature is not None:
                groups.setdefault((signature.r, signature.dsa), []).append(signature)
        for signatures in groups.values():
            distinct = list({(one.s, one.digest): one for one in reversed(signatures)}.values())[::-1][:_MOST_EQUAL]
            makers: dict[object, list[_Signature]] = {}
            for one in distinct:
                item = run.fleet.item(one.ordinal)
                signers = tuple(key for _, key in run.signers(item))
                makers.setdefault(signers or (item.signed.issuer if item.signed else b""), []).append(one)
            for made in makers.values():
                # each with the next and with the first: of one nonce any two tell it
                for one, other in [*pairwise(made), *((made[0], other) for other in made[2:])]:
                    found = list(_one_nonce(run, one, other))
                    yield from found
                    if found:
                        break
            for made, others in combinations(list(makers.values())[:8], 2):
                one, other = made[0], others[0]
                for (holder, key), (place, partner) in _different(run, one, other):
                    holders[key] = one.ordinal if holder < 0 else holder
                    holders[partner] = other.ordinal if place < 0 else place
                    pair, ordered = (one, other), (key, partner)
                    if (partner, key) in shared:
                        pair, ordered = (other, one), (partner, key)
                    if len(shared.setdefault(ordered, [])) < _MOST_EQUAL:
                        shared[ordered].append(pair)
    for (key, partner), pairs in shared.items():
        for first, second in combinations(pairs[:8], 2):
            if first[0].r != second[0].r:
                for d, other_d in _two_signers(first, second, _order(key)):
                    what = "two signers share two nonces"
                    yield from run.report(first[0], holders[key], key, d, what, [first[1].ordinal, second[0].ordinal])
                    yield from run.report(
                        first[1], holders[partner], partner, other_d, what, [first[0].ordinal, second[1].ordinal]
                    )


def _common_nonces(one: _Signature, other: _Signature, order: int) -> list[int]:
    """Candidates for the nonce k of two signatures with equal r by one signer."""
    found = []
    for sign in (1, -1):
        difference = (one.s - sign * other.s) % order
        if difference:
            found.append(int((one.z(order) - other.z(order)) * gmpy2.invert(difference, order) % order))
    return found


def _one_nonce(run: _Run, one: _Signature, other: _Signature) -> Iterator[tuple[int, Verdict]]:
    """The finding if one signer made both with one nonce."""
    what = "two signatures with one nonce"
    item, partner = run.fleet.item(one.ordinal), run.fleet.item(other.ordinal)
    signers = run.signers(item)
    for holder, key in signers:
        order = _order(key)
        if not order or one.r >= order or isinstance(key, DsaPublicKey) != one.dsa:
            continue
        for k in _common_nonces(one, other, order):
            yield from run.report(one, holder, key, one.private(k, order), what, [other.ordinal])
    if signers or run.signers(partner) or one.dsa or item.signed is None or partner.signed is None:
        return
    if item.signed.issuer == partner.signed.issuer:
        nonces = {
            name: _common_nonces(one, other, int(curve.order))
            for name in USUAL
            if one.r < (curve := named_curves()[name]).order
            and one.r.bit_length() > int(curve.order).bit_length() - _SHORT
        }
        yield from run.guess(one, nonces, what, [other.ordinal])


def _different(
    run: _Run, one: _Signature, other: _Signature
) -> Iterator[tuple[tuple[int, Signer], tuple[int, Signer]]]:
    """Pairs of different signers in one group of whom each may have made one of two signatures."""
    for mine in run.signers(run.fleet.item(one.ordinal)):
        for theirs in run.signers(run.fleet.item(other.ordinal)):
            key, partner = mine[1], theirs[1]
            order = _order(key)
            if key == partner or not order or 0 in (one.s % order, other.s % order):
                continue
            if isinstance(key, EcPublicKey) and isinstance(partner, EcPublicKey) and key.curve == partner.curve:
                yield mine, theirs
            if (
                isinstance(key, DsaPublicKey)
                and isinstance(partner, DsaPublicKey)
                and (key.p, key.q, key.g) == (partner.p, partner.q, partner.g)
            ):
                yield mine, theirs


def _two_signers(
    first: tuple[_Signature, _Signature], second: tuple[_Signature, _Signature], order: int
) -> Iterator[tuple[int, int]]:
    """Candidates (d, d') of two signers with two common nonces: u + t d = +-(u' + t' d') twice."""
    lines = [(one.line(order), other.line(order)) for one, other in (first, second)]
    for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        # t d - e t' d' = e u' - u
        rows = [
            (t, -sign * t2 % order, (sign * u2 - u) % order)
            for ((u, t), (u2, t2)), sign in zip(lines, signs, strict=True)
        ]
        (a, b, c), (a2, b2, c2) = rows
        determinant = (a * b2 - a2 * b) % order
        if determinant:
            inverse = gmpy2.invert(determinant, order)
            yield int((c * b2 - c2 * b) * inverse % order), int((a * c2 - a2 * c) * inverse % order)


# Guessable nonces


def _guessable(run: _Run, column: NDArray[np.uint64]) -> Iterator[tuple[int, Verdict]]:
    """Nonces that are small, lazy numbers, or such numbers less the order."""
    sizes = np.array(run.sizes)
    present = set(run.fleet.points)
    for name in USUAL:
        curve = named_curves()[name]
        bits = int(curve.order).bit_length()
        rows = np.flatnonzero((sizes <= bits) & (sizes > bits - _SHORT))
        # the usual curve of a size is tried whoever the signer is, the others if the run has keys on them
        if not len(rows) or (name not in present and not name.startswith("P-")):
            continue
        many = len(rows) >= MANY
        table = steps(name, REACH if many else 1 << 14)
        candidates = {int(rows[row]): index for row, index in table.find(column[rows])}
        lazy, numbers = lazy_table(name)
        places = np.searchsorted(lazy, column[rows])
        places[places == len(lazy)] = 0
        for hit in np.flatnonzero(lazy[places] == column[rows]).tolist():
            candidates.setdefault(int(rows[hit]), numbers[int(places[hit])])
        if not many:
            for row in rows.tolist():
                signature = run.signature(row) if row not in candidates else None
                point = None if signature is None else root(curve, signature.r, 0)
                if point is not None:
                    k = small_logarithm(curve, point, curve.base, table, REACH)
                    if k is not None:
                        candidates[row] = k % curve.order
        for row, k in sorted(candidates.items()):
            signature = run.signature(row)
            if signature is not None:
                yield from run.guess(signature, {name: [k, int(curve.order) - k]}, "a nonce that anyone guesses")
    for place, size in enumerate(run.sizes):
        if size:
            continue
        signature = run.signature(place)
        for holder, key in [] if signature is None else run.signers(run.fleet.item(signature.ordinal)):
            if isinstance(key, DsaPublicKey) and _order(key) and signature is not None:
                for k in _dsa_nonces(key.p, key.q, key.g).get(signature.r, ()):
                    d = signature.private(k, key.q)
                    yield from run.report(signature, holder, key, d, "a nonce that anyone guesses")


@lru_cache(maxsize=64)
def _dsa_nonces(p: int, q: int, g: int) -> dict[int, list[int]]:
    """R -> nonces up to 1,024."""
    found: dict[int, list[int]] = {}
    power = 1
    for k in range(1, _DSA_NONCES + 1):
        power = power * g % p
        found.setdefault(int(power % q), []).append(k)
    return found


def _nonce_is_key(run: _Run, column: NDArray[np.uint64]) -> Iterator[tuple[int, Verdict]]:
    """R is the x coordinate of a key: the nonce was d or -d, so d = z/(s - r) or -z/(s + r)."""
    xs: list[int] = []
    for name, (_, octets) in run.fleet.points.items():
        curve = named_curve(name)
        if curve is not None and not curve.binary:
            size = curve.field_bytes
            xs.extend(int.from_bytes(point[1 + size - 8 : 1 + size], "big") for point in octets if len(point) > size)
            if curve.order < curve.p:
                # x modulo the order: few x reach beyond it
                order = int(curve.order)
                heads = (int.from_bytes(point[1 : 1 + size], "big") for point in octets if len(point) > size)
                xs.extend((x - order) & _LOW for x in heads if x >= order)
    known = np.unique(np.array(xs, dtype=np.uint64))
    rows = np.flatnonzero(np.isin(column, known)) if len(known) else np.zeros(0, dtype=np.intp)
    dsa = [place for place, size in enumerate(run.sizes) if not size]
    for row in [*rows.tolist(), *dsa]:
        signature = run.signature(row)
        if signature is None:
            continue
        for holder, key in run.signers(run.fleet.item(signature.ordinal)):
            order = _order(key)
            if not order or isinstance(key, DsaPublicKey) != signature.dsa:
                continue
            if isinstance(key, DsaPublicKey) and signature.r not in (
                key.y % key.q,
                int(gmpy2.invert(key.y, key.p)) % key.q if gmpy2.gcd(key.y, key.p) == 1 else -1,
            ):
                continue
            for sign in (1, -1):
                divisor = (sign * signature.s - signature.r) % order
                if divisor:
                    d = int(signature.z(order) * gmpy2.invert(divisor, order) % order)
                    yield from run.report(signature, holder, key, d, "the nonce is the private key")


# Rules among the nonces of one signer


def _rules(run: _Run) -> Iterator[tuple[int, Verdict]]:
    """K = z, and rules among successive nonces of one signer."""
    known: dict[tuple[int, Signer], list[tuple[tuple[int, int], _Signature]]] = {}
    nobody: list[_Signature] = []
    for ordinal, item in zip(run.owners, run.fleet.items(run.owners), strict=True):
        signature = _parse(item, ordinal)
        if signature is None:
            continue
        signers = [
            (ordinal if holder < 0 else holder, key)
            for holder, key in run.signers(item)
            if (order := _order(key))
            and signature.r < order
            and signature.s < order
            and isinstance(key, DsaPublicKey) == signature.dsa
        ]
        fields = item.signed
        for signer in signers[:4]:
            when = (fields.not_before or 0, fields.serial_number or 0) if fields is not None else (0, 0)
            known.setdefault(signer, []).append((when, signature))
        if not signers and not signature.dsa:
            nobody.append(signature)
    waiting: dict[str, list[_Candidate]] = {}
    for (holder, key), dated in known.items():
        signatures = [signature for _, signature in sorted(dated, key=lambda one: (one[0], one[1].ordinal))]
        candidates = _candidates(holder, key, signatures)
        if isinstance(key, DsaPublicKey):
            for candidate in candidates:
                yield from candidate.report(run)
            continue
        queue = waiting.setdefault(key.curve, [])
        queue.extend(candidates)
        if len(queue) >= _AT_ONCE:
            yield from _confirmed(run, key.curve, queue)
            queue.clear()
    for name, queue in waiting.items():
        yield from _confirmed(run, name, queue)
    for name in USUAL[:4]:
        curve = named_curves()[name]
        bits = int(curve.order).bit_length()
        chosen = [one for one in nobody if bits - _SHORT < one.r.bit_length() <= bits]
        points = multiply_many(curve, [one.z(int(curve.order)) % int(curve.order) for one in chosen], curve.base)
        for one, point in zip(chosen, points, strict=True):
            if point is not None and point[0] % curve.order == one.r:
                yield from run.guess(
                    one, {name: [one.z(int(curve.order)) % int(curve.order)]}, "the nonce is the digest"
                )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A private key that follows if a rule holds among some signatures."""

    holder: int
    key: Signer
    d: int
    rule: str
    involved: list[_Signature]

    def report(self, run: _Run) -> Iterator[tuple[int, Verdict]]:
        """Findings, if it is the private key."""
        ordinals = [one.ordinal for one in self.involved]
        return run.report(self.involved[0], self.holder, self.key, self.d, self.rule, ordinals)


def _candidates(holder: int, key: Signer, signatures: list[_Signature]) -> Iterator[_Candidate]:
    """What follows from each rule, for one signer's signatures in order of issue."""
    order = _order(key)
    for one in signatures:
        d = int(one.z(order) * (one.s - 1) * gmpy2.invert(one.r, order) % order)
        yield _Candidate(holder, key, d, "the nonce is the digest", [one])
    unique = list({(one.r, one.s): one for one in signatures}.values())
    lines = [one.line(order) for one in unique]
    for place in range(len(unique)):
        for d, rule, count in _successive(lines[place : place + 4], order):
            yield _Candidate(holder, key, d, rule, unique[place : place + count])


def _confirmed(run: _Run, curve_name: str, candidates: Sequence[_Candidate]) -> Iterator[tuple[int, Verdict]]:
    """Reports of those candidates that are the private key: many multiples of the base point at once."""
    curve = named_curves()[curve_name]
    size = curve.field_bytes
    points = multiply_many(curve, [one.d for one in candidates], curve.base)
    for one, point in zip(candidates, points, strict=True):
        assert isinstance(one.key, EcPublicKey)
        if point is not None and point[0] == int.from_bytes(one.key.point[1 : 1 + size], "big"):
            yield from one.report(run)


def _successive(lines: Sequence[tuple[int, int]], order: int) -> Iterator[tuple[int, str, int]]:
    """Candidates (d, rule, number of signatures) from up to four successive nonces k = u + t d."""

    def solve(u: int, t: int) -> Iterator[int]:
        if t % order:
            yield int(-u * gmpy2.invert(t, order) % order)

    if len(lines) < 2:
        return
    (u, t), (u2, t2) = lines[:2]
    for a, b in ((1, 1), (1, -1), (2, 0), (2, 1)):
        for d in solve(u2 - a * u - b, t2 - a * t):
            yield d, f"each nonce is {a} times the one before plus {b}", 2
    if len(lines) < 3:
        return
    for middle in range(3):
        left, right = (lines[place] for place in range(3) if place != middle)
        centre = lines[middle]
        for d in solve(left[0] + right[0] - 2 * centre[0], left[1] + right[1] - 2 * centre[1]):
            yield d, "nonces in equal steps", 3
    if len(lines) < 4:
        return
    # (k2 - k1)^2 = (k3 - k2)(k1 - k0), each difference v + w d
    (v0, w0), (v1, w1), (v2, w2) = ((after[0] - one[0], after[1] - one[1]) for one, after in pairwise(lines))
    a, b, c = w1 * w1 - w2 * w0, 2 * v1 * w1 - v2 * w0 - v0 * w2, v1 * v1 - v2 * v0
    if a % order == 0:
        for d in solve(c, b):
            yield d, "nonces from a linear congruential generator", 4
        return
    square = square_root((b * b - 4 * a * c) % order, order)
    if square is not None:
        half = gmpy2.invert(2 * a, order)
        for sign in (1, -1):
            yield int((-b + sign * square) * half % order), "nonces from a linear congruential generator", 4
