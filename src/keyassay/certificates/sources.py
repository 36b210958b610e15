"""One source of items while it is read: it numbers them, unwraps containers, and keeps complaints from flooding.

``reading`` makes a ``Source`` for every file, archive member and server; ``textforms`` and ``keystores`` fill it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from keyassay.certificates import keystores
from keyassay.certificates.decoding import sniff_der
from keyassay.certificates.item import RawItem
from keyassay.certificates.limits import DEFAULT_LIMITS, Limits

#: a named tuple made at half the cost, for the millions of them
_new = tuple.__new__


@dataclass(frozen=True)
class ReadOptions:
    """How to read.

    Attributes:
        limits: bounds.
        passwords: tried on PKCS #12, Java key stores and encrypted private keys.
        timeout: seconds for each network source.
        progress: called with numbers of bytes read.
        passed_over: called with the path of each file met in a folder or archive that holds nothing of ours.
        private_keys: called with (source, position, primes) for each private key; the primes are () where it has
            none or they could not be read. Keys beside their certificates in PKCS #12 are items then, too.
    """

    limits: Limits = DEFAULT_LIMITS
    passwords: tuple[bytes, ...] = ()
    timeout: float = 10.0
    progress: Callable[[int], None] | None = None
    passed_over: Callable[[str], None] | None = None
    private_keys: Callable[[str, int, tuple[int, ...]], None] | None = None


class Source:
    """What has been found in one source and not been handed on yet.

    Args:
        name: as in ``RawItem.source``.
        options: bounds and passwords.
        strict: whether it ought to hold something of ours (named by the user, or by its extension), so that what
            merely hints at damage is worth a record.

    Attributes:
        place: byte offset that reading has come to, for complaints about the stream itself.
    """

    def __init__(self, name: str, options: ReadOptions, *, strict: bool) -> None:
        self.name = name
        self.options = options
        self.limits = options.limits
        self.strict = strict
        self.count = 0
        self.place = 0
        self.items: list[RawItem] = []
        self._unreadable = 0
        self._last_offset = 0

    def add(self, offset: int, label: str, data: bytes, notice: str | None = None) -> None:
        """An encoding that is a leaf."""
        self.items.append(_new(RawItem, (self.name, self.count, offset, label, data, None, notice)))
        self.count += 1

    def problem(self, offset: int, reason: str) -> None:
        """Something that could not be read, with its reason; beyond the limit it is only counted."""
        self._unreadable += 1
        self._last_offset = offset
        if self._unreadable <= self.limits.unreadable_per_source:
            self.items.append(RawItem(self.name, self.count, offset, "", b"", reason))
            self.count += 1

    def doubt(self, offset: int, reason: str) -> None:
        """A problem, if this source ought to hold something of ours."""
        if self.strict:
            self.problem(offset, reason)

    def der(self, offset: int, label: str, data: bytes) -> None:
        """A DER structure (or what a PEM block held): containers and private keys are unwrapped."""
        container = keystores.container_of(data, label)
        most = keystores.most_bytes(container, self.limits) if container else 0
        if container and len(data) > most:
            self.problem(offset, f"{len(data):,} bytes are more than the {most:,} that one item may have")
        elif container:
            wanted = self.options.private_keys is not None
            self.parts(offset, keystores.unpack(container, data, self.options.passwords, self.limits, private=wanted))
        else:
            self.add(offset, label or sniff_der(data), data)

    def parts(self, offset: int, parts: Iterable[keystores.Part]) -> None:
        """The leaves of a container."""
        for part in parts:
            if part.error is not None:
                self.problem(offset, part.error)
            else:
                if part.primes is not None:
                    self.private(part.primes)
                self.add(offset, part.label, part.data, part.notice)

    def private(self, primes: tuple[int, ...]) -> None:
        """The next item is the public part of a private key."""
        if self.options.private_keys is not None:
            self.options.private_keys(self.name, self.count, primes)

    def widen(self, base: int, width: int) -> None:
        """Turn offsets that count letters into offsets that count bytes.

        Args:
            base: bytes before the first letter.
            width: bytes of a letter.
        """
        self.items = [raw._replace(offset=base + width * raw.offset) for raw in self.items]
        self._last_offset = base + width * self._last_offset

    def close(self) -> None:
        """Say how many unreadable items were only counted."""
        more = self._unreadable - self.limits.unreadable_per_source
        if more > 0:
            self._unreadable = 0
            reason = f"{more:,} more unreadable items in this source, the last at byte {self._last_offset:,}"
            self.items.append(RawItem(self.name, self.count, self._last_offset, "", b"", reason))
            self.count += 1

    def drain(self) -> list[RawItem]:
        """Hand on what was found since the last time."""
        items, self.items = self.items, []
        return items
