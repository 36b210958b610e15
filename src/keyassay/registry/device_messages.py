"""Messages for devices and for topics of the registry: put here, fetched by every gate, published at its broker.

A message gets a number in the order of commits of its account, and each gate remembers the last one that it published,
with the feed's epoch.
Messages expire: a device that was away asks by itself, and what no gate fetched in time is of no use later.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select

from keyassay.registry.errors import InvalidError
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction
from keyassay.storage.prepared import Prepared, PreparedRows

#: bytes of a payload (AWS IoT's own limit) and of a topic
LARGEST_PAYLOAD, LONGEST_TOPIC = 131_072, 256
#: messages and bytes of payloads that one answer holds at most
AT_ONCE, TOGETHER = 100, 524_288
#: how long a gate may wait for a message, and how often is looked, seconds
LONGEST_WAIT, INTERVAL = 20.0, 0.05
_SWEEP = 200

_M = schema.device_messages.c

_OLD = select(_M.number).where(_M.account_id == bindparam("account"), _M.expires_at < bindparam("now")).limit(_SWEEP)
_FORGET = Prepared(delete(schema.device_messages).where(_M.number.in_(_OLD.scalar_subquery())))
_PUT = PreparedRows(schema.device_messages, values=("account_id", "topic", "payload", "created_at", "expires_at"))


def put(transaction: Transaction, topic: str, payload: str, seconds: float) -> None:
    """Have a message published at all gates of the account once the transaction commits.

    Args:
        transaction: of the account.
        topic: without wildcards.
        payload: text, JSON as a rule; at most ``LARGEST_PAYLOAD`` bytes.
        seconds: after which it is of no use any more.

    Raises:
        InvalidError: topic or payload are longer than a broker takes, or the topic has wildcards.
    """
    put_all(transaction, [(topic, payload)], seconds)


def put_all(transaction: Transaction, messages: Sequence[tuple[str, str]], seconds: float) -> None:
    """The same for several messages, topic and payload of each: two statements, however many there are."""
    for topic, payload in messages:
        if not topic or len(topic.encode()) > LONGEST_TOPIC or any(one in topic for one in "+#\0"):
            raise InvalidError("a topic for devices has 1 to 256 bytes and no wildcards")
        if len(payload.encode()) > LARGEST_PAYLOAD:
            raise InvalidError(f"a message for devices has at most {LARGEST_PAYLOAD} bytes")
    _FORGET.run(transaction.connection, {"account": transaction.account_id, "now": transaction.now})
    rows = [
        {
            "account_id": transaction.account_id,
            "topic": topic,
            "payload": payload,
            "created_at": transaction.now,
            "expires_at": transaction.now + round(seconds * 1000),
        }
        for topic, payload in messages
    ]
    _PUT.run(transaction.connection, rows)


def pending(
    registry: Registry, actor: Actor, after: int, epoch: str | None = None, wait: float = 0.0
) -> dict[str, Any]:
    """The account's messages after a number, those that have not expired.

    Args:
        registry: where.
        actor: whose.
        after: the last number that was fetched, 0 at first.
        epoch: of the feed when it was fetched, "" at first. Numbers rise within an epoch; a database that was restored
            has another one and gives some of them again, so that the messages from the first one on are meant. None
            for whatever it is now.
        wait: seconds to wait for a message if there is none, at most ``LONGEST_WAIT``.

    Returns:
        ``{"epoch", "last", "messages": [{"number", "topic", "payload"}]}``, 100 at most; the first two are for the
        next question.
    """
    until = time.monotonic() + min(wait, LONGEST_WAIT)
    while True:
        with registry.database.read() as connection:
            present = str(connection.execute(select(schema.server.c.epoch)).scalar_one())
            if epoch not in (None, present):
                epoch, after = present, 0
            found = _after(connection, actor, after)
        if found or time.monotonic() >= until:
            return {"epoch": present, "last": found[-1]["number"] if found else after, "messages": found}
        time.sleep(INTERVAL)


def _after(connection: Connection, actor: Actor, after: int) -> list[dict[str, Any]]:
    now = time.time_ns() // 1_000_000
    query = (
        select(_M.number, _M.topic, _M.payload)
        .where(_M.account_id == actor.account_id, _M.number > after, _M.expires_at >= now)
        .order_by(_M.number)
        .limit(AT_ONCE)
    )
    found: list[dict[str, Any]] = []
    size = 0
    for row in connection.execute(query).mappings():
        size += len(row["payload"].encode())
        if found and size > TOGETHER:
            break
        found.append(dict(row))
    return found
