"""Files out: CSV, TSV, JSON, NDJSON and Parquet; whole, or piece by piece. What is written appears whole, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from enrichstatus.errors import EnrichStatusError, ValidationError
from enrichstatus.files.read import PathLike
from enrichstatus.schema import PANDAS_TYPES, listed, timestamps

#: Takes the next piece of what is written; all pieces are of one schema.
Write: TypeAlias = Callable[[pa.Table], None]

ENDINGS = (".csv", ".tsv", ".parquet", ".json", ".ndjson", ".jsonl")


def writable(path: PathLike, endings: Sequence[str] = ENDINGS) -> Path:
    """Check before the work that a frame, or what has these endings, can be written there after it."""
    target = Path(path).expanduser()
    if target.suffix not in endings:
        raise ValidationError(f"{str(target)!r} has no known ending to write; expected {listed(endings)}.")
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise ValidationError(
            f"{str(target)!r} cannot be written: {'it is' if target.is_dir() else 'there is no such'} folder."
        )
    return target


@contextmanager
def replacing(target: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a name beside the target for a file or a folder to be made, which becomes the target as a whole or not at all."""
    # of its own, whoever else writes the same target
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        _put(part, target, overwrite=overwrite)
    except OSError as error:
        text = f"{str(target)!r} cannot be written: {error.strerror or str(error).strip('.')}."
        if error.errno in _FULL:
            raise EnrichStatusError(f"{text} Nothing is left of it; make room, or name another place.") from error
        raise ValidationError(text) from error
    except (pa.ArrowException, UnicodeError) as error:
        raise ValidationError(
            f"{str(target)!r} cannot be written: {first_line(error)}. Leave such a column out, or name another format."
        ) from error
    finally:
        with suppress(OSError):  # where nothing can be written there is nothing to remove
            _remove(part)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def _put(part: Path, target: Path, *, overwrite: bool) -> None:
    """Let what was made take its name."""
    if part.is_dir() and target.is_dir() and overwrite:
        old = part.with_suffix(".old")  # a folder takes the place of an empty one only
        target.replace(old)
        try:
            part.replace(target)
        except OSError:
            old.replace(target)
            raise
        _remove(old)
    elif part.is_dir() or overwrite:
        part.replace(target)
    else:
        try:
            os.link(part, target)  # unlike a new name it does not replace what somebody else has put there meanwhile
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            part.replace(target)


def first_line(error: Exception) -> str:
    """Cut an engine's details from its error."""
    return str(error).strip().partition("\n")[0].rstrip(".")[:300]


def _remove(part: Path) -> None:
    """Remove what was begun: a file, or a folder of files."""
    if part.is_dir():
        for file in part.iterdir():
            file.unlink()
        part.rmdir()
    part.unlink(missing_ok=True)


def write_text(text: str, path: PathLike) -> None:
    """Write a text; the file appears whole or not at all."""
    with replacing(Path(path).expanduser()) as part:
        part.write_text(text, encoding="utf-8", errors="replace")


def write(table: pa.Table, path: PathLike) -> None:
    """Write a table in the format its ending names; the file appears whole or not at all. Instants in text are the wire's."""
    target = writable(path)
    with replacing(target) as part, pieces(part, target.suffix, table.schema) as put:
        put(table)


@contextmanager
def pieces(path: Path, ending: str, schema: pa.Schema) -> Iterator[Write]:
    """Write a file piece by piece, in the format that an ending names."""
    if ending == ".parquet":
        with pq.ParquetWriter(path, _for_pandas(schema)) as parquet:
            yield parquet.write_table
    elif ending in (".csv", ".tsv"):
        options = pacsv.WriteOptions(quoting_style="needed", delimiter="\t" if ending == ".tsv" else ",")
        with pacsv.CSVWriter(path, _told(schema.empty_table()).schema, write_options=options) as csv:
            yield lambda table: csv.write_table(_told(table))
    else:
        with path.open("w", encoding="utf-8") as file:
            array = ending == ".json"
            between = "[" if array else ""

            def put(table: pa.Table) -> None:
                nonlocal between
                if len(table):
                    frame = _told(table).to_pandas(types_mapper=PANDAS_TYPES.get)
                    objects = frame.to_json(orient="records", lines=not array, force_ascii=False)
                    file.write(between + (objects[1:-1] if array else objects))
                    between = "," if array else ""

            yield put
            file.write(("[" if between == "[" else "") + "]" if array else "")


def _for_pandas(schema: pa.Schema) -> pa.Schema:
    """Note for pandas which types ours are there, unless a frame of its own has noted them."""
    if b"pandas" in (schema.metadata or {}):
        return schema
    frame = schema.empty_table().to_pandas(types_mapper=PANDAS_TYPES.get)
    return schema.with_metadata(pa.Schema.from_pandas(frame, preserve_index=False).metadata)


def _told(table: pa.Table) -> pa.Table:
    """Turn instants into the wire's text."""
    for place, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type):
            table = table.set_column(place, column.name, timestamps(table.column(place)))
        elif isinstance(column.type, pa.UuidType):
            uuids = table.select([place]).rename_columns(["uuid"])
            with duckdb.connect() as con:
                text = con.from_arrow(uuids).select(duckdb.ColumnExpression("uuid").cast("VARCHAR")).to_arrow_table()
            table = table.set_column(place, column.name, text.column(0))
    return table


#: Rows of one file, where a folder of files is written.
PART_ROWS = 1 << 21
_PART = "part-{:05d}.parquet"


class Output:
    """A file, or a folder of Parquet files, that is made in pieces, and appears whole or not at all.

    Parameters
    ----------
    path : path
        A file, of which the ending names the format; or a folder: one that exists, or a name that ends with a slash.
    overwrite : bool
        Replace what is there: a file, or a folder that holds nothing but what was written here.
    """

    def __init__(self, path: PathLike, *, overwrite: bool = False):
        text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
        if not text or "\0" in text:
            raise ValidationError(f"The output is the path of a file or a folder, not {path!r}.")
        # whole, and where a link leads: that is what is made anew
        self.path = Path(os.path.realpath(Path(text).expanduser()))
        try:
            self._folder = text.endswith(("/", os.sep)) or self.path.is_dir()
            if not self._folder:
                writable(self.path)
            if not self.path.parent.is_dir():
                raise ValidationError(f"{str(self.path)!r} cannot be written: there is no folder to make it in.")
            if self._folder and self.path.exists() and not self.path.is_dir():
                raise ValidationError(f"{str(self.path)!r} cannot be written: it is a file.")
            there = sorted(self.path.iterdir()) if self.path.is_dir() else [self.path] if self.path.exists() else []
        except OSError as error:
            raise ValidationError(f"{str(self.path)!r} cannot be written: {error.strerror}.") from error
        if there and not overwrite:
            what = f"{str(self.path)!r} {'is not empty' if self._folder else 'is there already'}"
            raise ValidationError(f"{what}; name another place, or pass overwrite=True to replace it.")
        if self._folder and (strange := [file.name for file in there if not file.match("part-*.parquet")]):
            raise ValidationError(f"{str(self.path)!r} is not replaced: it holds {listed(strange, limit=3)} too.")
        self._overwrite = overwrite
        self._made = 0

    def refuse(self, paths: Sequence[PathLike], what: str) -> None:
        """Refuse to write over files that are read, or into their folder's place."""
        for path in map(os.path.realpath, paths):
            if self.path == Path(path) or (self._folder and self.path in Path(path).parents):
                raise ValidationError(
                    f"{str(self.path)!r} holds the {what}, which it would replace; name another place."
                )

    def files(self) -> list[str]:
        """Name the files that were made, in their order."""
        return (
            [str(self.path / _PART.format(number)) for number in range(self._made)]
            if self._folder
            else [str(self.path)]
        )

    @contextmanager
    def open(self) -> Iterator[Write]:
        """Begin, and give what takes the pieces, one at the least; what raises meanwhile leaves nothing behind."""
        with replacing(self.path, overwrite=self._overwrite) as part, ExitStack() as stack:
            if self._folder:
                part.mkdir()
            ending = ".parquet" if self._folder else self.path.suffix
            put: Write | None = None
            rows = 0

            def write(table: pa.Table) -> None:
                nonlocal put, rows
                if put is None or (self._folder and rows >= PART_ROWS):
                    stack.close()
                    file = part / _PART.format(self._made) if self._folder else part
                    put = stack.enter_context(pieces(file, ending, table.schema))
                    self._made, rows = self._made + 1, 0
                put(table)
                rows += len(table)

            yield write
