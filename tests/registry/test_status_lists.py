"""Lists of our own authorities: what is on them, their numbers, deltas, holds, and what OpenSSL says; both databases."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import update

import fleet_keys
from authorities_in_tables import enter_authority
from issuing_requests import request
from keyassay.registry import certificates, issued, issuing, revocation, status_lists, transfers
from keyassay.registry.errors import NotFoundError
from keyassay.registry.registry import Registry
from keyassay.registry.status_lists import BASE, COMPLETE, DELTA
from keyassay.storage import schema
from two_accounts import A, B, Rows


@pytest.fixture
def public(registry: Registry) -> Registry:
    """The registry with a public address."""
    return replace(registry, public_url="http://pki.example.com/x/")


def issue(registry: Registry, name: str = "one") -> Any:
    return issuing.certify_request(registry, A, request(name, fleet_keys.ec_key(1)), set_as_active=True)


def serial_of(one: Any) -> int:
    return x509.load_pem_x509_certificate(one.certificate_pem.encode()).serial_number


def revoke(registry: Registry, one: Any, actor: Any = A) -> None:
    certificates.set_status(registry, actor, one.registered.id, "REVOKED")


def only_issuer(registry: Registry) -> str:
    (one,) = issuing.issuers(registry, A)
    return one.id


def read(registry: Registry, kind: str = COMPLETE, issuer_id: str = "") -> x509.CertificateRevocationList:
    with registry.database.read() as connection:
        found = status_lists.stored(connection, A.account_id, issuer_id or only_issuer(registry), kind)
    assert found is not None
    return x509.load_der_x509_crl(found.der)


def said(crl: x509.CertificateRevocationList) -> dict[int, str]:
    """Serial number -> reason, "" for none."""
    found = {}
    for one in crl:
        reasons = [extension.value.reason.value for extension in one.extensions]  # type: ignore[attr-defined]
        found[one.serial_number] = reasons[0] if reasons else ""
    return found


def value(crl: x509.CertificateRevocationList, kind: Any) -> Any:
    return crl.extensions.get_extension_for_class(kind).value


def sign(registry: Registry, *, new_base: bool = False) -> None:
    status_lists.sign(registry, A.account_id, only_issuer(registry), new_base=new_base)


def test_what_each_authority_issued_and_what_is_revoked(registry: Registry) -> None:
    old = issuing.make_issuer(registry, A, common_name="ours")
    by_old = issue(registry)
    new = issuing.make_issuer(registry, A, common_name="ours")  # the same name, another key
    by_new = [issue(registry, name) for name in ("two", "three")]
    foreign = fleet_keys.device(issuer=fleet_keys.authority("ours", 120))  # claims to be ours
    certificates.register_without_authority(registry, A, foreign.pem)
    for one in (by_old.registered.id, by_new[0].registered.id, foreign.id):
        certificates.set_status(registry, A, one, "REVOKED")
    while issued.follow(registry, A.account_id):
        pass
    for issuer, expected in ((old, by_old), (new, by_new[0])):
        crl = x509.load_der_x509_crl(status_lists.sign(registry, A.account_id, issuer.id).der)
        authority = x509.load_pem_x509_certificate(issuing.issuer_pem(registry, A, issuer.id).encode())
        assert crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
        assert crl.issuer == authority.subject
        assert set(said(crl)) == {serial_of(expected)}
        assert revocation.upload(registry, A, crl.public_bytes(Encoding.PEM).decode()).entries == 1
    with pytest.raises(NotFoundError):
        status_lists.sign(registry, B.account_id, new.id)


def test_numbers_rise_and_deltas_name_their_base(public: Registry) -> None:
    one, two = issue(public), issue(public, "two")
    made = x509.load_pem_x509_certificate(one.certificate_pem.encode())
    (fresh,) = made.extensions.get_extension_for_class(x509.FreshestCRL).value
    where = f"http://pki.example.com/x/{A.account_id}/{only_issuer(public)}.delta.crl"
    assert fresh.full_name[0].value == where
    sign(public)
    base = value(read(public), x509.CRLNumber).crl_number
    assert value(read(public, DELTA), x509.DeltaCRLIndicator).crl_number == base
    revoke(public, one)
    sign(public)
    revoke(public, two)
    sign(public)
    complete, delta = read(public), read(public, DELTA)
    number = value(complete, x509.CRLNumber).crl_number
    assert number >= base + 2
    assert value(complete, x509.FreshestCRL)[0].full_name[0].value == where
    assert value(delta, x509.CRLNumber).crl_number == number
    assert value(delta, x509.DeltaCRLIndicator).crl_number == base
    assert set(said(delta)) == set(said(complete)) == {serial_of(one), serial_of(two)}
    sign(public, new_base=True)
    assert value(read(public, DELTA), x509.DeltaCRLIndicator).crl_number > number


def test_a_delta_leaves_out_what_its_base_had_long_before(registry: Registry, monkeypatch: Any) -> None:
    monkeypatch.setattr(status_lists, "_OVERLAP", -1)
    one, two = issue(registry), issue(registry, "two")
    revoke(registry, one)
    sign(registry)
    time.sleep(0.01)
    revoke(registry, two)
    sign(registry)
    assert set(said(read(registry, DELTA))) == {serial_of(two)}
    assert set(said(read(registry))) == {serial_of(one), serial_of(two)}


def test_numbers_rise_with_a_clock_that_went_back(registry: Registry, monkeypatch: Any) -> None:
    issue(registry)
    sign(registry)
    before = value(read(registry), x509.CRLNumber).crl_number
    now = time.time_ns()
    monkeypatch.setattr(status_lists.time, "time_ns", lambda: now - 3_600 * 10**9)
    sign(registry)
    assert value(read(registry), x509.CRLNumber).crl_number == before + 1


def test_revoked_stays_revoked_when_it_is_deleted(registry: Registry) -> None:
    one = issue(registry)
    revoke(registry, one)
    certificates.remove(registry, A, one.registered.id)
    sign(registry)
    assert said(read(registry)) == {serial_of(one): ""}
    certificates.register_without_authority(registry, A, one.certificate_pem, status="ACTIVE")
    sign(registry)
    assert said(read(registry)) == {serial_of(one): ""}


def test_strangers_revoke_nothing_and_new_owners_do(registry: Registry) -> None:
    one, two = issue(registry), issue(registry, "two")
    certificates.register_without_authority(registry, B, one.certificate_pem, status="REVOKED")
    certificates.set_status(registry, A, two.registered.id, "INACTIVE")
    transfers.offer(registry, A, two.registered.id, B.account_id)
    transfers.accept(registry, B, two.registered.id, set_as_active=True)
    revoke(registry, two, B)
    sign(registry)
    assert said(read(registry)) == {serial_of(two): ""}


def test_on_hold_only_if_asked_for(registry: Registry) -> None:
    holding = replace(registry, hold_inactive=True)
    one, two, three = (issue(registry, name) for name in ("one", "two", "three"))
    certificates.set_status(registry, A, one.registered.id, "INACTIVE")
    revoke(registry, two)
    sign(registry)
    assert said(read(registry)) == {serial_of(two): ""}
    issuer_id = only_issuer(registry)

    def changed(entries: int = 0) -> bool:
        with holding.database.read() as connection:
            return status_lists.is_changed(connection, holding, A.account_id, issuer_id, entries)

    assert changed()
    sign(holding)
    assert said(read(registry)) == {serial_of(one): "certificateHold", serial_of(two): ""}
    assert not changed()
    certificates.set_status(registry, A, one.registered.id, "ACTIVE")
    certificates.set_status(registry, A, three.registered.id, "INACTIVE")
    certificates.register_without_authority(registry, B, three.certificate_pem, status="ACTIVE")  # counts for nothing
    assert changed()
    sign(holding)
    assert said(read(registry)) == {serial_of(three): "certificateHold", serial_of(two): ""}
    delta = said(read(registry, DELTA))
    assert (delta[serial_of(one)], delta[serial_of(three)]) == ("removeFromCRL", "certificateHold")
    revoke(registry, three)
    sign(holding)
    assert said(read(registry))[serial_of(three)] == said(read(registry, DELTA))[serial_of(three)] == ""


def test_what_an_imported_authority_issued_elsewhere_is_followed(registry: Registry, rows: Rows) -> None:
    authority = fleet_keys.authority()
    enter_authority(registry, authority)
    devices = [fleet_keys.device(f"device-{number}", issuer=authority) for number in range(3)]
    certificates.register(registry, A, devices[0].pem)
    certificates.set_status(registry, A, devices[0].id, "REVOKED")
    certificates.remove(registry, A, devices[0].id)
    key = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    imported = issuing.import_issuer(registry, A, authority.pem, key)
    for one in devices[1:]:
        certificates.register(registry, A, one.pem)
    while issued.follow(registry, A.account_id):
        pass
    assert {row["certificate_id"] for row in rows.all("issued_certificates")} == {one.id for one in devices}
    certificates.set_status(registry, A, devices[1].id, "REVOKED")
    made = status_lists.sign(registry, A.account_id, imported.id)
    wanted = {one.certificate.serial_number for one in devices[:2]}
    assert set(said(x509.load_der_x509_crl(made.der))) == wanted


def test_following_goes_on_in_pieces(registry: Registry, rows: Rows, monkeypatch: Any) -> None:
    monkeypatch.setattr(issued, "_AT_ONCE", 2)
    made = [issue(registry, f"device-{number}") for number in range(5)]
    with registry.database.engine.begin() as connection:
        connection.execute(schema.issued_certificates.delete())
        connection.execute(update(schema.issuers).values(followed=0))
    rounds = 0
    while issued.follow(registry, A.account_id):
        rounds += 1
    assert rounds >= 2
    assert len(rows.all("issued_certificates")) == len(made)


def openssl(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_openssl_verifies_with_complete_and_delta(public: Registry, tmp_path: Path) -> None:
    one, two = issue(public), issue(public, "two")
    (tmp_path / "ca.pem").write_text(issuing.issuer_pem(public, A))
    (tmp_path / "one.pem").write_text(one.certificate_pem)
    sign(public)
    (tmp_path / "complete.pem").write_bytes(read(public).public_bytes(Encoding.PEM))
    revoke(public, one)
    sign(public)
    (tmp_path / "delta.pem").write_bytes(read(public, DELTA).public_bytes(Encoding.PEM))
    (tmp_path / "later.pem").write_bytes(read(public).public_bytes(Encoding.PEM))
    check = ("verify", "-crl_check", "-CAfile", "ca.pem", "-CRLfile")
    assert "one.pem: OK" in openssl(tmp_path, *check, "complete.pem", "one.pem")
    assert "certificate revoked" in openssl(tmp_path, *check, "later.pem", "one.pem")
    both = ("-CRLfile", "delta.pem", "-extended_crl", "-use_deltas")
    assert "certificate revoked" in openssl(tmp_path, *check, "complete.pem", *both, "one.pem")
    (tmp_path / "two.pem").write_text(two.certificate_pem)
    assert "two.pem: OK" in openssl(tmp_path, *check, "complete.pem", *both, "two.pem")
    shown = openssl(tmp_path, "crl", "-in", "delta.pem", "-noout", "-text", "-CAfile", "ca.pem")
    assert "verify OK" in shown
    assert "Delta CRL Indicator: critical" in shown


def test_two_signers_at_once_keep_one_list(registry: Registry, rows: Rows) -> None:
    issue(registry)
    issuer_id = only_issuer(registry)
    threads = [threading.Thread(target=status_lists.sign, args=(registry, A.account_id, issuer_id)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = {row["kind"]: row for row in rows.all("status_lists")}
    assert set(kept) == {COMPLETE, DELTA, BASE}
    assert kept[COMPLETE]["number"] == kept[DELTA]["number"]
    assert value(read(registry, DELTA), x509.DeltaCRLIndicator).crl_number == kept[BASE]["number"]


def test_the_worker_signs_within_a_second_and_once_an_interval(registry: Registry, rows: Rows) -> None:
    one = issue(registry)
    log = structlog.wrap_logger(structlog.testing.CapturingLogger())
    signer, other = (status_lists.Signer(registry, 2.0, log) for _ in range(2))
    stop = threading.Event()
    threads = [threading.Thread(target=worker.run, args=(stop,)) for worker in (signer, other)]
    for thread in threads:
        thread.start()

    def number(kind: str = COMPLETE) -> int:
        return max((int(row["number"]) for row in rows.all("status_lists", kind=kind)), default=0)

    def waits_for(condition: Any, seconds: float = 10.0) -> float:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < seconds
            time.sleep(0.02)
        return time.monotonic() - began

    try:
        waits_for(number)
        first_base = number(BASE)
        revoke(registry, one)
        waits_for(lambda: said(read(registry)) == {serial_of(one): ""})
        assert said(read(registry, DELTA)) == {serial_of(one): ""}
        waits_for(lambda: number(BASE) > first_base)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
