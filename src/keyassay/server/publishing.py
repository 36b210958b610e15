"""What anybody may fetch without a signature: revocation lists and OCSP answers of the registry's own authorities.

Exactly ``/ACCOUNT/ISSUER.crl``, ``/ACCOUNT/ISSUER.delta.crl`` and ``/ACCOUNT/ISSUER/ocsp`` (below the path of the
public address, too). Both are signed, so that plain HTTP is enough. Requests are bounded in size, time and number
of each source, and an account that does not exist looks like one without authorities.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.exc import SQLAlchemyError

from keyassay.registry import ocsp, status_lists
from keyassay.registry.errors import NotFoundError, SigningUnavailableError
from keyassay.registry.registry import Registry
from keyassay.registry.status_lists import COMPLETE, DELTA, StatusList
from keyassay.storage.database import BusyError

_PATH = re.compile(r"/([0-9]{12})/([0-9a-f]{64})(?:(\.crl)|(\.delta\.crl)|/ocsp(?:/(.{0,22000}))?)", re.DOTALL)
#: seconds that others may keep a list, or an answer without a nonce: so long a revocation may stay unknown to them
FRESH = 5
#: seconds for a request's body
_BODY_SECONDS = 10.0
#: threads that answer, and requests that may wait for them
_THREADS, _WAITING = 4, 200
#: bytes of lists that are kept in memory
_KEPT_BYTES = 64 << 20
#: sources whose rates are remembered
_SOURCES = 20_000
#: seconds
_BETWEEN_WARNINGS = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent back."""

    status: int
    kind: str = "text/plain"
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


_NOT_FOUND = Reply(404, body=b"there is nothing here\n")
_BUSY = Reply(503, body=b"busy\n", headers=((b"retry-after", b"1"),))
_UNKEPT = ((b"cache-control", b"no-store"),)


class SourceRate:
    """A bucket of requests for each source, of which the last 20,000 are remembered.

    Args:
        rate: requests a second that a source may keep up; 0 for no limit. It may send five times as many at once.
        clock: seconds, for tests.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()  # two listeners ask, each in its thread
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admits(self, source: str) -> bool:
        """Take one request off; false if none is left."""
        if not self._rate:
            return True
        now, most = self._clock(), max(5 * self._rate, 1.0)
        name = _network(source)
        with self._lock:
            left, since = self._left.pop(name, (most, now))
            left = min(left + (now - since) * self._rate, most)
            self._left[name] = (left - 1.0 if left >= 1.0 else left, now)
            if len(self._left) > _SOURCES:
                self._left.popitem(last=False)
        return left >= 1.0


def _network(source: str) -> str:
    """An address, or the network of 64 bits that an IPv6 host has to itself."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    return source


class Publishing:
    """An ASGI application for the open paths.

    Args:
        registry: whose authorities.
        rate: requests a second of one source.
        interval: seconds after which a list without a revocation is signed again.
        log: where it says what went wrong.
    """

    def __init__(self, registry: Registry, rate: float, interval: float, log: Any) -> None:
        self._registry = registry
        self._log = log
        self._rate = SourceRate(rate)
        self._late = round(2 * interval * 1000)
        self._prefix = urlsplit(registry.public_url).path.rstrip("/")
        self._responder = ocsp.Responder(registry)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="publishing")
        self._slots = threading.BoundedSemaphore(_WAITING)
        self._signing = threading.Lock()
        self._keeping = threading.Lock()
        self._lists: OrderedDict[tuple[str, str, str], StatusList] = OrderedDict()
        self._warned = -_BETWEEN_WARNINGS

    def serves(self, path: str) -> bool:
        """Whether a path is one of these."""
        return self._match(path) is not None

    def _match(self, path: str) -> re.Match[str] | None:
        found = _PATH.fullmatch(path)
        if found is None and self._prefix and path.startswith(f"{self._prefix}/"):
            found = _PATH.fullmatch(path[len(self._prefix) :])
        return found

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        reply = await self._reply(scope, receive)
        headers = [
            (b"content-type", reply.kind.encode()),
            (b"content-length", str(len(reply.body)).encode()),
            (b"x-content-type-options", b"nosniff"),
            *reply.headers,
        ]
        if reply.status == 304:
            del headers[:2]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else reply.body})

    async def _reply(self, scope: MutableMapping[str, Any], receive: Any) -> Reply:
        found = self._match(scope["path"])
        if found is None:
            return _NOT_FOUND
        if not self._rate.admits((scope.get("client") or ("",))[0]):
            return Reply(429, body=b"too many requests\n", headers=((b"retry-after", b"1"),))
        account_id, issuer_id, complete, delta, encoded = found.groups()
        is_list = bool(complete or delta)
        method = scope["method"]
        permitted = ("GET", "HEAD") if is_list or encoded is not None else ("POST",)
        if method not in permitted:
            return Reply(405, body=b"not so\n", headers=((b"allow", ", ".join(permitted).encode()),))
        if is_list:
            seen = dict(scope["headers"]).get(b"if-none-match", b"")
            return await self._work(self._list, account_id, issuer_id, DELTA if delta else COMPLETE, seen)
        if encoded is not None:
            return await self._work(self._answer, account_id, issuer_id, _decoded(encoded), True)
        body = await _body(receive)
        if body is None:
            return Reply(413, body=b"too large, or too slow\n", headers=((b"connection", b"close"),))
        return await self._work(self._answer, account_id, issuer_id, body, False)

    async def _work(self, function: Callable[..., Reply], *arguments: Any) -> Reply:
        if not self._slots.acquire(blocking=False):
            return _BUSY
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        except NotFoundError:
            return _NOT_FOUND
        except (BusyError, SQLAlchemyError):
            return _BUSY
        except SigningUnavailableError as error:
            self._warn(error)
            return _BUSY
        except Exception as error:  # noqa: BLE001  whatever it is, the server goes on
            self._log.error("publishing failed", reason=f"{type(error).__name__}: {error}"[:300])
            return Reply(500, body=b"internal error\n")
        finally:
            self._slots.release()

    def _list(self, account_id: str, issuer_id: str, kind: str, seen: bytes) -> Reply:
        made = self._present(account_id, issuer_id, kind)
        tag = f'"{kind}-{made.number}"'.encode()
        headers = (
            (b"etag", tag),
            (b"last-modified", formatdate(made.this_update // 1000, usegmt=True).encode()),
            (b"cache-control", f"public, max-age={FRESH}, must-revalidate".encode()),
        )
        if tag in [one.strip() for one in seen.split(b",")]:
            return Reply(304, headers=headers)
        return Reply(200, "application/pkix-crl", made.der, headers)

    def _present(self, account_id: str, issuer_id: str, kind: str) -> StatusList:
        """The list as it is now; signed here if there is none, or if nobody else has signed one for too long."""
        key = account_id, issuer_id, kind
        newest = self._newest(*key)
        if newest is None or newest[1] + self._late < time.time() * 1000:
            with self._signing:
                newest = self._newest(*key)  # another thread may have signed meanwhile
                if newest is None or newest[1] + self._late < time.time() * 1000:
                    try:
                        status_lists.sign(self._registry, account_id, issuer_id, new_base=True)
                    except SigningUnavailableError as error:
                        if newest is None:
                            raise
                        self._warn(error)  # the last list is good for days
                    newest = self._newest(*key)
        with self._keeping:
            kept = self._lists.get(key)
        if kept is not None and newest is not None and kept.number == newest[0]:
            return kept
        with self._registry.database.read() as connection:
            made = status_lists.stored(connection, *key)
        if made is None:
            raise NotFoundError("there is no such list")
        with self._keeping:
            self._lists[key] = made
            self._lists.move_to_end(key)
            while len(self._lists) > 1 and sum(len(one.der) for one in self._lists.values()) > _KEPT_BYTES:
                self._lists.popitem(last=False)
        return made

    def _newest(self, account_id: str, issuer_id: str, kind: str) -> tuple[int, int] | None:
        with self._registry.database.read() as connection:
            return status_lists.number_of(connection, account_id, issuer_id, kind)

    def _answer(self, account_id: str, issuer_id: str, request: bytes, by_get: bool) -> Reply:
        try:
            made = self._responder.answer(account_id, issuer_id, request)
        except SigningUnavailableError as error:
            self._warn(error)
            made = ocsp.TRY_LATER
        headers = _UNKEPT
        if by_get and made.may_be_kept:
            headers = ((b"cache-control", f"public, max-age={FRESH}, must-revalidate".encode()),)
        return Reply(200, "application/ocsp-response", made.der, headers)

    def _warn(self, error: SigningUnavailableError) -> None:
        """Log what a token says, twice a minute at most: anybody may ask."""
        now = time.monotonic()
        if now - self._warned >= _BETWEEN_WARNINGS:
            self._warned = now
            self._log.warning("an authority cannot sign", reason=error.message)

    def close(self) -> None:
        """Answer nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _decoded(encoded: str) -> bytes:
    """A request in a path (RFC 6960, A.1); what is none is b"", which no request is."""
    try:
        return base64.b64decode(encoded.replace(" ", "+"), validate=True)
    except (ValueError, binascii.Error):
        return b""


async def _body(receive: Any) -> bytes | None:
    """The body of a request; None if it is too large or too slow."""
    body = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                body += bytes(message.get("body", b""))
                if len(body) > ocsp.LARGEST_REQUEST:
                    return None
                if not message.get("more_body"):
                    return body
    except TimeoutError:
        return None
