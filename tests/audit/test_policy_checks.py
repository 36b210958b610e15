"""Policies that permit too much, and policies whose denials miss: tables of documents."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyassay.audit.policy_checks import (
    BROAD_ACCESS,
    DENIAL_EVADED,
    WILDCARDS_IN_DENIAL,
    _fits,
    misconfigured,
    overly_permissive,
)

ARN = "arn:aws:iot:us-east-1:123456789012:"
NAME = "${iot:Connection.Thing.ThingName}"
ATTACHED = {"Bool": {"iot:Connection.Thing.IsAttached": "true"}}
DETACHED = {"Bool": {"iot:Connection.Thing.IsAttached": ["false"]}}
ELSEWHERE = {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}

Statement = dict[str, Any]


def allow(action: Any, resource: Any = None, **more: Any) -> Statement:
    return _statement("Allow", action, resource, more)


def deny(action: Any, resource: Any = None, **more: Any) -> Statement:
    return _statement("Deny", action, resource, more)


def _statement(effect: str, action: Any, resource: Any, more: dict[str, Any]) -> Statement:
    def full(value: Any) -> Any:
        if isinstance(value, list):
            return [full(one) for one in value]
        return value if value.startswith(("*", "arn:")) else ARN + value

    made = {"Effect": effect, **({"Action": action} if action else {}), **more}
    if resource is not None:
        made["Resource"] = full(resource)
    if "NotResource" in more:
        made["NotResource"] = full(more["NotResource"])
    return made


def document(*statements: Statement) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


BROAD: dict[str, list[Statement]] = {
    "everything": [allow("iot:*", "*")],
    "everything, of all services": [allow("*", "*")],
    "connect as anyone": [allow("iot:Connect", "client/*")],
    "connect as anyone, in another case": [allow("IOT:conNECT", "client/*")],
    "connect as anyone, by wildcards in the action": [allow("iot:C*n?ect", "client/*")],
    "connect under the name that the client gives": [allow("iot:Connect", "client/${iot:ClientId}")],
    "the same with the variable in another case": [allow("iot:Connect", "client/${iot:clientid}")],
    "connect as anyone who is not attached": [allow("iot:Connect", "client/*", Condition=DETACHED)],
    "connect as anyone from some address": [allow("iot:Connect", "client/*", Condition=ELSEWHERE)],
    "connect as anyone with one character": [allow("iot:Connect", "client/?*")],
    "connect in any region": [allow("iot:Connect", "arn:aws:iot:*:*:client/*")],
    "wildcard over the separators of the ARN": [allow("iot:Connect", "arn:aws:iot:*client/*")],
    "one of a list of resources": [allow("iot:Connect", ["client/one", "client/*"])],
    "one of a list of actions": [allow(["iot:Receive", "iot:Connect"], "*")],
    "two statements that cover every name": [
        allow("iot:Connect", "client/?"),
        allow("iot:Connect", "client/??*"),
    ],
    "all actions but one": [allow(None, "client/*", NotAction="iot:Publish")],
    "all resources but one": [allow("iot:Connect", NotResource="client/one")],
    "publish on all reserved topics": [allow("iot:Publish", "topic/$aws/things/*")],
    "publish on all topics": [allow("iot:Publish", "topic/*")],
    "update the shadow of any device": [allow("iot:Publish", "topic/$aws/things/*/shadow/update")],
    "a topic of any device that is not in our list": [allow("iot:Publish", "topic/$aws/things/*/new/topic")],
    "publish on all reserved topics, attached": [allow("iot:Publish", "topic/$aws/things/*", Condition=ATTACHED)],
    "subscribe to all reserved topics": [allow("iot:Subscribe", "topicfilter/$aws/things/*")],
    "subscribe with #": [allow("iot:Subscribe", "topicfilter/$aws/things/#")],
    "subscribe with +": [allow("iot:Subscribe", "topicfilter/$aws/things/+/shadow/update")],
    "subscribe with + twice": [allow("iot:Subscribe", "topicfilter/$aws/+/+/shadow/update")],
    "subscribe with # for all that is reserved": [allow("iot:Subscribe", "topicfilter/$aws/#")],
    "subscribe with +, for any topic": [allow("iot:Subscribe", "topicfilter/$aws/things/+/jobs/*")],
    "read any shadow": [allow("iot:GetThingShadow", "thing/*")],
    "read any named shadow of one name": [allow("iot:GetThingShadow", "thing/*/config")],
    "change any job": [allow("iot:UpdateJobExecution", "thing/*")],
    "jobs under the name of their own service": [allow("iotjobsdata:*", "thing/*")],
    "denied for one device only": [allow("iot:Connect", "client/*"), deny("iot:Connect", "client/one")],
    "denied under an unknown condition": [
        allow("iot:Connect", "client/*"),
        deny("iot:Connect", "client/*", Condition=ELSEWHERE),
    ],
    "denied in another region": [
        allow("iot:Connect", "client/*"),
        deny("iot:Connect", "arn:aws:iot:eu-west-1:123456789012:client/*"),
    ],
    "denied for another action": [allow("iot:Connect", "client/*"), deny("iot:Publish", "*")],
    "reserved topics denied but for one": [
        allow("iot:Publish", "topic/*"),
        deny("iot:Publish", NotResource="topic/$aws/things/*/shadow/get"),
    ],
    "for those who are attached only connecting is bounded": [allow("iot:*", "*", Condition=ATTACHED)],
}

COMPLIANT: dict[str, list[Statement]] = {
    "nothing": [],
    "nothing allowed": [deny("*", "*")],
    "connect as the thing that is attached": [allow("iot:Connect", f"client/{NAME}", Condition=ATTACHED)],
    "connect under any name, if attached": [allow("iot:Connect", "client/${iot:ClientId}", Condition=ATTACHED)],
    "attached, as a JSON boolean in a list": [
        allow("iot:Connect", "client/${iot:ClientId}", Condition={"Bool": {"iot:Connection.Thing.IsAttached": [True]}})
    ],
    "attached, in another case, and one condition more": [
        allow(
            "iot:Connect",
            "client/*",
            Condition={**ELSEWHERE, "bool": {"IOT:connection.thing.isattached": "True"}},
        )
    ],
    "connect as the thing": [allow("iot:Connect", f"client/{NAME}")],
    "connect as what the certificate says": [allow("iot:Connect", "client/${iot:Certificate.Subject.CommonName}")],
    "one client": [allow("iot:Connect", "client/one")],
    "clients of a plant": [allow("iot:Connect", "client/plant3-*")],
    "a star that is meant literally": [allow("iot:Connect", "client/${*}")],
    "clients with short names": [allow("iot:Connect", "client/???")],
    "shadow of the own thing": [
        allow(
            ["iot:Publish", "iot:Subscribe"],
            [f"topic/$aws/things/{NAME}/shadow/*", f"topicfilter/$aws/things/{NAME}/shadow/*"],
        )
    ],
    "topics under the client's id": [allow("iot:Publish", "topic/$aws/things/${iot:ClientId}/shadow/update")],
    "receive": [allow("iot:Receive", "topic/$aws/things/*")],
    "receive on everything": [allow("iot:Receive", "*")],
    "things by name": [allow("iot:GetThingShadow", ["thing/MyThing1", "thing/MyThing2"])],
    "own topics": [allow("iot:Publish", "topic/telemetry/*"), allow("iot:Subscribe", "topicfilter/telemetry/#")],
    "wildcards at the first level do not reach reserved topics": [
        allow("iot:Subscribe", ["topicfilter/#", "topicfilter/+/things/+/shadow/update"])
    ],
    "nobody can publish with a wildcard": [allow("iot:Publish", "topic/$aws/things/+/shadow/update")],
    "an action that does not exist on such a resource": [allow("iot:Publish", "client/*")],
    "another service": [allow("s3:*", "*")],
    "taken back": [allow("iot:Connect", "client/*"), deny("iot:*", "*")],
    "taken back from those who are not attached": [
        allow("iot:Connect", "client/*"),
        deny("iot:Connect", "client/*", Condition=DETACHED),
    ],
    "taken back before it is given": [deny("iot:Connect", "*"), allow("iot:Connect", "client/*")],
    "all but one action, and that one is all there is": [allow(None, "client/*", NotAction="iot:con*")],
    "taken back by what is not excepted": [
        allow("iot:Connect", "client/*"),
        deny(None, "*", NotAction="iot:Receive"),
    ],
    "reserved topics taken back": [
        allow(["iot:Publish", "iot:Subscribe"], ["topic/*", "topicfilter/*"]),
        deny(["iot:Publish", "iot:Subscribe"], ["topic/$aws/*", "topicfilter/$aws/*"]),
    ],
    "taken back but for one client": [
        allow("iot:Connect", "client/*"),
        deny("iot:Connect", NotResource="client/one"),
    ],
}


@pytest.mark.parametrize("statements", BROAD.values(), ids=BROAD)
def test_broad(statements: list[Statement]) -> None:
    assert overly_permissive(document(*statements)) == BROAD_ACCESS


@pytest.mark.parametrize("statements", COMPLIANT.values(), ids=COMPLIANT)
def test_compliant(statements: list[Statement]) -> None:
    assert overly_permissive(document(*statements)) is None


def test_one_statement_need_not_be_a_list() -> None:
    assert overly_permissive(json.dumps({"Statement": allow("iot:*", "*")})) == BROAD_ACCESS


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"Statement": [1, null]}', '{"Statement": "x"}', "[" * 5000])
def test_what_is_no_policy_permits_nothing(text: str) -> None:
    assert overly_permissive(text) is None
    assert misconfigured(text) == []


SUBSCRIBE = allow("iot:Subscribe", "topicfilter/building/*")
RECEIVE = allow("iot:Receive", "topic/building/*")
NO_ROOM = deny("iot:Subscribe", "topicfilter/building/room/*")

MISCONFIGURED: dict[str, tuple[list[Statement], list[str]]] = {
    "AWS's first example": (
        [SUBSCRIBE, deny("iot:Subscribe", "topicfilter/building/room/#"), RECEIVE],
        [WILDCARDS_IN_DENIAL],
    ),
    "AWS's second example": ([SUBSCRIBE, NO_ROOM, RECEIVE], [DENIAL_EVADED]),
    "AWS's repaired one": ([SUBSCRIBE, NO_ROOM, RECEIVE, deny("iot:Receive", "topic/building/room/*")], []),
    "in any order and in lists": ([RECEIVE, NO_ROOM, allow(["iot:Subscribe"], ["topicfilter/*"])], [DENIAL_EVADED]),
    "+ in a denial": ([deny("iot:Publish", ["topic/x", "topic/+/y"])], [WILDCARDS_IN_DENIAL]),
    "both": (
        [SUBSCRIBE, NO_ROOM, RECEIVE, deny("iot:Receive", "topic/building/room/#")],
        [WILDCARDS_IN_DENIAL, DENIAL_EVADED],
    ),
    "MQTT's wildcards in what is allowed": ([allow("iot:Subscribe", "topicfilter/building/#"), RECEIVE], []),
    "client ids may hold the characters": ([deny("iot:Connect", "client/a+b")], []),
    "a + in a variable": ([deny("iot:Publish", "topic/${iot:Connection.Thing.Attributes[a+b]}")], []),
    "one topic denied": ([SUBSCRIBE, deny("iot:Subscribe", "topicfilter/building/room"), RECEIVE], [DENIAL_EVADED]),
    "only single filters are allowed": (
        [allow("iot:Subscribe", "topicfilter/building/hall"), NO_ROOM, RECEIVE],
        [],
    ),
    "a filter with + is allowed": ([allow("iot:Subscribe", "topicfilter/building/+/w"), NO_ROOM, RECEIVE], [DENIAL_EVADED]),
    "nothing can be received": ([SUBSCRIBE, NO_ROOM], []),
    "other topics can be received": ([SUBSCRIBE, NO_ROOM, allow("iot:Receive", "topic/building/hall/*")], []),
    "nothing allowed touches what is denied": (
        [SUBSCRIBE, deny("iot:Subscribe", "topicfilter/garage/*"), RECEIVE, allow("iot:Receive", "topic/garage/*")],
        [],
    ),
    "everything is denied": ([SUBSCRIBE, RECEIVE, deny("iot:*", "*")], []),
    "all filters are denied": ([SUBSCRIBE, RECEIVE, deny("iot:Subscribe", "topicfilter/*")], []),
    "denied by all actions but one": (
        [SUBSCRIBE, RECEIVE, deny(None, "topicfilter/building/room/*", NotAction="iot:Publish")],
        [DENIAL_EVADED],
    ),
    "another action is denied": ([SUBSCRIBE, RECEIVE, deny("iot:Publish", "topicfilter/building/room/*")], []),
    "both denied under one condition": (
        [
            SUBSCRIBE,
            RECEIVE,
            {**NO_ROOM, "Condition": ELSEWHERE},
            deny("iot:Receive", "topic/building/room/*", Condition=ELSEWHERE),
        ],
        [],
    ),
    "receiving denied under another condition": (
        [SUBSCRIBE, RECEIVE, NO_ROOM, deny("iot:Receive", "topic/building/room/*", Condition=ELSEWHERE)],
        [DENIAL_EVADED],
    ),
    "what is reserved is not reached from the first level": (
        [
            allow("iot:Subscribe", ["topicfilter/#", "topicfilter/+/a"]),
            deny("iot:Subscribe", "topicfilter/$aws/*"),
            allow("iot:Receive", "*"),
        ],
        [],
    ),
    "own topics denied by a variable": (
        [
            allow("iot:Subscribe", "topicfilter/x/*"),
            deny("iot:Subscribe", f"topicfilter/x/{NAME}/*"),
            allow("iot:Receive", "topic/x/*"),
        ],
        [DENIAL_EVADED],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("statements", "reasons"), MISCONFIGURED.values(), ids=MISCONFIGURED)
def test_misconfigured(statements: list[Statement], reasons: list[str]) -> None:
    assert misconfigured(document(*statements)) == reasons


def reference(pattern: str, text: str) -> bool:
    """The textbook's definition of wildcards, by recursion."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return reference(pattern[1:], text) or (bool(text) and reference(pattern, text[1:]))
    return bool(text) and pattern[0] in ("?", text[0]) and reference(pattern[1:], text[1:])


@given(st.text("a*?b.", max_size=9), st.text("ab.\n", max_size=9))
def test_wildcards_are_those_of_the_textbook(pattern: str, text: str) -> None:
    assert _fits(pattern, text, "") == reference(pattern, text)


def test_hostile_patterns_end() -> None:
    """Not a matter of speed: expressions that backtrack would not end within the age of the sun."""
    stars = "arn:aws:iot:us-east-1:123456789012:client/" + "*z" * 800 + "!"
    started = time.monotonic()
    assert overly_permissive(document(allow("iot:*", stars), deny("*" * 500 + "x", "*a" * 500))) is None
    assert time.monotonic() - started < 60


RESOURCES = ["*", *(ARN + one for one in ("client/*", "client/one", "client/${iot:ClientId}", "topic/$aws/*", "topic/*",
             "topicfilter/$aws/things/+/shadow/get", "topicfilter/*", "thing/*", "thing/one"))]  # fmt: skip
ACTIONS = ["*", "iot:*", "iot:Connect", "iot:Publish", "iot:Subscribe", "iot:GetThingShadow", "iot:Receive"]


@st.composite
def some_statement(draw: st.DrawFn) -> Statement:
    """A statement that says something about what the check looks at."""
    action = draw(st.sampled_from(["Action", "Action", "NotAction"]))
    resource = draw(st.sampled_from(["Resource", "Resource", "NotResource"]))
    made: Statement = {
        "Effect": draw(st.sampled_from(["Allow", "Allow", "Deny"])),
        action: draw(st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=2)),
        resource: draw(st.lists(st.sampled_from(RESOURCES), min_size=1, max_size=2)),
    }
    condition = draw(st.sampled_from([None, None, ATTACHED, DETACHED, ELSEWHERE]))
    return made if condition is None else {**made, "Condition": condition}


policies = st.lists(some_statement(), max_size=3)


@given(policies, some_statement())
def test_more_that_is_allowed_makes_no_policy_compliant(statements: list[Statement], more: Statement) -> None:
    after = overly_permissive(document(*statements, {**more, "Effect": "Allow"}))
    assert after or not overly_permissive(document(*statements))


@given(policies, some_statement())
def test_more_that_is_denied_makes_no_policy_broad(statements: list[Statement], more: Statement) -> None:
    before = overly_permissive(document(*statements))
    assert before or not overly_permissive(document(*statements, {**more, "Effect": "Deny"}))


@given(policies)
def test_the_order_of_statements_does_not_matter(statements: list[Statement]) -> None:
    assert overly_permissive(document(*statements)) == overly_permissive(document(*statements[::-1]))
    assert misconfigured(document(*statements)) == misconfigured(document(*statements[::-1]))
