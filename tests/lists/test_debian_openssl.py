"""The generator against keys that a vulnerable OpenSSL 0.9.8f made."""

import csv
import json
import math
import subprocess
from itertools import islice
from pathlib import Path

import gmpy2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyassay.lists.debian import coordinate_bytes, ec_key
from keyassay.lists.format import number_digest
from keyassay.lists.recipes import debian_openssl as recipe
from keyassay.lists.recipes.debian_openssl import (
    DeltaSearch,
    Draws,
    Stream,
    _slow_delta,
    odd_rsa_key,
    rsa_key_from_hints,
    rsa_keys,
)

VECTORS = Path(__file__).parent.parent / "vectors"
ROWS = list(
    csv.DictReader(
        line for line in (VECTORS / "debian_weak_keys.csv").read_text().splitlines() if not line.startswith("#")
    )
)
CURVES = {"secp256r1": "P-256", "secp384r1": "P-384"}
PRIVATE = json.loads((VECTORS / "debian_weak_keys_private.json").read_text())


def stream_of(row: dict[str, str]) -> Stream:
    return Stream(row["arch"], row["state"], int(row["pid"]))


@pytest.mark.parametrize("bits", ["1024", "2048"])
def test_rsa_agrees_with_the_original(bits: str) -> None:
    rows = [row for row in ROWS if row["kind"] == "rsa" and row["bits"] == bits]
    assert len(rows) == 63
    for row in rows:
        key = rsa_keys(stream_of(row), int(bits))[65537]
        assert number_digest(key.modulus).hex() == row["sha256_modulus"]
        assert rsa_key_from_hints(stream_of(row), int(bits), key.blocks).modulus == key.modulus


@pytest.mark.slow
@pytest.mark.parametrize("bits", ["3072", "4096"])
def test_large_rsa_agrees_with_the_original(bits: str) -> None:
    rows = [row for row in ROWS if row["kind"] == "rsa" and row["bits"] == bits]
    assert len(rows) == 63
    for row in rows[:: 7 if bits == "3072" else 21]:
        assert number_digest(rsa_keys(stream_of(row), int(bits))[65537].modulus).hex() == row["sha256_modulus"]


@pytest.mark.parametrize("curve", CURVES)
def test_curves_agree_with_the_original(curve: str) -> None:
    rows = [row for row in ROWS if row["kind"] == "ec" and row["bits"] == curve]
    assert len(rows) == 63
    name = CURVES[curve]
    for row in rows:
        _, x, _ = ec_key(name, stream_of(row))
        assert number_digest(x, coordinate_bytes(name)).hex() == row["sha256_modulus"]


def test_openssl_makes_the_same_points_on_secp160r1() -> None:
    """The curve that cryptography lacks, whose order has one bit more than its field."""
    oid = bytes.fromhex("06052b81040008")
    for pid in (1, 777, 32767):
        for arch, state in (("le64", "rnd"), ("be32", "direct")):
            d, x, y = ec_key("secp160r1", Stream(arch, state, pid))
            body = b"\x02\x01\x01\x04\x15" + d.to_bytes(21, "big") + b"\xa0" + bytes([len(oid)]) + oid
            done = subprocess.run(
                ["openssl", "ec", "-inform", "DER", "-pubout", "-outform", "DER"],
                input=b"\x30" + bytes([len(body)]) + body,
                check=True,
                capture_output=True,
            )
            assert done.stdout[-40:] == x.to_bytes(20, "big") + y.to_bytes(20, "big")


def test_primes_agree_with_the_original() -> None:
    for key in PRIVATE["keys"]:
        if key["kind"] == "rsa" and key["bits"] == 1024:
            made = rsa_keys(Stream(key["arch"], key["state"], key["pid"]), 1024)[65537]
            assert {made.first, made.second} == {int(key["p"], 16), int(key["q"], 16)}


def test_exponent_makes_two_moduli_where_65537_divides_a_prime_less_one() -> None:
    keys = rsa_keys(Stream("le64", "rnd", 10123), 1024)
    assert {exponent: number_digest(key.modulus).hex()[:16] for exponent, key in keys.items()} == {
        3: "70edffa4f407c8f4",
        65537: "e293eb7a740cc65b",
    }
    keys = rsa_keys(Stream("le64", "rnd", 30637), 1024)
    assert {exponent: number_digest(key.modulus).hex()[:16] for exponent, key in keys.items()} == {
        3: "ee00486296eee369",
        65537: "4dcf3731cb0f3536",
    }


def test_delta_search_is_the_definition() -> None:
    search = DeltaSearch(512)
    draws = Draws(Stream("be32", "direct", 77), 64)
    numbers = [int.from_bytes(draws[i], "big") | 3 << 510 | 1 for i in range(64)]
    assert search(numbers) == [_slow_delta(number) for number in numbers]


@given(st.lists(st.integers(2, 2**80), min_size=1, max_size=9), st.integers(1, 2**60))
def test_what_is_prime_to_the_divisors_is_left(numbers, divisors) -> None:
    left = recipe.without_divisors(numbers, gmpy2.mpz(divisors))
    assert left == [place for place, number in enumerate(numbers) if math.gcd(number, divisors) == 1]


@pytest.mark.parametrize("bits", [192, 256])
def test_dividing_further_primes_out_changes_no_prime(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 1400 bits on composites go before they are raised to a power: the same primes from the same blocks."""
    found = {}
    for limit in (bits, bits + 1):
        monkeypatch.setattr(recipe, "_DIVIDED_FROM", limit)
        found[limit] = [
            list(islice(recipe.primes(Draws(Stream(arch, state, pid), bits // 8), bits), 5))
            for arch, state, pid in (("le64", "rnd", 1), ("le32", "direct", 32767), ("be32", "nornd", 0))
        ]
    assert found[bits] == found[bits + 1]
    divisors = recipe.further_divisors(2**19)
    assert gmpy2.gcd(divisors, gmpy2.primorial(17_863)) == 1
    assert gmpy2.primorial(2**19) == divisors * gmpy2.primorial(17_863)


def test_stream_number_is_a_bijection_below_2_19() -> None:
    seen = {
        Stream(arch, state, pid).number
        for arch in ("le64", "le32", "be32")
        for state in ("rnd", "direct")
        for pid in (0, 1, 32767)
    }
    assert len(seen) == 18
    assert max(seen) < 2**19
    assert all(Stream.of(number).number == number for number in seen)
    assert str(Stream("le64", "rnd", 1234)) == "arch=le64 state=rnd pid=1234"


@pytest.mark.parametrize("bits", [1009, 1023, 1025, 1031])
def test_odd_sizes_have_their_size_and_factors(bits: int) -> None:
    key = odd_rsa_key(Stream("le32", "nornd", 5), bits)
    assert key.modulus.bit_length() == bits
    assert key.first.bit_length() == (bits + 1) // 2
