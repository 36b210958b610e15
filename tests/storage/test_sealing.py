"""Sealed secrets: opened only with the key, in their place, unaltered; key files that nobody else may read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyassay.errors import KeyassayError
from keyassay.storage.sealing import Seal, from_command, from_file

SEAL = Seal(b"k" * 32)


@given(st.binary(max_size=200), st.text(max_size=30), st.integers(0, 10_000), st.integers(1, 255))
def test_only_the_same_key_place_and_bytes_open(secret: bytes, place: str, position: int, change: int) -> None:
    sealed = SEAL.seal(secret, place)
    assert SEAL.open(sealed, place) == secret
    assert len(secret) < 8 or secret not in sealed
    altered = bytearray(sealed)
    altered[position % len(sealed)] ^= change
    for attempt in (
        lambda: SEAL.open(bytes(altered), place),
        lambda: SEAL.open(sealed, place + "x"),
        lambda: Seal(b"j" * 32).open(sealed, place),
        lambda: SEAL.open(sealed[:5], place),
    ):
        with pytest.raises(KeyassayError, match="cannot be opened"):
            attempt()


def test_the_key_file_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key"
    sealed = from_file(path, create=True).seal(b"secret", "place")
    assert path.stat().st_mode & 0o777 == 0o600
    assert from_file(path, create=True).open(sealed, "place") == b"secret"
    path.chmod(0o640)
    with pytest.raises(KeyassayError, match="others may read"):
        from_file(path, create=False)


def test_key_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(KeyassayError, match="missing"):
        from_file(tmp_path / "none", create=False)
    for content in (b"", b"short", b"zz" * 32, b"\xff" * 64):
        path = tmp_path / "bad"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeyassayError):
            from_file(path, create=False)


def test_a_command_gives_the_key() -> None:
    assert from_command(f"echo {'6b' * 32}").open(SEAL.seal(b"x", "y"), "y") == b"x"
    for command in ("false", "echo nothing"):
        with pytest.raises(KeyassayError):
            from_command(command)
