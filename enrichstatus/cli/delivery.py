"""One delivery of changes: the output and the cursor stand together, or neither, for one command at a time."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa

from enrichstatus.errors import EnrichStatusError, ValidationError
from enrichstatus.files.remote.remote import is_remote
from enrichstatus.files.writing import write as writing
from enrichstatus.files.writing.remote_out import output as remote_output
from enrichstatus.files.writing.whole import refused


@dataclass(frozen=True)
class Delivery:
    """What is written where, and the cursor that then holds. `part` is the file before it takes the name of the output."""

    output: str
    part: str
    cursor: str
    inserted: int
    updated: int


class Deliveries:
    """The cursor's file while one command holds it.

    A delivery is noted, in a file beside that of the cursor, when all its rows are in the hidden `part`. From then on it will be
    finished, by the next command if this one is killed: the output takes its name, the cursor moves, and the note is removed.
    """

    def __init__(self, cursor: Path, note: IO[str]):
        self._cursor, self._note = cursor, note

    def finish(self) -> Delivery | None:
        """Finish the delivery that is noted, if there is one."""
        self._note.seek(0)
        text = self._note.read()
        if not text.endswith("\n"):  # nothing, or killed while it was noted: its rows come again
            return None
        noted = Delivery(**json.loads(text))
        if os.path.lexists(noted.part):
            with refused(noted.output):
                Path(noted.part).replace(noted.output)
        writing.write_text(f"{noted.cursor}\n", self._cursor)
        self._note.truncate(0)
        return noted

    def deliver(self, table: pa.Table, output: str, cursor: str, *, bom: bool) -> Delivery:
        """Write changes, and move the cursor to where they end. Elsewhere the output is sent first, as a whole."""
        new = table["previousStatus"].null_count
        target = Path(os.path.realpath(Path(output).expanduser()))
        # a name that no pattern of a consumer's takes for an output
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        place = output if is_remote(output) else str(target)
        noted = Delivery(place, str(part), cursor, new, len(table) - new)
        try:
            if is_remote(output):
                writing.write(table, output, bom=bom)
            else:
                writing.check_writable(table.schema, target, bom=bom)
                with (
                    refused(target),
                    part.open("wb") as file,
                    writing.pieces(file, writing.ending_of(target), table.schema, bom=bom) as put,
                ):
                    put(table)
            self._note.truncate(0)
            self._note.write(json.dumps(asdict(noted)) + "\n")
            self._note.flush()
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
                self._note.truncate(0)
            raise
        self.finish()
        return noted


@contextmanager
def holding(path: str) -> Iterator[Deliveries]:
    """Hold the file of a cursor: another command that would move it meanwhile is refused."""
    if is_remote(path):
        raise ValidationError(f"--since names a file of this machine, not {path!r}.")
    cursor = Path(os.path.realpath(Path(path).expanduser()))
    beside = cursor.with_name(f".{cursor.name}.moving")
    with refused(path):
        note = _locked(beside, path)
    try:
        yield Deliveries(cursor, note)
    finally:
        note.seek(0)
        if not note.read():
            with suppress(OSError):  # Windows removes no file that is open; an empty one means nothing
                beside.unlink()
        note.close()


def _locked(beside: Path, path: str) -> IO[str]:
    """Open the file beside that of a cursor, and lock it, until it is closed or the process ends."""
    while True:
        note = beside.open("a+", encoding="utf-8")
        try:
            _lock(note)
            if os.path.samestat(os.fstat(note.fileno()), beside.stat()):
                return note
        except FileNotFoundError:  # the one that held it has just removed it
            pass
        except BlockingIOError:
            note.close()
            raise EnrichStatusError(
                f"Another `enrichstatus changes` works with the cursor of {path!r} at this moment. Run it again when that one has "
                "ended: what came until then is written by it, or then."
            ) from None
        except BaseException:
            note.close()
            raise
        note.close()


def _lock(file: IO[str]) -> None:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def check_taken(output: str, *, overwrite: bool) -> None:
    """Refuse to replace an output of which nobody can tell whether somebody has taken the changes in it."""
    if is_remote(output):
        remote_output(output, overwrite=overwrite)
    elif not overwrite and os.path.lexists(Path(output).expanduser()):
        raise ValidationError(
            f"{output!r} is there already, and the changes in it may not have been taken yet. Take it away, or name another file.",
            instead=("overwrite", True, "replace it"),
        )
