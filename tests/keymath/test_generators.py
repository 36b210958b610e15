"""Generators: arrays against the definition, the definition against other people's programs."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.keymath.generators import GENERATORS, Generator

EVERY = pytest.mark.parametrize("generator", GENERATORS.values(), ids=list(GENERATORS))


def first(name: str, seed: int, count: int) -> list[int]:
    """Outputs by the definition."""
    return list(islice(GENERATORS[name].outputs(seed), count))


@EVERY
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_arrays_agree_with_the_definition(generator: Generator, data: st.DataObject) -> None:
    limit = (1 << generator.seed_bits) - 1
    edges = st.sampled_from([0, 1, limit, min(1 << 31, limit), min((1 << 31) - 1, limit), min(1 << 32, limit)])
    seeds = data.draw(st.lists(st.integers(0, limit) | edges, min_size=1, max_size=4))
    places = data.draw(st.lists(st.integers(0, 700), min_size=1, max_size=6))
    found = generator.at(np.array(seeds, np.uint64), places)
    assert set(found) == set(places)
    for row, seed in enumerate(seeds):
        outputs = list(islice(generator.outputs(seed), max(places) + 1))
        assert {place: int(values[row]) for place, values in found.items()} == {p: outputs[p] for p in places}


@EVERY
def test_few_places_are_as_good_as_all(generator: Generator) -> None:
    seeds = np.array([3, 77], np.uint64)
    everything = generator.at(seeds, range(1_300))
    for place in (0, 226, 227, 453, 454, 622, 623, 624, 1_247, 1_299):
        assert (generator.at(seeds, [place])[place] == everything[place]).all(), place


@EVERY
def test_the_program_of_a_proof_is_the_generator(generator: Generator) -> None:
    for seed in (0, 5, (1 << generator.seed_bits) - 1):
        names: dict[str, object] = {}
        exec(generator.program, names)
        made = list(islice(names["g"](seed), 700))  # type: ignore[operator]
        assert made == list(islice(generator.outputs(seed), 700))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is asked")
@pytest.mark.parametrize("seed", [0, 1, 42, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1])
def test_glibc_agrees(seed: int) -> None:
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        pytest.skip("no glibc")
    libc.srand(ctypes.c_uint(seed))
    assert [libc.rand() for _ in range(700)] == first("glibc", seed, 700)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is asked")
@pytest.mark.parametrize("seed", [1, 42, 2**31 - 1])
def test_glibc_type_0_agrees(seed: int) -> None:
    """initstate with 8 bytes of state makes random() the congruential generator."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        pytest.skip("no glibc")
    libc.initstate.restype = libc.setstate.restype = ctypes.c_void_p
    libc.setstate.argtypes = [ctypes.c_void_p]
    state = ctypes.create_string_buffer(8)
    before = libc.initstate(ctypes.c_uint(seed), state, ctypes.c_size_t(8))
    try:
        assert [libc.random() for _ in range(100)] == first("type0", seed, 100)
    finally:
        libc.setstate(before)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**63 + 12345])
def test_python_agrees(seed: int) -> None:
    random = Random(seed)
    assert [random.getrandbits(32) for _ in range(700)] == first("python", seed, 700)


def test_the_published_values() -> None:
    # Matsumoto and Nishimura's default seed; C++ [rand.predef]: the 10,000th value of each
    assert first("mt19937", 5489, 10_000)[-1] == 4123659995
    assert first("minstd0", 1, 10_000)[-1] == 1043618065
    assert first("minstd", 1, 10_000)[-1] == 399268537
    # Microsoft's and ANSI C's rand() after srand(1)
    assert first("msvc", 1, 3) == [41, 18467, 6334]
    assert first("ansi", 1, 3) == [16838, 5758, 10113]


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java here")
@pytest.mark.slow
def test_java_agrees(tmp_path: Path) -> None:
    source = tmp_path / "Draw.java"
    source.write_text(
        "public class Draw { public static void main(String[] a) { for (String s : a) {"
        " java.util.Random r = new java.util.Random(Long.parseLong(s));"
        " for (int i = 0; i < 50; i++) System.out.println(r.nextInt() & 0xffffffffL); } } }"
    )
    seeds = [0, 42, 1_709_287_200_123, 2**63 - 1]
    done = subprocess.run(["java", str(source), *map(str, seeds)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("Java cannot run a source file here")
    expected = [value for seed in seeds for value in first("java", seed, 50)]
    assert [int(line) for line in done.stdout.split()] == expected
