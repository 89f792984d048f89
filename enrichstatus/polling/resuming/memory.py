"""What a poll remembers in a store: the answers, and since when it waits for tasks that have no record yet."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import pandas as pd
import pyarrow as pa

from enrichstatus.errors import ValidationError
from enrichstatus.lookup.query import asker
from enrichstatus.lookup.tasks import to_pandas
from enrichstatus.polling.tracker import ANSWER
from enrichstatus.schema import COLUMNS, KEY, SCHEMA, listed
from enrichstatus.sources.store.store import EnrichmentStore

#: Of each field so many of the newest records are history: more would outweigh what the present run shows.
_HISTORY = 2000


class Memory:
    """The part of a store that a poll writes and reads, for the organization that the store was opened with."""

    def __init__(self, store: object):
        if not isinstance(store, EnrichmentStore):
            raise ValidationError(f"takes an EnrichmentStore, not {type(store).__name__}.", argument="into")
        if store.read_only:
            raise ValidationError("takes a store that can be written; this one is only read.", argument="into")
        if not store.org_id:
            raise ValidationError(
                "takes a store that was opened for an organization, whose records the answers are.", argument="into"
            )
        self._store, self._org = store, store.org_id
        with store._writing() as con:
            con.execute(_WAITS_SQL)

    def recall(self, tasks: pd.DataFrame, others: Iterable[str] = ()) -> pd.DataFrame:
        """Give the tasks with what is recorded of them, `others` of a record's columns too.

        ``since`` is when those without a record were first requested.
        """
        # without the timeout rule: what is pending has not ended, however old it is
        question = asker(self._org, self._store._limits, None, evaluated=False)
        names = tuple(dict.fromkeys((*ANSWER, *others)))
        found = self._store._look_up(tasks, question, columns=names, how="left", errors="raise", prefix="")
        with self._store._cursor() as con:
            con.register("wanted", pa.Table.from_pandas(tasks, preserve_index=False))
            since = to_pandas(con.sql(_SINCE_SQL, params={"org": self._org}))
        known: pd.DataFrame = found.assign(since=since["since"].array)
        return known

    def remember(self, answers: pd.DataFrame, at: datetime, *, missing_after: float) -> None:
        """Write answers (the key, and all columns of a record): those with a record are loaded, the others waited for since `at`.

        A wait that began so many seconds before is over, and another begins.
        """
        if strange := sorted(set(answers["orgId"].dropna()) - {self._org}):
            raise ValidationError(
                f"is opened for {self._org}, but the answers are records of {listed(strange)}: name that organization.",
                argument="into",
            )
        found = answers["status"].notna()
        if found.any():
            self._store.load(answers.loc[found, list(COLUMNS)])
        if not found.all():
            with self._store._writing() as con:
                con.register("wanted", pa.Table.from_pandas(answers.loc[~found, list(KEY)], preserve_index=False))
                con.execute(_WAIT_SQL, {"org": self._org, "at": at.isoformat(), "over": missing_after})

    def history(self, tasks: pd.DataFrame) -> pa.Table:
        """How long the newest records took that are not these tasks': ``field``, ``seconds``, and whether their end was ``observed``."""
        with self._store._cursor() as con:
            con.register("wanted", pa.Table.from_pandas(tasks, preserve_index=False))
            parts = [
                con.sql(_HISTORY_SQL, params={"org": self._org, "field": field, "most": _HISTORY}).to_arrow_table()
                for field in tasks["field"].unique()
            ]
        return pa.concat_tables([_NOTHING, *parts])


_NOTHING = pa.schema([SCHEMA.field("field"), ("seconds", pa.float64()), ("observed", pa.bool_())]).empty_table()

_WAITS_SQL = """
create table if not exists enrichment_waits (
    orgId varchar not null,
    entityId uuid not null,
    entityType enrichment_entity_type not null,
    field enrichment_field not null,
    since timestamptz not null,
    primary key (orgId, entityId, entityType, field)
)
"""

_WAIT_SQL = """
insert into enrichment_waits
select $org, entityId::uuid, entityType::enrichment_entity_type, field::enrichment_field, $at::timestamptz from wanted
on conflict do update set since = excluded.since
where enrichment_waits.since <= excluded.since - to_seconds($over)
"""

_SINCE_SQL = """
select epoch(since) as since
from wanted
left join enrichment_waits as waits
    on waits.orgId = $org
    and waits.entityId = wanted.entityId::uuid
    and waits.entityType = wanted.entityType::enrichment_entity_type
    and waits.field = wanted.field::enrichment_field
order by wanted.task
"""

# A timeout shows that it took longer, not how long.
_HISTORY_SQL = """
select
    field::varchar as field,
    epoch(updatedAt) - epoch(createdAt) as seconds,
    status not in ('pending', 'timeout') as observed
from enrichments
where orgId = $org
    and field = $field::enrichment_field
    and updatedAt > createdAt
    and not exists (from wanted where wanted.entityId::uuid = enrichments.entityId and wanted.field = $field)
order by createdAt desc, id
limit $most
"""
