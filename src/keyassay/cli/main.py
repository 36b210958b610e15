"""Entry point: finds the command, and turns whatever happens into a sentence and an exit code.

Messages go to standard error, begin with ``keyassay:``, and say what to do next where there is something to do.
Only ``KEYASSAY_DEBUG=1`` shows a traceback.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from keyassay.errors import KeyassayError

# 0, 1 and 3 are results of a scan (``output.gate``); these are what can happen to any command.
USAGE = 2
INTERNAL = 70
INTERRUPTED = 130
CLOSED_PIPE = 141

#: commands in the order of the help text; each is ``command`` in the module of its name
COMMANDS = {
    "scan": "Find keys that can be computed, in files, folders, archives, servers.",
    "checks": "List the checks, or explain one.",
    "prove": "Show every step of the proof for one file.",
    "lists": "See, build, verify and search the lists of weak keys.",
    "seeds": "Search for keys that were made from a guessable seed.",
    "serve": "Run the registry behind AWS IoT's API.",
    "worker": "Do a registry's audits and mitigation beside its server.",
    "accounts": "The accounts of a registry.",
    "keys": "Who may sign requests to a registry.",
    "ca": "The authority that issues a registry's certificates.",
    "database": "Upgrade, check, back up, restore or move a registry's database.",
    "operations": "List the operations of the API that are supported.",
    "register": "Register certificates of files.",
    "audit": "Audit a registry: run, look at findings, suppress.",
    "mitigate": "Do something about the findings of an audit.",
    "replace": "Replace weak certificates, proven before the old key dies.",
    "gate": "An MQTT broker that refuses revoked keys.",
    "alerts": "See what somebody should look at now.",
    "import": "Take over certificates from AWS IoT or another registry.",
}


class ClosedPipeError(Exception):
    """Nobody reads our output any more (click would make exit code 1 of a BrokenPipeError)."""


class _Commands(click.Group):
    """Commands that are imported when called, so that ``--help`` and ``--version`` start at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        if cmd_name not in COMMANDS:
            return None
        module = "import_" if cmd_name == "import" else cmd_name  # a word of Python's
        command: click.Command = importlib.import_module(f"keyassay.cli.{module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click's
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ClosedPipeError from error


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from keyassay.output import version  # noqa: PLC0415  start-up time of all other commands

        click.echo(f"keyassay {version()}")
        context.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`keyassay COMMAND --help` shows the options of a command, with examples.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show it.")
def commands() -> None:
    """Find device certificates whose private keys an attacker can compute, and prove it.

    \b
    keyassay scan fleet/                     a folder of certificates
    keyassay scan tls://broker.example:8883  what a server sends
    keyassay prove device-17.pem             how to compute its key, step by step
    """  # noqa: D301  \b is click's mark for lines to keep


def main() -> None:
    """Run the program and end the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line.

    Returns:
        The exit code: 0, 1 and 3 as the command says, 2 for wrong use, 70 for a defect of ours, 130 if interrupted,
        141 if the reader of the output went away.
    """
    try:
        code = commands.main(list(arguments), prog_name="keyassay", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        message = error.format_message()
        where = error.ctx.command_path if error.ctx else "keyassay"
        return _complain(message[:1].lower() + message[1:].rstrip("."), f"`{where} --help` shows what there is", USAGE)
    except click.ClickException as error:
        return _complain(error.format_message(), "", USAGE)
    except KeyassayError as error:
        return _complain(error.message, error.hint, USAGE)
    except (KeyboardInterrupt, click.Abort):
        return _complain("interrupted", "", INTERRUPTED)
    except (BrokenPipeError, ClosedPipeError):
        # What is left in the buffer would raise again when Python closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except MemoryError:
        return _complain("out of memory", "--memory SIZE bounds what comparisons may take", INTERNAL)
    except Exception as error:  # noqa: BLE001  the last resort: a defect is told in a sentence
        if os.environ.get("KEYASSAY_DEBUG"):
            traceback.print_exc()
        return _complain(
            f"internal error: {_defect(error)}",
            "this is a defect of keyassay, please report it; KEYASSAY_DEBUG=1 shows the whole traceback",
            INTERNAL,
        )
    return code if isinstance(code, int) else 0


def _defect(error: Exception) -> str:
    """An unforeseen error in a line: what, and where in our code."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "keyassay" in frame.filename] or list(frames)
    place = f" in {os.path.basename(ours[-1].filename)}:{ours[-1].lineno}" if ours else ""  # noqa: PTH119  no pathlib at start-up
    return f"{type(error).__name__}: {error}{place}".encode("ascii", "backslashreplace").decode()


def _complain(message: str, hint: str, code: int) -> int:
    from keyassay.output.escaping import visible  # noqa: PLC0415  start-up time of all other commands

    text = f"keyassay: {visible(message.replace(chr(10), ' '))}\n" + (f"  {hint}\n" if hint else "")
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        pass
    return code


if __name__ == "__main__":
    main()
