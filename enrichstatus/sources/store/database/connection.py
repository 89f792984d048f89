"""The database behind a store: opened, made where there is none, and given to its calls for as long as it is what was opened."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import duckdb

from enrichstatus.errors import StoreError, ValidationError, quoted
from enrichstatus.files.scratch import interruptible
from enrichstatus.files.writing.write import first_line
from enrichstatus.lookup.tasks import create_vocabularies
from enrichstatus.schema import COLUMNS, FIELDS, listed
from enrichstatus.sources.store.database.open_files import MEMORY, OpenFile, identity, open_file, opening
from enrichstatus.sources.store.loading.load import INDEX_SQL, MERGE_SQL, committed
from enrichstatus.sources.store.snapshot.snapshot import Snapshot


def _read(name: str, **parts: str) -> str:
    """Read a file of SQL, with the texts of others in the lines that name them."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    for part, sql in parts.items():
        text = text.replace(f"\n${part}\n", f"\n{sql}")
    return text


_HISTORY_SQL = _read("history.sql")
_TABLES_SQL = _read("database.sql", history=_HISTORY_SQL)
_UPGRADE_SQL = _read("upgrade.sql", database=_TABLES_SQL, merge=MERGE_SQL)
_UPGRADE_2_SQL = _read("upgrade_2.sql", history=_HISTORY_SQL)
#: The version of what database.sql makes; a file of version 1 has no table that says so.
VERSION = 3


class Database:
    """The file of a store, open: cursors for its calls, until it is closed."""

    def __init__(self, path: str | os.PathLike[str], *, fields: tuple[str, ...] | None, read_only: bool, preload: bool):
        self._file: OpenFile | None = None
        self._snapshot: Snapshot | None = None
        if preload and not read_only:
            raise ValidationError("preload=True goes with read_only=True: what is loaded later would not be in it.")
        if not isinstance(path, str | os.PathLike):
            raise ValidationError(f'takes the name of a file, or ":memory:", not {quoted(path)}.', argument="path")
        self.path = self._name = os.path.expanduser(os.fspath(path))
        self.read_only, self._preload = read_only, preload
        if self.path != MEMORY:
            try:
                os.fsencode(self.path)
            except UnicodeError as error:
                raise StoreError(f"{self.path!r} cannot be the name of a file: {error}") from error
            if self.path.strip() in ("", ".") or self.path.startswith(MEMORY) or "\0" in self.path:
                raise StoreError(f'A store is kept in a file, or in ":memory:"; {self.path!r} names neither.')
            # wherever the program goes, and DuckDB has its own idea of md:x
            self._name = str(Path(self.path).absolute())
        elif read_only:
            raise StoreError("read_only=True needs a file that exists; a store in memory is new.")
        self._open(fields)

    def _open(self, wanted: tuple[str, ...] | None, *, whole: bool = False) -> None:
        """Open the file, which only then takes the place of one that is open; `whole` reads all of it first."""
        with opening():
            file = open_file(self._name, read_only=self.read_only and self._name != MEMORY)
            file.users.add(self)
            try:
                fields = _fields(file, self.path, wanted)
            except BaseException:
                self._leave(file)
                raise
        try:
            with file.cursor() as con:
                snapshot = Snapshot(con, fields) if self._preload else None
                if self._preload:
                    file.forget(con)
                elif whole:
                    con.execute("select bit_xor(hash(enrichments)) from enrichments").fetchall()
        except duckdb.Error as error:
            self._leave(file)
            raise StoreError(f"{self.path!r} cannot be read: {first_line(error)}") from error
        except OSError as error:
            self._leave(file)
            raise StoreError(
                f"The snapshot of {self.path!r} cannot be written to the temporary folder: {error.strerror}. Give it another one with "
                "room for some 300 bytes a record (TMPDIR), or open the store without preload=True."
            ) from error
        except BaseException:
            self._leave(file)
            raise
        #: The fields it allows: `wanted` are those of a new file, and must be those of an old one.
        self.fields = fields
        if self._file is not None and self._file is not file:
            self._file.users.discard(self)  # it is closed when the last call that has begun with it ends
        self._file, self._snapshot = file, snapshot

    def _leave(self, file: OpenFile) -> None:
        with opening():
            file.users.discard(self)
            if not file.users:
                file.close()

    def close(self) -> None:
        """Close the file; what was loaded stays. A store in memory is gone."""
        file, self._file, self._snapshot = self._file, None, None
        if file is not None:
            self._leave(file)

    def replaced(self) -> bool:
        """Say whether another file has been put in the place of the one that is open to be read."""
        return self._file is not None and self.read_only and identity(self._name) not in ((), self._file.seen)

    def refresh(self) -> bool:
        """Open the file anew where another has been put in its place (``os.replace``); returns whether it was.

        For a store that is read-only. Calls under way end with the old file.

        Raises
        ------
        StoreError or ValidationError
            The new file is not a store, cannot be read, or has other fields; the old one stays open.
        """
        if not self.replaced():
            return False
        self._open(self.fields, whole=True)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        if self._name == MEMORY:
            raise TypeError(  # as of anything that cannot be pickled
                f"{self.path!r} is in the memory of this process, and cannot be copied or sent to another. Keep it in a file, "
                "EnrichmentStore(path), and send that: it is opened read-only there."
            )
        return opened, (type(self), self._name, self._options() | {"read_only": True, "preload": self._preload})

    def _options(self) -> dict[str, Any]:
        """Give what it was opened with, besides its path."""
        return {}

    def _ready(self) -> OpenFile:
        """Give the file, if it is still there as it was opened."""
        file = self._file
        if file is None:
            raise StoreError("The store is closed; open it again with EnrichmentStore(path).")
        if file.forked:
            with opening():
                if self._file is file:
                    self._open_in_fork()
            return self._ready()
        file.check(self._name)
        return file

    def _open_in_fork(self) -> None:
        """Open the file afresh in a process that was forked since; what it inherited belongs to the other."""
        if not self.read_only:
            what, remedy = "is open to be written", "Load in that process, or open it read_only=True before the fork"
            if self._name == MEMORY:
                what, remedy = "is in memory", "Keep it in a file that both open with read_only=True"
            raise StoreError(
                f"The store {self.path!r} {what} in process {os.getppid()}, from which this one was forked. {remedy}, "
                'or use multiprocessing.get_context("spawn") and open a store in each process.'
            )
        self._open(self.fields)

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a cursor of its own to each call, so that threads never meet; what it makes on the way is temporary."""
        file = self._ready()
        try:
            with interruptible(), file.cursor() as con:
                yield con
        except duckdb.Error as error:
            advice = ""
            if isinstance(error, duckdb.OutOfMemoryException) or "No space left" in str(error):
                advice = " Give it more memory (memory_limit=), or its temporary files more room (TMPDIR)."
            raise StoreError(f"{self.path}: {first_line(error).rstrip('.')}.{advice}") from error
        finally:
            if file.behind and not file.changed(self._name):
                with suppress(duckdb.Error, StoreError):
                    file.catch_up()

    @contextmanager
    def _writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a cursor to a call that writes, one at a time; at its end the file holds everything, without its WAL."""
        with self._ready().writing:
            file = self._ready()
            file.writes += 1
            try:
                with self._cursor() as con:
                    yield con
                    if file.path != MEMORY:
                        file.checkpoint(con, seconds=0.2)
            finally:
                file.wrote()
        file.check(self._name)

    @contextmanager
    def _limited(self, memory_limit: str | None) -> Iterator[None]:
        """Limit the memory of DuckDB while a call lasts. There is one limit for all calls: of several the last one holds."""
        if memory_limit is None:
            yield
            return
        if not isinstance(memory_limit, str) or not re.fullmatch(r"\s*\d+(\.\d+)?\s*[KMGT]i?B\s*", memory_limit):
            raise ValidationError(f'takes a size such as "6GB", not {quoted(memory_limit)}.', argument="memory_limit")
        file = self._ready()
        with self._cursor() as con, file.limiting:
            con.execute("set global memory_limit = $size", {"size": memory_limit})
            file.limited += 1
        try:
            yield
        finally:
            with file.limiting:
                file.limited -= 1
                if file.open and not file.limited:
                    with file.cursor() as con:
                        con.execute("reset global memory_limit")


def opened(kind: type[Database], records: Any, options: dict[str, Any]) -> Database:
    """Open in this process what another has pickled."""
    return kind(records, **options)


def _fields(file: OpenFile, path: str, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """Make the tables where there are none, or of an earlier version, and give the fields of the store."""
    try:
        with file.cursor() as con:
            new = file.path == MEMORY
            version = None if new else _version(con)
            if version is None and not file.read_only and (new or _empty(con)):
                file.writes += 1
                _create(con, wanted or FIELDS)
                file.wrote()
                version = VERSION
            if version is None:
                raise StoreError(f"{path!r} is a database, but not a store of enrichstatus; name another file.")
            if version > VERSION:
                raise StoreError(
                    f"{path!r} is a store of a later enrichstatus (version {version} of the file; this one knows {VERSION}). "
                    "Update it: pip install --upgrade enrichstatus."
                )
            if version < VERSION and file.read_only:
                raise StoreError(
                    f"{path!r} is a store of an earlier enrichstatus, and opened read-only it cannot be upgraded. "
                    f"Open it once to be written, which upgrades it: EnrichmentStore({path!r}).close()."
                )
            (fields,) = con.execute("select enum_range(null::enrichment_field)").fetchall()[0]
            if wanted in (None, tuple(fields)) and version < VERSION:
                file.writes += 1
                try:
                    _in_one(con, lambda: con.execute(_UPGRADE_SQL if version == 1 else _UPGRADE_2_SQL))
                    con.execute(INDEX_SQL)
                    con.execute("checkpoint")
                finally:
                    file.wrote()
    except duckdb.Error as error:
        raise StoreError(f"{path!r} cannot be used as a store: {first_line(error)}") from error
    if wanted not in (None, tuple(fields)):
        raise ValidationError(
            f"{path!r} was made with the fields {listed(fields)}; they cannot become {listed(wanted or ())}."
        )
    return tuple(fields)


def _version(con: duckdb.DuckDBPyConnection) -> int | None:
    """Give the version of a store's file; nothing of another database."""
    with suppress(duckdb.CatalogException):  # what a database has not fails sooner than all that it has is listed
        return int(con.execute("select max(version) from enrichment_version").fetchall()[0][0])
    with suppress(duckdb.CatalogException):
        columns = con.execute("from enrichments limit 0").description or []
        return 1 if [name for name, *_ in columns] == [*COLUMNS, "probe"] else None
    return None


def _empty(con: duckdb.DuckDBPyConnection) -> bool:
    return not con.execute("select 1 from duckdb_tables() limit 1").fetchall()


def _create(con: duckdb.DuckDBPyConnection, fields: Sequence[str]) -> None:
    def create() -> None:
        create_vocabularies(con, fields)
        con.execute(_TABLES_SQL)

    _in_one(con, create)
    con.execute("checkpoint")


def _in_one(con: duckdb.DuckDBPyConnection, change: Callable[[], object]) -> None:
    """Change the database in one transaction, wholly or not at all."""
    with committed(con.begin()):
        change()
