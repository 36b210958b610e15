"""Ends of known primes: siblings of a factored key fall, sound keys beside known primes do not."""

from __future__ import annotations

from random import Random

import gmpy2
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyassay import assay_many
from keyassay.bulk.deep import examine_deeply
from keyassay.bulk.results import Outcome, Settings, StepReport
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, check
from keyassay.checks.rsa_shared_bits import BEGINNINGS, ENDINGS, frequent_ends
from keyassay.findings import Classification, Confidence, Finding, Profile
from keyassay.keymath import coppersmith

CHECK = check("rsa-shared-bits")


def prime(random: Random, size: int, top: int = 3, low: int = 1) -> int:
    """A random prime that begins with the bits of ``top`` and ends with those of ``low``."""
    while True:
        free = size - top.bit_length()
        found = (top << free | random.getrandbits(free)) >> low.bit_length() << low.bit_length() | low
        if gmpy2.is_prime(found):
            return found


def tried(n: int, known: list[int], context: Context | None = None) -> tuple[list[Finding], StepReport]:
    findings, reports = examine_deeply(
        RsaPublicKey(n, 65537), [CHECK], context or Context(profile=Profile.DEEP), 60.0, known
    )
    [report] = [one for one in reports if one.step == "ends of known primes"]
    return findings, report


@pytest.mark.parametrize("size", [512, 511, 640])
@pytest.mark.parametrize("end", ["leading", "trailing"])
def test_siblings_of_a_known_prime_fall(size: int, end: str) -> None:
    random = Random(size)
    known_bits = (2 * size + 1) // 2 - coppersmith.reach(2 * size) - 1
    template = random.getrandbits(known_bits) | 3 << (known_bits - 2) | 1
    side = {"leading": {"top": template}, "trailing": {"low": template}}[end]
    known = [prime(random, size) for _ in range(20)]
    known.insert(7, prime(random, size, **side))
    p, q = prime(random, size, **side), prime(random, size)
    [finding], report = tried(p * q, known)
    assert report.outcome is Outcome.FOUND
    assert finding.classification is Classification.BROKEN
    assert finding.confidence is Confidence.PROVEN
    assert finding.evidence.secrets()["factor"] in (p, q)
    assert finding.evidence.describe()["end"] == end


def test_a_known_prime_of_another_size_serves_too() -> None:
    """A generator that writes the same first bytes whatever the size."""
    random = Random(2)
    template = random.getrandbits(400) | 3 << 398
    p, q = prime(random, 512, top=template), prime(random, 512)
    findings, _ = tried(p * q, [prime(random, 1024, top=template)])
    assert len(findings) == 1


def test_sound_keys_beside_known_primes_stay_sound() -> None:
    random = Random(3)
    known = [prime(random, 256) for _ in range(80)]
    findings, report = tried(prime(random, 256) * prime(random, 256), known)
    assert findings == []
    assert report.outcome is Outcome.DONE
    assert report.units == BEGINNINGS + ENDINGS


def test_without_known_primes_nothing_is_done() -> None:
    random = Random(4)
    _, report = tried(prime(random, 256) * prime(random, 256), [])
    assert report.outcome is Outcome.DOES_NOT_APPLY


def test_new_known_primes_are_noticed_by_the_same_process() -> None:
    """What is made once for all keys is made again when more primes are known."""
    random = Random(5)
    context = Context(profile=Profile.DEEP)
    template = random.getrandbits(200) | 3 << 198
    n = prime(random, 256, top=template) * prime(random, 256)
    known = [prime(random, 256)]
    assert tried(n, known, context)[0] == []
    assert len(tried(n, [*known, prime(random, 256, top=template)], context)[0]) == 1


def test_the_most_frequent_ends_come_first() -> None:
    random = Random(6)
    twice = [prime(random, 128, top=0xC0FFEE0123456789) for _ in range(2)]
    beginnings, endings = frequent_ends([prime(random, 128) for _ in range(100)] + twice + twice, 64)
    assert beginnings[0] == 0xC0FFEE0123456789
    assert (len(beginnings), len(endings)) == (BEGINNINGS, ENDINGS)
    assert frequent_ends([prime(random, 60)], 64) == ([], [])


def test_siblings_of_keys_that_share_a_prime_fall_in_one_run() -> None:
    """Batch GCD factors two keys; a third one, which has only the beginning of a prime in common, falls with them."""
    random = Random(9)
    template = random.getrandbits(400) | 3 << 398
    shared = prime(random, 512, top=template)
    moduli = [
        shared * prime(random, 512),
        prime(random, 512, top=template) * prime(random, 512),
        shared * prime(random, 512),
        prime(random, 512) * prime(random, 512),
    ]
    encodings = [
        RSAPublicNumbers(65537, n).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for n in moduli
    ]
    settings = Settings(only=("fleet-shared-prime", "rsa-shared-bits"))
    results = list(assay_many(encodings, profile=Profile.DEEP, settings=settings))
    assert [[one.check for one in result.findings] for result in results] == [
        ["fleet-shared-prime"],
        ["rsa-shared-bits"],
        ["fleet-shared-prime"],
        [],
    ]
