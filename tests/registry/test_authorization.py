"""The evaluator of policies: what AWS's pages say, question by question; what is not known never allows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyassay.registry import authorization, policy_patterns
from keyassay.registry.authorization import Context, Decision, Outcome
from keyassay.registry.policy_patterns import UNKNOWN
from keyassay.registry.policy_variables import Thing, connection_context

PLACE = "arn:aws:iot:us-east-1:111111111111:"
LAMP = Thing("lamp", "bulb", {"room": "hall", "Room": "cellar", "star": "a*b"})
NAMES = {
    "iot:certificate.subject.commonname": ("lamp",),
    "iot:certificate.subject.organization": ("Example",),
    "iot:certificate.subject.organization.1": ("Second",),
    "iot:certificate.subject.organization.list": ("Example", "Second"),
}

YES, NO, NEVER = Outcome.ALLOWED, Outcome.EXPLICIT_DENY, Outcome.IMPLICIT_DENY


def statement(effect: str = "Allow", resource: Any = "*", action: Any = "iot:Connect", **more: Any) -> dict[str, Any]:
    made = {"Effect": effect, **more}
    if "NotAction" not in more:
        made["Action"] = action
    if "NotResource" not in more:
        made["Resource"] = resource
    return made


def ask(
    *statements: dict[str, Any],
    client_id: str | None = "lamp",
    thing: Thing | None = LAMP,
    action: str = "iot:Connect",
    resource: str = PLACE + "client/lamp",
    **more: str,
) -> Decision:
    document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    context = connection_context(client_id, "ab" * 32, NAMES, thing, **more)
    return authorization.decide([authorization.policy(document)], action, resource, context)


@pytest.mark.parametrize(
    ("statements", "outcome"),
    [
        ([], NEVER),
        ([statement()], YES),
        ([statement("Deny")], NO),
        ([statement(), statement("Deny")], NO),
        ([statement("Deny"), statement()], NO),
        ([statement(action="iot:*")], YES),
        ([statement(action="IOT:CONNECT")], YES),
        ([statement(action="iot:C?nnect")], YES),
        ([statement(action="iot:Publish")], NEVER),
        ([statement(action=["iot:Publish", "iot:Connect"])], YES),
        ([statement(NotAction="iot:Publish")], YES),
        ([statement(NotAction=["iot:Connect"])], NEVER),
        ([statement(), statement("Deny", NotAction="iot:Connect")], YES),
        ([statement(), statement("Deny", NotAction="iot:Publish")], NO),
    ],
)  # fmt: skip
def test_effects_and_actions(statements: list[dict[str, Any]], outcome: Outcome) -> None:
    assert ask(*statements).outcome is outcome


@pytest.mark.parametrize(
    ("resource", "matches"),
    [
        ("client/lamp", True),
        ("client/Lamp", False),
        ("client/*", True),
        ("client/l*p", True),
        ("client/l?mp", True),
        ("client/l?p", False),
        ("client/la?mp", False),
        ("client/????", True),
        ("client/?????", False),
        ("client/*lamp*", True),
        ("client/**", True),
        ("client/lam", False),
        ("client/lamps", False),
        ("client/${iot:ClientId}", True),
        ("client/${IOT:clientid}", True),
        ("client/${iot:Connection.Thing.ThingName}", True),
        ("client/${iot:Connection.Thing.ThingTypeName}", False),
        ("client/${iot:Connection.Thing.Attributes[room]}", False),
        ("client/${iot:Connection.Thing.Attributes[nothing]}", False),
        ("client/${iot:Certificate.Subject.CommonName}", True),
        ("client/${iot:Certificate.Subject.Country}", False),
        ("client/${iot:Certificate.Subject.CommonName.1}", False),
        ("client/${iot:CertificateId}", False),
        ("client/${*}", False),
        ("client/${iot:ClientId", False),
        ("client/$", False),
    ],
)
def test_resources(resource: str, matches: bool) -> None:
    assert ask(statement(resource=PLACE + resource)).allowed is matches
    assert ask(statement(), statement("Deny", PLACE + resource)).allowed is not matches
    assert ask(statement(NotResource=PLACE + resource)).allowed is (not matches and not valueless(resource))


def valueless(resource: str) -> bool:
    return any(one in resource for one in ("nothing", "Country", "CommonName.1"))


@pytest.mark.parametrize(
    ("resource", "client_id"),
    [
        ("client/${iot:Connection.Thing.Attributes[room]}", "hall"),
        ("client/${iot:Connection.Thing.Attributes[Room]}", "cellar"),
        ("client/${iot:Connection.Thing.ThingTypeName}-${iot:ClientId}", None),
        ("client/${iot:Certificate.Subject.Organization.1}", "Second"),
        ("client/${iot:CertificateId}", "ab" * 32),
        ("client/a${*}b${?}c${$}{x}", "a*b?c${x}"),
    ],
)
def test_variables_are_taken_by_the_letter(resource: str, client_id: str | None) -> None:
    asked = client_id or "bulb-lamp"
    assert ask(statement(resource=PLACE + resource), resource=f"{PLACE}client/{asked}").allowed
    other = asked.replace("*", "xx").replace("?", "x") + "y"
    assert not ask(statement(resource=PLACE + resource), resource=f"{PLACE}client/{other}").allowed


def test_a_value_with_a_star_is_no_wildcard() -> None:
    resource = PLACE + "client/${iot:Connection.Thing.Attributes[star]}"
    assert ask(statement(resource=resource), resource=PLACE + "client/a*b").allowed
    assert not ask(statement(resource=resource), resource=PLACE + "client/axb").allowed


def test_a_variable_without_a_value_matches_nothing_and_one_that_nobody_knows_denies() -> None:
    thing_name = PLACE + "client/${iot:Connection.Thing.ThingName}"
    assert ask(statement(resource=thing_name), thing=None).outcome is NEVER
    assert ask(statement(), statement("Deny", thing_name), thing=None).allowed
    unknown = PLACE + "client/${aws:PrincipalTag/room}"
    found = ask(statement(resource=unknown))
    assert (found.outcome, found.missing, found.unclear) == (NEVER, ("aws:PrincipalTag/room",), True)
    assert ask(statement(), statement("Deny", unknown)).outcome is NO
    assert ask(statement(), statement("Deny", PLACE + "topic/${aws:PrincipalTag/room}")).allowed
    assert not ask(statement(NotResource=unknown)).allowed
    assert not ask(statement(), statement("Deny", NotResource=unknown)).allowed


ATTACHED = "iot:Connection.Thing.IsAttached"
ORGANIZATION = "iot:Certificate.Subject.Organization"


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({}, True),
        ({"Bool": {ATTACHED: "true"}}, True),
        ({"Bool": {ATTACHED: True}}, True),
        ({"Bool": {ATTACHED: ["true", "false"]}}, True),
        ({"Bool": {ATTACHED: "false"}}, False),
        ({"Bool": {ATTACHED: "maybe"}}, None),
        ({"StringEquals": {"iot:ClientId": "lamp"}}, True),
        ({"stringequals": {"IOT:CLIENTID": ["x", "lamp"]}}, True),
        ({"StringEquals": {"iot:ClientId": "l*"}}, False),
        ({"StringEquals": {"iot:ClientId": "${iot:Connection.Thing.ThingName}"}}, True),
        ({"StringEquals": {"iot:ClientId": "${iot:Connection.Thing.Attributes[no]}"}}, False),
        ({"StringEquals": {"iot:ClientId": "${aws:unknown}"}}, None),
        ({"StringNotEquals": {"iot:ClientId": "lamp"}}, False),
        ({"StringNotEquals": {"iot:ClientId": ["x", "y"]}}, True),
        ({"StringEqualsIgnoreCase": {"iot:ClientId": "LAMP"}}, True),
        ({"StringNotEqualsIgnoreCase": {"iot:ClientId": "LAMP"}}, False),
        ({"StringLike": {"iot:ClientId": "l*"}}, True),
        ({"StringLike": {"iot:ClientId": "L*"}}, False),
        ({"StringLike": {"iot:ClientId": "l${*}"}}, False),
        ({"StringNotLike": {"iot:ClientId": "l*"}}, False),
        ({"StringEquals": {"iot:Connection.Thing.Attributes[room]": "hall"}}, True),
        ({"StringEquals": {"iot:Connection.Thing.Attributes[ROOM]": "hall"}}, False),
        ({"StringEquals": {"iot:Connection.Thing.ThingTypeName": "bulb"}}, True),
        # a key that has no value
        ({"StringEquals": {"iot:Connection.Thing.Attributes[no]": "x"}}, False),
        ({"StringNotEquals": {"iot:Connection.Thing.Attributes[no]": "x"}}, True),
        ({"StringEqualsIfExists": {"iot:Connection.Thing.Attributes[no]": "x"}}, True),
        ({"StringEqualsIfExists": {"iot:Connection.Thing.Attributes[room]": "x"}}, False),
        ({"Null": {"iot:Connection.Thing.Attributes[no]": "true"}}, True),
        ({"Null": {"iot:Connection.Thing.Attributes[no]": "false"}}, False),
        ({"Null": {"iot:Connection.Thing.Attributes[room]": "false"}}, True),
        ({"Null": {"iot:Connection.Thing.Attributes[room]": "no"}}, None),
        # several values
        ({"StringEquals": {ORGANIZATION: "Example"}}, True),
        ({"StringEquals": {ORGANIZATION + ".List": "Example"}}, None),
        ({"ForAnyValue:StringEquals": {ORGANIZATION + ".List": "Second"}}, True),
        ({"ForAnyValue:StringEquals": {ORGANIZATION + ".List": "Third"}}, False),
        ({"ForAnyValue:StringNotEquals": {ORGANIZATION + ".List": "Second"}}, True),
        ({"ForAllValues:StringEquals": {ORGANIZATION + ".List": ["Second", "Example"]}}, True),
        ({"ForAllValues:StringLike": {ORGANIZATION + ".List": "S*"}}, False),
        ({"ForAllValues:StringNotLike": {ORGANIZATION + ".List": "T*"}}, True),
        ({"ForAllValues:StringEquals": {"iot:Certificate.Subject.Title.List": "x"}}, True),
        ({"ForAnyValue:StringEquals": {"iot:Certificate.Subject.Title.List": "x"}}, False),
        ({"ForNoValue:StringEquals": {"iot:ClientId": "lamp"}}, None),
        # addresses and numbers
        ({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, True),
        ({"IpAddress": {"aws:SourceIp": ["198.51.100.0/24", "192.0.2.7"]}}, True),
        ({"IpAddress": {"aws:SourceIp": "198.51.100.0/24"}}, False),
        ({"IpAddress": {"aws:SourceIp": "2001:db8::/32"}}, False),
        ({"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, False),
        ({"IpAddress": {"aws:SourceIp": "everywhere"}}, None),
        ({"NumericLessThan": {"x:n": "8"}}, True),
        ({"NumericGreaterThanEquals": {"x:n": "8"}}, False),
        ({"NumericEquals": {"x:n": 7}}, True),
        ({"NumericNotEquals": {"x:n": "seven"}}, None),
        # what is not known
        ({"StringEquals": {"aws:RequestedRegion": "us-east-1"}}, None),
        ({"StringNotEquals": {"aws:RequestedRegion": "us-east-1"}}, None),
        ({"StringEqualsIfExists": {"aws:RequestedRegion": "us-east-1"}}, None),
        ({"Null": {"aws:RequestedRegion": "true"}}, None),
        ({"DateLessThan": {"iot:ClientId": "2030-01-01T00:00:00Z"}}, None),
        ({"StringEquals": "lamp"}, None),
        ({"StringEquals": {"iot:ClientId": {"a": 1}}}, None),
        ({"Bool": {ATTACHED: "true"}, "StringEquals": {"iot:ClientId": "x"}}, False),
        ({"Bool": {ATTACHED: "true"}, "StringEquals": {"aws:who": "x"}}, None),
        ({"Bool": {ATTACHED: "false"}, "StringEquals": {"aws:who": "x"}}, False),
    ],
)
def test_conditions(condition: dict[str, Any], holds: bool | None) -> None:
    more = {"aws__sourceip": "192.0.2.7", "x__n": "7"}
    assert ask(statement(Condition=condition), **more).allowed is (holds is True)
    denied = ask(statement(), statement("Deny", Condition=condition), **more)
    assert denied.outcome is (YES if holds is False else NO)


def test_nobody_attached_is_known() -> None:
    assert not ask(statement(Condition={"Bool": {ATTACHED: "true"}}), thing=None).allowed
    assert ask(statement(Condition={"Bool": {ATTACHED: "false"}}), thing=None).allowed


def test_the_policies_that_had_a_say_are_named_by_their_position() -> None:
    policies = [
        authorization.policy(json.dumps({"Statement": one}))
        for one in (statement(), [statement("Deny", PLACE + "client/x")], statement("Deny"), statement())
    ]
    context = connection_context("lamp", "", NAMES, None)
    found = authorization.decide(policies, "iot:Connect", PLACE + "client/lamp", context)
    assert (found.allowing, found.denying, found.missing) == ((0, 3), (2,), ())


@pytest.mark.parametrize("document", ["", "no", "[]", "{}", '{"Statement": 7}', '{"Statement": ["x"]}', "[" * 100_000])
def test_what_is_no_policy_permits_nothing(document: str) -> None:
    found = authorization.decide([authorization.policy(document)], "iot:Connect", "x", Context({}))
    assert found.outcome is NEVER


def test_other_actions_are_evaluated_in_the_same_way() -> None:
    topic = PLACE + "topic/${iot:ClientId}/state"
    allowed = statement(resource=topic, action="iot:Publish")
    assert ask(allowed, action="iot:Publish", resource=PLACE + "topic/lamp/state").allowed
    assert not ask(allowed, action="iot:Publish", resource=PLACE + "topic/other/state").allowed
    assert not ask(allowed, action="iot:Subscribe", resource=PLACE + "topic/lamp/state").allowed


# Patterns

LETTERS = st.text(alphabet="ab*?", max_size=8)


def naive(pattern: str, text: str) -> bool:
    """What a pattern is, by its definition."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(naive(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and naive(pattern[1:], text[1:])


@given(LETTERS, st.text(alphabet="ab", max_size=10))
def test_patterns_match_as_they_are_defined(pattern: str, text: str) -> None:
    assert policy_patterns.Pattern(pattern).matches(text, lambda _: None) is naive(pattern, text)


@given(LETTERS, st.text(alphabet="ab", max_size=5), st.text(alphabet="ab", max_size=5))
def test_what_is_left_of_a_pattern_matches_what_is_left_of_a_text(pattern: str, beginning: str, rest: str) -> None:
    resolved = policy_patterns.Pattern(pattern).resolved(lambda _: None)
    assert resolved is not None
    left = policy_patterns.after(resolved[0], beginning)
    assert any(policy_patterns.fits(one, rest) for one in left) is naive(pattern, beginning + rest)


def test_an_unknown_variable_leaves_open_what_would_match() -> None:
    pattern = policy_patterns.Pattern("a${x}b")
    assert pattern.matches("a-b", lambda _: UNKNOWN) is None
    assert pattern.matches("c-b", lambda _: UNKNOWN) is False


def test_matching_takes_time_in_proportion_to_the_text() -> None:
    pattern = policy_patterns.Pattern("*a" * 900 + "b")
    assert not pattern.matches("a" * 20_000, lambda _: None)
