"""What is wrong with a policy's document: two pure functions, text in, reason codes out.

``overly_permissive`` asks whether the policy lets its holder act for any device: whether some resource of a device that
the policy does not know is permitted after all denials, for every name that a device can have. ``misconfigured`` asks
whether a denial fails because MQTT's wildcards and a policy's wildcards are not the same thing.

A policy knows ``*`` (any characters, also ``/`` and ``:``) and ``?`` (one character). MQTT's ``+`` and ``#`` are
characters like others to it. Rules and examples: AWS IoT Device Defender's pages on IOT_POLICY_OVERLY_PERMISSIVE_CHECK
and IOT_POLICY_POTENTIAL_MISCONFIGURATION_CHECK. Decided here, where they say nothing:

- A pattern that covers some names only (``client/plant3-*``) is not broad.
- A variable is a text that fits no foreign device, but for ``iot:ClientId``, which a client chooses when it connects.
- A condition that is not known to hold or to fail counts as held in what is allowed, and as failed in what is denied.
  ``iot:Connection.Thing.IsAttached`` is known: who connects under a foreign name is not attached to that thing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from keyassay.registry.authorization import texts
from keyassay.registry.policy_patterns import pieces, read

BROAD_ACCESS = "ALLOWS_BROAD_ACCESS_TO_IOT_DATA_PLANE_ACTIONS"
WILDCARDS_IN_DENIAL = "POLICY_CONTAINS_MQTT_WILDCARDS_IN_DENY_STATEMENT"
DENIAL_EVADED = "TOPIC_FILTERS_INTENDED_TO_DENY_ALLOWED_USING_WILDCARDS"

#: names of things and clients that no policy names; a pattern that covers them all covers every name
_STRANGERS = ("q", "Xy_keyassay:probe-7", "z" * 128)
#: topics below $aws/things/NAME/ that a device publishes or subscribes to
_TOPICS = (
    "shadow/get",
    "shadow/update",
    "shadow/delete",
    "shadow/get/accepted",
    "shadow/update/accepted",
    "shadow/update/delta",
    "shadow/update/documents",
    "shadow/name/w/get",
    "shadow/name/w/update",
    "shadow/name/w/delete",
    "jobs/get",
    "jobs/start-next",
    "jobs/notify",
    "jobs/notify-next",
    "jobs/w/get",
    "jobs/w/update",
    "defender/metrics/json",
    "tunnels/notify",
)
#: actions on a thing's shadow and jobs over HTTPS
_THING_ACTIONS = tuple(
    f"{service}:{action}"
    for service, actions in (
        ("iot", ("getthingshadow", "updatethingshadow", "deletethingshadow", "listnamedshadowsforthing")),
        *(
            (
                service,
                (
                    "describejobexecution",
                    "getpendingjobexecutions",
                    "startnextpendingjobexecution",
                    "updatejobexecution",
                ),
            )
            for service in ("iot", "iotjobsdata")
        ),
    )
    for action in actions
)
_ARN = re.compile(r"arn:([^:]*):iot:([^:]*):([^:]*):(.*)", re.DOTALL)
_ATTACHED = "iot:connection.thing.isattached"


@dataclass(frozen=True, slots=True)
class _Statement:
    """One statement; the lists are patterns, ``except_...`` says that they are what it does not apply to."""

    allows: bool
    actions: tuple[str, ...]
    except_actions: bool
    resources: tuple[str, ...]
    except_resources: bool
    condition: Mapping[str, Any]


@dataclass(slots=True)
class _Statements:
    """The statements of a document, and by action those that are about it (none if nothing of that is allowed)."""

    all: list[_Statement]
    _about: dict[str, list[_Statement]] = field(default_factory=dict)

    def about(self, action: str) -> list[_Statement]:
        """The statements that apply to an action."""
        found = self._about.get(action)
        if found is None:
            found = [one for one in self.all if _covers(one, action)]
            self._about[action] = found = found if any(one.allows for one in found) else []
        return found


@dataclass(frozen=True, slots=True)
class _Question:
    """May this be done?

    Attributes:
        action: lower case.
        arn: of the resource.
        client_id: what ``iot:ClientId`` stands for.
        attached: whether the certificate is attached to the thing of the client's name.
        condition: one that is taken to hold.
    """

    action: str
    arn: str
    client_id: str
    attached: bool
    condition: Mapping[str, Any] = field(default_factory=dict)


def overly_permissive(document: str) -> str | None:
    """Whether a policy lets its holder act for any device: the reason code, or None.

    Args:
        document: a policy as ``registry.policies.check_document`` lets pass; anything else permits nothing.
    """
    statements = _statements(document)
    allowed = list(
        dict.fromkeys(one for statement in statements.all if statement.allows for one in statement.resources)
    )
    for place in _places(statements):
        if any(_for_all_strangers(statements, questions) for questions in _broad_questions(place, allowed, statements)):
            return BROAD_ACCESS
    return None


def _for_all_strangers(statements: _Statements, questions: Iterable[_Question]) -> bool:
    return all(_permitted(statements, question) for question in questions)


def _broad_questions(place: str, allowed: list[str], statements: _Statements) -> Iterator[list[_Question]]:
    """Groups of questions, of actions that are allowed at all; a policy that says yes to all of one is too broad."""
    yield [_Question("iot:connect", f"{place}client/{name}", name, attached=False) for name in _STRANGERS]
    topics = dict.fromkeys((*_TOPICS, *_endings(allowed, "$aws/things/")))
    shadows = dict.fromkeys(("w", *_endings(allowed, "thing/")))
    things = ["{}", *(f"{{}}/{name}" for name in shadows)]
    for attached in (True, False):
        own = _stand_in("iot:ClientId")

        def strangers(action: str, form: str, own: str = own, attached: bool = attached) -> list[_Question]:
            return [_Question(action, place + form.replace("{}", name, 1), own, attached) for name in _STRANGERS]

        if statements.about("iot:publish"):
            for topic in topics:
                yield strangers("iot:publish", f"topic/$aws/things/{{}}/{topic}")
        if statements.about("iot:subscribe"):
            for topic in topics:
                yield strangers("iot:subscribe", f"topicfilter/$aws/things/{{}}/{topic}")
            filters = ["$aws/things/#", "$aws/things/+/#", *(f"$aws/things/+/{topic}" for topic in topics)]
            for text in dict.fromkeys([*filters, *_filters_over_all_things(allowed)]):
                yield [_Question("iot:subscribe", f"{place}topicfilter/{text}", own, attached)]
        for action in _THING_ACTIONS:
            for form in things if statements.about(action) else ():
                yield strangers(action, f"thing/{form}")


def _endings(patterns: Iterable[str], before: str) -> Iterator[str]:
    """What stands behind the name of a thing in patterns, as a concrete text."""
    for pattern in patterns:
        _, found, rest = pattern.partition(before)
        _, slash, ending = rest.partition("/")
        if found and slash and ending:
            yield _concrete(ending)


def _filters_over_all_things(patterns: Iterable[str]) -> Iterator[str]:
    """Topic filters, among patterns taken by the letter, that select topics of all things."""
    for pattern in patterns:
        _, found, text = pattern.partition("topicfilter/")
        levels = _concrete(text).split("/")
        if not found or levels[0] != "$aws" or len(levels) < 2:
            continue
        things = levels[1] in ("things", "+") and len(levels) > 2 and levels[2] in ("+", "#")
        if levels[1] == "#" or things:
            yield "/".join(levels)


def misconfigured(document: str) -> list[str]:
    """The reason codes of what a policy's denials miss; none for nearly all.

    Args:
        document: as for ``overly_permissive``.
    """
    statements = _statements(document)
    found = []
    denied = [
        (statement, pattern)
        for statement in statements.all
        if not statement.allows and not statement.except_resources
        for pattern in statement.resources
    ]
    if any(_has_mqtt_wildcards(pattern) for _, pattern in denied):
        found.append(WILDCARDS_IN_DENIAL)
    if any(_is_evaded(statements, statement, pattern) for statement, pattern in denied):
        found.append(DENIAL_EVADED)
    return found


def _has_mqtt_wildcards(pattern: str) -> bool:
    """Whether a pattern of topics has MQTT's wildcards; names of clients may hold the characters."""
    parsed = _ARN.fullmatch(pattern)
    text = "".join(letters for name, letters in pieces(parsed[4] if parsed else pattern) if name is None)
    return ("+" in text or "#" in text) and not text.startswith(("client/", "thing/"))


def _is_evaded(statements: _Statements, denial: _Statement, pattern: str) -> bool:
    """Whether topics that a subscription to ``pattern`` would deliver are delivered by a wider, permitted filter."""
    text = pattern.partition("topicfilter/")[2]
    if not text or _has_mqtt_wildcards(pattern) or not _covers(denial, "iot:subscribe"):
        return False
    topic = _concrete(text)
    own = _stand_in("iot:ClientId")
    for place in _places(statements):
        receive = _Question("iot:receive", f"{place}topic/{topic}", own, attached=True, condition=denial.condition)
        if not _permitted(statements, receive):
            continue
        for wider in _wider_filters(topic):
            arn = f"{place}topicfilter/{wider}"
            if _permitted(statements, _Question("iot:subscribe", arn, own, True, denial.condition)):
                return True
    return False


def _wider_filters(topic: str) -> Iterator[str]:
    """Topic filters with wildcards that select a topic: one level, or all from one on."""
    levels = topic.split("/")
    # wildcards do not stand for a first level that begins with $ (MQTT 3.1.1, section 4.7.2)
    for index in range(1 if topic.startswith("$") else 0, len(levels)):
        yield "/".join([*levels[:index], "#"])
        yield "/".join([*levels[:index], "+", *levels[index + 1 :]])
    yield f"{topic}/#"  # selects the topic itself, too


# Documents


def _statements(document: str) -> _Statements:
    try:
        parsed = json.loads(document)
    except (ValueError, RecursionError):
        return _Statements([])
    given = parsed.get("Statement") if isinstance(parsed, dict) else None
    found = given if isinstance(given, list) else [given]
    return _Statements([_statement(one) for one in found if isinstance(one, dict)])


def _statement(given: Mapping[str, Any]) -> _Statement:
    condition = given.get("Condition")
    return _Statement(
        given.get("Effect") == "Allow",
        tuple(one.lower() for one in texts(given.get("NotAction" if "NotAction" in given else "Action"))),
        "NotAction" in given,
        tuple(texts(given.get("NotResource" if "NotResource" in given else "Resource"))),
        "NotResource" in given,
        condition if isinstance(condition, dict) else {},
    )


def _places(statements: _Statements) -> list[str]:
    """Beginnings of ARNs ("arn:aws:iot:REGION:ACCOUNT:") for which a document has to be read.

    A policy belongs to one region and account, and its patterns nearly always name them. Where they have wildcards, the
    document's first ones are put in, so that a denial elsewhere takes nothing back here.
    """
    found = [_ARN.fullmatch(one) for statement in statements.all for one in statement.resources]
    named = [[part if re.fullmatch(r"[\w-]+", part) else "" for part in one.groups()[:3]] for one in found if one]
    columns = zip(*named, strict=True) if named else ((), (), ())
    first = [
        next((part for part in column if part), default)
        for column, default in zip(columns, ("aws", "us-east-1", "0" * 12), strict=True)
    ]
    triples = [[part or default for part, default in zip(one, first, strict=True)] for one in named]
    return list(dict.fromkeys("arn:{}:iot:{}:{}:".format(*one) for one in triples or [first]))


# Evaluation


def _permitted(statements: _Statements, question: _Question) -> bool:
    allowed = False
    for statement in statements.about(question.action):
        if statement.allows and allowed:
            continue
        matches = any(_fits(pattern, question.arn, question.client_id) for pattern in statement.resources)
        if matches == statement.except_resources:
            continue
        holds = True if statement.condition == question.condition else _holds(statement.condition, question.attached)
        if statement.allows:
            allowed = holds is not False
        elif holds is True:
            return False
    return allowed


def _covers(statement: _Statement, action: str) -> bool:
    matches = any(_fits(pattern, action, "") for pattern in statement.actions)
    return matches != statement.except_actions


def _holds(condition: Mapping[str, Any], attached: bool) -> bool | None:
    """Whether a condition holds: all its parts do, one fails, or (None) nobody knows."""
    known: bool | None = True
    for operator, keys in condition.items():
        for key, values in keys.items() if isinstance(keys, dict) else [("", keys)]:
            plain = operator.lower().rpartition(":")[2].removesuffix("ifexists")
            if key.lower() != _ATTACHED or plain not in ("bool", "stringequals", "stringequalsignorecase"):
                known = None
            elif str(attached).lower() not in [one.lower() for one in texts(values)]:
                return False
    return known


def _stand_in(variable: str) -> str:
    """What a variable stands for: a text that no foreign device has for a name ("~" is in none)."""
    return f"~{variable.lower()}~"


def _concrete(text: str) -> str:
    """One of the texts that a pattern covers."""
    return "".join(
        re.sub(r"[*?]", "w", letters) if name is None else name if name in ("*", "?", "$") else _stand_in(name)
        for name, letters in pieces(text)
    )


def _fits(pattern: str, text: str, client_id: str) -> bool:
    """Whether a pattern covers a text, with stand-ins for all variables but the client id."""
    own = _stand_in("iot:ClientId")

    def value(name: str) -> str:
        stand_in = _stand_in(name)
        return client_id if client_id and stand_in == own else stand_in

    return read(pattern).matches(text, value) is True
