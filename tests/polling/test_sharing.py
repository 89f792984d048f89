"""Several polls of one source: what one is answered, the others do not request, and none loses anything by it."""

from __future__ import annotations

import threading
import time
from typing import Any

import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.errors import LookupInterrupted, PollInterrupted, ServiceError
from enrichstatus.lookup.calls import sharing
from tests.support.factory import ORG
from tests.support.polled import NEVER, Clock, Service, numbered, statuses


class Together(Clock):
    """A clock of several threads, which goes on when all of them sleep, to the moment at which the first of them wakes."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self._threads, self._wakes, self._news = threads, list[float](), threading.Condition()

    def sleep(self, seconds: float) -> None:
        with self._news:
            wake = self.seconds + seconds
            self._wakes.append(wake)
            self._go_on()
            while self.seconds < wake:
                assert self._news.wait(60), "the other threads neither sleep nor end"
            self._wakes.remove(wake)

    def leave(self) -> None:
        """Say that a thread is done."""
        with self._news:
            self._threads -= 1
            self._go_on()

    def _go_on(self) -> None:
        if self._wakes and len(self._wakes) == self._threads:
            self.seconds = max(self.seconds, min(self._wakes))
            self._news.notify_all()


class Slow(Service):
    """One whose answers take a moment, and which counts who is at it."""

    def _begin(self, *arguments: Any) -> None:
        super()._begin(*arguments)
        self.lock = threading.Lock()

    def lookup(self, tasks: pd.DataFrame, **options: Any) -> pd.DataFrame:
        time.sleep(0.005)
        with self.lock:
            return super().lookup(tasks, **options)


def waits(service: Service, clock: Together, *lists: pd.DataFrame, **options: Any) -> list[pd.DataFrame]:
    """Wait for lists in a thread each, all at once; gives what came of each."""
    results: dict[int, pd.DataFrame] = {}
    ready = threading.Barrier(len(lists))

    def wait(place: int) -> None:
        ready.wait()
        try:
            results[place] = es.wait(service, lists[place], clock=clock, sleep=clock.sleep, **options)
        finally:
            clock.leave()

    threads = [threading.Thread(target=wait, args=(place,)) for place in range(len(lists))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[place] for place in range(len(lists))]


def test_five_that_wait_for_the_same_cost_no_more_than_one():
    """Five threads wait for the same tasks: the requests of one, by count and by schedule, and the same result for each."""
    ends = {n: 0.9 * n for n in range(300)}
    spent = []
    for many in (1, 5):
        clock = Together(many)
        service = Slow(clock, ends)
        for frame in waits(service, clock, *[numbered(*ends)] * many, schedule=es.Backoff(8, maximum=60)):
            assert set(frame["status"]) == {"finished"}
        spent.append(service.requests)
    assert spent[1] <= 1.1 * spent[0]


def begun(service: Service, clock: Clock, tasks: pd.DataFrame, **options: Any) -> Any:
    return es.poll(service, tasks, clock=clock, sleep=clock.sleep, **({"schedule": [10]} | options))


def test_what_lists_have_in_common_is_requested_once():
    """Of two lists that overlap, the common tasks are requested by whoever comes first; in another order, with another index."""
    clock = Clock()
    service = Service(clock, {n: 0 if n else NEVER for n in range(30)})
    one, other = numbered(*range(20)), numbered(*range(29, -1, -2)).set_index(pd.Index(range(100, 115)))
    first, second = begun(service, clock, one), begun(service, clock, other)
    next(first)
    frame = next(second).frame
    assert frame[["entityId", "field"]].equals(other)
    assert set(frame["status"]) == {"finished"}
    assert service.counts() == [20, 5]


def test_the_answers_of_another_count_from_when_they_came():
    """Whoever takes what another was answered waits from then on, so that both go on together, and is as early as the other."""
    clock = Clock()
    service = Service(clock, {0: 0, 1: 25})
    first = begun(service, clock, numbered(0, 1))
    assert next(first).next_in == 10
    clock.seconds += 0.5
    second = begun(service, clock, numbered(1, 0))
    update = next(second)
    assert (update.settled, update.requests, update.next_in) == (1, 0, 9.5)
    assert [update.settled for update in first][-1] == 2
    assert next(second).settled == 2
    assert service.times() == [0, 10, 20, 30]


def test_one_that_begins_takes_no_answer_from_long_before():
    """What was answered more than a second before a poll begins may be another purchase's."""
    clock = Clock()
    service = Service(clock, {0: 5})
    first = begun(service, clock, numbered(0))
    next(first)
    clock.seconds += 2
    next(begun(service, clock, numbered(0)))
    assert service.times() == [0, 2]
    clock.seconds += 0.5
    sharing.renew(service)  # as a trigger does: what was answered before tells nothing of what was bought
    next(begun(service, clock, numbered(0)))
    assert service.times() == [0, 2, 2.5]


def test_an_outage_is_shared_and_an_interrupt_is_not():
    """The error of one is the others' too; whoever is interrupted leaves them to request what he did not hear."""
    clock = Clock()
    down = ServiceError("It is down.", 503)
    service = Service(clock, {0: 0}, troubles=[down])
    first, second = begun(service, clock, numbered(0)), begun(service, clock, numbered(0))
    assert next(first).error is down
    assert next(second).error is down
    assert len(service.asks) == 1
    nothing = numbered(0).assign(status=None, dataFound=None, task=0)
    service = Service(clock, {0: 0}, troubles=[LookupInterrupted("Ctrl-C", result=nothing[:0], failed=nothing)])
    first, second = begun(service, clock, numbered(0)), begun(service, clock, numbered(0))
    with pytest.raises(PollInterrupted):
        next(first)
    assert next(second).settled == 1


def test_whoever_is_interrupted_lets_the_others_request_it_themselves():
    """One is under way when another comes to wait for it, and is interrupted: the other then requests it."""
    clock = Clock()
    asked, go = threading.Event(), threading.Event()

    class Interrupted(Service):
        def lookup(self, tasks: pd.DataFrame, **options: Any) -> pd.DataFrame:
            if not asked.is_set():
                asked.set()
                assert go.wait(30)
                raise KeyboardInterrupt
            return super().lookup(tasks, **options)

    service = Interrupted(clock, {0: 0})
    caught: list[BaseException] = []

    def first() -> None:
        try:
            es.wait(service, numbered(0), clock=clock, sleep=clock.sleep)
        except KeyboardInterrupt as interrupt:
            caught.append(interrupt)

    thread = threading.Thread(target=first)
    thread.start()
    assert asked.wait(30)
    threading.Timer(0.05, go.set).start()
    frame = es.wait(service, numbered(0), clock=clock, sleep=clock.sleep)
    thread.join()
    assert statuses(frame) == ["finished"]
    assert [type(one) for one in caught] == [PollInterrupted]


def test_each_remembers_what_the_other_was_answered():
    """With a memory each, both have every record, whoever requested it."""
    clock = Clock()
    service = Service(clock, {0: 0, 1: 0})
    with es.EnrichmentStore(org_id=ORG) as one, es.EnrichmentStore(org_id=ORG) as two:
        for memory in (one, two):
            assert next(begun(service, clock, numbered(0, 1), into=memory)).settled == 2
        # the first is over, so the second requested it anew
        assert service.counts() == [2, 2]
        service.course["ends"] = 5
    with es.EnrichmentStore(org_id=ORG) as one, es.EnrichmentStore(org_id=ORG) as two:
        polls = [begun(service, clock, numbered(0, 1), into=memory) for memory in (one, two)]
        for poll in polls:
            next(poll)
        clock.seconds += 10
        for poll in polls:
            assert next(poll).settled == 2
        assert one.lookup(numbered(0, 1)).equals(two.lookup(numbered(0, 1)))
        assert service.counts() == [2, 2, 2, 2]


def test_whoever_requests_asks_for_the_columns_of_all():
    """A plain wait, a dashboard's poll and one that remembers every column share what any of them is answered."""
    clock = Clock()
    service = Service(clock, {0: 15})
    with es.EnrichmentStore(org_id=ORG) as memory:
        polls = [
            begun(service, clock, numbered(0)),
            begun(service, clock, numbered(0), columns=("status", "error", "createdAt")),
            begun(service, clock, numbered(0), into=memory),
        ]
        for poll in polls:  # the first does not know of the others yet
            next(poll)
        assert len(service.asks) == 3
        for _ in range(2):
            clock.seconds += 10
            last = [next(poll) for poll in polls]
        assert [update.settled for update in last] == [1, 1, 1]
        assert len(service.asks) == 5
        assert last[1].frame["createdAt"].notna().all()
        assert statuses(memory.lookup(numbered(0))) == ["finished"]


def test_two_clients_share_only_with_the_same_token_and_address():
    """A client made again in a cell is the same source; another token or address is another, and nothing shows the token."""
    same = [es.EnrichmentClient("http://127.0.0.1:9", token="a-secret-token") for _ in range(2)]
    assert sharing.identity(same[0]) == sharing.identity(same[1])
    for other in (
        es.EnrichmentClient("http://127.0.0.1:9", token="another-token"),
        es.EnrichmentClient("http://127.0.0.1:8", token="a-secret-token"),
        es.EnrichmentClient("http://127.0.0.1:9", token="a-secret-token", statuses={"verified": "finished"}),
    ):
        assert sharing.identity(other) != sharing.identity(same[0])
    assert "secret" not in repr(sharing.identity(same[0]))


def test_nothing_is_kept_when_all_are_over():
    """The board of a source goes with the last poll."""
    clock = Clock()
    service = Service(clock, {0: 0})
    assert statuses(es.wait(service, numbered(0), clock=clock, sleep=clock.sleep)) == ["finished"]
    assert [key for key in sharing._BOARDS if key[0] == sharing.identity(service)] == []


def test_polls_that_come_and_go_leave_nothing_with_one_that_stays(monkeypatch: pytest.MonkeyPatch):
    """However many lists were polled meanwhile, what a long poll keeps of them is bounded, and it still shares its answers."""
    monkeypatch.setattr(sharing, "_MOST", 5)
    clock = Clock()
    service = Service(clock, dict.fromkeys(range(1, 40), 0) | {0: NEVER})
    long = begun(service, clock, numbered(0))
    next(long)
    for n in range(1, 39, 2):
        other = begun(service, clock, numbered(n + 1, n))
        assert next(other).settled == 2
        other.close()
    (board,) = (board for key, board in sharing._BOARDS.items() if key[0] == sharing.identity(service))
    assert len(board._numbers) <= 12
    clock.seconds += 10
    next(long)
    asked = len(service.asks)
    assert next(begun(service, clock, numbered(39, 0))).settled == 1
    assert service.counts()[asked:] == [1]
