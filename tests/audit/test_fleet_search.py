"""Keys of an account are compared with each other, once each, and with those that have gone; nothing is missed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fleet_keys
from auditing import DEVICE_KEYS, audit, enable, findings
from keyassay.audit import fleet_pool, fleet_search, fleet_stores
from keyassay.audit.fleet_search import REPEATED_KEY, SHARED_PRIME, Search
from keyassay.bulk.store import Store
from keyassay.registry import certificates
from keyassay.registry.registry import Registry
from keyassay.storage.copying import copy
from keyassay.storage.database import Database
from sharing_devices import prime
from sharing_devices import sharing as device
from two_accounts import A, B, Rows


def register(registry: Registry, *devices: fleet_keys.Signed, actor: Any = A) -> None:
    for one in devices:
        certificates.register_without_authority(registry, actor, one.pem, status="ACTIVE")


@pytest.fixture
def search(database_url: str, tmp_path: Path) -> Search:
    return Search(database_url, A.account_id, tmp_path / "fleet")


def found(registry: Registry, rows: Any, check: str, account_id: str = A.account_id) -> dict[str, dict[str, Any]]:
    """Findings of a fleet check by certificate id."""
    by_key = {
        row["spki_digest"]: row["finding"] for row in rows.all("fleet_verdicts", account_id=account_id, check_id=check)
    }
    held = rows.all("certificates", account_id=account_id)
    return {row["id"]: by_key[row["spki_digest"]] for row in held if row["spki_digest"] in by_key}


def test_shared_primes_and_repeated_keys_are_found(registry: Registry, rows: Any, search: Search) -> None:
    left, right, alone, twin = device(1, 2), device(1, 3), device(4, 5), device(4, 5, serial=2)
    register(registry, left, right, alone, twin)
    assert fleet_search.compare(registry.database, search) == 4
    shared = found(registry, rows, SHARED_PRIME)
    assert set(shared) == {left.id, right.id}
    assert shared[left.id]["class"] == "broken"
    assert f"with certificate {right.id}" in shared[left.id]["message"]
    assert "#" not in shared[left.id]["message"]
    secrets = [f"{prime(number):x}" for number in (1, 2, 3)]
    assert not any(secret in str(row["finding"]) for secret in secrets for row in rows.all("fleet_verdicts"))
    repeated = found(registry, rows, REPEATED_KEY)
    assert set(repeated) == {alone.id, twin.id}
    assert repeated[alone.id]["class"] == "weak"
    partners = [one["sha256"] for one in repeated[alone.id]["evidence"]["partners"]]
    assert sorted(partners) == sorted([alone.id, twin.id])


def test_new_keys_are_compared_with_old_ones_which_they_break(registry: Registry, rows: Any, search: Search) -> None:
    old, other, sound = device(1, 2), device(6, 7), device(8, 9)
    register(registry, old, other, sound)
    assert fleet_search.compare(registry.database, search) == 3
    assert not rows.all("fleet_verdicts")
    new = device(2, 6)  # breaks both at once
    register(registry, new)
    assert fleet_search.compare(registry.database, search) == 1
    shared = found(registry, rows, SHARED_PRIME)
    assert set(shared) == {old.id, other.id, new.id}
    assert f"with certificate {new.id}" in shared[old.id]["message"]
    assert not fleet_search.is_needed(registry.database, search)


def test_what_is_too_much_at_once_is_compared_in_pieces(
    registry: Registry, rows: Any, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_pool, "PIECE", 0)
    monkeypatch.setattr(fleet_pool, "_ROWS", 1)
    sizes: list[tuple[int, bool]] = []
    compare_new = fleet_search._compare_new

    def counted(database: Any, asked: Search, store: Any, pool: Any) -> None:
        sizes.append((len(pool), pool.complete))
        compare_new(database, asked, store, pool)

    monkeypatch.setattr(fleet_search, "_compare_new", counted)
    left, right, alone, twin, sound = device(1, 2), device(1, 3), device(4, 5), device(4, 5, serial=2), device(6, 7)
    register(registry, left, right, alone, twin, sound)
    assert fleet_search.compare(registry.database, search) == 5
    assert sizes == [(1, False)] * 4 + [(1, True)]
    assert set(found(registry, rows, SHARED_PRIME)) == {left.id, right.id}
    assert set(found(registry, rows, REPEATED_KEY)) == {alone.id, twin.id}
    assert not fleet_search.is_needed(registry.database, search)


def test_deleted_keys_still_break_new_ones(registry: Registry, rows: Any, search: Search) -> None:
    gone = device(1, 2)
    register(registry, gone)
    certificates.set_status(registry, A, gone.id, "INACTIVE")
    certificates.remove(registry, A, gone.id)
    new = device(2, 3)
    register(registry, new)
    fleet_search.compare(registry.database, search)
    shared = found(registry, rows, SHARED_PRIME)
    assert set(shared) == {new.id}
    assert f"with former certificate {gone.id}" in shared[new.id]["message"]


def test_accounts_are_compared_apart(registry: Registry, rows: Any, search: Search) -> None:
    register(registry, device(1, 2))
    register(registry, device(1, 3), actor=B)
    for account_id in (A.account_id, B.account_id):
        fleet_search.compare(registry.database, Search(search.database, account_id, search.folder))
    assert not rows.all("fleet_verdicts")


def test_a_lost_or_damaged_store_is_made_again(registry: Registry, rows: Any, search: Search) -> None:
    register(registry, device(1, 2), device(4, 5))
    fleet_search.compare(registry.database, search)
    (segment,) = search.store.glob("segment-*.keys")
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    register(registry, device(1, 3))
    assert fleet_search.is_needed(registry.database, search)
    assert fleet_search.compare(registry.database, search) == 3
    assert len(found(registry, rows, SHARED_PRIME)) == 2


def test_a_search_that_dies_before_its_keys_are_stored_is_repeated(
    registry: Registry, rows: Any, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(registry, device(1, 2), device(1, 3))

    def dies(*_given: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", dies)
        with pytest.raises(SystemExit):
            fleet_search.compare(registry.database, search)
    assert len(rows.all("fleet_verdicts")) == 2
    assert fleet_search.compare(registry.database, search) == 2
    assert len(rows.all("fleet_verdicts")) == 2


@pytest.mark.parametrize("new_epoch", [True, False], ids=["keyassay's restore", "the database's own tools"])
def test_what_a_restored_database_lacks_is_found_again(
    registry: Registry, rows: Any, search: Search, empty_database_url: str, tmp_path: Path, new_epoch: bool
) -> None:
    prime_shared = "CERTIFICATE_KEY_VULNERABILITY_FLEET_SHARED_PRIME"
    enable(registry)
    old, sound = device(1, 2), device(8, 9)
    register(registry, old, sound)
    assert not findings(rows, audit(registry, DEVICE_KEYS, fleet_store=search.folder), DEVICE_KEYS)
    backup = Database(f"sqlite:///{tmp_path}/backup.db")
    copy(registry.database, backup, new_epoch=False)
    left, right, breaker = device(4, 5), device(4, 6), device(1, 3)
    expected = {(one.id, prime_shared) for one in (left, right, breaker, old)}
    register(registry, left, right)
    audit(registry, DEVICE_KEYS, fleet_store=search.folder)
    register(registry, breaker)  # breaks a key that is in the backup
    assert findings(rows, audit(registry, DEVICE_KEYS, fleet_store=search.folder), DEVICE_KEYS) == expected
    restored = replace(registry, database=Database(empty_database_url))
    copy(backup, restored.database, new_epoch=new_epoch)
    there = Rows(restored.database)
    # the store has forgotten what is not in the backup, and nothing that is
    again = replace(search, database=empty_database_url)
    assert not fleet_search.is_needed(restored.database, again)
    register(restored, left, right, breaker)
    assert findings(there, audit(restored, DEVICE_KEYS, fleet_store=search.folder), DEVICE_KEYS) == expected
    assert fleet_search.compare(restored.database, again) == 0
    for database in (backup, restored.database):
        database.close()


def test_a_copied_database_goes_on_with_its_store(
    registry: Registry, search: Search, empty_database_url: str, tmp_path: Path
) -> None:
    register(registry, device(1, 2), device(4, 5))
    fleet_search.compare(registry.database, search)
    moved = replace(registry, database=Database(empty_database_url))
    copy(registry.database, moved.database, new_epoch=True)
    shutil.copytree(search.folder, tmp_path / "moved")
    here = replace(search, database=empty_database_url, folder=tmp_path / "moved")
    assert not fleet_search.is_needed(moved.database, here)
    register(moved, device(1, 3))
    assert fleet_search.compare(moved.database, here) == 1
    assert len(found(moved, Rows(moved.database), SHARED_PRIME)) == 2
    # what the copy has compared since is nothing that the first database knows of
    assert len(list(here.store.glob("segment-*.keys"))) == 2
    assert not fleet_search.is_needed(registry.database, replace(search, folder=tmp_path / "moved"))
    assert len(list(here.store.glob("segment-*.keys"))) == 1
    moved.database.close()


def test_what_the_database_was_not_told_of_is_compared_again(
    registry: Registry, rows: Any, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(registry, device(1, 2))
    assert fleet_search.compare(registry.database, search) == 1
    register(registry, device(1, 3), device(4, 5))

    def dies(*_given: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(fleet_stores, "_actor", dies)  # between the store and the database
        with pytest.raises(SystemExit):
            fleet_search.compare(registry.database, search)
    assert len(list(search.store.glob("segment-*.keys"))) == 2
    assert fleet_search.is_needed(registry.database, search)
    assert fleet_search.compare(registry.database, search) == 2
    assert not fleet_search.is_needed(registry.database, search)
    assert len(found(registry, rows, SHARED_PRIME)) == 2


def test_old_stores_are_removed_when_the_new_one_has_everything(registry: Registry, rows: Any, search: Search) -> None:
    register(registry, device(1, 2))
    fleet_search.compare(registry.database, search)
    folder = search.store.parent
    older, used, damaged, foreign = (
        folder / name for name in ("0" * 16, "1" * 16, f"{search.store.name}.damaged", "notes")
    )
    search.store.rename(older)
    with registry.database.write(A) as transaction:
        transaction.connection.exec_driver_sql(f"UPDATE fleet_states SET checks = '{older.name}'")
    shutil.copytree(older, damaged)
    foreign.mkdir()
    busy = Store(used)
    fleet_search.compare(registry.database, search)
    assert set(folder.iterdir()) == {search.store, used, foreign}
    assert [row["checks"] for row in rows.all("fleet_states")] == [search.store.name]
    busy.close()


def test_the_search_has_a_process_of_its_own(registry: Registry, rows: Any, search: Search) -> None:
    register(registry, device(1, 2), device(1, 3))
    assert fleet_search.run(registry.database, search, lambda: True)
    assert len(rows.all("fleet_verdicts")) == 2
    register(registry, device(4, 5))
    assert not fleet_search.run(registry.database, search, lambda: False)
    assert fleet_search.run(registry.database, search, lambda: True)


def test_a_search_that_fails_says_why(registry: Registry, database_url: str, tmp_path: Path) -> None:
    register(registry, device(1, 2), device(4, 5))
    search = Search(database_url, A.account_id, tmp_path / "fleet", memory=1)
    with pytest.raises(fleet_search.SearchError, match="memory"):
        fleet_search.run(registry.database, search, lambda: True)


def test_the_process_ends_with_its_parent(search: Search, registry: Registry) -> None:
    store = Store(search.store)  # keeps it waiting for nothing: it would say "in use" and end by itself
    store.close()
    program = (
        "import threading, time\n"
        "from keyassay.audit import fleet_search\n"
        "fleet_search.compare = lambda *_: time.sleep(600)\n"
        "fleet_search.main()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(search.as_line().encode() + b"\n")
        child.stdin.flush()
        time.sleep(0.2)
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(60) == 4
