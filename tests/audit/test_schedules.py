"""When schedules run, as laws; and scheduled audits made, changed, deleted and listed, on both databases."""

from __future__ import annotations

import calendar
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyassay.audit import schedules
from keyassay.audit.schedules import WEEKDAYS, next_due
from keyassay.audit.tasks import AUDIT
from keyassay.registry import documents, tags
from keyassay.registry.errors import AlreadyExistsError, InvalidError, LimitError, NotFoundError
from keyassay.registry.registry import Registry
from two_accounts import A, B, Rows

QUALITY = "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK"
AGE = "DEVICE_CERTIFICATE_AGE_CHECK"
DAY = 86_400_000

times = st.integers(0, 4_000_000_000_000)  # to the year 2096
hours = st.integers(0, 23)
weekdays = st.sampled_from(WEEKDAYS)
month_days = st.sampled_from(["LAST", *map(str, range(1, 32))])
plans = st.one_of(
    st.just(("DAILY", None, None)),
    st.tuples(st.sampled_from(["WEEKLY", "BIWEEKLY"]), st.none(), weekdays),
    st.tuples(st.just("MONTHLY"), month_days, st.none()),
)


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


@given(plans, times, hours)
def test_it_is_later_at_the_hour_and_on_the_day(plan: Any, after: int, hour: int) -> None:
    frequency, day_of_month, day_of_week = plan
    due = next_due(*plan, after, hour)
    assert due > after
    day = moment(due)
    assert (day.hour, day.minute, day.second, day.microsecond) == (hour, 0, 0, 0)
    if day_of_week:
        assert WEEKDAYS[day.weekday()] == day_of_week
    if day_of_month:
        last = calendar.monthrange(day.year, day.month)[1]
        assert day.day == (last if day_of_month == "LAST" else min(int(day_of_month), last))
    longest = {"DAILY": 1, "WEEKLY": 7, "BIWEEKLY": 14, "MONTHLY": 31}[frequency]
    assert due - after <= longest * DAY


@given(plans, times, hours, st.integers(0, 40 * DAY))
def test_nothing_lies_between_a_time_and_its_next(plan: Any, after: int, hour: int, later: int) -> None:
    """Whoever asks, and whenever: until it is due the answer stays the same, and it never goes back."""
    due = next_due(*plan, after, hour)
    again = next_due(*plan, after + later, hour)
    assert again == due if after + later < due else again > due


@given(plans, times, hours)
def test_the_distances_are_those_of_the_frequency(plan: Any, after: int, hour: int) -> None:
    due = next_due(*plan, after, hour)
    following = next_due(*plan, due, hour)
    if plan[0] == "MONTHLY":
        first, second = moment(due), moment(following)
        assert (second.year * 12 + second.month) - (first.year * 12 + first.month) == 1
    else:
        assert following - due == {"DAILY": 1, "WEEKLY": 7, "BIWEEKLY": 14}[plan[0]] * DAY


@given(month_days, times)
def test_days_that_a_frequency_does_not_know_do_not_matter(day: str, after: int) -> None:
    assert next_due("WEEKLY", day, "SUN", after) == next_due("WEEKLY", None, "SUN", after)
    assert next_due("DAILY", day, "SUN", after) == next_due("DAILY", None, None, after)
    assert next_due("MONTHLY", day, "SUN", after) == next_due("MONTHLY", day, None, after)


@pytest.mark.parametrize(
    ("plan", "after", "due"),
    [
        (("DAILY", None, None), "2026-11-26T01:59:59", "2026-11-26T02:00"),
        (("DAILY", None, None), "2026-11-26T02:00:00", "2026-11-27T02:00"),
        (("WEEKLY", None, "THU"), "2026-11-26T02:00:00", "2026-12-03T02:00"),
        (("WEEKLY", None, "SUN"), "2026-12-31T12:00:00", "2027-01-03T02:00"),
        (("MONTHLY", "31", None), "2026-11-26T02:00:00", "2026-11-30T02:00"),
        (("MONTHLY", "31", None), "2026-11-30T02:00:00", "2026-12-31T02:00"),
        (("MONTHLY", "30", None), "2027-02-01T00:00:00", "2027-02-28T02:00"),
        (("MONTHLY", "29", None), "2028-02-01T00:00:00", "2028-02-29T02:00"),
        (("MONTHLY", "LAST", None), "2028-02-01T00:00:00", "2028-02-29T02:00"),
        (("MONTHLY", "LAST", None), "2100-02-01T00:00:00", "2100-02-28T02:00"),
        (("MONTHLY", "1", None), "2026-12-01T02:00:00", "2027-01-01T02:00"),
    ],
)
def test_examples(plan: Any, after: str, due: str) -> None:
    assert next_due(*plan, at(after)) == at(due)


def enable(registry: Registry, *names: str) -> None:
    with registry.database.write(A) as transaction:
        checks = {name: {"enabled": True} for name in names}
        documents.write_document(transaction, AUDIT, {"roleArn": "r", "auditCheckConfigurations": checks})


def test_made_changed_and_deleted(registry: Registry, rows: Rows) -> None:
    enable(registry, QUALITY, AGE)
    arn = schedules.create(
        registry, A, "nightly", [QUALITY, QUALITY], "WEEKLY", day_of_week="MON", day_of_month="3", tags={"a": "b"}
    )
    assert arn == "arn:aws:iot:us-east-1:111111111111:scheduledaudit/nightly"
    assert tags.tags_of(registry, A, arn).rows == [{"name": "a", "value": "b"}]
    row = schedules.describe(registry, A, "nightly")
    assert (row["frequency"], row["day_of_week"], row["day_of_month"], row["checks"]) == (
        "WEEKLY", "MON", None, [QUALITY]
    )  # fmt: skip
    now = time.time_ns() // 1_000_000
    assert now < row["due_at"] <= now + 7 * DAY
    with pytest.raises(AlreadyExistsError):
        schedules.create(registry, A, "nightly", [QUALITY], "DAILY")
    with pytest.raises(NotFoundError):
        schedules.describe(registry, B, "nightly")
    for _ in range(2):
        assert schedules.change(registry, A, "nightly", check_names=[AGE, QUALITY]) == arn
    changed = schedules.describe(registry, A, "nightly")
    assert changed["checks"] == [AGE, QUALITY]
    assert changed["due_at"] == row["due_at"]
    with pytest.raises(InvalidError, match="dayOfMonth"):
        schedules.change(registry, A, "nightly", frequency="MONTHLY")
    late = replace(registry, audit_hour=23)
    schedules.change(late, A, "nightly", frequency="MONTHLY", day_of_month="LAST")
    changed = schedules.describe(registry, A, "nightly")
    assert (changed["frequency"], changed["day_of_week"], changed["day_of_month"]) == ("MONTHLY", None, "LAST")
    assert moment(changed["due_at"]).hour == 23
    assert (moment(changed["due_at"]) + timedelta(days=1)).day == 1
    with pytest.raises(InvalidError, match="dayOfWeek"):
        schedules.change(registry, A, "nightly", frequency="BIWEEKLY")
    schedules.remove(registry, A, "nightly")
    assert rows.all("tags") == []
    for gone in (
        lambda: schedules.remove(registry, A, "nightly"),
        lambda: schedules.change(registry, A, "nightly", frequency="DAILY"),
    ):
        with pytest.raises(NotFoundError):
            gone()
    assert rows.operations() == [
        "CreateScheduledAudit", "UpdateScheduledAudit", "UpdateScheduledAudit", "DeleteScheduledAudit"
    ]  # fmt: skip


def test_refused(registry: Registry) -> None:
    enable(registry, QUALITY)
    bad: list[tuple[list[str], str, dict[str, str]]] = [
        ([], "DAILY", {}),
        ([AGE], "DAILY", {}),
        (["NO_SUCH_CHECK"], "DAILY", {}),
        ([QUALITY], "WEEKLY", {"day_of_month": "1"}),
        ([QUALITY], "BIWEEKLY", {}),
        ([QUALITY], "MONTHLY", {"day_of_week": "SUN"}),
        ([QUALITY], "MONTHLY", {"day_of_month": "32"}),
        ([QUALITY], "HOURLY", {}),
    ]
    for checks, frequency, days in bad:
        with pytest.raises(InvalidError):
            schedules.create(registry, A, "one", checks, frequency, **days)  # type: ignore[arg-type]
    for number in range(5):
        schedules.create(registry, A, f"n{number}", [QUALITY], "DAILY")
    with pytest.raises(LimitError):
        schedules.create(registry, A, "n5", [QUALITY], "DAILY")
    with pytest.raises(InvalidError):
        schedules.change(registry, A, "n0", check_names=[])
    with pytest.raises(InvalidError):
        schedules.change(registry, A, "n0", check_names=[AGE])


def test_listed_by_name(registry: Registry) -> None:
    enable(registry, QUALITY)
    for name in ("c", "a", "B"):
        schedules.create(registry, A, name, [QUALITY], "DAILY")
    first = schedules.listed(registry, A, size=2)
    second = schedules.listed(registry, A, size=2, token=first.next_token)
    assert second.next_token is None
    assert {row["name"] for row in [*first.rows, *second.rows]} == {"a", "B", "c"}
    assert schedules.listed(registry, B).rows == []
