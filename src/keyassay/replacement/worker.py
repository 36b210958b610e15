"""Moves replacements on: plans and begins their units, sees new connections, retires old certificates, rolls back.

One worker has a replacement at a time, by a lease that it keeps while it lives. Each transaction is a checkpoint of a
few units; what it does it decides by what it reads in it, so that a worker may die between any two of them.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy import Select, exists, func, select

from keyassay.audit.screening import Screen
from keyassay.registry import alerts, device_messages
from keyassay.registry.lifecycle import Status as CertificateStatus
from keyassay.registry.registry import Registry
from keyassay.replacement import automatic, campaigns, proofs, proving, retiring, returning, units, watching
from keyassay.replacement.campaigns import Settings
from keyassay.replacement.states import BEYOND_RETURN, OPEN_STATUSES, State, Status
from keyassay.replacement.units import Move, Unit
from keyassay.storage import leases, schema
from keyassay.storage.database import Actor, Transaction
from keyassay.storage.repeating import repeat

_C = schema.certificates.c
_R = schema.replacements.c
_U = schema.replacement_units.c

#: seconds between looks when there was nothing to do
INTERVAL = 1.0
#: seconds that a replacement is this worker's, and after how many it asks for more
LEASE, RENEW = 15.0, 5.0
#: seconds that a replacement is worked on before others get their turn
SLICE = 2.0
#: seconds between looks at what changes seldom: devices that fall back, old certificates that others activate
SELDOM = 5.0
#: units that one transaction moves
AT_ONCE = retiring.AT_ONCE
#: units that one transaction begins: each has a message of its own
BEGUN_AT_ONCE = 10
#: seconds that a transaction goes on to take up units one by one
CHECKPOINT = 0.02
#: milliseconds after which a certificate that was issued and not attached is attached here: whoever issued it died
LEFT = 2_000
#: milliseconds that a device which was asked and is silent takes a place in its batch: it may be away for weeks
ANSWERS_WITHIN = 60_000
#: seconds that a message to a device is worth publishing; devices that connect later ask by themselves
NOTIFY = 600
#: where a device is told that it shall ask for a new certificate
TOPIC = "$aws/things/{}/keyassay/replacement/notify"


@dataclass
class _Held:
    """A replacement that is this worker's."""

    lease: leases.Lease
    renewed: float
    looked: float = field(default=-1e9)


class ReplacementWorker:
    """Does replacements of all accounts; several workers share them.

    Args:
        registry: where.
        log: a structlog logger.
    """

    name = "replacement"

    def __init__(self, registry: Registry, log: Any) -> None:
        self._registry = registry
        self._database = registry.database
        self._log = log
        self._machine = socket.gethostname()[:100]
        self._holder = f"{self._machine}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._held: dict[tuple[str, str], _Held] = {}
        self._screen: Screen | None = None
        self._followed = -1e9

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; what goes wrong is logged and tried again."""
        try:
            repeat(lambda: self.turn(stop), stop, INTERVAL, self._log, "replacement worker")
        finally:
            self.close()

    def close(self) -> None:
        """Give back all replacements, so that another worker need not wait."""
        for held in self._held.values():
            leases.release(self._database, held.lease)
        self._held.clear()

    def turn(self, stop: threading.Event | None = None) -> bool:
        """Work a while on each replacement; true if anything changed."""
        worked = self._start_automatic()
        open_now = self._open()
        for key in [one for one in self._held if one not in open_now]:
            leases.release(self._database, self._held.pop(key).lease)
        for key in open_now:
            if stop is not None and stop.is_set():
                break
            held = self._hold(key)
            if held is None:
                continue
            try:
                worked |= self._work(held, *key, stop)
            except leases.LeaseLostError:
                self._held.pop(key, None)
                self._log.warning("replacement taken over", account=key[0], replacement=key[1])
        return worked

    def _open(self) -> list[tuple[str, str]]:
        """Replacements that may have something to do."""
        statuses = [one.value for one in OPEN_STATUSES]
        rolling = (_R.status == Status.CANCELED.value) & _R.ended_at.is_(None)
        query = select(_R.account_id, _R.id).where(_R.status.in_(statuses) | rolling)
        with self._database.read() as connection:
            return [(row.account_id, row.id) for row in connection.execute(query.order_by(_R.started_at).limit(1_000))]

    def _hold(self, key: tuple[str, str]) -> _Held | None:
        held = self._held.get(key)
        now = time.monotonic()
        if held is not None and now - held.renewed < RENEW:
            return held
        if held is not None and leases.renew(self._database, held.lease, LEASE):
            held.renewed = now
            return held
        self._held.pop(key, None)
        lease = leases.take(self._database, f"replacement:{key[0]}:{key[1]}", self._holder, LEASE)
        if lease is None:
            return None
        self._held[key] = _Held(lease, now)
        return self._held[key]

    def _work(self, held: _Held, account_id: str, replacement_id: str, stop: threading.Event | None) -> bool:
        """Work on a replacement until there is nothing to do or its slice of time is over; true if anything changed."""
        until = time.monotonic() + SLICE
        worked = False
        while time.monotonic() < until and not (stop is not None and stop.is_set()):
            if not self._pass(_Pass(self, held, account_id, replacement_id)):
                break
            worked = True
        return worked

    def _pass(self, work: _Pass) -> bool:
        """Do each kind of step once, a transaction or a few; true if anything changed."""
        row = work.row
        status = Status(row["status"])
        if status is Status.CANCELED:
            changed = work.roll_back()
            changed |= work.detach_and_finish()
            return work.end_canceled() or changed
        changed = work.attach_left()
        changed |= work.connect()
        changed |= work.detach_and_finish()
        now = time.monotonic()
        if now - work.held.looked >= SELDOM:
            work.held.looked = now
            changed |= work.look_for_fallen_back()
            changed |= work.look_for_places()
            changed |= work.look_at_old()
        if status is not Status.RUNNING:
            return changed
        changed |= work.plan()
        changed |= work.revoke()
        changed |= work.deactivate()
        changed |= work.halt()
        changed |= work.begin()
        return work.complete() or changed

    def assess(self, keys: Mapping[bytes, bytes]) -> None:
        """Let the checks look at keys of which nothing is known yet, and keep what they say."""
        if self._screen is None:
            self._screen = Screen(self._database, refuse=False)
        for spki in keys.values():
            examined = self._screen.examine(spki)
            with self._database.write(Actor("", "worker:replacement", self._machine)) as transaction:
                self._screen.keep(transaction, examined)

    def _start_automatic(self) -> bool:
        """Start replacements for audits that have ended, where accounts want it."""
        now = time.monotonic()
        if now - self._followed < INTERVAL:
            return False
        self._followed = now
        return automatic.follow(self._registry, self._machine, self._log)

    @property
    def registry(self) -> Registry:
        """Where."""
        return self._registry

    @property
    def machine(self) -> str:
        """Its name, for the record of changes."""
        return self._machine


@dataclass
class _Pass:
    """One pass over a replacement."""

    worker: ReplacementWorker
    held: _Held
    account_id: str
    replacement_id: str

    @property
    def _registry(self) -> Registry:
        return self.worker.registry

    @cached_property
    def row(self) -> Any:
        """Of the replacement, as the pass found it; transactions look at its status again."""
        with self._registry.database.read() as connection:
            return campaigns.find(connection, self.account_id, self.replacement_id)

    def _transact(self, change: Callable[[Transaction], Any], *statuses: Status) -> Any:
        """Do something in a transaction if the replacement is still this worker's, and has one of these statuses."""
        actor = Actor(self.account_id, "worker:replacement", self.worker.machine, self.replacement_id)
        with self._registry.database.write(actor) as transaction:
            leases.check(transaction, self.held.lease)
            if statuses:
                row = campaigns.find(transaction.connection, self.account_id, self.replacement_id)
                if row["status"] not in statuses:
                    return None
            return change(transaction)

    def _read_units(self, *conditions: Any, size: int = AT_ONCE) -> list[Unit]:
        query = units.query(self.account_id).where(_U.replacement_id == self.replacement_id, *conditions)
        with self._registry.database.read() as connection:
            rows = connection.execute(query.order_by(_U.old_certificate_id, _U.thing_name).limit(size)).mappings()
            return [units.read(row) for row in rows]

    def plan(self) -> bool:
        """Plan further units."""
        row = self.row
        if row["selection"]["position"] is None:
            return False

        def change(transaction: Transaction) -> bool:
            present = campaigns.find(transaction.connection, self.account_id, self.replacement_id)
            campaigns.plan_next(transaction, present)
            return True

        return bool(self._transact(change, Status.RUNNING))

    def attach_left(self) -> bool:
        """Attach what was issued by somebody who died before he attached it."""
        before = time.time_ns() // 1_000_000 - LEFT
        left = self._read_units(_U.state == State.ISSUED.value, _U.state_at <= before)

        def change(transaction: Transaction) -> None:
            until = time.monotonic() + CHECKPOINT
            for unit in left:
                units.attach(transaction, unit)
                if time.monotonic() > until:
                    break

        if left:
            self._transact(change)
        return bool(left)

    def connect(self) -> bool:
        """See which devices connected with their new certificates."""
        with self._registry.database.read() as connection:
            seen = proving.seen(connection, self.account_id, self.replacement_id, AT_ONCE)
            if not seen:
                return False
            ids = [one.new_certificate_id for one in seen if one.new_certificate_id]
            unknown = proving.unassessed(connection, self.account_id, ids)
        if unknown:
            self.worker.assess(unknown)
        return bool(self._transact(lambda transaction: proving.record(transaction, seen)))

    def deactivate(self) -> bool:
        """Let old certificates be INACTIVE whose things are all proven."""
        ready = self._old(retiring.ready_to_deactivate(self.account_id, self.replacement_id))

        def change(transaction: Transaction) -> int:
            return retiring.deactivate(transaction, self.replacement_id, ready)

        return bool(ready) and bool(self._transact(change, Status.RUNNING))

    def revoke(self) -> bool:
        """Revoke old certificates whose grace is over."""
        before = time.time_ns() // 1_000_000 - 1_000 * Settings.read(self.row["settings"]).grace
        ready = self._old(retiring.ready_to_revoke(self.account_id, self.replacement_id, before))
        if not ready:
            return False
        self.look_for_fallen_back()  # it cannot be undone: whoever fell back in the last seconds counts, too

        def change(transaction: Transaction) -> int:
            return retiring.revoke(transaction, self.replacement_id, ready, before, _grace_of)

        return bool(self._transact(change, Status.RUNNING))

    def detach_and_finish(self) -> bool:
        """Detach revoked certificates, and end their units."""
        revoked = self._old(retiring.in_state(self.account_id, self.replacement_id, State.OLD_REVOKED))
        changed = bool(revoked) and bool(self._transact(lambda transaction: retiring.detach(transaction, revoked)))
        detached = self._old(retiring.in_state(self.account_id, self.replacement_id, State.DETACHED))
        if detached:
            changed |= bool(self._transact(lambda transaction: retiring.finish(transaction, detached)))
        return changed

    def _old(self, query: Select[Any]) -> list[str]:
        with self._registry.database.read() as connection:
            return retiring.chosen(connection, query)

    def begin(self) -> bool:
        """Ask further devices, as many as the batch has places."""
        settings = Settings.read(self.row["settings"])
        room = min(BEGUN_AT_ONCE, settings.batch - self._in_flight(settings))
        if room <= 0:
            return False
        able = campaigns.can_prove(settings.proof, time.time_ns() // 1_000_000)
        waiting = self._read_units(campaigns.NOT_BEGUN, able, size=room)
        if not waiting:
            return False

        def change(transaction: Transaction) -> bool:
            here = (_U.account_id == self.account_id) & (_U.replacement_id == self.replacement_id)
            last = transaction.execute(select(func.max(_U.batch)).where(here)).scalar() or 0
            ids = [one.old_certificate_id for one in waiting]
            query = select(_C.id, _C.status).where(_C.account_id == self.account_id, _C.id.in_(ids))
            statuses = {row.id: row.status for row in transaction.execute(query)}
            begun = []
            for unit in units.again(transaction.connection, self.account_id, waiting):
                if unit.state is not State.PLANNED or unit.batch:
                    continue
                begun.append(_begun(transaction, unit, statuses.get(unit.old_certificate_id), last + 1))
            for unit in units.advance(transaction, [one for one in begun if one is not None]):
                if unit.state is State.PLANNED:
                    payload = json.dumps(units.offer(unit), separators=(",", ":"))
                    device_messages.put(transaction, TOPIC.format(unit.thing_name), payload, NOTIFY)
            return bool(begun)

        return bool(self._transact(change, Status.RUNNING))

    def _in_flight(self, settings: Settings) -> int:
        """Places of the batch that are taken: devices that may answer yet, and those that have begun to."""
        now = time.time_ns() // 1_000_000
        here = (_U.account_id == self.account_id) & (_U.replacement_id == self.replacement_id) & (_U.batch > 0)
        asked = (_U.state == State.PLANNED.value) & (_U.state_at > now - ANSWERS_WITHIN)
        with_new = [State.ISSUED.value, State.ATTACHED.value, State.DELIVERED.value]
        at_it = _U.state.in_(with_new) & (_U.state_at > now - 1_000 * settings.stuck_after)
        with self._registry.database.read() as connection:
            return int(connection.execute(select(func.count()).where(here, asked | at_it)).scalar_one())

    def look_at_old(self) -> bool:
        """Notice old certificates that others changed, while their devices have no new one yet."""
        active = exists().where(
            _C.account_id == _U.account_id,
            _C.id == _U.old_certificate_id,
            _C.status == CertificateStatus.ACTIVE.value,
        )
        there = exists().where(_C.account_id == _U.account_id, _C.id == _U.old_certificate_id)
        lost = self._read_units(_U.state == State.PLANNED.value, _U.batch > 0, ~active)
        lost += self._read_units(_U.state == State.UNREACHABLE.value, active | ~there)

        def change(transaction: Transaction) -> bool:
            moves = []
            for one in lost:
                unit = units.find(transaction.connection, self.account_id, *one.key)
                here = (_C.account_id == self.account_id) & (_C.id == unit.old_certificate_id)
                status = transaction.execute(select(_C.status).where(here)).scalar()
                if unit.state is State.PLANNED and unit.batch:
                    moves.append(_begun(transaction, unit, status, unit.batch))
                elif unit.state is State.UNREACHABLE and status is None:
                    units.fail(transaction, unit, _GONE)
                elif unit.state is State.UNREACHABLE and status == CertificateStatus.ACTIVE:
                    moves.append(Move(unit, State.PLANNED, {"oldStatus": status}, {"batch": 0}))
            # a unit whose old certificate is ACTIVE again is as it should be
            units.advance(transaction, [one for one in moves if one is not None and one.step != _BEGUN])
            return True

        return bool(lost) and bool(self._transact(change, Status.RUNNING))

    def look_for_fallen_back(self) -> bool:
        """Notice devices that tried their old certificates again, and those that are back."""
        now = time.time_ns() // 1_000_000
        with self._registry.database.read() as connection:
            fallen = watching.fallen_back(connection, self.account_id, self.replacement_id, now)
            back = watching.come_back(connection, self.account_id, self.replacement_id)
        changed = False
        if fallen:
            changed |= bool(self._transact(lambda transaction: watching.report_fallen_back(transaction, fallen)))
        if back:
            changed |= bool(self._transact(lambda transaction: watching.report_come_back(transaction, back)))
        return changed

    def look_for_places(self) -> bool:
        """Halt units whose old key is used at two places."""
        now = time.time_ns() // 1_000_000
        with self._registry.database.read() as connection:
            found = watching.at_two_places(connection, self.account_id, self.replacement_id, now)
        if not found:
            return False
        return bool(self._transact(lambda transaction: watching.halt_at_two_places(transaction, found)))

    def halt(self) -> bool:
        """Halt the replacement if too many units have failed."""
        row = self.row
        settings = Settings.read(row["settings"])
        if not self._failed_too_often(row, settings):
            return False

        def change(transaction: Transaction) -> bool:
            present = campaigns.find(transaction.connection, self.account_id, self.replacement_id)
            found = campaigns.funnel(transaction.connection, present, transaction.now)
            problem = f"{found.failed} units of {found.begun} have failed, more than {settings.halt_on_failures:g} %"
            campaigns.change(transaction, self.replacement_id, status=Status.HALTED.value, problem=problem)
            transaction.record("HaltReplacement", "replacement", self.replacement_id, {"problem": problem})
            occasion = f"replacement-halted:{self.replacement_id}:{transaction.now}"
            details = {"replacementId": self.replacement_id, "problem": problem}
            alerts.raise_alert(transaction, "replacement-halted", occasion, details=details)
            return True

        return bool(self._transact(change, Status.RUNNING))

    def _failed_too_often(self, row: Any, settings: Settings) -> bool:
        with self._registry.database.read() as connection:
            found = campaigns.funnel(connection, row, time.time_ns() // 1_000_000)
        failed = found.failed - int(row["settings"].get("forgiven", 0))
        # the first failures of a large replacement are compared with its first batch
        base = max(found.begun, min(settings.batch, found.total))
        return failed > 0 and 100 * failed > settings.halt_on_failures * base

    def complete(self) -> bool:
        """End a replacement that has nothing left to do."""
        if self.row["selection"]["position"] is not None or self._read_units(_U.open, size=1):
            return False

        def change(transaction: Transaction) -> bool:
            row = campaigns.find(transaction.connection, self.account_id, self.replacement_id)
            found = campaigns.funnel(transaction.connection, row, transaction.now)
            campaigns.change(transaction, self.replacement_id, status=Status.COMPLETED.value, ended_at=transaction.now)
            proofs.forget_secrets(transaction, self.replacement_id)
            details = {"units": {state.value: count for state, count in sorted(found.states.items())}}
            transaction.record("CompleteReplacement", "replacement", self.replacement_id, details)
            return False

        self._transact(change, Status.RUNNING)
        return False

    def roll_back(self) -> bool:
        """Roll back units of a canceled replacement."""
        beyond = [one.value for one in BEYOND_RETURN]
        todo = self._read_units(_U.open, ~_U.state.in_(beyond))

        def change(transaction: Transaction) -> bool:
            until = time.monotonic() + CHECKPOINT
            for one in todo:
                # each may change others of the same old certificate
                unit = units.find(transaction.connection, self.account_id, *one.key)
                returning.roll_back(transaction, unit)
                if time.monotonic() > until:
                    break
            return True

        return bool(todo) and bool(self._transact(change, Status.CANCELED))

    def end_canceled(self) -> bool:
        """Note that a canceled replacement has been rolled back."""
        if self._read_units(_U.open, size=1):
            return False

        def change(transaction: Transaction) -> None:
            campaigns.change(transaction, self.replacement_id, ended_at=transaction.now)
            proofs.forget_secrets(transaction, self.replacement_id)
            transaction.record("RolledBackReplacement", "replacement", self.replacement_id)

        self._transact(change, Status.CANCELED)
        return False


_BEGUN = "BEGUN"
_GONE = "the old certificate has left the account"


def _grace_of(unit: Unit) -> int:
    return Settings.read(unit.settings).grace


def _begun(transaction: Transaction, unit: Unit, status: str | None, batch: int) -> Move | None:
    """What beginning a unit means, given the status of its old certificate; None if it is put aside."""
    if status is None:
        units.fail(transaction, unit, _GONE)
        return None
    if status == CertificateStatus.ACTIVE:
        return Move(unit, State.PLANNED, {"batch": batch}, {"batch": batch}, step=_BEGUN)
    return Move(unit, State.UNREACHABLE, {"oldStatus": status})
