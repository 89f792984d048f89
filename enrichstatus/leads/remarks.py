"""Tasks of a list that are not to be bought whatever their own record says, with a remark in words that says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.leads.plan import Codes
from enrichstatus.lookup.arguments import Instant
from enrichstatus.lookup.query import Source
from enrichstatus.lookup.tasks import problems
from enrichstatus.lookup.vectors.keys import Vocabulary, mixed
from enrichstatus.schema import ENTITY_TYPES
from enrichstatus.sources.store.answering.duckdb_source import Embedded

#: Gives the database where the tasks stand in a table, which it makes when it is called first.
Tabled = Callable[[], duckdb.DuckDBPyConnection]


def leased(tabled: Tabled, leases: pa.Table) -> pa.Table:
    """Find the tasks that are leased."""
    if not leases.num_rows:
        return _REMARKED.empty_table()
    con = tabled()
    con.register("leases", leases)
    return con.sql(_LEASED_SQL).to_arrow_table()


def twice(tabled: Tabled, keys: pa.Table, fields: Sequence[str]) -> pa.Table:
    """Find the tasks that stand further up already; few do, and sorted digests show which may."""
    usual = Vocabulary(fields).keys_of_table(keys) if keys["entityId"].type == pa.uuid() else None
    if usual is None:
        position, digest = (column.to_numpy() for column in tabled().sql(_DIGESTS_SQL).to_arrow_table().columns)
    else:
        position, digest = np.arange(len(keys)), mixed(*usual)
    ordered = np.sort(digest)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeated):
        return _REMARKED.empty_table()
    con = tabled()
    con.register("repeated", pa.table({"position": position[np.isin(digest, repeated)]}))
    return con.sql(_TWICE_SQL).to_arrow_table()


def mistaken(source: Source, tabled: Tabled, keys: pa.Table, unknown: Codes, recorded: Codes, now: Instant) -> pa.Table:
    """Find tasks without a record whose entity has one as the other type; of an entity all tasks or none."""
    # only of records at hand: of a service, or a cluster, this would double the requests
    if not isinstance(source, Embedded) or not len(unknown):
        return _REMARKED.empty_table()
    types = keys["entityType"].take(unknown).cast(pa.string())
    person, company = ENTITY_TYPES
    others = {company if kind == person else person for kind in types.unique().to_pylist()}
    if not any(source.holds(entity_type=other) for other in others):
        return _REMARKED.empty_table()
    swapped = keys.take(unknown)
    place = swapped.column_names.index("entityType")
    swapped = swapped.set_column(place, "entityType", pc.if_else(pc.equal(types, person), company, person))
    known = source.lookup(swapped, columns="reason", how="inner", now=now)
    con = tabled()
    con.register("known", known.select(["position"]))
    con.register("bought", pa.table({"position": recorded}))
    return con.sql(_MISTAKEN_SQL).to_arrow_table()


def bad(tabled: Tabled) -> pa.Table:
    """Say of each bad task what is wrong with it."""
    con = tabled()
    con.register("problems", problems(con))
    return con.sql(_BAD_SQL).to_arrow_table()


_REMARKED = pa.schema([("position", pa.int64()), ("words", pa.string())])

_DIGESTS_SQL = "select position, hash(entityId, entityType, field) as digest from tasks"
# of all but the first row of a task
_TWICE_SQL = """
with alike as (
    select tasks.*, min(position) over (partition by entityId, entityType, field) as first
    from tasks
    where position in (from repeated)
)

select position, 'the same task as in row ' || first as words
from alike
where position > first
"""

# of tasks that a trigger has requested, and whose outcome is not known
_LEASED_SQL = """
select tasks.position, strftime(leases.since, 'requested on %Y-%m-%d, and not answered yet') as words
from tasks
inner join leases
    on try_cast(leases.entityId as uuid) = tasks.entityId
    and try_cast(leases.entityType as enrichment_entity_type) = tasks.entityType
    and try_cast(leases.field as enrichment_field) = tasks.field
"""

_BAD_SQL = """
select problems.row as position, string_agg(problems.column || ' ' || problems.reason, ', ') as words
from problems
group by problems.row
"""

# an entity that is known as both was not mistaken
_MISTAKEN_SQL = """
with entities as (
    select distinct tasks.entityId, tasks.entityType
    from tasks
    inner join known using (position)
)

select
    tasks.position,
    'known as a ' || if(tasks.entityType = 'person', 'company', 'person') || ': is the entity type right?' as words
from tasks
inner join entities using (entityId, entityType)
where tasks.position not in (select position from bought)
    and not exists (
        select 1
        from tasks as others
        inner join bought using (position)
        where others.entityId = tasks.entityId and others.entityType = tasks.entityType
    )
"""
