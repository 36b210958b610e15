"""Profile deep: the steps of all checks on one key, cheapest and likeliest first, until its budget is spent.

Every step leaves a report, also the one that was not started: nothing found is worth as much as what was tried.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from keyassay.certificates.public_key import PublicKey, RsaPublicKey
from keyassay.checks import BudgetSpentError, Check, Context, DeepStep, Effort
from keyassay.findings import EvidenceRefusedError, Finding

#: CPU seconds a key where nothing else is said
DEFAULT_BUDGET = 5.0


class Outcome(StrEnum):
    """How a step ended."""

    FOUND = "found"
    DONE = "done"
    PARTLY = "partly"
    NOT_STARTED = "not started"
    DOES_NOT_APPLY = "does not apply"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StepReport:
    """What became of one step on one key.

    Attributes:
        check: id of the check.
        step: name of the step.
        outcome: how it ended.
        detail: how far it came ("40 of 74 curves"), or why it did not run.
        seconds: CPU spent.
        units: units of work done in all, for a later run that goes on.
    """

    check: str
    step: str
    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0
    units: int = 0


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
) -> tuple[list[Finding], list[StepReport]]:
    """Run the deep steps of checks on one key, until one of them finds something or the budget is spent.

    Args:
        key: the key, within the limits.
        checks: whose steps; those that do not apply to this type of key are passed over.
        context: as for checks.
        budget: CPU seconds for the key.
        known_primes: factors of other keys.

    Returns:
        The findings (none or one), and a report of every step.
    """
    deadline = time.process_time() + budget
    by_id = {one.id: one for one in checks if isinstance(key, one.metadata.applies_to)}
    reports: list[StepReport] = []
    findings: list[Finding] = []
    for step in steps_of(by_id.values()):
        reason = step.applies(key)
        if reason:
            reports.append(StepReport(step.check_id, step.name, Outcome.DOES_NOT_APPLY, reason))
            continue
        started = time.process_time()
        least = step.seconds * _growth(key)
        if findings or started + least > deadline:
            why = (
                "the key is broken"
                if findings
                else f"needs {least:.2g} s, {max(deadline - started, 0):.2g} s were left"
            )
            reports.append(StepReport(step.check_id, step.name, Outcome.NOT_STARTED, why))
            continue
        effort = Effort(context, deadline, known_primes=known_primes)
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
        detail = failure or (f"{effort.done} of {effort.total} {effort.unit}" if effort.total else "")
        reports.append(StepReport(step.check_id, step.name, outcome, detail, spent, effort.done))
    return findings, reports


def _growth(key: PublicKey) -> float:
    return (key.modulus.bit_length() / 2048) ** 2.5 if isinstance(key, RsaPublicKey) else 1.0
