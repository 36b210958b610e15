"""Factors close to each other: a page for the checks of this sample run.

Weakness: Two primes of a modulus that lie close to each other are found from its square root.

Method: Fermat's.

Cost: Microseconds.

Profiles: All of them.

Mistakes: None, since the factors are shown.

Blind spots: Primes that lie further apart.

Remedy: Make a new key with a current version of the software, revoke the certificate, and look for others that the
same device made.

Then tell the maker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from keyassay.bulk.results import Result, Summary, key_name
from keyassay.certificates.decoding import decode
from keyassay.certificates.fleet import NotRun
from keyassay.certificates.item import Item, Kind, RawItem
from keyassay.certificates.public_key import RsaPublicKey, UnsupportedPublicKey
from keyassay.checks import Check, _metadata
from keyassay.findings import (
    Classification,
    Confidence,
    Evidence,
    Factor,
    Finding,
    Profile,
    Severity,
    Value,
    Verdict,
)

#: a name that tries everything: terminal, direction, line ends, HTML, Markdown, a formula
HOSTILE = "=a|\x1b[2J\u202egnp\n<script>a(1)</script>`c`[x](http://e.xx) @all \"'"


def _declare(name: str, classification: Classification, confidence: Confidence, profile: Profile) -> Check[Any]:
    severities = {
        Classification.BROKEN: Severity.CRITICAL,
        Classification.WEAK: Severity.MEDIUM,
        Classification.NOTICE: Severity.LOW,
    }
    metadata = _metadata(
        id=name,
        title=f"what {name} finds",
        applies_to=(RsaPublicKey,),
        classification=classification,
        severity=severities[classification],
        confidence=confidence,
        profile=profile,
        references=("RFC 8017, section 3", "https://example.org/a_b"),
    )
    return Check(metadata, __name__, "key", lambda _batch, _context: iter(()))


CHECKS = tuple(
    _declare(*each)
    for each in (
        ("rsa-deep-thing", Classification.BROKEN, Confidence.PROVEN, Profile.DEEP),
        ("rsa-near-primes", Classification.BROKEN, Confidence.PROVEN, Profile.FAST),
        ("rsa-odd-shape", Classification.NOTICE, Confidence.LIKELY, Profile.STANDARD),
        ("rsa-short", Classification.WEAK, Confidence.CERTAIN, Profile.FAST),
    )
)


@dataclass(frozen=True)
class Measured(Evidence):
    """Bits and bytes, with nothing to hide."""

    bits: int

    def proves(self, subject: object) -> bool:
        return isinstance(subject, RsaPublicKey) and subject.bits == self.bits

    def describe(self) -> Mapping[str, Value]:
        return {"bits": self.bits, "large": 2**60, "octets": b"\x00\xff", "nested": {"share": 0.5, "none": None}}


@cache
def primes() -> tuple[int, int]:
    """Two primes of 512 bits a little apart (found with gmpy2.next_prime from 2^511 + 2^510)."""
    import gmpy2

    p = int(gmpy2.next_prime(2**511 + 2**510))
    return p, int(gmpy2.next_prime(p + 100))


@cache
def certificate(name: str, *, weak: bool = True, serial: int = 0x0A1B) -> bytes:
    """A certificate in DER; its RSA key is the product of ``primes``, or of a sound P-256 key."""
    issuer_key = ec.derive_private_key(12345, ec.SECP256R1())
    p, q = primes()
    public: Any = rsa.RSAPublicNumbers(65537, p * q).public_key() if weak else issuer_key.public_key()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name, _validate=False)])
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Sample CA")])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(serial).not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
    signed = builder.not_valid_after(datetime(2036, 1, 1, tzinfo=UTC)).sign(
        issuer_key, hashes.SHA256(), ecdsa_deterministic=True
    )
    return signed.public_bytes(Encoding.DER)


def item_of(der: bytes, source: str, index: int = 0) -> Item:
    """The item of a certificate."""
    return decode([RawItem(source, index, 0, "CERTIFICATE", der)])[0]


def finding(name: str, evidence: Evidence, message: str, key: object) -> Finding:
    """A finding of a sample check, verified."""
    check = next(one for one in CHECKS if one.id == name)
    return check.finding(key, Verdict(message, evidence))


def weak_result(name: str, source: str, index: int = 0, *, also: bool = False) -> Result:
    """A certificate with a factored key; ``also`` adds the milder findings."""
    item = item_of(certificate(name), source, index)
    found = [
        finding("rsa-near-primes", Factor(primes()[0], {"rounds": 1}), f"The primes of {name} are close.", item.key)
    ]
    if also:
        found.append(finding("rsa-short", Measured(1024), "The modulus has 1024 bits.", item.key))
        found.append(finding("rsa-odd-shape", Measured(1024), "The modulus looks odd.", item.key))
    return Result(item, tuple(found))


def results() -> list[Result]:
    """One of each: broken, broken with more, weak, clean, not assessed, unreadable, one with a remark."""
    short = item_of(certificate("short"), "fleet/c.pem")
    clean = item_of(certificate("device-9", weak=False), "fleet/a.pem", 1)
    foreign = item_of(certificate("device-9", weak=False, serial=7), "fleet/b.pem", 1)
    foreign.key = UnsupportedPublicKey("ml-dsa-44", "ML-DSA-44", "keys of type ML-DSA-44 are not assessed")
    remarked = item_of(certificate("device-9", weak=False, serial=8), "fleet/n.pem")
    remarked.notices = ("the strict parser refused a negative serial number",)
    return [
        weak_result("device-17", "fleet/a.pem"),
        Result(clean),
        weak_result(HOSTILE, "fleet/\x1b]0;x\x07\n\u202e|.pem", also=True),
        Result(short, (finding("rsa-short", Measured(1024), "The modulus has 1024 bits.", short.key),)),
        Result(foreign),
        Result(Item("fleet/bad.pem", 2, 77, Kind.UNREADABLE, error="base64 ends in the middle of a group")),
        Result(remarked, (), (NotRun("rsa-near-primes", "internal error: ValueError: x"),)),
    ]


def summary_of(found: list[Result]) -> Summary:
    """The summary that an engine would have made."""
    summary = Summary(
        profile=Profile.STANDARD,
        catalogue="0123456789abcdef",
        checks=(("rsa-near-primes", 1), ("rsa-odd-shape", 1), ("rsa-short", 1)),
        left_out=("rsa-deep-thing",),
        keys=Counter(),
        seconds=1.25,
        passed_over=1,
        not_run=[NotRun("rsa-odd-shape", "its table would not fit")],
    )
    for result in found:
        item = result.item
        summary.kinds[item.kind] += 1
        unreadable = item.kind is Kind.UNREADABLE
        summary.unreadable += unreadable
        summary.read += not unreadable
        summary.not_assessed += not unreadable and not item.assessed
        if item.assessed:
            summary.keys[key_name(item)] += 1
        if result.findings:
            summary.worst[result.findings[0].classification] += 1
        for one in result.findings:
            summary.by_check[one.check] += 1
            summary.confidence[one.confidence] += 1
    summary.assessed = summary.read - summary.not_assessed
    return summary


TODAY = date(2026, 9, 21)
