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
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
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


@dataclass(frozen=True, slots=True)
class _Asked:
    """A whole request: what is asked for, or why that is nothing, and what came."""

    route: Match[Route] | ServiceError
    exchange: Exchange
    method: str
    raw_path: bytes
    scope: Scope
    body: bytes


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


class _Sharing:
    """Answers requests one after the other in one thread, as many at a time as wait, with one commit for all of them.

    Several threads would spend their time on handing over the interpreter, and a commit each waits for the disk.

    Args:
        pool: lends the thread while there is something to do.
        shared: the context in which transactions share a commit.
        answer: answers a request; raises nothing.
        refuse: the answer where the commit failed.
    """

    #: requests that share a commit at most, and seconds after which no other joins: the first one waits for the last,
    #: and other writers for all of them
    MOST, LONGEST = 50, 0.005

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        shared: Callable[[], AbstractContextManager[None]],
        answer: Callable[[_Asked], Response],
        refuse: Callable[[Exception, Exchange], Response],
    ) -> None:
        self._pool = pool
        self._shared = shared
        self._one = answer
        self._refuse = refuse
        self._waiting: deque[tuple[_Asked, asyncio.Future[Response]]] = deque()
        self._works = False  # the event loop's thread alone reads and changes it

    def answer(self, asked: _Asked) -> Awaitable[Response]:
        """The answer, once what it says is durable; called in the event loop's thread."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Response] = loop.create_future()
        self._waiting.append((asked, answered))
        if not self._works:
            self._works = True
            self._pool.submit(self._work, loop)
        return answered

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer all that wait, then say so to the loop, which knows whether others have come."""
        while self._waiting:
            answers = self._answers()
            over = not self._waiting
            try:
                loop.call_soon_threadsafe(self._deliver, answers, loop if over else None)
            except RuntimeError:  # the loop has ended, and with it the connections
                return
            if over:
                return

    def _answers(self) -> Sequence[tuple[asyncio.Future[Response], Response]]:
        """Answers of the next that wait, durable."""
        taken: list[tuple[_Asked, asyncio.Future[Response]]] = []
        responses: list[Response] = []
        until = time.monotonic() + self.LONGEST
        try:
            with self._shared():
                while self._waiting and len(taken) < self.MOST and time.monotonic() < until:
                    taken.append(self._waiting.popleft())
                    responses.append(self._one(taken[-1][0]))
        except Exception as error:  # noqa: BLE001  nothing of what they say is in the database
            # who has come meanwhile has waited for the same turn, and would wait for another one as long
            taken += [self._waiting.popleft() for _ in range(len(self._waiting))]
            responses = [self._refuse(error, asked.exchange) for asked, _ in taken]
        return [(answered, response) for (_, answered), response in zip(taken, responses, strict=True)]

    def _deliver(
        self,
        answers: Sequence[tuple[asyncio.Future[Response], Response]],
        ended: asyncio.AbstractEventLoop | None,
    ) -> None:
        for answered, response in answers:
            if not answered.done():  # the loop stops
                answered.set_result(response)
        if ended is not None:
            self._works = bool(self._waiting)
            if self._works:
                self._pool.submit(self._work, ended)


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
        self._sharing: _Sharing | None = None
        self._body_seconds = body_seconds
        self._admit = admit
        self._observe = observe

    def share(self, shared: Callable[[], AbstractContextManager[None]]) -> None:
        """From now on answer operations that may share a commit one after the other, in one context.

        Args:
            shared: in which the transactions of a thread share a commit. None of these operations may wait in it for
                something that another writer has to do first.
        """
        self._sharing = _Sharing(self._pool, shared, self._answer, self._refusal)

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
                response = await self._answered(_Asked(asked, exchange, method, raw_path, scope, body))
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

    async def _answered(self, asked: _Asked) -> Response:
        """The answer, from the thread that suits the operation."""
        if isinstance(asked.route, Match):
            if self._quick_on_loop and asked.route.target.quick:
                return self._answer(asked)
            if self._sharing is not None and asked.route.target.shares:
                return await self._sharing.answer(asked)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, asked)

    def _answer(self, given: _Asked) -> Response:
        """All that may wait for the database: verify, dispatch, translate errors."""
        asked, exchange, scope, body = given.route, given.exchange, given.scope, given.body
        raw_query, headers = scope.get("query_string", b""), [(name, value) for name, value in scope["headers"]]
        try:
            if isinstance(asked, Match) and asked.target.access is Access.OPEN:
                caller = NOBODY
            else:
                caller = self._authenticate(given.method, given.raw_path, raw_query, headers, body)
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
