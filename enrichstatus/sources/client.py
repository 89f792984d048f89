"""The remote source: the service's batch status API, 200 tasks a request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from enrichstatus import frames
from enrichstatus.errors import LookupInterrupted, PartialLookupError, ServiceError
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
from enrichstatus.schema import FIELDS
from enrichstatus.sources import batches, replies
from enrichstatus.sources.settings import Settings, parse_address, parse_number, parse_token
from enrichstatus.tasks import check, create_vocabularies, parse_fields
from enrichstatus.wire import BATCH_SIZE, PATH, tasks_of

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
        #: for a copy in another process, which has a token of its own
        self._arguments = {name: value for name, value in locals().items() if name not in ("self", "token")}
        from enrichstatus.sources.session import Bearer
        from enrichstatus.sources.transport import Transport  # HTTP, which a store never needs

        self.base_url, loopback = parse_address(base_url, allow_http=allow_http)
        self.fields = parse_fields(fields)
        self._limits = parse_limits(max_processing_time, self.fields)
        self._progress = progress
        connect, read = timeout if isinstance(timeout, (tuple, list)) and len(timeout) == 2 else (timeout, timeout)
        settings = Settings(
            url=self.base_url + PATH,
            connect=parse_number("timeout", connect),
            read=parse_number("timeout", read),
            deadline=parse_duration(deadline, "deadline").total_seconds(),
            retries=int(parse_number("retries", retries, least=0, whole=True)),
            backoff=parse_number("backoff", backoff, least=0),
            max_retry_after=parse_duration(max_retry_after, "max_retry_after").total_seconds(),
            workers=int(parse_number("workers", workers, least=1, whole=True)),
            verify=verify,
            loopback=loopback,
        )
        self._transport = Transport(settings, Bearer(parse_token(token)))
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
        found: list[dict[str, Any]] = []

        def read(content: bytes) -> pa.Table:
            objects = replies.parse(content)
            records = replies.table(objects)
            found.extend(objects)
            return records

        with self._con.cursor() as con:
            check(con, frames.read(tasks_of(body)))
            outcome = self._ask(con, read)
        if outcome.interrupted:
            raise KeyboardInterrupt
        for error in outcome.failed.values():
            raise error
        return found

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
        outcome = self._ask(con, lambda content: replies.table(replies.parse(content)))
        con.register("reached", pa.table({"batch": pa.array(outcome.answered, pa.int64())}))
        con.register("records", con.sql("select * exclude batch from received where batch in (from reached)"))
        con.register("limits", limits)
        con.execute("create temp table asker as select distinct orgId, limits.* from records, limits")
        table = con.sql(LOOKUP_SQL).select("* replace (nullif(orgId, '') as orgId)").select("position", *names)
        if outcome.failed or outcome.interrupted:
            self._give_up(con, outcome, table.to_arrow_table())
        return table.to_arrow_table()

    def _ask(self, con: duckdb.DuckDBPyConnection, read: Callable[[bytes], pa.Table]) -> Outcome[pa.Table]:
        """Post the distinct tasks of the table ``tasks`` in full batches; what was answered comes to stand in ``received``."""
        bodies = batches.bodies(con)
        with self._bar(con, len(bodies)) as advance:
            outcome = self._transport.post(bodies, read, advance)
        for place, entity in batches.receive(con, outcome.answered).items():
            del outcome.answered[place]
            what = self._transport.hide(entity)[:60]
            outcome.failed[place] = ServiceError(
                f"The service answered with an enrichment of {what!r}, which its batch did not ask for.", 200
            )
        return outcome

    def _give_up(self, con: duckdb.DuckDBPyConnection, outcome: Outcome[pa.Table], table: pa.Table) -> None:
        """Raise what is due where not all batches were answered."""
        causes = [outcome.failed[place] for place in sorted(outcome.failed)]
        if not outcome.answered and not outcome.interrupted:
            raise causes[0]
        lost = batches.unanswered(con)

        def error(result: Any, failed: Any) -> BaseException:
            if outcome.interrupted:
                text = f"The lookup was interrupted; .failed has the {len(lost):,} tasks that were not answered."
                return LookupInterrupted(text, result, failed)
            text = (
                f"{len(lost):,} tasks were not answered; they are in .failed, the answered ones in .result. {causes[0]}"
            )
            return PartialLookupError(text, result, failed, causes)

        raise PartialAnswer(table, lost, error) from (causes[0] if causes else None)

    @contextmanager
    def _bar(self, con: duckdb.DuckDBPyConnection, count: int) -> Iterator[Callable[[int], object]]:
        """Show how many tasks have been answered; gives what is to be told the place of each batch."""
        shown = self._progress
        if shown is None:
            shown = count >= _MANY_BATCHES and ("ipykernel" in sys.modules or sys.stderr.isatty())
        if not shown:
            yield lambda place: None
            return
        from tqdm.auto import tqdm

        tasks: int = con.execute("select count(*) from keys").fetchall()[0][0]
        with tqdm(total=tasks, unit="task", desc="enrichment status") as bar:
            yield lambda place: bar.update(min(BATCH_SIZE, tasks - place * BATCH_SIZE))


def _again(arguments: dict[str, Any]) -> EnrichmentClient:
    """Make a client anew where it was pickled, with the token of the environment there."""
    return EnrichmentClient(**arguments)
