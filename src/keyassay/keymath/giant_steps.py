"""Small discrete logarithms in pieces: giant steps around one centre after the other, against one table."""

from __future__ import annotations

from collections.abc import Callable

from keyassay.keymath.curves import Curve, Point, StepTable, add, multiply, negate, small_logarithm

#: giant steps to either side of a centre, by one shared inversion
_ARMS = 2_048


def block_count(table: StepTable, reach: int) -> int:
    """Blocks that ``search_blocks`` takes for all logarithms up to ``reach`` on either side."""
    half, width = _sizes(table)
    return max(0, -(-(reach - half) // width)) + 1


def _sizes(table: StepTable) -> tuple[int, int]:
    """What the first block reaches, on either side, and what each further one adds."""
    span = 2 * table.size + 1
    half = _ARMS * span + table.size
    return half, 2 * half + 1


def search_blocks(
    curve: Curve,
    point: tuple[int, int],
    table: StepTable,
    blocks: tuple[int, int],
    reached: Callable[[int], None] = lambda _block: None,
) -> int | None:
    """Find d with d times the curve's base point = point; negative d mean order - |d|.

    Block 0 reaches some 4,096 times the table's size on either side (2^32 with 2^20 entries) and takes 20 ms on P-256;
    each further one twice as much, and 36 ms.

    Args:
        curve: over a prime field.
        point: on it.
        table: multiples of the base point.
        blocks: the first, and the one behind the last.
        reached: told each block that is done.
    """
    half, width = _sizes(table)
    reach = half - table.size
    for block in range(*blocks):
        for sign in (1, -1) if block else (1,):
            offset = sign * block * width
            centre: Point = point
            if offset:
                moved = multiply(curve, offset, curve.base)
                centre = add(curve, point, negate(curve, moved))
            rest = 0 if centre is None else small_logarithm(curve, centre, curve.base, table, reach)
            if rest is not None and multiply(curve, offset + rest, curve.base) == point:
                return int(offset + rest)
        reached(block + 1)
    return None
