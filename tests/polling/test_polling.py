"""Polling until all are settled: what, when, what is reported, and what ends it early."""

from __future__ import annotations

import gc
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import enrichstatus as es
from enrichstatus.errors import LookupInterrupted
from enrichstatus.server import create_app
from enrichstatus.simulation import PROFILES, SimulatedStore
from tests.support.cases import cases
from tests.support.factory import ORG, record, task, uid
from tests.support.polled import NEVER, Clock, Service, numbered, polled, statuses
from tests.support.serving import running

PLAIN = es.Backoff(jitter=0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


# --- what is requested ------------------------------------------------------------------------------------------------------------


def test_only_the_unfinished_are_asked_again(clock: Clock):
    """All are requested at once, then those that have not ended; each until the request at which it has, and then never again."""
    service = Service(clock, {0: 0, 1: 2, 2: 5, 3: 30})
    updates = polled(service, numbered(0, 1, 2, 3), clock, schedule=PLAIN)
    assert service.times() == [0, 1, 3, 7, 15, 31]
    assert service.counts() == [4, 3, 3, 2, 1, 1]
    assert [service.often()[uid(n), "emails"] for n in range(4)] == [1, 3, 4, 6]
    assert [update.settled for update in updates] == [1, 1, 2, 3, 3, 4]
    assert [update.asked for update in updates] == [4, 3, 3, 2, 1, 1]
    assert [update.done for update in updates] == [False] * 5 + [True]


def test_the_unfinished_are_packed_into_full_batches(clock: Clock):
    """Of a thousand of which three in four have ended, the rest goes into one lookup, and is counted as full requests."""
    ends = {n: 0.0 if n % 4 else 50.0 for n in range(1000)}
    service = Service(clock, ends)
    updates = polled(service, numbered(*range(1000)), clock, schedule=[60])
    assert service.counts() == [1000, 250]
    assert [update.requests for update in updates] == [5, 7]
    assert service.requests == 7


def test_a_task_that_comes_twice_is_asked_once(clock: Clock):
    """Duplicates, in whatever spelling, are one task that is requested once, and each of their rows is reported."""
    service = Service(clock, {0: 0, 1: 4})
    tasks = pd.DataFrame({"entityId": [uid(1), uid(0), uid(1).upper(), f"{{{uid(1)}}}"], "field": "emails"})
    updates = polled(service, tasks, clock, schedule=PLAIN)
    assert service.counts() == [2, 1, 1, 1]
    assert statuses(updates[0].frame) == ["pending", "finished", "pending", "pending"]
    assert updates[-1].changed.index.tolist() == [0, 2, 3]
    assert (updates[0].total, updates[0].settled, updates[-1].settled) == (4, 1, 4)


def test_tasks_of_all_types_and_fields_are_apart(clock: Clock):
    """The same entity as a person and as a company, and for another field, are tasks of their own."""
    tasks = [task(0), task(0, "phones"), task(0) | {"entityType": "company"}, task(0) | {"entityType": "person"}]
    with SimulatedStore(tasks, seed=1, clock=clock) as service:
        last = polled(service, tasks, clock)[-1]
        pd.testing.assert_frame_equal(last.frame, service.lookup(tasks))
    assert last.tracker.status.size == 3


# --- what is told -------------------------------------------------------------------------------------------------------------


def _odd(tasks: pd.DataFrame, folder: Path) -> pd.DataFrame:
    return tasks.set_index(pd.Index([7, 7, "x", None, 7] * (len(tasks) // 5)))


def _path(tasks: pd.DataFrame, folder: Path) -> Path:
    tasks.to_csv(folder / "tasks.csv", index=False)
    return folder / "tasks.csv"


KINDS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "pandas": lambda tasks, folder: tasks,
    "odd index": _odd,
    "categories": lambda tasks, folder: tasks.astype({"field": "category"}),
    "polars": lambda tasks, folder: pl.from_pandas(tasks),
    "lazy": lambda tasks, folder: pl.from_pandas(tasks).lazy(),
    "arrow": lambda tasks, folder: pa.Table.from_pandas(tasks, preserve_index=False),
    "list": lambda tasks, folder: tasks.to_dict("records"),
    "path": _path,
    "relation": lambda tasks, folder: duckdb.from_arrow(pa.Table.from_pandas(tasks)),
}


def same(found: Any, expected: Any) -> None:
    """Compare frames of any kind: contents, types and index."""
    assert type(found) is type(expected)
    if isinstance(found, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
    elif isinstance(found, pl.LazyFrame):
        same(found.collect(), expected.collect())
    elif isinstance(found, pl.DataFrame):
        assert found.schema == expected.schema
        assert found.equals(expected)
    elif isinstance(found, pa.Table):
        assert found.schema.equals(expected.schema)
        assert found.equals(expected)
    else:
        assert (found.columns, found.types) == (expected.columns, expected.types)
        assert found.fetchall() == expected.fetchall()


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_is_what_a_lookup_gives(kind: str, clock: Clock, tmp_path: Path):
    """In every kind of frame, each update has what a lookup of all tasks gives at that moment: values, types, columns and index."""
    plain = pd.DataFrame([task(n, field) | {"lead": n} for n in range(40) for field in ("emails", "phones")])
    with SimulatedStore(plain, seed=3, clock=clock) as service:
        tasks = KINDS[kind](plain, tmp_path)
        updates = es.poll(service, tasks, prefix="now_", clock=clock, sleep=clock.sleep, schedule=[5, 30, 300])
        for number, update in enumerate(updates):
            if number < 3 or update.done:
                same(update.frame, service.lookup(tasks, prefix="now_"))
        assert update.done
        assert len(_pandas(update.changed)) < len(plain)


def _pandas(frame: Any) -> pd.DataFrame:
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame.to_pandas()
    return frame if isinstance(frame, pd.DataFrame) else pa.table(frame).to_pandas()


@pytest.mark.slow
@given(
    ends=st.lists(st.sampled_from([0.0, 1.0, 5.5, 30.0, 100.0, None]), min_size=1, max_size=8),
    rows=st.lists(st.integers(0, 9), max_size=12),
    waits=st.lists(st.floats(0.1, 50), max_size=4),
    adaptive=st.booleans(),
)
@settings(max_examples=cases(10, 25), deadline=None)
def test_the_last_frame_is_a_lookup_whatever_the_course(
    ends: list[float | None], rows: list[int], waits: list[float], adaptive: bool
):
    """Whatever ends when, with rows that repeat or have no record, and whenever it asks: the last frame is the source's, all changes are in it once."""
    clock = Clock()
    service = Service(clock, {n: end for n, end in enumerate(ends) if end is not None})
    tasks = numbered(*rows)
    updates = polled(service, tasks, clock, schedule=es.Adaptive() if adaptive else waits, missing_after=20)
    expected = service.lookup(tasks)
    assert statuses(updates[-1].frame) == statuses(expected)
    assert updates[-1].frame["dataFound"].tolist() == expected["dataFound"].tolist()
    changed = [row for update in updates for row in update.changed.index]
    assert sorted(changed) == list(range(len(rows)))
    assert [update.done for update in updates] == [False] * (len(updates) - 1) + [True]
    assert updates[-1].next_in is None


def test_an_update_stays_as_it_was(clock: Clock):
    """What the poll does later does not change an update, nor does what the caller does to the tasks change ours."""
    service = Service(clock, {0: 0, 1: 4})
    tasks = numbered(0, 1)
    updates = []
    for update in es.poll(service, tasks, schedule=PLAIN, clock=clock, sleep=clock.sleep):
        tasks["new"] = 1
        tasks.index = tasks.index + 10
        updates.append(update)
    assert [statuses(update.frame) for update in updates[2:]] == [["finished", "pending"], ["finished", "finished"]]
    assert [update.settled for update in updates] == [1, 1, 1, 2]
    assert updates[0].frame.columns.tolist() == ["entityId", "field", "status", "dataFound"]
    assert updates[0].frame.index.tolist() == [0, 1]
    assert updates[0] == updates[0]
    assert updates[0] != updates[1]


def test_counts_are_of_rows_by_field_and_status(clock: Clock):
    """A row for each field with its tasks, how many have ended, a column for each status, those without record, and those with data."""
    ends: dict[Any, float] = {(n, "phones"): 0 if n < 3 else 50 for n in range(5)} | {0: 0, 1: 0, 2: NEVER}
    service = Service(clock, ends, status={0: "failed", 1: "on hold"})
    tasks = numbered(*ends, 99, 99, 0)
    update = next(es.poll(service, tasks, clock=clock, sleep=clock.sleep))
    counts = update.counts
    assert list(counts.columns) == [
        *(
            "tasks",
            "ended",
            "pending",
            "unanswered",
            "finished",
            "timeout",
            "failed",
            "on hold",
            "no record",
            "with data",
        )
    ]
    emails, phones = counts.loc["emails"], counts.loc["phones"]
    assert (emails["tasks"], emails["ended"], emails["pending"]) == (6, 3, 3)
    assert (emails["failed"], emails["on hold"], emails["finished"], emails["no record"]) == (2, 1, 0, 0)
    assert (phones["tasks"], phones["ended"], phones["finished"]) == (5, 3, 3)
    frame = update.frame
    with_data = frame[frame["dataFound"].eq(True)]["field"].value_counts()
    assert counts["with data"].to_dict() == with_data.reindex(["emails", "phones"], fill_value=0).to_dict()
    assert set(counts.dtypes) == {np.dtype("int64")}


@pytest.mark.parametrize("word", ["on hold", "tasks", "ended", "with data", "", "ünïcode 😀"])
def test_a_status_that_nobody_knows_has_ended(clock: Clock, word: str):
    """Any word other than pending is kept as it came, counts as ended, and is in the counts and the text."""
    service = Service(clock, {0: 3, 1: 3}, status={0: word})
    last = polled(service, numbered(0, 1), clock)[-1]
    assert statuses(last.frame) == [word, "finished"]
    assert last.settled == 2
    assert str(last).startswith(f"2 of 2 settled; 1 {word}")  # marked as a status where a column is called so
    assert last.counts.loc["emails"].tolist()[-3:] == [1, 0, last.frame["dataFound"].sum()]


def test_the_text_says_how_it_stands(clock: Clock):
    """An update's text has what has ended, what has not, the requests, and when it polls again; the last one no more than needed."""
    service = Service(clock, dict.fromkeys(range(400), 0.0) | {400: 5, 401: 200}, status={400: "failed"})
    updates = polled(service, numbered(*range(402)), clock, schedule=PLAIN)
    assert str(updates[0]) == "400 of 402 settled; 2 pending; 3 requests; polls again in 1 s"
    assert str(updates[3]) == "401 of 402 settled; 1 pending, 1 failed; 6 requests (6 saved); polls again in 8 s"
    assert repr(updates[3]) == f"Update({updates[3]})"
    assert str(updates[-1]) == f"402 of 402 settled; 1 failed; 12 requests ({updates[-1].saved} saved)"
    assert len(repr(updates[0])) < 200


def test_requests_and_the_ones_saved_are_counted(clock: Clock):
    """Saved are the requests of a loop that looks up all tasks at 0, 1, 3, 7 … 63 s and then every 60 s, beyond ours."""
    service = Service(clock, {n: 0.0 if n < 900 else 1000.0 for n in range(1000)})
    updates = polled(service, numbered(*range(1000)), clock, schedule=PLAIN)
    loop = [0, 1, 3, 7, 15, 31, 63, *range(123, 2000, 60)]
    for update in updates:
        asks = sum(moment <= update.elapsed for moment in loop)
        assert update.saved == asks * 5 - update.requests
    assert updates[-1].requests == 5 + len(updates) - 1 == service.requests
    slow = polled(Service(clock, {0: 1}), numbered(0), clock, schedule=[0.1])
    assert {update.saved for update in slow[:-1]} == {0}


def test_times_are_told_since_the_start(clock: Clock):
    """`elapsed` counts from the first ask, on whatever clock; `next_in` is when it will ask, within the wait's jitter."""
    service = Service(clock, {0: 520})
    run = es.poll(service, numbered(0), clock=clock, sleep=clock.sleep, schedule=PLAIN)
    clock.seconds += 500  # made, but not begun
    updates = list(run)
    assert [update.elapsed for update in updates] == [0, 1, 3, 7, 15, 31]
    assert [update.next_in for update in updates] == [1, 2, 4, 8, 16, None]
    assert clock.slept == [1, 2, 4, 8, 16]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2][: cases(1, 2)])
def test_the_estimates_are_plausible(clock: Clock, seed: int):
    """Once a fifth has ended, half and 90 % of the rest end about when it was estimated; before anything has ended there is no estimate."""
    tasks = pd.DataFrame([task(n, field) for n in range(600) for field in ("emails", "summary")])
    with SimulatedStore(tasks, seed=seed, clock=clock) as service:
        updates = polled(service, tasks, clock, schedule=[4] * 30 + [60])
    assert (updates[0].half_in, updates[0].most_in) == (None, None)
    ended = pd.Series([update.settled for update in updates], [update.elapsed for update in updates])
    checked = 0
    for update in updates:
        if 0.2 <= update.settled / update.total <= 0.8:
            left = update.total - update.settled
            for told, share in ((update.half_in, 0.5), (update.most_in, 0.9)):
                truly = ended.index[np.argmax(ended >= update.settled + share * left)] - update.elapsed
                if share == 0.5:
                    assert told is not None
                    assert told == pytest.approx(truly, rel=0.5, abs=4)
                    checked += 1
                elif told is not None and update.settled / update.total > 0.6:
                    assert told <= truly * 8  # that some never end is not foreseen
    assert checked > 5
    assert updates[-1].half_in is None


# --- without a record ---------------------------------------------------------------------------------------------------------


def test_a_task_without_a_record_is_waited_for(clock: Clock):
    """It is pending, and requested, until `missing_after`; then it counts as having none, which is null, and is requested no more."""
    service = Service(clock, {0: 90})
    updates = polled(service, numbered(0, 1), clock, schedule=[10], missing_after="25s")
    assert statuses(updates[0].frame) == statuses(updates[2].frame) == ["pending", "pending"]
    assert statuses(updates[3].frame) == ["pending", None]
    assert service.often()[uid(1), "emails"] == 4
    assert statuses(updates[-1].frame) == ["finished", None]
    assert updates[3].counts.loc["emails", ["no record", "ended"]].tolist() == [1, 0]
    assert updates[3].changed.index.tolist() == [1]
    assert updates[-1].unknown == {}  # it has no status at all, which is no unknown one
    assert "1 no record;" in str(updates[-1])


def test_a_record_that_appears_is_waited_for_like_any(clock: Clock):
    """Where the record comes before `missing_after`, the task ends as its record does, however long that takes."""
    service = Service(clock, {0: 300}, appears={0: 18})
    updates = polled(service, numbered(0), clock, schedule=[10], missing_after=20)
    assert statuses(updates[-1].frame) == ["finished"]
    assert updates[-1].elapsed == 300


@pytest.mark.parametrize("after", ["90s", 90, timedelta(seconds=90)])
def test_durations_come_in_all_spellings(clock: Clock, after: Any):
    """`missing_after` and `deadline` are text with a unit, a timedelta or seconds."""
    service = Service(clock, {0: NEVER})
    with pytest.raises(es.PollDeadline) as caught:
        polled(service, numbered(0, 1), clock, schedule=[30], missing_after=after, deadline=after)
    assert caught.value.update.elapsed == 90
    assert statuses(caught.value.update.frame) == ["pending", None]


# --- errors -------------------------------------------------------------------------------------------------------------------


PASSING = [
    es.ServiceError("down", 503),
    es.InternalError("broken"),
    es.StoreError("no such file"),
    ConnectionResetError("reset"),
    TimeoutError("late"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_an_error_is_shown_and_outlived(clock: Clock, error: Exception):
    """It is the update's `error` and in its text, the waits grow while it lasts, and afterwards all goes on as ever."""
    service = Service(clock, {0: 20}, troubles=[None, *[error] * 4])
    updates = polled(service, numbered(0), clock, schedule=[0.5])
    assert [update.error for update in updates[:6]] == [None, *[error] * 4, None]
    assert f"not answered: {error}" in str(updates[1])
    waits = np.diff(service.times()).tolist()
    assert waits[0] == 0.5
    assert waits[1:5] == pytest.approx([1, 2, 4, 8], rel=0.11)
    assert set(waits[5:]) == {0.5}
    assert updates[-1].error is None
    assert statuses(updates[-1].frame) == ["finished"]


def test_trouble_that_comes_again_backs_off_anew(clock: Clock):
    """After an answer the waits of the next trouble begin at the shortest; a schedule that waits longer than these is kept to."""
    down = es.ServiceError("down")
    service = Service(clock, {0: 8.9}, troubles=[down, down, down, None, down, None])
    polled(service, numbered(0), clock, schedule=[0.1])
    waits = np.diff(service.times())[:6].tolist()
    assert waits == pytest.approx([1, 2, 4, 0.1, 1, 0.1], rel=0.11)
    other = Service(clock, {0: 100}, troubles=[down, down, down])
    polled(other, numbered(0), clock, schedule=[30])
    assert other.times() == pytest.approx([0, 30, 60, 90, 120])


def test_an_error_before_anything_is_known_is_no_end(clock: Clock):
    """Where the first requests fail all tasks are unanswered, and nothing is said to have been without a record meanwhile."""
    service = Service(clock, {0: 0}, troubles=[es.ServiceError("down")] * 8)
    updates = polled(service, numbered(0, 1), clock, schedule=[20], missing_after=30)
    assert statuses(updates[7].frame) == ["unanswered", "unanswered"]
    assert statuses(updates[8].frame) == ["finished", "pending"]
    assert updates[-1].elapsed - updates[8].elapsed == 40


def _half(tasks: pd.DataFrame, answer: pd.DataFrame) -> pd.DataFrame:
    """Answer every other task."""
    cause = es.ServiceError("down", 503, 7.0)
    raise es.PartialLookupError("half", answer.iloc[::2], tasks.iloc[1::2], [cause])


def test_what_a_lookup_has_answered_in_part_is_kept(clock: Clock):
    """Of a lookup that failed for some tasks the others are known, and not requested again; its Retry-After is obeyed."""
    service = Service(clock, dict.fromkeys(range(10), 0.0), troubles=[_half])
    updates = polled(service, numbered(*range(10)), clock, schedule=[0.1])
    assert statuses(updates[0].frame) == ["finished", "unanswered"] * 5
    assert isinstance(updates[0].error, es.PartialLookupError)
    assert service.counts() == [10, 5]
    assert service.times() == [0, 7]
    assert (updates[0].held, updates[0].next_in) == (7, 7)


@pytest.mark.parametrize("schedule", [es.Adaptive(1), [20], [0.1], es.Backoff(0.1, 1, 0.1)][: cases(2, 4)], ids=str)
def test_a_retry_after_is_never_undercut(clock: Clock, schedule: Any):
    """Whatever the schedule, and also where a sleep is cut short, it does not ask before the service wants a request."""
    busy = es.ServiceError("busy", 429, 12.5)

    def short(seconds: float) -> None:
        clock.sleep(min(seconds, 3.0) if seconds > 1e-6 else seconds)

    for sleep in (clock.sleep, short):
        service = Service(clock, {0: 30}, troubles=[None, busy, busy])
        updates = list(es.poll(service, numbered(0), schedule=schedule, clock=clock, sleep=sleep))
        times = service.times()
        assert times[2] - times[1] >= 12.5 - 1e-9
        assert times[3] - times[2] >= 12.5 - 1e-9
        assert [update.held for update in updates[:4]] == [0, 12.5, 12.5, 0]
        assert all(update.next_in >= update.held for update in updates[:-1])
        assert updates[-1].done


@pytest.mark.parametrize("error", [es.UnauthorizedError("wrong token"), es.ValidationError("refused")])
def test_what_asking_again_does_not_mend_ends_it(clock: Clock, error: es.EnrichStatusError):
    """A token or a request that is refused is raised, with the last update; at the first ask nothing has ended in it."""
    service = Service(clock, {0: 0, 1: 50}, troubles=[None, error])
    with pytest.raises(type(error)) as caught:
        polled(service, numbered(0, 1), clock)
    assert caught.value is error
    assert statuses(caught.value.update.frame) == ["finished", "pending"]
    again = pickle.loads(pickle.dumps(caught.value))
    assert statuses(again.update.frame) == ["finished", "pending"]
    error = type(error)("at once")
    with pytest.raises(type(error)) as caught:
        polled(Service(clock, {0: 0}, troubles=[error]), numbered(0), clock)
    assert statuses(caught.value.update.frame) == ["unanswered"]


def test_a_closed_client_is_no_outage(clock: Clock):
    """What no waiting fixes, such as a client that somebody has closed, ends the poll at once."""
    client = es.EnrichmentClient("https://example.test", token="token")
    client.close()
    with pytest.raises(es.EnrichStatusError, match="The client is closed"):
        polled(client, numbered(0), clock)
    assert clock.slept == []


def test_a_bad_row_is_told_once(clock: Clock):
    """A bad row is among the first that are settled, is counted apart, and is never requested."""
    service = Service(clock, {0: 0, 1: 5})
    tasks = [task(0), {"entityId": "x", "field": "emails"}, task(1)]
    options: dict[str, Any] = {"errors": "coerce", "clock": clock, "sleep": clock.sleep}
    first, *_, last = es.poll(service, tasks, **options)
    assert str(first).startswith("2 of 3 settled; 1 pending, 1 bad; ")
    assert last.counts["tasks"].sum() == 2
    frames = list(es.as_completed(Service(clock, {0: 0, 1: 5}), tasks, **options))
    assert [frame.index.tolist() for frame in frames] == [[0, 1], [2]]
    assert service.counts()[0] == 2


def test_a_mistake_in_the_source_is_not_hidden(clock: Clock):
    """What is neither ours nor of the system is a mistake in a program, which ends the poll as it came."""
    with pytest.raises(ZeroDivisionError):
        polled(Service(clock, {0: 0}, troubles=[ZeroDivisionError()]), numbered(0), clock)


NONSENSE: dict[str, tuple[Callable[[pd.DataFrame, pd.DataFrame], Any], str]] = {
    "nothing": (lambda tasks, answer: None, "NoneType: it gives"),
    "text": (lambda tasks, answer: "pending", "str"),
    "a list": (lambda tasks, answer: answer.to_dict("records"), "list"),
    "arrow": (lambda tasks, answer: pa.Table.from_pandas(answer, preserve_index=False), "Table"),
    "no status": (lambda tasks, answer: answer.drop(columns="status"), "without status"),
    "no tasks": (lambda tasks, answer: answer.drop(columns="task"), "without task"),
    "bare": (lambda tasks, answer: answer[["status"]], "without dataFound, task"),
    "other rows": (lambda tasks, answer: answer.assign(task=answer["task"] + 1000), "lookup gave back"),
    "numbers": (lambda tasks, answer: answer.assign(status=1.5), "lookup gave back"),
    "found words": (lambda tasks, answer: answer.assign(dataFound="perhaps"), "lookup gave back"),
    "times": (lambda tasks, answer: answer.assign(createdAt="yesterday-ish"), "lookup gave back"),
}


@pytest.mark.parametrize("kind", NONSENSE)
@pytest.mark.parametrize("kept", [False, True], ids=["alone", "into"])
def test_nonsense_from_a_source_is_told(clock: Clock, store: es.EnrichmentStore, kind: str, kept: bool):
    """What a lookup gave back and cannot be read is an error of ours that says so, with the last update."""
    make, message = NONSENSE[kind]
    service = Service(clock, {0: 0, 1: 50}, troubles=[None, make])
    with pytest.raises(es.EnrichStatusError, match=message) as caught:
        polled(service, numbered(0, 1), clock, into=store if kept else None)
    assert statuses(caught.value.update.frame) == ["finished", "pending"]


def test_a_source_that_leaves_tasks_out_has_no_record_of_them(clock: Clock):
    """A task that is not among a lookup's rows is waited for like one without a record."""
    service = Service(clock, {0: 0, 1: 5}, troubles=[lambda tasks, answer: answer.dropna(subset="status")] * 99)
    updates = polled(service, numbered(0, 1, 2), clock, schedule=[10], missing_after=15, deadline=500)
    assert statuses(updates[-1].frame) == ["finished", "finished", None]
    assert updates[-1].elapsed == 20


def test_a_source_of_little_says_enough(clock: Clock):
    """A source needs neither `fields` nor a record's times: status and dataFound do, of any dtype."""

    class Plain:
        asks = 0

        def lookup(self, tasks: pd.DataFrame, *, columns: Any) -> pd.DataFrame:
            self.asks += 1
            words = ["pending", None, "finished"] if self.asks == 1 else ["failed", "finished"]
            found = [None, None, True] if self.asks == 1 else [None, False]
            return tasks.assign(status=pd.Series(words, tasks.index, dtype=object), dataFound=found)

    last = polled(Plain(), numbered(0, 1, 2), clock)[-1]
    assert statuses(last.frame) == ["failed", "finished", "finished"]
    assert [None if pd.isna(one) else one for one in last.frame["dataFound"]] == [None, False, True]
    assert str(last.frame["dataFound"].dtype) == "boolean"
    with pytest.raises(es.ValidationError, match="not one of emails, phones, summary"):
        es.poll(Plain(), [task(0, "fax")])


def test_what_has_not_been_asked_yet_is_not_forgotten(clock: Clock):
    """Where the first lookup fails for one field, the next ask has that field too, however well the other is known."""

    def emails_only(tasks: pd.DataFrame, answer: pd.DataFrame) -> pd.DataFrame:
        mine = (answer["field"] == "emails").to_numpy()
        raise es.PartialLookupError("half", answer[mine], tasks[~mine], [es.ServiceError("down")])

    ends: dict[Any, float] = {(n, field): 20.0 + n for n in range(100) for field in ("emails", "phones")}
    service = Service(clock, ends, troubles=[emails_only])
    polled(service, numbered(*ends), clock, schedule=es.Adaptive(jitter=0))
    assert {field for _, field in service.asks[1][1]} == {"emails", "phones"}


# --- deadline -----------------------------------------------------------------------------------------------------------------


def test_at_the_deadline_the_unfinished_are_pending(clock: Clock):
    """It requests a last time when the time is up, reports that, and raises with it; what has not ended is pending, not failed."""
    service = Service(clock, {0: 5, 1: 99, 2: 101})
    updates: list[es.Update] = []
    with pytest.raises(
        es.PollDeadline, match=r"1 of 3 tasks have not ended within 100 s; .* pending, not failed"
    ) as caught:
        updates.extend(
            es.poll(service, numbered(0, 1, 2), schedule=PLAIN, deadline="100s", clock=clock, sleep=clock.sleep)
        )
    assert service.times()[-2:] == [63, 100]
    assert statuses(caught.value.update.frame) == ["finished", "finished", "pending"]
    assert (caught.value.update.next_in, caught.value.update.done) == (None, False)
    with pytest.raises(es.PollDeadline):
        polled(Service(clock, {2: 900}), numbered(2), clock, deadline=0.5)


def test_all_are_asked_at_the_deadline(clock: Clock):
    """A schedule that would have asked a part asks all the unfinished when the time is up, so that the last state is one."""
    ends: dict[Any, float] = {
        (n, field): (1.0 if field == "emails" else 60.0) + n / 12.5
        for n in range(500)
        for field in ("emails", "phones")
    }
    for deadline in (62, 9, 70, 4, 21, 45, 81)[: cases(3, 7)]:
        here = Clock()
        service = Service(here, ends)
        with pytest.raises(es.PollDeadline) as caught:
            polled(service, numbered(*ends), here, schedule=es.Adaptive(jitter=0), deadline=deadline)
        pending = sum(end > deadline for end in ends.values())
        assert caught.value.update.counts["pending"].sum() == pending
        assert service.times()[-1] == deadline


def test_a_deadline_may_come_while_the_service_wants_to_be_left_alone(clock: Clock):
    """Then it does not ask: at the deadline it raises with what is known, no sooner and no later."""
    busy = es.ServiceError("busy", 429, 60.0)
    service = Service(clock, {0: 0, 1: 5}, troubles=[None, busy])
    with pytest.raises(es.PollDeadline) as caught:
        polled(service, numbered(0, 1), clock, schedule=[3], deadline=30)
    assert service.times() == [0, 3]
    assert clock() - clock.start == 30
    assert statuses(caught.value.update.frame) == ["finished", "pending"]
    assert caught.value.update.error is busy


def test_a_deadline_that_is_not_met_is_not_felt(clock: Clock):
    """What ends at the deadline's ask has ended in time."""
    updates = polled(Service(clock, {0: 9.5}), numbered(0), clock, deadline=10, schedule=[8])
    assert updates[-1].done
    assert updates[-1].elapsed == 10


def test_an_outage_lasts_until_the_deadline(clock: Clock):
    """A source that never answers gets requests, seldom, until the time is up."""
    service = Service(clock, {0: 0}, troubles=[es.ServiceError("down")] * 999)
    with pytest.raises(es.PollDeadline) as caught:
        polled(service, numbered(0), clock, deadline="1h", schedule=[0.1])
    assert 60 < len(service.asks) < 80
    assert isinstance(caught.value.update.error, es.ServiceError)


# --- interrupt ----------------------------------------------------------------------------------------------------------------


def test_an_interrupt_hands_over_the_last_update(clock: Clock):
    """Ctrl-C while it waits or asks is raised with the last update; before the first answer there is none."""

    def sleep(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(es.PollInterrupted, match="1 of 2 tasks were settled") as caught:
        list(es.poll(Service(clock, {0: 0, 1: 9}), numbered(0, 1), clock=clock, sleep=sleep))
    assert statuses(caught.value.update.frame) == ["finished", "pending"]
    assert isinstance(caught.value, KeyboardInterrupt)
    service = Service(clock, {0: 0, 1: 9}, troubles=[None, KeyboardInterrupt()])
    with pytest.raises(es.PollInterrupted) as caught:
        polled(service, numbered(0, 1), clock)
    assert statuses(caught.value.update.frame) == ["finished", "pending"]
    with pytest.raises(es.PollInterrupted, match="nothing had been answered yet") as caught:
        polled(Service(clock, {0: 0}, troubles=[KeyboardInterrupt()]), numbered(0), clock)
    assert caught.value.update is None


def test_an_interrupted_lookup_keeps_what_it_had(clock: Clock):
    """What a lookup that Ctrl-C broke off had been answered is in the update."""

    def interrupted(tasks: pd.DataFrame, answer: pd.DataFrame) -> pd.DataFrame:
        raise LookupInterrupted("Ctrl-C", answer.iloc[:2], tasks.iloc[2:])

    service = Service(clock, {0: 0, 1: 0, 2: 0}, troubles=[interrupted])
    with pytest.raises(es.PollInterrupted, match="2 of 3") as caught:
        polled(service, numbered(0, 1, 2), clock)
    assert statuses(caught.value.update.frame) == ["finished", "finished", "unanswered"]


@pytest.mark.parametrize("kind", ["polars", "odd index", "list", "pandas", "lazy", "arrow"][: cases(3, 6)])
def test_what_ends_a_poll_can_be_sent_to_another_process(clock: Clock, tmp_path: Path, kind: str):
    """The deadline and the interrupt pickle with all that the update has, estimates and an error among it."""
    plain = pd.DataFrame([task(n) for n in range(60)])
    tasks = KINDS[kind](plain, tmp_path)
    ends = {n: float(n) for n in range(60)}
    down = es.ServiceError("down", 503, 2.0)
    with pytest.raises(es.PollDeadline) as late:
        polled(Service(clock, ends, troubles=[None] * 30 + [down] * 9), tasks, clock, schedule=[1], deadline=30.5)
    with pytest.raises(es.PollInterrupted) as interrupted:
        polled(Service(clock, ends, troubles=[None, KeyboardInterrupt()]), tasks, clock)
    for error in (late.value, interrupted.value):
        again: Any = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))
        same(again.update.frame, error.update.frame)
        assert str(again.update) == str(error.update)
        assert again.update.half_in == error.update.half_in


# --- wait ---------------------------------------------------------------------------------------------------------------------


def test_wait_gives_what_a_lookup_gives(clock: Clock, capsys: pytest.CaptureFixture[str]):
    """It blocks until all have ended and returns them; without a terminal, or with progress=False, it prints nothing."""
    tasks = pd.DataFrame([task(n) for n in range(300)])
    with SimulatedStore(tasks, seed=1, clock=clock) as service:
        for options in ({}, {"progress": False}):
            found = es.wait(service, tasks, clock=clock, sleep=clock.sleep, **options)
            pd.testing.assert_frame_equal(found, service.lookup(tasks))
    assert capsys.readouterr() == ("", "")


def test_wait_shows_a_bar(clock: Clock, capsys: pytest.CaptureFixture[str]):
    """The bar has what has ended of the total, the other statuses, when it asks next, the estimate, and what went wrong."""
    ends = {n: float(n) for n in range(100)}
    down = es.ServiceError("the service is down")
    service = Service(clock, ends, status={0: "failed"}, troubles=[None] * 5 + [down])
    es.wait(service, numbered(*ends), clock=clock, sleep=clock.sleep, schedule=[10], progress=True)
    shown = capsys.readouterr().err
    assert "11 of 100 settled" in shown
    assert "89 pending, 1 failed" in shown
    assert "next in 10 s" in shown
    assert "90 % of the rest in" in shown
    assert "not answered: the service is down" in shown
    assert "100 of 100 settled" in shown.splitlines()[-1].rpartition("\r")[2]
    assert shown.endswith("\n")


def test_wait_can_be_interrupted(clock: Clock):
    """Ctrl-C gives control back with the last update, wherever it strikes; the deadline too."""
    service = Service(clock, {0: 0, 1: 9}, troubles=[None, KeyboardInterrupt()])
    with pytest.raises(es.PollInterrupted, match="1 of 2") as caught:
        es.wait(service, numbered(0, 1), clock=clock, sleep=clock.sleep, progress=True)
    assert statuses(caught.value.update.frame) == ["finished", "pending"]
    with pytest.raises(es.PollDeadline) as late:
        es.wait(Service(clock, {0: 0, 1: 99}), numbered(0, 1), clock=clock, sleep=clock.sleep, deadline=9)
    assert statuses(late.value.update.frame) == ["finished", "pending"]


def test_wait_interrupted_between_asks_has_the_update(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """Also where Ctrl-C strikes while the bar is drawn."""
    import enrichstatus.polling.bar

    def status_line(update: es.Update, *_: object) -> str:
        if update.elapsed > 2:
            raise KeyboardInterrupt
        return ""

    monkeypatch.setattr(enrichstatus.polling.bar, "status_line", status_line)
    with pytest.raises(es.PollInterrupted) as caught:
        es.wait(Service(clock, {0: 9}), numbered(0), clock=clock, sleep=clock.sleep, progress=True)
    assert caught.value.update.settled == 0


# --- as they complete ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [es.Adaptive(), [2] * 10 + [40], es.Backoff()][: cases(1, 3)], ids=str)
def test_each_task_completes_once(clock: Clock, schedule: Any):
    """Every frame has rows that have ended since the last, with all their columns and their index; together they are all, each once."""
    tasks = pd.DataFrame([task(n, field) | {"lead": n} for n in range(100) for field in PROFILES])
    tasks.index = tasks.index[::-1] * 3
    with SimulatedStore(tasks, seed=4, clock=clock) as service:
        parts = list(es.as_completed(service, tasks, schedule=schedule, clock=clock, sleep=clock.sleep))
        whole = service.lookup(tasks)
    assert len(parts) > 3
    assert all(len(part) for part in parts)
    assert not any((part["status"] == "pending").any() for part in parts)
    pd.testing.assert_frame_equal(pd.concat(parts).sort_index(ascending=False), whole)


def test_as_completed_ends_as_a_poll_does(clock: Clock):
    """Bad tasks are refused when it is called, and at the deadline it raises, after all that had ended was given."""
    with pytest.raises(es.ValidationError, match="1 bad task"):
        es.as_completed(Service(clock, {}), [{"entityId": "x", "field": "emails"}])
    given = []
    with pytest.raises(es.PollDeadline):
        given.extend(
            es.as_completed(Service(clock, {0: 3, 1: 99}), numbered(0, 1), clock=clock, sleep=clock.sleep, deadline=9)
        )
    for part in es.as_completed(Service(clock, {0: 3, 1: 99}), numbered(0, 1), clock=clock, sleep=clock.sleep):
        given.append(part)
        break
    assert [part.index.tolist() for part in given] == [[0]] * len(given)


# --- sizes --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [[], pd.DataFrame(columns=["entityId", "field"]), numbered().astype(str)])
@pytest.mark.parametrize("schedule", [None, es.Adaptive()])
def test_no_tasks_have_all_ended(clock: Clock, empty: Any, schedule: Any):
    """One update, done, with an empty frame of the right types; nothing is requested."""
    service = Service(clock, {})
    [update] = polled(service, empty, clock, schedule=schedule)
    assert service.asks == []
    assert (update.done, update.total, update.settled, update.requests, update.saved) == (True, 0, 0, 0, 0)
    assert (str(update.frame["status"].dtype), str(update.frame["dataFound"].dtype)) == ("str", "boolean") or str(
        update.frame["status"].dtype
    ) == "string"
    assert update.counts.sum().sum() == 0
    assert str(update) == "0 of 0 settled; 0 requests"
    assert len(es.wait(service, empty, clock=clock, sleep=clock.sleep)) == 0
    assert list(es.as_completed(service, empty, clock=clock, sleep=clock.sleep)) == []


def test_one_task(clock: Clock):
    """One is enough, for the schedule that learns as well."""
    for schedule in (None, es.Adaptive(jitter=0)):
        service = Service(clock, {0: 3})
        assert statuses(polled(service, [task(0)], clock, schedule=schedule)[-1].frame) == ["finished"]


@pytest.mark.slow
def test_a_list_of_tens_of_thousands(clock: Clock):
    """A list of 20,000 (with all cases, a hundred thousand) is polled to its end, with far fewer requests than it would take to ask all each time."""
    count = cases(20_000, 100_000)
    ids = np.array([f"00000000-0000-4000-8000-{n:012x}" for n in range(count)], dtype=object)
    tasks = pd.DataFrame({"entityId": ids, "field": np.where(np.arange(count) % 2, "emails", "phones")})
    ends = np.minimum(np.random.default_rng(1).lognormal(np.log(50), 0.8, count), 800)
    service = Service.of(clock, tasks, ends)
    seen = np.full(count, np.nan)
    for update in es.poll(service, tasks, schedule=es.Adaptive(), clock=clock, sleep=clock.sleep):
        seen[update.changed.index] = update.elapsed
    assert update.settled == count
    assert update.requests == service.requests < 0.4 * (update.requests + update.saved)
    assert (seen >= ends).all()
    assert (seen - ends).mean() < 12
    assert (update.frame["status"] == "timeout").sum() == (ends >= 800).sum()


# --- arguments ----------------------------------------------------------------------------------------------------------------


def test_bad_tasks_are_refused_at_once(clock: Clock):
    """When the poll is made, not when it is begun, all bad tasks are named and nothing is requested."""
    service = Service(clock, {0: 0})
    for make in (es.poll, es.as_completed, es.wait):
        with pytest.raises(es.ValidationError, match="2 bad tasks") as caught:
            make(service, [task(0), {"entityId": "x", "field": "emails"}, task(1, "fax")])
        assert caught.value.problems["row"].tolist() == [1, 2]
    with pytest.raises(es.ValidationError, match="Tasks need the column field"):
        es.poll(service, [{"entityId": uid(0)}])
    with pytest.raises(es.ValidationError, match="already have the column status"):
        es.poll(service, numbered(0).assign(status="x"))
    assert service.asks == []


def test_bad_tasks_can_be_left_out(clock: Clock):
    """With errors="coerce" they have null, were never requested, and count as settled, as there is nothing to wait for."""
    service = Service(clock, {0: 3})
    tasks = [task(0), {"entityId": "x", "field": "emails"}, task(1, "fax")]
    updates = polled(service, tasks, clock, errors="coerce", schedule=PLAIN)
    assert service.counts() == [1, 1, 1]
    assert statuses(updates[0].frame) == ["pending", None, None]
    assert statuses(updates[-1].frame) == ["finished", None, None]
    assert (updates[0].settled, updates[0].total, updates[-1].settled) == (2, 3, 3)
    assert updates[-1].changed.index.tolist() == [0]
    [only] = polled(service, tasks[1:], clock, errors="coerce")
    assert (only.done, only.settled, only.ended, statuses(only.frame)) == (True, 2, 0, [None, None])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": es.EnrichmentClient}, "source= is .* not the class EnrichmentClient"),
        ({"prefix": 3}, "prefix= is text, not 3"),
        ({"source": None}, "source= is a store, a client, or any object with their lookup, not NoneType"),
        ({"source": "https://x"}, "not str"),
        ({"tasks": 5}, "Expected a DataFrame"),
        ({"into": "x.duckdb"}, "into= takes an EnrichmentStore, not str"),
        ({"schedule": 5}, r"schedule= takes Backoff\(\), Adaptive\(\) or an iterable of seconds"),
        ({"schedule": "1s"}, "not '1s'"),
        ({"schedule": es.Backoff}, "schedule= takes"),
        ({"deadline": "30"}, "deadline= takes a duration above zero"),
        ({"deadline": 0}, "deadline= takes"),
        ({"deadline": -1}, "not -1"),
        ({"deadline": float("nan")}, "deadline= takes"),
        ({"deadline": float("inf")}, "deadline= takes"),
        ({"deadline": True}, "deadline= takes"),
        ({"missing_after": "soon"}, "missing_after= takes a duration"),
        ({"missing_after": None}, "missing_after= takes a duration"),
        ({"errors": "ignore"}, "errors= is one of 'raise', 'coerce'"),
    ],
    ids=str,
)
def test_an_unusable_argument_is_refused_at_once(clock: Clock, options: dict[str, Any], message: str):
    """Each is named when the poll is made, with what it takes."""
    given: dict[str, Any] = {"source": Service(clock, {}), "tasks": numbered(0)} | options
    with pytest.raises(es.ValidationError, match=message):
        es.poll(given.pop("source"), given.pop("tasks"), **given)


@pytest.mark.parametrize(
    "step", [-1, float("nan"), float("inf"), "5", None, True, es.Ask(-1), es.Ask(float("nan"))], ids=str
)
def test_a_schedule_that_gives_no_seconds_is_refused(clock: Clock, step: Any):
    """What is no wait is named when it comes up, and what had been answered by then is on the error."""
    with pytest.raises(es.ValidationError, match="schedule= takes a number of seconds from 0 up, not ") as caught:
        polled(Service(clock, {0: 0, 1: 99}), numbered(0, 1), clock, schedule=[step])
    assert statuses(caught.value.update.frame) == ["finished", "pending"]


@pytest.mark.slow
def test_any_iterable_of_seconds_is_a_schedule(clock: Clock):
    """A list, numbers of numpy, a generator: the last is repeated where there are no more, and of none it is the longest of the backoff."""

    def waits() -> Iterator[float]:
        yield from (1, 5)

    schedules: list[tuple[Any, list[float]]] = [
        ([1, 5], [1, 5, 5]),
        (np.array([1, 5]), [1, 5, 5]),
        (pd.Series([1.0, 5.0]), [1, 5, 5]),
        (waits(), [1, 5, 5]),
        ((2,), [2, 2, 2]),
        ([es.Ask(1), 5], [1, 5, 5]),
        ([], [60, 60, 60]),
    ]
    for schedule, expected in schedules:
        service = Service(clock, {0: 200})
        run = es.poll(service, numbered(0), schedule=schedule, clock=clock, sleep=clock.sleep)
        assert len(list(islice(run, 4))) == 4
        assert np.diff(service.times())[:3].tolist() == expected


def test_no_wait_at_all_is_a_schedule(clock: Clock):
    """A schedule of nothing but 0 polls again and again, as it says."""
    service = Service(clock, {0: 1000})
    run = es.poll(service, numbered(0), schedule=[0], clock=clock, sleep=clock.sleep)
    assert [next(run).next_in for _ in range(5)] == [0] * 5
    assert service.times() == [0] * 5


def test_a_schedule_may_name_fields_and_samples(clock: Clock):
    """An `Ask` is for all the unfinished of some fields and a sample of others, which stays the same one."""
    ends: dict[Any, float] = {(n, field): 1000.0 for n in range(50) for field in ("emails", "phones", "summary")}
    service = Service(clock, ends)
    asks = [es.Ask(1, ("phones",), {"emails": 10}), es.Ask(1, (), {"emails": 10}), es.Ask(1, ("fax",), {"summary": 99})]
    run = es.poll(service, numbered(*ends), schedule=asks, clock=clock, sleep=clock.sleep)
    for _ in range(4):
        next(run)
    assert service.counts() == [150, 60, 10, 50]
    sample = [key for key in service.asks[1][1] if key[1] == "emails"]
    assert sample == service.asks[2][1]
    assert {field for _, field in service.asks[3][1]} == {"summary"}


# --- what it leaves behind ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asks", [0, 2])
def test_a_poll_that_is_given_up_leaves_nothing(clock: Clock, asks: int):
    """Closed or dropped, begun or not, it lets go of its source and starts no thread; the updates it gave stay whole."""
    service = Service(clock, {0: 0, 1: 99})
    threads = threading.active_count()
    run = es.poll(service, numbered(0, 1), clock=clock, sleep=clock.sleep)
    updates = [next(run) for _ in range(asks)]
    gone = weakref.ref(service)
    run.close()
    assert list(run) == []
    del run, service
    gc.collect()
    assert gone() is None
    assert threading.active_count() == threads
    for update in updates:
        assert statuses(update.frame) == ["finished", "pending"]
        assert update.half_in is None


def test_the_client_below_draws_no_bar(clock: Clock, store: es.EnrichmentStore, capsys: pytest.CaptureFixture[str]):
    """A client that would show the progress of its own lookups does not, under the bar of a wait."""
    store.load([record(n) for n in range(1000)])
    with (
        running(create_app(store, {"token": ORG})) as url,
        es.EnrichmentClient(url, token="token", progress=True) as client,
    ):
        assert set(es.wait(client, numbered(*range(1000)), progress=True)["status"]) == {"finished"}
    shown = capsys.readouterr().err
    assert "1,000 of 1,000 settled" in shown
    assert "batch" not in shown


# --- in real time -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_service_is_waited_for_in_real_time():
    """A client polls a real server whose tasks end within seconds: the frame is the store's own, and so are all that completed."""
    tasks = pd.DataFrame([task(n, field) for n in range(400) for field in ("emails", "summary")])
    schedule = es.Adaptive(20, initial=0.05, maximum=0.5)
    with (
        SimulatedStore(tasks, seed=2, speed=150, org_id=ORG) as service,
        running(create_app(service, {"token": ORG})) as url,
        es.EnrichmentClient(url, token="token") as client,
    ):
        updates = list(es.poll(client, tasks, schedule=schedule, deadline="90s"))
        last = updates[-1]
        expected = service.lookup(tasks)
        pd.testing.assert_frame_equal(last.frame, expected)
        again = pd.concat(es.as_completed(client, tasks, schedule=[0.1]))
        pd.testing.assert_frame_equal(again.sort_index(), expected)
    assert last.done
    assert {"finished", "failed", "timeout"} == set(last.frame["status"])
    assert len(updates) >= 3
    assert 800 / 300 <= last.elapsed < 60
    waits = [late.elapsed - soon.elapsed for soon, late in pairwise(updates)]
    assert all(wait >= update.next_in - 0.01 for wait, update in zip(waits, updates, strict=False))
