"""What a terminal sees: the program runs at a real pseudo-terminal."""

import io
import os
import pty
import re
import subprocess

import pytest

from issuing import certificate, pem, sound_key, spki_of
from keyassay.cli.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def at_terminal(command, folder, *, errors=False, **variables):
    """Exit code and what the terminal got; errors and progress go elsewhere, unless asked for."""
    mine, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", **variables}
    if "NO_COLOR" not in variables:
        environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs if errors else subprocess.DEVNULL,
        env=environment,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(mine, 65_536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(mine)
    return process.wait(), seen.decode()


def test_colours_are_for_terminals_that_take_them(program, fleet):
    command = [*program, "scan", "fleet", "--check", "rsa-close-primes"]
    code, seen = at_terminal(command, fleet.parent)
    assert code == 1
    assert "\x1b[1;31mBROKEN\x1b[0m" in seen
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        code, seen = at_terminal(command, fleet.parent, **variables)
        assert code == 1
        assert "\x1b" not in seen
    done = subprocess.run(command, cwd=fleet.parent, capture_output=True, check=False)
    assert b"\x1b" not in done.stdout + done.stderr


def test_only_our_own_escape_codes_reach_the_terminal(program, fleet):
    _, seen = at_terminal([*program, "scan", "fleet"], fleet.parent)
    rest = re.sub(r"\x1b\[[0-9;]*m", "", seen).replace("\r\n", "\n")
    assert rest.replace("\n", "").isprintable()


def test_nothing_is_shown_in_pipes_and_for_short_work(monkeypatch):
    for stream, kind in ((io.StringIO(), "xterm"), (Terminal(), "xterm"), (Terminal(), "dumb")):
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setenv("TERM", kind)
        monkeypatch.setattr("keyassay.cli.progress._DELAY", 0.6 if kind == "xterm" else 0.0)
        with ProgressBar() as bar:
            bar("reading", 0.5, 10)
        assert stream.getvalue() == ""


def test_long_work_shows_phase_share_and_items(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("keyassay.cli.progress._DELAY", 0.0)
    monkeypatch.setattr("keyassay.cli.progress._INTERVAL", 0.0)
    with ProgressBar() as bar:
        bar("reading", 0.5, 1_234)
        bar("fleet-shared-prime", None, 1_234)
        bar._bar.refresh()
        bar("deep: 120 of 4,000 keys, 3 h left", 0.03, 1_234)
        bar._bar.refresh()
        task = bar._task
        bar("deep: 121 of 4,000 keys, 3 h left", 0.031, 1_234)
        assert bar._bar.tasks[0].completed == 0.031
        assert bar._task is task
    seen = stream.getvalue()
    assert "fleet-shared-prime" in seen
    assert "120 of 4,000 keys, 3 h left" in seen
    assert "1,234 items" in seen
    bar("reading", 1.0, 1_234)
    assert stream.getvalue() == seen


@pytest.mark.parametrize("name", ["jsonl", "csv"])
def test_lines_at_a_terminal_are_not_cut_by_a_bar(program, tmp_path, name):
    (tmp_path / "a.pem").write_bytes(pem(certificate(spki_of(sound_key()), "device")) * 3_000)
    code, seen = at_terminal([*program, "scan", "a.pem", "--format", name, "--no-fleet"], tmp_path, errors=True)
    assert code == 0
    assert "\x1b" not in seen
    assert seen.count("\n") == 3_000 + (name == "csv")
