"""badkeys and roca-detect, asked about our vectors and the census: what they find, we find; sound keys nobody finds.

They live in an environment of their own (requirements/peers.txt), which ``dev.py test`` makes.
"""

from __future__ import annotations

import json
import os
import subprocess
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

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
QUESTIONS = Path(__file__).with_name("ask_peers.py")

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
    plan = Plan.of(Settings(profile=Profile.STANDARD), len(keys))
    return [
        {finding.check for finding in result.findings}
        for result in assess_items([item_of_key(key) for key in keys], plan)
    ]


def vector_keys() -> list[tuple[str, RsaPublicKey]]:
    """RSA keys of all vectors that a peer can be asked about in reasonable time."""
    return [
        (str(case), item.key)
        for case in cases()
        for item in case.items
        if isinstance(item.key, RsaPublicKey)
        and 256 <= item.key.bits <= 8192
        and item.key.exponent.bit_length() <= 8192
    ]


@pytest.fixture(scope="module")
def vectors() -> list[tuple[str, Answer, set[str]]]:
    named = vector_keys()
    keys = [key for _, key in named]
    return [(name, answer, found) for (name, _), answer, found in zip(named, ask(keys), ours(keys), strict=True)]


def test_what_badkeys_finds_is_found(vectors: list[tuple[str, Answer, set[str]]]) -> None:
    missed = [
        (name, peer, found)
        for name, answer, found in vectors
        for peer in answer.badkeys & SAME.keys()
        if not SAME[peer] & found
    ]
    assert missed == []


def test_roca_detect_and_badkeys_and_we_agree_about_roca(vectors: list[tuple[str, Answer, set[str]]]) -> None:
    """Where roca-detect's 39 primes fire, ours do, and the other way round for keys of sizes that it takes."""
    for name, answer, found in vectors:
        if answer.roca or "roca" in answer.badkeys:
            assert SAME["roca"] & found, name
        if "rsa-roca" in found:
            assert answer.roca, name


@pytest.mark.parametrize("check", sorted(SHARED))
def test_peers_confirm_our_vectors(check: str, vectors: list[tuple[str, Answer, set[str]]]) -> None:
    """At least one vector of these checks is a finding of badkeys too: the vectors are what they say."""
    assert any(
        check in found and SHARED[check] in answer.badkeys for name, answer, found in vectors if name.startswith(check)
    )


def test_sound_keys_are_sound_for_all() -> None:
    keys = [key for made in census().rsa.values() for key in made if key.bits >= 2048][::25]
    assert len(keys) > 150
    assert set(ask(keys)) == {Answer(frozenset(), False)}
    assert {frozenset(found) for found in ours(keys)} == {frozenset()}
