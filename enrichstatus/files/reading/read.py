"""Files in: CSV, TSV, JSON, NDJSON and Parquet, compressed too, and Excel's workbooks; a fault is refused with its file and line.

Cells of CSV come back as text: nothing is guessed of a zip code or a date that belongs to the caller.

What JSON keeps: a member that is text, true or false, a whole number of 64 bits, or a number that a double holds, in every object that has
it, becomes a column of that type. Any other (nested, of several types, of more digits) becomes a column of JSON, which goes to JSON as it
stands, and to CSV and into frames as text. An absent member is null.
"""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import TypeAlias, cast

import duckdb
import pyarrow as pa

from enrichstatus.errors import HeaderWarning, ValidationError
from enrichstatus.files import text
from enrichstatus.files.reading import json_file
from enrichstatus.files.reading.csv_file import CsvFile
from enrichstatus.files.reading.lake_tables import Table, is_delta, refuse_parts, table_of
from enrichstatus.files.reading.parquet_file import duckdb_fault, schema_of, stream
from enrichstatus.files.reading.workbook import below, read_workbook
from enrichstatus.files.remote.remote import Options, find, is_remote
from enrichstatus.files.text import COMPRESSIONS
from enrichstatus.files.text import FILE as FILE
from enrichstatus.schema import listed

PathLike: TypeAlias = str | os.PathLike[str]

_FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".ndjson": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "excel",
    ".xlsm": "excel",
    ".xls": "excel",
}
#: Rows of one batch.
BATCH = 1 << 17

# what the names of folders mean is not for a reader to say
_PARQUET_SQL = """
select * from read_parquet($files, union_by_name = true, filename = '__enrichstatus_file__', hive_partitioning = false)
"""
_JSON_SQL = """
select json, __enrichstatus_file__ from read_json_objects($files, filename = '__enrichstatus_file__', hive_partitioning = false)
"""
# What all values of a member are: see the module's first lines. A whole number beyond 64 bits is a DOUBLE here, with all of its digits
_KINDS_SQL = """
with cells as (
    select
        unnest(range(len($pointers))) as place,
        unnest(json_type(json, $pointers)) as kind,
        unnest(json_extract_string(json, $pointers)) as value
    from objects
)
select
    place,
    case
        when bool_and(kind = 'VARCHAR') then 'VARCHAR'
        when bool_and(kind = 'BOOLEAN') then 'BOOLEAN'
        when bool_and(kind in ('BIGINT', 'UBIGINT') and try_cast(value as bigint) is not null) then 'BIGINT'
        when bool_and(kind = 'UBIGINT') then 'UBIGINT'
        when bool_and(case kind
            when 'DOUBLE' then regexp_matches(value, '[.eE]') and isfinite(value::double)
            when 'BIGINT' then abs(value::hugeint) <= 1::hugeint << 53
            when 'UBIGINT' then value::hugeint <= 1::hugeint << 53
            else false
        end) then 'DOUBLE'
        else 'JSON'
    end
from cells
where kind <> 'NULL'
group by place
"""
_KINDS = {
    "VARCHAR": pa.string(),
    "BOOLEAN": pa.bool_(),
    "BIGINT": pa.int64(),
    "UBIGINT": pa.uint64(),
    "DOUBLE": pa.float64(),
    "JSON": pa.json_(),
}


def is_path(data: object) -> bool:
    """Whether `data` is a path, or a non-empty list of paths."""
    if isinstance(data, (list, tuple)):
        return bool(data) and all(isinstance(one, (str, os.PathLike)) for one in data)
    return isinstance(data, (str, os.PathLike))


def expand(paths: PathLike | Sequence[PathLike], storage_options: Options = None) -> list[str]:
    """Resolve paths and globs (``**`` too) to the files they name, each once; every one must name something.

    Files elsewhere are found too, by their names as they are shown; to be read they have to be `at_hand`.
    """
    files: list[str] = []
    for given in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        if is_remote(given):
            files += [file.name for file in find(str(given), storage_options)]
            continue
        path = Path(os.fspath(given)).expanduser()
        refuse_parts(str(path))
        try:
            matches = [str(path)] if path.exists() else sorted(glob.glob(str(path), recursive=True))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValidationError(f"{os.fspath(given)!r} is not a path that can be looked at: {reason}.") from error
        if not matches:
            raise ValidationError(f"{os.fspath(given)!r} matches no file (looked in {Path.cwd()}).")
        files += matches
    for file in files:
        if is_remote(file) or is_delta(file):
            continue
        if Path(file).is_dir():
            raise ValidationError(f"{file!r} is a folder; name its files, e.g. {str(Path(file) / '*.parquet')!r}.")
        if os.path.getsize(file) == 0:
            raise ValidationError(f"{file!r} is empty (0 bytes).")
    return list(dict.fromkeys(files))


def format_of(file: PathLike) -> str:
    """Return ``csv``, ``json``, ``parquet`` or ``excel``, by a file's name; ``delta`` of a folder that holds such a table."""
    if is_delta(file):
        return "delta"
    path = Path(file)
    suffix = Path(path.stem).suffix if path.suffix.lower() in COMPRESSIONS else path.suffix
    try:
        return _FORMATS[suffix.lower()]
    except KeyError:
        raise ValidationError(
            f"{str(path)!r} has no known ending; expected {listed(_FORMATS)}, followed by {' or '.join(COMPRESSIONS)} where compressed."
        ) from None


class Files:
    """Files of one format, whose columns are matched by name.

    Parameters
    ----------
    paths : path, glob, or list of these
    encoding : str, optional
        How text is encoded, where it is neither UTF-8 nor begins with a byte order mark, e.g. ``cp1252``.
    skip : int
        So many lines stand above the header of each CSV file, or sheet.
    multiline : bool
        Cells in quotes may hold lines that look like rows.
    sheet : str, optional
        The sheet of each workbook; unless given, there must be one only that holds something.
    con : duckdb.DuckDBPyConnection, optional
        Where JSON is looked at; to open a connection takes longer than to look at a small file.

    Attributes
    ----------
    names : list of str
        The names of the columns as they stand in the files; one that stands twice in a file is here twice.
    columns : list of str
        The names in `stream`, each different: those of CSV and of sheets that stand twice, or not at all, have a number.
    """

    def __init__(
        self,
        paths: PathLike | Sequence[PathLike],
        *,
        encoding: str | None = None,
        skip: int = 0,
        multiline: bool = False,
        sheet: str | None = None,
        con: duckdb.DuckDBPyConnection | None = None,
    ):
        self.paths = expand(paths)
        kinds = sorted(set(map(format_of, self.paths)))
        if len(kinds) > 1:
            raise ValidationError(f"Tasks are read from files of one format, not of {listed(kinds)} at once.")
        self.kind = kinds[0]
        text.check_options(encoding, skip, multiline, sheet)
        if sheet is not None and self.kind != "excel":
            raise ValidationError(f"is for workbooks, not for {self.paths[0]!r}.", argument="sheet")
        with reading():
            match self.kind:
                case "csv":
                    self._csv = [CsvFile.at(path, encoding, skip, multiline) for path in self.paths]
                    headers = [file.names for file in self._csv]
                case "parquet":
                    self._schemas = {path: schema_of(path) for path in self.paths}
                    headers = [schema.names for schema in self._schemas.values()]
                    self._refuse_alike(headers)
                case "delta":
                    if len(self.paths) > 1:
                        raise ValidationError(f"Tasks are read from one Delta table, not of {len(self.paths)} at once.")
                    table = cast("Table", table_of(self.paths[0]))
                    self._rows = table.stream(table.names).read_all()  # whole: every stream has the rows in one order
                    headers = [table.names]
                case "excel":
                    sheets = [read_workbook(path, sheet, skip) for path in self.paths]
                    headers = [names for names, _ in sheets]
                case _:
                    self._values, headers = json_file.members(self.paths, encoding, con)
                    self._kinds: dict[str, str] = {}
        # a name that stands twice in one file is matched with itself, first with first
        places = dict.fromkeys(place for header in headers for place in _counted(header))
        self.names = [name for name, _ in places]
        self.columns = distinct(self.names) if self.kind in ("csv", "excel") else self.names
        if self.kind == "excel":
            files = zip(map(_counted, headers), (columns for _, columns in sheets), self.paths, strict=True)
            self._sheets = below(files, places)

    def warn_renamed(self) -> None:
        """Say which columns come out under names that do not stand in the files."""
        if renamed := [column for name, column in zip(self.names, self.columns, strict=True) if name != column]:
            warnings.warn(
                f"In {listed(self.paths, 3)} names of columns are missing or stand twice; such columns are called "
                f"{', '.join(map(repr, renamed[:5]))}{' …' if len(renamed) > 5 else ''} here. Give each a name of its own.",
                HeaderWarning,
                stacklevel=4,
            )

    def _refuse_alike(self, headers: Sequence[Sequence[str]]) -> None:
        """Refuse names of Parquet files that DuckDB would match, though they differ."""
        folded = Counter(name.casefold() for name in dict.fromkeys(name for header in headers for name in header))
        alike = [name for header in headers for name in header if folded[name.casefold()] > 1]
        if alike and any(header != headers[0] for header in headers):
            raise ValidationError(
                f"The columns {listed(dict.fromkeys(alike))} of {listed(self.paths, 3)} differ in case alone; give them one name, or two."
            )

    def relation(self, con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        """Scan the files as a relation: a column for each of `names` in their order, and `FILE`; DuckDB's are distinguished by numbers.

        A relation of CSV is a stream: it can be read once.
        """
        with reading():
            match self.kind:
                case "csv":
                    columns = distinct([*self.names, FILE], str.casefold)
                    return con.from_arrow(self._stream_csv(columns, columns))
                case "excel":
                    return con.from_arrow(self._sheets.rename_columns(distinct([*self.names, FILE], str.casefold)))
                case "parquet":
                    return con.sql(_PARQUET_SQL, params={"files": list(map(glob.escape, self.paths))})
                case _:
                    return self._members(self._objects(con), dict.fromkeys(self.names, "VARCHAR"))

    def stream(self, con: duckdb.DuckDBPyConnection, only: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """Stream the rows in order, with all of `columns` or some of them."""
        names = self.columns if only is None else list(only)
        with reading():
            match self.kind:
                case "csv":
                    return self._stream_csv([*self.columns, FILE], names)
                case "delta":
                    rows = self._rows.select(names)
                    return pa.RecordBatchReader.from_batches(rows.schema, iter(rows.to_batches(BATCH)))
                case "parquet":
                    return stream(self._schemas, names, BATCH)
                case "excel":
                    table = self._sheets.rename_columns([*self.columns, FILE]).select(names)
                    return pa.RecordBatchReader.from_batches(table.schema, iter(table.to_batches(BATCH)))
                case _ if not names:  # DuckDB has no relation without columns
                    return pa.RecordBatchReader.from_batches(pa.schema([]), iter(()))
                case _:
                    return self._stream_json(con, names)

    def _stream_csv(self, names: Sequence[str], only: Sequence[str]) -> pa.RecordBatchReader:
        """Stream the cells of CSV files, each with its own delimiter, as text; only an empty cell is null."""
        schema = pa.schema([(name, pa.string()) for name in only])
        counted = [*_counted(self.names), (FILE, 0)]
        places = [counted[names.index(name)] for name in only]

        def batches() -> Iterator[pa.RecordBatch]:
            for file in self._csv:
                for batch in file.batches():
                    found = dict(zip(_counted(file.names), batch.columns, strict=True))
                    found[FILE, 0] = pa.repeat(file.path, len(batch))
                    absent = pa.nulls(len(batch), pa.string())
                    yield pa.record_batch([found.get(place, absent) for place in places], schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _stream_json(self, con: duckdb.DuckDBPyConnection, names: Sequence[str]) -> pa.RecordBatchReader:
        """Stream members of the objects, each as what it is in all of them."""
        objects = self._objects(con)
        if not self._kinds:
            found = con.sql(_KINDS_SQL, params={"pointers": list(map(_pointer, self.names))}).fetchall()
            self._kinds = dict.fromkeys(self.names, "VARCHAR") | {self.names[place]: kind for place, kind in found}
        kinds = {name: self._kinds[name] for name in names}
        schema = pa.schema([(name, _KINDS[kind]) for name, kind in kinds.items()])

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in self._members(objects, kinds).to_arrow_reader(BATCH):
                made = batch.columns[:-1]
                for place, kind in enumerate(schema.types):
                    if kind == pa.json_():
                        made[place] = pa.ExtensionArray.from_storage(kind, made[place])
                yield pa.record_batch(made, schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _objects(self, con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        """Scan the files as objects."""
        # one scan, unless Python has read some: then file by file, or their order would be lost
        read_here = any(table is not None for table in self._values.values())
        scans = [[path] for path in self.paths] if read_here else [self.paths]
        parts = []
        for paths, table in zip(scans, self._values.values(), strict=False):
            files = {"files": list(map(glob.escape, paths))}
            parts.append(con.sql(_JSON_SQL, params=files) if table is None else con.from_arrow(table))
        return reduce(duckdb.DuckDBPyRelation.union, parts)

    def _members(self, objects: duckdb.DuckDBPyRelation, kinds: Mapping[str, str]) -> duckdb.DuckDBPyRelation:
        """Take members of the objects, found by their exact names, as these kinds of values, and `FILE`."""
        call, column, value = duckdb.FunctionExpression, duckdb.ColumnExpression, duckdb.ConstantExpression
        pointers = value(list(map(_pointer, kinds)))
        lists = [call(function, column("json"), pointers).alias(function) for function in _EXTRACT]
        picked = []
        for place, kind in enumerate(kinds.values(), 1):
            text, json = (call("list_extract", column(function), value(place)) for function in _EXTRACT)
            whole = duckdb.CaseExpression(text.isnotnull(), json.cast("VARCHAR"))
            picked.append(whole if kind == "JSON" else text.cast(kind))
        columns = distinct([*kinds, FILE], str.casefold)
        named = [cell.alias(name) for cell, name in zip([*picked, column(FILE)], columns, strict=True)]
        return objects.select(*lists, column(FILE)).select(*named)


_EXTRACT = ("json_extract_string", "json_extract")


def _pointer(member: str) -> str:
    """Make the JSON pointer of a member."""
    return "/" + member.replace("~", "~0").replace("/", "~1")


def _counted(names: Sequence[str]) -> list[tuple[str, int]]:
    """Number names that stand more than once."""
    seen: Counter[str] = Counter()
    counted = []
    for name in names:
        counted.append((name, seen[name]))
        seen[name] += 1
    return counted


def distinct(names: Sequence[str], fold: Callable[[str], str] = str) -> list[str]:
    """Distinguish columns of one name by a number, and name those without one: real files have both."""
    made: dict[str, str] = {}
    given = {fold(name) for name in names}
    for place, name in enumerate(names, 1):
        base = new = name or f"column {place}"
        more = (f"{base} {number}" for number in range(2, len(names) + 2))
        while fold(new) in made or (new != name and fold(new) in given):
            new = next(more)
        made[fold(new)] = new
    return list(made.values())


@contextmanager
def reading() -> Iterator[None]:
    """Say what is wrong with a file in one line, in place of DuckDB's page of advice."""
    try:
        yield
    except (
        duckdb.InvalidInputException,
        duckdb.ConversionException,
        duckdb.IOException,
        pa.ArrowException,
        OSError,
    ) as error:
        if ours := _OURS.search(str(error)):
            raise ValidationError(ours[1]) from error
        if (fault := duckdb_fault(error)) is not None:
            raise ValidationError(f"The input cannot be read: {fault}") from error
        reason = re.split(r"Try setting|\. Detail: |LINE \d", str(error))[0]
        raise ValidationError(f"The input cannot be read: {' '.join(reason.split())[:400]}") from error


#: What a stream of ours raised, within what DuckDB makes of it.
_OURS = re.compile(
    r"reading the Arrow source failed: \w+: (.*)\. Detail: Python exception: .*(?:Validation|EnrichStatus)Error",
    re.DOTALL,
)
