"""Profile deep: the steps of all checks on one key, cheapest and likeliest first, until its budget is spent.

Every step leaves a report, also the one that was not started: nothing found is worth as much as what was tried.
How the keys of a whole run get their turn: ``bulk.deep_run``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keyassay.bulk.results import DEFAULT_BUDGET, Outcome, StepReport
from keyassay.certificates.public_key import PublicKey, RsaPublicKey
from keyassay.checks import BudgetSpentError, Check, Context, DeepStep, Effort
from keyassay.findings import EvidenceRefusedError, Finding


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier run did of a step on a key, in the check's present version.

    Attributes:
        done: the step came to its end; otherwise it was broken off.
        units: units of work done, where a step that resumes goes on.
        seconds: CPU that counts against the key's budget.
        detail: how far it came, in words.
    """

    done: bool
    units: int
    seconds: float
    detail: str


#: by check and name of the step
EarlierSteps = Mapping[tuple[str, str], Earlier]


@dataclass(slots=True)
class _Watched(Effort):
    """An effort that also ends when the run is broken off."""

    stop: Callable[[], bool] = bool

    def reached(self, done: int, total: int, unit: str) -> None:
        Effort.reached(self, done, total, unit)
        if self.stop():
            raise BudgetSpentError


def steps_of(checks: Iterable[Check[Any]]) -> list[DeepStep]:
    """The deep steps of checks, in the order in which they run."""
    steps = [step for one in checks for step in one.deep_steps]
    return sorted(steps, key=lambda step: (step.stage, step.seconds, step.check_id, step.name))


def examine_deeply(
    key: PublicKey,
    checks: Sequence[Check[Any]],
    context: Context,
    budget: float = DEFAULT_BUDGET,
    known_primes: Sequence[int] = (),
    *,
    earlier: EarlierSteps | None = None,
    stop: Callable[[], bool] = bool,
    primes_only: bool = False,
) -> tuple[list[Finding], list[StepReport]]:
    """Run the deep steps of checks on one key, until one of them finds something or the budget is spent.

    Args:
        key: the key, within the limits.
        checks: whose steps; those that do not apply to this type of key are passed over.
        context: as for checks.
        budget: CPU seconds for the key, what ``earlier`` runs have spent on it included.
        known_primes: factors of other keys.
        earlier: what earlier runs have done. Steps that are done are not repeated, others go on where they were; a
            step gets the time that it would have got if this run had done all.
        stop: the run is being broken off.
        primes_only: run the steps that use known primes and no others.

    Returns:
        The findings (none or one), and a report of every step.
    """
    left = budget
    by_id = {one.id: one for one in checks if isinstance(key, one.metadata.applies_to)}
    reports: list[StepReport] = []
    findings: list[Finding] = []

    def report(step: DeepStep, outcome: Outcome, detail: str, seconds: float = 0.0, units: int = 0) -> None:
        reports.append(StepReport(step.check_id, step.name, outcome, detail, seconds, units))

    for step in steps_of(by_id.values()):
        if primes_only and not step.uses_known_primes:
            continue
        reason = step.applies(key)
        if not reason and step.uses_known_primes and not known_primes:
            reason = "no factor of another key is known"
        if reason:
            report(step, Outcome.DOES_NOT_APPLY, reason)
            continue
        before = (earlier or {}).get((step.check_id, step.name))
        if findings:
            report(step, Outcome.NOT_NEEDED, "the key is broken")
            continue
        if before is not None:
            left -= before.seconds
            if before.done:
                report(step, Outcome.DONE_EARLIER, before.detail, 0.0, before.units)
                continue
        least = step.seconds * _growth(key)
        if stop() or least > left:
            why = "interrupted" if stop() else f"needs {least:.2g} s, {max(left, 0):.2g} s were left"
            if before is not None:
                report(step, Outcome.PARTLY, before.detail, 0.0, before.units)
            else:
                report(step, Outcome.NOT_STARTED, why)
            continue
        started = time.process_time()
        start = before.units if before else 0
        effort = _Watched(context, started + left, start, start, known_primes=known_primes, stop=stop)
        outcome, failure = Outcome.DONE, ""
        try:
            verdict = step.run(key, effort)
            if verdict is not None:
                findings.append(by_id[step.check_id].finding(key, verdict))
                outcome = Outcome.FOUND
        except BudgetSpentError:
            outcome = Outcome.PARTLY
        except EvidenceRefusedError as refused:
            outcome, failure = Outcome.FAILED, f"internal error, no finding: {refused}"
        except Exception as error:  # noqa: BLE001  whatever a hostile key makes a step raise must not end the run
            outcome, failure = Outcome.FAILED, f"internal error: {type(error).__name__}: {error}"
        spent = time.process_time() - started
        left -= spent
        detail = failure or (f"{effort.done:,} of {effort.total:,} {effort.unit}" if effort.total else "")
        report(step, outcome, detail, spent, effort.done)
    return findings, reports


def _growth(key: PublicKey) -> float:
    return (key.modulus.bit_length() / 2048) ** 2.5 if isinstance(key, RsaPublicKey) else 1.0
