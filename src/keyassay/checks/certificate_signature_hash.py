"""Certificates signed with a broken hash function.

Weakness: MD5 collisions have forged a CA certificate (2008) and a code signing certificate (Flame, 2012); MD2 and MD4
are weaker still. A SHA-1 chosen prefix collision costs some tens of thousands of dollars (2020). Whoever finds a
collision while the CA signs gets a certificate that the CA never saw. The device's key is not affected.

Method: the signature algorithm's identifier. The signature of a self-issued certificate protects nothing and is left
alone, as its hash does not matter.

Cost: below a microsecond a certificate.

Profiles: the same in all.

Mistakes: none: the algorithm is named in the certificate. Whether the CA still issues this way is not known.

Blind spots: RSA-PSS with SHA-1 in its parameters is read; unknown algorithm identifiers are left alone.

Remedy: have the CA sign with SHA-256 or better, and issue again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from keyassay.certificates.decoding import signature_algorithms
from keyassay.certificates.der import OID, SEQUENCE, DerError, expect, oid_text
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import PublicKey
from keyassay.checks import Context, certificate_check
from keyassay.findings import Classification, Confidence, Evidence, Profile, Severity, Value, Verdict

HASHES = {
    "1.2.840.113549.1.1.2": "MD2",
    "1.2.840.113549.1.1.3": "MD4",
    "1.2.840.113549.1.1.4": "MD5",
    "1.3.14.3.2.2": "MD4",
    "1.3.14.3.2.3": "MD5",
    "1.3.14.3.2.4": "MD4",
    "1.2.840.113549.1.1.5": "SHA-1",
    "1.3.14.3.2.29": "SHA-1",
    "1.3.14.3.2.27": "SHA-1",
    "1.2.840.10040.4.3": "SHA-1",
    "1.2.840.10045.4.1": "SHA-1",
}
_PSS = "1.2.840.113549.1.1.10"
_PSS_HASHES = {
    "1.2.840.113549.2.2": "MD2",
    "1.2.840.113549.2.4": "MD4",
    "1.2.840.113549.2.5": "MD5",
    "1.3.14.3.2.26": "SHA-1",
}


def _hash_of_pss(parameters: bytes) -> str:
    """The broken hash of RSASSA-PSS-params; without a hash algorithm in [0] it is SHA-1 (RFC 4055)."""
    try:
        start, stop = expect(parameters, 0, len(parameters), SEQUENCE, "PSS parameters")
        if start == stop or parameters[start] != 0xA0:
            return "SHA-1"
        tagged, end = expect(parameters, start, stop, 0xA0, "hash")
        inner, after = expect(parameters, tagged, end, SEQUENCE, "hash")
        first, last = expect(parameters, inner, after, OID, "hash")
    except DerError:
        return ""
    return _PSS_HASHES.get(oid_text(parameters[first:last]), "")


def hash_of(item: Item) -> str:
    """Name of the broken hash that signed an item, "" for others and for self-issued items."""
    fields = item.signed
    if fields is None or fields.issuer == fields.subject:
        return ""
    if fields.signature_algorithm == _PSS:
        return _hash_of_pss(fields.signature_parameters)
    return HASHES.get(fields.signature_algorithm, "")


@dataclass(frozen=True)
class SignatureHash(Evidence):
    """The hash function's name."""

    name: str

    def proves(self, subject: PublicKey | Item) -> bool:
        return isinstance(subject, Item) and hash_of(subject) == self.name

    def describe(self) -> Mapping[str, Value]:
        return {"hash": self.name}


@certificate_check(
    id="certificate-signature-hash",
    title="signed with a broken hash",
    classification=Classification.WEAK,
    severity=Severity.MEDIUM,
    confidence=Confidence.CERTAIN,
    profile=Profile.FAST,
    references=(
        "Stevens, Sotirov, Appelbaum and others 2009: Short chosen-prefix collisions for MD5",
        "Leurent, Peyrin 2020: SHA-1 is a shambles",
        "RFC 6151",
        "RFC 9155",
    ),
)
def certificate_signature_hash(items: Sequence[Item], _context: Context) -> Iterator[tuple[int, Verdict]]:
    """By identifier; the few rows that match are looked at whole."""
    for row, oid in enumerate(signature_algorithms(items)):
        if oid not in HASHES and oid != _PSS:
            continue
        name = hash_of(items[row])
        if name == "SHA-1":
            message = "signed with SHA-1"
            yield row, Verdict(message, SignatureHash(name), Classification.NOTICE, Severity.LOW)
        elif name:
            yield row, Verdict(f"signed with {name}: a forged twin is practical", SignatureHash(name))
