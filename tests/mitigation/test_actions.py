"""Mitigation actions: exactly one kind of parameters, names, changes, and which checks they fit."""

from __future__ import annotations

from typing import Any

import pytest

from keyassay.audit.checks import AUDIT_CHECKS
from keyassay.mitigation import actions
from keyassay.mitigation.actions import FITS, PARAMS, ActionType
from keyassay.registry import tags
from keyassay.registry.errors import AlreadyExistsError, InvalidError, NotFoundError
from keyassay.registry.registry import Registry
from two_accounts import A, B, Rows

ROLE = "arn:aws:iam::111111111111:role/mitigation"
DEACTIVATE = {"updateDeviceCertificateParams": {"action": "DEACTIVATE"}}
LOGS = {"enableIoTLoggingParams": {"roleArnForLogging": ROLE, "logLevel": "INFO"}}


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {**DEACTIVATE, **LOGS},
        {"somethingElse": {}},
        {"enableIoTLoggingParams": {"roleArnForLogging": ROLE, "logLevel": "DISABLED"}},
    ],
)
def test_parameters_that_are_refused(registry: Registry, rows: Rows, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        actions.create(registry, A, "one", ROLE, wrong)
    assert rows.all("mitigation_actions") == []
    actions.create(registry, A, "one", ROLE, DEACTIVATE)
    if wrong:
        with pytest.raises(InvalidError):
            actions.change(registry, A, "one", params=wrong)
    assert actions.describe(registry, A, "one")["params"] == DEACTIVATE


def test_the_life_of_an_action(registry: Registry, rows: Rows) -> None:
    made = actions.create(registry, A, "one", ROLE, DEACTIVATE, {"team": "fleet"})
    with pytest.raises(AlreadyExistsError) as raised:
        actions.create(registry, A, "one", ROLE, LOGS)
    assert (raised.value.resource_id, raised.value.resource_arn) == (
        "one",
        f"arn:aws:iot:us-east-1:{A.account_id}:mitigationaction/one",
    )
    actions.create(registry, B, "one", ROLE, LOGS)
    assert actions.describe(registry, A, "one")["type"] == "UPDATE_DEVICE_CERTIFICATE"
    before = actions.describe(registry, A, "one")
    changed = actions.change(registry, A, "one", params=LOGS)
    assert (changed.id, changed.role_arn, changed.type) == (made.id, ROLE, ActionType.ENABLE_IOT_LOGGING)
    after = actions.describe(registry, A, "one")
    assert (after["id"], after["created_at"], after["params"]) == (before["id"], before["created_at"], LOGS)
    assert after["modified_at"] >= before["modified_at"]
    actions.change(registry, A, "one", role_arn=ROLE + "2")
    assert actions.describe(registry, A, "one")["role_arn"] == ROLE + "2"
    arn = registry.arn(A.account_id, "mitigationaction/one")
    assert [row["name"] for row in tags.tags_of(registry, A, arn).rows] == ["team"]
    for _ in range(2):
        actions.remove(registry, A, "one")
    assert rows.all("tags") == []
    for call in (actions.describe, actions.change):
        with pytest.raises(NotFoundError):
            call(registry, A, "one")
    assert actions.describe(registry, B, "one")["params"] == LOGS
    assert rows.operations() == [
        "CreateMitigationAction",
        "UpdateMitigationAction",
        "UpdateMitigationAction",
        "DeleteMitigationAction",
    ]


def test_lists_come_in_pages_by_name_and_by_type(registry: Registry) -> None:
    for name in ("c", "a", "b"):
        actions.create(registry, A, name, ROLE, LOGS if name == "b" else DEACTIVATE)
    first = actions.listed(registry, A, size=2)
    assert [row["name"] for row in first.rows] == ["a", "b"]
    second = actions.listed(registry, A, size=2, token=first.next_token)
    assert [row["name"] for row in second.rows] == ["c"]
    assert second.next_token is None
    only = actions.listed(registry, A, type="UPDATE_DEVICE_CERTIFICATE")
    assert [row["name"] for row in only.rows] == ["a", "c"]
    with pytest.raises(InvalidError):
        actions.listed(registry, A, type="ENABLE_IOT_LOGGING", token=first.next_token)
    assert actions.listed(registry, B).rows == []


def test_every_kind_has_parameters_and_fits_checks_that_there_are() -> None:
    assert set(PARAMS) == set(FITS) == set(ActionType)
    for checks in FITS.values():
        assert checks
        assert checks <= set(AUDIT_CHECKS)
    assert FITS[ActionType.PUBLISH_FINDING_TO_SNS] == set(AUDIT_CHECKS)
