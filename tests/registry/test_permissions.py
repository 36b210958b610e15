"""TestAuthorization: which policies have a say, and what the answer names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleet_keys import certificate, ec_key
from keyassay.registry import certificates, memberships, permissions, policies, principals, thing_groups, things
from keyassay.registry.authorization import Outcome
from keyassay.registry.errors import InvalidError, NotFoundError
from live_server import client, running
from two_accounts import A, B

PLACE = f"arn:aws:iot:us-east-1:{A.account_id}:"
CLIENT = PLACE + "client/"
CONNECT = [("CONNECT", [CLIENT + "lamp"])]


def text(resource: str, effect: str = "Allow", action: str = "iot:Connect") -> str:
    return json.dumps({"Statement": [{"Effect": effect, "Action": action, "Resource": resource}]})


@pytest.fixture
def principal(registry: Any) -> str:
    """A certificate with the policy "own" at the thing lamp, whose group denies (policy "group")."""
    pem = certificate("device-1", ec_key(1)).pem
    arn = certificates.register_without_authority(registry, A, pem, status="INACTIVE").arn
    policies.create(registry, A, "own", text(CLIENT + "*"))
    policies.create(registry, A, "group", text(CLIENT + "lamp*", "Deny"))
    policies.create(registry, A, "free", text("*", action="*"))
    policies.attach(registry, A, "own", arn)
    things.create(registry, A, "lamp")
    principals.attach(registry, A, "lamp", arn)
    thing_groups.create(registry, A, "hall")
    policies.attach(registry, A, "group", PLACE + "thinggroup/hall")
    return arn


def outcome(registry: Any, arn: str, questions: Any = CONNECT, **more: Any) -> Any:
    (found,) = permissions.judged(registry, A, arn, questions, **more)
    return found


def test_the_policies_of_the_certificate_and_of_its_things_groups_have_a_say(registry: Any, principal: str) -> None:
    found = outcome(registry, principal, client_id="lamp")
    assert (found.outcome, found.allowing, found.denying) == (Outcome.ALLOWED, ("own",), ())
    memberships.add(registry, A, "lamp", "hall")
    found = outcome(registry, principal, client_id="lamp")
    assert (found.outcome, found.allowing, found.denying) == (Outcome.EXPLICIT_DENY, ("own",), ("group",))
    # a denial of the group holds under other client ids, too
    other = [("CONNECT", [CLIENT + "lamp-2"])]
    assert outcome(registry, principal, other, client_id="lamp-2").outcome is Outcome.EXPLICIT_DENY
    assert outcome(registry, principal, client_id="lamp", skip=["group"]).outcome is Outcome.ALLOWED


def test_policies_may_be_added_and_left_out(registry: Any, principal: str) -> None:
    publish = [("PUBLISH", [PLACE + "topic/a"])]
    assert outcome(registry, principal, publish).outcome is Outcome.IMPLICIT_DENY
    found = outcome(registry, principal, publish, add=["free"])
    assert (found.outcome, found.allowing) == (Outcome.ALLOWED, ("free",))
    assert outcome(registry, principal, skip=["own"]).outcome is Outcome.IMPLICIT_DENY


def test_all_resources_of_a_question_have_to_be_permitted(registry: Any, principal: str) -> None:
    both = [("CONNECT", [CLIENT + "x", PLACE + "topic/x"])]
    assert outcome(registry, principal, both).outcome is Outcome.IMPLICIT_DENY


def test_what_is_needed_and_not_known_is_named(registry: Any, principal: str) -> None:
    policies.create(registry, A, "about-id", text(CLIENT + "${iot:ClientId}"))
    found = outcome(registry, principal, add=["about-id"], skip=["own"])
    assert (found.outcome, found.missing) == (Outcome.IMPLICIT_DENY, ("iot:ClientId",))
    assert outcome(registry, principal, add=["about-id"], skip=["own"], client_id="lamp").missing == ()


def test_what_cannot_be_asked(registry: Any, principal: str) -> None:
    for more in ({"add": ["nothing"]}, {"skip": ["nothing"]}):
        with pytest.raises(NotFoundError):
            outcome(registry, principal, **more)
    with pytest.raises(InvalidError):
        permissions.judged(registry, B, principal, CONNECT)
    with pytest.raises(NotFoundError):
        outcome(registry, f"{PLACE}cert/{'0' * 64}")
    for resources in ([CLIENT + "x" * 3000], [CLIENT] * 200):
        with pytest.raises(InvalidError):
            outcome(registry, principal, [("CONNECT", resources)])


def test_over_the_api(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        iot = client(server)
        pem = certificate("device-1", ec_key(1)).pem
        arn = iot.register_certificate_without_ca(certificatePem=pem, status="ACTIVE")["certificateArn"]
        iot.create_policy(policyName="own", policyDocument=text(CLIENT + "${iot:ClientId}"))
        iot.attach_policy(policyName="own", target=arn)
        questions = [
            {"actionType": "CONNECT", "resources": [CLIENT + "a"]},
            {"actionType": "PUBLISH", "resources": ["x"]},
        ]
        first, second = iot.test_authorization(principal=arn, clientId="a", authInfos=questions)["authResults"]
        own = {"policyName": "own", "policyArn": PLACE + "policy/own"}
        assert (first["authDecision"], first["allowed"]["policies"]) == ("ALLOWED", [own])
        assert second["denied"] == {"implicitDeny": {"policies": [own]}, "explicitDeny": {"policies": []}}
        assert second["authInfo"] == questions[1]
        for bad in ({"cognitoIdentityPoolId": "x", "principal": arn}, {}):
            with pytest.raises(iot.exceptions.InvalidRequestException):
                iot.test_authorization(authInfos=questions, **bad)
