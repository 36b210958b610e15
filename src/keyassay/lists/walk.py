"""Decides for RSA moduli of any size whether Debian's predictable OpenSSL made them: the walk, without a list.

A stream's candidates for primes can be read without one test of primality, as if all were composite: up to the first
prime that reading is right, and that prime divides the modulus if the key is weak. So every candidate r of every stream
is tried as a divisor r + delta with an unknown even delta below 4,096, by one division and a few array operations.
All streams go a first part of the way, then a second, so that most weak keys show up early. What was done lies in a
folder, one file for 8,192 streams, written whole or not at all: a walk that was stopped goes on.

"Not found" is a statement with a probability: see ``missed``.
"""

from __future__ import annotations

import hashlib
import io
import math
import operator
import signal
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import gmpy2
import numpy as np
from numpy.typing import NDArray

from keyassay.errors import KeyassayError
from keyassay.lists import lookup
from keyassay.lists.debian import sizes
from keyassay.lists.format import BLOCK, STREAM_MASK, number_digest
from keyassay.lists.recipes.debian_openssl import (
    ARCHS,
    PIDS,
    STATES,
    Draws,
    RsaKey,
    Stream,
    candidate,
    delta_search,
    rounds,
    rsa_key_from_hints,
)
from keyassay.lists.recipes.lockstep import MOST_BYTES, Lockstep

#: sizes of moduli that can be walked for; smaller ones are factored faster
LEAST_BITS = 256
MOST_BITS = 2 * 8 * MOST_BYTES
#: how far: in mean distances between primes
DEPTH = 10.0
#: how far the second prime is looked for
_FURTHEST = 30.0
#: where the rounds of a walk end
_ROUNDS = (1.0, 2.0, 4.0)
#: a candidate that has passed the search for delta is prime with probability 25.2 / bits
_DENSITY = 25.2
#: draws a candidate takes: its own, and on average 4 ln(4/3) until one is below it
_DRAWS_A_CANDIDATE = 1 + 4 * math.log(4 / 3)
#: streams of one file: two blocks of a list
PART = 2 * BLOCK
_FORMAT = "1"

#: deltas that are tried: even ones below this; the search goes further for 2 candidates in 10^8
_DELTA_LIMIT = 4_096
#: both fractions are off by less than 2^-50, so that 683 steps of one are exact but for rounding to 2^-32
_NEAR = 512
_ROWS = 128
#: from that many moduli on, delta is found first and all of them are divided at once
_MANY = 64
#: leading bytes of candidates and witnesses that are compared; equal ones are compared whole
_LEADING = 8


def missed(depth: float) -> float:
    """Probability that the first prime of a stream lies beyond that depth, which is how a weak key can be missed."""
    return math.exp(-depth)


def prime_bits(bits: int) -> int:
    """Size of the first prime of a key: moduli that agree in it share one walk."""
    return (bits + 1) // 2


def possible(modulus: int) -> bool:
    """Whether a modulus can be a key of these streams at all; half of all sound keys cannot, which is exact.

    Both primes have two leading ones, so N is at least 9/16 of a power of two, and neither p nor p - 1 is divisible by
    3, so N is 1 modulo 3.
    """
    return modulus % 6 == 1 and modulus >> (modulus.bit_length() - 4) >= 9


def draws_to(bits: int, depth: float) -> int:
    """Draws from a stream, on average, until that depth of candidates of ``bits`` bits."""
    return math.ceil(depth * bits / _DENSITY * _DRAWS_A_CANDIDATE)


class Divisors:
    """Finds out which of many candidates r lead to a prime r + delta that divides one of some moduli."""

    def __init__(self, moduli: Sequence[int], bits: int) -> None:
        """Prepare for moduli of 2 * bits or 2 * bits - 1 bits."""
        self.bits = bits
        self._moduli = [gmpy2.mpz(modulus) for modulus in moduli]
        self._product = gmpy2.mpz(math.prod(moduli))
        self._leading = [float(modulus >> (2 * bits - 106)) / 2.0**106 for modulus in moduli]
        self._steps = np.arange(_DELTA_LIMIT // 6 + 1, dtype=np.uint32)

    def find(self, rows: NDArray[np.uint8]) -> Iterator[tuple[int, int, int]]:
        """Try candidates.

        Args:
            rows: candidates, one a row, big-endian, both top bits and the lowest bit set.

        Yields:
            (row, index of the modulus, divisor): exact, and none that the reading of a stream gives is left out,
            but for one with a delta of 4,096 or more.
        """
        if not len(rows) or not self._moduli:
            return
        encoded = np.ones((len(rows), rows.shape[1] + 2), np.uint8)
        encoded[:, 2:] = rows[:, ::-1]
        # as gmpy2 keeps integers: two bytes of type and sign, then little-endian, the last one not zero
        numbers = list(map(gmpy2.from_binary, encoded.view(f"S{encoded.shape[1]}").reshape(-1).tolist()))
        if len(self._moduli) >= _MANY:
            yield from self._find_in_product(numbers)
        else:
            yield from self._find_by_fractions(rows, numbers)

    def _find_in_product(self, numbers: list[Any]) -> Iterator[tuple[int, int, int]]:
        """Delta by its definition, then the candidates' product and the moduli's product at once."""
        search = delta_search(self.bits)
        group = max(16, self._product.bit_length() // self.bits)
        rest = gmpy2.mpz(1)
        primes: list[Any] = []
        for at in range(0, len(numbers), 16):
            some = numbers[at : at + 16]
            primes.extend(r + delta for r, delta in zip(some, search([int(r) for r in some]), strict=True))
        for at in range(0, len(primes), group):
            rest = rest * _product(primes[at : at + group]) % self._product
        if gmpy2.gcd(rest, self._product) == 1:
            return
        for row, prime in enumerate(primes):
            if self._product % prime == 0:
                for which, modulus in enumerate(self._moduli):
                    if modulus % prime == 0:
                        yield row, which, int(prime)

    def _find_by_fractions(self, rows: NDArray[np.uint8], numbers: list[Any]) -> Iterator[tuple[int, int, int]]:
        """N / (r + delta) is N/r - delta N/r^2 and next to nothing, which has to be an integer.

        Delta is even and (r + delta) mod 3 neither 0 nor 1: every sixth number is tried, in fractions of 2^-32.
        """
        shift = self.bits - 53
        leading = np.fromiter(map(operator.rshift, numbers, repeat(shift)), np.float64, len(numbers))
        size = leading / 2.0**53  # r / 2^bits, at least 3/4
        first = (1 + rows.sum(axis=1, dtype=np.int64)) % 3  # of delta / 2; 256 is 1 modulo 3
        for which, modulus in enumerate(self._moduli):
            rests = map(operator.rshift, map(operator.mod, repeat(modulus, len(numbers)), numbers), repeat(shift))
            whole = np.fromiter(rests, np.float64, len(numbers)) / leading
            slope = 2 * self._leading[which] / (size * size)
            start = ((whole - first * slope) % 1.0 * 2.0**32).astype(np.uint64).astype(np.uint32) + np.uint32(_NEAR)
            step = (3 * slope % 1.0 * 2.0**32).round().astype(np.uint64).astype(np.uint32)
            for at in range(0, len(numbers), _ROWS):
                near = np.multiply.outer(step[at : at + _ROWS], self._steps)
                np.subtract(start[at : at + _ROWS, None], near, out=near)
                for row in np.flatnonzero(near.min(axis=1) < 2 * _NEAR).tolist():
                    for place in np.flatnonzero(near[row] < 2 * _NEAR).tolist():
                        divisor = numbers[at + row] + 2 * (int(first[at + row]) + 3 * place)
                        if modulus % divisor == 0:
                            yield at + row, which, int(divisor)


def _product(numbers: list[Any]) -> Any:
    while len(numbers) > 1:
        odd = numbers[-1:] if len(numbers) % 2 else []
        numbers = [a * b for a, b in zip(numbers[::2], numbers[1::2], strict=False)] + odd
    return numbers[0]


class Reading:
    """Streams read as if all of their candidates were composite: which block is a candidate, which a witness."""

    def __init__(self, arch: str, state: str, pids: range, bits: int) -> None:
        """Start, before the first block."""
        self.bits = bits
        self._arch, self._state, self._pids = arch, state, pids
        self.streams = Lockstep(arch, state, pids, (bits + 7) // 8)
        self._wanted = np.ones(len(pids), dtype=bool)
        self._leads = np.zeros(len(pids), dtype=np.uint64)
        self._read_at = np.zeros(len(pids), dtype=np.int64)
        bytes_above = 8 * self.streams.size - bits
        self._mask = np.uint64((1 << (8 * _LEADING - bytes_above)) - 1)

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """For ``restore``."""
        own = {"wanted": self._wanted, "leads": self._leads, "read_at": self._read_at}
        return {**self.streams.snapshot(), **own}

    def restore(self, saved: dict[str, NDArray[Any]]) -> None:
        """Go on from a snapshot of the same streams.

        Raises:
            ValueError, KeyError: it is none.
        """
        if any(saved[name].shape != self._wanted.shape for name in ("wanted", "leads", "read_at")):
            raise ValueError("a snapshot of other streams")
        self.streams.restore(saved)
        self._wanted, self._leads, self._read_at = saved["wanted"], saved["leads"], saved["read_at"]

    def candidates(self) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
        """Draw a block of each stream: (places of the streams that read it as a candidate, these candidates)."""
        blocks = self.streams.draw()
        block = self.streams.drawn - 1
        leads = np.zeros((len(blocks), 8), np.uint8)
        leads[:, 8 - _LEADING :] = blocks[:, :_LEADING]
        drawn = leads.view(">u8").reshape(-1).astype(np.uint64) & self._mask
        wanted = np.flatnonzero(self._wanted)
        accepted = drawn < self._leads
        for row in np.flatnonzero((drawn == self._leads) & ~self._wanted).tolist():
            accepted[row] = self._is_below(row, block)
        rows = blocks[wanted]
        top = (self.bits - 1) % 8
        rows[:, 0] &= (1 << (top + 1)) - 1
        if top:
            rows[:, 0] |= 3 << (top - 1)
        else:
            rows[:, 0] = 1
            rows[:, 1] |= 0x80
        rows[:, -1] |= 1
        leads = np.zeros((len(rows), 8), np.uint8)
        leads[:, 8 - _LEADING :] = rows[:, :_LEADING]
        self._leads[wanted] = leads.view(">u8").reshape(-1)
        self._read_at[wanted] = block
        accepted[wanted] = False
        self._wanted = accepted
        return wanted, rows

    def _is_below(self, row: int, block: int) -> bool:
        """Whether a witness is below p - 1, where the leading bytes do not tell."""
        draws = Draws(Stream(self._arch, self._state, self._pids[row]), self.streams.size)
        number = candidate(draws[int(self._read_at[row])], self.bits)
        witness = int.from_bytes(draws[block], "big") & ((1 << self.bits) - 1)
        return witness < number + delta_search(self.bits)([number])[0] - 1


@dataclass(frozen=True, slots=True)
class Part:
    """Streams that are walked together: up to 8,192 process ids of a platform and state."""

    arch: str
    state: str
    first: int
    count: int = PART


def parts(pids: range = range(PIDS)) -> tuple[Part, ...]:
    """All streams, likeliest platforms and states first."""
    return tuple(
        Part(arch, state, first, min(PART, pids.stop - first))
        for arch in ARCHS
        for state in STATES
        for first in range(pids.start, pids.stop, PART)
    )


def unlisted(bits: int, pids: range = range(PIDS)) -> tuple[Part, ...]:
    """The streams whose keys of that size no list has: all, none, or those of blocks that are missing."""
    kind = sizes().get(bits)
    listed = lookup.whole(kind) if kind else None
    if listed is None:
        return parts(pids)
    numbers = (listed.entries & np.uint64(STREAM_MASK)).astype(np.int64)
    there = set(np.unique(numbers // BLOCK).tolist())
    found: list[Part] = []
    for part in parts(pids):
        for first in range(part.first, part.first + part.count, BLOCK):
            if Stream(part.arch, part.state, first).number // BLOCK not in there:
                count = min(BLOCK, part.first + part.count - first)
                found.append(Part(part.arch, part.state, first, count))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Divisor:
    """A stream's candidate that divides a modulus: what a walk finds, not yet a key made again."""

    modulus: int
    stream: Stream
    block: int
    prime: int


@dataclass(frozen=True, slots=True)
class _Task:
    path: Path
    part: Part
    bits: int
    moduli: tuple[int, ...]
    draws: int
    last: bool


def _load(path: Path) -> dict[str, NDArray[Any]]:
    """What was written for a part; empty if there is nothing, or not all of it."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as saved:
            return dict(saved)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}


def _read_hits(saved: dict[str, NDArray[Any]]) -> list[tuple[int, int, int]]:
    """(process id, block, delta) of the candidates that divided a modulus."""
    return [(int(pid), int(block), int(delta)) for pid, block, delta in saved.get("hits", np.zeros((0, 3))).tolist()]


def _run(task: _Task) -> list[Divisor]:
    """Walk one part to its depth, from where it was left."""
    part = task.part
    saved = _load(task.path)
    hits: list[tuple[int, int, int]] = []
    done = int(saved["done"]) if "done" in saved else 0
    if done < task.draws:
        pids = range(part.first, part.first + part.count)
        reading = Reading(part.arch, part.state, pids, task.bits)
        if done:
            try:
                reading.restore(saved)
                hits = _read_hits(saved)
            except (ValueError, KeyError):  # the end of an earlier, shallower walk: once more from the start
                reading = Reading(part.arch, part.state, pids, task.bits)
        divisors = Divisors(task.moduli, task.bits)
        while reading.streams.drawn < task.draws:
            places, rows = reading.candidates()
            for row, _, prime in divisors.find(rows):
                number = int.from_bytes(rows[row].tobytes(), "big")
                hits.append((pids[int(places[row])], reading.streams.drawn - 1, prime - number))
        kept: dict[str, Any] = {} if task.last else reading.snapshot()
        data = io.BytesIO()
        np.savez(data, done=np.array(task.draws), hits=np.array(hits, dtype=np.int64).reshape(-1, 3), **kept)
        lookup.write_atomically(task.path, data.getvalue())
    else:
        hits = _read_hits(saved)
    return list(_divisors(task, hits))


def _divisors(task: _Task, hits: Iterable[tuple[int, int, int]]) -> Iterator[Divisor]:
    """Hits as they are in a file, made again from their streams: a file is not trusted."""
    size = (task.bits + 7) // 8
    for pid, block, delta in sorted(set(hits)):
        if not (task.part.first <= pid < task.part.first + task.part.count and 0 <= block < task.draws):
            continue
        stream = Stream(task.part.arch, task.part.state, pid)
        prime = candidate(Draws(stream, size)[block], task.bits) + delta
        for modulus in task.moduli:
            if 1 < prime < modulus and modulus % prime == 0:
                yield Divisor(modulus, stream, block, prime)


def key_of(divisor: Divisor) -> RsaKey | None:
    """The whole key that the stream makes, if it has this modulus: the other prime is looked for among the blocks.

    No exponent plays a part: both primes come from the stream, in this order.
    """
    bits = divisor.modulus.bit_length()
    other = divisor.modulus // divisor.prime
    small = bits - prime_bits(bits)
    draws, start = _draws_for_second(divisor.stream, bits, divisor.block, divisor.prime)
    for block in range(start, start + draws_to(small, _FURTHEST)):
        # a witness of p is no q, but cannot look like it either
        if 0 <= other - candidate(draws[block], small) < _DELTA_LIMIT:
            key = key_from_blocks(divisor.stream, bits, (divisor.block, block))
            return key if key.modulus == divisor.modulus else None
    return None


def _draws_for_second(stream: Stream, bits: int, block: int, prime: int) -> tuple[Draws, int]:
    """The blocks where the second prime of a key is, and where to begin: as ``odd_rsa_key`` counts them."""
    large = prime_bits(bits)
    size, other = (large + 7) // 8, (bits - large + 7) // 8
    draws = Draws(stream, size)
    if size == other:
        return draws, block + 1
    position, accepted = block + 1, 0
    while accepted < rounds(large):
        accepted += int.from_bytes(draws[position], "big") & ((1 << large) - 1) < prime - 1
        position += 1
    draws = Draws(stream, size)
    draws[position - 1]
    return draws.resize(position, other), 0


def key_from_blocks(stream: Stream, bits: int, blocks: tuple[int, int]) -> RsaKey:
    """``rsa_key_from_hints`` for odd sizes of moduli as well.

    Nothing is verified here: multiply and compare.
    """
    if bits % 2 == 0:
        return rsa_key_from_hints(stream, bits, blocks)
    large = prime_bits(bits)
    number = candidate(Draws(stream, (large + 7) // 8)[blocks[0]], large)
    first = number + delta_search(large)([number])[0]
    draws, _ = _draws_for_second(stream, bits, blocks[0], first)
    number = candidate(draws[blocks[1]], bits - large)
    return RsaKey(first, number + delta_search(bits - large)([number])[0], blocks)


def _remembered_at() -> Path:
    return lookup.data_folder() / "lists" / "walked.txt"


@cache
def _remembered(path: Path) -> dict[int, tuple[bytes, Stream, tuple[int, int]]]:
    """By the first 8 bytes of SHA-256 of a modulus: all of it, the stream, the blocks of its primes."""
    found = {}
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, ValueError):
        return {}
    for line in lines:
        with suppress(ValueError):
            digest, number, first, second = line.split()
            if 0 <= int(number) < len(ARCHS) * len(STATES) * PIDS and max(int(first), int(second)) < 1 << 16:
                whole = bytes.fromhex(digest)
                found[int.from_bytes(whole[:8], "big")] = whole, Stream.of(int(number)), (int(first), int(second))
    return found


def remember(modulus: int, stream: Stream, blocks: tuple[int, int]) -> None:
    """Keep what a walk found among the user's lists, so that later scans need no walk; do without if that fails."""
    path = _remembered_at()
    with suppress(OSError):
        before = path.read_text("ascii", "replace") if path.exists() else ""
        line = f"{number_digest(modulus).hex()} {stream.number} {blocks[0]} {blocks[1]}\n"
        if line not in before:
            lookup.write_atomically(path, (before + line).encode("ascii", "replace"))
    _remembered.cache_clear()


def remembered(moduli: Sequence[int], digests: NDArray[np.uint64]) -> Iterator[tuple[int, Stream, RsaKey]]:
    """Moduli that earlier walks found, made again from their streams; ``digests`` as for ``find_rsa``."""
    known = _remembered(_remembered_at())
    if not known:
        return
    for row in np.flatnonzero(np.isin(digests, np.array(list(known), dtype=np.uint64))).tolist():
        whole, stream, blocks = known[int(digests[row])]
        if number_digest(moduli[row]) == whole:
            key = key_from_blocks(stream, moduli[row].bit_length(), blocks)
            if key.modulus == moduli[row]:
                yield row, stream, key


@dataclass(frozen=True)
class Group:
    """Moduli that one walk serves: their first primes have one size, and the same streams are in question."""

    bits: int
    moduli: tuple[int, ...]
    parts: tuple[Part, ...]

    @property
    def folder(self) -> str:
        """Name of the folder of this walk: of the same moduli and the same format only."""
        text = ",".join([_FORMAT, str(self.bits), *(f"{modulus:x}" for modulus in sorted(self.moduli))])
        return f"{self.bits}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def groups(moduli: Iterable[int], where: Callable[[int], tuple[Part, ...]]) -> list[Group]:
    """Sort moduli by the walk that they need.

    Args:
        moduli: of ``LEAST_BITS`` to ``MOST_BITS``.
        where: which streams are in question for a size; those with none are left out.
    """
    found: dict[tuple[int, tuple[Part, ...]], list[int]] = {}
    for modulus in moduli:
        bits = modulus.bit_length()
        streams = where(bits)
        if streams:
            found.setdefault((prime_bits(bits), streams), []).append(modulus)
    return [Group(bits, tuple(dict.fromkeys(some)), streams) for (bits, streams), some in found.items()]


def walk(
    to_do: Sequence[Group],
    folder: Path,
    *,
    depth: float = DEPTH,
    jobs: int = 1,
    progress: Callable[[float], None] = lambda _share: None,
) -> Iterator[Divisor]:
    """Walk all streams of some groups, breadth first.

    Args:
        to_do: the groups.
        folder: where what is done is kept; each group gets a folder of its own in it.
        depth: how far, in mean distances between primes.
        jobs: worker processes.
        progress: told the share of the work that is done.

    Yields:
        Candidates that divide a modulus, each modulus' first: it is not looked for any further.

    Raises:
        KeyassayError: the folder cannot be written.
    """
    ends = [*(end for end in _ROUNDS if end < depth), depth]
    total = sum(_cost(group, 0, depth) for group in to_do) or 1.0
    spent = 0.0
    found: set[int] = set()
    before = 0.0
    try:
        with _Workers(jobs) as workers:
            for end in ends:
                for group in to_do:
                    moduli = tuple(one for one in group.moduli if one not in found)
                    draws = draws_to(group.bits, end)
                    tasks = [
                        _Task(
                            folder / group.folder / f"{part.arch}-{part.state}-{part.first}.npz",
                            part,
                            group.bits,
                            moduli,
                            draws,
                            end == depth,
                        )
                        for part in (group.parts if moduli else ())
                    ]
                    share = _cost(group, before, end) / max(len(tasks), 1)
                    for divisors in workers.run(tasks):
                        spent += share
                        progress(min(spent / total, 1.0))
                        for divisor in divisors:
                            if divisor.modulus not in found:
                                found.add(divisor.modulus)
                                yield divisor
                        if found.issuperset(moduli):
                            break
                before = end
    except OSError as error:
        raise KeyassayError(f"{folder} cannot be written: {error.strerror or error}") from error


def _cost(group: Group, start: float, end: float) -> float:
    """Of a walk of a group from one depth to another, in hashes."""
    hashes = group.bits / 80 + 3
    return (draws_to(group.bits, end) - draws_to(group.bits, start)) * hashes * sum(part.count for part in group.parts)


class _Workers:
    """Runs tasks in order, here or in worker processes that are stopped in the middle of theirs if need be."""

    def __init__(self, jobs: int) -> None:
        self._pool = (
            ProcessPoolExecutor(jobs, get_context("forkserver"), initializer=_ignore_interrupts) if jobs > 1 else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            for worker in list((self._pool._processes or {}).values()):  # noqa: SLF001  no public way
                worker.terminate()  # what a part has done so far is not kept anyway
            self._pool.shutdown(cancel_futures=True)

    def run(self, tasks: Sequence[_Task]) -> Iterator[list[Divisor]]:
        """Results as they come."""
        if self._pool is None:
            yield from map(_run, tasks)
            return
        waiting: set[Future[list[Divisor]]] = {self._pool.submit(_run, task) for task in tasks}
        try:
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        finally:
            for future in waiting:
                future.cancel()


def _ignore_interrupts() -> None:
    """The parent decides what an interruption means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
