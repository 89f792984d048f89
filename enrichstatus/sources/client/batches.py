"""Distinct tasks in full batches, what a service answered to each, and the database where these are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import duckdb
import numpy as np
import pyarrow as pa

from enrichstatus.errors import LookupInterrupted, PartialLookupError
from enrichstatus.frames.frames import Rows
from enrichstatus.lookup import contract as wire
from enrichstatus.lookup.query import PartialAnswer
from enrichstatus.lookup.tasks import DISTINCT_SQL, KEYS_SQL
from enrichstatus.progress import Progress
from enrichstatus.schema import SCHEMA

if TYPE_CHECKING:
    from enrichstatus.sources.client.transport.transport import Outcome

#: With fewer batches nobody needs a progress bar.
_MANY = 20


def number(con: duckdb.DuckDBPyConnection) -> int:
    """Put the distinct tasks of the temporary table ``tasks`` into batches, in the order of first appearance; gives how many there are."""
    (count,) = con.execute(_BATCHES_SQL).fetchall()[0]
    return int(count)


def bodies(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Write a request's body for each batch."""
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


def lost(con: duckdb.DuckDBPyConnection) -> Rows:
    """Give the positions of the tasks whose batch is not among those of the relation ``reached``."""
    positions: Rows = con.sql(_LOST_SQL).to_arrow_table()["position"].to_numpy()
    return positions


def give_up(outcome: Outcome[pa.Table], table: pa.Table, lost: Rows) -> NoReturn:
    """Raise what is due where not all batches were answered, with the answers that there are, and the positions of the other tasks."""
    causes = [outcome.failed[place] for place in sorted(outcome.failed)]
    if not outcome.answered and not outcome.interrupted:
        raise causes[0]

    def error(result: Any, failed: Any) -> BaseException:
        if outcome.interrupted:
            text = f"The lookup was interrupted; .failed has the {len(lost):,} tasks that were not answered."
            return LookupInterrupted(text, result, failed)
        text = f"{len(lost):,} tasks were not answered; they are in .failed, the answered ones in .result. {causes[0]}"
        return PartialLookupError(text, result, failed, causes)

    raise PartialAnswer(table, lost, error) from (causes[0] if causes else None)


@contextmanager
def progress(tasks: int, *, shown: bool | None) -> Iterator[Callable[[int], object]]:
    """Show how many of the distinct tasks have been answered; gives what takes the place of each batch that was."""
    many = tasks > (_MANY - 1) * wire.BATCH_SIZE
    with Progress.drawn("enrichment status", shown=shown if many else bool(shown), tasks=tasks) as drawn:
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
