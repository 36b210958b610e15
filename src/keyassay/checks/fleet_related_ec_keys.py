"""Elliptic curve keys of one fleet whose private keys differ by little, or only in their sign.

Weakness: private keys made as a secret plus a counter, or from a serial number, are all lost as soon as one is: Q1 - Q2
is a small multiple of the base point, which tells the difference of the private keys. It also tells that the generator
does not draw keys independently. Where another check of the same run has found one of the private keys, the others are
broken now, not only weak.

Method: for every point Q the x coordinates of Q + uG, |u| <= 16, go into one table, and those of Q + 33 v G, |v| <= 31,
are looked up in it: every pair with |d1 -+ d2| <= 1,039 meets. x(Q) = x(-Q) covers both signs. A meeting in 64 bits is
confirmed by the exact difference. Deep: |u| and |v| up to 181, differences up to 65,884. Relations are followed from
every key whose private key the run has found (small, on a list, Debian's, lost to a nonce): d = +-d' + v, along chains
of any length.

Cost: 0.2 ms a key, and 3 KB of memory a key while it runs; deep 1 ms and 12 KB. A related key costs 0.1 ms more, a
broken one 0.5 ms.

Profiles: standard: differences up to 1,039. Deep: up to 65,884.

Mistakes: none: the difference is computed and multiplied back. Two independent keys are that close with probability
2^-240. A finding of class broken carries d, and the public key was computed from it.

Blind spots: relations other than a small difference; differences in higher words. No private key follows from the
relation alone: the class is weak unless the same run finds one of the private keys, with the checks that were asked
for. A key that another check has broken gets no second finding here.

Remedy: find the generator that made them and replace its keys; treat the loss of one as the loss of all.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

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
from keyassay.keymath.curves import (
    Curve,
    Point,
    add,
    affine,
    multiples,
    multiply,
    named_curve,
    named_curves,
    negate,
    neighbours,
)

#: (arms, giant steps) by profile
STEPS = {Profile.STANDARD: (16, 31), Profile.DEEP: (181, 181)}
_LOW = (1 << 64) - 1


def reach(profile: Profile) -> int:
    """The largest difference that is seen."""
    arms, giants = STEPS[max(profile, Profile.STANDARD)]
    return giants * (2 * arms + 1) + arms


@lru_cache(maxsize=8)
def _small_multiples(name: str, count: int) -> dict[int, int]:
    curve = named_curves()[name]
    return {int(point[0]): v for v, point in enumerate(multiples(curve, curve.base, count), start=1)}


def difference(curve: Curve, one: tuple[int, int], other: tuple[int, int], most: int) -> tuple[int, int] | None:
    """(sign, v) with one = sign other + vG and |v| up to about ``most``, or None."""
    for sign in (1, -1):
        signed: Point = negate(curve, other) if sign == 1 else other
        rest = add(curve, one, signed)
        if rest is None:
            return sign, 0
        v = _small_multiples(curve.name, most).get(int(rest[0]))
        if v is not None:
            return sign, v if multiply(curve, v, curve.base) == rest else -v
    return None


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
    return f"d = {'-' if sign < 0 else ''}d' {'-' if v < 0 else '+'} {abs(v)}"


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
        # a table and probes of 8 bytes, their sorted copy, its order, and the places of the probes
        needed = len(first) * 8 * sum(map(operator.mul, STEPS[max(context.profile, Profile.STANDARD)], (8, 6)))
        if needed > fleet.memory:
            reason = f"not run: {len(first):,} keys on {name}, needs {needed / 1e9:.1f} GB; raise --memory"
            fleet.not_run("fleet-related-ec-keys", reason)
            continue
        yield from _curve(fleet, curve, ordinals.tolist(), octets, list(first.values()), context.profile)


def _curve(
    fleet: Fleet, curve: Curve, ordinals: list[int], octets: list[bytes], chosen: list[int], profile: Profile
) -> Iterator[tuple[int, Verdict]]:
    arm_count, giant_count = STEPS[max(profile, Profile.STANDARD)]
    arms = multiples(curve, curve.base, arm_count)
    step = multiply(curve, 2 * arm_count + 1, curve.base)
    assert step is not None
    giants = multiples(curve, step, giant_count)
    points: list[tuple[int, int]] = []
    met: set[tuple[int, int]] = set()
    owners: list[int] = []
    table = np.zeros((len(chosen), 2 * arm_count + 1), dtype=np.uint64)
    probes = np.zeros((len(chosen), 2 * giant_count), dtype=np.uint64)
    progress = fleet.progress("fleet-related-ec-keys")
    for number, position in enumerate(chosen):
        point = affine(curve, octets[position])
        if point is None or point in met:  # the same point, compressed and in full
            continue
        met.add(point)
        row = len(points)
        points.append(point)
        owners.append(position)
        table[row] = [point[0] & _LOW, *(x & _LOW for pair in neighbours(curve, point, arms) for x in pair)]
        probes[row] = [x & _LOW for pair in neighbours(curve, point, giants) for x in pair]
        if number % 4096 == 0:
            progress(number / len(chosen))
    table, probes = table[: len(points)], probes[: len(points)]
    flat = table.reshape(-1)
    order = np.argsort(flat, kind="stable")
    ranked = flat[order]
    pairs: set[tuple[int, int]] = set()
    for place in np.flatnonzero(ranked[1:] == ranked[:-1]).tolist():
        one, other = sorted((int(order[place]) // table.shape[1], int(order[place + 1]) // table.shape[1]))
        if one != other:
            pairs.add((one, other))
    places = np.searchsorted(ranked, probes.reshape(-1))
    places[places == len(ranked)] = 0
    for probe in np.flatnonzero(ranked[places] == probes.reshape(-1)).tolist():
        one, other = sorted((probe // probes.shape[1], int(order[places[probe]]) // table.shape[1]))
        if one != other:
            pairs.add((one, other))
    holders: dict[tuple[int, int], list[int]] = {}
    wanted = {points[row] for pair in pairs for row in pair}
    if wanted:
        for ordinal, encoded in zip(ordinals, octets, strict=True):
            point = affine(curve, encoded)
            if point in wanted and point is not None:
                holders.setdefault(point, []).append(ordinal)
    edges: dict[int, list[_Edge]] = {}
    groups = _Groups(len(points))
    for one, other in sorted(pairs):
        if groups.top(one) == groups.top(other):
            continue
        relation = difference(curve, points[one], points[other], reach(profile))
        if relation is None:
            continue
        sign, v = relation
        groups.join(one, other)
        edges.setdefault(one, []).append(_Edge(other, sign, v))
        edges.setdefault(other, []).append(_Edge(one, sign, -v * sign))
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
    message = f"its private key differs from that of {place} by {relation.v:+d}"
    if relation.sign < 0:
        message = f"its private key is that of {place} negated, {relation.v:+d}"
    return Verdict(message, RelatedKey(curve_name, octets, place, relation.sign, int(relation.v)))
