"""Alerts are raised once an occasion, listed by their account, and told to its target."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keyassay.registry import alerts
from keyassay.registry.documents import write_document
from keyassay.registry.errors import InvalidError
from keyassay.registry.registry import Registry
from two_accounts import A, B

TARGET = "arn:aws:sns:us-east-1:111111111111:alarms"


def configure(registry: Registry, *, enabled: bool = True) -> None:
    with registry.database.write(A) as transaction:
        target = {"SNS": {"targetArn": TARGET, "enabled": enabled}}
        write_document(transaction, "audit", {"auditNotificationTargetConfigurations": target})


def test_an_occasion_has_one_alert(registry: Registry, rows: Any) -> None:
    for actor in (A, A, B):
        with registry.database.write(actor) as transaction:
            alerts.raise_alert(transaction, "kind", "kind:one", certificate_id="a" * 64, details={"x": 1})
    assert [row["account_id"] for row in rows.all("alerts")] == [A.account_id, B.account_id]
    assert rows.all("outbox") == []


def test_long_occasions_are_told_apart(registry: Registry, rows: Any) -> None:
    with registry.database.write(A) as transaction:
        for end in ("1", "2", "2"):
            alerts.raise_alert(transaction, "kind", "x" * 300 + end)
    assert len(rows.all("alerts")) == 2


def test_the_account_s_target_is_told(registry: Registry, rows: Any) -> None:
    configure(registry)
    with registry.database.write(A) as transaction:
        told = alerts.raise_alert(transaction, "kind", "one", thing_name="pump", details={"sources": ["192.0.2.9"]})
        alerts.raise_alert(transaction, "kind", "one")
    (message,) = rows.all("outbox")
    assert (message["target"], message["subject"]) == (TARGET, "keyassay.alert")
    body = json.loads(message["body"])
    assert body == {
        "accountId": A.account_id,
        "alertId": told,
        "at": message["created_at"],
        "kind": "kind",
        "thingName": "pump",
        "details": {"sources": ["192.0.2.9"]},
    }


def test_no_message_to_a_target_that_is_off(registry: Registry, rows: Any) -> None:
    configure(registry, enabled=False)
    with registry.database.write(A) as transaction:
        assert alerts.raise_alert(transaction, "kind", "one")
    assert rows.all("outbox") == []


def test_alerts_are_paged_newest_first(registry: Registry) -> None:
    for number in range(5):
        with registry.database.write(A) as transaction:
            transaction.now += number
            alerts.raise_alert(transaction, "odd" if number % 2 else "even", str(number))
    first = alerts.listed(registry, A, size=3)
    rest = alerts.listed(registry, A, size=3, token=first.next_token)
    assert [row["occasion"] for row in (*first.rows, *rest.rows)] == ["4", "3", "2", "1", "0"]
    assert [row["occasion"] for row in alerts.listed(registry, A, kind="odd").rows] == ["3", "1"]
    assert alerts.listed(registry, B).rows == []
    with pytest.raises(InvalidError):
        alerts.listed(registry, B, token=first.next_token)


def test_old_alerts_go(registry: Registry, rows: Any) -> None:
    with registry.database.write(A) as transaction:
        alerts.raise_alert(transaction, "kind", "old")
    with registry.database.write(A) as transaction:
        transaction.now += (alerts.KEPT + 1) * 86_400_000
        alerts.raise_alert(transaction, "kind", "new")
    assert [row["occasion"] for row in rows.all("alerts")] == ["new"]


def test_several_at_once_are_raised_as_one_by_one(registry: Registry, rows: Any) -> None:
    configure(registry)
    with registry.database.write(A) as transaction:
        first = alerts.raise_alert(transaction, "kind", "1")
        told = alerts.raise_all(
            transaction,
            [alerts.Alert("kind", one, thing_name=one[:9]) for one in ("1", "2", "x" * 300, "2", "x" * 300, "3")],
        )
        assert alerts.raise_all(transaction, []) == []
    assert [one is None for one in told] == [True, False, False, True, True, False]
    raised = {row["id"]: row["thing_name"] for row in rows.all("alerts")}
    assert raised == {first: None, told[1]: "2", told[2]: "x" * 9, told[5]: "3"}
    assert len(rows.all("outbox")) == 4
