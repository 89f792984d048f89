"""What has changed in a store since somebody looked last: a cursor says when that was."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa

from enrichstatus.errors import StoreError, ValidationError, quoted
from enrichstatus.frames.frames import to_pandas
from enrichstatus.lookup.arguments import Columns, Instant, parse_columns, parse_instant
from enrichstatus.lookup.query import asker
from enrichstatus.schema import COLUMNS, SCHEMA
from enrichstatus.sources.store.answering.duckdb_source import Register
from enrichstatus.sources.store.loading.load import committed
from enrichstatus.sources.store.sql import Queryable

_CHANGES_SQL, _PAST_SQL = (
    Path(__file__).with_name(name).read_text("utf-8").replace("$columns", ", ".join(f"record.{one}" for one in COLUMNS))
    for name in ("changes.sql", "past.sql")
)
_CHANGED = pa.schema([*(SCHEMA.field(name) for name in COLUMNS), pa.field("previousStatus", pa.string())])
#: A load, the word that tells it from that of another file, and a digest of the organization (earlier cursors do not have it).
_CURSOR = re.compile(r"\s*([0-9]{1,18})\.([0-9a-f]{12})(?:\.([0-9a-f]{8}))?\s*")
#: Before all loads.
_BEGINNING = -1


@dataclass(frozen=True, repr=False, eq=False)
class Changes:
    """What has changed in a store since a cursor.

    Attributes
    ----------
    table : pyarrow.Table
        A row for each record that was inserted or updated since, as it is now, in the order of the loads: a record's columns, and
        ``previousStatus``, its status at the cursor (null where it was not there).
    frame : pandas.DataFrame
        The same.
    cursor : str
        What to give as ``since`` the next time: a short text without anything secret.
    """

    table: pa.Table
    cursor: str

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The changed records."""
        return to_pandas(self.table)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        new = self.table["previousStatus"].null_count
        return f"Changes({new:,} inserted, {len(self) - new:,} updated, cursor={self.cursor!r})"


class Tracked(Queryable):
    """A store that knows what changed with which load."""

    def changes(self, since: str | None = None, *, org_id: str | None = None) -> Changes:
        """Give the records of an organization that were inserted or updated since a cursor, each once, with what it was then.

        A record that was updated several times since stands there once, as it is now. Every load is before a cursor or after it, and
        never both: whoever goes on from each cursor to the next misses nothing and gets nothing twice, also when a load failed or a
        program was killed meanwhile. A cursor holds for one organization, and for this file and its copies, as long as these have not been
        loaded apart.

        Parameters
        ----------
        since : str, optional
            The ``.cursor`` of earlier changes; unless given, from the beginning.
        org_id : str, optional
            Whose records; the store's unless given.

        Returns
        -------
        Changes
            ``.frame`` (or ``.table``) and the next ``.cursor``.

        Raises
        ------
        ValidationError
            No organization; or the cursor is none, or of another organization, of another file, of loads that this one has not had, or of
            a time that was pruned.
        StoreError
            The store is closed, or its file cannot be read.

        Examples
        --------
        >>> import enrichstatus as es
        >>> pending = {
        ...     "id": "0b2ffb9e-6a0e-4b43-9f0d-1f1a2d8f6c11", "createdAt": "2025-01-13T10:30:00.000Z",
        ...     "entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails", "status": "pending"}
        >>> store = es.EnrichmentStore(org_id="org_1")
        >>> report = store.load([pending])
        >>> yesterday = store.changes()
        >>> yesterday.frame[["status", "previousStatus"]]
            status previousStatus
        0  pending            NaN
        >>> report = store.load([pending | {"status": "finished", "dataFound": True, "updatedAt": "2025-01-13T10:31:07.000Z"}])
        >>> store.changes(yesterday.cursor).frame[["status", "previousStatus"]]
             status previousStatus
        0  finished        pending
        """
        whose = asker(self.org_id if org_id is None else org_id, self._limits, None)["orgId"][0].as_py()
        with self._cursor() as con:
            con.begin()  # the cursor and the records are of one moment
            try:
                load = _load_of(con, since, whose)
                number, word = con.execute(_LAST_SQL).fetchall()[0]
                found = con.sql(_CHANGES_SQL, params={"since": load, "org_id": whose}).to_arrow_table()
            finally:
                con.rollback()
        return Changes(found.cast(_CHANGED), f"{number}.{word}.{_digest(whose)}")

    def records(self, columns: Columns = COLUMNS, *, org_id: str | None = None, as_of: Instant = None) -> pa.Table:
        """Give all records of an organization as they were loaded, in no particular order.

        Parameters
        ----------
        columns : sequence of str or "all"
            Which; the key among them unless others are named.
        org_id : str, optional
            Whose; the store's unless given.
        as_of : datetime or str, optional
            As they were known at this instant: with the loads that were done by then.

        Returns
        -------
        pyarrow.Table
            A row for each record, those of one key that were bought several times too.

        Raises
        ------
        ValidationError
            No organization, or no such column; `as_of` in the future, before the first load, or in a time that was pruned.
        StoreError
            The store is closed, or its file cannot be read.
        """
        past = self._past(as_of)
        if past is None:
            return super().records(columns, org_id=org_id)
        whose = asker(self.org_id if org_id is None else org_id, self._limits, None)["orgId"][0].as_py()
        names = parse_columns(columns, COLUMNS)
        with self._cursor() as con:
            past(con, whose, names)
            found = con.table("records").select(*names).to_arrow_table()
        return found.cast(pa.schema([SCHEMA.field(name) for name in names]))

    def _past(self, as_of: Instant) -> Register | None:
        if as_of is None:
            return None
        moment = _past_instant(as_of, "as_of")

        def register(con: duckdb.DuckDBPyConnection, org_id: str, names: Sequence[str]) -> None:
            values = {"load": _load_at(con, moment), "org_id": org_id}
            con.register("records", con.sql(_PAST_SQL, params=values))

        return register

    def prune(self, before: Instant) -> int:
        """Forget what records were before an instant; gives how many versions of records were forgotten.

        Every record stays as it is. Cursors from before that instant, and ``as_of=`` before it, are refused from then on.

        Parameters
        ----------
        before : datetime or str
            An instant that is not in the future.

        Raises
        ------
        ValidationError
            `before` is not an instant, or in the future.
        StoreError
            The store is read-only or closed, or the file cannot be written.
        """
        if before is None:
            raise ValidationError("takes an instant: what records were before it is forgotten.", argument="before")
        if self.read_only:
            raise StoreError(f"{self.path} was opened read-only; open it without read_only=True to prune.")
        moment = _past_instant(before, "before")
        with self._writing() as con, committed(con.begin()):
            forgotten = con.execute(_PRUNE_SQL, {"before": moment}).fetchall()[0][0]
            con.execute(_PRUNE_LOG_SQL, {"before": moment})
        return int(forgotten)


def _past_instant(value: Instant, name: str) -> datetime:
    """Read an instant at which something can have been known."""
    moment = parse_instant(value, name)
    if moment > datetime.now(UTC):
        raise ValidationError(
            f"is {moment:%Y-%m-%d %H:%M:%S} UTC, which is in the future; name one that has been.", argument=name
        )
    return moment


def _digest(org_id: str) -> str:
    """Tell the cursors of one organization from those of another, without its name."""
    return hashlib.blake2s(org_id.encode(), digest_size=4).hexdigest()


def _load_of(con: duckdb.DuckDBPyConnection, cursor: object, org_id: str) -> int:
    """Give the load that a cursor of an organization stands after, if it is one of this file."""
    if cursor is None:
        return _BEGINNING
    found = _CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
    if found is None:
        raise ValidationError(f"takes the .cursor of earlier changes, not {quoted(cursor)}.", argument="since")
    load, word = int(found[1]), found[2]
    if found[3] not in (None, _digest(org_id)):
        raise ValidationError(
            f"is of the changes of another organization than {org_id!r}. Check how it is spelled; each has a cursor of its own.",
            argument="since",
        )
    known = dict(con.execute("select load, word from enrichment_log").fetchall())
    if known.get(load) == word:
        return load
    why = "is of another store, or of a copy of this one that has been loaded apart since"
    if load > max(known):
        why = "is of a load that this file has not had: of another store, or of this one before an earlier copy was put back"
    elif load < min(known):
        why = "is of a time that was pruned"
    raise ValidationError(f"{why}. Begin again without it, and take every record for changed.", argument="since")


def _load_at(con: duckdb.DuckDBPyConnection, moment: datetime) -> int:
    """Give the last load that was done by an instant."""
    load, first, known = con.execute(_LOAD_AT_SQL, {"moment": moment}).fetchall()[0]
    if load is None or not known:
        when = "there is no load" if first is None else f"what is known begins with a load that was done at {first} UTC"
        raise ValidationError(f"is {moment:%Y-%m-%d %H:%M:%S} UTC, and {when}.", argument="as_of")
    return int(load)


#: The last load that was done by then, when the first was done of which anything is known, and whether anything was known by then.
_LOAD_AT_SQL = """
with loaded as (
    select enrichment_log.*
    from enrichment_log
    where enrichment_log.load >= (
        select min(load) from (select load from enrichments union all select load from enrichment_versions)
    )
)

select
    (select max(load) from enrichment_log where done <= $moment),
    (select strftime(min(done), '%Y-%m-%d %H:%M:%S') from loaded),
    exists (from loaded where done <= $moment)
"""
_LAST_SQL = "select load, word from enrichment_log order by load desc limit 1"
#: The last load that was done by then stays known: what came after it can still be compared with it.
_KEPT_SQL = "(select max(load) from enrichment_log where done <= $before)"
_PRUNE_SQL = f"delete from enrichment_versions where until <= {_KEPT_SQL}"  # noqa: S608  of a constant
_PRUNE_LOG_SQL = f"delete from enrichment_log where load < {_KEPT_SQL}"  # noqa: S608
