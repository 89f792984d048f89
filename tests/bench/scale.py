"""Past memory: tasks and records in Parquet, looked up from file to file, beside a hand-written COPY and polars' streaming engine.

Each run is a process of its own, whose peak of resident memory is taken; all run in turn. UUIDs are text, as exports have them.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.lookup import _alone, _say, _table

NOW = "2025-06-01T00:00:00+00:00"
#: A record pending from before this instant is a timeout.
SINCE = "2025-05-31T23:46:40+00:00"
ORG = "org_1"
Run = tuple[float, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark to a parser."""
    parser.add_argument("--records", type=int, default=10_000_000, help="records, of four organizations")
    parser.add_argument("--tasks", type=int, default=1_000_000, help="tasks of one of them, a tenth without a record")
    parser.add_argument("--memory-limit", default="6GB", help="for the engine, ours and the hand-written COPY's")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, default=None, help="keeps the data for the next run (default: a temporary one)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure everything and print the tables."""
    with ExitStack() as stack:
        folder = arguments.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="enrichstatus-bench-"))
        )
        whole = Data.made(folder, arguments.records, arguments.tasks)
        tenth = Data.made(folder, arguments.records // 10, arguments.tasks // 10)
        contenders: dict[str, tuple[Callable[..., Run], Data]] = {
            "ours": (_ours, whole),
            "COPY, tasks joined first": (_copy_join_first, whole),
            "COPY, newest records first": (_copy_newest_first, whole),
            "polars, streaming": (_polars, whole),
            "ours, a tenth of both": (_ours, tenth),
        }
        runs: dict[str, list[Run]] = {name: [] for name in contenders}
        for turn in range(arguments.repeat):
            for name, (contender, data) in contenders.items():
                try:
                    runs[name].append(_alone(contender, data, arguments.memory_limit))
                    _say(f"{turn + 1} of {arguments.repeat}: {name} {runs[name][-1][0]:.1f} s")
                except Exception as error:  # a process that was killed for its memory is a result too
                    _say(f"{turn + 1} of {arguments.repeat}: {name} failed: {type(error).__name__}: {str(error)[:200]}")
        _files(arguments, runs)
        _scanned(tenth if arguments.records > 20_000_000 else whole, arguments.repeat)


def _files(arguments: argparse.Namespace, runs: dict[str, list[Run]]) -> None:
    seconds = {name: statistics.median(took for took, _ in some) for name, some in runs.items() if some}
    hand = min(took for name, took in seconds.items() if name.startswith("COPY"))
    goals = {
        "COPY": f"ours ÷ the better COPY: {seconds['ours'] / hand:.2f} (≤ 1.3)",
        "ours, a tenth of both": f"ours ÷ a tenth: {seconds['ours'] / seconds['ours, a tenth of both']:.1f} (≤ 14)",
        "ours": "peak ≤ 8 GB with 100M records, 10M tasks, 6GB",
    }
    rows = []
    for name, some in runs.items():
        peak = max((peak for _, peak in some), default=float("nan"))
        cells = [f"{seconds[name]:.1f}", f"{peak / 1e9:.2f}"] if some else ["did not end", ""]
        rows.append(
            [
                name,
                *cells,
                goals.get(name, goals["COPY"] if name.startswith("COPY") and seconds.get(name) == hand else ""),
            ]
        )
    size = f"{arguments.records:,} records, {arguments.tasks:,} tasks, limit {arguments.memory_limit}"
    _table([size, "seconds (median)", "peak resident GB", ""], rows)


def _scanned(data: Data, repeat: int) -> None:
    """Compare a lookup of a frame over the files with one over a loaded store."""
    scanned, stored = _alone(_scan_and_store, data, repeat)
    rows = [
        ["over a loaded store", f"{stored:.2f}", ""],
        ["over the files (scan)", f"{scanned:.2f}", f"÷ store: {scanned / stored:.1f} (≤ 4)"],
    ]
    _table([f"{data.records_count:,} records, {data.tasks_count:,} tasks in a frame", "seconds (median)", ""], rows)


# ------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class Data:
    """The files of one size."""

    folder: Path
    records_count: int
    tasks_count: int

    @property
    def records(self) -> str:
        """The glob of the records."""
        return str(self.folder / "records" / "*.parquet")

    @property
    def tasks(self) -> str:
        """The glob of the tasks."""
        return str(self.folder / "tasks" / "*.parquet")

    @classmethod
    def made(cls, folder: Path, records: int, tasks: int) -> Data:
        """Make the files of this size, where an earlier run has not left them."""
        data = cls(folder / f"{records}-{tasks}", records, tasks)
        if not data.folder.exists():
            _say(f"making {records:,} records and {tasks:,} tasks")
            part = data.folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            (part / "records").mkdir(parents=True)
            (part / "tasks").mkdir()
            _alone(_make, part, records, tasks)
            part.rename(data.folder)
        return data


#: Rows of one file of records, and of tasks.
_RECORD_ROWS, _TASK_ROWS = 5_000_000, 2_500_000

# Everything is a digest of a row's place in a permutation, as in the benchmark of the lookup: a tenth of the keys has two records, of a
# quarter of these both have the same timestamps; half of the pending ones are recent, half of which have not timed out.
_RECORDS_SQL = """
with places as (
    select (i * 7368787) % getvariable('records') as place
    from range(getvariable('first'), getvariable('last')) as rows (i)
),

keyed as (
    select
        place,
        place % getvariable('keys') as key,
        place % getvariable('keys') // 3 as entity,
        hash('draw' || place) as draw
    from places
),

drawn as (
    select
        *,
        case when draw % 10 < 6 then 'finished' when draw % 10 < 8 then 'pending' else 'failed' end as status,
        case when key % 4 = 0 then hash('age' || key) else draw // 1000 end as age,
        case when draw % 10 between 6 and 7 and draw // 10 % 2 = 0 then 1600 else 10_000_000 end as oldest
    from keyed
)

select
    md5('id' || place)::uuid::varchar as id,
    timestamptz '2025-06-01 00:00:00Z' - to_seconds((age % oldest::ubigint)::bigint) as createdAt,
    createdAt + to_seconds((age % 300)::bigint) as updatedAt,
    md5('entity' || entity)::uuid::varchar as entityId,
    'person' as entityType,
    ['emails', 'phones', 'summary'][1 + key % 3] as field,
    status,
    null::varchar as error,
    case when status = 'finished' then draw // 100 % 10 < 6 when status = 'failed' then false end as dataFound,
    'user_' || entity % 50 as createdBy,
    'org_' || entity % 4 as orgId,
    null::varchar as globalEnrichmentId,
    case when draw % 7 = 0 then md5('credit' || place)::uuid::varchar end as creditTransactionId
from drawn
"""

_TASKS_SQL = """
with drawn as (
    select i, hash('task' || i) as draw
    from range(getvariable('first'), getvariable('last')) as rows (i)
),

keyed as (
    -- every fourth entity is of the organization that asks
    select *, case when draw % 10 > 0 then (draw // 10) % getvariable('keys')::ubigint // 3 // 4 * 4 + 1 end as entity
    from drawn
)

select
    md5(case when entity is null then 'stranger' || i else 'entity' || entity end)::uuid::varchar as entityId,
    ['emails', 'phones', 'summary'][1 + (draw % 3)::bigint] as field,
    'name ' || draw % 50000 as name,
    'company ' || draw % 49999 as company,
    'domain' || draw % 49000 || '.com' as domain,
    'country ' || draw % 12 as country,
    'source ' || draw % 11 as source,
    'owner ' || draw % 10 as owner
from keyed
order by i
"""


def _make(folder: Path, records: int, tasks: int) -> None:
    import duckdb

    with duckdb.connect(config={"memory_limit": "8GB", "temp_directory": str(folder / "tmp")}) as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute("set variable records = $count", {"count": records})
        con.execute("set variable keys = $count", {"count": records * 10 // 11})
        for sql, name, count, step in (
            (_RECORDS_SQL, "records", records, _RECORD_ROWS),
            (_TASKS_SQL, "tasks", tasks, _TASK_ROWS),
        ):
            for number, first in enumerate(range(0, count, step)):
                con.execute("set variable first = $first", {"first": first})
                con.execute("set variable last = $last", {"last": min(first + step, count)})
                con.sql(sql).write_parquet(str(folder / name / f"part-{number:03}.parquet"), row_group_size=250_000)


# ------------------------------------------------------------------------------------------------- contenders


def _timed(call: Callable[[Path], Any]) -> Run:
    with tempfile.TemporaryDirectory(prefix="enrichstatus-bench-") as folder:
        began = time.perf_counter()
        call(Path(folder))
        return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _ours(data: Data, limit: str) -> Run:
    import enrichstatus as es

    def call(folder: Path) -> None:
        with es.EnrichmentStore.scan(data.records, org_id=ORG) as source:
            report = source.lookup_to(data.tasks, f"{folder}/out/", now=NOW, memory_limit=limit)
            assert report.rows == data.tasks_count

    return _timed(call)


# What the rules say, by hand: keys by their value, the organization, the newest record with its tie-breaks, the timeout, no data
# while pending; the caller's columns in their order.
_ANSWER_SQL = """
    tasks.* exclude (position),
    case when r.status = 'pending' and r.createdAt < getvariable('since') then 'timeout' else r.status end as status,
    case when r.status <> 'pending' then r.dataFound end as dataFound
"""
_POSITIONED_SQL = "(select *, row_number() over () as position from read_parquet(getvariable('tasks'))) as tasks"
_JOIN_FIRST_SQL = f"""
select {_ANSWER_SQL}
from {_POSITIONED_SQL}
left join (from read_parquet(getvariable('records')) where orgId = getvariable('org')) as r
    on r.entityId::uuid = tasks.entityId::uuid and r.field = tasks.field and r.entityType = 'person'
qualify row_number() over (
    partition by tasks.position
    order by r.createdAt desc nulls last, r.updatedAt desc nulls last, r.id desc nulls last
) = 1
order by tasks.position
"""  # noqa: S608  of constants
_NEWEST_FIRST_SQL = f"""
with newest as (
    select entityId::uuid as entityId, entityType, field, createdAt, status, dataFound
    from read_parquet(getvariable('records'))
    where orgId = getvariable('org')
    qualify row_number() over (
        partition by entityId::uuid, entityType, field
        order by createdAt desc nulls last, updatedAt desc nulls last, id desc nulls last
    ) = 1
)

select {_ANSWER_SQL}
from {_POSITIONED_SQL}
left join newest as r
    on r.entityId = tasks.entityId::uuid and r.field = tasks.field and r.entityType = 'person'
order by tasks.position
"""  # noqa: S608  of constants


def _copy_join_first(data: Data, limit: str) -> Run:
    return _copy(_JOIN_FIRST_SQL, data, limit)


def _copy_newest_first(data: Data, limit: str) -> Run:
    return _copy(_NEWEST_FIRST_SQL, data, limit)


def _copy(sql: str, data: Data, limit: str) -> Run:
    import duckdb

    def call(folder: Path) -> None:
        with duckdb.connect(config={"memory_limit": limit, "temp_directory": str(folder / "tmp")}) as con:
            con.execute("set TimeZone = 'UTC'")
            for name, value in {"records": data.records, "tasks": data.tasks, "org": ORG}.items():
                con.execute(f"set variable {name} = $value", {"value": value})
            con.execute("set variable since = $value::timestamptz", {"value": SINCE})
            con.execute(f"copy ({sql}) to '{folder}/out.parquet'")

    return _timed(call)


def _polars(data: Data, limit: str) -> Run:
    """Keys compared as text, as they lie: polars has no UUIDs. It knows no limit."""
    import polars as pl

    since = pl.lit(SINCE).str.to_datetime("%Y-%m-%dT%H:%M:%S%z", time_zone="UTC")

    def call(folder: Path) -> None:
        tasks = pl.scan_parquet(data.tasks).with_row_index("position")
        newest = (
            tasks.select("position", "entityId", "field")
            .join(pl.scan_parquet(data.records).filter(pl.col("orgId") == ORG), on=["entityId", "field"])
            .sort(["createdAt", "updatedAt", "id"], descending=True, nulls_last=True)
            .unique("position", keep="first", maintain_order=True)
            .select("position", "createdAt", "status", "dataFound")
        )
        pending = pl.col("status") == "pending"
        status = pl.when(pending & (pl.col("createdAt") < since)).then(pl.lit("timeout")).otherwise(pl.col("status"))
        answered = tasks.join(newest, on="position", how="left", maintain_order="left").with_columns(
            status.alias("status"), pl.when(~pending).then(pl.col("dataFound")).alias("dataFound")
        )
        answered.drop("position", "createdAt").sink_parquet(folder / "out.parquet", engine="streaming")

    return _timed(call)


def _scan_and_store(data: Data, repeat: int) -> tuple[float, float]:
    import pandas as pd

    import enrichstatus as es

    tasks = pd.read_parquet(Path(data.tasks).parent)
    with tempfile.TemporaryDirectory(prefix="enrichstatus-bench-") as folder:
        with es.EnrichmentStore(f"{folder}/store.duckdb", org_id=ORG) as store:
            store.load(data.records)
        sources = [
            es.EnrichmentStore.scan(data.records, org_id=ORG),
            es.EnrichmentStore(f"{folder}/store.duckdb", org_id=ORG, read_only=True),
        ]
        taken: list[list[float]] = [[], []]
        answers: list[Any] = [None, None]
        for _ in range(repeat + 1):
            for place, source in enumerate(sources):
                began = time.perf_counter()
                answers[place] = source.lookup(tasks, now=NOW)
                taken[place].append(time.perf_counter() - began)
        assert answers[0].equals(answers[1])
        return statistics.median(taken[0][1:]), statistics.median(taken[1][1:])
