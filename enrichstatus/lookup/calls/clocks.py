"""How far a service's clock is ahead of ours: the one place where two clocks meet."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

import numpy as np
import numpy.typing as npt

#: A `Date` has whole seconds, and servers write it up to a second late: a smaller difference is ignored.
_EXACT = 2.0
#: The share of the bounds at either end that is left aside.
_WRONG = 0.005
#: A clock that is wrong by more than a day is not used.
_DAY = 86_400.0


class ServiceClock:
    """A service's clock, learned from the ``Date`` headers of its answers.

    It is compared with the monotonic clock, so that nothing changes where this machine's own clock is set meanwhile.
    """

    def __init__(self) -> None:
        self._least, self._most = -math.inf, math.inf

    def learn(self, date: str | None, sent: float, received: float) -> None:
        """Take the ``Date`` of an answer, whose request was sent and which was received at these monotonic seconds."""
        instant = seconds_of(date)
        if instant is None or abs(instant - time.time()) > _DAY:
            return
        least, most = instant - received - _EXACT / 2, instant + _EXACT - sent
        self._least, self._most = max(self._least, least), min(self._most, most)
        if self._least > self._most:  # one of the two clocks was set: the latest answer is right
            self._least, self._most = least, most

    def ahead(self) -> float | None:
        """Give the seconds that it is ahead of ours, negative where it is behind; None where nothing is known of it."""
        if math.isinf(self._least):
            return None
        seconds = time.monotonic() + (self._least + self._most) / 2 - time.time()
        return seconds if abs(seconds) > _EXACT else 0.0

    def now(self) -> float | None:
        """Give the seconds since 1970 by that clock; None where nothing is known of it."""
        ahead = self.ahead()
        return None if ahead is None else time.time() + ahead

    def instant(self, ours: datetime, newest: float | None) -> datetime:
        """Turn an instant of our clock into one of the service's; no record is of the future, if its `newest` instant is given."""
        seconds = self.ahead()
        if seconds is None:
            seconds = max(newest - ours.timestamp(), 0.0) if newest is not None else 0.0
        with suppress(OverflowError):
            return ours + timedelta(seconds=seconds if seconds <= _DAY else 0.0)
        return ours


def seconds_of(date: str | None) -> float | None:
    """Read an HTTP date as seconds since 1970; None where it is not one."""
    try:
        return parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def ahead_of_ours(said: float | None, least: npt.NDArray[np.float64], most: npt.NDArray[np.float64]) -> float | None:
    """Say how many seconds a service's clock is ahead of ours; None where nothing is known.

    `said` comes from its ``Date``. `least` and `most` are the bounds that each record sets which ended between two requests: the
    instant of its end, less when the later answer came and when the earlier request was sent. They go before what was said, for
    ages are reckoned with the clock that wrote the records. One in a hundred may be wrong.
    """
    known = ~np.isnan(least)
    if not known.any():
        return said
    low, high = np.quantile(least[known], 1 - _WRONG), np.quantile(most[known], _WRONG)
    return said or 0.0 if low <= (said or 0.0) <= high else float(low + high) / 2
