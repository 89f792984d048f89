"""Names: the column of the ids is found where only one holds UUIDs, and a name that is wrong suggests the nearest one."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import enrichstatus as es
from tests.support.factory import ORG, record, uid

IDS = [uid(0), uid(1).upper(), f" {{{uid(2)}}}", None, "unknown", uid(3).replace("-", "")]
LEADS = pd.DataFrame({"n": range(6), "name": "Ada", "lead": IDS, "since": pd.Timestamp("2026-01-01"), "empty": None})


def test_the_only_column_of_uuids_is_found():
    """However they are spelled, with some that are missing or bad, in any kind of frame, of text, categories or UUIDs."""
    frames: list[Any] = [
        LEADS,
        LEADS.astype({"lead": "category"}),
        pl.from_pandas(LEADS),
        pa.Table.from_pandas(LEADS),
        LEADS.to_dict("records"),
        LEADS.assign(lead=[uuid.UUID(int=n) for n in range(6)]),
    ]
    for leads in frames:
        found = es.tasks_from_leads(leads, fields="emails")
        named = es.tasks_from_leads(leads, entity_id="lead", fields="emails")
        assert type(found) is type(named)
        assert [*map(str, found["entityId"])] == [*map(str, named["entityId"])]
    with es.EnrichmentStore(org_id=ORG) as store:
        store.load([record(0)])
        good = LEADS[:3]
        assert good.enrichment.status(store, fields="emails")["emails_status"].notna().tolist() == [True, False, False]
        assert good.enrichment.plan(store, fields="emails").frame["action"].tolist() == ["have", "trigger", "trigger"]
        with pytest.raises(es.ValidationError, match="row 3: lead is missing"):
            LEADS.enrichment.coverage(store, fields="emails")


@pytest.mark.parametrize(
    ("leads", "message"),
    [
        (
            LEADS.assign(boss=LEADS["lead"]),
            r"The columns lead, boss all hold UUIDs. Name the column of the leads' ids with entity_id=",
        ),
        (LEADS.drop(columns="lead"), "No column holds UUIDs with dashes, of n, name, since, empty. Name the column"),
        (LEADS.assign(lead=[uid(0), *"abcde"]), "No column holds UUIDs with dashes"),
        (LEADS[:0], "There are no leads that would show which column holds UUIDs"),
        (LEADS.assign(lead=uid(0).replace("-", "")), "No column holds UUIDs with dashes"),
        (
            LEADS.rename(columns={"lead": "companyId"}),
            "'companyId', by its name of a company, and the leads are looked up as person",
        ),
        (LEADS.rename(columns={"lead": "Account ID"}), r"say entity_type='company' \(--entity-type company"),
        ([], "There are no leads: the list is empty"),
    ],
)
def test_where_it_is_not_clear_the_caller_names_it(leads: Any, message: str):
    """Several columns of UUIDs, or none, or one of something else, hashes, or companies for persons, are refused."""
    with pytest.raises(es.ValidationError, match=message):
        es.tasks_from_leads(leads)
    if isinstance(leads, pd.DataFrame) and "companyId" in leads:
        assert len(es.tasks_from_leads(leads, entity_type="company", fields="emails")) == len(leads)


def test_a_wrong_name_suggests_the_nearest():
    """Of columns, fields, statuses and choices the message ends with the one that may have been meant, and with none that is far."""
    store = es.EnrichmentStore(org_id=ORG)
    tasks = [{"entityId": uid(0), "field": "emails"}]
    calls: dict[str, Callable[[], object]] = {
        "Did you mean lead?": lambda: es.tasks_from_leads(LEADS, entity_id="leed"),
        "found entity, field. Did you mean entity?": lambda: store.lookup([{"entity": uid(0), "field": "emails"}]),
        "Did you mean createdAt?": lambda: store.lookup(tasks, columns=["created_at"]),
        "Did you mean left?": lambda: store.lookup(tasks, how="lef"),  # type: ignore[arg-type]
        "Did you mean person?": lambda: es.tasks_from_leads(LEADS, entity_id="lead", entity_type="persons"),
        "Did you mean phones?": lambda: es.EnrichmentStore(max_processing_time={"phone": "5min"}),
        "Did you mean emails?": lambda: es.plan(store, tasks, costs={"email": 1}, new_organization=True),
        "Did you mean pending?": lambda: es.EnrichmentStore(statuses={"busy": "pendng"}),
        "Did you mean when?": lambda: store.load([record(0) | {"when": 1}], columns={"wen": "createdAt"}),
        "Did you mean score?": lambda: es.plan(
            store, pd.DataFrame(tasks).assign(score=1), priority="scores", new_organization=True
        ),
    }
    for message, call in calls.items():
        with pytest.raises(es.ValidationError, match=message.replace("?", r"\?")):
            call()
    with pytest.raises(es.ValidationError, match=r"but the leads have n, name, lead, since, empty\.$"):
        es.tasks_from_leads(LEADS, entity_id="zzz")
