"""What every source in DuckDB answers, wherever its records lie: lookups of frames and of files, and the contract's query."""

from __future__ import annotations

import json
import os
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar, TypeAlias, cast

import pyarrow as pa
from duckdb import DuckDBPyConnection, DuckDBPyRelation

from enrichstatus.errors import InternalError, OrganizationWarning, StoreError, ValidationError
from enrichstatus.files.reading.read import PathLike
from enrichstatus.files.remote.remote import at_hand, check_options
from enrichstatus.files.results import recorded
from enrichstatus.files.writing.remote_out import output as made
from enrichstatus.frames.frames import Kind, ListOrPath
from enrichstatus.lookup.arguments import (
    MAX_PROCESSING_TIME,
    Columns,
    Errors,
    How,
    Instant,
    parse_columns,
    parse_fields,
    parse_flags,
    parse_limits,
    parse_options,
    parse_org,
)
from enrichstatus.lookup.contract import query
from enrichstatus.lookup.query import LOOKUP_SQL, asker, look_up
from enrichstatus.lookup.requirements import check_required
from enrichstatus.progress import Progress
from enrichstatus.schema import COLUMNS, SCHEMA, parse_statuses
from enrichstatus.sources.store.answering.lookup_files import LookupReport, TaskFiles, look_up_files
from enrichstatus.sources.store.answering.whose import Owned

#: Makes the relation ``records`` of the query: of an organization at the least, with some columns at the least.
Register: TypeAlias = Callable[[DuckDBPyConnection, str, Sequence[str]], None]


class Embedded(Owned):
    """Records that DuckDB can read, and the lookups over them."""

    #: what answers the tasks over the relation ``records``
    _QUERY: ClassVar[str] = LOOKUP_SQL

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        org_id: str | None,
        max_processing_time: str | float | timedelta | Mapping[str, str | float | timedelta] = MAX_PROCESSING_TIME,
        fields: Sequence[str] | None,
        statuses: Mapping[str, str] | None = None,
        read_only: bool = False,
        preload: bool = False,
    ):
        self._statuses = parse_statuses(statuses)
        self.org_id = None if org_id is None else parse_org(org_id)
        self._known = set()
        parse_flags(read_only=read_only, preload=preload)
        wanted = None if fields is None else parse_fields(fields)
        super().__init__(path, fields=wanted, read_only=read_only, preload=preload)
        try:
            self._limits = parse_limits(max_processing_time, self.fields)
        except BaseException:
            self.close()
            raise

    def _options(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in ("org_id", "max_processing_time", "fields")}
        return options | {"statuses": self._statuses}

    @property
    def max_processing_time(self) -> dict[str, timedelta]:
        """By field, for how long a record may be pending before it is reported as ``timeout``."""
        return dict(self._limits)

    def lookup(
        self,
        tasks: Kind | ListOrPath,
        *,
        columns: Columns = ("status", "dataFound"),
        how: How = "left",
        errors: Errors = "raise",
        now: Instant = None,
        prefix: str = "",
        org_id: str | None = None,
        as_of: Instant = None,
    ) -> Kind:
        """Give back any number of tasks, with the columns of the answer added; row *i* is task *i*.

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
            ``left`` keeps tasks without a record, with nulls; ``inner`` leaves them out, so that `require` does not count them.
        errors : {"raise", "coerce"}
            What bad tasks do: ``raise`` names them all; ``coerce`` gives them nulls.
        now : datetime or str, optional
            The instant at which the timeout rule is evaluated (without a zone: UTC); the clock's unless given.
        prefix : str
            Put before the names of the added columns.
        org_id : str, optional
            The organization whose records are looked up; the store's unless given.
        as_of : datetime or str, optional
            Answer as it was known at this instant: with the loads that were done by then, and the timeout rule evaluated then.

        Returns
        -------
        A frame of the same kind (pandas for a list or a path), its columns and index untouched. In pandas ``status`` is ``str``,
        ``dataFound`` nullable ``boolean``, timestamps ``datetime64[us, UTC]`` and the rest ``str``, whatever the data.

        Raises
        ------
        ValidationError
            No organization, bad tasks (all are in its ``.problems``), or an argument that is unusable; `as_of` before the first load,
            or in a time that was pruned.
        StoreError
            The store is closed, or its file cannot be read.
        """
        past = self._past(as_of)
        question = asker(self.org_id if org_id is None else org_id, self._limits, as_of if now is None else now)
        options: dict[str, Any] = {"columns": columns, "how": how, "errors": errors, "prefix": prefix}
        found: pa.Table | None = None

        def answer(names: tuple[str, ...], count: int) -> pa.Table:
            nonlocal found
            found = _run(con, LOOKUP_SQL, past, question, names) if past else self._answer(con, question, count, names)
            return found

        def answer_at_once(given: pa.Table, names: tuple[str, ...]) -> pa.Table | None:
            nonlocal found
            found = self._answer_at_once(con, question, given, names)
            return found

        with self._cursor() as con:
            status = look_up(lambda: con, tasks, answer, at_once=None if past else answer_at_once, **options)
        if not found and (message := self.lacks(question["orgId"][0].as_py())):
            warnings.warn(message, OrganizationWarning, stacklevel=2)
        return status

    def lookup_to(
        self,
        tasks: PathLike | Sequence[PathLike],
        output: PathLike,
        *,
        columns: Columns = ("status", "dataFound"),
        how: How = "left",
        errors: Errors = "raise",
        now: Instant = None,
        prefix: str = "",
        org_id: str | None = None,
        entity_id: str | None = None,
        fields: Sequence[str] | str | None = None,
        entity_type: str = "person",
        require: Mapping[str, Any] | None = None,
        memory_limit: str | None = None,
        overwrite: bool = False,
        progress: bool | None = None,
        encoding: str | None = None,
        skip: int = 0,
        multiline: bool = False,
        sheet: str | None = None,
        bom: bool = False,
        results: PathLike | None = None,
        as_of: Instant = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> LookupReport:
        """Look up tasks from files to files, in bounded memory: more of them than fit, in their order.

        The result is what `lookup` gives of the same files. It appears whole, or not at all: after an error, Ctrl-C or ``kill -9``
        there is nothing under its name.

        Parameters
        ----------
        tasks : path, glob or list of paths
            Files of one format that is read, in the order of their names: tasks, or a lead list.
        output : path
            A file (``.parquet``, ``.xlsx``, ``.csv`` …), or a folder, which is one that exists or whose name ends with a slash: it gets
            ``part-00000.parquet`` and so on, each of two million rows. To an address (``s3://bucket/out.parquet``) a file is sent in one
            step; the files of a folder are sent one by one, removed where one fails, and never in place of others.
        columns, how, errors, now, prefix, org_id, as_of
            As for `lookup`.
        entity_id, fields, entity_type
            As for `tasks_from_leads`: the files are a lead list, one row a lead, and become tasks, one row a lead and field.
        require : mapping, optional
            What `require` takes, ``{"ended": 0.98}`` say: of a list that falls short nothing is written.
        memory_limit : str, optional
            How much memory DuckDB may take, ``"6GB"`` say; what does not fit waits on disk, beside a store's file or in the
            temporary folder (``TMPDIR``). Unless given, four fifths of the machine's. The pieces that pass through take some 0.5 GB more.
        overwrite : bool
            Replace an output that exists: a file, or a folder that holds only what a lookup wrote there.
        progress : bool, optional
            Show a progress bar; unless given, in a notebook or at a terminal.
        encoding, skip, multiline, sheet, storage_options
            As for `EnrichmentStore.load`.
        bom : bool
            Write a CSV file for Excel: with a byte order mark, and text that Excel takes for a formula after an apostrophe.
        results : path, optional
            A file (``.json``) that is left for programs: what came of it, or the error (`enrichstatus.files.results`).

        Returns
        -------
        LookupReport
            Tasks read, rows written, the rows by field, status and ``dataFound``, the first rows, and the files.

        Raises
        ------
        ValidationError
            As for `lookup`; the files cannot be read, or the output exists or cannot be made.
        RequirementError
            The list does not reach what is required.
        StoreError
            The store is closed, or the memory or the disk does not suffice.
        EnrichStatusError
            The disk is full where the output is written.

        Examples
        --------
        >>> import enrichstatus as es, tempfile
        >>> store = es.EnrichmentStore(org_id="org_acme")
        >>> print(store.load("data/enrichments.json"))
        5,162 read: 5,162 inserted, 0 updated, 0 unchanged, 0 rejected
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(store.lookup_to("data/leads.csv", folder + "/status.parquet", entity_id="lead_id", fields="phones",
        ...                           now="2026-11-16T09:00:00Z"))
        2,000 tasks read, 2,000 rows written to ...status.parquet: 20 failed, 1,090 finished, 843 no record, 10 pending, 37 timeout
        """
        with recorded(results, "lookup_to", tasks, output) as run:
            names = parse_options(columns, how, errors, prefix)
            parse_flags(overwrite=overwrite, bom=bom, progress=progress)
            if require is not None:
                check_required(require)
            past = self._past(as_of)
            question = asker(self.org_id if org_id is None else org_id, self._limits, as_of if now is None else now)
            wanted = parse_fields(self.fields if fields is None else fields)
            reading: dict[str, Any] = {"encoding": encoding, "skip": skip, "multiline": multiline, "sheet": sheet}
            reading["fields_given"] = fields is not None
            check_options(storage_options, tasks, output)
            target = made(output, overwrite=overwrite, bom=bom, storage_options=storage_options)
            with (
                at_hand(tasks, storage_options) as near,
                Progress.drawn("looking up", shown=progress) as shown,
                self._limited(memory_limit),
                self._cursor() as con,
            ):
                given = TaskFiles.named(near.paths, entity_id, wanted, entity_type, **reading)
                target.refuse([near.names.get(path, path) for path in given.paths], "tasks")
                target.refuse(self._read_files(), "records")
                run.result = report = look_up_files(
                    con,
                    given,
                    target,
                    options=(names, how, errors, prefix, require),
                    progress=shown,
                    question=question,
                    query=LOOKUP_SQL if past else self._QUERY,
                    register=lambda: (past or self._register)(con, question["orgId"][0].as_py(), names),
                    answered=self._check_unchanged,
                )
            if report.counts["status"].isna().all() and (message := self.lacks(question["orgId"][0].as_py())):
                warnings.warn(message, OrganizationWarning, stacklevel=2)
        return report

    def records(self, columns: Columns = COLUMNS, *, org_id: str | None = None) -> pa.Table:
        """Give all records of an organization as they were loaded, in no particular order.

        Parameters
        ----------
        columns : sequence of str or "all"
            Which; the key among them unless others are named.
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
        names = parse_columns(columns, COLUMNS)
        with self._cursor() as con:
            con.register("asker", question)
            found = self._distinct(con, question["orgId"][0].as_py()).select(*names).to_arrow_table()
            self._check_unchanged()
            return found.cast(pa.schema([SCHEMA.field(name) for name in names]))

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
        if (ready := self.query_at_once(body, org_id=org_id, now=now)) is not None:
            return cast("list[dict[str, Any]]", json.loads(ready))
        question = asker(self.org_id if org_id is None else org_id, self._limits, now)
        self._ready()
        try:
            return query(partial(self._look_up, question=question), body)
        except StoreError as error:
            raise InternalError("The query failed.") from error

    def query_at_once(self, body: Any, *, org_id: str | None = None, now: Instant = None) -> bytes | None:
        """Answer the contract's request as JSON where that takes a millisecond: for a server, which would not wait for longer.

        Arguments and errors are those of `query`. It gives None for a body that breaks the contract, or that writes a UUID in an unusual
        way, and without ``preload=True``: `query` answers these.
        """
        if self._snapshot is None:
            return None
        self._ready()
        return self._snapshot.objects(body, self.org_id if org_id is None else org_id, self._limits, now)

    def _look_up(self, tasks: Kind | ListOrPath, question: pa.Table, **options: Any) -> Kind:
        with self._cursor() as con:
            return look_up(
                lambda: con,
                tasks,
                lambda names, count: self._answer(con, question, count, names),
                # null: nothing times out
                at_once=None if question["pendingSince"].null_count else partial(self._answer_at_once, con, question),
                **options,
            )

    def _answer(self, con: DuckDBPyConnection, question: pa.Table, count: int, names: Sequence[str]) -> pa.Table:
        """Give some columns of the answers to so many tasks, which stand in the temporary table ``tasks``."""
        return _run(con, self._QUERY, self._register, question, names)

    def _past(self, as_of: Instant) -> Register | None:
        """Give what makes the relation ``records`` as they were known at an instant; nothing for the present."""
        if as_of is not None:
            raise ValidationError(
                "goes with a store: records that are read where they lie have no past.", argument="as_of"
            )
        return None

    def _answer_at_once(
        self, con: DuckDBPyConnection, question: pa.Table, tasks: pa.Table, names: Sequence[str]
    ) -> pa.Table | None:
        """Give some columns of the answers to tasks as they came, without the query; None where that is for `_answer`."""
        who = question["orgId"][0].as_py(), self._limits, question["now"][0].as_py()
        return None if self._snapshot is None else self._snapshot.answers(tasks, names, *who)

    def _read_files(self) -> Sequence[str]:
        """Name the files that the records lie in, beside a store's own."""
        return ()

    def _check_unchanged(self) -> None:
        """Refuse an answer whose records were changed by another program while they were read."""

    @abstractmethod
    def _register(self, con: DuckDBPyConnection, org_id: str, names: Sequence[str]) -> None:
        """Make the relation ``records`` of the query: of an organization at the least, what can answer the table ``tasks``."""

    @abstractmethod
    def _distinct(self, con: DuckDBPyConnection, org_id: str) -> DuckDBPyRelation:
        """Give an organization's records, each once."""


def _run(con: DuckDBPyConnection, sql: str, register: Register, asked: pa.Table, names: Sequence[str]) -> pa.Table:
    con.register("asker", asked)
    register(con, asked["orgId"][0].as_py(), names)
    return con.sql(sql).select("position", *names).to_arrow_table()
