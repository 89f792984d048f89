"""Polls for asyncio: between two requests a poll is a timer of the event loop, and has no thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from enrichstatus.files.reading.read import PathLike
from enrichstatus.files.results import recorded
from enrichstatus.frames.frames import Kind, ListOrPath
from enrichstatus.lookup.arguments import Columns, Errors, parse_flags
from enrichstatus.lookup.calls.awaiting import in_thread
from enrichstatus.lookup.query import Source
from enrichstatus.polling.poll import ended, updates
from enrichstatus.polling.run import Duration, Run
from enrichstatus.polling.schedules import Ask
from enrichstatus.polling.update import Update

if TYPE_CHECKING:
    from enrichstatus.sources.client.awaited import AsyncEnrichmentClient
    from enrichstatus.sources.store.store import EnrichmentStore


async def apoll(
    source: Source | AsyncEnrichmentClient,
    tasks: Any,
    *,
    into: EnrichmentStore | None = None,
    schedule: Iterable[float | Ask] | None = None,
    deadline: Duration | None = None,
    missing_after: Duration = "60s",
    errors: Errors = "raise",
    prefix: str = "",
    columns: Columns = ("status", "dataFound"),
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Update]:
    """Poll in an event loop: what `poll` does, for ``async for``.

    Any number of polls share a loop. A poll has a thread only while it requests, at most 32 of a loop at once.

    Parameters
    ----------
    source : AsyncEnrichmentClient or Source
        Where to look; any source whose ``lookup`` blocks will do too, such as a store.
    sleep : callable
        Gives what to await for so many seconds.
    tasks, and all others
        As for `poll`.

    Yields
    ------
    Update
        As from `poll`.

    Raises
    ------
    asyncio.CancelledError
        The task was cancelled. Neither a request nor a thread is left; ``.update`` has what was known, where a request was cut off.
    ValidationError, UnauthorizedError, ServiceError, StoreError, PollDeadline
        As for `poll`, when the first update is awaited or later.

    Examples
    --------
    >>> import asyncio
    >>> import enrichstatus as es
    >>> from enrichstatus.simulation import SimulatedStore
    >>> tasks = [{"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails"}]
    >>> async def last():
    ...     async for update in es.apoll(SimulatedStore(tasks, seed=7, speed=50), tasks):
    ...         pass
    ...     return update
    >>> asyncio.run(last()).frame["status"].item()
    'finished'
    """
    blocking: Any = getattr(source, "blocking", source)
    make = partial(
        Run,
        blocking,
        tasks,
        into=into,
        missing_after=missing_after,
        errors=errors,
        prefix=prefix,
        columns=columns,
        clock=clock,
    )
    run = await in_thread(make)
    # the loop waits, so the poll must not
    with closing(updates(run, schedule, deadline, lambda seconds: None)) as steps:
        while update := await in_thread(partial(next, steps, None)):
            yield update
            if update.next_in is not None:
                await sleep(max(update.elapsed + update.next_in - run.now(), 0.0))


async def aresume(token: str, source: Source | AsyncEnrichmentClient, **options: Any) -> Update:
    """Go on with a poll where a token stands, in an event loop: one round of requests, as `resume` makes it.

    Parameters
    ----------
    source : AsyncEnrichmentClient or Source
        As for `apoll`: of the same service as when the poll was begun.
    token, and all others
        As for `resume`.

    Returns
    -------
    Update
        As from `resume`.

    Raises
    ------
    asyncio.CancelledError
        The task was cancelled; neither a request nor a thread is left. The token is as good as it was.
    ValidationError, UnauthorizedError, ServiceError, StoreError, PollDeadline
        As for `resume`.

    Examples
    --------
    >>> import asyncio
    >>> import enrichstatus as es
    >>> from enrichstatus.simulation import SimulatedStore
    >>> tasks = [{"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails"}]
    >>> service = SimulatedStore(tasks, seed=7, speed=1000)
    >>> async def to_its_end(update):
    ...     while not update.done:
    ...         await asyncio.sleep(update.next_in)
    ...         update = await es.aresume(update.token, service, schedule=[0.1])
    ...     return update
    >>> asyncio.run(to_its_end(next(es.poll(service, tasks, schedule=[0.1])))).frame["status"].item()
    'finished'
    """
    from enrichstatus.polling.resuming.resume import resume

    blocking: Any = getattr(source, "blocking", source)
    return await in_thread(partial(resume, token, blocking, **options))


async def await_completed(
    source: Source | AsyncEnrichmentClient,
    tasks: Kind | ListOrPath,
    *,
    progress: bool | None = None,
    results: PathLike | None = None,
    **options: Any,
) -> Kind:
    """Poll in an event loop until all tasks have ended; gives them with their status, as `wait` does.

    Parameters
    ----------
    progress : bool, optional
        Show a bar; unless given, in a notebook or at a terminal.
    results : path, optional
        As for `wait`; of a task that was cancelled the file's ``status`` is ``interrupted``.
    source, tasks, and all others
        As for `apoll`.

    Returns
    -------
    A frame like the tasks
        As from ``lookup``.

    Raises
    ------
    asyncio.CancelledError, PollDeadline, ValidationError, UnauthorizedError, ServiceError, StoreError
        As for `apoll`; an error that ends a poll has ``.update``.

    Examples
    --------
    >>> import asyncio
    >>> import enrichstatus as es
    >>> from enrichstatus.simulation import SimulatedStore
    >>> tasks = [{"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails"}]
    >>> asyncio.run(es.await_completed(SimulatedStore(tasks, seed=7, speed=50), tasks))["status"].item()
    'finished'
    """
    from enrichstatus.polling.bar import drawn

    last: Update | None = None
    with recorded(results, "await_completed", tasks, interrupt=asyncio.CancelledError) as record:
        parse_flags(progress=progress)
        try:
            with drawn(progress) as draw:
                async for last in apoll(source, tasks, **options):
                    record.result = last
                    draw(last)
        except asyncio.CancelledError as cancelled:
            vars(cancelled).setdefault("update", last)
            raise
    frame: Kind = ended(last, stacklevel=2)
    return frame
