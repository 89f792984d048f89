"""JSON out: an object of each row, and no number that JSON does not have."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.files.scratch import scratch
from enrichstatus.files.text import first_line

_STRING = r'"(?:[^"\\]|\\.)*"'
#: What DuckDB, and some who write JSON, write for numbers that JSON does not have.
_WORDS = "(?i)nan|inf"


def refuse_not_finite(table: pa.Table, what: str) -> None:
    """Refuse a NaN or an infinity, within nested values too: `what` has neither, and a null would be another value."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        if _holds_floats(column.type):
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            if pa.types.is_floating(kind):
                numbers = column.cast(pa.float64())
                bad = pc.and_(pc.is_valid(numbers), pc.invert(pc.is_finite(numbers)))
            else:
                bad = pc.match_substring_regex(pc.replace_substring_regex(_json(column), _STRING, ""), _WORDS)
            if pc.any(bad).as_py():
                raise pa.ArrowInvalid(f"the column {name!r} holds NaN or Infinity, which {what} does not have")


def _holds_floats(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.JsonType):
        return True
    if isinstance(kind, pa.BaseExtensionType):
        return _holds_floats(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _holds_floats(kind.value_type)
    if pa.types.is_nested(kind):
        return any(_holds_floats(kind.field(n).type) for n in range(kind.num_fields))
    return bool(pa.types.is_floating(kind))


def _json(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Make JSON of nested values."""
    if isinstance(column.type, pa.JsonType):
        return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    with scratch() as con:
        return _select(con, pa.table([column], names=["0"]), duckdb.FunctionExpression("to_json", _COLUMN)).column(0)


_COLUMN = duckdb.ColumnExpression("0")


def objects(con: duckdb.DuckDBPyConnection, table: pa.Table, line_end: str) -> pa.Table:
    """Make a JSON object of each row, with `line_end` after it; of columns that DuckDB has types for, but for decimals."""
    if not table.num_columns:
        return pa.table({"json": ["{}" + line_end] * len(table)})
    columns = []
    for column in table.columns:
        if pa.types.is_float16(column.type):
            column = column.cast(pa.float32())  # DuckDB has no narrower one
        columns.append(column.cast(pa.string()) if pa.types.is_decimal256(column.type) else column)
    # numbers for names: DuckDB does not distinguish names that differ in case alone
    numbered = pa.table(columns, names=list(map(str, range(len(columns)))))
    members = [
        (duckdb.ConstantExpression(name), duckdb.ColumnExpression(str(n))) for n, name in enumerate(table.column_names)
    ]
    row = duckdb.FunctionExpression("json_object", *(part for member in members for part in member))
    end = duckdb.ConstantExpression(line_end)
    return _select(con, numbered, duckdb.FunctionExpression("concat", row.cast("VARCHAR"), end))


def _select(con: duckdb.DuckDBPyConnection, table: pa.Table, what: duckdb.Expression) -> pa.Table:
    try:
        return con.from_arrow(table).select(what.cast("VARCHAR")).to_arrow_table()
    except duckdb.Error as error:
        raise pa.ArrowInvalid(first_line(error)) from error
