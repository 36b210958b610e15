"""The demonstration finds what it planted, by a scan and in a registry, and deletes nothing that is not its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

ROOT = Path(__file__).resolve().parent.parent.parent
DEMO = ROOT / "demo" / "demo.py"
FLEET = (ROOT / "demo" / "sample_fleet.py").read_text().split("FILES = (")[1].split(")")[0]


def run_demo(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DEMO, "--scan-only", "--folder", folder],
        cwd=folder.parent,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "100"},
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("demo") / "fleet"
    return run_demo(folder), folder


def test_everything_planted_is_found_and_nothing_else(
    demo: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, _ = demo
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 false alarms" in done.stdout
    assert "MISSED" not in done.stdout
    assert "FALSE" not in done.stdout


def test_the_findings_come_from_the_scan(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """Ten and more ways to be weak, in the lines that the scan wrote; broken ones are proven or nearly so."""
    done, folder = demo
    lines = [json.loads(line) for line in folder.with_name("fleet.jsonl").read_text().splitlines()]
    assert 200 < len(lines) < 1000
    findings = [one for line in lines for one in line["findings"]]
    assert len({one["check"] for one in findings if one["class"] == "broken"}) >= 8
    assert len({one["check"] for one in findings}) >= 12
    assert {one["confidence"] for one in findings if one["class"] == "broken"} <= {"proven", "certain"}
    assert [line["kind"] for line in lines].count("unreadable") == 1
    assert not [line for line in lines if line["not_run"]]
    for one in findings:
        assert one["check"] in done.stdout


def test_the_output_fits_the_terminal_and_names_files_that_exist(
    demo: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, folder = demo
    prose = [line for line in done.stdout.splitlines() if "keyassay " not in line]
    assert max(map(len, prose)) <= 110
    assert "\x1b" not in done.stdout
    assert (folder / "larkfield-meters" / "meter-0041.pem").is_file()
    assert {path.name for path in folder.iterdir()} == set(re.findall(r'^    "([a-z0-9.-]+)",$', FLEET, re.MULTILINE))
    assert "meter-0041.pem" in done.stdout


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "quaydon-cameras.pem").write_text("ours by name")
    (folder / "precious.txt").write_text("not ours")
    done = run_demo(folder)
    assert done.returncode == 1
    assert "choose another one with --folder" in done.stderr
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "quaydon-cameras.pem": "ours by name",
        "precious.txt": "not ours",
    }


@pytest.mark.slow
def test_a_second_run_writes_the_same_fleet(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, folder = demo
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "pell-pumps.zip").write_bytes(b"touched")
    run_demo(folder)
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_the_whole_way_through_a_registry_that_stays(tmp_path: Path) -> None:
    """The audit says what the scan says, the mitigation is done, and with --keep others can talk to the registry."""
    process = subprocess.Popen(
        [sys.executable, DEMO, "--keep", "--folder", tmp_path / "fleet"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "100"},
    )
    assert process.stdout is not None
    said, given = "", {}
    for line in process.stdout:
        said += line
        if found := re.fullmatch(r" +export (\w+)=(\S+)\n", line):
            given[found[1]] = found[2]
        if "aws iot list-certificates" in line:
            break
    assert len(given) == 4, said
    api = boto3.client(
        "iot",
        endpoint_url=given["AWS_ENDPOINT_URL_IOT"],
        region_name=given["AWS_REGION"],
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
        config=Config(proxies={}),
    )
    assert len(api.list_certificates(pageSize=250)["certificates"]) == 250
    process.send_signal(signal.SIGINT)
    said += process.communicate(timeout=60)[0]
    assert process.returncode == 0, said
    assert "Expected 11, found 11; 0 false alarms." in said
    assert "10 of 10 findings done." in said
    assert "Audited again: 0 findings on devices." in said
    assert "no action was asked: Ferrow Issuing CA 2." in " ".join(said.split())
    assert "The audit names 4 certificates: these." in said
    assert "5 of 5 devices made a new key" in " ".join(said.split())
    assert "NOT AS EXPECTED" not in said
    prose = [line for line in said.splitlines() if not re.search("keyassay |aws iot |export ", line)]
    assert max(map(len, prose)) <= 110
    with pytest.raises(Exception, match="onnect"):
        api.list_certificates()
