"""A service that only pretends: records that start pending and end over time, and the faults of a bad day."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from datetime import UTC
from typing import Any, TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from enrichstatus import frames
from enrichstatus.errors import ValidationError
from enrichstatus.lookup import MAX_PROCESSING_TIME
from enrichstatus.schema import FIELDS, listed
from enrichstatus.sources.store import EnrichmentStore
from enrichstatus.tasks import check, create_vocabularies
from enrichstatus.wire import PATH

#: By field: the median time to completion in seconds, and the share that is found; any other field is like the last.
PROFILES = {"emails": (25.0, 0.62), "phones": (60.0, 0.25), "summary": (12.0, 0.90)}
#: The spread of the completion times, which are lognormal.
SIGMA = 0.8
#: The shares that never end, until the timeout rule ends them, and that fail.
NEVER, FAILS = 0.03, 0.02
#: Times beyond these are no longer times that a clock, or a timestamp, can tell.
SLOWEST, FASTEST = 0.001, 1_000_000
FAULTS = ("429", "500", "slow", "cut")


class SimulatedStore(EnrichmentStore):
    """A store in memory that is a service at work: every task has a record, pending at first, that ends in its time.

    What becomes of a task, and when, depends on the seed and on the task alone.

    Parameters
    ----------
    tasks : DataFrame, Arrow table, DuckDB relation, list of dicts or path
        What has been triggered just now.
    seed : int
        Another seed is another course of events.
    org_id : str
        Whose records they are.
    speed : float
        How many times faster than life, from 0.001 to 1,000,000; the maximum processing time shrinks alike.
    fields : sequence of str
        The fields of the service.
    clock : callable
        Gives seconds that only grow, on which the events take place.

    Raises
    ------
    ValidationError
        Bad tasks, or an argument is unusable.

    Examples
    --------
    >>> import enrichstatus as es
    >>> from enrichstatus.simulation import SimulatedStore
    >>> seconds = 0.0
    >>> tasks = [{"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails"}]
    >>> service = SimulatedStore(tasks, seed=7, clock=lambda: seconds)
    >>> service.lookup(tasks)["status"].item()
    'pending'
    >>> seconds = 300.0
    >>> service.lookup(tasks)["status"].item()
    'finished'
    """

    def __init__(
        self,
        tasks: Any,
        *,
        seed: int = 0,
        org_id: str = "org_simulated",
        speed: float = 1.0,
        fields: Sequence[str] = FIELDS,
        clock: Callable[[], float] = time.monotonic,
    ):
        if not SLOWEST <= speed <= FASTEST:  # nor is NaN
            raise ValidationError(f"speed= is from {SLOWEST} to {FASTEST:,}, not {speed!r}.")
        super().__init__(org_id=org_id, max_processing_time=MAX_PROCESSING_TIME / speed, fields=fields)
        self._clock = clock
        self._advancing = threading.Lock()
        self._ended = 0
        pending, self._ends, self._seconds = _course(tasks, seed, speed, self.fields)
        self._start = clock()
        self.load(pending)

    def _look_up(self, tasks: Any, question: pa.Table, **options: Any) -> Any:
        with self._advancing:
            due = int(np.searchsorted(self._seconds, self._clock() - self._start, side="right"))
            if due > self._ended:
                self.load(self._ends[self._ended : due])
                self._ended = due
        return super()._look_up(tasks, question, **options)


def _course(
    tasks: Any, seed: int, speed: float, fields: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame, npt.NDArray[np.float64]]:
    """Decide the course of events: the records at the start, their ends in the order of time, and after how many seconds."""
    with duckdb.connect() as con:
        create_vocabularies(con, fields)
        check(con, frames.read(tasks))
        keys = con.sql(_KEYS_SQL, params={"seed": str(seed)}).to_arrow_table().to_pandas()
    name = keys["entityId"] + keys["entityType"] + keys["field"]
    profile = keys["field"].map(lambda field: PROFILES.get(field, PROFILES["summary"]))
    normal = np.sqrt(-2 * np.log(_draw(name, seed, "a"))) * np.cos(2 * np.pi * _draw(name, seed, "b"))
    seconds = profile.str[0].to_numpy(dtype=float) * np.exp(SIGMA * normal) / speed
    found = _draw(name, seed, "c") < profile.str[1].to_numpy(dtype=float)
    fate = _draw(name, seed, "d")
    failed = fate < FAILS
    start = pd.Timestamp.now(UTC).floor("ms")
    pending = keys.assign(createdAt=start, updatedAt=start, status="pending", createdBy="user_simulated")
    ends = pending.assign(
        # later than the start, however fast: of two versions of a record the newer one counts
        updatedAt=pd.Series(start + pd.to_timedelta(seconds, unit="s")).dt.ceil("ms"),
        status=np.where(failed, "failed", "finished"),
        error=pd.Series("The provider did not answer.", keys.index).where(failed),
        dataFound=found & ~failed,
        creditTransactionId=keys["id"].where(found & ~failed),
    )
    order = np.argsort(seconds, kind="stable")
    order = order[fate[order] < 1 - NEVER]
    return pending, ends.iloc[order].reset_index(drop=True), seconds[order]


_KEYS_SQL = """
select distinct
    entityId::varchar as entityId,
    entityType::varchar as entityType,
    field::varchar as field,
    md5($seed || entityId || entityType || field)::uuid::varchar as id
from tasks
"""


def _draw(names: pd.Series[str], seed: int, salt: str) -> npt.NDArray[np.float64]:
    """Draw evenly from between 0 and 1: for the same name, seed and salt the same."""
    drawn = pd.util.hash_array((names + salt).to_numpy(dtype=object), hash_key=f"{seed:016d}"[-16:])
    return (drawn.astype(np.float64) + 1) / 2.0**64


Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Faults:
    """An application that has bad moments: some requests of the contract, drawn by the seed, meet one of the faults.

    ``429`` and ``500`` answer so, the first with ``Retry-After: 1``; ``slow`` takes its time; ``cut`` breaks off in the answer's middle.
    It goes around an application, or into one as its innermost middleware, where the application's log sees the faults too.
    """

    def __init__(self, app: App, *, rate: float, kinds: Sequence[str] = FAULTS, seed: int = 0, pause: float = 3.0):
        if not 0 <= rate <= 1:
            raise ValidationError(f"The rate of faults is from 0 to 1, not {rate!r}.")
        strange = [kind for kind in kinds if kind not in FAULTS]
        if strange or not kinds:
            found = listed(map(repr, strange)) if strange else "none at all"
            raise ValidationError(f"Faults are some of {listed(FAULTS)}, not {found}.")
        self._app = app
        self._rate = rate
        self._kinds = list(kinds)
        self._pause = pause
        self._random = random.Random(seed)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve a request, well or badly."""
        if scope["type"] != "http" or scope["path"] != PATH or self._random.random() >= self._rate:
            await self._app(scope, receive, send)
            return
        kind = self._random.choice(self._kinds)
        if kind in ("429", "500"):
            body = b'{"error": {"code": "%s", "message": "A simulated fault."}}' % (
                b"INTERNAL_ERROR" if kind == "500" else b"RATE_LIMITED"
            )
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            headers += [(b"retry-after", b"1")] if kind == "429" else []
            await send({"type": "http.response.start", "status": int(kind), "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        if kind == "slow":
            await asyncio.sleep(self._pause)
            await self._app(scope, receive, send)
            return

        async def half(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": message["body"][: len(message["body"]) // 2], "more_body": True}
            await send(message)

        await self._app(scope, receive, half)
