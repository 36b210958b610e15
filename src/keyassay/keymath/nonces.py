"""Private keys from nonces of ECDSA, DSA and EdDSA that are related: integers in, integers out.

A signature is a line (u, t): its nonce is k = u + t d modulo the order, d the private key. Every relation between the
nonces of one signer is then an equation in d alone. What comes out are candidates: whoever asks proves them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

import gmpy2
import numpy as np
from numpy.typing import NDArray

from keyassay.keymath.curves import square_root

_SMALL = 1_024


def repeated(one: tuple[int, int], other: tuple[int, int], order: int) -> list[int]:
    """Candidates for the nonce k of two signatures (s, z) with equal r by one signer: both signs of k have that r."""
    found = []
    for sign in (1, -1):
        difference = (one[0] - sign * other[0]) % order
        if difference:
            found.append(int((one[1] - other[1]) * gmpy2.invert(difference, order) % order))
    return found


def repeated_places(column: NDArray[np.uint64], most: int) -> Iterator[list[int]]:
    """Places of equal values, rising, the first ``most``, for every value that comes more than once."""
    order = np.argsort(column, kind="stable")
    ranked = column[order]
    borders = [0, *(np.flatnonzero(ranked[1:] != ranked[:-1]) + 1).tolist(), len(ranked)]
    for start, end in pairwise(borders):
        if end - start > 1:
            yield sorted(order[start:end].tolist())[:most]


@lru_cache(maxsize=64)
def small_powers(p: int, q: int, g: int) -> dict[int, list[int]]:
    """Nonces up to 1,024 of DSA by their r = (g^k mod p) mod q."""
    found: dict[int, list[int]] = {}
    power = 1
    for k in range(1, _SMALL + 1):
        power = power * g % p
        found.setdefault(int(power % q), []).append(k)
    return found


def successive(lines: Sequence[tuple[int, int]], order: int) -> Iterator[tuple[int, str, int]]:
    """Candidates (d, rule, number of signatures) from up to four successive nonces k = u + t d."""

    def solve(u: int, t: int) -> Iterator[int]:
        if t % order:
            yield int(-u * gmpy2.invert(t, order) % order)

    if len(lines) < 2:
        return
    (u, t), (u2, t2) = lines[:2]
    for a, b in ((1, 1), (1, -1), (2, 0), (2, 1)):
        for d in solve(u2 - a * u - b, t2 - a * t):
            yield d, f"each nonce is {a} times the one before plus {b}", 2
    if len(lines) < 3:
        return
    for middle in range(3):
        left, right = (lines[place] for place in range(3) if place != middle)
        centre = lines[middle]
        for d in solve(left[0] + right[0] - 2 * centre[0], left[1] + right[1] - 2 * centre[1]):
            yield d, "nonces in equal steps", 3
    if len(lines) < 4:
        return
    # (k2 - k1)^2 = (k3 - k2)(k1 - k0), each difference v + w d
    (v0, w0), (v1, w1), (v2, w2) = ((after[0] - one[0], after[1] - one[1]) for one, after in pairwise(lines))
    a, b, c = w1 * w1 - w2 * w0, 2 * v1 * w1 - v2 * w0 - v0 * w2, v1 * v1 - v2 * v0
    if a % order == 0:
        for d in solve(c, b):
            yield d, "nonces from a linear congruential generator", 4
        return
    square = square_root((b * b - 4 * a * c) % order, order)
    if square is not None:
        half = gmpy2.invert(2 * a, order)
        for sign in (1, -1):
            yield int((-b + sign * square) * half % order), "nonces from a linear congruential generator", 4
