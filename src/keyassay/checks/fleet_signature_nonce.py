"""ECDSA, DSA and EdDSA signatures whose nonce gives the signer's private key away.

Weakness: a signature (r, s) on a digest z satisfies k s = z + r d modulo the order. Two signatures with the same
nonce k have the same r, and two equations give both unknowns (Sony's PlayStation 3, 2010; Android's SecureRandom,
2013). A nonce that is small or otherwise guessable needs one signature only, and nonces that follow each other by a
simple rule need a few. EdDSA computes its nonces, but a broken or faulty implementation repeats them.

Method: all signatures in the run (certificates, requests, CRLs, OCSP responses) are sorted by r. Equal r with different
s: k = (z1 - z2)/(s1 - s2) or, since -k has the same r, (z1 - z2)/(s1 + s2). Signers and shared nonces make a graph with
a signature for each edge: a ring (two signers who share two nonces, three who share three, up to eight) has as many
equations as unknowns, and from any signer whose private key the run knows, shared nonces lead to the next. Ed25519 and
Ed448: equal R, and a = (S1 - S2)/(h1 - h2) with h = H(R, A, M). Each r is also looked up among x coordinates of small
and lazy multiples of the base point and among the public keys of the run (k = d). In standard: k = z; and for
signatures of one signer, in order of issue, equal steps (k, k + c, k + 2c), k' = k +- 1, 2k or 2k + 1, and k' = a k + b
with unknown a and b (four in a row). The signer is looked for by name and key identifier in the run.

Cost: parsing, some microseconds a signature, and a sort; for small nonces 0.2 ms a signature below 1,000 of them, a
table of 2 s a curve above. Standard: 0.1 ms a signature, 0.5 ms more where the signer is in the run. A hit costs
milliseconds.

Profiles: fast: equal r and R, rings, small and lazy nonces, k = d. Standard adds k = z and the rules.

Mistakes: none: dG has to be the signer's key, or, where the signer is not in the run, kG has to have the x coordinate
r, which chance allows with probability below 2^-100. The same certificate twice is no reuse: r, s and digest agree.

Blind spots: an issuer with more than 8 keys of one name and no key identifiers. Nonces with a bias but no repetition
need lattices over many signatures and a budget. Rings of more than eight signers. Signatures with a hash that is not
SHA-1 or SHA-2. DSA, EdDSA, rings and the rules only where the signers' keys are in the run. What EdDSA's nonces give
away is the private scalar, which signs as well as the seed, but from which the seed does not follow.

Remedy: the finding is about the signer: revoke it and everything it signed, and replace its signing code by one with
deterministic nonces (RFC 6979) before making a new key.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, product

import gmpy2
import numpy as np
from numpy.typing import NDArray

from keyassay.certificates.fleet import Fleet
from keyassay.certificates.item import Item, Kind
from keyassay.certificates.public_key import DsaPublicKey, EcPublicKey, OkpPublicKey, PublicKey
from keyassay.certificates.signatures import (
    ALGORITHMS,
    EDWARDS,
    AnySignature,
    EdwardsSignature,
    Signature,
    Signer,
    may_sign,
    order_of,
    parse,
    parse_edwards,
    verifies,
)
from keyassay.checks import Context, fleet_check
from keyassay.findings import (
    Classification,
    Confidence,
    DsaPrivateKey,
    EcPrivateKey,
    Evidence,
    Profile,
    Severity,
    Step,
    Value,
    Verdict,
)
from keyassay.keymath import nonces
from keyassay.keymath.curves import (
    multiply,
    multiply_many,
    named_curve,
    named_curves,
    root,
    small_logarithm,
)
from keyassay.keymath.edwards import group_order, multiple_of_base, parameters
from keyassay.lists.lazy import lazy_table
from keyassay.lists.tables import steps

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
#: candidates that are confirmed together
_AT_ONCE = 4_096
#: signers in a ring of shared nonces: each doubles the signs to try, of half a millisecond each
_LONGEST_RING = 8
#: steps of searches, signatures verified and private keys tried for rings, in one run: at most half a minute
_RING_WORK = 50_000


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


@dataclass(frozen=True)
class EdwardsScalar(Evidence):
    """The private scalar of an Ed25519 or Ed448 key: a with aB = A. Whoever has it signs as the owner of the seed does.

    ``notes`` are public facts about how it was found, JSON values.
    """

    a: int
    notes: Mapping[str, Value] = field(default_factory=dict)

    def proves(self, subject: PublicKey | Item) -> bool:
        return (
            isinstance(subject, OkpPublicKey)
            and 0 < self.a < group_order(subject.type)
            and multiple_of_base(subject.type, self.a) == subject.encoded
        )

    def describe(self) -> Mapping[str, Value]:
        return {"proof": "private scalar", **self.notes}

    def secrets(self) -> Mapping[str, Value]:
        return {"a": int(self.a)}

    def steps(self, subject: PublicKey | Item) -> list[Step]:
        assert isinstance(subject, OkpPublicKey)
        p, a, d, x, y = parameters(subject.type)
        size = len(subject.encoded)
        command = f"""python3 -c '
p, a, d, step, total, scalar = {p}, {a}, {d}, ({x}, {y}), (0, 1), {self.a}
def add(one, other):
    (x, y), (u, v) = one, other
    t = d * x * u * y * v
    return (x * v + y * u) * pow(1 + t, -1, p) % p, (y * v - a * x * u) * pow(1 - t, -1, p) % p
while scalar:
    if scalar & 1: total = add(total, step)
    step, scalar = add(step, step), scalar >> 1
print((total[1] | (total[0] & 1) << {8 * size - 1}).to_bytes({size}, "little").hex())'"""
        return [
            Step(f"The key is a point of {subject.type}: {subject.encoded.hex()}"),
            Step(f"Its private scalar is a = {self.a:x}"),
            Step("a times the base point is that point (prints it)", command),
        ]


def _evidence(key: Signer, d: int, notes: Mapping[str, Value]) -> Evidence | None:
    """Proof that d is the signer's private key, or None."""
    found: Evidence
    if isinstance(key, DsaPublicKey):
        found = DsaPrivateKey(d, notes)
    elif isinstance(key, OkpPublicKey):
        found = EdwardsScalar(d, notes)
    else:
        found = EcPrivateKey(d, notes)
    return found if d > 0 and found.proves(key) else None


@dataclass
class _Run:
    """The signatures of a run as columns, and who may have signed what."""

    fleet: Fleet
    owners: list[int] = field(default_factory=list)
    tails: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    signers_known: dict[tuple[bytes, bytes | None, str], list[tuple[int, Signer]]] = field(default_factory=dict)
    reported: set[tuple[int, str]] = field(default_factory=set)
    private_keys: dict[Signer, int] = field(default_factory=dict)

    @cached_property
    def by_subject(self) -> tuple[NDArray[np.void], NDArray[np.intp]]:
        """Digests of subjects, sorted, with ordinals."""
        names = self.fleet.identities["subject"]
        order = np.argsort(names, kind="stable")
        return names[order], order

    def signature(self, place: int) -> Signature | None:
        """The signature in that row of the columns."""
        return self.of(self.owners[place])

    def of(self, ordinal: int) -> Signature | None:
        """The signature of an item."""
        return parse(self.fleet.item(ordinal), ordinal)

    def signers(self, item: Item) -> list[tuple[int, Signer]]:
        """Keys of the run that may have signed an item, with the ordinal of an item that holds each (-1: its own)."""
        fields = item.signed
        if fields is None:
            return []
        if item.kind is Kind.REQUEST or (fields.issuer == fields.subject and item.kind is Kind.CERTIFICATE):
            key = item.key
            if isinstance(key, EcPublicKey | DsaPublicKey | OkpPublicKey) and may_sign(fields.signature_algorithm, key):
                return [(-1, key)]
            return []
        mark = (fields.issuer, fields.authority_key_identifier, fields.signature_algorithm)
        if mark not in self.signers_known:
            names, order = self.by_subject
            name = np.array([hashlib.sha256(fields.issuer).digest()[:16]], dtype="S16")
            begin, end = (int(np.searchsorted(names, name, side=side)[0]) for side in ("left", "right"))
            found: list[tuple[int, Signer]] = []
            for ordinal in sorted(order[begin : min(end, begin + 64)].tolist()):
                other = self.fleet.item(ordinal)
                if not isinstance(other.key, EcPublicKey | DsaPublicKey | OkpPublicKey) or other.signed is None:
                    continue
                if not may_sign(fields.signature_algorithm, other.key):
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
        self, signature: AnySignature, holder: int, key: Signer, d: int, what: str, others: Sequence[int] = ()
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
        self.private_keys[key] = d
        message = f"its signatures give its private key away: {what}"
        for one in self.holders(ordinal):
            self.reported.add((one, what))
            yield one, Verdict(message, evidence)

    def guess(
        self, signature: Signature, guesses: Mapping[str, Sequence[int]], what: str, others: Sequence[int] = ()
    ) -> Iterator[tuple[int, Verdict]]:
        """Turn guesses of a nonce, by curve, into findings on the signer's items, or on the signed ones."""
        item = self.fleet.item(signature.ordinal)
        signers = self.signers(item)
        for holder, key in signers:
            if isinstance(key, EcPublicKey) and (order := order_of(key)) and signature.r < order:
                for k in guesses.get(key.curve, ()):
                    d = signature.private(k, order)
                    if _evidence(key, d, {}) is not None:
                        yield from self.report(signature, holder, key, d, what, others)
                        return
        if signers:
            return
        for name, chosen in guesses.items():
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
        "RFC 8032, 5.1.6",
        "bushing, marcan, segher, sven 2010: Console hacking, PS3 epic fail",
        "Breitner, Heninger 2019: Biased nonce sense",
    ),
)
def fleet_signature_nonce(fleet: Fleet, context: Context) -> Iterator[tuple[int, Verdict]]:
    """Sort by r, look r up, compare r with public keys; then what one signer's signatures have in common."""
    run = _Run(fleet)
    shared = _Shared(run)
    for ordinal, item in _signed_with(fleet, ALGORITHMS):
        signature = parse(item, ordinal)
        if signature is not None:
            run.owners.append(ordinal)
            run.tails.append(signature.r & _LOW)
            run.sizes.append(0 if signature.dsa else signature.r.bit_length())
    yield from _equal_edwards(run, shared)
    rules = context.profile >= Profile.STANDARD
    if run.owners:
        column = np.array(run.tails, dtype=np.uint64)
        yield from _equal(run, column, shared)
        yield from _guessable(run, column)
        yield from _nonce_is_key(run, column)
        needed = len(run.owners) * _BYTES
        if rules and needed > fleet.memory:
            reason = f"rules among nonces: {len(run.owners):,} signatures, needs {needed / 1e9:.1f} GB"
            fleet.not_run("fleet-signature-nonce", f"not run: {reason}; raise --memory")
        elif rules:
            yield from _rules(run)
    yield from shared.solve()


def _signed_with(fleet: Fleet, algorithms: Iterable[str]) -> Iterator[tuple[int, Item]]:
    """Ordinals and items signed with one of these algorithms (dotted OIDs)."""
    rows = fleet.signed_ordinals
    ordinals = sorted(ordinal for oid in algorithms if oid in rows for ordinal in rows[oid].tolist())
    return zip(ordinals, fleet.items(ordinals), strict=True)


# Equal r


def _equal(run: _Run, column: NDArray[np.uint64], shared: _Shared) -> Iterator[tuple[int, Verdict]]:
    """Signatures with one r: of one signer; those of several signers are kept for later."""
    for places in _repeated(column):
        groups: dict[tuple[int, bool], list[Signature]] = {}
        for place in places:
            signature = run.signature(place)
            if signature is not None:
                groups.setdefault((signature.r, signature.dsa), []).append(signature)
        for signatures in groups.values():
            distinct = list({(one.s, one.digest): one for one in reversed(signatures)}.values())[::-1][:_MOST_EQUAL]
            makers: dict[object, list[Signature]] = {}
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
            if len(makers) > 1:
                shared.add(made[0] for made in makers.values())


def _repeated(column: NDArray[np.uint64]) -> Iterator[list[int]]:
    """Places of equal values, rising, for every value that comes more than once."""
    order = np.argsort(column, kind="stable")
    ranked = column[order]
    borders = [0, *(np.flatnonzero(ranked[1:] != ranked[:-1]) + 1).tolist(), len(ranked)]
    for start, end in pairwise(borders):
        if end - start > 1:
            yield sorted(order[start:end].tolist())[: 64 * _MOST_EQUAL]


def _equal_edwards(run: _Run, shared: _Shared) -> Iterator[tuple[int, Verdict]]:
    """EdDSA signatures with one R, of one signer: S1 - S2 = (h1 - h2) a."""
    owners: list[int] = []
    tails: list[int] = []
    for ordinal, item in _signed_with(run.fleet, EDWARDS):
        signature = parse_edwards(item, ordinal)
        if signature is not None:
            owners.append(ordinal)
            tails.append(int.from_bytes(signature.r[:8], "little"))
    for places in _repeated(np.array(tails, dtype=np.uint64)) if owners else ():
        ordinals = [owners[place] for place in places]
        groups: dict[bytes, dict[Signer, dict[tuple[int, bytes], EdwardsSignature]]] = {}
        holders: dict[Signer, int] = {}
        for ordinal, item in zip(ordinals, run.fleet.items(ordinals), strict=True):
            signature = parse_edwards(item, ordinal)
            for holder, key in [] if signature is None else run.signers(item):
                assert signature is not None
                made = groups.setdefault(signature.r, {}).setdefault(key, {})
                if len(made) < _MOST_EQUAL:
                    made.setdefault((signature.s, signature.signed_part), signature)
                    holders.setdefault(key, ordinal if holder < 0 else holder)
        for makers in groups.values():
            for key, signatures in makers.items():
                for one, other in pairwise(signatures.values()):
                    order = group_order(one.kind)
                    (u, t), (u2, t2) = one.line(key), other.line(key)
                    if (t - t2) % order:
                        a = int((u2 - u) * gmpy2.invert(t - t2, order) % order)
                        what = "two signatures with one nonce"
                        found = list(run.report(one, holders[key], key, a, what, [other.ordinal]))
                        yield from found
                        if found:
                            break
            if len(makers) > 1:
                shared.add(next(iter(signatures.values())) for signatures in makers.values())


# One nonce, several signers

#: the group, and R in it
_Nonce = tuple[object, object]


@dataclass
class _Shared:
    """Signers and the nonces they share: a graph whose edges are signatures, k = u + t d."""

    run: _Run
    edges: dict[Signer, dict[_Nonce, AnySignature]] = field(default_factory=dict)
    makers: dict[_Nonce, list[Signer]] = field(default_factory=dict)
    holders: dict[Signer, int] = field(default_factory=dict)
    count: int = 0
    full: bool = False
    work: int = 0

    def add(self, signatures: Iterable[AnySignature]) -> None:
        """Signatures with one nonce, each with another set of possible signers."""
        for signature in list(signatures)[:_MOST_SIGNERS]:
            for holder, key in self.run.signers(self.run.fleet.item(signature.ordinal)):
                order = order_of(key)
                r = signature.r
                if not order or (isinstance(r, int) and (r >= order or signature.s % order == 0)):
                    continue
                if isinstance(key, DsaPublicKey):
                    group: object = (key.p, key.q, key.g)
                else:
                    group = key.type if isinstance(key, OkpPublicKey) else key.curve
                if (self.count + 1) * _BYTES > self.run.fleet.memory:
                    reason = f"nonces of several signers: more than {self.count:,} signatures; raise --memory"
                    if not self.full:
                        self.run.fleet.not_run("fleet-signature-nonce", f"not all done: {reason}")
                    self.full = True
                    return
                mine = self.edges.setdefault(key, {})
                if (group, r) not in mine:
                    mine[group, r] = signature
                    self.makers.setdefault((group, r), []).append(key)
                    self.holders.setdefault(key, signature.ordinal if holder < 0 else holder)
                    self.count += 1

    def solve(self) -> Iterator[tuple[int, Verdict]]:
        """Follow shared nonces from the signers that are known, and from those in rings."""
        known = self.run.private_keys
        for key, holder in self.holders.items():
            d = self.run.fleet.private_keys.get(holder)
            if d is not None and key not in known and _evidence(key, d, {}) is not None:
                known[key] = d
        yield from self._follow([key for key in self.edges if key in known])
        seen: dict[Signer, dict[_Nonce, AnySignature]] = {}
        for key, signatures in self.edges.items():
            for nonce in signatures:
                if key in known:
                    break
                if self.work >= _RING_WORK:
                    reason = "rings of signers who share nonces: too many to try all"
                    self.run.fleet.not_run("fleet-signature-nonce", f"not all done: {reason}")
                    return
                ring = self._ring(seen, key, nonce)
                if ring:
                    yield from self._report(ring)
                    yield from self._follow([one for one, _, _ in ring if one in known])

    def _follow(self, starts: Iterable[Signer]) -> Iterator[tuple[int, Verdict]]:
        """Every signer who shares a nonce with one whose private key is known, and so on."""
        known = self.run.private_keys
        waiting = deque(starts)
        what = "a nonce shared with a signer whose private key is known"
        while waiting:
            key = waiting.popleft()
            for nonce, signature in self.edges[key].items():
                u, t = signature.line(key)
                k = u + t * known[key]
                for partner in self.makers[nonce]:
                    if partner in known:
                        continue
                    theirs = self.edges[partner][nonce]
                    order = order_of(partner)
                    v, w = theirs.line(partner)
                    for sign in _signs(partner):
                        d = int((sign * k - v) * gmpy2.invert(w, order) % order) if w else 0
                        yield from self.run.report(theirs, self.holders[partner], partner, d, what, [signature.ordinal])
                        if partner in known:
                            waiting.append(partner)
                            break

    def _ring(
        self, seen: dict[Signer, dict[_Nonce, AnySignature]], key: Signer, nonce: _Nonce
    ) -> list[tuple[Signer, _Nonce, Signer]]:
        """The shortest ring that an edge closes with those seen before, which it then joins.

        Edges of a ring are verified: one of several keys of a name may not have made a signature.

        Returns:
            (signer, nonce, the next signer) all around, or [].
        """
        while True:
            path = self._path(seen, key, nonce)
            if not path:
                break
            ring = [*path, (path[-1][2], nonce, key)]
            wrong = [
                (one, shared)
                for left, shared, right in ring
                for one in (left, right)
                if not self._made(one, self.edges[one][shared])
            ]
            if not wrong:
                return ring
            for one, shared in wrong:
                seen.get(one, {}).pop(shared, None)
            if (key, nonce) in wrong:
                return []
        seen.setdefault(key, {})[nonce] = self.edges[key][nonce]
        return []

    def _path(
        self, seen: dict[Signer, dict[_Nonce, AnySignature]], key: Signer, goal: _Nonce
    ) -> list[tuple[Signer, _Nonce, Signer]]:
        """The shortest way from a signer to one who shares a nonce, through edges seen before, or []."""
        came: dict[Signer, tuple[Signer, _Nonce] | None] = {key: None}
        level = [key]
        for _ in range(_LONGEST_RING - 1):
            following: list[Signer] = []
            for one in level:
                for nonce in seen.get(one, ()):
                    for partner in self.makers[nonce]:
                        self.work += 1
                        if partner in came or nonce not in seen.get(partner, ()):
                            continue
                        came[partner] = (one, nonce)
                        if goal in seen[partner]:
                            return _way(came, partner)
                        following.append(partner)
            level = following
        return []

    def _made(self, key: Signer, signature: AnySignature) -> bool:
        """Whether a signer made a signature: it verifies."""
        self.work += 1
        return verifies(key, signature)

    def _report(self, ring: list[tuple[Signer, _Nonce, Signer]]) -> Iterator[tuple[int, Verdict]]:
        """Findings on all signers of a ring: d' = (+-(u + t d) - u')/t' all around leads back to d."""
        first = ring[0][0]
        order = order_of(first)
        links = []
        for one, nonce, other in ring:
            (u, t), (v, w) = self.edges[one][nonce].line(one), self.edges[other][nonce].line(other)
            inverse = gmpy2.invert(w, order) if w else 0
            links.append((t * inverse % order, u * inverse % order, v * inverse % order))
        for signs in product(_signs(first), repeat=len(ring)):
            self.work += 1
            factor, rest = 1, 0
            for sign, (slope, above, below) in zip(signs, links, strict=True):
                factor, rest = sign * slope * factor % order, (sign * (slope * rest + above) - below) % order
            if (1 - factor) % order == 0:
                continue
            d = int(rest * gmpy2.invert(1 - factor, order) % order)
            if _evidence(first, d, {}) is None:
                continue
            number = _NUMBERS[len(ring)]
            what = f"{number} signers share {number} nonces"
            for sign, (one, nonce, _), (slope, above, below) in zip(signs, ring, links, strict=True):
                signature = self.edges[one][nonce]
                others = [self.edges[left][shared].ordinal for left, shared, right in ring for left in (left, right)]
                yield from self.run.report(signature, self.holders[one], one, d, what, others)
                d = int((sign * (slope * d + above) - below) % order)
            return


_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


def _signs(key: Signer) -> tuple[int, ...]:
    """What r leaves open: an x coordinate belongs to k and -k, a number modulo p and an Edwards point to k alone."""
    return (1, -1) if isinstance(key, EcPublicKey) else (1,)


def _way(came: Mapping[Signer, tuple[Signer, _Nonce] | None], end: Signer) -> list[tuple[Signer, _Nonce, Signer]]:
    """The steps that a search took to its end, in order."""
    steps = []
    while (step := came[end]) is not None:
        steps.append((step[0], step[1], end))
        end = step[0]
    return steps[::-1]


def _repeated_nonces(one: Signature, other: Signature, order: int) -> list[int]:
    """Candidates for the nonce of two signatures with equal r by one signer."""
    return nonces.repeated((one.s, one.z(order)), (other.s, other.z(order)), order)


def _one_nonce(run: _Run, one: Signature, other: Signature) -> Iterator[tuple[int, Verdict]]:
    """The finding if one signer made both with one nonce."""
    what = "two signatures with one nonce"
    item, partner = run.fleet.item(one.ordinal), run.fleet.item(other.ordinal)
    signers = run.signers(item)
    for holder, key in signers:
        order = order_of(key)
        if not order or one.r >= order:
            continue
        for k in _repeated_nonces(one, other, order):
            yield from run.report(one, holder, key, one.private(k, order), what, [other.ordinal])
    if signers or run.signers(partner) or one.dsa or item.signed is None or partner.signed is None:
        return
    if item.signed.issuer == partner.signed.issuer:
        guesses = {
            name: _repeated_nonces(one, other, int(curve.order))
            for name in USUAL
            if one.r < (curve := named_curves()[name]).order
            and one.r.bit_length() > int(curve.order).bit_length() - _SHORT
        }
        yield from run.guess(one, guesses, what, [other.ordinal])


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
            if isinstance(key, DsaPublicKey) and order_of(key) and signature is not None:
                for k in nonces.small_powers(key.p, key.q, key.g).get(signature.r, ()):
                    d = signature.private(k, key.q)
                    yield from run.report(signature, holder, key, d, "a nonce that anyone guesses")


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
            order = order_of(key)
            if not order:
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
    known: dict[tuple[int, Signer], list[tuple[tuple[int, int], Signature]]] = {}
    nobody: list[Signature] = []
    for ordinal, item in zip(run.owners, run.fleet.items(run.owners), strict=True):
        signature = parse(item, ordinal)
        if signature is None:
            continue
        signers = [
            (ordinal if holder < 0 else holder, key)
            for holder, key in run.signers(item)
            if (order := order_of(key)) and signature.r < order and signature.s < order
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
        assert isinstance(key, EcPublicKey)
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
    involved: list[Signature]

    def report(self, run: _Run) -> Iterator[tuple[int, Verdict]]:
        """Findings, if it is the private key."""
        ordinals = [one.ordinal for one in self.involved]
        return run.report(self.involved[0], self.holder, self.key, self.d, self.rule, ordinals)


def _candidates(holder: int, key: Signer, signatures: list[Signature]) -> Iterator[_Candidate]:
    """What follows from each rule, for one signer's signatures in order of issue."""
    order = order_of(key)
    for one in signatures:
        d = int(one.z(order) * (one.s - 1) * gmpy2.invert(one.r, order) % order)
        yield _Candidate(holder, key, d, "the nonce is the digest", [one])
    unique = list({(one.r, one.s): one for one in signatures}.values())
    lines = [one.line(key) for one in unique]
    for place in range(len(unique)):
        for d, rule, count in nonces.successive(lines[place : place + 4], order):
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
