"""Makes the vectors of any-known-key from the list of keys printed in RFCs; the same every time.

Run from the root of a checkout: .venv/bin/python tests/vectors/make/known_keys.py
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import gmpy2
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, x448, x25519

from keyassay.keymath.curves import Curve, multiply, named_curves
from keyassay.lists.known import KnownKey, published

FOLDER = Path(__file__).parent.parent / "checks"
RANDOM = Random(9500)
OKP = {
    "ed25519": ed25519.Ed25519PrivateKey,
    "ed448": ed448.Ed448PrivateKey,
    "x25519": x25519.X25519PrivateKey,
    "x448": x448.X448PrivateKey,
}
#: one key of each type: where it is printed
CHOSEN = {
    "rsa": ("RFC 9500, testRSA1024", "RFC 9500, testRSA2048", "RFC 9500, testRSA4096", "RFC 7515, A.2.1"),
    "dsa": ("RFC 9500, testDLP2048",),
    "P-224": ("RFC 5114",),
    "P-256": ("RFC 9500, testECCP256", "RFC 6979"),
    "P-384": ("RFC 9500, testECCP384",),
    "P-521": ("RFC 9500, testECCP521",),
    "brainpoolP256r1": ("RFC 6954",),
    "sect163k1": ("RFC 6979",),
    "ed25519": ("RFC 8032",),
    "ed448": ("RFC 8032",),
    "x25519": ("RFC 7748",),
    "x448": ("RFC 7748",),
}


def case(name: str, verdict: str, key: str, private: str = "", **more: str) -> str:
    lines = ["[[case]]", f'name = "{name}"', f'verdict = "{verdict}"']
    lines += [f'{field} = "{value}"' for field, value in more.items()]
    lines.append(f"key = {{ {key} }}")
    if private:
        lines.append(f"private = {{ {private} }}")
    return "\n".join(lines) + "\n"


def weak(name: str, key: str, private: str = "", confidence: str = "proven") -> str:
    return case(
        name, "weak", key, private, profile="fast", classification="broken", confidence=confidence
    )  # fmt: skip


def rsa_key(modulus: int, exponent: int = 65537) -> str:
    return f'type = "rsa", modulus = "{modulus:x}", exponent = {exponent}'


def point(curve: Curve, xy: tuple[int, int], form: int = 4) -> str:
    x, y = (int(one).to_bytes(curve.field_bytes, "big").hex() for one in xy)
    return f"{form:02x}{x}{y if form == 4 else ''}"


def ec_key(name: str, octets: str) -> str:
    return f'type = "ec", curve = "{name}", point = "{octets}"'


def explicit(curve: Curve, octets: str) -> str:
    given = f'p = "{curve.p:x}", a = "{curve.a:x}", b = "{curve.b:x}", order = "{curve.order:x}", cofactor = 1'
    base = point(curve, curve.base)
    parameters = f'parameters = {{ {given}, generator = "{base}" }}'
    return f'type = "ec", curve = "explicit", point = "{octets}", {parameters}'


def public(key: KnownKey) -> str:
    """The table of a listed key's public half."""
    kind = key.key_type
    if kind == "rsa":
        p, q = (int(text, 16) for text in key.secret)
        return rsa_key(p * q)
    if kind == "dsa":
        x, p, q, g = (int(text, 16) for text in key.secret)
        return f'type = "dsa", p = "{p:x}", q = "{q:x}", g = "{g:x}", y = "{pow(g, x, p):x}"'
    if kind in OKP:
        octets = OKP[kind].from_private_bytes(bytes.fromhex(key.secret[0])).public_key().public_bytes_raw()
        return f'type = "{kind}", encoded = "{octets.hex()}"'
    curve = named_curves()[kind]
    found = multiply(curve, int(key.secret[0], 16), curve.base)
    assert found is not None
    return ec_key(kind, point(curve, found))


def private(key: KnownKey) -> str:
    names = {"rsa": ("p", "q"), "dsa": ("x",), "ed25519": ("seed",), "x25519": ("seed",)}.get(key.key_type, ("d",))
    if key.key_type.endswith("448"):
        return ""
    return ", ".join(f'{name} = "{text}"' for name, text in zip(names, key.secret, strict=False))


def main() -> None:
    keys = list(published())
    parts = ['provenance = "Private keys printed in RFCs, by tests/vectors/make/known_keys.py"\n']
    for kind, sources in CHOSEN.items():
        for source in sources:
            key = min((one for one in keys if one.key_type == kind and one.source.startswith(source)), key=str)
            parts.append(weak(f"{kind}: {key.source}", public(key), private(key)))
    p256 = named_curves()["P-256"]
    test_key = next(key for key in keys if key.source == "RFC 9500, testECCP256")
    d = int(test_key.secret[0], 16)
    found = multiply(p256, d, p256.base)
    assert found is not None
    x, y = int(found[0]), int(found[1])
    parts.append(weak("the compressed point", ec_key("P-256", point(p256, (x, y), 2 + (y & 1))), f'd = "{d:x}"'))
    negative = f'd = "{int(p256.order) - d:x}"'
    parts.append(weak("the negative point", ec_key("P-256", point(p256, (x, int(p256.p) - y))), negative))
    parts.append(weak("the curve spelled out", explicit(p256, point(p256, (x, y))), confidence="certain"))
    other_exponent = next(key for key in keys if key.source == "RFC 9500, testRSA1024")
    p, q = (int(text, 16) for text in other_exponent.secret)
    parts.append(weak("another exponent than printed", rsa_key(p * q, 17), private(other_exponent)))

    parts.append(case("a modulus with one bit changed", "near-miss", rsa_key(p * q ^ 1 << 512)))
    parts.append(case("a printed prime with another", "near-miss", rsa_key(p * int(gmpy2.next_prime(q)))))
    parts.append(case("the x coordinate on another curve", "near-miss", ec_key("secp256k1", point(p256, (x, y)))))
    ed = next(key for key in keys if key.key_type == "ed25519" and key.source.startswith("RFC 8032"))
    parts.append(case("octets of Ed25519 as X25519", "near-miss", public(ed).replace("ed25519", "x25519")))
    dsa = next(key for key in keys if key.source == "RFC 9500, testDLP2048")
    group = public(next(key for key in keys if key.source == "RFC 9500, testDLP1024"))
    parts.append(
        case("y of DSA in another group", "near-miss", group[: group.index(", y =")] + public(dsa)[public(dsa).index(", y ="):])
    )  # fmt: skip

    primes = [int(gmpy2.next_prime(RANDOM.getrandbits(1024) | 3 << 1022)) for _ in range(2)]
    parts.append(case("RSA-2048", "healthy", rsa_key(primes[0] * primes[1])))
    for name in ("P-256", "P-384"):
        curve = named_curves()[name]
        fresh = multiply(curve, RANDOM.randrange(int(curve.order)), curve.base)
        assert fresh is not None
        parts.append(case(name, "healthy", ec_key(name, point(curve, fresh))))
    octets = ed25519.Ed25519PrivateKey.from_private_bytes(RANDOM.randbytes(32)).public_key().public_bytes_raw()
    parts.append(case("Ed25519", "healthy", f'type = "ed25519", encoded = "{octets.hex()}"'))
    (FOLDER / "any-known-key.toml").write_text("\n".join(parts))


if __name__ == "__main__":
    main()
