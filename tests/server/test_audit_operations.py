"""The audit's operations as boto3 meets them: names of members, times, errors; what they mean is tested in tests/audit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keyassay.storage import schema
from live_server import client, running
from two_accounts import A

QUALITY = "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK"
AGE = "DEVICE_CERTIFICATE_AGE_CHECK"
LOGGING = "LOGGING_DISABLED_CHECK"
ROLE = "arn:aws:iam::111111111111:role/audit"
DEVICE = {"deviceCertificateId": "ab" * 32}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running(Path(tmp_path_factory.mktemp("audit"))) as started:
        yield started


@pytest.fixture
def api(server: Any) -> Iterator[Any]:
    made = client(server)
    made.update_account_audit_configuration(
        roleArn=ROLE, auditCheckConfigurations={QUALITY: {"enabled": True}, LOGGING: {"enabled": True}}
    )
    yield made
    made.delete_account_audit_configuration(deleteScheduledAudits=True)


def test_configuration(api: Any) -> None:
    target = {"targetArn": "arn:aws:sns:us-east-1:111111111111:x", "roleArn": ROLE, "enabled": True}
    age = {"enabled": True, "configuration": {"CERT_AGE_THRESHOLD_IN_DAYS": "400"}}
    api.update_account_audit_configuration(
        auditNotificationTargetConfigurations={"SNS": target}, auditCheckConfigurations={AGE: age}
    )
    found = api.describe_account_audit_configuration()
    assert found["roleArn"] == ROLE
    assert found["auditNotificationTargetConfigurations"] == {"SNS": target}
    checks = found["auditCheckConfigurations"]
    assert len(checks) == 17
    assert {name for name, one in checks.items() if one["enabled"]} == {QUALITY, LOGGING, AGE}
    assert checks[AGE] == age
    for bad in (
        {"auditCheckConfigurations": {"NO_SUCH_CHECK": {"enabled": True}}},
        {"auditCheckConfigurations": {AGE: {"configuration": {"CERT_AGE_THRESHOLD_IN_DAYS": "29"}}}},
        {"auditCheckConfigurations": {AGE: {"configuration": {"SOME_THRESHOLD": "40"}}}},
        {"auditNotificationTargetConfigurations": {"EMAIL": target}},
        {"roleArn": "x" * 2049},
    ):
        with pytest.raises(api.exceptions.InvalidRequestException):
            api.update_account_audit_configuration(**bad)
    assert api.describe_account_audit_configuration()["auditCheckConfigurations"] == checks


def test_tasks(api: Any) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    for bad in ([], [AGE], ["NO_SUCH_CHECK"]):
        with pytest.raises(api.exceptions.InvalidRequestException):
            api.start_on_demand_audit_task(targetCheckNames=bad)
    task_id = api.start_on_demand_audit_task(targetCheckNames=[QUALITY, LOGGING])["taskId"]
    task = api.describe_audit_task(taskId=task_id)
    assert task["taskType"] == "ON_DEMAND_AUDIT_TASK"
    assert abs(task["taskStartTime"] - datetime.now(UTC)) < timedelta(minutes=1)
    assert "scheduledAuditName" not in task
    counts = task["taskStatistics"]
    assert len(counts) == 7
    assert counts.pop("totalChecks") == sum(counts.values()) == 2
    assert set(task["auditDetails"]) == {QUALITY, LOGGING}
    for one in task["auditDetails"].values():
        assert one["checkCompliant"] == (one["checkRunStatus"] == "COMPLETED_COMPLIANT")
        assert one["totalResourcesCount"] >= one["nonCompliantResourcesCount"] >= 0
    period = {"startTime": before, "endTime": datetime.now(UTC) + timedelta(minutes=1)}
    listed = api.list_audit_tasks(**period, taskType="ON_DEMAND_AUDIT_TASK")["tasks"]
    assert [(one["taskId"], one["taskType"]) for one in listed] == [(task_id, "ON_DEMAND_AUDIT_TASK")]
    assert api.list_audit_tasks(**period, taskType="SCHEDULED_AUDIT_TASK")["tasks"] == []
    with pytest.raises(api.exceptions.InvalidRequestException):
        api.list_audit_tasks(startTime=before - timedelta(days=91), endTime=before)
    try:
        api.cancel_audit_task(taskId=task_id)
        assert api.describe_audit_task(taskId=task_id)["taskStatus"] == "CANCELED"
    except api.exceptions.InvalidRequestException:  # it has ended meanwhile
        assert api.describe_audit_task(taskId=task_id)["taskStatus"] == "COMPLETED"
    with pytest.raises(api.exceptions.InvalidRequestException):
        api.cancel_audit_task(taskId=task_id)
    for ask in (api.cancel_audit_task, api.describe_audit_task):
        with pytest.raises(api.exceptions.ResourceNotFoundException):
            ask(taskId="no-such-task")


def enter_findings(server: Any) -> None:
    """A task of yesterday that found something."""
    at = time.time_ns() // 1_000_000 - 86_400_000
    owner = {"account_id": A.account_id}
    resource = {
        "resourceType": "DEVICE_CERTIFICATE",
        "resourceIdentifier": DEVICE,
        "additionalInfo": {"EXPIRATION_TIME": "1"},
    }
    task = {"id": "task-1", "type": "ON_DEMAND_AUDIT_TASK", "status": "COMPLETED", "cancel": False, "started_at": at}
    finding = {
        "task_id": "task-1",
        "check_name": QUALITY,
        "task_started_at": at,
        "found_at": at + 1_234,
        "severity": "CRITICAL",
        "resource_type": "DEVICE_CERTIFICATE",
        "resource_key": "deviceCertificateId=" + "ab" * 32,
        "resource": resource,
        "reason": "The private key can be computed.",
    }
    related = {"resourceType": "CA_CERTIFICATE", "resourceIdentifier": {"caCertificateId": "cd" * 32}}
    with server.registry.database.engine.begin() as connection:
        connection.execute(schema.audit_tasks.insert().values({**owner, **task}))
        for name, suppressed in (("CVE-2017-15361", False), ("CVE-2008-0166", True)):
            row = {"id": name, "reason_code": f"CERTIFICATE_KEY_VULNERABILITY_{name}", "suppressed": suppressed}
            connection.execute(schema.audit_findings.insert().values({**owner, **finding, **row}))
        rows = [
            {**owner, "finding_id": "CVE-2017-15361", "number": number, "resource": related} for number in range(12)
        ]
        connection.execute(schema.audit_related.insert(), rows)


def test_findings(server: Any, api: Any) -> None:
    enter_findings(server)
    pages = list(api.get_paginator("list_audit_findings").paginate(taskId="task-1", PaginationConfig={"PageSize": 1}))
    found = [one for page in pages for one in page["findings"]]
    assert [one["findingId"] for one in found] == ["CVE-2008-0166", "CVE-2017-15361"]
    one = found[1]
    assert api.describe_audit_finding(findingId="CVE-2017-15361")["finding"] == one
    assert one["findingTime"] - one["taskStartTime"] == timedelta(milliseconds=1_234)
    assert one["nonCompliantResource"]["resourceIdentifier"] == DEVICE
    assert one["nonCompliantResource"]["additionalInfo"] == {"EXPIRATION_TIME": "1"}
    assert one["reasonForNonComplianceCode"] == "CERTIFICATE_KEY_VULNERABILITY_CVE-2017-15361"
    assert (one["severity"], one["isSuppressed"], found[0]["isSuppressed"]) == ("CRITICAL", False, True)
    assert len(one["relatedResources"]) == 10
    paginator = api.get_paginator("list_related_resources_for_audit_finding")
    related = [
        row
        for page in paginator.paginate(findingId="CVE-2017-15361", PaginationConfig={"PageSize": 5})
        for row in page["relatedResources"]
    ]
    assert len(related) == 12
    assert related[0]["resourceIdentifier"] == {"caCertificateId": "cd" * 32}
    now = datetime.now(UTC)
    chosen = api.list_audit_findings(
        startTime=now - timedelta(days=2),
        endTime=now,
        checkName=QUALITY,
        resourceIdentifier=DEVICE,
        listSuppressedFindings=False,
    )["findings"]
    assert chosen == [one]
    for bad in (
        {},
        {"startTime": now},
        {"taskId": "task-1", "startTime": now - timedelta(days=1), "endTime": now},
        {"taskId": "task-1", "nextToken": "AAAA"},
        {"taskId": "task-1", "maxResults": 251},
        {"taskId": "no-such-task"},
    ):
        with pytest.raises(api.exceptions.InvalidRequestException):
            api.list_audit_findings(**bad)
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.describe_audit_finding(findingId="none")


def test_suppressions(api: Any) -> None:
    key = {"checkName": QUALITY, "resourceIdentifier": DEVICE}
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    api.create_audit_suppression(**key, expirationDate=end, description="known")
    found = api.describe_audit_suppression(**key)
    assert (found["expirationDate"], found["suppressIndefinitely"], found["description"]) == (end, False, "known")
    with pytest.raises(api.exceptions.ResourceAlreadyExistsException):
        api.create_audit_suppression(**key, suppressIndefinitely=True)
    api.update_audit_suppression(**key, suppressIndefinitely=True)
    (listed,) = api.list_audit_suppressions()["suppressions"]
    assert listed == {**key, "suppressIndefinitely": True, "description": "known"}
    other = {"checkName": LOGGING, "resourceIdentifier": {"account": A.account_id}}
    api.create_audit_suppression(**other, expirationDate=end, clientRequestToken="again")
    with pytest.raises(api.exceptions.InvalidRequestException):
        api.create_audit_suppression(
            checkName=AGE, resourceIdentifier=DEVICE, suppressIndefinitely=True, clientRequestToken="again"
        )
    pages = api.get_paginator("list_audit_suppressions").paginate(PaginationConfig={"PageSize": 1})
    assert [one["checkName"] for page in pages for one in page["suppressions"]] == [LOGGING, QUALITY]
    newest = api.list_audit_suppressions(ascendingOrder=False, checkName=QUALITY)["suppressions"]
    assert [one["checkName"] for one in newest] == [QUALITY]
    for one in (key, key, other):
        api.delete_audit_suppression(checkName=one["checkName"], resourceIdentifier=one["resourceIdentifier"])
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.describe_audit_suppression(**key)


def test_scheduled_audits(api: Any) -> None:
    made = api.create_scheduled_audit(
        scheduledAuditName="nightly",
        targetCheckNames=[QUALITY],
        frequency="DAILY",
        dayOfWeek="MON",
        tags=[{"Key": "team", "Value": "x"}],
    )
    arn = made["scheduledAuditArn"]
    assert arn == "arn:aws:iot:us-east-1:111111111111:scheduledaudit/nightly"
    assert api.list_tags_for_resource(resourceArn=arn)["tags"] == [{"Key": "team", "Value": "x"}]
    found = api.describe_scheduled_audit(scheduledAuditName="nightly")
    del found["ResponseMetadata"]
    listed = {"scheduledAuditName": "nightly", "scheduledAuditArn": arn, "frequency": "DAILY"}
    assert found == {**listed, "targetCheckNames": [QUALITY]}
    changed = api.update_scheduled_audit(scheduledAuditName="nightly", frequency="MONTHLY", dayOfMonth="LAST")
    assert changed["scheduledAuditArn"] == arn
    (row,) = api.list_scheduled_audits()["scheduledAudits"]
    assert row == {**listed, "frequency": "MONTHLY", "dayOfMonth": "LAST"}
    with pytest.raises(api.exceptions.InvalidRequestException):  # it is scheduled
        api.update_account_audit_configuration(auditCheckConfigurations={QUALITY: {"enabled": False}})
    with pytest.raises(api.exceptions.ResourceAlreadyExistsException) as raised:
        api.create_scheduled_audit(scheduledAuditName="nightly", targetCheckNames=[QUALITY], frequency="DAILY")
    assert raised.value.response["resourceArn"] == arn
    with pytest.raises(api.exceptions.InvalidRequestException):
        api.create_scheduled_audit(scheduledAuditName="x", targetCheckNames=[QUALITY], frequency="WEEKLY")
    for number in range(4):
        api.create_scheduled_audit(scheduledAuditName=f"n{number}", targetCheckNames=[QUALITY], frequency="DAILY")
    with pytest.raises(api.exceptions.LimitExceededException):
        api.create_scheduled_audit(scheduledAuditName="n4", targetCheckNames=[QUALITY], frequency="DAILY")
    pages = api.get_paginator("list_scheduled_audits").paginate(PaginationConfig={"PageSize": 2})
    assert len([one for page in pages for one in page["scheduledAudits"]]) == 5
    with pytest.raises(api.exceptions.InvalidRequestException):
        api.delete_account_audit_configuration()
    api.delete_scheduled_audit(scheduledAuditName="nightly")
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.delete_scheduled_audit(scheduledAuditName="nightly")
