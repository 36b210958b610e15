"""What a gate has to know about a certificate: the client ids under which it may connect, as lists that maps can hold.

Each attached thing's name is decided by the evaluator itself. Other client ids come from the resources that policies
allow: literal ones are decided by the evaluator, too; ``client/abc*`` and ``client/*`` are handed out where no denial
touches them. What lists cannot express is left out and said in ``problems``: an entry never permits more than the
policies do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from keyassay.registry.authorization import CONNECT, Context, Decision, Policy, Statement, decide, denials, holds
from keyassay.registry.policy_patterns import Pattern, Token, Wild, after, read
from keyassay.registry.policy_variables import CERTIFICATE, CLIENT_ID, THING, Thing, connection_context

#: bytes of a client id, in UTF-8 (AWS's limit)
LONGEST_CLIENT_ID = 128
_OWN_ID = "${iot:clientid}"
_EVERYTHING: tuple[Token, ...] = (Wild.ANY,)

Entry = dict[str, Any]


@dataclass(frozen=True)
class Attachment:
    """A thing to which a certificate is attached.

    Attributes:
        thing: the thing.
        exclusive: whether it is the certificate's only one, for every client id.
        policies: of its groups and the groups above them.
    """

    thing: Thing
    exclusive: bool = False
    policies: tuple[Policy, ...] = ()


@dataclass(frozen=True)
class Holder:
    """A certificate with everything that decides under which client ids it may connect.

    Attributes:
        certificate_id: SHA-256 of the certificate, hex.
        place: "arn:aws:iot:REGION:ACCOUNT:client/".
        policies: attached to the certificate.
        attachments: its things.
        names: from ``certificate_values``; None if they are not known.
    """

    certificate_id: str
    place: str
    policies: tuple[Policy, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    names: Mapping[str, tuple[str, ...]] | None = None

    def decide(self, client_id: str) -> Decision:
        """Whether it may connect under a client id."""
        return decide(
            self.applying(client_id), CONNECT, self.place + client_id, self.context(client_id, self.about(client_id))
        )

    def about(self, client_id: str) -> Attachment | None:
        """The thing that a connection under a client id is about: that of its name, or the exclusive one."""
        for one in self.attachments:
            if one.exclusive or one.thing.name == client_id:
                return one
        return None

    def applying(self, client_id: str) -> tuple[Policy, ...]:
        """The policies that apply to a connection.

        A denial of a group holds for every client id that is not a thing's name, too: a device that was put into a
        group that denies must not come back under another name.
        """
        thing = self.about(client_id)
        return self.policies + (self._denials() if thing is None else thing.policies)

    def _denials(self) -> tuple[Policy, ...]:
        found = (denials(one) for thing in self.attachments for one in thing.policies)
        return tuple(dict.fromkeys(one for one in found if one.about_connect))

    def context(self, client_id: str | None, attachment: Attachment | None) -> Context:
        """What variables stand for; ``None`` for every client id."""
        thing = None if attachment is None else attachment.thing
        return connection_context(client_id, self.certificate_id, self.names, thing)


@dataclass(slots=True)
class _Others:
    """Client ids that are no names of attached things."""

    exact: list[str] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    anything: bool = False
    problems: dict[str, None] = field(default_factory=dict)


def client_id_problem(client_id: str) -> str:
    """Why a gate refuses a client id whatever policies say; empty if it does not."""
    if not client_id:
        return "is empty"
    if any(letter in client_id for letter in "/+#"):
        return "has one of / + #"
    if not client_id.isprintable() or " " in client_id:
        return "has white space or control characters"
    if len(client_id.encode("utf-8", "surrogatepass")) > LONGEST_CLIENT_ID:
        return f"is longer than {LONGEST_CLIENT_ID} bytes"
    return ""


def compiled(holder: Holder, status: str) -> Entry:
    """The entry of a certificate.

    Args:
        holder: the certificate.
        status: its status, or what else it is ("DELETED").
    """
    if status != "ACTIVE":
        return blocked(holder.certificate_id, [f"the certificate is {status}"])
    problems: dict[str, None] = {}
    things = []
    for one in holder.attachments:
        name = one.thing.name
        decision = holder.decide(name)
        if decision.allowed:
            things.append(name)
        elif decision.unclear:
            problems[_unclear(name, decision)] = None
    others = _others_of(holder)
    problems |= others.problems
    own = {one.thing.name for one in holder.attachments}
    exact = [one for one in others.exact if one not in own]
    if not (things or exact or others.prefixes or others.anything):
        said = list(problems) or [
            "no policy permits iot:Connect" if holder.policies or holder.attachments else "no policy is attached"
        ]
        return blocked(holder.certificate_id, said)
    return {
        "certificateId": holder.certificate_id,
        "state": "ACTIVE",
        "things": sorted(things),
        "exact": exact,
        "prefixes": list(others.prefixes),
        "anything": others.anything,
        "problems": list(problems),
    }


def blocked(certificate_id: str, problems: Iterable[str] = (), *, gone: bool = False) -> Entry:
    """The entry of a certificate that may not connect; ``gone``: the account has no such certificate (any more)."""
    return {
        "certificateId": certificate_id,
        "state": "GONE" if gone else "BLOCKED",
        "things": [],
        "exact": [],
        "prefixes": [],
        "anything": False,
        "problems": list(problems),
    }


def _unclear(client_id: str, decision: Decision) -> str:
    about = f" ({', '.join(decision.missing)})" if decision.missing else ""
    return f"client id {client_id!r} is left out: a gate cannot evaluate a condition{about}"


def _others_of(holder: Holder) -> _Others:
    exclusive = next((one for one in holder.attachments if one.exclusive), None)
    policies = holder.applying("")
    about_certificate, about_thing = _depends_on(policies)
    if about_certificate or (about_thing and exclusive is not None):
        return _others(policies, holder, exclusive)
    return _shared_others(holder.place, policies)


@lru_cache(maxsize=4096)
def _depends_on(policies: tuple[Policy, ...]) -> tuple[bool, bool]:
    """Whether policies ask for something of the certificate, and of its thing."""
    used = {name for one in policies for name in one.variables}
    return (
        any(name.startswith((CERTIFICATE, "iot:certificateid")) for name in used),
        any(name.startswith(THING) for name in used),
    )


@lru_cache(maxsize=4096)
def _shared_others(place: str, policies: tuple[Policy, ...]) -> _Others:
    """The same for all certificates that have these policies, which depend neither on certificate nor on thing."""
    return _others(policies, Holder("", place, policies), None)


def _others(policies: tuple[Policy, ...], holder: Holder, exclusive: Attachment | None) -> _Others:
    found = _Others()
    context = holder.context(None, exclusive)
    barriers = _Barriers(policies, holder.place, context)
    candidates: dict[str, None] = {}
    prefixes: dict[str, None] = {}
    for policy in policies:
        for statement in policy.about_connect:
            if statement.allows:
                _collect(statement, holder.place, context, candidates, prefixes, found.problems)
    for prefix in prefixes:
        problem = client_id_problem(prefix or "x")
        if problem:
            found.problems[f"client ids that begin with {prefix!r} are left out: that {problem}"] = None
            continue
        verdict = barriers.touch(prefix)
        if verdict is False:
            if prefix:
                found.prefixes.append(prefix)
            else:
                found.anything = True
        elif verdict is None:
            what = f"client ids that begin with {prefix!r}" if prefix else "arbitrary client ids"
            found.problems[f"{what} are left out: a denial concerns some of them"] = None
    found.prefixes = [
        one
        for one in sorted(found.prefixes)
        if not found.anything and not any(one != other and one.startswith(other) for other in found.prefixes)
    ]
    for client_id in candidates:
        problem = client_id_problem(client_id)
        if problem:
            found.problems[f"client id {client_id!r} is left out: it {problem}"] = None
            continue
        decision = decide(policies, CONNECT, holder.place + client_id, holder.context(client_id, exclusive))
        if not decision.allowed:
            if decision.unclear:
                found.problems[_unclear(client_id, decision)] = None
        elif not found.anything and not client_id.startswith(tuple(found.prefixes) or ("\0",)):
            found.exact.append(client_id)
    found.exact.sort()
    return found


def _collect(
    statement: Statement,
    place: str,
    context: Context,
    candidates: dict[str, None],
    prefixes: dict[str, None],
    problems: dict[str, None],
) -> None:
    """What a statement may allow: client ids for the evaluator, and beginnings of client ids."""
    condition = holds(statement, context)
    if condition is False:
        return
    named = _ids_in_condition(statement)
    if named is not None:
        candidates.update(dict.fromkeys(named))
        return
    if statement.except_resources:
        resolved = [one.resolved(context.first) for one in statement.resources]
        if condition is True and not any(one is None or after(one[0], place) for one in resolved):
            prefixes[""] = None
        else:
            problems["an Allow with NotResource that concerns client ids is left out"] = None
        return
    for pattern in statement.resources:
        rests, exactly = _allowed_rests(pattern, place, context)
        shown = pattern.text[:200]
        if _EVERYTHING in rests:
            rests = {_EVERYTHING}
        # what wildcards before the client id also match is of no interest beside what they are meant for
        usable = [one for one in rests if one and _possible(one)]
        for rest in sorted(usable or rests, key=str)[: None if usable else 1]:
            if all(isinstance(one, str) for one in rest):
                candidates["".join(str(one) for one in rest)] = None
            elif rest[-1] is not Wild.ANY or len(rest) > 2 or rest[0] is Wild.ONE:
                problems[f"the resource {shown!r} is left out: its wildcards are not at its end"] = None
            elif not exactly:
                problems[f"the resource {shown!r} is left out: a gate does not know its variables"] = None
            elif condition is None:
                problems[f"the resource {shown!r} is left out: a gate cannot evaluate its condition"] = None
            else:
                prefixes["".join(one for one in rest if isinstance(one, str))] = None


def _ids_in_condition(statement: Statement) -> list[str] | None:
    """Client ids that a condition names, if it holds for no others."""
    for operator, key, values in statement.condition:
        plain = operator.lower().removeprefix("foranyvalue:")
        if key.lower() == CLIENT_ID and plain == "stringequals" and not any("${" in one for one in values):
            return list(values)
    return None


def _allowed_rests(pattern: Pattern, place: str, context: Context) -> tuple[set[tuple[Token, ...]], bool]:
    """What client ids have to match for a resource to be theirs, and whether that is all that is asked of them."""
    if pattern.text.lower().endswith(_OWN_ID):
        before = read(pattern.text[: -len(_OWN_ID)])
        if CLIENT_ID not in {name.lower() for name in before.variables}:
            rests, known = _rests(before, place, context)
            # the variable stands for the whole client id if what is before it is exactly what is before that
            return ({_EVERYTHING}, known) if () in rests else (set(), True)
    return _rests(pattern, place, context)


def _rests(pattern: Pattern, place: str, context: Context) -> tuple[set[tuple[Token, ...]], bool]:
    """The same, where a variable whose value is not known (the client id itself) is a ``*``."""
    resolved = pattern.resolved(context.first)
    if resolved is None:
        return set(), True
    return after(resolved[0], place), resolved[1]


def _possible(rest: Iterable[Token]) -> bool:
    """Whether a client id that gates let in can match."""
    return not any(isinstance(one, str) and client_id_problem(one) for one in rest)


class _Barriers:
    """The denials among policies.

    Args:
        policies: all that apply.
        place: of client ids.
        context: of every client id.
    """

    def __init__(self, policies: Iterable[Policy], place: str, context: Context) -> None:
        #: patterns of client ids that are denied, and whether that is certain
        self._denied: list[tuple[tuple[Token, ...], bool]] = []
        #: patterns of client ids that one statement spares, and whether its denial is certain
        self._spared: list[tuple[set[tuple[Token, ...]], bool]] = []
        for policy in policies:
            for statement in policy.about_connect:
                if statement.allows:
                    continue
                condition = holds(statement, context)
                if condition is False:
                    continue
                found = [_rests(one, place, context) for one in statement.resources]
                if statement.except_resources:
                    spared = {rest for rests, known in found if known for rest in rests}
                    self._spared.append((spared, condition is True))
                else:
                    self._denied += [(rest, known and condition is True) for rests, known in found for rest in rests]

    def touch(self, prefix: str) -> bool | None:
        """Whether client ids that begin with a text are denied: none (False), all (True), or some or nobody knows."""
        answer: bool | None = False
        for denied, certain in self._denied:
            rests = {rest for rest in after(denied, prefix) if (rest or prefix) and _possible(rest)}
            if certain and _EVERYTHING in rests:
                return True
            if rests:
                answer = None
        for spared, certain in self._spared:
            rests = {rest for one in spared for rest in after(one, prefix)}
            if _EVERYTHING in rests:
                continue
            if certain and not rests:
                return True
            answer = None
        return answer
