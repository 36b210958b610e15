"""The audit configuration of an account: merged, checked and described whole, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from keyassay.audit import configuration, schedules
from keyassay.audit.checks import AUDIT_CHECKS
from keyassay.audit.configuration import CHECKS, TARGETS
from keyassay.audit.tasks import check_settings
from keyassay.registry.errors import InvalidError
from keyassay.registry.registry import Registry
from two_accounts import A, B, Rows

QUALITY = "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK"
AGE = "DEVICE_CERTIFICATE_AGE_CHECK"
EXPIRING = "DEVICE_CERTIFICATE_EXPIRING_CHECK"
ROLE = "arn:aws:iam::111111111111:role/audit"
ON, OFF = {"enabled": True}, {"enabled": False}


def begin(registry: Registry, **checks: Any) -> None:
    configuration.change(registry, A, role_arn=ROLE, checks=checks or {QUALITY: ON})


def test_all_checks_are_described_and_disabled_at_first(registry: Registry) -> None:
    found = configuration.describe(registry, A)
    assert found == {CHECKS: dict.fromkeys(AUDIT_CHECKS, OFF)}
    begin(registry)
    found = configuration.describe(registry, A)
    assert found == {CHECKS: {**dict.fromkeys(AUDIT_CHECKS, OFF), QUALITY: ON}, "roleArn": ROLE}
    assert configuration.describe(registry, B) == {CHECKS: dict.fromkeys(AUDIT_CHECKS, OFF)}


@pytest.mark.parametrize(
    "wishes",
    [
        {},
        {"role_arn": ROLE},
        {"checks": {QUALITY: ON}},
        {"role_arn": ROLE, "checks": {QUALITY: OFF}},
        {"role_arn": ROLE, "checks": {}},
    ],
)
def test_the_first_call_needs_a_role_and_an_enabled_check(registry: Registry, wishes: Any) -> None:
    with pytest.raises(InvalidError):
        configuration.change(registry, A, **wishes)
    assert "roleArn" not in configuration.describe(registry, A)


def test_updates_are_merged(registry: Registry, rows: Rows) -> None:
    begin(registry)
    days = {"configuration": {"CERT_AGE_THRESHOLD_IN_DAYS": "400"}}
    configuration.change(registry, A, checks={AGE: {**ON, **days}})
    configuration.change(registry, A, checks={QUALITY: OFF, AGE: ON})
    configuration.change(registry, A, checks={AGE: {"configuration": {}}})
    target = {"targetArn": "arn:aws:sns:us-east-1:111111111111:x", "roleArn": ROLE, "enabled": True}
    configuration.change(registry, A, targets={"SNS": target})
    configuration.change(registry, A, role_arn=ROLE + "2", targets={"SNS": {"enabled": False}})
    configuration.change(registry, A)
    found = configuration.describe(registry, A)
    assert found[CHECKS] == {**dict.fromkeys(AUDIT_CHECKS, OFF), AGE: {**ON, **days}}
    assert found[TARGETS] == {"SNS": {**target, "enabled": False}}
    assert found["roleArn"] == ROLE + "2"
    with registry.database.read() as connection:
        settings = check_settings(connection, A.account_id)
    assert settings == {AGE: days["configuration"]}
    assert configuration.threshold_days(AUDIT_CHECKS[AGE], settings[AGE]) == 400
    assert configuration.threshold_days(AUDIT_CHECKS[EXPIRING], {}) == 30
    # what changes nothing is not recorded
    assert rows.operations() == ["UpdateAccountAuditConfiguration"] * 5


@pytest.mark.parametrize(
    ("check", "name", "value"),
    [
        (AGE, "CERT_AGE_THRESHOLD_IN_DAYS", "29"),
        (AGE, "CERT_AGE_THRESHOLD_IN_DAYS", "3653"),
        (AGE, "CERT_AGE_THRESHOLD_IN_DAYS", "a year"),
        (AGE, "CERT_AGE_THRESHOLD_IN_DAYS", "40.0"),
        (AGE, "CERT_AGE_THRESHOLD_IN_DAYS", "٣٠٠"),
        (AGE, "CERT_AGE_THRESHOLD_IN_DAYS", "9" * 64),
        (AGE, "CERT_EXPIRATION_THRESHOLD_IN_DAYS", "40"),
        (QUALITY, "CERT_AGE_THRESHOLD_IN_DAYS", "40"),
        ("NO_SUCH_CHECK", "CERT_AGE_THRESHOLD_IN_DAYS", "40"),
    ],
)
def test_bad_thresholds_change_nothing(registry: Registry, check: str, name: str, value: str) -> None:
    begin(registry)
    good = {EXPIRING: {**ON, "configuration": {"CERT_EXPIRATION_THRESHOLD_IN_DAYS": "30"}}}
    configuration.change(registry, A, checks=good)
    before = configuration.describe(registry, A)
    with pytest.raises(InvalidError):
        configuration.change(registry, A, checks={EXPIRING: OFF, check: {**ON, "configuration": {name: value}}})
    assert configuration.describe(registry, A) == before


def test_unknown_names_are_refused(registry: Registry) -> None:
    begin(registry)
    with pytest.raises(InvalidError):
        configuration.change(registry, A, checks={"NO_SUCH_CHECK": ON})
    with pytest.raises(InvalidError):
        configuration.change(registry, A, targets={"EMAIL": {"enabled": True}})


def test_a_scheduled_check_stays_enabled(registry: Registry) -> None:
    begin(registry, **{QUALITY: ON, AGE: ON})
    schedules.create(registry, A, "nightly", [QUALITY], "DAILY")
    with pytest.raises(InvalidError, match="nightly"):
        configuration.change(registry, A, checks={QUALITY: OFF})
    configuration.change(registry, A, checks={AGE: OFF})
    schedules.remove(registry, A, "nightly")
    configuration.change(registry, A, checks={QUALITY: OFF})
    assert configuration.describe(registry, A)[CHECKS][QUALITY] == OFF


def test_deleted_it_is_the_first_call_again(registry: Registry, rows: Rows) -> None:
    configuration.remove(registry, A)
    begin(registry)
    configuration.change(registry, B, role_arn=ROLE, checks={QUALITY: ON})
    schedules.create(registry, A, "nightly", [QUALITY], "DAILY", tags={"a": "b"})
    with pytest.raises(InvalidError):
        configuration.remove(registry, A)
    assert "roleArn" in configuration.describe(registry, A)
    configuration.remove(registry, A, with_scheduled_audits=True)
    assert configuration.describe(registry, A) == {CHECKS: dict.fromkeys(AUDIT_CHECKS, OFF)}
    assert schedules.listed(registry, A).rows == rows.all("tags") == []
    with pytest.raises(InvalidError):
        configuration.change(registry, A, checks={QUALITY: ON})
    assert "roleArn" in configuration.describe(registry, B)
    assert rows.operations() == [
        "UpdateAccountAuditConfiguration",
        "CreateScheduledAudit",
        "DeleteScheduledAudit",
        "DeleteAccountAuditConfiguration",
    ]
