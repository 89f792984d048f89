"""The DuckDB databases that this process has open: one a file, whatever the names and the number of its stores.

POSIX drops all locks of a process on a file when the process closes any descriptor of it, so a file that is open here is never
opened by Python. DuckDB knows an open database by its path alone, so whether that path still leads to the open file is checked here.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path

import duckdb

from enrichstatus.errors import StoreError, StoreLockedError
from enrichstatus.files.scratch import never_freed
from enrichstatus.files.writing.write import first_line

MEMORY = ":memory:"
#: Seconds between attempts to write what is in the WAL into the file.
_PAUSE = 0.02
_OVER = "was written over by another program"


class OpenFile:
    """A database that is open, shared by the stores of its file; or one in memory, of one store."""

    def __init__(self, path: str, *, read_only: bool, beside: bool = False):
        self.path = path
        self.read_only = read_only
        #: whether this process is a fork of the one that opened it
        self.forked = False
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        self.writing, self.limiting = threading.Lock(), threading.Lock()
        #: calls under way that have limited the memory
        self.limited = 0
        #: how often a call has begun or ended to write: odd while one writes
        self.writes = 0
        #: whether something is in its WAL that could not be written into the file itself yet
        self.behind = False
        #: an earlier state of the same file: closing it would drop the lock of this one
        self.earlier: OpenFile | None = None
        self._beside = beside
        self._con: duckdb.DuckDBPyConnection | None = _connect(path, read_only=read_only, beside=beside)
        self.seen = identity(path)
        _FILES.add(self)

    @property
    def open(self) -> bool:
        """Whether it has not been closed, which is also done to a file that another one has replaced."""
        return self._con is not None

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Make a connection to it, for one call or one store."""
        root = self._con
        if root is None:
            raise StoreError(_gone(self.path, "was removed, renamed or replaced"))
        con = root.cursor()
        if self._beside:
            con.execute("use store_file")
        return con

    def close(self) -> None:
        """Close it, which ends the calls under way with an error."""
        if self._con is not None and not self.forked:
            self._con.close()
        self._con = None

    def changed(self, name: str) -> str | None:
        """Say what has become, under a name of it, of the file that was opened; nothing if it is as this process left it."""
        if self.path == MEMORY:
            return None
        writes, found = self.writes, identity(name)
        if not found:
            return "was removed or renamed"
        if found[:2] != self.seen[:2]:
            return "was replaced by another file"
        if found != self.seen and not writes % 2 and writes == self.writes:
            return _OVER
        return None

    def check(self, name: str) -> None:
        """Refuse to go on with a file that has changed; to read, one that only lost its name is as good as it was."""
        what = self.changed(name)
        if what and not (self.read_only and what != _OVER):
            raise StoreError(_gone(name, what))

    def checkpoint(self, con: duckdb.DuckDBPyConnection, *, seconds: float) -> None:
        """Write what is in the WAL into the file itself; that waits for other calls under way, for so many seconds at most."""
        for _ in range(int(seconds / _PAUSE) + 1):
            try:
                con.execute("checkpoint")
            except duckdb.TransactionException:
                self.behind = True
                time.sleep(_PAUSE)
            else:
                self.behind = False
                return

    def catch_up(self) -> None:
        """Do what a call that wrote had to leave to the calls under way then."""
        if self.writing.acquire(blocking=False):
            try:
                self.writes += 1
                with self.cursor() as con:
                    self.checkpoint(con, seconds=0)
            finally:
                self.wrote()
                self.writing.release()

    def forget(self, con: duckdb.DuckDBPyConnection) -> None:
        """Give back the memory that holds what was read, where only one store uses it."""
        with self.limiting:
            if not self.limited and len(self.users) == 1:
                with suppress(duckdb.Error):  # it cannot be given back: a call under way needs it
                    con.execute("set global memory_limit = '64MB'")
                con.execute("reset global memory_limit")

    def wrote(self) -> None:
        """Note the file as it is after a call of this process has written to it."""
        found = identity(self.path)
        if found[:2] == self.seen[:2]:
            self.seen = found
        self.writes += 1

    def leave(self) -> None:
        """Give up, in a forked child, what belongs to the parent."""
        self.forked = True
        self.writing, self.limiting = threading.Lock(), threading.Lock()
        if self._con is not None:
            never_freed(self._con)


_FILES: weakref.WeakSet[OpenFile] = weakref.WeakSet()
_opening = threading.RLock()


def opening() -> threading.RLock:
    """Give the lock of whatever opens or closes a file: two at once would each find half of what the other does."""
    return _opening


def open_file(path: str, *, read_only: bool) -> OpenFile:
    """Open a file (an absolute path) or a database in memory; one that this process has open already is shared."""
    with _opening:
        if path == MEMORY:
            return OpenFile(path, read_only=False)
        _check_file(Path(path), read_only=read_only)
        earlier, beside = None, False
        real, found = os.path.realpath(path), identity(path)
        for file in list(_FILES):
            same_file = bool(found) and file.seen[:2] == found[:2]
            if not file.open or not (same_file or file.path == real):
                continue
            if file.forked:
                if not (read_only and file.read_only):
                    raise StoreLockedError(
                        f"{path!r} was open in process {os.getppid()} when this one was forked from it, and cannot be opened here: "
                        'close it before the fork, or use multiprocessing.get_context("spawn"), or have both open it read_only=True.'
                    )
                beside = True
            elif file.changed(path if file.read_only and same_file else file.path):
                if not (read_only and file.read_only):
                    file.close()
                    continue
                beside = True
                earlier = file if same_file else earlier
            elif file.read_only == read_only:
                return file
            else:
                raise _open_otherwise(path, read_only)
        made = OpenFile(real, read_only=read_only, beside=beside)
        made.earlier = earlier
        if not made.seen or (_descriptors() and not _descriptors(made.seen)):
            made.close()
            raise StoreError(
                f"This process still has a file open that stood at {path!r} before it was removed or replaced. "
                "Close the connection that holds it (duckdb.connect), or restart the kernel."
            )
        return made


def _open_otherwise(path: str, read_only: bool) -> StoreLockedError:
    how = "to be written" if read_only else "read-only"
    return StoreLockedError(f"{path!r} is open in this process already, {how}. Use that store, or close it first.")


def _forked() -> None:
    """Start a forked process with nothing open."""
    global _opening
    _opening = threading.RLock()
    for file in list(_FILES):
        file.leave()


if hasattr(os, "register_at_fork"):
    # nothing is half open in the child
    os.register_at_fork(
        before=lambda: _opening.acquire(), after_in_parent=lambda: _opening.release(), after_in_child=_forked
    )


def identity(path: str | os.PathLike[str] | None) -> tuple[int, ...]:
    """Distinguish one file from another that takes its name, or is copied over it: device, inode, size, time; empty where there is none."""
    try:
        found = os.stat(path or "")
    except (OSError, ValueError):
        return ()
    # Windows lets nobody write over an open file, and notes the time of a change late
    return found.st_dev, found.st_ino, *((found.st_size, found.st_mtime_ns) if os.name != "nt" else ())


def _descriptors(wanted: tuple[int, ...] = ()) -> list[int]:
    """List the descriptors that this process has, of one file or of all; none where the system does not list them."""
    found = []
    try:
        names = os.listdir("/dev/fd")
    except OSError:
        return []
    for name in names:
        try:
            stat = os.fstat(int(name))
        except (OSError, ValueError):  # the listing's own
            continue
        if not wanted or (stat.st_dev, stat.st_ino) == wanted[:2]:
            found.append(int(name))
    return found


def _gone(path: str, what: str) -> str:
    return f"The file {path!r} {what} while this store had it open; open it again: EnrichmentStore({path!r})."


def _connect(path: str, *, read_only: bool, beside: bool) -> duckdb.DuckDBPyConnection:
    """Connect to a file; `beside` another database of the same path, which is read-only too."""
    try:
        con = duckdb.connect(MEMORY if beside else path, read_only=read_only and not beside)
        # for every cursor of this database: text without a zone is read as UTC, on whatever machine
        con.execute("set global TimeZone = 'UTC'")
        if read_only or path == MEMORY:
            # where what exceeds the memory waits: DuckDB would have several readers of one file share it
            spill = os.path.join(tempfile.gettempdir(), f"enrichstatus-{secrets.token_hex(4)}")
            con.execute("set global temp_directory = $spill", {"spill": spill})
        # under python -m and -c DuckDB takes a program for a person, and would draw a bar on stdout when it works long
        con.execute("set enable_progress_bar = false")
        if beside:
            con.execute("attach $path as store_file (read_only)", {"path": path})
        return con
    except duckdb.ConnectionException as error:
        raise _open_otherwise(path, read_only) from error
    except duckdb.IOException as error:
        text = str(error)
        if "lock" not in text:
            advice = (
                f". {path + '.wal'!r} was left, by a program that was killed, by another file of this name, and holds what that one "
                "lacks: put that file back, or move the .wal away to open this one."
            )
            said = first_line(error) + (advice if "WAL" in text else "")
            raise StoreError(f"{path!r} cannot be opened: {said}") from error
        holder = re.search(r"held in (.+?) \(PID (\d+)\)", text)
        who = f"process {holder[2]} ({holder[1]})" if holder else "another process"
        raise StoreLockedError(
            f"{path!r} is held by {who}. Close it there (store.close(), or restart that notebook's kernel), "
            "or have everybody open it with read_only=True: readers share a file, a writer does not."
        ) from error
    except duckdb.Error as error:
        raise StoreError(f"{path!r} cannot be opened: {first_line(error)}") from error


def _check_file(path: Path, *, read_only: bool) -> None:
    """Refuse what DuckDB would take for a data file, and read or even replace by a database in memory."""
    if not path.parent.is_dir():
        raise StoreError(f"There is no folder {str(path.parent)!r} to keep {path.name!r} in.")
    head = b""
    try:
        if path.exists():
            if held := _descriptors(identity(path)):
                head = os.pread(held[0], 12, 0)
            else:
                with path.open("rb") as file:
                    head = file.read(12)
        elif read_only:
            raise StoreError(f"There is no store {str(path)!r} to read; load records to make one.")
    except OSError as error:
        raise StoreError(f"{str(path)!r} cannot be opened: {error.strerror}.") from error
    if path.resolve().suffix.lower() in _DATA_FILES:  # it could be read as one, and lose its lock
        raise StoreError(f"{str(path)!r} is named like a data file; name a store otherwise, e.g. leads.duckdb.")
    if path.exists() and head[8:12] != b"DUCK":
        raise StoreError(
            f"{str(path)!r} is {'empty' if not head else 'not a DuckDB database'}; name another file, or remove it."
        )


_DATA_FILES = (".csv", ".tsv", ".json", ".ndjson", ".jsonl", ".parquet", ".pq", ".gz", ".zst", ".db3", ".sqlite")
