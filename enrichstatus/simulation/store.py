"""Records that only pretend: triggered at the start or later, they start pending and end over time."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from enrichstatus.errors import ServiceError, ValidationError, quoted
from enrichstatus.frames import frames
from enrichstatus.frames.frames import Kind, ListOrPath
from enrichstatus.leads.prices import parse_costs
from enrichstatus.lookup import contract as wire
from enrichstatus.lookup.arguments import MAX_PROCESSING_TIME, Instant, parse_number
from enrichstatus.lookup.contract import PREFIX
from enrichstatus.lookup.query import asker
from enrichstatus.lookup.tasks import DISTINCT_SQL, check
from enrichstatus.schema import COLUMNS, FIELDS, KEY
from enrichstatus.sources.store.answering.lookup_files import LookupReport
from enrichstatus.sources.store.store import EnrichmentStore

#: By field: the median time to completion in seconds, and the share that is found; any other field is like the last.
PROFILES = {"emails": (25.0, 0.62), "phones": (60.0, 0.25), "summary": (12.0, 0.90)}
#: The spread of the completion times, which are lognormal.
SIGMA = 0.8
#: The shares that never end, until the timeout rule ends them, and that fail.
NEVER, FAILS = 0.03, 0.02
#: Times beyond these are no longer times that a clock, or a timestamp, can show.
SLOWEST, FASTEST = 0.001, 1_000_000
#: A trigger buys nothing anew where the newest record has one of these.
REUSED = ("pending", "finished")
#: Credits for one task of a field, and those that an organization has at the start.
COSTS, CREDITS = {"emails": 1.0, "phones": 10.0, "summary": 1.0}, 1_000_000.0
#: Who has triggered what nobody is named for.
USER = "user_simulated"


class SimulatedStore(EnrichmentStore):
    """A store in memory that is a service at work: every task has a record, pending at first, that ends in its time.

    What becomes of a task, and when, depends on the seed and on the task alone; of one that is triggered again, on the attempt too.
    Its time starts when it is made, at the instant that it is then; where no ``now=`` is given, timeouts are evaluated on its clock.

    Parameters
    ----------
    tasks : DataFrame, Arrow table, DuckDB relation, list of dicts or path, optional
        What has been triggered just now; nothing unless given.
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
    costs : mapping of str to float
        Credits that a new record of a field is charged; of a field that is not named, 1.
    balance : float
        The credits that each organization has at the start. What it cannot pay, it cannot trigger.
    forgetful : bool
        Buy, and charge, whatever is triggered, also what is pending or has finished.

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
        tasks: Any = None,
        *,
        seed: int = 0,
        org_id: str = "org_simulated",
        speed: float = 1.0,
        fields: Sequence[str] = FIELDS,
        clock: Callable[[], float] = time.monotonic,
        costs: Mapping[str, float] = COSTS,
        balance: float = CREDITS,
        forgetful: bool = False,
    ):
        if not SLOWEST <= speed <= FASTEST:  # nor is NaN
            raise ValidationError(f"is from {SLOWEST} to {FASTEST:,}, not {quoted(speed)}.", argument="speed")
        super().__init__(org_id=org_id, max_processing_time=MAX_PROCESSING_TIME / speed, fields=fields)
        self._seed, self._speed, self._clock = seed, speed, clock
        self._costs = parse_costs(costs, self.fields if costs is not COSTS else tuple(COSTS))
        self._credits = parse_number("balance", balance, least=0)
        self.forgetful = forgetful
        self._ledger: list[pd.DataFrame] = []
        #: by organization, the credits charged
        self._spent: dict[str | None, float] = defaultdict(float)
        self._advancing = threading.Lock()
        #: what has not ended yet: the records as they will be, in the order of their ends, and when these are
        self._ends, self._seconds = pd.DataFrame(), np.empty(0)
        #: when the start is, on the clock of the timestamps, which have milliseconds
        self._origin = datetime.now(UTC)
        self._origin -= timedelta(microseconds=self._origin.microsecond % 1000)
        if tasks is not None:
            self._begin(self._keys(tasks, org_id, self._origin), org_id, USER, 0.0)
        self._start = clock()

    def trigger(
        self,
        entity_ids: Iterable[Any] | str,
        field: str,
        entity_type: str = "person",
        *,
        created_by: str = USER,
        org_id: str | None = None,
    ) -> list[dict[str, Any]]:
        """Have a field of some entities enriched, from now on.

        What is pending or has finished is not bought again, unless the service is forgetful. What has no record, or whose newest
        has failed or timed out, gets a new one. Each new record is charged, whatever becomes of it.

        Parameters
        ----------
        entity_ids : sequence of str
            The entities' UUIDs, any number.
        field : str
            What to find.
        entity_type : str
            What the entities are: ``person`` or ``company``.
        created_by : str
            Whom the new records name.
        org_id : str, optional
            The organization that triggers; the store's unless given.

        Returns
        -------
        list of dict
            An enrichment object of the contract for each distinct entity, in the order of their first appearance.

        Raises
        ------
        ValidationError
            No organization, or bad tasks (all are in its ``.problems``), of which none is triggered then.
        ServiceError
            402: the credits do not suffice; none is triggered then.
        StoreError
            The store is closed.

        Examples
        --------
        >>> from enrichstatus.simulation import SimulatedStore
        >>> service = SimulatedStore(seed=7)
        >>> [enrichment] = service.trigger(["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"], "phones")
        >>> enrichment["field"], enrichment["status"]
        ('phones', 'pending')
        >>> service.trigger(["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"], "phones") == [enrichment]
        True
        """
        ids = [entity_ids] if isinstance(entity_ids, str) else list(entity_ids)
        tasks = pd.DataFrame({"entityId": ids, "entityType": [entity_type] * len(ids), "field": [field] * len(ids)})
        owner = self.org_id if org_id is None else org_id
        with self._advancing:
            seconds = self._advance()
            question = asker(owner, self._limits, self._at(seconds))
            keys = self._keys(tasks, owner, self._at(seconds))
            status = self._newest(keys, question, ["status"], how="left")["status"].to_pandas()
            new = keys if self.forgetful else keys[~status.isin(REUSED)]
            if (price := self._prices(new).sum()) > (left := self.balance(org_id=owner)):
                raise ServiceError(f"There are {left:g} credits, of the {price:g} that this costs.", 402)
            self._begin(new, owner, created_by, seconds)
            return wire.objects(self._newest(keys, question, COLUMNS, how="inner"))

    def ledger(self, *, org_id: str | None = None) -> pd.DataFrame:
        """List what an organization was charged, in order: ``creditTransactionId``, ``credits``, ``createdAt`` and the task."""
        owner = self.org_id if org_id is None else org_id
        charges = pd.concat([_NO_CHARGES, *self._ledger])
        return charges[charges.pop("orgId") == owner].reset_index(drop=True)

    def balance(self, *, org_id: str | None = None) -> float:
        """Give the credits that an organization has left."""
        return self._credits - self._spent.get(self.org_id if org_id is None else org_id, 0.0)

    def _prices(self, keys: pd.DataFrame) -> pd.Series[float]:
        return keys["field"].map(self._costs).fillna(1.0).astype(float)

    def lookup(self, tasks: Kind | ListOrPath, *, now: Instant = None, **options: Any) -> Kind:
        """Answer as any store does (see `EnrichmentStore.lookup`), at the instant of its own clock unless `now` is given."""
        with self._advancing:
            self._advance()
        return super().lookup(tasks, now=self._now() if now is None else now, **options)

    def lookup_to(self, tasks: Any, output: Any, *, now: Instant = None, **options: Any) -> LookupReport:
        """Answer as any store does (see `EnrichmentStore.lookup_to`), at the instant of its own clock unless `now` is given."""
        with self._advancing:
            self._advance()
        return super().lookup_to(tasks, output, now=self._now() if now is None else now, **options)

    def query(self, body: Any, *, org_id: str | None = None, now: Instant = None) -> list[dict[str, Any]]:
        """Answer as any store does (see `EnrichmentStore.query`), at the instant of its own clock unless `now` is given."""
        return super().query(body, org_id=org_id, now=self._now() if now is None else now)

    def records(self, *columns: Any, **options: Any) -> pa.Table:
        """Give all records as they are at the instant of its own clock (see `EnrichmentStore.records`)."""
        with self._advancing:
            self._advance()
        return super().records(*columns, **options)

    def _look_up(self, tasks: Kind | ListOrPath, question: pa.Table, **options: Any) -> Kind:
        with self._advancing:
            self._advance()
        return super()._look_up(tasks, question, **options)

    def _now(self) -> datetime:
        return self._at(self._clock() - self._start)

    def _at(self, seconds: float) -> datetime:
        return self._origin + timedelta(seconds=seconds)

    def _advance(self) -> float:
        """Load what has ended by now, and give that in seconds since the start; for whoever holds the lock."""
        seconds = self._clock() - self._start
        due = int(np.searchsorted(self._seconds, seconds, side="right"))
        if due:
            self.load(self._ends.iloc[:due])
            self._ends, self._seconds = self._ends.iloc[due:], self._seconds[due:]
        return seconds

    def _keys(self, tasks: Any, org_id: str | None, at: datetime) -> pd.DataFrame:
        """Read tasks: each once, with the id, the name that decides its fate and the ``createdAt`` of the record it would get now."""
        with self._cursor() as con:
            try:
                check(con, frames.read(tasks))
            except ValidationError as error:
                if error.problems is None:
                    raise
                raise ValidationError.of_rows("tasks", error.problems, "Nothing was triggered. Fix them.") from None
            query = con.sql(_KEYS_SQL, params={"seed": str(self._seed), "org": org_id, "at": at.isoformat()})
            keys: pd.DataFrame = query.to_arrow_table().to_pandas()
            return keys

    def _newest(self, keys: pd.DataFrame, question: pa.Table, columns: Sequence[str], how: str) -> pa.Table:
        tasks = pa.Table.from_pandas(keys[list(KEY)], preserve_index=False)
        found = super()._look_up(tasks, question, columns=columns, how=how, errors="raise", prefix=PREFIX)
        return found.select([PREFIX + name for name in columns]).rename_columns(list(columns))

    def _begin(self, keys: pd.DataFrame, org_id: str | None, created_by: str, seconds: float) -> None:
        """Load new records, which are pending, and put their ends among those of the others."""
        if keys.empty:
            return
        pending = keys.assign(updatedAt=keys["createdAt"], status="pending", createdBy=created_by, orgId=org_id)
        pending["creditTransactionId"] = pending["id"]
        ends, lasting = _course(pending, self._seed, self._speed)
        self.load(pending)
        charged = pending.assign(credits=self._prices(pending))[list(_NO_CHARGES.columns)]
        self._ledger.append(charged)
        self._spent[org_id] += float(charged["credits"].sum())
        parts = [part for part in (self._ends, ends) if len(part)]
        times = np.concatenate([self._seconds, seconds + lasting])
        order = np.argsort(times, kind="stable")
        self._ends, self._seconds = pd.concat(parts).iloc[order] if parts else self._ends, times[order]


_NO_CHARGES = pd.DataFrame(
    {
        "creditTransactionId": pd.Series(dtype=str),
        "credits": pd.Series(dtype=float),
        "createdAt": pd.Series(dtype="datetime64[us, UTC]"),
        **{name: pd.Series(dtype=str) for name in (*KEY, "orgId")},
    }
)

# Of a task's first record id and fate are those of the task; each later one has its own. It begins after the one before, in whatever
# millisecond that began, for of two the newer wins.
_KEYS_SQL = f"""
with keys as ({DISTINCT_SQL}),

attempts as (
    select
        keys.entityId::varchar as entityId,
        keys.entityType::varchar as entityType,
        keys.field::varchar as field,
        first,
        count(enrichments.id) as attempt,
        max(enrichments.createdAt) as last
    from keys
    left join enrichments
        on enrichments.orgId = $org
        and enrichments.entityId = keys.entityId
        and enrichments.entityType = keys.entityType
        and enrichments.field = keys.field
    group by all
),

named as (
    select *, entityId || entityType || field || case when attempt > 0 then '#' || attempt else '' end as name from attempts
)

select
    entityId,
    entityType,
    field,
    name,
    md5($seed || name)::uuid::varchar as id,
    date_trunc('millisecond', greatest($at::timestamptz, last + interval 1 millisecond)) as createdAt
from named
order by first
"""  # noqa: S608  of a constant


def _course(pending: pd.DataFrame, seed: int, speed: float) -> tuple[pd.DataFrame, npt.NDArray[np.float64]]:
    """Decide what becomes of new records: those that end, as they will be then, and after how many seconds."""
    name = pending["name"]
    profile = pending["field"].map(lambda field: PROFILES.get(field, PROFILES["summary"]))
    normal = np.sqrt(-2 * np.log(_draw(name, seed, "a"))) * np.cos(2 * np.pi * _draw(name, seed, "b"))
    seconds = profile.str[0].to_numpy(dtype=float) * np.exp(SIGMA * normal) / speed
    found = _draw(name, seed, "c") < profile.str[1].to_numpy(dtype=float)
    fate = _draw(name, seed, "d")
    failed = fate < FAILS
    ends = pending.assign(
        # later than the start, however fast: of two versions of a record the newer one counts
        updatedAt=pending["createdAt"] + np.ceil(seconds * 1e3).astype("timedelta64[ms]"),
        status=np.where(failed, "failed", "finished"),
        error=pd.Series("The provider did not answer.", pending.index).where(failed),
        dataFound=found & ~failed,
    )
    ending = fate < 1 - NEVER
    return ends[ending], seconds[ending]


def _draw(names: pd.Series[str], seed: int, salt: str) -> npt.NDArray[np.float64]:
    """Draw evenly from between 0 and 1: for the same name, seed and salt the same."""
    drawn = pd.util.hash_array((names + salt).to_numpy(dtype=object), hash_key=f"{seed:016d}"[-16:])
    return (drawn.astype(np.float64) + 1) / 2.0**64
