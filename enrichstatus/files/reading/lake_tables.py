"""Tables of a lake: Delta through deltalake, Iceberg through pyiceberg; both give Arrow, and read only what is asked of them.

An object of either library is read at the version that it stands at; a folder with a ``_delta_log`` at its newest one.
"""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from enrichstatus.errors import ValidationError
from enrichstatus.files.remote.remote import is_remote, reaching

#: By a column that a table is partitioned by, the values to be read; None is null.
Only: TypeAlias = Mapping[str, Sequence[Any]]


class Table:
    """A table at one version: the names of its columns, and streams of some of them."""

    #: what it is called in a message
    name: str
    names: list[str]
    #: the columns by whose values it lies in parts
    partitions: list[str]

    def __init__(self) -> None:
        self._schemas: dict[tuple[str, ...], pa.Schema] = {}

    @abstractmethod
    def values(self, column: str) -> list[Any]:
        """Give the values of a column that it is partitioned by."""

    @abstractmethod
    def _batches(self, columns: Sequence[str], only: Only) -> Any:
        """Stream some columns of the parts to be read."""

    def stream(self, columns: Sequence[str], only: Only | None = None) -> pa.RecordBatchReader:
        """Stream some columns, of all parts or of those with some values; nothing is read before the first rows are asked for."""
        schema = self._schema(tuple(columns))

        def batches() -> Iterator[pa.RecordBatch]:
            with reaching(self.name):
                for batch in pa.RecordBatchReader.from_stream(self._batches(columns, only or {})):
                    yield batch.select(columns).cast(schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _schema(self, columns: tuple[str, ...]) -> pa.Schema:
        if columns not in self._schemas:
            with reaching(self.name):
                found = pa.RecordBatchReader.from_stream(self._batches(columns, {})).schema
            self._schemas[columns] = pa.schema([found.field(name) for name in columns])
        return self._schemas[columns]


class _Delta(Table):
    def __init__(self, table: Any, name: str):
        super().__init__()
        self._table, self.name = table, name
        with reaching(name):
            self.names = [field.name for field in table.schema().fields]
            self.partitions = list(table.metadata().partition_columns)

    def values(self, column: str) -> list[Any]:
        with reaching(self.name):
            return list({part[column] for part in self._table.partitions()})

    def _batches(self, columns: Sequence[str], only: Only) -> Any:
        # without a column there is nothing to count rows by
        predicate = " and ".join(f"({_predicate(column, values)})" for column, values in only.items())
        return self._table.scan(columns=list(columns), predicate=predicate or None)


def _predicate(column: str, values: Sequence[Any]) -> str:
    """Say it in DataFusion's SQL, which binds no values."""
    name = '"' + column.replace('"', '""') + '"'
    texts = ", ".join("'" + str(value).replace("'", "''") + "'" for value in values if value is not None)
    parts = [f"{name} in ({texts})"] * bool(texts) + [f"{name} is null"] * (None in values)
    return " or ".join(parts) or "false"


class _Iceberg(Table):
    def __init__(self, table: Any):
        super().__init__()
        self._table, self.name = table, ".".join(table.name())
        schema = table.schema()
        self.names = [field.name for field in schema.fields]
        fields = [field for field in table.spec().fields if str(field.transform) == "identity"]
        self._fields = {schema.find_column_name(field.source_id): field.name for field in fields}
        self.partitions = [name for name in self._fields if name in self.names]

    def values(self, column: str) -> list[Any]:
        with reaching(self.name):
            parts = self._table.inspect.partitions()["partition"].to_pylist()
            return list({part[self._fields[column]] for part in parts})

    def _batches(self, columns: Sequence[str], only: Only) -> Any:
        from pyiceberg.expressions import AlwaysFalse, AlwaysTrue, And, In, IsNull, Or

        chosen: Any = AlwaysTrue()
        for column, values in only.items():
            given = [value for value in values if value is not None]
            one = In(column, given) if given else AlwaysFalse()
            chosen = And(chosen, Or(one, IsNull(column)) if None in values else one)
        return self._table.scan(row_filter=chosen, selected_fields=tuple(columns)).to_arrow_batch_reader()


def is_delta(path: Any) -> bool:
    """Whether a path is a folder that holds a Delta table."""
    return not is_remote(path) and os.path.isdir(Path(path).expanduser() / "_delta_log")


def refuse_parts(pattern: str) -> None:
    """Refuse a pattern of files within a Delta table: those that were removed from the table still lie there."""
    start = re.split(r"[*?\[]", pattern)[0]
    folder = Path(os.path.abspath(start if start.endswith(("/", os.sep)) else os.path.dirname(start)))
    if start != pattern and (found := next(filter(is_delta, (folder, *folder.parents)), None)):
        raise ValidationError(
            f"{pattern!r} names files of a Delta table, which may hold what was removed from it; give the table: {str(found)!r}."
        )


def table_of(data: Any) -> Table | None:
    """Take a table of either library, or a folder that holds one, for a table; nothing else."""
    module = type(data).__module__.partition(".")[0]
    if module == "deltalake" and hasattr(data, "table_uri"):
        return _Delta(data, str(data.table_uri).rstrip("/").removeprefix("file://"))
    if module == "pyiceberg" and hasattr(data, "scan") and hasattr(data, "spec"):
        return _Iceberg(data)
    if isinstance(data, (str, os.PathLike)) and is_delta(data):
        path = str(Path(data).expanduser().absolute())
        try:
            from deltalake import DeltaTable
        except ImportError:
            raise ValidationError(
                f'{path!r} is a Delta table, which needs the extra "delta": pip install "enrichstatus[delta]".'
            ) from None
        with reaching(path):
            opened = DeltaTable(path)
        return _Delta(opened, path)
    return None


class Renamed:
    """A stream of some columns under other names, begun anew by whoever reads it."""

    def __init__(self, table: Table, names: Mapping[str, str], only: Only):
        self._table, self._names, self._only = table, names, only

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        reader = self._table.stream(list(self._names), self._only)
        schema = pa.schema([field.with_name(self._names[field.name]) for field in reader.schema])
        renamed = (batch.rename_columns(schema.names) for batch in reader)
        return pa.RecordBatchReader.from_batches(schema, renamed).__arrow_c_stream__(requested_schema)
