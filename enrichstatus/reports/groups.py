"""The groups of a report: rows of any kind, numbered by what they have in common."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from enrichstatus.errors import ValidationError, quoted
from enrichstatus.files.scratch import scratch
from enrichstatus.lookup.arguments import names_of
from enrichstatus.schema import PANDAS_TYPES, listed, snake

By: TypeAlias = str | Sequence[str] | None
Codes: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Segments:
    """Rows by segment.

    Attributes
    ----------
    code : array of int
        The segment of each row, numbered from 0 as they come.
    groups : DataFrame
        What a segment has in common: a row for each, null where the rows had null.
    """

    code: Codes
    groups: pd.DataFrame

    def __len__(self) -> int:
        return len(self.groups)

    def count(self, which: npt.NDArray[np.bool_] | None = None) -> Codes:
        """Count rows by segment, of some of them."""
        code = self.code if which is None else self.code[which]
        return np.bincount(code, minlength=len(self)).astype(np.int64)

    def report(self, columns: pd.DataFrame, size: str) -> pd.DataFrame:
        """Put columns beside the segments: in the order of time or number where there is one, else the largest first."""
        frame = pd.concat([self.groups, columns], axis=1)
        names = list(self.groups.columns)
        if not names:
            return frame
        own_order = any(pd.api.types.is_datetime64_any_dtype(frame[name]) for name in names) or (
            pd.api.types.is_numeric_dtype(frame[names[0]]) and not pd.api.types.is_bool_dtype(frame[names[0]])
        )
        keys = names if own_order else [size, *names]
        rising = [True] * len(names) if own_order else [False] + [True] * len(names)
        return frame.sort_values(keys, ascending=rising, na_position="last", kind="stable", ignore_index=True)


def parse_by(by: By) -> tuple[str, ...]:
    """Read ``by=``: one name, some distinct names, or None for all rows in one segment."""
    if by is None:
        return ()
    names = names_of(by) or ()
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValidationError(
            f'takes a name such as "field", distinct names, or None for one row; not {quoted(by)}.', argument="by"
        )
    return names


def found(columns: Iterable[str], name: str, *, what: str, argument: str | None = None) -> str:
    """Give the name under which a column stands; a wire name also in snake_case."""
    names = list(columns)
    spelling = next((one for one in (name, snake(name)) if one in names), None)
    if spelling is None:
        alike = get_close_matches(str(name), list(map(str, names)), 1)
        hint = f" Did you mean {alike[0]!r}?" if alike else ""
        raise ValidationError(f"{what} the column {name!r}; found {listed(names)}.{hint}", argument=argument)
    if names.count(spelling) > 1:
        raise ValidationError(f"There are two columns named {spelling!r}; rename or drop one.")
    return spelling


def segment(columns: pa.Table, rows: int, *, reserved: Collection[str]) -> Segments:
    """Number so many rows by their values in all of the columns; `reserved` are names that the report has columns for."""
    if clash := [name for name in columns.column_names if name in reserved]:
        raise ValidationError(f"names {listed(clash)}, which the report has a column for; rename yours.", argument="by")
    code = np.zeros(rows, dtype=np.int64)
    for column in columns.columns:  # a few columns, not rows
        encoded = column.combine_chunks().dictionary_encode("encode")
        indices = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        # numbered anew each time, or the product of many columns would not fit
        code = pd.factorize(code * max(len(encoded.dictionary), 1) + indices)[0].astype(np.int64)
    first = np.zeros(int(code.max(initial=-1)) + 1, dtype=np.int64)
    first[code[::-1]] = np.arange(len(code))[::-1]
    if not columns.num_columns:
        return Segments(code, pd.DataFrame(index=range(len(first))))
    groups = columns.take(pa.array(first)).to_pandas(types_mapper=PANDAS_TYPES.get, date_as_object=False)
    return Segments(code, groups)


def comparable(columns: pa.Table) -> pa.Table:
    """Turn the columns into types that can be compared and ordered: text, numbers, booleans, and instants."""
    return pa.table([_comparable(column) for column in columns.columns], names=columns.column_names)


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        chunks = [chunk.dictionary.take(chunk.indices) for chunk in column.chunks]
        return _comparable(pa.chunked_array(chunks, kind.value_type))
    if pa.types.is_duration(kind):
        try:
            return _text(column.cast(pa.duration("us")))
        except pa.ArrowInvalid:  # nanoseconds, or seconds beyond
            return _words(column)
    if str(kind).startswith("extension<pandas."):  # intervals, as of pandas.cut, and periods
        return _words(column)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        try:
            return column.cast(pa.timestamp("us", getattr(kind, "tz", None)))
        except pa.ArrowInvalid:  # nanoseconds, which are not cut off: what differs is not one group; or a year beyond
            return column if str(kind).startswith("timestamp[ns") else column.cast(pa.string())
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column
    try:
        return column.cast(pa.string())
    except (pa.ArrowException, ValueError):
        return _text(column)


#: Types within others that DuckDB reads by the microsecond.
_NANOSECONDS = re.compile(r"duration\[ns|timestamp\[ns, tz")


def _words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Make text of values as pandas does, which has types that nobody else has."""
    values = column.to_pandas()
    words = pd.Series(values.unique()).dropna()
    texts = dict(zip(words, words.map(str), strict=True))
    return pa.chunked_array([pa.array(values.map(texts), pa.string(), from_pandas=True)])


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Make text of UUIDs, durations and nested values, of which Arrow makes none that reads well."""
    if _NANOSECONDS.search(str(column.type)):
        raise ValidationError(f"A column holds {column.type}, of which the nanoseconds would be lost; make text of it.")
    try:
        with scratch() as con:
            con.register("given", pa.table({"value": column}))
            text = con.sql("select value::varchar as value from given").to_arrow_table()
    except duckdb.Error as error:
        raise ValidationError(
            f"A column holds {column.type}, which cannot be compared; make text of it. {error}"
        ) from error
    return text.column(0).cast(pa.string())
