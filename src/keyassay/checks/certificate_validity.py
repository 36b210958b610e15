"""Certificates that have expired or are not valid yet.

Weakness: none of the key. An expired certificate on a device is refused by a careful broker and accepted by a careless
one, and it tells that renewal does not work; one that is not valid yet points to a wrong clock where it was made.

Method: notBefore and notAfter against the time of the assessment, one and the same for the whole run.

Cost: about a microsecond a certificate.

Profiles: the same in all.

Mistakes: none, if the clock of this machine is right; `keyassay scan --at` sets the time.

Blind spots: times that cannot be read are left alone. Revocation is not looked at.

Remedy: renew it; with a new key, since the old one has been out for as long as the certificate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from keyassay.certificates.decoding import validity_columns
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import PublicKey
from keyassay.checks import Context, certificate_check
from keyassay.findings import Classification, Confidence, Evidence, Profile, Severity, Value, Verdict


def _text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class OutsideValidity(Evidence):
    """The bound that is violated, and the time of the assessment (seconds since 1970)."""

    bound: str
    seconds: int
    now: int

    def proves(self, subject: PublicKey | Item) -> bool:
        if not isinstance(subject, Item) or subject.signed is None:
            return False
        if self.bound == "not_after":
            return subject.signed.not_after == self.seconds < self.now
        return subject.signed.not_before == self.seconds > self.now

    def describe(self) -> Mapping[str, Value]:
        return {self.bound: _text(self.seconds), "at": _text(self.now)}


@certificate_check(
    id="certificate-validity",
    title="outside its validity",
    classification=Classification.NOTICE,
    severity=Severity.LOW,
    confidence=Confidence.CERTAIN,
    profile=Profile.FAST,
    references=("RFC 5280, 4.1.2.5",),
)
def certificate_validity(items: Sequence[Item], context: Context) -> Iterator[tuple[int, Verdict]]:
    """Two comparisons on columns."""
    before, after = validity_columns(items)
    for row in (after < context.now).nonzero()[0].tolist():
        seconds = int(after[row])
        yield row, Verdict(f"expired on {_text(seconds)[:10]}", OutsideValidity("not_after", seconds, context.now))
    for row in (before > context.now).nonzero()[0].tolist():
        seconds = int(before[row])
        message = f"not valid before {_text(seconds)[:10]}"
        yield row, Verdict(message, OutsideValidity("not_before", seconds, context.now))
