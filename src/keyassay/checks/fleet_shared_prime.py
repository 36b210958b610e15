"""RSA keys of one fleet that share a prime.

Weakness: two moduli N1 = pq and N2 = pr give p to anyone who computes their greatest common divisor, and with it both
private keys. It happens where a device makes its key at the first start, before its random generator has gathered
anything: one prime comes out the same on many devices (Heninger et al. found 0.5 % of the TLS keys of 2012 so).

Method: batch GCD over all distinct moduli of the run, and over those of earlier runs (--against STORE): the product of
all, its derivative beside it, and a scaled remainder tree down again tell for every modulus what it has in common with
the rest. Moduli that share both primes (pq, qr, rp) are split by descending a tree of what they share, never pair by
pair. Primes below 2^20 are told apart: those are rsa-small-factor's.

Cost: about 250 us a key at 20,000 keys of 2048 bits, growing as the number of keys to the power 1.15, and some 12 KB of
memory a key. With a store, the new keys cost as much, and each old one some 20 us. If --memory does not allow it, the
run says so and how much it would take.

Profiles: the same in all from fast on.

Mistakes: none: the factor is divided out. A key that is merely repeated shares nothing with itself: see
fleet-repeated-key.

Blind spots: a prime whose other holder is not in the run or the store. A modulus all of whose common factors are the
modulus itself, such as pq beside pqr, stays unsplit, while pqr is found.

Remedy: revoke and replace all keys that the finding names, partners included. Then find out what the devices have in
common: keys have to be made after the generator is seeded, or outside and put in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import gmpy2

from keyassay.certificates.fleet import Earlier, Fleet
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import PublicKey, RsaPublicKey
from keyassay.checks import Context, fleet_check
from keyassay.findings import Classification, Confidence, Evidence, Factor, Profile, Severity, Step, Value, Verdict

#: Shared factors below this are no primes of a generator: the moduli are damaged or made up.
SHORT = 128


@dataclass(frozen=True)
class SharedPrime(Evidence):
    """A proper factor that the modulus has in common with another one.

    Attributes:
        factor: divides the modulus.
        partner_modulus: the other modulus.
        partner: an item that has it.
        earlier: the partner is of an earlier run.
        sharing: how many distinct other moduli of the run have the factor.
    """

    factor: int
    partner_modulus: int
    partner: Earlier
    earlier: bool
    sharing: int

    def proves(self, subject: PublicKey | Item) -> bool:
        """The factor is proper, and the partner is another modulus that has a part in it."""
        return (
            isinstance(subject, RsaPublicKey)
            and Factor(self.factor).proves(subject)
            and self.partner_modulus not in (0, subject.modulus)
            and gmpy2.gcd(self.factor, self.partner_modulus) > 1
        )

    def describe(self) -> Mapping[str, Value]:
        partner: dict[str, Value] = {
            "source": self.partner.source,
            "index": self.partner.index,
            "sha256": self.partner.sha256,
            "earlier_run": self.earlier,
        }
        return {
            "proof": "shared factor",
            "factor_bits": self.factor.bit_length(),
            "partner": partner,
            "other_moduli": self.sharing,
        }

    def secrets(self) -> Mapping[str, Value]:
        return {"factor": self.factor}

    def steps(self, subject: PublicKey | Item) -> list[Step]:
        partner = f"{self.partner.source}#{self.partner.index}"
        divisor = int(gmpy2.gcd(self.factor, self.partner_modulus))
        return [
            *Factor(self.factor).steps(subject),
            Step(f"The modulus of {partner} is {self.partner_modulus:X}"),
            Step(
                f"It is divisible by {'p' if divisor == self.factor else format(divisor, 'X')} as well (prints 0)",
                f"echo 'ibase=16; {self.partner_modulus:X} % {divisor:X}' | BC_LINE_LENGTH=0 bc",
            ),
        ]


@fleet_check(
    id="fleet-shared-prime",
    title="prime shared with another key",
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    references=(
        "Heninger, Durumeric, Wustrow, Halderman 2012: Mining your Ps and Qs",
        "Lenstra et al. 2012: Ron was wrong, Whit is right",
        "Bernstein 2004: Scaled remainder trees",
    ),
)
def fleet_shared_prime(fleet: Fleet, _context: Context) -> Iterator[tuple[int, Verdict]]:
    """Batch GCD, then partners by name, read back in one pass."""
    common = fleet.common_factors
    if common is None:
        return
    shared = {
        number: one for number, one in common.shared.items() if one.partner is not None or one.outside is not None
    }
    if not shared:
        return
    moduli, ordinals = fleet.rsa_moduli, fleet.rsa_ordinals
    holders: Counter[int] = Counter()
    for number, one in shared.items():
        holders.update({one.factor, moduli[number] // one.factor})
    wanted = sorted({ordinals[one.partner][0] for one in shared.values() if one.partner is not None})
    places = {
        ordinal: Earlier(item.source, item.index, item.sha256)
        for ordinal, item in zip(wanted, fleet.items(wanted), strict=True)
    }
    for number, one in shared.items():
        if one.partner is not None:
            partner_modulus = moduli[one.partner]
            partner = places[ordinals[one.partner][0]]
        else:
            assert one.outside is not None
            assert fleet.earlier is not None
            partner_modulus = one.outside
            partner = fleet.earlier.holder(one.outside)
        evidence = SharedPrime(one.factor, partner_modulus, partner, one.partner is None, holders[one.factor] - 1)
        verdict = Verdict(_message(evidence), evidence)
        for ordinal in ordinals[number]:
            yield ordinal, verdict


def _message(evidence: SharedPrime) -> str:
    partner = f"{evidence.partner.source}#{evidence.partner.index}"
    if evidence.earlier:
        partner += " of an earlier run"
    bits = evidence.factor.bit_length()
    if evidence.factor == evidence.partner_modulus:
        return f"its modulus is divisible by that of {partner}: it is no product of two primes of its own"
    more = evidence.sharing - (not evidence.earlier)
    also = f" and with {more:,} more key{'s' if more > 1 else ''} of this run" if more > 0 else ""
    if bits < SHORT:
        return f"its modulus shares a factor of {bits} bits with {partner}{also}: the numbers are probably damaged"
    return f"its modulus shares a prime of {bits} bits with {partner}{also}: both private keys follow by division"
