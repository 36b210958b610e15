"""Elliptic curve keys of one fleet whose private keys differ by little, or only in their sign.

Weakness: private keys made as a secret plus a counter, or from a serial number, are all lost as soon as one is: Q1 - Q2
is a small multiple of the base point, which tells the difference of the private keys. It also tells that the generator
does not draw keys independently. Where another check of the same run has found one of the private keys, the others are
broken now, not only weak.

Method: for every point Q the x coordinates of Q + uG, |u| <= 16, go into one table, and those of Q + 33 v G, |v| <= 31,
are looked up in it: every pair with |d1 -+ d2| <= 1,039 meets. x(Q) = x(-Q) covers both signs. A meeting in 64 bits is
confirmed by the exact difference. Deep: |u| and |v| up to 2,896, differences up to 16 million, and differences up to
1,039 times 2^16, 2^24, 2^32 and so on: counters in a higher place of the number. Relations are followed from
every key whose private key the run has found (small, on a list, Debian's, lost to a nonce): d = +-d' + v, along chains
of any length.

Cost: 0.2 ms a key, and 1 KB of memory a key while it runs; deep 20 ms and 140 KB, less where memory is short: the reach
is then 1 million (35 KB a key) or 65,884 (9 KB). A related key costs 0.1 ms more, a
broken one 0.5 ms.

Profiles: standard: differences up to 1,039. Deep: up to 16 million, and counters at any byte.

Mistakes: none: the difference is computed and multiplied back. Two independent keys are that close with probability
2^-240. A finding of class broken carries d, and the public key was computed from it.

Blind spots: relations other than such a difference. No private key follows from the
relation alone: the class is weak unless the same run finds one of the private keys, with the checks that were asked
for. A key that another check has broken gets no second finding here.

Remedy: find the generator that made them and replace its keys; treat the loss of one as the loss of all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from keyassay.certificates.fleet import Fleet
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import EcPublicKey, PublicKey
from keyassay.checks import Context, fleet_check
from keyassay.findings import (
    Classification,
    Confidence,
    EcPrivateKey,
    Evidence,
    Profile,
    Severity,
    Value,
    Verdict,
)
from keyassay.keymath.close_points import Reach, bytes_needed, close_pairs, largest, relation
from keyassay.keymath.curves import Curve, add, affine, multiply, named_curve, negate

#: (arms, giant steps): differences up to 1,039, and what deep tries, the largest that memory allows
_STANDARD: Reach = (16, 31)
_DEEP: tuple[Reach, ...] = ((2896, 2896), (724, 724), (181, 181))
#: bits at whose borders deep looks for counters; lower ones are within its reach anyway
_BYTE = 8
_FIRST_SHIFT = 16


@dataclass(frozen=True)
class RelatedKey(Evidence):
    """The other key and the relation: Q = sign Q' + vG."""

    curve: str
    other: bytes
    partner: str
    sign: int
    v: int

    def proves(self, subject: PublicKey | Item) -> bool:
        curve = named_curve(self.curve)
        if curve is None or not isinstance(subject, EcPublicKey) or subject.curve != self.curve:
            return False
        one, other = affine(curve, subject.point), affine(curve, self.other)
        if one is None or other is None or one == other:
            return False
        shifted = add(curve, other if self.sign == 1 else negate(curve, other), multiply(curve, self.v, curve.base))
        return shifted == one

    def describe(self) -> Mapping[str, Value]:
        return {"partner": self.partner, "relation": _relation(self.sign, self.v)}


def _relation(sign: int, v: int) -> str:
    return f"d = {'-' if sign < 0 else ''}d' {'-' if v < 0 else '+'} {_size(abs(v))}"


def _size(v: int) -> str:
    """A difference in writing: large ones are a small number at the border of a byte."""
    shift = ((v & -v).bit_length() - 1) // _BYTE * _BYTE if v >> 32 else 0
    return f"{v >> shift} * 2^{shift}" if shift else str(v)


def _signed(v: int) -> str:
    return f"{'-' if v < 0 else '+'}{_size(abs(v))}"


@dataclass(frozen=True, slots=True)
class _Edge:
    """Q = sign Q' + vG, from row to row of the points."""

    partner: int
    sign: int
    v: int


@dataclass(frozen=True, slots=True)
class _Known:
    """A private key: that of the item ``ordinal``, multiplied by ``sign`` and moved by ``v``."""

    d: int
    ordinal: int
    sign: int
    v: int


class _Groups:
    """Which points are connected: a pair in one group adds nothing."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def top(self, row: int) -> int:
        """The row that stands for its group."""
        while self._above[row] != row:
            self._above[row] = self._above[self._above[row]]
            row = self._above[row]
        return row

    def join(self, one: int, other: int) -> None:
        """Make two groups one."""
        self._above[self.top(one)] = self.top(other)


def _follow(edges: Mapping[int, list[_Edge]], roots: Mapping[int, _Known], order: int) -> dict[int, _Known]:
    """The private keys of all points that relations lead to from known ones, by row."""
    known = dict(roots)
    waiting = deque(known)
    while waiting:
        row = waiting.popleft()
        # Q = sign Q' + vG: the edges of a row give its own Q, so the partner's is Q' = sign (Q - vG)
        for edge in edges[row]:
            if edge.partner not in known:
                mine = known[row]
                d = edge.sign * (mine.d - edge.v) % order
                known[edge.partner] = _Known(d, mine.ordinal, edge.sign * mine.sign, edge.sign * (mine.v - edge.v))
                waiting.append(edge.partner)
    return known


@fleet_check(
    id="fleet-related-ec-keys",
    title="related private keys",
    classification=Classification.WEAK,
    severity=Severity.HIGH,
    confidence=Confidence.PROVEN,
    profile=Profile.STANDARD,
    version=2,
    references=("google/paranoid_crypto: CheckECKeySmallDifference",),
    after=("fleet-signature-nonce",),
)
def fleet_related_ec_keys(fleet: Fleet, context: Context) -> Iterator[tuple[int, Verdict]]:
    """Curve by curve: one sorted table for all keys."""
    for name, (ordinals, octets) in sorted(fleet.points.items()):
        curve = named_curve(name)
        if curve is None or curve.binary or len(set(octets)) < 2:
            continue
        first: dict[bytes, int] = {}
        for position, point in enumerate(octets):
            first.setdefault(point, position)
        reaches = (*_DEEP, _STANDARD) if context.profile >= Profile.DEEP else (_STANDARD,)
        fitting = [one for one in reaches if bytes_needed(len(first), one) <= fleet.memory]
        if fitting[:1] != list(reaches[:1]):
            needed = bytes_needed(len(first), reaches[0])
            done = f"differences above {largest(fitting[0]):,}: " if fitting else ""
            reason = f"not run: {done}{len(first):,} keys on {name}, needs {needed / 1e9:.1f} GB; raise --memory"
            fleet.not_run("fleet-related-ec-keys", reason)
        if fitting:
            deep = context.profile >= Profile.DEEP
            yield from _curve(fleet, curve, ordinals.tolist(), octets, list(first.values()), fitting[0], deep=deep)


def _curve(
    fleet: Fleet, curve: Curve, ordinals: list[int], octets: list[bytes], chosen: list[int], reach: Reach, *, deep: bool
) -> Iterator[tuple[int, Verdict]]:
    points: list[tuple[int, int]] = []
    met: set[tuple[int, int]] = set()
    owners: list[int] = []
    for position in chosen:
        point = affine(curve, octets[position])
        if point is None or point in met:  # the same point, compressed and in full
            continue
        met.add(point)
        points.append(point)
        owners.append(position)
    edges: dict[int, list[_Edge]] = {}
    groups = _Groups(len(points))
    shifts = [0, *range(_FIRST_SHIFT, curve.order.bit_length() - _BYTE, _BYTE)] if deep else [0]
    progress = fleet.progress("fleet-related-ec-keys")
    for number, shift in enumerate(shifts):
        base = curve.base if not shift else multiply(curve, 1 << shift, curve.base)
        assert base is not None

        def part(share: float, number: int = number) -> None:
            progress((number + share) / len(shifts))

        pairs = close_pairs(curve, points, _STANDARD if shift else reach, base, part)
        for (one, other), sizes in pairs.items():
            if groups.top(one) == groups.top(other):
                continue
            found = relation(curve, points[one], points[other], sizes, base)
            if found is None:
                continue
            sign, v = found[0], found[1] << shift
            groups.join(one, other)
            edges.setdefault(one, []).append(_Edge(other, sign, v))
            edges.setdefault(other, []).append(_Edge(one, sign, -v * sign))
    holders: dict[tuple[int, int], list[int]] = {}
    wanted = {points[row] for row in edges}
    if wanted:
        for ordinal, encoded in zip(ordinals, octets, strict=True):
            point = affine(curve, encoded)
            if point in wanted and point is not None:
                holders.setdefault(point, []).append(ordinal)
    known = _follow(edges, dict(_found(fleet, curve, {row: points[row] for row in edges}, holders)), int(curve.order))
    for row, relations in edges.items():
        if row in known:
            verdict = _broken(fleet, known[row])
        else:
            partner = relations[0].partner
            verdict = _weak(fleet, curve.name, ordinals[owners[partner]], octets[owners[partner]], relations[0])
        for ordinal in holders[points[row]]:
            if ordinal not in fleet.private_keys:
                yield ordinal, verdict


def _found(
    fleet: Fleet, curve: Curve, related: Mapping[int, tuple[int, int]], holders: Mapping[tuple[int, int], Iterable[int]]
) -> Iterator[tuple[int, _Known]]:
    """Those points whose private key another check has found, by row."""
    for row, point in related.items():
        for ordinal in holders[point]:
            d = fleet.private_keys.get(ordinal)
            if d is not None and multiply(curve, d, curve.base) == point:
                yield row, _Known(d, ordinal, 1, 0)
                break


def _broken(fleet: Fleet, known: _Known) -> Verdict:
    root = fleet.item(known.ordinal)
    place = f"{root.source}#{root.index}"
    relation = _relation(known.sign, known.v)
    message = f"its private key follows from that of {place}, which is broken: {relation}"
    notes: dict[str, Value] = {"partner": place, "relation": relation}
    return Verdict(message, EcPrivateKey(known.d, notes), Classification.BROKEN, Severity.CRITICAL)


def _weak(fleet: Fleet, curve_name: str, ordinal: int, octets: bytes, relation: _Edge) -> Verdict:
    partner = fleet.item(ordinal)
    place = f"{partner.source}#{partner.index}"
    message = f"its private key differs from that of {place} by {_signed(relation.v)}"
    if relation.sign < 0:
        message = f"its private key is that of {place} negated, {_signed(relation.v)}"
    return Verdict(message, RelatedKey(curve_name, octets, place, relation.sign, int(relation.v)))
