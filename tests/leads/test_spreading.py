"""One row a lead: what a lookup gave, spread; and the same from a lead list itself."""

from __future__ import annotations

import uuid
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import enrichstatus as es
from tests.support.factory import NOW, ORG, record, uid
from tests.support.sources import MakeSource

TEXT = pd.StringDtype(na_value=np.nan)
PENDING = {"status": "pending", "dataFound": None, "createdAt": "2026-11-16T08:59:00Z"}


def leads(*numbers: int) -> pd.DataFrame:
    return pd.DataFrame({"name": [f"lead {n}" for n in numbers], "id": [uid(n) for n in numbers]})


def status(store: es.EnrichmentStore, people: Any, fields: Any = ("emails", "phones"), **options: Any) -> Any:
    return store.lookup(es.tasks_from_leads(people, entity_id="id", fields=fields), now=NOW, **options)


@pytest.fixture
def known(store: es.EnrichmentStore) -> es.EnrichmentStore:
    store.load([record(0), record(10, entityId=uid(0), field="phones", status="failed", dataFound=None)])
    store.load([record(1), record(11, entityId=uid(1), field="phones", **PENDING), record(2, dataFound=False)])
    return store


def test_one_row_a_lead(known: es.EnrichmentStore):
    """Each lead is a row with its own columns, a status and whether there is data by field, and whether all has ended."""
    wide = es.spread(status(known, leads(2, 0, 1)))
    assert wide.columns.tolist() == [
        *(
            "name",
            "id",
            "entityId",
            "entityType",
            "emails_status",
            "emails_dataFound",
            "phones_status",
            "phones_dataFound",
            "ready",
        )
    ]
    assert wide["name"].tolist() == ["lead 2", "lead 0", "lead 1"]
    assert wide["emails_status"].tolist() == ["finished"] * 3
    assert wide["emails_dataFound"].tolist() == [False, True, True]
    assert wide["phones_status"].fillna("-").tolist() == ["-", "failed", "pending"]
    assert wide["phones_dataFound"].isna().all()
    assert wide["ready"].tolist() == [False, True, False]
    assert wide.dtypes.tolist()[-5:] == [TEXT, pd.BooleanDtype(), TEXT, pd.BooleanDtype(), pd.BooleanDtype()]


def test_what_explains_a_status_is_of_its_field(known: es.EnrichmentStore):
    """`reason`, `age` and `expiresIn`, where they were looked up, are told by field."""
    for kind in (pd.DataFrame, pl.DataFrame):
        wide = es.spread(status(known, kind(leads(0, 1)), columns=["age", "reason", "dataFound", "status"]))
        assert list(wide["emails_reason"]) == ["data", "data"]
        assert list(wide["phones_reason"]) == ["failed", "pending"]
        assert list(wide["phones_age"]) == [3600, 60]
        assert list(wide.columns)[-3:] == ["phones_reason", "phones_age", "ready"]


def test_spread_is_the_inverse_of_tasks_from_leads(known: es.EnrichmentStore):
    """Whatever the list, duplicates and leads without an id included, its rows come back in their order."""
    people = pd.concat([leads(2, 0, 2, 1, 0, 0), pd.DataFrame({"name": ["x", "y"], "id": [None, None]})])
    wide = es.spread(status(known, people, errors="coerce"))
    pd.testing.assert_frame_equal(wide[["name", "id"]], people.reset_index(drop=True))
    assert wide["ready"].tolist() == [False, True, False, False, True, True, False, False]


def test_leads_may_have_different_fields_and_any_order(known: es.EnrichmentStore):
    """Tasks of any order are spread; a field that was not looked up for a lead is null and keeps nobody waiting."""
    tasks = pd.DataFrame(
        {
            "entityId": [uid(0), uid(1), uid(2), uid(1), uid(0)],
            "field": ["phones", "emails", "emails", "phones", "emails"],
        }
    )
    wide = es.spread(known.lookup(tasks, now=NOW))
    assert wide["entityId"].tolist() == [uid(0), uid(1), uid(2)]
    assert wide.columns.tolist()[1:] == [
        "phones_status",
        "phones_dataFound",
        "emails_status",
        "emails_dataFound",
        "ready",
    ]
    assert wide["phones_status"].fillna("-").tolist() == ["failed", "pending", "-"]
    assert wide["ready"].tolist() == [True, False, True]


def test_a_person_and_a_company_of_one_id_are_two(known: es.EnrichmentStore):
    """Rows of one entity and two types are two leads."""
    tasks = pd.DataFrame({"entityId": [uid(0)] * 2, "entityType": ["person", "company"], "field": "emails"})
    assert es.spread(known.lookup(tasks))["emails_status"].fillna("-").tolist() == ["finished", "-"]


KINDS = {
    "polars": pl.DataFrame,
    "lazy": pl.LazyFrame,
    "arrow": pa.Table.from_pandas,
    "relation": lambda frame: duckdb.connect().sql("select * from frame"),
    "categories": lambda frame: frame.astype({"id": "category"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_of_frame_that_goes_in_comes_out(known: es.EnrichmentStore, kind: str):
    """Any frame is spread into its own kind, with the same values."""
    people = leads(2, 0, 1)
    given = KINDS[kind](people)
    wide = es.spread(status(known, given))
    assert type(wide) is type(given)
    table = wide.collect() if kind == "lazy" else wide
    table = table.to_arrow_table() if kind == "relation" else pa.table(table)
    expected = pa.Table.from_pandas(es.spread(status(known, people)), preserve_index=False)
    assert (
        table.select(["name", *expected.column_names[3:]]).to_pydict()
        == expected.select(["name", *expected.column_names[3:]]).to_pydict()
    )


def test_ids_that_are_no_text_are_spread(known: es.EnrichmentStore):
    """UUIDs as Python's objects, and as Arrow's, are leads like any other."""
    people = leads(0, 1).assign(id=[uuid.UUID(uid(n)) for n in (0, 1)])
    assert es.spread(status(known, people))["ready"].tolist() == [True, False]
    relation = duckdb.connect().sql(f"select uuid '{uid(0)}' as entityId, 'emails' as field")
    assert es.spread(known.lookup(relation.to_arrow_table()))["ready"].to_pylist() == [True]


def test_nothing_to_spread(store: es.EnrichmentStore):
    """An empty list is spread into an empty one, with the columns that do not depend on what is in it."""
    wide = es.spread(status(store, leads()))
    assert wide.columns.tolist() == ["name", "id", "entityId", "entityType", "ready"]
    assert len(wide) == 0


def test_a_prefix_is_part_of_the_names(known: es.EnrichmentStore):
    """With the prefix of the lookup the columns are found, and named after it."""
    wide = es.spread(status(known, leads(0), prefix="now_"), prefix="now_")
    assert wide.columns.tolist()[4:] == [
        *("emails_now_status", "emails_now_dataFound", "phones_now_status", "phones_now_dataFound", "ready")
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="status"), "lacks the column status; found name"),
        (lambda frame: frame.drop(columns=["field", "entityId"]), "lacks the columns entityId, field"),
        (lambda frame: frame.assign(ready=1), "already have the column ready"),
        (lambda frame: frame.assign(emails_status=1), "already have the column emails_status"),
        (lambda frame: 5, "Expected a DataFrame"),
    ],
)
def test_what_cannot_be_spread_is_told(store: es.EnrichmentStore, change: Any, message: str):
    """A missing column, or one of those that are added, is named."""
    with pytest.raises(es.ValidationError, match=message):
        es.spread(change(status(store, leads(0))))


# --- the accessor -------------------------------------------------------------------------------------------------------------


def test_a_lead_list_is_asked_itself(make_source: MakeSource):
    """`leads.enrichment.status` gives the list with its index and columns as they were, and the same as by hand, whoever answers."""
    source = make_source([record(0), record(11, entityId=uid(1), field="phones", **PENDING)])
    people = leads(1, 0, 1).set_index(pd.Index([7, 7, None])).assign(entityType="kept")
    wide = people.drop(columns="entityType").enrichment.status(
        source, entity_id="id", fields=["emails", "phones"], now=NOW
    )
    assert wide.index.tolist()[:2] == [7, 7]
    assert wide.columns.tolist()[:3] == ["name", "id", "emails_status"]
    assert wide["ready"].tolist() == [False] * 3
    assert wide["phones_status"].fillna("-").tolist() == ["pending", "-", "pending"]
    with pytest.raises(es.ValidationError, match="entityType"):
        people.enrichment.status(source, entity_id="id")


def test_a_lead_list_whose_ids_are_named_entityid(store: es.EnrichmentStore):
    """The column of the ids stays, also where it has the name that tasks have."""
    people = leads(0).rename(columns={"id": "entityId"})
    wide = people.enrichment.status(store, entity_id="entityId", fields="emails")
    assert wide.columns.tolist() == ["name", "entityId", "emails_status", "emails_dataFound", "ready"]


def test_a_lead_list_is_planned_and_covered(known: es.EnrichmentStore):
    """`leads.enrichment.plan` and `.coverage` are those of the tasks."""
    people = leads(0, 1, 2).assign(source=["web", "web", "fair"])
    plan = people.enrichment.plan(known, entity_id="id", fields="phones", costs={"phones": 10}, now=NOW)
    assert plan.frame["action"].tolist() == ["retry", "in_flight", "trigger"]
    assert plan.cost == 20
    covered = people.enrichment.coverage(known, by="source", entity_id="id", fields="emails", now=NOW).frame
    assert dict(zip(covered["source"], covered["with data"], strict=True)) == {"web": 2, "fair": 0}


def test_a_lead_without_an_id_is_named_or_empty(known: es.EnrichmentStore):
    """A list with a lead that has no id is refused with its row, or, coerced, has no status for it."""
    people = pd.DataFrame({"id": [uid(0), None]})
    people = pd.concat([people, people.tail(1)])
    for ask in (people.enrichment.status, people.enrichment.coverage):
        with pytest.raises(
            es.ValidationError,
            match=r"2 bad leads:\n  row 1: id is missing\n  row 2: id is missing\nRows are counted from 0, a header not counted. Fix",
        ):
            ask(known, entity_id="id", fields=["emails", "phones"])
        assert len(ask(known, entity_id="id", fields=["emails", "phones"], errors="coerce")) > 1
    people = people.head(2)
    wide = people.enrichment.status(known, entity_id="id", fields="emails", errors="coerce")
    assert wide["emails_status"].fillna("-").tolist() == ["finished", "-"]


# --- the gate -----------------------------------------------------------------------------------------------------------------


def ended(*words: str | None) -> pd.DataFrame:
    return pd.DataFrame({"status": pd.array(words, dtype=TEXT)})


def test_a_list_that_ended_well_enough_passes():
    """What is required is reached at the share itself, and the same object comes back."""
    frame = ended("finished", "finished", "failed", None)
    assert es.require(frame, ended=0.75, failed=0.25, tasks=4) is frame
    assert es.require(pl.DataFrame(frame), ended=0.5).height == 4
    assert len(es.require(pa.table({"old_status": ["failed"]}), ended=1, prefix="old_")) == 1


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (["finished", "pending"], {"ended": 0.98}, "Of 2 tasks 1 have ended (50 %), and 98 % are required."),
        (["finished", None], {"ended": 1}, "1 have ended (50 %), and 100 % are required"),
        (["failed", "timeout", "odd"], {"failed": 0.02}, "2 have failed or timed out (66.67 %), and at most 2 % may"),
        (["finished"] * 9999 + ["pending"], {"ended": 0.99999}, "9,999 have ended (99.99 %), and 99.999 % are"),
        ([], {"tasks": 1}, "Of 0 tasks there are 0, and 1 are required."),
        (["pending", "failed"], {"ended": 1, "failed": 0}, "(50 %), and 100 % are required; 1 have failed"),
    ],
)
def test_a_list_that_did_not_is_held_with_the_figures(words: Any, options: Any, message: str):
    """What is not reached is reported with its figures, all of it at once, and never rounded to what would do."""
    with pytest.raises(es.RequirementError) as caught:
        es.require(ended(*words), **options)
    assert message in str(caught.value)
    assert caught.value.figures["tasks"] == len(words)
    assert set(caught.value.figures) == {"tasks", "ended", "failed"}


def test_an_empty_list_passes_unless_tasks_are_required():
    """Of no tasks any share has ended, in any kind of frame."""
    for nothing in (ended(), [], pl.DataFrame({"status": []})):
        assert len(es.require(nothing, ended=1, failed=0)) == 0


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (ended("finished"), {}, "Nothing is required"),
        (ended("finished"), {"ended": 98}, "ended= takes a share from 0 to 1, not 98"),
        (ended("finished"), {"failed": float("nan")}, "failed= takes a share"),
        (ended("finished"), {"ended": True}, "ended= takes a share"),
        (ended("finished"), {"tasks": -1}, "tasks= takes a whole number"),
        (pd.DataFrame({"state": ["x"]}), {"ended": 1}, "There is no column 'status'; found state"),
        ("finished", {"ended": 1}, "finished"),
    ],
)
def test_a_requirement_that_cannot_be_meant_is_refused(frame: Any, options: Any, message: str):
    """A share that is none, no requirement at all, or no status is bad input, and not a list that failed."""
    with pytest.raises(es.ValidationError, match=message):
        es.require(frame, **options)


def test_organizations_stay_apart():
    """The list of another organization is a list of which nothing is known."""
    store = es.EnrichmentStore(org_id="org_2")
    store.load([record(0)])
    assert leads(0).enrichment.status(store, entity_id="id", fields="emails")["ready"].tolist() == [False]
    assert ORG != "org_2"


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, pa.Table.from_pandas], ids=["pandas", "polars", "arrow"])
def test_one_uuid_in_two_spellings_is_one_lead_and_one_task(kind: Any):
    """Spread has one row for it, and a plan buys it once."""
    spellings = [uid(0), uid(0).upper(), "{" + uid(0) + "}", uid(0).replace("-", ""), f" {uid(0)}\n", "x", "X", None]
    fields = ["emails", "phones", "summary", "notes", "age", "emails", "emails", "emails"]
    rows = pd.DataFrame({"entityId": spellings, "field": fields, "status": "finished", "dataFound": True})
    assert len(es.spread(kind(rows))) == 4
    tasks = kind(pd.DataFrame({"entityId": spellings[:5], "field": "emails"}))
    plan = es.plan(es.EnrichmentStore(org_id=ORG), tasks, costs={"emails": 1})
    assert (plan.cost, list(map(str, plan.frame["action"]))) == (1, ["trigger", *["duplicate"] * 4])
