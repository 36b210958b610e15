"""The outbox's way out: at least once under one id, retries, dead letters and their replay, and what waits for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import structlog
from moto.server import ThreadedMotoServer
from sqlalchemy import update
from standardwebhooks import Webhook

from audit_findings import DEVICE_KEYS, audit, device
from keyassay.mitigation import actions, publishing, tasks
from keyassay.mitigation.destinations import Destinations
from keyassay.mitigation.publishing import Publisher
from keyassay.registry.errors import NotFoundError
from keyassay.registry.registry import Registry
from keyassay.storage import outbox, schema
from mitigation_tasks import PARAMS, ROLE, counts, register, status_of, statuses, work
from two_accounts import A, B, Rows
from webhook_receiver import Receiver, receiving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


def publisher(registry: Registry, *targets: str, waits: tuple[float, ...] = (0.0, 0.0)) -> Publisher:
    secrets = "\n".join(f"{one} {SECRET}" for one in targets)
    permitted = Destinations.read(targets, secrets)
    return Publisher(registry, permitted, structlog.testing.CapturingLogger(), waits=waits)


def deliver(one: Publisher) -> None:
    """All that can be delivered now."""
    while one.refuse_strangers() or any(one.deliver_next(target) for target in one._destinations.permitted):
        pass


def put(registry: Registry, target: str, **body: Any) -> str:
    with registry.database.write(A) as transaction:
        return outbox.put(transaction, target, outbox.FINISHED, body)


def start(registry: Registry, topic: str, *names: str, count: int = 1) -> tuple[list[str], list[Any]]:
    """A task that publishes findings, begun by a worker: ids of the certificates, findings."""
    for name, params in {**PARAMS, "publish": {"publishFindingToSnsParams": {"topicArn": topic}}}.items():
        actions.create(registry, A, name, ROLE, params)
    weak = register(registry, count)
    found = [device(one) for one in weak]
    target = {"auditTaskId": audit(registry, found)}
    tasks.start(registry, A, "task", target, {DEVICE_KEYS: names}, "token")
    work(registry)
    return weak, found


def test_a_finding_is_published_and_what_follows_waits_for_it(
    registry: Registry, rows: Rows, receiver: Receiver
) -> None:
    (weak,), (found,) = start(registry, receiver.url, "publish", "deactivate")
    assert statuses(registry, found.id) == ["IN_PROGRESS", "PENDING"]
    assert status_of(registry, weak) == "ACTIVE"
    (execution, _) = tasks.executions(registry, A, "task", found.id).rows
    assert execution["ended_at"] is None
    deliver(publisher(registry, receiver.url))
    assert statuses(registry, found.id) == ["COMPLETED", "COMPLETED"]
    assert status_of(registry, weak) == "INACTIVE"
    row = tasks.describe(registry, A, "task")
    assert (row["status"], counts(row)) == ("COMPLETED", {"total": 1, "succeeded": 1})
    ((headers, body),) = receiver.got
    event = Webhook(SECRET).verify(body, headers)
    (message,) = rows.all("outbox")
    assert (message["status"], message["attempts"], message["id"]) == ("DELIVERED", 1, event["id"])
    assert event["type"] == outbox.FINDING
    data = event["data"]
    assert (data["accountId"], data["findingId"], data["isSuppressed"]) == (A.account_id, found.id, False)
    assert data["nonCompliantResource"]["resourceIdentifier"] == {"deviceCertificateId": weak}
    (stored,) = rows.all("audit_findings")
    assert data["findingTime"] * 1000 == stored["found_at"]


def test_two_deliveries_in_one_finding(registry: Registry, receiver: Receiver) -> None:
    (weak,), (found,) = start(registry, receiver.url, "publish", "publish", "deactivate")
    deliver(publisher(registry, receiver.url))
    assert statuses(registry, found.id) == ["COMPLETED"] * 3
    assert status_of(registry, weak) == "INACTIVE"
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 2
    assert tasks.describe(registry, A, "task")["status"] == "COMPLETED"


def test_an_attempt_that_failed_is_made_again_under_the_same_id(
    registry: Registry, rows: Rows, receiver: Receiver
) -> None:
    receiver.answers = [500, 503]
    _, (found,) = start(registry, receiver.url, "publish")
    one = publisher(registry, receiver.url)
    assert one.deliver_next(receiver.url)
    (message,) = rows.all("outbox")
    assert (message["status"], message["attempts"]) == ("PENDING", 1)
    assert "500" in message["error"]
    assert statuses(registry, found.id) == ["IN_PROGRESS"]
    deliver(one)
    assert [headers["webhook-id"] for headers, _ in receiver.got] == [message["id"]] * 3
    (message,) = rows.all("outbox")
    assert (message["status"], message["attempts"], message["error"]) == ("DELIVERED", 3, None)
    assert statuses(registry, found.id) == ["COMPLETED"]


def test_waits_grow_and_are_not_all_alike(registry: Registry, rows: Rows, receiver: Receiver) -> None:
    receiver.answers = [500] * 20
    for _ in range(8):
        put(registry, receiver.url)
    one = publisher(registry, receiver.url, waits=(100.0, 200.0))
    deliver(one)
    waits = [row["due_at"] - row["created_at"] for row in rows.all("outbox")]
    assert all(75_000 <= wait <= 200_000 for wait in waits)
    assert len({wait // 100 for wait in waits}) > 1
    assert not one.deliver_next(receiver.url)
    assert len(receiver.got) == 8


def test_a_dead_letter_fails_what_waits_and_can_be_replayed(registry: Registry, rows: Rows, receiver: Receiver) -> None:
    receiver.answers = [500, 500, 500]
    (weak,), (found,) = start(registry, receiver.url, "publish", "deactivate")
    one = publisher(registry, receiver.url)
    deliver(one)
    assert len(receiver.got) == 3
    assert statuses(registry, found.id) == ["FAILED", "SKIPPED"]
    (failed, _) = tasks.executions(registry, A, "task", found.id).rows
    assert (failed["error_code"], failed["message"]) == ("NOT_DELIVERED", "the answer was 500")
    row = tasks.describe(registry, A, "task")
    assert (row["status"], counts(row)) == ("FAILED", {"total": 1, "failed": 1})
    assert status_of(registry, weak) == "ACTIVE"
    (letter,) = publishing.dead_letters(registry, A).rows
    assert (letter["target"], letter["attempts"], letter["error"]) == (receiver.url, 3, "the answer was 500")
    assert letter["body"]["findingId"] == found.id
    assert publishing.dead_letters(registry, B).rows == []
    with pytest.raises(NotFoundError):
        publishing.replay(registry, B, letter["id"])
    publishing.replay(registry, A, letter["id"])
    with pytest.raises(NotFoundError):
        publishing.replay(registry, A, letter["id"])
    deliver(one)
    assert receiver.got[-1][0]["webhook-id"] == letter["id"]
    assert publishing.dead_letters(registry, A).rows == []
    assert tasks.describe(registry, A, "task")["status"] == "FAILED"
    assert status_of(registry, weak) == "ACTIVE"
    assert "ReplayDeadLetter" in rows.operations()


def test_dead_letters_come_in_pages(registry: Registry) -> None:
    ids = [put(registry, "nowhere", number=number) for number in range(3)]
    deliver(publisher(registry))
    first = publishing.dead_letters(registry, A, size=2)
    second = publishing.dead_letters(registry, A, size=2, token=first.next_token)
    assert sorted(row["id"] for row in (*first.rows, *second.rows)) == sorted(ids)
    assert second.next_token is None
    assert {row["error"] for row in first.rows} == {publishing.NOT_PERMITTED}


def test_targets_that_are_not_permitted_get_nothing(registry: Registry, rows: Rows, receiver: Receiver) -> None:
    other = receiver.url + "&y"
    put(registry, receiver.url)
    put(registry, other)
    _, (found,) = start(registry, other, "publish")
    secrets = f"{receiver.url} {SECRET}"
    permitted = Destinations.read([f"{B.account_id}={receiver.url}"], secrets)
    deliver(Publisher(registry, permitted, structlog.testing.CapturingLogger()))
    assert receiver.got == []
    assert {row["status"] for row in rows.all("outbox")} == {"DEAD"}
    assert statuses(registry, found.id) == ["FAILED"]


def test_a_redirect_is_given_up_at_once(registry: Registry, rows: Rows, receiver: Receiver) -> None:
    with receiving() as elsewhere:
        receiver.answers, receiver.location = [308], elsewhere.url
        put(registry, receiver.url)
        deliver(publisher(registry, receiver.url))
        assert elsewhere.got == []
    (row,) = rows.all("outbox")
    assert (row["status"], row["attempts"]) == ("DEAD", 1)


def test_a_message_whose_delivery_nobody_noted_goes_out_again(
    registry: Registry, rows: Rows, receiver: Receiver
) -> None:
    put(registry, receiver.url)
    dead, alive = publisher(registry, receiver.url), publisher(registry, receiver.url)
    assert dead._claim(receiver.url) is not None  # and then its process dies
    assert not alive.deliver_next(receiver.url)
    with registry.database.write(A) as transaction:
        transaction.execute(update(schema.outbox).values(due_at=0))
    deliver(alive)
    (row,) = rows.all("outbox")
    assert (row["status"], row["attempts"], len(receiver.got)) == ("DELIVERED", 2, 1)


def test_a_task_canceled_during_the_delivery_stays_canceled(registry: Registry, rows: Rows, receiver: Receiver) -> None:
    (weak,), (found,) = start(registry, receiver.url, "publish", "deactivate")
    one = publisher(registry, receiver.url)
    row = one._claim(receiver.url)
    assert row is not None
    tasks.cancel(registry, A, "task")
    one._settle(row, None)
    assert statuses(registry, found.id) == ["CANCELED", "CANCELED"]
    assert status_of(registry, weak) == "ACTIVE"
    assert rows.all("outbox")[0]["status"] == "CANCELED"


def test_many_publishers_deliver_each_message_once(registry: Registry, rows: Rows, receiver: Receiver) -> None:
    weak, _ = start(registry, receiver.url, "publish", "deactivate", count=12)
    workers = [publisher(registry, receiver.url) for _ in range(4)]
    threads = [threading.Thread(target=deliver, args=(one,)) for one in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(receiver.got) == len({headers["webhook-id"] for headers, _ in receiver.got}) == 12
    assert {status_of(registry, one) for one in weak} == {"INACTIVE"}
    row = tasks.describe(registry, A, "task")
    assert (row["status"], counts(row)) == ("COMPLETED", {"total": 12, "succeeded": 12})


def test_it_runs_until_it_is_told_to_stop(registry: Registry, rows: Rows, receiver: Receiver) -> None:
    put(registry, "nowhere")
    put(registry, receiver.url)
    stop = threading.Event()
    thread = threading.Thread(target=publisher(registry, receiver.url).run, args=(stop,))
    thread.start()
    for _ in range(400):
        if {row["status"] for row in rows.all("outbox")} == {"DEAD", "DELIVERED"}:
            break
        threading.Event().wait(0.05)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert {row["status"] for row in rows.all("outbox")} == {"DEAD", "DELIVERED"}


def test_old_messages_go(registry: Registry, rows: Rows, receiver: Receiver) -> None:
    for _ in range(3):
        put(registry, receiver.url)
    put(registry, "nowhere")
    one = publisher(registry, receiver.url)
    deliver(one)
    waiting = put(registry, receiver.url)
    with registry.database.write(A) as transaction:
        transaction.execute(update(schema.outbox).values(due_at=0))
    while one._sweep():
        pass
    assert [row["id"] for row in rows.all("outbox")] == [waiting]


@pytest.fixture
def sns(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """moto in the place of SNS; its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    for name, value in (
        ("AWS_ENDPOINT_URL_SNS", url),
        ("AWS_ACCESS_KEY_ID", "testing"),
        ("AWS_SECRET_ACCESS_KEY", "testing"),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
    ):
        monkeypatch.setenv(name, value)
    yield url
    server.stop()


def test_a_topic_gets_the_finding(registry: Registry, rows: Rows, sns: str) -> None:
    topics = boto3.client("sns", region_name="us-east-1")
    queues = boto3.client("sqs", region_name="us-east-1", endpoint_url=sns)
    topic = topics.create_topic(Name="findings")["TopicArn"]
    queue = queues.create_queue(QueueName="findings")["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topics.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    (weak,), (found,) = start(registry, topic, "publish", "deactivate")
    deliver(publisher(registry, topic))
    (received,) = queues.receive_message(QueueUrl=queue)["Messages"]
    envelope = json.loads(received["Body"])
    assert envelope["Subject"] == outbox.FINDING
    assert envelope["MessageAttributes"]["messageId"]["Value"] == rows.all("outbox")[0]["id"]
    assert json.loads(envelope["Message"])["findingId"] == found.id
    assert statuses(registry, found.id) == ["COMPLETED", "COMPLETED"]
    assert status_of(registry, weak) == "INACTIVE"


def test_a_topic_that_is_not_there_is_given_up(registry: Registry, rows: Rows, sns: str) -> None:
    missing = "arn:aws:sns:us-east-1:123456789012:missing"
    put(registry, missing)
    deliver(publisher(registry, missing))
    (row,) = rows.all("outbox")
    assert (row["status"], row["error"]) == ("DEAD", "SNS answered NotFound")


def test_sns_without_credentials_or_network_is_tried_again(
    registry: Registry, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    topic = "arn:aws:sns:us-east-1:123456789012:topic"
    put(registry, topic)
    deliver(publisher(registry, topic))
    (row,) = rows.all("outbox")
    assert (row["status"], row["attempts"]) == ("DEAD", 3)
    assert "127.0.0.1" in row["error"]
