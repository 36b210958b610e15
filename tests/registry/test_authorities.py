"""Authorities: proof of possession, one account for each, what may be changed and deleted; on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

import fleet_keys
from keyassay.registry import authorities, certificates, tags
from keyassay.registry.errors import (
    AlreadyExistsError,
    CertificateStateError,
    CertificateValidationError,
    InvalidError,
    LimitError,
    NotFoundError,
    RegistrationCodeError,
)
from keyassay.registry.registry import Registry
from two_accounts import A, B, Rows

CA = fleet_keys.authority()


def proof(registry: Registry, authority: fleet_keys.Signed = CA, actor=A, **more) -> str:
    """A verification certificate."""
    code = authorities.registration_code(registry, actor)
    return fleet_keys.device(more.pop("name", code), issuer=authority, **more).pem


def enter(registry: Registry, authority: fleet_keys.Signed = CA, actor=A, **more) -> str:
    verification = proof(registry, authority, actor)
    return authorities.register(registry, actor, authority.pem, verification_pem=verification, **more).id


def test_the_registration_code_stays_until_it_is_deleted(registry: Registry) -> None:
    codes = [authorities.registration_code(registry, A) for _ in range(2)]
    assert codes[0] == codes[1]
    assert len(codes[0]) == 64
    assert authorities.registration_code(registry, B) != codes[0]
    stale = proof(registry)
    authorities.delete_registration_code(registry, A)
    with pytest.raises(RegistrationCodeError):
        authorities.register(registry, A, CA.pem, verification_pem=stale)
    assert authorities.registration_code(registry, A) != codes[0]
    with pytest.raises(RegistrationCodeError):
        authorities.register(registry, A, CA.pem, verification_pem=stale)


def test_an_authority_enters_with_proof_and_its_devices_follow(registry: Registry, rows: Rows) -> None:
    config = {"roleArn": "arn:aws:iam::111111111111:role/x", "templateBody": "{}"}
    authority_id = enter(registry, set_as_active=True, auto_registration=True, registration_config=config)
    row = authorities.describe(registry, A, authority_id)
    assert (authority_id, row["status"], row["mode"], row["auto_registration"]) == (CA.id, "ACTIVE", "DEFAULT", True)
    assert row["registration_config"] == config
    one = fleet_keys.device()
    certificates.register(registry, A, one.pem)
    assert [row["id"] for row in certificates.listed(registry, A, authority_id=CA.id).rows] == [one.id]
    assert rows.operations() == ["RegisterCACertificate", "RegisterCertificate"]


def test_proofs_that_do_not_hold(registry: Registry, rows: Rows) -> None:
    impostor = fleet_keys.authority("Fleet CA", 101)  # same name, another key
    for verification, error in (
        (None, InvalidError),
        ("nonsense", InvalidError),
        (proof(registry, impostor), CertificateValidationError),
        (proof(registry, days=(-9, -1)), CertificateValidationError),
        (proof(registry, name="somebody"), RegistrationCodeError),
        (proof(registry, actor=B), RegistrationCodeError),
    ):
        with pytest.raises(error):
            authorities.register(registry, A, CA.pem, verification_pem=verification)
    with pytest.raises(InvalidError):
        authorities.register(registry, A, CA.pem, verification_pem=proof(registry), mode="SNI_ONLY")
    assert rows.all("authorities") == []


def test_certificates_that_are_no_authorities(registry: Registry) -> None:
    key = fleet_keys.ec_key(5)
    forged = fleet_keys.certificate("Self", key, issuer=fleet_keys.Signed(
        fleet_keys.certificate("Self", fleet_keys.ec_key(6), is_authority=True).certificate, fleet_keys.ec_key(6)
    ), is_authority=True)  # fmt: skip
    for wrong in (
        fleet_keys.certificate("leaf", key),
        fleet_keys.certificate("old", key, is_authority=True, days=(-9, -1)),
        fleet_keys.certificate("small", fleet_keys.rsa_key(bits=1024), is_authority=True),
        forged,
    ):
        with pytest.raises(CertificateValidationError):
            authorities.register(registry, A, wrong.pem, mode="SNI_ONLY")


def test_one_account_holds_a_default_authority(registry: Registry) -> None:
    enter(registry)
    with pytest.raises(AlreadyExistsError) as raised:
        enter(registry)
    assert raised.value.resource_id == CA.id
    for mode in ("DEFAULT", "SNI_ONLY"):
        with pytest.raises(AlreadyExistsError):
            authorities.register(
                registry, B, CA.pem, mode=mode, verification_pem=proof(registry, actor=B) if mode == "DEFAULT" else None
            )
    other = fleet_keys.authority("Shared CA", 102)
    for actor in (A, B):
        authorities.register(registry, actor, other.pem, mode="SNI_ONLY")
    with pytest.raises(AlreadyExistsError):
        enter(registry, other, A)


def test_two_accounts_at_once_cannot_both_have_it(registry: Registry) -> None:
    proofs = {actor: proof(registry, actor=actor) for actor in (A, B)}

    def attempt(actor) -> bool:
        try:
            authorities.register(registry, actor, CA.pem, verification_pem=proofs[actor])
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(attempt, (A, B))) == [False, True]


def test_ten_of_a_subject(registry: Registry) -> None:
    for number in range(11):
        one = fleet_keys.certificate("Many CA", fleet_keys.ec_key(200 + number), is_authority=True)
        if number < 10:
            authorities.register(registry, A, one.pem, mode="SNI_ONLY")
        else:
            with pytest.raises(LimitError):
                authorities.register(registry, A, one.pem, mode="SNI_ONLY")
    authorities.register(registry, B, one.pem, mode="SNI_ONLY")
    found: list[str] = []
    token = None
    while True:
        page = authorities.listed(registry, A, token=token, size=3, ascending=True)
        found += [row["id"] for row in page.rows]
        token = page.next_token
        if token is None:
            break
    assert len(set(found)) == len(found) == 10


def test_changing_and_deleting(registry: Registry, rows: Rows) -> None:
    enter(registry, set_as_active=True, auto_registration=True, registration_config={"roleArn": "x"}, tags={"a": "b"})
    with pytest.raises(CertificateStateError):
        authorities.remove(registry, A, CA.id)
    one = fleet_keys.device()
    certificates.register(registry, A, one.pem, status="ACTIVE")
    for actor in (B,):
        with pytest.raises(NotFoundError):
            authorities.change(registry, actor, CA.id, status="INACTIVE")
    with pytest.raises(InvalidError):
        authorities.change(registry, A, CA.id, auto_registration=True, remove_auto_registration=True)
    authorities.change(registry, A, CA.id, remove_auto_registration=True)
    row = authorities.describe(registry, A, CA.id)
    assert (row["auto_registration"], row["registration_config"], row["customer_version"]) == (False, None, 2)
    for _ in range(2):
        authorities.change(registry, A, CA.id, status="INACTIVE", auto_registration=True)
    row = authorities.describe(registry, A, CA.id)
    assert (row["status"], row["auto_registration"], row["customer_version"]) == ("INACTIVE", True, 3)
    assert certificates.describe(registry, A, one.id)["status"] == "ACTIVE"
    authorities.remove(registry, A, CA.id)
    assert rows.all("tags") == []
    assert certificates.describe(registry, A, one.id)["ca_certificate_id"] == CA.id
    with pytest.raises(NotFoundError):
        authorities.describe(registry, A, CA.id)
    enter(registry, actor=B)  # it is free again


def test_tags(registry: Registry) -> None:
    enter(registry)
    arn = registry.arn(A.account_id, f"cacert/{CA.id}")
    tags.tag(registry, A, arn, {"Team": "x", "team": "", "n": "1"})
    tags.tag(registry, A, arn, {"Team": "y"})
    tags.untag(registry, A, arn, ["n", "absent"])
    assert [(row["name"], row["value"]) for row in tags.tags_of(registry, A, arn).rows] == [("Team", "y"), ("team", "")]
    with pytest.raises(InvalidError):
        tags.tag(registry, A, arn, {"aws:x": "y"})
    tags.tag(registry, A, arn, {f"k{number}": "" for number in range(48)})
    with pytest.raises(LimitError):
        tags.tag(registry, A, arn, {"one more": ""})
    tags.tag(registry, A, arn, {"k1": "overwritten"})
    with pytest.raises(NotFoundError):
        tags.tag(registry, A, registry.arn(A.account_id, f"cacert/{'0' * 64}"), {"a": "b"})
    for foreign in (
        registry.arn(B.account_id, f"cacert/{CA.id}"),
        arn.replace("us-east-1", "eu-west-1"),
        registry.arn(A.account_id, f"cert/{CA.id}"),
        "nonsense",
    ):
        with pytest.raises(InvalidError):
            tags.tag(registry, A, foreign, {"a": "b"})
    with pytest.raises(InvalidError, match="twice"):
        tags.as_mapping([{"Key": "a", "Value": "b"}, {"Key": "a", "Value": "c"}])
