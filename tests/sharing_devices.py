"""Devices whose RSA keys are made of chosen primes, so that some share one."""

from __future__ import annotations

from functools import cache

import gmpy2

import fleet_keys
import weak_devices


@cache
def prime(number: int) -> int:
    """A prime of 1024 bits; the same one for the same number."""
    return int(gmpy2.next_prime((3 << 1022) + gmpy2.mpz_random(gmpy2.random_state(number), 1 << 1000)))


@cache
def sharing(first: int, second: int, serial: int = 1) -> fleet_keys.Signed:
    """A certificate of the key of two of these primes."""
    key = weak_devices.rsa_of(prime(first), prime(second))
    return fleet_keys.device(f"device {first} {second} {serial}", key=key, serial=serial)
