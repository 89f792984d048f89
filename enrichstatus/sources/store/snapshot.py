"""All records of a store in memory-mapped Arrow, from which few tasks fetch theirs without asking the engine."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Iterator

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: Rows of one piece of the file: rows are taken piece by piece, and each has its price.
PIECE = 1 << 20


class Snapshot:
    """The records of a store that nobody writes to, some 240 bytes each, in a file of the temporary folder that has no name.

    The system keeps in memory what is asked for, and drops it when it needs the room.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection):
        # it never has a name, or at most for a moment: a process that is killed while it writes leaves nothing behind
        with tempfile.TemporaryFile(prefix="enrichstatus-") as file:
            reader = con.sql(_RECORDS_SQL).to_arrow_reader()
            with pa.ipc.new_file(file, reader.schema) as writer:
                for piece in _pieces(reader):
                    writer.write_table(piece)
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        table = pa.ipc.open_file(pa.py_buffer(mapped)).read_all()
        self._pieces = table.drop_columns(["probe"]).to_batches()
        self._starts = np.cumsum([0, *(piece.num_rows for piece in self._pieces)])
        probes = table["probe"].to_numpy()
        self._rows = np.argsort(probes, kind="stable").astype(np.int32 if len(probes) < 2**31 else np.int64)
        self._probes = probes[self._rows]
        self._schema = table.schema.remove(table.schema.get_field_index("probe"))

    def __len__(self) -> int:
        return len(self._probes)

    def records(self, probes: npt.NDArray[np.uint32]) -> pa.Table:
        """Fetch the records that bear any of these probes, which are distinct."""
        first = np.searchsorted(self._probes, probes, "left")
        count = np.searchsorted(self._probes, probes, "right") - first
        # one after the other the runs of places, from `first` on `count` of them
        places = np.arange(count.sum()) + np.repeat(first - (count.cumsum() - count), count)
        rows = np.sort(self._rows[places])
        cuts = np.searchsorted(rows, self._starts)
        taken = [
            piece.take(pa.array(rows[start:end] - offset))
            for piece, offset, start, end in zip(self._pieces, self._starts, cuts, cuts[1:], strict=False)
            if start < end
        ]
        return pa.Table.from_batches(taken, self._schema)


def _pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Put small batches together."""
    some: list[pa.RecordBatch] = []
    for batch in batches:
        some.append(batch)
        if sum(one.num_rows for one in some) >= PIECE:
            yield pa.Table.from_batches(some).combine_chunks()
            some = []
    if some:
        yield pa.Table.from_batches(some).combine_chunks()


_RECORDS_SQL = """
select
    id::varchar as id, createdAt, updatedAt, entityId::varchar as entityId, entityType::varchar as entityType,
    field::varchar as field, status, error, dataFound, createdBy, orgId, globalEnrichmentId, creditTransactionId, probe
from enrichments
"""
