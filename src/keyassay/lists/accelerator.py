"""Two modular exponentiations at once by libcrypto, where it is there and fast; the same answers either way.

``BN_mod_exp_mont_consttime_x2`` (OpenSSL 3.0 for 1024 bits, 3.1 for 1536 and 2048) works on two moduli in the lanes of
AVX512-IFMA, about three times as fast as one after the other. Found at run time, tested before use, never needed.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gmpy2

#: moduli sizes in bits for which the function has its fast path
SIZES = (1024, 1536, 2048)

PairTest = Callable[[int, int], tuple[bool, bool]]


def _candidates() -> list[str]:
    """Libcrypto as psycopg's wheel carries it (newer), then the system's."""
    found: list[str] = []
    for package in ("psycopg_binary", "psycopg2"):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent.parent / f"{package}.libs"
            found.extend(str(path) for path in sorted(folder.glob("libcrypto*")))
    system = ctypes.util.find_library("crypto")
    if system:
        found.append(system)
    return found


def _load(name: str, bits: int) -> PairTest | None:
    try:
        library = ctypes.CDLL(name)
        power = library.BN_mod_exp_mont_consttime_x2
        version = library.OpenSSL_version_num
    except (OSError, AttributeError):
        return None
    version.restype = ctypes.c_ulong
    if bits > 1024 and version() < 0x30100000:
        return None
    signatures: tuple[tuple[Any, Any, list[Any]], ...] = (
        (library.BN_new, ctypes.c_void_p, []),
        (library.BN_CTX_new, ctypes.c_void_p, []),
        (library.BN_bin2bn, ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p]),
        (library.BN_is_one, ctypes.c_int, [ctypes.c_void_p]),
        (power, ctypes.c_int, [ctypes.c_void_p] * 11),
    )
    for function, result, arguments in signatures:
        function.restype = result
        function.argtypes = arguments
    size = bits // 8
    context = library.BN_CTX_new()
    r1, a1, e1, m1, r2, a2, e2, m2 = (library.BN_new() for _ in range(8))
    to_number, is_one = library.BN_bin2bn, library.BN_is_one

    def test(p: int, q: int) -> tuple[bool, bool]:
        # Bases of full length keep the fast path: p - 2 is -2, and (-2)^(p-1) = 2^(p-1) since p - 1 is even.
        to_number((p - 2).to_bytes(size, "big"), size, a1)
        to_number((p - 1).to_bytes(size, "big"), size, e1)
        to_number(p.to_bytes(size, "big"), size, m1)
        to_number((q - 2).to_bytes(size, "big"), size, a2)
        to_number((q - 1).to_bytes(size, "big"), size, e2)
        to_number(q.to_bytes(size, "big"), size, m2)
        if power(r1, a1, e1, m1, None, r2, a2, e2, m2, None, context) != 1:
            return plain(p, q)
        return bool(is_one(r1)), bool(is_one(r2))

    # Primes pass and composites fail, in both lanes, or this library is not used.
    prime = int(gmpy2.next_prime(3 << (bits - 2)))
    other = int(gmpy2.next_prime(prime + 2**64))
    if test(prime, prime + 2) != (True, False) or test(other - 2, other) != plain(other - 2, other):
        return None
    return test


def plain(p: int, q: int) -> tuple[bool, bool]:
    """Whether 2^(n-1) = 1 modulo n, for two odd numbers n."""
    return gmpy2.powmod(2, p - 1, p) == 1, gmpy2.powmod(2, q - 1, q) == 1


@cache
def pair_test(bits: int) -> PairTest:
    """The fastest way to ask of two numbers of ``bits`` bits whether 2^(n-1) = 1 modulo n."""
    if bits in SIZES:
        for name in _candidates():
            test = _load(name, bits)
            if test is not None:
                return test
    return plain


def is_accelerated(bits: int) -> bool:
    """Whether libcrypto does the work for numbers of this size."""
    return pair_test(bits) is not plain
