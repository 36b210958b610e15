"""Points of a curve that differ by a small multiple of a base, or whose sum is one: d - d' or d + d' is small."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from keyassay.keymath.curves import Curve, Point, add, multiples, multiply, negate, neighbours

_LOW = (1 << 64) - 1
#: points whose probes are looked up together
_BLOCK = 256

#: (arms, giant steps)
Reach = tuple[int, int]


def largest(reach: Reach) -> int:
    """The largest difference that is seen."""
    arms, giants = reach
    return giants * (2 * arms + 1) + arms


def bytes_needed(count: int, reach: Reach) -> int:
    """Memory for so many points: a table of 8 bytes, its order, and the sorted copy."""
    return count * (2 * reach[0] + 1) * 24


def close_pairs(
    curve: Curve,
    points: Sequence[tuple[int, int]],
    reach: Reach,
    base: tuple[int, int],
    progress: Callable[[float], None] = lambda _share: None,
) -> dict[tuple[int, int], tuple[int, int]]:
    """Pairs of points that seem to differ by |v| <= ``largest(reach)`` times the base, up to signs.

    x(Q + uB) for all |u| <= arms go into one sorted table of their low 64 bits; x(Q + v (2 arms + 1) B) for all
    |v| <= giants are looked up. Both signs of Q have the same x. About 1.1 us for each of them on P-256.

    Args:
        curve: over a prime field.
        points: all different.
        reach: arms and giant steps.
        base: whose multiples the differences are.
        progress: told the share done.

    Returns:
        By pair of rows, rising: two numbers of which |v| is one, for ``relation``. Chains of close points may leave
        out pairs whose members both are in others.
    """
    arms = multiples(curve, base, reach[0])
    width = 2 * reach[0] + 1
    step = multiply(curve, width, base)
    assert step is not None
    giants = multiples(curve, step, reach[1])
    table = np.zeros((len(points), width), dtype=np.uint64)
    for row, point in enumerate(points):
        table[row] = [point[0] & _LOW, *_tails(curve, point, arms)]
        if row % 4096 == 0:
            progress(row / len(points) / 2)
    flat = table.reshape(-1)
    order = np.argsort(flat, kind="stable")
    ranked = flat[order]
    pairs: dict[tuple[int, int], tuple[int, int]] = {}

    def meet(one: int, u: int, other: int, v: int) -> None:
        if one != other:
            pairs.setdefault((min(one, other), max(one, other)), (abs(u - v), abs(u + v)))

    for place in np.flatnonzero(ranked[1:] == ranked[:-1]).tolist():
        (one, u), (other, v) = (divmod(int(order[place + i]), width) for i in range(2))
        meet(one, (u + 1) // 2, other, (v + 1) // 2)
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK]
        probes: NDArray[np.uint64] = np.array([_tails(curve, point, giants) for point in block], dtype=np.uint64)
        wanted = probes.reshape(-1)
        places = np.searchsorted(ranked, wanted)
        places[places == len(ranked)] = 0
        for probe in np.flatnonzero(ranked[places] == wanted).tolist():
            (one, v), (other, u) = divmod(probe, 2 * len(giants)), divmod(int(order[places[probe]]), width)
            meet(start + one, (v // 2 + 1) * width, other, (u + 1) // 2)
        progress(0.5 + start / len(points) / 2)
    return dict(sorted(pairs.items()))


def _tails(curve: Curve, point: tuple[int, int], arms: Sequence[tuple[int, int]]) -> list[int]:
    """Low 64 bits of x(point + arm) and x(point - arm)."""
    return [int(x & _LOW) for pair in neighbours(curve, point, arms) for x in pair]


def relation(
    curve: Curve, one: tuple[int, int], other: tuple[int, int], sizes: Iterable[int], base: tuple[int, int]
) -> tuple[int, int] | None:
    """(sign, v) with one = sign other + vB, |v| among ``sizes`` or 0; None if that is not so."""
    for sign in (1, -1):
        signed: Point = negate(curve, other) if sign == 1 else other
        rest = add(curve, one, signed)
        if rest is None:
            return sign, 0
        for v in sizes:
            multiple = multiply(curve, v, base)
            if multiple is not None and multiple[0] == rest[0]:
                return sign, v if multiple == rest else -v
    return None
