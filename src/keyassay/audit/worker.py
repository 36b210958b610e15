"""Does audits: takes tasks by leases, examines in batches, starts scheduled audits, removes what is old.

Any number of workers share the work, threads of a server or processes beside it. A task belongs to one at a time; when
that one dies, another goes on at the last checkpoint once the lease has run out.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from sqlalchemy import RowMapping, Table, delete, func, select, update

from keyassay.audit import tasks
from keyassay.audit.account_checks import Logging, Nothing, Policies
from keyassay.audit.certificate_checks import Age, Expiring
from keyassay.audit.checkpoints import CHECK_DISABLED, Checkpoints, Position, TaskEndedError
from keyassay.audit.checks import AUDIT_CHECKS, AuditCheck, Needs
from keyassay.audit.connection_checks import Conflicting, Shared
from keyassay.audit.examining import DAY, EVERY_AUTHORITY, Audit, AuditSettings, Examiner
from keyassay.audit.fleet_pool import SearchError
from keyassay.audit.fleet_search import Search
from keyassay.audit.following import follow
from keyassay.audit.key_quality import Engine, KeyQuality
from keyassay.audit.revocation_checks import Revoked, RevokedIntermediate
from keyassay.audit.schedules import next_due
from keyassay.audit.tasks import TaskStatus, TaskType
from keyassay.registry.errors import RegistryError
from keyassay.registry.registry import Registry
from keyassay.storage import leases, schema
from keyassay.storage.database import Actor, BusyError
from keyassay.storage.repeating import repeat

_T = schema.audit_tasks.c
_D = schema.scheduled_audits.c
_F = schema.audit_findings.c
_L = schema.leases.c

#: how far back connection events count
EVENT_DAYS = 31
#: seconds between looks for what is old
SWEEP = 3_600.0
#: rows that one transaction removes
_REMOVED = 300
#: tries of a task that ends in errors, before its check fails
_TRIES = 3

_CERTIFICATES = schema.certificates


class AuditWorker:
    """Does the audits of all accounts, one after the other.

    Args:
        registry: where.
        settings: what the operator decided.
        log: a structlog logger.
        number: tells several workers of a process apart.
    """

    def __init__(self, registry: Registry, settings: AuditSettings, log: Any, number: int = 1) -> None:
        self.name = f"audit-{number}"
        self._registry = registry
        self._database = registry.database
        self._settings = settings
        self._log = log
        self._machine = socket.gethostname()[:100]
        self._holder = f"{self._machine}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._engine = Engine(settings.profile)
        self._swept = 0.0
        self._followed = time.monotonic()
        self._failures: dict[tuple[str, str], int] = {}
        self.stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; what goes wrong is logged and tried again."""
        self.stop = stop

        def turn() -> bool:
            self.start_due()
            worked = self.turn()
            self._follow()
            self._sweep()
            return worked

        repeat(turn, stop, self._settings.poll, self._log, "audit worker")

    # Tasks

    def turn(self) -> bool:
        """Do the oldest task that nobody has; false if there is none."""
        query = select(schema.audit_tasks).where(_T.status == TaskStatus.IN_PROGRESS.value)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_T.started_at, _T.id).limit(1_000)).mappings().all()
            now = time.time_ns() // 1_000_000
            held = select(_L.name).where(_L.name.like("audit:%"), _L.expires_at > now)
            taken = set(connection.execute(held).scalars()) if rows else set()
        for row in rows:
            name = f"audit:{row['account_id']}:{row['id']}"
            if name in taken:  # to look costs less than to try, which waits for writers
                continue
            lease = leases.take(self._database, name, self._holder, self._settings.lease)
            if lease is not None:
                self._take(lease, row)
                return True
        return False

    def _take(self, lease: leases.Lease, row: RowMapping) -> None:
        actor = Actor(row["account_id"], "worker:audit", self._machine, row["id"])
        points = Checkpoints(self._database, actor, lease, row)
        fields = {"account": row["account_id"], "task": row["id"]}
        with self._renewing(lease):
            try:
                if self._do(points) and points.finish():
                    self._log.info("audit finished", **fields)
            except TaskEndedError:
                self._log.info("audit canceled", **fields)
                with contextlib.suppress(leases.LeaseLostError):
                    points.forget()
            except leases.LeaseLostError:
                self._log.warning("audit taken over", **fields)
            finally:
                with contextlib.suppress(BusyError):
                    leases.release(self._database, lease)

    @contextlib.contextmanager
    def _renewing(self, lease: leases.Lease) -> Iterator[None]:
        """Keep a lease while its work goes on: a single batch may take longer than it lasts."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(self._settings.lease / 4):
                with contextlib.suppress(Exception):  # the next checkpoint tells
                    leases.renew(self._database, lease, self._settings.lease)

        thread = threading.Thread(target=renew, name=f"{self.name}-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _do(self, points: Checkpoints) -> bool:
        """Do the checks of a task that have not ended; false if the server stops first."""
        with self._database.read() as connection:
            rows = tasks.checks_of(connection, points.task["account_id"], points.task["id"])
        for name in AUDIT_CHECKS:
            row = rows.get(name)
            if row is None or row["status"] not in tasks.UNFINISHED:
                continue
            key = (points.task["id"], name)
            try:
                ended = self._check(points, AUDIT_CHECKS[name], Position.of(row))
            except (TaskEndedError, leases.LeaseLostError, BusyError):
                raise
            except Exception as error:
                self._failures[key] = self._failures.get(key, 0) + 1
                problem = f"{type(error).__name__}: {error}"[:500]
                self._log.error("audit check", check=name, task=points.task["id"], problem=problem)
                if self._failures[key] < _TRIES:
                    raise
                points.fail(AUDIT_CHECKS[name], "internal error: see the server's log")
                ended = True
            self._failures.pop(key, None)
            if not ended:
                return False
        return True

    def _check(self, points: Checkpoints, check: AuditCheck, position: Position) -> bool:
        """Do one check from a position on; false if the server stops first."""
        with self._database.read() as connection:
            enabled = tasks.check_settings(connection, points.task["account_id"])
        if check.name not in enabled:
            points.fail(check, "the check was disabled before it ran", CHECK_DISABLED)
            return True
        audit = self._audit(points.task, check, enabled[check.name])
        examiner = self._examiner(audit)
        following: Position | None = position
        with self._database.read() as connection:
            total = examiner.total(connection)
        if position.after is None:
            points.begin(check, total)
            examiner.tell = partial(points.tell, check)
            trouble = examiner.prepare(self._goes_on(points))
            if examiner.for_operator:
                self._log.error("audit check", check=check.name, task=points.task["id"], problem=examiner.for_operator)
            if self.stop.is_set():
                return False
            following = Position("", trouble=trouble, remark=examiner.remark)
            points.begin(check, total, following)
        while following is not None:
            if self.stop.is_set():
                return False
            with self._database.read() as connection:
                batch = examiner.batch(connection, following.after or "")
            following = self._patiently(partial(points.write, check, following, batch))
        return True

    def _patiently(self, write: Callable[[], Position | None]) -> Position | None:
        """Write a checkpoint, again and again while others hold the database."""
        while True:
            try:
                return write()
            except BusyError:
                if self.stop.wait(0.2):
                    raise

    def _goes_on(self, points: Checkpoints) -> Callable[[], bool]:
        """For what takes long: asks the database once a second."""
        looked = [time.monotonic(), True]

        def goes_on() -> bool:
            if time.monotonic() - looked[0] > 1.0:
                looked[:] = [time.monotonic(), points.goes_on()]
            return bool(looked[1]) and not self.stop.is_set()

        return goes_on

    def _audit(self, task: RowMapping, check: AuditCheck, configuration: Mapping[str, Any]) -> Audit:
        started = task["started_at"]
        since = started - EVENT_DAYS * DAY
        if check.needs is Needs.CONNECTIONS and task["scheduled_audit_name"]:
            earlier = select(func.max(_T.started_at)).where(
                _T.account_id == task["account_id"],
                _T.scheduled_audit_name == task["scheduled_audit_name"],
                _T.started_at < started,
            )
            with self._database.read() as connection:
                since = max(since, connection.execute(earlier).scalar() or 0)
        return Audit(self._database, check, task["account_id"], started, since, dict(configuration), self._settings)

    def _examiner(self, audit: Audit) -> Examiner:
        made: dict[str, Callable[[Audit], Examiner]] = {
            "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK": lambda one: KeyQuality(one, _CERTIFICATES, self._engine),
            "CA_CERTIFICATE_KEY_QUALITY_CHECK": lambda one: KeyQuality(one, EVERY_AUTHORITY, self._engine),
            "DEVICE_CERTIFICATE_EXPIRING_CHECK": Expiring,
            "CA_CERTIFICATE_EXPIRING_CHECK": lambda one: Expiring(one, EVERY_AUTHORITY),
            "DEVICE_CERTIFICATE_AGE_CHECK": Age,
            "REVOKED_CA_CERTIFICATE_STILL_ACTIVE_CHECK": lambda one: Revoked(one, EVERY_AUTHORITY),
            "REVOKED_DEVICE_CERTIFICATE_STILL_ACTIVE_CHECK": Revoked,
            "INTERMEDIATE_CA_REVOKED_FOR_ACTIVE_DEVICE_CERTIFICATES_CHECK": RevokedIntermediate,
            "IOT_POLICY_OVERLY_PERMISSIVE_CHECK": Policies,
            "IOT_POLICY_POTENTIAL_MISCONFIGURATION_CHECK": Policies,
            "LOGGING_DISABLED_CHECK": Logging,
            "DEVICE_CERTIFICATE_SHARED_CHECK": Shared,
            "CONFLICTING_CLIENT_IDS_CHECK": Conflicting,
        }
        return Nothing(audit) if audit.check.needs is Needs.AWS else made[audit.check.name](audit)

    # Schedules

    def start_due(self) -> int:
        """Start the scheduled audits whose time has come, each once over all workers; how many."""
        now = time.time_ns() // 1_000_000
        query = select(_D.account_id, _D.name).where(_D.due_at <= now).order_by(_D.due_at).limit(100)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return sum(self._start(row.account_id, row.name) for row in rows)

    def _start(self, account_id: str, name: str) -> bool:
        here = (_D.account_id == account_id) & (_D.name == name)
        with self._database.write(Actor(account_id, "worker:schedule", self._machine)) as transaction:
            query = select(schema.scheduled_audits).where(here, _D.due_at <= transaction.now)
            row = transaction.execute(query).mappings().first()
            if row is None:  # another worker was first
                return False
            days = (row["frequency"], row["day_of_month"], row["day_of_week"])
            due = next_due(*days, transaction.now, self._registry.audit_hour)
            transaction.execute(update(schema.scheduled_audits).where(here).values(due_at=due))
            try:
                tasks.begin(transaction, row["checks"], scheduled_audit_name=name, type=TaskType.SCHEDULED)
            except RegistryError as error:  # nothing was written for it; the schedule goes on
                self._log.error("scheduled audit", account=account_id, schedule=name, problem=error.message)
                return False
        return True

    # What follows registrations

    def _follow(self) -> None:
        if self._settings.follow and time.monotonic() - self._followed > self._settings.follow:
            self._followed = time.monotonic()
            self.follow()

    def follow(self) -> int:
        """Compare the keys that accounts have registered lately; how many certificates were reported for it."""
        if self._settings.fleet_store is None:
            return 0
        with self._database.read() as connection:
            accounts = connection.execute(select(schema.accounts.c.id)).scalars().all()
        reported = 0
        for account_id in accounts:
            lease = leases.take(self._database, f"follow:{account_id}", self._holder, self._settings.lease)
            if lease is None or self.stop.is_set():
                continue
            search = Search(self._database.url, account_id, self._settings.fleet_store, self._settings.fleet_memory)
            with self._renewing(lease):
                try:
                    reported += follow(self._database, search, lambda: not self.stop.is_set())
                except SearchError as error:
                    self._log.error("keys not compared", account=account_id, problem=str(error))
                finally:
                    leases.release(self._database, lease)
        return reported

    # What is old

    def _sweep(self) -> None:
        if self._swept and time.monotonic() - self._swept < SWEEP:
            return
        self._swept = time.monotonic()
        self.remove_old()

    def remove_old(self) -> int:
        """Remove tasks and findings that are kept no longer, in small transactions; how many rows went."""
        before = time.time_ns() // 1_000_000 - self._settings.retention_days * DAY
        with self._database.read() as connection:
            accounts = connection.execute(select(schema.accounts.c.id)).scalars().all()
        removed = 0
        for account_id in accounts:
            while not self.stop.is_set():
                count = self._remove_some(account_id, before)
                removed += count
                if not count:
                    break
        return removed

    def _remove_some(self, account_id: str, before: int) -> int:
        """One transaction's worth of an account's old rows; findings first, so that none is left without its task."""
        with self._database.read() as connection:
            old = select(_F.id).where(_F.account_id == account_id, _F.found_at < before)
            findings = connection.execute(old.limit(_REMOVED)).scalars().all()
            ended = _T.status != TaskStatus.IN_PROGRESS.value
            old = select(_T.id).where(_T.account_id == account_id, _T.started_at < before, ended)
            ids = [] if findings else connection.execute(old.limit(_REMOVED // 10)).scalars().all()
        if not findings and not ids:
            return 0
        with self._database.write(Actor(account_id, "worker:retention", self._machine)) as transaction:
            removed = 0
            going: tuple[tuple[Table, str, Any], ...] = (
                (schema.audit_related, "finding_id", findings),
                (schema.audit_findings, "id", findings),
                (schema.audit_task_checks, "task_id", ids),
                (schema.audit_tasks, "id", ids),
            )
            for table, column, values in going:
                if values:
                    gone = delete(table).where(table.c.account_id == account_id, table.c[column].in_(values))
                    removed += transaction.execute(gone).rowcount
        return removed
