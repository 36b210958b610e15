"""Which states a unit of a replacement goes through, and which statuses a replacement has: tables, no side effects.

A unit is one old certificate at one thing. Each state says what has been proved of it; ``docs/replacement.md`` has the
picture.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Of a replacement."""

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"  # by an operator: nothing begins, nothing is issued, no old certificate is touched
    HALTED = "HALTED"  # the same, by the registry: too many failures
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"  # what could be rolled back is, or will be within a moment


class State(StrEnum):
    """Of a unit."""

    PLANNED = "PLANNED"
    ISSUED = "ISSUED"  # the new certificate is registered
    ATTACHED = "ATTACHED"  # and has the thing and the policies of the old one
    DELIVERED = "DELIVERED"  # and was sent to the device
    CONNECTED = "CONNECTED"  # and the device was seen to connect with it
    OLD_INACTIVE = "OLD_INACTIVE"  # the old one may connect no more; the period of grace runs
    OLD_REVOKED = "OLD_REVOKED"
    DETACHED = "DETACHED"
    DONE = "DONE"

    HALTED = "HALTED"  # something is suspicious: an operator has to look
    UNREACHABLE = "UNREACHABLE"  # the old one was not ACTIVE before the device got a new one: claims serve it
    NO_THING = "NO_THING"  # the certificate has no thing: only reported
    FAILED = "FAILED"  # a step cannot be done: an operator has to look
    ROLLED_BACK = "ROLLED_BACK"


#: the way of a unit, in its order
WAY = (
    State.PLANNED,
    State.ISSUED,
    State.ATTACHED,
    State.DELIVERED,
    State.CONNECTED,
    State.OLD_INACTIVE,
    State.OLD_REVOKED,
    State.DETACHED,
    State.DONE,
)
#: states in which the next step is the device's (or follows from its request)
WITH_DEVICE = (State.PLANNED, State.ISSUED, State.ATTACHED, State.DELIVERED)
#: states in which the old certificate cannot be had back
BEYOND_RETURN = (State.OLD_REVOKED, State.DETACHED, State.DONE)
#: states in which nothing is left to do
CLOSED = (State.DONE, State.NO_THING, State.ROLLED_BACK)
#: states that an operator ends, by trying again or rolling back
ASIDE = (State.HALTED, State.FAILED)
#: statuses in which the worker still has something to do
OPEN_STATUSES = (Status.RUNNING, Status.PAUSED, Status.HALTED)
