"""Files elsewhere for DuckDB, which reads of each what it needs: the end that says what is in it, and the columns of a query."""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import duckdb

from enrichstatus.errors import EnrichStatusError
from enrichstatus.files.remote.remote import Options, Remote, lacking, reaching, shown

#: Parts of files up to so many bytes are kept, and so many bytes in all.
_SMALL, _MOST = 1 << 22, 1 << 26


class Shelf:
    """The files elsewhere that a database may read, by their names as they are shown.

    They are those of the listing that was put here last: no request goes out to find them again, or to learn how long they are.
    """

    def __init__(self, options: Options = None) -> None:
        self._options = options
        self._kept: dict[tuple[str, str, int, int], bytes] = {}
        self._bytes, self._keeping = 0, threading.Lock()
        self.files: Mapping[str, Remote] = {}
        #: what went wrong in a reading, of which DuckDB makes a text
        self.failed: EnrichStatusError | None = None

    def register(self, con: duckdb.DuckDBPyConnection, address: str) -> None:
        """Let a database read the files here that are of the same scheme as an address, such as ``s3``."""
        try:
            own = _file_system(self, address.partition("://")[0])
        except ImportError:
            raise lacking(shown(address)) from None
        con.register_filesystem(own)

    def read(self, name: str, start: int, end: int) -> bytes:
        """Read a part of a file, in one request; small ones are kept, since DuckDB reads those again and again."""
        file = self.files[name]
        key = (name, file.version, start, end)
        with self._keeping:
            data = self._kept.get(key)
        if data is None:
            data = self._requested(file, start, end)
            with self._keeping:
                if len(data) <= _SMALL and key not in self._kept:
                    self._kept[key] = data
                    self._bytes += len(data)
                while self._bytes > _MOST:
                    self._bytes -= len(self._kept.pop(next(iter(self._kept))))
        return data

    def _requested(self, file: Remote, start: int, end: int) -> bytes:
        name = file.name
        try:
            with reaching(name, options=self._options):
                data: bytes = file.system.cat_file(file.path, start=start, end=end)
            if len(data) != end - start:
                whole = "the server sends files as a whole only; load it"
                what = whole if len(data) > end - start else "it was cut off"
                raise EnrichStatusError(f"{name!r} cannot be read: {what}.")
        except EnrichStatusError as error:
            self.failed = error
            raise
        return data


class _Opened:
    """A file that DuckDB has opened; its threads read from places of their own."""

    def __init__(self, shelf: Shelf, name: str):
        self._shelf, self._name, self._place = shelf, name, threading.local()

    def seek(self, place: int) -> None:
        self._place.at = place

    def tell(self) -> int:
        return int(getattr(self._place, "at", 0))

    def read(self, count: int) -> bytes:
        start = self.tell()
        end = min(start + count, self._shelf.files[self._name].size or 0)
        self._place.at = max(start, end)
        return self._shelf.read(self._name, start, end) if end > start else b""

    def close(self) -> None:
        """There is nothing to close."""


def _file_system(shelf: Shelf, scheme: str) -> Any:
    """Make the file system that DuckDB calls: it takes none but one of fsspec's class."""
    from fsspec import AbstractFileSystem

    class Elsewhere(AbstractFileSystem):  # type: ignore[misc]  # fsspec ships no type hints
        cachable = False
        protocol = scheme

        def open(self, path: str, mode: str = "rb", **more: Any) -> _Opened:
            return _Opened(shelf, path)

        def glob(self, path: str, **more: Any) -> list[str]:
            return [re.sub(r"\[([*?\[])\]", r"\1", path)]  # no patterns but escaped names arrive here

        def unstrip_protocol(self, name: str) -> str:
            return name

        def isfile(self, path: str) -> bool:
            return path in shelf.files

        def size(self, path: str) -> int | None:
            return shelf.files[path].size

        def modified(self, path: str) -> datetime:
            # DuckDB keeps what it has read until this changes. Times have whole seconds, and would miss a change; this does not
            return datetime.fromtimestamp(zlib.crc32(shelf.files[path].version.encode()), UTC)

    return Elsewhere()
