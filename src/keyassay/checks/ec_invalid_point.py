"""Public keys that are no point of their curve, or one of small order.

Weakness: an elliptic curve key is a multiple of the base point. A point off the curve, at infinity, with a coordinate
outside the field, on the twist, or of small order is the multiple of nothing that a private key can be: no sound
private key exists. A party that computes with such a point leaks its own secrets (invalid curve attacks), and a small
order point accepts forged signatures.

Method: the octets of the BIT STRING are read by our own code, since libraries refuse just these keys. In order: form
and length; coordinates below the field's size; the curve equation, or for compressed points the Jacobi symbol of
x^3 + ax + b; for hybrid points the parity. Ed25519 and Ed448: canonical encoding, the residue of
(y^2 - 1)/(dy^2 + 1), small order by 8P (4P) = 0. X25519 and X448: canonical u, small order, u on the curve and not on
the twist.

Cost: 1 to 3 us a key on P-256, 4 on Ed25519; binary curves 0.15 ms.

Profiles: the same in all; multiplication by the order on curves with a cofactor in deep (0.5 ms on Ed25519, tens of
milliseconds on binary curves).

Mistakes: none, these are definitions. Compressed points are no finding. A sound point in hybrid form is a notice, and
so is an Edwards point with a component of small order, which some implementations make on purpose.

Blind spots: points of the wrong order on curves with a cofactor outside deep, and compressed ones on binary curves.

Remedy: a new key from another generator; find out what made this one, since it makes others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from keyassay.certificates.batches import EcBatch, OkpBatch
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import EcPublicKey, OkpPublicKey, PublicKey
from keyassay.checks import Context, batch_check
from keyassay.findings import Classification, Confidence, Evidence, Profile, Severity, Value, Verdict
from keyassay.keymath import edwards
from keyassay.keymath.curves import Reading, multiply, named_curve, read_point, root


def examine(key: PublicKey | Item, *, deep: bool = False) -> tuple[str, str]:
    """(contradiction, remark) of a key, both "" for a sound one."""
    if isinstance(key, OkpPublicKey):
        problem, remark = edwards.examine(key.type, key.encoded)
        if deep and not (problem or remark) and edwards.of_mixed_order(key.type, key.encoded):
            remark = "the point has a component of small order"
        return problem, remark
    if not isinstance(key, EcPublicKey):
        return "", ""
    curve = named_curve(key.curve)
    if curve is None:
        return "", ""
    reading: Reading = read_point(curve, key.point)
    problem = reading.problem
    if deep and not problem and curve.cofactor > 1:
        point = reading.point
        if point is None and not curve.binary:
            point = root(curve, int.from_bytes(key.point[1:], "big"), key.point[0] & 1)
        if point is not None and multiply(curve, curve.order, point) is not None:
            problem = "the point is not of the base point's order"
    return problem, reading.remark


@dataclass(frozen=True)
class InvalidPoint(Evidence):
    """The contradiction (or remark) in words; verified by reading the octets again."""

    statement: str
    curve: str
    octets: bytes

    def proves(self, subject: PublicKey | Item) -> bool:
        return bool(self.statement) and self.statement in examine(subject, deep=True)

    def describe(self) -> Mapping[str, Value]:
        return {"contradiction": self.statement, "curve": self.curve, "point": self.octets[:200]}


@batch_check(
    id="ec-invalid-point",
    title="point not on its curve",
    applies_to=(EcPublicKey, OkpPublicKey),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    references=(
        "SEC 1, 3.2.2.1",
        "NIST SP 800-56A Rev. 3, 5.6.2.3",
        "RFC 8032",
        "RFC 7748",
        "RFC 5480",
        "Biehl, Meyer, Mueller 2000: Differential fault attacks on elliptic curve cryptosystems",
    ),
)
def ec_invalid_point(batch: EcBatch | OkpBatch, context: Context) -> Iterator[tuple[int, Verdict]]:
    """The usual form by a shared column, what is not sound there (and all in deep) by itself."""
    deep = context.profile >= Profile.DEEP
    keys: Sequence[EcPublicKey | OkpPublicKey] = batch.keys
    rows: Iterable[int] = range(len(keys))
    if isinstance(batch, EcBatch) and not deep:
        rows = [row for row, point in enumerate(batch.points) if point is None]
    for row in rows:
        key = keys[row]
        problem, remark = examine(key, deep=deep)
        if not (problem or remark):
            continue
        if isinstance(key, EcPublicKey):
            evidence = InvalidPoint(problem or remark, key.curve, key.point)
        else:
            evidence = InvalidPoint(problem or remark, key.type, key.encoded)
        if problem:
            yield row, Verdict(f"{problem}: no sound private key exists", evidence)
        else:
            yield row, Verdict(remark, evidence, Classification.NOTICE, Severity.LOW, Confidence.CERTAIN)
