"""Claims over HTTPS: for devices that the broker lets in no more, since their old certificate is not ACTIVE.

Nothing signs such a request but its proof, so that strangers are the normal case: their rate is limited first, by where
they come from and by the thing that they name, and they learn nothing: one refusal for all that does not hold.
"""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from keyassay.registry.registry import Registry
from keyassay.replacement import issuing, proofs
from keyassay.replacement.delivery import NothingToDoError, PendingError, ThrottledError, take_request
from keyassay.replacement.limiting import Buckets
from keyassay.replacement.proofs import SESSIONLESS, UnprovenError
from keyassay.storage.database import Actor, Database

#: claims at once and a second: from one address (of IPv6 a /64), for one thing
_OF_A_SOURCE = (20, 0.2)
_OF_A_THING = (60, 0.5)
_ACCOUNT = re.compile(r"[0-9]{12}")
_THING = re.compile(r"[a-zA-Z0-9:_-]{1,128}")


class _Limits:
    """Of one server's database."""

    def __init__(self) -> None:
        self.sources = Buckets(*_OF_A_SOURCE)
        self.things = Buckets(*_OF_A_THING)


_limits: WeakKeyDictionary[Database, _Limits] = WeakKeyDictionary()
_limits_lock = threading.Lock()


def claim(registry: Registry, source: str, document: Mapping[str, Any], request_id: str = "") -> dict[str, Any]:
    """Take a claim.

    Args:
        registry: where.
        source: address that it came from. Claims from loopback come through a proxy, which has to limit its sources.
        document: accountId, replacementId, thingName, certificateSigningRequest, proof.
        request_id: of the API's request.

    Returns:
        {"certificateId", "certificatePem", "caPem"}

    Raises:
        ThrottledError: too many claims.
        InvalidError: the request for a certificate is none.
        UnprovenError: it is refused; strangers hear nothing else.
        KeyRefusedError, NotNowError, UnitStateError: the proof holds, but no certificate can be had.
        PendingError: the proof holds, and the certificate takes a while.
    """
    with _limits_lock:
        limits = _limits.setdefault(registry.database, _Limits())
    account, thing = str(document.get("accountId")), str(document.get("thingName"))
    place = _place(source)
    if place is not None and not limits.sources.take(place):
        raise ThrottledError("too many claims: wait a little")
    if not limits.things.take((account, thing)):
        raise ThrottledError("too many claims: wait a little")
    if not _ACCOUNT.fullmatch(account) or not _THING.fullmatch(thing):
        raise UnprovenError
    actor = Actor(account, "claim", source, request_id)
    way = {"via": "https", "source": source}
    try:
        return take_request(registry, actor, thing, document, way, SESSIONLESS)
    except ThrottledError:  # only of things that exist: it would tell which these are
        raise UnprovenError from None
    except NothingToDoError:
        proof = document.get("proof")
        request = issuing.read_request(document.get("certificateSigningRequest"))
        proofs.verify_nothing(request.der, proof if isinstance(proof, dict) else {})
        raise UnprovenError from None  # not reached
    except PendingError as error:
        if error.reason == "approval":  # whoever asks has proved nothing yet
            raise UnprovenError from None
        raise


def _place(source: str) -> str | None:
    """Whom a claim counts for; None if that cannot be told: it came through a proxy on this machine."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return None if address.is_loopback else str(ipaddress.ip_network((address, 64), strict=False))
        address = address.ipv4_mapped
    return None if address.is_loopback else str(address)
