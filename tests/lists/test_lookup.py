"""Merging and searching: every key of every block is found, whatever happens to the files."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.errors import KeyassayError
from keyassay.lists import debian, lookup
from keyassay.lists.format import (
    KINDS,
    SHIPPED,
    STREAM_BITS,
    BlockName,
    Record,
    block_names,
    pack_block,
    pack_merged,
    read_block,
)
from keyassay.lists.recipes.debian_openssl import Stream

REAL = lookup.DATA
NAMES = block_names("ec-p256")[:3]


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A checkout with three blocks of P-256, and folders of a user."""
    data = tmp_path / "data"
    for name in NAMES:
        (data / name.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REAL / name.path, data / name.path)
    monkeypatch.setattr(lookup, "DATA", data)
    monkeypatch.setattr(lookup, "MERGED", tmp_path / "merged")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "own"))
    lookup.merged.cache_clear()
    yield data
    lookup.merged.cache_clear()


def streams_of(name: BlockName) -> list[int]:
    return [stream.number for stream in name.streams()]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "ec-p256")) for kind in SHIPPED]
)
def test_every_key_of_every_block_is_found(kind):
    merged = lookup.merged(kind)
    assert merged is not None
    total = 0
    for name in block_names(kind):
        block = read_block(REAL / name.path)
        extras = [(offset, record) for offset, _, record in block.extras]
        queries = np.concatenate(
            [block.digests, np.array([int.from_bytes(r.digest, "big") for _, r in extras], dtype=np.uint64)]
        )
        hits = lookup.find_many(kind, queries)
        first = Stream(name.arch, name.state, name.first).number
        wanted = [(row, first + row) for row in range(4096)]
        wanted += [(4096 + row, first + offset) for row, (offset, _) in enumerate(extras)]
        found = {(hit.row, hit.stream): hit.blocks for hit in hits}
        assert set(wanted) <= set(found)
        if block.hints is not None:
            hints = [tuple(pair) for pair in block.hints.tolist()] + [record.blocks for _, record in extras]
            assert sum(found[key] == pair for key, pair in zip(wanted, hints, strict=True)) >= len(wanted) - 1
        total += len(wanted)
    assert total == len(merged.entries)


@cache
def prefixes_of_p384() -> set[int]:
    return set((lookup.merged("ec-p384").entries[:] >> np.uint64(STREAM_BITS)).tolist())


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_not_in_the_list_is_not_found_and_order_plays_no_part(strangers, data):
    merged = lookup.merged("ec-p384")
    assert merged is not None
    known = data.draw(st.lists(st.integers(0, len(merged.entries) - 1), max_size=20))
    queries = [int(merged.entries[place]) | data.draw(st.integers(0, 2**STREAM_BITS - 1)) for place in known]
    queries += [number for number in strangers if number >> STREAM_BITS not in prefixes_of_p384()]
    queries = data.draw(st.permutations(queries))
    hits = lookup.find_many("ec-p384", np.array(queries, dtype=np.uint64))
    by_prefix: dict[int, set[int]] = {}
    for place in known:
        entry = int(merged.entries[place])
        by_prefix.setdefault(entry >> STREAM_BITS, set()).add(entry & (2**STREAM_BITS - 1))
    rows = {row for row, query in enumerate(queries) if query >> STREAM_BITS in by_prefix}
    assert {hit.row for hit in hits} == rows
    for row in rows:
        assert by_prefix[queries[row] >> STREAM_BITS] <= {hit.stream for hit in hits if hit.row == row}
    assert hits == sorted(hits, key=lambda hit: (hit.row, hit.stream))


def test_equal_prefixes_are_all_candidates(places):
    digest = bytes.fromhex("0123456789abcdef")
    name = NAMES[0]
    records = [Record(digest[:5] + bytes([0x89 if row % 2 else 0x88, row, 0])) for row in range(8)]
    shutil.rmtree(places / "ec-p256")
    lookup.write_atomically(places / name.path, pack_block(name, records, []))
    lookup.merged.cache_clear()
    query = np.array([int.from_bytes(records[0].digest, "big")], dtype=np.uint64)
    hits = lookup.find_many("ec-p256", query)
    same = [row for row, one in enumerate(records) if int.from_bytes(one.digest, "big") >> 19 == int(query[0]) >> 19]
    assert len(same) > 1
    assert [hit.stream for hit in hits] == [streams_of(name)[row] for row in same]


def test_a_list_that_was_complete_when_less_was_listed_is_merged_again(places, tmp_path):
    blocks = [read_block(places / name.path) for name in NAMES]
    stamp = lookup._stamp(places / "ec-p256")
    data = pack_merged(KINDS["ec-p256"], blocks, len(blocks), stamp)
    lookup.write_atomically(tmp_path / "merged" / "ec-p256.bin", data)
    assert lookup.merged("ec-p256").complete_blocks == 96
    assert debian.gap("ec-p256") == "debian-ec-p256: 3 of 96 blocks"


def test_a_list_is_merged_once_and_again_when_its_blocks_change(places, tmp_path):
    path = tmp_path / "merged" / "ec-p256.bin"
    assert lookup.merged("ec-p256").blocks == 3
    before = path.stat().st_mtime_ns
    lookup.merged.cache_clear()
    assert lookup.merged("ec-p256").blocks == 3
    assert path.stat().st_mtime_ns == before
    (places / NAMES[2].path).unlink()
    lookup.merged.cache_clear()
    assert lookup.merged("ec-p256").blocks == 2
    shutil.copy(REAL / NAMES[2].path, places / NAMES[2].path)
    lookup.merged.cache_clear()
    assert lookup.merged("ec-p256").blocks == 3


@pytest.mark.parametrize("damage", [b"", b"rubbish", b"KAmerge\x02" + bytes(80)])
def test_a_damaged_merged_list_is_made_again(places, tmp_path, damage):
    lookup.merged("ec-p256")
    (tmp_path / "merged" / "ec-p256.bin").write_bytes(damage)
    lookup.merged.cache_clear()
    assert lookup.merged("ec-p256").blocks == 3


def test_the_cache_folder_is_used_where_the_program_cannot_be_written(places, tmp_path):
    (tmp_path / "merged").write_text("a file where the folder should be")
    assert lookup.merged("ec-p256").blocks == 3
    assert (tmp_path / "cache" / "keyassay" / "lists" / "ec-p256.bin").exists()


def test_no_writable_folder_costs_time_and_nothing_else(places, tmp_path):
    for name in ("merged", "cache"):
        (tmp_path / name).write_text("a file where the folder should be")
    assert lookup.merged("ec-p256").blocks == 3
    block = read_block(places / NAMES[1].path)
    hits = lookup.find_many("ec-p256", block.digests)
    assert {hit.stream for hit in hits} >= set(streams_of(NAMES[1]))
    with pytest.raises(KeyassayError, match="no folder is writable"):
        lookup.merge("ec-p256")


def test_many_processes_merging_at_once_leave_one_whole_list(places, tmp_path):
    def merge(_number: int) -> bytes:
        return lookup.merge("ec-p256").read_bytes()

    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(merge, range(24)))
    assert len(made) == 1
    assert (tmp_path / "merged" / "ec-p256.bin").read_bytes() in made
    assert [path.name for path in (tmp_path / "merged").iterdir()] == ["ec-p256.bin"]


def test_a_damaged_block_is_told_and_ends_no_search(places):
    path = places / NAMES[0].path
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(KeyassayError, match="damaged"):
        lookup.merged("ec-p256")
    assert lookup.find_many("ec-p256", np.array([1], dtype=np.uint64)) == []
    assert "damaged" in debian.gap("ec-p256")
    assert next(one for one in lookup.available() if one.kind == "ec-p256").entries == 0


def test_a_block_under_the_name_of_another_is_refused(places):
    shutil.copy(REAL / NAMES[0].path, places / NAMES[1].path)
    with pytest.raises(KeyassayError, match="holds another block"):
        lookup.merged("ec-p256")


def test_an_installed_program_has_lists_without_blocks(places, tmp_path):
    lookup.merge("ec-p256", target=tmp_path / "merged")
    shutil.rmtree(places)
    lookup.merged.cache_clear()
    assert lookup.merged("ec-p256").blocks == 3
    assert lookup.merged("rsa-1024") is None
    assert lookup.find_many("rsa-1024", np.array([1], dtype=np.uint64)) == []
    assert debian.gap("rsa-1024") == "debian-rsa-1024: 0 of 96 blocks"


def test_what_a_user_built_is_used_only_where_no_list_came_with_the_program(places, tmp_path):
    shutil.move(places, tmp_path / "own" / "keyassay" / "lists")
    assert lookup.merged("ec-p256").blocks == 3
    assert lookup.blocks_folder("ec-p256") == tmp_path / "own" / "keyassay" / "lists"
    assert lookup.is_there("ec-p256")
    lookup.merge("ec-p256", target=tmp_path / "merged")
    assert lookup.blocks_folder("ec-p256") is None
    # one that is further than the list that came with the program is used
    more = tmp_path / "own" / "keyassay" / "lists" / block_names("ec-p256")[3].path
    shutil.copy(REAL / block_names("ec-p256")[3].path, more)
    lookup.merged.cache_clear()
    assert lookup.merged("ec-p256").blocks == 4
    # and where a damaged one came with it, that does not hide what there is
    more.unlink()
    (tmp_path / "merged" / "ec-p256.bin").write_bytes(b"rubbish")
    assert lookup.blocks_folder("ec-p256") == tmp_path / "own" / "keyassay" / "lists"
    assert not lookup.is_there("ec-p384")


def test_files_are_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "folder" / "file"
    lookup.write_atomically(target, b"one", mode=0o600)
    assert target.read_bytes() == b"one"
    assert target.stat().st_mode & 0o777 == 0o600
    target.unlink()
    target.mkdir()
    (target / "inside").write_text("keeps it from being replaced")
    with pytest.raises(OSError, match=r".+"):
        lookup.write_atomically(target, b"two")
    assert [path.name for path in Path(tmp_path / "folder").iterdir()] == ["file"]
