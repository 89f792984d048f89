"""A store's records in SQL: a copy of one organization's, which can be read and nothing else."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from enrichstatus.errors import OrganizationWarning, StoreError, ValidationError, quoted
from enrichstatus.files.reading.read import is_path
from enrichstatus.files.scratch import never_freed
from enrichstatus.files.writing.write import first_line
from enrichstatus.frames import frames
from enrichstatus.lookup.arguments import Instant, is_text
from enrichstatus.lookup.query import DECIDED_SQL, asker
from enrichstatus.lookup.tasks import KEYS_SQL, create_vocabularies
from enrichstatus.schema import COLUMNS
from enrichstatus.sources.store.answering.duckdb_source import Embedded

_PRIVATE_SQL = Path(__file__).with_name("private.sql").read_text(encoding="utf-8")
_PRIVATE_SQL = _PRIVATE_SQL.replace("$columns from", f"{', '.join(COLUMNS)} from")
_PRIVATE_SQL = _PRIVATE_SQL.replace("($keys)", f"({KEYS_SQL})").replace("($query)", f"({DECIDED_SQL})")
#: What DuckDB says of tasks with a column that `enrichment_status` adds.
_ADDED_TWICE = re.compile(r"Ambiguous reference to column name \"(\w+)\" \(use: ['\"]numbered\.")
#: What the view of the records is called.
_RECORDS = "enrichments"
_QUERIES = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.MULTI)


class Queryable(Embedded):
    """A store that can be queried in SQL."""

    #: the last copy that `sql` made, and of what
    _copy: tuple[tuple[Any, ...], duckdb.DuckDBPyConnection] | None = None

    def connect(self, *, org_id: str | None = None, now: Instant = None) -> duckdb.DuckDBPyConnection:
        """Give a DuckDB connection to a copy of an organization's records, to be read only: for JupySQL, SQLAlchemy and your own SQL.

        It has the view ``enrichments``, the records of this organization alone, and the table macro ``enrichment_status(tasks)``, the
        lookup: it takes the name of a table, a CTE or what was registered (``connection.register("tasks", frame)``), with the columns
        ``entityId``, ``field`` and, unless all are persons, ``entityType``. It gives the rows with ``status``, ``dataFound``, ``reason``
        (that of `lookup`; bad keys are ``invalid``) and ``enrichmentId``, the record's id, which joins them to ``enrichments``; tasks that
        have a column of one of these names are refused.

        DuckDB itself refuses everything else: to write, to attach, to read or write files, to install extensions, to change settings.
        Temporary tables and views can be made, and change no record; they, and what is registered, are seen by this connection alone, and
        not by the cursors that JupySQL and others make of it: `sql` takes frames. Errors of the connection are DuckDB's own.

        Parameters
        ----------
        org_id : str, optional
            Whose records; the store's unless given.
        now : datetime or str, optional
            The instant at which the timeout rule is evaluated; the clock's at each query unless given. Cursors of the connection have
            the clock's.

        Returns
        -------
        duckdb.DuckDBPyConnection
            It has the records as they were when it was made. The copy lies in the temporary folder, and goes when the connection does.

        Raises
        ------
        ValidationError
            No organization, or an argument is unusable.
        StoreError
            The store is closed or cannot be read, or the temporary folder has no room.

        Examples
        --------
        >>> import enrichstatus as es
        >>> store = es.EnrichmentStore(org_id="org_acme")
        >>> print(store.load("data/enrichments.json"))
        5,162 read: 5,162 inserted, 0 updated, 0 unchanged, 0 rejected
        >>> with store.connect() as connection:
        ...     connection.sql("select field, count(*) from enrichments where status = 'failed' group by all order by all").fetchall()
        [('emails', 71), ('phones', 37), ('summary', 21)]
        """
        question = asker(self.org_id if org_id is None else org_id, self._limits, now)
        con = self._private(question)
        _evaluate_at(con, question, now)
        return con

    def sql(
        self, query: str, /, *, org_id: str | None = None, now: Instant = None, **given: Any
    ) -> duckdb.DuckDBPyRelation:
        """Query an organization's records in SQL: what `connect` has, and frames by their name.

        Parameters
        ----------
        query : str
            One query of DuckDB, over ``enrichments``, ``enrichment_status(tasks)`` and the frames that it names.
        org_id, now
            As for `connect`.
        **given : DataFrame, Arrow table, DuckDB relation, list of dicts or path
            Frames by any name but ``enrichments``, ``org_id`` and ``now``: ``tasks=frame``. Of a name that is not given, the caller's
            variable is taken if it is a frame or a list of dicts.

        Returns
        -------
        duckdb.DuckDBPyRelation
            ``.df()``, ``.pl()``, ``.to_arrow_table()``, ``.fetchall()`` or further steps; the records are those of this moment. It is
            computed then, and so what goes wrong with a value, a cast say, is raised by these methods, as a ``duckdb.Error``.

        Raises
        ------
        ValidationError
            No organization, what is given by name is not a frame, or the query cannot be run: it is wrong, names what is not there, or does
            anything but read.
        StoreError
            As for `connect`.

        Examples
        --------
        >>> import enrichstatus as es, pandas as pd
        >>> store = es.EnrichmentStore(org_id="org_acme")
        >>> print(store.load("data/enrichments.json"))
        5,162 read: 5,162 inserted, 0 updated, 0 unchanged, 0 rejected
        >>> tasks = es.tasks_from_leads(pd.read_csv("data/leads.csv"), entity_id="lead_id", fields=["emails", "phones"])
        >>> store.sql("select field, count(*) from enrichment_status(tasks) where status = 'failed' group by all order by all").fetchall()
        [('emails', 43), ('phones', 20)]
        """
        question = asker(self.org_id if org_id is None else org_id, self._limits, now)
        if not is_text(query) or not query.strip():
            raise ValidationError(f"takes a query as text, not {quoted(query)}.", argument="query")
        file = self._ready()
        made_of = os.getpid(), file, file.writes, question["orgId"][0].as_py()
        if self._copy is None or self._copy[0] != made_of:
            self._forget()
            self._copy = made_of, self._private(question)
        con = self._copy[1].cursor()
        _evaluate_at(con, question, now)
        try:
            names, caller = _tables_of(query, con), sys._getframe(1)
            variables = {name: caller.f_locals.get(name, caller.f_globals.get(name)) for name in names}
            for name, table in _tables({name: value for name, value in variables.items() if _is_frame(value)}, given):
                con.register(name, table)
            relation = con.sql(query)
        except duckdb.Error as error:
            if added := _ADDED_TWICE.search(str(error)):
                raise ValidationError(
                    f"adds the column {added[1]} to tasks that have one: leave it out of them, or give it another name.",
                    argument="query",
                ) from error
            why = first_line(error).rstrip(".!").replace('Values list "numbered"', "The table of the tasks")
            raise ValidationError(
                f"cannot be run: {why}. It can read enrichments, enrichment_status(tasks) and frames, given by name (tasks=frame) "
                "or are variables where it is called, and nothing else.",
                argument="query",
            ) from error
        return relation

    def close(self) -> None:
        """Close the file; what was loaded stays. A store in memory is gone."""
        self._forget()
        super().close()

    def _forget(self) -> None:
        """Give up the copy; one that was inherited by a fork belongs to the parent."""
        if self._copy is not None and self._copy[0][0] != os.getpid():
            never_freed(self._copy[1])
        self._copy = None

    def _private(self, question: pa.Table) -> duckdb.DuckDBPyConnection:
        """Copy an organization's records into a database of their own, which is locked."""
        org_id = question["orgId"][0].as_py()
        folder = Path(tempfile.mkdtemp(prefix="enrichstatus-sql-"))
        try:
            path = str(folder / "enrichments.duckdb")
            with self._cursor() as con:
                count = _copy(con, path, question)
            with duckdb.connect(path) as con:
                create_vocabularies(con, self.fields)
                # a name that nobody can have given: another column of it would stand in its place
                con.execute(_PRIVATE_SQL.replace("$position", f"position {secrets.token_hex(8)}"))
            locked = _locked(path)
        except duckdb.Error as error:
            raise StoreError(f"The records of {self.path!r} cannot be copied for SQL: {first_line(error)}") from error
        except OSError as error:
            raise StoreError(
                f"The temporary folder cannot be written ({error.strerror}); name another one (TMPDIR)."
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # an open file lives on without its name
        if not count and (message := self.lacks(org_id)):
            warnings.warn(message, OrganizationWarning, stacklevel=4)
        return locked


def _copy(con: duckdb.DuckDBPyConnection, path: str, question: pa.Table) -> int:
    """Copy by DuckDB itself, into a file; gives the number of records."""
    name = f"enrichment_copy_{secrets.token_hex(8)}"
    limits = question.select(["orgId", "field", "maximum"])
    con.execute(f"attach $path as {name} (read_write)", {"path": path})
    try:
        own = duckdb.ColumnExpression("orgId") == duckdb.ConstantExpression(question["orgId"][0].as_py())
        records = con.table("enrichments").filter(own).select(*COLUMNS, "superseded")
        con.execute(f"create schema {name}.parts")
        records.create(f"{name}.parts.enrichment_records")
        con.from_arrow(limits).create(f"{name}.parts.enrichment_limits")
        return int(con.table(f"{name}.parts.enrichment_records").count("*").fetchall()[0][0])
    finally:
        con.execute(f"detach {name}")


def _locked(path: str) -> duckdb.DuckDBPyConnection:
    """Open a file to be read only, with DuckDB's own locks."""
    con = duckdb.connect(path, read_only=True)
    con.execute("set global TimeZone = 'UTC'")
    con.execute("set enable_progress_bar = false")
    # DuckDB would take the folder of what exceeds the memory from the lock, and a query could write there
    con.execute("set global temp_directory = ''")
    con.execute("set enable_external_access = false")
    # what tools set on their own: Ibis, say
    con.execute("set allowed_configs = ['TimeZone', 'python_enable_replacements', 'enable_progress_bar']")
    con.execute("set lock_configuration = true")
    return con


def _evaluate_at(con: duckdb.DuckDBPyConnection, question: pa.Table, now: Instant) -> None:
    if now is not None:
        con.execute("set variable enrichment_now = $now::timestamptz", {"now": str(question["now"][0].as_py())})


def _tables_of(query: str, con: duckdb.DuckDBPyConnection) -> set[str]:
    """Give the names of the tables of a query, or more of them; refuse what is not one query."""
    kinds = [statement.type for statement in con.extract_statements(query)]
    if len(kinds) != 1 or kinds[0] not in _QUERIES:
        what = f"{len(kinds)} statements" if len(kinds) != 1 else f"a statement of the kind {kinds[0].name}"
        raise ValidationError(
            f"takes one query that reads (select, from, pivot, describe, explain), not {what}.", argument="query"
        )
    if kinds[0] == duckdb.StatementType.MULTI:  # DuckDB finds out the values of a PIVOT first, and names no table of it
        return set(re.findall(r"[^\W\d]\w*", query)) - {_RECORDS}
    return {name for name in con.get_table_names(query) if name.lower() != _RECORDS}


def _is_frame(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], dict)
    return not is_path(value) and (hasattr(type(value), "columns") or hasattr(value, "__arrow_c_stream__"))


def _tables(found: Mapping[str, object], given: Mapping[str, object]) -> Iterator[tuple[str, pa.Table]]:
    """Read the frames that were found by their name, and those that are given, which come first; DuckDB knows no capitals in names."""
    known: set[str] = set()
    for name in given:
        if name.lower() == _RECORDS:
            raise ValidationError("is what the records are called here: give the frame another name.", argument=name)
        if name.lower() in known:
            raise ValidationError(
                "is given twice, as capitals do not count in SQL: give one another name.", argument=name
            )
        known.add(name.lower())
    for name, value in {**{name: value for name, value in found.items() if name.lower() not in known}, **given}.items():
        try:
            frame = frames.read(value)
        except ValidationError as error:
            raise ValidationError(f"is not a frame that can be read: {error}", argument=name) from error
        if len(set(frame.columns)) < len(frame.columns):
            raise ValidationError("has columns of the same name: give each a name of its own.", argument=name)
        yield name, frame.arrow(frame.columns)
