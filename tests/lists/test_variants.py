"""Second keys, ``-rand`` and other platforms: what the generator does, and lists that somebody made being used."""

from __future__ import annotations

import numpy as np
import pytest

from keyassay.certificates.public_key import EcPublicKey, RsaPublicKey
from keyassay.checks.ec_debian_openssl import DebianEcKey
from keyassay.checks.rsa_debian_openssl import DebianRsaKey
from keyassay.lists import building, debian, lookup
from keyassay.lists.debian import coordinate_bytes, ec_coordinates, ec_key
from keyassay.lists.format import KINDS, SHIPPED, Record, block_names, number_digest, pack_block
from keyassay.lists.recipes.debian_openssl import (
    ARCHS,
    STATES,
    USUAL,
    VARIANTS,
    Draws,
    Stream,
    _Pool,
    ec_secret,
    rsa_key_from_hints,
    rsa_keys,
    rsa_primes,
)

KEYS = 8

#: what is added before the first output, in bytes; W: a long, S: struct stat of the platform
ADDITIONS = {
    ("", "rnd"): "S 1024 W 32 W W W",
    ("", "nornd"): "32 W W W W",
    ("", "noreadrnd"): "S 32 W W W W",
    ("", "direct"): "W 32 W W W",
    ("rf1", "rnd"): "S 1024 S 1024 W 32 W W W",
    ("rf1", "nornd"): "32 W W W S 1024 W",
    ("rf1", "noreadrnd"): "S 32 W W W S 1024 W",
    ("rf2", "rnd"): "S 1024 S 1024 1024 W 32 W W W",
    ("rf2", "nornd"): "32 W W W S 1024 1024 W",
    ("rf2", "noreadrnd"): "S 32 W W W S 1024 1024 W",
    ("144", "rnd"): "144 1024 W 32 W W W",
    ("144", "noreadrnd"): "144 32 W W W W",
    ("136", "rnd"): "136 1024 W 32 W W W",
    ("136", "noreadrnd"): "136 32 W W W W",
}
SIZES = {"le64": {"W": 8, "S": 144}, "le32": {"W": 4, "S": 88}, "be32": {"W": 4, "S": 88}}


def first_bytes(stream: Stream, additions: str, count: int) -> bytes:
    """What a stream says first after additions."""
    pool = _Pool(stream.arch)
    for word in additions.split():
        pool.add(SIZES[stream.arch].get(word) or int(word))
    for _ in range(52):
        pool.add(20)
    order = "big" if stream.arch == "be32" else "little"
    return pool.take(count, stream.pid.to_bytes(4, order) if stream.pid else b"")


@pytest.mark.parametrize(("name", "state"), ADDITIONS)
def test_what_comes_before_the_first_output(name, state):
    variant = VARIANTS.get(name, USUAL)
    for arch in variant.archs:
        for pid in (0, 1, 32767):
            stream = Stream(arch, state, pid)
            assert Draws(stream, 40, variant)[0] == first_bytes(stream, ADDITIONS[name, state], 40)


def test_every_state_of_every_variant_is_told_above():
    told = {(name, state) for name, variant in VARIANTS.items() for state in variant.states if not variant.earlier}
    assert told | {("", state) for state in STATES} == set(ADDITIONS)


def test_starts_differ():
    """No variant lists what another list holds already."""
    seen = set()
    for variant in (USUAL, *VARIANTS.values()):
        for arch in variant.archs:
            for state in variant.states:
                seen.add(ec_secret(Stream(arch, state, 77), debian.curve_order("P-256"), variant))
    assert len(seen) == 12 + 12 + 9 + 9 + 4 + 2


def test_the_second_key_on_a_curve_is_the_next_accepted_draw():
    second = VARIANTS["2nd"]
    for curve in ("P-256", "secp160r1", "P-521"):
        order = debian.curve_order(curve)
        for pid in range(20):
            stream = Stream("le32", STATES[pid % 4], pid)
            width = order.bit_length() + (order >> (order.bit_length() - 3) == 0b100)
            draws, accepted, index = Draws(stream, (width + 7) // 8), [], 0
            while len(accepted) < 2:
                drawn = int.from_bytes(draws[index], "big") & ((1 << width) - 1)
                index += 1
                if width > order.bit_length():
                    drawn -= min(drawn // order, 2) * order
                if 0 < drawn < order:
                    accepted.append(drawn)
            assert [ec_secret(stream, order), ec_secret(stream, order, second)] == accepted


def test_the_second_rsa_key_is_of_the_next_two_primes():
    stream = Stream("le64", "direct", 9)
    primes = rsa_primes(stream, 512)
    first = [next(primes) for _ in range(4)]
    (key,) = rsa_keys(stream, 512, VARIANTS["2nd"]).values()
    assert [(key.first, key.blocks[0]), (key.second, key.blocks[1])] == first[2:]


def test_an_exponent_that_refuses_an_early_prime_moves_the_second_key():
    """65537 divides P0 - 1 or P1 - 1 of these streams: the second key starts one prime later."""
    for pid in (10123, 30637):
        stream = Stream("le64", "rnd", pid)
        primes = rsa_primes(stream, 1024)
        p = [next(primes)[0] for _ in range(5)]
        assert [prime % 65537 == 1 for prime in p].count(True) == 1
        keys = rsa_keys(stream, 1024, VARIANTS["2nd"])
        assert keys[65537].modulus == p[3] * p[4]
        assert keys[3].modulus == p[2] * p[3]


@pytest.mark.parametrize("curve", debian.curves())
def test_coordinates_of_many_keys_are_those_of_each(curve):
    for variant in (USUAL, *VARIANTS.values()):
        streams = [Stream(variant.archs[-1], variant.states[0], pid) for pid in (0, 1, 500, 32767)]
        assert ec_coordinates(curve, streams, variant) == [ec_key(curve, stream, variant)[1] for stream in streams]


# Lists of variants


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's folders, the program's lists being in use."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "own"))
    lookup.merged.cache_clear()
    yield tmp_path / "own" / "keyassay" / "lists"
    lookup.merged.cache_clear()


def put(home, kind, name):
    """A block of a few keys."""
    records = []
    for stream in list(name.streams())[:KEYS]:
        if kind.bits:
            key = rsa_keys(stream, kind.bits, kind.variant)[65537]
            records.append(Record(number_digest(key.modulus)[:8], key.blocks))
        else:
            x = ec_key(kind.curve, stream, kind.variant)[1]
            records.append(Record(number_digest(x, coordinate_bytes(kind.curve))[:8]))
    lookup.write_atomically(home / name.path, pack_block(name, records, []))


@pytest.mark.parametrize("variant", VARIANTS)
def test_keys_of_a_variant_are_found_once_its_list_was_made(home, variant):
    rsa, curve = KINDS[f"rsa-512-{variant}"], KINDS[f"ec-p256-{variant}"]
    name = block_names(rsa.name)[0]
    stream = list(name.streams())[5]
    key = rsa_keys(stream, 512, rsa.variant)[65537]
    assert rsa_key_from_hints(stream, 512, key.blocks, rsa.variant).modulus == key.modulus
    d, x, y = ec_key("P-256", stream, curve.variant)
    n_hash, x_hash = number_digest(key.modulus), number_digest(x, 32)
    prefixes = [np.array([int.from_bytes(one[:8], "big")], dtype=np.uint64) for one in (n_hash, x_hash)]
    names = {info.kind for info in lookup.available()}
    assert names == set(SHIPPED)
    assert list(debian.find_rsa(512, [key.modulus], prefixes[0])) == []
    assert list(debian.find_ec("P-256", [x.to_bytes(32, "big")], prefixes[1])) == []

    put(home, rsa, name)
    put(home, curve, block_names(curve.name)[0])
    lookup.merged.cache_clear()
    assert {info.kind for info in lookup.available()} - names == {rsa.name, curve.name}
    (hit,) = debian.find_rsa(512, [key.modulus], prefixes[0])
    assert (hit.kind, hit.stream, {hit.p, hit.q}) == (rsa, stream, {key.first, key.second})
    evidence = DebianRsaKey(hit.p, kind=hit.kind, stream=hit.stream, blocks=hit.blocks)
    assert evidence.proves(RsaPublicKey(key.modulus, 65537))
    other = DebianRsaKey(hit.p, kind=rsa.usual, stream=hit.stream, blocks=hit.blocks)
    # a second key lies in the same stream, so that its hints are right there too
    assert other.proves(RsaPublicKey(key.modulus, 65537)) == bool(rsa.variant.earlier)
    assert evidence.describe()["list"] == f"debian-rsa-512-{variant}"
    assert rsa.variant.words in evidence.steps(RsaPublicKey(key.modulus, 65537))[0].says
    (found,) = debian.find_ec("P-256", [x.to_bytes(32, "big")], prefixes[1])
    assert (found.kind, found.stream, found.d) == (curve, stream, d)
    point = EcPublicKey("P-256", b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big"))
    assert DebianEcKey(d, kind=curve, stream=stream).proves(point)
    assert curve.variant.words in DebianEcKey(d, kind=curve, stream=stream).steps(point)[0].says
    assert [(name, one) for _, name, one in building.find([n_hash, x_hash])] == [
        (rsa.list_name, stream),
        (curve.list_name, stream),
    ]


def test_a_list_of_a_variant_is_made_and_verified(home, monkeypatch):
    kind = "ec-p256-136"
    names = block_names(kind)[:1]
    monkeypatch.setattr(building, "block_names", lambda _kind: names)
    assert building.build(kind, folder=building.build_folder(kind)) == 1
    assert (home / names[0].path).exists()
    assert list(building.verify(kind, sample=10)) == []
    assert ARCHS[0] == names[0].arch
