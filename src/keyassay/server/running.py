"""The composition root: a settings object in, a running server out.

Top to bottom: the registry, who may sign, what can be asked, the HTTP protocol with its bounds, and the loop that ends
gracefully when the process is told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterable, MutableMapping
from dataclasses import replace
from typing import Any

import uvicorn
from sqlalchemy import text
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from keyassay.audit.screening import Screen
from keyassay.aws.application import Application, without_signatures
from keyassay.aws.operations import Operations, discover
from keyassay.aws.services import Services
from keyassay.aws.signature import Secret, Verifier
from keyassay.errors import KeyassayError
from keyassay.registry import accounts
from keyassay.registry.registry import Registry
from keyassay.server.gate_counters import GateCounters
from keyassay.server.limiting import RateLimit
from keyassay.server.observing import Observer
from keyassay.server.opening import first_account, open_registry
from keyassay.server.publishing import Publishing
from keyassay.server.settings import Address, Settings
from keyassay.server.working import Workers, workers_of

#: seconds that a looked-up access key is trusted: how long a deactivated one may still sign
KEY_SECONDS = 0.5
_KEYS_KEPT = 10_000
#: bytes and seconds that a request's head may take
HEAD_BYTES = 65_536
HEAD_SECONDS = 20.0
#: seconds that running requests get when the server is told to end
GRACE = 20


class AccessKeys:
    """Looks up access keys, remembering each for half a second."""

    def __init__(self, registry: Registry, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._clock = clock
        self._known: dict[str, tuple[float, Secret]] = {}

    def __call__(self, access_key_id: str) -> Secret | None:
        """What a signature is checked with; None for unknown and inactive keys."""
        now = self._clock()
        known = self._known.get(access_key_id)
        if known is not None and now - known[0] < KEY_SECONDS:
            return known[1]
        found = accounts.credentials(self._registry, access_key_id)
        if found is None:
            self._known.pop(access_key_id, None)
            return None
        if len(self._known) >= _KEYS_KEPT:
            self._known.clear()
        secret = Secret(found.account_id, found.secret, found.role.value)
        self._known[access_key_id] = (now, secret)
        return secret


class _HeadWithBody(asyncio.Transport):
    """Sends a response's head together with what follows it: one packet instead of two.

    Args:
        transport: of the connection.
        cycle: the response; its application sends head and body one after the other, without a wait between.
    """

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = cycle
        self._head: bytes | None = None

    def write(self, data: Any) -> None:
        if self._cycle.response_started and self._head is None:
            self._head = data
        elif self._head:
            self._transport.write(self._head + data)
            self._head = b""
        else:  # "100 Continue", or more of a body
            self._transport.write(data)

    def close(self) -> None:
        if self._head:
            self._transport.write(self._head)
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP with bounds on a request's head, which it lacks: nobody holds connections for nothing."""

    _head = 0
    _reading_head = True
    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._limit = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def data_received(self, data: bytes) -> None:
        if self._reading_head:
            self._head += len(data)
            if self._head > HEAD_BYTES + self.largest_read:
                self._give_up()
                return
        super().data_received(data)

    #: what one call may bring, with the end of the head somewhere in it
    largest_read = 262_144

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head, self._reading_head = 0, True
        self._cancel()
        self._limit = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= 200:
            self.transport.close()
            return
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._reading_head = False
        self._cancel()
        super().on_headers_complete()
        if self.scope["method"] != "HEAD" and self.cycle is not None:  # whose responses are heads
            self.cycle.transport = _HeadWithBody(self.transport, self.cycle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def _cancel(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class Front:
    """The outermost layer: health, revocation lists and OCSP for anybody, everything else to the API."""

    def __init__(self, api: Application, registry: Registry, publishing: Publishing) -> None:
        self._api = api
        self._publishing = publishing
        self._registry = registry
        self.stopping = False

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            if scope["path"] == "/healthz":
                await _answer(send, 200, b"alive\n")
                return
            if scope["path"] == "/readyz":
                ready = not self.stopping and await asyncio.to_thread(self._database_answers)
                await _answer(send, 200 if ready else 503, b"ready\n" if ready else b"not ready\n")
                return
        if scope["type"] == "http" and self._publishing.serves(scope["path"]):
            await self._publishing(scope, receive, send)
            return
        await self._api(scope, receive, send)

    def _database_answers(self) -> bool:
        try:
            with self._registry.database.read() as connection:
                connection.execute(text("SELECT 1"))
        except Exception:  # noqa: BLE001  whatever it is, the server is not ready
            return False
        return True


async def _answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Loop(uvicorn.Server):
    """uvicorn's server, ending with our exit code instead of a repeated signal."""

    on_stop: Callable[[], None] = staticmethod(lambda: None)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Let SIGTERM and SIGINT end the loop gracefully; a second one at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: Any) -> None:
            self.on_stop()
            self.handle_exit(number, frame)

        before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _configured(application: Any, connections: int, **more: Any) -> uvicorn.Config:
    """How both listeners speak HTTP."""
    config = uvicorn.Config(
        application,
        http=BoundedProtocol,
        loop="uvloop",
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        limit_concurrency=connections,
        timeout_keep_alive=65,
        timeout_graceful_shutdown=GRACE,
        **more,
    )
    config.load()
    return config


class Server:
    """A server that was put together and listens, but does not answer yet: ``run`` does.

    Args:
        settings: how.
        log: where it says what happens.
        version: of keyassay.

    Raises:
        KeyassayError: the database, the key, an address or the TLS files cannot be used.
    """

    def __init__(self, settings: Settings, log: Any, version: str) -> None:
        self.settings = settings
        self._log = log
        _check_tls(settings)
        with contextlib.ExitStack() as undo:  # what was opened is closed again if the rest cannot be
            self._sockets = _listening(settings.listen)
            self._public_sockets = _listening(settings.public_listen)
            for one in (*self._sockets, *self._public_sockets):
                undo.callback(one.close)
            self.registry = _screened(open_registry(settings, create=True), settings.screening)
            undo.callback(self.registry.database.close)
            self._prepare(settings, log, version)
            undo.pop_all()

    def _prepare(self, settings: Settings, log: Any, version: str) -> None:
        made = first_account(self.registry, settings.environment, settings.sealing_key_file.parent)
        if made:
            log.info("first start", account=made)
        self.services = Services(self.registry)
        self.observer = Observer(log, version)
        authenticate = (
            without_signatures(accounts.accounts(self.registry)[0].id)
            if settings.insecure_no_auth
            else Verifier(AccessKeys(self.registry), settings.region).verify
        )
        self.api = Application(
            Operations(discover()),
            self.services,
            authenticate,
            settings.region,
            threads=settings.threads,
            quick_on_loop=self.registry.database.is_sqlite,
            admit=RateLimit(settings.rate_limit) if settings.rate_limit else None,
            observe=self.observer,
        )
        self.workers = Workers(workers_of(settings, self.registry, log))
        self.publishing = Publishing(self.registry, settings.public_rate, settings.crl_hours * 3_600, log)
        self._front = Front(self.api, self.registry, self.publishing)
        config = _configured(
            self._front, settings.connections, ssl_certfile=settings.tls_certificate, ssl_keyfile=settings.tls_key
        )
        self._public = _Loop(_configured(self.publishing, settings.connections))
        self._publisher = threading.Thread(
            target=self._public.run, args=(self._public_sockets,), name="publishing", daemon=True
        )
        self._getting_ready = threading.Thread(target=self._get_screening_ready, name="screening", daemon=True)
        self._loop = _Loop(config)
        self._loop.on_stop = self._stop_begins

    @property
    def addresses(self) -> list[str]:
        """Where it listens, with the ports that were taken."""
        scheme = "https" if self.settings.tls_certificate else "http"
        return [f"{scheme}://{Address(*one.getsockname()[:2])}" for one in self._sockets]

    @property
    def public_addresses(self) -> list[str]:
        """Where revocation lists and OCSP alone are answered."""
        return [f"http://{Address(*one.getsockname()[:2])}" for one in self._public_sockets]

    def _get_screening_ready(self) -> None:
        """Load checks and tables beside the start; if that fails, the first registration tries again and says why.

        Registrations share commits only then: loading ends with a transaction of its own, which waits for theirs.
        """
        with contextlib.suppress(Exception):
            if isinstance(self.registry.screening, Screen):
                self.registry.screening.prepare()
            if self.registry.database.is_sqlite:
                self.api.share(self.registry.database.shared)

    def _stop_begins(self) -> None:
        self._front.stopping = True

    def run(self) -> None:
        """Answer requests until SIGTERM or SIGINT; running ones are finished first."""
        if self.settings.metrics is not None:
            self.observer.registry.register(GateCounters(self.registry.database))
            self.observer.show(self.settings.metrics)
            where = f"http://{Address(self.settings.metrics.host, self.observer.metrics_port)}/metrics"
            self._log.info("metrics", address=where)
        self._getting_ready.start()
        self._log.info("listening", addresses=self.addresses, region=self.settings.region)
        if self._public_sockets:
            self._publisher.start()
            self._log.info("publishing revocation lists and OCSP", addresses=self.public_addresses)
        self.workers.start()
        try:
            self._loop.run(self._sockets)
        finally:
            self.close()
            self._log.info("stopped")

    def close(self) -> None:
        """Give everything back."""
        self.workers.stop()
        if self._getting_ready.ident is not None:
            self._getting_ready.join(GRACE)
        self._public.should_exit = True
        if self._publisher.ident is not None:
            self._publisher.join(GRACE)
        self.observer.close()
        self.api.close()
        self.publishing.close()
        for one in (*self._sockets, *self._public_sockets):
            one.close()
        self.registry.database.close()

    def stop(self) -> None:
        """Let ``run`` end, from another thread."""
        self._stop_begins()
        self._loop.should_exit = True


def _screened(registry: Registry, screening: str) -> Registry:
    """The registry with screening of registrations."""
    if screening == "off":
        return registry
    return replace(registry, screening=Screen(registry.database, refuse=screening == "refuse"))


def _check_tls(settings: Settings) -> None:
    if settings.tls_certificate is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_certificate, settings.tls_key)
        except OSError as error:
            raise KeyassayError(f"the TLS files cannot be used: {error}") from None


def _listening(addresses: Iterable[Address]) -> list[socket.socket]:
    with contextlib.ExitStack() as undo:
        sockets = [undo.enter_context(_listen(address)) for address in addresses]
        undo.pop_all()
    return sockets


def _listen(address: Address) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(2_048)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise KeyassayError(f"cannot listen on {address}: {error.strerror or error}") from None
    listener.setblocking(False)
    return listener
