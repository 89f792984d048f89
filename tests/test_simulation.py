"""The simulated service: what becomes of tasks, when, and the faults on the way."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
import requests
from starlette.middleware import Middleware

import enrichstatus as es
from enrichstatus.server import create_app
from enrichstatus.simulation import FAILS, FAULTS, NEVER, PROFILES, SIGMA, Faults, SimulatedStore
from tests.factory import ORG, record, task, uid
from tests.serving import PATH, running

TASKS = pd.DataFrame([task(n, field) for n in range(2000) for field in PROFILES])


class Clock:
    """Seconds that pass when a test says so."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_tasks_start_pending_and_end_as_their_fields_do():
    """At first all are pending; at a field's median half have ended; in the end the shares of each fate are the declared ones."""
    clock = Clock()
    with SimulatedStore(TASKS, seed=7, clock=clock) as service:
        assert set(service.lookup(TASKS)["status"]) == {"pending"}
        for field, (median, _) in sorted(PROFILES.items(), key=lambda item: item[1]):
            clock.seconds = median
            status = service.lookup(TASKS)
            ended = (status.loc[status["field"] == field, "status"] != "pending").mean()
            assert ended == pytest.approx(0.5 * (1 - NEVER), abs=0.04), field
        clock.seconds = 60 * 2.72 ** (SIGMA * 5)
        status = service.lookup(TASKS, columns="all")
        shares = status["status"].value_counts(normalize=True)
        assert shares["pending"] == pytest.approx(NEVER, abs=0.01)
        assert shares["failed"] == pytest.approx(FAILS, abs=0.01)
        assert status.loc[status["status"] == "failed", "error"].notna().all()
        for field, (_, found) in PROFILES.items():
            finished = status[(status["field"] == field) & (status["status"] == "finished")]
            assert finished["dataFound"].mean() == pytest.approx(found, abs=0.04), field
        # by the wall clock too little time has passed for a timeout; the rule judges those that never end
        late = pd.Timestamp.now("UTC") + pd.Timedelta("801s")
        assert set(service.lookup(TASKS, now=late)["status"]) == {"finished", "failed", "timeout"}


def test_a_seed_is_one_course_of_events():
    """The same seed gives a task the same fate at the same time, whatever it is triggered with; another seed another."""

    def course(tasks: pd.DataFrame, seed: int) -> list[Any]:
        clock, seen = Clock(), []
        with SimulatedStore(tasks, seed=seed, clock=clock) as service:
            for seconds in (10, 30, 100, 1000):
                clock.seconds = seconds
                seen.append(service.lookup(TASKS[:300], columns=["id", "status", "dataFound"]).to_csv())
        return seen

    assert course(TASKS, 7) == course(TASKS[:300].iloc[::-1], 7)
    assert course(TASKS[:300], 7) != course(TASKS[:300], 8)


def test_speed_shrinks_all_times():
    """Ten times faster, a tenth of the time brings as many ends, and the rule waits a tenth as long."""
    statuses = []
    for speed, seconds in ((1, 40.0), (10, 4.0)):
        clock = Clock()
        with SimulatedStore(TASKS, seed=1, speed=speed, clock=clock) as service:
            clock.seconds = seconds
            statuses.append(service.lookup(TASKS)["status"].tolist())
    assert statuses[0] == statuses[1]
    with SimulatedStore(TASKS, speed=10, clock=Clock()) as service:
        late = pd.Timestamp.now("UTC") + pd.Timedelta("81s")
        assert set(service.lookup(TASKS, now=late)["status"]) == {"timeout"}


def test_unusable_settings_are_refused():
    """Bad tasks, a speed beyond what clocks can tell, a strange fault or rate: each says what it takes."""
    with pytest.raises(es.ValidationError, match="2 bad tasks"):
        SimulatedStore([task(0, "fax"), {"entityId": "x", "field": "emails"}])
    for speed in (0, -1, 1e-300, 1e300, float("inf"), float("nan")):
        with pytest.raises(es.ValidationError, match=r"speed= is from 0\.001 to 1,000,000, not "):
            SimulatedStore([task(0)], speed=speed)
    for kinds, found in ((["404"], "'404'"), (["429", ""], "''"), ([], "none at all")):
        with pytest.raises(es.ValidationError, match=f"429, 500, slow, cut, not {found}"):
            Faults(None, rate=0.1, kinds=kinds)  # type: ignore[arg-type]
    with pytest.raises(es.ValidationError, match="from 0 to 1"):
        Faults(None, rate=2)  # type: ignore[arg-type]


def test_the_slowest_and_the_fastest_speed_are_served():
    """At either end of the speeds a service answers, and its records end in their time."""
    for speed in (0.001, 1_000_000):
        clock = Clock()
        with SimulatedStore([task(n) for n in range(20)], speed=speed, clock=clock) as service:
            assert set(service.lookup([task(0)], now="2020-01-01")["status"]) == {"pending"}
            clock.seconds = 10_000 / speed
            assert "finished" in set(service.lookup([task(n) for n in range(20)])["status"])


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_met_and_outlived(store: es.EnrichmentStore, kind: str):
    """A client that repeats gets the whole answer from a service half of whose answers are this fault."""
    store.load([record(n) for n in range(2000)])
    tasks = pd.DataFrame([task(n) for n in range(2000)])
    app = Faults(create_app(store, {"token": ORG}), rate=0.5, kinds=[kind], seed=3, pause=0.05)
    with (
        running(app) as url,
        es.EnrichmentClient(url, token="token", retries=20, backoff=0.01, max_retry_after=0.01) as client,
    ):
        pd.testing.assert_frame_equal(client.lookup(tasks), store.lookup(tasks))
        seen = [_met(url) for _ in range(20)]
    assert {"429": 429, "500": 500, "slow": 200, "cut": "cut"}[kind] in seen
    assert 200 in seen


def _met(url: str) -> Any:
    try:
        answer = requests.post(
            url + PATH, json={"tasks": [task(0)]}, headers={"Authorization": "Bearer token"}, timeout=9
        )
    except requests.RequestException:
        return "cut"
    assert len(answer.headers.get("x-request-id", "0" * 16)) == 16
    if answer.status_code == 429:
        assert answer.headers["Retry-After"] == "1"
    return answer.status_code


def test_faults_are_drawn_by_the_seed(store: es.EnrichmentStore):
    """The same seed gives the same requests the same faults."""
    courses = []
    for seed in (1, 1, 2):
        app = Faults(create_app(store, {"token": ORG}), rate=0.5, kinds=["429", "500"], seed=seed)
        with running(app) as url:
            courses.append([_met(url) for _ in range(20)])
    assert courses[0] == courses[1] != courses[2]
    assert {200, 429, 500} <= set(courses[0])


def test_faults_inside_an_application_are_in_its_log(store: es.EnrichmentStore, caplog: pytest.LogCaptureFixture):
    """As the innermost middleware, every kind of fault leaves a line in the log, with the id that the answer has."""
    app = create_app(store, {"token": ORG})
    kinds = [kind for kind in FAULTS if kind != "slow"]
    app.user_middleware.append(Middleware(Faults, rate=0.8, kinds=kinds, seed=1))
    caplog.set_level("INFO", "enrichstatus.server")
    with running(app) as url:
        seen = [_met(url) for _ in range(20)]
    assert {200, 429, 500, "cut"} == set(seen)
    lines = [json.loads(one.message) for one in caplog.records if one.name == "enrichstatus.server"]
    assert [line["status"] for line in lines] == [200 if one == "cut" else one for one in seen]
    assert len({line["request"] for line in lines}) == 20


def test_without_now_the_clock_of_the_service_judges(store: es.EnrichmentStore):
    """A client that is given no instant passes on what the service says, which goes by its own clock."""
    store.load([record(0, status="pending", dataFound=None, createdAt="2020-01-01")])
    with running(create_app(store, {"token": ORG})) as url, es.EnrichmentClient(url, token="token") as client:
        answer = client.lookup([task(0), task(1), {"entityId": uid(0), "field": "emails", "entityType": "company"}])
    assert [None if pd.isna(one) else one for one in answer["status"]] == ["timeout", None, None]
