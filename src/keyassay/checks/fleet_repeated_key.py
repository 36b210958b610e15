"""One key in several certificates of a fleet.

Weakness: devices that hold the same private key can pose as each other, and whoever opens one has the key of all. It
comes from firmware images with a key in them, from cloned disks and from generators that start alike. A key that is
kept when its certificate is renewed is no such case, but it lives on for longer than was meant.

Method: certificates are sorted by the digest of their subject public key info, within it by their subject and their
own digest, all in arrays; certificates of earlier runs (--against STORE) as well. The same for certificate requests.

Cost: 1 us a certificate.

Profiles: the same in all from fast on.

Mistakes: none in what it says: the keys are the same, octet for octet. Different subjects: weak, HIGH. The same subject
(a renewal, or a CA's cross-certificate): a notice. The same certificate twice, a request beside its certificate and a
key file beside it are no finding. Several names of one machine with one key on purpose look like two machines.

Blind spots: a key that is encoded in two ways, or as RSA key with two exponents. Certificates with an empty subject
(their names are in an extension) count as one subject. Bare public keys have no names to tell machines apart by.

Remedy: for different subjects, a new key for each device, made on it, and the old certificates revoked; look for the
image or the first start that they have in common. For renewals, make a new key with each certificate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keyassay.certificates.der import SEQUENCE, DerError, expect
from keyassay.certificates.fleet import Fleet
from keyassay.certificates.item import Item, Kind
from keyassay.certificates.names import rfc4514
from keyassay.certificates.public_key import PublicKey
from keyassay.certificates.spki import parse
from keyassay.checks import Context, fleet_check
from keyassay.findings import Classification, Confidence, Evidence, Profile, Severity, Step, Value, Verdict

#: Others that a finding names; it counts all.
NAMED = 5
_KINDS = tuple(list(Kind).index(kind) for kind in (Kind.CERTIFICATE, Kind.REQUEST))


@dataclass(frozen=True, slots=True)
class Holder:
    """Another certificate with the key.

    Attributes:
        spki_sha256: 16 octets or more of the digest of its subject public key info, as it was met.
        subject: its name, "" where it is not known (earlier runs).
    """

    source: str
    index: int
    sha256: bytes | None
    spki_sha256: bytes
    subject: str = ""
    earlier: bool = False

    def describe(self) -> dict[str, Value]:
        """Fields for reports."""
        return {
            "source": self.source,
            "index": self.index,
            "sha256": self.sha256,
            "subject": self.subject or None,
            "earlier_run": self.earlier,
        }


@dataclass(frozen=True)
class RepeatedKey(Evidence):
    """The key as it is in the certificates, and those that have it.

    Attributes:
        spki: the subject public key info, DER.
        holders: some of the others.
        others: how many others there are.
        subjects: how many subjects have the key, this one's included.
    """

    spki: bytes
    holders: tuple[Holder, ...]
    others: int
    subjects: int

    def proves(self, subject: PublicKey | Item) -> bool:
        """The digests that were met elsewhere are those of an encoding of this very key."""
        try:
            start, end = expect(self.spki, 0, len(self.spki), SEQUENCE, "public key")
            key = parse(self.spki, start, end, [])
        except DerError:
            return False
        own = subject.key if isinstance(subject, Item) else subject
        digest = hashlib.sha256(self.spki).digest()
        return (
            key == own
            and end == len(self.spki)
            and bool(self.holders)
            and all(len(one.spki_sha256) >= 16 and digest.startswith(one.spki_sha256) for one in self.holders)
        )

    def describe(self) -> Mapping[str, Value]:
        return {
            "spki_sha256": hashlib.sha256(self.spki).digest(),
            "others": self.others,
            "subjects": self.subjects,
            "partners": [one.describe() for one in self.holders],
        }

    def steps(self, subject: PublicKey | Item) -> list[Step]:  # noqa: ARG002  the digest says it all
        digest = hashlib.sha256(self.spki).hexdigest()
        shown = "openssl x509 -in FILE -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum"
        return [
            Step(f"The subject public key info has the SHA-256 {digest}", f"{shown}  # with FILE in PEM"),
            *(Step(f"{one.source}#{one.index} has the same") for one in self.holders),
        ]


@fleet_check(
    id="fleet-repeated-key",
    title="one key in several certificates",
    classification=Classification.WEAK,
    severity=Severity.HIGH,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    references=(
        "Heninger, Durumeric, Wustrow, Halderman 2012: Mining your Ps and Qs, section 4",
        "SEC Consult 2015: House of Keys",
        "RFC 4158, section 3.2 (cross-certificates)",
    ),
)
def fleet_repeated_key(fleet: Fleet, _context: Context) -> Iterator[tuple[int, Verdict]]:
    """Sort, keep the groups of several certificates, read those back that findings name."""
    own = len(fleet)
    identities = fleet.identities
    if fleet.earlier is not None:
        identities = np.concatenate([identities, fleet.earlier.identities])
    groups = [_Group(identities, rows, own) for rows in _several(identities, own)]
    groups = [group for group in groups if group.subjects > 1 or group.kind is Kind.CERTIFICATE]
    wanted = sorted({row for group in groups for row in (group.first, *group.named) if row < own})
    holders: dict[int, Holder] = {}
    infos: dict[int, bytes] = {}
    firsts = {group.first for group in groups}
    for row, item in zip(wanted, fleet.items(wanted), strict=True):
        name = rfc4514(item.signed.subject)[:200] if item.signed is not None else ""
        holders[row] = Holder(item.source, item.index, item.sha256, item.spki_sha256 or b"", name)
        if row in firsts:
            infos[row] = item.spki or b""
    for group in groups:
        for row in group.named:
            if row >= own and fleet.earlier is not None:
                place = fleet.earlier.place(row - own)
                spki = bytes(identities["spki"][row]).ljust(16, b"\0")
                holders[row] = Holder(place.source, place.index, place.sha256, spki, earlier=True)
        yield from group.verdicts(holders, infos[group.first])


def _words(column: NDArray[np.bytes_]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Both halves of a column of 16 octets, as numbers, which sort ten times as fast."""
    halves = np.ascontiguousarray(column).view("<u8").reshape(-1, 2)
    return halves[:, 0], halves[:, 1]


def _starts(columns: Iterable[NDArray[np.uint64]]) -> NDArray[np.bool_]:
    """Where rows begin that differ from the row before in any of the columns."""
    changes = [column[1:] != column[:-1] for column in columns]
    return np.concatenate([[True], np.logical_or.reduce(changes)])


def _several(identities: NDArray[np.void], own: int) -> Iterator[NDArray[np.intp]]:
    """Rows that have a key in common, of one kind, more than one certificate, one of them of this run."""
    kinds = identities["kind"]
    rows = np.flatnonzero(np.isin(kinds, _KINDS) & (identities["spki"] != b""))
    if len(rows) < 2:
        return
    # Most keys are alone: only those with a twin are sorted by all columns.
    low, high = _words(identities["spki"][rows])
    order = np.argsort(low, kind="stable")
    twin = np.concatenate([[False], low[order][1:] == low[order][:-1]])
    twin[:-1] |= twin[1:]
    rows = np.sort(rows[order[twin]])
    if not len(rows):
        return
    low, high = _words(identities["spki"][rows])
    der_low, der_high = _words(identities["der"][rows])
    kind = kinds[rows].astype(np.uint64)
    order = np.lexsort((rows, der_high, der_low, high, low, kind))
    keys = _starts(column[order] for column in (low, high, kind))
    certificates = _starts(column[order] for column in (low, high, kind, der_low, der_high))
    begins = np.flatnonzero(keys)
    kept = (np.add.reduceat(certificates.astype(np.int64), begins) > 1) & (
        np.minimum.reduceat(rows[order], begins) < own
    )
    ends = np.append(begins[1:], len(rows))
    for start, end in zip(begins[kept].tolist(), ends[kept].tolist(), strict=True):
        yield np.sort(rows[order[start:end]])


class _Group:
    """The certificates (or requests) with one key; rows from ``own`` on are of earlier runs."""

    def __init__(self, identities: NDArray[np.void], rows: NDArray[np.intp], own: int) -> None:
        self._own = rows[rows < own].tolist()
        self.kind = list(Kind)[int(identities["kind"][rows[0]])]
        subjects: list[bytes] = identities["subject"][rows].tolist()
        ders: list[bytes] = identities["der"][rows].tolist()
        self.subjects = len(set(subjects))
        self._certificates = len(set(ders))
        # Others are told apart by their subject, or where all have one, by the certificate.
        marks = subjects if self.subjects > 1 else ders
        self._of_mark = {row: mark for row, mark in zip(rows.tolist(), marks, strict=True) if row < own}
        first: dict[bytes, int] = {}
        for row, mark in zip(rows.tolist(), marks, strict=True):
            first.setdefault(mark, row)
            if len(first) > NAMED:
                break
        self._named = first
        self.first: int = self._own[0]

    @property
    def named(self) -> Iterable[int]:
        """Rows that findings name."""
        return self._named.values()

    def verdicts(self, holders: Mapping[int, Holder], spki: bytes) -> Iterator[tuple[int, Verdict]]:
        """One for each item of this run; items that are alike share theirs."""
        made: dict[bytes, Verdict] = {}
        for row in self._own:
            mark = self._of_mark[row]
            key = mark if mark in self._named else b""
            if key not in made:
                others = [holders[other] for one, other in self._named.items() if one != mark][:NAMED]
                made[key] = self._verdict(RepeatedKey(spki, tuple(others), self._certificates - 1, self.subjects))
            yield row, made[key]

    def _verdict(self, evidence: RepeatedKey) -> Verdict:
        first = evidence.holders[0]
        where = f"{first.source}#{first.index}" + (" of an earlier run" if first.earlier else "")
        more = evidence.others - 1
        word = f"{self.kind.value}{'s' if more > 1 else ''}"
        also = f" and {more:,} more {word}" if more else ""
        if self.subjects > 1:
            return Verdict(
                f"its key is also in {where}{also}, under {_counted(self.subjects, 'subject')} in all: whoever has one "
                "of the devices has the private key of all",
                evidence,
            )
        return Verdict(
            f"its key was kept: {where}{also} with the same subject {'have' if more else 'has'} it too",
            evidence,
            Classification.NOTICE,
            Severity.LOW,
        )


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'s' if number != 1 else ''}"
