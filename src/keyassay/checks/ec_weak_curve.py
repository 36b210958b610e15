"""Elliptic curve keys on curves that are too small, binary or unnamed.

Weakness: the best attack on a sound curve takes the square root of the group's order in steps. Below 224 bits that is
less than 2^112, today's accepted minimum (SP 800-57, RFC 8422 dropped such curves); 112-bit curves have been broken in
public in 2009. Binary curves are deprecated by SP 800-186: no break of the listed ones is known, but nobody maintains
or analyses them any more. A curve without a name in SEC 2, FIPS 186, RFC 5639, X9.62 or GB/T 32918 has no public
analysis at all.

Method: the name, looked up in the table of curves; the bits of the base point's order.

Cost: far below a microsecond a key.

Profiles: the same in all.

Mistakes: none: the curve is written in the key.

Blind spots: curves spelled out instead of named belong to ec-explicit-parameters. Edwards and Montgomery keys are not
on this check's list.

Remedy: a new key on P-256 or larger, or Ed25519.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from keyassay.certificates.batches import EcBatch
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import EcPublicKey, PublicKey
from keyassay.checks import Context, batch_check
from keyassay.findings import Classification, Confidence, Evidence, Profile, Severity, Value, Verdict
from keyassay.keymath.curves import named_curve

LEAST_BITS = 224


def problem(name: str) -> str:
    """What is weak about a curve, "" if nothing."""
    if name == "explicit":
        return ""
    curve = named_curve(name)
    if curve is None:
        return f"the curve {name} has no name that is known"
    if curve.bits < LEAST_BITS:
        return f"{name} has {curve.bits} bits: about 2^{curve.bits // 2} steps to the private key"
    if curve.binary:
        return f"{name} is a binary curve, deprecated"
    return ""


@dataclass(frozen=True)
class WeakCurve(Evidence):
    """The curve's name."""

    curve: str

    def proves(self, subject: PublicKey | Item) -> bool:
        return isinstance(subject, EcPublicKey) and subject.curve == self.curve and problem(self.curve) != ""

    def describe(self) -> Mapping[str, Value]:
        curve = named_curve(self.curve)
        return {"curve": self.curve, "order_bits": None if curve is None else curve.bits}


@batch_check(
    id="ec-weak-curve",
    title="weak curve",
    applies_to=(EcPublicKey,),
    classification=Classification.WEAK,
    severity=Severity.MEDIUM,
    confidence=Confidence.CERTAIN,
    profile=Profile.FAST,
    references=("NIST SP 800-57 part 1", "NIST SP 800-186", "SEC 2", "RFC 5639", "RFC 8422"),
    explained_by=("ec-invalid-point",),
)
def ec_weak_curve(batch: EcBatch, _context: Context) -> Iterator[tuple[int, Verdict]]:
    """All rows or none: a batch has one curve."""
    what = problem(batch.curve)
    if what:
        curve = named_curve(batch.curve)
        small = curve is not None and curve.bits < LEAST_BITS
        severity = Severity.HIGH if small else Severity.MEDIUM
        for row in range(len(batch)):
            yield row, Verdict(what, WeakCurve(batch.curve), severity=severity)
