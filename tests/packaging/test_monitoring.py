"""Dashboard and alerts of deploy/: every metric and label that they name is exported."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from keyassay.aws.application import Exchange
from keyassay.registry import gates
from keyassay.registry.registry import Registry
from keyassay.server.gate_counters import GateCounters
from keyassay.server.observing import Observer
from two_accounts import A

DEPLOY = Path(__file__).parents[2] / "deploy"
BOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus-rules.yml").read_text())
#: of histograms, or added by Prometheus
_OF_ALL = {"le", "job", "instance"}


def alerts() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [one for one in BOARD["panels"] if one["type"] != "row"]


def queries() -> Iterator[str]:
    yield from (rule["expr"] for rule in alerts())
    yield from (target["expr"] for one in panels() for target in one["targets"])


def exchange(**more: Any) -> Exchange:
    fields: dict[str, Any] = dict.fromkeys(Exchange.__dataclass_fields__, "")
    return Exchange(**{**fields, "operation": "ListThings", "status": 200, "seconds": 0.1, **more})


@pytest.fixture
def exported(registry: Registry) -> dict[str, set[str]]:
    """Names of samples, each with its labels, of a server with a gate."""
    body = {"gate": "north", "epoch": "x", "revision": 0, "startedAt": 1, "sessions": 7, "refusals": {"inactive": 3}}
    gates.report(registry, A, gates.read_report(body))
    observer = Observer(structlog.wrap_logger(structlog.testing.CapturingLogger()), "1")
    observer.registry.register(GateCounters(registry.database))
    observer(exchange())
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(observer.registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_every_metric_and_label_is_exported(exported: dict[str, set[str]]) -> None:
    seen = set()
    for query in queries():
        names = set(re.findall(r"\bkeyassay_\w+", query))
        assert names, query
        assert names <= exported.keys(), query
        seen |= names
        labels = {one for name in names for one in exported[name]} | _OF_ALL
        by = {one.strip() for inner in re.findall(r"\bby \(([^)]*)\)", query) for one in inner.split(",")}
        chosen = set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", query))
        assert by | chosen <= labels, query
        assert query.count("(") == query.count(")")
    # and nothing that is exported is forgotten
    assert {base(name) for name in seen} == {base(name) for name in exported}


def base(name: str) -> str:
    """Name of the metric of a sample."""
    return re.sub(r"_(bucket|sum|count|created|total)$", "", name)


def test_what_gates_report_is_told(registry: Registry, exported: dict[str, set[str]]) -> None:
    gates.report(registry, A, gates.read_report({"gate": "south", "epoch": "x", "revision": 0, "startedAt": 1}))
    gates.retire(registry, A, "south")
    samples = {
        (sample.name, sample.labels["gate"], sample.labels.get("verdict")): sample.value
        for family in GateCounters(registry.database).collect()
        for sample in family.samples
    }
    assert {gate for _, gate, _ in samples} == {"north"}
    assert samples["keyassay_gate_sessions", "north", None] == 7
    assert samples["keyassay_gate_refusals_total", "north", "inactive"] == 3
    assert samples["keyassay_gate_revisions_behind", "north", None] > 0
    assert 0 <= samples["keyassay_gate_report_age_seconds", "north", None] < 60


def test_a_database_that_is_away_leaves_the_other_counters(registry: Registry) -> None:
    class Away:
        def read(self) -> Any:
            from sqlalchemy.exc import OperationalError

            raise OperationalError("SELECT", None, Exception("away"))

    collected = list(GateCounters(Away()).collect())  # type: ignore[arg-type]
    assert [sample for family in collected for sample in family.samples] == []


def test_alerts_say_what_happened_and_the_dashboard_has_no_overlaps() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names))
    for rule in alerts():
        assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}
    assert len({one["id"] for one in BOARD["panels"]}) == len(BOARD["panels"])
    cells = [
        (x, y)
        for one in BOARD["panels"]
        for x in range(one["gridPos"]["x"], one["gridPos"]["x"] + one["gridPos"]["w"])
        for y in range(one["gridPos"]["y"], one["gridPos"]["y"] + one["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert all(target["legendFormat"] for one in panels() for target in one["targets"])
