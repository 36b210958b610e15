"""Keys of several accounts compared: each learns that its key is weak, and nothing of the others'."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import fleet_keys
from auditing import DEVICE_KEYS, audit, enable, findings, summary
from keyassay.audit import fleet_search
from keyassay.audit.fleet_pool import SERVER, SearchError
from keyassay.audit.fleet_search import REPEATED_KEY, SHARED_PRIME, Search
from keyassay.bulk.store import Store
from keyassay.findings import Classification, Profile
from keyassay.registry import accounts, certificates
from keyassay.registry.registry import Registry
from keyassay.storage.database import Actor
from sharing_devices import prime, sharing
from two_accounts import SECRET, A, B

C = Actor("333333333333", "AKIACCCCCCCCCCCCCCCC", "192.0.2.3", "request-c")
PRIME = "CERTIFICATE_KEY_VULNERABILITY_FLEET_SHARED_PRIME"
REPEATED = "CERTIFICATE_KEY_VULNERABILITY_FLEET_REPEATED_KEY"


def register(registry: Registry, actor: Actor, *devices: fleet_keys.Signed) -> None:
    for one in devices:
        certificates.register_without_authority(registry, actor, one.pem, status="ACTIVE")


@pytest.fixture
def search(database_url: str, tmp_path: Path) -> Search:
    return Search(database_url, SERVER, tmp_path / "fleet")


def found(rows: Any, check: str) -> dict[tuple[str, bytes], dict[str, Any]]:
    """What accounts are told about their keys because of others', by account and key."""
    return {
        (row["account_id"], row["spki_digest"]): row["finding"] for row in rows.all("server_verdicts", check_id=check)
    }


def key_of(rows: Any, device: fleet_keys.Signed) -> bytes:
    digest: bytes = rows.all("certificates", id=device.id)[0]["spki_digest"]
    return digest


def tells_nothing_of(text: str, *devices: fleet_keys.Signed, account: Actor) -> bool:
    """Whether a text has neither the account nor anything of its certificates or their keys."""
    words = [account.account_id, account.name]
    for one in devices:
        numbers = one.key.public_key().public_numbers()
        words += [one.id, one.id[:16], f"{numbers.n:x}"[:32]]
        words += [name.value for name in one.certificate.subject]
    words += [f"{prime(number):x}" for number in range(1, 10)] + [str(prime(number)) for number in range(1, 10)]
    return not any(word.lower() in text.lower() for word in words)


def test_two_accounts_that_share_a_prime_learn_nothing_of_each_other(
    registry: Registry, rows: Any, tmp_path: Path
) -> None:
    mine, theirs, sound = sharing(1, 2, 11), sharing(1, 3, 12), sharing(4, 5)
    for actor, devices in ((A, [mine, sound]), (B, [theirs])):
        enable(registry, actor)
        register(registry, actor, *devices)
    settings = {"fleet_store": tmp_path / "fleet", "fleet_across_accounts": True}
    for actor, device, other, partner in ((A, mine, B, theirs), (B, theirs, A, mine)):
        task = audit(registry, DEVICE_KEYS, actor=actor, **settings)
        assert findings(rows, task, DEVICE_KEYS) == {(device.id, PRIME)}
        (row,) = rows.all("audit_findings", task_id=task.row["id"])
        assert "a certificate of another account of this server" in row["reason"]
        assert row["severity"] == "CRITICAL"
        assert not rows.all("audit_related", finding_id=row["id"])
        everything = json.dumps(row, default=str).replace(device.id, "")
        assert tells_nothing_of(everything, partner, account=other)
        assert set(row["evidence"]["evidence"]) == {"proof", "factor_bits", "across_accounts", "verified"}


def test_accounts_are_apart_unless_the_operator_allows_it(registry: Registry, rows: Any, tmp_path: Path) -> None:
    enable(registry)
    register(registry, A, sharing(1, 2))
    register(registry, B, sharing(1, 3))
    folder = tmp_path / "fleet"
    assert not findings(rows, audit(registry, DEVICE_KEYS, fleet_store=folder), DEVICE_KEYS)
    assert not rows.all("server_verdicts")
    allowed = audit(registry, DEVICE_KEYS, fleet_store=folder, fleet_across_accounts=True)
    assert len(findings(rows, allowed, DEVICE_KEYS)) == 1
    again = audit(registry, DEVICE_KEYS, fleet_store=folder)  # and off again
    assert not findings(rows, again, DEVICE_KEYS)
    assert summary(again, DEVICE_KEYS)[0] == "COMPLETED_COMPLIANT"
    aws = audit(registry, DEVICE_KEYS, fleet_store=folder, fleet_across_accounts=True, profile=Profile.AWS)
    assert not findings(rows, aws, DEVICE_KEYS)


def test_what_comes_later_is_compared_with_all_there_is(registry: Registry, rows: Any, search: Search) -> None:
    old, sound = sharing(1, 2), sharing(4, 5)
    register(registry, A, old, sound)
    assert fleet_search.compare(registry.database, search) == 2
    assert not fleet_search.is_needed(registry.database, search)
    gone = sharing(6, 7)
    register(registry, B, gone)
    certificates.set_status(registry, B, gone.id, "INACTIVE")
    certificates.remove(registry, B, gone.id)
    assert fleet_search.compare(registry.database, search) == 1
    assert not rows.all("server_verdicts")
    accounts.add_account(registry, C, C.account_id, "", C.name, SECRET)
    new = sharing(2, 6)  # breaks a key of A, and is broken by one that B no longer has, too
    register(registry, C, new)
    assert fleet_search.compare(registry.database, search) == 1
    shared = found(rows, SHARED_PRIME)
    assert set(shared) == {(A.account_id, key_of(rows, old)), (B.account_id, _key(gone)), (C.account_id, _key(new))}
    assert not fleet_search.is_needed(registry.database, search)
    assert fleet_search.compare(registry.database, search) == 0


def _key(device: fleet_keys.Signed) -> bytes:
    spki = device.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()


def test_all_accounts_that_have_a_broken_key_are_told(registry: Registry, rows: Any, search: Search) -> None:
    accounts.add_account(registry, C, C.account_id, "", C.name, SECRET)
    left, twin, right = sharing(1, 2, 1), sharing(1, 2, 2), sharing(1, 3)
    register(registry, A, left)
    register(registry, B, twin)
    fleet_search.compare(registry.database, search)
    register(registry, C, right)
    fleet_search.compare(registry.database, search)
    assert set(found(rows, SHARED_PRIME)) == {
        (A.account_id, _key(left)),
        (B.account_id, _key(left)),
        (C.account_id, _key(right)),
    }
    # a broken key that comes to another account later is told there as well
    again = sharing(1, 3, 9)
    register(registry, B, again)
    fleet_search.compare(registry.database, search)
    assert (B.account_id, _key(right)) in found(rows, SHARED_PRIME)


def test_what_an_account_finds_by_itself_is_told_with_names(registry: Registry, rows: Any, tmp_path: Path) -> None:
    enable(registry)
    left, right = sharing(1, 2), sharing(1, 3)
    register(registry, A, left, right)
    register(registry, B, sharing(1, 4))
    task = audit(registry, DEVICE_KEYS, fleet_store=tmp_path / "fleet", fleet_across_accounts=True)
    assert findings(rows, task, DEVICE_KEYS) == {(left.id, PRIME), (right.id, PRIME)}
    for row in rows.all("audit_findings", task_id=task.row["id"]):
        assert "another account" not in row["reason"]
        assert len(rows.all("audit_related", finding_id=row["id"])) == 1


def test_a_key_in_two_accounts(registry: Registry, rows: Any, search: Search, tmp_path: Path) -> None:
    key = fleet_keys.ec_key(80)
    mine, theirs = (fleet_keys.device(name, key=key) for name in ("left", "right"))
    register(registry, A, mine)
    register(registry, B, theirs)
    fleet_search.compare(registry.database, search)
    repeated = found(rows, REPEATED_KEY)
    assert {account for account, _ in repeated} == {A.account_id, B.account_id}
    assert {one["class"] for one in repeated.values()} == {"weak"}
    assert not {word for word in ("left", "right", mine.id, theirs.id, A.account_id) if word in str(repeated.values())}
    enable(registry)
    wide = audit(
        registry, DEVICE_KEYS, fleet_store=search.folder, fleet_across_accounts=True, level=Classification.WEAK
    )
    assert findings(rows, wide, DEVICE_KEYS) == {(mine.id, REPEATED)}


def test_the_same_certificate_in_two_accounts_is_no_repeated_key(registry: Registry, rows: Any, search: Search) -> None:
    one, kept = fleet_keys.device("one", key=fleet_keys.ec_key(81)), fleet_keys.ec_key(82)
    register(registry, A, one, fleet_keys.device("renewed", key=kept))
    register(registry, B, one)
    fleet_search.compare(registry.database, search)
    assert not found(rows, REPEATED_KEY)
    register(registry, B, fleet_keys.device("renewed", key=kept))
    fleet_search.compare(registry.database, search)
    assert {one["class"] for one in found(rows, REPEATED_KEY).values()} == {"notice"}


def test_a_search_that_dies_is_repeated_and_a_lost_store_is_made_again(
    registry: Registry, rows: Any, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(registry, A, sharing(1, 2))
    register(registry, B, sharing(1, 3))

    def dies(*_given: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", dies)
        with pytest.raises(SystemExit):
            fleet_search.compare(registry.database, search)
    assert len(rows.all("server_verdicts")) == 2
    assert fleet_search.compare(registry.database, search) == 2
    (segment,) = search.store.glob("segment-*.keys")
    segment.write_bytes(segment.read_bytes()[:-1])
    assert fleet_search.is_needed(registry.database, search)
    assert fleet_search.compare(registry.database, search) == 2
    assert len(rows.all("server_verdicts")) == 2


def test_how_many_keys_others_have_is_not_told_when_comparing_fails(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enable(registry)
    register(registry, A, fleet_keys.device("sound", key=fleet_keys.ec_key(83)))

    def fails(_database: Any, search: Search, _goes_on: Any) -> bool:
        if search.account_id == SERVER:
            raise SearchError("12,345 certificates need more than 3.2 GB of memory")
        return True

    monkeypatch.setattr(fleet_search, "run", fails)
    task = audit(registry, DEVICE_KEYS, fleet_store=tmp_path / "fleet", fleet_across_accounts=True)
    assert summary(task, DEVICE_KEYS)[0] == "FAILED"
    assert "12,345" not in task.checks[DEVICE_KEYS]["message"]


def test_whoever_probes_learns_whether_a_key_is_there_and_not_whose(
    registry: Registry, rows: Any, tmp_path: Path
) -> None:
    """The oracle of docs/security-model.md: why it is off by default."""
    enable(registry, B)
    secret_fleet = sharing(1, 2, 21)
    register(registry, A, secret_fleet)
    # the attacker has seen the device's certificate once, and makes certificates for its public key and for another
    public = secret_fleet.key.public_key()
    probe = fleet_keys.device("probe", public_key=public)
    miss = fleet_keys.device("miss", key=fleet_keys.ec_key(84))
    register(registry, B, probe, miss)
    settings: dict[str, Any] = {"fleet_store": tmp_path / "fleet", "level": Classification.WEAK}
    assert not findings(rows, audit(registry, DEVICE_KEYS, actor=B, **settings), DEVICE_KEYS)
    task = audit(registry, DEVICE_KEYS, actor=B, **settings, fleet_across_accounts=True)
    assert findings(rows, task, DEVICE_KEYS) == {(probe.id, REPEATED)}
    (row,) = rows.all("audit_findings", task_id=task.row["id"])
    assert tells_nothing_of(json.dumps(row, default=str), account=A)
    assert secret_fleet.id not in json.dumps(row, default=str)
