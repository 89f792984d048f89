"""A service whose course a test decides, and a clock that moves when somebody sleeps."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

import enrichstatus as es
from enrichstatus.lookup.arguments import parse_columns
from enrichstatus.schema import PANDAS_TYPES, SCHEMA
from tests.support.factory import ORG, uid

#: A task of person emails by its number, or with its field.
Key = int | tuple[int, str]
NEVER = math.inf


class Clock:
    """Seconds that pass while somebody sleeps, and the instants that they are."""

    def __init__(self, seconds: float = 1000.0) -> None:
        self.seconds = self.start = seconds
        self.slept: list[float] = []
        self._origin = datetime.now(UTC)

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.seconds += seconds

    def set(self, instant: datetime) -> None:
        """Say what instant it is."""
        self._origin = instant - timedelta(seconds=self.seconds - self.start)

    def instant(self) -> datetime:
        return self._origin + timedelta(seconds=self.seconds - self.start)


#: What an ask meets instead of its answer: nothing, an error that is raised, or what is made of the tasks and the answer.
Trouble = BaseException | Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame] | None


class Service:
    """A source in which each task ends when it is told to: so many seconds after the service began.

    `ends` names the tasks that have a record, `appears` from when on they have it. What is in `troubles` is met ask by ask; all that
    is requested is in `asks`: seconds since it began, and the keys.
    """

    fields = ("emails", "phones", "summary")

    def __init__(
        self,
        clock: Clock,
        ends: Mapping[Key, float],
        *,
        status: Mapping[Key, str] | None = None,
        appears: Mapping[Key, float] | None = None,
        troubles: Sequence[Trouble] = (),
        org_id: str = ORG,
    ):
        names = [_name(key) for key in ends]
        course = pd.DataFrame({"ends": list(ends.values()), "status": "finished", "appears": -1.0}, index=names)
        for key, word in (status or {}).items():
            course.loc[_name(key), "status"] = word
        for key, seconds in (appears or {}).items():
            course.loc[_name(key), "appears"] = seconds
        self._begin(clock, course, troubles, org_id)

    def _begin(self, clock: Clock, course: pd.DataFrame, troubles: Sequence[Trouble], org_id: str) -> None:
        self.clock, self.course, self.troubles, self._org = clock, course, list(troubles), org_id
        self.start, self.created = clock(), clock.instant()
        self.asks: list[tuple[float, list[tuple[str, str]]]] = []
        self.requests = 0

    @classmethod
    def of(cls, clock: Clock, tasks: pd.DataFrame, ends: np.ndarray) -> Service:
        """Make one of many tasks; what has not ended after 800 s is a timeout."""
        service = cls.__new__(cls)
        status = np.where(ends >= 800, "timeout", "finished")
        names = tasks["entityId"] + tasks["field"]
        service._begin(clock, pd.DataFrame({"ends": ends, "status": status, "appears": -1.0}, index=names), (), ORG)
        return service

    def lookup(self, tasks: pd.DataFrame, *, columns: Any = ("status", "dataFound")) -> pd.DataFrame:
        now = self.clock() - self.start
        self.asks.append((now, list(zip(tasks["entityId"], tasks["field"], strict=True))))
        self.requests += -(-len(tasks) // 200)
        trouble = self.troubles.pop(0) if self.troubles else None
        if isinstance(trouble, BaseException):
            raise trouble
        answer = self.answer(tasks, now, parse_columns(columns))
        answer = tasks.assign(**{name: answer[name].array for name in answer})
        return answer if trouble is None else trouble(tasks, answer)

    def answer(self, tasks: pd.DataFrame, now: float, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Say what it knows of tasks at some second; all columns of a record unless some are named."""
        names = (tasks["entityId"] + tasks["field"]).astype(str)  # of no tasks, too
        course = self.course.reindex(names)
        known = (course["appears"] <= now).to_numpy()
        ended = known & (course["ends"] <= now).to_numpy()
        words = np.where(ended, course["status"], "pending")
        origin = pd.Timestamp(self.created)
        created = pd.Series(origin, names) + pd.to_timedelta(course["appears"].clip(lower=0).fillna(0), unit="s")
        # a timeout is told when it is requested; nobody writes it
        wrote = ended & (words != "timeout")
        updated = created.where(~wrote, origin + pd.to_timedelta(course["ends"].where(wrote, 0), unit="s"))
        made: dict[str, Callable[[], Any]] = {
            "id": lambda: [str(uuid.uuid5(uuid.NAMESPACE_OID, name)) for name in names],
            "createdAt": lambda: created.where(known).array,
            "updatedAt": lambda: updated.where(known).array,
            "status": lambda: np.where(known, words, None),
            "error": lambda: None,
            "dataFound": lambda: np.where(ended, (words == "finished") & (names.str[7] < "b"), None),
            "createdBy": lambda: None,
            "orgId": lambda: np.where(known, self._org, None),
            "globalEnrichmentId": lambda: np.where(known, names, None),
            "creditTransactionId": lambda: None,
        }
        wanted = list(made) if columns is None else list(columns)
        return as_answered(pd.DataFrame({name: made[name]() for name in wanted}, index=names.to_numpy()))

    def times(self) -> list[float]:
        """When it was requested."""
        return [seconds for seconds, _ in self.asks]

    def counts(self) -> list[int]:
        """For how many tasks it was requested each time."""
        return [len(keys) for _, keys in self.asks]

    def often(self) -> dict[tuple[str, str], int]:
        """How often each task was requested."""
        keys = pd.Series([key for _, each in self.asks for key in each], dtype=object)
        return keys.value_counts().to_dict()


def as_answered(frame: pd.DataFrame) -> pd.DataFrame:
    """Give columns the dtypes of a source of ours, by way of Arrow, whatever pandas makes of them by itself."""
    schema = pa.schema([SCHEMA.field(name) for name in frame.columns])
    table = pa.Table.from_pandas(frame.astype(object), schema, preserve_index=False, safe=False)
    answer: pd.DataFrame = table.to_pandas(types_mapper=PANDAS_TYPES.get).set_axis(frame.index)
    return answer


def _name(key: Key) -> str:
    number, field = key if isinstance(key, tuple) else (key, "emails")
    return uid(number) + field


def numbered(*keys: Key) -> pd.DataFrame:
    """Make tasks of numbers, or of numbers and fields."""
    pairs = [key if isinstance(key, tuple) else (key, "emails") for key in keys]
    return pd.DataFrame({"entityId": [uid(number) for number, _ in pairs], "field": [field for _, field in pairs]})


def polled(source: Any, tasks: Any, clock: Clock, **options: Any) -> list[es.Update]:
    """Poll on a clock of a test, to the end."""
    return list(es.poll(source, tasks, clock=clock, sleep=clock.sleep, **options))


def statuses(frame: Any) -> list[str | None]:
    """Give the statuses as Python has them."""
    return [None if pd.isna(status) else status for status in frame["status"]]
