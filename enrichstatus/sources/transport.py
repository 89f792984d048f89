"""Posts to the remote service: a few at once, repeated where that helps, none forever, and the token told to nobody else."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import requests
from urllib3.exceptions import MaxRetryError, ProtocolError

from enrichstatus.errors import EnrichStatusError, ServiceError, UnauthorizedError
from enrichstatus.sources.replies import Unreadable, error_of
from enrichstatus.sources.session import Bearer, Lane, Retries, brief, scrubbed
from enrichstatus.sources.settings import Settings

T = TypeVar("T")

#: Seconds between looks at the clock while answers are waited for.
_GLANCE = 0.2
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
        self._idle: list[Lane] = []
        self._lock = threading.Lock()

    def post(self, bodies: Sequence[str], read: Callable[[bytes], T], done: Callable[[int], object]) -> Outcome[T]:
        """Post every body, some at once; `read` turns an answer into a result, `done` is told the place of each that ended."""
        outcome: Outcome[T] = Outcome()
        call = _Call(time.monotonic() + self.settings.deadline)
        results: queue.SimpleQueue[tuple[int, T | Exception]] = queue.SimpleQueue()
        todo = iter(enumerate(bodies))
        with self._lanes(min(self.settings.workers, len(bodies)), call) as lanes:
            for lane in lanes:
                lane.start(self._work, lane, todo, read, results, call)
            try:
                for _ in bodies:
                    place, result = self._next(results, lanes, call)
                    if isinstance(result, Exception):
                        outcome.failed[place] = result
                    else:
                        outcome.answered[place] = result
                    done(place)
                    if isinstance(result, UnauthorizedError):
                        break
                else:
                    call.complete = True
            except _OutOfTime:
                pass
            except KeyboardInterrupt:
                outcome.interrupted = True
        if not outcome.interrupted:
            late = ServiceError(
                f"{self.settings.url} did not answer within the deadline of {self.settings.deadline:g} s."
            )
            refused = next((error for error in outcome.failed.values() if isinstance(error, UnauthorizedError)), late)
            for place in range(len(bodies)):
                if place not in outcome.answered:
                    outcome.failed.setdefault(place, refused)
        return outcome

    def hide(self, text: str) -> str:
        """Take the token out of a text that came from elsewhere."""
        return self._bearer.hide(text)

    def close(self) -> None:
        """Close the connections that are open."""
        with self._lock:
            lanes, self._idle = self._idle, []
        for lane in lanes:
            lane.session.close()

    @contextmanager
    def _lanes(self, count: int, call: _Call) -> Iterator[list[Lane]]:
        """Lend sessions; at the end nothing is under way on any of them, whatever has happened."""
        with self._lock:
            lanes = [self._idle.pop() for _ in range(min(count, len(self._idle)))]
        lanes += [Lane(self.settings, self._bearer) for _ in range(count - len(lanes))]
        try:
            yield lanes
        finally:
            call.stopped.set()
            patience = time.monotonic() + _PATIENCE
            while (busy := [lane for lane in lanes if lane.is_busy()]) and time.monotonic() < patience:
                for lane in () if call.complete else busy:
                    lane.cut()  # again and again: it may be about to connect
                busy[0].thread.join(_GLANCE / 4)
            with self._lock:
                self._idle += [lane for lane in lanes if not lane.is_busy()]

    def _next(
        self, results: queue.SimpleQueue[tuple[int, T | Exception]], lanes: Sequence[Lane], call: _Call
    ) -> tuple[int, T | Exception]:
        while True:
            for lane in lanes:
                lane.cut(older_than=self.settings.read)
            with suppress(queue.Empty):
                return results.get(timeout=max(0.0, min(_GLANCE, call.remaining())))
            if call.remaining() <= 0:
                raise _OutOfTime

    def _work(
        self,
        lane: Lane,
        todo: Iterator[tuple[int, str]],
        read: Callable[[bytes], T],
        results: queue.SimpleQueue[tuple[int, T | Exception]],
        call: _Call,
    ) -> None:
        while not call.stopped.is_set():
            with self._lock:
                place, body = next(todo, (-1, ""))
            if place < 0:
                return
            try:
                results.put((place, self._answer(lane, body, read, call)))
            except _OutOfTime:
                return
            except Exception as error:
                if isinstance(error, UnauthorizedError):
                    call.stopped.set()  # the others would be refused alike
                results.put((place, error))

    def _answer(self, lane: Lane, body: str, read: Callable[[bytes], T], call: _Call) -> T:
        retries: Any = Retries.of(self.settings, call)
        while True:
            lane.adapter.max_retries = retries
            try:
                # not read here: an answer that is cut off has to count among the repetitions
                response = lane.session.post(
                    self.settings.url,
                    data=body.encode(),
                    headers={"Content-Type": "application/json"},
                    timeout=(self.settings.connect, self.settings.read),
                    allow_redirects=False,
                    stream=True,
                )
            except requests.RequestException as error:
                raise self._unreachable(error) from scrubbed(error)
            with response:
                retries = response.raw.retries
                try:
                    content = response.content
                    lane.began = None
                    if response.status_code != 200:
                        raise error_of(response, self.settings.url, self._bearer.hide)
                    return read(content)
                except (requests.RequestException, Unreadable) as error:
                    lane.began = None
                    cause = scrubbed(error)
                    try:
                        retries = retries.increment("POST", self.settings.url, error=ProtocolError(brief(error)))
                    except MaxRetryError:
                        raise self._unreachable(error, response.status_code) from cause
            retries.sleep()

    def _unreachable(self, error: Exception, status: int | None = None) -> ServiceError:
        """Say in a line why there is no usable answer."""
        reason: object = error
        if isinstance(error, requests.RequestException):
            inner = error.args[0] if error.args else error
            reason = getattr(inner, "reason", None) or inner
        answered = f"answered {status}, but it is of no use" if status else "gave no usable answer"
        return ServiceError(f"{self.settings.url} {answered}: {self._bearer.hide(brief(reason))}", status)


class _OutOfTime(EnrichStatusError):
    """The call is over: its time is up, or it was interrupted."""


class _Call:
    """The bounds of one call, which all its workers keep."""

    def __init__(self, until: float):
        self._until = until
        self.stopped = threading.Event()
        self.complete = False

    def remaining(self) -> float:
        return self._until - time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait, unless the call ends meanwhile."""
        if self.stopped.wait(seconds):
            raise _OutOfTime
