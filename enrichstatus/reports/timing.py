"""What the records of an organization tell of the past: how long enrichments took, and what the money bought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.errors import ValidationError
from enrichstatus.leads.prices import parse_costs
from enrichstatus.lookup.arguments import Instant
from enrichstatus.lookup.query import timing_out
from enrichstatus.lookup.tasks import to_pandas
from enrichstatus.presentation import number
from enrichstatus.reports.groups import By, Segments, parse_by, segment
from enrichstatus.reports.report import Report
from enrichstatus.schema import COLUMNS, KEY, listed
from enrichstatus.survival import SURVIVAL_SQL

if TYPE_CHECKING:
    from datetime import timedelta

    from enrichstatus.sources.store.store import EnrichmentStore

JUDGED_SQL = Path(__file__).with_name("judged.sql").read_text(encoding="utf-8")
WASTE_SQL = Path(__file__).with_name("waste.sql").read_text(encoding="utf-8")

_PERIODS = ("day", "week", "month")
_TIMING = ("records", "ended", "pending", "timed out", "share timed out", "median", "p90")
_WASTE = ("bought", "spent", "bought again", "nothing", "late", "wasted", "share wasted")
#: A share that is still pending is a product of many, of which the last digits are noise.
_NOISE = 1e-12
#: Groups whose curve is kept for the picture, and the points of each.
_CURVES, _POINTS = 30, 500


def timing(store: EnrichmentStore, by: By = "field", *, org_id: str | None = None, now: Instant = None) -> Report:
    """Say how long enrichments take, those included that have not ended yet: by field, by week, by who triggered them.

    Parameters
    ----------
    store : EnrichmentStore
        Where the records are.
    by : str, sequence of str or None
        Columns of a record, or ``day``, ``week`` (its Monday) or ``month`` of ``createdAt`` in UTC; None for all in one row.
    org_id : str, optional
        Whose records; the store's unless given.
    now : datetime or str, optional
        The instant at which a pending record's age is judged (without a zone: UTC); the clock's unless given.

    Returns
    -------
    Report
        ``.frame`` has the columns of `by`, and for each group ``records``, those that ``ended`` (timeouts and failures among them),
        those ``pending``, those that ``timed out`` (by the service, or by the store's maximum processing time), their share of those
        that ended, and the ``median`` and ``p90`` of the seconds from ``createdAt`` to ``updatedAt``, by Kaplan and Meier's estimate:
        of a pending record it is known that it takes longer than its age, and of one that timed out that it takes longer than
        the maximum processing time. They are null where too few have ended to tell.

    Raises
    ------
    ValidationError
        No organization, or an argument that is unusable.
    StoreError
        The store is closed, or its file cannot be read.

    Examples
    --------
    >>> import enrichstatus as es
    >>> store = es.EnrichmentStore(org_id="org_1")
    >>> lead = {"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails", "status": "finished", "dataFound": True}
    >>> _ = store.load([{**lead, "createdAt": "2026-11-16T08:00:00Z", "updatedAt": "2026-11-16T08:00:56Z"}])
    >>> es.timing(store)
    Of 1 record 1 has ended, 0 of them by timing out (0.0 %), and 0 are pending
    field   records  ended  pending  timed out  share timed out  median   p90
    emails        1      1        0          0            0.0 %    56 s  56 s
    """
    names, limits = parse_by(by), _limits(store)
    table, segments = _read(store, names, ("field", "createdAt", "updatedAt", "status"), org_id, taken=_TIMING)
    with duckdb.connect() as con:
        con.register("limits", timing_out(limits, now))
        con.register("history", table)
        con.execute("create temp table judged as " + JUDGED_SQL)
        counts = _filled(to_pandas(con.sql(_COUNTS_SQL)), segments)
        # what ended at an unknown time tells nothing of how long it took
        con.execute(
            "create temp view evidence as select segment as field, seconds, ended from judged where seconds is not null"
        )
        curves = to_pandas(con.sql(SURVIVAL_SQL)).rename(columns={"field": "segment"})
    counts["share timed out"] = counts["timed out"] / counts["ended"].where(counts["ended"] > 0)
    counts["median"], counts["p90"] = _reached(curves, 0.5, segments), _reached(curves, 0.1, segments)
    counts["segment"] = np.arange(len(counts))
    report = segments.report(counts, "records")
    largest = report.nlargest(_CURVES, "records", keep="first").sort_index()
    ended, late, pending = (int(counts[name].sum()) for name in ("ended", "timed out", "pending"))
    rate = f"{100 * late / ended:.1f} %" if ended else "–"
    count = len(table)
    headline = (
        f"Of {count:,} record{'' if count == 1 else 's'} {ended:,} {'has' if ended == 1 else 'have'} ended, "
        f"{late:,} of them by timing out ({rate}), and {pending:,} {'is' if pending == 1 else 'are'} pending"
    )
    return Report(
        report[[*names, *_TIMING]],
        headline if count else "There are no records",
        "timing",
        names,
        {"share timed out": "share", "median": "seconds", "p90": "seconds"},
        {
            "curves": [_thinned(curves, number) for number in largest["segment"]],
            "rows": largest.index.tolist(),
            "longest": [float(value) for value in largest["longest"]],
            "limits": {field: limit.total_seconds() for field, limit in limits.items()},
            "fields": sorted(set(table["field"].unique().to_pylist())),
        },
    )


_COUNTS_SQL = """
select
    segment,
    count(*) as records,
    count(*) filter (where not pending) as ended,
    count(*) filter (where pending) as pending,
    count(*) filter (where timedOut) as "timed out",
    coalesce(max(seconds), 0) as longest
from judged
group by segment
order by segment
"""


def waste(
    store: EnrichmentStore,
    by: By = "week",
    *,
    costs: Mapping[str, float] | None = None,
    org_id: str | None = None,
    now: Instant = None,
) -> Report:
    """Say what the money bought: keys bought more than once, credits spent on nothing, answers that came too late.

    Parameters
    ----------
    store : EnrichmentStore
        Where the records are.
    by : str, sequence of str or None
        ``day``, ``week`` (its Monday) or ``month`` of ``createdAt`` in UTC, ``createdBy`` (who triggered) or any other columns of a
        record; None for all in one row.
    costs : mapping, optional
        Credits for one task of a field; a field that is not named costs nothing. Unless given, each costs 1.
    org_id : str, optional
        Whose records; the store's unless given.
    now : datetime or str, optional
        The instant at which the timeout rule is judged (without a zone: UTC); the clock's unless given.

    Returns
    -------
    Report
        ``.frame`` has the columns of `by`, and for each group the records ``bought`` (those that carry a ``creditTransactionId``; all,
        where none does), the credits ``spent`` on them, how many of them were ``bought again`` (their key had been bought before), how
        many ended with ``nothing`` (no data, failures and timeouts among them), how many brought data ``late`` (after the store's
        maximum processing time), the credits ``wasted`` on what was bought again or for nothing, and their share.

    Raises
    ------
    ValidationError
        No organization, a price for an unknown field or that is no amount, or another argument that is unusable.
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
    week        bought  spent  bought again  nothing  late  wasted  share wasted
    2026-11-16       2     20             1        0     0      10        50.0 %
    """
    names, limits = parse_by(by), _limits(store)
    prices = dict.fromkeys(limits, 1.0 if costs is None else 0.0) | parse_costs(costs, tuple(limits))
    needed = (*KEY, "id", "createdAt", "updatedAt", "status", "dataFound", "creditTransactionId")
    table, segments = _read(store, names, needed, org_id, taken=_WASTE, bought=True)
    unpaid = table.num_rows > 0 and table["creditTransactionId"].null_count == table.num_rows
    asker = timing_out(limits, now)
    with duckdb.connect() as con:
        con.register("limits", asker.append_column("price", pa.array(prices.values(), pa.float64())))
        con.register("history", table)
        con.execute("create temp table judged as " + JUDGED_SQL)
        counts = _filled(to_pandas(con.sql(WASTE_SQL)), segments)
    counts["share wasted"] = counts["wasted"] / counts["spent"].where(counts["spent"] > 0)
    report = segments.report(counts, "bought")
    headline = _wasted(counts) if len(counts) else "Nothing was bought"
    if unpaid:
        headline += " (no record has a creditTransactionId, so all count as bought)"
    return Report(
        report[[*names, *_WASTE]],
        headline,
        "waste",
        names,
        {"spent": "credits", "wasted": "credits", "share wasted": "share"},
        {"credits": report[["useful", "open", "for nothing", "again"]]},
    )


def _wasted(counts: pd.DataFrame) -> str:
    total = counts.drop(columns="segment").sum()
    share = f" ({100 * total['wasted'] / total['spent']:.1f} %)" if total["spent"] else ""
    return (
        f"{number(total['wasted'])} of {number(total['spent'])} credits wasted{share}: {total['bought again']:,.0f} of "
        f"{total['bought']:,.0f} bought again, {total['nothing']:,.0f} brought nothing; {total['late']:,.0f} came late"
    )


def _limits(store: EnrichmentStore) -> dict[str, timedelta]:
    """Give the maximum processing times of what is a store indeed."""
    if not hasattr(store, "records"):
        raise ValidationError(
            f"The records themselves are needed, which an EnrichmentStore has, not {type(store).__name__}: "
            "poll(client, tasks, into=store) keeps what a client answers, store.load() takes exports."
        )
    return store.max_processing_time


def _read(
    store: EnrichmentStore,
    names: Sequence[str],
    needed: Sequence[str],
    org_id: str | None,
    *,
    taken: Sequence[str],
    bought: bool = False,
) -> tuple[pa.Table, Segments]:
    """Take the records with what is needed of them and the number of their segment."""
    if strange := [name for name in names if name not in (*COLUMNS, *_PERIODS)]:
        raise ValidationError(f"takes {listed((*_PERIODS, *COLUMNS), limit=20)}; not {listed(strange)}.", argument="by")
    columns = dict.fromkeys([*needed, *(name for name in names if name in COLUMNS)])
    table = store.records(tuple(columns), org_id=org_id)
    if bought and table["creditTransactionId"].null_count < table.num_rows:
        table = table.filter(pc.is_valid(table["creditTransactionId"]))
    told = {name: _period(table["createdAt"], name) if name in _PERIODS else table[name] for name in names}
    segments = segment(pa.table(told), len(table), taken=taken)
    return table.select(list(needed)).append_column("segment", pa.array(segments.code)), segments


def _period(instants: pa.ChunkedArray, unit: str) -> pa.ChunkedArray:
    """Give the day, the Monday or the first of the month, in UTC."""
    return pc.floor_temporal(instants.cast(pa.timestamp("us")), unit=unit)


def _filled(counts: pd.DataFrame, segments: Segments) -> pd.DataFrame:
    """Check that there is a row for each segment: they come from the same records."""
    assert len(counts) == len(segments)
    return counts


def _reached(curves: pd.DataFrame, pending: float, segments: Segments) -> pd.Series[float]:
    """Give the seconds after which no more than this share is pending, by segment; NaN where that never is."""
    below = curves[curves["pending"] <= pending + _NOISE]
    return below.groupby("segment")["seconds"].min().reindex(range(len(segments))).astype("float64")


def _thinned(curves: pd.DataFrame, number: int) -> pd.DataFrame:
    """Give a segment's curve by as many points as a picture shows."""
    curve = curves.loc[curves["segment"] == number, ["seconds", "pending"]]
    places = np.linspace(0, len(curve) - 1, min(_POINTS, len(curve))).round().astype(int)
    return curve.iloc[places].reset_index(drop=True)
