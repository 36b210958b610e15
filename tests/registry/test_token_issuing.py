"""Issuing authorities whose keys are in a token: certificates, revocation lists and OCSP answers that openssl verifies,
rotation there and back, and what is kept of them; on both databases."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp as library
from sqlalchemy import update

import fleet_keys
from issuing_requests import authority_of, certificate_of, request
from keyassay.errors import KeyassayError
from keyassay.registry import certificates, issuing, ocsp, status_lists, token_keys
from keyassay.registry.errors import (
    AlreadyExistsError,
    CertificateValidationError,
    InvalidError,
    SigningUnavailableError,
)
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from soft_token import SoftToken
from two_accounts import A, B, Rows


def issue(registry: Registry, name: str = "one") -> x509.Certificate:
    pem = request(name, fleet_keys.ec_key(1))
    return certificate_of(issuing.certify_request(registry, A, pem, set_as_active=True))


def revoke(registry: Registry, one: x509.Certificate) -> None:
    certificates.set_status(registry, A, one.fingerprint(hashes.SHA256()).hex(), "REVOKED")


def openssl(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def check_all(registry: Registry, folder: Path, issuer_id: str, one: x509.Certificate, *, chain: str = "") -> None:
    """What the authority signs, verified by openssl: a certificate, both lists, an OCSP answer; before and after."""
    (folder / "ca.pem").write_text(issuing.issuer_pem(registry, A, issuer_id) + chain)
    (folder / "one.pem").write_bytes(one.public_bytes(Encoding.PEM))
    anchors = ("-CAfile", "ca.pem")
    assert "one.pem: OK" in openssl(folder, "verify", "-x509_strict", "-purpose", "sslclient", *anchors, "one.pem")
    for expected in ("good", "revoked"):
        status_lists.sign(registry, A.account_id, issuer_id)
        for kind in (status_lists.COMPLETE, status_lists.DELTA):
            with registry.database.read() as connection:
                made = status_lists.stored(connection, A.account_id, issuer_id, kind)
            assert made is not None
            (folder / f"{kind}.der").write_bytes(made.der)
            shown = openssl(folder, "crl", "-inform", "DER", "-in", f"{kind}.der", "-noout", *anchors)
            assert "verify OK" in shown
            serials = [entry.serial_number for entry in x509.load_der_x509_crl(made.der)]
            assert serials == ([one.serial_number] if expected == "revoked" else [])
        asked = ("ocsp", "-issuer", "ca.pem", "-cert", "one.pem")
        openssl(folder, *asked, "-reqout", "request.der")
        answer = ocsp.Responder(registry).answer(A.account_id, issuer_id, (folder / "request.der").read_bytes())
        (folder / "answer.der").write_bytes(answer.der)
        shown = openssl(folder, *asked, "-respin", "answer.der", *anchors, "-no_nonce")
        assert "Response verify OK" in shown
        assert f"one.pem: {expected}" in shown
        if expected == "good":
            revoke(registry, one)


def test_an_authority_whose_key_is_made_in_the_token(
    registry: Registry, token: SoftToken, tmp_path: Path, rows: Rows
) -> None:
    made = issuing.make_token_issuer(registry, A, token.uri("ca-2026"), common_name="Plant 3")
    certificate = authority_of(registry)
    assert (made.subject, made.active) == ("CN=Plant 3", True)
    assert "object=ca-2026;id=%" in made.key_uri
    assert issuing.issuers(registry, A) == [made]
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    (row,) = rows.all("changes", operation="CreateIssuer")
    assert row["details"] == {"key": "token"}
    check_all(registry, tmp_path, made.id, issue(registry))
    device = issuing.make_keys(registry, A)
    certificate_of(device).verify_directly_issued_by(certificate)
    tables = Rows(registry.database).everything()
    assert str(token.pin_file).encode() in tables
    assert token.pin.encode() not in tables


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_key_that_was_in_the_token(registry: Registry, token: SoftToken, tmp_path: Path, kind: str) -> None:
    key: Any = fleet_keys.rsa_key(5) if kind == "rsa" else ec.generate_private_key(ec.SECP384R1())
    token.put(key, "plant", "beef")
    made = issuing.make_token_issuer(registry, A, token.uri("plant"))
    assert "id=%BE%EF" in made.key_uri
    assert authority_of(registry).public_key() == key.public_key()
    check_all(registry, tmp_path, made.id, issue(registry))
    number = key.private_numbers()
    number = number.d if kind == "rsa" else number.private_value
    tables = Rows(registry.database).everything()
    for form in (
        number.to_bytes((number.bit_length() + 7) // 8, "big"),
        str(number).encode(),
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    ):
        assert form not in tables


def test_rotation_from_the_database_to_the_token_and_back(registry: Registry, token: SoftToken, tmp_path: Path) -> None:
    devices, issuers = [], []
    for number in range(4):
        if number % 2:
            issuers.append(issuing.make_token_issuer(registry, A, token.uri()))
        else:
            issuers.append(issuing.make_issuer(registry, A))
        devices.append(issue(registry, f"device-{number}"))
        devices[-1].verify_directly_issued_by(authority_of(registry, issuers[-1].id))
    assert [one.id for one in issuing.issuers(registry, A) if one.active] == [issuers[-1].id]
    assert len({one.key_uri for one in issuers}) == 3  # "" twice
    for number, (issuer, device) in enumerate(zip(issuers, devices, strict=True)):  # older ones go on with lists, OCSP
        folder = tmp_path / str(number)
        folder.mkdir()
        check_all(registry, folder, issuer.id, device)


def test_a_rotation_needs_another_key(registry: Registry, token: SoftToken, rows: Rows) -> None:
    made = issuing.make_token_issuer(registry, A, token.uri("ca"))
    for actor in (A, B):  # with the same name, brokers could not tell two accounts apart
        with pytest.raises(AlreadyExistsError, match="name another one") as caught:
            issuing.make_token_issuer(registry, actor, token.uri("ca"))
        assert caught.value.resource_id == made.id
    assert len(rows.all("issuers")) == 1


def test_an_authority_below_a_root_elsewhere(registry: Registry, token: SoftToken, tmp_path: Path, rows: Rows) -> None:
    uri = token.uri("sub")
    asked = x509.load_pem_x509_csr(issuing.request_for_token(uri, "Plant 3").encode())
    assert asked.is_signature_valid
    assert asked.subject == fleet_keys.name("Plant 3")
    assert asked.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    again = x509.load_pem_x509_csr(issuing.request_for_token(uri, "Plant 3").encode())
    assert again.public_key() == asked.public_key()
    root = fleet_keys.authority("Root", 160)
    usage = asked.extensions.get_extension_for_class(x509.KeyUsage)
    identifiers = (
        (x509.SubjectKeyIdentifier.from_public_key(asked.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()), False),
    )
    below = fleet_keys.certificate(
        "Plant 3", root.key, root, is_authority=True, public_key=asked.public_key(), days=(-10, 1_000),
        extensions=((usage.value, True), *identifiers),
    )  # fmt: skip
    made = issuing.import_token_issuer(registry, A, below.pem, uri)
    assert (made.id, made.subject) == (below.id, "CN=Plant 3")
    assert rows.operations() == ["ImportIssuer"]
    (tmp_path / "root.pem").write_text(root.pem)
    one = issue(registry)
    (tmp_path / "sub.pem").write_text(issuing.issuer_pem(registry, A))
    (tmp_path / "one.pem").write_bytes(one.public_bytes(Encoding.PEM))
    chain = openssl(tmp_path, "verify", "-CAfile", "root.pem", "-untrusted", "sub.pem", "one.pem")
    assert "one.pem: OK" in chain
    answer = status_lists.sign(registry, A.account_id, made.id)
    assert x509.load_der_x509_crl(answer.der).is_signature_valid(asked.public_key())  # type: ignore[arg-type]
    with pytest.raises(AlreadyExistsError):
        issuing.import_token_issuer(registry, A, below.pem, uri)


def test_what_is_not_taken(registry: Registry, token: SoftToken, rows: Rows) -> None:
    token.put(fleet_keys.ec_key(140), "mine", "01")
    token.put(rsa.generate_private_key(65537, 1024), "short", "02")
    token.put(ec.generate_private_key(ec.SECP256K1()), "curve", "03")
    mine = fleet_keys.certificate("Elsewhere", fleet_keys.ec_key(140), is_authority=True)
    leaf = fleet_keys.certificate("leaf", fleet_keys.ec_key(140))
    other = fleet_keys.authority()
    for pem, uri, error, said in (
        (mine.pem, token.uri("nobody"), InvalidError, "has no private key 'nobody'"),
        (mine.pem, token.uri(), InvalidError, "names no key"),
        (other.pem, token.uri("mine"), InvalidError, "not the certificate's"),
        (leaf.pem, token.uri("mine"), CertificateValidationError, "no authority"),
        ("nothing", token.uri("mine"), InvalidError, "no certificate"),
        (mine.pem, "pkcs11:object=mine", InvalidError, "names no token"),
    ):
        with pytest.raises(error, match=said):
            issuing.import_token_issuer(registry, A, pem, uri)
    for label, said in (("short", "2048"), ("curve", "curve")):
        with pytest.raises(InvalidError, match=said):
            issuing.make_token_issuer(registry, A, token.uri(label))
        with pytest.raises(InvalidError, match=said):
            issuing.request_for_token(token.uri(label), "x")
    with pytest.raises(InvalidError, match="names no key"):
        issuing.request_for_token(token.uri(), "x")
    assert rows.all("issuers") == []


def test_while_the_token_is_away_nothing_is_issued(registry: Registry, token: SoftToken, rows: Rows) -> None:
    made = issuing.make_token_issuer(registry, A, token.uri("ca"))
    one = issue(registry)
    asked = library.OCSPRequestBuilder().add_certificate(one, authority_of(registry), hashes.SHA256()).build()
    responder = ocsp.Responder(registry)
    token.leave()
    for call in (
        lambda: issue(registry, "two"),
        lambda: issuing.make_keys(registry, A),
        lambda: status_lists.sign(registry, A.account_id, made.id),
        lambda: responder.answer(A.account_id, made.id, asked.public_bytes(Encoding.DER)),
        lambda: issuing.make_token_issuer(registry, A, token.uri("next")),
    ):
        with pytest.raises(SigningUnavailableError) as caught:
            call()
        assert token.pin not in str(caught.value)
        assert str(token.folder) not in str(caught.value)
    assert [len(rows.all(table)) for table in ("issuers", "certificates", "issued_certificates")] == [1, 1, 1]
    assert rows.all("status_lists") == []
    revoke(registry, one)  # needs no signature
    token.come_back()
    assert status_lists.sign(registry, A.account_id, made.id).entries == 1
    issue(registry, "two").verify_directly_issued_by(authority_of(registry))


def test_another_key_under_the_same_name_signs_nothing(registry: Registry, token: SoftToken, rows: Rows) -> None:
    token.put(fleet_keys.ec_key(140), "ca", "01")
    issuing.make_token_issuer(registry, A, token.uri("ca"))
    token.vanish()
    token.initialize()
    token.put(fleet_keys.ec_key(141), "ca", "01")
    with pytest.raises(token_keys.WrongKeyError, match="not the expected one"):
        issue(registry)
    assert rows.all("certificates") == []


def test_who_can_write_to_the_database_names_no_other_key(registry: Registry, token: SoftToken, rows: Rows) -> None:
    """The URI says which library is loaded and which file is read as a PIN: what counts is sealed."""
    made = issuing.make_token_issuer(registry, A, token.uri("ca"))
    issuing.make_token_issuer(registry, B, token.uri("other"))
    mine, other = (rows.all("issuers", account_id=actor.account_id)[0] for actor in (A, B))
    table = schema.issuers
    for change in (
        {"key_reference": made.key_uri.replace("module-path=/usr", "module-path=/tmp")},
        {"key_reference": None},
        {"sealed_key": other["sealed_key"], "key_reference": other["key_reference"]},
        {"sealed_key": made.key_uri.encode()},
    ):
        with registry.database.write(A) as transaction:
            transaction.execute(update(table).where(table.c.id == made.id).values(change))
        with pytest.raises(KeyassayError):
            issue(registry)
        with pytest.raises(KeyassayError):
            status_lists.sign(registry, A.account_id, made.id)
        with registry.database.write(A) as transaction:
            kept = {name: mine[name] for name in ("sealed_key", "key_reference")}
            transaction.execute(update(table).where(table.c.id == made.id).values(kept))
    issue(registry)


def test_a_rotation_between_signing_and_entering(
    registry: Registry, token: SoftToken, monkeypatch: pytest.MonkeyPatch, rows: Rows
) -> None:
    """Signatures are made before the transaction: what an authority signed that no longer issues does not count."""
    issuing.make_token_issuer(registry, A, token.uri("old"))
    sign, signed = issuing._sign, []

    def rotating(*arguments: Any) -> Any:
        made = sign(*arguments)
        signed.append(made)
        if len(signed) == 1:
            issuing.make_token_issuer(registry, A, token.uri("new"))
        return made

    monkeypatch.setattr(issuing, "_sign", rotating)
    one = issue(registry)
    new = next(known for known in issuing.issuers(registry, A) if known.active)
    one.verify_directly_issued_by(authority_of(registry, new.id))
    assert len(signed) == 2
    assert [row["issuer_id"] for row in rows.all("issued_certificates")] == [new.id]
