"""Decides how a run ends: which findings count, which were accepted, and the exit code.

The gate watches results on their way to a renderer, so that every format ends with the same code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta

from keyassay.bulk.results import Result, Summary
from keyassay.certificates.item import Item
from keyassay.findings import Classification, Finding
from keyassay.output.baseline import Acceptance, Baseline, fingerprint

CLEAN = 0
FOUND = 1
USAGE = 2
UNREADABLE = 3
INTERNAL = 70
INTERRUPTED = 130
CLOSED_PIPE = 141

#: how long an entry of --write-baseline holds
ACCEPTED_DAYS = 90


class Gate:
    """One run's judge.

    Attributes:
        fail_on: the mildest class that fails the run, None for never.
        failing: findings that failed it so far.
        accepted: findings met that the baseline accepts.
        expired: findings met whose acceptance has expired; they count again.
    """

    def __init__(
        self,
        fail_on: Classification | None = Classification.BROKEN,
        baseline: Baseline | None = None,
        today: date | None = None,
        *,
        collect: bool = False,
    ) -> None:
        """Take the rules; ``collect`` remembers every finding for ``collected``."""
        self.fail_on = fail_on
        self.today = today or datetime.now(UTC).date()
        self.failing = 0
        self.accepted = 0
        self.expired = 0
        self._baseline = baseline or Baseline()
        self._new: list[Acceptance] | None = [] if collect else None

    def acceptance(self, item: Item, finding: Finding) -> Acceptance | None:
        """The entry that accepts a finding today, or None."""
        found = self._baseline.find(item, finding)
        return found if found is not None and found.holds(self.today) else None

    def expired_acceptance(self, item: Item, finding: Finding) -> Acceptance | None:
        """The entry that accepted a finding until its date passed, or None."""
        found = self._baseline.find(item, finding)
        return found if found is not None and not found.holds(self.today) else None

    def fails(self, item: Item, finding: Finding) -> bool:
        """Whether this finding fails the run."""
        return (
            self.fail_on is not None
            and finding.classification.rank <= self.fail_on.rank
            and self.acceptance(item, finding) is None
        )

    def watch(self, results: Iterable[Result]) -> Iterator[Result]:
        """Hand results on, counting."""
        for result in results:
            for finding in result.findings:
                self._count(result.item, finding)
            yield result

    def _count(self, item: Item, finding: Finding) -> None:
        self.failing += self.fails(item, finding)
        self.accepted += self.acceptance(item, finding) is not None
        self.expired += self.expired_acceptance(item, finding) is not None
        if self._new is not None and (digest := fingerprint(item)):
            expires = self.today + timedelta(days=ACCEPTED_DAYS)
            self._new.append(Acceptance(digest, finding.check, f"known on {self.today}, not reviewed", expires))

    def collected(self) -> Baseline:
        """The baseline with every finding of this run in it."""
        return self._baseline.extended(self._new or ())

    def exit_code(self, summary: Summary) -> int:
        """The code that the run ends with, once the results have ended."""
        if summary.interrupted:
            return INTERRUPTED
        if self.failing:
            return FOUND
        if not summary.items:
            return USAGE
        return UNREADABLE if summary.unreadable else CLEAN
