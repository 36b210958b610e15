"""Makes the vectors of the checks that look at certificates and their signatures; the same every time.

Run from the root of a checkout: .venv/bin/python tests/vectors/make/certificates.py
"""

from __future__ import annotations

import hashlib
from base64 import encodebytes
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import gmpy2
from cryptography import x509

from keyassay.certificates.der import (
    BIT_STRING,
    OCTET_STRING,
    SEQUENCE,
    element,
    integer_element,
    oid_element,
)
from keyassay.certificates.public_key import DsaPublicKey, EcPublicKey, OkpPublicKey, PublicKey, RsaPublicKey
from keyassay.certificates.spki import encode
from keyassay.keymath.curves import multiply, named_curves
from keyassay.keymath.edwards import group_order, multiple_of_base

FOLDER = Path(__file__).parent.parent / "checks"
RANDOM = Random(1997)
CURVE = named_curves()["P-256"]
N = int(CURVE.order)
NOW = 1_790_000_000  # the time that the test of the catalogue judges at
YEAR = 31_536_000
ECDSA = {"sha256": "1.2.840.10045.4.3.2", "sha384": "1.2.840.10045.4.3.3", "sha512": "1.2.840.10045.4.3.4"}
EDWARDS = {"ed25519": "1.3.101.112", "ed448": "1.3.101.113"}
DSA_SHA256 = "2.16.840.1.101.3.4.3.2"
RSA = {"md2": "1.2.840.113549.1.1.2", "md4": "1.2.840.113549.1.1.3", "md5": "1.2.840.113549.1.1.4",
       "sha1": "1.2.840.113549.1.1.5", "sha256": "1.2.840.113549.1.1.11", "sha384": "1.2.840.113549.1.1.12"}  # fmt: skip
PSS = "1.2.840.113549.1.1.10"
PREFIXES = {
    "sha1": "3021300906052b0e03021a05000414",
    "sha256": "3031300d060960864801650304020105000420",
    "sha384": "3041300d060960864801650304020205000430",
}

Sign = Callable[[bytes], bytes]


def name(text: str) -> bytes:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]).public_bytes()


def moment(seconds: int) -> bytes:
    when = datetime.fromtimestamp(seconds, UTC)
    if when.year < 2050:
        return element(0x17, when.strftime("%y%m%d%H%M%SZ").encode())
    return element(0x18, when.strftime("%Y%m%d%H%M%SZ").encode())


def pem(der: bytes, label: str = "CERTIFICATE") -> str:
    return f"-----BEGIN {label}-----\n{encodebytes(der).decode()}-----END {label}-----\n"


def certificate(
    subject: str, key: PublicKey, issuer: str, algorithm: str, sign: Sign, *, serial: int = 7,
    issued: int = NOW - YEAR, expires: int = NOW + YEAR, identifier: bytes = b"", parameters: bytes | None = None,
) -> str:  # fmt: skip
    """A certificate in PEM, signed by a function of the signed part; ``identifier`` becomes the key identifier."""
    spki = encode(key)
    assert spki is not None
    if parameters is None:
        parameters = b"\x05\x00" if algorithm.startswith("1.2.840.113549") else b""
    method = element(SEQUENCE, oid_element(algorithm), parameters)
    extensions = b""
    if identifier:
        one = element(SEQUENCE, oid_element("2.5.29.14"), element(OCTET_STRING, element(OCTET_STRING, identifier)))
        extensions = element(0xA3, element(SEQUENCE, one))
    signed_part = element(
        SEQUENCE, element(0xA0, integer_element(2)), integer_element(serial), method, name(issuer),
        element(SEQUENCE, moment(issued), moment(expires)), name(subject), spki, extensions,
    )  # fmt: skip
    return pem(element(SEQUENCE, signed_part, method, element(BIT_STRING, b"\0", sign(signed_part))))


def request(subject: str, key: PublicKey, algorithm: str, sign: Sign) -> str:
    spki = encode(key)
    assert spki is not None
    signed_part = element(SEQUENCE, integer_element(0), name(subject), spki, element(0xA0))
    method = element(SEQUENCE, oid_element(algorithm))
    der = element(SEQUENCE, signed_part, method, element(BIT_STRING, b"\0", sign(signed_part)))
    return pem(der, "CERTIFICATE REQUEST")


def write(check: str, how: str, *cases: str) -> None:
    text = f'provenance = "{how}, by tests/vectors/make/certificates.py"\n\n' + "\n".join(cases)
    (FOLDER / f"{check}.toml").write_text(text)


def case(title: str, verdict: str, *pems: str, weak: list[int] | None = None, **more: object) -> str:
    lines = ["[[case]]", f'name = "{title}"', f'verdict = "{verdict}"']
    lines += [f'{key} = "{value}"' for key, value in more.items()]
    if weak is not None:
        lines.append(f"weak = {weak}")
    lines += [f'[[case.items]]\npem = """\n{one}"""' for one in pems]
    return "\n".join(lines) + "\n"


# ECDSA and DSA with chosen nonces


def ec_key(d: int) -> EcPublicKey:
    x, y = (int(one).to_bytes(32, "big") for one in multiply(CURVE, d, CURVE.base))
    return EcPublicKey("P-256", b"\4" + x + y)


def digest_number(signed_part: bytes, order: int = N, hash_name: str = "sha256") -> int:
    digest = hashlib.new(hash_name, signed_part).digest()
    excess = max(8 * len(digest) - order.bit_length(), 0)
    return int.from_bytes(digest, "big") >> excess


def ecdsa(d: int, k: int | None = None, hash_name: str = "sha256", record: list[int] | None = None) -> Sign:
    """Signs with nonce k, None for the digest itself; ``record`` takes the nonce."""

    def sign(signed_part: bytes) -> bytes:
        z = digest_number(signed_part, N, hash_name)
        nonce = z % N if k is None else k % N
        if record is not None:
            record.append(nonce)
        r = int(multiply(CURVE, nonce, CURVE.base)[0]) % N
        s = pow(nonce, -1, N) * (z + r * d) % N
        return element(SEQUENCE, integer_element(r), integer_element(s))

    return sign


def scalar() -> int:
    return RANDOM.randrange(1 << 250, N)


def device(number: int) -> EcPublicKey:
    return ec_key(int.from_bytes(hashlib.sha256(f"device {number}".encode()).digest(), "big") % N)


def signed(d: int, issuer: str, nonces: list[int | None], **more: object) -> list[str]:
    """Certificates of devices, issued one after the other with chosen nonces."""
    return [
        certificate(f"device {number}", device(number), issuer, ECDSA["sha256"], ecdsa(d, k), serial=100 + number,
                    issued=NOW - YEAR + 60 * number, **more)
        for number, k in enumerate(nonces)
    ]  # fmt: skip


def authority(title: str, d: int, k: int | None = 0, **more: object) -> str:
    """The self-signed certificate of an issuer, with a random nonce unless another is asked for."""
    nonce = scalar() if k == 0 else k
    return certificate(title, ec_key(d), title, ECDSA["sha256"], ecdsa(d, nonce), serial=1, **more)


def signature_nonce() -> None:
    cases = []
    fast = {"profile": "fast", "classification": "broken", "confidence": "proven"}
    standard = {**fast, "profile": "standard"}
    d = scalar()
    ca = authority("CA", d)

    def ring(title: str, nonces: list[int | None], kind: dict[str, str], weak: list[int] | None = None) -> None:
        cases.append(case(title, "weak", ca, *signed(d, "CA", nonces), weak=[0] if weak is None else weak, **kind))

    k = scalar()
    ring("one nonce twice", [scalar(), k, scalar(), k], fast)
    ring("a nonce and its negative", [k, scalar(), -k], fast)
    cases.append(
        case(
            "one nonce twice, the issuer is not there", "weak", *signed(d, "CA", [k, scalar(), k]), weak=[0, 2], **fast
        )
    )
    cases.append(case(
        "one nonce twice, SHA-256 and SHA-384", "weak", ca,
        *(certificate("device", device(1), "CA", ECDSA[one], ecdsa(d, k, one), serial=5) for one in ("sha256", "sha384")),
        weak=[0], **fast,
    ))  # fmt: skip
    own = scalar()
    cases.append(case(
        "a request and a certificate by one device", "weak",
        request("device", ec_key(own), ECDSA["sha256"], ecdsa(own, k)),
        certificate("device", ec_key(own), "device", ECDSA["sha256"], ecdsa(own, k)), weak=[0, 1], **fast,
    ))  # fmt: skip
    ring("a nonce of 7", [7], fast)
    ring("the order less a million", [N - 1_000_000], fast)
    ring("SHA-256 of an empty string as nonce", [int.from_bytes(hashlib.sha256(b"").digest(), "big")], fast)
    cases.append(
        case("a nonce of 65,537, the issuer is not there", "weak", *signed(d, "CA", [65_537]), weak=[0], **fast)
    )
    ring("the private key as nonce", [scalar(), d], fast)
    ring("the negative private key as nonce", [-d], fast)
    cases.append(
        case("the private key as nonce of its own certificate", "weak", authority("Root", own, own), weak=[0], **fast)
    )
    ring("the digest as nonce", [None], standard)
    cases.append(
        case("the digest as nonce, the issuer is not there", "weak", *signed(d, "CA", [None]), weak=[0], **standard)
    )
    step = scalar()
    ring("three nonces in equal steps", [k, k + step, k + 2 * step], standard)
    ring("a counter as nonce", [k, k + 1], standard)
    ring("each nonce twice the one before", [k, 2 * k], standard)
    a, b = scalar(), scalar()
    series = [k]
    for _ in range(3):
        series.append((a * series[-1] + b) % N)
    ring("a linear congruential generator", list(series), standard)
    other, second = scalar(), scalar()
    partners = [authority("Other CA", other), *signed(other, "Other CA", [k, -second])]
    cases.append(case(
        "two issuers share two nonces", "weak", ca, *signed(d, "CA", [k, second]), *partners, weak=[0, 3], **fast
    ))  # fmt: skip
    p, q, g = dsa_domain()
    x, y = 1 << 200 | 12345, pow(g, 1 << 200 | 12345, p)
    key = DsaPublicKey(p, q, g, y)
    nonce = RANDOM.randrange(1 << 200, q)
    root = certificate("DSA CA", key, "DSA CA", DSA_SHA256, dsa(p, q, g, x, nonce - 5), serial=1)
    for title, nonces, kind in (
        ("DSA: one nonce twice", [nonce, nonce], fast), ("DSA: a nonce of 300", [300], fast),
        ("DSA: the private key as nonce", [x], fast), ("DSA: the digest as nonce", [None], standard),
    ):  # fmt: skip
        issued = [
            certificate(
                f"device {number}", device(number), "DSA CA", DSA_SHA256, dsa(p, q, g, x, one), serial=9 + number
            )
            for number, one in enumerate(nonces)
        ]
        cases.append(case(title, "weak", root, *issued, weak=[0], **kind))

    shared_nonces(cases, (p, q, g))
    uneven_nonces(cases, (p, q, g))
    same = signed(d, "CA", [k])
    cases.append(case("the same certificate twice", "near-miss", ca, *same, *same))
    cases.append(case("two issuers share one nonce", "near-miss", ca, *signed(d, "CA", [k]), authority("Other CA", other),
                      *signed(other, "Other CA", [k])))  # fmt: skip
    cases.append(case("a nonce of 2^24 and 7", "near-miss", ca, *signed(d, "CA", [(1 << 24) + 7])))
    cases.append(
        case("nonces whose upper halves agree", "near-miss", ca, *signed(d, "CA", [k, k ^ RANDOM.getrandbits(128)]))
    )
    cases.append(case("random nonces", "healthy", ca, *signed(d, "CA", [scalar() for _ in range(6)]),
                      authority("Other CA", other)))  # fmt: skip
    write("fleet-signature-nonce", "Signatures with chosen nonces", *cases)


def shared_nonces(cases: list[str], domain: tuple[int, int, int]) -> None:
    """Rings of signers, signers who share a nonce with a lost one, and EdDSA; from a generator of their own."""
    drawn = Random(8032)
    fast = {"profile": "fast", "classification": "broken", "confidence": "proven"}

    def number() -> int:
        return drawn.randrange(1 << 250, 1 << 252)

    def issuer(title: str, nonces: list[int]) -> list[str]:
        d = number()
        return [authority(title, d, number()), *signed(d, title, [*nonces])]

    def ring(count: int) -> list[str]:
        nonces = [number() for _ in range(count)]
        return [
            one
            for place in range(count)
            for one in issuer(f"CA {place}", [nonces[place], nonces[place - 1] * (-1) ** place])
        ]

    for count, title in ((3, "three"), (8, "eight")):
        places = [3 * place for place in range(count)]
        cases.append(case(f"{title} issuers share {title} nonces in a ring", "weak", *ring(count), weak=places, **fast))
    cases.append(case("nine issuers share nine nonces in a ring", "near-miss", *ring(9)))
    one, two, three = number(), number(), number()
    cases.append(case("three issuers share two nonces", "near-miss", *issuer("CA", [one]), *issuer("Other CA", [two, -one]),
                      *issuer("Third CA", [two])))  # fmt: skip
    cases.append(case("a nonce twice, and shared from issuer to issuer", "weak", *issuer("CA", [one, two, one]),
                      *issuer("Other CA", [-two, three]), *issuer("Third CA", [three]), *issuer("Fourth CA", [number()]),
                      weak=[0, 4, 7], **fast))  # fmt: skip
    # two authorities of one name: which of them made a signature says only the signature
    twins = [authority("CA", number(), number()), *issuer("CA", [one, two]), *issuer("Other CA", [-one, two])]
    cases.append(case("two nonces shared, and another key of the issuer's name", "weak", *twins, weak=[1, 4], **fast))

    def pair(title: str, algorithm: str, key: PublicKey, *signs: Sign) -> list[str]:
        return [
            certificate(title, key, title, algorithm, signs[0], serial=1),
            *(certificate(f"device {place}", device(place), title, algorithm, sign, serial=70 + place)
              for place, sign in enumerate(signs[1:])),
        ]  # fmt: skip

    p, q, g = domain
    dsa_pairs = []
    for title in ("DSA CA", "Other DSA CA"):
        x = number()
        nonces = (number(), one, two)
        dsa_pairs += pair(title, DSA_SHA256, DsaPublicKey(p, q, g, pow(g, x, p)), *(dsa(p, q, g, x, k) for k in nonces))
    cases.append(case("DSA: two issuers share two nonces", "weak", *dsa_pairs, weak=[0, 3], **fast))

    def edwards_issuer(title: str, kind: str, nonces: list[int]) -> list[str]:
        a = number()
        key = OkpPublicKey(kind, multiple_of_base(kind, a))
        return pair(title, EDWARDS[kind], key, *(edwards(key, a, k) for k in (number(), *nonces)))

    for kind, title in (("ed25519", "Ed25519"), ("ed448", "Ed448")):
        cases.append(case(f"{title}: one nonce twice", "weak", *edwards_issuer("CA", kind, [one, number(), one]), weak=[0],
                          **fast))  # fmt: skip
        cases.append(case(f"{title}: two issuers share two nonces", "weak", *edwards_issuer("CA", kind, [one, two]),
                          *edwards_issuer("Other CA", kind, [two, one]), weak=[0, 3], **fast))  # fmt: skip
    same = edwards_issuer("CA", "ed25519", [one])
    cases.append(case("Ed25519: the same certificate twice", "near-miss", *same, same[1]))
    cases.append(
        case("Ed25519: two issuers share one nonce", "near-miss", *same, *edwards_issuer("Other CA", "ed25519", [one]))
    )
    cases.append(case("Ed25519: one nonce twice, the issuer is not there", "near-miss",
                      *edwards_issuer("CA", "ed25519", [one, one])[1:]))  # fmt: skip


def java_number(seed: int) -> int:
    """What new BigInteger(256, new java.util.Random(...)) gives, from a state of 48 bits."""
    octets = b""
    for _ in range(8):
        seed = (seed * 0x5DEECE66D + 0xB) % (1 << 48)
        octets += (seed >> 16).to_bytes(4, "little")
    return int.from_bytes(octets, "big")


def uneven_nonces(cases: list[str], domain: tuple[int, int, int]) -> None:
    """Nonces that are short, alike, made of digits, or close to each other; from a generator of their own."""
    drawn = Random(1996)
    deep = {"profile": "deep", "classification": "broken", "confidence": "proven"}

    def number(bits: int = 255) -> int:
        return drawn.getrandbits(bits)

    def weak(title: str, nonces: list[int], own: int | None = None) -> None:
        """An issuer's certificate, with a random nonce of its own if no other is given, and those that it issued."""
        d = number()
        root = authority("CA", d, number() if own is None else own)
        cases.append(case(title, "weak", root, *signed(d, "CA", [*nonces]), weak=[0], **deep))

    weak("four nonces of 128 bits", [number(128) for _ in range(3)], number(128))
    weak("seventeen nonces of 240 bits", [number(240) for _ in range(16)], number(240))
    weak("forty nonces of 246 bits", [number(246) for _ in range(39)], number(246))
    weak("nonces of 128 bits and their negatives", [number(128) * (-1) ** i for i in range(4)], number(128))
    weak("four nonces of 100 bits among others", [number(100 if 3 <= i < 7 else 255) for i in range(9)])
    start, end = number(96) << 159, number(96)
    weak("five nonces that begin alike", [start | number(159) for _ in range(4)], start | number(159))
    weak("five nonces that end alike", [number(159) << 96 | end for _ in range(4)], number(159) << 96 | end)
    weak("each byte four times", [sum(number(8) * 0x01010101 << (32 * i) for i in range(8)) for _ in range(2)])
    weak("numbers of java.util.Random", [java_number(number(48)) for _ in range(2)])
    own = java_number(number(48))
    cases.append(case("a key and a nonce of java.util.Random", "weak", authority("Root", own, java_number(number(48))),
                      weak=[0], **deep))  # fmt: skip
    middle = number(80) << 88
    weak("nonces whose middle is fixed", [number(87) << 168 | middle | number(88) for _ in range(23)],
         number(87) << 168 | middle | number(88))  # fmt: skip
    k = number()
    weak("two nonces 60,000 apart", [k, number(), k + 60_000])
    weak("two nonces whose sum is 5,000", [k, number(), 5_000 - k])
    d = number()
    cases.append(case("four nonces of 128 bits, the issuer is not there", "weak",
                      *signed(d, "CA", [number(128) for _ in range(4)]), weak=[0, 1, 2, 3], **deep))  # fmt: skip
    p, q, g = domain
    x = number(200)
    key = DsaPublicKey(p, q, g, pow(g, x, p))
    issued = [
        certificate(f"device {i}", device(i), "DSA CA", DSA_SHA256, dsa(p, q, g, x, number(128)), serial=9 + i)
        for i in range(4)
    ]
    cases.append(case("DSA: four nonces of 128 bits", "weak",
                      certificate("DSA CA", key, "DSA CA", DSA_SHA256, dsa(p, q, g, x, number(128)), serial=1),
                      *issued, weak=[0], **deep))  # fmt: skip
    a = number(250)
    edwards_key = OkpPublicKey("ed25519", multiple_of_base("ed25519", a))
    cases.append(case("Ed25519: four nonces of 128 bits", "weak", *(
        certificate("CA", edwards_key, "CA", EDWARDS["ed25519"], edwards(edwards_key, a, number(128)), serial=1 + i)
        for i in range(4)
    ), weak=[0, 1, 2, 3], **deep))  # fmt: skip
    for title, nonces in (
        ("four nonces of 200 bits", [number(200) for _ in range(4)]),
        ("twenty nonces of 252 bits", [number(252) for _ in range(20)]),
        ("four nonces that begin with the same 48 bits", [start >> 207 << 207 | number(207) for _ in range(4)]),
        ("two nonces 100,000 apart", [k, k + 100_000]),
        ("each byte twice", [sum(number(8) * 0x0101 << (16 * i) for i in range(16)) for _ in range(2)]),
    ):
        d = number()
        cases.append(case(title, "near-miss", authority("CA", d, number()), *signed(d, "CA", [*nonces])))


def edwards(key: OkpPublicKey, a: int, nonce: int) -> Sign:
    """Ed25519 or Ed448 with a chosen nonce."""

    def sign(signed_part: bytes) -> bytes:
        r = multiple_of_base(key.type, nonce)
        parts = r + key.encoded + signed_part
        if key.type == "ed25519":
            digest = hashlib.sha512(parts).digest()
        else:
            digest = hashlib.shake_256(b"SigEd448\0\0" + parts).digest(114)
        s = (nonce + int.from_bytes(digest, "little") * a) % group_order(key.type)
        return r + s.to_bytes(len(r), "little")

    return sign


def dsa_domain() -> tuple[int, int, int]:
    q = int(gmpy2.next_prime(RANDOM.getrandbits(256) | 3 << 254))
    while True:
        p = 2 * q * (RANDOM.getrandbits(1791) | 1 << 1790) + 1
        if p.bit_length() == 2048 and gmpy2.is_prime(p):
            return p, q, pow(2, (p - 1) // q, p)


def dsa(p: int, q: int, g: int, x: int, k: int | None) -> Sign:
    def sign(signed_part: bytes) -> bytes:
        z = digest_number(signed_part, q)
        nonce = z % q if k is None else k % q
        r = pow(g, nonce, p) % q
        return element(SEQUENCE, integer_element(r), integer_element(pow(nonce, -1, q) * (z + r * x) % q))

    return sign


# RSA


def prime(bits: int) -> int:
    while True:
        found = int(gmpy2.next_prime(RANDOM.getrandbits(bits) | 3 << (bits - 2)))
        if found % 65537 != 1:
            return found


class Rsa:
    """An RSA key that signs rightly or wrongly."""

    def __init__(self, bits: int = 2048, exponent: int = 65537) -> None:
        self.p, self.q = prime(bits // 2), prime(bits // 2)
        self.n, self.e = self.p * self.q, exponent
        self.key = RsaPublicKey(self.n, exponent)

    def message(self, signed_part: bytes, hash_name: str, bare: bool = False) -> int:
        prefix = (
            bytes.fromhex("302f300b0609608648016503040201" + "0420") if bare else bytes.fromhex(PREFIXES[hash_name])
        )
        info = prefix + hashlib.new(hash_name, signed_part).digest()
        size = self.n.bit_length() // 8
        return int.from_bytes(b"\0\1" + b"\xff" * (size - 3 - len(info)) + b"\0" + info, "big")

    def root(self, m: int) -> int:
        return pow(m, pow(self.e, -1, (self.p - 1) * (self.q - 1)), self.n)

    def sign(self, hash_name: str = "sha256", *, wrong: tuple[bool, bool] = (False, False), bare: bool = False) -> Sign:
        """``wrong`` says which halves go wrong (modulo p, modulo q)."""

        def signer(signed_part: bytes) -> bytes:
            s = self.root(self.message(signed_part, hash_name, bare))
            halves = [(s + fault * 12_345) % prime for fault, prime in zip(wrong, (self.p, self.q), strict=True)]
            joined = halves[0] + self.p * ((halves[1] - halves[0]) * pow(self.p, -1, self.q) % self.q)
            return joined.to_bytes(self.n.bit_length() // 8, "big")

        return signer


def rsa_fault() -> None:
    ca = Rsa()
    kind = {"profile": "standard", "classification": "broken", "confidence": "proven"}
    root = certificate("RSA CA", ca.key, "RSA CA", RSA["sha256"], ca.sign(), serial=1)

    def issued(number: int, hash_name: str = "sha256", **more: object) -> str:
        return certificate(
            f"device {number}", device(number), "RSA CA", RSA[hash_name], ca.sign(hash_name, **more), serial=20 + number
        )

    sound = [issued(number) for number in range(5)]
    other = Rsa()
    cases = [
        case("one half wrong modulo p", "weak", root, *sound, issued(9, wrong=(True, False)), weak=[0], **kind),
        case("one half wrong modulo q", "weak", root, issued(9, wrong=(False, True)), *sound, weak=[0], **kind),
        case("SHA-1, one half wrong", "weak", root, issued(9, "sha1", wrong=(True, False)), weak=[0], **kind),
        case("SHA-384, one half wrong", "weak", root, issued(9, "sha384", wrong=(True, False)), weak=[0], **kind),
        case("DigestInfo without NULL, one half wrong", "weak", root, issued(9, bare=True, wrong=(True, False)), weak=[0], **kind),
        case("two wrong ones", "weak", root, *(issued(one, wrong=(True, False)) for one in (8, 9)), *sound, weak=[0], **kind),
        case("a certificate of its own, one half wrong", "weak",
             certificate("Device", other.key, "Device", RSA["sha256"], other.sign(wrong=(False, True))), weak=[0], **kind),
        case("both halves wrong", "near-miss", root, issued(9, wrong=(True, True)), *sound),
        case("valid without NULL", "near-miss", root, issued(9, bare=True)),
        case("a signature of something else", "near-miss", root, *sound[:2],
             certificate("device 9", device(9), "RSA CA", RSA["sha256"],
                         lambda _part: ca.root(ca.message(b"something else", "sha256")).to_bytes(256, "big"))),
        case("signed by another key of that name", "near-miss", root, *sound[:2],
             certificate("device 9", device(9), "RSA CA", RSA["sha256"], other.sign())),
        case("sound signatures", "healthy", root, *sound),
    ]  # fmt: skip
    write("signature-rsa-fault", "Signatures with faults made on purpose", *cases)


# Fields


def signature_hash() -> None:
    key = device(1)

    def nobody(_signed_part: bytes) -> bytes:
        return bytes(range(256))

    def leaf(algorithm: str, **more: object) -> str:
        return certificate("device 1", key, "CA", algorithm, nobody, **more)

    def pss(hash_oid: str) -> bytes:
        if not hash_oid:
            return element(SEQUENCE)
        return element(SEQUENCE, element(0xA0, element(SEQUENCE, oid_element(hash_oid))))

    weak = {"profile": "fast", "classification": "weak", "confidence": "certain"}
    notice = {**weak, "classification": "notice"}
    cases = [
        *(case(f"{one.upper()} with RSA", "weak", leaf(RSA[one]), **weak) for one in ("md2", "md4", "md5")),
        case("SHA-1 with RSA", "weak", leaf(RSA["sha1"]), **notice),
        case("SHA-1 with ECDSA", "weak", leaf("1.2.840.10045.4.1"), **notice),
        case("SHA-1 with DSA", "weak", leaf("1.2.840.10040.4.3"), **notice),
        case("PSS without a hash: SHA-1", "weak", leaf(PSS, parameters=pss("")), **notice),
        case("PSS that names SHA-1", "weak", leaf(PSS, parameters=pss("1.3.14.3.2.26")), **notice),
        case("PSS that names MD5", "weak", leaf(PSS, parameters=pss("1.2.840.113549.2.5")), **weak),
        case("PSS with SHA-256", "near-miss", leaf(PSS, parameters=pss("2.16.840.1.101.3.4.2.1"))),
        case("MD5, self-issued", "near-miss", certificate("Root", key, "Root", RSA["md5"], nobody)),
        case("SHA-256 with RSA", "healthy", leaf(RSA["sha256"])),
    ]
    write("certificate-signature-hash", "Certificates whose signature is never looked at", *cases)


def validity() -> None:
    d = scalar()

    def leaf(issued: int, expires: int) -> str:
        return certificate(
            "device 1", device(1), "CA", ECDSA["sha256"], ecdsa(d, scalar()), issued=issued, expires=expires
        )

    kind = {"profile": "fast", "classification": "notice", "confidence": "certain"}
    cases = [
        case("expired a second ago", "weak", leaf(NOW - YEAR, NOW - 1), **kind),
        case("expired in 1999", "weak", leaf(900_000_000, 930_000_000), **kind),
        case("valid in a second", "weak", leaf(NOW + 1, NOW + YEAR), **kind),
        case("valid from 2060", "weak", leaf(2_850_000_000, 2_900_000_000), **kind),
        case("expires now", "near-miss", leaf(NOW - YEAR, NOW)),
        case("valid from now", "near-miss", leaf(NOW, NOW + YEAR)),
        case("valid to the end of time", "near-miss", leaf(NOW - YEAR, 253_402_300_799)),
        case("valid", "healthy", leaf(NOW - YEAR, NOW + YEAR)),
    ]
    write("certificate-validity", "Certificates with chosen times", *cases)


if __name__ == "__main__":
    for make in (signature_nonce, rsa_fault, signature_hash, validity):
        make()
