"""The walk finds the keys of streams, for odd sizes too, and nothing else; what it did is kept."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.errors import KeyassayError
from keyassay.lists import walk as module
from keyassay.lists.recipes.debian_openssl import (
    Draws,
    RsaKey,
    Stream,
    candidate,
    delta_search,
    odd_rsa_key,
    rsa_keys,
)
from keyassay.lists.walk import (
    Divisor,
    Divisors,
    Group,
    Part,
    Reading,
    draws_to,
    groups,
    key_from_blocks,
    key_of,
    missed,
    parts,
    possible,
    prime_bits,
    walk,
)

#: first primes within a fraction of the mean distance, so that the walks of the tests are short
KEYS = {
    512: Stream("be32", "noreadrnd", 1),
    521: Stream("be32", "nornd", 1),
    1023: Stream("le32", "noreadrnd", 3),
    1025: Stream("be32", "rnd", 0),
}


def made(stream: Stream, bits: int) -> RsaKey:
    return odd_rsa_key(stream, bits) if bits % 2 else rsa_keys(stream, bits)[65537]


def rows_of(numbers: list[int], bits: int) -> np.ndarray:
    size = (bits + 7) // 8
    return np.frombuffer(b"".join(number.to_bytes(size, "big") for number in numbers), np.uint8).reshape(-1, size)


@pytest.mark.parametrize("bits", KEYS)
def test_the_key_of_a_stream_is_found_and_made_again(bits: int, tmp_path: Path) -> None:
    stream = KEYS[bits]
    key = made(stream, bits)
    assert key.modulus.bit_length() == bits
    group = Group(prime_bits(bits), (key.modulus,), (Part(stream.arch, stream.state, 0, 5),))
    depth = key.blocks[0] / draws_to(group.bits, 1.0) + 0.2
    (found,) = walk([group], tmp_path, depth=depth)
    assert found == Divisor(key.modulus, stream, key.blocks[0], key.first)
    assert key_of(found) == key
    assert key_from_blocks(stream, bits, key.blocks) == key


def test_a_key_of_another_kind_of_stream_is_not_found(tmp_path: Path) -> None:
    key = made(KEYS[512], 512)
    group = Group(256, (key.modulus,), (Part("be32", "nornd", 0, 5), Part("be32", "noreadrnd", 2, 4)))
    assert list(walk([group], tmp_path, depth=1.0)) == []


def test_moduli_of_one_size_share_a_walk() -> None:
    streams = parts(range(8))
    assert len(streams) == 12
    found = groups([2**1022 + 1, 2**1023 + 1, 2**1024 + 1, 2**1023 + 1, 2**600], lambda bits: streams * (bits > 1000))
    assert [(one.bits, len(one.moduli)) for one in found] == [(512, 2), (513, 1)]


def test_a_stopped_walk_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = KEYS[1025]
    key = made(stream, 1025)
    group = Group(513, (key.modulus,), (Part(stream.arch, stream.state, 0, 4),))
    ends = (0.07, 0.2)
    before, after = (draws_to(513, end) for end in ends)
    assert before <= key.blocks[0] < after - 2
    monkeypatch.setattr(module, "_ROUNDS", ends)
    drawn: list[int] = []
    draw = module.Lockstep.draw

    def counted(self: module.Lockstep) -> object:
        if len(drawn) == before + 1:
            raise KeyboardInterrupt
        drawn.append(self.drawn)
        return draw(self)

    monkeypatch.setattr(module.Lockstep, "draw", counted)
    with pytest.raises(KeyboardInterrupt):
        list(walk([group], tmp_path, depth=0.3))
    drawn.extend([-1, -1])
    (found,) = walk([group], tmp_path, depth=0.3)
    assert found.stream == stream
    # nothing of the first round was drawn again, and nothing of the third one at all
    assert drawn[drawn.index(-1) + 2 :] == list(range(before, after))
    drawn.clear()
    assert list(walk([group], tmp_path, depth=0.3)) == [found]
    assert drawn == []


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 nothing", None])
def test_a_damaged_file_is_done_again(tmp_path: Path, damage: bytes | None) -> None:
    stream = KEYS[512]
    key = made(stream, 512)
    group = Group(256, (key.modulus,), (Part(stream.arch, stream.state, 0, 4),))
    depth = 0.2
    first = list(walk([group], tmp_path, depth=depth))
    (path,) = tmp_path.glob("*/*.npz")
    path.write_bytes(path.read_bytes()[:-40] if damage is None else damage)
    assert list(walk([group], tmp_path, depth=depth)) == first


def test_hits_in_a_file_are_not_believed(tmp_path: Path) -> None:
    group = Group(256, (made(KEYS[512], 512).modulus,), (Part("le64", "nornd", 0, 2),))
    list(walk([group], tmp_path, depth=0.2))
    (path,) = tmp_path.glob("*/*.npz")
    np.savez(path, done=np.array(draws_to(256, 0.2)), hits=np.array([[1, 0, 2], [9, 0, 0], [1, 10**9, 0]]))
    assert list(walk([group], tmp_path, depth=0.2)) == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    group = Group(256, (made(KEYS[512], 512).modulus,), (Part("le64", "rnd", 0, 2),))
    with pytest.raises(KeyassayError, match="cannot be written"):
        list(walk([group], tmp_path / "file", depth=0.1))


@pytest.mark.slow
def test_worker_processes_find_the_same(tmp_path: Path) -> None:
    keys = {made(stream, 512).modulus: stream for stream in (KEYS[512], Stream("le64", "direct", 1))}
    streams = [Part("be32", "noreadrnd", 0, 3), Part("le64", "direct", 0, 3), Part("le64", "nornd", 5, 3)]
    group = Group(256, tuple(keys), tuple(streams))
    shares: list[float] = []
    found = {one.modulus: one.stream for one in walk([group], tmp_path, depth=1.5, jobs=2, progress=shares.append)}
    assert found == keys
    assert shares == sorted(shares)
    assert 0 < shares[-1] <= 1


def test_the_reading_is_that_of_the_primitive(monkeypatch: pytest.MonkeyPatch) -> None:
    """One leading byte is equal often, so that the exact comparison decides."""
    monkeypatch.setattr(module, "_LEADING", 1)
    for bits in (256, 257):
        reading = Reading("le64", "rnd", range(40), bits)
        expected: dict[int, list[int]] = {pid: [] for pid in range(40)}
        for pid in range(40):
            draws, at = Draws(Stream("le64", "rnd", pid), (bits + 7) // 8), 0
            while at < 30:
                number = candidate(draws[at], bits)
                expected[pid].append(number)
                limit = number + delta_search(bits)([number])[0] - 1
                at += 1
                while int.from_bytes(draws[at], "big") & ((1 << bits) - 1) >= limit:
                    at += 1
                at += 1
        seen: dict[int, list[int]] = {pid: [] for pid in range(40)}
        for _ in range(30):
            places, rows = reading.candidates()
            for place, row in zip(places.tolist(), rows, strict=True):
                seen[place].append(int.from_bytes(row.tobytes(), "big"))
        for pid in range(40):
            assert seen[pid] == expected[pid][: len(seen[pid])]
            assert len(expected[pid]) - len(seen[pid]) <= 1


@st.composite
def divided(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """A size, a candidate r, an even delta that the search may give, a cofactor of suitable size."""
    bits = draw(st.integers(128, 300))
    number = draw(st.integers(3 << (bits - 2), (1 << bits) - 1 - 4_096)) | 1
    delta = draw(st.integers(0, 2_047)) * 2
    delta += 2 * ((1 + number - delta // 2) % 3)  # (number + delta) mod 3 = 2
    least = bits - draw(st.integers(0, 1))
    cofactor = draw(st.integers(3 << (least - 2), (1 << least) - 1)) | 1
    return bits, number, delta, cofactor


@settings(max_examples=300, deadline=None)
@given(divided())
def test_no_divisor_is_missed(given: tuple[int, int, int, int]) -> None:
    bits, number, delta, cofactor = given
    assert (number + delta) % 3 == 2
    if delta >= 4_096:
        return
    modulus = (number + delta) * cofactor
    assert (0, 0, number + delta) in set(Divisors([modulus], bits).find(rows_of([number, number - 2], bits)))


@settings(max_examples=100, deadline=None)
@given(divided())
def test_only_divisors_are_found(given: tuple[int, int, int, int]) -> None:
    bits, number, delta, cofactor = given
    for modulus in ((number + delta) * cofactor + 2, (number + delta) * cofactor + 1):
        for _, _, divisor in Divisors([modulus], bits).find(rows_of([number, number ^ 2], bits)):
            assert modulus % divisor == 0


def test_many_moduli_at_once_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = Draws(Stream("le64", "rnd", 9), 32)
    numbers = [candidate(draws[at], 256) for at in range(60)]
    primes = [number + delta for number, delta in zip(numbers, delta_search(256)(numbers), strict=True)]
    moduli = [primes[at] * (3 * 2**254 + 2 * at + 1) for at in (0, 7, 31, 59)] + [2**511 + 187]
    found = sorted(Divisors(moduli, 256).find(rows_of(numbers, 256)))
    assert [(row, which) for row, which, _ in found] == [(0, 0), (7, 1), (31, 2), (59, 3)]
    monkeypatch.setattr(module, "_MANY", 1)
    assert sorted(Divisors(moduli, 256).find(rows_of(numbers, 256))) == found


@pytest.mark.parametrize("bits", KEYS)
def test_keys_of_streams_are_possible(bits: int) -> None:
    modulus = made(KEYS[bits], bits).modulus
    assert possible(modulus)
    assert not possible(modulus + 2)  # 0 modulo 3
    assert not possible(modulus + 3)  # even
    assert not possible((9 << (bits - 4)) - 5)  # 1 modulo 6, but too small
    assert possible((9 << (bits - 4)) + 1)


def test_the_probability_of_a_miss() -> None:
    assert missed(10.0) == pytest.approx(4.5e-5, rel=0.01)
    assert draws_to(1_025, 10.0) == math.ceil(10 * 1_025 / 25.2 * 2.15073)
