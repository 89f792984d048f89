"""Records where they lie: a Parquet data set that answers like a store; nothing is copied."""

from __future__ import annotations

import glob
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any, Literal, cast

import duckdb
import pyarrow as pa

from enrichstatus.errors import StoreError, ValidationError
from enrichstatus.files.reading import read as files
from enrichstatus.files.reading.parquet_file import duckdb_fault
from enrichstatus.files.reading.read import PathLike
from enrichstatus.files.remote.remote import Options, check_options, find, is_remote, shown
from enrichstatus.files.remote.remote_duckdb import Shelf
from enrichstatus.lookup.arguments import Instant, choice, parse_instant
from enrichstatus.lookup.tasks import KEYS_SQL, PROBLEMS_SQL
from enrichstatus.schema import COLUMNS, Epoch, check_renames, listed, record_names
from enrichstatus.sources.store.answering.duckdb_source import Embedded
from enrichstatus.sources.store.database.connection import opened
from enrichstatus.sources.store.database.open_files import identity
from enrichstatus.sources.store.loading.load import CAST_RECORD_SQL, NEWEST_VERSION_SQL, SPACE, reading_values
from enrichstatus.sources.store.loading.picked import pick, with_instants
from enrichstatus.sources.store.scanning.scan_files import Checked, File, check

_SCAN_SQL = Path(__file__).with_name("scan.sql").read_text(encoding="utf-8")
_CANDIDATES_SQL = Path(__file__).with_name("candidates.sql").read_text(encoding="utf-8")
#: What every lookup reads of a record.
_COMPARED = frozenset(
    ("id", "createdAt", "updatedAt", "entityId", "entityType", "field", "status", "dataFound", "orgId")
)
#: So often a question is answered anew where its files change meanwhile.
TRIES = 4


class Scan(Embedded):
    """A Parquet data set of records, to be read; made by `EnrichmentStore.scan`."""

    def __init__(
        self,
        records: PathLike | Sequence[PathLike],
        *,
        org_id: str | None,
        max_processing_time: Any,
        fields: Sequence[str] | None,
        since: Instant,
        columns: Mapping[str, str | None] | None,
        statuses: Mapping[str, str] | None,
        errors: Literal["raise", "reject"],
        epoch: Epoch | None,
        storage_options: Options = None,
    ):
        choice("errors", errors, ("raise", "reject"))
        check_renames(columns)
        self._since: datetime | None = None if since is None else parse_instant(since, "since")
        self._strict, self._renames, self._epoch = errors == "raise", columns, epoch
        self._storage_options = storage_options
        name = self._take(records)
        #: the files elsewhere, and the database that can read them
        self._shelf, self._shelf_of = Shelf(storage_options), cast("object", None)
        #: the files of the last question, by their paths
        self._checked: dict[str, Checked] = {}
        #: the files of the question that a thread is at, and what each was at its start
        self._question = threading.local()
        super().__init__(
            ":memory:", org_id=org_id, max_processing_time=max_processing_time, fields=fields, statuses=statuses
        )
        self.read_only = True
        self.path = name
        try:
            with self._cursor() as con:
                self._versions(con, org_id or "")
        except BaseException:
            self.close()
            raise

    def _take(self, records: Any) -> str:
        """Note what is read; gives what that is called."""
        if not files.is_path(records):
            raise ValidationError(
                f"scan takes Parquet files (a path, a glob, or a list of these) or a table of a lake, not {type(records).__name__}; "
                "anything else is loaded: EnrichmentStore().load(records)."
            )
        given = [records] if isinstance(records, (str, os.PathLike)) else records
        check_options(self._storage_options, given)
        #: whole, because the folders above say something too, and wherever the program goes
        self._given = [str(path) if is_remote(path) else str(Path(path).expanduser().absolute()) for path in given]
        self._far = [path for path in self._given if is_remote(path)]
        return listed([shown(str(path)) if is_remote(path) else os.fspath(path) for path in given], limit=2)

    def __reduce__(self) -> Any:
        options = {"since": self._since, "columns": self._renames, "errors": "raise" if self._strict else "reject"}
        options |= {"epoch": self._epoch, "storage_options": self._storage_options}
        return opened, (type(self), self._given, self._options() | options)

    @property
    def _first(self) -> int | None:
        """The first day to be read; a record may lie a day off where days are not those of UTC."""
        return None if self._since is None else self._since.date().toordinal() - 1

    def _look(self, con: duckdb.DuckDBPyConnection) -> list[File]:
        """Find the files that lie there now, and check those that are new or have changed since the last question."""
        self._shelf.failed = None
        self._question.files = seen = self._found()
        paths = list(seen)
        if strange := [path for path in paths if files.format_of(path) != "parquet"]:
            raise ValidationError(
                f"{strange[0]!r} is not a Parquet file, and only these can be read where they lie; load it into a store."
            )
        known = {path: this for path, this in self._checked.items() if seen.get(path) == this.identity}
        if new := [File.at(path, self._renames) for path in paths if path not in known]:
            before = [known[path].file for path in paths if path in known]
            with files.reading():
                sizes = check(con, [*before[:1], *new], self._renames)
            known |= {file.path: Checked(file, seen[file.path], *sizes[file.path]) for file in new}
        self._checked = known
        return [known[path].file for path in paths]

    def _found(self) -> dict[str, tuple[Any, ...]]:
        """Give the files that lie there now, with what changes when one of them does."""
        near = [path for path in self._given if not is_remote(path)]
        far = [file for path in self._far for file in find(path, self._storage_options)]
        if len(names := {file.name: file for file in far}) < len(far):
            raise ValidationError(
                "Two addresses differ after their question mark alone; load them: EnrichmentStore().load(records)."
            )
        if vague := [file.name for file in far if not (file.version and file.size)]:
            raise ValidationError(
                f"The server of {vague[0]!r} does not say how long it is and of which version; load it: EnrichmentStore().load(records)."
            )
        self._shelf.files = {**self._shelf.files, **names}
        here = {path: identity(path) for path in map(os.path.abspath, files.expand(near))}
        return here | {file.name: (file.version,) for file in far}

    def _moved(self) -> bool:
        """Say whether a file that this thread's question reads has changed meanwhile."""
        seen = self._question.files
        try:
            now = self._found() if self._far else {path: identity(path) for path in seen}
        except ValidationError:  # there is none any more
            return True
        return any(now.get(path) != version for path, version in seen.items())

    def _read_files(self) -> Sequence[str]:
        return files.expand(self._given, self._storage_options)

    def __repr__(self) -> str:
        org = f", org_id={self.org_id!r}" if self.org_id else ""
        if self._file is None:
            return f"EnrichmentStore.scan({self.path!r}, closed)"
        return f"EnrichmentStore.scan({self.path!r}{org})\n{self._size()}"

    def _size(self) -> str:
        checked = self._checked.values()
        rows, megabytes = sum(this.rows for this in checked), sum(this.bytes for this in checked) / 1e6
        in_files = f"{len(checked):,} file{'s' if len(checked) > 1 else ''} of {megabytes:,.1f} MB"
        return f"{rows:,} records in {in_files}, read where they lie"

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>".replace("\n", "<br>")

    def _versions(self, con: duckdb.DuckDBPyConnection, org_id: str) -> None:
        """Make the relation ``records`` of all versions of an organization's records."""
        # first by what takes no time to see: who is meant is read of these alone
        own, whole = duckdb.ColumnExpression("orgId"), f"({SPACE})?"
        named = duckdb.FunctionExpression("contains", own, duckdb.ConstantExpression(org_id))
        blank = duckdb.FunctionExpression("regexp_full_match", own, duckdb.ConstantExpression(whole))
        con.register("arrived", self._arrived(con, org_id).filter(own.isnull() | named | blank))
        self._cast(con, org_id, "arrived")

    def _cast(self, con: duckdb.DuckDBPyConnection, org_id: str, arrived: str) -> None:
        con.register("given", con.table(arrived))
        values = {"org_id": org_id, "since": self._since, "strict": self._strict}
        reading = reading_values(self.org_id, self._statuses)
        con.register("records", con.sql(_RECORDS_SQL, params=values | reading))

    def _register(self, con: duckdb.DuckDBPyConnection, org_id: str, names: Sequence[str]) -> None:
        self._versions(con, org_id)
        needed = _COMPARED.union(names)
        nothing = duckdb.ConstantExpression(None).cast("VARCHAR")
        columns = [duckdb.ColumnExpression(name) if name in needed else nothing.alias(name) for name in COLUMNS]
        con.register("columns", con.table("records").select(*columns))
        con.execute(_CANDIDATES_SQL)
        if con.execute("select exists(from contested)").fetchall()[0][0]:
            con.register("contending", con.sql(_CONTENDING_SQL))
            self._cast(con, org_id, "contending")
            con.execute(_SETTLED_SQL)
        con.register("records", con.table("candidates"))

    def _arrived(self, con: duckdb.DuckDBPyConnection, org_id: str) -> duckdb.DuckDBPyRelation:
        """Scan the files that can hold records of an organization, as they came."""
        first = self._first
        try:
            found = self._look(con)
        except ValidationError as error:
            if not self._checked:
                raise
            raise StoreError(str(error)) from error  # not the caller's mistake, as it was when the source was opened
        late = [file for file in found if not (first and file.day and file.day.toordinal() < first)]
        chosen = [file for file in late if file.org in (None, org_id)]
        relation = _relation(con, chosen or found[:1])
        found_names = [name for name in relation.columns if name != files.FILE]
        picked = pick(relation, record_names([*found[0].folders, *found_names], self._renames), objects=False)
        return with_instants(picked, self._epoch)

    def _answer(self, con: duckdb.DuckDBPyConnection, question: pa.Table, count: int, names: Sequence[str]) -> pa.Table:
        for _ in range(TRIES - 1):
            with suppress(duckdb.Error, StoreError):
                answered = super()._answer(con, question, count, names)
                if not self._moved():
                    return answered
            if not self._moved():
                break
        answered = super()._answer(con, question, count, names)
        self._check_unchanged()
        return answered

    def _check_unchanged(self) -> None:
        if self._moved():
            raise StoreError(
                f"The files of {self.path} were changed while they were read; look up again when they are written."
            )

    def _holds(
        self,
        con: duckdb.DuckDBPyConnection,
        org_id: str | None = None,
        fields: Sequence[str] = (),
        kind: str | None = None,
    ) -> bool:
        if org_id is None:
            return self._any()
        self._versions(con, org_id)
        return bool(con.execute(_HOLDS_SQL, {"fields": list(fields), "type": kind}).fetchall()[0][0])

    def _any(self) -> bool:
        return any(this.rows for this in self._checked.values())

    def _distinct(self, con: duckdb.DuckDBPyConnection, org_id: str) -> duckdb.DuckDBPyRelation:
        self._versions(con, org_id)
        return con.sql(_DISTINCT_SQL)

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            with super()._cursor() as con:
                if self._shelf_of is not self._file:  # opened just now, or in a fork
                    for address in {path.partition("://")[0]: path for path in self._far}.values():
                        self._shelf.register(con, address)
                    self._shelf_of = self._file
                yield con
        except StoreError as error:
            if failed := self._shelf.failed:
                self._shelf.failed = None
                raise StoreError(str(failed)) from None
            found = re.search(r"enrichstatus: (.*)", str(error))
            if found is None:
                if ours := re.search(r"failed: .*?: ('.+' cannot be read: .*)", str(error)):  # a stream of ours
                    raise StoreError(ours[1]) from error
                if (fault := duckdb_fault(error)) is not None:
                    raise StoreError(f"The input cannot be read: {fault}") from error
                raise
            raise ValidationError(
                f"{found[1].rstrip('.')}. Fix it.", instead=("errors", "reject", "leave such records out")
            ) from error


def _relation(con: duckdb.DuckDBPyConnection, chosen: Sequence[File]) -> duckdb.DuckDBPyRelation:
    return con.sql(_FILES_SQL, params={"files": [glob.escape(file.path) for file in chosen]})


_FILES_SQL = """
select *
from read_parquet($files, union_by_name = true, filename = '__enrichstatus_file__', hive_partitioning = false)
"""
_RECORDS_SQL = f"""
with keyed as ({KEYS_SQL}),
checked as ({PROBLEMS_SQL}),
records as ({CAST_RECORD_SQL})
{_SCAN_SQL}
"""
# A record without an id has one of its key and its instant: its versions are all candidates, but have to be read again
_CONTENDING_SQL = """
from arrived
where id is null or coalesce(try_cast(id as uuid), try_cast(trim(id::varchar) as uuid)) in (select id from contested)
"""
_SETTLED_SQL = f"""
create or replace temp table candidates as
with versions as (select *, null as storedAt from records semi join contested using (id))
from candidates anti join contested using (id)
union all by name
select * exclude (storedAt, rank) from ({NEWEST_VERSION_SQL}) where rank = 1
"""  # noqa: S608  of a constant
_DISTINCT_SQL = f"""
with versions as (select *, null as storedAt from records)
select * exclude (storedAt, rank) from ({NEWEST_VERSION_SQL}) where rank = 1
"""  # noqa: S608  of a constant
_HOLDS_SQL = """
select exists(
    from records
    where (len($fields) = 0 or list_contains($fields::varchar[], field::varchar))
        and entityType = coalesce($type::enrichment_entity_type, entityType)
)
"""
