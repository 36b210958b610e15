"""The OCSP responder: what it says, by whose signature, to OpenSSL, and to requests that are none; both databases."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp as library
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fleet_keys
from issuing_requests import request
from keyassay.certificates.der import SEQUENCE, children, element, expect
from keyassay.registry import certificates, issuing, ocsp
from keyassay.registry.errors import NotFoundError
from keyassay.registry.registry import Registry
from two_accounts import A, B

Status = library.OCSPCertStatus


def issue(registry: Registry, name: str = "one") -> x509.Certificate:
    pem = request(name, fleet_keys.ec_key(1))
    issued = issuing.certify_request(registry, A, pem, set_as_active=True)
    return x509.load_pem_x509_certificate(issued.certificate_pem.encode())


def authority(registry: Registry) -> tuple[str, x509.Certificate]:
    (one,) = issuing.issuers(registry, A)
    return one.id, x509.load_pem_x509_certificate(issuing.issuer_pem(registry, A).encode())


def set_status(registry: Registry, one: x509.Certificate, status: str) -> None:
    certificates.set_status(registry, A, one.fingerprint(hashes.SHA256()).hex(), status)


def question(
    one: x509.Certificate, issuer: x509.Certificate, algorithm: Any = None, nonce: bytes | None = None
) -> bytes:
    builder = library.OCSPRequestBuilder().add_certificate(one, issuer, algorithm or hashes.SHA1())
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


def ask(registry: Registry, asked: bytes) -> library.OCSPResponse:
    issuer_id, _ = authority(registry)
    return library.load_der_ocsp_response(ocsp.Responder(registry).answer(A.account_id, issuer_id, asked).der)


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_good_revoked_and_unknown(registry: Registry, algorithm: Any) -> None:
    one, two = issue(registry), issue(registry, "two")
    _, issuer = authority(registry)
    asked = question(one, issuer, algorithm)
    answer = ask(registry, asked)
    assert answer.certificate_status is Status.GOOD
    assert answer.serial_number == one.serial_number
    key = issuer.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(answer.signature, answer.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
    assert answer.next_update_utc is not None
    assert answer.next_update_utc - answer.this_update_utc == answer.next_update_utc - answer.produced_at_utc
    set_status(registry, one, "REVOKED")
    answer = ask(registry, asked)
    assert answer.certificate_status is Status.REVOKED
    assert answer.revocation_time_utc is not None
    assert ask(registry, question(two, issuer, algorithm)).certificate_status is Status.GOOD
    never = fleet_keys.device(issuer=fleet_keys.authority())
    assert ask(registry, question(never.certificate, issuer, algorithm)).certificate_status is Status.UNKNOWN
    other = fleet_keys.authority("other", 120).certificate
    assert ask(registry, question(one, other, algorithm)).certificate_status is Status.UNKNOWN


def test_a_deleted_certificate_stays_revoked_and_holds_are_said_if_asked_for(registry: Registry) -> None:
    one, two = issue(registry), issue(registry, "two")
    _, issuer = authority(registry)
    set_status(registry, one, "REVOKED")
    set_status(registry, two, "INACTIVE")
    certificates.remove(registry, A, one.fingerprint(hashes.SHA256()).hex())
    assert ask(registry, question(one, issuer)).certificate_status is Status.REVOKED
    assert ask(registry, question(two, issuer)).certificate_status is Status.GOOD
    holding = replace(registry, hold_inactive=True)
    answer = ask(holding, question(two, issuer))
    assert answer.certificate_status is Status.REVOKED
    assert answer.revocation_reason is x509.ReasonFlags.certificate_hold
    set_status(registry, two, "ACTIVE")
    assert ask(holding, question(two, issuer)).certificate_status is Status.GOOD
    assert ask(holding, question(one, issuer)).certificate_status is Status.REVOKED


def test_an_authority_with_an_rsa_key(registry: Registry) -> None:
    key = fleet_keys.rsa_key(1)
    signed = fleet_keys.certificate("RSA CA", key, is_authority=True)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    made = issuing.import_issuer(registry, A, signed.pem, pem)
    one = issue(registry)
    raw = ocsp.Responder(registry).answer(A.account_id, made.id, question(one, signed.certificate)).der
    answer = library.load_der_ocsp_response(raw)
    assert answer.certificate_status is Status.GOOD
    public = key.public_key()
    public.verify(answer.signature, answer.tbs_response_bytes, padding.PKCS1v15(), hashes.SHA256())


def test_nonces_come_back_and_their_answers_are_not_kept(registry: Registry) -> None:
    one = issue(registry)
    issuer_id, issuer = authority(registry)
    responder = ocsp.Responder(registry)
    for length in (1, 16, 128):
        made = responder.answer(A.account_id, issuer_id, question(one, issuer, nonce=b"n" * length))
        assert not made.may_be_kept
        read = library.load_der_ocsp_response(made.der)
        assert read.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"n" * length
    assert responder.answer(A.account_id, issuer_id, question(one, issuer)).may_be_kept
    assert responder.answer(A.account_id, issuer_id, question(one, issuer, nonce=b"n" * 129)) == ocsp.MALFORMED


def test_nobody_elses_authority(registry: Registry) -> None:
    one = issue(registry)
    issuer_id, issuer = authority(registry)
    for account_id, name in ((B.account_id, issuer_id), (A.account_id, "0" * 64), ("9" * 12, issuer_id)):
        with pytest.raises(NotFoundError):
            ocsp.Responder(registry).answer(account_id, name, question(one, issuer))


def test_openssl_asks_about_several(registry: Registry, tmp_path: Path) -> None:
    one, two = issue(registry), issue(registry, "two")
    issuer_id, issuer = authority(registry)
    never = fleet_keys.device(issuer=fleet_keys.authority()).certificate
    set_status(registry, two, "REVOKED")
    for name, certificate in (("ca", issuer), ("one", one), ("two", two), ("never", never)):
        (tmp_path / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))

    def openssl(*arguments: str) -> str:
        command = ["openssl", "ocsp", "-issuer", "ca.pem", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    asked = ("-cert", "one.pem", "-cert", "two.pem", "-cert", "never.pem")
    openssl(*asked, "-reqout", "request.der")
    answer = ocsp.Responder(registry).answer(A.account_id, issuer_id, (tmp_path / "request.der").read_bytes())
    (tmp_path / "answer.der").write_bytes(answer.der)
    shown = openssl(*asked, "-respin", "answer.der", "-CAfile", "ca.pem", "-no_nonce")
    assert "Response verify OK" in shown
    for expected in ("one.pem: good", "two.pem: revoked", "never.pem: unknown"):
        assert expected in shown


@pytest.fixture(scope="module")
def sample() -> bytes:
    issuer = fleet_keys.authority()
    return question(fleet_keys.device(issuer=issuer).certificate, issuer.certificate, nonce=b"0123456789abcdef")


def test_bounds_of_a_request(registry: Registry) -> None:
    one = issue(registry)
    issuer_id, issuer = authority(registry)
    responder = ocsp.Responder(registry)
    body = question(one, issuer)
    start, stop = expect(body, 0, len(body), SEQUENCE, "")
    _, _, start, stop = children(body, start, stop)[0]
    _, _, start, stop = children(body, start, stop)[0]
    asked = body[start:stop]

    def whole(requests: bytes, *more: bytes) -> bytes:
        return element(SEQUENCE, element(SEQUENCE, element(SEQUENCE, requests), *more))

    answer = responder.answer(A.account_id, issuer_id, whole(asked * ocsp.MOST_SINGLES)).der
    assert len(list(library.load_der_ocsp_response(answer).responses)) == ocsp.MOST_SINGLES
    critical = element(SEQUENCE, element(6, b"\x2a\x03"), b"\x01\x01\xff", element(4, b"x"))
    for wrong in (
        whole(asked * (ocsp.MOST_SINGLES + 1)),
        whole(b""),
        whole(asked) + b"\x00",
        whole(asked, element(0xA2, element(SEQUENCE, critical))),
        whole(asked, element(0xA3, b"")),
        element(SEQUENCE, b"\x00" * ocsp.LARGEST_REQUEST),
        b"",
    ):
        assert responder.answer(A.account_id, issuer_id, wrong) == ocsp.MALFORMED


@settings(
    max_examples=400, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(st.data())
def test_whatever_is_sent_is_answered(registry: Registry, sample: bytes, data: st.DataObject) -> None:
    if not issuing.issuers(registry, A):
        issuing.make_issuer(registry, A)
    issuer_id, _ = authority(registry)
    if data.draw(st.booleans()):
        sent = data.draw(st.binary(max_size=300))
    else:
        changed = bytearray(sample)
        for _ in range(data.draw(st.integers(1, 4))):
            changed[data.draw(st.integers(0, len(sample) - 1))] = data.draw(st.integers(0, 255))
        sent = bytes(changed[: data.draw(st.integers(1, len(sample)))])
    answer = ocsp.Responder(registry).answer(A.account_id, issuer_id, sent)
    if answer != ocsp.MALFORMED:
        assert library.load_der_ocsp_response(answer.der).response_status is library.OCSPResponseStatus.SUCCESSFUL
