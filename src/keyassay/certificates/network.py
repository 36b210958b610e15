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
from collections.abc import Iterator
from typing import Any

#: how network sources begin
SCHEMES = ("tls://", "ssh://")


class NetworkError(Exception):
    """A server could not be asked; the text says why."""


def _target(url: str) -> tuple[str, str, int]:
    match = re.fullmatch(r"(tls|ssh)://(\[[0-9A-Fa-f:.%]+\]|[^/:\[\]]+)(?::(\d{1,5}))?/?", url)
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
        url: ``tls://host[:port]`` or ``ssh://host[:port]``.
        timeout: seconds.

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
    try:
        with (
            socket.create_connection((host, port), timeout) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            leaf = secure.getpeercert(binary_form=True)
            chain: list[Any] = []
            if hasattr(secure, "get_unverified_chain"):  # Python 3.13
                chain = list(secure.get_unverified_chain() or [])
    except (OSError, ValueError) as error:
        raise NetworkError(f"no TLS connection: {getattr(error, 'strerror', None) or error}") from error
    if leaf is None:
        raise NetworkError("the server shows no certificate")
    yield "CERTIFICATE", leaf
    for one in chain:
        data = bytes(one)
        if data != leaf:
            yield "CERTIFICATE", data


def _ssh(host: str, port: int, timeout: float) -> Iterator[tuple[str, bytes]]:
    program = shutil.which("ssh-keyscan")
    if program is None:
        raise NetworkError("ssh-keyscan is missing; install openssh-client")
    command = [program, "-T", str(max(1, round(timeout))), "-p", str(port), host]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=5 * timeout + 5)  # noqa: S603
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
