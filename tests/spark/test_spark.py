"""The source on Spark: what it has beyond the contract suite, on a cluster of two executors."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import enrichstatus as es
from enrichstatus.lookup.tasks import KEYS_SQL, create_vocabularies
from enrichstatus.schema import COLUMNS, FIELDS
from enrichstatus.sources.spark import store as spark_store
from enrichstatus.sources.spark.records import with_keys
from tests.support.cluster import OPTIONS, SHORT_LIVED
from tests.support.factory import NOW, ORG, record, task, uid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyspark.sql import DataFrame, SparkSession

#: for a process that is started elsewhere
HERE = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
TEXT = pa.schema([(name, pa.bool_() if name == "dataFound" else pa.string()) for name in COLUMNS])


def frame_of(spark: SparkSession, records: list[dict[str, Any]]) -> DataFrame:
    return spark.createDataFrame(pa.Table.from_pylist(records, TEXT))


def source_of(spark: SparkSession, records: list[dict[str, Any]], **options: Any) -> es.SparkEnrichmentStore:
    return es.SparkEnrichmentStore(spark, frame_of(spark, records), **{"org_id": ORG} | options)


def tasks_of(spark: SparkSession, rows: list[dict[str, Any]]) -> DataFrame:
    return spark.createDataFrame(pa.Table.from_pylist(rows))


def rows_of(frame: DataFrame) -> list[tuple[Any, ...]]:
    return sorted(map(tuple, frame.collect()), key=repr)


@pytest.fixture
def jobs(spark: SparkSession) -> Iterator[Callable[[], int]]:
    """Count the jobs that have run since the test began."""
    group = str(uuid.uuid4())
    spark.sparkContext.setJobGroup(group, "counted")
    yield lambda: len(spark.sparkContext.statusTracker().getJobIdsForGroup(group))
    spark.sparkContext._jsc.clearJobGroup()


@pytest.fixture
def set_conf(spark: SparkSession) -> Iterator[Callable[[str, str], None]]:
    """Set an option of the session for the time of a test."""
    before: dict[str, str] = {}

    def change(name: str, value: str) -> None:
        before.setdefault(name, spark.conf.get(name))
        spark.conf.set(name, value)

    yield change
    for name, value in before.items():
        spark.conf.set(name, value)


def test_a_spark_frame_gives_one_with_the_callers_columns_unchanged(spark: SparkSession):
    """Odd names, names that are alike, types and duplicate rows are as they were, and the requested columns follow."""
    values = f"'{uid(0).upper()}' as `entity_id`, 'emails' as field, 1 as `a.b`, array(2) as `a b`, 3 as x, 4 as x"
    odd = "5 as `Field`, 'p' as position, 7d as tasks, 8 as given0, '`' as ```q```, {} as rank"
    tasks = spark.sql(f"select {values}, {odd.format('1')} union all select {values}, {odd.format('1')}")
    answer = source_of(spark, [record(0)]).lookup(tasks, now=NOW)
    assert answer.dtypes == [*tasks.dtypes, ("status", "string"), ("dataFound", "boolean")]
    assert rows_of(answer) == [(*row, "finished", True) for row in rows_of(tasks)]
    assert len(rows_of(answer)) == 2


def test_a_spark_frame_keeps_or_loses_tasks_without_a_record(spark: SparkSession):
    """``left`` keeps them, bad ones too, and says why; ``inner`` leaves them out."""
    rows = [task(0), task(0), task(1), {"entityId": "x", "field": "emails"}, {"entityId": None, "field": "emails"}]
    rows = [one | {"entityType": "person"} for one in rows]
    source = source_of(spark, [record(0), record(2)])
    options: dict[str, Any] = {"errors": "coerce", "columns": ("reason", "status"), "now": NOW, "prefix": "is_"}
    answer = source.lookup(tasks_of(spark, rows), **options)
    assert answer.columns[-2:] == ["is_reason", "is_status"]
    reasons = sorted((row.is_reason, row.is_status) for row in answer.collect() if row.is_status)
    assert reasons == [("data", "finished")] * 2
    assert sorted(row.is_reason for row in answer.collect()) == ["data", "data", "invalid", "invalid", "no_record"]
    inner = source.lookup(tasks_of(spark, rows), how="inner", **options)
    assert [row.is_status for row in inner.collect()] == ["finished"] * 2


def test_columns_of_a_spark_frame_are_typed(spark: SparkSession):
    """All columns beyond the key come as text, instants and booleans, and what explains a status too."""
    answer = source_of(spark, [record(0)]).lookup(tasks_of(spark, [task(0)]), columns="all", now=NOW)
    types = dict(answer.dtypes)
    assert (types["createdAt"], types["dataFound"], types["createdBy"]) == ("timestamp", "boolean", "string")
    assert answer.columns == [
        "entityId",
        "field",
        *(n for n in COLUMNS if n not in ("entityId", "entityType", "field")),
    ]
    explained = source_of(spark, [record(0)]).lookup(tasks_of(spark, [task(0)]), columns=("age", "expiresIn"), now=NOW)
    assert explained.dtypes[-2:] == [("age", "double"), ("expiresIn", "double")]


def test_a_clash_of_names_in_spark_goes_without_regard_to_case(spark: SparkSession):
    """Spark takes STATUS for status, so that the lookup refuses, and ``prefix=`` adds beside it."""
    tasks = tasks_of(spark, [task(0) | {"STATUS": "mine"}])
    source = source_of(spark, [record(0)])
    with pytest.raises(es.ValidationError, match=r"already have the column status.*prefix="):
        source.lookup(tasks, now=NOW)
    assert source.lookup(tasks, now=NOW, prefix="now_").first().now_status == "finished"
    with pytest.raises(es.ValidationError, match=r"Tasks need the column field; found entityId"):
        source.lookup(tasks.select("entityId"))


def test_a_spark_frame_is_lazy(spark: SparkSession, jobs: Callable[[], int]):
    """Neither making a source nor a lookup that coerces runs a job; one that raises runs over the keys alone."""
    source = source_of(spark, [record(0)])
    tasks = spark.sql(f"select '{uid(0)}' as entityId, 'emails' as field, assert_true(id < 0) as never from range(1)")  # noqa: S608
    repr(source)
    answer = source.lookup(tasks, errors="coerce", now=NOW)
    assert jobs() == 0
    source.lookup(tasks, now=NOW)
    assert jobs() > 0
    assert answer.select("status").first().status == "finished"


def test_bad_tasks_of_a_spark_frame_are_named_at_the_call(spark: SparkSession):
    """One error, whose message shows the first few kinds, its problems all, with how many tasks are of each."""
    rows = [task(0), {"entityId": "nonsense", "field": "fax"}, {"entityId": None, "field": "emails"}]
    rows += [{"entityId": "nonsense", "field": "fax"}]
    with pytest.raises(es.ValidationError) as caught:
        source_of(spark, []).lookup(tasks_of(spark, rows), now=NOW)
    assert str(caught.value).startswith("3 bad tasks:\n  ")
    assert "\n  entityId 'nonsense' is not a UUID\n" in str(caught.value)
    assert 'errors="coerce"' in str(caught.value)
    problems = caught.value.problems
    assert problems is not None
    assert sorted(problems.fillna("").itertuples(index=False, name=None)) == [
        (1, "entityId", "", "is missing"),
        (2, "entityId", "nonsense", "is not a UUID"),
        (2, "field", "fax", "is not one of emails, phones, summary"),
    ]


def test_lookups_at_once_do_not_meet(spark: SparkSession):
    """Threads that ask the same source, each for another organization, get their own answers, and no view is left."""
    records = [record(n, orgId=f"org_{n}", entityId=uid(0), status=f"s{n}") for n in range(4)]
    source = source_of(spark, records)

    def ask(number: int) -> str:
        options: dict[str, Any] = {"org_id": f"org_{number % 4}", "now": NOW}
        if number < 4:
            return str(source.lookup([task(0)], **options)["status"][0])
        return str(source.lookup(tasks_of(spark, [task(0)]), **options).first().status)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(8))) == ["s0", "s1", "s2", "s3"] * 2
    assert spark.catalog.listTables() == []


def test_one_organization_never_sees_another(spark: SparkSession):
    """Records of others are unseen, bad ones too; those without an organization are the source's, not the asker's."""
    records = [record(0, orgId=" org_1 "), record(1, orgId=None), record(2, orgId="org_2"), record(3, orgId="")]
    source = source_of(spark, [*records, record(4, orgId="org_3", entityId="nonsense")])
    tasks = [task(n) for n in range(4)]
    mine = source.lookup(tasks, columns="orgId", now=NOW)["orgId"]
    assert mine.fillna("").tolist() == ["org_1", "org_1", "", "org_1"]
    theirs = source.lookup(tasks, columns="orgId", org_id="org_2", now=NOW)["orgId"]
    assert theirs.fillna("").tolist() == ["", "", "org_2", ""]
    with pytest.raises(es.ValidationError, match="nonsense"):
        source.lookup(tasks, org_id="org_3", now=NOW)


def test_instants_are_utc_whatever_the_sessions_zone(spark: SparkSession, set_conf: Callable[[str, str], None]):
    """Text and timestamps without a zone are UTC, also where the session's zone skips or repeats the hour."""
    set_conf("spark.sql.session.timeZone", "America/New_York")
    texts = ["2026-03-08T02:30:00.123456", "2026-11-01T01:30:00Z", "2026-11-01 06:30:00+00:00", "2026-07-01"]
    records = [record(n, createdAt=text, updatedAt=None) for n, text in enumerate(texts)]
    expected = [pd.Timestamp(text) for text in texts]
    expected = [one.tz_localize("UTC") if one.tzinfo is None else one.tz_convert("UTC") for one in expected]
    tasks = [task(n) for n in range(4)]
    frame = frame_of(spark, records)
    sql = "to_timestamp_ntz(regexp_replace(left(createdAt, 26), '(Z|[+]00:00)$', ''))"
    for kind in (frame, frame.selectExpr("* except (createdAt)", f"{sql} as createdAt")):
        source = es.SparkEnrichmentStore(spark, kind, org_id=ORG)
        answer = source.lookup(tasks, columns=("createdAt", "age"), now="2026-11-16T09:00:00")
        assert answer["createdAt"].dtype == pd.DatetimeTZDtype("us", "UTC")
        assert answer["createdAt"].tolist() == expected
        now = pd.Timestamp(NOW)
        np.testing.assert_allclose(answer["age"], [(now - one).total_seconds() for one in expected])
    assert dict(kind.dtypes)["createdAt"] == "timestamp_ntz"


BAD: dict[str, Any] = {
    "entityId": ("nonsense", "entityId 'nonsense' is not a UUID"),
    "field": ("fax", "field 'fax' is not one of emails, phones, summary"),
    "entityType": (None, "entityType is missing"),
    "createdAt": ("yesterday", "createdAt 'yesterday' is not an ISO 8601 timestamp"),
    "updatedAt": ("10:00:00", "updatedAt '10:00:00' is not an ISO 8601 timestamp"),
    "status": (" ", "status is missing"),
    "id": ("17", "id '17' is not a UUID"),
}


def test_a_bad_record_fails_the_lookup_or_is_left_out(spark: SparkSession):
    """By default the error names column and value; a source that rejects answers as if the record were not there."""
    for name, (value, message) in BAD.items():
        records = [record(0), record(1, **{name: value})]
        with pytest.raises(es.ValidationError, match=rf"^A bad record: {re.escape(message)}\. Fix it.*reject"):
            source_of(spark, records).lookup([task(0)], now=NOW)
    records = [record(0), *(record(1, **{name: value}) for name, (value, _) in BAD.items())]
    answer = source_of(spark, records, errors="reject").lookup([task(0), task(1)], now=NOW)
    assert answer["status"].fillna("").tolist() == ["finished", ""]


def test_a_bad_record_fails_a_spark_frame_where_it_runs(spark: SparkSession):
    """The error of a lazy answer is Spark's own, and says the same."""
    from pyspark.errors import PySparkException

    answer = source_of(spark, [record(0, status=None)]).lookup(tasks_of(spark, [task(0)]), now=NOW)
    with pytest.raises(PySparkException, match="A bad record: status is missing"):
        answer.collect()


def test_records_are_read_by_other_names_and_without_what_is_optional(spark: SparkSession):
    """Renamed and snake_case columns are found, absent ones are null, and an id is made as a store makes it."""
    given = [{"lead": uid(0).upper(), "field": "emails", "created_at": "2026-11-16T08:00:00Z", "status": " finished "}]
    given[0] |= {"data_found": "yes", "error": ""}
    source = es.SparkEnrichmentStore(spark, tasks_of(spark, given), org_id=ORG, columns={"lead": "entityId"})
    store = es.EnrichmentStore(org_id=ORG)
    store.load(given, columns={"lead": "entityId"})
    options: dict[str, Any] = {"columns": COLUMNS, "prefix": "r_", "now": NOW}
    answer = source.lookup([task(0)], **options)
    pd.testing.assert_frame_equal(answer, store.lookup([task(0)], **options))
    assert answer["r_dataFound"].tolist() == [True]
    with pytest.raises(es.ValidationError, match=r"need the columns createdAt, entityId; found a.*columns="):
        es.SparkEnrichmentStore(spark, spark.sql("select 1 as a, 2 as field, 3 as status"))


def test_spark_finds_names_organizations_and_statuses_as_a_store_does(spark: SparkSession):
    """Names are folded, columns of one meaning coalesced or refused, organizations stripped, the contract's words known in any case."""
    given = [
        {"org_id": None, "ORG_ID ": None, **record(0, orgId=f"{ORG} ", status="PENDING ", dataFound=None)},
        {**record(1), "orgId": None, "org_id": "rival", "ORG_ID ": None},
        {**record(2), "orgId": None, "org_id": None, "ORG_ID ": f"\t{ORG}"},
    ]
    rows = [{name: None if value is None else str(value) for name, value in row.items()} for row in given]
    source = es.SparkEnrichmentStore(spark, tasks_of(spark, rows), org_id=f" {ORG}")
    tasks = [task(n) for n in range(3)]
    early = "2026-11-16T08:00:01Z"
    assert source.lookup(tasks, now=early)["status"].fillna("").tolist() == ["pending", "", "finished"]
    assert source.lookup(tasks, now=early, org_id="rival\n")["status"].fillna("").tolist() == ["", "finished", ""]
    rows[2]["org_id"] = "rival"
    source = es.SparkEnrichmentStore(spark, tasks_of(spark, rows), org_id=ORG)
    with pytest.raises(es.ValidationError, match="orgId stands there more than once, and differs"):
        source.lookup(tasks, now=early, org_id="rival")
    nobodys = [
        {name: value for name, value in row.items() if name not in ("orgId", "org_id", "ORG_ID ")} for row in rows
    ]
    stray = tasks_of(spark, [row | {"workspaceId": "rival"} for row in nobodys])
    with pytest.raises(es.ValidationError, match="workspaceId looks like the organization"):
        es.SparkEnrichmentStore(spark, stray, org_id=ORG)
    source = es.SparkEnrichmentStore(spark, stray, org_id=ORG, columns={"workspaceId": None})
    assert source.lookup(tasks, now=early)["status"].notna().all()


def test_what_is_no_spark_frame_is_refused(spark: SparkSession):
    """The message says what gives one."""
    for records in (pd.DataFrame([record(0)]), [record(0)], "records.parquet", None):
        with pytest.raises(es.ValidationError, match=r"spark\.read\.parquet"):
            es.SparkEnrichmentStore(spark, records)
    with pytest.raises(es.ValidationError, match="spark= is a SparkSession, not NoneType"):
        es.SparkEnrichmentStore(None, frame_of(spark, []))
    other = spark.newSession().sql("select '' as entityId, '' as field")
    with pytest.raises(es.ValidationError, match="another Spark session"):
        source_of(spark, []).lookup(other)


def test_a_request_of_the_contract_is_answered(spark: SparkSession):
    """`query` gives the wire objects that a store gives, and refuses what a store refuses."""
    records = [record(0), record(1, status="pending", dataFound=None)]
    store = es.EnrichmentStore(org_id=ORG)
    store.load(records)
    source = source_of(spark, records)
    body = {"tasks": [task(1), task(0), task(1), task(2)]}
    assert source.query(body, now=NOW) == store.query(body, now=NOW)
    with pytest.raises(es.ValidationError, match="is not a UUID"):
        source.query({"tasks": [{"entityId": "x", "field": "emails"}]})
    assert repr(source).startswith("SparkEnrichmentStore(records with id, createdAt, ")
    assert repr(source).endswith("org_id='org_1')")


def spellings(count: int) -> Iterator[str | None]:
    """Spell UUIDs in every way that is a UUID, or nearly."""
    chance = random.Random(7)
    spaces = [*[""] * 20, " ", "\t", "\n", "\r\n", "\x0b", "\u00a0", "\u2003", "\u2028", "\u200b", "\ufeff", "\x85"]
    for _ in range(count):
        value = uuid.UUID(int=chance.getrandbits(128))
        text = chance.choice([str(value), str(value), value.hex])
        text = chance.choice([text, text, text.upper(), text.title()])
        letters = list(text)
        for _ in range(chance.choice([0, 0, 0, 0, 1, 2])):
            letters.insert(chance.randrange(len(letters) + 1), chance.choice("-------- {}g\n0"))
        if chance.random() < 0.1:
            del letters[chance.randrange(len(letters))]
        text = "".join(letters)
        text = chance.choice(
            [text] * 5
            + ["{" + text + "}"] * 3
            + ["{" + text + "}", "{" + text, text + "}", "{{" + text + "}}", "-" + text]
        )
        yield chance.choice(spaces) + text + chance.choice(spaces)
    yield from ("", " ", "{}", "{", "-", "{-}", None, "0" * 32, "-" * 36, "\u0660" * 32, "g" * 32)


def test_spark_reads_a_uuid_where_duckdb_does(spark: SparkSession):
    """Of thousands of spellings, right and wrong, the cluster reads the same ones and as the same UUIDs."""
    texts = list(spellings(4000))
    fields = [
        random.Random(n).choice([*FIELDS, *FIELDS, "Emails", " emails", "emails ", None]) for n in range(len(texts))
    ]
    given = pa.table({"entityId": pa.array(texts, pa.string()), "field": fields, "entityType": ["person"] * len(texts)})
    with duckdb.connect() as con:
        create_vocabularies(con, FIELDS)
        con.register("given", given)
        query = f"select entityId, field, castEntityId::varchar as uuid, castField::varchar as known from ({KEYS_SQL})"  # noqa: S608
        expected = con.sql(query).fetchall()
    assert 1000 < sum(row[2] is not None for row in expected) < 3900
    names = {name: name for name in given.column_names}
    keyed = with_keys(
        spark, spark.createDataFrame(given).toDF("a", "b", "c"), dict(zip(names, "abc", strict=True)), FIELDS
    )
    assert rows_of(keyed.select("a", "b", "entityId", "field")) == sorted(expected, key=repr)


def random_records(chance: random.Random, count: int) -> list[dict[str, Any]]:
    moment = datetime(2026, 11, 16, 9, tzinfo=UTC)
    moments = [moment - timedelta(seconds=n) for n in (0, 799, 800, 801, 90_000)]
    made = []
    for number in range(count):
        status = chance.choice(["pending", "finished", "timeout", "failed", "unheard of"])
        made.append(
            record(
                number,
                entityId=chance.choice([str, str.upper])(uid(chance.randrange(40))),
                entityType=chance.choice(["person", "person", "company"]),
                field=chance.choice(FIELDS),
                createdAt=chance.choice(moments).isoformat(),
                updatedAt=chance.choice([None, *(one.isoformat() for one in moments)]),
                status=status,
                dataFound=chance.choice([None, True, False]),
                orgId=chance.choice(["org_1", "org_1", "org_2"]),
                error=chance.choice([None, "", "provider unavailable"]),
            )
        )
    return made


def test_spark_gives_the_frames_that_a_store_gives(spark: SparkSession, monkeypatch: pytest.MonkeyPatch):
    """Over random records, several of a key and alike in all but their id, every column of every task is the same."""
    chance = random.Random(11)
    records = random_records(chance, 600)
    store = es.EnrichmentStore(org_id=ORG)
    store.load(records)
    source = source_of(spark, records)
    tasks = pd.DataFrame(
        [
            {
                "entityId": uid(n % 50),
                "field": chance.choice(FIELDS),
                "entityType": chance.choice(["person", "company"]),
            }
            for n in range(400)
        ]
    ).assign(row=range(400))
    options: dict[str, Any] = {"columns": (*COLUMNS, "reason", "age", "expiresIn"), "prefix": "r_", "now": NOW}
    # of few tasks the records are narrowed before they are shuffled, and of many they are not
    for org, few in (("org_1", True), ("org_1", False), ("org_2", True)):
        if not few:
            monkeypatch.setattr(spark_store, "FEW", -1)
            monkeypatch.setattr(spark_store, "FEW_BYTES", -1)
        expected = store.lookup(tasks, org_id=org, **options)
        pd.testing.assert_frame_equal(source.lookup(tasks, org_id=org, **options), expected)
        lazily = source.lookup(spark.createDataFrame(pa.Table.from_pandas(tasks)), org_id=org, **options)
        table = lazily.toArrow().sort_by("row")
        wanted = pa.Table.from_pandas(expected, preserve_index=False)
        assert table.column_names == wanted.column_names
        assert table.cast(wanted.schema).equals(wanted)


def test_records_and_tasks_are_shuffled_once(
    spark: SparkSession, set_conf: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
):
    """The newest record of each key is found where the caller's rows meet it; the keys of few tasks go to the records instead."""
    names = "uuid() as entityId, 'emails' as field from range(1000)"
    records = spark.sql(f"select now() as createdAt, 'finished' as status, {names}")
    source, tasks = es.SparkEnrichmentStore(spark, records, org_id=ORG), spark.sql(f"select {names}")

    def plan() -> str:
        return str(source.lookup(tasks, errors="coerce", now=NOW)._jdf.queryExecution().executedPlan().toString())

    assert "LeftSemi" in plan()
    monkeypatch.setattr(spark_store, "FEW_BYTES", -1)
    set_conf("spark.sql.autoBroadcastJoinThreshold", "1000")  # of these the asker's rows alone are smaller
    assert "LeftSemi" not in plan()
    assert plan().count("Exchange hashpartitioning") == 2


def test_an_organization_without_records_is_a_warning(spark: SparkSession):
    """Where there are records of others; a Spark DataFrame that coerces is not read, and one known to have records not looked for again."""
    source = source_of(spark, [record(0)])
    lazily = tasks_of(spark, [task(1)])
    for tasks in ([task(0)], lazily):
        with pytest.warns(es.OrganizationWarning, match=r"none of the organization 'org_l'\. Check") as caught:
            source.lookup(tasks, org_id="org_l", now=NOW)
        assert caught[0].filename == __file__
        source.lookup(tasks, now=NOW)
    source.lookup([task(1)], now=NOW)
    source.lookup(lazily, org_id="org_l", errors="coerce", now=NOW)
    source_of(spark, []).lookup([task(0)], now=NOW)


def test_a_timestamp_beside_another_spelling_of_its_name_is_refused(spark: SparkSession):
    """As text it would be of the session's zone; what is text on both sides is one column."""
    records = frame_of(spark, [record(0)])
    twice = records.selectExpr("*", "to_timestamp(createdAt) as created_at")
    with pytest.raises(es.ValidationError, match=r"columns createdAt, created_at, .* Leave one out"):
        es.SparkEnrichmentStore(spark, twice, org_id=ORG)
    with pytest.raises(es.ValidationError, match="updatedAt, Updated_At"):
        es.SparkEnrichmentStore(spark, records.selectExpr("*", "localtimestamp() as Updated_At"), org_id=ORG)
    text = es.SparkEnrichmentStore(spark, records.selectExpr("*", "createdAt as created_at"), org_id=ORG)
    assert text.lookup([task(0)], now=NOW)["status"].tolist() == ["finished"]


@pytest.mark.slow
def test_an_executor_that_is_lost_costs_no_row(spark: SparkSession):
    """A process of the cluster is killed in the middle of a join: what it had is made again, and the answer is whole."""
    # a record takes a moment to read, so that the join is under way for seconds
    slowly = "reflect('java.lang.Thread', 'sleep', cast(2 as bigint)) is not null or true"
    base = "select uuid(1) as u, id from range(0, 2000, 1, 8)"
    names = "md5(cast(id as string)) as entityId, 'emails' as field"
    records = spark.sql(
        f"select {names}, timestamp'2026-11-16T08:00:00Z' as createdAt, if({slowly}, 'finished', '') as status from ({base})"  # noqa: S608
    )
    source = es.SparkEnrichmentStore(spark, records, org_id=ORG)
    answer = source.lookup(spark.sql(f"select id, {names} from ({base})"), errors="coerce", now=NOW)  # noqa: S608
    tracker = spark.sparkContext.statusTracker()
    victim = executors(spark)[0]
    with ThreadPoolExecutor(1) as pool:
        whole = pool.submit(lambda: answer.groupBy("status").count().collect())
        while not any(
            stage.numCompletedTasks for number in tracker.getActiveStageIds() if (stage := tracker.getStageInfo(number))
        ):
            assert not whole.done(), "the join was over before anything could be lost"
        os.kill(victim, signal.SIGKILL)
        assert [tuple(row) for row in whole.result(120)] == [("finished", 2000)]
    assert victim not in executors(spark)


def executors(spark: SparkSession) -> list[int]:
    """Find the processes of this cluster's executors."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    here = f"CoarseGrainedExecutorBackend.*--app-id {spark.sparkContext.applicationId}"
    return [int(line.split()[0]) for line in listed.splitlines() if re.search(here, line)]


STOPPED = f"""
import pyarrow as pa, enrichstatus as es
from pyspark.sql import SparkSession
builder = SparkSession.builder.master("local[1]")
for name, value in {OPTIONS | SHORT_LIVED!r}.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
records = spark.sql("select '' as entityId, 'emails' as field, now() as createdAt, 'finished' as status")
tasks = spark.sql("select 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6' as entityId, 'emails' as field")
source = es.SparkEnrichmentStore(spark, records, org_id="org_1")
spark.stop()
local = [{{"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails"}}]
for call in (
    lambda: source.lookup(local),
    lambda: source.lookup(tasks),
    lambda: es.SparkEnrichmentStore(spark, records),
):
    try:
        call()
    except es.StoreError as error:
        print(error)
print(repr(source))
"""


@pytest.mark.slow
def test_a_stopped_session_is_said_to_be_stopped(spark: SparkSession, tmp_path: Any):
    """A lookup of either kind, and a new source, say what happened and what to do."""
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, cwd=tmp_path, env=HERE)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stdout + done.stderr
    assert all(line.startswith("The Spark session was stopped; make a new one") for line in lines[:3])
    assert lines[3].startswith("SparkEnrichmentStore(records with entityId")


def test_without_pyspark_the_message_says_what_to_install():
    """Where the extra is missing the class is still there, and using it says how to get it."""
    code = """
import sys
sys.modules["pyspark"] = None
import enrichstatus as es
try:
    es.SparkEnrichmentStore(None, None)
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=HERE)
    assert 'pip install "enrichstatus[spark]"' in done.stdout
