"""Makes the vectors of the two checks of Debian's OpenSSL; the same every time.

Run from the root of a checkout: .venv/bin/python tests/vectors/make/debian.py. That the generator agrees with a
vulnerable original is held by tests/lists/test_debian_openssl.py against tests/vectors/debian_weak_keys.csv.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import gmpy2

from keyassay.lists.debian import coordinate_bytes, curve_order, ec_key
from keyassay.lists.recipes.debian_openssl import VARIANTS, RsaKey, Stream, rsa_keys

FOLDER = Path(__file__).parent.parent / "checks"
RANDOM = Random(166)
HOW = "Regenerated from the rules of CVE-2008-0166's generator, by tests/vectors/make/debian.py"


def case(name: str, verdict: str, key: str, private: str = "", **more: str) -> str:
    lines = ["[[case]]", f'name = "{name}"', f'verdict = "{verdict}"']
    lines += [f'{field} = "{value}"' for field, value in more.items()]
    lines.append(f"key = {{ {key} }}")
    if private:
        lines.append(f"private = {{ {private} }}")
    return "\n".join(lines) + "\n"


def rsa(p: int, q: int, e: int) -> tuple[str, str]:
    return f'type = "rsa", modulus = "{p * q:x}", exponent = {e}', f'p = "{p:x}", q = "{q:x}"'


def ec(curve: str, x: int, y: int, form: str) -> str:
    size = coordinate_bytes(curve) * 2
    point = f"04{x:0{size}x}{y:0{size}x}" if form == "whole" else f"{2 + (y & 1):02x}{x:0{size}x}"
    return f'type = "ec", curve = "{curve}", point = "{point}"'


def forked_stream() -> tuple[Stream, dict[int, RsaKey]]:
    """A stream of 1024 bits whose modulus depends on the exponent."""
    from keyassay.lists.format import block_names, read_block
    from keyassay.lists.lookup import DATA

    for name in block_names("rsa-1024"):
        for offset, _, _ in read_block(DATA / name.path).extras:
            stream = Stream(name.arch, name.state, name.first + offset)
            return stream, rsa_keys(stream, 1024)
    raise AssertionError


def rsa_vectors() -> None:
    weak = {"profile": "aws", "classification": "broken", "confidence": "proven"}
    cases = []
    streams = [
        (512, Stream("be32", "rnd", 8000)),
        (1024, Stream("le64", "rnd", 1)),
        (1024, Stream("be32", "noreadrnd", 32767)),
        (2048, Stream("le32", "nornd", 17)),
        (2048, Stream("le64", "noreadrnd", 4242)),
        (2048, Stream("be32", "rnd", 20000)),
        (512, Stream("le64", "direct", 11)),
        (1024, Stream("be32", "direct", 5)),
        (2048, Stream("le32", "direct", 32767)),
    ]
    for bits, stream in streams:
        made = rsa_keys(stream, bits)[65537]
        cases.append(case(f"{bits} bits, {stream}", "weak", *rsa(made.first, made.second, 65537), **weak))
    made = rsa_keys(Stream("le64", "rnd", 2), 1024)[65537]
    cases.append(case("an exponent of 35", "weak", *rsa(made.first, made.second, 35), **weak))
    stream, keys = forked_stream()
    for exponent, key in keys.items():
        cases.append(
            case(f"{stream}, as for e = {exponent}", "weak", *rsa(int(key.first), int(key.second), exponent), **weak)
        )
    one, two = (rsa_keys(Stream("le64", "rnd", pid), 1024)[65537] for pid in (3, 4))
    cases.append(case("primes of two streams", "near-miss", *rsa(one.first, two.second, 65537)))
    p, q = (int(gmpy2.next_prime(RANDOM.getrandbits(1024) | 3 << 1022)) for _ in range(2))
    cases.append(case("two random primes", "healthy", *rsa(p, q, 65537)))
    (FOLDER / "rsa-debian-openssl.toml").write_text(f'provenance = "{HOW}"\n\n' + "\n".join(cases))


def ec_vectors() -> None:
    weak = {"profile": "aws", "classification": "broken", "confidence": "proven"}
    cases = []
    streams = [
        ("P-256", Stream("le64", "rnd", 1), "whole"),
        ("P-256", Stream("le32", "nornd", 31000), "compressed"),
        ("P-384", Stream("be32", "noreadrnd", 77), "whole"),
        ("P-521", Stream("le64", "nornd", 12345), "whole"),
        ("secp256k1", Stream("le32", "rnd", 999), "whole"),
        ("P-256", Stream("le64", "direct", 5), "whole"),
        ("P-384", Stream("be32", "direct", 8191), "compressed"),
        ("P-224", Stream("le32", "noreadrnd", 3), "whole"),
        ("secp160r1", Stream("le64", "rnd", 30000), "whole"),
        ("secp160r1", Stream("be32", "direct", 1), "compressed"),
    ]
    for curve, stream, form in streams:
        d, x, y = ec_key(curve, stream)
        cases.append(case(f"{curve}, {form}, {stream}", "weak", ec(curve, x, y, form), f'd = "{d:x}"', **weak))
    d, x, y = ec_key("P-256", Stream("le64", "rnd", 5))
    p = 2**256 - 2**224 + 2**192 + 2**96 - 1
    negative = curve_order("P-256") - d
    cases.append(case("the negative of a key", "weak", ec("P-256", x, p - y, "whole"), f'd = "{negative:x}"', **weak))
    for variant in VARIANTS.values():
        stream = Stream(variant.archs[0], "rnd", 5)
        d, x, y = ec_key("P-256", stream, variant)
        name = f"{stream}, {variant.words}: no list comes with the program"
        cases.append(case(name, "near-miss", ec("P-256", x, y, "whole")))
    from cryptography.hazmat.primitives.asymmetric import ec as library

    secret = RANDOM.getrandbits(255)
    numbers = library.derive_private_key(secret, library.SECP256R1()).public_key().public_numbers()
    cases.append(case("a random key", "healthy", ec("P-256", numbers.x, numbers.y, "whole")))
    (FOLDER / "ec-debian-openssl.toml").write_text(f'provenance = "{HOW}"\n\n' + "\n".join(cases))


if __name__ == "__main__":
    rsa_vectors()
    ec_vectors()
