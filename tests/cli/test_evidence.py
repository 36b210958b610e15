"""The findings of all checks on their own vectors, as reports show them and as a sceptic repeats them."""

import io
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from issuing import certificate
from keyassay.bulk.results import Settings
from keyassay.bulk.scan import Scan
from keyassay.certificates.item import Kind
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.output import FORMATS, Options, renderer
from keyassay.output.proof import proof
from vectors_of_checks import cases

#: smaller numbers turn up in digests by chance
TELLING = 1 << 40


@cache
def run_of_vectors(folder):
    """One scan of a weak vector of every check, as certificates."""
    seen = set()
    for case in cases():
        if case.verdict != "weak" or case.check in seen:
            continue
        seen.add(case.check)
        for number, item in enumerate(case.items):
            if item.der is not None and item.kind is not Kind.PUBLIC_KEY:
                der = item.der
            elif item.spki is not None:
                der = certificate(item.spki, f"{case.check} {number}", serial=1_000 + len(seen))
            else:
                continue
            (folder / f"{case.check}-{number}.der").write_bytes(der)
    scan = Scan([str(folder)], Settings())
    return list(scan), scan.summary


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_of_vectors(tmp_path_factory.mktemp("fleet"))


def numbers_in(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from numbers_in(one)
    elif isinstance(value, bytes):
        yield int.from_bytes(value, "big")
    elif isinstance(value, int):
        yield int(value)


def secrets_of(results):
    """All private numbers that the findings know, and the second prime of each factor."""
    found = set()
    for result in results:
        for finding in result.findings:
            for number in numbers_in(finding.evidence.secrets()):
                found.add(number)
                if isinstance(result.item.key, RsaPublicKey) and number > 1:
                    other, rest = divmod(result.item.key.modulus, number)
                    found |= {other} if rest == 0 else set()
    return {number for number in found if number >= TELLING}


@pytest.mark.parametrize("name", FORMATS)
def test_private_numbers_appear_nowhere_unless_asked_for(run, name):
    results, summary = run
    secrets = secrets_of(results)
    assert len(secrets) > 10

    def shown(**more):
        stream = io.StringIO()
        renderer(name)(iter(results), summary, stream, Options(**more))
        # numbers may be wrapped, grouped, or in capitals
        return re.sub(r"[\s,:_]", "", stream.getvalue()).lower()

    hidden, revealed = shown(), shown(reveal=True)
    for number in secrets:
        assert f"{number:x}" not in hidden
        assert str(number) not in hidden
    assert any(f"{number:x}" in revealed for number in secrets)


@pytest.mark.slow
def test_every_command_of_every_proof_confirms_what_it_says(run, tmp_path):
    results, _ = run
    proved = set()
    keys = 0
    for result in results:
        for finding in result.findings:
            if finding.check in proved:
                continue
            proved.add(finding.check)
            for step in proof(result.item, finding):
                if not step.command:
                    continue
                done = subprocess.run(
                    ["bash", "-c", step.command],
                    cwd=tmp_path,
                    capture_output=True,
                    text=True,
                    check=False,
                    env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
                )
                assert done.returncode == 0, (finding.check, step, done.stderr)
                promise = re.search(r"\(prints:? (.*)\)$", step.says)
                if promise:
                    assert done.stdout.strip() == promise[1], (finding.check, step)
                    keys += promise[1] == "the same key"
    assert len(proved) >= 12
    assert keys >= 6


def test_what_is_broken_by_a_factor_or_a_private_key_ends_in_a_private_key(run):
    for result in run[0]:
        for finding in result.findings:
            kind = finding.evidence.describe().get("proof")
            if finding.classification.value == "broken" and kind in ("private key", "private value"):
                assert any("BEGIN PRIVATE KEY" in step.command for step in proof(result.item, finding)), finding.check
