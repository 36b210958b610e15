"""Secrets at rest: AES-256-GCM under a key that never stands in the database.

The key comes from a file that only its owner may read (made at the first start), or from a command that prints it (a
vault, a key service). Who has the database alone has no access key and no issuer's key.
"""

from __future__ import annotations

import binascii
import os
import secrets
import subprocess
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyassay.errors import KeyassayError

_NONCE = 12
_VERSION = b"\x01"
_COMMAND_SECONDS = 30


class Seal:
    """Seals and opens secrets; each is bound to the place where it stands.

    Args:
        key: 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, secret: bytes, place: str) -> bytes:
        """Encrypt; ``place`` ("access-key/AKIA...") has to be given again to open."""
        nonce = secrets.token_bytes(_NONCE)
        return _VERSION + nonce + self._cipher.encrypt(nonce, secret, _VERSION + place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """Decrypt.

        Raises:
            KeyassayError: another key sealed it, or it was altered or moved.
        """
        version, nonce, text = sealed[:1], sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        try:
            return self._cipher.decrypt(nonce, text, version + place.encode())
        except (InvalidTag, ValueError):
            raise KeyassayError(
                f"the secret of {place} cannot be opened",
                "the key file has to be the one that this database began with",
            ) from None


def from_file(path: Path, *, create: bool) -> Seal:
    """The seal whose key, 64 hexadecimal digits, stands in a file of mode 0600.

    Args:
        path: the file.
        create: make it if it is not there.

    Raises:
        KeyassayError: it is missing, readable by others, or holds no key.
    """
    if create and not path.exists():
        _write_key(path)
    try:
        mode = path.stat().st_mode
        text = path.read_text().strip()
    except FileNotFoundError:
        raise KeyassayError(
            f"the key file {str(path)!r} is missing", "without it the secrets of this database cannot be opened"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise KeyassayError(f"cannot read the key file {str(path)!r}: {error}") from None
    if mode & 0o077:
        raise KeyassayError(f"others may read the key file {str(path)!r}", f"chmod 600 {path}")
    return _seal_of(text, f"the key file {str(path)!r}")


def from_command(command: str) -> Seal:
    """The seal whose key a command prints, as 64 hexadecimal digits.

    Raises:
        KeyassayError: it fails, or prints something else.
    """
    try:
        # the operator's own command, from the server's configuration
        done = subprocess.run(command, shell=True, capture_output=True, timeout=_COMMAND_SECONDS, check=False)  # noqa: S602
    except subprocess.TimeoutExpired:
        raise KeyassayError(f"the key command did not end within {_COMMAND_SECONDS} s") from None
    if done.returncode:
        raise KeyassayError(f"the key command ended with {done.returncode}")
    return _seal_of(done.stdout.decode("ascii", "replace").strip(), "the output of the key command")


def _seal_of(text: str, what: str) -> Seal:
    try:
        key = binascii.unhexlify(text)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise KeyassayError(f"{what} is no key", "64 hexadecimal digits are; `openssl rand -hex 32` makes one")
    return Seal(key)


def _write_key(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return  # another process was quicker
    except OSError as error:
        raise KeyassayError(f"cannot write the key file {str(path)!r}: {error.strerror}") from None
    with os.fdopen(handle, "w") as stream:
        stream.write(secrets.token_hex(32) + "\n")
