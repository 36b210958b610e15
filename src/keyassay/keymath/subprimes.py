"""Numbers r that divide N - 1 for several N of a fleet, and what they give away: r in p - 1 and q - 1 splits N = pq.

Two random N - 1 have r in common with probability about 1/r^2; where both primes of both moduli were made as
2 r a + 1, it is there by construction (J. McKee, R. Pinch, "Further attacks on server-aided RSA cryptosystems", 1998).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import gmpy2
from gmpy2 import mpz

from keyassay.keymath.batch_gcd import Others, Progress, common_factors, shared_parts
from keyassay.keymath.factoring import product

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


@dataclass(frozen=True, slots=True)
class Subprime:
    """What an N - 1 has in common with that of a partner.

    Attributes:
        divisor: r, without prime factors below 2^20; divides both.
        partner: index of the partner among the moduli, or None.
        outside: the partner itself where it is one of the others, else None.
    """

    divisor: int
    partner: int | None
    outside: int | None = None


class _LessOne(Others):
    """The odd ones of some others, each less 1."""

    def __init__(self, others: Others) -> None:
        self._others = others

    @property
    def block_count(self) -> int:
        return self._others.block_count

    def products(self) -> Iterator[mpz]:
        for number in range(self.block_count):
            yield product([mpz(one) for one in self.block(number)])

    def block(self, number: int) -> list[int]:
        return [n - 1 for n in self._others.block(number) if n & 1 and n > 2]


def shared_subprimes(
    moduli: Sequence[int],
    least: int,
    *,
    others: Others | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[int, Subprime]:
    """Which N - 1 have more in common than chance gives.

    Args:
        moduli: distinct and above 2.
        least: bits that the common part must have, primes below 2^20 left out.
        others: moduli that these are compared with as well, none of them among these. All are read, and 25 us of each
            go into products.
        threads: as for ``batch_gcd.common_factors``, which takes as much memory.
        progress: likewise.

    Returns:
        By index: what it shares and with whom; with one of the others where it shares with none of the moduli.
    """
    rests: dict[int, int] = {}
    besides = None if others is None else _LessOne(others)
    parts = shared_parts([n - 1 for n in moduli], others=besides, threads=threads, progress=progress)
    for index, part in enumerate(parts):
        if part.bit_length() >= least:
            rest = int(rough_part(part))
            if rest.bit_length() >= least:
                rests[index] = rest
    found = _among_themselves(rests, least, threads)
    left = {index: rest for index, rest in rests.items() if index not in found}
    if besides is not None and left:
        found.update(_with_others(left, least, besides, threads))
    return found


def _among_themselves(rests: Mapping[int, int], least: int, threads: int) -> dict[int, Subprime]:
    """Partners by index, for what each has in common with all the rest."""
    holders: dict[int, list[int]] = defaultdict(list)
    for index, rest in rests.items():
        holders[rest].append(index)
    found: dict[int, Subprime] = {}
    for rest, members in holders.items():
        for index in members if len(members) > 1 else ():
            found[index] = Subprime(rest, members[0] if index != members[0] else members[1])
    # What is in common with several others at once differs from each of them.
    distinct = list(holders)
    for place, shared in common_factors(distinct, threads=threads).shared.items():
        if shared.partner is None:
            continue
        one, other = holders[distinct[place]][0], holders[distinct[shared.partner]][0]
        common = int(gmpy2.gcd(distinct[place], distinct[shared.partner]))
        if common.bit_length() >= least:
            found.setdefault(one, Subprime(common, other))
            found.setdefault(other, Subprime(common, one))
    # One that shares with several was matched with one of them only.
    centres = [index for index in found if len(holders[rests[index]]) == 1][:CENTRES]
    for index in rests.keys() - found.keys():
        for centre in centres:
            common = int(gmpy2.gcd(rests[index], rests[centre]))
            if common.bit_length() >= least:
                found[index] = Subprime(common, centre)
                break
    return found


def _with_others(rests: Mapping[int, int], least: int, others: Others, threads: int) -> dict[int, Subprime]:
    """Partners among the others, for what each has in common with all the rest."""
    whole = product([mpz(rest) for rest in rests.values()])
    #: an outside number by what it has in common with the rests
    holders: dict[int, int] = {}
    for number, together in enumerate(others.products()):
        common = gmpy2.gcd(together % whole, whole)
        if common.bit_length() < least:
            continue
        for one in others.block(number):
            part = int(gmpy2.gcd(common % one, one)) if one > 1 else 1
            if part.bit_length() >= least:
                holders.setdefault(part, one)
    found: dict[int, Subprime] = {}

    def take(index: int, part: int) -> bool:
        """Whether that outside number has enough in common with it."""
        common = int(gmpy2.gcd(rests[index], part))
        if common.bit_length() >= least:
            found.setdefault(index, Subprime(common, None, holders[part] + 1))
        return index in found

    for index, rest in rests.items():
        if rest in holders:
            take(index, rest)
    indices = {rest: index for index, rest in rests.items() if index not in found}
    numbers = [*indices, *(part for part in holders if part not in indices)]
    for place, shared in common_factors(numbers, threads=threads).shared.items():
        if shared.partner is None:
            continue
        for one, other in ((place, shared.partner), (shared.partner, place)):
            if one < len(indices) <= other:
                take(indices[numbers[one]], numbers[other])
    centres = list(holders)[:CENTRES]
    for index in rests.keys() - found.keys():
        any(take(index, part) for part in centres)
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
