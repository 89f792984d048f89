"""What a trigger has requested, and has no answer yet: keys that are leased, so that none is bought twice.

A lease is written before its request is sent, in one transaction with the look at what is recorded, and it is deleted in one
transaction with the answer's records. What remains after a crash shows what may have been bought.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.errors import ValidationError
from enrichstatus.schema import KEY, NO_LEASES, SCHEMA
from enrichstatus.sources.store.loading.load import committed, load

if TYPE_CHECKING:
    from enrichstatus.sources.store.store import EnrichmentStore

_KEY = pa.schema([(name, pa.string()) for name in KEY])
_TABLE_SQL = Path(__file__).with_name("leases.sql").read_text(encoding="utf-8")

#: The calls of this process that are under way. No other process can have the file open to write it.
_under_way: set[str] = set()
_lock = threading.Lock()


class Answered(NamedTuple):
    """What became of the tasks of a request: new records, records of before, none; and the records that it did not ask for."""

    bought: pa.Table
    already: pa.Table
    missing: pa.Table
    strangers: int


class Leases:
    """The leases of a store, as one call of `EnrichmentClient.trigger` makes and ends them, for the store's organization."""

    def __init__(self, store: EnrichmentStore):
        if store.read_only:
            raise ValidationError("takes a store that can be written; this one is only read.", argument="into")
        if not store.org_id:
            raise ValidationError(
                "takes a store that was opened for an organization, which the purchases are for.", argument="into"
            )
        self._store, self.org_id = store, store.org_id
        self._request = str(uuid.uuid4())

    def __enter__(self) -> Self:
        with self._store._writing() as con:
            con.execute(_TABLE_SQL)
        with _lock:
            _under_way.add(self._request)
        return self

    def __exit__(self, *exception: object) -> None:
        with _lock:
            _under_way.discard(self._request)

    def changed(self, purchases: pa.Table) -> int:
        """Count the purchases of which something else is recorded by now than when they were planned."""
        with self._store._cursor() as con:
            con.register("purchases", purchases)
            return int(con.execute(_CHANGED_SQL, {"org": self.org_id}).fetchall()[0][0])

    def take(self, purchases: pa.Table, at: datetime) -> pa.Table:
        """Lease the purchases of which no other call has a lease, and nothing else is recorded than when they were planned; gives these."""
        with self._store._writing() as con:
            con.register("purchases", purchases)
            with committed(con.begin()):
                con.execute(_TAKEN_SQL, {"org": self.org_id})
                con.execute(_LEASE_SQL, {"org": self.org_id, "request": self._request, "at": at.isoformat()})
                leased = con.sql("select position from leased").to_arrow_table()
        return purchases.filter(pc.is_in(purchases["position"], leased["position"].combine_chunks()))

    def lost(self) -> pa.Table:
        """Give the leases of calls that are over: what became of their requests is not known."""
        with _lock:
            alive = pa.array(sorted(_under_way), pa.string())
        held = self._store.leases()
        return held.filter(pc.invert(pc.is_in(held["request"], alive)))

    def answered(self, records: Any, leased: pa.Table, before: datetime) -> Answered:
        """Load what a request was answered with, and end the leases of what it has a record of.

        A record that was created `before`, or is the one that the plan has seen, was already there.
        """
        found: list[Any] = []

        def look(con: duckdb.DuckDBPyConnection) -> None:
            con.register("leased", leased)
            values = {"org": self.org_id, "before": before.isoformat()}
            found.append(con.sql(_ANSWERED_SQL, params=values).to_arrow_table())
            found.extend(con.execute(_STRANGERS_SQL).fetchall()[0])

        self._end(leased, records, "answered", look=look)
        places, strangers = found
        has = pc.is_in(leased["position"], places["position"].combine_chunks())
        old = pc.is_in(leased["position"], places.filter(places["already"])["position"].combine_chunks())
        new = pc.and_not(has, old)
        return Answered(leased.filter(new), leased.filter(old), leased.filter(pc.invert(has)), strangers)

    def refused(self, leased: pa.Table) -> None:
        """End the leases of a request that has certainly bought nothing."""
        self._end(leased, SCHEMA.empty_table(), "refused")

    def looked_up(self, records: Any, lost: pa.Table, before: datetime) -> pa.Table:
        """Load what was looked up of lost leases, and end those that have a record made since, or that began before an instant.

        A record that was made earlier does not show that the request has come to nothing: it may be on its way still. Gives the
        tasks that are released: those that have ended without a record.
        """
        self._end(lost, records, "looked up")
        return self._end(lost, SCHEMA.empty_table(), "looked up", before)

    def _end(
        self,
        keys: pa.Table,
        records: Any,
        how: str,
        before: datetime | None = None,
        look: Callable[[duckdb.DuckDBPyConnection], None] = lambda con: None,
    ) -> pa.Table:
        """Load records and end leases in one transaction; gives the tasks whose leases have ended, and lets `look` see what is loaded."""
        ended: list[pa.Table] = []

        def end(con: duckdb.DuckDBPyConnection) -> None:
            con.register("ending", keys.select(KEY))
            moment = None if before is None else before.isoformat()
            look(con)
            rows = con.execute(_END_SQL, {"org": self.org_id, "how": how, "before": moment}).fetchall()
            columns = list(zip(*rows, strict=True)) or [()] * len(KEY)
            ended.append(pa.table(dict(zip(KEY, columns, strict=True)), _KEY))

        how_read: dict[str, Any] = {"errors": "raise", "columns": None, "statuses": self._store._statuses}
        with self._store._writing() as con:
            load(con, records, org_id=self.org_id, then=end, history=self._store._history, **how_read)
        return ended[0]


def leases(con: duckdb.DuckDBPyConnection, org_id: str | None) -> pa.Table:
    """Give the leases of an organization (`schema.NO_LEASES`); a file in which nothing was ever leased has none."""
    try:
        return con.sql(_LEASES_SQL, params={"org": org_id}).to_arrow_table().cast(NO_LEASES.schema)
    except duckdb.CatalogException:
        return NO_LEASES


_LEASES_SQL = """
select entityId::varchar as entityId, entityType::varchar as entityType, field::varchar as field, since, request, seen
from enrichment_leases
where orgId = $org
"""

# Of each purchase whether the newest record is another one than the plan has seen, or has changed since.
_STATE_SQL = """
with keys as (
    select
        position,
        entityId::uuid as entityId,
        entityType::enrichment_entity_type as entityType,
        field::enrichment_field as field,
        createdAt,
        coalesce(updatedAt, createdAt) as updatedAt,
        pending
    from purchases
),

state as (
    select
        keys.position,
        coalesce(bool_or(
            keys.createdAt is null
            or records.createdAt > keys.createdAt
            or (
                records.createdAt = keys.createdAt
                and (
                    coalesce(records.updatedAt, records.createdAt) > keys.updatedAt
                    or (keys.pending and records.status <> 'pending')
                )
            )
        ) filter (where records.id is not null), false) as changed
    from keys
    left join enrichments as records
        on records.orgId = $org
        and records.entityId = keys.entityId
        and records.entityType = keys.entityType
        and records.field = keys.field
    group by keys.position
)
"""

_CHANGED_SQL = f"{_STATE_SQL} select count(*) filter (where changed) from state"  # noqa: S608  of constants

_TAKEN_SQL = f"""
create temp table leased as
{_STATE_SQL}
select keys.position, keys.entityId, keys.entityType, keys.field, keys.createdAt
from keys
inner join state using (position)
where not state.changed
    and not exists (
        from enrichment_leases as leases
        where leases.orgId = $org
            and leases.entityId = keys.entityId
            and leases.entityType = keys.entityType
            and leases.field = keys.field
    )
"""  # noqa: S608  of constants

_LEASE_SQL = """
insert into enrichment_leases
select $org, entityId, entityType, field, $at::timestamptz, $request, createdAt from leased
"""

_END_SQL = """
delete from enrichment_leases as leases
where leases.orgId = $org
    and exists (
        from ending
        where ending.entityId::uuid = leases.entityId
            and ending.entityType = leases.entityType::varchar
            and ending.field = leases.field::varchar
    )
    and (
        $how = 'refused'
        or leases.since <= $before::timestamptz
        or exists (
            from staged
            where staged.orgId = $org
                and staged.entityId = leases.entityId
                and staged.entityType = leases.entityType
                and staged.field = leases.field
                and (
                    $how = 'answered'
                    or (staged.createdAt >= leases.since and (leases.seen is null or staged.createdAt > leases.seen))
                )
        )
    )
returning entityId::varchar, entityType::varchar, field::varchar
"""

# of each task that an answer has records of, whether these were there before
_ANSWERED_SQL = """
select
    leased.position,
    coalesce(max(staged.createdAt) < $before::timestamptz or max(staged.createdAt) <= any_value(leased.createdAt), false) as already
from leased
inner join staged
    on staged.entityId = leased.entityId::uuid
    and staged.entityType::varchar = leased.entityType
    and staged.field::varchar = leased.field
where staged.orgId = $org
group by leased.position
"""

_STRANGERS_SQL = """
select count(*)
from staged
where not exists (
    from leased
    where leased.entityId::uuid = staged.entityId
        and leased.entityType = staged.entityType::varchar
        and leased.field = staged.field::varchar
)
"""
