"""``keyassay import``: the certificates of an AWS account, or of another registry, into this one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from keyassay.cli.connection import api_options, asking, client
from keyassay.cli.progress import ProgressBar
from keyassay.cli.service import json_option
from keyassay.errors import KeyassayError
from keyassay.lists.lookup import write_atomically

#: statuses that a registration may begin with; others become INACTIVE
_STATUSES = frozenset({"ACTIVE", "INACTIVE", "REVOKED"})
#: descriptions asked for at once; AWS permits ten a second, and boto3 waits when told to
_AT_ONCE = 8
_PAGE = 100


@click.group("import", short_help="Take over certificates from AWS IoT or another registry.")
def command() -> None:
    """Copy certificates out of another registry, so that they can be audited here.

    \b
    keyassay import aws --source-profile production --source-region eu-west-1
    """  # noqa: D301  \b is click's mark for lines to keep


@command.command(
    "aws",
    short_help="From an AWS account, page by page.",
    epilog="Exit codes: 0 all are here, 1 some were refused, 2 wrong use, no connection or no permission.",
)
@click.option("--source-profile", metavar="NAME", help="Credentials of ~/.aws to read with.  [default: as for `aws`]")
@click.option("--source-region", metavar="NAME", help="Region to read.  [default: that of the configuration]")
@click.option("--source-endpoint-url", metavar="URL", help="Read another registry instead of AWS.")
@click.option("--with-cas/--without-cas", default=True, show_default=True, help="Authorities too, as SNI_ONLY ones.")
@click.option(
    "--state", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Remembers how far it came; the same command again goes on there.",
)  # fmt: skip
@api_options
@json_option
def aws(
    source_profile: str | None,
    source_region: str | None,
    source_endpoint_url: str | None,
    with_cas: bool,
    state: Path | None,
    endpoint_url: str,
    aws_profile: str | None,
    region: str | None,
    as_json: bool,
) -> int:
    """Register here all certificates of an AWS account, with their status, and its authorities.

    Nothing is changed there; the reader needs ListCertificates, DescribeCertificate, ListCACertificates and
    DescribeCACertificate. Certificates that are here already are left as they are, so that it can be repeated.
    """
    source = client(source_endpoint_url, source_profile, source_region)
    target = client(endpoint_url, aws_profile, region)
    counts: Counter[str] = Counter()
    refused: list[dict[str, str]] = []
    place = _State(state)
    with ProgressBar(unit="certificates") as bar, ThreadPoolExecutor(_AT_ONCE) as pool:
        for kind in ("authorities", "certificates") if with_cas else ("certificates",):
            describe, register = _AUTHORITIES if kind == "authorities" else _CERTIFICATES
            for ids, marker in _pages(source, source_endpoint_url, kind, place.marker(kind)):
                with asking(source_endpoint_url):
                    described = list(pool.map(lambda one, describe=describe: describe(source, one), ids))
                with asking(endpoint_url):
                    results = list(pool.map(lambda one, register=register: register(target, one), described))
                for certificate_id, (result, why) in zip(ids, results, strict=True):
                    counts[f"{kind} {result}"] += 1
                    if result == "refused":
                        refused.append({"certificate_id": certificate_id, "why": why})
                place.reached(kind, marker)
                bar(f"importing {kind}", None, sum(counts.values()))
    if as_json:
        click.echo(json.dumps({"counts": counts, "refused": refused}, indent=2))
    else:
        for one in refused:
            click.echo(f"{one['certificate_id']}  refused: {one['why']}")
        click.echo(", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "nothing was there")
    return 1 if refused else 0


class _State:
    """How far an import came: the marker of the next page of each kind, "" before the first, None after the last."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._markers: dict[str, str | None] = {}
        if path is not None and path.exists():
            try:
                self._markers = dict(json.loads(path.read_text()))
            except (OSError, ValueError, TypeError) as error:
                raise KeyassayError(
                    f"{str(path)!r} is no state of an import: {error}", "delete it to begin anew"
                ) from None

    def marker(self, kind: str) -> str | None:
        return self._markers.get(kind, "")

    def reached(self, kind: str, marker: str | None) -> None:
        self._markers[kind] = marker
        if self._path is not None:
            write_atomically(self._path, json.dumps(self._markers).encode())


def _pages(source: Any, url: str | None, kind: str, marker: str | None) -> Iterator[tuple[list[str], str | None]]:
    """Ids of a page, and the marker of the next one."""
    while marker is not None:
        call = source.list_ca_certificates if kind == "authorities" else source.list_certificates
        given = {"pageSize": _PAGE, "ascendingOrder": True, **({"marker": marker} if marker else {})}
        with asking(url):
            page = call(**given)
        marker = page.get("nextMarker")
        yield [row["certificateId"] for row in page["certificates"]], marker


def _describe_certificate(source: Any, certificate_id: str) -> dict[str, Any]:
    described: dict[str, Any] = source.describe_certificate(certificateId=certificate_id)["certificateDescription"]
    return described


def _describe_authority(source: Any, certificate_id: str) -> dict[str, Any]:
    described: dict[str, Any] = source.describe_ca_certificate(certificateId=certificate_id)["certificateDescription"]
    return described


def _register_certificate(target: Any, described: dict[str, Any]) -> tuple[str, str]:
    status = described["status"] if described["status"] in _STATUSES else "INACTIVE"
    return _told(
        lambda: target.register_certificate_without_ca(certificatePem=described["certificatePem"], status=status)
    )


def _register_authority(target: Any, described: dict[str, Any]) -> tuple[str, str]:
    return _told(
        lambda: target.register_ca_certificate(
            caCertificate=described["certificatePem"],
            certificateMode="SNI_ONLY",
            setAsActive=described["status"] == "ACTIVE",
        )
    )


def _told(register: Callable[[], Any]) -> tuple[str, str]:
    from botocore.exceptions import ClientError  # noqa: PLC0415  only when called

    try:
        register()
    except ClientError as error:
        said = error.response["Error"]
        if said["Code"] == "ResourceAlreadyExistsException":
            return "were here", ""
        if said["Code"] in ("CertificateValidationException", "InvalidRequestException", "LimitExceededException"):
            return "refused", said.get("Message", said["Code"])
        raise
    return "imported", ""


_CERTIFICATES = (_describe_certificate, _register_certificate)
_AUTHORITIES = (_describe_authority, _register_authority)
