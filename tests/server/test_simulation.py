"""The simulated service: what becomes of tasks, when, and the faults on the way."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pytest
import requests
from starlette.middleware import Middleware

import enrichstatus as es
from enrichstatus.schema import COLUMNS
from enrichstatus.server.app import MOST_BYTES, create_app
from enrichstatus.server.openapi import TRIGGER_PATH
from enrichstatus.simulation.app import (
    FAILS,
    FAULTS,
    NEVER,
    PROFILES,
    SIGMA,
    Faults,
    SimulatedStore,
    create_simulated_app,
)
from tests.support.factory import ORG, record, task, uid
from tests.support.serving import PATH, running

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
        # at an early instant, which leaves what never ends pending
        status = service.lookup(TASKS, columns="all", now="2020-01-01")
        shares = status["status"].value_counts(normalize=True)
        assert shares["pending"] == pytest.approx(NEVER, abs=0.01)
        assert shares["failed"] == pytest.approx(FAILS, abs=0.01)
        assert status.loc[status["status"] == "failed", "error"].notna().all()
        for field, (_, found) in PROFILES.items():
            finished = status[(status["field"] == field) & (status["status"] == "finished")]
            assert finished["dataFound"].mean() == pytest.approx(found, abs=0.04), field
        # without one the rule goes by the service's clock
        assert set(service.lookup(TASKS)["status"]) == {"finished", "failed", "timeout"}


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
        with pytest.raises(es.ValidationError, match=f"429, 500, slow, cut, lost, 500-after, not {found}"):
            Faults(None, rate=0.1, kinds=kinds)  # type: ignore[arg-type]
    with pytest.raises(es.ValidationError, match="from 0 to 1"):
        Faults(None, rate=2)  # type: ignore[arg-type]
    faults = Faults(None, rate=0.5)  # type: ignore[arg-type]
    with pytest.raises(es.ValidationError, match="from 0 to 1"):
        faults.rate = -1
    with pytest.raises(es.ValidationError, match="not none at all"):
        faults.kinds = []
    assert (faults.rate, faults.kinds) == (0.5, FAULTS)


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
    store.load([record(n) for n in range(20)])
    tasks = pd.DataFrame([task(n) for n in range(2000)])  # ten requests
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


# --- triggered later ----------------------------------------------------------------------------------------------------------

IDS = [uid(n) for n in range(2000)]


def asked(field: str = "emails", ids: list[str] = IDS) -> pd.DataFrame:
    return pd.DataFrame({"entityId": ids, "field": field})


def count(service: SimulatedStore) -> int:
    """Count the records of the service's own organization."""
    return int(service._counts()["records"].sum())


@pytest.mark.parametrize("speed", [1.0, 50.0])
def test_what_is_triggered_later_takes_its_course_from_then(speed: float):
    """A service that starts empty gives a task, from when it is triggered, what one that starts with it gives it."""
    begun, later = Clock(), Clock()
    with (
        SimulatedStore(asked(), seed=5, speed=speed, clock=begun) as first,
        SimulatedStore(seed=5, speed=speed, clock=later) as second,
    ):
        assert second.lookup(asked())["status"].isna().all()
        later.seconds = 1000.0
        assert {one["status"] for one in second.trigger(IDS, "emails")} == {"pending"}
        for seconds in (0, 10, 25, 60, 500, 801):
            begun.seconds, later.seconds = seconds / speed, 1000.0 + seconds / speed
            columns = ["id", "status", "dataFound", "error"]
            pd.testing.assert_frame_equal(
                second.lookup(asked(), columns=columns), first.lookup(asked(), columns=columns)
            )


def test_the_ends_of_all_triggers_come_in_their_order():
    """Of tasks triggered one after the other, some of which end before others triggered earlier, each ends in its own time."""
    clock = Clock()
    parts = {0.0: IDS[:500], 7.0: IDS[500:501], 20.0: IDS[501:1200], 300.0: IDS[1200:]}
    with SimulatedStore(asked("phones"), seed=2, clock=clock) as alone, SimulatedStore(seed=2, clock=clock) as service:
        begun = alone.lookup(asked("phones"), columns=["id"])
        clock.seconds = 10_000.0
        lasted = alone.lookup(asked("phones"), columns=["id", "createdAt", "updatedAt", "status"], now="2020-01-01")
        took = (lasted["updatedAt"] - lasted["createdAt"]).dt.total_seconds()
        took = took.where(lasted["status"] != "pending", float("inf"))
        since = pd.concat([pd.Series(start, ids) for start, ids in parts.items()])
        for seconds in sorted({*parts, 8.0, 25.0, 30.0, 60.0, 299.0, 301.0, 400.0}):
            clock.seconds = seconds
            if seconds in parts:
                service.trigger(parts[seconds], "phones")
            status = service.lookup(asked("phones"), columns=["id", "status"])
            triggered = since.loc[status["entityId"]].to_numpy() <= seconds
            assert status["status"].notna().tolist() == triggered.tolist()
            ended = status["status"].isin(["finished", "failed"])
            # to the millisecond, to which the timestamps are rounded
            certain = (since.loc[status["entityId"]].to_numpy() + took - seconds).abs() > 0.002
            expected = since.loc[status["entityId"]].to_numpy() + took <= seconds
            assert ended[certain & triggered].tolist() == expected[certain & triggered].tolist()
        assert status["id"].tolist() == begun["id"].tolist()


def test_only_what_failed_or_timed_out_is_bought_again():
    """What is pending or has finished keeps its record; what has failed or timed out gets a new one, with a fate of its own."""
    clock = Clock()
    with SimulatedStore(asked(), seed=7, clock=clock) as service:
        clock.seconds = 30.0
        before = service.lookup(asked(), columns=["id", "status"])
        again = pd.DataFrame(service.trigger(IDS, "emails"))
        kept = before["status"].isin(["pending", "finished"])
        assert set(before["status"]) == {"pending", "finished", "failed"}
        assert (again["id"] == before["id"]).tolist() == kept.tolist()
        assert again.loc[kept, "status"].tolist() == before.loc[kept, "status"].tolist()
        assert set(again.loc[~kept, "status"]) == {"pending"}
        assert count(service) == 2000 + (~kept).sum()
        clock.seconds = 2000.0
        late = service.lookup(asked(), columns=["id", "status"])
        lost = late["status"].isin(["failed", "timeout"])
        assert set(late.loc[lost, "status"]) == {"failed", "timeout"}
        assert late["id"].tolist() == again["id"].tolist()
        third = pd.DataFrame(service.trigger(IDS, "emails"))
        assert (third["id"] != late["id"]).tolist() == lost.tolist()
        assert pd.concat([before["id"], again["id"], third["id"]]).nunique() == count(service)
        clock.seconds = 2799.0
        fate = service.lookup(asked(), columns=["status"])
        assert (fate.loc[lost, "status"] == "finished").mean() == pytest.approx(1 - NEVER - FAILS, abs=0.15)
        # so often that all have finished at last: a task is not bound to fail
        for _ in range(6):
            clock.seconds += 801.0
            service.trigger(IDS, "emails")
        clock.seconds += 801.0
        assert set(service.lookup(asked())["status"]) == {"finished"}


def test_an_attempt_has_the_same_course_in_whatever_company():
    """The same seed gives each attempt at a task the same fate, triggered one by one or all at once, in any order."""

    def course(batches: list[list[str]]) -> list[Any]:
        clock, seen = Clock(), []
        with SimulatedStore(seed=3, clock=clock) as service:
            for seconds in (0.0, 1000.0, 2000.0, 3000.0):
                clock.seconds = seconds
                for batch in batches:
                    service.trigger(batch, "summary")
                clock.seconds += 20.0
                status = service.lookup(asked("summary", IDS[:400]), columns=["id", "status", "dataFound"])
                seen.append(status.to_csv())
        return seen

    assert course([IDS[:400]]) == course([IDS[300:400][::-1], IDS[:50], IDS[:300]])


@pytest.mark.parametrize("speed", [1.0, 20.0])
def test_all_timestamps_are_on_the_clock_of_the_service(speed: float):
    """A record begins, ends and times out at the start's instant and as many seconds as have passed on the clock."""
    clock = Clock()
    earliest = pd.Timestamp.now("UTC").floor("ms")
    with SimulatedStore([task(0, "summary")], seed=1, speed=speed, clock=clock) as service:
        latest = pd.Timestamp.now("UTC")
        start = service.lookup([task(0, "summary")], columns=["createdAt"])["createdAt"].item()
        assert earliest <= start <= latest
        clock.seconds = 5000.25
        made = pd.DataFrame(service.trigger(IDS, "emails"))
        assert set(made["updatedAt"]) == set(made["createdAt"])
        assert set(pd.to_datetime(made["createdAt"])) == {start + pd.Timedelta("5000.250s")}
        clock.seconds += 800.0 / speed
        assert "timeout" not in set(service.lookup(asked())["status"])
        clock.seconds += 0.01
        ended = service.lookup(asked(), columns=["status", "updatedAt"])
        assert ended["updatedAt"].max() <= start + pd.Timedelta(seconds=clock.seconds)
        assert set(ended["status"]) == {"finished", "failed", "timeout"}
        body = {"tasks": asked()[:200].to_dict("records")}
        assert {one["status"] for one in service.query(body)} == {"finished", "failed", "timeout"}
        assert "timeout" not in {one["status"] for one in service.query(body, now=start)}


def test_the_answer_of_a_trigger_is_one_object_for_each_entity():
    """Ids in any spelling and number, a company's too, are answered with wire objects, each once, in their order."""
    ids = [uid(2), uid(0).upper(), uid(2), uid(1), uid(0), "{" + uid(1) + "}"]
    with SimulatedStore(seed=1, clock=Clock()) as service:
        made = service.trigger(ids, "phones", "company", created_by="user_9")
        assert [one["entityId"] for one in made] == [uid(2), uid(0), uid(1)]
        assert [tuple(one) for one in made] == [COLUMNS] * 3
        assert {
            (one["entityType"], one["field"], one["createdBy"], one["orgId"], one["dataFound"]) for one in made
        } == {("company", "phones", "user_9", "org_simulated", None)}
        assert service.query({"tasks": [task(n, "phones") | {"entityType": "company"} for n in (2, 0, 1)]}) == made
        assert service.query({"tasks": [task(n, "phones") for n in (2, 0, 1)]}) == []
        assert service.trigger(uid(0), "phones", "company") == [made[1]]
        assert service.trigger(pd.Series([uuid.UUID(uid(0))]), "phones", "company") == [made[1]]
        assert service.trigger([], "phones") == []
        assert count(service) == 3


def test_an_organization_triggers_for_itself():
    """What one organization has bought another has not; each sees its own."""
    with SimulatedStore(seed=1, clock=Clock()) as service:
        one, other = service.trigger(IDS[:3], "emails"), service.trigger(IDS[:2], "emails", org_id="org_2")
        assert [{each["orgId"] for each in made} for made in (one, other)] == [{"org_simulated"}, {"org_2"}]
        assert count(service) == 3
        assert service.lookup(asked(ids=IDS[:3]), org_id="org_2")["status"].notna().tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ([uid(0), "x", None], "emails"),
            r"2 bad tasks:\n  row 1: entityId 'x' is not a UUID\n  row 2: entityId is missing",
        ),
        (
            ([uid(0)], "fax"),
            "field 'fax' is not one of emails, phones, summary\nRows are counted from 0, a header not counted. Nothing was triggered",
        ),
        (([uid(0)], None), "field is missing"),
        (([uid(0)], "emails", "firm"), "entityType 'firm' is not one of person, company"),
    ],
)
def test_a_bad_trigger_triggers_nothing(arguments: Any, message: str):
    """Where one task is bad all are named that are, and nothing begins."""
    with SimulatedStore() as service:
        with pytest.raises(es.ValidationError, match=message):
            service.trigger(*arguments)
        assert count(service) == 0
        with pytest.raises(es.ValidationError, match="Organization ID is missing"):
            service.trigger([uid(0)], "emails", org_id=" ")


def test_a_record_that_is_newer_than_the_clock_is_followed_by_one_newer_still():
    """A trigger's new record wins, also where the failed one before it was loaded with a later instant."""
    with SimulatedStore(clock=Clock()) as service:
        service.load([record(0, orgId="org_simulated", status="failed", createdAt="2999-01-01T00:00:00.0005Z")])
        [made] = service.trigger([uid(0)], "emails")
        assert (made["status"], made["createdAt"]) == ("pending", "2999-01-01T00:00:00.001Z")


class Observed(SimulatedStore):
    """Keeps how many triggers began records at the same time."""

    inside, most = 0, 0

    def _begin(self, *arguments: Any) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        super()._begin(*arguments)
        self.inside -= 1


@pytest.mark.slow
def test_threads_buy_nothing_twice():
    """Of many threads that trigger the same at once, while others look it up, one begins each task, and none of the ends is lost."""
    clock = Clock()
    columns = ["id", "status", "dataFound"]
    with (
        SimulatedStore(asked(ids=IDS[:450]), seed=1, clock=clock) as alone,
        Observed(seed=1, clock=clock) as service,
        ThreadPoolExecutor(16) as threads,
    ):
        starts = [n * 50 for n in range(8)] * 3
        made = [threads.submit(service.trigger, IDS[start : start + 100], "emails") for start in starts]
        looks = [threads.submit(service.lookup, asked()) for _ in range(8)]
        assert len({one["id"] for objects in made for one in objects.result()}) == count(service) == 450
        assert all(set(look.result()["status"].dropna()) <= {"pending"} for look in looks)
        assert service.most == 1
        for seconds in (25.0, 60.0, 700.0):
            clock.seconds = seconds
            found = service.lookup(asked(), columns=columns, how="inner")
            pd.testing.assert_frame_equal(found, alone.lookup(asked(), columns=columns, how="inner"))


# --- the route that triggers --------------------------------------------------------------------------------------------------

TOKENS = {"token": "org_simulated", "other": "org_2", "nobody": None}


@contextmanager
def simulated(clock: Clock | None = None, **options: Any) -> Iterator[str]:
    """Serve a simulated service that is empty at first."""
    with (
        SimulatedStore(seed=7, clock=clock or Clock()) as service,
        running(create_simulated_app(service, TOKENS, **options)) as url,
    ):
        yield url


def post(url: str, body: Any, token: str | None = "token", path: str = TRIGGER_PATH) -> requests.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return requests.post(url + path, data=data, headers=headers, timeout=20)


def test_persons_are_triggered_and_then_queried():
    """The documented call answers 200 with the objects that the query answers then, of the token's organization, and buys nothing twice."""
    clock = Clock()
    body = {"personIds": IDS[:100], "field": "phones", "more": None}
    query = {"tasks": asked("phones", IDS[:100]).to_dict("records")}
    with simulated(clock) as url:
        assert post(url, query, path=PATH).json() == []
        answer = post(url, body)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
        made = answer.json()
        assert [one["entityId"] for one in made] == IDS[:100]
        assert {one["status"] for one in made} == {"pending"}
        assert post(url, query, path=PATH).json() == post(url, body).json() == made
        assert post(url, query, "other", PATH).json() == []
        assert {one["orgId"] for one in post(url, body, "other").json()} == {"org_2"}
        clock.seconds = 100.0
        ended = post(url, query, path=PATH).json()
        assert {one["status"] for one in ended} == {"pending", "finished", "failed"}
        again = post(url, body).json()
        assert [old["id"] == new["id"] for old, new in zip(made, again, strict=True)] == [
            one["status"] != "failed" for one in ended
        ]


def test_a_client_waits_for_what_was_triggered():
    """Triggered over HTTP, tasks are polled over HTTP until all have ended."""
    with SimulatedStore(seed=7, speed=500) as service, running(create_simulated_app(service, TOKENS)) as url:
        assert post(url, {"personIds": IDS[:50], "field": "emails"}).status_code == 200
        with es.EnrichmentClient(url, token="token") as client:
            ended = es.wait(client, asked(ids=IDS[:50]), schedule=[0.02], deadline="60s", progress=False)
    assert set(ended["status"]) <= {"finished", "failed", "timeout"}
    assert (ended["status"] == "finished").mean() > 0.8


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "is not JSON"),
        (b"[", "is not JSON"),
        (b" " * (MOST_BYTES + 1), "longer than 1,048,576 bytes"),
        ([], "breaks the contract"),
        ({"field": "emails"}, "personIds"),
        ({"personIds": [uid(0)]}, "field"),
        ({"personIds": uid(0), "field": "emails"}, "breaks the contract"),
        ({"personIds": [], "field": "emails"}, "length >= 1"),
        ({"personIds": IDS[:101], "field": "emails"}, "length <= 100"),
        ({"personIds": [uid(0), 5], "field": "emails"}, "breaks the contract"),
        ({"personIds": [uid(0), "x"], "field": "emails"}, "row 1: entityId 'x' is not a UUID"),
        ({"personIds": [uid(0)], "field": "fax"}, "fax"),
        ({"personIds": [uid(0)], "field": ["emails"]}, "breaks the contract"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_request_triggers_nothing(body: Any, message: str):
    """What breaks the contract is 400 VALIDATION_ERROR in the contract's shape, and nothing begins."""
    with simulated() as url:
        answer = post(url, body)
        assert (answer.status_code, list(answer.json()), sorted(answer.json()["error"])) == (
            400,
            ["error"],
            ["code", "message"],
        )
        assert answer.json()["error"]["code"] == "VALIDATION_ERROR"
        assert message in answer.json()["error"]["message"]
        assert post(url, {"tasks": [task(0)]}, path=PATH).json() == []


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [(None, 401, "UNAUTHORIZED"), ("wrong", 401, "UNAUTHORIZED"), ("nobody", 400, "VALIDATION_ERROR")],
)
def test_who_may_not_ask_may_not_trigger(token: str | None, status: int, code: str):
    """Without a token that is known, and has an organization, the trigger is refused as the query is."""
    with simulated() as url:
        answers = [
            post(url, {"personIds": [uid(0)], "field": "emails"}, token),
            post(url, {"tasks": [task(0)]}, token, PATH),
        ]
    assert [(one.status_code, one.json()["error"]["code"]) for one in answers] == [(status, code)] * 2
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers.get("WWW-Authenticate") == ("Bearer" if status == 401 else None)


def test_a_store_that_is_served_cannot_be_triggered(store: es.EnrichmentStore):
    """The endpoint over a store, a simulated one too, has no such route, nor does its document speak of one."""
    with SimulatedStore() as service:
        for one in (store, service):
            with running(create_app(one, TOKENS)) as url:
                answer = post(url, {"personIds": [uid(0)], "field": "emails"})
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")
                document = requests.get(url + "/openapi.json", timeout=20).json()
                assert TRIGGER_PATH not in document["paths"]
                assert "Trigger" not in document["components"]["schemas"]
        assert count(service) == 0


def test_the_document_describes_the_trigger():
    """The simulated service's OpenAPI document has the route, its body and its limit; another method is 405."""
    with simulated() as url:
        document = requests.get(url + "/openapi.json", timeout=20).json()
        assert requests.get(url + TRIGGER_PATH, timeout=20).status_code == 405
    described = document["paths"][TRIGGER_PATH]["post"]
    assert described["security"] == document["paths"][PATH]["post"]["security"]
    assert sorted(described["responses"]) == ["200", "400", "401", "402", "500"]
    trigger = document["components"]["schemas"]["Trigger"]
    assert (trigger["required"], trigger["properties"]["personIds"]["maxItems"]) == (["personIds", "field"], 100)


def test_an_outage_begins_and_ends_while_the_service_runs():
    """Queries fail while ``app.state.faults.rate`` is 1, with the kind that is set; what is triggered meanwhile is there afterwards."""
    with SimulatedStore(seed=1, clock=Clock()) as service:
        app = create_simulated_app(service, TOKENS)
        query = {"tasks": [task(0)]}
        with running(app) as url:
            assert post(url, query, path=PATH).status_code == 200
            app.state.faults.kinds, app.state.faults.rate = ["500"], 1.0
            assert [post(url, query, path=PATH).status_code for _ in range(5)] == [500] * 5
            app.state.faults.kinds = ["429"]
            assert post(url, query, path=PATH).status_code == 429
            assert post(url, {"personIds": [uid(0)], "field": "emails"}).status_code == 200
            app.state.faults.rate = 0.0
            assert [one["status"] for one in post(url, query, path=PATH).json()] == ["pending"]


def test_a_trigger_is_in_the_log_and_its_failure_inside_is_500(caplog: pytest.LogCaptureFixture):
    """Each trigger has a line with its organization and its number of persons; where the store fails, it is the contract's 500."""
    caplog.set_level("INFO", "enrichstatus.server")
    body = {"personIds": IDS[:3], "field": "emails"}
    with SimulatedStore(clock=Clock()) as service, running(create_simulated_app(service, TOKENS)) as url:
        assert post(url, body).status_code == 200
        service.close()
        failed = post(url, body)
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "INTERNAL_ERROR")
    lines = [json.loads(one.message) for one in caplog.records if one.levelname == "INFO"]
    assert [(line["path"], line["status"], line["org"], line["tasks"]) for line in lines if "path" in line] == [
        (TRIGGER_PATH, 200, "org_simulated", 3),
        (TRIGGER_PATH, 500, "org_simulated", 3),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"fault_rate": 2}, "from 0 to 1"), ({"faults": ["404"]}, "not '404'"), ({"faults": ()}, "none at all")],
)
def test_wrong_faults_are_refused_before_the_service_runs(options: Any, message: str):
    """A rate or a kind of fault that is none is refused when the application is made."""
    with SimulatedStore() as service, pytest.raises(es.ValidationError, match=message):
        create_simulated_app(service, TOKENS, **options)
