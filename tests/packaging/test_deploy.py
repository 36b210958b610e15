"""The files of deploy/: the unit as systemd itself judges it, the image by the rules that matter."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from keyassay.cli.gate import run as gate_run
from keyassay.cli.serve import command

DEPLOY = Path(__file__).parents[2] / "deploy"
OPTIONS = {name for parameter in command.params for name in parameter.opts}


@pytest.mark.parametrize("name", ["keyassay.service", "keyassay-gate.service"])
def test_the_unit_is_one_and_well_locked_up(tmp_path: Path, name: str) -> None:
    text = (DEPLOY / name).read_text()
    unit = tmp_path / name
    unit.write_text(text.replace("/opt/keyassay/bin/keyassay", sys.executable))
    checked = subprocess.run(["systemd-analyze", "verify", unit], check=False, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit], check=False, capture_output=True
    )
    assert judged.returncode == 0, judged.stdout.decode()


def test_the_image() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    instructions = [line for line in text.splitlines() if line and not line.startswith("#")]
    bases = [line.split()[1] for line in instructions if line.startswith("FROM")]
    assert all(":" in base and not base.endswith(":latest") for base in bases)
    last = text.rpartition("\nFROM ")[2]
    user = re.search(r"^USER (\S+)$", last, re.MULTILINE)
    assert user is not None
    assert user[1] not in ("root", "0")
    assert re.search(r'^ENTRYPOINT \["keyassay", "serve"\]$', last, re.MULTILINE)
    assert "ADD " not in text
    assert not re.search(r"(SECRET|PASSWORD)\S*=\S", "\n".join(instructions))


@pytest.mark.parametrize("name", ["keyassay.service", "keyassay-gate.service", "Dockerfile"])
def test_what_they_name_exists(name: str) -> None:
    text = (DEPLOY / name).read_text()
    parameters = [*command.params, *gate_run.params]
    known = {parameter.envvar for parameter in parameters if isinstance(parameter.envvar, str)}
    known |= {"KEYASSAY_ACCOUNT_ID", "KEYASSAY_ACCESS_KEY_ID", "KEYASSAY_SECRET_ACCESS_KEY"}
    assert set(re.findall(r"KEYASSAY_[A-Z_]+", text)) <= known
    used = set(
        re.findall(
            r"(?<=\s)(--[a-z-]+)", "\n".join(re.findall(r"(?<![=/])keyassay(?: serve)? (--.*)$", text, re.MULTILINE))
        )
    )
    assert used <= OPTIONS
