"""Files in and out: CSV, TSV, JSON, NDJSON and Parquet; read compressed too, as relations of a DuckDB connection.

Text formats come back as text, cell for cell: nothing is guessed of a zip code or a date that belongs to the caller.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from enrichstatus.errors import ValidationError
from enrichstatus.schema import PANDAS_TYPES, listed
from enrichstatus.wire import timestamps

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
FILE = "__file__"

#: The columns of a JSON file without any object.
NOTHING = ["nothing"]

_SCANS = {
    "parquet": """
        select * from read_parquet($parquet_files, union_by_name = true, filename = '__file__')
    """,
    # Nothing of the dialect is left to guessing: a sniffed comment sign or preamble would drop rows in silence.
    "csv": """
        select * from read_csv(
            $csv_files, union_by_name = true, filename = '__file__', all_varchar = true,
            header = true, skip = 0, delim = $delimiter, quote = '"', escape = '"', comment = ''
        )
    """,
    "json": """
        select * from read_json($json_files, filename = '__file__', columns = $members)
    """,
}
# The names of the members at the top level, of all objects and not just the first few thousand
_MEMBERS = "select * from read_json($json_files, sample_size = -1, maximum_depth = 1)"
_FIRST_LINE = """
    select line
    from read_csv($files, all_varchar = true, header = false, delim = '\x1f', quote = '', escape = '', comment = '',
        columns = {'line': 'varchar'})
    limit 1
"""


def is_path(data: object) -> bool:
    """Whether `data` is a path, or a non-empty list of paths."""
    if isinstance(data, (list, tuple)):
        return bool(data) and isinstance(data[0], (str, os.PathLike))
    return isinstance(data, (str, os.PathLike))


def expand(paths: PathLike | Sequence[PathLike]) -> list[str]:
    """Resolve paths and globs (``**`` too) to the files they name, each once; every one must name something."""
    files: list[str] = []
    for given in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        path = Path(os.fspath(given)).expanduser()
        matches = [str(path)] if path.exists() else sorted(glob.glob(str(path), recursive=True))
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
    """Scan files of one format as one relation, columns matched by name; `FILE` says where a row came from."""
    kind = format_of(files[0])
    # the files are named one by one: a [ in a name is not a pattern
    values: dict[str, Any] = {f"{kind}_files": [glob.escape(file) for file in files]}
    with reading():
        if kind == "csv":
            values["delimiter"] = _delimiter(con, files[0])
        elif kind == "json":
            members = con.sql(_MEMBERS, params=values)
            names = members.columns
            if names == ["json"]:  # the reader's one column where there is no object: [] is no mistake, ["a"] is
                if members.limit(1).fetchall():
                    raise ValidationError(f"{listed(files)} holds values that are no JSON objects.")
                names = NOTHING
            values["members"] = dict.fromkeys(names, "VARCHAR")
        return con.sql(_SCANS[kind], params=values)


@contextmanager
def reading() -> Iterator[None]:
    """Say what is wrong with a file in one line, in place of the engine's page of advice."""
    try:
        yield
    except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.IOException) as error:
        told = str(error).split("\nPossible")[0].split("Try setting")[0].split("The search space")[0]
        raise ValidationError(f"The input cannot be read: {' '.join(told.split())[:400]}") from error


def _delimiter(con: duckdb.DuckDBPyConnection, file: str) -> str:
    if ".tsv" in Path(file.lower()).suffixes:
        return "\t"
    header = con.execute(_FIRST_LINE, {"files": [glob.escape(file)]}).fetchall()
    return max(",;\t|", key=str(header[0][0] if header else "").count)


def writable(path: PathLike) -> Path:
    """Check before the work that a frame can be written there after it."""
    target = Path(path).expanduser()
    if target.suffix not in _ENDINGS:
        raise ValidationError(f"{str(target)!r} has no known ending to write; expected {listed(_ENDINGS)}.")
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise ValidationError(
            f"{str(target)!r} cannot be written: {'it is' if target.is_dir() else 'there is no such'} folder."
        )
    return target


_ENDINGS = (".csv", ".tsv", ".parquet", ".json", ".ndjson", ".jsonl")


def write(table: pa.Table, path: PathLike) -> None:
    """Write a table in the format its ending names; the file appears whole or not at all. Instants in text are the wire's."""
    target = writable(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if target.suffix == ".parquet":
            pq.write_table(table, part)
        else:
            for place, column in enumerate(table.schema):
                if pa.types.is_timestamp(column.type):
                    table = table.set_column(place, column.name, timestamps(table.column(place)))
            if format_of(target) == "csv":
                delimiter = "\t" if target.suffix == ".tsv" else ","
                pacsv.write_csv(table, part, pacsv.WriteOptions(quoting_style="needed", delimiter=delimiter))
            else:
                lines = target.suffix != ".json"
                table.to_pandas(types_mapper=PANDAS_TYPES.get).to_json(
                    part, orient="records", lines=lines, force_ascii=False
                )
        part.replace(target)
    except OSError as error:
        raise ValidationError(f"{str(target)!r} cannot be written: {error.strerror or error}.") from error
    finally:
        part.unlink(missing_ok=True)
