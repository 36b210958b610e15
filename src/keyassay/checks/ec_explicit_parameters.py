"""Elliptic curve keys that spell their curve out instead of naming it.

Weakness: whoever chooses the parameters chooses how hard the key is. Another generator on a well-known curve
(CVE-2020-0601, "CurveBall") gives a public key that anyone can have the private key of: G = Q makes d = 1. A composite
field, a singular curve, an order that is not the generator's, or as many points as the field has (anomalous) make the
discrete logarithm easy. RFC 5480 forbids explicit parameters in certificates.

Method: (p, a, b) is compared with the named curves; where it is one of them, generator, order and cofactor have to
agree. Otherwise: p prime, curve not singular, generator and public point on the curve, generator times order at
infinity, order prime and within Hasse's bound, order different from p, and no small embedding degree.

Cost: microseconds for known curves, some milliseconds for others.

Profiles: the comparison in fast, the arithmetic on unknown curves from standard.

Mistakes: none: broken means an exact contradiction or another generator. Parameters equal to a named curve's are a
notice.

Blind spots: an unknown curve that passes all tests is a notice, not a proof of soundness. Binary fields are compared
with named curves only.

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
from keyassay.keymath.curves import Curve, equation, multiply, named_curves, read_point

MOST_BITS = 1024


def _named(given: ExplicitParameters) -> Curve | None:
    for curve in named_curves().values():
        if (
            curve.p == given.p
            and curve.a % curve.p == given.a % curve.p
            and curve.b == given.b
            and curve.binary == (given.field == "binary")
        ):
            return curve
    return None


def _generator(curve: Curve, octets: bytes) -> tuple[int, int] | None:
    size = curve.field_bytes
    if len(octets) == 1 + 2 * size and octets[0] in (4, 6, 7):
        return int.from_bytes(octets[1 : 1 + size], "big"), int.from_bytes(octets[1 + size :], "big")
    if len(octets) == 1 + size and octets[1:] == int(curve.gx).to_bytes(size, "big"):
        return curve.base if curve.binary or octets[0] == 2 + int(curve.gy & 1) else None
    return None


def contradiction(key: EcPublicKey, *, arithmetic: bool = True) -> tuple[str, str]:
    """(what breaks the key, what is merely worth knowing) of explicit parameters, both "" for other keys."""
    given = key.parameters
    if given is None:
        return "", ""
    curve = _named(given)
    if curve is not None:
        generator = _generator(curve, given.generator)
        if generator != curve.base:
            if given.generator[1:] and given.generator[1:] == key.point[1:]:
                return f"the generator is the public key itself, on {curve.name}: the private key is 1", ""
            return f"another generator than that of {curve.name} (CVE-2020-0601)", ""
        if given.order != curve.order:
            return f"another order than that of {curve.name}", ""
        if given.cofactor not in (None, curve.cofactor):
            return f"another cofactor than that of {curve.name}", ""
        problem = read_point(curve, key.point).problem
        return problem, f"the parameters of {curve.name} are spelled out"
    notice = "an unknown curve, spelled out"
    if given.field == "binary" or not arithmetic:
        return "", notice
    return _unknown(given, key), notice


def _unknown(given: ExplicitParameters, key: EcPublicKey) -> str:
    """What breaks a prime-field curve that nobody knows."""
    p, a, b, order = given.p, given.a, given.b, given.order
    if p < 5 or order < 2 or max(p.bit_length(), order.bit_length(), a.bit_length(), b.bit_length()) > MOST_BITS:
        return "parameters of absurd size"
    if not gmpy2.is_prime(p):
        return "the field's size is not prime"
    if (4 * a**3 + 27 * b**2) % p == 0:
        return "the curve is singular"
    curve = Curve(
        "explicit", binary=False, p=p, a=a % p, b=b % p, gx=0, gy=0, order=order, cofactor=given.cofactor or 1
    )
    size = curve.field_bytes
    generator = given.generator
    if len(generator) == 1 + 2 * size and generator[0] == 4:
        x, y = int.from_bytes(generator[1 : 1 + size], "big"), int.from_bytes(generator[1 + size :], "big")
        left, right = equation(curve, x, y)
        if x >= p or y >= p or left != right:
            return "the generator is not on the curve"
        if multiply(curve, order, (x, y)) is not None:
            return "the order is not the generator's"
    problem = read_point(curve, key.point).problem
    if problem:
        return problem
    if not gmpy2.is_prime(order):
        return "the order is not prime"
    if order == p:
        return "as many points as the field has elements (anomalous): the logarithm is a division"
    if abs(order * curve.cofactor - p - 1) > 2 * gmpy2.isqrt(p) + 1 and given.cofactor:
        return "order and cofactor contradict Hasse's bound"
    return ""


@dataclass(frozen=True)
class Parameters(Evidence):
    """The contradiction (or remark) in words; verified by examining the parameters again."""

    statement: str

    def proves(self, subject: PublicKey | Item) -> bool:
        return isinstance(subject, EcPublicKey) and self.statement in contradiction(subject)

    def describe(self) -> Mapping[str, Value]:
        return {"contradiction": self.statement}


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
    ),
)
def ec_explicit_parameters(batch: EcBatch, context: Context) -> Iterator[tuple[int, Verdict]]:
    """Only keys that have parameters; they come in batches of their own."""
    for row, key in enumerate(batch.keys):
        broken, notice = contradiction(key, arithmetic=context.profile >= Profile.STANDARD)
        if broken:
            yield row, Verdict(broken, Parameters(broken))
        elif notice:
            yield row, Verdict(notice, Parameters(notice), Classification.NOTICE, Severity.LOW, Confidence.CERTAIN)
