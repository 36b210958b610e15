"""Whether a certificate may do something: its policies, those of its thing's groups, and the evaluator together.

This is what TestAuthorization asks; what gates are told of connections is decided in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keyassay.registry import authorization, certificates, policies
from keyassay.registry.authorization import Context, Outcome, Policy
from keyassay.registry.connect_holders import holders
from keyassay.registry.errors import InvalidError
from keyassay.registry.policy_variables import certificate_values, connection_context
from keyassay.registry.registry import Registry
from keyassay.storage.database import Actor

ACTIONS = {"CONNECT": "iot:Connect", "PUBLISH": "iot:Publish", "SUBSCRIBE": "iot:Subscribe", "RECEIVE": "iot:Receive"}

#: resources of all questions together, and characters of one
MOST_RESOURCES, LONGEST_RESOURCE = 100, 2048


@dataclass(frozen=True, slots=True)
class Tested:
    """The answer to one question.

    Attributes:
        action: "CONNECT", ...
        resources: ARNs; all of them have to be permitted.
        outcome: the decision.
        allowing, denying, considered: names of policies that allow, that deny, and all that apply.
        missing: names of variables and condition keys without which it cannot be decided.
    """

    action: str
    resources: tuple[str, ...]
    outcome: Outcome
    allowing: tuple[str, ...]
    denying: tuple[str, ...]
    considered: tuple[str, ...]
    missing: tuple[str, ...]


def judged(
    registry: Registry,
    actor: Actor,
    principal_arn: str,
    questions: Sequence[tuple[str, Sequence[str]]],
    *,
    client_id: str | None = None,
    add: Sequence[str] = (),
    skip: Sequence[str] = (),
) -> list[Tested]:
    """What the policies of a certificate say to some questions; its status has no say.

    Args:
        registry: where.
        actor: whose account.
        principal_arn: ARN of the certificate.
        questions: (name of ``ACTIONS``, ARNs).
        client_id: under which it connects; the thing of that name counts if the certificate is attached to it.
        add: policies that count as if they were attached.
        skip: policies that do not count.

    Raises:
        NotFoundError: no such certificate or policy.
        InvalidError: no ARN of a certificate of the account; too many or too long resources.
    """
    resources = [one for _, some in questions for one in some]
    if len(resources) > MOST_RESOURCES or any(len(one) > LONGEST_RESOURCE for one in resources):
        raise InvalidError(f"at most {MOST_RESOURCES} resources of at most {LONGEST_RESOURCE} characters can be named")
    certificate_id = certificates.check_id(registry.resource(actor, principal_arn, "cert"))
    with registry.database.read() as connection:
        row = certificates.find(connection, actor.account_id, certificate_id)
        (holder,) = holders(registry, connection, actor.account_id, [certificate_id])
    about = None if client_id is None else holder.about(client_id)
    thing = None if about is None else about.thing
    name = None if thing is None else thing.name
    effective = policies.effective(registry, actor, principal_arn=principal_arn, thing_name=name)
    applying = {one.name: authorization.policy(one.document) for one in effective}
    if thing is None:  # as ``Holder.applying`` has it
        for attachment in holder.attachments:
            for one in policies.effective(registry, actor, thing_name=attachment.thing.name):
                applying.setdefault(one.name, authorization.denials(authorization.policy(one.document)))
    for one in [policies.version(registry, actor, name) for name in add]:
        applying[one.name] = authorization.policy(one.document)
    for name in skip:
        applying.pop(policies.version(registry, actor, name).name, None)
    context = connection_context(client_id, certificate_id, certificate_values(row["der"]), thing)
    return [_answer(action, tuple(some), applying, context) for action, some in questions]


def _answer(action: str, resources: tuple[str, ...], applying: Mapping[str, Policy], context: Context) -> Tested:
    """All resources have to be permitted; one explicit denial denies all."""
    names = tuple(applying)
    decisions = [authorization.decide(applying.values(), ACTIONS[action], one, context) for one in resources]
    outcomes = {one.outcome for one in decisions}
    order = (Outcome.EXPLICIT_DENY, Outcome.IMPLICIT_DENY, Outcome.ALLOWED)
    outcome = next((one for one in order if one in outcomes), Outcome.IMPLICIT_DENY)
    return Tested(
        action,
        resources,
        outcome,
        tuple(names[index] for index in sorted({index for one in decisions for index in one.allowing})),
        tuple(names[index] for index in sorted({index for one in decisions for index in one.denying})),
        names,
        tuple(dict.fromkeys(key for one in decisions for key in one.missing)),
    )
