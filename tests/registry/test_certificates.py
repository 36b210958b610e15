"""Registering, describing, listing, changing and deleting device certificates, on both databases."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import update

import fleet_keys
from keyassay.registry import certificates
from keyassay.registry.errors import (
    AlreadyExistsError,
    BrokenKeyError,
    CertificateConflictError,
    CertificateStateError,
    CertificateValidationError,
    DeleteConflictError,
    InvalidError,
    NotFoundError,
)
from keyassay.registry.lifecycle import SETTABLE, Status
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from keyassay.storage.database import Transaction
from two_accounts import A, B, Rows


def enter_authority(
    registry: Registry, signed: fleet_keys.Signed, status: str = "ACTIVE", mode: str = "DEFAULT"
) -> str:
    """Put an authority into the table, as its registration does."""
    der = signed.certificate.public_bytes(Encoding.DER)
    row = {
        "account_id": A.account_id, "id": signed.id, "status": status, "mode": mode, "der": der,
        "subject_digest": hashlib.sha256(signed.certificate.subject.public_bytes()).digest(), "spki_digest": b"",
        "auto_registration": False, "not_before": 0, "not_after": 1, "created_at": 0, "modified_at": 0,
        "customer_version": 1, "generation_id": "",
    }  # fmt: skip
    with registry.database.engine.begin() as connection:
        connection.execute(schema.authorities.insert().values(row))
    return signed.id


def test_a_certificate_enters_inactive_with_the_digest_of_its_bytes_as_id(registry: Registry, rows: Rows) -> None:
    one = fleet_keys.device()
    found = certificates.register_without_authority(registry, A, one.pem)
    assert found.id == one.id
    assert found.arn == f"arn:aws:iot:us-east-1:111111111111:cert/{one.id}"
    row = certificates.describe(registry, A, one.id)
    assert (row["status"], row["mode"], row["customer_version"]) == ("INACTIVE", "SNI_ONLY", 1)
    assert row["not_after"] == int(one.certificate.not_valid_after_utc.timestamp()) * 1000
    assert bytes(row["der"]) == one.certificate.public_bytes(Encoding.DER)
    assert rows.operations() == ["RegisterCertificateWithoutCA"]


def test_accounts_do_not_see_each_other(registry: Registry) -> None:
    one = fleet_keys.device()
    certificates.register_without_authority(registry, A, one.pem)
    with pytest.raises(NotFoundError):
        certificates.describe(registry, B, one.id)
    for attempt in (
        lambda: certificates.set_status(registry, B, one.id, "REVOKED"),
        lambda: certificates.remove(registry, B, one.id),
    ):
        with pytest.raises(NotFoundError):
            attempt()
    certificates.register_without_authority(registry, B, one.pem, status="ACTIVE")  # each has its own
    assert certificates.describe(registry, A, one.id)["status"] == "INACTIVE"


def test_the_same_certificate_twice_names_the_first(registry: Registry, rows: Rows) -> None:
    one = fleet_keys.device()
    first = certificates.register_without_authority(registry, A, one.pem)
    with pytest.raises(AlreadyExistsError) as raised:
        certificates.register_without_authority(registry, A, one.pem, status="ACTIVE")
    assert (raised.value.resource_id, raised.value.resource_arn) == (one.id, first.arn)
    assert rows.operations() == ["RegisterCertificateWithoutCA"]


@pytest.mark.parametrize("named", [False, True])
def test_the_authority_is_found_by_name_and_signature(registry: Registry, named: bool) -> None:
    mine, impostor = fleet_keys.authority(), fleet_keys.authority("Fleet CA", 101)
    enter_authority(registry, impostor)
    enter_authority(registry, mine, mode="SNI_ONLY")
    one = fleet_keys.device(issuer=mine)
    certificates.register(registry, A, one.pem, authority_pem=mine.pem if named else None, status="ACTIVE")
    row = certificates.describe(registry, A, one.id)
    assert (row["ca_certificate_id"], row["mode"], row["status"]) == (mine.id, "SNI_ONLY", "ACTIVE")
    other = fleet_keys.device(issuer=mine)
    with pytest.raises(CertificateValidationError):
        certificates.register(registry, A, other.pem, authority_pem=impostor.pem)
    with pytest.raises(CertificateValidationError):  # registered in A only
        certificates.register(registry, B, other.pem)


def test_two_authorities_of_one_key_are_a_conflict_until_one_is_named(registry: Registry) -> None:
    key = fleet_keys.ec_key(7)
    twins = [fleet_keys.certificate("Twin CA", key, is_authority=True) for _ in range(2)]
    for twin in twins:
        enter_authority(registry, twin)
    one = fleet_keys.device(issuer=twins[0])
    with pytest.raises(CertificateConflictError):
        certificates.register(registry, A, one.pem)
    certificates.register(registry, A, one.pem, authority_pem=twins[1].pem)
    assert certificates.describe(registry, A, one.id)["ca_certificate_id"] == twins[1].id


def test_an_inactive_authority_registers_nothing(registry: Registry) -> None:
    enter_authority(registry, fleet_keys.authority(), status="INACTIVE")
    with pytest.raises(CertificateStateError):
        certificates.register(registry, A, fleet_keys.device().pem)


def test_what_does_not_enter(registry: Registry, rows: Rows) -> None:
    ed = ed25519.Ed25519PrivateKey.generate()
    refused = [
        fleet_keys.device(days=(-10, -1)),
        fleet_keys.device(key=fleet_keys.rsa_key(bits=1024)),
        fleet_keys.device(key=ec.generate_private_key(ec.SECP256K1())),
        fleet_keys.device(key=ed),
        fleet_keys.device(algorithm=hashes.SHA224()),
        fleet_keys.device(issuer=fleet_keys.certificate("RSA CA", fleet_keys.rsa_key(), is_authority=True),
                          algorithm=hashes.SHA224()),
    ]  # fmt: skip
    for one in refused:
        with pytest.raises(CertificateValidationError):
            certificates.register_without_authority(registry, A, one.pem)
    good = fleet_keys.device()
    for text in (
        "",
        "nonsense",
        good.pem + good.pem,
        good.pem.replace("MII", "MIJ", 1),
        "\x00" + "é" * 10,
        "x" * 70_000,
    ):
        with pytest.raises(InvalidError):
            certificates.register_without_authority(registry, A, text)
    assert rows.all("certificates") == []
    assert rows.operations() == []
    certificates.register_without_authority(registry, A, fleet_keys.device(days=(5, 9)).pem)  # not valid yet: enters


@pytest.mark.parametrize("status", ["PENDING_TRANSFER", "PENDING_ACTIVATION", "REGISTER_INACTIVE", "active", ""])
def test_statuses_that_cannot_be_asked_for(registry: Registry, status: str) -> None:
    one = fleet_keys.device()
    with pytest.raises(InvalidError):
        certificates.register_without_authority(registry, A, one.pem, status=status)
    certificates.register_without_authority(registry, A, one.pem)
    with pytest.raises(InvalidError):
        certificates.set_status(registry, A, one.id, status)
    with pytest.raises(InvalidError):
        certificates.initial_status("INACTIVE", set_as_active=True)


def put(registry: Registry, certificate_id: str, **values: object) -> None:
    with registry.database.engine.begin() as connection:
        connection.execute(
            update(schema.certificates).where(schema.certificates.c.id == certificate_id).values(**values)
        )


@pytest.mark.parametrize("present", list(Status))
@pytest.mark.parametrize("new", sorted(SETTABLE))
def test_the_table_of_statuses(registry: Registry, rows: Rows, present: Status, new: Status) -> None:
    one = fleet_keys.device()
    certificates.register_without_authority(registry, A, one.pem)
    put(registry, one.id, status=present.value, modified_at=5)
    forbidden = present is Status.PENDING_TRANSFER or (present is Status.REVOKED and new is not Status.REVOKED)
    if forbidden:
        with pytest.raises(CertificateStateError):
            certificates.set_status(registry, A, one.id, new)
        assert certificates.describe(registry, A, one.id)["status"] == present
        return
    for _ in range(2):  # the second time nothing happens
        certificates.set_status(registry, A, one.id, new)
    row = certificates.describe(registry, A, one.id)
    changed = present is not new
    assert row["status"] == new
    assert row["customer_version"] == 1 + changed
    assert (row["modified_at"] > 5) == changed
    assert rows.operations()[1:] == ["UpdateCertificate"] * changed


def test_deleting(registry: Registry, rows: Rows) -> None:
    one = fleet_keys.device()
    certificates.register_without_authority(registry, A, one.pem, status="ACTIVE")
    for force in (False, True):
        with pytest.raises(CertificateStateError):
            certificates.remove(registry, A, one.id, force=force)
    put(registry, one.id, status="PENDING_TRANSFER")
    with pytest.raises(CertificateStateError):
        certificates.remove(registry, A, one.id, force=True)
    put(registry, one.id, status="REVOKED")
    with registry.database.engine.begin() as connection:
        mine = {"account_id": A.account_id}
        attached = {"target": f"cert/{one.id}", "policy_name": "p", "attached_at": 0}
        connection.execute(schema.policy_attachments.insert().values(**mine, **attached))
        principal = {"thing_name": "t", "certificate_id": one.id, "exclusive": False, "attached_at": 0}
        connection.execute(schema.thing_principals.insert().values(**mine, **principal))
    for force in (False, True):
        with pytest.raises(DeleteConflictError, match="things"):
            certificates.remove(registry, A, one.id, force=force)
    with registry.database.engine.begin() as connection:
        connection.execute(schema.thing_principals.delete())
    with pytest.raises(DeleteConflictError, match="policies"):
        certificates.remove(registry, A, one.id)
    certificates.remove(registry, A, one.id, force=True)
    assert rows.all("certificates") == rows.all("policy_attachments") == []
    with pytest.raises(NotFoundError):
        certificates.remove(registry, A, one.id)
    certificates.register_without_authority(registry, A, one.pem)  # and it may come again


def test_lists_by_creation_with_what_is_coming_in(registry: Registry) -> None:
    ids = [
        certificates.register_without_authority(registry, A, fleet_keys.device(f"d{number}").pem).id
        for number in range(5)
    ]
    for place, one in enumerate(ids):
        put(registry, one, created_at=100 + place // 2)  # equal dates too
    foreign = certificates.register_without_authority(registry, B, fleet_keys.device("foreign").pem).id
    put(registry, foreign, created_at=101, status="PENDING_TRANSFER", transfer_target=A.account_id)
    wanted = sorted([(100 + place // 2, one) for place, one in enumerate(ids)] + [(101, foreign)])
    for ascending in (True, False):
        found: list[str] = []
        token = None
        while True:
            page = certificates.listed(registry, A, token=token, size=2, ascending=ascending)
            found += [row["id"] for row in page.rows]
            token = page.next_token
            if token is None:
                break
        assert found == [one for _, one in sorted(wanted, reverse=not ascending)]
    assert certificates.describe(registry, A, foreign)["status"] == "PENDING_TRANSFER"
    first = certificates.listed(registry, A, size=2)
    for attempt in (
        lambda: certificates.listed(registry, B, token=first.next_token),
        lambda: certificates.listed(registry, A, token=first.next_token, ascending=True),
        lambda: certificates.listed(registry, A, token="AAAA"),
    ):
        with pytest.raises(InvalidError):
            attempt()


def test_a_screen_may_refuse(registry: Registry, rows: Rows) -> None:
    class Strict:
        def examine(self, spki: bytes) -> object:
            return hashlib.sha256(spki).digest()

        def record(self, transaction: Transaction, certificate_id: str, subject: bytes, examined: object) -> None:
            row = certificates.find(transaction.connection, transaction.account_id, certificate_id)
            assert bytes(row["spki_digest"]) == examined
            assert subject == fleet_keys.name("device").public_bytes()
            raise BrokenKeyError("its key can be computed")

    strict = Registry(registry.database, registry.seal, screening=Strict())
    with pytest.raises(CertificateValidationError, match="computed"):
        certificates.register_without_authority(strict, A, fleet_keys.device().pem)
    assert rows.all("certificates") == []
    assert rows.operations() == []


@pytest.mark.parametrize("bad", ["", "ab", "G" * 64, "A" * 64, "a" * 65])
def test_ids_that_are_none(registry: Registry, bad: str) -> None:
    for attempt in (certificates.describe, certificates.remove):
        with pytest.raises(InvalidError):
            attempt(registry, A, bad)
