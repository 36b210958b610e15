"""What the engine remembers of a whole run: compact columns in memory, items in a spool that goes to disk.

``FleetColumns`` are made per block where the block was decoded (in a worker process, too); ``RunFleet`` joins them
and is what fleet checks see. ``fleet_of`` makes one from items, for tests and for the library.
"""

from __future__ import annotations

import pickle
import tempfile
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import IO, overload

import numpy as np
from numpy.typing import NDArray

from keyassay.bulk.journal import Journal
from keyassay.bulk.results import Outcome, Result, StepReport
from keyassay.certificates.decoding import signature_algorithms, subjects
from keyassay.certificates.fleet import IDENTITY, EarlierKeys, Fleet, NotRun, Work
from keyassay.certificates.item import Item, Kind
from keyassay.certificates.limits import DEFAULT_LIMITS, Limits
from keyassay.certificates.public_key import EcPublicKey, RsaPublicKey
from keyassay.findings import EcPrivateKey, Finding

_KINDS = {kind: number for number, kind in enumerate(Kind)}


@dataclass(slots=True)
class FleetColumns:
    """What a block of items contributes; positions count within the block.

    Attributes:
        count: items in the block.
        identities: as ``Fleet.identities``.
        rsa: positions and moduli of the RSA keys within the size limit.
        points: by curve name: positions and point octets.
        signed: by signature algorithm (dotted OID): positions.
        moduli_bytes: bytes that the moduli take.
    """

    count: int
    identities: NDArray[np.void]
    rsa: tuple[list[int], list[int]]
    points: dict[str, tuple[list[int], list[bytes]]]
    signed: dict[str, list[int]]
    moduli_bytes: int


def columns_of(items: Sequence[Item], limits: Limits = DEFAULT_LIMITS) -> FleetColumns:
    """The columns of a block of items."""
    import hashlib  # noqa: PLC0415  only runs with fleet checks need it

    identities = np.zeros(len(items), dtype=IDENTITY)
    spki: list[bytes] = []
    der: list[bytes] = []
    rsa_positions: list[int] = []
    moduli: list[int] = []
    points: dict[str, tuple[list[int], list[bytes]]] = {}
    signed: dict[str, list[int]] = {}
    total = 0
    for position, (item, algorithm) in enumerate(zip(items, signature_algorithms(items), strict=True)):
        key = item.key
        spki.append((item.spki_sha256 or b"")[:16])
        der.append((item.sha256 or b"")[:16])
        if algorithm:
            signed.setdefault(algorithm, []).append(position)
        elif item.kind is not Kind.CERTIFICATE and item.signed is not None:
            signed.setdefault(item.signed.signature_algorithm, []).append(position)
        if isinstance(key, RsaPublicKey):
            bits = key.modulus.bit_length()
            if 1 < bits <= limits.modulus_bits:
                rsa_positions.append(position)
                moduli.append(key.modulus)
                total += bits >> 3
        elif isinstance(key, EcPublicKey):
            positions, octets = points.setdefault(key.curve, ([], []))
            positions.append(position)
            octets.append(key.point)
    identities["spki"] = spki
    identities["subject"] = [hashlib.sha256(name).digest()[:16] if name else b"" for name in subjects(items)]
    identities["der"] = der
    identities["kind"] = [_KINDS[item.kind] for item in items]
    return FleetColumns(len(items), identities, (rsa_positions, moduli), points, signed, total)


class Spool:
    """Blocks of results in order: the first ones stay in memory, the others wait in an unnamed temporary file."""

    def __init__(self, resident_bytes: int = 96 << 20) -> None:
        self._budget = resident_bytes
        self._resident: list[list[Result]] = []
        self._file: IO[bytes] | None = None
        self._places: list[tuple[int, int]] = []
        self._recent: OrderedDict[int, list[Result]] = OrderedDict()

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self._resident) + len(self._places)

    def append(self, results: list[Result]) -> None:
        """Add a block."""
        # An item in memory takes about three times its DER: key, digests, offsets.
        size = sum(1_000 + 3 * len(one.item.der or b"") for one in results)
        if self._file is None and size <= self._budget:
            self._budget -= size
            self._resident.append(results)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="keyassay-")  # noqa: SIM115  lives as long as the spool
        data = pickle.dumps(results, protocol=pickle.HIGHEST_PROTOCOL)
        self._file.seek(0, 2)
        self._places.append((self._file.tell(), len(data)))
        self._file.write(data)

    def block(self, number: int) -> list[Result]:
        """A block by number; the last few that came from disk are kept."""
        if number < len(self._resident):
            return self._resident[number]
        if number in self._recent:
            self._recent.move_to_end(number)
            return self._recent[number]
        assert self._file is not None
        start, size = self._places[number - len(self._resident)]
        self._file.seek(start)
        # The file has no name and was written by this process alone.
        results: list[Result] = pickle.loads(self._file.read(size))  # noqa: S301
        self._recent[number] = results
        if len(self._recent) > 3:
            self._recent.popitem(last=False)
        return results

    def close(self) -> None:
        """Give disk and memory back."""
        if self._file is not None:
            self._file.close()
        self._resident.clear()
        self._recent.clear()


class _Members(Sequence[Sequence[int]]):
    """For each distinct number the ordinals that have it, kept as two arrays instead of a list of lists."""

    def __init__(self, which: array[int], ordinals: array[int], count: int) -> None:
        numbers = np.frombuffer(which, dtype=np.int64) if which else np.empty(0, np.int64)
        order = np.argsort(numbers, kind="stable")
        self._ordinals = (np.frombuffer(ordinals, dtype=np.int64) if ordinals else np.empty(0, np.int64))[order]
        self._starts = np.searchsorted(numbers[order], np.arange(count + 1))

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> Sequence[int]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sequence[int]]: ...
    def __getitem__(self, index: int | slice) -> Sequence[int] | Sequence[Sequence[int]]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        found: list[int] = self._ordinals[self._starts[index] : self._starts[index + 1]].tolist()
        return found


class RunFleet(Fleet):
    """The fleet of one run, growing block by block."""

    def __init__(
        self,
        memory: int,
        threads: int = 1,
        progress: Callable[[str, float], None] | None = None,
        spool: Spool | None = None,
        earlier: EarlierKeys | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._limit = memory
        self.memory = memory
        self.threads = threads
        self.earlier = earlier
        self._journal = journal
        self.keeps_work = journal is not None
        self.spool = spool or Spool()
        self.notes: list[NotRun] = []
        self.overflow = False
        self._progress = progress
        self._starts: list[int] = []
        self._count = 0
        self._identities: list[NDArray[np.void]] = []
        self._numbers: dict[int, int] = {}
        self._moduli: list[int] = []
        self._which = array("q")
        self._rsa_ordinals = array("q")
        self._points: dict[str, tuple[array[int], list[bytes]]] = {}
        self._signed: dict[str, array[int]] = {}
        self._private_keys: dict[int, int] = {}
        self._bytes = 0
        self._members: _Members | None = None

    def add(self, columns: FleetColumns, results: list[Result]) -> None:
        """Take the next block."""
        start = self._count
        self._starts.append(start)
        self._count += columns.count
        self.spool.append(results)
        if self.overflow:
            return
        self._members = None
        self._identities.append(columns.identities)
        for position, modulus in zip(*columns.rsa, strict=True):
            number = self._numbers.setdefault(modulus, len(self._moduli))
            if number == len(self._moduli):
                self._moduli.append(modulus)
            self._which.append(number)
            self._rsa_ordinals.append(start + position)
        for curve, (positions, octets) in columns.points.items():
            ordinals, kept = self._points.setdefault(curve, (array("q"), []))
            ordinals.extend(start + position for position in positions)
            kept.extend(octets)
            self._bytes += sum(map(len, octets)) + 50 * len(octets)
        for oid, positions in columns.signed.items():
            self._signed.setdefault(oid, array("q")).extend(start + position for position in positions)
        for position, result in enumerate(results):
            if result.findings:
                self.learn(start + position, result.findings)
        # 49 bytes of identity, and per modulus the integer, its place in a dictionary and two ordinals
        self._bytes += 49 * columns.count + columns.moduli_bytes + 160 * len(columns.rsa[1])
        self.memory = self._limit - self._bytes
        if self.memory < 0:
            self._forget()

    def learn(self, ordinal: int, findings: Iterable[Finding]) -> None:
        """Remember the private key that findings on an item prove."""
        for finding in findings:
            if isinstance(finding.evidence, EcPrivateKey) and ordinal not in self._private_keys:
                self._private_keys[ordinal] = int(finding.evidence.d)
                self._bytes += 200  # the number, its ordinal, their place in a dictionary

    def _forget(self) -> None:
        """The columns alone no longer fit: give them up and say so, rather than take memory without bound."""
        self.overflow = True
        self._identities.clear()
        self._numbers.clear()
        self._moduli.clear()
        self._points.clear()
        self._signed.clear()
        self._private_keys.clear()
        self._which = array("q")
        self._rsa_ordinals = array("q")

    def start_of(self, block: int) -> int:
        """Ordinal of the first item of a block."""
        return self._starts[block]

    @property
    def bytes_needed(self) -> int:
        """Bytes that the columns took (or had taken when they were given up)."""
        return self._bytes

    def __len__(self) -> int:
        return self._count

    def item(self, ordinal: int) -> Item:
        block = bisect_right(self._starts, ordinal) - 1
        return self.spool.block(block)[ordinal - self._starts[block]].item

    def items(self, ordinals: Iterable[int]) -> Iterator[Item]:
        for block, members in groupby(ordinals, key=lambda one: bisect_right(self._starts, one) - 1):
            results = self.spool.block(block)
            for ordinal in members:
                yield results[ordinal - self._starts[block]].item

    @property
    def rsa_moduli(self) -> Sequence[int]:
        return self._moduli

    @property
    def rsa_ordinals(self) -> Sequence[Sequence[int]]:
        if self._members is None:
            # copies, since the arrays may grow later and numpy would hold on to their buffers
            self._members = _Members(array("q", self._which), array("q", self._rsa_ordinals), len(self._moduli))
        return self._members

    @property
    def identities(self) -> NDArray[np.void]:
        if len(self._identities) != 1:
            joined = np.concatenate(self._identities) if self._identities else np.zeros(0, dtype=IDENTITY)
            self._identities = [joined]
        return self._identities[0]

    @property
    def points(self) -> dict[str, tuple[NDArray[np.int64], list[bytes]]]:
        return {
            curve: (np.array(ordinals, dtype=np.int64), octets) for curve, (ordinals, octets) in self._points.items()
        }

    @property
    def signed_ordinals(self) -> dict[str, NDArray[np.int64]]:
        return {oid: np.array(ordinals, dtype=np.int64) for oid, ordinals in self._signed.items()}

    @property
    def private_keys(self) -> Mapping[int, int]:
        return MappingProxyType(self._private_keys)

    def earlier_work(self, check: str, step: str, what: bytes) -> Work:
        before = self._journal.earlier(what).get((check, step)) if self._journal else None
        return Work() if before is None else Work(before.units, before.done)

    def note_work(self, check: str, step: str, what: bytes, work: Work) -> None:
        if self._journal is None:
            return
        report = StepReport(check, step, Outcome.DONE if work.done else Outcome.PARTLY, "", 0.0, work.units)
        try:
            self._journal.note(what, self._journal.earlier(what), [report])
        except OSError as error:
            self.not_run("--against", f"deep steps are no longer stored: {error.strerror}")
            self._journal = None

    def not_run(self, check: str, reason: str) -> None:
        self.notes.append(NotRun(check, reason))

    def progress(self, check: str) -> Callable[[float], None]:
        if self._progress is None:
            return lambda _share: None
        report = self._progress
        return lambda share: report(check, share)


def fleet_of(
    items: Sequence[Item],
    memory: int = 4 << 30,
    threads: int = 1,
    findings: Mapping[int, Sequence[Finding]] | None = None,
) -> RunFleet:
    """A fleet of items in memory, with what checks of keys have found on them, by position."""
    fleet = RunFleet(memory, threads)
    known = findings or {}
    fleet.add(columns_of(items), [Result(item, tuple(known.get(position, ()))) for position, item in enumerate(items)])
    return fleet
