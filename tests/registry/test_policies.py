"""Policies: documents, versions, attachments, and what is in force, on both databases."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import fleet_keys
from keyassay.registry import certificates, memberships, policies, tags, thing_groups, things, transfers
from keyassay.registry.errors import (
    AlreadyExistsError,
    DeleteConflictError,
    InvalidError,
    LimitError,
    MalformedPolicyError,
    NotFoundError,
    VersionsLimitError,
)
from keyassay.registry.policies import LARGEST_DOCUMENT, check_document
from keyassay.registry.registry import Page, Registry
from two_accounts import A, B, Rows

STATEMENT = {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}


def document(**changes: Any) -> str:
    """A policy; a change to None takes a member of its statement away."""
    statement = {name: value for name, value in {**STATEMENT, **changes}.items() if value is not None}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


DOCUMENT = document()
OTHER = document(Action="iot:Publish")


def arn(registry: Registry, resource: str) -> str:
    return registry.arn(A.account_id, resource)


def device(registry: Registry, name: str = "device") -> str:
    """ARN of a certificate."""
    return certificates.register_without_authority(registry, A, fleet_keys.device(name).pem).arn


def all_pages(ask: Callable[[str | None], Page[Any]]) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = ask(token)
        found += page.rows
        token = page.next_token
        if token is None:
            return found


# Documents


@pytest.mark.parametrize(
    "text",
    [
        DOCUMENT,
        f" {DOCUMENT}\n",
        document(Action=["iot:*", "iot:Connect"], Resource=[]),
        document(Action=None, NotAction="iot:Connect"),
        document(Resource=None, NotResource=["x"]),
        document(Sid="é", Condition={"Bool": {"iot:Connection.Thing.IsAttached": "true"}}, Effect="Deny"),
        '{"Statement": []}',
        json.dumps({"Version": "2008-10-17", "Statement": STATEMENT}),
    ],
)
def test_policies(text: str) -> None:
    check_document(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "null",
        "{}",
        "[" * 2_000,
        DOCUMENT + DOCUMENT,
        '{"Version": "2012-10-17"}',
        '{"Version": "2020-01-01", "Statement": []}',
        '{"Version": ["2012-10-17"], "Statement": []}',
        '{"Statement": ["x"]}',
        '{"Statement": null}',
        document(Effect=None),
        document(Effect="allow"),
        document(Effect=["Allow"]),
        document(Action=None),
        document(Resource=None),
        document(NotAction="iot:Publish"),
        document(NotResource="x"),
        document(Action=1),
        document(Resource=["x", 1]),
        document(Condition="x"),
        document(Actions="iot:*"),
    ],
)
def test_no_policies(text: str) -> None:
    with pytest.raises(MalformedPolicyError):
        check_document(text)


def test_white_space_does_not_count() -> None:
    empty = len("".join(DOCUMENT.split()))
    longest = document(Resource="*" + "x" * (LARGEST_DOCUMENT - empty))
    check_document(longest.replace(" ", " " * 100_000))
    with pytest.raises(MalformedPolicyError):
        check_document(longest.replace("x", "xx", 1))


# Versions


def test_created_once_with_version_one(registry: Registry, rows: Rows) -> None:
    made = policies.create(registry, A, "p", DOCUMENT, {"a": "b"})
    assert (made.name, made.version, made.document, made.is_default) == ("p", 1, DOCUMENT, True)
    assert policies.version(registry, A, "p") == policies.version(registry, A, "p", "1") == made
    assert tags.tags_of(registry, A, arn(registry, "policy/p")).rows == [{"name": "a", "value": "b"}]
    for text in (DOCUMENT, OTHER):
        with pytest.raises(AlreadyExistsError) as raised:
            policies.create(registry, A, "p", text)
        assert (raised.value.resource_id, raised.value.resource_arn) == ("p", arn(registry, "policy/p"))
    with pytest.raises(MalformedPolicyError):
        policies.create(registry, A, "q", "no JSON")
    with pytest.raises(NotFoundError):
        policies.version(registry, B, "p")
    policies.create(registry, A, "P", OTHER)  # names are case-sensitive
    policies.create(registry, B, "p", OTHER)
    assert policies.version(registry, A, "p").document == DOCUMENT
    assert rows.operations() == ["CreatePolicy", "CreatePolicy"]


def test_five_versions_whose_numbers_are_never_given_again(registry: Registry, rows: Rows) -> None:
    policies.create(registry, A, "p", DOCUMENT)
    for number in range(2, 6):
        assert policies.create_version(registry, A, "p", OTHER).version == number
    with pytest.raises(VersionsLimitError):
        policies.create_version(registry, A, "p", OTHER)
    with pytest.raises(MalformedPolicyError):
        policies.create_version(registry, A, "p", "no JSON")
    policies.remove_version(registry, A, "p", "5")
    assert policies.create_version(registry, A, "p", OTHER).version == 6
    assert [(one.version, one.is_default) for one in policies.versions(registry, A, "p")] == [
        (6, False), (4, False), (3, False), (2, False), (1, True)
    ]  # fmt: skip
    assert policies.version(registry, A, "p").document == DOCUMENT
    for missing in ("5", "7", "999999999"):
        for ask in (policies.version, policies.set_default_version, policies.remove_version):
            with pytest.raises(NotFoundError):
                ask(registry, A, "p", missing)
    for bad in ("", "x", "-1", "9" * 30, "١"):
        with pytest.raises(InvalidError):
            policies.version(registry, A, "p", bad)
    assert rows.operations() == ["CreatePolicy", *["CreatePolicyVersion"] * 4, "DeletePolicyVersion",
                                 "CreatePolicyVersion"]  # fmt: skip


def test_the_default_version(registry: Registry, rows: Rows) -> None:
    made = policies.create(registry, A, "p", DOCUMENT)
    second = policies.create_version(registry, A, "p", OTHER, set_as_default=True)
    assert second.is_default
    assert policies.version(registry, A, "p") == second
    assert second.generation_id == made.generation_id
    assert second.policy_modified_at >= second.policy_created_at == made.created_at
    with pytest.raises(InvalidError):
        policies.remove_version(registry, A, "p", "2")
    for _ in range(2):
        policies.set_default_version(registry, A, "p", "1")
    assert policies.version(registry, A, "p").version == 1
    assert not policies.version(registry, A, "p", "2").is_default
    policies.remove_version(registry, A, "p", "2")
    assert rows.operations() == [
        "CreatePolicy",
        "CreatePolicyVersion",
        "SetDefaultPolicyVersion",
        "DeletePolicyVersion",
    ]
    (change,) = rows.all("changes", operation="SetDefaultPolicyVersion")
    assert change["details"] == {"version": [2, 1]}


def test_deleted_only_alone_and_detached(registry: Registry, rows: Rows) -> None:
    target = device(registry)
    policies.create(registry, A, "p", DOCUMENT, {"a": "b"})
    policies.create(registry, B, "p", DOCUMENT, {"a": "b"})
    policies.create_version(registry, A, "p", OTHER)
    policies.attach(registry, A, "p", target)
    with pytest.raises(DeleteConflictError):
        policies.remove(registry, A, "p")
    policies.remove_version(registry, A, "p", "2")
    with pytest.raises(DeleteConflictError):
        policies.remove(registry, A, "p")
    policies.detach(registry, A, "p", target)
    policies.remove(registry, A, "p")
    with pytest.raises(NotFoundError):
        policies.remove(registry, A, "p")
    assert [row["account_id"] for row in rows.all("tags")] == [B.account_id]
    assert [row["account_id"] for row in rows.all("policy_versions")] == [B.account_id]
    # a new one of the name begins anew
    assert policies.create(registry, A, "p", OTHER).version == 1
    assert policies.versions(registry, A, "p")[0].document == OTHER


@pytest.mark.parametrize("ascending", [True, False])
def test_listed_by_creation(registry: Registry, rows: Rows, ascending: bool) -> None:
    for number in range(5):
        policies.create(registry, A, f"p{number}", DOCUMENT)
    policies.create(registry, B, "q", DOCUMENT)
    found = all_pages(lambda token: policies.listed(registry, A, token=token, size=2, ascending=ascending))
    expected = sorted((row["created_at"], row["name"]) for row in rows.all("policies", account_id=A.account_id))
    assert [row["name"] for row in found] == [name for _, name in (expected if ascending else expected[::-1])]
    token = policies.listed(registry, A, size=2).next_token
    for wrong in (
        lambda: policies.listed(registry, B, token=token, size=2),
        lambda: policies.listed(registry, A, token=token, size=2, ascending=True),
    ):
        with pytest.raises(InvalidError):
            wrong()


# Attachments


def test_attached_and_detached_without_complaint_when_nothing_changes(registry: Registry, rows: Rows) -> None:
    target = device(registry)
    policies.create(registry, A, "p", DOCUMENT)
    for step in (policies.attach, policies.detach):
        for _ in range(2):
            step(registry, A, "p", target)
    assert rows.operations()[2:] == ["AttachPolicy", "DetachPolicy"]
    assert policies.attached(registry, A, target).rows == []


def test_what_cannot_be_attached(registry: Registry) -> None:
    policies.create(registry, A, "p", DOCUMENT)
    policies.create(registry, B, "p", DOCUMENT)
    target = device(registry)
    things.create(registry, A, "t")
    with pytest.raises(NotFoundError):
        policies.attach(registry, A, "q", target)
    for missing in (f"cert/{'0' * 64}", "thinggroup/none"):
        with pytest.raises(NotFoundError):
            policies.attach(registry, A, "p", arn(registry, missing))
    for bad in (
        arn(registry, "thing/t"),
        arn(registry, "cert/short"),
        "cert/x",
        "",
        target.replace("us-east-1", "eu-west-1"),
        target.replace("arn:aws:iot", "arn:aws:s3"),
    ):
        with pytest.raises(InvalidError):
            policies.attach(registry, A, "p", bad)
    for stranger in (target, target.replace(A.account_id, B.account_id)):
        with pytest.raises((InvalidError, NotFoundError)):
            policies.attach(registry, B, "p", stranger)


def test_nothing_is_attached_to_what_is_leaving(registry: Registry) -> None:
    policies.create(registry, A, "p", DOCUMENT)
    target = device(registry)
    transfers.offer(registry, A, target.rpartition("/")[2], B.account_id)
    with pytest.raises(InvalidError, match="transferred"):
        policies.attach(registry, A, "p", target)


@pytest.mark.parametrize(("kind", "most"), [("certificate", 10), ("group", 2)])
def test_as_many_as_a_target_takes(registry: Registry, kind: str, most: int) -> None:
    assert (registry.limits.policies_of_a_certificate, registry.limits.policies_of_a_group) == (10, 2)
    if kind == "group":
        thing_groups.create(registry, A, "g")
    target = device(registry) if kind == "certificate" else arn(registry, "thinggroup/g")
    for number in range(most + 1):
        policies.create(registry, A, f"p{number}", DOCUMENT)
    for number in range(most):
        policies.attach(registry, A, f"p{number}", target)
    with pytest.raises(LimitError):
        policies.attach(registry, A, f"p{most}", target)
    policies.attach(registry, A, "p0", target)  # again is no error, full or not
    policies.detach(registry, A, "p0", target)
    policies.attach(registry, A, f"p{most}", target)
    assert len(policies.attached(registry, A, target).rows) == most


def test_listed_from_both_sides(registry: Registry) -> None:
    registry = replace(registry, limits=replace(registry.limits, policies_of_a_group=5))
    targets = [device(registry, name) for name in ("one", "two", "three")]
    thing_groups.create(registry, A, "g")
    targets.append(arn(registry, "thinggroup/g"))
    for number in range(5):
        policies.create(registry, A, f"p{number}", DOCUMENT)
        policies.attach(registry, A, f"p{number}", targets[3])
    for target in targets[:3]:
        policies.attach(registry, A, "p1", target)
    found = all_pages(lambda token: policies.attached(registry, A, targets[3], token=token, size=2))
    assert [row["policy_name"] for row in found] == [f"p{number}" for number in range(5)]
    backwards = policies.attached(registry, A, targets[3], ascending=False)
    assert [row["policy_name"] for row in backwards.rows] == [f"p{number}" for number in reversed(range(5))]
    found = all_pages(lambda token: policies.targets(registry, A, "p1", token=token, size=3))
    assert sorted(arn(registry, row["target"]) for row in found) == sorted(targets)
    found = all_pages(lambda token: policies.targets(registry, A, "p1", certificates_only=True, token=token, size=1))
    assert sorted(arn(registry, row["target"]) for row in found) == sorted(targets[:3])
    assert [row["target"] for row in policies.targets(registry, A, "p0").rows] == ["thinggroup/g"]
    token = policies.attached(registry, A, targets[3], size=2).next_token
    with pytest.raises(InvalidError):
        policies.attached(registry, A, targets[0], token=token, size=2)
    for ask in (
        lambda: policies.targets(registry, A, "none"),
        lambda: policies.targets(registry, B, "p1"),
        lambda: policies.attached(registry, A, arn(registry, "thinggroup/none")),
    ):
        with pytest.raises(NotFoundError):
            ask()


# What is in force


@pytest.fixture
def grove(registry: Registry) -> Registry:
    """A thing in a group three levels below its root and in a group of another tree; each group has its policy."""
    for name, parent in (("root", None), ("middle", "root"), ("leaf", "middle"), ("beside", "root"), ("other", None)):
        thing_groups.create(registry, A, name, parent=parent)
        policies.create(registry, A, f"of-{name}", DOCUMENT)
        policies.attach(registry, A, f"of-{name}", arn(registry, f"thinggroup/{name}"))
    things.create(registry, A, "t")
    for group in ("leaf", "other"):
        memberships.add(registry, A, "t", group)
    return registry


def test_recursive_adds_the_groups_above(grove: Registry) -> None:
    policies.attach(grove, A, "of-root", arn(grove, "thinggroup/leaf"))

    def of(group: str, **options: Any) -> list[str]:
        rows = all_pages(
            lambda token: policies.attached(grove, A, arn(grove, f"thinggroup/{group}"), token=token, size=1, **options)
        )
        return [row["policy_name"] for row in rows]

    assert of("leaf") == ["of-leaf", "of-root"]
    assert of("leaf", recursive=True) == ["of-leaf", "of-middle", "of-root"]
    assert of("root", recursive=True) == ["of-root"]
    assert of("beside", recursive=True) == ["of-beside", "of-root"]


def test_effective_policies(grove: Registry) -> None:
    target = device(grove)
    policies.create(grove, A, "own", DOCUMENT)
    for name in ("own", "of-root"):
        policies.attach(grove, A, name, target)
    policies.create_version(grove, A, "own", OTHER, set_as_default=True)

    def names(**question: Any) -> list[str]:
        return [one.name for one in policies.effective(grove, A, **question)]

    of_thing = ["of-leaf", "of-middle", "of-other", "of-root"]
    assert names(principal_arn=target) == ["of-root", "own"]
    assert names(thing_name="t") == of_thing
    assert names(principal_arn=target, thing_name="t") == [*of_thing, "own"]
    own = policies.effective(grove, A, principal_arn=target)[1]
    assert (own.document, own.version, own.is_default) == (OTHER, 2, True)
    memberships.remove(grove, A, "t", "leaf")
    assert names(thing_name="t") == ["of-other"]
    with pytest.raises(InvalidError):
        names()
    with pytest.raises(InvalidError):
        names(principal_arn=arn(grove, "thinggroup/root"))
    with pytest.raises(NotFoundError):
        names(thing_name="none")
    with pytest.raises(NotFoundError):
        names(principal_arn=arn(grove, f"cert/{'0' * 64}"))
    with pytest.raises(NotFoundError):
        policies.effective(grove, B, thing_name="t")
