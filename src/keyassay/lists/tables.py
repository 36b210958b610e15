"""Tables of small multiples of curve points, kept in the user's cache folder with a digest, in memory if it is closed.

A table says which points it holds by its name and size alone; a file that does not match its digest is made again.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keyassay.keymath.curves import StepTable, multiply, named_curves, step_table
from keyassay.lists.lookup import cache_folder, write_atomically

#: tables of this many entries or more are worth a file (30 ms and more to make)
_KEEP = 1 << 14


def _path(curve: str, size: int, multiplier: int) -> Path:
    name = hashlib.sha256(f"{curve} {multiplier} {size} 1".encode()).hexdigest()[:16]
    return cache_folder() / "tables" / f"steps-{curve}-{name}.bin"


def is_kept(curve: str, size: int, multiplier: int = 1) -> bool:
    """Whether such a table of ``steps`` has been made by an earlier run."""
    return size >= _KEEP and _path(curve, size, multiplier).exists()


@cache
def steps(curve: str, size: int, multiplier: int = 1) -> StepTable:
    """Multiples of ``multiplier`` times the base point.

    Args:
        curve: name of a curve over a prime field.
        size: least number of multiples.
        multiplier: of the base point.
    """
    found = named_curves()[curve]
    base = found.base if multiplier == 1 else multiply(found, multiplier, found.base)
    assert base is not None
    if size < _KEEP:
        return step_table(found, base, size)
    path = _path(curve, size, multiplier)
    try:
        with path.open("rb") as file:
            body = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        digest, body = body[:32], body[32:]
        if hashlib.sha256(body).digest() == digest:
            count, reach = np.frombuffer(body, dtype="<u8", count=2).tolist()
            tails = np.frombuffer(body, dtype="<u8", count=count, offset=16)
            indices = np.frombuffer(body, dtype="<u4", count=count, offset=16 + 8 * count)
            return StepTable(tails, indices, reach)
    except (OSError, ValueError):
        pass
    made = step_table(found, base, size)
    fresh = np.array([len(made.tails), made.size], dtype="<u8").tobytes()
    fresh += made.tails.astype("<u8").tobytes() + made.indices.astype("<u4").tobytes()
    with suppress(OSError):  # a closed cache folder costs time, not answers
        write_atomically(path, hashlib.sha256(fresh).digest() + fresh)
    return made


def kept(name: str, described: str, make: Callable[[], NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """A column of 64-bit numbers from the cache folder, made and put there if it is missing or damaged.

    Args:
        name: for people who look into the folder.
        described: a digest of all that the column depends on.
        make: makes it.
    """
    path = cache_folder() / "tables" / f"{name}-{hashlib.sha256(f'{described} 1'.encode()).hexdigest()[:16]}.bin"
    with suppress(OSError, ValueError):
        data = path.read_bytes()
        if len(data) > 32 and hashlib.sha256(data[32:]).digest() == data[:32]:
            return np.frombuffer(data, dtype="<u8", offset=32).astype(np.uint64)
    made = make()
    body = made.astype("<u8").tobytes()
    with suppress(OSError):
        write_atomically(path, hashlib.sha256(body).digest() + body)
    return made
