"""When to poll again: schedules, which are iterators of seconds and know nothing of sources, threads or clocks."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from enrichstatus.lookup.arguments import parse_number
from enrichstatus.lookup.contract import BATCH_SIZE
from enrichstatus.survival import Outlook, Prospect

#: From this many batches on a sample shows nearly as much as all, for a fraction of the requests.
_MANY = 5
#: Beyond the ages of which something is known, a sample is requested this often: by a share of the age, and not oftener than so many
#: times the shortest wait.
_PROBE, _PROBE_LEAST = 0.3, 3
#: Fields that are due this nearly together are requested together.
_TOGETHER = 1.1


@dataclass(frozen=True)
class Ask:
    """A round of requests to come.

    Attributes
    ----------
    after : float
        Seconds until then.
    fields : tuple of str or None
        The fields whose unfinished tasks are requested, all of them; None is every field.
    samples : mapping of str to int
        The fields of which only so many tasks are requested.
    """

    after: float
    fields: tuple[str, ...] | None = None
    samples: Mapping[str, int] = field(default_factory=dict)


class Backoff:
    """Wait longer each time: `initial` seconds, then `factor` times as long, and so on up to `maximum`.

    Parameters
    ----------
    initial : float
        Seconds before the second request; the first is sent at once.
    factor : float
        By what the wait grows each time.
    maximum : float
        The longest wait, in seconds.
    jitter : float
        The share by which each wait is made longer or shorter at random, so that many pollers do not send theirs at once.
    random : callable
        Gives a number from 0 to 1 for the jitter.

    Raises
    ------
    ValidationError
        A number is out of range.

    Examples
    --------
    >>> import enrichstatus as es
    >>> schedule = es.Backoff(jitter=0)
    >>> [next(schedule) for _ in range(8)]
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    """

    def __init__(
        self,
        initial: float = 1,
        factor: float = 2,
        maximum: float = 60,
        *,
        jitter: float = 0.1,
        random: Callable[[], float] = random.random,
    ):
        for name, value, least, most in (
            ("initial", initial, 0.001, math.inf),
            ("factor", factor, 1, math.inf),
            ("maximum", maximum, initial, math.inf),
            ("jitter", jitter, 0, 0.99),
        ):
            parse_number(name, value, least=least, most=most)
        self.initial, self.factor, self.maximum = float(initial), float(factor), float(maximum)
        self.jitter, self._random = float(jitter), random
        self._next = self.initial

    def __iter__(self) -> Iterator[float]:
        """Begin anew: one schedule serves any number of polls."""
        again = copy.copy(self)
        again._next = again.initial
        return again

    def __next__(self) -> float:
        wait, self._next = self._next, min(self._next * self.factor, self.maximum)
        return self.vary(wait)

    def vary(self, wait: float) -> float:
        """Give a wait its jitter."""
        return wait * (1 + self.jitter * (2 * self._random() - 1))

    def __repr__(self) -> str:
        return f"Backoff({self.initial:g}, {self.factor:g}, {self.maximum:g}, jitter={self.jitter:g})"


class Adaptive:
    """Request when it is worth it: when those that have ended meanwhile are expected to have waited long enough, all together.

    How long each field takes is learned from what has ended so far, and from the history in the store that a poll writes into. A task
    that is still pending counts with the time that it has been so. Until enough have ended, the waits are the backoff's, and of
    long lists a sample is requested.

    Parameters
    ----------
    patience : float
        What a request is worth, in task-seconds: ten tasks that have waited unseen for a minute each are 600. Less finds what has
        ended sooner, for more requests; the waits go with the square root of it.
    initial, factor, maximum, jitter, random
        As for `Backoff`; no wait is shorter than `initial` or longer than `maximum`, but for the jitter.

    Raises
    ------
    ValidationError
        A number is out of range.

    Examples
    --------
    With nothing learned it is the backoff:

    >>> import enrichstatus as es
    >>> schedule = es.Adaptive(jitter=0)
    >>> [next(schedule).after for _ in range(4)]
    [1.0, 2.0, 4.0, 8.0]
    """

    def __init__(
        self,
        patience: float = 650,
        *,
        initial: float = 1,
        factor: float = 2,
        maximum: float = 60,
        jitter: float = 0.1,
        random: Callable[[], float] = random.random,
    ):
        parse_number("patience", patience, least=0.001)
        self.patience = float(patience)
        self._backoff = Backoff(initial, factor, maximum, jitter=0)
        self._jitter = Backoff(initial, factor, maximum, jitter=jitter, random=random)
        self._begin()

    def _begin(self) -> None:
        self._outlook: Outlook | None = None
        self._plain = iter(self._backoff)
        #: by field, for as long as nothing is learned of it: the waits, and the one that is being waited
        self._steps: dict[str, Iterator[float]] = {}
        self._waits: dict[str, float] = {}

    def learn(self, outlook: Outlook) -> None:
        """Compute the next wait from what can be expected now."""
        self._outlook = outlook

    def __iter__(self) -> Iterator[Ask]:
        """Begin anew, with nothing learned: one schedule serves any number of polls."""
        again = copy.copy(self)
        again._begin()
        return again

    def __next__(self) -> Ask:
        if self._outlook is None or not self._outlook.fields:
            return Ask(self._jitter.vary(next(self._plain)))
        whole: dict[str, float] = {}
        samples: dict[str, float] = {}
        for name, prospect in self._outlook.fields.items():
            wait, probe = self._due(name, prospect)
            if wait is not None:
                whole[name] = wait
            if probe is not None:
                samples[name] = probe
        after = max(min([*whole.values(), *samples.values()]), self._backoff.initial)
        whole_fields = tuple(name for name, wait in whole.items() if wait <= after * _TOGETHER)
        probed = {
            name: BATCH_SIZE for name, wait in samples.items() if wait <= after * _TOGETHER and name not in whole_fields
        }
        for name in (*whole_fields, *probed):
            if name in self._steps:
                self._waits[name] = next(self._steps[name])
        return Ask(self._jitter.vary(after), whole_fields, probed)

    def _due(self, name: str, prospect: Prospect) -> tuple[float | None, float | None]:
        """Seconds until all of a field are worth a request, and until a sample is; None where it is not requested so."""
        requests = math.ceil(prospect.count / BATCH_SIZE)
        requested, sampled = float(prospect.since.max()), float(prospect.since.min())
        shortest, longest = self._backoff.initial, self._backoff.maximum
        if prospect.curve is None:
            if name not in self._steps:
                self._steps[name] = iter(self._backoff)
                self._waits[name] = next(self._steps[name])
            wait = max(self._waits[name] - sampled, 0.0)
            # a sample is enough to learn from; but no task waits longer than the longest wait
            return (max(longest - requested, wait), wait) if requests >= _MANY else (wait, None)
        ahead = np.linspace(0, longest, 241)
        worth = np.flatnonzero(prospect.waiting(ahead) >= self.patience * requests)
        wait = float(ahead[worth[0]]) if len(worth) else longest
        wait = max(min(wait, longest - requested), shortest)
        oldest = float((prospect.age + prospect.since).max())
        if requests < _MANY or oldest + wait <= prospect.curve.end:
            return wait, None
        probe = max(_PROBE * (oldest - sampled), _PROBE_LEAST * shortest) - sampled
        return wait, max(probe, 0.0) if probe < 0.8 * wait else None

    def __repr__(self) -> str:
        return f"Adaptive({self.patience:g}, maximum={self._backoff.maximum:g}, jitter={self._jitter.jitter:g})"
