"""Revocation lists: who may have signed them, which one stays, what they revoke; on both databases."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import fleet_keys
from authorities_in_tables import enter_authority
from keyassay.registry import revocation
from keyassay.registry.errors import CertificateValidationError, InvalidError, LimitError, NotFoundError
from keyassay.registry.registry import Registry
from revocation_lists import revocation_list
from two_accounts import A, B, Rows


def pem_of(crl: x509.CertificateRevocationList) -> str:
    return crl.public_bytes(Encoding.PEM).decode()


def digest_of(signed: fleet_keys.Signed) -> bytes:
    return hashlib.sha256(signed.certificate.subject.public_bytes()).digest()


def serials(rows: Rows, signed: fleet_keys.Signed, actor: Any = A) -> set[int]:
    """What the account's lists of an issuer revoke."""
    held = rows.all("revocation_lists", account_id=actor.account_id, issuer_digest=digest_of(signed))
    return {entry.serial_number for row in held for entry in x509.load_der_x509_crl(bytes(row["der"]))}


@pytest.mark.parametrize("form", ["pem", "base64"])
def test_a_list_of_a_registered_authority_is_taken(registry: Registry, rows: Rows, form: str) -> None:
    authority = fleet_keys.authority()
    enter_authority(registry, authority)
    crl = revocation_list(authority, [5, 2**150])
    text = pem_of(crl) if form == "pem" else base64.encodebytes(crl.public_bytes(Encoding.DER)).decode()
    made = revocation.upload(registry, A, text)
    assert (made.issuer, made.entries) == ("CN=Fleet CA", 2)
    assert made.source.startswith("upload/")
    assert serials(rows, authority) == {5, 2**150}
    assert serials(rows, authority, B) == set()
    assert rows.operations() == ["UploadRevocationList"]


def test_a_list_has_to_be_signed_by_somebody_known(registry: Registry, rows: Rows) -> None:
    mine, impostor = fleet_keys.authority(), fleet_keys.authority("Fleet CA", 101)
    forged = pem_of(revocation_list(impostor, [5]))
    with pytest.raises(CertificateValidationError, match="name its issuer"):
        revocation.upload(registry, A, forged)
    enter_authority(registry, mine)
    with pytest.raises(CertificateValidationError):
        revocation.upload(registry, A, forged)
    with pytest.raises(CertificateValidationError):
        revocation.upload(registry, A, forged, issuer_pem=mine.pem)
    with pytest.raises(CertificateValidationError):  # registered in the other account
        revocation.upload(registry, B, pem_of(revocation_list(mine, [5])))
    assert rows.all("revocation_lists") == []


def test_the_operator_may_name_an_issuer_that_is_not_registered(registry: Registry, rows: Rows) -> None:
    root = fleet_keys.authority("Root", 105)
    revocation.upload(registry, A, pem_of(revocation_list(root, [9])), issuer_pem=root.pem)
    assert serials(rows, root) == {9}


def test_an_authority_that_may_not_sign_lists_signs_none(registry: Registry) -> None:
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    key = fleet_keys.ec_key(106)
    strict = fleet_keys.certificate("Strict", key, is_authority=True, extensions=((usage, True),))
    leaf = fleet_keys.certificate("Leaf", key)
    for one in (strict, leaf):
        with pytest.raises(CertificateValidationError):
            revocation.upload(registry, A, pem_of(revocation_list(one, [5])), issuer_pem=one.pem)


def test_the_newest_list_stays(registry: Registry, rows: Rows) -> None:
    authority = fleet_keys.authority()
    enter_authority(registry, authority)
    old, new = (revocation_list(authority, numbers, days=days) for numbers, days in (([1], 2), ([1, 2], 1)))
    revocation.upload(registry, A, pem_of(old))
    revocation.upload(registry, A, pem_of(new))
    with pytest.raises(InvalidError, match="newer"):
        revocation.upload(registry, A, pem_of(old))
    revocation.upload(registry, A, pem_of(new))  # the same again
    assert serials(rows, authority) == {1, 2}
    assert len(rows.all("revocation_lists")) == 1
    assert rows.operations() == ["UploadRevocationList"] * 2


def test_two_keys_of_one_name_and_two_parts_have_a_list_each(registry: Registry, rows: Rows) -> None:
    first, second = fleet_keys.authority(), fleet_keys.authority("Fleet CA", 101)
    for one in (first, second):
        enter_authority(registry, one)
    part = x509.IssuingDistributionPoint(
        [x509.UniformResourceIdentifier("http://crl.example/7.crl")], None, only_contains_user_certs=False,
        only_contains_ca_certs=False, only_some_reasons=None, indirect_crl=False, only_contains_attribute_certs=False,
    )  # fmt: skip
    revocation.upload(registry, A, pem_of(revocation_list(first, [1])))
    revocation.upload(registry, A, pem_of(revocation_list(second, [2])))
    revocation.upload(registry, A, pem_of(revocation_list(first, [3], extensions=((part, True),))))
    assert serials(rows, first) == {1, 2, 3}
    assert len({row["source"] for row in rows.all("revocation_lists")}) == 3


def test_what_is_no_whole_list_is_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = fleet_keys.authority()
    enter_authority(registry, authority)
    indirect = x509.IssuingDistributionPoint(
        None, None, only_contains_user_certs=False, only_contains_ca_certs=False, only_some_reasons=None,
        indirect_crl=True, only_contains_attribute_certs=False,
    )  # fmt: skip
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    good = revocation_list(authority, [1])
    for text, message in (
        (pem_of(revocation_list(authority, [1], extensions=((x509.DeltaCRLIndicator(3), True),))), "delta"),
        (pem_of(revocation_list(authority, [1], extensions=((indirect, True),))), "indirect"),
        (pem_of(revocation_list(authority, [1], extensions=((unknown, True),))), "critical extension"),
        (pem_of(revocation_list(authority, [1], days=-3)), "future"),
        ("", "no revocation list"),
        ("AAAA", "no revocation list"),
        ("é" * 10, "no revocation list"),
        (pem_of(good).replace("X509 CRL", "CERTIFICATE"), "no revocation list"),
        (base64.b64encode(good.public_bytes(Encoding.DER)[:-5]).decode(), "no revocation list"),
    ):
        with pytest.raises(InvalidError, match=message):
            revocation.upload(registry, A, text)
    monkeypatch.setattr(revocation, "LARGEST_LIST", 100)
    with pytest.raises(InvalidError, match="at most"):
        revocation.upload(registry, A, pem_of(good))
    monkeypatch.undo()
    monkeypatch.setattr(revocation, "LISTS", 0)
    with pytest.raises(LimitError):
        revocation.upload(registry, A, pem_of(good))


def test_lists_are_paged_and_deleted(registry: Registry) -> None:
    authorities = [fleet_keys.authority(f"CA {number}", 110 + number) for number in range(12)]
    for one in authorities:
        enter_authority(registry, one)
        revocation.upload(registry, A, pem_of(revocation_list(one, [1])))
    first = revocation.listed(registry, A, size=250)
    assert len(first.rows) == 10
    rest = revocation.listed(registry, A, token=first.next_token)
    assert rest.next_token is None
    every = [*first.rows, *rest.rows]
    assert {one.issuer for one in every} == {f"CN=CA {number}" for number in range(12)}
    assert list(revocation.listed(registry, B).rows) == []
    with pytest.raises(NotFoundError):
        revocation.remove(registry, B, every[0].id)
    revocation.remove(registry, A, every[0].id)
    with pytest.raises(NotFoundError):
        revocation.remove(registry, A, every[0].id)
    assert len(revocation.listed(registry, A).rows) == 10
