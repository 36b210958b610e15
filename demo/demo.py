"""The demonstration: makes a sample fleet, scans it with the real program, and says what came out.

    python3 dev.py demo [--folder FOLDER]

Every finding below comes out of ``keyassay scan``; at the end it is compared with what was planted.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(sys.executable).with_name("keyassay")
CLASSES = {
    "broken": ("1;31", "the private key can be computed, or no sound one can exist"),
    "weak": ("33", "below today's accepted minimum"),
    "notice": ("36", "worth knowing"),
}
SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW")


@dataclass(frozen=True)
class Screen:
    """Where the demonstration writes: its width, and whether it takes colour."""

    width: int
    colour: bool

    def style(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def say(self, text: str = "") -> None:
        print(text, flush=True)

    def wrapped(self, text: str, indent: int) -> None:
        space = " " * indent
        self.say(textwrap.fill(text, self.width, initial_indent=space, subsequent_indent=space, break_on_hyphens=False))

    def command(self, *words: str | Path, what: str = "") -> None:
        self.say(f"    {self.style(shlex.join(str(word) for word in words), '1')}")
        if what:
            self.wrapped(what, 6)


def shown(path: Path) -> Path:
    """A path as short as it can be typed."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def several(number: int, one: str) -> str:
    """A number with its noun."""
    return f"{number:,} {one}" if number == 1 else f"{number:,} {one}s"


def common_name(line: dict[str, Any]) -> str:
    """The CN of a result's subject."""
    parts = [part for part in line["subject"].split(",") if part.startswith("CN=")]
    return str(parts[0][3:] if parts else line["subject"])


def prepare(folder: Path, names: Iterable[str]) -> None:
    """Empty the folder of an earlier fleet, and of nothing else.

    Raises:
        SystemExit: there is something in it that this did not make.
    """
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if (folder.exists() and not folder.is_dir()) or there - set(names):
        sys.exit(f"demo: {folder} is there and holds other things; choose another one with --folder")
    for name in there:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def scan(folder: Path, results: Path) -> list[dict[str, Any]]:
    """Run ``keyassay scan`` and read its lines.

    Raises:
        SystemExit: it could not do its work.
    """
    command = [str(PROGRAM), "scan", str(shown(folder)), "--output", str(results)]
    done = subprocess.run(command, check=False)
    if done.returncode != 1:  # there are broken keys in the fleet
        sys.exit(f"demo: `{shlex.join(command)}` ended with {done.returncode}")
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def report(screen: Screen, lines: list[dict[str, Any]]) -> None:
    """The findings by class and check: which devices, and what of them."""
    from keyassay.output.description import sentence  # noqa: PLC0415  imports more than the first line needs

    for name, (code, meaning) in CLASSES.items():
        found: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
        for line in lines:
            for finding in line["findings"]:
                if finding["class"] == name:
                    found.setdefault(finding["check"], []).append((line, finding))
        if not found:
            continue
        concerned = {line["sha256"] for pairs in found.values() for line, _ in pairs}
        screen.say()
        screen.say(f"{screen.style(name.upper(), code)}  {several(len(concerned), 'certificate')}: {meaning}")
        screen.say()
        rank = {check: min(SEVERITIES.index(one["severity"]) for _, one in pairs) for check, pairs in found.items()}
        for check in sorted(found, key=lambda one: (rank[one], one)):
            pairs = found[check]
            severity = SEVERITIES[rank[check]]
            who = ", ".join(common_name(line) for line, _ in pairs[:5])
            more = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
            confidence = {one["confidence"] for _, one in pairs}
            screen.say(f"  {screen.style(f'{severity:<9} {check}', code)}  {', '.join(sorted(confidence))}")
            screen.wrapped(who + more, 12)
            screen.wrapped(sentence(pairs[0][1]["message"]), 12)


def main() -> None:
    """Make, scan, report, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "demo-fleet", help="where the fleet goes")
    given = parser.parse_args()
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    screen = Screen(min(shutil.get_terminal_size((100, 24)).columns, 110), colour)
    folder: Path = given.folder.resolve()
    results = folder.with_name(folder.name + ".jsonl")

    screen.say(screen.style("1. A sample fleet", "1"))
    screen.say()
    started = time.monotonic()
    from sample_fleet import FILES, sample_fleet, write  # noqa: PLC0415  its imports take longer than the first line

    prepare(folder, FILES)
    fleet = sample_fleet()
    write(fleet, folder)
    weak = [device for device in fleet.devices if device.planted]
    screen.wrapped(
        f"{several(len(fleet.devices), 'certificate')} of five makers in {shown(folder)}/, made in "
        f"{time.monotonic() - started:.1f} s: a folder of PEM files, a bundle, `describe-certificate` output, a zip "
        f"of DER, PKCS #7, and a file that was cut off. {len(weak)} of them have something wrong.",
        4,
    )

    screen.say()
    screen.say(screen.style("2. The scan", "1"))
    screen.say()
    screen.command(shown(PROGRAM), "scan", shown(folder), "--output", shown(results))
    started = time.monotonic()
    lines = scan(folder, results)
    seconds = time.monotonic() - started
    report(screen, lines)

    screen.say()
    screen.say(screen.style("3. What came out", "1"))
    screen.say()
    assessed = [line for line in lines if line["assessed"]]
    unreadable = [line for line in lines if line["kind"] == "unreadable"]
    planted = {device.name: device.planted for device in weak}
    stories = {device.name: device.story for device in weak}
    found = {common_name(line): {one["check"] for one in line["findings"]} for line in assessed if line["findings"]}
    reasons = "; ".join(f"{Path(line['source']).name}: {line['error']}" for line in unreadable)
    screen.wrapped(
        f"{several(len(assessed), 'certificate')} assessed in {seconds:.1f} s, {len(unreadable)} unreadable "
        f"({reasons}).",
        4,
    )
    right = {name for name, checks in planted.items() if checks <= found.get(name, set())}
    wrong = {name for name in planted.keys() | found.keys() if found.get(name, set()) - planted.get(name, set())}
    screen.wrapped(f"Planted {len(planted)}, found {len(right)}; {several(len(wrong), 'false alarm')}.", 4)
    for name in sorted(planted.keys() - right):
        missing = ", ".join(sorted(planted[name] - found.get(name, set())))
        screen.wrapped(f"MISSED {missing} in {name}: {stories[name]}", 4)
    for name in sorted(wrong):
        screen.wrapped(f"FALSE {', '.join(sorted(found[name] - planted.get(name, set())))} in {name}", 4)

    screen.say()
    screen.say(screen.style("4. Now you", "1"))
    screen.say()
    victim = folder / "larkfield-meters" / "meter-0041.pem"
    screen.command(shown(PROGRAM), "prove", shown(victim), what="every step to its private key, to repeat with openssl")
    screen.command(
        shown(PROGRAM), "scan", shown(folder), what="the whole report: each certificate, what to do about it"
    )
    screen.command(shown(PROGRAM), "scan", shown(folder), "--output", "report.html", what="the same to pass on")
    screen.command(shown(PROGRAM), "scan", "YOUR-FOLDER", what="your own certificates; nothing leaves this machine")
    screen.say()
    sys.exit(0 if right == planted.keys() and not wrong else 1)


if __name__ == "__main__":
    main()
