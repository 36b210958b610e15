"""Where everything is: the database, the region, the limits; and pages of results.

One ``Registry`` serves all accounts and threads of a process.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Connection, Select, and_, select
from sqlalchemy.sql.elements import ColumnElement

from keyassay.registry.errors import InvalidError
from keyassay.storage import schema
from keyassay.storage.database import Actor, Database, Transaction
from keyassay.storage.paging import BadTokenError, Position, Tokens, page
from keyassay.storage.sealing import Seal

T = TypeVar("T")

#: rows of a page where the caller asks for none, and at most
DEFAULT_PAGE, LARGEST_PAGE = 25, 250

_ARN = re.compile(r"arn:aws[a-z-]*:iot:([a-z0-9-]+):([0-9]{12}):(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Limits:
    """Quotas of an account, AWS's where AWS has them."""

    authorities_of_a_subject: int = 10
    policies_of_a_certificate: int = 10
    policies_of_a_group: int = 2
    policy_versions: int = 5
    groups_of_a_thing: int = 10
    group_depth: int = 7
    children_of_a_group: int = 100
    tags_of_a_resource: int = 50
    certificates: int = 10_000_000
    things: int = 10_000_000


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows, and the token of the next page or None."""

    rows: Sequence[T]
    next_token: str | None


class Screening(Protocol):
    """Looks at the keys of certificates that are being registered; what is in ``audit.screening`` fits."""

    def examine(self, spki: bytes) -> object:
        """What is wrong with a key. Takes milliseconds: it is called before the transaction.

        Args:
            spki: its subject public key info, DER.
        """

    def record(self, transaction: Transaction, certificate_id: str, subject: bytes, examined: Any) -> None:
        """Note what was found, or refuse the certificate: inside the transaction that registers it, after its row.

        Args:
            transaction: that registers it.
            certificate_id: of the certificate, which is in the table.
            subject: DER of its name.
            examined: from ``examine``.

        Raises:
            BrokenKeyError: it is refused.
        """


@dataclass(frozen=True)
class Registry:
    """The registry as one process sees it.

    Attributes:
        database: where everything is.
        seal: opens sealed secrets.
        region: stands in ARNs and in signatures.
        endpoint: host name (with port) that DescribeEndpoint tells devices.
        public_url: where CRLs and OCSP are served; stands in issued certificates, unless it is empty.
        hold_inactive: revocation lists and OCSP say of issued certificates that are not ACTIVE that they are on hold.
        activate_broken: a certificate that registered itself may become ACTIVE though its key is broken.
        limits: quotas.
        audit_hour: when scheduled audits run, UTC.
        screening: looks at the keys of certificates that are being registered; None for nothing.
    """

    database: Database
    seal: Seal
    region: str = "us-east-1"
    endpoint: str = "localhost"
    public_url: str = ""
    hold_inactive: bool = False
    activate_broken: bool = False
    limits: Limits = field(default_factory=Limits)
    audit_hour: int = 2
    screening: Screening | None = None

    def examine(self, spki: bytes) -> object:
        """What screening says of a key (subject public key info), for ``certificates.add``; before the transaction."""
        return None if self.screening is None else self.screening.examine(spki)

    @cached_property
    def tokens(self) -> Tokens:
        """Makes and reads page tokens (the secret is read once)."""
        with self.database.read() as connection:
            return Tokens(connection.execute(select(schema.server.c.token_secret)).scalar_one())

    def arn(self, account_id: str, resource: str) -> str:
        """ARN of a resource ("cert/ID", "thing/NAME")."""
        return f"arn:aws:iot:{self.region}:{account_id}:{resource}"

    def resource(self, actor: Actor, arn: str, kind: str = "") -> str:
        """The resource part of an ARN of this account and region ("cert/ID"; without "KIND/" if ``kind`` is given).

        Raises:
            InvalidError: it is no ARN of AWS IoT, of another kind, another account or another region.
        """
        found = _ARN.fullmatch(arn)
        if found is None or (kind and not found[3].startswith(f"{kind}/")):
            raise InvalidError(f"{arn[:200]!r} is no ARN of a {kind or 'resource'}")
        if (found[1], found[2]) != (self.region, actor.account_id):
            raise InvalidError("the ARN belongs to another account or region")
        return found[3][len(kind) + 1 :] if kind else found[3]

    def page(
        self,
        connection: Connection,
        query: Select[Any],
        order: Sequence[ColumnElement[Any]],
        *,
        scope: Sequence[object],
        token: str | None,
        size: int | None,
        ascending: bool = True,
    ) -> Page[dict[str, Any]]:
        """One page of a query.

        Args:
            connection: of a read or a transaction.
            query: all conditions, no order; it has to select the columns of ``order``.
            order: unique order; these columns make the position.
            scope: account, operation and filters that the token is bound to.
            token: of the page before, or None.
            size: rows, 1 to 250; 25 if None.
            ascending: direction.

        Raises:
            InvalidError: the token is not one of ours for this question.
        """
        count = min(DEFAULT_PAGE if size is None else size, LARGEST_PAGE)
        scope = (*scope, ascending)
        try:
            position: Position | None = self.tokens.read(scope, token) if token is not None else None
            statement = page(query, order, position, count, ascending=ascending)
        except BadTokenError as error:
            raise InvalidError(str(error)) from None
        rows = [dict(row) for row in connection.execute(statement).mappings()]
        more = len(rows) > count
        rows = rows[:count]
        following = tuple(rows[-1][str(column.key)] for column in order) if more else None
        return Page(rows, self.tokens.make(scope, following) if following else None)


def starting_with(connection: Connection, column: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """The condition that a text begins with a prefix, upper and lower case apart; an index answers it.

    SQLite compares texts by their bytes, so that a range is exact; its LIKE knows no case. PostgreSQL's order depends
    on the database, so that there LIKE is exact, and uses an index where the order is that of bytes.
    """
    if connection.dialect.name == "sqlite":
        return and_(column >= prefix, column < prefix + "\U0010ffff")
    return column.startswith(prefix, autoescape=True)


def milliseconds(seconds: float) -> int:
    """Seconds since 1970 as the database keeps them."""
    return round(seconds * 1000)
