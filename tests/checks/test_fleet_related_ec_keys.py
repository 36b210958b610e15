"""One private key of a related set opens all: keys found by other checks, relations in chains, signs, duplicates."""

from __future__ import annotations

import hashlib
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.bulk.fleet import fleet_of
from keyassay.bulk.results import Settings
from keyassay.bulk.scan import Scan
from keyassay.certificates.decoding import item_of_key
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import EcPublicKey
from keyassay.certificates.spki import encode
from keyassay.checks import Context, check
from keyassay.findings import Classification, EcPrivateKey, Finding, Profile, Severity, Verdict
from keyassay.keymath.curves import multiply, named_curves
from vectors_of_checks import cases_of

CHECK = check("fleet-related-ec-keys")
CURVE = named_curves()["P-256"]
N = int(CURVE.order)
#: a private number that no check finds
SECRET = pow(7, 12_345, N)
#: and one that a check finds
LAZY = int.from_bytes(hashlib.sha256(b"password").digest(), "big")


@cache
def key(d: int, form: int = 4) -> EcPublicKey:
    """The key of a private number, in full or compressed."""
    point = multiply(CURVE, d % N, CURVE.base)
    assert point is not None
    x, y = (int(one).to_bytes(32, "big") for one in point)
    return EcPublicKey("P-256", b"\4" + x + y if form == 4 else bytes([2 + y[-1] % 2]) + x)


def found(items: list[Item], known: dict[int, int]) -> dict[int, Finding]:
    """Findings of the check, where private keys of some positions are known."""
    other = check("ec-weak-private-key")
    before = {
        place: [other.finding(items[place].key, Verdict("known", EcPrivateKey(d)))]  # type: ignore[arg-type]
        for place, d in known.items()
    }
    results: dict[int, Finding] = {}
    fleet = fleet_of(items, findings=before)
    for ordinal, verdict in CHECK.find(fleet, Context(profile=Profile.STANDARD)):
        assert ordinal not in results
        results[ordinal] = CHECK.finding(items[ordinal].key, verdict)  # type: ignore[arg-type]
    assert fleet.notes == []
    return results


def test_one_known_key_breaks_a_chain_longer_than_the_reach() -> None:
    numbers = [SECRET + 1_000 * step for step in range(6)]
    items = [item_of_key(key(d)) for d in numbers]
    assert {one.classification for one in found(items, {}).values()} == {Classification.WEAK}
    broken = found(items, {2: numbers[2]})
    assert set(broken) == {0, 1, 3, 4, 5}
    for place, finding in broken.items():
        assert finding.classification is Classification.BROKEN
        assert finding.severity is Severity.CRITICAL
        assert finding.evidence.secrets()["d"] == numbers[place]
        steps = 1_000 * (place - 2)
        assert finding.evidence.describe()["relation"] == f"d = d' {'-' if steps < 0 else '+'} {abs(steps)}"
        assert "#0, which is broken" in finding.message


def test_only_the_group_of_the_known_key_is_broken() -> None:
    far = SECRET * SECRET % N
    items = [item_of_key(key(d)) for d in (SECRET, far, SECRET + 5, far + 5, 3 * SECRET)]
    results = found(items, {0: SECRET})
    assert {place: one.classification.value for place, one in results.items()} == {2: "broken", 1: "weak", 3: "weak"}


def test_all_items_with_a_broken_key_have_it_and_those_found_before_are_left_alone() -> None:
    items = [
        item_of_key(one)
        for one in (key(SECRET), key(SECRET + 9), key(SECRET), key(SECRET + 9, 2), key(SECRET, 2), key(SECRET + 20))
    ]
    results = found(items, {0: SECRET, 2: SECRET, 5: SECRET + 20})
    assert set(results) == {1, 3, 4}
    assert {one.classification for one in results.values()} == {Classification.BROKEN}
    assert results[4].evidence.secrets()["d"] == SECRET


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from([1, -1]), st.integers(-1_039, 1_039)), min_size=1, max_size=4),
    start=st.integers(0, 4),
)
def test_signs_and_steps_along_a_chain(steps: list[tuple[int, int]], start: int) -> None:
    numbers = [SECRET]
    for sign, v in steps:
        numbers.append((sign * numbers[-1] + v) % N)
    place = start % len(numbers)
    items = [item_of_key(key(d)) for d in numbers]
    results = found(items, {place: numbers[place]})
    # a number that comes back is one key, found before
    expected = {other for other, d in enumerate(numbers) if d != numbers[place]}
    assert expected <= set(results) <= set(range(len(numbers))) - {place} if expected else results == {}
    for other in expected:
        assert results[other].classification is Classification.BROKEN
        assert results[other].evidence.secrets()["d"] == numbers[other]
        relation = results[other].evidence.describe()["relation"]
        assert isinstance(relation, str)
        _, _, rest = relation.partition("= ")
        sign = -1 if rest.startswith("-") else 1
        v = int(rest.split("d' ")[1].replace(" ", ""))
        assert (sign * numbers[place] + v - numbers[other]) % N == 0


def test_a_private_key_that_is_none_is_not_believed() -> None:
    items = [item_of_key(key(SECRET)), item_of_key(key(SECRET + 1))]
    fleet = fleet_of(items)
    fleet._private_keys[0] = SECRET + 1
    results = dict(CHECK.find(fleet, Context(profile=Profile.STANDARD)))
    assert set(results) == {1}
    assert results[1].classification is None


def scan(encodings: list[bytes], **more: object) -> tuple[dict[int, list[Finding]], Scan]:
    """A whole run; what it found, by position."""
    run = Scan([], Settings(**{"profile": Profile.STANDARD, **more}), encodings=encodings)  # type: ignore[arg-type]
    return {place: list(result.findings) for place, result in enumerate(run) if result.findings}, run


def spki(d: int) -> bytes:
    encoded = encode(key(d))
    assert encoded is not None
    return encoded


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_lazy_private_key_opens_its_neighbours(jobs: int) -> None:
    numbers = (SECRET, LAZY, LAZY + 900, -(LAZY + 1_800), SECRET * 3)
    results, run = scan([spki(d) for d in numbers], jobs=jobs)
    assert {place: [one.check for one in findings] for place, findings in results.items()} == {
        1: ["ec-weak-private-key"], 2: ["fleet-related-ec-keys"], 3: ["fleet-related-ec-keys"],
    }  # fmt: skip
    for place in (2, 3):
        assert results[place][0].classification is Classification.BROKEN
        assert results[place][0].evidence.secrets()["d"] == numbers[place] % N
    assert run.summary.not_run == []


def test_without_the_other_check_the_relation_is_weak() -> None:
    results, _ = scan([spki(LAZY), spki(LAZY + 900)], only=("fleet-related-ec-keys",))
    assert [one.classification for findings in results.values() for one in findings] == [Classification.WEAK] * 2


def test_a_signer_lost_to_a_nonce_opens_its_neighbours() -> None:
    (case,) = (one for one in cases_of("fleet-signature-nonce") if one.name == "one nonce twice")
    ((place, verdict),) = check("fleet-signature-nonce").find(fleet_of(case.items), Context(profile=Profile.FAST))
    d = verdict.evidence.secrets()["d"]
    assert isinstance(d, int)
    encodings = [item.der or b"" for item in case.items]
    results, run = scan([*encodings, spki(d - 77)], only=("fleet-related-ec-keys", "fleet-signature-nonce"))
    assert [one.check for one in results[place]] == ["fleet-signature-nonce"]
    (finding,) = results[len(encodings)]
    assert finding.classification is Classification.BROKEN
    assert finding.evidence.secrets()["d"] == d - 77
    assert [one for one, _ in run.summary.checks] == ["fleet-signature-nonce", "fleet-related-ec-keys"]
