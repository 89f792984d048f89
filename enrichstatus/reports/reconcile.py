"""The bill beside the records: what was charged and recorded, and where the two differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from enrichstatus import frames
from enrichstatus.errors import ValidationError
from enrichstatus.lookup.arguments import Instant, choice, parse_instant
from enrichstatus.lookup.query import asker
from enrichstatus.lookup.tasks import to_pandas
from enrichstatus.presentation import many, number
from enrichstatus.reports.groups import By, parse_by, segment
from enrichstatus.reports.report import Report
from enrichstatus.reports.timing import PERIODS, STATES_SQL, limits_of, period
from enrichstatus.schema import INSTANT, KEY, columns_listed, find, instant_text, listed

if TYPE_CHECKING:
    from enrichstatus.sources.store.store import EnrichmentStore

RECONCILE_SQL = Path(__file__).with_name("reconcile.sql").read_text(encoding="utf-8")

#: What a purchase is found to be; the first three are as they should be.
FINDINGS = ("charged", "no data", "refunded", "charged twice", "no record", "no charge")
WRONG = ("charged twice", "no record", "no charge")
_SUMS = ("credits", "refunded", "in question")
#: The columns of a bill, of which the first two are needed.
_BILL = ("creditTransactionId", "credits", "createdAt", "field", "orgId")
_GROUPS = (*PERIODS, "field", "entityType", "createdBy", "status")
_COLUMNS = ("purchases", *FINDINGS, "credits", "credits refunded", "in question")


def reconcile(
    store: EnrichmentStore,
    bill: Any,
    *,
    columns: Mapping[str, str] | None = None,
    by: By = ("week", "field"),
    since: Instant = None,
    until: Instant = None,
    decimal: Literal[".", ","] = ".",
    org_id: str | None = None,
    now: Instant = None,
    encoding: str | None = None,
    skip: int = 0,
    multiline: bool = False,
) -> Report:
    """Report where a bill and the records differ: what was charged and recorded, without a record, without a charge, twice, for no data.

    Parameters
    ----------
    store : EnrichmentStore
        Where the records are; those that carry a ``creditTransactionId`` were bought.
    bill : DataFrame, Arrow table, DuckDB relation, list of dicts or path
        A line for each charge, with ``creditTransactionId`` and ``credits`` (below zero for a refund), and with ``createdAt``, ``field``
        and ``orgId`` where it has them. Lines of other organizations are left out.
    columns : mapping, optional
        Columns under other names, ``{"amount": "credits", "transaction": "creditTransactionId"}``.
    by : str, sequence of str or None
        ``day``, ``week`` (its Monday) or ``month`` of the charge in UTC (of the record where the bill has no ``createdAt``), ``field``,
        ``entityType``, ``createdBy`` or ``status``; None for all in one row.
    since, until : datetime or str, optional
        The period of the bill: what was charged, or recorded without a charge, before or after it is left out. Unless given, it is from
        the first line's ``createdAt`` to the last's.
    decimal : {".", ","}
        What stands before the decimals of amounts that are text.
    org_id : str, optional
        Whose records; the store's unless given.
    now : datetime or str, optional
        The instant at which the timeout rule is evaluated (without a zone: UTC); the clock's unless given.
    encoding, skip, multiline
        As for `tasks_from_leads`, where the bill is a file.

    Returns
    -------
    Report
        ``.frame`` has the columns of `by`, and for each group the ``purchases``: those ``charged`` once and recorded, for ``no data``
        (failures and timeouts among them), ``refunded`` in full, ``charged twice``, charged with ``no record``, and recorded with
        ``no charge``; the net ``credits``, the ``credits refunded``, and those ``in question``, charged without a record or beyond one
        charge. Where several records share a transaction, each bears its part. ``.details["purchases"]`` has a row for each
        purchase with its ``finding``, and ``.details["wrong"]`` counts the last three.

    Raises
    ------
    ValidationError
        No organization, a column of the bill is missing, an amount or an instant in it is none (all are in ``.problems``), or
        another argument that is unusable.
    StoreError
        The store is closed, or its file cannot be read.

    Examples
    --------
    >>> import enrichstatus as es
    >>> store = es.EnrichmentStore(org_id="org_1")
    >>> lead = {"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "status": "finished", "dataFound": True}
    >>> _ = store.load([{**lead, "field": "phones", "createdAt": "2026-11-16T08:00:00Z", "creditTransactionId": "t1"}])
    >>> bill = [{"creditTransactionId": "t1", "credits": 10}, {"creditTransactionId": "t1", "credits": 10}]
    >>> es.reconcile(store, bill, by="field")
    10 of 20 credits in question: of 1 purchase 1 charged twice
    field   purchases  charged  no data  refunded  charged twice  no record  no charge  credits  credits refunded  in question
    phones          1        0        0         0              1          0          0       20                 0           10
    """
    names, limits = parse_by(by), limits_of(store)
    if strange := [name for name in names if name not in _GROUPS]:
        raise ValidationError(f"takes {listed(_GROUPS)}; not {listed(strange)}.", argument="by")
    choice("decimal", decimal, (".", ","))
    given = [
        None if moment is None else parse_instant(moment, name) for name, moment in (("since", since), ("until", until))
    ]
    question = asker(store.org_id if org_id is None else org_id, limits, now)
    whose = question["orgId"][0].as_py()
    lines = _lines(bill, columns, encoding=encoding, skip=skip, multiline=multiline)
    needed = (*KEY, "createdAt", "updatedAt", "status", "dataFound", "createdBy", "creditTransactionId")
    history = store.records(needed, org_id=org_id)
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        strangers = _read_bill(con, lines, decimal, whose)
        con.register("asker", question.drop_columns(["orgId"]))
        con.register("records", history.append_column("segment", pa.array(np.zeros(len(history), np.int64))))
        con.execute(_HISTORY_SQL)
        con.execute("create temp table states as " + STATES_SQL)
        begin, end = con.execute(_FIRST_AND_LAST_SQL).fetchall()[0]
        con.execute(_PERIOD_SQL, [given[0] or begin, given[1] or end])
        purchases = con.sql(RECONCILE_SQL).to_arrow_table()
        (count,) = con.execute("select count(*) from bill").fetchall()[0]
    return _report(purchases, names, count, strangers, history.num_rows - _marked(history))


def _marked(history: pa.Table) -> int:
    """Count the records that carry a transaction."""
    texts = history["creditTransactionId"].to_pandas()
    return int((texts.fillna("").str.strip() != "").sum())


def _lines(bill: Any, columns: Mapping[str, str] | None, **how: Any) -> pa.Table:
    """Read the columns of a bill, as they are."""
    frame = frames.read(bill, **how)
    if not isinstance(columns, Mapping | None) or not all(isinstance(name, str) for name in (columns or {}).values()):
        raise ValidationError('takes a mapping, {"theirs": "ours"}.', argument="columns")
    renames = dict(columns or {})
    if absent := [name for name in renames if name not in frame.columns]:
        raise ValidationError(
            f"renames {listed(absent)}, but the bill has {listed(frame.columns)}.", argument="columns"
        )
    if strange := [name for name in renames.values() if name not in _BILL]:
        raise ValidationError(
            f"renames to {listed(strange)}, but the names to give are {listed(_BILL)}.", argument="columns"
        )
    free = [name for name in frame.columns if name not in renames]
    names = find(free, [name for name in _BILL if name not in renames.values()])
    names |= {ours: theirs for theirs, ours in renames.items()}
    nothing = frame.objects and not len(frame)
    missing = [name for name in _BILL[:2] if name not in names]
    if missing and not nothing:
        raise ValidationError(
            f"The bill needs {columns_listed(missing)}; found {listed(frame.columns)}.",
            instead=("columns", {"theirs": missing[0]}, "read it under another name"),
        )
    table = frame.arrow([] if nothing else list(names.values())).rename_columns([] if nothing else list(names))
    absent_columns = {name: pa.nulls(len(frame), pa.string()) for name in _BILL if name not in table.column_names}
    found = {name: table[name] for name in table.column_names} | absent_columns
    return pa.table({"line": np.arange(len(frame)), **{name: _plain(found[name], name) for name in _BILL}})


def _plain(column: Any, name: str) -> Any:
    """Give texts, and numbers and instants as what they are; an id that was read as a float is a whole number."""
    column = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type), name)
    if name == "creditTransactionId" and pa.types.is_floating(kind):
        try:
            return column.cast(pa.int64()).cast(pa.string())
        except pa.ArrowException as error:
            raise ValidationError(f"The column of creditTransactionId holds {kind}: make text of it.") from error
    if name in ("credits", "createdAt") and (pa.types.is_boolean(kind) or pa.types.is_nested(kind)):
        raise ValidationError(f"The column of {name} holds {kind}, which is neither a number nor text.")
    return column


def _read_bill(con: duckdb.DuckDBPyConnection, lines: pa.Table, decimal: str, org_id: str) -> int:
    """Make the table ``bill`` of the lines; says how many are other organizations'."""
    con.register("given", lines)
    types = dict(zip(lines.column_names, map(str, con.table("given").types), strict=True))
    amount = r"(\()?([+-]?)([0-9]+|[0-9]{1,3}(?:%s[0-9]{3})+)?((?:%s[0-9]+)?)(-?)(\))?" % (
        (",", r"\.") if decimal == "." else (r"\.", ",")
    )
    text = types["credits"] == "VARCHAR"
    at = types["createdAt"] == "VARCHAR"
    instant = instant_text("createdAt", f"'{INSTANT}'")
    con.execute(
        _LINES_SQL.replace("$number", _NUMBER_SQL if text else "try_cast(credits as decimal(27, 6))").replace(
            "$instant",
            f"case when regexp_full_match(createdAt, '{INSTANT}') then try_cast({instant} as timestamptz) end"
            if at
            else "try_cast(createdAt as timestamptz)",
        ),
        {"amount": amount, "decimal": decimal, "grouping": "," if decimal == "." else "."} if text else {},
    )
    problems = to_pandas(con.sql(_PROBLEMS_SQL))
    if len(problems):
        other, example = (",", "1.234,50") if decimal == "." else (".", "1,234.50")
        amounts = ("decimal", other, f"read amounts such as {example}")
        raise ValidationError.of_rows(
            "lines", problems, instead=amounts if (problems["column"] == "credits").any() else None
        )
    con.execute(_BILL_SQL, {"org": org_id})
    (ours,) = con.execute("select count(*) from bill").fetchall()[0]
    return len(lines) - int(ours)


def _report(purchases: pa.Table, names: tuple[str, ...], lines: int, strangers: int, unmarked: int) -> Report:
    keys = {name: period(purchases["createdAt"], name) if name in PERIODS else purchases[name] for name in names}
    segments = segment(pa.table(keys), len(purchases), reserved=_COLUMNS)
    finding = pd.Categorical(purchases["finding"].to_pandas(), categories=FINDINGS).codes.astype(np.int64)
    places = segments.code * len(FINDINGS) + finding
    table = np.bincount(places, minlength=len(segments) * len(FINDINGS)).reshape(-1, len(FINDINGS))
    counts = pd.DataFrame(table, columns=list(FINDINGS)).astype(np.int64)
    counts.insert(0, "purchases", segments.count())
    for ours, theirs in zip(_COLUMNS[-3:], _SUMS, strict=True):
        counts[ours] = np.bincount(segments.code, purchases[theirs].to_numpy(), len(segments)).astype(np.float64)
    amounts = np.bincount(places, purchases["credits"].to_numpy(), len(segments) * len(FINDINGS)).reshape(
        -1, len(FINDINGS)
    )
    whole = pd.concat([counts, pd.DataFrame(amounts, columns=[f"paid {name}" for name in FINDINGS])], axis=1)
    report = segments.report(whole, "purchases")
    wrong = int(counts[list(WRONG)].sum().sum())
    units = dict.fromkeys(_COLUMNS[-3:], "credits")
    details = {
        "wrong": wrong,
        "credits": report[[f"paid {name}" for name in FINDINGS]].set_axis(list(FINDINGS), axis=1),
        "purchases": purchases.to_pandas(),
    }
    headline = _headline(counts.sum(), lines, strangers, unmarked)
    return Report(report[[*names, *_COLUMNS]], headline, "reconcile", names, units, details)


def _headline(total: pd.Series[Any], lines: int, strangers: int, unmarked: int) -> str:
    purchases = int(total["purchases"]) if len(total) else 0
    said = {
        "charged twice": "charged twice",
        "no record": "charged without a record",
        "no charge": "recorded without a charge",
    }
    found = [f"{int(total[name]):,} {text}" for name, text in said.items() if purchases and total[name]]
    head = f"{number(total['credits'] if purchases else 0)} credits"
    if not lines:
        head = "The bill is empty" + (f": {', '.join(found)}" if found else "")
    elif found:
        head = (
            f"{number(total['in question'])} of {head} in question: of {many(purchases, 'purchase')} {', '.join(found)}"
        )
    else:
        head += f" for {many(purchases, 'purchase')}, each charged once and recorded"
    more = [f"{int(total['no data']):,} charged for no data"] if purchases and total["no data"] else []
    more += [f"{int(total['refunded']):,} refunded"] if purchases and total["refunded"] else []
    more += [f"{many(strangers, 'line')} of other organizations left out"] if strangers else []
    more += [f"{many(unmarked, 'record')} without a creditTransactionId left out"] if unmarked else []
    return "; ".join([head, *more])


_HISTORY_SQL = r"""
create temp table history as
select * replace (nullif(regexp_replace(creditTransactionId, '^[\s\pZ]+|[\s\pZ]+$', '', 'g'), '') as creditTransactionId)
from records
"""

_FIRST_AND_LAST_SQL = """
select min(createdAt)::varchar, (max(createdAt) + interval 1 microsecond)::varchar from bill
"""

_PERIOD_SQL = "create temp table period as select ?::timestamptz as since, ?::timestamptz as until"

# currency, white space and apostrophes between thousands are no part of a number; a refund may stand in brackets, or its minus behind it
_NUMBER_SQL = r"""
case when regexp_full_match(bare, $amount) and regexp_matches(bare, '[0-9]') then
    try_cast(replace(replace(regexp_extract(bare, '[0-9.,]+'), $grouping, ''), $decimal, '.') as decimal(27, 6))
    * case when bare like '%-%' or bare like '(%' then -1 else 1 end
end
"""

_LINES_SQL = r"""
create temp table lines as
with spelled as (
    select
        given.*,
        regexp_replace(
            regexp_replace(given.credits::varchar, '\x{2212}', '-'),
            '^\s*[A-Z]{3}\b|\b([A-Z]{3}|(?i:credits?))\s*$|[\s\pZ\p{Sc}''\x{2019}]',
            '',
            'g'
        ) as bare
    from given
)

select
    line,
    nullif(trim(orgId::varchar), '') as orgId,
    nullif(regexp_replace(creditTransactionId::varchar, '^[\s\pZ]+|[\s\pZ]+$', '', 'g'), '') as creditTransactionId,
    nullif(trim(field::varchar), '') as field,
    credits::varchar as credits,
    nullif(trim(createdAt::varchar), '') as createdAt,
    ($number)::decimal(27, 6) as castCredits,
    $instant as castCreatedAt
from spelled
"""

_PROBLEMS_SQL = """
select
    line as "row",
    'credits' as "column",
    coalesce(credits, '') as "value",
    case when credits is null or trim(credits) = '' then 'is missing' else 'is not an amount' end as reason
from lines
where castCredits is null
union all
select line, 'createdAt', createdAt, 'is not an instant such as 2025-01-13T10:30:00Z'
from lines
where castCreatedAt is null and createdAt is not null
order by "row"
"""

_BILL_SQL = """
create temp table bill as
select line, creditTransactionId, castCredits as credits, castCreatedAt as createdAt, field
from lines
where coalesce(orgId, $org) = $org
"""
