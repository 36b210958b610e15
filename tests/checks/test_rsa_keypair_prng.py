"""The evidence of keypair's keys: what proves, what is hidden, and commands that repeat the generator."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import numpy as np
import pytest

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, check
from keyassay.checks.rsa_keypair_prng import KeypairPrime
from keyassay.errors import KeyassayError
from keyassay.lists import keypair
from keyassay.lists.recipes.keypair import first_key, pool_of, pools_up_to, starts_of_primes, top_bits

CHECK = check("rsa-keypair-prng")
POOL = pool_of(1_234)
MADE = first_key(POOL, 1024)
KEY = RsaPublicKey(MADE.modulus, 65537)


def found(key: RsaPublicKey, context: Context | None = None) -> KeypairPrime | None:
    verdicts = [verdict for _, verdict in CHECK.find(RsaBatch([key]), context or Context())]
    assert len(verdicts) <= 1
    for verdict in verdicts:
        assert isinstance(verdict.evidence, KeypairPrime)
        return verdict.evidence
    return None


def test_evidence_holds_for_its_key_and_seed_only() -> None:
    evidence = found(KEY)
    assert evidence is not None
    assert evidence.pool == POOL
    assert evidence.proves(KEY)
    assert not evidence.proves(RsaPublicKey(KEY.modulus + 2, 65537))
    assert not replace(evidence, pool=pool_of(1_235)).proves(KEY)
    assert not replace(evidence, factor=KEY.modulus // evidence.factor).proves(KEY)
    other = first_key(pool_of(5), 2048)
    assert not evidence.proves(RsaPublicKey(other.modulus, 65537))


def test_the_seed_is_secret() -> None:
    evidence = found(KEY)
    assert evidence is not None
    assert evidence.secrets() == {"factor": evidence.factor, "seed": POOL}
    assert POOL.hex() not in str(evidence.describe())
    assert evidence.describe()["nonzero_seed_bytes"] == 1


@pytest.mark.parametrize("number", [1_234, 40_000])
def test_commands_of_the_proof_repeat_the_generator(number: int) -> None:
    key = RsaPublicKey(first_key(pool_of(number), 1024).modulus, 65537)
    evidence = found(key)
    assert evidence is not None
    steps = evidence.steps(key)

    def shell(step) -> str:
        return subprocess.run(["sh", "-c", step.command], check=True, capture_output=True, text=True).stdout

    product, state, numbers = [step for step in steps if step.command]
    assert shell(product) == "0\n"
    assert shell(state).strip() in state.says
    printed = dict(line.split() for line in shell(numbers).splitlines())
    words = numbers.says.split()
    one, two = (printed[words[place + 1]] for place, word in enumerate(words) if word == "number")
    x, y = (int(words[place + 1]) for place, word in enumerate(words) if word == "plus")
    assert (int(one, 16) + x) * (int(two, 16) + y) == key.modulus
    assert {int(one, 16), int(two, 16)} == set(starts_of_primes(evidence.pool, 1024))


def test_the_larger_list_is_used_where_it_is(monkeypatch) -> None:
    number = pools_up_to(1) + 77
    key = RsaPublicKey(first_key(pool_of(number), 1024).modulus, 65537)
    assert found(key) is None
    prefix = int(keypair.prefixes(np.array([top_bits(pool_of(number), 1024)], dtype=np.uint64))[0])
    entries = np.array([prefix << keypair.POOL_BITS | number], dtype=np.uint64)
    monkeypatch.setattr(keypair, "built", lambda _kind: entries)
    evidence = found(key)
    assert evidence is not None
    assert evidence.describe()["nonzero_seed_bytes"] == 2


def test_a_damaged_list_is_said_and_the_other_one_still_used(monkeypatch) -> None:
    def damaged(_kind: str) -> None:
        raise KeyassayError("the list is damaged")

    monkeypatch.setattr(keypair, "built", damaged)
    context = Context()
    assert found(KEY, context) is not None
    assert {note.reason for note in context.notes} == {"the list is damaged"}
