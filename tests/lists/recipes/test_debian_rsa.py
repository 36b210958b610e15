"""The compiled loops say what Python says, of every candidate and every kind of number; without them all still works."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from random import Random

import gmpy2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.lists.recipes import debian_rsa
from keyassay.lists.recipes.debian_openssl import (
    ARCHS,
    STATES,
    USUAL,
    VARIANTS,
    Draws,
    Stream,
    candidate,
    delta_search,
    rsa_keys,
    witness_of,
)
from keyassay.lists.recipes.debian_rsa import SIZES, Loops, Reader

PRIMES = {bits: int(gmpy2.next_prime(13 << (bits - 4))) for bits in SIZES}


#: what the two kinds of Fermat's test need of a processor
NEEDED = {False: {"avx2", "fma"}, True: {"avx2", "fma", "avx512f", "avx512ifma"}}


def runs(wide: bool) -> bool:
    return NEEDED[wide] <= set(Path("/proc/cpuinfo").read_text(encoding="ascii").split())


@pytest.fixture(scope="module")
def library():
    if not runs(wide=False):
        pytest.skip("this processor has neither AVX2 nor FMA")
    with debian_rsa.compiled() as path:
        assert path is not None, "there is a compiler, and what it makes is right"
        yield path


@pytest.fixture(scope="module", params=[False, True] if runs(wide=True) else [False], ids=str)
def loops(library, request):
    return Loops(library, wide=request.param)


@pytest.fixture
def in_use(loops, monkeypatch):
    monkeypatch.setattr(debian_rsa, "_loops", loops)


def is_one(number: int) -> bool:
    return gmpy2.powmod(2, number - 1, number) == 1


def rows(numbers: list[int], bits: int) -> list[bytes]:
    return [int(number).to_bytes(bits // 8, "little") for number in numbers]


@pytest.mark.parametrize("bits", SIZES)
def test_fermat_of_numbers_at_the_edges(loops, bits):
    top, all_ones = 1 << (bits - 1), (1 << bits) - 1
    numbers = [
        top + 1,
        all_ones,
        all_ones - (1 << (bits // 2)),
        int("10" * (bits // 2), 2) + 1,
        top | (1 << 52) + 1,  # 1 modulo 2^52
        top | (1 << 52) - 1,  # -1 modulo 2^52, limbs of zeros above
        all_ones - ((1 << 52) - 2),
        int(gmpy2.next_prime(top)),
        int(gmpy2.next_prime(all_ones - (1 << 64))),
        int(gmpy2.next_prime(3 << (bits - 2))),
    ]
    assert all(number.bit_length() == bits for number in numbers)
    assert loops.fermat(rows(numbers, bits), bits) == [is_one(number) for number in numbers]
    assert sum(loops.fermat(rows(numbers, bits), bits)) >= 3


def test_fermat_of_a_pseudoprime_to_base_2(loops):
    # p (2p - 1) with both prime and p = 1 modulo 4, so that 2 is a square modulo 2p - 1
    root = int(gmpy2.isqrt(3 << 1021))
    p = root - root % 4 + 90_961
    number = p * (2 * p - 1)
    assert number.bit_length() == 1024
    assert is_one(number)
    assert loops.fermat(rows([number, number + 2], 1024), 1024) == [True, False]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_fermat_of_any_odd_numbers(loops, data):
    bits = data.draw(st.sampled_from(SIZES))
    numbers = data.draw(
        st.lists(st.integers(1 << (bits - 1), (1 << bits) - 1).map(lambda n: n | 1), min_size=1, max_size=6)
    )
    numbers.insert(data.draw(st.integers(0, len(numbers))), PRIMES[bits])
    assert loops.fermat(rows(numbers, bits), bits) == [is_one(number) for number in numbers]


def test_the_best_kind_that_the_processor_runs(library):
    assert Loops(library).wide == runs(wide=True)
    if not runs(wide=True):
        with pytest.raises(OSError, match="does not run"):
            Loops(library, wide=True)


FURTHER = [p for p in range(17_864, 165_141) if gmpy2.is_prime(p)]


@pytest.mark.parametrize("bits", [1536, 2048])
def test_every_further_prime_divides(library, bits):
    if not runs(wide=True):
        pytest.skip("this processor has no AVX512-IFMA")
    loops = Loops(library)
    random = Random(bits)
    numbers = []
    for prime in FURTHER:
        number = (random.getrandbits(bits) | 3 << (bits - 2)) // prime * prime
        numbers.append(number if number % 2 else number - prime)
    assert not any(loops.undivided(rows(numbers, bits), bits))
    assert len(FURTHER) == 13_056
    assert (FURTHER[0], FURTHER[-1]) == (17_881, 165_133)
    others = [random.getrandbits(bits) | 3 << (bits - 2) | 1 for _ in range(1_001)]  # not a multiple of 4
    others += [int(gmpy2.next_prime(others[0])), 17_863 ** (bits // 15), 165_161 ** (bits // 18)]
    product = gmpy2.mpz(np.prod(np.array(FURTHER, dtype=object)))
    said = loops.undivided(rows(others, bits), bits)
    assert said == [gmpy2.gcd(number, product) == 1 for number in others]
    assert 0 < sum(said[:1_001]) < 1_001
    assert said[1_001:] == [True, True, True]


def test_there_is_no_loop_for_another_size(loops):
    with pytest.raises(ValueError, match="no loop for 512 bits"):
        loops.fermat([b"\xff" * 64], 512)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("bits", [1024, 1536])
def test_reading_ahead_as_python_does(loops, arch, bits):
    stream = Stream(arch, STATES[bits % 3], 1 if bits == 1024 else 31_000)
    draws, reader = Draws(stream, bits // 8), Reader(loops, stream, bits)
    read, after = reader.ahead(0, 150)
    at = 0
    for row, block, witness in read:
        assert block == at
        number = candidate(draws[at], bits)
        delta = delta_search(bits)([number])[0]
        assert int.from_bytes(row, "little") == number + delta
        at += 1
        while witness_of(draws[at], bits) >= number + delta - 1:
            at += 1
        assert witness == at
        at += 1
    assert after == at
    assert [reader[index] for index in range(at)] == [draws[index] for index in range(at)]
    assert reader.ahead(read[9][1], 3)[0] == read[9:12]


@pytest.mark.parametrize(
    ("bits", "variant"), [(2048, USUAL), (2048, VARIANTS["2nd"]), (2048, VARIANTS["rf2"]), (3072, USUAL), (4096, USUAL)]
)
def test_the_same_keys(in_use, bits, variant):
    random = Random(bits + variant.earlier)
    streams = [
        Stream(random.choice(variant.archs), random.choice(variant.states), random.randrange(32_768)) for _ in range(3)
    ]
    assert debian_rsa.rsa_keys_of(streams, bits, variant) == [rsa_keys(stream, bits, variant) for stream in streams]


def test_a_prime_that_the_exponent_refuses(in_use):
    stream = Stream("le64", "rnd", 3_560)  # its first key of 3072 bits depends on the exponent
    keys = debian_rsa.rsa_keys_of([Stream("le64", "rnd", 3_559), stream], 3072)
    assert [set(one) for one in keys] == [{65537}, {65537, 3}]
    assert keys[1] == rsa_keys(stream, 3072)


def test_more_streams_than_run_at_once(in_use, monkeypatch):
    monkeypatch.setattr(debian_rsa, "_STREAMS", 3)
    monkeypatch.setattr(debian_rsa, "_TOGETHER", 2)
    streams = [Stream("be32", "direct", pid) for pid in range(7)]
    assert debian_rsa.rsa_keys_of(streams, 2048) == [rsa_keys(stream, 2048) for stream in streams]


def test_a_loop_that_errs_is_noticed(in_use, monkeypatch):
    missed = []

    def once(self, rows, bits):
        verdicts = right(self, rows, bits)
        if any(verdicts) and not missed:
            missed.append(rows)
            return [False] * len(rows)
        return verdicts

    right = Loops.fermat
    monkeypatch.setattr(Loops, "fermat", once)
    with pytest.raises(ArithmeticError, match="make another key of arch=le32 state=rnd pid=5"):
        debian_rsa.rsa_keys_of([Stream("le32", "rnd", 5)], 2048)


def test_a_composite_that_passes_is_noticed(in_use, monkeypatch):
    asked = []

    def once(self, rows, bits):
        asked.extend(rows)
        return right(self, rows, bits) if len(asked) > 3 else [True] * len(rows)

    right = Loops.fermat
    monkeypatch.setattr(Loops, "fermat", once)
    with pytest.raises(ArithmeticError, match="take a composite number for a prime of arch=le32 state=rnd pid=5"):
        debian_rsa.rsa_keys_of([Stream("le32", "rnd", 5)], 2048)


def test_without_the_loops():
    assert debian_rsa._loops is None
    streams = [Stream("le32", "rnd", 7), Stream("le32", "rnd", 8)]
    assert debian_rsa.rsa_keys_of(streams, 1024) == [rsa_keys(stream, 1024) for stream in streams]
    assert debian_rsa.rsa_keys_of([], 2048) == []


@pytest.mark.parametrize("compiler", ["/nonexistent/cc", "false", "true", ""])
def test_no_compiler_is_no_error(monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    with debian_rsa.compiled() as path:
        assert path is None


def test_a_library_that_is_wrong_is_not_used(monkeypatch, tmp_path, loops):
    source = debian_rsa._SOURCE.read_text()
    broken = tmp_path / "debian_rsa.c"
    bits = 512 if loops.wide else 256
    broken.write_text(
        source.replace(
            f"lo = _mm{bits}_srli_epi64(_mm{bits}_add_epi64(lo, mask), 52);", f"lo = _mm{bits}_srli_epi64(lo, 52);"
        )
    )
    assert broken.read_text() != source
    monkeypatch.setattr(debian_rsa, "_SOURCE", broken)
    with debian_rsa.compiled() as path:
        assert (path is None) == (loops.wide == runs(wide=True))
        if path is not None:  # the kind that this processor uses is right
            with pytest.raises(OSError, match="does not run"):
                Loops(path, wide=loops.wide)


def test_the_library_lies_in_a_folder_of_its_own(loops):
    with debian_rsa.compiled() as path:
        assert path is not None
        status = path.parent.stat()
        assert stat.S_IMODE(status.st_mode) == 0o700
        assert status.st_uid == os.geteuid()
    assert not path.exists()
