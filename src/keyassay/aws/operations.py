"""What the API answers: a function for each operation, who may call it, and its dispatch.

A module ``iot_<topic>.py`` in this package holds functions under ``@operation("RegisterCertificate")``; they take
a ``Request`` and the checked parameters, call the domain, and return the result's members as the service model
names them. ``@endpoint("GET", "/keyassay/v1/changes", ...)`` does the same for paths of our own. Both only mark
the function; ``discover`` finds the marked ones by their modules' names, so that a new module touches no other.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from keyassay.aws.errors import ServiceError
from keyassay.aws.protocol import DOCUMENT, LABEL, Headers, Match, Model, Operation, Response, Router
from keyassay.aws.shapes import Shape

#: Where paths of our own begin.
OWN_PATHS = "/keyassay/v1/"
#: Bytes of a request's body. A policy may have 404,600 characters, which JSON's escapes can double.
BODY_LIMIT = 1 << 20


class Access(StrEnum):
    """What an operation does, as far as permission goes."""

    READ = "read"
    REGISTER = "register"  # adds certificates
    CHANGE = "change"
    ADMINISTER = "administer"  # accounts, keys, the issuing authority
    OPEN = "open"  # no signature: whoever asks proves by other means that they may; see ``OPEN_PATHS``
    GATE = "gate"  # the feed of changes, connection events, just-in-time registration


#: The only paths that may be called without a signature.
OPEN_PATHS = frozenset({"/keyassay/v1/claims"})
#: What each role of an access key may do.
ROLES: dict[str, frozenset[Access]] = {
    "administrator": frozenset(Access) - {Access.OPEN},  # which nobody has to be permitted
    "operator": frozenset({Access.READ, Access.REGISTER, Access.CHANGE}),
    "registrar": frozenset({Access.READ, Access.REGISTER}),
    "auditor": frozenset({Access.READ}),
    "gate": frozenset({Access.GATE}),
}
REGISTERING = frozenset({
    "CreateCertificateFromCsr",
    "CreateKeysAndCertificate",
    "RegisterCertificate",
    "RegisterCertificateWithoutCA",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks, and what the server gives an operation to work with.

    Attributes:
        account_id: 12 digits; everything that an operation reads or changes belongs to it.
        region: of the server.
        access_key_id: that signed the request; never its secret.
        role: of that key; a name of ``ROLES``.
        request_id: also in the response's ``x-amzn-RequestId``.
        source_address: of the client, as the server sees it; empty if it does not know.
        operation: name of the operation.
        services: what the server has put together; the operations know its form, this layer does not.
    """

    account_id: str
    region: str
    access_key_id: str
    role: str
    request_id: str
    source_address: str
    operation: str
    services: Any


#: What an operation is: request and parameters in, the result's members out.
#: A ``Response`` goes out as it is, with length and request id.
Call = Callable[[Request, dict[str, Any]], Mapping[str, Any] | Response | None]
Function = TypeVar("Function", bound=Call)


@dataclass(frozen=True, slots=True)
class _Mark:
    """What a decorator noted on a function."""

    name: str
    access: Access
    method: str = ""
    uri: str = ""
    takes: Mapping[str, Shape] | None = None
    required: tuple[str, ...] = ()
    body_limit: int = BODY_LIMIT
    quick: bool = False
    shares: bool = False


def _marked(mark: _Mark) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        marks: list[_Mark] = function.__dict__.setdefault("answers", [])
        marks.append(mark)
        return function

    return decorate


def default_access(name: str) -> Access:
    """What an operation of the service model does, by its name."""
    if name.startswith(("Describe", "Get", "List", "Search", "Test")):
        return Access.READ
    return Access.REGISTER if name in REGISTERING else Access.CHANGE


def operation(
    name: str, *, access: Access | None = None, quick: bool = False, shares: bool = False
) -> Callable[[Function], Function]:
    """Mark a function as the answer to an operation of the service model. May stand more than once.

    Args:
        name: as the model has it, such as ``RegisterCertificate``.
        access: who may call it; by default ``default_access``.
        quick: it only reads a few rows by their keys; see ``Application``.
        shares: its one transaction is short, may share a commit with those of others, and comes after all that it
            reads elsewhere; see ``Application``.
    """
    return _marked(_Mark(name, access or default_access(name), quick=quick, shares=shares))


def endpoint(
    method: str,
    uri: str,
    *,
    access: Access,
    takes: Mapping[str, Shape] | None = None,
    required: tuple[str, ...] = (),
    body_limit: int = BODY_LIMIT,
) -> Callable[[Function], Function]:
    """Mark a function as the answer to a path of our own, with the same signatures, checks and errors.

    The function's name in camel case is the operation's name. Its result is any JSON object; timestamps may be
    aware datetimes.

    Args:
        method: HTTP's.
        uri: below ``/keyassay/v1/``; may have labels in braces.
        access: who may call it.
        takes: the members, in the language of service models, such as ``{"maxResults": {"type": "integer",
            "min": 1, "max": 250}}``. A member named in the path comes from there; the others come from the query
            for GET and DELETE, from the JSON body else.
        required: names of members that must be there.
        body_limit: bytes of the body.
    """
    if not uri.startswith(OWN_PATHS):
        raise ValueError(f"{uri} does not begin with {OWN_PATHS}")
    if (access is Access.OPEN) != (uri in OPEN_PATHS):
        raise ValueError(f"{uri}: access is open where OPEN_PATHS says so, and only there")

    def decorate(function: Function) -> Function:
        name = re.sub(r"_?([a-z0-9]+)", lambda found: found[1].capitalize(), getattr(function, "__name__", ""))
        return _marked(_Mark(name, access, method, uri, takes or {}, required, body_limit))(function)

    return decorate


def discover() -> list[Call]:
    """All marked functions of this package's modules ``iot_*`` and ``own_*``."""
    package = importlib.import_module(__package__ or "keyassay.aws")
    found = []
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if module.name.rpartition(".")[2].startswith(("iot_", "own_")):
            members = vars(importlib.import_module(module.name)).values()
            found += [one for one in members if hasattr(one, "answers") and one.__module__ == module.name]
    return found


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that can be asked for.

    Attributes:
        operation: how requests are read and results written.
        access: what the caller must be permitted.
        call: None for operations of the model that are not supported.
        body_limit: bytes.
        quick: it only reads a few rows by their keys.
        shares: its transaction may share a commit with those of others.
    """

    operation: Operation
    access: Access
    call: Call | None
    body_limit: int = BODY_LIMIT
    quick: bool = False
    shares: bool = False


class Operations:
    """All operations of the model, ours and those that we lack, and our own endpoints.

    Args:
        functions: marked ones, such as those of ``discover``.
        model: the service model; by default botocore's.

    Raises:
        ValueError: two functions for one operation, or an operation that the model does not have.
    """

    def __init__(self, functions: Iterable[Call], model: Model | None = None) -> None:
        self.model = model or Model.load()
        self.endpoints: list[Route] = []
        self._router: Router[Route] = Router()
        calls: dict[str, tuple[Call, _Mark]] = {}
        for function in functions:
            for mark in function.__dict__["answers"]:
                if mark.name in calls:
                    raise ValueError(f"two functions answer {mark.name}")
                calls[mark.name] = function, mark
        for name, (function, mark) in calls.items():
            if mark.uri:
                self._add_endpoint(function, mark)
            elif name not in self.model.operations:
                raise ValueError(f"the service model has no operation {name}")
        for name, modelled in self.model.operations.items():
            route = Route(modelled, default_access(name), None)
            if name in calls:
                call, mark = calls[name]
                modelled.compile()
                route = Route(modelled, mark.access, call, quick=mark.quick, shares=mark.shares)
            self._router.add(modelled.method, modelled.uri, route)
        self.supported = sorted(name for name, (_, mark) in calls.items() if not mark.uri)
        self._access = {name: mark.access for name, (_, mark) in calls.items()}

    def access_of(self, name: str) -> Access:
        """What a caller of an operation must be permitted, whether it is supported or not."""
        return self._access.get(name) or default_access(name)

    def _add_endpoint(self, function: Call, mark: _Mark) -> None:
        if mark.name in self.model.operations:
            raise ValueError(f"{mark.name} is the name of an operation of the model")
        labels = {label[0] for label in LABEL.findall(mark.uri)}
        others = {"location": "querystring"} if mark.method in ("GET", "DELETE") else {}
        members = {
            name: {**shape, **({"location": "uri"} if name in labels else others)}
            for name, shape in (mark.takes or {}).items()
        }
        if missing := (labels | set(mark.required)) - set(members):
            raise ValueError(f"{mark.name}: nothing says what {', '.join(sorted(missing))} must be")
        takes = {"type": "structure", "members": members, "required": mark.required}
        own = Operation(
            mark.name, mark.method, mark.uri, status=200, shapes=self.model.shapes, takes=takes, gives=DOCUMENT
        )
        own.compile()
        route = Route(own, mark.access, function, mark.body_limit)
        self.endpoints.append(route)
        self._router.add(mark.method, mark.uri, route)

    def route(self, method: str, raw_path: bytes) -> Match[Route]:
        """What a request asks for.

        Raises:
            ServiceError: UnknownOperationException, or InvalidRequestException for a path that is not UTF-8.
        """
        match = self._router.route(method, raw_path)
        if match is None:
            raise ServiceError("UnknownOperationException", "The API has no operation with this method and path")
        return match

    def perform(
        self, match: Match[Route], request: Request, raw_query: bytes, headers: Headers, body: bytes
    ) -> Response:
        """Check permission and input, call the function, write its result.

        Args:
            match: from ``route``.
            request: who asks.
            raw_query: as sent.
            headers: signed ones, names in lower case.
            body: whole.

        Raises:
            ServiceError: NotImplementedException, AccessDeniedException, or what is wrong with the input.
            Exception: what the function raises.
        """
        route = match.target
        name = route.operation.name
        if route.call is None:
            raise ServiceError("NotImplementedException", f"The operation {name} is not implemented")
        if route.access is not Access.OPEN and route.access not in ROLES.get(request.role, ()):
            message = f"The access key {request.access_key_id} has the role {request.role}, which may not call {name}"
            raise ServiceError("AccessDeniedException", message)
        params = route.operation.read(match.values, raw_query, headers, body)
        result = route.call(request, params)
        if not isinstance(result, Response):
            return route.operation.write(result, request.request_id)
        own = [(b"content-length", b"%d" % len(result.body)), (b"x-amzn-requestid", request.request_id.encode("ascii"))]
        return Response(result.status, [*result.headers, *own], result.body)
