from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.keymath import nonces
from keyassay.keymath.curves import named_curves

ORDER = int(named_curves()["P-256"].order)
numbers = st.integers(2, ORDER - 2)


def line(k, d, t):
    """A line (u, t) with k = u + t d."""
    return (k - t * d) % ORDER, t


@settings(deadline=None)
@given(numbers, numbers, numbers, numbers)
def test_a_repeated_nonce_is_among_the_candidates(k, d, r, z):
    signed = [((digest + r * d) * pow(k, -1, ORDER) % ORDER, digest) for digest in (z, z + 1)]
    assert k in nonces.repeated(*signed, ORDER)
    # s and -s are both accepted: then k and -k make the same r
    flipped = (-signed[1][0] % ORDER, signed[1][1])
    assert k in nonces.repeated(signed[0], flipped, ORDER)


def test_equal_signatures_tell_nothing():
    assert len(nonces.repeated((5, 7), (5, 7), ORDER)) == 1  # only k = 0 of the other sign


@pytest.mark.parametrize(
    ("rule", "count"),
    [
        (lambda k: k + 1, 2),
        (lambda k: k - 1, 2),
        (lambda k: 2 * k, 2),
        (lambda k: 2 * k + 1, 2),
        (lambda k: k + 12_345, 3),
        (lambda k: (6364136223846793005 * k + 1442695040888963407) % ORDER, 4),
    ],
    ids=["plus one", "minus one", "double", "double plus one", "equal steps", "congruential generator"],
)
@settings(deadline=None, max_examples=20)
@given(k=numbers, d=numbers, seed=numbers)
def test_the_private_key_follows_from_each_rule(rule, count, k, d, seed):
    slopes = Random(seed)  # unrelated ones, as digests are
    made = [k]
    for _ in range(count - 1):
        made.append(rule(made[-1]) % ORDER)
    lines = [line(one, d, slopes.randrange(2, ORDER)) for one in made]
    assert any(found == d and used <= count for found, _, used in nonces.successive(lines, ORDER))


@given(k=numbers, d=numbers)
def test_unrelated_nonces_give_no_private_key(k, d):
    lines = [line(pow(k, power, ORDER), d, 3 + power) for power in (1, 3, 4, 9)]
    assert d not in {found for found, _, _ in nonces.successive(lines, ORDER)}


def test_small_nonces_of_dsa():
    p, q, g = 23, 11, 4
    table = nonces.small_powers(p, q, g)
    for k in (1, 2, 9, 100):
        assert k in table[pow(g, k, p) % q]
