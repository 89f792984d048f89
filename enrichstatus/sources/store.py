"""The embedded source: enrichment records in a DuckDB file, or in memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from html import escape
from typing import Any

import pandas as pd
import pyarrow as pa

from enrichstatus import display
from enrichstatus.errors import InternalError, StoreError, ValidationError
from enrichstatus.lookup import (
    MAX_PROCESSING_TIME,
    Columns,
    Errors,
    How,
    Instant,
    asked,
    asker,
    look_up,
    parse_limits,
    parse_org,
)
from enrichstatus.schema import COLUMNS, SCHEMA
from enrichstatus.sources.answering import answer
from enrichstatus.sources.database import Database
from enrichstatus.sources.loading import LoadReport, load
from enrichstatus.sources.querying import PREFIX, query_many
from enrichstatus.tasks import parse_fields, to_pandas


class EnrichmentStore(Database):
    """Enrichment records in DuckDB, and the status of any number of tasks as one join over them.

    Parameters
    ----------
    path : str or path
        The database file, made where there is none; ``":memory:"`` (default) keeps everything in memory.
    org_id : str, optional
        The organization that asks, and whose records are loaded where they name none; each call can name another.
    max_processing_time : str, timedelta, seconds, or a mapping of these by field
        A record pending for longer than this is reported as ``timeout``. A mapping leaves the others at the default of 800 s.
    fields : sequence of str, optional
        The allowed fields, fixed when the file is made; ``emails``, ``phones`` and ``summary`` unless given.
    read_only : bool
        Open an existing file without writing to it. Any number of read-only processes share a file, one that writes does not.

    preload : bool
        For a server: copy the records of a file opened read-only to the temporary folder (some 240 bytes each; ten million take 10 s),
        laid out so that few tasks find theirs faster.

    Raises
    ------
    ValidationError
        An argument is unusable, or `fields` differ from those the file was made with.
    StoreLockedError
        Another process holds the file.
    StoreError
        The file is no store, or cannot be opened, made or read.

    Examples
    --------
    >>> import enrichstatus as es
    >>> store = es.EnrichmentStore(org_id="org_1")
    >>> print(store.load([{
    ...     "id": "0b2ffb9e-6a0e-4b43-9f0d-1f1a2d8f6c11", "createdAt": "2025-01-13T10:30:00.000Z",
    ...     "updatedAt": "2025-01-13T10:31:07.000Z", "entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
    ...     "entityType": "person", "field": "emails", "status": "finished", "dataFound": True, "orgId": "org_1"}]))
    1 read: 1 inserted, 0 updated, 0 unchanged, 0 rejected
    >>> store.lookup([{"entityId": "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", "field": "emails"}])
                                   entityId   field    status  dataFound
    0  F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6  emails  finished       True
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = ":memory:",
        *,
        org_id: str | None = None,
        max_processing_time: str | float | timedelta | Mapping[str, str | float | timedelta] = MAX_PROCESSING_TIME,
        fields: Sequence[str] | None = None,
        read_only: bool = False,
        preload: bool = False,
    ):
        parse_org(org_id)
        self.org_id = org_id
        self._loading = threading.Lock()
        wanted = None if fields is None else parse_fields(fields)
        super().__init__(path, fields=wanted, read_only=read_only, preload=preload)
        try:
            self._limits = parse_limits(max_processing_time, self.fields)
        except BaseException:
            self.close()
            raise

    @property
    def max_processing_time(self) -> dict[str, timedelta]:
        """By field, for how long a record may be pending before it is reported as ``timeout``."""
        return dict(self._limits)

    def load(
        self,
        records: Any,
        *,
        org_id: str | None = None,
        errors: Errors = "raise",
        columns: Mapping[str, str] | None = None,
    ) -> LoadReport:
        """Load enrichment records: in one transaction, as often and in whatever order you like, with the same end.

        Of several versions of a record (one ``id``) the newest ``updatedAt`` stays. A record without ``id`` gets one made of its
        key and ``createdAt``. A timestamp without a zone is UTC.

        Parameters
        ----------
        records : path, glob, list of paths, DataFrame, Arrow table, DuckDB relation or list of dicts
            CSV, TSV, JSON, NDJSON or Parquet, ``.gz`` and ``.zst`` too; wire names or snake_case.
        org_id : str, optional
            The organization of records that carry none; the store's unless given.
        errors : {"raise", "reject"}
            What bad rows do: ``raise`` loads nothing and names them, ``reject`` loads the others and reports them.
        columns : mapping, optional
            Columns under other names, ``{"theirs": "ours"}``.

        Returns
        -------
        LoadReport
            Rows read, inserted, updated, unchanged and rejected, and the rejects.

        Raises
        ------
        ValidationError
            The input cannot be read, lacks a column, or (``errors="raise"``) has bad rows: all are in its ``.problems``.
        StoreError
            The store is read-only or closed, or the file cannot be written.
        """
        if self.read_only:
            raise StoreError(f"{self.path} was opened read-only; open it without read_only=True to load.")
        parse_org(org_id)
        org_id = self.org_id if org_id is None else org_id
        with self._loading, self._cursor() as con:
            return load(con, records, org_id=org_id, errors=errors, columns=columns)

    def lookup(
        self,
        tasks: Any,
        *,
        columns: Columns = ("status", "dataFound"),
        how: How = "left",
        errors: Errors = "raise",
        now: Instant = None,
        prefix: str = "",
        org_id: str | None = None,
    ) -> Any:
        """Answer tasks of any number with the same frame and the asked columns; row *i* is task *i*.

        Parameters
        ----------
        tasks : DataFrame, Arrow table, DuckDB relation, list of dicts or path
            Columns ``entityId`` (a UUID, in any spelling), ``field`` and ``entityType`` (absent: person), among any others.
        columns : sequence of str or "all"
            What to add: any of a record's columns; ``all`` is those beyond the key. Also ``reason``, why there is data or not
            (``no_record``, ``pending``, ``timed_out_here`` by the maximum processing time, ``timed_out_there`` by the service,
            ``failed``, ``no_data``, ``data``, ``invalid``), ``age`` of the record in seconds, and ``expiresIn``, the seconds in which
            a pending one counts as timed out.
        how : {"left", "inner"}
            ``left`` keeps tasks without a record, with nulls; ``inner`` leaves them out.
        errors : {"raise", "coerce"}
            What bad tasks do: ``raise`` names them all; ``coerce`` gives them nulls.
        now : datetime or str, optional
            The instant at which the timeout rule is judged (without a zone: UTC); the clock's unless given.
        prefix : str
            Put before the names of the added columns.
        org_id : str, optional
            The organization that asks; the store's unless given.

        Returns
        -------
        A frame of the same kind (pandas for a list or a path), its columns and index untouched. In pandas ``status`` is ``str``,
        ``dataFound`` nullable ``boolean``, timestamps ``datetime64[us, UTC]`` and the rest ``str``, whatever the data.

        Raises
        ------
        ValidationError
            No organization, bad tasks (all are in its ``.problems``), or an argument that is unusable.
        StoreError
            The store is closed, or its file cannot be read.
        """
        question = asker(self.org_id if org_id is None else org_id, self._limits, now)
        return self._look_up(tasks, question, columns=columns, how=how, errors=errors, prefix=prefix)

    def records(self, columns: Columns = COLUMNS, *, org_id: str | None = None) -> pa.Table:
        """Give all records of an organization as they were loaded, in no particular order.

        Parameters
        ----------
        columns : sequence of str or "all"
            Which; the key among them unless told otherwise.
        org_id : str, optional
            Whose; the store's unless given.

        Returns
        -------
        pyarrow.Table
            A row for each record, those of one key that were bought several times too.

        Raises
        ------
        ValidationError
            No organization, or no such column.
        StoreError
            The store is closed, or its file cannot be read.
        """
        question = asker(self.org_id if org_id is None else org_id, self._limits, None)
        names = asked(columns, COLUMNS)
        with self._cursor() as con:
            con.register("asker", question)
            found = con.sql("from enrichments where orgId in (select orgId from asker)").select(*names)
            return found.to_arrow_table().cast(pa.schema([SCHEMA.field(name) for name in names]))

    def query(self, body: Any, *, org_id: str | None = None, now: Instant = None) -> list[dict[str, Any]]:
        """Answer the contract's request in process: 1 to 200 tasks in, the existing records out, as wire objects.

        Parameters
        ----------
        body : dict
            ``{"tasks": [{"entityId": …, "field": …, "entityType": …}]}``.
        org_id, now
            As for `lookup`.

        Returns
        -------
        list of dict
            An object for each distinct task that has a record, in the order of their first appearance.

        Raises
        ------
        ValidationError
            The body breaks the contract, or there is no organization (400).
        InternalError
            The query failed (500).
        """
        [answer] = self.query_many([body], org_id=org_id, now=now)
        if isinstance(answer, ValidationError):
            raise answer
        return answer

    def query_many(
        self, bodies: Sequence[Any], *, org_id: str | None = None, now: Instant = None
    ) -> list[list[dict[str, Any]] | ValidationError]:
        """Answer several requests of one organization by one lookup, which takes hardly longer than a single one.

        Parameters
        ----------
        bodies, org_id, now
            As for `query`.

        Returns
        -------
        list
            For each body what `query` returns; for one that breaks the contract the `ValidationError` that `query` raises.

        Raises
        ------
        ValidationError
            There is no organization (400).
        InternalError
            The query failed (500).
        """
        question = asker(self.org_id if org_id is None else org_id, self._limits, now)
        options: dict[str, Any] = {"columns": COLUMNS, "how": "inner", "errors": "raise", "prefix": PREFIX}
        try:
            return query_many(lambda tasks: self._look_up(tasks, question, **options), bodies)
        except StoreError as error:
            if self._con is None:
                raise
            raise InternalError("The query failed.") from error

    def _look_up(self, tasks: Any, question: pa.Table, **options: Any) -> Any:
        with self._cursor() as con:
            return look_up(
                con, tasks, lambda names, count: answer(con, question, count, names, self._snapshot), **options
            )

    def _counts(self) -> pd.DataFrame:
        """Records by organization, field and status as recorded; only its own for a store opened for an organization."""
        with self._cursor() as con:
            return to_pandas(con.sql(_COUNTS_SQL, params={"org_id": self.org_id}))

    def _headline(self) -> str:
        org = f", org_id={self.org_id!r}" if self.org_id else ""
        return f"EnrichmentStore({self.path!r}{org}{', read_only=True' if self.read_only else ''})"

    def __repr__(self) -> str:
        if self._con is None:
            return f"EnrichmentStore({self.path!r}, closed)"
        return display.text(self._headline(), self._counts())

    def _repr_html_(self) -> str:
        if self._con is None:
            return f"<code>{escape(repr(self))}</code>"
        return display.html(self._headline(), self._counts())


_COUNTS_SQL = """
select orgId, field::varchar as field, status, count(*) as records
from enrichments
where orgId = coalesce($org_id, orgId)
group by orgId, field, status
"""
