"""Lists are made again with the same bytes, whenever and wherever a build stops, and verification finds what is wrong."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from keyassay.errors import KeyassayError
from keyassay.lists import building, known, lookup
from keyassay.lists.building import Defect
from keyassay.lists.format import (
    KINDS,
    SHIPPED,
    Block,
    Record,
    block_names,
    merged_of,
    number_digest,
    pack_block,
    pack_merged,
    read_block,
)
from keyassay.lists.recipes.debian_openssl import Stream, rsa_key_from_hints, rsa_keys

REAL = lookup.DATA
NAMES = block_names("ec-p256")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An installed program's folders: merged lists beside it, no blocks, an empty home."""
    monkeypatch.setattr(lookup, "DATA", tmp_path / "data")
    monkeypatch.setattr(lookup, "MERGED", tmp_path / "merged")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    lookup.merged.cache_clear()
    yield tmp_path
    lookup.merged.cache_clear()


def copy_blocks(folder: Path, names=NAMES) -> None:
    for name in names:
        (folder / name.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REAL / name.path, folder / name.path)


def put(folder: Path, block: Block, records=None, extras=None) -> None:
    """Write a block with a sound digest, whatever it holds."""
    blocks = [None] * len(block.digests) if block.hints is None else [tuple(pair) for pair in block.hints.tolist()]
    made = [Record(int(digest).to_bytes(8, "big"), hints) for digest, hints in zip(block.digests, blocks, strict=True)]
    data = pack_block(block.name, records or made, block.extras if extras is None else extras)
    lookup.write_atomically(folder / block.name.path, data)


# Building


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_is_missing_is_made_with_the_same_bytes(tmp_path, jobs):
    copy_blocks(tmp_path)
    missing = NAMES[:2]
    for name in missing:
        (tmp_path / name.path).unlink()
    told = []
    assert building.missing("ec-p256", tmp_path) == missing
    assert building.build("ec-p256", jobs=jobs, folder=tmp_path, progress=lambda *at: told.append(at)) == 2
    assert told == [(94, 96), (95, 96), (96, 96)]
    for name in missing:
        assert (tmp_path / name.path).read_bytes() == (REAL / name.path).read_bytes()
    assert building.build("ec-p256", jobs=jobs, folder=tmp_path) == 0


def test_finished_blocks_are_never_written_again(tmp_path):
    copy_blocks(tmp_path)
    (tmp_path / NAMES[5].path).unlink()
    (tmp_path / NAMES[6].path).write_bytes(b"somebody's own")
    building.build("ec-p256", folder=tmp_path)
    assert (tmp_path / NAMES[6].path).read_bytes() == b"somebody's own"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
def test_a_killed_build_goes_on_where_it_stopped(tmp_path, number):
    copy_blocks(tmp_path)
    for name in NAMES[:40]:
        (tmp_path / name.path).unlink()
    command = [sys.executable, "-m", "keyassay.cli.main", "lists", "build", "--key", "ec-p256", "--jobs", "1"]
    process = subprocess.Popen([*command, "--into", str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (tmp_path / NAMES[0].path).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    assert number == signal.SIGKILL or said.strip() == b"keyassay: interrupted"
    left = building.missing("ec-p256", tmp_path)
    assert 0 < len(left) < 40
    for name in left[2:]:
        shutil.copy(REAL / name.path, tmp_path / name.path)
    assert building.build("ec-p256", folder=tmp_path) == 2
    for name in NAMES:
        assert (tmp_path / name.path).read_bytes() == (REAL / name.path).read_bytes()


def test_an_installed_program_builds_into_the_users_folder(own):
    assert building.build_folder("ec-p256") == own / "home" / "keyassay" / "lists"
    copy_blocks(lookup.DATA)
    assert building.build_folder("ec-p256") == lookup.DATA
    assert building.build_folder("rsa-4096") == lookup.DATA, "the first block of a kind goes to the others"
    assert building.build_folder("ec-p256-2nd") == own / "home" / "keyassay" / "lists"


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "ec-p256").write_text("a file where the folder should be")
    with pytest.raises(KeyassayError, match="cannot be written") as caught:
        building.build("ec-p256", folder=tmp_path)
    assert "--into" in caught.value.hint


def test_a_build_is_compared_with_the_list_in_use(own):
    names = NAMES[:2]
    copy_blocks(own / "made", names)
    blocks = [read_block(own / "made" / name.path) for name in names]
    lookup.write_atomically(lookup.MERGED / "ec-p256.bin", pack_merged(KINDS["ec-p256"], blocks, 2, bytes(32)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "block_names", lambda kind: names)
        assert building.same_as_listed("ec-p256", own / "made") is True
        shutil.copy(own / "made" / names[0].path, own / "made" / names[1].path)
        assert building.same_as_listed("ec-p256", own / "made") is False
    assert building.same_as_listed("rsa-2048", own / "made") is None


# Verifying


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "ec-p256")) for kind in SHIPPED]
)
def test_real_entries_hold(kind):
    told = []
    assert list(building.verify(kind, sample=60, seed=7, progress=lambda *at: told.append(at))) == []
    assert told[-1] == (60, 60)


def test_samples_differ_unless_the_seed_is_the_same(monkeypatch):
    asked: list[list[tuple[str, tuple[int, ...]]]] = []
    for seed in (None, None, 5, 5):
        seen: list[tuple[str, tuple[int, ...]]] = []
        monkeypatch.setattr(
            building,
            "_verify_task",
            lambda task, seen=seen: (seen.append((task.path.name, tuple(task.numbers))), (len(task.numbers), []))[1],
        )
        list(building.verify("ec-p256", sample=50, seed=seed))
        asked.append(seen)
    assert asked[0] != asked[1]
    assert asked[2] == asked[3]


def test_complete_generation_agrees_with_the_hints():
    assert list(building.verify("rsa-1024", sample=6, full=True, seed=3)) == []


def test_both_moduli_of_a_stream_with_two_are_verified(tmp_path):
    """The streams where e = 65537 and e = 3 differ: their extra records are compared, and missed if they are gone."""
    path = next(path for path in sorted((REAL / "rsa-1024").glob("*.bin")) if read_block(path).extras)
    block = read_block(path)
    offset = block.extras[0][0]
    assert building.verify_block(path, [offset], full=True) == []
    copy = tmp_path / block.name.path
    put(tmp_path, block, extras=[])
    assert building.verify_block(copy, [offset], full=True)[0].problem == "complete generation gives another key"
    wrong = [(offset, branch, Record(bytes(8), record.blocks)) for offset, branch, record in block.extras]
    put(tmp_path, block, extras=wrong)
    assert building.verify_block(copy, [offset])[0].problem == "the hints do not give the listed modulus"


def test_a_wrong_hash_is_found(tmp_path):
    block = read_block(REAL / NAMES[0].path)
    digests = block.digests.copy()
    digests[17] ^= np.uint64(1)
    put(tmp_path, Block(block.name, digests, None, []))
    path = tmp_path / block.name.path
    stream = str(Stream(block.name.arch, block.name.state, block.name.first + 17))
    assert building.verify_block(path, range(10, 20)) == [Defect("ec-p256", stream, "another point")]


def test_a_wrong_hint_with_its_own_wrong_hash_does_not_pass(tmp_path):
    """Whoever forges an entry has to find another pair of primes in the stream."""
    name = block_names("rsa-1024")[0]
    block = read_block(REAL / name.path)
    stream = Stream(name.arch, name.state, name.first + 3)
    first, second = (int(one) for one in block.hints[3])
    forged = (first, second + 1)
    key = rsa_key_from_hints(stream, 1024, forged)
    digests, hints = block.digests.copy(), block.hints.copy()
    digests[3] = int.from_bytes(number_digest(key.modulus)[:8], "big")
    hints[3] = forged
    put(tmp_path, Block(name, digests, hints, block.extras))
    assert building.verify_block(tmp_path / name.path, [3]) == [
        Defect("rsa-1024", str(stream), "a factor is not prime")
    ]


def test_damaged_and_exchanged_blocks_are_defects(own):
    copy_blocks(lookup.DATA, NAMES[:2])
    shutil.copy(REAL / NAMES[0].path, lookup.DATA / NAMES[1].path)
    found = list(building.verify("ec-p256", sample=20))
    assert any("another block" in defect.problem for defect in found)
    (lookup.DATA / NAMES[1].path).write_bytes(b"rubbish")
    lookup.merged.cache_clear()
    found = list(building.verify("ec-p256", sample=200, seed=1))
    assert any(defect.stream == Path(NAMES[1].path).name for defect in found)


# Verifying merged lists, as a wheel carries them


def merge(kind: str, names, folder: Path) -> Path:
    blocks = [read_block(REAL / name.path) for name in names]
    path = folder / f"{kind}.bin"
    lookup.write_atomically(path, pack_merged(KINDS[kind], blocks, 72, bytes(32)))
    return path


@pytest.mark.parametrize(("kind", "full"), [("ec-p521", False), ("rsa-1024", False), ("rsa-1024", True)])
def test_a_merged_list_is_verified_without_blocks(own, kind, full):
    merge(kind, block_names(kind)[:2], lookup.MERGED)
    told = []
    count = 5 if full else 50
    found = list(building.verify(kind, sample=count, full=full, progress=lambda *at: told.append(at)))
    assert found == []
    assert told[-1] == (count, count)


def test_streams_with_two_moduli_hold_in_merged_lists(own):
    name = next(name for name in block_names("rsa-1024") if read_block(REAL / name.path).extras)
    block = read_block(REAL / name.path)
    stream = Stream(name.arch, name.state, name.first + block.extras[0][0])
    assert set(rsa_keys(stream, 1024)) == {65537, 3}
    path = merge("rsa-1024", [name], own)
    assert building.verify_merged(path, [stream.number], full=True) == []
    assert building.verify_merged(path, [stream.number]) == []


def forge(path: Path, change) -> None:
    """Change the entries of a merged list."""
    data = path.read_bytes()
    listed = merged_of(data)
    entries = listed.entries.copy()
    change(entries)
    size = len(data) - 8 * len(entries) - (4 * len(entries) if listed.hints is not None else 0)
    path.write_bytes(data[:size] + entries.astype("<u8").tobytes() + data[size + 8 * len(entries) :])


@pytest.mark.parametrize("kind", ["ec-p256", "rsa-1024"])
def test_a_forged_merged_list_is_found(own, kind):
    path = merge(kind, block_names(kind)[:1], lookup.MERGED)
    number = int(merged_of(path.read_bytes()).entries[100]) & (2**19 - 1)

    def change(entries):
        entries[100] ^= np.uint64(1 << 19)

    forge(path, change)
    assert len(building.verify_merged(path, [number])) == 1
    assert building.verify_merged(path, [number + 1 if number % 4096 == 0 else number - 1]) == []


def test_a_stream_left_out_or_out_of_order_is_found(own):
    path = merge("ec-p256", NAMES[:1], lookup.MERGED)

    def repeat(entries):
        entries[7] = entries[6]

    forge(path, repeat)
    assert "not every stream" in next(building.verify("ec-p256", sample=1)).problem
    lookup.merged.cache_clear()
    path = merge("ec-p256", NAMES[:1], lookup.MERGED)

    def swap(entries):
        entries[7], entries[6] = entries[6], entries[7]

    forge(path, swap)
    assert "not in order" in next(building.verify("ec-p256", sample=1)).problem


def test_a_damaged_merged_list_is_a_defect(own):
    path = merge("ec-p256", NAMES[:1], lookup.MERGED)
    path.write_bytes(path.read_bytes()[:-3])
    assert ["damaged" in defect.problem for defect in building.verify("ec-p256", sample=1)] == [True]


def test_jobs_find_the_same(own):
    path = merge("ec-p256", NAMES[:2], lookup.MERGED)
    forge(path, lambda entries: entries.__setitem__(5, entries[5] ^ np.uint64(1 << 30)))
    lookup.merged.cache_clear()
    one = list(building.verify("ec-p256", sample=None, jobs=1))
    lookup.merged.cache_clear()
    two = list(building.verify("ec-p256", sample=None, jobs=2))
    assert one == two != []


# Finding


def test_whole_hashes_name_streams():
    stream = Stream("le32", "nornd", 4711)
    modulus = rsa_keys(stream, 1024)[65537].modulus
    digest = number_digest(modulus)
    almost = digest[:31] + bytes([digest[31] ^ 1])
    stranger = hashlib.sha256(b"stranger").digest()
    assert list(building.find([digest, almost, stranger])) == [
        (digest, "debian-rsa-1024", stream),
        (almost, "", None),
        (stranger, "", None),
    ]


@pytest.mark.slow
def test_published_keys_are_verified(monkeypatch):
    told = []
    assert list(building.verify_published(progress=lambda *at: told.append(at))) == []
    assert told[-1] == (len(known.published()),) * 2
    key = next(iter(known.published()))
    wrong = known.KnownKey(key.list_name, key.key_type, bytes(32), key.source, key.secret)
    monkeypatch.setattr(known, "published", lambda: known._list_of(known.PUBLISHED, [wrong]))
    assert [defect.stream for defect in building.verify_published()] == [key.source]


def test_workers_are_gone_after_an_interruption(tmp_path):
    """An interrupted build with workers ends at once: none of them computes on."""
    command = [sys.executable, "-m", "keyassay.cli.main", "lists", "build", "--key", "rsa-2048", "--jobs", "2"]
    process = subprocess.Popen(
        [*command, "--into", str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while len(children.read_text().split()) < 2:  # the server of workers and the tracker of what they share
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    started = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said.strip()) == (130, b"keyassay: interrupted")
    assert time.monotonic() - started < 10
    assert list(tmp_path.rglob("*.bin*")) == []
