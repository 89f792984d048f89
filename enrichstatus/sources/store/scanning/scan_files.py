"""The Parquet files of a scan: what their folders say, and what their ends say is in them."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import duckdb

from enrichstatus.errors import ValidationError
from enrichstatus.lookup.arguments import parse_org
from enrichstatus.schema import fold, listed, record_names
from enrichstatus.sources.store.loading.picked import NULL, Folder, folders

#: Names of partitions by day, as ISO dates.
_DAYS = ("day", "date", "dt")


class File(NamedTuple):
    """A file, and what its folders say of the records in it."""

    path: str
    #: the names of its folders that have values
    folders: tuple[Folder, ...]
    #: by these, where they say so: whose records it holds, and of which day
    org: str | None
    day: date | None

    @classmethod
    def at(cls, path: str, renames: Mapping[str, str | None] | None) -> File:
        """Read the names of the folders that a file lies in."""
        names = folders(path)
        orgs = dict.fromkeys((name.name for name in names if fold(name) == fold("orgId")), "orgId")
        renames = orgs | dict(renames or {})
        pairs = [part.split("=", 1) for part in Path(path).parts[:-1] if "=" in part]
        values = {name: unquote(value) for name, value in pairs if value != NULL}
        # where folders disagree each record is refused, for every organization
        whose = {parse_org(value) for name, value in values.items() if renames.get(name) == "orgId"} - {""}
        day = next(filter(None, map(day_of, values.items())), None)
        return cls(path, names, whose.pop() if len(whose) == 1 else None, day)


class Checked(NamedTuple):
    """A file whose end was read, and what it was like then."""

    file: File
    identity: tuple[Any, ...]
    rows: int
    bytes: int


def day_of(partition: tuple[str, str]) -> date | None:
    """Read the day that a name with a value says, if it says one."""
    name, value = partition
    try:
        return date.fromisoformat(value) if name in _DAYS else None
    except ValueError:
        return None


def check(
    con: duckdb.DuckDBPyConnection, found: Sequence[File], columns: Mapping[str, str | None] | None
) -> dict[str, tuple[int, int]]:
    """Read the ends of files, which say what is in them: each has to be whole, and to have what a record needs.

    Gives the number of records and of bytes of each.
    """
    if len(kinds := {file.folders: file.path for file in found}) > 1:
        some, other, *_ = [(path, listed(by) if by else "nothing") for by, path in kinds.items()]
        raise ValidationError(
            f"{some[0]!r} lies in folders by {some[1]}, {other[0]!r} by {other[1]}; scan those of one kind."
        )
    names = {"files": [glob.escape(file.path) for file in found]}
    for members, path in con.execute(_SCHEMAS_SQL, names).fetchall():
        try:
            record_names([*found[0].folders, *members], columns)
            folded = Counter(map(str.casefold, members))
            if alike := [name for name in members if folded[name.casefold()] > 1]:
                raise ValidationError(
                    f"DuckDB cannot distinguish {listed(alike)}; rename or drop one, or load the file."
                )
        except ValidationError as error:
            raise ValidationError(f"{path!r} does not fit: {error}") from error
    return {path: (rows, size) for path, rows, size in con.execute(_SIZES_SQL, names).fetchall()}


# Files of one schema are looked at once
_SCHEMAS_SQL = """
with members as (
    select file_name, list(name order by column_id)[2:] as names  -- the first is the whole
    from parquet_schema($files)
    group by file_name
)
select names, min(file_name) from members group by names
"""
_SIZES_SQL = "select file_name, num_rows, file_size_bytes from parquet_file_metadata($files)"
