"""Values as text: instants as on the wire, UUIDs and JSON as they are written, and for Excel nothing that it takes for a formula."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.files.scratch import scratch


def as_text(table: pa.Table) -> pa.Table:
    """Turn columns of JSON into text: text as it is, everything else as JSON writes it."""
    for place, field in enumerate(table.schema):
        if isinstance(field.type, pa.JsonType):
            with scratch() as con:
                cells = con.from_arrow(pa.table({"json": table.column(place)}))
                json, whole = duckdb.ColumnExpression("json"), duckdb.ConstantExpression("$")
                text = cells.select(duckdb.FunctionExpression("json_extract_string", json, whole)).to_arrow_table()
            table = table.set_column(place, field.name, text.column(0))
    return table


def plain(table: pa.Table, *, bom: bool = False, csv: bool = False) -> pa.Table:
    """Turn what text has no type for into text: instants as on the wire, times without a zone without one, UUIDs; for Excel, formulas.

    In CSV a column ``error`` has none either, whoever opens the file: its text is the service's.
    """
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_timestamp(kind):
            column = _instants(column.cast(kind), name)
        elif pa.types.is_nested(kind) and _holds_instants(kind):
            column = _within(column.combine_chunks(), name)
        elif pa.types.is_duration(kind):
            column = hours(column.cast(kind))
        elif isinstance(column.type, pa.UuidType):
            with scratch() as con:
                uuids = con.from_arrow(pa.table({"uuid": column}))
                column = uuids.select(duckdb.ColumnExpression("uuid").cast("VARCHAR")).to_arrow_table().column(0)
        elif pa.types.is_string_view(column.type) or pa.types.is_dictionary(column.type):
            column = column.cast(kind if pa.types.is_primitive(kind) else pa.string())  # numbers stay numbers
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if is_text and (bom or (csv and name.lower().endswith("error"))):
            column = _as_text(column)
        columns.append(column)
    names = _as_text(pa.array(table.column_names, pa.string())).to_pylist() if bom else table.column_names
    return pa.table(columns, names=names)


def hours(column: Any) -> Any:
    """Write durations as a sheet shows them, ``27:30:00``: hours, minutes and seconds, with a fraction where there is one."""
    ticks = column.cast(pa.duration("us"), safe=False).cast(pa.int64())
    sign = pc.if_else(pc.less(ticks, 0), "-", "")
    ticks = pc.abs(ticks)
    seconds = pc.divide(ticks, 1_000_000)
    minutes = pc.divide(seconds, 60)
    rests = (pc.subtract(whole, pc.multiply(pc.divide(whole, 60), 60)) for whole in (minutes, seconds))
    parts = [pc.divide(minutes, 60), *rests]
    texts = [pc.utf8_lpad(part.cast(pa.string()), width, "0") for part, width in zip(parts, (1, 2, 2), strict=True)]
    rest = pc.subtract(ticks, pc.multiply(seconds, 1_000_000)).cast(pa.string())
    fraction = pc.utf8_rtrim(pc.binary_join_element_wise("", pc.utf8_lpad(rest, 6, "0"), "."), "0")
    fraction = pc.if_else(pc.equal(fraction, "."), "", fraction)
    return pc.binary_join_element_wise(sign, pc.binary_join_element_wise(*texts, ":"), fraction, "")


def _as_text(column: Any) -> Any:
    """Put an apostrophe before what Excel takes for a formula; numbers below zero are numbers."""
    formula = pc.match_substring_regex(column, r"^[=+@\t\r-]")
    number = pc.match_substring_regex(column, r"^-\d+([.,]\d+)*([eE][+-]?\d+)?$")
    before, after = (pa.scalar(text, column.type) for text in ("'", ""))
    return pc.if_else(pc.and_not(formula, number), pc.binary_join_element_wise(before, column, after), column)


def _holds_instants(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_holds_instants(kind.field(n).type) for n in range(kind.num_fields))
    return bool(pa.types.is_timestamp(kind))


def _within(values: pa.Array, name: str) -> pa.Array:
    """Turn the instants within nested values into text."""
    kind = values.type
    if pa.types.is_timestamp(kind):
        return _instants(values, name)
    if not pa.types.is_nested(kind) or not _holds_instants(kind):
        return values
    nulls = values.is_null()
    if pa.types.is_struct(kind):
        parts = [_within(values.field(n), name) for n in range(kind.num_fields)]
        return pa.StructArray.from_arrays(parts, [kind.field(n).name for n in range(kind.num_fields)], mask=nulls)
    if pa.types.is_map(kind):
        values = values.take(pa.array(range(len(values)), pa.int64()))  # no longer a part of an array
        return pa.MapArray.from_arrays(
            values.offsets, _within(values.keys, name), _within(values.items, name), mask=nulls
        )
    if pa.types.is_fixed_size_list(kind):
        values = values.cast(pa.list_(kind.value_type))
    # not by the buffers: those of a view, or of a part of an array, are not in order
    lengths = pc.fill_null(pc.list_value_length(values), 0).cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())])
    return pa.ListArray.from_arrays(offsets, _within(values.flatten(), name), mask=nulls)


def _instants(column: Any, name: str) -> Any:
    """Write instants as text, and refuse one that text cannot say."""
    text = _wired(column)
    if pc.any(pc.starts_with(text, "<value")).as_py():  # what Arrow writes
        raise pa.ArrowInvalid(f"the column {name!r} holds an instant beyond what text can say")
    return text


def _wired(column: Any) -> Any:
    """Write instants as the wire has them, ``2025-01-13T10:30:00.000Z``, with all of their digits; without a zone there is no Z."""
    zone, unit = column.type.tz, column.type.unit
    if zone:
        unit = "ms" if unit == "s" else unit
        column = column.cast(pa.timestamp(unit, "UTC")).cast(pa.timestamp(unit))
    try:
        text = column.cast(pa.timestamp("ms") if unit in ("us", "ns") else column.type).cast(pa.string())
    except pa.ArrowInvalid:  # more than milliseconds
        text = pc.replace_substring_regex(column.cast(pa.string()), r"^(.*\.\d{3}(?:\d{3})*?)(?:000)+$", r"\1")
    text = pc.replace_substring(text, " ", "T")
    return pc.binary_join_element_wise(text, "Z", "") if zone else text
