"""What a task will do: findings and actions in, steps out. No side effects: a dry run prints it, a worker does it.

A finding's actions are done in the order of the mapping; findings of checks outside the mapping are not touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keyassay.mitigation.actions import Action, ActionType

SUPPRESSED = "the finding is suppressed"
FILTERED = "its reason code is not asked for"
#: what to do about the authority by which an account issues
ANOTHER_ISSUER = "`keyassay ca init` or `keyassay ca import` gives the account another one"


@dataclass(frozen=True, slots=True)
class Finding:
    """What has to be known of a finding to do something about it.

    Attributes:
        id: of the finding.
        task_id: of its audit.
        check_name: of its audit check.
        reason_code: why it does not comply.
        resource: AWS's resource identifier: one member.
        suppressed: whether it was when it was found.
        certificates: ids of the device certificates it is about; where it is about their authority, all of them.
        place: where it stands among the findings of its audit: (check, key of the resource, reason code).
        of_issuer: it is about the authority by which the account issues, which is not registered.
    """

    id: str
    task_id: str
    check_name: str
    reason_code: str
    resource: Mapping[str, Any]
    suppressed: bool
    certificates: tuple[str, ...] = ()
    place: tuple[str, str, str] = ("", "", "")
    of_issuer: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One action for one finding.

    Attributes:
        finding: which.
        position: of the action among those of the finding, from 0.
        action: what to do.
        things: names of the things that it concerns, as far as they were looked up.
    """

    finding: Finding
    position: int
    action: Action
    things: tuple[str, ...] = ()

    @property
    def effect(self) -> str:
        """What it does, for people: no capital, no full stop."""
        settings = self.action.settings
        certificates = _some(self.finding.certificates)
        match self.action.type:
            case ActionType.UPDATE_DEVICE_CERTIFICATE:
                return f"certificate {certificates} becomes INACTIVE"
            case ActionType.UPDATE_CA_CERTIFICATE:
                authority = f"authority {self.finding.resource.get('caCertificateId', '')}"
                if self.finding.of_issuer:
                    return f"{authority} stays, since the account issues by it: {ANOTHER_ISSUER}"
                return f"{authority} becomes INACTIVE"
            case ActionType.ADD_THINGS_TO_THING_GROUP:
                things = f"thing {_some(self.things)}" if self.things else "no thing"
                return f"{things} of certificate {certificates} joins {', '.join(settings['thingGroupNames'])}"
            case ActionType.REPLACE_DEFAULT_POLICY_VERSION:
                policy = self.finding.resource.get("policyVersionIdentifier", {}).get("policyName", "")
                return f"policy {policy} gets a default version that allows nothing"
            case ActionType.ENABLE_IOT_LOGGING:
                return f"logging is enabled at level {settings['logLevel']}"
            case ActionType.PUBLISH_FINDING_TO_SNS:
                return f"the finding is published to {settings['topicArn']}"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


@dataclass(frozen=True, slots=True)
class Planned:
    """What is done about one finding.

    Attributes:
        finding: which.
        steps: in their order.
        skipped: why nothing is done (``SUPPRESSED``, ``FILTERED``), or "".
    """

    finding: Finding
    steps: tuple[Step, ...]
    skipped: str = ""


def plan(
    findings: Iterable[Finding],
    mapping: Mapping[str, Sequence[str]],
    actions: Mapping[str, Action],
    reason_codes: Mapping[str, Collection[str]] | None = None,
    things: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Planned]:
    """What is done about each finding, in the order of the findings.

    Args:
        findings: any; those of checks outside the mapping are left out.
        mapping: check -> names of its actions, in the order in which they are done.
        actions: by name, at least those of the mapping.
        reason_codes: check -> the reason codes that are asked for; without it, all findings are.
        things: certificate id -> names of its things, for what people are shown.
    """
    for finding in findings:
        names = mapping.get(finding.check_name)
        if names is None:
            continue
        known = things or {}
        its_things = tuple(dict.fromkeys(name for one in finding.certificates for name in known.get(one, ())))
        steps = tuple(Step(finding, place, actions[name], its_things) for place, name in enumerate(names))
        if reason_codes is not None and finding.reason_code not in reason_codes.get(finding.check_name, ()):
            yield Planned(finding, steps, FILTERED)
        elif finding.suppressed:
            yield Planned(finding, steps, SUPPRESSED)
        else:
            yield Planned(finding, steps)
