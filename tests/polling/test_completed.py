"""`as_completed(since=)`: what has ended since a cursor of a store, each once, whoever loaded it and whenever it is broken off."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pandas as pd
import polars as pl
import pytest

import enrichstatus as es
from tests.support.cases import cases
from tests.support.factory import ORG, record, task, uid
from tests.support.polled import NEVER, Clock, Service, numbered, statuses

PENDING = {"status": "pending", "dataFound": None, "updatedAt": None}


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _course(drawn: random.Random, clock: Clock) -> list[list[dict[str, Any]]]:
    """Draw loads, in which records come and end, are bought again, are corrected, come late, and come again unchanged."""
    steps = []
    for number in range(5):
        at = clock.instant()
        for buying in range(drawn.choice([1, 1, 2])):
            one = record(
                number, id=uid(100 * number + buying), createdAt=(at + pd.Timedelta(seconds=buying)).isoformat()
            )
            ended = {
                "status": drawn.choice(["finished", "failed"]),
                "updatedAt": (at + pd.Timedelta(minutes=5)).isoformat(),
            }
            steps += [one | PENDING] if drawn.random() < 0.8 else []
            steps += [one | ended] if drawn.random() < 0.8 else []
            steps += [one | ended | {"createdBy": "other", "updatedAt": (at + pd.Timedelta(hours=1)).isoformat()}][
                : drawn.randrange(2)
            ]
    if drawn.random() < 0.5:
        drawn.shuffle(steps)
    loads = [steps[at : at + 3] for at in range(0, len(steps), 3)]
    return [load for load in loads for _ in range(drawn.choice([1, 1, 2]))]


@pytest.mark.slow
def test_each_end_is_given_once_however_often_it_is_broken_off(clock: Clock):
    """Loads come while it polls and between two calls; each call goes on from the last cursor. No end is given twice or left out."""
    tasks = numbered(*range(5))
    for seed in range(cases(1, 60)):
        drawn = random.Random(seed)
        with es.EnrichmentStore(org_id=ORG, max_processing_time="30 days") as store:
            loads = iter(_course(drawn, clock))
            for _ in range(drawn.randrange(3)):
                store.load(next(loads))
            before, cursor, given = store.lookup(tasks, columns=["status", "id"]), store.changes().cursor, []
            sleep = partial(_load_next, store, loads, clock)
            for call in range(4):
                sleep(1)
                completed = es.as_completed(
                    store,
                    tasks,
                    since=cursor,
                    columns=["status", "id"],
                    schedule=[1],
                    deadline=30 if call == 3 else 5,
                    sleep=sleep,
                    clock=clock,
                )
                with suppress(es.PollDeadline):
                    for frame in completed:
                        if drawn.random() < 0.3 and call < 3:
                            break  # before it was dealt with
                        given.append(frame)
                        cursor = str(completed.cursor)
            whole, after = pd.concat(given), store.lookup(tasks, columns=["status", "id"])
            assert not whole.duplicated(["entityId", "id"]).any(), seed
            assert "pending" not in set(whole["status"])
            ended, was = (frame[frame["status"] != "pending"]["id"].dropna() for frame in (after, before))
            assert set(ended) - set(was) <= set(whole["id"]), seed


def _load_next(store: es.EnrichmentStore, loads: Iterator[list[dict[str, Any]]], clock: Clock, seconds: float) -> None:
    clock.sleep(seconds)
    store.load(next(loads, []))


def test_what_has_not_ended_by_its_record_is_not_given(clock: Clock):
    """A timeout that is only reported, a task without a record, a bad row, and what had ended at the cursor: none; a late end is given then."""
    old = clock.instant() - pd.Timedelta("2h")
    with es.EnrichmentStore(org_id=ORG) as store:
        late = record(0, createdAt=old.isoformat(), **PENDING)
        store.load([late, record(1)])
        cursor = store.changes().cursor
        store.load([record(2), record(3, id=uid(77), createdAt=old.isoformat())])
        store.load([record(3, id=uid(78), createdAt=(old + pd.Timedelta("1h")).isoformat(), **PENDING)])  # bought again
        tasks = [*numbered(*range(5)).to_dict("records"), {"entityId": "x", "field": "emails"}]
        options: dict[str, Any] = {"errors": "coerce", "sleep": clock.sleep, "clock": clock}
        [frame] = list(es.as_completed(store, tasks, since=cursor, **options))
        assert frame["entityId"].tolist() == [uid(2)]
        [everything] = list(es.as_completed(store, tasks, since="", **options))
        assert everything["entityId"].tolist() == [uid(1), uid(2)]
        cursor = store.changes().cursor
        store.load([late | {"status": "finished", "dataFound": True, "updatedAt": clock.instant().isoformat()}])
        [frame] = list(es.as_completed(store, tasks, since=cursor, **options))
        assert statuses(frame) == ["finished"]


def test_what_a_service_answers_comes_by_way_of_the_store(clock: Clock):
    """With into=, what others loaded since is given first and not requested, then what the service answers, as it ends."""
    service = Service(clock, {0: 0, 1: 10, 2: 25, 3: NEVER})
    tasks = pl.from_pandas(numbered(0, 1, 2, 3, 2).assign(lead=[*"abcde"]))
    options: dict[str, Any] = {"prefix": "now_", "schedule": [10], "sleep": clock.sleep, "clock": clock}
    with es.EnrichmentStore(org_id=ORG) as store:
        store.load([record(0)])
        cursor = store.changes().cursor
        store.load([record(3)])
        completed = es.as_completed(service, tasks, into=store, since=cursor, **options)
        assert completed.cursor == cursor
        first = next(completed)
        assert service.asks == []
        assert first["lead"].to_list() == ["d"]
        assert first.columns == [*tasks.columns, "now_status", "now_dataFound"]
        cursors = [completed.cursor]
        parts = []
        for part in completed:
            parts.append(part["lead"].to_list())
            cursors.append(completed.cursor)
        assert parts == [["b"], ["c", "e"]]
        assert service.counts()[0] == 2
        for at, left in enumerate([["b"], ["c", "e"]]):
            assert (
                next(es.as_completed(service, tasks, into=store, since=cursors[at], **options))["lead"].to_list()[:1]
                == left[:1]
            )
        assert list(es.as_completed(service, tasks, into=store, since=cursors[-1], **options)) == []


def test_without_since_there_is_no_cursor(clock: Clock):
    """It is as it was, and says None."""
    completed = es.as_completed(Service(clock, {0: 3}), numbered(0), sleep=clock.sleep, clock=clock)
    assert [statuses(frame) for frame in completed] == [["finished"]]
    assert completed.cursor is None


def test_a_cursor_that_is_none_of_the_store_is_refused_at_once(clock: Clock):
    """A word, a cursor of another store, and a source that is no store without into=: each says so before anything is requested."""
    service = Service(clock, {0: 3})
    with es.EnrichmentStore(org_id=ORG) as store, es.EnrichmentStore(org_id=ORG) as other:
        other.load([record(0)])
        with pytest.raises(es.ValidationError, match=r"since= takes the \.cursor of earlier changes, not 'yesterday'"):
            es.as_completed(store, [task(0)], since="yesterday")
        with pytest.raises(es.ValidationError, match="since= is of"):
            es.as_completed(service, [task(0)], into=store, since=other.changes().cursor)
        with pytest.raises(es.ValidationError, match="since= is a cursor of a store, and the source is Service"):
            es.as_completed(service, [task(0)], since=store.changes().cursor)
    assert service.asks == []
