"""Which status of a certificate leads to which: one table, no side effects.

ACTIVE may connect, and nothing else may. REVOKED is for ever. PENDING_TRANSFER is entered and left by transfers alone.
"""

from __future__ import annotations

from enum import StrEnum

from keyassay.registry.errors import CertificateStateError, InvalidError


class Status(StrEnum):
    """Status of a certificate, in AWS's words."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    REVOKED = "REVOKED"
    PENDING_TRANSFER = "PENDING_TRANSFER"
    PENDING_ACTIVATION = "PENDING_ACTIVATION"


#: what a certificate may be registered as, and what UpdateCertificate may ask for
SETTABLE = frozenset({Status.ACTIVE, Status.INACTIVE, Status.REVOKED})

#: by UpdateCertificate
_UPDATES: dict[Status, frozenset[Status]] = {
    Status.ACTIVE: SETTABLE,
    Status.INACTIVE: SETTABLE,
    Status.REVOKED: frozenset({Status.REVOKED}),
    Status.PENDING_TRANSFER: frozenset(),
    Status.PENDING_ACTIVATION: SETTABLE,
}

#: statuses in which a certificate may be deleted, and from which it may be transferred
DELETABLE = frozenset({Status.INACTIVE, Status.REVOKED, Status.PENDING_ACTIVATION})
TRANSFERABLE = frozenset({Status.INACTIVE})

#: the certificates that a key-quality audit looks at
AUDITED = (Status.ACTIVE, Status.PENDING_TRANSFER)


def wanted(name: str) -> Status:
    """A status that a caller may ask for.

    Raises:
        InvalidError: it is entered by other ways only (PENDING_*), deprecated (REGISTER_INACTIVE), or none.
    """
    if name not in {status.value for status in SETTABLE}:
        raise InvalidError(f"a certificate cannot be set to {name}: ACTIVE, INACTIVE and REVOKED can be asked for")
    return Status(name)


def check_update(present: Status, new: Status) -> bool:
    """Whether UpdateCertificate changes anything.

    Raises:
        CertificateStateError: the present status does not allow the new one.
    """
    if new not in _UPDATES[present]:
        raise CertificateStateError(f"a certificate that is {present} cannot become {new}")
    return new is not present
