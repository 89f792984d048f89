"""What is made in pieces and then sent elsewhere: a file appears whole or not at all, a folder as far as its store can."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from enrichstatus.errors import ValidationError
from enrichstatus.files.reading.read import PathLike
from enrichstatus.files.remote.remote import (
    Near,
    Options,
    check_bucket,
    file_system,
    is_remote,
    reaching,
    refuse_web,
    shown,
)
from enrichstatus.files.writing.write import Output, Write, replaced, writable


def output(
    path: PathLike, *, overwrite: bool = False, bom: bool = False, storage_options: Options = None
) -> Output | RemoteOutput:
    """Check before the work that an output can be made, here or elsewhere."""
    if is_remote(path):
        return RemoteOutput(str(path), overwrite=overwrite, bom=bom, storage_options=storage_options)
    return Output(path, overwrite=overwrite, bom=bom)


class RemoteOutput:
    """A file, or a folder of Parquet files, that is made in the temporary folder and then sent to an address.

    A file takes the place of what is there in one step on S3, Google Cloud Storage and Azure; other file systems may show a part of it.
    The files of a folder appear one after the other, and what was sent is removed where a later one fails; a folder that holds
    something is therefore never replaced.
    """

    def __init__(self, address: str, *, overwrite: bool = False, bom: bool = False, storage_options: Options = None):
        refuse_web(address)
        self.path = shown(address)
        self._address, self._options, self._overwrite, self._bom = address, storage_options, overwrite, bom
        self._folder = address.endswith("/")
        if not self._folder:
            writable(address)
        with reaching(self.path, address, storage_options, doing="written"):
            self._system, self._place = file_system(address, storage_options)
            self._system.invalidate_cache()
            there = self._there()
        if there and not (overwrite and not self._folder):
            what = "holds something, and a folder elsewhere is not replaced" if self._folder else "is there already"
            remedy = "" if self._folder else ", or pass overwrite=True to replace it"
            raise ValidationError(f"{self.path!r} {what}; name another place{remedy}.")
        self._near: Output | None = None

    def _there(self) -> bool:
        """Look whether something is there; a bucket that is missing is an error."""
        with suppress(FileNotFoundError):
            if self._folder:
                return bool(self._system.ls(self._place, detail=False))
            return bool(self._system.isfile(self._place))
        check_bucket(self._system, self._place, self.path, "written")
        return False

    def check(self, schema: pa.Schema) -> None:
        """Refuse columns that the format cannot hold, before the work."""
        last = "folder.parquet" if self._folder else self.path.rpartition("/")[2]
        Output(Path(tempfile.gettempdir(), f"enrichstatus-none-{last}"), bom=self._bom).check(schema)

    def refuse(self, paths: Sequence[PathLike], what: str) -> None:
        """Refuse to write over files that are read, or into their folder's place."""
        if found := replaced(self.path, paths):
            raise ValidationError(f"{self.path!r} would replace {found!r}, which holds the {what}; name another place.")

    def files(self) -> list[str]:
        """Name the files that were made, in their order."""
        made = [] if self._near is None else self._near.files()
        return [self.path + Path(file).name for file in made] if self._folder else [self.path]

    @contextmanager
    def open(self) -> Iterator[Write]:
        """Begin, and give what takes the pieces, one at the least; what raises meanwhile sends nothing."""
        folder = tempfile.mkdtemp(prefix="enrichstatus-")
        copy = Path(folder, "out" if self._folder else self.path.rpartition("/")[2])
        near = Near([])
        near.names[str(copy)] = self.path.rstrip("/")
        try:
            with near.naming():
                self._near = Output(f"{copy}/" if self._folder else copy, bom=self._bom)
                with self._near.open() as write:
                    yield write
            self._send(self._near.files())
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _send(self, copies: Sequence[str]) -> None:
        sent: list[str] = []
        mode = "overwrite" if self._overwrite and not self._folder else "create"
        try:
            for copy in copies:
                place = self._place.rstrip("/") + "/" + Path(copy).name if self._folder else self._place
                with reaching(self.path, self._address, self._options, doing="written"):
                    self._system.put_file(copy, place, mode=mode)
                sent.append(place)
        except BaseException:
            for place in sent:
                with suppress(Exception):  # what cannot be reached cannot be removed either
                    self._system.rm_file(place)
            raise
