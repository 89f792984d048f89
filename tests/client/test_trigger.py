"""What a trigger sends, and what it does where the service does not answer as it should."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.errors import EntityWarning
from enrichstatus.lookup.contract import TRIGGER_PATH
from enrichstatus.simulation import SimulatedStore, create_simulated_app
from tests.support.factory import ORG, record, task, uid
from tests.support.serving import running

TASKS = [task(number, field) for field in ("emails", "phones") for number in range(150)]
COSTS = {"emails": 1, "phones": 10}


@contextmanager
def served(**options: Any) -> Iterator[tuple[SimulatedStore, es.EnrichmentClient, Any]]:
    """Serve a forgetful service; gives it, a client, and its faults."""
    with SimulatedStore(org_id=ORG, forgetful=True, **options) as service:
        app = create_simulated_app(service, {"a-token": ORG}, faults=["lost", "500-after"])
        with running(app) as url, es.EnrichmentClient(url, token="a-token") as client:
            yield service, client, app.state.faults


def test_a_plan_is_bought_in_requests_of_a_hundred(store: es.EnrichmentStore):
    """All that is planned is bought once, its records are in the store, and nothing is leased; planned again, all is in flight."""
    with served() as (service, client, _):
        plan = es.plan(store, TASKS, costs=COSTS)
        shown = client.trigger(plan, into=store, max_credits=1650, dry_run=True)
        assert (len(shown.requests), len(shown.left), len(service.ledger())) == (4, 300, 0)
        assert repr(shown).startswith("Dry run: 4 requests for 300 tasks and 1,650 credits; nothing was sent")
        report = client.trigger(plan, into=store, max_credits=1650)
        assert repr(report) == "TriggerReport(300 bought for 1,650 credits, 0 left)"
        assert report.requests == shown.requests == plan.to_trigger()
        assert client.balance() == 1_000_000 - 1650 == service.balance()
        assert store.leases().num_rows == 0
        assert set(es.plan(store, TASKS).frame["action"]) == {"in_flight"}
        with pytest.raises(es.ValidationError, match="Of 300 of the 300 tasks to buy something else is recorded"):
            client.trigger(plan, into=store, max_credits=1650)
        assert len(service.ledger()) == 300


@pytest.mark.parametrize("fault", ["lost", "500-after"])
def test_a_request_that_is_not_answered_is_never_repeated(store: es.EnrichmentStore, fault: str):
    """It stops with what was bought and what was not; its tasks are in flight, and the next trigger finds their records first."""
    with served() as (service, client, faults):
        faults.kinds, faults.rate = [fault], 1.0
        with pytest.raises(
            es.TriggerStopped, match="Whether it has bought is not known, so it is not repeated"
        ) as caught:
            client.trigger(es.plan(store, TASKS, costs=COSTS), into=store, max_credits=1650)
        assert [len(frame) for frame in (caught.value.bought, caught.value.left, caught.value.in_flight)] == [
            0,
            200,
            100,
        ]
        assert len(service.ledger()) == store.leases().num_rows == 100
        faults.rate = 0.0
        plan = es.plan(store, TASKS, costs=COSTS)
        assert plan.frame["action"].tolist() == ["in_flight"] * 100 + ["trigger"] * 200
        assert "and not answered yet" in plan.frame["reason"][0]
        client.trigger(plan, into=store, max_credits=1650)
        assert store.leases().num_rows == 0
        assert not service.ledger().duplicated(["entityId", "field"]).any()
        assert len(service.ledger()) == len(store.records()) == 300


def test_credits_that_end_midway_stop_it(store: es.EnrichmentStore):
    """Where the balance does not pay the next request it is not sent; what came before is bought, and the rest is left."""
    with served(balance=160) as (_, client, _):
        plan = es.plan(store, TASKS, costs=COSTS)
        with pytest.raises(es.TriggerStopped, match="The balance is 10, and the next request costs 1,000") as caught:
            client.trigger(plan, into=store, max_credits=2000)
        assert (len(caught.value.bought), len(caught.value.left), store.leases().num_rows) == (150, 150, 0)
        cheap = es.plan(store, TASKS, costs={"emails": 1, "phones": 0.01})
        with pytest.raises(es.TriggerStopped, match=r"The service refused a request: .*402") as caught:
            client.trigger(cheap, into=store, max_credits=2000)
        assert (len(caught.value.bought), len(caught.value.left), store.leases().num_rows) == (0, 150, 0)
        within = es.plan(store, TASKS, costs=COSTS, budget="balance", client=client)
        assert (within.cost, within.balance) == (10, 10)
        assert "1 to trigger for 10 credits, which leaves 0 of 10; 149 more are beyond the budget" in repr(within)


def test_a_service_that_charges_more_than_was_planned_is_stopped(store: es.EnrichmentStore):
    """Prices that were mistyped are noticed by the balance: before a request that would go beyond the limit it stops."""
    with served() as (service, client, _):
        cheap = es.plan(store, TASKS, costs={"emails": 1, "phones": 1})
        with pytest.raises(
            es.TriggerStopped, match=r"fell by 1,150, where 250 were to be spent.*the limit of 300"
        ) as caught:
            client.trigger(cheap, into=store, max_credits=300)
        assert (len(caught.value.bought), len(caught.value.left), len(service.ledger())) == (250, 50, 250)
        assert store.leases().num_rows == 0


def test_ctrl_c_ends_it_between_two_requests(store: es.EnrichmentStore, monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C while a request is under way waits for its answer: what was bought is in the store, and nothing is in flight."""
    with served() as (service, client, _):
        real = service.trigger

        def interrupted(*arguments: Any, **options: Any) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            return real(*arguments, **options)

        monkeypatch.setattr(service, "trigger", interrupted)
        with pytest.raises(
            es.TriggerInterrupted, match="between two requests: 100 bought for 100 credits, 200 left"
        ) as caught:
            client.trigger(es.plan(store, TASKS, costs=COSTS), into=store, max_credits=1650)
        assert (len(caught.value.bought), len(caught.value.left), len(caught.value.in_flight)) == (100, 200, 0)
        assert len(service.ledger()) == len(store.records()) == 100
        assert store.leases().num_rows == 0


def test_what_is_not_meant_is_refused_before_anything_is_sent(store: es.EnrichmentStore):
    """No limit, a plan beyond it or without prices, another quote, companies, and a store of another organization buy nothing."""
    with served() as (service, client, _):
        plan = es.plan(store, TASKS, costs=COSTS)
        signed = json.loads(json.dumps(plan.quote))
        assert signed == plan.quote
        assert {name: signed[name] for name in ("tasks", "credits", "fields", "prices")} == {
            "tasks": 300,
            "credits": 1650.0,
            "fields": {"emails": 150, "phones": 150},
            "prices": COSTS,
        }
        dearer = es.plan(store, TASKS, costs=COSTS | {"phones": 11})
        company = es.plan(store, [task(0) | {"entityType": "company"}], costs={("emails", "company"): 7})
        assert company.cost == 7
        other = es.EnrichmentStore(org_id="org_2")
        for bad, options, message in [
            (plan, {}, "max_credits= is missing"),
            (plan, {"max_credits": 1649}, "max_credits= is 1,649, and the plan costs 1,650"),
            (
                es.plan(store, TASKS, costs={"emails": 1}),
                {"max_credits": 1650},
                "max_credits= needs the price of phones",
            ),
            (
                dearer,
                {"max_credits": 9999, "quote": signed},
                "was 300 tasks for 1,650 credits; the plan is now 300 tasks for 1,800",
            ),
            (plan, {"max_credits": 1650, "quote": signed | {"organization": "org_2"}}, "or for another organization"),
            (plan, {"max_credits": 1649, "quote": signed | {"organization": None}}, "max_credits= is 1,649"),
            (company, {"max_credits": 9}, "documents no trigger"),
            (plan, {"max_credits": 1650, "into": other}, "another organization"),
            (
                es.plan(client, TASKS, costs=COSTS),
                {"max_credits": 1650, "into": other},
                "not the organization of the token",
            ),
            (plan, {"max_credits": 1650, "into": {}}, "into= takes an EnrichmentStore, not dict"),
            (TASKS, {"max_credits": 1650}, "plan= takes what es.plan"),
        ]:
            with pytest.raises(es.ValidationError, match=message):
                client.trigger(bad, **{"into": store, **options})
        assert len(service.ledger()) == 0
        store.load([record(0, status="failed", dataFound=None)])
        with pytest.warns(EntityWarning, match="299 of 300 tasks have no record"):
            changed = es.plan(store, TASKS, costs=COSTS)
        assert (changed.cost, changed.quote == signed) == (1650, False)
        with pytest.raises(es.ValidationError, match="something else is recorded"):
            client.trigger(plan, into=store, max_credits=1650)
        other.close()


def test_an_older_file_is_read_and_written_as_before(tmp_path: Any):
    """A file in which nothing was ever leased has no leases, read-only too; a trigger makes room for them."""
    path = tmp_path / "leads.duckdb"
    with es.EnrichmentStore(path, org_id=ORG) as made:
        made.load([record(0)])
    with es.EnrichmentStore(path, org_id=ORG, read_only=True) as read:
        assert read.leases().num_rows == 0
        assert es.plan(read, [task(0), task(1)]).frame["action"].tolist() == ["have", "trigger"]
    with served() as (service, client, _), es.EnrichmentStore(path, org_id=ORG) as store:
        client.trigger(es.plan(store, [task(0), task(1)], costs=COSTS), into=store, max_credits=1)
        assert service.ledger()["entityId"].tolist() == [uid(1)]
        assert TRIGGER_PATH == "/api/v1/operations/enrichment/batch"
        assert isinstance(store.lookup([task(1)])["status"], pd.Series)
