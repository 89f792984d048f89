"""Files in: CSV, TSV, JSON, NDJSON and Parquet, compressed too, as relations of a DuckDB connection.

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
FILE = "__file__"

#: The columns of a JSON file without any object.
NOTHING = ["nothing"]

_SCANS = {
    "parquet": """
        select * from read_parquet($files, union_by_name = true, filename = '__file__')
    """,
    # Nothing of the dialect is left to guessing: a sniffed comment sign or preamble would drop rows in silence.
    "csv": """
        select * from read_csv(
            $files, union_by_name = true, filename = '__file__', all_varchar = true,
            header = true, skip = 0, delim = $delimiter, quote = '"', escape = '"', comment = ''
        )
    """,
    "json": """
        select * from read_json($files, filename = '__file__', columns = $members)
    """,
}
# The names of the members at the top level, of all objects and not just the first few thousand
_MEMBERS = "select * from read_json($files, sample_size = -1, maximum_depth = 1)"
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
    values: dict[str, Any] = {"files": [glob.escape(file) for file in files]}
    with reading():
        if kind == "csv":
            values["delimiter"] = _delimiter(con, files[0])
        elif kind == "json":
            members = con.sql(_MEMBERS, params=values).columns
            # a file of no objects, [] alone, has one column of that name for the reader
            values["members"] = dict.fromkeys(members if members != ["json"] else NOTHING, "VARCHAR")
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
    header = con.execute(_FIRST_LINE, {"files": [glob.escape(file)]}).fetchone()
    return max(",;\t|", key=str(header).count)
