"""What a poll reports after each request: all tasks as they are now, what has changed, and what to expect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from enrichstatus.errors import PartialLookupError
from enrichstatus.files.results import jsonable
from enrichstatus.lookup.contract import BATCH_SIZE
from enrichstatus.lookup.lazy import lazy
from enrichstatus.outcomes import LABELS, OUTCOMES, outcome
from enrichstatus.polling.resuming.token import Course, write
from enrichstatus.polling.tracker import NO_RECORD, Tracker
from enrichstatus.presentation import duration, many, of_unknown_status, plain
from enrichstatus.survival import Outlook

#: Columns of the counts that are not a status.
_OURS = ("tasks", "ended", "with data")


@dataclass(frozen=True, repr=False, eq=False)
class Update:
    """What is known after a request.

    Attributes
    ----------
    frame : a frame like the tasks
        All tasks, with ``status`` and ``dataFound``: ``pending`` where they have not ended, ``unanswered`` where nobody has answered yet,
        null where there is no record.
    changed : a frame like the tasks
        The rows that were settled since the last update; bad ones are among the first.
    counts : pandas.DataFrame
        Rows by field: ``tasks``, ``ended``, ``pending``, ``unanswered``, a column for each other status, ``no record`` and ``with data``.
    total, ended, settled : int
        Rows; those that have ended, as everywhere: with a record that is not pending; and those that the poll waits for no longer,
        which have ended, have no record after ``missing_after``, or are bad.
    unfinished : str
        What the rows that are not settled are, in words: pending, or unanswered where nobody has answered.
    requests : int
        Requests of 200 tasks made until now.
    unknown : dict
        Rows by a status that is unknown; ``statuses=`` of the source says what it means.
    saved : int
        How many more a plain loop would have made until now: one that looks up all tasks after 1, 2, 4 … 60, 60 … seconds.
    elapsed : float
        Seconds since the poll began.
    next_in : float or None
        Seconds until the next request; None where this is the last update.
    half_in, most_in : float or None
        Seconds until half, and 90 %, of the unfinished are expected to have ended; None where too little is known.
    error : Exception or None
        Why this request was not answered, or not in full; the poll goes on.
    held : float
        Seconds for which the source wants no request; ``next_in`` is never less.
    asked : int
        Distinct tasks looked up this time.
    done : bool
        Whether all are settled.
    token : str
        JSON, without anything secret, with which `resume` goes on, on any machine; it has the tasks in it.
    token_without_tasks : str
        The same without them, for long lists: `resume` is given them again.
    """

    #: a copy: what the poll learns later does not change it
    tracker: Tracker
    #: of each distinct task whether it was settled since the last update; the last one is for all bad rows
    news: npt.NDArray[np.bool_]
    requests: int
    elapsed: float
    next_in: float | None
    outlook: Outlook
    error: Exception | None
    held: float
    asked: int
    done: bool
    course: Course

    @lazy
    def frame(self) -> Any:
        """All tasks as they are now."""
        return self.rows()

    @lazy
    def changed(self) -> Any:
        """The rows that were settled since the last update."""
        return self.rows(self.news)

    @lazy
    def tally(self) -> npt.NDArray[np.int64]:
        """Number of rows by field, by status, and by data: unknown, none, found; bad rows are left out."""
        known = self.tracker
        good = known.places[known.places >= 0]
        shape = (len(known.fields), len(known.vocabulary), 3)
        cells = np.ravel_multi_index((known.field[good], known.status[good], known.found[good] + 1), shape)
        return np.bincount(cells, minlength=math.prod(shape)).reshape(shape)

    @lazy
    def counts(self) -> pd.DataFrame:
        """Rows by field and status."""
        known, tally = self.tracker, self.tally
        table = pd.DataFrame(
            tally.sum(axis=2),
            index=known.fields,
            # a service may have any word for a status, one of ours too
            columns=[
                f"{name} (status)" if name in _OURS or name in known.vocabulary[:code] else name
                for code, name in enumerate(known.vocabulary)
            ],
        )
        table = table[[name for name in table.columns if name != "no record"] + ["no record"]]
        # a record that failed has failed, whatever it says of data
        whole = np.array([outcome(word, True).word == "data" for word in known.vocabulary])
        table.insert(0, "tasks", table.sum(axis=1))
        table.insert(1, "ended", table["tasks"] - table[["pending", "unanswered", "no record"]].sum(axis=1))
        table["with data"] = tally[:, whole, 2].sum(axis=1)
        return table

    def by_status(self) -> dict[str, int]:
        """Number of rows by each status that there is, but for the finished."""
        counts = self.counts.drop(columns=[*_OURS, "finished"]).sum()
        return {str(name): int(count) for name, count in counts.items() if count}

    def rows(self, which: npt.NDArray[np.bool_] | None = None) -> Any:
        """Give the caller's rows with their status: all, or those of the tasks that a mask like `news` names."""
        known = self.tracker
        frame, places = known.frame, known.places
        if which is not None:
            rows = np.flatnonzero(which[places])  # a bad row's place is -1, the last one
            frame, places = frame.take(rows), places[rows]
        added = [known.values(name, places) for name in known.names.values()]
        return frame.assign(pa.table(added, names=list(known.names)))

    def labels(self) -> npt.NDArray[np.int64]:
        """Say of each row what has become of it: the place among `LABELS`."""
        known, order = self.tracker, list(LABELS)
        # a few words, not tasks
        table = np.array(
            [
                [order.index(outcome(None if code == NO_RECORD else word, data).label) for data in (None, False, True)]
                for code, word in enumerate(known.vocabulary)
            ]
        )
        labels = np.append(table[known.status, known.found + 1], order.index(OUTCOMES["invalid"].label))
        found: npt.NDArray[np.int64] = labels[known.places]
        return found

    @lazy
    def token(self) -> str:
        """JSON with which `resume` goes on."""
        return write(self, tasks=True)

    @lazy
    def token_without_tasks(self) -> str:
        """The same without the tasks."""
        return write(self, tasks=False)

    @property
    def total(self) -> int:
        """Number of rows."""
        return len(self.tracker.places)

    @lazy
    def ended(self) -> int:
        """Number of rows that have ended."""
        return int(self.counts["ended"].sum())

    @lazy
    def settled(self) -> int:
        """Number of rows that the poll waits for no longer."""
        return self.total - int(self.counts[["pending", "unanswered"]].to_numpy().sum())

    @lazy
    def unknown(self) -> dict[str, int]:
        """Number of rows by status that is unknown; data with one is data all the same."""
        return {
            word: int(count)
            for code, (word, count) in enumerate(
                zip(self.tracker.vocabulary, self.tally[:, :, 0].sum(axis=0), strict=True)
            )
            if count and code != NO_RECORD and outcome(word, None).word == "unknown"
        }

    @property
    def unfinished(self) -> str:
        """What the tasks that are not settled are, in words: pending, or unanswered where nobody has answered."""
        pending, unanswered = self.counts[["pending", "unanswered"]].sum()
        return f"pending ({pending:,}) or unanswered ({unanswered:,})" if unanswered else "pending"

    @property
    def saved(self) -> int:
        """Requests that a plain loop would have made until now, beyond ours."""
        if not self.requests and not self.done:
            return 0  # no request has been made yet
        # its requests are at 0, 1, 3, 7, 15, 31 and 63 s, then every 60 s
        early = math.floor(math.log2(min(self.elapsed, 63) + 1))
        lookups = 1 + early + math.floor(max(self.elapsed - 63, 0) / 60)
        return max(lookups * requests_for(len(self.tracker.status)) - self.requests, 0)

    @lazy
    def half_in(self) -> float | None:
        """Seconds until half of the unfinished are expected to have ended."""
        return None if self.done else self.outlook.until(0.5)

    @lazy
    def most_in(self) -> float | None:
        """Seconds until 90 % of the unfinished are expected to have ended."""
        return None if self.done else self.outlook.until(0.9)

    def to_dict(self) -> dict[str, Any]:
        """Give the same as JSON has it, for programs."""
        names = ("total", "ended", "settled", "done", "requests", "elapsed", "next_in", "half_in", "most_in", "unknown")
        told = {name: getattr(self, name) for name in names}
        counts = self.counts.to_dict("index")
        error = None if self.error is None else reason(self.error)
        given: dict[str, Any] = jsonable(told | {"counts": counts, "error": error})
        return given

    def __repr__(self) -> str:
        return f"Update({self})"

    def __str__(self) -> str:
        parts = [f"{self.settled:,} of {self.total:,} settled"]
        shown = self.by_status() | {"bad": int((self.tracker.places < 0).sum())}
        parts += [", ".join(f"{count:,} {name}" for name, count in shown.items() if count)]
        if self.half_in is not None and not self.done:
            most = "more time than can be estimated" if self.most_in is None else duration(round(self.most_in))
            parts.append(f"half of the rest in {duration(round(self.half_in))}, 90 % in {most}")
        if self.unknown:
            parts.append(of_unknown_status(self.unknown))
        parts.append(cost(self))
        if self.error is not None:
            parts.append(f"not answered: {reason(self.error)}")
        if self.next_in is not None:
            parts.append(f"polls again in {duration(max(round(self.next_in), 1))}")
        return "; ".join(filter(None, parts))


def requests_for(tasks: int) -> int:
    """Say how many requests so many tasks take."""
    return -(-tasks // BATCH_SIZE)


def cost(update: Update) -> str:
    """Say how many requests it took, and how many it did not."""
    return many(update.requests, "request") + (f" ({update.saved:,} saved)" if update.saved else "")


def reason(error: Exception) -> str:
    """Say in one line why there is no answer."""
    text = str(error)
    if isinstance(error, PartialLookupError):
        text = f"{len(error.failed):,} of the tasks requested: {error.causes[0]}"
    return plain(text)
