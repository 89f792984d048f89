"""Every poll ends, whatever a service makes of its records and its clock, and "pending" is said of nothing that nobody answered."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.lookup.arguments import parse_columns
from tests.support.cases import cases, crossed
from tests.support.factory import ORG, record, uid
from tests.support.polled import NEVER, Clock, Service, as_answered, numbered, polled, statuses

#: What a poll waits for at most without `deadline=`: the maximum processing time, its margin and the longest wait between two requests.
LONGEST = 800 * 1.1 + 66


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Told:
    """A service whose record of the one task is made for each request: members by the seconds that have passed, or None."""

    def __init__(self, clock: Clock, record_at: Callable[[float], dict[str, Any] | None]):
        self.clock, self.start, self.record_at = clock, clock.instant(), record_at
        self.requests = 0

    def instant(self, seconds: float) -> str:
        return (self.start + timedelta(seconds=seconds)).isoformat()

    def lookup(self, tasks: pd.DataFrame, *, columns: Any = ("status", "dataFound")) -> pd.DataFrame:
        self.requests += 1
        found = self.record_at((self.clock.instant() - self.start).total_seconds())
        known: dict[str, Any] = dict.fromkeys(record())
        if found is not None:
            moments = {name: pd.Timestamp(self.instant(found[name])) for name in ("createdAt", "updatedAt")}
            known = record(0, status="pending", dataFound=None, id=uid(500)) | found | moments
        assert tasks["entityId"].tolist() == [uid(0)] * len(tasks)
        answer = as_answered(pd.DataFrame([known] * len(tasks), columns=list(known))[list(parse_columns(columns))])
        return tasks.assign(**{name: answer[name].array for name in answer})


def pending(made: float, **members: Any) -> dict[str, Any]:
    return {"createdAt": made, "updatedAt": made} | members


def finished(made: float, wrote: float, **members: Any) -> dict[str, Any]:
    return {"createdAt": made, "updatedAt": wrote, "status": "finished", "dataFound": True} | members


# --- clocks -------------------------------------------------------------------------------------------------------------------


@cache
def _cost(ahead: float, told: bool) -> tuple[int, float]:
    """Poll 1,500 tasks of a service whose clock is ahead; gives the requests, and the mean delay until an end is noticed."""
    clock = Clock()
    ends = np.minimum(np.random.default_rng(1).lognormal(4.025, 0.8, 1500), 800)
    tasks = numbered(*range(1500))
    service: Any = Service.of(clock, tasks, ends)
    service.created += timedelta(seconds=ahead)
    if told:
        service.service_time = lambda: clock.instant().timestamp() + ahead
    noticed = np.full(1500, np.nan)
    for update in polled(service, tasks, clock, schedule=es.Adaptive(random=random.Random(1).random)):
        noticed[update.changed.index] = update.elapsed
    assert statuses(update.frame) == np.where(ends >= 800, "timeout", "finished").tolist()
    return service.requests, float((noticed - ends).mean())


@pytest.mark.parametrize(
    ("ahead", "told"),
    [
        *((600, True), (-600, False), (90, False), (-90, True)),
        *((600, False), (-600, True), (90, True), (-90, False)),
    ][: cases(2, 8)],
)
def test_clocks_that_differ_cost_a_tenth_at_most(ahead: float, told: bool):
    """With clocks ten minutes apart, either way, `Adaptive` needs no more than a tenth more requests, and notices ends as soon."""
    requests, delay = _cost(0, told=False)
    with_, late = _cost(ahead, told)
    assert with_ <= 1.1 * requests
    assert late <= 1.1 * delay


@pytest.mark.parametrize("ahead", [-3600, -700, 700, 3600])
def test_nothing_times_out_early_because_of_a_clock(clock: Clock, ahead: float):
    """A task that ends just before the maximum processing time does so, however old its record looks by our clock."""
    for told in (False, True):
        service: Any = Told(clock, lambda now: finished(ahead, ahead + 790) if now % 10_000 >= 790 else pending(ahead))
        if told:
            service.service_time = lambda: clock.instant().timestamp() + ahead
        last = polled(service, numbered(0), clock)[-1]
        assert statuses(last.frame) == ["finished"]


def test_a_service_whose_date_contradicts_its_records_ends_nothing_early(clock: Clock):
    """Where the clock of the ``Date`` is not that of the records, a new record is still waited for."""
    for wrong in (-7200, 7200):
        service: Any = Told(clock, lambda now: finished(0, 300) if now >= 300 else pending(0))
        service.service_time = lambda wrong=wrong: clock.instant().timestamp() + wrong
        assert statuses(polled(service, numbered(0), clock)[-1].frame) == ["finished"]


# --- polls end ----------------------------------------------------------------------------------------------------------------


MADE: dict[str, Callable[[float], float]] = {
    "less than the trigger said": lambda now: -0.6,
    "moves back each time": lambda now: -now,
    "an hour back": lambda now: -3600.0 if now > 5 else 0.0,
    "rounded later": lambda now: 0.6 - (now > 5),
}


@pytest.mark.parametrize(("name", "kept"), crossed(MADE, [True, False]))
def test_the_same_record_is_always_news(clock: Clock, name: str, kept: bool):
    """A record whose ``createdAt`` is less than it was is the same one by its id, and ends the task when it ends."""
    made = MADE[name]
    service = Told(clock, lambda now: finished(made(now), 30) if now > 30 else pending(made(now)))
    with es.EnrichmentStore(org_id=ORG) as store:
        options = {"into": store} if kept else {}
        if kept:  # the trigger's answer
            own = {"id": uid(500), "status": "pending", "dataFound": None}
            store.load([record(0, **own, createdAt=service.instant(0), updatedAt=service.instant(0))])
        last = polled(service, numbered(0), clock, deadline="10min", **options)[-1]
    assert statuses(last.frame) == ["finished"]
    assert last.elapsed < 100


def test_a_record_that_vanishes_is_not_waited_for_without_end(clock: Clock):
    """A task whose record is gone counts as having none after `missing_after`; one that comes back in time does not."""
    gone = Told(clock, lambda now: pending(0) if now < 20 else None)
    last = polled(gone, numbered(0), clock, missing_after=100, schedule=[10])[-1]
    assert statuses(last.frame) == [None]
    assert 120 <= last.elapsed <= 140
    back = Told(clock, lambda now: finished(0, 100) if now > 100 else None if 20 < now < 70 else pending(0))
    assert statuses(polled(back, numbered(0), clock, missing_after=60, schedule=[10])[-1].frame) == ["finished"]


@pytest.mark.parametrize(
    "course",
    [
        lambda now: pending(0),
        lambda now: pending(now),
        lambda now: pending(10 * now + 1e6),
        lambda now: pending(-1e6),
        lambda now: pending(0, id=uid(int(now) % 7 + 600)),
        lambda now: pending(5 * 365 * 86_400.0),
    ],
    ids=["for ever", "made anew each time", "of the future", "of long ago", "of several ids", "of another year"],
)
def test_without_a_deadline_a_poll_ends(clock: Clock, course: Callable[[float], dict[str, Any]]):
    """What stays pending beyond the maximum processing time and a margin counts as a timeout, whatever its record looks like."""
    updates = polled(Told(clock, course), numbered(0), clock)
    assert statuses(updates[-1].frame) == ["timeout"]
    assert updates[-1].frame["dataFound"].isna().all()
    assert updates[-1].done
    assert 800 < updates[-1].elapsed <= LONGEST


def test_an_older_record_of_another_purchase_is_not_waited_behind_without_end(clock: Clock):
    """Where the service never shows the purchase that the store knows of, the task times out here, as the store's lookup says too."""
    service = Told(clock, lambda now: finished(-90_000, -80_000, id=uid(501)))
    with es.EnrichmentStore(org_id=ORG) as store:
        own = {"id": uid(500), "status": "pending", "dataFound": None}
        store.load([record(0, **own, createdAt=service.instant(0), updatedAt=service.instant(0))])
        last = polled(service, numbered(0), clock, into=store)[-1]
        assert statuses(last.frame) == ["timeout"]
        assert statuses(store.lookup(numbered(0), now=clock.instant())) == ["timeout"]


def test_the_maximum_processing_time_is_the_sources(clock: Clock):
    """A source that says for how long its fields may be pending is believed, field by field."""
    service: Any = Service(clock, {(0, "emails"): NEVER, (0, "phones"): NEVER})
    service.max_processing_time = {"emails": timedelta(seconds=100), "phones": timedelta(hours=1)}
    ended = {}
    for update in polled(service, numbered((0, "emails"), (0, "phones")), clock, schedule=[*[10] * 13, 3820, 10]):
        ended |= dict.fromkeys(update.changed["field"], update.elapsed)
    assert 110 <= ended["emails"] <= 120
    assert 3960 <= ended["phones"] <= 3970


@pytest.mark.parametrize("asked", [math.nan, math.inf, -math.inf, -5, "soon", None, [3]], ids=repr)
def test_nonsense_in_what_a_source_asks_for_holds_nothing_up(clock: Clock, asked: Any):
    """A source's ``retry_after`` that is not a number of seconds to come is left aside."""
    error: Any = es.ServiceError("down", 503)
    error.retry_after = asked
    service = Service(clock, {0: 0}, troubles=[error])
    updates = polled(service, numbered(0), clock)
    assert updates[-1].elapsed < 5
    assert updates[0].held == 0


# --- unanswered ---------------------------------------------------------------------------------------------------------------


def test_what_nobody_has_answered_is_unanswered(clock: Clock):
    """Where the service is down until the deadline, no task is said to be pending, in the frame, the counts, the text or the error."""
    service = Service(clock, {0: 0}, troubles=[es.ServiceError("down")] * 99)
    with pytest.raises(es.PollDeadline, match=r"2 of 2 .* pending \(0\) or unanswered \(2\), not failed") as caught:
        polled(service, numbered(0, (1, "phones")), clock, deadline=60)
    update = caught.value.update
    assert statuses(update.frame) == ["unanswered"] * 2
    assert update.frame["dataFound"].isna().all()
    assert update.counts[["pending", "unanswered", "ended"]].sum().tolist() == [0, 2, 0]
    assert update.settled == 0
    assert not update.done
    assert "2 unanswered" in str(update)
    assert "pending" not in str(update)


def test_what_was_answered_once_is_pending_through_an_outage(clock: Clock):
    """A task that has been said to be pending, now or by a store that remembers, stays so; only the others are unanswered."""
    service = Service(clock, {0: 500, 1: 500}, troubles=[None, *[es.ServiceError("down")] * 99])
    with pytest.raises(es.PollDeadline, match="They are pending, not failed") as caught:
        polled(service, numbered(0, 1), clock, deadline=60)
    assert statuses(caught.value.update.frame) == ["pending"] * 2
    down = Service(clock, {}, troubles=[es.ServiceError("down")] * 99)
    with es.EnrichmentStore(org_id=ORG) as store:
        store.load([record(0, status="pending", dataFound=None), record(1)])
        with pytest.raises(es.PollDeadline) as caught:
            polled(down, numbered(0, 1, 2), clock, into=store, deadline=60)
    assert statuses(caught.value.update.frame) == ["pending", "finished", "unanswered"]


@pytest.mark.parametrize("before", [[], [None]])
def test_a_service_that_is_gone_for_good_ends_a_poll_without_a_deadline(clock: Clock, before: list[None]):
    """Answered never or no more, it is an error with the last state, after as long as a record may be pending."""
    service = Service(clock, {0: NEVER}, troubles=[*before, *[es.ServiceError("down")] * 99])
    with pytest.raises(es.ServiceError, match=r"^Nothing has been answered for \d+ s, .*: down$") as caught:
        polled(service, numbered(0), clock)
    assert 800 < sum(clock.slept) < LONGEST + 66
    assert statuses(vars(caught.value)["update"].frame) == ["pending" if before else "unanswered"]


def test_a_file_of_a_poll_says_what_nobody_answered(clock: Clock, tmp_path: Path):
    """The word is in what is written, too."""
    service = Service(clock, {}, troubles=[es.UnauthorizedError("wrong token")])
    with pytest.raises(es.UnauthorizedError) as caught:
        polled(service, numbered(0), clock)
    path = tmp_path / "out.csv"
    vars(caught.value)["update"].frame.to_csv(path, index=False)
    assert pd.read_csv(path)["status"].tolist() == ["unanswered"]


def test_a_service_may_have_our_words_for_a_status(clock: Clock):
    """A status that the service calls as we call what it is not has ended, and is counted apart."""
    words = {0: "unanswered", 1: "no record", 2: "ended", 3: "tasks"}
    updates = polled(Service(clock, dict.fromkeys(words, 0.0), status=words), numbered(*words), clock)
    assert statuses(updates[-1].frame) == list(words.values())
    counts = updates[-1].counts
    assert counts["ended"].item() == 4
    assert counts["unanswered"].item() == counts["no record"].item() == 0
    assert [counts[f"{word} (status)"].item() for word in words.values()] == [1] * 4
