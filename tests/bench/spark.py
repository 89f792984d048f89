"""The lookup on Spark against the same rules written by hand, over Parquet files.

By hand they are written in the two ways that come to mind: newest-first ranks all records of the organization and joins the newest of each
key to the tasks; join-first joins all of them and ranks what was found for each task. Both read tidy keys with ``lower(trim())``, which is
less than is asked of a lookup. All run in turn, so that a slow minute of the machine falls on all alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.lookup import _say, _table
from tests.support.cluster import started

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import DataFrame, SparkSession

GOAL, GOAL_OF_FEW = 1.1, 1.25
NOW = "2025-06-01T00:00:00Z"
#: As Spark comes, unlike in the tests.
OPTIONS = {
    "spark.sql.shuffle.partitions": "8",
    "spark.sql.codegen.wholeStage": "true",
    "spark.sql.codegen.factoryMode": "FALLBACK",
    "spark.driver.memory": "2g",
    "spark.executor.memory": "3072m",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark to a parser."""
    parser.add_argument("--records", type=int, default=10_000_000, help="records, of four organizations")
    parser.add_argument("--tasks", type=int, default=1_000_000, help="tasks, of one of the organizations")
    parser.add_argument("--repeat", type=int, default=3)


def run(arguments: argparse.Namespace) -> None:
    """Measure everything and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        _say(f"making {arguments.records:,} records and {arguments.tasks:,} tasks")
        make(Path(folder), arguments.records, arguments.tasks)
        _say("starting two executors")
        with started(Path(folder) / "spark", "local-cluster[2,1,3072]", OPTIONS) as spark:
            goal = GOAL if arguments.tasks > 10_000 else GOAL_OF_FEW
            measure(spark, f"{folder}/records.parquet", f"{folder}/tasks.parquet", arguments.repeat, goal)


def measure(spark: SparkSession, records: str, tasks: str, repeat: int, goal: float) -> None:
    """Time the three ways, after a round that warms up, and print the table."""
    import enrichstatus as es

    store = es.SparkEnrichmentStore(spark, spark.read.parquet(records), org_id="org_1")
    ways: dict[str, Callable[[], DataFrame]] = {
        "lookup": lambda: store.lookup(spark.read.parquet(tasks), errors="coerce", now=NOW),
        "lookup, tasks checked first": lambda: store.lookup(spark.read.parquet(tasks), now=NOW),
        "by hand, newest first": lambda: _by_hand(spark, _NEWEST_FIRST, records, tasks),
        "by hand, join first": lambda: _by_hand(spark, _JOIN_FIRST, records, tasks),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(repeat + 1):
        _say(f"round {number} of {repeat}" if number else "warming up")
        for name, way in ways.items():
            began, used = time.perf_counter(), _cpu()
            way().write.format("noop").mode("overwrite").save()
            if number:
                taken[name].append((time.perf_counter() - began, _cpu() - used))
    middles = {name: [statistics.median(part) for part in zip(*both, strict=True)] for name, both in taken.items()}
    best, least = (
        min(middle[part] for name, middle in middles.items() if name.startswith("by hand")) for part in (0, 1)
    )
    rows = []
    for name, (middle, cpu) in middles.items():
        met = "" if name.startswith("by hand") else f"≤ {goal}, " + ("met" if middle <= goal * best else "not met")
        rows.append([name, f"{middle:.2f} s", f"{middle / best:.2f}", f"{cpu:.1f} s", f"{cpu / least:.2f}", met])
    _table(["", "median", "÷ the better by hand", "CPU, all processes", "÷ the better by hand", "to reach"], rows)


def _cpu() -> float:
    """Give the seconds of processor time of this process and of all that it has started, as Linux counts them."""
    parents, used = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = path.parent.name, path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[pid], used[pid] = rest[1], int(rest[11]) + int(rest[12])
    ours = {str(os.getpid())}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(used.get(pid, 0) for pid in ours) / os.sysconf("SC_CLK_TCK")


def make(folder: Path, records: int, tasks: int) -> None:
    """Write records, one key in ten bought twice, and tasks, two in three of them bought; as Parquet."""
    import duckdb

    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute(_RECORDS.format(records=int(records), folder=folder))
        con.execute(_TASKS.format(tasks=int(tasks), keys=int(records * 0.9), folder=folder))


def _by_hand(spark: SparkSession, query: str, records: str, tasks: str) -> DataFrame:
    frames = {"records": spark.read.parquet(records), "tasks": spark.read.parquet(tasks)}
    return spark.sql(query, args={"now": NOW}, **frames)


_RECORDS = """
copy (
    with bought as (
        select
            n,
            n % (9 * {records} // 10) as key,
            timestamptz '2025-06-01' - to_seconds((hash(n, 'made') % 15_552_000)::bigint) as createdAt,
            ['finished', 'finished', 'finished', 'failed', 'pending'][1 + (hash(n, 'status') % 5)::bigint] as status
        from range({records}) as numbers (n)
    )

    select
        md5('id' || n)::uuid::varchar as id,
        createdAt,
        createdAt + interval 1 minute as updatedAt,
        md5('entity' || key // 2)::uuid::varchar as entityId,
        'person' as entityType,
        ['emails', 'phones'][1 + key % 2] as field,
        status,
        case when status = 'failed' then 'provider unavailable' end as error,
        case when status = 'finished' then n % 3 > 0 end as dataFound,
        'user_' || n % 50 as createdBy,
        'org_' || (key // 2) % 4 as orgId,
        null::varchar as globalEnrichmentId,
        null::varchar as creditTransactionId
    from bought
    order by hash(n)
) to '{folder}/records.parquet' (format parquet)
"""

# every fourth entity is of the organization; of three tasks one is about an entity that nobody bought
_TASKS = """
copy (
    select
        md5('entity' || case when n % 3 = 0 then 'none' || n else (1 + 4 * (n % ({keys} // 8)))::varchar end)::uuid::varchar
            as entityId,
        ['emails', 'phones'][1 + (n // ({keys} // 8)) % 2] as field,
        'name ' || n as name,
        'company ' || n % 50_000 as company,
        'domain' || n % 50_000 || '.com' as domain,
        'country ' || n % 20 as country,
        'source ' || n % 12 as source,
        'owner ' || n % 7 as owner
    from range({tasks}) as numbers (n)
    order by hash(n)
) to '{folder}/tasks.parquet' (format parquet)
"""

_JUDGED = """
    case
        when status = 'pending' and createdAt < cast(:now as timestamp) - interval 800 seconds then 'timeout'
        else status
    end as status,
    case when status <> 'pending' then dataFound end as dataFound
"""

_NEWEST_FIRST = f"""
with own as (
    select lower(trim(entityId)) as entityId, lower(trim(entityType)) as entityType, lower(trim(field)) as field,
        id, createdAt, updatedAt, status, dataFound
    from {{records}}
    where orgId = 'org_1'
),

ranked as (
    select *, row_number() over (
        partition by entityId, entityType, field order by createdAt desc, updatedAt desc nulls last, id desc
    ) as rank
    from own
)

select tasks.*, {_JUDGED}
from {{tasks}} as tasks
left join (select entityId as e, entityType as t, field as f, status, dataFound, createdAt from ranked where rank = 1) as newest
    on newest.e = lower(trim(tasks.entityId)) and newest.t = 'person' and newest.f = lower(trim(tasks.field))
"""  # noqa: S608  of constants

_JOIN_FIRST = f"""
with own as (
    select lower(trim(entityId)) as e, lower(trim(entityType)) as t, lower(trim(field)) as f,
        id, createdAt, updatedAt, status, dataFound
    from {{records}}
    where orgId = 'org_1'
),

asked as (select *, monotonically_increasing_id() as task from {{tasks}}),

ranked as (
    select asked.*, own.status, own.dataFound, own.createdAt, row_number() over (
        partition by asked.task order by own.createdAt desc, own.updatedAt desc nulls last, own.id desc
    ) as rank
    from asked
    left join own
        on own.e = lower(trim(asked.entityId)) and own.t = 'person' and own.f = lower(trim(asked.field))
)

select ranked.* except (task, rank, createdAt, status, dataFound), {_JUDGED}
from ranked
where rank = 1
"""  # noqa: S608  of constants
