"""Blocks and merged lists on disk: what is written is read back, and nothing damaged is taken for a list."""

from __future__ import annotations

import contextlib
import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyassay.errors import KeyassayError
from keyassay.lists import format as layout
from keyassay.lists.format import (
    BLOCK,
    KINDS,
    SHIPPED,
    STREAM_BITS,
    BlockName,
    Record,
    block_names,
    merged_of,
    number_digest,
    open_merged,
    pack_block,
    pack_merged,
    read_block,
)
from keyassay.lists.recipes.debian_openssl import VARIANTS, Stream

RSA = BlockName("rsa-1024", "le32", "nornd", 4096)
CURVE = BlockName("ec-p256", "be32", "rnd", 0)


@st.composite
def rsa_blocks(draw):
    """Records of a short block, and extra ones for some of its streams."""
    record = st.builds(Record, st.binary(min_size=8, max_size=8), st.tuples(*[st.integers(0, 65_535)] * 2))
    records = draw(st.lists(record, min_size=1, max_size=30))
    places = st.integers(0, len(records) - 1)
    return records, draw(st.lists(st.tuples(places, st.just(3), record), max_size=5))


@given(rsa_blocks())
def test_a_block_is_read_as_it_was_written(tmp_path_factory, block):
    records, extras = block
    path = tmp_path_factory.mktemp("block") / "0.bin"
    path.write_bytes(pack_block(RSA, records, extras))
    read = read_block(path)
    assert read.name == RSA
    assert read.digests.tolist() == [int.from_bytes(record.digest, "big") for record in records]
    assert [tuple(row) for row in read.hints.tolist()] == [record.blocks for record in records]
    assert read.extras == extras


@given(rsa_blocks())
def test_a_merged_list_holds_every_record_of_its_blocks_in_order(tmp_path_factory, block):
    records, extras = block
    path = tmp_path_factory.mktemp("block") / "0.bin"
    path.write_bytes(pack_block(RSA, records, extras))
    merged = merged_of(pack_merged(KINDS["rsa-1024"], [read_block(path)], 72, bytes(32)))
    first = Stream(RSA.arch, RSA.state, RSA.first).number
    expected = sorted(
        (int.from_bytes(record.digest, "big") >> STREAM_BITS << STREAM_BITS | first + offset, *record.blocks)
        for offset, record in [*enumerate(records), *((offset, record) for offset, _, record in extras)]
    )
    found = [(int(entry), *hints) for entry, hints in zip(merged.entries, merged.hints.tolist(), strict=True)]
    assert sorted(found) == expected
    assert [entry for entry, *_ in found] == [entry for entry, *_ in expected]
    assert (merged.blocks, merged.complete_blocks, merged.kind.name) == (1, 72, "rsa-1024")


def curve_block(tmp_path, name=CURVE, count=4):
    path = tmp_path / "0.bin"
    path.write_bytes(pack_block(name, [Record(bytes([row]) * 8) for row in range(count)], []))
    return path


@pytest.mark.parametrize("size", [0, 50, 95, 96, 100])
def test_a_truncated_block_is_refused(tmp_path, size):
    path = curve_block(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(KeyassayError):
        read_block(path)


@pytest.mark.parametrize("place", range(0, 128, 3))
def test_a_block_with_a_changed_byte_is_refused_or_says_that_it_is_another(tmp_path, place):
    path = curve_block(tmp_path)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with contextlib.suppress(KeyassayError):
        assert read_block(path).name != CURVE  # its name is in the header, and whoever reads it compares it


def test_a_header_that_promises_more_than_there_is_is_refused(tmp_path):
    body = bytes(8 * 4)
    for count, extra, size in ((5, 0, 8), (4, 1, 8), (2**31, 0, 8), (4, 0, 12), (BLOCK + 1, 0, 8)):
        header = layout._HEADER.pack(
            b"KAblock\x01", b"ec-p256", b"be32", b"rnd", 0, count, extra, size, hashlib.sha256(body).digest()
        )
        path = tmp_path / "0.bin"
        path.write_bytes(header + body)
        with pytest.raises(KeyassayError, match="damaged"):
            read_block(path)


def test_an_extra_record_of_no_stream_is_refused(tmp_path):
    path = tmp_path / "0.bin"
    record = Record(bytes(8), (1, 2))
    path.write_bytes(pack_block(RSA, [record], [(1, 3, record)]))
    with pytest.raises(KeyassayError, match="no stream"):
        read_block(path)


def test_a_missing_block_is_an_error_with_its_path(tmp_path):
    with pytest.raises(KeyassayError, match="gone"):
        read_block(tmp_path / "gone.bin")


def test_a_merged_list_is_mapped_and_aligned(tmp_path):
    data = pack_merged(KINDS["ec-p256"], [read_block(curve_block(tmp_path))], 72, bytes(range(32)))
    path = tmp_path / "list.bin"
    path.write_bytes(data)
    merged = open_merged(path)
    assert merged.entries.flags.aligned
    assert isinstance(merged.entries.base, np.memmap)
    assert merged.entries.tolist() == merged_of(data).entries.tolist()
    assert merged.stamp == bytes(range(32))
    assert merged.hints is None


def test_an_empty_list_is_a_list():
    for kind in ("ec-p256", "rsa-2048"):
        merged = merged_of(pack_merged(KINDS[kind], [], 72, bytes(32)))
        assert len(merged.entries) == 0


def test_damaged_merged_lists_are_refused(tmp_path):
    data = pack_merged(KINDS["ec-p256"], [read_block(curve_block(tmp_path))], 72, bytes(32))
    other_kind = data[:8] + b"ec-p999".ljust(16, b"\0") + data[24:]
    hints = data[:32] + struct.pack("<Q", 1) + data[40:]
    for damaged in (b"", data[:40], data[:-1], data + b"\0", b"x" + data[1:], other_kind, hints):
        path = tmp_path / "list.bin"
        path.write_bytes(damaged)
        with pytest.raises(KeyassayError, match="damaged"):
            open_merged(path)


def test_all_blocks_of_a_kind_cover_every_stream_once():
    numbers = [stream.number for name in block_names("ec-p256") for stream in name.streams()]
    assert len(numbers) == len(set(numbers)) == 393_216
    assert len({name.path for name in block_names("ec-p256")}) == 96


def test_names_of_kinds_fit_into_headers_and_tell_kind_and_variant():
    for name, kind in KINDS.items():
        assert name == kind.name == name.encode()[:16].decode()
        assert (kind.usual.name, kind.usual.bits, kind.usual.curve) == (kind.usual.name, kind.bits, kind.curve)
        assert kind.usual is SHIPPED[kind.usual.name]
        assert name in (kind.usual.name, f"{kind.usual.name}-{kind.variant.name}")
    assert len(KINDS) == len(SHIPPED) * (1 + len(VARIANTS))
    counts = {variant: len(block_names(f"rsa-1024-{variant}")) for variant in VARIANTS}
    assert counts == {"2nd": 96, "rf1": 72, "rf2": 72, "144": 32, "136": 16}


@given(st.integers(1, 2**2048))
def test_digests_of_numbers_are_those_of_the_shortest_octets(number):
    octets = number.to_bytes(300, "big").lstrip(b"\0")
    assert number_digest(number) == hashlib.sha256(octets).digest()
