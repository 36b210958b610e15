"""How commands reach a registry's API: the endpoint and credentials in the AWS way, errors in a sentence."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import click

from keyassay.cli.service import libraries
from keyassay.errors import KeyassayError

DEFAULT_ENDPOINT = "http://127.0.0.1:8443"

Command = Callable[..., Any]


def api_options(function: Command) -> Command:
    """``--endpoint-url``, ``--aws-profile``, ``--region``."""
    for option in reversed((
        click.option(
            "--endpoint-url", envvar=["KEYASSAY_ENDPOINT_URL", "AWS_ENDPOINT_URL_IOT", "AWS_ENDPOINT_URL"],
            default=DEFAULT_ENDPOINT, show_default=True, metavar="URL", help="Where the registry's API is.",
        ),
        click.option(
            "--aws-profile", metavar="NAME",
            help="Credentials of ~/.aws, by name.  [default: AWS_PROFILE, AWS_ACCESS_KEY_ID, ... as for `aws`]",
        ),
        click.option(
            "--region", metavar="NAME", help="Has to be the registry's.  [default: AWS_REGION, or us-east-1]"
        ),
    )):  # fmt: skip
        function = option(function)
    return function


def client(endpoint_url: str | None, aws_profile: str | None, region: str | None) -> Any:
    """A boto3 client of AWS IoT's API.

    Args:
        endpoint_url: of a registry; None for AWS itself.
        aws_profile: of ~/.aws, None for the environment's.
        region: None for the configuration's, or us-east-1.

    Raises:
        KeyassayError: there is no such profile, or the address is none.
    """
    with libraries():
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        session = _session(aws_profile)
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 4},
            max_pool_connections=16,
            ignore_configured_endpoint_urls=True,  # AWS_ENDPOINT_URL_IOT, where None shall mean AWS
        )
        return session.client("iot", endpoint_url=endpoint_url, region_name=_region(session, region), config=config)
    except (BotoCoreError, ValueError) as error:
        raise KeyassayError(f"cannot prepare requests: {error}") from None


def _session(aws_profile: str | None) -> Any:
    import boto3  # noqa: PLC0415  half a second that only these commands pay

    return boto3.Session(profile_name=aws_profile or None)


def _region(session: Any, region: str | None) -> str:
    return region or session.region_name or os.environ.get("AWS_REGION") or "us-east-1"


def ask_own(
    endpoint_url: str,
    aws_profile: str | None,
    region: str | None,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    method: str = "POST",
) -> dict[str, Any]:
    """Ask one of the registry's own endpoints, signed like the others; call it within ``asking``.

    Args:
        endpoint_url: of the registry.
        aws_profile: of ~/.aws, None for the environment's.
        region: None for the configuration's, or us-east-1.
        path: such as "/keyassay/v1/mitigation/plan".
        body: JSON; for GET what stands in the query, where a list is a member several times.
        method: HTTP's.

    Raises:
        BotoCoreError: no connection or no credentials.
        ClientError: the API refused.
    """
    from botocore.auth import SigV4Auth  # noqa: PLC0415  as above
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415
    from botocore.exceptions import ClientError, NoCredentialsError  # noqa: PLC0415
    from botocore.httpsession import URLLib3Session  # noqa: PLC0415
    from botocore.utils import get_environ_proxies  # noqa: PLC0415

    session = _session(aws_profile)
    credentials = session.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    url = endpoint_url.rstrip("/") + path
    headers = {"content-type": "application/json"}
    if method == "GET":
        texts = {name: json.dumps(value) if isinstance(value, bool) else value for name, value in (body or {}).items()}
        url += f"?{urlencode(texts, doseq=True)}" if texts else ""
    request = AWSRequest(method, url, headers, b"" if method == "GET" else json.dumps(body or {}).encode())
    SigV4Auth(credentials.get_frozen_credentials(), "iot", _region(session, region)).add_auth(request)
    bundle = os.environ.get("AWS_CA_BUNDLE") or session._session.get_config_variable("ca_bundle")  # noqa: SLF001  no other way
    web = URLLib3Session(verify=bundle or True, proxies=get_environ_proxies(url), timeout=60)
    response = web.send(request.prepare())
    try:
        answer: dict[str, Any] = json.loads(response.content)
    except ValueError:
        answer = {}
    if response.status_code >= 400:
        code = response.headers.get("x-amzn-errortype", str(response.status_code))
        raise ClientError({"Error": {"Code": code, "Message": answer.get("message", "")}}, path)
    return answer


@contextlib.contextmanager
def asking(endpoint_url: str | None) -> Iterator[None]:
    """Say in a sentence what went wrong with a request.

    Raises:
        KeyassayError: no connection, no credentials, or the API refused.
    """
    from botocore.exceptions import (  # noqa: PLC0415  as above
        BotoCoreError,
        ClientError,
        EndpointConnectionError,
        NoCredentialsError,
    )

    try:
        yield
    except ClientError as error:
        said = error.response["Error"]
        raise KeyassayError(
            f"{said.get('Code', 'error')}: {said.get('Message', '')}", _hint(said.get("Code", ""))
        ) from None
    except NoCredentialsError:
        raise KeyassayError(
            "there are no credentials",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; `keyassay keys create` makes them",
        ) from None
    except EndpointConnectionError:
        where = endpoint_url or "AWS"
        raise KeyassayError(f"nobody answers at {where}", "is `keyassay serve` running there?") from None
    except BotoCoreError as error:
        raise KeyassayError(f"the request failed: {error}") from None


def _hint(code: str) -> str:
    return {
        "InvalidSignatureException": "look at the secret, the region and the clock",
        "UnrecognizedClientException": "the access key is unknown or inactive; see `keyassay keys list`",
        "AccessDeniedException": "the access key's role does not permit it",
        "ThrottlingException": "try again in a moment",
    }.get(code, "")
