"""Mitigation tasks from start to end: every action, failures, suppressions, filters, cancellation, idempotency."""

from __future__ import annotations

import time
from typing import Any

import pytest
import structlog

import fleet_keys
from audit_findings import CA_KEYS, DEVICE_KEYS, INTERMEDIATES, LOGGING, POLICIES, Found, audit, device
from keyassay.mitigation import actions, steps, tasks
from keyassay.mitigation.plan import SUPPRESSED
from keyassay.mitigation.tasks import Progress
from keyassay.mitigation.worker import MitigationWorker
from keyassay.registry import (
    authorities,
    certificates,
    documents,
    issuing,
    memberships,
    policies,
    principals,
    thing_groups,
    things,
)
from keyassay.registry.errors import InvalidError, NotFoundError, TaskExistsError
from keyassay.registry.registry import Registry
from keyassay.storage.database import Transaction
from mitigation_tasks import PARAMS, ROLE, counts, register, run, status_of, statuses, work
from two_accounts import A, B, Rows

OPEN_POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}'


@pytest.fixture
def fleet(registry: Registry) -> Registry:
    """A registry with one action of each kind."""
    for name, params in PARAMS.items():
        actions.create(registry, A, name, ROLE, params)
    return registry


def test_device_certificates_are_deactivated_and_their_things_put_into_a_group(fleet: Registry, rows: Rows) -> None:
    thing_groups.create(fleet, A, "quarantine")
    weak, other = register(fleet, 2)
    for name in ("lamp", "door", "lift"):
        things.create(fleet, A, name)
    for name, certificate_id in (("lamp", weak), ("door", weak), ("lift", other)):
        principals.attach(fleet, A, name, fleet.arn(A.account_id, f"cert/{certificate_id}"))
    found = device(weak)
    task_id = audit(fleet, [found])
    row = run(fleet, {"auditTaskId": task_id}, {DEVICE_KEYS: ["deactivate", "quarantine"]})
    assert (row["status"], counts(row)) == ("COMPLETED", {"total": 1, "succeeded": 1})
    assert row["ended_at"] >= row["started_at"]
    assert (status_of(fleet, weak), status_of(fleet, other)) == ("INACTIVE", "ACTIVE")
    members = memberships.things_in(fleet, A, "quarantine").rows
    assert sorted(one["thing_name"] for one in members) == ["door", "lamp"]
    executions = tasks.executions(fleet, A, "task", found.id).rows
    assert [(one["action_name"], one["status"]) for one in executions] == [
        ("deactivate", "COMPLETED"),
        ("quarantine", "COMPLETED"),
    ]
    assert executions[0]["action_id"] == actions.describe(fleet, A, "deactivate")["id"]
    assert all(one["ended_at"] and not one["error_code"] and not one["message"] for one in executions)
    made = [one for one in rows.all("changes") if one["actor"] == "worker:mitigation"]
    assert [one["operation"] for one in made] == [steps.OPERATION] * 3 + ["EndAuditMitigationActionsTask"]
    assert {one["request_id"] for one in made} == {"task"}


def test_authorities_policies_and_logging(fleet: Registry) -> None:
    ca = authorities.register(fleet, A, fleet_keys.authority().pem, mode="SNI_ONLY", set_as_active=True)
    policies.create(fleet, A, "open", OPEN_POLICY)
    policies.create(fleet, A, "full", OPEN_POLICY)
    for _ in range(4):
        policies.create_version(fleet, A, "full", OPEN_POLICY)
    policies.create(fleet, A, "repaired", OPEN_POLICY)
    policies.create_version(fleet, A, "repaired", OPEN_POLICY, set_as_default=True)

    def of_policy(name: str) -> Found:
        return Found(POLICIES, {"policyVersionIdentifier": {"policyName": name, "policyVersionId": "1"}})

    found = [
        Found(CA_KEYS, {"caCertificateId": ca.id}),
        of_policy("open"),
        of_policy("full"),
        of_policy("repaired"),
        Found(LOGGING, {"account": A.account_id}),
    ]
    mapping = {CA_KEYS: ["deactivate-ca"], POLICIES: ["blank"], LOGGING: ["log"]}
    row = run(fleet, {"auditTaskId": audit(fleet, found)}, mapping)
    assert row["status"] == "FAILED"
    assert counts(row, CA_KEYS) == counts(row, LOGGING) == {"total": 1, "succeeded": 1}
    assert counts(row, POLICIES) == {"total": 3, "succeeded": 1, "failed": 2}
    assert authorities.describe(fleet, A, ca.id)["status"] == "INACTIVE"
    blank = policies.version(fleet, A, "open")
    assert (blank.version, blank.document) == (2, steps.BLANK_POLICY)
    policies.check_document(blank.document)
    assert policies.version(fleet, A, "open", "1").document == OPEN_POLICY
    assert policies.version(fleet, A, "repaired").version == 2
    errors = {
        one["error_code"]: one["message"]
        for which in found
        for one in tasks.executions(fleet, A, "task", which.id).rows
        if one["error_code"]
    }
    assert set(errors) == {"VERSIONS_LIMIT_EXCEEDED", "INVALID_REQUEST"}
    assert "version 1" in errors["INVALID_REQUEST"]
    assert documents.logging_options(fleet, A) == {
        "disableAllLogs": False,
        "roleArn": ROLE,
        "defaultLogLevel": "INFO",
    }
    # a second task finds nothing left to do, and says so by succeeding
    again = run(fleet, {"findingIds": [found[0].id, found[1].id, found[4].id]}, mapping, "again")
    assert again["status"] == "COMPLETED"
    assert len(policies.versions(fleet, A, "open")) == 2


def test_the_authority_that_issues_is_not_deactivated(fleet: Registry) -> None:
    own = issuing.make_issuer(fleet, A)
    found = Found(CA_KEYS, {"caCertificateId": own.id})
    registered = fleet_keys.authority("registered")
    authorities.register(fleet, A, registered.pem, mode="SNI_ONLY", set_as_active=True)
    other = Found(CA_KEYS, {"caCertificateId": registered.id})
    target = {"auditTaskId": audit(fleet, [found, other])}
    planned = tasks.dry_run(fleet, A, target, {CA_KEYS: ["deactivate-ca"]}).rows
    assert {one.finding.id: one.steps[0].effect for one in planned} == {
        found.id: f"authority {own.id} stays, since the account issues by it: `keyassay ca init` or `keyassay ca import` "
        "gives the account another one",
        other.id: f"authority {registered.id} becomes INACTIVE",
    }
    row = run(fleet, target, {CA_KEYS: ["deactivate-ca"]})
    assert counts(row, CA_KEYS) == {"total": 2, "failed": 1, "succeeded": 1}
    (execution,) = tasks.executions(fleet, A, "task", found.id).rows
    assert execution["error_code"] == "INVALID_REQUEST"
    assert "keyassay ca init" in execution["message"]


@pytest.mark.parametrize("one_is_gone", [False, True])
def test_an_authority_above_devices_is_about_all_of_them(fleet: Registry, one_is_gone: bool) -> None:
    ids = register(fleet, 3)
    named = ["0" * 64, *ids[:2]] if one_is_gone else ids[:2]
    found = Found(
        INTERMEDIATES,
        {"issuerCertificateIdentifier": {"issuerId": "i", "issuerCertificateSerialNumber": "1"}},
        related=[
            {"resourceType": "DEVICE_CERTIFICATE", "resourceIdentifier": {"deviceCertificateId": one}} for one in named
        ],
    )
    row = run(fleet, {"auditTaskId": audit(fleet, [found])}, {INTERMEDIATES: ["deactivate"]})
    assert counts(row, INTERMEDIATES) == {"total": 1, ("failed" if one_is_gone else "succeeded"): 1}
    assert [status_of(fleet, one) for one in ids] == ["INACTIVE", "INACTIVE", "ACTIVE"]


def test_a_failure_skips_the_rest_for_that_finding_only_and_undoes_nothing(fleet: Registry) -> None:
    weak = register(fleet, 3)
    gone = "0" * 64
    certificates.set_status(fleet, A, weak[2], "REVOKED")
    found = [device(one) for one in (*weak, gone)]
    # there is no group of that name
    mapping = {DEVICE_KEYS: ["deactivate", "quarantine", "deactivate"]}
    row = run(fleet, {"auditTaskId": audit(fleet, found)}, mapping)
    assert (row["status"], counts(row)) == ("FAILED", {"total": 4, "failed": 4})
    assert statuses(fleet, found[0].id) == ["COMPLETED", "FAILED", "SKIPPED"]
    assert statuses(fleet, found[3].id) == ["FAILED", "SKIPPED", "SKIPPED"]
    failed = tasks.executions(fleet, A, "task", found[0].id, status="FAILED").rows
    assert [(one["error_code"], one["message"]) for one in failed] == [
        ("RESOURCE_NOT_FOUND", "there is no thing group quarantine")
    ]
    assert [status_of(fleet, one) for one in weak] == ["INACTIVE", "INACTIVE", "REVOKED"]
    skipped = tasks.executions(fleet, A, "task", found[3].id, status="SKIPPED").rows
    assert all(one["error_code"] is None and one["message"] is None for one in skipped)


def test_a_step_that_fails_half_way_leaves_nothing(fleet: Registry) -> None:
    thing_groups.create(fleet, A, "top")
    thing_groups.create(fleet, A, "quarantine", parent="top")
    (weak,) = register(fleet)
    for name in ("a", "b"):
        things.create(fleet, A, name)
        principals.attach(fleet, A, name, fleet.arn(A.account_id, f"cert/{weak}"))
    memberships.add(fleet, A, "b", "top")  # so that b cannot join a group below it
    found = device(weak)
    row = run(fleet, {"auditTaskId": audit(fleet, [found])}, {DEVICE_KEYS: ["quarantine"]})
    assert counts(row) == {"total": 1, "failed": 1}
    assert memberships.things_in(fleet, A, "quarantine").rows == []


def test_large_findings_are_dealt_with_in_short_transactions(
    fleet: Registry, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_PIECE", 2)
    monkeypatch.setattr(steps, "_THINGS", 3)
    thing_groups.create(fleet, A, "quarantine")
    ids = register(fleet, 6)
    for number in range(11):
        things.create(fleet, A, f"thing-{number:02}")
        principals.attach(fleet, A, f"thing-{number:02}", fleet.arn(A.account_id, f"cert/{ids[0]}"))
    above = Found(
        INTERMEDIATES,
        {"issuerCertificateIdentifier": {"issuerId": "i", "issuerCertificateSerialNumber": "1"}},
        related=[
            {"resourceType": "DEVICE_CERTIFICATE", "resourceIdentifier": {"deviceCertificateId": one}}
            for one in ids[:5]
        ],
    )
    found = [device(ids[5]), device(ids[0]), above]
    sizes: list[int] = []
    write = Transaction.write_changes

    def watched(transaction: Transaction) -> None:
        sizes.append(len(transaction._recorded))
        write(transaction)

    monkeypatch.setattr(Transaction, "write_changes", watched)
    mapping = {DEVICE_KEYS: ["quarantine"], INTERMEDIATES: ["deactivate"]}
    row = run(fleet, {"auditTaskId": audit(fleet, found)}, mapping)
    assert (row["status"], counts(row), counts(row, INTERMEDIATES)) == (
        "COMPLETED",
        {"total": 2, "succeeded": 2},
        {"total": 1, "succeeded": 1},
    )
    assert [status_of(fleet, one) for one in ids] == ["INACTIVE"] * 5 + ["ACTIVE"]
    assert len(memberships.things_in(fleet, A, "quarantine").rows) == 11
    assert statuses(fleet, found[1].id) == ["COMPLETED"]
    assert max(sizes) == 3
    made = [one for one in rows.all("changes") if one["actor"] == "worker:mitigation"]
    assert len(made) == 11 + 5 + 1
    assert {one["request_id"] for one in made} == {"task"}


def test_a_cancelled_task_does_no_more_pieces(fleet: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_THINGS", 3)
    thing_groups.create(fleet, A, "quarantine")
    (weak,) = register(fleet)
    for number in range(11):
        things.create(fleet, A, f"thing-{number:02}")
        principals.attach(fleet, A, f"thing-{number:02}", fleet.arn(A.account_id, f"cert/{weak}"))
    add = memberships.add_to_groups

    def cancelling(*given: Any, **more: Any) -> Any:
        done = add(*given, **more)
        cancel.append(1)
        return done

    cancel: list[int] = []
    monkeypatch.setattr(memberships, "add_to_groups", cancelling)
    real = steps.do_ahead

    def ahead(registry: Registry, step: Any, transactions: Any) -> bool:
        def watched() -> Any:
            if len(cancel) == 2:
                tasks.cancel(registry, A, "task")
                cancel.append(1)
            return transactions()

        return real(registry, step, watched)

    monkeypatch.setattr(steps, "do_ahead", ahead)
    row = run(fleet, {"auditTaskId": audit(fleet, [device(weak)])}, {DEVICE_KEYS: ["quarantine"]})
    assert row["status"] == "CANCELED"
    assert len(memberships.things_in(fleet, A, "quarantine").rows) == 6


def test_suppressed_filtered_and_other_findings_are_left_alone(fleet: Registry) -> None:
    weak = register(fleet, 5)
    roca, debian = "CERTIFICATE_KEY_VULNERABILITY_CVE-2017-15361", "CERTIFICATE_KEY_VULNERABILITY_CVE-2008-0166"
    found = [
        device(weak[0], code=roca),
        device(weak[1], code=debian),
        device(weak[2], code=roca, suppressed=True),
        Found("DEVICE_CERTIFICATE_AGE_CHECK", {"deviceCertificateId": weak[3]}),
    ]
    task_id = audit(fleet, found)
    audit(fleet, [device(weak[4], code=roca)])
    target = {"auditTaskId": task_id, "auditCheckToReasonCodeFilter": {DEVICE_KEYS: [roca]}}
    row = run(fleet, target, {DEVICE_KEYS: ["deactivate"]})
    assert counts(row) == {"total": 3, "succeeded": 1, "skipped": 2}
    assert list(Progress.of(row).statistics()) == [DEVICE_KEYS]
    assert [status_of(fleet, one) for one in weak] == ["INACTIVE", *["ACTIVE"] * 4]
    assert statuses(fleet, found[2].id) == ["SKIPPED"]
    assert statuses(fleet, found[1].id) == statuses(fleet, found[3].id) == []
    other = run(fleet, target, {"DEVICE_CERTIFICATE_AGE_CHECK": ["deactivate"]}, "other")
    assert counts(other, "DEVICE_CERTIFICATE_AGE_CHECK") == {"total": 1, "skipped": 1}


def test_findings_by_name_from_several_audits(fleet: Registry) -> None:
    weak = register(fleet, 3)
    first, second = device(weak[0]), device(weak[0])
    one = audit(fleet, [first, device(weak[1])])
    two = audit(fleet, [second])
    row = run(fleet, {"findingIds": [second.id, first.id]}, {DEVICE_KEYS: ["deactivate"]})
    assert counts(row) == {"total": 2, "succeeded": 2}
    assert [status_of(fleet, one) for one in weak] == ["INACTIVE", "ACTIVE", "ACTIVE"]
    run(fleet, {"auditTaskId": one}, {DEVICE_KEYS: ["deactivate"]}, "second")
    now = time.time_ns() // 1_000_000

    def listed(**filters: Any) -> list[str]:
        found = tasks.listed(fleet, A, start_time=now - 60_000, end_time=now + 60_000, **filters)
        return sorted(row["id"] for row in found.rows)

    assert listed() == ["second", "task"]
    assert listed(audit_task_id=one) == ["second", "task"]
    assert listed(audit_task_id=two) == ["task"]
    assert listed(audit_task_id="none") == listed(finding_id="none") == listed(status="FAILED") == []
    assert listed(finding_id=first.id) == ["second", "task"]
    assert listed(finding_id=second.id, status="COMPLETED") == ["task"]
    page = tasks.listed(fleet, A, start_time=now - 60_000, end_time=now + 60_000, size=1)
    assert [row["id"] for row in page.rows] == ["second"]
    page = tasks.listed(fleet, A, start_time=now - 60_000, end_time=now + 60_000, size=1, token=page.next_token)
    assert [row["id"] for row in page.rows] == ["task"]
    with pytest.raises(InvalidError):
        tasks.listed(fleet, A, start_time=now, end_time=now - 1)
    assert tasks.listed(fleet, A, start_time=0, end_time=1).rows == []


def test_what_is_refused(fleet: Registry, rows: Rows) -> None:
    task_id = audit(fleet, [device("0" * 64)])
    good = {"auditTaskId": task_id}
    fits = {DEVICE_KEYS: ["deactivate"]}
    for target, mapping in (
        ({}, fits),
        ({"findingIds": []}, fits),
        ({"auditTaskId": "none"}, fits),
        ({"findingIds": ["none"]}, fits),
        ({"auditTaskId": task_id, "findingIds": ["x"]}, fits),
        ({"auditCheckToReasonCodeFilter": {DEVICE_KEYS: ["x"]}}, fits),
        ({"auditTaskId": task_id, "auditCheckToReasonCodeFilter": {}}, fits),
        ({"auditTaskId": task_id, "auditCheckToReasonCodeFilter": {"NO_CHECK": ["x"]}}, fits),
        (good, {}),
        (good, {"NO_CHECK": ["publish"]}),
        (good, {DEVICE_KEYS: ["none"]}),
        (good, {DEVICE_KEYS: ["deactivate-ca"]}),
        (good, {DEVICE_KEYS: ["deactivate"], LOGGING: ["deactivate"]}),
    ):
        with pytest.raises(InvalidError):
            tasks.start(fleet, A, "task", target, mapping, "token")
        with pytest.raises(InvalidError):
            tasks.dry_run(fleet, A, target, mapping)
    with pytest.raises(InvalidError):  # another account's audit
        tasks.start(fleet, B, "task", good, fits, "token")
    assert rows.all("mitigation_tasks") == []
    for call in (tasks.describe, tasks.cancel):
        with pytest.raises(NotFoundError):
            call(fleet, A, "task")
    assert tasks.executions(fleet, A, "task", "finding").rows == []


def test_a_request_sent_twice_is_one_task(fleet: Registry, rows: Rows) -> None:
    (weak,) = register(fleet)
    target = {"auditTaskId": audit(fleet, [device(weak)])}
    mapping = {DEVICE_KEYS: ["deactivate"]}
    for _ in range(2):
        assert tasks.start(fleet, A, "task", target, mapping, "token") == "task"
    with pytest.raises(TaskExistsError):
        tasks.start(fleet, A, "task", target, mapping, "another token")
    with pytest.raises(TaskExistsError):
        tasks.start(fleet, A, "another", target, mapping, "token")
    work(fleet)
    certificates.set_status(fleet, A, weak, "ACTIVE")
    tasks.start(fleet, A, "task", target, mapping, "token")
    work(fleet)
    assert status_of(fleet, weak) == "ACTIVE"
    assert len(rows.all("mitigation_tasks")) == 1


def test_a_task_keeps_the_actions_of_its_start(fleet: Registry) -> None:
    (weak,) = register(fleet)
    target = {"auditTaskId": audit(fleet, [device(weak)])}
    tasks.start(fleet, A, "task", target, {DEVICE_KEYS: ["deactivate"]}, "token")
    actions.change(fleet, A, "deactivate", params=PARAMS["quarantine"])
    actions.remove(fleet, A, "deactivate")
    work(fleet)
    assert status_of(fleet, weak) == "INACTIVE"
    assert tasks.describe(fleet, A, "task")["definitions"][0]["actionParams"] == PARAMS["deactivate"]


def test_cancel_before_the_work(fleet: Registry) -> None:
    weak = register(fleet, 2)
    target = {"auditTaskId": audit(fleet, [device(one) for one in weak])}
    tasks.start(fleet, A, "task", target, {DEVICE_KEYS: ["deactivate"]}, "token")
    tasks.cancel(fleet, A, "task")
    work(fleet)
    row = tasks.describe(fleet, A, "task")
    assert (row["status"], counts(row)) == ("CANCELED", {"total": 2, "canceled": 2})
    assert row["ended_at"]
    assert [status_of(fleet, one) for one in weak] == ["ACTIVE", "ACTIVE"]
    with pytest.raises(InvalidError):
        tasks.cancel(fleet, A, "task")


def test_cancel_in_the_middle(fleet: Registry, rows: Rows) -> None:
    weak = register(fleet, 2)
    found = [device(one) for one in weak]
    target = {"auditTaskId": audit(fleet, found)}
    row = run(fleet, target, {DEVICE_KEYS: ["publish", "deactivate"]})
    assert (row["status"], counts(row)) == ("IN_PROGRESS", {"total": 2})
    assert statuses(fleet, found[0].id) == ["IN_PROGRESS", "PENDING"]
    tasks.cancel(fleet, A, "task")
    row = tasks.describe(fleet, A, "task")
    assert (row["status"], counts(row)) == ("CANCELED", {"total": 2, "canceled": 2})
    assert statuses(fleet, found[0].id) == ["CANCELED", "CANCELED"]
    assert {one["status"] for one in rows.all("outbox")} == {"CANCELED"}
    assert [status_of(fleet, one) for one in weak] == ["ACTIVE", "ACTIVE"]


def test_a_large_audit_goes_in_batches(fleet: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyassay.mitigation.worker.BATCH", 4)
    monkeypatch.setattr("keyassay.mitigation.worker.CHECKPOINT", 0.0)
    weak = register(fleet, 9)
    found = [device(one) for one in weak]
    row = run(fleet, {"auditTaskId": audit(fleet, found)}, {DEVICE_KEYS: ["deactivate"]})
    assert (row["status"], counts(row)) == ("COMPLETED", {"total": 9, "succeeded": 9})
    assert {status_of(fleet, one) for one in weak} == {"INACTIVE"}
    empty = run(fleet, {"auditTaskId": audit(fleet, [])}, {DEVICE_KEYS: ["deactivate"]}, "empty")
    assert (empty["status"], Progress.of(empty).statistics()) == ("COMPLETED", {})


def test_a_dry_run_tells_what_the_task_then_does(fleet: Registry, rows: Rows) -> None:
    thing_groups.create(fleet, A, "quarantine")
    weak = sorted(register(fleet, 3))
    things.create(fleet, A, "lamp")
    principals.attach(fleet, A, "lamp", fleet.arn(A.account_id, f"cert/{weak[0]}"))
    found = [device(one) for one in weak]
    found[1].suppressed = True
    target = {"auditTaskId": audit(fleet, found)}
    mapping = {DEVICE_KEYS: ["deactivate", "quarantine"]}
    changes = rows.operations()
    first = tasks.dry_run(fleet, A, target, mapping, size=2)
    second = tasks.dry_run(fleet, A, target, mapping, size=2, token=first.next_token)
    assert second.next_token is None
    with pytest.raises(InvalidError):
        tasks.dry_run(fleet, A, target, {DEVICE_KEYS: ["deactivate"]}, token=first.next_token)
    assert rows.operations() == changes
    planned = [*first.rows, *second.rows]
    assert [one.finding.id for one in planned] == [one.id for one in found]
    assert planned[0].steps[1].things == ("lamp",)
    assert planned[0].steps[1].effect == f"thing lamp of certificate {weak[0]} joins quarantine"
    row = run(fleet, target, mapping)
    assert counts(row) == {"total": 3, "succeeded": 2, "skipped": 1}
    for one in planned:
        done = tasks.executions(fleet, A, "task", one.finding.id).rows
        assert [step.action.name for step in one.steps] == [each["action_name"] for each in done]
        assert {each["status"] for each in done} == ({"SKIPPED"} if one.skipped == SUPPRESSED else {"COMPLETED"})


def test_a_dry_run_with_actions_that_do_not_exist_yet(registry: Registry, rows: Rows) -> None:
    weak = register(registry, 1)[0]
    target, mapping = {"auditTaskId": audit(registry, [device(weak)])}, {DEVICE_KEYS: ["new"]}
    with pytest.raises(InvalidError):
        tasks.dry_run(registry, A, target, mapping)
    proposed = actions.Action("new", "", "", PARAMS["deactivate"])
    (planned,) = tasks.dry_run(registry, A, target, mapping, proposed=[proposed]).rows
    assert planned.steps[0].effect == f"certificate {weak} becomes INACTIVE"
    with pytest.raises(InvalidError, match="does nothing about"):
        tasks.dry_run(registry, A, target, {LOGGING: ["new"]}, proposed=[proposed])
    assert rows.all("mitigation_actions") == []


def test_old_tasks_go_and_open_ones_stay(fleet: Registry, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    weak = register(fleet, 2)
    run(fleet, {"auditTaskId": audit(fleet, [device(one) for one in weak])}, {DEVICE_KEYS: ["deactivate"]})
    run(fleet, {"auditTaskId": audit(fleet, [device(weak[0])])}, {DEVICE_KEYS: ["publish"]}, "open")
    monkeypatch.setattr("keyassay.mitigation.worker.RETENTION_DAYS", -1)
    MitigationWorker(fleet, structlog.testing.CapturingLogger())._sweep()
    assert [row["id"] for row in rows.all("mitigation_tasks")] == ["open"]
    assert {row["task_id"] for row in rows.all("mitigation_executions")} == {"open"}
