"""A Parquet file: its schema and rows through Arrow, which has a name for each of its types, and the words for what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from enrichstatus.errors import ValidationError
from enrichstatus.files.text import first_line
from enrichstatus.schema import listed

#: What Arrow and DuckDB say, and what it means.
_MEANS = {
    "magic bytes|too small to be|smaller than the|footer length": "it is cut off, or it is not Parquet. Fetch it or write it "
    "anew, or give it the ending of what it is.",
    "encrypt": "it is encrypted. Write it without encryption.",
}
#: What DuckDB says of a Parquet file, and of which.
_OF_DUCKDB = re.compile(
    r"(?:No magic bytes found at end of file|Footer length error in file|Failed to read file|File(?=.*(?:too small to be|is encrypted)))"
    r""" (["'])(?P<path>.+?)\1(?P<rest>.*)""",
    re.DOTALL,
)


def schema_of(path: str) -> pa.Schema:
    """Read what columns a file has."""
    try:
        return pq.read_schema(path).remove_metadata()
    except (pa.ArrowException, OSError) as error:
        raise _fault(path, error) from error


def stream(schemas: Mapping[str, pa.Schema], names: Sequence[str], rows: int) -> pa.RecordBatchReader:
    """Stream some columns of files with these schemas, so many rows at a time; one that a file lacks is null there."""
    try:
        whole = pa.unify_schemas(list(schemas.values()), promote_options="permissive")
    except pa.ArrowException as error:
        raise ValidationError(f"The types of {listed(schemas, 3)} do not fit together: {error}") from error
    schema = pa.schema([whole.field(name) for name in names])

    def batches() -> Iterator[pa.RecordBatch]:
        for path, own in schemas.items():
            found = [name for name in names if name in own.names]
            for batch in _batches(path, found, rows):
                absent = {name: pa.nulls(len(batch), schema.field(name).type) for name in names}
                cells = absent | dict(zip(found, batch.select(found).columns, strict=True))
                yield from pa.table(cells).cast(schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def _batches(path: str, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(rows, columns=names)
    except (pa.ArrowException, OSError) as error:
        raise _fault(path, error) from error


def _fault(path: str, error: Exception) -> ValidationError:
    return ValidationError(f"{path!r} cannot be read: {_meaning(first_line(error))}")


def _meaning(words: str) -> str:
    found = (what for pattern, what in _MEANS.items() if re.search(pattern, words, re.IGNORECASE))
    return next(found, f"it is damaged ({words}). Fetch it or write it anew.")


def duckdb_fault(error: Exception) -> str | None:
    """Say what is wrong with a Parquet file that DuckDB could not read; nothing of other errors."""
    found = _OF_DUCKDB.search(str(error))
    if found is None:
        return None
    words = found[0].replace(found["path"], "").replace(2 * found[1], "the file")
    return f"{found['path']!r}: {_meaning(first_line(Exception(words)))}"
