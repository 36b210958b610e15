"""The whole run as compact columns, for checks that compare items with each other.

Columns grow while the run streams by; whole items stay on disk and come back one at a time through ``item``.
Ordinals count all items of the run from 0, in input order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import gmpy2
import numpy as np
from numpy.typing import NDArray

from keyassay.certificates.item import Item
from keyassay.keymath.batch_gcd import CommonFactors, Others, common_factors, memory_needed

#: Batch GCD tells factors below this apart from shared primes, for the check of small factors.
SMALL_FACTORS = 1 << 20

#: One row per item: the first 16 bytes of SHA-256 of subject public key info, subject and DER; position in ``Kind``.
IDENTITY = np.dtype([("spki", "S16"), ("subject", "S16"), ("der", "S16"), ("kind", "u1")])


@dataclass(frozen=True, slots=True)
class NotRun:
    """A check that could not do its work, and why: shown in the summary, never silent."""

    check: str
    reason: str


@dataclass(frozen=True, slots=True)
class Earlier:
    """Where an item of an earlier run came from (``--against``)."""

    source: str
    index: int
    sha256: bytes | None


@dataclass(frozen=True, slots=True)
class Work:
    """How far a check has come on something in earlier runs.

    Attributes:
        units: that are done.
        done: they are all.
    """

    units: int = 0
    done: bool = False


class EarlierKeys(ABC):
    """The keys of earlier runs, as far as fleet checks compare with them. ``bulk.store`` keeps them."""

    @property
    @abstractmethod
    def identities(self) -> NDArray[np.void]:
        """One row per item of the earlier runs, as ``Fleet.identities``."""

    @abstractmethod
    def place(self, row: int) -> Earlier:
        """Where the item in that row came from."""

    @abstractmethod
    def moduli_besides(self, moduli: Sequence[int]) -> Others | None:
        """The RSA moduli of earlier runs without those given; None if there are none."""

    @abstractmethod
    def holder(self, modulus: int) -> Earlier:
        """Where the first item with this modulus came from.

        Raises:
            KeyError: no earlier run had it.
        """


class Fleet(ABC):
    """What fleet checks see. ``bulk`` fills it; tests make one from items with ``bulk.fleet.fleet_of``."""

    #: bytes of memory that fleet checks may use
    memory: int
    #: threads that fleet checks may use
    threads: int
    #: keys of earlier runs, or None
    earlier: EarlierKeys | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Number of items in the run."""

    @abstractmethod
    def item(self, ordinal: int) -> Item:
        """The item, read back from where it waits (tens of microseconds)."""

    @abstractmethod
    def items(self, ordinals: Iterable[int]) -> Iterable[Item]:
        """Several items, cheaper than one by one when ordinals rise."""

    @property
    @abstractmethod
    def rsa_moduli(self) -> Sequence[int]:
        """Distinct RSA moduli within the size limit, in order of first appearance."""

    @property
    @abstractmethod
    def rsa_ordinals(self) -> Sequence[Sequence[int]]:
        """For each distinct modulus the ordinals of the items that have it (rising)."""

    @property
    @abstractmethod
    def identities(self) -> NDArray[np.void]:
        """One row per item, of type ``IDENTITY``: spki, subject (of its DER Name), der, kind.

        Zero bytes where there is none. ``kind`` is the position in ``item.Kind``.
        """

    @property
    @abstractmethod
    def points(self) -> dict[str, tuple[NDArray[np.int64], list[bytes]]]:
        """By curve name: ordinals, and the octets of the points as they came (duplicates included)."""

    @property
    @abstractmethod
    def signed_ordinals(self) -> dict[str, NDArray[np.int64]]:
        """By dotted OID of the signature algorithm: ordinals of the signed items (certificates, requests, ...)."""

    @property
    @abstractmethod
    def private_keys(self) -> Mapping[int, int]:
        """By ordinal: private numbers d of elliptic curve keys that other checks of this run have found and proven."""

    @cached_property
    def common_factors(self) -> CommonFactors | None:
        """Batch GCD of ``rsa_moduli``, of earlier runs' moduli and of all primes below ``SMALL_FACTORS``.

        Made at the first asking, for every check that can use it; indices count in ``rsa_moduli``. None if it would
        take more than ``memory``: fleet-shared-prime is then recorded as not run.
        """
        moduli = self.rsa_moduli
        others = None if self.earlier is None or not moduli else self.earlier.moduli_besides(moduli)
        bits = sum(modulus.bit_length() for modulus in moduli)
        needed = memory_needed(len(moduli), bits, others=others is not None)
        if needed > self.memory:
            gigabytes = f"{needed / 1e9:.1f} GB"
            self.not_run("fleet-shared-prime", f"not run: {len(moduli):,} moduli, needs {gigabytes}; raise --memory")
            return None
        return common_factors(
            moduli,
            extra=[gmpy2.primorial(SMALL_FACTORS - 1)],
            others=others,
            threads=self.threads,
            progress=self.progress("fleet-shared-prime"),
        )

    #: whether work is noted for later runs
    keeps_work: bool = False

    def earlier_work(self, check: str, step: str, what: bytes) -> Work:  # noqa: ARG002  where nothing is kept
        """What earlier runs with the same store have done.

        Args:
            check: id of the check; what another version of it did does not count.
            step: what it does.
            what: 16 bytes of a digest of all that the work depends on.
        """
        return Work()

    def note_work(self, check: str, step: str, what: bytes, work: Work) -> None:  # noqa: B027  nothing need be kept
        """Keep it for later runs, if there is a store."""

    @abstractmethod
    def not_run(self, check: str, reason: str) -> None:
        """Record that a check left something out."""

    @abstractmethod
    def progress(self, check: str) -> Callable[[float], None]:
        """A callback that takes the share done, 0 to 1."""
