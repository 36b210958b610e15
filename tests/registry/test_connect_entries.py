"""Entries for gates: what they hold, what they leave out, and that they never permit more than the policies do."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keyassay.registry import authorization
from keyassay.registry.connect_entries import Attachment, Entry, Holder, client_id_problem, compiled
from keyassay.registry.policy_variables import Thing

PLACE = "arn:aws:iot:us-east-1:111111111111:client/"
ID = "ab" * 32
#: names of all things of the account
THINGS = {"lamp", "door", "other"}
THING_NAME = "${iot:Connection.Thing.ThingName}"
ATTACHED = {"Bool": {"iot:Connection.Thing.IsAttached": "true"}}


def policy(*statements: dict[str, Any]) -> authorization.Policy:
    return authorization.policy(json.dumps({"Statement": list(statements)}))


def allow(*client_ids: str, effect: str = "Allow", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"Effect": effect, "Action": "iot:Connect", **more}
    if "NotResource" not in more:
        made["Resource"] = [one if one.startswith(("arn", "*")) else PLACE + one for one in client_ids]
    return made


def deny(*client_ids: str, **more: Any) -> dict[str, Any]:
    return allow(*client_ids, effect="Deny", **more)


def holder(*statements: dict[str, Any], things: str = "", exclusive: bool = False, group: Any = ()) -> Holder:
    attachments = tuple(
        Attachment(Thing(name, "bulb", {"room": "hall"}), exclusive, (policy(*group),) if group else ())
        for name in things.split()
    )
    names = {"iot:certificate.subject.commonname": ("lamp-7",)}
    return Holder(ID, PLACE, (policy(*statements),), attachments, names)


def gate_permits(entry: Entry, client_id: str) -> bool:
    """How a gate's maps decide, rule by rule."""
    if entry["state"] != "ACTIVE" or not client_id or any(one in client_id for one in "/+#"):
        return False
    if client_id in entry["things"]:
        return True
    if client_id in THINGS:
        return False
    if client_id in entry["exact"] or entry["anything"]:
        return True
    return any(client_id.startswith(one) for one in entry["prefixes"])


def shown(entry: Entry) -> list[str]:
    """The entry in one line a permission."""
    found = [f"thing {one}" for one in entry["things"]] + [f"exact {one}" for one in entry["exact"]]
    return [*found, *(f"prefix {one}" for one in entry["prefixes"]), *(["anything"] if entry["anything"] else [])]


@pytest.mark.parametrize(
    ("given_", "expected", "problems"),
    [
        (holder(allow(THING_NAME), things="lamp door"), ["thing door", "thing lamp"], 0),
        (holder(allow(THING_NAME)), [], 1),
        (holder(allow(THING_NAME, Condition=ATTACHED), things="lamp"), ["thing lamp"], 0),
        (holder(allow("*", Condition=ATTACHED), things="lamp"), ["thing lamp"], 0),
        (holder(allow("*")), ["anything"], 0),
        (holder(allow("*", "abc*", "x")), ["anything"], 0),
        (holder(allow("${iot:ClientId}")), ["anything"], 0),
        (holder(allow("arn:aws:iot:*:111111111111:*")), ["anything"], 0),
        (holder(allow("arn:aws:*t/${iot:ClientId}")), ["anything"], 0),
        (holder(allow("arn:aws:iot:*:222222222222:*")), ["prefix :222222222222:"], 1),
        (holder(allow("arn:aws:${iot:ClientId}")), [], 1),
        (holder(allow("x${iot:ClientId}")), [], 1),
        (holder(allow("abc*", "abcd*", "b*", "abcx", "c")), ["exact c", "prefix abc", "prefix b"], 0),
        (holder(allow("a", "b"), things="lamp"), ["exact a", "exact b"], 0),
        (holder(allow("lamp", "b"), things="lamp"), ["thing lamp", "exact b"], 0),
        (holder(allow("${iot:Certificate.Subject.CommonName}")), ["exact lamp-7"], 0),
        (holder(allow("${iot:Certificate.Subject.Country}", "a")), ["exact a"], 0),
        (holder(allow("${iot:Connection.Thing.Attributes[room]}"), things="lamp"), [], 1),
        # an exclusive thing is known under every client id
        (holder(allow("${iot:Connection.Thing.Attributes[room]}-*"), things="lamp", exclusive=True), ["prefix hall-"], 0),
        (holder(allow("*", Condition=ATTACHED), things="lamp", exclusive=True), ["thing lamp", "anything"], 0),
        # what maps cannot express
        (holder(allow("a*b", "c")), ["exact c"], 1),
        (holder(allow("a?*")), [], 1),
        (holder(allow("a", "*", Condition={"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}})), [], 2),
        (holder(allow("a${aws:who}", "c")), ["exact c"], 1),
        (holder(allow("*", Condition={"StringEquals": {"iot:ClientId": ["a", "b"]}})), ["exact a", "exact b"], 0),
        (holder(allow("*", Condition={"StringLike": {"iot:ClientId": "a*"}})), [], 1),
        (holder(allow(NotResource=PLACE + "x")), [], 1),
        (holder(allow(NotResource="arn:aws:iot:us-east-1:111111111111:topic/*")), ["anything"], 0),
        # client ids that a gate refuses
        (holder(allow("a/b", "a+", "#", "", "a b", "a\n", "c")), ["exact c"], 6),
        (holder(allow("a/*", "é*", "\x01*", "x" * 129, "y" * 129 + "*")), ["prefix é"], 4),
        (holder(allow("arn:aws:iot:us-east-1:*client/abc")), ["exact abc"], 0),
        # denials
        (holder(allow("*"), deny("admin"), things="lamp"), ["thing lamp"], 1),
        (holder(allow("a*", "b*"), deny("admin")), ["prefix b"], 1),
        (holder(allow("a*", "b*"), deny("a*")), ["prefix b"], 0),
        (holder(allow("abc*"), deny("a*")), [], 1),
        (holder(allow("*"), deny(PLACE + "*/*")), ["anything"], 0),
        (holder(allow("a*"), deny("?b*")), [], 1),
        (holder(allow("a", "b"), deny("a")), ["exact b"], 0),
        (holder(allow("*"), deny("${iot:ClientId}x")), [], 1),
        (holder(allow("*"), deny("*", Condition={"Bool": {"iot:Connection.Thing.IsAttached": "false"}}), things="lamp"),
         ["thing lamp"], 0),
        (holder(allow("*"), deny("x", Condition=ATTACHED)), ["anything"], 0),
        (holder(allow("*"), deny(NotResource=PLACE + "a*")), [], 1),
        (holder(allow("a*", "ab*"), deny(NotResource=PLACE + "a*")), ["prefix a"], 0),
        (holder(allow("a*", "b*"), deny(NotResource=PLACE + "a*")), ["prefix a"], 0),
        # groups
        (holder(things="lamp", group=(allow(THING_NAME),)), ["thing lamp"], 0),
        (holder(things="lamp", group=(allow("*"),)), ["thing lamp"], 0),
        (holder(allow("*"), things="lamp", group=(deny("*"),)), [], 1),
        (holder(allow("a", "b"), things="lamp", group=(deny("a"),)), ["exact b"], 0),
    ],
)  # fmt: skip
def test_entries(given_: Holder, expected: list[str], problems: int) -> None:
    entry = compiled(given_, "ACTIVE")
    assert shown(entry) == expected, entry
    assert entry["state"] == ("ACTIVE" if expected else "BLOCKED")
    assert len(entry["problems"]) == problems, entry["problems"]


@pytest.mark.parametrize("status", ["INACTIVE", "REVOKED", "PENDING_TRANSFER", "PENDING_ACTIVATION", "DELETED"])
def test_only_active_certificates_connect(status: str) -> None:
    assert compiled(holder(allow("*"), things="lamp"), status) == {
        "certificateId": ID, "state": "BLOCKED", "things": [], "exact": [], "prefixes": [], "anything": False,
        "problems": [f"the certificate is {status}"],
    }  # fmt: skip


def test_problems_name_what_is_left_out() -> None:
    found = compiled(holder(allow("*", "a/b"), deny("admin")), "ACTIVE")["problems"]
    assert found == [
        "arbitrary client ids are left out: a denial concerns some of them",
        "client id 'a/b' is left out: it has one of / + #",
    ]
    found = compiled(holder(allow("a", Condition={"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}})), "ACTIVE")[
        "problems"
    ]
    assert found == ["client id 'a' is left out: a gate cannot evaluate a condition (aws:SourceIp)"]


# Never more than the policies

PIECES = st.sampled_from(
    ["a", "b", "ab", "lamp", "door", "other", "*", "?", "/", "${iot:ClientId}", THING_NAME, "${aws:who}", "${*}",
     "${iot:Connection.Thing.Attributes[room]}", "${iot:Certificate.Subject.CommonName}",
     "${iot:Certificate.Subject.Country}", "hall", "-7", ""]
)  # fmt: skip
RESOURCES = st.one_of(
    st.lists(PIECES, min_size=1, max_size=4).map(lambda parts: PLACE + "".join(parts)),
    st.sampled_from(
        ["*", "arn:aws:iot:*", "arn:*client/ab", "arn:aws:iot:us-east-1:111111111111:topic/*", "*${iot:ClientId}",
         "arn:aws:${iot:ClientId}", "*a", "a*"]
    ),
)  # fmt: skip
KEYS = st.sampled_from(
    ["iot:ClientId", "iot:Connection.Thing.ThingName", "iot:Connection.Thing.IsAttached", "aws:SourceIp",
     "iot:Certificate.Subject.CommonName", "iot:Connection.Thing.ThingTypeName"]
)  # fmt: skip
VALUES = st.sampled_from(["a", "b", "a*", "lamp", "door", "true", "false", "bulb", "${iot:ClientId}", THING_NAME])
OPERATORS = st.sampled_from(
    ["StringEquals", "StringNotEquals", "StringLike", "StringNotLike", "Bool", "Null", "ForAnyValue:StringEquals",
     "ForAllValues:StringEquals", "StringEqualsIfExists", "IpAddress", "Whatever", "StringEqualsIgnoreCase"]
)  # fmt: skip
CONDITIONS = st.dictionaries(OPERATORS, st.dictionaries(KEYS, st.lists(VALUES, min_size=1, max_size=2)), max_size=2)


@st.composite
def statements(draw: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"Effect": draw(st.sampled_from(["Allow", "Allow", "Deny"])), "Action": "iot:Connect"}
    key = "NotResource" if draw(st.integers(0, 7)) == 0 else "Resource"
    made[key] = draw(st.lists(RESOURCES, min_size=1, max_size=3))
    if draw(st.integers(0, 2)) == 0:
        made["Condition"] = draw(CONDITIONS)
    return made


@st.composite
def holders(draw: Any) -> Holder:
    own = tuple(policy(*draw(st.lists(statements(), max_size=3))) for _ in range(draw(st.integers(0, 2))))
    exclusive = draw(st.booleans())
    names = draw(st.lists(st.sampled_from(["lamp", "door"]), unique=True, max_size=1 if exclusive else 2))
    attachments = tuple(
        Attachment(
            Thing(name, draw(st.sampled_from([None, "bulb"])), draw(st.sampled_from([{}, {"room": "hall"}]))),
            exclusive,
            tuple(policy(*draw(st.lists(statements(), max_size=2))) for _ in range(draw(st.integers(0, 1)))),
        )
        for name in names
    )
    subject = draw(st.sampled_from([None, {}, {"iot:certificate.subject.commonname": ("lamp-7",)}]))
    return Holder(ID, PLACE, own, attachments, subject)


CLIENT_IDS = st.one_of(
    st.lists(st.sampled_from(["a", "b", "lamp", "door", "other", "hall", "-7", "/", "x", "*", "?"]), max_size=4).map(
        "".join
    ),
    st.text(max_size=6),
)
PROBES = ("a", "b", "ab", "lamp", "door", "other", "lamp-7", "hall", "aa", "ba", "*", "x")


@settings(max_examples=600, deadline=None)
@example(holder(allow("arn:aws:${iot:ClientId}")), ["iot:us-east-1:111111111111:client"])
@example(holder(allow(NotResource="${iot:Connection.Thing.ThingName}")), [])
@given(holders(), st.lists(CLIENT_IDS, max_size=8))
def test_a_gate_never_permits_more_than_the_policies(given_: Holder, client_ids: list[str]) -> None:
    entry = compiled(given_, "ACTIVE")
    for client_id in {*client_ids, *PROBES}:
        if gate_permits(entry, client_id):
            assert given_.decide(client_id).allowed, (client_id, entry)
    for one in (*entry["exact"], *entry["prefixes"], *entry["things"]):
        assert not client_id_problem(one)


@settings(max_examples=300, deadline=None)
@given(holders())
def test_nothing_is_left_out_silently(given_: Holder) -> None:
    """Without problems, the gate decides as the policies do, but for names of foreign things."""
    entry = compiled(given_, "ACTIVE")
    if entry["state"] == "ACTIVE" and not entry["problems"]:
        attached = {one.thing.name for one in given_.attachments}
        for client_id in PROBES:
            if client_id not in THINGS - attached:
                assert gate_permits(entry, client_id) is given_.decide(client_id).allowed, (client_id, entry)


def test_a_policy_of_a_fleet_is_read_once() -> None:
    shared = (policy(allow(THING_NAME, Condition=ATTACHED), allow("spare-*")),)
    fleet = [
        Holder(f"{number:064x}", PLACE, shared, (Attachment(Thing(f"device-{number}")),)) for number in range(20_000)
    ]
    began = time.process_time()
    entries = [compiled(one, "ACTIVE") for one in fleet]
    assert time.process_time() - began < 15  # 0.4 s where it was written
    assert entries[7]["things"] == ["device-7"]
    assert entries[7]["prefixes"] == ["spare-"]
