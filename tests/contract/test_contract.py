"""The contract suite: what every source answers, whatever is behind it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import enrichstatus as es
from enrichstatus.schema import COLUMNS
from tests.support.factory import NOW, record, task, uid
from tests.support.sources import MakeSource

TEXT = pd.StringDtype(na_value=np.nan)
INSTANT = pd.DatetimeTZDtype("us", "UTC")


def statuses(source: es.Source, tasks: Any, **options: Any) -> list[Any]:
    answer = source.lookup(tasks, **{"now": NOW} | options)
    return [None if pd.isna(value) else value for value in answer["status"]]


def test_rule_1_only_the_callers_organization_is_seen(make_source: MakeSource):
    """A record of another organization is not a record, even for the same entity and newer."""
    source = make_source(
        [record(0), record(1, orgId="org_2"), record(2, entityId=uid(0), orgId="org_2", status="failed")]
    )
    assert statuses(source, [task(0), task(1)]) == ["finished", None]


def test_rule_1_no_organization_is_an_error(make_source: MakeSource):
    """Without an organization nothing is answered, and the message is the contract's."""
    for org_id in (None, "", "  "):
        with pytest.raises(es.ValidationError, match=r"^Organization ID is missing$"):
            make_source([record(0)], org_id=org_id).lookup([task(0)])


SPELLINGS: list[Callable[[str], str]] = [
    str.upper,
    lambda text: "{" + text + "}",
    lambda text: text.replace("-", ""),
    lambda text: f" \t{text}\n",
    lambda text: f"\u00a0{text}",
]


def test_rule_2_keys_match_on_the_value_of_the_uuid(make_source: MakeSource):
    """Case, braces, missing dashes and outer white space do not matter, neither in records nor in tasks."""
    spelled = [record(n, entityId=spell(uid(n)), status=f"s{n}") for n, spell in enumerate(SPELLINGS, 1)]
    source = make_source([record(0), *spelled])
    assert statuses(source, [task(n) for n in range(1, 6)]) == [f"s{n}" for n in range(1, 6)]
    asked = [{"entityId": spell(uid(0)), "field": "emails"} for spell in SPELLINGS]
    assert statuses(source, asked) == ["finished"] * 5


def test_rule_2_entity_type_and_field_are_part_of_the_key(make_source: MakeSource):
    """A company is not a person and a phone is not an e-mail; a task without a type is for a person."""
    source = make_source([record(0, entityType="company"), record(1, field="phones")])
    tasks = [task(0), task(0) | {"entityType": "company"}, task(1), task(1, "phones")]
    assert statuses(source, tasks) == [None, "finished", None, "finished"]


def test_rule_3_the_newest_record_speaks(make_source: MakeSource):
    """Of several records of a key the one with the latest createdAt is reported, not the one changed last."""
    old = record(0, status="failed", createdAt="2026-11-15T08:00:00.000Z", updatedAt="2026-11-16T08:59:00.000Z")
    new = record(1, entityId=uid(0), status="finished", createdAt="2026-11-15T09:00:00.000Z", updatedAt=None)
    assert statuses(make_source([old, new]), [task(0)]) == ["finished"]


def test_rule_3_ties_are_broken_by_updated_then_id(make_source: MakeSource):
    """Made at the same instant, the one changed last wins, one never changed after it; then the greater id."""
    same = {"entityId": uid(0), "createdAt": "2026-11-15T08:00:00.000Z"}
    records = [
        record(0, **same, status="a", updatedAt=None),
        record(1, **same, status="b", updatedAt="2026-11-15T08:02:00.000Z"),
        record(2, **same, status="c", updatedAt="2026-11-15T08:01:00.000Z"),
    ]
    assert statuses(make_source(records), [task(0)]) == ["b"]
    ids = sorted([str(uuid.UUID(int=2**127 + 5)), str(uuid.UUID(int=7))])
    twins = [record(0, **same, id=ids[0], status="lesser"), record(1, **same, id=ids[1], status="greater")]
    assert statuses(make_source(twins), [task(0)]) == ["greater"]
    assert statuses(make_source(twins[::-1]), [task(0)]) == ["greater"]


def test_rule_4_pending_for_too_long_is_a_timeout(make_source: MakeSource):
    """A pending record times out strictly after the maximum processing time: 800 s unless told otherwise."""
    source = make_source([record(0, status="pending", dataFound=None, createdAt="2026-11-16T08:00:00.000Z")])
    made = datetime(2026, 11, 16, 8, tzinfo=UTC)
    for after, status in ((799, "pending"), (800, "pending"), (800.000001, "timeout"), (-60, "pending")):
        assert statuses(source, [task(0)], now=made + timedelta(seconds=after)) == [status], after


def test_rule_4_the_time_can_be_given_for_each_field(make_source: MakeSource):
    """A mapping sets the maximum processing time by field and leaves the others at 800 s."""
    pending = {
        "status": "pending",
        "dataFound": None,
        "createdAt": "2026-11-16T08:50:00.000Z",
    }  # 600 s before
    records = [record(0, **pending), record(1, **pending, field="phones")]
    source = make_source(records, max_processing_time={"emails": "5min"})
    assert statuses(source, [task(0), task(1, "phones")]) == ["timeout", "pending"]


def test_rule_4_only_pending_times_out(make_source: MakeSource):
    """Whatever ended stays as it ended, also under a name that nobody documented."""
    records = [
        record(n, status=name, createdAt="2020-01-01")
        for n, name in enumerate(("finished", "failed", "timeout", "Stopped", "vanished"))
    ]
    assert statuses(make_source(records), [task(n) for n in range(5)]) == [
        "finished",
        "failed",
        "timeout",
        "Stopped",
        "vanished",
    ]


def test_rule_5_data_found_is_null_while_the_record_is_pending(make_source: MakeSource):
    """Nothing is known of a pending record's data, also where it is reported as a timeout; what ended says is passed on."""
    records = [
        record(0, status="pending", dataFound=True, createdAt="2026-11-16T08:59:00.000Z"),
        record(1, status="pending", dataFound=True, createdAt="2026-11-01T08:59:00.000Z"),
        record(2, status="timeout", dataFound=True),
        record(3, status="failed", dataFound=False),
        record(4, dataFound=None),
    ]
    answer = make_source(records).lookup([task(n) for n in range(6)], now=NOW)
    assert answer["dataFound"].astype(object).where(answer["dataFound"].notna(), None).tolist() == [
        None,
        None,
        True,
        False,
        None,
        None,
    ]


def test_rule_6_reading_never_writes(make_source: MakeSource):
    """A record that was reported as a timeout is still pending when it is asked about earlier."""
    source = make_source([record(0, status="pending", dataFound=None)])
    assert statuses(source, [task(0)], now="2030-01-01") == ["timeout"]
    assert statuses(source, [task(0)], now="2026-11-16T08:00:01Z") == ["pending"]


def test_row_i_is_task_i_duplicates_included(make_source: MakeSource):
    """The answer has the tasks' rows in the tasks' order, a task requested twice answered twice."""
    source = make_source([record(n, status=f"s{n}") for n in range(50)])
    order = np.random.default_rng(0).integers(0, 60, 500)
    assert statuses(source, [task(int(n)) for n in order]) == [f"s{n}" if n < 50 else None for n in order]


def test_the_callers_frame_comes_back_untouched(make_source: MakeSource):
    """Columns, their dtypes and the index stay, whatever they are, and the caller's own frame is not changed."""
    frame = pd.DataFrame([task(0), task(1), task(0)]).assign(
        score=[1.5, np.nan, 2], tier=pd.Categorical(["a", "b", "a"])
    )
    source = make_source([record(0)])
    for index in (
        pd.Index([7, 7, 7]),
        pd.MultiIndex.from_tuples([("a", 1), ("a", 1), ("b", 2)], names=["x", None]),
        pd.Index(["u", "v", "w"], name="who"),
        pd.date_range("2026-01-01", periods=3, tz="Europe/Berlin"),
    ):
        frame.index = index
        before = frame.copy()
        answer = source.lookup(frame, now=NOW)
        pd.testing.assert_frame_equal(answer[frame.columns], before)
        pd.testing.assert_frame_equal(frame, before)
        assert answer.columns.tolist() == [*before.columns, "status", "dataFound"]
        assert answer["status"].tolist()[::2] == ["finished", "finished"]


@pytest.mark.parametrize("known", [True, False], ids=["with records", "without"])
def test_dtypes_never_move(make_source: MakeSource, known: bool):
    """Text, nullable booleans and instants in UTC: the same for no rows, for all nulls and for none."""
    source = make_source(
        [record(n, error="e", globalEnrichmentId="g", creditTransactionId="c") for n in range(3)] if known else []
    )
    instants = ("createdAt", "updatedAt")
    for count in (0, 1, 3):
        tasks = pd.DataFrame([task(n) for n in range(count)], columns=["entityId", "field"])
        answer = source.lookup(tasks, columns=COLUMNS, prefix="r_", now=NOW)
        assert len(answer) == count
        for name in COLUMNS:
            expected = INSTANT if name in instants else pd.BooleanDtype() if name == "dataFound" else TEXT
            assert answer["r_" + name].dtype == expected, name
            assert answer["r_" + name].notna().all() == (known or count == 0), name


def test_columns_are_any_of_the_records(make_source: MakeSource):
    """Requested columns come in the order requested; all are those beyond the key; ids come in their usual spelling."""
    source = make_source([record(0)])
    upper = [{"entityId": uid(0).upper(), "field": "emails"}]
    one = source.lookup(upper, columns=["createdAt", "status"], now=NOW)
    assert one.columns.tolist() == ["entityId", "field", "createdAt", "status"]
    assert one["createdAt"][0] == pd.Timestamp("2026-11-16T08:00:00Z")
    every = source.lookup(upper, columns="all", now=NOW).iloc[0].to_dict()
    assert list(every) == [
        "entityId",
        "field",
        *(name for name in COLUMNS if name not in ("entityId", "entityType", "field")),
    ]
    assert every["id"] == record(0)["id"]
    assert source.lookup(upper, columns="entityId", prefix="record_", now=NOW)["record_entityId"][0] == uid(0)


def test_how_inner_leaves_out_tasks_without_a_record(make_source: MakeSource):
    """``inner`` keeps the rows that have a record, their order and their index, as the endpoint does."""
    frame = pd.DataFrame([task(9), task(1), task(8), task(0), task(1)], index=list("abcde"))
    answer = make_source([record(0), record(1)]).lookup(frame, how="inner", now=NOW)
    assert answer.index.tolist() == ["b", "d", "e"]
    assert answer["status"].tolist() == ["finished"] * 3


def test_errors_raise_names_every_bad_task(make_source: MakeSource):
    """Bad tasks raise one error; its message shows the first few, its problems all, with row, column, value and reason."""
    tasks = pd.DataFrame(
        {
            "entityId": [uid(0), "nonsense", None, uid(1), uid(2), "", uid(3)],
            "field": ["emails", "emails", "fax", None, "emails", "Emails", "phones"],
            "entityType": ["person", "robot", "person", "person", None, "company", "company"],
        }
    )
    with pytest.raises(es.ValidationError) as caught:
        make_source([record(0)]).lookup(tasks, now=NOW)
    assert str(caught.value).startswith("5 bad tasks:\n  row 1: entityId 'nonsense' is not a UUID\n")
    assert 'errors="coerce"' in str(caught.value)
    assert len(str(caught.value).splitlines()) == 6
    problems = caught.value.problems
    assert problems is not None
    assert [tuple(None if pd.isna(cell) else cell for cell in row) for row in problems.itertuples(index=False)] == [
        (1, "entityId", "nonsense", "is not a UUID"),
        (1, "entityType", "robot", "is not one of person, company"),
        (2, "entityId", None, "is missing"),
        (2, "field", "fax", "is not one of emails, phones, summary"),
        (3, "field", None, "is missing"),
        (4, "entityType", None, "is missing"),
        (5, "entityId", "", "is missing"),
        (5, "field", "Emails", "is not one of emails, phones, summary"),
    ]


def test_errors_coerce_gives_bad_tasks_nulls_and_loses_nothing(make_source: MakeSource):
    """With ``coerce`` the good tasks are answered and the bad ones have null columns."""
    tasks = pd.DataFrame(
        {"entityId": ["nonsense", uid(0), None, uid(0)], "field": ["emails", "emails", "emails", "fax"]}
    )
    source = make_source([record(0)])
    answer = source.lookup(tasks, errors="coerce", columns="all", now=NOW)
    assert statuses(source, tasks, errors="coerce") == [None, "finished", None, None]
    assert answer["id"].isna().tolist() == [True, False, True, True]
    pd.testing.assert_frame_equal(answer[["entityId", "field"]], tasks)


def test_a_clash_of_names_is_an_error_that_says_how_to_resolve_it(make_source: MakeSource):
    """A frame that has a status already keeps it: the lookup refuses, and ``prefix=`` adds beside it."""
    source = make_source([record(0)])
    tasks = pd.DataFrame([task(0) | {"status": "mine"}])
    with pytest.raises(es.ValidationError, match=r"already have the column status.*prefix="):
        source.lookup(tasks, now=NOW)
    answer = source.lookup(tasks, prefix="now_", now=NOW)
    assert answer[["status", "now_status"]].values.tolist() == [["mine", "finished"]]


def test_missing_columns_are_named_with_those_found(make_source: MakeSource):
    """Without the key's columns the message names those wanted and those there."""
    with pytest.raises(
        es.ValidationError, match=r"need the columns entityId, field; found lead_id, name.*tasks_from_leads"
    ):
        make_source([]).lookup(pd.DataFrame({"lead_id": [uid(0)], "name": ["Ada"]}))


KINDS: dict[str, Any] = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "polars lazy": pl.LazyFrame,
    "arrow": pa.Table.from_pylist,
    "record batch": lambda rows: pa.RecordBatch.from_pylist(rows),
    "reader": lambda rows: pa.RecordBatchReader.from_batches(
        pa.Table.from_pylist(rows).schema, pa.Table.from_pylist(rows).to_batches()
    ),
    "relation": lambda rows: duckdb.from_arrow(pa.Table.from_pylist(rows)),
    "dicts": list,
}
GIVES: dict[str, Any] = {
    "polars": pl.DataFrame,
    "polars lazy": pl.LazyFrame,
    "arrow": pa.Table,
    "record batch": pa.Table,
    "reader": pa.Table,
    "relation": duckdb.DuckDBPyRelation,
}


def test_the_kind_of_frame_that_goes_in_comes_out(make_source: MakeSource):
    """Every kind of frame is answered in kind, with the same values (lists give pandas, streams give Arrow)."""
    rows = [task(n) | {"note": f"n{n}"} for n in (3, 0, 1, 0)]
    source = make_source([record(0), record(1, status="pending", dataFound=None)])
    hows: tuple[Any, ...] = ("left", "inner")
    for kind, how in product(KINDS, hows):
        answer = source.lookup(KINDS[kind](rows), how=how, now=NOW)
        assert isinstance(answer, GIVES.get(kind, pd.DataFrame)), kind
        if isinstance(answer, pl.LazyFrame | pl.DataFrame):
            assert answer.collect_schema()["status"] == pl.String
            assert answer.collect_schema()["dataFound"] == pl.Boolean
        expected = [
            ("n3", None, None),
            ("n0", "finished", True),
            ("n1", "timeout", None),
            ("n0", "finished", True),
        ]
        columns = (arrow(answer)[name].to_pylist() for name in ("note", "status", "dataFound"))
        assert list(zip(*columns, strict=True)) == expected[0 if how == "left" else 1 :], (kind, how)


def arrow(answer: Any) -> pa.Table:
    if isinstance(answer, pd.DataFrame):
        return pa.Table.from_pandas(answer, preserve_index=False)
    if isinstance(answer, duckdb.DuckDBPyRelation):
        return answer.to_arrow_table()
    return answer if isinstance(answer, pa.Table) else answer.lazy().collect().to_arrow()


def test_no_rows_keep_their_kind_and_types(make_source: MakeSource):
    """An empty frame of any kind comes back empty, with all columns of their types."""
    empty = pa.table({"entityId": pa.array([], pa.string()), "field": pa.array([], pa.string())})
    source = make_source([record(0)])
    for frame in (pl.DataFrame(empty), empty, duckdb.from_arrow(empty)):
        answer = source.lookup(frame, columns=["status", "dataFound", "createdAt"], now=NOW)
        assert isinstance(answer, type(frame))
        table = arrow(answer)
        assert table.num_rows == 0
        assert table.column_names == ["entityId", "field", "status", "dataFound", "createdAt"]
        assert pa.types.is_timestamp(table.schema.field("createdAt").type)


def test_a_relation_keeps_its_types_and_its_connection(make_source: MakeSource):
    """A DuckDB relation comes back with DuckDB's own types, on the caller's own connection."""
    with duckdb.connect() as con:
        con.execute(
            "create table mine as select $id::uuid as entityId, 'emails' as field, 'a'::enum('a','b') as e, 7::hugeint as h",
            {"id": uid(0)},
        )
        answer = make_source([record(0)]).lookup(con.table("mine"), now=NOW)
        assert list(map(str, answer.types[:4])) == list(map(str, con.table("mine").types))
        con.execute("create table answer as select 42 as x")
        assert make_source([record(0)]).lookup(con.table("mine"), now=NOW).fetchall()[0][-2:] == ("finished", True)
        with pytest.raises(es.ValidationError, match="already have the column status"):
            make_source([]).lookup(con.sql("select *, 1 as Status from mine"), now=NOW)
        with pytest.raises(es.ValidationError, match="cannot carry the column b unchanged"):
            make_source([]).lookup(con.sql("select *, '101'::bit as b from mine"), now=NOW)
        joined = answer.set_alias("a").join(con.table("mine").set_alias("b"), "entityId")
        assert joined.select("status").fetchall() == [("finished",)]


def test_columns_of_one_name_that_are_none_of_ours_are_left_alone(make_source: MakeSource):
    """A frame may have a name twice, as long as it is not the key's."""
    names = ["entityId", "field", "x", "x"]
    source = make_source([record(0)])
    frame = source.lookup(pd.DataFrame([[uid(0), "emails", 1, 2]], columns=names), now=NOW)
    table = source.lookup(pa.table([[uid(0)], ["emails"], [1], [2]], names=names), now=NOW)
    assert list(frame.columns) == table.column_names == [*names, "status", "dataFound"]


def test_unusual_columns_are_understood(make_source: MakeSource):
    """Categories, UUID objects, mixtures of them with text, and snake_case names are all read."""
    source = make_source([record(0), record(1, entityType="company")])
    objects = pd.DataFrame(
        {
            "entity_id": [uuid.UUID(uid(0)), uuid.UUID(uid(1)), None],
            "field": pd.Categorical(["emails"] * 3),
            "entity_type": ["person", "company", "person"],
        }
    )
    assert statuses(source, objects, errors="coerce") == ["finished", "finished", None]
    mixed = pd.DataFrame({"entityId": pd.Series([uuid.UUID(uid(0)), uid(1), 17], dtype=object), "field": "emails"})
    assert statuses(source, mixed, errors="coerce") == ["finished", None, None]
    with pytest.raises(es.ValidationError, match="row 2: entityId '17' is not a UUID"):
        source.lookup(mixed)


def test_numbers_for_ids_are_quoted_and_refused(make_source: MakeSource):
    """A column of numbers is no column of UUIDs, and the error quotes them."""
    with pytest.raises(es.ValidationError, match="2 bad tasks:\n  row 0: entityId '1' is not a UUID"):
        make_source([]).lookup(pd.DataFrame({"entityId": [1, 2], "field": "emails"}))


def test_what_is_no_frame_is_refused_with_what_would_be(make_source: MakeSource):
    """Anything else than a frame, a list of dicts or a path raises a ValidationError, not something from inside."""
    source = make_source([])
    wrong: list[Any] = [
        None,
        17,
        {"tasks": []},
        "nowhere.csv",
        ["x", 1],
        [1, 2],
        object(),
        pd.Series([1]),
        [{"entityId": "\ud800", "field": "emails"}, "x.csv"],
    ]
    for tasks in wrong:
        with pytest.raises(es.ValidationError):
            source.lookup(tasks)


def test_an_unusable_option_says_what_is_expected(make_source: MakeSource):
    """Options are evaluated before any work, and named in the error."""
    source: Any = make_source([record(0)])
    for name, value in (
        ("columns", "nonsense"),
        ("columns", []),
        ("columns", ["status", "status"]),
        ("how", "outer"),
        ("errors", "ignore"),
        ("now", "yesterday"),
        ("now", 17),
    ):
        with pytest.raises(es.ValidationError, match=f"{name}="):
            source.lookup([task(0)], **{name: value})


def test_now_may_be_in_any_zone(make_source: MakeSource):
    """An aware datetime is the instant it names; one without a zone is UTC."""
    source = make_source([record(0, status="pending", dataFound=None, createdAt="2026-11-16T08:00:00.000Z")])
    late = datetime(2026, 11, 16, 10, 30, tzinfo=timezone(timedelta(hours=2)))  # 08:30 UTC
    assert statuses(source, [task(0)], now=late) == ["timeout"]
    assert statuses(source, [task(0)], now=late.astimezone(UTC).replace(tzinfo=None)) == ["timeout"]
    assert statuses(source, [task(0)], now="2026-11-16T09:05:00+01:00") == ["pending"]


def test_many_tasks_and_few_get_the_same_answer(make_source: MakeSource):
    """A batch over the limit of the index gives row for row what the same tasks give in small batches."""
    source = make_source([record(n, status=f"s{n % 7}", dataFound=n % 2 == 0) for n in range(500)])
    tasks = pd.DataFrame([task(n % 600) for n in range(1200)])
    whole = source.lookup(tasks, columns="all", now=NOW)
    parts = pd.concat(
        [source.lookup(tasks[start : start + 200], columns="all", now=NOW) for start in range(0, 1200, 200)]
    )
    pd.testing.assert_frame_equal(whole, parts)


def test_a_status_is_explained(make_source: MakeSource):
    """`reason` says of each task why there is data or not, also of one that nobody bought and of one that is bad."""
    pending = {"status": "pending", "dataFound": None}
    source = make_source(
        [
            record(0),
            record(1, dataFound=False),
            record(2, dataFound=None),
            record(3, **pending, createdAt="2026-11-16T08:50:00.000Z"),
            record(4, **pending),
            record(5, status="timeout", dataFound=None),
            record(6, status="failed", dataFound=None),
            record(7, status="failed", dataFound=True),
            record(8, status="vanished", dataFound=True),
            record(9, status="vanished", dataFound=False),
            record(10, status="vanished", dataFound=None),
        ]
    )
    tasks = [*(task(n) for n in range(12)), task(0, "fax")]
    answer = source.lookup(tasks, columns=("reason", "status"), errors="coerce", now=NOW)
    assert answer["reason"].dtype == TEXT
    assert answer["reason"].tolist() == [
        *("data", "no_data", "no_data", "pending", "timed_out_here", "timed_out_there"),
        *("failed", "failed", "data", "no_data", "unknown", "no_record", "invalid"),
    ]
    assert answer.columns[-2:].tolist() == ["reason", "status"]
    known = source.lookup(tasks, columns="reason", errors="coerce", how="inner", now=NOW)
    assert known["reason"].tolist() == answer["reason"].tolist()[:11]
    empty = source.lookup([], columns=("reason", "age", "expiresIn"), now=NOW)
    assert empty.dtypes.tolist()[-3:] == [TEXT, np.dtype("float64"), np.dtype("float64")]


def test_the_age_of_a_record_and_what_is_left_of_its_time(make_source: MakeSource):
    """`age` is in seconds, of any record; `expiresIn` only of a pending one, by its field's maximum processing time, and never below 0."""
    pending = {"status": "pending", "dataFound": None}
    source = make_source(
        [
            record(0),
            record(1, **pending, createdAt="2026-11-16T08:59:00.250Z"),
            record(2, **pending, createdAt="2026-11-16T08:59:00.250Z", field="phones"),
            record(3, **pending),
        ],
        max_processing_time={"phones": "90s"},
    )
    tasks = [task(0), task(1), task(2, "phones"), task(3), task(4)]
    answer = source.lookup(tasks, columns=("age", "expiresIn"), now=NOW)
    nan = float("nan")
    np.testing.assert_allclose(answer["age"], [3600, 59.75, 59.75, 3600, nan])
    np.testing.assert_allclose(answer["expiresIn"], [nan, 740.25, 30.25, 0, nan])
