"""How commands reach a registry's API: the endpoint and credentials in the AWS way, errors in a sentence."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

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
        import boto3  # noqa: PLC0415  half a second that only these commands pay
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        session = boto3.Session(profile_name=aws_profile or None)
        chosen = region or session.region_name or os.environ.get("AWS_REGION") or "us-east-1"
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 4},
            max_pool_connections=16,
            ignore_configured_endpoint_urls=True,  # AWS_ENDPOINT_URL_IOT, where None shall mean AWS
        )
        return session.client("iot", endpoint_url=endpoint_url, region_name=chosen, config=config)
    except (BotoCoreError, ValueError) as error:
        raise KeyassayError(f"cannot prepare requests: {error}") from None


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
