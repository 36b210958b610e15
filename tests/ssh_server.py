"""A server that speaks SSH as far as its host key (RFC 4253, 5656, 8731), for tests with the real ssh-keyscan."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import threading
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

BANNER = b"SSH-2.0-test"
KEXINIT, ECDH_INIT, ECDH_REPLY = 20, 30, 31


def string(octets: bytes) -> bytes:
    return struct.pack(">I", len(octets)) + octets


def _send(connection: socket.socket, payload: bytes) -> None:
    padding = 8 - (len(payload) + 5) % 8
    padding += 8 if padding < 4 else 0
    connection.sendall(struct.pack(">IB", len(payload) + padding + 1, padding) + payload + os.urandom(padding))


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _receive(connection: socket.socket) -> bytes:
    length, padding = struct.unpack(">IB", _exactly(connection, 5))
    return _exactly(connection, length - 1)[: length - 1 - padding]


def _serve(connection: socket.socket, key: Ed25519PrivateKey) -> None:
    connection.sendall(BANNER + b"\r\n")
    client = b""
    while not client.endswith(b"\n"):
        client += _exactly(connection, 1)
    lists = (b"curve25519-sha256", b"ssh-ed25519", *[b"aes128-ctr"] * 2, *[b"hmac-sha2-256"] * 2, *[b"none"] * 2)
    mine = bytes([KEXINIT]) + os.urandom(16) + b"".join(map(string, (*lists, b"", b""))) + bytes(5)
    _send(connection, mine)
    theirs = _receive(connection)
    point = _receive(connection)
    assert point[0] == ECDH_INIT
    ephemeral = X25519PrivateKey.generate()
    blob = string(b"ssh-ed25519") + string(key.public_key().public_bytes_raw())
    secret = ephemeral.exchange(X25519PublicKey.from_public_bytes(point[5:37])).lstrip(b"\0")
    secret = (b"\0" if secret[0] & 128 else b"") + secret
    own_point = ephemeral.public_key().public_bytes_raw()
    parts = (client.strip(), BANNER, theirs, mine, blob, point[5:37], own_point, secret)
    signature = key.sign(hashlib.sha256(b"".join(map(string, parts))).digest())
    reply = string(blob) + string(own_point) + string(string(b"ssh-ed25519") + string(signature))
    _send(connection, bytes([ECDH_REPLY]) + reply)
    with contextlib.suppress(OSError):
        connection.recv(1)


@contextlib.contextmanager
def ssh_server(key: Ed25519PrivateKey, host: str = "127.0.0.1") -> Iterator[int]:
    """A server with that host key; its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:

        def one(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError, EOFError, struct.error, AssertionError):
                connection.settimeout(5)
                _serve(connection, key)

        def accept() -> None:
            threads = []
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threads.append(threading.Thread(target=one, args=(connection,)))
                    threads[-1].start()
            for thread in threads:
                thread.join()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join()
