"""What goes into a scan and what comes out of it: settings, one result per item, one summary per run.

Renderers and the library's callers read these; nothing here reads files or computes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from keyassay.certificates.fleet import NotRun
from keyassay.certificates.item import Item, Kind
from keyassay.certificates.limits import DEFAULT_LIMITS, Limits
from keyassay.certificates.public_key import (
    DsaPublicKey,
    EcPublicKey,
    OkpPublicKey,
    RsaPublicKey,
)
from keyassay.findings import Classification, Confidence, Finding, Profile


@dataclass(frozen=True)
class Settings:
    """How to scan.

    Attributes:
        profile: how much work a key is worth.
        only: ids of the checks to run, empty for all of the profile (a named check runs whatever its profile).
        skip: ids of checks to leave out.
        fleet: compare the items of the run with each other.
        against: folder of a store of earlier runs' keys, which this run's keys join, or None.
        memory: bytes that fleet checks may take; 0 for half of the machine's.
        jobs: worker processes; 0 for one per core.
        limits: bounds on input.
        passwords: tried on PKCS #12, JKS and encrypted private key files.
        timeout: seconds for each network source.
        now: the time that validity is judged at, seconds since 1970; 0 for the current time.
    """

    profile: Profile = Profile.STANDARD
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    fleet: bool = True
    against: Path | None = None
    memory: int = 0
    jobs: int = 1
    limits: Limits = DEFAULT_LIMITS
    passwords: tuple[bytes, ...] = ()
    timeout: float = 10.0
    now: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """One item with what was found.

    Attributes:
        item: the item, readable or not.
        findings: worst first; those explained by another finding are left out.
        not_run: checks that apply to the item but did not do their work, with reasons.
    """

    item: Item
    findings: tuple[Finding, ...] = ()
    not_run: tuple[NotRun, ...] = ()

    @property
    def worst(self) -> Classification | None:
        """The worst classification among the findings."""
        return self.findings[0].classification if self.findings else None


@dataclass
class Summary:
    """The run in numbers; complete once the scan has been iterated to its end.

    Attributes:
        profile: the profile that ran.
        catalogue: digest of checks and versions.
        checks: ids and versions of the checks that ran.
        left_out: ids of checks that a larger profile would have run (or deepened), for the closing hint.
        read: items read (all but unreadable ones).
        assessed: items whose key the checks looked at.
        not_assessed: items read whose key type no check knows.
        unreadable: items that could not be read.
        passed_over: files in folders that hold nothing of ours.
        keys: number of assessed keys by description ("RSA-2048", "P-256", "Ed25519").
        kinds: number of items by kind.
        worst: number of items by their worst classification.
        by_check: number of findings by check id.
        not_run: what could not be done for the run as a whole.
        seconds: wall clock time.
        interrupted: the run was broken off; what was found so far is there.
        lists: remarks on the state of the lists ("debian-rsa-2048: 95 of 96 blocks"), empty if all is there.
        stored: keys of earlier runs that this run was compared with, by ``against``.
    """

    profile: Profile = Profile.STANDARD
    catalogue: str = ""
    checks: tuple[tuple[str, int], ...] = ()
    left_out: tuple[str, ...] = ()
    read: int = 0
    assessed: int = 0
    not_assessed: int = 0
    unreadable: int = 0
    passed_over: int = 0
    keys: Counter[str] = field(default_factory=Counter)
    kinds: Counter[Kind] = field(default_factory=Counter)
    worst: Counter[Classification] = field(default_factory=Counter)
    by_check: Counter[str] = field(default_factory=Counter)
    confidence: Counter[Confidence] = field(default_factory=Counter)
    not_run: list[NotRun] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False
    lists: tuple[str, ...] = ()
    stored: int = 0

    @property
    def items(self) -> int:
        """Everything that was met."""
        return self.read + self.unreadable


def key_name(item: Item) -> str:
    """A key in a word for people: "RSA-2048", "P-256", "Ed25519", "DSA-1024", "ML-DSA-44", "" where there is none."""
    key = item.key
    if key is None:
        return ""
    if isinstance(key, RsaPublicKey):
        return f"RSA-{key.modulus.bit_length()}"
    if isinstance(key, EcPublicKey):
        return key.curve if key.curve != "explicit" else "EC explicit"
    if isinstance(key, DsaPublicKey):
        return f"DSA-{key.bits}"
    if isinstance(key, OkpPublicKey):
        return key.type.capitalize()
    return key.algorithm
