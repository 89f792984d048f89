"""What came of a list: coverage, time to completion, waste, and where two lookups disagree."""

from __future__ import annotations

import itertools
import pickle
import random
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import stats

import enrichstatus as es
from tests.support.factory import NOW, ORG, record, task, uid

START = datetime(2026, 11, 16, 8, tzinfo=UTC)


def row(status: str | None = "finished", found: bool | None = None, **columns: Any) -> dict[str, Any]:
    return {"field": "emails", **columns, "status": status, "dataFound": found}


def after(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat()


ROWS = [
    row("finished", True, source="Webinar"),
    row("finished", False, source="Webinar"),
    row("failed", None, source="Webinar"),
    row("timeout", None, source="Webinar"),
    row("pending", None, source="Webinar"),
    row(None, None, source="Webinar"),
    row("finished", True, source=None),
    row("found nothing", False, source=None),
    row("pending", None, source="Fair"),
]


def test_coverage_counts_what_has_ended():
    """Pending tasks and those without a record are no part of the share; failures and timeouts are; null is a group of its own."""
    frame = es.coverage(ROWS, by="source").frame
    assert frame["source"].fillna("none").tolist() == ["Webinar", "none", "Fair"]
    counted = frame[["tasks", "no record", "pending", "ended", "with data"]]
    assert counted.to_numpy().tolist() == [[6, 1, 1, 4, 1], [2, 0, 0, 2, 1], [1, 0, 1, 0, 0]]
    assert frame["share"].fillna(-1).tolist() == [0.25, 0.5, -1]
    assert frame["small"].tolist() == [True, True, True]
    assert es.coverage(ROWS, by="source", small=2).frame["small"].tolist() == [False, False, True]


def test_what_became_of_tasks_is_told_apart():
    """Each task has one outcome; a status that is not the contract's is unknown, unless it says whether data was found."""
    rows = [*ROWS, row("cancelled", None, source="Fair"), row("unanswered", None, source="Fair")]
    outcomes = es.coverage(rows, by="source").details["outcomes"]
    names = ["with data", "no data", "failed", "timeout", "unknown status", "pending", "unanswered", "no record"]
    assert outcomes[names].to_numpy().tolist() == [
        [1, 1, 1, 1, 0, 1, 0, 1],
        [0, 0, 0, 0, 1, 1, 1, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
    ]
    whole = es.coverage(rows, by=None)
    assert whole.frame[["ended", "unknown status"]].to_numpy().tolist() == [[6, 1]]
    assert "1 with an unknown status: 'cancelled' (1). statuses= (--statuses) says what a word means" in whole.headline
    assert "unknown status" not in es.coverage(ROWS, by="source").frame


def test_an_unknown_status_is_no_waste(store: es.EnrichmentStore):
    """What nobody knows is counted by itself, with its words: it has not brought nothing, and is not wasted."""
    store.load([
        record(number, status=status, dataFound=found)
        for number, (status, found) in enumerate([("finished", True), ("finished", False), ("in review", None)])
    ])  # fmt: skip
    report = es.waste(store, by=None, costs={"emails": 2})
    columns = ["bought", "spent", "nothing", "unknown status", "wasted"]
    assert report.frame[columns].to_numpy().tolist() == [[3, 6, 1, 1, 2]]
    assert "1 with an unknown status: 'in review' (1). statuses=" in report.headline
    assert report.details["credits"].sum(axis=1).tolist() == [6]


@pytest.mark.parametrize("ended", [1, 2, 7, 30, 400])
def test_the_interval_is_wilsons(ended: int):
    """The bounds are those of scipy's Wilson interval, at none and at all too."""
    hits = sorted({0, 1, ended // 3, ended - 1, ended})
    rows = [row("finished", k < of, group=of) for of in hits for k in range(ended)]
    frame = es.coverage(rows, by="group").frame
    expected = [stats.binomtest(of, ended).proportion_ci(0.95, method="wilson") for of in hits]
    assert frame["group"].tolist() == hits
    np.testing.assert_allclose(frame["low"], [one.low for one in expected], atol=1e-12)
    np.testing.assert_allclose(frame["high"], [one.high for one in expected], atol=1e-12)


def test_any_kind_of_frame_is_read(tmp_path: Path):
    """A lookup's answer gives the same table as pandas, polars, Arrow, relation, list and file."""
    frame = pd.DataFrame(ROWS).astype({"dataFound": "boolean"})
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    frame.to_csv(tmp_path / "status.csv", index=False)
    relation = duckdb.from_arrow(arrow)
    expected = es.coverage(ROWS, by=["source", "field"]).frame
    for status in (frame, pl.from_arrow(arrow), arrow, relation, tmp_path / "status.csv", frame.astype("category")):
        pd.testing.assert_frame_equal(es.coverage(status, by=["source", "field"]).frame, expected)


def test_a_lookups_answer_is_covered(store: es.EnrichmentStore):
    """What a store answers goes in as it is, also under a prefix, and None counts all in one row."""
    store.load([record(0), record(1, dataFound=False), record(2, status="pending", dataFound=None)])
    status = store.lookup([task(n) for n in range(4)], now=NOW, prefix="was_")
    report = es.coverage(status, by=None, prefix="was_")
    assert report.frame[["tasks", "no record", "pending", "ended", "with data"]].to_numpy().tolist() == [
        [4, 1, 0, 3, 1]
    ]
    assert len(report) == 1
    assert "1 of 3 ended tasks has data (33.3 %); 1 without a record left out" in repr(report)


FINE: dict[str, pa.Array] = {
    "instants": pa.array([0, 1, 1], pa.timestamp("ns", "UTC")),
    "times without a zone": pa.array([None, 1, 1], pa.timestamp("ns")),
    "durations": pa.array([0, 1, 1], pa.duration("ns")),
    "in a dictionary": pa.array([0, 1, 1], pa.duration("ns")).dictionary_encode(),
    "times of a day": pa.array([0, 1, 1], pa.time64("ns")),
    "in a struct": pa.array([{"a": 0}, {"a": 1}, {"a": 1}], pa.struct([("a", pa.timestamp("ns"))])),
    "years beyond": pa.array([0, 2**50, 2**50], pa.timestamp("s")),
    "durations beyond": pa.array([0, 2**61, 2**61], pa.duration("s")),
}


def test_values_that_differ_are_different_groups():
    """Below a microsecond too, where there are no such types, and of whole numbers of 128 bits; or the column is refused."""
    for name, values in FINE.items():
        status = pa.table({"status": ["finished"] * 3, "dataFound": [True] * 3, "x": values})
        report = es.coverage(status, by="x")
        assert sorted(report.frame["tasks"]) == [1, 2], name
        assert str(report)
    for kind in (pa.timestamp("ns", "UTC"), pa.duration("ns")):
        nested = pa.array([{"a": 0}, {"a": 1}, {"a": 1}], pa.struct([("a", kind)]))
        with pytest.raises(es.ValidationError, match="nanoseconds would be lost; make text"):
            es.coverage(status.set_column(2, "x", nested), by="x")
    for numbers in ([5, 7, 7], [2**100, 2**100 + 1, 2**100 + 1], [2**126, -(2**126), -(2**126)]):
        wide = pl.DataFrame(status.drop_columns("x")).with_columns(x=pl.Series(numbers, dtype=pl.Int128))
        assert sorted(es.coverage(wide, by="x").frame["tasks"]) == [1, 2]
    with pytest.raises(es.ValidationError, match="Arrow cannot carry the column x"):
        es.coverage(wide.with_columns(pl.concat_list("x")), by="x")


def test_groups_that_are_dates_or_numbers_keep_their_order():
    """Years, days and sizes rise; words come by size, and those as large by name."""
    days = pd.to_datetime(["2026-11-17", "2026-11-16", "2026-11-17"])
    frame = pd.DataFrame({"status": "finished", "dataFound": True, "day": days, "year": [2026, 2025, 2026]})
    frame["word"] = ["b", "c", "a"]
    assert es.coverage(frame, by="day").frame["day"].is_monotonic_increasing
    assert es.coverage(frame, by="year").frame["year"].tolist() == [2025, 2026]
    assert es.coverage(frame, by="word").frame["word"].tolist() == ["a", "b", "c"]
    assert "2026" in repr(es.coverage(frame, by="year"))
    assert "2026-11-16" in repr(es.coverage(frame, by="day"))


def test_any_column_can_be_told_apart():
    """Booleans, dates, UUIDs, lists and columns of nulls make groups too."""
    frame = pd.DataFrame({"status": ["finished", "failed"], "dataFound": [True, None]})
    columns: dict[str, Any] = {
        "flag": [True, False],
        "date": [START.date(), None],
        "uuid": [uuid.UUID(int=1), uuid.UUID(int=2)],
        "tags": [["a"], ["b"]],
        "mixed": [1, "one"],
        "took": list(pd.to_timedelta(["1h", "2h"])),
    }
    for name, values in columns.items():
        assert es.coverage(frame.assign(**{name: pd.Series(values, dtype=object)}), by=name).frame[
            "tasks"
        ].tolist() == [1, 1]
    sizes = es.coverage(frame.assign(size=pd.cut([5, 50], [0, 10, 100])), by="size").frame
    assert sizes["size"].tolist() == ["(0, 10]", "(10, 100]"]
    months = es.coverage(frame.assign(month=pd.period_range("2026-10", periods=2, freq="M")), by="month").frame
    assert months["month"].tolist() == ["2026-10", "2026-11"]
    assert es.coverage(frame.assign(nothing=None), by="nothing").frame["tasks"].tolist() == [2]
    assert es.coverage(frame.assign(**dict.fromkeys("abcdefgh", 1)), by=list("abcdefgh")).frame["tasks"].tolist() == [2]


@pytest.mark.parametrize(
    ("status", "options", "said"),
    [
        (
            [task()],
            {},
            r"coverage\(\) needs the column 'status'; found entityId, field.* Look the tasks up",
        ),
        ([row()], {"prefix": "x_"}, "needs the column 'x_status'"),
        ([row()], {"by": "owner"}, "by= names the column 'owner'; found field, status, dataFound"),
        ([row()], {"by": ["field", "field"]}, "distinct names"),
        ([row()], {"by": 7}, "by= takes"),
        ([row()], {"by": []}, "by= takes"),
        ([row(share="x")], {"by": "share"}, "by= names share, which the report has a column for; rename yours"),
        ([row(7)], {}, "holds int64, not the text of a status"),
        ([row(found="perhaps")], {}, "must hold true, false or null"),
        ([row()], {"small": -1}, "small= takes a whole number"),
        ([row()], {"small": 2.5}, "small= takes a whole number"),
        ([row()], {"prefix": None}, "prefix= takes"),
        (42, {}, "Expected a DataFrame"),
        (
            pd.DataFrame([[1, 2, 3]], columns=["status", "status", "dataFound"]),
            {"by": None},
            "two columns named 'status'",
        ),
    ],
)
def test_what_cannot_be_covered_is_said(status: Any, options: dict[str, Any], said: str):
    """A message says what was given, what was expected and what to do."""
    with pytest.raises(es.ValidationError, match=said):
        es.coverage(status, **options)


def history(rng: random.Random, count: int) -> list[dict[str, Any]]:
    """Make records that ended, failed, timed out or are pending, some of one key, some at the same instant."""
    records = []
    for number in range(count):
        created = START - timedelta(seconds=rng.choice([5, 60, 300, 700, 800, 900, 90_000, 700_000]))
        status = rng.choices(["finished", "failed", "timeout", "pending"], [70, 8, 6, 16])[0]
        took = rng.choice([0, 1, 20, 40, 40, 60, 79.5, 300, 900])
        key = rng.randrange(max(count // 2, 1))
        records.append(
            record(
                number,
                entityId=uid(key),
                field=("emails", "phones")[key % 2],
                createdAt=created.isoformat(),
                updatedAt=(created if status == "pending" else created + timedelta(seconds=took)).isoformat(),
                status=status,
                dataFound={"finished": rng.random() < 0.6}.get(status),
                createdBy=rng.choice(["user_1", "user_2", None]),
                creditTransactionId=rng.choice(["paid", None]),
            )
        )
    return records


@pytest.mark.parametrize("seed", range(6))
def test_completion_is_kaplans_and_meiers(seed: int):
    """Median, 90 % and the whole curve are those of scipy's estimate, what is pending or has timed out being censored."""
    records = history(random.Random(seed), 240)
    limit = {"emails": 800, "phones": 200}
    with es.EnrichmentStore(org_id=ORG, max_processing_time=limit) as store:
        store.load(records)
        report = es.timing(store, now=START)
    for place, field in enumerate(report.frame["field"]):
        ended, censored = [], []
        for one in [one for one in records if one["field"] == field]:
            created = datetime.fromisoformat(one["createdAt"])
            age = (START - created).total_seconds()
            if one["status"] == "timeout":
                censored.append(limit[field])
            elif one["status"] == "pending":
                censored.append(min(age, limit[field]))
            else:
                ended.append((datetime.fromisoformat(one["updatedAt"]) - created).total_seconds())
        survival = stats.ecdf(stats.CensoredData(uncensored=ended, right=censored)).sf
        curve = report.details["curves"][place]
        np.testing.assert_allclose(curve["pending"], survival.evaluate(curve["seconds"].to_numpy()), atol=1e-12)
        for column, share in (("median", 0.5), ("p90", 0.1)):
            reached = survival.quantiles[survival.probabilities <= share + 1e-12]
            expected = reached[0] if len(reached) else np.nan
            np.testing.assert_equal(report.frame[column][place], expected)


def test_what_has_timed_out_has_ended(store: es.EnrichmentStore):
    """A timeout, the service's or ours, is known to take longer; a share of those whose outcome is known has timed out."""
    store.load(
        [
            record(0, createdAt=after(0), updatedAt=after(56)),
            record(1, createdAt=after(0), updatedAt=after(800), status="timeout", dataFound=None),
            record(2, createdAt=after(-801), updatedAt=after(-801), status="pending", dataFound=None),
            record(3, createdAt=after(-800), updatedAt=after(-800), status="pending", dataFound=None),
            record(4, createdAt=after(0), updatedAt=None, status="failed", dataFound=None),
            record(5, createdAt=after(9), updatedAt=after(8)),
        ]
    )
    report = es.timing(store, now=START)
    expected = {
        "field": "emails",
        "records": 6,
        "ended": 5,
        "pending": 1,
        "timed out": 2,
        "share timed out": 0.4,
        "median": 56,
    }
    [found] = report.frame.drop(columns="p90").to_dict("records")
    assert found == expected
    assert report.frame["p90"].isna().all()
    assert "Of 6 records 5 have ended, 2 of them by timing out (40.0 %), and 1 is pending" in repr(report)
    assert "56 s" in repr(report)


def test_periods_are_utcs(store: es.EnrichmentStore):
    """A week is named by its Monday, a month by its first, by the time in UTC; rows are in their order."""
    instants = ["2026-11-16T00:30:00+02:00", "2026-11-16T00:00:00Z", "2026-11-30T23:59:59Z", "2026-12-01T00:00:00Z"]
    store.load([record(n, createdAt=one, updatedAt=one) for n, one in enumerate(instants)])

    def groups(by: str) -> list[str]:
        found = es.timing(store, by=by, now="2026-12-02").frame[by]
        assert found.dtype == "datetime64[us]"
        return [str(day.date()) for day in found]

    assert groups("day") == ["2026-11-15", "2026-11-16", "2026-11-30", "2026-12-01"]
    assert groups("week") == ["2026-11-09", "2026-11-16", "2026-11-30"]
    assert groups("month") == ["2026-11-01", "2026-12-01"]
    assert es.timing(store, by=["month", "field"], now=NOW).frame["records"].tolist() == [3, 1]


@pytest.mark.parametrize("kind", ["booleans", "nullable", "text", "numbers", "categories"])
def test_a_column_of_the_list_is_a_measure(kind: str):
    """Its share of the tasks that have ended stands beside the share with data, in the table, the line and the picture; null is not found."""
    truth = [True, False, None, True, True]
    frame = pd.DataFrame(
        {
            "status": ["finished", "finished", "finished", "failed", "pending"],
            "dataFound": [True, True, False, None, None],
        }
    )
    frame["verified"] = {
        "booleans": pd.Series(truth, dtype=object),
        "nullable": pd.Series(truth, dtype="boolean"),
        "text": pd.Series([" TRUE", "false", None, "True", "true "]),
        "numbers": pd.Series([1, 0, None, 1, 1]),
        "categories": pd.Series(["true", "false", None, "true", "true"], dtype="category"),
    }[kind]
    report = es.coverage(frame, by=None, found="verified")
    assert report.frame[["ended", "with data", "verified", "share verified"]].to_numpy().tolist() == [[4, 2, 2, 0.5]]
    assert report.frame.columns.tolist()[-3:] == ["verified", "share verified", "small"]
    assert report.headline == "2 of 4 ended tasks have data (50.0 %), and 2 have verified (50.0 %); 1 pending left out"
    ax = report.plot()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["with data", "verified"]
    assert ax.get_title(loc="left") == "Share with data, and verified, of the tasks that have ended"
    assert es.coverage([], found="verified").frame["verified"].tolist() == []


def test_a_measure_that_is_none_is_refused():
    """A name that is nearly right is suggested; values that are neither true nor false are shown; a name of ours is refused."""
    frame = pd.DataFrame(
        {
            "status": ["finished"],
            "dataFound": [True],
            "email_verified": ["maybe"],
            "share": [True],
            "day": ["2026-01-01"],
        }
    )
    with pytest.raises(
        es.ValidationError, match=r"found= names the column 'email_verifed'.* Did you mean 'email_verified'\?"
    ):
        es.coverage(frame, by=None, found="email_verifed")
    with pytest.raises(
        es.ValidationError,
        match=r"found= names the column 'email_verified', whose text must be true or false.*'maybe' is not",
    ):
        es.coverage(frame, by=None, found="email_verified")
    with pytest.raises(es.ValidationError, match="found= names 'share', which the report has a column for"):
        es.coverage(frame, by=None, found="share")
    with pytest.raises(es.ValidationError, match="must be true or false"):
        es.coverage(frame.assign(day=pd.Timestamp("2026-01-01")), by=None, found="day")


def test_what_was_wasted_is_counted_once(store: es.EnrichmentStore):
    """What was bought again and for nothing too is wasted once; pending is no waste yet; what is not paid for was not bought."""
    paid = {"creditTransactionId": "paid"}
    store.load(
        [
            record(0, entityId=uid(0), createdAt=after(0), updatedAt=after(9), **paid),
            record(
                1, entityId=uid(0), createdAt=after(60), updatedAt=after(69), status="failed", dataFound=None, **paid
            ),
            record(2, entityId=uid(1), createdAt=after(0), updatedAt=after(9), dataFound=False, **paid),
            record(3, entityId=uid(1), createdAt=after(1)),
            record(4, entityId=uid(2), field="phones", createdAt=after(0), updatedAt=after(900), **paid),
            record(5, entityId=uid(3), createdAt=after(0), status="pending", dataFound=None, **paid),
            record(6, entityId=uid(4), createdAt=after(-900), status="pending", dataFound=True, **paid),
        ]
    )
    report = es.waste(store, by=None, costs={"phones": 10, "emails": 1}, now=after(0))
    [found] = report.frame.to_dict("records")
    assert found == {
        "bought": 6,
        "spent": 15,
        "retried": 0,
        "bought again": 1,
        "nothing": 3,
        "late": 1,
        "wasted": 3,
        "share wasted": 0.2,
    }
    assert report.headline == "3 of 15 credits wasted (20.0 %): 1 of 6 bought again, 3 brought nothing; 1 came late"
    assert report.details["credits"].iloc[0].to_dict() == {"useful": 11, "open": 1, "for nothing": 2, "again": 1}
    store.load([record(7, entityId=uid(1), entityType="company", createdAt=after(0), updatedAt=after(9), **paid)])
    report = es.waste(store, by="entityType", costs={"emails": 1, ("emails", "company"): 5}, now=after(0))
    assert report.frame.set_index("entityType")["spent"].to_dict() == {"person": 5, "company": 5}


@pytest.mark.parametrize("seed", range(4))
def test_waste_is_what_a_plain_loop_counts(seed: int):
    """Over random histories the table is that of a loop over the records."""
    records = history(random.Random(seed), 200)
    costs = {"emails": 1.5, "phones": 10}
    with es.EnrichmentStore(org_id=ORG) as store:
        store.load(records)
        report = es.waste(store, by="createdBy", costs=costs, now=START)
        unordered = es.waste(store, by=["createdBy", "field"], costs=costs, now=START).frame
    expected: dict[Any, list[float]] = {}
    seen: dict[str, bool] = {}
    for one in sorted(records, key=lambda one: (one["createdAt"], one["updatedAt"], one["id"])):
        if one["creditTransactionId"] is None:
            continue
        age = (START - datetime.fromisoformat(one["createdAt"])).total_seconds()
        took = datetime.fromisoformat(one["updatedAt"]) - datetime.fromisoformat(one["createdAt"])
        nothing = not one["dataFound"] and not (one["status"] == "pending" and age <= 800)
        retried = seen.get(one["entityId"], False)
        again = one["entityId"] in seen and not retried
        seen[one["entityId"]] = nothing and one["status"] in ("failed", "timeout", "pending")
        late = bool(one["dataFound"]) and took.total_seconds() > 800
        price = costs[one["field"]]
        sums = expected.setdefault(one["createdBy"] or "", [0] * 7)
        for place, more in enumerate([1, price, retried, again, nothing, late, price * (again or nothing)]):
            sums[place] += more
    table = report.frame.fillna({"createdBy": ""}).set_index("createdBy").drop(columns="share wasted")
    assert {name: list(values) for name, values in zip(table.index, table.to_numpy().tolist(), strict=True)} == expected
    assert table["bought"].is_monotonic_decreasing
    assert unordered["spent"].sum() == table["spent"].sum()
    np.testing.assert_allclose(report.details["credits"].sum(axis=1), report.frame["spent"])


def test_a_needed_retry_is_no_waste(store: es.EnrichmentStore):
    """What is bought after a failure or a timeout is retried; after anything else it is bought again, and wasted."""
    before = [
        {"status": "failed"},
        {"status": "timeout"},
        {"status": "pending"},
        {"dataFound": False},
        {"dataFound": True},
    ]
    for n, members in enumerate(before):
        first = record(
            n, createdAt=after(-9000), updatedAt=after(-8000), creditTransactionId="a", **{"dataFound": None} | members
        )
        store.load(
            [first, record(n + 10, entityId=uid(n), createdAt=after(0), updatedAt=after(9), creditTransactionId="b")]
        )
    report = es.waste(store, by=None, costs={"emails": 1}, now=after(20))
    assert report.frame[["retried", "bought again", "nothing", "wasted"]].to_numpy().tolist() == [[3, 2, 4, 6]]
    assert report.headline.endswith("; 1 came late, 3 retried after a failure")


def test_without_transactions_all_records_count(store: es.EnrichmentStore):
    """Where no record says what was paid all were bought, and the headline says so."""
    store.load([record(0), record(1)])
    report = es.waste(store)
    assert report.headline.startswith("0 of 2 purchases wasted (0.0 %): ")
    assert "spent" not in report.frame
    assert "credits" not in repr(report)
    assert "credits" not in f"{report.headline} {report.units}"
    assert report.frame["bought"].tolist() == [2]
    assert report.headline.endswith("(no record has a creditTransactionId, so all count as bought)")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"costs": {"fax": 1}}, "fax"),
        ({"costs": {("emails", "robot"): 1}}, "emails/robot"),
        ({"costs": {("emails", "person"): 1, "emails/person": 2}}, "two prices for emails/person"),
        ({"costs": {"emails": -1}}, "-1"),
        ({"costs": {"emails": float("nan")}}, "nan"),
        ({"costs": {"emails": "1"}}, "'1'"),
        ({"costs": [1, 2]}, "list"),
        ({"by": "country"}, "by= takes day, week, month, id, createdAt, .*; not country"),
        ({"by": ["week", "week"]}, "distinct"),
        ({"now": "yesterday"}, "now="),
        ({"org_id": " "}, "Organization ID is missing"),
    ],
)
def test_what_waste_cannot_use_is_said(store: es.EnrichmentStore, options: dict[str, Any], said: str):
    """Prices for unknown fields, below zero or no numbers, and unknown columns are named."""
    with pytest.raises(es.ValidationError, match=said):
        es.waste(store, **options)


@pytest.mark.parametrize("report", [es.timing, es.waste])
def test_a_source_without_records_is_told_from_a_store(report: Any):
    """A client has no history: the message says what does."""
    with pytest.raises(es.ValidationError, match=r"EnrichmentStore has, not EnrichmentClient.*into=store"):
        report(es.EnrichmentClient("https://api.example", token="secret-token"))


def test_only_ones_own_records_are_counted(store: es.EnrichmentStore):
    """Other organizations' records are nobody's business."""
    store.load([record(0), record(1, orgId="org_2"), record(2, orgId="org_2")])
    assert es.timing(store, by=None, now=NOW).frame["records"].tolist() == [1]
    assert es.waste(store, by=None, org_id="org_2", now=NOW).frame["bought"].tolist() == [2]


def answer(number: int, status: str | None, found: bool | None = None, **members: Any) -> dict[str, Any]:
    return {**task(number), "status": status, "dataFound": found, **members}


def test_a_difference_is_what_changed():
    """Rows that changed, or that one has alone, come in the order of the lists, with the change in words; duplicates count once."""
    before = [
        answer(0, "finished", True),
        answer(1, "pending"),
        answer(2, None),
        answer(3, "finished", False),
        answer(4, "failed"),
        answer(1, "pending"),
    ]
    now = [
        answer(5, None),
        answer(3, "finished", True),
        answer(2, "pending", entityId="{" + uid(2).upper() + "} "),
        answer(1, "finished", True, entityId=uid(1).replace("-", "")),
        answer(0, "finished", True),
        answer(0, "finished", True),
    ]
    report = es.diff(before, now, names=("before", "now"))
    assert list(zip(report.frame["entityId"], report.frame["change"], strict=True)) == [
        (uid(1), "pending → finished"),
        (uid(2), "no record → pending"),
        (uid(3), "finished: no data → data"),
        (uid(4), "failed → not in now"),
        (uid(5), "not in before → no record"),
    ]
    assert list(report.frame.columns) == [
        *(
            "entityId",
            "entityType",
            "field",
            "status_before",
            "status_now",
            "dataFound_before",
            "dataFound_now",
            "change",
        )
    ]
    assert report.headline.startswith("5 of 6 tasks differ between before and now: 1 failed → not in now, ")


def test_keys_that_are_none_are_left_out_and_counted():
    """A row whose key is unusable cannot be compared: the headline says how many; fields need not be the contract's."""
    one = [answer(0, None, entityId="nobody"), answer(0, "finished", True, field="fax")]
    report = es.diff(one, [answer(0, "failed", field="fax")])
    assert report.frame["field"].tolist() == ["fax"]
    assert (
        report.headline
        == "1 of 1 tasks differs between a and b: 1 finished → failed; 1 row without a usable key left out"
    )


def test_lookups_at_two_moments_are_compared(store: es.EnrichmentStore):
    """What a store says before and after the maximum processing time differs by the timeout."""
    store.load([record(0), record(1, status="pending", dataFound=None)])
    tasks = pl.DataFrame([task(0), task(1), task(2)])
    moments = [store.lookup(tasks, now=moment) for moment in ("2026-11-16T08:05:00Z", NOW)]
    assert es.diff(*moments).frame["change"].tolist() == ["pending → timeout"]
    assert len(es.diff(moments[0], moments[0])) == 0


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (([task()], [answer(0, None)]), {}, "a needs the column 'status'"),
        (([answer(0, None)], [task()]), {"names": ("x", "later")}, "later needs the column 'status'"),
        (([row()], [row()]), {}, "Tasks need the column entityId"),
        (([], []), {"names": ("a", "a")}, "names= takes two distinct names"),
        (([], []), {"names": "ab"}, "names= takes two distinct names"),
        (([], []), {"names": ("a", 1)}, "names= takes two distinct names"),
        (([], []), {"names": None}, "names= takes two distinct names"),
    ],
)
def test_what_cannot_be_compared_is_said(arguments: Any, options: dict[str, Any], said: str):
    """The message names the side that lacks a column."""
    with pytest.raises(es.ValidationError, match=said):
        es.diff(*arguments, **options)


def reports(store: es.EnrichmentStore, rows: list[dict[str, Any]]) -> list[Any]:
    status = store.lookup(rows, now=NOW)
    return [
        es.coverage(status),
        es.coverage(status, by=["entityType", "field"]),
        es.timing(store, now=NOW),
        es.timing(store, by="week", now=NOW),
        es.waste(store, now=NOW),
        es.waste(store, by=["createdBy"], now=NOW),
        es.diff(status.iloc[:0], status),
    ]


def test_nothing_gives_an_empty_table(store: es.EnrichmentStore):
    """An empty list or store gives no rows, with the columns and types of any other, and a text that says so."""
    tasks = [{**task(), "entityType": "person"}]
    empty = reports(store, tasks)
    empty[0] = es.coverage(store.lookup(pd.DataFrame(tasks).iloc[:0]))
    empty[1] = es.coverage(store.lookup(pd.DataFrame(tasks).iloc[:0]), by=["entityType", "field"])
    empty[6] = es.diff([], [])
    store.load([record(0)])
    for none, some in zip(empty, reports(store, tasks), strict=True):
        assert len(none) == 0
        assert len(some) == 1
        pd.testing.assert_series_equal(none.frame.dtypes, some.frame.dtypes)
        assert "(no rows: " in repr(none)
        assert "no rows" in none._repr_html_()
    assert es.coverage([], by="source").frame["source"].tolist() == []
    assert es.coverage([]).headline == "No task has ended"


EVIL = [
    "<script>alert('x')</script>",
    "<img src=x onerror=alert(1)>",
    "a\x1b[31m\nb",
    "\u202eevil\u2069",
    "شركة",
    "R&D \"x\" 'y'",
]


def test_names_are_shown_and_never_obeyed():
    """Names that are HTML, scripts, control characters or from right to left are text, in a terminal and in a notebook."""
    rows = [row("finished", True, **{"<b>team</b>": name}) for name in EVIL]
    report = es.coverage(rows, by="<b>team</b>")
    text, page = repr(report), report._repr_html_()
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    assert len(text.splitlines()) == 2 + len(EVIL)
    for tag in ("<script", "<img", "<b>team", "\x1b", "\u202e"):
        assert tag not in page
    assert "<bdi>&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;</bdi>" in page
    assert "<bdi>شركة</bdi>" in page
    assert "color:" not in page.replace("background", "")


def test_a_long_table_is_cut_off_and_says_so():
    """A text shows the first rows and how many there are beyond; the frame has all; numbers have their thousands apart."""
    rows = [row("finished", True, lead=str(n)) for n in range(1234)]
    report = es.coverage(rows, by="lead")
    assert len(repr(report).splitlines()) < 40
    assert "… and 1,204 more rows in .frame" in repr(report)
    assert "… and 1,204 more rows in .frame" in report._repr_html_()
    assert "1,234" in repr(es.coverage(rows))


def test_a_report_can_be_pickled(store: es.EnrichmentStore):
    """It comes back the same, with its picture's data."""
    store.load([record(n) for n in range(3)])
    for report in reports(store, [{**task(), "entityType": "person"}]):
        again = pickle.loads(pickle.dumps(report))
        assert repr(again) == repr(report)
        assert again._repr_html_() == report._repr_html_()


def test_without_matplotlib_there_is_a_remedy(monkeypatch: pytest.MonkeyPatch):
    """A picture without the extra says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "enrichstatus\[plot\]"'):
        es.coverage(ROWS).plot()


def test_the_order_of_records_does_not_matter():
    """The same records in another order give the same tables, to the last digit."""
    records = history(random.Random(9), 80)
    texts = set()
    for seed in range(3):
        random.Random(seed).shuffle(records)
        with es.EnrichmentStore(org_id=ORG) as store:
            store.load(records)
            made = itertools.product((es.timing, es.waste), ("week", "createdBy", ["field", "status"]))
            texts.add("\n".join(report(store, by=by, now=START).frame.to_csv() for report, by in made))
    assert len(texts) == 1


def test_a_bad_row_is_not_a_task_without_a_record():
    """Of a lookup with ``errors="coerce"`` the bad rows are counted as such, also without ``columns="reason"``."""
    store = es.EnrichmentStore(org_id=ORG)
    store.load([record(0)])
    bad = [{"entityId": "x"}, {"field": None}, {"entityType": "dog"}]
    status = store.lookup([task(0), task(5), *({**task(6), **one} for one in bad)], errors="coerce")
    report = es.coverage(status, by=None)
    assert report.frame[["tasks", "no record", "ended"]].to_numpy().tolist() == [[5, 1, 1]]
    assert "3 bad rows" in str(report)
