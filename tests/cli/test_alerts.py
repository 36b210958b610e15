"""``keyassay alerts`` against a running server."""

from __future__ import annotations

import json

import pytest

from keyassay.registry import alerts
from keyassay.storage.database import Actor
from live_server import running
from two_accounts import SECRET, A


def test_alerts_are_listed(keyassay, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", A.name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with running(tmp_path, workers=0) as server:
        where = ["--endpoint-url", server.addresses[0]]
        assert keyassay("alerts", *where).out.strip() == "no alerts"
        with server.registry.database.write(Actor(A.account_id, "test")) as transaction:
            for number in range(300):
                kind = "key-in-two-places" if number == 7 else "other"
                details = {"sources": ["192.0.2.1", "198.51.100.7"], "clientIds": ["pump", "\x1b[31mevil"]}
                alerts.raise_alert(
                    transaction, kind, str(number), certificate_id="a" * 64, thing_name="pump", details=details
                )
        shown = keyassay("alerts", *where, "--kind", "key-in-two-places").out
        assert "192.0.2.1, 198.51.100.7" in shown
        assert "\x1b" not in shown
        assert "aaaaaaaaaaaaaaaa..." in shown
        rows = json.loads(keyassay("alerts", *where, "--limit", "290", "--json").out)
        assert len({row["alertId"] for row in rows}) == 290
        refused = keyassay("alerts", *where, "--region", "eu-west-1")
        assert refused.code == 2
