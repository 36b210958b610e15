"""README.md against the program: its examples are run, its tables compared with what the tests of others know.

In an example ``[...]`` on a line stands for any lines.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from keyassay.checks import catalogue

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAM = Path(sys.executable).with_name("keyassay")


def loaded(path: Path) -> ModuleType:
    """A module from its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the sample fleet as demo-fleet."""
    found = tmp_path_factory.mktemp("readme")
    sample_fleet = loaded(ROOT / "demo" / "sample_fleet.py")
    sample_fleet.write(sample_fleet.sample_fleet(), found / "demo-fleet")
    return found


def examples() -> list[tuple[str, str]]:
    """(command, expected output) of the console blocks."""
    blocks = re.findall(r"^```console\n\$ (.*?)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    return blocks


def differences(expected: str, got: str) -> str:
    """ "" if the output is as expected, else the first part that is not there."""
    lines = [line.rstrip() for line in got.splitlines()]
    at = 0
    parts = re.split(r"^\[\.\.\.\]\n", expected, flags=re.MULTILINE)
    for number, part in enumerate(parts):
        wanted = [line.rstrip() for line in part.splitlines()]
        last = number == len(parts) - 1
        starts = range(at, at + 1) if number == 0 else range(at, len(lines) - len(wanted) + 1)
        start = next((one for one in starts if lines[one : one + len(wanted)] == wanted), None)
        if last and wanted and start is not None and number:
            start = len(lines) - len(wanted) if lines[-len(wanted) :] == wanted else None
        if start is None:
            return part
        at = start + len(wanted)
    return "" if not parts[-1] or at == len(lines) else "more lines follow: " + "\n".join(lines[at : at + 3])


@pytest.mark.parametrize(("command", "expected"), examples(), ids=[command for command, _ in examples()])
def test_example(command: str, expected: str, folder: Path) -> None:
    words = shlex.split(command)
    assert words[0] == "keyassay"
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "100"}
    done = subprocess.run(
        [PROGRAM, *words[1:]], cwd=folder, check=False, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 1, done.stderr
    assert differences(expected, done.stdout) == ""


def test_the_comparison_of_examples_sees_differences() -> None:
    got = "one\ntwo\nthree\nfour\n"
    assert differences(got, got) == ""
    assert differences("one\n[...]\nfour\n", got) == ""
    assert differences("[...]\nthree\nfour\n", got) == ""
    assert differences("one\n[...]\n", got) == ""
    assert differences("two\n[...]\n", got)
    assert differences("one\n[...]\nthree\n", got)
    assert differences("one\n[...]\nfour\n[...]\ntwo\n[...]\n", got)
    assert differences("one\ntwo\n", got)


def test_the_library_example_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    assert printed.getvalue().startswith("rsa-close-primes broken proven {")


def test_every_check_is_linked() -> None:
    linked = set(re.findall(r"\(docs/checks/([a-z0-9-]+)\.md\)", TEXT))
    quiet = {"dsa-invalid-domain", "dsa-key-size", "rsa-implausible-modulus", "rsa-roca-variant"}
    assert {check.id for check in catalogue()} - quiet == linked


def test_the_table_of_coverage_is_what_the_peers_say() -> None:
    expected = tomllib.loads((ROOT / "tests" / "differential" / "expected.toml").read_text())
    rows = re.findall(r"^\| \[?`?([a-z-]+)`?\]?[^|]* \| (\d+) \| (\d+) \| (\d+) \|$", TEXT, re.MULTILINE)
    assert {name: (int(ours), int(badkeys), int(roca)) for name, ours, badkeys, roca in rows} == {
        name: (count["keyassay"], count["badkeys"], count["roca_detect"])
        for name, count in expected["weak_vectors_found_in_standard"].items()
    }


def test_the_exit_codes_are_those_of_the_help() -> None:
    done = subprocess.run([PROGRAM, "scan", "--help"], check=True, capture_output=True, text=True)
    help_codes = set(re.findall(r"\b(\d+)\s+(?=[a-z])", done.stdout.split("Exit codes:")[1]))
    rows = re.findall(r"^\| ([\d, ]+) \| [a-z]", TEXT.split("| exit code |")[1], re.MULTILINE)
    assert {code for row in rows for code in row.split(", ")} == help_codes
