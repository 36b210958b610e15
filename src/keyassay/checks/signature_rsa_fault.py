"""RSA signatures that were computed wrongly, and give away a factor of the signer's modulus.

Weakness: signing by the Chinese remainder theorem computes the signature modulo p and modulo q apart. If one half goes
wrong (a fault, overclocking, a bug in arithmetic), s^e is right modulo one prime and wrong modulo the other, and
gcd(s^e - m, N) is a factor. Such signatures have been seen from TLS servers in the wild (Weimer 2015; Sullivan and
others 2022).

Method: for every PKCS #1 v1.5 signature in the run whose signer is in the run (by name and key identifier, or
self-issued): v = s^e mod N. If v is the padded digest the signature is valid; if it is padding around something else it
belongs to another message; else gcd(v - m, N) for the padded digest m under MD5 to SHA-512. The signatures of one
signer are screened together: the product of all s, to the power of e, is the product of all m if they are valid; only a
product that is wrong is halved.

Cost: 5 us a signature of 2048 bits where a signer made many, 25 us for single ones; 0.3 ms for those that do not
verify.

Profiles: standard and above.

Mistakes: none: the factor is the proof.

Blind spots: signers that are not in the run; faults in both halves; PSS with a salt; several wrong signatures of one
signer whose errors cancel in the product, which accidents do not do.

Remedy: the finding is about the signer: revoke it and everything it signed; replace the hardware or library, and have
the new one verify signatures before it hands them out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import gmpy2
import numpy as np

from keyassay.certificates.fleet import Fleet
from keyassay.certificates.item import Item, Kind
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, fleet_check
from keyassay.findings import Classification, Confidence, Factor, Profile, Severity, Verdict

ALGORITHMS = {
    "1.2.840.113549.1.1.4": "md5",
    "1.2.840.113549.1.1.5": "sha1",
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
    "1.2.840.113549.1.1.14": "sha224",
}
#: DER of DigestInfo up to the digest (RFC 8017, 9.2), with the NULL parameter
_PREFIXES = {
    "md5": "3020300c06082a864886f70d020505000410",
    "sha1": "3021300906052b0e03021a05000414",
    "sha224": "302d300d06096086480165030402040500041c",
    "sha256": "3031300d060960864801650304020105000420",
    "sha384": "3041300d060960864801650304020205000430",
    "sha512": "3051300d060960864801650304020305000440",
}
#: the same without it
_BARE = {
    "md5": "301e300a06082a864886f70d02050410",
    "sha1": "301f300706052b0e03021a0414",
    "sha224": "302b300b0609608648016503040204041c",
    "sha256": "302f300b06096086480165030402010420",
    "sha384": "303f300b06096086480165030402020430",
    "sha512": "304f300b06096086480165030402030440",
}
_MOST_BITS = 8192
#: signatures of one signer that are multiplied together, and signers that wait at a time
_TOGETHER, _SIGNERS = 256, 1024


def padded(digest_info: bytes, size: int) -> int:
    """The number that a signature stands for: 00 01 ff ... ff 00 DigestInfo, 0 if it does not fit."""
    room = size - 3 - len(digest_info)
    return int.from_bytes(b"\x00\x01" + b"\xff" * room + b"\x00" + digest_info, "big") if room >= 8 else 0


@dataclass(frozen=True, slots=True)
class _Signed:
    """One signature: where it is, s, and the number that it should stand for under its signer's key."""

    place: str
    algorithm: str
    s: int
    message: int
    signed_part: bytes


def suitable(key: RsaPublicKey) -> bool:
    """Whether a key is one that signatures are verified with."""
    n = key.n
    return bool(n >= 1 << 500 and n.bit_length() <= _MOST_BITS and key.exponent.bit_length() <= 64 and n & 1)


def expected(key: RsaPublicKey, algorithm: str, signed_part: bytes) -> int:
    """The padded digest, as a number."""
    name = ALGORITHMS[algorithm]
    digest = hashlib.new(name, signed_part, usedforsecurity=False).digest()
    return padded(bytes.fromhex(_PREFIXES[name]) + digest, (key.bits + 7) // 8)


def invalid(key: RsaPublicKey, signatures: Sequence[_Signed]) -> Iterator[_Signed]:
    """Those of a signer's signatures that are not valid, by products that are halved until they are right."""
    n = key.n
    left: gmpy2.mpz = gmpy2.mpz(1)
    right: gmpy2.mpz = gmpy2.mpz(1)
    for one in signatures:
        left = left * one.s % n
        right = right * one.message % n
    if gmpy2.powmod(left, key.exponent, n) == right != 0:
        return
    if len(signatures) == 1:
        yield signatures[0]
        return
    middle = len(signatures) // 2
    yield from invalid(key, signatures[:middle])
    yield from invalid(key, signatures[middle:])


def factor(key: RsaPublicKey, algorithm: str, signed_part: bytes, s: int) -> int | None:
    """A factor of the signer's modulus, if an invalid signature betrays one."""
    n = key.n
    size = (n.bit_length() + 7) // 8
    v = gmpy2.powmod(s, key.exponent, n)
    octets = int(v).to_bytes(size, "big")
    if octets.startswith(b"\x00\x01" + b"\xff" * 8):
        return None
    name = ALGORITHMS[algorithm]
    for other in (name, *(one for one in _PREFIXES if one != name)):
        digest = hashlib.new(other, signed_part, usedforsecurity=False).digest()
        for prefix in (_PREFIXES[other], _BARE[other]):
            common = gmpy2.gcd(v - padded(bytes.fromhex(prefix) + digest, size), n)
            if 1 < common < n:
                return int(common)
    return None


def _signers(fleet: Fleet, item: Item, cache: dict[bytes, list[Item]]) -> list[RsaPublicKey]:
    fields = item.signed
    if fields is None:
        return []
    if item.kind is Kind.REQUEST or (fields.issuer == fields.subject and item.kind is Kind.CERTIFICATE):
        return [item.key] if isinstance(item.key, RsaPublicKey) else []
    name = hashlib.sha256(fields.issuer).digest()[:16].rstrip(b"\0")
    if name not in cache:
        rows = np.flatnonzero(fleet.identities["subject"] == name)[:16].tolist()
        cache[name] = [one for one in fleet.items(rows) if isinstance(one.key, RsaPublicKey)]
    mine = fields.authority_key_identifier
    found: list[RsaPublicKey] = []
    for other in cache[name]:
        theirs = None if other.signed is None else other.signed.subject_key_identifier
        if isinstance(other.key, RsaPublicKey) and (mine is None or theirs is None or mine == theirs):
            found.append(other.key)
    return found


@fleet_check(
    id="signature-rsa-fault",
    title="faulty RSA signature",
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.STANDARD,
    references=(
        "Boneh, DeMillo, Lipton 1997: On the importance of checking cryptographic protocols for faults",
        "Lenstra 1996: Memo on RSA signature generation in the presence of faults",
        "Weimer 2015: Factoring RSA keys with TLS perfect forward secrecy",
    ),
)
def signature_rsa_fault(fleet: Fleet, _context: Context) -> Iterator[tuple[int, Verdict]]:
    """One exponentiation a signature; hits are reported on all items that have the signer's modulus."""
    ordinals = sorted(
        ordinal for oid, rows in fleet.signed_ordinals.items() if oid in ALGORITHMS for ordinal in rows.tolist()
    )
    cache: dict[bytes, list[Item]] = {}
    waiting: dict[RsaPublicKey, list[_Signed]] = {}
    broken: dict[int, tuple[int, str]] = {}

    def examine(key: RsaPublicKey) -> None:
        for one in invalid(key, waiting.pop(key)):
            found = factor(key, one.algorithm, one.signed_part, one.s)
            if found is not None:
                broken[key.modulus] = (found, one.place)
                return

    for item in fleet.items(ordinals):
        fields = item.signed
        if fields is None:
            continue
        s = int.from_bytes(fields.signature, "big")
        for key in _signers(fleet, item, cache):
            if key.modulus in broken or not suitable(key) or not 1 < s < key.modulus:
                continue
            message = expected(key, fields.signature_algorithm, fields.signed_part)
            queue = waiting.setdefault(key, [])
            place = f"{item.source}#{item.index}"
            queue.append(_Signed(place, fields.signature_algorithm, s, message, fields.signed_part))
            if len(queue) >= _TOGETHER:
                examine(key)
        if len(waiting) >= _SIGNERS:
            for key in list(waiting):
                examine(key)
    for key in list(waiting):
        examine(key)
    if not broken:
        return
    for number, modulus in enumerate(fleet.rsa_moduli):
        if modulus in broken:
            found, place = broken[modulus]
            verdict = Verdict(
                "a faulty signature that it made gives its private key away", Factor(found, {"signature": place})
            )
            for ordinal in fleet.rsa_ordinals[number]:
                yield int(ordinal), verdict
