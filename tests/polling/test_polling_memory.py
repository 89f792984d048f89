"""A poll that remembers: what is kept, what is not requested again, and what is left when it is killed."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.errors import LookupInterrupted
from enrichstatus.server import create_app
from enrichstatus.simulation import SimulatedStore
from tests.support.cases import cases
from tests.support.factory import ORG, record, task, uid
from tests.support.polled import NEVER, Clock, Service, numbered, polled, statuses
from tests.support.processes import processes
from tests.support.serving import running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.duckdb"


def _some(service: Any, tasks: Any, clock: Clock, path: Path, deadline: float, **options: Any) -> es.Update:
    """Poll into a file until the deadline."""
    with es.EnrichmentStore(path, org_id=ORG) as store, pytest.raises(es.PollDeadline) as caught:
        polled(service, tasks, clock, into=store, deadline=deadline, **options)
    return caught.value.update


def _waited(path: Path, seconds: float) -> None:
    """Let the first ask of all that have no record be so much longer ago."""
    with duckdb.connect(path) as con:
        con.execute("update enrichment_waits set since = since - to_seconds($1)", [seconds])


# --- begun again --------------------------------------------------------------------------------------------------------------


def test_what_has_ended_is_not_asked_again(clock: Clock, path: Path):
    """Begun again on the same file, a poll requests only what had not ended, reports all, and its frame is a lookup's."""
    service = Service(clock, {0: 0, 1: 5, 2: 50, 3: 90}, status={1: "failed"})
    tasks = numbered(3, 2, 1, 0, 1)
    first = _some(service, tasks, clock, path, 20, schedule=[5])
    assert (first.settled, first.total) == (3, 5)
    asked = len(service.asks)
    with es.EnrichmentStore(path, org_id=ORG) as store:
        updates = polled(service, tasks, clock, into=store, schedule=[10])
        assert service.counts()[asked:] == [2, 2, 2, 2, 1, 1, 1, 1]
        pd.testing.assert_frame_equal(updates[-1].frame, service.lookup(tasks))
        pd.testing.assert_frame_equal(store.lookup(tasks, columns="all"), service.lookup(tasks, columns="all"))
    assert statuses(updates[0].frame) == ["pending", "pending", "failed", "finished", "failed"]
    assert updates[0].changed.index.tolist() == [2, 3, 4]


def test_nothing_is_asked_where_all_have_ended(clock: Clock, path: Path):
    """A poll of what is known to have ended gives one update, and the source gets no request."""
    service = Service(clock, {0: 0, 1: 3})
    for expected in (3, 3):
        with es.EnrichmentStore(path, org_id=ORG) as store:
            updates = polled(service, numbered(0, 1), clock, into=store, schedule=es.Backoff(jitter=0))
        assert len(service.asks) == expected
        assert statuses(updates[-1].frame) == ["finished", "finished"]
    assert [(update.done, update.requests, update.next_in) for update in updates] == [(True, 0, None)]


def test_what_was_remembered_completes_first(clock: Clock, path: Path):
    """`as_completed` gives what a store remembers as ended in its first frame, and each task once."""
    service = Service(clock, {0: 0, 1: 5, 2: 50})
    _some(service, numbered(0, 1, 2), clock, path, 20, schedule=[5])
    with es.EnrichmentStore(path, org_id=ORG) as store:
        options: dict[str, Any] = {"into": store, "schedule": [30], "clock": clock, "sleep": clock.sleep}
        frames = list(es.as_completed(service, numbered(0, 1, 2), **options))
    assert [frame.index.tolist() for frame in frames] == [[0, 1], [2]]


def test_the_time_already_waited_counts(clock: Clock, path: Path):
    """A task without a record that was first asked 40 s ago, by a poll that has ended since, is waited for 20 s of its 60 more."""
    service = Service(clock, {0: NEVER})
    _some(service, numbered(0, 1), clock, path, 1, schedule=[5])
    _waited(path, 40)
    asked = len(service.asks)
    update = _some(service, numbered(0, 1), clock, path, 100, schedule=[5])
    assert statuses(update.frame) == ["pending", None]
    # asked each five seconds, the last one at 20 s and not again; sooner where the test itself takes seconds, which count, too
    counts = [len(keys) for _, keys in service.asks[asked:]]
    assert 1 <= (both := counts.count(2)) <= 5
    assert counts == [2] * both + [1] * (21 - both)


def test_a_wait_that_has_run_out_begins_anew(clock: Clock, path: Path):
    """A task whose time without a record was up days ago is waited for again: it may just have been bought, and its record may lag."""
    service = Service(clock, {})
    with es.EnrichmentStore(path, org_id=ORG) as store:
        polled(service, numbered(0, 1, 2), clock, into=store)
    _waited(path, 1e6)
    later = Service(clock, {0: 0, 1: 25}, appears={1: 15})
    update = _some(later, numbered(0, 1, 2), clock, path, 12, schedule=[10])
    assert statuses(update.frame) == ["finished", "pending", "pending"]
    _waited(path, 10)
    with es.EnrichmentStore(path, org_id=ORG) as store:  # and the new wait counts, too
        updates = polled(later, numbered(0, 1, 2), clock, into=store, schedule=[10])
    assert statuses(updates[-1].frame) == ["finished", "finished", None]
    assert 40 <= updates[-1].elapsed <= 50


def test_a_record_that_is_known_is_waited_for(clock: Clock, path: Path):
    """A purchase that the store knows to be pending is neither without a record nor ended by an older one, whatever a service that lags says."""
    with es.EnrichmentStore(path, org_id=ORG) as store:
        pending = {"status": "pending", "dataFound": None, "createdAt": clock.instant().isoformat()}
        store.load([record(0, **pending), record(1, **pending)])
        old = Service(clock, {0: 0})
        old.created -= timedelta(days=90)
        with pytest.raises(es.PollDeadline) as caught:
            polled(old, numbered(0, 1), clock, into=store, missing_after=5, deadline=60, schedule=[10])
        assert statuses(caught.value.update.frame) == ["pending", "pending"]
        assert caught.value.update.frame["dataFound"].isna().all()
        assert statuses(store.lookup(numbered(0, 1))) == ["pending", "pending"]
        new = Service(clock, {0: 30, 1: 30})
        assert statuses(polled(new, numbered(0, 1), clock, into=store, schedule=[20])[-1].frame) == ["finished"] * 2


def test_a_record_that_was_bought_anew_is_asked(clock: Clock, path: Path):
    """Once the new, pending record of an ended task is in the store, it is requested again."""
    service = Service(clock, {0: 0})
    with es.EnrichmentStore(path, org_id=ORG) as store:
        polled(service, numbered(0), clock, into=store)
        anew = Service(clock, {0: 10})
        anew.created += pd.Timedelta("1h")
        store.load(anew.lookup(numbered(0), columns="all").assign(id=uid(77)))
        updates = polled(anew, numbered(0), clock, into=store, schedule=[20])
    assert statuses(updates[0].frame) == ["pending"]
    assert statuses(updates[-1].frame) == ["finished"]


@pytest.mark.slow
def test_a_run_learns_from_those_before(clock: Clock, path: Path):
    """With other tasks' records in the store, `Adaptive` and the estimate know from the first answer on how long a field takes."""
    generator = np.random.default_rng(3)
    ends = generator.lognormal(np.log(56), 0.8, 2000).clip(max=790)
    before, after = (
        pd.DataFrame({"entityId": [uid(n) for n in part], "field": "emails"})
        for part in (range(1000), range(1000, 2000))
    )
    with es.EnrichmentStore(path, org_id=ORG) as store:
        polled(Service.of(clock, before, ends[:1000]), before, clock, into=store)
        taught = Service.of(clock, after, ends[1000:])
        with_ = polled(taught, after, clock, into=store, schedule=es.Adaptive())
    without = polled(Service.of(clock, after, ends[1000:]), after, clock, schedule=es.Adaptive())
    assert without[0].half_in is None
    assert with_[0].half_in == pytest.approx(56, rel=0.15)
    assert with_[-1].requests < without[-1].requests
    pd.testing.assert_frame_equal(with_[-1].frame, without[-1].frame)


def test_a_service_may_tell_less_of_a_second_than_a_store_knows(clock: Clock, path: Path):
    """A record whose making the store knows to the microsecond is the same one when the service tells the millisecond."""
    made = clock.instant().replace(microsecond=123_999)
    with es.EnrichmentStore(path, org_id=ORG) as store:
        store.load([record(0, status="pending", dataFound=None, createdAt=made.isoformat())])
        service = Service(clock, {0: 5})
        service.created = made.replace(microsecond=123_000)
        assert statuses(polled(service, numbered(0), clock, into=store, deadline=60)[-1].frame) == ["finished"]


# --- what is kept -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["closed", "interrupted", "refused", "slept"])
def test_what_was_answered_is_kept_however_it_ends(clock: Clock, path: Path, how: str):
    """A poll that is closed, interrupted, refused or broken off in its sleep has all answers in the store that it told of."""
    trouble = {"interrupted": KeyboardInterrupt(), "refused": es.UnauthorizedError("no")}.get(how)
    service = Service(clock, {0: 0, 1: 5, 2: 50}, troubles=[None, None, trouble])

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if how == "slept" and clock() - service.start > 15:
            raise KeyboardInterrupt

    with es.EnrichmentStore(path, org_id=ORG) as store:
        run = es.poll(service, numbered(0, 1, 2), into=store, schedule=[10], clock=clock, sleep=sleep)
        next(run)
        if how == "closed":
            next(run)
            run.close()  # type: ignore[attr-defined]
        else:
            with pytest.raises((es.PollInterrupted, es.UnauthorizedError)):
                list(run)
    with es.EnrichmentStore(path, org_id=ORG, read_only=True) as store:
        assert statuses(store.lookup(numbered(0, 1, 2))) == ["finished", "finished", "pending"]


def test_the_answered_part_of_a_lookup_is_kept(clock: Clock, path: Path):
    """Of a lookup that failed or was interrupted in part, what was answered is in the store, and of the rest nothing is claimed."""

    def failed(tasks: pd.DataFrame, answer: pd.DataFrame) -> pd.DataFrame:
        raise es.PartialLookupError("partly", answer.iloc[:1], tasks.iloc[1:], [es.ServiceError("down")])

    def interrupted(tasks: pd.DataFrame, answer: pd.DataFrame) -> pd.DataFrame:
        raise LookupInterrupted("partly", answer.iloc[:1], tasks.iloc[1:])

    service = Service(clock, {0: 0, 1: 0, 2: 0}, troubles=[failed, interrupted])
    with es.EnrichmentStore(path, org_id=ORG) as store:
        run = es.poll(service, numbered(0, 1, 2), into=store, clock=clock, sleep=clock.sleep)
        assert statuses(next(run).frame) == ["finished", "unanswered", "unanswered"]
        assert statuses(store.lookup(numbered(0, 1, 2))) == ["finished", None, None]
        with pytest.raises(es.PollInterrupted) as caught:
            next(run)
        assert statuses(caught.value.update.frame) == ["finished", "finished", "unanswered"]
        assert statuses(store.lookup(numbered(0, 1, 2))) == ["finished", "finished", None]
    assert service.counts() == [3, 2]


def test_a_long_list_is_kept_part_by_part(clock: Clock, path: Path):
    """Ten batches at a time are requested and written, so that a source that breaks off in the middle of a long list costs little."""
    tasks = numbered(*range(5000))
    service = Service(clock, dict.fromkeys(range(5000), 0.0), troubles=[None, None, ZeroDivisionError()])
    with es.EnrichmentStore(path, org_id=ORG) as store:
        with pytest.raises(ZeroDivisionError):
            polled(service, tasks, clock, into=store)
        assert store.lookup(tasks)["status"].notna().sum() == 4000
        polled(service, tasks, clock, into=store)
    assert service.counts() == [2000, 2000, 1000, 1000]


def test_an_answer_that_cannot_be_kept_ends_the_poll(clock: Clock, path: Path):
    """Where the store was closed meanwhile, the poll says so; it does not go on without its memory."""
    service = Service(clock, {0: 0, 1: 50})
    store = es.EnrichmentStore(path, org_id=ORG)
    run = es.poll(service, numbered(0, 1), into=store, clock=clock, sleep=clock.sleep)
    first = next(run)
    store.close()
    with pytest.raises(es.StoreError, match="closed") as caught:
        next(run)
    assert statuses(caught.value.update.frame) == statuses(first.frame)  # type: ignore[attr-defined]


def test_with_a_memory_or_without_the_frame_is_the_same(clock: Clock, path: Path):
    """Columns, dtypes, index and values do not tell whether a store remembers."""
    ends = {(n, field): float(7 * n) for n in range(30) for field in ("emails", "phones", "summary")}
    service = Service(clock, ends, status={(4, "phones"): "failed", (9, "summary"): "timeout", (3, "emails"): "odd"})
    tasks = numbered(*ends, 99).set_index(pd.Index(range(91, 0, -1))).assign(company="Ärger & Söhne")
    plain = polled(service, tasks, clock)
    with es.EnrichmentStore(path, org_id=ORG) as store:
        kept = polled(
            Service(clock, ends, status={(4, "phones"): "failed", (9, "summary"): "timeout"}), tasks, clock, into=store
        )
    expected = plain[-1].frame.assign(status=plain[-1].frame["status"].replace("odd", "finished"))
    pd.testing.assert_frame_equal(kept[-1].frame.drop(columns="dataFound"), expected.drop(columns="dataFound"))
    assert kept[-1].frame["dataFound"].dtype == plain[-1].frame["dataFound"].dtype


# --- several at once ----------------------------------------------------------------------------------------------------------


def test_two_polls_on_one_store(path: Path):
    """Two polls in threads of their own write to one store, each its tasks; both end, and the store has all."""
    tasks = pd.DataFrame([task(n, field) for n in range(60) for field in ("emails", "phones")])
    parts = [tasks.iloc[:80], tasks.iloc[40:]]
    frames: dict[int, Any] = {}
    with (
        SimulatedStore(tasks, seed=3, speed=400, org_id=ORG) as service,
        # a busy machine may take a task for timed out before the service says so
        es.EnrichmentStore(path, org_id=ORG, max_processing_time=service.max_processing_time) as store,
    ):

        def work(number: int) -> None:
            frames[number] = es.wait(service, parts[number], into=store, schedule=[0.05], progress=False)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for number, part in enumerate(parts):
            pd.testing.assert_frame_equal(frames[number], service.lookup(part))
        pd.testing.assert_frame_equal(store.lookup(tasks, columns="all"), service.lookup(tasks, columns="all"))


# --- what is refused ----------------------------------------------------------------------------------------------------------


def test_a_memory_that_cannot_be_one_is_refused_at_once(clock: Clock, path: Path):
    """A store that is read-only, of no organization or closed is refused before anything is requested, and so is the source itself."""
    es.EnrichmentStore(path, org_id=ORG).close()
    service = Service(clock, {0: 0})
    closed = es.EnrichmentStore(org_id=ORG)
    closed.close()
    own = es.EnrichmentStore(org_id=ORG)
    cases: list[tuple[Any, Any, str]] = [
        (service, es.EnrichmentStore(path, org_id=ORG, read_only=True), "this one is only read"),
        (service, es.EnrichmentStore(), "opened for an organization"),
        (service, closed, "closed"),
        (service, Service(clock, {}), "into= takes an EnrichmentStore, not Service"),
        (own, own, "into= is the source itself"),
    ]
    for source, into, message in cases:
        with pytest.raises(es.EnrichStatusError, match=message):
            es.poll(source, numbered(0), into=into)
    assert service.asks == []


def test_records_of_another_organization_are_not_kept(clock: Clock, path: Path):
    """Where the token is another organization's than the store, the poll ends, says which, and nothing of theirs is in the store."""
    service = Service(clock, {0: 0}, org_id="org_other")
    with es.EnrichmentStore(path, org_id=ORG) as store:
        with pytest.raises(
            es.ValidationError, match="into= is opened for org_1, but the answers are records of org_other"
        ):
            polled(service, numbered(0), clock, into=store)
        assert statuses(store.lookup(numbered(0))) == [None]
        assert statuses(store.lookup(numbered(0), org_id="org_other")) == [None]


def test_another_organizations_memory_is_not_ours(clock: Clock, path: Path):
    """What another organization's poll has kept in the same file neither answers our tasks nor counts as waited."""
    with es.EnrichmentStore(path, org_id="org_other") as store:
        store.load([record(0, status="finished", orgId="org_other")])
        polled(Service(clock, {}, org_id="org_other"), numbered(1), clock, into=store)
    _waited(path, 1e6)
    service = Service(clock, {})
    with es.EnrichmentStore(path, org_id=ORG) as store:
        updates = polled(service, numbered(0, 1), clock, into=store, schedule=[20])
    assert service.counts() == [2, 2, 2, 2]
    assert statuses(updates[-1].frame) == [None, None]


# --- killed -------------------------------------------------------------------------------------------------------------------

TASKS = [task(n, field) for n in range(150) for field in ("emails", "phones")]


class _Told:
    """A client that writes to a file what it requests, and what of it has ended, before the poll gets the answer."""

    def __init__(self, client: es.EnrichmentClient, log: Path):
        self._client, self._log = client, log

    def lookup(self, tasks: pd.DataFrame, *, columns: Any) -> pd.DataFrame:
        self._tell("asks", tasks)
        answer: pd.DataFrame = self._client.lookup(tasks, columns=columns)
        self._tell("ended", answer[answer["status"].notna() & (answer["status"] != "pending")])
        return answer

    def _tell(self, what: str, tasks: pd.DataFrame) -> None:
        with self._log.open("a") as file:
            file.write(json.dumps([os.getpid(), what, (tasks["entityId"] + tasks["field"]).tolist()]) + "\n")


def _child(url: str, path: Path, log: Path) -> None:
    """Poll into the file until somebody kills this process."""
    with es.EnrichmentClient(url, token="token") as client, es.EnrichmentStore(path, org_id=ORG) as store:
        for _ in es.poll(_Told(client, log), TASKS, into=store, schedule=[0.01]):
            pass


def _ended(path: Path) -> set[str]:
    with es.EnrichmentStore(path, org_id=ORG, read_only=True) as store:
        found = store.lookup(TASKS)
    return set((found["entityId"] + found["field"])[found["status"].notna() & (found["status"] != "pending")])


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_where_it_was(tmp_path: Path, path: Path):
    """Killed five times (20 with all cases) at random moments, it loses the answer in flight at most, asks for nothing again that had ended, and comes to the same."""
    log = tmp_path / "log"
    log.touch()
    es.EnrichmentStore(path, org_id=ORG).close()
    moments, killed = random.Random(4), cases(5, 20)
    at = 0.0  # the service's time stands until the next is to end
    kept: set[str] = set()
    with (
        SimulatedStore(TASKS, seed=4, org_id=ORG, clock=lambda: 1000.0 + at) as service,
        running(create_app(service, {"token": ORG})) as url,
    ):
        for number in range(killed):
            before = len(_lines(log))
            child = processes().Process(target=_child, args=(url, path, log), daemon=True)
            child.start()
            give_up = time.monotonic() + 60
            while len(_lines(log)) == before:  # until it asks
                assert child.is_alive()
                assert time.monotonic() < give_up
                time.sleep(0.002)
            more = before + 1 + moments.randrange(12)
            while len(_lines(log)) < more:
                assert child.is_alive()
                at = min(at + 1.0, 120 * (number + 1) / killed)
                time.sleep(0.003)
            time.sleep(moments.uniform(0, 0.02))  # anywhere between two lines
            assert child.is_alive()
            child.kill()
            child.join()
            own = [line for line in _lines(log)[before:] if line[0] == child.pid]
            assert kept.isdisjoint(key for _, what, keys in own if what == "asks" for key in keys)
            asked = [index for index, line in enumerate(own) if line[1] == "asks"]
            told = {key for _, what, keys in own[: asked[-1]] if what == "ended" for key in keys}
            ended = _ended(path)
            assert kept | told <= ended
            kept = ended
        assert 0 < len(kept) < len(TASKS)
        at = 1000.0
        with es.EnrichmentClient(url, token="token") as client, es.EnrichmentStore(path, org_id=ORG) as store:
            last = es.wait(_Told(client, log), TASKS, into=store, progress=False)
            pd.testing.assert_frame_equal(last, es.wait(client, TASKS, progress=False))
            pd.testing.assert_frame_equal(store.lookup(TASKS, columns="all"), service.lookup(TASKS, columns="all"))
    assert kept.isdisjoint(_lines(log)[-2][2])
    assert len({line[0] for line in _lines(log)}) == killed + 1


def _lines(log: Path) -> list[tuple[int, str, list[str]]]:
    """Read what has been told; a line that a killed process did not finish was not told."""
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
