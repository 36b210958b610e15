"""A PostgreSQL server of our own for tests: in a temporary folder, on a unix socket, gone with the test process."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from itertools import count
from pathlib import Path

import psycopg

_numbers = count(1)


def _programs() -> Path:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return folders[-1] if folders else Path(shutil.which("initdb") or "/usr/bin/initdb").parent


class Server:
    """A running server; ``create`` makes databases in it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ka-pg-"))
        self.folder.chmod(0o755)
        data, log = self.folder / "data", self.folder / "log"
        self._programs = _programs()
        self._user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._user:
            shutil.chown(self.folder, "postgres")
        self._run("initdb", "-D", data, "-U", "keyassay", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        settings = "fsync=off synchronous_commit=off full_page_writes=off max_connections=200 shared_buffers=64MB"
        options = " ".join(f"-c {setting}" for setting in settings.split())
        options += f" -c listen_addresses= -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start")
        atexit.register(self.stop)

    def _run(self, program: str, *arguments: str | Path) -> None:
        words = [*self._user, str(self._programs / program), *map(str, arguments)]
        done = subprocess.run(words, check=False, capture_output=True, cwd="/", env={**os.environ, "LC_ALL": "C"})
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()

    def url(self, name: str) -> str:
        """Address of a database."""
        return f"postgresql://keyassay@/{name}?host={self.folder}"

    def create(self, template: str = "template1") -> str:
        """Make a database and return its address."""
        name = f"test_{next(_numbers)}"
        with psycopg.connect(f"host={self.folder} user=keyassay dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever still uses it."""
        name = url.partition("?")[0].rpartition("/")[2]
        with psycopg.connect(f"host={self.folder} user=keyassay dbname=postgres", autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def stop(self) -> None:
        """End it at once and remove its files."""
        data = self.folder / "data"
        words = [*self._user, str(self._programs / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop"]
        subprocess.run(words, check=False, capture_output=True, cwd="/")
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def server() -> Server:
    """The server of this test process, started at the first use."""
    return Server()
