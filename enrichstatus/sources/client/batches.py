"""Distinct tasks in full batches, what a service answered to each, and the database where these are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from enrichstatus.lookup import contract as wire
from enrichstatus.lookup.tasks import DISTINCT_SQL, KEYS_SQL
from enrichstatus.progress import Progress
from enrichstatus.schema import SCHEMA

#: With fewer batches nobody needs a progress bar.
_MANY = 20


def bodies(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Pack the distinct tasks of the temporary table ``tasks`` into request bodies, in the order of first appearance."""
    con.execute(_BATCHES_SQL)
    return [body for (body,) in con.execute(_BODIES_SQL).fetchall()]


def receive(con: duckdb.DuckDBPyConnection, answered: Mapping[int, pa.Table]) -> dict[int, str]:
    """Put the answers (`schema.SCHEMA`) to batches into the table ``received``; gives an entity that a batch did not name."""
    batches = [
        records.append_column("batch", pa.array(np.full(records.num_rows, place)))
        for place, records in answered.items()
    ]
    nothing = SCHEMA.append(pa.field("batch", pa.int64())).empty_table()
    con.register("answered", pa.concat_tables([nothing, *batches]))
    con.execute(_RECEIVED_SQL)
    return dict(con.execute(_STRANGERS_SQL).fetchall())


def unanswered(con: duckdb.DuckDBPyConnection) -> npt.NDArray[np.int64]:
    """Give the positions of the tasks whose batches are not among those of the relation ``reached``."""
    positions: npt.NDArray[np.int64] = con.sql(_LOST_SQL).to_arrow_table()["position"].to_numpy()
    return positions


@contextmanager
def progress(con: duckdb.DuckDBPyConnection, count: int, *, shown: bool | None) -> Iterator[Callable[[int], object]]:
    """Show how many tasks have been answered; gives what takes the place of each batch that was."""
    tasks: int = con.execute("select count(*) from keys").fetchall()[0][0]
    with Progress.drawn("enrichment status", shown=shown if count >= _MANY else bool(shown), tasks=tasks) as drawn:
        yield lambda place: drawn.add(min(wire.BATCH_SIZE, tasks - place * wire.BATCH_SIZE))


_BATCHES_SQL = f"""
create temp table keys as
select *, (row_number() over (order by first) - 1) // {wire.BATCH_SIZE} as batch
from ({DISTINCT_SQL})
"""  # noqa: S608  of constants

_BODIES_SQL = """
select to_json({'tasks': list({'entityId': entityId, 'field': field, 'entityType': entityType} order by first)})
from keys
group by batch
order by batch
"""

# An organization that the service does not name is one of its own, for the query needs one.
_RECEIVED_SQL = f"""
create temp table received as
with given as (from answered), keyed as ({KEYS_SQL})
select
    * exclude (castEntityId, castEntityType, castField) replace (
        castEntityId as entityId,
        castEntityType as entityType,
        castField as field,
        coalesce(orgId, '') as orgId
    ),
    entityId as written
from keyed
"""  # noqa: S608  of a constant

_STRANGERS_SQL = """
select batch, any_value(written)
from received
where not exists (
    from keys
    where keys.entityId = received.entityId
        and keys.entityType = received.entityType
        and keys.field = received.field
        and keys.batch = received.batch
)
group by batch
"""

_LOST_SQL = """
select tasks.position
from tasks
inner join keys using (entityId, entityType, field)
where keys.batch not in (select reached.batch from reached)
order by tasks.position
"""
