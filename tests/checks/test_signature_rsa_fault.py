"""Screening by products finds exactly the signatures that are not valid, whatever their number and place."""

from __future__ import annotations

from functools import cache
from random import Random

import gmpy2
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks.signature_rsa_fault import _Signed, expected, factor, invalid, suitable


@cache
def primes() -> tuple[int, int]:
    random = Random(1997)
    p, q = (int(gmpy2.next_prime(random.getrandbits(512) | 3 << 510)) for _ in range(2))
    return p, q


def signed(number: int, wrong: bool) -> _Signed:
    p, q = primes()
    key = RsaPublicKey(p * q, 65537)
    part = f"certificate {number}".encode()
    message = expected(key, "1.2.840.113549.1.1.11", part)
    s = pow(message, pow(65537, -1, (p - 1) * (q - 1)), p * q)
    if wrong:  # right modulo p, wrong modulo q
        s = (s + p * (number + 1)) % (p * q)
    return _Signed(str(number), "1.2.840.113549.1.1.11", s, message, part)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_products_find_exactly_the_invalid_ones(wrong: list[bool]) -> None:
    key = RsaPublicKey(primes()[0] * primes()[1], 65537)
    assert suitable(key)
    signatures = [signed(number, fault) for number, fault in enumerate(wrong)]
    found = [one.place for one in invalid(key, signatures)]
    assert found == [str(number) for number, fault in enumerate(wrong) if fault]
    for one in invalid(key, signatures):
        assert factor(key, one.algorithm, one.signed_part, one.s) == primes()[0]


def test_keys_that_sign_nothing_sound_are_left_alone() -> None:
    for n in (0, 1, 15, 2**2047, 2**9000 + 1):
        assert not suitable(RsaPublicKey(n, 65537))
    assert not suitable(RsaPublicKey(primes()[0] * primes()[1], 2**80 + 1))
