"""What servers show: certificates by TLS, host keys by SSH; nothing is verified, everything is assessed.

One connection a source, a time-out on each; failures are ``NetworkError`` with a sentence.
"""

from __future__ import annotations

import base64
import binascii
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from typing import Any

#: how network sources begin
SCHEMES = ("tls://", "ssh://")
#: addresses of one host that are tried
_ADDRESSES = 8
#: bytes that a server may send before its handshake is done; OpenSSL itself refuses chains of more than 100 KB
_HANDSHAKE_BYTES = 1 << 20


class NetworkError(Exception):
    """A server could not be asked; the text says why."""


def _target(url: str) -> tuple[str, str, int]:
    match = re.fullmatch(r"(tls|ssh)://(\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[^/:\[\]\s]+)(?::(\d{1,5}))?/?", url)
    if match is None:
        raise NetworkError("not of the form tls://host[:port] or ssh://host[:port]")
    scheme, host, port = match.groups()
    number = int(port) if port else {"tls": 443, "ssh": 22}[scheme]
    if not 0 < number < 65536 or host.startswith("-"):
        raise NetworkError("no such host or port")
    return scheme, host.strip("[]"), number


def fetch(url: str, timeout: float) -> Iterator[tuple[str, bytes]]:
    """Ask one server.

    Args:
        url: ``tls://host[:port]`` or ``ssh://host[:port]``; IPv6 addresses stand in brackets.
        timeout: seconds from the first connection to the last certificate (looking up the name comes on top).

    Yields:
        (label, data) as in ``RawItem``.

    Raises:
        NetworkError: it cannot be asked.
    """
    scheme, host, port = _target(url)
    if scheme == "tls":
        yield from _tls(host, port, timeout)
    else:
        yield from _ssh(host, port, timeout)


def _tls(host: str, port: int, timeout: float) -> Iterator[tuple[str, bytes]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # Old devices speak old TLS; nothing secret goes over this connection.
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    deadline = time.monotonic() + timeout
    try:
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = context.wrap_bio(received, sent, server_hostname=host.partition("%")[0])
        with _connect(host, port, deadline) as plain:
            failure = _shake_hands(secure, plain, received, sent, deadline)
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be one
        raise NetworkError(f"no TLS connection: {_words(error)}") from error
    chain = _chain(secure)
    if not chain:
        if failure is not None:
            raise NetworkError(f"no TLS connection: {_words(failure)}") from failure
        raise NetworkError("the server shows no certificate")
    yield from (("CERTIFICATE", data) for data in chain)


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    """A connection to the first address that takes it before the deadline.

    Raises:
        OSError: none does.
    """
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[:_ADDRESSES]:
        plain = socket.socket(family, kind, protocol)
        try:
            plain.settimeout(_left(deadline))
            plain.connect(address)
        except OSError as error:
            plain.close()
            failure = error
        else:
            return plain
    raise failure or OSError("no address")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _shake_hands(
    secure: ssl.SSLObject, plain: socket.socket, received: ssl.MemoryBIO, sent: ssl.MemoryBIO, deadline: float
) -> Exception | None:
    """Do the handshake as far as it goes; what ended it, or None if it was completed.

    The deadline holds for all of it, so that a server which sends a byte now and then ends too. A handshake that
    fails late (a broker that wants a certificate from us, a key that is not sound) has shown the certificate by then.
    """
    count = 0
    while True:
        failure: Exception | None = None
        try:
            secure.do_handshake()
        except ssl.SSLWantReadError:
            failure = None
            done = False
        except ssl.SSLError as error:
            failure, done = error, True
        else:
            done = True
        try:
            if data := sent.read():
                plain.settimeout(_left(deadline))
                plain.sendall(data)
            if done:
                return failure
            plain.settimeout(_left(deadline))
            data = plain.recv(65536)
        except OSError as error:
            return failure or error
        count += len(data)
        if not data or count > _HANDSHAKE_BYTES:
            return OSError("the server closed the connection" if not data else "the handshake is too long")
        received.write(data)


def _chain(secure: ssl.SSLObject) -> list[bytes]:
    """What the server has sent, its own certificate first.

    Python gives the chain from 3.13 on, and from 3.10 on by the object inside; that one does not ask whether the
    handshake was completed.
    """
    inner: Any = getattr(secure, "_sslobj", secure)
    try:
        found = inner.get_unverified_chain() or ()
        chain = [one if isinstance(one, bytes) else one.public_bytes(_DER) for one in found]
    except (AttributeError, ValueError):
        chain = []
    if chain:
        return chain
    try:
        leaf = secure.getpeercert(binary_form=True)
    except ValueError:  # the handshake was not completed
        leaf = None
    return [leaf] if leaf else []


#: _ssl.ENCODING_DER, X509_FILETYPE_ASN1 of OpenSSL
_DER = 2


def _ssh(host: str, port: int, timeout: float) -> Iterator[tuple[str, bytes]]:
    program = shutil.which("ssh-keyscan")
    if program is None:
        raise NetworkError("ssh-keyscan is missing: install openssh-client")
    command = [program, "-T", str(max(1, round(timeout))), "-p", str(port), host]
    try:
        done = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=5 * timeout + 5
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"ssh-keyscan failed: {error}") from error
    found = 0
    for line in done.stdout[: 1 << 20].splitlines():
        parts = line.split()
        if line.startswith(b"#") or len(parts) < 3:
            continue
        try:
            data = base64.b64decode(parts[2], validate=True)
        except binascii.Error:
            continue
        found += 1
        yield "openssh", data
    if not found:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise NetworkError("no host key" + (f": {said[-1][:200]}" if said else ""))
