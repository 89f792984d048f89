"""Files in: CSV, TSV, JSON, NDJSON and Parquet, compressed too, as relations of a DuckDB connection.

Text formats come back as text, cell for cell: nothing is guessed of a zip code or a date that belongs to the caller.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.csv as pacsv

from enrichstatus.errors import ValidationError
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
}
_COMPRESSIONS = (".gz", ".zst")
#: The column that says which file a row came from.
FILE = "__enrichstatus_file__"

#: The columns of a JSON file without any object.
NOTHING = ["nothing"]

# folders are read by who knows what their names mean
_PARQUET_SQL = """
select * from read_parquet(
    $parquet_files, union_by_name = true, filename = '__enrichstatus_file__', hive_partitioning = false
)
"""
_JSON_SQL = "select * from read_json($json_files, filename = '__enrichstatus_file__', columns = $members, hive_partitioning = false)"
# The names of the members at the top level, of all objects and not just the first few thousand
_MEMBERS_SQL = "select * from read_json($json_files, sample_size = -1, maximum_depth = 1, hive_partitioning = false)"


def is_path(data: object) -> bool:
    """Whether `data` is a path, or a non-empty list of paths."""
    if isinstance(data, (list, tuple)):
        return bool(data) and all(isinstance(one, (str, os.PathLike)) for one in data)
    return isinstance(data, (str, os.PathLike))


def expand(paths: PathLike | Sequence[PathLike]) -> list[str]:
    """Resolve paths and globs (``**`` too) to the files they name, each once; every one must name something."""
    files: list[str] = []
    for given in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        path = Path(os.fspath(given)).expanduser()
        try:
            matches = [str(path)] if path.exists() else sorted(glob.glob(str(path), recursive=True))
        except (OSError, ValueError) as error:
            told = getattr(error, "strerror", None) or error
            raise ValidationError(f"{os.fspath(given)!r} is no path that can be looked at: {told}.") from error
        if not matches:
            raise ValidationError(f"{os.fspath(given)!r} matches no file (looked in {Path.cwd()}).")
        files += matches
    for file in files:
        if Path(file).is_dir():
            raise ValidationError(f"{file!r} is a folder; name its files, e.g. {str(Path(file) / '*.parquet')!r}.")
        if os.path.getsize(file) == 0:
            raise ValidationError(f"{file!r} is empty (0 bytes).")
    return list(dict.fromkeys(files))


def format_of(file: PathLike) -> str:
    """Tell ``csv``, ``json`` or ``parquet`` from a file's name."""
    path = Path(file)
    suffix = Path(path.stem).suffix if path.suffix.lower() in _COMPRESSIONS else path.suffix
    try:
        return _FORMATS[suffix.lower()]
    except KeyError:
        raise ValidationError(
            f"{str(path)!r} has no known ending; expected {listed(_FORMATS)}, {' or '.join(_COMPRESSIONS)} behind it where compressed."
        ) from None


def read(con: duckdb.DuckDBPyConnection, files: Sequence[str]) -> duckdb.DuckDBPyRelation:
    """Scan files of one format as one relation, columns matched by name; `FILE` says where a row came from.

    A relation of CSV files is a stream: it can be read once.
    """
    # the files are named one by one: a [ in a name is not a pattern
    names = [glob.escape(file) for file in files]
    with reading():
        match format_of(files[0]):
            case "csv":
                stream = _csv_stream(files)
                folded = Counter(map(str.casefold, stream.schema.names))
                if alike := [name for name in stream.schema.names if folded[name.casefold()] > 1]:
                    raise ValidationError(
                        f"The columns {listed(alike)} differ in case alone; give them one name, or two."
                    )
                return con.from_arrow(stream)
            case "parquet":
                return con.sql(_PARQUET_SQL, params={"parquet_files": names})
            case _:
                for file in files:
                    _check_whole(file)
                objects = con.sql(_MEMBERS_SQL, params={"json_files": names})
                members = objects.columns
                if members == ["json"]:  # the reader's one column where there is no object: [] is no mistake, ["a"] is
                    if objects.limit(1).fetchall():
                        raise ValidationError(f"{listed(files)} holds values that are no JSON objects.")
                    members = NOTHING
                values = {"json_files": names, "members": dict.fromkeys(members, "VARCHAR")}
                return con.sql(_JSON_SQL, params=values)


def table(con: duckdb.DuckDBPyConnection, files: Sequence[str]) -> pa.Table:
    """Read files of one format whole; unlike in a relation, names may differ in case alone in a CSV file."""
    with reading():
        return _csv_stream(files).read_all() if format_of(files[0]) == "csv" else read(con, files).to_arrow_table()


def _csv_stream(files: Sequence[str]) -> pa.RecordBatchReader:
    """Stream the cells of CSV files, each with its own delimiter, as text; only an empty cell is null."""
    headers = {file: _open_csv(file, ()).schema.names for file in files}
    names = dict.fromkeys(name for header in headers.values() for name in _distinct(header))
    schema = pa.schema([(name, pa.string()) for name in (*names, FILE)])

    def batches() -> Iterator[pa.RecordBatch]:
        for file, header in headers.items():
            last: pa.RecordBatch | None = None
            for batch in _open_csv(file, header):
                columns = dict(zip(_distinct(header), batch.columns, strict=True)) | {FILE: pa.repeat(file, len(batch))}
                absent = pa.nulls(len(batch), pa.string())
                yield pa.record_batch([columns.get(name, absent) for name in schema.names], schema=schema)
                last = batch
            if (
                last is not None
                and len(last)
                and "\n" in str(last.columns[-1][-1])
                and not _tail(file).rstrip().endswith(b'"')
            ):
                raise ValidationError(f"{file!r} cannot be read: a quote is opened in it that nothing closes.")

    return pa.RecordBatchReader.from_batches(schema, batches())


def _open_csv(file: str, text: Sequence[str]) -> pacsv.CSVStreamingReader:
    with pa.input_stream(file, compression="detect") as start:
        line = start.read(1 << 16).partition(b"\n")[0].decode(errors="replace")
    delimiter = "\t" if ".tsv" in Path(file.lower()).suffixes else max(",;\t|", key=line.count)
    return pacsv.open_csv(
        file,
        # a row has to fit into a block
        read_options=pacsv.ReadOptions(block_size=1 << 24),
        # an empty line is a blank cell where there is one column only
        parse_options=pacsv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=len(text) != 1
        ),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(text, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        ),
    )


def _distinct(header: Sequence[str]) -> list[str]:
    """Tell columns of one name apart, and name those without: people's files have both."""
    names: list[str] = []
    for place, given in enumerate(header, 1):
        name = base = given or f"column {place}"
        more = (f"{base} {number}" for number in range(2, len(header) + 2))
        while name in names or (name != given and name in header):
            name = next(more)
        names.append(name)
    return names


def _check_whole(file: str) -> None:
    """Refuse a JSON file that was cut off where the engine would not notice: behind a comma, or between compressed blocks."""
    with pa.input_stream(file, compression="detect") as stream:
        first = stream.read(1 << 16)
    last = _tail(file)
    if first.startswith(b"\xef\xbb\xbf"):
        raise ValidationError(f"{file!r} begins with a byte order mark; save it as UTF-8 without one.")
    if first.lstrip().startswith(b"[") and not last.rstrip().endswith(b"]"):
        raise ValidationError(f"{file!r} cannot be read: it is cut off, its array does not end.")


def _tail(file: str) -> bytes:
    """Read the end of a file's text; of a compressed one by way of all of it, which also shows whether it is whole."""
    if Path(file).suffix.lower() not in _COMPRESSIONS:
        with Path(file).open("rb") as plain:
            plain.seek(max(0, os.path.getsize(file) - (1 << 16)))
            return plain.read()
    last = b""
    with pa.input_stream(file, compression="detect") as stream:
        while block := stream.read(1 << 22):
            last = (last + block)[-(1 << 16) :]
    return last


@contextmanager
def reading() -> Iterator[None]:
    """Say what is wrong with a file in one line, in place of the engine's page of advice."""
    try:
        yield
    except (
        duckdb.InvalidInputException,
        duckdb.ConversionException,
        duckdb.IOException,
        pa.ArrowException,
        OSError,
    ) as error:
        told = re.split(r"Try setting|\. Detail: |LINE \d", str(error))[0]
        raise ValidationError(f"The input cannot be read: {' '.join(told.split())[:400]}") from error
