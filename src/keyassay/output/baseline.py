"""Accepted findings: a JSON file that says which finding on which certificate is known, why, and until when.

An accepted finding stays in every report, marked, but no longer fails a run; when its date has passed it counts
again. The file is read whole and strictly: a typing error must not accept anything by accident.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from keyassay.certificates.item import Item
from keyassay.errors import KeyassayError
from keyassay.findings import Finding

VERSION = 1
#: a baseline of this size holds some hundred thousand entries
MAXIMUM_BYTES = 64 << 20

_HINT = 'an entry is {"sha256": "<64 hex digits>", "check": "...", "reason": "...", "expires": "YYYY-MM-DD"}'


@dataclass(frozen=True, slots=True)
class Acceptance:
    """One accepted finding.

    Attributes:
        sha256: of the certificate's DER; of the subject public key info where an item has no DER.
        check: the check's id.
        reason: why it was accepted.
        expires: the last day (UTC) on which it holds.
    """

    sha256: str
    check: str
    reason: str
    expires: date

    def holds(self, today: date) -> bool:
        """Not expired."""
        return today <= self.expires


def fingerprint(item: Item) -> str:
    """What names an item in a baseline: SHA-256 of its DER, else of its public key; empty if it has neither."""
    return (item.sha256 or item.spki_sha256 or b"").hex()


class Baseline:
    """Accepted findings by certificate and check."""

    def __init__(self, accepted: Iterable[Acceptance] = ()) -> None:
        """Later entries replace earlier ones on the same finding."""
        self._accepted = {(one.sha256, one.check): one for one in accepted}

    def __len__(self) -> int:
        return len(self._accepted)

    def find(self, item: Item, finding: Finding) -> Acceptance | None:
        """The entry for a finding, expired or not."""
        return self._accepted.get((fingerprint(item), finding.check)) if self._accepted else None

    def extended(self, accepted: Iterable[Acceptance]) -> Baseline:
        """A baseline that also holds those; entries that exist already keep their reason and date."""
        return Baseline([*accepted, *self._accepted.values()])

    def dump(self) -> str:
        """The file's text, sorted, so that versions of it compare well."""
        entries = [
            {"sha256": one.sha256, "check": one.check, "reason": one.reason, "expires": one.expires.isoformat()}
            for _, one in sorted(self._accepted.items())
        ]
        return json.dumps({"version": VERSION, "accepted": entries}, indent=2) + "\n"


def load(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        KeyassayError: the file cannot be read or is no valid baseline; nothing of it is used then.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise KeyassayError(f"cannot read the baseline: {error.strerror}: {str(path)!r}") from None
    if len(data) > MAXIMUM_BYTES:
        raise KeyassayError(f"the baseline is larger than {MAXIMUM_BYTES >> 20} MiB")
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise KeyassayError(f"the baseline is not JSON: {error}", _HINT) from None
    if not isinstance(tree, dict) or tree.get("version") != VERSION or not isinstance(tree.get("accepted"), list):
        raise KeyassayError(
            "the baseline has not the form of one", f'it has to be {{"version": {VERSION}, "accepted": [...]}}; {_HINT}'
        )
    return Baseline(_entry(number, entry) for number, entry in enumerate(tree["accepted"], 1))


def _entry(number: int, entry: Any) -> Acceptance:
    fields = {"sha256", "check", "reason", "expires"}
    if (
        not isinstance(entry, dict)
        or set(entry) != fields
        or not all(isinstance(value, str) and value.strip() for value in entry.values())
    ):
        raise KeyassayError(
            f"entry {number} of the baseline needs {', '.join(sorted(fields))}, all of them text", _HINT
        )
    digest = entry["sha256"].lower().replace(":", "")
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise KeyassayError(f"entry {number} of the baseline: sha256 has to be 64 hex digits", _HINT)
    try:
        expires = date.fromisoformat(entry["expires"])
    except ValueError:
        raise KeyassayError(f"entry {number} of the baseline: expires has to be a date", _HINT) from None
    return Acceptance(digest, entry["check"], entry["reason"], expires)
