"""The protocol against botocore itself: what it writes we read, what we write it reads, for every operation."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HeadersDict
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.loaders import Loader
from hypothesis import given, settings
from hypothesis import strategies as st

from aws_values import Values, violations
from keyassay.aws.errors import ServiceError
from keyassay.aws.operations import Operations, Request, operation
from keyassay.aws.protocol import DOCUMENT, JSON_DEPTH, Model, Response, Router, read_json
from keyassay.aws.signature import Secret, Verifier

DESCRIPTION = Loader().load_service_model("iot", "service-2")
SHAPES = DESCRIPTION["shapes"]
NAMES = sorted(DESCRIPTION["operations"])
ACCOUNT, KEY, SECRET, REGION = "123456789012", "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "eu-central-1"


class Loop:
    """A boto3 client whose requests go through our layer and no further."""

    def __init__(self) -> None:
        self.client: BaseClient = boto3.Session(KEY, SECRET, region_name=REGION).client(
            "iot",
            endpoint_url="http://127.0.0.1:8443",
            config=Config(parameter_validation=False, retries={"total_max_attempts": 1}),
        )
        self.client.meta.events.register("before-send.iot", self.send)
        self.methods = {
            self.client.meta.method_to_api_mapping[name]: name for name in self.client.meta.method_to_api_mapping
        }
        self.operations = Operations([self.function(name) for name in NAMES])
        self.verifier = Verifier(lambda key: Secret(ACCOUNT, SECRET, "administrator") if key == KEY else None, REGION)
        self.params: dict[str, Any] | None = None
        self.result: dict[str, Any] | Exception | None = None
        self.response = Response(0, [], b"")
        self.sent: tuple[list[str], bytes, list[tuple[bytes, bytes]], bytes] = [], b"", [], b""

    def function(self, name: str) -> Callable[[Request, dict[str, Any]], dict[str, Any] | None]:
        @operation(name)
        def answer(request: Request, params: dict[str, Any]) -> dict[str, Any] | None:
            assert request.operation == name
            self.params = params
            if isinstance(self.result, Exception):
                raise self.result
            return self.result

        return answer

    def send(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        path, _, query = request.url.removeprefix("http://127.0.0.1:8443").partition("?")
        headers = [
            (name.lower().encode(), value if isinstance(value, bytes) else value.encode())
            for name, value in request.headers.items()
        ]
        headers.append((b"host", b"127.0.0.1:8443"))
        body = request.body or b""
        try:
            caller = self.verifier.verify(request.method, path.encode(), query.encode(), headers, body)
            match = self.operations.route(request.method, path.encode())
            self.sent = match.values, query.encode(), caller.signed_headers, body
            asked = Request(ACCOUNT, REGION, KEY, caller.role, "id-1", "", match.target.operation.name, None)
            self.response = self.operations.perform(match, asked, query.encode(), caller.signed_headers, body)
        except ServiceError as error:
            self.response = self.operations.model.error_response(error, "id-1")
        raw = io.BytesIO(self.response.body)
        raw.stream = lambda *_a, **_k: iter([self.response.body])  # type: ignore[attr-defined]
        headers_back = HeadersDict([(name.decode(), value.decode()) for name, value in self.response.headers])
        return AWSResponse(request.url, self.response.status, headers_back, raw)

    def call(self, name: str, params: dict[str, Any], result: dict[str, Any] | Exception | None = None) -> Any:
        self.params, self.result = None, result
        return getattr(self.client, self.methods[name])(**params)


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.client.close()


def shape_of(name: str, side: str) -> dict[str, Any]:
    reference = DESCRIPTION["operations"][name].get(side)
    return SHAPES[reference["shape"]] if reference else {"type": "structure", "members": {}}


@pytest.mark.parametrize("name", NAMES)
def test_what_botocore_writes_we_read_and_back(loop: Loop, name: str) -> None:
    for seed in range(6):
        params = Values(SHAPES, f"{name} in {seed}", whole_seconds=True).structure(shape_of(name, "input"))
        result = Values(SHAPES, f"{name} out {seed}").structure(shape_of(name, "output"))
        if "statusCode" in result:
            result["statusCode"] = 200 + seed
        answer = loop.call(name, params, result)
        assert loop.params == params
        metadata = answer.pop("ResponseMetadata")
        assert metadata["RequestId"] == "id-1"
        if "statusCode" not in shape_of(name, "output")["members"]:
            assert metadata["HTTPStatusCode"] == 200
            assert answer == result
        else:
            assert answer["statusCode"] == metadata["HTTPStatusCode"]


@pytest.mark.parametrize("name", NAMES)
def test_what_the_model_forbids_is_refused_and_named(loop: Loop, name: str) -> None:
    shape = shape_of(name, "input")
    valid = Values(SHAPES, f"{name} valid", whole_seconds=True).structure(shape)
    loop.call(name, valid)
    *others, body = loop.sent
    for member, reference in shape["members"].items():
        if shape.get("payload") == member:
            continue
        wire = reference.get("locationName", member)
        filled_in = reference.get("idempotencyToken")  # by botocore
        if member in shape.get("required", ()) and reference.get("location") != "uri" and not filled_in:
            with pytest.raises(ClientError, match="must not be null") as caught:
                loop.call(name, {key: value for key, value in valid.items() if key != member})
            assert f"'{member}'" in str(caught.value)
        for constraint, wrong in violations(SHAPES, reference):
            if reference.get("location"):
                with pytest.raises(ClientError) as refused:
                    loop.call(name, {**valid, member: wrong})
                answer = refused.value.response["Error"]
                assert loop.response.status == 400
                code, message = answer["Code"], answer["Message"]
            else:
                wrong_body = json.dumps({**json.loads(body or b"{}"), wire: wrong}).encode()
                with pytest.raises(ServiceError) as raised:
                    loop.operations.model.operations[name].read(*others, wrong_body)
                code, message = raised.value.code, raised.value.message
            assert code == "InvalidRequestException", (member, wrong)
            assert f"'{member}" in message, (member, wrong)
            assert constraint in message


ERRORS = sorted(name for name, shape in SHAPES.items() if shape.get("exception"))


@pytest.mark.parametrize("code", ERRORS)
def test_errors_of_the_model_arrive_as_boto3_s_exceptions(loop: Loop, code: str) -> None:
    kind = getattr(loop.client.exceptions, code)
    members = {name: f"the {name}" for name in SHAPES[code]["members"] if name != "message"}
    with pytest.raises(kind) as caught:
        loop.call("DescribeCertificate", {"certificateId": "ab" * 32}, ServiceError(code, "what happened", **members))
    assert caught.value.response["Error"] == {"Code": code, "Message": "what happened"}
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == SHAPES[code]["error"]["httpStatusCode"]
    assert {name: caught.value.response[name] for name in members} == members


def test_statuses_that_matter_are_what_aws_documents() -> None:
    status = Model.load().error_status
    assert status["CertificateStateException"] == 406
    assert status["LimitExceededException"] == 410
    assert status["UnauthorizedException"] == 401
    assert status["ResourceAlreadyExistsException"] == 409


def test_answers_without_a_shape_have_no_body_and_those_without_members_an_empty_object(loop: Loop) -> None:
    loop.call("DeleteCertificate", {"certificateId": "ab" * 32})
    assert (loop.response.status, loop.response.body) == (200, b"")
    loop.call("DeleteThing", {"thingName": "a"})
    assert (loop.response.status, loop.response.body) == (200, b"{}")


def test_headers_of_answers(loop: Loop) -> None:
    loop.call("DescribeThing", {"thingName": "a"}, {"thingName": "a", "version": None})
    assert loop.response.body == b'{"thingName":"a"}'
    headers = dict(loop.response.headers)
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"content-length"] == b"17"
    assert headers[b"x-amzn-requestid"] == b"id-1"


@pytest.mark.parametrize(
    "result", [{"noSuchMember": 1}, {"version": "1"}, {"version": True}, {"thingName": 1}, {"attributes": {"a": 1}}]
)
def test_results_that_do_not_fit_the_model_are_our_mistake(loop: Loop, result: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        loop.call("DescribeThing", {"thingName": "a"}, result)


def test_timestamps_without_zone_are_our_mistake(loop: Loop) -> None:
    from datetime import datetime

    with pytest.raises(TypeError):
        loop.call(
            "DescribeThingType", {"thingTypeName": "a"}, {"thingTypeMetadata": {"creationDate": datetime(2026, 1, 1)}}
        )


def read(
    name: str, *, path: str = "", query: str = "", headers: list[tuple[bytes, bytes]] | None = None, body: bytes = b""
) -> dict[str, Any]:
    model = read.__dict__.setdefault("model", Model.load())
    found = model.operations[name]
    router = Router[Any]()
    router.add(found.method, found.uri, found)
    match = router.route(found.method, (path or found.uri).encode())
    assert match is not None
    return found.read(match.values, query.encode(), headers or [], body)


def test_paths_are_split_before_they_are_decoded() -> None:
    assert (
        read("ListAttachedPolicies", path="/attached-policies/arn%3Aa%2Fb%2Bc+d", body=b"{}")["target"] == "arn:a/b+c+d"
    )
    assert read("GetTopicRuleDestination", path="/destinations/arn:a/b%2Fc")["arn"] == "arn:a/b/c"


def test_in_queries_plus_is_a_space_and_numbers_and_dates_are_read() -> None:
    assert read("ListThings", query="nextToken=a+b%2Bc&unknown=1&nextToken2")["nextToken"] == "a b+c"
    assert read("ListThings", query="maxResults=7&usePrefixAttributeValue=true") == {
        "maxResults": 7,
        "usePrefixAttributeValue": True,
    }
    both = "startTime=2026-01-02T03:04:05.678Z&endTime=2026-01-02T05:04:05%2B02:00"
    times = read("ListAuditTasks", query=both)
    assert times["startTime"].isoformat() == "2026-01-02T03:04:05.678000+00:00"
    assert times["endTime"].isoformat() == "2026-01-02T03:04:05+00:00"


@pytest.mark.parametrize(
    "query",
    [
        "maxResults=",
        "maxResults=1e3",
        "maxResults=٣",
        "maxResults=0",
        "maxResults=251",
        "maxResults=" + "9" * 5000,
        "maxResults=1&maxResults=1",
        "usePrefixAttributeValue=True",
        "usePrefixAttributeValue=1",
        "attributeName=%ff",
        "attributeName=%00",
        "attributeName=" + "a" * 129,
    ],
)
def test_queries_that_are_wrong(query: str) -> None:
    from urllib.parse import quote

    with pytest.raises(ServiceError) as caught:
        read("ListThings", query=quote(query, safe="=&%"))
    assert caught.value.code == "InvalidRequestException"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1700000000",
        "2026-13-01T00:00:00Z",
        "2026-02-30",
        "yesterday",
        "0000-01-01T00:00:00Z",
        "2026-01-01T00:00:00+99:99",
        "0001-01-01T00:00:00+23:59",
    ],
)
def test_dates_that_are_none(text: str) -> None:
    from urllib.parse import quote

    with pytest.raises(ServiceError) as caught:
        read("ListAuditTasks", query=f"endTime=2026-01-01&startTime={quote(text)}")
    assert "'startTime'" in caught.value.message


def test_a_header_that_stands_twice_or_is_no_text() -> None:
    header = (b"x-amzn-principal", b"arn:aws:iot:r:1:cert/a")
    assert read("ListPrincipalThings", headers=[header])["principal"] == "arn:aws:iot:r:1:cert/a"
    for wrong in ([header, header], [(b"x-amzn-principal", b"\xff")], [(b"x-amzn-principal", b"\0")], []):
        with pytest.raises(ServiceError) as caught:
            read("ListPrincipalThings", headers=wrong)
        assert caught.value.code == "InvalidRequestException"
        assert "'principal'" in caught.value.message


def test_null_is_absent_and_unknown_members_are_ignored() -> None:
    body = b'{"thingTypeName": null, "unknown": {"a": [null]}}'
    assert read("CreateThing", path="/things/a", body=body) == {"thingName": "a"}


def test_an_error_deep_inside_names_its_place_and_quotes_nothing() -> None:
    body = {"policyDocument": "{}", "tags": [{"Key": "a"}, {"Key": "secret-thing\0"}]}
    with pytest.raises(ServiceError) as caught:
        read("CreatePolicy", path="/policies/a", body=json.dumps(body).encode())
    assert "'tags[1].Key'" in caught.value.message
    assert "secret-thing" not in caught.value.message


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[]", "SerializationException"),
        (b"null", "SerializationException"),
        (b'"a"', "SerializationException"),
        (b"7", "SerializationException"),
        (b"{", "SerializationException"),
        (b"\xff\xfe{\0}\0", "SerializationException"),
        (b"\xef\xbb\xbf{}", "SerializationException"),
        (b'{"a": "\xff"}', "SerializationException"),
        (b'{"a": NaN}', "SerializationException"),
        (b'{"a": 1, "a": 2}', "SerializationException"),
        (b'{"a": ' + b"1" * 5000 + b"}", "SerializationException"),
        (b'{"a":' * 100000, "SerializationException"),
        (b"[" * 1000000, "SerializationException"),
        (b"[" * 100 + b'"' + b'\\"' * 400000, "SerializationException"),
        (b"[" * 100 + b'"\\', "SerializationException"),
        (b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", "SerializationException"),
        (b'{"attributePayload": {"attributes": {"a": "\\u0000"}}}', "InvalidRequestException"),
        (b'{"attributePayload": {"attributes": {"a": "\\ud800"}}}', "InvalidRequestException"),
        (b'{"attributePayload": {"attributes": {"\\ud800": "a"}}}', "InvalidRequestException"),
        (b'{"attributePayload": {"attributes": {"a": null}}}', "InvalidRequestException"),
        (b'{"attributePayload": {"merge": "true"}}', "InvalidRequestException"),
        (b'{"attributePayload": []}', "InvalidRequestException"),
        (b'{"thingTypeName": {}}', "InvalidRequestException"),
        (b'{"thingTypeName": "a\\n"}', "InvalidRequestException"),
    ],
)
def test_hostile_bodies(body: bytes, code: str) -> None:
    with pytest.raises(ServiceError) as caught:
        read("CreateThing", path="/things/a", body=body)
    assert caught.value.code == code
    assert caught.value.message
    assert len(caught.value.message) < 300


def test_brackets_in_strings_are_no_depth() -> None:
    document = json.dumps({"a": '{"[' * 1000 + "\\"})
    assert read_json(document.encode()) == json.loads(document)
    wide = {"a": [[] for _ in range(1000)]}
    assert read_json(json.dumps(wide).encode()) == wide


@pytest.mark.parametrize("depth", [1, JSON_DEPTH - 2, JSON_DEPTH])
def test_depth_is_allowed_up_to_the_limit(depth: int) -> None:
    body = b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}" if depth > 1 else b"{}"
    assert read_json(body) == json.loads(body)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_typed_error(body: bytes) -> None:
    try:
        assert isinstance(read_json(body), dict)
    except ServiceError as error:
        assert error.code == "SerializationException"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "name",
    [
        "UpdateAccountAuditConfiguration",
        "CreateMitigationAction",
        "StartAuditMitigationActionsTask",
        "CreateTopicRule",
        "ListAuditFindings",
    ],
)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_json_is_parameters_or_a_typed_error(name: str, data: st.DataObject) -> None:
    members = list(shape_of(name, "input")["members"])
    body = json.dumps(data.draw(st.dictionaries(st.sampled_from(members), JSON, max_size=5))).encode()
    try:
        params = read(
            name,
            path=DESCRIPTION["operations"][name]["http"]["requestUri"].replace("{", "").replace("}", ""),
            body=body,
        )
    except ServiceError as error:
        assert error.code == "InvalidRequestException"
    else:
        assert set(params) <= set(members)


def test_policies_of_the_greatest_size_are_read() -> None:
    document = '{"a": "\n' + " " * (404600 - 10) + '"}'
    assert len(document) == 404600
    body = json.dumps({"policyDocument": document}).encode()
    assert read("CreatePolicy", path="/policies/a", body=body)["policyDocument"] == document
    with pytest.raises(ServiceError, match="404600"):
        read("CreatePolicy", path="/policies/a", body=json.dumps({"policyDocument": document + " "}).encode())


def test_every_operation_is_found_by_its_own_path() -> None:
    model, router = Model.load(), Router[str]()
    for name, found in model.operations.items():
        router.add(found.method, found.uri, name)
    for name, found in model.operations.items():
        match = router.route(found.method, found.uri.replace("{", "-").replace("+}", "").replace("}", "").encode())
        assert match is not None
        assert match.target == name


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/",
        b"//",
        b"/things//principals",
        b"/things/",
        b"/things/../things",
        b"/things/./principals",
        b"/destinations/",
        b"/destinations/a//b",
        b"/nothing",
        b"/things/a/b/c/d",
        b"things",
    ],
)
def test_paths_that_mean_nothing(path: bytes) -> None:
    router = Router[str]()
    for name, found in Model.load().operations.items():
        router.add(found.method, found.uri, name)
    assert router.route("GET", path) is None


def test_paths_that_are_not_utf8() -> None:
    router = Router[str]()
    router.add("GET", "/things/{name}", "x")
    for path in (b"/things/%ff", b"/things/\xff", b"/%c3"):
        with pytest.raises(ServiceError, match="UTF-8"):
            router.route("GET", path)


def test_a_literal_that_leads_nowhere_does_not_hide_a_label() -> None:
    router = Router[str]()
    router.add("GET", "/a/b/c", "literal")
    router.add("GET", "/a/{x}/d", "label")
    match = router.route("GET", b"/a/b/d")
    assert match is not None
    assert (match.target, match.values) == ("label", ["b"])
    with pytest.raises(ValueError, match="already"):
        router.add("GET", "/a/{y}/d", "again")


def test_the_document_shape_is_not_one_of_the_model() -> None:
    assert DOCUMENT["type"] not in {shape["type"] for shape in SHAPES.values()}
