"""Second opinions on the vectors of generators without a seed of which one prime is in the key.

Outputs are drawn by the originals: Python's by its random module, GMP's by its C library, which gmpy2 brings along or
stands on. Java's are drawn from its documentation. sympy says what is prime.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import gmpy2
import pytest
from sympy import isprime

from keyassay.bulk.deep import examine_deeply
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, check
from keyassay.findings import Profile
from keyassay.lists.recipes.unseeded import GENERATORS, first_outputs
from vectors_of_checks import Case, cases_of

NAMED = re.compile(
    r"(?P<name>[a-z\d-]+?)(?:-lc-(?P<size>\d+))? seed=(?P<seed>\d+), output (?P<place>\d+) of (?P<bits>\d+) bits, "
    r"(?P<tweak>plain|top|top2), (?P<which>.*), and a random one"
)
ONE_OF_TWO = [case for case in cases_of("rsa-unseeded-prng") if NAMED.fullmatch(case.name)]
[TWO_STREAMS] = [case for case in cases_of("rsa-unseeded-prng") if case.name.startswith("two streams")]


@cache
def libgmp() -> ctypes.CDLL:
    """The library that gmpy2 has loaded."""
    beside = sorted((Path(gmpy2.__file__).parent.parent / "gmpy2.libs").glob("libgmp-*"))
    name = str(beside[0]) if beside else ctypes.util.find_library("gmp")
    assert name, "gmpy2 stands on GMP, so the library is there"
    return ctypes.CDLL(name)


def from_gmp(size: int | None, seed: int | None, place: int, bits: int) -> int:
    """Output ``place`` of gmp_randinit_mt or, with the size of a state, of gmp_randinit_lc_2exp_size, which wants half.

    Without a seed: what the library gives when nobody has seeded it.
    """
    library = libgmp()
    state, number = ctypes.create_string_buffer(256), ctypes.create_string_buffer(64)
    if size is None:
        library["__gmp_randinit_mt"](state)
    else:
        assert library["__gmp_randinit_lc_2exp_size"](state, ctypes.c_ulong(size // 2))
    if seed is not None:
        library["__gmp_randseed_ui"](state, ctypes.c_ulong(seed))
    library["__gmpz_init"](number)
    for _ in range(place):
        library["__gmpz_urandomb"](number, state, ctypes.c_ulong(bits))
    text = ctypes.create_string_buffer(bits // 4 + 2)
    library["__gmpz_get_str"](text, 16, number)
    library["__gmpz_clear"](number)
    library["__gmp_randclear"](state)
    return int(text.value, 16)


def from_python(seed: int, place: int, bits: int) -> int:
    random = Random(seed)
    return [random.getrandbits(bits) for _ in range(place)][-1]


def from_java(seed: int, place: int, bits: int) -> int:
    """BigInteger(numBits, rnd) takes rnd.nextBytes of (numBits + 7)/8 bytes, and nextBytes takes each nextInt's lowest
    byte first; next(32) is (int)(seed >>> 16) after seed = (seed * 0x5DEECE66DL + 0xBL) & ((1L << 48) - 1).
    """
    seed = (seed ^ 0x5DEECE66D) & ((1 << 48) - 1)
    drawn: list[int] = []
    while len(drawn) < place * bits // 8:
        seed = (seed * 0x5DEECE66D + 0xB) & ((1 << 48) - 1)
        word = seed >> 16
        drawn += [word & 255, word >> 8 & 255, word >> 16 & 255, word >> 24]
    return int.from_bytes(bytes(drawn[(place - 1) * bits // 8 : place * bits // 8]), "big")


ORIGINALS: dict[str, Callable[[int, int, int], int]] = {"python": from_python, "java": from_java}


@pytest.mark.parametrize("name", [name for name in GENERATORS if name.startswith("gmp-")])
def test_every_stream_of_gmp_is_the_librarys(name: str) -> None:
    size, seed = re.fullmatch(r"gmp-(?:mt|lc-(\d+)) seed=(\d+)", name).groups()  # type: ignore[union-attr]
    drawn = [from_gmp(int(size) if size else None, int(seed), place, 512) for place in range(1, 25)]
    assert first_outputs(name, 512, 24) == tuple(drawn)


@pytest.mark.parametrize("case", ONE_OF_TWO, ids=str)
def test_one_prime_is_where_the_name_says(case: Case) -> None:
    told = NAMED.fullmatch(case.name)
    assert told is not None
    seed, place, bits = (int(told[part]) for part in ("seed", "place", "bits"))
    if told["name"] in ORIGINALS:
        output = ORIGINALS[told["name"]](seed, place, bits)
    else:
        size = int(told["size"]) if told["size"] else None
        output = from_gmp(size, seed, place, bits)
        if seed == (5489 if size is None else 1):  # what the library has before anybody seeds it
            assert output == from_gmp(size, None, place, bits)
    top = {"plain": 0, "top": 1 << (bits - 1), "top2": 3 << (bits - 2)}[told["tweak"]]
    p, q = case.private["p"], case.private["q"]
    assert isprime(p)
    assert isprime(q)
    distance = p - (output | top)
    between = {"the next prime": range(distance), "the last prime within 2^16": range(distance + 1, 1 << 16)}
    between["the first prime beyond 2^16"] = range(1 << 16, distance)
    assert not any(isprime((output | top) + other) for other in between[told["which"]])
    # what the page promises: the seeds and sizes that it names, the first 24 outputs, 2^16 above each
    seeds = {"python": {0, 1, 42}, "java": {0, 1, 42}, "gmp-mt": {5489, 0, 1, 42}}.get(told["name"], {0, 1})
    promised = seed in seeds and place <= 24 and bits in {512, 1024, 1536, 2048} and 0 <= distance < 1 << 16
    assert promised is (case.verdict == "weak")


def test_the_primes_of_two_streams_are_next_to_first_outputs() -> None:
    for name, p in (("python", TWO_STREAMS.private["p"]), ("java", TWO_STREAMS.private["q"])):
        start = ORIGINALS[name](0, 1, 512) | 3 << 510
        assert isprime(p)
        assert p > start
        assert not any(isprime(other) for other in range(start, p))


@pytest.mark.parametrize("case", [case for case in ONE_OF_TWO if case.verdict == "near-miss"], ids=str)
def test_near_misses_are_left_alone_by_the_deep_step_too(case: Case) -> None:
    key = case.items[0].key
    assert isinstance(key, RsaPublicKey)
    findings, _ = examine_deeply(key, [check("rsa-unseeded-prng")], Context(profile=Profile.DEEP), 60.0)
    assert not findings
