"""What to buy: the action of each task, why, what it costs, and that nothing is bought twice."""

from __future__ import annotations

import math
import pickle
import random
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import enrichstatus as es
from enrichstatus.cli import main
from enrichstatus.outcomes import OUTCOMES
from enrichstatus.simulation import SimulatedStore
from tests.support.cases import cases
from tests.support.factory import NOW, ORG, record, task, uid
from tests.support.sources import MakeSource

PENDING = {"status": "pending", "dataFound": None}
COSTS = {"emails": 1, "phones": 10}


def actions(plan: es.Plan) -> list[str]:
    return list(plan.frame["action"])


def records() -> list[dict[str, Any]]:
    """Give a record for every reason, by number."""
    return [
        record(0),
        record(1, dataFound=False),
        record(2, **PENDING, createdAt="2026-11-16T08:50:00Z"),
        record(3, **PENDING),
        record(4, status="timeout", dataFound=None),
        record(5, status="failed", dataFound=None),
    ]


def test_each_task_has_an_action_a_reason_and_a_cost(make_source: MakeSource):
    """What has data is had, what has none is not bought again, what is in flight is left alone, the rest is to be bought, whoever answers."""
    tasks = [
        *(task(n) for n in range(7)),
        task(0),
        task(6, "phones"),
        task(7, "fax"),
        {"entityId": "x", "field": "emails"},
    ]
    plan = es.plan(make_source(records()), tasks, costs=COSTS, now=NOW)
    assert plan.frame[["action", "reason", "cost"]].to_numpy().tolist() == [
        ["have", "data found on 2026-11-16", 0],
        ["no_data", "finished without data on 2026-11-16", 0],
        ["in_flight", "bought on 2026-11-16, still pending", 0],
        ["retry", "bought on 2026-11-16, still pending after its time", 1],
        ["retry", "bought on 2026-11-16, timed out", 1],
        ["retry", "failed on 2026-11-16", 1],
        ["trigger", "never bought", 1],
        ["duplicate", "the same task as in row 0", 0],
        ["trigger", "never bought", 10],
        ["invalid", "field is not one of emails, phones, summary", 0],
        ["invalid", "entityId is not a UUID", 0],
    ]
    assert plan.frame.dtypes.astype(str).tolist()[-3:] == ["str", "str", "float64"]
    assert plan.cost == 14
    assert len(plan) == 11


def test_what_is_retried_can_be_chosen(store: es.EnrichmentStore):
    """Of what timed out and what failed only those that `retry` names are bought again, and the reason says so of the others."""
    store.load(records())
    tasks = [task(n) for n in (3, 4, 5)]
    assert actions(es.plan(store, tasks, retry="failed", now=NOW)) == ["no_data", "no_data", "retry"]
    assert actions(es.plan(store, tasks, retry=("timeout",), now=NOW)) == ["retry", "retry", "no_data"]
    plan = es.plan(store, tasks, retry=(), now=NOW)
    assert actions(plan) == ["no_data"] * 3
    assert plan.frame["reason"][2] == "failed on 2026-11-16, and retry= leaves that alone"


def test_what_is_stale_is_bought_again(store: es.EnrichmentStore):
    """What finished longer ago than `stale_after`, with data or without, is bought again; what failed is not stale."""
    old = {"createdAt": "2026-09-01T08:00:00Z", "updatedAt": "2026-09-01T08:01:00Z"}
    late = {"createdAt": "2026-09-01T08:00:00Z", "updatedAt": "2026-11-15T08:01:00Z"}
    failed = {"status": "failed", "dataFound": None}
    store.load(
        [record(0, **old), record(1, **old, dataFound=False), record(2, **old, **failed), record(3), record(4, **late)]
    )
    plan = es.plan(store, [task(n) for n in range(5)], stale_after="30 days", retry=(), now=NOW)
    assert actions(plan) == ["trigger", "trigger", "no_data", "have", "have"]
    assert plan.frame["reason"][0] == "data found on 2026-09-01, which is stale"
    updated = record(5, createdAt="2026-09-01T08:00:00Z", updatedAt=None)
    store.load([updated])
    assert actions(es.plan(store, [task(5)], stale_after="30 days", now=NOW)) == ["trigger"]


def test_how_long_an_answer_is_fresh_may_differ_by_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """`stale_after` by field: each answer expires in its time, which `expiresOn` shows; what is not named never does."""
    old = {"createdAt": "2026-10-01T08:00:00Z", "updatedAt": "2026-10-01T08:01:00Z"}
    path = tmp_path / "s.duckdb"
    with es.EnrichmentStore(path, org_id=ORG) as store:
        store.load([
            *(record(n, entityId=uid(0), field=field, **old) for n, field in enumerate(("emails", "phones", "summary"))),
            record(3, entityId=uid(1), status="failed", dataFound=None, **old),
        ])  # fmt: skip
        tasks = pd.DataFrame([task(0), task(0, "phones"), task(0, "summary"), task(1), task(2), task(0)])
        fresh = {"emails": "90 days", "phones": "30 days"}
        plan = es.plan(store, tasks, stale_after=fresh, retry=(), now=NOW)
        assert actions(plan) == ["have", "trigger", "have", "no_data", "trigger", "duplicate"]
        expires = plan.frame["expiresOn"]
        assert str(expires.dtype) == "datetime64[us, UTC]"
        days = ["2026-12-30 08:01", "2026-10-31 08:01", "NaT", "NaT", "NaT", "2026-12-30 08:01"]
        assert expires.tolist() == pd.DatetimeIndex(days, tz="UTC").tolist()
        assert plan.frame["reason"][1] == "data found on 2026-10-01, which is stale"
        dtypes = es.plan(store, tasks[:0], stale_after=fresh).frame.dtypes
        assert str(dtypes["expiresOn"]) == str(
            es.plan(store, tasks, stale_after=timedelta(days=900_000)).frame.dtypes["expiresOn"]
        )
        assert "expiresOn" not in es.plan(store, tasks).frame
        with pytest.raises(es.ValidationError, match="stale_after= names the field fax; the fields are emails"):
            es.plan(store, tasks, stale_after={"fax": 1})
        with pytest.raises(es.ValidationError, match="already have the column expiresOn"):
            es.plan(store, tasks.assign(expiresOn=1), stale_after=fresh)
    tasks.to_csv(tmp_path / "tasks.csv", index=False)
    command = ["plan", str(tmp_path / "tasks.csv"), "--store", str(path), "--org", ORG, "--now", NOW, "--retry", "none"]
    output = tmp_path / "plan.csv"
    assert main([*command, "--stale-after", "emails=90d,phones=30d", "-o", str(output)]) == 0
    written = pd.read_csv(output)
    assert written["action"].tolist() == actions(plan)
    assert written["expiresOn"][0].startswith("2026-12-30")
    capsys.readouterr()
    assert main([*command, "--stale-after", "fax=90d"]) == 2
    assert "--stale-after names the field fax" in capsys.readouterr().err


def test_what_is_leased_in_a_store_is_in_flight_for_a_plan_over_a_service(store: es.EnrichmentStore):
    """With `into=` a plan over another source knows what a trigger into that store has requested."""

    class Service:
        def lookup(self, tasks: Any, **options: Any) -> Any:
            return store.lookup(tasks, **options)

    with store.leasing() as leases:
        taken = leases.take(es.plan(store, [task(0)]).purchases(), datetime.fromisoformat("2026-11-16T23:30:00-05:00"))
        assert taken.num_rows == 1
    spelled = {"entityId": f" {uid(0).upper()} ", "field": "emails"}
    assert actions(es.plan(Service(), [spelled, task(1)])) == ["trigger", "trigger"]
    plan = es.plan(Service(), [spelled, task(1), task(0)], into=store)
    assert actions(plan) == ["in_flight", "trigger", "duplicate"]
    assert plan.frame["reason"][0] == "requested on 2026-11-17, and not answered yet"
    with pytest.raises(es.ValidationError, match="into= takes an EnrichmentStore, not dict"):
        es.plan(Service(), [task(0)], into={})


def test_an_entity_known_as_another_type_is_said_so(store: es.EnrichmentStore):
    """A company that is planned as a person is not bought, in any field; one that is known as both is."""
    store.load(
        [record(0, entityType="company"), record(1, entityType="company"), record(2, entityId=uid(1), field="phones")]
    )
    tasks = [task(0), task(0, "phones"), task(1), task(1, "phones"), task(2), task(0) | {"entityType": "company"}]
    plan = es.plan(store, tasks, now=NOW)
    assert actions(plan) == ["invalid", "invalid", "trigger", "have", "trigger", "have"]
    assert plan.frame["reason"][0] == "known as a company: is the entity type right?"
    store.load([record(5)])
    back = es.plan(store, [task(5) | {"entityType": "company"}])
    assert back.frame["reason"].tolist() == ["known as a person: is the entity type right?"]


def test_a_plan_looks_each_task_up_once(store: es.EnrichmentStore):
    """A source that may be a service is not sent the tasks without a record a second time."""
    asked = []

    class Service:
        def lookup(self, tasks: Any, **options: Any) -> Any:
            asked.append(len(tasks))
            return store.lookup(tasks, **options)

    plan = es.plan(Service(), [task(n) for n in range(7)], now=NOW)
    assert actions(plan) == ["trigger"] * 7
    assert asked == [7]


def test_a_status_that_nobody_knows_is_not_bought_again(store: es.EnrichmentStore):
    """It may be no failure: only what the table of outcomes says is bought is bought."""
    store.load([*records(), record(7, status="cancelled", dataFound=None)])
    plan = es.plan(store, [task(n) for n in (*range(6), 7, 8)], now=NOW)
    assert plan.frame["reason"][6] == "ended on 2026-11-16 with a status that is unknown"
    reasons = store.lookup([task(n) for n in (*range(6), 7, 8)], columns="reason", now=NOW)["reason"]
    bought = [action in ("trigger", "retry") for action in actions(plan)]
    assert bought == [OUTCOMES[reason].bought for reason in reasons]
    assert sum(bought) == 4


@pytest.mark.parametrize("kind", ["store", "scan"])
def test_a_misspelt_organization_buys_nothing(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Where there are records, but none of the organization, a plan is refused, and names nobody else, unless that is meant."""
    records, path = tmp_path / "r.parquet", tmp_path / "s.duckdb"
    pd.DataFrame([record(0)]).to_parquet(records)
    with es.EnrichmentStore(path, org_id="org_l") as store:
        empty = es.plan(store, [task(0)])
        assert "; the store is empty: nothing is known of what was bought before" in repr(empty)
        store.load(records)
    make = es.EnrichmentStore if kind == "store" else es.EnrichmentStore.scan
    with make(path if kind == "store" else records, org_id="org_l") as source:
        with pytest.raises(es.ValidationError, match="none of the organization 'org_l'") as caught:
            es.plan(source, [task(0)])
        assert "new_organization=True" in str(caught.value)
        assert ORG not in str(caught.value)
        plan = es.plan(source, [task(0)], new_organization=True)
        assert actions(plan) == ["trigger"]
        assert "empty" not in repr(plan)
    pd.DataFrame([task(0)]).to_csv(tmp_path / "tasks.csv", index=False)
    given = ("--store", str(path)) if kind == "store" else ("--records", str(records))
    command = ["plan", str(tmp_path / "tasks.csv"), *given, "--org", "org_l"]
    assert main(command) == 2
    assert "or pass --new-organization to" in capsys.readouterr().err
    assert main([*command, "--new-organization"]) == 0
    assert "1 to trigger" in capsys.readouterr().out


def test_a_wrong_column_for_the_entity_is_warned_of(store: es.EnrichmentStore):
    """Where nearly none of many tasks has a record, though there are records of their fields; not of few tasks, nor of new fields."""
    store.load([record(n) for n in range(5)])
    strangers = [task(n) for n in range(1000, 1095)]
    with pytest.warns(es.EntityWarning, match="96 of 100 tasks have no record, though there are") as caught:
        plan = es.plan(store, [*strangers, *(task(n) for n in range(1, 6))], now=NOW)
    assert caught[0].filename == __file__
    assert actions(plan).count("trigger") == 96
    es.plan(store, [*strangers, *(task(n) for n in range(5))], now=NOW)
    es.plan(store, strangers, now=NOW)
    es.plan(store, [task(n, "phones") for n in range(1000, 1100)], now=NOW)


# --- money --------------------------------------------------------------------------------------------------------------------


def test_a_budget_buys_the_most_valuable_first(store: es.EnrichmentStore):
    """By `priority` the greatest come first, those without one last, and what cannot be paid is passed over for what can."""
    tasks = pd.DataFrame([task(n, field) for n, field in enumerate(["emails", "phones", "emails", "phones", "emails"])])
    tasks["score"] = [1, 9, 5, 8, None]
    plan = es.plan(store, tasks, costs=COSTS, budget=12, priority="score")
    assert actions(plan) == ["trigger", "trigger", "trigger", "over_budget", "over_budget"]
    assert plan.cost == 12
    assert plan.frame["reason"][3] == "never bought, but beyond the budget"
    assert plan.frame["cost"].tolist() == [1, 10, 1, 0, 0]
    assert "2 more are beyond the budget" in repr(plan)
    in_order = es.plan(store, tasks, costs=COSTS, budget=11)
    assert actions(in_order) == ["trigger", "trigger", "over_budget", "over_budget", "over_budget"]
    assert actions(es.plan(store, tasks, costs=COSTS, budget=0)) == ["over_budget"] * 5
    free = es.plan(store, tasks, costs={"emails": 0, "phones": 10}, budget=0)
    assert actions(free) == ["trigger", "over_budget"] * 2 + ["trigger"]


def test_a_budget_is_never_exceeded_and_never_left_where_it_would_do(store: es.EnrichmentStore):
    """Against a loop over the tasks, one by one: the same are bought, whatever the prices, priorities and budget."""
    generator = random.Random(5)
    for _ in range(cases(15, 40)):
        fields = [generator.choice(["emails", "phones", "summary"]) for _ in range(30)]
        costs = {name: generator.choice([0, 0.1, 0.7, 1, 2.5, 10]) for name in ("emails", "phones", "summary")}
        scores = [generator.choice([None, 1, 2, 3, -4.5]) for _ in fields]
        budget = generator.choice([0, 0.3, 1, 7, 20, 1000])
        tasks = pd.DataFrame([task(n, field) for n, field in enumerate(fields)]).assign(
            score=pd.Series(scores, dtype="float64")
        )
        plan = es.plan(store, tasks, costs=costs, budget=budget, priority="score")
        left, expected = budget + 1e-9, ["over_budget"] * len(fields)
        for row in sorted(
            range(len(fields)), key=lambda n: -math.inf if scores[n] is None else scores[n], reverse=True
        ):
            if costs[fields[row]] <= left:
                left -= costs[fields[row]]
                expected[row] = "trigger"
        assert actions(plan) == expected
        assert plan.cost <= budget + 1e-9


def test_what_is_over_budget_is_neither_duplicated_nor_paid_twice(store: es.EnrichmentStore):
    """A duplicate costs nothing, whatever becomes of the first."""
    plan = es.plan(store, [task(0), task(0), task(1), task(1)], costs=COSTS, budget=1)
    assert actions(plan) == ["trigger", "duplicate", "over_budget", "duplicate"]


# --- what comes out -----------------------------------------------------------------------------------------------------------


def test_what_is_to_be_triggered_comes_in_batches(store: es.EnrichmentStore):
    """Bodies for the trigger endpoint have at most 100 distinct entities of one field and type, each spelled as the service does."""
    store.load([record(0)])
    ids = [uid(n).upper() for n in range(250)]
    tasks = es.tasks_from_leads(pd.DataFrame({"id": ids}), entity_id="id", fields=["phones", "emails"])
    with pytest.warns(es.EntityWarning):
        bodies = es.plan(store, pd.concat([tasks, tasks.iloc[:7]])).to_trigger()
    assert [(body["field"], len(body["personIds"])) for body in bodies] == [
        *(("phones", 100), ("emails", 100), ("phones", 100), ("emails", 100), ("phones", 50), ("emails", 49)),
    ]
    assert all(set(body) == {"personIds", "field"} for body in bodies)
    emails = [name for body in bodies if body["field"] == "emails" for name in body["personIds"]]
    assert emails == [uid(n) for n in range(1, 250)]
    companies = es.plan(store, [task(0, "summary") | {"entityType": "company"}]).to_trigger()
    assert companies == [{"companyIds": [uid(0)], "field": "summary"}]
    assert es.plan(store, [task(0)]).to_trigger() == []


def test_a_plan_is_triggered_at_a_service():
    """What a plan would trigger, a service takes as it is; planned again, all of it is in flight."""
    tasks = [task(n, field) for n in range(120) for field in ("emails", "phones")]
    with SimulatedStore(seed=1, clock=lambda: 1000.0) as service:
        for body in es.plan(service, tasks).to_trigger():
            service.trigger(body["personIds"], body["field"])
        assert set(actions(es.plan(service, tasks))) == {"in_flight"}


KINDS = {
    "pandas": lambda tasks: tasks,
    "index": lambda tasks: tasks.set_index(pd.Index([7, 7, None])),
    "polars": pl.DataFrame,
    "lazy": pl.LazyFrame,
    "arrow": pa.Table.from_pandas,
    "list": lambda tasks: tasks.to_dict("records"),
    "relation": lambda tasks: duckdb.connect().sql("select * from tasks"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_of_frame_that_goes_in_comes_out(store: es.EnrichmentStore, kind: str):
    """Any tasks are planned, and the caller's columns and index are as they were."""
    store.load(records())
    tasks = pd.DataFrame([task(0), task(5), task(9)]).assign(company="Ärger & Söhne")
    given = KINDS[kind](tasks)
    frame = es.plan(store, given, prefix="plan_").frame
    assert type(frame) is (pd.DataFrame if kind == "list" else type(given))
    table = frame.collect() if kind == "lazy" else frame
    table = table.to_arrow_table() if kind == "relation" else pa.table(table)
    assert table["plan_action"].to_pylist() == ["have", "retry", "trigger"]
    assert table["company"].to_pylist() == ["Ärger & Söhne"] * 3
    if kind in ("pandas", "index"):
        pd.testing.assert_frame_equal(frame[tasks.columns], given)


def test_nothing_to_plan(store: es.EnrichmentStore):
    """A plan of no tasks has the columns, costs nothing and says so; so has one where all tasks are bad."""
    plan = es.plan(store, [], costs=COSTS, budget=5)
    assert plan.frame.columns.tolist()[-3:] == ["action", "reason", "cost"]
    assert plan.frame.dtypes.astype(str).tolist()[-3:] == ["str", "str", "float64"]
    assert (len(plan), plan.cost, plan.to_trigger()) == (0, 0, [])
    assert repr(plan) == "Plan of 0 tasks: 0 to trigger for 0 credits"
    assert plan.summary()["total"].sum() == 0
    assert "0 to trigger" in plan._repr_html_()
    bad = es.plan(store, [{"entityId": None, "field": None}], costs=COSTS)
    assert actions(bad) == ["invalid"]
    assert bad.frame["reason"].tolist() == ["entityId is missing, field is missing"]


def test_a_plan_is_summed_up(store: es.EnrichmentStore):
    """The summary counts tasks by action and field and sums the cost; the repr is that, with the price."""
    store.load(records())
    tasks = [*(task(n, field) for n in range(7) for field in ("emails", "phones")), task(0), task(3, "<b>fax</b>")]
    plan = es.plan(store, tasks, costs=COSTS, now=NOW)
    summary = plan.summary()
    assert summary.loc["trigger"].tolist() == [0, 1, 7, 8, 71]
    assert summary["total"].sum() == len(tasks)
    assert summary.columns.tolist() == ["<b>fax</b>", "emails", "phones", "total", "cost"]
    assert repr(plan).splitlines()[0] == "Plan of 16 tasks: 11 to trigger for 74 credits"
    assert "over_budget" not in repr(plan)
    html = plan._repr_html_()
    assert "&lt;b&gt;fax" in html
    assert "<b>fax" not in html
    again = pickle.loads(pickle.dumps(plan))
    assert repr(again) == repr(plan)
    assert "credits" not in repr(es.plan(store, tasks, now=NOW))


def test_what_has_no_price_is_said(store: es.EnrichmentStore):
    """Tasks that are to be bought and whose price is not in the costs are counted in the headline; a price of 0 is one."""
    tasks = pd.DataFrame([task(0), task(0, "phones"), task(1, "phones") | {"entityType": "company"}, task(1)])
    tasks["entityType"] = tasks["entityType"].fillna("person")
    head = "2 tasks without a price (emails), counted as free"
    assert repr(es.plan(store, tasks, costs={"phones": 10})).splitlines()[0].endswith(head)
    head = "1 task without a price (phones), counted as free"
    assert repr(es.plan(store, tasks, costs={"emails": 0, ("phones", "person"): 1})).splitlines()[0].endswith(head)
    store.load([record(0), record(1)])
    for costs in ({"phones": 0}, None):
        assert "price" not in repr(es.plan(store, tasks, costs=costs))


def test_a_field_named_like_a_column_of_the_summary():
    """A store whose fields are `total` and `cost` has a summary all the same."""
    store = es.EnrichmentStore(org_id=ORG, fields=("total", "cost"))
    plan = es.plan(store, [task(0, "total"), task(1, "cost")], costs={"total": 2})
    assert plan.summary().loc["trigger"].tolist() == [1, 1, 2, 2]
    assert plan.summary().columns.tolist() == ["cost (field)", "total (field)", "total", "cost"]
    assert "2 to trigger for 2 credits" in repr(plan)


# --- nothing is bought twice --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(cases(1, 20)))
def test_nothing_that_is_had_or_in_flight_is_bought(seed: int):
    """Through a random history of lists that overlap, triggering what the plan names buys no key that has data or is in flight."""
    bought, again, naive = history(seed)
    assert bought > 50
    assert again == 0
    assert naive > 0


def history(seed: int) -> tuple[int, int, int]:
    """Buy five overlapping lists by plan; gives what was bought, what of it needlessly, and what a loop over all would have needlessly."""
    generator = np.random.default_rng(seed)
    seconds = 1000.0
    bought = again = naive = 0
    with SimulatedStore(seed=seed, clock=lambda: seconds, org_id=ORG) as service:
        for _ in range(5):
            ids = [uid(n) for n in generator.integers(0, 60, 40)]
            tasks = es.tasks_from_leads(pd.DataFrame({"id": ids}), entity_id="id", fields=["emails", "phones"])
            before = service.lookup(tasks, columns="reason")
            needless = before["reason"].isin(["data", "pending"]).to_numpy()
            naive += int(needless.sum() + tasks[~needless].duplicated().sum())
            for body in es.plan(service, tasks).to_trigger():
                keys = pd.DataFrame({"entityId": body["personIds"], "field": body["field"]})
                reason = service.lookup(keys, columns="reason")["reason"]
                bought += len(keys)
                again += int(reason.isin(["data", "pending"]).sum())
                service.trigger(body["personIds"], body["field"])
            seconds += float(generator.exponential(60))
    return bought, again, naive


# --- bad input ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"costs": {"fax": 1}}, "costs= has a price for fax; the fields are emails, phones, summary"),
        ({"costs": {"emails": -1}}, "costs= takes a number of credits for emails from 0 up, not -1"),
        ({"costs": {"emails": float("nan")}}, "not nan"),
        ({"costs": {"emails": "1"}}, "not '1'"),
        ({"costs": {"emails": True}}, "not True"),
        ({"costs": 5}, "costs= takes credits by field"),
        ({"budget": -5, "costs": COSTS}, "budget= takes a number of credits from 0 up, not -5"),
        ({"budget": float("inf"), "costs": COSTS}, "not inf"),
        ({"budget": 5}, "budget= needs the price of emails"),
        ({"budget": 5, "costs": {"phones": 1}}, "budget= needs the price of emails"),
        ({"priority": "score"}, "priority= names a column of the tasks, which are entityId, field; not 'score'"),
        (
            {"priority": "field"},
            "priority= takes a column of numbers, or of text that is numbers; 'field' holds 'emails'",
        ),
        ({"retry": "pending"}, "retry= takes some of 'timeout', 'failed', not 'pending'"),
        ({"stale_after": "soon"}, "stale_after= takes a duration"),
        ({"now": "soon"}, "now= takes"),
    ],
    ids=str,
)
def test_a_bad_argument_is_refused_before_anything_is_asked(options: dict[str, Any], message: str):
    """An argument that cannot be meant is refused with what was given and what would do, and the source gets no request."""
    with pytest.raises(es.ValidationError, match=message.replace("(", r"\(")):
        es.plan(_Never(), [task(0)], **options)


class _Never:
    def lookup(self, tasks: Any, **options: Any) -> Any:
        raise AssertionError("asked")


def test_a_column_of_ours_is_not_overwritten(store: es.EnrichmentStore):
    """A list with an `action` of its own is refused with the way out, and planned with a prefix."""
    tasks = [task(0) | {"action": "call", "cost": 3}]
    with pytest.raises(es.ValidationError, match=r"already have the columns action, cost.*prefix="):
        es.plan(store, tasks)
    frame = es.plan(store, tasks, prefix="plan_").frame
    assert frame.loc[0, ["action", "plan_action"]].tolist() == ["call", "trigger"]


def test_a_plan_needs_a_source():
    """What cannot be looked up is no source."""
    with pytest.raises(es.ValidationError, match="source= is"):
        es.plan(pd.DataFrame(), [task(0)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "scores",
    [
        pl.Series([2**53, 2**53 + 1, None], dtype=pl.Int64),
        pl.Series([2**64 - 2, 2**64 - 1, 0], dtype=pl.UInt64),
        pl.Series([2**100, 2**100 + 1, None], dtype=pl.Int128),
        pl.Series([Decimal("0.1"), Decimal("0.10000000000000000001"), None], dtype=pl.Decimal(38, 20)),
        pl.Series(["9", "10", "-1e2"]),
        pl.Series([str(2**70), str(2**70 + 1), "1.5"]),
        pl.Series([-math.inf, math.inf, math.nan]),
        pl.Series([False, True, None]),
    ],
    ids=str,
)
def test_the_greatest_priority_is_bought_first_to_the_last_digit(scores: pl.Series):
    """Whole numbers of any size, decimals, and text of both; NaN is none. Of the first kinds of frame Python's integers too."""
    store = es.EnrichmentStore(org_id=ORG)
    tasks = pl.DataFrame({"entityId": [uid(n) for n in (7, 8, 9)], "field": "emails", "score": scores})
    for frame in (tasks, tasks.to_dicts()):
        plan = es.plan(store, frame, costs={"emails": 1}, budget=2, priority="score")
        assert list(plan.frame["action"]) == ["trigger", "trigger", "over_budget"]
        plan = es.plan(store, frame, costs={"emails": 1}, budget=1, priority="score")
        assert list(plan.frame["action"]) == ["over_budget", "trigger", "over_budget"]
