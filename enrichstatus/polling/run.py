"""One poll's requests: to which source, for which tasks, what was answered and what it has cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from enrichstatus.errors import (
    EnrichStatusError,
    InternalError,
    LookupInterrupted,
    PartialLookupError,
    ServiceError,
    StoreError,
    ValidationError,
)
from enrichstatus.lookup.arguments import (
    MAX_PROCESSING_TIME,
    Columns,
    Errors,
    check_source,
    choice,
    parse_columns,
    parse_duration,
    parse_limits,
    parse_number,
)
from enrichstatus.lookup.calls.sharing import Member, Places, Round
from enrichstatus.lookup.contract import BATCH_SIZE
from enrichstatus.lookup.query import Source, patience
from enrichstatus.polling.resuming.state import restore
from enrichstatus.polling.resuming.token import Course
from enrichstatus.polling.schedules import Ask, Backoff
from enrichstatus.polling.tracker import ANSWER, Tracker
from enrichstatus.polling.update import Update, requests_for
from enrichstatus.progress import progress_is_shown
from enrichstatus.schema import COLUMNS, FIELDS
from enrichstatus.survival import Outlook

if TYPE_CHECKING:
    from enrichstatus.polling.resuming.memory import Memory
    from enrichstatus.sources.store.store import EnrichmentStore

#: With a memory, so many tasks are looked up at once: what is lost when the process is killed meanwhile is no more.
_KEPT_EVERY = 10 * BATCH_SIZE

Duration: TypeAlias = str | float | timedelta


@dataclass
class Pace:
    """How far a poll is in its schedule."""

    #: what is looked up next, and how long the wait before it is
    ask: Ask = field(default_factory=lambda: Ask(0.0))
    delay: float | None = None
    #: how many waits of the schedule are over, and how many requests in a row were not answered
    waits: int = 0
    failures: int = 0
    #: when the last answer came, in seconds since the start
    heard: float = 0.0

    def step(self, steps: Iterator[float | Ask]) -> None:
        """Take the schedule's next step; the last is repeated."""
        step = next(steps, Backoff().maximum if self.delay is None else self.delay)
        ask = step if isinstance(step, Ask) else Ask(step)
        # a user's own schedule may give anything
        self.ask = replace(ask, after=parse_number("schedule", ask.after, least=0, what="number of seconds"))
        self.delay, self.waits = self.ask.after, self.waits + 1

    def catch_up(self, steps: Iterator[float | Ask], waits: int) -> None:
        """Pass over steps of a schedule that are over."""
        for _ in range(waits):  # islice would begin a schedule anew
            if (step := next(steps, None)) is None:
                return
            self.delay = step.after if isinstance(step, Ask) else step


class Run:
    """One poll: its source, what it knows, and what it has spent."""

    def __init__(
        self,
        source: Source,
        tasks: Any,
        *,
        into: EnrichmentStore | None = None,
        missing_after: Duration = "60s",
        errors: Errors = "raise",
        prefix: str = "",
        columns: Columns = ("status", "dataFound"),
        beside: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        began: datetime | None = None,
    ):
        """Make a run that begins later, or that goes on, on a clock that gives the seconds since 1970, with one that `began` somewhere."""
        check_source(source)
        choice("errors", errors, ("raise", "coerce"))
        if into is not None and into is source:
            raise ValidationError("is the source itself; leave it out, or name another store.", argument="into")
        self._source, self._clock = source, clock
        self._resumed = began is not None
        self._start = clock() if began is None else began.timestamp()
        self._wall = datetime.now(UTC) if began is None else began
        self._requests = 0
        self._requested = 0
        #: when it gives up, in seconds from its start
        self.end: float | None = None
        self.pace = Pace()
        #: whose records are answered, as far as is known
        self.organization: str | None = getattr(source, "org_id", None)
        self.memory: Memory | None = None
        self._errors = errors
        self._missing_after = parse_duration(missing_after, "missing_after").total_seconds()
        self.tracker = Tracker(
            tasks,
            limits=_limits(source),
            errors=errors,
            prefix=prefix,
            missing_after=self._missing_after,
            wall=self._wall.timestamp(),
            columns=parse_columns(columns, (*COLUMNS, "reason")),
            beside=beside,
        )
        self._before: Tracker | None = None
        #: of each task when the last answer was requested, and when the last answer of all came; both on the clock
        self._sent = np.full(len(self.tracker.tasks), np.nan)
        self._came = -math.inf
        if into is not None:
            from enrichstatus.polling.resuming.memory import Memory

            self.memory = Memory(into)
            self.tracker.recall(
                self.memory.recall(self.tracker.tasks, self.tracker.others), self.memory.history(self.tracker.tasks)
            )
        names = frozenset((*(parse_columns("all") if self.memory else (*ANSWER, "orgId")), *self.tracker.others))
        self.member = Member(source, clock, self.tracker.tasks, names)

    def begin(self) -> None:
        """Count the time from now on; a run may have been made earlier than it begins."""
        self.member.join()
        if self._resumed:
            return
        passed = self.now()
        self._start += passed
        self._wall += timedelta(seconds=passed)
        self.tracker.shift(passed)

    def go_on(self, course: Course, known: dict[str, Any], *, requests: int) -> float:
        """Know what a token says: how the poll goes on, and what is known of its tasks.

        Gives by how many seconds our clock is behind the one of the machine before; the time is that one's then. What cannot be read
        raises `ValueError`, `TypeError` or `LookupError`.
        """
        if self.organization and course.organization not in (None, self.organization):
            raise _others()
        self.organization = course.organization or self.organization
        self._before = restore(self.tracker, known)
        self._requests, self.end = requests, course.end
        behind = max(course.at - self.now(), 0.0)
        self._start -= behind
        heard = course.heard if course.failures else self.now()
        self.pace = Pace(course.ask, None, course.waits, course.failures, heard)
        return behind

    def now(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    @property
    def answered(self) -> float:
        """When the last answer came, in seconds since the start."""
        return self._came - self._start

    def request(self, ask: Ask, *, fresh: float = 0.0) -> Exception | None:
        """Look up the unfinished tasks that `ask` names; gives the error if another request may not meet it.

        What another poll of the same source requests at the moment, or was answered in the last `fresh` seconds, is taken from it.
        """
        chosen = self.tracker.pick(ask.fields, ask.samples)
        self._requested, error = len(chosen), None
        places = chosen["task"].to_numpy(dtype=np.int64)
        if not len(places):
            self._came = self._clock()
        while len(places):
            taken, own = self.member.claim(places, self._sent[places], fresh)
            # first our own, so that nobody waits for whoever waits
            failed = self._request(own) if len(own.places) else None
            places = np.concatenate([[], *(self._receive(other, shared) for other, shared in taken)]).astype(np.int64)
            error = failed or next((other.error for other, _ in taken if other.error), None) or error
            if failed:
                break
        return error

    def _request(self, own: Round) -> Exception | None:
        """Send the requests of a round of our own."""
        chosen = self.tracker.tasks.iloc[own.places]
        size = len(chosen) if self.memory is None else _KEPT_EVERY
        error: Exception | None = None
        over = False
        try:
            for at in range(0, len(chosen), size):
                if error := self._look_up(chosen.iloc[at : at + size], own):
                    break
            over = True
        finally:
            self.member.finish(own, error, given_up=not over)
        return error

    def _receive(self, other: Round, places: Places) -> Places:
        """Take what another poll is answered; gives the places of which it learned nothing, and did not fail either."""
        given = self.member.receive(other, places, math.inf if self.end is None else self.end - self.now())
        if given is None:
            return places
        if given.answers is not None:
            answers = self._take(given.answers, given.sent - self._start, given.came - self._start)
            places = np.setdiff1d(places, answers["task"].to_numpy())
        return places if given.error is None else places[:0]

    def _look_up(self, tasks: pd.DataFrame, own: Round) -> Exception | None:
        self._requests += requests_for(len(tasks))
        sent = self.now()
        quiet = progress_is_shown.set(True)
        until = patience.set(math.inf if self.end is None else time.monotonic() + self.end - sent)
        try:
            answers = self._source.lookup(tasks, columns=tuple(sorted(own.names)))
        except PartialLookupError as error:
            own.answers.append(self._take(error.result, sent, self.now()))
            return error
        except LookupInterrupted as interrupt:
            self._take(interrupt.result, sent, self.now())
            raise
        except (ServiceError, InternalError, StoreError, OSError) as error:
            return error  # any other, such as that of a closed client, is not fixed by another request
        finally:
            progress_is_shown.reset(quiet)
            patience.reset(until)
        own.answers.append(self._take(answers, sent, self.now(), of=tasks))
        return None

    def _take(self, answers: pd.DataFrame, sent: float, came: float, of: pd.DataFrame | None = None) -> pd.DataFrame:
        """Note what was answered, and give it; a task `of` those looked up that is not among the answers has no record."""
        try:
            places = self.tracker.places_of(answers, COLUMNS if self.memory else ())
            self._check_organization(answers, places)
            if of is not None and len(of) > len(places):
                answers = pd.concat([answers, of[~of["task"].isin(places)]], ignore_index=True)
            self.tracker.absorb(answers, sent, came, ahead=self._ahead(came))
        except (pa.ArrowException, TypeError, ValueError, LookupError, AttributeError) as error:
            if isinstance(error, EnrichStatusError):
                raise
            raise EnrichStatusError(
                f"The source's lookup gave back what cannot be read ({type(error).__name__}: {error}): it gives the tasks as "
                "they came, with the columns added."
            ) from error
        self._sent[answers["task"].to_numpy(dtype=np.int64)] = self._start + sent
        self._came = max(self._came, self._start + came)
        if self.memory:
            at = self._wall + timedelta(seconds=came)
            self.memory.remember(answers, at, missing_after=self._missing_after)
        return answers

    def _check_organization(self, answers: pd.DataFrame, places: Places) -> None:
        """Note whose records are answered; a poll that goes on takes no other organization's."""
        if self.organization is not None and not self._resumed:
            return
        found: Any = answers["orgId"].dropna().unique() if "orgId" in answers else []
        if self.organization is None and len(found):
            self.organization = str(found[0])
        if self._resumed:
            if any(one != self.organization for one in found):
                raise _others()
            # a service that shows nothing of another organization shows none of the records that it has shown before
            if self.tracker.shown[places].any() and answers["status"].isna().all():
                raise _others(f", as it seems: none of the {len(answers):,} tasks looked up has a record any more")

    def _ahead(self, now: float) -> float | None:
        """Give the seconds that the service's clock is ahead of the poll's, if the source knows."""
        service_time = getattr(self._source, "service_time", None)
        there = service_time() if callable(service_time) else None
        return None if there is None else there - self._wall.timestamp() - now

    def last(self) -> Update:
        """Give the last update."""
        return self.update(self.tracker.outlook(self.now()), None, None)

    def update(self, outlook: Outlook, error: Exception | None, next_in: float | None, *, held: float = 0.0) -> Update:
        """Give an update of what is known now."""
        known = self.tracker.copy()
        news, self._before = known.settled_since(self._before), known
        done = not np.any(known.unfinished)
        now, pace = self.now(), self.pace
        course = Course(
            getattr(self._source, "base_url", None),
            self.organization,
            self._wall,
            self.end,
            self._missing_after,
            self._errors,
            pace.ask,
            None if next_in is None else now + next_in,
            pace.waits,
            pace.failures,
            pace.heard,
            now,
        )
        return Update(known, news, self._requests, now, next_in, outlook, error, held, self._requested, done, course)


def _others(why: str = "") -> ValidationError:
    return ValidationError(
        f"is of another organization than the source{why}. Give the source of the organization that the poll was begun with, or begin "
        "again with poll(…).",
        argument="token",
    )


def _limits(source: Source) -> dict[str, timedelta]:
    """Give by field of a source for how long a record may be pending."""
    fields = getattr(source, "fields", FIELDS)
    return parse_limits(getattr(source, "max_processing_time", MAX_PROCESSING_TIME), fields)
