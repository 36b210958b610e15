"""The lists against every key that a vulnerable OpenSSL made, and what is said of incomplete ones."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keyassay.lists import debian, lookup
from keyassay.lists.format import KINDS
from keyassay.lists.recipes.debian_openssl import Stream

VECTORS = Path(__file__).parent.parent / "vectors" / "debian_weak_keys.csv"
LISTS = {
    ("rsa", "1024"): "rsa-1024",
    ("rsa", "2048"): "rsa-2048",
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


def test_all_lists_are_complete():
    assert {kind: debian.gap(kind) for kind in KINDS} == dict.fromkeys(KINDS, "")
    for info in lookup.available():
        assert info.blocks == info.complete_blocks == 72
        assert info.entries >= 294_912


def test_gaps_are_told(monkeypatch):
    whole = lookup.merged("ec-p256")
    assert whole is not None
    monkeypatch.setattr(lookup, "merged", lambda kind: replace(whole, blocks=71))
    assert debian.gap("ec-p256") == "debian-ec-p256 has 71 of 72 blocks"
    monkeypatch.setattr(lookup, "merged", lambda kind: None)
    assert debian.gap("ec-p256") == "debian-ec-p256 is missing"
