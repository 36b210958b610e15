"""Residues of many numbers by matrix products are exact to the last bit, at every size and modulus that is allowed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyassay.keymath import arrays


@given(
    st.lists(st.integers(0, 2**512 - 1), max_size=20),
    st.lists(st.integers(1, 2**20), min_size=1, max_size=12),
)
def test_residues_are_those_of_integers(numbers: list[int], moduli: list[int]) -> None:
    found = arrays.residues(arrays.byte_matrix(numbers, 64), tuple(moduli))
    assert found.tolist() == [[n % m for m in moduli] for n in numbers]


@pytest.mark.parametrize("bits", [16, 64, 1024, 2048, 4096, 16_384])
def test_the_largest_numbers_and_moduli_stay_exact(bits: int) -> None:
    """All ones is the largest sum; the largest modulus that is let through."""
    limbs = bits // 16
    most = (2**53 - 1) // (limbs * 65535) + 1
    while limbs * 65535 * (most - 1) + most >= 1 << 53:
        most -= 1
    numbers = [2**bits - 1, 2**bits - 2, 1 << (bits - 1), 0, 1]
    moduli = (most, most - 1, 1, 2, 3)
    assert arrays.residues(arrays.byte_matrix(numbers, bits // 8), moduli).tolist() == [
        [n % m for m in moduli] for n in numbers
    ]
    with pytest.raises(ValueError, match="too large"):
        arrays.residues(arrays.byte_matrix(numbers, bits // 8), (most + 2,))


def test_the_moduli_of_the_checks_are_allowed_at_the_largest_size() -> None:
    """2^20 for 16,384 bits, as batches promise."""
    matrix = arrays.byte_matrix([2**16_384 - 1], 2048)
    assert arrays.residues(matrix, (1 << 20,))[0, 0] == (1 << 20) - 1


def test_blocks_join_without_a_seam() -> None:
    rows = 2 * arrays.BLOCK_ROWS + 3
    numbers = [(7**n) % 2**128 for n in range(rows)]
    found = arrays.residues(arrays.byte_matrix(numbers, 16), (97, 64))
    assert found.tolist() == [[n % 97, n % 64] for n in numbers]


@given(st.lists(st.integers(0, 2**256 - 1), max_size=10))
def test_bytes_come_back(numbers: list[int]) -> None:
    matrix = arrays.byte_matrix(numbers, 32)
    assert matrix.shape == (len(numbers), 32)
    assert [int.from_bytes(np.ascontiguousarray(row).tobytes(), "little") for row in matrix] == numbers
