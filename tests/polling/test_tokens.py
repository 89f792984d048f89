"""Tokens: a poll that goes on from a text, on whatever machine, comes to what one that waited would have come to."""

from __future__ import annotations

import asyncio
import json
import pickle
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import enrichstatus as es
from enrichstatus.polling.resuming import token as tokens
from enrichstatus.server import create_app
from enrichstatus.simulation import SimulatedStore
from tests.support.cases import cases, crossed
from tests.support.factory import ORG, record, task, uid
from tests.support.polled import NEVER, Clock, Service, numbered, polled, statuses
from tests.support.serving import running

PLAIN = es.Backoff(jitter=0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def began(source: Any, tasks: Any, clock: Clock, **options: Any) -> es.Update:
    """Give the first update of a poll, which then is over; from now on the clock tells the time that it is by the poll's."""
    update = next(es.poll(source, tasks, clock=clock, sleep=clock.sleep, **options))
    clock.set(update.course.began + timedelta(seconds=update.elapsed))
    return update


def resumed(token: str, source: Any, clock: Clock, **options: Any) -> es.Update:
    return es.resume(token, source, clock=lambda: clock.instant().timestamp(), **options)


def chained(
    source: Any, tasks: Any, clock: Clock, *, schedule: Any = None, again: Mapping[str, Any] = {}, **options: Any
) -> list[es.Update]:
    """Poll to the end as an orchestrator would: from token to token."""
    updates = [began(source, tasks, clock, schedule=schedule, **options)]
    while not updates[-1].done:
        assert updates[-1].next_in is not None
        clock.sleep(updates[-1].next_in + 0.01)
        token = updates[-1].token if "tasks" not in again else updates[-1].token_without_tasks
        updates.append(resumed(token, source, clock, schedule=schedule, **again))
    return updates


# --- it comes to the same -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("schedule", "given"), crossed([PLAIN, [5, 30]], [True, False]), ids=str)
def test_from_token_to_token_it_requests_and_finds_the_same(schedule: Any, given: bool):
    """It looks up the same tasks at the same times, tells the same of each, and the changes together are all rows, each once."""
    ends: dict[Any, float] = {(n, field): 4.0 * n for n in range(20) for field in ("emails", "phones")}
    status = {3: "failed", (7, "phones"): "on hold"}
    tasks = numbered(*ends, 99, 0)
    runs = []
    for run in (polled, chained):
        clock = Clock()
        service = Service(clock, ends, status=status)
        again = {"again": {"tasks": tasks.sample(frac=1, random_state=1)} if given else {}} if run is chained else {}
        runs.append((service, run(service, tasks, clock, schedule=schedule, **again)))
    (plain, expected), (service, updates) = runs
    assert service.times() == pytest.approx(plain.times(), abs=0.3)
    assert service.counts() == plain.counts()
    assert [update.requests for update in updates] == [update.requests for update in expected]
    assert updates[-1].settled == expected[-1].settled - (0 if given else 1)
    key = ["entityId", "field"]
    rows = [update.changed[key].drop_duplicates() for update in updates]
    assert [len(one) for one in rows] == [len(update.changed[key].drop_duplicates()) for update in expected]
    assert not pd.concat(rows).duplicated().any()
    last = updates[-1].frame.sort_values(key).reset_index(drop=True)
    whole = expected[-1].frame if given else expected[-1].frame.drop_duplicates(key).assign(entityType="person")
    pd.testing.assert_frame_equal(
        last, whole.sort_values(key).reset_index(drop=True)[list(last)], check_dtype=bool(given)
    )


@pytest.mark.slow
def test_a_schedule_that_learns_goes_on_with_what_it_learned(clock: Clock):
    """From token to token `Adaptive` needs about as many requests as in one poll, and the estimate is as good."""
    ends = np.random.default_rng(1).lognormal(np.log(50), 0.8, 400).clip(max=799)
    tasks = pd.DataFrame({"entityId": [uid(n) for n in range(400)], "field": "emails"})
    counts, halves = [], []
    for run in (polled, chained):
        here = Clock()
        service = Service.of(here, tasks, ends)
        updates = run(service, tasks, here, schedule=es.Adaptive(jitter=0))
        counts.append(service.requests)
        halves.append([update.half_in for update in updates if 0.3 < update.settled / 400 < 0.7])
    assert counts[1] == pytest.approx(counts[0], rel=0.25)
    assert np.mean(halves[1]) == pytest.approx(np.mean(halves[0]), rel=0.25)


def test_what_the_poll_was_begun_with_goes_on(clock: Clock):
    """Columns, prefix, bad rows, the caller's columns and kind of frame: all are as the poll would have them."""
    tasks = pl.DataFrame(
        [task(0) | {"lead": "a"}, {"entityId": "x", "field": "emails", "lead": "b"}, task(1) | {"lead": "c"}]
    )
    options: dict[str, Any] = {"errors": "coerce", "prefix": "now_", "columns": ["status", "createdAt", "error"]}
    service = Service(clock, {0: 0, 1: 3}, status={1: "failed"})
    first = began(service, tasks, clock, **options)
    clock.sleep(5)
    update = resumed(first.token_without_tasks, service, clock, tasks=tasks)
    assert update.frame.equals(service_frame := es.wait(service, tasks, clock=clock, sleep=clock.sleep, **options))
    assert service_frame.columns == ["entityId", "field", "lead", "now_status", "now_createdAt", "now_error"]
    assert update.changed["lead"].to_list() == ["c"]
    alone = resumed(first.token, service, clock)
    assert alone.frame["now_createdAt"].tolist() == service_frame["now_createdAt"].to_list()[::2]


def test_a_task_without_a_record_is_waited_for_across_tokens(clock: Clock):
    """`missing_after` counts from when it was first looked up, not from the last token; a record that vanishes is waited for anew."""
    service = Service(clock, {0: 200}, appears={0: 30})
    updates = chained(service, numbered(0, 1), clock, schedule=[25], missing_after=45)
    assert service.often()[uid(1), "emails"] == 3
    assert statuses(updates[-1].frame) == ["finished", None]


def test_a_record_that_is_pending_for_too_long_times_out_across_tokens(clock: Clock):
    """A service that never says so itself is not waited for beyond the maximum processing time and its margin."""
    service = Service(clock, {0: NEVER})
    updates = chained(service, numbered(0), clock, schedule=[225])
    assert statuses(updates[-1].frame) == ["timeout"]
    assert 880 < updates[-1].elapsed < 1000


def test_an_older_record_changes_nothing_across_tokens(clock: Clock):
    """Of a task that was bought again the token knows the newer record: one that ended before it is not taken for its end."""
    service = Service(clock, {0: 50})
    first = began(service, numbered(0), clock)
    old = lambda tasks, answer: answer.assign(  # noqa: E731
        status="failed", id="old", createdAt=answer["createdAt"] - pd.Timedelta("1h"), dataFound=None
    )
    service.troubles = [old]
    clock.sleep(20)
    update = resumed(first.token, service, clock)
    assert statuses(update.frame) == ["pending"]
    clock.sleep(60)
    assert statuses(resumed(update.token, service, clock).frame) == ["finished"]


def test_the_same_token_can_be_used_again(clock: Clock):
    """A call that is repeated, as an orchestrator does after a crash, gives the same changes; a token stays as it was."""
    service = Service(clock, {0: 0, 1: 3, 2: 90})
    first = began(service, numbered(0, 1, 2), clock)
    clock.sleep(5)
    for _ in range(2):
        assert resumed(first.token, service, clock).changed["entityId"].tolist() == [uid(1)]


def test_what_a_store_knows_meanwhile_counts(clock: Clock, store: es.EnrichmentStore):
    """With into=, what the store says to have ended since the token is among the changes and not looked up; answers are kept in it."""
    service = Service(clock, {0: 900, 1: 3})
    first = began(service, numbered(0, 1), clock, into=store)
    newer = (service.created + timedelta(seconds=1)).isoformat()
    store.load([record(0, createdAt=newer, updatedAt=newer)])
    clock.sleep(5)
    update = resumed(first.token, service, clock, into=store)
    assert update.done
    assert sorted(update.changed["entityId"]) == sorted([uid(0), uid(1)])
    assert service.counts() == [2, 1]
    assert statuses(store.lookup(numbered(1))) == ["finished"]


def test_no_tasks_and_all_done_have_tokens_too(clock: Clock):
    """A poll that is over goes on to the same end without a request."""
    for tasks in (numbered(0), numbered().astype(str)):
        service = Service(clock, {0: 0})
        first = began(service, tasks, clock)
        again = resumed(pickle.loads(pickle.dumps(first)).token, service, clock)
        assert (again.done, again.next_in, len(again.changed), again.requests) == (True, None, 0, first.requests)
        assert statuses(again.frame) == statuses(first.frame)


# --- when ---------------------------------------------------------------------------------------------------------------------


def test_a_call_that_comes_early_requests_nothing(clock: Clock):
    """It gives what is known and how long it still is, so that neither a schedule nor a Retry-After is undercut by whoever is eager."""
    busy = es.ServiceError("busy", 429, 40.0)
    service = Service(clock, {0: 3}, troubles=[None, busy])
    first = began(service, numbered(0), clock, schedule=[10])
    clock.sleep(10.1)
    held = resumed(first.token, service, clock, schedule=[10])
    assert (held.held, held.error) == (40, busy)
    clock.sleep(15)
    early = resumed(held.token, service, clock, schedule=[10])
    assert early.next_in == pytest.approx(25, abs=0.2)
    assert (len(service.asks), early.done, len(early.changed)) == (2, False, 0)
    clock.sleep(25.2)
    assert resumed(early.token, service, clock, schedule=[10]).done


def test_failures_are_counted_across_tokens(clock: Clock):
    """While the source does not answer the waits grow from token to token; without a deadline an outage ends it, in the end."""
    service = Service(clock, {0: 0}, troubles=[es.ServiceError("down")] * 999)
    with pytest.raises(es.ServiceError, match="Nothing has been answered for") as caught:
        chained(service, numbered(0), clock, schedule=[0.5])
    waits = np.diff(service.times())
    assert waits[:4].tolist() == pytest.approx([1, 2, 4, 8], rel=0.15)
    assert 880 < clock() - clock.start < 1000
    service.troubles = []
    clock.sleep(60)
    assert resumed(caught.value.update.token, service, clock).done  # type: ignore[attr-defined]


def test_the_deadline_is_the_polls(clock: Clock):
    """It counts from when the poll began; it requests a last time then, and raises with all that is known."""
    service = Service(clock, {0: 5, 1: 999})
    with pytest.raises(es.PollDeadline, match=r"1 of 2 tasks have not ended within 100 s") as caught:
        chained(service, numbered(0, 1), clock, schedule=PLAIN, deadline="100s")
    assert service.times()[-1] == pytest.approx(100, abs=0.2)
    assert statuses(caught.value.update.frame) == ["finished", "pending"]


def test_a_token_that_was_kept_for_a_week(clock: Clock):
    """It requests once: what has ended meanwhile is found, and of what has not the deadline, if there is one, is long over."""
    service = Service(clock, {0: 5, 1: 700})
    first = began(service, numbered(0, 1), clock)
    late = began(service, numbered(0, 1), clock, deadline="2h")
    clock.sleep(7 * 86_400)
    assert resumed(first.token, service, clock).done
    service.troubles = [es.ServiceError("down")] * 2
    assert resumed(first.token, service, clock).next_in is not None  # one failure after a week is no outage
    with pytest.raises(es.PollDeadline, match="have not ended within 7200 s"):
        resumed(late.token, service, clock)
    assert statuses(resumed(late.token, service, clock).frame) == ["finished", "finished"]


def test_clocks_may_differ_by_a_minute(clock: Clock):
    """Where this machine's clock is a little behind, no time is negative; where it is far behind, it says so."""
    service = Service(clock, {0: 3})
    first = began(service, numbered(0), clock)
    behind = lambda seconds: lambda: clock.instant().timestamp() - seconds  # noqa: E731
    update = es.resume(first.token, service, clock=behind(30))
    assert 0 < (update.next_in or 0) <= 1.2
    assert update.elapsed >= 0
    with pytest.raises(es.ValidationError, match="by this machine's clock that is 3,600 s ahead: set the clock"):
        es.resume(first.token, service, clock=behind(3600))


# --- what is in it ------------------------------------------------------------------------------------------------------------


def test_another_machine_goes_on_with_a_client_of_its_own(clock: Clock):
    """Over HTTP, a new client for each call; the token names the service and the organization, and has nothing of the bearer token."""
    tasks = [task(n) for n in range(3)]
    with (
        SimulatedStore(tasks, seed=2, org_id=ORG, clock=clock) as service,
        running(create_app(service, {"s3cret-of-1": ORG, "s3cret-of-2": "org_2"})) as url,
    ):
        with es.EnrichmentClient(url, token="s3cret-of-1") as client:
            token = next(es.poll(client, tasks, schedule=[0.001])).token
        told = json.loads(token)
        assert (told["service"], told["organization"]) == (url, ORG)
        assert "s3cret" not in token
        clock.sleep(1000)
        time.sleep(0.002)
        with (
            es.EnrichmentClient(url, token="s3cret-of-2") as client,
            pytest.raises(es.ValidationError, match="token= is of another organization") as caught,
        ):
            es.resume(token, client)
        assert ORG not in str(caught.value)
        with es.EnrichmentClient(url + "/", token="s3cret-of-1") as client:
            assert es.resume(token, client).done

        async def resumed_in_a_loop() -> es.Update:
            async with es.AsyncEnrichmentClient(url, token="s3cret-of-1") as client:
                with pytest.raises(es.ValidationError, match=r"token= is not the \.token of an update"):
                    await es.aresume(token[:-9], client)
                return await es.aresume(token, client, tasks=tasks)

        assert asyncio.run(resumed_in_a_loop()).done


def test_a_token_is_small(clock: Clock):
    """Of 10,000 tasks: two fields of 5,000 leads below 130 thousand characters with the tasks, and always below 10 thousand without."""
    tasks = pd.DataFrame([task(n, field) for n in range(5000) for field in ("emails", "phones")])
    ends = np.random.default_rng(1).lognormal(np.log(50), 0.8, 10_000)
    updates = es.poll(Service.of(clock, tasks, ends), tasks, schedule=[20], clock=clock, sleep=clock.sleep)
    for _, update in zip(range(4), updates, strict=False):
        assert len(update.token) < 130_000
        assert len(update.token_without_tasks) < 10_000


def test_a_program_may_write_the_json_anew(clock: Clock):
    """Another order of its members, or more white space, changes nothing; the time of the next request can be read."""
    service = Service(clock, {0: 3})
    first = began(service, numbered(0), clock, schedule=[5])
    told = json.loads(first.token)
    clock.sleep(6)
    assert resumed(json.dumps(dict(reversed(told.items())), indent=2), service, clock).done
    due = pd.Timestamp(told["next"]) - pd.Timestamp(told["began"])
    assert due.total_seconds() == pytest.approx(5, abs=0.01)


# --- what is refused ----------------------------------------------------------------------------------------------------------


def test_a_token_that_is_not_whole_is_refused(clock: Clock):
    """Cut anywhere, with any member changed, added or missing, or no token at all: it says so, and nothing is requested."""
    service = Service(clock, {0: 3})
    token = began(service, numbered(0, 1), clock).token
    clock.sleep(60)
    told = json.loads(token)
    bad: list[Any] = [None, b"x", told, "", "null", "3", "[1]", "{}", "[" * 100_000, '{"enrichstatus": 3}']
    bad += [token[:at] for at in range(1, len(token), len(token) // cases(20, 200))]
    for name in told:
        bad.append(json.dumps({other: value for other, value in told.items() if other != name}))
        bad.append(json.dumps(told | {name: 7 if told[name] != 7 else 8}))
    bad.append(json.dumps(told | {"state": told["state"] | {"words": ["x"]}}))
    for one in bad:
        with pytest.raises(es.ValidationError, match="token= "):
            resumed(one, service, clock)
    assert len(service.asks) == 1
    with pytest.raises(es.ValidationError, match=r"begin again with poll\(…\)"):
        resumed(token[:-1], service, clock)


def test_a_token_that_somebody_made_up_is_refused(clock: Clock):
    """Also where its digest is right: what makes no sense is an error of ours, however it is wrong."""
    service = Service(clock, {0: 3, 1: 900})
    told = json.loads(began(service, numbered(0, 1), clock, columns=["status", "error"]).token)
    del told["check"]
    state, listed = told["state"], told["list"]
    made_up: list[dict[str, Any]] = [
        {"began": "yesterday"},
        {"began": None},
        {"tasks": 10**9},
        {"tasks": -1},
        {"tasks": 3},
        {"tasks": None},
        {"list": {}},
        {"list": listed | {"entityId": "AAAA"}},
        {"list": listed | {"entityId": 3}},
        {"list": listed | {"field": {"words": [], "codes": listed["field"]["codes"]}}},
        {"state": state | {"words": ["x"]}},
        {"state": state | {"words": [*state["words"][:3]], "status": tokens.state.pack(np.array([9, 9]), "<u2")}},
        {"state": state | {"status": state["found"]}},
        {"state": state | {"times": {}}},
        {"state": state | {"columns": {}}},
        {"state": state | {"took": {"emails": {}}}},
        {"columns": ["nonsense"]},
        {"missingAfter": -1},
        {"waits": "x"},
        {"requests": {}},
        {"state": state | {"words": [*state["words"], 7]}},
        {"state": state | {"words": [*state["words"], "\ud800"]}},
        {"state": state | {"columns": {"error": {"words": [3], "codes": state["columns"]["error"]["codes"]}}}},
        {"deadline": "never"},
        {"samples": 3},
        {"digest": "0" * 64},
    ]
    clock.sleep(60)
    for changed in made_up:
        other = told | changed
        token = json.dumps(other | {"check": tokens._check(other)})
        with pytest.raises(es.ValidationError):
            resumed(token, service, clock)
    assert len(service.asks) == 1
    endless = told | {"waits": 2**70}
    assert resumed(json.dumps(endless | {"check": tokens._check(endless)}), service, clock).next_in == pytest.approx(
        60, rel=0.11
    )


def test_a_token_of_another_version_is_refused(clock: Clock):
    """It names both versions and what to do."""
    service = Service(clock, {0: 3})
    told = json.loads(began(service, numbered(0), clock).token) | {"enrichstatus": "enrichstatus/poll-token/2"}
    with pytest.raises(es.ValidationError, match="has the version '2', and this enrichstatus reads '1'"):
        resumed(json.dumps(told), service, clock)


def test_a_token_that_is_too_large_is_neither_read_nor_written(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """Both say how long it is; without its tasks a longer list has one."""
    service = Service(clock, {})
    update = began(service, numbered(*range(200)), clock)
    monkeypatch.setattr(tokens, "_MOST", 3_000)
    with pytest.raises(es.ValidationError, match=r"token= has 3,001 characters, and 3,000 are read at most"):
        resumed("x" * 3_001, service, clock)
    with pytest.raises(es.ValidationError, match=r"token of 200 tasks has .* Use \.token_without_tasks"):
        _ = update.token
    assert len(update.token_without_tasks) < 3_000


def test_other_tasks_are_refused(clock: Clock):
    """One more, one less, or another: the lists differ. In another order, twice, or in another spelling they are the same."""
    service = Service(clock, {0: 0, 1: 0, 2: 9})
    token = began(service, numbered(0, 1, 2), clock).token_without_tasks
    for other in (numbered(0, 1), numbered(0, 1, 2, 3), numbered(0, 1, 3), numbered(0, 1, (2, "phones"))):
        with pytest.raises(es.ValidationError, match=r"tasks= are \d tasks, and not the same as the 3 of the token"):
            resumed(token, service, clock, tasks=other)
    with pytest.raises(es.ValidationError, match="token= was written without its 3 tasks: give them with tasks="):
        resumed(token, service, clock)
    same = pd.concat([numbered(2, 0, 0, 1)]).assign(entityId=lambda frame: frame["entityId"].str.upper())
    assert statuses(resumed(token, service, clock, tasks=same).frame) == ["pending", "finished", "finished", "finished"]


def test_another_service_is_refused(clock: Clock):
    """A token of one service is not taken to another, nor to a store, nor to nothing."""
    token = began(Service(clock, {0: 9}), numbered(0), clock).token
    with (
        es.EnrichmentClient("https://one.example", token="x") as one,
        es.EnrichmentClient("https://two.example", token="x") as two,
    ):
        with pytest.raises(es.ValidationError, match=r"token= is of a store, and the source is https://one\.example"):
            resumed(token, one, clock)
        poll = es.poll(one, numbered(0), clock=clock)
        poll.close()  # type: ignore[attr-defined]
        first = began(_Named(clock, one.base_url), numbered(0), clock).token
        with pytest.raises(
            es.ValidationError, match=r"is of https://one\.example, and the source is https://two\.example"
        ):
            resumed(first, two, clock)
    with pytest.raises(es.ValidationError, match="source="):
        resumed(token, None, clock)
    with pytest.raises(es.ValidationError, match="schedule="):
        resumed(token, Service(clock, {}), clock, schedule="soon")


class _Named(Service):
    """A source at an address."""

    def __init__(self, clock: Clock, base_url: str, **options: Any):
        super().__init__(clock, {0: 9}, **options)
        self.base_url = base_url


def test_another_organizations_client_learns_nothing(clock: Clock):
    """Where other records, or none at all, are answered than the token knows of, it is refused and names nobody; nothing is taken."""
    token = began(Service(clock, {0: 9, 1: 9}), numbered(0, 1), clock).token
    clock.sleep(60)
    for other in (Service(clock, {0: 0, 1: 0}, org_id="org_other"), Service(clock, {})):
        with pytest.raises(es.ValidationError, match="token= is of another organization") as caught:
            resumed(token, other, clock)
        assert "org_" not in str(caught.value)
        assert statuses(caught.value.update.frame) == ["pending", "pending"]  # type: ignore[attr-defined]
    with (
        es.EnrichmentStore(org_id="org_other") as store,
        pytest.raises(es.ValidationError, match="another organization"),
    ):
        resumed(token, store, clock)
