"""The certificates whose keys are compared with each other: those of an account, or of all accounts of the server.

A scope is an account's id, or ``SERVER``. In the scope of the server a certificate counts once for each account that
has it, and its place ("ACCOUNT certificate ID") says whose it is.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Table, select

from keyassay.bulk.fleet import RunFleet, Spool, columns_of
from keyassay.bulk.results import Result
from keyassay.bulk.store import Store
from keyassay.certificates.decoding import decode
from keyassay.certificates.item import Item, RawItem
from keyassay.errors import KeyassayError
from keyassay.keymath.batch_gcd import memory_needed
from keyassay.storage import schema
from keyassay.storage.database import Database, rows_in_chunks

#: the scope of all accounts
SERVER = "server"

#: where an account's keys are, with what such a certificate is called in messages
TABLES: tuple[tuple[Table, str], ...] = (
    (schema.former_certificates, "former certificate"),
    (schema.authorities, "CA certificate"),
    (schema.issuers, "issuing CA certificate"),
    (schema.certificates, "certificate"),
)
_IDS, _ROWS = 10_000, 500
#: bytes up to which new certificates are compared at once: some 200,000 of RSA-2048
PIECE = 3_200_000_000
_PLACE = re.compile(r"(?:([0-9]{12}) )?((?:CA |former |issuing CA )?certificate) ([0-9a-f]{64})(?:#0)?")


class SearchError(KeyassayError):
    """The keys could not be compared; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key of the pool is.

    Attributes:
        account_id: whose, "" in the scope of an account.
        called: "certificate", "CA certificate", "former certificate"; the account's own is an "issuing CA certificate".
        certificate_id: 64 hexadecimal digits.
    """

    account_id: str
    called: str
    certificate_id: str


def places_in(text: str) -> list[Place]:
    """The places that a text names."""
    return [Place(*found) for found in _PLACE.findall(text)]


def without_numbers(text: str) -> str:
    """A text whose places have lost the engine's "#0": there is one certificate at each."""
    return _PLACE.sub(lambda found: found[0].removesuffix("#0"), text)


def _mask(scope: str, account_id: str) -> NDArray[np.uint8]:
    """What turns a certificate's id into its mark: nothing in an account, something of each account's in the server."""
    octets = hashlib.sha256(account_id.encode()).digest() if scope == SERVER else bytes(32)
    return np.frombuffer(octets, dtype=np.uint8)


def _marks(scope: str, account_id: str, ids: Sequence[str]) -> NDArray[np.uint8]:
    """Marks of certificates, 32 octets each: the id, but another one in each account that has the certificate."""
    octets = np.frombuffer(b"".join(map(bytes.fromhex, ids)), dtype=np.uint8).reshape(-1, 32)
    return octets ^ _mask(scope, account_id)


def _halves(marks: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """The first 16 octets of marks, as a store's ``identities`` have them."""
    return np.ascontiguousarray(marks[:, :16]).view("S16").reshape(-1)


def _accounts(connection: Connection, scope: str) -> Sequence[str]:
    if scope != SERVER:
        return [scope]
    return connection.execute(select(schema.accounts.c.id).order_by(schema.accounts.c.id)).scalars().all()


def _pages(connection: Connection, scope: str) -> Iterator[tuple[str, Table, str, Sequence[str]]]:
    """Ids of all certificates: (account, table, what they are called, ids)."""
    for account_id in _accounts(connection, scope):
        for table, called in TABLES:
            after = ""
            while True:
                query = select(table.c.id).where(table.c.account_id == account_id, table.c.id > after)
                ids = connection.execute(query.order_by(table.c.id).limit(_IDS)).scalars().all()
                if not ids:
                    break
                after = ids[-1]
                yield account_id, table, called, ids


def _lacking(known: NDArray[np.bytes_], wanted: NDArray[np.bytes_]) -> list[int]:
    """Rows of ``wanted`` that are not in ``known``, which is sorted."""
    if not len(known):
        return list(range(len(wanted)))
    places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    found: list[int] = np.flatnonzero(known[places] != wanted).tolist()
    return found


def _known(store: Store | None) -> NDArray[np.bytes_]:
    return np.zeros(0, dtype="S16") if store is None or not len(store) else np.unique(store.identities["der"])


def _digest(marks: list[NDArray[np.bytes_]]) -> str:
    """What names a set of certificates, whatever tables they are in."""
    joined = np.unique(np.concatenate(marks)) if marks else np.zeros(0, dtype="S16")
    return hashlib.sha256(joined.tobytes()).hexdigest()


def look(connection: Connection, scope: str, store: Store) -> tuple[bool, str]:
    """Whether there are certificates that a store lacks, and what names the set of all."""
    known = _known(store)
    marks: list[NDArray[np.bytes_]] = []
    lacking = False
    for account_id, _, _, ids in _pages(connection, scope):
        marks.append(_halves(_marks(scope, account_id, ids)))
        lacking = lacking or bool(_lacking(known, marks[-1]))
    return lacking, _digest(marks)


class Pool:
    """Certificates read into a fleet.

    Args:
        database: where.
        scope: whose.
        memory: bytes that comparing may take; 0 for half of the machine's.
        earlier: the fleet's keys of earlier runs.
        new_only: leave out what ``earlier`` has, and end where the search for shared primes would take more than
            ``PIECE`` (or the memory): the rest is new beside these when they are in the store.

    Attributes:
        complete: whether nothing was left for later.
        fleet: the certificates; their sources are places.
        digests: SHA-256 of the subject public key infos, by ordinal.
        owners: accounts, by ordinal.

    Raises:
        SearchError: they do not fit into the memory.
    """

    def __init__(
        self, database: Database, scope: str, memory: int, earlier: Store | None = None, *, new_only: bool = False
    ) -> None:
        self.scope = scope
        self.fleet = RunFleet(memory or _half_of_memory(), threads=os.cpu_count() or 1, spool=Spool(), earlier=earlier)
        self.digests: list[bytes] = []
        self.owners: list[str] = []
        self._marks: list[NDArray[np.bytes_]] = []
        self._moduli_bytes = 0
        with ExitStack() as ending:
            ending.callback(self.close)
            most = min(PIECE, self.fleet.memory * 9 // 10) if new_only else None
            with database.read() as connection:
                self.complete = self._read(connection, _known(earlier if new_only else None), most)
            if self.fleet.overflow:
                needed = f"{self.fleet.bytes_needed / 1e9:.1f} GB"
                raise SearchError(f"{len(self.fleet):,} certificates need more than {needed} of memory")
            ending.pop_all()

    def _read(self, connection: Connection, known: NDArray[np.bytes_], most: int | None) -> bool:
        """All certificates that are not known; false if it ended because they would take too much memory."""
        for account_id, table, called, ids in _pages(connection, self.scope):
            rows = _lacking(known, _halves(_marks(self.scope, account_id, ids)))
            for chunk in rows_in_chunks([ids[row] for row in rows], _ROWS):
                if most is not None and len(self) and self._needed() > most:
                    return False
                self._add(connection, account_id, table, called, chunk)
        return True

    def _needed(self) -> int:
        """Bytes that these certificates and the search for primes that they share with each other and others take."""
        moduli = len(self.fleet.rsa_moduli)
        return self.fleet.bytes_needed + memory_needed(moduli, 8 * self._moduli_bytes, others=True)

    def _add(self, connection: Connection, account_id: str, table: Table, called: str, ids: Sequence[str]) -> None:
        query = select(table.c.id, table.c.der, table.c.spki_digest)
        rows = connection.execute(query.where(table.c.account_id == account_id, table.c.id.in_(ids))).all()
        if not rows:
            return
        whose = f"{account_id} " if self.scope == SERVER else ""
        items = decode([RawItem(f"{whose}{called} {row.id}", 0, 0, "CERTIFICATE", bytes(row.der)) for row in rows])
        marks = _marks(self.scope, account_id, [row.id for row in rows])
        if self.scope == SERVER:  # the same certificate in two accounts is two rows of a store
            for item, mark in zip(items, marks, strict=True):
                item.sha256 = mark.tobytes()
        self._marks.append(_halves(marks))
        self.digests.extend(bytes(row.spki_digest) for row in rows)
        self.owners.extend([account_id] * len(rows))
        columns = columns_of(items)
        self._moduli_bytes += columns.moduli_bytes
        self.fleet.add(columns, [Result(item) for item in items])

    def __len__(self) -> int:
        """Number of certificates."""
        return len(self.fleet)

    @property
    def digest(self) -> str:
        """What names the set of these certificates, as ``look``'s."""
        return _digest(self._marks)

    def items(self, ordinals: Iterable[int]) -> Iterator[Item]:
        """Items of rising ordinals."""
        return self.fleet.items(ordinals)

    def close(self) -> None:
        """Give disk and memory back."""
        self.fleet.spool.close()


def certificate(connection: Connection, account_id: str, certificate_id: str) -> tuple[bytes, Item] | None:
    """Digest of the key, and item, of a certificate that an account has or had."""
    for table, called in TABLES:
        query = select(table.c.der, table.c.spki_digest)
        row = connection.execute(query.where(table.c.account_id == account_id, table.c.id == certificate_id)).first()
        if row is not None:
            (item,) = decode([RawItem(f"{called} {certificate_id}", 0, 0, "CERTIFICATE", bytes(row.der))])
            return bytes(row.spki_digest), item
    return None


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
