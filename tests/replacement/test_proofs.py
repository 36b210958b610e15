"""Each kind of proof, by real keys: what it accepts, what it refuses, and that refusing halts nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import update

import fleet_keys
import weak_devices
from asking_devices import Device
from keyassay.registry.errors import InvalidError, NotFoundError
from keyassay.registry.registry import Registry
from keyassay.replacement import campaigns, proofs, provisioning
from keyassay.replacement.states import State
from keyassay.storage import schema
from replacing import connect, new_key, old_device, register, start, states, unit, work
from two_accounts import A, B

HOUR = 3_600


def begun(registry: Registry, kind: str, *things: str) -> str:
    replacement_id = start(registry, old_device(registry, *things), proof=kind, trustOldKey=False)
    work(registry)
    return replacement_id


def provided(give: Callable[..., Any], registry: Registry, *given: Any) -> Any:
    """Give things what they prove themselves with; then their devices are asked."""
    found = give(registry, *given)
    work(registry)
    return found


def public(key: Any) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def expire(registry: Registry) -> None:
    with registry.database.write(A) as transaction:
        transaction.execute(update(schema.replacement_proofs).values(expires_at=1))


def test_vectors_of_the_documentation() -> None:
    """docs/device-protocol.md has these."""
    message = proofs.message("111111111111", "6f1c0000-0000-4000-8000-000000000001", "pump-17", b"the DER of the CSR")
    assert message.hex() == (
        "6b657961737361792d7265706c6163656d656e742d7631003131313131313131313131310036663163303030302d303030302d343030302d"
        "383030302d3030303030303030303030310070756d702d313700" + hashlib.sha256(b"the DER of the CSR").hexdigest()
    )
    value = hmac.digest(bytes(range(32)), message, "sha256")
    assert proofs.authentic(bytes(range(32)), message, value)
    assert base64.b64encode(value).decode() == "mR8V+87ecMljU0KPrFMXBKRgy9uEz05EUlyj6GRqC6Y="


@pytest.mark.parametrize(
    "settings", [{}, {"proof": "x"}, {"proof": "old-key"}, {"proof": "secret", "trustOldKey": True}]
)
def test_a_replacement_says_how_devices_prove_themselves(settings: Any) -> None:
    with pytest.raises(InvalidError):
        proofs.check_settings(settings)


@pytest.mark.parametrize("kind", list(proofs.Kind))
def test_each_kind_can_be_chosen(kind: proofs.Kind) -> None:
    proofs.check_settings({"proof": kind.value, "trustOldKey": kind is proofs.Kind.OLD_KEY})


def test_a_claim_secret_proves_one_request_of_its_thing(registry: Registry, rows: Any) -> None:
    replacement_id = begun(registry, "secret", "pump", "valve")
    made, more = provided(provisioning.make_secrets, registry, A, replacement_id, HOUR)
    secrets = dict(made)
    assert (sorted(secrets), more) == (["pump", "valve"], False)
    assert provided(provisioning.make_secrets, registry, A, replacement_id, HOUR) == ([], False), "each has one now"
    pump = Device(registry, "pump")
    for by in (secrets["valve"], base64.b64encode(b"w" * 32).decode()):
        assert pump.ask(replacement_id, "secret", by)[1]["errorCode"] == "ProofRefused"
    assert pump.ask(replacement_id)[1]["errorCode"] == "ProofRefused", "the session alone is no proof"
    assert unit(registry, replacement_id, "pump").state is State.PLANNED
    assert pump.ask(replacement_id, "secret", secrets["pump"])[0] == "accepted"
    (row,) = rows.all("replacement_proofs", kind="secret", thing_name="pump")
    assert row["used_by"] == pump.csr_digest
    assert base64.b64decode(secrets["pump"]) not in bytes(row["sealed_secret"])
    assert Device(registry, "pump").ask(replacement_id, "secret", secrets["pump"])[1]["errorCode"] == "NotNow"
    assert states(registry, replacement_id) == {"pump": "HALTED", "valve": "PLANNED"}


@pytest.mark.parametrize(
    "value", [None, 5, "", "%%%", "A" * 5_000, base64.b64encode(b"x").decode(), base64.b64encode(b"x" * 32).decode()]
)
def test_values_that_are_none_prove_nothing(registry: Registry, value: Any) -> None:
    replacement_id = begun(registry, "secret", "pump")
    provided(provisioning.make_secrets, registry, A, replacement_id, HOUR)
    device = Device(registry, "pump")
    body = {**device.body(replacement_id), "proof": {"kind": "secret", "value": value}}
    assert device.publish("create-from-csr", body)[1]["errorCode"] == "ProofRefused"
    for proof in (None, [], "secret", {}):
        assert device.publish("create-from-csr", {**body, "proof": proof})[1]["errorCode"] == "ProofRefused"


@pytest.mark.parametrize(
    ("kind", "first"), [("secret", 2), ("device-key", 2), ("claim-certificate", 2), ("approval", 0)]
)
def test_devices_that_could_prove_nothing_are_not_asked(registry: Registry, rows: Any, kind: str, first: int) -> None:
    """A device that fails before it was provisioned would look like an attacker."""
    replacement_id = begun(registry, kind, "pump", "valve")
    now = time.time_ns() // 1_000_000
    _, funnel = campaigns.describe(registry, A, replacement_id, now)
    assert (funnel.unproven, funnel.begun, len(rows.all("device_messages"))) == (first, 2 - first, 2 - first)
    if kind == "secret":
        provided(provisioning.make_secrets, registry, A, replacement_id, HOUR, ["pump"])
        _, funnel = campaigns.describe(registry, A, replacement_id, now)
        assert (funnel.unproven, funnel.begun) == (1, 1)
        (message,) = rows.all("device_messages")
        assert message["topic"].startswith("$aws/things/pump/")
    assert rows.all("alerts") == []


def test_a_thing_without_a_secret_and_one_that_expired_prove_nothing(registry: Registry) -> None:
    replacement_id = begun(registry, "secret", "pump")
    device = Device(registry, "pump")
    nothing = base64.b64encode(b"\0" * 32).decode()
    assert device.get()[0] == "rejected", "it is asked once it can answer"
    assert device.ask(replacement_id, "secret", nothing)[1]["errorCode"] == "ProofRefused"
    ((_, secret),), _ = provided(provisioning.make_secrets, registry, A, replacement_id, HOUR)
    assert device.get()[0] == "accepted"
    expire(registry)
    assert device.ask(replacement_id, "secret", secret)[1]["errorCode"] == "ProofRefused"


def test_an_unproven_request_is_alerted_once_and_limited_and_the_device_is_served(
    registry: Registry, rows: Any
) -> None:
    replacement_id = begun(registry, "secret", "pump")
    ((_, secret),), _ = provided(provisioning.make_secrets, registry, A, replacement_id, HOUR)
    said = [Device(registry, "pump").ask(replacement_id, "secret", "eHh4")[1]["errorCode"] for _ in range(20)]
    assert said[:10] == ["ProofRefused"] * 10
    assert said[-1] == "Throttled"
    (alert,) = rows.all("alerts")
    assert (alert["kind"], alert["thing_name"]) == ("replacement-unproven", "pump")
    assert Device(registry, "pump").ask(replacement_id, "secret", secret)[0] == "accepted"


def test_secrets_are_imported_and_replaced(registry: Registry) -> None:
    replacement_id = begun(registry, "secret", "pump", "valve")
    mine = base64.b64encode(b"m" * 16).decode()
    provided(provisioning.import_secrets, registry, A, replacement_id, HOUR, {"pump": mine})
    ((_, made),), _ = provided(provisioning.make_secrets, registry, A, replacement_id, HOUR, ["valve"])
    ((_, again),), _ = provided(provisioning.make_secrets, registry, A, replacement_id, HOUR, ["valve"])
    valve = Device(registry, "valve")
    assert valve.ask(replacement_id, "secret", made)[1]["errorCode"] == "ProofRefused"
    assert valve.ask(replacement_id, "secret", again)[0] == "accepted"
    assert Device(registry, "pump").ask(replacement_id, "secret", mine)[0] == "accepted"


@pytest.mark.parametrize(
    "given",
    [
        {"pump": "%%"},
        {"pump": base64.b64encode(b"short").decode()},
        {"nobody": base64.b64encode(b"m" * 16).decode()},
        {"pump": base64.b64encode(b"m" * 16).decode(), "valve": base64.b64encode(b"m" * 16).decode()},
        {},
    ],
)
def test_bad_secrets_are_refused_and_none_of_them_is_kept(registry: Registry, rows: Any, given: Any) -> None:
    replacement_id = begun(registry, "secret", "pump", "valve")
    with pytest.raises(InvalidError):
        provided(provisioning.import_secrets, registry, A, replacement_id, HOUR, given)
    assert rows.all("replacement_proofs") == []


def test_proofs_belong_to_replacements_that_ask_for_them(registry: Registry) -> None:
    replacement_id = begun(registry, "secret", "pump")
    with pytest.raises(InvalidError):
        provided(provisioning.register_keys, registry, A, replacement_id, HOUR, {"pump": public(new_key())})
    with pytest.raises(InvalidError):
        provided(provisioning.make_secrets, registry, A, replacement_id, 5)
    with pytest.raises(NotFoundError):
        provided(provisioning.make_secrets, registry, B, replacement_id, HOUR)


KEYS = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


def signature(key: Any, message: bytes, how: str = "") -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
        return key.sign(message, padding.PKCS1v15() if how == "pkcs1" else pss, hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(hashes.SHA256()))
    return key.sign(message)


@pytest.mark.parametrize(("kind", "how"), [("p256", ""), ("p384", ""), ("rsa", ""), ("rsa", "pkcs1"), ("ed25519", "")])
def test_another_key_of_the_device_proves_its_request(registry: Registry, kind: str, how: str) -> None:
    replacement_id = begun(registry, "device-key", "pump", "valve")
    key = KEYS[kind]()
    provided(
        provisioning.register_keys, registry, A, replacement_id, HOUR, {"pump": public(key), "valve": public(new_key())}
    )
    for thing, good in (("valve", False), ("pump", True)):
        device = Device(registry, thing)
        value = base64.b64encode(signature(key, device.message(replacement_id), how)).decode()
        body = {**device.body(replacement_id), "proof": {"kind": "device-key", "value": value}}
        other = {**Device(registry, thing).body(replacement_id), "proof": body["proof"]}
        assert device.publish("create-from-csr", other)[1]["errorCode"] == "ProofRefused", "it is for another request"
        assert (device.publish("create-from-csr", body)[0] == "accepted") == good


def test_keys_that_prove_nothing_are_refused(registry: Registry, rows: Any) -> None:
    replacement_id = begun(registry, "device-key", "pump", "valve")
    registered = new_key()
    register(registry, "other", registered)
    key = new_key()
    bad: list[dict[str, str]] = [
        {"pump": "x"},
        {"pump": public(weak_devices.weak_key())},
        {"pump": public(rsa.generate_private_key(65537, 1024))},
        {"pump": public(registered)},
        {"pump": public(key), "valve": public(key)},
    ]
    for given in bad:
        with pytest.raises(InvalidError):
            provided(provisioning.register_keys, registry, A, replacement_id, HOUR, given)
    assert rows.all("replacement_proofs") == []
    provided(provisioning.register_keys, registry, A, replacement_id, HOUR, {"pump": public(key)})
    with pytest.raises(InvalidError, match="pump"):
        provided(provisioning.register_keys, registry, A, replacement_id, HOUR, {"valve": public(key)})


def test_the_key_that_proves_is_no_new_key(registry: Registry) -> None:
    replacement_id = begun(registry, "device-key", "pump")
    key = new_key()
    provided(provisioning.register_keys, registry, A, replacement_id, HOUR, {"pump": public(key)})
    assert Device(registry, "pump", key).ask(replacement_id, "device-key", key)[1]["errorCode"] == "KeyRefused"


def test_a_claim_certificate_proves_a_request_of_each_of_its_things(registry: Registry) -> None:
    replacement_id = begun(registry, "claim-certificate", "pump", "valve", "motor")
    key = new_key()
    pem = fleet_keys.device("claim", key=key).pem
    provided(provisioning.add_claim_certificate, registry, A, replacement_id, HOUR, pem, ["pump", "valve"])
    for thing in ("pump", "valve"):
        assert Device(registry, thing).ask(replacement_id, "claim-certificate", key)[0] == "accepted"
    motor = Device(registry, "motor")
    assert motor.ask(replacement_id, "claim-certificate", key)[1]["errorCode"] == "ProofRefused"
    assert Device(registry, "pump").ask(replacement_id, "claim-certificate", key)[1]["errorCode"] == "NotNow"


def test_claim_certificates_that_are_not_valid_now_are_refused(registry: Registry) -> None:
    replacement_id = begun(registry, "claim-certificate", "pump")
    for days in ((-10, -1), (1, 10)):
        pem = fleet_keys.device("claim", key=new_key(), days=days).pem
        with pytest.raises(InvalidError):
            provided(provisioning.add_claim_certificate, registry, A, replacement_id, HOUR, pem, ["pump"])


def test_a_request_waits_for_its_approval(registry: Registry, rows: Any) -> None:
    replacement_id = begun(registry, "approval", "pump")
    device = Device(registry, "pump")
    for _ in range(2):
        ending, body = device.ask(replacement_id, "approval")
        assert (ending, body["reason"]) == ("pending", "approval")
    (row,) = provisioning.waiting(registry, A, replacement_id).rows
    assert (row["thing"], row["digest"], row["key"]) == ("pump", device.csr_digest, "secp256r1")
    before = len(rows.all("device_messages"))
    provisioning.approve(registry, A, replacement_id, HOUR, [("pump", device.csr_digest.upper())])
    assert len(rows.all("device_messages")) == before + 1, "the device is told"
    assert provisioning.waiting(registry, A, replacement_id).rows == []
    assert device.ask(replacement_id, "approval")[0] == "accepted"
    assert Device(registry, "pump").ask(replacement_id, "approval")[0] == "pending", "nobody approved another one"
    with pytest.raises(InvalidError):
        provisioning.approve(registry, A, replacement_id, HOUR, [("pump", "0" * 64)])
    assert unit(registry, replacement_id, "pump").state is State.DELIVERED


def test_requests_can_be_approved_in_advance(registry: Registry) -> None:
    replacement_id = begun(registry, "approval", "pump")
    device = Device(registry, "pump")
    provisioning.approve(registry, A, replacement_id, HOUR, [("pump", "0" * 64)])
    provisioning.approve(registry, A, replacement_id, HOUR, [("pump", device.csr_digest)])
    assert device.ask(replacement_id, "approval")[0] == "accepted"


def test_few_requests_of_a_thing_wait_and_several_are_alerted(registry: Registry, rows: Any) -> None:
    replacement_id = begun(registry, "approval", "pump")
    for _ in range(8):
        Device(registry, "pump").ask(replacement_id, "approval")
    assert len(provisioning.waiting(registry, A, replacement_id).rows) == 5
    assert [row["kind"] for row in rows.all("alerts")] == ["replacement-unproven"]


def test_a_weak_key_does_not_wait_for_an_approval(registry: Registry) -> None:
    replacement_id = begun(registry, "approval", "pump")
    device = Device(registry, "pump", weak_devices.weak_key())
    assert device.ask(replacement_id, "approval")[1]["errorCode"] == "KeyRefused"
    assert provisioning.waiting(registry, A, replacement_id).rows == []


@pytest.mark.parametrize("given", [[("pump", "x")], [("pump", "0" * 64), ("pump", "1" * 64)], [("nobody", "0" * 64)]])
def test_bad_approvals_are_refused(registry: Registry, given: Any) -> None:
    replacement_id = begun(registry, "approval", "pump")
    with pytest.raises(InvalidError):
        provisioning.approve(registry, A, replacement_id, HOUR, given)


@pytest.mark.parametrize("end", ["complete", "canceled"])
def test_secrets_go_when_the_replacement_has_ended(registry: Registry, rows: Any, end: str) -> None:
    replacement_id = begun(registry, "secret", "pump")
    ((_, secret),), _ = provided(provisioning.make_secrets, registry, A, replacement_id, HOUR)
    pump = Device(registry, "pump")
    if end == "complete":
        with registry.database.write(A) as transaction:
            row = campaigns.find(transaction.connection, A.account_id, replacement_id)
            campaigns.change(transaction, replacement_id, settings={**row["settings"], "graceSeconds": 0})
        answer = pump.ask(replacement_id, "secret", secret)[1]
        connect(registry, answer["certificateId"], "pump")
    else:
        campaigns.cancel(registry, A, replacement_id)
    assert rows.all("replacement_proofs", kind="secret")[0]["sealed_secret"] is not None
    for _ in range(3):
        work(registry)
    assert rows.all("replacements")[0]["ended_at"] is not None
    (row,) = rows.all("replacement_proofs", kind="secret")
    assert row["sealed_secret"] is None
    assert row["used_by"] == (pump.csr_digest if end == "complete" else None)
