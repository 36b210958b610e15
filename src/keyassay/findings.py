"""The vocabulary of results: finding, evidence, and the axes that rank them.

A finding cannot exist unless its evidence verifies itself against the key (``Finding.make``). This module
knows no check and no file: audits, interfaces and renderers share it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

import gmpy2

from keyassay.certificates.public_key import DsaPublicKey, EcPublicKey, OkpPublicKey, PublicKey, RsaPublicKey
from keyassay.keymath.curves import multiply, named_curve, named_curves
from keyassay.keymath.edwards import group_order, multiple_of_base, parameters

if TYPE_CHECKING:
    from keyassay.certificates.item import Item

#: What evidence may hold: the renderer writes integers above 2^53 and bytes as hex.
Value = str | int | float | bool | bytes | None | list["Value"] | dict[str, "Value"]


class Classification(StrEnum):
    """What a finding means for the key.

    BROKEN: the private key can be computed, now or at a published practical cost, or no sound one can exist.
    WEAK: below today's accepted minimum. NOTICE: worth knowing.
    """

    BROKEN = "broken"
    WEAK = "weak"
    NOTICE = "notice"

    @property
    def rank(self) -> int:
        """0 for broken, larger is milder."""
        return ("broken", "weak", "notice").index(self.value)


class Severity(StrEnum):
    """How urgent it is, in AWS IoT Device Defender's words."""

    CRITICAL = "CRITICAL"
    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"

    @property
    def rank(self) -> int:
        """0 for critical, larger is milder."""
        return ("CRITICAL", "HIGH", "MEDIUM", "LOW").index(self.value)


class Confidence(StrEnum):
    """How sure it is.

    PROVEN: the evidence yields the private key or an exact contradiction, and was verified.
    CERTAIN: the bound on false positives is stated and at most 2^-40. LIKELY: never of class broken.
    """

    PROVEN = "proven"
    CERTAIN = "certain"
    LIKELY = "likely"


class Profile(IntEnum):
    """How much work a run may spend on a key; ordered, so that ``profile >= Profile.STANDARD`` reads well.

    AWS runs the two checks of Device Defender only. FAST: tens of microseconds a key. STANDARD: up to about a
    millisecond. DEEP: a stated budget per key.
    """

    AWS = 0
    FAST = 1
    STANDARD = 2
    DEEP = 3

    @property
    def label(self) -> str:
        """The name on the command line and in JSON."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a proof that a sceptic can repeat.

    ``says`` is a sentence; ``command`` a shell command (openssl, bc, or python3 with its standard library) that
    repeats it, or "" where reading suffices.
    """

    says: str
    command: str = ""


class Evidence(ABC):
    """What supports a finding. Subclasses are frozen dataclasses, picklable, defined at module level."""

    @abstractmethod
    def proves(self, subject: PublicKey | Item) -> bool:
        """Verify the evidence against the key (the item, for certificate checks), from scratch.

        For confidence ``likely`` or a plain measurement: recompute it and confirm that it still holds.
        """

    @abstractmethod
    def describe(self) -> Mapping[str, Value]:
        """What anyone may see: never p, q, d, nonces or seeds."""

    def secrets(self) -> Mapping[str, Value]:
        """What ``--reveal`` and ``keyassay prove`` add: p, q, d, nonces, seeds. Empty where there is none."""
        return {}

    def steps(self, subject: PublicKey | Item) -> list[Step]:  # noqa: ARG002  subclasses use it
        """Every step of the proof, for ``keyassay prove``; secrets may appear here."""
        return [Step(f"{name} = {value!r}") for name, value in {**self.describe(), **self.secrets()}.items()]


@dataclass(frozen=True)
class Factor(Evidence):
    """A proper factor of an RSA modulus: the private key follows by one division.

    ``notes`` are public facts about how it was found (rounds, ratio, bits), JSON values.
    """

    factor: int
    notes: Mapping[str, Value] = field(default_factory=dict)

    def proves(self, subject: PublicKey | Item) -> bool:
        """1 < factor < N and factor divides N."""
        return (
            isinstance(subject, RsaPublicKey)
            and 1 < self.factor < subject.modulus
            and subject.modulus % self.factor == 0
        )

    def describe(self) -> Mapping[str, Value]:
        return {"proof": "factor", "factor_bits": int(self.factor).bit_length(), **self.notes}

    def secrets(self) -> Mapping[str, Value]:
        return {"factor": int(self.factor)}

    def steps(self, subject: PublicKey | Item) -> list[Step]:
        assert isinstance(subject, RsaPublicKey)
        p = int(self.factor)
        q = int(subject.modulus) // p
        return [
            Step(f"The modulus N has {subject.bits} bits: {subject.modulus:X}"),
            Step(f"p = {p:X}"),
            Step(f"q = {q:X}"),
            Step(
                "p times q is N (prints 0)",
                f"echo 'ibase=16; {p:X} * {q:X} - {subject.modulus:X}' | BC_LINE_LENGTH=0 bc",
            ),
        ]


@dataclass(frozen=True)
class EcPrivateKey(Evidence):
    """The private key of an elliptic curve key: d with dG = Q.

    ``notes`` are public facts about how it was found, JSON values.
    """

    d: int
    notes: Mapping[str, Value] = field(default_factory=dict)

    def proves(self, subject: PublicKey | Item) -> bool:
        """0 < d < order and dG is the key's point."""
        if not isinstance(subject, EcPublicKey):
            return False
        curve = named_curve(subject.curve)
        if curve is None or not 0 < self.d < curve.order:
            return False
        point = multiply(curve, self.d, curve.base)
        if point is None:
            return False
        octets = subject.point
        size = curve.field_bytes
        x = int(point[0]).to_bytes(size, "big")
        if octets[:1] in (b"\x02", b"\x03"):
            return octets == bytes([2 + int(point[1] & 1)]) + x
        return octets[1:] == x + int(point[1]).to_bytes(size, "big")

    def describe(self) -> Mapping[str, Value]:
        return {"proof": "private key", **self.notes}

    def secrets(self) -> Mapping[str, Value]:
        return {"d": int(self.d)}

    def steps(self, subject: PublicKey | Item) -> list[Step]:
        assert isinstance(subject, EcPublicKey)
        return [
            Step(f"The key is a point on {subject.curve}: {subject.point.hex()}"),
            Step(f"Its private key is d = {self.d:x}: d times the base point is that point"),
        ]


@dataclass(frozen=True)
class DsaPrivateKey(Evidence):
    """The private value of a DSA key: x with g^x = y modulo p.

    ``notes`` are public facts about how it was found, JSON values.
    """

    x: int
    notes: Mapping[str, Value] = field(default_factory=dict)

    def proves(self, subject: PublicKey | Item) -> bool:
        return (
            isinstance(subject, DsaPublicKey)
            and 0 < self.x < subject.q
            and subject.p > 2
            and gmpy2.powmod(subject.g, self.x, subject.p) == subject.y
        )

    def describe(self) -> Mapping[str, Value]:
        return {"proof": "private value", **self.notes}

    def secrets(self) -> Mapping[str, Value]:
        return {"x": int(self.x)}


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


def proof_of(key: EcPublicKey | DsaPublicKey | OkpPublicKey, d: int, notes: Mapping[str, Value]) -> Evidence | None:
    """Proof that d is the private number (of Edwards curves the private scalar), or None; ``notes`` are public."""
    found: Evidence
    if isinstance(key, DsaPublicKey):
        found = DsaPrivateKey(d, notes)
    elif isinstance(key, OkpPublicKey):
        found = EdwardsScalar(d, notes)
    else:
        found = EcPrivateKey(d, notes)
    return found if d > 0 and found.proves(key) else None


@dataclass(frozen=True)
class Verdict:
    """What a check says of one key; the engine makes a ``Finding`` of it.

    ``message`` is one sentence for a tired engineer. The three axes default to the check's own.
    """

    message: str
    evidence: Evidence
    classification: Classification | None = None
    severity: Severity | None = None
    confidence: Confidence | None = None


@dataclass(frozen=True)
class Finding:
    """One weakness of one item, with evidence that was verified when the finding was made."""

    check: str
    version: int
    classification: Classification
    severity: Severity
    confidence: Confidence
    reason_code: str
    message: str
    evidence: Evidence

    @property
    def rank(self) -> tuple[int, int, str]:
        """Sort key: worst first."""
        return (self.classification.rank, self.severity.rank, self.check)


class EvidenceRefusedError(Exception):
    """Evidence did not verify: a defect in a check, reported as such and never as a finding."""
