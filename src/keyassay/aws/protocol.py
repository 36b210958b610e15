"""AWS's rest-json protocol, server side, driven by botocore's model of AWS IoT.

``Model`` routes a raw request to one of the model's operations; an ``Operation`` reads the request's members from
path, query, headers and JSON body, checked against the model, and writes results. ``error_response`` writes errors.
Paths and queries are taken raw: split first, decoded then, since an encoded slash belongs to its segment.
Operations are compiled when they are first used. Who calls, and whether they may, is not asked here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar
from urllib.parse import unquote, unquote_plus

from botocore.loaders import Loader

from keyassay.aws.errors import STATUS, ServiceError
from keyassay.aws.shapes import ConstraintError, Reader, Shape, Shapes, refuse_null, seconds

Headers = Iterable[tuple[bytes, bytes]]

#: Levels of nesting that a JSON body may have (up to twice as many where lists and objects alternate).
JSON_DEPTH = 64

#: A JSON string, or what is left of the text where it does not end: linear in the length whatever stands there.
STRING = re.compile(rb'"(?:[^"\\]+|\\.)*+"?', re.DOTALL)
NOT_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))
LABEL = re.compile(r"\{(\w+)(\+?)\}")
#: The output shape of endpoints that answer any JSON object.
DOCUMENT: Shape = {"type": "document"}
GREEDY = object()
LEAVES = object()

Target = TypeVar("Target")


@dataclass(frozen=True, slots=True)
class Response:
    """What goes back: HTTP status, headers in ASGI's form, body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def invalid(message: str) -> ServiceError:
    """The error of input that does not fit the model."""
    return ServiceError("InvalidRequestException", message)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return result


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=seconds)


def _is_deep(body: bytes) -> bool:
    """Whether brackets nest deeper than JSON_DEPTH; never false for JSON that does by more than twice."""
    if body.count(b"{") + body.count(b"[") <= JSON_DEPTH:
        return False
    brackets = STRING.sub(b"", body).translate(None, NOT_BRACKETS)
    for _ in range(JSON_DEPTH):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")  # the innermost level
        if not brackets:
            return False
    return True


def read_json(body: bytes) -> dict[str, Any]:
    """The object of a body; an empty body is an empty object.

    Raises:
        ServiceError: SerializationException for what is no JSON object in UTF-8, names a member twice or nests
            too deep. The text says what, but quotes nothing.
    """
    if not body:
        return {}
    if _is_deep(body):
        raise ServiceError("SerializationException", "The JSON in the body is broken or nested too deeply")
    try:
        value = DECODER.decode(body.decode())
    except json.JSONDecodeError as error:
        message = f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise ServiceError("SerializationException", message) from None
    except UnicodeDecodeError:
        raise ServiceError("SerializationException", "The body is not valid UTF-8") from None
    except (ValueError, RecursionError) as error:
        reason = str(error) if type(error) is ValueError and "limit" not in str(error) else "beyond the limits"
        raise ServiceError("SerializationException", f"The body is not valid JSON: {reason}") from None
    if type(value) is not dict:
        raise ServiceError("SerializationException", "The body must be a JSON object")
    return value


class Match(NamedTuple, Generic[Target]):
    """A routed request: the target and the decoded values of its labels, in order."""

    target: Target
    values: list[str]


class Router(Generic[Target]):
    """A tree of dicts over path segments; literal segments win over labels. About a microsecond a match."""

    def __init__(self) -> None:
        self._root: dict[object, Any] = {}

    def add(self, method: str, uri: str, target: Target) -> tuple[str, ...]:
        """Put a target at a URI template such as ``/things/{thingName}``; the names of its labels come back."""
        path = uri.partition("?")[0]
        names = []
        node = self._root
        for segment in path.rstrip("/").split("/")[1:]:
            label = LABEL.fullmatch(segment)
            if label:
                names.append(label[1])
            key: object = segment if label is None else GREEDY if label[2] else LABEL
            node = node.setdefault(key, {})
        places = [node, node.setdefault("", {})] if path.endswith("/") else [node]
        for place in places:
            leaves = place.setdefault(LEAVES, {})
            if method in leaves:
                raise ValueError(f"{method} {uri} is there already")
            leaves[method] = target
        return tuple(names)

    def route(self, method: str, raw_path: bytes) -> Match[Target] | None:
        """The target of a request, or None.

        Args:
            method: in upper case.
            raw_path: as sent, percent-encoded, without the query.

        Raises:
            ServiceError: InvalidRequestException if the path is not UTF-8.
        """
        try:
            segments = raw_path.decode("ascii").split("/")[1:]
            if "." in segments or ".." in segments or "" in segments[:-1]:
                return None  # signatures are made over the path without them
            if b"%" in raw_path:
                segments = [unquote(segment, errors="strict") for segment in segments]
        except UnicodeDecodeError:
            raise invalid("The path is not valid UTF-8 in percent-encoding") from None
        values: list[str] = []
        target: Target | None = self._find(self._root, segments, 0, values, method)
        return None if target is None else Match(target, values)

    def _find(
        self, node: dict[object, Any], segments: list[str], index: int, values: list[str], method: str
    ) -> Target | None:
        if index == len(segments):
            found: Target | None = node.get(LEAVES, {}).get(method)
            return found
        segment = segments[index]
        child = node.get(segment)
        if child is not None:
            found = self._find(child, segments, index + 1, values, method)
            if found is not None:
                return found
        if not segment:
            return None
        child = node.get(LABEL)
        if child is not None:
            values.append(segment)
            found = self._find(child, segments, index + 1, values, method)
            if found is not None:
                return found
            values.pop()
        child = node.get(GREEDY)
        found = child[LEAVES].get(method) if child is not None else None
        if found is not None:
            values.append("/".join(segments[index:]))
        return found


class _Input(NamedTuple):
    """A compiled input shape: where each member comes from."""

    labels: list[tuple[str, Reader]]
    query: dict[str, tuple[str, Reader]]
    headers: dict[bytes, tuple[str, Reader]]
    required: list[str]  # of query and headers
    payload: str | None
    body: Reader | None


def read_query(raw_query: bytes) -> list[tuple[str, str]]:
    """The pairs of a raw query; ``+`` is a space, as in forms."""
    try:
        text = raw_query.decode("ascii")
        pairs = [pair.partition("=") for pair in text.split("&")] if text else []
        if "%" in text or "+" in text:
            return [
                (unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")) for name, _, value in pairs
            ]
    except UnicodeDecodeError:
        raise invalid("The query is not valid UTF-8 in percent-encoding") from None
    return [(name, value) for name, _, value in pairs]


def _put(params: dict[str, Any], name: str, read: Reader, text: str) -> None:
    """Read a member from text and put it into the parameters; an error names it."""
    try:
        if name in params:
            raise ConstraintError("Member must stand once")  # noqa: TRY301
        params[name] = read(text)
    except ConstraintError as error:
        error.path.append(name)
        raise invalid(error.message) from None


class Operation:
    """One operation: how its requests are read and its results written.

    Args:
        name: such as ``DescribeCertificate``.
        method: HTTP's.
        uri: template of the path.
        status: HTTP status of success.
        shapes: of the model.
        takes: the input structure, or None; kept as ``takes`` for documents about it.
        gives: the output structure; None for operations whose answers have no body.
    """

    def __init__(
        self, name: str, method: str, uri: str, *, status: int, shapes: Shapes, takes: Shape | None, gives: Shape | None
    ) -> None:
        self.name = name
        self.method = method
        self.uri = uri
        self._status = status
        self._shapes = shapes
        self.takes = takes
        self._gives = gives

    @cached_property
    def _input(self) -> _Input:
        shape = self.takes or {"members": {}}
        compiled = _Input([], {}, {}, [], shape.get("payload"), None)
        required = shape.get("required", ())
        labels = [label[0] for label in LABEL.findall(self.uri)]
        by_label: dict[str, tuple[str, Reader]] = {}
        body: dict[str, Shape] = {}
        for name, member in shape["members"].items():
            location, wire = member.get("location"), member.get("locationName", name)
            if location == "uri":
                by_label[wire] = (name, self._shapes.text_reader(member))
            elif location == "querystring":
                compiled.query[wire] = (name, self._shapes.text_reader(member))
            elif location == "header":
                compiled.headers[wire.lower().encode()] = (name, self._shapes.text_reader(member))
            elif location is None:
                body[name] = member
            else:
                raise NotImplementedError(f"{self.name}: member in {location}")
            if location in ("querystring", "header") and name in required:
                compiled.required.append(name)
        compiled.labels.extend(by_label[label] for label in labels)
        if compiled.payload:
            return compiled._replace(body=self._shapes.reader(body[compiled.payload]))
        return compiled._replace(body=self._shapes.structure_reader(shape, body) if body else None)

    def read(self, values: list[str], raw_query: bytes, headers: Headers, body: bytes) -> dict[str, Any]:
        """The members of a request, checked.

        Args:
            values: of the path's labels, from ``Router.route``.
            raw_query: as sent, percent-encoded.
            headers: names in lower case. Give only those that a signature covers: others prove nothing.
            body: whole.

        Raises:
            ServiceError: InvalidRequestException that names the member, or SerializationException.
        """
        plan = self._input
        params: dict[str, Any] = {}
        for (name, read), value in zip(plan.labels, values, strict=True):
            _put(params, name, read, value)
        if plan.query and raw_query:
            for wire, text in read_query(raw_query):
                if wire in plan.query:
                    _put(params, *plan.query[wire], text)
        if plan.headers:
            for key, content in headers:
                if key in plan.headers:
                    _put(params, *plan.headers[key], content.decode("utf-8", "surrogateescape"))
        for name in plan.required:
            if name not in params:
                _put(params, name, lambda _: refuse_null(), "")
        if plan.body:
            self._read_body(plan, body, params)
        return params

    def _read_body(self, plan: _Input, body: bytes, params: dict[str, Any]) -> None:
        value = read_json(body)
        try:
            if not plan.payload:
                params.update(plan.body(value))  # type: ignore[misc]  # asked for by the caller
            elif body:
                params[plan.payload] = plan.body(value)  # type: ignore[misc]
            elif self.takes and plan.payload in self.takes.get("required", ()):
                refuse_null()
        except ConstraintError as error:
            raise invalid(error.message) from None

    def compile(self) -> None:
        """Build what reading and writing need. Call it before threads use the operation."""
        _ = self._input, self._writer, self._status_member

    @cached_property
    def _writer(self) -> Reader:
        if self._gives is DOCUMENT:
            return dict
        members = (self._gives or {}).get("members", {})
        return self._shapes.structure_writer(members)

    @cached_property
    def _status_member(self) -> str | None:
        members = (self._gives or {}).get("members", {})
        return next((name for name, member in members.items() if member.get("location") == "statusCode"), None)

    def write(self, result: Mapping[str, Any] | None, request_id: str) -> Response:
        """The response of a result.

        Args:
            result: members by name; None and absent ones are left out. None if there are none at all.
            request_id: goes into the headers.

        Raises:
            TypeError: the result does not fit the model; our own mistake.
        """
        value, status = self._writer(result or {}), self._status
        if self._status_member:
            status = value.pop(self._status_member, status)
        return json_response(status, None if self._gives is None else value, request_id)


def json_response(status: int, value: Mapping[str, Any] | None, request_id: str, error: str = "") -> Response:
    """A response with a JSON body; None is an empty body."""
    body = b"" if value is None else ENCODER.encode(value).encode("ascii")
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-amzn-requestid", request_id.encode("ascii")),
    ]
    if error:
        headers.append((b"x-amzn-errortype", error.encode("ascii")))
    return Response(status, headers, body)


class Model:
    """The service model: every operation of AWS IoT, whether we have it or not."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        named: Mapping[str, Shape] = description["shapes"]
        self.shapes = Shapes(named)
        self.operations: dict[str, Operation] = {}
        self.error_status = {
            name: int(shape["error"]["httpStatusCode"]) for name, shape in named.items() if shape.get("exception")
        } | STATUS
        for name, operation in description["operations"].items():
            http = operation["http"]
            self.operations[name] = Operation(
                name,
                http["method"],
                http["requestUri"],
                status=http.get("responseCode", 200),
                shapes=self.shapes,
                takes=named[operation["input"]["shape"]] if "input" in operation else None,
                gives=named[operation["output"]["shape"]] if "output" in operation else None,
            )

    @classmethod
    def load(cls) -> Model:
        """The model of the service ``iot`` that botocore carries; takes about a tenth of a second."""
        return cls(Loader().load_service_model("iot", "service-2"))

    def error_response(self, error: ServiceError, request_id: str) -> Response:
        """The response of an error: its type in a header, its message in the body."""
        status = self.error_status.get(error.code, 400)
        return json_response(status, {"message": error.message, **error.members}, request_id, error.code)
