"""The remote source: the service's batch status API, 200 tasks a request."""

from __future__ import annotations

import ipaddress
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import duckdb
import numpy as np
import pyarrow as pa

from enrichstatus import wire
from enrichstatus.errors import LookupInterrupted, PartialLookupError, ServiceError, UnauthorizedError, ValidationError
from enrichstatus.lookup import (
    LOOKUP_SQL,
    MAX_PROCESSING_TIME,
    Columns,
    Errors,
    How,
    Instant,
    PartialAnswer,
    look_up,
    parse_duration,
    parse_instant,
    parse_limits,
)
from enrichstatus.schema import FIELDS, SCHEMA
from enrichstatus.sources import answers
from enrichstatus.tasks import create_vocabularies, parse_fields

if TYPE_CHECKING:
    from enrichstatus.sources.transport import Outcome

#: With fewer batches nobody needs a progress bar.
_MANY_BATCHES = 20


class EnrichmentClient:
    """The remote enrichment service, asked like a store: any number of tasks, packed into full batches of 200.

    Parameters
    ----------
    base_url : str, optional
        Where the service is, without ``/api/v1/…``; from the environment's ``ENRICHSTATUS_BASE_URL`` unless given.
    token : str, optional
        The bearer token; from ``ENRICHSTATUS_TOKEN`` unless given. It is shown nowhere, pickled never, and sent to no other address.
    workers : int
        Requests in flight at once.
    timeout : (float, float)
        Seconds to connect, and seconds for the whole answer of one attempt.
    deadline : str, timedelta or seconds
        Bound on a whole call, repetitions and waits included.
    retries : int
        How often a batch is repeated after a lost connection, an unreadable answer, or status 429, 500, 502, 503 or 504.
    backoff : float
        Seconds before the first repetition, twice as long before each further, up to 30 s, less up to a half at random.
    max_retry_after : str, timedelta or seconds
        How long a ``Retry-After`` of the service is obeyed at most.
    allow_http : bool
        Send the token over plain http to another machine than this one.
    verify : bool or str
        Check the certificate (default), or the path of a bundle of authorities to check it with.
    fields : sequence of str
        The fields that the service knows.
    max_processing_time : str, timedelta, seconds, or a mapping of these by field
        Only used where ``lookup`` is given ``now=``: what the service reports as pending is a timeout when it is older.
    progress : bool, optional
        Show a progress bar; unless given, where many batches are asked in a notebook or at a terminal.

    Raises
    ------
    ValidationError
        An argument is unusable, or there is no base URL.
    UnauthorizedError
        There is no token.

    Examples
    --------
    >>> import enrichstatus as es
    >>> es.EnrichmentClient("https://api.example.com", token="secret")
    EnrichmentClient('https://api.example.com', workers=4)
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        workers: int = 4,
        timeout: tuple[float, float] | float = (5, 30),
        deadline: str | float | timedelta = "10min",
        retries: int = 5,
        backoff: float = 0.5,
        max_retry_after: str | float | timedelta = "60s",
        allow_http: bool = False,
        verify: bool | str = True,
        fields: Sequence[str] = FIELDS,
        max_processing_time: str | float | timedelta | Mapping[str, str | float | timedelta] = MAX_PROCESSING_TIME,
        progress: bool | None = None,
    ):
        from enrichstatus.sources.transport import Bearer, Settings, Transport  # HTTP, which a store never needs

        self.base_url, loopback = _address(base_url, allow_http=allow_http)
        self.fields = parse_fields(fields)
        self._limits = parse_limits(max_processing_time, self.fields)
        self._progress = progress
        connect, read = timeout if isinstance(timeout, (tuple, list)) and len(timeout) == 2 else (timeout, timeout)
        settings = Settings(
            url=self.base_url + wire.PATH,
            connect=_number("timeout", connect),
            read=_number("timeout", read),
            deadline=parse_duration(deadline, "deadline").total_seconds(),
            retries=int(_number("retries", retries, least=0, whole=True)),
            backoff=_number("backoff", backoff, least=0),
            max_retry_after=parse_duration(max_retry_after, "max_retry_after").total_seconds(),
            workers=int(_number("workers", workers, least=1, whole=True)),
            verify=verify,
            loopback=loopback,
        )
        self._transport = Transport(settings, Bearer(_token(token)))
        #: for a copy in another process, which has its own token
        self._arguments = {
            "base_url": base_url,
            "workers": workers,
            "timeout": timeout,
            "deadline": deadline,
            "retries": retries,
            "backoff": backoff,
            "max_retry_after": max_retry_after,
            "allow_http": allow_http,
            "verify": verify,
            "fields": fields,
            "max_processing_time": max_processing_time,
            "progress": progress,
        }
        # answers are put beside their tasks by the query that all sources share
        self._con = duckdb.connect()
        self._con.execute("set global TimeZone = 'UTC'")
        create_vocabularies(self._con, self.fields)

    def lookup(
        self,
        tasks: Any,
        *,
        columns: Columns = ("status", "dataFound"),
        how: How = "left",
        errors: Errors = "raise",
        now: Instant = None,
        prefix: str = "",
    ) -> Any:
        """Answer tasks of any number with the same frame and the asked columns; row *i* is task *i*.

        Parameters
        ----------
        tasks, columns, how, errors, prefix
            As for `EnrichmentStore.lookup`. Tasks that are the same are asked once.
        now : datetime or str, optional
            The service judges the timeout rule by its own clock. Where `now` is given, what it reports as pending is judged here too,
            at that instant.

        Returns
        -------
        A frame of the same kind, with the dtypes of `EnrichmentStore.lookup`.

        Raises
        ------
        ValidationError
            Bad tasks (all are in its ``.problems``), an unusable argument, or a request that the service refused.
        UnauthorizedError
            The service refused the token.
        PartialLookupError
            Some batches failed for good; ``.result`` has the rows that were answered, ``.failed`` the others.
        InternalError, ServiceError
            All failed.
        LookupInterrupted
            Ctrl-C; it has ``.result`` and ``.failed`` too.
        """
        moment = None if now is None else parse_instant(now)
        since = [None if moment is None else moment - limit for limit in self._limits.values()]
        limits = pa.table(
            {"field": pa.array(self._limits, pa.string()), "pendingSince": pa.array(since, pa.timestamp("us", "UTC"))}
        )
        with self._con.cursor() as con:
            return look_up(
                con,
                tasks,
                lambda names, count: self._answer(con, limits, names),
                columns=columns,
                how=how,
                errors=errors,
                prefix=prefix,
            )

    def query(self, body: Any) -> list[dict[str, Any]]:
        """Send one request of the contract, of 1 to 200 tasks, and give the service's answer.

        Parameters
        ----------
        body : dict
            ``{"tasks": [{"entityId": …, "field": …, "entityType": …}]}``.

        Returns
        -------
        list of dict
            Enrichment objects as the service wrote them, checked.

        Raises
        ------
        ValidationError, UnauthorizedError, InternalError, ServiceError
            As for `lookup`.
        """
        wire.tasks_of(body)
        outcome = self._transport.post([json.dumps(body)], answers.objects, lambda place: None)
        if outcome.interrupted:
            raise KeyboardInterrupt
        for error in outcome.failed.values():
            raise error
        return outcome.answered[0]

    def close(self) -> None:
        """Close the connections that are kept for the next call."""
        self._transport.close()
        self._con.close()

    def __enter__(self) -> EnrichmentClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"EnrichmentClient({self.base_url!r}, workers={self._transport.settings.workers})"

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], EnrichmentClient], tuple[dict[str, Any]]]:
        return _again, (self._arguments,)

    def _answer(self, con: duckdb.DuckDBPyConnection, limits: pa.Table, names: Sequence[str]) -> pa.Table:
        """Have the checked tasks answered by the service, and ask the query of what it answered."""
        con.execute(_BATCHES_SQL)
        bodies = [body for (body,) in con.execute(_BODIES_SQL).fetchall()]
        with self._bar(con, len(bodies)) as advance:
            outcome = self._transport.post(bodies, answers.table, advance)
        batches = [
            records.append_column("batch", pa.array(np.full(records.num_rows, place)))
            for place, records in outcome.answered.items()
        ]
        nothing = SCHEMA.append(pa.field("batch", pa.int64())).empty_table()
        con.register("answered", pa.concat_tables([nothing, *batches]))
        con.execute(_RECEIVED_SQL)
        for place, entity in con.execute(_STRANGERS_SQL).fetchall():
            del outcome.answered[place]
            outcome.failed[place] = ServiceError(
                f"The service answered with an enrichment of {entity[:60]!r} that was not asked for in its batch.", 200
            )
        con.register("given_up", pa.table({"batch": pa.array(outcome.failed, pa.int64())}))
        con.register("records", con.sql("select * exclude batch from received where batch not in (from given_up)"))
        con.register("limits", limits)
        con.execute("create temp table asker as select distinct orgId, limits.* from records, limits")
        table = con.sql(LOOKUP_SQL).to_arrow_table()
        if "orgId" in names:
            unknown = pa.compute.equal(table["orgId"], "")
            column = pa.compute.if_else(unknown, pa.scalar(None, pa.string()), table["orgId"])
            table = table.set_column(table.column_names.index("orgId"), "orgId", column)
        if len(outcome.answered) < len(bodies):
            con.register("reached", pa.table({"batch": pa.array(outcome.answered, pa.int64())}))
            self._give_up(con, outcome, table.select(["position", *names]))
        return table.select(["position", *names])

    def _give_up(self, con: duckdb.DuckDBPyConnection, outcome: Outcome[pa.Table], table: pa.Table) -> None:
        """Raise what is due where not all batches were answered."""
        causes = [outcome.failed[place] for place in sorted(outcome.failed)]
        if not outcome.answered and not outcome.interrupted:
            raise causes[0]
        lost = con.sql(_LOST_SQL).to_arrow_table()["position"].to_numpy()

        def error(result: Any, failed: Any) -> BaseException:
            if outcome.interrupted:
                text = f"The lookup was interrupted; .failed has the {len(lost):,} tasks that were not answered."
                return LookupInterrupted(text, result, failed)
            text = (
                f"{len(lost):,} tasks were not answered; they are in .failed, the answered ones in .result. {causes[0]}"
            )
            return PartialLookupError(text, result, failed, causes)

        raise PartialAnswer(table, lost, error) from (causes[0] if causes else None)

    def _bar(self, con: duckdb.DuckDBPyConnection, batches: int) -> AbstractContextManager[Callable[[int], None]]:
        shown = self._progress
        if shown is None:
            shown = batches >= _MANY_BATCHES and ("ipykernel" in sys.modules or sys.stderr.isatty())
        if not shown:
            return nullcontext(lambda place: None)
        return _Bar(con.execute("select count(*) from keys").fetchall()[0][0], batches)


class _Bar:
    """A progress bar over tasks, told of batches."""

    def __init__(self, tasks: int, batches: int):
        from tqdm.auto import tqdm

        self._tasks, self._batches = tasks, batches
        self._tqdm = tqdm(total=tasks, unit="task", desc="enrichment status")

    def __enter__(self) -> Callable[[int], None]:
        return self._advance

    def __exit__(self, *exception: object) -> None:
        self._tqdm.close()

    def _advance(self, place: int) -> None:
        last = place == self._batches - 1
        self._tqdm.update(self._tasks - place * wire.BATCH_SIZE if last else wire.BATCH_SIZE)


_BATCHES_SQL = f"""
create temp table keys as
select
    entityId, entityType, field,
    (row_number() over (order by min(position)) - 1) // {wire.BATCH_SIZE} as batch,
    min(position) as first
from tasks
group by entityId, entityType, field
"""  # noqa: S608  of a constant

_BODIES_SQL = """
select to_json({'tasks': list({'entityId': entityId, 'field': field, 'entityType': entityType} order by first)})
from keys
group by batch
order by batch
"""

# An organization that the service does not name is one of its own, for the query needs one.
_RECEIVED_SQL = """
create temp table received as
select
    * replace (
        try_cast(trim(entityId) as uuid) as entityId,
        try_cast(entityType as enrichment_entity_type) as entityType,
        try_cast(field as enrichment_field) as field,
        coalesce(orgId, '') as orgId
    ),
    entityId as written
from answered
"""

_STRANGERS_SQL = """
select batch, any_value(written)
from received
where not exists (
    from keys
    where keys.entityId = received.entityId
        and keys.entityType = received.entityType
        and keys.field = received.field
        and keys.batch = received.batch
)
group by batch
"""

_LOST_SQL = """
select tasks.position
from tasks
inner join keys using (entityId, entityType, field)
where keys.batch not in (select reached.batch from reached)
order by tasks.position
"""


def _again(arguments: dict[str, Any]) -> EnrichmentClient:
    """Make a client anew where it was pickled, with the token of the environment there."""
    return EnrichmentClient(**arguments)


def _address(base_url: str | None, *, allow_http: bool) -> tuple[str, bool]:
    """Check the base URL; gives it without a slash at the end, and whether it is this machine's own."""
    text = os.environ.get("ENRICHSTATUS_BASE_URL") if base_url is None else base_url
    if not text:
        raise ValidationError(
            "There is no base_url=, nor ENRICHSTATUS_BASE_URL in the environment: where is the service?"
        )
    try:
        parts = urlsplit(text.strip()) if isinstance(text, str) else urlsplit("")
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https"):
        raise ValidationError('base_url= is an address such as "https://api.example.com"; what was given is none.')
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValidationError("base_url= has no user, password, query or fragment; the token goes in token=.")
    loopback = _is_loopback(host)
    if parts.scheme == "http" and not loopback and not allow_http:
        raise ValidationError(
            f"Over plain http to {host} everybody on the way could read the token. Use https, or pass allow_http=True."
        )
    return text.strip().removesuffix("/").removesuffix(wire.PATH), loopback


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _token(token: str | None) -> str:
    found = os.environ.get("ENRICHSTATUS_TOKEN") if token is None else token
    if not found:
        raise UnauthorizedError("There is no token=, nor ENRICHSTATUS_TOKEN in the environment.")
    if not isinstance(found, str) or not found.isascii() or not found.isprintable() or " " in found:
        raise ValidationError(
            "token= is text of printable ASCII without white space; what was given has other characters in it "
            "(a line end from a file, perhaps: token.strip() takes it off)."
        )
    return found


def _number(name: str, value: Any, *, least: float | None = None, whole: bool = False) -> float:
    kind: Any = int if whole else (int, float)
    fits = isinstance(value, kind) and not isinstance(value, bool)
    if not fits or not (value > 0 if least is None else value >= least) or value == float("inf"):
        bound = "above 0" if least is None else f"from {least:g}"
        raise ValidationError(f"{name}= takes {'whole numbers' if whole else 'numbers'} {bound}, not {value!r}.")
    return float(value)
