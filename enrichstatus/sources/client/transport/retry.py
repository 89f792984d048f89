"""Which failures are repeated, after how long, and how many requests may be made in a time."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import deque
from collections.abc import Mapping

from enrichstatus.errors import EnrichStatusError, ServiceError
from enrichstatus.lookup.calls.clocks import seconds_of
from enrichstatus.lookup.query import patience
from enrichstatus.sources.client.config import Rate, Request, Settings

#: Statuses that another attempt may not meet. The post only reads: to repeat it is safe.
REPEATED = (429, 500, 502, 503, 504)
#: No wait between two attempts is longer, unless the service wants it.
_LONGEST = 30.0
#: A service that refuses for its quota, without a word on how long, gets no request sooner.
_LEAST = 0.1
#: No wait is longer than an hour, whatever the service wants: its clock may be wrong.
_HOUR = 3600.0
#: Numbers from here on are instants, not durations: seconds, and milliseconds, since 1970.
_EPOCH, _EPOCH_MS = 1e9, 1e11
#: Seconds between looks where all that the rate allows is under way.
_GLANCE = 0.05


class OutOfTime(EnrichStatusError):
    """The call is over: its time is up, or it was interrupted."""


class Call:
    """The bounds of one call, which all its workers keep."""

    def __init__(self, until: float, workers: int, request: Request):
        self._until, self._patience = until, patience.get()
        self.request, self._workers = request, workers
        self._heard, self._silent = False, 0
        self.stopped = threading.Event()
        #: whether every batch was answered or has failed
        self.complete = False
        #: whether its lanes were taken back: a worker that ends later closes its own
        self.over = False

    def nothing_answers(self, *, silent: bool) -> bool:
        """Count a batch that has ended; says whether the others need not begin, as nothing answers, or nothing any more."""
        self._silent = self._silent + 1 if silent else 0
        self._heard = self._heard or not silent
        return silent and (not self._heard or self._silent >= self._workers)

    def remaining(self) -> float:
        """Give the seconds until its deadline."""
        return self._until - time.monotonic()

    def patience(self) -> float:
        """Give the seconds until the caller wants no more repetitions."""
        return self._patience - time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait, unless the call ends meanwhile."""
        if self.stopped.wait(seconds):
            raise OutOfTime


class Passing(Exception):
    """A failure that another attempt may not meet: `failure` is what is raised if there is none."""

    def __init__(self, failure: EnrichStatusError, status: int | None = None, retry_after: float | None = None):
        super().__init__()
        self.failure, self.status, self.retry_after = failure, status, retry_after


class Attempts:
    """The attempts of one post.

    A refusal for the quota (429) does not count as one of the `retries`: it ends with time. Without `retries`, though, one that says
    when to come back is raised: the caller waits, as a poll does.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._failures = self._refusals = 0

    def pause(self, trouble: Passing) -> float | None:
        """Count a failure; gives the seconds until the next attempt, None where there were enough."""
        settings, least = self._settings, self._settings.backoff
        if trouble.status == 429 and (trouble.retry_after is None or settings.retries):
            self._refusals = times = self._refusals + 1
            least = max(least, _LEAST)
        else:
            self._failures = times = self._failures + 1
            if times > settings.retries:
                return None
        # the first repetition waits too: one at once helps no service that is down
        wait = min(least * 2.0 ** min(times - 1, 60), _LONGEST) * random.uniform(0.5, 1)
        if trouble.retry_after is None:
            return wait
        return max(min(trouble.retry_after, settings.max_retry_after), min(wait, 1.0))


class Quota:
    """How many requests all threads of a client may make in a time, and before when the service wants none."""

    def __init__(self, rate: Rate | None):
        self._rate = rate
        self._lock = threading.Lock()
        self._unused = rate.requests if rate else 0
        #: from when on each request that was made counts no longer
        self._free: deque[float] = deque()
        self._held = 0.0

    def hold(self, seconds: float) -> None:
        """Make no request for so long."""
        with self._lock:
            self._held = max(self._held, time.monotonic() + seconds)

    def begin(self, call: Call) -> None:
        """Wait until a request may be made."""
        while (wait := self._wait()) > 0:
            held = time.monotonic() < self._held
            if wait > (min(call.remaining(), call.patience()) if held else call.remaining()):
                why = "the service wants none yet" if held else f"rate= allows no more than {self._rate}"
                raise ServiceError(
                    f"The deadline leaves no time for another request: {why}.", 429 if held else None, wait
                )
            call.sleep(wait)

    def end(self) -> None:
        """Count a request from its end on: the service has counted it by then, answered or not."""
        if self._rate:
            with self._lock:
                self._free.append(time.monotonic() + self._rate.seconds)

    def _wait(self) -> float:
        with self._lock:
            now = time.monotonic()
            if now < self._held:
                return self._held - now
            if self._rate is None:
                return 0.0
            if self._unused:
                self._unused -= 1
                return 0.0
            if not self._free:
                return _GLANCE
            if self._free[0] <= now:
                self._free.popleft()
                return 0.0
            return self._free[0] - now


def read_retry_after(headers: Mapping[str, str], status: int, now: float | None) -> float | None:
    """Read for how many seconds a service wants no request; what is not understood, or over, is None.

    `now` is what is known of the instant by the service's clock, if anything is: its dates are its own clock's.
    """
    names = ("Retry-After", "RateLimit-Reset", "X-RateLimit-Reset") if status == 429 else ("Retry-After",)
    clocks = [clock for clock in (seconds_of(headers.get("Date")), now, time.time()) if clock is not None]
    for name in names:
        text, wait = headers.get(name, "").strip(), 0.0
        if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
            wait = float(text)
            instant = wait / (1000 if wait >= _EPOCH_MS else 1) if wait >= _EPOCH and name != "Retry-After" else None
        else:
            instant = seconds_of(text)
        if instant is not None:
            waits = [instant - clock for clock in clocks]
            # the instant is not of a clock that is wrong by years
            wait = next((one for one in waits if 0 < one <= _HOUR), waits[0])
        if wait > 0:
            return min(wait, _HOUR)
    return None
