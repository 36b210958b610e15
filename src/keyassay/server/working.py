"""What a server does beside answering: workers, a thread each, told to stop and waited for when the server ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from keyassay.audit.examining import AuditSettings
from keyassay.audit.worker import AuditWorker
from keyassay.bulk.results import DEFAULT_BUDGET
from keyassay.errors import KeyassayError
from keyassay.findings import Classification, Profile
from keyassay.mitigation.destinations import Destinations
from keyassay.mitigation.publishing import Publisher
from keyassay.mitigation.worker import MitigationWorker
from keyassay.registry.connections import Sweeper
from keyassay.registry.fetching import Fetcher
from keyassay.registry.registry import Registry
from keyassay.registry.status_lists import Signer
from keyassay.replacement.issuing import Hook, HookWorker
from keyassay.replacement.worker import ReplacementWorker
from keyassay.server.settings import Settings

#: seconds that workers get to end; what they were at is safe in the database
GRACE = 20.0
#: seconds between two comparisons of keys that were registered lately with all others
FOLLOW = 300.0


class Worker(Protocol):
    """Something that goes on until it is told to stop."""

    @property
    def name(self) -> str:
        """For the log and the thread."""

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, then return soon; errors are the worker's own business."""


def workers_of(settings: Settings, registry: Registry, log: Any) -> list[Worker]:
    """All workers, as ``serve`` and ``worker`` run them; none if the settings say so."""
    if not settings.workers:
        return []
    audits = AuditSettings(
        profile=Profile[settings.audit_profile.upper()],
        level=Classification(settings.audit_level),
        budget=settings.audit_budget or DEFAULT_BUDGET,
        fleet_store=settings.fleet_folder,
        fleet_across_accounts=settings.fleet_across_accounts,
        follow=0.0 if settings.screening == "off" or settings.audit_profile == "aws" else FOLLOW,
    )
    auditors = [AuditWorker(registry, audits, log, number + 1) for number in range(settings.workers)]
    fetchers = [Fetcher(registry, settings.crl_hosts, log)] if settings.crl_hosts else []
    hooks = [HookWorker(registry, Hook(settings.issuing_hook), log)] if settings.issuing_hook else []
    signer = Signer(registry, settings.crl_hours * 3_600, log)
    return [
        signer,
        MitigationWorker(registry, log),
        ReplacementWorker(registry, log),
        Publisher(registry, destinations_of(settings), log),
        Sweeper(registry, log),
        *hooks,
        *fetchers,
        *auditors,
    ]


def destinations_of(settings: Settings) -> Destinations:
    """Where messages may go.

    Raises:
        KeyassayError: a target is none, a webhook has no secret, or the file cannot be read.
    """
    secrets = ""
    if settings.webhook_secrets is not None:
        try:
            secrets = settings.webhook_secrets.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise KeyassayError(f"the webhooks' secrets cannot be read: {type(error).__name__}") from None
    return Destinations.read(settings.publish_to, secrets)


class Workers:
    """Runs workers.

    Args:
        workers: which.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=one.run, args=(self._stop,), name=one.name, daemon=True) for one in workers
        ]

    def start(self) -> None:
        """Begin; once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Tell all to stop and wait for them, ``GRACE`` seconds at most; nothing happens if they never began."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(GRACE)


def work_until_told(workers: Workers, log: Any) -> None:
    """Run workers in this process until SIGTERM or SIGINT; call it from the main thread."""
    told = threading.Event()
    before = {
        number: signal.signal(number, lambda _number, _frame: told.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        workers.start()
        log.info("working")
        while not told.wait(1.0):
            pass
    finally:
        workers.stop()
        log.info("stopped")
        for number, handler in before.items():
            signal.signal(number, handler)
