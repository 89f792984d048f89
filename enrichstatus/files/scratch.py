"""A database in memory for all that passes through DuckDB and is kept nowhere: to make one takes longer than most of that."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import duckdb

_database: duckdb.DuckDBPyConnection | None = None


@contextmanager
def scratch() -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a cursor: what is registered, and temporary tables, are its own and end with it."""
    with interruptible(), _cursor() as con:
        yield con


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt for what DuckDB makes of Ctrl-C."""
    try:
        yield
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from error
        raise


def _cursor() -> duckdb.DuckDBPyConnection:
    global _database
    with suppress(duckdb.Error):  # DuckDB gives a database up after an error of its own
        if _database is not None:
            con = _database.cursor()
            con.execute("select 1").fetchall()
            return con
    _database = made = duckdb.connect()  # two threads may make one each, of which one stays
    return made.cursor()


def never_freed(con: duckdb.DuckDBPyConnection) -> None:
    """Keep in a forked child what belongs to the parent: closing it would write to its file, or wait for its threads."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(con))


def _forked() -> None:
    """Begin anew in a forked child: DuckDB's threads do not live on there."""
    global _database
    if _database is not None:
        never_freed(_database)
        _database = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
