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
Deep: for each signer, lattices whose shortest vector tells d where nonces are short, agree in their first or last bits,
repeat each byte four times, are words of a known generator (java.util.Random, drand48, MMIX, GMP's congruential ones),
or have any structure in common that one multiplication makes visible; and pairs of nonces whose sum or difference is at
most 65,884, by their points. The signer need not be in the run.

Cost: parsing, some microseconds a signature, and a sort; for small nonces 0.2 ms a signature below 1,000 of them, a
table of 2 s a curve above. Standard: 0.1 ms a signature, 0.5 ms more where the signer is in the run. A hit costs
milliseconds. Deep: 1 ms a signature, and 1 to 12 s a signer; at most twice the budget of a key (10 s), and 120 times
it (10 minutes) for all signers, those with many signatures first. What there is no time for is said, and a later run
with the same store (--against) goes on there: lattices over the same signatures of a signer are tried once.

Profiles: fast: equal r and R, rings, small and lazy nonces, k = d. Standard adds k = z and the rules. Deep adds
what takes lattices.

Mistakes: none: dG has to be the signer's key, or, where the signer is not in the run, kG has to have the x coordinate
r, which chance allows with probability below 2^-100. The same certificate twice is no reuse: r, s and digest agree.

Blind spots: signatures of earlier runs, which a store does not keep: a signer's have to be in one run. An issuer with
more than 8 keys of one name and no key identifiers. Rings of more than eight signers. Signatures with a hash that is
not SHA-1 or SHA-2. DSA, EdDSA, rings and the rules only where the signers' keys are in the run. What EdDSA's nonces
give away is the private scalar, which signs as well as the seed, but from which the seed does not follow. Deep needs so
many signatures with a flaw, on P-256: 3 for 87 bits missing of each nonce, 5 for 52, 9 for 30, 17 for 16, 40 for 8, 60
for 6; below that nothing is found. Where nonces agree without being short, one or two more, and 60 for 7 bits. Numbers
of GMP: 2 for states of up to 64 bits, 3 for 128, 5 for 196, 6 for 200; of generators that are not known 22 to 48 where
half of each state is seen. Of a signer with sound and flawed nonces, 4 or 10 flawed ones in a row. Timing and power
traces tell which nonces are short (Minerva, TPM-FAIL, LadderLeak): the certificates don't. Generators with their words
in other orders.

Remedy: the finding is about the signer: revoke it and everything it signed, and replace its signing code by one with
deterministic nonces (RFC 6979) before making a new key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, pairwise

import gmpy2
import numpy as np
from numpy.typing import NDArray

from keyassay.certificates.fleet import Fleet
from keyassay.certificates.public_key import DsaPublicKey, EcPublicKey
from keyassay.certificates.shared_nonces import SharedNonces
from keyassay.certificates.signatures import (
    ALGORITHMS,
    EDWARDS,
    AnySignature,
    EdwardsSignature,
    Signature,
    Signer,
    order_of,
    parse,
    parse_edwards,
)
from keyassay.certificates.signers import Signers, key_tails, signed_with
from keyassay.certificates.uneven_nonces import Allowance, biased_nonces, biased_nonces_of_absent, close_nonces
from keyassay.checks import Context, fleet_check
from keyassay.findings import (
    Classification,
    Confidence,
    NonceOfSigner,
    Profile,
    Severity,
    Value,
    Verdict,
    proof_of,
)
from keyassay.keymath import nonces
from keyassay.keymath.curves import (
    multiply_many,
    named_curves,
    root,
    small_logarithm,
)
from keyassay.keymath.edwards import group_order
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
#: signatures of one r that are looked at
_MOST_PLACES = 1_024
#: bytes that one signature takes while the rules are tried
_BYTES = 700
_LOW = (1 << 64) - 1
#: candidates that are confirmed together
_AT_ONCE = 4_096


@dataclass
class _Run:
    """The signatures of a run as columns, and who may have signed what."""

    fleet: Fleet
    owners: list[int] = field(default_factory=list)
    tails: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    reported: set[tuple[int, str]] = field(default_factory=set)
    private_keys: dict[Signer, int] = field(default_factory=dict)

    @cached_property
    def signers(self) -> Signers:
        """Who may have signed what."""
        return Signers(self.fleet)

    def signature(self, place: int) -> Signature | None:
        """The signature in that row of the columns."""
        return self.of(self.owners[place])

    def of(self, ordinal: int) -> Signature | None:
        """The signature of an item."""
        return parse(self.fleet.item(ordinal), ordinal)

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
        evidence = proof_of(key, d, {"signatures": places, "cause": what})
        if evidence is None:
            return
        self.private_keys[key] = d
        message = f"its signatures give its private key away: {what}"
        for one in self.signers.holders(ordinal):
            self.reported.add((one, what))
            yield one, Verdict(message, evidence)

    def guess(
        self, signature: Signature, guesses: Mapping[str, Sequence[int]], what: str, others: Sequence[int] = ()
    ) -> Iterator[tuple[int, Verdict]]:
        """Turn guesses of a nonce, by curve, into findings on the signer's items, or on the signed ones."""
        item = self.fleet.item(signature.ordinal)
        signers = self.signers.of(item)
        for holder, key in signers:
            if isinstance(key, EcPublicKey) and (order := order_of(key)) and signature.r < order:
                for k in guesses.get(key.curve, ()):
                    d = signature.private(k, order)
                    if proof_of(key, d, {}) is not None:
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
    title="signature nonce reused or guessable",
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    version=2,
    references=(
        "FIPS 186-4, 6.4",
        "RFC 6979",
        "RFC 8032, 5.1.6",
        "bushing, marcan, segher, sven 2010: Console hacking, PS3 epic fail",
        "Howgrave-Graham, Smart 2001: Lattice attacks on digital signature schemes",
        "Breitner, Heninger 2019: Biased nonce sense",
        "CVE-2024-31497",
        "google/paranoid_crypto: CheckLCGNonceGMP, CheckCr50U2f",
    ),
)
def fleet_signature_nonce(fleet: Fleet, context: Context) -> Iterator[tuple[int, Verdict]]:
    """Sort by r, look r up, compare r with public keys; then what one signer's signatures have in common."""
    run = _Run(fleet)
    shared = SharedNonces(
        run.signers,
        run.private_keys,
        "fleet-signature-nonce",
        run.report,
        lambda key, d: proof_of(key, d, {}) is not None,
    )
    for ordinal, item in signed_with(fleet, ALGORITHMS):
        signature = parse(item, ordinal)
        if signature is not None:
            run.owners.append(ordinal)
            run.tails.append(signature.r & _LOW)
            run.sizes.append(0 if signature.dsa else signature.r.bit_length())
    edwards = [ordinal for ordinal, _ in signed_with(fleet, EDWARDS)]
    yield from _equal_edwards(run, shared)
    rules, deep = context.profile >= Profile.STANDARD, context.profile >= Profile.DEEP
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
            made, nobody = run.signers.work_of(run.owners, parse)
            nobody = [one for one in nobody if not one.dsa]
            yield from _rules(run, made, nobody)
            if deep:
                yield from _uneven(run, context, made, nobody)
    if deep and edwards:
        yield from _uneven(run, context, run.signers.work_of(edwards, parse_edwards)[0], [])
    yield from shared.solve()


# Equal r

_Shared = SharedNonces[tuple[int, Verdict]]


def _equal(run: _Run, column: NDArray[np.uint64], shared: _Shared) -> Iterator[tuple[int, Verdict]]:
    """Signatures with one r: of one signer; those of several signers are kept for later."""
    for places in nonces.repeated_places(column, _MOST_PLACES):
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
                signers = tuple(key for _, key in run.signers.of(item))
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


def _equal_edwards(run: _Run, shared: _Shared) -> Iterator[tuple[int, Verdict]]:
    """EdDSA signatures with one R, of one signer: S1 - S2 = (h1 - h2) a."""
    owners: list[int] = []
    tails: list[int] = []
    for ordinal, item in signed_with(run.fleet, EDWARDS):
        signature = parse_edwards(item, ordinal)
        if signature is not None:
            owners.append(ordinal)
            tails.append(int.from_bytes(signature.r[:8], "little"))
    for places in nonces.repeated_places(np.array(tails, dtype=np.uint64), _MOST_PLACES):
        ordinals = [owners[place] for place in places]
        groups: dict[bytes, dict[Signer, dict[tuple[int, bytes], EdwardsSignature]]] = {}
        holders: dict[Signer, int] = {}
        for ordinal, item in zip(ordinals, run.fleet.items(ordinals), strict=True):
            signature = parse_edwards(item, ordinal)
            for holder, key in [] if signature is None else run.signers.of(item):
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


def _one_nonce(run: _Run, one: Signature, other: Signature) -> Iterator[tuple[int, Verdict]]:
    """The finding if one signer made both with one nonce."""
    what = "two signatures with one nonce"
    item, partner = run.fleet.item(one.ordinal), run.fleet.item(other.ordinal)
    signers = run.signers.of(item)
    for holder, key in signers:
        order = order_of(key)
        if not order or one.r >= order:
            continue
        for k in nonces.repeated(one.equation(order), other.equation(order), order):
            yield from run.report(one, holder, key, one.private(k, order), what, [other.ordinal])
    if signers or run.signers.of(partner) or one.dsa or item.signed is None or partner.signed is None:
        return
    if item.signed.issuer == partner.signed.issuer:
        guesses = {
            name: nonces.repeated(one.equation(int(curve.order)), other.equation(int(curve.order)), int(curve.order))
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
        for holder, key in [] if signature is None else run.signers.of(run.fleet.item(signature.ordinal)):
            if isinstance(key, DsaPublicKey) and order_of(key) and signature is not None:
                for k in nonces.small_powers(key.p, key.q, key.g).get(signature.r, ()):
                    d = signature.private(k, key.q)
                    yield from run.report(signature, holder, key, d, "a nonce that anyone guesses")


def _nonce_is_key(run: _Run, column: NDArray[np.uint64]) -> Iterator[tuple[int, Verdict]]:
    """R is the x coordinate of a key: the nonce was d or -d, so d = z/(s - r) or -z/(s + r)."""
    known = key_tails(run.fleet)
    rows = np.flatnonzero(np.isin(column, known)) if len(known) else np.zeros(0, dtype=np.intp)
    dsa = [place for place, size in enumerate(run.sizes) if not size]
    for row in [*rows.tolist(), *dsa]:
        signature = run.signature(row)
        if signature is None:
            continue
        for holder, key in run.signers.of(run.fleet.item(signature.ordinal)):
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


def _rules(
    run: _Run, made: Mapping[tuple[int, Signer], list[Signature]], nobody: Sequence[Signature]
) -> Iterator[tuple[int, Verdict]]:
    """K = z, and rules among successive nonces of one signer."""
    waiting: dict[str, list[_Candidate]] = {}
    for (holder, key), signatures in made.items():
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


# Nonces that are close to each other, or not uniform


def _uneven(
    run: _Run,
    context: Context,
    made: Mapping[tuple[int, Signer], Sequence[AnySignature]],
    nobody: Sequence[Signature],
) -> Iterator[tuple[int, Verdict]]:
    """What lattices and small differences say, within the budget."""

    def leave_out(reason: str) -> None:
        context.leave_out("fleet-signature-nonce", reason)

    close = close_nonces(run.signers, made, run.private_keys, leave_out)
    work = Allowance(context.budget, run.fleet, "fleet-signature-nonce")
    for lost in chain(close, biased_nonces(run.signers, made, run.private_keys, work)):
        yield from run.report(*lost)
    for absent in biased_nonces_of_absent(run.signers, nobody, USUAL[:4], work):
        one, name, k, what, others = absent
        yield from run.guess(one, {name: [k]}, what, others)
    if work.left_out:
        leave_out(work.left_out)
