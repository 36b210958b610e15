"""Shared primes of new certificates are reported as screening's findings, once, after the certificates are registered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from auditing import worker
from keyassay.audit import fleet_search, following
from keyassay.registry import certificates
from keyassay.registry.registry import Registry
from sharing_devices import sharing
from two_accounts import A

PRIME = "CERTIFICATE_KEY_VULNERABILITY_FLEET_SHARED_PRIME"


def test_what_new_keys_break_is_reported_once(registry: Registry, rows: Any, tmp_path: Path, monkeypatch: Any) -> None:
    def run(database: Any, search: Any, _goes_on: Any) -> bool:
        fleet_search.compare(database, search)
        return True

    monkeypatch.setattr(fleet_search, "run", run)
    monkeypatch.setattr(following, "_AT_ONCE", 2)
    doing = worker(registry, fleet_store=tmp_path / "fleet")
    old, sound = sharing(1, 2), sharing(4, 5)
    new = [sharing(2, 3), sharing(2, 3, serial=2), sharing(2, 6)]
    for one in (old, sound):
        certificates.register_without_authority(registry, A, one.pem, status="ACTIVE")
    assert doing.follow() == 0
    for one in new:
        certificates.register_without_authority(registry, A, one.pem, status="ACTIVE")
    assert doing.follow() >= 4
    found = rows.all("audit_findings")
    assert {row["resource_key"].partition("=")[2] for row in found} == {old.id, *(one.id for one in new)}
    assert {row["reason_code"] for row in found} == {PRIME}
    assert all(row["task_id"].startswith("screening-") for row in found)
    assert len(found) == 4
    assert doing.follow() == 0
