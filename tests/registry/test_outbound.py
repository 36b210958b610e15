"""Addresses that somebody else chose: what is public, and what a name may lead to."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from keyassay.registry.outbound import PrivateAddressError, is_public, permitted_address


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_names_that_lead_to_private_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        if not found:
            raise socket.gaierror(-2, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(OSError, match="unknown"):
        permitted_address("hooks.example", 443)
    found += ["169.254.169.254", "10.0.0.1"]
    with pytest.raises(PrivateAddressError, match="private"):
        permitted_address("hooks.example", 443)
    found.append("93.184.216.34")
    assert permitted_address("hooks.example", 443) == "93.184.216.34"
    assert permitted_address("10.0.0.1", 443) == "10.0.0.1"  # listed itself
    assert permitted_address("::1", 443) == "::1"
