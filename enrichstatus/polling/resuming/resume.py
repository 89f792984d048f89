"""Go on with a poll from its token: one round of requests, on whatever machine, and nobody waits in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from enrichstatus.errors import EnrichStatusError, ValidationError
from enrichstatus.lookup.arguments import check_source
from enrichstatus.lookup.query import Source
from enrichstatus.polling.poll import rounds, steps_of
from enrichstatus.polling.resuming import token as tokens
from enrichstatus.polling.resuming.packed import TaskList
from enrichstatus.polling.run import Run
from enrichstatus.polling.schedules import Ask
from enrichstatus.polling.update import Update

if TYPE_CHECKING:
    from enrichstatus.sources.store.store import EnrichmentStore

#: Seconds by which the clocks of two machines may differ.
_APART = 60.0
#: So many steps of a schedule are passed over at the most; of one that learns, whose steps take time, fewer.
_STEPS, _LEARNING = 10_000, 100
#: What reading a token may raise.
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError)


def resume(
    token: str,
    source: Source,
    *,
    tasks: Any = None,
    into: EnrichmentStore | None = None,
    schedule: Iterable[float | Ask] | None = None,
    clock: Callable[[], float] = time.time,
) -> Update:
    """Go on with a poll where a token stands: one round of requests for the tasks that have not ended, and no wait.

    The first token is that of a poll, ``next(es.poll(client, tasks)).token``. Whoever schedules the work calls this when the update's
    ``next_in`` seconds are over, with the update's ``token``, until the update is ``done``. Between two calls nothing runs and nothing
    is kept but the token. The same token may be used again, after a crash say: it then requests again, and loses nothing.

    Parameters
    ----------
    token : str
        The ``.token`` of an `Update`. It says how the poll was begun (its tasks, ``deadline``, ``missing_after``, ``errors``, ``prefix``
        and ``columns``), and what is known of each task. It has no secret in it.
    source : Source
        Where to look: a client of the same service, with a token of the same organization; or the store, if that was the source.
    tasks : DataFrame, Arrow table, DuckDB relation, list of dicts or path, optional
        The tasks that the poll began with, in any order and of any kind; the update's frames are then of this kind, with all its columns.
        Needed for a ``.token_without_tasks``. Unless given, the frames have the distinct tasks alone, as a pandas frame.
    into, schedule
        As for `poll`; a token does not have them. A schedule is gone on with from where the poll was in it.
    clock : callable
        Gives the seconds since 1970.

    Returns
    -------
    Update
        All tasks as they are; ``changed`` is what was settled since the token was written. A call that comes earlier than ``next_in`` said
        requests nothing, and gives what is known.

    Raises
    ------
    ValidationError
        The token is not whole, was changed, or is of another version, service, organization or list of tasks; or an argument is unusable.
    UnauthorizedError, ServiceError, StoreError, PollDeadline, PollInterrupted
        As for `poll`, each with its ``.update``, whose ``.token`` goes on where a passing cause is over.

    Notes
    -----
    A token of 10,000 tasks has 120 to 260 thousand characters, and without the tasks 2 to 41 thousand. Further
    `columns` come on top.

    Examples
    --------
    >>> import time
    >>> import enrichstatus as es
    >>> from enrichstatus.simulation import SimulatedStore
    >>> tasks = [{"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails"}]
    >>> service = SimulatedStore(tasks, seed=7, speed=1000)
    >>> update = next(es.poll(service, tasks, schedule=[0.1]))
    >>> while not update.done:
    ...     time.sleep(update.next_in)  # in an orchestrator the task ends here
    ...     update = es.resume(update.token, service, schedule=[0.1])
    >>> update.frame["status"].item()
    'finished'
    """
    told = tokens.read(token)
    check_source(source)
    steps = steps_of(schedule)
    try:
        course = tokens.course_of(told)
        if told["service"] != (here := getattr(source, "base_url", None)):
            raise tokens.refused(_elsewhere(told["service"], here))
        if tasks is None and told["list"] is None:
            raise tokens.refused(
                f"was written without its {told['tasks']:,} tasks: give them with tasks=, as they were when the poll began."
            )
        run = Run(
            source,
            TaskList.unpack(told["list"], told["tasks"]) if tasks is None else tasks,
            into=into,
            missing_after=timedelta(seconds=course.missing_after),
            errors=told["errors"],
            prefix=told["prefix"],
            columns=told["columns"],
            clock=clock,
            began=course.began,
        )
        if run.tracker.listed.digest != told["digest"]:
            raise ValidationError(
                f"are {len(run.tracker.listed):,} tasks, and not the same as the {told['tasks']:,} of the token. Give those that the poll "
                "began with, or begin again with poll(…).",
                argument="tasks",
            )
        behind = run.go_on(course, told["state"], requests=int(told["requests"]))
    except EnrichStatusError:
        raise
    except _UNREADABLE as error:
        raise tokens.unreadable(error) from error
    if behind > _APART:
        raise tokens.refused(
            f"was written at {told['at']}, and by this machine's clock that is {behind:,.0f} s ahead: set the clock."
        )
    outlook = run.tracker.outlook(run.now())
    if course.due is not None and (early := course.due - run.now()) > 0:
        return run.update(outlook, None, early)
    waits = min(course.waits, _STEPS)
    if learn := getattr(steps, "learn", None):
        learn(outlook)
        waits = min(waits, _LEARNING)
    run.pace.catch_up(steps, waits)
    with closing(rounds(run, steps, lambda seconds: None)) as updates:
        update = next(updates)
        if update.next_in is None and not update.done:
            next(updates)  # raises why it was the last
    return update


def _elsewhere(service: str | None, here: str | None) -> str:
    whose = "a store" if service is None else service
    return f"is of {whose}, and the source is {'a store' if here is None else here}. Give the source that the poll was begun with."
