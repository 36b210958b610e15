"""A second opinion on the keys with small private exponents: Python's own integers, a message, and sympy on the primes."""

from __future__ import annotations

from math import gcd, lcm

import pytest
from sympy import isprime

from keyassay.certificates.public_key import RsaPublicKey
from vectors_of_checks import Case, cases_of

CASES = [case for case in cases_of("rsa-small-private-exponent") if {"d", "dp"} & set(case.private)]


def key_of(case: Case) -> RsaPublicKey:
    [item] = case.items
    assert isinstance(item.key, RsaPublicKey)
    return item.key


@pytest.mark.parametrize("case", CASES, ids=str)
def test_private_exponents_undo_public_ones(case: Case) -> None:
    key, private = key_of(case), case.private
    p, q, e = private["p"], private["q"], key.exponent
    assert p * q == key.modulus
    if "d" in private:
        assert e * private["d"] % lcm(p - 1, q - 1) == 1
        assert pow(pow(0xC0FFEE, e, key.modulus), private["d"], key.modulus) == 0xC0FFEE
    else:
        assert e * private["dp"] % (p - 1) == 1
        assert pow(pow(0xC0FFEE, e, p), private["dp"], p) == 0xC0FFEE


@pytest.mark.parametrize("case", [case for case in CASES if case.verdict != "healthy"], ids=str)
def test_private_exponents_are_as_long_as_the_name_says(case: Case) -> None:
    exponent = case.private.get("d", case.private.get("dp", 0))
    assert str(abs(exponent).bit_length()) in case.name.replace(":", "").replace(",", "").split()
    assert gcd(exponent, case.private["p"] - 1) == 1


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_primes_are_primes(case: Case) -> None:
    assert all(isprime(case.private[name]) for name in "pq")
