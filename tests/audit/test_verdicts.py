"""The cache of verdicts: what it gives back, what it says is missing, and what does not replace what."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyassay.audit.verdicts import Catalogue, PublicFinding, cached, public, settle, store
from keyassay.bulk.assay import assay
from keyassay.bulk.results import Settings
from keyassay.bulk.scan import Plan, assess_items
from keyassay.checks import catalogue as all_checks
from keyassay.findings import Classification, Confidence, Profile, Severity
from keyassay.lists.recipes import debian_openssl
from keyassay.registry.registry import Registry
from two_accounts import A, B, Rows
from vectors_of_checks import cases
from weak_devices import roca_device

ONE, TWO, THREE = (bytes([number]) * 32 for number in (1, 2, 3))


def finding(check: str, version: int = 1, **more: object) -> PublicFinding:
    made = PublicFinding(
        check, version, Classification.BROKEN, Severity.CRITICAL, Confidence.PROVEN, "CODE", "text", {"bits": 7}
    )
    return replace(made, **more)  # type: ignore[arg-type]


FAST = Catalogue("fast", {"a-x": 1, "b-x": 1}, {"list": 10})


def test_what_was_stored_comes_back(registry: Registry, rows: Rows) -> None:
    with registry.database.write(A) as transaction:
        store(transaction, FAST, {TWO: [finding("a-x")], ONE: []})
    with registry.database.read() as connection:
        found = cached(connection, [ONE, TWO, THREE, TWO], FAST)
    assert {digest: known.findings for digest, known in found.items()} == {ONE: (), TWO: (finding("a-x"),)}
    assert all(known.missing == frozenset() for known in found.values())
    assert [row["findings"] for row in rows.all("key_verdicts", spki_digest=ONE)] == [None]


@pytest.mark.parametrize(
    ("wanted", "missing"),
    [
        (Catalogue("fast", {"a-x": 1, "b-x": 2}, {"list": 10}), {"b-x"}),
        (Catalogue("fast", {"a-x": 1, "b-x": 1, "c-x": 1}, {"list": 10}), {"c-x"}),
        (Catalogue("fast", {"a-x": 1}, {"list": 10}), set()),
        (Catalogue("aws", {"a-x": 1}, {"list": 10}), set()),
        (Catalogue("standard", {"a-x": 1, "b-x": 1}, {"list": 10}), None),
        (Catalogue("fast", {"a-x": 1, "b-x": 1}, {"list": 11}), None),
    ],
)
def test_only_what_changed_is_missing(registry: Registry, wanted: Catalogue, missing: set[str] | None) -> None:
    with registry.database.write(A) as transaction:
        store(transaction, FAST, {ONE: [finding("a-x"), finding("b-x")]})
    with registry.database.read() as connection:
        found = cached(connection, [ONE], wanted)
    if missing is None:
        assert found == {}
        return
    assert found[ONE].missing == missing
    assert {one.check for one in found[ONE].findings} == {"a-x", "b-x"} & set(wanted.versions) - missing


def test_less_does_not_replace_more_and_newer_replaces_older(registry: Registry) -> None:
    standard = Catalogue("standard", {"a-x": 1, "b-x": 1, "c-x": 1}, {"list": 10})
    newer = Catalogue("fast", {"a-x": 2, "b-x": 1}, {"list": 10})
    for actor, by, findings in ((A, standard, [finding("c-x")]), (B, FAST, []), (A, newer, [finding("a-x", 2)])):
        with registry.database.write(actor) as transaction:
            store(transaction, by, {ONE: findings})
        with registry.database.read() as connection:
            known = cached(connection, [ONE], by)[ONE]
        if by is FAST:  # the richer verdict stayed and answers the poorer question too
            assert (known.missing, known.findings) == (frozenset(), ())
            with registry.database.read() as connection:
                assert cached(connection, [ONE], standard)[ONE].findings == (finding("c-x"),)
    with registry.database.read() as connection:
        assert cached(connection, [ONE], newer)[ONE].findings == (finding("a-x", 2),)


def test_thousands_at_once(registry: Registry) -> None:
    digests = [number.to_bytes(32, "big") for number in range(1_201)]
    with registry.database.write(A) as transaction:
        store(transaction, FAST, dict.fromkeys(digests, ()))
    with registry.database.read() as connection:
        assert len(cached(connection, digests, FAST)) == 1_201


def test_a_real_finding_is_kept_without_secrets() -> None:
    result = assay(roca_device().pem, profile="fast")
    kept = [public(one) for one in result.findings]
    assert [one.is_proven_broken for one in kept] == [True]
    assert [PublicFinding.from_json(one.as_json()) for one in kept] == kept
    assert set(kept[0].evidence).isdisjoint({"factor", "d", "x"})


def test_where_debians_generator_began_is_not_told() -> None:
    """The process id makes the private key again."""
    stream = debian_openssl.Stream("le64", "rnd", 4_242)
    modulus = debian_openssl.rsa_keys(stream, 2048)[65537].modulus
    spki = rsa.RSAPublicNumbers(65537, modulus).public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    (found,) = assay(spki).findings
    assert "4242" in found.message
    told = public(found)
    assert told.message == "made by Debian's OpenSSL with the predictable generator"
    assert "4242" not in str(told.as_json())


@pytest.mark.parametrize("check", ["rsa-debian-openssl", "ec-debian-openssl"])
def test_where_a_key_of_debian_was_made_is_a_seed_and_not_kept(check: str) -> None:
    item = next(case.items[0] for case in cases() if case.check == check and case.verdict == "weak")
    plan = Plan.of(Settings(profile=Profile.FAST, only=(check,), fleet=False), 1)
    (found,) = assess_items([item], plan)[0].findings
    assert "pid" in found.evidence.describe()
    kept = public(found)
    assert "pid" not in kept.evidence
    assert "pid" not in kept.message
    assert kept.reason_code.endswith("CVE-2008-0166")


def test_explained_findings_are_left_out() -> None:
    explained = next(one for one in all_checks() if one.metadata.explained_by)
    leader = explained.metadata.explained_by[0]
    both = [finding(explained.id), finding(leader)]
    assert [one.check for one in settle(both)] == [leader]
    assert [one.check for one in settle(both[:1])] == [explained.id]


def test_the_catalogue_names_checks_of_keys_and_the_lists() -> None:
    made = Catalogue.of(all_checks(), Profile.FAST)
    assert "rsa-roca" in made.versions
    assert "fleet-shared-prime" not in made.versions
    assert "certificate-validity" not in made.versions
    assert made.lists["debian-rsa-2048"] > 0
    assert made.digest == Catalogue.of(all_checks(), Profile.FAST).digest
    assert made.digest != Catalogue.of(all_checks(), Profile.STANDARD).digest
