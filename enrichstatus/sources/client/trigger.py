"""The only call that spends: what a plan buys, request by request, each key leased in a store before it is requested."""

from __future__ import annotations

import json
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.errors import (
    ChargeWarning,
    EnrichStatusError,
    ServiceError,
    TriggerInterrupted,
    TriggerStopped,
    ValidationError,
)
from enrichstatus.lookup.arguments import Instant, parse_duration, parse_flags, parse_instant, parse_number
from enrichstatus.lookup.calls.sharing import renew
from enrichstatus.lookup.contract import BALANCE_PATH, TRIGGER_PATH
from enrichstatus.presentation import credits_of, many, number
from enrichstatus.progress import Progress
from enrichstatus.schema import COLUMNS, KEY, listed
from enrichstatus.sources.client import responses as replies
from enrichstatus.sources.client.config import Request
from enrichstatus.sources.client.trigger_report import TriggerReport, tasks_of

if TYPE_CHECKING:
    from enrichstatus.sources.client.client import EnrichmentClient

T = TypeVar("T")

#: Never sent twice: whether a request that was not answered has bought is not known.
_TRIGGER = Request(TRIGGER_PATH, accepted=(200, 201, 202), repeated=False)
#: With these a service refuses before it buys anything, as what was sent, or where, or by whom, will not do. Others, such as 408, 409,
#: 429, or a redirect that may follow a purchase, leave it open.
_REFUSED = (307, 308, 400, 401, 402, 403, 404, 405, 410, 413, 414, 415, 422, 431)
#: A record that was created longer before its request was there already: so far the two clocks may be apart, if the service has told
#: us its time, and if it has not.
_APART, _UNKNOWN_APART = timedelta(seconds=5), timedelta(minutes=1)
_OPEN = "Whether it has bought is not known, so it is not repeated; the next trigger looks its tasks up first"
_WHY = "Either the service charges other prices than the plan has, or somebody else buys at the same time"


def trigger(
    client: EnrichmentClient,
    plan: Any,
    *,
    into: Any,
    max_credits: float | None,
    quote: Any,
    dry_run: bool,
    missing_after: str | float | timedelta,
    new_organization: bool,
    now: Instant,
    progress: bool | None,
) -> TriggerReport:
    """Buy what a plan says; see `EnrichmentClient.trigger`."""
    if not callable(getattr(plan, "purchases", None)):
        raise ValidationError(f"takes what es.plan(…) gives, not {type(plan).__name__}.", argument="plan")
    if not callable(getattr(into, "leasing", None)):
        raise ValidationError(f"takes an EnrichmentStore, not {type(into).__name__}.", argument="into")
    if max_credits is None:
        raise ValidationError("is missing: how many credits may this spend at most?", argument="max_credits")
    most = parse_number("max_credits", max_credits, least=0, what="number of credits")
    patience = parse_duration(missing_after, "missing_after")
    if now is not None:
        parse_instant(now)
    parse_flags(dry_run=dry_run, new_organization=new_organization)
    purchases: pa.Table = plan.purchases()
    _check(plan, most, quote)
    opened = into.leasing()
    if plan.org_id not in (None, opened.org_id):
        raise ValidationError(
            "is a store opened for another organization than the one whose records were planned with.", argument="into"
        )
    into.check_organization(new=new_organization or plan.new_organization)
    if dry_run:
        _refuse_changed(opened, purchases)
        none = tasks_of(purchases[:0])
        return TriggerReport(none, tasks_of(purchases), none, plan.cost, plan.to_trigger(), dry_run=True)
    with opened as leases:
        balance, organization = _balance(client)
        if organization not in (None, leases.org_id):
            raise ValidationError(
                f"is opened for {leases.org_id!r}, which is not the organization of the token: what is bought would not be seen "
                "there. Nothing was bought. Open the store for that organization.",
                argument="into",
            )
        moment = _moment(client, now)
        released = _recover(client, leases, moment, patience)
        _refuse_changed(leases, purchases)
        run = _Run(client, leases, purchases, most, now, released)
        with Progress.drawn("triggering", shown=progress, tasks=purchases.num_rows) as drawn:
            try:
                with run.holding_interrupts():
                    return run.buy(balance, drawn)
            except TriggerInterrupted:
                raise
            except KeyboardInterrupt as interrupt:
                text = f"interrupted, perhaps while a request was under way, which the next trigger looks up first: {run.report()}."
                raise TriggerInterrupted(text, run.report()) from interrupt
            finally:
                renew(client)


def _check(plan: Any, most: float, quote: Any) -> None:
    """Refuse what was not signed off, what has no price, what costs too much, and what the service has no trigger for."""
    if quote is not None and not _is_signed(quote, plan.quote):
        offered = plan.quote
        was = "something else"
        if isinstance(quote, dict) and all(isinstance(quote.get(one), (int, float)) for one in ("tasks", "credits")):
            was = f"{many(quote['tasks'], 'task')} for {credits_of(quote['credits'])}"
        raise ValidationError(
            f"was {was}; the plan is now {many(offered['tasks'], 'task')} for {credits_of(offered['credits'])}, with other tasks, prices "
            "or records, or for another organization. Nothing was bought. Have plan.quote signed off again.",
            argument="quote",
        )
    types, fields = (set(plan.purchases()[name].unique().to_pylist()) for name in ("entityType", "field"))
    if types - {"person"}:
        raise ValidationError(
            f"The plan buys for entities of the type {listed(sorted(types - {'person'}))}, for which the service documents no trigger. "
            "Leave them out of the list."
        )
    if unpriced := sorted(name for name in fields if name not in plan.prices and f"{name}/person" not in plan.prices):
        raise ValidationError(
            f"needs the price of {listed(unpriced)}, which the costs of the plan do not have.", argument="max_credits"
        )
    if plan.cost > most:
        raise ValidationError(
            f"is {number(most)}, and the plan costs {number(plan.cost)}. Nothing was bought. Plan with a budget.",
            argument="max_credits",
        )


def _is_signed(quote: Any, offered: Mapping[str, Any]) -> bool:
    """Whether a quote is what is offered; the plan of a service's client does not know for which organization."""
    if not isinstance(quote, Mapping):
        return False
    whose = quote.get("organization")
    return {**quote, "organization": offered["organization"] if whose is None else whose} == offered


def _refuse_changed(leases: Any, purchases: pa.Table) -> None:
    if changed := leases.changed(purchases):
        raise ValidationError(
            f"Of {changed:,} of the {purchases.num_rows:,} tasks to buy something else is recorded than when they were planned. "
            "Nothing was bought. Plan again."
        )


def _recover(client: EnrichmentClient, leases: Any, moment: datetime, patience: timedelta) -> pa.Table:
    """Look up what calls that are over have leased; gives what has no record in time, and is released to be planned anew."""
    lost = leases.lost()
    if not lost.num_rows:
        return lost
    names = [name for name in COLUMNS if name not in KEY]
    found = client.lookup(lost.select(KEY), columns=names, how="inner")
    _refuse_strangers(found, leases.org_id)
    released: pa.Table = leases.looked_up(found, lost, moment - patience)
    return released


class _Run:
    """The requests of one call, and what became of them."""

    def __init__(
        self, client: EnrichmentClient, leases: Any, purchases: pa.Table, most: float, now: Instant, released: pa.Table
    ):
        self._client, self._leases, self._purchases, self._most, self._now = client, leases, purchases, most, now
        self._released, self._waiting = released, leases.lost()
        # the last are those that were requested, and have no record in the answer
        parts: tuple[list[pa.Table], ...] = ([], [], [], [])
        self._bought, self._already, self._flying, self._missing = parts
        #: the first balance, and the last one; none where a request has been sent since
        self._first: float | None = None
        self._last: float | None = None
        self._sent: list[dict[str, Any]] = []
        self._interrupted = False

    @contextmanager
    def holding_interrupts(self) -> Iterator[None]:
        """Hold Ctrl-C back until no request is under way; only a second one is obeyed at once."""
        before = signal.getsignal(signal.SIGINT)  # Python's own, or that of Spark, asyncio, …
        if threading.current_thread() is not threading.main_thread() or not callable(before):
            yield  # Ctrl-C does not come here
            return

        def interrupt(number: int, frame: FrameType | None) -> None:
            if self._interrupted:
                before(number, frame)
            self._interrupted = True

        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def buy(self, balance: float | None, drawn: Progress) -> TriggerReport:
        self._first = self._last = balance
        for batch in self._purchases["batch"].unique():
            wanted = self._purchases.filter(pc.equal(self._purchases["batch"], batch))
            if self._interrupted:
                raise TriggerInterrupted(f"interrupted between two requests: {self.report()}.", self.report())
            if self._sent and balance is not None:
                self._last = balance = self._keeping(lambda: _balance(self._client)[0])
            price = pc.sum(wanted["cost"]).as_py()
            if balance is not None and price > balance:
                self._stop(f"The balance is {number(balance)}, and the next request costs {number(price)}")
            charged = self.report().charged
            if charged is not None and charged + price > self._most:
                together = f"together more than the limit of {number(self._most)}"
                self._stop(f"{self._fell()}, and the next request costs {number(price)}: {together}. {_WHY}")
            moment = _moment(self._client, self._now)
            leased = self._leases.take(wanted, moment)
            self._flying.append(_without(wanted, leased))
            if leased.num_rows:
                self._request(leased, moment)
            drawn.add(wanted.num_rows)
        if self._sent and balance is not None:
            with suppress(EnrichStatusError):  # all is bought; what it cost is then not known
                self._last = _balance(self._client)[0]
        report = self.report()
        if report.overcharged and (report.charged or 0) > self._most:
            self._stop(f"{self._fell()}, and the limit is {number(self._most)}. {_WHY}")
        if report.overcharged:
            warnings.warn(f"{self._fell()}. {_WHY}.", ChargeWarning, stacklevel=4)
        return report

    def _fell(self) -> str:
        report = self.report()
        return f"The balance fell by {number(report.charged)}, where {number(report._planned)} were to be spent"

    def _request(self, leased: pa.Table, moment: datetime) -> None:
        """Send one request, once; its records replace the leases."""
        body = {"personIds": leased["entityId"].to_pylist(), "field": leased["field"][0].as_py()}
        self._sent.append(body)
        self._flying.append(leased)
        before, self._last = self._last, None
        began = _moment(self._client, None)
        try:
            read = partial(replies.read, statuses=self._client._statuses)
            records = self._client._request_one(json.dumps(body), read, _TRIGGER)
        except EnrichStatusError as error:
            if getattr(error, "http_status", None) in _REFUSED:
                self._flying.pop()
                self._last = before
                self._leases.refused(leased)
                self._stop(f"The service refused a request: {error}", error)
            what = "was not answered" if getattr(error, "http_status", None) is None else "went wrong"
            self._stop(f"A request {what}: {str(error).removesuffix('.')}. {_OPEN}", error)
        self._keeping(lambda: _refuse_strangers(records, self._leases.org_id))
        known = self._now is not None or self._client.service_time() is not None
        # `now` may be any instant, a later one too
        earlier = min(moment, began) - (_APART if known else _UNKNOWN_APART)
        answer = self._keeping(lambda: self._leases.answered(records, leased, earlier))
        self._flying[-1] = answer.missing
        self._missing.append(answer.missing)
        self._bought.append(answer.bought)
        self._already.append(answer.already)
        if answer.strangers:
            strange = many(answer.strangers, "record")
            self._stop(f"The service answered a request with {strange} of other tasks. {_OPEN}")
        if answer.missing.num_rows == leased.num_rows:
            self._stop(f"The service answered a request of {many(leased.num_rows, 'task')} without any record. {_OPEN}")

    def _keeping(self, work: Callable[[], T]) -> T:
        """Do something whose failure must not hide what was bought."""
        try:
            return work()
        except EnrichStatusError as error:
            self._stop(str(error), error)
            raise

    def _stop(self, why: str, error: EnrichStatusError | None = None) -> None:
        report = self.report()
        raise TriggerStopped(f"{why.removesuffix('.')}. {report}.", report) from error

    def report(self) -> TriggerReport:
        bought, already, flying, missing = (
            pa.concat_tables([self._purchases[:0], *parts])
            for parts in (self._bought, self._already, self._flying, self._missing)
        )
        left = _without(_without(_without(self._purchases, bought), already), flying)
        spent, open_ = (float(pc.sum(part["cost"]).as_py() or 0) for part in (bought, missing))
        in_flight = pd.concat([tasks_of(flying), tasks_of(self._waiting)])
        return TriggerReport(
            tasks_of(bought),
            tasks_of(left),
            in_flight.drop_duplicates(ignore_index=True),
            spent,
            self._sent,
            already=tasks_of(already),
            released=tasks_of(self._released),
            charged=None if self._first is None or self._last is None else self._first - self._last,
            _planned=spent + open_,
            _kept=already.num_rows - already["createdAt"].null_count,
        )


def _balance(client: EnrichmentClient) -> tuple[float | None, str | None]:
    """Get the credits that are left, and whose they are; nothing of a service that does not say."""
    try:
        return client._request_one(None, replies.balance, Request(BALANCE_PATH))
    except ServiceError as error:
        if error.http_status != 404:
            raise
        return None, None


def _moment(client: EnrichmentClient, now: Instant) -> datetime:
    """Give the instant by the service's clock, in whole milliseconds as records have them."""
    seconds = client.service_time() if now is None else None
    moment = parse_instant(now) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _refuse_strangers(records: pa.Table, org_id: str) -> None:
    if set(filter(None, records["orgId"].unique().to_pylist())) - {org_id}:
        raise ValidationError(
            f"is opened for {org_id!r}, and the service answered with records that are not its own: open the store for the organization "
            "of the token.",
            argument="into",
        )


def _without(purchases: pa.Table, others: pa.Table) -> pa.Table:
    return purchases.filter(pc.invert(pc.is_in(purchases["position"], others["position"].combine_chunks())))
