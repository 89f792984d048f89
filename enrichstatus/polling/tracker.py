"""What is known of every task while it is polled, in arrays with a place for each distinct task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from enrichstatus.errors import EnrichStatusError
from enrichstatus.frames import frames
from enrichstatus.lookup.arguments import parse_prefix
from enrichstatus.lookup.calls.clocks import ahead_of_ours
from enrichstatus.lookup.query import refuse_clash
from enrichstatus.lookup.vectors.distinct_tasks import distinct_tasks
from enrichstatus.polling.resuming.packed import TaskList
from enrichstatus.schema import SCHEMA, STATUSES, listed
from enrichstatus.survival import Numbers, Outlook, Prospect, learn

#: The codes of the states that are not a status of an ended record; those have the codes above, in the order of the vocabulary.
PENDING, UNANSWERED, NO_RECORD = 0, 1, 2
#: What `Tracker.times` has of each task, in seconds: when its newest record was made, by the service's clock; and by ours when a request
#: was first made for it, when the last was answered, when the last that was answered with that record was sent, and since when none is
#: answered with one; and how long it took.
TIMES = ("made", "first", "answered", "sent", "gone", "took")
#: What a poll needs of each answer.
ANSWER = ("status", "dataFound", "id", "createdAt", "updatedAt")
#: Seconds: instants closer than this are the same one, as a service rounds to milliseconds and a store to microseconds.
_INSTANT = 0.002
#: What is pending for longer than the maximum processing time, by this share of it, has timed out, whether the service says so or not.
_MARGIN = 0.1
#: Tasks are put in groups by their ages, which are rounded to this share of the oldest.
_GRAIN = 1 / 100

Codes = npt.NDArray[np.int16]
Places = npt.NDArray[np.int64]


class Tracker:
    """The tasks of a poll, and what has been answered of them until now.

    Times are seconds on the clock of the poll, from its start; `wall` is the instant of the start, in seconds since 1970.
    """

    def __init__(
        self,
        tasks: Any,
        *,
        limits: Mapping[str, timedelta],
        errors: str,
        prefix: str,
        missing_after: float,
        wall: float,
        columns: Sequence[str] = ("status", "dataFound"),
        beside: Sequence[str] = (),
    ):
        # a shallow copy: what is done to the caller's frame while the poll goes on does not change ours
        self.frame = frames.read(tasks.copy(deep=False) if isinstance(tasks, pd.DataFrame) else tasks)
        parse_prefix(prefix)
        self.prefix = prefix
        #: the columns that the caller's frame gets, by their names there
        self.names = {prefix + name: name for name in columns}
        refuse_clash(self.frame, list(self.names))
        self.tasks, places = distinct_tasks(self.frame, list(limits), errors=errors)
        #: for each row of the frame the place of its task; -1 where it is a bad one
        self.places: Places = places
        self.listed = TaskList(self.tasks)
        codes, names = pd.factorize(self.tasks["field"], sort=True)
        self.fields: list[str] = list(names)
        self.field: Codes = codes.astype(np.int16)
        count = len(self.tasks)
        #: by field, after how many seconds a record is pending no longer, whatever the service says
        self.limits = np.array([limits[name].total_seconds() * (1 + _MARGIN) for name in self.fields])
        self.vocabulary = ["pending", "unanswered", "no record", *STATUSES[1:]]
        #: the codes of the words that a source has for a status
        self._codes = {name: self.vocabulary.index(name) for name in STATUSES}
        self.status: Codes = np.full(count, UNANSWERED, dtype=np.int16)
        self.found: npt.NDArray[np.int8] = np.full(count, -1, dtype=np.int8)  # -1 is null
        #: whether it has a record, as far as is known
        self.recorded = np.zeros(count, dtype=bool)
        #: the other columns that are kept, those `beside` them too, which a source may lack
        self.columns = tuple(name for name in columns if name not in ("status", "dataFound"))
        others = (*self.columns, *(name for name in beside if name not in columns))
        self.others: dict[str, npt.NDArray[np.object_]] = {name: np.full(count, None) for name in others}
        #: the newest record that is known: a number made of its id
        self._id = np.zeros(count, dtype=np.uint64)
        self.times: Numbers = np.full((len(TIMES), count), np.nan)
        self._made, self._first, self._answered, self._sent, self._gone, self._took = self.times
        #: within what bounds the service's clock is ahead, by the records that ended between two requests, and what its answers say
        self._least, self._most = np.full((2, count), np.nan)
        self._said: float | None = None
        #: a fixed random order, by which samples are drawn: a list may be sorted by anything
        self._lot = np.random.default_rng(0).permutation(count)
        self._missing_after, self._wall = missing_after, wall
        self._history: pa.Table = None
        #: by field, how long the tasks took that had ended when a token was written
        self.earlier: dict[str, Numbers] = {}

    def copy(self) -> Tracker:
        """Give what is known now, for an update to show; later answers do not change it."""
        known = copy(self)
        for name in ("tasks", *(name for name in vars(self) if name.startswith("_"))):
            delattr(known, name)  # or an update would keep and pickle what only the poll needs
        for name in ("vocabulary", "status", "found", "recorded", "times"):
            setattr(known, name, getattr(self, name).copy())
        known.others = {name: values.copy() for name, values in self.others.items()}
        return known

    def settled_since(self, before: Tracker | None) -> npt.NDArray[np.bool_]:
        """Say of each task whether it was settled since then, and at the end, of the bad rows, whether this is the first time."""
        status = UNANSWERED if before is None else before.status
        changed = (self.status > UNANSWERED) & (self.status != status)
        return np.append(changed, before is None and bool(np.any(self.places < 0)))

    @property
    def unfinished(self) -> npt.NDArray[np.bool_]:
        """Which tasks are not settled."""
        return np.less_equal(self.status, UNANSWERED)

    @property
    def shown(self) -> npt.NDArray[np.bool_]:
        """Of which tasks the source has answered with a record, as long as they are polled."""
        shown: npt.NDArray[np.bool_] = ~np.isnan(self._sent)
        return shown

    def pick(self, fields: Sequence[str] | None, samples: Mapping[str, int]) -> pd.DataFrame:
        """Give the unfinished tasks of some fields (None: of all), and samples of others, with the place of each as ``task``."""
        open_ = self.unfinished
        wanted = np.isin(self.field, [self.fields.index(name) for name in fields or () if name in self.fields])
        # unanswered tasks are always included: nothing is known yet of when they may end
        unknown = np.isnan(self._answered)
        chosen = np.flatnonzero(open_ if fields is None else open_ & (wanted | unknown))
        parts = [chosen]
        for name, size in samples.items():  # a few fields, not tasks
            if name in self.fields:
                places = np.flatnonzero(open_ & (self.field == self.fields.index(name)))
                parts.append(places[np.argsort(self._lot[places])[:size]])
        return self.tasks.iloc[np.unique(np.concatenate(parts))]

    def recall(self, known: pd.DataFrame, history: pa.Table) -> None:
        """Start with what a store remembers: what has ended is not looked up again, what is pending is."""
        self._history = history
        places = known["task"].to_numpy()
        first = known["since"].to_numpy(dtype=float, na_value=np.nan) - self._wall
        # a wait that is over begins again: what had no record then may have been bought since
        self._first[places] = np.where(first > -self._missing_after, np.minimum(first, 0), np.nan)
        self._made[places], self._id[places] = self._seconds(known, "createdAt"), _numbers(known)
        recorded = known["status"].notna().to_numpy()
        self.status[places[recorded]] = PENDING
        self.recorded[places[recorded]] = True
        self.absorb(known[recorded & (known["status"] != "pending").to_numpy()], 0.0, 0.0)

    def absorb(self, answers: pd.DataFrame, sent: float, now: float, *, ahead: float | None = None) -> None:
        """Note the answers that have come `now` to requests made at `sent`.

        They are tasks with their place as ``task``, ``status``, ``dataFound`` and, where a source has them, the record's id and times.
        `ahead` is how many seconds the service's clock is ahead of ours, if the source knows.
        """
        places = self.places_of(answers)
        answered = _texts(_whole(answers["status"])).dictionary_encode()
        found = _whole(answers["dataFound"]).cast(pa.bool_()).cast(pa.int8()).fill_null(-1).to_numpy()
        created, updated = (self._seconds(answers, name) for name in ("createdAt", "updatedAt"))
        ids = _numbers(answers)
        others = {name: _objects(answers, name) for name in self.others}
        # everything has been read: from here on nothing raises
        words = np.array(self.codes_of(answered.dictionary.to_pylist()) or [0])
        recorded = answered.is_valid().to_numpy(zero_copy_only=False)
        made, before = self._made[places], self._sent[places]
        # an answer with an older record than the newest one known changes nothing: the newest has not ended. An answer with the same
        # record always counts, however the service rounds or changes its createdAt
        same = (ids == self._id[places]) & (ids != 0)
        news = recorded & (same | ~(created < made - _INSTANT))
        codes = np.where(news, words[answered.indices.fill_null(0).to_numpy()], PENDING)
        ended = news & (codes != PENDING)
        wrote = ended & (updated > created) & ~np.isnan(before)
        self._least[places], self._most[places] = np.where(wrote, [updated - now, updated - before], np.nan)
        self._said = ahead
        self._made[places] = np.where(news & ~np.isnan(created), np.where(same, created, np.fmax(made, created)), made)
        self._id[places] = np.where(news & (ids != 0), ids, self._id[places])
        self._first[places] = first = np.fmin(self._first[places], now)
        self._answered[places] = now
        self._sent[places] = np.where(news, sent, before)
        self._gone[places] = gone = np.where(recorded, np.nan, np.fmin(self._gone[places], now))
        # a store may know of a record that the service does not show yet; one that the service has shown counts at once
        waited = now - np.where(np.isnan(self._made[places]), first, np.where(np.isnan(before), np.nan, gone))
        codes[~recorded & (waited >= self._missing_after)] = NO_RECORD
        known = ~np.isnan(self._made[places])
        late = known & (codes == PENDING) & (now - self._latest_begin(places) > self.limits[self.field[places]])
        codes[late] = self._codes["timeout"]
        self.status[places], self.found[places] = codes, np.where(news, found, -1)
        self.recorded[places] = recorded
        if "reason" in others:
            others["reason"][late] = "timed_out_here"
        for name, values in others.items():  # a few columns, not tasks
            values[~news] = None
            self.others[name][places] = values
        # the record of one that timed out was last written when it began: when it ended is known only if it was pending before
        observed = np.where(np.isnan(before), np.nan, now - self._begin(places))
        self._took[places] = np.where(ended, np.where(updated > created, updated - created, observed), np.nan)

    def codes_of(self, words: Sequence[str]) -> list[int]:
        """Give the codes of a few words for a status; a new one gets a code."""
        for name in words:
            if name not in self._codes:
                self._codes[name] = len(self.vocabulary)
                self.vocabulary.append(name)
        return [self._codes[name] for name in words]

    def _ahead(self) -> float | None:
        return ahead_of_ours(self._said, self._least, self._most)

    def _begin(self, places: Places) -> Numbers:
        """Give when records were made, on our clock; if that cannot be, the time of our first request."""
        made = self._made[places] - (self._ahead() or 0.0)
        begin: Numbers = np.where(made <= self._answered[places], made, self._first[places])
        return begin

    def _latest_begin(self, places: Places) -> Numbers:
        """Give when records were made at the latest: nothing times out early because of a clock."""
        difference = self._ahead()
        first, made = self._first[places], self._made[places]
        latest: Numbers = first if difference is None else np.fmin(first, np.fmax(made, made - difference))
        return latest

    def places_of(self, answers: pd.DataFrame, names: Sequence[str] = ()) -> Places:
        """Check that these are answers, with the columns of these names, and give the places of their tasks."""
        columns = set(answers.columns) if isinstance(answers, pd.DataFrame) else None
        wanted = (
            set()
            if columns is None
            else {"task", "status", "dataFound", *self.columns} - columns or set(names) - columns
        )
        if wanted or columns is None:
            lack = f" without {listed(sorted(wanted))}" if wanted else ""
            raise EnrichStatusError(
                f"The source's lookup gave back {type(answers).__name__}{lack}: it gives the tasks as they came, with the "
                "columns added."
            )
        places: Places = answers["task"].to_numpy(dtype=np.int64)
        if len(places) and not 0 <= places.min() <= places.max() < len(self.status):
            raise EnrichStatusError("The source's lookup gave back tasks that were not requested.")
        return places

    def _seconds(self, answers: pd.DataFrame, name: str) -> Numbers:
        """Give instants as seconds on the clock of the poll, NaN where there are none."""
        if name not in answers:
            return np.full(len(answers), np.nan)
        instants = pd.to_datetime(answers[name], utc=True)
        seconds = (instants - pd.Timestamp(self._wall, unit="s", tz="UTC")).dt.total_seconds()
        return np.asarray(seconds, dtype=np.float64)

    def values(self, name: str, places: Places) -> pa.Array:
        """Give a column for tasks at these places, of which -1 is a bad row."""
        code, found = np.append(self.status, NO_RECORD)[places], np.append(self.found, -1)[places]
        if name == "dataFound":
            return pa.array(found == 1, mask=found < 0)
        if name == "status":
            return pa.array(self.vocabulary, pa.string()).take(pa.array(code, mask=code == NO_RECORD))
        values, good = np.full(len(places), None), places >= 0
        values[good] = self.others[name][places[good]]
        if name != "reason":
            return pa.array(values, SCHEMA.field(name).type, from_pandas=True)
        said = np.array(["pending", "unanswered", "no_record"], dtype=object)[np.minimum(code, NO_RECORD)]
        said[~good] = "invalid"
        return pa.array(np.where(code > NO_RECORD, values, said), pa.string(), from_pandas=True)

    def outlook(self, now: float) -> Outlook:
        """Give what can be expected of the unfinished tasks, learned from all, and from what a store remembers of others."""
        curves = learn(self._evidence())
        unfinished = self.unfinished & ~np.isnan(self._answered)
        prospects = {}
        for code, name in enumerate(self.fields):  # a few fields, not tasks
            places = np.flatnonzero(unfinished & (self.field == code))
            if len(places):
                age, since = self._answered[places] - self._begin(places), now - self._answered[places]
                grain = max(float((age + since).max()) * _GRAIN, 1e-6)
                groups = np.rint(np.stack([age, since]) / grain)
                groups, tasks = np.unique(groups, axis=1, return_counts=True)
                prospects[name] = Prospect(tasks, groups[0] * grain, groups[1] * grain, curves.get(name))
        return Outlook(prospects)

    def _evidence(self) -> pa.Table:
        known = np.flatnonzero(~np.isnan(self._took) | (self.unfinished & ~np.isnan(self._answered)))
        observed = ~np.isnan(self._took[known])
        seconds = np.where(observed, self._took[known], self._answered[known] - self._begin(known))
        names = pa.array(self.fields, pa.string())
        own = pa.table({"field": names.take(pa.array(self.field[known])), "seconds": seconds, "observed": observed})
        return own if self._history is None else pa.concat_tables([own, self._history])

    def remember(self, took: Mapping[str, Numbers]) -> None:
        """Learn also from how long tasks took that had ended when a token was written, by field."""
        self.earlier = dict(took)
        parts = [
            pa.table(
                {"field": pa.repeat(name, len(seconds)), "seconds": seconds, "observed": pa.repeat(True, len(seconds))}
            )
            for name, seconds in took.items()
        ]
        if self._history is not None:
            parts.append(self._history)
        self._history = pa.concat_tables(parts) if parts else None

    def shift(self, seconds: float) -> None:
        """Count the times from so much later."""
        self._wall += seconds
        for times in (self._made, self._first, self._answered):
            times -= seconds


def _numbers(answers: pd.DataFrame) -> npt.NDArray[np.uint64]:
    """Make a number of each record's id, 0 where there is none."""
    if "id" not in answers:
        return np.zeros(len(answers), dtype=np.uint64)
    ids = answers["id"]
    return np.where(ids.isna(), np.uint64(0), pd.util.hash_array(ids.astype(str).to_numpy(dtype=object)))


def _objects(answers: pd.DataFrame, name: str) -> npt.NDArray[np.object_]:
    """Give a column with None where it is null, or is not there."""
    if name not in answers:
        return np.full(len(answers), None)
    values = answers[name].astype(object).to_numpy(dtype=object, copy=True)
    values[answers[name].isna().to_numpy()] = None
    return values


def _texts(values: pa.Array) -> pa.Array:
    """Give texts as texts, of whatever Arrow type they are; what is not text, also where it could be written as one, is a TypeError."""
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (
        pa.types.is_null(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
    ):
        raise TypeError(f"status is {kind}")
    return values.cast(pa.string())


def _whole(column: pd.Series) -> pa.Array:
    """Give a column in one piece; put together from several, or from none, it is in as many."""
    values = pa.array(column, from_pandas=True)
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
