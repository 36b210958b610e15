"""Pages: all rows, each once, at any size; tokens that nobody can make or move."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, select

from keyassay.storage.paging import BadTokenError, Tokens, page

ROWS = Table("rows", MetaData(), Column("at", Integer), Column("id", String, primary_key=True))
TOKENS = Tokens(b"s" * 32)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.text("abc", min_size=1, max_size=3)), unique_by=lambda row: row[1]),
    st.integers(1, 4),
    st.booleans(),
)
def test_pages_hold_every_row_once_in_order(rows: list[tuple[int, str]], size: int, ascending: bool) -> None:
    engine = create_engine("sqlite://")
    ROWS.create(engine)
    with engine.begin() as connection:
        if rows:
            connection.execute(ROWS.insert(), [{"at": at, "id": name} for at, name in rows])
        found: list[tuple[int, str]] = []
        position = None
        while True:
            got = connection.execute(page(select(ROWS), (ROWS.c.at, ROWS.c.id), position, size, ascending=ascending))
            chunk = [tuple(row) for row in got]
            found += chunk[:size]
            if len(chunk) <= size:
                break
            position = found[-1]
    assert found == sorted(rows, reverse=not ascending)


@given(st.lists(st.one_of(st.text(max_size=40), st.integers(0, 2**60)), min_size=1, max_size=3))
def test_a_token_says_where_it_was_made(position: list[str | int]) -> None:
    token = TOKENS.make(("a", "b"), tuple(position))
    assert TOKENS.read(("a", "b"), token) == tuple(position)
    for scope in (("ab",), ("a", "b", ""), ("b", "a"), ()):
        with pytest.raises(BadTokenError):
            TOKENS.read(scope, token)
    with pytest.raises(BadTokenError):
        Tokens(b"t" * 32).read(("a", "b"), token)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_an_altered_token_is_refused(place: int, change: int) -> None:
    raw = bytearray(base64.b64decode(TOKENS.make(("x",), (17, "name"))))
    raw[place % len(raw)] ^= change
    with pytest.raises(BadTokenError):
        TOKENS.read(("x",), base64.b64encode(raw).decode())


@pytest.mark.parametrize("token", ["", "A", "AAAA", "é", "=" * 8, "A" * 5000, base64.b64encode(b"x" * 40).decode()])
def test_garbage_is_refused(token: str) -> None:
    with pytest.raises(BadTokenError):
        TOKENS.read(("x",), token)


def test_a_token_of_another_shape_is_refused() -> None:
    with pytest.raises(BadTokenError):
        page(select(ROWS), (ROWS.c.at, ROWS.c.id), (1,), 5)
