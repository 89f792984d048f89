"""Lead lists become tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import enrichstatus as es
from enrichstatus.files import scratch
from tests.support.factory import NOW, ORG, record, uid

LEADS = [{"lead_id": uid(n), "name": f"n{n}", "score": n} for n in range(3)]
FIELDS = ["emails", "phones"]


def test_a_lead_list_becomes_one_task_a_lead_and_field():
    """Lead by lead in the order of the list, with the list's columns and dtypes, and an index that tells rows apart."""
    leads = pd.DataFrame(LEADS, index=["x", "y", "y"])
    tasks = es.tasks_from_leads(leads, entity_id="lead_id", fields=FIELDS, entity_type="company")
    assert tasks.columns.tolist() == ["lead_id", "name", "score", "entityId", "entityType", "field"]
    assert tasks.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert tasks["entityId"].tolist() == [uid(0), uid(0), uid(1), uid(1), uid(2), uid(2)]
    assert tasks["field"].tolist() == FIELDS * 3
    assert set(tasks["entityType"]) == {"company"}
    assert tasks.dtypes["score"] == leads.dtypes["score"]
    assert leads.columns.tolist() == ["lead_id", "name", "score"]


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (pl.DataFrame, pl.DataFrame),
        (pl.LazyFrame, pl.LazyFrame),
        (pa.Table.from_pylist, pa.Table),
        (lambda rows: duckdb.from_arrow(pa.Table.from_pylist(rows)), duckdb.DuckDBPyRelation),
        (list, pd.DataFrame),
    ],
    ids=["polars", "lazy", "arrow", "relation", "dicts"],
)
def test_the_kind_of_list_that_goes_in_comes_out(make: Any, kind: type, store: es.EnrichmentStore):
    """Every kind of lead list gives tasks of its kind, which the lookup answers in kind."""
    store.load([record(1, field="phones")])
    tasks = es.tasks_from_leads(make(LEADS), entity_id="lead_id", fields=FIELDS)
    assert isinstance(tasks, kind)
    status = store.lookup(tasks, how="inner", now=NOW)
    assert isinstance(status, kind)
    table = (
        status
        if isinstance(status, (pa.Table, pd.DataFrame))
        else status.collect()
        if isinstance(status, pl.LazyFrame)
        else status
    )
    rows = table.to_arrow_table() if isinstance(table, duckdb.DuckDBPyRelation) else table
    assert list(rows["name"].to_pylist() if isinstance(rows, pa.Table) else rows["name"]) == ["n1"]


def test_a_file_of_leads_is_read_as_text(tmp_path: Path):
    """A path gives pandas, text cells as they stand in the file, zip codes included."""
    (tmp_path / "leads.csv").write_text(f"lead_id,zip,note\n{uid(0)},00123,NA\n,5,\n")
    tasks = es.tasks_from_leads(tmp_path / "leads.csv", entity_id="lead_id", fields="emails")
    assert tasks["zip"].tolist() == ["00123", "5"]
    assert tasks["note"].fillna("-").tolist() == ["NA", "-"]
    assert tasks["entityId"].isna().tolist() == [False, True]


def test_every_column_of_a_messy_file_comes_along(tmp_path: Path):
    """Names twice, in other cases, missing or like ours keep their values, under names of their own; blank ids keep their row."""
    (tmp_path / "leads.csv").write_text(f"lead_id,a,a,a 2,A,,__file__\n{uid(0)},1,2,3,4,5,6\n")
    with pytest.warns(es.HeaderWarning, match="missing or stand twice; such columns are called 'a 3', 'column 6' here"):
        tasks = es.tasks_from_leads(tmp_path / "leads.csv", entity_id="lead_id", fields="emails")
    assert tasks.iloc[0, 1:7].tolist() == ["1", "2", "3", "4", "5", "6"]
    assert tasks.columns.tolist()[:7] == ["lead_id", "a", "a 3", "a 2", "A", "column 6", "__file__"]
    (tmp_path / "ids.csv").write_text(f"id\n{uid(0)}\n\n{uid(1)}\n")
    tasks = es.tasks_from_leads(tmp_path / "ids.csv", entity_id="id", fields="emails")
    assert tasks["entityId"].fillna("-").tolist() == [uid(0), "-", uid(1)]


def test_leads_whose_id_column_is_named_like_ours(store: es.EnrichmentStore):
    """An id column that is already called entityId stays where it is, in either spelling."""
    store.load([record(0)])
    for name in ("entityId", "entity_id"):
        leads = pd.DataFrame({name: [uid(0)], "x": [1]})
        tasks = es.tasks_from_leads(leads, entity_id=name, fields=["emails"])
        assert tasks.columns[0] == name
        assert store.lookup(tasks, now=NOW)["status"].tolist() == ["finished"]


def test_an_empty_list_gives_no_tasks(store: es.EnrichmentStore):
    """A list of no leads has the columns of tasks, and the lookup those of an answer."""
    empty = pd.DataFrame({"lead_id": pd.Series([], dtype=object)})
    status = store.lookup(es.tasks_from_leads(empty, entity_id="lead_id"), now=NOW)
    assert len(status) == 0
    assert status.columns.tolist() == ["lead_id", "entityId", "entityType", "field", "status", "dataFound"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entity_id": "id"}, "entity_id= names the column 'id', but the leads have lead_id, name, score"),
        ({"entity_id": "lead_id", "fields": []}, "fields= takes distinct names"),
        ({"entity_id": "lead_id", "fields": ["emails", "emails"]}, "fields= takes distinct names"),
        ({"entity_id": "lead_id", "entity_type": "robot"}, "entity_type= is one of 'person', 'company'"),
    ],
)
def test_unusable_options_say_what_is_expected(options: dict[str, Any], message: str):
    """A wrong column, no fields, a field twice, an unknown type: each is named."""
    with pytest.raises(es.ValidationError, match=message):
        es.tasks_from_leads(pd.DataFrame(LEADS), **options)


def test_a_list_that_has_our_columns_is_refused():
    """A lead list with a column called field or entityType would lose it, so it is refused."""
    with pytest.raises(es.ValidationError, match="already have a column field"):
        es.tasks_from_leads(pd.DataFrame(LEADS).assign(field="x"), entity_id="lead_id")


def test_columns_that_are_named_by_numbers_are_read(store: es.EnrichmentStore):
    """A frame whose columns are numbers, as without a header, is a lead list too; an id column twice is not."""
    store.load([record(0)])
    tasks = es.tasks_from_leads(pd.DataFrame({0: [uid(0)]}), entity_id=0, fields=["emails"])  # type: ignore[arg-type]
    assert store.lookup(tasks, now=NOW)["status"].tolist() == ["finished"]
    with pytest.raises(es.ValidationError, match="two columns named 'lead_id'"):
        es.tasks_from_leads(pd.DataFrame([[1, 2]], columns=["lead_id", "lead_id"]), entity_id="lead_id")


def test_two_columns_of_one_name_are_refused(store: es.EnrichmentStore):
    """A frame with the key's column twice cannot be read unambiguously."""
    twice = pd.DataFrame([[uid(0), uid(1), "emails"]], columns=["entityId", "entityId", "field"])
    with pytest.raises(es.ValidationError, match="two columns named entityId"):
        store.lookup(twice, now=NOW)


@pytest.mark.parametrize("native", [pd.DataFrame, pl.DataFrame, pl.LazyFrame, pa.Table.from_pylist])
@pytest.mark.parametrize("promise", ["narwhals", "narwhals.stable.v1"])
def test_narwhals_frames_come_back_as_narwhals_frames(native: Any, promise: str):
    """What narwhals has wrapped is read, and wrapped again in what comes back: of the same promise, and native within."""
    narwhals = pytest.importorskip(promise, reason="narwhals is not installed")
    store = es.EnrichmentStore(org_id=ORG)
    store.load([record(n, status="finished", dataFound=True) for n in range(2)])
    leads = narwhals.from_native(native(LEADS))
    tasks = es.tasks_from_leads(leads, entity_id="lead_id", fields=FIELDS)
    status = store.lookup(tasks, how="left", now=NOW)
    rows = es.spread(store.lookup(tasks, now=NOW))
    for frame in (tasks, status, es.plan(store, tasks, now=NOW).frame, rows):
        assert type(frame) is type(leads)
        assert type(frame.to_native()) is type(leads.to_native())
    found = status.collect() if hasattr(status, "collect") else status
    assert [pd.isna(one) or one for one in found["status"].to_list()] == [
        "finished",
        True,
        "finished",
        True,
        True,
        True,
    ]
    assert found["score"].to_list() == [0, 0, 1, 1, 2, 2]


def test_a_database_that_duckdb_has_given_up_is_replaced():
    """What passes through DuckDB goes on after an error that ends its database."""
    with scratch.scratch() as con:
        assert con.execute("select 42").fetchall() == [(42,)]
    scratch._database.close()  # type: ignore[union-attr]
    with scratch.scratch() as con:
        assert con.execute("select 43").fetchall() == [(43,)]
