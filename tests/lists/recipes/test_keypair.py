"""The generator against keys of the original, and what look-ups rely on: numbers of pools, tops, distances."""

from __future__ import annotations

import csv
from itertools import islice
from pathlib import Path

import gmpy2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.lists.recipes import keypair

VECTORS = Path(__file__).parent.parent.parent / "vectors" / "keypair_originals.csv"
ORIGINALS = [
    (int(bits), int(exponent), bytes.fromhex(pool), int(p, 16), int(q, 16))
    for bits, exponent, pool, p, q in (
        line for line in csv.reader(VECTORS.read_text().splitlines()) if not line[0].startswith("#")
    )
]
POOLS = st.integers(0, keypair.pools_up_to(3) - 1)


@pytest.mark.parametrize(
    ("bits", "exponent", "pool", "p", "q"),
    [
        pytest.param(*row, id=f"{row[0]}-{row[2].hex()}", marks=[pytest.mark.slow] if row[0] > 2048 else [])
        for row in ORIGINALS
    ],
)
def test_original_key_is_made_again(bits: int, exponent: int, pool: bytes, p: int, q: int) -> None:
    made = keypair.first_key(pool, bits, exponent)
    assert (made.p, made.q) == (p, q)
    assert gmpy2.is_prime(p)
    assert gmpy2.is_prime(q)


@pytest.mark.parametrize(
    "row", [row for row in ORIGINALS if row[1] == 65537], ids=lambda row: f"{row[0]}-{row[2].hex()}"
)
def test_starts_tell_the_original_without_a_primality_test(row: tuple[int, int, bytes, int, int]) -> None:
    bits, _, pool, p, q = row
    assert keypair.top_bits(pool, bits) == p * q >> (bits - 64)
    one, two = keypair.starts_of_primes(pool, bits)
    assert keypair.prime_of(p * q, one, two) in (p, q)
    assert keypair.prime_of(p * q, two, one) in (p, q)
    assert {p - max(one, two), q - min(one, two)} <= set(range(keypair.REACH))


def test_originals_hold_every_branch() -> None:
    """Keys of the originals took one to several draws more than two, and one threw a prime away for its exponent."""
    draws = {keypair.first_key(pool, bits, e).draws for bits, e, pool, _, _ in ORIGINALS if bits <= 2048}
    assert {2, 3, 6} <= draws
    bits, e, pool, *_ = [row for row in ORIGINALS if row[1] == 3][-1]
    assert keypair.first_key(pool, bits, 65537).modulus != keypair.first_key(pool, bits, e).modulus


def test_counts_and_shares() -> None:
    assert [keypair.pools_up_to(count) for count in range(4)] == [256, 71_680, 9_713_920, 848_588_800]
    shares = [keypair.share_up_to(count) for count in range(keypair.PLACES + 1)]
    assert [round(share, 3) for share in shares[:4]] == [0.33, 0.702, 0.906, 0.977]
    assert shares[-1] == pytest.approx(1)


@given(POOLS)
def test_pools_have_the_bytes_that_their_number_says(number: int) -> None:
    pool = keypair.pool_of(number)
    count = keypair.nonzero_bytes(pool)
    assert len(pool) == 32
    assert max(pool[1:]) <= 9
    assert keypair.pools_up_to(count - 1) <= number < keypair.pools_up_to(count)
    assert pool[0] == number % 256


def test_pools_are_all_different() -> None:
    assert len({keypair.pool_of(number) for number in range(71_680)}) == 71_680
    block = range(71_680 + 100 * 256 * 81, 71_680 + 101 * 256 * 81)
    pools = {keypair.pool_of(number) for number in block}
    assert len(pools) == len(block)
    assert len({tuple(place for place in range(1, 32) if pool[place]) for pool in pools}) == 1


@pytest.mark.parametrize("number", [-1, keypair.pools_up_to(3)])
def test_numbers_outside_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match="there is no pool"):
        keypair.pool_of(number)


@given(POOLS, st.sampled_from([512, 1024, 1536, 2048]))
@settings(max_examples=40)
def test_starts_are_where_a_search_can_begin(number: int, bits: int) -> None:
    for start in islice(keypair.starts(keypair.pool_of(number), bits), 3):
        assert start % 30 == 1
        assert start.bit_length() == bits // 2


@given(POOLS, st.integers(0, keypair.REACH - 1), st.integers(0, keypair.REACH - 1), st.booleans())
@settings(max_examples=60)
def test_any_two_distances_in_reach_are_found(number: int, x: int, y: int, swap: bool) -> None:
    """The distance is found from 64 bits whatever the two numbers are, so that no search is missed."""
    one, two = keypair.starts_of_primes(keypair.pool_of(number), 1024)
    if swap:
        one, two = two, one
    found = keypair.prime_of((one + x) * (two + y), one, two)
    assert found == one + x


@given(POOLS, st.integers(-(1 << 600), 1 << 600))
@settings(max_examples=60)
def test_neighbours_of_a_product_have_no_such_factor(number: int, away: int) -> None:
    one, two = keypair.starts_of_primes(keypair.pool_of(number), 1024)
    modulus = one * two + away
    found = keypair.prime_of(modulus, one, two)
    assert found is None or (modulus % found == 0 and 0 <= found - one < keypair.REACH)
