"""Statements that are asked all the time: put together and compiled once, then run through the driver.

The library's way from a statement to a row takes several times as long as SQLite's own work. Everything else goes
through the library.

``Prepared`` is a statement, ``among`` a condition in it with any number of values; ``PreparedRows`` makes or changes
many rows at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    BindParameter,
    Connection,
    Dialect,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.types import Boolean, TypeDecorator

T = TypeVar("T")

#: turns a value into the driver's, or back; None where they are the same
_Processor = Callable[[Any], Any]


class _Several(TypeDecorator[Sequence[Any]]):
    """Values as one: a JSON array."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Sequence[Any] | None, dialect: Dialect) -> str:  # noqa: ARG002
        """As the driver takes them."""
        return json.dumps(list(value or ()))


class _Among(ColumnElement[bool]):
    inherit_cache = False
    type = Boolean()

    def __init__(self, column: ColumnElement[str], name: str) -> None:
        self.column = column
        self.values: BindParameter[Sequence[Any]] = bindparam(name, type_=_Several())

    def self_group(self, against: object = None) -> _Among:  # noqa: ARG002
        """Itself: compared with 1, as the library would on SQLite, it could use no index."""
        return self


@compiles(_Among, "sqlite")
def _among_on_sqlite(element: _Among, compiler: SQLCompiler, **more: Any) -> str:
    values = compiler.process(element.values, **more)
    return f"{compiler.process(element.column, **more)} IN (SELECT value FROM json_each({values}))"  # noqa: S608  both are placeholders


@compiles(_Among, "postgresql")
def _among_on_postgresql(element: _Among, compiler: SQLCompiler, **more: Any) -> str:
    # an array made beforehand, which every index takes; planners reckon with few values, so that they do take it
    values = f"ARRAY(SELECT json_array_elements_text(CAST({compiler.process(element.values, **more)} AS JSON)))"
    return f"{compiler.process(element.column, **more)} = ANY ({values})"


def among(column: ColumnElement[str], name: str) -> ColumnElement[bool]:
    """The condition that a column of texts has one of several values, however many: one text of SQL for any number.

    Args:
        column: of texts.
        name: of the parameter, a collection of texts.
    """
    return _Among(column, name)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A statement for one kind of database."""

    sql: str
    order: Sequence[str] | None  # names of the values where the driver takes them by position
    fixed: dict[str, Any]  # values that stand in the statement itself
    bound: list[tuple[str, _Processor]]
    names: list[str]
    read: list[tuple[str, _Processor]]


class Prepared:
    """One statement.

    Args:
        statement: what varies in it is a ``bindparam``; lists of values vary by ``among``, not by ``in_``.
        columns: those that an INSERT fills; their names are the names of its values.
    """

    def __init__(self, statement: SelectBase | UpdateBase, columns: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._columns = columns
        self._plans: dict[str, _Plan] = {}

    def first(self, connection: Connection, values: dict[str, Any]) -> dict[str, Any] | None:
        """Run it; the first row by names of columns, None if there is none.

        Args:
            connection: of a read, or of a transaction that has begun.
            values: for all parameters.

        Raises:
            sqlalchemy.exc.DBAPIError: as the library would.
        """
        plan = self._prepared(connection)
        row = _run(plan, connection, values, lambda cursor: cursor.fetchone())
        return None if row is None else _named(plan, row)

    def all(self, connection: Connection, values: dict[str, Any]) -> list[dict[str, Any]]:
        """The same, and all rows."""
        plan = self._prepared(connection)
        return [_named(plan, row) for row in _run(plan, connection, values, lambda cursor: cursor.fetchall())]

    def run(self, connection: Connection, values: dict[str, Any]) -> None:
        """The same for a statement that returns nothing."""
        _run(self._prepared(connection), connection, values, lambda _cursor: None)

    def _prepared(self, connection: Connection) -> _Plan:
        return self._plans.get(connection.dialect.name) or self._plan(connection.dialect)

    def _plan(self, dialect: Dialect) -> _Plan:
        plan = self._plans[dialect.name] = _plan(self._statement, dialect, self._columns)
        return plan


class PreparedRows:
    """Makes many rows, or changes them by their keys: one statement on PostgreSQL, one in the driver's loop on SQLite.

    Args:
        table: whose rows; none of these columns is binary, and one of JSON is never None.
        keys: columns that find a row which is there; none where rows are made.
        values: columns that change, or that are filled: all columns of the table if there are none.
        where: which rows change; the others stay as they are.
    """

    def __init__(
        self,
        table: Table,
        *,
        keys: Sequence[str] = (),
        values: Sequence[str] = (),
        where: Sequence[ColumnElement[bool]] = (),
    ) -> None:
        self._table = table
        self._where = list(where)
        self._keys = list(keys)
        self._values = list(values) or list(table.columns.keys())
        self._by_row = Prepared(self._one(), None if keys else self._values)
        self._at_once = Prepared(self._several())

    def run(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it.

        Args:
            connection: of a transaction that has begun.
            rows: by names of columns; what else is in them is left out. Each row that is there stands here once.

        Raises:
            sqlalchemy.exc.DBAPIError: as the library would.
        """
        if not rows:
            return
        if connection.dialect.name == "postgresql":
            names = [*self._keys, *self._values]
            given = [{name: row[name] for name in names} for row in rows]
            self._at_once.run(connection, {"rows": given})
            return
        plan = self._by_row._prepared(connection)  # noqa: SLF001  a class of this module
        assert plan.order is not None
        if self._keys:  # parameters are called "its_..." and "new_...", but for those of the condition
            drivers = [
                [plan.fixed[name] if name in plan.fixed else row[name[4:]] for name in plan.order] for row in rows
            ]
        else:
            processors = dict(plan.bound)
            drivers = [[row[name] for name in plan.order] for row in rows]
            for number, name in enumerate(plan.order):
                if name in processors:
                    for values in drivers:
                        values[number] = processors[name](values[number])
        _execute(connection, plan.sql, lambda cursor: cursor.executemany(plan.sql, drivers))

    def _one(self) -> UpdateBase:
        if not self._keys:
            return self._table.insert()
        here = (self._table.c[name] == bindparam(f"its_{name}") for name in self._keys)
        changed = update(self._table).where(*here, *self._where)
        return changed.values({name: bindparam(f"new_{name}") for name in self._values})

    def _several(self) -> UpdateBase:
        columns = self._table.columns
        rows = cast(bindparam("rows", type_=_Several()), JSON)
        given = (
            func.json_to_recordset(rows)
            .table_valued(*(column(name, columns[name].type) for name in (*self._keys, *self._values)), name="given")
            .render_derived(with_types=True)
        )
        if not self._keys:
            return self._table.insert().from_select(self._values, select(*given.c))
        here = (columns[name] == given.c[name] for name in self._keys)
        return update(self._table).where(*here, *self._where).values({name: given.c[name] for name in self._values})


def _plan(statement: SelectBase | UpdateBase, dialect: Dialect, column_keys: Sequence[str] | None) -> _Plan:
    compiled = statement.compile(dialect=dialect, column_keys=column_keys)
    assert isinstance(compiled, SQLCompiler)
    bound: list[tuple[str, _Processor]] = []
    for name, parameter in compiled.binds.items():
        to_driver = parameter.type.dialect_impl(dialect).bind_processor(dialect)
        if to_driver is not None:
            bound.append((name, to_driver))
    fixed = {name: value for name, value in compiled.params.items() if value is not None}
    columns = statement.exported_columns
    read: list[tuple[str, _Processor]] = []
    for one in columns:
        from_driver = one.type.dialect_impl(dialect).result_processor(dialect, None)
        if from_driver is not None:
            read.append((str(one.key), from_driver))
    names = [str(one.key) for one in columns]
    return _Plan(compiled.string, compiled.positiontup, fixed, bound, names, read)


def _named(plan: _Plan, row: Sequence[Any]) -> dict[str, Any]:
    found = dict(zip(plan.names, row, strict=True))
    for name, process in plan.read:
        found[name] = process(found[name])
    return found


def _run(plan: _Plan, connection: Connection, values: dict[str, Any], fetch: Callable[[Any], T]) -> T:
    given = {**plan.fixed, **values}
    for name, process in plan.bound:
        given[name] = process(given[name])

    def act(cursor: Any) -> T:
        cursor.execute(plan.sql, given if plan.order is None else [given[name] for name in plan.order])
        return fetch(cursor)

    return _execute(connection, plan.sql, act)


def _execute(connection: Connection, sql: str, act: Callable[[Any], T]) -> T:
    driver = connection.connection
    cursor = driver.cursor()
    try:
        return act(cursor)
    except Exception as error:
        known = connection.dialect.loaded_dbapi.Error
        if not isinstance(error, known):
            raise
        gone = connection.dialect.is_disconnect(error, driver, cursor)
        if gone:
            connection.invalidate(error)
        raise DBAPIError.instance(
            sql, None, error, known, hide_parameters=True, connection_invalidated=gone, dialect=connection.dialect
        ) from error
    finally:
        cursor.close()
