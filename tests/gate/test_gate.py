"""A gate with real HAProxy, Mosquitto and MQTT clients: who gets in, under which name, and how sessions end."""

from __future__ import annotations

import time
from typing import Any

import pytest

from live_gate import TLS12, TLS13, V5, V311, running_gate

CLIENTS = pytest.mark.parametrize(("version", "protocol"), [(TLS12, V311), (TLS13, V311), (TLS12, V5), (TLS13, V5)])


@CLIENTS
def test_an_active_certificate_gets_in_and_a_revocation_ends_its_session(
    registry: Any, version: Any, protocol: Any
) -> None:
    with running_gate(registry) as gate:
        first, second = gate.device("pump-1"), gate.device("pump-2")
        one = gate.connect(first, protocol=protocol, version=version)
        two = gate.connect(second, protocol=protocol, version=version)
        assert one.accepted.is_set()
        assert two.accepted.is_set()
        begun = time.monotonic()
        gate.revoke(first)
        assert one.ended.wait(10)
        print(time.monotonic() - begun)
        gate.settle()
        again = gate.connect(first, protocol=protocol, version=version)
        assert not again.accepted.is_set()
        assert not two.ended.is_set()
        two.publish("devices/pump-2/t", "x")
