"""The query over a store's records: many tasks by one scan, few through an index, with the same answer."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.lookup.query import CONTENDING_SQL, DECIDED_SQL
from enrichstatus.lookup.vectors.keys import Codes, Keys, Vocabulary, matched
from enrichstatus.lookup.vectors.rules import FOUND, Question, Statuses, answers
from enrichstatus.schema import COLUMNS, EXPLANATION, SCHEMA, STATUSES

#: Up to this many tasks are fetched through the index one by one; above, a scan of all records is cheaper.
FEW = 1000
#: So are, in a large store, up to one task for this many records; at a thousandth of them DuckDB itself leaves the index.
RECORDS_A_TASK = 1250


def answer(
    con: duckdb.DuckDBPyConnection, asker: pa.Table, tasks: int, names: Sequence[str], question: Question | None
) -> pa.Table:
    """Answer the query with some columns, over the records that can matter to the temporary table ``tasks``."""
    if tasks > FEW and tasks >= con.execute(_COUNT_SQL).fetchall()[0][0] // RECORDS_A_TASK:
        con.register("records", winners(con, asker["orgId"][0].as_py()))
        if question is None:
            con.register("asker", asker)
            return con.sql(DECIDED_SQL).select("position", *names).to_arrow_table()
        # with fields of the records' type: theirs would all be made text to be compared
        con.register("question", asker)
        con.execute(_ASKER_SQL)
        found = con.sql(CONTENDING_SQL).project(_SCANNED + _as_recorded(names)).to_arrow_table()
        statuses, recorded = found["status"].to_numpy(), list(STATUSES)
        if found["other"].null_count < len(found):
            others = found["other"].combine_chunks().dictionary_encode()
            recorded += others.dictionary.to_pylist()
            statuses = np.where(
                statuses < len(STATUSES), statuses, others.indices.fill_null(0).to_numpy() + len(STATUSES)
            )
        return _answered(found, found["position"], recorded, statuses, found["kind"].to_numpy(), question, names)
    con.register("asker", asker)
    probes = con.execute(_PROBES_SQL).fetchall()[0][0]
    con.execute(_FEW_SQL, {"probes": probes})
    # by way of a table: for so few rows DuckDB's binding of a relation would cost more than its answer
    return con.table("answer").to_arrow_table()


def winners(con: duckdb.DuckDBPyConnection, org_id: str) -> duckdb.DuckDBPyRelation:
    """Give the newest record of each key of an organization; named by a constant, no other's records are read where they lie apart."""
    own = duckdb.ColumnExpression("orgId") == duckdb.ConstantExpression(org_id)
    return con.table("enrichment_winners").filter(own)


def answer_at_once(
    con: duckdb.DuckDBPyConnection,
    fields: Sequence[str],
    tasks: pa.Table,
    names: Sequence[str],
    question: Question | None,
) -> pa.Table | None:
    """Answer few tasks, as they came, by one statement; None where that is for the query.

    It fetches the records that the index names, and the rules are applied beside it: planning the query takes four times as long.
    """
    if question is None or len(tasks) > FEW:
        return None
    if not len(tasks):
        return _NOTHING.select(["position", *names])
    keys = Vocabulary(fields).keys_of_table(tasks)
    if keys is None:
        return None
    field = keys.kind % len(fields)
    probes = (keys.high >> np.uint64(32)) ^ (keys.low & np.uint64(2**32 - 1)) ^ field.astype(np.uint64)
    text = _FETCH_SQL.replace("$more", _as_recorded(names))
    found = con.sql(text, params={"probes": np.unique(probes).tolist()}).to_arrow_table()
    found = found.filter(pc.and_not(pc.equal(found["orgId"], question.org_id), found["superseded"]))
    position, row = matched(keys, Keys(*(found[name].to_numpy() for name in ("high", "low", "kind"))))
    found = found.take(pa.array(row))
    statuses = found["status"].combine_chunks().dictionary_encode()
    recorded, codes = statuses.dictionary.to_pylist(), statuses.indices.to_numpy(zero_copy_only=False)
    return _answered(found, pa.array(position), recorded, codes, field[position], question, names)


def _as_recorded(names: Sequence[str]) -> str:
    """Give those of some columns that no rule has a say in, under names of their own."""
    return "".join(f", {name} as own{name}" for name in names if name in _RECORDED)


def _answered(
    found: pa.Table,
    position: pa.Array | pa.ChunkedArray,
    recorded: Sequence[str],
    statuses: Codes,
    field: Codes,
    question: Question,
    names: Sequence[str],
) -> pa.Table:
    """Apply the rules to records as they were found."""
    said = statuses.astype(np.int64) * len(FOUND) + found["found"].to_numpy()
    columns = answers(Statuses(recorded), said, found["created"].to_numpy(), field, question)
    made = {name: columns[name]() if name in columns else found["own" + name] for name in names}
    return pa.table({"position": position, **made})


_NOTHING = pa.schema([("position", pa.int64()), *SCHEMA, *EXPLANATION]).empty_table()
_RECORDED = frozenset(COLUMNS) - {"status", "dataFound"}
# rule 5: nothing is known of the data while the record itself is pending
_FOUND = "case when status = 'pending' or dataFound is null then 0 when dataFound then 2 else 1 end"
_KNOWN = " ".join(f"when '{word}' then {code}" for code, word in enumerate(STATUSES))
_SCANNED = f"""
position,
case status {_KNOWN} else {len(STATUSES)} end::utinyint as status,
case when status not in {STATUSES} then status end as other,
{_FOUND}::utinyint as found,
epoch_us(createdAt) as created,
enum_code(field) as kind
"""
_ASKER_SQL = """
create temp table asker as select question.* replace (question.field::enrichment_field as field) from question
"""
# Rows fetched by their index cost by the column, and so does planning. Nothing but the list may stand in the condition, or the optimizer
# leaves the index.
_FETCH_SQL = f"""
select
    (entityId::uhugeint >> 64)::ubigint as high,
    (entityId::uhugeint & 18446744073709551615)::ubigint as low,
    enum_code(entityType)::bigint * len(enum_range(null::enrichment_field)) + enum_code(field) as kind,
    orgId,
    superseded,
    status,
    {_FOUND}::bigint as found,
    epoch_us(createdAt) as created$more
from enrichments
where list_contains($probes::uinteger[], probe)
"""  # noqa: S608  of constants
_COUNT_SQL = "select count(*) from enrichments"
_PROBES_SQL = "select coalesce(list(distinct enrichment_probe(entityId, field)), []) from tasks"
# Materialized keeps the rest out of the condition.
_FEW_SQL = f"""
create temp table answer as
with fetched as materialized (
    select * from enrichments where list_contains($probes::uinteger[], probe)
), records as (
    select * from fetched where not superseded
), answer as ({DECIDED_SQL})
select * from answer
"""  # noqa: S608  of a constant
