"""Findings listed by task and by time with all filters, page by page, on both databases."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from keyassay.audit import findings
from keyassay.audit.checks import resource_key
from keyassay.audit.findings import AuditFinding
from keyassay.registry.errors import InvalidError, NotFoundError
from keyassay.registry.registry import Page, Registry
from keyassay.storage import schema
from two_accounts import A, B

QUALITY = "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK"
AGE = "DEVICE_CERTIFICATE_AGE_CHECK"
CONFLICT = "CONFLICTING_CLIENT_IDS_CHECK"
NOW = time.time_ns() // 1_000_000
DAY = 86_400_000


def device(number: int) -> dict[str, Any]:
    return {"deviceCertificateId": f"{number:064x}"}


def enter_task(registry: Registry, task_id: str, account_id: str = A.account_id) -> None:
    row = {"account_id": account_id, "id": task_id, "type": "ON_DEMAND_AUDIT_TASK", "status": "COMPLETED",
           "cancel": False, "started_at": NOW}  # fmt: skip
    with registry.database.engine.begin() as connection:
        connection.execute(schema.audit_tasks.insert().values(row))


def enter(registry: Registry, *found: dict[str, Any]) -> None:
    """Findings as the worker writes them."""
    rows = []
    for one in found:
        identifier = one.pop("identifier")
        kind = "CLIENT_ID" if "clientId" in identifier else "DEVICE_CERTIFICATE"
        rows.append(
            {
                "account_id": A.account_id,
                "task_id": "task-1",
                "check_name": QUALITY,
                "task_started_at": NOW,
                "found_at": NOW,
                "severity": "CRITICAL",
                "resource_type": kind,
                "resource_key": resource_key(identifier),
                "resource": {"resourceType": kind, "resourceIdentifier": identifier},
                "reason_code": "R",
                "reason": "Because.",
                "suppressed": False,
                "evidence": None,
                **one,
            }
        )
    with registry.database.engine.begin() as connection:
        connection.execute(schema.audit_findings.insert(), rows)


def relate(registry: Registry, finding_id: str, count: int) -> None:
    rows = [
        {"account_id": A.account_id, "finding_id": finding_id, "number": number, "resource": {"number": number}}
        for number in range(count)
    ]
    with registry.database.engine.begin() as connection:
        connection.execute(schema.audit_related.insert(), rows)


def ids(page: Page[AuditFinding]) -> list[str]:
    return [one.row["id"] for one in page.rows]


def all_pages(ask: Callable[[str | None], Page[Any]]) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = ask(token)
        found += page.rows
        token = page.next_token
        if token is None:
            return found


@pytest.fixture
def filled(registry: Registry) -> Registry:
    enter_task(registry, "task-1")
    enter_task(registry, "task-2")
    enter_task(registry, "task-b", B.account_id)
    enter(
        registry,
        {"id": "a", "identifier": device(1), "found_at": NOW - 30},
        {"id": "b", "identifier": device(1), "found_at": NOW - 20, "reason_code": "S", "suppressed": True},
        {"id": "c", "identifier": device(2), "found_at": NOW - 20},
        {"id": "d", "identifier": device(1), "found_at": NOW - 10, "check_name": AGE, "severity": "LOW"},
        {"id": "e", "identifier": device(1), "found_at": NOW, "task_id": "task-2"},
        {"id": "f", "identifier": device(1), "account_id": B.account_id, "task_id": "task-b"},
        {"id": "old", "identifier": device(1), "found_at": NOW - 89 * DAY, "task_id": "task-0"},
    )
    return registry


def test_of_a_task(filled: Registry) -> None:
    def of(task_id: str = "task-1", **filters: Any) -> set[str]:
        return set(ids(findings.listed(filled, A, task_id=task_id, **filters)))

    assert of() == {"a", "b", "c", "d"}
    assert of("task-2") == {"e"}
    assert of(check_name=AGE) == {"d"}
    assert of(identifier=device(1)) == {"a", "b", "d"}
    assert of(identifier={"deviceCertificateId": "0x" + f"{1:064X}"}, check_name=QUALITY) == {"a", "b"}
    assert of(suppressed=True) == {"b"}
    assert of(suppressed=False) == {"a", "c", "d"}
    assert of(check_name=CONFLICT) == set()


def test_of_a_time_the_newest_first(filled: Registry) -> None:
    def within(start: int, end: int = NOW, **filters: Any) -> list[str]:
        return ids(findings.listed(filled, A, start_time=start, end_time=end, **filters))

    assert within(NOW - 30) == ["e", "d", "c", "b", "a"]
    assert within(NOW - 20, NOW - 10) == ["d", "c", "b"]
    assert within(NOW - 30, check_name=QUALITY, identifier=device(1), suppressed=False) == ["e", "a"]
    assert within(NOW - 89 * DAY, NOW - 88 * DAY) == ["old"]


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"start_time": NOW - 1},
        {"end_time": NOW},
        {"task_id": "task-1", "start_time": NOW - 1, "end_time": NOW},
        {"task_id": "task-1", "end_time": NOW},
        {"start_time": NOW, "end_time": NOW - 1},
        {"start_time": NOW - 91 * DAY, "end_time": NOW},
        {"task_id": "task-3"},
        {"task_id": "task-b"},
        {"task_id": "task-1", "check_name": "NO_SUCH_CHECK"},
        {"task_id": "task-1", "identifier": {}},
        {"task_id": "task-1", "identifier": {**device(1), "account": A.account_id}},
        {"task_id": "task-1", "token": "AAAA"},
    ],
)
def test_refused(filled: Registry, question: Any) -> None:
    with pytest.raises(InvalidError):
        findings.listed(filled, A, **question)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pages_have_no_gaps_and_nothing_twice(filled: Registry, size: int) -> None:
    # the longest keys that there are, in a script whose characters take three bytes each
    enter(
        filled,
        *(
            {"id": f"client-{number}", "identifier": {"clientId": "語" * 380 + str(number)}, "check_name": CONFLICT}
            for number in range(4)
        ),
    )
    period = {"start_time": NOW - DAY, "end_time": NOW}
    by_task = all_pages(lambda token: findings.listed(filled, A, task_id="task-1", token=token, size=size))
    by_time = all_pages(lambda token: findings.listed(filled, A, **period, token=token, size=size))
    expected = ["a", "b", "c", *(f"client-{number}" for number in range(4)), "d"]
    assert sorted(one.row["id"] for one in by_task) == expected
    assert sorted(one.row["id"] for one in by_time) == [*expected, "e"]
    of_check = {"task_id": "task-1", "check_name": CONFLICT}
    by_check = all_pages(lambda token: findings.listed(filled, A, **of_check, token=token, size=size))
    assert sorted(one.row["id"] for one in by_check) == expected[3:7]
    token = findings.listed(filled, A, task_id="task-1", size=1).next_token
    for other in ({"task_id": "task-2"}, {"task_id": "task-1", "suppressed": False}, period):
        with pytest.raises(InvalidError):
            findings.listed(filled, A, **other, token=token)


def test_related_resources_ten_in_a_finding_and_all_of_them_paged(filled: Registry) -> None:
    relate(filled, "a", 23)
    relate(filled, "c", 1)
    page = findings.listed(filled, A, task_id="task-1", check_name=QUALITY)
    counts = {one.row["id"]: [row["number"] for row in one.related] for one in page.rows}
    assert counts == {"a": list(range(10)), "b": [], "c": [0]}
    one = findings.describe(filled, A, "a")
    assert (one.row["reason"], one.row["resource"]["resourceIdentifier"]) == ("Because.", device(1))
    assert [row["number"] for row in one.related] == list(range(10))
    rows = all_pages(lambda token: findings.related(filled, A, "a", token=token, size=10))
    assert [row["resource"]["number"] for row in rows] == list(range(23))
    for ask in (findings.describe, findings.related):
        for actor, finding_id in ((B, "a"), (A, "f"), (A, "z")):
            with pytest.raises(NotFoundError):
                ask(filled, actor, finding_id)
