"""The words that every report for people shares: what an item is called, what evidence says, what to do next.

``Excerpt`` keeps what a report has room for while results stream by: the worst items, the first unread ones, counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from keyassay.bulk.results import DEFAULT_BUDGET, DeepSummary, Outcome, Result, StepCount, Summary, key_name
from keyassay.certificates.fleet import NotRun
from keyassay.certificates.item import Item, Kind
from keyassay.certificates.names import rfc4514
from keyassay.checks import PAGE_SECTIONS, Check, check
from keyassay.findings import Classification, Finding, Profile
from keyassay.output import Options
from keyassay.output.escaping import shell_word, visible
from keyassay.output.gate import Gate
from keyassay.output.values import evidence_fields, hex_number

#: what the classes mean, in the order of badness
MEANING = {
    Classification.BROKEN: "the private key can be computed, or no sound one can exist",
    Classification.WEAK: "below today's accepted minimum",
    Classification.NOTICE: "worth knowing",
}


@dataclass(frozen=True, slots=True)
class Names:
    """Subject, issuer (RFC 4514) and serial number (hex) of an item; None where it has none."""

    subject: str | None = None
    issuer: str | None = None
    serial: str | None = None


@lru_cache(maxsize=4096)
def _issuer(der: bytes) -> str:
    return rfc4514(der)


def names_of(item: Item) -> Names:
    """The names; a request has no issuer, a plain key no names at all."""
    fields = item.signed
    if fields is None:
        return Names()
    return Names(
        rfc4514(fields.subject) if fields.subject else None,
        _issuer(fields.issuer) if fields.issuer and item.kind is not Kind.REQUEST else None,
        None if fields.serial_number is None else hex_number(fields.serial_number),
    )


def place(item: Item) -> str:
    """Where an item is, safe to show: ``fleet/a.pem #3``."""
    return f"{visible(item.source, 300)} #{item.index}"


def called(item: Item) -> str:
    """What an item is: ``certificate, RSA-2048, CN=device-17``."""
    parts = [item.kind.value, visible(key_name(item)), visible(names_of(item).subject or "", 200)]
    return ", ".join(part for part in parts if part)


def capitalised(text: str) -> str:
    """The text with a capital, unless it begins with a symbol (p, e = 1, p/q)."""
    if re.match(r"(?:a (?!and |or |is |[^a-z]))?[a-z]{2,}(?![\w/^=])", text):
        return text[0].upper() + text[1:]
    return text


def sentence(text: str) -> str:
    """A message as a sentence, safe to show: with a capital and a full stop."""
    text = capitalised(visible(text, 2_000))
    return text if text.endswith((".", "!", "?", "…")) else text + "."


def evidence_text(finding: Finding, *, reveal: bool) -> str:
    """Evidence in a line: ``verified factor, factor bits 512``; long numbers are cut unless revealed.

    What the message says already is left out.
    """
    fields = evidence_fields(finding, reveal=reveal)
    fields.pop("verified", None)
    limit = 0 if reveal else 120
    parts = []
    for name, value in fields.items():
        if value is None or (name != "proof" and _said(finding.message, value)):
            continue
        word = "verified" if name == "proof" else name.replace("_", " ")
        parts.append(f"{visible(word)} {visible(value_text(value), limit)}")
    return ", ".join(parts)


def _said(message: str, value: Any) -> bool:
    """Whether a message holds a value word for word."""
    if isinstance(value, bool | list | dict):
        return False
    return re.search(rf"(?<![\w.]){re.escape(str(value))}(?!\w|\.\d)", message.replace(",", "")) is not None


def value_text(value: Any) -> str:
    """A JSON value for people: ``1,024``; ``(arch le64, state rnd)``; ``[1, 2]``; another item as its place."""
    if isinstance(value, dict):
        if {"source", "index"} <= set(value):
            return f"{value['source']} #{value['index']}"
        return "(" + ", ".join(f"{name} {value_text(one)}" for name, one in value.items() if one is not None) + ")"
    if isinstance(value, list):
        return "[" + ", ".join(value_text(one) for one in value) + "]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def sections(one: Check[object]) -> dict[str, str]:
    """The sections of a check's page by name ("Weakness", "Remedy", ...).

    Each is a text with empty lines between paragraphs and no other line breaks.
    """
    found: dict[str, list[str]] = {}
    name = ""
    for line in one.page.splitlines():
        head, colon, rest = line.partition(":")
        if colon and head in PAGE_SECTIONS:
            name = head
            found[name] = [rest.strip()]
        elif name:
            found[name].append(line.strip())
    # An empty line begins a paragraph.
    return {
        section: capitalised("\n\n".join(" ".join(part.split("\n")) for part in "\n".join(lines).strip().split("\n\n")))
        for section, lines in found.items()
    }


@dataclass(frozen=True, slots=True)
class Next:
    """What to do next.

    Attributes:
        remedies: (check, title, remedy) of the checks that found the worst class met, the commonest first.
        others: further checks that found that class.
        prove: the command that proves the worst finding, "" if there is none to prove.
    """

    remedies: tuple[tuple[str, str, str], ...]
    others: tuple[str, ...]
    prove: str


def next_steps(excerpt: Excerpt, options: Options, limit: int = 5) -> Next | None:
    """What to do about the worst class of findings that no baseline accepts; None where nothing was found."""
    worst = next((one for one in Classification if any(found is one for _, found in excerpt.counting)), None)
    if worst is None:
        return None
    counts = Counter({name: count for (name, found), count in excerpt.counting.items() if found is worst})
    names = [name for name, _ in counts.most_common()]
    remedies = []
    for name in names[:limit]:
        one = check(name)
        remedies.append((name, one.metadata.title, sentence(sections(one).get("Remedy", "").split("\n\n")[0])))
    prove = _prove(excerpt.worst(), options) if worst is Classification.BROKEN else ""
    return Next(tuple(remedies), tuple(names[limit:]), prove)


def _prove(shown: list[Result], options: Options) -> str:
    """The command that proves the first finding of these that can be proved; those of one key go first."""
    found = [one for one in shown if one.worst is Classification.BROKEN and one.item.source != "-"]
    found.sort(key=lambda one: check(one.findings[0].check).shape == "fleet")
    if not found:
        return ""
    first = found[0]
    words = ["keyassay", "prove", first.item.source.split("!")[0]]
    one = check(first.findings[0].check)
    step = next((step.step for step in first.steps if step.outcome is Outcome.FOUND), "")
    whole = one.shape == "fleet" and options.budget > 0  # a search that profile deep did for all keys together
    if step or whole:
        words += ["--profile", "deep"]
        if options.budget not in (0.0, DEFAULT_BUDGET):
            words += ["--budget", amount(options.budget).replace(" ", "")]
    if whole:
        words += ["--check", one.id]  # so that the others are not examined for seconds each
    if one.shape == "fleet" or any(deep.uses_known_primes for deep in one.deep_steps if deep.name == step):
        words += [word for path in options.paths[:3] for word in ("--among", path)]
    return " ".join(shell_word(word) for word in words)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a profile or a budget left out.

    Attributes:
        by: which: "profile standard", "a budget of 5 s a key".
        by_profile: (the profile that runs them, or why they were left out; ids of checks).
        remark: a sentence on what else larger profiles do.
        command: the command that runs it all.
    """

    by: str
    by_profile: tuple[tuple[str, tuple[str, ...]], ...]
    remark: str
    command: str


def left_out(summary: Summary, options: Options) -> LeftOut | None:
    """What larger profiles or a larger budget would add; None if nothing, and where the user named the checks."""
    if not options.arguments:
        return None
    if summary.profile is Profile.DEEP:
        return _beyond_budget(summary.deep, options)
    by_profile: dict[Profile, list[str]] = {}
    for name in summary.left_out:
        needs = max(check(name).metadata.profile, Profile.FAST)
        by_profile.setdefault(needs if needs > summary.profile else Profile.STANDARD, []).append(name)
    larger = Profile.STANDARD if summary.profile < Profile.STANDARD else Profile.DEEP
    words = ["keyassay", "scan", "--profile", larger.label, *options.arguments]
    return LeftOut(
        f"profile {summary.profile.label}",
        tuple((f"from profile {profile.label}", tuple(names)) for profile, names in sorted(by_profile.items())),
        "Larger profiles also look further in some of the checks that ran.",
        " ".join(shell_word(word) for word in words),
    )


def _beyond_budget(deep: DeepSummary | None, options: Options) -> LeftOut | None:
    """What a larger budget a key would do, for the same keys."""
    if deep is None or not deep.out_of_budget:
        return None
    larger = next((one for one in (60, 600, 3_600, 36_000) if one > 2 * deep.budget), 10 * deep.budget)
    words = ["keyassay", "scan", "--profile", "deep", "--budget", amount(larger).replace(" ", ""), *options.arguments]
    return LeftOut(
        f"a budget of {amount(deep.budget)} a key",
        (),
        "Some deep steps did not come to their end; a larger budget goes further. With --against STORE a later run "
        "goes on where an earlier one stopped.",
        " ".join(shell_word(word) for word in words),
    )


def amount(seconds: float) -> str:
    """A duration as it would be asked for: "5 s", "10 m", "2 h"."""
    for size, unit in ((3_600, "h"), (60, "m")):
        if seconds > size and seconds % size == 0:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:g} s"


def deep_lines(deep: DeepSummary) -> list[str]:
    """The deep steps of a run: a line on the whole, one for each step that ran on a key, and how many did not."""
    keys = f"{deep.keys:,} different {'key' if deep.keys == 1 else 'keys'} not broken otherwise"
    if deep.examined < deep.keys:
        keys += f", {deep.examined:,} of them examined"
    together = f", {amount(deep.total_budget)} together" if deep.total_budget else ""
    lines = [
        f"{keys}; {deep.broken:,} broken; {deep.seconds:,.1f} s of CPU (budget {amount(deep.budget)} a key{together})"
    ]
    idle = waiting = 0
    for (name, step), count in deep.steps.items():
        shown = [
            f"{count.outcomes[one]:,} {one.value}" + (_how_far(count) if one is Outcome.PARTLY else "")
            for one in Outcome
            if count.outcomes[one] and one not in (Outcome.DOES_NOT_APPLY, Outcome.NOT_NEEDED)
        ]
        if not shown:
            idle += 1
        elif len(shown) == 1 and count.outcomes[Outcome.NOT_STARTED]:
            waiting += 1
        else:
            lines.append(f"{name}, {step}: {', '.join(shown)}")
    if waiting:
        lines.append(f"{waiting} {'step was' if waiting == 1 else 'steps were'} not started on any key")
    if idle and deep.keys:
        lines.append(f"{idle} {'step applies' if idle == 1 else 'steps apply'} to none of the keys")
    return lines


def _how_far(count: StepCount) -> str:
    """Where keys were left in the middle of a step: " (40 of 74 curves)", " (12 to 40 of 74 curves)"."""
    if count.least is None or count.most is None or not (count.least[1] or count.most[1]):
        return ""
    first, _, rest = count.least[1].partition(" of ")
    last, _, other = count.most[1].partition(" of ")
    if count.least[1] == count.most[1]:
        return f" ({count.most[1]})"
    return f" ({first} to {last} of {rest})" if rest == other else f" ({count.least[1]} to {count.most[1]})"


def verdict(summary: Summary, options: Options) -> tuple[int, str]:
    """How the run ends: the exit code, and a sentence that says why."""
    gate = options.gate
    code = gate.exit_code(summary)
    unreadable = f"{summary.unreadable:,} {'item' if summary.unreadable == 1 else 'items'} could not be read"
    if summary.interrupted:
        return code, "Interrupted: this is what was found until then."
    if not summary.items:
        return code, "There was nothing to read."
    limit = ""
    if gate.fail_on is not None:
        limit = f"of class {gate.fail_on.value}" + (" or worse" if gate.fail_on.rank else "")
    if gate.failing:
        also = f"; {unreadable}" if summary.unreadable else ""
        return code, f"{gate.failing:,} {'finding' if gate.failing == 1 else 'findings'} {limit}{also}."
    nothing = f"No finding {limit}" if limit else "No finding fails this run (--fail-on never)"
    nothing += " beside accepted ones" if gate.accepted else ""
    if summary.unreadable:
        return code, f"{nothing}, but {unreadable}."
    return code, f"{nothing}."


class Excerpt:
    """What a report for people shows of a run of any size, gathered in bounded memory.

    Args:
        gate: the run's gate; accepted findings count as the mildest.
        detailed: items with findings to keep.
        listed: unreadable items, items not assessed, and remarks to keep, each.
    """

    def __init__(self, gate: Gate, detailed: int = 200, listed: int = 20) -> None:
        self._gate = gate
        self._detailed = detailed
        self._listed = listed
        # By badness, each at most ``detailed`` long, in input order: worst first without sorting the whole run.
        self._buckets: dict[tuple[bool, int, int], list[Result]] = {}
        self.with_findings = 0
        self.unreadable: list[Item] = []
        self.not_assessed: list[Item] = []
        self.notices: list[tuple[Item, str]] = []
        self.notice_count = 0
        #: checks that failed on items: the first item of each kind of failure, and how many there are
        self.not_run: dict[NotRun, tuple[Item, int]] = {}
        self.not_run_count = 0
        #: findings that no baseline accepts, by check and class
        self.counting: Counter[tuple[str, Classification]] = Counter()

    def take(self, results: Iterable[Result]) -> Excerpt:
        """Look at the results once; a clean item costs next to nothing."""
        for result in results:
            item = result.item
            if result.findings:
                self._keep(result)
            if item.kind is Kind.UNREADABLE:
                if len(self.unreadable) < self._listed:
                    self.unreadable.append(item)
            elif not item.assessed and len(self.not_assessed) < self._listed:
                self.not_assessed.append(item)
            if item.notices:
                self.notice_count += 1
                if len(self.notices) < self._listed:
                    self.notices.append((item, "; ".join(item.notices)))
            for note in result.not_run:
                self.not_run_count += 1
                if note in self.not_run or len(self.not_run) < self._listed:
                    first, count = self.not_run.get(note, (item, 0))
                    self.not_run[note] = (first, count + 1)
        return self

    def _keep(self, result: Result) -> None:
        self.with_findings += 1
        counting = [one for one in result.findings if self._gate.acceptance(result.item, one) is None]
        self.counting.update((one.check, one.classification) for one in counting)
        worst = (counting or result.findings)[0]
        bucket = self._buckets.setdefault((not counting, worst.classification.rank, worst.severity.rank), [])
        if len(bucket) < self._detailed:
            bucket.append(result)

    def worst(self) -> list[Result]:
        """The items to show in detail, worst first, in input order where equally bad."""
        found: list[Result] = []
        for badness in sorted(self._buckets):
            found.extend(self._buckets[badness][: self._detailed - len(found)])
        return found

    def remaining(self, summary: Summary) -> Counter[str]:
        """Findings by check on the items that are not shown in detail."""
        shown = Counter(finding.check for result in self.worst() for finding in result.findings)
        return summary.by_check - shown
