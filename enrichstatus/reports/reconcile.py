"""The bill beside the records: what was charged and recorded, and where the two differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from enrichstatus.errors import ValidationError
from enrichstatus.files.scratch import scratch
from enrichstatus.frames import frames
from enrichstatus.lookup.arguments import Instant, choice, parse_period
from enrichstatus.lookup.query import asker
from enrichstatus.lookup.tasks import to_pandas
from enrichstatus.presentation import credits_of, many, number, of_unknown_status
from enrichstatus.reports.groups import By, parse_by, segment
from enrichstatus.reports.report import Report
from enrichstatus.reports.timing import PERIODS, STATES_SQL, limits_of, no_records_of, period
from enrichstatus.schema import INSTANT, KEY, columns_listed, find, instant_text, listed

if TYPE_CHECKING:
    from enrichstatus.sources.store.store import EnrichmentStore

_LINES_SQL = Path(__file__).with_name("bill.sql").read_text(encoding="utf-8")
RECONCILE_SQL = Path(__file__).with_name("reconcile.sql").read_text(encoding="utf-8")

#: What a purchase is found to be; the first three are wrong.
FINDINGS = ("charged twice", "no record", "no charge", "no data", "unknown status", "refunded", "charged")
WRONG = FINDINGS[:3]
_SUMS = ("credits", "refunded", "in question")
#: The columns of a bill, of which the first two are needed.
_BILL = ("creditTransactionId", "credits", "createdAt", "field", "entityId", "orgId")
_GROUPS = (*PERIODS, "field", "entityType", "createdBy", "status")
#: The columns of a purchase in the details.
_PURCHASE = ["creditTransactionId", *KEY, "createdBy", "createdAt", "status", "finding", *_SUMS]
#: What decides stands first: a page or a terminal may be narrow.
_COLUMNS = ("purchases", "credits", "in question", *FINDINGS, "credits refunded")


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
    sheet: str | None = None,
) -> Report:
    """Report where a bill and the records differ: what was charged and recorded, without a record, without a charge, twice, for no data.

    Parameters
    ----------
    store : EnrichmentStore
        Where the records are; those that carry a ``creditTransactionId`` were bought.
    bill : DataFrame, Arrow table, DuckDB relation, list of dicts or path
        A line for each charge, with ``creditTransactionId`` and ``credits`` (below zero for a refund), and with ``createdAt``, ``field``,
        ``entityId`` and ``orgId`` where it has them. Lines of other organizations are left out.
    columns : mapping, optional
        Columns under other names, ``{"amount": "credits", "transaction": "creditTransactionId"}``.
    by : str, sequence of str or None
        ``day``, ``week`` (its Monday) or ``month`` of the charge in UTC (of the record where the bill has no ``createdAt``), ``field``,
        ``entityType``, ``createdBy`` or ``status``; None for all in one row.
    since, until : datetime or str, optional
        The period of the bill: what was charged, or recorded without a charge, outside it is left out; a date lasts until the end of
        its day. Unless given, from the first line's ``createdAt`` to the last's; without a beginning where all have the same date.
    decimal : {".", ","}
        What stands before the decimals of amounts that are text.
    org_id : str, optional
        Whose records; the store's unless given.
    now : datetime or str, optional
        The instant at which the timeout rule is evaluated (without a zone: UTC); the clock's unless given.
    encoding, skip, multiline, sheet
        As for `tasks_from_leads`, where the bill is a file.

    Returns
    -------
    Report
        ``.frame`` has the columns of `by`, and for each group the ``purchases``, the net ``credits``, those ``in question``, and how
        many purchases were ``charged twice``, charged with ``no record``, recorded with ``no charge`` (these three are wrong), charged for
        ``no data`` (failures and timeouts among them) or with an ``unknown status``, ``refunded`` in full, and ``charged`` once and
        recorded; then the ``credits refunded``. ``.details["purchases"]`` has a row for each purchase with its ``finding``.

        One line for each record of a transaction, or one line for all of them, is right; where each line of a transaction names a
        ``field`` or an ``entityId``, this holds for each of these. Of more lines than records those beyond their number are in question,
        and of fewer lines (but more than one) those that repeat an amount; of equal lines the first is right. All lines decide
        that, whatever the period, and what was given back is deducted. A purchase that is charged in two groups is counted in both, with
        the credits of each. Where several records share a line, each bears its part.

    Raises
    ------
    ValidationError
        No organization, or one without a record beside others; a column of the bill is missing, an amount or an instant in it is none
        (all are in ``.problems``), or another argument is unusable.
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
    field   purchases  credits  in question  charged twice
    phones          1       20           10              1
    """
    names, limits = parse_by(by), limits_of(store)
    if strange := [name for name in names if name not in _GROUPS]:
        raise ValidationError(f"takes {listed(_GROUPS)}; not {listed(strange)}.", argument="by")
    choice("decimal", decimal, (".", ","))
    begin, end = parse_period(since, until)
    question = asker(store.org_id if org_id is None else org_id, limits, now)
    whose = question["orgId"][0].as_py()
    lines = _lines(bill, columns, encoding=encoding, skip=skip, multiline=multiline, sheet=sheet)
    needed = (*KEY, "createdAt", "updatedAt", "status", "dataFound", "createdBy", "creditTransactionId")
    history = store.records(needed, org_id=org_id)
    if not len(history) and (message := no_records_of(store, whose)):
        raise ValidationError(message)
    with scratch() as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute(_BY_VALUE_SQL)
        _read_bill(con, lines, decimal, whose, tuple(limits))
        con.register("asker", question.drop_columns(["orgId"]))
        con.register("records", history.append_column("segment", pa.array(np.zeros(len(history), np.int64))))
        con.execute(_HISTORY_SQL)
        con.execute("create temp table states as " + STATES_SQL)
        (day, count, first, last, unmarked), *_ = con.execute(_EXTENT_SQL).fetchall()
        con.execute(_PERIOD_SQL, [begin or first, end or last])
        entries = con.sql(RECONCILE_SQL, params={"unit": _unit(names)}).to_arrow_table()
    billed = _Bill(count, len(lines) - count, unmarked, None if begin else day)
    return _report(entries, names, billed)


def _unit(names: tuple[str, ...]) -> str:
    """Give the longest time within which nothing is told apart: each record of a transaction has a row for each."""
    units = [name for name in PERIODS if name in names]
    if not units:
        return "millennium"
    return units[0] if len(units) == 1 else "day"  # a week may lie in two months


class _Bill(NamedTuple):
    """What the headline says beyond the table."""

    lines: int
    strangers: int
    unmarked: int
    #: the one date that all lines have, where that leaves open when the period began
    day: str | None


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
    if twice := [name for name in renames if list(frame.columns).count(name) > 1]:
        raise ValidationError(
            f"renames {listed(twice)}, which the bill has more than once: give each column a name of its own.",
            argument="columns",
        )
    free = [name for name in frame.columns if name not in renames]
    names = find(free, [name for name in _BILL if name not in renames.values()])
    names |= {ours: theirs for theirs, ours in renames.items()}
    nothing = frame.objects and not len(frame)
    if (missing := [name for name in _BILL[:2] if name not in names]) and not nothing:
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


def _read_bill(
    con: duckdb.DuckDBPyConnection, lines: pa.Table, decimal: str, org_id: str, fields: tuple[str, ...]
) -> None:
    """Make the table ``bill`` of the organization's lines."""
    con.register("given", lines)
    types = dict(zip(lines.column_names, map(str, con.table("given").types), strict=True))
    amount = r"(\()?([+-]?)([0-9]+|[0-9]{1,3}(?:%s[0-9]{3})+)?((?:%s[0-9]+)?)(-?)(\))?" % (
        (",", r"\.") if decimal == "." else (r"\.", ",")
    )
    at = types["createdAt"] == "VARCHAR"
    instant = instant_text("createdAt", f"'{INSTANT}'")
    read = f"case when regexp_full_match(createdAt, '{INSTANT}') then try_cast({instant} as timestamptz) end"
    sql = _LINES_SQL.replace("$instant", read if at else "try_cast(createdAt as timestamptz)")
    sql = sql.replace("$isDate", _DATE_SQL if at else _MIDNIGHT_SQL)
    values = {"org": org_id, "fields": list(fields), "text": types["credits"] == "VARCHAR", "amount": amount}
    separators = {"decimal": decimal, "grouping": "," if decimal == "." else "."}
    con.execute("create temp table lines as " + sql, values | separators)
    if len(problems := to_pandas(con.sql(_PROBLEMS_SQL))):
        other, example = (",", "1.234,50") if decimal == "." else (".", "1,234.50")
        amounts = ("decimal", other, f"read amounts such as {example}")
        instead = amounts if (problems["reason"] == "is not an amount").any() else None
        raise ValidationError.of_rows("lines", problems, instead=instead)
    con.execute(_BILL_SQL)


def _report(entries: pa.Table, names: tuple[str, ...], bill: _Bill) -> Report:
    keys = {name: period(entries["createdAt"], name) if name in PERIODS else entries[name] for name in names}
    segments = segment(pa.table(keys), len(entries), reserved=_COLUMNS)
    parts = entries.to_pandas()
    found = _found(parts, segments.code)
    code = found["segment"].to_numpy()
    finding = pd.Categorical(found["finding"], categories=FINDINGS).codes.astype(np.int64)
    shape = (len(segments), len(FINDINGS))
    table = np.bincount(code * len(FINDINGS) + finding, minlength=shape[0] * shape[1]).reshape(shape)
    counts = pd.DataFrame(table, columns=list(FINDINGS)).astype(np.int64)
    counts.insert(0, "purchases", np.bincount(code, minlength=len(segments)).astype(np.int64))
    for ours, theirs in zip(("credits", "credits refunded", "in question"), _SUMS, strict=True):
        counts[ours] = np.bincount(code, found[theirs], len(segments)).astype(np.float64)
    whole = pd.concat([counts, _drawn(found, len(segments))], axis=1)
    report = segments.report(whole, "purchases")
    purchases = _found(parts, np.zeros(len(parts), np.int64))[_PURCHASE]
    total = purchases["finding"].value_counts().reindex(list(FINDINGS), fill_value=0)
    units = dict.fromkeys(FINDINGS, "if any")
    units |= {"credits": "credits", "in question": "credits", "credits refunded": "credits if any"}
    details = {
        "wrong": int(total[list(WRONG)].sum()),
        "credits": report[[f"paid {name}" for name in _DRAWN]].set_axis(list(_DRAWN), axis=1),
        "purchases": purchases,
    }
    return Report(report[[*names, *_COLUMNS]], _headline(purchases, total, bill), "reconcile", names, units, details)


def _found(entries: pd.DataFrame, code: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Give the finding and the sums of each purchase in each segment, in which it may have several entries."""
    rows = entries.assign(segment=code).groupby(["segment", "purchase"], sort=False, dropna=False)
    sums = rows[list(_SUMS)].sum()
    first = entries.loc[rows.head(1).index].drop(columns=list(_SUMS)).set_axis(sums.index)
    found = pd.concat([first.drop(columns="purchase").rename(columns={"finding": "base"}), sums], axis=1).reset_index()
    twice = (found["in question"] > 0) & (found["base"] != "no record")
    return found.assign(finding=found["base"].mask(twice, "charged twice"))


#: What a picture draws of each group: credits charged by finding, those given back below zero, and the number that was not charged.
_DRAWN = (*(name for name in FINDINGS if name != "no charge"), "given back", "no charge")


def _drawn(found: pd.DataFrame, groups: int) -> pd.DataFrame:
    """Sum the credits by what they were charged for: of what was charged twice, the second charge alone is in question."""
    code, base, question = found["segment"], found["base"], found["in question"]
    right = found["credits"] + found["refunded"] - question
    strange = base == "no record"
    sums = {
        **{name: right.where(base == name, 0) for name in ("no data", "unknown status", "charged")},
        # what was charged without a record is in question, but for what was given back
        "refunded": right.where((base == "refunded") | strange, 0),
        "charged twice": question.mask(strange, 0),
        "no record": question.where(strange, 0),
        "given back": -found["refunded"],
        "no charge": (base == "no charge").astype(float),
    }
    return pd.DataFrame({f"paid {name}": np.bincount(code, sums[name], groups).astype(float) for name in _DRAWN})


def _headline(purchases: pd.DataFrame, total: pd.Series[int], bill: _Bill) -> str:
    net, question = (round(float(purchases[name].sum()), 6) for name in ("credits", "in question"))
    backs = int(((purchases["finding"] == "no record") & (purchases["credits"] <= 0)).sum())
    counts = {
        "charged twice": int(total["charged twice"]),
        "charged without a record": int(total["no record"]) - backs,
        "given back without a record": backs,
        "recorded without a charge": int(total["no charge"]),
    }
    found = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    what = many(len(purchases), "purchase")
    empty = None
    if not bill.lines:
        none = f"None of the bill's {many(bill.strangers, 'line')} is of this organization"
        empty = none if bill.strangers else "The bill is empty"
    elif total["no charge"] == len(purchases):
        empty = "No line of the bill lies within the period"
    if empty:
        head = f"{empty}: {found}" if found else empty
    elif question:
        whole = f"{number(question)} of {credits_of(net)}" if net >= question else credits_of(question)
        back = float(purchases["refunded"].sum())
        less = f" ({number(net + back)} charged, {number(back)} given back)" if net < question else ""
        head = f"{whole} in question{less}: of {what} {found}"
    elif found:
        head = f"{credits_of(net)}, none of them in question: of {what} {found}"
    elif total["refunded"] == len(purchases):
        head = f"{credits_of(net)} for {what}"
    else:
        head = f"{credits_of(net)} for {what}, each charged once and recorded"
    more = [f"{int(total['no data']):,} charged for no data"] if total["no data"] else []
    strange = purchases.loc[purchases["finding"] == "unknown status", "status"].value_counts()
    more += [of_unknown_status(dict(strange))] if len(strange) else []
    more += [f"{int(total['refunded']):,} refunded"] if total["refunded"] else []
    if bill.day and total["no charge"]:
        more.append(
            f"all lines have the one date {bill.day}, so all records before it count: since= (--since) says from when on"
        )
    if bill.strangers and bill.lines:
        more.append(f"{many(bill.strangers, 'line')} of other organizations left out")
    more += [f"{many(bill.unmarked, 'record')} without a creditTransactionId left out"] if bill.unmarked else []
    return "; ".join([head, *more])


# UUIDs have several spellings
_BY_VALUE_SQL = "create temp macro by_value(id) as coalesce(try_cast(id as uuid)::varchar, id)"

_HISTORY_SQL = r"""
create temp table history as
select *, by_value(creditTransactionId) as transaction
from (
    select * replace (nullif(regexp_replace(creditTransactionId, '^[\s\pZ]+|[\s\pZ]+$', '', 'g'), '') as creditTransactionId)
    from records
)
"""

# where all lines have one date it is the bill's own, which does not say when the period began
_EXTENT_SQL = """
select
    case when bool_and(isDate or createdAt is null) and min(createdAt) = max(createdAt) then min(createdAt)::date::varchar end as day,
    count(*),
    case when day is null then min(createdAt) end::varchar,
    max(ends)::varchar,
    (select count(*) from history where transaction is null)
from bill
"""

_PERIOD_SQL = "create temp table period as select ?::timestamptz as since, ?::timestamptz as until"

# of text a line shows whether it has a time; of instants the whole column
_DATE_SQL = "length(trim(createdAt)) = 10"
_MIDNIGHT_SQL = "bool_and(date_trunc('day', castCreatedAt) = castCreatedAt) over ()"

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

_BILL_SQL = "create temp view bill as select * replace (castCredits as credits, castCreatedAt as createdAt) from lines where isOurs"
