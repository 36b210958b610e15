"""The rate of an account: a burst, then the steady rate, and nobody else's business."""

from __future__ import annotations

from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from keyassay.aws.errors import ServiceError
from keyassay.aws.operations import Request
from keyassay.server.limiting import RateLimit
from live_server import client, running


def asks(limit: RateLimit, account: str = "a") -> bool:
    try:
        limit(Request(account, "", "", "", "", "", "", None))
    except ServiceError as error:
        assert error.code == "ThrottlingException"
        return False
    return True


@given(st.lists(st.floats(0, 3), max_size=60), st.integers(1, 9), st.integers(1, 20))
def test_never_more_than_the_burst_and_the_rate(pauses: list[float], rate: int, burst: int) -> None:
    now = [100.0]
    limit = RateLimit(rate, burst, lambda: now[0])
    granted = 0
    for pause in pauses:
        now[0] += pause
        granted += asks(limit)
        assert granted <= burst + (now[0] - 100.0) * rate + 1e-6
    now[0] += burst / rate + 1
    assert all(asks(limit) for _ in range(burst))  # after a rest the whole burst is there
    assert not asks(limit)


def test_accounts_do_not_share() -> None:
    limit = RateLimit(1, 1, lambda: 0.0)
    assert asks(limit, "a")
    assert not asks(limit, "a")
    assert asks(limit, "b")


def test_a_client_is_told(tmp_path: Path) -> None:
    with running(tmp_path, rate_limit=0.001) as server:
        api = client(server)
        api.list_certificates()
        with pytest.raises(ClientError) as raised:
            api.list_certificates()
    assert raised.value.response["Error"]["Code"] == "ThrottlingException"
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
