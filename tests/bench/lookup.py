"""The lookup, the load and the import, each beside what else one would do.

Every contender lives in a process of its own, which holds its records and answers when it is requested. All of
them stay, and are requested in turn, so that a slow minute of the machine falls on all alike. Nothing heavy is
imported at the top: a process starts with the peak memory of the one it comes from.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pandas as pd

ORG = "org_1"
NOW = datetime.fromisoformat("2025-06-01T00:00:00+00:00")
#: A record pending from before this instant is a timeout.
SINCE = NOW - timedelta(seconds=800)
KEY = ["entityId", "field"]
#: What a lead list has beside its key; the answer is the caller's whole frame.
LEAD = ["name", "company", "domain", "country", "source", "owner"]
NEWEST = ["createdAt", "updatedAt", "id"]
SMALL = 200
BATCHES = 100
IMPORTS = 7

Answer = tuple[str | None, bool | None]
T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark to a parser."""
    parser.add_argument("--records", type=int, default=10_000_000, help="records, 10%% of whose keys repeat")
    parser.add_argument("--tasks", type=int, default=1_000_000, help="tasks, 10%% of which have no record")
    parser.add_argument("--repeat", type=int, default=5, help="timed lookups of each contender")
    parser.add_argument("--repeat-load", type=int, default=3, help="timed loads of each contender")
    parser.add_argument(
        "--folder",
        type=Path,
        default=None,
        help="keeps the generated data for the next run; by default a temporary one",
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure everything and print the tables."""
    with ExitStack() as stack:
        folder = arguments.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="enrichstatus-bench-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        inputs = Inputs.within(folder, arguments.records, arguments.tasks)
        _generate(inputs)
        seconds = _loads(inputs, arguments.repeat_load)
        peaks = {label: _alone(_peak, label, inputs) for label in PEAKS}
        workers = {kind: stack.enter_context(_worker(_hold, kind, inputs)) for kind in (*KINDS, "sqlite")}
        seconds |= _lookups(workers, arguments.repeat)
        small = _small(workers)
    seconds |= _imports()
    _report(arguments, seconds, peaks, small)


# ------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class Inputs:
    """The files of one run."""

    records: int
    tasks: int
    #: the records with their types, what the rules need of them with UUIDs as text, and the tasks
    typed: Path
    text: Path
    asked: Path
    #: the records in a store, in a table of DuckDB and in one of SQLite
    store: Path
    native: Path
    sqlite: Path

    @classmethod
    def within(cls, folder: Path, records: int, tasks: int) -> Inputs:
        """Name the files of a run of this size."""
        return cls(
            records,
            tasks,
            typed=folder / f"records-{records}.parquet",
            text=folder / f"records-{records}-text.parquet",
            asked=folder / f"leads-{tasks}-of-{records}.parquet",
            store=folder / "store.duckdb",
            native=folder / "native.duckdb",
            sqlite=folder / f"records-{records}.sqlite",
        )


def _generate(inputs: Inputs) -> None:
    """Make the files that do not depend on the code under test, where an earlier run has not left them."""
    for path, make in (
        (inputs.typed, _make_records),
        (inputs.text, _make_text),
        (inputs.asked, _make_tasks),
        (inputs.sqlite, _make_sqlite),
    ):
        if not path.exists():
            _say(f"making {path.name}")
            # an interrupted run leaves no half a file under the name
            unfinished = path.with_name(path.name + ".part")
            unfinished.unlink(missing_ok=True)
            _alone(make, inputs, unfinished)
            unfinished.rename(path)


# Everything is a digest of the row's place in a permutation: the same on each run, and the records of one
# entity lie apart. The places beyond the last key are the second records of the first keys; of a quarter of the
# keys both have the same age and so the same timestamps, and the id decides, unless one of the two is a recent
# pending one. Half of the pending ones are recent, and half of these have not timed out.
_RECORDS_SQL = """
with places as (
    select (i * getvariable('step')) % getvariable('records') as place
    from range(getvariable('records')) as rows(i)
),

keyed as (
    select
        place,
        place % getvariable('keys') as key,
        key // 3 as entity,
        md5_number_lower('draw' || place) as draw
    from places
),

drawn as (
    select
        *,
        case when draw % 10 < 6 then 'finished' when draw % 10 < 8 then 'pending' else 'failed' end as status,
        case when key % 4 = 0 then md5_number_lower('age' || key) else draw // 1000 end as age,
        case when status = 'pending' and draw // 10 % 2 = 0 then 1600 else 10_000_000 end as oldest
    from keyed
)

select
    md5('id' || place)::uuid as id,
    getvariable('now') - to_seconds((age % oldest)::bigint) as createdAt,
    createdAt + to_seconds((age % 300)::bigint) as updatedAt,
    md5('entity' || entity)::uuid as entityId,
    'person' as entityType,
    (['emails', 'phones', 'summary'])[1 + key % 3] as field,
    status,
    null::varchar as error,
    case
        when status = 'finished' then draw // 100 % 10 < 6
        when status = 'failed' then false
    end as dataFound,
    'user_' || entity % 50 as createdBy,
    'org_' || entity % 4 as orgId,
    md5('global' || place)::uuid::varchar as globalEnrichmentId,
    md5('credit' || place)::uuid::varchar as creditTransactionId
from drawn
"""


def _make_records(inputs: Inputs, path: Path) -> None:
    import math

    import duckdb

    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        step = next(step for step in range(7_368_787, 8_000_000) if math.gcd(step, inputs.records) == 1)
        for name, value in {
            "records": inputs.records,
            "keys": -(-inputs.records * 10 // 11),
            "step": step,
            "now": NOW,
        }.items():
            con.execute(f"set variable {name} = $value", {"value": value})
        con.sql(_RECORDS_SQL).write_parquet(str(path))


def _make_text(inputs: Inputs, path: Path) -> None:
    """What polars and pandas hold: no UUIDs, which they have no type for, and no column beyond the rules."""
    import duckdb

    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        con.read_parquet(str(inputs.typed)).select(
            """
            id::varchar as id, createdAt, updatedAt, entityId::varchar as entityId,
            field, status, dataFound, orgId
            """
        ).write_parquet(str(path))


def _make_tasks(inputs: Inputs, path: Path) -> None:
    import duckdb
    import numpy as np
    import pandas as pd

    with duckdb.connect() as con:
        records = con.read_parquet(str(inputs.text)).filter(
            duckdb.ColumnExpression("orgId") == duckdb.ConstantExpression(ORG)
        )
        own = records.select("entityId, field").distinct().order("entityId, field").df()
    draw = np.random.default_rng(1)
    known = inputs.tasks * 9 // 10
    unknown = inputs.tasks - known
    strangers = pd.DataFrame(
        {
            "entityId": [str(uuid.UUID(bytes=draw.bytes(16))) for _ in range(unknown)],
            "field": draw.choice(["emails", "phones", "summary"], unknown),
        }
    )
    tasks = pd.concat([own.take(draw.choice(len(own), known, replace=known > len(own))), strangers])
    for column in LEAD:
        values = [f"{column} {number}" for number in range(12 if column in ("country", "source", "owner") else 50_000)]
        tasks[column] = draw.choice(values, len(tasks))
    tasks.take(draw.permutation(len(tasks))).to_parquet(path, index=False)


def _make_sqlite(inputs: Inputs, path: Path) -> None:
    import duckdb

    with duckdb.connect() as con:
        rows = con.execute(
            """
            select
                orgId, entityId, 'person', field, epoch_us(createdAt), epoch_us(updatedAt), id,
                status, dataFound::integer
            from read_parquet($path)
            order by orgId, entityId, field, createdAt desc, updatedAt desc, id desc
            """,
            {"path": str(inputs.text)},
        )
        lite = sqlite3.connect(path)
        lite.executescript("pragma journal_mode = off; pragma synchronous = off;")
        lite.execute(
            """
            create table records (
                orgId text not null, entityId text not null, entityType text not null, field text not null,
                createdAt integer not null, updatedAt integer, id text not null,
                status text not null, dataFound integer,
                primary key (orgId, entityId, entityType, field, createdAt desc, updatedAt desc, id desc)
            ) without rowid
            """
        )
        while some := rows.fetchmany(100_000):
            lite.executemany("insert into records values (?, ?, ?, ?, ?, ?, ?, ?, ?)", some)
        # without `analyze`: its figures of a small table talk SQLite into a Bloom filter, ten times slower
        lite.commit()
        lite.close()


# ------------------------------------------------------------------------------------------------- contenders


class Ours:
    """A store, opened."""

    def __init__(self, inputs: Inputs):
        import enrichstatus

        self.store = enrichstatus.EnrichmentStore(inputs.store, org_id=ORG)

    def lookup(self, tasks: pd.DataFrame) -> pd.DataFrame:
        """Answer as a user would have it answered."""
        return self.store.lookup(tasks, now=NOW)


class ByHand:
    """A table of DuckDB, with the records as the typed Parquet gives them."""

    def __init__(self, inputs: Inputs):
        import duckdb

        self.con = duckdb.connect(str(inputs.native), read_only=True)

    def newest_first(self, tasks: pd.DataFrame) -> pd.DataFrame:
        """Find the newest records of the organization, then join the tasks."""
        self.con.register("tasks", tasks.assign(position=range(len(tasks))))
        return self.con.execute(_NEWEST_FIRST_SQL, {"org": ORG, "since": SINCE}).df()

    def join_first(self, tasks: pd.DataFrame) -> pd.DataFrame:
        """Join the tasks, then find the newest record of each."""
        self.con.register("tasks", tasks.assign(position=range(len(tasks))))
        return self.con.execute(_JOIN_FIRST_SQL, {"org": ORG, "since": SINCE}).df()

    def two_columns(self, tasks: pd.DataFrame) -> pd.DataFrame:
        """Fetch only the answers, and put them beside the frame: what one writes who knows where the time goes."""
        self.con.register("tasks", tasks[KEY].assign(position=range(len(tasks))))
        answers = self.con.execute(_TWO_COLUMNS_SQL, {"org": ORG, "since": SINCE}).df()
        return tasks.assign(status=answers["status"], dataFound=answers["dataFound"])

    def bare(self, tasks: pd.DataFrame) -> None:
        """Join and only count: no rule, no order and no answer."""
        self.con.register("tasks", tasks)
        self.con.execute(_BARE_SQL, {"org": ORG}).fetchall()


_NEWEST_FIRST_SQL = """
with newest as (
    select entityId, field, createdAt, status, dataFound
    from records
    where orgId = $org
    qualify row_number() over (
        partition by entityId, field order by createdAt desc, updatedAt desc, id desc
    ) = 1
)

select
    t.* exclude (position),
    case when r.status = 'pending' and r.createdAt < $since then 'timeout' else r.status end as status,
    case when r.status <> 'pending' then r.dataFound end as dataFound
from tasks t
left join newest r on r.entityId = t.entityId::uuid and r.field = t.field
order by t.position
"""
_JOIN_FIRST_SQL = """
select
    t.* exclude (position),
    case when r.status = 'pending' and r.createdAt < $since then 'timeout' else r.status end as status,
    case when r.status <> 'pending' then r.dataFound end as dataFound
from tasks t
left join records r on r.orgId = $org and r.entityId = t.entityId::uuid and r.field = t.field
qualify row_number() over (partition by t.position order by r.createdAt desc, r.updatedAt desc, r.id desc) = 1
order by t.position
"""
_TWO_COLUMNS_SQL = _JOIN_FIRST_SQL.replace("    t.* exclude (position),\n", "")
_BARE_SQL = """
select count(*)
from tasks t
inner join records r on r.orgId = $org and r.entityId = t.entityId::uuid and r.field = t.field
"""


class Polars:
    """A polars frame."""

    def __init__(self, inputs: Inputs):
        import polars as pl

        self.records = pl.read_parquet(inputs.text)

    def newest_first(self, tasks: pd.DataFrame) -> pd.DataFrame:
        """Find the newest records of the organization, then join the tasks."""
        import polars as pl

        newest = (
            self.records.lazy()
            .filter(pl.col("orgId") == ORG)
            .sort(NEWEST, descending=True, nulls_last=True)
            .unique(KEY, keep="first")
        )
        return self._ruled(pl.from_pandas(tasks).lazy().join(newest, on=KEY, how="left", maintain_order="left"))

    def join_first(self, tasks: pd.DataFrame) -> pd.DataFrame:
        """Join the tasks, then find the newest record of each."""
        import polars as pl

        joined = (
            pl.from_pandas(tasks)
            .lazy()
            .with_row_index("position")
            .join(self.records.lazy().filter(pl.col("orgId") == ORG), on=KEY, how="left")
            .sort(["position", *NEWEST], descending=[False, True, True, True], nulls_last=True)
            .unique("position", keep="first", maintain_order=True)
        )
        return self._ruled(joined)

    @staticmethod
    def _ruled(joined: Any) -> pd.DataFrame:
        import polars as pl

        pending = pl.col("status") == "pending"
        status = pl.when(pending & (pl.col("createdAt") < SINCE)).then(pl.lit("timeout")).otherwise(pl.col("status"))
        found = pl.when(~pending).then(pl.col("dataFound"))
        return joined.select(*KEY, *LEAD, status.alias("status"), found.alias("dataFound")).collect().to_pandas()


class Pandas:
    """A pandas frame."""

    def __init__(self, inputs: Inputs):
        import pandas as pd

        self.records = pd.read_parquet(inputs.text)

    def newest_first(self, tasks: pd.DataFrame) -> pd.DataFrame:
        """Find the newest records of the organization, then join the tasks."""
        own = self.records[self.records["orgId"] == ORG]
        newest = own.sort_values(NEWEST, ascending=False).drop_duplicates(KEY)
        return self._ruled(tasks.merge(newest, on=KEY, how="left"))

    def join_first(self, tasks: pd.DataFrame) -> pd.DataFrame:
        """Join the tasks, then find the newest of several records; sorting the others would only cost."""
        import pandas as pd

        own = self.records[self.records["orgId"] == ORG]
        joined = tasks.assign(position=range(len(tasks))).merge(own, on=KEY, how="left")
        several = joined["position"].duplicated(keep=False)
        newest = joined[several].sort_values(NEWEST, ascending=False).drop_duplicates("position")
        return self._ruled(pd.concat([joined[~several], newest]).sort_values("position", ignore_index=True))

    @staticmethod
    def _ruled(joined: pd.DataFrame) -> pd.DataFrame:
        pending = joined["status"] == "pending"
        return joined[[*KEY, *LEAD]].assign(
            status=joined["status"].mask(pending & (joined["createdAt"] < SINCE), "timeout"),
            dataFound=joined["dataFound"].astype("boolean").mask(pending),
        )


class Sqlite:
    """A table of SQLite whose primary key is the key of a record; for few tasks only."""

    def __init__(self, inputs: Inputs):
        self.con = sqlite3.connect(inputs.sqlite)
        self.con.executescript(
            "pragma cache_size = -2000000; pragma mmap_size = 8000000000; pragma temp_store = memory;"
        )
        # read once, as the others have done when the clock starts
        self.con.execute("select sum(length(id)) from records").fetchall()

    def lookup(self, tasks: list[tuple[str, str]]) -> list[tuple[Any, ...]]:
        """Join the tasks as a list of values."""
        values = ", ".join(["(?, ?, ?)"] * len(tasks))
        given = [value for position, key in enumerate(tasks) for value in (position, *key)]
        return self.con.execute(
            _SQLITE_SQL.replace("$values", values), [*given, int(SINCE.timestamp()) * 1_000_000, ORG, ORG]
        ).fetchall()


_SQLITE_SQL = """
with tasks (position, entityId, field) as (values $values)

select
    t.entityId,
    t.field,
    case when r.status = 'pending' and r.createdAt < ? then 'timeout' else r.status end as status,
    case when r.status <> 'pending' then r.dataFound end as dataFound
from tasks t
left join records r
    on r.orgId = ? and r.entityId = t.entityId and r.entityType = 'person' and r.field = t.field
    and (r.createdAt, r.updatedAt, r.id) = (
        select n.createdAt, n.updatedAt, n.id
        from records n
        where n.orgId = ? and n.entityId = t.entityId and n.entityType = 'person' and n.field = t.field
        order by n.createdAt desc, n.updatedAt desc, n.id desc
        limit 1
    )
order by t.position
"""

KINDS: dict[str, Callable[[Inputs], Any]] = {
    "ours": Ours,
    "duckdb": ByHand,
    "polars": Polars,
    "pandas": Pandas,
}
#: Put after a contender's name, seconds of processor time: what counts where the machine is busy with other work.
CPU = ", CPU"
OURS = "lookup: ours"
BARE = "lookup: bare join"
TWO_COLUMNS = "lookup: hand-written DuckDB, two columns beside the frame"
#: Those that a goal names, in the two orders that the rules can be applied in.
RIVALS = {
    ("hand-written DuckDB .df()", 2): ("duckdb", "lookup: hand-written DuckDB"),
    ("polars → pandas", 4): ("polars", "lookup: polars → pandas"),
    ("pandas.merge", 10): ("pandas", "lookup: pandas.merge"),
}
ORDERS = {"newest_first": "newest, then join", "join_first": "join, then newest"}
LOOKUPS: dict[str, tuple[str, str]] = {
    OURS: ("ours", "lookup"),
    **{f"{label}, {ORDERS[order]}": (kind, order) for kind, label in RIVALS.values() for order in ORDERS},
    TWO_COLUMNS: ("duckdb", "two_columns"),
    BARE: ("duckdb", "bare"),
}
SMALLS: dict[str, tuple[str, str]] = {
    "ours": ("ours", "lookup"),
    "SQLite": ("sqlite", "lookup"),
    "hand-written DuckDB": ("duckdb", "join_first"),
}
PEAKS = [label for label, (kind, _) in LOOKUPS.items() if kind in ("ours", "polars", "pandas")]


# ------------------------------------------------------------------------------- in the contenders' processes

_held: Any = None
_tasks: Any = None


def _begin(start: Callable[..., None] | None, *arguments: Any) -> None:
    # DuckDB may draw progress bars there, among the tables
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if start:
        start(*arguments)


def _hold(kind: str, inputs: Inputs) -> None:
    """Open or read the records, to have them at hand; runs once in a contender's process."""
    global _held, _tasks
    import pandas as pd

    _tasks = pd.read_parquet(inputs.asked)
    _held = (KINDS | {"sqlite": Sqlite})[kind](inputs)


def _first(name: str) -> list[Answer] | None:
    """Answer all tasks and show the answers; this also brings into memory what is read on demand."""
    answer = getattr(_held, name)(_tasks)
    if answer is None:
        return None
    for column in KEY:
        if answer[column].tolist() != _tasks[column].tolist():
            raise RuntimeError(f"{type(_held).__name__}.{name} does not answer in the order of the tasks")
    return _answers(answer)


def _timed(name: str) -> tuple[float, float]:
    gc.collect()
    start, used = time.perf_counter(), time.process_time()
    answer = getattr(_held, name)(_tasks)
    seconds = time.perf_counter() - start, time.process_time() - used
    del answer  # only now: giving the memory back is not part of it
    return seconds


def _timed_small(name: str, seed: int) -> tuple[float, float, list[Answer]]:
    batch = _tasks.take(random.Random(seed).sample(range(len(_tasks)), min(SMALL, len(_tasks)))).reset_index(drop=True)
    if isinstance(_held, Sqlite):
        batch = list(batch[KEY].itertuples(index=False, name=None))
    start, used = time.perf_counter(), time.process_time()
    answer = getattr(_held, name)(batch)
    return time.perf_counter() - start, time.process_time() - used, _answers(answer)


def _answers(answer: Any) -> list[Answer]:
    """Status and dataFound by row, in Python's types, whatever a contender calls null."""
    if isinstance(answer, list):
        return [(status, None if found is None else bool(found)) for _, _, status, found in answer]
    statuses = [status if isinstance(status, str) else None for status in answer["status"].tolist()]
    founds = [found if isinstance(found, bool) else None for found in answer["dataFound"].tolist()]
    return list(zip(statuses, founds, strict=True))


def _peak(label: str, inputs: Inputs) -> tuple[float, float]:
    """Tell the peak memory in MB with the records at hand, and after one lookup."""
    kind, name = LOOKUPS[label]
    _hold(kind, inputs)
    held = _peak_so_far()
    getattr(_held, name)(_tasks)
    return held, _peak_so_far()


def _peak_so_far() -> float:
    # in bytes on macOS, in kB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def _load_ours(typed: Path, target: Path) -> tuple[float, float, float]:
    import enrichstatus

    store = enrichstatus.EnrichmentStore(target)
    start, used = time.perf_counter(), time.process_time()
    store.load(typed)
    loaded = time.perf_counter()
    store.close()
    return loaded - start, time.perf_counter() - start, time.process_time() - used


def _load_native(typed: Path, target: Path) -> tuple[float, float, float]:
    import duckdb

    con = duckdb.connect(str(target))
    start, used = time.perf_counter(), time.process_time()
    con.execute("create table records as from read_parquet($path)", {"path": str(typed)})
    loaded = time.perf_counter()
    con.close()
    return loaded - start, time.perf_counter() - start, time.process_time() - used


# ----------------------------------------------------------------------------------------------- measurements


@contextmanager
def _worker(start: Callable[..., None] | None = None, *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """Start a process, which calls `start` with the arguments first."""
    with ProcessPoolExecutor(1, get_context("spawn"), _begin, (start, *arguments)) as worker:
        yield worker


def _alone(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a fresh process."""
    with _worker() as worker:
        return worker.submit(function, *arguments).result()


def _loads(inputs: Inputs, repeat: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {}
    with open(inputs.typed, "rb") as file:  # for neither to pay the first reading
        while file.read(1 << 24):
            pass
    for turn in range(repeat):
        for label, load, target in (
            ("ours", _load_ours, inputs.store),
            ("CTAS", _load_native, inputs.native),
        ):
            for old in (target, target.with_name(target.name + ".wal")):
                old.unlink(missing_ok=True)
            os.sync()  # what the one before left to be written is not this one's to wait for
            loaded, closed, used = _alone(load, inputs.typed, target)
            seconds.setdefault(f"load: {label}", []).append(loaded)
            seconds.setdefault(f"load: {label}, with closing the file", []).append(closed)
            seconds.setdefault(f"load: {label}, CPU", []).append(used)
            _say(f"load {turn + 1}: {label} {loaded:.2f} s")
    return seconds


def _lookups(workers: dict[str, ProcessPoolExecutor], repeat: int) -> dict[str, list[float]]:
    expected: list[Answer] | None = None
    for label, (kind, name) in LOOKUPS.items():
        answers = workers[kind].submit(_first, name).result()
        if answers is None:
            continue
        expected = expected or answers
        _agree(label, answers, expected)
    _say(f"the contenders agree: {dict(Counter(expected or ()).most_common())}")
    seconds: dict[str, list[float]] = {label + cpu: [] for cpu in ("", CPU) for label in LOOKUPS}
    for turn in range(repeat):
        for label, (kind, name) in LOOKUPS.items():
            for cpu, taken in zip(("", CPU), workers[kind].submit(_timed, name).result(), strict=True):
                seconds[label + cpu].append(taken)
            _say(f"{label} {turn + 1}: {seconds[label][-1]:.2f} s")
    return seconds


def _small(workers: dict[str, ProcessPoolExecutor]) -> dict[str, list[float]]:
    """Time the small batches, ten at a time of each contender; as many before them bring pages and indexes into memory."""
    seconds: dict[str, list[float]] = {label + cpu: [] for label in SMALLS for cpu in ("", CPU)}
    for block in range(0, 2 * BATCHES, 10):
        expected: dict[int, list[Answer]] = {}
        for label, (kind, name) in SMALLS.items():
            for seed in range(block, block + 10):
                taken, used, answers = workers[kind].submit(_timed_small, name, seed).result()
                _agree(f"{SMALL} tasks: {label}", answers, expected.setdefault(seed, answers))
                if block >= BATCHES:
                    seconds[label].append(taken)
                    seconds[label + CPU].append(used)
    return seconds


def _agree(label: str, answers: list[Answer], expected: list[Answer]) -> None:
    if answers != expected:
        counts = json.dumps([Counter(map(str, answers)), Counter(map(str, expected))])
        raise RuntimeError(f"{label} answers otherwise than ours: {counts}")


def _imports() -> dict[str, list[float]]:
    codes = {"import: ours": "import enrichstatus", "import: its engines": "import duckdb, pandas, pyarrow"}
    seconds: dict[str, list[float]] = {label: [] for label in codes}
    with tempfile.TemporaryDirectory() as folder:
        # bytecode is kept for both, and apart from the sources; the first turn writes it
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = folder
        for turn in range(1 + IMPORTS):
            for label, code in codes.items():
                start = time.perf_counter()
                subprocess.run([sys.executable, "-c", code], check=True, env=environment)
                if turn:
                    seconds[label].append(time.perf_counter() - start)
    return seconds


# ----------------------------------------------------------------------------------------------------- report


def _report(
    arguments: argparse.Namespace,
    seconds: dict[str, list[float]],
    peaks: dict[str, tuple[float, float]],
    small: dict[str, list[float]],
) -> None:
    median = {label: statistics.median(taken) for label, taken in seconds.items()}
    figures: list[tuple[str, str, str, bool]] = []

    def figure(name: str, measured: float, goal: float, *, least: bool = False, unit: str = "", note: str = "") -> None:
        met = measured >= goal if least else measured <= goal
        figures.append((name, f"{measured:.2f}{unit}{note}", f"{'≥' if least else '≤'} {goal:g}{unit}", met))

    for cpu in ("", CPU):
        ours = median[OURS + cpu]
        for (name, goal), (_, label) in RIVALS.items():
            for order in ORDERS.values():
                figure(f"{name} ÷ ours ({order}){cpu}", median[f"{label}, {order}{cpu}"] / ours, goal, least=True)
        figure(f"hand-written DuckDB, two columns ÷ ours{cpu}", median[TWO_COLUMNS + cpu] / ours, 2.5, least=True)
        figure(f"ours ÷ bare join{cpu}", ours / median[BARE + cpu], 1)
    p50 = {label: _quantile(taken, 0.5) * 1e3 for label, taken in small.items()}
    for cpu in ("", CPU):
        note = f" (SQLite {p50['SQLite' + cpu]:.2f} ms)"
        figure(f"{SMALL} tasks, p50{cpu}", p50["ours" + cpu], 10, unit=" ms", note=note)
    figure("load ÷ CTAS, CPU", median["load: ours, CPU"] / median["load: CTAS, CPU"], 1.8)
    figure(
        "import ÷ import duckdb, pandas, pyarrow",
        median["import: ours"] / median["import: its engines"],
        1.15,
    )
    for order in ORDERS.values():
        theirs = peaks[f"{RIVALS[('polars → pandas', 4)][1]}, {order}"][1]
        figure(f"peak memory ÷ polars's ({order})", peaks[OURS][1] / theirs, 1)

    print(f"\n{arguments.records:,} records, {arguments.tasks:,} tasks")
    print("Each contender in a process of its own, asked in turn; medians. The rivals are written in two orders.")
    print(f"A task has the columns {', '.join([*KEY, *LEAD])}; each gives them back as a pandas frame.\n")
    _table(["figure", "measured", "to reach", "met?"], [(*row, "yes" if met else "no") for *row, met in figures])
    _table(
        ["seconds", "median", "each"],
        [(label, f"{median[label]:.3f}", " ".join(f"{one:.3f}" for one in taken)) for label, taken in seconds.items()],
    )
    _table(
        [f"{SMALL} tasks, ms", "p50", "p90"],
        [(label, *(f"{_quantile(taken, part) * 1e3:.2f}" for part in (0.5, 0.9))) for label, taken in small.items()],
    )
    _table(
        ["peak memory, MB", "records at hand", "after a lookup"],
        [(label.removeprefix("lookup: "), *(f"{one:,.0f}" for one in peak)) for label, peak in peaks.items()],
    )
    engines = [(name, version(name)) for name in ("duckdb", "polars", "pandas", "pyarrow", "numpy")]
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    _table(
        ["engine", "version"],
        [
            *engines,
            ("SQLite", sqlite3.sqlite_version),
            ("Python", platform.python_version()),
            ("machine", machine),
        ],
    )


def _quantile(taken: Sequence[float], part: float) -> float:
    return sorted(taken)[min(int(part * len(taken)), len(taken) - 1)]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (headings, ["---"] * len(headings), *rows):
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
