"""Ask again until all have ended: update by update, in one call that blocks, or frame by frame as they end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from enrichstatus.display import progress_is_shown
from enrichstatus.errors import (
    EnrichStatusError,
    LookupInterrupted,
    PartialLookupError,
    PollDeadline,
    PollInterrupted,
    UnauthorizedError,
    ValidationError,
)
from enrichstatus.lookup import Errors, Source, choice, parse_duration
from enrichstatus.schedules import Adaptive, Ask, Backoff
from enrichstatus.schema import FIELDS
from enrichstatus.tracking import Tracker
from enrichstatus.updates import State, Update, requests_for
from enrichstatus.wire import BATCH_SIZE

if TYPE_CHECKING:
    from enrichstatus.sources.memory import Memory
    from enrichstatus.sources.store import EnrichmentStore

#: With a memory, so many tasks are looked up at once: what is lost when the process is killed meanwhile is no more.
_KEPT_EVERY = 10 * BATCH_SIZE

Duration = str | float | timedelta


def poll(
    source: Source,
    tasks: Any,
    *,
    into: EnrichmentStore | None = None,
    schedule: Iterable[float | Ask] | None = None,
    deadline: Duration | None = None,
    missing_after: Duration = "60s",
    errors: Errors = "raise",
    prefix: str = "",
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Update]:
    """Ask a source until all tasks have ended, only those that have not; gives an update after each ask.

    Parameters
    ----------
    source : Source
        Whom to ask: an `EnrichmentClient`, or any object with its ``lookup``.
    tasks : DataFrame, Arrow table, DuckDB relation, list of dicts or path
        As for ``lookup``.
    into : EnrichmentStore, optional
        A store that remembers: each answer is written to it as it comes. What has ended according to it is not asked, now or when the
        poll is begun again. What was bought anew is asked once its new record is in the store: ``store.load`` the trigger's answer.
    schedule : iterable of seconds, optional
        When to ask again: `Backoff` (default), `Adaptive`, or any iterable of seconds, of which the last is repeated.
    deadline : str, timedelta or seconds, optional
        Bound on this call, after which what has not ended is given up waiting for.
    missing_after : str, timedelta or seconds
        How long a task without a record is waited for, from when it was first asked; then it counts as having none.
    errors, prefix
        As for ``lookup``.
    sleep, clock : callable
        Wait for so many seconds; give seconds that only grow.

    Yields
    ------
    Update
        All tasks as they are, what has changed, how many requests it took, and when it asks next.

    Raises
    ------
    ValidationError
        Bad tasks or arguments, at once; or a request that the source refused.
    UnauthorizedError
        The source refused the token.
    StoreError
        `into` cannot be written.
    PollDeadline
        The time is up; ``.update`` has all tasks, the unfinished ones as pending.
    PollInterrupted
        Ctrl-C; it has ``.update`` too.

    Notes
    -----
    Any other error of the source does not end the poll: it is the update's ``error``, and the waits grow until it is over. Those that
    do end it have an ``.update`` too.

    Examples
    --------
    >>> import enrichstatus as es
    >>> from enrichstatus.simulation import SimulatedStore
    >>> tasks = [{"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails"}]
    >>> for update in es.poll(SimulatedStore(tasks, seed=7, speed=50), tasks):
    ...     pass
    >>> update.frame["status"].item()
    'finished'
    """
    run = _Run(source, tasks, into, missing_after, errors, prefix, clock)
    steps = _steps(schedule)
    end = None if deadline is None else parse_duration(deadline, "deadline").total_seconds()
    return _updates(run, steps, end, sleep)


def as_completed(source: Source, tasks: Any, **options: Any) -> Iterator[Any]:
    """Give the tasks as they end, a frame of those that ended since the last; arguments and errors are those of `poll`.

    Yields
    ------
    A frame like the tasks
        Rows that have ended, with their status, each once. Those that a store remembers as ended come first.

    Examples
    --------
    >>> import enrichstatus as es
    >>> from enrichstatus.simulation import SimulatedStore
    >>> tasks = [{"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails"}]
    >>> for leads in es.as_completed(SimulatedStore(tasks, seed=7, speed=50), tasks):
    ...     print(leads["status"].tolist())
    ['finished']
    """
    updates = poll(source, tasks, **options)
    return (update.changed for update in updates if update.state.changed.any())


def wait(source: Source, tasks: Any, *, progress: bool | None = None, **options: Any) -> Any:
    """Ask until all tasks have ended, behind a progress bar; gives them with their status.

    Parameters
    ----------
    source, tasks, options
        As for `poll`.
    progress : bool, optional
        Show the bar; unless given, in a notebook or at a terminal.

    Returns
    -------
    A frame like the tasks
        As from ``lookup``.

    Raises
    ------
    PollDeadline, PollInterrupted
        The time is up, or Ctrl-C; ``.update`` has what is known.
    ValidationError, UnauthorizedError, StoreError
        As for `poll`.

    Examples
    --------
    >>> import enrichstatus as es
    >>> from enrichstatus.simulation import SimulatedStore
    >>> tasks = [{"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails"}]
    >>> es.wait(SimulatedStore(tasks, seed=7, speed=50), tasks)["status"].item()
    'finished'
    """
    from enrichstatus.bars import follow

    last: Update | None = None
    try:
        for update in follow(poll(source, tasks, **options), shown=progress):
            last = update
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt, PollInterrupted):
            raise
        raise _interrupted(last) from interrupt
    assert last is not None  # there is one at least
    return last.frame


def _interrupted(update: Update | None) -> PollInterrupted:
    how = f"{update.ended:,} of {update.total:,} tasks had ended" if update else "nothing had been answered yet"
    return PollInterrupted(f"The poll was interrupted; {how}. .update has the last state; poll again to go on.", update)


def _updates(
    run: _Run, steps: Iterator[float | Ask], end: float | None, sleep: Callable[[float], object]
) -> Iterator[Update]:
    """Ask, tell, wait, and again."""
    update: Update | None = None
    troubles = Backoff()
    ask, delay = Ask(0.0), 0.0
    try:
        while True:
            error = run.ask(ask)
            now = run.now()
            outlook = run.tracker.outlook(now)
            earliest = now + (getattr(error, "retry_after", None) or 0.0)
            if error is None:
                troubles = Backoff()
            if not run.tracker.unfinished.any():
                yield run.update(outlook, error, None)
                return
            if end is not None and now >= end:
                update = run.update(outlook, error, None)
                yield update
                raise _late(update, end)
            if learn := getattr(steps, "learn", None):
                learn(outlook)
            ask = _next(steps, delay)
            delay = ask.after
            # an ask that came to nothing is not repeated sooner each time, whatever the schedule
            due = max(now + (delay if error is None else max(delay, next(troubles))), earliest)
            if end is not None:
                due = min(due, end)
            update = run.update(outlook, error, due - now)
            yield update
            if (left := due - run.now()) > 0:
                sleep(left)
            while (left := min(earliest, due) - run.now()) > 0:  # the service asked for so much
                sleep(left)
            if earliest > due:
                raise _late(update, end or 0.0)
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt, LookupInterrupted):
            update = run.update(run.tracker.outlook(run.now()), None, None)
        raise _interrupted(update) from interrupt
    except EnrichStatusError as error:
        vars(error).setdefault("update", update)  # nothing that is known is lost
        raise
    finally:
        run.tracker.close()


def _steps(schedule: Iterable[float | Ask] | None) -> Iterator[float | Ask]:
    if schedule is None:
        return iter(Backoff())
    if isinstance(schedule, (str, bytes, type)) or not isinstance(schedule, Iterable):
        raise ValidationError(
            f"schedule= takes Backoff(), Adaptive() or an iterable of seconds such as [1, 5, 30], not {schedule!r}."
        )
    return iter(schedule)


def _next(steps: Iterator[float | Ask], last: float) -> Ask:
    """Take the schedule's next step; one that has no more goes on with the last."""
    step = next(steps, last or Backoff().maximum)
    if isinstance(step, Ask):
        return step
    if not isinstance(step, (int, float)) or not step >= 0:  # nor is NaN
        raise ValidationError(f"schedule= gives seconds from 0 up, not {step!r}.")
    return Ask(float(step))


def _late(update: Update, end: float) -> PollDeadline:
    left = update.total - update.ended
    return PollDeadline(
        f"{left:,} of {update.total:,} tasks have not ended within {end:g} s; .update has the last state. They are pending, "
        "not failed: poll again to go on.",
        update,
    )


class _Run:
    """One poll: whom it asks, what it knows, and what it has spent."""

    def __init__(
        self,
        source: Source,
        tasks: Any,
        into: EnrichmentStore | None,
        missing_after: Duration,
        errors: Errors,
        prefix: str,
        clock: Callable[[], float],
    ):
        if not callable(getattr(source, "lookup", None)):
            raise ValidationError(
                f"source= is an EnrichmentClient, or any object with its lookup, not {type(source).__name__}."
            )
        choice("errors", errors, ("raise", "coerce"))
        if into is not None and into is source:
            raise ValidationError("into= is the source itself; leave it out, or name a store beside it.")
        self._source, self._clock = source, clock
        self._start, self._wall = clock(), datetime.now(UTC)
        self._requests = 0
        self._asked = 0
        self.memory: Memory | None = None
        self.tracker = Tracker(
            tasks,
            fields=getattr(source, "fields", FIELDS),
            errors=errors,
            prefix=prefix,
            missing_after=parse_duration(missing_after, "missing_after").total_seconds(),
            wall=self._wall.timestamp(),
        )
        self._before = self.tracker.status.copy()
        if into is not None:
            from enrichstatus.sources.memory import Memory

            self.memory = Memory(into)
            self.tracker.recall(self.memory.recall(self.tracker.tasks), self.memory.history(self.tracker.tasks))

    def now(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    def ask(self, ask: Ask) -> Exception | None:
        """Ask for the unfinished tasks that `ask` names; gives what went wrong, if it may pass."""
        chosen = self.tracker.pick(ask.fields, ask.samples)
        size = len(chosen) if self.memory is None else _KEPT_EVERY
        self._asked = len(chosen)
        for at in range(0, len(chosen), max(size, 1)):
            if error := self._look_up(chosen.iloc[at : at + size]):
                return error
        return None

    def _look_up(self, tasks: pd.DataFrame) -> Exception | None:
        names: Literal["all"] | tuple[str, ...] = (
            "all" if self.memory else ("status", "dataFound", "createdAt", "updatedAt")
        )
        self._requests += requests_for(len(tasks))
        quiet = progress_is_shown.set(True)
        failure: Exception | None = None
        try:
            answers = self._source.lookup(tasks, columns=names)
        except PartialLookupError as error:
            answers, failure = error.result, error
        except LookupInterrupted as interrupt:
            self._take(interrupt.result)
            raise
        except (ValidationError, UnauthorizedError):
            raise  # which asking again will not mend
        except (EnrichStatusError, OSError) as error:
            return error
        finally:
            progress_is_shown.reset(quiet)
        self._take(answers)
        return failure

    def _take(self, answers: pd.DataFrame) -> None:
        now = self.now()
        if self.memory:  # first: what has been told must not be forgotten
            self.memory.remember(answers, self._wall + timedelta(seconds=now))
        self.tracker.absorb(answers, now)

    def update(self, outlook: Any, error: Exception | None, next_in: float | None) -> Update:
        """Say how things stand."""
        state = State.of(self.tracker, self._before)
        self._before = state.status
        done = not np.any(self.tracker.unfinished)
        return Update(state, self._requests, self.now(), next_in, outlook, error, self._asked, done)


__all__ = ["Adaptive", "Backoff", "as_completed", "poll", "wait"]
