"""The engine: order, interruption, checks that fail, evidence that does not hold, work left to the fleet."""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import dataclass, replace

import gmpy2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from issuing import certificate, sound_key, spki_of
from keyassay.bulk import scan as scanning
from keyassay.bulk.fleet import RunFleet, Spool
from keyassay.bulk.results import Settings
from keyassay.bulk.scan import Plan, Scan, assess_items, settle
from keyassay.certificates.decoding import decode, item_of_key
from keyassay.certificates.item import Kind, RawItem
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.certificates.spki import encode
from keyassay.checks import check
from keyassay.errors import KeyassayError
from keyassay.findings import Classification, Confidence, Evidence, Factor, Profile, Severity, Verdict


def prime(number, bits=512):
    """Primes with nothing in common: powers of odd numbers are far from each other."""
    return int(gmpy2.next_prime((3 << (bits - 2)) + pow(1_000_003 + 2 * number, 97) % (1 << (bits - 2))))


P = [prime(number) for number in range(8)]


def rsa_spki(*factors):
    modulus = 1
    for factor in factors:
        modulus *= factor
    return encode(RsaPublicKey(modulus, 65537))


def pem(der):
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"


def bundle(count):
    """Certificates: every third RSA (two of them with a shared prime), some lines that are nothing."""
    parts = []
    for number in range(count):
        if number % 3 == 0:
            factors = {0: (P[0], P[1]), count - count % 3 - 3: (P[0], P[2])}.get(number, (P[3], prime(100 + number)))
            parts.append(pem(certificate(rsa_spki(*factors), f"r{number}", number + 1)))
        elif number % 7 == 0:
            parts.append("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
        else:
            parts.append(pem(certificate(spki_of(sound_key(number)), f"e{number}", number + 1)))
    return "".join(parts)


def scan_of(text, **more):
    """A run over a text from standard input."""
    settings = Settings(**{"profile": Profile.FAST, "skip": ("rsa-key-size",), **more})
    return Scan(["-"], settings, standard_input=io.BytesIO(text.encode()))


def shown(results):
    return [
        (one.item.source, one.item.index, one.item.sha256, [finding.check for finding in one.findings], one.not_run)
        for one in results
    ]


SAMPLE = bundle(60)


@pytest.mark.parametrize("fleet", [True, False])
def test_results_are_the_same_whatever_the_jobs(fleet, monkeypatch):
    alone = scan_of(SAMPLE, jobs=1, fleet=fleet)
    expected = shown(alone)
    assert len(expected) == 60
    assert [one[1] for one in expected] == list(range(60))
    assert sum(len(one[3]) for one in expected) == (20 if fleet else 0)
    together = scan_of(SAMPLE, jobs=2, fleet=fleet)
    assert shown(together) == expected
    for name in ("read", "assessed", "not_assessed", "unreadable", "keys", "kinds", "worst", "by_check", "not_run"):
        assert getattr(together.summary, name) == getattr(alone.summary, name), name
    assert alone.summary.unreadable == sum(one[2] is None for one in expected) > 0


@pytest.mark.parametrize("resident", [0, 5_000, 1 << 30])
def test_waiting_on_disk_changes_nothing(monkeypatch, resident):
    expected = shown(scan_of(SAMPLE))
    spools = []

    def small():
        spools.append(Spool(resident))
        return spools[-1]

    monkeypatch.setattr(scanning, "Spool", small)
    monkeypatch.setattr(scanning, "read", lambda *given: ([raw] for block in original(*given) for raw in block))
    assert shown(scan_of(SAMPLE)) == expected
    assert spools[0]._resident == []  # given back


original = scanning.read


def test_what_is_found_together_is_named(monkeypatch):
    results = list(scan_of(SAMPLE))
    first = results[0].findings[0]
    assert first.check == "fleet-shared-prime"
    assert first.evidence.factor == P[0]
    assert first.message.endswith("with -#57: both private keys follow by division")
    # one prime in the eighteen others
    others = results[3].findings[0]
    assert others.evidence.sharing == 17
    assert "and with 16 more keys of this run" in others.message


class Interrupting:
    """Blocks of one, and an interruption after some of them."""

    def __init__(self, count):
        self.count = count

    def __call__(self, *given):
        for number, raw in enumerate(raw for block in original(*given) for raw in block):
            if number == self.count:
                raise KeyboardInterrupt
            yield [raw]


@pytest.mark.parametrize("fleet", [True, False])
def test_an_interruption_keeps_what_was_found_so_far(monkeypatch, fleet):
    monkeypatch.setattr(scanning, "read", Interrupting(5))
    sample = pem(certificate(encode(RsaPublicKey(P[0] * int(gmpy2.next_prime(P[0])), 65537)), "x", 1)) + SAMPLE
    scan = scan_of(sample, fleet=fleet, only=("rsa-close-primes", *(["fleet-shared-prime"] if fleet else [])))
    results = list(scan)
    assert len(results) == 5
    assert scan.summary.interrupted
    assert [finding.check for finding in results[0].findings] == ["rsa-close-primes"]
    assert [(one.check, one.reason) for one in scan.summary.not_run] == (
        [("fleet-shared-prime", "interrupted")] if fleet else []
    )


def test_an_interruption_while_comparing_keeps_the_rest(monkeypatch):
    def interrupted(_fleet, _context):
        raise KeyboardInterrupt

    scan = scan_of(SAMPLE)
    with_one = tuple(
        replace(one, _find=interrupted) if one.id == "fleet-shared-prime" else one for one in scan.plan.fleet_checks
    )
    scan.plan = replace(scan.plan, fleet_checks=with_one)
    assert len(list(scan)) == 60
    assert scan.summary.interrupted
    reasons = {one.check: one.reason for one in scan.summary.not_run}
    assert reasons["fleet-shared-prime"] == "interrupted"
    assert reasons["rsa-small-factor"] == "interrupted"


def test_a_check_that_raises_is_a_remark_on_its_key_alone():
    def picky(batch, _context):
        for row, key in enumerate(batch.keys):
            if key.exponent == 7:
                raise ZeroDivisionError("seven")
            yield row, Verdict("found", Factor(P[0]))

    plan = Plan.of(Settings(only=("rsa-close-primes",), fleet=False), 3)
    plan = replace(plan, key_checks=(replace(plan.key_checks[0], _find=picky),))
    items = [item_of_key(RsaPublicKey(P[0] * P[1], exponent)) for exponent in (3, 7, 5)]
    results = assess_items(items, plan)
    assert [len(one.findings) for one in results] == [1, 0, 1]
    assert [[note.check for note in one.not_run] for one in results] == [[], ["rsa-close-primes"], []]
    assert results[1].not_run[0].reason == "internal error: ZeroDivisionError: seven"


def test_a_fleet_check_that_raises_loses_no_other(monkeypatch):
    def broken(_fleet, _context):
        raise ZeroDivisionError("why")
        yield

    scan = scan_of(SAMPLE)
    scan.plan = replace(
        scan.plan,
        fleet_checks=tuple(
            replace(one, _find=broken) if one.id == "fleet-repeated-key" else one for one in scan.plan.fleet_checks
        ),
    )
    results = list(scan)
    assert sum(bool(one.findings) for one in results) == 20
    assert [one.reason for one in scan.summary.not_run if one.check.startswith("fleet-")] == [
        "internal error: ZeroDivisionError: why"
    ]


def test_evidence_that_does_not_hold_makes_no_finding():
    def wrong(batch, _context):
        yield 0, Verdict("wrong", Factor(P[2]))
        yield 1, Verdict("right", Factor(P[1]))

    plan = Plan.of(Settings(only=("rsa-close-primes",), fleet=False), 2)
    plan = replace(plan, key_checks=(replace(plan.key_checks[0], _find=wrong),))
    items = [item_of_key(RsaPublicKey(P[0] * P[1], 3)) for _ in range(2)]
    results = assess_items(items, plan)
    assert [len(one.findings) for one in results] == [0, 1]
    assert "does not verify" in results[0].not_run[0].reason


def test_evidence_of_a_fleet_that_does_not_hold_makes_no_finding():
    def wrong(fleet, _context):
        yield 0, Verdict("wrong", Factor(P[5]))

    scan = scan_of(SAMPLE, only=("fleet-shared-prime",))
    scan.plan = replace(scan.plan, fleet_checks=(replace(scan.plan.fleet_checks[0], _find=wrong),))
    assert not any(one.findings for one in scan)
    assert "does not verify" in scan.summary.not_run[0].reason


@dataclass(frozen=True)
class Plain(Evidence):
    """Holds always."""

    def proves(self, subject):
        return True

    def describe(self):
        return {}


def test_a_finding_that_another_one_explains_is_left_out_and_the_worst_comes_first():
    key = RsaPublicKey(2 * P[0], 65537)
    made = {
        name: check(name).finding(key, Verdict("x", Plain()))
        for name in ("rsa-small-factor", "rsa-invalid-modulus", "rsa-key-size", "fleet-shared-prime")
    }
    explained = check("rsa-small-factor").metadata.explained_by
    assert "rsa-invalid-modulus" in explained
    kept = [one.check for one in settle(made.values())]
    assert "rsa-small-factor" not in kept
    assert {"rsa-invalid-modulus", "fleet-shared-prime"} <= set(kept)
    alone = settle([made["rsa-key-size"], made["rsa-small-factor"]])
    assert alone[0].check == "rsa-small-factor"
    assert settle([made["rsa-small-factor"]]) == (made["rsa-small-factor"],)


# Memory

MIXED = SAMPLE + pem(certificate(rsa_spki(65_521, prime(7, 1000)), "small", 1_000))
CHECKS = ("fleet-shared-prime", "fleet-repeated-key", "rsa-small-factor")


def test_small_factors_fall_out_of_batch_gcd(monkeypatch):
    def never(*_given):
        raise AssertionError("no chain of products here")

    monkeypatch.setattr("keyassay.checks.rsa_small_factor.with_common_factor", never)
    scan = scan_of(MIXED, only=CHECKS)
    results = list(scan)
    assert Counter(finding.check for one in results for finding in one.findings) == {
        "fleet-shared-prime": 20,
        "rsa-small-factor": 1,
    }
    assert results[-1].findings[0].evidence.factor == 65_521
    assert scan.summary.not_run == []


@pytest.mark.parametrize("factor", [3, 65_537, 1_048_573])
def test_a_fleet_run_of_the_fast_profile_reaches_as_far_as_standard(factor):
    text = pem(certificate(rsa_spki(factor, prime(7, 1000)), "small", 1))
    (result,) = scan_of(text, only=CHECKS)
    assert [one.check for one in result.findings] == ["rsa-small-factor"]


@pytest.mark.parametrize(
    ("memory", "reason"),
    [(40_000_000, "not run: 21 moduli, needs 0.1 GB; raise --memory"), (1_000, "not run: 61 items, needs more than")],
)
def test_beyond_the_memory_all_else_is_done(memory, reason, monkeypatch):
    scan = scan_of(MIXED, only=CHECKS, memory=memory)
    results = list(scan)
    assert len(results) == 61
    assert [[one.check for one in result.findings] for result in results if result.findings] == [["rsa-small-factor"]]
    notes = {one.check: one.reason for one in scan.summary.not_run}
    assert notes["fleet-shared-prime"].startswith(reason)
    assert ("fleet-repeated-key" in notes) == (memory == 1_000)
    assert "rsa-small-factor" not in notes


def test_without_its_leader_a_check_does_its_own_work():
    for more in ({"fleet": False}, {"only": ("rsa-small-factor", "fleet-repeated-key")}):
        found = Counter(finding.check for one in scan_of(MIXED, **more) for finding in one.findings)
        assert found["rsa-small-factor"] == 1


def test_columns_stay_within_the_memory(monkeypatch):
    fleets = []

    class Watched(RunFleet):
        def __init__(self, *given, **more):
            super().__init__(*given, **more)
            fleets.append(self)

    monkeypatch.setattr(scanning, "RunFleet", Watched)
    list(scan_of(SAMPLE, memory=1_000))
    assert fleets[0].overflow
    assert len(fleets[0].rsa_moduli) == 0


# Plans and reading


def test_plans_select_and_refuse():
    with pytest.raises(KeyassayError, match="rsa-nothing"):
        Plan.of(Settings(only=("rsa-nothing",)), 0)
    plan = Plan.of(Settings(profile=Profile.AWS), 0)
    assert all(one.metadata.is_aws for one in plan.checks)
    assert plan.fleet_checks == ()
    plan = Plan.of(Settings(skip=("rsa-roca",), fleet=False), 0)
    assert "rsa-roca" not in [one.id for one in plan.checks]
    assert plan.fleet_checks == ()
    named = Plan.of(Settings(profile=Profile.FAST, only=("fleet-related-ec-keys",)), 0)
    assert [one.id for one in named.checks] == ["fleet-related-ec-keys"]
    assert named.context_for(named.fleet_checks[0]).profile is Profile.STANDARD


def test_real_keys_are_clean():
    """Keys of a sound generator in every form have no finding, and a key file beside its certificate neither."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key()
    info = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    forms = [
        pem(certificate(info, "a", 1)).encode(),
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH) + b"\n",
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    ]
    scan = Scan(["-"], Settings(), standard_input=io.BytesIO(b"".join(forms)))
    results = list(scan)
    assert [one.item.kind for one in results] == [
        Kind.CERTIFICATE, Kind.PUBLIC_KEY, Kind.PUBLIC_KEY, Kind.PRIVATE_KEY,
    ]  # fmt: skip
    assert [one.findings for one in results] == [()] * 4
    assert scan.summary.keys == {"RSA-2048": 4}


def test_findings_on_a_key_reach_every_item_that_has_it():
    twins = [certificate(rsa_spki(P[0], P[1]), "a", 1), certificate(rsa_spki(P[0], P[1]), "a", 1)]
    partner = certificate(rsa_spki(P[1], P[2]), "b", 2)
    raw = [RawItem("x", number, 0, "", der) for number, der in enumerate([*twins, partner])]
    assert len(decode(raw)) == 3
    results = list(scan_of("".join(map(pem, [*twins, partner]))))
    assert [[one.check for one in result.findings] for result in results] == [["fleet-shared-prime"]] * 3
    finding = results[0].findings[0]
    assert (finding.classification, finding.severity, finding.confidence) == (
        Classification.BROKEN,
        Severity.CRITICAL,
        Confidence.PROVEN,
    )
