"""Where messages may go: topics of SNS and webhooks that the operator listed, nothing else.

A message to a webhook is signed after Standard Webhooks and holds a CloudEvents envelope. Redirects are not followed,
proxies not used. A name that leads to a private address is refused; a private address has to be listed itself.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from standardwebhooks import Webhook

from keyassay.errors import KeyassayError
from keyassay.registry import outbound

#: seconds for one attempt, all of it
PATIENCE = 20.0
#: seconds of silence
SILENCE = 10.0
_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:([a-z0-9-]+):[0-9]{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?")
_ACCOUNT = re.compile(r"([0-9]{12})=(.+)")
#: answers of SNS after which trying again is in vain
_FINAL = frozenset({"NotFound", "InvalidParameter", "InvalidParameterValue", "EndpointDisabled"})


class DeliveryError(Exception):
    """A message did not arrive.

    Args:
        message: why, without secrets.
        final: trying again is in vain.
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.final = final


@dataclass(frozen=True, slots=True)
class Message:
    """What goes out.

    Attributes:
        id: the same in all attempts.
        account_id: whose.
        subject: what it is about ("keyassay.audit.finding").
        body: JSON.
        created_at: milliseconds since 1970.
    """

    id: str
    account_id: str
    subject: str
    body: str
    created_at: int


class Destination(Protocol):
    """A place that takes messages."""

    def send(self, message: Message) -> None:
        """Hand a message over.

        Raises:
            DeliveryError: it did not arrive, as far as we know.
        """


class Topic:
    """A topic of SNS, through boto3 with its own configuration: credentials, endpoint, proxies of the environment.

    Args:
        arn: of the topic.
    """

    def __init__(self, arn: str) -> None:
        self._arn = arn
        found = _TOPIC.fullmatch(arn)
        assert found is not None
        self._region = found[1]
        self._ordered = bool(found[2])
        self._client: Any = None

    def send(self, message: Message) -> None:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  see _open

        more: dict[str, Any] = {}
        if self._ordered:
            more = {"MessageGroupId": message.account_id, "MessageDeduplicationId": message.id}
        try:
            if self._client is None:
                self._client = self._open()
            self._client.publish(
                TopicArn=self._arn,
                Message=message.body,
                Subject=message.subject,
                MessageAttributes={"messageId": {"DataType": "String", "StringValue": message.id}},
                **more,
            )
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            raise DeliveryError(f"SNS answered {code}"[:300], final=code in _FINAL) from None
        except BotoCoreError as error:
            self._client = None  # credentials and endpoints are looked up anew
            raise DeliveryError(f"SNS cannot be used: {' '.join(str(error).split())}"[:300]) from None

    def _open(self) -> Any:
        import boto3  # noqa: PLC0415  a fifth of a second that only servers with such a target pay
        from botocore.config import Config  # noqa: PLC0415

        config = Config(connect_timeout=SILENCE, read_timeout=SILENCE, retries={"total_max_attempts": 1})
        return boto3.Session().client("sns", region_name=self._region, config=config)


class Hook:
    """A webhook.

    Args:
        url: https, or http on this machine.
        secret: for signatures, as Standard Webhooks writes it ("whsec_..." or base64).
    """

    def __init__(self, url: str, secret: str) -> None:
        self._parts = urlsplit(url)
        self._secret = secret

    def send(self, message: Message) -> None:
        now = datetime.now(UTC)
        body = envelope(message)
        headers = {
            "content-type": "application/cloudevents+json",
            "user-agent": "keyassay",
            "webhook-id": message.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(self._secret).sign(message.id, now, body),
        }
        try:
            status = _post(self._parts, body.encode(), headers)
        except outbound.PrivateAddressError as error:
            raise DeliveryError(str(error), final=True) from None
        except (OSError, http.client.HTTPException) as error:
            raise DeliveryError(f"no answer: {type(error).__name__}: {error}"[:300]) from None
        if 300 <= status < 400:
            raise DeliveryError(f"the answer was a redirect ({status}), which is not followed", final=True)
        if not 200 <= status < 300:
            raise DeliveryError(f"the answer was {status}", final=status == 410)  # 410: do not send any more


def envelope(message: Message) -> str:
    """A message as a CloudEvent."""
    created = datetime.fromtimestamp(message.created_at / 1000, UTC)
    event = {
        "specversion": "1.0",
        "id": message.id,
        "source": f"/keyassay/{message.account_id}",
        "type": message.subject,
        "time": created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": json.loads(message.body),
    }
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False)


def _post(parts: SplitResult, body: bytes, headers: Mapping[str, str]) -> int:
    """Send a request to an address that is permitted; the status of the answer, whose body nobody wants."""
    with outbound.connected(parts, silence=SILENCE, patience=PATIENCE, here=True) as connection:
        connection.request("POST", outbound.target_of(parts), body, dict(headers))
        return connection.getresponse().status


@dataclass(frozen=True)
class Destinations:
    """What the operator permits.

    Attributes:
        permitted: target -> the accounts that may send there; None for all.
        secrets: of webhooks, by address.
    """

    permitted: Mapping[str, frozenset[str] | None]
    secrets: Mapping[str, str]

    @classmethod
    def read(cls, targets: Sequence[str], secrets: str = "") -> Destinations:
        """What ``--publish-to`` and the file of ``--webhook-secrets`` say.

        Args:
            targets: ARNs of topics and addresses of webhooks, each with ``ACCOUNT=`` before it if it is one account's.
            secrets: lines of an address and its secret; empty lines and those that begin with # say nothing.

        Raises:
            KeyassayError: a target is neither, or a webhook has no usable secret.
        """
        known = _secrets(secrets)
        permitted: dict[str, frozenset[str] | None] = {}
        for one in targets:
            found = _ACCOUNT.fullmatch(one)
            account, target = (frozenset({found[1]}), found[2]) if found else (None, one)
            if not _TOPIC.fullmatch(target):
                _check_url(target)
                if target not in known:
                    raise KeyassayError(
                        f"there is no secret for the webhook {target!r}",
                        "--webhook-secrets names a file with a line for each: its address, a space, whsec_...",
                    )
            before = permitted.get(target, frozenset())
            permitted[target] = None if account is None or before is None else before | account
        return cls(permitted, known)

    def allows(self, target: str, account_id: str) -> bool:
        """Whether an account may send to a target."""
        if target not in self.permitted:
            return False
        accounts = self.permitted[target]
        return accounts is None or account_id in accounts

    def destination(self, target: str) -> Destination:
        """The place behind a target that is permitted."""
        return Topic(target) if _TOPIC.fullmatch(target) else Hook(target, self.secrets[target])


def _secrets(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = line.split()
        try:
            if len(words) != 2:
                raise ValueError  # noqa: TRY301  one message for whatever is wrong
            Webhook(words[1])
        except Exception:  # noqa: BLE001  the library has several, some with the secret in them
            raise KeyassayError(
                f"line {number} of the webhooks' secrets is not an address, a space and a secret"
            ) from None
        found[words[0]] = words[1]
    return found


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    wrong = not host or parts.username is not None or parts.password is not None or parts.fragment
    if wrong or not url.isprintable() or any(one.isspace() for one in url) or parts.scheme not in ("https", "http"):
        raise KeyassayError(f"{url!r} is no target for messages", "ARNs of SNS topics and https://... are targets")
    if parts.scheme == "http" and not _is_here(host):
        raise KeyassayError(f"messages to {url!r} could be read on their way", "https://... is possible")


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
