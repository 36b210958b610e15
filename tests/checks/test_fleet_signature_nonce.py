"""A nonce of an issuer that is not in the run gives its private key: shown by a signature that verifies."""

from __future__ import annotations

import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from keyassay.bulk.fleet import fleet_of
from keyassay.certificates.public_key import OkpPublicKey
from keyassay.checks import Context, check
from keyassay.findings import EcPrivateKey, EdwardsScalar, Profile, Verdict
from vectors_of_checks import cases_of


def test_the_private_key_of_an_absent_issuer_verifies_its_certificates() -> None:
    absent = [
        case
        for case in cases_of("fleet-signature-nonce")
        if "not there" in case.name and case.profile <= Profile.STANDARD
    ]
    assert len(absent) >= 3
    for case in absent:
        found = dict(check("fleet-signature-nonce").find(fleet_of(case.items), Context(profile=Profile.STANDARD)))
        assert set(found) == set(case.weak)
        for position, verdict in found.items():
            d = verdict.evidence.secrets()["issuer_private_key"]
            assert isinstance(d, int)
            certificate = x509.load_der_x509_certificate(case.items[position].der or b"")
            ec.derive_private_key(d, ec.SECP256R1()).public_key().verify(
                certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256())
            )


def test_each_cause_is_told_by_its_name() -> None:
    """What the vectors plant is what the message says."""
    words = {
        "one nonce twice": "one nonce",
        "a nonce and its negative": "one nonce",
        "a nonce of 7": "anyone guesses",
        "the private key as nonce": "the nonce is the private key",
        "the digest as nonce": "the nonce is the digest",
        "three nonces in equal steps": "equal steps",
        "a counter as nonce": "1 times the one before plus 1",
        "each nonce twice the one before": "2 times the one before plus 0",
        "a linear congruential generator": "linear congruential",
        "two issuers share two nonces": "two signers",
        "three issuers share three nonces in a ring": "three signers share three nonces",
        "eight issuers share eight nonces in a ring": "eight signers share eight nonces",
        "DSA: two issuers share two nonces": "two signers share two nonces",
        "Ed25519: one nonce twice": "one nonce",
        "Ed448: one nonce twice": "one nonce",
        "Ed448: two issuers share two nonces": "two signers share two nonces",
        "DSA: one nonce twice": "one nonce",
        "DSA: the private key as nonce": "the nonce is the private key",
    }
    for case in cases_of("fleet-signature-nonce"):
        if case.name in words:
            found = list(check("fleet-signature-nonce").find(fleet_of(case.items), Context(profile=Profile.STANDARD)))
            assert found
            assert any(words.pop(case.name) in verdict.message for _, verdict in found[:1])
    assert words == {}


def causes(name: str) -> dict[int, list[str]]:
    """What a vector's signers are lost to, by position."""
    (case,) = (one for one in cases_of("fleet-signature-nonce") if one.name == name)
    found: dict[int, list[str]] = {}
    for position, verdict in check("fleet-signature-nonce").find(fleet_of(case.items), Context(profile=Profile.FAST)):
        found.setdefault(position, []).append(verdict.message.split(": ")[1])
    return found


def test_shared_nonces_are_followed_from_a_signer_who_is_lost() -> None:
    follows = ["a nonce shared with a signer whose private key is known"]
    assert causes("a nonce twice, and shared from issuer to issuer") == {
        0: ["two signatures with one nonce"], 4: follows, 7: follows
    }  # fmt: skip


def test_a_signer_that_another_check_has_broken_opens_those_who_share_nonces_with_it() -> None:
    check_of = {name: check(name) for name in ("fleet-signature-nonce", "ec-weak-private-key")}
    cases = cases_of("fleet-signature-nonce")
    (case,) = (one for one in cases if one.name == "three issuers share two nonces")
    (lost,) = (one for one in cases if one.name == "a nonce twice, and shared from issuer to issuer")
    # the first issuer of the one is not that of the other: what is known of a key is verified
    assert case.items[0].key != lost.items[0].key
    context = Context(profile=Profile.FAST)
    found = dict(check_of["fleet-signature-nonce"].find(fleet_of(lost.items), context))
    d = found[7].evidence.secrets()["d"]
    assert isinstance(d, int)
    key = lost.items[7].key
    assert key is not None
    finding = check_of["ec-weak-private-key"].finding(key, Verdict("found", EcPrivateKey(d)))
    rest = [item for place, item in enumerate(lost.items) if place != 3]  # without the nonce that comes twice
    alone = fleet_of(rest, findings={6: [finding]})
    again = dict(check_of["fleet-signature-nonce"].find(alone, context))
    assert set(again) == {0, 3}
    assert again[0].evidence.secrets() == found[0].evidence.secrets()
    assert dict(check_of["fleet-signature-nonce"].find(fleet_of(rest), context)) == {}
    believed = fleet_of(case.items)
    believed._private_keys[0] = d
    assert dict(check_of["fleet-signature-nonce"].find(believed, context)) == {}


def test_a_private_scalar_proves_its_own_key_only() -> None:
    scalars = {}
    for name in ("Ed25519: one nonce twice", "Ed448: one nonce twice"):
        (case,) = (one for one in cases_of("fleet-signature-nonce") if one.name == name)
        found = dict(check("fleet-signature-nonce").find(fleet_of(case.items), Context(profile=Profile.FAST)))
        key, evidence = case.items[0].key, found[0].evidence
        assert isinstance(key, OkpPublicKey)
        assert isinstance(evidence, EdwardsScalar)
        assert evidence.proves(key)
        assert not EdwardsScalar(evidence.a + 1).proves(key)
        assert str(evidence.a) not in str(evidence.describe())
        assert f"{evidence.a:x}" in evidence.steps(key)[1].says
        command = evidence.steps(key)[-1].command
        shown = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
        assert shown.stdout.strip() == key.encoded.hex()
        scalars[key] = evidence
    (one, first), (other, second) = scalars.items()
    assert not first.proves(other)
    assert not second.proves(one)
    assert not first.proves(OkpPublicKey("x25519", one.encoded))


def test_too_little_memory_for_shared_nonces_is_said() -> None:
    (case,) = (
        one for one in cases_of("fleet-signature-nonce") if one.name == "three issuers share three nonces in a ring"
    )
    fleet = fleet_of(case.items)
    fleet.memory = 2_000
    assert dict(check("fleet-signature-nonce").find(fleet, Context(profile=Profile.FAST))) == {}
    (note,) = fleet.notes
    assert note.reason == "not all done: nonces of several signers: more than 2 signatures; raise --memory"


def test_too_many_rings_to_try_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = (
        one for one in cases_of("fleet-signature-nonce") if one.name == "nine issuers share nine nonces in a ring"
    )
    monkeypatch.setattr("keyassay.certificates.shared_nonces._RING_WORK", 3)
    fleet = fleet_of(case.items)
    assert dict(check("fleet-signature-nonce").find(fleet, Context(profile=Profile.FAST))) == {}
    (note,) = fleet.notes
    assert note.reason == "not all done: rings of signers who share nonces: too many to try all"


def deep(name: str, **more: float) -> tuple[dict[int, Verdict], set[str]]:
    """What profile deep finds in a vector, and what it says that it has left out."""
    (case,) = (one for one in cases_of("fleet-signature-nonce") if one.name == name)
    context = Context(profile=Profile.DEEP, **more)  # type: ignore[arg-type]
    found = dict(check("fleet-signature-nonce").find(fleet_of(case.items), context))
    return found, {note.reason for note in context.notes}


CAUSES_IN_DEEP = {
    "four nonces of 128 bits": "its nonces are short",
    "five nonces that begin alike": "its nonces begin alike",
    "five nonces that end alike": "its nonces end alike",
    "each byte four times": "each byte of its nonces comes four times",
    "numbers of java.util.Random": "words of java.util.Random or mrand48, bytes swapped",
    "nonces whose middle is fixed": "a structure in common",
    "two nonces 60,000 apart": "two nonces whose difference is 60,000",
    "two nonces whose sum is 5,000": "two nonces whose sum is 5,000",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CAUSES_IN_DEEP)
def test_each_cause_in_deep_is_told_by_its_name(name: str) -> None:
    found, notes = deep(name)
    assert notes == set()
    assert all(CAUSES_IN_DEEP[name] in verdict.message for verdict in found.values())
    assert found


@pytest.mark.parametrize(
    "name",
    [
        "four nonces of 200 bits",
        "twenty nonces of 252 bits",
        "four nonces that begin with the same 48 bits",
        "two nonces 100,000 apart",
        "each byte twice",
        "nonces whose upper halves agree",
        "a nonce of 2^24 and 7",
        "random nonces",
    ],
)
@pytest.mark.slow
def test_what_deep_does_not_reach_it_does_not_claim(name: str) -> None:
    assert deep(name) == ({}, set())


def test_signers_for_whom_there_is_no_time_are_counted() -> None:
    found, notes = deep("random nonces", budget=0.0)
    assert found == {}
    assert notes == {"not all done: lattices for none of 2 of 2 signers; raise --budget"}
    found, notes = deep("seventeen nonces of 240 bits", budget=0.0001)
    assert found == {}
    assert len(notes) == 1


def test_signatures_of_two_keys_of_one_name_are_told_apart_before_they_go_into_a_lattice() -> None:
    (weak,) = (one for one in cases_of("fleet-signature-nonce") if one.name == "four nonces of 128 bits")
    (sound,) = (one for one in cases_of("fleet-signature-nonce") if one.name == "random nonces")
    items = [*sound.items[:7], *weak.items]  # two authorities named CA, both with devices
    found = dict(check("fleet-signature-nonce").find(fleet_of(items), Context(profile=Profile.DEEP)))
    assert set(found) == {7}
