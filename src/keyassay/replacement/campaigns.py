"""Replacements: started, shown, paused, resumed, canceled, and their units tried again; ``worker`` does the rest."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, RowMapping, case, exists, func, select, true, update
from sqlalchemy.sql.elements import ColumnElement

from keyassay.registry.errors import InvalidError, NotConfiguredError, NotFoundError, TaskExistsError
from keyassay.registry.registry import Page, Registry
from keyassay.replacement import planning, proofs, returning, units
from keyassay.replacement.planning import Position, Radius, Selection
from keyassay.replacement.states import ASIDE, BEYOND_RETURN, OPEN_STATUSES, WAY, WITH_DEVICE, State, Status
from keyassay.replacement.units import Unit
from keyassay.storage import leases, schema
from keyassay.storage.database import Actor, Transaction

_R = schema.replacements.c
_S = schema.replacement_steps.c
_U = schema.replacement_units.c

_HOUR = 3_600
_DAY = 24 * _HOUR
#: how a device proves itself; the last one is chosen by ``trustOldKey``
PROOFS = ("secret", "claim-certificate", "device-key", "approval", "old-key")
#: those that a thing has to have been given before its device is asked
_GIVEN_BEFORE = PROOFS[:3]
ISSUERS = ("registry", "hook")
#: what workers with an issuing hook announce (``leases.announce``), and for how many seconds it holds: a worker that is
#: started anew makes no gap
HOOK, HOOK_LASTS = "issuing-hook", 600.0
#: what was skipped is kept with a replacement: so many names
_SKIPPED = 100


@dataclass(frozen=True, slots=True)
class Settings:
    """How a replacement is done.

    Attributes:
        proof: one of ``PROOFS``.
        issuer: one of ``ISSUERS``.
        batch: devices that are asked and not yet seen with their new certificate, at most.
        halt_on_failures: percent of the units begun that may fail.
        grace: seconds that an old certificate is INACTIVE before it is revoked.
        stuck_after: seconds in one state after which a unit counts as stuck.
    """

    proof: str
    issuer: str = "registry"
    batch: int = 100
    halt_on_failures: float = 2.0
    grace: int = _DAY
    stuck_after: int = _HOUR

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Settings:
        """The API's form: proof, trustOldKey, issuer, batch, haltOnFailures, graceSeconds, stuckAfterSeconds.

        Raises:
            InvalidError: no proof or several, or something is out of its range.
        """
        proof = document.get("proof")
        if document.get("trustOldKey"):
            if proof not in (None, "old-key"):
                raise InvalidError("trustOldKey and another proof exclude each other")
            proof = "old-key"
        elif proof == "old-key":
            raise InvalidError("that the old key proves anything has to be said by trustOldKey")
        if proof not in PROOFS:
            raise InvalidError(
                f"how devices prove themselves has to be chosen: {', '.join(PROOFS[:-1])} or trustOldKey"
            )
        made = cls(
            proof,
            document.get("issuer") or "registry",
            document.get("batch", 100),
            float(document.get("haltOnFailures", 2.0)),
            document.get("graceSeconds", _DAY),
            document.get("stuckAfterSeconds", _HOUR),
        )
        if made.issuer not in ISSUERS:
            raise InvalidError(f"certificates are issued by {' or '.join(ISSUERS)}")
        for name, value, least, most in (
            ("batch", made.batch, 1, 10_000),
            ("haltOnFailures", made.halt_on_failures, 0, 100),
            ("graceSeconds", made.grace, 0, 31 * _DAY),
            ("stuckAfterSeconds", made.stuck_after, 1, 31 * _DAY),
        ):
            if not least <= value <= most:
                raise InvalidError(f"{name} lies between {least} and {most}")
        return made

    def as_json(self) -> dict[str, Any]:
        """As the table keeps it, and as ``read`` takes it."""
        return {
            "proof": self.proof,
            "trustOldKey": self.proof == "old-key",
            "issuer": self.issuer,
            "batch": self.batch,
            "haltOnFailures": self.halt_on_failures,
            "graceSeconds": self.grace,
            "stuckAfterSeconds": self.stuck_after,
        }


def plan(registry: Registry, actor: Actor, selection: Mapping[str, Any]) -> Radius:
    """What a replacement of this selection would touch now; nothing changes.

    Raises:
        InvalidError: see ``Selection``.
    """
    wanted = Selection.read(selection)
    with registry.database.read() as connection:
        return planning.radius(connection, actor.account_id, wanted)


def start(
    registry: Registry, actor: Actor, selection: Mapping[str, Any], settings: Mapping[str, Any], token: str
) -> str:
    """Start a replacement: the worker takes it up. The same token again is the same replacement.

    Args:
        registry: where.
        actor: who, and in which account.
        selection: see ``Selection.read``.
        settings: see ``Settings.read``.
        token: the caller's mark of this request, 1 to 64 characters.

    Returns:
        Its id.

    Raises:
        InvalidError: see ``Selection`` and ``Settings``.
        NotConfiguredError: nobody runs the hook that shall issue.
        TaskExistsError: the token has started another replacement.
    """
    with registry.database.write(actor) as transaction:
        return begin(transaction, selection, settings, token)


def begin(transaction: Transaction, selection: Mapping[str, Any], settings: Mapping[str, Any], token: str) -> str:
    """The same inside a transaction.

    Raises:
        InvalidError, NotConfiguredError, TaskExistsError: as above.
    """
    wanted = Selection.read(selection)
    chosen = Settings.read(settings)
    account_id = transaction.account_id
    asked = {"asked": wanted.as_json()}
    query = select(schema.replacements).where(_R.account_id == account_id, _R.token == token)
    known = transaction.execute(query).mappings().first()
    if known is not None:
        same = known["selection"]["asked"] == asked["asked"]
        if same and Settings.read(known["settings"]) == chosen:
            return str(known["id"])
        raise TaskExistsError("the token has started another replacement")
    wanted.check_exists(transaction.connection, account_id)
    proofs.check_settings(chosen.as_json())
    check_issuer(transaction.connection, chosen, transaction.now)
    replacement_id = str(uuid.uuid4())
    row = {
        "account_id": account_id,
        "id": replacement_id,
        "status": Status.RUNNING.value,
        "selection": {**asked, "position": list(planning.START), "skipped": {}, "skippedExamples": []},
        "settings": chosen.as_json(),
        "token": token,
        "started_at": transaction.now,
    }
    transaction.execute(schema.replacements.insert().values(row))
    details = {"selection": asked["asked"], "settings": chosen.as_json()}
    transaction.record("StartReplacement", "replacement", replacement_id, details)
    plan_next(transaction, find(transaction.connection, account_id, replacement_id))
    return replacement_id


def check_issuer(connection: Connection, settings: Settings, now: int) -> None:
    """Make sure that there is somebody who issues what a replacement asks for.

    The hook may belong to this server, to another one, or to a worker beside them: they say so in the database.

    Args:
        connection: of a read or a transaction.
        settings: of the replacement.
        now: milliseconds since 1970.

    Raises:
        NotConfiguredError: it shall be the hook, and nobody has run one for ``HOOK_LASTS`` seconds.
    """
    if settings.issuer == "hook" and not leases.is_announced(connection, HOOK, now):
        raise NotConfiguredError(
            "no issuing hook is there, so that nothing would be issued: start the server, or `keyassay worker` beside "
            "it, with --issuing-hook, or let the registry's authority issue (issuer registry)"
        )


def plan_next(transaction: Transaction, row: RowMapping) -> bool:
    """Plan the next units of a replacement; true if there may be more.

    Args:
        transaction: of its account.
        row: of the replacement, read in the transaction.
    """
    progress = dict(row["selection"])
    if progress["position"] is None:
        return False
    position: Position = (progress["position"][0], progress["position"][1])
    selection = Selection.read(progress["asked"])
    piece = planning.chunk(transaction.connection, row["account_id"], selection, position)
    made = [
        {
            "account_id": row["account_id"],
            "replacement_id": row["id"],
            "old_certificate_id": one.old_certificate_id,
            "thing_name": one.thing_name,
            "state": one.state.value,
            "open": one.state is not State.NO_THING,
            "batch": 0,
            "request_id": str(uuid.uuid4()),
            "state_at": transaction.now,
            "evidence": {one.state.value: {"oldStatus": one.status.value}},
        }
        for one in piece.units
    ]
    if made:
        transaction.execute(schema.replacement_units.insert(), made)
        steps = [
            {
                "account_id": one["account_id"],
                "replacement_id": one["replacement_id"],
                "old_certificate_id": one["old_certificate_id"],
                "thing_name": one["thing_name"],
                "at": transaction.now,
                "step": one["state"],
                "evidence": one["evidence"][one["state"]],
            }
            for one in made
        ]
        transaction.execute(schema.replacement_steps.insert(), steps)
        # thousands are planned at once: one record for all of them
        transaction.record("PlanReplacement", "replacement", row["id"], {"units": len(made)})
    for certificate_id, thing, reason in piece.skipped:
        progress["skipped"] = {**progress["skipped"], reason.value: progress["skipped"].get(reason.value, 0) + 1}
        if len(progress["skippedExamples"]) < _SKIPPED:
            shown = {"certificateId": certificate_id, "thingName": thing, "reason": reason.value}
            progress["skippedExamples"] = [*progress["skippedExamples"], shown]
    progress["position"] = None if piece.position is None else list(piece.position)
    change(transaction, row["id"], selection=progress)
    return piece.position is not None


def change(transaction: Transaction, replacement_id: str, **values: Any) -> None:
    """Change columns of a replacement."""
    here = (_R.account_id == transaction.account_id) & (_R.id == replacement_id)
    transaction.execute(update(schema.replacements).where(here).values(values))


# Shown


def find(connection: Connection, account_id: str, replacement_id: str) -> RowMapping:
    """The row of a replacement.

    Raises:
        NotFoundError: there is none.
    """
    query = select(schema.replacements).where(_R.account_id == account_id, _R.id == replacement_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError("there is no such replacement")
    return row


@dataclass(frozen=True, slots=True)
class Funnel:
    """How far the units of a replacement are.

    Attributes:
        states: units in each state now.
        begun: units whose devices have been asked (or served otherwise).
        stuck: units whose device has been asked and has not gone on for ``stuck_after`` seconds.
        failed: those that count for ``halt_on_failures``: FAILED, and stuck with a new certificate.
        oldest_stuck_at: since when the first of them is stuck, milliseconds since 1970.
        with_problem: units of any state that carry a problem.
        unproven: units that are not begun, since their device was given nothing to prove a request with; None where
            nobody asked, since it looks at each of them.
    """

    states: Mapping[State, int]
    begun: int
    stuck: int
    failed: int
    oldest_stuck_at: int | None
    with_problem: int
    unproven: int | None = None

    @property
    def total(self) -> int:
        """Units with a thing."""
        return sum(self.states.values()) - self.states.get(State.NO_THING, 0)

    @property
    def reached(self) -> dict[State, int]:
        """Units that are in each state of the way, or further; without those that are aside."""
        found = {}
        count = 0
        for state in reversed(WAY):
            count += self.states.get(state, 0)
            found[state] = count
        return {state: found[state] for state in WAY}


#: the condition that the device of a unit was not asked yet
NOT_BEGUN = (_U.state == State.PLANNED.value) & (_U.batch == 0)


def can_prove(proof: str, now: int) -> ColumnElement[bool]:
    """The condition that the thing of a unit has what it proves its request with.

    A device that is asked before it was given its secret, or before its key was registered, could only fail, and look
    like an attacker. What an operator approves, and the old key, need nothing beforehand.

    Args:
        proof: of the replacement's settings.
        now: milliseconds since 1970.
    """
    if proof not in _GIVEN_BEFORE:
        return true()
    given = schema.replacement_proofs.c
    return exists().where(
        given.account_id == _U.account_id,
        given.replacement_id == _U.replacement_id,
        given.thing_name == _U.thing_name,
        given.kind == proof,
        given.expires_at > now,
    )


def funnel(connection: Connection, row: Mapping[Any, Any], now: int) -> Funnel:
    """Count the units of a replacement.

    Args:
        connection: of a read or a transaction.
        row: of the replacement.
        now: milliseconds since 1970.
    """
    its = (_U.account_id == row["account_id"]) & (_U.replacement_id == row["id"])
    asked = func.sum(case((_U.batch > 0, 1), else_=0))
    states: dict[State, int] = {}
    begun = 0
    for state, count, of_these in connection.execute(
        select(_U.state, func.count(), asked).where(its).group_by(_U.state)
    ):
        states[State(state)] = count
        begun += of_these
    before = now - 1_000 * Settings.read(row["settings"]).stuck_after
    waiting = its & _U.state.in_([one.value for one in WITH_DEVICE]) & (_U.batch > 0) & (_U.state_at < before)
    late = select(_U.state, func.count(), func.min(_U.state_at)).where(waiting).group_by(_U.state)
    stuck, failed, oldest = 0, states.get(State.FAILED, 0), None
    for state, count, first in connection.execute(late):
        stuck += count
        failed += count if state != State.PLANNED else 0
        oldest = first if oldest is None else min(oldest, first)
    problems = select(func.count()).where(its, _U.problem.is_not(None))
    with_problem = connection.execute(problems).scalar_one()
    return Funnel(states, begun, stuck, failed, oldest, with_problem)


def describe(registry: Registry, actor: Actor, replacement_id: str, now: int) -> tuple[RowMapping, Funnel]:
    """A replacement, and how far its units are.

    Raises:
        NotFoundError: there is none.
    """
    with registry.database.read() as connection:
        row = find(connection, actor.account_id, replacement_id)
        its = (_U.account_id == actor.account_id) & (_U.replacement_id == replacement_id)
        waits = select(func.count()).where(its, NOT_BEGUN, ~can_prove(Settings.read(row["settings"]).proof, now))
        return row, replace(funnel(connection, row, now), unproven=connection.execute(waits).scalar_one())


def listed(
    registry: Registry, actor: Actor, *, status: str | None = None, token: str | None = None, size: int | None = None
) -> Page[dict[str, Any]]:
    """A page of replacements, the newest first."""
    query = select(schema.replacements).where(_R.account_id == actor.account_id)
    if status is not None:
        query = query.where(_R.status == status)
    with registry.database.read() as connection:
        return registry.page(
            connection,
            query,
            (_R.started_at, _R.id),
            scope=(actor.account_id, "replacements", status or ""),
            token=token,
            size=size,
            ascending=False,
        )


def unit_page(
    registry: Registry,
    actor: Actor,
    replacement_id: str,
    *,
    states: Sequence[str] = (),
    thing_name: str | None = None,
    stuck_before: int | None = None,
    with_problem: bool = False,
    token: str | None = None,
    size: int | None = None,
) -> Page[Unit]:
    """A page of the units of a replacement, by old certificate and thing.

    Args:
        registry: where.
        actor: who.
        replacement_id: of which.
        states: only these.
        thing_name: only of this thing.
        stuck_before: only units that wait for their device in the same state since before that, milliseconds.
        with_problem: only units that carry a problem.
        token: of the page before.
        size: rows of a page.

    Raises:
        NotFoundError, InvalidError: no such replacement; a foreign token.
    """
    query = units.query(actor.account_id).where(_U.replacement_id == replacement_id)
    if states:
        query = query.where(_U.state.in_(sorted(set(states))))
    if thing_name is not None:
        query = query.where(_U.thing_name == thing_name)
    if stuck_before is not None:
        query = query.where(_U.state.in_([one.value for one in WITH_DEVICE]), _U.batch > 0, _U.state_at < stuck_before)
    if with_problem:
        query = query.where(_U.problem.is_not(None))
    # the time moves on from page to page, so that it is no part of what a token is bound to
    filters = (sorted(set(states)), thing_name or "", stuck_before is not None, with_problem)
    with registry.database.read() as connection:
        find(connection, actor.account_id, replacement_id)
        page = registry.page(
            connection,
            query,
            (_U.old_certificate_id, _U.thing_name),
            scope=(actor.account_id, "replacement-units", replacement_id, *filters),
            token=token,
            size=size,
        )
    return Page([units.read(row) for row in page.rows], page.next_token)


def steps(
    registry: Registry,
    actor: Actor,
    replacement_id: str,
    thing_name: str,
    *,
    old_certificate_id: str | None = None,
    token: str | None = None,
    size: int | None = None,
) -> Page[dict[str, Any]]:
    """A page of what happened to the units of a thing, in order: rows of ``replacement_steps``.

    Raises:
        NotFoundError, InvalidError: no such replacement; a foreign token.
    """
    query = select(schema.replacement_steps).where(
        _S.account_id == actor.account_id, _S.replacement_id == replacement_id, _S.thing_name == thing_name
    )
    if old_certificate_id is not None:
        query = query.where(_S.old_certificate_id == old_certificate_id)
    scope = (actor.account_id, "replacement-steps", replacement_id, thing_name, old_certificate_id or "")
    with registry.database.read() as connection:
        find(connection, actor.account_id, replacement_id)
        return registry.page(connection, query, (_S.number,), scope=scope, token=token, size=size)


# Changed by operators


def _open(transaction: Transaction, replacement_id: str, wanted: Status) -> RowMapping | None:
    """A replacement that is to get another status; None if it has that.

    Raises:
        NotFoundError, InvalidError: there is none, or it has ended.
    """
    row = find(transaction.connection, transaction.account_id, replacement_id)
    if row["status"] == wanted:
        return None
    if row["status"] not in OPEN_STATUSES:
        raise InvalidError(f"the replacement is {row['status']}")
    return row


def pause(registry: Registry, actor: Actor, replacement_id: str) -> None:
    """Let nothing begin, nothing be issued, and no old certificate be touched until it is resumed.

    Raises:
        NotFoundError, InvalidError: there is none, or it has ended.
    """
    with registry.database.write(actor) as transaction:
        if _open(transaction, replacement_id, Status.PAUSED) is None:
            return
        change(transaction, replacement_id, status=Status.PAUSED.value)
        transaction.record("PauseReplacement", "replacement", replacement_id)


def resume(registry: Registry, actor: Actor, replacement_id: str) -> None:
    """Go on with one that is paused or halted; the failures that are there are forgiven.

    Raises:
        NotFoundError, InvalidError: there is none, or it has ended.
    """
    with registry.database.write(actor) as transaction:
        row = _open(transaction, replacement_id, Status.RUNNING)
        if row is None:
            return
        failed = funnel(transaction.connection, row, transaction.now).failed
        settings = {**row["settings"], "forgiven": failed}
        change(transaction, replacement_id, status=Status.RUNNING.value, problem=None, settings=settings)
        transaction.record("ResumeReplacement", "replacement", replacement_id, {"forgivenFailures": failed})


def cancel(registry: Registry, actor: Actor, replacement_id: str) -> None:
    """End a replacement: the worker rolls back all units whose old certificate is not revoked yet.

    Raises:
        NotFoundError, InvalidError: there is none, or it is complete.
    """
    with registry.database.write(actor) as transaction:
        row = _open(transaction, replacement_id, Status.CANCELED)
        if row is None:
            return
        progress = {**row["selection"], "position": None}
        change(transaction, replacement_id, status=Status.CANCELED.value, selection=progress)
        transaction.record("CancelReplacement", "replacement", replacement_id)


def roll_back(registry: Registry, actor: Actor, replacement_id: str, thing_name: str) -> list[Unit]:
    """Roll back the open units of one thing, while the replacement goes on with the others.

    Raises:
        NotFoundError, InvalidError: there is no such unit, or its old certificate is revoked.
    """
    with registry.database.write(actor) as transaction:
        found = _open_units(transaction, actor.account_id, replacement_id, thing_name)
        if any(one.state in BEYOND_RETURN for one in found):
            raise InvalidError("the old certificate is revoked: that cannot be undone")
        return [returning.roll_back(transaction, one) for one in found]


def retry(
    registry: Registry, actor: Actor, replacement_id: str, thing_name: str, *, afresh: bool = False
) -> list[Unit]:
    """Let the units of a thing that are HALTED or FAILED go on where they were, or begin anew.

    Args:
        registry: where.
        actor: who.
        replacement_id: of which.
        thing_name: the thing.
        afresh: give up the new certificate, if there is one, and let the device ask for another.

    Raises:
        NotFoundError, InvalidError: there is no such unit, or none that is aside.
    """
    with registry.database.write(actor) as transaction:
        found = _open_units(transaction, actor.account_id, replacement_id, thing_name)
        found = [one for one in found if one.state in ASIDE]
        if not found:
            raise InvalidError("no unit of the thing is HALTED or FAILED")
        return [returning.retry(transaction, one, afresh=afresh) for one in found]


def _open_units(transaction: Transaction, account_id: str, replacement_id: str, thing_name: str) -> Iterable[Unit]:
    find(transaction.connection, account_id, replacement_id)
    query = units.query(account_id).where(
        _U.replacement_id == replacement_id, _U.thing_name == thing_name, _U.open, _U.thing_name != ""
    )
    found = [units.read(row) for row in transaction.execute(query).mappings()]
    if not found:
        raise NotFoundError("the replacement has no open unit of that thing")
    return found
