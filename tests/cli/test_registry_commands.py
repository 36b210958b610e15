"""Accounts, keys and database commands, beside and without a running server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keyassay.audit.worker import AuditWorker
from keyassay.findings import Classification, Profile
from keyassay.server import working
from keyassay.storage.database import Database
from keyassay.storage.upgrading import upgrade


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """A new database with its key file."""
    url = f"sqlite:///{tmp_path}/registry.db"
    database = Database(url)
    upgrade(database)
    database.close()
    key = tmp_path / "key"
    key.write_text("6b" * 32)
    key.chmod(0o600)
    return ["--database", url, "--key-file", str(key)]


def test_accounts_and_keys(keyassay, options) -> None:
    made = json.loads(keyassay("accounts", "create", *options, "--name", "plant 3", "--json").out)
    assert set(made) == {"account_id", "access_key_id", "secret_access_key", "role"}
    listed = json.loads(keyassay("accounts", "list", *options, "--json").out)
    assert [(row["account_id"], row["name"], row["active_keys"]) for row in listed] == [
        (made["account_id"], "plant 3", 1)
    ]
    gate = json.loads(keyassay("keys", "create", *options, "--role", "gate", "--json").out)
    assert gate["role"] == "gate"
    shown = keyassay("keys", "list", *options).out
    assert gate["access_key_id"] in shown
    assert gate["secret_access_key"] not in shown
    assert keyassay("keys", "deactivate", *options, gate["access_key_id"]).code == 0
    rows = json.loads(keyassay("keys", "list", *options, "--json").out)
    assert {row["access_key_id"]: row["active"] for row in rows}[gate["access_key_id"]] is False
    assert keyassay("keys", "delete", *options, gate["access_key_id"]).code == 0
    gone = keyassay("keys", "delete", *options, gate["access_key_id"])
    assert (gone.code, "there is no access key" in gone.err) == (2, True)


def test_which_account_is_meant(keyassay, options) -> None:
    assert "no account yet" in keyassay("keys", "create", *options).err
    for number in (1, 2):
        assert keyassay("accounts", "create", *options, "--id", str(number) * 12).code == 0
    assert "which account" in keyassay("keys", "create", *options).err
    assert keyassay("keys", "create", *options, "--account", "2" * 12).code == 0
    assert keyassay("keys", "list", *options, "--account", "3" * 12).code == 2
    assert "exists" in keyassay("accounts", "create", *options, "--id", "1" * 12).err


def test_upgrade_and_check(keyassay, tmp_path) -> None:
    option = ["--database", f"sqlite:///{tmp_path}/new.db"]
    empty = keyassay("database", "check", *option)
    assert (empty.code, "keyassay database upgrade" in empty.err) == (2, True)
    assert "upgraded from nothing" in keyassay("database", "upgrade", *option).out
    assert "nothing to do" in keyassay("database", "upgrade", *option).out
    assert keyassay("database", "check", *option).code == 0


def test_backup_restore_and_copy(keyassay, options, tmp_path) -> None:
    made = json.loads(keyassay("accounts", "create", *options, "--json").out)
    file = tmp_path / "backup.db"
    assert keyassay("database", "backup", *options, str(file)).code == 0
    assert file.stat().st_mode & 0o077 == 0
    assert "exists already" in keyassay("database", "backup", *options, str(file)).err
    restored = ["--database", f"sqlite:///{tmp_path}/restored.db", *options[2:]]
    assert keyassay("database", "restore", *restored, str(file)).code == 0
    again = keyassay("database", "restore", *restored, str(file))
    assert (again.code, "not empty" in again.err) == (2, True)
    moved = ["--database", f"sqlite:///{tmp_path}/moved.db", *options[2:]]
    assert keyassay("database", "copy", restored[1], moved[1]).code == 0
    listed = json.loads(keyassay("keys", "list", *moved, "--json").out)
    assert [row["access_key_id"] for row in listed] == [made["access_key_id"]]


def test_the_key_file_matters(keyassay, options, tmp_path) -> None:
    missing = keyassay("accounts", "list", *options[:2], "--key-file", str(tmp_path / "none"))
    assert (missing.code, "missing" in missing.err) == (2, True)
    by_command = [*options[:2], "--key-command", f"cat {tmp_path}/key"]
    assert keyassay("accounts", "list", *by_command).code == 0


@pytest.mark.parametrize(
    ("more", "environment", "expected"),
    [([], "", "report"), (["--screen-registrations", "off"], "", "off"), ([], "off", "off"), ([], "refuse", "refuse")],
)
def test_a_worker_knows_how_servers_screen(keyassay, options, monkeypatch, more, environment, expected) -> None:
    if environment:
        monkeypatch.setenv("KEYASSAY_SCREEN_REGISTRATIONS", environment)
    made = []
    original = working.workers_of

    def noting(settings, *rest):
        made.extend((settings.screening, one) for one in original(settings, *rest) if isinstance(one, AuditWorker))
        return []

    monkeypatch.setattr(working, "workers_of", noting)
    monkeypatch.setattr(working, "work_until_told", lambda workers, log: None)
    assert keyassay("worker", *options, *more).code == 0
    [(screening, auditor)] = made
    assert screening == expected
    assert bool(auditor._settings.follow) == (expected != "off")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([], (Profile.STANDARD, Classification.BROKEN, 5.0, False)),
        (["--audit-profile", "deep"], (Profile.DEEP, Classification.BROKEN, 5.0, False)),
        (["--audit-profile", "deep", "--audit-budget", "2m"], (Profile.DEEP, Classification.BROKEN, 120.0, False)),
        (
            ["--fleet-across-accounts", "--audit-level", "notice"],
            (Profile.STANDARD, Classification.NOTICE, 5.0, True),
        ),
    ],
)
def test_what_audits_do_is_set(keyassay, options, monkeypatch, more, expected) -> None:
    made = []
    original = working.workers_of

    def noting(*given):
        made.extend(one._settings for one in original(*given) if isinstance(one, AuditWorker))
        return []

    monkeypatch.setattr(working, "workers_of", noting)
    monkeypatch.setattr(working, "work_until_told", lambda workers, log: None)
    assert keyassay("worker", *options, *more).code == 0
    [settings] = made
    assert (settings.profile, settings.level, settings.budget, settings.fleet_across_accounts) == expected


def test_a_budget_for_audits_is_for_profile_deep(keyassay, options) -> None:
    refused = keyassay("worker", *options, "--audit-budget", "60s")
    assert (refused.code, "--audit-profile deep" in refused.err) == (2, True)
