"""Statements that are asked all the time: put together and compiled once, then run through the driver.

The library's way from a statement to a row takes several times as long as SQLite's own work. Everything else goes
through the library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import Select

#: turns a value into the driver's, or back; None where they are the same
_Processor = Callable[[Any], Any]


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
        statement: what varies in it is a ``bindparam``; lists of values (IN) cannot vary.
        columns: those that an INSERT fills; their names are the names of its values.
    """

    def __init__(self, statement: Select[Any] | UpdateBase, columns: Sequence[str] | None = None) -> None:
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
        plan = self._plans.get(connection.dialect.name) or self._plan(connection.dialect)
        row = _run(plan, connection, values, fetch=True)
        if row is None:
            return None
        found = dict(zip(plan.names, row, strict=True))
        for name, process in plan.read:
            found[name] = process(found[name])
        return found

    def run(self, connection: Connection, values: dict[str, Any]) -> None:
        """The same for a statement that returns nothing."""
        _run(
            self._plans.get(connection.dialect.name) or self._plan(connection.dialect), connection, values, fetch=False
        )

    def _plan(self, dialect: Dialect) -> _Plan:
        compiled = self._statement.compile(dialect=dialect, column_keys=self._columns)
        assert isinstance(compiled, SQLCompiler)
        bound: list[tuple[str, _Processor]] = []
        for name, parameter in compiled.binds.items():
            to_driver = parameter.type.dialect_impl(dialect).bind_processor(dialect)
            if to_driver is not None:
                bound.append((name, to_driver))
        fixed = {name: value for name, value in compiled.params.items() if value is not None}
        columns = self._statement.exported_columns
        read: list[tuple[str, _Processor]] = []
        for column in columns:
            from_driver = column.type.dialect_impl(dialect).result_processor(dialect, None)
            if from_driver is not None:
                read.append((str(column.key), from_driver))
        names = [str(column.key) for column in columns]
        plan = _Plan(compiled.string, compiled.positiontup, fixed, bound, names, read)
        self._plans[dialect.name] = plan
        return plan


def _run(plan: _Plan, connection: Connection, values: dict[str, Any], *, fetch: bool) -> Sequence[Any] | None:
    given = {**plan.fixed, **values}
    for name, process in plan.bound:
        given[name] = process(given[name])
    driver = connection.connection
    cursor = driver.cursor()
    try:
        cursor.execute(plan.sql, given if plan.order is None else [given[name] for name in plan.order])
        row: Sequence[Any] | None = cursor.fetchone() if fetch else None
    except Exception as error:
        known = connection.dialect.loaded_dbapi.Error
        if not isinstance(error, known):
            raise
        gone = connection.dialect.is_disconnect(error, driver, cursor)
        if gone:
            connection.invalidate(error)
        raise DBAPIError.instance(
            plan.sql, None, error, known, hide_parameters=True, connection_invalidated=gone, dialect=connection.dialect
        ) from error
    finally:
        cursor.close()
    return row
