"""The ASGI application: limits, errors, what it tells of itself, and boto3 against it over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import uvicorn
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.aws.application import Application, Exchange, without_signatures
from keyassay.aws.errors import ServiceError
from keyassay.aws.operations import BODY_LIMIT, Access, Operations, Request, endpoint, operation
from keyassay.aws.signature import Secret, Verifier
from keyassay.storage.database import BusyError

KEY, SECRET, REGION = "AKIDEXAMPLE", "not-a-secret", "us-east-1"
HOST = "iot.test"
STORE: dict[str, dict[str, Any]] = {}


@operation("CreateThing")
def create(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    STORE[params["thingName"]] = params
    return {
        "thingName": params["thingName"],
        "thingArn": f"arn:aws:iot:{request.region}:{request.account_id}:thing/{params['thingName']}",
    }


@operation("DescribeThing")
def describe(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    if params["thingName"] not in STORE:
        raise ServiceError("ResourceNotFoundException", f"Thing {params['thingName']} cannot be found.")
    return {
        "thingName": params["thingName"],
        "attributes": STORE[params["thingName"]].get("attributePayload", {}).get("attributes"),
        "version": 1,
    }


@operation("ListThings")
def fail(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    raise RuntimeError(f"secret value {params.get('attributeValue')}")


@endpoint(
    "POST", "/keyassay/v1/large", access=Access.READ, takes={"text": {"type": "string"}}, body_limit=2 * BODY_LIMIT
)
def large(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    return {"length": len(params["text"]), "from": request.source_address, "services": request.services}


@operation("DescribeEndpoint", quick=True)
def which_thread(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    return {"endpointAddress": threading.current_thread().name}


@operation("DescribeEventConfigurations")
def never_quick(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    raise ServiceError("InvalidRequestException", threading.current_thread().name)


@operation("UpdateThing", shares=True)
def write(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    request.services.append((params["thingName"], threading.current_thread().name))
    if params["thingName"] == "bad":
        raise ServiceError("InvalidRequestException", "bad")
    return {}


OPERATIONS = Operations([create, describe, fail, large, which_thread, never_quick, write])


def lookup(key: str) -> Secret | None:
    return Secret("123456789012", SECRET, "operator") if key == KEY else None


class Answer:
    """A response, and what the application told of the exchange."""

    def __init__(self, messages: list[dict[str, Any]], exchange: Exchange) -> None:
        self.exchange = exchange
        self.status = messages[0]["status"] if messages else 0
        self.headers = dict(messages[0]["headers"]) if messages else {}
        self.body = b"".join(message.get("body", b"") for message in messages[1:])

    @property
    def error(self) -> str:
        code = self.headers[b"x-amzn-errortype"].decode()
        assert json.loads(self.body)["message"]
        assert self.exchange.error == code
        return code


def ask(
    method: str,
    path: bytes,
    *,
    query: bytes = b"",
    headers: list[tuple[bytes, bytes]] | None = None,
    chunks: list[bytes] | None = None,
    gone: bool = False,
    stalled: bool = False,
    signed: bool = False,
    **settings: Any,
) -> Answer:
    """One request through the application, without a server."""
    exchanges: list[Exchange] = []
    authenticate = Verifier(lookup, REGION).verify if signed else without_signatures("123456789012")
    application = Application(
        OPERATIONS, "the services", authenticate, REGION, threads=1, observe=exchanges.append, **settings
    )
    messages: list[dict[str, Any]] = []
    parts = list(chunks or [b""])

    async def receive() -> dict[str, Any]:
        if parts:
            chunk = parts.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(parts) or gone or stalled}
        if stalled:
            await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "headers": headers or [],
        "client": ("192.0.2.1", 5),
    }
    try:
        asyncio.run(application(scope, receive, send))
    finally:
        application.close()
    assert len(exchanges) == 1
    return Answer(messages, exchanges[0])


def test_an_answer_and_what_is_told_of_it() -> None:
    answer = ask("POST", b"/things/one", chunks=[b'{"attributePayload":', b' {"attributes": {"a": "b"}}}'])
    assert answer.status == 200
    assert json.loads(answer.body)["thingArn"] == "arn:aws:iot:us-east-1:123456789012:thing/one"
    told = answer.exchange
    assert answer.headers[b"x-amzn-requestid"].decode() == told.request_id
    assert (told.operation, told.method, told.status, told.error, told.failure) == ("CreateThing", "POST", 200, "", "")
    assert (told.account_id, told.access_key_id, told.source_address) == ("123456789012", "unsigned", "192.0.2.1")
    assert told.seconds > 0


def test_services_and_the_caller_s_address_reach_the_operation() -> None:
    answer = ask("POST", b"/keyassay/v1/large", chunks=[b'{"text": "' + b"a" * (BODY_LIMIT + 1) + b'"}'])
    assert json.loads(answer.body) == {"length": BODY_LIMIT + 1, "from": "192.0.2.1", "services": "the services"}


def test_bodies_that_are_too_large() -> None:
    for how in (
        {"chunks": [b"a" * BODY_LIMIT, b"a"]},
        {"headers": [(b"content-length", b"%d" % (BODY_LIMIT + 1))]},
        {"headers": [(b"content-length", b"9" * 400)]},
    ):
        answer = ask("POST", b"/things/one", **how)  # type: ignore[arg-type]
        assert (answer.status, answer.error) == (413, "RequestEntityTooLargeException")
        assert answer.headers[b"connection"] == b"close"
    assert ask("POST", b"/things/one", chunks=[b" " * (BODY_LIMIT - 2), b"{}"]).status == 200


def test_a_body_that_does_not_end() -> None:
    answer = ask("POST", b"/things/one", stalled=True, body_seconds=0.05)
    assert (answer.status, answer.error) == (408, "RequestTimeoutException")


def test_a_client_that_goes_away() -> None:
    answer = ask("POST", b"/things/one", gone=True)
    assert (answer.status, answer.exchange.status) == (0, 0)


def test_what_we_did_not_expect_is_told_without_values() -> None:
    answer = ask("GET", b"/things", query=b"attributeValue=confidential")
    assert (answer.status, answer.error) == (500, "InternalFailureException")
    assert "RuntimeError" in answer.exchange.failure
    assert "test_application.py" in answer.exchange.failure
    assert b"confidential" not in answer.body
    assert "confidential" not in repr(answer.exchange)


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        (b"host", b"localhost:8443", 200),
        (b"host", b"127.0.0.1", 200),
        (b"host", b"[::1]:1", 200),
        (b"host", b"evil.test", 403),
        (b"host", b"127.0.0.1.evil.test", 403),
        (b"host", b"", 403),
        (b"origin", b"http://evil.test", 403),
        (b"sec-fetch-site", b"same-origin", 403),
    ],
)
def test_without_signatures_browsers_and_other_hosts_are_refused(name: bytes, value: bytes, status: int) -> None:
    assert ask("POST", b"/things/one", headers=[(name, value)]).status == status


def test_strangers_learn_nothing() -> None:
    for method, path in (
        ("GET", b"/nothing"),
        ("GET", b"/things/x"),
        ("GET", b"/things/%ff"),
        ("GET", b"/jobs"),
        ("HEAD", b"/"),
    ):
        answer = ask(method, path, signed=True)
        assert (answer.status, answer.error) == (403, "MissingAuthenticationTokenException")
        assert answer.exchange.operation == answer.exchange.account_id == ""


def test_unknown_paths_and_operations_that_we_lack() -> None:
    assert (ask("GET", b"/nothing").status, ask("GET", b"/nothing").error) == (404, "UnknownOperationException")
    answer = ask("GET", b"/jobs")
    assert (answer.status, answer.error) == (501, "NotImplementedException")
    assert b"ListJobs" in answer.body
    assert ask("BREW", b"/things").exchange.method == ""


def test_admission_can_refuse() -> None:
    def admit(request: Request) -> None:
        assert request.operation == "DescribeThing"
        raise ServiceError("ThrottlingException", "Rate exceeded")

    assert ask("GET", b"/things/one", admit=admit).error == "ThrottlingException"


def test_other_protocols_are_not_spoken() -> None:
    application = Application(OPERATIONS, None, without_signatures("1"), REGION)
    with pytest.raises(ValueError, match="websocket"):
        asyncio.run(application({"type": "websocket"}, None, None))  # type: ignore[arg-type]
    application.close()


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]),
    st.lists(
        st.sampled_from(
            [
                b"things",
                b"certificates",
                b"policies",
                b"audit",
                b"%",
                b"%ff",
                b"%00",
                b"..",
                b"",
                b"a",
                b"\xff",
                b"keyassay",
                b"v1",
                b"large",
            ]
        ),
        max_size=4,
    ),
    st.binary(max_size=20),
    st.lists(
        st.tuples(
            st.sampled_from([b"authorization", b"x-amz-date", b"host", b"content-length", b"x-amzn-principal"]),
            st.binary(max_size=12),
        ),
        max_size=3,
    ),
    st.binary(max_size=20),
    st.booleans(),
)
def test_whatever_comes_gets_a_typed_answer(
    method: str, path: list[bytes], query: bytes, headers: list[tuple[bytes, bytes]], body: bytes, signed: bool
) -> None:
    answer = ask(method, b"/" + b"/".join(path), query=query, headers=headers, chunks=[body], signed=signed)
    assert answer.status in (200, 400, 403, 404, 413, 500, 501)
    if answer.status == 500:
        assert answer.exchange.operation == "ListThings"
    elif answer.status != 200:
        assert answer.error


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    application = Application(OPERATIONS, None, Verifier(lookup, REGION).verify, REGION)
    server = uvicorn.Server(uvicorn.Config(application, port=0, lifespan="off", ws="none", log_level="error"))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.02)
        assert thread.is_alive()
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()
    application.close()


def client(port: int, secret: str = SECRET, region: str = REGION) -> Any:
    return boto3.Session(KEY, secret, region_name=region).client(
        "iot", endpoint_url=f"http://127.0.0.1:{port}", config=Config(retries={"total_max_attempts": 1})
    )


def test_boto3_over_a_socket(port: int) -> None:
    iot = client(port)
    name = "fleet:one_-2"
    assert iot.create_thing(thingName=name, attributePayload={"attributes": {"a": "b:/#"}})["thingArn"].endswith(
        f":thing/{name}"
    )
    found = iot.describe_thing(thingName=name)
    assert (found["thingName"], found["attributes"], found["version"]) == (name, {"a": "b:/#"}, 1)
    assert len(found["ResponseMetadata"]["RequestId"]) == 36
    with pytest.raises(iot.exceptions.ResourceNotFoundException, match="cannot be found") as caught:
        iot.describe_thing(thingName="missing")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    with pytest.raises(ClientError, match="CreateJob") as lacking:
        iot.create_job(jobId="a", targets=["arn"])
    assert lacking.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    iot.close()


def test_boto3_with_a_wrong_secret_or_region(port: int) -> None:
    for wrong in (client(port, secret="other"), client(port, region="eu-west-1")):
        with pytest.raises(ClientError, match="InvalidSignatureException"):
            wrong.describe_thing(thingName="a")
        wrong.close()


def test_boto3_presigned_over_a_socket(port: int) -> None:
    iot = client(port)
    iot.create_thing(thingName="presigned")
    for seconds, status in ((60, 200), (3600, 403)):
        url = iot.generate_presigned_url("describe_thing", Params={"thingName": "presigned"}, ExpiresIn=seconds)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", url.partition(str(port))[2])
        assert connection.getresponse().status == status
        connection.close()
    iot.close()


def test_raw_requests_over_a_socket(port: int) -> None:
    """What no client library sends: the server answers each with a type and lives on."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for method, path, body, status in (
        ("GET", "/things/a", b"", 403),
        ("HEAD", "/things/a", b"", 403),
        ("OPTIONS", "/things/a", b"", 403),
        ("POST", "/things/a", b"{" * 1000, 403),
    ):
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
        assert answer.headers["x-amzn-ErrorType"] == "MissingAuthenticationTokenException"
    connection.close()
    large = http.client.HTTPConnection("127.0.0.1", port)
    large.putrequest("POST", "/things/a")
    large.putheader("Content-Length", str(BODY_LIMIT * 100))
    large.endheaders()
    assert large.getresponse().status == 413
    large.close()
    for body in (
        b"{" * 100000,
        b'{"attributePayload": "\xff"}',
        b'{"thingTypeName": "\\u0000"}',
        b"[]",
        b'{"thingTypeName": 5}',
    ):
        request = AWSRequest("POST", f"http://127.0.0.1:{port}/things/a", data=body)
        SigV4Auth(Credentials(KEY, SECRET), "iot", REGION).add_auth(request)
        signed = http.client.HTTPConnection("127.0.0.1", port)
        signed.request("POST", "/things/a", body, dict(request.headers.items()))
        assert signed.getresponse().status == 400
        signed.close()
    iot = client(port)
    assert iot.create_thing(thingName="alive")["thingName"] == "alive"
    iot.close()


def test_what_is_quick_is_answered_on_the_loop_where_the_server_says_so() -> None:
    here = threading.current_thread().name
    for on_loop in (False, True):
        quick = ask("GET", b"/endpoint", quick_on_loop=on_loop)
        assert (json.loads(quick.body)["endpointAddress"] == here) is on_loop
        other = ask("GET", b"/event-configurations", quick_on_loop=on_loop)
        assert json.loads(other.body)["message"] != here
        assert (
            ask("GET", b"/endpoint", quick_on_loop=on_loop, signed=True).error == "MissingAuthenticationTokenException"
        )


class Sharing:
    """An application whose operations share commits, and what was committed together."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str]] = []
        self.commits: list[list[str]] = []
        self.failure: Exception | None = None
        self.exchanges: list[Exchange] = []
        authenticate = without_signatures("123456789012")
        self.application = Application(
            OPERATIONS, self.written, authenticate, REGION, threads=4, observe=self.exchanges.append
        )
        self.application.share(self.shared)

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        before = len(self.written)
        yield
        if self.failure is not None:
            raise self.failure
        self.commits.append([name for name, _ in self.written[before:]])

    def ask(self, *names: str) -> list[int]:
        """The statuses of requests that come at the same time."""

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def one(name: str) -> int:
            messages: list[dict[str, Any]] = []

            async def send(message: Any) -> None:
                messages.append(message)

            path = f"/things/{name}"
            scope = {"type": "http", "method": "PATCH", "path": path, "raw_path": path.encode(), "headers": []}
            await self.application(scope, receive, send)
            return int(messages[0]["status"])

        async def several() -> list[int]:
            return list(await asyncio.gather(*map(one, names)))

        return asyncio.run(several())


@pytest.fixture
def sharing() -> Iterator[Sharing]:
    made = Sharing()
    yield made
    made.application.close()


def test_operations_that_may_share_a_commit_do_so_in_one_thread(sharing: Sharing) -> None:
    names = [f"thing-{number}" for number in range(120)]
    assert sharing.ask(*names) == [200] * 120
    assert [name for name, _ in sharing.written] == names
    assert [name for commit in sharing.commits for name in commit] == names
    assert len(sharing.commits) < 60
    assert max(map(len, sharing.commits)) <= 50
    assert all(thread.startswith("api") for _, thread in sharing.written)
    assert sharing.ask("later") == [200]  # another loop, after the work was over


def test_one_that_is_refused_is_refused_alone(sharing: Sharing) -> None:
    assert sharing.ask("a", "bad", "b") == [200, 400, 200]


def test_a_commit_that_fails_is_an_error_for_all_who_share_it(sharing: Sharing) -> None:
    sharing.failure = BusyError("the database is busy")
    assert sharing.ask("a", "bad", "b") == [503, 503, 503]
    assert {exchange.error for exchange in sharing.exchanges} == {"ServiceUnavailableException"}
    sharing.failure = RuntimeError("secret value")
    assert sharing.ask("a") == [500]
    assert "secret" not in sharing.exchanges[-1].failure
    sharing.failure = None
    assert sharing.ask("a") == [200]


def test_who_came_while_the_turn_could_not_be_had_does_not_wait_for_another(sharing: Sharing) -> None:
    turns = []

    @contextlib.contextmanager
    def slow() -> Iterator[None]:
        turns.append(threading.get_ident())
        yield
        time.sleep(0.3)
        raise BusyError("the database is busy")

    sharing.application.share(slow)

    assert sharing.ask(*(f"{number}" for number in range(200))) == [503] * 200
    assert len(turns) < 4
