"""Makes a sample fleet: the certificates of six makers of devices, most of them sound, some weak as keys have been.

The sound RSA keys are those that OpenSSL made for the census of the tests; everything else is computed here, the same
every time, the weak keys by the very faults that made them weak in the world. Nothing is looked up, nothing pretended.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import gmpy2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, pkcs7

from keyassay.keymath import residues
from keyassay.lists.recipes import debian_openssl, keypair

CENSUS = Path(__file__).resolve().parent.parent / "tests" / "vectors" / "census" / "rsa-openssl.bin"
EXPONENT = 65537
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
#: appendix A.2.5
RFC_6979_KEY = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
FOREVER = "99991231235959Z"  # no well-defined end: IEEE 802.1AR, RFC 5280 4.1.2.5
#: algorithm of a signature -> its AlgorithmIdentifier
ALGORITHMS = {
    "ecdsa-sha256": "300a06082a8648ce3d040302",
    "rsa-sha256": "300d06092a864886f70d01010b0500",
    "rsa-sha1": "300d06092a864886f70d0101050500",
    "rsa-md5": "300d06092a864886f70d0101040500",
}
HASHES: dict[str, type[hashes.SHA256 | hashes.SHA1 | hashes.MD5]] = {
    "rsa-sha256": hashes.SHA256,
    "rsa-sha1": hashes.SHA1,
    "rsa-md5": hashes.MD5,
}


def drawn(name: str, bits: int) -> int:
    """Random bits that belong to a name, so that the fleet is the same every time."""
    octets = hashlib.shake_256(f"keyassay sample fleet {name}".encode()).digest((bits + 7) // 8)
    return int.from_bytes(octets, "big") >> (-bits % 8)


def prime(name: str, bits: int = 1024) -> int:
    """A prime with its two top bits set."""
    return int(gmpy2.next_prime(drawn(name, bits) | 3 << (bits - 2)))


@cache
def sound_moduli() -> dict[int, list[int]]:
    """Moduli that OpenSSL made, by size."""
    stored = CENSUS.read_bytes()
    found: dict[int, list[int]] = {}
    for bits, count in ((1024, 300), (2048, 500)):
        size = bits // 8
        found[bits] = [int.from_bytes(stored[at : at + size], "big") for at in range(0, count * size, size)]
        stored = stored[count * size :]
    return found


# Subject public key infos.


def rsa_key(modulus: int) -> bytes:
    """Of an RSA modulus."""
    numbers = rsa.RSAPublicNumbers(EXPONENT, modulus)
    return numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def ec_key(private: int, curve: ec.EllipticCurve | None = None) -> bytes:
    """Of the multiple of a curve's base point."""
    key = ec.derive_private_key(private, curve or ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def ed25519_key(name: str) -> bytes:
    """Of a seed that belongs to a name."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(drawn(name, 256).to_bytes(32, "big")).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def roca_modulus(name: str) -> int:
    """Two primes k M + (65537^a mod M), as RSALib makes them for 2048 bits (CVE-2017-15361)."""
    primorial = residues.primorial(126)
    found: list[int] = []
    attempt = 0
    while len(found) < 2:
        attempt += 1
        k = drawn(f"{name} k {attempt}", 1024 - primorial.bit_length()) | 3 << (1022 - primorial.bit_length())
        candidate = k * primorial + pow(EXPONENT, drawn(f"{name} a {attempt}", 128), primorial)
        if candidate.bit_length() == 1024 and gmpy2.is_prime(candidate):
            found.append(int(candidate))
    return found[0] * found[1]


def point_off_the_curve() -> bytes:
    """A P-256 key with one bit of y flipped: memory does that."""
    octets = bytearray(ec_key(drawn("off the curve", 255)))
    octets[-20] ^= 4
    return bytes(octets)


# Issuers.


def tlv(tag: int, *parts: bytes) -> bytes:
    """DER of one value."""
    body = b"".join(parts)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    size = (len(body).bit_length() + 7) // 8
    return bytes([tag, 0x80 + size]) + len(body).to_bytes(size, "big") + body


def moment(text: str) -> bytes:
    """A time like 20240131000000Z: UTCTime until 2049, GeneralizedTime from then on (RFC 5280)."""
    return tlv(0x17, text[2:].encode()) if text < "2050" else tlv(0x18, text.encode())


def named(organization: str, common_name: str) -> bytes:
    """DER of a name."""
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
        ]
    ).public_bytes()


def extension(value: x509.ExtensionType, *, critical: bool = False) -> bytes:
    """DER of an extension."""
    oid = tlv(0x06, encoded_oid(value.oid.dotted_string))
    return tlv(0x30, oid, b"\x01\x01\xff" if critical else b"", tlv(0x04, value.public_bytes()))


def encoded_oid(dotted: str) -> bytes:
    """The content octets of an object identifier."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    octets = bytearray([40 * first + second])
    for number in rest:
        groups = [number & 127]
        while number := number >> 7:
            groups.append(number & 127 | 128)
        octets.extend(reversed(groups))
    return bytes(octets)


@dataclass(frozen=True)
class Authority:
    """An issuer of certificates; ``sign`` makes the signature of the signed part."""

    organization: str
    common_name: str
    spki: bytes
    algorithm: str
    sign: Callable[[bytes], bytes]

    @property
    def name(self) -> bytes:
        """DER of its name."""
        return named(self.organization, self.common_name)

    def issue(
        self,
        subject: bytes,
        spki: bytes,
        *,
        start: str = "20240105000000Z",
        end: str = FOREVER,
        ca: bool = False,
        algorithm: str = "",
        sign: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """DER of a certificate for any key at all."""
        identifier = bytes.fromhex(ALGORITHMS[algorithm or self.algorithm])
        key_identifier = hashlib.sha256(self.spki).digest()[:20]
        extensions = [
            extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True),
            extension(x509.SubjectKeyIdentifier(hashlib.sha256(spki).digest()[:20])),
            extension(x509.AuthorityKeyIdentifier(key_identifier, None, None)),
        ]
        signed_part = tlv(
            0x30,
            tlv(0xA0, b"\x02\x01\x02"),
            tlv(0x02, b"\x4b" + hashlib.sha256(subject + spki).digest()[:11]),
            identifier,
            self.name,
            tlv(0x30, moment(start), moment(end)),
            subject,
            spki,
            tlv(0xA3, tlv(0x30, *extensions)),
        )
        signature = (sign or self.sign)(signed_part)
        return tlv(0x30, signed_part, identifier, tlv(0x03, b"\x00" + signature))

    def own(self) -> bytes:
        """Its own certificate, self-issued."""
        return self.issue(self.name, self.spki, ca=True)


def ec_authority(organization: str, common_name: str) -> Authority:
    """One that signs with ECDSA, as it should be done."""
    key = ec.derive_private_key(drawn(f"CA {common_name}", 255), ec.SECP256R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ecdsa = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    return Authority(organization, common_name, spki, "ecdsa-sha256", lambda part: key.sign(part, ecdsa))


def careless_signature(common_name: str) -> Callable[[bytes], bytes]:
    """ECDSA by the same CA key, with one nonce for all signatures (as on Sony's PlayStation 3)."""
    d = drawn(f"CA {common_name}", 255)
    k = drawn(f"nonce {common_name}", 255)
    r = ec.derive_private_key(k, ec.SECP256R1()).public_key().public_numbers().x % P256_ORDER

    def sign(part: bytes) -> bytes:
        z = int.from_bytes(hashlib.sha256(part).digest(), "big")
        return encode_dss_signature(r, (z + r * d) * pow(k, -1, P256_ORDER) % P256_ORDER)

    return sign


def rsa_signer(common_name: str) -> tuple[int, Callable[[str], Callable[[bytes], bytes]]]:
    """The modulus of a CA, and its signing with a hash of one's choice."""
    p, q = prime(f"CA {common_name} p"), prime(f"CA {common_name} q")
    d = pow(EXPONENT, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(EXPONENT, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    key = numbers.private_key(unsafe_skip_rsa_key_validation=True)
    return p * q, lambda algorithm: lambda part: key.sign(part, padding.PKCS1v15(), HASHES[algorithm]())


# The fleet.


@dataclass(frozen=True)
class Device:
    """A certificate, and what was done to it: ids of the checks that have to speak, and the story behind it."""

    name: str
    der: bytes
    planted: frozenset[str] = frozenset()
    story: str = ""


@dataclass
class Fleet:
    """Files by path, and the devices in them."""

    files: dict[str, bytes] = field(default_factory=dict)
    devices: list[Device] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def pem(der: bytes) -> bytes:
    """A certificate as PEM."""
    text = base64.b64encode(der)
    lines = b"\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n"


def meters() -> Iterator[Device]:
    """130 electricity meters with RSA keys, a file each."""
    maker = "Larkfield Meters"
    authority = ec_authority(maker, "Larkfield Device CA 3")
    shared = prime("meter's first prime after power-up")
    close = prime("meter's prime")
    planted = {
        17: ("rsa-roca", roca_modulus("meter 17"), "its key came from a chip with Infineon's RSALib"),
        93: ("rsa-roca", roca_modulus("meter 93"), "its key came from a chip with Infineon's RSALib"),
        41: ("rsa-close-primes", close * int(gmpy2.next_prime(close)), "q is the next prime after p"),
        60: ("fleet-shared-prime", shared * prime("meter 60"), "made its first prime before it had any entropy"),
        61: ("fleet-shared-prime", shared * prime("meter 61"), "made its first prime before it had any entropy"),
        104: (
            "rsa-keypair-prng",
            keypair.first_key(keypair.pool_of(20_260), 2048).modulus,
            "its key came from a script with the npm package keypair 1.0.3",
        ),
    }
    sound = iter(sound_moduli()[2048])
    for number in range(1, 131):
        subject = named(maker, f"meter-{number:04d}")
        if number in planted:
            check, modulus, story = planted[number]
            yield Device(f"meter-{number:04d}", authority.issue(subject, rsa_key(modulus)), frozenset([check]), story)
        elif number > 121:
            der = authority.issue(subject, rsa_key(next(sound)), start="20150301000000Z", end="20250301000000Z")
            yield Device(f"meter-{number:04d}", der, frozenset(["certificate-validity"]), "expired in March 2025")
        else:
            yield Device(f"meter-{number:04d}", authority.issue(subject, rsa_key(next(sound))))


def cameras() -> Iterator[Device]:
    """80 cameras with P-256 and RSA keys, in one bundle."""
    maker = "Quaydon Cameras"
    authority = ec_authority(maker, "Quaydon Factory CA")
    sound = iter(sound_moduli()[2048][200:])
    debian = debian_openssl.Stream("le64", "rnd", 4_242)
    for number in range(1, 81):
        name = f"camera-{number:04d}"
        subject = named(maker, name)
        if number in (8, 23, 24, 71):
            spki = ec_key(drawn("the key in the camera's firmware image", 255))
            yield Device(
                name,
                authority.issue(subject, spki),
                frozenset(["fleet-repeated-key"]),
                "one key in every firmware image",
            )
        elif number == 35:
            spki = rsa_key(debian_openssl.rsa_keys(debian, 2048)[EXPONENT].modulus)
            yield Device(
                name,
                authority.issue(subject, spki),
                frozenset(["rsa-debian-openssl"]),
                f"made by Debian's OpenSSL of 2006 to 2008, process id {debian.pid}",
            )
        elif number == 36:
            spki = ec_key(debian_openssl.ec_secret(debian, P256_ORDER))
            yield Device(
                name,
                authority.issue(subject, spki),
                frozenset(["ec-debian-openssl"]),
                f"made by Debian's OpenSSL of 2006 to 2008, process id {debian.pid}",
            )
        elif number % 4:
            yield Device(name, authority.issue(subject, ec_key(drawn(name, 255))))
        else:
            yield Device(name, authority.issue(subject, rsa_key(next(sound))))


def gateways() -> Iterator[Device]:
    """50 gateways with keys on P-256 and P-384, and the CA that signed them."""
    maker = "Ferrow Gateways"
    authority = ec_authority(maker, "Ferrow Issuing CA 2")
    careless = careless_signature(authority.common_name)
    story = "signed twice with one nonce: its private key can be computed from two of its certificates"
    yield Device("Ferrow Issuing CA 2", authority.own(), frozenset(["fleet-signature-nonce"]), story)
    for number in range(1, 51):
        name = f"gateway-{number:04d}"
        spki = ec_key(drawn(name, 255 if number % 3 else 383), ec.SECP256R1() if number % 3 else ec.SECP384R1())
        sign = careless if number in (11, 37) else None
        yield Device(name, authority.issue(named(maker, name), spki, sign=sign))


def pumps() -> Iterator[Device]:
    """40 pumps with keys on Ed25519 and P-256."""
    maker = "Pell Pumps"
    authority = ec_authority(maker, "Pell Device CA")
    for number in range(1, 41):
        name = f"pump-{number:04d}"
        subject = named(maker, name)
        if number == 5:
            spki = ec_key(31_337)
            story = "its private key is 31337: a test key that was shipped"
            yield Device(name, authority.issue(subject, spki), frozenset(["ec-weak-private-key"]), story)
        elif number == 18:
            spki = ec_key(RFC_6979_KEY)
            story = "its private key is the one that RFC 6979 prints as an example"
            yield Device(name, authority.issue(subject, spki), frozenset(["any-known-key"]), story)
        elif number == 29:
            spki = point_off_the_curve()
            story = "one flipped bit: its public key is no point of the curve"
            yield Device(name, authority.issue(subject, spki), frozenset(["ec-invalid-point"]), story)
        else:
            spki = ed25519_key(name) if number % 2 else ec_key(drawn(name, 255))
            yield Device(name, authority.issue(subject, spki))


def terminals() -> Iterator[Device]:
    """12 old terminals: short keys, signatures with broken hashes."""
    maker = "Osk Terminals"
    modulus, signing = rsa_signer("Osk CA")
    sha256, sha1, md5 = (signing(f"rsa-{name}") for name in ("sha256", "sha1", "md5"))
    authority = Authority(maker, "Osk CA", rsa_key(modulus), "rsa-sha256", sha256)
    sound = iter(sound_moduli()[2048][400:])
    short = iter(sound_moduli()[1024])
    for number in range(1, 13):
        name = f"terminal-{number:04d}"
        subject = named(maker, name)
        if number <= 3:
            der = authority.issue(subject, rsa_key(next(short)))
            yield Device(name, der, frozenset(["rsa-key-size"]), "1024 bits, made in 2009")
        elif number == 4:
            der = authority.issue(subject, rsa_key(next(sound)), algorithm="rsa-md5", sign=md5)
            yield Device(name, der, frozenset(["certificate-signature-hash"]), "signed with MD5")
        elif number <= 6:
            der = authority.issue(subject, rsa_key(next(sound)), algorithm="rsa-sha1", sign=sha1)
            yield Device(name, der, frozenset(["certificate-signature-hash"]), "signed with SHA-1")
        else:
            yield Device(name, authority.issue(subject, rsa_key(next(sound))))


#: what the fleet's folder holds
FILES = (
    "larkfield-meters",
    "quaydon-cameras.pem",
    "ferrow-gateways.jsonl",
    "pell-pumps.zip",
    "osk-terminals.p7b",
    "returned-unit.crt",
)


def sample_fleet() -> Fleet:
    """The whole fleet, in the forms in which people have certificates."""
    fleet = Fleet()

    def keep(made: Iterator[Device]) -> list[Device]:
        devices = list(made)
        fleet.devices.extend(devices)
        return devices

    for device in keep(meters()):
        fleet.files[f"larkfield-meters/{device.name}.pem"] = pem(device.der)
    bundle = b"".join(b"# " + device.name.encode() + b"\r\n" + pem(device.der) for device in keep(cameras()))
    fleet.files["quaydon-cameras.pem"] = bundle
    lines = [
        {
            "certificateDescription": {
                "certificateId": hashlib.sha256(device.der).hexdigest(),
                "status": "ACTIVE",
                "certificatePem": pem(device.der).decode(),
            }
        }
        for device in keep(gateways())
    ]
    fleet.files["ferrow-gateways.jsonl"] = "".join(json.dumps(line) + "\n" for line in lines).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for device in keep(pumps()):
            archive.writestr(zipfile.ZipInfo(f"export/{device.name}.der", (2024, 1, 5, 0, 0, 0)), device.der)
    fleet.files["pell-pumps.zip"] = packed.getvalue()
    certificates = [x509.load_der_x509_certificate(device.der) for device in keep(terminals())]
    fleet.files["osk-terminals.p7b"] = pkcs7.serialize_certificates(certificates, Encoding.DER)
    damaged = "returned-unit.crt"
    fleet.files[damaged] = pem(fleet.devices[0].der)[:700]
    fleet.unreadable.append(damaged)
    return fleet


def write(fleet: Fleet, folder: Path) -> None:
    """Write the files of a fleet."""
    for name, content in fleet.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
