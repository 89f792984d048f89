"""The embedded source: enrichment records in a DuckDB file, or in memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from html import escape
from typing import Any, Literal

import duckdb
import pandas as pd
import pyarrow as pa

from enrichstatus.errors import OrganizationWarning, StoreError
from enrichstatus.files.reading.lake_tables import table_of
from enrichstatus.files.reading.read import PathLike, expand, is_path
from enrichstatus.files.remote.remote import at_hand, check_options
from enrichstatus.lookup.arguments import MAX_PROCESSING_TIME, Errors, Instant, parse_flags, parse_org
from enrichstatus.lookup.query import DECIDED_SQL, timing_out
from enrichstatus.lookup.tasks import to_pandas
from enrichstatus.lookup.vectors.rules import Question
from enrichstatus.presentation import html_table, many
from enrichstatus.schema import STATUSES, Epoch, listed, parse_statuses
from enrichstatus.sources.store.answering.point_lookup import answer, answer_at_once, winners
from enrichstatus.sources.store.changes import Tracked
from enrichstatus.sources.store.describe import StoreDescription, describe
from enrichstatus.sources.store.leases import Leases, leases
from enrichstatus.sources.store.loading.load import LoadReport, load
from enrichstatus.sources.store.scanning.scan import Scan
from enrichstatus.sources.store.scanning.scan_table import TableScan


class EnrichmentStore(Tracked):
    """Enrichment records in DuckDB, and the status of any number of tasks as one join over them.

    Parameters
    ----------
    path : str or path
        The database file, made where there is none; ``":memory:"`` (default) keeps everything in memory.
    org_id : str, optional
        The organization whose records are looked up, and to which loaded records belong that name none; each call can name another.
    max_processing_time : str, timedelta, seconds, or a mapping of these by field
        A record pending for longer than this is reported as ``timeout``. A mapping leaves the others at the default of 800 s.
    fields : sequence of str, optional
        The allowed fields, fixed when the file is made; ``emails``, ``phones`` and ``summary`` unless given.
    statuses : mapping, optional
        What other words than ``pending``, ``finished``, ``timeout`` and ``failed`` mean, in records that are loaded:
        ``{"in_progress": "pending", "COMPLETED": "finished"}``, in any case. Any other is kept, and has ended as ``unknown``.
    read_only : bool
        Open an existing file without writing to it. Any number of read-only processes share a file, one that writes does not. It
        answers from the file that it opened until `refresh` takes up one that replaced it.
    preload : bool
        For a server: copy the newest record of each key of a file opened read-only to the temporary folder (some 270 bytes each; ten
        million take 10 s), laid out to be found without DuckDB: 200 tasks in 1 ms.
    history : bool
        Keep what records were before they were replaced, for `changes` and ``as_of=``. With False each load forgets all of that, also
        what earlier ones kept, and cursors from before it are refused.

    Raises
    ------
    ValidationError
        An argument is unusable, or `fields` differ from those the file was made with.
    StoreLockedError
        Another process holds the file.
    StoreError
        The file is not a store, or cannot be opened, made or read.

    Notes
    -----
    Stores of one file in one process share its database. Where the file is removed, replaced or written over meanwhile, a store that
    writes raises `StoreError` instead of going on. In a forked process a store that writes, or that is in memory, raises `StoreError`; a
    read-only one opens its file anew. Pickled, a store of a file is opened read-only where it arrives.

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

    _QUERY = DECIDED_SQL

    def __init__(
        self,
        path: str | os.PathLike[str] = ":memory:",
        *,
        org_id: str | None = None,
        max_processing_time: str | float | timedelta | Mapping[str, str | float | timedelta] = MAX_PROCESSING_TIME,
        fields: Sequence[str] | None = None,
        statuses: Mapping[str, str] | None = None,
        read_only: bool = False,
        preload: bool = False,
        history: bool = True,
    ):
        parse_flags(history=history)
        self._history = history
        super().__init__(
            path,
            org_id=org_id,
            max_processing_time=max_processing_time,
            fields=fields,
            statuses=statuses,
            read_only=read_only,
            preload=preload,
        )
        #: the files that this object has loaded, which no output replaces
        self._loaded: list[str] = []

    def load(
        self,
        records: Any,
        *,
        org_id: str | None = None,
        errors: Errors = "raise",
        columns: Mapping[str, str | None] | None = None,
        statuses: Mapping[str, str] | None = None,
        encoding: str | None = None,
        skip: int = 0,
        multiline: bool = False,
        sheet: str | None = None,
        epoch: Epoch | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> LoadReport:
        """Load enrichment records: in one transaction, as often and in whatever order you like, with the same end.

        Of several versions of a record (one ``id``) the newest ``updatedAt`` stays. A record without ``id`` gets one made of its
        key and ``createdAt``. Instants are timestamps, or ISO 8601 text with an offset, ``Z``, ``UTC``, ``GMT`` or (UTC, too) without
        a zone; digits after the sixth of a fraction are cut off.

        Parameters
        ----------
        records : path, glob, list of paths, DataFrame, Arrow table, DuckDB relation, Delta or Iceberg table, or list of dicts
            CSV, TSV, JSON, NDJSON or Parquet, ``.gz`` and ``.zst`` too, or Excel; wire names, in any case or in snake_case. Folders such as
            ``orgId=org_1/`` say what the records in them have in common, as text. Addresses (``s3://``, ``gs://``, ``az://``,
            ``https://``; extra ``remote``) are paths too: their files are copied to the temporary folder before anything is loaded.
        org_id : str, optional
            The organization of records that carry none; the store's unless given.
        errors : {"raise", "reject"}
            What bad rows do: ``raise`` loads nothing and names them, ``reject`` loads the others and reports them.
        columns : mapping, optional
            Columns under other names, ``{"theirs": "ours"}``; None says that one which looks like the organization is not.
        statuses : mapping, optional
            As for a store; what it was opened with unless given.
        encoding : str, optional
            How files are encoded, ``cp1252`` say, unless they are UTF-8 or begin with a byte order mark.
        skip : int
            Lines above the header of each CSV file or sheet, which are left out.
        multiline : bool
            Read cells in quotes that hold what looks like whole rows, which are refused otherwise: two stray quotes make such a cell, too.
        sheet : str, optional
            The sheet of each workbook; unless given, there must be one only that holds something.
        epoch : {"s", "ms", "us"}, optional
            Read numbers in ``createdAt`` and ``updatedAt`` as so many seconds, milliseconds or microseconds since 1970; unless this is
            given they are bad.
        storage_options : mapping, optional
            How addresses are reached, as fsspec takes it: ``{"key": …, "secret": …}``; unless given, the environment says it.

        Returns
        -------
        LoadReport
            Rows read, inserted, updated, unchanged and rejected, the rejects, and those whose status is unknown.

        Raises
        ------
        ValidationError
            The input cannot be read, lacks a column, or (``errors="raise"``) has bad rows: all are in its ``.problems``.
        StoreError
            The store is read-only or closed, or the file cannot be written.
        """
        if self.read_only:
            raise StoreError(f"{self.path} was opened read-only; open it without read_only=True to load.")
        org_id = self.org_id if org_id is None else parse_org(org_id)
        check_options(storage_options, records)
        with at_hand(records, storage_options) as near:  # copied before anything waits for this store
            with self._writing() as con:
                report = load(
                    con,
                    near.paths,
                    org_id=org_id,
                    errors=errors,
                    columns=columns,
                    epoch=epoch,
                    statuses=self._statuses if statuses is None else parse_statuses(statuses),
                    encoding=encoding,
                    skip=skip,
                    multiline=multiline,
                    sheet=sheet,
                    history=self._history,
                )
            read = expand(near.paths) if is_path(records) else ()
            self._loaded += [near.names.get(path, os.path.abspath(path)) for path in read]
        return replace(report, rejects=near.named(report.rejects))

    def describe(self, *, org_id: str | None = None, now: Instant = None) -> StoreDescription:
        """Say in a few numbers what the store holds of an organization; of all together where neither it nor the store names one."""
        whose = (self.org_id if org_id is None else parse_org(org_id)) or None
        if message := self.lacks(whose):
            warnings.warn(message, OrganizationWarning, stacklevel=2)
        with self._cursor() as con:
            return describe(con, timing_out(self._limits, now), whose, None if self.path == ":memory:" else self._name)

    def leases(self, *, org_id: str | None = None) -> pa.Table:
        """Give what `EnrichmentClient.trigger` has requested into this store, and whose outcome is not known yet.

        Returns
        -------
        pyarrow.Table
            ``entityId``, ``entityType``, ``field``, ``since``, ``request`` (the call that requested it) and ``seen``, when the record
            was created that there was before. A plan has them ``in_flight``.
        """
        with self._cursor() as con:
            return leases(con, self.org_id if org_id is None else parse_org(org_id))

    def leasing(self) -> Leases:
        """Begin to lease, for a trigger; to be used in a ``with``."""
        return Leases(self)

    @staticmethod
    def scan(
        records: PathLike | Sequence[PathLike] | Any,
        *,
        org_id: str | None = None,
        max_processing_time: str | float | timedelta | Mapping[str, str | float | timedelta] = MAX_PROCESSING_TIME,
        fields: Sequence[str] | None = None,
        since: Instant = None,
        columns: Mapping[str, str | None] | None = None,
        statuses: Mapping[str, str] | None = None,
        errors: Literal["raise", "reject"] = "raise",
        epoch: Epoch | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> Scan:
        """Look up records where they lie, in Parquet or a table of a lake: a source to be read only, of which nothing is copied.

        Files in folders by organization (``orgId=org_1/``) are read for that organization alone. Records are read as they lie: of
        several versions of one the newest wins, as in a store, also where its ``createdAt`` or its key has changed.

        Parameters
        ----------
        records : path, glob, list of paths, deltalake.DeltaTable or pyiceberg.table.Table
            Parquet files with the columns that `load` takes, matched by name; of any types that can be read as theirs. Of files elsewhere
            only their ends and the columns of a lookup are read, and kept in memory for the next one.
        org_id, max_processing_time, fields, statuses
            As for a store. Records that name no organization are of `org_id`.
        since : datetime or str, optional
            Leave out records created before this instant, as if they were not there: a task that has only such has none. Files in
            folders by an earlier ``day=``, ``date=`` or ``dt=`` (ISO, by the day of creation, change or export) are not read.
        errors : {"raise", "reject"}
            What bad records of the organization do, when they are read: ``raise`` names one, ``reject`` leaves them out.
        columns, epoch, storage_options
            As for `load`.

        Returns
        -------
        A source with `lookup`, `lookup_to`, `query` and `records`; close it, or use it in a ``with``.

        Raises
        ------
        ValidationError
            A file is missing, empty, cut off, no Parquet, or lacks a column; or an argument is unusable.

        Examples
        --------
        >>> import enrichstatus as es, pandas as pd, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> pd.DataFrame({
        ...     "entityId": ["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"], "field": ["emails"], "status": ["finished"],
        ...     "dataFound": [True], "createdAt": ["2025-01-13T10:30:00.000Z"]}).to_parquet(folder.name + "/1.parquet")
        >>> with es.EnrichmentStore.scan(folder.name + "/*.parquet", org_id="org_1") as records:
        ...     records.lookup([{"entityId": "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", "field": "emails"}])
                                       entityId   field    status  dataFound
        0  F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6  emails  finished       True
        >>> folder.cleanup()
        """
        return (Scan if table_of(records) is None else TableScan)(
            records,
            org_id=org_id,
            max_processing_time=max_processing_time,
            fields=fields,
            since=since,
            columns=columns,
            statuses=statuses,
            errors=errors,
            epoch=epoch,
            storage_options=storage_options,
        )

    def _answer(self, con: duckdb.DuckDBPyConnection, question: pa.Table, count: int, names: Sequence[str]) -> pa.Table:
        return answer(con, question, count, names, Question.of_asker(question, self._limits))

    def _answer_at_once(
        self, con: duckdb.DuckDBPyConnection, question: pa.Table, tasks: pa.Table, names: Sequence[str]
    ) -> pa.Table | None:
        if self._snapshot is not None:
            return super()._answer_at_once(con, question, tasks, names)
        return answer_at_once(con, self.fields, tasks, names, Question.of_asker(question, self._limits))

    def _read_files(self) -> Sequence[str]:
        return [self._name, *self._loaded]

    def _register(self, con: duckdb.DuckDBPyConnection, org_id: str, names: Sequence[str]) -> None:
        con.register("records", winners(con, org_id))

    def _distinct(self, con: duckdb.DuckDBPyConnection, org_id: str) -> duckdb.DuckDBPyRelation:
        return con.sql("from enrichments where orgId = $org_id", params={"org_id": org_id})

    def _holds(
        self,
        con: duckdb.DuckDBPyConnection,
        org_id: str | None = None,
        fields: Sequence[str] = (),
        kind: str | None = None,
    ) -> bool:
        values = {"org_id": org_id, "fields": list(fields), "type": kind}
        return bool(con.execute(_HOLDS_SQL, values).fetchall()[0][0])

    def _counts(self) -> pd.DataFrame:
        """Records by organization, field and status as recorded; only its own for a store opened for an organization."""
        with self._cursor() as con:
            return to_pandas(con.sql(_COUNTS_SQL, params={"org_id": self.org_id}))

    def _headline(self) -> str:
        org = f", org_id={self.org_id!r}" if self.org_id else ""
        return f"{type(self).__name__}({self.path!r}{org}{', read_only=True' if self.read_only else ''})"

    def __repr__(self) -> str:
        if self._file is None:
            return f"{type(self).__name__}({self.path!r}, closed)"
        try:
            return _text(self._headline(), self._counts())
        except StoreError as error:
            return f"{self._headline()}: {error}"

    def _repr_html_(self) -> str:
        try:
            return _html(self._headline(), self._counts())
        except StoreError:
            return f"<code>{escape(repr(self))}</code>"


def _text(headline: str, counts: pd.DataFrame) -> str:
    """Lay out counts (``orgId``, ``field``, ``status``, ``records``) under a headline, for a fixed-width font."""
    if counts.empty:
        return f"{headline}\n{_summary(counts)}"
    table = _field_by_status(counts)
    body = table.to_string(formatters=dict.fromkeys(table.columns, "{:,}".format))
    return f"{headline}\n{_summary(counts)}\n{body}"


def _html(headline: str, counts: pd.DataFrame) -> str:
    """Lay out the same as HTML, each count with its share of the field."""
    head = f"<b>{escape(headline)}</b><br>{escape(_summary(counts))}"
    if counts.empty:
        return f"<div>{head}</div>"
    table = _field_by_status(counts)
    shares = table.drop(columns="total").div(table["total"], axis=0)
    caption = "records by field and status, as recorded"
    return f"<div>{head}{html_table(table.map('{:,}'.format), shares=shares, caption=caption)}</div>"


def _summary(counts: pd.DataFrame) -> str:
    """Say how many records there are, and whose."""
    organizations = counts.groupby("orgId")["records"].sum().sort_values(ascending=False).index
    whose = f" of {listed(organizations, limit=5)}" if len(organizations) else ""
    return f"{many(int(counts['records'].sum()), 'record')}{whose}"


def _field_by_status(counts: pd.DataFrame) -> pd.DataFrame:
    """Count records by field (rows) and status (columns, the documented ones first), with a total."""
    table = counts.pivot_table(index="field", columns="status", values="records", aggfunc="sum", fill_value=0)
    known = [status for status in STATUSES if status in table.columns]
    table = table[known + [status for status in table.columns if status not in known]].astype("int64")
    table["total"] = table.sum(axis=1)
    return table.rename_axis(index=None, columns=None)


_HOLDS_SQL = """
select exists(
    from enrichments
    where orgId = coalesce($org_id, orgId)
        and (len($fields) = 0 or list_contains($fields::varchar[], field::varchar))
        and entityType = coalesce($type::enrichment_entity_type, entityType)
)
"""
_COUNTS_SQL = """
select orgId, field::varchar as field, status, count(*) as records
from enrichments
where orgId = coalesce($org_id, orgId)
group by orgId, field, status
"""
