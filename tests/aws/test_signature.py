"""Signatures: whatever botocore signs holds, whatever is altered does not."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from unittest import mock

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keyassay.aws import signature
from keyassay.aws.errors import STATUS, ServiceError
from keyassay.aws.signature import Caller, Secret, Verifier, canonical_path

NOW = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
KEY, SECRET, REGION, HOST = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "eu-central-1", "iot.test:8443"
SECRETS = {KEY: Secret("123456789012", SECRET, "operator")}


@dataclass(frozen=True)
class Sent:
    """A request as it comes over the wire."""

    method: str
    path: bytes
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def verify(self, *, later: float = 0, secrets: dict[str, Secret] = SECRETS, region: str = REGION) -> Caller:
        verifier = Verifier(secrets.get, region, clock=lambda: NOW.timestamp() + later)
        return verifier.verify(self.method, self.path, self.query, self.headers, self.body)

    def header(self, name: bytes, change: Callable[[bytes], bytes | None]) -> Sent:
        """The same with one header changed, or dropped where the change is None."""
        assert any(given == name for given, _ in self.headers)
        changed = [(given, change(value) if given == name else value) for given, value in self.headers]
        return replace(self, headers=tuple((given, value) for given, value in changed if value is not None))


@contextmanager
def clock() -> Iterator[None]:
    with mock.patch.object(auth, "get_current_datetime", lambda: NOW.replace(tzinfo=None)):
        yield


def sent_by_botocore(
    method: str = "POST",
    path: str = "/policies/a%2Fb",
    query: str = "",
    headers: dict[str, str] | None = None,
    body: bytes = b'{"a": 1}',
    *,
    presigned: int = 0,
    credentials: Credentials | None = None,
    service: str = "iot",
    region: str = REGION,
) -> Sent:
    url = f"http://{HOST}{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method, url, headers=headers or {}, data=body)
    known = credentials or Credentials(KEY, SECRET)
    signer = (
        auth.SigV4QueryAuth(known, service, region, presigned) if presigned else auth.SigV4Auth(known, service, region)
    )
    with clock():
        signer.add_auth(request)
    _, _, rest = request.url.partition(HOST)
    raw_path, _, raw_query = rest.partition("?")
    wire = [(name.lower().encode(), value.encode()) for name, value in request.headers.items()]
    return Sent(method, raw_path.encode(), raw_query.encode(), (*wire, (b"host", HOST.encode())), body)


def refused(sent: Sent, code: str, **how: object) -> str:
    with pytest.raises(ServiceError) as caught:
        sent.verify(**how)  # type: ignore[arg-type]
    assert caught.value.code == code, caught.value.message
    assert STATUS[code] == 403
    assert SECRET not in caught.value.message
    return caught.value.message


INVALID, INCOMPLETE = "InvalidSignatureException", "IncompleteSignatureException"

# What may stand in a raw path and query as clients send them: escapes in either case, what should be escaped, what not.
SEGMENTS = st.text("aZ0-_.~:@!$&'()*+,;=", max_size=6) | st.sampled_from(
    ["%2F", "%2f", "%20", "%C3%A9", "%25", "%7E", "..", ".", "", "a%2Bb", "%zz"]
)
PATHS = st.lists(SEGMENTS, max_size=5).map(lambda segments: "/" + "/".join(segments))
PART = st.text("aZ0-_.~:@!$'()*+,;/?", max_size=5) | st.sampled_from(
    ["%2F", "%20", "%2B", "%3D", "%26", "%C3%A9", "%7e", "%41", "", "X-Amz"]
)
PAIR = st.tuples(PART, PART).map("=".join) | PART
QUERIES = st.lists(PAIR, max_size=5).map("&".join)
VALUES = st.text("aZ0 ,;=/:@+~\t", min_size=1, max_size=12)
HEADERS = st.dictionaries(
    st.sampled_from(["x-amzn-principal", "Content-Type", "X-Custom", "x-amz-meta"]), VALUES, max_size=4
)


@settings(deadline=None)
@given(st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"]), PATHS, QUERIES, HEADERS, st.binary(max_size=20))
def test_what_botocore_signs_holds(method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> None:
    assume(not path.startswith("//"))
    sent = sent_by_botocore(method, path, query, headers, body)
    caller = sent.verify()
    assert (caller.account_id, caller.access_key_id, caller.role) == ("123456789012", KEY, "operator")
    assert {name for name, _ in caller.signed_headers} == {
        b"host",
        b"x-amz-date",
        *(name.lower().encode() for name in headers),
    }


@settings(deadline=None)
@given(
    PATHS,
    st.dictionaries(st.text("aZ0-_.~+ &=é/", min_size=1, max_size=5), st.text(max_size=5), max_size=3),
    st.integers(1, 300),
)
def test_what_botocore_presigns_holds_until_it_expires(path: str, params: dict[str, str], expires: int) -> None:
    from urllib.parse import urlencode

    assume(not path.startswith("//"))
    assume(not any("\ud800" <= letter <= "\udfff" for value in params.values() for letter in value))
    sent = sent_by_botocore("GET", path, urlencode(params), body=b"", presigned=expires)
    assert b"X-Amz-Signature" in sent.query
    assert sent.verify().access_key_id == KEY
    assert sent.verify(later=expires).access_key_id == KEY
    assert "expired" in refused(sent, INVALID, later=expires + 1)


@settings(deadline=None)
@given(PATHS)
def test_the_canonical_path_is_botocore_s(path: str) -> None:
    signer = auth.SigV4Auth(Credentials(KEY, SECRET), "iot", REGION)
    assert canonical_path(path.encode()).decode() == signer._normalize_url_path(path)


@settings(deadline=None)
@given(st.data())
def test_a_byte_that_differs_anywhere_breaks_it(data: st.DataObject) -> None:
    """Any change of what is signed: method, path, query, header, body, the claim itself."""
    sent = sent_by_botocore("POST", "/policies/a%2Fb", "a=1&b=%20", {"x-amzn-principal": "arn:aws:iot"}, b'{"a": 1}')
    place = data.draw(
        st.sampled_from(["path", "query", "body", "x-amzn-principal", "host", "x-amz-date", "authorization"])
    )
    whole = getattr(sent, place) if place in ("path", "query", "body") else dict(sent.headers)[place.encode()]
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(33, 126).filter(lambda byte: byte != whole[at]))
    changed = whole[:at] + bytes([other]) + whole[at + 1 :]
    assume(place != "path" or changed.startswith(b"/"))
    altered = (
        replace(sent, **{place: changed})
        if place in ("path", "query", "body")
        else sent.header(place.encode(), lambda _: changed)
    )
    try:
        caller = altered.verify()
    except ServiceError as error:
        assert STATUS[error.code] == 403
    else:
        # A separator of the claim may be another one, and `%20` another way to say the same.
        assert place in ("authorization", "query"), (place, changed)
        assert caller.access_key_id == KEY
        assert place != "query" or signature._decoded(changed) == signature._decoded(whole)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PUT"},
        {"path": b"/policies/a%2fb"},
        {"path": b"/policies/a/b"},
        {"path": b"/policies/c"},
        {"query": b""},
        {"query": b"a=1&b=2"},
        {"query": b"a=1&a=2&b=%20"},
        {"query": b"b=%20"},
        {"body": b""},
        {"body": b'{"a": 2}'},
    ],
)
def test_altered_requests(change: dict[str, object]) -> None:
    sent = sent_by_botocore(query="a=1&b=%20")
    assert sent.verify()
    assert "does not match" in refused(replace(sent, **change), INVALID)  # type: ignore[arg-type]


def test_an_altered_date_or_signature() -> None:
    sent = sent_by_botocore()
    refused(sent.header(b"x-amz-date", lambda _: b"20260203T040507Z"), INVALID)
    refused(sent.header(b"x-amz-date", lambda _: b"20260204T040506Z"), INVALID)
    refused(sent.header(b"authorization", lambda value: value[:-4] + b"0000"), INVALID)


@pytest.mark.parametrize("skew", [-300, 300])
def test_clocks_may_differ_by_five_minutes_and_no_more(skew: int) -> None:
    sent = sent_by_botocore()
    assert sent.verify(later=skew)
    refused(sent, INVALID, later=skew * 1.01)


def test_who_is_not_known() -> None:
    sent = sent_by_botocore()
    refused(sent, "UnrecognizedClientException", secrets={})
    refused(sent, INVALID, secrets={KEY: Secret("1", SECRET[:-1], "operator")})


def test_a_changed_secret_is_seen_at_once() -> None:
    secrets = dict(SECRETS)
    sent = sent_by_botocore()
    assert sent.verify(secrets=secrets)
    secrets[KEY] = Secret("1", "another", "operator")
    refused(sent, INVALID, secrets=secrets)


def test_other_regions_and_services() -> None:
    assert REGION in refused(sent_by_botocore(region="us-east-1"), INVALID)
    assert "iot" in refused(sent_by_botocore(service="s3"), INVALID)


def test_session_tokens_are_refused() -> None:
    token = Credentials(KEY, SECRET, "token")
    refused(sent_by_botocore(credentials=token), "UnrecognizedClientException")
    presigned = sent_by_botocore("GET", body=b"", credentials=token, presigned=60)
    assert b"X-Amz-Security-Token" in presigned.query
    refused(presigned, "UnrecognizedClientException")


def test_requests_without_signature() -> None:
    sent = sent_by_botocore()
    refused(sent.header(b"authorization", lambda _: None), "MissingAuthenticationTokenException")
    refused(sent.header(b"authorization", lambda _: b""), INCOMPLETE)


@pytest.mark.parametrize(
    "text",
    [
        b"Basic dXNlcjpwYXNz",
        b"AWS4-HMAC-SHA256",
        b"AWS4-HMAC-SHA256 Credential=a/20260203/r/iot/aws4_request, SignedHeaders=host",
        b"AWS4-HMAC-SHA256 Credential=a/20260203/r/iot, SignedHeaders=host, Signature=" + b"0" * 64,
        b"AWS4-HMAC-SHA256 Credential=a/2026-2-3/r/iot/aws4_request, SignedHeaders=host, Signature=" + b"0" * 64,
        b"AWS4-HMAC-SHA256 Credential=/20260203/r/iot/aws4_request, SignedHeaders=host, Signature=" + b"0" * 64,
        b"AWS4-HMAC-SHA256 Credential=a/20260203/r/iot/aws4_request, SignedHeaders=host, Signature=" + b"g" * 64,
        b"AWS4-HMAC-SHA256 Credential=a/20260203/r/iot/aws4_request, SignedHeaders=host, Signature=" + b"A" * 64,
        b"AWS4-HMAC-SHA256 Credential=a/20260203/r/iot/aws4_request, SignedHeaders=host, Signature=00",
        b"AWS4-HMAC-SHA256 Credential=\xff/20260203/r/iot/aws4_request, SignedHeaders=host, Signature=" + b"0" * 64,
        b"AWS4-ECDSA-P256-SHA256 Credential=a/20260203/iot/aws4_request, SignedHeaders=host, Signature=" + b"0" * 64,
    ],
)
def test_malformed_claims(text: bytes) -> None:
    refused(sent_by_botocore().header(b"authorization", lambda _: text), INCOMPLETE)


@pytest.mark.parametrize(
    "date",
    [
        None,
        b"",
        b"2026-02-03T04:05:06Z",
        b"20260203T040506",
        b"20261303T040506Z",
        b"20260203T046006Z",
        "２0260203T040506Z".encode(),
    ],
)
def test_dates_that_are_missing_or_malformed(date: bytes | None) -> None:
    refused(sent_by_botocore().header(b"x-amz-date", lambda _: date), INCOMPLETE)


def test_parts_that_stand_twice() -> None:
    sent = sent_by_botocore()
    for name in (b"authorization", b"x-amz-date"):
        refused(replace(sent, headers=(*sent.headers, (name, dict(sent.headers)[name]))), INCOMPLETE)
    presigned = sent_by_botocore("GET", body=b"", presigned=60)
    refused(replace(presigned, query=presigned.query + b"&X-Amz-Expires=60"), INCOMPLETE)
    refused(replace(presigned, query=presigned.query + b"&X%2DAmz-Signature=00"), INCOMPLETE)
    both = (*presigned.headers, (b"authorization", dict(sent.headers)[b"authorization"]))
    refused(replace(presigned, headers=both), INCOMPLETE)


def test_host_must_be_signed() -> None:
    def without_host(value: bytes) -> bytes:
        return value.replace(b"SignedHeaders=host;", b"SignedHeaders=")

    assert "host" in refused(sent_by_botocore().header(b"authorization", without_host), INVALID)


def test_a_signed_header_that_is_missing_or_repeated() -> None:
    sent = sent_by_botocore(headers={"x-amzn-principal": "arn"})
    assert (b"x-amzn-principal", b"arn") in sent.verify().signed_headers
    refused(sent.header(b"x-amzn-principal", lambda _: None), INVALID)
    refused(replace(sent, headers=(*sent.headers, (b"x-amzn-principal", b"other"))), INVALID)


def test_headers_that_are_not_signed_are_harmless_and_prove_nothing() -> None:
    sent = sent_by_botocore()
    caller = replace(sent, headers=(*sent.headers, (b"x-amzn-principal", b"arn"), (b"x-forwarded-for", b"a"))).verify()
    assert {name for name, _ in caller.signed_headers} == {b"host", b"x-amz-date"}


def test_the_digest_of_the_body_if_it_is_sent() -> None:
    body = b'{"a": 1}'
    good = sha256(body).hexdigest()
    assert sent_by_botocore(headers={"X-Amz-Content-SHA256": good}, body=body).verify()
    for wrong in (sha256(b"").hexdigest(), "UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", good.upper()):
        refused(sent_by_botocore(headers={"X-Amz-Content-SHA256": wrong}, body=body), INVALID)


def test_presigned_requests_are_get_and_short() -> None:
    assert sent_by_botocore("GET", body=b"", presigned=300).verify()
    assert "300" in refused(sent_by_botocore("GET", body=b"", presigned=301), INVALID)
    assert "300" in refused(sent_by_botocore("GET", body=b"", presigned=3600), INVALID)
    assert "GET" in refused(sent_by_botocore("DELETE", body=b"", presigned=60), INVALID)


@pytest.mark.parametrize("text", [b"0", b"-1", b"", b"1e2", b"9999999999", "６0".encode()])
def test_expiries_that_are_none(text: bytes) -> None:
    sent = sent_by_botocore("GET", body=b"", presigned=60)
    changed = replace(sent, query=sent.query.replace(b"X-Amz-Expires=60", b"X-Amz-Expires=" + text))
    assert changed != sent
    refused(changed, INVALID if text == b"0" else INCOMPLETE)


def test_presigned_requests_that_were_altered() -> None:
    sent = sent_by_botocore("GET", "/certificates", "pageSize=5", body=b"", presigned=60)
    assert sent.verify()
    for change in (
        {"query": sent.query.replace(b"pageSize=5", b"pageSize=6")},
        {"query": sent.query + b"&marker=a"},
        {"query": sent.query.replace(b"X-Amz-Expires=60", b"X-Amz-Expires=61")},
        {"path": b"/cacertificates"},
        {"body": b"{}"},
    ):
        refused(replace(sent, **change), INVALID)  # type: ignore[arg-type]
    for name in signature.PRESIGNED:
        missing = b"&".join(pair for pair in sent.query.split(b"&") if not pair.startswith(name + b"="))
        refused(replace(sent, query=missing), INCOMPLETE)
    refused(sent, INVALID, later=-301)


def test_plus_and_escaped_plus_are_not_the_same() -> None:
    """A client that signs `%2B` must not see it read as the space that a bare `+` is."""
    sent = sent_by_botocore("GET", "/things", "attributeValue=a%2Bb", body=b"")
    assert sent.verify()
    refused(replace(sent, query=b"attributeValue=a+b"), INVALID)
    bare = sent_by_botocore("GET", "/things", "attributeValue=a+b", body=b"")
    assert bare.verify()
    refused(replace(bare, query=b"attributeValue=a%2Bb"), INVALID)


def test_secrets_do_not_show() -> None:
    assert SECRET not in repr(SECRETS[KEY])
