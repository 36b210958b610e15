"""Every check against its vectors, its page and hostile keys: what a new check gets without asking."""

from __future__ import annotations

import pickle
import re
import time
import tomllib
from dataclasses import replace
from math import comb, prod
from pathlib import Path
from random import Random
from typing import Any

import flint
import gmpy2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyassay.bulk.deep import examine_deeply
from keyassay.bulk.fleet import fleet_of
from keyassay.bulk.results import Settings
from keyassay.bulk.scan import Plan, assess_items
from keyassay.certificates.batches import group_keys
from keyassay.certificates.decoding import item_of_key
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import (
    DsaPublicKey,
    EcPublicKey,
    ExplicitParameters,
    OkpPublicKey,
    PublicKey,
    RsaPublicKey,
)
from keyassay.checks import PAGE_SECTIONS, REASON_PREFIX, Check, Context, catalogue
from keyassay.findings import Classification, Confidence, Finding, Profile
from keyassay.keymath.factoring import primes_below
from vectors_of_checks import FOLDER, Case, cases, cases_of

CHECKS = catalogue()
DEEP_SECONDS = 120.0  # budget of a vector of profile deep; most end long before
NOW = 1_790_000_000  # 2026-09-21, so that no vector's validity depends on the day of the test


def findings(check: Check, items: tuple[Item, ...] | list[Item], profile: Profile) -> dict[int, list[Finding]]:
    """Findings of one check over items, by position, evidence verified."""
    context = Context(profile=profile, now=NOW)
    found: dict[int, list[Finding]] = {}
    if check.shape == "fleet":
        pairs = [(items[row], row, verdict) for row, verdict in check.find(fleet_of(items), context)]
    elif check.shape == "certificate":
        pairs = [(items[row], row, verdict) for row, verdict in check.find(items, context)]
    else:
        pairs = [
            (items[int(positions[row])], int(positions[row]), verdict)
            for batch, positions in group_keys([item.key for item in items])
            if isinstance(batch.keys[0], check.metadata.applies_to)
            for row, verdict in check.find(batch, context)
        ]
    if profile is Profile.DEEP and check.deep_steps:
        for position, item in enumerate(items):
            if item.key is not None and position not in {row for _, row, _ in pairs}:
                deep, _ = examine_deeply(item.key, [check], context, DEEP_SECONDS)
                found.setdefault(position, []).extend(deep)
        found = {position: rows for position, rows in found.items() if rows}
    for item, position, verdict in pairs:
        subject = item if check.shape == "certificate" or item.key is None else item.key
        found.setdefault(position, []).append(check.finding(subject, verdict))
    return found


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_check_is_complete(check: Check) -> None:
    meta = check.metadata
    page = check.page
    places = [page.find(f"\n{section}:") for section in PAGE_SECTIONS]
    assert -1 not in places, f"missing section: {PAGE_SECTIONS[places.index(-1)]}"
    assert places == sorted(places)
    assert len(page.split()) > 80
    assert meta.references
    assert meta.title
    assert re.fullmatch(r"[A-Z0-9_\-]+", meta.reason_code)
    assert meta.reason_code.startswith(REASON_PREFIX)
    assert not (meta.classification is Classification.BROKEN and meta.confidence is Confidence.LIKELY)
    known = {one.id for one in CHECKS}
    assert set(meta.explained_by) <= known - {check.id}
    earlier = [one for one in CHECKS if one.id in meta.after]
    assert {one.id for one in earlier} == set(meta.after)
    assert all(one.shape == check.shape == "fleet" and not one.metadata.after for one in earlier)
    assert pickle.loads(pickle.dumps(check)) is check
    tree = tomllib.loads((FOLDER / f"{check.id}.toml").read_text())
    assert tree["provenance"]
    verdicts = {case.verdict for case in cases_of(check.id)}
    assert verdicts == {"weak", "near-miss", "healthy"}


def test_no_vector_is_orphaned() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == {check.id for check in CHECKS}


def test_the_folder_is_the_catalogue() -> None:
    import keyassay.checks

    files = {path.stem for path in Path(keyassay.checks.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == {check.id.replace("-", "_") for check in CHECKS}


def profiles_of(case: Case) -> list[Profile]:
    """The profile that has to find it, and those above; fast and standard for what must not be found."""
    if case.verdict == "weak":
        return [profile for profile in Profile if profile >= case.profile and profile is not Profile.AWS]
    return [Profile.FAST, Profile.STANDARD]


def budgeted(case: Case) -> Any:
    """The case as a parameter, slow if the work is deep's."""
    deep = case.verdict == "weak" and case.profile is Profile.DEEP
    return pytest.param(case, id=str(case), marks=[pytest.mark.slow] if deep else [])


@pytest.mark.parametrize("case", [budgeted(case) for case in cases()])
def test_vector(case: Case) -> None:
    """What is weak is found in its profile, what is not weak in none of the two that most people run."""
    holds(case, profiles_of(case)[: 1 if case.verdict == "weak" else 2])


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in cases() if profiles_of(case)[1:]], ids=str)
def test_vector_in_the_next_profile(case: Case) -> None:
    """What one profile finds, the next one finds too."""
    holds(case, profiles_of(case)[1:2])


def holds(case: Case, profiles: list[Profile]) -> None:
    """Just the weak items have the finding, as the vector says."""
    check = next(one for one in CHECKS if one.id == case.check)
    for profile in profiles:
        found = findings(check, case.items, profile)
        assert set(found) == set(case.weak), profile
        for rows in found.values():
            for finding in rows:
                if case.classification is not None:
                    assert finding.classification is case.classification
                if case.confidence is not None:
                    assert finding.confidence is case.confidence
                assert pickle.loads(pickle.dumps(finding)).message == finding.message
                # reports make a sentence of it: no capital at the beginning, no full stop
                assert not re.match(r"[A-Z][a-z]*\s", finding.message)
                assert not finding.message.endswith(".")


@pytest.mark.parametrize(
    "case", [budgeted(case) for case in cases() if case.verdict == "weak" and case.profile > Profile.FAST]
)
def test_vector_names_the_cheapest_profile(case: Case) -> None:
    """What a vector says of its profile is exact: the next cheaper one does not find it, or the page is wrong."""
    check = next(one for one in CHECKS if one.id == case.check)
    cheaper = Profile(case.profile - 1)
    if check.runs_in(cheaper):
        less = {(row, one.message) for row, found in findings(check, case.items, cheaper).items() for one in found}
        more = {(row, one.message) for row, found in findings(check, case.items, case.profile).items() for one in found}
        assert not less & more


@pytest.mark.parametrize("case", [case for case in cases() if case.private], ids=str)
def test_private_numbers_of_vectors_are_right(case: Case) -> None:
    """The vectors' private numbers hold by plain arithmetic: a second opinion on what is weak."""
    key = case.items[0].key
    if isinstance(key, RsaPublicKey) and {"p", "q"} <= set(case.private):
        assert case.private["p"] * case.private["q"] == key.modulus
    elif isinstance(key, DsaPublicKey):
        assert pow(key.g, case.private["x"], key.p) == key.y
    elif isinstance(key, OkpPublicKey):
        maker = {"ed25519": Ed25519PrivateKey, "x25519": X25519PrivateKey}[key.type]
        seed = case.private["seed"].to_bytes(32, "big")
        assert maker.from_private_bytes(seed).public_key().public_bytes_raw() == key.encoded
    elif isinstance(key, EcPublicKey) and key.curve in LIBRARY:
        public = ec.derive_private_key(case.private["d"], LIBRARY[key.curve]).public_key()
        form = PublicFormat.CompressedPoint if key.point[0] in (2, 3) else PublicFormat.UncompressedPoint
        assert public.public_bytes(Encoding.X962, form) == key.point
    else:  # curves that the library does not know: the check's own proof has it
        assert isinstance(key, EcPublicKey)
        check = next(one for one in CHECKS if one.id == case.check)
        [finding] = findings(check, case.items, case.profile)[0]
        assert finding.evidence.secrets()["d"] == case.private["d"]


_RANDOM = Random(20260921)


def healthy_rsa(bits: int, count: int) -> list[PublicKey]:
    """Sound keys from a seeded generator."""
    half = bits // 2
    keys: list[PublicKey] = []
    while len(keys) < count:
        p, q = (int(gmpy2.next_prime(_RANDOM.getrandbits(half) | 3 << (half - 2))) for _ in range(2))
        if (p * q).bit_length() == bits:
            keys.append(RsaPublicKey(p * q, 65537))
    return keys


HEALTHY = healthy_rsa(1024, 12)

LIBRARY = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1(), "secp256k1": ec.SECP256K1()}
UNCOMPRESSED = (Encoding.X962, PublicFormat.UncompressedPoint)
SOUND_POINTS = {
    name: [
        ec.derive_private_key(_RANDOM.getrandbits(250), curve).public_key().public_bytes(*UNCOMPRESSED)
        for _ in range(4)
    ]
    for name, curve in LIBRARY.items()
}


@pytest.mark.parametrize("check", [one for one in CHECKS if one.shape == "key"], ids=lambda check: check.id)
def test_company_changes_nothing(check: Check) -> None:
    """A weak key is found at any place of a batch, whatever its neighbours: no screen drops what its check finds."""
    for case in cases_of(check.id):
        if case.verdict != "weak" or len(case.items) != 1 or case.profile > Profile.STANDARD:
            continue
        key = case.items[0].key
        others: list[PublicKey] = []
        if isinstance(key, RsaPublicKey):
            size = key.modulus.bit_length()
            others = HEALTHY if size == 1024 else [RsaPublicKey(key.modulus ^ (1 << (size // 2)), key.exponent)] * 3
        elif isinstance(key, EcPublicKey) and key.curve in SOUND_POINTS:
            others = [EcPublicKey(key.curve, octets) for octets in SOUND_POINTS[key.curve]]
        profile = case.profile
        alone = findings(check, case.items, profile)
        place = _RANDOM.randrange(len(others) + 1)
        crowd = [item_of_key(one) for one in others]
        crowd.insert(place, case.items[0])
        together = findings(check, crowd, profile)
        assert place in together, case.name
        assert together[place][0].classification is alone[0][0].classification


@pytest.mark.parametrize("check", [one for one in CHECKS if one.examine], ids=lambda check: check.id)
def test_screens_never_drop(check: Check) -> None:
    if not check.screens:
        return
    context = Context(profile=Profile.STANDARD, now=NOW)
    for case in cases_of(check.id):
        for batch, _ in group_keys([item.key for item in case.items]):
            if not isinstance(batch.keys[0], check.metadata.applies_to):
                continue
            kept = set(check.screens[0](batch, context).tolist())
            assert check.examine is not None
            assert all(row in kept for row in range(len(batch)) if check.examine(batch.key(row), context))


def hostile_keys() -> list[PublicKey]:
    """Keys that nobody should make and that every check meets."""
    rsa = [
        RsaPublicKey(modulus, exponent)
        for modulus in (0, 1, 2, 3, 4, 9, 15, 35, 2**61 - 1, 2**127, 3**200, 2**512, 2**1024 - 1, 2**2047, 2**2048 - 1)
        for exponent in (65537, 0, 1, 2, 2**2000 + 1)
    ]
    rsa += [
        RsaPublicKey((2**521 - 1) ** 2, 3),
        RsaPublicKey(2**521 - 1, 3),
        RsaPublicKey((2**1279 - 1) * (2**607 - 1), 2**16384 - 1),
        RsaPublicKey(3**1292, 65537),
        RsaPublicKey(2**16383 + 12345, 65537),
        RsaPublicKey(2**16384 - 1, 2**16383 + 1),
        RsaPublicKey(int("123456789" * 470), 65537),
        # Fermat's best case and worst, smooth numbers, few ones, few ones apart, a large e that has no small inverse
        RsaPublicKey((2**1023 + 1) * (2**1023 + 3), 65537),
        RsaPublicKey(prod(int(p) for p in primes_below(1 << 20)[-100:]), 65537),
        RsaPublicKey(prod(int(p) for p in primes_below(1 << 20)[-800:]), 65537),
        RsaPublicKey(1 << 2047 | 1 << 1500 | 1 << 700 | 1 << 96 | 1, 65537),
        RsaPublicKey(sum(1 << (113 * i) for i in range(19)) | 1 << 2047, 65537),
        RsaPublicKey(sum(1 << (113 * i) for i in range(145)), 65537),
        RsaPublicKey(_RANDOM.getrandbits(16_384) | 1 | 1 << 16_383, _RANDOM.getrandbits(16_384) | 1),
        RsaPublicKey(_RANDOM.getrandbits(16_384) | 7 | 1 << 16_383, 65537),
        RsaPublicKey(_RANDOM.getrandbits(16_381) << 3 | 1 | 1 << 16_383, 65537),
        RsaPublicKey(_RANDOM.getrandbits(2048) | 1 | 1 << 2047, _RANDOM.getrandbits(4096) | 1),
        *(RsaPublicKey(swinnerton_dyer(1 << width) << 1 | 1, 65537) for width in (64, 256)),
        *(RsaPublicKey(swinnerton_dyer(1 << width), 65537) for width in (64, 128, 256)),
    ]
    points = (b"", b"\x00", b"\x02", b"\x04", b"\x04" + b"\xff" * 64, b"\x05" + b"\x00" * 64, b"\x03" + b"\x00" * 32)
    curves = [
        EcPublicKey(curve, point)
        for curve in ("P-256", "P-384", "P-521", "secp256k1", "sect283k1", "brainpoolP256r1", "1.2.3.4", "explicit")
        for point in (*points, b"\x04" + b"\x00" * 1000)
    ]
    okp = [OkpPublicKey(kind, encoded) for kind in ("ed25519", "ed448", "x25519", "x448") for encoded in points]
    dsa = [
        DsaPublicKey(*numbers)
        for numbers in (
            (0, 0, 0, 0),
            (7, 3, 2, 4),
            (2**2048 - 1, 2**256 - 1, 2, 3),
            (1, 1, 1, 1),
            (2**11213 - 1, 2**9941 - 1, 3, 5),
            (2**4423 - 1, 2**4253 - 1, 3, 5),
            (2**3217 - 1, 2**521 - 1, 3, 5),
            (2**16_384 + 1, 2**16_384 - 1, 2**16_383, 2**16_383 + 5),
        )
    ]
    explicit = [
        EcPublicKey("explicit", point, ExplicitParameters("prime", p, a, b, generator, order, cofactor))
        for p, a, b, order in (
            (2**521 - 1, 1, 2, 2**607 - 1),
            (2**607 - 1, -3 % 2**607, 5, 2**521 - 1),
            (2**607 - 1, 0, 0, 2**607 - 1),
            (2**11213 - 1, 1, 1, 7),
            (2**1023 + 1, 2**1023, 3, 2**1024 - 1),
            (0, 0, 0, 0),
            (5, 1, 1, 9),
        )
        for size in [max((p.bit_length() + 7) // 8, 1)]
        for generator, point in (
            (b"\x04" + (1).to_bytes(size, "big") + (1).to_bytes(size, "big"), b"\x04" + bytes(2 * size)),
            (b"\x02" + (1).to_bytes(size, "big"), b"\x03" + (1).to_bytes(size, "big")),
            (b"", b""),
        )
        for cofactor in (None, 0, 2**300)
    ]
    explicit.append(EcPublicKey("explicit", b"\x04", ExplicitParameters("binary", 2**283 + 1, 1, 1, b"\x00", 5, 1)))
    return [*rsa, *curves, *okp, *dsa, *explicit]


def swinnerton_dyer(x: int) -> int:
    """A value of the polynomial with the roots +-sqrt(2) +-sqrt(3) +-sqrt(5) +-sqrt(7) +-sqrt(11): hard to factor."""
    polynomial = flint.fmpz_poly([0, 1])
    for prime in (2, 3, 5, 7, 11):
        # p(x + sqrt(q)) p(x - sqrt(q)): with y^2 = q, the norm of p(x + y)
        shifted = [flint.fmpz_poly([0]), flint.fmpz_poly([0])]
        for power, coefficient in enumerate(polynomial.coeffs()):
            for i in range(power + 1):
                term = flint.fmpz_poly([0] * (power - i) + [int(coefficient) * comb(power, i) * prime ** (i // 2)])
                shifted[i % 2] += term
        polynomial = shifted[0] * shifted[0] - prime * shifted[1] * shifted[1]
    return abs(int(polynomial(x)))


@pytest.mark.parametrize("profile", [Profile.FAST, Profile.STANDARD], ids=lambda profile: profile.label)
def test_hostile_keys_raise_nothing(profile: Profile) -> None:
    items = [item_of_key(key) for key in hostile_keys()]
    plan = replace(Plan.of(Settings(profile=profile), len(items)), now=NOW)
    for result in assess_items(items, plan):
        assert result.not_run == (), result.item.key


#: CPU seconds that one hostile key may cost one check, tables made: five times the slowest (a beam of 400 states)
BUDGET = {Profile.FAST: 1.5, Profile.STANDARD: 5.0}


@pytest.mark.parametrize("profile", BUDGET, ids=lambda profile: profile.label)
@pytest.mark.parametrize("check", [one for one in CHECKS if one.shape == "key"], ids=lambda check: check.id)
def test_hostile_keys_stay_within_the_budget(check: Check, profile: Profile) -> None:
    """Time of this process alone, so that a busy machine does not matter; the least of two, so that tables do not."""
    context = Context(profile=profile, now=NOW)
    limits = Settings().limits
    for key in hostile_keys():
        large = isinstance(key, RsaPublicKey) and (
            key.bits > limits.modulus_bits or key.exponent.bit_length() > limits.exponent_bits
        )
        if not isinstance(key, check.metadata.applies_to) or (large and not check.metadata.any_size):
            continue
        spent = []
        for _ in range(2):
            [(batch, _)] = group_keys([key])
            started = time.process_time()
            found = list(check.find(batch, context))
            spent.append(time.process_time() - started)
            if spent[-1] < BUDGET[profile] / 5:
                break
        for _, verdict in found:
            check.finding(key, verdict)
        assert min(spent) < BUDGET[profile], (check.id, key.type, getattr(key, "bits", 0))


@pytest.mark.parametrize("check", [one for one in CHECKS if one.shape == "fleet"], ids=lambda check: check.id)
def test_hostile_fleet_raises_nothing(check: Check) -> None:
    findings(check, [item_of_key(key) for key in hostile_keys()], Profile.STANDARD)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_healthy_keys_are_left_alone(check: Check) -> None:
    if check.id == "rsa-key-size":  # the healthy keys here have 1024 bits to be made quickly
        return
    assert findings(check, [item_of_key(key) for key in HEALTHY], Profile.STANDARD) == {}
