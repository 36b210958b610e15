"""HAProxy's Runtime API: commands over its unix socket, and what their answers say.

A connection for each command: it costs a fifth of a millisecond and cannot get out of step. Nothing is retried here.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from keyassay.errors import KeyassayError

#: bytes of a command with its payload; more than ``tune.bufsize`` is dropped by HAProxy without a word
LARGEST_COMMAND = 14_000
#: seconds for an answer; the slowest command (a map of a million entries) takes about one
_TIMEOUT = 15.0
_ROW = re.compile(r"key=([0-9a-f]{64})@(\S+)/(\S*) use=(\d+)((?: \w+=\S+)*)")
_SESSION = re.compile(r"^(0x[0-9a-f]+): proto=\S+ src=(\S+) fe=(\S+)", re.MULTILINE)
_COUNT = re.compile(r"^\S+ \((\S+)\) pattern .*entry_cnt=(\d+)$", re.MULTILINE)
_WORKER = re.compile(r"^(\d+)\s+worker\s", re.MULTILINE)


class HaproxyError(KeyassayError):
    """HAProxy does not answer, or refused a command."""


@dataclass(frozen=True)
class Row:
    """A connection in HAProxy's table.

    Attributes:
        certificate_id: 64 lower-case hexadecimal digits.
        source: address:port as HAProxy writes it.
        client_id: as the device sent it.
        live: whether it stands.
        established: the broker answered it with CONNACK 0.
        bytes_in: what the device has sent; up to five seconds old.
    """

    certificate_id: str
    source: str
    client_id: str
    live: bool
    established: bool
    bytes_in: int


class Runtime:
    """Commands to one HAProxy.

    Args:
        path: of its socket.
        master: of its master process's socket, through which older workers are reached; None without.
    """

    def __init__(self, path: Path, master: Path | None = None) -> None:
        self._path = path
        self._master = master

    def ask(self, command: str, *, payload: Iterable[str] | None = None, path: Path | None = None) -> str:
        """Send a command and read the answer to its end.

        Args:
            command: a line; several are joined by ``;``.
            payload: lines that follow it.
            path: of another socket.

        Raises:
            HaproxyError: nobody answers, or the command is too long.
        """
        text = command + ("" if payload is None else " <<\n" + "".join(line + "\n" for line in payload)) + "\n"
        sent = text.encode("ascii")
        if len(sent) > LARGEST_COMMAND + 2_000:
            raise HaproxyError(f"a command of {len(sent)} bytes is too long for HAProxy")
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_TIMEOUT)
                connection.connect(str(path or self._path))
                connection.sendall(sent)
                if path is not None:  # the master waits for more, workers end after one command
                    connection.shutdown(socket.SHUT_WR)
                parts = []
                while part := connection.recv(262_144):
                    parts.append(part)
        except OSError as error:
            raise HaproxyError(f"HAProxy does not answer at {path or self._path}: {error}") from None
        return b"".join(parts).decode("utf-8", "replace")

    def tell(self, command: str, *, payload: Iterable[str] | None = None) -> None:
        """Send a command that answers nothing when it works.

        Raises:
            HaproxyError: it said something, or nobody answers.
        """
        answer = self.ask(command, payload=payload).strip()
        if answer:
            raise HaproxyError(f"HAProxy refused {command.partition(' <<')[0][:120]}: {answer[:300]}")

    # maps

    def map_entries(self, file: Path) -> dict[str, str]:
        """Everything in a map; of keys that are there twice the first, which is the one that counts."""
        entries: dict[str, str] = {}
        for line in self.ask(f"show map {file}").splitlines():
            parts = line.split(" ", 2)
            if len(parts) == 3:
                entries.setdefault(parts[1], parts[2])
            elif line:
                raise HaproxyError(f"HAProxy answered {line[:200]} about {file}")
        return entries

    def counts(self) -> dict[str, int]:
        """Entries of each map, by its file; keys that are there twice count twice."""
        return {file: int(count) for file, count in _COUNT.findall(self.ask("show map"))}

    def add(self, file: Path, entries: Iterable[tuple[str, str]], version: int | None = None) -> None:
        """Add keys that the map does not hold, in commands that fit HAProxy's buffer.

        Args:
            file: of the map.
            entries: keys and values without spaces.
            version: of a replacement that ``replace`` prepared.
        """
        command = f"add map {'' if version is None else f'@{version} '}{file}"
        for lines in batches(entries):
            self.tell(command, payload=lines)

    def replace(self, file: Path, entries: Iterable[tuple[str, str]]) -> None:
        """Replace a whole map; look-ups see the old one until all of the new one is there."""
        answer = self.ask(f"prepare map {file}")
        found = re.search(r"version created: (\d+)", answer)
        if found is None:
            raise HaproxyError(f"HAProxy prepared no replacement of {file}: {answer.strip()[:200]}")
        version = int(found[1])
        self.add(file, entries, version)
        self.tell(f"commit map @{version} {file}")

    def change(self, file: Path, key: str, value: str) -> None:
        """Give a key that the map holds another value."""
        self.tell(f"set map {file} {key} {value}")

    def remove(self, file: Path, key: str) -> None:
        """Take a key out, however often it is there."""
        self.tell(f"del map {file} {key}")

    def set_authorities(self, file: Path, pem: str) -> bool:
        """Exchange the authorities.

        Returns:
            False if they do not fit into a command: a reload has to read the file.

        Raises:
            HaproxyError: refused, or nobody answers.
        """
        lines = [line for line in pem.splitlines() if line]
        if sum(len(line) + 1 for line in lines) > LARGEST_COMMAND:
            return False
        said = self.ask(f"set ssl ca-file {file}", payload=lines)
        if "transaction" not in said:
            raise HaproxyError(f"HAProxy refused the authorities: {said.strip()[:300]}")
        done = self.ask(f"commit ssl ca-file {file}")
        if "Success" not in done:
            raise HaproxyError(f"HAProxy did not take the authorities: {done.strip()[-300:]}")
        return True

    # sessions

    def rows(self) -> list[Row]:
        """Connections that passed the rules or were refused by client id, live ones and some that ended lately."""
        rows = []
        for certificate_id, source, client, used, counters in _ROW.findall(self.ask("show table st_conns")):
            values = dict(pair.split("=", 1) for pair in counters.split())
            rows.append(
                Row(
                    certificate_id,
                    source,
                    unquote(client, errors="replace"),
                    live=used != "0",
                    established=int(values.get("gpc0", 0)) > 0,
                    bytes_in=int(values.get("bytes_in_cnt", 0)),
                )
            )
        return rows

    def close(self, sources: set[str]) -> int:
        """Close the sessions of devices at these addresses and ports.

        Returns:
            How many were closed.
        """
        pointers = [
            pointer
            for pointer, source, frontend in _SESSION.findall(self.ask("show sess"))
            if source in sources and frontend == "mqtts"
        ]
        for start in range(0, len(pointers), 200):
            self.ask(";".join(f"shutdown session {pointer}" for pointer in pointers[start : start + 200]))
        return len(pointers)

    def close_of_older_workers(self) -> int:
        """Close what workers from before a reload still hold: their maps do not change any more.

        Returns:
            How many sessions were closed; 0 without a master socket.
        """
        closed = 0
        for process in self.older_workers():
            sessions = self.ask(f"@!{process} show sess", path=self._master)
            for pointer, _source, frontend in _SESSION.findall(sessions):
                if frontend == "mqtts":
                    self.ask(f"@!{process} shutdown session {pointer}", path=self._master)
                    closed += 1
        return closed

    def older_workers(self) -> list[str]:
        """Process ids of workers that a reload left to end."""
        if self._master is None or not self._master.exists():
            return []
        _, found, old = self.ask("show proc", path=self._master).partition("# old workers")
        return _WORKER.findall(old.partition("# programs")[0]) if found else []

    def reload(self) -> None:
        """Start a new worker that reads the files.

        Raises:
            HaproxyError: there is no master socket.
        """
        if self._master is None or not self._master.exists():
            raise HaproxyError("HAProxy has no master socket", "start it with -S, or reload it yourself")
        self.ask("reload", path=self._master)

    def worker(self) -> str:
        """The process id of the worker that answers now: another one after a reload or a restart."""
        found = re.search(r"^Pid: (\d+)$", self.ask("show info"), re.MULTILINE)
        if found is None:
            raise HaproxyError("HAProxy does not tell its process id")
        return found[1]

    def authorities_held(self, file: Path) -> int:
        """How many certificates HAProxy has from a file of authorities."""
        found = re.search(rf"^{re.escape(str(file))} - (\d+) cert", self.ask("show ssl ca-file"), re.MULTILINE)
        return int(found[1]) if found else 0

    def events(self, *, all_of_them: bool = False) -> Iterator[bytes]:
        """Follow the ring: its lines in pieces as they come, b"" once a second without any; ends with the worker.

        Args:
            all_of_them: begin with what the ring has already.

        Raises:
            HaproxyError: nobody answers.
        """
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_TIMEOUT)
                connection.connect(str(self._path))
                connection.sendall(b"show events gate -w\n" if all_of_them else b"show events gate -w -n\n")
                connection.settimeout(1.0)
                while True:
                    try:
                        part = connection.recv(262_144)
                    except TimeoutError:
                        yield b""
                        continue
                    if not part:
                        return
                    yield part
        except OSError as error:
            raise HaproxyError(f"HAProxy shows no events at {self._path}: {error}") from None


def batches(entries: Iterable[tuple[str, str]]) -> Iterator[list[str]]:
    """Lines of a payload, as many at a time as a command may carry."""
    lines: list[str] = []
    size = 0
    for key, value in entries:
        line = f"{key} {value}"
        if size + len(line) + 1 > LARGEST_COMMAND and lines:
            yield lines
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield lines
