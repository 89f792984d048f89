"""A poll in the background, which can be started, paused, hurried and stopped, and shows its progress at any time."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from enrichstatus.errors import EnrichStatusError, PartialLookupError, PollDeadline, PollInterrupted
from enrichstatus.lookup.calls.sharing import identity
from enrichstatus.lookup.lazy import lazy
from enrichstatus.lookup.query import Source
from enrichstatus.outcomes import LABELS
from enrichstatus.polling.poll import updates
from enrichstatus.polling.run import Duration, Run
from enrichstatus.polling.schedules import Ask
from enrichstatus.polling.update import Update
from enrichstatus.schema import KEY
from enrichstatus.survival import Outlook

Phase: TypeAlias = Literal["ready", "asking", "waiting", "paused", "stopped", "done", "deadline", "failed"]
Wish: TypeAlias = Literal["run", "pause", "stop"]
#: In these phases no request is made until somebody starts the poll again.
OVER: tuple[Phase, ...] = ("stopped", "done", "deadline", "failed")
#: These it has reached by itself.
ENDED: tuple[Phase, ...] = ("done", "deadline", "failed")

_IDLE: dict[Wish, Phase] = {"pause": "paused", "stop": "stopped"}

#: Seconds between two looks at a countdown.
_TICK = 1.0
#: Points of the picture that are kept, and changes that are listed.
_POINTS, _CHANGES = 250, 8


@dataclass
class Progress:
    """The progress of a poll: all that a dashboard shows of it.

    Attributes
    ----------
    phase : str
        What it does: one of `Phase`.
    wanted : str
        What it does next, once a request under way has ended: ``run``, ``pause`` or ``stop``.
    update : Update
        The last one; before the first request, what a store remembers.
    points : list of (float, int)
        The course until now: seconds, and rows that were settled.
    changes : deque of (datetime, dict, str)
        The latest rows that were settled, and what became of them, the newest first.
    next_in : float or None
        Seconds until the next request, while the poll waits for it.
    failure : Exception or None
        Why it ended before all had.
    replaced : bool
        Whether a newer one of the same source and tasks goes on in its place.
    blocked : bool
        Whether a cell waits for it, so that the kernel hears nothing else.
    elapsed : float
        Seconds since it began, or until it was over.
    answered : datetime or None
        When the last answer came.
    """

    update: Update
    phase: Phase = "ready"
    wanted: Wish = "pause"
    points: list[tuple[float, int]] = field(default_factory=list)
    changes: deque[tuple[datetime, dict[str, Any], str]] = field(default_factory=lambda: deque(maxlen=_CHANGES))
    next_in: float | None = None
    failure: Exception | None = None
    replaced: bool = False
    blocked: bool = False
    elapsed: float = 0.0
    answered: datetime | None = None


class Watch:
    """Polls in a thread, which lives only while there is something to wait for; a pause, a stop and the end let it go.

    `changed` is called, from any thread, whenever there is something new to show; the options are those of `Run`.
    """

    def __init__(
        self,
        source: Source,
        tasks: Any,
        *,
        schedule: Iterable[float | Ask] | None = None,
        deadline: Duration | None = None,
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[], object] = lambda: None,
        **options: Any,
    ):
        self._make: Callable[[], Run] = lambda: Run(source, tasks, clock=clock, **options)
        self._schedule, self._deadline, self._clock = schedule, deadline, clock
        self._changed = changed
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self._hurry = False
        self._source = identity(source)
        #: how many wait for its end, and when it was last started among all
        self._waiting, self.turn = 0, 0
        #: whether a newer one of the same tasks has begun, so that this one ends with the last that waits for it
        self._outdated = False
        #: what shows it
        self.board: object = None
        self._began = clock()
        self._begin()
        with _LOCK:
            _WATCHES.add(self)

    def _begin(self) -> None:
        """Make a run; it raises what is wrong with the arguments."""
        run = self._make()
        self.tasks = run.tracker.tasks
        self.__dict__.pop("question", None)
        # this object waits itself, so the poll must not
        self._updates: Generator[Update, Ask | None] = updates(
            run, self._schedule, self._deadline, lambda seconds: None
        )
        #: what is requested next, instead of what the schedule says
        self._instead: Ask | None = None
        #: when the next request is due, and before when the service wants none
        self._due = self._earliest = -math.inf
        update = run.update(Outlook({}), None, None)
        self.progress = Progress(update, points=[(0.0, update.settled)])

    @lazy
    def question(self) -> bytes:
        """Tell its tasks from others, in whatever order they are."""
        hashes = np.sort(pd.util.hash_pandas_object(self.tasks[list(KEY)], index=False).to_numpy())
        return blake2b(hashes.tobytes()).digest()

    @property
    def runs(self) -> bool:
        """Whether it polls, or waits to."""
        return self.progress.phase in ("asking", "waiting")

    def look(self) -> Progress:
        """Give a copy of the progress, which later updates do not change."""
        with self._news:
            if self.runs:
                self.progress.elapsed = max(self.progress.update.elapsed, self._clock() - self._began)
            return replace(self.progress, points=self.progress.points.copy(), changes=self.progress.changes.copy())

    def start(self) -> None:
        """Begin, or go on: after a pause or a stop where it was, after a deadline or a failure with all that has not ended."""
        with self._news:
            if self.progress.phase == "done":
                return
            if self.progress.phase in ("deadline", "failed"):
                self._begin()
            if self.progress.phase not in ("asking", "waiting"):
                self.progress.phase = "waiting"
            self.progress.replaced = self._outdated = False
            if not self.progress.update.requests:
                self._began = self._clock()
            self._go(wanted="run")
            under_way = self.progress.phase == "asking"
        if under_way:  # until its answer comes nothing else would show that the pause was taken back
            self._changed()
        with _LOCK:
            self.turn = next(_TURNS)
            others = [one for one in _WATCHES if one.turn < self.turn and one._source == self._source]
        for other in others:
            if other.question == self.question:
                other._give_way()

    def _give_way(self) -> None:
        """Stop, as a newer one has begun to poll the same tasks; once nobody waits for this one."""
        with self._news:
            self._outdated = True
            if self._waiting:
                return
            self.progress.replaced = True
        if self.progress.phase in ENDED:
            self._changed()
        else:
            self._go_slow("stop")

    def ask_now(self) -> None:
        """Send a request without waiting, unless the service wants none yet; what is paused or stopped stays so afterwards."""
        with self._news:
            if self.progress.phase in ("ready", "waiting", "paused", "stopped"):
                self._hurry = True
                self._go()

    def pause(self) -> None:
        """Send no more requests until it is started again; one under way is ended first."""
        self._go_slow("pause")

    def stop(self) -> None:
        """Pause, and let whoever waits for the end wait no longer."""
        self._go_slow("stop")

    def wait(self, timeout: float | None = None) -> Update | None:
        """Block until it is over, or for so many seconds; gives the last update, or None where it is not over."""
        if self.progress.phase == "ready":
            self.start()
        until = None if timeout is None else time.monotonic() + timeout
        with self._news:
            self._waiting += 1
        try:
            with self._news:
                while self.progress.phase not in OVER:
                    left = _TICK if until is None else min(_TICK, until - time.monotonic())
                    if left <= 0:
                        return None
                    self._news.wait(left)
        except KeyboardInterrupt as interrupt:
            self.stop()
            raise self._interrupted("interrupted") from interrupt
        finally:
            with self._news:
                self._waiting -= 1
                last = not self._waiting
            if last and self._outdated:
                self._give_way()
        if self.progress.failure is not None:
            raise self.progress.failure
        if self.progress.phase == "stopped":
            raise self._interrupted(
                "replaced by a newer one of the same tasks" if self.progress.replaced else "stopped"
            )
        return self.progress.update

    def _go(self, wanted: Wish | None = None) -> None:
        """Make sure that a thread is at work; the caller holds the lock."""
        self.progress.wanted = wanted or self.progress.wanted
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name="enrichstatus-poll")
            self._thread.start()
        self._news.notify_all()

    def _go_slow(self, wanted: Wish) -> None:
        with self._news:
            if self.progress.phase in ENDED:
                return
            self.progress.wanted, self._hurry = wanted, False
            if self._thread is None:  # no thread is there that would change the phase
                self.progress.phase = _IDLE[wanted]
            self._news.notify_all()
        self._changed()

    def _interrupted(self, how: str) -> PollInterrupted:
        update = self.progress.update
        return PollInterrupted(
            f"The poll was {how}; {update.settled:,} of {update.total:,} tasks were settled. .update has the last state; start() "
            "goes on.",
            update,
        )

    def _work(self) -> None:
        """Wait and send requests, until nothing is left to wait for."""
        try:
            while self._due_now():
                self._take(self._updates.send(self._instead))
        except StopIteration:
            self._leave("done")
        except PollDeadline as late:
            self._leave("deadline", late)
        except Exception as error:
            self._leave("failed", error)

    def _due_now(self) -> bool:
        """Wait until the next request is due; gives False, and lets the thread go, where none is to be sent any more."""
        while True:
            with self._news:
                progress = self.progress
                if progress.wanted != "run" and not self._hurry and not progress.update.done:
                    # under one lock: whoever starts it again finds either a thread that stays or none
                    self._thread = None
                    progress.phase, progress.next_in = _IDLE[progress.wanted], None
                    self._news.notify_all()
                    due = False
                    break
                left = (self._earliest if self._hurry else self._due) - self._clock()
                if left <= 0:
                    # a person wants all tasks requested, not the schedule's share; the first request is for all anyway
                    self._instead = Ask(0.0) if self._hurry and progress.update.requests else None
                    self._hurry = False
                    due = True
                    progress.phase, progress.next_in = "asking", None
                    break
                progress.phase, progress.next_in = "waiting", left
            self._changed()
            with self._news:
                self._news.wait(min(_TICK, left))
        self._changed()
        return due  # and not the phase, which another thread may have changed

    def _take(self, update: Update) -> None:
        now, today = self._clock(), datetime.now().astimezone()
        with self._news:
            progress = self.progress
            progress.update, progress.elapsed = update, update.elapsed
            if update.requests and (update.error is None or isinstance(update.error, PartialLookupError)):
                progress.answered = today
            progress.points.append((update.elapsed, update.settled))
            if len(progress.points) > _POINTS:  # every other one is enough for a picture
                del progress.points[1:-1:2]
            progress.changes.extendleft((today, row, label) for row, label in _latest(update))
            self._due = now + (update.next_in or 0.0)
            self._earliest = now + update.held
            self._news.notify_all()

    def _leave(self, phase: Phase, failure: Exception | None = None) -> None:
        with self._news:
            self._thread, self._hurry = None, False
            self.progress.wanted = "pause"
            self.progress.phase, self.progress.next_in, self.progress.failure = phase, None, failure
            self._news.notify_all()
        self._changed()

    def stay(self) -> None:
        """End the poll in a forked child: its thread goes on in the parent, and the inherited lock may be held."""
        self._news, self._thread = threading.Condition(), None
        self._changed = lambda: None  # the parent draws
        if self.progress.phase in ("asking", "waiting"):
            self.progress.phase, self.progress.wanted, self.progress.next_in = "failed", "pause", None
            self.progress.failure = EnrichStatusError(
                f"This poll goes on in process {os.getppid()}, from which this one was forked; start() begins another here."
            )


_WATCHES: weakref.WeakSet[Watch] = weakref.WeakSet()
_LOCK = threading.Lock()
_TURNS = itertools.count(1)


def running() -> list[Watch]:
    """List those that poll and are to go on, the one that was started last at the end."""
    with _LOCK:
        found = [watch for watch in _WATCHES if watch.runs and watch.progress.wanted == "run"]
    return sorted(found, key=lambda watch: watch.turn)


def _forked() -> None:
    global _LOCK
    _LOCK = threading.Lock()
    for watch in _WATCHES:
        watch.stay()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _latest(update: Update) -> list[tuple[dict[str, Any], str]]:
    """Give a few of the rows that were settled, as a person knows them, and what became of them."""
    which = np.flatnonzero(update.news)[-_CHANGES:]
    if not len(which):
        return []
    mask = np.zeros(len(update.news), dtype=bool)
    mask[which] = True
    rows: Any = update.rows(mask)
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(_arrow(rows).to_pandas())
    labels = np.array(list(LABELS))[update.labels()[mask[update.tracker.places]]]
    records: Any = frame.tail(_CHANGES).to_dict("records")
    return list(zip(records, labels[-_CHANGES:].tolist(), strict=True))


def _arrow(rows: Any) -> Any:
    import pyarrow as pa

    return pa.table(rows.collect() if hasattr(rows, "collect") else rows)
