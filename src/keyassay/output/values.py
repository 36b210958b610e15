"""How numbers, octets and names look in JSON: the contract's rules for single values.

Integers above 2^53 and octets become lower-case hex strings without 0x, since many JSON readers lose digits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from keyassay.certificates.item import Item
from keyassay.certificates.public_key import (
    DsaPublicKey,
    EcPublicKey,
    OkpPublicKey,
    PublicKey,
    RsaPublicKey,
)
from keyassay.findings import Finding

#: the largest integer that IEEE doubles, and so JavaScript, count to without gaps
EXACT = 2**53


def plain(value: Any) -> Any:
    """A value of evidence as JSON types; whatever is no JSON type becomes its text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value) if -EXACT <= value <= EXACT else f"{int(value):x}"
    if isinstance(value, float):
        return value if abs(value) <= EXACT else str(value)  # no number at all where it is NaN
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if hasattr(value, "__index__"):  # numpy's and gmpy2's integers
        return plain(int(value))
    return str(value)


def hex_number(number: int) -> str:
    """An integer in whole octets: 10 is "0a"; negative ones (they occur as serial numbers) with a minus sign."""
    text = f"{abs(number):x}"
    return "-" * (number < 0) + "0" * (len(text) % 2) + text


def curve_bits(key: EcPublicKey) -> int | None:
    """Field size in bits: as the curve's name or its parameters say, None where neither does."""
    if key.parameters is not None:
        return key.parameters.p.bit_length() - (key.parameters.field == "binary")
    if key.curve == "SM2":
        return 256
    found = re.fullmatch(r"[A-Za-z]+-?(\d{3})\D?.*", key.curve)
    return int(found[1]) if found else None


def key_fields(key: PublicKey) -> dict[str, Any]:
    """The ``key`` object of a line."""
    if isinstance(key, RsaPublicKey):
        return {"type": "rsa", "bits": key.bits, "exponent": plain(key.exponent)}
    if isinstance(key, EcPublicKey):
        return {"type": "ec", "bits": curve_bits(key), "curve": key.curve}
    if isinstance(key, DsaPublicKey):
        return {"type": "dsa", "bits": key.bits}
    if isinstance(key, OkpPublicKey):
        return {"type": key.type}
    return {"type": key.type, "algorithm": key.algorithm}


def evidence_fields(finding: Finding, *, reveal: bool) -> dict[str, Any]:
    """The ``evidence`` object: what anyone may see, secrets only if asked for, and that it was verified."""
    secrets = finding.evidence.secrets() if reveal else {}
    return {**plain(finding.evidence.describe()), **plain(secrets), "verified": True}


def error_text(item: Item) -> str | None:
    """Why an item was not read (with the byte where it begins) or not assessed."""
    error = item.error
    if error is None:
        return None if item.assessed else getattr(item.key, "reason", "not assessed")
    return f"{error} (at byte {item.offset})" if item.offset else error
