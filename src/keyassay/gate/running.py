"""``keyassay gate run``: HAProxy and Mosquitto in the foreground, the agent beside them, all ended in order.

A program that dies is started again; one that cannot stay up ends the gate with what it said last.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from keyassay.errors import KeyassayError
from keyassay.gate import maps
from keyassay.gate.agent import Agent
from keyassay.gate.rendering import GateSettings, write_configuration
from keyassay.gate.runtime import HaproxyError, Runtime
from keyassay.gate.source import Source

#: seconds for a program to be ready, and to end
_READY = 20.0
_END = 10.0
#: a program that dies so often within a minute of its starts is not started again
_DEATHS = 3
_PACKAGES = {"haproxy": "haproxy", "mosquitto": "mosquitto"}


def program(name: str) -> str:
    """The path of HAProxy or Mosquitto.

    Raises:
        KeyassayError: it is not installed.
    """
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise KeyassayError(f"{name} is not installed", f"on Debian and Ubuntu: apt-get install {_PACKAGES[name]}")
    return found


@dataclass
class _Child:
    name: str
    command: list[str]
    pid_file: Path
    process: subprocess.Popen[bytes] | None = None
    deaths: list[float] = field(default_factory=list)
    said: deque[str] = field(default_factory=lambda: deque(maxlen=8))


class Processes:
    """HAProxy and, if the gate has one of its own, Mosquitto.

    Args:
        settings: of the gate; ``start`` writes the configuration.
        log: structured; what the programs say goes there.
    """

    def __init__(self, settings: GateSettings, log: Any) -> None:
        self._settings = settings
        self._log = log
        self._lock: IO[str] | None = None
        folder = settings.folder
        self.runtime = Runtime(settings.runtime_socket, settings.master_socket)
        self._children: list[_Child] = []
        if not settings.broker:
            command = [program("mosquitto"), "-c", str(folder / "mosquitto.conf")]
            self._children.append(_Child("mosquitto", command, folder / "mosquitto.pid"))
        command = [program("haproxy"), "-W", "-S", str(settings.master_socket), "-f", str(folder / "haproxy.cfg")]
        self._children.append(_Child("haproxy", command, folder / "haproxy.pid"))

    def start(self) -> None:
        """Write the configuration and start everything; returns when devices can connect.

        Raises:
            KeyassayError: another gate works in the folder, the configuration is refused, or a program does not start.
        """
        written = write_configuration(self._settings)
        maps.prepare(self._settings)
        self._take_folder()
        for child in self._children:
            self._end_left_over(child)
        self._log.info("wrote the configuration", files=[path.name for path in written])
        check = subprocess.run(  # noqa: S603  our own command
            [program("haproxy"), "-c", "-f", str(self._settings.folder / "haproxy.cfg")],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if check.returncode != 0:
            alerts = [line.partition("] : ")[2] or line for line in check.stderr.splitlines() if "ALERT" in line]
            raise KeyassayError("HAProxy refuses the configuration: " + "; ".join(alerts)[:600])
        try:
            for child in self._children:
                self._start(child)
        except KeyassayError:
            self.stop()
            raise

    def watch(self) -> None:
        """Start again what has died; call it a few times a second.

        Raises:
            KeyassayError: a program does not stay up.
        """
        for child in self._children:
            if child.process is None or child.process.poll() is None:
                continue
            code = child.process.returncode
            now = time.monotonic()
            child.deaths = [*(moment for moment in child.deaths if now - moment < 60), now]
            said = " / ".join(child.said)
            if len(child.deaths) >= _DEATHS:
                raise KeyassayError(f"{child.name} ended {_DEATHS} times in a minute (code {code}): {said}")
            self._log.error(
                "a program of the gate ended and is started again", program=child.name, code=code, said=said
            )
            self._start(child)

    def stop(self) -> None:
        """End HAProxy, then Mosquitto."""
        for child in reversed(self._children):
            if child.process is not None:
                _end(child.process)
                child.process = None
            child.pid_file.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def pid(self, name: str) -> int:
        """The process id of "haproxy" (its master) or "mosquitto"."""
        for child in self._children:
            if child.name == name and child.process is not None:
                return child.process.pid
        raise KeyassayError(f"{name} does not run")

    def _take_folder(self) -> None:
        self._lock = (self._settings.folder / "gate.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            self._lock = None
            raise KeyassayError(f"another gate works in {self._settings.folder}") from None

    def _end_left_over(self, child: _Child) -> None:
        """End a program whose gate was killed: it would share the port, with maps that nobody changes."""
        try:
            pid = int(child.pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return
        if child.command[-1].encode() not in command:
            return
        self._log.warning("a program of an earlier gate still runs and is ended", program=child.name, pid=pid)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            for _ in range(50):
                if not Path(f"/proc/{pid}").exists() or b"Z" in _state(pid):
                    return
                time.sleep(0.1)

    def _start(self, child: _Child) -> None:
        child.said.clear()
        process = subprocess.Popen(  # noqa: S603  our own command
            child.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            umask=0o077, start_new_session=True,
        )  # fmt: skip
        child.process = process
        child.pid_file.write_text(str(process.pid))
        threading.Thread(target=self._listen, args=(child, process), name=f"gate-{child.name}", daemon=True).start()
        until = time.monotonic() + _READY
        while not self._ready(child):
            if process.poll() is not None:
                time.sleep(0.1)  # for the rest of what it says
                raise KeyassayError(f"{child.name} does not start: {' / '.join(child.said)}")
            if time.monotonic() > until:
                raise KeyassayError(f"{child.name} is not ready after {_READY:.0f} s: {' / '.join(child.said)}")
            time.sleep(0.02)
        self._log.info("started", program=child.name, pid=process.pid)

    def _ready(self, child: _Child) -> bool:
        if child.name == "haproxy":
            with contextlib.suppress(HaproxyError):
                return "Pid: " in self.runtime.ask("show info")
            return False
        sockets = (self._settings.device_socket, self._settings.private_socket)
        if not all(_answers(path) for path in sockets):
            return False
        for path in sockets:
            path.chmod(0o600)
        return True

    def _listen(self, child: _Child, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                text = line.decode("utf-8", "replace").strip()
                if text:
                    child.said.append(text)
                    self._log.debug("said", program=child.name, text=text[:500])


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


def _state(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return b"Z"


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Gate:
    """A whole gate: programs, agent, and the courier of messages for devices.

    Args:
        name: of the gate.
        settings: of the gate.
        source: the registry.
        log: structured.
        private_socket: a listener of somebody else's broker with rights to all topics; the own Mosquitto has one.
    """

    def __init__(
        self, name: str, settings: GateSettings, source: Source, log: Any, private_socket: Path | None = None
    ) -> None:
        self._settings = settings
        self._source = source
        self._log = log
        self.processes = Processes(settings, log)
        self.name = name
        self._private = private_socket or (None if settings.broker else settings.private_socket)
        self.agent: Agent | None = None
        self.ready = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop.

        Raises:
            KeyassayError: something does not start or does not stay up.
        """
        self.processes.start()
        try:
            with self._working() as agent:
                self.agent = agent
                self._log.info("gate is open", name=self.name, listen=list(self._settings.listen))
                self.ready.set()
                while not stop.wait(0.2):
                    self.processes.watch()
        finally:
            self.processes.stop()
            self._log.info("gate is closed", name=self.name)

    @contextlib.contextmanager
    def _working(self) -> Iterator[Agent]:
        ended = threading.Event()
        agent = Agent(self.name, self._settings, self._source, self._log)
        threads = [threading.Thread(target=agent.run, args=(ended,), name="gate-agent", daemon=True)]
        if self._private is not None:
            from keyassay.gate.courier import Courier  # noqa: PLC0415  paho's half a second

            courier = Courier(self._source, self._private, self._log)
            threads.append(threading.Thread(target=courier.run, args=(ended,), name="gate-courier", daemon=True))
        for thread in threads:
            thread.start()
        try:
            yield agent
        finally:
            ended.set()
            for thread in threads:
                thread.join(_END)
