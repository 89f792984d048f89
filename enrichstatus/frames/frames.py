"""Frames in, frames of the same kind out: pandas, polars, narwhals, Arrow, DuckDB relations, others', lists of dicts and paths.

Of a frame no more is used than its columns, some of them as Arrow, some of its rows, and itself with columns added.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from enrichstatus.errors import ValidationError, written
from enrichstatus.files.plain import as_text
from enrichstatus.files.reading import read as files
from enrichstatus.files.remote.remote import at_hand
from enrichstatus.files.scratch import scratch
from enrichstatus.files.text import check_options
from enrichstatus.frames.other_frames import LOST, as_relation, other, remedy
from enrichstatus.schema import KEY, PANDAS_TYPES, listed


class Tabular(Protocol):
    """A frame of some kind of the caller's: pandas, polars, Arrow, a DuckDB relation, Spark."""

    @property
    def columns(self) -> Any: ...  # noqa: D102


#: The kind of the caller's frame, which comes back; a list of dicts and a path give pandas.
if TYPE_CHECKING:
    from typing_extensions import TypeVar  # the type checker's own: no Python before 3.13 knows defaults

    Kind = TypeVar("Kind", bound=Tabular, default=pd.DataFrame)
else:
    from typing import TypeVar

    Kind = TypeVar("Kind")
ListOrPath: TypeAlias = "Sequence[Mapping[str, Any]] | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"

Rows = npt.NDArray[np.int64]


class Named(Protocol):
    """What has named columns."""

    @property
    def columns(self) -> list[str]: ...  # noqa: D102
    @property
    def caseless(self) -> bool:
        """Whether names that differ in case alone are one name."""


class Frame(Named, Protocol):
    """A caller's frame, whatever its kind."""

    #: whether rows are JSON objects, in which an absent member and a null one look the same
    objects: bool

    def __len__(self) -> int: ...
    def arrow(self, names: Sequence[str]) -> pa.Table:
        """Some of the columns."""

    def take(self, rows: Rows) -> Frame:
        """Some of the rows, by position, in the order given."""

    def drop(self, names: Sequence[str]) -> Frame:
        """All but some of the columns; an index, where there is one, counts anew."""

    def assign(self, columns: pa.Table) -> Any:
        """The caller's own frame with columns added (or replaced), as the caller's kind."""


def read(data: Any, **reading: Any) -> Frame:
    """Read anything tabular: see the module's first line for the kinds; the options are those of files."""
    if isinstance(data, (_Pandas, _Polars, _Arrow, _Wrapped)):
        return data
    check_options(**reading)
    if files.is_path(data):
        with at_hand(data) as near, scratch() as con:
            given = files.Files(near.paths, **reading, con=con)
            return of_files(given, to_pandas, con=con)
    if any(reading.values()):
        raise ValidationError("encoding=, skip=, multiline= and sheet= say how files are read; this is not a file.")
    module = type(data).__module__
    if module.partition(".")[0] == "narwhals" and hasattr(data, "columns"):
        # of whichever of its promises, e.g. narwhals.stable.v1
        return _Wrapped(read(data.to_native()), import_module(module.removesuffix(".dataframe")).from_native)
    if isinstance(data, pd.DataFrame):
        if data.columns.nlevels > 1:
            raise ValidationError(
                "The frame has columns of several levels (MultiIndex); give each one name first, e.g. "
                'frame.columns = ["_".join(map(str, name)) for name in frame.columns].'
            )
        return _Pandas(data)
    if module.partition(".")[0] == "polars" and hasattr(data, "lazy"):
        return _Polars(data)
    if isinstance(data, (list, tuple)):
        if strangers := set(map(type, data)) - {dict}:
            raise ValidationError(
                f"A list must hold dicts or paths; this one holds {listed(kind.__name__ for kind in strangers)}."
            )
        try:
            # an empty list is a list of no tasks, not a list without the columns of a task
            nothing = pd.DataFrame(columns=list(KEY), dtype=PANDAS_TYPES[pa.string()])
            return _Pandas(_of_dicts(data) if data else nothing, objects=True)
        except UnicodeError as error:
            raise ValidationError(f"The list holds text that is not Unicode: {error}") from error
    if isinstance(data, duckdb.DuckDBPyRelation):
        if lost := [name for name, kind in zip(data.columns, data.types, strict=True) if LOST.search(str(kind))]:
            raise ValidationError(
                f"Arrow cannot carry the column {listed(lost)} unchanged; cast it to text, or leave it out."
            )
        try:
            table = data.to_arrow_table()
        except duckdb.Error as error:
            raise ValidationError(f"The DuckDB relation cannot be read: {error}") from error
        return _Arrow(table, restore=partial(as_relation, data), caseless=True)
    if isinstance(data, pa.Table):
        return _Arrow(data)
    if (found := other(data)) is not None:
        return _Wrapped(read(found[0]), found[1])
    if hasattr(data, "__arrow_c_stream__"):
        with suppress(pa.ArrowException, ValueError, TypeError):  # a Series has one too
            return _Arrow(pa.table(data))
    raise ValidationError(
        "Expected a DataFrame (pandas, polars), an Arrow table, a DuckDB relation, a list of dicts or a path, "
        f"not {type(data).__name__}.{remedy(data)}"
    )


def of_files(
    given: files.Files,
    restore: Callable[[pa.Table], Any] | None = None,
    *,
    con: duckdb.DuckDBPyConnection | None = None,
) -> Frame:
    """Read files whole; what comes back is an Arrow table, unless `restore` makes another frame of it."""
    given.warn_renamed()
    with scratch() if con is None else con.cursor() as cursor, files.reading():
        return piece(given, given.stream(cursor).read_all(), restore)


def piece(given: files.Files, table: pa.Table, restore: Callable[[pa.Table], Any] | None = None) -> Frame:
    """Take some rows of files for a frame."""
    objects = given.kind == "json"
    if objects and not given.names:
        table = pa.schema([(name, pa.string()) for name in KEY]).empty_table()
    twice = [name for name, count in Counter(given.names).items() if count > 1]
    return _Arrow(table, restore or _unchanged, objects=objects, twice=twice)


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Make a frame of a file's rows; whole numbers stay whole beside nulls, and what pandas has no type for stays Arrow's."""
    table = as_text(table)
    try:
        frame: pd.DataFrame = table.to_pandas(types_mapper=PANDAS_TYPES.get)
    except (pa.ArrowException, ValueError, OverflowError):  # nanoseconds of a day, a year beyond 9999
        columns = [_series(column) for column in table.columns]
        frame = pd.concat(columns, axis=1).set_axis(table.column_names, axis=1)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_integer(column.type) and column.null_count:
            frame[name] = column.to_pandas(types_mapper=_WHOLE.get)
    return frame


def _series(column: pa.ChunkedArray) -> pd.Series[Any]:
    try:
        series: pd.Series[Any] = column.to_pandas(types_mapper=PANDAS_TYPES.get)
        return series
    except (pa.ArrowException, ValueError, OverflowError):
        return pd.Series(pd.array(column, dtype=pd.ArrowDtype(column.type)))


_WHOLE = {
    pa.type_for_alias(name.lower()): pd.api.types.pandas_dtype(name)
    for name in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
}


def _of_dicts(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Make a frame of dicts; of whole numbers beside nulls pandas would make floats, which change those beyond 2**53."""
    frame = pd.DataFrame(rows)
    floats = [name for name, dtype in frame.dtypes.items() if dtype == "float64"]
    exact = pd.DataFrame(rows, columns=floats, dtype=object)
    for name in floats:
        if pd.api.types.infer_dtype(exact[name], skipna=True) == "integer":
            try:
                frame[name] = exact[name].astype("Int64")
            except OverflowError:
                frame[name] = exact[name]
    return frame


class _Pandas:
    caseless = False

    def __init__(self, frame: pd.DataFrame, *, objects: bool = False):
        self.frame, self.objects = frame, objects
        self.columns: list[str] = list(frame.columns)

    def __len__(self) -> int:
        return len(self.frame)

    def arrow(self, names: Sequence[str]) -> pa.Table:
        return pa.table([_arrow(self.frame[name]) for name in names], names=list(map(str, names)))

    def take(self, rows: Rows) -> _Pandas:
        return _Pandas(self.frame.take(rows), objects=self.objects)

    def drop(self, names: Sequence[str]) -> _Pandas:
        return _Pandas(self.frame.drop(columns=list(names)).reset_index(drop=True), objects=self.objects)

    def assign(self, columns: pa.Table) -> pd.DataFrame:
        # of a few rows the threads would take longer to start than the work
        new = columns.to_pandas(types_mapper=PANDAS_TYPES.get, use_threads=len(columns) > 10_000)
        # arrays, not Series: an index with duplicates must not be aligned
        return self.frame.assign(**{name: new[name].array for name in new.columns})


def _arrow(column: pd.Series[Any]) -> pa.Array | pa.ChunkedArray:
    with suppress(pa.ArrowException, ValueError, OverflowError):
        return pa.array(column, from_pandas=True)
    with suppress(pa.ArrowException, ValueError):
        # UUID objects and mixtures: as text, the checks can evaluate and quote them
        return pa.array(column.astype(PANDAS_TYPES[pa.string()]), from_pandas=True)
    try:
        texts = column.map(written, na_action="ignore")
        return pa.array(texts.astype(PANDAS_TYPES[pa.string()]), from_pandas=True)
    except (pa.ArrowException, ValueError) as error:
        raise ValidationError(f"The column {column.name!r} cannot be read as text: {error}") from error


class _Polars:
    objects = False
    caseless = False

    def __init__(self, frame: Any, *, lazy: bool = False):
        self.lazy = lazy or hasattr(frame, "collect")
        self.frame = frame.collect() if hasattr(frame, "collect") else frame

    @property
    def columns(self) -> list[str]:
        return list(self.frame.columns)

    def __len__(self) -> int:
        return int(self.frame.height)

    def arrow(self, names: Sequence[str]) -> pa.Table:
        import polars as pl

        frame, kinds = self.frame.select(names), (pl.Int64, pl.Decimal(38, 0), pl.String)
        wide = [_narrower(one, kinds) for one in frame.get_columns() if str(one.dtype) in ("Int128", "UInt128")]
        try:
            # the oldest types: of string views Arrow cannot take rows
            return frame.with_columns(wide).to_arrow(compat_level=pl.CompatLevel.oldest())
        except pa.ArrowException as error:
            raise ValidationError(f"Arrow cannot carry the column {listed(names)}; make text of it: {error}") from error

    def take(self, rows: Rows) -> _Polars:
        return _Polars(self.frame[rows], lazy=self.lazy)

    def drop(self, names: Sequence[str]) -> _Polars:
        return _Polars(self.frame.drop(names), lazy=self.lazy)

    def assign(self, columns: pa.Table) -> Any:
        import polars as pl

        frame = self.frame.with_columns(pl.DataFrame(columns).get_columns())
        return frame.lazy() if self.lazy else frame


def _narrower(series: Any, kinds: Sequence[Any]) -> Any:
    """Turn whole numbers of 128 bits, which Arrow has no type for, into the first kind that holds them."""
    return next(one for kind in kinds if (one := series.cast(kind, strict=False)).null_count() == series.null_count())


def _unchanged(answer: pa.Table) -> pa.Table:
    """Give it as it is; unlike a lambda it can be pickled."""
    return answer


#: Types of which Arrow cannot take rows, and those that say the same.
_VIEWS = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}


class _Arrow:
    def __init__(
        self,
        table: pa.Table,
        restore: Callable[[pa.Table], Any] = _unchanged,
        *,
        caseless: bool = False,
        objects: bool = False,
        twice: Sequence[str] = (),
    ):
        self.table, self.restore = table, restore
        self.objects, self.caseless = objects, caseless
        #: names that stand twice in the header of a file: the columns have names of their own, but which is meant is not known
        self.twice = twice

    @property
    def columns(self) -> list[str]:
        return [*self.table.column_names, *self.twice]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def arrow(self, names: Sequence[str]) -> pa.Table:
        table = as_text(self.table.select(names))
        return table.cast(pa.schema([field.with_type(_VIEWS.get(field.type, field.type)) for field in table.schema]))

    def _of(self, table: pa.Table) -> _Arrow:
        return _Arrow(table, self.restore, caseless=self.caseless, objects=self.objects, twice=self.twice)

    def take(self, rows: Rows) -> _Arrow:
        schema = self.table.schema
        plain = pa.schema([field.with_type(_VIEWS.get(field.type, field.type)) for field in schema])
        return self._of(self.table.cast(plain).take(rows).cast(schema) if plain != schema else self.table.take(rows))

    def drop(self, names: Sequence[str]) -> _Arrow:
        return self._of(self.table.drop_columns(list(names)))

    def assign(self, columns: pa.Table) -> Any:
        table = self.table
        if replaced := [name for name in columns.column_names if name in table.column_names]:
            table = table.drop_columns(replaced)
        for name in columns.column_names:
            table = table.append_column(name, columns.column(name))
        return self.restore(table)


class _Wrapped:
    """A frame that narwhals has wrapped, or that another library holds; what comes back is wrapped again."""

    def __init__(self, frame: Frame, wrap: Callable[[Any], Any]):
        self._frame, self._wrap = frame, wrap
        self.columns, self.caseless = frame.columns, frame.caseless
        self.objects, self.arrow = frame.objects, frame.arrow

    def __len__(self) -> int:
        return len(self._frame)

    def take(self, rows: Rows) -> _Wrapped:
        return _Wrapped(self._frame.take(rows), self._wrap)

    def drop(self, names: Sequence[str]) -> _Wrapped:
        return _Wrapped(self._frame.drop(names), self._wrap)

    def assign(self, columns: pa.Table) -> Any:
        return self._wrap(self._frame.assign(columns))
