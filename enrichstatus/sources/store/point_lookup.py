"""The query over a store's records: many tasks by one scan, few through an index, with the same answer."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from enrichstatus.lookup.query import LOOKUP_SQL

#: Up to this many tasks are fetched through the index one by one; above, a scan of all records is cheaper.
FEW = 1000
#: So are, in a large store, up to one task for this many records; at a thousandth of them DuckDB itself leaves the index.
RECORDS_A_TASK = 1250


def answer(con: duckdb.DuckDBPyConnection, asker: pa.Table, tasks: int, names: Sequence[str]) -> pa.Table:
    """Answer the query with some columns, over the records that can matter to the temporary table ``tasks``."""
    con.register("asker", asker)
    if tasks > FEW and tasks >= con.execute(_COUNT_SQL).fetchall()[0][0] // RECORDS_A_TASK:
        con.register("records", con.table("enrichments"))
        return con.sql(LOOKUP_SQL).select("position", *names).to_arrow_table()
    probes = con.execute(_PROBES_SQL).fetchall()[0][0]
    con.execute(_USUAL_SQL if _USUAL.issuperset(names) else _ANY_SQL, {"probes": probes})
    # by way of a table: for so few rows DuckDB's binding of a relation would cost more than its answer
    return con.table("answer").to_arrow_table()


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
