"""What policies permit: documents and a question in, a decision with its reasons out; no database, no clock.

An explicit denial wins; what nothing allows is denied. What cannot be known here (a condition on a key without a value
in the question, an operator that is not implemented) never allows and always denies, so that a mistake only narrows.

Semantics: AWS's documentation of AWS IoT Core policies, policy variables, X.509 policy variables, and of IAM's
condition operators and condition keys with several values.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any

from keyassay.registry.policy_patterns import UNKNOWN, Pattern, Unknown, Value, filled, read

CONNECT = "iot:Connect"


class Outcome(StrEnum):
    """A decision in AWS's words (``AuthDecision``)."""

    ALLOWED = "ALLOWED"
    EXPLICIT_DENY = "EXPLICIT_DENY"
    IMPLICIT_DENY = "IMPLICIT_DENY"


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that has been read.

    Attributes:
        allows: or denies.
        actions: patterns in lower case; with ``except_actions`` those that it does not apply to.
        except_actions: see there.
        resources: patterns; with ``except_resources`` those that it does not apply to.
        except_resources: see there.
        condition: operator -> key -> values, as it was given.
    """

    allows: bool
    actions: tuple[Pattern, ...]
    except_actions: bool
    resources: tuple[Pattern, ...]
    except_resources: bool
    condition: tuple[tuple[str, str, tuple[str, ...]], ...]

    def covers(self, action: str) -> bool:
        """Whether it is about an action, given in lower case."""
        matches = any(one.matches(action, _nothing) for one in self.actions)
        return matches != self.except_actions


@dataclass(frozen=True, eq=False)
class Policy:
    """A policy's document that has been read; compared by identity, since each document is read once.

    Attributes:
        statements: in their order.
        about_connect: those that are about iot:Connect.
        variables: names in lower case of all variables and condition keys that those use.
    """

    statements: tuple[Statement, ...]
    about_connect: tuple[Statement, ...] = field(init=False)
    variables: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        chosen = tuple(one for one in self.statements if one.covers(CONNECT.lower()))
        names = {name.lower() for one in chosen for pattern in one.resources for name in pattern.variables}
        for one in chosen:
            for _, key, values in one.condition:
                names.add(key.lower())
                names.update(name.lower() for value in values for name in read(value).variables)
        object.__setattr__(self, "about_connect", chosen)
        object.__setattr__(self, "variables", frozenset(names))


@lru_cache(maxsize=4096)
def denials(given: Policy) -> Policy:
    """A policy's denials alone."""
    return Policy(tuple(one for one in given.statements if not one.allows))


def _nothing(_: str) -> None:
    """No variable has a value: in actions."""


@lru_cache(maxsize=4096)
def policy(document: str) -> Policy:
    """A document as it is evaluated; one that is no policy permits and denies nothing."""
    try:
        parsed = json.loads(document)
    except (ValueError, RecursionError):
        return Policy(())
    given = parsed.get("Statement") if isinstance(parsed, dict) else None
    found = given if isinstance(given, list) else [given]
    return Policy(tuple(_statement(one) for one in found if isinstance(one, dict)))


def _statement(given: Mapping[str, Any]) -> Statement:
    return Statement(
        given.get("Effect") == "Allow",
        tuple(read(one.lower()) for one in texts(given.get("NotAction" if "NotAction" in given else "Action"))),
        "NotAction" in given,
        tuple(read(one) for one in texts(given.get("NotResource" if "NotResource" in given else "Resource"))),
        "NotResource" in given,
        tuple(_condition(given.get("Condition"))),
    )


def _condition(given: Any) -> Iterable[tuple[str, str, tuple[str, ...]]]:
    if given is None:
        return
    if not isinstance(given, dict):
        yield "", "", ()  # no operator: unknown
        return
    for operator, keys in given.items():
        if not isinstance(keys, dict):
            yield operator, "", ()
            continue
        for key, values in keys.items():
            plain = values if isinstance(values, list) else [values]
            if all(isinstance(one, str | bool | int | float) for one in plain):
                yield operator, key, tuple(texts(values))
            else:
                yield "", key, ()


def texts(value: Any) -> list[str]:
    """A text or a list as a list of texts; JSON's true and false are those words."""
    given = value if isinstance(value, list) else [] if value is None else [value]
    return [json.dumps(one) if isinstance(one, bool) else str(one) for one in given]


# Questions


@dataclass(frozen=True, slots=True)
class Context:
    """What variables and condition keys stand for.

    Attributes:
        values: name in lower case -> its values, none for a key that is known to have none.
        closed: beginnings of names (lower case) of which all that have a value are in ``values``.
    """

    values: Mapping[str, tuple[str, ...]]
    closed: tuple[str, ...] = ()

    def of(self, name: str) -> tuple[str, ...] | Unknown:
        """All values of a key."""
        lowered = _key(name)
        found = self.values.get(lowered)
        if found is not None:
            return found
        return () if lowered.startswith(self.closed) else UNKNOWN

    def first(self, name: str) -> Value:
        """What a variable stands for: the first value of its key."""
        found = self.of(name)
        return found if isinstance(found, Unknown) else found[0] if found else None


def _key(name: str) -> str:
    """Names of keys are compared without case, but for what stands in brackets: names of attributes have case."""
    start, bracket, rest = name.partition("[")
    return start.lower() + bracket + rest


@dataclass(frozen=True, slots=True)
class Decision:
    """What came out.

    Attributes:
        outcome: the decision.
        allowing, denying: positions of the policies among those that were given that had a say.
        missing: names of keys and variables whose values would have been needed.
        unclear: whether a statement had no say, or denied, since it could not be evaluated.
    """

    outcome: Outcome
    allowing: tuple[int, ...]
    denying: tuple[int, ...]
    missing: tuple[str, ...]
    unclear: bool = False

    @property
    def allowed(self) -> bool:
        """Whether it may be done."""
        return self.outcome is Outcome.ALLOWED


def decide(policies: Iterable[Policy], action: str, resource: str, context: Context) -> Decision:
    """Whether policies together permit an action.

    Args:
        policies: all that apply.
        action: "iot:Connect".
        resource: its ARN.
        context: what is known of who asks.
    """
    lowered = action.lower()
    is_connect = lowered == "iot:connect"
    allowing: dict[int, None] = {}
    denying: dict[int, None] = {}
    missing: dict[str, None] = {}
    unclear = False
    for index, one in enumerate(policies):
        for statement in one.about_connect if is_connect else one.statements:
            if not is_connect and not statement.covers(lowered):
                continue
            found = applies(statement, resource, context, missing)
            unclear = unclear or found is None
            if statement.allows:
                if found is True:
                    allowing[index] = None
            elif found is not False:
                denying[index] = None
    outcome = Outcome.EXPLICIT_DENY if denying else Outcome.ALLOWED if allowing else Outcome.IMPLICIT_DENY
    return Decision(outcome, tuple(allowing), tuple(denying), tuple(missing), unclear)


def applies(
    statement: Statement, resource: str, context: Context, missing: dict[str, None] | None = None
) -> bool | None:
    """Whether a statement about the action applies to a resource: it does, it does not, or nobody knows.

    Args:
        statement: about the action in question.
        resource: ARN.
        context: of who asks.
        missing: gets the names of what would have been needed.
    """
    named = _names(statement, resource, context, missing)
    return False if named is False else both(named, holds(statement, context, missing))


def _names(statement: Statement, resource: str, context: Context, missing: dict[str, None] | None) -> bool | None:
    answers = [one.matches(resource, context.first) for one in statement.resources]
    if statement.except_resources:
        if True in answers:
            return False
        # an exception whose variable has no value: whom it would have spared is not known
        open_ = [one for one in statement.resources if any(not _has_value(name, context) for name in one.variables)]
        answer: bool | None = None if open_ else True
    else:
        answer = True if True in answers else None if None in answers else False
    if answer is None and missing is not None:
        for one in statement.resources:
            missing.update(dict.fromkeys(name for name in one.variables if isinstance(context.of(name), Unknown)))
    return answer


def _has_value(name: str, context: Context) -> bool:
    return isinstance(context.first(name), str)


def both(one: bool | None, other: bool | None) -> bool | None:
    """Three-valued "and"."""
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def holds(statement: Statement, context: Context, missing: dict[str, None] | None = None) -> bool | None:
    """Whether a statement's condition holds: all its parts do, one fails, or nobody knows."""
    answer: bool | None = True
    for operator, key, values in statement.condition:
        found = condition(operator, key, values, context)
        if found is None and missing is not None and key and isinstance(context.of(key), Unknown):
            missing[key] = None
        answer = both(answer, found)
    return answer


# Conditions

#: whether one value of the condition fits one of the question
_Test = Callable[[str, str, Context], bool | None]


def _equals(wanted: str, value: str, context: Context) -> bool | None:
    text = filled(wanted, context.first)
    return None if isinstance(text, Unknown) else text == value


def _equals_ignoring_case(wanted: str, value: str, context: Context) -> bool | None:
    text = filled(wanted, context.first)
    return None if isinstance(text, Unknown) else text is not None and text.casefold() == value.casefold()


def _like(wanted: str, value: str, context: Context) -> bool | None:
    return read(wanted).matches(value, context.first)


def _bool(wanted: str, value: str, _: Context) -> bool | None:
    return wanted.lower() == value.lower() if wanted.lower() in ("true", "false") else None


def _address(wanted: str, value: str, _: Context) -> bool | None:
    try:
        return ipaddress.ip_address(value) in ipaddress.ip_network(wanted, strict=False)
    except ValueError:
        return None


def _numeric(compare: Callable[[float, float], bool]) -> _Test:
    def test(wanted: str, value: str, _: Context) -> bool | None:
        try:
            return compare(float(value), float(wanted))
        except ValueError:
            return None

    return test


#: operator -> (test, whether the condition asks that no value fits)
_OPERATORS: dict[str, tuple[_Test, bool]] = {
    "stringequals": (_equals, False),
    "stringnotequals": (_equals, True),
    "stringequalsignorecase": (_equals_ignoring_case, False),
    "stringnotequalsignorecase": (_equals_ignoring_case, True),
    "stringlike": (_like, False),
    "stringnotlike": (_like, True),
    "bool": (_bool, False),
    "ipaddress": (_address, False),
    "notipaddress": (_address, True),
    "numericequals": (_numeric(lambda one, other: one == other), False),
    "numericnotequals": (_numeric(lambda one, other: one == other), True),
    "numericlessthan": (_numeric(lambda one, other: one < other), False),
    "numericlessthanequals": (_numeric(lambda one, other: one <= other), False),
    "numericgreaterthan": (_numeric(lambda one, other: one > other), False),
    "numericgreaterthanequals": (_numeric(lambda one, other: one >= other), False),
}


def condition(operator: str, key: str, wanted: Sequence[str], context: Context) -> bool | None:
    """Whether one line of a condition holds; None if that is not known here.

    Args:
        operator: "StringEquals", "ForAnyValue:StringLikeIfExists", ...; case does not matter.
        key: name of the condition key.
        wanted: values of which one has to fit (none, for the negated operators).
        context: of who asks.
    """
    quantifier, _, plain = operator.lower().rpartition(":")
    values = context.of(key)
    if isinstance(values, Unknown):
        return None
    if plain == "null":
        asked = [one.lower() for one in wanted]
        return None if quantifier or not set(asked) <= {"true", "false"} else str(not values).lower() in asked
    if_exists = plain.endswith("ifexists")
    known = _OPERATORS.get(plain.removesuffix("ifexists"))
    if known is None or quantifier not in ("", "forallvalues", "foranyvalue"):
        return None
    test, negated = known
    if not values:
        return if_exists or quantifier == "forallvalues" or (negated and not quantifier)
    if len(values) > 1 and not quantifier:
        return None
    answers = [_any(test(one, value, context) for one in wanted) for value in values]
    if negated:
        answers = [None if one is None else not one for one in answers]
    if quantifier == "foranyvalue":
        return _any(answers)
    answer: bool | None = True
    for one in answers:
        answer = both(answer, one)
    return answer


def _any(answers: Iterable[bool | None]) -> bool | None:
    """Three-valued "or"."""
    found: bool | None = False
    for one in answers:
        if one is True:
            return True
        if one is None:
            found = None
    return found
