"""Profile deep in audits: every key has its turn once, its steps are kept, and what is stopped or killed goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import fleet_keys
import weak_devices
from auditing import CA_KEYS, DEVICE_KEYS, audit, enable, findings, summary
from keyassay.audit import deep_search, tasks
from keyassay.audit.deep_search import DeepSearch
from keyassay.audit.fleet_pool import SearchError
from keyassay.bulk.deep_run import DeepRun
from keyassay.findings import Profile
from keyassay.registry import certificates
from keyassay.registry.registry import Registry
from two_accounts import A, B

SMALL = "CERTIFICATE_KEY_VULNERABILITY_EC_WEAK_PRIVATE_KEY"


def broken_deep() -> fleet_keys.Signed:
    """A device whose key only deep steps break."""
    return fleet_keys.device("small", key=ec.derive_private_key((1 << 31) + 123_456_789, ec.SECP256R1()))


def register(registry: Registry, *devices: fleet_keys.Signed, actor: Any = A) -> None:
    for one in devices:
        certificates.register_without_authority(registry, actor, one.pem, status="ACTIVE")


@pytest.fixture
def search(database_url: str) -> DeepSearch:
    return DeepSearch(database_url, A.account_id, budget=0.5, processes=1)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many keys each run of the engine had."""
    seen: list[int] = []
    examine = DeepRun.examine

    def counted(self: DeepRun, spool: Any, found: Any) -> Any:
        examined = examine(self, spool, found)
        seen.append(len(examined.reports))
        return examined

    monkeypatch.setattr(DeepRun, "examine", counted)
    return seen


def steps_of(rows: Any, device: fleet_keys.Signed) -> dict[str, list[Any]]:
    """What is kept of a key's steps, by name."""
    digest = rows.all("certificates", id=device.id)[0]["spki_digest"]
    (row,) = rows.all("deep_verdicts", spki_digest=digest)
    return {step[2]: step[3:] for step in row["steps"]}


def test_a_second_search_does_nothing_and_a_larger_budget_goes_on(
    registry: Registry, rows: Any, search: DeepSearch, turns: list[int]
) -> None:
    sound, curve = fleet_keys.device("sound", key=fleet_keys.rsa_key(7)), fleet_keys.device("curve")
    known = weak_devices.roca_device()
    register(registry, broken_deep(), sound, curve, known)
    assert deep_search.work(registry.database, search)
    assert turns == [3]  # a key that the checks of single keys break has no turn
    found = [row for row in rows.all("deep_verdicts") if row["findings"]]
    (finding,) = found[0]["findings"]
    assert (finding["check"], finding["class"]) == ("ec-weak-private-key", "broken")
    assert not {"d", "private_key"} & set(finding["evidence"])
    assert len(rows.all("deep_verdicts")) == 4
    before = steps_of(rows, sound)
    assert any(step[0] for step in before.values())
    assert deep_search.run(registry.database, search, lambda: False, print)  # nothing to do: not even asked
    assert deep_search.work(registry.database, search)
    assert turns == [3]
    assert deep_search.work(registry.database, replace(search, budget=1.5))
    assert turns[1:] == [2]
    after = steps_of(rows, sound)
    assert all(after[name] == step for name, step in before.items() if step[0])  # done: not done again
    assert sum(step[2] for step in after.values()) > sum(step[2] for step in before.values())
    assert len(after) > len(before)


def test_what_is_known_of_a_key_is_known_in_all_accounts(
    registry: Registry, search: DeepSearch, turns: list[int]
) -> None:
    register(registry, broken_deep(), fleet_keys.device("curve"))
    register(registry, fleet_keys.device("curve again"), actor=B)
    deep_search.work(registry.database, search)
    deep_search.work(registry.database, replace(search, account_id=B.account_id))
    assert turns == [2]


def test_processes_share_the_keys(registry: Registry, rows: Any, search: DeepSearch) -> None:
    devices = [fleet_keys.device(f"device {number}", key=fleet_keys.ec_key(200 + number)) for number in range(6)]
    register(registry, *devices, broken_deep())
    said: list[str] = []
    assert deep_search.run(registry.database, replace(search, processes=2, budget=0.1), lambda: True, said.append)
    assert len(rows.all("deep_verdicts")) == 7
    assert said[-1] == "deep steps: 7 of 7 keys"


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["usual", "background"])
def interruptions(request: pytest.FixtureRequest) -> Iterator[None]:
    """What children inherit: shells have interruptions ignored by what they start in the background."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptions")
def test_a_search_that_is_ended_says_how_far_the_key_under_way_came(
    registry: Registry, rows: Any, search: DeepSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = fleet_keys.device("sound", key=fleet_keys.rsa_key(7))
    register(registry, sound)
    long = replace(search, budget=600.0)
    begun: list[tuple[int, float]] = []
    hear = deep_search._Share._hear

    def listening(self: Any, line: str) -> None:
        hear(self, line)
        if line.startswith("at "):
            begun.append((self.child._process.pid, cpu_of(self.child._process.pid)))

    monkeypatch.setattr(deep_search._Share, "_hear", listening)

    def goes_on() -> bool:  # until its steps have had two seconds of a core, however long that takes
        return not begun or cpu_of(begun[0][0]) < begun[0][1] + 2

    assert not deep_search.run(registry.database, long, goes_on, lambda _text: None)
    (row,) = rows.all("deep_verdicts")
    assert row["budget"] == 0.0
    assert not row["complete"]
    assert steps_of(rows, sound)
    with registry.database.read() as connection:
        assert "1 of 1 keys" in deep_search.remark(connection, long)
    assert deep_search.run(registry.database, search, lambda: True, print)  # has spent this budget already
    (row,) = rows.all("deep_verdicts")
    assert row["budget"] == search.budget


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_and_loses_no_finding(
    registry: Registry, rows: Any, search: DeepSearch
) -> None:
    devices = [fleet_keys.device(f"device {number}", key=fleet_keys.ec_key(220 + number)) for number in range(4)]
    register(registry, *devices, broken_deep())
    line = replace(search, budget=0.8).as_line()
    kills = 0
    for _ in range(40):
        command = [sys.executable, "-m", "keyassay.audit.deep_search"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
            assert child.stdin is not None
            child.stdin.write(line.encode() + b"\n")
            child.stdin.flush()
            before = len(rows.all("deep_verdicts"))
            while child.poll() is None and len(rows.all("deep_verdicts")) == before:
                time.sleep(0.05)
            if child.poll() is None:
                kills += 1
                child.send_signal(signal.SIGKILL)
        if child.returncode == 0:
            break
    assert kills
    assert len(rows.all("deep_verdicts")) == 5
    assert len([row for row in rows.all("deep_verdicts") if row["findings"]]) == 1


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Processes in which the steps of RSA keys end the process, as a lack of memory does."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "from keyassay.bulk import deep_run\n"
        "examine = deep_run.examine_deeply\n"
        "def dies(key, *given, **more):\n"
        "    if hasattr(key, 'modulus'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return examine(key, *given, **more)\n"
        "deep_run.examine_deeply = dies\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield


@pytest.mark.usefixtures("deadly")
def test_a_key_that_takes_its_process_with_it_is_left_alone(registry: Registry, rows: Any, search: DeepSearch) -> None:
    fatal, sound = fleet_keys.device("fatal", key=fleet_keys.rsa_key(7)), fleet_keys.device("sound")
    register(registry, fatal, sound)
    assert deep_search.run(registry.database, search, lambda: True, print)
    by_key = {row["spki_digest"]: row for row in rows.all("deep_verdicts")}
    assert len(by_key) == 2
    assert by_key[rows.all("certificates", id=fatal.id)[0]["spki_digest"]]["failed"]
    assert not by_key[rows.all("certificates", id=sound.id)[0]["spki_digest"]]["failed"]
    assert deep_search.run(registry.database, search, lambda: False, print)


def test_a_search_that_cannot_be_done_says_why(registry: Registry, search: DeepSearch, tmp_path: Path) -> None:
    register(registry, fleet_keys.device("sound"))
    lost = replace(search, database=f"sqlite:///{tmp_path}/nowhere/registry.db")
    with pytest.raises(SearchError):
        deep_search.run(registry.database, lost, lambda: True, print)


def test_audits_have_the_findings_the_progress_and_what_was_left_out(
    registry: Registry, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    enable(registry)
    small, sound = broken_deep(), fleet_keys.device("sound", key=fleet_keys.rsa_key(7))
    register(registry, small, sound)
    settings = {"profile": Profile.DEEP, "budget": 0.5, "deep_processes": 1}
    seen: list[str] = []
    run = deep_search.run

    def told(database: Any, search: Any, goes_on: Any, tell: Any) -> bool:
        def both(text: str) -> None:
            tell(text)
            (row,) = (one for one in rows.all("audit_task_checks") if one["status"] == "IN_PROGRESS")
            seen.append(row["message"])

        return run(database, search, goes_on, both)

    monkeypatch.setattr(deep_search, "run", told)
    first = audit(registry, DEVICE_KEYS, **settings)
    assert findings(rows, first, DEVICE_KEYS) == {(small.id, SMALL)}
    assert summary(first, DEVICE_KEYS) == ("COMPLETED_NON_COMPLIANT", 2, 1, 0)
    assert seen[-1] == "deep steps: 2 of 2 keys"
    message = first.checks[DEVICE_KEYS]["message"]
    assert "on 1 of 2 keys" in message
    seen.clear()
    second = audit(registry, DEVICE_KEYS, CA_KEYS, **settings)
    assert findings(rows, second, DEVICE_KEYS) == {(small.id, SMALL)}
    assert second.checks[DEVICE_KEYS]["message"] == message
    assert not seen
    standard = audit(registry, DEVICE_KEYS)
    assert not findings(rows, standard, DEVICE_KEYS)
    assert standard.checks[DEVICE_KEYS]["message"] is None


def test_canceling_an_audit_ends_its_processes(registry: Registry, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    enable(registry)
    register(registry, fleet_keys.device("sound", key=fleet_keys.rsa_key(7)))
    children: list[int] = []
    start = deep_search.Child.__init__

    def watched(self: Any, *given: Any) -> None:
        start(self, *given)
        children.append(self._process.pid)
        (task,) = (row for row in rows.all("audit_tasks") if row["status"] == "IN_PROGRESS")
        tasks.cancel(registry, A, task["id"])

    monkeypatch.setattr(deep_search.Child, "__init__", watched)
    task = audit(registry, DEVICE_KEYS, profile=Profile.DEEP, budget=600.0, deep_processes=1)
    assert task.row["status"] == "CANCELED"
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert len(children) == 1
    assert json.dumps(rows.all("audit_findings")) == "[]"
