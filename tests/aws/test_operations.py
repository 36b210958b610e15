"""How operations are found, who may call them, and paths of our own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from keyassay.aws import operations as layer
from keyassay.aws.errors import TRANSLATIONS, ServiceError, translate
from keyassay.aws.operations import ROLES, Access, Operations, Request, default_access, endpoint, operation
from keyassay.aws.protocol import Model, Response

MODEL = Model.load()


def asked(role: str = "administrator") -> Request:
    return Request("123456789012", "us-east-1", "AKID", role, "id-1", "127.0.0.1", "", None)


def perform(
    operations: Operations, method: str, path: str, *, query: str = "", body: bytes = b"", role: str = "administrator"
) -> Response:
    return operations.perform(operations.route(method, path.encode()), asked(role), query.encode(), [], body)


@operation("DescribeThing")
def describe(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    return {"thingName": params["thingName"], "thingArn": request.account_id}


@operation("DeleteThing")
def delete(request: Request, params: dict[str, Any]) -> None:
    return None


@operation("RegisterCertificateWithoutCA")
def register(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    return {"certificateId": "ab" * 32}


@endpoint(
    "GET",
    "/keyassay/v1/certificates/{certificateId}/verdicts",
    access=Access.READ,
    takes={
        "certificateId": {"type": "string", "pattern": "[0-9a-f]{64}"},
        "maxResults": {"type": "integer", "min": 1, "max": 250},
        "since": {"type": "timestamp"},
    },
)
def list_verdicts(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    return {"given": params, "nothing": None, "at": datetime(2026, 1, 1, tzinfo=UTC)}


@endpoint(
    "POST",
    "/keyassay/v1/imports",
    access=Access.REGISTER,
    takes={
        "items": {
            "type": "list",
            "max": 2,
            "member": {"type": "structure", "required": ["pem"], "members": {"pem": {"type": "string"}}},
        }
    },
    required=("items",),
    body_limit=100,
)
def import_items(request: Request, params: dict[str, Any]) -> Response:
    return Response(200, [(b"content-type", b"text/plain")], str(len(params["items"])).encode())


@endpoint("GET", "/keyassay/v1/changes", access=Access.GATE)
def changes(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    return {}


@pytest.fixture(scope="module")
def ours() -> Operations:
    return Operations([describe, delete, register, list_verdicts, import_items, changes], Model.load())


def test_what_is_supported_is_listed(ours: Operations) -> None:
    assert ours.supported == ["DeleteThing", "DescribeThing", "RegisterCertificateWithoutCA"]
    assert [route.operation.name for route in ours.endpoints] == ["ListVerdicts", "ImportItems", "Changes"]


def test_every_other_operation_of_the_model_is_named_as_not_implemented(ours: Operations) -> None:
    for name, modelled in MODEL.operations.items():
        if name not in ours.supported:
            path = modelled.uri.replace("{", "").replace("+}", "").replace("}", "")
            with pytest.raises(ServiceError, match=name) as caught:
                perform(ours, modelled.method, path)
            assert caught.value.code == "NotImplementedException"
    assert MODEL.error_status["NotImplementedException"] == 501


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("HEAD", "/things"),
        ("OPTIONS", "/things"),
        ("BREW", "/things"),
        ("POST", "/keyassay/v1/changes"),
    ],
)
def test_unknown_paths_and_methods(ours: Operations, method: str, path: str) -> None:
    with pytest.raises(ServiceError) as caught:
        ours.route(method, path.encode())
    assert caught.value.code == "UnknownOperationException"


@pytest.mark.parametrize(
    ("method", "path", "access"),
    [
        ("GET", "/things/a", Access.READ),
        ("DELETE", "/things/a", Access.CHANGE),
        ("POST", "/certificate/register-no-ca", Access.REGISTER),
        ("GET", "/keyassay/v1/changes", Access.GATE),
    ],
)
@pytest.mark.parametrize("role", [*ROLES, "nobody", ""])
def test_roles_permit_what_their_table_says(
    ours: Operations, method: str, path: str, access: Access, role: str
) -> None:
    body = b'{"certificatePem": "a"}'
    if access in ROLES.get(role, ()):
        assert perform(ours, method, path, body=body, role=role).status == 200
    else:
        with pytest.raises(ServiceError) as caught:
            perform(ours, method, path, body=body, role=role)
        assert caught.value.code == "AccessDeniedException"


def test_nobody_but_readers_reads_and_auditors_only_read() -> None:
    assert ROLES["auditor"] == {Access.READ}
    assert Access.CHANGE not in ROLES["registrar"]
    assert Access.ADMINISTER not in ROLES["operator"]
    assert ROLES["gate"] == {Access.GATE}


@pytest.mark.parametrize(
    ("name", "access"),
    [
        ("ListThings", Access.READ),
        ("GetPolicy", Access.READ),
        ("RegisterCertificate", Access.REGISTER),
        ("RegisterCACertificate", Access.CHANGE),
        ("StartOnDemandAuditTask", Access.CHANGE),
    ],
)
def test_access_by_name(name: str, access: Access) -> None:
    assert default_access(name) is access


def test_paths_of_our_own_are_checked_like_the_model_s(ours: Operations) -> None:
    path = f"/keyassay/v1/certificates/{'ab' * 32}/verdicts"
    answer = perform(ours, "GET", path, query="maxResults=5&since=2026-01-01T00:00:00Z&unknown=1")
    expected = '{"given":{"certificateId":"%s","maxResults":5,"since":1767225600.0},"nothing":null,"at":1767225600.0}'
    assert answer.body.decode() == expected % ("ab" * 32)
    for query, member in (("maxResults=251", "maxResults"), ("maxResults=x", "maxResults"), ("since=now", "since")):
        with pytest.raises(ServiceError, match=member):
            perform(ours, "GET", path, query=query)
    with pytest.raises(ServiceError, match="certificateId"):
        perform(ours, "GET", "/keyassay/v1/certificates/zz/verdicts")


def test_bodies_of_our_own_are_checked_and_answers_may_be_no_json(ours: Operations) -> None:
    answer = perform(ours, "POST", "/keyassay/v1/imports", body=b'{"items": [{"pem": "a"}]}')
    assert answer.body == b"1"
    assert dict(answer.headers) == {
        b"content-type": b"text/plain",
        b"content-length": b"1",
        b"x-amzn-requestid": b"id-1",
    }
    for body, place in (
        (b"{}", "items"),
        (b'{"items": [{}]}', r"items\[0\].pem"),
        (b'{"items": [{"pem": 1}]}', r"items\[0\].pem"),
        (b'{"items": [{}, {}, {}]}', "items"),
    ):
        with pytest.raises(ServiceError, match=place):
            perform(ours, "POST", "/keyassay/v1/imports", body=body)
    assert ours.route("POST", b"/keyassay/v1/imports").target.body_limit == 100


def test_mistakes_are_seen_at_start() -> None:
    with pytest.raises(ValueError, match="two functions answer DescribeThing"):
        Operations([describe, describe], MODEL)

    @operation("DescribeNothing")
    def wrong(request: Request, params: dict[str, Any]) -> None: ...

    with pytest.raises(ValueError, match="DescribeNothing"):
        Operations([wrong], MODEL)
    with pytest.raises(ValueError, match="begin"):
        endpoint("GET", "/other", access=Access.READ)

    @endpoint("GET", "/keyassay/v1/{id}", access=Access.READ)
    def unspecified(request: Request, params: dict[str, Any]) -> None: ...

    with pytest.raises(ValueError, match="id"):
        Operations([unspecified], MODEL)

    @endpoint("GET", "/keyassay/v1/x", access=Access.READ)
    def describe_thing(request: Request, params: dict[str, Any]) -> None: ...

    with pytest.raises(ValueError, match="DescribeThing"):
        Operations([describe_thing], MODEL)


def test_all_modules_of_operations_are_found_and_fit_the_model() -> None:
    found = layer.discover()
    everything = Operations(found, MODEL)
    assert len(everything.supported) + len(everything.endpoints) >= len(found)
    assert all(function.__module__.startswith("keyassay.aws.") for function in found)


class OwnError(Exception):
    """A domain error."""


class NarrowerError(OwnError):
    """One of its kind."""

    message = "it is there"
    resource_id = "a"
    resource_arn = "arn:a"


def test_domain_errors_are_translated_by_the_nearest_listed_base(monkeypatch: pytest.MonkeyPatch) -> None:
    assert translate(NarrowerError()) is None
    monkeypatch.setitem(TRANSLATIONS, OwnError, "ResourceAlreadyExistsException")
    known = translate(NarrowerError())
    assert known is not None
    assert (known.code, known.message) == ("ResourceAlreadyExistsException", "it is there")
    response = MODEL.error_response(known, "id-1")
    assert response.status == 409
    assert response.body == b'{"message":"it is there","resourceId":"a","resourceArn":"arn:a"}'
    assert (b"x-amzn-errortype", b"ResourceAlreadyExistsException") in response.headers
    plain = translate(OwnError("why"))
    assert plain is not None
    assert MODEL.error_response(plain, "id-1").body == b'{"message":"why"}'


def test_every_code_of_the_table_has_a_status() -> None:
    assert set(TRANSLATIONS.values()) <= set(MODEL.error_status)
