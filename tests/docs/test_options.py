"""Every command and option says in --help what it does."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from keyassay.cli.main import COMMANDS, commands

CONTEXT = commands.make_context("keyassay", [], resilient_parsing=True)


def all_commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command and those below it, with the words that call them."""
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(CONTEXT):
            below = command.get_command(CONTEXT, name)
            assert below is not None
            yield from all_commands(below, (*path, name))


EVERY = list(all_commands(commands))


@pytest.mark.parametrize(("path", "command"), EVERY, ids=[" ".join(path) or "keyassay" for path, _ in EVERY])
def test_every_option_has_its_help(path: tuple[str, ...], command: click.Command) -> None:
    assert command.help, "a command says what it does"
    text = command.get_help(command.make_context("keyassay", [], CONTEXT if path else None, resilient_parsing=True))
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in text
            shown = re.escape(parameter.opts[0]) + r"\b"
            assert parameter.help or re.search(shown, command.help), f"{' '.join(path)} {parameter.opts[0]}"
        else:
            word = (parameter.metavar or parameter.name or "").strip("[].")
            assert word.upper() in command.help.upper(), f"{' '.join(path)}: {word} is explained nowhere"


def test_the_commands_are_those_of_the_table() -> None:
    assert {path[0] for path, _ in EVERY if path} == set(COMMANDS)


def test_help_of_the_whole_names_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "keyassay.cli.main", "--help"], check=True, capture_output=True, text=True
    )
    for name in COMMANDS:
        assert re.search(rf"^  {name}\b", done.stdout, re.MULTILINE)
