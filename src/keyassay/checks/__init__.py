"""How a check is declared, and the catalogue of all of them: beside this file there are only checks.

A module ``rsa_close_primes.py`` declares exactly one check, id ``rsa-close-primes``, with one decorator; its module
docstring is the check's page (sections of ``PAGE_SECTIONS``). Nothing is registered anywhere else.

Four shapes, by what the check looks at (all return ``Verdict``; the engine verifies evidence, then makes findings):

- ``key_check``: one key at a time, ``(key, context) -> Verdict | None``. Its optional array screen,
  ``@check.screen``, ``(batch, context) -> rows`` picks the rows worth examining: it may over-select, never drop.
- ``batch_check``: many keys of one type and size, ``(batch, context) -> iterator of (row, Verdict)``, where the
  screen hands intermediate results to the proof.
- ``certificate_check``: one item with its names, validity and signature, ``(items, context)`` likewise.
- ``fleet_check``: the whole run, ``(fleet, context)`` likewise; rows are ordinals of items in the run.

A check of keys whose answer falls out of a fleet check's work has a second way to it, ``@check.in_fleet``. What costs
seconds a key is a step of profile ``deep``, ``@check.deeper(...)``, ``(key, effort) -> Verdict | None``.

Checks never import each other: an overlap is declared by ``explained_by`` (a finding of those checks on the same
item makes this check's finding superfluous). Work that several checks need is a shared column of the batch.
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from keyassay.certificates.batches import KeyBatch
from keyassay.certificates.fleet import Fleet, NotRun
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import (
    DsaPublicKey,
    EcPublicKey,
    OkpPublicKey,
    PublicKey,
    RsaPublicKey,
)
from keyassay.errors import KeyassayError
from keyassay.findings import (
    Classification,
    Confidence,
    EvidenceRefusedError,
    Finding,
    Profile,
    Severity,
    Verdict,
)

#: Sections that every check's page must have, in this order, each starting a line as "Weakness: ...".
PAGE_SECTIONS = ("Weakness", "Method", "Cost", "Profiles", "Mistakes", "Blind spots", "Remedy")

REASON_PREFIX = "CERTIFICATE_KEY_VULNERABILITY_"

KeyType = type[RsaPublicKey] | type[EcPublicKey] | type[OkpPublicKey] | type[DsaPublicKey]


@dataclass(frozen=True, slots=True)
class Context:
    """What a check may know beside its input.

    Attributes:
        profile: how much work is allowed.
        now: time of the assessment, seconds since 1970-01-01 UTC (one value for the whole run).
        fleet_follows: the fleet check that does this check's work by the way runs after the keys: what
            ``in_fleet`` declares finds all that is to be found, and the check itself has nothing to do.
        walk_follows: RSA keys that no list of Debian's keys can decide are decided afterwards (``--walk``).
        budget, total_budget: CPU seconds that the deep steps of profile deep may spend on each different key, and on
            all of them; fleet checks of that profile go by it.
        key_count: how many keys the run is expected to hold, 0 if unknown; tables that take seconds to make
            are made only where enough keys will use them.
        cache: run-wide scratch per process, for tables.
        notes: what checks left out and why, by ``leave_out``; the summary of the run shows it.
    """

    profile: Profile = Profile.STANDARD
    now: int = field(default_factory=lambda: int(time.time()))
    fleet_follows: bool = False
    walk_follows: bool = False
    budget: float = 5.0
    total_budget: float = float("inf")
    key_count: int = 0
    cache: dict[str, Any] = field(default_factory=dict, compare=False)
    notes: set[NotRun] = field(default_factory=set, compare=False)

    def leave_out(self, check_id: str, reason: str) -> None:
        """Say that a check could not do its work (a list is missing, a table would not fit)."""
        self.notes.add(NotRun(check_id, reason))


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a check says of itself.

    Attributes:
        id: kebab case; the module's name with hyphens.
        title: a few words for tables.
        applies_to: key types, or () for certificate and fleet checks that take any.
        classification, severity, confidence: the usual outcome; a verdict may differ.
        profile: the cheapest profile in which the check does something.
        version: rises when the check finds more or less, so that audits examine keys again.
        since: the release that brought it.
        references: papers, RFCs, CVEs; never empty.
        reason_code: AWS's two codes for its CVEs, else derived from the id.
        explained_by: ids of checks whose finding on the same item makes this one superfluous.
        any_size: also gets keys whose modulus or exponent exceeds the limits (no other check sees those).
        after: ids of fleet checks that run before this fleet check, which reads ``Fleet.private_keys``.
    """

    id: str
    title: str
    applies_to: tuple[KeyType, ...]
    classification: Classification
    severity: Severity
    confidence: Confidence
    profile: Profile
    version: int
    since: str
    references: tuple[str, ...]
    reason_code: str
    explained_by: tuple[str, ...]
    any_size: bool = False
    after: tuple[str, ...] = ()

    @property
    def is_aws(self) -> bool:
        """One of the two that Device Defender runs."""
        return self.reason_code.startswith(REASON_PREFIX + "CVE-")


class BudgetSpentError(Exception):
    """A deep step has used up its time. Raised by ``Effort.reached`` for the engine alone; steps let it pass."""


@dataclass(slots=True)
class Effort:
    """What one deep step may spend on one key, and how far it has come.

    Attributes:
        context: as for checks.
        deadline: the step ends when this process has used that many CPU seconds (``time.process_time``).
        start: units of work that an earlier run did on this key; a step that resumes goes on after them.
        done, total, unit: how far the step is ("40 of 74 curves"), as it said last.
        known_primes: factors of other keys of the run, for steps that try them.
    """

    context: Context
    deadline: float = float("inf")
    start: int = 0
    done: int = 0
    total: int = 0
    unit: str = ""
    known_primes: Sequence[int] = ()

    def reached(self, done: int, total: int, unit: str) -> None:
        """Say how far the step is. A step does so at least once a second, and whenever it could stop.

        Raises:
            BudgetSpentError: the time is over.
        """
        self.done, self.total, self.unit = done, total, unit
        if time.process_time() >= self.deadline:
            raise BudgetSpentError


@dataclass(frozen=True, slots=True)
class DeepStep:
    """One step of profile deep.

    Attributes:
        check_id: the check whose findings it makes.
        name: a few words for reports, unique within the check ("ECM, 11-bit bounds").
        stage: place in the order of all steps, 1 (cheapest, likeliest) to 7; within a stage by ``seconds``.
        seconds: CPU of the least piece of work at 2048 bits: with less time than that left the step is not started.
            Grows with the size to the power 2.5.
        applies: whether the step can find anything for a key, at no cost; "" or the reason why not.
        run: the step itself.
        uses_known_primes: the step does nothing but try ``Effort.known_primes`` on the key: it is left out where
            there are none, and runs once more when later keys of the run have given new ones.
    """

    check_id: str
    name: str
    stage: int
    seconds: float
    applies: Callable[[Any], str]
    run: Callable[[Any, Effort], Verdict | None]
    uses_known_primes: bool = False


B = TypeVar("B")
Rows = NDArray[np.intp]
Found = Iterator[tuple[int, Verdict]]
FleetPart = Callable[[Fleet, Context], Iterable[tuple[int, Verdict]] | None]


@dataclass(frozen=True)
class Check(Generic[B]):
    """One check: metadata, page, and ``find``. Pickles as its id, so that workers load their own catalogue."""

    metadata: Metadata
    module: str
    shape: str  # "key", "certificate" or "fleet"
    _find: Callable[[B, Context], Iterable[tuple[int, Verdict]]]
    #: shape "key" by ``key_check`` only: the examination of one key, and its screen if there is one.
    examine: Callable[[Any, Context], Verdict | None] | None = None
    screens: list[Callable[[Any, Context], Rows]] = field(default_factory=list)
    #: shape "key" only: the fleet check that does the work by the way, and how its results are read.
    fleet_parts: list[tuple[str, FleetPart]] = field(default_factory=list)
    #: shape "key" only: what profile deep adds, key by key, within a budget.
    deep_steps: list[DeepStep] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The check's id."""
        return self.metadata.id

    @property
    def page(self) -> str:
        """The documentation page: the module's docstring."""
        return importlib.import_module(self.module).__doc__ or ""

    def screen(self, function: Callable[[Any, Context], Rows]) -> Callable[[Any, Context], Rows]:
        """Decorator: the array screen of a ``key_check``."""
        self.screens.append(function)
        return function

    def in_fleet(self, leader: str) -> Callable[[FleetPart], FleetPart]:
        """Decorator: how a check of keys gets its verdicts where fleet check ``leader`` runs after the keys.

        The function gets ``(fleet, context)`` and returns ordinals of items with verdicts, or None if the fleet's
        common work could not be done: the engine then runs the check itself on the keys. It sees all keys that the
        check would have seen, and is sufficient: the check itself returns nothing where ``context.fleet_follows``.
        """

        def declare(function: FleetPart) -> FleetPart:
            self.fleet_parts.append((leader, function))
            return function

        return declare

    def deeper(
        self,
        name: str,
        *,
        stage: int,
        seconds: float,
        applies: Callable[[Any], str] = lambda _key: "",
        uses_known_primes: bool = False,
    ) -> Callable[[Callable[[Any, Effort], Verdict | None]], Callable[[Any, Effort], Verdict | None]]:
        """Decorator: a step of profile deep; keywords are ``DeepStep``'s fields.

        The function gets one key of a type in ``applies_to`` and its ``Effort``, and returns a verdict or None. The
        engine runs it on keys that nothing else has broken, in the order of stages, until the budget is spent.
        """

        def declare(function: Callable[[Any, Effort], Verdict | None]) -> Callable[[Any, Effort], Verdict | None]:
            self.deep_steps.append(DeepStep(self.id, name, stage, seconds, applies, function, uses_known_primes))
            return function

        return declare

    def find(self, subject: B, context: Context) -> Iterable[tuple[int, Verdict]]:
        """Verdicts by row. Stops at nothing: hostile keys are the normal case."""
        return self._find(subject, context)

    def runs_in(self, profile: Profile) -> bool:
        """Whether the profile includes this check."""
        if profile is Profile.AWS:
            return self.metadata.is_aws
        return self.metadata.profile <= profile

    def finding(self, subject: PublicKey | Item, verdict: Verdict) -> Finding:
        """Make the finding, verifying its evidence.

        Raises:
            EvidenceRefusedError: the evidence does not hold; there is no finding.
        """
        meta = self.metadata
        classification = verdict.classification or meta.classification
        confidence = verdict.confidence or meta.confidence
        if classification is Classification.BROKEN and confidence is Confidence.LIKELY:
            raise EvidenceRefusedError(f"{meta.id}: broken needs proof, not likelihood")
        if not verdict.evidence.proves(subject):
            raise EvidenceRefusedError(f"{meta.id}: the evidence does not verify")
        return Finding(
            meta.id,
            meta.version,
            classification,
            verdict.severity or meta.severity,
            confidence,
            meta.reason_code,
            verdict.message,
            verdict.evidence,
        )

    def __reduce__(self) -> tuple[Callable[[str], Check[Any]], tuple[str]]:
        return (check, (self.metadata.id,))


def _metadata(**given: Any) -> Metadata:
    given.setdefault("reason_code", REASON_PREFIX + given["id"].upper().replace("-", "_"))
    given.setdefault("explained_by", ())
    given.setdefault("applies_to", ())
    given.setdefault("version", 1)
    given.setdefault("since", "0.1.0")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", given["id"]):
        raise KeyassayError(f"check id {given['id']!r} is not in kebab case")
    return Metadata(**given)


def key_check(**metadata: Any) -> Callable[[Callable[[Any, Context], Verdict | None]], Check[KeyBatch[Any]]]:
    """Declare a check of single keys; keywords are ``Metadata``'s fields.

    The decorated function gets a key of a type in ``applies_to`` and returns a verdict or None. Give it a
    screen with ``@NAME.screen`` unless it costs a few microseconds or less.
    """

    def declare(function: Callable[[Any, Context], Verdict | None]) -> Check[KeyBatch[Any]]:
        screens: list[Callable[[Any, Context], Rows]] = []

        def find(batch: KeyBatch[Any], context: Context) -> Found:
            rows: Iterable[int] = range(len(batch))
            if screens:
                rows = screens[0](batch, context).tolist()
            for row in rows:
                verdict = function(batch.key(row), context)
                if verdict is not None:
                    yield row, verdict

        return Check(_metadata(**metadata), function.__module__, "key", find, function, screens)

    return declare


def batch_check(
    **metadata: Any,
) -> Callable[[Callable[[Any, Context], Iterable[tuple[int, Verdict]]]], Check[KeyBatch[Any]]]:
    """Declare a check of many keys at once; the function yields ``(row, verdict)`` for a ``KeyBatch``."""

    def declare(function: Callable[[Any, Context], Iterable[tuple[int, Verdict]]]) -> Check[KeyBatch[Any]]:
        return Check(_metadata(**metadata), function.__module__, "key", function)

    return declare


def certificate_check(
    **metadata: Any,
) -> Callable[[Callable[[Sequence[Item], Context], Iterable[tuple[int, Verdict]]]], Check[Sequence[Item]]]:
    """Declare a check of items (names, validity, signature); evidence is verified against the item."""

    def declare(
        function: Callable[[Sequence[Item], Context], Iterable[tuple[int, Verdict]]],
    ) -> Check[Sequence[Item]]:
        return Check(_metadata(**metadata), function.__module__, "certificate", function)

    return declare


def fleet_check(
    **metadata: Any,
) -> Callable[[Callable[[Fleet, Context], Iterable[tuple[int, Verdict]]]], Check[Fleet]]:
    """Declare a check of the whole run; the function yields ``(ordinal, verdict)`` for items of the fleet.

    Evidence is verified against the key of that item.
    """

    def declare(function: Callable[[Fleet, Context], Iterable[tuple[int, Verdict]]]) -> Check[Fleet]:
        return Check(_metadata(**metadata), function.__module__, "fleet", function)

    return declare


@cache
def catalogue() -> tuple[Check[Any], ...]:
    """All checks, by id. Discovered from the modules beside this file.

    Raises:
        KeyassayError: a module declares no check, several, or one whose id is not the module's name.
    """
    found: list[Check[Any]] = []
    for module in sorted(entry.name for entry in pkgutil.iter_modules(__path__)):
        loaded = importlib.import_module(f"{__name__}.{module}")
        declared = [value for value in vars(loaded).values() if isinstance(value, Check)]
        if [one.id for one in declared] != [module.replace("_", "-")]:
            raise KeyassayError(f"checks/{module}.py has to declare exactly one check of its own name")
        found.extend(declared)
    return tuple(sorted(found, key=lambda one: one.id))


def check(check_id: str) -> Check[Any]:
    """The check of that id.

    Raises:
        KeyassayError: there is none.
    """
    for one in catalogue():
        if one.id == check_id:
            return one
    raise KeyassayError(f"there is no check {check_id!r}", "`keyassay checks` lists them")


def catalogue_digest(checks: Iterable[Check[Any]] | None = None) -> str:
    """Digest of ids and versions: says which catalogue a result came from (16 hex digits)."""
    text = ",".join(f"{one.id}/{one.metadata.version}" for one in (catalogue() if checks is None else checks))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
