"""RSA keys of one fleet whose primes less 1 share a large factor.

Weakness: some generators make primes as p = 2ra + 1 with a chosen prime r, and a faulty one uses the same r for p and
q, and for other keys. Then r divides N - 1 of all these keys, where a greatest common divisor finds it. If r is larger
than the fourth root of N, p and q follow at once (McKee, Pinch 1998); if it is smaller, it makes the search for them
shorter by the factor r.

Method: batch GCD over N - 1 of all distinct moduli of the run, and over those of earlier runs (--against STORE). What
one has in common with the rest is divided by all primes below 2^20. If 64 bits or more are left, a partner is looked
for that has them too, and the key is factored where r is large enough: (N - 1)/(2r) = 2r ab + (a + b) gives ab and
a + b but for a small carry.

Cost: that of fleet-shared-prime once more, in time and memory. With a store, each old key some 45 us: all its moduli
are read, since the products that it keeps are of N. If --memory does not allow it, the run says so.

Profiles: deep only.

Mistakes: none where the factor is found: it divides N. Otherwise the key is called likely, and the claim is that r
divides both N - 1, which is verified. Two random N - 1 have a common factor without primes below 2^20 of b bits or more
with probability below 2^(1-b). b is at least 64, and at least 40 + 2 log2 m for m keys: chance makes such a pair in one
of 2^40 runs at most.

Blind spots: r below 64 bits; r that divides p - 1 but not q - 1; a key whose r is in no other key of the run or the
store (that is rsa-smooth-prime's, if the rest of p - 1 is smooth). Partners in the store are named, and have a finding
of their own when they come again.

Remedy: replace the keys, and the generator. Partners without a factor have the same fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from keyassay.certificates.fleet import Earlier, Fleet
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import PublicKey, RsaPublicKey
from keyassay.checks import Context, fleet_check
from keyassay.findings import Classification, Confidence, Evidence, Factor, Profile, Severity, Step, Value, Verdict
from keyassay.keymath.batch_gcd import memory_needed
from keyassay.keymath.subprimes import factor_by_subprime, rough_part, shared_subprimes

#: Shorter moduli are no keys.
SHORTEST = 512


def least_bits(moduli: int) -> int:
    """Bits from which on a common factor is no chance among so many moduli: once in 2^40 runs."""
    return max(64, 40 + (moduli * moduli).bit_length())


@dataclass(frozen=True)
class SharedSubprime(Evidence):
    """A number without small prime factors that divides N - 1 and another key's N - 1.

    Attributes:
        divisor: the number.
        partner_modulus: the other modulus.
        partner: an item that has it.
        moduli: how many distinct moduli were compared, at most.
        earlier: the partner is of an earlier run.
    """

    divisor: int
    partner_modulus: int
    partner: Earlier
    moduli: int
    earlier: bool = False

    def proves(self, subject: PublicKey | Item) -> bool:
        """The divisor is large enough, has no small prime factor, and divides both."""
        return (
            isinstance(subject, RsaPublicKey)
            and subject.modulus != self.partner_modulus
            and self.divisor.bit_length() >= least_bits(self.moduli)
            and (subject.modulus - 1) % self.divisor == 0 == (self.partner_modulus - 1) % self.divisor
            and rough_part(self.divisor) == self.divisor
        )

    def describe(self) -> Mapping[str, Value]:
        return {
            "proof": "measurement",
            "divisor_bits": self.divisor.bit_length(),
            "partner": {
                "source": self.partner.source,
                "index": self.partner.index,
                "sha256": self.partner.sha256,
                "earlier_run": self.earlier,
            },
            "moduli": self.moduli,
            "chance_below_2_to_the_power": -40,
        }

    def steps(self, subject: PublicKey | Item) -> list[Step]:
        assert isinstance(subject, RsaPublicKey)
        return [
            Step(
                f"r divides N - 1 of this key and of {self.partner.source}#{self.partner.index} (prints 0 twice)",
                f"echo 'ibase=16; r={self.divisor:X}; "
                f"({subject.modulus:X} - 1) % r; ({self.partner_modulus:X} - 1) % r'"
                " | BC_LINE_LENGTH=0 bc",
            )
        ]


@fleet_check(
    id="fleet-shared-subprime",
    title="primes less 1 share a factor with another key",
    classification=Classification.NOTICE,
    severity=Severity.HIGH,
    confidence=Confidence.LIKELY,
    profile=Profile.DEEP,
    since="0.2.0",
    version=2,
    references=(
        "McKee, Pinch 1998: Further attacks on server-aided RSA cryptosystems",
        "Hinek 2006: Another look at small RSA exponents (common prime RSA)",
    ),
    explained_by=("rsa-invalid-modulus", "fleet-shared-prime"),
)
def fleet_shared_subprime(fleet: Fleet, _context: Context) -> Iterator[tuple[int, Verdict]]:
    """Batch GCD of N - 1, partners by name, and a factor where r allows it."""
    places = [place for place, n in enumerate(fleet.rsa_moduli) if n & 1 and n.bit_length() >= SHORTEST]
    moduli = [fleet.rsa_moduli[place] for place in places]
    others = None if fleet.earlier is None or not moduli else fleet.earlier.moduli_besides(fleet.rsa_moduli)
    if len(moduli) < (2 if others is None else 1):
        return
    needed = memory_needed(len(moduli), sum(modulus.bit_length() for modulus in moduli), others=others is not None)
    if needed > fleet.memory:
        reason = f"not run: {len(moduli):,} moduli, needs {needed / 1e9:.1f} GB; raise --memory"
        fleet.not_run("fleet-shared-subprime", reason)
        return
    # of an earlier run there are no more moduli than items
    compared = len(moduli) + (0 if others is None or fleet.earlier is None else len(fleet.earlier.identities))
    found = shared_subprimes(
        moduli,
        least_bits(compared),
        others=others,
        threads=fleet.threads,
        progress=fleet.progress("fleet-shared-subprime"),
    )
    ordinals = fleet.rsa_ordinals
    wanted = sorted({ordinals[places[one.partner]][0] for one in found.values() if one.partner is not None})
    names = {
        ordinal: Earlier(item.source, item.index, item.sha256)
        for ordinal, item in zip(wanted, fleet.items(wanted), strict=True)
    }
    for index, one in found.items():
        if one.partner is not None:
            partner_modulus = moduli[one.partner]
            holder = names[ordinals[places[one.partner]][0]]
        else:
            assert one.outside is not None
            assert fleet.earlier is not None
            partner_modulus = one.outside
            holder = fleet.earlier.holder(one.outside)
        evidence = SharedSubprime(one.divisor, partner_modulus, holder, compared, one.partner is None)
        verdict = _verdict(moduli[index], evidence)
        for ordinal in ordinals[places[index]]:
            yield ordinal, verdict


def _verdict(n: int, evidence: SharedSubprime) -> Verdict:
    partner = f"{evidence.partner.source}#{evidence.partner.index}"
    if evidence.earlier:
        partner += " of an earlier run"
    bits = evidence.divisor.bit_length()
    factor = factor_by_subprime(n, evidence.divisor)
    if factor is None:
        return Verdict(f"its modulus less 1 shares a factor of {bits} bits with that of {partner}", evidence)
    return Verdict(
        f"p - 1 and q - 1 have a factor of {bits} bits in common, which {partner} has too: p and q follow from it",
        Factor(
            factor, {name: value for name, value in evidence.describe().items() if name in ("divisor_bits", "partner")}
        ),
        classification=Classification.BROKEN,
        severity=Severity.CRITICAL,
        confidence=Confidence.PROVEN,
    )
