"""Requests of devices, from their messages to their certificates, and all that is refused."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import fleet_keys
import weak_devices
from asking_devices import Device, csr_of
from keyassay.registry import certificates, issuing, principals, token_keys
from keyassay.registry.errors import InvalidError
from keyassay.registry.registry import Registry
from keyassay.replacement import campaigns, delivery, units
from keyassay.replacement.states import State
from keyassay.storage.database import Database
from replacing import connect, new_key, old_device, register, start, states, steps, unit, work
from soft_token import SoftToken
from two_accounts import A, B


def begun(registry: Registry, *things: str, **settings: Any) -> str:
    """A replacement of one certificate, whose devices were told."""
    replacement_id = start(registry, old_device(registry, *things), **settings)
    work(registry)
    return replacement_id


def alerts_of(rows: Any) -> list[tuple[str, str]]:
    return sorted((row["kind"], row["thing_name"]) for row in rows.all("alerts"))


def test_a_device_gets_a_certificate_for_its_key_under_its_things_name(registry: Registry, rows: Any) -> None:
    replacement_id = begun(registry, "pump")
    device = Device(registry, "pump")
    ending, offer = device.get()
    assert ending == "accepted"
    assert offer["replacementId"] == replacement_id
    assert offer["accountId"] == A.account_id
    assert offer["proof"] == "old-key"
    ending, made = device.ask(replacement_id)
    assert ending == "accepted", made
    certificate = x509.load_pem_x509_certificate(made["certificatePem"].encode())
    assert certificate.public_key() == device.key.public_key()
    assert certificate.subject == fleet_keys.name("pump")
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(made["caPem"].encode()))
    found = unit(registry, replacement_id, "pump")
    assert (found.state, found.new_certificate_id) == (State.DELIVERED, made["certificateId"])
    assert found.evidence["ISSUED"]["proof"] == "old-key"
    assert certificates.describe(registry, A, made["certificateId"])["status"] == "ACTIVE"
    assert rows.all("alerts") == []


def test_the_same_request_again_gives_the_same_certificate_and_does_nothing(registry: Registry, rows: Any) -> None:
    replacement_id = begun(registry, "pump")
    device = Device(registry, "pump")
    first = device.ask(replacement_id)
    done, recorded = steps(registry, replacement_id, "pump"), rows.all("changes")
    assert device.ask(replacement_id) == first
    assert (steps(registry, replacement_id, "pump"), rows.all("changes")) == (done, recorded)
    assert len(rows.all("certificates")) == 2


def test_a_second_request_with_a_valid_proof_halts_the_thing(registry: Registry, rows: Any) -> None:
    replacement_id = begun(registry, "pump", "valve")
    first, second = Device(registry, "pump"), Device(registry, "pump")
    connect(registry, unit(registry, replacement_id, "pump").old_certificate_id, "pump")
    assert first.ask(replacement_id)[0] == "accepted"
    ending, refusal = second.ask(replacement_id)
    assert (ending, refusal["statusCode"], refusal["errorCode"]) == ("rejected", 409, "NotNow")
    assert states(registry, replacement_id) == {"pump": "HALTED", "valve": "PLANNED"}
    (alert,) = rows.all("alerts")
    assert alert["details"]["firstRequest"]["csrSha256"] == first.csr_digest
    assert alert["details"]["secondRequest"]["csrSha256"] == second.csr_digest
    for one in ("firstRequest", "secondRequest"):
        assert alert["details"][one]["sessions"][0]["source"] == "192.0.2.7:4711"
    assert first.ask(replacement_id)[0] == "rejected", "nobody is served until an operator has looked"
    assert Device(registry, "valve").ask(replacement_id)[0] == "accepted"
    assert len(rows.all("alerts")) == 1


def test_after_a_new_beginning_another_request_is_taken(registry: Registry) -> None:
    replacement_id = begun(registry, "pump")
    Device(registry, "pump").ask(replacement_id)
    Device(registry, "pump").ask(replacement_id)
    campaigns.roll_back(registry, A, replacement_id, "pump")
    work(registry)
    again = start(registry, unit(registry, replacement_id, "pump").old_certificate_id)
    work(registry)
    assert Device(registry, "pump").ask(again)[0] == "accepted"


def test_nothing_is_offered_where_nothing_is_replaced(registry: Registry) -> None:
    begun(registry, "pump")
    for device in (Device(registry, "other"), Device(registry, "pump", actor=B)):
        ending, refusal = device.get()
        assert (ending, refusal["statusCode"], refusal["errorCode"]) == ("rejected", 404, "NothingToReplace")


def test_a_request_names_its_replacement(registry: Registry, rows: Any) -> None:
    begun(registry, "pump")
    assert Device(registry, "pump").ask("11111111-1111-1111-1111-111111111111")[1]["statusCode"] == 404
    assert len(rows.all("certificates")) == 1


def test_devices_wait_for_their_batch_and_while_it_is_paused(registry: Registry) -> None:
    replacement_id = begun(registry, "a", "b", batch=1)
    waiting = next(thing for thing in "ab" if unit(registry, replacement_id, thing).batch == 0)
    assert Device(registry, waiting).get()[1]["statusCode"] == 404
    assert Device(registry, waiting).ask(replacement_id)[1]["statusCode"] == 404
    campaigns.pause(registry, A, replacement_id)
    begun_thing = "b" if waiting == "a" else "a"
    assert Device(registry, begun_thing).ask(replacement_id)[1]["statusCode"] == 409


BAD_BODIES: list[tuple[str, Any]] = [
    ("no JSON", "{"),
    ("no object", "[]"),
    ("deep", "[" * 30_000),
    ("too long", json.dumps({"certificateSigningRequest": "A" * 40_000})),
    ("no request", {}),
    ("a number", {"certificateSigningRequest": 5}),
    ("no PEM", {"certificateSigningRequest": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END"}),
    ("a certificate", {"certificateSigningRequest": fleet_keys.device().pem}),
]


@pytest.mark.parametrize("body", [body for _, body in BAD_BODIES], ids=[name for name, _ in BAD_BODIES])
def test_bad_messages_are_answered(registry: Registry, body: Any) -> None:
    begun(registry, "pump")
    ending, refusal = Device(registry, "pump").publish("create-from-csr", body)
    assert (ending, refusal["statusCode"], refusal["errorCode"]) == ("rejected", 400, "InvalidRequest")


@pytest.mark.parametrize("payload", [None, 5, b"{}", {}])
def test_payloads_of_other_types_are_answered(registry: Registry, payload: Any) -> None:
    message = {"topic": "$aws/things/pump/keyassay/replacement/get", "payload": payload}
    (reply,) = delivery.deliver(registry, A, [message])["replies"]
    assert json.loads(reply["payload"])["statusCode"] == 400


@pytest.mark.parametrize(
    "topic",
    [
        "$aws/things/pump/keyassay/replacement/notify",
        "$aws/things/pump/keyassay/replacement/get/accepted",
        "$aws/things/pump/keyassay/replacement/get\n",
        "$aws/things/a/b/keyassay/replacement/get",
        "$aws/things//keyassay/replacement/get",
        f"$aws/things/{'a' * 129}/keyassay/replacement/get",
        "$aws/things/pump/shadow/get",
        "",
        None,
        7,
    ],
)
def test_other_topics_are_ignored(registry: Registry, topic: Any) -> None:
    assert delivery.deliver(registry, A, [{"topic": topic, "payload": "{}"}]) == {"replies": []}
    assert delivery.deliver(registry, A, [{}]) == {"replies": []}


def test_a_batch_is_bounded_and_one_bad_message_leaves_the_others_alone(registry: Registry) -> None:
    replacement_id = begun(registry, "pump")
    device = Device(registry, "pump")
    topic = "$aws/things/pump/keyassay/replacement/create-from-csr"
    good = {"topic": topic, "payload": json.dumps(device.body(replacement_id))}
    replies = delivery.deliver(registry, A, [{"topic": topic, "payload": "{"}, good])["replies"]
    assert [one["topic"].removeprefix(topic) for one in replies] == ["/rejected", "/accepted"]
    with pytest.raises(InvalidError):
        delivery.deliver(registry, A, [good] * 501)


def refused(registry: Registry, key: Any, rows: Any) -> str:
    """Why a key is refused, and that nothing has happened."""
    replacement_id = begun(registry, "pump")
    before = len(rows.all("certificates"))
    ending, refusal = Device(registry, "pump", key).ask(replacement_id)
    assert (ending, refusal["statusCode"], refusal["errorCode"]) == ("rejected", 422, "KeyRefused")
    assert unit(registry, replacement_id, "pump").state is State.PLANNED
    assert len(rows.all("certificates")) == before
    assert Device(registry, "pump").ask(replacement_id)[0] == "accepted", "a better key is welcome"
    return str(refusal["errorMessage"])


def test_a_broken_key_is_refused_with_the_reason(registry: Registry, rows: Any) -> None:
    assert "rsa-roca" in refused(registry, weak_devices.weak_key(), rows)


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256K1()), dsa.generate_private_key(2048)],
    ids=["rsa-1024", "secp256k1", "dsa"],
)
def test_keys_of_other_kinds_are_refused(registry: Registry, rows: Any, key: Any) -> None:
    assert refused(registry, key, rows)


def test_the_old_key_is_refused(registry: Registry, rows: Any) -> None:
    key = new_key()
    old = register(registry, "pump", key)
    assert old in refused(registry, key, rows)


def test_a_key_that_was_here_and_went_is_refused(registry: Registry, rows: Any) -> None:
    key = new_key()
    gone = register(registry, "gone", key, status="INACTIVE")
    certificates.remove(registry, A, gone)
    assert gone in refused(registry, key, rows)


def test_the_key_of_another_devices_new_certificate_is_refused(registry: Registry) -> None:
    replacement_id = begun(registry, "pump", "valve")
    key = new_key()
    assert Device(registry, "pump", key).ask(replacement_id)[0] == "accepted"
    assert Device(registry, "valve", key).ask(replacement_id)[1]["errorCode"] == "KeyRefused"


def test_a_request_whose_signature_does_not_hold_is_refused(registry: Registry) -> None:
    replacement_id = begun(registry, "pump")
    der = bytearray(csr_of(new_key()).public_bytes(Encoding.DER))
    other = new_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    place = der.find(other[:26])
    der[place : place + len(other)] = other
    pem = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM).decode()
    body = {"replacementId": replacement_id, "certificateSigningRequest": pem, "proof": {"kind": "old-key"}}
    ending, refusal = Device(registry, "pump").publish("create-from-csr", body)
    assert (ending, refusal["statusCode"]) == ("rejected", 400)
    assert unit(registry, replacement_id, "pump").state is State.PLANNED


def test_the_new_certificate_has_the_thing_and_the_policies_of_the_old_one(registry: Registry, rows: Any) -> None:
    replacement_id = begun(registry, "pump")
    _, made = Device(registry, "pump").ask(replacement_id)
    new = made["certificateId"]
    assert {row["certificate_id"] for row in rows.all("thing_principals")} >= {new}
    assert [row["policy_name"] for row in rows.all("policy_attachments", target=f"cert/{new}")] == ["connect"]


def test_a_thing_that_was_detached_meanwhile_is_put_aside(registry: Registry) -> None:
    replacement_id = begun(registry, "pump")
    old = unit(registry, replacement_id, "pump").old_certificate_id
    principals.detach(registry, A, "pump", registry.arn(A.account_id, f"cert/{old}"))
    ending, refusal = Device(registry, "pump").ask(replacement_id)
    assert (ending, refusal["statusCode"]) == ("rejected", 409)
    assert unit(registry, replacement_id, "pump").state is State.FAILED


def test_a_long_name_is_cut_and_stays_unique(registry: Registry) -> None:
    names = ["n" * 100 + "1", "n" * 100 + "2"]
    replacement_id = begun(registry, "short", *names)
    found = set()
    for name in names:
        _, made = Device(registry, name).ask(replacement_id)
        found.add(x509.load_pem_x509_certificate(made["certificatePem"].encode()).subject.rfc4514_string())
    assert len(found) == 2
    assert all(len(one) <= len("CN=") + 64 for one in found)


def test_a_defect_of_ours_is_an_answer(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "open_unit_of", lambda *_: 1 / 0)
    assert Device(registry, "pump").get()[1]["statusCode"] == 500


def test_what_happens_between_two_looks_is_seen(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two requests at the same moment: the transaction looks again."""
    replacement_id = begun(registry, "pump")
    first, second = Device(registry, "pump"), Device(registry, "pump")
    check = delivery.issuing.check_request

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(delivery.issuing, "check_request", check)
        assert first.ask(replacement_id)[0] == "accepted"
        return check(*arguments)

    monkeypatch.setattr(delivery.issuing, "check_request", meanwhile)
    assert second.ask(replacement_id)[1]["errorCode"] == "NotNow"
    assert unit(registry, replacement_id, "pump").state is State.HALTED


def test_a_device_asks_again_while_the_authority_s_token_is_away(
    registry: Registry, rows: Any, token: SoftToken
) -> None:
    issuing.make_token_issuer(registry, A, token.uri("ca"))
    replacement_id = begun(registry, "pump")
    device = Device(registry, "pump")
    token.leave()
    ending, refusal = device.ask(replacement_id)
    assert (ending, refusal["statusCode"], refusal["errorCode"]) == ("rejected", 503, "ServiceUnavailable")
    assert states(registry, replacement_id) == {"pump": "PLANNED"}
    assert len(rows.all("certificates")) == 1
    token.come_back()
    ending, made = device.ask(replacement_id)
    assert ending == "accepted", made
    certificate = x509.load_pem_x509_certificate(made["certificatePem"].encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(made["caPem"].encode()))


def test_a_token_signs_before_the_transaction(
    registry: Registry, token: SoftToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that takes seconds would keep all other writers waiting."""
    issuing.make_token_issuer(registry, A, token.uri("ca"))
    replacement_id = begun(registry, "pump")
    writing, signed, write, raw = [], [], Database.write, token_keys.TokenEcKey.sign

    @contextmanager
    def watched(*arguments: Any) -> Any:
        writing.append(1)
        try:
            with write(*arguments) as transaction:
                yield transaction
        finally:
            writing.pop()

    def sign(*arguments: Any) -> bytes:
        signed.append(len(writing))
        return raw(*arguments)

    monkeypatch.setattr(Database, "write", watched)
    monkeypatch.setattr(token_keys.TokenEcKey, "sign", sign)
    assert Device(registry, "pump").ask(replacement_id)[0] == "accepted"
    assert signed == [0]
