"""What Prometheus is told of gates, read from their last reports whenever it asks: every server tells the same."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from keyassay.storage import schema
from keyassay.storage.database import Database

_G = schema.gates.c
_WHICH = ["account", "gate"]


class GateCounters(Collector):
    """The gates of all accounts that are not retired; none while the database does not answer.

    Args:
        database: of the registry.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering asks no database."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """A sample for each gate."""
        age = GaugeMetricFamily("keyassay_gate_report_age_seconds", "Since a gate reported last.", labels=_WHICH)
        lag = GaugeMetricFamily(
            "keyassay_gate_lag_seconds", "Since the gate had heard of the registry, when it reported.", labels=_WHICH
        )
        behind = GaugeMetricFamily(
            "keyassay_gate_revisions_behind", "Revisions of the feed that the gate has not applied.", labels=_WHICH
        )
        sessions = GaugeMetricFamily("keyassay_gate_sessions", "Sessions of devices at the gate.", labels=_WHICH)
        refusals = CounterMetricFamily(
            "keyassay_gate_refusals", "Attempts that the gate refused, since it started.", labels=[*_WHICH, "verdict"]
        )
        try:
            with self._database.read() as connection:
                epoch, revision = connection.execute(select(schema.server.c.epoch, schema.server.c.revision)).one()
                rows = connection.execute(select(schema.gates).where(_G.retired_at.is_(None))).mappings().all()
        except SQLAlchemyError:
            rows, epoch, revision = [], "", 0
        now = time.time_ns() // 1_000_000
        for row in rows:
            which, told = [row["account_id"], row["name"]], row["details"]
            age.add_metric(which, max(0, now - row["reported_at"]) / 1_000)
            lag.add_metric(which, told.get("lagSeconds", 0.0))
            behind.add_metric(which, max(0, revision - (row["revision"] if row["epoch"] == epoch else 0)))
            sessions.add_metric(which, told.get("sessions", 0))
            for verdict, count in told.get("refusals", {}).items():
                refusals.add_metric([*which, verdict], count)
        return age, lag, behind, sessions, refusals
