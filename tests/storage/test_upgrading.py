"""Migrations make the tables of the schema, refuse what they do not know, and can run twice at once."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import select, text

import fleet_keys
from keyassay.errors import KeyassayError
from keyassay.storage import schema, upgrading
from keyassay.storage.database import Database


def test_migrations_make_the_schema(database: Database) -> None:
    with database.read() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), schema.METADATA)
    assert differences == []


def test_an_empty_database_is_refused_until_it_is_upgraded(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    with pytest.raises(KeyassayError, match="empty"):
        upgrading.check(database)
    assert upgrading.upgrade(database)
    upgrading.check(database)
    assert not upgrading.upgrade(database)
    with database.read() as connection:
        row = connection.execute(select(schema.server)).mappings().one()
    assert (row["revision"], len(row["epoch"]), len(row["token_secret"])) == (0, 32, 32)
    database.close()


def test_two_upgrades_at_once(empty_database_url: str) -> None:
    databases = [Database(empty_database_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upgrading.upgrade, databases))
    with databases[0].read() as connection:
        assert len(connection.execute(select(schema.server)).all()) == 1
    for one in databases:
        upgrading.check(one)
        one.close()


def test_a_newer_database_is_refused(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for attempt in (upgrading.check, upgrading.upgrade):
        with pytest.raises(KeyassayError, match="newer release"):
            attempt(database)


def test_somebody_elses_tables_are_left_alone(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE theirs (id INTEGER)"))
    with pytest.raises(KeyassayError, match="not keyassay's"):
        upgrading.upgrade(database)
    database.close()


def test_a_server_that_is_not_there() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(KeyassayError, match="cannot be used"):
        upgrading.check(database)
    database.close()


def test_keys_of_issuers_that_are_there_get_their_digests(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    config = Config()
    config.set_main_option("script_location", str(upgrading.MIGRATIONS))
    authority = fleet_keys.authority()
    key = authority.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    der = authority.certificate.public_bytes(Encoding.DER)
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        account = {"id": "1" * 12, "name": "", "created_at": 0}
        connection.execute(schema.accounts.insert().values(account))
        issuer = {"account_id": "1" * 12, "id": authority.id, "der": der, "active": True, "created_at": 0}
        connection.execute(schema.issuers.insert().values(issuer))
    assert upgrading.upgrade(database)
    with database.read() as connection:
        digest = connection.execute(select(schema.issuers.c.spki_digest)).scalar_one()
    assert bytes(digest) == hashlib.sha256(key).digest()
    database.close()


def test_migrations_are_numbered_without_gaps() -> None:
    revisions = sorted(script.revision for script in upgrading.scripts().walk_revisions())
    assert revisions == [f"{number:04}" for number in range(1, len(revisions) + 1)]
