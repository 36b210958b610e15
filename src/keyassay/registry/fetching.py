"""Revocation lists from the addresses that certificates name: only of hosts that the operator allows.

Whoever writes a certificate chooses that address, so everything is bounded: http and https, no redirects, no proxies,
ten seconds and ten megabytes for each, and a name that leads to a private address is refused. A private address is
permitted where the operator listed the address itself.
"""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from sqlalchemy import Connection, select

from keyassay.registry import outbound, revocation
from keyassay.registry.errors import RegistryError
from keyassay.registry.registry import Registry
from keyassay.storage import leases, schema
from keyassay.storage.database import Actor, BusyError

#: seconds for one list, all of it
PATIENCE = 10.0
#: how old a list may become before it is fetched again, milliseconds
FRESH = 6 * 3_600_000
#: the newest certificates of each authority whose addresses are asked for, and of those without one
SAMPLED = 50
#: addresses of an account that are asked in one turn
ADDRESSES = 200
#: seconds between two turns of a worker, and the longest turn that others wait for
INTERVAL, TURN = 1_800.0, 3_600.0
_CHUNK = 65_536

_L = schema.revocation_lists.c


class FetchError(Exception):
    """A list did not come; the message says why in a few words."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of one address.

    Attributes:
        account_id: whose certificates name it.
        url: the address.
        error: why there is no list, "" if there is one.
        entries: revoked certificates in it.
    """

    account_id: str
    url: str
    error: str = ""
    entries: int = 0


def fetch_due(
    registry: Registry,
    hosts: Collection[str],
    *,
    now: int | None = None,
    goes_on: Callable[[], bool] = lambda: True,
) -> list[Fetched]:
    """Fetch the lists that certificates of all accounts name, where they are not there or have become old.

    For each registered authority its own certificate and the newest of those that it signed are asked for their
    addresses, and the newest that no registered authority signed. What fails is tried again at the next call.

    Args:
        registry: where.
        hosts: names and addresses that may be asked, in lower case; nothing else is.
        now: milliseconds since 1970.
        goes_on: asked before each address; false ends the turn.
    """
    if not hosts:
        return []
    now = time.time_ns() // 1_000_000 if now is None else now
    allowed = frozenset(one.lower() for one in hosts)
    with registry.database.read() as connection:
        account_ids = connection.execute(select(schema.accounts.c.id).order_by(schema.accounts.c.id)).scalars().all()
    fetched: list[Fetched] = []
    for account_id in account_ids:
        with registry.database.read() as connection:
            due = [
                url for url in _addresses(connection, account_id, allowed) if _is_due(connection, account_id, url, now)
            ]
        for url in due[:ADDRESSES]:
            if not goes_on():
                return fetched
            try:
                made = revocation.enter(registry, Actor(account_id, "worker:crl"), fetch(url, allowed), url)
                fetched.append(Fetched(account_id, url, entries=made.entries or 0))
            except FetchError as error:
                fetched.append(Fetched(account_id, url, str(error)))
            except RegistryError as error:
                fetched.append(Fetched(account_id, url, error.message))
    return fetched


def _is_due(connection: Connection, account_id: str, url: str, now: int) -> bool:
    query = select(_L.stored_at, _L.next_update).where(_L.account_id == account_id, _L.source == url)
    row = connection.execute(query).first()
    return row is None or row.stored_at + FRESH <= now or (row.next_update is not None and row.next_update <= now)


def _addresses(connection: Connection, account_id: str, hosts: frozenset[str]) -> list[str]:
    """Addresses at permitted hosts, each once."""
    authorities, columns = schema.authorities.c, schema.certificates.c
    rows = connection.execute(select(authorities.id, authorities.der).where(authorities.account_id == account_id)).all()
    found: dict[str, None] = {}
    for row in rows:
        found.update(dict.fromkeys(distribution_points(bytes(row.der))))
    for authority_id in (*(row.id for row in rows), None):
        mine = (
            columns.ca_certificate_id.is_(None) if authority_id is None else columns.ca_certificate_id == authority_id
        )
        query = select(columns.der).where(columns.account_id == account_id, mine)
        query = query.order_by(columns.created_at.desc(), columns.id.desc()).limit(SAMPLED)
        for der in connection.execute(query).scalars():
            found.update(dict.fromkeys(distribution_points(bytes(der))))
    return [url for url in found if len(url) <= 400 and _host(url) in hosts]


def distribution_points(der: bytes) -> list[str]:
    """The addresses (http, https) of a certificate's revocation lists; none if they cannot be read."""
    try:
        points = (
            x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        )
    except (x509.ExtensionNotFound, ValueError, UnsupportedAlgorithm):
        return []
    names = [
        name.value
        for point in points
        for name in point.full_name or ()
        if isinstance(name, x509.UniformResourceIdentifier)
    ]
    return [url for url in names if _host(url)]


def _host(url: str) -> str:
    """The host of an address that may be asked, in lower case; "" for anything else."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return ""
    plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not plain or parts.username is not None:
        return ""
    return parts.hostname or ""


def fetch(url: str, hosts: Collection[str]) -> bytes:
    """What an address holds.

    Args:
        url: http or https.
        hosts: names and addresses that may be asked.

    Raises:
        FetchError: the host is not permitted, or it did not give a list within the bounds.
    """
    if not _host(url) or _host(url) not in hosts:
        raise FetchError("the host is not permitted")
    parts = urlsplit(url)
    try:
        return _get(parts)
    except outbound.PrivateAddressError as error:
        raise FetchError(str(error)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(f"no answer: {type(error).__name__}: {error}"[:300]) from None


def _get(parts: SplitResult) -> bytes:
    deadline = time.monotonic() + PATIENCE
    with outbound.connected(parts, silence=PATIENCE, patience=PATIENCE) as connection:
        headers = {"user-agent": "keyassay", "accept-encoding": "identity"}
        connection.request("GET", outbound.target_of(parts), headers=headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise FetchError(f"the answer was {answer.status}")
        body = bytearray()
        while piece := answer.read1(_CHUNK):
            body += piece
            if len(body) > revocation.LARGEST_LIST:
                raise FetchError(f"it has more than {revocation.LARGEST_LIST:,} bytes")
            if time.monotonic() > deadline:
                raise FetchError(f"it takes more than {PATIENCE:.0f} seconds")
        if answer.length:
            raise FetchError("the answer broke off")
        return bytes(body)


class Fetcher:
    """Fetches lists now and then; of several workers one at a time.

    Args:
        registry: where.
        hosts: as for ``fetch_due``.
        log: a structlog logger.
    """

    name = "revocation lists"

    def __init__(self, registry: Registry, hosts: Collection[str], log: Any) -> None:
        self._registry = registry
        self._hosts = tuple(hosts)
        self._log = log
        self._holder = f"{socket.gethostname()[:100]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; the address that is being asked is waited for."""
        while not stop.is_set():
            try:
                self._turn(stop)
            except BusyError:
                self._log.info("revocation lists wait, the database is busy")
            except Exception as error:  # noqa: BLE001  whatever it was, the next turn may be better
                self._log.error("fetching revocation lists failed", error=f"{type(error).__name__}: {error}"[:300])
            stop.wait(INTERVAL)

    def _turn(self, stop: threading.Event) -> None:
        lease = leases.take(self._registry.database, "revocation-lists", self._holder, TURN)
        if lease is None:
            return
        try:
            for one in fetch_due(self._registry, self._hosts, goes_on=lambda: not stop.is_set()):
                what = {"account": one.account_id, "address": one.url}
                if one.error:
                    self._log.warning("a revocation list was not fetched", **what, reason=one.error)
                else:
                    self._log.info("a revocation list was fetched", **what, entries=one.entries)
        finally:
            leases.release(self._registry.database, lease)
