"""The ASGI application: a raw request in, an answer out, whatever came.

In order: read the body within limits, then in a thread of the pool (what is quick, at once) verify who sent it,
dispatch, translate errors.
Strangers learn nothing: whether a path exists is told after the signature holds. Neither bodies, queries nor the
texts of unexpected errors (databases put values into them) are logged; what happened goes to ``observe`` as an
``Exchange``. Limits on connections and request lines are the server's (uvicorn).
"""

from __future__ import annotations

import asyncio
import random
import re
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from keyassay.aws.errors import ServiceError, translate
from keyassay.aws.operations import BODY_LIMIT, Access, Operations, Request, Route
from keyassay.aws.protocol import Match, Response
from keyassay.aws.signature import Caller, Pairs

#: Names of this machine in the header ``Host``, with or without port.
LOOPBACK = re.compile(rb"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?", re.IGNORECASE)

#: who calls what is open to everybody: no account, no role
NOBODY = Caller("", "", "", [])

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
#: method, raw path, raw query, headers, body -> who sent it; raises ServiceError.
Authenticate = Callable[[str, bytes, bytes, Pairs, bytes], Caller]


def without_signatures(account_id: str) -> Authenticate:
    """Takes everybody for the administrator of one account. For servers that listen on loopback only.

    What a browser sends is refused, else any web page could use the API through its reader: requests with
    ``Origin`` or ``Sec-Fetch-Site``, and those for another host than this one (rebinding of names).
    """

    def authenticate(method: str, raw_path: bytes, raw_query: bytes, headers: Pairs, body: bytes) -> Caller:
        del method, raw_path, raw_query, body
        for name, value in headers:
            if name in (b"origin", b"sec-fetch-site") or (name == b"host" and not LOOPBACK.fullmatch(value)):
                message = "Without signatures the API answers neither browsers nor requests for another host"
                raise ServiceError("AccessDeniedException", message)
        return Caller(account_id, "unsigned", "administrator", headers)

    return authenticate


@dataclass(slots=True)
class Exchange:
    """What is known of a request and its answer, for logs and counters; nothing of its contents.

    Attributes:
        request_id: as in the response.
        method: HTTP's; empty if it is none that we know, so that counters stay few.
        operation: its name, or empty.
        account_id: of the caller, once verified; empty before.
        access_key_id: likewise.
        source_address: of the client.
        status: of the response; 0 if the client went away before there was one.
        error: AWS's code, or empty.
        failure: for an error of ours: where it happened and the types, without values.
        seconds: from the request's head to the answer.
    """

    request_id: str
    method: str
    source_address: str
    operation: str = ""
    account_id: str = ""
    access_key_id: str = ""
    status: int = 0
    error: str = ""
    failure: str = ""
    seconds: float = 0.0


METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


#: request ids are names and no secrets: asking the system for each would cost a switch of threads
_RANDOM = random.Random()  # noqa: S311


def _request_id() -> str:
    return str(uuid.UUID(int=_RANDOM.getrandbits(128), version=4))


class _GoneError(Exception):
    """The client closed the connection before its request was whole."""


def _where(error: BaseException) -> str:
    """Types and places of an error and its causes; no texts, which may hold values."""
    lines: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(lines) < 8:
        lines.append(type(seen).__name__ + "\n" + "".join(traceback.format_tb(seen.__traceback__)))
        seen = seen.__cause__ or seen.__context__
    return "\n".join(lines)


class Application:
    """The API as an ASGI application.

    Args:
        operations: what can be asked for.
        services: goes to the operations as it is.
        authenticate: ``Verifier(...).verify``, or ``without_signatures(...)``.
        region: of the server.
        threads: that run operations.
        quick_on_loop: quick operations are answered in the event loop's own thread. Right where the database is a
            local file, which answers them in less time than it takes to hand a request to a thread and back.
        body_seconds: in which a request's body must arrive.
        admit: called once the caller is known, before the operation; raises ServiceError (ThrottlingException)
            to refuse.
        observe: called with every exchange when it is over; must be quick and not raise.
    """

    def __init__(
        self,
        operations: Operations,
        services: Any,
        authenticate: Authenticate,
        region: str,
        *,
        threads: int = 16,
        quick_on_loop: bool = False,
        body_seconds: float = 20.0,
        admit: Callable[[Request], None] | None = None,
        observe: Callable[[Exchange], None] | None = None,
    ) -> None:
        self._operations = operations
        self._services = services
        self._authenticate = authenticate
        self._region = region
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="api")
        self._quick_on_loop = quick_on_loop
        self._body_seconds = body_seconds
        self._admit = admit
        self._observe = observe

    def close(self) -> None:
        """Wait for running operations, then end the threads."""
        self._pool.shutdown(wait=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ValueError(f"the API does not speak {scope['type']}")
        started = time.perf_counter()
        client, method = scope.get("client"), scope["method"]
        exchange = Exchange(_request_id(), method if method in METHODS else "", client[0] if client else "")
        raw_path: bytes = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
        try:
            asked = self._asked(method, raw_path)
            try:
                limit = asked.target.body_limit if isinstance(asked, Match) else BODY_LIMIT
                body = await self._body(scope, receive, limit)
            except ServiceError as error:
                response = self._refusal(error, exchange)
                response.headers.append((b"connection", b"close"))  # the rest of the body is not read
            else:
                how = asked, exchange, method, raw_path, scope, body
                if self._quick_on_loop and isinstance(asked, Match) and asked.target.quick:
                    response = self._answer(*how)
                else:
                    response = await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, *how)
            exchange.status = response.status
            await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
            await send({"type": "http.response.body", "body": response.body})
        except _GoneError:
            pass
        finally:
            exchange.seconds = time.perf_counter() - started
            if self._observe:
                self._observe(exchange)

    def _asked(self, method: str, raw_path: bytes) -> Match[Route] | ServiceError:
        """What is asked for, or why that is nothing; it is said only after the signature holds."""
        try:
            return self._operations.route(method, raw_path)
        except ServiceError as error:
            return error

    async def _body(self, scope: Scope, receive: Receive, limit: int) -> bytes:
        """The whole body.

        Raises:
            ServiceError: it is longer than ``limit`` bytes, or takes too long.
            _GoneError: the client went away.
        """
        too_large = ServiceError("RequestEntityTooLargeException", f"The body is longer than {limit} bytes")
        has_body = scope["method"] != "GET"
        for name, value in scope["headers"]:
            if name == b"content-length":
                has_body = True
                if value.isdigit() and int(value[:20]) > limit:
                    raise too_large
            elif name == b"transfer-encoding":
                has_body = True
        if not has_body:
            return b""
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self._body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > limit:
                        raise too_large
                    chunks.append(chunk)
                    if not message.get("more_body"):
                        return b"".join(chunks)
        except TimeoutError:
            raise ServiceError("RequestTimeoutException", "The body did not arrive in time") from None

    def _answer(
        self,
        asked: Match[Route] | ServiceError,
        exchange: Exchange,
        method: str,
        raw_path: bytes,
        scope: Scope,
        body: bytes,
    ) -> Response:
        """All that may wait for the database: verify, dispatch, translate errors."""
        raw_query, headers = scope.get("query_string", b""), [(name, value) for name, value in scope["headers"]]
        try:
            if isinstance(asked, Match) and asked.target.access is Access.OPEN:
                caller = NOBODY
            else:
                caller = self._authenticate(method, raw_path, raw_query, headers, body)
            exchange.account_id, exchange.access_key_id = caller.account_id, caller.access_key_id
            if isinstance(asked, ServiceError):
                raise asked  # noqa: TRY301
            exchange.operation = asked.target.operation.name
            request = Request(
                account_id=caller.account_id,
                region=self._region,
                access_key_id=caller.access_key_id,
                role=caller.role,
                request_id=exchange.request_id,
                source_address=exchange.source_address,
                operation=exchange.operation,
                services=self._services,
            )
            if self._admit:
                self._admit(request)
            return self._operations.perform(asked, request, raw_query, caller.signed_headers, body)
        except Exception as error:  # noqa: BLE001  every request gets an answer
            return self._refusal(error, exchange)

    def _refusal(self, error: Exception, exchange: Exchange) -> Response:
        """The response of an error; what we did not expect is InternalFailureException and says nothing more."""
        known = translate(error)
        if known is None:
            exchange.failure = _where(error)
            known = ServiceError("InternalFailureException", "An internal error happened; the request id names it")
        exchange.error = known.code
        return self._operations.model.error_response(known, exchange.request_id)
