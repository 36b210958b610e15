"""The lists against every key that a vulnerable OpenSSL made, and what is said of incomplete ones."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keyassay.lists import debian, lookup
from keyassay.lists.format import BLOCK, SHIPPED, block_names, read_block
from keyassay.lists.recipes.debian_openssl import Stream

VECTORS = Path(__file__).parent.parent / "vectors" / "debian_weak_keys.csv"
LISTS = {
    ("rsa", "1024"): "rsa-1024",
    ("rsa", "2048"): "rsa-2048",
    ("rsa", "3072"): "rsa-3072",
    ("rsa", "4096"): "rsa-4096",
    ("ec", "secp256r1"): "ec-p256",
    ("ec", "secp384r1"): "ec-p384",
}


@pytest.mark.parametrize("original", LISTS, ids="-".join)
def test_the_list_names_every_original_key(original):
    lines = [line for line in VECTORS.read_text().splitlines() if not line.startswith("#")]
    rows = [row for row in csv.DictReader(lines) if (row["kind"], row["bits"]) == original]
    assert len(rows) == 63
    queries = np.array([int(row["sha256_modulus"][:16], 16) for row in rows], dtype=np.uint64)
    hits = lookup.find_many(LISTS[original], queries)
    named = {hit.row: str(Stream.of(hit.stream)) for hit in hits}
    assert named == {n: f"arch={row['arch']} state={row['state']} pid={row['pid']}" for n, row in enumerate(rows)}


def test_every_list_is_complete():
    for kind in SHIPPED:
        there = {f"{kind}/{path.name}" for path in (lookup.DATA / kind).glob("*")}
        assert there == {name.path for name in block_names(kind)}


def test_the_state_of_every_list_is_told():
    infos = {info.kind: info for info in lookup.available() if info.kind in SHIPPED}
    assert list(infos) == list(SHIPPED)
    for kind, info in infos.items():
        extras = sum(len(read_block(lookup.DATA / name.path).extras) for name in block_names(kind))
        assert (info.blocks, info.complete_blocks) == (96, 96)
        assert info.entries == 96 * BLOCK + extras
        assert debian.gap(kind) == ""


def test_gaps_are_told(monkeypatch):
    whole = lookup.merged("ec-p256")
    assert whole is not None
    monkeypatch.setattr(lookup, "merged", lambda kind: replace(whole, blocks=95))
    assert debian.gap("ec-p256") == "debian-ec-p256: 95 of 96 blocks"
    monkeypatch.setattr(lookup, "merged", lambda kind: None)
    assert debian.gap("ec-p256") == "debian-ec-p256: 0 of 96 blocks"
