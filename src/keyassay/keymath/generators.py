"""Weak random generators: what each says after a seed, one by one and for many seeds at once.

A ``Generator`` has its definition, ``outputs(seed)``, plain and slow, which proofs use, and ``at(seeds, places)``,
which gives chosen outputs for an array of seeds and agrees with the definition. Seeds and outputs are unsigned.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.uint64]

_MASK32 = 0xFFFFFFFF

#: GMP's congruential schemes, by the length of the modulus 2^m in bits: the multiplier; the increment is 1.
GMP_CONGRUENTIAL = {
    32: 0x29CF535,
    34: 0xA3D73AD,
    36: 0x28F725C5,
    38: 0xA3DD5CDD,
    40: 0x28F5DA175,
    56: 0xAA7D735234C0DD,
    64: 0xBAECD515DAF0B49D,
    100: 0x292787EBD3329AD7E7575E2FD,
    128: 0x48A74F367FA7B5C8ACBB36901308FA85,
    156: 0x78A7FDDDC43611B527C3F1D760F36E5D7FC7C45,
    196: 0x41BA2E104EE34C66B3520CE706A56498DE6D44721E5E24F5,
    200: 0x4E5A24C38B981EAFE84CD9D0BEC48E83911362C114F30072C5,
    256: 0xAF66BA932AAF58A071FD8F0742A99A0C76982D648509973DB802303128A14CB5,
}


@dataclass(frozen=True)
class Generator(ABC):
    """A generator of numbers.

    Attributes:
        name: short, for the names of models.
        seed_bits: seeds are 0 to 2^seed_bits - 1.
    """

    name: str
    seed_bits: int

    @abstractmethod
    def outputs(self, seed: int) -> Iterator[int]:
        """The outputs after a seed, without end: the definition."""

    @abstractmethod
    def at(self, seeds: Array, places: Sequence[int]) -> dict[int, Array]:
        """Outputs at some places (from 0) for many seeds: by place, one for each seed."""

    @property
    @abstractmethod
    def program(self) -> str:
        """Python that defines ``g(s)``, the outputs after seed s, by the standard library; without single quotes."""


@dataclass(frozen=True)
class Congruential(Generator):
    """s becomes a s + c modulo 2^m, the output is s >> shift, ``width`` bits of it.

    Attributes:
        multiplier, increment, modulus_bits: a, c, m; m is at most 64.
        shift, width: which bits of the state are put out.
        scramble: exclusive-or with the seed before the first step (java.util.Random).
        less: subtracted from the seed, as a 32-bit number, before the first step (musl).
    """

    multiplier: int
    increment: int
    modulus_bits: int
    shift: int
    width: int
    scramble: int = 0
    less: int = 0

    def outputs(self, seed: int) -> Iterator[int]:
        modulus = 1 << self.modulus_bits
        state = ((seed - self.less) % (1 << self.seed_bits) ^ self.scramble) % modulus
        while True:
            state = (self.multiplier * state + self.increment) % modulus
            yield (state >> self.shift) % (1 << self.width)

    def at(self, seeds: Array, places: Sequence[int]) -> dict[int, Array]:
        modulus = 1 << self.modulus_bits
        start = seeds - np.uint64(self.less)
        if self.seed_bits < 64:
            start &= np.uint64((1 << self.seed_bits) - 1)
        start ^= np.uint64(self.scramble)
        found: dict[int, Array] = {}
        for place in places:
            factor, addend = self.steps(place + 1)
            state = start * np.uint64(factor)  # modulo 2^64, of which 2^m is a divisor
            state += np.uint64(addend)
            if self.modulus_bits < 64:
                state &= np.uint64(modulus - 1)
            state >>= np.uint64(self.shift)
            found[place] = state & np.uint64((1 << self.width) - 1)
        return found

    @cache  # noqa: B019  instances live as long as the program
    def steps(self, count: int) -> tuple[int, int]:
        """Factor and addend of so many steps at once."""
        if count == 1:
            return self.multiplier, self.increment
        factor, addend = self.steps(count // 2)
        factor, addend = factor * factor, addend * factor + addend
        if count % 2:
            factor, addend = factor * self.multiplier, addend * self.multiplier + self.increment
        return factor % (1 << self.modulus_bits), addend % (1 << self.modulus_bits)

    @property
    def program(self) -> str:
        return (
            "def g(s):\n"
            f" s = (s - {self.less}) % 2**{self.seed_bits} ^ {self.scramble}\n"
            " while True:\n"
            f"  s = ({self.multiplier} * s + {self.increment}) % 2**{self.modulus_bits}\n"
            f"  yield (s >> {self.shift}) % 2**{self.width}\n"
        )


@dataclass(frozen=True)
class Lehmer(Generator):
    """s becomes a s modulo 2^31 - 1 and is the output; seed 0 counts as 1 (std::minstd_rand0 and minstd_rand)."""

    multiplier: int

    def outputs(self, seed: int) -> Iterator[int]:
        state = seed % 0x7FFFFFFF or 1
        while True:
            state = state * self.multiplier % 0x7FFFFFFF
            yield state

    def at(self, seeds: Array, places: Sequence[int]) -> dict[int, Array]:
        start = np.maximum(seeds % np.uint64(0x7FFFFFFF), np.uint64(1))
        powers = {place: pow(self.multiplier, place + 1, 0x7FFFFFFF) for place in places}
        return {place: start * np.uint64(power) % np.uint64(0x7FFFFFFF) for place, power in powers.items()}

    @property
    def program(self) -> str:
        return (
            "def g(s):\n"
            " s = s % (2**31 - 1) or 1\n"
            f" while True:\n  s = {self.multiplier} * s % (2**31 - 1)\n  yield s\n"
        )


@dataclass(frozen=True)
class AdditiveFeedback(Generator):
    """random() and rand() of glibc, TYPE_3: r[i] = r[i - 3] + r[i - 31], filled by 16807 r modulo 2^31 - 1."""

    def outputs(self, seed: int) -> Iterator[int]:
        value = seed or 1
        value -= (value >> 31) << 32  # the seed is an int32_t
        state = [value]
        for _ in range(30):
            high = abs(value) // 127773 * (1 if value >= 0 else -1)  # as C divides
            value = 16807 * (value - 127773 * high) - 2836 * high
            value += 0x7FFFFFFF if value < 0 else 0
            state.append(value)
        state.extend(state[:3])
        del state[:3]
        count = 0
        while True:
            state.append((state[-31] + state[-3]) & _MASK32)
            del state[0]
            count += 1
            if count > 310:
                yield state[-1] >> 1

    def at(self, seeds: Array, places: Sequence[int]) -> dict[int, Array]:
        ring = np.empty((31, len(seeds)), np.uint32)  # r[i] in row i modulo 31; r[34] is the first that is a sum
        first = np.maximum(seeds, np.uint64(1)).astype(np.uint32)
        ring[0] = first
        modulus = np.uint64(0x7FFFFFFF)
        value = (first.view(np.int32).astype(np.int64) % 0x7FFFFFFF).view(np.uint64)  # the seed is an int32_t
        for row in range(1, 31):
            value *= np.uint64(16807)
            value = (value & modulus) + (value >> np.uint64(31))
            value = np.minimum(value, value - modulus)  # below zero it wraps to something large
            ring[row] = value
        wanted = set(places)
        found: dict[int, Array] = {}
        for i in range(34, 345 + max(places, default=-1)):
            row = ring[i % 31]
            row += ring[(i - 3) % 31]
            if i - 344 in wanted:
                found[i - 344] = (row >> np.uint32(1)).astype(np.uint64)
        return found

    @property
    def program(self) -> str:
        return (
            "def g(s):\n"
            " s = s or 1\n"
            " r = [s - (s >> 31 << 32)]\n"
            " for i in range(1, 31): r.append(16807 * r[-1] % (2**31 - 1))\n"
            " r += r[:3]\n"
            " while True:\n"
            "  r.append((r[-31] + r[-3]) % 2**32)\n"
            "  if len(r) > 344: yield r[-1] >> 1\n"
        )


@dataclass(frozen=True)
class MersenneTwister(Generator):
    """MT19937 (Matsumoto, Nishimura 1998), 32-bit outputs.

    Attributes:
        by_array: seeded by init_by_array with the seed's 32-bit words, lowest first, as Python does; else by
            init_genrand with the seed.
    """

    by_array: bool

    def outputs(self, seed: int) -> Iterator[int]:
        state = self._state_of(seed)
        while True:
            for i in range(624):
                mixed = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7FFFFFFF)
                state[i] = state[(i + 397) % 624] ^ (mixed >> 1) ^ (0x9908B0DF if mixed & 1 else 0)
            for value in state:
                one = value ^ (value >> 11)
                one ^= (one << 7) & 0x9D2C5680
                one ^= (one << 15) & 0xEFC60000
                yield one ^ (one >> 18)

    def _state_of(self, seed: int) -> list[int]:
        if not self.by_array:
            return _init_genrand(seed)
        key = [seed & _MASK32]
        while seed := seed >> 32:
            key.append(seed & _MASK32)
        state = _init_genrand(19650218)
        i, j = 1, 0
        for _ in range(624):
            mixed = (state[i - 1] ^ (state[i - 1] >> 30)) * 1664525
            state[i] = ((state[i] ^ mixed) + key[j] + j) & _MASK32
            i, j = i + 1, (j + 1) % len(key)
            if i == 624:
                state[0], i = state[623], 1
        for _ in range(623):
            mixed = (state[i - 1] ^ (state[i - 1] >> 30)) * 1566083941
            state[i] = ((state[i] ^ mixed) - i) & _MASK32
            i += 1
            if i == 624:
                state[0], i = state[623], 1
        state[0] = 0x80000000
        return state

    def at(self, seeds: Array, places: Sequence[int]) -> dict[int, Array]:
        large = seeds >> np.uint64(32) != 0  # the key of init_by_array then has two words
        if self.by_array and large.any() and not large.all():
            return _joined(large, self.at(seeds[large], places), self.at(seeds[~large], places), places)
        # a new word depends on old ones and, from place 227 on, on a new one; mostly few of all are needed
        if max(places, default=0) < 623:
            news = {place % 227 + 227 * step for place in places for step in range(place // 227 + 1)}
        else:
            news = set(range(max(places) + 1))
        if self.by_array:
            state = dict(enumerate(_arrays_by_array(seeds, long=bool(large.any()))))
        else:
            rows = {word % 624 for new in news for word in (new, new + 1, new + 397) if word < 624 or new >= 623}
            state = _arrays_by_genrand(seeds, rows)
        found: dict[int, Array] = {}
        wanted = set(places)
        for new in sorted(news):
            # in ascending order, word new + 1 is still the old one, and new + 397 - 624 is the new one
            state[new % 624] = _twisted(state, new % 624)
            if new in wanted:
                found[new] = _tempered(state[new % 624].copy()).astype(np.uint64)
        return found

    @property
    def program(self) -> str:
        if self.by_array:
            return (
                "import random\n"
                "def g(s):\n"
                " r = random.Random(s)\n"
                " while True: yield r.getrandbits(32)\n"
            )  # fmt: skip
        return (
            "import random\n"
            "def g(s):\n"
            " m = [s]\n"
            " for i in range(1, 624): m.append((1812433253 * (m[-1] ^ m[-1] >> 30) + i) % 2**32)\n"
            " r = random.Random()\n"
            " r.setstate((3, (*m, 624), None))\n"
            " while True: yield r.getrandbits(32)\n"
        )


def _joined(
    mask: NDArray[np.bool_], there: dict[int, Array], elsewhere: dict[int, Array], places: Sequence[int]
) -> dict[int, Array]:
    found = {}
    for place in places:
        found[place] = np.empty(len(mask), np.uint64)
        found[place][mask], found[place][~mask] = there[place], elsewhere[place]
    return found


def _init_genrand(seed: int) -> list[int]:
    state = [seed]
    for i in range(1, 624):
        state.append((1812433253 * (state[-1] ^ (state[-1] >> 30)) + i) & _MASK32)
    return state


def _arrays_by_genrand(seeds: Array, rows: set[int]) -> dict[int, NDArray[np.uint32]]:
    """Some words of the state, by place."""
    value = seeds.astype(np.uint32)
    mixed = np.empty_like(value)
    kept = {0: value.copy()} if 0 in rows else {}
    for i in range(1, max(rows, default=0) + 1):
        np.right_shift(value, np.uint32(30), out=mixed)
        value ^= mixed
        value *= np.uint32(1812433253)
        value += np.uint32(i)
        if i in rows:
            kept[i] = value.copy()
    return kept


def _arrays_by_array(seeds: Array, *, long: bool) -> NDArray[np.uint32]:
    state = np.empty((624, len(seeds)), np.uint32)
    state[:] = np.array(_init_genrand(19650218), np.uint32)[:, None]
    key = [(seeds & np.uint64(_MASK32)).astype(np.uint32)]
    if long:
        key.append((seeds >> np.uint64(32)).astype(np.uint32) + np.uint32(1))  # the index is added, too
    mixed = np.empty(len(seeds), np.uint32)

    def mix(i: int, factor: int) -> None:
        np.right_shift(state[i - 1], np.uint32(30), out=mixed)
        np.bitwise_xor(mixed, state[i - 1], out=mixed)
        np.multiply(mixed, np.uint32(factor), out=mixed)
        state[i] ^= mixed

    i = 1
    for step in range(624):
        mix(i, 1664525)
        state[i] += key[step % len(key)]
        i += 1
        if i == 624:
            state[0], i = state[623], 1
    for _ in range(623):
        mix(i, 1566083941)
        state[i] -= np.uint32(i)
        i += 1
        if i == 624:
            state[0], i = state[623], 1
    state[0] = 0x80000000
    return state


def _twisted(state: dict[int, NDArray[np.uint32]], i: int) -> NDArray[np.uint32]:
    mixed = state[i] & np.uint32(0x80000000)
    mixed |= state[(i + 1) % 624] & np.uint32(0x7FFFFFFF)
    value = mixed >> np.uint32(1)
    value ^= (mixed & np.uint32(1)) * np.uint32(0x9908B0DF)
    value ^= state[(i + 397) % 624]
    return value


def _tempered(value: NDArray[np.uint32]) -> NDArray[np.uint32]:
    value ^= value >> np.uint32(11)
    value ^= (value << np.uint32(7)) & np.uint32(0x9D2C5680)
    value ^= (value << np.uint32(15)) & np.uint32(0xEFC60000)
    value ^= value >> np.uint32(18)
    return value


@dataclass(frozen=True)
class Counter(Generator):
    """Bytes of H(seed), H(seed + 1), ...: the counter is hashed as ``octets`` bytes, big-endian."""

    algorithm: str
    octets: int

    def outputs(self, seed: int) -> Iterator[int]:
        while True:
            yield from hashlib.new(self.algorithm, self._encoded(seed), usedforsecurity=False).digest()
            seed += 1

    def _encoded(self, counter: int) -> bytes:
        return (counter % (1 << 8 * self.octets)).to_bytes(self.octets, "big")

    def at(self, seeds: Array, places: Sequence[int]) -> dict[int, Array]:
        function = getattr(hashlib, self.algorithm)
        size = function(usedforsecurity=False).digest_size
        blocks = sorted({place // size for place in places})
        counters = np.unique(np.concatenate([seeds + np.uint64(block) for block in blocks] or [seeds]))
        mask = np.uint64((1 << 8 * self.octets) - 1)
        encoded = (counters & mask).astype(">u8").tobytes()
        texts = (encoded[at + 8 - self.octets : at + 8] for at in range(0, len(encoded), 8))
        digests = b"".join([function(text, usedforsecurity=False).digest() for text in texts])
        table = np.frombuffer(digests, np.uint8).reshape(-1, size)
        rows = {block: np.searchsorted(counters, seeds + np.uint64(block)) for block in blocks}
        return {place: table[rows[place // size], place % size].astype(np.uint64) for place in places}

    @property
    def program(self) -> str:
        return (
            "import hashlib\n"
            "def g(s):\n"
            " while True:\n"
            f'  c = (s % 2**{8 * self.octets}).to_bytes({self.octets}, "big")\n'
            f"  yield from hashlib.{self.algorithm}(c).digest()\n"
            "  s += 1\n"
        )


#: The multiplier of Knuth's MMIX, in musl and newlib.
_MMIX = 6364136223846793005

GENERATORS: dict[str, Generator] = {
    one.name: one
    for one in (
        AdditiveFeedback("glibc", 32),
        Congruential("type0", 31, 1103515245, 12345, 31, 0, 31),
        Congruential("ansi", 32, 1103515245, 12345, 32, 16, 15),
        Congruential("msvc", 32, 214013, 2531011, 32, 16, 15),
        Congruential("newlib", 32, _MMIX, 1, 64, 32, 31),
        Congruential("musl", 32, _MMIX, 1, 64, 33, 31, less=1),
        Lehmer("minstd0", 32, 16807),
        Lehmer("minstd", 32, 48271),
        MersenneTwister("mt19937", 32, by_array=False),
        MersenneTwister("python", 64, by_array=True),
        Congruential("java", 64, 0x5DEECE66D, 11, 48, 16, 32, scramble=0x5DEECE66D),
        Counter("md5", 32, "md5", 4),
        Counter("sha1", 32, "sha1", 4),
        Counter("sha256", 32, "sha256", 4),
    )
}
