"""One step of a task, inside a transaction: it changes the registry, or does nothing where that is done already.

A step that fails leaves nothing behind; of one about several certificates (those below an authority) what could be done
stays. Whatever a step did, it can be done again without harm.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Connection, func, select

from keyassay.audit.findings import RELATED_IN_FINDING
from keyassay.mitigation.actions import ActionType
from keyassay.mitigation.plan import ANOTHER_ISSUER, Step
from keyassay.registry import authorities, certificates, documents, errors, memberships, policies
from keyassay.registry.errors import InvalidError, NotFoundError, RegistryError
from keyassay.registry.issuing import issuer_row
from keyassay.registry.lifecycle import Status
from keyassay.registry.registry import Registry
from keyassay.storage import outbox, schema
from keyassay.storage.database import Transaction, rows_in_chunks

OPERATION = "StartAuditMitigationActionsTask"

#: the policy document that permits nothing
BLANK_POLICY = json.dumps({"Version": "2012-10-17", "Statement": []})

#: what an execution that failed is called; the first kind that fits
_CODES: tuple[tuple[type[RegistryError], str], ...] = (
    (errors.NotFoundError, "RESOURCE_NOT_FOUND"),
    (errors.CertificateStateError, "CERTIFICATE_STATE"),
    (errors.VersionsLimitError, "VERSIONS_LIMIT_EXCEEDED"),
    (errors.LimitError, "LIMIT_EXCEEDED"),
    (errors.RegistryError, "INVALID_REQUEST"),
)
NOT_DELIVERED = "NOT_DELIVERED"
INTERNAL = "INTERNAL_FAILURE"

#: certificates and things that one transaction deals with: some 20 ms
_PIECE, _THINGS = 15, 50

_F = schema.audit_findings.c
_R = schema.audit_related.c


def error_code(error: RegistryError) -> str:
    """What an error is called in an execution's ``errorCode``."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def carry_out(registry: Registry, transaction: Transaction, task_id: str, step: Step) -> bool:
    """Do a step; true if it is done, false if a delivery has to be waited for.

    Args:
        registry: where.
        transaction: of the account.
        task_id: of the mitigation task, for the delivery's sake.
        step: what to do.

    Raises:
        RegistryError: it cannot be done.
    """
    match step.action.type:
        case ActionType.UPDATE_DEVICE_CERTIFICATE:
            _for_each(transaction, step, lambda one: _deactivate(transaction, one), _inactive(transaction, step))
        case ActionType.ADD_THINGS_TO_THING_GROUP:
            _for_each(transaction, step, lambda one: _add_things(registry, transaction, step, one))
        case ActionType.PUBLISH_FINDING_TO_SNS:
            with transaction.attempt():
                _publish(transaction, task_id, step)
            return False
        case _:
            with transaction.attempt():
                _repair(registry, transaction, step)
    return True


def is_large(connection: Connection, account_id: str, step: Step) -> bool:
    """Whether a step would take long in one transaction: ``do_ahead`` first."""
    certificate_ids = step.finding.certificates
    match step.action.type:
        case ActionType.UPDATE_DEVICE_CERTIFICATE:
            return len(certificate_ids) > _PIECE
        case ActionType.ADD_THINGS_TO_THING_GROUP:
            groups = step.action.settings["thingGroupNames"]
            return len(certificate_ids) > _PIECE or any(
                len(_outside(connection, account_id, one, groups, _THINGS + 1)) > _THINGS for one in certificate_ids
            )
        case _:
            return False


def do_ahead(registry: Registry, step: Step, transactions: Callable[[], AbstractContextManager[Transaction]]) -> bool:
    """Do a large step in pieces, each in a transaction of its own, so that other writers come between.

    ``carry_out`` finds nothing left to do then.

    Args:
        registry: where.
        step: what to do.
        transactions: begins one, of the account.

    Returns:
        False if something was in the way (``carry_out`` says what), or the step is none of these.
    """
    certificate_ids = step.finding.certificates
    if step.action.type is ActionType.UPDATE_DEVICE_CERTIFICATE:
        whole = True
        for some in rows_in_chunks(certificate_ids, _PIECE):
            with transactions() as transaction:
                for one in some:
                    try:
                        with transaction.attempt():
                            _deactivate(transaction, one)
                    except RegistryError:
                        whole = False
        return whole
    if step.action.type is not ActionType.ADD_THINGS_TO_THING_GROUP:
        return False
    groups = step.action.settings["thingGroupNames"]
    for one in certificate_ids:
        after = ""
        while True:
            with transactions() as transaction:
                names = _outside(transaction.connection, transaction.account_id, one, groups, _THINGS, after)
                try:
                    with transaction.attempt():
                        memberships.add_to_groups(registry, transaction, names, groups, operation=OPERATION)
                except RegistryError:
                    return False
            if len(names) < _THINGS:
                break
            after = names[-1]
    return True


def _outside(
    connection: Connection,
    account_id: str,
    certificate_id: str,
    groups: Sequence[str],
    most: int | None = None,
    after: str = "",
) -> list[str]:
    """Things of a certificate that are not in all of some groups, by name."""
    held, members = schema.thing_principals.c, schema.thing_group_members.c
    count = (
        select(func.count())
        .where(
            members.account_id == account_id,
            members.thing_name == held.thing_name,
            members.group_name.in_(sorted(set(groups))),
        )
        .scalar_subquery()
    )
    its = (held.account_id == account_id) & (held.certificate_id == certificate_id) & (held.thing_name > after)
    query = select(held.thing_name).where(its, count < len(set(groups))).order_by(held.thing_name).limit(most)
    return list(connection.execute(query).scalars())


def _inactive(transaction: Transaction, step: Step) -> frozenset[str]:
    """Certificates of a finding about which nothing has to be done: revoked ones may connect even less."""
    columns = schema.certificates.c
    found: set[str] = set()
    for some in rows_in_chunks(step.finding.certificates):
        query = select(columns.id).where(
            columns.account_id == transaction.account_id,
            columns.id.in_(some),
            columns.status.in_([Status.INACTIVE.value, Status.REVOKED.value]),
        )
        found.update(transaction.execute(query).scalars())
    return frozenset(found)


def _for_each(
    transaction: Transaction, step: Step, do: Callable[[str], None], done: frozenset[str] = frozenset()
) -> None:
    """Do something about each certificate of a finding: all of them, also if one cannot be helped."""
    if not step.finding.certificates:
        raise NotFoundError("the finding names no device certificate")
    problem: RegistryError | None = None
    for certificate_id in step.finding.certificates:
        if certificate_id in done:
            continue
        try:
            with transaction.attempt():
                do(certificate_id)
        except RegistryError as error:
            problem = problem or error
    if problem is not None:
        raise problem


def _repair(registry: Registry, transaction: Transaction, step: Step) -> None:
    """The actions about one thing that is not a device certificate."""
    settings = step.action.settings
    match step.action.type:
        case ActionType.UPDATE_CA_CERTIFICATE:
            _deactivate_authority(transaction, _named(step, "caCertificateId"))
        case ActionType.REPLACE_DEFAULT_POLICY_VERSION:
            _replace_policy(registry, transaction, _named(step, "policyVersionIdentifier"))
        case ActionType.ENABLE_IOT_LOGGING:
            documents.change_logging(
                transaction,
                OPERATION,
                role_arn=settings["roleArnForLogging"],
                default_level=settings["logLevel"],
                disable_all=False,
            )
        case other:
            raise AssertionError(other)


def _publish(transaction: Transaction, task_id: str, step: Step) -> None:
    body = finding_document(transaction.connection, transaction.account_id, step.finding.id)
    execution = {"task_id": task_id, "finding_id": step.finding.id, "position": step.position}
    outbox.put(transaction, step.action.settings["topicArn"], outbox.FINDING, body, execution)


def _named(step: Step, member: str) -> Any:
    if member not in step.finding.resource:
        raise InvalidError(f"the finding names no {member}")
    return step.finding.resource[member]


def _deactivate(transaction: Transaction, certificate_id: str) -> None:
    """Make a certificate INACTIVE; a revoked one, which may connect even less, is left as it is."""
    row = certificates.find(transaction.connection, transaction.account_id, certificate_id)
    if row["status"] != Status.REVOKED.value:
        certificates.change_status(transaction, OPERATION, certificate_id, Status.INACTIVE)


def _deactivate_authority(transaction: Transaction, authority_id: str) -> None:
    try:
        authorities.deactivate(transaction, OPERATION, authority_id)
    except NotFoundError:
        if issuer_row(transaction.connection, transaction.account_id, authority_id) is None:
            raise
        raise InvalidError(
            f"the account's certificates are issued by this authority, which is not registered: {ANOTHER_ISSUER}"
        ) from None


def _add_things(registry: Registry, transaction: Transaction, step: Step, certificate_id: str) -> None:
    settings = step.action.settings
    certificates.find(transaction.connection, transaction.account_id, certificate_id)
    memberships.add_to_groups(
        registry,
        transaction,
        _outside(transaction.connection, transaction.account_id, certificate_id, settings["thingGroupNames"]),
        settings["thingGroupNames"],
        override_dynamic_groups=bool(settings.get("overrideDynamicGroups")),
        operation=OPERATION,
    )


def _replace_policy(registry: Registry, transaction: Transaction, identifier: Mapping[str, str]) -> None:
    """Put a blank version in force, in the place of the version that was found and of no other."""
    name = identifier["policyName"]
    policy = policies.find(transaction.connection, transaction.account_id, name)
    columns = schema.policy_versions.c
    present = (
        (columns.account_id == transaction.account_id)
        & (columns.policy_name == name)
        & (columns.version == policy["default_version"])
    )
    if transaction.execute(select(columns.document).where(present)).scalar() == BLANK_POLICY:
        return
    if str(policy["default_version"]) != identifier["policyVersionId"]:
        raise InvalidError(
            f"the default version of the policy is {policy['default_version']} now,"
            f" and the finding is about version {identifier['policyVersionId']}"
        )
    policies.add_version(registry, transaction, OPERATION, name, BLANK_POLICY, set_as_default=True)


def finding_document(connection: Connection, account_id: str, finding_id: str) -> dict[str, Any]:
    """A finding as the API's JSON has it (times are seconds since 1970), and the account.

    Raises:
        NotFoundError: there is none of that id.
    """
    row = connection.execute(
        select(schema.audit_findings).where(_F.account_id == account_id, _F.id == finding_id)
    ).first()
    if row is None:
        raise NotFoundError("there is no such audit finding")
    query = select(_R.resource).where(_R.account_id == account_id, _R.finding_id == finding_id)
    related = list(connection.execute(query.order_by(_R.number).limit(RELATED_IN_FINDING)).scalars())
    return {
        "accountId": account_id,
        "findingId": row.id,
        "taskId": row.task_id,
        "checkName": row.check_name,
        "taskStartTime": row.task_started_at / 1000,
        "findingTime": row.found_at / 1000,
        "severity": row.severity,
        "nonCompliantResource": row.resource,
        "relatedResources": related,
        "reasonForNonCompliance": row.reason,
        "reasonForNonComplianceCode": row.reason_code,
        "isSuppressed": row.suppressed,
    }
