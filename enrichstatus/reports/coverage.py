"""What a lookup says of a whole list: where there is data and where there is none, and what changed between two lookups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus import frames
from enrichstatus.errors import ValidationError
from enrichstatus.frames import Frame
from enrichstatus.lookup.arguments import parse_number
from enrichstatus.lookup.tasks import check, create_vocabularies, to_pandas
from enrichstatus.reports.groups import By, comparable, found, parse_by, segment
from enrichstatus.reports.report import Report
from enrichstatus.schema import FIELDS

DIFF_SQL = Path(__file__).with_name("diff.sql").read_text(encoding="utf-8")

#: The standard normal's quantile for an interval of 95 %.
_Z = 1.959963984540054
#: What can have become of a task, in the order in which it is drawn.
OUTCOMES = ("with data", "no data", "failed", "timeout", "pending", "no record")
_COVERAGE = ("tasks", "no record", "pending", "ended", "with data", "share", "low", "high", "small")
_PERCENT = {"share": "share", "low": "share", "high": "share", "small": "flag"}


def coverage(status: Any, by: By = "field", *, prefix: str = "", small: int = 30) -> Report:
    """Say where data was found, as a share of the tasks that have ended: by field, or by any columns of the list.

    Parameters
    ----------
    status : DataFrame, Arrow table, DuckDB relation, list of dicts or path
        What a lookup gave: *n* rows with ``status``, ``dataFound`` and the columns of `by`.
    by : str, sequence of str or None
        The columns whose values are told apart, null among them; None for all tasks in one row.
    prefix : str
        The prefix that the lookup gave its columns.
    small : int
        Groups of which fewer tasks than this have ended are marked: their shares tell little.

    Returns
    -------
    Report
        ``.frame`` has the columns of `by`, and for each group ``tasks``, ``no record``, ``pending``, ``ended`` (all others, timeouts
        and failures among them), ``with data``, the ``share`` with data of those that ended with its 95 % interval (Wilson's score)
        from ``low`` to ``high``, and ``small``. The largest group comes first; numbers and dates keep their own order.

    Raises
    ------
    ValidationError
        A column is missing, ambiguous or of an unusable type, or an argument is unusable.

    Examples
    --------
    >>> import enrichstatus as es
    >>> status = [
    ...     {"source": "Webinar", "status": "finished", "dataFound": True},
    ...     {"source": "Webinar", "status": "failed", "dataFound": None},
    ...     {"source": "Webinar", "status": "pending", "dataFound": None},
    ... ]
    >>> es.coverage(status, by="source").frame[["source", "tasks", "ended", "with data", "share"]]
        source  tasks  ended  with data  share
    0  Webinar      3      2          1    0.5
    """
    names = parse_by(by)
    parse_number("small", small, least=0, whole=True, what="number of tasks")
    frame = frames.read(status)
    words, data = _answers(frame, prefix)
    if _is_nothing(frame):
        columns = pa.table({name: pa.array([], pa.string()) for name in names})
    else:
        theirs = [found(frame.columns, name, what="names", argument="by") for name in names]
        columns = comparable(frame.arrow(theirs)).rename_columns(list(names))
    segments = segment(columns, len(frame), taken=_COVERAGE)
    counts = pd.DataFrame(
        np.bincount(
            segments.code * len(OUTCOMES) + _outcomes(words, data), minlength=len(segments) * len(OUTCOMES)
        ).reshape(-1, len(OUTCOMES)),
        columns=list(OUTCOMES),
    ).astype(np.int64)
    counts["tasks"] = segments.count()
    counts["ended"] = counts["tasks"] - counts["pending"] - counts["no record"]
    counts["share"], counts["low"], counts["high"] = _wilson(counts["with data"], counts["ended"])
    counts["small"] = counts["ended"] < small
    table = segments.report(counts, "tasks")
    ended, with_data = int(counts["ended"].sum()), int(counts["with data"].sum())
    left = {name: int(counts[name].sum()) for name in ("pending", "no record")}
    return Report(
        table[[*names, *_COVERAGE]],
        _covered(with_data, ended, left),
        "coverage",
        names,
        _PERCENT,
        {"outcomes": table[list(OUTCOMES)], "small": small},
    )


def _is_nothing(frame: Frame) -> bool:
    """Tell a list of no objects, which has no columns either, from one that lacks a column."""
    return frame.objects and not len(frame)


def _answers(frame: Frame, prefix: str, who: str = "coverage()") -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Take ``status`` and ``dataFound`` of a frame."""
    if not isinstance(prefix, str):
        raise ValidationError(
            f"takes the text that the lookup put before its columns, not {prefix!r}.", argument="prefix"
        )
    if _is_nothing(frame):
        return pa.chunked_array([], pa.string()), pa.chunked_array([], pa.bool_())
    try:
        names = [found(frame.columns, prefix + name, what=f"{who} needs") for name in ("status", "dataFound")]
    except ValidationError as error:
        raise ValidationError(
            f"{error} Look the tasks up first, and give the prefix that the lookup was given."
        ) from error
    words, data = comparable(frame.arrow(names)).columns
    if words.null_count == len(words):
        words = pa.chunked_array([pa.nulls(len(words), pa.string())])
    if words.type != pa.string():
        raise ValidationError(
            f"The column {names[0]!r} holds {words.type}, not the text of a status such as 'finished'."
        )
    try:
        return words, data.cast(pa.bool_())
    except (pa.ArrowException, ValueError) as error:
        raise ValidationError(f"The column {names[1]!r} must hold true, false or null: {error}") from error


def _outcomes(words: pa.ChunkedArray, data: pa.ChunkedArray) -> Any:
    """Number what has become of each task, by its place in `OUTCOMES`; a status that is not ours counts as ended."""
    encoded = words.combine_chunks().dictionary_encode("encode")
    places = {"pending": "pending", "timeout": "timeout", "finished": "no data", None: "no record"}
    known = np.array([OUTCOMES.index(places.get(one, "failed")) for one in encoded.dictionary.to_pylist()], np.int64)
    outcome = known[encoded.indices.to_numpy(zero_copy_only=False)] if len(known) else np.zeros(0, np.int64)
    ended = outcome < OUTCOMES.index("pending")
    has = pc.fill_null(data, False).to_numpy()
    # a word of its own for failure tells nothing; that data was looked for and not found does
    none = pc.fill_null(pc.invert(data), False).to_numpy() & (outcome == OUTCOMES.index("failed"))
    strange = ~pc.fill_null(pc.equal(words, "failed"), True).to_numpy()
    outcome = np.where(none & strange, OUTCOMES.index("no data"), outcome)
    return np.where(ended & has, OUTCOMES.index("with data"), outcome)


def _wilson(hits: pd.Series[int], trials: pd.Series[int]) -> tuple[Any, Any, Any]:
    """Give the share and Wilson's 95 % interval, NaN where nothing was tried."""
    n = trials.to_numpy(np.float64)
    n = np.where(n > 0, n, np.nan)
    share = hits.to_numpy(np.float64) / n
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    # the bounds at none and at all are exactly these; rounding puts them a hair beside
    low = np.where(share == 0, 0.0, middle - half)
    return share, low, np.where(share == 1, 1.0, middle + half)


def _covered(with_data: int, ended: int, left: dict[str, int]) -> str:
    out = [f"{count:,} {'without a record' if name == 'no record' else name}" for name, count in left.items() if count]
    aside = f"; {' and '.join(out)} left out" if out else ""
    if not ended:
        return f"No task has ended{aside}"
    verb = "has" if with_data == 1 else "have"
    return f"{with_data:,} of {ended:,} ended tasks {verb} data ({100 * with_data / ended:.1f} %){aside}"


def diff(a: Any, b: Any, *, names: tuple[str, str] = ("a", "b")) -> Report:
    """Say where two lookups of a list disagree: of two sources, or at two moments.

    Parameters
    ----------
    a, b : DataFrame, Arrow table, DuckDB relation, list of dicts or path
        What the lookups gave: tasks with ``status`` and ``dataFound``. A task that stands in one several times counts once, as it
        stands first; keys match as everywhere, whatever the case of a UUID, its braces, dashes and outer white space.
    names : tuple of two str
        What to call the two.

    Returns
    -------
    Report
        ``.frame`` has a row for each task whose ``status`` or ``dataFound`` differ, or that only one has: the key, ``status_a``,
        ``status_b``, ``dataFound_a``, ``dataFound_b`` (named by `names`) and the ``change`` in words.

    Raises
    ------
    ValidationError
        A column is missing or of an unusable type, or `names` are not two.

    Examples
    --------
    >>> import enrichstatus as es
    >>> task = {"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails"}
    >>> before = [{**task, "status": "pending", "dataFound": None}]
    >>> after = [{**task, "status": "finished", "dataFound": True}]
    >>> es.diff(before, after).frame["change"].tolist()
    ['pending → finished']
    """
    pair = tuple(names) if not isinstance(names, str) else ()
    if len(pair) != 2 or not all(isinstance(name, str) and name for name in pair) or pair[0] == pair[1]:
        raise ValidationError(
            f'takes two distinct names, such as ("before", "after"), not {names!r}.', argument="names"
        )
    both = [frames.read(a), frames.read(b)]
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        create_vocabularies(con, _fields(both))
        left = sum(_keyed(con, *each) for each in zip(both, "ab", pair, strict=True))
        con.register("names", pa.table({"a": [pair[0]], "b": [pair[1]]}))
        compared = con.sql(DIFF_SQL)
        [(total,)] = con.sql("select count(*) from a full join b using (entityId, entityType, field)").fetchall()
        table = to_pandas(compared)
    renamed = {
        f"{column}_{side}": f"{column}_{name}" for side, name in zip("ab", pair, strict=True) for column in _TOLD
    }
    table = table.rename(columns=renamed)
    aside = f"; {left:,} rows without a usable key left out" if left else ""
    verb = "differs" if len(table) == 1 else "differ"
    changes = table["change"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    most = ", ".join(f"{count:,} {change}" for change, count in changes.head(3).items()) + (", …" * (len(changes) > 3))
    headline = (
        f"{len(table):,} of {total:,} tasks {verb} between {pair[0]} and {pair[1]}{f': {most}' if most else ''}{aside}"
    )
    return Report(table, headline, "diff", ("entityId", "entityType", "field"), {}, {"names": pair})


_TOLD = ("status", "dataFound")


def _fields(both: Sequence[Frame]) -> list[str]:
    """Give the fields that the two lists ask for: a store may have others than the contract's."""
    asked = [frame.arrow(["field"]) for frame in both if "field" in frame.columns]
    texts = {text for table in asked for text in comparable(table).column(0).unique().to_pylist()}
    return sorted(
        {str(text) for text in texts if isinstance(text, str) and text and text == text.strip()} | set(FIELDS)
    )


def _keyed(con: duckdb.DuckDBPyConnection, frame: Frame, table: str, name: str) -> int:
    """Make the table of one lookup's distinct tasks, and say how many of its rows have no usable key."""
    words, data = _answers(frame, "", who=name)
    check(con, frame, errors="coerce")
    con.register("answers", pa.table({"position": np.arange(len(frame)), "status": words, "dataFound": data}))
    con.execute(_KEYED_SQL)
    con.execute(f"alter table keyed_tasks rename to {table}")
    [(good,)] = con.execute("select count(*) from tasks").fetchall()
    con.execute("drop table tasks")
    return len(frame) - int(good)


_KEYED_SQL = """
create temp table keyed_tasks as
select distinct on (tasks.entityId, tasks.entityType, tasks.field)
    tasks.position, tasks.entityId, tasks.entityType, tasks.field, answers.status, answers.dataFound
from tasks
inner join answers on answers.position = tasks.position
order by tasks.position
"""
