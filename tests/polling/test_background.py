"""A poll in the background: what starts it, what pauses and ends it, and that its thread lives no longer than it has to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.errors import PollDeadline, PollInterrupted, ServiceError, StoreError, ValidationError
from enrichstatus.polling import background as watching
from enrichstatus.polling.background import Watch
from enrichstatus.polling.schedules import Ask
from tests.support.factory import ORG, record
from tests.support.polled import NEVER, Clock, Service, numbered
from tests.support.waiting import threads, until

#: For a busy machine: only a failure takes so long.
SECONDS = 30


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The clock of a test stands still or jumps, so it is looked at often; and no test leaves a thread behind."""
    monkeypatch.setattr(watching, "_TICK", 0.002)
    monkeypatch.setattr(Watch, "made", [], raising=False)
    make = Watch.__init__

    def made(self: Watch, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        Watch.made.append(self)  # type: ignore[attr-defined]

    monkeypatch.setattr(Watch, "__init__", made)
    yield
    for watch in Watch.made:  # type: ignore[attr-defined]
        watch.stop()
    until(lambda: not threads())


def idle(watch: Watch, phase: str) -> None:
    """Wait until it does nothing any more, and no thread of it is left."""
    until(lambda: watch.progress.phase == phase and not threads())


# --- start, pause, go on, ask now, stop ---------------------------------------------------------------------------------------


def test_it_asks_until_all_have_ended_and_lets_its_thread_go(clock: Clock):
    """Nothing is requested before it is started; then by the schedule, until all have ended, and no thread is left."""
    service = Service(clock, {0: 0, 1: 15})
    watch = Watch(service, numbered(0, 1), schedule=[10], clock=clock)
    assert (watch.progress.phase, watch.progress.wanted, threads()) == ("ready", "pause", [])
    before = watch.look()
    assert (watch.progress.update.total, watch.progress.update.settled) == (2, 0)
    watch.start()
    until(lambda: watch.progress.phase == "waiting" and watch.progress.next_in == 10)
    assert watch.progress.update.settled == 1
    clock.seconds += 10
    until(lambda: len(service.asks) == 2 and watch.progress.phase == "waiting")
    clock.seconds += 10
    idle(watch, "done")
    assert service.times() == [0, 10, 20]
    assert service.counts() == [2, 1, 1]
    assert watch.progress.points == [(0, 0), (0, 1), (10, 1), (20, 2)]
    assert [row["entityId"] for _, row, _ in watch.progress.changes] == numbered(1, 0)["entityId"].tolist()
    assert watch.wait() is watch.progress.update
    assert (before.phase, before.points, list(before.changes)) == ("ready", [(0, 0)], [])
    watch.start()
    watch.ask_now()
    watch.pause()
    watch.stop()
    assert (watch.progress.phase, threads()) == ("done", [])
    assert len(service.asks) == 3


def test_a_pause_asks_nothing_and_lets_its_thread_go(clock: Clock):
    """While it is paused nothing is requested however much time passes; then it goes on where it was."""
    service = Service(clock, {0: 0, 1: 15})
    watch = Watch(service, numbered(0, 1), schedule=[10], clock=clock)
    watch.start()
    until(lambda: watch.progress.update.settled == 1)
    watch.pause()
    idle(watch, "paused")
    assert watch.progress.next_in is None
    clock.seconds += 1000
    time.sleep(0.02)
    assert service.times() == [0]
    watch.start()
    idle(watch, "done")
    assert service.times() == [0, 1000]
    assert service.counts() == [2, 1]


def test_an_ask_under_way_is_ended_before_a_pause(clock: Clock):
    """Who pauses while it asks does not lose the answer; who starts again meanwhile has only one thread."""
    service = Slow(clock, {0: 0, 1: 5})
    watch = Watch(service, numbered(0, 1), schedule=[10], clock=clock)
    watch.start()
    until(service.begun.is_set)
    watch.pause()
    assert (watch.progress.phase, watch.progress.wanted) == ("asking", "pause")
    watch.start()
    watch.pause()
    assert len(threads()) == 1
    service.go.set()
    idle(watch, "paused")
    assert watch.progress.update.settled == 1


def test_paused_or_stopped_before_it_began_it_waits_for_the_start(clock: Clock):
    """A pause or a stop of one that is ready starts nothing."""
    service = Service(clock, {0: 0})
    watch = Watch(service, numbered(0), clock=clock)
    watch.pause()
    assert (watch.progress.phase, threads()) == ("paused", [])
    watch.stop()
    assert (watch.progress.phase, threads()) == ("stopped", [])
    with pytest.raises(PollInterrupted, match=r"The poll was stopped; 0 of 1 tasks were settled"):
        watch.wait()
    watch.start()
    idle(watch, "done")


def test_ask_now_does_not_wait_for_its_turn(clock: Clock):
    """It asks at once, and then goes on by the schedule from there."""
    service = Service(clock, {0: 0, 1: NEVER})
    watch = Watch(service, numbered(0, 1), schedule=[10], clock=clock)
    watch.start()
    until(lambda: watch.progress.next_in == 10)
    clock.seconds += 1
    watch.ask_now()
    until(lambda: len(service.asks) == 2 and watch.progress.phase == "waiting")
    clock.seconds += 9
    until(lambda: watch.progress.next_in == 1)
    assert service.times() == [0, 1]
    assert (watch.progress.phase, watch.progress.wanted) == ("waiting", "run")


@pytest.mark.parametrize(
    ("press", "phase"), [(lambda watch: None, "paused"), (Watch.pause, "paused"), (Watch.stop, "stopped")]
)
def test_ask_now_asks_once_where_it_does_not_run(press: Callable[[Watch], None], phase: str, clock: Clock):
    """What is ready, paused or stopped asks once, and then is paused or stopped as before."""
    service = Service(clock, {0: 0, 1: NEVER})
    watch = Watch(service, numbered(0, 1), schedule=[0.01], clock=clock)
    press(watch)
    watch.ask_now()
    idle(watch, phase)
    clock.seconds += 100
    time.sleep(0.02)
    assert service.times() == [0]
    assert watch.progress.update.settled == 1


def test_ask_now_does_not_undercut_what_the_service_asked_for(clock: Clock):
    """Whom the service asked to leave it alone for a while, does: running or paused; a pause meanwhile takes it back."""
    busy = ServiceError("Too many requests.", 429, retry_after=30)
    service = Service(clock, {0: 0}, troubles=[busy, busy])
    watch = Watch(service, numbered(0), schedule=[5], clock=clock)
    watch.start()
    until(lambda: watch.progress.next_in == 30)
    assert watch.progress.update.error is busy
    watch.ask_now()
    clock.seconds += 29
    until(lambda: watch.progress.next_in == 1)
    assert service.times() == [0]
    clock.seconds += 1
    until(lambda: service.times() == [0, 30] and watch.progress.phase == "waiting")
    assert watch.progress.next_in == 30
    watch.pause()
    idle(watch, "paused")
    watch.ask_now()
    until(lambda: watch.progress.phase == "waiting" and watch.progress.next_in == 30)
    watch.pause()
    idle(watch, "paused")
    watch.ask_now()
    clock.seconds += 30
    idle(watch, "done")
    assert service.times() == [0, 30, 60]


def test_ask_now_asks_for_all_that_has_not_ended(clock: Clock):
    """A schedule that would ask only some of the fields next does not narrow what a person asks for."""
    service = Service(clock, {(0, "emails"): NEVER, (0, "phones"): NEVER})
    tasks = numbered((0, "emails"), (0, "phones"))
    watch = Watch(service, tasks, schedule=[Ask(10, ("emails",)), Ask(10, ("phones",))], clock=clock)
    watch.start()
    until(lambda: watch.progress.next_in == 10)
    watch.ask_now()
    until(lambda: len(service.asks) == 2 and watch.progress.phase == "waiting")
    clock.seconds += 10
    until(lambda: len(service.asks) == 3)
    assert [[field for _, field in keys] for _, keys in service.asks] == [
        ["emails", "phones"],
        ["emails", "phones"],
        ["phones"],
    ]


def test_when_all_have_ended_it_is_done_even_if_it_was_paused(clock: Clock):
    """The answer that ends it leaves nothing to start for: who waits is let go."""
    service = Service(clock, {0: 5})
    watch = Watch(service, numbered(0), schedule=[10], clock=clock)
    watch.start()
    until(lambda: watch.progress.phase == "waiting" and service.asks)
    watch.pause()
    idle(watch, "paused")
    clock.seconds += 5
    watch.ask_now()
    idle(watch, "done")
    assert watch.wait(0) is watch.progress.update


def test_stopped_it_can_be_started_again(clock: Clock):
    """Who waits for what is stopped learns that, with what is known; a start goes on where it was."""
    service = Service(clock, {0: 0, 1: 15})
    watch = Watch(service, numbered(0, 1), schedule=[10], clock=clock)
    watch.start()
    until(lambda: watch.progress.update.settled == 1)
    threading.Timer(0.02, watch.stop).start()
    with pytest.raises(PollInterrupted, match="1 of 2 tasks were settled") as told:
        watch.wait()
    assert told.value.update is watch.progress.update
    idle(watch, "stopped")
    clock.seconds += 20
    watch.start()
    idle(watch, "done")
    assert service.counts() == [2, 1]


def test_started_again_while_its_thread_leaves_one_thread_asks(clock: Clock):
    """Who starts it in the very moment in which it says that it is paused, has one poll and not two."""
    service = Slow(clock, {0: 5})
    again, told = threading.Event(), set()

    def changed() -> None:
        told.add(watch.progress.phase)
        if watch.progress.phase == "paused" and not again.is_set():
            again.set()
            watch.start()
            service.begun.clear()
            until(service.begun.is_set)  # the new thread asks, and the old one is still here

    watch = Watch(service, numbered(0), schedule=[10], clock=clock, changed=changed)
    service.go.set()
    watch.start()
    until(lambda: watch.progress.phase == "waiting" and service.asks)
    service.go.clear()
    watch.progress.wanted = "pause"  # as pause() does, but told by its thread alone
    clock.seconds += 10  # due, as soon as it is started again
    until(lambda: again.is_set() and len(threads()) == 1)
    service.go.set()
    idle(watch, "done")
    assert "failed" not in told


# --- waiting ------------------------------------------------------------------------------------------------------------------


def test_wait_starts_it_and_gives_up_waiting_in_time(clock: Clock):
    """A timeout is no end: it goes on, and a later wait gives the last update."""
    service = Service(clock, {0: 0, 1: 15})
    watch = Watch(service, numbered(0, 1), schedule=[10], clock=clock)
    assert watch.wait(0.05) is None
    until(lambda: watch.progress.phase == "waiting" and service.asks)
    assert len(threads()) == 1
    clock.seconds += 20
    last = watch.wait()
    assert last is watch.progress.update
    assert last.done


def test_wait_does_not_start_what_is_paused(clock: Clock):
    service = Service(clock, {0: 0})
    watch = Watch(service, numbered(0), clock=clock)
    watch.pause()
    assert watch.wait(0.02) is None
    assert (watch.progress.phase, service.asks) == ("paused", [])


def test_the_deadline_ends_it_and_a_start_goes_on(clock: Clock):
    """Who waits learns that the time is up; a start asks anew, with as much time as before."""
    service = Service(clock, {0: 0, 1: 25})
    watch = Watch(service, numbered(0, 1), schedule=[10], deadline=15, clock=clock)
    watch.start()
    until(lambda: watch.progress.next_in == 10)
    clock.seconds += 10
    until(lambda: watch.progress.next_in == 5)  # not later than the deadline
    clock.seconds += 5
    idle(watch, "deadline")
    for _ in range(2):  # however often it is requested
        with pytest.raises(PollDeadline, match="1 of 2 tasks have not ended within 15 s") as told:
            watch.wait()
        assert told.value.update is watch.progress.update
    assert [told.value.update.frame["status"].tolist()] == [["finished", "pending"]]
    watch.start()
    assert watch.progress.failure is None
    until(lambda: watch.progress.next_in == 10)
    clock.seconds += 10
    assert watch.wait() is watch.progress.update
    assert service.times() == [0, 10, 15, 15, 25]


def test_what_asking_again_does_not_mend_ends_it(clock: Clock):
    """A refusal ends it, and is raised where somebody waits; started again it asks anew."""
    refused = ValidationError("What was asked is refused.")
    service = Service(clock, {0: 0, 1: 5}, troubles=[None, refused])
    watch = Watch(service, numbered(0, 1), schedule=[10], clock=clock)
    watch.start()
    until(lambda: watch.progress.next_in == 10)
    clock.seconds += 10
    idle(watch, "failed")
    with pytest.raises(ValidationError, match="refused") as told:
        watch.wait()
    assert told.value.update.settled == 1  # type: ignore[attr-defined]  # nothing that is known is lost
    assert watch.progress.failure is refused
    watch.ask_now()
    assert (watch.progress.phase, threads()) == ("failed", [])
    watch.start()
    assert watch.wait() is watch.progress.update
    assert service.times() == [0, 10, 10]


def test_an_error_of_any_other_kind_ends_it_and_is_raised(clock: Clock):
    """A mistake in a source of the caller's own is not lost in a thread."""
    watch = Watch(Service(clock, {0: 0}, troubles=[ZeroDivisionError("a mistake")]), numbered(0), clock=clock)
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        watch.wait()
    idle(watch, "failed")


def test_an_outage_does_not_end_it(clock: Clock):
    """What may pass is reported in the update, and it polls again."""
    down = ServiceError("It is down.", 503)
    service = Service(clock, {0: 0, 1: 5}, troubles=[None, down])
    watch = Watch(service, numbered(0, 1), schedule=[10], clock=clock)
    watch.start()
    until(lambda: watch.progress.next_in == 10)
    clock.seconds += 10
    until(lambda: watch.progress.update.error is down)
    assert watch.progress.update.settled == 1
    clock.seconds += 100
    idle(watch, "done")
    assert watch.progress.update.error is None


def test_an_interrupt_of_who_waits_stops_it(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C ends the wait and the poll, with what is known; a start goes on."""
    service = Service(clock, {0: 0, 1: 15})
    watch = Watch(service, numbered(0, 1), schedule=[10], clock=clock)
    watch.start()
    until(lambda: watch.progress.update.settled == 1)
    wait = watch._news.wait

    def interrupted(seconds: float) -> bool:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return wait(seconds)

    monkeypatch.setattr(watch._news, "wait", interrupted)
    with pytest.raises(PollInterrupted, match="The poll was interrupted; 1 of 2 tasks were settled") as told:
        watch.wait()
    assert told.value.update.settled == 1
    idle(watch, "stopped")
    clock.seconds += 20
    watch.start()
    idle(watch, "done")


def test_arguments_and_tasks_are_checked_before_anything_starts(clock: Clock):
    service = Service(clock, {0: 0})
    for wrong in ({"schedule": "often"}, {"deadline": "soon"}, {"errors": "ignore"}):
        with pytest.raises(ValidationError):
            Watch(service, numbered(0), **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="bad task"):
        Watch(service, [{"entityId": "no uuid", "field": "emails"}])
    assert threads() == []


def test_a_pause_that_is_taken_back_is_told_at_once(clock: Clock):
    """Also while a request is under way, which may take long: what shows it must not say until then that it pauses."""
    sent, answer = threading.Event(), threading.Event()

    class Slow(Service):
        def lookup(self, *given: Any, **options: Any) -> Any:
            sent.set()
            answer.wait(30)
            return super().lookup(*given, **options)

    told: list[str] = []
    watch = Watch(Slow(clock, {0: 0}), numbered(0), clock=clock, changed=lambda: told.append(watch.progress.wanted))
    watch.start()
    assert sent.wait(30)
    watch.pause()
    watch.start()
    assert told[-2:] == ["pause", "run"]
    answer.set()
    idle(watch, "done")


def test_what_is_shown_is_told_whenever_it_changes(clock: Clock):
    """Each phase and each update is reported, in their order."""
    told: list[tuple[str, int]] = []
    service = Service(clock, {0: 0, 1: 15})
    watch = Watch(
        service,
        numbered(0, 1),
        schedule=[10],
        clock=clock,
        changed=lambda: told.append((watch.progress.phase, watch.progress.update.settled)),
    )
    watch.start()
    until(lambda: ("waiting", 1) in told)
    watch.pause()
    idle(watch, "paused")
    clock.seconds += 20
    watch.start()
    idle(watch, "done")
    assert list(dict.fromkeys(told)) == [
        ("asking", 0),
        ("waiting", 1),
        ("paused", 1),
        ("asking", 1),
        ("asking", 2),
        ("done", 2),
    ]


def test_a_long_course_is_kept_in_few_points(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """Of a course that is long every other point is enough: its start and its end stay."""
    monkeypatch.setattr(watching, "_POINTS", 10)
    service = Service(clock, {0: NEVER})
    watch = Watch(service, numbered(0), schedule=[1], clock=clock)
    watch.start()
    for _ in range(40):
        until(lambda: watch.progress.next_in == 1)
        clock.seconds += 1
        until(lambda: watch.progress.points[-1][0] == clock.seconds - clock.start)
    assert len(watch.progress.points) <= 11
    assert watch.progress.points[0] == (0, 0)
    assert watch.progress.points[-1] == (40, 0)


# --- with a memory ------------------------------------------------------------------------------------------------------------


def test_two_that_remember_in_one_store_do_not_disturb_each_other(clock: Clock):
    """One is stopped and the other goes on; what each learned is in the store."""
    service = Service(clock, {n: 0 if n % 2 else 15 for n in range(20)})
    with es.EnrichmentStore(org_id=ORG) as memory:
        one, two = (
            Watch(service, numbered(*range(start, start + 10)), into=memory, schedule=[10], clock=clock)
            for start in (0, 10)
        )
        one.start()
        two.start()
        until(lambda: one.progress.update.settled == two.progress.update.settled == 5)
        one.stop()
        until(lambda: one.progress.phase == "stopped" and len(threads()) == 1)
        clock.seconds += 20
        last = two.wait()
        assert last is not None
        assert last.settled == 10
        assert one.progress.phase == "stopped"
        idle(two, "done")
        assert memory.lookup(numbered(*range(20)))["status"].value_counts().to_dict() == {"finished": 15, "pending": 5}
        one.start()
        idle(one, "done")
        assert max(service.often().values()) == 2


def test_what_a_store_remembers_is_shown_before_anything_is_asked(clock: Clock):
    """With all ended according to the store nothing is requested at all, whatever is pressed."""
    for press in (Watch.start, Watch.ask_now, Watch.wait):
        with es.EnrichmentStore(org_id=ORG) as memory:
            memory.load([record(0)])
            service = Service(clock, {0: 0})
            watch = Watch(service, numbered(0), into=memory, clock=clock)
            assert (watch.progress.phase, watch.progress.update.settled) == ("ready", 1)
            press(watch)
            idle(watch, "done")
            assert service.asks == []


def test_a_store_that_is_closed_meanwhile_ends_it(clock: Clock):
    """What cannot be remembered is an error, for whoever waits."""
    service = Service(clock, {0: 15})
    memory = es.EnrichmentStore(org_id=ORG)
    watch = Watch(service, numbered(0), into=memory, schedule=[10], clock=clock)
    watch.start()
    until(lambda: watch.progress.next_in == 10)
    memory.close()
    clock.seconds += 20
    with pytest.raises(StoreError):
        watch.wait()
    idle(watch, "failed")


class Slow(Service):
    """One whose answer comes when it may."""

    def _begin(self, *arguments: Any) -> None:
        super()._begin(*arguments)
        self.begun, self.go = threading.Event(), threading.Event()

    def lookup(self, tasks: pd.DataFrame, **options: Any) -> pd.DataFrame:
        self.begun.set()
        assert self.go.wait(SECONDS)
        return super().lookup(tasks, **options)
