"""Tasks as they end, frame by frame: all of a list, or those that have ended since a cursor of a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.errors import ValidationError
from enrichstatus.frames.frames import Kind, ListOrPath
from enrichstatus.lookup.arguments import Columns, Errors
from enrichstatus.lookup.query import Source
from enrichstatus.polling.poll import updates
from enrichstatus.polling.run import Duration, Run
from enrichstatus.polling.schedules import Ask
from enrichstatus.polling.tracker import Tracker
from enrichstatus.polling.update import Update
from enrichstatus.schema import KEY
from enrichstatus.sources.store.changes import Changes
from enrichstatus.sources.store.store import EnrichmentStore


class Completed(Generic[Kind], Iterator[Kind]):
    """What `as_completed` gives: an iterator of frames.

    Attributes
    ----------
    cursor : str or None
        With ``since=``, what to give as ``since`` the next time: it stands after all that has been given until now, the frame that is at
        hand among it.
    """

    def __init__(self, frames: Iterator[tuple[Any, str | None]], cursor: str | None):
        self._frames, self.cursor = frames, cursor

    def __next__(self) -> Kind:
        frame, self.cursor = next(self._frames)
        given: Kind = frame
        return given


def as_completed(
    source: Source,
    tasks: Kind | ListOrPath,
    *,
    since: str | None = None,
    into: EnrichmentStore | None = None,
    schedule: Iterable[float | Ask] | None = None,
    deadline: Duration | None = None,
    missing_after: Duration = "60s",
    errors: Errors = "raise",
    prefix: str = "",
    columns: Columns = ("status", "dataFound"),
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Completed[Kind]:
    """Give the tasks as they end, a frame of those that ended since the last; all but `since` are the arguments and errors of `poll`.

    Parameters
    ----------
    since : str, optional
        A cursor of ``store.changes``, or the ``.cursor`` of an earlier call; an empty text is the beginning. The store is `into`, or else
        the source. Only tasks whose newest record came into the store since then as an ended one, or was pending and has ended, are
        given; each once, whoever loaded it. What has no record, is bad, or is only reported as ``timeout`` (rule 4) is not: its record
        has not ended.

    Yields
    ------
    A frame like the tasks
        Rows that were settled, with their status, each once. Those that a store remembers as ended come first.

    Examples
    --------
    >>> import enrichstatus as es
    >>> from enrichstatus.simulation import SimulatedStore
    >>> tasks = [{"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails"}]
    >>> for leads in es.as_completed(SimulatedStore(tasks, seed=7, speed=50), tasks):
    ...     print(leads["status"].tolist())
    ['finished']

    To go on where the last call was, also after a crash, keep the cursor when a frame has been dealt with:

    >>> service = SimulatedStore(tasks, seed=7, speed=50)
    >>> store = es.EnrichmentStore(org_id="org_simulated")
    >>> cursor = store.changes().cursor
    >>> completed = es.as_completed(service, tasks, into=store, since=cursor)
    >>> for leads in completed:
    ...     cursor = completed.cursor
    >>> list(es.as_completed(service, tasks, into=store, since=cursor))
    []
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
    steps = updates(run, schedule, deadline, sleep)
    if since is None:
        return Completed(((update.changed, None) for update in steps if update.news.any()), None)
    store = source if into is None else into
    if not isinstance(store, EnrichmentStore):
        raise ValidationError(
            f"is a cursor of a store, and the source is {type(store).__name__}: name the store with into=.",
            argument="since",
        )
    found = store.changes(None if isinstance(since, str) and not since.strip() else since)
    return Completed(_since(run.tracker, steps, store, found), since)


def _since(
    tracker: Tracker, steps: Iterator[Update], store: EnrichmentStore, found: Changes
) -> Iterator[tuple[Any, str | None]]:
    """Give what has ended by the store's own account, and the cursor after it, now and after each update."""
    yield from _ended(tracker, store, found)
    for _ in steps:
        found = store.changes(found.cursor)
        yield from _ended(tracker, store, found)


def _ended(tracker: Tracker, store: EnrichmentStore, found: Changes) -> Iterator[tuple[Any, str]]:
    """Give the rows of those tasks whose newest record is among the changes and has ended with them, if there are any."""
    before = found.table["previousStatus"]
    new = pc.and_(
        pc.not_equal(found.table["status"], "pending"), pc.or_kleene(pc.is_null(before), pc.equal(before, "pending"))
    )
    records = found.table.filter(new).select([*KEY, "id"]).to_pandas()
    touched = tracker.tasks.merge(records[list(KEY)].drop_duplicates(), on=list(KEY))
    if touched.empty:
        return
    names = tracker.names
    answer = store.lookup(touched, columns=tuple(dict.fromkeys((*names.values(), "id"))))
    answer = answer[answer["id"].isin(records["id"])]
    place_of = np.full(len(tracker.tasks), -1)
    place_of[answer["task"].to_numpy()] = np.arange(len(answer))
    # a bad row has no task
    places = np.where(tracker.places >= 0, place_of[tracker.places], -1)
    rows = np.flatnonzero(places >= 0)
    if len(rows):
        added = pa.Table.from_pandas(answer[list(names.values())], preserve_index=False).take(pa.array(places[rows]))
        yield tracker.frame.take(rows).assign(added.rename_columns(list(names))), found.cursor
