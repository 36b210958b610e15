"""Models and the filter by leading bits: nothing is missed, and what agrees by chance is thrown away."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from random import Random

import gmpy2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keyassay.keymath.generators import GENERATORS
from keyassay.lists import lookup, seeds
from keyassay.lists.seeds import MODELS, TOLERANCE, Group, Model, Origin, Targets, search

EVERY = pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
RANDOM = Random(19)


def key_of(origin: Origin, size: int) -> tuple[int, int]:
    """The primes that a program of that model finds."""
    one, two = (int(gmpy2.next_prime(start - 1)) for start in origin.starts(size))
    return one, two


def fleet(count: int, bits: int) -> list[int]:
    """Odd numbers of that size, in place of other keys."""
    return [RANDOM.getrandbits(bits) | 1 << (bits - 1) | 1 for _ in range(count)]


@EVERY
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_the_filter_never_misses(model: Model, data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([one for one in (256, 264, 512, 1024) if model.fits(one)]))
    last = (1 << model.generator.seed_bits) - 1
    seed = data.draw(st.integers(0, last))
    origin = Origin(model.name, seed, data.draw(st.sampled_from(model.tops)), data.draw(st.sampled_from(model.pairs)))
    p, q = key_of(origin, size)
    assume(p != q)
    moduli = [*fleet(data.draw(st.integers(0, 70)), 2 * size), p * q]
    tried = np.array([seed - 1 if seed else 1, seed, seed + 1 if seed < last else 0], np.uint64)
    found = [one for place, one in search(Targets.of(moduli), [model], tried) if place == len(moduli) - 1]
    assert p in {one.factor(p * q) for one in found}
    assert origin.factor(p * q) == p


@EVERY
def test_leading_bits_are_those_of_the_number(model: Model) -> None:
    size = 512
    some = [RANDOM.getrandbits(min(model.generator.seed_bits, 40)) for _ in range(5)]
    for draw in (0, 1, model.pairs[-1][1]):
        outputs = model.generator.at(np.array(some, np.uint64), model.places(size, draw))
        leading = model.leading(outputs, size, draw).tolist()
        assert leading == [model.number(seed, size, draw) >> (size - 64) for seed in some]
        assert all(one < 1 << size for one in (model.number(seed, size, draw) for seed in some))


@settings(deadline=None)
@given(st.lists(st.integers(2**511, 2**512 - 1), min_size=1, max_size=50), st.data())
def test_a_group_finds_what_is_within_the_tolerance(moduli: list[int], data: st.DataObject) -> None:
    group = Group.of(256, moduli, range(len(moduli)))
    place = data.draw(st.integers(0, len(moduli) - 1))
    offset = data.draw(st.floats(-0.9, 0.9))
    product = np.array([0.3, moduli[place] / 2.0**512 * (1 + offset * TOLERANCE)])
    near = {other for row, other in group.find(product) if row == 1}
    assert place in near
    assert all(abs(moduli[other] / moduli[place] - 1) < 4 * TOLERANCE for other in near)


def test_false_hits_are_thrown_away() -> None:
    origin = Origin("msvc-bytes", 77, 1, (0, 1))
    one, two = origin.starts(512)
    moduli = [one * two + (RANDOM.getrandbits(800) | 1) for _ in range(5)]  # the same 200 leading bits
    moduli = [number | 1 for number in moduli]
    found = list(search(Targets.of(moduli), [MODELS["msvc-bytes"]], np.array([77], np.uint64)))
    assert {place for place, _ in found} == set(range(5))
    assert all(one.factor(moduli[place]) is None for place, one in found)


def test_a_factor_too_far_above_is_not_this_origin() -> None:
    origin = Origin("glibc-words", 5, 2, (0, 1))
    one, two = origin.starts(512)
    near = int(gmpy2.next_prime(one)) * int(gmpy2.next_prime(two))
    far = int(gmpy2.next_prime(one + (1 << 16))) * int(gmpy2.next_prime(two))
    assert origin.factor(near) is not None
    assert origin.factor(far) is None
    assert Origin("no such model", 5, 2, (0, 1)).factor(near) is None
    assert Origin("glibc-words", 1 << 32, 2, (0, 1)).factor(near) is None
    assert Origin("glibc-words", 5, 2, (0, 1)).factor(near >> 8 | 1) is None


def test_odd_and_small_moduli_are_left_out() -> None:
    moduli = [0, 1, 15, 2**512 + 1, *fleet(2, 1024), 1 << 1023, 2**2050 + 1, 2**9000 + 1, *fleet(1, 1023)]
    targets = Targets.of(moduli)
    assert sorted(place for group in targets.groups for place in group.which.tolist()) == [4, 5, 9]
    assert len(targets) == 3
    assert list(search(Targets.of([]), MODELS.values(), np.arange(4, dtype=np.uint64))) == []


def test_models_share_names_with_nothing_and_assume_something() -> None:
    assert {model.generator.name for model in MODELS.values()} == set(GENERATORS)
    assert all(model.assumes and model.unit in (8, 32) for model in MODELS.values())


def test_python_itself_makes_such_keys() -> None:
    random = Random(20_26)
    p, q = (int(gmpy2.next_prime(random.getrandbits(512) | 3 << 510)) for _ in "pq")
    assert Origin("python-getrandbits", 20_26, 2, (0, 1)).factor(p * q) == p
    random = Random(20_27)
    p, q = (int(gmpy2.next_prime(int.from_bytes(random.randbytes(64), "big") | 1 << 511)) for _ in "pq")
    assert Origin("python-randbytes", 20_27, 1, (0, 1)).factor(p * q) == p
    random = Random(20_28)
    octets = [bytes(random.getrandbits(8) for _ in range(64)) for _ in "pq"]
    p, q = (int(gmpy2.next_prime(int.from_bytes(one, "big") | 3 << 510)) for one in octets)
    assert Origin("python-bytes", 20_28, 2, (0, 1)).factor(p * q) == p


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java here")
@pytest.mark.slow
def test_java_itself_makes_such_keys(tmp_path: Path) -> None:
    source = tmp_path / "Keys.java"
    source.write_text(
        "import java.math.BigInteger; import java.util.Random; public class Keys {"
        " public static void main(String[] a) { for (long s = 1000; s < 1012; s++) {"
        " Random r = new Random(s); BigInteger n = BigInteger.probablePrime(512, r);"
        " System.out.println(n.multiply(BigInteger.probablePrime(512, r)));"
        " r = new Random(s); n = new BigInteger(512, r).setBit(511).nextProbablePrime();"
        " System.out.println(n.multiply(new BigInteger(512, r).setBit(511).nextProbablePrime())); } } }"
    )
    done = subprocess.run(["java", str(source)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("Java cannot run a source file here")
    moduli = [int(line) for line in done.stdout.split()]
    models = [MODELS["java-probableprime"], MODELS["java-biginteger"]]
    tried = np.arange(900, 1_100, dtype=np.uint64)
    found = {
        place: (origin.model, origin.seed)
        for place, origin in search(Targets.of(moduli), models, tried)
        if origin.factor(moduli[place])
    }
    assert found == {place: (models[place % 2].name, 1_000 + place // 2) for place in range(24)}


def test_what_was_found_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "data_folder", lambda: tmp_path)
    origin = Origin("java-probableprime", 1_000, 1, (0, 33))
    p, q = key_of(origin, 512)
    others = fleet(3, 1024)
    assert list(seeds.remembered([p * q])) == []
    seeds.remember(p * q, origin)
    seeds.remember(p * q, origin)
    path = tmp_path / "lists" / "seeds.txt"
    assert len(path.read_text().splitlines()) == 1
    assert path.stat().st_mode & 0o077 == 0
    assert list(seeds.remembered([*others, p * q])) == [(3, origin)]
    path.write_text("00 glibc-bytes x\nnothing\n" + path.read_text().replace("probableprime", "nonsense"))
    seeds._remembered.cache_clear()
    assert list(seeds.remembered([*others, p * q])) == []
