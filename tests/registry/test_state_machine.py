"""Certificates, things, groups, policies and transfers of two accounts, in any order, against a small model.

After each step the tables hold what the model holds, and something was recorded exactly if something changed.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import event, select

import fleet_keys
from keyassay.registry import certificates, memberships, policies, principals, thing_groups, things, transfers
from keyassay.registry.errors import (
    AlreadyExistsError,
    CertificateStateError,
    DeleteConflictError,
    InvalidError,
    LimitError,
    NotFoundError,
    TransferCompletedError,
    TransferConflictError,
)
from keyassay.registry.registry import Limits, Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor
from two_accounts import A, B

POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}]}'
LIMITS = Limits(policies_of_a_certificate=1, policies_of_a_group=1, groups_of_a_thing=2)
#: group -> its parent, where it is made
FOREST = {"g": None, "h": "g", "j": None, "k": None}

#: few of each, and most in one account, so that steps meet
SIDES = st.sampled_from([A, A, A, A, A, B])
CERTIFICATES = st.sampled_from([0, 0, 0, 1])
THINGS = st.sampled_from(["t", "u"])
GROUPS = st.sampled_from(sorted(FOREST))
POLICIES = st.sampled_from(["p", "p", "p", "q"])

Expected = type[Exception] | tuple[type[Exception], ...] | None


@cache
def device(number: int) -> fleet_keys.Signed:
    return fleet_keys.device(f"device {number}")


def root(group: str) -> str:
    above = FOREST[group]
    return group if above is None else root(above)


@dataclass
class Model:
    """What is in the registry; an account stands in front of every key.

    Attributes:
        certificates: (account, number) -> (status, account to which it is offered).
        attached: (account, thing, certificate) -> whether exclusively.
        members: (account, group, thing).
        policies: (account, policy).
        in_force: (account, target, policy); a target is a certificate's number or a group's name.
    """

    certificates: dict[tuple[str, int], tuple[str, str | None]] = field(default_factory=dict)
    things: set[tuple[str, str]] = field(default_factory=set)
    attached: dict[tuple[str, str, int], bool] = field(default_factory=dict)
    groups: set[tuple[str, str]] = field(default_factory=set)
    members: set[tuple[str, str, str]] = field(default_factory=set)
    policies: set[tuple[str, str]] = field(default_factory=set)
    in_force: set[tuple[str, int | str, str]] = field(default_factory=set)

    def status(self, account: str, number: int) -> str | None:
        return self.certificates.get((account, number), (None, None))[0]

    def things_of(self, account: str, number: int) -> dict[str, bool]:
        return {key[1]: exclusive for key, exclusive in self.attached.items() if (key[0], key[2]) == (account, number)}

    def policies_of(self, account: str, target: int | str) -> set[str]:
        return {name for owner, where, name in self.in_force if (owner, where) == (account, target)}

    def groups_of(self, account: str, thing: str) -> set[str]:
        return {group for owner, group, name in self.members if (owner, name) == (account, thing)}


STEPS: list[st.SearchStrategy[tuple[str, dict[str, Any]]]] = []


def step(weight: int = 1, **chosen: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A rule; not one of hypothesis's own, since it leaves most of those out of each run, and then little meets."""

    def note(function: Callable[..., None]) -> Callable[..., None]:
        STEPS.extend([st.tuples(st.just(function.__name__), st.fixed_dictionaries(chosen))] * weight)
        return function

    return note


class Machine(RuleBasedStateMachine):
    """Performs what hypothesis chooses on the registry and on the model."""

    registry: Registry

    def __init__(self) -> None:
        super().__init__()
        keep = {"server", "accounts", "access_keys"}
        with self.registry.database.engine.begin() as connection:
            for table in reversed(schema.METADATA.sorted_tables):
                if table.name not in keep:
                    connection.execute(table.delete())
        self.model = Model()
        self.ids = [device(number).id for number in range(2)]

    @initialize()
    def begin_with_something(self) -> None:
        self.register(A, 0, None)
        self.create_policy(A, "p")
        for thing in ("t", "u"):
            self.create_thing(A, thing)
        for group in ("g", "h", "j"):
            self.create_group(A, group)

    def perform(self, expected: Expected, call: Callable[[], Any], change: Callable[[], Any]) -> None:
        """The call does what the model says, and a change of the model is recorded, nothing else."""
        before, revision = deepcopy(self.model), self.revision()
        if expected is not None:
            with pytest.raises(expected):
                call()
        else:
            call()
            change()
        assert (self.revision() != revision) == (self.model != before)

    def revision(self) -> int:
        with self.registry.database.read() as connection:
            return int(connection.execute(select(schema.server.c.revision)).scalar_one())

    def arn(self, side: Actor, number: int) -> str:
        return self.registry.arn(side.account_id, f"cert/{self.ids[number]}")

    # certificates

    @step(side=SIDES, number=CERTIFICATES, status=st.sampled_from([None, "ACTIVE"]))
    def register(self, side: Actor, number: int, status: str | None) -> None:
        model, key = self.model, (side.account_id, number)
        pem = device(number).pem
        self.perform(
            AlreadyExistsError if key in model.certificates else None,
            lambda: certificates.register_without_authority(self.registry, side, pem, status=status),
            lambda: model.certificates.update({key: (status or "INACTIVE", None)}),
        )

    @step(side=SIDES, number=CERTIFICATES, status=st.sampled_from(["ACTIVE", *4 * ["INACTIVE"], "REVOKED"]))
    def set_status(self, side: Actor, number: int, status: str) -> None:
        model, key = self.model, (side.account_id, number)
        present = model.status(*key)
        expected: Expected = None
        if present is None:
            expected = NotFoundError
        elif present == "PENDING_TRANSFER" or (present == "REVOKED" and status != "REVOKED"):
            expected = CertificateStateError
        self.perform(
            expected,
            lambda: certificates.set_status(self.registry, side, self.ids[number], status),
            lambda: model.certificates.update({key: (status, None)}),
        )

    @step(side=SIDES, number=CERTIFICATES, force=st.booleans())
    def delete_certificate(self, side: Actor, number: int, force: bool) -> None:
        model, key = self.model, (side.account_id, number)
        present = model.status(*key)
        expected: Expected = None
        if present is None:
            expected = NotFoundError
        elif present in ("ACTIVE", "PENDING_TRANSFER"):
            expected = CertificateStateError
        elif model.things_of(*key) or (model.policies_of(*key) and not force):
            expected = DeleteConflictError

        def change() -> None:
            del model.certificates[key]
            model.in_force = {one for one in model.in_force if one[:2] != key}

        self.perform(expected, lambda: certificates.remove(self.registry, side, self.ids[number], force=force), change)

    # transfers

    @step(2, side=SIDES, number=CERTIFICATES)
    def offer(self, side: Actor, number: int) -> None:
        model, key = self.model, (side.account_id, number)
        other = (B if side is A else A).account_id
        present = model.status(*key)
        expected: Expected = None
        if present is None:
            expected = NotFoundError
        elif present != "INACTIVE":
            expected = CertificateStateError
        elif model.things_of(*key) or model.policies_of(*key):
            expected = TransferConflictError
        self.perform(
            expected,
            lambda: transfers.offer(self.registry, side, self.ids[number], other),
            lambda: model.certificates.update({key: ("PENDING_TRANSFER", other)}),
        )

    @step(
        2,
        side=st.sampled_from([A, B]),
        number=CERTIFICATES,
        how=st.sampled_from(["accept", "activate", "reject", "cancel"]),
    )
    def end_of_offer(self, side: Actor, number: int, how: str) -> None:
        model, mine = self.model, (side.account_id, number)
        source = mine if how == "cancel" else ((B if side is A else A).account_id, number)
        active = how == "activate"
        expected: Expected = None
        if model.status(*source) != "PENDING_TRANSFER":
            expected = (NotFoundError, InvalidError, TransferCompletedError)
        elif how in ("accept", "activate") and mine in model.certificates:
            expected = InvalidError

        def change() -> None:
            if how in ("accept", "activate"):
                del model.certificates[source]
                model.certificates[mine] = ("ACTIVE" if active else "INACTIVE", None)
            else:
                model.certificates[source] = ("INACTIVE", None)

        calls = {
            "accept": lambda: transfers.accept(self.registry, side, self.ids[number]),
            "activate": lambda: transfers.accept(self.registry, side, self.ids[number], set_as_active=True),
            "reject": lambda: transfers.reject(self.registry, side, self.ids[number]),
            "cancel": lambda: transfers.cancel(self.registry, side, self.ids[number]),
        }
        self.perform(expected, calls[how], change)

    # things and their certificates

    @step(side=SIDES, thing=THINGS)
    def create_thing(self, side: Actor, thing: str) -> None:
        self.perform(
            None,
            lambda: things.create(self.registry, side, thing),
            lambda: self.model.things.add((side.account_id, thing)),
        )

    @step(side=SIDES, thing=THINGS)
    def delete_thing(self, side: Actor, thing: str) -> None:
        model, key = self.model, (side.account_id, thing)

        def change() -> None:
            model.things.discard(key)
            model.members = {one for one in model.members if (one[0], one[2]) != key}

        attached = any(one[:2] == key for one in model.attached)
        self.perform(InvalidError if attached else None, lambda: things.remove(self.registry, side, thing), change)

    @step(3, side=SIDES, thing=THINGS, number=CERTIFICATES, exclusive=st.sampled_from([None, True, False]))
    def attach_principal(self, side: Actor, thing: str, number: int, exclusive: bool | None) -> None:
        model, account = self.model, side.account_id
        status, held = model.status(account, number), model.things_of(account, number)
        others = {name: one for name, one in held.items() if name != thing}
        wanted = held.get(thing, False) if exclusive is None else exclusive
        expected: Expected = None
        if (account, thing) not in model.things or status is None:
            expected = NotFoundError
        elif status == "PENDING_TRANSFER" or (others and (wanted or any(others.values()))):
            expected = InvalidError
        self.perform(
            expected,
            lambda: principals.attach(self.registry, side, thing, self.arn(side, number), exclusive=exclusive),
            lambda: model.attached.update({(account, thing, number): wanted}),
        )

    @step(side=SIDES, thing=THINGS, number=CERTIFICATES)
    def detach_principal(self, side: Actor, thing: str, number: int) -> None:
        model, account = self.model, side.account_id
        there = (account, thing) in model.things and model.status(account, number)
        self.perform(
            None if there else NotFoundError,
            lambda: principals.detach(self.registry, side, thing, self.arn(side, number)),
            lambda: model.attached.pop((account, thing, number), None),
        )

    # groups

    @step(side=SIDES, group=GROUPS)
    def create_group(self, side: Actor, group: str) -> None:
        model, parent = self.model, FOREST[group]
        missing = parent is not None and (side.account_id, parent) not in model.groups
        self.perform(
            NotFoundError if missing else None,
            lambda: thing_groups.create(self.registry, side, group, parent=parent),
            lambda: model.groups.add((side.account_id, group)),
        )

    @step(side=SIDES, group=GROUPS)
    def delete_group(self, side: Actor, group: str) -> None:
        model, key = self.model, (side.account_id, group)

        def change() -> None:
            model.groups.discard(key)
            model.members = {one for one in model.members if one[:2] != key}
            model.in_force = {one for one in model.in_force if one[:2] != key}

        children = any(FOREST[name] == group for owner, name in model.groups if owner == side.account_id)
        self.perform(
            InvalidError if children else None, lambda: thing_groups.remove(self.registry, side, group), change
        )

    @step(4, side=SIDES, thing=THINGS, group=GROUPS)
    def join(self, side: Actor, thing: str, group: str) -> None:
        model, account = self.model, side.account_id
        held = model.groups_of(account, thing)
        expected: Expected = None
        if (account, thing) not in model.things or (account, group) not in model.groups:
            expected = NotFoundError
        elif group not in held and (root(group) in map(root, held) or len(held) >= LIMITS.groups_of_a_thing):
            expected = InvalidError
        self.perform(
            expected,
            lambda: memberships.add(self.registry, side, thing, group),
            lambda: model.members.add((account, group, thing)),
        )

    @step(side=SIDES, thing=THINGS, group=GROUPS)
    def leave(self, side: Actor, thing: str, group: str) -> None:
        model, account = self.model, side.account_id
        there = (account, thing) in model.things and (account, group) in model.groups
        self.perform(
            None if there else NotFoundError,
            lambda: memberships.remove(self.registry, side, thing, group),
            lambda: model.members.discard((account, group, thing)),
        )

    # policies

    @step(side=SIDES, name=POLICIES)
    def create_policy(self, side: Actor, name: str) -> None:
        model, key = self.model, (side.account_id, name)
        self.perform(
            AlreadyExistsError if key in model.policies else None,
            lambda: policies.create(self.registry, side, name, POLICY),
            lambda: model.policies.add(key),
        )

    @step(side=SIDES, name=POLICIES)
    def delete_policy(self, side: Actor, name: str) -> None:
        model, key = self.model, (side.account_id, name)
        expected: Expected = None if key in model.policies else NotFoundError
        if any((one[0], one[2]) == key for one in model.in_force):
            expected = DeleteConflictError
        self.perform(expected, lambda: policies.remove(self.registry, side, name), lambda: model.policies.discard(key))

    @step(3, side=SIDES, name=POLICIES, whom=st.one_of(CERTIFICATES, GROUPS))
    def attach_policy(self, side: Actor, name: str, whom: int | str) -> None:
        model, account = self.model, side.account_id
        arn = self.target(side, whom)
        held = model.policies_of(account, whom)
        if isinstance(whom, str):
            most, there, leaving = LIMITS.policies_of_a_group, (account, whom) in model.groups, False
        else:
            most = LIMITS.policies_of_a_certificate
            there = model.status(account, whom) is not None
            leaving = model.status(account, whom) == "PENDING_TRANSFER"
        expected: Expected = None
        if (account, name) not in model.policies or not there:
            expected = NotFoundError
        elif leaving:
            expected = InvalidError
        elif name not in held and len(held) >= most:
            expected = LimitError
        self.perform(
            expected,
            lambda: policies.attach(self.registry, side, name, arn),
            lambda: model.in_force.add((account, whom, name)),
        )

    @step(side=SIDES, name=POLICIES, whom=st.one_of(CERTIFICATES, GROUPS))
    def detach_policy(self, side: Actor, name: str, whom: int | str) -> None:
        model, account = self.model, side.account_id
        self.perform(
            None if (account, name) in model.policies else NotFoundError,
            lambda: policies.detach(self.registry, side, name, self.target(side, whom)),
            lambda: model.in_force.discard((account, whom, name)),
        )

    def target(self, side: Actor, target: int | str) -> str:
        if isinstance(target, int):
            return self.arn(side, target)
        return self.registry.arn(side.account_id, f"thinggroup/{target}")

    @rule(chosen=st.integers(0, 10_000).flatmap(lambda number: STEPS[number % len(STEPS)]))
    def do(self, chosen: tuple[str, dict[str, Any]]) -> None:
        name, values = chosen
        getattr(self, name)(**values)

    # what holds after each step

    @invariant()
    def tables_hold_what_the_model_holds(self) -> None:
        model, c = self.model, schema.certificates.c
        number = {one: index for index, one in enumerate(self.ids)}

        def target(text: str) -> int | str:
            kind, _, name = text.partition("/")
            return number[name] if kind == "cert" else name

        with self.registry.database.read() as connection:

            def rows(table: str, *columns: str) -> list[Any]:
                found = schema.METADATA.tables[table].c
                return list(connection.execute(select(*(found[name] for name in columns))))

            held = connection.execute(select(c.account_id, c.id, c.status, c.transfer_target))
            assert {(row[0], number[row[1]]): (row[2], row[3]) for row in held} == model.certificates
            assert {tuple(row) for row in rows("things", "account_id", "name")} == model.things
            assert {tuple(row) for row in rows("thing_groups", "account_id", "name")} == model.groups
            assert {tuple(row) for row in rows("policies", "account_id", "name")} == model.policies
            members = rows("thing_group_members", "account_id", "group_name", "thing_name")
            assert {tuple(row) for row in members} == model.members
            attached = rows("thing_principals", "account_id", "thing_name", "certificate_id", "exclusive")
            assert {(row[0], row[1], number[row[2]]): row[3] for row in attached} == model.attached
            in_force = rows("policy_attachments", "account_id", "target", "policy_name")
            assert {(row[0], target(row[1]), row[2]) for row in in_force} == model.in_force


@pytest.mark.slow
def test_whatever_happens_the_model_foretells(registry: Registry) -> None:
    small = Registry(registry.database, registry.seal, limits=LIMITS)
    if registry.database.is_sqlite:  # nothing here has to survive a power cut

        @event.listens_for(registry.database.engine, "connect")
        def hurry(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA synchronous = OFF")

        registry.database.close()  # whose next connections are told
    machine = type("MachineOfTest", (Machine,), {"registry": small})
    examples = 30 if registry.database.is_sqlite else 8
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
