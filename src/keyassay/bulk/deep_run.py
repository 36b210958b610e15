"""Profile deep over a run: every different key that nothing has broken gets its turn, in input order, within budgets.

Keys go to worker processes one by one, and come back in order. Factors that were found help with the keys that come
later, and in a last pass with those that came before.
"""

from __future__ import annotations

import signal
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import active_children, get_context
from types import FrameType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from keyassay.bulk.deep import EarlierSteps, examine_deeply, steps_of
from keyassay.bulk.fleet import Spool
from keyassay.bulk.journal import spent
from keyassay.bulk.results import DeepSummary, Outcome, Settings, StepCount, StepReport
from keyassay.certificates.fleet import NotRun
from keyassay.certificates.public_key import PublicKey, RsaPublicKey
from keyassay.checks import Check, Context
from keyassay.findings import Classification, Factor, Finding

#: a key sees the primes found on keys that many places before it: so results do not depend on the number of workers
_LAG = 64
#: known primes that a key is tried with, the latest ones: each costs milliseconds
_PRIMES = 1_024
#: factors of fewer bits say nothing about other keys
_PRIME_BITS = 128
#: the last pass may take this share of a key's budget, on top of it
_LAST_SHARE = 0.1
#: primes that the last pass finds are tried again, so many times
_LAST_PASSES = 3
#: seconds that steps get to notice that the run is being broken off
_GRACE = 5.0


class Notebook(Protocol):
    """Where a run reads and writes how far deep steps have come on each key: a ``Journal``, or a database.

    Attributes:
        damaged: notes that could not be read.
    """

    damaged: int

    def earlier(self, key: bytes) -> EarlierSteps:
        """What earlier runs have done on a key (the first 16 bytes of its digest), asked just before its turn."""

    def note(self, key: bytes, earlier: EarlierSteps, reports: Iterable[StepReport]) -> None:
        """Write down what this run has done on a key, when its turn is over.

        Raises:
            OSError: it cannot.
        """


@dataclass(frozen=True, slots=True)
class Turn:
    """One key's turn: what goes to a worker."""

    key: PublicKey
    budget: float
    known_primes: tuple[int, ...]
    earlier: EarlierSteps
    primes_only: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back."""

    findings: list[Finding]
    reports: list[StepReport]
    notes: frozenset[NotRun] = frozenset()


@dataclass(slots=True)
class Examined:
    """What deep steps say of all items of a run.

    Attributes:
        which: by ordinal of the item: number of its key among those examined, -1 where there is none.
        reports: by number of the key.
        findings: by number of the key.
    """

    which: NDArray[np.int32]
    reports: list[tuple[StepReport, ...]] = field(default_factory=list)
    findings: dict[int, Finding] = field(default_factory=dict)

    def of(self, ordinal: int) -> tuple[tuple[StepReport, ...], Finding | None]:
        """Reports and perhaps a finding for an item."""
        number = int(self.which[ordinal])
        if not 0 <= number < len(self.reports):
            return (), None
        return self.reports[number], self.findings.get(number)


class DeepRun:
    """The deep steps of a run.

    Args:
        checks: whose steps.
        context: as for checks.
        settings: budgets, jobs, limits.
        jobs: worker processes.
        journal: what earlier runs have done, and where this one writes it; or None.
        progress: told (phase, share).
        summary: filled in.

    Attributes:
        broken_off: the user has interrupted the run: keys that have not had their turn get none.
        notes: what could not be done.
    """

    def __init__(
        self,
        checks: Sequence[Check[Any]],
        context: Context,
        settings: Settings,
        jobs: int,
        journal: Notebook | None,
        progress: Callable[[str, float], None],
        summary: DeepSummary,
    ) -> None:
        self._checks = tuple(checks)
        self._context = replace(context, cache={}, notes=set())
        self._settings = settings
        self._jobs = jobs
        self._journal = journal
        self._progress = progress
        self._summary = summary
        self.broken_off = False
        self._types = tuple({kind for one in checks for kind in one.metadata.applies_to})
        steps = steps_of(checks)
        self._with_primes = {(step.check_id, step.name) for step in steps if step.uses_known_primes}
        summary.steps = {(step.check_id, step.name): StepCount(step.stage) for step in steps}
        self._alike: dict[StepReport, StepReport] = {}
        self.notes: list[NotRun] = []

    def examine(self, spool: Spool, found: dict[int, list[Finding]]) -> Examined:
        """Give every key its turn.

        Args:
            spool: the items with what checks found on them.
            found: by ordinal, what fleet checks found.
        """
        if self._journal is not None and self._journal.damaged:
            lines = f"{self._journal.damaged:,} damaged lines of deep-steps.log passed over"
            self.notes.append(NotRun("--against", f"{lines}: deep steps of these keys run again"))
        which, firsts, primes = self._choose(spool, found)
        examined = Examined(which)
        self._summary.keys = len(firsts)
        if not len(firsts):
            return examined
        known = _Primes(primes if self._settings.fleet else ())
        if not self.broken_off:
            try:
                with _Workers(self._checks, self._context, min(self._jobs, len(firsts))) as workers:
                    self._first_pass(workers, spool, firsts, known, examined)
                    if self._with_primes and self._settings.fleet and not workers.stopped:
                        self._last_passes(workers, spool, firsts, known, examined)
                    self.broken_off = workers.stopped
            except KeyboardInterrupt:
                self.broken_off = True
        missing = len(firsts) - len(examined.reports)
        if missing:
            steps = steps_of(self._checks)
            left_out = tuple(StepReport(one.check_id, one.name, Outcome.NOT_STARTED, "interrupted") for one in steps)
            for _, key in _keys(spool, firsts[len(examined.reports) :].tolist()):
                ids = {one.id for one in self._checks if isinstance(key, one.metadata.applies_to)}
                examined.reports.append(tuple(one for one in left_out if one.check in ids))
        self._count(examined)
        return examined

    def _choose(
        self, spool: Spool, found: dict[int, list[Finding]]
    ) -> tuple[NDArray[np.int32], NDArray[np.intp], list[int]]:
        """Number of the key by ordinal, ordinals of the first item of each key, and primes that are known."""
        digests: list[NDArray[np.bytes_]] = []
        broken: set[bytes] = set()
        primes: list[int] = []
        ordinal = 0
        for results in _blocks(spool):
            block = np.zeros(len(results), dtype="S16")
            for position, result in enumerate(results):
                item = result.item
                key = item.key
                findings = [*result.findings, *found.get(ordinal + position, ())]
                if key is None or item.spki_sha256 is None:
                    continue
                if findings:
                    primes += [prime for one in findings for prime in _factors_of(key, one)]
                if isinstance(key, self._types) and not self._settings.limits.exceeded_by(key):
                    block[position] = item.spki_sha256[:16]
                    if any(one.classification is Classification.BROKEN for one in findings):
                        broken.add(item.spki_sha256[:16])
            digests.append(block)
            ordinal += len(results)
        if not digests:
            return np.zeros(0, np.int32), np.zeros(0, np.intp), primes
        values, firsts, inverse = np.unique(np.concatenate(digests), return_index=True, return_inverse=True)
        # numpy takes trailing zero bytes off, on both sides alike
        wanted = ~np.isin(values, np.array([b"", *broken], dtype="S16"))
        order = np.flatnonzero(wanted)[np.argsort(firsts[wanted], kind="stable")]
        numbers = np.full(len(values), -1, dtype=np.int32)
        numbers[order] = np.arange(len(order))
        return numbers[inverse], firsts[order], primes

    # The passes

    def _first_pass(
        self, workers: _Workers, spool: Spool, firsts: NDArray[np.intp], known: _Primes, examined: Examined
    ) -> None:
        begun = time.monotonic()
        settings = self._settings
        reserved = 0.0
        promised: deque[tuple[bytes, EarlierSteps, float, PublicKey]] = deque()

        def turns() -> Iterator[Turn]:
            nonlocal reserved
            for number, (digest, key) in enumerate(_keys(spool, firsts.tolist())):
                earlier = self._journal.earlier(digest) if self._journal else {}
                before = spent(earlier)
                share = settings.budget
                if settings.total_budget:
                    rest = max(settings.total_budget - self._summary.seconds - reserved, 0.0)
                    share = min(share, rest / (len(firsts) - number))
                reserved += share
                promised.append((digest, earlier, share, key))
                yield Turn(key, min(settings.budget, before + share), known.before(number), earlier)

        for number, answer in enumerate(workers.map(turns())):
            digest, earlier, share, key = promised.popleft()
            reserved -= share
            self._take(examined, number, key, answer, known)
            if self._journal is not None:
                try:
                    own = [one for one in answer.reports if (one.check, one.step) not in self._with_primes]
                    self._journal.note(digest, earlier, own)
                except OSError as error:
                    self.notes.append(NotRun("--against", f"deep steps are no longer stored: {error.strerror}"))
                    self._journal = None
            self._tell(number + 1, len(firsts), time.monotonic() - begun)

    def _last_passes(
        self, workers: _Workers, spool: Spool, firsts: NDArray[np.intp], known: _Primes, examined: Examined
    ) -> None:
        """Try the primes that a key has not seen, on all keys that are not broken."""
        seen = [known.seen(number) for number in range(len(firsts))]
        for _ in range(_LAST_PASSES):
            total = len(known)
            numbers = [
                number for number in range(len(firsts)) if number not in examined.findings and seen[number] < total
            ]
            if not numbers or self._spent_all() or workers.stopped:
                return
            under_way: deque[tuple[int, PublicKey]] = deque()
            self._progress("deep: factors found last, on all keys", 0.0)
            for answer in workers.map(self._again(spool, firsts, numbers, seen, known, under_way)):
                self._take(examined, *under_way.popleft(), answer, known, again=True)
            for number in numbers:
                seen[number] = total

    def _again(
        self,
        spool: Spool,
        firsts: NDArray[np.intp],
        numbers: Sequence[int],
        seen: Sequence[int],
        known: _Primes,
        under_way: deque[tuple[int, PublicKey]],
    ) -> Iterator[Turn]:
        # what the pass itself finds is for the next one
        news = {count: known.after(count) for count in {seen[number] for number in numbers}}
        for number, (_, key) in zip(numbers, _keys(spool, firsts[numbers].tolist()), strict=True):
            under_way.append((number, key))
            yield Turn(key, self._settings.budget * _LAST_SHARE, news[seen[number]], {}, primes_only=True)

    def _spent_all(self) -> bool:
        return 0 < self._settings.total_budget <= self._summary.seconds

    def _take(
        self, examined: Examined, number: int, key: PublicKey, answer: Answer, known: _Primes, *, again: bool = False
    ) -> None:
        self._summary.seconds += sum(one.seconds for one in answer.reports)
        for note in sorted(answer.notes, key=str):
            if note not in self.notes:
                self.notes.append(note)
        reports = tuple(self._shared(one) for one in answer.reports)
        if again:
            examined.reports[number] = _merged(examined.reports[number], reports)
        else:
            examined.reports.append(reports)
        for finding in answer.findings:
            examined.findings[number] = finding
            known.add(number, _factors_of(key, finding))

    def _shared(self, report: StepReport) -> StepReport:
        """Most reports of steps that did not run are alike: keep one object for all of them."""
        if report.seconds:
            return report
        if len(self._alike) > 10_000:
            self._alike.clear()
        return self._alike.setdefault(report, report)

    def _tell(self, done: int, count: int, seconds: float) -> None:
        left = seconds / done * (count - done)
        when = f", {duration(left)} left" if done < count and seconds > 2 else ""
        self._progress(f"deep: {done:,} of {count:,} keys{when}", done / count)

    def _count(self, examined: Examined) -> None:
        summary = self._summary
        summary.broken = len(examined.findings)
        for reports in examined.reports:
            for report in reports:
                summary.steps[report.check, report.step].add(report)
            summary.examined += not any(
                one.outcome is Outcome.NOT_STARTED and one.detail == "interrupted" for one in reports
            )


def duration(seconds: float) -> str:
    """A time for people: 40 s, 12 min, 3 h, 5 days."""
    for limit, size, unit in ((100, 1, "s"), (5_400, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{max(round(seconds / size), 1)} {unit}"
    return f"{round(seconds / 86_400):,} days"


def _merged(first: tuple[StepReport, ...], more: tuple[StepReport, ...]) -> tuple[StepReport, ...]:
    """Reports of the first pass with those of a later one: what was found counts, else both together."""
    news = {(one.check, one.step): one for one in more}

    def joined(old: StepReport) -> StepReport:
        new = news.get((old.check, old.step))
        if new is None or new.outcome in (Outcome.DOES_NOT_APPLY, Outcome.NOT_NEEDED):
            return old
        detail = f"{old.detail}, then {new.detail}" if old.seconds and old.detail else new.detail
        outcome = old.outcome if new.outcome is Outcome.DONE and old.outcome is Outcome.PARTLY else new.outcome
        return StepReport(old.check, old.step, outcome, detail, old.seconds + new.seconds, old.units + new.units)

    return tuple(joined(one) for one in first)


# Keys and primes of the run


def _blocks(spool: Spool) -> Iterator[list[Any]]:
    return (spool.block(number) for number in range(len(spool)))


def _keys(spool: Spool, ordinals: Sequence[int]) -> Iterator[tuple[bytes, PublicKey]]:
    """Digest (16 bytes) and key of items; ordinals rise."""
    start = 0
    rest = iter(ordinals)
    wanted = next(rest, None)
    for results in _blocks(spool):
        while wanted is not None and wanted < start + len(results):
            item = results[wanted - start].item
            assert item.key is not None
            assert item.spki_sha256 is not None
            yield item.spki_sha256[:16], item.key
            wanted = next(rest, None)
        if wanted is None:
            return
        start += len(results)


def _factors_of(key: PublicKey, finding: Finding) -> list[int]:
    """Both factors of a key, if a finding has them and neither is small."""
    p = finding.evidence.secrets().get("factor")  # of Factor, and of primes shared with other keys
    if not isinstance(p, int) or not isinstance(key, RsaPublicKey) or not Factor(p).proves(key):
        return []
    both = [p, key.modulus // p]
    return both if min(both).bit_length() >= max(_PRIME_BITS, key.bits // 4) else []


class _Primes:
    """Primes of other keys, in the order in which they became known."""

    def __init__(self, first: Iterable[int]) -> None:
        self._all = list(dict.fromkeys(first))
        self._there = set(self._all)
        #: number of the key that gave it, -1 before the first key; rises during the first pass
        self._from = [-1] * len(self._all)
        self._first = len(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def add(self, number: int, primes: Iterable[int]) -> None:
        for prime in primes:
            if prime not in self._there:
                self._there.add(prime)
                self._all.append(prime)
                self._from.append(number)

    def seen(self, number: int) -> int:
        """How many of them a key is tried with in the first pass."""
        return bisect_right(self._from, number - _LAG) if number >= _LAG else self._first

    def before(self, number: int) -> tuple[int, ...]:
        return tuple(self._all[: self.seen(number)][-_PRIMES:])

    def after(self, seen: int) -> tuple[int, ...]:
        return tuple(self._all[seen:][-_PRIMES:])


# Workers

_checks: tuple[Check[Any], ...] = ()
_context: Context | None = None
_stop: Any = None


def _start(checks: tuple[Check[Any], ...], context: Context, stop: Any) -> None:
    global _checks, _context, _stop  # a worker process has one run for its life
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means
    _checks, _context, _stop = checks, context, stop


def _work(turn: Turn) -> Answer:
    assert _context is not None
    return _answer(turn, _checks, _context, _stop.is_set)


def _answer(turn: Turn, checks: tuple[Check[Any], ...], context: Context, stop: Callable[[], bool]) -> Answer:
    findings, reports = examine_deeply(
        turn.key,
        checks,
        context,
        turn.budget,
        turn.known_primes,
        earlier=turn.earlier,
        stop=stop,
        primes_only=turn.primes_only,
    )
    return Answer(findings, reports, frozenset(context.notes))


class _Workers:
    """Worker processes, or this one if one is enough.

    While they are in use an interruption (Ctrl-C) only asks them to stop: the keys under way say how far they came. A
    second one is raised as usual.
    """

    def __init__(self, checks: tuple[Check[Any], ...], context: Context, count: int) -> None:
        self._checks = checks
        self._given = context
        self._count = count
        self._before = {process.pid for process in active_children()}
        self._pool: ProcessPoolExecutor | None = None
        self._mp = get_context("forkserver")
        self._stopping: Any = None
        self._previous: Any = None
        self._patience = 0.0
        self.stopped = False

    def __enter__(self) -> Self:
        if self._count > 1:
            self._mp.set_forkserver_preload(["keyassay.bulk.scan"])
            self._stopping = self._mp.Event()
            self._pool = self._opened(self._count)
        if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT)):
            self._previous = signal.signal(signal.SIGINT, self._interrupted)
        return self

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if self.stopped:
            self._previous(number, frame)
            return
        self.stopped = True
        self._patience = time.monotonic() + _GRACE
        if self._stopping is not None:
            self._stopping.set()

    def _opened(self, count: int) -> ProcessPoolExecutor:
        arguments = (self._checks, self._given, self._stopping)
        return ProcessPoolExecutor(count, self._mp, _start, arguments)

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        if self._pool is not None:
            self._stopping.set()
            self._pool.shutdown(wait=False, cancel_futures=True)
            deadline = time.monotonic() + _GRACE
            for process in active_children():
                if process.pid not in self._before:
                    process.join(max(deadline - time.monotonic(), 0))
                    if process.is_alive():
                        process.kill()

    def map(self, turns: Iterator[Turn]) -> Iterator[Answer]:
        """Answers in order, a bounded number of turns under way; after an interruption those under way are the last.

        Raises:
            KeyboardInterrupt: the second one, or a step that does not stop.
        """
        if self._pool is None:
            for turn in turns:
                yield _answer(turn, self._checks, self._given, lambda: self.stopped)
                if self.stopped:
                    return
            return
        waiting: deque[tuple[Turn, Future[Answer]]] = deque()
        for turn in turns:
            waiting.append((turn, self._submit(turn)))
            while len(waiting) > (0 if self.stopped else min(2 * self._count, _LAG - 1)):
                yield self._result(waiting)
            if self.stopped:
                return
        while waiting:
            yield self._result(waiting)

    def _submit(self, turn: Turn) -> Future[Answer]:
        assert self._pool is not None
        try:
            return self._pool.submit(_work, turn)
        except BrokenProcessPool as error:
            failed: Future[Answer] = Future()
            failed.set_exception(error)
            return failed

    def _result(self, waiting: deque[tuple[Turn, Future[Answer]]]) -> Answer:
        """The next answer; if a worker has died, the keys under way run again, each in a process of its own."""
        turn, future = waiting.popleft()
        try:
            return self._wait(future)
        except BrokenProcessPool:
            assert self._pool is not None
            self._pool.shutdown(wait=False, cancel_futures=True)
        answer = self._alone(turn)
        self._pool = self._opened(self._count)
        again = [(one, done if _sound(done) else self._submit(one)) for one, done in waiting]
        waiting.clear()
        waiting.extend(again)
        return answer

    def _wait(self, future: Future[Answer]) -> Answer:
        while True:
            try:
                return future.result(0.5)
            except TimeoutError:
                if self.stopped and time.monotonic() > self._patience:
                    raise KeyboardInterrupt from None

    def _alone(self, turn: Turn) -> Answer:
        pool = self._opened(1)
        try:
            return self._wait(pool.submit(_work, turn))
        except BrokenProcessPool:
            why = "internal error: the process died, perhaps of a lack of memory"
            steps = steps_of(one for one in self._checks if isinstance(turn.key, one.metadata.applies_to))
            return Answer([], [StepReport(one.check_id, one.name, Outcome.FAILED, why) for one in steps])
        finally:
            pool.shutdown(wait=False)


def _sound(future: Future[Answer]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
