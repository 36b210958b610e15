"""Makes the vectors of the elliptic curve and DSA checks; the same every time.

Run from the root of a checkout: .venv/bin/python tests/vectors/make/curves.py
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

import gmpy2
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from keyassay.keymath.curves import Curve, multiply, named_curves, on_curve, root, square_root

FOLDER = Path(__file__).parent.parent / "checks"
RANDOM = Random(1985)
CURVES = named_curves()
SEEDED = {"ed25519": Ed25519PrivateKey, "ed448": Ed448PrivateKey, "x25519": X25519PrivateKey, "x448": X448PrivateKey}


def toml(value: object) -> str:
    """A value as TOML; integers of more than 31 bits and bytes become hexadecimal strings."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml(one)}" for name, one in value.items() if one is not None) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    if isinstance(value, bytes):
        return f'"{value.hex()}"'
    if isinstance(value, str):
        return f'"{value}"'
    number = int(value)  # type: ignore[call-overload]
    return str(number) if -(2**31) < number < 2**31 else f'"{number:x}"'


def case(name: str, verdict: str, **more: object) -> str:
    lines = ["[[case]]", f'name = "{name}"', f'verdict = "{verdict}"']
    return "\n".join(lines + [f"{key} = {toml(value)}" for key, value in more.items()]) + "\n"


def write(check: str, how: str, *cases: str) -> None:
    text = f'provenance = "{how}, by tests/vectors/make/curves.py"\n\n' + "\n".join(cases)
    (FOLDER / f"{check}.toml").write_text(text)


def octets(curve: Curve, point: tuple[int, int], form: int = 4) -> bytes:
    x, y = (int(one).to_bytes(curve.field_bytes, "big") for one in point)
    if form in (2, 3):
        return bytes([form]) + x
    return bytes([form]) + x + y


def ec(name: str, d: int, form: int = 4) -> dict[str, object]:
    """The key of a private number."""
    curve = CURVES[name]
    point = multiply(curve, d % int(curve.order), curve.base)
    if form in (2, 6):
        form += int(point[1]) & 1
    return {"type": "ec", "curve": name, "point": octets(curve, point, form)}


def scalar(name: str) -> int:
    return RANDOM.randrange(1 << 200, int(CURVES[name].order)) if CURVES[name].bits > 201 else RANDOM.getrandbits(100)


def okp(kind: str, seed: bytes) -> dict[str, object]:
    return {"type": kind, "encoded": SEEDED[kind].from_private_bytes(seed).public_key().public_bytes_raw()}


def raw(kind: str, encoded: bytes) -> dict[str, object]:
    return {"type": kind, "encoded": encoded}


def weak_curve() -> None:
    cases = [
        case(f"a key on {name}", "weak", profile="fast", classification="weak", key=ec(name, scalar(name)))
        for name in ("secp112r1", "secp160k1", "P-192", "brainpoolP192r1", "sect163k1", "sect233r1", "sect571k1")
    ]
    unnamed = {"type": "ec", "curve": "1.2.3.4.5", "point": ec("P-256", scalar("P-256"))["point"]}
    cases.append(case("an object identifier that no standard names", "weak", profile="fast", key=unnamed))
    cases += [
        case(f"a key on {name}, 224 bits", "near-miss", key=ec(name, scalar(name)))
        for name in ("P-224", "brainpoolP224r1", "secp224k1")
    ]
    cases.append(case("a key on P-256", "healthy", key=ec("P-256", scalar("P-256"))))
    write("ec-weak-curve", "Random private keys on named curves", *cases)


def invalid_point() -> None:
    fast = {"profile": "fast", "classification": "broken", "confidence": "proven"}
    notice = {"profile": "fast", "classification": "notice", "confidence": "certain"}
    cases = []

    def weak(name: str, key: dict[str, object], **more: object) -> None:
        cases.append(case(name, "weak", **{**fast, **more}, key=key))

    def point(name: str, encoded: bytes) -> dict[str, object]:
        return {"type": "ec", "curve": name, "point": encoded}

    for name in ("P-256", "P-384", "P-521", "secp256k1", "brainpoolP256r1"):
        curve = CURVES[name]
        x, y = multiply(curve, scalar(name), curve.base)
        weak(f"{name}: y and 1", point(name, octets(curve, (x, (y + 1) % curve.p))))
    curve = CURVES["P-256"]
    x, y = multiply(curve, scalar("P-256"), curve.base)
    weak("infinity", point("P-256", b"\0"))
    weak("no octets", point("P-256", b""))
    weak("an unknown form", point("P-256", b"\5" + octets(curve, (x, y))[1:]))
    weak("an octet too few", point("P-256", octets(curve, (x, y))[:-1]))
    weak("the length of P-384", point("P-256", octets(CURVES["P-384"], CURVES["P-384"].base)))
    small = next(value for value in range(5, 1000) if root(curve, value, 0))
    beyond = (small + int(curve.p), root(curve, small, 0)[1])
    weak("x and p, on the curve modulo p", point("P-256", octets(curve, beyond)))
    weak("y is p", point("P-256", octets(curve, (0, int(curve.p)))))
    large = CURVES["P-521"]
    wide = (int(large.gx) + (1 << 527), int(large.gy))
    weak("P-521 with one of the seven unused bits set", point("P-521", octets(large, wide)))
    twist = next(value for value in range(2, 100) if root(curve, value, 0) is None)
    weak("compressed, on the twist", point("P-256", octets(curve, (twist, 0), 2)))
    weak("hybrid with the wrong parity", point("P-256", octets(curve, (x, y), 6 + (int(y) + 1) % 2)))
    weak("hybrid", ec("P-256", scalar("P-256"), 6), **notice)
    binary = CURVES["sect283k1"]
    weak("binary, off the curve", point("sect283k1", octets(binary, (binary.gx, binary.gy ^ 1))))
    weak("binary, y of too many bits", point("sect283k1", octets(binary, (binary.gx, 1 << 287))))
    order_two = (0, 1)  # x = 0, y = sqrt(b): order 2 on every binary curve; b = 1 here
    assert on_curve(binary, order_two)
    deep = {"profile": "deep"}
    weak("binary, a point of order 2", point("sect283k1", octets(binary, order_two)), **deep)
    cofactor = CURVES["secp112r2"]
    value = next(
        value for value in range(2, 1000) if (p := root(cofactor, value, 0)) and multiply(cofactor, cofactor.order, p)
    )
    weak("cofactor 4, outside the group", point("secp112r2", octets(cofactor, root(cofactor, value, 0))), **deep)
    weak("the same, compressed", point("secp112r2", octets(cofactor, root(cofactor, value, 0), 2)), **deep)

    p = 2**255 - 19
    weak("Ed25519: 31 octets", raw("ed25519", bytes(31)))
    for text in ("01" + "00" * 31, "01" + "00" * 30 + "80", "00" * 32, "ec" + "ff" * 30 + "7f", "ed" + "ff" * 30 + "7f",
                 "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
                 "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"):  # fmt: skip
        weak(f"Ed25519 of small order: {text[:8]}..{text[-2:]}", raw("ed25519", bytes.fromhex(text)))
    weak("Ed25519: y is p and 3", raw("ed25519", (p + 3).to_bytes(32, "little")))
    weak("Ed25519: no x for this y", raw("ed25519", (2).to_bytes(32, "little")))
    weak("Ed448: y is 1", raw("ed448", (1).to_bytes(57, "little")))
    weak("Ed448: a bit beyond y", raw("ed448", okp("ed448", bytes(57))["encoded"][:56] + b"\x01"))
    weak("Ed448: y is p", raw("ed448", (2**448 - 2**224 - 1).to_bytes(57, "little")))
    for text in ("00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f", "ee" + "ff" * 30 + "7f",
                 "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
                 "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"):  # fmt: skip
        weak(f"X25519 of small order: {text[:8]}..{text[-2:]}", raw("x25519", bytes.fromhex(text)))
    weak("X25519 on the twist", raw("x25519", (2).to_bytes(32, "little")))
    weak("X25519: u is p and 9", raw("x25519", (p + 9).to_bytes(32, "little")))
    unused = bytearray(okp("x25519", bytes(range(32)))["encoded"])
    unused[31] |= 128
    weak("X25519 with the unused bit set", raw("x25519", bytes(unused)), **notice)
    weak("X448: u is 1", raw("x448", (1).to_bytes(56, "little")))
    on_twist = next(u for u in range(2, 50) if gmpy2.jacobi(u**3 + 156326 * u * u + u, 2**448 - 2**224 - 1) == -1)
    weak("X448 on the twist", raw("x448", on_twist.to_bytes(56, "little")))
    mixed = mixed_ed25519(hashlib.sha256(b"mixed").digest())
    weak("Ed25519 and a point of order 8", raw("ed25519", mixed), **{**notice, **deep})

    zero = next(d for d in range(1, 5000) if int(multiply(curve, d * 1000003, curve.base)[0]) >> 248 == 0)
    for name, key in (
        ("compressed", ec("P-256", scalar("P-256"), 2)),
        ("x begins with a zero octet", ec("P-256", zero * 1000003)),
        ("binary, compressed", point("sect283k1", octets(binary, binary.base, 2))),
        ("Ed25519", okp("ed25519", hashlib.sha256(b"a").digest())),
        ("Ed448", okp("ed448", hashlib.sha512(b"a").digest()[:57])),
        ("X25519", okp("x25519", hashlib.sha256(b"b").digest())),
        ("X448", okp("x448", hashlib.sha512(b"b").digest()[:56])),
    ):
        cases.append(case(f"sound: {name}", "near-miss", key=key))
    cases.append(case("P-256", "healthy", key=ec("P-256", scalar("P-256"))))
    write("ec-invalid-point", "Definitions", *cases)


def mixed_ed25519(seed: bytes) -> bytes:
    """A public key plus a point of order 8, by affine arithmetic."""
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p

    def decode(encoded: bytes) -> tuple[int, int]:
        number = int.from_bytes(encoded, "little")
        y, sign = number & (2**255 - 1), number >> 255
        x = square_root((y * y - 1) * pow(d * y * y + 1, -1, p) % p, p)
        return (x if x & 1 == sign else p - x), y

    (x, y), (u, v) = (
        decode(okp("ed25519", seed)["encoded"]),
        decode(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")),
    )
    product = d * x * u * y * v % p
    total = (
        (x * v + y * u) * pow(1 + product, -1, p) % p,
        (y * v + x * u) * pow(1 - product, -1, p) % p,
    )
    return (total[1] | (total[0] & 1) << 255).to_bytes(32, "little")


def weak_private_key() -> None:
    cases = []

    def weak(name: str, curve: str, d: int, profile: str = "fast", form: int = 4) -> None:
        cases.append(
            case(name, "weak", profile=profile, classification="broken", confidence="proven", key=ec(curve, d, form),
                 private={"d": d % int(CURVES[curve].order)})
        )  # fmt: skip

    for name in ("P-256", "P-384", "P-521", "secp256k1"):
        weak(f"{name}: 1", name, 1)
        weak(f"{name}: 2^20 less 3", name, (1 << 20) - 3)
        weak(f"{name}: order less 2^20", name, -(1 << 20))
        weak(f"{name}: SHA-256 of password", name, int.from_bytes(hashlib.sha256(b"password").digest(), "big"))
        bits = int(CURVES[name].order).bit_length()
        size = bits // 8
        repeated = int.from_bytes(b"\x11" * ((bits + 7) // 8), "big") & ((1 << bits) - 1)
        weak(f"{name}: an octet repeated", name, repeated)
        weak(f"{name}: a word of 16 bits repeated", name, sum(0x1234 << (16 * i) for i in range(size // 2)))
    weak("P-224: 777777", "P-224", 777_777)
    weak("P-256, compressed: 12345", "P-256", 12_345, form=2)
    weak("P-256: counting up", "P-256", int.from_bytes(bytes(range(1, 33)), "big"))
    weak("P-256: counting up, low octet first", "P-256", int.from_bytes(bytes(range(1, 33)), "little"))
    weak("P-256: deadbeef repeated", "P-256", int("deadbeef" * 8, 16))
    weak("P-256: half the order", "P-256", (int(CURVES["P-256"].order) + 1) // 2)
    weak("P-256: 2^200 and 1", "P-256", (1 << 200) + 1)
    weak("P-256: x of the base point", "P-256", int(CURVES["P-256"].gx))
    weak("P-256: 3,141,592,653", "P-256", 3_141_592_653, "deep")
    weak("P-384: order less 3,141,592,653", "P-384", -3_141_592_653, "deep")
    weak("P-256: a word of 32 bits repeated", "P-256", sum(0x8BADF00D << (32 * i) for i in range(8)), "deep")
    weak("P-256: 32 bits and zeros", "P-256", 0x9ABCDEF1 << 120, "deep")
    weak("P-256: 987,654,321,987 (40 bits)", "P-256", 987_654_321_987, "deep")
    weak("P-384: order less 68,731,822,414", "P-384", -68_731_822_414, "deep")
    lazy = (("zeros", bytes(32)), ("counting up", bytes(range(32))), ("a password", b"secret".ljust(32, b"\0")),
            ("SHA-256 of test", hashlib.sha256(b"test").digest()))  # fmt: skip
    for kind in ("ed25519", "x25519"):
        for name, seed in lazy:
            cases.append(
                case(f"{kind}: {name}", "weak", profile="fast", classification="broken", key=okp(kind, seed),
                     private={"seed": seed})
            )  # fmt: skip
    beyond = (1 << 23) + 12_345
    cases.append(case("P-256: 2^23 and 12345: deep would find it", "near-miss", key=ec("P-256", beyond)))
    words = sum(0x8BADF00DCAFE1234 << (64 * i) for i in range(4))
    cases.append(case("P-256: a word of 64 bits repeated", "near-miss", key=ec("P-256", words)))
    cases.append(case("P-256: SHA-256 of an unlisted word", "near-miss",
                      key=ec("P-256", int.from_bytes(hashlib.sha256(b"unlisted").digest(), "big"))))  # fmt: skip
    cases.append(
        case("ed25519: an unlisted seed", "near-miss", key=okp("ed25519", hashlib.sha256(b"unlisted").digest()))
    )
    cases += [
        case(f"{name}: random", "healthy", key=ec(name, scalar(name)))
        for name in ("P-256", "P-384", "P-521", "secp256k1", "P-224")
    ]
    write("ec-weak-private-key", "Keys of chosen private numbers", *cases)


def explicit(curve: Curve, d: int = 0, point: tuple[int, int] | None = None, **changes: object) -> dict[str, object]:
    """A key on a curve that it spells out."""
    size = curve.field_bytes
    given: dict[str, object] = {
        "field": "binary" if curve.binary else "prime", "p": curve.p, "a": curve.a, "b": curve.b,
        "generator": octets(curve, curve.base), "order": curve.order, "cofactor": curve.cofactor,
    }  # fmt: skip
    given.update(changes)
    chosen = point or multiply(curve, d, curve.base)
    assert size == len(octets(curve, chosen)) // 2
    return {"type": "ec", "curve": "explicit", "point": octets(curve, chosen), "parameters": given}


def curve_of(p: int, a: int, b: int, base: tuple[int, int], order: int, cofactor: int = 1) -> Curve:
    x, y, p = gmpy2.mpz(base[0]), gmpy2.mpz(base[1]), gmpy2.mpz(p)
    return Curve("explicit", False, p, gmpy2.mpz(a) % p, gmpy2.mpz(b) % p, x, y, gmpy2.mpz(order), cofactor)


def point_on(p: int, a: int, b: int) -> tuple[int, int]:
    shape = curve_of(p, a, b, (0, 0), 1)
    while True:
        found = root(shape, RANDOM.randrange(2, p), 0)
        if found is not None and found[1]:
            return found


def prime(bits: int) -> int:
    return int(gmpy2.next_prime(RANDOM.getrandbits(bits) | 3 << (bits - 2)))


def anomalous(bits: int) -> Curve:
    """A curve of p points over GF(p): complex multiplication by the order of discriminant -11, 4p = 1 + 11 v^2."""
    while True:
        m = RANDOM.getrandbits(bits // 2 - 2)
        p = 11 * m * (m + 1) + 3
        if gmpy2.is_prime(p):
            break
    k = -32768 * pow(1728 + 32768, -1, p) % p
    for twist in range(1, 100):
        a, b = 3 * k * twist**2 % p, 2 * k * twist**3 % p
        base = point_on(p, a, b)
        if multiply(curve_of(p, a, b, base, p), p, base) is None:
            return curve_of(p, a, b, base, p)
    raise AssertionError


def supersingular(bits: int) -> Curve:
    """y^2 = x^3 + b with p = 2 mod 3 has p + 1 points: embedding degree 2."""
    while True:
        order = prime(bits - 5)
        for cofactor in range(6, 64, 6):
            p = cofactor * order - 1
            if gmpy2.is_prime(p):
                base = None
                while base is None:
                    base = multiply(curve_of(p, 0, 5, (0, 0), 1), cofactor, point_on(p, 0, 5))
                return curve_of(p, 0, 5, base, order, cofactor)


def small_curve(bits: int) -> Curve:
    """A curve of prime order, its points counted one by one."""
    p = prime(bits)
    while True:
        a, b = RANDOM.randrange(1, p), RANDOM.randrange(1, p)
        if (4 * a**3 + 27 * b * b) % p == 0:
            continue
        order = p + 1 + sum(gmpy2.jacobi((x * x * x + a * x + b) % p, p) for x in range(p))
        if order != p and gmpy2.is_prime(order):
            return curve_of(p, a, b, point_on(p, a, b), order)


def explicit_parameters() -> None:
    broken = {"classification": "broken", "confidence": "proven"}
    named = CURVES["P-256"]
    d = scalar("P-256")
    public = multiply(named, d, named.base)
    n = int(named.order)
    cases = [
        case("P-256 spelled out", "weak", profile="fast", classification="notice", key=explicit(named, d)),
        case("the same without cofactor", "weak", profile="fast", classification="notice",
             key=explicit(named, d, cofactor=None)),
        case("P-192 spelled out", "weak", profile="fast", classification="weak",
             key=explicit(CURVES["P-192"], scalar("P-192"))),
        case("sect283k1 spelled out", "weak", profile="fast", classification="weak",
             key=explicit(CURVES["sect283k1"], 12_345)),
        case("CVE-2020-0601: the public key as generator", "weak", profile="fast", **broken,
             key=explicit(named, point=public, generator=octets(named, public)), private={"d": 1}),
        case("CVE-2020-0601: a fifth of the public key as generator", "weak", profile="fast", **broken,
             key=explicit(named, point=public, generator=octets(named, multiply(named, pow(5, -1, n), public))),
             private={"d": 5}),
        case("CVE-2020-0601: minus seven times the public key as generator", "weak", profile="fast", **broken,
             key=explicit(named, point=public, generator=octets(named, multiply(named, n - 7, public))),
             private={"d": pow(n - 7, -1, n)}),
        case("CVE-2020-0601: a foreign generator", "weak", profile="fast", **broken,
             key=explicit(named, d, generator=octets(named, multiply(named, scalar("P-256"), named.base)))),
        case("another order", "weak", profile="fast", **broken, key=explicit(named, d, order=n - 2)),
        case("another cofactor", "weak", profile="fast", **broken, key=explicit(named, d, cofactor=2)),
        case("the point is off the named curve", "weak", profile="fast", **broken,
             key=explicit(named, point=(public[0], public[1] ^ 1))),
    ]  # fmt: skip

    def standard(name: str, curve: Curve, d: int = 0, known: bool = False, **changes: object) -> None:
        kind = dict(broken)
        if "classification" in changes:
            kind = {"classification": changes.pop("classification")}
        private = {"private": {"d": d}} if known else {}
        cases.append(case(name, "weak", profile="standard", **kind, key=explicit(curve, d, **changes), **private))

    p = prime(255)
    base = point_on(p, 0, 0)
    cusp = curve_of(p, 0, 0, base, p)
    standard("a cusp", cusp, RANDOM.randrange(1, p), known=True)
    e = RANDOM.randrange(2, p)
    node = curve_of(p, -3 * e * e, 2 * e**3, point_on(p, -3 * e * e % p, 2 * e**3 % p), p - 1)
    standard("a node", node, RANDOM.randrange(1, p))
    curve = anomalous(256)
    standard("as many points as field elements", curve, RANDOM.randrange(1, curve.p), known=True)
    curve = small_curve(17)
    standard("an order of 17 bits", curve, RANDOM.randrange(1, int(curve.order)), known=True)
    curve = supersingular(260)
    standard("embedding degree 2", curve, RANDOM.randrange(1, int(curve.order)), classification="weak")
    curve = supersingular(180)
    standard("an unknown curve of 175 bits", curve, RANDOM.randrange(1, int(curve.order)), classification="weak")
    composite = curve_of(prime(128) * prime(128), 5, 7, (3, 7), named.order)
    size = composite.field_bytes
    key = {"type": "ec", "curve": "explicit", "point": b"\4" + bytes(2 * size), "parameters": {
        "p": composite.p, "a": 5, "b": 7, "generator": b"\4" + bytes(2 * size), "order": named.order, "cofactor": 1,
    }}  # fmt: skip
    cases.append(case("a composite field", "weak", profile="standard", **broken, key=key))
    # a curve that only GOST R 34.10 names, CryptoPro-A of RFC 4357
    gost = curve_of(
        2**256 - 617, -3, 166,
        (1, 0x8D91E471E0989CDA27DF505A453F2B7635294F2DDF23E3B122ACC99C9E9F1E14),
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF6C611070995AD10045841B09B761B893,
    )  # fmt: skip
    assert on_curve(gost, gost.base) and multiply(gost, gost.order, gost.base) is None
    cases.append(case("an unknown curve", "weak", profile="fast", classification="weak", key=explicit(gost, d)))
    standard("an unknown curve, the order is another one", gost, d, order=int(gost.order) - 2)
    standard("an unknown curve, the generator is off it", gost, d, generator=octets(gost, (1, 2)))
    standard("an unknown curve, Hasse's bound is violated", gost, d, cofactor=2)
    cases.append(case("P-256 by name", "near-miss", key=ec("P-256", d)))
    cases.append(
        case("an unknown name", "near-miss", key={"type": "ec", "curve": "1.2.3.4.5", "point": b"\4" + bytes(64)})
    )
    cases.append(case("P-384", "healthy", key=ec("P-384", scalar("P-384"))))
    write("ec-explicit-parameters", "Curves made for the purpose", *cases)


def related_keys() -> None:
    cases = []

    def pair(
        name: str, verdict: str, curve: str, one: dict[str, object], other: dict[str, object], **more: object
    ) -> None:
        crowd = [ec(curve, scalar(curve)) for _ in range(3)]
        keys = [crowd[0], one, crowd[1], other, crowd[2]]
        if verdict == "weak":
            more["weak"] = [1, 3]
        cases.append(case(name, verdict, **more, items=[{"key": key} for key in keys]))

    weak = {"profile": "standard", "classification": "weak", "confidence": "proven"}
    for curve, difference in (
        ("P-256", 1),
        ("P-256", 33),
        ("P-256", 1039),
        ("P-384", 500),
        ("P-521", -7),
        ("secp256k1", 1000),
    ):
        d = scalar(curve)
        pair(f"{curve}: {difference} apart", "weak", curve, ec(curve, d), ec(curve, d + difference), **weak)
    d = scalar("P-256")
    pair("P-256: negated", "weak", "P-256", ec("P-256", d), ec("P-256", -d), **weak)
    pair("P-256: negated and 700 apart", "weak", "P-256", ec("P-256", d), ec("P-256", 700 - d), **weak)
    pair("P-256, compressed: 12 apart", "weak", "P-256", ec("P-256", d, 2), ec("P-256", d + 12), **weak)
    deep = {**weak, "profile": "deep"}
    pair("P-256: 60,000 apart", "weak", "P-256", ec("P-256", d), ec("P-256", d + 60_000), **deep)
    pair("P-256: 1,040 apart", "near-miss", "P-256", ec("P-256", d), ec("P-256", d + 1040))
    pair("P-256: one key twice", "near-miss", "P-256", ec("P-256", d), ec("P-256", d))
    pair("P-256: one key in full and compressed", "near-miss", "P-256", ec("P-256", d), ec("P-256", d, 2))
    pair("P-256: one private number on two curves", "near-miss", "P-256", ec("P-256", d), ec("secp256k1", d))
    pair("P-256: random keys", "healthy", "P-256", ec("P-256", scalar("P-256")), ec("P-256", scalar("P-256")))
    before = RANDOM.getstate()  # the vectors that follow stay as they were
    pair("P-256: 15,000,000 apart", "weak", "P-256", ec("P-256", d), ec("P-256", d + 15_000_000), **deep)
    pair("P-384: 3 * 2^64 apart", "weak", "P-384", ec("P-384", d), ec("P-384", d + (3 << 64)), **deep)
    pair(
        "P-256: negated and 1,000 * 2^128 apart",
        "weak",
        "P-256",
        ec("P-256", d),
        ec("P-256", (1000 << 128) - d),
        **deep,
    )
    pair("P-256: 1,040 * 2^128 apart", "near-miss", "P-256", ec("P-256", d), ec("P-256", d + (1040 << 128)))
    RANDOM.setstate(before)
    write("fleet-related-ec-keys", "Keys of chosen private numbers", *cases)


def domain(p_bits: int, q_bits: int) -> tuple[int, int, int]:
    """Sound DSA parameters (not by FIPS 186's verifiable way)."""
    q = prime(q_bits)
    while True:
        p = q * (RANDOM.getrandbits(p_bits - q_bits) | 1 << (p_bits - q_bits - 1)) * 2 + 1
        if p.bit_length() == p_bits and gmpy2.is_prime(p):
            break
    return p, q, pow(2, (p - 1) // q, p)


def sparse_domain() -> tuple[int, int, int]:
    q = prime(256)
    while True:
        low = RANDOM.getrandbits(320)
        p = (1 << 2047) + low
        p += 1 - p % q + (q if (p + 1 - p % q) % 2 == 0 else 0)
        if gmpy2.is_prime(p):
            return p, q, pow(2, (p - 1) // q, p)


def dsa_key(parameters: tuple[int, int, int], x: int) -> dict[str, object]:
    p, q, g = parameters
    return {"type": "dsa", "p": p, "q": q, "g": g, "y": pow(g, x, p)}


def dsa() -> None:
    large, small = domain(2048, 256), domain(1024, 160)
    p, q, g = large

    def x() -> int:
        return RANDOM.randrange(1 << 200, q)

    sound = case("2048 and 256 bits", "healthy", key=dsa_key(large, x()))
    cases = [
        case(f"{name}", "weak", profile="fast", classification="weak", key=key)
        for name, key in (
            ("1024 and 160 bits", dsa_key(small, RANDOM.getrandbits(150))),
            ("2048 and 160 bits", dsa_key(domain(2048, 160), RANDOM.getrandbits(150))),
            ("2048 bits, nearly all words zero", dsa_key(sparse_domain(), x())),
        )
    ]
    cases.append(case("2048 and 224 bits", "near-miss", key=dsa_key(domain(2048, 224), RANDOM.getrandbits(220))))
    write("dsa-key-size", "Parameters made for the purpose", *cases, sound)

    fast = {"profile": "fast", "classification": "broken", "confidence": "proven"}
    standard = {**fast, "profile": "standard"}
    y = pow(g, x(), p)
    generator = next(h for h in range(2, 100) if pow(h, (p - 1) // 2, p) != 1 and pow(h, q, p) != 1)
    composite = prime(128) * prime(128)
    while True:
        of_composite = composite * (RANDOM.getrandbits(1792) | 1 << 1791) * 2 + 1
        if gmpy2.is_prime(of_composite):
            break
    cases = [
        case(
            name,
            "weak",
            **kind,
            key={"type": "dsa", "p": numbers[0], "q": numbers[1], "g": numbers[2], "y": numbers[3]},
        )
        for name, kind, numbers in (
            ("g is 1", fast, (p, q, 1, y)),
            ("g is p - 1", fast, (p, q, p - 1, y)),
            ("y is 1", fast, (p, q, g, 1)),
            ("y is 0", fast, (p, q, g, 0)),
            ("y is p", fast, (p, q, g, p)),
            ("p is even", fast, (p + 1, q, g, y)),
            (
                "q is composite",
                standard,
                (of_composite, composite, pow(2, (of_composite - 1) // composite, of_composite), 4),
            ),
            ("q does not divide p - 1", standard, (p, prime(256), g, y)),
            ("g is of another order", standard, (p, q, generator, y)),
            ("y is no power of g", standard, (p, q, g, generator)),
            ("p is composite", standard, composite_domain()),
        )
    ]
    cases.append(case("1024 and 160 bits, sound", "near-miss", key=dsa_key(small, RANDOM.getrandbits(150))))
    write("dsa-invalid-domain", "Parameters made for the purpose", *cases, sound)

    broken = {"classification": "broken", "confidence": "proven"}
    cases = [
        case(name, "weak", profile=profile, **broken, key=dsa_key(parameters, number), private={"x": number})
        for name, profile, parameters, number in (
            ("x is 2", "standard", large, 2),
            ("x is 65,535", "standard", large, 65_535),
            ("x is q - 54,321", "standard", large, q - 54_321),
            ("x is 2^201", "standard", large, 1 << 201),
            ("x is q - 2^33", "standard", large, q - (1 << 33)),
            ("1024 bits, x is 4242", "standard", small, 4242),
            ("x is 3,141,592,653", "deep", large, 3_141_592_653),
            ("x is q - 2,718,281,828", "deep", large, q - 2_718_281_828),
        )
    ]
    cases.append(case("x is 2^20 and 7: deep would find it", "near-miss", key=dsa_key(large, (1 << 20) + 7)))
    write("dsa-weak-private-key", "Keys of chosen private values", *cases, sound)


def composite_domain() -> tuple[int, int, int, int]:
    """P a product of two primes that are 1 modulo q, g of order q modulo both."""
    q = prime(256)
    factors = []
    while len(factors) < 2:
        factor = q * (RANDOM.getrandbits(768) | 1 << 767) * 2 + 1
        if gmpy2.is_prime(factor):
            factors.append(factor)
    r, s = factors
    parts = [pow(2, (factor - 1) // q, factor) for factor in factors]
    g = (parts[0] + r * ((parts[1] - parts[0]) * pow(r, -1, s) % s)) % (r * s)
    return r * s, q, g, pow(g, 1 << 201 | 12345, r * s)


if __name__ == "__main__":
    for make in (weak_curve, invalid_point, weak_private_key, explicit_parameters, related_keys, dsa):
        make()
