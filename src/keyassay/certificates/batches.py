"""Many keys of one type and one size, with the columns that several checks share, each made once.

An RSA batch holds moduli of equal bit length, an EC batch keys of one curve. Checks ask for columns
(``isqrt``, ``residues``, ...) and pay only for the first asking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

import gmpy2
import numpy as np
from numpy.typing import NDArray

from keyassay.certificates.public_key import (
    DsaPublicKey,
    EcPublicKey,
    OkpPublicKey,
    PublicKey,
    RsaPublicKey,
    UnsupportedPublicKey,
    bare_number,
)
from keyassay.keymath import arrays, curves

K = TypeVar("K", bound="RsaPublicKey | EcPublicKey | OkpPublicKey | DsaPublicKey")
T = TypeVar("T")


class KeyBatch(Generic[K]):
    """Keys of one type; ``keys`` in row order.

    Attributes:
        keys: the keys.
        spki_sha256: digests of the subject public key infos if the caller has them, else None.
    """

    def __init__(self, keys: Sequence[K]) -> None:
        """Keep the keys; columns are made on demand."""
        self.keys = keys
        self._columns: dict[Any, Any] = {}

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.keys)

    def key(self, row: int) -> K:
        """The key in that row."""
        return self.keys[row]

    def column(self, name: Any, make: Callable[[], T]) -> T:
        """A column that several checks share: made at the first asking, under a name that says what it is."""
        try:
            return self._columns[name]  # type: ignore[no-any-return]
        except KeyError:
            made = self._columns[name] = make()
            return made

    @cached_property
    def sha256_prefixes(self) -> NDArray[np.uint64]:
        """First 8 bytes, as big-endian numbers, of SHA-256 of what each key is recognised by (``bare_number``)."""
        joined = b"".join([hashlib.sha256(bare_number(key)).digest()[:8] for key in self.keys])
        return np.frombuffer(joined, dtype=">u8").astype(np.uint64)


class RsaBatch(KeyBatch[RsaPublicKey]):
    """RSA keys whose moduli all have ``bits`` bits (1 or more)."""

    def __init__(self, keys: Sequence[RsaPublicKey]) -> None:
        """Take keys of one modulus length; the caller groups (``group_keys``)."""
        super().__init__(keys)
        self.bits = keys[0].modulus.bit_length() if keys else 0

    @cached_property
    def moduli(self) -> list[gmpy2.mpz]:
        """The moduli as gmpy2 integers."""
        number = gmpy2.mpz
        return [number(key.modulus) for key in self.keys]

    @cached_property
    def matrix(self) -> NDArray[np.uint8]:
        """Moduli as little-endian bytes, shape (rows, bytes), bytes a multiple of 8 (zeros on top)."""
        return arrays.byte_matrix(self.moduli, (self.bits + 63) // 64 * 8)

    @cached_property
    def isqrt_scaled(self) -> list[gmpy2.mpz]:
        """isqrt(N << 128): the square root with 64 bits after the point."""
        return [gmpy2.isqrt(n << 128) for n in self.moduli]

    @cached_property
    def isqrt(self) -> list[gmpy2.mpz]:
        """Integer square roots of the moduli."""
        return [root >> 64 for root in self.isqrt_scaled]

    def residues(self, moduli: tuple[int, ...]) -> NDArray[np.int64]:
        """N modulo each of a few small moduli (each below 2^20), shape (rows, len(moduli)); exact."""
        return self.column(("residues", moduli), lambda: arrays.residues(self.matrix, moduli))


class EcBatch(KeyBatch[EcPublicKey]):
    """Elliptic curve keys of one curve name ("explicit" ones together)."""

    def __init__(self, keys: Sequence[EcPublicKey]) -> None:
        """Take keys of one curve; the caller groups (``group_keys``)."""
        super().__init__(keys)
        self.curve = keys[0].curve if keys else ""

    @cached_property
    def points(self) -> list[tuple[gmpy2.mpz, gmpy2.mpz] | None]:
        """Coordinates of uncompressed points that lie on a named curve over a prime field, None in all other rows."""
        curve = curves.named_curve(self.curve)
        if curve is None:
            return [None] * len(self.keys)
        return curves.sound_points(curve, [key.point for key in self.keys])

    @cached_property
    def sha256_prefixes(self) -> NDArray[np.uint64]:
        """As in all batches: of the x coordinates, padded as in the key."""
        sha256 = hashlib.sha256
        numbers = [
            key.point[1 : 1 + len(key.point) // 2] if key.point[:1] == b"\x04" else bare_number(key)
            for key in self.keys
        ]
        joined = b"".join([sha256(number).digest()[:8] for number in numbers])
        return np.frombuffer(joined, dtype=">u8").astype(np.uint64)


class OkpBatch(KeyBatch[OkpPublicKey]):
    """Edwards or Montgomery keys of one type."""


class DsaBatch(KeyBatch[DsaPublicKey]):
    """DSA keys."""


def group_keys(keys: Iterable[PublicKey | None]) -> list[tuple[KeyBatch[Any], NDArray[np.intp]]]:
    """Group keys into batches of one type and size.

    Args:
        keys: keys in item order; None and unsupported ones are left out.

    Returns:
        (batch, positions of its rows in ``keys``), in order of first appearance.
    """
    keys = list(keys)
    if set(map(type, keys)) == {EcPublicKey} and len({key.curve for key in keys}) == 1:  # type: ignore[union-attr]
        return [(EcBatch(keys), np.arange(len(keys)))]  # type: ignore[arg-type]
    groups: dict[tuple[str, Any], tuple[list[Any], list[int]]] = {}
    for position, key in enumerate(keys):
        if key is None or isinstance(key, UnsupportedPublicKey):
            continue
        size: Any = None
        if isinstance(key, RsaPublicKey):
            size = key.modulus.bit_length()
        elif isinstance(key, EcPublicKey):
            size = key.curve
        members = groups.setdefault((key.type, size), ([], []))
        members[0].append(key)
        members[1].append(position)
    shapes: dict[str, type[KeyBatch[Any]]] = {"rsa": RsaBatch, "ec": EcBatch, "dsa": DsaBatch}
    return [
        (shapes.get(kind, OkpBatch)(members), np.array(positions, dtype=np.intp))
        for (kind, _), (members, positions) in groups.items()
    ]
