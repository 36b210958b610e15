"""What fleet-shared-subprime and fleet-common-prefix refuse: forged evidence, too little memory, chance."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import gmpy2
import pytest

from keyassay.bulk.fleet import fleet_of
from keyassay.certificates.decoding import item_of_key
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, check
from keyassay.checks import fleet_common_prefix as prefix
from keyassay.checks import fleet_shared_subprime as subprime
from keyassay.findings import EvidenceRefusedError, Profile, Verdict
from vectors_of_checks import cases_of

DEEP = Context(profile=Profile.DEEP)


def likely(name: str) -> tuple[RsaPublicKey, Verdict]:
    """The first item of the first likely vector of a check, and what the check says of it."""
    case = next(case for case in cases_of(name) if case.confidence == "likely")
    row, verdict = min(check(name).find(fleet_of(list(case.items)), DEEP), key=lambda pair: pair[0])
    key = case.items[row].key
    assert isinstance(key, RsaPublicKey)
    return key, verdict


@pytest.mark.parametrize(
    "forged",
    [
        lambda one: {"divisor": one.divisor * 3},
        lambda one: {"divisor": one.divisor + 2},
        lambda one: {"divisor": 1},
        lambda one: {"partner_modulus": one.partner_modulus + 2},
        lambda one: {"moduli": 1 << 40},
    ],
    ids=["tripled", "another", "one", "another partner", "many more keys"],
)
def test_forged_divisors_are_refused(forged) -> None:
    key, verdict = likely("fleet-shared-subprime")
    one = check("fleet-shared-subprime")
    assert one.finding(key, verdict).confidence == "likely"
    evidence = replace(verdict.evidence, **forged(verdict.evidence))
    with pytest.raises(EvidenceRefusedError):
        one.finding(key, replace(verdict, evidence=evidence))


def test_a_divisor_of_the_key_alone_or_beside_itself_is_refused() -> None:
    key, verdict = likely("fleet-shared-subprime")
    evidence = replace(verdict.evidence, partner_modulus=key.modulus)
    assert not evidence.proves(key)
    smooth = int(gmpy2.primorial(1000)) // 2
    both = [RsaPublicKey(2 * smooth * a + 1, 65537) for a in (2**600 + 1, 2**600 + 3)]
    forged = replace(verdict.evidence, divisor=smooth, partner_modulus=both[1].modulus)
    assert (both[0].modulus - 1) % smooth == 0
    assert not forged.proves(both[0])


@pytest.mark.parametrize(
    "forged",
    [
        lambda one: {"partner_modulus": one.partner_modulus ^ 1 << 1000},
        lambda one: {"partner_modulus": one.partner_modulus << 8},
        lambda one: {"leading": not one.leading},
        lambda one: {"moduli": 1 << 80},
    ],
    ids=["another partner", "a longer partner", "the other end", "many more keys"],
)
def test_forged_ends_are_refused(forged) -> None:
    key, verdict = likely("fleet-common-prefix")
    one = check("fleet-common-prefix")
    assert one.finding(key, verdict).confidence == "likely"
    evidence = replace(verdict.evidence, **forged(verdict.evidence))
    with pytest.raises(EvidenceRefusedError):
        one.finding(key, replace(verdict, evidence=evidence))


def test_too_little_memory_is_said() -> None:
    case = next(case for case in cases_of("fleet-shared-subprime") if case.verdict == "weak")
    fleet = fleet_of(list(case.items), memory=1 << 20)
    assert list(check("fleet-shared-subprime").find(fleet, DEEP)) == []
    [note] = fleet.notes
    assert note.check == "fleet-shared-subprime"
    assert "raise --memory" in note.reason


def test_limits_follow_from_the_number_of_keys() -> None:
    """Pairs times the chance of one pair stay below 2^-40."""
    for moduli in (2, 3, 1000, 1 << 20, 10**7):
        pairs = moduli * (moduli - 1) // 2
        assert pairs * 5 * 2 ** (40 + 1) <= 2 ** prefix.least_bits(moduli)
        assert pairs * 2 * 2**40 <= 2 ** subprime.least_bits(moduli)


def test_the_bound_on_first_bits_holds_for_three_kinds_of_primes() -> None:
    """No interval of products of primes is met five times as often as its share of 0 to 1; a trial at 8 bits."""
    random = Random(7)
    for least in (0.5, 0.5**0.5, 0.75):
        counts = [0] * 256
        draws = 200_000
        for _ in range(draws):
            counts[int((least + random.random() * (1 - least)) * (least + random.random() * (1 - least)) * 256)] += 1
        assert max(counts) / draws < 5.2 / 256


def test_uniform_moduli_have_no_common_end() -> None:
    """A few thousand random numbers; what chance gives them in common is about 24 bits."""
    random = Random(8)
    items = [item_of_key(RsaPublicKey(random.getrandbits(1024) | 1 | 1 << 1023, 65537)) for _ in range(3000)]
    assert list(check("fleet-common-prefix").find(fleet_of(items), Context())) == []
