"""What is done with a whole lead list, beside the lookup it stands on: `plan`, `spread`, `coverage`.

The lookup is part of `plan`, which asks; the other two take what a lookup gave. All run in turn, so that a slow minute of the machine
falls on all alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from tests.bench.lookup import _say, _table

#: How many times the lookup's time each may take.
GOALS = {"plan (lookup included)": 1.3, "spread": 1.5, "coverage by source": 1.5}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark to a parser."""
    parser.add_argument("--leads", type=int, default=1_000_000, help="leads, each asked for two fields")
    parser.add_argument("--repeat", type=int, default=5)


def run(arguments: argparse.Namespace) -> None:
    """Measure everything and print the table."""
    import enrichstatus as es

    _say(f"making {arguments.leads:,} leads")
    leads = _leads(arguments.leads)
    tasks = es.tasks_from_leads(leads, entity_id="lead_id", fields=["emails", "phones"])
    store = es.EnrichmentStore(org_id="org_1")
    print(store.load(_records(tasks)), "\n")
    status = store.lookup(tasks)
    calls: dict[str, Callable[[], Any]] = {
        "lookup": lambda: store.lookup(tasks),
        "plan (lookup included)": lambda: es.plan(store, tasks, costs={"emails": 1, "phones": 10}),
        "spread": lambda: es.spread(status),
        "coverage by source": lambda: es.coverage(status, by="source"),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for number in range(arguments.repeat):
        _say(f"round {number + 1} of {arguments.repeat}")
        for name, call in calls.items():
            began, cpu = time.perf_counter(), time.process_time()
            call()
            taken[name].append((time.perf_counter() - began, time.process_time() - cpu))
    middles = {name: [statistics.median(part) for part in zip(*both, strict=True)] for name, both in taken.items()}
    base, base_cpu = middles["lookup"]
    rows = []
    for name, (seconds, cpu) in middles.items():
        goal = GOALS.get(name)
        met = "" if goal is None else f"≤ {goal}, " + ("met" if seconds <= goal * base else "not met")
        rows.append([name, f"{seconds:.2f} s", f"{seconds / base:.2f}", f"{cpu:.2f} s", f"{cpu / base_cpu:.2f}", met])
    _table([f"{len(tasks):,} tasks", "median", "÷ lookup", "CPU", "÷ lookup", "to reach"], rows)


def _leads(count: int) -> Any:
    import duckdb

    return (
        duckdb.sql(
            f"""
        select uuid()::varchar as lead_id, 'lead ' || n as name, ['web', 'fair', 'list'][1 + n % 3] as source
        from range({count}) as leads (n)
        """  # noqa: S608  of a number
        )
        .to_arrow_table()
        .to_pandas()
        .astype({"lead_id": "str", "name": "str", "source": "str"})
    )


def _records(tasks: Any) -> Any:
    """Make records of three tasks in five, of every status."""
    import duckdb

    with duckdb.connect() as con:
        con.register("tasks", tasks)
        return con.sql(
            """
            with bought as (
                select
                    entityId,
                    entityType,
                    field,
                    now() - to_days((random() * 100)::int) as createdAt,
                    ['finished', 'finished', 'finished', 'failed', 'pending'][1 + (random() * 4.999)::int % 5] as status
                from tasks
                where random() < 0.6
            )

            select
                *,
                uuid()::varchar as id,
                createdAt + interval 1 minute as updatedAt,
                case when status = 'finished' then random() < 0.7 end as dataFound,
                'org_1' as orgId
            from bought
            """
        ).to_arrow_table()
