"""RSA moduli of one fleet that begin or end alike.

Weakness: random moduli differ from the first bits on. Where two begin or end with the same hundred bits, their primes
do too, or somebody chose these bits. A generator that starts from too little chance shows so before it repeats a whole
prime: devices that differ in what they mixed in last have primes with the same beginning. Who factors one such key has
the others (rsa-shared-bits tries that in profile deep).

Method: the first 128 bits of all moduli of one size, and the last 128 bits of all moduli, are sorted; neighbours are
compared.

Cost: 2 to 3 us a key.

Profiles: the same in standard and deep.

Mistakes: with m moduli, 43 + 2 log2 m equal bits are needed. The first bits of products of random primes come with
probabilities up to 5 times those of uniform bits, whether the primes have one top bit set, two, or lie above the root
of one half; so two random moduli reach the limit with probability below 2^-40 / m^2, and chance makes a finding in one
of 2^40 runs. A modulus of which somebody chose a part on purpose (Lenstra 1998: to shorten it, or to show a name) is
sound and has this finding: hence a notice. So has a modulus beside a damaged copy of itself.

Blind spots: beginnings shared by one prime of each key only, which do not show in the product. Fewer equal bits.
Moduli of different sizes that begin alike. Moduli shorter than 512 bits.

Remedy: ask how the keys were made. If nobody chose the bits, replace them, and seed the generator before keys are made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from keyassay.certificates.fleet import Earlier, Fleet
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import PublicKey, RsaPublicKey
from keyassay.checks import Context, fleet_check
from keyassay.findings import Classification, Confidence, Evidence, Profile, Severity, Step, Value, Verdict
from keyassay.keymath import bits

#: Shorter moduli are no keys.
SHORTEST = 512


def least_bits(moduli: int) -> int:
    """Equal bits that chance gives in one of 2^40 runs of so many moduli."""
    return 43 + (moduli * moduli - 1).bit_length()


@dataclass(frozen=True)
class CommonEnd(Evidence):
    """Another modulus that begins (or ends) with the same bits.

    Attributes:
        partner_modulus: the other modulus; of the same length, if they begin alike.
        partner: an item that has it.
        leading: whether they begin alike, else they end alike.
        sharing: how many other moduli of the run have enough bits in common with this one.
        moduli: how many distinct moduli were compared.
    """

    partner_modulus: int
    partner: Earlier
    leading: bool
    sharing: int
    moduli: int

    def equal_bits(self, modulus: int) -> int:
        """How many bits are the same from that end on."""
        difference = modulus ^ self.partner_modulus
        if self.leading:
            return modulus.bit_length() - difference.bit_length()
        return (difference & -difference).bit_length() - 1

    def proves(self, subject: PublicKey | Item) -> bool:
        """They are different, and enough bits are the same."""
        return (
            isinstance(subject, RsaPublicKey)
            and subject.bits >= SHORTEST
            and subject.modulus != self.partner_modulus
            and (not self.leading or subject.bits == self.partner_modulus.bit_length())
            and self.equal_bits(subject.modulus) >= least_bits(self.moduli)
        )

    def describe(self) -> Mapping[str, Value]:
        return {
            "proof": "measurement",
            "end": "leading" if self.leading else "trailing",
            "partner": {"source": self.partner.source, "index": self.partner.index, "sha256": self.partner.sha256},
            "other_moduli": self.sharing,
            "moduli": self.moduli,
            "chance_below_2_to_the_power": -40,
        }

    def steps(self, subject: PublicKey | Item) -> list[Step]:
        assert isinstance(subject, RsaPublicKey)
        return [
            Step(f"The modulus is {subject.modulus:X}"),
            Step(f"That of {self.partner.source}#{self.partner.index} is {self.partner_modulus:X}"),
            Step(
                f"From the {'first' if self.leading else 'last'} on, {self.equal_bits(subject.modulus)} bits are equal"
            ),
        ]


@fleet_check(
    id="fleet-common-prefix",
    title="modulus begins or ends like another one",
    classification=Classification.NOTICE,
    severity=Severity.MEDIUM,
    confidence=Confidence.LIKELY,
    profile=Profile.STANDARD,
    since="0.2.0",
    references=(
        "Heninger, Durumeric, Wustrow, Halderman 2012: Mining your Ps and Qs",
        "A. K. Lenstra, Generating RSA moduli with a predetermined portion, ASIACRYPT 1998",
    ),
    explained_by=(
        "rsa-invalid-modulus",
        "rsa-small-factor",
        "rsa-close-primes",
        "rsa-shared-bits",
        "rsa-patterned-primes",
        "rsa-polynomial-modulus",
        "rsa-unseeded-prng",
        "rsa-keypair-prng",
        "rsa-debian-openssl",
        "fleet-shared-prime",
    ),
)
def fleet_common_prefix(fleet: Fleet, _context: Context) -> Iterator[tuple[int, Verdict]]:
    """Both ends, sorted; each modulus is reported once, for its beginning if that is shared."""
    moduli, ordinals = fleet.rsa_moduli, fleet.rsa_ordinals
    by_size: dict[int, list[int]] = defaultdict(list)
    for place, modulus in enumerate(moduli):
        by_size[modulus.bit_length()].append(place)
    groups = [members for size, members in by_size.items() if size >= SHORTEST]
    everything = [place for members in groups for place in members]
    count = len(everything)
    least = least_bits(count) if count else 0
    if count < 2 or least > bits.END:
        return
    found: dict[int, tuple[int, bool, int]] = {}
    for members, leading in [*((members, True) for members in groups), (everything, False)]:
        ends = bits.end_of_many([moduli[place] for place in members], leading=leading)
        for row, partner, together in bits.common_runs(ends, least):
            found.setdefault(members[row], (members[partner], leading, together - 1))
    wanted = sorted({ordinals[partner][0] for partner, _, _ in found.values()})
    names = {
        ordinal: Earlier(item.source, item.index, item.sha256)
        for ordinal, item in zip(wanted, fleet.items(wanted), strict=True)
    }
    for place, (partner, leading, sharing) in found.items():
        evidence = CommonEnd(moduli[partner], names[ordinals[partner][0]], leading, sharing, count)
        verdict = Verdict(_message(evidence, moduli[place]), evidence)
        for ordinal in ordinals[place]:
            yield ordinal, verdict


def _message(evidence: CommonEnd, modulus: int) -> str:
    partner = f"{evidence.partner.source}#{evidence.partner.index}"
    more = evidence.sharing - 1
    also = f", and {more:,} more do nearly so" if more else ""
    verb = "begins" if evidence.leading else "ends"
    return f"its modulus {verb} with the same {evidence.equal_bits(modulus)} bits as that of {partner}{also}"
