"""badkeys and roca-detect, asked about our vectors and the census: what they find, we find; sound keys nobody finds.

They live in an environment of their own (requirements/peers.txt), which ``dev.py test`` makes. ``expected.toml`` says who
finds what; ``.venv/bin/python tests/differential/test_peers.py`` writes it anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from census_keys import census
from keyassay.bulk.results import Settings
from keyassay.bulk.scan import Plan, assess_items
from keyassay.certificates.decoding import item_of_key
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.findings import Profile
from vectors_of_checks import cases

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
QUESTIONS = Path(__file__).with_name("ask_peers.py")
EXPECTED = Path(__file__).with_name("expected.toml")

#: Vectors of which a peer says something and we nothing, or the other way round about ROCA, with the reason.
DISAGREEMENTS = {
    "rsa-roca: RSALib's form but for the residue modulo 701": "peers look at the first 39 primes, whatever the size; "
    "RSALib's keys of 2048 bits have the form modulo all 126, and without it Coppersmith's method has nothing to stand on",
}

#: What badkeys calls a weakness -> our checks that say the same of such keys.
SAME = {
    "fermat": {"rsa-close-primes", "rsa-shared-bits", "rsa-invalid-modulus", "rsa-small-factor"},
    "roca": {"rsa-roca", "rsa-roca-variant"},
    "rsainvalid": {"rsa-invalid-modulus", "rsa-invalid-exponent", "rsa-small-factor"},
    # badkeys looks at the modulus alone; where no factor follows, we give a notice
    "rsapoly": {"rsa-polynomial-modulus", "rsa-patterned-primes", "rsa-implausible-modulus"},
    "smalld": {"rsa-small-private-exponent"},
    "smallfactors": {"rsa-small-factor", "rsa-invalid-modulus"},
    "xzbackdoor": {"rsa-implausible-modulus"},
}

#: Our checks whose broken vectors badkeys is expected to find as well, at least some of them.
SHARED = {"rsa-roca": "roca", "rsa-close-primes": "fermat", "rsa-small-factor": "smallfactors"}


@dataclass(frozen=True)
class Answer:
    """What the peers say of one key."""

    badkeys: frozenset[str]
    roca: bool


def ask(keys: Sequence[RsaPublicKey]) -> list[Answer]:
    """The peers' answers, in order."""
    lines = [json.dumps({"n": f"{int(key.modulus):x}", "e": f"{int(key.exponent):x}"}) for key in keys]
    done = subprocess.run(
        [PYTHON, QUESTIONS],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return [Answer(frozenset(answer["badkeys"]), answer["roca"]) for answer in answers]


def ours(keys: Sequence[RsaPublicKey]) -> list[set[str]]:
    """The ids of our findings, in order."""
    plan = Plan.of(Settings(profile=Profile.STANDARD, fleet=False), len(keys))
    return [
        {finding.check for finding in result.findings}
        for result in assess_items([item_of_key(key) for key in keys], plan)
    ]


def vector_keys() -> list[tuple[str, bool, RsaPublicKey]]:
    """RSA keys of the vectors of single keys, and whether the vector is a weak one."""
    return [
        (str(case), case.verdict == "weak", item.key)
        for case in cases()
        for item in case.items
        if len(case.items) == 1
        and case.check.startswith("rsa-")
        and isinstance(item.key, RsaPublicKey)
        and 256 <= item.key.bits <= 8192
        and item.key.exponent.bit_length() <= 8192
    ]


def table(vectors: Sequence[tuple[str, bool, Answer, set[str]]]) -> dict[str, dict[str, object]]:
    """What stands in ``expected.toml``: by check how many weak vectors who finds, and what peers say of which vector."""
    counts: dict[str, Counter[str]] = {}
    said: dict[str, object] = {}
    for name, weak, answer, found in vectors:
        check = name.partition(":")[0]
        words = sorted(answer.badkeys) + ["roca-detect"] * answer.roca
        if words:
            said[name] = words
        if weak:
            count = counts.setdefault(check, Counter(keyassay=0, badkeys=0, roca_detect=0))
            count.update(keyassay=check in found, badkeys=bool(answer.badkeys), roca_detect=answer.roca)
    return {
        "weak_vectors_found_in_standard": {check: dict(count) for check, count in counts.items()},
        "peers_say": said,
    }


def asked() -> list[tuple[str, bool, Answer, set[str]]]:
    named = vector_keys()
    keys = [key for _, _, key in named]
    return [
        (name, weak, answer, found) for (name, weak, _), answer, found in zip(named, ask(keys), ours(keys), strict=True)
    ]


@pytest.fixture(scope="module")
def vectors() -> list[tuple[str, bool, Answer, set[str]]]:
    return asked()


def test_the_table_of_who_finds_what_is_true(vectors: list[tuple[str, bool, Answer, set[str]]]) -> None:
    assert table(vectors) == tomllib.loads(EXPECTED.read_text())


def test_what_badkeys_finds_is_found(vectors: list[tuple[str, bool, Answer, set[str]]]) -> None:
    missed = [
        (name, peer, found)
        for name, _, answer, found in vectors
        for peer in answer.badkeys & SAME.keys()
        if not SAME[peer] & found and name not in DISAGREEMENTS
    ]
    assert missed == []


def test_all_that_badkeys_says_is_in_the_comparison(vectors: list[tuple[str, bool, Answer, set[str]]]) -> None:
    assert {peer for _, _, answer, _ in vectors for peer in answer.badkeys} <= SAME.keys()


def test_roca_detect_and_badkeys_and_we_agree_about_roca(vectors: list[tuple[str, bool, Answer, set[str]]]) -> None:
    """Where their 39 primes fire, ours do, and the other way round, but for the disagreements with their reasons."""
    differing = {
        name
        for name, _, answer, found in vectors
        if not answer.roca == ("roca" in answer.badkeys) == ("rsa-roca" in found)
    }
    assert differing == set(DISAGREEMENTS)


@pytest.mark.parametrize("check", sorted(SHARED))
def test_peers_confirm_our_vectors(check: str, vectors: list[tuple[str, bool, Answer, set[str]]]) -> None:
    """At least one vector of these checks is a finding of badkeys too: the vectors are what they say."""
    assert any(
        check in found and SHARED[check] in answer.badkeys
        for name, _, answer, found in vectors
        if name.startswith(check)
    )


def test_sound_keys_are_sound_for_all() -> None:
    keys = [key for made in census().rsa.values() for key in made if key.bits >= 2048][::25]
    assert len(keys) > 150
    assert set(ask(keys)) == {Answer(frozenset(), False)}
    assert {frozenset(found) for found in ours(keys)} == {frozenset()}


def write() -> None:
    """Write ``expected.toml``."""
    found = table(asked())
    lines = ["# Who finds what among the RSA vectors; written by test_peers.py, held against the peers by its tests."]
    for title, rows in found.items():
        lines += ["", f"[{title}]"]
        for name, value in rows.items():
            if isinstance(value, dict):
                text = "{ " + ", ".join(f"{key} = {number}" for key, number in value.items()) + " }"
            else:
                text = json.dumps(value)
            lines.append(f"{json.dumps(name)} = {text}")
    EXPECTED.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(write())
