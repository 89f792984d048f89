"""A store's records in SQL: the lookup as a table macro, one organization's records, and locks that only DuckDB opens."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pytest

import enrichstatus as es
from tests.support.factory import NOW, ORG, record, task, uid

PENDING = {"status": "pending", "dataFound": None}
RECORDS = [
    record(0),
    record(1, **PENDING, createdAt="2026-11-16T08:59:00.000Z"),
    record(2, **PENDING),
    record(3, status="failed", dataFound=True),
    record(4, entityId=uid(3), createdAt="2026-11-16T07:00:00.000Z"),
    record(5, entityType="company"),
    record(6, orgId="org_2", createdBy="user_of_org_2"),
    record(7, entityId=uid(0), orgId="org_2", status="failed", createdAt="2026-11-16T08:30:00.000Z"),
]
TASKS = pd.DataFrame(
    [
        *(task(n) | {"name": f"lead {n}"} for n in (3, 0, 1, 2, 6, 9, 0)),
        {"entityId": "{" + uid(0).upper() + "} ", "field": "emails"},
        task(5) | {"entityType": "company"},
        {"entityId": "x", "field": "emails"},
        task(0, "fax"),
    ]
)


@pytest.fixture(scope="module")
def loaded() -> es.EnrichmentStore:
    store = es.EnrichmentStore(org_id=ORG)
    store.load(RECORDS)
    return store


def rows(frame: pd.DataFrame, names: list[str]) -> list[list[Any]]:
    table = frame[names].astype(object)
    return sorted(table.where(table.notna(), None).values.tolist(), key=str)


def test_the_macro_gives_what_the_lookup_gives(loaded: es.EnrichmentStore):
    """Every status, reason and key, of a frame by keyword or by name, of a CTE and of a table, now and at another instant."""
    names = ["name", "field", "status", "dataFound", "reason"]
    tasks = TASKS.assign(entityType=TASKS["entityType"].fillna("person"))
    answers = {}
    for now in (NOW, "2026-11-16T08:00:30Z"):
        answer = loaded.lookup(tasks, columns=("status", "dataFound", "reason"), errors="coerce", now=now)
        answers[now] = expected = rows(answer, names)
        for kind in (lambda frame: frame, pl.from_pandas, lambda frame: frame.to_dict("records")):
            given = loaded.sql("from enrichment_status(tasks)", tasks=kind(tasks), now=now)
            assert rows(given.df(), names) == expected
        in_cte = loaded.sql("with mine as (from tasks where true) from enrichment_status(mine)", now=now)
        assert rows(in_cte.df(), names) == expected
        with loaded.connect(now=now) as con:
            con.register("leads", tasks)
            assert rows(con.sql("from enrichment_status('leads')").df(), names) == expected
            con.execute("create temp table tasks as from leads")
            assert rows(con.sql("from enrichment_status(tasks)").df(), names) == expected
    assert answers[NOW] != answers["2026-11-16T08:00:30Z"]
    with loaded.connect(now=NOW) as con:
        con.register("many", pd.concat([tasks] * 2_000))
        found = con.sql("from enrichment_status(many)").df()
        assert found["entityId"].tolist() == tasks["entityId"].tolist() * 2_000
    again = loaded.lookup(loaded.sql("select entityId, field from enrichments order by all limit 2"), now=NOW)
    assert isinstance(again, duckdb.DuckDBPyRelation)
    assert again.count("*").fetchall() == [(2,)]
    status = loaded.sql("from enrichment_status(given) join enrichments on id = enrichmentId", given=[task(3)], now=NOW)
    assert status.select("reason, createdBy").fetchall() == [("failed", "user_1")]


def test_only_the_organization_that_asks_is_seen(loaded: es.EnrichmentStore, tmp_path: Path):
    """Nothing that the connection can read names another organization, of a store in memory, in a file, or opened read-only."""
    path = tmp_path / "store.duckdb"
    with es.EnrichmentStore(path, org_id=ORG) as store:
        store.load(RECORDS)
        assert store.sql("select count(*) from enrichments").fetchall() == [(6,)]
    for store in (loaded, es.EnrichmentStore(path, read_only=True)):
        with store.connect(org_id=ORG) as con:
            things = con.sql(
                "select schema_name || '.' || table_name from duckdb_tables() "
                "union all select schema_name || '.' || view_name from duckdb_views() where not internal"
            )
            names = [name for (name,) in things.fetchall()]
            assert {"main.enrichments", "parts.enrichment_records"} <= set(names)
            assert con.sql("show tables").fetchall() == [("enrichments",)]
            assert "org_2" not in str([con.sql(f"from {name}").fetchall() for name in names])
            assert con.sql("select count(*), min(orgId), max(orgId) from enrichments").fetchall() == [(6, ORG, ORG)]
        assert [len(store.sql("from enrichments", org_id=org).df()) for org in ("org_2", ORG)] == [2, 6]
        with pytest.warns(es.OrganizationWarning):
            store.connect(org_id="org_3").close()
    store.close()
    with pytest.raises(es.ValidationError, match="Organization ID is missing"):
        es.EnrichmentStore().sql("from enrichments")
    with pytest.raises(es.StoreError, match="closed"):
        store.sql("from enrichments", org_id=ORG)


def test_what_writes_attaches_or_reads_files_is_refused(loaded: es.EnrichmentStore, tmp_path: Path):
    """DuckDB's own locks refuse it, before and after what tries to open them, and nothing comes to stand in any file."""
    (tmp_path / "data.csv").write_text("a\n1\n")
    statements = [
        "insert into parts.enrichment_records from parts.enrichment_records",
        "delete from parts.enrichment_records",
        "update parts.enrichment_records set status = 'failed'",
        "drop view enrichments",
        "create table mine as select 1 as x",
        "create or replace macro enrichment_status(x) as table select 1",
        f"attach '{tmp_path}/other.duckdb'",
        f"copy (select 1) to '{tmp_path}/out.csv'",
        f"export database '{tmp_path}/all'",
        f"from read_csv('{tmp_path}/data.csv')",
        f"from '{tmp_path}/data.csv'",
        f"from glob('{tmp_path}/*')",
        f"from read_text('{tmp_path}/data.csv')",
        "install httpfs",
        "set enable_external_access = true",
        "set lock_configuration = false",
        "reset lock_configuration",
        "set temp_directory = '/tmp/elsewhere'",
        "pragma enable_profiling = 'json'",
    ]
    with loaded.connect() as con:
        for setting in ("temp_directory", "secret_directory", "extension_directory", "home_directory"):
            ((folder,),) = con.sql(f"select current_setting('{setting}')").fetchall()
            folder = folder or tmp_path
            statements += [
                f"copy (select 1) to '{folder}/out.csv'",
                f"export database '{folder}'",
                f"attach '{folder}/x.db'",
            ]
        before = con.sql("from enrichments order by id").fetchall()
        for statement in statements:
            with pytest.raises(duckdb.Error):
                con.execute(statement)
            with pytest.raises(es.ValidationError, match=r"^query= "):
                loaded.sql(statement).fetchall()
        with pytest.raises(duckdb.Error):
            con.read_csv(str(tmp_path / "data.csv"))
        assert con.sql("from enrichments order by id").fetchall() == before
    assert os.listdir(tmp_path) == ["data.csv"]


def test_a_query_that_cannot_be_run_says_why(loaded: es.EnrichmentStore):
    """What is not text, names what is not there, is or wrong, is refused in words, and a frame is found by its name."""
    queries: list[tuple[Any, str]] = [
        (7, "takes a query as text, not 7"),
        ("", "takes a query as text"),
        ("select '\ud800'", "takes a query as text"),
        ("from nowhere", "Table with name nowhere does not exist"),
        ("selec 1", "syntax error"),
        ("from enrichment_status(lacking)", 'The table of the tasks does not have a column named "field"'),
        ("from enrichments; from enrichments", "takes one query that reads .*, not 2 statements"),
        ("-- nothing", "not 0 statements"),
        ("create temp table mine as from enrichments", "not a statement of the kind CREATE"),
        ("set variable mine = 1", "not a statement of the kind SET"),
    ]
    lacking = pd.DataFrame({"entityId": [uid(0)]})
    # as of an earlier lookup: it would be taken for the new one
    for name in ("status", "dataFound", "reason", "enrichmentId", "STATUS"):
        with pytest.raises(es.ValidationError, match=rf"(?i)^query= adds the column {name} to tasks that have one"):
            loaded.sql(
                "with mine as (from given) from enrichment_status(mine) where status = 'failed'",
                given=[task(0) | {name: "theirs"}],
            )
    for query, why in queries:
        with pytest.raises(es.ValidationError, match=rf"^query= .*{why}"):
            loaded.sql(query)
    assert loaded.sql("select * from lacking").fetchall() == [tuple(lacking.iloc[0])]
    with pytest.raises(es.ValidationError, match="now="):
        loaded.connect(now="yesterday")
    with pytest.raises(duckdb.ConversionException):  # of a value, when it is computed: as the docstring says
        loaded.sql("select status::int from enrichments").fetchall()


def test_frames_have_any_name(loaded: es.EnrichmentStore):
    """Words of SQL and of Python, and lists of dicts by their name; the records' own name, and one name twice, are refused."""
    ENRICHMENTS, tasks = TASKS[:1], [task(3), task(9)]  # the view is meant, in any case
    for name in ("query", "self", "select", "given", "parts", "ORDER"):
        assert loaded.sql(f'from "{name}"', **{name: TASKS}).shape == TASKS.shape
    assert loaded.sql("select status from enrichment_status(tasks)", now=NOW).fetchall() == [("failed",), (None,)]
    assert loaded.sql("select count(*) from ENRICHMENTS").fetchall() == [(6,)] != [(len(ENRICHMENTS),)]
    # columns of any name, also of those that the macro might be made of
    extra = dict.fromkeys(
        ["enrichment_position", "enrichment_position_1", "position", "place", "id", "orgId", "now", "asked", "tasks"], 7
    )
    odd = loaded.sql("from enrichment_status(wide)", wide=TASKS.assign(**extra), now=NOW)
    assert (
        odd.project("status").fetchall()
        == loaded.sql("select status from enrichment_status(t)", t=TASKS, now=NOW).fetchall()
    )
    assert odd.project(*map('"{}"'.format, extra)).distinct().fetchall() == [(7,) * len(extra)]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"Enrichments": TASKS}, "^Enrichments= is what the records are called"),
        ({"leads": TASKS, "LEADS": tasks}, "^LEADS= is given twice"),
        ({"leads": 5}, "^leads= is not a frame .*not int"),
        ({"leads": pd.DataFrame([[1, 2]], columns=["a", "a"])}, "^leads= has columns of the same name"),
    ]
    for given, why in wrong:
        with pytest.raises(es.ValidationError, match=why):
            loaded.sql("select 1", **given)


def test_a_pivot_finds_its_values(loaded: es.EnrichmentStore):
    """A PIVOT without values is one query, over records and over a frame that is found by its name."""
    tasks = pd.DataFrame([task(0), task(3)])
    found = loaded.sql("pivot enrichments on status using count(*) group by entityType order by entityType").df()
    assert found.to_dict("list") == {
        "entityType": ["person", "company"],
        "failed": [1, 0],
        "finished": [2, 1],
        "pending": [2, 0],
    }
    found = loaded.sql("from (pivot enrichment_status(tasks) on status using count(*) group by field)", now=NOW).df()
    assert found.to_dict("list") == {"field": ["emails"], "failed": [1], "finished": [len(tasks) - 1]}


def test_records_are_those_of_the_moment_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A load is seen by the next query and by no earlier one; the temporary folder is as empty as before."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = es.EnrichmentStore(org_id=ORG)
    store.load([record(0)])
    earlier, con = store.sql("from enrichments"), store.connect()
    store.load([record(1)])
    assert [len(each.df()) for each in (earlier, con.table("enrichments"), store.sql("from enrichments"))] == [1, 1, 2]
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_has_a_copy_of_its_own(tmp_path: Path):
    """The child queries and closes without touching what it inherited, and the parent's copy is as it was."""
    path = tmp_path / "store.duckdb"
    with es.EnrichmentStore(path) as store:
        store.load(RECORDS)
    with es.EnrichmentStore(path, org_id=ORG, read_only=True) as store:
        assert len(store.sql("from enrichments")) == 6
        child = multiprocessing.get_context("fork").Process(target=_queried, args=(store,))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert len(store.sql("from enrichments")) == 6


def _queried(store: es.EnrichmentStore) -> None:
    assert len(store.sql("from enrichments")) == 6
    store.close()
