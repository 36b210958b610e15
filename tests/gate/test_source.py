"""Both sources of a gate answer alike; what goes wrong on the way is one kind of error."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials

from fleet_keys import certificate, ec_key
from keyassay.aws import own_gates
from keyassay.gate.source import ApiSource, DatabaseSource, Source, SourceError
from keyassay.registry import accounts, certificates, gate_feed, policies, principals, things
from keyassay.registry.accounts import Role
from live_server import running
from two_accounts import A

PLACE = f"arn:aws:iot:us-east-1:{A.account_id}:"
POLICY = (
    '{"Statement": [{"Effect": "Allow", "Action": "iot:Connect", '
    '"Resource": "*", "Condition": {"Bool": {"iot:Connection.Thing.IsAttached": "true"}}}]}'
)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Any, ApiSource, DatabaseSource]]:
    """A server's registry, and the two sources of its account."""
    with running(tmp_path) as server:
        registry = server.registry
        key = accounts.create_key(registry, A, Role.GATE)
        credentials = Credentials(key.access_key_id, key.secret_access_key)
        yield registry, ApiSource(server.addresses[0], credentials), DatabaseSource(registry, A.account_id)


def fleet(registry: Any) -> list[str]:
    ids = []
    policies.create(registry, A, "own", POLICY)
    for number in range(3):
        pem = certificate(f"device-{number}", ec_key(number)).pem
        ids.append(certificates.register_without_authority(registry, A, pem, status="ACTIVE").id)
        things.create(registry, A, f"thing-{number}")
        principals.attach(registry, A, f"thing-{number}", f"{PLACE}cert/{ids[-1]}")
        policies.attach(registry, A, "own", f"{PLACE}cert/{ids[-1]}")
    return ids


def test_both_sources_answer_alike(
    served: tuple[Any, ApiSource, DatabaseSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, *sources = served
    ids = fleet(registry)
    monkeypatch.setattr(gate_feed, "PAGE", 2)
    monkeypatch.setattr(gate_feed, "PIECE", 1)

    def told(source: Source) -> list[Any]:
        first = source.snapshot("entries")
        second = source.snapshot("entries", first["nextToken"])
        names = source.snapshot("things")
        after, epoch = first["revision"], first["epoch"]
        answers = [first["entries"], second["entries"], names["things"], source.authorities()]
        answers += [source.changes(after, epoch, 0), source.changes(0, "foreign", 0)]
        body = {"gate": "north", "epoch": epoch, "revision": after, "startedAt": 1, "refusals": {"inactive": 1}}
        answers += [source.report(body), source.messages(0, ""), source.deliver([])]
        answers.append(source.events({"gate": "north", "events": [], "sessions": None, "sentAt": 1}))
        return answers

    def pieces(source: Source, after: int) -> list[Any]:
        """All pieces of a change that concerns the whole fleet; the source remembers where it was."""
        found, complete = [], False
        while not complete:
            answer = source.changes(after, epoch, 0)
            assert "position" not in answer
            found.append([one["certificateId"] for one in answer["entries"]])
            after, complete = answer["revision"], answer["complete"]
        return found

    told(sources[0])  # makes the gate known, which is a change
    assert told(sources[0]) == told(sources[1])
    snapshot = sources[0].snapshot("entries")
    epoch = snapshot["epoch"]
    policies.create_version(registry, A, "own", POLICY, set_as_default=True)
    expected = [[one] for one in sorted(ids)]
    for source in sources:
        assert [one for one in pieces(source, snapshot["revision"]) if one] == expected


@pytest.mark.parametrize("number", [1, 2])
def test_waiting_ends_with_a_revocation(served: tuple[Any, ApiSource, DatabaseSource], number: int) -> None:
    registry, source = served[0], served[number]
    ids = fleet(registry)
    snapshot = source.snapshot("entries")  # type: ignore[attr-defined]
    threading.Timer(0.5, lambda: certificates.set_status(registry, A, ids[0], "REVOKED")).start()
    began = time.monotonic()
    answer = source.changes(snapshot["revision"], snapshot["epoch"], 20)  # type: ignore[attr-defined]
    assert time.monotonic() - began < 15
    assert [(one["certificateId"], one["state"]) for one in answer["entries"]] == [(ids[0], "BLOCKED")]


def test_waiting_gates_leave_the_api_its_threads(served: tuple[Any, ApiSource, DatabaseSource]) -> None:
    registry, source, _ = served
    fleet(registry)
    snapshot = source.snapshot("entries")
    threads = [
        threading.Thread(target=source.changes, args=(snapshot["revision"], snapshot["epoch"], 4)) for _ in range(24)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    began = time.monotonic()
    for _ in range(5):
        source.authorities()
    assert time.monotonic() - began < 10
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    # all have been given back
    with contextlib.ExitStack() as stack:
        granted = [stack.enter_context(own_gates.patience(60)) for _ in range(8)]
    assert granted == [own_gates.LONGEST_WAIT] * 6 + [0.0] * 2


def test_what_the_registry_refuses_is_said_and_marked(
    served: tuple[Any, ApiSource, DatabaseSource], tmp_path: Path
) -> None:
    registry, api, database = served
    for source in (api, database):
        with pytest.raises(SourceError) as caught:
            source.snapshot("entries", "AAAA")
        assert caught.value.refused
    key = accounts.create_key(registry, A, Role.AUDITOR)
    endpoint = api._endpoint
    with pytest.raises(SourceError, match="AccessDenied") as caught:
        ApiSource(endpoint, Credentials(key.access_key_id, key.secret_access_key)).authorities()
    assert caught.value.refused
    with pytest.raises(SourceError):
        ApiSource(endpoint, Credentials(key.access_key_id, "x" * 40)).authorities()


def test_a_registry_that_does_not_answer_is_an_error_of_the_source(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(SourceError) as caught:
        ApiSource(f"http://127.0.0.1:{port}", Credentials("a", "b")).authorities()
    assert not caught.value.refused
