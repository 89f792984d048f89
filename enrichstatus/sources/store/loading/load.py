"""Records into a store: any input, one transaction, the same end whatever the order and however often."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa

from enrichstatus.errors import StoreError, ValidationError
from enrichstatus.files.reading import read as files
from enrichstatus.files.reading.lake_tables import table_of
from enrichstatus.files.results import jsonable
from enrichstatus.frames import frames
from enrichstatus.lookup.arguments import Errors, choice
from enrichstatus.lookup.query import newest_sql
from enrichstatus.lookup.tasks import KEYS_SQL, PROBLEMS_SQL, to_pandas
from enrichstatus.presentation import of_unknown_status
from enrichstatus.schema import PANDAS_TYPES, STATUSES, Epoch, are_usual, instants, record_names
from enrichstatus.sources.store.loading.picked import Folder, folders, of_table, pick, with_instants

#: Outer white space.
SPACE = r"[\s\x0B\x1C-\x1F\x{85}\x{FEFF}\pZ]+"
CAST_RECORD_SQL = Path(__file__).with_name("cast_record.sql").read_text(encoding="utf-8")
NEWEST_VERSION_SQL = Path(__file__).with_name("newest_version.sql").read_text(encoding="utf-8")
MERGE_SQL = Path(__file__).with_name("merge.sql").read_text(encoding="utf-8")
MERGE_SQL = MERGE_SQL.replace("$newest_version)", NEWEST_VERSION_SQL + ")")
MERGE_SQL = MERGE_SQL.replace("$newest)", newest_sql("orgId", "entityId", "entityType", "field") + ")")
_CONTESTED, _VERSIONS, _RANKED, _KEEP, _DELETE, _ENTERING, _TOUCHED, _DECIDED, _SUPERSEDE, _INSERT = MERGE_SQL.split(
    ";\n\n"
)
# Planning a statement takes DuckDB a millisecond and more: those that have nothing to do are left out. In their place:
_NONE_RANKED = "create temp table ranked (stagedAt bigint, storedAt bigint, probe uinteger, rank bigint, known boolean)"
_NONE_DECIDED = "create temp table decided (stagedAt bigint, storedAt bigint, was boolean, superseded boolean)"
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
        (read,) = con.execute(_STAGED_SQL, reading_values(org_id, statuses)).fetchall()[0]
    rejected, strange = con.execute(_CHECKED_SQL, {"known": STATUSES}).fetchall()[0]
    rejects = to_pandas(con.sql(_REJECTS_SQL)) if rejected else _NO_REJECTS.copy()
    if rejects["file"].isna().all():
        rejects = rejects.drop(columns="file")
    if errors == "raise" and len(rejects):
        others = ("errors", "reject", "load the others and have these reported")
        raise ValidationError.of_rows("records", rejects, "Nothing was loaded. Fix them.", instead=others)
    inserted, updated = _store(con, then, history, read - rejected)
    unknown = dict(con.execute(_UNKNOWN_SQL, {"known": STATUSES}).fetchall()) if strange else {}
    unchanged = read - inserted - updated - rejected
    return LoadReport(read, inserted, updated, unchanged, rejected, rejects=rejects, unknown=unknown)


def reading_values(owner: str | None, statuses: Mapping[str, str]) -> dict[str, Any]:
    """Give the values that ``cast_record.sql`` needs."""
    meant = {"key": list(statuses), "value": list(statuses.values())}  # so DuckDB is given a map
    return {"owner": owner or None, "statuses": meant, "outer": f"^{SPACE}|{SPACE}$"}


_CHECKED_SQL = """
select count(problems), count(*) filter (where problems is null and status not in (select unnest($known)))
from staged
"""

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

_NO_REJECTS = pd.DataFrame(
    {"file": pd.Series(dtype=PANDAS_TYPES[pa.string()]), "row": pd.Series(dtype="int64")}
    | {name: pd.Series(dtype=PANDAS_TYPES[pa.string()]) for name in ("column", "value", "reason")}
)

# The clock may have been set back: what came later is later all the same.
_LOG_SQL = """
insert into enrichment_log
select enrichment_loads.loads, left(md5(uuid()::varchar), 12), greatest($now, (select max(done) from enrichment_log))
from enrichment_loads
"""

_FORGET_SQL = """
delete from enrichment_versions;
delete from enrichment_log where load < (select max(load) from enrichment_log);
"""

_COUNTS_SQL = """
select
    (select count(*) from staged where problems is null and id not in (select id from contested))
        + (select count(*) from ranked where rank = 1 and not known) as inserted,
    (select count(*) from ranked where rank = 1 and known and storedAt is null) as updated
"""


def _arrived(
    con: duckdb.DuckDBPyConnection, records: Any, columns: Mapping[str, str | None] | None, **reading: Any
) -> duckdb.DuckDBPyRelation:
    """Make one relation of the input, with every column of a record and ``file``, as they came."""
    if not files.is_path(records):
        if (table := table_of(records)) is not None:
            return of_table(con, table, columns)
        frame = frames.read(records, **reading)
        if frame.objects and not len(frame):
            return pick(con.sql("select null as nothing where false"), {}, objects=True)
        names = record_names(frame.columns, columns)
        used = list(dict.fromkeys(chain.from_iterable(names.values())))
        # DuckDB does not distinguish names that differ in case alone
        places = {name: f"column {place}" for place, name in enumerate(used)}
        table = _with_instants(
            frame.arrow(used), [used.index(*names[name]) for name in _INSTANTS if len(names.get(name, ())) == 1]
        )
        con.register("arrived", table.rename_columns(list(places.values())))
        return pick(con.table("arrived"), names, places, objects=frame.objects)
    by_format: dict[tuple[str, tuple[Folder, ...]], list[str]] = {}
    for path in map(os.path.abspath, files.expand(records)):  # the folders above say something too
        by_format.setdefault((files.format_of(path), folders(path)), []).append(path)
    parts = []
    for (kind, above), paths in by_format.items():
        if kind == "delta":
            parts += [of_table(con, table, columns) for table in map(table_of, paths) if table is not None]
            continue
        given = files.Files(paths, con=con, **reading)
        relation = given.relation(con)
        empty = kind == "json" and not given.names
        names = {} if empty else record_names([*above, *given.names], columns)
        places = dict(zip(given.names, relation.columns, strict=False))
        parts.append(pick(relation, names, places, objects=kind == "json"))
    return reduce(duckdb.DuckDBPyRelation.union, parts)


_INSTANTS = ("createdAt", "updatedAt")
#: For fewer records than this, DuckDB takes longer to plan how instants are read than to read them.
_FEW = 10_000


def _with_instants(table: pa.Table, columns: Sequence[int]) -> pa.Table:
    """Cast instants in some columns of few records, where all are written as usual."""
    for place in columns if len(table) < _FEW else ():
        texts = table.column(place)
        if (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)) and are_usual(texts):
            with suppress(pa.ArrowInvalid):  # a day that there is not
                table = table.set_column(place, table.field(place).name, instants(texts))
    return table


def _store(
    con: duckdb.DuckDBPyConnection, then: Callable[[duckdb.DuckDBPyConnection], None], history: bool, good: int
) -> tuple[int, int]:
    """Bring the good rows of ``staged``, which are so many, into the store in one transaction; gives how many were inserted and updated."""
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
    with committed(con):
        inserted, updated = _merge(con, good)
        then(con)
        if inserted or updated:
            con.execute(_LOG_SQL, {"now": datetime.now(UTC)})
        if not history:
            con.execute(_FORGET_SQL)
    con.execute(INDEX_SQL)
    return inserted, updated


def _merge(con: duckdb.DuckDBPyConnection, good: int) -> tuple[int, int]:
    """Run ``merge.sql``, but for what has nothing to do."""
    contested = _rows(con, _CONTESTED)
    for sql in (_VERSIONS, _RANKED, _KEEP, _DELETE) if contested else (_NONE_RANKED,):
        con.execute(sql)
    inserted, updated = con.execute(_COUNTS_SQL).fetchall()[0] if contested else (good, 0)
    if inserted or updated:
        con.execute(_ENTERING)
        for sql in (_DECIDED, _SUPERSEDE) if _rows(con, _TOUCHED) else (_NONE_DECIDED,):
            con.execute(sql)
        con.execute(_INSERT)
    return inserted, updated


def _rows(con: duckdb.DuckDBPyConnection, sql: str) -> int:
    """Make a table, and give how many rows it has."""
    (count,) = con.execute(sql).fetchall()[0]
    return int(count)


@contextmanager
def committed(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit at the end a transaction that has begun, or undo all of it."""
    try:
        yield
        con.commit()
    except BaseException:
        with suppress(duckdb.Error):  # where DuckDB gave up the transaction itself, that hides why
            con.rollback()
        raise
