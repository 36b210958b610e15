"""Audits of keys: verdicts are kept and only what is new runs; comparing keys breaks old ones; what counts is set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

import fleet_keys
import weak_devices
from auditing import CA_KEYS, DEVICE_KEYS, ROCA, audit, enable, findings, issues_with, summary, worker
from keyassay.audit import fleet_search, key_quality
from keyassay.audit.checkpoints import Checkpoints
from keyassay.audit.examining import AuditSettings
from keyassay.audit.key_quality import Engine
from keyassay.certificates.fleet import NotRun
from keyassay.checks import check
from keyassay.findings import Classification, Confidence, Profile
from keyassay.registry import authorities, certificates
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from sharing_devices import sharing
from two_accounts import A

PRIME = "CERTIFICATE_KEY_VULNERABILITY_FLEET_SHARED_PRIME"
REPEATED = "CERTIFICATE_KEY_VULNERABILITY_FLEET_REPEATED_KEY"


def register(registry: Registry, *devices: fleet_keys.Signed) -> None:
    for one in devices:
        certificates.register_without_authority(registry, A, one.pem, status="ACTIVE")


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, frozenset[str]]]:
    """What the engine was asked: how many keys, which checks (none: all)."""
    asked: list[tuple[int, frozenset[str]]] = []
    examine = Engine.examine

    def counted(self: Engine, encodings: Any, only: frozenset[str], expected: int) -> Any:
        asked.append((len(encodings), only))
        return examine(self, encodings, only, expected)

    monkeypatch.setattr(Engine, "examine", counted)
    return asked


def fleet(*, weak: int = 1) -> list[fleet_keys.Signed]:
    sound = [fleet_keys.device(f"device {number}", key=fleet_keys.ec_key(50 + number)) for number in range(3)]
    return [*sound, *(weak_devices.roca_device(number) for number in range(weak))]


def test_a_second_audit_reads_what_the_first_found(
    registry: Registry, rows: Any, examined: list[tuple[int, frozenset[str]]]
) -> None:
    enable(registry)
    register(registry, *fleet(), weak_devices.roca_device(0, "again"))
    first = audit(registry, DEVICE_KEYS, batch=100)
    assert examined == [(4, frozenset())]  # five certificates, four keys
    second = audit(registry, DEVICE_KEYS, batch=100)
    assert len(examined) == 1
    assert summary(first, DEVICE_KEYS) == summary(second, DEVICE_KEYS) == ("COMPLETED_NON_COMPLIANT", 5, 2, 0)
    assert findings(rows, first, DEVICE_KEYS) == findings(rows, second, DEVICE_KEYS)
    register(registry, fleet_keys.device("new", key=fleet_keys.ec_key(60)))
    audit(registry, DEVICE_KEYS, batch=100)
    assert examined[1:] == [(1, frozenset())]


def test_what_is_settled_is_passed_over(
    registry: Registry, rows: Any, examined: list[tuple[int, frozenset[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    enable(registry)
    keys = [fleet_keys.ec_key(100 + number) for number in range(40)]
    register(registry, *(fleet_keys.device(f"device {number}", key=key) for number, key in enumerate(keys)))
    register(registry, weak_devices.roca_device())  # wherever it comes, it is alone in a look
    sizes: list[int] = []
    write = Checkpoints.write

    def counted(self: Checkpoints, check: Any, position: Any, batch: Any) -> Any:
        sizes.append(batch.examined)
        return write(self, check, position, batch)

    monkeypatch.setattr(Checkpoints, "write", counted)
    first = audit(registry, DEVICE_KEYS, batch=4)
    assert sizes == [4] * 10 + [1]
    del sizes[:], examined[:]
    second = audit(registry, DEVICE_KEYS, batch=4)
    assert sizes == [4, 16, 21]
    assert examined == []
    assert summary(first, DEVICE_KEYS) == summary(second, DEVICE_KEYS) == ("COMPLETED_NON_COMPLIANT", 41, 1, 0)
    assert findings(rows, first, DEVICE_KEYS) == findings(rows, second, DEVICE_KEYS)
    lost = sorted(row["spki_digest"] for row in rows.all("key_verdicts"))[::5]  # nine keys all over
    with registry.database.write(A) as transaction:
        transaction.execute(delete(schema.key_verdicts).where(schema.key_verdicts.c.spki_digest.in_(lost)))
    del sizes[:]
    third = audit(registry, DEVICE_KEYS, batch=4)
    assert sum(sizes) == 41
    assert max(sizes) < 21  # four keys with something to do end a batch
    assert sum(count for count, _ in examined) == 9
    assert findings(rows, third, DEVICE_KEYS) == findings(rows, first, DEVICE_KEYS)


def test_a_stronger_check_runs_alone(registry: Registry, rows: Any, examined: list[tuple[int, frozenset[str]]]) -> None:
    enable(registry)
    register(registry, *fleet(weak=2))
    first = audit(registry, DEVICE_KEYS, batch=100)
    stronger = check("rsa-close-primes")
    before = stronger.metadata
    object.__setattr__(stronger, "metadata", replace(before, version=before.version + 1))
    try:
        later = audit(registry, DEVICE_KEYS, batch=100)
        again = audit(registry, DEVICE_KEYS, batch=100)
    finally:
        object.__setattr__(stronger, "metadata", before)
    assert examined == [(5, frozenset()), (5, frozenset({"rsa-close-primes"}))]
    for one in (later, again):
        assert findings(rows, one, DEVICE_KEYS) == findings(rows, first, DEVICE_KEYS) != set()


def test_a_larger_profile_runs_everything_again(registry: Registry, examined: list[tuple[int, frozenset[str]]]) -> None:
    enable(registry)
    register(registry, *fleet())
    audit(registry, DEVICE_KEYS, batch=100, profile=Profile.FAST)
    audit(registry, DEVICE_KEYS, batch=100, profile=Profile.STANDARD)
    audit(registry, DEVICE_KEYS, batch=100, profile=Profile.FAST)
    assert [only for _, only in examined] == [frozenset(), frozenset()]


def test_keys_that_could_not_be_examined_are_examined_again(
    registry: Registry, examined: list[tuple[int, frozenset[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    enable(registry)
    register(registry, *fleet())
    assess = key_quality.assess_items

    def fails(items: Any, plan: Any) -> Any:
        results = assess(items, plan)
        return [replace(results[0], not_run=(NotRun("rsa-roca", "internal error"),)), *results[1:]]

    with monkeypatch.context() as patched:
        patched.setattr(key_quality, "assess_items", fails)
        task = audit(registry, DEVICE_KEYS, batch=100)
    assert task.checks[DEVICE_KEYS]["message"] == "1 keys could not be examined completely"
    task = audit(registry, DEVICE_KEYS, batch=100)
    assert task.checks[DEVICE_KEYS]["message"] is None
    assert [count for count, _ in examined] == [4, 1]


def test_keys_are_compared_and_new_ones_break_old_ones(registry: Registry, rows: Any, tmp_path: Path) -> None:
    enable(registry)
    old, sound, gone = sharing(1, 2), sharing(4, 5), sharing(6, 7)
    register(registry, old, sound, gone)
    certificates.set_status(registry, A, gone.id, "REVOKED")
    certificates.remove(registry, A, gone.id)
    doing = worker(registry, fleet_store=tmp_path / "fleet")
    first = audit(registry, DEVICE_KEYS, by=doing)
    assert summary(first, DEVICE_KEYS) == ("COMPLETED_COMPLIANT", 2, 0, 0)
    new, other = sharing(2, 3), sharing(7, 8)
    register(registry, new, other)
    second = audit(registry, DEVICE_KEYS, by=doing)
    assert findings(rows, second, DEVICE_KEYS) == {(one.id, PRIME) for one in (old, new, other)}
    assert summary(second, DEVICE_KEYS) == ("COMPLETED_NON_COMPLIANT", 4, 3, 0)
    found = rows.all("audit_findings", resource_key=f"deviceCertificateId={old.id}")
    related = rows.all("audit_related", finding_id=found[0]["id"])
    assert [one["resource"]["resourceIdentifier"] for one in related] == [{"deviceCertificateId": new.id}]
    assert not findings(rows, audit(registry, DEVICE_KEYS, profile=Profile.AWS), DEVICE_KEYS)


def test_comparing_that_fails_is_said_and_keys_are_examined_all_the_same(
    registry: Registry, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enable(registry)
    register(registry, *fleet())

    def fails(*_given: Any) -> bool:
        raise fleet_search.SearchError("no memory")

    monkeypatch.setattr(fleet_search, "run", fails)
    task = audit(registry, DEVICE_KEYS, fleet_store=tmp_path / "fleet")
    assert summary(task, DEVICE_KEYS) == ("FAILED", 4, 1, 0)
    assert "no memory" in task.checks[DEVICE_KEYS]["message"]
    assert len(findings(rows, task, DEVICE_KEYS)) == 1


def test_the_level_widens_what_counts(registry: Registry, rows: Any, tmp_path: Path) -> None:
    enable(registry)
    key = fleet_keys.ec_key(70)
    twins = [fleet_keys.device(f"twin {number}", key=key) for number in range(3)]
    register(registry, *twins)
    assert not findings(rows, audit(registry, DEVICE_KEYS, fleet_store=tmp_path / "fleet"), DEVICE_KEYS)
    wide = audit(registry, DEVICE_KEYS, fleet_store=tmp_path / "fleet", level=Classification.WEAK)
    assert findings(rows, wide, DEVICE_KEYS) == {(one.id, REPEATED) for one in twins}
    for row in rows.all("audit_findings"):
        own = row["resource"]["resourceIdentifier"]["deviceCertificateId"]
        related = rows.all("audit_related", finding_id=row["id"])
        named = {one["resource"]["resourceIdentifier"]["deviceCertificateId"] for one in related}
        assert named == {one.id for one in twins} - {own}
        assert row["severity"] == "HIGH"


@pytest.mark.parametrize(
    ("classification", "confidence", "level", "counts"),
    [
        (Classification.BROKEN, Confidence.PROVEN, Classification.BROKEN, True),
        (Classification.BROKEN, Confidence.CERTAIN, Classification.BROKEN, True),
        (Classification.WEAK, Confidence.PROVEN, Classification.BROKEN, False),
        (Classification.WEAK, Confidence.PROVEN, Classification.WEAK, True),
        (Classification.NOTICE, Confidence.PROVEN, Classification.WEAK, False),
    ],
)
def test_what_makes_a_certificate_noncompliant(
    classification: Classification, confidence: Confidence, level: Classification, counts: bool
) -> None:
    finding = key_quality.PublicFinding("x", 1, classification, None, confidence, "X", "x")  # type: ignore[arg-type]
    assert key_quality.counts(finding, AuditSettings(level=level)) == counts


def test_authorities_are_examined_while_they_are_active(registry: Registry, rows: Any) -> None:
    enable(registry)
    weak = fleet_keys.certificate("Weak CA", weak_devices.weak_key(0), is_authority=True)
    idle = fleet_keys.certificate("Idle CA", weak_devices.weak_key(0), is_authority=True)
    authorities.register(registry, A, weak.pem, mode="SNI_ONLY", set_as_active=True)
    authorities.register(registry, A, idle.pem, mode="SNI_ONLY")
    authorities.register(registry, A, fleet_keys.authority().pem, mode="SNI_ONLY", set_as_active=True)
    task = audit(registry, CA_KEYS)
    assert summary(task, CA_KEYS) == ("COMPLETED_NON_COMPLIANT", 2, 1, 0)
    assert findings(rows, task, CA_KEYS) == {(weak.id, ROCA)}
    (row,) = rows.all("audit_findings")
    assert row["resource"] == {
        "resourceType": "CA_CERTIFICATE",
        "resourceIdentifier": {"caCertificateId": weak.id},
    }


def test_the_authority_that_issues_is_examined_with_the_others(registry: Registry, rows: Any, tmp_path: Path) -> None:
    enable(registry)
    old = issues_with(registry, fleet_keys.certificate("Old CA", weak_devices.weak_key(1), is_authority=True))
    own = issues_with(registry, fleet_keys.certificate("Plant CA", sharing(1, 2).key, is_authority=True))
    device, sound = sharing(1, 3), sharing(4, 5)
    register(registry, device, sound)
    authorities.register(registry, A, fleet_keys.authority().pem, mode="SNI_ONLY", set_as_active=True)
    task = audit(registry, CA_KEYS, DEVICE_KEYS, fleet_store=tmp_path / "fleet")
    assert summary(task, CA_KEYS) == ("COMPLETED_NON_COMPLIANT", 2, 1, 0)  # the one before issues no longer
    assert findings(rows, task, CA_KEYS) == {(own, PRIME)}
    assert findings(rows, task, DEVICE_KEYS) == {(device.id, PRIME)}
    of_check = {row["check_name"]: row for row in rows.all("audit_findings")}
    of_authority, of_device = of_check[CA_KEYS], of_check[DEVICE_KEYS]
    assert of_authority["resource"]["resourceIdentifier"] == {"caCertificateId": own}
    assert of_authority["reason"].startswith("This authority issues the account's certificates (`keyassay ca list`); ")
    assert f"with certificate {device.id}" in of_authority["reason"]
    assert f"with issuing CA certificate {own}" in of_device["reason"]
    related = {row["finding_id"]: row["resource"] for row in rows.all("audit_related")}
    assert related == {
        of_authority["id"]: {
            "resourceType": "DEVICE_CERTIFICATE",
            "resourceIdentifier": {"deviceCertificateId": device.id},
        },
        of_device["id"]: {"resourceType": "CA_CERTIFICATE", "resourceIdentifier": {"caCertificateId": own}},
    }
    # AWS's own authority is none of the account's
    assert summary(audit(registry, CA_KEYS, profile=Profile.AWS), CA_KEYS) == ("COMPLETED_COMPLIANT", 1, 0, 0)
    back = issues_with(registry, fleet_keys.certificate("New CA", weak_devices.weak_key(0), is_authority=True))
    task = audit(registry, CA_KEYS, fleet_store=tmp_path / "fleet")
    assert findings(rows, task, CA_KEYS) == {(back, ROCA)}
    assert old not in str(rows.all("audit_findings"))


def test_an_authority_that_is_registered_as_well_counts_once(registry: Registry, rows: Any, tmp_path: Path) -> None:
    enable(registry)
    both = fleet_keys.certificate("Plant CA", weak_devices.weak_key(0), is_authority=True)
    own = issues_with(registry, both)
    registered = authorities.register(registry, A, both.pem, mode="SNI_ONLY", set_as_active=True)
    settings: dict[str, Any] = {"fleet_store": tmp_path / "fleet", "level": Classification.NOTICE}
    for _ in range(2):
        task = audit(registry, CA_KEYS, **settings)
        assert summary(task, CA_KEYS) == ("COMPLETED_NON_COMPLIANT", 1, 1, 0)
        assert (own, ROCA) in findings(rows, task, CA_KEYS)
        assert (own, REPEATED) not in findings(rows, task, CA_KEYS)
        authorities.change(registry, A, registered.id, status="INACTIVE")  # it issues all the same


def test_findings_hold_no_secrets(registry: Registry, rows: Any, tmp_path: Path) -> None:
    enable(registry)
    left, right = sharing(1, 2), sharing(1, 3)
    register(registry, left, right, *fleet())
    audit(registry, DEVICE_KEYS, fleet_store=tmp_path / "fleet")
    stored = str([rows.all(table) for table in ("audit_findings", "audit_related", "key_verdicts", "fleet_verdicts")])
    for one in (left, right, weak_devices.roca_device(0)):
        numbers = one.key.private_numbers()
        for secret in (numbers.p, numbers.q, numbers.d):
            assert f"{secret:x}" not in stored
            assert str(secret) not in stored
