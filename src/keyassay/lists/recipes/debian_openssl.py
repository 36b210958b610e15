"""Every key of Debian's OpenSSL with the predictable random generator (CVE-2008-0166), bit for bit.

A stream (platform, state of the random file, process id) gives one key per type and size. ``rsa_keys`` and
``ec_secret`` make it from scratch; with the hints of a list an RSA key costs a few milliseconds. DSA-1571-1, OpenSSL
0.9.8c to g. A ``Variant`` stands for other ways to the key: a second key, files given by ``-rand``, other platforms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import gmpy2
import numpy as np
from numpy.typing import NDArray

from keyassay.lists.accelerator import pair_test

try:  # CPython's own SHA-1 has half the call overhead of OpenSSL's for inputs as short as these
    from _sha1 import sha1  # type: ignore[import-not-found]
except ImportError:
    from hashlib import sha1

ARCHS = ("le64", "le32", "be32")
STATES = ("rnd", "nornd", "noreadrnd", "direct")
PIDS = 32_768

#: bytes of a C long, byte order of hashed integers, bytes of struct stat. As le64 are amd64 and ia64; as le32 i386; as
#: be32 powerpc, sparc and s390, by glibc's declarations of struct stat. As le32 also arm and armel, by the layout that
#: their alignment rules give. See also ``VARIANTS``.
_PLATFORMS = {"le64": (8, "little", 144), "le32": (4, "little", 88), "be32": (4, "big", 88)}
_RING = 1023


@dataclass(frozen=True, slots=True)
class Stream:
    """One start of the generator: what decides all of its output."""

    arch: str
    state: str
    pid: int

    @property
    def number(self) -> int:
        """The stream as a number below 2^19: (platform, state, process id)."""
        return (ARCHS.index(self.arch) * len(STATES) + STATES.index(self.state)) * PIDS + self.pid

    @classmethod
    def of(cls, number: int) -> Stream:
        """The stream of a number."""
        start, pid = divmod(number, PIDS)
        arch, state = divmod(start, len(STATES))
        return cls(ARCHS[arch], STATES[state], pid)

    @property
    def fields(self) -> dict[str, str | int]:
        """The stream as evidence shows it."""
        return {"arch": self.arch, "state": self.state, "pid": self.pid}

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.fields.items())


@dataclass(frozen=True, slots=True)
class Variant:
    """What happened otherwise than in a stream's first key, on a platform of ``_PLATFORMS``.

    Attributes:
        name: three letters, "" for the usual case.
        words: what happened, for people; follows a comma.
        archs, states: which streams there are.
        stat: bytes of struct stat, None for the platform's own.
        chunks: pieces of 1024 bytes, the last one begun, in a file given by ``-rand``; 0 if none was given.
        earlier: keys of the same kind that the process made before, with nothing else drawn in between.
    """

    name: str = ""
    words: str = ""
    archs: tuple[str, ...] = ARCHS
    states: tuple[str, ...] = STATES
    stat: int | None = None
    chunks: int = 0
    earlier: int = 0


USUAL = Variant()
#: By name. ``-rand`` is read after ~/.rnd (a device gives 2048 bytes, two pieces); only programs of somebody's own make
#: two keys in one process. 144 bytes is struct stat on mips and mipsel (o32), 136 on alpha, by glibc's declarations;
#: these are otherwise as be32, le32 and le64. No variant has been compared with keys of a vulnerable original.
VARIANTS = {
    one.name: one
    for one in (
        Variant("2nd", "as the second key of the process", earlier=1),
        Variant("rf1", "with `-rand FILE` of at most 1024 bytes", states=STATES[:3], chunks=1),
        Variant("rf2", "with `-rand` and a device or a file of 1025 to 2048 bytes", states=STATES[:3], chunks=2),
        Variant("144", "on mips or mipsel", archs=("le32", "be32"), states=("rnd", "noreadrnd"), stat=144),
        Variant("136", "on alpha", archs=("le64",), states=("rnd", "noreadrnd"), stat=136),
    )
}


@dataclass(frozen=True, slots=True)
class RsaKey:
    """The primes in the order of their drawing, and the blocks that they came from (the hints)."""

    first: int
    second: int
    blocks: tuple[int, int]

    @property
    def modulus(self) -> int:
        """N = p q."""
        return self.first * self.second


class _Pool:
    """The generator's state: a ring that hashes are mixed into, a running digest, two counters."""

    __slots__ = ("c0", "c1", "idx", "long", "md", "order", "pool")

    def __init__(self, arch: str) -> None:
        self.long, self.order, _ = _PLATFORMS[arch]
        self.pool = bytearray(_RING + 1)  # one dead byte, written in one case and never read
        self.idx = 0
        self.md = bytes(20)
        self.c0 = 0
        self.c1 = 0

    def copy(self) -> _Pool:
        other = object.__new__(_Pool)
        other.long, other.order, other.pool = self.long, self.order, bytearray(self.pool)
        other.idx, other.md, other.c0, other.c1 = self.idx, self.md, self.c0, self.c1
        return other

    def _counters(self, c0: int, c1: int) -> bytes:
        order = "little" if self.order == "little" else "big"
        return c0.to_bytes(self.long, order) + c1.to_bytes(self.long, order)  # type: ignore[arg-type]

    def _read(self, at: int, count: int) -> bytes:
        pool = self.pool
        if at + count <= _RING:
            return bytes(pool[at : at + count])
        return bytes(pool[(at + k) % _RING] for k in range(count))

    def _mix(self, at: int, digest: bytes, count: int) -> int:
        """XOR into the ring; position 1023 hits the dead byte first, out of step with reading."""
        pool = self.pool
        if at + count <= _RING:
            end = at + count
            mixed = int.from_bytes(pool[at:end], "big") ^ int.from_bytes(digest[:count], "big")
            pool[at:end] = mixed.to_bytes(count, "big")
            return 0 if end == _RING else end
        for k in range(count):
            pool[at] ^= digest[k]
            at += 1
            if at >= _RING:
                at = 0
        return at

    def add(self, count: int) -> None:
        """Add ``count`` bytes, whose values the patched generator ignores."""
        at, d, c = self.idx, self.md, self.c1
        self.idx += count
        if self.idx >= _RING:
            self.idx %= _RING
        while count > 0:
            j = min(20, count)
            d = sha1(d + self._read(at, j) + self._counters(self.c0, c)).digest()
            c += 1
            at = self._mix(at, d, j)
            count -= j
        self.c1 = c
        self.md = (int.from_bytes(self.md, "big") ^ int.from_bytes(d, "big")).to_bytes(20, "big")

    def take(self, count: int, pid: bytes) -> bytes:
        """Hand out ``count`` bytes (1 or more) to the process ``pid`` (its bytes, empty for process 0)."""
        at, d = self.idx, self.md
        t = self._counters(self.c0, self.c1)
        blocks = (count + 9) // 10
        self.idx += 10 * blocks
        if self.idx > _RING:
            self.idx %= _RING
        self.c0 += 1
        pool = self.pool
        out = []
        for _ in range(blocks):
            end = at + 10
            if end <= _RING:
                old = pool[at:end]
                d = sha1(pid + d + t + old).digest()
                mixed = int.from_bytes(old, "big") ^ int.from_bytes(d[:10], "big")
                pool[at:end] = mixed.to_bytes(10, "big")
                at = 0 if end == _RING else end
            else:
                d = sha1(pid + d + t + self._read(at, 10)).digest()
                at = self._mix(at, d, 10)
            pid = b""
            out.append(d[10:])
        self.md = sha1(t + d + self.md).digest()
        return b"".join(out)[:count]


@cache
def _start(arch: str, state: str, variant: Variant = USUAL) -> _Pool:
    """The state just before the first output: the same for all process ids, first add(W) included."""
    pool = _Pool(arch)
    stat = variant.stat or _PLATFORMS[arch][2]
    polls = (32, pool.long, pool.long, pool.long)
    given = (stat, *(1024,) * variant.chunks) if variant.chunks else ()
    additions: tuple[int, ...]
    if state == "rnd":
        additions = (stat, 1024, *given, pool.long, *polls)
    elif state == "nornd":
        additions = (*polls, *given, pool.long)
    elif state == "noreadrnd":
        additions = (stat, *polls, *given, pool.long)
    else:
        additions = (pool.long, *polls)
    for count in additions:
        pool.add(count)
    for _ in range(52):
        pool.add(20)
    return pool


@dataclass(frozen=True, slots=True)
class Start:
    """The generator's state before a process draws, and the process, as its hashes take them.

    Attributes:
        ring: 1,024 bytes, the last one dead.
        md: running digest, 20 bytes.
        idx, c0, c1: position and counters.
        long: bytes of a counter.
        big: whether counters are hashed big-endian.
        pid: the process id's bytes, none for process 0.
    """

    ring: bytes
    md: bytes
    idx: int
    c0: int
    c1: int
    long: int
    big: bool
    pid: bytes


def start_of(stream: Stream, variant: Variant = USUAL) -> Start:
    """What a stream starts from."""
    pool = _start(stream.arch, stream.state, variant)
    return Start(
        bytes(pool.pool), pool.md, pool.idx, pool.c0, pool.c1, pool.long, pool.order == "big", _pid_bytes(stream)
    )


def _pid_bytes(stream: Stream) -> bytes:
    order = _PLATFORMS[stream.arch][1]
    return stream.pid.to_bytes(4, order) if stream.pid else b""  # type: ignore[arg-type]


class Draws:
    """The blocks of one length that a stream hands out, in order, kept as they are drawn.

    Every random integer of one length takes the same from the stream (an addition, then the bytes), so the sequence
    is fixed whatever the integers are used for.
    """

    def __init__(self, stream: Stream, size: int, variant: Variant = USUAL) -> None:
        self._pool = _start(stream.arch, stream.state, variant).copy()
        self._pid = _pid_bytes(stream)
        self._size = size
        self._first = True
        self.blocks: list[bytes] = []

    def __getitem__(self, index: int) -> bytes:
        blocks, pool = self.blocks, self._pool
        while len(blocks) <= index:
            if self._first:
                self._first = False
            else:
                pool.add(pool.long)
            blocks.append(pool.take(self._size, self._pid))
        return blocks[index]

    def resize(self, used: int, size: int) -> Draws:
        """Go on after ``used`` blocks with blocks of another length."""
        pool = self._pool if len(self.blocks) == used else None
        if pool is None:
            raise ValueError("blocks were read ahead; make the stream again")
        self._size = size
        self.blocks = []
        return self


def rounds(bits: int) -> int:
    """Miller-Rabin rounds that a prime of that many bits went through."""
    table = (
        (1300, 2),
        (850, 3),
        (650, 4),
        (550, 5),
        (450, 6),
        (400, 7),
        (350, 8),
        (300, 9),
        (250, 12),
        (200, 15),
        (150, 18),
    )
    return next((count for least, count in table if bits >= least), 27)


def candidate(block: bytes, bits: int) -> int:
    """The odd number with both top bits set that a block is read as when a prime is wanted."""
    number = int.from_bytes(block, "big") & ((1 << bits) - 1)
    return number | 3 << (bits - 2) | 1


def _odd_primes() -> list[int]:
    return [int(p) for p in _sieve(17_864) if p > 2]


def _sieve(limit: int) -> NDArray[np.int64]:
    flags = np.ones(limit, dtype=bool)
    flags[:2] = False
    for p in range(2, int(limit**0.5) + 1):
        if flags[p]:
            flags[p * p :: p] = False
    return np.flatnonzero(flags)


_PRIMES = np.array(_odd_primes(), dtype=np.int64)
_WINDOW = 512  # places delta/2 that the arrays look at; one candidate in a hundred needs more
_SMALL = int(np.searchsorted(_PRIMES, _WINDOW))
_HALF = (_PRIMES + 1) // 2


class DeltaSearch:
    """Finds for many candidates r the least even delta with (r + delta) mod t neither 0 nor 1 for all t in the table.

    The forbidden places of delta/2 are j = -r/2 mod t and j + (t+1)/2 mod t; both for 2047 primes come from one
    matrix product of the candidates' limbs, exact in float64.
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.bytes = (bits + 31) // 32 * 4
        width = 32 if self.bytes // 4 * (2**32 - 1) * (17_863 - 1) < 2**53 else 16
        self._type = "<u4" if width == 32 else "<u2"
        limbs = self.bytes * 8 // width
        negative_half = [(-pow(2, -1, int(t))) % int(t) for t in _PRIMES]
        table = [[pow(2, width * i, int(t)) * h % int(t) for t, h in zip(_PRIMES, negative_half, strict=True)]
                 for i in range(limbs)]  # fmt: skip
        self._table = np.array(table, dtype=np.float64)
        self._divisors = _PRIMES.astype(np.float64)
        self._inverse = 1.0 / self._divisors
        self._primes = _PRIMES.astype(np.int16)
        self._large = self._primes[_SMALL:]
        self._half = _HALF[_SMALL:].astype(np.int16)
        patterns = []
        places = np.arange(_WINDOW)
        for t in _PRIMES[:_SMALL].tolist():
            rows = np.zeros((t, _WINDOW), dtype=bool)
            for j in range(t):
                rows[j] = (places % t == j) | (places % t == (j + (t + 1) // 2) % t)
            patterns.append(np.packbits(rows, axis=1, bitorder="little").view(np.uint64))
        self._offsets = np.cumsum([0, *[len(rows) for rows in patterns[:-1]]], dtype=np.int64)
        self._patterns = np.concatenate(patterns)

    def __call__(self, candidates: list[int]) -> list[int]:
        """Delta for each candidate."""
        count = len(candidates)
        joined = b"".join([number.to_bytes(self.bytes, "little") for number in candidates])
        limbs = np.frombuffer(joined, dtype=self._type).reshape(count, -1).astype(np.float64)
        sums = limbs @ self._table
        quotients = np.floor(sums * self._inverse)
        quotients *= self._divisors
        sums -= quotients
        j = sums.astype(np.int16)  # from -t to 2t: the quotient may be off by one
        j += self._primes & -(j < 0).view(np.int8).astype(np.int16)
        over = j - self._primes
        np.copyto(j, over, where=over >= 0)
        small = self._patterns.take(j[:, :_SMALL] + self._offsets, axis=0)
        taken = np.unpackbits(np.bitwise_or.reduce(small, axis=1).view(np.uint8), axis=1, bitorder="little")
        flat = taken.reshape(-1)
        large = np.ascontiguousarray(j[:, _SMALL:])
        other = large + self._half
        np.copyto(over := other - self._large, other, where=over < 0)
        for marks in (large, over):
            hits = np.flatnonzero(marks < _WINDOW)
            flat[hits // marks.shape[1] * _WINDOW + marks.reshape(-1)[hits]] = 1
        first = np.argmin(taken, axis=1)
        deltas = []
        for row, place in enumerate(first.tolist()):
            deltas.append(2 * place if not taken[row, place] else _slow_delta(candidates[row]))
        return deltas


def _slow_delta(number: int) -> int:
    """The definition, for the rare candidate whose delta lies beyond the arrays' window."""
    residues = [number % int(t) for t in _PRIMES]
    delta = 0
    while any((r + delta) % int(t) <= 1 for r, t in zip(residues, _PRIMES, strict=True)):
        delta += 2
    return delta


@cache
def delta_search(bits: int) -> DeltaSearch:
    """The search for candidates of that size; its tables are made once."""
    return DeltaSearch(bits)


def witness_of(block: bytes, bits: int) -> int:
    """The base, less one, that a block is read as for a round of Miller and Rabin's test."""
    return int.from_bytes(block, "big") & ((1 << bits) - 1)


#: from that size on an exponentiation costs so much that primes beyond the table of the original are divided out
_DIVIDED_FROM = 1400
_DIVISOR_LIMIT = 1 << 19


@cache
def further_divisors(limit: int) -> gmpy2.mpz:
    """The product of the primes between the last one of the original's table and a limit."""
    return _product([gmpy2.mpz(p) for p in _sieve(limit).tolist() if p > 17_863])[-1][0]


def _product(numbers: list[gmpy2.mpz]) -> list[list[gmpy2.mpz]]:
    """The levels of a product tree, leaves first."""
    levels = [numbers]
    while len(levels[-1]) > 1:
        below = levels[-1]
        above = [below[i] * below[i + 1] for i in range(0, len(below) - 1, 2)]
        levels.append([*above, below[-1]] if len(below) % 2 else above)
    return levels


def without_divisors(candidates: Sequence[int], divisors: gmpy2.mpz) -> list[int]:
    """The places of the candidates that are prime to ``divisors``; the others are composite.

    At 2,048 bits this costs a twentieth of an exponentiation for a candidate and spares a quarter of them.
    """
    levels = _product([gmpy2.mpz(number) for number in candidates])
    rests = [divisors]
    for level in reversed(levels):
        rests = [rests[index // 2] % number for index, number in enumerate(level)]
    return [index for index, rest in enumerate(rests) if gmpy2.gcd(rest, levels[0][index]) == 1]


def primes(draws: Draws, bits: int, position: int = 0, ahead: int | None = None) -> Iterator[tuple[int, int, int]]:
    """The primes of ``bits`` bits that a stream yields, in order.

    Args:
        draws: the stream's blocks of (bits + 7) // 8 bytes.
        bits: size of the primes.
        position: index of the block where the search starts.
        ahead: how many candidates are sieved at once, as if all were composite (chosen by size if None).

    Yields:
        (prime, index of its block, index of the first block after its search).
    """
    search = delta_search(bits)
    test = pair_test(bits)
    divisors = further_divisors(_DIVISOR_LIMIT) if bits >= _DIVIDED_FROM else gmpy2.mpz(1)
    if ahead is None:
        ahead = 64 if divisors > 1 else 16
    while True:
        places: list[tuple[int, int]] = []
        numbers: list[int] = []
        at = position
        for _ in range(ahead):
            number = candidate(draws[at], bits)
            witness = at + 1
            # A witness draw is repeated until it lies below p - 1 = r + delta - 1. Delta is not known yet; it is
            # below 2^14 and matters only if a draw agrees with r in all bits but the last 16.
            while (drawn := witness_of(draws[witness], bits)) >= number:
                if drawn >> 16 == number >> 16 and drawn < number + search([number])[0] - 1:
                    break
                witness += 1
            places.append((at, witness))
            numbers.append(number)
            at = witness + 1
        candidates = [number + delta for number, delta in zip(numbers, search(numbers), strict=True)]
        left = without_divisors(candidates, divisors) if divisors > 1 else list(range(ahead))
        found = -1
        for index in range(0, len(left), 2):
            pair = left[index : index + 2]
            p, q = candidates[pair[0]], candidates[pair[-1]]
            if p.bit_length() != bits or q.bit_length() != bits:
                passed = (gmpy2.powmod(2, p - 1, p) == 1, gmpy2.powmod(2, q - 1, q) == 1)
            else:
                passed = test(p, q)
            for place, prime in zip(pair, passed, strict=False):
                if prime and gmpy2.is_strong_prp(candidates[place], witness_of(draws[places[place][1]], bits) + 1):
                    found = place
                    break
            if found >= 0:
                break
        if found < 0:
            position = at
            continue
        start, witness = places[found]
        p = candidates[found]
        position = after_rounds(draws, p, bits, witness + 1)
        yield p, start, position


class Blocks(Protocol):
    """The blocks of a stream, by index."""

    def __getitem__(self, index: int) -> bytes:
        """A block."""
        ...


def after_rounds(draws: Blocks, prime: int, bits: int, position: int) -> int:
    """The first block after a prime's rounds, of which one was its test; too large a witness is drawn again."""
    for _ in range(rounds(bits) - 1):
        while witness_of(draws[position], bits) >= prime - 1:
            position += 1
        position += 1
    return position


def rsa_primes(stream: Stream, bits: int, variant: Variant = USUAL) -> Iterator[tuple[int, int]]:
    """Primes for an even modulus size with their blocks: P0, P1, P2, ... of the stream."""
    half = bits // 2
    for prime, block, _ in primes(Draws(stream, (half + 7) // 8, variant), half):
        yield prime, block


def rsa_keys(stream: Stream, bits: int, variant: Variant = USUAL) -> dict[int, RsaKey]:
    """The keys of a stream for even ``bits``, by public exponent: {65537: key} or {65537: key, 3: another}.

    The exponent only refuses primes that are 1 modulo one of its prime factors, and primes up to 17863 are never such
    factors of p - 1: so 3 stands for all exponents made of those. A process uses one exponent for all of its keys.
    """
    if bits % 2:
        raise ValueError("odd sizes go through odd_rsa_key")
    found: list[tuple[int, int]] = []
    suited: list[tuple[int, int]] = []
    wanted = 2 * variant.earlier + 2
    for prime, block in rsa_primes(stream, bits, variant):
        for taken in (found, suited):
            refused = taken is suited and prime % 65537 == 1
            again = len(taken) % 2 == 1 and taken[-1][0] == prime
            if len(taken) < wanted and not refused and not again:
                taken.append((prime, block))
        if len(suited) == wanted:
            break
    keys = {
        exponent: RsaKey(one, two, (first, second))
        for exponent, ((one, first), (two, second)) in ((65537, suited[-2:]), (3, found[-2:]))
    }
    if keys[3] == keys[65537]:
        del keys[3]
    return keys


def odd_rsa_key(stream: Stream, bits: int) -> RsaKey:
    """The key of a stream for an odd modulus size (exponent 65537): p has one bit more than q."""
    large = (bits + 1) // 2
    small = bits - large
    size, other = (large + 7) // 8, (small + 7) // 8
    for p, block, position in primes(Draws(stream, size), large):
        if p % 65537 == 1:
            continue
        draws = Draws(stream, size)
        if position:
            draws[position - 1]
        if other != size:
            draws.resize(position, other)
        for q, second, _ in primes(draws, small, position if other == size else 0):
            if q % 65537 != 1:
                return RsaKey(p, q, (block, second))
    raise AssertionError("a stream of primes has no end")


def rsa_key_from_hints(stream: Stream, bits: int, blocks: tuple[int, int], variant: Variant = USUAL) -> RsaKey:
    """Make a key again from the indices of the blocks that became its primes: two delta searches, no exponentiation.

    Nothing is verified here: multiply and compare.
    """
    half = bits // 2
    draws = Draws(stream, (half + 7) // 8, variant)
    numbers = [candidate(draws[block], half) for block in blocks]
    first, second = (number + delta for number, delta in zip(numbers, delta_search(half)(numbers), strict=True))
    return RsaKey(first, second, blocks)


def ec_secret(stream: Stream, order: int, variant: Variant = USUAL) -> int:
    """The private key of a stream on a curve of that order: its first draw in 1 .. order - 1, or a later one."""
    bits = order.bit_length()
    wide = order >> (bits - 3) == 0b100
    width = bits + 1 if wide else bits
    draws = Draws(stream, (width + 7) // 8, variant)
    index = 0
    earlier = variant.earlier
    while True:
        drawn = witness_of(draws[index], width)
        index += 1
        if wide:
            for _ in range(2):
                if drawn >= order:
                    drawn -= order
        if 0 < drawn < order:
            if not earlier:
                return drawn
            earlier -= 1
