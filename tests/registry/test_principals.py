"""Principals: certificates of things, shared or exclusive, and what hangs on them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import fleet_keys
from keyassay.registry import certificates, policies, principals, things, transfers
from keyassay.registry.errors import (
    DeleteConflictError,
    InvalidError,
    NotFoundError,
    RegistryError,
    TransferConflictError,
)
from keyassay.registry.registry import Registry
from two_accounts import A, B, Rows

POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}]}'


@pytest.fixture
def arn(registry: Registry) -> str:
    """A certificate of A; the things t and u are there too."""
    for name in ("t", "u"):
        things.create(registry, A, name)
    return certificates.register_without_authority(registry, A, fleet_keys.device().pem).arn


def certificate_id(arn: str) -> str:
    return arn.rpartition("/")[2]


def of_thing(registry: Registry, thing: str, **more: Any) -> list[str]:
    return [row["certificate_id"] for row in principals.of_thing(registry, A, thing, **more).rows]


def of_certificate(registry: Registry, arn: str, **more: Any) -> list[tuple[str, bool]]:
    rows = principals.of_certificate(registry, A, arn, **more).rows
    return [(row["thing_name"], row["exclusive"]) for row in rows]


def test_attached_and_detached(registry: Registry, arn: str, rows: Rows) -> None:
    for thing in ("t", "t", "u"):
        principals.attach(registry, A, thing, arn)
    assert of_thing(registry, "t") == [certificate_id(arn)]
    assert of_certificate(registry, arn) == [("t", False), ("u", False)]
    with registry.database.read() as connection:
        assert principals.things_of(connection, A.account_id, certificate_id(arn)) == ["t", "u"]
        assert principals.things_of(connection, B.account_id, certificate_id(arn)) == []
    with pytest.raises(InvalidError, match="attached to the thing"):
        things.remove(registry, A, "t")
    with pytest.raises(DeleteConflictError):
        certificates.remove(registry, A, certificate_id(arn), force=True)
    with pytest.raises(TransferConflictError):
        transfers.offer(registry, A, certificate_id(arn), B.account_id)
    for thing in ("t", "t", "u"):
        principals.detach(registry, A, thing, arn)
    assert of_thing(registry, "t") == of_certificate(registry, arn) == []
    told = [row for row in rows.all("changes") if "ThingPrincipal" in row["operation"]]
    assert [(row["operation"], row["resource_type"], row["resource_id"], row["details"]) for row in told] == [
        ("AttachThingPrincipal", "certificate", certificate_id(arn), {"thing": "t", "exclusive": False}),
        ("AttachThingPrincipal", "certificate", certificate_id(arn), {"thing": "u", "exclusive": False}),
        ("DetachThingPrincipal", "certificate", certificate_id(arn), {"thing": "t"}),
        ("DetachThingPrincipal", "certificate", certificate_id(arn), {"thing": "u"}),
    ]
    things.remove(registry, A, "t")
    certificates.remove(registry, A, certificate_id(arn))


def test_an_exclusive_thing_is_the_only_one(registry: Registry, arn: str) -> None:
    principals.attach(registry, A, "t", arn)
    principals.attach(registry, A, "t", arn, exclusive=True)
    assert of_certificate(registry, arn) == [("t", True)]
    for exclusive in (None, False, True):
        with pytest.raises(InvalidError):
            principals.attach(registry, A, "u", arn, exclusive=exclusive)
    principals.attach(registry, A, "t", arn)  # says nothing of the kind, and changes nothing
    assert of_certificate(registry, arn, exclusive=True) == [("t", True)]
    assert of_certificate(registry, arn, exclusive=False) == []
    assert of_thing(registry, "t", exclusive=True) == [certificate_id(arn)]
    assert of_thing(registry, "t", exclusive=False) == []
    principals.attach(registry, A, "t", arn, exclusive=False)
    principals.attach(registry, A, "u", arn)
    for thing in ("t", "u"):
        with pytest.raises(InvalidError):
            principals.attach(registry, A, thing, arn, exclusive=True)
    assert of_certificate(registry, arn) == [("t", False), ("u", False)]
    # a thing may have several certificates, each exclusively
    for _ in range(2):
        other = certificates.register_without_authority(registry, A, fleet_keys.device().pem).arn
        principals.attach(registry, A, "t", other, exclusive=True)
    assert len(of_thing(registry, "t")) == 3


def test_what_is_not_there(registry: Registry, arn: str) -> None:
    unknown = registry.arn(A.account_id, "cert/" + "0" * 64)
    authority = registry.arn(A.account_id, "cacert/" + "0" * 64)
    foreign = registry.arn(B.account_id, f"cert/{certificate_id(arn)}")
    for call in (principals.attach, principals.detach):
        for thing, wrong in (("none", arn), ("t", unknown)):
            with pytest.raises(NotFoundError):
                call(registry, A, thing, wrong)
        for wrong in (authority, foreign, "eu-west-1:identity", certificate_id(arn), f"{unknown}x"):
            with pytest.raises(InvalidError):
                call(registry, A, "t", wrong)
        with pytest.raises(NotFoundError):
            call(registry, B, "t", foreign)
    with pytest.raises(NotFoundError):
        principals.of_thing(registry, B, "t")
    with pytest.raises(NotFoundError):
        principals.of_certificate(registry, A, unknown)
    with pytest.raises(InvalidError):
        principals.of_certificate(registry, A, foreign)


def test_nothing_is_attached_to_what_is_leaving(registry: Registry, arn: str) -> None:
    policies.create(registry, A, "p", POLICY)
    transfers.offer(registry, A, certificate_id(arn), B.account_id)
    with pytest.raises(InvalidError, match="transferred"):
        principals.attach(registry, A, "t", arn)
    with pytest.raises(InvalidError, match="transferred"):
        policies.attach(registry, A, "p", arn)
    transfers.cancel(registry, A, certificate_id(arn))
    principals.attach(registry, A, "t", arn)
    policies.attach(registry, A, "p", arn)


def test_pages(registry: Registry, arn: str) -> None:
    for number in range(5):
        things.create(registry, A, f"v{number}")
        principals.attach(registry, A, f"v{number}", arn)
        one = certificates.register_without_authority(registry, A, fleet_keys.device().pem).arn
        principals.attach(registry, A, "u", one)
    first = principals.of_certificate(registry, A, arn, size=3)
    second = principals.of_certificate(registry, A, arn, size=3, token=first.next_token)
    assert [row["thing_name"] for page in (first, second) for row in page.rows] == ["v0", "v1", "v2", "v3", "v4"]
    assert second.next_token is None
    ids = principals.of_thing(registry, A, "u", size=4)
    rest = principals.of_thing(registry, A, "u", size=4, token=ids.next_token)
    assert len({row["certificate_id"] for page in (ids, rest) for row in page.rows}) == 5
    with pytest.raises(InvalidError):
        principals.of_thing(registry, A, "t", token=ids.next_token)


def test_one_of_many_exclusive_attachments_at_once(registry: Registry, arn: str, rows: Rows) -> None:
    for number in range(8):
        things.create(registry, A, f"x{number}")

    def attempt(number: int) -> bool:
        try:
            principals.attach(registry, A, f"x{number % 8}", arn, exclusive=number % 2 == 0)
        except RegistryError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(attempt, range(8)))
    held = of_certificate(registry, arn)
    assert len(held) == sum(done) == rows.operations().count("AttachThingPrincipal")
    assert len(held) == 1 or not any(exclusive for _, exclusive in held)
