"""``keyassay scan --walk`` on the command line."""

from pathlib import Path

import pytest

from keyassay.bulk import walking
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.certificates.spki import encode
from keyassay.lists.recipes.debian_openssl import Stream, rsa_keys


@pytest.fixture(autouse=True)
def few_streams(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(walking, "PIDS", range(3))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def test_walk_finds_proves_and_says_how_deep(keyassay) -> None:
    stream = Stream("be32", "rnd", 2)
    Path("odd.der").write_bytes(encode(RsaPublicKey(rsa_keys(stream, 1026)[65537].modulus, 65537)))
    arguments = ("scan", "odd.der", "--check", "rsa-debian-openssl", "--jobs", 1)
    assert keyassay(*arguments).code == 0
    done = keyassay(*arguments, "--walk-depth", 0.1)
    assert done.code == 1
    assert f"{stream} gives the whole key" in " ".join(done.out.split())
    assert "walked to depth 0.1, a weak one is missed with probability 9.0e-01" in " ".join(done.out.split())
    # found once, it is known: to scans without a walk, and to the proof
    assert keyassay(*arguments).code == 1
    proof = keyassay("prove", "odd.der", "--check", "rsa-debian-openssl")
    assert proof.code == 1
    assert "on platform be32, as process 2, with a readable ~/.rnd" in " ".join(proof.out.split())
