"""The demonstration: makes a sample fleet, scans it with the real program, then audits, mitigates, replaces it.

    python3 dev.py demo [--folder FOLDER] [--keep | --scan-only]

Every finding below comes out of ``keyassay scan`` or of the registry's API; both are compared with what was planted.
``--keep`` leaves the registry running, to point ``aws iot`` at it.
"""

from __future__ import annotations

import argparse
import contextlib
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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sample_fleet import Device

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


def compare(
    screen: Screen, word: str, planted: dict[str, set[str]], found: dict[str, set[str]], stories: dict[str, str]
) -> bool:
    """Say what was missed and what is false; true if nothing is.

    Args:
        screen: where.
        word: what was done to the first: "Planted".
        planted: device -> checks that have to speak.
        found: device -> checks that did.
        stories: device -> what was done to it.
    """
    right = {name for name, checks in planted.items() if checks <= found.get(name, set())}
    wrong = {name for name in planted.keys() | found.keys() if found.get(name, set()) - planted.get(name, set())}
    screen.wrapped(f"{word} {len(planted)}, found {len(right)}; {several(len(wrong), 'false alarm')}.", 4)
    for name in sorted(planted.keys() - right):
        missing = ", ".join(sorted(planted[name] - found.get(name, set())))
        screen.wrapped(f"MISSED {missing} in {name}: {stories.get(name, '')}", 4)
    for name in sorted(wrong):
        screen.wrapped(f"FALSE {', '.join(sorted(found[name] - planted.get(name, set())))} in {name}", 4)
    return right == planted.keys() and not wrong


def in_a_registry(screen: Screen, devices: list[Device], lines: list[dict[str, Any]], *, keep: bool) -> bool:
    """Parts 4 to 7: the fleet in a registry, audited, mitigated, replaced; true if all agrees with the scan."""
    import registry  # noqa: PLC0415  as above
    from keyassay.output.description import sentence  # noqa: PLC0415

    with registry.serving(PROGRAM) as server:
        api = server.client()
        screen.say()
        screen.say(screen.style("4. The fleet in a registry", "1"))
        screen.say()
        filled = registry.fill(api, [(device.name, device.der) for device in devices])
        number = len(filled.names) - filled.authorities
        screen.wrapped(
            f"`keyassay serve` runs at {server.url} and speaks AWS IoT's API. boto3 registered "
            f"{several(filled.authorities, 'authority')}, {several(number, 'certificate')} and as many things in "
            f"{filled.seconds:.1f} s. Refused, as AWS refuses them:",
            4,
        )
        for why, count in filled.refused.most_common():
            screen.wrapped(f"{count:>3}  {why}", 4)

        screen.say()
        screen.say(screen.style("5. The audit", "1"))
        screen.say()
        screen.say(
            "    aws iot start-on-demand-audit-task --target-check-names DEVICE_CERTIFICATE_KEY_QUALITY_CHECK ..."
        )
        screen.say()
        started = time.monotonic()
        task, findings = registry.audit(api)
        seconds = time.monotonic() - started
        told: dict[str, list[dict[str, Any]]] = {}
        for one in findings:
            told.setdefault(one["reasonForNonComplianceCode"], []).append(one)
        for code, those in sorted(told.items()):
            screen.say("  " + screen.style(f"{those[0]['severity']:<9} {code}", CLASSES["broken"][0]))
            screen.wrapped(", ".join(sorted(filled.names[registry.certificate_of(one)] for one in those)), 12)
            screen.wrapped(sentence(those[0]["reasonForNonCompliance"]), 12)
        counts = task["auditDetails"][registry.DEVICE_KEYS]
        screen.say()
        screen.wrapped(
            f"{counts['nonCompliantResourcesCount']} of {several(counts['totalResourcesCount'], 'device certificate')} "
            f"do not comply, found in {seconds:.1f} s. Compared with what the scan called broken:",
            4,
        )
        broken = {
            filled.names[line["sha256"]]: registry.reasons(line["findings"])
            for line in lines
            if line.get("sha256") in filled.names and registry.reasons(line["findings"])
        }
        audited: dict[str, set[str]] = {}
        for one in findings:
            name = filled.names[registry.certificate_of(one)]
            audited.setdefault(name, set()).add(one["reasonForNonComplianceCode"])
        good = compare(screen, "Expected", broken, audited, {})

        screen.say()
        screen.say(screen.style("6. The mitigation", "1"))
        screen.say()
        before = registry.statuses(api)
        done = registry.mitigate(api, task["taskId"])
        after = registry.statuses(api)
        changed = sorted(filled.names[one] for one, status in after.items() if status != before[one])
        things = registry.quarantined(api)
        screen.wrapped(
            f"Two actions for each finding: the device's thing joins the group {registry.GROUP!r}, its certificate is "
            f"deactivated. {done['succeededFindingsCount']} of {several(done['totalFindingsCount'], 'finding')} done.",
            4,
        )
        screen.wrapped(f"INACTIVE now: {', '.join(changed)}.", 4)
        screen.wrapped(f"{several(len(things), 'thing')} in {registry.GROUP}; all others work on.", 4)
        _, left = registry.audit(api)
        authorities = sorted({filled.names[registry.certificate_of(one)] for one in left})
        screen.wrapped(
            f"Audited again: {several(len(registry.of_devices(left)), 'finding')} on devices. Of authorities, for "
            f"which no action was asked: {', '.join(authorities) or 'none'}.",
            4,
        )
        devices = {filled.names[registry.certificate_of(one)] for one in registry.of_devices(findings)}
        good = good and set(changed) == devices == things and not registry.of_devices(left)
        good = good and set(authorities) == set(audited) - devices
        if not good:
            screen.say("    NOT AS EXPECTED")
        good = out(screen, server) and good
        if keep:
            stay(screen, server)
    return good


def out(screen: Screen, server: Any) -> bool:
    """Part 7: devices connected through a gate, weak keys replaced while they run; true if all went as it should."""
    import way_out  # noqa: PLC0415

    import registry  # noqa: PLC0415  as above

    screen.say()
    screen.say(screen.style("7. The way out", "1"))
    screen.say()
    missing = way_out.missing()
    if missing:
        screen.wrapped(
            f"Left out: {' and '.join(missing)} not installed. On Debian: apt-get install {' '.join(missing)}", 4
        )
        return True
    api = server.client()
    with way_out.connected(server, PROGRAM) as way:
        way_out.start_devices(way)
        weak = {one.name: one for one in way.devices if one.story}
        screen.wrapped(
            f"`keyassay gate run` put HAProxy before Mosquitto; {len(way.devices)} devices are connected to it by "
            f"mutual TLS, each a process of its own (`keyassay-device`). The keys of {len(weak)} can be computed:",
            4,
        )
        for name, one in weak.items():
            screen.wrapped(f"{name}: {one.story}", 6)
        task, findings = registry.audit(api)
        told = {registry.certificate_of(one) for one in registry.of_devices(findings)}
        good = told == {one.certificate_id for one in weak.values()}
        screen.wrapped(f"The audit names {several(len(told), 'certificate')}: {'these' if good else 'OTHERS'}.", 4)
        screen.say()
        screen.say("    keyassay replace start --latest-audit --proof device-key --grace 2s")
        started = time.monotonic()
        replacement = way_out.replace(way, task["taskId"])
        way.until(lambda: way_out.status(way, replacement)["status"] != "RUNNING", "the replacement", 2.0)
        seconds = time.monotonic() - started
        found = way_out.status(way, replacement)
        screen.say()
        for state, count in found["funnel"].items():
            words = state.lower().replace("_", " ")
            screen.say(f"      {words:<14} {count:>3}  {screen.style('#' * (3 * count), CLASSES['notice'][0])}")
        screen.say()
        after = registry.statuses(api)
        moved = {name for name, one in weak.items() if way_out.certificate_in_use(way, one) != one.certificate_id}
        revoked = {name for name, one in weak.items() if after[one.certificate_id] == "REVOKED"}
        refused = {name for name, one in weak.items() if not way_out.try_to_connect(way, one)}
        screen.wrapped(
            f"{found['status']} in {seconds:.1f} s: {len(moved)} of {len(weak)} devices made a new key, got a "
            f"certificate for it and are connected with it. {len(revoked)} have their old one REVOKED; somebody "
            f"who computed the old key was refused for {len(refused)}. The other "
            f"{len(way.devices) - len(weak)} noticed nothing.",
            4,
        )
        good = good and moved == revoked == refused == set(weak) and found["status"] == "COMPLETED"
        if not good:
            screen.say("    NOT AS EXPECTED")
    return good


def stay(screen: Screen, server: Any) -> None:
    """Say how to talk to the registry, and wait until somebody has seen enough."""
    screen.say()
    screen.say(screen.style("The registry goes on until Ctrl-C. In another terminal:", "1"))
    screen.say()
    for name, value in (
        ("AWS_ENDPOINT_URL_IOT", server.url),
        ("AWS_ACCESS_KEY_ID", server.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", server.secret),
        ("AWS_REGION", "us-east-1"),
    ):
        screen.say(f"    export {name}={value}")
    screen.say("    aws iot list-certificates --max-items 3")
    screen.command(shown(PROGRAM), "audit", "findings", "--days", "1")
    with contextlib.suppress(KeyboardInterrupt):
        server.process.wait()
    screen.say()


def main() -> None:
    """Make, scan, report, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "demo-fleet", help="where the fleet goes")
    both = parser.add_mutually_exclusive_group()
    both.add_argument("--keep", action="store_true", help="leave the registry running until Ctrl-C")
    both.add_argument("--scan-only", action="store_true", help="without the registry")
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
    planted = {device.name: set(device.planted) for device in weak}
    stories = {device.name: device.story for device in weak}
    found = {common_name(line): {one["check"] for one in line["findings"]} for line in assessed if line["findings"]}
    reasons = "; ".join(f"{Path(line['source']).name}: {line['error']}" for line in unreadable)
    screen.wrapped(
        f"{several(len(assessed), 'certificate')} assessed in {seconds:.1f} s, {len(unreadable)} unreadable "
        f"({reasons}).",
        4,
    )
    good = compare(screen, "Planted", planted, found, stories)
    if not given.scan_only:
        from registry import DemoError  # noqa: PLC0415  as above

        try:
            good = in_a_registry(screen, fleet.devices, lines, keep=given.keep) and good
        except DemoError as error:
            sys.exit(f"demo: {error}")

    screen.say()
    screen.say(screen.style("4. Now you" if given.scan_only else "8. Now you", "1"))
    screen.say()
    victim = folder / "larkfield-meters" / "meter-0041.pem"
    screen.command(shown(PROGRAM), "prove", shown(victim), what="every step to its private key, to repeat with openssl")
    screen.command(
        shown(PROGRAM), "scan", shown(folder), what="the whole report: each certificate, what to do about it"
    )
    screen.command(shown(PROGRAM), "scan", shown(folder), "--output", "report.html", what="the same to pass on")
    screen.command(shown(PROGRAM), "scan", "YOUR-FOLDER", what="your own certificates; nothing leaves this machine")
    if not given.scan_only:
        screen.command(
            "python3", "dev.py", "demo", "--keep", what="the same, and the registry stays for your `aws iot`"
        )
        screen.command(shown(PROGRAM), "serve", what="a registry of your own: docs/operating.md")
    screen.say()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
