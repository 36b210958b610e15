"""A running server for tests: in a thread, on a free port, with boto3 clients that know its secrets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import structlog
from botocore.config import Config

from keyassay.server.running import Server
from keyassay.server.settings import DEFAULT_REGION, Address, Settings
from two_accounts import SECRET, A

ENVIRONMENT = {
    "KEYASSAY_ACCOUNT_ID": A.account_id,
    "KEYASSAY_ACCESS_KEY_ID": A.name,
    "KEYASSAY_SECRET_ACCESS_KEY": SECRET,
}


@contextmanager
def running(folder: Path, **more: Any) -> Iterator[Server]:
    """Serve until the block ends."""
    more.setdefault("database", f"sqlite:///{folder}/registry.db")
    settings = Settings(
        key_file=folder / "keyassay.key",
        listen=more.pop("listen", (Address("127.0.0.1", 0),)),
        environment=more.pop("environment", ENVIRONMENT),
        **more,
    )
    log = structlog.wrap_logger(structlog.testing.CapturingLogger())
    server = Server(settings, log, "test")
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()


def client(server: Server, access_key_id: str = A.name, secret: str = SECRET, **more: Any) -> Any:
    """A boto3 client of the server's API, without retries."""
    region = more.pop("region", server.settings.region)
    return client_of(server.addresses[0], access_key_id, secret, region=region, **more)


def client_of(
    address: str, access_key_id: str = A.name, secret: str = SECRET, *, region: str = DEFAULT_REGION, **more: Any
) -> Any:
    """The same for a server at an address."""
    return boto3.client(
        "iot",
        endpoint_url=address,
        region_name=region,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, read_timeout=60),
        **more,
    )
