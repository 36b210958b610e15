"""Opens a registry, for a server and for the commands that work beside it; makes what a first start needs.

The first account's secret is shown once: on the terminal, or where there is none in a file for its owner alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from keyassay.errors import KeyassayError
from keyassay.registry import accounts
from keyassay.registry.accounts import NewAccessKey
from keyassay.registry.errors import RegistryError
from keyassay.registry.registry import Registry
from keyassay.server.settings import Settings
from keyassay.storage import sealing, upgrading
from keyassay.storage.database import Actor, Database

FIRST_KEY_FILE = "first-access-key.json"
_GIVEN = ("KEYASSAY_ACCOUNT_ID", "KEYASSAY_ACCESS_KEY_ID", "KEYASSAY_SECRET_ACCESS_KEY")


def open_database(settings: Settings, *, create: bool, any_release: bool = False) -> Database:
    """Open the database; one that is empty gets its tables if ``create``.

    Args:
        settings: where it is.
        create: make the tables of an empty one.
        any_release: do not ask whether its tables are this release's.

    Raises:
        KeyassayError: it cannot be used, is of another release, or empty.
    """
    url = settings.database_url
    if not settings.database:  # the default: its folder is ours to make
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if create and url.startswith("sqlite:///"):
        make_private(Path(url.removeprefix("sqlite:///")))
    database = Database(url)
    if create and upgrading.current(database) is None:
        upgrading.upgrade(database)
    elif not any_release:
        upgrading.check(database)
    return database


def make_private(path: Path) -> None:
    """A new SQLite file is its owner's alone, and so are the files that SQLite puts beside it."""
    with contextlib.suppress(OSError):  # what is wrong with the place is said when the database is opened
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def open_registry(settings: Settings, *, create: bool = False) -> Registry:
    """Open the registry.

    Args:
        settings: where it is.
        create: make tables and the sealing key if the database is new.

    Raises:
        KeyassayError: the database or the key cannot be used.
    """
    database = open_database(settings, create=create)
    if settings.key_command:
        seal = sealing.from_command(settings.key_command)
    else:
        registry_is_new = create and not accounts.any_account(database)
        seal = sealing.from_file(settings.sealing_key_file, create=registry_is_new)
    return Registry(
        database,
        seal,
        region=settings.region,
        endpoint=settings.endpoint_name,
        public_url=settings.public_url,
        hold_inactive=settings.crl_hold,
        activate_broken=settings.activate_broken,
        audit_hour=settings.audit_hour,
    )


def first_account(registry: Registry, environment: Mapping[str, str], folder: Path) -> str:
    """Make the first account if there is none; its key comes from the environment, or is shown once.

    Args:
        registry: where.
        environment: the process's; may hold KEYASSAY_ACCOUNT_ID, _ACCESS_KEY_ID and _SECRET_ACCESS_KEY.
        folder: for the file with the secret, if there is no terminal.

    Returns:
        A sentence for the log that says what was made, without the secret; "" if nothing was.

    Raises:
        KeyassayError: the environment holds only some of the three, or wrong ones; the file cannot be written.
    """
    if accounts.any_account(registry.database):
        return ""
    given = [environment.get(name, "") for name in _GIVEN]
    actor = Actor("", "server:first start")
    try:
        if any(given):
            if not all(given):
                missing = [name for name, value in zip(_GIVEN, given, strict=True) if not value]
                raise KeyassayError(f"{' and '.join(missing)} is missing", "set all three, or none")
            made = accounts.add_account(registry, actor, given[0], "", given[1], given[2])
            return f"account {made.account_id} was made with access key {made.access_key_id} of the environment"
        made = accounts.create_account(registry, actor)
    except RegistryError as error:
        raise KeyassayError(f"the first account cannot be made: {error.message}") from None
    return _show(made, folder)


def _show(made: NewAccessKey, folder: Path) -> str:
    if sys.stderr.isatty():
        sys.stderr.write(
            f"\n  The first account. Its secret is shown this once; keep it.\n\n"
            f"    export AWS_ACCESS_KEY_ID={made.access_key_id}\n"
            f"    export AWS_SECRET_ACCESS_KEY={made.secret_access_key}\n\n"
        )
        return f"account {made.account_id} was made with access key {made.access_key_id}"
    path = folder / FIRST_KEY_FILE
    try:
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise KeyassayError(f"cannot write {str(path)!r}, which would hold the secret: {error.strerror}") from None
    with os.fdopen(handle, "w") as stream:
        json.dump(as_json(made), stream)
        stream.write("\n")
    return f"account {made.account_id} was made; its access key stands in {path}: take it and delete the file"


def as_json(made: NewAccessKey) -> dict[str, str]:
    """A new access key as commands print it."""
    return {
        "account_id": made.account_id,
        "access_key_id": made.access_key_id,
        "secret_access_key": made.secret_access_key,
        "role": made.role.value,
    }


def machine_name() -> str:
    """Where a command runs, for the record of changes."""
    return re.sub(r"[^\w.-]", "", os.uname().nodename)[:100] or "here"
