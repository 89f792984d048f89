"""The DuckDB database behind a store: opened, made where there is none, and refused where it is something else."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import duckdb

from enrichstatus.errors import EnrichStatusError, StoreError, StoreLockedError, ValidationError
from enrichstatus.lookup.tasks import create_vocabularies
from enrichstatus.schema import COLUMNS, FIELDS, listed
from enrichstatus.sources.store.snapshot import Snapshot

_TABLES_SQL = Path(__file__).with_name("database.sql").read_text(encoding="utf-8")

#: Two threads that connect to one new file at once each find half of what the engine sets up for it.
_OPENING = threading.Lock()


class Database:
    """The file of a store, open: cursors for its calls, until it is closed."""

    def __init__(self, path: str | os.PathLike[str], *, fields: tuple[str, ...] | None, read_only: bool, preload: bool):
        if preload and not read_only:
            raise ValidationError("preload=True goes with read_only=True: what is loaded later would not be in it.")
        self.path = os.path.expanduser(os.fspath(path))
        self.read_only = read_only
        self._preload = preload
        self._con: duckdb.DuckDBPyConnection | None = None
        self._limiting = threading.Lock()
        #: calls under way that have bound the memory
        self._bounded = 0
        self._open(fields, self.path)

    def _open(self, wanted: tuple[str, ...] | None, path: str, *, whole: bool = False) -> None:
        """Open a file, which only then takes the place of one that is open; `whole` reads all of it first."""
        with _OPENING:
            found = _identity(path)
            con = _connect(path, read_only=self.read_only)
            try:
                fields = _fields(con, path, wanted, read_only=self.read_only)
            except BaseException:
                con.close()
                raise
        try:
            snapshot = Snapshot(con) if self._preload else None
            if whole and not self._preload:
                con.execute("select bit_xor(hash(enrichments)) from enrichments").fetchall()
        except (duckdb.Error, OSError) as error:
            con.close()
            raise StoreError(f"{path!r} cannot be read: {str(error).partition(chr(10))[0]}") from error
        except BaseException:
            con.close()
            raise
        #: The fields it allows: `wanted` are those of a new file, and must be those of an old one.
        self.fields = fields
        self._con, self._snapshot, self._identity = con, snapshot, found

    def close(self) -> None:
        """Close the file; what was loaded stays. A store in memory is gone."""
        if self._con is not None:
            try:
                self._con.close()
            except duckdb.Error as error:
                raise StoreError(f"{self.path} is in use by another thread; close it when that is done.") from error
            self._con = self._snapshot = None

    def replaced(self) -> bool:
        """Tell whether another file has been put in the place of the one that is open to be read."""
        return self._con is not None and self.read_only and _identity(self.path) not in (None, self._identity)

    def refresh(self) -> bool:
        """Open the file anew where another has been put in its place (``os.replace``); tell whether it was.

        For a store that is read-only. Calls under way end with the old file.

        Raises
        ------
        StoreError or ValidationError
            The new file is no store, cannot be read, or has other fields; the old one stays open.
        """
        if not self.replaced():
            return False
        found = _identity(self.path)
        beside = _second_name(self.path)
        try:
            self._open(self.fields, beside, whole=True)
            self._identity = found
        except EnrichStatusError as error:
            raise type(error)(str(error).replace(beside, self.path)) from error
        finally:
            os.unlink(beside)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a cursor of its own to each call, so that threads never meet; what it makes on the way is temporary."""
        if self._con is None:
            raise StoreError("The store is closed; open it again with EnrichmentStore(path).")
        try:
            with self._con.cursor() as con:
                yield con
        except duckdb.Error as error:
            advice = ""
            if isinstance(error, duckdb.OutOfMemoryException) or "No space left" in str(error):
                advice = " Give it more memory (memory_limit=), or its temporary files more room (TMPDIR)."
            raise StoreError(f"{self.path}: {first_line(error).rstrip('.')}.{advice}") from error
        except RuntimeError as error:
            if str(error) == "Query interrupted":  # what the engine makes of Ctrl-C
                raise KeyboardInterrupt from error
            raise

    @contextmanager
    def _limited(self, memory_limit: str | None) -> Iterator[None]:
        """Bound the memory of the engine while a call lasts. There is one bound for all calls: of several the last one holds."""
        if memory_limit is None:
            yield
            return
        if not isinstance(memory_limit, str) or not re.fullmatch(r"\s*\d+(\.\d+)?\s*[KMGT]i?B\s*", memory_limit):
            raise ValidationError(f'memory_limit= takes a size such as "6GB", not {memory_limit!r}.')
        with self._cursor() as con, self._limiting:
            con.execute("set global memory_limit = $size", {"size": memory_limit})
            self._bounded += 1
        try:
            yield
        finally:
            with self._limiting:
                self._bounded -= 1
                if self._con is not None and not self._bounded:
                    self._con.execute("reset global memory_limit")


def _identity(path: str) -> tuple[int, ...] | None:
    """Tell one file from another that takes its name, or is copied over it; none where there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _second_name(path: str) -> str:
    """Give a file another name for as long as it takes to open it.

    By the usual one the engine would give the file that is open under it, and the next may come before this one is read.
    """
    name = f"{path}.{secrets.token_hex(4)}"
    try:
        os.link(path, name)
    except OSError:  # a folder that cannot be written, say
        handle, name = tempfile.mkstemp(prefix="enrichstatus-", suffix=".duckdb")
        os.close(handle)
        try:
            shutil.copyfile(path, name)
        except OSError as error:
            os.unlink(name)
            raise StoreError(f"{path!r} cannot be read: {error.strerror}.") from error
    return name


def _connect(path: str, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    if path == ":memory:":
        if read_only:
            raise StoreError("read_only=True needs a file that exists; a store in memory is new.")
    else:
        _check_file(Path(path), read_only=read_only)
        path = str(Path(path).absolute())  # the engine takes md:x and the like for something else than a file
    try:
        con = duckdb.connect(path, read_only=read_only)
        # for every cursor of this database: text without a zone is read as UTC, on whatever machine
        con.execute("set global TimeZone = 'UTC'")
        if read_only or path == ":memory:":
            # where what exceeds the memory waits: by the engine's choice several readers of one file would share it
            spill = os.path.join(tempfile.gettempdir(), f"enrichstatus-{secrets.token_hex(4)}")
            con.execute("set global temp_directory = $spill", {"spill": spill})
        # under python -m and -c the engine takes a program for a person, and would draw a bar on stdout when it works long
        con.execute("set enable_progress_bar = false")
        return con
    except duckdb.ConnectionException as error:
        raise StoreLockedError(
            f"{path!r} is open in this process already, {'to be written' if read_only else 'read-only'}. Use that store, or close it first."
        ) from error
    except duckdb.IOException as error:
        text = str(error)
        if "lock" not in text:
            raise StoreError(f"{path!r} cannot be opened: {first_line(error)}") from error
        holder = re.search(r"held in (.+?) \(PID (\d+)\)", text)
        who = f"process {holder[2]} ({holder[1]})" if holder else "another process"
        raise StoreLockedError(
            f"{path!r} is held by {who}. Close it there (store.close(), or restart that notebook's kernel), "
            "or have everybody open it with read_only=True: readers share a file, a writer does not."
        ) from error
    except duckdb.Error as error:
        raise StoreError(f"{path!r} cannot be opened: {first_line(error)}") from error


def _check_file(path: Path, *, read_only: bool) -> None:
    """Refuse what the engine would take for a data file, and read or even replace by a database in memory."""
    if not str(path).strip() or str(path) == "." or str(path).startswith(":memory:") or "\0" in str(path):
        raise StoreError(f'A store is kept in a file, or in ":memory:"; {str(path)!r} names neither.')
    if not path.absolute().parent.is_dir():
        raise StoreError(f"There is no folder {str(path.absolute().parent)!r} to keep {path.name!r} in.")
    head = b""
    try:
        if path.exists():
            with path.open("rb") as file:
                head = file.read(12)
        elif read_only:
            raise StoreError(f"There is no store {str(path)!r} to read; load records to make one.")
    except OSError as error:
        raise StoreError(f"{str(path)!r} cannot be opened: {error.strerror}.") from error
    if head and head[8:12] != b"DUCK":
        raise StoreError(f"{str(path)!r} is no DuckDB database; name another file.")
    if not head and path.resolve().suffix.lower() in _DATA_FILES:
        raise StoreError(f"{str(path)!r} is named like a data file; name a store otherwise, e.g. leads.duckdb.")


_DATA_FILES = (".csv", ".tsv", ".json", ".ndjson", ".jsonl", ".parquet", ".pq", ".gz", ".zst", ".db3", ".sqlite")


def _fields(
    con: duckdb.DuckDBPyConnection, path: str, wanted: tuple[str, ...] | None, *, read_only: bool
) -> tuple[str, ...]:
    """Make the tables where there are none, and tell the fields of the store."""
    try:
        empty = not con.execute("select 1 from duckdb_tables() limit 1").fetchall()
        if empty and not read_only:
            _create(con, wanted or FIELDS)
        if _columns(con) != [*COLUMNS, "probe"]:
            raise StoreError(
                f"{path!r} is a database, but no store of this version of enrichstatus; name another file."
            )
        (fields,) = con.execute("select enum_range(null::enrichment_field)").fetchall()[0]
    except duckdb.Error as error:
        raise StoreError(f"{path!r} cannot be used as a store: {first_line(error)}") from error
    if wanted not in (None, tuple(fields)):
        raise ValidationError(
            f"{path!r} was made with the fields {listed(fields)}; they cannot become {listed(wanted or ())}."
        )
    return tuple(fields)


def _columns(con: duckdb.DuckDBPyConnection) -> list[str]:
    names = con.execute(
        "select column_name from duckdb_columns() where table_name = 'enrichments' order by column_index"
    )
    return [name for (name,) in names.fetchall()]


def _create(con: duckdb.DuckDBPyConnection, fields: Sequence[str]) -> None:
    con.begin()
    try:
        create_vocabularies(con, fields)
        con.execute(_TABLES_SQL)
        con.commit()
    except duckdb.Error:
        con.rollback()
        raise


def first_line(error: duckdb.Error) -> str:
    """Cut the engine's advice from its error."""
    return str(error).strip().partition("\n")[0][:300]
