"""RSA keys of many Debian streams in step, by compiled loops where a C compiler and the processor permit it.

Some times as fast as ``debian_openssl.rsa_keys`` stream by stream, and the same keys: what the loops say is compared
with Python before they are used, the primes of a key are tested again by another library (to base 2, by which a number
of that size that was not chosen to deceive passes only if it is prime), and one key of every call is made in both ways.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random

import gmpy2

from keyassay.lists.accelerator import pair_test
from keyassay.lists.recipes.debian_openssl import (
    USUAL,
    RsaKey,
    Stream,
    Variant,
    after_rounds,
    further_divisors,
    rsa_keys,
    start_of,
    without_divisors,
)

_SOURCE = Path(__file__).with_suffix(".c")
#: rounding must not be assumed, nor products and sums fused that are not written so
_FLAGS = ("-O3", "-mavx2", "-mfma", "-frounding-math", "-ffp-contract=off", "-shared", "-fPIC")
#: bits of a prime -> limit of the primes that candidates are divided by before an exponentiation (0: none pays), where
#: the loops do not divide themselves
_DIVISOR_LIMITS = {1024: 0, 1536: 1 << 19, 2048: 1 << 20}
SIZES = tuple(_DIVISOR_LIMITS)
#: streams in step, candidates that one reads ahead, and streams that have to wait before candidates are sieved together
_STREAMS, _AHEAD, _TOGETHER = 128, 12, 32


class Loops:
    """The compiled library: Fermat's test, and reading ahead in a stream.

    Raises:
        OSError: it cannot be loaded, the processor lacks AVX2 or FMA, or it says what Python does not say.
    """

    def __init__(self, path: Path, *, wide: bool | None = None) -> None:
        """Load and try them; ``wide`` asks for one of the two kinds of Fermat's test, the best by default."""
        library = ctypes.CDLL(str(path))
        number, large, place, text = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_char_p
        library.stream_open.restype = place
        library.stream_open.argtypes = [text, text, number, large, large, number, number, text, number, number]
        library.stream_close.restype = None
        library.stream_close.argtypes = [place]
        library.stream_block.restype = None
        library.stream_block.argtypes = [place, number, text]
        library.table_open.restype = place
        library.table_open.argtypes = [number]
        library.read_ahead.restype = ctypes.c_int64
        library.read_ahead.argtypes = [place, place, number, number, place, place]
        library.divisors_open.restype = place
        library.divisors_open.argtypes = [number]
        library.undivided.restype = None
        library.undivided.argtypes = [place, text, number, number, text]
        library.fermat.argtypes = [text, number, number, ctypes.c_int, text]
        self.library = library
        self._opened: dict[tuple[str, int], int] = {}
        usable = library.usable()
        #: whether Fermat's test takes eight numbers at a time by AVX512-IFMA, or four by AVX2
        self.wide = usable > 1 if wide is None else wide
        if usable < 1 + self.wide or not all(self._agrees(bits) for bits in SIZES):
            raise OSError("this processor does not run the compiled loops")

    def _agrees(self, bits: int) -> bool:
        """Whether primes pass and composites fail, in all lanes."""
        random = Random(bits)  # noqa: S311  any numbers will do
        odd = [random.getrandbits(bits) | 3 << (bits - 2) | 1 for _ in range(6)]
        primes = [int(gmpy2.next_prime(number)) for number in odd[:2]]
        numbers = [primes[0], *odd, primes[1], *odd[:3], primes[0], *odd[3:], primes[1]]
        rows = [number.to_bytes(bits // 8, "little") for number in numbers]
        return self.fermat(rows, bits) == [number in primes for number in numbers]

    def fermat(self, rows: Sequence[bytes], bits: int) -> list[bool]:
        """Whether 2^(n-1) = 1 modulo n, for odd numbers of exactly ``bits`` bits (one of ``SIZES``), little-endian."""
        filled = [*rows, *[rows[0]] * (-len(rows) % 8)]
        answers = ctypes.create_string_buffer(len(filled))
        if self.library.fermat(b"".join(filled), bits, len(filled), self.wide, answers) != 0:
            raise ValueError(f"there is no loop for {bits} bits")
        return [bool(answer) for answer in answers.raw[: len(rows)]]

    def undivided(self, rows: Sequence[bytes], bits: int) -> list[bool]:
        """Whether no prime from 17,881 to 165,133 divides odd numbers of ``bits`` bits; only if ``wide``."""
        answers = ctypes.create_string_buffer(len(rows))
        self.library.undivided(self._prepared("divisors_open", bits), b"".join(rows), bits, len(rows), answers)
        return [bool(answer) for answer in answers.raw[: len(rows)]]

    def table(self, bits: int) -> int:
        """The original's small primes, prepared for candidates of that size; made once."""
        return self._prepared("table_open", bits)

    def _prepared(self, opener: str, bits: int) -> int:
        """What a function of the library prepares for a size, made once."""
        if (opener, bits) not in self._opened:
            self._opened[opener, bits] = getattr(self.library, opener)(bits) or 0
        if not self._opened[opener, bits]:
            raise MemoryError
        return self._opened[opener, bits]


class Reader:
    """A stream's blocks, and its candidates for primes of ``bits`` bits as if all were composite."""

    def __init__(self, loops: Loops, stream: Stream, bits: int, variant: Variant = USUAL) -> None:
        start = start_of(stream, variant)
        self._library = loops.library
        self._table = loops.table(bits)
        self._size = bits // 8
        self._handle = self._library.stream_open(
            start.ring, start.md, start.idx, start.c0, start.c1, start.long, start.big, start.pid, len(start.pid),
            self._size,
        )  # fmt: skip
        if not self._handle:
            raise MemoryError

    def __del__(self) -> None:
        self._library.stream_close(getattr(self, "_handle", None))

    def __getitem__(self, index: int) -> bytes:
        block = ctypes.create_string_buffer(self._size)
        self._library.stream_block(self._handle, index, block)
        return block.raw

    def ahead(self, position: int, count: int) -> tuple[list[tuple[bytes, int, int]], int]:
        """Candidates from a block on as (little-endian number, its block, its witness's), and the next block."""
        numbers = ctypes.create_string_buffer(count * self._size)
        places = (ctypes.c_uint32 * (2 * count))()
        after = self._library.read_ahead(self._handle, self._table, position, count, numbers, places)
        if after < 0:
            raise MemoryError
        raw = numbers.raw
        rows = [raw[at : at + self._size] for at in range(0, len(raw), self._size)]
        return list(zip(rows, places[::2], places[1::2], strict=True)), after


@contextmanager
def compiled() -> Iterator[Path | None]:
    """The loops as a library that lasts as long as the context; None where they cannot be had.

    ``CC`` names the compiler, ``cc`` by default; it takes some seconds.
    """
    words = shlex.split(os.environ.get("CC", "cc"))
    with tempfile.TemporaryDirectory(prefix="keyassay-") as folder:
        library: Path | None = Path(folder) / "debian_rsa.so"
        try:
            command = [*words, *_FLAGS, "-o", str(library), str(_SOURCE)]
            subprocess.run(command, check=True, capture_output=True, timeout=300)  # noqa: S603  the user's compiler
            Loops(Path(folder) / "debian_rsa.so")
        except (OSError, subprocess.SubprocessError):
            library = None
        yield library


_loops: Loops | None = None


def use(library: Path | None, *, wide: bool | None = None) -> None:
    """Let this process have the loops that ``compiled`` made; None takes them away. ``wide`` as for ``Loops``."""
    global _loops  # noqa: PLW0603  a process has them or not
    _loops = None if library is None else Loops(library, wide=wide)


@dataclass(slots=True)
class _Search:
    """Where a stream is on its way to its key."""

    index: int
    blocks: Reader
    position: int = 0
    #: (candidate as little-endian bytes, its block, its witness's), the next one last
    queue: list[tuple[bytes, int, int]] = field(default_factory=list)
    primes: list[tuple[int, int]] = field(default_factory=list)


def rsa_keys_of(streams: Sequence[Stream], bits: int, variant: Variant = USUAL) -> list[dict[int, RsaKey]]:
    """What ``rsa_keys`` says of each stream, for even ``bits``; in step if this process has the loops for that size.

    Raises:
        ArithmeticError: the loops made another key than Python, or one that is not of primes; neither compiler nor
            processor can be trusted.
    """
    if _loops is None or bits // 2 not in SIZES or not streams:
        return [rsa_keys(stream, bits, variant) for stream in streams]
    first = rsa_keys(streams[0], bits, variant)
    test = pair_test(bits // 2)
    found: dict[int, list[tuple[int, int]]] = dict(_in_step(_loops, streams, bits // 2, variant))
    answer = []
    for index, stream in enumerate(streams):
        primes = found[index]
        # A prime that the exponent refuses, or the same one twice, makes the way branch.
        if any(prime % 65537 == 1 for prime, _ in primes) or len({prime for prime, _ in primes}) < len(primes):
            answer.append(rsa_keys(stream, bits, variant))
            continue
        (p, block), (q, second) = primes[-2:]
        if test(p, q) != (True, True):
            raise ArithmeticError(f"the compiled loops take a composite number for a prime of {stream}")
        answer.append({65537: RsaKey(p, q, (block, second))})
    if answer[0] != first:
        raise ArithmeticError(f"the compiled loops make another key of {streams[0]}")
    return answer


def _in_step(
    loops: Loops, streams: Sequence[Stream], bits: int, variant: Variant
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """The first primes of each stream with their blocks, as many as a key takes, as streams end."""
    wanted = 2 * variant.earlier + 2
    waiting = iter(enumerate(streams))
    running: list[_Search] = []
    while True:
        for index, stream in islice(waiting, _STREAMS - len(running)):
            running.append(_Search(index, Reader(loops, stream, bits, variant)))
        if not running:
            return
        empty = [search for search in running if not search.queue]
        if len(empty) >= min(_TOGETHER, len(running)):
            _refill(loops, empty, bits)
        tested = [search for search in running if search.queue]
        tests = [search.queue.pop() for search in tested]
        verdicts = loops.fermat([row for row, _, _ in tests], bits) if tests else []
        for search, (row, block, witness), passed in zip(tested, tests, verdicts, strict=True):
            if passed:
                prime = int.from_bytes(row, "little")
                search.primes.append((prime, block))
                search.position = after_rounds(search.blocks, prime, bits, witness + 1)
                search.queue.clear()
        yield from ((search.index, search.primes) for search in running if len(search.primes) == wanted)
        running = [search for search in running if len(search.primes) < wanted]


def _refill(loops: Loops, searches: list[_Search], bits: int) -> None:
    """Candidates for streams that have none left, without those that a further prime divides."""
    found: list[tuple[_Search, bytes, int, int]] = []
    for search in searches:
        rows, search.position = search.blocks.ahead(search.position, _AHEAD)
        found.extend((search, *row) for row in reversed(rows))
    limit = _DIVISOR_LIMITS[bits]
    if limit and loops.wide:
        verdicts = loops.undivided([row for _, row, _, _ in found], bits)
        found = [one for one, kept in zip(found, verdicts, strict=True) if kept]
    elif limit:
        numbers = [int.from_bytes(row, "little") for _, row, _, _ in found]
        found = [found[place] for place in without_divisors(numbers, further_divisors(limit))]
    for search, row, block, witness in found:
        search.queue.append((row, block, witness))
