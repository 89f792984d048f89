"""The columns of a record picked out of whatever came: files, frames, folders that say something, tables of a lake."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from enrichstatus.errors import ValidationError
from enrichstatus.files.reading import read as files
from enrichstatus.files.reading.lake_tables import Only, Renamed, Table
from enrichstatus.lookup.arguments import parse_epoch
from enrichstatus.schema import COLUMNS, EPOCH, INSTANT, STRAY, Epoch, epoch_micros, instant_text, listed, record_names


def of_table(
    con: duckdb.DuckDBPyConnection, table: Table, columns: Mapping[str, str | None] | None, only: Only | None = None
) -> duckdb.DuckDBPyRelation:
    """Stream the columns of a record out of a table of a lake."""
    names = record_names(table.names, columns)
    # DuckDB does not distinguish names that differ in case alone
    used = dict.fromkeys(chain.from_iterable(names.values()))
    places = {name: f"column {place}" for place, name in enumerate(used)}
    con.register("lake", Renamed(table, places, only or {}))
    return pick(con.table("lake"), names, places, objects=False)


def with_instants(relation: duckdb.DuckDBPyRelation, epoch: Epoch | None) -> duckdb.DuckDBPyRelation:
    """Put the instants of records that `pick` gave beside them, null where they are not: ``castCreatedAt`` and ``castUpdatedAt``."""
    parse_epoch(epoch)
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    created, updated = (_instant(name, types[name], epoch) for name in ("createdAt", "updatedAt"))
    return relation.project(f"*, {created} as castCreatedAt, {updated} as castUpdatedAt")


def _instant(name: str, kind: str, epoch: Epoch | None) -> str:
    """Read an instant: of text what `schema.INSTANT` matches, of which it takes the time to look only where it is not as on the wire."""
    if kind != "VARCHAR":
        return f"try_cast({name} as timestamptz)"
    number = ""
    if epoch:
        number = f"when regexp_full_match({name}, '{EPOCH}') then make_timestamptz({epoch_micros(name, epoch)})"
    hours = " or ".join(f"{name} like '____-__-__T{tens}_:__:__.___Z'" for tens in "012")
    spelled = instant_text(name, f"'{INSTANT}'")
    return f"""case
        when ({hours}) and {name} >= '0' and {name} not like '%T24%' and {name} not like '% %'
            then try_cast({name} as timestamptz)
        when regexp_full_match({name}, '{INSTANT}')
            then coalesce(try_cast({name} as timestamptz), try_cast({spelled} as timestamptz))
        {number}
    end"""


class Folder(NamedTuple):
    """Folders that say something of the records in them: of ``orgId=org_1/`` the `name` is ``orgId``."""

    name: str

    def __str__(self) -> str:
        return self.name


#: What a writer of partitions calls the one of nulls.
NULL = "__HIVE_DEFAULT_PARTITION__"


def folders(path: str) -> tuple[Folder, ...]:
    """Name the folders above a file that have values."""
    pairs = [part.split("=", 1) for part in Path(path).parts[:-1] if "=" in part]
    if strange := ["=".join(pair) for pair in pairs if "=" in pair[1]]:
        raise ValidationError(f"The folder {strange[0]!r} holds two =; in a value it is written %3D.")
    if twice := [name for name, value in pairs if value != dict(pairs)[name]]:
        raise ValidationError(f"A file stands in two folders {twice[0]}=…, and they differ; move it into one.")
    return tuple(dict.fromkeys(Folder(name) for name, _ in pairs))


#: The types a column may arrive in besides text; everything else is turned into text first, so that it can be checked and quoted.
_INSTANTS = {"TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE"}
_NATIVE = {
    "id": {"UUID"},
    "entityId": {"UUID"},
    "createdAt": _INSTANTS,
    "updatedAt": _INSTANTS,
    "dataFound": {"BOOLEAN"},
}


def pick(
    relation: duckdb.DuckDBPyRelation,
    names: Mapping[str, Sequence[Any]],
    places: Mapping[Any, str] | None = None,
    *,
    objects: bool,
) -> duckdb.DuckDBPyRelation:
    """Pick every column of a record, of which `names` says what it is called there (see `record_names`); absent ones are null.

    `places` says what the relation calls these, where that is something else. Of several the first that is not empty counts, and
    ``clash`` says where they disagree. An absent entity type is a person; in JSON objects, which leave members out one by one, so is
    a null one.
    """
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    picked, clashes = [], []
    for ours in COLUMNS:
        columns = [_column(name, (places or {}).get(name, name), types, ours) for name in names.get(ours, ())]
        if len(columns) > 1:
            columns = [_text(column) for column in columns]
            clashes.append(_clash(ours, columns))
        if ours == "entityType" and (objects or not columns):
            columns.append(_constant("person"))
        picked.append(duckdb.CoalesceOperator(*columns, _constant(None)).alias(ours))
        if ours == "orgId" and STRAY in names:
            stray = [_text(_column(name, (places or {}).get(name, name), types)) for name in names[STRAY]]
            clashes.append(_nobodys(_text(duckdb.CoalesceOperator(*columns, _constant(None))), stray, names[STRAY]))
    file = duckdb.ColumnExpression(files.FILE) if files.FILE in types else _constant(None)
    clash = duckdb.CoalesceOperator(*clashes, _constant(None)) if clashes else _constant(None)
    return relation.select(*picked, file.cast("VARCHAR").alias("file"), clash.cast(_PROBLEM).alias("clash"))


_PROBLEM = "STRUCT(name VARCHAR, value VARCHAR, reason VARCHAR)"
_constant = duckdb.ConstantExpression
_call = duckdb.FunctionExpression


def _column(name: Any, place: str, types: Mapping[str, str], ours: str = "") -> duckdb.Expression:
    """Give a column as it came where its type is a native one, else as text; that of a folder from the path of the file."""
    if isinstance(name, Folder):
        pattern = _constant(rf".*[/\\]{re.escape(name.name)}=([^/\\]*)[/\\]")
        value = _call("regexp_extract", duckdb.ColumnExpression(files.FILE), pattern, _constant(1))
        return _call("nullif", _call("url_decode", value), _constant(NULL))
    column, kind = duckdb.ColumnExpression(place), types[place]
    if kind not in _NATIVE.get(ours, ()):
        column = column.cast("VARCHAR")
    if kind in ("DOUBLE", "FLOAT"):  # what pandas makes of whole numbers with a blank among them: 17.0 was 17
        column = _call("regexp_replace", column, *map(_constant, (r"\.0$", "")))
    return column


def _text(column: duckdb.Expression) -> duckdb.Expression:
    return _call("nullif", _call("trim", column.cast("VARCHAR")), _constant(""))


def _clash(ours: str, columns: Sequence[duckdb.Expression]) -> duckdb.Expression:
    """Say what is wrong where columns of one meaning disagree; no message names another organization."""
    values = _call("list_value", *columns)
    value = _constant(None) if ours == "orgId" else _call("array_to_string", values, _constant(", "))
    several = _call("len", _call("list_distinct", values)) > _constant(1)
    return _wrong(several, ours, value, "stands there more than once, and differs")


def _nobodys(own: duckdb.Expression, stray: Sequence[duckdb.Expression], names: Sequence[Any]) -> duckdb.Expression:
    """Say what is wrong where a record has no organization, but something that looks like one."""
    reason = (
        f'is missing, but {listed(names)} looks like it: columns={{"{names[0]}": "orgId"}} says that it is, '
        f'columns={{"{names[0]}": None}} that it is not'
    )
    given = duckdb.CoalesceOperator(*stray, _constant(None)).isnotnull()
    return _wrong(own.isnull() & given, "orgId", _constant(None), reason)


def _wrong(when: duckdb.Expression, name: str, value: duckdb.Expression, reason: str) -> duckdb.Expression:
    named = zip((_constant(name), value.cast("VARCHAR"), _constant(reason)), ("name", "value", "reason"), strict=True)
    return duckdb.CaseExpression(when, _call("struct_pack", *(part.alias(label) for part, label in named)))
