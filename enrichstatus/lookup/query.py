"""The question that every source answers, and what is the same whoever answers it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus import frames
from enrichstatus.errors import ValidationError
from enrichstatus.frames import Kind, ListOrPath, Named, Rows
from enrichstatus.lookup.tasks import check, taken_names
from enrichstatus.schema import COLUMNS, EXPLANATION, KEY, SCHEMA, listed

#: THE query, over the relations ``tasks``, ``records`` and ``asker``; its head says what they hold.
LOOKUP_SQL = Path(__file__).with_name("lookup.sql").read_text(encoding="utf-8")

#: The documented maximum execution time of the service's sibling endpoint.
MAX_PROCESSING_TIME = timedelta(seconds=800)

Columns: TypeAlias = Sequence[str] | str
How: TypeAlias = Literal["left", "inner"]
Errors: TypeAlias = Literal["raise", "coerce"]
Instant: TypeAlias = datetime | str | None


class Source(Protocol):
    """Anything that can be asked: an `EnrichmentStore`, or any object with this one method."""

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
        """Answer tasks of any kind and number with the same frame and the asked columns; see `EnrichmentStore.lookup`."""


_ANSWERS = pa.schema([*SCHEMA, *EXPLANATION])
_INSTANT = SCHEMA.field("createdAt").type


def look_up(
    con: duckdb.DuckDBPyConnection,
    tasks: Kind | ListOrPath,
    answer: Callable[[tuple[str, ...], int], pa.Table],
    *,
    columns: Columns,
    how: How,
    errors: Errors,
    prefix: str,
) -> Kind:
    """Do what is the same for every source: read and check the tasks, have them answered, put the answers beside them.

    `answer` is called when the checked tasks stand in the temporary table ``tasks`` of `con`. It gets the names of the asked
    columns and the number of tasks, and gives the columns with ``position``, a row for each task that has a record, in any order.
    Where only some tasks could be answered it raises `PartialAnswer`.
    """
    names = parse_options(columns, how, errors, prefix)
    frame = frames.read(tasks)
    refuse_taken(frame, [prefix + name for name in names])
    check(con, frame, errors=errors)
    partial = None
    try:
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
    ordered = taken(table, names, place)
    if "reason" in names and how == "left":
        unknown = np.isin(reached, con.execute("select position from tasks").fetchnumpy()["position"])
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


def taken(table: pa.Table, names: Sequence[str], place: Rows) -> pa.Table:
    """Take the answers from where they stand, nulls where there is none."""
    schema = pa.schema([_ANSWERS.field(name) for name in names])
    return table.select(names).take(pa.array(place, mask=place < 0)).cast(schema)


def parse_options(columns: Columns, how: How, errors: Errors, prefix: str) -> tuple[str, ...]:
    """Check the options of a lookup; gives the names of the asked columns."""
    names = asked(columns)
    parse_prefix(prefix)
    choice("how", how, ("left", "inner"))
    choice("errors", errors, ("raise", "coerce"))
    return names


def refuse_taken(frame: Named, added: Sequence[str]) -> None:
    """Refuse tasks that have a column of the name of a new one."""
    if found := taken_names(frame, added):
        raise ValidationError(
            f"The tasks already have the column {listed(found)}, which the answer would overwrite. Pass prefix= "
            '(prefix="current_", say) to name the new ones apart, or drop the old.'
        )


class PartialAnswer(Exception):
    """Some tasks could not be answered: `lost` are their positions, `error` makes what is raised of the result and their rows."""

    def __init__(self, table: pa.Table, lost: Rows, error: Callable[[Any, Any], BaseException]):
        super().__init__()
        self.table = table
        self.lost = lost
        self.error = error


def asker(org_id: str | None, limits: Mapping[str, timedelta], now: Instant) -> pa.Table:
    """Make the relation ``asker`` of the query: who asks, when, and by field since when a record that is pending has timed out."""
    if org_id is None or not parse_org(org_id).strip():
        raise ValidationError("Organization ID is missing")
    table = timing_out(limits, now)
    return table.add_column(0, "orgId", pa.repeat(pa.scalar(org_id, pa.string()), len(table)))


def timing_out(limits: Mapping[str, timedelta], now: Instant, *, judged: bool = True) -> pa.Table:
    """Say by field since when a record that is pending has timed out (null where that is not for us to judge), and of what instant."""
    moment = parse_instant(now)
    try:
        since = [moment - limit if judged else None for limit in limits.values()]
    except OverflowError as error:
        raise ValidationError(f"now= less the maximum processing time is before the first year: {moment}.") from error
    return pa.table(
        {
            "field": pa.array(limits, pa.string()),
            "pendingSince": pa.array(since, _INSTANT),
            "now": pa.array([moment] * len(limits), _INSTANT),
            "maximum": pa.array([limit.total_seconds() for limit in limits.values()], pa.float64()),
        }
    )


def parse_org(org_id: str | None) -> str:
    """Check that an organization is text; None is none."""
    if not isinstance(org_id, (str, type(None))):
        raise ValidationError(f"org_id= is text, not {type(org_id).__name__}.")
    return org_id or ""


def asked(columns: Columns, known: Sequence[str] = (*COLUMNS, *EXPLANATION.names)) -> tuple[str, ...]:
    """Read ``columns=``: names of a record's columns and of what explains it, or ``"all"`` for a record's that are not the key."""
    if columns == "all":
        return tuple(name for name in COLUMNS if name not in KEY)
    names = (columns,) if isinstance(columns, str) else tuple(columns) if isinstance(columns, Iterable) else ()
    strange = [name for name in names if name not in known]
    if strange or not names or len(set(names)) < len(names):
        raise ValidationError(f'columns= takes "all" or some of {listed(known, limit=20)}, each once; not {columns!r}.')
    return names


def parse_prefix(prefix: object) -> str:
    """Check what is put before the names of columns."""
    if not isinstance(prefix, str):
        raise ValidationError(f"prefix= is text, not {prefix!r}.")
    return prefix


def check_source(source: object) -> None:
    """Refuse what cannot be asked."""
    if isinstance(source, type) or not callable(getattr(source, "lookup", None)):
        kind = f"the class {source.__name__}" if isinstance(source, type) else type(source).__name__
        raise ValidationError(f"source= is a store, a client, or any object with their lookup, not {kind}.")


def choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse an option that is not one of those allowed."""
    if value not in allowed:
        raise ValidationError(f"{name}= is one of {listed(map(repr, allowed))}, not {value!r}.")


def parse_instant(value: Instant, name: str = "now") -> datetime:
    """Read an instant: an aware datetime or ISO 8601 text; without a zone it is UTC; None is the clock's."""
    if value is None:
        return datetime.now(UTC)
    try:
        if not isinstance(value, (str, datetime)):
            raise TypeError
        instant = pd.Timestamp(value)
        if pd.isna(instant):
            raise ValueError
    except (ValueError, TypeError) as error:
        raise ValidationError(
            f'{name}= takes a datetime or text such as "2025-01-13T10:30:00Z", not {value!r}.'
        ) from error
    instant = instant.tz_localize(UTC) if instant.tzinfo is None else instant.tz_convert(UTC)
    return instant.to_pydatetime(warn=False)


def parse_duration(value: object, name: str = "max_processing_time") -> timedelta:
    """Read a duration: ``"800s"``, ``"30min"``, a timedelta, or a number of seconds; above zero."""
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, float, timedelta)):
            raise TypeError
        if isinstance(value, str) and re.fullmatch(r"\s*[\d.]*\s*", value):
            raise ValueError  # no unit: pandas would read nanoseconds
        duration = pd.Timedelta(seconds=value) if isinstance(value, (int, float)) else pd.Timedelta(value)
        if not duration > pd.Timedelta(0):  # nor is NaT
            raise ValueError
    except (ValueError, TypeError, OverflowError) as error:
        raise ValidationError(
            f'{name}= takes a duration above zero, such as "800s", "30min", timedelta(minutes=5) or seconds; not {value!r}.'
        ) from error
    return duration.to_pytimedelta()


def parse_limits(value: object, fields: Sequence[str]) -> dict[str, timedelta]:
    """Read the maximum processing time: one for all fields, or a mapping for some (the others keep the default)."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(fields, parse_duration(value))
    if unknown := [name for name in value if name not in fields]:
        raise ValidationError(
            f"max_processing_time= names the field {listed(unknown)}; the fields are {listed(fields)}."
        )
    return {name: parse_duration(value.get(name, MAX_PROCESSING_TIME)) for name in fields}
