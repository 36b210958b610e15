"""RSA signatures that were computed wrongly, and give away a factor of the signer's modulus.

Weakness: signing by the Chinese remainder theorem computes the signature modulo p and modulo q apart. If one half goes
wrong (a fault, overclocking, a bug in arithmetic), s^e is right modulo one prime and wrong modulo the other, and
gcd(s^e - m, N) is a factor. Such signatures have been seen from TLS servers in the wild (Weimer 2015; Sullivan and
others 2022).

Method: for every PKCS #1 v1.5 signature in the run whose signer is in the run (by name and key identifier, or
self-issued): v = s^e mod N. If v is the padded digest the signature is valid; if it is padding around something else it
belongs to another message; else gcd(v - m, N) for the padded digest m under MD5 to SHA-512.

Cost: 25 us a signature of 2048 bits; 0.3 ms for those that do not verify.

Profiles: standard and above.

Mistakes: none: the factor is the proof.

Blind spots: signers that are not in the run; faults in both halves; PSS with a salt.

Remedy: the finding is about the signer: revoke it and everything it signed; replace the hardware or library, and have
the new one verify signatures before it hands them out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

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


def padded(digest_info: bytes, size: int) -> int:
    """The number that a signature stands for: 00 01 ff ... ff 00 DigestInfo, 0 if it does not fit."""
    room = size - 3 - len(digest_info)
    return int.from_bytes(b"\x00\x01" + b"\xff" * room + b"\x00" + digest_info, "big") if room >= 8 else 0


def factor(key: RsaPublicKey, algorithm: str, signed_part: bytes, signature: bytes) -> int | None:
    """A factor of the signer's modulus, if the signature betrays one."""
    n = key.n
    s = int.from_bytes(signature, "big")
    if n < 1 << 500 or n.bit_length() > _MOST_BITS or key.exponent.bit_length() > 64 or not n & 1 or not 1 < s < n:
        return None
    size = (n.bit_length() + 7) // 8
    v = gmpy2.powmod(s, key.exponent, n)
    name = ALGORITHMS[algorithm]
    digest = hashlib.new(name, signed_part, usedforsecurity=False).digest()
    if v == padded(bytes.fromhex(_PREFIXES[name]) + digest, size):
        return None
    octets = int(v).to_bytes(size, "big")
    if octets.startswith(b"\x00\x01" + b"\xff" * 8):
        return None
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
    broken: dict[int, tuple[int, str]] = {}
    for item in fleet.items(ordinals):
        fields = item.signed
        if fields is None:
            continue
        for key in _signers(fleet, item, cache):
            if key.modulus in broken:
                continue
            found = factor(key, fields.signature_algorithm, fields.signed_part, fields.signature)
            if found is not None:
                broken[key.modulus] = (found, f"{item.source}#{item.index}")
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
