"""Elliptic curve keys that spell their curve out instead of naming it.

Weakness: whoever chooses the parameters chooses how hard the key is. Another generator on a well-known curve
(CVE-2020-0601, "CurveBall") gives a public key that anyone can have the private key of: G = Q makes d = 1. A composite
field, a singular curve, an order that is not the generator's, or as many points as the field has (anomalous) make the
discrete logarithm easy. RFC 5480 forbids explicit parameters in certificates.

Method: (p, a, b) is compared with the named curves; where it is one of them, generator, order and cofactor have to
agree. Otherwise: p prime, curve not singular, generator and public point on the curve, generator times order at
infinity, order prime and within Hasse's bound, order different from p, and no embedding degree up to 100 that leads to
a field below 2048 bits. The private key is computed where the generator is a small multiple of the public point or the
other way round, on singular curves with a cusp, on anomalous curves (Smart's lift), and for orders up to 2^24.

Cost: microseconds for known curves, 1 to 50 ms for others.

Profiles: the comparison in fast, the arithmetic on unknown curves from standard; orders up to 2^40 in deep.

Mistakes: none: broken means a private key, an exact contradiction or another generator. Parameters equal to a named
curve's are a notice, or weak where ec-weak-curve would call the named curve weak.

Blind spots: an unknown curve that passes all tests is called weak because nobody has examined it, which proves nothing.
Unknown curves over binary fields get no arithmetic. Parameters above 1024 bits are refused.

Remedy: a new key that names its curve.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import gmpy2

from keyassay.certificates.batches import EcBatch
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import EcPublicKey, ExplicitParameters, PublicKey
from keyassay.checks import Context, batch_check
from keyassay.findings import Classification, Confidence, Evidence, Profile, Severity, Value, Verdict
from keyassay.keymath.curves import Curve, Point, multiples, multiply, named_curves, read_point, root
from keyassay.keymath.weak_curves import (
    anomalous_logarithm,
    cusp_logarithm,
    embedding_degree,
    small_order_logarithm,
)

MOST_BITS = 1024
#: orders below this are weak (2^112 steps)
LEAST_BITS = 224
#: bits of the order up to which the private key is computed
STEPS = {Profile.STANDARD: 24, Profile.DEEP: 40}
#: multiples of the public point that the generator is compared with, and the other way round
MULTIPLES = 64


@dataclass(frozen=True)
class Judgement:
    """What the parameters mean; ``d`` is the private key where it could be computed, else 0."""

    statement: str
    classification: Classification
    d: int = 0


def _named(given: ExplicitParameters) -> Curve | None:
    for curve in named_curves().values():
        if (
            curve.p == given.p
            and curve.a % curve.p == given.a % curve.p
            and curve.b % curve.p == given.b % curve.p
            and curve.binary == (given.field == "binary")
        ):
            return curve
    return None


def _curve(given: ExplicitParameters) -> Curve:
    p = gmpy2.mpz(given.p)
    cofactor = given.cofactor or 1
    return Curve("explicit", False, p, given.a % p, given.b % p, 0, 0, gmpy2.mpz(given.order), cofactor)


def _affine(curve: Curve, octets: bytes) -> Point:
    """The point of octets in any form on a curve over a prime field, None if there is none."""
    reading = read_point(curve, octets)
    if reading.problem or reading.point is not None:
        return reading.point
    return root(curve, int.from_bytes(octets[1:], "big"), octets[0] & 1)


def _generator(curve: Curve, octets: bytes) -> tuple[int, int] | None:
    size = curve.field_bytes
    if len(octets) == 1 + 2 * size and octets[0] in (4, 6, 7):
        return int.from_bytes(octets[1 : 1 + size], "big"), int.from_bytes(octets[1 + size :], "big")
    if len(octets) == 1 + size and octets[1:] == int(curve.gx).to_bytes(size, "big"):
        return curve.base if curve.binary or octets[0] == 2 + int(curve.gy & 1) else None
    return None


def _known(curve: Curve, given: ExplicitParameters, key: EcPublicKey) -> Judgement:
    """Parameters over the field and with the coefficients of a named curve."""
    broken = Classification.BROKEN
    if _generator(curve, given.generator) != curve.base:
        if not curve.binary:
            base, point = _affine(curve, given.generator), _affine(curve, key.point)
            if base is not None and point is not None:
                d = _small_ratio(curve, base, point)
                if d:
                    where = "is the public key itself" if d == 1 else "was made from the public key"
                    return Judgement(f"the generator {where}, on {curve.name} (CVE-2020-0601)", broken, d)
        return Judgement(f"another generator than that of {curve.name} (CVE-2020-0601)", broken)
    if given.order != curve.order:
        return Judgement(f"another order than that of {curve.name}", broken)
    if given.cofactor not in (None, curve.cofactor):
        return Judgement(f"another cofactor than that of {curve.name}", broken)
    problem = read_point(curve, key.point).problem
    if problem:
        return Judgement(problem, broken)
    spelled = f"the parameters of {curve.name} are spelled out"
    if curve.bits < LEAST_BITS:
        return Judgement(f"{spelled}, a curve of {curve.bits} bits", Classification.WEAK)
    if curve.binary:
        return Judgement(f"{spelled}, a binary curve", Classification.WEAK)
    return Judgement(spelled, Classification.NOTICE)


def _small_ratio(curve: Curve, base: tuple[int, int], point: tuple[int, int]) -> int:
    """D with d base = point, where d or 1/d is a small number or its negative; 0 if it is none."""
    for one, other, inverse in ((base, point, False), (point, base, True)):
        for c, multiple in enumerate(multiples(curve, one, MULTIPLES), start=1):
            if multiple[0] == other[0]:
                factor = c if multiple == other else -c
                d = int((gmpy2.invert(factor, curve.order) if inverse else factor) % curve.order)
                return d if multiply(curve, d, base) == point else 0
    return 0


def _unknown(given: ExplicitParameters, key: EcPublicKey, steps: int) -> Judgement:
    """A curve over a prime field that nobody knows."""
    broken = Classification.BROKEN
    p, order = given.p, given.order
    if p < 5 or order < 2 or max(number.bit_length() for number in (p, order, given.a, given.b)) > MOST_BITS:
        return Judgement("parameters of absurd size", broken)
    if not gmpy2.is_strong_bpsw_prp(p):
        return Judgement("the field's size is not prime", broken)
    curve = _curve(given)
    base, point = _affine(curve, given.generator), _affine(curve, key.point)
    if base is None:
        return Judgement("the generator is not on the curve", broken)
    if point is None:
        problem = read_point(curve, key.point).problem
        return Judgement(problem or "no point of the curve has this x coordinate", broken)
    if (4 * curve.a**3 + 27 * curve.b**2) % p == 0:
        if curve.a:
            return Judgement(
                f"the curve is singular: its logarithms are those of a field of {p.bit_length()} bits", broken
            )
        return Judgement(
            "the curve is singular: the logarithm is a division", broken, cusp_logarithm(curve, base, point) or 0
        )
    if multiply(curve, order, base) is not None:
        return Judgement("the order is not the generator's", broken)
    if not gmpy2.is_strong_bpsw_prp(order):
        return Judgement("the order is not prime", broken)
    if multiply(curve, order, point) is not None:
        return Judgement("the point is not of the generator's order", broken)
    if given.cofactor and abs(order * curve.cofactor - p - 1) > 2 * gmpy2.isqrt(p) + 1:
        return Judgement("order and cofactor contradict Hasse's bound", broken)
    if order == p:
        d = anomalous_logarithm(curve, base, point) or 0
        return Judgement("as many points as the field has elements (anomalous): the logarithm is a division", broken, d)
    if order.bit_length() <= steps:
        return Judgement(
            f"an order of {order.bit_length()} bits", broken, small_order_logarithm(curve, base, point) or 0
        )
    if order.bit_length() < LEAST_BITS:
        return Judgement(
            f"an unknown curve, spelled out, with an order of {order.bit_length()} bits", Classification.WEAK
        )
    degree = embedding_degree(p, order)
    if degree is not None and degree * p.bit_length() < 2048:
        return Judgement(
            f"an unknown curve, spelled out, that pairings link to a field of {degree * p.bit_length()} bits",
            Classification.WEAK,
        )
    return Judgement("an unknown curve, spelled out", Classification.WEAK)


def judge(key: EcPublicKey, profile: Profile) -> Judgement | None:
    """What explicit parameters mean, as far as a profile looks; None for other keys."""
    given = key.parameters
    if given is None:
        return None
    curve = _named(given)
    if curve is not None:
        return _known(curve, given, key)
    if given.field == "binary" or profile < Profile.STANDARD:
        return Judgement("an unknown curve, spelled out", Classification.WEAK)
    return _unknown(given, key, STEPS[profile])


@dataclass(frozen=True)
class Parameters(Evidence):
    """What is said of the parameters; verified by examining them again as the profile did."""

    statement: str
    classification: Classification
    profile: Profile

    def proves(self, subject: PublicKey | Item) -> bool:
        if not isinstance(subject, EcPublicKey):
            return False
        found = judge(subject, self.profile)
        return found is not None and (found.statement, found.classification) == (self.statement, self.classification)

    def describe(self) -> Mapping[str, Value]:
        return {"contradiction": self.statement}


@dataclass(frozen=True)
class ExplicitPrivateKey(Evidence):
    """The private key d with dG = Q on the curve that the key spells out."""

    d: int
    statement: str

    def proves(self, subject: PublicKey | Item) -> bool:
        given = subject.parameters if isinstance(subject, EcPublicKey) else None
        if given is None or given.field != "prime" or not 4 < given.p < 1 << MOST_BITS or self.d < 1:
            return False
        assert isinstance(subject, EcPublicKey)
        if not gmpy2.is_strong_bpsw_prp(given.p):
            return False
        curve = _curve(given)
        base, point = _affine(curve, given.generator), _affine(curve, subject.point)
        return base is not None and point is not None and multiply(curve, self.d, base) == point

    def describe(self) -> Mapping[str, Value]:
        return {"proof": "private key", "contradiction": self.statement}

    def secrets(self) -> Mapping[str, Value]:
        return {"d": int(self.d)}


@batch_check(
    id="ec-explicit-parameters",
    title="curve spelled out",
    applies_to=(EcPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    references=(
        "CVE-2020-0601",
        "RFC 5480, 2.1.1",
        "Smart 1999: The discrete logarithm problem on elliptic curves of trace one",
        "Menezes, Okamoto, Vanstone 1993: Reducing elliptic curve logarithms to logarithms in a finite field",
    ),
)
def ec_explicit_parameters(batch: EcBatch, context: Context) -> Iterator[tuple[int, Verdict]]:
    """Only keys that have parameters; they come in batches of their own."""
    for row, key in enumerate(batch.keys):
        found = judge(key, context.profile)
        if found is None:
            continue
        if found.d:
            yield row, Verdict(found.statement, ExplicitPrivateKey(found.d, found.statement))
            continue
        evidence = Parameters(found.statement, found.classification, context.profile)
        if found.classification is Classification.BROKEN:
            yield row, Verdict(found.statement, evidence)
        else:
            severity = Severity.MEDIUM if found.classification is Classification.WEAK else Severity.LOW
            yield row, Verdict(found.statement, evidence, found.classification, severity, Confidence.CERTAIN)
