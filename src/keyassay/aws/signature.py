"""Signature Version 4, checked on the raw request: who sent it, that nothing was altered, and that it is recent.

The canonical form is built here, in bytes, from what came over the wire; tests compare it with botocore's signer.
Requests are signed by the header ``Authorization``, or for GET by the query ("presigned", at most 300 s). There are
no session tokens and no chunked (``STREAMING-``) or unsigned payloads; those of S3 are refused.

| code, all with status 403 | when |
| --- | --- |
| MissingAuthenticationTokenException | no signature at all |
| IncompleteSignatureException | a part is missing, malformed or there twice |
| UnrecognizedClientException | unknown or inactive access key; a session token |
| InvalidSignatureException | wrong secret; anything signed was altered; other region or service; ``host`` not \
signed; clock off by more than five minutes, or expired |
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from keyassay.aws.errors import ServiceError

ALGORITHM = b"AWS4-HMAC-SHA256"
SERVICE = "iot"
#: Seconds that the clocks of client and server may differ.
SKEW = 300
#: Seconds that a presigned request may be valid.
LONGEST_EXPIRY = 300

AUTHORIZATION = re.compile(
    rb"AWS4-HMAC-SHA256[ \t]+Credential=([^,\s]+)[ \t]*,[ \t]*SignedHeaders=([^,\s]+)[ \t]*,[ \t]*Signature=([^,\s]+)"
)
CREDENTIAL = re.compile(r"([!-.0-~]{1,128})/(\d{8})/([a-z0-9-]{1,64})/([a-z0-9-]{1,64})/aws4_request", re.ASCII)
HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
DATE = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z", re.ASCII)
#: A path whose canonical form is itself.
PLAIN_PATH = re.compile(rb"(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)+")
#: A part of a query whose canonical form is itself.
PLAIN_QUERY = re.compile(rb"[A-Za-z0-9_.~-]*")
PRESIGNED = (b"X-Amz-Algorithm", b"X-Amz-Credential", b"X-Amz-Date", b"X-Amz-Expires", b"X-Amz-SignedHeaders",
             b"X-Amz-Signature")  # fmt: skip

Pairs = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Secret:
    """What the registry knows of an access key that may be used now.

    Attributes:
        account_id: 12 digits.
        secret_key: the secret access key.
        role: a name of ``operations.ROLES``.
    """

    account_id: str
    secret_key: str = field(repr=False)
    role: str


class Caller(NamedTuple):
    """Who sent a verified request, and those of its headers that the signature covers."""

    account_id: str
    access_key_id: str
    role: str
    signed_headers: Pairs


class _Claim(NamedTuple):
    """What a request says of its own signature."""

    access_key_id: str
    date: str  # of the scope: 20260131
    region: str
    service: str
    moment: str  # 20260131T120000Z
    signed_headers: bytes
    signature: str
    expires: int | None  # seconds; None if not presigned
    query: Pairs  # without the signature, raw


def _incomplete(message: str) -> ServiceError:
    return ServiceError("IncompleteSignatureException", message)


def _invalid(message: str) -> ServiceError:
    return ServiceError("InvalidSignatureException", message)


@lru_cache(maxsize=1024)
def _seconds(moment: str) -> float:
    """Seconds since 1970 of a date like 20260131T120000Z."""
    found = DATE.fullmatch(moment)
    try:
        year, month, day, hour, minute, second = map(int, found.groups() if found else ())
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        raise _incomplete("X-Amz-Date must be a date like 20260131T120000Z") from None


@lru_cache(maxsize=1024)
def _signing_key(secret_key: str, date: str, region: str) -> bytes:
    """The key of one access key, day and region; the secret is part of the cache's key, so none outlives a change."""
    key = b"AWS4" + secret_key.encode()
    for part in (date, region, SERVICE, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def canonical_path(raw_path: bytes) -> bytes:
    """The raw path without dot segments and empty ones, percent-encoded once more (all services but S3)."""
    if PLAIN_PATH.fullmatch(raw_path):
        return raw_path
    kept: list[bytes] = []
    for segment in raw_path.split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    path = b"/" * raw_path.startswith(b"/") + b"/".join(kept)
    if kept and raw_path.endswith(b"/"):
        path += b"/"
    return quote_from_bytes(path or b"/", safe="/~").encode("ascii")


def query_pairs(raw_query: bytes) -> Pairs:
    """Names and values of a raw query, as sent."""
    if not raw_query:
        return []
    return [(name, value) for name, _, value in (pair.partition(b"=") for pair in raw_query.split(b"&"))]


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _recoded(text: bytes) -> bytes:
    return text if PLAIN_QUERY.fullmatch(text) else quote_from_bytes(_decoded(text), safe="-_.~").encode("ascii")


def _joined(pairs: Pairs) -> bytes:
    return b"&".join([b"%b=%b" % pair for pair in sorted(pairs)])


def canonical_queries(pairs: Pairs) -> list[bytes]:
    """The canonical forms of a query: encoded anew as the standard says, and as sent, as many clients do.

    Both say the same to us, since ``protocol.read_query`` decodes in the same way. Mostly they are one.
    """
    if not pairs:
        return [b""]
    anew, sent = _joined([(_recoded(name), _recoded(value)) for name, value in pairs]), _joined(pairs)
    return [anew] if anew == sent else [anew, sent]


class Verifier:
    """Checks signatures for one region.

    Args:
        lookup: gives what is known of an access key, or None if there is none or it is inactive. It is asked at
            each request.
        region: the only one that scopes may name.
        clock: seconds since 1970.
    """

    def __init__(
        self, lookup: Callable[[str], Secret | None], region: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._lookup = lookup
        self._region = region
        self._clock = clock

    def verify(
        self, method: str, raw_path: bytes, raw_query: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> Caller:
        """Who sent this request.

        Args:
            method: in upper case.
            raw_path: as sent.
            raw_query: as sent, without the question mark.
            headers: names in lower case, repeated ones in their order.
            body: whole.

        Raises:
            ServiceError: the codes of the module's table.
        """
        by_name: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            by_name.setdefault(name, []).append(value)
        claim = self._claim(method, query_pairs(raw_query), by_name)
        issued = _seconds(claim.moment)
        if claim.date != claim.moment[:8]:
            raise _invalid("The date of the credential's scope is not that of X-Amz-Date")
        names = claim.signed_headers.split(b";")
        if b"host" not in names:
            raise _invalid("The header host must be signed")
        secret = self._lookup(claim.access_key_id)
        if secret is None:
            raise ServiceError("UnrecognizedClientException", "The access key is not known or not active")
        if claim.service != SERVICE:
            raise _invalid(f"The credential's scope must name the service {SERVICE}")
        if claim.region != self._region:
            raise _invalid(f"The credential's scope must name the region {self._region}")
        self._check_time(claim, issued)
        signed = [(name, value) for name in names for value in by_name.get(name, ())]
        self._check_signature(claim, secret, method, raw_path, names, by_name, body)
        return Caller(secret.account_id, claim.access_key_id, secret.role, signed)

    def _claim(self, method: str, query: Pairs, headers: dict[bytes, list[bytes]]) -> _Claim:
        """What the request says of its signature, in the header or the query."""
        given = headers.get(b"authorization")
        decoded = [(_decoded(name), value) for name, value in query] if query else []
        if b"x-amz-security-token" in headers or any(name == b"X-Amz-Security-Token" for name, _ in decoded):
            raise ServiceError("UnrecognizedClientException", "Session tokens are not issued here")
        if any(name in PRESIGNED for name, _ in decoded):
            if given:
                raise _incomplete("A request is signed by its header or by its query, not by both")
            return self._presigned_claim(method, query, decoded)
        if not given:
            raise ServiceError("MissingAuthenticationTokenException", "The request is not signed")
        found = AUTHORIZATION.fullmatch(given[0].strip())
        if len(given) > 1 or found is None:
            wanted = "Authorization must be: AWS4-HMAC-SHA256 Credential=..., SignedHeaders=..., Signature=..."
            raise _incomplete(wanted)
        dates = headers.get(b"x-amz-date", [])
        if len(dates) != 1:
            raise _incomplete("The header X-Amz-Date must stand once")
        return self._claim_of(found[1], found[2], found[3], dates[0].strip(), None, query)

    def _presigned_claim(self, method: str, query: Pairs, decoded: Pairs) -> _Claim:
        fields: dict[bytes, bytes] = {}
        for name, value in decoded:
            if name in PRESIGNED:
                if name in fields:
                    raise _incomplete(f"{name.decode()} stands twice in the query")
                fields[name] = _decoded(value)
        if missing := [name.decode() for name in PRESIGNED if name not in fields]:
            raise _incomplete(f"{missing[0]} is missing in the query")
        algorithm, credential, moment, expires, signed_headers, signature = (fields[name] for name in PRESIGNED)
        if algorithm != ALGORITHM:
            raise _incomplete("X-Amz-Algorithm must be AWS4-HMAC-SHA256")
        if not re.fullmatch(rb"[0-9]{1,9}", expires):
            raise _incomplete("X-Amz-Expires must be a number of seconds")
        if method != "GET":
            raise _invalid("Only GET may be presigned")
        if not 1 <= int(expires) <= LONGEST_EXPIRY:
            raise _invalid(f"X-Amz-Expires must be from 1 to {LONGEST_EXPIRY}")
        rest = [pair for pair, (name, _) in zip(query, decoded, strict=True) if name != b"X-Amz-Signature"]
        return self._claim_of(credential, signed_headers, signature, moment, int(expires), rest)

    @staticmethod
    def _claim_of(
        credential: bytes, signed_headers: bytes, signature: bytes, moment: bytes, expires: int | None, query: Pairs
    ) -> _Claim:
        scope = CREDENTIAL.fullmatch(credential.decode("latin-1"))
        if scope is None:
            raise _incomplete("Credential must be KEY/YYYYMMDD/REGION/iot/aws4_request")
        digest = signature.decode("latin-1")
        if not HEX_DIGEST.fullmatch(digest):
            raise _incomplete("Signature must be 64 lower-case hexadecimal digits")
        access_key_id, date, region, service = scope.groups()
        date_and_time = moment.decode("latin-1")
        return _Claim(access_key_id, date, region, service, date_and_time, signed_headers, digest, expires, query)

    def _check_time(self, claim: _Claim, issued: float) -> None:
        now = self._clock()
        if issued > now + SKEW:
            raise _invalid(f"Signature not yet current: the clocks differ by more than {SKEW} seconds")
        if now > issued + (SKEW if claim.expires is None else claim.expires):
            raise _invalid("Signature expired")

    def _check_signature(
        self,
        claim: _Claim,
        secret: Secret,
        method: str,
        raw_path: bytes,
        names: list[bytes],
        headers: dict[bytes, list[bytes]],
        body: bytes,
    ) -> None:
        digest = sha256(body).hexdigest().encode("ascii")
        if any(value.strip() != digest for value in headers.get(b"x-amz-content-sha256", ())):
            raise _invalid("X-Amz-Content-SHA256 must be the SHA-256 of the body; other payloads are not supported")
        lines = []
        for name in names:
            if name not in headers:
                raise _invalid("A signed header is missing")
            values = headers[name]
            value = b" ".join(values[0].split()) if len(values) == 1 else b",".join(
                [b" ".join(one.split()) for one in values]
            )  # fmt: skip
            lines.append(b"%b:%b\n" % (name, value))
        start = b"%b\n%b\n" % (method.encode("latin-1"), canonical_path(raw_path))
        end = b"\n%b\n%b\n%b" % (b"".join(lines), claim.signed_headers, digest)
        scope = f"AWS4-HMAC-SHA256\n{claim.moment}\n{claim.date}/{claim.region}/{claim.service}/aws4_request\n"
        key = _signing_key(secret.secret_key, claim.date, claim.region)
        for query in canonical_queries(claim.query):
            canonical = sha256(start + query + end).hexdigest()
            expected = hmac.digest(key, (scope + canonical).encode("ascii"), "sha256").hex()
            if hmac.compare_digest(expected, claim.signature):
                return
        raise _invalid("The signature does not match: check the secret access key and how the request was signed")
