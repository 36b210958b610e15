"""Connections to addresses that somebody else chose: looked up once, checked, bounded in time, without proxies.

A name has to lead to a public address; a private one is reached only where the operator listed the address itself.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from urllib.parse import SplitResult

#: IPv6 addresses that stand for IPv4 ones behind a translator
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")


class PrivateAddressError(Exception):
    """A name leads to a private address; the message says so."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} leads to a private address: list the address itself if that is meant")


@contextlib.contextmanager
def connected(
    parts: SplitResult, *, silence: float, patience: float, here: bool = False
) -> Iterator[http.client.HTTPConnection]:
    """A connection to the host of an address, closed at the end of the block and cut when the time is over.

    Args:
        parts: of an http or https address.
        silence: seconds without a byte.
        patience: seconds for all of it, however slowly the other side goes on.
        here: ``localhost`` is permitted.

    Raises:
        PrivateAddressError: the name leads to a private address.
        OSError, http.client.HTTPException: whatever happens on the way, in the block too.
    """
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    connection = _Connection(host, port, permitted_address(host, port, here=here), silence, secure=secure)

    def cut() -> None:
        with contextlib.suppress(OSError, AttributeError):
            connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(patience, cut)
    timer.daemon = True
    timer.start()
    try:
        with contextlib.closing(connection):
            yield connection
    finally:
        timer.cancel()


def target_of(parts: SplitResult) -> str:
    """What to ask the host for."""
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


class _Connection(http.client.HTTPConnection):
    """A connection to an address that was looked up and checked before, under the host's name."""

    def __init__(self, host: str, port: int, address: str, silence: float, *, secure: bool) -> None:
        super().__init__(host, port, timeout=silence)
        self.default_port = 443 if secure else 80
        self._address = address
        self._secure = secure

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._secure:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


def permitted_address(host: str, port: int, *, here: bool = False) -> str:
    """The address to connect to.

    Args:
        host: as the operator listed it: an address is taken as it is, a name is looked up.
        port: of the service.
        here: ``localhost`` is permitted.

    Raises:
        OSError: the name is unknown.
        PrivateAddressError: it leads to private addresses only.
    """
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host))
    addresses = [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if here and host == "localhost":
        return addresses[0]
    for address in addresses:
        if is_public(address):
            return address
    raise PrivateAddressError(host)


def is_public(address: str) -> bool:
    """Whether an address belongs to the whole world's network."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return parsed.is_global and not parsed.is_multicast and not (parsed.version == 6 and parsed in _TRANSLATED)
