"""An account's audit configuration: which checks are enabled, with which thresholds, and who is told.

It is the account's document ``tasks.AUDIT`` in the API's own form. An update says what changes; the rest stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, select

from keyassay.audit.checks import AUDIT_CHECKS, AuditCheck, audit_check
from keyassay.audit.tasks import AUDIT
from keyassay.registry.documents import read_document, write_document
from keyassay.registry.errors import InvalidError
from keyassay.registry.registry import Registry
from keyassay.registry.tags import remove_tags
from keyassay.storage import schema
from keyassay.storage.database import Actor

_S = schema.scheduled_audits.c

CHECKS = "auditCheckConfigurations"
TARGETS = "auditNotificationTargetConfigurations"
TARGET_TYPES = ("SNS",)


def describe(registry: Registry, actor: Actor) -> dict[str, Any]:
    """The configuration, with every check that there is; one that was never mentioned is disabled."""
    with registry.database.read() as connection:
        document = read_document(connection, actor.account_id, AUDIT) or {}
    configured = document.get(CHECKS, {})
    return {**document, CHECKS: {name: configured.get(name, {"enabled": False}) for name in AUDIT_CHECKS}}


def change(
    registry: Registry,
    actor: Actor,
    *,
    role_arn: str | None = None,
    targets: Mapping[str, Mapping[str, Any]] | None = None,
    checks: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Change the configuration; what is not given stays, down to the members of a check and of a target.

    Args:
        registry: where.
        actor: who, and in which account.
        role_arn: kept and returned; nothing here assumes a role.
        targets: {"SNS": {"targetArn", "roleArn", "enabled"}}.
        checks: {CHECK: {"enabled", "configuration"}}.

    Raises:
        InvalidError: the first call lacks a role or an enabled check; an unknown check, target or threshold; a
            threshold out of range; or a check that a scheduled audit uses would be disabled.
    """
    with registry.database.write(actor) as transaction:
        before = read_document(transaction.connection, actor.account_id, AUDIT)
        after: dict[str, Any] = {CHECKS: {}, **(before or {})}
        if role_arn is not None:
            after["roleArn"] = role_arn
        after[CHECKS] = {**after[CHECKS], **{name: _merged(after, name, one) for name, one in (checks or {}).items()}}
        for kind, target in (targets or {}).items():
            if kind not in TARGET_TYPES:
                raise InvalidError(f"{kind[:40]!r} is no type of notification targets")
            known = after.get(TARGETS, {})
            after[TARGETS] = {**known, kind: {**known.get(kind, {}), **target}}
        enabled = {name for name, one in after[CHECKS].items() if one["enabled"]}
        if before is None and not (role_arn is not None and enabled):
            raise InvalidError("the first audit configuration of an account has a roleArn and an enabled check")
        used = _scheduled(transaction.connection, actor.account_id)
        for name in checks or {}:
            if name in used and name not in enabled:
                raise InvalidError(f"the scheduled audit {used[name]!r} uses {name}")
        if after != before:
            write_document(transaction, AUDIT, after)
            details = {"enabled": sorted(enabled), "targets": sorted(after.get(TARGETS, {}))}
            transaction.record("UpdateAccountAuditConfiguration", "audit-configuration", actor.account_id, details)


def _merged(document: Mapping[str, Any], name: str, wish: Mapping[str, Any]) -> dict[str, Any]:
    """A check's configuration after an update."""
    check = audit_check(name)
    known = document[CHECKS].get(name, {"enabled": False})
    merged = {**known, **({"enabled": wish["enabled"]} if "enabled" in wish else {})}
    given = wish.get("configuration") or {}
    for threshold, value in given.items():
        _check_threshold(check, threshold, value)
    if given:
        merged["configuration"] = {**known.get("configuration", {}), **given}
    return merged


def _check_threshold(check: AuditCheck, name: str, value: str) -> None:
    threshold = next((one for one in check.thresholds if one.name == name), None)
    if threshold is None:
        raise InvalidError(f"{check.name} has no configuration {name[:80]!r}")
    if not re.fullmatch(r"[0-9]{1,9}", value) or not threshold.least <= int(value) <= threshold.most:
        raise InvalidError(f"{name} is a number of days from {threshold.least} to {threshold.most}")


def threshold_days(check: AuditCheck, settings: Mapping[str, Any]) -> int:
    """The days after which, or before which, a check finds something.

    Args:
        check: one with a threshold.
        settings: its ``configuration`` (``tasks.check_settings``).
    """
    (threshold,) = check.thresholds
    return int(settings.get(threshold.name, threshold.default))


def _scheduled(connection: Connection, account_id: str) -> dict[str, str]:
    """Checks that scheduled audits use, each with the name of one of them."""
    query = select(_S.name, _S.checks).where(_S.account_id == account_id)
    return {check: row.name for row in connection.execute(query) for check in row.checks}


def remove(registry: Registry, actor: Actor, *, with_scheduled_audits: bool = False) -> None:
    """Back to the start: no check is enabled, role and targets are gone. If it is so already nothing happens.

    Raises:
        InvalidError: there are scheduled audits, and they are not to go.
    """
    with registry.database.write(actor) as transaction:
        mine = _S.account_id == actor.account_id
        names = list(transaction.execute(select(_S.name).where(mine).order_by(_S.name)).scalars())
        if names and not with_scheduled_audits:
            raise InvalidError("there are scheduled audits: delete them, or set deleteScheduledAudits")
        for name in names:
            remove_tags(transaction, f"scheduledaudit/{name}")
            transaction.record("DeleteScheduledAudit", "scheduled-audit", name)
        transaction.execute(delete(schema.scheduled_audits).where(mine))
        if read_document(transaction.connection, actor.account_id, AUDIT) is not None:
            write_document(transaction, AUDIT, None)
            transaction.record("DeleteAccountAuditConfiguration", "audit-configuration", actor.account_id)
