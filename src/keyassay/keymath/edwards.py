"""Ed25519, Ed448, X25519 and X448 public keys: canonical, on the curve, of full order (RFC 8032, RFC 7748).

Only the octets are looked at; ``examine`` says what is wrong in words, ``of_mixed_order`` costs a multiplication.
``multiple_of_base`` makes the public key of a private number.
"""

from __future__ import annotations

import gmpy2
from gmpy2 import mpz

P25519 = mpz(2**255 - 19)
P448 = mpz(2**448 - 2**224 - 1)
_D25519 = -121665 * gmpy2.invert(121666, P25519) % P25519
_D448 = P448 - 39081


def _edwards_small_order_25519() -> frozenset[int]:
    """The y coordinates of the eight points of order 1, 2, 4 and 8."""
    # y = 1, -1, 0 and the two y of order 8: y^2 with dy^4 + 2y^2 ... is found by doubling to y = 0: x^2 = -y^2, so
    # -x^2 + y^2 = 1 + dx^2y^2 gives 2y^2 = 1 - dy^4
    p, d = P25519, _D25519
    found = {1, int(p - 1), 0}
    inverse = gmpy2.invert(d, p)
    # d y^4 + 2 y^2 - 1 = 0: y^2 = (-1 +- sqrt(1 + d)) / d
    root = _sqrt_25519((1 + d) % p)
    for sign in (1, -1):
        square = (-1 + sign * root) * inverse % p
        y = _sqrt_25519(square)
        if y * y % p == square:
            found |= {int(y), int(p - y)}
    return frozenset(found)


def _sqrt_25519(square: int) -> mpz:
    p = P25519
    candidate = gmpy2.powmod(square, (p + 3) // 8, p)
    if candidate * candidate % p != square % p:
        candidate = candidate * gmpy2.powmod(2, (p - 1) // 4, p) % p
    return candidate


_SMALL_ED25519 = _edwards_small_order_25519()
_SMALL_X25519 = frozenset(
    {
        0,
        1,
        int(P25519 - 1),
        int.from_bytes(bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"), "little"),
        int.from_bytes(bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"), "little"),
    }
)


def examine(kind: str, encoded: bytes) -> tuple[str, str]:
    """What is wrong with a key.

    Args:
        kind: ed25519, ed448, x25519 or x448.
        encoded: its octets.

    Returns:
        (contradiction, remark), both "" for a sound key.
    """
    size = {"ed25519": 32, "x25519": 32, "ed448": 57, "x448": 56}.get(kind)
    if size is None:
        return "", ""
    if len(encoded) != size:
        return f"{len(encoded)} octets instead of {size}", ""
    if kind == "ed25519":
        return _ed25519(encoded), ""
    if kind == "ed448":
        return _ed448(encoded), ""
    return _x25519(encoded) if kind == "x25519" else (_x448(encoded), "")


def _ed25519(encoded: bytes) -> str:
    p = P25519
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, mpz(number & ((1 << 255) - 1))
    if int(y % p) in _SMALL_ED25519:
        return "the point has small order"
    if y >= p:
        return "the y coordinate is not below the field's size"
    square = y * y % p
    symbol = gmpy2.jacobi((square - 1) * (_D25519 * square + 1) % p, p)
    if symbol == -1:
        return "no point of the curve has this y coordinate"
    return "x is 0, but its sign bit is set" if symbol == 0 and sign else ""


def _ed448(encoded: bytes) -> str:
    p = P448
    if encoded[56] & 0x7F:
        return "bits beyond the coordinate are set"
    y = mpz(int.from_bytes(encoded[:56], "little"))
    if y >= p:
        return "the y coordinate is not below the field's size"
    if y in (0, 1, p - 1):
        return "the point has small order"
    square = y * y % p
    if gmpy2.jacobi((square - 1) * (_D448 * square - 1) % p, p) == -1:
        return "no point of the curve has this y coordinate"
    return ""


def _x25519(encoded: bytes) -> tuple[str, str]:
    p = P25519
    number = int.from_bytes(encoded, "little")
    high, u = number >> 255, mpz(number & ((1 << 255) - 1))
    if int(u % p) in _SMALL_X25519:
        return "the point has small order", ""
    if u >= p:
        return "the u coordinate is not below the field's size", ""
    if gmpy2.jacobi((u * u * u + 486662 * u * u + u) % p, p) == -1:
        return "u lies on the twist, where no multiple of the base point is", ""
    return "", "the unused top bit is set" if high else ""


def _x448(encoded: bytes) -> str:
    p = P448
    u = mpz(int.from_bytes(encoded, "little"))
    if u % p in (0, 1, p - 1):
        return "the point has small order"
    if u >= p:
        return "the u coordinate is not below the field's size"
    if gmpy2.jacobi((u * u * u + 156326 * u * u + u) % p, p) == -1:
        return "u lies on the twist, where no multiple of the base point is"
    return ""


#: order of the base point's group
_L25519 = 2**252 + 27742317777372353535851937790883648493
_L448 = 2**446 - 13818066809895115352007386748515426880336692474882178609894547503885


#: generators (RFC 8032, 5.1 and 5.2); that of Ed25519 is given by y = 4/5 and an even x
_Y25519 = 4 * gmpy2.invert(5, P25519) % P25519
_X25519 = _sqrt_25519((_Y25519**2 - 1) * gmpy2.invert(_D25519 * _Y25519**2 + 1, P25519) % P25519)
_BASE25519 = (_X25519 if _X25519 % 2 == 0 else P25519 - _X25519, _Y25519)
_BASE448 = (
    mpz(
        "224580040295924300187604334099896036246789641632564134246125461"
        "686950415467406032909029192869357953282578032075146446173674602635247710"
    ),
    mpz(
        "298819210078481492676017930443930673437544040154080242095928241"
        "372331506189835876003536878655418784733982303233503462500531545062832660"
    ),
)


def group_order(kind: str) -> int:
    """The order of the base point of ed25519 or ed448, 0 for other kinds."""
    return {"ed25519": _L25519, "ed448": _L448}.get(kind, 0)


def parameters(kind: str) -> tuple[int, int, int, int, int]:
    """(p, a, d, x, y) of ed25519 or ed448: a x^2 + y^2 = 1 + d x^2 y^2 modulo p, and the base point."""
    p, a, d, (x, y) = (P25519, -1, _D25519, _BASE25519) if kind == "ed25519" else (P448, 1, _D448, _BASE448)
    return int(p), a, int(d), int(x), int(y)


def multiple_of_base(kind: str, scalar: int) -> bytes:
    """A multiple of the base point of ed25519 or ed448, encoded as a public key; takes milliseconds."""
    if kind == "ed25519":
        x, y = _times(scalar, _BASE25519, mpz(-1), _D25519, P25519)
        return int(y | (x & 1) << 255).to_bytes(32, "little")
    x, y = _times(scalar, _BASE448, mpz(1), _D448, P448)
    return int(y | (x & 1) << 455).to_bytes(57, "little")


def of_mixed_order(kind: str, encoded: bytes) -> bool:
    """Whether an Edwards point that ``examine`` finds sound has a small component beside the large one.

    Some implementations make such keys on purpose; verifiers disagree about their signatures.

    Args:
        kind: ed25519 or ed448; False for others.
        encoded: its octets.
    """
    if kind == "ed25519":
        p, a, d, order, y = P25519, mpz(-1), _D25519, _L25519, int.from_bytes(encoded, "little") & ((1 << 255) - 1)
    elif kind == "ed448":
        p, a, d, order, y = P448, mpz(1), _D448, _L448, int.from_bytes(encoded[:56], "little")
    else:
        return False
    # x^2 = (y^2 - 1) / (d y^2 - a); the sign of x does not change the order
    square = (y * y - 1) * gmpy2.invert(d * y * y - a, p) % p
    x = _sqrt_25519(square) if p == P25519 else gmpy2.powmod(square, (p + 1) // 4, p)
    return _times(order, (x, mpz(y)), a, d, p) != (0, 1)


def _times(scalar: int, point: tuple[mpz, mpz], a: mpz, d: mpz, p: mpz) -> tuple[mpz, mpz]:
    """Scalar times an affine point of a x^2 + y^2 = 1 + d x^2 y^2, by complete extended formulas (Hisil and others)."""
    step = (point[0], point[1], mpz(1), point[0] * point[1] % p)
    total = (mpz(0), mpz(1), mpz(1), mpz(0))

    def plus(one: tuple[mpz, mpz, mpz, mpz], other: tuple[mpz, mpz, mpz, mpz]) -> tuple[mpz, mpz, mpz, mpz]:
        xs, ys, ts, zs = one[0] * other[0], one[1] * other[1], d * one[3] * other[3] % p, one[2] * other[2]
        e, f, g, h = (one[0] + one[1]) * (other[0] + other[1]) - xs - ys, zs - ts, zs + ts, ys - a * xs
        return e * f % p, g * h % p, f * g % p, e * h % p

    for bit in f"{scalar:b}":
        total = plus(total, total)
        if bit == "1":
            total = plus(total, step)
    inverse = gmpy2.invert(total[2], p)
    return total[0] * inverse % p, total[1] * inverse % p
