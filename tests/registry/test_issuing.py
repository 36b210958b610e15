"""Issuing: the account's own authority, certificates for requests, key pairs for devices; on both databases."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

import fleet_keys
from issuing_requests import authority_of, certificate_of, request
from keyassay.errors import KeyassayError
from keyassay.registry import certificates, issuing
from keyassay.registry.errors import AlreadyExistsError, CertificateValidationError, InvalidError, NotFoundError
from keyassay.registry.registry import Registry
from live_server import client, running
from two_accounts import A, B, Rows


def forms_of(key: Any) -> list[bytes]:
    """What a private key may look like in a table: its numbers, its encodings."""
    numbers = key.private_numbers()
    private = [numbers.d, numbers.p, numbers.q] if isinstance(key, rsa.RSAPrivateKey) else [numbers.private_value]
    forms = [number.to_bytes((number.bit_length() + 7) // 8, "big") for number in private]
    forms += [form.hex().encode() for form in forms] + [str(number).encode() for number in private]
    forms += [
        key.private_bytes(encoding, form, NoEncryption())
        for encoding in (Encoding.DER, Encoding.PEM)
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)
    ]
    return forms


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_certificate_for_a_request_holds(registry: Registry, tmp_path: Path, rows: Rows, kind: str) -> None:
    key = fleet_keys.rsa_key(2) if kind == "rsa" else fleet_keys.ec_key(2)
    issued = issuing.certify_request(registry, A, request("sensor-1", key), set_as_active=True)
    made, authority = certificate_of(issued), authority_of(registry)
    made.verify_directly_issued_by(authority)
    (tmp_path / "ca.pem").write_text(issuing.issuer_pem(registry, A))
    (tmp_path / "device.pem").write_text(issued.certificate_pem)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca.pem", "device.pem"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "device.pem: OK", done.stderr
    assert made.subject == fleet_keys.name("sensor-1")
    assert made.public_key().public_numbers() == key.public_key().public_numbers()  # type: ignore[union-attr]
    assert made.serial_number.bit_length() > 64
    assert made.not_valid_after_utc == datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert timedelta(0) < datetime.now(UTC) - made.not_valid_before_utc < timedelta(minutes=10)
    value = lambda kind: made.extensions.get_extension_for_class(kind).value  # noqa: E731
    assert value(x509.BasicConstraints).ca is False
    usage = value(x509.KeyUsage)
    assert (usage.digital_signature, usage.key_encipherment, usage.key_cert_sign) == (True, kind == "rsa", False)
    assert list(value(x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    mine = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert value(x509.AuthorityKeyIdentifier).key_identifier == mine.key_identifier
    with pytest.raises(x509.ExtensionNotFound):
        value(x509.CRLDistributionPoints)
    row = certificates.describe(registry, A, issued.registered.id)
    assert (row["status"], row["mode"]) == ("ACTIVE", "DEFAULT")
    assert bytes(row["der"]) == made.public_bytes(Encoding.DER)
    assert (issued.private_key_pem, issued.public_key_pem) == ("", "")
    assert rows.operations() == ["CreateIssuer", "CreateCertificateFromCsr"]


def test_the_authority_may_sign_certificates_and_lists_and_no_further_authority(registry: Registry) -> None:
    issuer = issuing.make_issuer(registry, A, common_name="Plant 3")
    authority = authority_of(registry)
    assert (issuer.subject, issuer.active) == ("CN=Plant 3", True)
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    usage = authority.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert usage.crl_sign
    assert authority.not_valid_after_utc.year == 2049
    key = authority.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)


def test_two_certificates_for_one_request(registry: Registry, rows: Rows) -> None:
    pem = request("sensor-1", fleet_keys.ec_key(2))
    first, second = (issuing.certify_request(registry, A, pem) for _ in range(2))
    assert first.registered.id != second.registered.id
    assert certificate_of(first).serial_number != certificate_of(second).serial_number
    assert len(rows.all("issuers")) == 1  # the first made the authority
    assert {row["status"] for row in rows.all("certificates")} == {"INACTIVE"}


def test_each_account_has_its_own_authority(registry: Registry) -> None:
    for actor in (A, B):
        issuing.certify_request(registry, actor, request("sensor-1", fleet_keys.ec_key(2)))
    assert authority_of(registry) != authority_of(registry, actor=B)
    with pytest.raises(NotFoundError):
        issuing.issuer_pem(registry, B, issuing.issuers(registry, A)[0].id)


def test_a_pair_of_keys_is_returned_once_and_stored_nowhere(registry: Registry) -> None:
    issued = issuing.make_keys(registry, A, set_as_active=True)
    key = load_pem_private_key(issued.private_key_pem.encode(), None)
    assert issued.private_key_pem.startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert isinstance(key, rsa.RSAPrivateKey)
    assert (key.key_size, key.public_key().public_numbers().e) == (2048, 65537)
    spki = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert issued.public_key_pem == spki
    assert certificate_of(issued).public_key() == key.public_key()
    certificate_of(issued).verify_directly_issued_by(authority_of(registry))
    tables = Rows(registry.database).everything()
    assert key.public_key().public_numbers().n.to_bytes(256, "big") in tables  # it looks where keys would be
    for form in forms_of(key):
        assert form not in tables
    assert "PRIVATE" not in repr(issued)


def test_the_authority_s_key_is_sealed_in_every_table(registry: Registry, rows: Rows) -> None:
    issuer = issuing.make_issuer(registry, A)
    (row,) = rows.all("issuers")
    opened = registry.seal.open(bytes(row["sealed_key"]), issuing.key_place(A.account_id, issuer.id))
    key = load_der_private_key(opened, None)
    assert key.public_key() == authority_of(registry).public_key()
    tables = Rows(registry.database).everything()
    for form in forms_of(key):
        assert form not in tables
    with pytest.raises(KeyassayError):  # it opens in its own place only
        registry.seal.open(bytes(row["sealed_key"]), issuing.key_place(B.account_id, issuer.id))


def _tampered(pem: str) -> str:
    """The request with the last byte of its signature changed."""
    der = bytearray(x509.load_pem_x509_csr(pem.encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM).decode()


def test_requests_that_are_refused(registry: Registry, rows: Rows) -> None:
    good = request("sensor-1", fleet_keys.ec_key(2))
    refused = {
        "a bad signature": (_tampered(good), "signature"),
        "a short key": (request("x", fleet_keys.rsa_key(1, 1024)), "2048"),
        "another curve": (request("x", ec.generate_private_key(ec.SECP256K1())), "curve"),
        "another type": (_ed25519(), "type"),
        "no request": (fleet_keys.device().pem, "no certificate signing request"),
        "nothing": ("", "no certificate signing request"),
        "no text": ("\ud800", "no certificate signing request"),
        "DER": (good.replace("-----", ""), "no certificate signing request"),
        "too much": ("A" * 70_000, "at most"),
    }
    for what, (pem, message) in refused.items():
        with pytest.raises(InvalidError, match=message):
            issuing.certify_request(registry, A, pem)
        assert rows.all("certificates") == [], what
    assert rows.all("issuers") == []


def _ed25519() -> str:
    key = ed25519.Ed25519PrivateKey.generate()
    builder = x509.CertificateSigningRequestBuilder().subject_name(fleet_keys.name("x"))
    return builder.sign(key, None).public_bytes(Encoding.PEM).decode()


def test_extensions_that_a_request_asks_for_are_not_granted(registry: Registry) -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(fleet_keys.name("x"))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("broker.example")]), critical=False)
    pem = builder.sign(fleet_keys.ec_key(2), hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    made = certificate_of(issuing.certify_request(registry, A, pem))
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    with pytest.raises(x509.ExtensionNotFound):
        made.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_rotation_issues_with_the_new_authority_and_keeps_the_old(registry: Registry, rows: Rows) -> None:
    first = issuing.certify_request(registry, A, request("one", fleet_keys.ec_key(2)))
    old = authority_of(registry)
    new = issuing.make_issuer(registry, A)
    second = issuing.certify_request(registry, A, request("two", fleet_keys.ec_key(2)))
    certificate_of(second).verify_directly_issued_by(authority_of(registry, new.id))
    certificate_of(first).verify_directly_issued_by(old)
    known = issuing.issuers(registry, A)
    assert {one.id: one.active for one in known} == {new.id: True, old.fingerprint(hashes.SHA256()).hex(): False}
    assert issuing.issuers(registry, B) == []
    assert rows.operations().count("CreateIssuer") == 2


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_an_authority_that_was_made_elsewhere(registry: Registry, kind: str) -> None:
    key = fleet_keys.rsa_key(5) if kind == "rsa" else fleet_keys.ec_key(140)
    mine = fleet_keys.certificate("Elsewhere", key, is_authority=True, days=(-10, 100))
    password = b"secret" if kind == "rsa" else None
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    imported = issuing.import_issuer(registry, A, mine.pem, key_pem, password)
    assert (imported.id, imported.subject) == (mine.id, "CN=Elsewhere")
    made = certificate_of(issuing.certify_request(registry, A, request("x", fleet_keys.ec_key(2))))
    made.verify_directly_issued_by(mine.certificate)
    assert made.not_valid_after_utc == mine.certificate.not_valid_after_utc  # never longer than its authority
    with pytest.raises(AlreadyExistsError):
        issuing.import_issuer(registry, A, mine.pem, key_pem, password)
    for form in forms_of(key):
        assert form not in Rows(registry.database).everything()


def test_what_is_not_imported(registry: Registry, rows: Rows) -> None:
    mine = fleet_keys.authority()
    key_pem = mine.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    locked = mine.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    other = fleet_keys.ec_key(99).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    strange = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    leaf = fleet_keys.certificate("leaf", mine.key)
    expired = fleet_keys.certificate("old", mine.key, is_authority=True, days=(-10, -1))
    for pem, key, password, kind in (
        (mine.pem, other, None, InvalidError),
        (mine.pem, locked, None, InvalidError),
        (mine.pem, locked, b"y", InvalidError),
        (mine.pem, key_pem, b"y", InvalidError),
        (mine.pem, b"nothing", None, InvalidError),
        (mine.pem, strange, None, InvalidError),
        ("nothing", key_pem, None, InvalidError),
        (leaf.pem, key_pem, None, CertificateValidationError),
        (expired.pem, key_pem, None, CertificateValidationError),
    ):
        with pytest.raises(kind):
            issuing.import_issuer(registry, A, pem, key, password)
    assert rows.all("issuers") == []


def test_the_public_address_is_in_what_is_issued(registry: Registry) -> None:
    public = Registry(registry.database, registry.seal, public_url="https://ca.example/pki/")
    made = certificate_of(issuing.certify_request(public, A, request("x", fleet_keys.ec_key(2))))
    base = f"https://ca.example/pki/{A.account_id}/{issuing.issuers(public, A)[0].id}"
    (point,) = made.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert [name.value for name in point.full_name] == [f"{base}.crl"]
    (access,) = made.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert access.access_location.value == f"{base}/ocsp"


def test_issuing_by_boto3(database_url: str, tmp_path: Path) -> None:
    with running(tmp_path, database=database_url) as server:
        api = client(server)
        made = api.create_keys_and_certificate(setAsActive=True)
        key = load_pem_private_key(made["keyPair"]["PrivateKey"].encode(), None)
        certificate = x509.load_pem_x509_certificate(made["certificatePem"].encode())
        assert certificate.public_key() == key.public_key()
        described = api.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]
        assert (described["status"], described["certificateArn"]) == ("ACTIVE", made["certificateArn"])
        assert described["certificatePem"] == made["certificatePem"]
        pem = request("sensor-1", fleet_keys.ec_key(2))
        ids = {api.create_certificate_from_csr(certificateSigningRequest=pem)["certificateId"] for _ in range(2)}
        assert len(ids) == 2
        with pytest.raises(api.exceptions.InvalidRequestException):
            api.create_certificate_from_csr(certificateSigningRequest=_tampered(pem))
        assert {one["certificateId"] for one in api.list_certificates()["certificates"]} == ids | {
            made["certificateId"]
        }
