"""Numbers r that divide N - 1 for several N of a fleet, and what they give away: r in p - 1 and q - 1 splits N = pq.

Two random N - 1 have r in common with probability about 1/r^2; where both primes of both moduli were made as
2 r a + 1, it is there by construction (J. McKee, R. Pinch, "Further attacks on server-aided RSA cryptosystems", 1998).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import gmpy2
from gmpy2 import mpz

from keyassay.keymath.batch_gcd import Progress, common_factors, shared_parts

#: Primes below this are common to many N - 1 and say nothing.
SMOOTH = 1 << 20

#: Numbers that share with several others and are compared with each of these.
CENTRES = 64

#: Values of the carry that are tried: reaches a little below r = N^0.25.
CARRIES = 256


@cache
def _primorial() -> mpz:
    return gmpy2.primorial(SMOOTH - 1)


def rough_part(number: int) -> mpz:
    """The number without its prime factors below 2^20; 0 for 0."""
    rest = mpz(number)
    if rest < 2:
        return rest
    common = gmpy2.gcd(rest, _primorial() % rest)
    while common > 1:
        rest //= common
        common = gmpy2.gcd(rest, common)
    return rest


def shared_subprimes(
    moduli: Sequence[int], least: int, *, threads: int = 1, progress: Progress | None = None
) -> dict[int, tuple[int, int]]:
    """Which N - 1 have more in common than chance gives.

    Args:
        moduli: distinct and above 2.
        least: bits that the common part must have, primes below 2^20 left out.
        threads: as for ``batch_gcd.common_factors``, which takes as much memory.
        progress: likewise.

    Returns:
        By index: (r, index of a partner): r divides both N - 1 and has no prime factor below 2^20.
    """
    rests: dict[int, int] = {}
    for index, part in enumerate(shared_parts([n - 1 for n in moduli], threads=threads, progress=progress)):
        if part.bit_length() >= least:
            rest = int(rough_part(part))
            if rest.bit_length() >= least:
                rests[index] = rest
    holders: dict[int, list[int]] = defaultdict(list)
    for index, rest in rests.items():
        holders[rest].append(index)
    found: dict[int, tuple[int, int]] = {}
    for rest, members in holders.items():
        for index in members if len(members) > 1 else ():
            found[index] = rest, members[0] if index != members[0] else members[1]
    # What is in common with several others at once differs from each of them.
    distinct = list(holders)
    for place, shared in common_factors(distinct, threads=threads).shared.items():
        if shared.partner is None:
            continue
        one, other = holders[distinct[place]][0], holders[distinct[shared.partner]][0]
        common = int(gmpy2.gcd(distinct[place], distinct[shared.partner]))
        if common.bit_length() >= least:
            found.setdefault(one, (common, other))
            found.setdefault(other, (common, one))
    # One that shares with several was matched with one of them only.
    centres = [index for index in found if len(holders[rests[index]]) == 1][:CENTRES]
    for index in rests.keys() - found.keys():
        for centre in centres:
            common = int(gmpy2.gcd(rests[index], rests[centre]))
            if common.bit_length() >= least:
                found[index] = common, centre
                break
    return found


def factor_by_subprime(n: int, r: int) -> int | None:
    """A factor of N = pq if r divides p - 1 and q - 1 and is above N^0.25, or a few bits below.

    With p = 2ra + 1 and q = 2rb + 1, (N - 1)/(2r) = 2r ab + (a + b): the sum and the product of a and b follow but for
    a small carry.

    Args:
        n: odd, above 1.
        r: odd, above 1.

    Returns:
        A factor between 1 and N, or None.
    """
    step = mpz(2) * r
    quotient, remainder = divmod(mpz(n) - 1, step)
    if remainder:
        return None
    product, total = divmod(quotient, step)
    for _ in range(CARRIES):
        square = total * total - 4 * product
        if square >= 0 and gmpy2.is_square(square):
            factor = gmpy2.gcd(n, step * ((total + gmpy2.isqrt(square)) >> 1) + 1)
            if 1 < factor < n:
                return int(factor)
        total += step
        product -= 1
        if product < 0:
            return None
    return None
