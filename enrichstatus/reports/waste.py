"""What the money bought: what was paid for twice, for nothing, or came too late."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from enrichstatus.files.scratch import scratch
from enrichstatus.leads.prices import parse_costs, prices_of
from enrichstatus.lookup.arguments import Instant
from enrichstatus.lookup.query import timing_out
from enrichstatus.lookup.tasks import to_pandas
from enrichstatus.outcomes import OUTCOMES
from enrichstatus.presentation import number, of_unknown_status, share
from enrichstatus.reports.groups import By, parse_by
from enrichstatus.reports.report import Report
from enrichstatus.reports.timing import STATES_SQL, limits_of, read_history
from enrichstatus.schema import ENTITY_TYPES, KEY
from enrichstatus.sources.store.store import EnrichmentStore

WASTE_SQL = Path(__file__).with_name("waste.sql").read_text(encoding="utf-8")

#: After these a task had to be bought again.
_FAILED = [word for word, outcome in OUTCOMES.items() if outcome.failed]
_UNKNOWN = OUTCOMES["unknown"].label
_WASTE = ("bought", "spent", "retried", "bought again", "nothing", _UNKNOWN, "late", "wasted", "share wasted")
_STRANGE_SQL = "select status, count(*) from states where strange group by status order by count(*) desc, status"


def waste(
    store: EnrichmentStore,
    by: By = "week",
    *,
    costs: Mapping[Any, float] | None = None,
    org_id: str | None = None,
    now: Instant = None,
    as_of: Instant = None,
) -> Report:
    """Report what the money bought: tasks bought more than once, credits spent on nothing, answers that came too late.

    Parameters
    ----------
    store : EnrichmentStore
        Where the records are.
    by : str, sequence of str or None
        ``day``, ``week`` (its Monday) or ``month`` of ``createdAt`` in UTC, ``createdBy`` (who triggered) or any other columns of a
        record; None for all in one row.
    costs : mapping, optional
        Credits for one task of a field, ``{"emails": 1, ("phones", "company"): 10}``, with a type of entity or for both, as for `plan`;
        what is not named costs nothing. Unless given, purchases are counted instead of credits: there is no ``spent`` then, and
        ``wasted`` is how many were.
    org_id : str, optional
        Whose records; the store's unless given.
    now : datetime or str, optional
        The instant at which the timeout rule is evaluated (without a zone: UTC); `as_of` or the clock's unless given.
    as_of : datetime or str, optional
        Report from the records as a store knew them at this instant.

    Returns
    -------
    Report
        ``.frame`` has the columns of `by`, and for each group the records ``bought`` (those that carry a ``creditTransactionId``; all,
        where none does), the credits ``spent`` on them, how many of them were ``retried`` (after a failure or timeout that brought
        nothing, as was needed) or ``bought again`` (the same task had been bought before, and that had not failed), how many ended
        with ``nothing`` (no data, failures and timeouts among them), how many have an ``unknown status`` (where any has: it is not known
        what these brought, so they are not wasted), how many brought data ``late`` (after the store's maximum
        processing time), the credits ``wasted`` on what was bought again or for nothing, and their share.

    Raises
    ------
    ValidationError
        No organization, a price for an unknown field or that is not an amount, or another argument that is unusable.
    StoreError
        The store is closed, or its file cannot be read.

    Examples
    --------
    >>> import enrichstatus as es
    >>> store = es.EnrichmentStore(org_id="org_1")
    >>> lead = {"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "phones", "status": "finished"}
    >>> _ = store.load([
    ...     {**lead, "createdAt": "2026-11-16T08:00:00Z", "dataFound": True, "creditTransactionId": "t1"},
    ...     {**lead, "createdAt": "2026-11-17T08:00:00Z", "dataFound": True, "creditTransactionId": "t2"},
    ... ])
    >>> es.waste(store, costs={"phones": 10})
    10 of 20 credits wasted (50.0 %): 1 of 2 bought again, 0 brought nothing; 0 came late
    week        bought  spent  retried  bought again  nothing  late  wasted  share wasted
    2026-11-16       2     20        0             1        0     0      10        50.0 %
    """
    names, limits = parse_by(by), limits_of(store)
    prices = dict.fromkeys(limits, 1.0) if costs is None else parse_costs(costs, tuple(limits), types=ENTITY_TYPES)
    needed = (*KEY, "id", "createdAt", "updatedAt", "status", "dataFound", "creditTransactionId")
    table, segments = read_history(store, names, needed, org_id, reserved=_WASTE, bought=True, as_of=as_of)
    unpaid = table.num_rows > 0 and table["creditTransactionId"].null_count == table.num_rows
    with scratch() as con:
        con.register("asker", timing_out(limits, as_of if now is None else now))
        con.register("history", table.append_column("price", pa.array(prices_of(table, prices))))
        con.execute("create temp table states as " + STATES_SQL)
        counts = to_pandas(con.sql(WASTE_SQL, params={"failed": _FAILED}))
        strange = dict(con.execute(_STRANGE_SQL).fetchall())
    counts["share wasted"] = counts["wasted"] / counts["spent"].where(counts["spent"] > 0)
    report = segments.report(counts, "bought")
    what = "purchases" if costs is None else "credits"
    headline = _wasted(counts, what) if len(counts) else "Nothing was bought"
    if unpaid:
        headline += " (no record has a creditTransactionId, so all count as bought)"
    if strange:
        headline += f"; {of_unknown_status(strange)}"
    absent = {"spent": costs is None, _UNKNOWN: not strange}
    columns = [name for name in _WASTE if not absent.get(name)]
    units = {name: what for name in ("spent", "wasted") if name in columns} | {"share wasted": "share"}
    parts = report[["useful", "open", *(["unknown"] if strange else []), "for nothing", "again"]]
    details = {"what": what, "credits": parts}
    return Report(report[[*names, *columns]], headline, "waste", names, units, details)


def _wasted(counts: pd.DataFrame, what: str) -> str:
    total = counts.drop(columns="segment").sum()
    part = f" ({share(total['wasted'] / total['spent'])})" if total["spent"] else ""
    retried = f", {total['retried']:,.0f} retried after a failure" if total["retried"] else ""
    return (
        f"{number(total['wasted'])} of {number(total['spent'])} {what} wasted{part}: {total['bought again']:,.0f} of "
        f"{total['bought']:,.0f} bought again, {total['nothing']:,.0f} brought nothing; {total['late']:,.0f} came late{retried}"
    )
