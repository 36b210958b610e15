"""Subject public key infos: from DER to numbers and back, without judging them (RFC 3279, 5480, 8410, 4055).

``parse`` takes every key that has one meaning, sound or not; ``encode`` remakes the canonical form for bare keys.
"""

from __future__ import annotations

from keyassay.certificates.der import (
    BIT_STRING,
    INTEGER,
    NULL,
    OCTET_STRING,
    OID,
    SEQUENCE,
    DerError,
    children,
    element,
    expect,
    integer,
    integer_element,
    oid_element,
    oid_text,
    tlv,
)
from keyassay.certificates.public_key import (
    DsaPublicKey,
    EcPublicKey,
    ExplicitParameters,
    OkpPublicKey,
    PublicKey,
    RsaPublicKey,
    UnsupportedPublicKey,
)

#: the algorithm identifier of nearly all RSA keys
RSA_ALGORITHM = element(SEQUENCE, oid_element("1.2.840.113549.1.1.1"), b"\x05\x00")
_RSA_OIDS = {"1.2.840.113549.1.1.1", "1.2.840.113549.1.1.7", "1.2.840.113549.1.1.10", "2.5.8.1.1"}
_EC_OIDS = {"1.2.840.10045.2.1", "1.3.132.1.12", "1.3.132.1.13"}
#: dotted OID -> type of key
OKP_NAMES = {"1.3.101.110": "x25519", "1.3.101.111": "x448", "1.3.101.112": "ed25519", "1.3.101.113": "ed448"}
_DSA = "1.2.840.10040.4.1"

_SECG = {
    6: "secp112r1", 7: "secp112r2", 28: "secp128r1", 29: "secp128r2", 9: "secp160k1", 8: "secp160r1", 30: "secp160r2",
    31: "secp192k1", 32: "secp224k1", 33: "P-224", 10: "secp256k1", 34: "P-384", 35: "P-521",
    4: "sect113r1", 5: "sect113r2", 22: "sect131r1", 23: "sect131r2", 1: "sect163k1", 2: "sect163r1", 15: "sect163r2",
    24: "sect193r1", 25: "sect193r2", 26: "sect233k1", 27: "sect233r1", 3: "sect239k1", 16: "sect283k1",
    17: "sect283r1", 36: "sect409k1", 37: "sect409r1", 38: "sect571k1", 39: "sect571r1",
}  # fmt: skip
_PRIME = {1: "P-192", 2: "prime192v2", 3: "prime192v3", 4: "prime239v1", 5: "prime239v2", 6: "prime239v3", 7: "P-256"}
_BRAINPOOL = {
    number: f"brainpoolP{bits}{shape}1"
    for number, (bits, shape) in enumerate(
        ((bits, shape) for bits in (160, 192, 224, 256, 320, 384, 512) for shape in ("r", "t")), start=1
    )
}
#: dotted OID -> name of the curve
CURVE_NAMES = {
    **{f"1.3.132.0.{number}": name for number, name in _SECG.items()},
    **{f"1.2.840.10045.3.1.{number}": name for number, name in _PRIME.items()},
    **{f"1.3.36.3.3.2.8.1.1.{number}": name for number, name in _BRAINPOOL.items()},
    "1.2.156.10197.1.301": "SM2",
}
_CURVE_OIDS = {name: oid for oid, name in CURVE_NAMES.items()}

_UNSUPPORTED = {
    "1.2.840.113549.1.3.1": "Diffie-Hellman",
    "1.2.840.10046.2.1": "Diffie-Hellman (X9.42)",
    "1.2.643.2.2.19": "GOST R 34.10-2001",
    "1.2.643.7.1.1.1.1": "GOST R 34.10-2012 (256 bits)",
    "1.2.643.7.1.1.1.2": "GOST R 34.10-2012 (512 bits)",
    "2.16.840.1.101.3.4.3.17": "ML-DSA-44",
    "2.16.840.1.101.3.4.3.18": "ML-DSA-65",
    "2.16.840.1.101.3.4.3.19": "ML-DSA-87",
    "2.16.840.1.101.3.4.4.1": "ML-KEM-512",
    "2.16.840.1.101.3.4.4.2": "ML-KEM-768",
    "2.16.840.1.101.3.4.4.3": "ML-KEM-1024",
    "1.2.840.113549.1.9.16.3.17": "HSS/LMS",
    "1.3.6.1.5.5.7.6.34": "XMSS",
    "1.3.6.1.5.5.7.6.35": "XMSS-MT",
    **{
        f"2.16.840.1.101.3.4.3.{number}": f"SLH-DSA-{name}"
        for number, name in enumerate(
            (
                f"{hash_}-{size}{speed}"
                for hash_ in ("SHA2", "SHAKE")
                for size in (128, 192, 256)
                for speed in ("s", "f")
            ),
            start=20,
        )
    },
}


def unsupported_name(oid: str) -> str:
    """The name of a key type that no check knows; "" for those that are known, or not even by name."""
    return _UNSUPPORTED.get(oid, "")


def _unsupported(oid: str, why: str = "") -> UnsupportedPublicKey:
    name = _UNSUPPORTED.get(oid, oid)
    kind = name.split(" ")[0].lower() if name != oid else oid
    return UnsupportedPublicKey(kind, name, why or f"not assessed: no check knows {name} keys")


def _bit_string(data: bytes, at: int, end: int) -> tuple[int, int]:
    start, stop = expect(data, at, end, BIT_STRING, "public key")
    if start == stop or data[start] != 0:
        raise DerError("public key: a bit string with unused bits")
    if stop != end:
        raise DerError("public key: something follows it")
    return start + 1, stop


#: the remark on such numbers: OpenSSL takes them so and works with them, Go and cryptography refuse the key
NEGATIVE = "{} is encoded as a negative integer; read without sign"


def _positive(data: bytes, start: int, stop: int, what: str, notices: list[str]) -> int:
    if start == stop:
        raise DerError(f"{what}: empty integer")
    if data[start] & 128:
        notices.append(NEGATIVE.format(what))
    elif data[start] == 0 and stop - start > 1 and not data[start + 1] & 128:
        notices.append(f"{what} is not minimally encoded")
    return int.from_bytes(data[start:stop], "big")


def rsa_numbers(data: bytes, at: int, end: int, notices: list[str]) -> RsaPublicKey:
    """An RSAPublicKey structure (PKCS #1).

    Raises:
        DerError: it is none.
    """
    start, stop = expect(data, at, end, SEQUENCE, "RSA key")
    first, after = expect(data, start, stop, INTEGER, "modulus")
    begin, finish = expect(data, after, stop, INTEGER, "exponent")
    if finish != stop or stop != end:
        raise DerError("RSA key: something follows the exponent")
    return RsaPublicKey(
        _positive(data, first, after, "modulus", notices), _positive(data, begin, finish, "exponent", notices)
    )


def _explicit(data: bytes, start: int, stop: int) -> ExplicitParameters:
    """ECParameters (X9.62, C.2): version, field, curve, base, order, cofactor."""
    parts = children(data, start, stop)
    if len(parts) < 5 or [part[0] for part in parts[:5]] != [INTEGER, SEQUENCE, SEQUENCE, OCTET_STRING, INTEGER]:
        raise DerError("explicit curve parameters are malformed")
    field = children(data, parts[1][2], parts[1][3])
    if len(field) != 2 or field[0][0] != OID:
        raise DerError("explicit curve parameters: the field is malformed")
    kind = oid_text(data[field[0][2] : field[0][3]])
    if kind == "1.2.840.10045.1.1" and field[1][0] == INTEGER:
        name, p = "prime", integer(data, field[1][2], field[1][3])
    elif kind == "1.2.840.10045.1.2" and field[1][0] == SEQUENCE:
        name, p = "binary", _reduction(data, field[1][2], field[1][3])
    else:
        raise DerError("explicit curve parameters over an unknown field")
    curve = children(data, parts[2][2], parts[2][3])
    if len(curve) < 2 or curve[0][0] != OCTET_STRING or curve[1][0] != OCTET_STRING:
        raise DerError("explicit curve parameters: the coefficients are malformed")
    cofactor = integer(data, parts[5][2], parts[5][3]) if len(parts) > 5 and parts[5][0] == INTEGER else None
    return ExplicitParameters(
        name,
        p,
        int.from_bytes(data[curve[0][2] : curve[0][3]], "big"),
        int.from_bytes(data[curve[1][2] : curve[1][3]], "big"),
        data[parts[3][2] : parts[3][3]],
        integer(data, parts[4][2], parts[4][3]),
        cofactor,
    )


def _reduction(data: bytes, start: int, stop: int) -> int:
    """The reduction polynomial of a binary field as a bit string."""
    parts = children(data, start, stop)
    if len(parts) != 3 or parts[0][0] != INTEGER or parts[1][0] != OID:
        raise DerError("explicit curve parameters: the binary field is malformed")
    m = integer(data, parts[0][2], parts[0][3])
    basis = oid_text(data[parts[1][2] : parts[1][3]])
    if parts[2][0] == INTEGER and basis.endswith(".2"):
        powers = [integer(data, parts[2][2], parts[2][3])]
    elif parts[2][0] == SEQUENCE:
        powers = [integer(data, inner, end) for _, _, inner, end in children(data, parts[2][2], parts[2][3])]
    else:
        raise DerError("explicit curve parameters: unknown basis of the binary field")
    if not 0 < m <= 4096 or any(not 0 <= power < m for power in powers):
        raise DerError("explicit curve parameters: absurd binary field")
    return 1 << m | sum(1 << power for power in set(powers)) | 1


def parse(data: bytes, at: int, end: int, notices: list[str]) -> PublicKey:
    """A SubjectPublicKeyInfo's key.

    Args:
        data: bytes that contain it.
        at: start of its contents (inside the SEQUENCE).
        end: end of its contents.
        notices: takes remarks on encodings that are lenient.

    Raises:
        DerError: it has no one meaning.
    """
    if data.startswith(RSA_ALGORITHM, at):
        start, stop = _bit_string(data, at + len(RSA_ALGORITHM), end)
        return rsa_numbers(data, start, stop, notices)
    inner, after = expect(data, at, end, SEQUENCE, "algorithm")
    first, last = expect(data, inner, after, OID, "algorithm")
    oid = oid_text(data[first:last])
    start, stop = _bit_string(data, after, end)
    if oid in _RSA_OIDS:
        return rsa_numbers(data, start, stop, notices)
    if oid in _EC_OIDS:
        if last == after:
            return _unsupported(oid, "not assessed: an elliptic curve key without its curve")
        tag, begin, finish = tlv(data, last, after)
        point = data[start:stop]
        if tag == OID:
            dotted = oid_text(data[begin:finish])
            return EcPublicKey(CURVE_NAMES.get(dotted, dotted), point)
        if tag == SEQUENCE:
            return EcPublicKey("explicit", point, _explicit(data, begin, finish))
        if tag == NULL:
            return _unsupported(oid, "not assessed: the curve is inherited from the issuer")
        raise DerError("elliptic curve key: unknown kind of parameters")
    if oid in OKP_NAMES:
        return OkpPublicKey(OKP_NAMES[oid], data[start:stop])
    if oid == _DSA:
        if last == after or data[last] == NULL:
            return UnsupportedPublicKey("dsa", "DSA", "not assessed: the parameters are inherited from the issuer")
        begin, finish = expect(data, last, after, SEQUENCE, "DSA parameters")
        parts = children(data, begin, finish)
        if [part[0] for part in parts] != [INTEGER] * 3:
            raise DerError("DSA parameters are malformed")
        p, q, g = (_positive(data, part[2], part[3], "DSA parameter", notices) for part in parts)
        begin, finish = expect(data, start, stop, INTEGER, "DSA public value")
        return DsaPublicKey(p, q, g, _positive(data, begin, finish, "DSA public value", notices))
    return _unsupported(oid)


def encode(key: PublicKey) -> bytes | None:
    """Canonical DER of a key's SubjectPublicKeyInfo; None where the key is not one that we know to encode."""
    if isinstance(key, RsaPublicKey):
        numbers = element(SEQUENCE, integer_element(key.modulus), integer_element(key.exponent))
        return element(SEQUENCE, RSA_ALGORITHM, element(BIT_STRING, b"\0", numbers))
    if isinstance(key, EcPublicKey):
        if key.parameters is None:
            parameters = oid_element(_CURVE_OIDS.get(key.curve, key.curve if key.curve[:1].isdigit() else "1.3.132.0"))
        else:
            parameters = _encode_explicit(key.parameters)
        algorithm = element(SEQUENCE, oid_element("1.2.840.10045.2.1"), parameters)
        return element(SEQUENCE, algorithm, element(BIT_STRING, b"\0", key.point))
    if isinstance(key, OkpPublicKey):
        oid = next(dotted for dotted, name in OKP_NAMES.items() if name == key.type)
        return element(SEQUENCE, element(SEQUENCE, oid_element(oid)), element(BIT_STRING, b"\0", key.encoded))
    if isinstance(key, DsaPublicKey):
        domain = element(SEQUENCE, *(integer_element(number) for number in (key.p, key.q, key.g)))
        algorithm = element(SEQUENCE, oid_element(_DSA), domain)
        return element(SEQUENCE, algorithm, element(BIT_STRING, b"\0", integer_element(key.y)))
    return None


def _encode_explicit(given: ExplicitParameters) -> bytes:
    size = (given.p.bit_length() + 7) // 8
    if given.field == "prime":
        field = element(SEQUENCE, oid_element("1.2.840.10045.1.1"), integer_element(given.p))
    else:
        field = element(SEQUENCE, oid_element("1.2.840.10045.1.2"), element(SEQUENCE, integer_element(given.p)))
    curve = element(
        SEQUENCE,
        *(
            element(OCTET_STRING, number.to_bytes(max(size, (number.bit_length() + 7) // 8), "big"))
            for number in (given.a, given.b)
        ),
    )
    tail = b"" if given.cofactor is None else integer_element(given.cofactor)
    return element(
        SEQUENCE,
        integer_element(1),
        field,
        curve,
        element(OCTET_STRING, given.generator),
        integer_element(given.order),
        tail,
    )
