"""Delivers the messages of the outbox: at least once, each with its id, until they arrive or are given up.

A thread for each target, so that one that does not answer holds up no other. A message that is given up is a dead
letter, which can be seen and replayed; what waits for its delivery has failed then.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, delete, select, update

from keyassay.mitigation import execution
from keyassay.mitigation.destinations import PATIENCE, DeliveryError, Destination, Destinations, Message
from keyassay.registry.errors import NotFoundError
from keyassay.registry.registry import Page, Registry
from keyassay.storage import outbox, schema
from keyassay.storage.database import Actor, Transaction
from keyassay.storage.repeating import repeat

_O = schema.outbox.c

#: seconds to wait after each attempt that failed; there is one attempt more than there are waits
WAITS = (1.0, 4.0, 15.0, 60.0, 240.0, 900.0, 900.0, 900.0)
#: seconds after which a message is taken up again whose delivery nobody has noted
CLAIM = 3 * PATIENCE
#: seconds between looks for messages
INTERVAL = 0.5
#: how long messages are kept after their end, days: delivered ones, and dead letters
KEPT, DEAD_KEPT = 7, 90
#: seconds between looks for older ones
SWEEP = 3_600.0

ACTOR = "worker:publishing"
NOT_PERMITTED = "the target is not among those that the server may publish to"


class Publisher:
    """Delivers messages of all accounts.

    Args:
        registry: where.
        destinations: that the operator permits.
        log: a structlog logger.
        waits: seconds after each failed attempt.
    """

    name = "publishing"

    def __init__(
        self, registry: Registry, destinations: Destinations, log: Any, *, waits: Sequence[float] = WAITS
    ) -> None:
        self._registry = registry
        self._destinations = destinations
        self._log = log
        self._waits = waits
        self._swept = 0.0
        self._known: dict[str, Destination] = {}

    def run(self, stop: threading.Event) -> None:
        """Deliver until told to stop."""
        threads = [
            threading.Thread(target=self._follow, args=(target, stop), name=f"publishing {number}", daemon=True)
            for number, target in enumerate(sorted(self._destinations.permitted))
        ]
        for thread in threads:
            thread.start()
        repeat(self._look_after, stop, INTERVAL, self._log, "publishing")
        for thread in threads:
            thread.join()

    def _follow(self, target: str, stop: threading.Event) -> None:
        repeat(lambda: self.deliver_next(target), stop, INTERVAL, self._log, "publishing")

    def _look_after(self) -> bool:
        worked = self.refuse_strangers()
        if not self._swept or time.monotonic() - self._swept > SWEEP:
            self._swept = time.monotonic()
            while self._sweep():
                pass
        return worked

    def deliver_next(self, target: str) -> bool:
        """Try to deliver the message of a target that has been due for longest; false if none is due."""
        row = self._claim(target)
        if row is None:
            return False
        if not self._destinations.allows(target, row["account_id"]):
            self._settle(row, DeliveryError(NOT_PERMITTED, final=True))
            return True
        if target not in self._known:
            self._known[target] = self._destinations.destination(target)
        message = Message(row["id"], row["account_id"], row["subject"], row["body"], row["created_at"])
        problem: DeliveryError | None = None
        try:
            self._known[target].send(message)
        except DeliveryError as error:
            problem = error
        except Exception as error:  # noqa: BLE001  whatever a library raises: the message is tried again, then given up
            problem = DeliveryError(f"{type(error).__name__}"[:300])
        self._settle(row, problem)
        return True

    def _claim(self, target: str) -> RowMapping | None:
        """Take up a message that is due, for ``CLAIM`` seconds."""
        now = time.time_ns() // 1_000_000
        due = (_O.status == outbox.PENDING) & (_O.target == target)
        query = select(_O.id, _O.account_id).where(due, _O.due_at <= now).order_by(_O.due_at).limit(1)
        with self._registry.database.read() as connection:
            first = connection.execute(query).first()
        if first is None:
            return None
        with self._registry.database.write(Actor(first.account_id, ACTOR)) as transaction:
            here = (_O.id == first.id) & (_O.status == outbox.PENDING) & (_O.due_at <= transaction.now)
            values = {"due_at": transaction.now + round(CLAIM * 1000), "attempts": _O.attempts + 1}
            statement = update(schema.outbox).where(here).values(values).returning(schema.outbox)
            return transaction.execute(statement).mappings().first()

    def _settle(self, row: RowMapping, problem: DeliveryError | None) -> None:
        """Note what became of an attempt, and let what waits for the message go on."""
        with self._registry.database.write(Actor(row["account_id"], ACTOR, "", row["id"])) as transaction:
            # canceled, or noted by another that took the message up while this attempt went on for too long
            here = (_O.id == row["id"]) & (_O.status == outbox.PENDING) & (_O.attempts == row["attempts"])
            values: dict[str, Any]
            if problem is None:
                values = {"status": outbox.DELIVERED, "delivered_at": transaction.now, "error": None}
            elif problem.final or row["attempts"] > len(self._waits):
                values = {"status": outbox.DEAD, "error": problem.message}
            else:
                wait = self._waits[row["attempts"] - 1] * random.uniform(0.75, 1.25)  # noqa: S311  so that not all come at once
                values = {"due_at": transaction.now + round(wait * 1000), "error": problem.message}
            if not transaction.execute(update(schema.outbox).where(here).values(values)).rowcount:
                return
            if "status" not in values:
                return
            self._ended(transaction, row, values["error"] or "")
        if problem is not None:
            self._log.warning("message given up", message=row["id"], account=row["account_id"], problem=problem.message)

    def _ended(self, transaction: Transaction, row: RowMapping, problem: str) -> None:
        operation = "GiveUpMessage" if problem else "DeliverMessage"
        transaction.record(operation, "message", row["id"], {"target": row["target"], "subject": row["subject"]})
        if row["execution"] is not None:
            execution.settle(self._registry, transaction, row["execution"], problem)

    def refuse_strangers(self) -> bool:
        """Give up messages to targets that are not permitted; true if there were any."""
        query = select(_O.id, _O.target).where(_O.status == outbox.PENDING)
        query = query.where(_O.target.not_in(sorted(self._destinations.permitted))).limit(20)
        with self._registry.database.read() as connection:
            targets = {row.target for row in connection.execute(query)}
        worked = False
        for target in targets:
            row = self._claim(target)
            if row is not None:
                self._settle(row, DeliveryError(NOT_PERMITTED, final=True))
                worked = True
        return worked

    def _sweep(self) -> bool:
        """Remove some messages that ended long ago; true if there may be more."""
        now = time.time_ns() // 1_000_000
        removed = 0
        for status, days in ((outbox.DELIVERED, KEPT), (outbox.CANCELED, KEPT), (outbox.DEAD, DEAD_KEPT)):
            old = select(_O.id).where(_O.status == status, _O.due_at < now - days * 86_400_000).limit(200)
            with self._registry.database.write(Actor("", ACTOR)) as transaction:
                ids = list(transaction.execute(old).scalars())
                transaction.execute(delete(schema.outbox).where(_O.id.in_(ids)))
            removed += len(ids)
        return removed > 0


def dead_letters(
    registry: Registry, actor: Actor, *, token: str | None = None, size: int | None = None
) -> Page[dict[str, Any]]:
    """A page of the account's messages that were given up, oldest first; ``body`` is read.

    Raises:
        InvalidError: a foreign token.
    """
    query = select(schema.outbox).where(_O.account_id == actor.account_id, _O.status == outbox.DEAD)
    scope = (actor.account_id, "dead-letters")
    with registry.database.read() as connection:
        page = registry.page(connection, query, (_O.created_at, _O.id), scope=scope, token=token, size=size)
    return Page([{**row, "body": json.loads(row["body"])} for row in page.rows], page.next_token)


def replay(registry: Registry, actor: Actor, message_id: str) -> None:
    """Send a dead letter again, under its old id; a task that waited for it has ended and stays as it is.

    Raises:
        NotFoundError: there is no dead letter of that id in the account.
    """
    with registry.database.write(actor) as transaction:
        here = (_O.id == message_id) & (_O.account_id == actor.account_id) & (_O.status == outbox.DEAD)
        values = {"status": outbox.PENDING, "attempts": 0, "due_at": transaction.now}
        if not transaction.execute(update(schema.outbox).where(here).values(values)).rowcount:
            raise NotFoundError("there is no such dead letter")
        transaction.record("ReplayDeadLetter", "message", message_id)
