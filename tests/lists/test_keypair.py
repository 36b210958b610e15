"""Shipped lists against regeneration, look-ups, and the list that users build."""

from __future__ import annotations

import hashlib
from random import Random

import numpy as np
import pytest

from keyassay.errors import KeyassayError
from keyassay.lists import keypair, keypair_building
from keyassay.lists.recipes.keypair import pool_of, pools_up_to, pools_with, top_bits

KINDS = sorted(keypair.KINDS)
#: SHA-256 of the whole files: they never change.
DIGESTS = {
    "keypair-1024": "5a99afccfea9a8fc4ee469895e660357fafebf905d637ae8f67100483c560530",
    "keypair-2048": "be6eaa06fae80c19bdf92ce4edeefe087698809f3550f4a117891629532b4f6f",
    "keypair-3072": "d89e87dcb518a951f1c812f8bbc0cdd83a538e7c3e7bad434f650b077fc28afa",
    "keypair-4096": "5485df9a2dff1f591693ab72cd1f99f806a5c4692f90299d16174fea31ec64c9",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keypair.built.cache_clear()
    yield tmp_path / "keyassay" / "lists"
    keypair.built.cache_clear()


@pytest.fixture
def small(monkeypatch, folder):
    """A list of two non-zero bytes that is four blocks of eight pools."""
    monkeypatch.setattr(keypair, "BLOCK", 8)
    monkeypatch.setattr(keypair, "BLOCKS", 4)
    monkeypatch.setattr(keypair_building, "BLOCK", 8)
    monkeypatch.setattr(keypair_building, "BLOCKS", 4)
    monkeypatch.setattr(keypair, "pools_with", lambda count: 32)
    monkeypatch.setattr(keypair_building, "pools_with", lambda count: 32)
    return folder


def test_blocks_make_the_whole_list() -> None:
    assert pools_with(2) == keypair.BLOCK * keypair.BLOCKS
    assert pools_up_to(2) < 1 << keypair.POOL_BITS


@pytest.mark.parametrize("kind", KINDS)
def test_shipped_list_is_the_one_that_was_made(kind: str) -> None:
    assert hashlib.sha256(keypair.KINDS[kind].shipped.read_bytes()).hexdigest() == DIGESTS[kind]
    assert len(keypair.shipped(kind)) == 71_680
    assert list(keypair_building.verify(kind, sample=50, seed=1)) == []


@pytest.mark.slow
def test_shipped_list_is_made_again_byte_for_byte() -> None:
    kind = keypair.KINDS["keypair-1024"]
    assert keypair_building.make_block(kind, 0, pools_up_to(1)) == kind.shipped.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_listed_keys_are_found_among_others(kind: str) -> None:
    bits = keypair.KINDS[kind].bits
    random = Random(3)
    numbers = random.sample(range(71_680), 8)
    tops = [1 << 63 | random.getrandbits(63) for _ in range(500)] + [top_bits(pool_of(one), bits) for one in numbers]
    order = random.sample(range(len(tops)), len(tops))
    hits = keypair.find_many(keypair.shipped(kind), np.array([tops[one] for one in order], dtype=np.uint64))
    assert [(order[hit.row], hit.pool) for hit in hits] == [(500 + numbers.index(hit.pool), hit.pool) for hit in hits]
    assert {hit.pool for hit in hits} == set(numbers)
    assert [hit.row for hit in hits] == sorted(hit.row for hit in hits)


def test_lookup_at_the_ends() -> None:
    entries = keypair.shipped("keypair-1024")
    tops = np.array([1 << 63, (1 << 64) - 1], dtype=np.uint64)
    assert keypair.find_many(entries, tops) == []
    assert keypair.find_many(entries, tops[:0]) == []
    for place in (0, len(entries) - 1):
        prefix, pool = divmod(int(entries[place]), 1 << keypair.POOL_BITS)
        query = np.array([1 << 63 | prefix << 23], dtype=np.uint64)
        assert [hit.pool for hit in keypair.find_many(entries, query)] == [pool]


def test_equal_prefixes_are_all_reported() -> None:
    entries = np.array([5 << 24 | 1, 7 << 24 | 2, 7 << 24 | 3, 7 << 24 | 9, 8 << 24], dtype=np.uint64)
    query = np.array([1 << 63 | 7 << 23 | 0x12345, 1 << 63 | 6 << 23], dtype=np.uint64)
    assert [(hit.row, hit.pool) for hit in keypair.find_many(entries, query)] == [(0, 2), (0, 3), (0, 9)]


def test_building_resumes_and_gives_the_same_bytes(small) -> None:
    kind = keypair.KINDS["keypair-1024"]
    told: list[tuple[int, int]] = []

    class KilledError(Exception):
        pass

    def progress(done: int, total: int) -> None:
        told.append((done, total))
        if done == 2:
            raise KilledError

    with pytest.raises(KilledError):
        keypair_building.build(kind.name, progress=progress)
    assert keypair.missing(kind.name) == [2, 3]
    assert keypair.available()[0].blocks == 2
    assert keypair.available()[0].entries == 71_680
    assert keypair_building.build(kind.name, progress=lambda *state: told.append(state)) == 2
    assert told == [(0, 4), (1, 4), (2, 4), (2, 4), (3, 4), (4, 4)]
    assert sorted(path.name for path in small.iterdir()) == ["keypair-1024.bin"]
    first = kind.built(small).read_bytes()
    assert first == keypair_building.make_block(kind, 71_680, 32)
    assert keypair.available()[0].entries == 71_680 + 32
    assert keypair.available()[0].share == pytest.approx(0.906, abs=0.001)
    assert keypair_building.build(kind.name) == 0
    entries = keypair.built(kind.name)
    assert entries is not None
    query = np.array([top_bits(pool_of(71_680 + 17), 1024)], dtype=np.uint64)
    assert [hit.pool for hit in keypair.find_many(entries, query)] == [71_680 + 17]
    assert list(keypair_building.verify(kind.name, sample=100)) == []


def test_jobs_give_the_same_bytes(small, monkeypatch) -> None:
    kind = keypair.KINDS["keypair-1024"]
    monkeypatch.setattr(
        keypair_building, "get_context", lambda _method: __import__("multiprocessing").get_context("fork")
    )
    assert keypair_building.build(kind.name, jobs=2) == 4
    assert kind.built(small).read_bytes() == keypair_building.make_block(kind, 71_680, 32)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:40],
        lambda data: data[:-8],
        lambda data: b"KAother\x01" + data[8:],
        lambda data: data[:8] + b"keypair-2048".ljust(16, b"\0") + data[24:],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[:24] + b"\1\0\0\0" + data[28:],
    ],
    ids=["short", "shortened", "magic", "kind", "flipped", "first"],
)
def test_damaged_lists_are_refused(tmp_path, damage) -> None:
    kind = keypair.KINDS["keypair-1024"]
    path = tmp_path / "list.bin"
    good = keypair_building.make_block(kind, 0, 8)
    path.write_bytes(good)
    assert len(keypair.open_list(path, kind, 0, 8)) == 8
    path.write_bytes(damage(good))
    with pytest.raises(KeyassayError):
        keypair.open_list(path, kind, 0, 8)


def test_verify_sees_entries_that_do_not_hold(tmp_path, monkeypatch) -> None:
    kind = keypair.KINDS["keypair-1024"]
    wrong = keypair.shipped(kind.name).copy()
    wrong[12] += 1 << 24
    path = tmp_path / "1024.bin"
    path.write_bytes(keypair.pack(kind, 0, wrong))
    monkeypatch.setattr(keypair, "DATA", tmp_path / "data")
    kind.shipped.parent.mkdir(parents=True)
    path.replace(kind.shipped)
    order = np.argsort(np.argsort(wrong))
    assert int(order[12]) == 12
    monkeypatch.setattr(keypair_building, "Random", lambda _seed: _Chosen())
    assert [defect.problem for defect in keypair_building.verify(kind.name, sample=5)] == [
        "the pool gives another modulus"
    ]
    wrong[20] = wrong[21]
    kind.shipped.write_bytes(keypair.pack(kind, 0, wrong))
    assert "not every pool is there once" in [one.problem for one in keypair_building.verify(kind.name, sample=1)]


class _Chosen:
    def sample(self, population: range, count: int) -> list[int]:
        return list(population[10 : 10 + count])


def test_unwritable_folder_is_said(small) -> None:
    small.parent.mkdir(parents=True)
    small.write_text("a file where the folder should be")
    with pytest.raises(KeyassayError, match="cannot be written"):
        keypair_building.build("keypair-1024")
