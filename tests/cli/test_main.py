import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading

import click
import pytest

import keyassay.cli.main as entry
import keyassay.cli.scan as keyassay_scan
from issuing import certificate, pem, sound_key, spki_of
from keyassay.bulk.scan import Scan
from keyassay.cli.main import COMMANDS, commands
from keyassay.output import FORMATS, version


@pytest.mark.parametrize("arguments", [(), ("scan",), ("checks",), ("prove",), ("lists",)])
def test_help_explains_with_examples(keyassay, arguments):
    shown = keyassay(*arguments, "--help")
    assert shown.code == 0
    assert f"Usage: keyassay {' '.join(arguments)}".strip() in shown.out
    if arguments not in {("checks",), ("lists",)}:
        assert "keyassay " in shown.out.split("\n", 1)[1]
    for line in shown.out.splitlines():
        assert len(line) <= 100


def test_help_of_the_whole_names_every_command(keyassay):
    shown = " ".join(keyassay("-h").out.split())
    for name, words in COMMANDS.items():
        assert f" {name} {words}" in shown


def test_the_version_is_that_of_the_package(keyassay):
    assert keyassay("--version").out == f"keyassay {version()}\n"


def test_help_starts_without_the_engine():
    code = (
        "import sys\n"
        "from keyassay.cli.main import run\n"
        "run(['--help'])\n"
        "heavy = {'numpy', 'gmpy2', 'flint', 'cryptography', 'rich', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (("scna",), "no such command 'scna'", "`keyassay --help`"),
        (("scan",), "missing argument 'path...'", "`keyassay scan --help`"),
        (("scan", "x", "--profile", "slow"), "'slow' is not one of", "`keyassay scan --help`"),
        (("scan", "x", "--memory", "much"), "'much' is no size", "`keyassay scan --help`"),
        (("scan", "x", "--at", "soon"), "'soon' is no time", "`keyassay scan --help`"),
        (("scan", "nowhere.pem"), "there is no 'nowhere.pem'", "PATH has to exist"),
        (("checks", "rsa-rocka"), "did you mean rsa-roca", "`keyassay checks --help`"),
    ],
)
def test_wrong_use_is_a_sentence_and_code_2(keyassay, tmp_path, monkeypatch, arguments, said, hint):
    monkeypatch.chdir(tmp_path)
    done = keyassay(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("keyassay: ")
    assert said in done.err.lower()
    assert hint.lower() in done.err.lower()
    assert "Traceback" not in done.err


def test_a_defect_is_a_sentence_and_code_70(keyassay, monkeypatch):
    @click.command()
    def command():
        raise RuntimeError("lost\n\x1b[2J")

    monkeypatch.setattr(commands, "get_command", lambda *_: command)
    done = keyassay("scan")
    assert done.code == 70
    assert "internal error: RuntimeError: lost" in done.err
    assert "\x1b" not in done.err
    assert "Traceback" not in done.err
    monkeypatch.setenv("KEYASSAY_DEBUG", "1")
    assert "Traceback" in keyassay("scan").err


@pytest.mark.parametrize(("error", "code"), [(MemoryError(), 70), (KeyboardInterrupt(), 130), (click.Abort(), 130)])
def test_other_ends_have_their_codes(keyassay, monkeypatch, error, code):
    @click.command()
    def command():
        raise error

    monkeypatch.setattr(commands, "get_command", lambda *_: command)
    assert keyassay("scan").code == code


def test_messages_of_hostile_file_names_are_safe_to_see(keyassay):
    done = keyassay("scan", "a\x1b[2J\u202e.pem")
    assert done.code == 2
    assert done.err.replace("\n", "").isprintable()


def test_the_codes_of_the_help_text_are_the_programs(keyassay):
    shown = " ".join(keyassay("scan", "--help").out.split())
    for code in (0, 1, 2, 3, entry.INTERNAL, entry.INTERRUPTED, entry.CLOSED_PIPE):
        assert re.search(rf"\b{code} [a-z]", shown[shown.index("Exit codes") :]), code


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("table", "jsonl"))) for name in FORMATS]
)
def test_a_closed_pipe_ends_quietly_with_141(program, tmp_path, name):
    one = pem(certificate(spki_of(sound_key()), "x" * 60))
    (tmp_path / "bundle.pem").write_bytes(one * 3_000)
    command = [*program, "scan", "bundle.pem", "--format", name, "--no-fleet", "--check", "rsa-key-size"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_interruption_ends_with_130_and_whole_lines(program, tmp_path):
    process = subprocess.Popen(
        [*program, "scan", "-", "--format", "jsonl", "--no-fleet", "--check", "rsa-key-size"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )

    def feed():
        # more than one chunk, and then a wait for input that never comes
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(pem(certificate(spki_of(sound_key()), "device-18")) * 12_000)

    feeder = threading.Thread(target=feed)
    feeder.start()
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.stdout.read(), process.stderr.read()
    assert (process.wait(timeout=60), err) == (130, b"")
    feeder.join()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()
    process.stderr.close()
    found = (first + out).decode().splitlines()
    assert all(json.loads(line)["assessed"] for line in found)


def test_an_interruption_while_input_is_awaited_ends_with_130(program, tmp_path):
    process = subprocess.Popen(
        [*program, "scan", "-"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    # more than a pipe holds: when it is written, the program reads
    process.stdin.write(pem(certificate(spki_of(sound_key()), "device-18")) * 600)
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == b""
    assert b"Interrupted: this is what was found until then." in out


@pytest.mark.parametrize("name", FORMATS)
def test_an_interrupted_run_reports_what_was_found_until_then(keyassay, fleet, monkeypatch, name):
    class Interrupted(Scan):
        def __iter__(self):
            for number, result in enumerate(super().__iter__(), 1):
                yield result
                if number == 2:
                    raise KeyboardInterrupt

    monkeypatch.setattr(keyassay_scan, "Scan", Interrupted)
    done = keyassay("scan", "fleet", "--format", name)
    assert (done.code, done.err) == (130, "")
    assert "broken.pem" in done.out
    assert "sound\\x1b" not in done.out
    if name == "json":
        document = json.loads(done.out)
        assert document["summary"]["interrupted"] is True
        assert document["summary"]["exit_code"] == 130
        assert len(document["results"]) == 2
    if name in {"table", "html", "markdown"}:
        assert "Interrupted: this is what was found until then." in done.out
