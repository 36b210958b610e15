"""What a scan says of lists that are not complete: of those that its keys needed, and of no others."""

from __future__ import annotations

import re
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyassay.lists import lookup
from keyassay.lists.format import block_names


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A checkout with one block of P-256, three of RSA-1024 and nothing else."""
    data = tmp_path / "data"
    for name in [*block_names("ec-p256")[:1], *block_names("rsa-1024")[:3]]:
        (data / name.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(lookup.DATA / name.path, data / name.path)
    for other in ("known", "keypair"):
        shutil.copytree(lookup.DATA / other, data / other)
    monkeypatch.setattr(lookup, "DATA", data)
    monkeypatch.setattr(lookup, "MERGED", tmp_path / "merged")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "own"))
    lookup.merged.cache_clear()
    yield data
    lookup.merged.cache_clear()


def key_file(path, private):
    public = private.public_key()
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def remarks(out: str) -> list[str]:
    """Kinds that are told of, in lines that may be broken anywhere between words."""
    return re.findall(r"debian-([\w-]+): \d+ of \d+ blocks; `keyassay lists build --key \1`", " ".join(out.split()))


def test_only_lists_that_a_key_needed_are_told_of(keyassay, tmp_path, places):
    small = key_file(tmp_path / "small.pem", rsa.generate_private_key(65537, 1024))
    said = keyassay("scan", "--profile", "fast", small)
    assert "debian-rsa-1024: 3 of 96 blocks;" in said.out
    assert remarks(said.out) == ["rsa-1024"]
    large = key_file(tmp_path / "large.pem", rsa.generate_private_key(65537, 2048))
    point = key_file(tmp_path / "point.pem", ec.generate_private_key(ec.SECP256R1()))
    said = keyassay("scan", "--profile", "fast", large, point)
    assert "debian-rsa-2048: 0 of 96 blocks" in said.out
    assert "debian-ec-p256: 1 of 96 blocks" in said.out
    assert sorted(remarks(said.out)) == ["ec-p256", "rsa-2048"]


def test_complete_lists_are_not_told_of(keyassay, tmp_path):
    point = key_file(tmp_path / "point.pem", ec.generate_private_key(ec.SECP256R1()))
    assert remarks(keyassay("scan", "--profile", "fast", point).out) == []


def test_verify_takes_what_is_there(keyassay, places):
    said = keyassay("lists", "verify", "--key", "rsa-1024", "--key", "ec-p256", "--sample", "5", "--jobs", "1")
    assert said.code == 0
    assert said.out.splitlines() == [
        "debian-rsa-1024: 5 keys made again, all as listed",
        "debian-ec-p256: 5 keys made again, all as listed",
    ]
    said = keyassay("lists", "verify", "--key", "rsa-4096", "--sample", "5", "--jobs", "1")
    assert (said.code, said.out) == (1, "debian-rsa-4096: there is no such list, nothing was verified\n")


@pytest.mark.slow
def test_verify_of_all_says_what_there_is_nothing_of(keyassay, places):
    said = keyassay("lists", "verify", "--sample", "1", "--jobs", "1")
    assert said.code == 0
    assert "debian-rsa-4096: 0 of 96 blocks, nothing to verify" in said.out.splitlines()
    assert "debian-rsa-1024: 1 keys made again, all as listed" in said.out.splitlines()
