"""Files out: CSV, TSV, JSON, NDJSON and Parquet; whole, or piece by piece. What is written appears whole, or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from enrichstatus.errors import EnrichStatusError, ValidationError
from enrichstatus.files import PathLike
from enrichstatus.schema import PANDAS_TYPES, listed
from enrichstatus.wire import timestamps

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
def replacing(target: Path) -> Iterator[Path]:
    """Give a name beside the target for a file or a folder to be made, which becomes the target as a whole or not at all."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(target)
    except OSError as error:
        text = f"{str(target)!r} cannot be written: {error.strerror or str(error).strip('.')}."
        if error.errno in _FULL:
            raise EnrichStatusError(f"{text} Nothing is left of it; make room, or name another place.") from error
        raise ValidationError(text) from error
    finally:
        _remove(part)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


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
        with pq.ParquetWriter(path, schema) as parquet:
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


def _told(table: pa.Table) -> pa.Table:
    """Turn instants into the wire's text."""
    for place, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type):
            table = table.set_column(place, column.name, timestamps(table.column(place)))
    return table
