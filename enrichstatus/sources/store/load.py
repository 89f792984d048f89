"""Records into a store: any input, one transaction, the same end whatever the order and however often."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pandas as pd

from enrichstatus import frames
from enrichstatus.errors import StoreError, ValidationError
from enrichstatus.files import read as files
from enrichstatus.files.results import jsonable
from enrichstatus.lookup.arguments import Errors, choice, parse_epoch
from enrichstatus.lookup.query import newest_sql
from enrichstatus.lookup.tasks import KEYS_SQL, PROBLEMS_SQL, to_pandas
from enrichstatus.presentation import of_unknown_status
from enrichstatus.schema import (
    COLUMNS,
    EPOCH,
    INSTANT,
    STATUSES,
    STRAY,
    Epoch,
    epoch_micros,
    instant_text,
    listed,
    record_names,
)

_SPACE = r"[\s\x0B\x1C-\x1F\x{85}\x{FEFF}\pZ]+"
CAST_RECORD_SQL = Path(__file__).with_name("cast_record.sql").read_text(encoding="utf-8")
NEWEST_VERSION_SQL = Path(__file__).with_name("newest_version.sql").read_text(encoding="utf-8")
MERGE_SQL = (
    Path(__file__)
    .with_name("merge.sql")
    .read_text(encoding="utf-8")
    .replace("$newest_version)", NEWEST_VERSION_SQL + ")")
    .replace("$newest)", newest_sql("orgId", "entityId", "entityType", "field") + ")")
)
#: After the transaction: DuckDB cannot index what the same one has written.
INDEX_SQL = "create index if not exists enrichment_probes on enrichments (probe)"
_STAGED_SQL = f"""
create temp table staged as
with keyed as ({KEYS_SQL}),
checked as ({PROBLEMS_SQL})
select record.* exclude (file, problems), enrichment_probe(entityId, field) as probe, file, problems
from ({CAST_RECORD_SQL}) as record
"""  # noqa: S608  of a constant


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
        Rows with nothing new: stored already, or superseded by a newer version.
    rejected : int
        Bad rows, which were not loaded (``errors="reject"``).
    unknown : dict
        How many of the good rows have which status that is unknown (see ``statuses=`` of `EnrichmentStore`).
    rejects : pandas.DataFrame
        What is wrong with them: ``file`` (where several were read), ``row`` (counted from 0), ``column``, ``value``, ``reason``.
    """

    read: int
    inserted: int
    updated: int
    unchanged: int
    rejected: int
    rejects: pd.DataFrame
    unknown: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Give the same as JSON has it, for programs."""
        told: dict[str, Any] = jsonable(vars(self))
        return told

    def __repr__(self) -> str:
        return f"LoadReport({self}{'; .rejects says why' if self.rejected else ''})"

    def __str__(self) -> str:
        return (
            f"{self.read:,} read: {self.inserted:,} inserted, {self.updated:,} updated, "
            f"{self.unchanged:,} unchanged, {self.rejected:,} rejected"
            + (f"; {of_unknown_status(self.unknown)}" if self.unknown else "")
        )


def load(
    con: duckdb.DuckDBPyConnection,
    records: Any,
    *,
    org_id: str | None,
    errors: Errors,
    columns: Mapping[str, str | None] | None,
    then: Callable[[duckdb.DuckDBPyConnection], None] = lambda con: None,
    statuses: Mapping[str, str],
    epoch: Epoch | None = None,
    history: bool = True,
    **reading: Any,
) -> LoadReport:
    """Load records through a cursor of a store, and do something more in the same transaction; see `EnrichmentStore.load`."""
    choice("errors", errors, ("raise", "reject"))
    arrived = _arrived(con, records, columns, **reading)
    con.register("given", with_instants(arrived, epoch))
    with files.reading():
        con.execute(_STAGED_SQL, reading_values(org_id, statuses))
    rejects = to_pandas(con.sql(_REJECTS_SQL))
    if rejects["file"].isna().all():
        rejects = rejects.drop(columns="file")
    if errors == "raise" and len(rejects):
        others = ("errors", "reject", "load the others and have these reported")
        raise ValidationError.of_rows("records", rejects, "Nothing was loaded. Fix them.", instead=others)
    counts = _store(con, then, history)
    unknown = dict(con.execute(_UNKNOWN_SQL, {"known": STATUSES}).fetchall())
    return LoadReport(*counts, rejects=rejects, unknown=unknown)


def reading_values(owner: str | None, statuses: Mapping[str, str]) -> dict[str, Any]:
    """Give the values that ``cast_record.sql`` needs."""
    meant = {"key": list(statuses), "value": list(statuses.values())}  # so DuckDB is given a map
    return {"owner": owner or None, "statuses": meant, "outer": f"^{_SPACE}|{_SPACE}$"}


_UNKNOWN_SQL = """
select status, count(*) as records
from staged
where problems is null and status not in (select unnest($known))
group by status
order by records desc, status
"""

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

# The clock may have been set back: what came later is later all the same.
_LOG_SQL = """
insert into enrichment_log
select enrichment_loads.loads, left(md5(uuid()::varchar), 12), greatest($now, (select max(done) from enrichment_log))
from enrichment_loads
where exists (from entering)
"""

_FORGET_SQL = """
delete from enrichment_versions;
delete from enrichment_log where load < (select max(load) from enrichment_log);
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
    con: duckdb.DuckDBPyConnection, records: Any, columns: Mapping[str, str | None] | None, **reading: Any
) -> duckdb.DuckDBPyRelation:
    """Make one relation of the input, with every column of a record and ``file``, as they came."""
    if not files.is_path(records):
        frame = frames.read(records, **reading)
        if frame.objects and not len(frame):
            return pick(con.sql("select null as nothing where false"), {}, objects=True)
        names = record_names(frame.columns, columns)
        used = list(dict.fromkeys(chain.from_iterable(names.values())))
        # DuckDB does not distinguish names that differ in case alone
        places = {name: f"column {place}" for place, name in enumerate(used)}
        con.register("arrived", frame.arrow(used).rename_columns(list(places.values())))
        return pick(con.table("arrived"), names, places, objects=frame.objects)
    by_format: dict[tuple[str, tuple[Folder, ...]], list[str]] = {}
    for path in map(os.path.abspath, files.expand(records)):  # the folders above say something too
        by_format.setdefault((files.format_of(path), folders(path)), []).append(path)
    parts = []
    for (kind, above), paths in by_format.items():
        given = files.Files(paths, con=con, **reading)
        relation = given.relation(con)
        empty = kind == "json" and not given.names
        names = {} if empty else record_names([*above, *given.names], columns)
        places = dict(zip(given.names, relation.columns, strict=False))
        parts.append(pick(relation, names, places, objects=kind == "json"))
    return reduce(duckdb.DuckDBPyRelation.union, parts)


def with_instants(relation: duckdb.DuckDBPyRelation, epoch: Epoch | None) -> duckdb.DuckDBPyRelation:
    """Put the instants of records that `pick` gave beside them, null where they are not: ``castCreatedAt`` and ``castUpdatedAt``."""
    parse_epoch(epoch)
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    casts = (
        f"{_instant(name, types[name], epoch)} as cast{name[0].upper()}{name[1:]}"
        for name in ("createdAt", "updatedAt")
    )
    return relation.project(f"*, {', '.join(casts)}")


def _instant(name: str, kind: str, epoch: Epoch | None) -> str:
    """Read an instant: of text what `schema.INSTANT` matches, of which it takes the time to look only where it is not as on the wire."""
    if kind != "VARCHAR":
        return f"try_cast({name} as timestamptz)"
    number = (
        f"when regexp_full_match({name}, '{EPOCH}') then make_timestamptz({epoch_micros(name, epoch)})" if epoch else ""
    )
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
    return _wrong(
        _call("len", _call("list_distinct", values)) > _constant(1),
        ours,
        value,
        "stands there more than once, and differs",
    )


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


def _store(
    con: duckdb.DuckDBPyConnection, then: Callable[[duckdb.DuckDBPyConnection], None], history: bool
) -> tuple[int, int, int, int, int]:
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
        con.execute(MERGE_SQL)
        counts = con.execute(_COUNTS_SQL).fetchall()[0]
        then(con)
        con.execute(_LOG_SQL, {"now": datetime.now(UTC)})
        if not history:
            con.execute(_FORGET_SQL)
        con.commit()
    except BaseException:
        with suppress(duckdb.Error):  # where DuckDB gave up the transaction itself, that hides why
            con.rollback()
        raise
    con.execute(INDEX_SQL)
    return counts
