"""Many big integers as matrices: residues and masks for thousands of keys at once, exact to the last bit.

Float64 matrix products are exact while every sum stays below 2^53; each function asserts its bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

#: rows whose converted limbs stay in a 1 MiB second-level cache (2048-bit moduli, 16-bit limbs, float64)
BLOCK_ROWS = 512


def byte_matrix(numbers: Sequence[int], size: int) -> NDArray[np.uint8]:
    """Little-endian bytes of non-negative integers below 256^size, shape (len(numbers), size)."""
    joined = b"".join([int(number).to_bytes(size, "little") for number in numbers])
    return np.frombuffer(joined, dtype=np.uint8).reshape(len(numbers), size)


@cache
def _powers(count: int, moduli: tuple[int, ...]) -> NDArray[np.float64]:
    return np.array([[pow(65536, i, m) for m in moduli] for i in range(count)], dtype=np.float64).reshape(count, -1)


def residues(matrix: NDArray[np.uint8], moduli: tuple[int, ...]) -> NDArray[np.int64]:
    """Residues of many integers modulo a few small numbers.

    Args:
        matrix: little-endian bytes, shape (rows, bytes), bytes even.
        moduli: each 1 or more, so small that all sums stay exact (2^26 for 16,384-bit numbers).

    Returns:
        Shape (rows, len(moduli)).

    Raises:
        ValueError: the product could leave the exact range of float64.
    """
    limbs = matrix.view("<u2")
    count = limbs.shape[1]
    largest = max(moduli, default=1)
    if count * 65535 * (largest - 1) + largest >= 1 << 53:
        raise ValueError("moduli too large for exact float64 products")
    powers = _powers(count, moduli)
    divisors = np.array(moduli, dtype=np.float64)
    sums = np.empty((len(matrix), len(moduli)), dtype=np.float64)
    scratch = np.empty((min(BLOCK_ROWS, len(matrix)), count), dtype=np.float64)
    for start in range(0, len(matrix), BLOCK_ROWS):
        part = limbs[start : start + BLOCK_ROWS]
        block = scratch[: len(part)]
        block[...] = part
        np.matmul(block, powers, out=sums[start : start + BLOCK_ROWS])
    # the quotient may be one off where the sum is nearly a multiple; the integers say so
    quotients = np.floor(sums / divisors)
    found: NDArray[np.int64] = (sums - quotients * divisors).astype(np.int64)
    whole = np.array(moduli, dtype=np.int64)
    found += np.where(found < 0, whole, 0)
    found -= np.where(found >= whole, whole, 0)
    return found
