"""Files out: CSV, TSV, JSON, NDJSON, Parquet and Excel; whole, or not at all, and never in place of what is read."""

from __future__ import annotations

import codecs
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from enrichstatus.errors import ValidationError, quoted
from enrichstatus.files.plain import as_text, plain
from enrichstatus.files.reading.read import PathLike
from enrichstatus.files.remote.remote import is_remote, refuse_web, sending, shown
from enrichstatus.files.scratch import scratch
from enrichstatus.files.text import first_line as first_line
from enrichstatus.files.writing import workbook_out
from enrichstatus.files.writing.json_out import objects, refuse_not_finite
from enrichstatus.files.writing.whole import not_written, replacing
from enrichstatus.schema import PANDAS_TYPES, listed

#: Takes the next piece of what is written; all pieces are of one schema.
Write: TypeAlias = Callable[[pa.Table], None]

ENDINGS = (".csv", ".tsv", ".xlsx", ".parquet", ".json", ".ndjson", ".jsonl")


def ending_of(path: PathLike) -> str:
    """Give the ending that says the format, in whatever case it is."""
    return Path(path).suffix.lower()


def writable(path: PathLike, endings: Sequence[str] = ENDINGS) -> PathLike:
    """Check before the work that a frame, or what has these endings, can be written there after it."""
    target = Path(path).expanduser()
    if ending_of(target) not in endings:
        raise ValidationError(f"{_name(path)!r} has no known ending to write; expected {listed(endings)}.")
    if is_remote(path):
        refuse_web(str(path))
        return path
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise ValidationError(
            f"{str(target)!r} cannot be written: {'it is a' if target.is_dir() else 'there is no such'} folder."
        )
    return target


def _name(path: PathLike) -> str:
    return shown(str(path)) if is_remote(path) else str(Path(path).expanduser())


def replaced(output: PathLike, read: Iterable[PathLike]) -> str | None:
    """Find among files that are read one that an output would replace: it is the same file, by whatever name, or lies in the folder."""
    if is_remote(output):
        whole = shown(str(output)).rstrip("/")
        far = (str(path) for path in read if is_remote(path))
        return next((path for path in far if f"{shown(path)}/".startswith(f"{whole}/")), None)
    target = Path(output).expanduser().resolve()
    for path in read:
        if is_remote(path):
            continue
        place = Path(path).expanduser().resolve()
        with suppress(
            OSError
        ):  # a hard link is the same file, too; none is opened, which would end the locks on a store
            if target in (place, *place.parents) or target.samefile(place):
                return os.fspath(path)
    return None


def write_text(text: str, path: PathLike) -> None:
    """Write a text; the file appears whole or not at all."""
    if is_remote(path):
        with sending(str(path)) as copy:
            write_text(text, copy)
        return
    with replacing(Path(path).expanduser()) as part:
        part.write_text(text, encoding="utf-8", errors="replace")


def write(table: pa.Table, path: PathLike, *, bom: bool = False) -> None:
    """Write a table in the format its ending names; the file appears whole or not at all. Instants in text are the wire's."""
    if is_remote(writable(path)):
        with sending(str(path)) as copy:
            write(table, copy, bom=bom)
        return
    target = Path(path).expanduser()
    check_writable(table.schema, target, bom=bom)
    with (
        replacing(target) as part,
        part.open("wb") as file,
        pieces(file, ending_of(target), table.schema, bom=bom) as put,
    ):
        put(table)


def check_cells(table: pa.Table, path: PathLike, *, bom: bool = False) -> None:
    """Check before the work that a format can hold the columns, and the numbers in them."""
    check_writable(table.schema, path, bom=bom)
    if ending_of(path) not in (*_CSV, ".parquet"):
        try:
            refuse_not_finite(table, "a workbook" if ending_of(path) == _EXCEL else "JSON")
        except pa.ArrowInvalid as error:
            raise not_written(path, error) from error


def check_writable(schema: pa.Schema, path: PathLike, *, bom: bool = False) -> None:
    """Check before the work that a format can hold the columns: each is tried without rows, and nothing is written."""
    ending = ending_of(path)
    if bom and ending not in _CSV:
        raise ValidationError(f"is for CSV files, {listed(_CSV)}, not {str(path)!r}.", argument="bom")
    if ending == _EXCEL:
        workbook_out.writer()
        if len(schema) > workbook_out.COLUMNS:
            raise ValidationError(
                f"{str(path)!r} cannot be written: a sheet holds {workbook_out.COLUMNS:,} columns, not {len(schema):,}. "
                "Name another format."
            )
    for field in schema:
        twice = ending not in (*_CSV, _EXCEL, ".parquet") and schema.names.count(field.name) > 1
        lost = ending != ".parquet" and _has_no_text(field.type, nested=ending not in (*_CSV, _EXCEL))
        try:
            one = pa.schema([field])
            # a workbook holds whatever text does
            with pieces(io.BytesIO(), ".csv" if ending == _EXCEL else ending, one) as put:
                put(one.empty_table())
        except (pa.ArrowException, duckdb.Error, TypeError, OSError):
            lost = True
        if twice or lost:
            why, other = "there twice" if twice else field.type, ", e.g. .parquet" if ending != ".parquet" else ""
            raise ValidationError(
                f"{str(path)!r} cannot be written: {ending} cannot hold the column {field.name!r}, which is {why}. "
                f"Drop, rename or convert the column, or name another format{other}."
            )


def _has_no_text(kind: pa.DataType, *, nested: bool, within: bool = False) -> bool:
    """Whether a format of text cannot hold values of a type; `nested` are held by JSON."""
    if isinstance(kind, pa.BaseExtensionType):
        return not isinstance(kind, pa.UuidType) and _has_no_text(kind.storage_type, nested=nested, within=within)
    if pa.types.is_nested(kind):
        return not nested or any(
            _has_no_text(kind.field(n).type, nested=nested, within=True) for n in range(kind.num_fields)
        )
    return (within and pa.types.is_duration(kind)) or pa.types.is_interval(kind) or "binary" in str(kind)


_CSV = (".csv", ".tsv")
_EXCEL = ".xlsx"


@contextmanager
def pieces(file: Any, ending: str, schema: pa.Schema, *, bom: bool = False) -> Iterator[Write]:
    """Write a file that is open piece by piece, in the format that an ending names."""
    if ending == ".parquet":
        with pq.ParquetWriter(file, _for_pandas(schema)) as parquet:
            yield lambda table: parquet.write_table(table.cast(schema))
    elif ending in _CSV:
        options = pacsv.WriteOptions(quoting_style="needed", delimiter="\t" if ending == ".tsv" else ",")
        if bom:
            file.write(codecs.BOM_UTF8)
        texts = plain(as_text(schema.empty_table()), bom=bom, csv=True).schema
        with pacsv.CSVWriter(file, texts, write_options=options) as csv:
            yield lambda table: csv.write_table(plain(as_text(table), bom=bom, csv=True))
    elif ending == _EXCEL:
        with workbook_out.sheet(file, schema) as put:
            yield put
    else:
        begin, between, end = ("[", ",", "]") if ending == ".json" else ("", "", "")
        with scratch() as con:

            def write_objects(table: pa.Table) -> None:
                nonlocal begin
                refuse_not_finite(table, "JSON")
                for batch in objects(con, plain(table), "" if between else "\n").to_batches():
                    if len(batch):
                        file.write((begin + between.join(batch.column(0).to_pylist())).encode())
                        begin = between

            yield write_objects
        file.write((("[" if begin == "[" else "") + end).encode())


def _for_pandas(schema: pa.Schema) -> pa.Schema:
    """Note for pandas which types ours are there, unless a frame of its own has noted them."""
    if b"pandas" in (schema.metadata or {}):
        return schema
    with suppress(pa.ArrowException, ValueError, TypeError):  # what pandas has no type for is not noted
        frame = schema.empty_table().to_pandas(types_mapper=PANDAS_TYPES.get)
        return schema.with_metadata(pa.Schema.from_pandas(frame, preserve_index=False).metadata)
    return schema


#: Rows of one file, where a folder of files is written.
PART_ROWS = 1 << 21
_PART = "part-{:05d}.parquet"
#: In a folder that was written here: the names of its files, and (not from earlier versions) what they were like: the size, when it was
#: written, and a digest of what is in it, by which a copy is known.
_MARKER = ".enrichstatus"


def _state(file: Path) -> str:
    """Say what a file is like that nobody has changed: its size, and when it was written."""
    found = file.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _as_written(file: Path, state: str | None) -> bool:
    """Whether a file is as the marker says that it was written, or a copy of that; it is read only where the time differs."""
    if state is None or not file.is_file():
        return False
    seen, digest = state.rpartition(" ")[::2] if state.count(" ") == 2 else (state, "")
    if seen in ("", _state(file)):
        return True
    return bool(digest) and seen.partition(" ")[0] == str(file.stat().st_size) and digest == _digest(file)


class Output:
    """A file, or a folder of Parquet files, that is made in pieces, and appears whole or not at all.

    Parameters
    ----------
    path : path
        A file, of which the ending names the format; or a folder: one that exists, or a name that ends with a slash.
    overwrite : bool
        Replace what is there: a file, or a folder that was written here and holds nothing else.
    bom : bool
        Write CSV for Excel: with a byte order mark, and formulas as text.
    """

    def __init__(self, path: PathLike, *, overwrite: bool = False, bom: bool = False):
        text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
        if not text or "\0" in text:
            raise ValidationError(f"The output is the path of a file or a folder, not {quoted(path)}.")
        try:
            os.fsencode(text)
        except UnicodeError as error:
            raise ValidationError(f"{text!r} cannot be the name of a file: {error}") from error
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
            marker = self.path / _MARKER
            lines = marker.read_text(encoding="utf-8").splitlines() if self._folder and marker.is_file() else []
            ours = {name: state for name, _, state in (line.partition(" ") for line in lines)}
            files = [file for file in there if not (lines and file == marker)]
            strange = [file.name for file in files if not _as_written(file, ours.get(file.name))]
        except OSError as error:
            raise ValidationError(f"{str(self.path)!r} cannot be written: {error.strerror}.") from error
        if there and not overwrite:
            what = f"{str(self.path)!r} {'is not empty' if self._folder else 'is there already'}"
            raise ValidationError(f"{what}; name another place, or pass overwrite=True to replace it.")
        if self._folder and strange:
            raise ValidationError(
                f"{str(self.path)!r} is not replaced: {listed(strange, limit=3)} in it was not written by a lookup, or has changed since."
            )
        self._overwrite, self._bom, self._made = overwrite, bom, 0

    def check(self, schema: pa.Schema) -> None:
        """Refuse columns that the format cannot hold, before the work."""
        check_writable(schema, "folder.parquet" if self._folder else self.path, bom=self._bom)

    def refuse(self, paths: Sequence[PathLike], what: str) -> None:
        """Refuse to write over files that are read, or into their folder's place."""
        if found := replaced(self.path, paths):
            raise ValidationError(
                f"{str(self.path)!r} would replace {found!r}, which holds the {what}; name another place."
            )

    def files(self) -> list[str]:
        """Name the files that were made, in their order."""
        parts = [str(self.path / _PART.format(number)) for number in range(self._made)]
        return parts if self._folder else [str(self.path)]

    @contextmanager
    def open(self) -> Iterator[Write]:
        """Begin, and give what takes the pieces, one at the least; what raises meanwhile leaves nothing behind."""
        with replacing(self.path, overwrite=self._overwrite) as part, ExitStack() as stack:
            if self._folder:
                part.mkdir()
            ending = ".parquet" if self._folder else ending_of(self.path)
            put: Write | None = None
            rows = 0

            def write(table: pa.Table) -> None:
                nonlocal put, rows
                if put is None or (self._folder and rows >= PART_ROWS):
                    stack.close()
                    file = stack.enter_context((part / _PART.format(self._made) if self._folder else part).open("wb"))
                    put = stack.enter_context(pieces(file, ending, table.schema, bom=self._bom))
                    self._made, rows = self._made + 1, 0
                put(table)
                rows += len(table)

            yield write
            stack.close()
            if self._folder:
                made = (part / Path(name).name for name in self.files())
                lines = "\n".join(f"{file.name} {_state(file)} {_digest(file)}" for file in made)
                (part / _MARKER).write_text(lines, encoding="utf-8")
