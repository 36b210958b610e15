"""The whole run as compact columns, for checks that compare items with each other.

Columns grow while the run streams by; whole items stay on disk and come back one at a time through ``item``.
Ordinals count all items of the run from 0, in input order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keyassay.certificates.item import Item


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


class Fleet(ABC):
    """What fleet checks see. ``bulk`` fills it; tests make one from items with ``bulk.fleet.fleet_of``."""

    #: bytes of memory that fleet checks may use
    memory: int
    #: threads that fleet checks may use
    threads: int

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
        """One row per item: fields spki (S16), subject (S16), der (S16), kind (u1).

        spki, subject and der are the first 16 bytes of SHA-256 of the subject public key info, the subject's
        DER Name and the whole DER; zero bytes where there is none. ``kind`` is the position in ``item.Kind``.
        """

    @property
    @abstractmethod
    def points(self) -> dict[str, tuple[NDArray[np.int64], list[bytes]]]:
        """By curve name: ordinals, and the octets of the points as they came (duplicates included)."""

    @property
    @abstractmethod
    def signed_ordinals(self) -> dict[str, NDArray[np.int64]]:
        """By dotted OID of the signature algorithm: ordinals of the signed items (certificates, requests, ...)."""

    @abstractmethod
    def not_run(self, check: str, reason: str) -> None:
        """Record that a check left something out."""

    @abstractmethod
    def progress(self, check: str) -> Callable[[float], None]:
        """A callback that takes the share done, 0 to 1."""
