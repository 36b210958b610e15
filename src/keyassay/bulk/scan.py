"""The engine: read, decode, screen, examine, prove, compare, in input order and bounded memory.

``Scan`` is the run; ``assess_items`` is what happens to one block of items, here or in a worker process. Nothing a
certificate holds ends a run: a check that fails on a key is a remark on that key.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from multiprocessing import get_context
from typing import Any, BinaryIO

from keyassay.bulk.deep_run import DeepRun, Examined
from keyassay.bulk.fleet import FleetColumns, RunFleet, Spool, columns_of
from keyassay.bulk.journal import Journal
from keyassay.bulk.results import DeepSummary, Result, Settings, StepReport, Summary, key_name
from keyassay.bulk.store import Store
from keyassay.bulk.walking import CHECK as WALKED
from keyassay.bulk.walking import Walking
from keyassay.certificates.batches import group_keys
from keyassay.certificates.decoding import decode
from keyassay.certificates.fleet import NotRun
from keyassay.certificates.item import Item, Kind, RawItem
from keyassay.certificates.public_key import PublicKey
from keyassay.certificates.reading import ReadOptions, read, read_encodings, total_bytes
from keyassay.checks import Check, Context, FleetPart, catalogue, catalogue_digest, check
from keyassay.findings import EvidenceRefusedError, Finding, Profile, Verdict

#: (phase, share done 0..1 or None if unknown, items so far)
Progress = Callable[[str, float | None, int], None]

#: input larger than this is worth starting worker processes for, if the user leaves their number to us
PARALLEL_BYTES = 64 << 20
#: bytes of an average certificate in PEM, to guess how many keys are coming
TYPICAL_ITEM = 1_200


@dataclass(frozen=True)
class Plan:
    """Which checks a run does, and what they are told. Pickles small: checks travel as their ids."""

    settings: Settings
    key_checks: tuple[Check[Any], ...]
    certificate_checks: tuple[Check[Any], ...]
    fleet_checks: tuple[Check[Any], ...]
    now: int
    expected: int

    @classmethod
    def of(cls, settings: Settings, expected: int) -> Plan:
        """Select the checks.

        Raises:
            KeyassayError: ``only`` or ``skip`` names a check that does not exist.
        """
        for name in (*settings.only, *settings.skip):
            check(name)
        chosen = [
            one
            for one in catalogue()
            if one.id not in settings.skip
            and (one.id in settings.only if settings.only else one.runs_in(settings.profile))
        ]
        by_shape = {
            shape: tuple(one for one in chosen if one.shape == shape) for shape in ("key", "certificate", "fleet")
        }
        return cls(
            settings,
            by_shape["key"],
            by_shape["certificate"],
            tuple(sorted(by_shape["fleet"], key=lambda one: bool(one.metadata.after))) if settings.fleet else (),
            settings.now or int(time.time()),
            expected,
        )

    @property
    def checks(self) -> tuple[Check[Any], ...]:
        """All of them."""
        return (*self.key_checks, *self.certificate_checks, *self.fleet_checks)

    @property
    def deep_checks(self) -> tuple[Check[Any], ...]:
        """Those whose deep steps run: in profile deep, and where the user named a check of profile deep."""
        return tuple(
            one
            for one in self.key_checks
            if one.deep_steps and self.context_for(one, alone=True).profile >= Profile.DEEP
        )

    @property
    def noted_checks(self) -> tuple[Check[Any], ...]:
        """Those that may note how far they came for a later run."""
        deep = (one for one in self.fleet_checks if self.context_for(one).profile >= Profile.DEEP)
        return (*self.deep_checks, *deep)

    @property
    def waits(self) -> bool:
        """Whether results wait for the last input."""
        return bool(self.fleet_checks or self.settings.against or self.deep_checks or self.walks)

    @property
    def walks(self) -> bool:
        """Whether Debian keys of sizes without a list are walked for."""
        return self.settings.walk > 0 and any(one.id == WALKED for one in self.key_checks)

    @cached_property
    def context(self) -> Context:
        """What checks are told; one per process."""
        return Context(
            profile=self.settings.profile,
            now=self.now,
            key_count=self.expected,
            walk_follows=self.walks,
            budget=self.settings.budget,
            total_budget=self.settings.total_budget or float("inf"),
        )

    def context_for(self, one: Check[Any], *, alone: bool = False) -> Context:
        """The context, at least in the check's own profile if the user named the check.

        With ``alone`` the check does all of its work itself, whatever fleet checks follow.
        """
        context = self.context
        if self.settings.only and one.metadata.profile > self.settings.profile:
            context = replace(context, profile=one.metadata.profile)
        if not alone and one.id in self.fleet_parts:
            context = replace(context, fleet_follows=True)
        return context

    @cached_property
    def fleet_parts(self) -> dict[str, FleetPart]:
        """The checks of keys that get their verdicts from a fleet check of the plan, and how."""
        leaders = {one.id for one in self.fleet_checks}
        return {one.id: part for one in self.key_checks for leader, part in one.fleet_parts if leader in leaders}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("context", "fleet_parts")}


@dataclass(slots=True)
class Tally:
    """Counts of a block, for the summary."""

    kinds: Counter[Kind]
    keys: Counter[str]
    not_assessed: int


@dataclass(slots=True)
class Block:
    """One block after assessment, as it comes back from a worker."""

    results: list[Result]
    tally: Tally
    columns: FleetColumns | None
    notes: set[NotRun]


def assess_items(items: Sequence[Item], plan: Plan) -> list[Result]:
    """Run the plan's key and certificate checks over items.

    Returns:
        One result per item, in order, findings unsorted and not yet reduced by ``settle``.
    """
    found: dict[int, list[Finding]] = {}
    failed: dict[int, list[NotRun]] = {}

    def record(one: Check[Any], subject: PublicKey | Item, position: int, verdict: Any) -> None:
        try:
            found.setdefault(position, []).append(one.finding(subject, verdict))
        except EvidenceRefusedError as refused:
            failed.setdefault(position, []).append(NotRun(one.id, f"internal error, no finding: {refused}"))

    limits = plan.settings.limits
    all_keys = [item.key for item in items]
    large = [limits.exceeded_by(key) for key in all_keys]
    groups: list[tuple[bool, list[PublicKey | None]]] = [(False, all_keys)]
    if any(large):
        groups = [
            (False, [None if over else key for key, over in zip(all_keys, large, strict=True)]),
            (True, [key if over else None for key, over in zip(all_keys, large, strict=True)]),
        ]
    for oversized, keys in groups:
        for batch, positions in group_keys(keys):
            for one in plan.key_checks:
                if not isinstance(batch.keys[0], one.metadata.applies_to) or (oversized and not one.metadata.any_size):
                    continue
                context = plan.context_for(one)
                for row, verdict, error in _guarded(one, batch, context):
                    position = int(positions[row])
                    if verdict is None:
                        failed.setdefault(position, []).append(NotRun(one.id, error))
                    else:
                        record(one, batch.key(row), position, verdict)
    for one in plan.certificate_checks:
        for row, verdict, error in _guarded(one, items, plan.context_for(one)):
            if verdict is None:
                failed.setdefault(row, []).append(NotRun(one.id, error))
            else:
                record(one, items[row], row, verdict)
    results = [Result(item) for item in items]
    for position in {*found, *failed}:
        remarks = failed.get(position, ())
        results[position] = Result(items[position], tuple(found.get(position, ())), tuple(remarks))
    return results


def _guarded(one: Check[Any], subject: Any, context: Context) -> Iterator[tuple[int, Any, str]]:
    """Rows and verdicts; a check that raises is run again row by row, and the rows that raise get a remark."""
    try:
        verdicts = list(one.find(subject, context))
    except Exception:  # noqa: BLE001  whatever a hostile key makes a check raise must not end the run
        verdicts = None
    if verdicts is not None:
        for row, verdict in verdicts:
            yield int(row), verdict, ""
        return
    for row in range(len(subject)):
        single = subject[row : row + 1] if isinstance(subject, Sequence) else type(subject)(subject.keys[row : row + 1])
        try:
            verdicts = list(one.find(single, context))
        except Exception as error:  # noqa: BLE001  as above
            yield row, None, f"internal error: {type(error).__name__}: {error}"
            continue
        for _, verdict in verdicts:
            yield row, verdict, ""


def settle(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Worst first, without those that another finding on the same item explains."""
    kept = list(findings)
    if len(kept) > 1:
        present = {finding.check for finding in kept}
        kept = [
            finding
            for finding in kept
            if not present.intersection(set(check(finding.check).metadata.explained_by) - {finding.check})
        ]
        kept.sort(key=lambda finding: finding.rank)
    return tuple(kept)


def assess_block(raw: Sequence[RawItem], plan: Plan) -> Block:
    """Decode and assess a block: the unit of work of a worker process."""
    items = decode(raw, plan.settings.limits)
    results = assess_items(items, plan)
    # the hash of an enumeration's member is a call: nearly all items are certificates
    others = [item.kind for item in items if item.kind is not Kind.CERTIFICATE]
    kinds: Counter[Kind] = Counter(others)
    if len(others) < len(items):
        kinds[Kind.CERTIFICATE] = len(items) - len(others)
    keys = Counter([key_name(item) for item in items if item.assessed])
    not_assessed = len(items) - keys.total() - kinds[Kind.UNREADABLE]
    keys.pop("", None)
    columns = columns_of(items, plan.settings.limits) if plan.waits else None
    notes = set(plan.context.notes)
    return Block(results, Tally(kinds, keys, not_assessed), columns, notes)


def rare_collection() -> None:
    """For a process that does nothing but scan: items hold no cycles, so look for cycles only now and then.

    Otherwise a sixth of the time of a scan goes into looking through items that are all still in use.
    """
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


_worker_plan: Plan | None = None


def _start_worker(plan: Plan) -> None:
    global _worker_plan  # noqa: PLW0603  a worker process has one plan for its life
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means
    rare_collection()
    _worker_plan = plan


def _work(raw: Sequence[RawItem]) -> Block:
    assert _worker_plan is not None
    return assess_block(raw, _worker_plan)


class Scan:
    """One run over sources; iterate it once, then read ``summary``.

    Args:
        sources: files, folders, archives, ``-``, ``tls://host[:port]``, ``ssh://host[:port]``.
        settings: what to do.
        progress: called now and then with (phase, share done or None, items so far).
        standard_input: what ``-`` reads.
        encodings: read these instead of sources; they are called "0", "1", "2", ...

    Raises:
        KeyassayError: unknown check ids, an unusable store; at once.
    """

    def __init__(
        self,
        sources: Iterable[str],
        settings: Settings,
        progress: Progress | None = None,
        standard_input: BinaryIO | None = None,
        encodings: Iterable[bytes] | None = None,
    ) -> None:
        self._sources = list(sources)
        self._encodings = encodings
        self._settings = settings
        self._progress = progress or (lambda _phase, _share, _items: None)
        self._standard_input = standard_input
        self._total = total_bytes(self._sources)
        self._done = 0
        self.plan = Plan.of(settings, self._total // TYPICAL_ITEM)
        self.summary = Summary(
            profile=settings.profile,
            catalogue=catalogue_digest(self.plan.checks),
            checks=tuple((one.id, one.metadata.version) for one in self.plan.checks),
            left_out=_left_out(settings),
        )
        self._store = Store(settings.against) if settings.against else None
        self._journal: Journal | None = None
        if self._store is not None:
            self.summary.stored = self._store.keys
            if self.plan.noted_checks:
                try:
                    self._journal = self._store.journal(self.plan.noted_checks)
                except BaseException:
                    self._store.close()
                    raise

    def __iter__(self) -> Iterator[Result]:
        """Results in input order; with fleet checks or deep steps the first comes after the last input is read."""
        started = time.monotonic()
        try:
            if self.plan.waits:
                yield from self._with_fleet()
            else:
                for block in self._blocks():
                    for result in block.results:
                        yield self._finish(result, ()) if result.findings else result
        finally:
            if self._journal is not None:
                self._journal.close()
            if self._store is not None:
                self._store.close()
            self.summary.seconds = time.monotonic() - started

    # Reading and assessing, here or in workers

    def _raw_blocks(self) -> Iterator[list[RawItem]]:
        options = ReadOptions(
            limits=self._settings.limits,
            passwords=self._settings.passwords,
            timeout=self._settings.timeout,
            progress=self._advance,
            passed_over=self._pass_over,
        )
        if self._encodings is not None:
            return read_encodings(self._encodings, options)
        return read(self._sources, options, self._standard_input)

    def _advance(self, count: int) -> None:
        self._done += count

    def _pass_over(self, _path: str) -> None:
        self.summary.passed_over += 1

    def _blocks(self) -> Iterator[Block]:
        blocks = self._parallel() if self._jobs > 1 else (assess_block(raw, self.plan) for raw in self._raw_blocks())
        try:
            for block in blocks:
                self._count(block)
                self._progress("reading", self._done / self._total if self._total else None, self.summary.items)
                yield block
        except KeyboardInterrupt:
            self.summary.interrupted = True

    @property
    def _jobs(self) -> int:
        if self._settings.jobs:
            return self._settings.jobs
        return min(os.cpu_count() or 1, 32) if self._total > PARALLEL_BYTES else 1

    def _parallel(self) -> Iterator[Block]:
        """Assess blocks in worker processes, a bounded number under way, results in order."""
        context = get_context("forkserver")
        context.set_forkserver_preload(["keyassay.bulk.scan"])
        waiting: deque[Future[Block]] = deque()
        with ProcessPoolExecutor(self._jobs, context, _start_worker, (self.plan,)) as pool:
            try:
                for raw in self._raw_blocks():
                    waiting.append(pool.submit(_work, raw))
                    while len(waiting) > 2 * self._jobs:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _count(self, block: Block) -> None:
        summary, tally = self.summary, block.tally
        unreadable = tally.kinds[Kind.UNREADABLE]
        summary.kinds.update(tally.kinds)
        summary.keys.update(tally.keys)
        summary.unreadable += unreadable
        summary.read += tally.kinds.total() - unreadable
        summary.not_assessed += tally.not_assessed
        summary.assessed = summary.read - summary.not_assessed
        for note in sorted(block.notes, key=lambda one: (one.check, one.reason)):
            if note not in summary.not_run:
                summary.not_run.append(note)

    def _finish(
        self,
        result: Result,
        fleet_findings: Iterable[Finding],
        steps: tuple[StepReport, ...] = (),
        deep: Finding | None = None,
    ) -> Result:
        found = chain(result.findings, fleet_findings)
        if deep is not None:  # it says more than what the same check found before
            found = chain((one for one in found if one.check != deep.check), (deep,))
        findings = settle(found)
        if findings:
            summary = self.summary
            summary.worst[findings[0].classification] += 1
            for finding in findings:
                summary.by_check[finding.check] += 1
                summary.confidence[finding.confidence] += 1
        if findings == result.findings and not steps:
            return result
        return replace(result, findings=findings, steps=steps)

    # The whole run

    def _with_fleet(self) -> Iterator[Result]:
        fleet = RunFleet(
            self._settings.memory or _half_of_memory(),
            threads=self._settings.jobs or os.cpu_count() or 1,
            progress=lambda phase, share: self._progress(phase, share, self.summary.items),
            spool=Spool(),
            earlier=self._store,
            journal=self._journal,
        )
        try:
            for block in self._blocks():
                assert block.columns is not None
                fleet.add(block.columns, block.results)
            found = self._fleet_findings(fleet)
            if self.plan.walks:
                self._walk(fleet.spool, found)
            deep = self._deep_steps(fleet.spool, found)
            draft = None
            if self._store is not None:
                if fleet.overflow:
                    self.summary.not_run.append(NotRun("--against", "nothing was stored: raise --memory"))
                elif not self.summary.interrupted:
                    draft = self._store.draft(fleet)
            for number in range(len(fleet.spool)):
                start = fleet.start_of(number)
                for position, result in enumerate(fleet.spool.block(number)):
                    if draft is not None:
                        draft.take(start + position, result.item)
                    steps, finding = deep.of(start + position) if deep else ((), None)
                    yield self._finish(result, found.get(start + position, ()), steps, finding)
            if draft is not None and not self.summary.interrupted:
                try:
                    draft.commit()
                except OSError as error:  # the report must not be lost for it
                    self.summary.not_run.append(NotRun("--against", f"nothing was stored: {error.strerror}"))
        finally:
            fleet.spool.close()

    def _walk(self, spool: Spool, found: dict[int, list[Finding]]) -> None:
        """Debian keys of sizes that have no list."""
        walking = Walking(
            self._settings.walk,
            self._settings.jobs or os.cpu_count() or 1,
            lambda phase, share: self._progress(phase, share, self.summary.items),
        )
        if not self.summary.interrupted:
            walking.find(spool, found, self._settings.limits)
        self.summary.interrupted |= walking.interrupted
        self.summary.not_run.extend(walking.notes)
        self.summary.lists = (*self.summary.lists, *walking.remarks)

    def _deep_steps(self, spool: Spool, found: dict[int, list[Finding]]) -> Examined | None:
        """What costs seconds a key, on the keys that nothing has broken yet."""
        settings, checks = self._settings, self.plan.deep_checks
        if not checks:
            return None
        self.summary.deep = DeepSummary(settings.budget, settings.total_budget)
        run = DeepRun(
            checks,
            self.plan.context_for(checks[0], alone=True),
            settings,
            settings.jobs or min(os.cpu_count() or 1, 32),
            self._journal,
            lambda phase, share: self._progress(phase, share, self.summary.items),
            self.summary.deep,
        )
        run.broken_off = self.summary.interrupted
        examined = run.examine(spool, found)
        self.summary.interrupted |= run.broken_off
        self.summary.not_run.extend(note for note in run.notes if note not in self.summary.not_run)
        return examined

    def _fleet_findings(self, fleet: RunFleet) -> dict[int, list[Finding]]:
        found: dict[int, list[Finding]] = {}
        for one in self.plan.fleet_checks:
            if fleet.overflow:
                size = f"{len(fleet):,} items, needs more than {fleet.bytes_needed / 1e9:.1f} GB"
                fleet.not_run(one.id, f"not run: {size}; raise --memory")
            else:
                self._fleet_check(fleet, one, partial(one.find, fleet), found)
        for one in self.plan.key_checks:
            if one.id in self.plan.fleet_parts:
                self._fleet_check(fleet, one, partial(self._part, fleet, one), found)
        self.summary.not_run.extend(note for note in fleet.notes if note not in self.summary.not_run)
        self.summary.not_run.extend(
            note for note in sorted(self.plan.context.notes, key=str) if note not in self.summary.not_run
        )
        return found

    def _fleet_check(
        self,
        fleet: RunFleet,
        one: Check[Any],
        find: Callable[[Context], Iterable[tuple[int, Verdict]]],
        found: dict[int, list[Finding]],
    ) -> None:
        """Findings of one check that had to wait for the whole run, added to those there are."""
        if self.summary.interrupted:
            fleet.not_run(one.id, "interrupted")
            return
        self._progress(one.id, 0.0, self.summary.items)
        try:
            verdicts = sorted(find(self.plan.context_for(one)), key=lambda pair: pair[0])
        except KeyboardInterrupt:
            self.summary.interrupted = True
            fleet.not_run(one.id, "interrupted")
            return
        except Exception as error:  # noqa: BLE001  one failing check must not lose the others' findings
            fleet.not_run(one.id, f"internal error: {type(error).__name__}: {error}")
            return
        items = fleet.items(ordinal for ordinal, _ in verdicts)
        for (ordinal, verdict), item in zip(verdicts, items, strict=True):
            subject: PublicKey | Item = item.key if item.key is not None else item
            try:
                finding = one.finding(subject, verdict)
                found.setdefault(ordinal, []).append(finding)
                fleet.learn(ordinal, (finding,))
            except EvidenceRefusedError as refused:
                fleet.not_run(one.id, f"internal error, no finding: {refused}")

    def _part(self, fleet: RunFleet, one: Check[Any], context: Context) -> Iterable[tuple[int, Verdict]]:
        """A check of keys whose work a fleet check does by the way; on the keys themselves if it could not."""
        verdicts = None if fleet.overflow else self.plan.fleet_parts[one.id](fleet, context)
        if verdicts is not None:
            return verdicts
        return self._afterwards(fleet, one, self.plan.context_for(one, alone=True))

    def _afterwards(self, fleet: RunFleet, one: Check[Any], context: Context) -> Iterator[tuple[int, Verdict]]:
        for number in range(len(fleet.spool)):
            start = fleet.start_of(number)
            keys = [result.item.key for result in fleet.spool.block(number)]
            usable = [None if self._settings.limits.exceeded_by(key) else key for key in keys]
            for batch, positions in group_keys(usable):
                if isinstance(batch.keys[0], one.metadata.applies_to):
                    for row, verdict, error in _guarded(one, batch, context):
                        if verdict is None:
                            fleet.not_run(one.id, error)
                        else:
                            yield start + int(positions[row]), verdict


def _left_out(settings: Settings) -> tuple[str, ...]:
    """Checks that a larger profile would have added."""
    if settings.only:
        return ()
    return tuple(one.id for one in catalogue() if not one.runs_in(settings.profile) and one.id not in settings.skip)


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
