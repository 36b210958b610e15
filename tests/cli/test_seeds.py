"""``keyassay seeds`` on the command line."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gmpy2
import pytest

from issuing import certificate, pem
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.certificates.spki import encode
from keyassay.cli.seeds import _ranges
from keyassay.lists.seeds import MODELS, Origin

MARCH = 1_709_251_200  # 2024-03-01


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def weak(origin: Origin) -> bytes:
    """A certificate in PEM."""
    p, q = (int(gmpy2.next_prime(start - 1)) for start in origin.starts(512))
    return pem(certificate(encode(RsaPublicKey(p * q, 65537)), "device"))


def test_found_proven_and_recognised_later(keyassay) -> None:
    Path("fleet").mkdir()
    Path("fleet/a.pem").write_bytes(weak(Origin("mt19937-memory", 70_123, 2, (0, 1))))
    Path("fleet/b.pem").write_bytes(weak(Origin("msvc-bytes", 1, 2, (0, 1))))
    arguments = ("seeds", "search", "fleet", "--model", "mt19937-memory", "--jobs", 1, "--range")
    assert keyassay("scan", "fleet/a.pem", "--check", "rsa-weak-seed").code == 0
    done = keyassay(*arguments, "0..70122")
    assert (done.code, done.out) == (
        0,
        "nothing found: none of 2 different RSA keys comes from these seeds by these models\n",
    )
    done = keyassay(*arguments, "70000..0x111eb")
    assert done.code == 1
    assert done.out == "broken  fleet/a.pem#0: mt19937-memory\n1 of 2 different RSA keys found\n"
    assert "with seed 70123" in keyassay(*arguments, "70000..0x111eb", "--reveal").out
    assert keyassay("scan", "fleet/a.pem", "--check", "rsa-weak-seed").code == 1
    proof = keyassay("prove", "fleet/a.pem", "--check", "rsa-weak-seed")
    assert "Its seed is 70123" in " ".join(proof.out.split())


def test_times(keyassay) -> None:
    Path("a.pem").write_bytes(weak(Origin("newlib-bytes", MARCH + 86_399, 1, (0, 1))))
    arguments = ("seeds", "search", "a.pem", "--model", "newlib-bytes", "--jobs", 1, "--range")
    assert keyassay(*arguments, "2024-03-01..2024-03-01").code == 1
    assert keyassay(*arguments, "2024-03-01T00:00..2024-03-01T23:59:58").code == 0
    assert keyassay(*arguments, "2024-03-01T23:59:59Z..2024-03-02T00:59:59+01:00").code == 1


def test_ranges() -> None:
    java, glibc, python = MODELS["java-biginteger"], MODELS["glibc-bytes"], MODELS["python-bytes"]
    day = "2024-03-01..2024-03-01"
    assert _ranges(day, None, [java, glibc], skip=False) == {
        range(MARCH * 1_000, (MARCH + 86_400) * 1_000): [java],
        range(MARCH, MARCH + 86_400): [glibc],
    }
    assert _ranges(day, "ms", [python], skip=False) == {range(MARCH * 1_000, (MARCH + 86_400) * 1_000): [python]}
    assert _ranges("2024-03-01T00:00:00..2024-03-01T00:00:01", None, [java], skip=False) == {
        range(MARCH * 1_000, MARCH * 1_000 + 2_000): [java]
    }
    assert _ranges("0..4294967296", None, [glibc, java], skip=True) == {range(2**32): [glibc], range(2**32 + 1): [java]}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("5", "is no range"),
        ("5..4", "ends before it begins"),
        ("5..x", "'x' is no seed and no time"),
        ("0..4294967296", "the seeds of glibc-bytes are 0 to 4294967295"),
        ("1969-01-01..2000-01-01", "is before 1970"),
        ("0..1..2", "is no range"),
    ],
)
def test_wrong_ranges(given: str, complaint: str, keyassay) -> None:
    done = keyassay("seeds", "search", ".", "--model", "glibc-bytes", "--range", given)
    assert done.code == 2
    assert complaint in done.err


def test_nothing_to_search(keyassay) -> None:
    Path("empty").mkdir()
    done = keyassay("seeds", "search", "empty", "--model", "all", "--range", "0..1")
    assert done.code == 2
    assert "no RSA key" in done.err


def test_all_models(keyassay) -> None:
    Path("a.pem").write_bytes(weak(Origin("md5-counter", 55, 1, (0, 2))))
    done = keyassay("seeds", "search", "a.pem", "--model", "all", "--range", "0..99", "--jobs", 1)
    assert done.code == 1
    assert "a.pem#0: md5-counter" in done.out


def test_models_are_listed(keyassay) -> None:
    lines = keyassay("seeds", "models").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(MODELS)
    rows = json.loads(keyassay("seeds", "models", "--json").out)
    assert [row["name"] for row in rows] == list(MODELS)
    assert {row["seed_bits"] for row in rows} == {31, 32, 64}


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A program in a session of its own, of which nothing is left behind."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _until(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    """Wait for something that it does."""
    deadline = time.monotonic() + 180
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _interrupt(process: subprocess.Popen[str], when: Callable[[], bool]) -> tuple[str, str]:
    """Interrupt it as a terminal does once something has happened; what it said."""
    _until(process, when)
    os.killpg(process.pid, signal.SIGINT)
    return process.communicate(timeout=120)


@pytest.mark.slow
def test_interrupted_and_gone_on_with(program, tmp_path: Path) -> None:
    Path("a.pem").write_bytes(weak(Origin("glibc-bytes", 300, 1, (0, 1))))
    Path("b.pem").write_bytes(weak(Origin("msvc-bytes", 300, 1, (0, 1))))
    state = tmp_path / "state.json"
    words = ["seeds", "search", "a.pem", "b.pem", "--model", "glibc-bytes", "--range", "0..4294967295", "--jobs", "2"]
    command = [*program, *words, "--state", str(state)]
    with _running(command) as running:
        out, err = _interrupt(running, state.exists)
    assert running.returncode == 130
    assert "a.pem#0: glibc-bytes" in out
    assert "the same command goes on" in err
    done = json.loads(state.read_text())["done"]
    assert done > 0
    with _running(command) as running:
        out, err = _interrupt(running, lambda: json.loads(state.read_text())["done"] > done)
    assert "were done before" in err
    assert "a.pem#0: glibc-bytes" in out, err
    assert json.loads(state.read_text())["done"] > done


@pytest.mark.slow
def test_what_was_found_is_said_when_workers_are_lost(program, tmp_path: Path) -> None:
    Path("a.pem").write_bytes(weak(Origin("glibc-bytes", 300, 1, (0, 1))))
    Path("b.pem").write_bytes(weak(Origin("msvc-bytes", 300, 1, (0, 1))))
    state = tmp_path / "state.json"
    words = ["seeds", "search", "a.pem", "b.pem", "--model", "glibc-bytes", "--range", "0..4294967295", "--jobs", "2"]
    with _running([*program, *words, "--state", str(state)]) as running:
        _until(running, state.exists)
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(ProcessLookupError):
                if int(entry.name) != running.pid and os.getsid(int(entry.name)) == running.pid:
                    os.kill(int(entry.name), signal.SIGKILL)
        out, err = running.communicate(timeout=120)
    assert running.returncode == 2, err
    assert "a worker process was lost" in err
    assert "a.pem#0: glibc-bytes" in out
