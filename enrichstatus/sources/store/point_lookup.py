"""The query over a store's records: many tasks by one scan, few through an index or a snapshot, with the same answer."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from enrichstatus.lookup.query import DECIDED_SQL, LOOKUP_SQL

#: Up to this many tasks are fetched through the index one by one; above, a scan of all records is cheaper.
FEW = 1000
#: So are, in a large store, up to one task for this many records; at a thousandth of them DuckDB itself leaves the index.
RECORDS_A_TASK = 1250
#: In a snapshot they are found faster.
RECORDS_A_TASK_SNAPSHOT = 200
#: Rows of one piece of a snapshot's file: rows are gathered piece by piece, and each has its price.
PIECE = 1 << 20


class Snapshot:
    """The records of a store that nobody writes to, some 240 bytes each, in a file of the temporary folder that has no name.

    The system keeps in memory what is read, and drops it when it needs the room.
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
        found = [
            piece.take(pa.array(rows[start:end] - offset))
            for piece, offset, start, end in zip(self._pieces, self._starts, cuts, cuts[1:], strict=False)
            if start < end
        ]
        return pa.Table.from_batches(found, self._schema)


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


def answer(
    con: duckdb.DuckDBPyConnection, asker: pa.Table, tasks: int, names: Sequence[str], snapshot: Snapshot | None = None
) -> pa.Table:
    """Answer the query with some columns, over the records that can matter to the temporary table ``tasks``."""
    con.register("asker", asker)
    if snapshot is not None and tasks <= max(FEW, len(snapshot) // RECORDS_A_TASK_SNAPSHOT):
        probes = con.execute(_DISTINCT_PROBES_SQL).fetchnumpy()["probe"]
        con.register("found", snapshot.records(np.asarray(probes, np.uint32)))
        con.execute(_SNAPSHOT_SQL)
        return con.table("answer").to_arrow_table()
    if tasks > FEW and tasks >= con.execute(_COUNT_SQL).fetchall()[0][0] // RECORDS_A_TASK:
        con.register("records", winners(con, asker["orgId"][0].as_py()))
        return con.sql(DECIDED_SQL).select("position", *names).to_arrow_table()
    probes = con.execute(_PROBES_SQL).fetchall()[0][0]
    con.execute(_USUAL_SQL if _USUAL.issuperset(names) else _ANY_SQL, {"probes": probes})
    # by way of a table: for so few rows DuckDB's binding of a relation would cost more than its answer
    return con.table("answer").to_arrow_table()


def winners(con: duckdb.DuckDBPyConnection, org_id: str) -> duckdb.DuckDBPyRelation:
    """Give the newest record of each key of an organization; named by a constant, no other's records are read where they lie apart."""
    own = duckdb.ColumnExpression("orgId") == duckdb.ConstantExpression(org_id)
    return con.table("enrichment_winners").filter(own)


_COUNT_SQL = "select count(*) from enrichments"
_PROBES_SQL = "select coalesce(list(distinct enrichment_probe(entityId, field)), []) from tasks"


def _few_sql(fetched: str, answered: str) -> str:
    # Nothing but the list may stand in the condition, or the optimizer leaves the index; materialized keeps the rest out of it.
    return f"""
    create temp table answer as
    with records as materialized (
        select {fetched} from enrichments where list_contains($probes::uinteger[], probe)
    ), answer as ({LOOKUP_SQL})
    select {answered} from answer
    """  # noqa: S608  of the constants below


_ANY_SQL = _few_sql("*", "*")
# Rows fetched by their index cost by the column, and so does planning: the usual question reads only what it needs.
_USUAL = frozenset(("status", "dataFound"))
_USUAL_SQL = _few_sql(
    """
        id, createdAt, updatedAt, entityId, entityType, field, status, dataFound, orgId,
        null as error, null as createdBy, null as globalEnrichmentId, null as creditTransactionId
    """,
    "position, status, dataFound",
)

_DISTINCT_PROBES_SQL = "select distinct enrichment_probe(entityId, field) as probe from tasks"
_SNAPSHOT_SQL = f"""
create temp table answer as
with records as materialized (
    select
        * replace (
            entityId::uuid as entityId,
            entityType::enrichment_entity_type as entityType,
            field::enrichment_field as field
        )
    from found
), answer as ({LOOKUP_SQL})
select * from answer
"""  # noqa: S608  of a constant
_RECORDS_SQL = """
select
    id::varchar as id, createdAt, updatedAt, entityId::varchar as entityId, entityType::varchar as entityType,
    field::varchar as field, status, error, dataFound, createdBy, orgId, globalEnrichmentId, creditTransactionId, probe
from enrichments
"""
