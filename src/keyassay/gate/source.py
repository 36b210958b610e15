"""Where a gate's agent gets what it has to know, and where it tells what it saw: the database, or the signed API.

Both sources answer with the same dicts, and raise ``SourceError`` for everything that went wrong on the way.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from sqlalchemy.exc import SQLAlchemyError

from keyassay.errors import KeyassayError
from keyassay.registry import connections, device_messages, gate_feed, gates
from keyassay.registry.errors import RegistryError
from keyassay.registry.registry import Registry
from keyassay.replacement import delivery
from keyassay.storage.database import Actor, BusyError

#: seconds: to connect, and for an answer beyond what it may wait
TIMEOUT = 15
#: seconds between requests where the server answers before the time that was asked for
PAUSE = 0.2


class SourceError(KeyassayError):
    """The registry could not be asked, or refused; the gate goes on with what it knows.

    Attributes:
        refused: whether it answered and said no: asking again in the same way is of no use.
    """

    def __init__(self, message: str, hint: str = "", *, refused: bool = False) -> None:
        super().__init__(message, hint)
        self.refused = refused


class Source(Protocol):
    """What the agent of a gate needs of the registry, for one account."""

    def changes(self, after: int, epoch: str, wait: float) -> dict[str, Any]:
        """What changed after a revision; see ``registry.gate_feed.changes``."""

    def snapshot(self, kind: str, token: str | None = None) -> dict[str, Any]:
        """A page of all "entries" or "things"; see ``registry.gate_feed.snapshot``."""

    def authorities(self) -> dict[str, Any]:
        """``{"pem": [...]}``: authorities whose devices register when they first connect."""

    def report(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """What the gate says of itself, "gate" among it."""

    def events(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """What the gate saw; the answer names the certificates that were registered."""

    def messages(self, after: int, epoch: str) -> dict[str, Any]:
        """What is to be published at the gate's broker, after a number within an epoch; all if the epoch changed."""

    def deliver(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What devices published for the registry; the answer is to be published."""


class _Continuing:
    """Remembers where an incomplete answer ended, so that whoever follows needs only revisions."""

    def __init__(self) -> None:
        self._position: tuple[int, str, str] | None = None

    def position(self, after: int, epoch: str) -> str:
        """The position to ask from, or ""."""
        kept = self._position
        return kept[2] if kept is not None and kept[:2] == (after, epoch) else ""

    def keep(self, after: int, epoch: str, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer without its position, which is kept."""
        position = answer.pop("position", "")
        self._position = (after, epoch, position) if position else None
        return answer

    def forget(self) -> None:
        """After an error the pieces begin anew."""
        self._position = None


class DatabaseSource:
    """The registry's database itself: for a gate on the machine of the registry.

    Args:
        registry: where.
        account_id: whose gate this is.
        name: of whoever acts, in the record of changes.
    """

    def __init__(self, registry: Registry, account_id: str, name: str = "gate") -> None:
        self._registry = registry
        self._actor = Actor(account_id, name)
        self._pieces = _Continuing()

    def changes(self, after: int, epoch: str, wait: float) -> dict[str, Any]:
        """See ``Source``."""
        position = self._pieces.position(after, epoch)
        self._pieces.forget()
        answer = self._ask(
            gate_feed.changes, after=after, epoch=epoch, wait=0.0 if position else wait, position=position
        )
        return self._pieces.keep(after, epoch, answer)

    def snapshot(self, kind: str, token: str | None = None) -> dict[str, Any]:
        """See ``Source``."""
        return self._ask(gate_feed.snapshot, kind, token)

    def authorities(self) -> dict[str, Any]:
        """See ``Source``."""
        return self._ask(gate_feed.authorities)

    def report(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """See ``Source``."""
        self._ask(gates.report, gates.read_report(body))
        return {}

    def events(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """See ``Source``."""
        return self._ask(connections.record_events, body)

    def messages(self, after: int, epoch: str) -> dict[str, Any]:
        """See ``Source``."""
        return self._ask(device_messages.pending, after, epoch)

    def deliver(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """See ``Source``."""
        return self._ask(delivery.deliver, messages)

    def _ask(self, function: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = function(self._registry, self._actor, *args, **kwargs)
        except RegistryError as error:
            raise SourceError(error.message, refused=True) from error
        except (SQLAlchemyError, BusyError, KeyassayError, OSError) as error:
            raise SourceError(f"the registry's database cannot be asked: {type(error).__name__}") from error
        return answer


class ApiSource:
    """The registry's API, with signed requests.

    Args:
        endpoint: "https://registry.example:8443".
        credentials: of botocore (``session.get_credentials()``), of an access key with the role gate.
        region: the registry's.
        bundle: file with the certificates that the registry's certificate is checked with; None for the system's.
    """

    def __init__(
        self, endpoint: str, credentials: Any, region: str = "us-east-1", *, bundle: str | None = None
    ) -> None:
        from botocore.httpsession import URLLib3Session  # noqa: PLC0415  half a second
        from botocore.utils import get_environ_proxies  # noqa: PLC0415

        self._endpoint = endpoint.rstrip("/")
        self._credentials = credentials
        self._region = region
        self._pieces = _Continuing()
        proxies = get_environ_proxies(self._endpoint)
        self._web = URLLib3Session(verify=bundle or True, proxies=proxies, timeout=TIMEOUT)

    def changes(self, after: int, epoch: str, wait: float) -> dict[str, Any]:
        """See ``Source``; the server waits some seconds at most, so that this asks until the time is over."""
        position = self._pieces.position(after, epoch)
        self._pieces.forget()
        deadline = time.monotonic() + (0 if position else wait)
        while True:
            asked_at = time.monotonic()
            asked = {"after": after, "epoch": epoch, "wait": min(60, math.ceil(max(0.0, deadline - asked_at)))}
            answer = self._get("/gate/changes", **asked, **({"position": position} if position else {}))
            if _says_something(answer) or time.monotonic() + PAUSE >= deadline:
                return self._pieces.keep(after, epoch, answer)
            after = answer["revision"]
            time.sleep(max(0.0, asked_at + PAUSE - time.monotonic()))

    def snapshot(self, kind: str, token: str | None = None) -> dict[str, Any]:
        """See ``Source``."""
        return self._get(f"/gate/{kind}", **({"nextToken": token} if token else {}))

    def authorities(self) -> dict[str, Any]:
        """See ``Source``."""
        return self._get("/gate/authorities")

    def report(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """See ``Source``."""
        rest = {name: value for name, value in body.items() if name != "gate"}
        return self._send("PUT", f"/gates/{quote(str(body['gate']), safe='')}", rest)

    def events(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """See ``Source``."""
        return self._send("POST", "/gate/events", body)

    def messages(self, after: int, epoch: str) -> dict[str, Any]:
        """See ``Source``."""
        return self._get("/gate/messages", after=after, epoch=epoch)

    def deliver(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """See ``Source``."""
        return self._send("POST", "/gate/deliveries", {"messages": list(messages)})

    def _get(self, path: str, **query: Any) -> dict[str, Any]:
        return self._send("GET", f"{path}?{urlencode(query)}" if query else path, None)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        from botocore.auth import SigV4Auth  # noqa: PLC0415  as above
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        url = f"{self._endpoint}/keyassay/v1{path}"
        data = b"" if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        request = AWSRequest(method, url, headers, data)
        try:
            SigV4Auth(self._credentials.get_frozen_credentials(), "iot", self._region).add_auth(request)
            response = self._web.send(request.prepare())
            content = response.content
        except (BotoCoreError, OSError) as error:
            raise SourceError(f"the registry at {self._endpoint} cannot be asked: {type(error).__name__}") from error
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if response.status_code >= 400 or not isinstance(answer, dict):
            code = response.headers.get("x-amzn-errortype", str(response.status_code))
            said = str(answer.get("message", ""))[:300] if isinstance(answer, dict) else ""
            refused = 400 <= response.status_code < 500 and response.status_code != 429
            raise SourceError(f"the registry at {self._endpoint} answers {code}: {said}", refused=refused)
        return answer


def _says_something(answer: Mapping[str, Any]) -> bool:
    """Whether an answer has anything for the gate beside a revision."""
    things = answer["things"]
    return bool(
        answer["reset"]
        or not answer["complete"]
        or answer["entries"]
        or things["added"]
        or things["removed"]
        or answer["authorities"]
    )
