"""A plan: pure, in the order of its findings and of the mapping, with nothing left out and nothing added."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from keyassay.mitigation.actions import Action, ActionType
from keyassay.mitigation.plan import FILTERED, SUPPRESSED, Finding, Step, plan

PARAMS: dict[ActionType, dict[str, Any]] = {
    ActionType.UPDATE_DEVICE_CERTIFICATE: {"updateDeviceCertificateParams": {"action": "DEACTIVATE"}},
    ActionType.UPDATE_CA_CERTIFICATE: {"updateCACertificateParams": {"action": "DEACTIVATE"}},
    ActionType.ADD_THINGS_TO_THING_GROUP: {"addThingsToThingGroupParams": {"thingGroupNames": ["quarantine", "x"]}},
    ActionType.REPLACE_DEFAULT_POLICY_VERSION: {"replaceDefaultPolicyVersionParams": {"templateName": "BLANK_POLICY"}},
    ActionType.ENABLE_IOT_LOGGING: {"enableIoTLoggingParams": {"roleArnForLogging": "r", "logLevel": "INFO"}},
    ActionType.PUBLISH_FINDING_TO_SNS: {"publishFindingToSnsParams": {"topicArn": "arn:aws:sns:a"}},
}
ACTIONS = {kind.value: Action(kind.value, f"id of {kind}", "role", PARAMS[kind]) for kind in ActionType}
CHECKS = ["ONE", "TWO", "THREE"]
CODES = ["A", "B", "C"]

findings = st.lists(
    st.builds(
        Finding,
        id=st.uuids().map(str),
        task_id=st.just("task"),
        check_name=st.sampled_from(CHECKS),
        reason_code=st.sampled_from(CODES),
        resource=st.just({"deviceCertificateId": "c"}),
        suppressed=st.booleans(),
        certificates=st.lists(st.sampled_from(["c", "d"]), unique=True).map(tuple),
    ),
    max_size=12,
)
mappings = st.dictionaries(
    st.sampled_from(CHECKS), st.lists(st.sampled_from(sorted(ACTIONS)), min_size=1, max_size=5), min_size=1
)
codes = st.none() | st.dictionaries(st.sampled_from(CHECKS), st.lists(st.sampled_from(CODES), min_size=1), min_size=1)


@given(findings, mappings, codes)
def test_every_finding_of_a_mapped_check_stands_in_the_plan_once_in_order(
    found: list[Finding], mapping: dict[str, list[str]], reason_codes: dict[str, list[str]] | None
) -> None:
    before = copy.deepcopy((found, mapping, reason_codes))
    planned = list(plan(found, mapping, ACTIONS, reason_codes))
    assert (found, mapping, reason_codes) == before
    assert planned == list(plan(found, mapping, ACTIONS, reason_codes))
    assert [one.finding for one in planned] == [one for one in found if one.check_name in mapping]
    for one in planned:
        assert [step.action.name for step in one.steps] == mapping[one.finding.check_name]
        assert [step.position for step in one.steps] == list(range(len(one.steps)))
        asked = reason_codes is None or one.finding.reason_code in reason_codes.get(one.finding.check_name, [])
        assert one.skipped == ("" if asked and not one.finding.suppressed else SUPPRESSED if asked else FILTERED)


@given(findings, mappings, st.integers(0, 12))
def test_a_plan_in_pieces_is_the_plan(found: list[Finding], mapping: dict[str, list[str]], cut: int) -> None:
    pieces = [*plan(found[:cut], mapping, ACTIONS), *plan(found[cut:], mapping, ACTIONS)]
    assert pieces == list(plan(found, mapping, ACTIONS))


@given(findings, mappings)
def test_effects_are_told_without_capital_and_full_stop(found: list[Finding], mapping: dict[str, list[str]]) -> None:
    for one in plan(found, mapping, ACTIONS, things={"c": ["t1", "t2"], "d": ["t2", "t3"]}):
        for step in one.steps:
            assert step.effect[0].islower()
            assert not step.effect.endswith(".")
            assert len(set(step.things)) == len(step.things)


def test_the_things_of_all_certificates_are_named() -> None:
    finding = Finding("f", "t", "ONE", "A", {}, False, ("c", "d"))
    (one,) = plan([finding], {"ONE": ["ADD_THINGS_TO_THING_GROUP"]}, ACTIONS, things={"c": ["a", "b"], "d": ["c", "e"]})
    assert one.steps[0].things == ("a", "b", "c", "e")
    assert one.steps[0].effect == "thing a, b, c and 1 more of certificate c, d joins quarantine, x"
    alone = Step(finding, 0, ACTIONS["ADD_THINGS_TO_THING_GROUP"])
    assert alone.effect.startswith("no thing of certificate c, d")
