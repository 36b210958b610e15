"""Related, small and betrayed primes: what lies within a screen's reach comes out, and whatever comes out divides."""

from __future__ import annotations

from random import Random

import gmpy2
import numpy as np
import pytest
from gmpy2 import mpz
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.keymath import arrays, factoring

SIZES = (64, 512, 1024, 2048, 3072)


def prime(random: Random, size: int) -> int:
    return int(gmpy2.next_prime(random.getrandbits(size) | 3 << (size - 2)))


def residues(numbers: list[mpz]) -> np.ndarray:
    size = max(8, (max(n.bit_length() for n in numbers) + 127) // 128 * 8 * 2)
    return arrays.residues(arrays.byte_matrix(numbers, size), factoring.SIEVE_MODULI)


def fermat(numbers: list[int], rounds: int = 1 << 14) -> dict[int, tuple[int, int]]:
    moduli = [mpz(n) for n in numbers]
    roots = [gmpy2.isqrt(n) for n in moduli]
    found = factoring.close_primes(moduli, roots, residues(moduli), residues(roots), rounds)
    # a number with several factorizations that are near: the nearest counts
    return {row: (factor, place) for row, factor, place in reversed(list(found))}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(SIZES), st.integers(1, (1 << 14) - 1))
def test_primes_within_the_rounds_are_found_in_their_round(seed: int, bits: int, rounds: int) -> None:
    """The factor of N whose (p + q)/2 is that far above the root; p and q need not be prime."""
    random = Random(seed)
    q = random.getrandbits(bits // 2) | 3 << (bits // 2 - 2) | 1
    p = q + int(gmpy2.isqrt(q * 8 * rounds)) // 2 * 2
    if p == q:
        return
    distance = (p + q) // 2 - int(gmpy2.isqrt(p * q))
    found = fermat([p * q])
    # a composite N may have factors that are closer still
    assert found[0][1] <= distance <= 1 << 14
    assert p * q % found[0][0] == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(2**255, 2**256 - 1), st.integers(0, 2**133)), min_size=1, max_size=5))
def test_a_sieve_says_what_single_rounds_say(pairs: list[tuple[int, int]]) -> None:
    """Against Fermat's method as it stands in books, on odd numbers that are no squares."""
    numbers = [(a | 1) * ((a | 1) + 2 * b) for a, b in pairs if b]
    if not numbers:
        return
    found = fermat(numbers)
    for row, n in enumerate(numbers):
        s = int(gmpy2.isqrt(n)) + 1
        expected = next((turn for turn in range(1, 300) if gmpy2.is_square((s + turn - 1) ** 2 - n)), None)
        if expected is None:
            assert row not in found or found[row][1] >= 300
        else:
            assert found[row][1] == expected


def test_rounds_of_several_parts_are_all_done() -> None:
    random = Random(1)
    q = prime(random, 512)
    for rounds in (16_000, 40_000, 100_000):
        p = int(gmpy2.next_prime(q + int(gmpy2.isqrt(q * 8 * rounds))))
        assert (0 in fermat([p * q])) == (rounds < 16_384)
        factor, place = fermat([p * q], 1 << 17)[0]
        assert factor in (p, q)
        assert abs(place - rounds) < 200


def test_sound_numbers_have_no_close_factors() -> None:
    random = Random(2)
    assert fermat([prime(random, 256) * prime(random, 256) for _ in range(8)]) == {}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(factoring.ratio_pairs(32)), st.sampled_from((512, 1024, 2048, 4096)))
def test_ratios_are_found_whatever_the_size(seed: int, pair: tuple[int, int], bits: int) -> None:
    """Q the next number after p a/b: within the stated reach of abs(aq - bp) < 2^-11.5 (abN)^(1/4)."""
    a, b = pair
    random = Random(seed)
    q = random.getrandbits(bits // 2) | 3 << (bits // 2 - 2) | 1
    p = (q * a // b + random.randrange(50)) | 1
    n = mpz(p * q)
    assert (a * q - b * p) ** 4 << 46 < a * b * n
    found = list(factoring.near_ratio([n], [gmpy2.isqrt(n << 128)], factoring.ratio_pairs(32)))
    assert found
    assert all(n % factor == 0 and 1 < factor < n for _, factor, _, _ in found)


def test_pairs_are_coprime_and_complete() -> None:
    found = set(factoring.ratio_pairs(40))
    for a in range(1, 41):
        for b in range(1, 41):
            wanted = gmpy2.gcd(a, b) == 1 and b < a and (a <= 16 or a < 2 * b)
            assert ((a, b) in found) == wanted


@pytest.mark.parametrize("digits", [6, 70, 134])
def test_columns_of_ratios_are_the_fractions_of_their_roots(digits: int) -> None:
    pairs = factoring.ratio_pairs(12)
    columns = factoring._ratio_columns(digits, pairs)
    for number, (a, b) in enumerate(pairs):
        root = gmpy2.isqrt(mpz(4 * a * b) << 6000)  # 2 sqrt(ab) * 2^3000
        for i in range(digits):
            shift = 3000 + 64 - 16 * i
            fraction = (root & ((mpz(1) << shift) - 1)) / mpz(1 << shift)
            assert abs((columns[i, number] - float(fraction) + 0.5) % 1 - 0.5) < 2**-52


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32), st.sampled_from((512, 1024, 2048)), st.sampled_from((2, 3, 100, 128)), st.integers(0, 4095)
)
def test_known_differences_are_found_to_the_last_place(seed: int, bits: int, k: int, t: int) -> None:
    random = Random(seed)
    half = bits // 2
    while True:
        q = (random.getrandbits(half) | 3 << (half - 2) | 1) - (1 << (half - k))
        p = q + (1 << (half - k)) + 2 * t
        if (p * q).bit_length() == bits:
            break
    found = list(factoring.known_difference([mpz(p * q)], residues([mpz(p * q)]), bits, (k,)))
    assert (0, q, k) in found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((1024, 2048, 3072)), st.sampled_from((2, 64, 100)), st.floats(-1, 1))
def test_differences_are_found_of_which_the_top_is_known(seed: int, bits: int, k: int, share: float) -> None:
    """Any t of up to a sixth of N's bits less 12, of either sign; no t of ten bits more."""
    random = Random(seed)
    half = bits // 2
    unknown = half // 3 - 12
    t = int(share * 2**53) << (unknown - 53) if abs(share) < 1 else random.getrandbits(unknown - 1)
    while True:
        q = (random.getrandbits(half - 1) | 1 << (half - 2) | 1) + (1 << (half - 1)) - (1 << (half - k))
        p = q + (1 << (half - k)) + t // 2 * 2
        if (p * q).bit_length() == bits:
            break
    assert factoring.about_known_difference(mpz(p * q), bits, k, unknown) == q
    beyond = p + (random.getrandbits(unknown + 10) | 1 << (unknown + 10)) * 2
    if (beyond * q).bit_length() == bits:
        assert factoring.about_known_difference(mpz(beyond * q), bits, k, unknown) is None
    assert factoring.about_known_difference(mpz(p * q + 2), bits, k, unknown) is None


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**64),
    bits=st.integers(96, 1024),
    t=st.integers(0, 2**16 - 1),
    shorter=st.sampled_from((0, 1, 5)),
)
def test_a_factor_above_a_start_is_found(seed: int, bits: int, t: int, shorter: int) -> None:
    random = Random(seed)
    p = int(gmpy2.next_prime(random.getrandbits(bits) | 3 << (bits - 2)))
    q = int(gmpy2.next_prime(random.getrandbits(bits - shorter) | 3 << (bits - shorter - 2)))
    n = gmpy2.mpz(p * q)
    assert factoring.factor_above(n, gmpy2.mpz(p - t), 16) == p
    assert factoring.factor_above(n, gmpy2.mpz(p - t - 2**16), 16) is None
    assert factoring.factor_above(n, gmpy2.mpz(p + 1 + t), 16) is None


@given(st.integers(0, 2**2048), st.integers(4, 1200))
def test_2_adic_roots_square_to_their_number(n: int, bits: int) -> None:
    n = n - n % 8 + 1
    root = factoring.square_root_2_adic(mpz(n), bits)
    assert (root * root - n) % (1 << (bits - 1)) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((512, 1024, 2048)), st.floats(0, 1), st.booleans())
def test_templates_of_primes_are_found(seed: int, bits: int, share: float, exact: bool) -> None:
    """H high and m low bits in common, 1 more than a quarter of N's bits in all, 7 more if not exact."""
    random = Random(seed)
    half, together = bits // 2, bits // 4 + (1 if exact else 7)
    low = max(8, round(share * together))
    high = max(2, together - low)
    p = random.getrandbits(half) | 3 << (half - 2) | 1
    middle = random.getrandbits(half - high - low) if half > high + low else 0
    q = p >> (half - high) << (half - high) | middle << low | p & ((1 << low) - 1)
    n = mpz(p * q)
    if p == q or gmpy2.is_square(n):
        return
    found = factoring.shared_bits(n, gmpy2.isqrt(n), exact=exact)
    assert found is not None
    assert n % found[0] == 0
    assert 1 < found[0] < n


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((512, 1024, 2048)), st.integers(8, 510), st.sampled_from((1, -1)))
def test_small_private_exponents_are_found_on_both_sides(seed: int, bits: int, d_bits: int, sign: int) -> None:
    random = Random(seed)
    d_bits = min(d_bits, bits // 4 - 3)
    p, q = prime(random, bits // 2), prime(random, bits // 2)
    phi = (p - 1) * (q - 1)
    d = random.getrandbits(d_bits) | 1 | 1 << (d_bits - 1)
    if gmpy2.gcd(d, phi) != 1:
        return
    e = int(gmpy2.invert(sign * d, phi))
    found = factoring.wiener(p * q, e)
    assert found is not None
    assert found[0] in (p, q)
    assert (e * found[1] - 1) % phi == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(8, 240), st.sampled_from((1, -1)), st.sampled_from((2, 4, 6, 30)))
def test_private_exponents_that_are_small_modulo_the_least_common_multiple_are_found(
    seed: int, d_bits: int, sign: int, shared: int
) -> None:
    """Whatever p - 1 and q - 1 share: modulo phi most of these d are long."""
    random = Random(seed)
    p, q = (shared * random.getrandbits(505) + 1 for _ in range(2))
    while not gmpy2.is_prime(p):
        p += shared
    while not gmpy2.is_prime(q) or gmpy2.gcd(p - 1, q - 1) != shared:
        q += shared
    order = int(gmpy2.lcm(p - 1, q - 1))
    d = sign * (random.getrandbits(d_bits) | 1 | 1 << (d_bits - 1))
    if gmpy2.gcd(d, order) != 1:
        return
    e = int(gmpy2.invert(d, order))
    if abs(e * d - 1) // order >= shared:
        assert factoring.wiener(p * q, e) in ((p, d), (q, d))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(560, 1020))
def test_shorter_exponents_allow_longer_private_ones(seed: int, e_bits: int) -> None:
    """Found up to N^(3/4)/sqrt(e): e and d of the lengths a and 768 - a/2 have k of 256 - a/2 bits."""
    random = Random(seed)
    d_bits = 768 - e_bits // 2 - 4
    k_bits = e_bits + d_bits - 1024
    while (
        True
    ):  # e d = 1 + k phi: d divides 1 + k phi for a random d and the k that fits modulo d; then q has to be prime
        d, p, k = prime(random, d_bits), prime(random, 512), random.getrandbits(k_bits) | 1 << (k_bits - 1)
        if (p - 1) % d == 0 or k % d == 0:
            continue
        step = -int(gmpy2.invert(k * (p - 1), d)) % d
        q = (3 << 510) - (3 << 510) % d + step + 1
        while q.bit_length() == 512 and not gmpy2.is_prime(q):
            q += d
        if q.bit_length() == 512:
            break
    e = (1 + k * (p - 1) * (q - 1)) // d
    assert e * d == 1 + k * (p - 1) * (q - 1)
    found = factoring.wiener(p * q, e)
    assert found is not None
    assert found[0] in (p, q)


def test_an_exponent_without_an_inverse_has_no_private_one() -> None:
    assert factoring.least_private_exponent(7, 11, 3) is None
    assert factoring.least_private_exponent(7, 11, 7) == 13
    assert factoring.least_private_exponent(7, 11, 23) == -13


def test_ordinary_exponents_have_no_small_inverse() -> None:
    random = Random(5)
    p, q = prime(random, 512), prime(random, 512)
    assert factoring.wiener(p * q, 65537) is None
    assert factoring.wiener(p * q, prime(random, 1000)) is None


@given(st.integers(2, 10**30), st.sampled_from((100, 1000, 1 << 16)))
def test_the_least_odd_prime_factor_is_the_least(n: int, limit: int) -> None:
    found = factoring.least_prime_factor(n, limit)
    expected = next((p for p in range(3, limit, 2) if n % p == 0), None)
    assert found == expected


@settings(deadline=None)
@given(st.lists(st.integers(1, 2**200), max_size=30), st.integers(3, 300))
def test_chains_find_all_that_share_a_factor_and_nothing_else(numbers: list[int], limit: int) -> None:
    smooth = factoring.odd_primorial(limit)
    found = factoring.with_common_factor([mpz(n) for n in numbers], smooth)
    assert found == [row for row, n in enumerate(numbers) if gmpy2.gcd(n, smooth) > 1]


@given(st.lists(st.integers(0, 2**100), max_size=40))
def test_products_by_trees_are_products(numbers: list[int]) -> None:
    expected = 1
    for n in numbers:
        expected *= n
    assert factoring.product([mpz(n) for n in numbers]) == expected


def test_primes_below_are_all_primes() -> None:
    assert factoring.primes_below(1000).tolist() == [n for n in range(1000) if gmpy2.is_prime(n)]
    assert factoring.odd_primorial(1000) == gmpy2.primorial(999) // 2


@given(rows=st.lists(st.lists(st.integers(0, 65535), min_size=3, max_size=3), min_size=1, max_size=4))
def test_a_row_alone_has_the_digits_that_it_has_among_others(rows: list[list[int]]) -> None:
    raw = np.array(rows, dtype="<u2")
    alone = np.concatenate([factoring._balanced(raw[row : row + 1]) for row in range(len(raw))])
    assert np.array_equal(alone, factoring._balanced(np.concatenate([raw, raw]))[: len(raw)])
    values = [sum(int(digit) << (16 * place) for place, digit in enumerate(row)) for row in alone]
    assert values == [int.from_bytes(row.tobytes(), "little") for row in raw]


def test_one_key_is_sieved_alike_before_and_after_the_tables_are_made() -> None:
    random = Random(8)
    p = gmpy2.next_prime(random.getrandbits(508) | 3 << 510)
    q = gmpy2.next_prime(p + (1 << 512 - 3))
    n = mpz(p * q)
    assert n.bit_length() == 1024
    factoring._difference_table.cache_clear()
    alone = list(factoring.known_difference([n], residues([n]), n.bit_length(), (2, 3)))
    many = [n] * 64
    assert len(list(factoring.known_difference(many, residues(many), n.bit_length(), (2, 3)))) == 64
    assert factoring._difference_table.cache_info().currsize
    assert list(factoring.known_difference([n], residues([n]), n.bit_length(), (2, 3))) == alone
    assert alone == [(0, p, 3)]
