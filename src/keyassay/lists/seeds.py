"""Finds RSA keys whose primes come from a guessable seed, for all moduli of a fleet at once, without primality tests.

A ``Model`` says which generator a program used and how it made numbers of the outputs. From such a number a program
searches the next prime, which changes none of the leading bits: the product of two numbers has those of the modulus.
``Targets`` holds the moduli's leading bits, sorted; ``search`` multiplies floating-point numbers for thousands of seeds
and looks the products up. What agrees by chance, one in 2^46 for each seed, model and key, ``Origin.factor`` throws
away: it makes the numbers again by the generator's plain definition, and the factor has to lie just above one of them.

Found keys are kept among the user's lists (``remember``), so that later scans know them without a search.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keyassay.keymath.generators import GENERATORS, Generator
from keyassay.lists import lookup
from keyassay.lists.format import number_digest
from keyassay.lists.recipes.keypair import prime_of

#: Sizes of primes that are looked for, in bits; a multiple of a model's unit.
LEAST_PRIME, MOST_PRIME = 256, 4096

#: Seeds that are worked on at once: arrays of them stay in the processor's cache.
BLOCK = 1 << 13

#: Sizes of primes that are worked on at once: the outputs for all of them are in memory together, 200 MB at most.
SIZES = 4

#: Relative difference between the products of leading bits and of primes: 2^-51 of rounding, and room.
TOLERANCE = 2.0**-50

Array = NDArray[np.uint64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """How a program comes from a seed to the two numbers that it searches primes from.

    Attributes:
        name: as on the command line.
        generator: what is seeded.
        unit: bits that each output contributes: 8 or 32.
        shift: how many low bits of an output are dropped before the lowest ``unit`` are taken.
        high_first: the first output is the highest part of the number.
        swapped: the bytes within each unit are reversed.
        pairs: which numbers of the stream (from 0) lead to the two primes.
        tops: how many of the highest bits of a number the program sets: any of these.
        clock: what programs that seed it from the clock take: "s", "ms", or "" for none.
        assumes: for people: the program in a few words.
    """

    name: str
    generator: Generator
    unit: int
    assumes: str
    shift: int = 0
    high_first: bool = True
    swapped: bool = False
    pairs: tuple[tuple[int, int], ...] = ((0, 1), (0, 2))
    tops: tuple[int, ...] = (1, 2)
    clock: str = "s"

    def fits(self, prime_bits: int) -> bool:
        """Whether numbers of that size are covered: whole units."""
        return LEAST_PRIME <= prime_bits <= MOST_PRIME and prime_bits % self.unit == 0

    def number(self, seed: int, prime_bits: int, draw: int) -> int:
        """The number of that many bits that a program draws, counted from 0: the definition."""
        count = prime_bits // self.unit
        outputs = islice(self.generator.outputs(seed), draw * count, (draw + 1) * count)
        order = "little" if self.swapped else "big"
        parts = [((one >> self.shift) % (1 << self.unit)).to_bytes(self.unit // 8, "big") for one in outputs]
        if order == "little":
            parts = [part[::-1] for part in parts]
        if not self.high_first:
            parts.reverse()
        return int.from_bytes(b"".join(parts), "big")

    def start(self, seed: int, prime_bits: int, draw: int, top: int) -> int:
        """The number with ``top`` of its highest bits set: the search for a prime begins here."""
        return self.number(seed, prime_bits, draw) | ((1 << top) - 1) << (prime_bits - top)

    def places(self, prime_bits: int, draw: int) -> list[int]:
        """Which outputs make the highest 64 bits of a number, highest first."""
        count = prime_bits // self.unit
        first = draw * count
        leading = range(64 // self.unit)
        return [first + i if self.high_first else first + count - 1 - i for i in leading]

    def leading(self, outputs: dict[int, Array], prime_bits: int, draw: int) -> Array:
        """The highest 64 bits of a number, for many seeds whose outputs are given by place."""
        found: Array | None = None
        for place in self.places(prime_bits, draw):
            part = (outputs[place] >> np.uint64(self.shift)) & np.uint64((1 << self.unit) - 1)
            if self.swapped:
                part = part.astype(np.uint32).byteswap().astype(np.uint64)
            found = part if found is None else (found << np.uint64(self.unit)) | part
        assert found is not None
        return found


def _models() -> Iterator[Model]:
    named = {
        "glibc": ("rand() or random() of glibc", 31),
        "type0": ("rand() of old BSDs, TYPE_0 of glibc (31 bits)", 31),
        "ansi": ("rand() as ANSI C's example (15 bits)", 15),
        "msvc": ("rand() of Microsoft's C library (15 bits)", 15),
        "newlib": ("rand() of newlib (embedded systems)", 31),
        "musl": ("rand() of musl", 31),
        "minstd0": ("std::minstd_rand0", 31),
        "minstd": ("std::minstd_rand", 31),
        "mt19937": ("MT19937 by init_genrand (std::mt19937, numpy.random.seed, PHP's mt_rand)", 32),
    }
    for name, (title, width) in named.items():
        generator = GENERATORS[name]
        yield Model(f"{name}-bytes", generator, 8, f"{title}, lowest byte of each output, first is highest")
        if name in ("glibc", "msvc", "newlib"):
            text = f"{title}, highest byte of each output, first is highest"
            yield Model(f"{name}-bytes-high", generator, 8, text, shift=width - 8)
        if name in ("glibc", "newlib", "mt19937"):
            yield Model(f"{name}-words", generator, 32, f"{title}, 32-bit words, first is highest")
            yield Model(f"{name}-words-low", generator, 32, f"{title}, 32-bit words, first is lowest", high_first=False)
            text = f"{title}, 32-bit words in little-endian memory, read as a big-endian number"
            yield Model(f"{name}-memory", generator, 32, text, swapped=True)
    python = GENERATORS["python"]
    yield Model("python-getrandbits", python, 32, "random.seed(n), random.getrandbits(bits)", high_first=False)
    yield Model("python-randbytes", python, 32, "random.seed(n), int.from_bytes(random.randbytes(n))", swapped=True)
    yield Model("python-bytes", python, 8, "random.seed(n), random.getrandbits(8) for each byte", shift=24)
    text = "new BigInteger(bits, new java.util.Random(seed)), or nextBytes"
    yield Model("java-biginteger", GENERATORS["java"], 32, text, swapped=True, clock="ms")
    yield Model(
        "java-probableprime",
        GENERATORS["java"],
        32,
        "BigInteger.probablePrime(bits, random) twice, random = new java.util.Random(seed); its tests draw, too",
        swapped=True,
        pairs=tuple((0, draw) for draw in range(2, 256)),
        tops=(1,),
        clock="ms",
    )
    for name in ("md5", "sha1", "sha256"):
        text = f"bytes of {name.upper()} of a counter (4 bytes, big-endian), of the counter plus 1, and so on"
        yield Model(f"{name}-counter", GENERATORS[name], 8, text, clock="")


MODELS: dict[str, Model] = {model.name: model for model in _models()}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the primes of a key come from.

    Attributes:
        model: name of the model.
        seed: of its generator.
        top: how many highest bits were set.
        draws: which two numbers of the stream.
    """

    model: str
    seed: int
    top: int
    draws: tuple[int, int]

    def starts(self, prime_bits: int) -> tuple[int, int]:
        """The two numbers that the primes were searched from.

        Raises:
            KeyError: no such model.
        """
        return _starts(self, prime_bits)

    def factor(self, modulus: int) -> int | None:
        """The prime factor above the first number, if it leads to this modulus: exact, a millisecond."""
        model = MODELS.get(self.model)
        size = prime_bits(modulus)
        if model is None or not model.fits(size) or not 0 <= self.seed < 1 << model.generator.seed_bits:
            return None
        return prime_of(modulus, *self.starts(size))


@lru_cache(64)
def _starts(origin: Origin, prime_bits: int) -> tuple[int, int]:
    """Kept for the case that many moduli agree with one seed, as somebody might arrange."""
    model = MODELS[origin.model]
    one, two = (model.start(origin.seed, prime_bits, draw, origin.top) for draw in origin.draws)
    return one, two


def prime_bits(modulus: int) -> int:
    """Size of the primes that are assumed: half of the modulus', rounded up."""
    return (modulus.bit_length() + 1) // 2


@dataclass(frozen=True)
class Group:
    """Moduli whose primes have one size: leading bits as fractions of 2^(2 prime_bits), sorted, infinity at the end.

    Attributes:
        prime_bits: size of the primes.
        fractions: of the moduli, rising.
        which: their positions in what ``Targets`` was made of.
        marked: for each of as many equal parts of 0 to 1 whether a fraction is in it or next to it.
    """

    prime_bits: int
    fractions: Floats
    which: NDArray[np.int64]
    marked: NDArray[np.bool_]

    @classmethod
    def of(cls, size: int, moduli: Sequence[int], which: Sequence[int]) -> Group:
        """Sort."""
        tops = np.array([modulus >> (modulus.bit_length() - 64) for modulus in moduli], dtype=np.uint64)
        shorts = np.array([2 * size - modulus.bit_length() for modulus in moduli])
        fractions = np.ldexp(tops.astype(np.float64), -64 - shorts)
        order = np.argsort(fractions, kind="stable")
        fractions = fractions[order]
        parts = 1 << min(max(12, len(moduli).bit_length() + 6), 26)
        marked = np.zeros(parts + 2, np.bool_)
        for factor in (1 - TOLERANCE, 1.0, 1 + TOLERANCE):
            marked[(fractions * (factor * parts)).astype(np.int64)] = True
        return cls(size, np.append(fractions, np.inf), np.array(which, np.int64)[order], marked)

    def find(self, products: Floats) -> Iterator[tuple[int, int]]:
        """(row, position of the modulus) of products that agree with a modulus."""
        parts = len(self.marked) - 2
        rows = np.flatnonzero(self.marked[(products * parts).astype(np.int64)])
        if not len(rows):
            return
        begins = np.searchsorted(self.fractions, products[rows] * (1 - TOLERANCE))
        ends = products[rows] * (1 + TOLERANCE)
        for hit in np.flatnonzero(self.fractions[begins] <= ends).tolist():
            place = int(begins[hit])
            while self.fractions[place] <= ends[hit]:
                yield int(rows[hit]), int(self.which[place])
                place += 1


@dataclass(frozen=True)
class Targets:
    """All moduli of a fleet, as far as a search can find them. Holds no moduli: cheap to send to workers."""

    groups: tuple[Group, ...]

    @classmethod
    def of(cls, moduli: Sequence[int]) -> Targets:
        """Those moduli whose size some model fits; positions count in ``moduli``."""
        sizes: dict[int, list[int]] = {}
        for place, modulus in enumerate(moduli):
            size = prime_bits(modulus) if modulus > 0 else 0
            if modulus & 1 and LEAST_PRIME <= size <= MOST_PRIME and size % 8 == 0:
                sizes.setdefault(size, []).append(place)
        groups = (Group.of(size, [moduli[place] for place in which], which) for size, which in sizes.items())
        return cls(tuple(groups))

    def __len__(self) -> int:
        return sum(len(group.which) for group in self.groups)

    def covered(self, models: Iterable[Model]) -> int:
        """How many of them have a size that one of these models fits."""
        some = list(models)
        return sum(len(group.which) for group in self.groups if any(one.fits(group.prime_bits) for one in some))

    def portions(self) -> Iterator[Targets]:
        """A few sizes at a time, those of most keys first: what ``search`` holds in memory grows with the sizes."""
        groups = sorted(self.groups, key=lambda group: -len(group.which))
        yield from (Targets(tuple(groups[first : first + SIZES])) for first in range(0, len(groups), SIZES))


def search(targets: Targets, models: Iterable[Model], seeds: Array) -> Iterator[tuple[int, Origin]]:
    """Candidates among some seeds: positions of moduli with what may be their origin, to be confirmed.

    Args:
        targets: the moduli; of few sizes (``portions``).
        models: of one generator, whose outputs they share.
        seeds: within the generator's range; some thousands (``BLOCK``) at a time are the cheapest.
    """
    tasks = [(model, group) for model in models for group in targets.groups if model.fits(group.prime_bits)]
    if not tasks:
        return
    places = {
        place
        for model, group in tasks
        for pair in model.pairs
        for draw in pair
        for place in model.places(group.prime_bits, draw)
    }
    outputs = tasks[0][0].generator.at(seeds, sorted(places))
    for model, group in tasks:
        draws = sorted({draw for pair in model.pairs for draw in pair})
        leading = {draw: model.leading(outputs, group.prime_bits, draw) for draw in draws}
        for top in model.tops:
            forced = np.uint64(((1 << top) - 1) << (64 - top))
            numbers = {draw: (value | forced).astype(np.float64) * 2.0**-64 for draw, value in leading.items()}
            for pair in model.pairs:
                for row, modulus in group.find(numbers[pair[0]] * numbers[pair[1]]):
                    yield modulus, Origin(model.name, int(seeds[row]), top, pair)


# What earlier searches found


def _remembered_at() -> Path:
    return lookup.data_folder() / "lists" / "seeds.txt"


@cache
def _remembered(path: Path) -> dict[bytes, Origin]:
    """By SHA-256 of the modulus."""
    found = {}
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, ValueError):
        return {}
    for line in lines:
        with suppress(ValueError):
            digest, model, seed, top, one, two = line.split()
            pair = (int(one), int(two))
            if model in MODELS and pair in MODELS[model].pairs and int(top) in MODELS[model].tops:
                found[bytes.fromhex(digest)] = Origin(model, int(seed), int(top), pair)
    return found


def remember(modulus: int, origin: Origin) -> None:
    """Keep what a search found among the user's lists, for their eyes only; do without if that fails."""
    path = _remembered_at()
    with suppress(OSError):
        before = path.read_text("ascii", "replace") if path.exists() else ""
        one, two = origin.draws
        line = f"{number_digest(modulus).hex()} {origin.model} {origin.seed} {origin.top} {one} {two}\n"
        if line not in before:
            lookup.write_atomically(path, (before + line).encode("ascii", "replace"), mode=0o600)
    _remembered.cache_clear()


def remembered(moduli: Sequence[int]) -> Iterator[tuple[int, Origin]]:
    """Positions of moduli that earlier searches found, with their origins: to be confirmed like candidates."""
    known = _remembered(_remembered_at())
    if not known:
        return
    for place, modulus in enumerate(moduli):
        origin = known.get(number_digest(modulus))
        if origin is not None:
            yield place, origin
