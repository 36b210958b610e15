"""Settings of an account that are one document each: logging options here, the audit's configuration elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, select

from keyassay.registry.errors import InvalidError, NotConfiguredError
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction

_D = schema.account_documents.c

LOGGING = "logging"
DISABLED = "DISABLED"


def read_document(connection: Connection, account_id: str, name: str) -> dict[str, Any] | None:
    """A document, or None if it was never written."""
    query = select(_D.document).where(_D.account_id == account_id, _D.name == name)
    row = connection.execute(query).first()
    return None if row is None else dict(row.document)


def write_document(transaction: Transaction, name: str, document: Mapping[str, Any] | None) -> None:
    """Put a document in the place of the one before; None removes it."""
    here = (_D.account_id == transaction.account_id) & (_D.name == name)
    transaction.execute(delete(schema.account_documents).where(here))
    if document is not None:
        row = {
            "account_id": transaction.account_id,
            "name": name,
            "document": dict(document),
            "modified_at": transaction.now,
        }
        transaction.execute(schema.account_documents.insert().values(row))


def logging_options(registry: Registry, actor: Actor) -> dict[str, Any]:
    """The account's logging options.

    Raises:
        NotConfiguredError: they were never set.
    """
    with registry.database.read() as connection:
        options = read_document(connection, actor.account_id, LOGGING)
    if options is None:
        raise NotConfiguredError("logging options were never set")
    return options


def set_logging_options(
    registry: Registry,
    actor: Actor,
    *,
    role_arn: str | None = None,
    default_level: str | None = None,
    disable_all: bool | None = None,
) -> None:
    """Set logging options; what is not given stays.

    Raises:
        InvalidError: nothing is given.
    """
    with registry.database.write(actor) as transaction:
        change_logging(
            transaction, "SetV2LoggingOptions", role_arn=role_arn, default_level=default_level, disable_all=disable_all
        )


def change_logging(
    transaction: Transaction,
    operation: str,
    *,
    role_arn: str | None = None,
    default_level: str | None = None,
    disable_all: bool | None = None,
) -> bool:
    """The same inside a transaction; true if something changed.

    Raises:
        InvalidError: nothing is given.
    """
    given: dict[str, Any] = {"roleArn": role_arn, "defaultLogLevel": default_level, "disableAllLogs": disable_all}
    wishes = {name: value for name, value in given.items() if value is not None}
    if not wishes:
        raise InvalidError("a role, a log level or disableAllLogs has to be given")
    before = read_document(transaction.connection, transaction.account_id, LOGGING)
    start = {"disableAllLogs": False} if before is None else before
    after = {**start, **wishes}
    if after == before:
        return False
    write_document(transaction, LOGGING, after)
    transaction.record(operation, "logging", transaction.account_id, wishes)
    return True


def is_logging(options: Mapping[str, Any] | None) -> bool:
    """Whether the options let anything be logged."""
    return options is not None and not options.get("disableAllLogs") and options.get("defaultLogLevel") != DISABLED
