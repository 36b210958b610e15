"""Fleet checks over all keys of an account, and of the server: what the engine finds is found, and by whom it is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

import fleet_keys
from auditing import DEVICE_KEYS, audit, enable, findings
from keyassay.audit import fleet_search, whole_fleet
from keyassay.audit.fleet_pool import SERVER, SearchError
from keyassay.audit.fleet_search import Search
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import EcPublicKey, RsaPublicKey
from keyassay.findings import Classification, Profile
from keyassay.keymath.curves import named_curve
from keyassay.registry.admission import read_der
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor
from two_accounts import A, B
from vectors_of_checks import Case, cases_of

CURVES: dict[str, Any] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "secp256k1": ec.SECP256K1()}


def case_of(check: str, name: str) -> Case:
    (case,) = (one for one in cases_of(check) if one.name == name)
    return case


def encoded(item: Item, subject: str) -> bytes:
    """A certificate with the item's key; the item's own if it is one."""
    if item.signed is not None:
        assert item.der is not None
        return item.der
    key = item.key
    public: Any
    if isinstance(key, RsaPublicKey):
        public = rsa.RSAPublicNumbers(key.exponent, key.modulus).public_key()
    else:
        assert isinstance(key, EcPublicKey)
        public = ec.EllipticCurvePublicKey.from_encoded_point(CURVES[key.curve], key.point)
    return der_of(fleet_keys.device(subject, public_key=public))


def der_of(device: fleet_keys.Signed) -> bytes:
    return device.certificate.public_bytes(Encoding.DER)


def enter(registry: Registry, actor: Actor, *encodings: bytes) -> list[str]:
    """Enter certificates as they are, whatever registering would say of them; their ids."""
    rows = []
    with registry.database.write(actor) as transaction:
        for der in encodings:
            read = read_der(der)
            rows.append(
                {
                    "account_id": actor.account_id,
                    "id": read.id,
                    "status": "ACTIVE",
                    "mode": "SNI_ONLY",
                    "der": der,
                    "spki_digest": read.spki_digest,
                    "not_before": read.not_before,
                    "not_after": read.not_after,
                    "created_at": transaction.now,
                    "modified_at": transaction.now,
                    "customer_version": 1,
                    "generation_id": "0",
                }
            )
        transaction.execute(schema.certificates.insert(), rows)
    return [row["id"] for row in rows]


@pytest.fixture
def search(database_url: str, tmp_path: Path) -> Search:
    return Search(database_url, A.account_id, tmp_path / "fleet", profile=Profile.STANDARD)


def told(rows: Any, table: str, check: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Findings by account and certificate."""
    by_key = {(row["account_id"], row["spki_digest"]): row["finding"] for row in rows.all(table, check_id=check)}
    held = rows.all("certificates")
    return {
        (row["account_id"], row["id"]): by_key[row["account_id"], row["spki_digest"]]
        for row in held
        if (row["account_id"], row["spki_digest"]) in by_key
    }


CASES = [
    ("fleet-signature-nonce", "one nonce twice", Profile.FAST),
    ("fleet-signature-nonce", "three nonces in equal steps", Profile.STANDARD),
    ("fleet-signature-nonce", "two issuers share two nonces", Profile.FAST),
    ("fleet-signature-nonce", "Ed25519: one nonce twice", Profile.FAST),
    ("fleet-related-ec-keys", "P-256: 33 apart", Profile.STANDARD),
    ("fleet-related-ec-keys", "P-256: negated and 700 apart", Profile.STANDARD),
    ("fleet-common-prefix", "2048 bits", Profile.STANDARD),
    ("signature-rsa-fault", "one half wrong modulo p", Profile.STANDARD),
    ("fleet-shared-subprime", "2048 bits, r of 520", Profile.DEEP),
    ("fleet-shared-subprime", "r of 220 bits: no factor", Profile.DEEP),
]


@pytest.mark.parametrize(("check", "name", "profile"), CASES)
def test_what_the_engine_finds_is_found_in_an_account(
    registry: Registry, rows: Any, search: Search, check: str, name: str, profile: Profile
) -> None:
    case = case_of(check, name)
    ids = enter(registry, A, *(encoded(item, str(place)) for place, item in enumerate(case.items)))
    LAZYer = replace(search, profile=Profile(profile - 1))
    if profile > Profile.FAST:
        fleet_search.compare(registry.database, LAZYer)
        assert not told(rows, "fleet_verdicts", check)
    fleet_search.compare(registry.database, replace(search, profile=profile, budget=0.5))
    found = told(rows, "fleet_verdicts", check)
    assert set(found) == {(A.account_id, ids[place]) for place in case.weak}
    for finding in found.values():
        assert finding["reason_code"] == f"CERTIFICATE_KEY_VULNERABILITY_{check.upper().replace('-', '_')}"
        assert "#0" not in str(finding)
        assert not {"d", "k", "factor", "a", "x", "seed"} & set(finding["evidence"])
        named = {one["sha256"] for one in finding["evidence"]["partners"]}
        assert named
        assert named <= set(ids)


@pytest.mark.parametrize(("check", "name", "profile"), CASES)
def test_across_accounts_nothing_of_the_other_is_told(
    registry: Registry, rows: Any, search: Search, check: str, name: str, profile: Profile
) -> None:
    """The keys of a case in two accounts: the first weak one in A, everything else in B."""
    case = case_of(check, name)
    encodings = [encoded(item, f"device of somebody {place}") for place, item in enumerate(case.items)]
    mine = min(case.weak)
    (own,) = enter(registry, A, encodings[mine])
    others = enter(registry, B, *(one for place, one in enumerate(encodings) if place != mine))
    wanted = replace(search, profile=profile, budget=0.5)
    fleet_search.compare(registry.database, wanted)
    assert not told(rows, "fleet_verdicts", check)
    fleet_search.compare(registry.database, replace(wanted, account_id=SERVER))
    found = told(rows, "server_verdicts", check)
    assert (A.account_id, own) in found
    for finding in found.values():
        assert "a certificate of another account of this server" in finding["message"]
        assert set(finding["evidence"]) <= {"proof", "across_accounts", "verified"}
        words = [A.account_id, B.account_id, own, *others, "somebody"]
        assert not any(word in json.dumps(finding) for word in words)


def test_what_only_an_account_has_is_not_told_twice(registry: Registry, rows: Any, search: Search) -> None:
    for check, name in (("fleet-related-ec-keys", "P-256: 33 apart"), ("fleet-signature-nonce", "one nonce twice")):
        enter(registry, A, *(encoded(item, str(place)) for place, item in enumerate(case_of(check, name).items)))
    enter(registry, B, der_of(fleet_keys.device("sound", key=fleet_keys.ec_key(90))))
    fleet_search.compare(registry.database, replace(search, account_id=SERVER))
    assert not rows.all("server_verdicts")


#: a private key that ec-weak-private-key finds
LAZY = int("17" * 32, 16)


def curve_device(d: int) -> bytes:
    curve = named_curve("P-256")
    assert curve is not None
    key = ec.derive_private_key(d % int(curve.order), ec.SECP256R1())
    return der_of(fleet_keys.device(f"device {d % 1_000_003}", key=key))


def test_a_private_key_that_is_known_breaks_all_that_are_related(registry: Registry, rows: Any, search: Search) -> None:
    ids = enter(registry, A, curve_device(LAZY), curve_device(LAZY + 900), curve_device(LAZY + 1_800))
    fleet_search.compare(registry.database, search)
    found = told(rows, "fleet_verdicts", "fleet-related-ec-keys")
    assert set(found) == {(A.account_id, one) for one in ids[1:]}
    assert {one["class"] for one in found.values()} == {"broken"}
    text = json.dumps(list(found.values()))
    assert not any(f"{LAZY + more:x}" in text or str(LAZY + more) in text for more in (0, 900, 1_800))


def test_a_key_of_another_account_may_be_the_link(registry: Registry, rows: Any, search: Search) -> None:
    """A has both ends of a chain, B the middle: A's second key is broken by its first one through B's."""
    known, far = enter(registry, A, curve_device(LAZY), curve_device(LAZY + 1_800))
    enter(registry, B, curve_device(LAZY + 900))
    fleet_search.compare(registry.database, search)
    assert not told(rows, "fleet_verdicts", "fleet-related-ec-keys")
    fleet_search.compare(registry.database, replace(search, account_id=SERVER))
    found = told(rows, "server_verdicts", "fleet-related-ec-keys")
    assert found[A.account_id, far]["class"] == "broken"
    assert known not in json.dumps(found[A.account_id, far])


def test_all_keys_are_compared_again_only_when_there_are_others(
    registry: Registry, rows: Any, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of("fleet-related-ec-keys", "P-256: 33 apart")
    encodings = [encoded(item, str(place)) for place, item in enumerate(case.items)]
    right = max(case.weak)
    enter(registry, A, *(one for place, one in enumerate(encodings) if place != right))
    compared: list[int] = []
    run = whole_fleet.Comparison.run

    def counted(self: whole_fleet.Comparison) -> Any:
        compared.append(len(self.pool))
        return run(self)

    monkeypatch.setattr(whole_fleet.Comparison, "run", counted)
    for _ in range(2):
        fleet_search.compare(registry.database, search)
    assert not fleet_search.is_needed(registry.database, search)
    enter(registry, A, encodings[right])
    for _ in range(2):
        fleet_search.compare(registry.database, search)
    assert len(told(rows, "fleet_verdicts", "fleet-related-ec-keys")) == 2
    assert compared == [len(encodings) - 1, len(encodings)]
    assert fleet_search.is_needed(registry.database, replace(search, profile=Profile.DEEP))


def test_all_keys_of_the_server_are_looked_at_once_a_day(
    registry: Registry, rows: Any, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of("fleet-related-ec-keys", "P-256: 33 apart")
    encodings = [encoded(item, str(place)) for place, item in enumerate(case.items)]
    right = max(case.weak)
    server = replace(search, account_id=SERVER)
    enter(registry, A, *(one for place, one in enumerate(encodings) if place != right))
    fleet_search.compare(registry.database, server)
    enter(registry, B, encodings[right])
    fleet_search.compare(registry.database, server)
    assert not rows.all("server_verdicts")
    assert not fleet_search.is_needed(registry.database, server)
    assert fleet_search.is_needed(registry.database, replace(server, profile=Profile.DEEP))
    monkeypatch.setattr(fleet_search, "_REST", 0)
    assert fleet_search.is_needed(registry.database, server)
    fleet_search.compare(registry.database, server)
    assert len(told(rows, "server_verdicts", "fleet-related-ec-keys")) == 2


def test_what_a_check_no_longer_says_goes(registry: Registry, rows: Any, search: Search) -> None:
    case = case_of("fleet-common-prefix", "2048 bits")
    enter(registry, A, *(encoded(item, str(place)) for place, item in enumerate(case.items)))
    fleet_search.compare(registry.database, search)
    assert told(rows, "fleet_verdicts", "fleet-common-prefix")
    for one in ("fleet_verdicts", "fleet_comparisons"):
        assert rows.all(one)
    fleet_search.compare(registry.database, replace(search, profile=Profile.FAST))
    assert told(rows, "fleet_verdicts", "fleet-common-prefix")  # not asked: what was found stays
    with registry.database.write(A) as transaction:
        transaction.execute(schema.certificates.delete())
    enter(registry, A, encoded(case.items[0], "0"))
    fleet_search.compare(registry.database, search)
    assert not rows.all("fleet_verdicts", check_id="fleet-common-prefix")


def test_a_check_that_fails_is_said_and_tried_again(
    registry: Registry, rows: Any, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    related, nonce = case_of("fleet-related-ec-keys", "P-256: 33 apart"), case_of("fleet-signature-nonce", CASES[0][1])
    enter(registry, A, *(encoded(item, str(place)) for place, item in enumerate((*related.items, *nonce.items))))

    def fails(*_given: Any) -> Any:
        raise ValueError("nothing works")

    with monkeypatch.context() as patched:
        patched.setattr(whole_fleet.Comparison, "_learn", fails)
        with pytest.raises(SearchError, match="fleet-related-ec-keys: internal error"):
            fleet_search.compare(registry.database, search)
    assert len(told(rows, "fleet_verdicts", "fleet-signature-nonce")) == 1
    assert fleet_search.is_needed(registry.database, search)
    fleet_search.compare(registry.database, search)
    assert len(told(rows, "fleet_verdicts", "fleet-related-ec-keys")) == 2


def test_audits_report_what_counts(registry: Registry, rows: Any, tmp_path: Path) -> None:
    enable(registry)
    related, alike = case_of("fleet-related-ec-keys", "P-256: 33 apart"), case_of("fleet-common-prefix", "2048 bits")
    nonce = case_of("fleet-signature-nonce", "one nonce twice")
    expected: dict[Classification, set[tuple[str, str]]] = {}
    for case, kind in ((nonce, Classification.BROKEN), (related, Classification.WEAK), (alike, Classification.NOTICE)):
        ids = enter(registry, A, *(encoded(item, f"{kind} {place}") for place, item in enumerate(case.items)))
        code = f"CERTIFICATE_KEY_VULNERABILITY_{case.check.upper().replace('-', '_')}"
        expected[kind] = {(ids[place], code) for place in case.weak}
    wanted: set[tuple[str, str]] = set()
    for level in Classification:
        wanted |= expected[level]
        task = audit(registry, DEVICE_KEYS, fleet_store=tmp_path / "fleet", level=level, batch=100)
        codes = {code for one in expected.values() for _, code in one}
        assert {one for one in findings(rows, task, DEVICE_KEYS) if one[1] in codes} == wanted
    for row in rows.all("audit_findings", task_id=task.row["id"]):
        if (row["resource_key"].partition("=")[2], row["reason_code"]) in wanted:
            assert rows.all("audit_related", finding_id=row["id"])
