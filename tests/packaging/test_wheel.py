"""The wheel: whole lists, no blocks, the same program from any folder, the same bytes from a source distribution."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyassay.lists.format import KINDS, SHIPPED, open_merged
from keyassay.lists.recipes.debian_openssl import Stream, rsa_keys

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
UV = ROOT / ".tools" / "bin" / "uv"
LARGEST = 60_000_000


def build(kind: str, source: Path, target: Path) -> Path:
    """A wheel or sdist, by the hatchling of this environment."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(target)]
    done = subprocess.run(command, cwd=source, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return next(path for path in target.iterdir() if path.name.endswith(".whl" if kind == "wheel" else ".tar.gz"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel, its dependencies being those of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    command = [UV, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", sys.executable]
    subprocess.run([*command, "--target", folder, wheel], check=True)
    return folder


def run(installed: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the installed program somewhere else."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(cwd / "cache")}
    command = [sys.executable, installed / "bin" / "keyassay", *arguments]
    return subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True, env=environment)


def test_the_wheel_holds_lists_and_no_blocks(wheel: Path, tmp_path: Path) -> None:
    assert wheel.stat().st_size < LARGEST
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path)
    assert {name for name in names if "/merged/" in name} == {f"keyassay/lists/merged/{kind}.bin" for kind in SHIPPED}
    assert not [name for name in names for kind in KINDS if name.startswith(f"keyassay/lists/data/{kind}/")]
    assert not [name for name in names if not name.startswith(("keyassay/", "keyassay-"))]
    assert "keyassay/py.typed" in names
    sources = [path.relative_to(ROOT / "src") for path in (ROOT / "src" / "keyassay").rglob("*") if path.is_file()]
    blocks = tuple(f"keyassay/lists/data/{kind}/" for kind in KINDS)
    made = ("keyassay/lists/merged/", *blocks)
    missing = {str(path) for path in sources if "__pycache__" not in path.parts} - set(names)
    assert {name for name in missing if not name.startswith(made)} == set()
    for kind in SHIPPED:
        merged = open_merged(tmp_path / "keyassay" / "lists" / "merged" / f"{kind}.bin")
        assert merged.blocks == 96
        assert len(merged.entries) >= 4_096 * merged.blocks


def test_the_metadata_says_what_is_needed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folder = next(name for name in archive.namelist() if name.endswith("/METADATA")).removesuffix("METADATA")
        metadata = HeaderParser().parsestr(archive.read(folder + "METADATA").decode())
        licence = archive.read(folder + "licenses/LICENSE").decode()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Apache License" in licence
    assert metadata["Requires-Python"] == ">=3.11"
    needed = metadata.get_all("Requires-Dist") or []
    assert {line.split(">")[0] for line in needed if "extra ==" not in line} == {
        "click", "cryptography", "gmpy2", "jinja2", "numpy", "python-flint", "rich",
    }  # fmt: skip
    assert {line.partition("extra == ")[2] for line in needed if "extra ==" in line} == {"'server'", "'pkcs11'"}


def test_the_program_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [sys.executable, "-c", "import keyassay; print(keyassay.__file__)"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )
    assert Path(where.stdout.strip()).parent == installed / "keyassay"
    status = run(installed, "lists", "status", cwd=tmp_path)
    assert status.returncode == 0, status.stderr
    for kind in SHIPPED.values():
        (line,) = (line for line in status.stdout.splitlines() if line.startswith(f"{kind.list_name} "))
        assert " 96 of 96 " in line
    assert not (tmp_path / "cache" / "keyassay" / "lists").exists(), "nothing had to be merged"


def test_the_installed_lists_find_a_key(installed: Path, tmp_path: Path) -> None:
    modulus = rsa_keys(Stream("le64", "rnd", 2), 2048)[65537].modulus
    key = rsa.RSAPublicNumbers(65537, modulus).public_key()
    (tmp_path / "device.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    done = run(installed, "scan", "--format", "jsonl", "device.pem", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)["findings"]
    evidence = {one["check"]: one["evidence"] for one in found}["rsa-debian-openssl"]
    assert (evidence["arch"], evidence["state"], evidence["pid"]) == ("le64", "rnd", 2)


def test_a_source_distribution_gives_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    sdist = build("sdist", ROOT, tmp_path / "sdist")
    assert sdist.stat().st_size < LARGEST
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert {path.name for path in source.iterdir()} >= {
        "LICENSE",
        "README.md",
        "dev.py",
        "docs",
        "requirements",
        "tests",
    }
    again = build("wheel", source, tmp_path / "again")
    assert again.read_bytes() == wheel.read_bytes()
