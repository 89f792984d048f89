"""The remote source: the service's batch status API, 200 tasks a request."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from enrichstatus.errors import EnrichStatusError
from enrichstatus.frames import frames
from enrichstatus.frames.frames import Kind, ListOrPath
from enrichstatus.lookup.arguments import MAX_PROCESSING_TIME, Columns, Errors, How, Instant, parse_fields, parse_limits
from enrichstatus.lookup.contract import BALANCE_PATH, tasks_of
from enrichstatus.lookup.query import look_up, timing_out
from enrichstatus.lookup.tasks import check, task_tables
from enrichstatus.schema import FIELDS, parse_statuses
from enrichstatus.sources.client import responses as replies
from enrichstatus.sources.client.answering import Answering
from enrichstatus.sources.client.config import Bearer, Request, parse_settings

if TYPE_CHECKING:
    from enrichstatus.sources.client.transport.transport import Outcome, Transport
    from enrichstatus.sources.client.trigger_report import TriggerReport


T = TypeVar("T")


class EnrichmentClient:
    """The remote enrichment service, looked up like a store: any number of tasks, packed into full batches of 200.

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
    deadline : str, timedelta or seconds, optional
        Bound on a whole call, repetitions and waits included. Unless given it is ten minutes, beyond the time that `rate` makes the
        call's requests take.
    retries : int
        How often a batch is repeated after a lost connection, an unreadable answer, or status 500, 502, 503 or 504. A refusal for a
        quota (429) is not counted: it is waited out until the deadline. Only with ``retries=0`` one that says when to come back is
        raised at once, with the seconds as ``.retry_after``.
    backoff : float
        Seconds before the first repetition, twice as long before each further, up to 30 s, less up to a half at random.
    max_retry_after : str, timedelta or seconds
        How long a ``Retry-After`` of the service is obeyed at most, or the ``RateLimit-Reset`` or ``X-RateLimit-Reset`` of a 429.
    rate : str, optional
        How many requests the client may make in any such time, ``"600/min"`` say; its threads share them. A copy in another process,
        forked or unpickled, counts its own.
    allow_http : bool
        Send the token over plain http to another machine than this one.
    verify : str, optional
        The path of a bundle (or a folder) of authorities to check the service's certificate with; unless given, those that are known.
        It is always checked.
    fields : sequence of str
        The fields that the service knows.
    statuses : mapping, optional
        What the service's own words for a status mean, ``{"in_progress": "pending", "COMPLETED": "finished"}``; see `EnrichmentStore`.
    max_processing_time : str, timedelta, seconds, or a mapping of these by field
        Only used where ``lookup`` is given ``now=``: what the service reports as pending is a timeout when it is older.
    progress : bool, optional
        Show a progress bar; unless given, where many batches are sent from a notebook or a terminal.

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
        token: str | Bearer | None = None,
        workers: int = 4,
        timeout: tuple[float, float] | float = (5, 30),
        deadline: str | float | timedelta | None = None,
        retries: int = 5,
        backoff: float = 0.5,
        max_retry_after: str | float | timedelta = "60s",
        rate: str | None = None,
        allow_http: bool = False,
        verify: str | os.PathLike[str] | bool | None = None,
        fields: Sequence[str] = FIELDS,
        statuses: Mapping[str, str] | None = None,
        max_processing_time: str | float | timedelta | Mapping[str, str | float | timedelta] = MAX_PROCESSING_TIME,
        progress: bool | None = None,
    ):
        bearer = Bearer(token)
        del token  # from here on nothing that shows the variables of a failed call can show it
        #: for a copy in another process, which has a token of its own
        self._arguments = {name: value for name, value in locals().items() if name not in ("self", "bearer")}
        settings = parse_settings(**self._arguments)
        self.base_url, self._settings, self._bearer, self._progress = settings.address, settings, bearer, progress
        self.fields, self._statuses = parse_fields(fields), parse_statuses(statuses)
        self._limits = parse_limits(max_processing_time, self.fields)
        bearer.check()
        #: by process: a forked child shares neither sockets nor locks with its parent
        self._transports: dict[int, Transport] = {}
        self._closed = False

    @property
    def max_processing_time(self) -> dict[str, timedelta]:
        """By field, for how long a record may be pending before it counts as ``timeout``."""
        return dict(self._limits)

    @property
    def requests(self) -> int:
        """How many requests it has made in this process, repetitions too."""
        return sum(transport.sent for transport in self._transports.values())

    def identity(self) -> Hashable:
        """Give what two clients have in common that get the same answers, for polls that share them."""
        words = tuple(sorted(self._statuses.items()))
        return self.base_url, self._bearer.digest(), self.fields, words, tuple(sorted(self._limits.items()))

    def service_time(self) -> float | None:
        """Give the seconds since 1970 by the service's clock; None until an answer had a ``Date``."""
        return self._transport().clock.now()

    def lookup(
        self,
        tasks: Kind | ListOrPath,
        *,
        columns: Columns = ("status", "dataFound"),
        how: How = "left",
        errors: Errors = "raise",
        now: Instant = None,
        prefix: str = "",
    ) -> Kind:
        """Give back any number of tasks, with the columns of the answer added; row *i* is task *i*.

        Parameters
        ----------
        tasks, columns, how, errors, prefix
            As for `EnrichmentStore.lookup`. Tasks that are the same are sent once.
        now : datetime or str, optional
            The service applies the timeout rule by its own clock. Where `now` is given, what it reports as pending is evaluated here too,
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
        answering = self._answering()
        timing_out(self._limits, now)  # refuses what is not an instant before anything is sent
        with ExitStack() as stack:
            lend = cache(lambda: stack.enter_context(task_tables(self.fields)))
            return look_up(
                lend,
                tasks,
                lambda names, count: answering.answer(lend(), now, names),
                at_once=lambda given, names: answering.answer_at_once(lend, now, given, names),
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
            records = replies.table(objects, self._statuses)
            found.extend(objects)
            return records

        answering = self._answering()
        with task_tables(self.fields) as con:
            check(con, frames.read(tasks_of(body)))
            _raise(answering.request(con, read))
        return found

    def balance(self) -> float:
        """Give the credits that the organization of the token has left; raises as `lookup` does, with 404 where there is no balance."""
        return self._request_one(None, replies.balance, Request(BALANCE_PATH))[0]

    def trigger(
        self,
        plan: Any,
        *,
        into: Any,
        max_credits: float | None = None,
        quote: Mapping[str, Any] | None = None,
        dry_run: bool = False,
        missing_after: str | float | timedelta = "10min",
        new_organization: bool = False,
        now: Instant = None,
        progress: bool | None = None,
    ) -> TriggerReport:
        """Buy what a plan says, request by request: the only call that spends credits, and never two times for one key.

        Before each request its tasks are written into the store as leases; the records of the answer replace them. A request is sent
        once: without an answer its tasks stay leased, ``in_flight`` for every plan over the store, until the next trigger has looked
        them up. Ctrl-C ends it between two requests.

        Parameters
        ----------
        plan : Plan
            What `enrichstatus.plan` gives, with ``costs=``; of persons, as companies have no trigger.
        into : EnrichmentStore
            The store of the organization, which has the leases and gets the records.
        max_credits : float
            What may be spent at most, by the prices of the plan; there is no default. A plan that costs more is refused.
        quote : mapping, optional
            The ``plan.quote`` that was signed off: a plan whose quote is another by now is refused.
        dry_run : bool
            Send nothing, and give the requests that would be sent.
        missing_after : str, timedelta or seconds
            How long after its request a leased task without a record is released, to be planned again.
        new_organization : bool
            Buy into a store that has records of other organizations only; a plan that was made with it need not say it again.

        Returns
        -------
        TriggerReport
            ``bought``, ``already`` (there, and not bought again), ``left``, ``in_flight``, ``released``, the ``credits`` by the prices
            of the plan, and ``charged``, by how much the balance fell.

        Raises
        ------
        ValidationError
            Nothing was bought: an argument is unusable, the limit too low, or the records are others than when it was planned.
        TriggerStopped, TriggerInterrupted
            The credits ended, a request failed, more than `max_credits` was charged, or Ctrl-C came; ``.report``, and of it ``.bought``,
            ``.left`` and ``.in_flight``, say how far it got.

        Warns
        -----
        ChargeWarning
            The balance fell by more than was planned, though not by more than `max_credits`.
        """
        from enrichstatus.sources.client.trigger import trigger

        return trigger(
            self,
            plan,
            into=into,
            max_credits=max_credits,
            quote=quote,
            dry_run=dry_run,
            missing_after=missing_after,
            new_organization=new_organization,
            now=now,
            progress=self._progress if progress is None else progress,
        )

    def close(self) -> None:
        """Close the connections that are kept for the next call; calls that are under way in other threads still end."""
        self._closed = True
        for process, transport in self._transports.items():
            _close(process, transport)

    def __enter__(self) -> EnrichmentClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if "_closed" not in vars(self):
            return "EnrichmentClient(not made)"
        state = "closed" if self._closed else f"workers={self._settings.workers}"
        return f"EnrichmentClient({self.base_url!r}, {state})"

    def __reduce__(self) -> tuple[Callable[[], EnrichmentClient], tuple[()]]:
        return partial(EnrichmentClient, **self._arguments), ()  # with the token of the environment there

    def _transport(self) -> Transport:
        """Give this process's connections."""
        from enrichstatus.sources.client.transport.transport import Transport  # HTTP, which a store never needs

        if self._closed:
            raise EnrichStatusError("The client is closed; make it again with EnrichmentClient(…).")
        process = os.getpid()
        if process not in self._transports:
            made = self._transports.setdefault(process, Transport(self._settings, self._bearer))
            # for a client that is dropped without having been closed
            weakref.finalize(self, _close, process, made).atexit = False
        return self._transports[process]

    def _answering(self) -> Answering:
        return Answering(self._transport(), self._bearer, self.fields, self._statuses, self._limits, self._progress)

    def _request_one(self, body: str | None, read: Callable[[bytes], T], request: Request) -> T:
        """Post one body, or get; gives what is read of the answer."""
        outcome = self._transport().post([body], read, lambda place: None, request)
        _raise(outcome)
        return outcome.answered[0]


def _raise(outcome: Outcome[Any]) -> None:
    """Raise what kept a single request from being answered."""
    if outcome.interrupted:
        raise KeyboardInterrupt
    for error in outcome.failed.values():
        raise error


def _close(process: int, transport: Transport) -> None:
    """Close the connections of this process; those of the one that it was forked from, whose locks may be held, are left alone."""
    if process == os.getpid():
        transport.close()
