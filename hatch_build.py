"""What hatchling runs when it builds a wheel: the wheel carries merged lists instead of the blocks behind them.

A checkout and a source distribution hold blocks, which never change; a wheel holds what look-ups map into memory, so
that an installed program has nothing left to do and needs no folder that it may write to.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class MergedLists(BuildHookInterface):  # type: ignore[type-arg]
    """Merges the blocks into a folder that is thrown away, and has the wheel take the lists from there."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Merge, unless the installation is editable: that one merges by `dev.py setup` or on first use."""
        if version == "editable":
            return
        sys.path.insert(0, str(Path(self.root) / "src"))
        from keyassay.lists import lookup  # noqa: PLC0415  from the tree that is being built
        from keyassay.lists.format import SHIPPED  # noqa: PLC0415

        self._folder = tempfile.TemporaryDirectory(prefix="keyassay-lists-")
        for kind in SHIPPED:
            blocks = sorted((lookup.DATA / kind).glob("*.bin"))
            if not blocks:  # not computed yet: the installed program says so, and makes them if it is told to
                continue
            # By contents, not by times as in a checkout: the same blocks give the same wheel.
            stamp = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in blocks)).digest()
            path = lookup.merge(kind, stamp=stamp, target=Path(self._folder.name))
            build_data["force_include"][str(path)] = f"keyassay/lists/merged/{kind}.bin"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Throw the merged lists away once they are in the wheel."""
        if version != "editable":
            self._folder.cleanup()
