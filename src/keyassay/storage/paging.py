"""Pages by position, not by number: a page begins after the last row of the one before, at constant cost.

A token holds that position, sealed with the database's secret and bound to account, operation and filters: a foreign,
altered or invented token is refused, never read as "page one".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, literal, tuple_
from sqlalchemy.sql.elements import ColumnElement

_MAC_BYTES = 16
# a position of the longest key of a resource (400 characters of four bytes), a check and a reason code fits
_LONGEST = 3_072

Position = tuple[str | int, ...]


class BadTokenError(Exception):
    """A token that this registry did not hand out for this question."""


class Tokens:
    """Makes and reads tokens.

    Args:
        secret: the database's ``token_secret``.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def make(self, scope: Sequence[object], position: Position) -> str:
        """A token (standard base64) for the page that follows ``position``.

        Args:
            scope: account, operation, filters: what the token is good for.
            position: values of the ordering columns in the last row of the page.
        """
        body = json.dumps(position, separators=(",", ":"), ensure_ascii=False).encode()
        return base64.b64encode(self._mac(scope, body) + body).decode()

    def read(self, scope: Sequence[object], token: str) -> Position:
        """The position in a token.

        Raises:
            BadTokenError: it is not one of ours for this scope.
        """
        try:
            raw = base64.b64decode(token, validate=True) if len(token) <= _LONGEST else b""
        except (binascii.Error, ValueError):
            raw = b""
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not body or not hmac.compare_digest(mac, self._mac(scope, body)):
            raise BadTokenError("the token is not valid for this request")
        return tuple(json.loads(body))

    def _mac(self, scope: Sequence[object], body: bytes) -> bytes:
        bound = json.dumps([str(part) for part in scope]).encode()
        return hmac.digest(self._secret, hashlib.sha256(bound).digest() + body, "sha256")[:_MAC_BYTES]


def after(
    columns: Sequence[ColumnElement[Any]], position: Position | None, *, ascending: bool
) -> ColumnElement[bool] | None:
    """The condition "rows after ``position``" in the order of ``columns``; None for the first page.

    As a comparison of rows: both databases find its place in an index over all the columns, even where the first ones
    have few different values.
    """
    if position is None:
        return None
    if len(position) != len(columns):
        raise BadTokenError("the token is not valid for this request")
    row = tuple_(*columns)
    there = tuple_(*(literal(value, column.type) for column, value in zip(columns, position, strict=True)))
    return row > there if ascending else row < there


def page(
    query: Select[Any],
    columns: Sequence[ColumnElement[Any]],
    position: Position | None,
    size: int,
    *,
    ascending: bool = True,
) -> Select[Any]:
    """The query for one page and the row that tells whether another follows (``size`` + 1 rows).

    Args:
        query: with all conditions, without order.
        columns: a unique order, the same columns that make positions.
        position: where the page before ended.
        size: rows of a page.
        ascending: direction of all columns.
    """
    condition = after(columns, position, ascending=ascending)
    if condition is not None:
        query = query.where(condition)
    return query.order_by(*(column.asc() if ascending else column.desc() for column in columns)).limit(size + 1)
