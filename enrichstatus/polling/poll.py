"""Poll until all tasks are settled: update by update, in one call that blocks, or frame by frame."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from enrichstatus.errors import (
    EnrichStatusError,
    LookupInterrupted,
    PartialLookupError,
    PollDeadline,
    PollInterrupted,
    ServiceError,
    StatusWarning,
    ValidationError,
    quoted,
)
from enrichstatus.files.reading.read import PathLike
from enrichstatus.files.results import recorded
from enrichstatus.frames.frames import Kind, ListOrPath
from enrichstatus.lookup.arguments import Columns, Errors, parse_duration, parse_flags
from enrichstatus.lookup.query import Source
from enrichstatus.polling.run import Duration, Run
from enrichstatus.polling.schedules import Ask, Backoff
from enrichstatus.polling.update import Update
from enrichstatus.presentation import of_unknown_status

if TYPE_CHECKING:
    from enrichstatus.sources.store.store import EnrichmentStore


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
    columns: Columns = ("status", "dataFound"),
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Update]:
    """Look tasks up in a source again and again, only those that have not ended, until all have; gives an update each time.

    Parameters
    ----------
    source : Source
        Where to look: an `EnrichmentClient`, or any object with its ``lookup``.
    tasks : DataFrame, Arrow table, DuckDB relation, list of dicts or path
        As for ``lookup``.
    into : EnrichmentStore, optional
        A store that remembers: each answer is written to it as it comes. What has ended according to it is not looked up, now or
        when the poll is begun again. What was bought anew is looked up once its new record is in the store: ``store.load`` the
        trigger's answer.
    schedule : iterable of seconds, optional
        When to look again: `Backoff` (default), `Adaptive`, or any iterable of seconds, of which the last is repeated.
    deadline : str, timedelta or seconds, optional
        Bound on this call, after which what has not ended is given up waiting for. A request under way is not cut off; a client's own
        ``deadline=`` does that. Without a deadline a poll ends too: what is pending for a tenth longer than the source's maximum
        processing time counts as ``timeout``, and a source that answers nothing for that long ends it.
    missing_after : str, timedelta or seconds
        How long a task without a record is waited for, from when it was first looked up; then it counts as having none.
    errors, prefix
        As for ``lookup``.
    columns : sequence of str or "all"
        As for ``lookup``, but for ``age`` and ``expiresIn``, which change while it polls: ``reason`` and ``error`` say why.
    sleep, clock : callable
        Wait for so many seconds; give seconds that only grow.

    Yields
    ------
    Update
        All tasks as they are, what has changed, how many requests it took, and when it looks next.

    Raises
    ------
    ValidationError
        Bad tasks or arguments, at once; or a request that the source refused.
    UnauthorizedError
        The source refused the token.
    ServiceError
        Without a deadline, the source has answered nothing for longer than the maximum processing time.
    StoreError
        `into` cannot be written.
    PollDeadline
        The time is up; ``.update`` has all tasks, the unfinished ones as pending.
    PollInterrupted
        Ctrl-C; it has ``.update`` too.

    Notes
    -----
    An orchestrator that should not keep a worker waiting goes on from an update's ``token``: see `resume`.

    Any other error of the source does not end the poll at once: it is the update's ``error``, and the waits grow until it is over. Those
    that do end it have an ``.update`` too.

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
    run = Run(
        source,
        tasks,
        into=into,
        missing_after=missing_after,
        errors=errors,
        prefix=prefix,
        columns=columns,
        clock=clock,
    )
    return updates(run, schedule, deadline, sleep)


def wait(
    source: Source,
    tasks: Kind | ListOrPath,
    *,
    progress: bool | None = None,
    into: EnrichmentStore | None = None,
    schedule: Iterable[float | Ask] | None = None,
    deadline: Duration | None = None,
    missing_after: Duration = "60s",
    errors: Errors = "raise",
    prefix: str = "",
    columns: Columns = ("status", "dataFound"),
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    results: PathLike | None = None,
) -> Kind:
    """Poll until all tasks have ended, behind a progress bar; gives them with their status.

    Parameters
    ----------
    progress : bool, optional
        Show the bar; unless given, in a notebook or at a terminal.
    results : path, optional
        A file (``.json``) that is left for programs, whatever comes of it: the last ``Update.to_dict()``, and the error
        (`enrichstatus.files.results`).
    source, tasks, and all others
        As for `poll`.

    Returns
    -------
    A frame like the tasks
        As from ``lookup``.

    Raises
    ------
    PollDeadline, PollInterrupted
        The time is up, or Ctrl-C; ``.update`` has what is known.
    ValidationError, UnauthorizedError, ServiceError, StoreError
        As for `poll`.

    Examples
    --------
    >>> import enrichstatus as es
    >>> from enrichstatus.simulation import SimulatedStore
    >>> tasks = [{"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails"}]
    >>> es.wait(SimulatedStore(tasks, seed=7, speed=50), tasks)["status"].item()
    'finished'
    """
    from enrichstatus.polling.bar import follow

    with recorded(results, "wait", tasks) as record:
        parse_flags(progress=progress)
        known: dict[str, Any] = {"into": into, "missing_after": missing_after, "errors": errors}
        run = Run(source, tasks, prefix=prefix, columns=columns, clock=clock, **known)
        last: Update | None = None
        try:
            for update in follow(updates(run, schedule, deadline, sleep), shown=progress):
                record.result = last = update
        except KeyboardInterrupt as interrupt:
            if isinstance(interrupt, PollInterrupted):
                raise
            raise _interrupted(last) from interrupt
    frame: Kind = ended(last, stacklevel=3)
    return frame


def ended(update: Update | None, stacklevel: int) -> Any:
    """Give the frame of the last update of a poll to its end, and warn of what is unknown in it."""
    assert update is not None  # there is one at least
    if update.unknown:
        warnings.warn(f"{of_unknown_status(update.unknown)}.", StatusWarning, stacklevel=stacklevel)
    return update.frame


def _interrupted(update: Update | None) -> PollInterrupted:
    how = f"{update.settled:,} of {update.total:,} tasks were settled" if update else "nothing had been answered yet"
    return PollInterrupted(f"The poll was interrupted; {how}. .update has the last state; poll again to go on.", update)


def updates(
    run: Run, schedule: Iterable[float | Ask] | None, deadline: Duration | None, sleep: Callable[[float], object]
) -> Generator[Update, Ask | None]:
    """Check the schedule, and give the updates of a run; it can be sent what to look up next, instead of what the schedule says."""
    run.end = None if deadline is None else parse_duration(deadline, "deadline").total_seconds()
    return rounds(run, steps_of(schedule), sleep)


#: Seconds: a shorter wait may be less than a clock can count.
_MOMENT = 1e-6
#: After so many failures the waits grow no more.
_TROUBLES = 10
#: Seconds for which the answers of another poll are news to one that begins.
_JUST_NOW = 1.0


def rounds(run: Run, steps: Iterator[float | Ask], sleep: Callable[[float], object]) -> Generator[Update, Ask | None]:
    """Request, report, wait, and again, from where the run is in its schedule."""
    update: Update | None = None
    pace, end, fresh = run.pace, run.end, _JUST_NOW
    troubles = Backoff()
    for _ in range(min(pace.failures, _TROUBLES)):
        next(troubles)
    run.begin()
    try:
        while True:
            error = run.request(pace.ask, fresh=fresh)
            now = run.now()
            outlook = run.tracker.outlook(now)
            earliest = now + _held(error)
            pace.failures = 0 if error is None else pace.failures + 1
            if error is None:
                troubles = Backoff()
            if error is None or isinstance(error, PartialLookupError):
                pace.heard = now
            if not run.tracker.unfinished.any():
                yield run.update(outlook, error, None)
                return
            if end is not None and now >= end:
                update = run.update(outlook, error, None)
                yield update
                raise _late(update, end)
            if error is not None and end is None and now - pace.heard > run.tracker.limits.max():
                update = run.update(outlook, error, None)
                yield update
                raise ServiceError(
                    f"Nothing has been answered for {now - pace.heard:.0f} s, and no deadline= was given: {error}"
                )
            if learn := getattr(steps, "learn", None):
                learn(outlook)
            pace.step(steps)
            delay = pace.ask.after
            # what another poll was answered counts from when it was; after a request that failed the waits grow, whatever the
            # schedule says
            due = run.answered + delay if error is None else now + max(delay, next(troubles))
            due, fresh = max(due, now, earliest), delay / 2
            if end is not None and due >= end:
                # the last one, which is for all tasks
                due, pace.ask, fresh = end, Ask(end), min(fresh, _JUST_NOW)
            update = run.update(outlook, error, due - now, held=max(earliest - now, 0.0))
            if hurried := (yield update):
                pace.ask, fresh = hurried, 0.0
            if (left := due - run.now()) > 0:
                sleep(left)
            while (left := min(earliest, due) - run.now()) > _MOMENT:  # the service wants no request before
                sleep(left)
            if earliest > due:
                raise _late(update, end or 0.0)
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt, LookupInterrupted):
            update = run.last()
        raise _interrupted(update) from interrupt
    except EnrichStatusError as error:
        if "update" not in vars(error):
            vars(error)["update"] = run.last()  # nothing that is known is lost
        raise
    finally:
        run.member.leave()


def steps_of(schedule: Iterable[float | Ask] | None) -> Iterator[float | Ask]:
    """Check a schedule, and begin it."""
    if schedule is None:
        return iter(Backoff())
    if isinstance(schedule, (str, bytes, type)) or not isinstance(schedule, Iterable):
        raise ValidationError(
            f"takes Backoff(), Adaptive() or an iterable of seconds such as [1, 5, 30], not {quoted(schedule)}.",
            argument="schedule",
        )
    return iter(schedule)


def _held(error: Exception | None) -> float:
    """Give the seconds for which a source wants no request; what is not a number of seconds is none."""
    seconds: object = getattr(error, "retry_after", None)
    return float(seconds) if isinstance(seconds, (int, float)) and 0 < seconds < float("inf") else 0.0


def _late(update: Update, end: float) -> PollDeadline:
    return PollDeadline(
        f"{update.total - update.settled:,} of {update.total:,} tasks have not ended within {end:g} s; .update has the last state. They "
        f"are {update.unfinished}, not failed: poll again to go on.",
        update,
    )
