"""Frames of libraries that need not be here: each comes in as pandas or Arrow, and goes out as its kind."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import duckdb
import pandas as pd
import pyarrow as pa

from enrichstatus.errors import ValidationError
from enrichstatus.files.reading.lake_tables import table_of
from enrichstatus.files.text import first_line


class _Way(NamedTuple):
    """How frames of a library come in and go out."""

    into: Callable[[Any], pd.DataFrame | pa.Table]
    back: Callable[[Any, Any], Any]


def _modin(theirs: Any, frame: pd.DataFrame) -> Any:
    import modin.pandas as mpd

    return mpd.DataFrame(frame)


def _dask(theirs: Any, frame: pd.DataFrame) -> Any:
    """Cut it into as many partitions, in the order of its rows: dask's own way would go by the index."""
    from dask.dataframe import from_map

    rows = max(1, -(-len(frame) // max(1, theirs.npartitions)))
    parts = [frame.iloc[start : start + rows] for start in range(0, max(1, len(frame)), rows)]
    # a name of its own: dask takes two slices of one column of text for the same one
    return from_map(_unchanged, parts, meta=frame.iloc[:0], label=f"enrichstatus-{secrets.token_hex(8)}")


def _unchanged(part: pd.DataFrame) -> pd.DataFrame:
    return part


def _ibis(theirs: Any, table: pa.Table) -> Any:
    import ibis

    return ibis.memtable(table)


def _daft(theirs: Any, table: pa.Table) -> Any:
    import daft

    return daft.from_arrow(table)


#: By the package that a frame's class is of.
_WAYS = {
    "modin": _Way(lambda theirs: theirs._to_pandas(), _modin),
    "dask": _Way(lambda theirs: theirs.compute(), _dask),
    "cudf": _Way(
        lambda theirs: theirs.to_arrow(preserve_index=False), lambda theirs, table: type(theirs).from_arrow(table)
    ),
    "ibis": _Way(lambda theirs: theirs.to_pyarrow(), _ibis),
    "daft": _Way(lambda theirs: theirs.to_arrow(), _daft),
    "deltalake": _Way(lambda theirs: _rows(theirs), lambda theirs, table: table),
    "pyiceberg": _Way(lambda theirs: _rows(theirs), lambda theirs, table: table),
}


def _rows(theirs: Any) -> pa.Table:
    table = table_of(theirs)
    if table is None:
        raise ValidationError(f"Expected a table, not {type(theirs).__name__}.")
    return table.stream(table.names).read_all()


def other(data: Any) -> tuple[pd.DataFrame | pa.Table, Callable[[Any], Any]] | None:
    """Read a frame of another library; gives what it holds, and what makes such a frame again. None where the library is not known."""
    packages = [kind.__module__.partition(".")[0] for kind in type(data).__mro__]
    package = next((name for name in packages if name in _WAYS), None)
    if package is None or not (hasattr(data, "columns") or package in ("deltalake", "pyiceberg")):
        return None
    into, back = _WAYS[package]
    try:
        held = into(data)
    except ValidationError:
        raise
    except Exception as error:
        raise ValidationError(f"The frame of {package} cannot be read: {first_line(error)}.") from error
    return held, lambda answer: back(data, answer)


#: What frames that are not known call the way to one that is, with what is written for it.
_REMEDIES = ("to_arrow", "to_pyarrow", "toArrow", "to_arrow_table", "to_pandas", "toPandas", "collect", "compute")


def remedy(data: Any) -> str:
    """Say how a frame of a library that is not known becomes one that is; nothing where it does not say how."""
    found = next((name for name in _REMEDIES if callable(getattr(data, name, None))), None)
    return f" Pass what its .{found}() gives." if found and hasattr(data, "columns") else ""


def as_relation(theirs: duckdb.DuckDBPyRelation, answer: pa.Table) -> duckdb.DuckDBPyRelation:
    """Make a relation on the caller's own connection, where it can be joined, with the types that Arrow has no name for."""
    # found by its name among our variables, unless the caller has a table of that name
    enrichstatus_answer = answer  # noqa: F841
    try:
        relation = cast("duckdb.DuckDBPyRelation", theirs.query("tasks", "select * from enrichstatus_answer"))
    except duckdb.CatalogException:  # a connection that is locked, as `store.connect()` gives it, sees no variables
        relation = duckdb.from_arrow(answer)
    kinds = dict(zip(theirs.columns, theirs.types, strict=True))
    columns = {name: duckdb.ColumnExpression(name) for name in relation.columns}
    kept = {name: column.cast(kinds[name]).alias(name) for name, column in columns.items() if name in kinds}
    return relation.select(*(columns | kept).values())


#: Types of DuckDB that Arrow cannot carry.
LOST = re.compile(r"\bBIT\b|TIME WITH TIME ZONE|\bUHUGEINT\b")
