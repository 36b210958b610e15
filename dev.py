#!/usr/bin/env python3
"""Everything that a checkout can do, with nothing but Python's standard library.

    python3 dev.py demo         set up, make a sample fleet, scan it, audit, mitigate and replace it
    python3 dev.py test         set up, then linters, types, import contracts and all tests
    python3 dev.py test --fast  the same without the slow tests (under a minute)
    python3 dev.py setup        only the environment; afterwards .venv/bin/keyassay is the program
    python3 dev.py bench NAME   run a benchmark of benchmarks/ (without NAME: list them)
    python3 dev.py lock         write the lock files anew (for maintainers)

The environment lives in .tools and .venv inside the checkout; deleting both undoes it. Packages come from the
lock files in requirements/, with hashes.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
TOOLS = ROOT / ".tools"
VENV = ROOT / ".venv"
PEERS = ROOT / ".venv-peers"
AWSCLI = ROOT / ".venv-awscli"
REQUIREMENTS = ROOT / "requirements"
PYTHON = VENV / "bin" / "python"
#: program that a test or a proof runs -> Debian package that has it
PROGRAMS = {"openssl": "openssl", "bc": "bc", "ssh-keygen": "openssh-client", "chromium": "chromium",
            "pg_ctlcluster": "postgresql", "systemd-analyze": "systemd", "haproxy": "haproxy",
            "mosquitto": "mosquitto", "softhsm2-util": "softhsm2", "cc": "build-essential"}  # fmt: skip

NETWORK = "packages come from the package index that pip is configured for; is there a connection to it?"


def say(text: str) -> None:
    """One line to the person at the terminal."""
    print(text, file=sys.stderr, flush=True)


def fail(text: str) -> None:
    """End with a sentence instead of a traceback."""
    say(f"dev.py: {text}")
    raise SystemExit(1)


def run(*command: str | Path, quiet: bool = False, hint: str = "", **more: object) -> None:
    """Run a command; if it fails, end with what it said and what may help."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        check=False,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        **more,  # type: ignore[call-overload]
    )
    if done.returncode:
        if quiet:
            sys.stderr.buffer.write(done.stdout)
        words = " ".join(str(part) for part in command)
        fail(f"`{words}` ended with {done.returncode}" + (f"\n  {hint}" if hint else ""))


def digest(*paths: Path) -> str:
    """Digest of files and of this Python: says whether an environment is current."""
    total = hashlib.sha256(f"{sys.version} {ROOT}".encode())
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()


def for_installer() -> dict[str, str]:
    """Environment variables for uv: it uses the index and the certificates that pip was told to use."""
    variables = dict(os.environ)
    if not {"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_NO_INDEX"} & variables.keys():
        asked = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
            check=False,
            capture_output=True,
            text=True,
        )
        index = variables.get("PIP_INDEX_URL") or asked.stdout.strip()
        if index:
            variables["UV_DEFAULT_INDEX"] = index
    if "PIP_CERT" in variables:
        variables.setdefault("SSL_CERT_FILE", variables["PIP_CERT"])
    if Path("/etc/ssl/certs/ca-certificates.crt").exists():
        variables.setdefault("UV_SYSTEM_CERTS", "true")  # a company's own authority stands there
    home = Path(variables.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    while not home.exists():
        home = home.parent
    if not os.access(home, os.W_OK):
        variables.setdefault("UV_CACHE_DIR", str(TOOLS / "cache"))
    variables["UV_PYTHON_DOWNLOADS"] = "never"
    return variables


def uv() -> Path:
    """The package installer, put into .tools by pip if it is not there yet."""
    program = TOOLS / "bin" / "uv"
    stamp = TOOLS / "stamp"
    wanted = digest(REQUIREMENTS / "uv.txt")
    if not program.exists() or not stamp.exists() or stamp.read_text() != wanted:
        if importlib.util.find_spec("pip") is None:
            fail("this Python has no pip\n  on Debian: apt-get install python3-pip")
        say("installing uv into .tools ...")
        shutil.rmtree(TOOLS, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        as_root = ["--root-user-action=ignore", "--no-warn-script-location"]
        locked = ["--require-hashes", "-r", REQUIREMENTS / "uv.txt"]
        run(*pip, *as_root, "--target", TOOLS, *locked, quiet=True, hint=NETWORK)
        stamp.write_text(wanted)
    return program


def environment(folder: Path, requirements: Path) -> bool:
    """Make or renew a virtual environment from a lock file; True if something was done."""
    stamp = folder / "stamp"
    wanted = digest(requirements)
    if stamp.exists() and stamp.read_text() == wanted:
        return False
    program = uv()
    say(f"installing {requirements.name} into {folder.name} ...")
    variables = for_installer()
    # Made anew each time: a folder may come from another Python, or from a run that was cut off.
    run(program, "venv", "--quiet", "--clear", "--python", sys.executable, folder, env=variables)
    target = ["--python", folder / "bin" / "python"]
    sync = [program, "pip", "sync", "--quiet", "--require-hashes", *target, requirements]
    run(*sync, hint=NETWORK, env=variables)
    stamp.write_text(wanted)
    return True


def setup() -> None:
    """The locked environment with keyassay in it, lists merged; quick if all is current."""
    renewed = environment(VENV, REQUIREMENTS / "dev.txt")
    stamp = VENV / "project-stamp"
    wanted = digest(ROOT / "pyproject.toml", ROOT / "hatch_build.py")
    if renewed or not stamp.exists() or stamp.read_text() != wanted:
        program = [uv(), "pip", "install", "--quiet", "--python", PYTHON]
        alone = ["--no-deps", "--no-build-isolation", "--offline", "--editable", "."]
        run(*program, *alone, env=for_installer())
        stamp.write_text(wanted)
    run(PYTHON, "-m", "keyassay.lists", "merge", "--quiet")


def programs(*only: str) -> None:
    """The system's programs that tests use (or those named): installed if we are root, asked for if not."""
    there = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"  # where Debian has servers
    wanted = {program: PROGRAMS[program] for program in only or PROGRAMS}
    packages = sorted({package for program, package in wanted.items() if shutil.which(program, path=there) is None})
    if not packages:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        fail(f"please install: {' '.join(packages)} (on Debian: sudo apt-get install {' '.join(packages)})")
    say(f"installing {' '.join(packages)} ...")
    run("apt-get", "-qq", "update", quiet=True)
    noninteractive = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "-qq", "install", "--no-install-recommends", "--yes", *packages, quiet=True, env=noninteractive)


def test(fast: bool, rest: list[str]) -> None:
    """Linters, types, import contracts, tests; all run even if one fails, and the end says which did."""
    setup()
    programs()
    if not fast:
        environment(PEERS, REQUIREMENTS / "peers.txt")
        environment(AWSCLI, REQUIREMENTS / "awscli.txt")
    steps: list[tuple[str, list[str]]] = [
        ("ruff check", ["ruff", "check", "."]),
        ("ruff format", ["ruff", "format", "--check", "."]),
        ("mypy", ["mypy"]),
        ("import contracts", ["lint-imports"]),
        ("tests", ["pytest", "-n", str(min(os.cpu_count() or 1, 8)), *(["-m", "not slow"] if fast else []), *rest]),
    ]
    failed = []
    variables = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name, command in steps:
        started = time.monotonic()
        say(f"== {name}")
        done = subprocess.run([str(VENV / "bin" / command[0]), *command[1:]], cwd=ROOT, check=False, env=variables)
        if done.returncode:
            failed.append(name)
        say(f"== {name}: {'FAILED' if done.returncode else 'ok'} in {time.monotonic() - started:.1f} s")
    if failed:
        fail("failed: " + ", ".join(failed))


def bench(name: str, rest: list[str]) -> None:
    """Run one benchmark, or list them."""
    found = {path.stem.replace("_", "-"): path for path in sorted((ROOT / "benchmarks").glob("*.py"))}
    if not name:
        print("\n".join(found))
        return
    if name not in found:
        fail(f"there is no benchmark {name!r}; there are " + ", ".join(found))
    setup()
    environment(PEERS, REQUIREMENTS / "peers.txt")
    run(PYTHON, found[name], *rest, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})


def lock() -> None:
    """Resolve the lock files anew: hashes, no addresses."""
    program = uv()
    common = [program, "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-emit-index-url",
              "--no-annotate", "--no-header", "--python-version", "3.11", "--upgrade"]  # fmt: skip
    variables = for_installer()
    run(*common, "pyproject.toml", "--all-extras", "--group", "dev", "-o", REQUIREMENTS / "dev.txt", env=variables)
    run(*common, REQUIREMENTS / "peers.in", "-o", REQUIREMENTS / "peers.txt", env=variables)
    run(*common, REQUIREMENTS / "awscli.in", "-o", REQUIREMENTS / "awscli.txt", env=variables)
    run(*common, REQUIREMENTS / "uv.in", "-o", REQUIREMENTS / "uv.txt", env=variables)


def main() -> None:
    """Read the command line."""
    if sys.version_info < (3, 11):  # noqa: UP036  this file is what an older Python meets first
        fail(f"keyassay needs Python 3.11 or newer, this is {sys.version.split()[0]}")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("demo", help="set up, make a sample fleet, scan and audit it")
    tests = commands.add_parser("test", help="set up, then linters, types, import contracts and all tests")
    tests.add_argument("--fast", action="store_true", help="leave the slow tests out")
    commands.add_parser("setup", help="only the environment")
    benches = commands.add_parser("bench", help="run a benchmark")
    benches.add_argument("name", nargs="?", default="")
    commands.add_parser("lock", help="write the lock files anew")
    given, rest = parser.parse_known_args()
    if rest and given.command not in ("test", "bench", "demo"):
        parser.error("unknown arguments: " + " ".join(rest))
    if given.command == "demo":
        setup()
        if os.geteuid() == 0 and shutil.which("apt-get") is not None:
            programs("haproxy", "mosquitto")  # without them the demo leaves its last part out
        done = subprocess.run([str(PYTHON), str(ROOT / "demo" / "demo.py"), *rest], check=False)
        raise SystemExit(done.returncode)
    if given.command == "test":
        test(given.fast, rest)
    elif given.command == "setup":
        setup()
        say("ready: .venv/bin/keyassay --help")
    elif given.command == "bench":
        bench(given.name, rest)
    else:
        lock()


if __name__ == "__main__":
    main()
