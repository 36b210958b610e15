"""A token for tests: SoftHSM's, in a folder of its own, with a PIN in a file, that can go away and come back."""

from __future__ import annotations

import os
import secrets
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_PLACES = ("/usr/lib/softhsm", "/usr/lib/*/softhsm", "/usr/lib64/pkcs11", "/usr/local/lib/softhsm")


def module() -> str:
    """The path of SoftHSM's library."""
    found = [path for place in _PLACES for path in Path("/").glob(f"{place[1:]}/libsofthsm2.so")]
    assert found, "`python3 dev.py test` installs SoftHSM"
    return str(found[0])


@dataclass
class SoftToken:
    """A token; its folder is made with it. ``SOFTHSM2_CONF`` has to be ``configuration`` wherever it is used."""

    folder: Path
    label: str = field(default_factory=lambda: f"plant {secrets.token_hex(4)}")
    pin: str = field(default_factory=lambda: f"pin-{secrets.token_hex(8)}")

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self._tokens.mkdir()
        text = f"directories.tokendir = {self._tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        self.configuration.write_text(text)
        self.initialize()
        self.pin_file.write_text(f"{self.pin}\n")
        self.pin_file.chmod(0o600)

    @property
    def _tokens(self) -> Path:
        return self.folder / "tokens"

    @property
    def configuration(self) -> Path:
        """SoftHSM's configuration."""
        return self.folder / "softhsm2.conf"

    @property
    def pin_file(self) -> Path:
        """Holds the PIN."""
        return self.folder / "pin"

    def _run(self, *arguments: str) -> None:
        environment = {**os.environ, "SOFTHSM2_CONF": str(self.configuration)}
        subprocess.run(["softhsm2-util", *arguments], env=environment, check=True, capture_output=True)

    def initialize(self, label: str = "", pin: str = "") -> None:
        """Make a token, one more if there is one."""
        names = ("--label", label or self.label, "--pin", pin or self.pin)
        self._run("--init-token", "--free", "--so-pin", "so-pin-1234", *names)

    def uri(self, object_: str = "", **more: str) -> str:
        """The URI of a key in it, or of the token alone."""
        path = {"token": self.label, **({"object": object_} if object_ else {})}
        query = {"module-path": module(), "pin-source": f"file:{self.pin_file}", **more}
        text = ";".join(f"{name}={value.replace(' ', '%20')}" for name, value in path.items())
        asked = "&".join(f"{name}={value}" for name, value in query.items() if value)
        return f"pkcs11:{text}?{asked}" if asked else f"pkcs11:{text}"

    def put(self, key: Any, object_: str, identifier: str = "0a0b") -> None:
        """Put a key that exists into it."""
        path = self.folder / "key.pem"
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        names = ("--token", self.label, "--label", object_, "--id", identifier, "--pin", self.pin)
        self._run("--import", str(path), *names)
        path.unlink()

    def leave(self) -> None:
        """Go away."""
        self._tokens.rename(self.folder / "elsewhere")

    def come_back(self) -> None:
        """Be there again."""
        (self.folder / "elsewhere").rename(self._tokens)

    def vanish(self) -> None:
        """Lose everything."""
        self.leave()
        (self.folder / "elsewhere").rename(self.folder / f"old-{secrets.token_hex(4)}")
        self._tokens.mkdir()
