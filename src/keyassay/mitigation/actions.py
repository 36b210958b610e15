"""Mitigation actions: what an account has prepared against findings, and which checks each kind fits."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, select, update

from keyassay.audit.checks import AUDIT_CHECKS
from keyassay.registry.errors import AlreadyExistsError, InvalidError, NotFoundError
from keyassay.registry.registry import Page, Registry
from keyassay.registry.tags import remove_tags, set_tags
from keyassay.storage import schema
from keyassay.storage.database import Actor

_M = schema.mitigation_actions.c


class ActionType(StrEnum):
    """What an action does, in AWS's words."""

    UPDATE_DEVICE_CERTIFICATE = "UPDATE_DEVICE_CERTIFICATE"
    UPDATE_CA_CERTIFICATE = "UPDATE_CA_CERTIFICATE"
    ADD_THINGS_TO_THING_GROUP = "ADD_THINGS_TO_THING_GROUP"
    REPLACE_DEFAULT_POLICY_VERSION = "REPLACE_DEFAULT_POLICY_VERSION"
    ENABLE_IOT_LOGGING = "ENABLE_IOT_LOGGING"
    PUBLISH_FINDING_TO_SNS = "PUBLISH_FINDING_TO_SNS"


#: the member of ``actionParams`` that each kind has
PARAMS = {
    ActionType.UPDATE_DEVICE_CERTIFICATE: "updateDeviceCertificateParams",
    ActionType.UPDATE_CA_CERTIFICATE: "updateCACertificateParams",
    ActionType.ADD_THINGS_TO_THING_GROUP: "addThingsToThingGroupParams",
    ActionType.REPLACE_DEFAULT_POLICY_VERSION: "replaceDefaultPolicyVersionParams",
    ActionType.ENABLE_IOT_LOGGING: "enableIoTLoggingParams",
    ActionType.PUBLISH_FINDING_TO_SNS: "publishFindingToSnsParams",
}
_TYPES = {member: kind for kind, member in PARAMS.items()}

_DEVICES = frozenset({
    "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK",
    "DEVICE_CERTIFICATE_EXPIRING_CHECK",
    "DEVICE_CERTIFICATE_AGE_CHECK",
    "DEVICE_CERTIFICATE_SHARED_CHECK",
    "REVOKED_DEVICE_CERTIFICATE_STILL_ACTIVE_CHECK",
    "INTERMEDIATE_CA_REVOKED_FOR_ACTIVE_DEVICE_CERTIFICATES_CHECK",
})  # fmt: skip

#: the checks whose findings each kind can do something about
FITS: Mapping[ActionType, frozenset[str]] = {
    ActionType.UPDATE_DEVICE_CERTIFICATE: _DEVICES,
    ActionType.ADD_THINGS_TO_THING_GROUP: _DEVICES,
    ActionType.UPDATE_CA_CERTIFICATE: frozenset({
        "CA_CERTIFICATE_KEY_QUALITY_CHECK",
        "CA_CERTIFICATE_EXPIRING_CHECK",
        "REVOKED_CA_CERTIFICATE_STILL_ACTIVE_CHECK",
    }),
    ActionType.REPLACE_DEFAULT_POLICY_VERSION: frozenset({
        "IOT_POLICY_OVERLY_PERMISSIVE_CHECK",
        "IOT_POLICY_POTENTIAL_MISCONFIGURATION_CHECK",
    }),
    ActionType.ENABLE_IOT_LOGGING: frozenset({"LOGGING_DISABLED_CHECK"}),
    ActionType.PUBLISH_FINDING_TO_SNS: frozenset(AUDIT_CHECKS),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Action:
    """An action as it was when it was read.

    Attributes:
        name: of the account's choice.
        id: ours, for ever.
        role_arn: as it was given; nothing here assumes roles.
        params: ``actionParams`` as they were given.
    """

    name: str
    id: str
    role_arn: str
    params: Mapping[str, Any]

    @property
    def type(self) -> ActionType:
        """What it does."""
        return type_of(self.params)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The one member of ``params``."""
        found: Mapping[str, Any] = self.params[PARAMS[self.type]]
        return found

    def as_json(self) -> dict[str, Any]:
        """AWS's MitigationAction, for ``from_json``."""
        return {"name": self.name, "id": self.id, "roleArn": self.role_arn, "actionParams": dict(self.params)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Action:
        """What ``as_json`` made."""
        return cls(document["name"], document["id"], document["roleArn"], document["actionParams"])


def type_of(params: Mapping[str, Any]) -> ActionType:
    """What an action with these parameters does.

    Raises:
        InvalidError: not exactly one kind of parameters, or a log level that logs nothing.
    """
    given = [member for member, value in params.items() if value is not None]
    if len(given) != 1 or given[0] not in _TYPES:
        raise InvalidError(f"actionParams has exactly one of {', '.join(_TYPES)}")
    kind = _TYPES[given[0]]
    if kind is ActionType.ENABLE_IOT_LOGGING and params[given[0]]["logLevel"] == "DISABLED":
        raise InvalidError("an action that enables logging has a logLevel other than DISABLED")
    return kind


def create(
    registry: Registry,
    actor: Actor,
    name: str,
    role_arn: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str] | None = None,
) -> Action:
    """Prepare an action.

    Raises:
        InvalidError: see ``type_of``.
        AlreadyExistsError: the name is taken.
    """
    kind = type_of(params)
    action = Action(name, str(uuid.uuid4()), role_arn, dict(params))
    with registry.database.write(actor) as transaction:
        here = (_M.account_id == actor.account_id) & (_M.name == name)
        if transaction.execute(select(_M.name).where(here)).first() is not None:
            arn = registry.arn(actor.account_id, f"mitigationaction/{name}")
            raise AlreadyExistsError("there is a mitigation action of that name", name, arn)
        row = {
            "account_id": actor.account_id,
            "name": name,
            "id": action.id,
            "type": kind.value,
            "role_arn": role_arn,
            "params": action.params,
            "created_at": transaction.now,
            "modified_at": transaction.now,
        }
        transaction.execute(schema.mitigation_actions.insert().values(row))
        set_tags(registry, transaction, f"mitigationaction/{name}", tags or {})
        transaction.record("CreateMitigationAction", "mitigation-action", name, {"type": kind.value})
    return action


def find(connection: Connection, account_id: str, name: str) -> RowMapping:
    """The row of an action.

    Raises:
        NotFoundError: there is none.
    """
    query = select(schema.mitigation_actions).where(_M.account_id == account_id, _M.name == name)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError("there is no such mitigation action")
    return row


def describe(registry: Registry, actor: Actor, name: str) -> RowMapping:
    """All columns of an action.

    Raises:
        NotFoundError: there is none.
    """
    with registry.database.read() as connection:
        return find(connection, actor.account_id, name)


def change(
    registry: Registry,
    actor: Actor,
    name: str,
    *,
    role_arn: str | None = None,
    params: Mapping[str, Any] | None = None,
) -> Action:
    """Change what is given; tasks that run keep what they began with.

    Raises:
        NotFoundError: there is none.
        InvalidError: see ``type_of``.
    """
    values: dict[str, Any] = {}
    if params is not None:
        values |= {"params": dict(params), "type": type_of(params).value}
    if role_arn is not None:
        values["role_arn"] = role_arn
    with registry.database.write(actor) as transaction:
        row = {**find(transaction.connection, actor.account_id, name), **values}
        statement = update(schema.mitigation_actions).where(_M.account_id == actor.account_id, _M.name == name)
        transaction.execute(statement.values(modified_at=transaction.now, **values))
        transaction.record("UpdateMitigationAction", "mitigation-action", name, {"type": row["type"]})
    return Action(name, row["id"], row["role_arn"], row["params"])


def remove(registry: Registry, actor: Actor, name: str) -> None:
    """Delete an action; an unknown one is no error, and tasks that run keep what they began with."""
    with registry.database.write(actor) as transaction:
        here = (_M.account_id == actor.account_id) & (_M.name == name)
        if transaction.execute(delete(schema.mitigation_actions).where(here)).rowcount:
            remove_tags(transaction, f"mitigationaction/{name}")
            transaction.record("DeleteMitigationAction", "mitigation-action", name)


def listed(
    registry: Registry,
    actor: Actor,
    *,
    type: str | None = None,  # noqa: A002  the API's word
    token: str | None = None,
    size: int | None = None,
) -> Page[dict[str, Any]]:
    """A page of actions by name, all or those of one type.

    Raises:
        InvalidError: a foreign token.
    """
    query = select(_M.name, _M.created_at).where(_M.account_id == actor.account_id)
    if type is not None:
        query = query.where(_M.type == type)
    scope = (actor.account_id, "mitigation-actions", type or "")
    with registry.database.read() as connection:
        return registry.page(connection, query, (_M.name,), scope=scope, token=token, size=size)


def chosen(
    connection: Connection, account_id: str, mapping: Mapping[str, Any], proposed: Sequence[Action] = ()
) -> dict[str, Action]:
    """The actions that a mapping from checks to names of actions means, by name, in the order of their first mention.

    Args:
        connection: to look them up.
        account_id: whose.
        mapping: check -> names of actions.
        proposed: actions that need not exist, for dry runs; they hide those of the same names.

    Raises:
        InvalidError: an empty mapping, an unknown check or action, an action that does not fit its check.
    """
    if not mapping:
        raise InvalidError("auditCheckToActionsMapping names no check")
    for check in mapping:
        if check not in AUDIT_CHECKS:
            raise InvalidError(f"there is no audit check {check[:200]!r}")
    names = list(dict.fromkeys(name for several in mapping.values() for name in several))
    query = select(schema.mitigation_actions).where(_M.account_id == account_id, _M.name.in_(names))
    known = {
        row["name"]: Action(row["name"], row["id"], row["role_arn"], row["params"])
        for row in connection.execute(query).mappings()
    } | {one.name: one for one in proposed}
    for name in names:
        if name not in known:
            raise InvalidError(f"there is no mitigation action {name}")
    found = {name: known[name] for name in names}
    for check, several in mapping.items():
        for name in several:
            if check not in FITS[found[name].type]:
                raise InvalidError(f"the action {name} ({found[name].type}) does nothing about findings of {check}")
    return found
