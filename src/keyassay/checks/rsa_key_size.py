"""RSA moduli below 2048 bits.

Weakness: 829 bits were factored in public in 2020. 1024 bits are believed to be within reach of large organisations,
and precede today's accepted minimum of 112 bits of security (2048 bits) by two steps.

Method: the bit length.

Cost: nothing.

Profiles: the same in all.

Mistakes: none: bits are counted. A modulus of 2047 bits is below the minimum by the letter and found.

Blind spots: 512 bits and less are rsa-invalid-modulus, class broken.

Remedy: a new key of 2048 bits or more, or P-256.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import PublicKey, RsaPublicKey
from keyassay.checks import Context, batch_check
from keyassay.findings import Classification, Confidence, Evidence, Profile, Severity, Value, Verdict

LEAST_BITS = 2048


@dataclass(frozen=True)
class ModulusBits(Evidence):
    """The bit length, counted again."""

    bits: int

    def proves(self, subject: PublicKey | Item) -> bool:
        return isinstance(subject, RsaPublicKey) and subject.bits == self.bits < LEAST_BITS

    def describe(self) -> Mapping[str, Value]:
        return {"bits": self.bits, "minimum": LEAST_BITS}


@batch_check(
    id="rsa-key-size",
    title="RSA key too small",
    applies_to=(RsaPublicKey,),
    classification=Classification.WEAK,
    severity=Severity.HIGH,
    confidence=Confidence.CERTAIN,
    profile=Profile.FAST,
    references=(
        "NIST SP 800-57 part 1",
        "Boudot and others 2020: factorization of RSA-250",
        "AWS IoT: RegisterCertificate",
    ),
    explained_by=("rsa-invalid-modulus",),
)
def rsa_key_size(batch: RsaBatch, _context: Context) -> Iterator[tuple[int, Verdict]]:
    """All rows or none: a batch has one size."""
    if batch.bits < LEAST_BITS:
        for row in range(len(batch)):
            yield row, Verdict(f"{batch.bits} bits, below {LEAST_BITS}", ModulusBits(batch.bits))
