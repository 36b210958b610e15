"""Factors of moduli whose primes are related, small, or betrayed by the exponent; array screens and single proofs.

Notation as in the papers: N = pq with p > q, S = isqrt(N), ps = bits of a prime. A screen may return rows that lead
nowhere, and never drops one within its stated reach; every factor is a divisor that was divided.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache

import gmpy2
import numpy as np
from gmpy2 import mpz
from numpy.typing import NDArray

#: moduli of the bit sieves: together they let 2^-13 of random places pass
SIEVE_MODULI = (64, 63, 55, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59)
_KEYS_AT_ONCE = 64
#: fewer keys than this are not worth tables (30 ms)
_FEW = 64


def _squares(modulus: int) -> NDArray[np.bool_]:
    found = np.zeros(modulus, dtype=bool)
    found[[x * x % modulus for x in range(modulus)]] = True
    return found


def _fermat_pattern(m: int, n: NDArray[np.int64], start: int) -> NDArray[np.bool_]:
    """Row per n: "(start + 2k)^2 - n is a square modulo m" for k from 0 until it repeats."""
    places = start + 2 * np.arange(m if m % 2 else m // 2)
    pattern: NDArray[np.bool_] = _squares(m)[(places * places - n[:, None]) % m]
    return pattern


@cache
def _fermat_tables(places: int) -> tuple[NDArray[np.uint64], ...]:
    """Per modulus m: row N * m + s0, bit r = "(s0 + 2r)^2 - N is a square modulo m"; 28 MB for 8,192 places.

    The rows of one N are one periodic pattern, begun at each of its places: eight shifts by a bit are packed, all
    others are shifts of those by whole bytes.
    """
    tables = []
    width = places // 8
    for m in SIEVE_MODULI:
        rows = np.empty((m, m, width), dtype=np.uint8)
        for start in range(1 if m % 2 else 2):
            pattern = _fermat_pattern(m, np.arange(m), start)
            period = pattern.shape[1]
            long = np.take(pattern, np.arange(places + period + 8) % period, axis=1)
            packed = [
                np.packbits(long[:, shift : shift + places + period], axis=1, bitorder="little") for shift in range(8)
            ]
            for place in range(period):
                rows[:, (start + 2 * place) % m] = packed[place % 8][:, place // 8 : place // 8 + width]
        tables.append(rows.reshape(m * m, width).view(np.uint64))
    return tuple(tables)


def _fermat_row(places: int, n: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The rows of one key in the tables, ANDed: half a millisecond without any table."""
    passed = np.full(places // 8, 255, dtype=np.uint8)
    for column, m in enumerate(SIEVE_MODULI):
        pattern = _fermat_pattern(m, n[column : column + 1], int(starts[column]))[0]
        passed &= np.packbits(np.resize(pattern, places), bitorder="little")
    return passed.view(np.uint64)[None, :]


def _bits(words: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """(row, bit) of the set bits of rows of 64-bit words."""
    rows, columns = np.nonzero(words)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        word = int(words[row, column])
        while word:
            low = word & -word
            yield row, 64 * column + low.bit_length() - 1
            word ^= low


def close_primes(
    moduli: Sequence[mpz],
    roots: Sequence[mpz],
    residues: NDArray[np.int64],
    root_residues: NDArray[np.int64],
    rounds: int,
) -> Iterator[tuple[int, int, int]]:
    """Fermat's method on many odd moduli at once by a bit sieve.

    Args:
        moduli: odd N, none of them a square.
        roots: isqrt(N).
        residues: N modulo ``SIEVE_MODULI``, shape (rows, 15).
        root_residues: isqrt(N) likewise.
        rounds: Fermat rounds, a multiple of 16,384 (all of them are covered, half by parity).

    Yields:
        (row, factor, round).
    """
    places = 8_192
    few = len(moduli) < _FEW and not _fermat_tables.cache_info().currsize
    tables = () if few else _fermat_tables(places)
    modulus = np.array(SIEVE_MODULI, dtype=np.int64)
    # N = 1 mod 4 makes s = (p + q)/2 odd, N = 3 mod 4 even
    want_odd = np.array([int(n & 3) == 1 for n in moduli], dtype=bool)
    root_odd = np.array([int(root & 1) == 1 for root in roots], dtype=bool)
    offset = np.where(want_odd == root_odd, 2, 1)
    starts = (root_residues + offset[:, None]) % modulus
    base = residues * modulus
    for part in range(max(1, rounds // (2 * places))):
        shift = 2 * places * part
        moved = (starts + shift) % modulus
        index = base + moved
        step = 1 if few else _KEYS_AT_ONCE
        for first in range(0, len(moduli), step):
            if few:
                passed = _fermat_row(places, residues[first], moved[first])
            else:
                rows = index[first : first + step]
                passed = np.take(tables[0], rows[:, 0], axis=0, mode="clip")
                scratch = np.empty_like(passed)
                for column in range(1, len(SIEVE_MODULI)):
                    np.take(tables[column], rows[:, column], axis=0, out=scratch, mode="clip")
                    passed &= scratch
            for row, bit in _bits(passed):
                number = first + row
                distance = int(offset[number]) + shift + 2 * bit
                s = roots[number] + distance
                rest = s * s - moduli[number]
                if gmpy2.is_square(rest):
                    factor = s - gmpy2.isqrt(rest)
                    if 1 < factor < moduli[number]:
                        yield number, int(factor), distance


#: keys whose rows of 512 bytes stay in the cache
_ROWS_AT_ONCE = 256

#: pairs whose columns are made and kept together; the product of 512 rows and 200 columns stays in the cache
_PAIRS_AT_ONCE = 200


@lru_cache(maxsize=96)
def _ratio_columns(digits: int, pairs: tuple[tuple[int, int], ...]) -> NDArray[np.float64]:
    """Centred fractions of 2^(16i - 64) * 2 sqrt(ab), shape (digits, pairs)."""
    places = digits + 13  # digits of 16 bits behind the point: 200 spare bits
    size = 2 * (places + 2)
    roots = [int(gmpy2.isqrt(mpz(4 * a * b) << (32 * places))) for a, b in pairs]  # 2 sqrt(ab) * 2^(16 places)
    octets = b"".join([root.to_bytes(size, "little") for root in roots])
    expansion = np.frombuffer(octets, dtype="<u2").reshape(len(pairs), -1).astype(np.float64)
    columns = np.zeros((len(pairs), digits), dtype=np.float64)
    for i in range(digits):
        # the fraction of root * 2^(16i - 64) begins four digits above the point moved left by i; five digits
        # give 80 bits, more than a float64 holds
        top = places + 4 - i
        for place in range(5):
            if top - 1 - place < expansion.shape[1]:
                columns[:, i] += expansion[:, top - 1 - place] * 2.0 ** (-16 * (place + 1))
    columns[columns >= 0.5] -= 1
    return columns.T.copy()


#: up to this a the primes need not have the same length: q may be the next prime after 2p, 3p/2, ..., 16p
_UNEQUAL = 16


@cache
def ratio_pairs(limit: int) -> tuple[tuple[int, int], ...]:
    """Coprime (a, b), a > b, a up to the limit; above 16 only b < a < 2b, primes of equal length."""
    return tuple(
        (a, b)
        for a in range(2, limit + 1)
        for b in range(1 if a <= _UNEQUAL else a // 2 + 1, a)
        if gmpy2.gcd(a, b) == 1
    )


def _balanced(raw: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Digits of 16 bits, lowest first, as digits from -2^15 to 2^15 - 1; the highest one of a row stays."""
    balanced = np.empty(raw.shape, dtype=np.float64)
    if len(raw) == 1:  # a loop over numbers is ten times as fast as one over columns of one row
        row, over = [], 0
        for digit in raw[0, :-1].tolist():
            value = digit + over
            over = int(value >= 32768)
            row.append(value - (over << 16))
        balanced[0] = [*row, int(raw[0, -1]) + over]
        return balanced
    digits = raw.astype(np.int32)
    carry = np.zeros(len(raw), dtype=np.int32)
    for column in range(digits.shape[1]):
        value = digits[:, column] + carry
        carry = (value >= 32768).astype(np.int32)
        if column == digits.shape[1] - 1:
            carry[:] = 0
        balanced[:, column] = value - (carry << 16)
    return balanced


def near_ratio(
    moduli: Sequence[mpz], scaled_roots: Sequence[mpz], pairs: tuple[tuple[int, int], ...]
) -> Iterator[tuple[int, int, int, int]]:
    """Primes whose ratio is near a/b: 2 sqrt(abN) lies just below an integer.

    Args:
        moduli: N of equal bit length.
        scaled_roots: isqrt(N << 128).
        pairs: (a, b), coprime.

    Yields:
        (row, factor, a, b). Reach: abs(aq - bp) < 2^-11.5 (abN)^(1/4).
    """
    if not len(moduli) or not pairs:
        return
    size = (max(root.bit_length() for root in scaled_roots) + 31) // 16 * 2
    joined = b"".join([int(root).to_bytes(size, "little") for root in scaled_roots])
    raw = np.frombuffer(joined, dtype="<u2").reshape(len(moduli), -1)
    balanced = _balanced(raw)
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        chosen = pairs[start : start + _PAIRS_AT_ONCE]
        columns = _ratio_columns(raw.shape[1], chosen)
        for first in range(0, len(moduli), 512):
            sums = balanced[first : first + 512] @ columns
            near = np.abs(sums - np.rint(sums)) < 2.0**-25
            for row, column in zip(*(place.tolist() for place in np.nonzero(near)), strict=True):
                a, b = chosen[column]
                n = moduli[first + row]
                factor = ratio_factor(n, a, b)
                if factor is not None:
                    yield first + row, factor, a, b


def ratio_factor(n: mpz, a: int, b: int) -> int | None:
    """A factor of N if p/q is near a/b (Lehman): 4abN is a little below a square by a square."""
    d = 4 * a * b * n
    s = gmpy2.isqrt(d - 1) + 1
    rest = s * s - d
    if not gmpy2.is_square(rest):
        return None
    factor = gmpy2.gcd(s + gmpy2.isqrt(rest), n)
    return int(factor) if 1 < factor < n else None


#: places that the difference sieve looks at: prime gaps above 4,096 are rare at these sizes
_GAP = 4_096


def _difference_rows(m: int, distance: int, n: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Row per n, bit t = "n + (distance + t)^2 is a square modulo m"."""
    places = distance + np.arange(m)
    pattern = _squares(m)[(n[:, None] + places * places) % m]
    long = np.take(pattern, np.arange(_GAP) % m, axis=1)
    return np.packbits(long, axis=1, bitorder="little").view(np.uint64)


@cache
def _difference_table(m: int, distance: int) -> NDArray[np.uint64]:
    """The rows of all residues, distance below m; 13 MB for all of them."""
    return _difference_rows(m, distance, np.arange(m))


def known_difference(
    moduli: Sequence[mpz], residues: NDArray[np.int64], bits: int, exponents: Sequence[int]
) -> Iterator[tuple[int, int, int]]:
    """Primes with p - q = 2^(ps - k) + 2t, 0 <= t < 4096: N + ((p - q)/2)^2 is a square.

    Args:
        moduli: odd N of ``bits`` bits.
        residues: N modulo ``SIEVE_MODULI``.
        bits: of the moduli.
        exponents: the k to try.

    Yields:
        (row, factor, k).
    """
    half = (bits + 1) // 2
    for k in exponents:
        if half - k < 1:
            continue
        distance = 1 << (half - k - 1)
        few = len(moduli) < _FEW and not _difference_table.cache_info().currsize
        for first in range(0, len(moduli), _ROWS_AT_ONCE):
            rows = residues[first : first + _ROWS_AT_ONCE]
            passed: NDArray[np.uint64] | None = None
            for column, m in enumerate(SIEVE_MODULI):
                if few:
                    chosen = _difference_rows(m, distance % m, rows[:, column])
                else:
                    chosen = _difference_table(m, distance % m).take(rows[:, column], axis=0)
                passed = chosen if passed is None else np.bitwise_and(passed, chosen, out=passed)
            assert passed is not None
            for row, t in _bits(passed):
                n = moduli[first + row]
                d = distance + t
                total = n + mpz(d) * d
                if gmpy2.is_square(total):
                    factor = gmpy2.isqrt(total) - d
                    if 1 < factor < n:
                        yield first + row, int(factor), k


def about_known_difference(n: mpz, bits: int, k: int, unknown: int) -> int | None:
    """A factor of N if p - q = D + t with D = 2^(ps - k) and abs(t) < 2^unknown.

    With d = (p - q)/2 = D/2 + y and s = (p + q)/2 = s0 + x, s0 = isqrt(N + D^2/4): 2 s0 x - D y = c + y^2 - x^2, where
    c = N + D^2/4 - s0^2 and y^2 - x^2 is small beside D. So x a/b = c/D modulo 1, nearly, for a convergent a/b of
    2 s0/D, and x is c/D in units of 1/b, times the inverse of a modulo b.

    Args:
        n: the modulus, odd.
        bits: of the modulus; ps is half of them.
        k: above 1.
        unknown: bits of t, at most ps/3 - 12; beyond that nothing is certain. One t in a million is missed.

    Returns:
        The smaller factor, or None. Costs some 20 us for 256 bits and k = 100.
    """
    half = (bits + 1) // 2
    exponent = half - k
    # 2 s0 is above 2^ps, so x is below D y / 2 s0 and the rounding of s0
    limit = (mpz(1) << max(unknown - k - 1, 0)) + 2
    total = n + (mpz(1) << (2 * exponent - 2))
    s0 = gmpy2.isqrt(total)
    enough = limit << 6
    width = 2 * enough.bit_length() + 32
    # int is as fast as mpz at this size, and divmod of it faster
    a, b = 1 << width, int(((gmpy2.f_mod_2exp(s0, exponent - 1)) << width) >> (exponent - 1))
    before, denominator, least = 0, 1, int(enough)
    while denominator < least and b:
        quotient, rest = divmod(a, b)
        a, b = b, rest
        before, denominator = denominator, quotient * denominator + before
    # the numerator's inverse modulo the denominator is the denominator before, but for its sign
    nearest = (denominator * (total - s0 * s0) + (1 << (exponent - 1))) >> exponent
    found = nearest * before % denominator
    for x in (found, found - denominator, -found, denominator - found):
        if abs(x) <= limit:
            s = s0 + x
            square = s * s - n
            if gmpy2.is_square(square):
                factor = s - gmpy2.isqrt(square)
                if 1 < factor < n and n % factor == 0:
                    return int(factor)
    return None


def factor_above(n: mpz, start: mpz, bits: int) -> int | None:
    """A factor p of N with start <= p < start + 2^bits, for a few unknown bits and a start above 2^(3 bits + 16).

    With N = s q0 + r and p = s + t, q = q0 - u: t q0 = r + t u modulo s, and t u is nothing beside s. So t a/b = r/s
    modulo 1, nearly, for a convergent a/b of q0/s, and t is r/s in units of 1/b, times the inverse of a modulo b.

    Args:
        n: the modulus.
        start: s.
        bits: of t.

    Returns:
        A factor between 1 and N, or None. Costs some microseconds.
    """
    q0, r = divmod(n, start)
    least = 1 << (bits + 6)
    width = 2 * (bits + 6) + 32
    a, b = 1 << width, int(((q0 % start) << width) // start)
    before, denominator = 0, 1
    while denominator < least and b:
        quotient, rest = divmod(a, b)
        a, b = b, rest
        before, denominator = denominator, quotient * denominator + before
    scaled = int(((r * denominator) << 8) // start) + 128
    if scaled % 256 - 128 not in range(-16, 17):  # the part of t in it is below 2^-6
        return None
    found = (scaled >> 8) * before % denominator
    for t in (found, denominator - found):
        if t >> bits == 0:
            factor = int(start) + t
            if 1 < factor < n and n % factor == 0:
                return factor
    return None


@cache
def _first_inverse_root(low: int) -> int:
    """Y with N y^2 = 1 modulo 2^10, for the low 12 bits of N."""
    y, precision = 1, 3
    while precision < 10:
        precision = 2 * precision - 2
        y = (y * (3 - low * y * y) >> 1) & ((1 << (precision + 1)) - 1)
    return y


@cache
def _precisions(bits: int) -> tuple[int, ...]:
    """Rising precisions above 10 up to ``bits``, each at most twice the one before, less 2."""
    found = [bits]
    while (before := found[-1] // 2 + 2) > 10:
        found.append(before)
    return tuple(reversed(found))


def square_root_2_adic(n: mpz, bits: int) -> mpz:
    """R with r^2 = N modulo 2^bits, for N = 1 modulo 8, correct to bits - 1 (Newton on the inverse root)."""
    cut = gmpy2.f_mod_2exp
    y = mpz(_first_inverse_root(int(n & 4095)))
    for precision in _precisions(bits + 2):
        square = cut(cut(n, precision + 2) * cut(y * y, precision + 2), precision + 2)
        y = cut(y * (3 - square) >> 1, precision + 1)
    return cut(n, bits) * y & ((mpz(1) << bits) - 1)


def shared_bits(n: mpz, root: mpz, *, exact: bool = False) -> tuple[int, int] | None:
    """A factor of N whose primes share h high and m low bits, h + m at least a quarter of N's bits.

    (p + q)/2 is known from above by N's root and from below by its 2-adic root; the two halves join where the 2-adic
    difference t has a run of zeros. With 7 bits to spare the run has 12 or more and is told from t alone; ``exact``
    tries every place. At least 8 of the low bits have to agree; with fewer the primes are close enough for Fermat's
    method.

    Args:
        n: the modulus; only N = 1 modulo 8 can be such.
        root: isqrt(N).
        exact: try all places (0.4 ms at 2048 bits) instead of runs of 12 zeros (3 us).

    Returns:
        (factor, bit where the halves join), or None.
    """
    if n & 7 != 1:
        return None
    size = (n.bit_length() + 1) // 2 + 64
    mask = (mpz(1) << size) - 1
    r = square_root_2_adic(n, size)
    for sign in (1, -1):
        t = (sign * r - root - 1) & mask
        z = t ^ mask
        for shift in (1, 2, 4, 4):
            z &= z >> shift
        z &= ~(z << 1)
        places: list[int] = []
        at = gmpy2.bit_scan1(z)
        while at is not None and len(places) < 64:
            places.append(at)
            at = gmpy2.bit_scan1(z, at + 1)
        if exact:
            at = gmpy2.bit_scan1(t)
            while at is not None:
                places.append(at + 1)
                at = gmpy2.bit_scan1(t, at + 1)
        for place in places:
            s = root + 1 + (t & ((mpz(1) << place) - 1))
            rest = s * s - n
            if gmpy2.is_square(rest):
                factor = s - gmpy2.isqrt(rest)
                if 1 < factor < n and n % factor == 0:
                    return int(factor), place
    return None


def least_private_exponent(p: int, q: int, e: int) -> int | None:
    """The d nearest to 0 with e d = 1 modulo lcm(p - 1, q - 1), below 0 for "lcm less a number"; None without one."""
    order = gmpy2.lcm(p - 1, q - 1)
    if order < 2 or gmpy2.gcd(e, order) != 1:
        return None
    d = int(gmpy2.invert(e, order))
    return d if 2 * d <= order else d - int(order)


def wiener(n: int, e: int) -> tuple[int, int] | None:
    """The factors if abs(d) is below about N^(3/4)/sqrt(e), d modulo lcm(p - 1, q - 1) (Wiener 1990).

    Convergents of e/(N + 1 - 2 sqrt(N)), which reaches a few bits beyond the classical e/N, then of e/N. With
    g = gcd(p - 1, q - 1), e d = 1 + k phi/g makes k/(g d) a convergent unless g divides k, and phi the quotient of
    e g d by k, rounded down for positive d and up for negative ones, as long as g is at most k.

    Returns:
        (factor, d), d nearest to 0; or None.
    """
    half = (n.bit_length() + 1) // 2
    for denominator in (n + 1 - 2 * gmpy2.isqrt(n), mpz(n)):
        if denominator < 2:
            continue
        a, b = mpz(e), mpz(denominator)
        k0, k1, d0, d1 = mpz(0), mpz(1), mpz(1), mpz(0)
        while b:
            quotient, rest = divmod(a, b)
            a, b = b, rest
            k0, k1 = k1, quotient * k1 + k0
            d0, d1 = d1, quotient * d1 + d0
            # k d is below sqrt(N), but for some bits, where k/d can be a convergent at all
            if d1.bit_length() + k1.bit_length() > half + 80:
                break
            # the right convergent leaves |d e - k denominator| = k (p + q - ...), with p + q below 2^12 sqrt(N) even
            # for primes of rather different length
            if not k1 or b.bit_length() - k1.bit_length() > half + 14:
                continue
            for sign in (1, -1):
                phi = sign * ((sign * e * d1 - 1) // k1)
                total = n + 1 - phi
                discriminant = total * total - 4 * n
                if discriminant >= 0 and gmpy2.is_square(discriminant):
                    factor = int((total - gmpy2.isqrt(discriminant)) >> 1)
                    if 1 < factor < n and n % factor == 0:
                        d = least_private_exponent(factor, n // factor, e)
                        return factor, int(sign * d1) if d is None else d
    return None


@cache
def primes_below(limit: int) -> NDArray[np.int64]:
    """Primes below a limit, rising."""
    flags = np.ones(limit, dtype=bool)
    flags[:2] = False
    for p in range(2, int(limit**0.5) + 1):
        if flags[p]:
            flags[p * p :: p] = False
    return np.flatnonzero(flags)


@cache
def odd_primorial(limit: int) -> mpz:
    """Product of the odd primes below a limit."""
    return gmpy2.primorial(limit - 1) >> 1


def product(numbers: Sequence[mpz]) -> mpz:
    """Product by a balanced tree."""
    level = list(numbers)
    while len(level) > 1:
        level = [level[i] * level[i + 1] if i + 1 < len(level) else level[i] for i in range(0, len(level), 2)]
    return level[0] if level else mpz(1)


#: links of a chain that are worth the inverse
_CHAIN = 16


@lru_cache(maxsize=2)
def _minus_inverse(odd: mpz) -> mpz:
    """-1/odd modulo the next power of two."""
    return gmpy2.invert(-odd, mpz(1) << odd.bit_length())


def with_common_factor(moduli: Sequence[mpz], smooth: mpz) -> list[int]:
    """Rows of moduli that share a factor with a large number, by chains of products.

    Groups as long as ``smooth`` are multiplied together and into a running product modulo ``smooth``; one gcd for
    some thousand keys. Only a group that has something is taken apart.

    Args:
        moduli: positive.
        smooth: odd, for example a primorial; longer than any modulus, or the groups are single keys.
    """
    if not moduli:
        return []
    bits = int(smooth.bit_length())
    size = max(1, bits // max(moduli[0].bit_length(), 1))
    groups = [range(first, min(first + size, len(moduli))) for first in range(0, len(moduli), size)]
    found: list[int] = []
    # A stack rather than a function that calls itself: that would be a cycle, and keep the moduli alive.
    waiting = [[(group, product([moduli[row] for row in group]) % smooth) for group in groups]]
    while waiting:
        parts = waiting.pop()
        if gmpy2.gcd(_chained([value for _, value in parts], smooth, bits), smooth) == 1:
            continue
        if len(parts) > 1:
            middle = len(parts) // 2
            waiting += [parts[:middle], parts[middle:]]
        else:
            found.extend(row for row in parts[0][0] if gmpy2.gcd(smooth % moduli[row], moduli[row]) != 1)
    return sorted(found)


def _chained(values: Sequence[mpz], modulus: mpz, bits: int) -> mpz:
    """The product of values modulo an odd number of that many bits, up to powers of two, which change no gcd."""
    running = values[0]
    if len(values) < _CHAIN:
        for value in values[1:]:
            running = running * value % modulus
        return running
    # Montgomery's reduction costs two thirds of a division; it brings powers of two in
    inverse = _minus_inverse(modulus)
    for value in values[1:]:
        whole = running * value
        multiple = gmpy2.f_mod_2exp(gmpy2.f_mod_2exp(whole, bits) * inverse, bits)
        running = (whole + multiple * modulus) >> bits
    return running


def least_prime_factor(n: int, limit: int) -> int | None:
    """The least odd prime factor of n below a limit; None if there is none.

    The factors are first taken together, by a greatest common divisor with the primorial (half a millisecond for a
    limit of 2^20), so that a long n costs no more than a short one.
    """
    common = gmpy2.gcd(odd_primorial(limit) % n, n) if n > 1 else mpz(1)
    if common == 1:
        return None
    primes = primes_below(limit)[1:]
    if common.bit_length() < 63:
        return int(primes[int(common) % primes == 0][0])
    return next(int(prime) for prime in primes.tolist() if common % prime == 0)
