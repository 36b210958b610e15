"""Replacements for tests: old certificates with things and policies, devices that answer, recorded connections."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from contextlib import suppress
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import update

import fleet_keys
from keyassay.registry import certificates, policies, principals, things
from keyassay.registry.errors import AlreadyExistsError
from keyassay.registry.registry import Registry
from keyassay.replacement import campaigns, units
from keyassay.replacement.states import State
from keyassay.replacement.units import Unit
from keyassay.replacement.worker import ReplacementWorker
from keyassay.storage import schema
from keyassay.storage.database import Actor
from two_accounts import A

SETTINGS: dict[str, Any] = {"trustOldKey": True, "graceSeconds": 0}
POLICY = '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}}'


def new_key() -> Any:
    """A key that no other certificate has."""
    return ec.generate_private_key(ec.SECP256R1())


def register(registry: Registry, subject: str = "device", key: Any = None, status: str = "ACTIVE") -> str:
    """A registered certificate with a key of its own; its id."""
    pem = fleet_keys.device(subject, key=key or new_key()).pem
    return certificates.register_without_authority(registry, A, pem, status=status).id


def old_device(registry: Registry, *names: str, exclusive: bool | None = None) -> str:
    """An old certificate with these things, which are made, and the policy "connect"; its id."""
    certificate_id = register(registry, names[0] if names else "alone")
    arn = registry.arn(A.account_id, f"cert/{certificate_id}")
    with suppress(AlreadyExistsError):
        policies.create(registry, A, "connect", POLICY)
    policies.attach(registry, A, "connect", arn)
    for name in names:
        things.create(registry, A, name)
        principals.attach(registry, A, name, arn, exclusive=exclusive)
    return certificate_id


def start(registry: Registry, *certificate_ids: str, **settings: Any) -> str:
    """A replacement of certificates; its id."""
    chosen = {**SETTINGS, **settings}
    return campaigns.start(registry, A, {"certificateIds": certificate_ids}, chosen, str(uuid.uuid4()))


def worker(registry: Registry) -> ReplacementWorker:
    return ReplacementWorker(registry, structlog.testing.CapturingLogger())


def work(registry: Registry, by: ReplacementWorker | None = None) -> None:
    """Let a worker do all that can be done now."""
    doing = by or worker(registry)
    for held in doing._held.values():
        held.looked = -1e9  # what is looked at seldom is looked at now
    while doing.turn():
        pass
    if by is None:
        doing.close()


def unit(registry: Registry, replacement_id: str, thing: str) -> Unit:
    """The only unit of a thing in a replacement."""
    (found,) = campaigns.unit_page(registry, A, replacement_id, thing_name=thing).rows
    return found


def states(registry: Registry, replacement_id: str) -> dict[str, str]:
    """Thing -> state."""
    page = campaigns.unit_page(registry, A, replacement_id, size=250)
    return {one.thing_name: one.state.value for one in page.rows}


def steps(registry: Registry, replacement_id: str, thing: str) -> list[str]:
    return [row["step"] for row in campaigns.steps(registry, A, replacement_id, thing, size=250).rows]


def issue(registry: Registry, found: Unit, key: Any = None) -> str:
    """What the registry does for a device's request, to DELIVERED: the new certificate's id."""
    new = register(registry, found.thing_name, key, status="INACTIVE")
    with registry.database.write(A) as transaction:
        units.issued(transaction, found, uuid.uuid4().hex, new, {"proof": "old-key"})
    with registry.database.write(A) as transaction:
        attached = units.attach(transaction, found)
        assert attached.state is State.ATTACHED, attached.problem
    with registry.database.write(A) as transaction:
        units.delivered(transaction, found, {"by": "mqtt"})
    return new


def connect(
    registry: Registry,
    certificate_id: str,
    client_id: str,
    *,
    verdict: str = "ok",
    ended: bool = False,
    shift: int = 0,
    actor: Actor = A,
) -> str:
    """Record a connection interval that begins now; its id. ``shift`` is the gate's clock, milliseconds ahead."""
    connection_id = str(uuid.uuid4())
    with registry.database.write(actor) as transaction:
        now = transaction.now + shift
        transaction.execute(
            schema.connections.insert().values(
                account_id=actor.account_id,
                id=connection_id,
                gate="gate-1",
                certificate_id=certificate_id,
                client_id=client_id,
                source="192.0.2.7:4711",
                tls_version="TLSv1.3",
                verdict=verdict,
                started_at=now,
                seen_at=now,
                ended_at=now if ended else None,
            )
        )
    return connection_id


def disconnect(registry: Registry, certificate_id: str, *, shift: int = 0) -> None:
    """End all sessions of a certificate."""
    columns = schema.connections.c
    with registry.database.write(A) as transaction:
        now = transaction.now + shift
        transaction.execute(
            update(schema.connections)
            .where(columns.certificate_id == certificate_id, columns.ended_at.is_(None))
            .values(seen_at=now, ended_at=now)
        )


def refuse(registry: Registry, certificate_id: str, client_id: str, *, shift: int = 0) -> None:
    """Record an attempt with a certificate that is not ACTIVE."""
    with registry.database.write(A) as transaction:
        now = transaction.now + shift
        transaction.execute(
            schema.refusals.insert().values(
                account_id=A.account_id,
                hour=now // 3_600_000 * 3_600_000,
                gate="gate-1",
                certificate_id=certificate_id,
                verdict="inactive",
                source=f"192.0.2.{now % 200}",
                client_id=client_id,
                count=1,
                first_at=now,
                last_at=now,
            )
        )


def status_of(registry: Registry, certificate_id: str) -> str:
    return str(certificates.describe(registry, A, certificate_id)["status"])


def things_of(rows: Any, certificate_id: str) -> list[str]:
    return sorted(row["thing_name"] for row in rows.all("thing_principals", certificate_id=certificate_id))


def policies_of(rows: Any, certificate_id: str) -> list[str]:
    return sorted(row["policy_name"] for row in rows.all("policy_attachments", target=f"cert/{certificate_id}"))


def notified(rows: Any) -> Counter[str]:
    """Thing -> messages that it was sent."""
    found: Counter[str] = Counter()
    for row in rows.all("device_messages"):
        assert json.loads(row["payload"])["state"] == "PLANNED"
        found[row["topic"].split("/")[2]] += 1
    return found
