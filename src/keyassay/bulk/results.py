"""What goes into a scan and what comes out of it: settings, one result per item, one summary per run.

Renderers and the library's callers read these; nothing here reads files or computes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
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

#: CPU seconds a key in profile deep where nothing else is said
DEFAULT_BUDGET = 5.0


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
        budget: CPU seconds that the deep steps of profile deep may spend on a key.
        total_budget: CPU seconds that they may spend on all keys of the run together; 0 for no such limit.
        walk: decide RSA keys of sizes without a complete list of Debian's keys by trying every stream, as deep as
            this many mean distances between primes (10 misses 4.5e-5 of them); 0 for not at all.
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
    budget: float = DEFAULT_BUDGET
    total_budget: float = 0.0
    walk: float = 0.0


class Outcome(StrEnum):
    """How a deep step ended; the values are those of the JSON contract."""

    FOUND = "found"
    DONE = "done"
    DONE_EARLIER = "done earlier"
    PARTLY = "partly"
    NOT_STARTED = "not started"
    NOT_NEEDED = "not needed"
    DOES_NOT_APPLY = "does not apply"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StepReport:
    """What became of one deep step on one key.

    Attributes:
        check: id of the check.
        step: name of the step.
        outcome: how it ended.
        detail: how far it came ("40 of 74 curves"), or why it did not run.
        seconds: CPU spent, by this run.
        units: units of work done in all, for a later run that goes on.
    """

    check: str
    step: str
    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0
    units: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """One item with what was found.

    Attributes:
        item: the item, readable or not.
        findings: worst first; those explained by another finding are left out.
        not_run: checks that apply to the item but did not do their work, with reasons.
        steps: profile deep: what became of each deep step on the key, in the order of the steps; empty where none
            was needed (the key was broken before) or none exists for this type of key.
    """

    item: Item
    findings: tuple[Finding, ...] = ()
    not_run: tuple[NotRun, ...] = ()
    steps: tuple[StepReport, ...] = ()

    @property
    def worst(self) -> Classification | None:
        """The worst classification among the findings."""
        return self.findings[0].classification if self.findings else None


@dataclass
class StepCount:
    """What became of one deep step on all keys of a run.

    Attributes:
        stage: its place in the order of steps, 1 to 7.
        outcomes: number of keys by outcome.
        least, most: units done and their description ("40 of 74 curves") where it was broken off earliest and latest.
    """

    stage: int
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    least: tuple[int, str] | None = None
    most: tuple[int, str] | None = None

    def add(self, report: StepReport) -> None:
        """Count a key."""
        self.outcomes[report.outcome] += 1
        if report.outcome is Outcome.PARTLY:
            here = (report.units, report.detail)
            self.least = min(self.least or here, here)
            self.most = max(self.most or here, here)


@dataclass
class DeepSummary:
    """The deep steps of a run in numbers. A key that several items have counts once.

    Attributes:
        budget: CPU seconds for each key, as asked.
        total_budget: CPU seconds for all of them, 0 for no limit.
        keys: different keys that nothing had broken and that have deep steps.
        examined: of these, keys on which the steps have run as far as the budget went.
        broken: of these, keys that deep steps broke.
        seconds: CPU spent, by this run.
        steps: by (check, name of the step), in the order in which steps run.
    """

    budget: float
    total_budget: float = 0.0
    keys: int = 0
    examined: int = 0
    broken: int = 0
    seconds: float = 0.0
    steps: dict[tuple[str, str], StepCount] = field(default_factory=dict)

    @property
    def out_of_budget(self) -> bool:
        """Whether a larger budget would have gone further."""
        return any(one.outcomes[Outcome.PARTLY] or one.outcomes[Outcome.NOT_STARTED] for one in self.steps.values())


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
        lists: remarks on the lists, and on what was walked for instead; empty if there is nothing to say.
        stored: keys of earlier runs that this run was compared with, by ``against``.
        deep: the deep steps; None where the run had none.
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
    deep: DeepSummary | None = None

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
