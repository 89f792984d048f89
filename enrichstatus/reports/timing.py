"""How long enrichments take, by the records of an organization, those that are still pending included."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.errors import OrganizationWarning, ValidationError
from enrichstatus.files.scratch import scratch
from enrichstatus.lookup.arguments import Instant
from enrichstatus.lookup.query import timing_out, with_outcome
from enrichstatus.lookup.tasks import to_pandas
from enrichstatus.presentation import many, share
from enrichstatus.reports.groups import By, Segments, parse_by, segment
from enrichstatus.reports.report import Report
from enrichstatus.schema import COLUMNS, listed
from enrichstatus.survival import SURVIVAL_SQL

if TYPE_CHECKING:
    from datetime import timedelta

    from enrichstatus.sources.store.store import EnrichmentStore

STATES_SQL = with_outcome(Path(__file__).with_name("states.sql"))

PERIODS = ("day", "week", "month")
_TIMING = ("records", "ended", "pending", "timed out", "share timed out", "median", "p90")
#: A share that is still pending is a product of many, of which the last digits are noise.
_NOISE = 1e-12
#: Groups whose curve is kept for the picture, and the points of each.
_CURVES, _POINTS = 30, 500


def timing(
    store: EnrichmentStore, by: By = "field", *, org_id: str | None = None, now: Instant = None, as_of: Instant = None
) -> Report:
    """Report how long enrichments take, those included that have not ended yet: by field, by week, by who triggered them.

    Parameters
    ----------
    store : EnrichmentStore
        Where the records are.
    by : str, sequence of str or None
        Columns of a record, or ``day``, ``week`` (its Monday) or ``month`` of ``createdAt`` in UTC; None for all in one row.
    org_id : str, optional
        Whose records; the store's unless given.
    now : datetime or str, optional
        The instant at which a pending record's age is evaluated (without a zone: UTC); `as_of` or the clock's unless given.
    as_of : datetime or str, optional
        Report from the records as a store knew them at this instant.

    Returns
    -------
    Report
        ``.frame`` has the columns of `by`, and for each group ``records``, those that ``ended`` (timeouts and failures among them),
        those ``pending``, those that ``timed out`` (by the service, or by the store's maximum processing time), their share of those
        that ended, and the ``median`` and ``p90`` of the seconds from ``createdAt`` to ``updatedAt``, by Kaplan and Meier's estimate:
        of a pending record it is known that it takes longer than its age, and of one that timed out that it takes longer than
        the maximum processing time. They are null where too few have ended.

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
    names, limits = parse_by(by), limits_of(store)
    needed = ("field", "createdAt", "updatedAt", "status", "dataFound")
    table, segments = read_history(store, names, needed, org_id, reserved=_TIMING, as_of=as_of)
    with scratch() as con:
        con.register("asker", timing_out(limits, as_of if now is None else now))
        con.register("history", table)
        con.execute("create temp table states as " + STATES_SQL)
        counts = to_pandas(con.sql(_COUNTS_SQL))  # a row for each segment: they come from the same records
        con.execute(_EVIDENCE_SQL)
        curves = to_pandas(con.sql(SURVIVAL_SQL)).rename(columns={"field": "segment"})
    counts["share timed out"] = counts["timed out"] / counts["ended"].where(counts["ended"] > 0)
    counts["median"], counts["p90"] = _reached(curves, 0.5, segments), _reached(curves, 0.1, segments)
    counts["segment"] = np.arange(len(counts))
    report = segments.report(counts, "records")
    largest = report.nlargest(_CURVES, "records", keep="first").sort_index()
    ended, late, pending = (int(counts[name].sum()) for name in ("ended", "timed out", "pending"))
    rate = share(late / ended if ended else None)
    count = len(table)
    headline = (
        f"Of {many(count, 'record')} {ended:,} {'has' if ended == 1 else 'have'} ended, "
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
from states
group by segment
order by segment
"""

# of a timeout it is known only that it takes longer; what ended at an unknown time says nothing of how long it took
_EVIDENCE_SQL = """
create temp view evidence as
select segment as field, seconds, not pending and not timedOut as observed
from states
where seconds is not null
"""


def limits_of(store: EnrichmentStore) -> dict[str, timedelta]:
    """Give the maximum processing times of a store, and refuse anything else."""
    if not hasattr(store, "records"):
        raise ValidationError(
            f"The records themselves are needed, which an EnrichmentStore has, not {type(store).__name__}: "
            "poll(client, tasks, into=store) keeps what a client answers, store.load() takes exports."
        )
    return store.max_processing_time


def no_records_of(store: EnrichmentStore, org_id: str | None) -> str:
    """Say that a store holds records, but none of the organization; nothing where that is not so."""
    lacks = getattr(store, "lacks", None)
    return lacks(store.org_id if org_id is None else org_id) if lacks else ""


def read_history(
    store: EnrichmentStore,
    names: Sequence[str],
    needed: Sequence[str],
    org_id: str | None,
    *,
    reserved: Sequence[str],
    bought: bool = False,
    as_of: Instant = None,
) -> tuple[pa.Table, Segments]:
    """Read the records with the columns that are needed and the number of their segment."""
    if strange := [name for name in names if name not in (*COLUMNS, *PERIODS)]:
        raise ValidationError(f"takes {listed((*PERIODS, *COLUMNS), limit=20)}; not {listed(strange)}.", argument="by")
    columns = dict.fromkeys([*needed, *(name for name in names if name in COLUMNS)])
    if as_of is None:
        table = store.records(tuple(columns), org_id=org_id)
    elif hasattr(store, "changes"):
        table = store.records(tuple(columns), org_id=org_id, as_of=as_of)
    else:
        raise ValidationError("goes with a store: records that are read where they lie have no past.", argument="as_of")
    if not len(table) and (message := no_records_of(store, org_id)):
        warnings.warn(message, OrganizationWarning, stacklevel=3)
    if bought and table["creditTransactionId"].null_count < table.num_rows:
        table = table.filter(pc.is_valid(table["creditTransactionId"]))
    read = {name: period(table["createdAt"], name) if name in PERIODS else table[name] for name in names}
    segments = segment(pa.table(read), len(table), reserved=reserved)
    return table.select(list(needed)).append_column("segment", pa.array(segments.code)), segments


def period(instants: pa.ChunkedArray, unit: str) -> pa.ChunkedArray:
    """Give the day, the Monday or the first of the month, in UTC."""
    return pc.floor_temporal(instants.cast(pa.timestamp("us")), unit=unit)


def _reached(curves: pd.DataFrame, pending: float, segments: Segments) -> pd.Series[float]:
    """Give the seconds after which no more than this share is pending, by segment; NaN where that never is."""
    below = curves[curves["pending"] <= pending + _NOISE]
    return below.groupby("segment")["seconds"].min().reindex(range(len(segments))).astype("float64")


def _thinned(curves: pd.DataFrame, number: int) -> pd.DataFrame:
    """Give a segment's curve by as many points as a picture shows."""
    curve = curves.loc[curves["segment"] == number, ["seconds", "pending"]]
    places = np.linspace(0, len(curve) - 1, min(_POINTS, len(curve))).round().astype(int)
    return curve.iloc[places].reset_index(drop=True)
