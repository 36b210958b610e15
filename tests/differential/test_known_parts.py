"""A second opinion on shared subprimes, common ends and repeated words: Python's own integers and text, and sympy."""

from __future__ import annotations

import re
from itertools import pairwise, takewhile
from math import gcd

import pytest
from sympy import isprime

from keyassay.bulk.fleet import fleet_of
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, check
from keyassay.checks.fleet_common_prefix import CommonEnd
from keyassay.checks.fleet_shared_subprime import SharedSubprime
from keyassay.findings import Evidence, Factor, Profile
from vectors_of_checks import Case, cases_of


def moduli_of(case: Case) -> list[int]:
    keys = [item.key for item in case.items]
    assert all(isinstance(key, RsaPublicKey) for key in keys)
    return [key.modulus for key in keys if isinstance(key, RsaPublicKey)]


def common(one: str, other: str) -> str:
    """What two texts begin with, read letter by letter."""
    return "".join(a for a, _ in takewhile(lambda letters: letters[0] == letters[1], zip(one, other, strict=False)))


def evidence_of(case: Case) -> dict[int, Evidence]:
    context = Context(profile=Profile.DEEP, now=1_790_000_000)
    return {row: verdict.evidence for row, verdict in check(case.check).find(fleet_of(list(case.items)), context)}


@pytest.mark.parametrize("case", cases_of("fleet-shared-subprime"), ids=str)
def test_a_common_divisor_of_moduli_less_one_is_there_or_not(case: Case) -> None:
    """Weak items have a common divisor that holds a large prime with another item, by Euclid; no other item has."""
    moduli = moduli_of(case)
    large = set()
    for row, n in enumerate(moduli):
        for other in moduli:
            rest = gcd(n - 1, other - 1) if other != n else 1
            for small in range(2, 400):
                while rest % small == 0:
                    rest //= small
            if rest >= 2**64:
                large.add(row)
                assert isprime(rest)
    assert large == set(case.weak)
    for row, evidence in evidence_of(case).items():
        if isinstance(evidence, Factor):
            p, q = evidence.factor, moduli[row] // evidence.factor
            assert p * q == moduli[row]
            assert isprime(p)
            assert isprime(q)
            assert gcd(p - 1, q - 1).bit_length() > moduli[row].bit_length() // 4 - 8
        else:
            assert isinstance(evidence, SharedSubprime)
            assert (moduli[row] - 1) % evidence.divisor == (evidence.partner_modulus - 1) % evidence.divisor == 0


@pytest.mark.parametrize("case", cases_of("fleet-common-prefix"), ids=str)
def test_common_ends_are_there_in_writing(case: Case) -> None:
    """Each with each, by the text of their binary digits; the bits that the messages claim, too."""
    texts = [format(n, "b") for n in moduli_of(case)]
    alike = set()
    for row, text in enumerate(texts):
        for other in texts:
            if other == text:
                continue
            backwards = len(common(text[::-1], other[::-1]))
            forwards = len(common(text, other)) if len(text) == len(other) else 0
            if max(forwards, backwards) >= 60:
                alike.add(row)
    assert alike == set(case.weak)
    for row, evidence in evidence_of(case).items():
        assert isinstance(evidence, CommonEnd)
        step = 1 if evidence.leading else -1
        partner = format(evidence.partner_modulus, "b")[::step]
        assert str(len(common(texts[row][::step], partner))) in evidence.steps(case.items[row].key)[-1].says  # type: ignore[arg-type]


WORDS = [case for case in cases_of("rsa-patterned-primes") if "free bits" in case.name or "ones of 512" in case.name]


@pytest.mark.parametrize("case", WORDS, ids=str)
def test_patterns_are_there_in_writing(case: Case) -> None:
    p, q = case.private["p"], case.private["q"]
    assert [p * q] == moduli_of(case)
    assert isprime(p)
    assert isprime(q)
    if "ones" in case.name:
        [ones] = re.findall(r"(\d+) ones", case.name) or [0]
        assert p.bit_count() == q.bit_count() == int(ones)
        return
    period, free = (int(re.findall(rf"(\d+) {what}", case.name)[0]) for what in ("bits repeated", "free bits"))
    known = format(p, "b")[2:-free]
    words = [known[place : place + period] for place in range(0, len(known) - period + 1, period)]
    assert len(words) >= 15
    assert all(one == other for one, other in pairwise(words))
