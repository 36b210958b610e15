"""dev.py: what it says, which index it uses, and lock files that name packages by digest only."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def dev() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dev", ROOT / "dev.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ROOT / "dev.py", *arguments], check=False, capture_output=True, text=True)


def test_it_lists_the_benchmarks() -> None:
    done = call("bench")
    assert done.returncode == 0
    files = {path.stem.replace("_", "-") for path in (ROOT / "benchmarks").glob("*.py")}
    assert set(done.stdout.split()) == files
    wrong = call("bench", "nonsense")
    assert wrong.returncode == 1
    assert all(name in wrong.stderr for name in files)


def test_wrong_use_is_told_in_a_line() -> None:
    assert call().returncode == 2
    assert call("setup", "--nonsense").returncode == 2
    assert "nonsense" in call("setup", "--nonsense").stderr


def test_it_needs_nothing_but_the_standard_library() -> None:
    imported = re.findall(r"^(?:import|from) (\w+)", (ROOT / "dev.py").read_text(), re.MULTILINE)
    assert set(imported) <= sys.stdlib_module_names


def test_ci_is_one_line_that_calls_it() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["exec python3 dev.py test"]


@pytest.mark.parametrize("name", ["dev.txt", "peers.txt", "awscli.txt", "uv.txt"])
def test_locks_have_a_digest_for_every_package_and_no_address(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert "://" not in text
    entries = re.split(r"^(?=[A-Za-z])", text, flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        assert re.match(r"[\w.-]+(\[\w+\])?==\S+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


def test_the_lock_covers_what_the_project_needs(dev: ModuleType) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    locked = set(re.findall(r"^([\w.-]+)", (dev.REQUIREMENTS / "dev.txt").read_text(), re.MULTILINE))
    assert {re.split(r"[<>=]", name)[0] for name in wanted} <= locked


def test_the_installer_uses_the_index_of_pip(dev: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_NO_INDEX", "UV_CACHE_DIR", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.setenv("PIP_CERT", "/mirror.pem")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = dev.for_installer()
    assert found["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert found["SSL_CERT_FILE"] == "/mirror.pem"
    assert "UV_CACHE_DIR" not in found
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://own.example/simple")
    assert dev.for_installer()["UV_DEFAULT_INDEX"] == "https://own.example/simple"


def test_an_environment_is_renewed_when_its_lock_changes(dev: ModuleType, tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("one")
    first = dev.digest(lock)
    assert dev.digest(lock) == first
    lock.write_text("two")
    assert dev.digest(lock) != first
    (tmp_path / "stamp").write_text(dev.digest(lock))
    assert dev.environment(tmp_path, lock) is False
