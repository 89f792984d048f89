"""Posts to the remote service: a few at once, repeated where that helps, none forever, and the token told to nobody else."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import requests
from urllib3.exceptions import HTTPError, MaxRetryError, ProtocolError

from enrichstatus.errors import EnrichStatusError, ServiceError, UnauthorizedError
from enrichstatus.sources.client.config import Bearer, Settings
from enrichstatus.sources.client.responses import Unreadable, error_of
from enrichstatus.sources.client.retry import Lane, Retries, brief, scrubbed

T = TypeVar("T")

_log = logging.getLogger("enrichstatus.client")

#: Seconds between looks at the clock while answers are waited for.
_GLANCE = 0.2
#: Seconds that workers have to end when the call does.
_PATIENCE = 1.0
#: No answer to a batch is longer (in MiB, unpacked): it has 200 records of less than a KiB.
_LONGEST = 16
#: Bytes that are read at a time.
_PIECE = 16384


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
        self._closed = False
        # to be taken again by who has it: the collector, which may come at any time, closes too
        self._lock = threading.RLock()

    def post(self, bodies: Sequence[str], read: Callable[[bytes], T], done: Callable[[int], object]) -> Outcome[T]:
        """Post every body, some at once; `read` turns an answer into a result, `done` is told the place of each that is answered."""
        outcome: Outcome[T] = Outcome()
        call = _Call(time.monotonic() + self.settings.deadline, self.settings.workers)
        ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        todo = iter(enumerate(bodies))
        interrupted = False
        with self._lanes(min(self.settings.workers, len(bodies)), call) as lanes:
            try:
                for lane in lanes:
                    lane.start(self._work, lane, todo, read, outcome, ended, call)
                for _ in bodies:
                    place = self._next(ended, lanes, call)
                    if place in outcome.answered:
                        done(place)
                    elif isinstance(outcome.failed[place], UnauthorizedError):
                        break
                else:
                    call.complete = True
            except _OutOfTime:
                pass
            except KeyboardInterrupt:
                interrupted = True
        # a copy: a worker that does not end in time may still write into the other
        outcome = Outcome(dict(outcome.answered), dict(outcome.failed), interrupted)
        if not outcome.interrupted:
            late = ServiceError(
                f"{self.settings.url} did not answer within the deadline of {self.settings.deadline:g} s."
            )
            refused = next((error for error in outcome.failed.values() if isinstance(error, UnauthorizedError)), late)
            if rest := set(range(len(bodies))) - outcome.answered.keys() - outcome.failed.keys():
                outcome.failed |= dict.fromkeys(rest, refused)
                self._note(f"{len(rest)} batches are given up unanswered", refused)
        return outcome

    def hide(self, text: str) -> str:
        """Take the token out of a text that came from elsewhere."""
        return self._bearer.hide(text)

    def close(self) -> None:
        """Close the connections that are open, and keep none from now on."""
        with self._lock:
            self._closed = True
            lanes, self._idle = self._idle, []
        for lane in lanes:
            lane.close()

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
                    lane.line.cut()  # again and again: it may be about to connect
                busy[0].thread.join(_GLANCE / 4)
            self._take_back(lanes, call)

    def _take_back(self, lanes: Sequence[Lane], call: _Call) -> None:
        """Keep lanes for the next call, as many as one needs; a worker that has not ended yet closes its own when it does."""
        with self._lock:
            call.over = True
            free = [lane for lane in lanes if lane.free]
            room = 0 if self._closed else self.settings.workers - len(self._idle)
            self._idle += free[:room]
        for lane in free[room:]:
            lane.close()

    def _next(self, ended: queue.SimpleQueue[int], lanes: Sequence[Lane], call: _Call) -> int:
        while True:
            for lane in lanes:
                lane.line.cut(older_than=self.settings.read)
            with suppress(queue.Empty):
                return ended.get(timeout=max(0.0, min(_GLANCE, call.remaining())))
            if call.remaining() <= 0:
                raise _OutOfTime

    def _work(
        self,
        lane: Lane,
        todo: Iterator[tuple[int, str]],
        read: Callable[[bytes], T],
        outcome: Outcome[T],
        ended: queue.SimpleQueue[int],
        call: _Call,
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
                        call.counts(silent=False)
                    # kept here and now, so that an interrupt of the caller's thread can lose none that came
                    outcome.answered[place] = result
                    ended.put(place)
                except _OutOfTime:
                    return
                except Exception as error:
                    self._note(f"batch {place + 1} is given up", error)
                    if isinstance(error, UnauthorizedError):
                        call.stopped.set()  # the others would be refused alike
                    with self._lock:
                        rest = [later for later, _ in todo] if call.counts(silent=_is_silence(error, lane)) else []
                    if rest:
                        self._note(
                            f"{len(rest)} batches more are given up before they began, for nothing answers", error
                        )
                    for lost in (place, *rest):
                        outcome.failed[lost] = error
                        ended.put(lost)
        finally:
            with self._lock:
                lane.free = True
                late = call.over
            if late:
                lane.close()

    def _answer(self, lane: Lane, body: str, read: Callable[[bytes], T], call: _Call) -> T:
        lane.line.heard = False
        retries: Any = Retries.of(self.settings, call, lane.line)
        while True:
            lane.adapter.max_retries = retries
            try:
                # not read here: an answer that is cut off has to count among the repetitions
                response = lane.session.post(
                    self.settings.url,
                    data=body.encode(),
                    headers={"Content-Type": "application/json"},
                    timeout=(self.settings.connect, self.settings.read),
                    verify=self.settings.verify,  # of the session, the environment's bundle would go before it
                    allow_redirects=False,
                    stream=True,
                )
            except (OSError, HTTPError) as error:
                lane.line.rest()
                raise self._unreachable(error) from scrubbed(error)
            with response:
                retries = response.raw.retries
                try:
                    content = self._content(response)
                    if response.status_code != 200:
                        failure = error_of(response, content, self.settings.url, self._bearer.hide)
                        if isinstance(failure, ServiceError):
                            failure.retry_after = retries.asked_for(response.raw)
                        raise failure
                    return read(content)
                except (requests.RequestException, HTTPError, Unreadable) as error:
                    cause = scrubbed(error)
                    try:
                        retries = retries.increment("POST", self.settings.url, error=ProtocolError(brief(error)))
                    except MaxRetryError as spent:
                        raise self._unreachable(spent, response.status_code) from cause
                finally:
                    lane.line.rest()
            retries.sleep()

    def _content(self, response: requests.Response) -> bytes:
        """Read an answer, but none without end: a small one can unpack to any length."""
        content = bytearray()
        for piece in response.iter_content(_PIECE):
            content += piece
            if len(content) > _LONGEST << 20:
                if response.status_code != 200:
                    break  # the status says it all
                raise ServiceError(
                    f"{self.settings.url} answered with more than {_LONGEST} MiB, which no answer to a batch is; what came "
                    "was not read to its end. Is that the service?",
                    response.status_code,
                )
        return bytes(content)

    def _note(self, what: str, error: Exception) -> None:
        # not a warning: what is raised tells it, and where nobody has set up logging a warning would be printed over the bar
        _log.info("%s: %s: %s", self.settings.url, what, self._bearer.hide(str(error)))

    def _unreachable(self, error: Exception, status: int | None = None) -> ServiceError:
        """Say in a line why there is no usable answer."""
        inner = error.args[0] if isinstance(error, requests.RequestException) and error.args else error
        reason = getattr(inner, "reason", None) or inner
        answered = f"answered {status}, but it is of no use" if status else "gave no usable answer"
        return ServiceError(f"{self.settings.url} {answered}: {self._bearer.hide(brief(reason))}", status)


class _OutOfTime(EnrichStatusError):
    """The call is over: its time is up, or it was interrupted."""


def _is_silence(error: Exception, lane: Lane) -> bool:
    """Tell whether a batch failed for the reason that no answer came, neither to it nor to its repetitions."""
    return isinstance(error, ServiceError) and error.http_status is None and not lane.line.heard


class _Call:
    """The bounds of one call, which all its workers keep."""

    def __init__(self, until: float, workers: int):
        self._until = until
        self._workers = workers
        self._heard = False
        self._silent = 0
        self.stopped = threading.Event()
        self.complete = False
        self.over = False

    def counts(self, *, silent: bool) -> bool:
        """Count a batch that has ended; tells whether it is no use to begin with others, for nothing answers (any longer)."""
        self._silent = self._silent + 1 if silent else 0
        self._heard = self._heard or not silent
        return silent and (not self._heard or self._silent >= self._workers)

    def remaining(self) -> float:
        return self._until - time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait, unless the call ends meanwhile."""
        if self.stopped.wait(seconds):
            raise _OutOfTime
