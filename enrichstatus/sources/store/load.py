"""Records into a store: any input, one transaction, the same end whatever the order and however often."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from enrichstatus import frames
from enrichstatus.errors import StoreError, ValidationError
from enrichstatus.files import read as files
from enrichstatus.lookup.arguments import Errors, choice
from enrichstatus.lookup.tasks import KEYS_SQL, PROBLEMS_SQL, to_pandas
from enrichstatus.schema import COLUMNS, find, listed, snake

_LOAD_SQL = Path(__file__).with_name("load.sql").read_text(encoding="utf-8")
_MERGE_SQL = Path(__file__).with_name("merge.sql").read_text(encoding="utf-8")
_REQUIRED = ("createdAt", "entityId", "field", "status")


@dataclass(frozen=True)
class LoadReport:
    """What became of the records of one load; ``read`` is the sum of the four others.

    Attributes
    ----------
    read : int
        Rows read.
    inserted : int
        Records whose id was new.
    updated : int
        Records that replaced an older version of themselves.
    unchanged : int
        Rows that told nothing new: stored already, or superseded by a newer version.
    rejected : int
        Bad rows, which were not loaded (``errors="reject"``).
    rejects : pandas.DataFrame
        What is wrong with them: ``file`` (where several were read), ``row`` (counted from 0), ``column``, ``value``, ``reason``.
    """

    read: int
    inserted: int
    updated: int
    unchanged: int
    rejected: int
    rejects: pd.DataFrame

    def __repr__(self) -> str:
        return f"LoadReport({self}{'; .rejects says why' if self.rejected else ''})"

    def __str__(self) -> str:
        return (
            f"{self.read:,} read: {self.inserted:,} inserted, {self.updated:,} updated, "
            f"{self.unchanged:,} unchanged, {self.rejected:,} rejected"
        )


def load(
    con: duckdb.DuckDBPyConnection,
    records: Any,
    *,
    org_id: str | None,
    errors: Errors,
    columns: Mapping[str, str] | None,
) -> LoadReport:
    """Load records through a cursor of a store; see `EnrichmentStore.load`."""
    choice("errors", errors, ("raise", "reject"))
    con.register("given", _arrived(con, records, columns))
    con.register("keyed", con.sql(KEYS_SQL))
    con.register("judged", con.sql(PROBLEMS_SQL))
    with files.reading():
        con.execute("create temp table staged as " + _LOAD_SQL, {"org_id": org_id})
    rejects = to_pandas(con.sql(_REJECTS_SQL))
    if rejects["file"].isna().all():
        rejects = rejects.drop(columns="file")
    if errors == "raise" and len(rejects):
        others = ("errors", "reject", "load the others and have these reported")
        raise ValidationError.of_rows("records", rejects, "Nothing was loaded. Fix them.", instead=others)
    counts = _store(con)
    return LoadReport(*counts, rejects=rejects)


_REJECTS_SQL = """
with numbered as (
    select file, row_number() over (partition by file order by rowid) - 1 as "row", problems
    from staged
    where coalesce(file, '') in (select coalesce(file, '') from staged where problems is not null)
)
select file, "row", problem.name as "column", problem.value as "value", problem.reason as "reason"
from (select file, "row", unnest(problems) as problem from numbered)
order by file, "row"
"""

_COUNTS_SQL = """
with counts as (
    select
        (select count(*) from staged) as read,
        (select count(*) from staged where problems is null and id not in (select id from contested))
            + (select count(*) from ranked where rank = 1 and not known) as inserted,
        (select count(*) from ranked where rank = 1 and known and storedAt is null) as updated,
        (select count(problems) from staged) as rejected
)

select read, inserted, updated, read - inserted - updated - rejected as unchanged, rejected from counts
"""


def _arrived(
    con: duckdb.DuckDBPyConnection, records: Any, columns: Mapping[str, str] | None
) -> duckdb.DuckDBPyRelation:
    """Make one relation of the input, with every column of a record and ``file``, as they came."""
    if not files.is_path(records):
        frame = frames.read(records)
        if frame.objects and not len(frame):
            return pick(con.sql("select null as nothing where false"), {}, objects=True)
        names = record_names(frame.columns, columns)
        con.register("arrived", frame.arrow(list(dict.fromkeys(names.values()))))
        return pick(con.table("arrived"), {ours: str(theirs) for ours, theirs in names.items()}, objects=frame.objects)
    by_format: dict[str, list[str]] = {}
    for path in files.expand(records):
        by_format.setdefault(files.format_of(path), []).append(path)
    parts = []
    for kind, paths in by_format.items():
        given = files.Files(paths)
        relation = given.relation(con)
        places = dict(zip(given.names, relation.columns, strict=False))
        names = {"file": files.FILE}
        if given.names or kind != "json":
            names |= {ours: places[theirs] for ours, theirs in record_names(given.names, columns).items()}
        parts.append(pick(relation, names, objects=kind == "json"))
    return reduce(duckdb.DuckDBPyRelation.union, parts)


def record_names(found: list[str], columns: Mapping[str, str] | None) -> dict[str, str]:
    """Say under which names the columns of a record stand, ``{ours: theirs}``, those that it must have among them."""
    names = find(found, COLUMNS, columns)
    exact = {name for ours in COLUMNS for name in (ours, snake(ours))} | set(names.values())
    spelled = {name.casefold() for ours in COLUMNS for name in (ours, snake(ours))}
    # left aside, an orgid would make records of nobody's, and they would be the asking organization's
    if alike := [name for name in found if str(name).casefold() in spelled and name not in exact]:
        raise ValidationError(
            f"The column {listed(alike)} is one of {listed(COLUMNS, limit=20)} but for upper and lower case; "
            'say which with columns={"theirs": "ours"}.'
        )
    if missing := [name for name in _REQUIRED if name not in names]:
        raise ValidationError(
            f"Records need the column {listed(missing)}; found {listed(found)}. "
            'Under another name it is read with columns={"theirs": "ours"}.'
        )
    return names


#: The types a column may arrive in besides text; everything else is turned into text first, so that it can be judged and quoted.
_INSTANTS = {"TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE"}
_NATIVE = {
    "id": {"UUID"},
    "entityId": {"UUID"},
    "createdAt": _INSTANTS,
    "updatedAt": _INSTANTS,
    "dataFound": {"BOOLEAN"},
}


def pick(relation: duckdb.DuckDBPyRelation, names: Mapping[str, str], *, objects: bool) -> duckdb.DuckDBPyRelation:
    """Pick every column of a record, of which `names` says what it is called there (``{ours: theirs}``); absent ones are null.

    An absent entity type is a person; in JSON objects, which leave members out one by one, so is a null one.
    """
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    person = duckdb.ConstantExpression("person")
    picked = []
    for ours in (*COLUMNS, "file"):
        column: duckdb.Expression = duckdb.ConstantExpression(None)
        if ours in names:
            column = duckdb.ColumnExpression(names[ours])
        kind = types.get(names.get(ours, ""))
        if names.get(ours) == ours and ours != snake(ours) and snake(ours) in types:  # some files say it so, some so
            other = duckdb.ColumnExpression(snake(ours)).cast("VARCHAR")
            column, kind = duckdb.CoalesceOperator(column.cast("VARCHAR"), other), "VARCHAR"
        if kind not in _NATIVE.get(ours, ()):
            column = column.cast("VARCHAR")
        if kind in ("DOUBLE", "FLOAT"):  # what pandas makes of whole numbers with a blank among them: 17.0 was 17
            column = duckdb.FunctionExpression("regexp_replace", column, *map(duckdb.ConstantExpression, (r"\.0$", "")))
        if ours == "entityType" and (objects or ours not in names):
            column = duckdb.CoalesceOperator(column, person)
        picked.append(column.alias(ours))
    return relation.select(*picked)


def _store(con: duckdb.DuckDBPyConnection) -> tuple[int, int, int, int, int]:
    """Bring ``staged`` into the store in one transaction; gives read, inserted, updated, unchanged, rejected."""
    for pause in (*[0.05] * 200, None):
        try:
            con.begin()
            con.execute("update enrichment_loads set loads = loads + 1")
            break
        except duckdb.TransactionException as error:
            con.rollback()
            if pause is None:
                raise StoreError(
                    "Another load has been writing to this store for 10 s; load again when it is done."
                ) from error
            time.sleep(pause)
    try:
        con.execute(_MERGE_SQL)
        counts = con.execute(_COUNTS_SQL).fetchall()[0]
        con.commit()
    except BaseException:
        with suppress(duckdb.Error):  # where the engine gave up the transaction itself, that hides why
            con.rollback()
        raise
    con.execute("create index if not exists enrichment_probes on enrichments (probe)")
    return counts
