"""The streams in lockstep hand out the blocks of the scalar generator, bit for bit."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from keyassay.lists.recipes import lockstep
from keyassay.lists.recipes.debian_openssl import ARCHS, STATES, Draws, Stream
from keyassay.lists.recipes.lockstep import Lockstep, Program


def assert_same(arch: str, state: str, pids: range, size: int, draws: int) -> None:
    together = Lockstep(arch, state, pids, size)
    alone = [Draws(Stream(arch, state, pid), size) for pid in pids]
    for block in range(draws):
        rows = together.draw()
        assert rows.shape == (len(pids), size)
        for row, one in enumerate(alone):
            assert rows[row].tobytes() == one[block], (arch, state, pids[row], block)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("state", STATES)
def test_blocks_are_those_of_the_scalar_generator(arch: str, state: str) -> None:
    assert_same(arch, state, range(3), 64, 18)  # more than one round of the ring, process 0 among them
    assert_same(arch, state, range(32_765, 32_768), 129, 9)


@pytest.mark.parametrize("size", [8, 9, 10, 11, 63, 512, 1_020])
def test_any_length_of_block(size: int) -> None:
    assert_same("be32", "noreadrnd", range(2), size, 4)


def test_a_block_of_more_than_the_ring_is_refused() -> None:
    with pytest.raises(ValueError, match="8 to 1020 bytes"):
        Lockstep("le64", "rnd", range(2), 1_021)


@pytest.mark.parametrize(
    ("arch", "state", "size", "draw"),
    [
        ("le32", "nornd", 64, 14),
        pytest.param("be32", "noreadrnd", 64, 234, marks=pytest.mark.slow),
    ],
)
def test_the_ring_is_written_out_of_step_after_position_1023(arch: str, state: str, size: int, draw: int) -> None:
    # the first addition that starts at 1023 is before that draw; its damage shows a round of the ring later
    assert_same(arch, state, range(1, 2), size, draw + 1_023 // size + 2)


def test_thousands_of_streams_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockstep, "_LANES", 900)
    pids = range(2_500)
    together = Lockstep("le64", "direct", pids, 64)
    for _ in range(3):
        rows = together.draw()
    for pid in range(0, 2_500, 7):
        assert rows[pid].tobytes() == Draws(Stream("le64", "direct", pid), 64)[2]


def test_a_snapshot_goes_on() -> None:
    first = Lockstep("le64", "rnd", range(5), 70)
    for _ in range(3):
        first.draw()
    saved = {name: values.copy() for name, values in first.snapshot().items()}
    second = Lockstep("le64", "rnd", range(5), 70)
    second.restore(saved)
    assert second.drawn == 3
    assert (second.draw() == first.draw()).all()
    with pytest.raises(ValueError, match="other streams"):
        Lockstep("le64", "rnd", range(4), 70).restore(saved)


@pytest.mark.parametrize("shared", [(), range(5, 16), (0, 3, 15)])
def test_the_program_is_sha1(shared: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    program = Program(3, shared)
    message = random.integers(0, 2**32, (16, 3), dtype=np.uint32)
    message[13:] = [[0x80000000], [0], [13 * 32]]
    for at, word in enumerate(program.words):
        message[at] = message[at, 0] if at in shared else message[at]
        word[...] = message[at, 0] if at in shared else message[at]
    digests = program.run()
    for lane in range(3):
        expected = hashlib.sha1(message[:13, lane].astype(">u4").tobytes()).digest()
        assert digests[:, lane].astype(">u4").tobytes() == expected
