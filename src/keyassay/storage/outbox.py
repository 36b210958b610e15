"""Messages on their way out: written in the transaction of what they tell, delivered later, at least once.

A message keeps its id through all attempts, so that receivers can drop what comes twice. Here is only the table; who
delivers is ``keyassay.mitigation.publishing``.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from keyassay.storage import schema
from keyassay.storage.database import Transaction
from keyassay.storage.prepared import Prepared

#: waits for its time (``due_at``)
PENDING = "PENDING"
DELIVERED = "DELIVERED"
#: given up; can be seen, and replayed
DEAD = "DEAD"
#: no longer wanted before it was delivered
CANCELED = "CANCELED"

#: what messages are about: their ``subject``
FINDING = "keyassay.audit.finding"
FINISHED = "keyassay.audit.finished"
ALERT = "keyassay.alert"
REGISTERED = "keyassay.certificate.registered"

_PUT = Prepared(schema.outbox.insert(), schema.outbox.columns.keys())


def put(
    transaction: Transaction,
    target: str,
    subject: str,
    body: Mapping[str, Any],
    execution: Mapping[str, Any] | None = None,
) -> str:
    """Send a message once the transaction commits.

    Args:
        transaction: of the account that sends it.
        target: ARN of a topic, or address of a webhook.
        subject: what it is about.
        body: JSON; goes out as it is.
        execution: names the execution of a mitigation action that waits for the delivery.

    Returns:
        The message's id.
    """
    row = {
        "id": str(uuid.uuid4()),
        "account_id": transaction.account_id,
        "target": target,
        "subject": subject,
        "body": json.dumps(body, separators=(",", ":"), ensure_ascii=False),
        "status": PENDING,
        "attempts": 0,
        "due_at": transaction.now,
        "created_at": transaction.now,
        "delivered_at": None,
        "error": None,
        "execution": None if execution is None else dict(execution),
    }
    _PUT.run(transaction.connection, row)
    return str(row["id"])
