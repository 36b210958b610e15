"""Edwards and Montgomery keys: what cryptography makes is sound, what has small order or no point is told apart."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from gmpy2 import mpz
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.keymath import edwards

MAKERS = {"ed25519": Ed25519PrivateKey, "ed448": Ed448PrivateKey, "x25519": X25519PrivateKey, "x448": X448PrivateKey}
SIZES = {"ed25519": 32, "ed448": 57, "x25519": 32, "x448": 56}
P = 2**255 - 19
#: the fourteen strings that decode to a point of order 1, 2, 4 or 8, non-canonical ones included
A, B = (
    bytes.fromhex(text)
    for text in (
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
)
SMALL_25519 = [
    *((y | sign << 255).to_bytes(32, "little") for y in (1, 0, P - 1, P, P + 1) for sign in (0, 1)),
    *(one[:31] + bytes([one[31] | sign]) for one in (A, B) for sign in (0, 128)),
]


def public(kind: str, seed: bytes) -> bytes:
    return MAKERS[kind].from_private_bytes(seed).public_key().public_bytes_raw()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(MAKERS)), st.binary(min_size=57, max_size=57))
def test_sound_keys_are_sound(kind: str, seed: bytes) -> None:
    encoded = public(kind, seed[: SIZES[kind]])
    assert edwards.examine(kind, encoded) == ("", "")
    assert not edwards.of_mixed_order(kind, encoded)


def test_fourteen_strings_have_small_order() -> None:
    assert len(set(SMALL_25519)) == 14
    for encoded in SMALL_25519:
        assert edwards.examine("ed25519", encoded)[0] == "the point has small order"


def test_exactly_26_non_canonical_strings_beside_small_ones_are_refused() -> None:
    """Y = p + k with k from 0 to 18: each is refused, whatever the sign."""
    for k in range(19):
        for sign in (0, 1):
            encoded = ((P + k) | sign << 255).to_bytes(32, "little")
            assert edwards.examine("ed25519", encoded)[0] != ""


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 2**255 - 20), st.integers(0, 1))
def test_ed25519_agrees_with_decompression(y: int, sign: int) -> None:
    """A string is refused just when there is no x, by the definition of RFC 8032."""
    d = -121665 * pow(121666, -1, P) % P
    u, v = (y * y - 1) % P, (d * y * y + 1) % P
    square = u * pow(v, -1, P) % P
    has_root = square == 0 or pow(square, (P - 1) // 2, P) == 1
    problem, _ = edwards.examine("ed25519", (y | sign << 255).to_bytes(32, "little"))
    assert (problem == "") == has_root or problem == "the point has small order"


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 2**255 - 20))
def test_x25519_refuses_just_the_twist(u: int) -> None:
    on_curve = pow(u**3 + 486662 * u * u + u, (P - 1) // 2, P) in (0, 1)
    problem, _ = edwards.examine("x25519", u.to_bytes(32, "little"))
    assert (problem == "") == on_curve or problem == "the point has small order"


def test_the_top_bit_of_x25519_is_a_remark() -> None:
    encoded = bytearray(public("x25519", bytes(range(32))))
    encoded[31] |= 128
    assert edwards.examine("x25519", bytes(encoded)) == ("", "the unused top bit is set")


@pytest.mark.parametrize("kind", sorted(MAKERS))
@given(data=st.data())
def test_wrong_lengths_are_told(kind: str, data: st.DataObject) -> None:
    encoded = data.draw(st.binary(max_size=80).filter(lambda one: len(one) != SIZES[kind]))
    assert edwards.examine(kind, encoded)[0] == f"{len(encoded)} octets instead of {SIZES[kind]}"


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 7))
def test_a_small_component_is_seen(seed: bytes, times: int) -> None:
    """A sound point plus any of the seven points of small order has mixed order."""
    p, d, a = edwards.P25519, edwards._D25519, mpz(-1)

    def point(encoded: bytes) -> tuple[mpz, mpz]:
        number = int.from_bytes(encoded, "little")
        y, sign = mpz(number & (2**255 - 1)), number >> 255
        x = edwards._sqrt_25519((y * y - 1) * pow(int(d * y * y + 1), -1, int(p)) % p)
        return (x if x & 1 == sign else p - x), y

    (x1, y1), (x2, y2) = point(public("ed25519", seed)), edwards._times(times, point(A), a, d, p)
    product = d * x1 * x2 * y1 * y2 % p
    x = (x1 * y2 + y1 * x2) * pow(int(1 + product), -1, int(p)) % p
    y = (y1 * y2 + x1 * x2) * pow(int(1 - product), -1, int(p)) % p
    encoded = int(y | (x & 1) << 255).to_bytes(32, "little")
    assert edwards.examine("ed25519", encoded) == ("", "")
    assert edwards.of_mixed_order("ed25519", encoded)


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=57, max_size=57))
def test_multiples_of_the_base_point_are_public_keys(seed: bytes) -> None:
    head = hashlib.sha512(seed[:32]).digest()[:32]
    number = int.from_bytes(head, "little") & ((1 << 254) - 8) | 1 << 254  # RFC 8032, 5.1.5
    assert edwards.multiple_of_base("ed25519", number) == public("ed25519", seed[:32])
    assert edwards.multiple_of_base("ed25519", number % edwards.group_order("ed25519")) == public("ed25519", seed[:32])
    head = hashlib.shake_256(seed).digest(56)
    number = int.from_bytes(head, "little") & ((1 << 447) - 4) | 1 << 447  # RFC 8032, 5.2.5
    assert edwards.multiple_of_base("ed448", number) == public("ed448", seed)
    assert edwards.multiple_of_base("ed448", number % edwards.group_order("ed448")) == public("ed448", seed)


def test_the_order_leads_to_the_neutral_point() -> None:
    for kind, size in (("ed25519", 32), ("ed448", 57)):
        assert edwards.multiple_of_base(kind, edwards.group_order(kind)) == (1).to_bytes(size, "little")
        assert edwards.multiple_of_base(kind, 0) == (1).to_bytes(size, "little")
    assert edwards.group_order("x25519") == 0
