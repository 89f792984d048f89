"""Requests to the remote service: several at once, repeated where that helps, within a deadline."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from enrichstatus.errors import ServiceError, UnauthorizedError
from enrichstatus.lookup.calls.clocks import ServiceClock
from enrichstatus.lookup.query import interruption
from enrichstatus.sources.client.config import Bearer, Request, Settings
from enrichstatus.sources.client.transport.lane import Lane
from enrichstatus.sources.client.transport.retry import Attempts, Call, OutOfTime, Passing, Quota

T = TypeVar("T")

#: The contract's query.
QUERY = Request()

_log = logging.getLogger("enrichstatus.client")

#: Seconds between looks at the clock while answers are waited for.
_GLANCE = 0.2
#: In the place of a batch that has ended: the call is interrupted.
_INTERRUPTED = -1
#: Seconds that workers have to end when the call does.
_PATIENCE = 1.0


@dataclass
class Outcome(Generic[T]):
    """What became of some posts, by their place: answered, or failed for good; the others were not reached."""

    answered: dict[int, T] = field(default_factory=dict)
    failed: dict[int, Exception] = field(default_factory=dict)
    interrupted: bool = False


class Transport:
    """Sessions to one service, one for each worker, kept from one call to the next."""

    def __init__(self, settings: Settings, bearer: Bearer):
        self.settings = settings
        self._bearer = bearer
        self.clock = ServiceClock()
        self._quota = Quota(settings.rate)
        self._idle: list[Lane] = []
        self._closed = False
        #: requests that were sent, repetitions too
        self.sent = 0
        # reentrant: the garbage collector may close this transport in any thread, also in one that holds the lock
        self._lock = threading.RLock()

    def post(
        self,
        bodies: Sequence[str | None],
        read: Callable[[bytes], T],
        done: Callable[[int], object],
        request: Request = QUERY,
    ) -> Outcome[T]:
        """Post every body, some at once; `read` turns an answer into a result, `done` gets the place of each that is answered."""
        outcome: Outcome[T] = Outcome()
        time_left = self.settings.time_for(len(bodies))
        call = Call(time.monotonic() + time_left, self.settings.workers, request)
        ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        todo = iter(enumerate(bodies))
        with self._lanes(min(self.settings.workers, len(bodies)), call) as lanes:
            try:
                if (stop := interruption.get()) and stop.listen(lambda: ended.put(_INTERRUPTED)):
                    raise KeyboardInterrupt
                for lane in lanes:
                    lane.free = False
                    # a thread that does not keep the program from ending
                    work = (lane, todo, read, outcome, ended, call)
                    lane.thread = threading.Thread(target=self._work, args=work, daemon=True, name="enrichstatus-post")
                    lane.thread.start()
                for _ in bodies:
                    place = self._next(ended, lanes, call)
                    if place in outcome.answered:
                        done(place)
                    elif isinstance(outcome.failed[place], UnauthorizedError):
                        break
                else:
                    call.complete = True
            except OutOfTime:
                pass
            except KeyboardInterrupt:
                outcome.interrupted = True
        # a copy: a worker that does not end in time may still write into the other
        outcome = Outcome(dict(outcome.answered), dict(outcome.failed), outcome.interrupted)
        if not outcome.interrupted:
            late = ServiceError(f"{self.settings.url} did not answer within the deadline of {time_left:g} s.")
            refused = next((error for error in outcome.failed.values() if isinstance(error, UnauthorizedError)), late)
            if rest := set(range(len(bodies))) - outcome.answered.keys() - outcome.failed.keys():
                outcome.failed |= dict.fromkeys(rest, refused)
                self._note(f"{len(rest)} batches are given up unanswered", refused)
        return outcome

    def close(self) -> None:
        """Close the connections that are open, and keep none from now on."""
        with self._lock:
            self._closed = True
            lanes, self._idle = self._idle, []
        for lane in lanes:
            lane.session.close()

    @contextmanager
    def _lanes(self, count: int, call: Call) -> Iterator[list[Lane]]:
        """Lend sessions; at the end nothing is under way on any of them, whatever has happened."""
        with self._lock:
            lanes = [self._idle.pop() for _ in range(min(count, len(self._idle)))]
        lanes += [Lane(self.settings, self._bearer) for _ in range(count - len(lanes))]
        try:
            yield lanes
        finally:
            call.stopped.set()
            patience = time.monotonic() + _PATIENCE
            while (busy := [lane for lane in lanes if lane.thread.is_alive()]) and time.monotonic() < patience:
                for lane in () if call.complete else busy:
                    lane.line.cut()  # again and again: it may be about to connect
                busy[0].thread.join(_GLANCE / 4)
            self._take_back(lanes, call)

    def _take_back(self, lanes: Sequence[Lane], call: Call) -> None:
        """Keep lanes for the next call, as many as one needs; a worker that has not ended yet closes its own when it does."""
        with self._lock:
            call.over = True
            free = [lane for lane in lanes if lane.free]
            room = 0 if self._closed else self.settings.workers - len(self._idle)
            self._idle += free[:room]
        for lane in free[room:]:
            lane.session.close()

    def _next(self, ended: queue.SimpleQueue[int], lanes: Sequence[Lane], call: Call) -> int:
        while True:
            for lane in lanes:
                lane.line.cut(older_than=self.settings.read)
            with suppress(queue.Empty):
                place = ended.get(timeout=max(0.0, min(_GLANCE, call.remaining())))
                if place == _INTERRUPTED:
                    raise KeyboardInterrupt
                return place
            if call.remaining() <= 0:
                raise OutOfTime

    def _work(
        self,
        lane: Lane,
        todo: Iterator[tuple[int, str | None]],
        read: Callable[[bytes], T],
        outcome: Outcome[T],
        ended: queue.SimpleQueue[int],
        call: Call,
    ) -> None:
        try:
            while not call.stopped.is_set():
                with self._lock:
                    place, body = next(todo, (-1, ""))
                if place < 0:
                    return
                try:
                    result = self._answer(lane, body, read, call)
                    with self._lock:
                        call.nothing_answers(silent=False)
                    # kept here and now, so that an interrupt of the caller's thread can lose none that came
                    outcome.answered[place] = result
                    ended.put(place)
                except OutOfTime:
                    return
                except Exception as error:
                    self._note(f"batch {place + 1} is given up", error)
                    if isinstance(error, UnauthorizedError):
                        call.stopped.set()  # the others would be refused alike
                    with self._lock:
                        over = call.nothing_answers(silent=_is_silence(error, lane))
                        rest = [later for later, _ in todo] if over else []
                    if rest:
                        why = f"{len(rest)} batches more are given up before they began, for nothing answers"
                        self._note(why, error)
                    for lost in (place, *rest):
                        outcome.failed[lost] = error
                        ended.put(lost)
        finally:
            with self._lock:
                lane.free = True
                late = call.over
            if late:
                lane.session.close()

    def _answer(self, lane: Lane, body: str | None, read: Callable[[bytes], T], call: Call) -> T:
        lane.line.heard = False
        attempts = Attempts(self.settings)
        while True:
            self._quota.begin(call)
            with self._lock:
                self.sent += 1
            try:
                return lane.send(call.request, body, read, self.clock)
            except Passing as trouble:
                passing = trouble
            finally:
                self._quota.end()
            pause = attempts.pause(passing)
            if passing.status == 429 and passing.retry_after:  # the others would be refused too
                self._quota.hold(min(passing.retry_after, self.settings.max_retry_after))
            if pause is None or not call.request.repeated:
                raise passing.failure from passing.__cause__
            if pause > min(call.remaining(), call.patience()):
                text = f"The deadline leaves no time for another attempt after the last: {passing.failure}"
                raise ServiceError(text, passing.status, passing.retry_after) from passing.__cause__
            call.sleep(pause)

    def _note(self, what: str, error: Exception) -> None:
        # not a warning: what is raised says it, and where nobody has set up logging a warning would be printed over the bar
        _log.info("%s: %s: %s", self.settings.url, what, self._bearer.hide(str(error)))


def _is_silence(error: Exception, lane: Lane) -> bool:
    """Say whether a batch failed because no answer came, neither to it nor to its repetitions."""
    return isinstance(error, ServiceError) and error.http_status is None and not lane.line.heard
