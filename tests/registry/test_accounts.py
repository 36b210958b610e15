"""Accounts and keys: secrets shown once and kept sealed, keys that stop at once."""

from __future__ import annotations

import pytest

from keyassay.errors import KeyassayError
from keyassay.registry import accounts
from keyassay.registry.errors import AlreadyExistsError, InvalidError, NotFoundError
from keyassay.registry.registry import Registry
from keyassay.storage.database import Actor
from keyassay.storage.sealing import Seal
from two_accounts import A, B, Rows


def test_a_new_account_has_an_administrator(registry: Registry) -> None:
    made = accounts.create_account(registry, Actor("", "command"), name="plant 3")
    assert accounts.credentials(registry, made.access_key_id) == accounts.Credentials(
        made.account_id, made.access_key_id, accounts.Role.ADMINISTRATOR, made.secret_access_key
    )
    assert [(one.id, one.name, one.active_keys) for one in accounts.accounts(registry) if one.name] == [
        (made.account_id, "plant 3", 1)
    ]


def test_a_secret_is_nowhere_in_the_clear(registry: Registry, rows: Rows) -> None:
    made = accounts.create_key(registry, A, accounts.Role.AUDITOR)
    for table in ("access_keys", "changes"):
        assert made.secret_access_key not in str(rows.all(table))
        assert made.secret_access_key.encode() not in b"".join(
            value for row in rows.all(table) for value in row.values() if isinstance(value, bytes)
        )
    assert made.secret_access_key not in repr(made)
    assert made.secret_access_key not in repr(accounts.credentials(registry, made.access_key_id))
    other = Registry(registry.database, Seal(b"x" * 32))
    with pytest.raises(KeyassayError, match="cannot be opened"):
        accounts.credentials(other, made.access_key_id)


def test_a_deactivated_key_stops_at_once_and_for_other_accounts_nothing_happens(registry: Registry) -> None:
    made = accounts.create_key(registry, A, accounts.Role.GATE)
    for change in (accounts.deactivate_key, accounts.delete_key):
        with pytest.raises(NotFoundError):
            change(registry, B, made.access_key_id)
    assert accounts.credentials(registry, made.access_key_id) is not None
    accounts.deactivate_key(registry, A, made.access_key_id)
    assert accounts.credentials(registry, made.access_key_id) is None
    assert [key.active for key in accounts.keys(registry, A.account_id)] == [True, False]
    accounts.delete_key(registry, A, made.access_key_id)
    assert [key.id for key in accounts.keys(registry, A.account_id)] == [A.name]


def test_what_is_refused(registry: Registry) -> None:
    with pytest.raises(AlreadyExistsError):
        accounts.create_account(registry, A, account_id=A.account_id)
    for bad in ("1", "12345678901a", "1234567890123"):
        with pytest.raises(InvalidError):
            accounts.create_account(registry, A, account_id=bad)
    with pytest.raises(AlreadyExistsError):
        accounts.add_account(registry, A, "333333333333", "", A.name, "secret" * 7)
    assert len(accounts.accounts(registry)) == 2  # and nothing is left of it
    for key_id, secret in (("short", "secret" * 7), ("AKIACCCCCCCCCCCCCCCC", "short")):
        with pytest.raises(InvalidError):
            accounts.add_account(registry, A, "333333333333", "", key_id, secret)


def test_the_account_that_is_meant(registry: Registry) -> None:
    assert accounts.the_account(registry, A.account_id) == A.account_id
    with pytest.raises(InvalidError, match="which"):
        accounts.the_account(registry)
    with pytest.raises(NotFoundError):
        accounts.the_account(registry, "999999999999")


def test_changes_of_an_account_are_its_own(registry: Registry) -> None:
    made = accounts.create_key(registry, A, accounts.Role.OPERATOR)
    found = list(accounts.changes(registry, A, resource_type="access-key"))
    assert [row["resource_id"] for row in found] == [A.name, made.access_key_id]
    assert list(accounts.changes(registry, A, after=found[-1]["revision"])) == []
    assert all(row["account_id"] == B.account_id for row in accounts.changes(registry, B))
    accounts.deactivate_key(registry, A, made.access_key_id)
    (first, second) = accounts.changes(registry, A, resource_id=made.access_key_id)
    assert (first["operation"], first["revision"]) == ("CreateAccessKey", found[-1]["revision"])
    assert second["revision"] > first["revision"]
    assert list(accounts.changes(registry, A, resource_id=made.access_key_id, after=first["revision"])) == [second]
    assert list(accounts.changes(registry, A, resource_type="thing", resource_id=made.access_key_id)) == []
    assert list(accounts.changes(registry, B, resource_id=made.access_key_id)) == []
