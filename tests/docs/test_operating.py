"""The operator's guide knows every setting, and the tables of roles are the code's."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from keyassay.aws.operations import ROLES, Access
from keyassay.cli import keys, serve, worker

ROOT = Path(__file__).resolve().parent.parent.parent
OPERATING = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
MODEL = (ROOT / "docs" / "security-model.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", [serve.command, worker.command], ids=["serve", "worker"])
def test_every_setting_is_explained_with_its_variable(command: click.Command) -> None:
    table = OPERATING.split("## Settings of serve and worker")[1].split("\n## ")[0]
    rows = [line.split("|")[1:] for line in table.splitlines() if line.startswith("| `--")]
    for option in command.params:
        assert isinstance(option, click.Option)
        (row,) = [row for row in rows if f"`{option.opts[0]}`" in row[0]]
        variables = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
        assert re.findall(r"`(\w+)`", row[1]) == variables, option.opts[0]
    known = {option.opts[0] for one in (serve.command, worker.command) for option in one.params}
    assert {name for row in rows for name in re.findall(r"`(--[a-z-]+)`", row[0])} == known


def test_roles_may_what_the_table_says() -> None:
    rows = re.findall(r"^\| (\w+) \|((?: (?:yes)? ?\|){5})$", MODEL, re.MULTILINE)
    columns = (Access.READ, Access.REGISTER, Access.CHANGE, Access.ADMINISTER, Access.GATE)
    said = {}
    for role, cells in rows:
        words = [cell.strip() for cell in cells.split("|")[:-1]]
        said[role] = {access for access, word in zip(columns, words, strict=True) if word}
    assert said == {role: set(may) for role, may in ROLES.items()}
    assert set(keys.ROLES) == set(ROLES)
    assert set(re.findall(r"^\| (\w+) \| ", OPERATING, re.MULTILINE)) >= set(ROLES)
