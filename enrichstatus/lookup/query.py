"""The question that every source answers, and what is the same whoever answers it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from textwrap import indent
from typing import Any, Protocol

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.errors import ValidationError
from enrichstatus.frames import frames
from enrichstatus.frames.frames import Kind, ListOrPath, Named, Rows
from enrichstatus.lookup.arguments import Columns, Errors, How, Instant, parse_instant, parse_options, parse_org
from enrichstatus.lookup.tasks import check, clashing, keys_of
from enrichstatus.schema import EXPLANATION, SCHEMA, columns_listed

_OUTCOME_SQL = Path(__file__).with_name("outcome.sql").read_text(encoding="utf-8").rstrip()


def with_outcome(sql: Path) -> str:
    """Read a query, and put what became of a ``record``, for the ``asker``, where it says ``$outcome``."""
    return sql.read_text(encoding="utf-8").replace("$outcome as", _OUTCOME_SQL + " as")


def newest_sql(*place: str) -> str:
    """Give the rule of the newest record as a query over ``contending``, of which some columns say for what a record contends."""
    columns = ", ".join(f"contending.{name}" for name in place)
    return _NEWEST_SQL[_NEWEST_SQL.index("select") :].rstrip().replace("$place", columns)


_NEWEST_SQL = Path(__file__).with_name("newest.sql").read_text(encoding="utf-8")
_RULES_SQL = with_outcome(Path(__file__).with_name("lookup.sql"))
#: THE query, over the relations ``tasks``, ``records`` and ``asker``; its head says what they hold.
LOOKUP_SQL = _RULES_SQL.replace("    $newest", indent(newest_sql("position"), "    "))
#: The same over records of which each is the newest of its key: a store decides that when it is loaded.
DECIDED_SQL = _RULES_SQL.replace("    $newest", "    select contending.*, 1 as rank from contending")
#: Of it the first two rules: each task beside its record as it is, and the ``asker``'s row of its field.
CONTENDING_SQL = DECIDED_SQL[: DECIDED_SQL.index(",\n\nranked as")] + "\n\nselect contending.* from contending"


def by_key_sql(key: str) -> str:
    """Give the same without ``tasks``: the newest record of each key, whose ``position`` is the key as one expression."""
    before, start, rest = LOOKUP_SQL.partition("contending as (\n")
    _, end, after = rest.partition("\n),")
    return f"{before}{start}    select {key} as position, own.* from own{end}{after}"  # noqa: S608  of constants


class Source(Protocol):
    """Anything that answers tasks: an `EnrichmentStore`, or any object with this one method."""

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
        """Give back tasks of any kind and number, with the columns of the answer added; see `EnrichmentStore.lookup`."""


_ANSWERS = pa.schema([*SCHEMA, *EXPLANATION])
_INSTANT = SCHEMA.field("createdAt").type


def look_up(
    lend: Callable[[], duckdb.DuckDBPyConnection],
    tasks: Kind | ListOrPath,
    answer: Callable[[tuple[str, ...], int], pa.Table],
    *,
    columns: Columns,
    how: How,
    errors: Errors,
    prefix: str,
    at_once: Callable[[pa.Table, tuple[str, ...]], pa.Table | None] | None = None,
) -> Kind:
    """Do what is the same for every source: read and check the tasks, have them answered, put the answers beside them.

    `answer` is called when the checked tasks stand in the temporary table ``tasks`` of the connection that `lend` gives, the same each
    time. It gets the names of the wanted columns and the number of tasks, and gives the columns with ``position``, a row for each task
    that has a record, in any order. Where only some tasks could be answered it raises `PartialAnswer`.

    `at_once` is tried first: it gets the keys as they came (`keys_of`) and the names, and gives or raises the same, or gives None where
    that cannot be. Where it answers, no connection is needed.
    """
    names = parse_options(columns, how, errors, prefix)
    frame = frames.read(tasks)
    refuse_clash(frame, [prefix + name for name in names])
    table, partial, checked = None, None, False
    try:
        table = at_once(keys_of(frame), names) if at_once else None
        if table is None:
            check(lend(), frame, errors=errors)
            checked = True
            table = answer(names, len(frame))
    except PartialAnswer as error:
        partial, table = error, error.table
    # the join keeps no order, so the answers are put in the order of the tasks here: row i is task i
    place = places(table, len(frame))
    answered, reached = frame, np.arange(len(frame))
    if how == "inner":
        found = np.flatnonzero(place >= 0)
        answered, place = frame.take(found), place[found]
    elif partial:
        reached = np.setdiff1d(np.arange(len(frame)), partial.lost)
        answered, place = frame.take(reached), place[reached]
    ordered = gather(table, names, place)
    if "reason" in names and how == "left":
        good = lend().execute("select position from tasks").fetchnumpy()["position"] if checked else reached
        unknown = np.isin(reached, good)
        reasons = pc.fill_null(ordered["reason"], pc.if_else(pa.array(unknown), "no_record", "invalid"))
        ordered = ordered.set_column(names.index("reason"), "reason", reasons)
    result: Kind = answered.assign(ordered.rename_columns([prefix + name for name in names]))
    if partial:
        raise partial.error(result, frame.take(partial.lost).assign(pa.table({}))) from partial.__cause__
    return result


def places(table: pa.Table, count: int, first: int = 0) -> Rows:
    """Say of each of so many tasks, from a position on, in which row its answer stands; -1 is in none."""
    place = np.full(count, -1)
    place[table["position"].to_numpy() - first] = np.arange(table.num_rows)
    return place


def gather(table: pa.Table, names: Sequence[str], place: Rows) -> pa.Table:
    """Give the answers in these places, nulls where there is none."""
    schema = pa.schema([_ANSWERS.field(name) for name in names])
    return table.select(names).take(pa.array(place, mask=place < 0)).cast(schema)


def refuse_clash(frame: Named, added: Sequence[str], prefix: str = "current_") -> None:
    """Refuse tasks that have a column of the name of a new one; `prefix` is a prefix that would help."""
    if found := clashing(frame, added):
        raise ValidationError(
            f"The tasks already have {columns_listed(found)}, which would be overwritten. Drop {'it' if len(found) == 1 else 'them'}.",
            instead=("prefix", prefix, "name the new ones apart"),
        )


#: Until when (`time.monotonic`) a source that is refused waits before it tries again: a caller may have a deadline.
patience: ContextVar[float] = ContextVar("patience", default=math.inf)


class Interruption:
    """Says to work in another thread that nobody waits for it any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.is_set = False
        self._listeners: list[Callable[[], object]] = []

    def set(self) -> None:
        """Call who listens."""
        with self._lock:
            self.is_set = True
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def listen(self, listener: Callable[[], object]) -> bool:
        """Have a function called, from any thread, when it is set; says whether it is already, and then calls nothing."""
        with self._lock:
            if not self.is_set:
                self._listeners.append(listener)
            return self.is_set


#: What interrupts the work of this thread; Ctrl-C comes to the main thread alone.
interruption: ContextVar[Interruption | None] = ContextVar("interruption", default=None)


class PartialAnswer(Exception):
    """Some tasks could not be answered: `lost` are their positions, `error` makes what is raised of the result and their rows."""

    def __init__(self, table: pa.Table, lost: Rows, error: Callable[[Any, Any], BaseException]):
        super().__init__()
        self.table, self.lost, self.error = table, lost, error


def asker(org_id: str | None, limits: Mapping[str, timedelta], now: Instant, *, evaluated: bool = True) -> pa.Table:
    """Make the relation ``asker`` of the query: who asks, when, and by field since when a record that is pending has timed out."""
    org_id = parse_org(org_id)
    if not org_id:
        raise ValidationError("Organization ID is missing")
    table = timing_out(limits, now, evaluated=evaluated)
    return table.add_column(0, "orgId", pa.repeat(pa.scalar(org_id, pa.string()), len(table)))


#: What says that an organization without records is meant.
NEW_ORGANIZATION = ("new_organization", True, "say that it is a new one")


def no_records_of(org_id: str) -> str:
    """Say that there are records, but none of the organization; no message names another one."""
    return f"There are records here, but none of the organization {org_id!r}. Check how the records spell it."


def timing_out(limits: Mapping[str, timedelta], now: Instant, *, evaluated: bool = True) -> pa.Table:
    """Say by field since when a record that is pending has timed out (null where the rule is not evaluated here), and at what instant."""
    moment = parse_instant(now)
    try:
        since = [moment - limit if evaluated else None for limit in limits.values()]
    except OverflowError as error:
        raise ValidationError(
            f"less the maximum processing time is before the first year: {moment}.", argument="now"
        ) from error
    return pa.table(
        {
            "field": pa.array(limits, pa.string()),
            "pendingSince": pa.array(since, _INSTANT),
            "now": pa.array([moment] * len(limits), _INSTANT),
            "maximum": pa.array([limit.total_seconds() for limit in limits.values()], pa.float64()),
        }
    )
