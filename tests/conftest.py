"""Fixtures for everything that needs a database: each test has an empty one of its own, on both kinds of server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from postgresql_server import server

KINDS = ("sqlite", "postgresql")


@cache
def _sqlite_template(folder: Path) -> Path:
    """A file with all tables, to copy: migrations run once a process."""
    from keyassay.storage.database import Database
    from keyassay.storage.upgrading import upgrade

    path = folder / "template.db"
    database = Database(f"sqlite:///{path}")
    upgrade(database)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return path


@cache
def _postgresql_template() -> str:
    from keyassay.storage.database import Database
    from keyassay.storage.upgrading import upgrade

    url = server().create()
    database = Database(url)
    upgrade(database)
    database.close()
    return url.partition("?")[0].rpartition("/")[2]


@pytest.fixture(params=KINDS)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    url = server().create()
    yield url
    server().drop(url)


@pytest.fixture(params=KINDS)
def database_url(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a database with this release's tables and nothing in them."""
    if request.param == "sqlite":
        shutil.copyfile(_sqlite_template(tmp_path_factory.getbasetemp()), tmp_path / "registry.db")
        yield f"sqlite:///{tmp_path}/registry.db"
        return
    url = server().create(_postgresql_template())
    yield url
    server().drop(url)


@pytest.fixture
def database(database_url: str) -> Iterator[object]:
    """A database with all tables, open."""
    from keyassay.storage.database import Database

    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def registry(database: Any) -> Any:
    """A registry with the accounts A and B of ``two_accounts``, and nothing in them."""
    from keyassay.registry import accounts
    from keyassay.registry.registry import Registry
    from keyassay.storage.sealing import Seal
    from two_accounts import SECRET, A, B

    made = Registry(database, Seal(b"k" * 32))
    for actor in (A, B):
        accounts.add_account(made, actor, actor.account_id, "", actor.name, SECRET)
    return made


@pytest.fixture
def rows(database: Any) -> Any:
    """Looks into tables."""
    from two_accounts import Rows

    return Rows(database)


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty token (PKCS#11), which this process looks for at once when it went away or is a new test's."""
    from keyassay.registry import token_keys
    from soft_token import SoftToken

    made = SoftToken(tmp_path / "token")
    monkeypatch.setenv("SOFTHSM2_CONF", str(made.configuration))
    for name in ("KEYASSAY_PKCS11_MODULE", "KEYASSAY_PKCS11_PIN_FILE", "KEYASSAY_PKCS11_PIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(token_keys, "PAUSE", 0.0)
    monkeypatch.setattr(token_keys, "RESTART", 0.0)
    monkeypatch.setattr(token_keys, "AGAIN", (0.0,))
    return made
